"""Deep networks for multi-label classification.

    python keras_examples/multilabel.py                    # Bibtex
    python keras_examples/multilabel.py --layers 4 16 64
    python keras_examples/multilabel.py --data mediamill --folder my/data

Figure 7 of Zhang et al. (2018): MLP, ResNet and both with `SpectralDense`,
layers of 128, dropout 0.1, binary cross-entropy; precision among the 1, 3 and
5 highest scores, at the epoch of the best validation precision among 3. What
is finished is kept in `runs.csv`, and a stopped run goes on from there.
"""

import argparse

import keras
import numpy as np

from support import arguments
from support import cells
from support import records
from support.deep_networks import KINDS
from support.deep_networks import hidden_layers
from tf_spectral import datasets
from tf_spectral import files
from tf_spectral import plotting

TOP = (1, 3, 5)
PRECISIONS = [f"precision_at_{k}" for k in TOP]


def parse_arguments():
    parser = arguments.parser(
        __doc__, out="results/multilabel_<data>", seed=False, jit=True
    )
    add = parser.add_argument
    add("--data", default="bibtex", help="name of the set")
    add("--folder", help="default: $TF_SPECTRAL_DATA/multilabel")
    add("--kind", nargs="+", choices=KINDS, default=list(KINDS))
    add("--layers", type=int, nargs="+", default=[2, 8, 32])
    add("--units", type=int, default=128)
    add("--dropout", type=float, default=0.1)
    add("--reflectors", type=int, default=16)
    add("--reflector-scale", type=float, default=0.1)
    add("--sigma-center", type=float, default=1.06)
    add("--sigma-radius", type=float, default=0.1)
    add("--sigma-penalty", type=float, help="instead of bounds")
    add("--slope", type=float, default=0.2, help="of the leaky ReLU")
    add("--batch", type=int, default=128)
    add("--epochs", type=int, default=40)
    add("--learning-rate", type=float, default=1e-3)
    add("--seeds", type=int, default=3)
    return arguments.parse(parser)


def build_model(kind, train, args):
    (x, y), steps = train, -(-len(train[0]) // args.batch)
    inputs = keras.Input((x.shape[1],))
    hidden = hidden_layers(kind, inputs, args, args.dropout)
    outputs = keras.layers.Dense(y.shape[1], "sigmoid")(hidden)
    model = keras.Model(inputs, outputs, name=kind)
    rate = keras.optimizers.schedules.CosineDecay(
        args.learning_rate, args.epochs * steps
    )
    model.compile(
        optimizer=keras.optimizers.Adam(rate, clipnorm=1.0),
        loss="binary_crossentropy",
        metrics=[
            keras.metrics.Precision(top_k=k, name=name)
            for k, name in zip(TOP, PRECISIONS)
        ],
        jit_compile=args.jit,
    )
    return model


def run(layers, kind, seed, args):
    """One training; returns a row of `runs.csv`."""
    keras.utils.clear_session()
    keras.utils.set_random_seed(seed)
    train, validation, test = datasets.multilabel(
        args.data, folder=args.folder, validation_split=0.1, seed=seed
    )
    settings = argparse.Namespace(**{**vars(args), "layers": layers})
    model = build_model(kind, train, settings)
    history = model.fit(
        *train,
        batch_size=args.batch,
        epochs=args.epochs,
        validation_data=validation,
        validation_batch_size=1024,
        callbacks=[
            keras.callbacks.EarlyStopping(
                monitor="val_precision_at_3",
                mode="max",
                patience=args.epochs,
                restore_best_weights=True,
            ),
            keras.callbacks.TerminateOnNaN(),
        ],
        verbose=0,
    ).history
    results = model.evaluate(
        *test, batch_size=1024, verbose=0, return_dict=True
    )
    validation = history["val_precision_at_3"]
    return {
        "layers": layers,
        "kind": kind,
        "seed": seed,
        **{name: results[name] for name in PRECISIONS},
        "validation": max(validation),
        "epoch": int(np.argmax(validation)) + 1,
    }


def table(rows, args):
    """Means (and standard deviations) over seeds of each network and depth."""
    lines = ["| layers | network | P@1 | P@3 | P@5 |", "|---" * 5 + "|"]
    curves = {}
    for layers in args.layers:
        for kind in args.kind:
            own = [
                [float(row[name]) for name in PRECISIONS]
                for row in rows
                if (row["layers"], row["kind"]) == (str(layers), kind)
            ]
            means = np.mean(own, axis=0)
            spreads = np.std(own, axis=0, ddof=min(1, len(own) - 1))
            shown = [f"{m:.4f} ({s:.4f})" for m, s in zip(means, spreads)]
            label = cells.NAMES[kind]
            lines.append(f"| {layers} | {label} | " + " | ".join(shown) + " |")
            curve = curves.setdefault(label, {"update": args.layers})
            for name, mean in zip(PRECISIONS, means):
                curve.setdefault(name, []).append(mean)
    return "\n".join(lines) + "\n", curves


def report(rows, args):
    """Writes the table and the figure."""
    lines, curves = table(rows, args)
    files.write_text(args.out / "table.md", lines)
    print("\n" + lines)
    figure = plotting.update_curves(
        curves,
        "precision_at_3",
        title=f"Precision among the 3 highest scores, {args.data.capitalize()}",
        xlabel="Hidden layers",
        ylabel="Precision",
    )
    records.save_figure(figure, args.out / "precision.png")


def main():
    args = parse_arguments()
    plan = [
        (layers, kind, seed)
        for layers in args.layers
        for kind in args.kind
        for seed in range(args.seeds)
    ]
    rows = records.run_all(plan, run, args, key=("layers", "kind", "seed"))
    report(rows, args)


if __name__ == "__main__":
    main()

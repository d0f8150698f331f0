"""Copying memory by coordinate descent on the orthogonal group.

    python keras_examples/orthogonal_copying.py            # solves L = 1000
    python keras_examples/orthogonal_copying.py --length 100 --iterations 400
    python keras_examples/orthogonal_copying.py --iterations 1000 \
        --method srgd srcd_u srcd_gs srcd_gs_block         # Figure 3
    python keras_examples/orthogonal_copying.py --timings  # Table 1

The experiment of Massart and Abrol (2022): 190 units with modReLU, planes that
turn by Henaff's angles as a start, batch 128. `srgd`, `srcd_u` (a plane drawn
uniformly), `srcd_gs` (the plane of the largest partial derivative) and
`srcd_gs_block` (0.5 % of all planes, disjoint) take the paper's fixed step;
`srcd_adaptive` divides the partial derivatives of every plane by their root
mean square, halves its rate every 1000 iterations, and solves the task. Each
run also keeps the partial derivatives of its first and its 500th iteration
(Figure 2). A stopped run goes on where it was when the same command is given
again.
"""

import functools

import keras
import numpy as np
from keras import ops

from support import arguments
from support import fitting
from support import records
from support.timing import median_seconds
from support.timing import training_step
from tf_spectral import datasets
from tf_spectral import files
from tf_spectral import plotting
from tf_spectral.backend.gradients import compiled_gradient
from tf_spectral.constraints import Orthogonal
from tf_spectral.initializers import BlockRotation
from tf_spectral.layers import OrthogonalRNN
from tf_spectral.linalg.orthogonal import skew_gradient
from tf_spectral.optimizers import SRCD
from tf_spectral.optimizers import SRGD

METHODS = {
    "sgd": "SGD, no constraint",
    "srgd": "SRGD",
    "srcd_u": "SRCD-U",
    "srcd_gs": "SRCD-GS",
    "srcd_gs_block": "SRCD-GS, block 0.5 %",
    "srcd_adaptive": "SRCD-GS, full block, RMSprop",
    "srgd_default": "SRGD()",
    "srcd_default": "SRCD()",
}
TIMED = {
    "sgd": "SGD",
    "srgd": "SRGD",
    "srcd_gs": "SRCD-GS",
    "srcd_gs_block": "SRCD-GS block",
    "srcd_u": "SRCD-U",
}


def parse_arguments():
    parser = arguments.parser(
        __doc__, out="results/orthogonal_copying", jit=True
    )
    add = parser.add_argument
    add("--method", nargs="+", choices=list(METHODS), default=["srcd_adaptive"])
    add("--length", type=int, default=1000, help="steps to remember (L)")
    add("--iterations", type=int, default=4000)
    add("--units", type=int, default=190)
    add("--batch", type=int, default=128)
    add("--learning-rate", type=float, help="2e-4; adaptive: from 1e-3")
    add("--steps", type=int, default=100, help="iterations in a row of the log")
    add("--seeds", type=int, default=1, help="runs to average, of srcd_u only")
    add("--validation", type=int, default=256, help="sequences; 0: none")
    add("--timings", action="store_true", help="Table 1, no training")
    return arguments.parse(parser)


def make_optimizer(method, args, seed):
    if method == "srcd_adaptive":
        # Halved every 1000 iterations: without that, a late step in a
        # thousand throws the loss back for a while.
        rate = keras.optimizers.schedules.ExponentialDecay(
            args.learning_rate or 1e-3, decay_steps=1000, decay_rate=0.5
        )
        return SRCD(
            rate,
            selection="greedy",
            block_size=args.units // 2,
            adaptive="rmsprop",
            beta_2=0.99,
            euclidean_optimizer=keras.optimizers.RMSprop(rate, rho=0.99),
            seed=seed,
        )
    if method.endswith("_default"):
        return SRGD() if method == "srgd_default" else SRCD(seed=seed)
    rate = args.learning_rate or 2e-4
    if method == "sgd":
        return keras.optimizers.SGD(rate)
    if method == "srgd":
        return SRGD(rate)
    options = {
        "srcd_u": {"selection": "random"},
        "srcd_gs": {"selection": "greedy"},
        "srcd_gs_block": {"selection": "greedy", "block_size": 0.005},
    }
    return SRCD(rate, seed=seed, **options[method])


def build_model(method, args, seed):
    """The network; `sgd` alone moves without any constraint."""
    model = keras.Sequential(
        [
            keras.Input((args.length + 20, 10)),
            OrthogonalRNN(
                args.units,
                return_sequences=True,
                use_bias=False,
                kernel_initializer="he_normal",
                recurrent_initializer=BlockRotation(seed=seed),
                recurrent_constraint=None if method == "sgd" else Orthogonal(),
            ),
            keras.layers.Dense(9, kernel_initializer="he_normal"),
        ]
    )
    model.compile(
        optimizer=make_optimizer(method, args, seed),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=args.jit,
    )
    return model


class PartialDerivatives(keras.callbacks.Callback):
    """Keeps the partial derivatives of the loss by the planes (Figure 2).

    Args:
        layer: `OrthogonalRNN`.
        batch: Pair of arrays `(x, y)` to measure on.
        folder: `pathlib.Path`; gets `partial_derivatives_<iteration>.npz`.
        iterations: When to measure. Each must be a multiple of the
            iterations in an epoch.
    """

    def __init__(self, layer, batch, folder, iterations=(0, 500)):
        super().__init__()
        self.layer, self.batch, self.folder = layer, batch, folder
        self.iterations = iterations

    def on_epoch_begin(self, epoch, logs=None):
        iteration = int(ops.convert_to_numpy(self.model.optimizer.iterations))
        if iteration not in self.iterations:
            return
        values = partial_derivatives(self.model, self.layer, *self.batch)
        path = self.folder / f"partial_derivatives_{iteration}.npz"
        with files.replaced(path) as beside:
            np.savez_compressed(beside, values=values.astype("float32"))


def partial_derivatives(model, layer, x, y):
    """`|S_jl| / sqrt(2)` of all pairs `j < l`, an array `(d (d - 1) / 2,)`."""
    kernel = layer.cell.recurrent_kernel

    def loss(r, x, y):
        weights = [
            r if v is kernel else v.value for v in model.trainable_variables
        ]
        others = [v.value for v in model.non_trainable_variables]
        outputs, _ = model.stateless_call(weights, others, x)
        return ops.mean(
            keras.losses.sparse_categorical_crossentropy(
                y, outputs, from_logits=True
            )
        )

    r = ops.convert_to_tensor(kernel)
    arguments = (ops.convert_to_tensor(x), ops.convert_to_tensor(y))
    g = compiled_gradient(loss, model.variables)(r, *arguments)
    s = ops.convert_to_numpy(skew_gradient(r, g))
    return np.abs(s[np.triu_indices(len(s), 1)]) / np.sqrt(2)


def shares(values, parts=(0.95, 0.99)):
    """The smallest shares of coordinates that hold parts of the norm.

    Args:
        values: Array of partial derivatives.
        parts: Parts of the Euclidean norm.

    Returns:
        List of floats in (0, 1], one for each part.
    """
    norms = np.sqrt(np.cumsum(np.sort(values.astype("float64") ** 2)[::-1]))
    counts = [np.searchsorted(norms, part * norms[-1]) + 1 for part in parts]
    return [float(count / len(values)) for count in counts]


def train(method, args, seed):
    """Trains one model; returns the path of its log."""
    keras.utils.clear_session()
    keras.utils.set_random_seed(seed)
    make = functools.partial(datasets.copying, delay=args.length)
    folder = args.out / f"{method}_seed{seed}"
    records.write_command(folder, args)
    model = build_model(method, args, seed)
    options = {}
    if args.validation:
        options = {
            "validation_data": make(args.validation, seed=seed + 10**6),
            "validation_batch_size": args.batch,
        }
    keeper = PartialDerivatives(
        model.layers[0], make(args.batch, seed=seed + 2 * 10**6), folder
    )
    return fitting.fit_stream(
        model,
        lambda first: datasets.stream(
            make, args.batch, seed=seed, first_batch=first
        ),
        args.iterations,
        folder,
        steps=args.steps,
        callbacks=[keeper],
        **options,
    )


def summarize(logs, args):
    """Prints and draws the runs: Figure 3, and Figure 2 of each method."""
    baseline = datasets.copying_baseline(args.length)
    print(f"\nCross-entropy without memory: {baseline:.6f}")
    curves = {}
    for method, paths in logs.items():
        columns = mean_columns([plotting.read_log(path) for path in paths])
        columns["update"] = args.steps * (columns["epoch"] + 1)
        curves[METHODS[method]] = columns
        print(f"{METHODS[method]:>30}: last row {columns['loss'][-1]:.6f}")
        draw_partial_derivatives(paths[0].parent, method)
    figure = plotting.update_curves(
        curves, baseline=baseline, log_scale=True, ylabel="Cross-entropy"
    )
    path = args.out / "copying.png"
    records.save_figure(figure, path)
    print(f"figure: {path}")


def mean_columns(runs):
    """The mean of the logs of several runs, as far as the shortest goes."""
    rows = min(len(run["loss"]) for run in runs)
    return {
        name: np.mean([run[name][:rows] for run in runs], axis=0)
        for name in runs[0]
        if all(name in run for run in runs)
    }


def draw_partial_derivatives(folder, method):
    """Figure 2 of one run, and the shares of coordinates beside it."""
    values, found = {}, {}
    for path in sorted(folder.glob("partial_derivatives_*.npz")):
        iteration = path.stem.rsplit("_", 1)[1]
        label = f"iteration {iteration}"
        values[label] = np.load(path)["values"]
        found[iteration] = shares(values[label])
    if not values:
        return
    for iteration, (most, nearly_all) in found.items():
        print(
            f"{METHODS[method]:>30}: iteration {iteration}: {most:.2%} of the "
            f"coordinates hold 95 % of the gradient's norm, {nearly_all:.2%} "
            "hold 99 %"
        )
    records.write_json(folder / "shares.json", found)
    figure = plotting.partial_derivatives(values)
    records.save_figure(figure, folder / "partial_derivatives.png")


def print_timings(args, repeats=7):
    """Table 1: a whole iteration, and the optimizer's update alone."""
    x, y = datasets.copying(args.batch, delay=args.length, seed=args.seed)
    print("| | " + " | ".join(TIMED.values()) + " |")
    print("|---" * (len(TIMED) + 1) + "|")
    models = {method: build_model(method, args, args.seed) for method in TIMED}
    steps = {
        method: training_step(model, x, y) for method, model in models.items()
    }
    print_row("seconds an iteration", steps, repeats)
    updates = {method: update_alone(model) for method, model in models.items()}
    print_row("seconds an update", updates, 10 * repeats)


def update_alone(model):
    """A function that applies given gradients, compiled on TensorFlow."""
    rng = np.random.default_rng(0)
    gradients = [
        ops.convert_to_tensor(1e-3 * rng.standard_normal(v.shape, "float32"))
        for v in model.trainable_variables
    ]

    def update():
        model.optimizer.apply(gradients, model.trainable_variables)

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.function(update)
    return update


def print_row(name, functions, repeats):
    """Medians of functions that are timed in turn."""
    medians = median_seconds(functions, repeats, warmup=1).values()
    print(f"| {name} | " + " | ".join(f"{m:.5f}" for m in medians) + " |")


def main():
    args = parse_arguments()
    if args.timings:
        print_timings(args)
        return
    records.write_command(args.out, args)
    logs = {}
    for method in args.method:
        runs = args.seeds if method == "srcd_u" else 1
        seeds = range(args.seed, args.seed + runs)
        logs[method] = [train(method, args, seed) for seed in seeds]
    summarize(logs, args)


if __name__ == "__main__":
    main()

"""Lipschitz constants of a recurrent network, every tier along one training.

    python keras_examples/spectral_descent_bounds.py
    python keras_examples/spectral_descent_bounds.py --tier global

A small network is trained by full gradients, one weight after another. Every
tier of its constants is drawn beside the largest curvature that can be found,
and the decrease of the loss that each step was sure of beside the one it had.

After Liu, Hsieh and Cevher, "A novel optimization method for recurrent neural
network by non-Euclidean geometry".
"""

import csv

import keras
import numpy as np
from keras import ops

from support import arguments
from support import records
from tf_spectral import files
from tf_spectral import plotting
from tf_spectral.backend.gradients import compiled_gradient
from tf_spectral.bounds import rnn_lipschitz_constants
from tf_spectral.bounds import rnn_loss_bound
from tf_spectral.callbacks import LipschitzEstimator
from tf_spectral.linalg.polar import nuclear_norm
from tf_spectral.linalg.polar import polar_factor
from tf_spectral.optimizers import SpectralDescent

WEIGHTS = ("input", "recurrent", "output")
TIERS = ("global", "vector", "tensor", "paper")


def parse_arguments():
    parser = arguments.parser(__doc__, out="results/spectral_descent/bounds")
    add = parser.add_argument
    add("--units", type=int, default=6)
    add("--symbols", type=int, default=4, help="different inputs and labels")
    add("--length", type=int, default=8)
    add("--batch", type=int, default=32)
    add("--updates", type=int, default=300)
    add("--tier", choices=("vector", "tensor", "global"), default="vector")
    add("--activation", choices=("tanh", "sigmoid"), default="tanh")
    add("--every", type=int, default=10, help="updates between curvatures")
    return arguments.parse(parser)


def make_task(args):
    """Sequences of symbols; each step is to name the symbol before it."""
    rng = np.random.default_rng(args.seed)
    symbols = rng.integers(0, args.symbols, (args.batch, args.length))
    x = np.eye(args.symbols)[symbols]
    y = np.concatenate([symbols[:, :1], symbols[:, :-1]], axis=1)
    return x, y.astype("int32")


def build_model(args):
    """A network in float64, without biases: three weights."""
    model = keras.Sequential(
        [
            keras.Input((args.length, args.symbols), dtype="float64"),
            keras.layers.SimpleRNN(
                args.units,
                activation=args.activation,
                use_bias=False,
                return_sequences=True,
                dtype="float64",
            ),
            keras.layers.Dense(args.symbols, use_bias=False, dtype="float64"),
        ]
    )
    model.compile(
        optimizer=SpectralDescent(lipschitz="bound", selection="cyclic"),
        loss=keras.losses.SparseCategoricalCrossentropy(
            from_logits=True, dtype="float64"
        ),
    )
    return model


class Watcher(keras.callbacks.Callback):
    """Keeps loss, certified decrease and constants, update by update."""

    def __init__(self, x, y, args):
        super().__init__()
        self.x, self.y, self.args = x, y, args
        self.rows = []
        self.gradients = {
            name: compiled_gradient(self._loss_of(name), []) for name in WEIGHTS
        }

    def _loss_of(self, name):
        place = WEIGHTS.index(name)

        def loss(w, *others):
            kernels = [*others[:place], w, *others[place:]]
            return rnn_loss_bound(
                *kernels, self.x, self.y, {}, activation=self.args.activation
            )

        return loss

    def _gradient(self, name, kernels, moved=None):
        others = [kernels[other] for other in WEIGHTS if other != name]
        w = kernels[name] if moved is None else moved
        return self.gradients[name](w, *others)

    def on_train_batch_begin(self, batch, logs=None):
        update = len(self.rows)
        kernels = {
            name: ops.convert_to_tensor(v.value)
            for name, v in zip(WEIGHTS, self.model.trainable_variables)
        }
        row = {"update": update + 1, "loss": self._loss(kernels)}
        name = WEIGHTS[update % len(WEIGHTS)]
        norm = float(nuclear_norm(self._gradient(name, kernels), exact=True))
        constants = ops.convert_to_numpy(self.model.optimizer.constants)
        row["certified"] = norm**2 / (2 * constants[WEIGHTS.index(name)])
        if update % self.args.every == 0:
            row.update(self._constants(kernels))
        self.rows.append(row)

    def on_train_batch_end(self, batch, logs=None):
        kernels = dict(zip(WEIGHTS, self.model.trainable_variables))
        row = self.rows[-1]
        row["decrease"] = row["loss"] - self._loss(kernels)

    def _loss(self, kernels):
        return float(
            rnn_loss_bound(
                *(ops.convert_to_tensor(kernels[name]) for name in WEIGHTS),
                self.x,
                self.y,
                {},
                activation=self.args.activation,
            )
        )

    def _constants(self, kernels):
        columns = {}
        for tier in TIERS:
            constants = rnn_lipschitz_constants(
                *(kernels[name] for name in WEIGHTS),
                self.x,
                activation=self.args.activation,
                tier=tier,
                weights=WEIGHTS,
            )
            for name in WEIGHTS:
                columns[f"{name}/{tier}"] = float(constants[name])
        for name in WEIGHTS:
            columns[f"{name}/curvature"] = self._curvature(name, kernels)
        return columns

    def _curvature(self, name, kernels, starts=8, rounds=30, size=1e-4):
        """The largest `D^T H D` found with `||D||_2 = 1`.

        `D <- polar(H D + s D)` never lowers it once `H + s` is positive. The
        direction of the gradient is among the starts.
        """
        rng = np.random.default_rng(0)
        w = kernels[name]
        directions = [self._gradient(name, kernels)]
        directions += [
            ops.convert_to_tensor(rng.standard_normal(w.shape))
            for _ in range(starts - 1)
        ]
        best = -np.inf
        for d in directions:
            d, shift = polar_factor(d, exact=True), 0.0
            for _ in range(rounds):
                ahead = self._gradient(name, kernels, w + size * d)
                behind = self._gradient(name, kernels, w - size * d)
                product = (ahead - behind) / (2 * size)
                value = float(ops.sum(d * product))
                best = max(best, value)
                shift = max(shift, -2 * value)
                d = polar_factor(product + shift * d, exact=True)
        return best


def report(rows, args):
    """Writes the log, draws the figures, and counts what did not hold."""
    fields = sorted({key for row in rows for key in row})
    path = args.out / "log.csv"
    with files.replaced(path) as beside, beside.open("w", newline="") as file:
        writer = csv.DictWriter(file, fields)
        writer.writeheader()
        writer.writerows(rows)
    log = plotting.read_log(path)
    rises = int(np.sum(log["decrease"] < 0))
    short = int(np.sum(log["decrease"] < log["certified"] * (1 - 1e-9)))
    print(
        f"loss {log['loss'][0]:.4f} -> {log['loss'][-1]:.4f} in "
        f"{len(rows)} updates; {rises} rose, {short} fell by less than their "
        f"constant ({args.tier}) says"
    )
    for name in WEIGHTS:
        curvature = log[f"{name}/curvature"]
        for tier in TIERS:
            ratio = np.nanmax(curvature / log[f"{name}/{tier}"])
            print(f"{name:>10} {tier:>7}: curvature / constant <= {ratio:.3f}")
    draw(log, args)


def draw(log, args):
    """Constants and decreases over the updates."""
    for name in WEIGHTS:
        curves = {"Largest curvature found": f"{name}/curvature"}
        curves |= {f'tier="{tier}"': f"{name}/{tier}" for tier in TIERS}
        logs = {
            label: {"update": log["update"], "constant": log[column]}
            for label, column in curves.items()
        }
        figure = plotting.update_curves(
            logs,
            "constant",
            log_scale=True,
            title=f"Lipschitz constants, {name} kernel",
            ylabel="Constant in the spectral norm",
            dashed=['tier="paper"'],
        )
        records.save_figure(figure, args.out / f"constants_{name}.png")
    # One weight after another: each third row is of the same one.
    decreases = {
        f"{name}, {label}": {
            "update": log["update"][place :: len(WEIGHTS)],
            "decrease": log[column][place :: len(WEIGHTS)],
        }
        for place, name in enumerate(WEIGHTS)
        for label, column in (
            ("measured", "decrease"),
            ("certified", "certified"),
        )
    }
    figure = plotting.update_curves(
        decreases,
        "decrease",
        log_scale=True,
        title="Decrease of the loss by each step",
        ylabel="Decrease (nats)",
        dashed=[label for label in decreases if label.endswith("certified")],
    )
    records.save_figure(figure, args.out / "decrease.png")
    print(f"figures: {args.out}/*.png")


def main():
    args = parse_arguments()
    records.write_command(args.out, args, fixed=True)
    keras.utils.set_random_seed(args.seed)
    x, y = make_task(args)
    model = build_model(args)
    estimator = LipschitzEstimator(x, y, every=1, tier=args.tier, safety=1.0)
    watcher = Watcher(x, y, args)
    model.fit(
        x,
        y,
        batch_size=len(x),
        epochs=args.updates,
        callbacks=[estimator, watcher, keras.callbacks.TerminateOnNaN()],
        verbose=0,
    )
    report(watcher.rows, args)


if __name__ == "__main__":
    main()

"""What `orthogonal_copying.py` measures and draws."""

import common
import keras
import numpy as np
from keras import ops

from tf_spectral import datasets
from tf_spectral import files
from tf_spectral import plotting
from tf_spectral.backend.gradients import compiled_gradient
from tf_spectral.linalg.orthogonal import skew_gradient

NAMES = {
    "sgd": "SGD, no constraint",
    "srgd": "SRGD",
    "srcd_u": "SRCD-U",
    "srcd_gs": "SRCD-GS",
    "srcd_gs_block": "SRCD-GS, block 0.5 %",
    "srcd_adaptive": "SRCD-GS, full block, RMSprop",
}


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


def summarize(logs, args):
    """Prints and draws the runs: Figure 3, and Figure 2 of each method."""
    baseline = datasets.copying_baseline(args.length)
    print(f"\nCross-entropy without memory: {baseline:.6f}")
    curves = {}
    for method, paths in logs.items():
        columns = mean_columns([plotting.read_log(path) for path in paths])
        columns["update"] = args.steps * (columns["epoch"] + 1)
        curves[NAMES[method]] = columns
        print(f"{NAMES[method]:>30}: last row {columns['loss'][-1]:.6f}")
        draw_partial_derivatives(paths[0].parent, method)
    figure = plotting.update_curves(
        curves, baseline=baseline, log_scale=True, ylabel="Cross-entropy"
    )
    path = args.out / "copying.png"
    common.save_figure(figure, path)
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
            f"{NAMES[method]:>30}: iteration {iteration}: {most:.2%} of the "
            f"coordinates hold 95 % of the gradient's norm, {nearly_all:.2%} "
            "hold 99 %"
        )
    common.write_json(folder / "shares.json", found)
    figure = plotting.partial_derivatives(values)
    common.save_figure(figure, folder / "partial_derivatives.png")


def print_timings(args, build_model, repeats=7):
    """Table 1: a whole iteration, and the optimizer's update alone."""
    x, y = datasets.copying(args.batch, delay=args.length, seed=args.seed)
    print("| | " + " | ".join(TIMED.values()) + " |")
    print("|---" * (len(TIMED) + 1) + "|")
    models = {method: build_model(method, args, args.seed) for method in TIMED}
    steps = {
        method: common.training_step(model, x, y)
        for method, model in models.items()
    }
    print_row("seconds an iteration", steps, repeats)
    updates = {method: update_alone(model) for method, model in models.items()}
    print_row("seconds an update", updates, 10 * repeats)


TIMED = {
    "sgd": "SGD",
    "srgd": "SRGD",
    "srcd_gs": "SRCD-GS",
    "srcd_gs_block": "SRCD-GS block",
    "srcd_u": "SRCD-U",
}


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
    medians = common.median_seconds(functions, repeats).values()
    print(f"| {name} | " + " | ".join(f"{m:.5f}" for m in medians) + " |")

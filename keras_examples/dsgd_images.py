"""DSGD on images: the experiments of its paper (Flynn, 2017, section 5).

    python keras_examples/dsgd_images.py                    # 8x8 digits
    python keras_examples/dsgd_images.py --data mnist --updates 500
    python keras_examples/dsgd_images.py --mode stochastic --data mnist

A network of pixels - 300 - 10 logistic units learns one-hot labels; the loss
is the sum of squares, weights start in [-1, 1]. `--mode batch` takes steps by
the gradient of all training data: DSGD with no step size to tune, and beside
it RANDOM and SEQUENTIAL, which choose the layer without looking and whose
step is the best of a grid. `--mode stochastic` trains on batches of 128 with
DSGD_ALL, normed SGD and SGD, all with the best step of the grid. A stopped
run goes on where it was when the same command is given again. TensorFlow only.
"""

import argparse
import csv
import json
import pathlib
import sys

import keras
import numpy as np

from support import arguments
from support import fitting
from support import records
from tf_spectral import callbacks
from tf_spectral import datasets
from tf_spectral import files
from tf_spectral import plotting
from tf_spectral.bounds import LayerwiseSmoothness
from tf_spectral.losses import SumOfSquares
from tf_spectral.optimizers import DSGD

RATES = (0.001, 0.01, 0.1, 1.0, 10.0)
SELECTIONS = {
    "batch": {
        "dsgd": "greedy",
        "random": "random",
        "sequential": "cyclic",
    },
    "stochastic": {"dsgd_all": "all", "normed_sgd": "all", "sgd": None},
}
TITLES = {
    "digits": "8x8 digits",
    "mnist": "MNIST",
    "fashion_mnist": "Fashion-MNIST",
    "cifar10": "CIFAR-10",
    "svhn": "SVHN",
}
PAPER_UPDATES = 20_000
PAPER_EPOCHS = 500
# As many updates as make a short first look.
UPDATES = {"digits": 100}
EPOCHS = {"digits": 10}


def norm(text):
    return "inf" if text == "inf" else int(text)


def parse_arguments():
    parser = arguments.parser(__doc__)
    add = parser.add_argument
    add("--mode", choices=sorted(SELECTIONS), default="batch")
    add("--data", choices=sorted(TITLES), default="digits")
    add("--methods", nargs="+", help="default: all of the mode")
    add("--norms", nargs="+", type=norm, choices=(1, 2, "inf"))
    add("--updates", type=int, help="the paper: 20,000 (batch)")
    add("--epochs", type=int, help="the paper: 500 (stochastic)")
    add("--grid-updates", type=int, help="for choosing a step size")
    add("--grid-epochs", type=int, help="for choosing a step size")
    add("--rate", type=float, help="a step size for all, without a grid")
    add("--certified-blocks", action="store_true", help="see make_optimizer")
    add("--polar-accuracy", default="standard")
    add("--units", type=int, default=300)
    add("--no-bias", action="store_true", help="as in the paper's formulas")
    add("--batch", type=int, default=128)
    add("--chunk", type=int, default=5000, help="examples in memory at once")
    add("--limit", type=int, help="how many training images to use")
    add("--evaluate-every", type=int, default=10, help="updates")
    add("--save-every", type=int, default=50, help="updates")
    add("--out", type=pathlib.Path, help="default: results/dsgd_<data>_<mode>")
    args = arguments.parse(parser)
    known = list(SELECTIONS[args.mode])
    args.methods = args.methods or known
    if not set(args.methods) <= set(known):
        parser.error(f"--methods of --mode {args.mode} are {known}")
    args.norms = args.norms or [1, 2, "inf"]
    args.updates = args.updates or UPDATES.get(args.data, 500)
    args.epochs = args.epochs or EPOCHS.get(args.data, 30)
    args.grid_updates = args.grid_updates or max(args.updates // 10, 10)
    args.grid_epochs = args.grid_epochs or max(args.epochs // 10, 2)
    name = f"dsgd_{args.data}_{args.mode}"
    args.out = args.out or pathlib.Path("results") / name
    return args


def load(args):
    name = "svhn_cropped" if args.data == "svhn" else args.data
    parts = datasets.images(name, one_hot=True, seed=args.seed)
    data = dict(zip(("train", "validation", "test"), parts))
    if args.limit:
        apart = args.limit // 6
        sizes = {"train": args.limit - apart, "validation": apart}
        for part, size in sizes.items():
            # A copy, which lets go of the rest.
            data[part] = tuple(a[:size].copy() for a in data[part])
    return data


def build_model(inputs, args):
    keras.utils.set_random_seed(args.seed)
    uniform = keras.initializers.RandomUniform

    def layer(units, name):
        return keras.layers.Dense(
            units,
            activation="sigmoid",
            use_bias=not args.no_bias,
            kernel_initializer=uniform(-1.0, 1.0),
            bias_initializer=uniform(-1.0, 1.0),
            name=name,
        )

    return keras.Sequential(
        [
            keras.Input((inputs,)),
            layer(args.units, "hidden"),
            layer(10, "output"),
        ]
    )


def input_norm(parts, q, mean):
    """The root mean square of `||x||_q` over the data, or the largest.

    Bounds of the curvature have its square as a factor, so the mean is
    allowed where the loss is that of all data.
    """
    order = np.inf if q == "inf" else q
    norms = [
        np.linalg.norm(x[i : i + 1000], ord=order, axis=1)
        for x, _ in parts
        for i in range(0, len(x), 1000)
    ]
    norms = np.concatenate(norms).astype("float64")
    return float(np.sqrt(np.mean(norms**2)) if mean else norms.max())


def make_optimizer(method, q, model, parts, args):
    """The optimizer of a method, and whether its steps are certified.

    The paper's RANDOM and SEQUENTIAL, like its normed SGD, take no notice of
    the curvature: a step size times the duality map of the gradient. With
    `--certified-blocks` RANDOM and SEQUENTIAL take DSGD's length of step, and
    the loss falls at every step of theirs, too.
    """
    selection = SELECTIONS[args.mode][method]
    if method == "sgd":
        return keras.optimizers.SGD(args.rate or 1.0), False
    bounded = method in ("dsgd", "dsgd_all") or args.certified_blocks
    smoothness = "constant"
    if bounded and method != "normed_sgd":
        smoothness = LayerwiseSmoothness.from_model(
            model,
            norm=q,
            input_norm=input_norm(parts, q, mean=args.mode == "batch"),
            # Logistic outputs and one-hot labels are in [0, 1].
            residual=1.0,
            loss=SumOfSquares(),
        )
    optimizer = DSGD(
        args.rate or 1.0,
        norm=q,
        selection=selection,
        smoothness=smoothness,
        polar_accuracy=args.polar_accuracy,
        seed=args.seed,
    )
    certified = selection != "all" and smoothness != "constant"
    return optimizer, certified and args.rate in (None, 1.0)


def choose_rate(folder, trial, settings):
    """The rate with the least validation loss; trials done are not repeated."""
    path = folder / "grid.json"
    settings = {name: str(value) for name, value in vars(settings).items()}
    grid = json.loads(path.read_text()) if path.exists() else None
    if grid is None or grid["settings"] != settings:
        grid = {"settings": settings, "validation_loss": {}}
    losses = grid["validation_loss"]
    for rate in RATES:
        if str(rate) not in losses:
            losses[str(rate)] = float(np.nan_to_num(trial(rate), nan=np.inf))
            records.write_json(path, grid)
    best = min(RATES, key=lambda rate: losses[str(rate)])
    print(f"step size {best} of {losses}")
    return best


def run_settings(method, q, args, *names):
    """What a run depends on; a log is not continued with other values."""
    names += ("mode", "data", "rate", "units", "no_bias", "limit", "seed")
    names += ("certified_blocks", "polar_accuracy")
    values = {name: getattr(args, name) for name in names}
    return argparse.Namespace(method=method, norm=q, **values)


def train_full_batch(method, q, data, args, folder):
    from support.full_batch import FullBatchRun
    from support.full_batch import FullBatchTrainer

    settings = run_settings(method, q, args, "chunk", "grid_updates")
    records.write_command(folder, settings)
    everything = [data["train"], data["validation"]]
    model = build_model(data["train"][0].shape[1], args)
    optimizer, certified = make_optimizer(method, q, model, everything, args)
    loss = SumOfSquares(dtype="float64")
    trainer = FullBatchTrainer(model, optimizer, loss, args.chunk)
    rate = args.rate or 1.0

    def trial(rate):
        trainer.restart(rate)
        for _ in range(args.grid_updates):
            trainer.measure([data["train"]])
            trainer.step()
        return trainer.measure([data["validation"]], with_gradient=False)[0]

    if not certified and not args.rate:
        rate = choose_rate(folder, trial, settings)
    trainer.restart(rate)
    run = FullBatchRun(
        trainer, folder, certified, args.evaluate_every, args.save_every
    )
    return run.run(everything, data["test"], args.updates)


class TestAccuracy(keras.callbacks.Callback):
    """Writes the accuracy on the test data into the logs."""

    def __init__(self, test):
        super().__init__()
        self._test = test

    def on_epoch_end(self, epoch, logs=None):
        result = self.model.evaluate(
            *self._test, batch_size=500, verbose=0, return_dict=True
        )
        logs["test_accuracy"] = result["accuracy"]


def train_stochastic(method, q, data, args, folder):
    settings = run_settings(method, q, args, "batch", "grid_epochs")
    records.write_command(folder, settings)
    model = build_model(data["train"][0].shape[1], args)
    optimizer, _ = make_optimizer(method, q, model, [data["train"]], args)
    model.compile(optimizer, SumOfSquares(), metrics=["accuracy"])
    optimizer.build(model.trainable_variables)
    variables = [*model.variables, *optimizer.variables]
    start = [np.array(v) for v in variables]

    def fit(rate, epochs, **options):
        keras.utils.set_random_seed(args.seed)
        for variable, value in zip(variables, start):
            variable.assign(value)
        optimizer.learning_rate = rate
        model.fit(*data["train"], args.batch, epochs, **options)

    def trial(rate):
        fit(rate, args.grid_epochs, verbose=0)
        return model.evaluate(*data["validation"], batch_size=500, verbose=0)[0]

    rate = args.rate or choose_rate(folder, trial, settings)
    saver = fitting.LoggedBackup(folder)
    log, _ = fitting.take_up(saver, model)
    watchers = [callbacks.LayerUpdateCounter()] if method != "sgd" else []
    fit(
        rate,
        args.epochs,
        validation_data=data["validation"],
        validation_batch_size=500,
        callbacks=[
            *watchers,
            TestAccuracy(data["test"]),
            fitting.SecondsLogger(),
            *fitting.savers(saver),
        ],
    )
    return log


def title(what, args, amount=None, paper=None, unit=None):
    """A title that says so if a run is shorter than the paper's."""
    text = f"{what}, {TITLES[args.data]}"
    if args.limit:
        text += f" ({args.limit:,} training images)"
    if unit and amount < paper:
        text += f"\n{amount:,} of the paper's {paper:,} {unit}"
    elif unit:
        text += f"\n{amount:,} {unit}"
    return text


def label(method, q):
    """The name of a run in a legend."""
    name = {"sgd": "SGD", "normed_sgd": "normed SGD"}.get(
        method, method.upper()
    )
    return name if method == "sgd" else f"{name}, q = {q}"


def check_guarantees(log):
    """What of theorem 4.8 the log of a full-batch run bears out.

    Returns:
        A dict: how often the loss rose, and by how much at most; how often
        it fell by less than half the squared norm, and by how much less at
        most; whether the bound held at each T.
    """
    columns = plotting.read_log(log)
    loss = columns["loss"]
    squares = columns["local_gradient_norm"][:-1] ** 2
    change = np.diff(loss)
    excess = change + squares / 2
    bounds = 2 * loss[0] / np.arange(1, len(loss))
    least = np.minimum.accumulate(squares)
    return {
        "rises": int(np.sum(change > 0)),
        "largest_rise": max(float(change.max()), 0.0),
        "short_of_promise": int(np.sum(excess > 0)),
        "largest_shortfall": max(float(excess.max()), 0.0),
        "least": float(least[-1]),
        "bound": float(bounds[-1]),
        "bound_holds": bool(np.all(least <= bounds)),
    }


def count_blocks(log):
    """How often each block was moved."""
    columns = plotting.read_log(log)
    return {
        name.removeprefix("updates/"): int(np.nansum(values))
        for name, values in columns.items()
        if name.startswith("updates/")
    }


def is_certified(log):
    """Whether the run had a bound to hold."""
    return bool(np.isfinite(plotting.read_log(log)["bound"]).any())


def report_batch(logs, args):
    """Prints the tables and draws the figures of full-batch runs."""
    print("\nrun                   updates  loss: first      last  test acc.")
    for (method, q), log in logs.items():
        columns = plotting.read_log(log)
        loss, accuracy = columns["loss"], columns["test_accuracy"]
        accuracy = accuracy[np.isfinite(accuracy)][-1]
        print(
            f"{label(method, q):<20} {len(loss) - 1:8,} {loss[0]:12.6f}"
            f" {loss[-1]:9.6f} {accuracy:10.4f}"
        )
    print("\ncertified: the loss may not rise, and min norm^2 <= 2 f(w_1)/T")
    for (method, q), log in logs.items():
        if is_certified(log):
            c = check_guarantees(log)
            print(
                f"{label(method, q):<20} rises {c['rises']}"
                f" (largest {c['largest_rise']:.1e});"
                f" fell less than promised {c['short_of_promise']}"
                f" (by {c['largest_shortfall']:.1e} at most);"
                f" min norm^2 {c['least']:.3e}, bound {c['bound']:.3e},"
                f" holds at every T: {c['bound_holds']}"
            )
    print("\nhow often each block was moved")
    for (method, q), log in logs.items():
        print(f"{label(method, q):<20} {count_blocks(log)}")
    write_summary(logs, args)
    draw_batch(logs, args)


def write_summary(logs, args):
    """Keeps the numbers of the tables beside the logs."""
    rows = []
    for (method, q), log in logs.items():
        columns = plotting.read_log(log)
        rows.append(
            {
                "method": method,
                "norm": q,
                "updates": len(columns["loss"]) - 1,
                "first_loss": columns["loss"][0],
                "last_loss": columns["loss"][-1],
                "certified": is_certified(log),
                **check_guarantees(log),
                **count_blocks(log),
            }
        )
    path = args.out / "summary.csv"
    with files.replaced(path) as beside, beside.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def draw_batch(logs, args):
    """Figures 2, 3, 6 and 7 of the paper, and theorem 4.8."""
    done = max(len(plotting.read_log(log)["loss"]) - 1 for log in logs.values())
    length = (done, PAPER_UPDATES, "updates")
    shown = {}
    for q in args.norms:
        mine = {m: log for (m, norm), log in logs.items() if norm == q}
        if "dsgd" in mine:
            shown["dsgd", q] = mine.pop("dsgd")
        if mine:
            best = min(mine, key=lambda m: last_loss(mine[m]))
            shown[best, q] = mine[best]
    curves = {label(*run): log for run, log in shown.items()}
    dashed = [label(*run) for run in shown if run[0] != "dsgd"]
    for metric, what in (
        ("loss", "Training error"),
        ("test_accuracy", "Test accuracy"),
    ):
        figure = plotting.update_curves(
            curves, metric, title=title(what, args, *length), dashed=dashed
        )
        records.save_figure(figure, args.out / f"{metric}.png")
    for (method, q), log in logs.items():
        if method == "dsgd":
            what = f"Blocks that DSGD moved, q = {q}"
            figure = plotting.layer_choices(log, title(what, args, *length))
            records.save_figure(figure, args.out / f"choices_{q}.png")
    dsgd = {f"q = {q}": log for (m, q), log in logs.items() if m == "dsgd"}
    if dsgd:
        what = "Local gradient norm of DSGD, and its bound"
        figure = plotting.local_gradient(dsgd, title(what, args, *length))
        records.save_figure(figure, args.out / "local_gradient.png")
    print(f"\nfigures: {args.out}/*.png")


def last_loss(log):
    """The last loss of a log, infinite if it is no number."""
    return np.nan_to_num(plotting.read_log(log)["loss"][-1], nan=np.inf)


def report_stochastic(logs, args):
    """Prints the table and draws figures 4 and 5 of the paper."""
    print("\nrun                   best epoch  val. loss  val. acc.  test acc.")
    for (method, q), log in logs.items():
        columns = plotting.read_log(log)
        best = int(np.nanargmin(columns["val_loss"]))
        print(
            f"{label(method, q):<20} {best + 1:11}"
            f" {columns['val_loss'][best]:10.4f}"
            f" {columns['val_accuracy'][best]:10.4f}"
            f" {columns['test_accuracy'][best]:10.4f}"
        )
    curves = {label(*run): log for run, log in logs.items()}
    dashed = [label(*run) for run in logs if run[0] != "dsgd_all"]
    done = max(len(plotting.read_log(log)["loss"]) for log in logs.values())
    length = (done, PAPER_EPOCHS, "epochs")
    for metric, what in (
        ("loss", "Training error"),
        ("val_loss", "Validation error"),
        ("test_accuracy", "Test accuracy"),
    ):
        figure = plotting.update_curves(
            curves, metric, title=title(what, args, *length), dashed=dashed
        )
        records.save_figure(figure, args.out / f"{metric}.png")
    print(f"\nfigures: {args.out}/*.png")


def main():
    args = parse_arguments()
    if keras.backend.backend() != "tensorflow":
        sys.exit("This example needs KERAS_BACKEND=tensorflow.")
    batch = {"batch": "chunk", "stochastic": "batch"}[args.mode]
    records.write_command(args.out, run_settings(None, None, args, batch))
    data = load(args)
    train = {"batch": train_full_batch, "stochastic": train_stochastic}
    logs = {}
    for method in args.methods:
        for q in [2] if method == "sgd" else args.norms:
            name = method if method == "sgd" else f"{method}_{q}"
            print(f"\n{name}")
            folder = args.out / name
            logs[method, q] = train[args.mode](method, q, data, args, folder)
    report = {"batch": report_batch, "stochastic": report_stochastic}
    report[args.mode](logs, args)


if __name__ == "__main__":
    main()

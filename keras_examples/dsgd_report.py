"""Tables and figures of `dsgd_images.py`, from its logs."""

import csv

import common
import numpy as np

from tf_spectral import files
from tf_spectral import plotting

TITLES = {
    "digits": "8x8 digits",
    "mnist": "MNIST",
    "fashion_mnist": "Fashion-MNIST",
    "cifar10": "CIFAR-10",
    "svhn": "SVHN",
}
PAPER_UPDATES = 20_000
PAPER_EPOCHS = 500


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


def batch(logs, args):
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
        save(figure, args, f"{metric}.png")
    for (method, q), log in logs.items():
        if method == "dsgd":
            what = f"Blocks that DSGD moved, q = {q}"
            figure = plotting.layer_choices(log, title(what, args, *length))
            save(figure, args, f"choices_{q}.png")
    dsgd = {f"q = {q}": log for (m, q), log in logs.items() if m == "dsgd"}
    if dsgd:
        what = "Local gradient norm of DSGD, and its bound"
        figure = plotting.local_gradient(dsgd, title(what, args, *length))
        save(figure, args, "local_gradient.png")
    print(f"\nfigures: {args.out}/*.png")


def last_loss(log):
    """The last loss of a log, infinite if it is no number."""
    return np.nan_to_num(plotting.read_log(log)["loss"][-1], nan=np.inf)


def stochastic(logs, args):
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
        save(figure, args, f"{metric}.png")
    print(f"\nfigures: {args.out}/*.png")


def save(figure, args, name):
    """Writes a figure beside the logs."""
    common.save_figure(figure, args.out / name)

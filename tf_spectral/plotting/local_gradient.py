"""The local norm of the gradient, beside what theory promises of it."""

import numpy as np

from tf_spectral.plotting.canvas import REFERENCE
from tf_spectral.plotting.canvas import colors
from tf_spectral.plotting.canvas import draw_line
from tf_spectral.plotting.canvas import finish
from tf_spectral.plotting.canvas import new_figure
from tf_spectral.plotting.logs import labelled_logs
from tf_spectral.plotting.logs import points
from tf_spectral.plotting.logs import positions


def local_gradient(logs, title=None):
    """Draws the squared local norm of the gradient and its bound.

    With full gradients and certified steps of DSGD the smallest square among
    the first T updates is at most `2 f(w_1) / T`, for a loss `f` that is not
    negative.

    Args:
        logs: Dict of label -> log: the path of a CSV file or a dict of
            columns, with a row for each update and the columns `"update"`,
            counted from 1, `"loss"` and `"local_gradient_norm"`, both before
            the update.
        title: Title of the figure. `None` gives a general one.

    Returns:
        A `matplotlib.figure.Figure` with logarithmic axes. For each log the
        squares are a thin line and their smallest so far is a thick one. The
        bound is dotted, one line for all logs of the same first loss.

    Raises:
        ValueError: If `logs` holds nothing, or a log that lacks a column.
        ImportError: If matplotlib is not installed.

    Example:

    >>> from tf_spectral.plotting import local_gradient
    >>> log = {"update": [1, 2], "loss": [4, 3], "local_gradient_norm": [1, 1]}
    >>> figure = local_gradient({"q = 2": log})

    Reference: Flynn, "The duality structure gradient descent algorithm:
    analysis and applications to neural networks", 2017, theorem 4.8.
    """
    logs = labelled_logs(logs)
    figure, axes = new_figure(
        title or "Local gradient norm and the bound of theorem 4.8",
        "Update T",
        r"$\|\partial f / \partial w\|_w^2$",
    )
    bounds = {}
    for color, (label, log) in zip(colors(len(logs)), logs.items()):
        _check_updates(log)
        x, norms = points(log, "local_gradient_norm")
        axes.plot(x, norms**2, color=color, alpha=0.35, linewidth=0.8)
        least = np.minimum.accumulate(norms**2)
        draw_line(axes, x, least, color, f"{label}, smallest so far")
        first_loss = points(log, "loss")[1][0]
        bounds[first_loss] = max(bounds.get(first_loss, x), x, key=len)
    for first_loss, x in bounds.items():
        text = f"Bound, 2 · {first_loss:.4g} / T"
        axes.plot(x, 2 * first_loss / x, label=text, **REFERENCE)
    axes.set_xscale("log")
    axes.set_yscale("log", nonpositive="mask")
    finish(figure)
    return figure


def _check_updates(log):
    if positions(log)[0] != "Update":
        raise ValueError(
            "Argument `logs` must have a row for each update. Expected a "
            f"column 'update', Received: log with columns {list(log)}"
        )

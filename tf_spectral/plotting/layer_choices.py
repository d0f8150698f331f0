"""Which layers an optimizer that moves one at a time has moved."""

import numpy as np

from tf_spectral.plotting.canvas import colors
from tf_spectral.plotting.canvas import draw_line
from tf_spectral.plotting.canvas import finish
from tf_spectral.plotting.canvas import new_figure
from tf_spectral.plotting.logs import positions
from tf_spectral.plotting.logs import to_columns

PREFIX = "updates/"


def layer_choices(log, title=None):
    """Draws how often each weight was moved so far.

    Args:
        log: What `fit` returns, path of a CSV file, or a dict of columns,
            with a column `updates/<weight>` for each weight: how often it was
            moved during the update or the epoch that the row stands for, as
            `tf_spectral.callbacks.LayerUpdateCounter` writes it. Cells
            without a number count as 0.
        title: Title of the figure. `None` gives a general one.

    Returns:
        A `matplotlib.figure.Figure` with a curve for each weight: the sum of
        its column so far. A notebook shows it as the value of a cell;
        `figure.savefig(path)` writes it.

    Raises:
        ValueError: If the log has no such columns.
        ImportError: If matplotlib is not installed.

    Example:

    >>> from tf_spectral.plotting import layer_choices
    >>> log = {"update": [1, 2], "updates/a": [1, 0], "updates/b": [0, 1]}
    >>> figure = layer_choices(log)

    Reference: Flynn, "The duality structure gradient descent algorithm:
    analysis and applications to neural networks", 2017, figures 3 and 6.
    """
    log = to_columns(log)
    names = [name for name in log if name.startswith(PREFIX)]
    if not names:
        raise ValueError(
            "Argument `log` must say which weights were moved. Expected "
            f"columns `{PREFIX}<weight>`, Received: log with columns "
            f"{list(log)}"
        )
    axis, x = positions(log)
    figure, axes = new_figure(
        title or "Weights chosen by the optimizer",
        axis,
        "Number of updates so far",
    )
    for color, name in zip(colors(len(names)), names):
        counts = np.cumsum(np.nan_to_num(log[name]))
        draw_line(axes, x, counts, color, name.removeprefix(PREFIX))
    finish(figure)
    return figure

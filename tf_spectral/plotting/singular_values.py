"""The range of the singular values of weights over the epochs."""

from tf_spectral.plotting.canvas import REFERENCE
from tf_spectral.plotting.canvas import colors
from tf_spectral.plotting.canvas import draw_line
from tf_spectral.plotting.canvas import finish
from tf_spectral.plotting.canvas import new_figure
from tf_spectral.plotting.logs import points
from tf_spectral.plotting.logs import positions
from tf_spectral.plotting.logs import to_columns


def singular_values(log, prefix=None, title=None):
    """Draws the range of the singular values of weights over the epochs.

    Args:
        log: What `fit` returns, path of a file of
            `keras.callbacks.CSVLogger`, or a dict of columns, of a run with
            `tf_spectral.callbacks.SpectrumMonitor`, which writes the columns
            `<weight>/sigma_min` and `<weight>/sigma_max`.
        prefix: Draw the weights whose names start so; `None` draws all.
            Defaults to `None`.
        title: Title of the figure. `None` gives a general one.

    Returns:
        A `matplotlib.figure.Figure` with one band for each weight, from the
        smallest to the largest singular value, and a dotted line at 1, where
        the singular values of an orthogonal matrix lie. A notebook shows it
        as the value of a cell; `figure.savefig(path)` writes it.

    Raises:
        ValueError: If the log has no such columns, or no numbers in them.
        ImportError: If matplotlib is not installed.

    Example:

    >>> from tf_spectral.plotting import singular_values
    >>> figure = singular_values(
    ...     {"rnn/sigma_min": [0.99, 0.98], "rnn/sigma_max": [1.0, 1.01]}
    ... )

    Reference:

    - [Zhang et al., 2018](https://arxiv.org/abs/1803.09327), figure 4, which
      has the spectral margin `max |sigma - 1|` of the same range.
    """
    log = to_columns(log)
    weights = _monitored_weights(log, prefix)
    figure, axes = new_figure(
        title or "Range of the singular values",
        positions(log)[0],
        "Singular values (smallest to largest)",
    )
    for color, weight in zip(colors(len(weights)), weights):
        x, low, high = points(
            log, f"{weight}/sigma_min", f"{weight}/sigma_max", argument="log"
        )
        axes.fill_between(x, low, high, color=color, alpha=0.2, lw=0)
        draw_line(axes, x, low, color)
        draw_line(axes, x, high, color, weight)
    axes.axhline(1.0, label="Orthogonal, 1", **REFERENCE)
    finish(figure)
    return figure


def _monitored_weights(log, prefix):
    ending = "/sigma_min"
    weights = [
        name.removesuffix(ending)
        for name in log
        if name.endswith(ending) and name.startswith(prefix or "")
    ]
    complete = all(f"{weight}/sigma_max" in log for weight in weights)
    if not weights or not complete:
        raise ValueError(
            "Argument `log` must have columns of SpectrumMonitor. Expected "
            f"`{prefix or '<weight>'}.../sigma_min` and `.../sigma_max`, "
            f"Received: log with columns {list(log)}, prefix={prefix!r}"
        )
    return weights

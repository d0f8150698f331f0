"""A metric over updates or epochs, for several runs."""

from tf_spectral.plotting.canvas import REFERENCE
from tf_spectral.plotting.canvas import colors
from tf_spectral.plotting.canvas import draw_line
from tf_spectral.plotting.canvas import finish
from tf_spectral.plotting.canvas import new_figure
from tf_spectral.plotting.canvas import readable
from tf_spectral.plotting.logs import common_axis
from tf_spectral.plotting.logs import labelled_logs
from tf_spectral.plotting.logs import points


def update_curves(
    logs,
    metric="loss",
    log_scale=False,
    title=None,
    ylabel=None,
    dashed=(),
    baseline=None,
    xlabel=None,
):
    """Draws one column of several logs, a curve for each.

    `learning_curves` is for training beside validation; here a curve is a
    run, as in the comparisons of optimizers.

    Args:
        logs: Dict of label -> log: what `fit` returns, the path of a CSV
            file or a dict of columns. The horizontal axis is the column
            `"update"`, which counts from 1, where there is one, and else the
            epoch.
        metric: Name of a column. Rows without a number in it are left out.
            Defaults to `"loss"`.
        log_scale: Whether the vertical axis is logarithmic. Defaults to
            `False`.
        title: Title of the figure. `None` makes one from `metric`.
        ylabel: Name of the vertical axis. `None` takes `metric`.
        dashed: Labels of the curves to draw in dashes. Defaults to none.
        baseline: A number to mark by a dotted line, or `None`. Defaults to
            `None`.
        xlabel: Name of the horizontal axis. `None` takes `"Update"` or
            `"Epoch"`.

    Returns:
        A `matplotlib.figure.Figure`. A notebook shows it as the value of a
        cell; `figure.savefig(path)` writes it.

    Raises:
        ValueError: If `logs` holds nothing, a log without numbers in the
            column, or some with a column `"update"` and some without.
        ImportError: If matplotlib is not installed.

    Example:

    >>> from tf_spectral.plotting import update_curves
    >>> figure = update_curves(
    ...     {
    ...         "DSGD": {"update": [1, 2, 3], "loss": [4, 2, 1]},
    ...         "RANDOM": {"update": [1, 2, 3], "loss": [4, 3, 2]},
    ...     },
    ...     log_scale=True,
    ... )

    Reference: Flynn, "The duality structure gradient descent algorithm:
    analysis and applications to neural networks", 2017, figures 2, 4, 5, 7.
    """
    logs = labelled_logs(logs)
    curves = {
        label: points(log, metric, argument="metric")
        for label, log in logs.items()
    }
    axis, name = common_axis(logs), readable(metric)
    figure, axes = new_figure(
        title or f"{name} over {axis.lower()}s", xlabel or axis, ylabel or name
    )
    for color, (label, (x, y)) in zip(colors(len(curves)), curves.items()):
        draw_line(axes, x, y, color, label, "--" if label in dashed else "-")
    if baseline is not None:
        text = f"Baseline, {baseline:.4g}"
        axes.axhline(baseline, label=text, **REFERENCE)
    if log_scale:
        axes.set_yscale("log", nonpositive="mask")
    finish(figure)
    return figure

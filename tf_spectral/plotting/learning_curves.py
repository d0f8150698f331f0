"""A metric over the epochs, for one run or several."""

import collections.abc

from tf_spectral.plotting.canvas import REFERENCE
from tf_spectral.plotting.canvas import colors
from tf_spectral.plotting.canvas import draw_line
from tf_spectral.plotting.canvas import finish
from tf_spectral.plotting.canvas import new_figure
from tf_spectral.plotting.canvas import readable
from tf_spectral.plotting.logs import common_axis
from tf_spectral.plotting.logs import is_log
from tf_spectral.plotting.logs import points
from tf_spectral.plotting.logs import to_columns

STYLES = {"training": "-", "validation": "--"}


def learning_curves(
    logs, metric="loss", baseline=None, log_scale=False, title=None, ylabel=None
):
    """Draws a metric over the epochs, for training and validation.

    Args:
        logs: One log or a dict of label -> log. A log is what `fit` returns,
            the path of a file of `keras.callbacks.CSVLogger`, or a dict of
            columns as of `read_log`. The horizontal axis is the column
            `"update"`, which counts from 1, where there is one, and else the
            epoch.
        metric: Name of a column. Training is a solid line; if a log has
            numbers in the column `val_<metric>`, they are a dashed line.
            Defaults to `"loss"`.
        baseline: A number to mark by a dotted line, such as
            `tf_spectral.datasets.copying_baseline(delay=1000)`, or `None`.
            Defaults to `None`.
        log_scale: Whether the vertical axis is logarithmic; values that are
            not positive are left out then. Defaults to `False`.
        title: Title of the figure. `None` makes one from `metric`.
        ylabel: Name of the vertical axis, with its unit. `None` takes
            `metric`.

    Returns:
        A `matplotlib.figure.Figure`. A notebook shows it as the value of a
        cell; `figure.savefig(path)` writes it.

    Raises:
        ValueError: If `logs` holds no log, one without the column `metric`,
            or some with a column `"update"` and some without.
        ImportError: If matplotlib is not installed.

    Example:

    >>> from tf_spectral.plotting import learning_curves
    >>> figure = learning_curves(
    ...     {"SRCD": {"loss": [0.5, 0.1]}, "SRGD": {"loss": [0.5, 0.2]}},
    ...     baseline=0.0204,
    ... )

    Reference:

    - [Zhang et al., 2018](https://arxiv.org/abs/1803.09327), figures 1 to 3.
    """
    logs = _label_logs(logs)
    curves = {label: _curves(log, metric) for label, log in logs.items()}
    name = readable(metric)
    title = title or f"{name} over training"
    figure, axes = new_figure(title, common_axis(logs), ylabel or name)
    drawn = {}
    for color, (label, parts) in zip(colors(len(curves)), curves.items()):
        for part, (x, y) in parts.items():
            text = f"{label}, {part}" if label else part.capitalize()
            draw_line(axes, x, y, color, text, STYLES[part])
            drawn[label, part] = axes.lines[-1]
    if baseline is not None:
        text = f"Baseline, {baseline:.4g}"
        axes.axhline(baseline, label=text, **REFERENCE)
    if log_scale:
        axes.set_yscale("log", nonpositive="mask")
    finish(figure, _handles(axes, drawn) if len(curves) > 1 else None)
    return figure


def _handles(axes, drawn):
    """A line for each run, and one for each style: not one for each pair."""
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], label=label, color=line.get_color())
        for (label, part), line in drawn.items()
        if part == "training"
    ]
    if len(drawn) > len(handles):
        handles += [
            Line2D([], [], label=part, color="0.35", linestyle=style)
            for part, style in STYLES.items()
        ]
    return handles + axes.get_legend_handles_labels()[0][len(drawn) :]


def _label_logs(logs):
    is_labelled = isinstance(logs, collections.abc.Mapping) and any(
        map(is_log, logs.values())
    )
    logs = logs if is_labelled else {"": logs}
    return {str(label): to_columns(log) for label, log in logs.items()}


def _curves(log, metric):
    curves = {"training": points(log, metric, argument="metric")}
    if f"val_{metric}" in log:
        x, y = points(log, f"val_{metric}", least=0)
        if len(x):
            curves["validation"] = x, y
    return curves

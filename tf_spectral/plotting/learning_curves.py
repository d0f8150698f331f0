"""A metric over the epochs, for one run or several."""

import collections.abc
import os

from tf_spectral.plotting.canvas import REFERENCE
from tf_spectral.plotting.canvas import colors
from tf_spectral.plotting.canvas import draw_line
from tf_spectral.plotting.canvas import new_figure
from tf_spectral.plotting.logs import series
from tf_spectral.plotting.logs import to_columns


def learning_curves(
    logs, metric="loss", baseline=None, log_scale=False, title=None, ylabel=None
):
    """Draws a metric over the epochs, for training and validation.

    Args:
        logs: One log or a dict of label -> log. A log is the path of a file
            of `keras.callbacks.CSVLogger`, or a dict of columns as of
            `read_log` or the attribute `history` of Keras' `History`.
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
        A `matplotlib.figure.Figure`. Nothing is shown or written.

    Raises:
        ValueError: If `logs` holds no log, or one without the column `metric`.
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
    for log in logs.values():
        _check_metric(log, metric)
    name = metric.replace("_", " ")
    title = title or f"{name.capitalize()} over training"
    figure, axes = new_figure(title, "Epoch", ylabel or name.capitalize())
    palette = colors(len(logs))
    for color, (label, log) in zip(palette, logs.items(), strict=True):
        for column, part, style in (
            (metric, "training", "-"),
            (f"val_{metric}", "validation", "--"),
        ):
            epochs, values = series(log, column)
            if len(epochs):
                text = f"{label}, {part}" if label else part.capitalize()
                draw_line(axes, epochs, values, color, text, style)
    if baseline is not None:
        text = f"Baseline, {baseline:.4g}"
        axes.axhline(baseline, label=text, **REFERENCE)
    if log_scale:
        axes.set_yscale("log", nonpositive="mask")
    axes.legend()
    return figure


def _label_logs(logs):
    log_types = (str, os.PathLike, collections.abc.Mapping)
    is_labelled = isinstance(logs, collections.abc.Mapping) and any(
        isinstance(log, log_types) for log in logs.values()
    )
    logs = logs if is_labelled else {"": logs}
    return {str(label): to_columns(log) for label, log in logs.items()}


def _check_metric(log, metric):
    if not len(series(log, metric)[0]):
        raise ValueError(
            "Argument `metric` must be a column with numbers. Expected one of "
            f"{list(log)}, Received: metric={metric!r}"
        )

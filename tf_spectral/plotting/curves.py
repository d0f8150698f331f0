"""Columns of logs over epochs or updates."""

import collections.abc

import numpy as np

from tf_spectral import checks
from tf_spectral.plotting.canvas import REFERENCE
from tf_spectral.plotting.canvas import colors
from tf_spectral.plotting.canvas import draw_baseline
from tf_spectral.plotting.canvas import draw_line
from tf_spectral.plotting.canvas import finish
from tf_spectral.plotting.canvas import new_figure
from tf_spectral.plotting.canvas import readable
from tf_spectral.plotting.canvas import words
from tf_spectral.plotting.logs import common_axis
from tf_spectral.plotting.logs import is_log
from tf_spectral.plotting.logs import labelled_logs
from tf_spectral.plotting.logs import points
from tf_spectral.plotting.logs import positions
from tf_spectral.plotting.logs import to_columns

STYLES = {"training": "-", "validation": "--"}
PREFIX = "updates/"


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
    metric = checks.text("metric", metric)
    log_scale = checks.boolean("log_scale", log_scale)
    title, ylabel = words("title", title), words("ylabel", ylabel)
    baseline = _number("baseline", baseline)
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
    draw_baseline(axes, baseline)
    if log_scale:
        axes.set_yscale("log", nonpositive="mask")
    finish(figure, _handles(axes, drawn) if len(curves) > 1 else None)
    return figure


def _number(name, value):
    return None if value is None else checks.number(name, value)


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
    if isinstance(logs, collections.abc.Mapping) and not logs:
        checks.refuse("logs", "hold a log", logs, "a log or a dict of logs")
    logs = logs if is_labelled else {"": logs}
    return {str(label): to_columns(log, "logs") for label, log in logs.items()}


def _curves(log, metric):
    curves = {"training": points(log, metric, argument="metric")}
    if f"val_{metric}" in log:
        x, y = points(log, f"val_{metric}", least=0)
        if len(x):
            curves["validation"] = x, y
    return curves


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
    metric = checks.text("metric", metric)
    log_scale = checks.boolean("log_scale", log_scale)
    title, ylabel = words("title", title), words("ylabel", ylabel)
    xlabel, baseline = words("xlabel", xlabel), _number("baseline", baseline)
    dashed = checks.sequence("dashed", dashed, of=" of labels")
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
    draw_baseline(axes, baseline)
    if log_scale:
        axes.set_yscale("log", nonpositive="mask")
    finish(figure)
    return figure


def singular_values(log, prefix=None, title=None):
    """Draws the range of the singular values of weights over the epochs.

    Args:
        log: What `fit` returns, a `SpectrumMonitor`, path of a file of
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
    prefix, title = words("prefix", prefix), words("title", title)
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


def layer_choices(log, title=None):
    """Draws how often each weight was moved so far.

    Args:
        log: What `fit` returns, a `LayerUpdateCounter`, path of a CSV file,
            or a dict of columns, with a column `updates/<weight>` for each
            weight: how often it was moved during the update or the epoch that
            the row stands for, as the counter writes it. Cells without a
            number count as 0.
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
    title = words("title", title)
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

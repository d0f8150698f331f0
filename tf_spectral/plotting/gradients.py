"""Gradients: over time steps, planes of rotation and updates."""

import collections.abc

import numpy as np

from tf_spectral import checks
from tf_spectral.plotting.canvas import REFERENCE
from tf_spectral.plotting.canvas import colors
from tf_spectral.plotting.canvas import draw_line
from tf_spectral.plotting.canvas import finish
from tf_spectral.plotting.canvas import new_figure
from tf_spectral.plotting.canvas import words
from tf_spectral.plotting.logs import labelled_logs
from tf_spectral.plotting.logs import points
from tf_spectral.plotting.logs import positions


def gradient_flow(norms, title=None):
    """Draws how large the gradient is at each time step.

    Args:
        norms: An array of shape `(steps,)`, the norms `||dL/dh_t||` for
            t = 1 .. steps, as `tf_spectral.callbacks.gradient_norms_over_time`
            returns them; a dict of label -> such array; or a
            `tf_spectral.callbacks.GradientFlowMonitor` or its `norms`, a list
            of pairs of epoch and array. Norms that are exactly
            0, which a logarithmic axis cannot show, are triangles at the
            lower edge; NaN and infinite ones are gaps.
        title: Title of the figure. `None` gives a general one.

    Returns:
        A `matplotlib.figure.Figure` with a logarithmic vertical axis. A
        notebook shows it as the value of a cell; `figure.savefig(path)`
        writes it.

    Raises:
        ValueError: If `norms` is empty or holds anything else than series of
            numbers that are not negative.
        ImportError: If matplotlib is not installed.

    Example:

    >>> import numpy as np
    >>> from tf_spectral.plotting import gradient_flow
    >>> figure = gradient_flow(
    ...     {"Spectral-RNN": np.ones(300), "LSTM": 0.9 ** np.arange(300)[::-1]}
    ... )

    Reference:

    - [Zhang et al., 2018](https://arxiv.org/abs/1803.09327), figure 1 (d-f).
    """
    norms, title = _check_norms(norms), words("title", title)
    figure, axes = new_figure(
        title or "Gradient flow through time",
        "Time step t",
        r"$\|\partial L / \partial h_t\|_2$",
    )
    axes.set_yscale("log")
    for color, (label, values) in zip(colors(len(norms)), norms.items()):
        steps = np.arange(1, len(values) + 1)
        shown = np.where(np.isfinite(values) & (values > 0), values, np.nan)
        draw_line(axes, steps, shown, color, label or None)
        if (values == 0).any():
            text = f"{label}, exactly 0" if label else "Exactly 0"
            _draw_zeros(axes, steps[values == 0], color, text)
    finish(figure)
    return figure


def _draw_zeros(axes, steps, color, label):
    # A row for each label, so that none hides another one's.
    row = sum(line.get_marker() == "v" for line in axes.lines)
    height = np.full(len(steps), 0.02 + 0.03 * row)
    edge = axes.get_xaxis_transform()
    look = {"color": color, "linestyle": "none", "marker": "v", "ms": 4}
    axes.plot(steps, height, transform=edge, label=label, **look)
    axes.margins(y=0.05 * (row + 2))


def _check_norms(norms):
    norms = getattr(norms, "norms", norms)  # of a GradientFlowMonitor
    if _are_pairs(norms):
        norms = {
            f"Epoch {epoch + 1}" if epoch >= 0 else "Before training": values
            for epoch, values in norms
        }
    if not isinstance(norms, collections.abc.Mapping):
        norms = {"": norms}
    if not norms:
        raise ValueError(
            "Argument `norms` must hold a series. Expected an array of norms "
            f"or a dict of label -> array, Received: norms={norms!r}"
        )
    arrays = {}
    for label, received in norms.items():
        try:
            values = np.asarray(received, dtype="float64")
        except (TypeError, ValueError, OverflowError):
            values = np.array([])
        if values.ndim != 1 or not len(values) or (values < 0).any():
            place = f"norms[{label!r}]" if label else "norms"
            raise ValueError(
                "Argument `norms` must hold series of norms. Expected arrays "
                "of shape (steps,) without negative numbers, "
                f"Received: {place}={received!r}"
            )
        arrays[str(label)] = values
    return arrays


def _are_pairs(norms):
    return (
        isinstance(norms, (list, tuple))
        and len(norms) > 0
        and all(
            isinstance(pair, tuple)
            and len(pair) == 2
            and isinstance(pair[0], (int, np.integer))
            and np.ndim(pair[1]) == 1
            for pair in norms
        )
    )


def partial_derivatives(values, bins=60, title=None):
    """Draws histograms of the sizes of partial derivatives.

    Args:
        values: Dict of label -> array of partial derivatives along the
            planes of an orthogonal weight, of any shape and sign.
        bins: Positive integer, the number of bins; they are as wide as each
            other on a logarithmic axis and common to all arrays. Zeros and
            what is not finite are left out. Defaults to `60`.
        title: Title of the figure. `None` gives a general one.

    Returns:
        A `matplotlib.figure.Figure`. A notebook shows it as the value of a
        cell; `figure.savefig(path)` writes it.

    Raises:
        ValueError: If `values` is no dict with an array that has an entry
            other than zero.
        ImportError: If matplotlib is not installed.

    Example:

    >>> import numpy as np
    >>> from tf_spectral.plotting import partial_derivatives
    >>> figure = partial_derivatives(
    ...     {"at the start": np.random.standard_normal(100)}
    ... )

    Reference: Massart and Abrol, "Coordinate descent on the orthogonal group
    for recurrent neural network training", 2022, figure 2.
    """
    bins = checks.integer("bins", bins, minimum=1, maximum=10_000)
    title, sizes = words("title", title), _sizes(values)
    if not any(len(size) for size in sizes.values()):
        raise ValueError(
            "Argument `values` has nothing to draw. Expected a dict of label "
            "-> array with an entry other than zero, Received: "
            f"values={values!r}"
        )
    everything = np.concatenate(list(sizes.values()))
    low, high = everything.min(), everything.max()
    if low == high:
        low, high = low / 2, high * 2
    edges = np.geomspace(low, high, bins + 1)
    figure, axes = new_figure(
        title or "Partial derivatives by the planes of rotation",
        "Absolute value",
        "Number of planes",
    )
    axes.set_xscale("log")
    for color, (label, size) in zip(colors(len(sizes)), sizes.items()):
        axes.hist(size, edges, color=color, alpha=0.6, label=label)
    axes.set_yscale("log")
    finish(figure)
    return figure


def _sizes(values):
    if not isinstance(values, dict):
        return {}
    sizes = {
        str(label): np.abs(np.ravel(np.asarray(array, "float64")))
        for label, array in values.items()
    }
    return {
        label: size[np.isfinite(size) & (size > 0)]
        for label, size in sizes.items()
    }


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
    title, logs = words("title", title), labelled_logs(logs)
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

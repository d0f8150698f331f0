"""The size of the gradient at each time step of a sequence."""

import collections.abc

import numpy as np

from tf_spectral.plotting.canvas import colors
from tf_spectral.plotting.canvas import draw_line
from tf_spectral.plotting.canvas import finish
from tf_spectral.plotting.canvas import new_figure


def gradient_flow(norms, title=None):
    """Draws how large the gradient is at each time step.

    Args:
        norms: An array of shape `(steps,)`, the norms `||dL/dh_t||` for
            t = 1 .. steps, as `tf_spectral.callbacks.gradient_norms_over_time`
            returns them; a dict of label -> such array; or a list of pairs of
            epoch and array, as the attribute `norms` of
            `tf_spectral.callbacks.GradientFlowMonitor`. Norms that are exactly
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
    norms = _check_norms(norms)
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
        except (TypeError, ValueError):
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

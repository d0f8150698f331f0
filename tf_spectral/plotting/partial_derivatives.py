"""How the partial derivatives by the planes of rotation are distributed."""

import numpy as np

from tf_spectral.plotting.canvas import colors
from tf_spectral.plotting.canvas import finish
from tf_spectral.plotting.canvas import new_figure


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
    sizes = _sizes(values)
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

"""The common look of the figures."""

import numpy as np

from tf_spectral import checks

# Okabe and Ito's colours, which people with any colour vision tell apart.
COLORS = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#000000",
)
REFERENCE = {"color": "0.35", "linestyle": ":", "linewidth": 1.5}
WORDS = {"val": "validation"}
WIDTH = 1.5
# By how much a curve under another one is wider, in points.
WIDER = 2.0
# Curves no farther apart are seen as one, in pixels.
NEAR = 2.0


def new_figure(title, xlabel, ylabel):
    """Makes a figure with one set of axes, without any window.

    Args:
        title: Title of the figure.
        xlabel: Name of the horizontal axis, which counts something.
        ylabel: Name of the vertical axis.

    Returns:
        A `matplotlib.figure.Figure` and its `Axes`.

    Raises:
        ImportError: If matplotlib is not installed.

    Example:

    >>> from tf_spectral.plotting.canvas import new_figure
    >>> figure, axes = new_figure("Loss", "Epoch", "Loss (nats)")
    """
    try:
        # Not pyplot: it would choose a backend and keep every figure alive.
        from matplotlib.ticker import MaxNLocator

        from tf_spectral.plotting.figure import NotebookFigure
    except ImportError as error:
        raise ImportError(
            "A figure needs the package `matplotlib`. Install it with "
            "`pip install matplotlib`."
        ) from error
    figure = NotebookFigure(figsize=(8.0, 4.2), dpi=150, layout="constrained")
    axes = figure.subplots()
    # Over all of the figure: a long one would run into the legend.
    figure.suptitle(title, fontsize="large")
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    locator = MaxNLocator("auto", integer=True, min_n_ticks=1, steps=[1, 2, 5])
    axes.xaxis.set_major_locator(locator)
    axes.grid(color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def words(name, value):
    """A text for a figure, or `None` for one that is made.

    Args:
        name: String, the argument.
        value: String or `None`.

    Raises:
        ValueError: If it is neither.

    Example:

    >>> from tf_spectral.plotting.canvas import words
    >>> words("title", "Loss")
    'Loss'
    """
    return None if value is None else checks.text(name, value, empty=True)


def draw_baseline(axes, baseline):
    """Marks a number by a dotted line; `None` marks nothing.

    Args:
        axes: A matplotlib `Axes`.
        baseline: Number or `None`.

    Example:

    >>> from tf_spectral.plotting.canvas import draw_baseline
    >>> from tf_spectral.plotting.canvas import new_figure
    >>> figure, axes = new_figure("Loss", "Epoch", "Loss (nats)")
    >>> draw_baseline(axes, 0.5)
    """
    if baseline is not None:
        text = f"Baseline, {baseline:.4g}"
        axes.axhline(baseline, label=text, **REFERENCE)


def colors(count):
    """Picks colours that can be told apart, also by the colour-blind.

    Args:
        count: How many.

    Returns:
        A list of colours: Okabe and Ito's, or for more than those seven an
        even choice from the map viridis.

    Example:

    >>> from tf_spectral.plotting.canvas import colors
    >>> colors(2)
    ['#0072B2', '#D55E00']
    """
    if count <= len(COLORS):
        return list(COLORS[:count])
    from matplotlib import colormaps

    return [colormaps["viridis"](i / (count - 1)) for i in range(count)]


def draw_line(axes, x, y, color, label=None, style="-"):
    """Draws a line; a single point, which no line shows, becomes a dot.

    Args:
        axes: A matplotlib `Axes`.
        x: Array of shape `(n,)`.
        y: Array of shape `(n,)`.
        color: Colour of the line.
        label: Text for the legend, or `None`. Defaults to `None`.
        style: Style of the line in matplotlib's notation. Defaults to `"-"`.

    Example:

    >>> from tf_spectral.plotting.canvas import draw_line
    >>> from tf_spectral.plotting.canvas import new_figure
    >>> figure, axes = new_figure("Loss", "Epoch", "Loss (nats)")
    >>> draw_line(axes, [1, 2], [0.5, 0.25], "black", "Loss")
    """
    marker = "o" if len(x) == 1 else None
    face = color if style == "-" else "white"
    look = {"linestyle": style, "marker": marker, "markerfacecolor": face}
    axes.plot(x, y, color=color, label=label, linewidth=WIDTH, **look)


def finish(figure, handles=None):
    """Makes curves that lie under others wider, and adds the legend.

    The legend stands beside the axes, where it covers nothing.

    Args:
        figure: A matplotlib `Figure` with all that it shall show.
        handles: What the legend names, a list of artists with labels. `None`
            takes all that have one. Defaults to `None`.

    Example:

    >>> from tf_spectral.plotting.canvas import draw_line
    >>> from tf_spectral.plotting.canvas import finish
    >>> from tf_spectral.plotting.canvas import new_figure
    >>> figure, axes = new_figure("Loss", "Epoch", "Loss (nats)")
    >>> draw_line(axes, [1, 2], [0.5, 0.25], "black", "SGD")
    >>> draw_line(axes, [1, 2], [0.5, 0.25], "red", "DSGD")
    >>> finish(figure)
    >>> [line.get_linewidth() for line in axes.lines]
    [3.5, 1.5]
    """
    axes = figure.axes[0]
    # Pixels are known once the limits of the axes are.
    axes.get_xlim(), axes.get_ylim()
    curves = [
        line
        for line in axes.lines
        if line.get_transform() == axes.transData and line.get_alpha() is None
    ]
    seen = []
    for curve in reversed(curves):
        widths = [
            other.get_linewidth()
            for other in seen
            if other.get_color() != curve.get_color()
            and _is_covered(curve, other)
        ]
        if widths:
            curve.set_linewidth(max(widths) + WIDER)
        seen.append(curve)
    if handles is None:
        handles = axes.get_legend_handles_labels()[0]
    if handles:
        figure.legend(
            handles=handles, loc="outside right center", frameon=False
        )


def _is_covered(curve, other):
    """Whether half of a curve, or more, lies under another one."""
    (x, y), (other_x, other_y) = map(_pixels, (curve, other))
    if not len(x) or not len(other_x):
        return False
    places = np.linspace(x.min(), x.max(), 101)
    common = (places >= other_x.min()) & (places <= other_x.max())
    distances = np.interp(places, x, y) - np.interp(places, other_x, other_y)
    return np.mean(common & (np.abs(distances) < NEAR)) >= 0.5


def _pixels(curve):
    points = curve.get_transform().transform(curve.get_xydata())
    x, y = points[np.isfinite(points).all(axis=1)].T
    order = np.argsort(x)
    return x[order], y[order]


def readable(name):
    """The name of a column in words, for a title or an axis.

    Args:
        name: Name of a column of a log.

    Returns:
        String.

    Example:

    >>> from tf_spectral.plotting.canvas import readable
    >>> readable("val_loss")
    'Validation loss'
    """
    words = [WORDS.get(word, word) for word in name.split("_")]
    text = " ".join(words)
    return text[:1].upper() + text[1:]

"""The common look of the figures."""

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
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator
    except ImportError as error:
        raise ImportError(
            "A figure needs the package `matplotlib`. Install it with "
            "`pip install matplotlib`."
        ) from error
    figure = Figure(figsize=(7.0, 4.2), dpi=150, layout="constrained")
    axes = figure.subplots()
    axes.set_title(title)
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    locator = MaxNLocator("auto", integer=True, min_n_ticks=1, steps=[1, 2, 5])
    axes.xaxis.set_major_locator(locator)
    axes.grid(color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


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
    axes.plot(x, y, color=color, label=label, **look)

"""The figure that all functions of plotting return."""

import io

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


class NotebookFigure(Figure):
    """A matplotlib `Figure` that a notebook shows as the value of a cell.

    It has a canvas of its own: pyplot neither keeps it alive nor has to know
    a screen. `savefig` writes it, and all that `Figure` has can be changed.

    Args:
        **kwargs: Those of `matplotlib.figure.Figure`.

    Example:

    >>> from tf_spectral.plotting.figure import NotebookFigure
    >>> figure = NotebookFigure(figsize=(2.0, 1.0))
    >>> figure._repr_png_()[1:4]
    b'PNG'
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        FigureCanvasAgg(self)

    def _repr_png_(self):
        file = io.BytesIO()
        self.savefig(file, format="png")
        return file.getvalue()

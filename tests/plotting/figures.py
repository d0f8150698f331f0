"""What a figure shows."""

import numpy as np

EPOCHS = [1, 2, 3, 4]
LOSS = [1.0, 0.5, 0.25, 0.125]
LOG = {
    "loss": LOSS,
    "val_loss": [1.1, 0.6, 0.3, 0.2],
    "accuracy": [0.1, 0.4, 0.6, 0.9],
}
UPDATES = {
    "update": [1, 2, 3, 4],
    "loss": [4.0, 3.0, 2.5, 2.25],
    "local_gradient_norm": [1.0, 0.5, 0.75, np.nan],
    "test_accuracy": [0.1, np.nan, 0.3, np.nan],
    "updates/hidden/kernel": [1, 0, 1, np.nan],
    "updates/output/kernel": [0, 1, 0, np.nan],
}


def lines(figure):
    """The lines of a figure as label -> list of points."""
    axes = figure.axes[0]
    return {
        line.get_label(): [tuple(p) for p in line.get_xydata()]
        for line in axes.lines
    }


def legend(figure):
    """What the legend says. It covers neither curves nor the title."""
    (found,) = figure.legends
    figure.draw_without_rendering()
    (title,) = figure.texts
    box, axes = found.get_window_extent(), figure.axes[0].get_window_extent()
    assert figure.bbox.x1 >= box.x1 > box.x0 > axes.x1 > axes.x0
    assert title.get_window_extent().y0 > max(box.y1, axes.y1)
    return [text.get_text() for text in found.get_texts()]


def labels(figure):
    axes = figure.axes[0]
    return figure.get_suptitle(), axes.get_xlabel(), axes.get_ylabel()


def is_drawn(figure, path):
    figure.savefig(path)
    return path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size


def write_csv(path, columns):
    rows = zip(*columns.values(), strict=True)
    text = [",".join(columns)]
    text += [",".join("" if v != v else str(v) for v in row) for row in rows]
    path.write_text("\n".join(text) + "\n")
    return path

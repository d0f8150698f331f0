"""Rules of the layers and operations that join several values."""

from keras import layers

from tf_spectral.bounds.exponents import root
from tf_spectral.bounds.nodes import size


def _sum(nodes, call, share=1.0):
    layer = call.operation
    # A smaller value is repeated, as in broadcasting.
    weights = [
        share * root(size(call.shape) / size(shape), nodes.q)
        for shape in call.shapes
    ]
    label = type(layer).__name__
    return nodes.sum(layer.name, label, call.parents, call.shape, weights)


def _average(nodes, call):
    return _sum(nodes, call, 1.0 / len(call.parents))


def _pair(nodes, call):
    # With a constant there is one tensor, and a shift this does not know.
    if len(call.parents) != 2:
        return None
    # Unlike layers, operations line shapes up at their ends: the batch of one
    # tensor may meet another axis of the other.
    ranks = {len(shape) for shape in call.shapes}
    alike = len(ranks) == 1 and len(set(call.batches)) == 1
    return _sum(nodes, call) if alike else None


def _concatenate(nodes, call):
    layer = call.operation
    if layer.axis in (0, -1 - len(call.shape)):
        return None  # examples side by side
    label = type(layer).__name__
    return nodes.concatenate(layer.name, label, call.parents, call.shape)


def _reshape(nodes, call):
    # With as many examples as before, and as large ones, each is kept whole.
    same = size(call.shape) == size(call.shapes[0])
    if len(call.parents) != 1 or not same or len(set(call.batches)) != 1:
        return None
    return _moved(nodes, call)


def _transpose(nodes, call):
    axes = call.operation.axes
    kept = axes is not None and axes[0] % len(axes) == 0
    return _moved(nodes, call) if kept and len(call.parents) == 1 else None


def _cast(nodes, call):
    # Keras 3.8 records the cast to a layer's dtype as an operation.
    certain = call.operation.dtype in ("float32", "float64")
    return _moved(nodes, call) if certain else None


def _moved(nodes, call):
    layer = call.operation
    label = type(layer).__name__
    return nodes.scale(layer.name, label, call.parents[0], call.shape)


# Layers by class, symbolic operations of keras.ops by name.
MERGING = {
    layers.Add: _sum,
    layers.Subtract: _sum,
    layers.Average: _average,
    layers.Concatenate: _concatenate,
    "Add": _pair,
    "Subtract": _pair,
    "Concatenate": _concatenate,
    "Cast": _cast,
    "Reshape": _reshape,
    "Transpose": _transpose,
}

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
    return _sum(nodes, call) if len(call.parents) == 2 else None


def _concatenate(nodes, call):
    layer = call.operation
    label = type(layer).__name__
    return nodes.concatenate(layer.name, label, call.parents, call.shape)


def _rearrange(nodes, call):
    layer = call.operation
    if size(call.shape) != size(call.shapes[0]):
        return None  # it takes examples apart
    label = type(layer).__name__
    return nodes.scale(layer.name, label, call.parents[0], call.shape)


def _cast(nodes, call):
    # Keras 3.8 records the cast to a layer's dtype as an operation.
    floating = "float" in call.operation.dtype
    return _rearrange(nodes, call) if floating else None


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
    "Reshape": _rearrange,
    "Transpose": _rearrange,
}

"""What each kind of layer adds to the graph of bounds.

A rule is a function `(nodes, call)` that returns the index of the node of the
call's output. Layers without a rule pass their input on, see `_unknown`.
"""

import math
from typing import NamedTuple

import numpy as np
from keras import layers

from tf_spectral.activations import activation_bounds
from tf_spectral.activations import activation_name
from tf_spectral.backend.keras_internals import is_symbolic_operation
from tf_spectral.backend.tensors import same_pooling_repeats_edges
from tf_spectral.bounds.exponents import root
from tf_spectral.bounds.graph import Call
from tf_spectral.bounds.graph import penalises
from tf_spectral.bounds.propagation import size


def visit(nodes, call):
    """Adds the nodes of a call; returns the index of its output."""
    before = len(nodes.nodes)
    rule = _rule(call)
    output = rule(nodes, call) if rule else None
    if output is None:
        del nodes.nodes[before:]
        # What Embedding(mask_zero=True) and Masking bring into the graph.
        masks = _operation_name(call.operation) in ("Any", "NotEqual")
        what = "masks" if masks else "this layer"
        output = _unknown(nodes, call, f"no theory for {what}")
    if not rule or penalises(call.operation):
        nodes.penalising.add(output)
    doubt = _doubt(call)
    if doubt:
        node = nodes.nodes[output]
        node["doubt"] = node["doubt"] or doubt
    return output


def _rule(call):
    """The rule of a call, or `None`: only what a rule looks at is certain."""
    layer = call.operation
    name = _operation_name(layer)
    if "call" in vars(layer):
        return None
    if name in _MERGING:
        return _MERGING[name]
    # A second tensor is a mask, or another argument no rule reads.
    if len(call.parents) != 1:
        return None
    return _RULES.get(name) or (
        _operation if name in _SMOOTH_OPERATIONS else None
    )


def _doubt(call):
    """What makes any rule's numbers uncertain, or `None`."""
    layer = call.operation
    if penalises(layer):
        return "activity regularizer"
    if call.doubt:
        return call.doubt
    if any(None in shape for shape in [*call.shapes, call.shape]):
        return "unknown length, taken as 1"
    dtype = str(getattr(layer, "compute_dtype", None) or "float32")
    if not dtype.startswith(("float32", "float64")):
        return f"{dtype} rounds more than these bounds allow for"
    return None


def _unknown(nodes, call, doubt):
    """The heuristic: 1-Lipschitz, without curvature, variables as in Dense.

    Recurrent and normalising layers are taken to have entries up to 1.
    """
    layer, shape = call.operation, call.shape
    if len(call.parents) == 1:
        parent = call.parents[0]
    elif call.parents:
        weights = [1.0] * len(call.parents)
        parent = nodes.sum(layer.name, "sum", call.parents, shape, weights)
    else:
        parent = nodes.input(layer.name, shape, root(size(shape), nodes.q))
    label = type(layer).__name__
    unit = isinstance(layer, layers.RNN) or "Normalization" in label
    ceiling = root(size(shape), nodes.q) if unit else None
    node = nodes.scale(
        layer.name, label, parent, shape, ceiling=ceiling, doubt=doubt
    )
    for variable in getattr(layer, "trainable_variables", []):
        reads = len(variable.shape) > 1
        width = 1.0 if reads else root(size(shape[:-1]), nodes.q)
        nodes.start(node, variable, reads, width)
    return node


def _dense(nodes, call):
    layer = call.operation
    if _adapted(layer) or not layer.built:
        return None
    return _affine(nodes, call, (layer.kernel, layer.bias))


def _convolution(nodes, call):
    layer = call.operation
    if _adapted(layer):
        return None
    return _affine(nodes, call, (layer.kernel, layer.bias), _overlap(call))


def _separable(nodes, call):
    layer = call.operation
    if _adapted(layer):
        return None
    channels = layer.depthwise_kernel.shape[-2:]
    middle = (size(call.shape) // layer.filters, channels[0] * channels[1])
    parent = nodes.affine(
        layer.name,
        "depthwise",
        call.parents[0],
        middle,
        (layer.depthwise_kernel, None),
        _overlap(call),
    )
    weights = layer.pointwise_kernel, layer.bias
    return _affine(nodes, call._replace(parents=[parent]), weights)


def _embedding(nodes, call):
    layer = call.operation
    if _adapted(layer):
        return None
    width = root(size(call.shape[:-1]), nodes.q)
    doubt = "masked positions change the mean" if layer.mask_zero else None
    if nodes.is_moved(call.parents[0]):
        doubt = "tokens that depend on variables jump"
    one_hot = nodes.input(layer.name, call.shape[:-1], width, doubt)
    label = type(layer).__name__
    return nodes.affine(
        layer.name, label, one_hot, call.shape, (layer.embeddings, None)
    )


def _affine(nodes, call, weights, overlap=1):
    layer = call.operation
    shape = call.shape
    if getattr(layer, "data_format", "") == "channels_first":
        shape = call.shape[1:] + call.shape[:1]
    label = type(layer).__name__
    node = nodes.affine(
        layer.name, label, call.parents[0], shape, weights, overlap
    )
    return _activate(nodes, layer, layer.activation, node, call.shape)


def _activate(nodes, layer, activation, node, shape):
    if isinstance(activation, layers.Layer):
        return visit(nodes, Call(activation, [node], [shape], shape))
    name = activation_name(activation)
    if name == "softmax" and not shape:
        return None  # along the batch
    return nodes.activation(layer.name, name, node, shape)


def _activation_layer(nodes, call):
    layer = call.operation
    return _activate(
        nodes, layer, layer.activation, call.parents[0], call.shape
    )


def _named(name, accepts=lambda call: True):
    def rule(nodes, call):
        layer = call.operation
        if not accepts(call):
            return None
        return nodes.activation(layer.name, name, call.parents[0], call.shape)

    return rule


def _leaky_relu(nodes, call):
    layer = call.operation
    slope = max(1.0, abs(float(layer.negative_slope)))
    bounds = activation_bounds("leaky_relu", nodes.q)
    bounds = bounds._replace(slope=slope, growth=slope)
    return nodes.activation(
        layer.name, "leaky_relu", call.parents[0], call.shape, bounds
    )


def _operation(nodes, call):
    name = _SMOOTH_OPERATIONS[_operation_name(call.operation)]
    return nodes.activation(
        call.operation.name, name, call.parents[0], call.shape
    )


def _isometry(nodes, call):
    return _scaled(nodes, call, 1.0)


def _scaled(nodes, call, factor, **options):
    layer = call.operation
    label = type(layer).__name__
    parent = call.parents[0]
    return nodes.scale(layer.name, label, parent, call.shape, factor, **options)


def _dropout(nodes, call):
    if call.operation.rate >= 1:
        return None
    return _scaled(nodes, call, 1.0 / (1.0 - call.operation.rate))


def _rescaling(nodes, call):
    layer = call.operation
    numbers = layer.scale, layer.offset
    if not all(_fits(np.shape(x), call.shape) for x in numbers):
        return None  # Keras repeats the input, and does not say so
    factor, offset = (float(np.max(np.abs(x))) for x in numbers)
    width = root(size(call.shape), nodes.q)
    parent = nodes.nodes[call.parents[0]]
    while parent["label"] == "Cast":
        parent = nodes.nodes[parent["parents"][0]]
    scalars = not any(np.ndim(x) for x in numbers)
    first = parent.get("assumed") and "radius" not in parent
    ceiling = None
    if first and scalars and 0 < factor < 1:
        # Pixels: what is within [-1, 1] is what comes out.
        ceiling = width
        parent["bound"] = width * (1 + offset) / factor
        parent["radius"] = width / factor
        parent["center"] = -float(layer.offset) / float(layer.scale)
    return _scaled(nodes, call, factor, shift=offset * width, ceiling=ceiling)


def _fits(shape, inputs):
    """Whether an array of this shape repeats no axis of the input."""
    inputs = (1, *inputs)
    return len(shape) <= len(inputs) and all(
        n in (1, m) for n, m in zip(shape[::-1], inputs[::-1])
    )


def _spread(nodes, call):
    copies = size(call.shape) / size(call.shapes[0])
    if getattr(call.operation, "interpolation", "nearest") != "nearest":
        return None
    return _scaled(nodes, call, root(copies, nodes.q))


def _average_pooling(nodes, call):
    windows = _pooling_windows(call)
    if call.operation.padding == "same" and same_pooling_repeats_edges():
        # A window may be one entry alone.
        return _scaled(nodes, call, root(windows.overlap(), nodes.q))
    # Row sums are 1 and column sums at most overlap / smallest.
    factor = root(max(windows.overlap() / windows.smallest(), 0.0), nodes.q)
    return _scaled(nodes, call, factor)


def _max_pooling(nodes, call):
    factor = root(_pooling_windows(call).overlap(), nodes.q)
    return _scaled(nodes, call, factor, doubt="not differentiable")


def _global_average(nodes, call):
    copies = size(call.shape) / size(call.shapes[0])
    return _scaled(nodes, call, root(copies, nodes.q))


def _global_max(nodes, call):
    return _scaled(nodes, call, 1.0, doubt="not differentiable")


def _masking(nodes, call):
    doubt = "masked positions change the mean"
    return _scaled(nodes, call, 1.0, doubt=doubt)


def _overlap(call):
    layer = call.operation
    sizes = layer.kernel_size
    windows = _layer_windows(layer, sizes, call.shapes[0], call.shape)
    return windows.overlap()


def _pooling_windows(call):
    layer = call.operation
    sizes = layer.pool_size
    return _layer_windows(layer, sizes, call.shapes[0], call.shape)


def _adapted(layer):
    changed = getattr(layer, "lora_enabled", False)
    return changed or getattr(layer, "quantization_mode", None) is not None


def _operation_name(operation):
    kind = type(operation)
    return kind.__name__ if is_symbolic_operation(operation) else kind


# What joins several values.


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


# How often windows that slide over an input meet the same entry.


class _Windows(NamedTuple):
    """Sliding windows, one number for each axis they slide along.

    Attributes:
        sizes: Entries that a window reads.
        strides: Steps between windows.
        dilations: Steps between the entries of a window.
        lengths: Lengths of the input, `None` if unknown.
        counts: Numbers of windows, `None` if unknown.
    """

    sizes: tuple
    strides: tuple
    dilations: tuple
    lengths: tuple
    counts: tuple

    def overlap(self):
        """Largest number of windows that read the same entry."""
        return math.prod(
            min(math.ceil(k * math.gcd(s, d) / s), n or k)
            for k, s, d, n in zip(
                self.sizes, self.strides, self.dilations, self.counts
            )
        )

    def smallest(self):
        """A lower bound of the entries of a window that are no padding."""
        return math.prod(
            max(1, k - padding)
            for k, padding in zip(self.sizes, self._padding())
        )

    def _padding(self):
        for k, s, length, n in zip(
            self.sizes, self.strides, self.lengths, self.counts
        ):
            known = length and n
            yield max((n - 1) * s + k - length, 0) if known else k


def _layer_windows(layer, sizes, shape, output_shape):
    """The `_Windows` of a convolution or pooling layer.

    Args:
        layer: Keras layer with `strides` and `data_format`.
        sizes: Tuple, the size of its window or kernel.
        shape: Shape of its input, without the batch.
        output_shape: Shape of its output, without the batch.

    Returns:
        `_Windows`.
    """
    first = layer.data_format == "channels_first"
    axes = slice(1, None) if first else slice(None, -1)
    rank = len(sizes)
    dilations = getattr(layer, "dilation_rate", 1)
    return _Windows(
        tuple(sizes),
        _tuple(layer.strides, rank),
        _tuple(dilations, rank),
        tuple(shape[axes]),
        tuple(output_shape[axes]),
    )


def _tuple(value, rank):
    return (value,) * rank if isinstance(value, int) else tuple(value)


# Layers by class, symbolic operations of keras.ops by name.
_MERGING = {
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
_SMOOTH_OPERATIONS = {
    "Tanh": "tanh",
    "Sigmoid": "sigmoid",
    "Softplus": "softplus",
    "Softsign": "softsign",
    "Silu": "silu",
    "Gelu": "gelu",
    "Erf": "erf",
    "Sin": "sin",
    "Arctan": "arctan",
    "Relu": "relu",
}
_ISOMETRIES = (
    "Identity Flatten Reshape Permute Cropping1D Cropping2D Cropping3D "
    "ZeroPadding1D ZeroPadding2D ZeroPadding3D"
)
_DROPOUTS = "Dropout SpatialDropout1D SpatialDropout2D SpatialDropout3D"
_SPREADS = "RepeatVector UpSampling1D UpSampling2D UpSampling3D"


def _each(names, rule):
    return {getattr(layers, name): rule for name in names.split()}


_RULES = {
    layers.Dense: _dense,
    layers.Embedding: _embedding,
    layers.Activation: _activation_layer,
    layers.ReLU: _named("relu"),
    layers.LeakyReLU: _leaky_relu,
    layers.ELU: _named("elu", lambda call: float(call.operation.alpha) == 1.0),
    layers.Softmax: _named(
        "softmax", lambda call: call.operation.axis == -1 and call.shape
    ),
    layers.Rescaling: _rescaling,
    layers.Masking: _masking,
    **_each("Conv1D Conv2D Conv3D", _convolution),
    **_each("DepthwiseConv1D DepthwiseConv2D", _convolution),
    **_each("SeparableConv1D SeparableConv2D", _separable),
    **_each(_ISOMETRIES, _isometry),
    **_each(_DROPOUTS, _dropout),
    **_each(_SPREADS, _spread),
}
for _axes in ("1D", "2D", "3D"):
    _RULES |= _each("AveragePooling" + _axes, _average_pooling)
    _RULES |= _each("MaxPooling" + _axes, _max_pooling)
    _RULES |= _each("GlobalAveragePooling" + _axes, _global_average)
    _RULES |= _each("GlobalMaxPooling" + _axes, _global_max)

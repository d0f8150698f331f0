"""What each kind of layer adds to the graph of bounds.

A rule is a function `(nodes, call)` that returns the index of the node of the
call's output. Layers without a rule pass their input on, see `unknown`.
"""

import numpy as np
from keras import backend
from keras import layers

from tf_spectral.bounds.activations import activation_bounds
from tf_spectral.bounds.activations import activation_name
from tf_spectral.bounds.exponents import root
from tf_spectral.bounds.graph import Call
from tf_spectral.bounds.merging import MERGING
from tf_spectral.bounds.nodes import size
from tf_spectral.bounds.windows import layer_windows


def visit(nodes, call):
    """Adds the nodes of a call; returns the index of its output."""
    before = len(nodes.nodes)
    rule = _rule(call)
    output = rule(nodes, call) if rule else None
    if output is None:
        del nodes.nodes[before:]
        output = unknown(nodes, call, "no theory for this layer")
    doubt = _doubt(call)
    if doubt:
        node = nodes.nodes[output]
        node["doubt"] = node["doubt"] or doubt
    return output


def _rule(call):
    """The rule of a call, or `None`: only what a rule looks at is certain."""
    layer = call.operation
    name = _operation_name(layer)
    if name in MERGING:
        return MERGING[name]
    # A second tensor is a mask, or another argument no rule reads.
    if len(call.parents) != 1 or "call" in vars(layer):
        return None
    return _RULES.get(name) or (
        _operation if name in _SMOOTH_OPERATIONS else None
    )


def _doubt(call):
    """What makes any rule's numbers uncertain, or `None`."""
    layer = call.operation
    if getattr(layer, "activity_regularizer", None) is not None:
        return "activity regularizer"
    if call.doubt:
        return call.doubt
    if any(None in shape for shape in [*call.shapes, call.shape]):
        return "unknown length, taken as 1"
    dtype = str(getattr(layer, "compute_dtype", None) or "float32")
    if not dtype.startswith(("float32", "float64")):
        return f"{dtype} rounds more than these bounds allow for"
    return None


def unknown(nodes, call, doubt):
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
    if _adapted(layer):
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
    if backend.backend() == "torch" and call.operation.padding == "same":
        # Keras repeats the edges there: a window may be one entry alone.
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
    windows = layer_windows(layer, sizes, call.shapes[0], call.shape)
    return windows.overlap()


def _pooling_windows(call):
    layer = call.operation
    sizes = layer.pool_size
    return layer_windows(layer, sizes, call.shapes[0], call.shape)


def _adapted(layer):
    changed = getattr(layer, "lora_enabled", False)
    return changed or getattr(layer, "quantization_mode", None) is not None


def _operation_name(operation):
    kind = type(operation)
    is_operation = kind.__module__.startswith("keras.src.ops.")
    return kind.__name__ if is_operation else kind


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

"""The calls of layers that lead from a Keras model's inputs to its output."""

from typing import Any
from typing import NamedTuple

import keras
from keras import tree

from tf_spectral.backend.keras_internals import call_behind
from tf_spectral.backend.keras_internals import inputs_as_given
from tf_spectral.backend.keras_internals import is_graph


class Call(NamedTuple):
    """One call of a layer or of a symbolic operation.

    Attributes:
        operation: Keras layer or operation.
        parents: List of what `visit` returned for the inputs of the call.
        shapes: List of the shapes of these inputs, without the batch.
        shape: Shape of the first output, without the batch.
        batches: List of the sizes of the batch, `None` where unknown: of the
            inputs, and of the output.
        doubt: `None`, or why shapes and inputs may not be those of the call.
    """

    operation: Any
    parents: list
    shapes: list
    shape: tuple
    batches: list = []
    doubt: str | None = None


class Value(NamedTuple):
    """What is known of a tensor: the result of `visit`, and its shape."""

    result: Any
    shape: tuple


def walk(model, inputs, visit):
    """Visits every call between inputs and output, earlier calls first.

    Sub-models are entered: their layers are visited in their place, with the
    shapes of this call and not those that the sub-model was built with.

    Args:
        model: Sequential or Functional model.
        inputs: List with one value for each of `model.inputs`.
        visit: Function of a `Call` that returns a value for its output.

    Returns:
        The value of the model's first output.
    """
    values = [Value(v, tuple(x.shape)) for v, x in zip(inputs, model.inputs)]
    return _walk(model, values, visit)[0].result


def _walk(model, inputs, visit):
    """A `Value` for each output of the model."""
    values = {id(x): value for x, value in zip(model.inputs, inputs)}
    stack = list(model.outputs)
    while stack:
        node = call_behind(stack[-1])
        missing = [x for x in node.input_tensors if id(x) not in values]
        if id(stack[-1]) in values:
            stack.pop()
        elif missing:
            stack.extend(missing)
        else:
            found = _visit(node, values, visit)
            values.update(
                (id(x), v) for x, v in zip(node.output_tensors, found)
            )
    return [values[id(x)] for x in model.outputs]


def _visit(node, values, visit):
    """A `Value` for each output of the call."""
    inputs = [values[id(x)] for x in node.input_tensors]
    if is_graph(node.operation) and not penalises(node.operation):
        entering = _entering(node, values)
        if entering is not None:
            return _walk(node.operation, entering, visit)
    shapes, doubt = _output_shapes(node, inputs)
    if _has_constants(node):
        doubt = "a constant among its inputs"
    if any(_is_half(x) for x in node.output_tensors):
        doubt = doubt or "half precision rounds more than these bounds allow"
    call = Call(
        node.operation,
        [x.result for x in inputs],
        [x.shape[1:] for x in inputs],
        shapes[0][1:],
        [x.shape[:1] for x in [*inputs, Value(None, shapes[0])]],
        doubt,
    )
    result = visit(call)
    return [Value(result, shape) for shape in shapes]


def _entering(node, values):
    """The values of a sub-model's inputs, or `None` if that is not clear.

    Keras pairs what is passed with what the model was built from by position;
    a dictionary for a model that was not built from one by the inputs' names.
    """
    model = node.operation
    passed, *others = [*node.arguments.args, *node.arguments.kwargs.values()]
    if any(_has_tensors(other) for other in others) or _has_constants(node):
        return None  # a mask, say
    names = [x.name for x in model.inputs]
    built_from = inputs_as_given(model)
    if isinstance(passed, dict) and not isinstance(built_from, dict):
        if not set(names) <= set(passed):
            return None
        passed = [passed[name] for name in names]
    passed = tree.flatten(passed)
    if len(passed) != len(model.inputs):
        return None
    if any(id(x) not in values for x in passed):
        return None
    entering = []
    for x, own in zip(passed, model.inputs):
        value = values[id(x)]
        shape = _adjusted(value.shape, tuple(own.shape))
        if shape is None:
            return None
        entering.append(Value(value.result, shape))
    return entering


def _has_tensors(structure):
    return any(
        isinstance(x, keras.KerasTensor) for x in tree.flatten(structure)
    )


def _has_constants(node):
    """Whether something but tensors is passed, which no rule looks at."""
    settings = dict(node.arguments.kwargs)
    settings.pop("training", None)
    return any(
        x is not None and not isinstance(x, keras.KerasTensor)
        for x in tree.flatten([list(node.arguments.args), settings])
    )


def _is_half(tensor):
    dtype = str(tensor.dtype)
    return "float" in dtype and dtype not in ("float32", "float64")


def penalises(layer):
    """Whether a layer adds a function of its outputs to the loss."""
    return getattr(layer, "activity_regularizer", None) is not None


def _adjusted(shape, own):
    """A shape at a sub-model's input: Keras adds or drops a last axis."""
    if len(shape) == len(own) + 1 and shape[-1] == 1:
        return shape[:-1]
    if len(shape) == len(own) - 1 and own[-1] == 1:
        return (*shape, 1)
    return shape if len(shape) == len(own) else None


def _output_shapes(node, inputs):
    """Shapes of the outputs of a call, and `None` or a doubt."""
    recorded = [tuple(x.shape) for x in node.output_tensors]
    pairs = list(zip(node.input_tensors, inputs))
    if all(tuple(x.shape) == value.shape for x, value in pairs):
        return recorded, None
    try:
        stand_ins = {
            id(x): keras.KerasTensor(value.shape, dtype=x.dtype)
            for x, value in pairs
        }
        args, kwargs = tree.map_structure(
            lambda x: stand_ins.get(id(x), x),
            (list(node.arguments.args), dict(node.arguments.kwargs)),
        )
        outputs = node.operation.compute_output_spec(*args, **kwargs)
        found = [tuple(x.shape) for x in tree.flatten(outputs)]
    except Exception:
        # Whatever a layer raises, its shapes are then not known.
        found = []
    if len(found) != len(recorded):
        return recorded, "shapes that could not be followed"
    return found, None

"""The calls of layers that lead from a Keras model's inputs to its output."""

from typing import Any
from typing import NamedTuple

import keras


class Call(NamedTuple):
    """One call of a layer or of a symbolic operation.

    Attributes:
        operation: Keras layer or operation.
        parents: List of what `visit` returned for the inputs of the call.
        shapes: List of the shapes of these inputs, without the batch.
        shape: Shape of the output, without the batch.
    """

    operation: Any
    parents: list
    shapes: list
    shape: tuple


def is_graph(model):
    """Whether `model` runs a graph of layers that can be read."""
    if not isinstance(model, keras.Model):
        return False
    # A subclass with a `call` of its own need not run its graph.
    keeps_call = type(model).call.__module__.startswith("keras.")
    return keeps_call and bool(getattr(model, "outputs", None))


def walk(model, inputs, visit):
    """Visits every call between inputs and output, earlier calls first.

    Sub-models are entered: their layers are visited in their place.

    Args:
        model: Sequential or Functional model.
        inputs: List with one value for each of `model.inputs`.
        visit: Function of a `Call` that returns a value for its output.

    Returns:
        The value of the model's first output.
    """
    values = {id(x): value for x, value in zip(model.inputs, inputs)}
    stack = list(model.outputs)
    while stack:
        history = stack[-1]._keras_history
        node = history.operation._inbound_nodes[history.node_index]
        missing = [x for x in node.input_tensors if id(x) not in values]
        if id(stack[-1]) in values:
            stack.pop()
        elif missing:
            stack.extend(missing)
        else:
            value = _visit(node, values, visit)
            values.update((id(x), value) for x in node.output_tensors)
    return values[id(model.outputs[0])]


def _visit(node, values, visit):
    parents = [values[id(x)] for x in node.input_tensors]
    if is_graph(node.operation):
        return walk(node.operation, parents, visit)
    shapes = [tuple(x.shape[1:]) for x in node.input_tensors]
    shape = tuple(node.output_tensors[0].shape[1:])
    return visit(Call(node.operation, parents, shapes, shape))

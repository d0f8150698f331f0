"""What a record of bounds has to be, and data that are to keep to it."""

import math

import numpy as np
from keras import ops

_KINDS = ("input", "affine", "activation", "scale", "sum", "concatenate")


def check_record(nodes, loss, count):
    """Raises unless nodes and loss form a record of `count` variables."""
    for i, node in enumerate(nodes):
        if node.get("kind") not in _KINDS:
            raise ValueError(
                "Argument `nodes` has a node of an unknown kind. Expected one "
                f"of {_KINDS}, Received: nodes[{i}]={node}"
            )
        if not all(0 <= parent < i for parent in node["parents"]):
            raise ValueError(
                "Argument `nodes` must list every node after its parents. "
                f"Received: nodes[{i}]={node}"
            )
    started = {start[0] for node in nodes for start in node["starts"]}
    if started != set(range(count)):
        raise ValueError(
            "Argument `nodes` must have each variable of `shapes` start at a "
            f"node. Expected {list(range(count))}, Received: starts of "
            f"{sorted(started)}"
        )
    for name in ("d1", "d2"):
        if not loss.get(name, 0) > 0:
            raise ValueError(
                "Argument `loss` must hold positive bounds d1, d2 of its "
                f"derivatives. Received: loss={loss}"
            )


def check_inputs(nodes, q, x):
    """Raises unless every example is within the bound of its input node.

    Args:
        nodes: List of the nodes of a record.
        q: 1, 2 or `"inf"`.
        x: Array, list of arrays or dictionary of arrays by input name.
    """
    inputs = [node for node in nodes if "assumed" in node]
    names = [node["layer"] for node in inputs]
    if isinstance(x, dict):
        if set(x) != set(names):
            raise ValueError(
                f"Argument `x` must name every input. Expected {names}, "
                f"Received: x with the keys {list(x)}"
            )
        x = [x[name] for name in names]
    elif not isinstance(x, (list, tuple)) or len(inputs) == 1 != len(x):
        x = [x]
    if len(x) != len(inputs):
        raise ValueError(
            "Argument `x` must have one array for each input. Expected "
            f"{names}, Received: {len(x)} arrays"
        )
    for node, array in zip(inputs, x):
        if node.get("read", True):
            _check_examples(node, q, ops.convert_to_numpy(array))


def _check_examples(node, q, array):
    # bfloat16 is of the kind "V": no class of numbers of NumPy's.
    real = array.dtype.kind in "biufV" and array.dtype.names is None
    if not real or array.ndim == 0:
        raise ValueError(
            "Argument `x` must hold real numbers, examples along the first "
            f"axis. Received: x of shape {array.shape} and dtype "
            f"{array.dtype} for the input '{node['layer']}'"
        )
    width = math.prod(array.shape[1:])
    flat = array.astype("float64").reshape(len(array), width)
    bound, what = node["bound"], "norm"
    if "radius" in node:
        flat = flat - node["center"]
        bound = node["radius"]
        what = f"distance from {node['center']:.6g}, in the norm,"
    flat = np.abs(flat)
    sizes = {
        1: lambda: flat.sum(1),
        2: lambda: np.sqrt((flat**2).sum(1)),
        "inf": lambda: flat.max(1, initial=0.0),
    }[q]()
    largest = sizes.max(initial=0.0)
    # The bound may have been computed from data in float32.
    if not largest <= bound * (1 + 1e-6):
        raise ValueError(
            f"Argument `x` has an example of {q}-{what} {largest:.6g} for the "
            f"input '{node['layer']}', and the bounds are for at most "
            f"{bound:.6g}. Expected such data, or a record made with "
            f"this `input_norm`, Received: x[{int(np.argmax(sizes))}]"
        )

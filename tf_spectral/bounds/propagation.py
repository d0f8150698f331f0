"""From norms of weights to bounds of block Hessians, along the graph.

Every trainable variable starts at the output of its own linear map with
`r = 1`, `v = 0`; `r` bounds the first derivative by that value and `v` the
second, in the q-norm. All variables travel at once, one entry each. What needs
no norm stays a Python or NumPy number.
"""

import numpy as np
from keras import ops

_LARGEST = 3e38


def squared_bounds(nodes, loss, additions, q, read):
    """`p_i(w)^2` for every trainable variable.

    Args:
        nodes: List of nodes, see `tf_spectral.bounds.nodes`.
        loss: Pair of floats `(d1, d2)`.
        additions: List of floats, added to each entry.
        q: 1, 2 or `"inf"`.
        read: Function of an index that returns the norm of that variable, a
            float or a scalar tensor. Called only for norms that matter.

    Returns:
        Tensor `(len(additions),)`; a NumPy array if no tensor was read.
    """
    count = len(additions)
    known = {}

    def norm(node, role):
        index = node[role]
        if index is None:
            return node[role + "_norm"]
        if index not in known:
            known[index] = read(index)
        return known[index]

    sizes = value_norms(nodes, q, norm)
    first, second = _output_derivatives(nodes, q, norm, count)
    d1, d2 = loss
    bounds = _plus(_times(d2, _times(first, first)), _times(d1, second))
    reach = _reach(nodes, sizes, count)
    bounds = _plus(_times(bounds, _times(reach, reach)), np.array(additions))
    return _finite(bounds)


def value_norms(nodes, q, norm):
    """Bounds of the q-norm of each node's output, `None` where not needed."""
    sizes = []
    for node, needed in zip(nodes, needed_values(nodes)):
        parents = [sizes[p] for p in node["parents"]]
        sizes.append(_value_norm(node, parents, q, norm) if needed else None)
    return sizes


def needed_values(nodes):
    """Whether some bound depends on the norm of each node's output."""
    needed = [False] * len(nodes)
    for node in reversed(range(len(nodes))):
        entry = nodes[node]
        reads = any(reads for _, reads, _ in entry["starts"])
        grows = needed[node] and entry.get("ceiling") is None
        if reads or grows:
            for parent in entry["parents"]:
                needed[parent] = True
    return needed


def _value_norm(node, parents, q, norm):
    kind = node["kind"]
    if kind == "input":
        return node["bound"]
    if node.get("ceiling") is not None:
        return node["ceiling"]
    if kind == "affine":
        kernel = _times(node["factor"], norm(node, "kernel"))
        bias = norm(node, "bias")
        bias = None if bias is None else _times(node["bias_factor"], bias)
        return _plus(_times(kernel, parents[0]), bias)
    if kind == "activation":
        return _plus(_times(node["growth"], parents[0]), node["at_zero"])
    if kind == "scale":
        return _plus(_times(node["factor"], parents[0]), node["shift"])
    return _join(node, parents, q)


def _output_derivatives(nodes, q, norm, count):
    """Bounds `r`, `v` of the derivatives of the last node's output."""
    first, second = [], []
    for node in nodes:
        r = [first[p] for p in node["parents"]]
        v = [second[p] for p in node["parents"]]
        if node["kind"] in ("sum", "concatenate"):
            r, v = _join(node, r, q), _join(node, v, q)
        elif node["kind"] != "input":
            r, v = _chain(node, r[0], v[0], norm)
        else:
            r = v = None
        first.append(_plus(r, _indicator(node["starts"], count)))
        second.append(v)
    return first[-1], second[-1]


def _chain(node, r, v, norm):
    if r is None:
        return None, None
    if node["kind"] == "activation":
        bend = _times(node["curvature"], _times(r, r))
        slope = node["slope"]
        return _times(slope, r), _plus(bend, _times(slope, v))
    factor = node["factor"]
    if node["kind"] == "affine":
        factor = _times(factor, norm(node, "kernel"))
    return _times(factor, r), _times(factor, v)


def _join(node, parents, q):
    if node["kind"] == "sum":
        total = None
        for weight, part in zip(node["weights"], parents):
            total = _plus(total, _times(weight, part))
        return total
    parts = [part for part in parents if part is not None]
    if len(parts) < 2 or q == 1:
        return _add_up(parts)
    if q == 2:
        return _root(_add_up([_times(part, part) for part in parts]))
    largest = parts[0]
    for part in parts[1:]:
        largest = _larger(largest, part)
    return largest


def _indicator(starts, count):
    if not starts:
        return None
    entries = np.zeros(count)
    for index, _, _ in starts:
        entries[index] = 1.0
    return entries


def _reach(nodes, sizes, count):
    """How far a unit step of each variable moves the value it acts on."""
    reach = [None] * count
    for node in nodes:
        for index, reads, factor in node["starts"]:
            size = sizes[node["parents"][0]] if reads else 1.0
            reach[index] = _plus(reach[index], _times(factor, size))
    reach = [0.0 if entry is None else entry for entry in reach]
    if all(_is_plain(entry) for entry in reach):
        return np.array(reach, "float64")
    dtype = next(entry.dtype for entry in reach if not _is_plain(entry))
    return ops.stack([ops.convert_to_tensor(x, dtype) for x in reach])


def _finite(bounds):
    """No layer may be called infinitely stiff: 0 times inf is not 0."""
    if _is_plain(bounds):
        return np.minimum(np.nan_to_num(bounds, nan=_LARGEST), _LARGEST)
    limit = ops.convert_to_tensor(_LARGEST, bounds.dtype)
    return ops.where(bounds < limit, bounds, limit)


# Arithmetic in which `None` is zero, and plain numbers stay plain.


def _is_plain(x):
    return isinstance(x, (int, float, np.ndarray))


def _alike(a, b):
    if isinstance(a, np.ndarray) and not _is_plain(b):
        return ops.convert_to_tensor(a, b.dtype), b
    if isinstance(b, np.ndarray) and not _is_plain(a):
        return a, ops.convert_to_tensor(b, a.dtype)
    return a, b


def _is_number(x, value):
    return isinstance(x, (int, float)) and x == value


def _times(a, b):
    if a is None or b is None or _is_number(a, 0) or _is_number(b, 0):
        return None
    if _is_number(a, 1):
        return b
    if _is_number(b, 1):
        return a
    a, b = _alike(a, b)
    return a * b


def _plus(a, b):
    if a is None or _is_number(a, 0):
        return b
    if b is None or _is_number(b, 0):
        return a
    a, b = _alike(a, b)
    return a + b


def _add_up(parts):
    total = None
    for part in parts:
        total = _plus(total, part)
    return total


def _root(x):
    return x**0.5 if _is_plain(x) else ops.sqrt(x)


def _larger(a, b):
    a, b = _alike(a, b)
    if isinstance(a, (int, float)) and isinstance(b, (int, float)):
        return max(a, b)
    if _is_plain(a) and _is_plain(b):
        return np.maximum(a, b)
    # `ops.maximum` rounds float64 to float32 on PyTorch.
    return ops.where(a > b, a, b)

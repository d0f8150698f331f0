"""The graph of bounds: from norms of weights to bounds of block Hessians.

Every trainable variable starts at the output of its own linear map with
`r = 1`, `v = 0`; `r` bounds the first derivative by that value and `v` the
second, in the q-norm. All variables travel at once, one entry each. What needs
no norm stays a Python or NumPy number.

A node is a dictionary. All have `kind`, `layer` (the name to report),
`label`, `shape`, `parents` (indices of earlier nodes), `doubt` (`None`, or why
its numbers are no bounds) and `starts`: triples `[i, reads, c]` that say that
variable `i` acts on the node's output, by `c` times the norm of the node's
input if `reads` is true, by `c` alone if not. The numbers of each kind:

| kind | numbers |
|---|---|
| input | `bound` of the q-norm of an example; where a `Rescaling` layer |
| | says so `radius`, a bound of its distance from `center` |
| affine | `kernel`, `bias` (index of a variable or `None`), `kernel_norm`, |
| | `bias_norm` (of frozen ones), `factor`, `bias_factor`, `overlap` |
| activation | `slope`, `curvature`, `supremum`, `ceiling`, `at_zero`, `growth`|
| scale | `factor`, `shift`, `ceiling` |
| sum | `weights`, one for each parent |
| concatenate | none |

`ceiling` is a bound of the q-norm of the output, or `None`.
"""

import math

import numpy as np
from keras import ops

from tf_spectral.activations import activation_bounds
from tf_spectral.bounds.exponents import root

_KINDS = ("input", "affine", "activation", "scale", "sum", "concatenate")


def size(shape):
    """Number of entries; an unknown length counts as one."""
    return math.prod(n or 1 for n in shape)


class NodeList:
    """Nodes under construction.

    Args:
        q: 1, 2 or `"inf"`.
        variables: Trainable variables, in their order.

    Attributes:
        nodes: List of the nodes.
        started: Set of the variables that act somewhere, also where it does
            not lead to the output.
        penalising: Set of the nodes whose layers may add to the loss, also
            where they do not lead to the output.
    """

    def __init__(self, q, variables):
        self.q = q
        self.nodes = []
        self.started = set()
        self.penalising = set()
        self._position = {id(v): i for i, v in enumerate(variables)}

    def input(self, layer, shape, bound, doubt=None):
        """A value of q-norm at most `bound`; the index of its node."""
        return self._add("input", layer, "input", shape, [], doubt, bound=bound)

    def affine(self, layer, label, parent, shape, weights, overlap=1):
        """A kernel and a bias, or `None`, applied at every position.

        `overlap` is the number of positions that read the same input.
        """
        kernel, bias = weights
        factor = root(overlap, self.q)
        bias_factor = root(size(shape[:-1]), self.q)
        node = self._add(
            "affine",
            layer,
            label,
            shape,
            [parent],
            factor=factor,
            bias_factor=bias_factor,
            overlap=overlap,
            **self._weight("kernel", kernel),
            **self._weight("bias", bias),
        )
        self.start(node, kernel, True, factor)
        self.start(node, bias, False, bias_factor)
        return node

    def activation(self, layer, name, parent, shape, bounds=None):
        """A function of each entry, by name or by its `Activation`."""
        if name == "linear":
            return parent
        bounds = bounds or activation_bounds(name, self.q)
        width = root(size(shape), self.q)
        limit = bounds.supremum
        return self._add(
            "activation",
            layer,
            name or "activation",
            shape,
            [parent],
            bounds.doubt,
            slope=bounds.slope,
            curvature=bounds.curvature,
            supremum=limit,
            ceiling=None if limit is None else limit * width,
            at_zero=bounds.at_zero * width,
            growth=bounds.growth,
        )

    def scale(self, layer, label, parent, shape, factor=1.0, **options):
        """A map that multiplies norms by at most `factor`."""
        doubt = options.pop("doubt", None)
        numbers = {"shift": 0.0, "ceiling": None, **options}
        return self._add(
            "scale",
            layer,
            label,
            shape,
            [parent],
            doubt,
            factor=float(factor),
            **numbers,
        )

    def sum(self, layer, label, parents, shape, weights):
        """A weighted sum of earlier values."""
        return self._add(
            "sum", layer, label, shape, parents, weights=list(weights)
        )

    def concatenate(self, layer, label, parents, shape):
        """Earlier values side by side."""
        return self._add("concatenate", layer, label, shape, parents)

    def start(self, node, variable, reads, factor):
        """Notes that a variable acts on the output of `node`."""
        index = self._position.get(id(variable))
        if index is None:
            return
        if index in self.started and not self.nodes[node]["doubt"]:
            self.nodes[node]["doubt"] = "used in two places"
        self.started.add(index)
        self.nodes[node]["starts"].append([index, reads, float(factor)])

    def doubt(self, variable, why):
        """Notes at the nodes that a variable acts on why they are no bounds."""
        for node in self.nodes:
            if any(start[0] == variable for start in node["starts"]):
                node["doubt"] = node["doubt"] or why

    def is_moved(self, node):
        """Whether some variable acts on the output of `node`."""
        entry = self.nodes[node]
        return bool(entry["starts"]) or any(
            map(self.is_moved, entry["parents"])
        )

    def keep_what_leads_to(self, output):
        """Drops all nodes but a node, what it reads, and the model's inputs.

        Returns:
            Boolean, whether the layer of a dropped node may add to the loss.
        """
        kept = {i for i, n in enumerate(self.nodes) if "assumed" in n}
        kept.add(output)
        for i in reversed(range(output + 1)):
            if i in kept:
                kept.update(self.nodes[i]["parents"])
        places = {old: new for new, old in enumerate(sorted(kept))}
        self.nodes = [self.nodes[i] for i in sorted(kept)]
        for node in self.nodes:
            node["parents"] = [places[p] for p in node["parents"]]
        return not self.penalising <= kept

    def _weight(self, role, variable):
        index = self._position.get(id(variable))
        frozen = variable is not None and index is None
        norm = _frozen_norm(variable, self.q) if frozen else None
        return {role: index, f"{role}_norm": norm}

    def _add(self, kind, layer, label, shape, parents, doubt=None, **numbers):
        self.nodes.append(
            {
                "kind": kind,
                "layer": layer,
                "label": label,
                "shape": list(shape),
                "parents": list(parents),
                "doubt": doubt,
                "starts": [],
                **numbers,
            }
        )
        return len(self.nodes) - 1


def _frozen_norm(variable, q):
    """The q-norm of a weight that will not change, in float64."""
    weight = np.asarray(ops.convert_to_numpy(variable), "float64")
    columns = weight.shape[-1] if weight.ndim > 1 else weight.size
    weight = weight.reshape(-1, columns)
    if q == 1:
        return float(np.abs(weight).sum(1).max())
    if q == "inf":
        return float(np.abs(weight).sum(0).max())
    gram = weight.T @ weight
    if len(weight) < len(gram):
        gram = weight @ weight.T
    largest = max(np.linalg.eigvalsh(gram)[-1], 0.0)
    # Rounding may leave the root a little below the norm.
    return float(np.sqrt(largest) * (1 + 1e-10))


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


_LARGEST = 3e38


def squared_bounds(nodes, loss, additions, q, read):
    """`p_i(w)^2` for every trainable variable.

    Args:
        nodes: List of nodes, as described above.
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

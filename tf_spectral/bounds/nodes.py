"""The plain graph of bounds that a model is read into.

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

from tf_spectral.bounds.activations import activation_bounds
from tf_spectral.bounds.exponents import root


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
    """

    def __init__(self, q, variables):
        self.q = q
        self.nodes = []
        self.started = set()
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
        """Drops all nodes but a node, what it reads, and the model's inputs."""
        kept = {i for i, n in enumerate(self.nodes) if "assumed" in n}
        kept.add(output)
        for i in reversed(range(output + 1)):
            if i in kept:
                kept.update(self.nodes[i]["parents"])
        places = {old: new for new, old in enumerate(sorted(kept))}
        self.nodes = [self.nodes[i] for i in sorted(kept)]
        for node in self.nodes:
            node["parents"] = [places[p] for p in node["parents"]]

    def _weight(self, role, variable):
        index = self._position.get(id(variable))
        frozen = variable is not None and index is None
        norm = frozen_norm(variable, self.q) if frozen else None
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


def frozen_norm(variable, q):
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

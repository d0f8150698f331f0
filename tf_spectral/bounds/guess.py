"""A record guessed from the variables of a model alone."""

from tf_spectral.bounds.exponents import root
from tf_spectral.bounds.losses import Loss
from tf_spectral.bounds.losses import loss_constants
from tf_spectral.bounds.nodes import NodeList
from tf_spectral.bounds.nodes import size

_DOUBT = "guessed from the variables"


def guess(variables, q):
    """The arguments of `LayerwiseSmoothness` for a chain of tanh layers.

    Args:
        variables: List of variables or tensors, in the order of the layers.
        q: 1, 2 or `"inf"`.

    Returns:
        Dictionary.
    """
    nodes = NodeList(q, variables)
    groups = group_by_layer(variables)
    value = nodes.input("input", (), 1.0)
    for i, (name, group) in enumerate(groups):
        value = _layer(nodes, name, group, value)
        if i + 1 < len(groups):
            width = group[-1].shape[-1:]
            value = nodes.activation(name, "tanh", value, tuple(width))
    for node in nodes.nodes:
        node["doubt"] = _DOUBT
    d1, d2 = loss_constants(Loss("categorical_crossentropy"), q, 1, 1)
    return {
        "nodes": nodes.nodes,
        "shapes": [tuple(v.shape) for v in variables],
        "names": [_path(v) or str(i) for i, v in enumerate(variables)],
        "norm": q,
        "loss": {
            "kind": "categorical_crossentropy",
            "d1": d1,
            "d2": d2,
            "residual": None,
            "doubt": _DOUBT,
        },
    }


def group_by_layer(variables):
    """Consecutive variables of one layer, as pairs of a name and a list.

    Paths change when a model is loaded and may repeat, so only runs count: a
    new layer begins with a new parent path or when a name comes again;
    without paths, with every variable of rank 2 or more.
    """
    groups = []
    seen = set()
    for variable in variables:
        parent, _, name = _path(variable).rpartition("/")
        kernel = len(variable.shape) > 1
        again = name in seen if name else kernel and bool(groups)
        if not groups or parent != groups[-1][0] or again:
            groups.append((parent, []))
            seen = set()
        groups[-1][1].append(variable)
        seen.add(name)
    return [
        (parent or f"layer {i}", group)
        for i, (parent, group) in enumerate(groups)
    ]


def _layer(nodes, name, group, value):
    kernels = [v for v in group if len(v.shape) > 1]
    shape = tuple(group[-1].shape[-1:])
    if kernels:
        kernel = kernels[0]
        # Entries of the input within [-1, 1].
        bound = root(size(kernel.shape[:-1]), nodes.q)
        value = nodes.scale(
            name, "input", value, kernel.shape[:-1], ceiling=bound
        )
        node = nodes.affine(
            name, "guess", value, kernel.shape[-1:], (kernel, None)
        )
    else:
        kernel = None
        node = nodes.scale(name, "guess", value, shape)
    for variable in group:
        if variable is not kernel:
            rows = size(variable.shape[:-1])
            nodes.start(node, variable, False, root(rows, nodes.q))
    return node


def _path(variable):
    path = getattr(variable, "path", None) or getattr(variable, "name", None)
    return str(path or "").split(":")[0]

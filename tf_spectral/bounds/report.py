"""A readable table of a record."""

import math

from tf_spectral.bounds.propagation import value_norms

_HEADER = (
    "layer",
    "kind",
    "shape",
    "S1",
    "S2",
    "sup|f|",
    "input norm",
    "overlap",
    "status",
)


def report(nodes, loss, norm, offset, certified):
    """The table of `LayerwiseSmoothness.report`, as a string."""
    # Weights of unknown norm turn into NaN what depends on them.
    sizes = value_norms(nodes, norm, lambda node, role: _known(node, role))
    rows = [_HEADER] + [_row(node, sizes) for node in nodes]
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = [
        "  ".join(cell.ljust(w) for cell, w in zip(row, widths)).rstrip()
        for row in rows
    ]
    lines.insert(1, "-" * len(lines[0]))
    residual = loss["residual"]
    limit = "" if residual is None else f", errors up to {residual:.6g}"
    status = "certified" if certified else "heuristic"
    head = [
        f"LayerwiseSmoothness: norm {norm}, offset {offset:.6g}, {status}",
        f"loss: {loss['kind']}, d1 = {loss['d1']:.6g}, "
        f"d2 = {loss['d2']:.6g}{limit}, {_status(loss)}",
    ]
    return "\n".join(head + [""] + lines)


def _row(node, sizes):
    activation = node["kind"] == "activation"
    parents = [sizes[p] for p in node["parents"]]
    reads = any(reads for _, reads, _ in node["starts"])
    own = node["kind"] == "input"
    size = node.get("bound") if own else parents[0] if reads else None
    return (
        node["layer"],
        node["label"],
        str(tuple(node["shape"])),
        _number(node["slope"] if activation else None),
        _number(node["curvature"] if activation else None),
        _limit(node) if activation else "",
        _number(size),
        str(node.get("overlap", "")),
        _status(node),
    )


def _known(node, role):
    if node[role] is not None:
        return math.nan
    return node[role + "_norm"]


def _limit(node):
    return "none" if node["supremum"] is None else _number(node["supremum"])


def _number(x):
    if x is None:
        return ""
    return "by weights" if math.isnan(x) else f"{x:.6g}"


def _status(entry):
    doubt = entry["doubt"]
    return f"heuristic: {doubt}" if doubt else "certified"

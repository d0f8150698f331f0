"""What a record of bounds has to be."""

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
            "Argument `nodes` must have each variable start at a node. "
            f"Expected {list(range(count))}, Received: starts of "
            f"{sorted(started)}"
        )
    for name in ("d1", "d2"):
        if not loss.get(name, 0) > 0:
            raise ValueError(
                "Argument `loss` must hold positive bounds d1, d2 of its "
                f"derivatives. Received: loss={loss}"
            )

"""Powers of widths that the q-norms bring in."""

import math

_INVERSE = {1: 1.0, 2: 0.5, "inf": 0.0}


def check_norm(norm):
    """`norm` as 1, 2 or `"inf"`; raises if it is none of them."""
    if not isinstance(norm, (bool, str)) and norm in (1, 2, math.inf):
        return "inf" if norm == math.inf else int(norm)
    if isinstance(norm, str) and norm == "inf":
        return norm
    raise ValueError(
        "Argument `norm` is unknown. Expected 1, 2 or 'inf', "
        f"Received: norm={norm}"
    )


def root(n, q):
    """`n^(1/q)`: the q-norm of `n` ones."""
    return float(n) ** _INVERSE[q]


def conjugate_root(n, q):
    """`n^(1 - 1/q)`: the conjugate norm of `n` ones."""
    return float(n) ** (1.0 - _INVERSE[q])


def pairing(n, q):
    """`n^max(0, 1 - 2/q)`: the largest `<u, v>` of unit vectors of size n."""
    return float(n) ** max(0.0, 1.0 - 2.0 * _INVERSE[q])


def matrix_pairing(n_in, n_out, q):
    """The largest `<u, v>` of unit matrices `(n_in, n_out)` of the q-norm."""
    return float({1: n_in, 2: min(n_in, n_out), "inf": n_out}[q])


def check_positive(name, value):
    """`value` as a float; raises unless it is positive and finite."""
    number = isinstance(value, (int, float)) or hasattr(value, "dtype")
    if not number or isinstance(value, bool) or not 0 < value < math.inf:
        raise ValueError(
            f"Argument `{name}` must be positive and finite. "
            f"Received: {name}={value}"
        )
    return float(value)

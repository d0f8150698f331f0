"""Powers of widths that the q-norms bring in."""

_INVERSE = {1: 1.0, 2: 0.5, "inf": 0.0}


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

"""The Hessians of Keras' weight regularizers."""

from keras import regularizers

from tf_spectral.bounds.exponents import matrix_pairing
from tf_spectral.bounds.nodes import size


def penalties(variables, nodes):
    """Bounds of the Hessian of each variable's regularizer.

    The penalty `l2 |k|_F^2` has second derivative `2 l2 <u, v>`. Others leave
    a doubt at the node of their variable.

    Args:
        variables: List of Keras variables.
        nodes: `NodeList`, changed in place.

    Returns:
        List of floats.
    """
    numbers = []
    for i, variable in enumerate(variables):
        rate = _rate(getattr(variable, "regularizer", None))
        if rate is None:
            nodes.doubt(i, "regularizer other than L2")
        pairing = _pairing(variable.shape, nodes.q)
        numbers.append(2.0 * (rate or 0.0) * pairing)
    return numbers


def _rate(regularizer):
    if regularizer is None:
        return 0.0
    if type(regularizer) is regularizers.L2:
        return float(regularizer.l2)
    smooth = type(regularizer) is regularizers.L1L2 and regularizer.l1 == 0
    return float(regularizer.l2) if smooth else None


def _pairing(shape, q):
    if len(shape) < 2:
        return matrix_pairing(1, size(shape), q)
    return matrix_pairing(size(shape[:-1]), shape[-1], q)

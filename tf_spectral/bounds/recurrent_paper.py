"""The constants as printed by Liu, Hsieh and Cevher, for comparison.

They drop second derivatives of earlier states, so they are no bounds
(math 5.4). Two repairs: the slice index of their Lemma 3, and a factor two,
for theirs multiply the squared step without the half.
"""

from keras import ops

from tf_spectral.bounds.recurrent_local import drives
from tf_spectral.bounds.recurrent_local import only
from tf_spectral.bounds.recurrent_network import at_outputs
from tf_spectral.bounds.recurrent_network import average
from tf_spectral.bounds.recurrent_network import euclidean_norm
from tf_spectral.bounds.recurrent_tensor import stacked_slice_norms
from tf_spectral.linalg.norms import induced_norm


def paper_constants(network, trace, blocks, outputs):
    """Twice equations 22 and 32, and their like for the other blocks.

    Args:
        network: `Network`.
        trace: `Trace`.
        blocks: Some of `BLOCKS`.
        outputs: `"all"` or `"last"`.

    Returns:
        Tensor `(blocks,)`.
    """
    zeta, first = stacked_slice_norms(network, trace, blocks)
    norms = ops.abs(trace.slope)[:, None] * zeta
    # Slices of the initial state by itself are unit vectors, others zero.
    start = only("initial_state", blocks, norms.dtype)[:, :, None]
    start = start + ops.zeros_like(norms[:1])
    earlier = euclidean_norm(ops.concatenate([start, norms[:-1]], axis=0))
    direct = drives(
        euclidean_norm(trace.x), euclidean_norm(trace.before), blocks
    )
    w = induced_norm(network.recurrent, 2, exact=True)
    # |f'' / f'| n(T_t) is |f''| n(Z_t), also where f' vanishes.
    turn = ops.max(trace.curvature[:, None] * zeta, axis=-1)
    steepest = ops.max(ops.abs(trace.slope), axis=-1)[:, None]
    cross = only("recurrent", blocks, norms.dtype) * steepest
    second = (direct + w * earlier) * turn + 2 * cross * earlier
    longest = ops.max(euclidean_norm(ops.transpose(network.output)))
    value = first * first + 2 * longest * second
    return average(at_outputs(value, outputs))

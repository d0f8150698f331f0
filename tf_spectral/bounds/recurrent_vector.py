"""The cheap local tier: every slice norm replaced by its recursion."""

from keras import ops

from tf_spectral.bounds.recurrent_local import curvature_step
from tf_spectral.bounds.recurrent_local import drives
from tf_spectral.bounds.recurrent_local import only
from tf_spectral.bounds.recurrent_local import products
from tf_spectral.bounds.recurrent_local import step_inputs
from tf_spectral.bounds.recurrent_network import at_outputs
from tf_spectral.bounds.recurrent_network import average
from tf_spectral.bounds.recurrent_network import euclidean_norm
from tf_spectral.bounds.recurrent_network import rows_times
from tf_spectral.bounds.recurrent_time import scan


def vector_constants(network, trace, blocks, outputs, labels=None):
    """The constants of blocks, without tensors or decompositions.

    Args:
        network: `Network`.
        trace: `Trace`.
        blocks: Some of `BLOCKS`.
        outputs: `"all"` or `"last"`.
        labels: `None`, or tensor `(steps or 1, batch, classes)` for the
            residual form. Defaults to `None`.

    Returns:
        Tensor `(blocks,)`.
    """
    both = products(network)
    units = both.shape[0]

    def step(carry, inputs):
        drive, *inputs = inputs
        zeta = drive[..., None] + carry[0]
        rho, bent, second = curvature_step(both, blocks, zeta, carry[1], inputs)
        reach = rows_times(rho, both)
        first = ops.max(reach[..., units:], axis=-1)
        return (reach[..., :units], bent), first * first + second

    direct = drives(
        euclidean_norm(trace.x), euclidean_norm(trace.before), blocks
    )
    # An initial state moves z_1 by the norm of a row of W at most.
    reach = euclidean_norm(ops.transpose(network.recurrent))
    start = only("initial_state", blocks, reach.dtype)[:, :, None] * reach
    start = start + ops.zeros_like(trace.slope[0])
    inputs = (direct, *step_inputs(network, trace, labels))
    values = scan(step, (start, ops.zeros_like(start)), inputs)
    return average(at_outputs(values, outputs))

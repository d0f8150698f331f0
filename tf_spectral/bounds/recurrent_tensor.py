"""The sharp local tier: derivatives of all states by all weights.

Only one time step of the tensors is kept: of the others their nuclear norms.
"""

from keras import ops

from tf_spectral.bounds.recurrent_local import curvature_step
from tf_spectral.bounds.recurrent_local import products
from tf_spectral.bounds.recurrent_local import step_inputs
from tf_spectral.bounds.recurrent_network import at_outputs
from tf_spectral.bounds.recurrent_network import average
from tf_spectral.bounds.recurrent_time import scan


def tensor_constants(network, trace, blocks, outputs, labels=None):
    """The constants of blocks from the slices themselves.

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
    zeta, first = stacked_slice_norms(network, trace, blocks)
    both = products(network)

    def step(earlier, inputs):
        zeta, *inputs = inputs
        return curvature_step(both, blocks, zeta, earlier, inputs)[1:]

    inputs = (zeta, *step_inputs(network, trace, labels))
    second = scan(step, ops.zeros_like(zeta[0]), inputs)
    return average(at_outputs(first * first + second, outputs))


def stacked_slice_norms(network, trace, blocks):
    """The `slice_norms` of some blocks, which have axis 1."""
    norms = [slice_norms(network, trace, block) for block in blocks]
    return [ops.stack(norm, axis=1) for norm in zip(*norms)]


def slice_norms(network, trace, block):
    """Nuclear norms of the derivatives by one block of weights.

    Args:
        network: `Network`.
        trace: `Trace`.
        block: One of `BLOCKS`.

    Returns:
        Pair of tensors: norms of the slices `Z_t[:, :, q]` of the
        pre-activations, `(steps, batch, units)`, and the largest norm of
        `T_t V_p`, the slices of the logits, `(steps, batch)`.
    """
    own = _own_input(trace, block)
    steps, batch, units = trace.slope.shape
    eye = ops.eye(units, dtype=own.dtype)[:, :, None]
    weights = ops.transpose(network.recurrent)
    outputs = ops.transpose(network.output)
    clock = ops.arange(steps)

    def step(t, carry):
        tensor, zeta, first = carry
        row = ops.take(own, t, axis=0)[:, None, None]
        slope = ops.take(trace.slope, t, axis=0)[..., None, None]
        z = eye * row + _combine(weights, tensor)
        tensor = slope * z
        # One decomposition for both: of slices, and of what reaches logits.
        matrices = [z, _combine(outputs, tensor)]
        norms = nuclear_norms(ops.concatenate(matrices, axis=1))
        largest = ops.max(norms[:, units:], axis=-1)
        now = clock == t
        zeta = ops.where(now[:, None, None], norms[:, :units], zeta)
        return tensor, zeta, ops.where(now[:, None], largest, first)

    tensor = ops.zeros((batch, units, units, own.shape[-1]), own.dtype)
    if block == "initial_state":
        tensor = tensor + eye
    zeros = ops.zeros_like(trace.slope)
    carry = (tensor, zeros, zeros[..., 0])
    return ops.fori_loop(0, steps, step, carry)[1:]


def nuclear_norms(matrices):
    """Sums of singular values, `inf` where an entry is not finite."""
    finite = ops.all(ops.isfinite(matrices), axis=(-2, -1))
    safe = ops.where(
        finite[..., None, None], matrices, ops.zeros_like(matrices)
    )
    if 1 in safe.shape[-2:]:
        norms = ops.sqrt(ops.sum(safe * safe, axis=(-2, -1)))
    else:
        norms = ops.sum(ops.svd(safe, compute_uv=False), axis=-1)
    return ops.where(finite, norms, float("inf") + ops.zeros_like(norms))


def _own_input(trace, block):
    """What the weights of a block multiply, `(steps, batch, columns)`."""
    if block == "input":
        return trace.x
    if block == "recurrent":
        return trace.before
    value = 1.0 if block == "bias" else 0.0
    return value + 0 * trace.slope[..., :1]


def _combine(matrix, tensor):
    """Mixes the slices, axis 1 of `tensor (batch, units, rows, columns)`."""
    batch, units, rows, columns = tensor.shape
    flat = matrix @ ops.reshape(tensor, (batch, units, rows * columns))
    return ops.reshape(flat, (batch, matrix.shape[0], rows, columns))

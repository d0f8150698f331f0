"""What both local tiers share: bounds on each unit, step by step.

For a step of norm one in one weight, `zeta` bounds the first derivative of
each pre-activation, `rho` that of each state and `beta` the second one
(math 5.5). Blocks of weights share the recursion: their axis is the one in
front of the batch.
"""

from keras import ops

from tf_spectral.bounds.recurrent_network import euclidean_norm
from tf_spectral.bounds.recurrent_network import logits
from tf_spectral.bounds.recurrent_network import rows_times

# The weights that act through the states.
BLOCKS = ("input", "recurrent", "bias", "initial_state")


def drives(x_norm, state_norm, blocks):
    """What one step adds to `|dz_t|` directly, `(steps, blocks, batch)`.

    Args:
        x_norm: Tensor `(steps, batch)`, `||x_t||`.
        state_norm: Tensor `(steps, batch)`, `||s_{t-1}||`.
        blocks: Some of `BLOCKS`.
    """
    known = {
        "input": x_norm,
        "recurrent": state_norm,
        "bias": ops.ones_like(x_norm),
        "initial_state": ops.zeros_like(x_norm),
    }
    return ops.stack([known[block] for block in blocks], axis=1)


def only(block, blocks, dtype):
    """A one for a block and zeros for the others, `(blocks, 1)`."""
    return ops.cast([[float(name == block)] for name in blocks], dtype)


def products(network):
    """`|W|` and `|V|` side by side, `(units, units + classes)`.

    Rows times both take one product of matrices.
    """
    both = [network.recurrent, network.output]
    return ops.abs(ops.concatenate(both, axis=1))


def curvature_step(both, blocks, zeta, earlier, inputs):
    """One step of the recursion of `beta`.

    Args:
        both: Tensor, the `products` of the network.
        blocks: Some of `BLOCKS`.
        zeta: Tensor `(blocks, batch, units)`.
        earlier: Tensor like `zeta`, `|W| beta_{t-1}` and the cross term.
        inputs: Tuple of tensors `(batch, units)`: slopes, curvatures and, in
            the residual form, pulls.

    Returns:
        Tuple of `rho`, what is `earlier` to the next step, and `2 b_t`,
        `(blocks, batch)`.
    """
    slope, curvature, *pull = inputs
    rho = slope * zeta
    beta = curvature * zeta * zeta + slope * earlier
    reach = rows_times(beta, both)
    units = zeta.shape[-1]
    if pull:
        second = ops.sum(pull[0] * beta, axis=-1)
    else:
        second = 2 * ops.max(reach[..., units:], axis=-1)
    cross = only("recurrent", blocks, rho.dtype) * euclidean_norm(rho)
    return rho, reach[..., :units] + 2 * cross[..., None], second


def step_inputs(network, trace, labels):
    """What `curvature_step` takes, for all steps."""
    # Sizes: silu and gelu also fall.
    inputs = (ops.abs(trace.slope), trace.curvature)
    if labels is None:
        return inputs
    error = ops.softmax(logits(network, trace.after), axis=-1) - labels
    pull = rows_times(error, ops.transpose(network.output))
    return (*inputs, ops.abs(pull))

"""Rigorous constants of a recurrent network, from norms alone (math 5.6).

Axis 1 holds what differs in the norm of the recurrent kernel or in the
drive: blocks of weights, or radii of a trust region.
"""

from keras import ops

from tf_spectral.bounds.recurrent_local import drives
from tf_spectral.bounds.recurrent_local import only
from tf_spectral.bounds.recurrent_network import at_outputs
from tf_spectral.bounds.recurrent_network import average
from tf_spectral.bounds.recurrent_network import euclidean_norm
from tf_spectral.bounds.recurrent_network import rows_times
from tf_spectral.bounds.recurrent_time import scan
from tf_spectral.linalg.norms import spectral_norm_upper_bound

# A bound 1.2e-6 too large at 128 units: its excess grows with the steps.
_SQUARINGS = 20


def global_constants(network, x, blocks, outputs, radius):
    """The constants of the blocks, valid for steps of any size.

    Args:
        network: `Network`.
        x: Tensor `(steps, batch, inputs)`.
        blocks: Some of `BLOCKS`.
        outputs: `"all"` or `"last"`.
        radius: Scalar tensor, the largest spectral norm of a step of the
            recurrent kernel.

    Returns:
        Tensor `(blocks,)`.
    """
    norms = Norms(network, x)
    recurrent = only("recurrent", blocks, x.dtype)
    state = norms.states((norms.recurrent + radius)[None, None])[:, 0]
    q, b = rates(
        norms,
        drives(euclidean_norm(x), state, blocks),
        norms.recurrent + radius * recurrent,
        only("initial_state", blocks, x.dtype),
        recurrent,
    )
    return _constant(norms, q, b, outputs)


def region_constants(norms, radii, outputs):
    """`L_W(R)` for each of some radii `(n,)`."""
    w = norms.recurrent + radii[:, None]
    ones = ops.ones_like(w)
    q, b = rates(norms, norms.states(w), w, 0 * ones, ones)
    return _constant(norms, q, b, outputs)


def largest_gradient(norms, outputs):
    """Bound on the nuclear norm of the recurrent gradient, for any labels.

    `|<dE_t, D>| <= ||softmax - y||_1 ||V ds_t||_inf`, and the first is at
    most two.
    """
    w = norms.recurrent[None, None]
    q, _ = rates(norms, norms.states(w), w, 0 * w, 1 + 0 * w)
    return average(at_outputs(2 * norms.output * q, outputs))[0]


class Norms:
    """What the rigorous bounds know of a network and its inputs.

    Args:
        network: `Network`.
        x: Tensor `(steps, batch, inputs)`.
    """

    def __init__(self, network, x):
        self.bounds = network.activation.bounds
        self.recurrent = spectral_norm_upper_bound(
            network.recurrent, _SQUARINGS
        )
        self.output = ops.max(euclidean_norm(ops.transpose(network.output)))
        self.initial = euclidean_norm(network.initial_state)
        self.root_units = float(network.recurrent.shape[0]) ** 0.5
        inputs = rows_times(x, network.input)
        self.inputs = euclidean_norm(inputs) + euclidean_norm(network.bias)

    def states(self, w):
        """Bounds of `||s_{t-1}||`, given norms `(n, 1)` of the kernel.

        Returns:
            Tensor `(steps, n, batch)`.
        """
        bounds = self.bounds
        zero = bounds.at_zero * self.root_units

        def step(state, inputs):
            after = zero + bounds.growth * (w * state + inputs)
            if bounds.supremum is not None:
                largest = bounds.supremum * self.root_units
                after = ops.full_like(after, largest)
            return after, state

        start = self.initial + ops.zeros_like(w)
        return scan(step, start, self.inputs)


def rates(norms, drive, w, start, cross):
    """Bounds on both derivatives of the states, as vectors.

    Args:
        norms: `Norms`.
        drive: Tensor `(steps, n, batch)`.
        w: Tensor `(n, 1)`, norms of the recurrent kernel.
        start: Tensor `(n, 1)`, `||ds_0||`.
        cross: Tensor `(n, 1)`, one where the kernel itself is moved.

    Returns:
        Pair of tensors `(steps, n, batch)`.
    """
    slope, curvature = norms.bounds.slope, norms.bounds.curvature

    def step(carry, drive):
        q, b = carry
        zeta = drive + w * q
        b = curvature * zeta * zeta + slope * (2 * cross * q + w * b)
        return (slope * zeta, b), (slope * zeta, b)

    start = start + ops.zeros_like(drive[0])
    return scan(step, (start, ops.zeros_like(start)), drive)


def _constant(norms, q, b, outputs):
    first = norms.output * q
    value = first * first + 2 * norms.output * b
    return average(at_outputs(value, outputs))

"""The tiers of constants of a recurrent network, from sharp to rigorous.

For a step of norm one in one weight, `zeta` bounds the first derivative of
each pre-activation, `rho` that of each state and `beta` the second one
(math 5.5). Blocks of weights share the recursion: their axis is the one in
front of the batch. In the global tier it holds whatever differs in the norm of
the recurrent kernel or in the drive: blocks, or radii of a trust region.
"""

from keras import ops

from tf_spectral.backend.loops import scan
from tf_spectral.bounds.recurrent_network import at_outputs
from tf_spectral.bounds.recurrent_network import average
from tf_spectral.bounds.recurrent_network import euclidean_norm
from tf_spectral.bounds.recurrent_network import logits
from tf_spectral.bounds.recurrent_network import rows_times
from tf_spectral.linalg.norms import induced_norm
from tf_spectral.linalg.norms import spectral_norm_upper_bound

# The weights that act through the states.
BLOCKS = ("input", "recurrent", "bias", "initial_state")
# A bound 1.2e-6 too large at 128 units: its excess grows with the steps.
_SQUARINGS = 20


# What both local tiers share: bounds on each unit, step by step.


def _drives(x_norm, state_norm, blocks):
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


def _only(block, blocks, dtype):
    """A one for a block and zeros for the others, `(blocks, 1)`."""
    return ops.cast([[float(name == block)] for name in blocks], dtype)


def _products(network):
    """`|W|` and `|V|` side by side, `(units, units + classes)`.

    Rows times both take one product of matrices.
    """
    both = [network.recurrent, network.output]
    return ops.abs(ops.concatenate(both, axis=1))


def _curvature_step(both, blocks, zeta, earlier, inputs):
    """One step of the recursion of `beta`.

    Args:
        both: Tensor, the `_products` of the network.
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
    cross = _only("recurrent", blocks, rho.dtype) * euclidean_norm(rho)
    return rho, reach[..., :units] + 2 * cross[..., None], second


def _step_inputs(network, trace, labels):
    """What `_curvature_step` takes, for all steps."""
    # Sizes: silu and gelu also fall.
    inputs = (ops.abs(trace.slope), trace.curvature)
    if labels is None:
        return inputs
    error = ops.softmax(logits(network, trace.after), axis=-1) - labels
    pull = rows_times(error, ops.transpose(network.output))
    return (*inputs, ops.abs(pull))


# The cheap local tier: every slice norm replaced by its recursion.


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
    both = _products(network)
    units = both.shape[0]

    def step(carry, inputs):
        drive, *inputs = inputs
        zeta = drive[..., None] + carry[0]
        rho, bent, second = _curvature_step(
            both, blocks, zeta, carry[1], inputs
        )
        reach = rows_times(rho, both)
        first = ops.max(reach[..., units:], axis=-1)
        return (reach[..., :units], bent), first * first + second

    direct = _drives(
        euclidean_norm(trace.x), euclidean_norm(trace.before), blocks
    )
    # An initial state moves z_1 by the norm of a row of W at most.
    reach = euclidean_norm(ops.transpose(network.recurrent))
    start = _only("initial_state", blocks, reach.dtype)[:, :, None] * reach
    start = start + ops.zeros_like(trace.slope[0])
    inputs = (direct, *_step_inputs(network, trace, labels))
    values = scan(step, (start, ops.zeros_like(start)), inputs)
    return average(at_outputs(values, outputs))


# The sharp local tier: derivatives of all states by all weights. Only one time
# step of the tensors is kept: of the others their nuclear norms.


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
    zeta, first = _stacked_slice_norms(network, trace, blocks)
    both = _products(network)

    def step(earlier, inputs):
        zeta, *inputs = inputs
        return _curvature_step(both, blocks, zeta, earlier, inputs)[1:]

    inputs = (zeta, *_step_inputs(network, trace, labels))
    second = scan(step, ops.zeros_like(zeta[0]), inputs)
    return average(at_outputs(first * first + second, outputs))


def _stacked_slice_norms(network, trace, blocks):
    """The `_slice_norms` of some blocks, which have axis 1."""
    norms = [_slice_norms(network, trace, block) for block in blocks]
    return [ops.stack(norm, axis=1) for norm in zip(*norms)]


def _slice_norms(network, trace, block):
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
        norms = _nuclear_norms(ops.concatenate(matrices, axis=1))
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


def _nuclear_norms(matrices):
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


# The constants as printed by Liu, Hsieh and Cevher, for comparison. They drop
# second derivatives of earlier states, so they are no bounds (math 5.4). Two
# repairs: the slice index of their Lemma 3, and a factor two, for theirs
# multiply the squared step without the half.


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
    zeta, first = _stacked_slice_norms(network, trace, blocks)
    norms = ops.abs(trace.slope)[:, None] * zeta
    # Slices of the initial state by itself are unit vectors, others zero.
    start = _only("initial_state", blocks, norms.dtype)[:, :, None]
    start = start + ops.zeros_like(norms[:1])
    earlier = euclidean_norm(ops.concatenate([start, norms[:-1]], axis=0))
    direct = _drives(
        euclidean_norm(trace.x), euclidean_norm(trace.before), blocks
    )
    w = induced_norm(network.recurrent, 2, exact=True)
    # |f'' / f'| n(T_t) is |f''| n(Z_t), also where f' vanishes.
    turn = ops.max(trace.curvature[:, None] * zeta, axis=-1)
    steepest = ops.max(ops.abs(trace.slope), axis=-1)[:, None]
    cross = _only("recurrent", blocks, norms.dtype) * steepest
    second = (direct + w * earlier) * turn + 2 * cross * earlier
    longest = ops.max(euclidean_norm(ops.transpose(network.output)))
    value = first * first + 2 * longest * second
    return average(at_outputs(value, outputs))


# The rigorous tier, from norms alone (math 5.6).


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
    recurrent = _only("recurrent", blocks, x.dtype)
    state = norms.states((norms.recurrent + radius)[None, None])[:, 0]
    q, b = _rates(
        norms,
        _drives(euclidean_norm(x), state, blocks),
        norms.recurrent + radius * recurrent,
        _only("initial_state", blocks, x.dtype),
        recurrent,
    )
    return _constant(norms, q, b, outputs)


def region_constants(norms, radii, outputs):
    """`L_W(R)` for each of some radii `(n,)`."""
    w = norms.recurrent + radii[:, None]
    ones = ops.ones_like(w)
    q, b = _rates(norms, norms.states(w), w, 0 * ones, ones)
    return _constant(norms, q, b, outputs)


def largest_gradient(norms, outputs):
    """Bound on the nuclear norm of the recurrent gradient, for any labels.

    `|<dE_t, D>| <= ||softmax - y||_1 ||V ds_t||_inf`, and the first is at
    most two.
    """
    w = norms.recurrent[None, None]
    q, _ = _rates(norms, norms.states(w), w, 0 * w, 1 + 0 * w)
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


def _rates(norms, drive, w, start, cross):
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
    return scan(step, (start, ops.zeros_like(start)), drive, outputs=2)


def _constant(norms, q, b, outputs):
    first = norms.output * q
    value = first * first + 2 * norms.output * b
    return average(at_outputs(value, outputs))

"""The bound of the loss after a step (math 5.2), for tests and plots."""

from keras import ops

from tf_spectral import checks
from tf_spectral.bounds.recurrent_checks import OUTPUTS
from tf_spectral.bounds.recurrent_checks import checked_labels
from tf_spectral.bounds.recurrent_checks import checked_network
from tf_spectral.bounds.recurrent_checks import checked_steps
from tf_spectral.bounds.recurrent_network import WEIGHTS
from tf_spectral.bounds.recurrent_network import at_outputs
from tf_spectral.bounds.recurrent_network import average
from tf_spectral.bounds.recurrent_network import logits
from tf_spectral.bounds.recurrent_network import rows_times
from tf_spectral.bounds.recurrent_network import run
from tf_spectral.bounds.recurrent_time import scan


def rnn_loss_bound(
    input_kernel,
    recurrent_kernel,
    output_kernel,
    x,
    y,
    steps,
    activation="tanh",
    initial_state=None,
    bias=None,
    output_bias=None,
    outputs="all",
):
    """An upper bound of the loss of a recurrent network after a step.

    With `o_t` the logits, `D_t` their change by the step and `r_t` the part
    of it that is not linear in the step, the mean over time and batch of

        E_t + <grad E_t, step> + max|D_t|^2 / 2 + 2 max|r_t|.

    It holds for steps of any size, in one weight or in several at once. The
    constants of `rnn_lipschitz_constants` bound its last two terms.

    Args:
        input_kernel: Floating tensor `(inputs, units)`.
        recurrent_kernel: Floating tensor `(units, units)`.
        output_kernel: Floating tensor `(units, classes)`.
        x: Tensor `(batch, steps, inputs)`.
        y: Labels: probabilities `(batch, steps, classes)` or class ids
            `(batch, steps)`; without the axis of steps for `outputs="last"`.
        steps: Dict from names of weights to tensors of their shape, what is
            added to them. The names are the keys of
            `rnn_lipschitz_constants`.
        activation: See `rnn_lipschitz_constants`. Defaults to `"tanh"`.
        initial_state: Tensor `(units,)` or `(batch, units)`. Defaults to
            `None`, zeros.
        bias: Tensor `(units,)`. Defaults to `None`, zeros.
        output_bias: Tensor `(classes,)`. Defaults to `None`, zeros.
        outputs: `"all"` or `"last"`. Defaults to `"all"`.

    Returns:
        Scalar tensor. Without steps it is the loss itself.

    Raises:
        ValueError: If an argument is unknown or of a wrong shape.

    Example:

    >>> import keras
    >>> from tf_spectral.bounds import rnn_loss_bound
    >>> one = keras.ops.ones((1, 1))
    >>> x, y = keras.ops.ones((1, 3, 1)), keras.ops.zeros((1, 3))
    >>> bound = rnn_loss_bound(one, one, one, x, y, {"input": 0.1 * one})
    >>> bool(bound >= 0)
    True

    Reference: Liu, Hsieh and Cevher, "A novel optimization method for
    recurrent neural network by non-Euclidean geometry", equation 7.
    """
    checks.choice("outputs", outputs, OUTPUTS)
    network, x = checked_network(
        input_kernel,
        recurrent_kernel,
        output_kernel,
        x,
        activation,
        initial_state,
        bias,
        output_bias,
    )
    labels = checked_labels(y, x, network.output.shape[1], outputs)
    move = checked_steps(steps, network)
    trace = run(network, x)
    moved = network._replace(
        **{name: getattr(network, name) + move[name] for name in WEIGHTS}
    )
    o = at_outputs(logits(network, trace.after), outputs)
    change = at_outputs(logits(moved, run(moved, x).after), outputs) - o
    linear = at_outputs(_logit_tangents(network, trace, move), outputs)
    value = ops.logsumexp(o, axis=-1) + ops.sum(
        ops.softmax(o, axis=-1) * linear - labels * (o + linear), axis=-1
    )
    largest = ops.max(ops.abs(change), axis=-1)
    rest = ops.max(ops.abs(change - linear), axis=-1)
    return average(value + largest * largest / 2 + 2 * rest)


def _logit_tangents(network, trace, move):
    """What a step adds to the logits to first order."""
    own = rows_times(trace.x, move["input"]) + move["bias"]
    own = own + rows_times(trace.before, move["recurrent"])

    def step(tangent, inputs):
        own, slope = inputs
        tangent = slope * (own + tangent @ network.recurrent)
        return tangent, tangent

    start = move["initial_state"] + ops.zeros_like(trace.before[0])
    tangents = scan(step, start, (own, trace.slope))
    through = rows_times(tangents, network.output)
    direct = rows_times(trace.after, move["output"]) + move["output_bias"]
    return through + direct

"""OrthogonalRNN and its cell: a state keeps its length."""

from keras import ops
from keras.saving import register_keras_serializable

from tf_spectral import checks
from tf_spectral.activations import ModReLU
from tf_spectral.backend.precision import working_dtype
from tf_spectral.constraints import Orthogonal
from tf_spectral.initializers import get_orthogonal_initializer
from tf_spectral.layers.conversion import carry_trainable
from tf_spectral.layers.conversion import check_stock
from tf_spectral.layers.conversion import like_stock
from tf_spectral.layers.recurrence import Dense
from tf_spectral.layers.rnn import of_cell
from tf_spectral.layers.simple_rnn import FastRNN
from tf_spectral.layers.simple_rnn import FastRNNCell
from tf_spectral.linalg import orthogonal


@register_keras_serializable("tf_spectral")
class OrthogonalRNNCell(FastRNNCell):
    """Cell of `OrthogonalRNN`: `h' = f(x K + b + h R)` with `R^T R = I`.

    R is the dense weight `recurrent_kernel` under
    `tf_spectral.constraints.Orthogonal`.

    Args:
        units: Positive integer `n`, the size of the state.
        activation: Name or function of a Keras activation, or `"modrelu"` (a
            trainable `tf_spectral.layers.ModReLU`). Defaults to `"modrelu"`.
        use_bias: Boolean, or `None` for a bias `b` with all activations but
            modReLU, which has one of its own. Defaults to `None`.
        trainable_initial_state: Boolean, whether the initial state is a
            trained vector and not zero. Defaults to `False`.
        kernel_initializer: Keras initializer of K. Defaults to
            `"he_normal"`.
        recurrent_initializer: Keras initializer of R, or `"block_rotation"`,
            `"cayley"` or `"haar"` of `tf_spectral.initializers`. What it
            gives is made orthogonal if the constraint is `Orthogonal`.
            Defaults to `"block_rotation"`.
        bias_initializer: Keras initializer of b. Defaults to `"zeros"`.
        kernel_regularizer: Keras regularizer of K. Defaults to `None`.
        recurrent_regularizer: Keras regularizer of R. Defaults to `None`.
        bias_regularizer: Keras regularizer of b. Defaults to `None`.
        kernel_constraint: Keras constraint of K. Defaults to `None`.
        recurrent_constraint: Keras constraint of R; `"orthogonal"` for
            `tf_spectral.constraints.Orthogonal`, `None` for a matrix that
            only starts orthogonal. Defaults to `"orthogonal"`.
        bias_constraint: Keras constraint of b. Defaults to `None`.
        dropout: Float in [0, 1], the share of inputs to drop. Defaults to 0.
        recurrent_dropout: Float in [0, 1], the share of states to drop on
            their way to R. Defaults to 0.
        seed: Integer seed of the dropout. Defaults to `None`.

    Call arguments:
        sequence: Floating or integer tensor `(batch, features)`.
        states: List of one floating tensor `(batch, units)`.
        training: Boolean, whether dropout applies.

    Raises:
        ValueError: If an argument is out of range.

    Example:

    >>> import keras
    >>> import numpy as np
    >>> from tf_spectral.layers import OrthogonalRNNCell
    >>> rnn = keras.layers.RNN(OrthogonalRNNCell(8))
    >>> tuple(rnn(np.random.rand(4, 10, 3).astype("float32")).shape)
    (4, 8)

    Reference: Massart and Abrol, "Coordinate descent on the orthogonal group
    for recurrent neural network training", 2022, section 4.
    """

    def __init__(
        self,
        units,
        activation="modrelu",
        use_bias=None,
        trainable_initial_state=False,
        kernel_initializer="he_normal",
        recurrent_initializer="block_rotation",
        recurrent_constraint="orthogonal",
        **kwargs,
    ):
        text = isinstance(recurrent_constraint, str)
        if text and recurrent_constraint == "orthogonal":
            recurrent_constraint = Orthogonal()
        recurrent_initializer = get_orthogonal_initializer(
            recurrent_initializer, "recurrent_initializer"
        )
        if recurrent_initializer is None:
            checks.refuse("recurrent_initializer", "be an initializer", None)
        super().__init__(
            units,
            activation,
            trainable_initial_state,
            kernel_initializer=kernel_initializer,
            recurrent_initializer=recurrent_initializer,
            recurrent_constraint=recurrent_constraint,
            **kwargs,
        )
        if use_bias is None:
            use_bias = not isinstance(self.activation, ModReLU)
        self.use_bias = checks.boolean("use_bias", use_bias)

    def build_recurrent(self):
        self.recurrent_kernel = self.add_weight(
            shape=(self.units, self.units),
            name="recurrent_kernel",
            initializer=self._initial_kernel,
            regularizer=self.recurrent_regularizer,
            constraint=self.recurrent_constraint,
            dtype=working_dtype(self.variable_dtype),
        )

    def matrix(self):
        """The matrix R: tensor `(units, units)`, acting as `h -> h R`."""
        return ops.convert_to_tensor(self.recurrent_kernel)

    def orthogonality_error(self):
        """`||R^T R - I||_2`, from above and at most 9% too large."""
        return orthogonal.orthogonality_error(self.recurrent_kernel)

    def transition(self, rows=None):
        """R, cast to the compute dtype, as a `Dense`.

        Args:
            rows: Not used: no other form costs less.
        """
        return Dense(ops.cast(self.recurrent_kernel, self.compute_dtype))

    def _initial_kernel(self, shape, dtype=None):
        kernel = self.recurrent_initializer(shape, dtype)
        # Keras constrains after the first step only.
        if isinstance(self.recurrent_constraint, Orthogonal):
            kernel = self.recurrent_constraint(kernel)
        return kernel


_CELL_OPTIONS = (
    "use_bias",
    "trainable_initial_state",
    "kernel_initializer",
    "recurrent_initializer",
    "bias_initializer",
    "kernel_regularizer",
    "recurrent_regularizer",
    "bias_regularizer",
    "kernel_constraint",
    "recurrent_constraint",
    "bias_constraint",
    "dropout",
    "recurrent_dropout",
    "seed",
)


@register_keras_serializable("tf_spectral")
class OrthogonalRNN(FastRNN):
    """A simple RNN whose recurrent kernel is orthogonal.

    Takes the place of `keras.layers.SimpleRNN`: `h_t = f(x_t K + b + h_{t-1}
    R)` with `R^T R = I`. Through time a gradient keeps its length but for
    what the activation does. Any Keras optimizer trains it, with a projection
    of R after each step by `tf_spectral.constraints.Orthogonal`.

    Args:
        units: Positive integer `n`, the size of the state.
        activation: Keras activation or `"modrelu"`. Defaults to `"modrelu"`.
        return_sequences: Boolean, whether to return all states and not only
            the last. Defaults to `False`.
        return_state: Boolean, whether to return the last state as well.
            Defaults to `False`.
        go_backwards: Boolean, whether to read (and return) the sequence
            reversed. Defaults to `False`.
        stateful: Boolean, whether a batch goes on from the states of the one
            before. Defaults to `False`.
        unroll: Boolean, whether to unroll Keras' own loop. Defaults to
            `False`; the fast loop is a better choice for all but a few steps.
        **kwargs: All other arguments of `OrthogonalRNNCell` (`use_bias`,
            `trainable_initial_state`, the initializers, regularizers and
            constraints, `dropout`, `recurrent_dropout`, `seed`) and of
            `keras.layers.Layer`.

    Call arguments:
        sequences: Floating or integer tensor `(batch, time, features)`.
        initial_state: List of one floating tensor `(batch, units)`.
        mask: Boolean tensor `(batch, time)`.
        training: Boolean, whether dropout applies.

    Raises:
        ValueError: If an argument is out of range, and in `call` if the
            sequences are complex or have no step.

    Example:

    >>> import numpy as np
    >>> from tf_spectral.layers import OrthogonalRNN
    >>> layer = OrthogonalRNN(190)
    >>> tuple(layer(np.random.rand(4, 20, 10).astype("float32")).shape)
    (4, 190)
    >>> float(layer.orthogonality_error()) < 1e-5
    True

    Reference: Massart and Abrol, "Coordinate descent on the orthogonal group
    for recurrent neural network training", 2022, section 4.
    """

    cell_arguments = ("units", "activation", *_CELL_OPTIONS)

    def __init__(
        self,
        units,
        activation="modrelu",
        return_sequences=False,
        return_state=False,
        go_backwards=False,
        stateful=False,
        unroll=False,
        **kwargs,
    ):
        cell_options = {
            key: kwargs.pop(key) for key in _CELL_OPTIONS if key in kwargs
        }
        cell = OrthogonalRNNCell(
            units,
            activation=activation,
            **cell_options,
            dtype=kwargs.get("dtype"),
            trainable=kwargs.get("trainable", True),
            name="orthogonal_rnn_cell",
        )
        super().__init__(
            cell,
            return_sequences=return_sequences,
            return_state=return_state,
            go_backwards=go_backwards,
            stateful=stateful,
            unroll=unroll,
            **kwargs,
        )

    recurrent_initializer = of_cell("recurrent_initializer")
    recurrent_constraint = of_cell("recurrent_constraint")

    def orthogonality_error(self):
        """`||R^T R - I||_2`, from above and at most 9% too large."""
        return self.cell.orthogonality_error()

    @classmethod
    def from_stock(cls, layer, project=False, **kwargs):
        """An `OrthogonalRNN` that computes what a built `SimpleRNN` does.

        Args:
            layer: Built `keras.layers.SimpleRNN`, and of no subclass of it.
            project: Boolean, whether to take the nearest orthogonal matrix to
                a recurrent kernel that is not orthogonal, and so compute
                something else. Defaults to `False`.
            **kwargs: Other arguments of the constructor, in place of those of
                `layer`.

        Raises:
            ValueError: If the layer cannot be converted, or if its recurrent
                kernel is not orthogonal and `project` is false (the message
                gives the error).
        """
        check_stock(layer, cls.stock)
        project = checks.boolean("project", project)
        kernel = layer.cell.recurrent_kernel
        error = orthogonal.orthogonality_error(kernel)
        error = float(ops.convert_to_numpy(error))
        if not project and not error <= 1e-4:
            raise ValueError(
                "Argument `layer` has no orthogonal recurrent kernel R. "
                "Expected ||R^T R - I||_2 <= 1e-4, or project=True, "
                f"Received: {error}"
            )
        if layer.recurrent_constraint is None:
            kwargs = {"recurrent_constraint": "orthogonal", **kwargs}
        new = like_stock(cls, layer, kwargs)
        new.cell.recurrent_kernel.assign(Orthogonal()(kernel))
        carry_trainable(kernel, new.cell.recurrent_kernel)
        return new

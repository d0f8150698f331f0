"""What all recurrent layers share: a matrix formed once for each sequence."""

import contextlib

from tf_spectral.backend.keras_internals import call_in_progress
from tf_spectral.backend.keras_internals import reset_dropout_masks
from tf_spectral.checks import real_tensor
from tf_spectral.initializers import GaussianReflectors
from tf_spectral.initializers import IdentityReflectors
from tf_spectral.layers.conversion import Convertible
from tf_spectral.linalg.factorization import check_reflectors

# Arguments of Keras' recurrent layers that a decomposed matrix has no use for.
REFUSED_RECURRENT_OPTIONS = ("recurrent_initializer", "recurrent_constraint")


def refuse_recurrent_options(options):
    """Raises if there are options that do not apply to a decomposed matrix."""
    for name in REFUSED_RECURRENT_OPTIONS:
        if name in options:
            raise ValueError(
                f"Argument `{name}` does not apply to a matrix that is "
                "kept by its decomposition. Expected "
                "`reflector_initializer` or the bounds of sigma, "
                f"Received: {name}={options[name]}"
            )


# What suited sequences of 24 to 150 steps under Adam as it comes, see
# docs/coming_from_lstm.md.
FEW, SCALE = 16, 0.1


def chosen_reflectors(units, reflectors):
    """The argument `reflectors` of a recurrent layer; `"auto"` is a few."""
    auto = isinstance(reflectors, str) and reflectors == "auto"
    return min(units, FEW) if auto else reflectors


def chosen_start(units, reflectors, initializer):
    """How reflectors start: if they can, so that R is a multiple of I.

    Args:
        units: Integer.
        reflectors: What `chosen_reflectors` returns.
        initializer: The argument `reflector_initializer`, `"auto"` included.
    """
    if not isinstance(initializer, str) or initializer != "auto":
        return initializer
    m_u, m_v = check_reflectors(reflectors, units, units)
    kind = IdentityReflectors if m_u == m_v else GaussianReflectors
    return kind(SCALE)


class FormingCell:
    """A cell whose recurrent matrix is formed once for each sequence.

    To be put in front of a Keras cell with dropout masks. A subclass has
    `form_matrix()`, which gives the matrix as its step takes it; the step
    asks for `formed()`.
    """

    # `keras.layers.RNN` asks for the recurrent dropout mask once before its
    # loop and drops it once after: the times to form the matrix and drop it.
    # If its loop raises, it drops nothing: so the matrix counts only within
    # the outermost call of a layer, or model, that it was formed in.
    _formed = _formed_in = None

    def form_matrix(self):
        """The recurrent matrix, as the step of the cell takes it."""
        raise NotImplementedError(f"{type(self).__name__}.form_matrix")

    def formed(self):
        """What `form_matrix` gave for this sequence, or gives for one step."""
        return self._formed if self._is_formed() else self.form_matrix()

    @contextlib.contextmanager
    def forming(self):
        """Within it the matrix is formed once, unless it is already."""
        if self._is_formed():
            yield
            return
        self._form()
        try:
            yield
        finally:
            self._drop()

    def state_mask(self, state):
        """The recurrent dropout mask; nothing is formed on the way."""
        return super().get_recurrent_dropout_mask(state)

    def get_recurrent_dropout_mask(self, step_input):
        # The steps of Keras' cells ask for it as well, within the loop.
        if not self._is_formed():
            self._form()
        return self.state_mask(step_input)

    def reset_recurrent_dropout_mask(self):
        self._drop()
        super().reset_recurrent_dropout_mask()

    def _is_formed(self):
        # Outside of a call Keras would begin one when it is asked.
        formed = self._formed is not None
        return formed and self._formed_in is call_in_progress(self)

    def _form(self):
        self._formed = self.form_matrix()
        self._formed_in = call_in_progress(self)

    def _drop(self):
        self._formed = self._formed_in = None


def of_cell(name):
    """An attribute of a layer that is that of its cell."""
    return property(lambda self: getattr(self.cell, name))


class RecurrentLayer(Convertible):
    """A recurrent layer over a `FormingCell`.

    To be put in front of `keras.layers.RNN` or a subclass of it.
    """

    def call(self, sequences, initial_state=None, mask=None, training=False):
        sequences = _checked(sequences, self.cell.compute_dtype)
        try:
            return super().call(
                sequences,
                initial_state=initial_state,
                mask=mask,
                training=training,
            )
        except Exception:
            # An exception leaves no half-traced tensors behind in the cell.
            reset_dropout_masks(self)
            raise

    def matrix(self):
        """The recurrent matrix R, which acts on states as `h -> h R`.

        Returns:
            Tensor `(units, units)`, in float32 or float64. Of a layer with
            gates `(units, gates * units)`, in the order of `cell.gates`.
        """
        return self.cell.matrix()


def _checked(sequences, dtype):
    """Sequences of numbers in that dtype; raises where there is no step."""
    sequences = real_tensor("sequences", sequences, dtype)
    if sequences.shape[1] == 0:
        raise ValueError(
            "Argument `sequences` must have at least one time step. Received: "
            f"sequences.shape={tuple(sequences.shape)}"
        )
    return sequences

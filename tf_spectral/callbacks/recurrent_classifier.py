"""RecurrentClassifier: which layer of a model is what, and its margins."""

import numpy as np
from keras import layers
from keras import ops

from tf_spectral.callbacks.softmax_networks import check_chain
from tf_spectral.layers import SpectralDense
from tf_spectral.layers.simple_rnn import FastRNN
from tf_spectral.linalg.checks import working_dtype


class RecurrentClassifier:
    """A chain of layers: one simple recurrent layer before a dense one.

    Args:
        model: Built Keras model.

    Raises:
        ValueError: If the model is no such chain, with the layer that does
            not fit.
    """

    def __init__(self, model):
        chain = [
            x for x in model.layers if not isinstance(x, layers.InputLayer)
        ]
        if len(chain) < 2:
            raise ValueError(
                "The model is too short. Expected a simple RNN and a Dense "
                f"layer, Received: {chain}"
            )
        *self.before, self.rnn, self.head = self.layers = chain
        self._model = model
        _check_recurrent(self.rnn)
        if not isinstance(self.head, (layers.Dense, SpectralDense)):
            raise _misfit(self.head, "a Dense layer at the end")
        for layer in self.before:
            if layer.trainable_variables:
                raise _misfit(layer, "nothing trained before the RNN")

    def check_chain(self, x):
        """Raises unless the model is its layers, run one after another."""
        check_chain(self, self._model, x)

    def inputs(self, x):
        """What the recurrent layer reads: tensor `(batch, steps, inputs)`."""
        x = ops.convert_to_tensor(x)
        for layer in self.before:
            x = layer(x)
        return x

    def kernels(self):
        """Input, recurrent and output kernel."""
        cell = self.rnn.cell
        recurrent = getattr(cell, "recurrent_kernel", None)
        if isinstance(self.rnn, FastRNN):
            recurrent = self.rnn.recurrent_matrix()
        return tuple(
            ops.cast(k, working_dtype(k.dtype))
            for k in (cell.kernel, recurrent, self.head.kernel)
        )

    def logits(self, inputs):
        """The logits (NumPy, float64) for inputs of the recurrent layer."""
        states = ops.convert_to_numpy(self.rnn(inputs)).astype("float64")
        kernel = ops.convert_to_numpy(self.head.kernel).astype("float64")
        logits = states @ kernel
        if self.head.bias is not None:
            logits = logits + ops.convert_to_numpy(self.head.bias)
        return logits


def class_ids(y, examples, classes):
    """Class ids (NumPy) of class ids or one-hot rows.

    Args:
        y: Array `(examples,)`, `(examples, 1)` or `(examples, classes)`.
        examples: Integer.
        classes: Integer, the number of logits; 1 is for two classes.

    Raises:
        ValueError: If `y` does not fit.
    """
    y = np.asarray(ops.convert_to_numpy(y))
    one_hot = classes > 1 and y.shape == (examples, classes)
    flat = np.argmax(y, axis=-1) if one_hot else y.reshape(-1)
    given = np.asarray(flat).astype("int64")
    known = (0 <= given) & (given < max(classes, 2)) & (given == flat)
    if y.shape[1:] not in ((), (1,), (classes,)) or len(y) != examples:
        known = np.array(False)
    if not known.all():
        raise ValueError(
            f"Argument `y` does not fit the model. Expected {examples} class "
            f"ids below {max(classes, 2)}, or one-hot rows, Received: "
            f"y.shape={y.shape}, values from {y.min()} to {y.max()}"
        )
    return given


def class_margins(logits, classes):
    """The logit of the class less the largest other one (NumPy).

    Args:
        logits: Array `(examples, classes)`. One column is the logit of the
            class 1, beside a zero for the class 0.
        classes: Array `(examples,)` of class ids.
    """
    if logits.shape[1] == 1:
        return np.where(classes == 1, 1.0, -1.0) * logits[:, 0]
    own = np.take_along_axis(logits, classes[:, None], axis=1)[:, 0]
    others = logits.copy()
    np.put_along_axis(others, classes[:, None], -np.inf, axis=1)
    return own - others.max(axis=1)


def _check_recurrent(rnn):
    if not isinstance(rnn, (layers.SimpleRNN, FastRNN)):
        raise _misfit(rnn, "a SimpleRNN, SpectralRNN or OrthogonalRNN")
    for name in ("return_sequences", "return_state", "stateful"):
        if getattr(rnn, name):
            raise _misfit(rnn, f"{name} off")


def _misfit(layer, expected):
    return ValueError(
        f"The model has a layer, {layer.name}, that the generalization bound "
        f"does not know. Expected {expected}, Received: {layer}"
    )

"""Networks that theory knows: which layer of a model is what."""

import numpy as np
from keras import backend
from keras import layers
from keras import ops

from tf_spectral import bounds
from tf_spectral.activations import smooth_activation
from tf_spectral.backend.precision import working_dtype
from tf_spectral.bounds.losses import recognise
from tf_spectral.layers import SpectralDense
from tf_spectral.layers.simple_rnn import FastRNN
from tf_spectral.layers.spectral_kernel import SpectralKernel
from tf_spectral.linalg.norms import spectral_norm_upper_bound

# Layers that do the same in training as without.
PLAIN = (
    layers.Activation,
    layers.AveragePooling2D,
    layers.Conv1D,
    layers.Conv2D,
    layers.Dense,
    layers.Flatten,
    layers.GlobalAveragePooling1D,
    layers.GlobalAveragePooling2D,
    layers.LayerNormalization,
    layers.LeakyReLU,
    layers.MaxPooling1D,
    layers.MaxPooling2D,
    layers.ReLU,
    layers.Reshape,
    SpectralKernel,
)


class DenseSoftmax:
    """A chain of layers that ends in a dense softmax.

    Args:
        chain: List of layers without recurrence.
    """

    recurrent_kernel = None

    def __init__(self, chain):
        for layer in chain[:-1]:
            if not isinstance(layer, PLAIN):
                names = [kind.__name__ for kind in PLAIN]
                raise misfit(layer, f"one of {names} or a simple RNN")
        self.layers = chain
        self.head = chain[-1]

    def weights(self):
        """Variables whose constants are known."""
        return _own(self.head.kernel, self.head.bias)

    def constants(self, x, y=None, tier="vector", residual=False, radius=None):
        """The constants in the order of `weights`: the logits are linear."""
        for layer in self.layers[:-1]:
            x = layer(x)
        x = ops.cast(x, working_dtype(x.dtype))
        return [ops.mean(ops.sum(x * x, axis=-1)), 1.0][: len(self.weights())]


class RecurrentSoftmax:
    """Maybe an embedding, a simple recurrent layer, a dense softmax.

    Args:
        chain: List of these layers.
    """

    def __init__(self, chain):
        self.layers = chain
        *before, self.rnn, head = chain
        self.embedding = before[0] if before else None
        self.head = getattr(head, "layer", head)
        _check_recurrent(self.rnn)
        if len(before) > 1 or not isinstance(
            self.embedding, (layers.Embedding, type(None))
        ):
            raise misfit(before[-1], "nothing but an Embedding before the RNN")
        if self.embedding is not None and self.embedding.mask_zero:
            raise misfit(self.embedding, "mask_zero=False")
        self.cell = self.rnn.cell
        # Without one the kernel is no weight but made of others.
        self.recurrent_kernel = getattr(self.cell, "recurrent_kernel", None)

    def weights(self):
        """Variables whose constants are known."""
        return [variable for _, variable in self._named()]

    def _named(self):
        cell, head = self.cell, self.head
        pairs = [
            ("input", cell.kernel),
            ("recurrent", self.recurrent_kernel),
            ("output", head.kernel),
            ("bias", cell.bias),
            ("initial_state", getattr(cell, "initial_state", None)),
            ("output_bias", head.bias),
            ("embedding", getattr(self.embedding, "embeddings", None)),
        ]
        return [pair for pair in pairs if pair[1] is not None]

    def constants(self, x, y=None, tier="vector", residual=False, radius=None):
        """The constants in the order of `weights`."""
        x, arguments = self._network(x)
        arguments["residual"] = residual
        arguments["y"] = y
        arguments["output_bias"] = self.head.bias
        values = bounds.rnn_lipschitz_constants(
            x=x, **arguments, tier=tier, radius=radius
        )
        if self.embedding is not None:
            if tier in ("tensor", "paper"):
                values["bias"] = bounds.rnn_lipschitz_constants(
                    x=x, **arguments
                )["bias"]
            # A step D of the table moves z_t by a row of D K, of length
            # ||D|| ||K|| at most; one of the bias moves it by the step.
            size = spectral_norm_upper_bound(self.cell.kernel)
            values["embedding"] = values["bias"] * size * size
        return [values[name] for name, _ in self._named()]

    def trust_region(self, x, gradient_norm):
        """The best radius for a nuclear norm of the recurrent gradient."""
        x, arguments = self._network(x)
        return bounds.rnn_trust_region(
            x=x, gradient_norm=gradient_norm, **arguments
        )

    def _network(self, x):
        x = ops.convert_to_tensor(x)
        if self.embedding is not None:
            x = self.embedding(x)
        like = isinstance(self.rnn, FastRNN)
        recurrent = self.rnn.matrix if like else None
        return ops.flip(x, axis=1) if self.rnn.go_backwards else x, {
            "input_kernel": self.cell.kernel,
            "recurrent_kernel": recurrent() if like else self.recurrent_kernel,
            "output_kernel": self.head.kernel,
            "activation": self.rnn.activation,
            "initial_state": getattr(self.cell, "initial_state", None),
            "bias": self.cell.bias,
            "outputs": "all" if self.rnn.return_sequences else "last",
        }


def softmax_network(model):
    """Which known network a model is.

    Args:
        model: Compiled and built Keras model.

    Returns:
        `DenseSoftmax` or `RecurrentSoftmax`.

    Raises:
        ValueError: If it is none, with the layer that does not fit.
    """
    chain = [x for x in model.layers if not isinstance(x, layers.InputLayer)]
    _check_head(model, chain[-1])
    if any(isinstance(layer, layers.RNN) for layer in chain):
        if not isinstance(chain[-2], layers.RNN):
            raise misfit(chain[-2], "the only RNN right before the softmax")
        return RecurrentSoftmax(chain)
    return DenseSoftmax(chain)


def check_chain(network, model, x):
    """Raises unless the model is its layers, run one after another."""
    row = outputs = ops.convert_to_tensor(x)[:1]
    for layer in network.layers:
        outputs = layer(outputs)
    gap = ops.cast(outputs - model(row, training=False), "float32")
    error = float(ops.convert_to_numpy(ops.max(ops.abs(gap))))
    if not error < 1e-2:
        raise ValueError(
            "The model must be a chain: what its layers give, one after "
            f"another, is {error} off. Received: model={model.name}"
        )


def labels(model, network, y):
    """Targets of the model as the bounds take them.

    Args:
        model: Compiled model.
        network: What `softmax_network` made of it.
        y: Targets.

    Returns:
        Tensor of class ids, or of probabilities after label smoothing.
    """
    y = ops.convert_to_tensor(y)
    if recognise(model.loss).kind.startswith("sparse"):
        rnn = getattr(network, "rnn", None)
        rank = 2 if rnn is not None and rnn.return_sequences else 1
        return ops.reshape(y, y.shape[:rank])
    config = getattr(model.loss, "get_config", dict)()
    smoothing = config.get("label_smoothing", 0.0)
    if not backend.is_float_dtype(y.dtype):
        y = ops.cast(y, "float32")
    return y * (1 - smoothing) + smoothing / y.shape[-1]


def misfit(layer, expected):
    """The error about a layer."""
    return ValueError(
        f"The model has a layer, {layer.name}, for which no Lipschitz "
        f"constants are known. Expected {expected}, Received: {layer}"
    )


def _check_head(model, head):
    time = isinstance(head, layers.TimeDistributed)
    dense = head.layer if time else head
    if not isinstance(dense, layers.Dense):
        raise misfit(head, "a Dense layer at the end")
    loss = recognise(model.loss)
    if "categorical" not in loss.kind or loss.doubt:
        raise ValueError(
            "Lipschitz constants are known of the cross-entropy of a softmax. "
            'Expected loss="categorical_crossentropy" or "sparse_categorical'
            f'_crossentropy", all classes counted, Received: loss={model.loss}'
        )
    activation = getattr(dense.activation, "__name__", None)
    if activation != (loss.folded or "linear"):
        raise misfit(
            head, 'activation="softmax", or none and a loss from_logits=True'
        )


def _check_recurrent(rnn):
    if not isinstance(rnn, (layers.SimpleRNN, FastRNN)):
        raise misfit(rnn, "a SimpleRNN, SpectralRNN or OrthogonalRNN")
    for name in ("stateful", "return_state", "dropout", "recurrent_dropout"):
        if getattr(rnn, name):
            raise misfit(rnn, f"{name} off")
    try:
        smooth_activation(rnn.activation)
    except ValueError as error:
        raise misfit(rnn, f"a smooth activation: {error}") from error


def _own(*variables):
    return [variable for variable in variables if variable is not None]


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
        _check_last_output(self.rnn)
        if not isinstance(self.head, (layers.Dense, SpectralDense)):
            raise _no_bound(self.head, "a Dense layer at the end")
        for layer in self.before:
            if layer.trainable_variables:
                raise _no_bound(layer, "nothing trained before the RNN")

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
            recurrent = self.rnn.matrix()
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


def _check_last_output(rnn):
    if not isinstance(rnn, (layers.SimpleRNN, FastRNN)):
        raise _no_bound(rnn, "a SimpleRNN, SpectralRNN or OrthogonalRNN")
    for name in ("return_sequences", "return_state", "stateful"):
        if getattr(rnn, name):
            raise _no_bound(rnn, f"{name} off")


def _no_bound(layer, expected):
    return ValueError(
        f"The model has a layer, {layer.name}, that the generalization bound "
        f"does not know. Expected {expected}, Received: {layer}"
    )

"""How gradients fare on their way back through time."""

import contextlib
import os

import keras
import numpy as np
from keras import layers
from keras import losses
from keras import ops

from tf_spectral import checks
from tf_spectral import files
from tf_spectral.backend.gradients import compiled_gradient
from tf_spectral.backend.keras_internals import layers_within
from tf_spectral.callbacks.monitor import EpochMonitor


def gradient_norms_over_time(model, x, y, layer=None, loss=None):
    """Frobenius norms of `dL/dh_t` over a batch, for each time step t.

    `dL/dh_t` is the total derivative: what an error added to the state `h_t`
    does to the loss, through the output at t and through all later steps. In
    an LSTM or GRU `h` is the output; the carry state has no part of its own.
    The model runs as at inference, without dropout; a stateful layer starts
    from the state it has, and keeps it.

    Args:
        model: Keras model, run as a whole: the layer may be anywhere in it,
            also in a nested model or as `bidirectional.forward_layer`, but
            has to run exactly once.
        x: Inputs of the model, one batch.
        y: Targets of the batch.
        layer: `SpectralRNN`, `keras.layers.SimpleRNN`, `LSTM`, `GRU` or
            `keras.layers.RNN` of one cell whose output is its first state;
            or its name. `None` for the only one. Defaults to `None`.
        loss: Loss (object, function or name) of `(y, outputs)`, averaged over
            the batch. `None` for the loss of `model.compile`, regularization
            included. Defaults to `None`.

    Returns:
        Float NumPy array `(T,)`. Entry t belongs to the step that reads the
        t-th of the layer's inputs, with `go_backwards=True` too.

    Raises:
        ValueError: If the layer is not found, is ambiguous, is no recurrent
            layer of one cell, gets a mask, or does not run exactly once; if
            there is no loss.

    Example:

    >>> import keras
    >>> import numpy as np
    >>> from tf_spectral.callbacks import gradient_norms_over_time
    >>> from tf_spectral.layers import SpectralRNN
    >>> model = keras.Sequential([SpectralRNN(8), keras.layers.Dense(1)])
    >>> x, y = np.ones((4, 5, 2), "float32"), np.ones((4, 1), "float32")
    >>> gradient_norms_over_time(model, x, y, loss="mse").shape
    (5,)
    """
    checks.instance("model", model, keras.Model, "a Keras model")
    x, y = checks.data("x", x), checks.data("y", y)
    return norms_function(model, x, y, layer, loss)()


def norms_function(model, x, y, layer, loss):
    """A function of no arguments that measures the model as it then is."""
    x, y = (keras.tree.map_structure(ops.convert_to_tensor, t) for t in (x, y))
    loss_of = _loss_function(model, loss)
    layer = _find_layer(model, layer)
    with _kept_states(model):
        shape, dtype = _shape_of_states(model, layer, x)

    def perturbed_loss(errors, x, y):
        loop = _perturbed_loop(layer, errors)
        with _replaced_loop(model, layer, loop):
            outputs = model(x, training=False)
        return loss_of(x, y, outputs)

    # Keras does not count the states among a model's variables.
    variables = [*model.variables, *_states(model)]
    gradient = compiled_gradient(perturbed_loss, variables)

    def norms():
        with _kept_states(model):
            g = gradient(ops.zeros(shape, dtype), x, y)
        g = ops.convert_to_numpy(g)
        return np.sqrt(np.sum(np.square(g.astype("float64")), axis=(0, 2)))

    return norms


def _loss_function(model, loss):
    if loss is not None:
        loss = checks.found("loss", loss, losses.get, "a Keras loss")
        return lambda x, y, outputs: ops.mean(loss(y, outputs))
    if not model.compiled:
        raise ValueError(
            "The model has no loss. Expected a compiled model or an argument "
            f"`loss`, Received: model={model.name}, loss=None"
        )
    return lambda x, y, outputs: model.compute_loss(
        x, y, outputs, training=False
    )


def _find_layer(model, layer):
    name = layer if isinstance(layer, str) else None
    found = [
        candidate
        for candidate in layers_within(model, include_self=False)
        if isinstance(candidate, layers.RNN)
        and (layer is None or layer is candidate or name == candidate.name)
    ]
    if len(found) != 1:
        raise ValueError(
            "Argument `layer` must say which recurrent layer of the model is "
            "meant. Expected exactly one to fit, Received: "
            f"layer={layer}, which fits {[rnn.name for rnn in found]}"
        )
    if isinstance(found[0].cell, layers.StackedRNNCells):
        raise ValueError(
            "Argument `layer` must be a recurrent layer of one cell. "
            f"Received: layer={found[0].name} with cell={found[0].cell}"
        )
    return found[0]


def _shape_of_states(model, layer, x):
    """The shape `(batch, T, units)` of all states of the layer, the dtype."""
    found = []

    def loop(sequences, initial_state, mask, training=False):
        state = initial_state[0]
        batch, length = sequences.shape[:2]
        found.append(((batch, length, state.shape[-1]), state.dtype))
        outputs = ops.repeat(state[:, None], length, axis=1)
        return state, outputs, initial_state

    with _replaced_loop(model, layer, loop):
        model(x, training=False)
    return found[0]


def _states(model):
    """The state variables of the stateful layers of the model."""
    return [
        variable
        for layer in layers_within(model, include_self=False)
        if isinstance(layer, layers.RNN) and layer.stateful
        for variable in keras.tree.flatten(layer.states or [])
    ]


@contextlib.contextmanager
def _kept_states(model):
    """Restores what a run of the model changes: states and metrics."""
    # On the CPU: some backends write into the tensors of variables.
    before = {
        id(v): np.array(ops.convert_to_numpy(v))
        for v in _states(model) + model.metrics_variables
    }
    try:
        yield
    finally:
        for v in _states(model) + model.metrics_variables:
            # Variables that the run has created start at zero.
            v.assign(before.get(id(v), ops.zeros(v.shape, v.dtype)))


@contextlib.contextmanager
def _replaced_loop(model, layer, loop):
    """Replaces the layer's pass through time by `loop`, for one run.

    Keras still runs the whole model and prepares the cell, so this works for
    any model and any layer.
    """
    masks = []

    def inner_loop(sequences, initial_state, mask, training=False):
        masks.append(mask)
        # On PyTorch a stateful layer overwrites its states before the
        # gradient is taken.
        initial_state = keras.tree.map_structure(ops.copy, initial_state)
        return loop(sequences, initial_state, mask, training=training)

    layer.inner_loop = inner_loop
    try:
        yield
    finally:
        del layer.inner_loop
    if len(masks) != 1:
        raise ValueError(
            f"The layer {layer.name} must run exactly once in the model. "
            f"Received: {len(masks)} runs"
        )
    if masks[0] is not None:
        raise ValueError(
            f"The layer {layer.name} must not get a mask. Expected a model "
            "without Masking and without Embedding(mask_zero=True), Received: "
            f"model={model.name}"
        )


def _perturbed_loop(layer, errors):
    cell = _PerturbedCell(layer.cell)

    def loop(sequences, initial_state, mask, training=False):
        rnn = layers.RNN(
            cell,
            return_sequences=layer.return_sequences,
            go_backwards=layer.go_backwards,
        )
        both = ops.concatenate([sequences, errors], axis=-1)
        return rnn.inner_loop(both, initial_state, mask, training=training)

    return loop


class _PerturbedCell(layers.Layer):
    """A cell whose state, and output, an error is added to at each step.

    The gradient by the error is the total derivative by the state.
    """

    def __init__(self, cell):
        super().__init__(dtype=cell.dtype_policy)
        self.cell = cell
        self.state_size, self.output_size = cell.state_size, cell.output_size
        self.built = True

    def call(self, inputs, states):
        units = states[0].shape[-1]
        output, states = self.cell(inputs[:, :-units], states)
        states = states if isinstance(states, (list, tuple)) else [states]
        if output is not states[0]:
            raise ValueError(
                "The cell's output must be its first state. "
                f"Received: cell={self.cell}"
            )
        output = output + inputs[:, -units:]
        return output, [output, *states[1:]]


class GradientFlowMonitor(EpochMonitor):
    """Measures `||dL/dh_t||` for each time step t on a given batch.

    The logs of an epoch get `gradient_flow/first` and `gradient_flow/last`,
    the norms at the first and at the last step; put the callback before
    those that shall see them (`CSVLogger`, `TensorBoard`). The norms are the
    ones of `gradient_norms_over_time`.

    Args:
        x: Inputs of the model, one batch.
        y: Targets of the batch.
        layer: Recurrent layer of the model, or its name. `None` for the only
            one. Defaults to `None`.
        every: Positive integer `k`: measure at the end of every k-th epoch.
            In between the logs repeat the last measured values, so that each
            epoch has every column. Defaults to `1`.
        path: Path of an `.npz` file, written anew at each measurement, with
            `epochs` `(measurements,)` and `norms` `(measurements, T)`. A
            training that goes on from a backup keeps what the file has of the
            epochs before. `None` for no file. Defaults to `None`.

    Attributes:
        norms: List of `(epoch, array)` with an array `(T,)` for each
            measurement, from epoch -1 (before the first training) on.

    Raises:
        ValueError: If an argument is out of range; when training begins, as
            `gradient_norms_over_time`.

    Example:

    >>> import keras
    >>> import numpy as np
    >>> from tf_spectral.callbacks import GradientFlowMonitor
    >>> from tf_spectral.layers import SpectralRNN
    >>> model = keras.Sequential([SpectralRNN(8), keras.layers.Dense(1)])
    >>> model.compile("adam", "mse")
    >>> x, y = np.ones((4, 5, 2), "float32"), np.ones((4, 1), "float32")
    >>> monitor = GradientFlowMonitor(x, y)
    >>> history = model.fit(x, y, callbacks=[monitor], verbose=0)
    >>> [(epoch, norms.shape) for epoch, norms in monitor.norms]
    [(-1, (5,)), (0, (5,))]

    Reference: Zhang et al., "Stabilizing Gradients for Deep Neural Networks
    via Efficient SVD Parameterization", 2018, section 7.
    """

    def __init__(self, x, y, layer=None, every=1, path=None):
        if path is not None:
            path = checks.local_path("path", path)
            if not path.endswith(".npz"):
                checks.refuse("path", "be an .npz file", path)
        super().__init__(every)
        self.x, self.y = checks.data("x", x), checks.data("y", y)
        self.layer, self.path = layer, path
        self.norms = []
        self._measure = None

    def prepare(self):
        self._measure = norms_function(
            self.model, self.x, self.y, self.layer, loss=None
        )

    def measure(self, epoch):
        norms = self._measure()
        if not self.norms:
            self.norms = self._earlier(epoch, norms.shape)
        self.norms.append((epoch, norms))
        if self.path is not None:
            epochs, rows = zip(*self.norms)
            with files.replaced(self.path) as beside:
                np.savez(beside, epochs=epochs, norms=rows)
        return {
            "gradient_flow/first": float(norms[0]),
            "gradient_flow/last": float(norms[-1]),
        }

    def _earlier(self, epoch, shape):
        """What a training that goes on has measured before it was stopped."""
        if self.path is None or epoch < 0 or not os.path.exists(self.path):
            return []
        with np.load(self.path) as file:
            pairs = zip(file["epochs"].tolist(), file["norms"])
            return [(e, n) for e, n in pairs if e < epoch and n.shape == shape]

"""A stack of layers run one time step at a time, its state in plain sight."""

import inspect

from keras import layers
from keras import models
from keras import ops
from keras import tree

from tf_spectral.activations import ModReLU
from tf_spectral.backend.keras_internals import chain
from tf_spectral.backend.keras_internals import is_graph
from tf_spectral.backend.keras_internals import layers_within
from tf_spectral.layers.spectral_dense import SpectralDense


class Stream:
    """Steps through time with a chain of layers.

    Layers before the last recurrent one act on each step alone; after a
    recurrent layer that returns its last output only, anything goes.

    Args:
        chain: List of built layers without an `obstacle`.
    """

    def __init__(self, chain):
        self._chain = chain
        self._structure = self._states(1)

    def initial_state(self, batch_size):
        """Dict of the states `state_0`, `state_1`, ... before the first step.

        Args:
            batch_size: Integer or integer scalar tensor.
        """
        return _named(self._states(batch_size))

    def step(self, inputs, *states):
        """One step of all layers.

        Args:
            inputs: Tensor `(batch, ...)`, the inputs of one time step.
            *states: Tensors in the order of their names.

        Returns:
            Dict of `outputs` and of the new states.
        """
        old = iter(tree.pack_sequence_as(self._structure, states))
        x, new, in_time = ops.expand_dims(inputs, 1), [], True
        for layer in self._chain:
            if not isinstance(layer, layers.RNN):
                x = _infer(layer, x)
                continue
            x, state = _infer(layer.cell, x[:, 0], next(old))
            new.append(state)
            x = ops.cast(x, layer.compute_dtype)
            in_time = layer.return_sequences
            x = ops.expand_dims(x, 1) if in_time else x
        return {"outputs": x[:, 0] if in_time else x, **_named(new)}

    def _states(self, batch_size):
        return [
            tree.map_structure(
                lambda t, dtype=rnn.cell.compute_dtype: ops.cast(t, dtype),
                rnn.get_initial_state(batch_size),
            )
            for rnn in self._chain
            if isinstance(rnn, layers.RNN)
        ]


def chain_of(model):
    """The layers that a model runs one after the other.

    Args:
        model: Built Sequential or functional model; models within it are
            taken apart.

    Returns:
        List of layers, or `None` if the model is no such chain.
    """
    if not is_graph(model):
        return None
    if isinstance(model, models.Sequential):
        parts = model.layers
    else:
        parts = chain(model)
    chains = [chain_of(p) if is_graph(p) else [p] for p in parts or ()]
    if parts is None or None in chains:
        return None
    return [layer for chain in chains for layer in chain]


def obstacle(chain):
    """Why a chain of layers cannot run step by step, or `None`."""
    if chain is None:
        return "its layers do not form a single chain"
    recurrent, in_time = False, True
    for layer in chain:
        if not in_time:
            if any(
                isinstance(part, layers.RNN) for part in layers_within(layer)
            ):
                return f"layer '{layer.name}' goes through time once more"
            continue
        if isinstance(layer, layers.RNN):
            reason = _recurrent_obstacle(layer)
            recurrent, in_time = True, layer.return_sequences
        else:
            reason = _stepwise_obstacle(layer)
        if reason:
            return f"layer '{layer.name}' {reason}"
    return None if recurrent else "it has no recurrent layer"


def _recurrent_obstacle(layer):
    if isinstance(layer, _CONVOLUTIONAL):
        return "is convolutional"
    if layer.go_backwards:
        return "goes backwards"
    if layer.return_state:
        return "returns its state"
    return None


def _stepwise_obstacle(layer):
    if isinstance(layer, layers.Embedding) and layer.mask_zero:
        return "makes a mask"
    if type(layer) in _STEPWISE:
        return None
    axes = tree.flatten(getattr(layer, "axis", 0))
    if type(layer) in _ALONG_AXES and all(a == -1 or a > 1 for a in axes):
        return None
    return (
        f"({type(layer).__name__}) is not known to act on each time step "
        "alone, as layers in keras.layers.TimeDistributed do"
    )


def _infer(layer, *args):
    if "training" in inspect.signature(layer.call).parameters:
        return layer(*args, training=False)
    return layer(*args)


def _named(states):
    return {f"state_{i}": s for i, s in enumerate(tree.flatten(states))}


_CONVOLUTIONAL = (layers.ConvLSTM1D, layers.ConvLSTM2D, layers.ConvLSTM3D)
_STEPWISE = (
    layers.Activation,
    layers.ActivityRegularization,
    layers.AlphaDropout,
    layers.Dense,
    layers.Dropout,
    layers.ELU,
    layers.Embedding,
    layers.GaussianDropout,
    layers.GaussianNoise,
    layers.Identity,
    layers.InputLayer,
    layers.LeakyReLU,
    layers.ReLU,
    layers.Rescaling,
    layers.SpatialDropout1D,
    layers.TimeDistributed,
    ModReLU,
    SpectralDense,
)
_ALONG_AXES = (
    layers.BatchNormalization,
    layers.LayerNormalization,
    layers.Softmax,
    layers.UnitNormalization,
)

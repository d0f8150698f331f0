"""Recurrent layers by name, as the options `--cell` of the examples take."""

import keras

from tf_spectral.backend.keras_internals import layers_within
from tf_spectral.layers import SpectralGRU
from tf_spectral.layers import SpectralLSTM
from tf_spectral.layers import SpectralRNN
from tf_spectral.parametrizations import SVD

CELLS = (
    "spectral",
    "orthogonal",
    "ornn",
    "spectral_lstm",
    "spectral_gru",
    "simple",
    "irnn",
    "lstm",
    "gru",
)
# As tables and figures have them.
NAMES = {
    "spectral": "Spectral-RNN",
    "orthogonal": "Orthogonal RNN",
    "ornn": "oRNN",
    "spectral_lstm": "Spectral-LSTM",
    "spectral_gru": "Spectral-GRU",
    "simple": "RNN",
    "irnn": "IRNN",
    "lstm": "LSTM",
    "gru": "GRU",
    "mlp": "MLP",
    "resnet": "ResNet",
    "spectral_mlp": "Spectral-MLP",
    "spectral_resnet": "Spectral-ResNet",
}


def recurrent_layer(cell, units, spectral_options, activation=None, **kwargs):
    """A recurrent layer of the named kind.

    Args:
        cell: One of `CELLS`. `"orthogonal"` is the spectral layer with all
            singular values fixed at 1, `"ornn"` that with one factor only
            (Mhammedi et al., 2017), `"irnn"` the ReLU network that starts at
            the identity (Le et al., 2015).
        units: Integer.
        spectral_options: Dict of arguments that the spectral layers have
            beside Keras' own; `reflectors` is an integer.
        activation: Activation of the spectral and the orthogonal layers.
            Defaults to `None`: leaky ReLU, with which the runs in docs were
            made.
        **kwargs: Arguments of any recurrent layer.
    """
    if cell in ("spectral", "orthogonal", "ornn"):
        options = {**spectral_options, "activation": activation or "leaky_relu"}
        if cell != "spectral":
            options["sigma_mode"] = "fixed"
        if cell == "ornn":
            options["reflectors"] = (options["reflectors"], 0)
        return SpectralRNN(units, **options, **kwargs)
    if cell in ("spectral_lstm", "spectral_gru"):
        layer = SpectralLSTM if cell == "spectral_lstm" else SpectralGRU
        return layer(units, **spectral_options, **kwargs)
    if cell == "irnn":
        options = {
            "activation": "relu",
            "kernel_initializer": keras.initializers.RandomNormal(stddev=1e-3),
            "recurrent_initializer": "identity",
            **kwargs,
        }
        return keras.layers.SimpleRNN(units, **options)
    layers = {
        "simple": keras.layers.SimpleRNN,
        "lstm": keras.layers.LSTM,
        "gru": keras.layers.GRU,
    }
    return layers[cell](units, **kwargs)


def count_weights(model):
    """How many numbers of a model act; Keras counts all that are there."""
    return model.count_params() - count_idle(model)


def count_idle(layer):
    """How many entries of reflectors stand before where theirs begin."""
    parts = [x for x in layers_within(layer) if isinstance(x, SVD)]
    return sum(m * (m - 1) // 2 for x in parts for m in x.reflectors)

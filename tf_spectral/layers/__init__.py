"""Keras layers; their matrices are parametrized or constrained."""

from tf_spectral.activations import ModReLU
from tf_spectral.layers.orthogonal_rnn import OrthogonalRNN
from tf_spectral.layers.orthogonal_rnn import OrthogonalRNNCell
from tf_spectral.layers.spectral_conv import SpectralConv1D
from tf_spectral.layers.spectral_conv import SpectralConv2D
from tf_spectral.layers.spectral_dense import SpectralDense
from tf_spectral.layers.spectral_gru import SpectralGRU
from tf_spectral.layers.spectral_gru import SpectralGRUCell
from tf_spectral.layers.spectral_lstm import SpectralLSTM
from tf_spectral.layers.spectral_lstm import SpectralLSTMCell
from tf_spectral.layers.spectral_rnn import SpectralRNN
from tf_spectral.layers.spectral_rnn import SpectralRNNCell

__all__ = [
    "ModReLU",
    "OrthogonalRNN",
    "OrthogonalRNNCell",
    "SpectralConv1D",
    "SpectralConv2D",
    "SpectralDense",
    "SpectralGRU",
    "SpectralGRUCell",
    "SpectralLSTM",
    "SpectralLSTMCell",
    "SpectralRNN",
    "SpectralRNNCell",
]

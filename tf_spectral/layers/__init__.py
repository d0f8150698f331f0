"""Keras layers; their matrices are parametrized or constrained."""

from tf_spectral.layers.modrelu import ModReLU
from tf_spectral.layers.orthogonal_rnn import OrthogonalRNN
from tf_spectral.layers.orthogonal_rnn_cell import OrthogonalRNNCell
from tf_spectral.layers.spectral_rnn import SpectralRNN
from tf_spectral.layers.spectral_rnn_cell import SpectralRNNCell

__all__ = [
    "ModReLU",
    "OrthogonalRNN",
    "OrthogonalRNNCell",
    "SpectralRNN",
    "SpectralRNNCell",
]

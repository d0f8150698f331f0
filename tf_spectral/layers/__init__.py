"""Keras layers; each delegates its matrix to a parametrization."""

from tf_spectral.layers.modrelu import ModReLU
from tf_spectral.layers.spectral_rnn import SpectralRNN
from tf_spectral.layers.spectral_rnn_cell import SpectralRNNCell

__all__ = ["ModReLU", "SpectralRNN", "SpectralRNNCell"]

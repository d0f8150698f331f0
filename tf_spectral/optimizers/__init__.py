"""Optimizers with the step sizes and the geometry that theory asks for."""

from tf_spectral.optimizers.dsgd import DSGD
from tf_spectral.optimizers.spectral_descent import SpectralDescent
from tf_spectral.optimizers.srcd import SRCD
from tf_spectral.optimizers.srgd import SRGD

__all__ = ["DSGD", "SRCD", "SRGD", "SpectralDescent"]

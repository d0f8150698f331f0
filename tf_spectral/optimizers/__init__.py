"""Optimizers with the step sizes and the geometry that theory asks for."""

import keras

from tf_spectral.optimizers.dsgd import DSGD
from tf_spectral.optimizers.riemannian import SRGD
from tf_spectral.optimizers.spectral_descent import SpectralDescent
from tf_spectral.optimizers.srcd import SRCD

__all__ = ["DSGD", "SRCD", "SRGD", "SpectralDescent"]

# `compile("dsgd")`, in the letters of the class or in small ones, as for
# Keras' own optimizers.
for _optimizer in (DSGD, SRCD, SRGD, SpectralDescent):
    for _name in (_optimizer.__name__, _optimizer.__name__.lower()):
        keras.saving.get_custom_objects().setdefault(_name, _optimizer)

"""Optimizers with the step sizes and the geometry that theory asks for."""

import keras

from tf_spectral.optimizers.dsgd import DSGD
from tf_spectral.optimizers.riemannian import SRGD
from tf_spectral.optimizers.spectral_descent import SpectralDescent
from tf_spectral.optimizers.srcd import SRCD

__all__ = ["DSGD", "SRCD", "SRGD", "SpectralDescent"]

# `compile("dsgd")`: the name of the class, in small letters, too, as for
# Keras' own optimizers, and what an optimizer calls itself.
_NAMES = {
    "dsgd": DSGD,
    "srcd": SRCD,
    "srgd": SRGD,
    "spectraldescent": SpectralDescent,
    "spectral_descent": SpectralDescent,
}
for _short, _optimizer in _NAMES.items():
    for _name in (_optimizer.__name__, _short):
        keras.saving.get_custom_objects().setdefault(_name, _optimizer)

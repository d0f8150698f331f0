"""Optimizers with the step sizes and the geometry that theory asks for."""

from tf_spectral.optimizers.dsgd import DSGD

__all__ = ["DSGD"]

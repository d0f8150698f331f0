"""Callbacks that watch what training does to spectra and gradients."""

from tf_spectral.callbacks.gradient_flow import GradientFlowMonitor
from tf_spectral.callbacks.gradient_norms import gradient_norms_over_time
from tf_spectral.callbacks.layer_updates import LayerUpdateCounter
from tf_spectral.callbacks.lipschitz import LipschitzEstimator
from tf_spectral.callbacks.spectrum import SpectrumMonitor

__all__ = [
    "GradientFlowMonitor",
    "LayerUpdateCounter",
    "LipschitzEstimator",
    "SpectrumMonitor",
    "gradient_norms_over_time",
]

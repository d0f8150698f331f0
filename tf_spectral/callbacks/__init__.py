"""Callbacks that watch what training does to spectra and gradients."""

from tf_spectral.callbacks.gradient_flow import GradientFlowMonitor
from tf_spectral.callbacks.gradient_norms import gradient_norms_over_time
from tf_spectral.callbacks.spectrum import SpectrumMonitor

__all__ = ["GradientFlowMonitor", "SpectrumMonitor", "gradient_norms_over_time"]

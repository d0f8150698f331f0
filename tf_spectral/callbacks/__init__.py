"""Callbacks that watch spectra and gradients, and that keep a training."""

from tf_spectral.callbacks.averages import OrthogonalAverages
from tf_spectral.callbacks.backup import Backup
from tf_spectral.callbacks.generalization import GeneralizationMonitor
from tf_spectral.callbacks.gradient_flow import GradientFlowMonitor
from tf_spectral.callbacks.gradient_flow import gradient_norms_over_time
from tf_spectral.callbacks.layer_updates import LayerUpdateCounter
from tf_spectral.callbacks.lipschitz import LipschitzEstimator
from tf_spectral.callbacks.sigma_radius import SigmaRadiusSchedule
from tf_spectral.callbacks.spectrum import SpectrumMonitor

__all__ = [
    "Backup",
    "GeneralizationMonitor",
    "GradientFlowMonitor",
    "LayerUpdateCounter",
    "LipschitzEstimator",
    "OrthogonalAverages",
    "SigmaRadiusSchedule",
    "SpectrumMonitor",
    "gradient_norms_over_time",
]

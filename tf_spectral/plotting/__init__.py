"""The figures of the papers, drawn from logged runs."""

from tf_spectral.plotting.curves import layer_choices
from tf_spectral.plotting.curves import learning_curves
from tf_spectral.plotting.curves import singular_values
from tf_spectral.plotting.curves import update_curves
from tf_spectral.plotting.gradients import gradient_flow
from tf_spectral.plotting.gradients import local_gradient
from tf_spectral.plotting.gradients import partial_derivatives
from tf_spectral.plotting.logs import read_log

__all__ = [
    "gradient_flow",
    "layer_choices",
    "learning_curves",
    "local_gradient",
    "partial_derivatives",
    "read_log",
    "singular_values",
    "update_curves",
]

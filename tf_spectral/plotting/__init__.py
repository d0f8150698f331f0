"""The figures of the papers, drawn from logged runs."""

from tf_spectral.plotting.gradient_flow import gradient_flow
from tf_spectral.plotting.layer_choices import layer_choices
from tf_spectral.plotting.learning_curves import learning_curves
from tf_spectral.plotting.local_gradient import local_gradient
from tf_spectral.plotting.logs import read_log
from tf_spectral.plotting.partial_derivatives import partial_derivatives
from tf_spectral.plotting.singular_values import singular_values
from tf_spectral.plotting.update_curves import update_curves

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

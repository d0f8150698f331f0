"""The figures of the papers, drawn from logged runs."""

from tf_spectral.plotting.gradient_flow import gradient_flow
from tf_spectral.plotting.learning_curves import learning_curves
from tf_spectral.plotting.logs import read_log
from tf_spectral.plotting.singular_values import singular_values

__all__ = [
    "gradient_flow",
    "learning_curves",
    "read_log",
    "singular_values",
]

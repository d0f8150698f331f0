"""What the theory promises, as numbers."""

from tf_spectral.bounds.generalization import generalization_bound
from tf_spectral.bounds.generalization import log_gradient_bound
from tf_spectral.bounds.layerwise import LayerwiseSmoothness
from tf_spectral.bounds.recurrent import rnn_lipschitz_constants
from tf_spectral.bounds.recurrent import rnn_loss_bound
from tf_spectral.bounds.recurrent import rnn_trust_region

__all__ = [
    "LayerwiseSmoothness",
    "generalization_bound",
    "log_gradient_bound",
    "rnn_lipschitz_constants",
    "rnn_loss_bound",
    "rnn_trust_region",
]

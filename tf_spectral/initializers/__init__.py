"""Where weights start: reflectors of factors, and orthogonal matrices."""

from tf_spectral.initializers.orthogonal import BlockRotation
from tf_spectral.initializers.orthogonal import Cayley
from tf_spectral.initializers.orthogonal import Haar
from tf_spectral.initializers.orthogonal import get_orthogonal_initializer
from tf_spectral.initializers.reflectors import GaussianReflectors
from tf_spectral.initializers.reflectors import HaarReflectors
from tf_spectral.initializers.reflectors import IdentityReflectors
from tf_spectral.initializers.reflectors import ReflectorInitializer
from tf_spectral.initializers.reflectors import RotationReflectors
from tf_spectral.initializers.reflectors import get_reflector_initializer

__all__ = [
    "BlockRotation",
    "Cayley",
    "GaussianReflectors",
    "Haar",
    "HaarReflectors",
    "IdentityReflectors",
    "ReflectorInitializer",
    "RotationReflectors",
    "get_orthogonal_initializer",
    "get_reflector_initializer",
]

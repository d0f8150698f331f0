"""Penalties that pull singular values to a place of choice."""

from keras import ops
from keras import regularizers
from keras.saving import register_keras_serializable

from tf_spectral import checks

__all__ = ["SingularValues"]


@register_keras_serializable("tf_spectral")
class SingularValues(regularizers.Regularizer):
    """The penalty `strength * sum((sigma - center)^2)` of singular values.

    To be the `sigma_regularizer` of any spectral layer. A negative entry of
    `sigma` (`sigma_mode="free"`) counts by its size, which is the singular
    value.

    Args:
        strength: Non-negative float. Defaults to `0.01`.
        center: Non-negative float, where the penalty is zero; 1 for a matrix
            that is as orthogonal as its shape allows. Defaults to `1.0`.

    Call arguments:
        x: Floating tensor, the singular values.

    Returns:
        Scalar tensor of the dtype of `x`.

    Raises:
        ValueError: If an argument is out of range.

    Example:

    >>> import keras
    >>> from tf_spectral.layers import SpectralDense
    >>> from tf_spectral.regularizers import SingularValues
    >>> penalty = SingularValues(strength=0.5)
    >>> float(penalty(keras.ops.convert_to_tensor([1.0, 3.0, -1.0])))
    2.0
    >>> layer = SpectralDense(8, sigma_regularizer=penalty)

    Reference: Zhang et al., "Stabilizing Gradients for Deep Neural Networks
    via Efficient SVD Parameterization", 2018, section 4, whose bounds this
    softens; Vorontsov et al., "On orthogonality and learning recurrent
    networks with long term dependencies", 2017.
    """

    def __init__(self, strength=0.01, center=1.0):
        self.strength = checks.non_negative(
            "strength", strength, checks.SQUARABLE
        )
        self.center = checks.non_negative("center", center, checks.SQUARABLE)

    def __call__(self, x):
        # `abs` has no slope at zero, from where values are to move on.
        gap = ops.where(x < 0, -x, x) - self.center
        return self.strength * ops.sum(gap * gap)

    def get_config(self):
        return {"strength": self.strength, "center": self.center}

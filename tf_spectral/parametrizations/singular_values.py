"""Singular values and the raw weight that stands for them.

`sigmoid` keeps them in [c - r, c + r] whatever the weight is, `clip` by a
constraint after each update, `free` not at all; `fixed` has no weight. Zhang
et al., 2018, section 4 (equation 8 for the sigmoid).
"""

import numpy as np
from keras import constraints
from keras import ops
from keras.saving import register_keras_serializable

from tf_spectral import checks

MODES = ("sigmoid", "clip", "free", "fixed")

# A sigmoid is flat at its bounds: nothing that is put there would ever leave.
INSIDE = 0.99


def check_sigma(mode, center, radius):
    """The three as plain Python; raises if the mode has no such bounds."""
    mode = checks.choice("sigma_mode", mode, MODES)
    center = checks.non_negative("sigma_center", center, checks.SQUARABLE)
    radius = checks.number("sigma_radius", radius)
    if mode not in ("sigmoid", "clip"):
        return mode, center, radius
    radius = checks.positive("sigma_radius", radius, checks.SQUARABLE)
    if 0 < center <= radius:
        raise ValueError(
            "Argument `sigma_radius` must be positive and, so that the matrix "
            "stays invertible, smaller than a positive `sigma_center`. "
            f"Received: sigma_radius={radius}, sigma_center={center}"
        )
    return mode, center, radius


def sigma_from_weight(weight, mode, center, radius):
    """Singular values from the raw weight."""
    if mode == "sigmoid":
        return center + 2 * radius * (ops.sigmoid(weight) - 0.5)
    return weight


def weight_from_sigma(sigma, mode, center, radius):
    """The raw weight (NumPy) of the given singular values.

    Raises:
        ValueError: If a bounded mode cannot hold them; the message says which
            bounds would.
    """
    sigma = _to_host(sigma)
    if mode == "free":
        return sigma
    allowed = 0.0 if mode == "fixed" else radius
    # A hair of rounding is forgiven, as a float32 matrix carries it.
    hair = 1e-5 * max(center, 1.0)
    hair = hair if mode == "fixed" else min(hair, radius / 10)
    outside = int(np.sum(np.abs(sigma - center) > allowed + hair))
    if outside:
        remedy = ""
        if mode != "fixed":
            enough = "sigma_center={:.6g}, sigma_radius={:.6g}".format(
                *bounds_that_hold(sigma, center)
            )
            remedy = f". They would fit with {enough}"
        raise ValueError(
            "The singular values lie outside of the bounds. Expected all in "
            f"[{center - allowed}, {center + allowed}] "
            f"(sigma_mode='{mode}'), Received: values in "
            f"[{sigma.min()}, {sigma.max()}], {outside} of {sigma.size} "
            f"outside{remedy}"
        )
    if mode != "sigmoid":
        return nearest_sigma(sigma, mode, center, radius)
    bound = 1 - 1e-6
    return 2 * np.arctanh(np.clip((sigma - center) / radius, -bound, bound))


def nearest_sigma(sigma, mode, center, radius):
    """The values (NumPy) within the bounds that are closest to `sigma`.

    Of a sigmoid, those outside go a hundredth of the radius inside the bounds.
    """
    sigma = _to_host(sigma)
    if mode == "free":
        return sigma
    allowed = 0.0 if mode == "fixed" else radius
    edge = INSIDE * allowed if mode == "sigmoid" else allowed
    outside = np.abs(sigma - center) > allowed
    return np.where(outside, center + np.sign(sigma - center) * edge, sigma)


def bounds_that_hold(sigma, center=None, radius=None):
    """Center and radius of bounds that hold the given singular values.

    A tenth of the radius is left free on either side, as a sigmoid would be
    flat at the bounds; less, where `center` is given and a tenth is not to be
    had. Where such bounds would reach zero, or `center` is too small for a
    radius below it, the center becomes 0.

    Args:
        sigma: Floating array `(k,)`.
        center: Non-negative float to prefer, or `None` for the middle.
        radius: Positive float to return in any case, or `None`.

    Returns:
        Tuple of floats `(center, radius)`; no promise if `radius` was given.
    """
    sigma = _to_host(sigma)
    given = center is not None
    if not given:
        center = max(0.0, float(sigma.max() + sigma.min()) / 2)
    reach = float(np.abs(sigma - center).max())
    enough = max(1.1 * reach, 0.01 * (center or 1.0))
    if radius is not None:
        enough = radius
    if center and enough >= center:
        narrow = (reach + center) / 2
        if given and radius is None and reach <= INSIDE * narrow:
            return float(center), narrow
        return bounds_that_hold(sigma, 0.0, radius)
    return float(center), float(enough)


def _to_host(sigma):
    return np.asarray(ops.convert_to_numpy(sigma)).astype("float64")


@register_keras_serializable("tf_spectral")
class Interval(constraints.Constraint):
    """Constrains each entry of a weight to `[low, high]`.

    Args:
        low: Float, the lower bound.
        high: Float, the upper bound.
    """

    def __init__(self, low, high):
        self.low, self.high = low, high

    def __call__(self, w):
        return ops.clip(w, self.low, self.high)

    def get_config(self):
        return {"low": self.low, "high": self.high}

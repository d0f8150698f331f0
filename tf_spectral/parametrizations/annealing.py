"""Annealable: bounds of singular values that move during training."""

import numpy as np
from keras import ops

from tf_spectral.parametrizations import singular_values as sv


class Annealable:
    """The part of `SVD` that owns a radius which can change.

    The radius is then a weight that no optimizer sees, and the weight of
    sigma stands for `(sigma - sigma_center) / radius`, between -1 and 1: no
    constant in a compiled function, nor in the constraint of that weight,
    depends on the radius.
    """

    def radius(self):
        """The radius of now: a scalar tensor if it is a weight, or a float.

        `sigma_radius` is the one that was given to the constructor.
        """
        if not self.annealed_radius:
            return self.sigma_radius
        self._ensure_built()
        return ops.convert_to_tensor(self._radius)

    def set_radius(self, radius):
        """Moves the bounds of the singular values.

        Values inside the new bounds stay as they are, to rounding. The others
        are put at the nearest bound, in the mode `"sigmoid"` a hundredth of
        the radius inside of it, as at the bound it has no slope left. What an
        optimizer remembers of them (moments) stays as it is. Not to be called
        inside a compiled function.

        Args:
            radius: Positive float, smaller than a positive `sigma_center`.

        Raises:
            ValueError: If `radius` is out of range, or if the radius is no
                weight (`annealed_radius=False`). Nothing has changed then.
        """
        if not self.annealed_radius:
            raise ValueError(
                "The radius is a constant. Expected an `SVD` with "
                "annealed_radius=True, Received: annealed_radius=False"
            )
        radius = sv.check_sigma(self.sigma_mode, self.sigma_center, radius)[2]
        self._ensure_built()
        before = self._bounds()[2]
        self._radius.assign(radius)
        after = self._bounds()[2]
        if after == before:
            return
        raw = ops.convert_to_numpy(self._sigma).astype("float64")
        sigmoid = self.sigma_mode == "sigmoid"
        units = (np.tanh(raw / 2) if sigmoid else raw) * (before / after)
        edge = sv.INSIDE if sigmoid else 1.0
        units = np.where(np.abs(units) > 1, np.sign(units) * edge, units)
        raw = sv.weight_from_sigma(units, self.sigma_mode, 0.0, 1.0)
        self._sigma.assign(ops.cast(raw, self._sigma.dtype))

    def _bounds(self):
        """Mode, center and radius of now; of numbers, not of tensors."""
        radius = self.sigma_radius
        if self.annealed_radius and self.built:
            radius = float(ops.convert_to_numpy(self._radius))
        return self.sigma_mode, self.sigma_center, radius

    def _weight_bounds(self):
        """The center and the radius of what the weight of sigma holds."""
        if self.annealed_radius:
            return 0.0, 1.0
        return self.sigma_center, self.sigma_radius

    def _weight_from_sigma(self, sigma):
        """The raw weight (NumPy) of singular values; raises as `sv` does."""
        mode, center, radius = self._bounds()
        raw = sv.weight_from_sigma(sigma, mode, center, radius)
        if not self.annealed_radius:
            return raw
        # What rounding has put outside goes to the bound itself.
        sigma = sv.nearest_sigma(sigma, "clip", center, radius)
        return sv.weight_from_sigma((sigma - center) / radius, mode, 0.0, 1.0)

    def _sigma_from_weight(self, weight):
        center, radius = self._weight_bounds()
        sigma = sv.sigma_from_weight(weight, self.sigma_mode, center, radius)
        if not self.annealed_radius:
            return sigma
        return self.sigma_center + self.radius() * sigma


def check_annealed(annealed_radius, sigma_mode):
    """Raises where a radius that can change would bound nothing."""
    if annealed_radius and sigma_mode not in ("sigmoid", "clip"):
        raise ValueError(
            "Argument `annealed_radius` has no bounds to act on. Expected "
            "False unless sigma_mode is 'sigmoid' or 'clip', Received: "
            f"annealed_radius={annealed_radius}, sigma_mode={sigma_mode}"
        )

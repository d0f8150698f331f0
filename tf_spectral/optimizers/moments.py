"""Moments of partial derivatives on the orthogonal group.

Partial derivatives refer to the frame `{W H_jl}` of the matrix itself, so
those of different steps are comparable as they are (math 3.6). Moments are
kept in float32 or better: the squares of half precision would be zero or
infinite, and so would `epsilon`.
"""

from keras import ops

from tf_spectral.linalg.checks import working_dtype

ADAPTIVE = (None, "rmsprop", "adam")


class DenseMoments:
    """Moments of all pairs, updated in every step.

    Args:
        optimizer: `SRCD`, gives the settings and owns the variables.
        variable: The variable `(d, d)` that is to be turned.
    """

    def __init__(self, optimizer, variable):
        self._settings = optimizer
        names = _names(optimizer.adaptive)
        self._slots = {
            name: optimizer.add_variable(
                variable.shape,
                dtype=working_dtype(variable.dtype),
                name=f"{variable.name}_{name}",
            )
            for name in names
        }

    def directions(self, derivatives, finite):
        """What takes the place of the partial derivatives.

        Args:
            derivatives: Skew tensor `(d, d)`.
            finite: Boolean scalar; if false, no moment changes.

        Returns:
            Skew tensor `(d, d)`.
        """
        settings = self._settings
        if settings.adaptive is None:
            return derivatives
        old = {
            name: ops.convert_to_tensor(v) for name, v in self._slots.items()
        }
        count = ops.cast(settings.iterations + 1, derivatives.dtype)
        new, result = _updated(settings, old, derivatives, count)
        for name, slot in self._slots.items():
            kept = ops.where(finite, new[name], old[name])
            settings.assign(slot, kept)
        return result


class LazyMoments:
    """Moments of pairs, each updated when it is its turn.

    Args:
        optimizer: `SRCD`, gives the settings and owns the variables.
        variable: The variable `(d, d)` that is to be turned.
    """

    def __init__(self, optimizer, variable):
        self._settings = optimizer
        names = _names(optimizer.adaptive)
        if optimizer.adaptive == "adam":
            names = (*names, "visits")
        d = variable.shape[0]
        # Flat, for rows of them to be changed in place.
        self._slots = {
            name: optimizer.add_variable(
                (d * d,),
                dtype=working_dtype(variable.dtype),
                name=f"{variable.name}_{name}",
            )
            for name in names
        }

    def directions(self, derivatives, places, finite):
        """What takes the place of some partial derivatives.

        Args:
            derivatives: Tensor `(k,)`.
            places: Integer tensor `(k,)`, their places in a flat `(d * d,)`.
            finite: Boolean scalar; if false, no moment changes.

        Returns:
            Tensor `(k,)`.
        """
        settings = self._settings
        if settings.adaptive is None:
            return derivatives
        old = {
            name: settings.gather_rows(slot, places)
            for name, slot in self._slots.items()
        }
        count = old["visits"] + 1 if "visits" in old else None
        new, result = _updated(settings, old, derivatives, count)
        if count is not None:
            new["visits"] = count
        for name, slot in self._slots.items():
            kept = ops.where(finite, new[name], old[name])
            settings.assign_rows(slot, places, kept)
        return result


def _names(adaptive):
    return {None: (), "rmsprop": ("v",), "adam": ("m", "v")}[adaptive]


def _updated(settings, old, derivatives, count):
    """New moments, and the directions they give."""
    decay = settings.beta_2
    v = decay * old["v"] + (1 - decay) * derivatives * derivatives
    if settings.adaptive == "rmsprop":
        return {"v": v}, derivatives / (ops.sqrt(v) + settings.epsilon)
    m = settings.beta_1 * old["m"] + (1 - settings.beta_1) * derivatives
    mean = m / (1 - settings.beta_1**count)
    root = ops.sqrt(v / (1 - decay**count))
    return {"m": m, "v": v}, mean / (root + settings.epsilon)

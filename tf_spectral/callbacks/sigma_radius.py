"""SigmaRadiusSchedule: bounds of singular values that move with the epoch."""

from keras import callbacks

from tf_spectral import checks
from tf_spectral.backend.keras_internals import layers_within
from tf_spectral.parametrizations.singular_values import check_sigma
from tf_spectral.parametrizations.svd import SVD


class SigmaRadiusSchedule(callbacks.Callback):
    """Sets the radius of the singular values at the beginning of each epoch.

    Of every `tf_spectral.parametrizations.SVD` in the model with
    `annealed_radius=True`, however deep (in spectral layers, cells, wrappers,
    nested models). The option belongs to each spectral layer; the others keep
    their radius. Nothing is compiled again.

    Singular values within the new bounds stay as they are, to rounding; the
    others are put at the nearest bound, see `SVD.set_radius`. The radius is a
    weight of the model: it is saved with the others, and training goes on
    from it.

    The logs of an epoch get `sigma_radius`.

    Args:
        schedule: Function of the epoch (an integer from 0 on) that returns
            the radius, a positive float smaller than any positive
            `sigma_center`; for example one of
            `keras.optimizers.schedules`, which then counts epochs.

    Raises:
        ValueError: If `schedule` is no function, and in training if a radius
            is out of range or the model has no radius that can be set.

    Example:

    >>> import keras
    >>> import numpy as np
    >>> from tf_spectral.callbacks import SigmaRadiusSchedule
    >>> from tf_spectral.layers import SpectralRNN
    >>> rnn = SpectralRNN(8, sigma_radius=0.1, annealed_radius=True)
    >>> model = keras.Sequential([rnn, keras.layers.Dense(1)])
    >>> model.compile("adam", "mse")
    >>> x, y = np.ones((4, 5, 2), "float32"), np.ones((4, 1), "float32")
    >>> narrower = SigmaRadiusSchedule(lambda epoch: 0.1 * 0.5**epoch)
    >>> history = model.fit(x, y, epochs=3, callbacks=[narrower], verbose=0)
    >>> history.history["sigma_radius"]
    [0.1, 0.05, 0.025]

    Reference: Zhang et al., "Stabilizing Gradients for Deep Neural Networks
    via Efficient SVD Parameterization", 2018, section 4, for the radius.
    """

    def __init__(self, schedule):
        super().__init__()
        self.schedule = checks.function("schedule", schedule)

    def on_epoch_begin(self, epoch, logs=None):
        radius = checks.number("schedule(epoch)", self.schedule(epoch))
        parts = _annealed(self.model)
        for part in parts:
            check_sigma(part.sigma_mode, part.sigma_center, radius)
        for part in parts:
            part.set_radius(radius)
        self._radius = radius

    def on_epoch_end(self, epoch, logs=None):
        if logs is not None:
            logs["sigma_radius"] = self._radius


def _annealed(model):
    """The parametrizations of a model whose radius is a weight."""
    parts = [x for x in layers_within(model) if isinstance(x, SVD)]
    parts = [part for part in parts if part.annealed_radius]
    if not parts:
        raise ValueError(
            "The model has no radius that can be set. Expected at least one "
            "spectral layer with annealed_radius=True, Received: "
            f"model={model.name}"
        )
    return parts

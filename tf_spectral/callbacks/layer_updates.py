"""LayerUpdateCounter: which layers DSGD moves, and how far it has come.

Flynn, 2017, Figures 3 and 6.
"""

import warnings

from keras import ops

from tf_spectral.callbacks.monitor import EpochMonitor
from tf_spectral.callbacks.monitor import short_variable_names
from tf_spectral.optimizers.dsgd import DSGD


class LayerUpdateCounter(EpochMonitor):
    """Writes into the logs how often `DSGD` moved each weight.

    The logs of an epoch get

    - `updates/<name>`, how often the weight was moved since the last
      measurement,
    - `local_gradient_norm`, the largest quotient `||gradient||_* / p` of the
      last step, which lowers the loss by at least half its square where the
      step is certified,
    - `skipped_steps`, how many steps so far met NaN or Inf.

    `<name>` is the layer and the weight, as in `dense/kernel`, with the names
    of outer layers before it where that takes to tell two weights apart. Put
    this callback before `CSVLogger` and whatever else shall see its values.

    Args:
        every: Positive integer `k`: measure at the end of every k-th epoch.
            In between the logs repeat the last measured values. Defaults to
            `1`.

    Attributes:
        history: Dict of lists: `"epoch"` has the epochs at which the
            optimizer was read, from -1 (before the first training; of a model
            that its first batch builds, from 0) on, and each of the names
            above its values at them.

    Raises:
        ValueError: If `every` is no positive integer, and when training
            begins if the model's optimizer is not `DSGD`.

    Example:

    >>> import keras
    >>> import numpy as np
    >>> from tf_spectral.callbacks import LayerUpdateCounter
    >>> from tf_spectral.optimizers import DSGD
    >>> model = keras.Sequential(
    ...     [keras.Input((4,)), keras.layers.Dense(3, name="out")]
    ... )
    >>> model.compile(DSGD(), "mse")
    >>> x, y = np.ones((8, 4), "float32"), np.ones((8, 3), "float32")
    >>> counter = LayerUpdateCounter()
    >>> history = model.fit(x, y, callbacks=[counter], verbose=0)
    >>> sorted(history.history)[-2:]
    ['updates/out/bias', 'updates/out/kernel']

    Reference: Flynn, "The duality structure gradient descent algorithm:
    analysis and applications to neural networks", 2017, section 5.
    """

    def __init__(self, every=1):
        super().__init__(every)
        self.history = {}
        self._counts = None

    def prepare(self):
        optimizer = _dsgd(self.model)
        if not optimizer.built:
            optimizer.build(self.model.trainable_variables)
        self._counts = None

    def measure(self, epoch):
        optimizer = _dsgd(self.model)
        if not optimizer.built:
            # The first batch builds the model, and nothing was moved yet.
            self._counts = self._skipped = 0
            return None
        counts = ops.convert_to_numpy(optimizer.update_counts)
        skipped = int(ops.convert_to_numpy(optimizer.skipped_steps))
        if self._counts is None:
            self._counts, self._skipped = counts, skipped
        moved, self._counts = counts - self._counts, counts
        if skipped > self._skipped:
            warnings.warn(
                f"{skipped - self._skipped} steps met a gradient with NaN or "
                "Inf and changed no weight.",
                stacklevel=2,
            )
            self._skipped = skipped
        names = short_variable_names(self.model.trainable_variables)
        logs = {f"updates/{name}": int(n) for name, n in zip(names, moved)}
        logs["local_gradient_norm"] = float(
            ops.convert_to_numpy(optimizer.local_gradient_norm)
        )
        logs["skipped_steps"] = skipped
        for key, value in {"epoch": epoch, **logs}.items():
            self.history.setdefault(key, []).append(value)
        return logs


def _dsgd(model):
    optimizer = model.optimizer
    # Mixed precision wraps it in a LossScaleOptimizer.
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    if not isinstance(optimizer, DSGD):
        raise ValueError(
            "The model has no layer choices to count. Expected "
            f"optimizer=DSGD(), Received: optimizer={optimizer}"
        )
    return optimizer

"""GradientFlowMonitor: how gradients fare on their way back through time.

Zhang et al., 2018, Figures 1 and 4, right.
"""

import os

import numpy as np

from tf_spectral import checks
from tf_spectral import files
from tf_spectral.callbacks.epoch_monitor import EpochMonitor
from tf_spectral.callbacks.gradient_norms import norms_function


class GradientFlowMonitor(EpochMonitor):
    """Measures `||dL/dh_t||` for each time step t on a given batch.

    The logs of an epoch get `gradient_flow/first` and `gradient_flow/last`,
    the norms at the first and at the last step; put the callback before
    those that shall see them (`CSVLogger`, `TensorBoard`). The norms are the
    ones of `gradient_norms_over_time`.

    Args:
        x: Inputs of the model, one batch.
        y: Targets of the batch.
        layer: Recurrent layer of the model, or its name. `None` for the only
            one. Defaults to `None`.
        every: Positive integer `k`: measure at the end of every k-th epoch.
            In between the logs repeat the last measured values, so that each
            epoch has every column. Defaults to `1`.
        path: Path of an `.npz` file, written anew at each measurement, with
            `epochs` `(measurements,)` and `norms` `(measurements, T)`. A
            training that goes on from a backup keeps what the file has of the
            epochs before. `None` for no file. Defaults to `None`.

    Attributes:
        norms: List of `(epoch, array)` with an array `(T,)` for each
            measurement, from epoch -1 (before the first training) on.

    Raises:
        ValueError: If an argument is out of range; when training begins, as
            `gradient_norms_over_time`.

    Example:

    >>> import keras
    >>> import numpy as np
    >>> from tf_spectral.callbacks import GradientFlowMonitor
    >>> from tf_spectral.layers import SpectralRNN
    >>> model = keras.Sequential([SpectralRNN(8), keras.layers.Dense(1)])
    >>> model.compile("adam", "mse")
    >>> x, y = np.ones((4, 5, 2), "float32"), np.ones((4, 1), "float32")
    >>> monitor = GradientFlowMonitor(x, y)
    >>> history = model.fit(x, y, callbacks=[monitor], verbose=0)
    >>> [(epoch, norms.shape) for epoch, norms in monitor.norms]
    [(-1, (5,)), (0, (5,))]

    Reference: Zhang et al., "Stabilizing Gradients for Deep Neural Networks
    via Efficient SVD Parameterization", 2018, section 7.
    """

    def __init__(self, x, y, layer=None, every=1, path=None):
        if path is not None:
            path = checks.local_path("path", path)
            if not path.endswith(".npz"):
                checks.refuse("path", "be an .npz file", path)
        super().__init__(every)
        self.x, self.y = checks.data("x", x), checks.data("y", y)
        self.layer, self.path = layer, path
        self.norms = []
        self._measure = None

    def prepare(self):
        self._measure = norms_function(
            self.model, self.x, self.y, self.layer, loss=None
        )

    def measure(self, epoch):
        norms = self._measure()
        if not self.norms:
            self.norms = self._earlier(epoch, norms.shape)
        self.norms.append((epoch, norms))
        if self.path is not None:
            epochs, rows = zip(*self.norms)
            with files.replaced(self.path) as beside:
                np.savez(beside, epochs=epochs, norms=rows)
        return {
            "gradient_flow/first": float(norms[0]),
            "gradient_flow/last": float(norms[-1]),
        }

    def _earlier(self, epoch, shape):
        """What a training that goes on has measured before it was stopped."""
        if self.path is None or epoch < 0 or not os.path.exists(self.path):
            return []
        with np.load(self.path) as file:
            pairs = zip(file["epochs"].tolist(), file["norms"])
            return [(e, n) for e, n in pairs if e < epoch and n.shape == shape]

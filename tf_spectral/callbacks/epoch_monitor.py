"""EpochMonitor: measures a model between epochs and tells the logs."""

from keras import callbacks


class EpochMonitor(callbacks.Callback):
    """Base of callbacks that measure a model at the end of epochs.

    A subclass has `prepare()`, called when training begins, and
    `measure(epoch)`, which returns the values for the logs. Epoch -1 is the
    model before its first training.

    Args:
        every: Positive integer `k`: measure at the end of every k-th epoch.
            In between the logs repeat the last measured values, so that each
            epoch has every column. Defaults to `1`.

    Raises:
        ValueError: If `every` is no positive integer.
    """

    def __init__(self, every=1):
        if isinstance(every, bool) or not isinstance(every, int) or every < 1:
            raise ValueError(
                "Argument `every` must be a positive integer. "
                f"Received: every={every}"
            )
        super().__init__()
        self.every = every
        self._started = False
        self._logged = None

    def prepare(self):
        """Called before the first measurement of a training."""

    def measure(self, epoch):
        """Keeps a measurement and returns its logs, a dict of floats."""
        raise NotImplementedError

    def on_train_begin(self, logs=None):
        self.prepare()
        if not self._started:
            self._logged = self.measure(-1)
            self._started = True

    def on_epoch_end(self, epoch, logs=None):
        if (epoch + 1) % self.every == 0:
            self._logged = self.measure(epoch)
        if logs is not None:
            logs.update(self._logged)

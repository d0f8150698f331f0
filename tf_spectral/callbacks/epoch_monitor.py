"""EpochMonitor: measures a model between epochs and tells the logs."""

from keras import callbacks

from tf_spectral import checks


class EpochMonitor(callbacks.Callback):
    """Base of callbacks that measure a model at the end of epochs.

    A subclass has `prepare()`, called when training begins, and
    `measure(epoch)`, which returns the values for the logs. The first
    measurement is of the model as training finds it, at the end of the epoch
    before the first that runs: -1, or later if training goes on from a backup
    or with `initial_epoch`.

    Args:
        every: Positive integer `k`: measure at the end of every k-th epoch,
            counted from epoch 0 wherever training starts. In between the logs
            repeat the last measured values, so that each epoch has every
            column. Defaults to `1`.

    Raises:
        ValueError: If `every` is no positive integer.
    """

    def __init__(self, every=1):
        super().__init__()
        self.every = checks.integer("every", every, minimum=1)
        self._logged = None

    def prepare(self):
        """Called before the first measurement of a training."""

    def measure(self, epoch):
        """Keeps a measurement and returns its logs, a dict of floats."""
        raise NotImplementedError

    def on_train_begin(self, logs=None):
        self.prepare()

    def on_epoch_begin(self, epoch, logs=None):
        # Not when training begins: a backup may be restored after that.
        if self._logged is None:
            self._logged = self.measure(epoch - 1)

    def on_epoch_end(self, epoch, logs=None):
        if (epoch + 1) % self.every == 0:
            self._logged = self.measure(epoch)
        if logs is not None:
            logs.update(self._logged)

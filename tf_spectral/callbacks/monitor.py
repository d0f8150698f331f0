"""What monitors share: when they measure, and what they call weights."""

import itertools

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
        """Keeps a measurement and returns its logs, a dict of floats.

        `None` if there is nothing to be measured before the first epoch.
        """
        raise NotImplementedError

    def on_train_begin(self, logs=None):
        self.prepare()

    def on_epoch_begin(self, epoch, logs=None):
        # Not when training begins: a backup may be restored after that.
        if self._logged is None:
            self._logged = self.measure(epoch - 1)

    def on_epoch_end(self, epoch, logs=None):
        if self._logged is None or (epoch + 1) % self.every == 0:
            self._logged = self.measure(epoch)
        if logs is not None:
            logs.update(self._logged)


def short_names(paths, least=1):
    """The shortest unique beginnings of the paths, numbered if none is.

    Args:
        paths: List of tuples of strings.
        least: Integer, the least number of parts that a name has.

    Returns:
        List of strings, parts joined by `/`.
    """
    lengths = [min(least, len(path)) for path in paths]
    while True:
        names = ["/".join(p[:n]) for p, n in zip(paths, lengths)]
        longer = [
            n + (names.count(name) > 1 and n < len(path))
            for path, name, n in zip(paths, names, lengths)
        ]
        if longer == lengths:
            break
        lengths = longer
    unique = []
    for name in names:
        numbered = (f"{name}_{i}" for i in itertools.count(1))
        candidates = itertools.chain([name], numbered)
        unique.append(next(c for c in candidates if c not in unique))
    return unique


def short_variable_names(variables):
    """`layer/weight` of each variable, longer where two would be the same.

    Args:
        variables: List of `keras.Variable`.

    Returns:
        List of strings.
    """
    backwards = [tuple(v.path.split("/")[::-1]) for v in variables]
    names = short_names(backwards, least=2)
    return ["/".join(name.split("/")[::-1]) for name in names]

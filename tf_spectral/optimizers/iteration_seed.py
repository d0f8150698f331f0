"""IterationSeed: random draws that belong to the number of the step."""

import keras
from keras import ops


class IterationSeed(keras.random.SeedGenerator):
    """A seed that depends on the number of the step and on nothing else.

    A training that goes on from a checkpoint draws what it would have drawn,
    and all replicas draw the same.

    Args:
        seed: Integer.
        count: Function without arguments that gives the number of the step,
            an integer scalar tensor.
    """

    def __init__(self, seed, count):
        super().__init__(seed)
        self._count = count

    def next(self, ordered=True):
        seed, _ = ops.unstack(ops.convert_to_tensor(self.state))
        return ops.stack([seed, ops.cast(self._count(), seed.dtype)])

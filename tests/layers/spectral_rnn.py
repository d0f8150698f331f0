"""What the tests of SpectralRNN share."""

from keras import ops

from tests.layers.contract import normal
from tf_spectral.layers import SpectralRNN

UNITS, FEATURES = 6, 3
MODES = ("sigmoid", "clip", "free", "fixed")


def array(tensor):
    return ops.convert_to_numpy(tensor)


def make(units=UNITS, features=FEATURES, **options):
    layer = SpectralRNN(units, **options)
    layer.build((None, None, features))
    return layer


def weight(layer, suffix):
    """The one trainable weight whose path ends so."""
    (variable,) = (
        v for v in layer.trainable_variables if v.path.endswith(suffix)
    )
    return variable


def randomize(layer, seed=0):
    for i, variable in enumerate(layer.trainable_variables):
        value = normal(*variable.shape, seed=seed + i)
        if "sigma" in variable.path and "logits" not in variable.path:
            value = 1.0 + 0.005 * value
        variable.assign(value)
    return layer

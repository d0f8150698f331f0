"""Milliseconds of one streaming step of an exported model, at batch 1."""

import functools
import pathlib
import tempfile

import keras
import tensorflow as tf
from timing import median_seconds

from tf_spectral.export import export_saved_model
from tf_spectral.layers import SpectralRNN

STEPS = 200


def exported_step_milliseconds(units=128, reflectors=16, repeats=7):
    """Median milliseconds of a `step`: materialised, not, and of SimpleRNN.

    Args:
        units: Integer. Defaults to 128.
        reflectors: Integer, in U and in V. Defaults to 16.
        repeats: Integer, timed runs of 200 steps each. Defaults to 7.

    Returns:
        Dict of floats by name.
    """
    spectral = _model(SpectralRNN(units, reflectors=reflectors))
    simple = _model(keras.layers.SimpleRNN(units))
    exports = {
        "SpectralRNN, matrix frozen": (spectral, True),
        "SpectralRNN, matrix formed in each step": (spectral, False),
        "SimpleRNN": (simple, True),
    }
    with tempfile.TemporaryDirectory() as folder:
        loops = {}
        for number, (name, (model, frozen)) in enumerate(exports.items()):
            path = export_saved_model(
                model,
                pathlib.Path(folder) / str(number),
                materialize=frozen,
            )
            served = tf.saved_model.load(path)
            loops[name] = functools.partial(_stream, served)
        medians = median_seconds(loops, repeats)
    return {name: s / STEPS * 1e3 for name, s in medians.items()}


def _model(layer):
    return keras.Sequential(
        [keras.Input((None, 1)), layer, keras.layers.Dense(10)]
    )


def _stream(served):
    signatures = served.signatures
    state = signatures["initial_state"](batch_size=tf.constant(1))
    x = tf.ones((1, 1))
    for _ in range(STEPS):
        state = signatures["step"](inputs=x, **state)
        outputs = state.pop("outputs")
    return outputs.numpy()

"""Small trainings for `test_kills.py`, each run in a process of its own.

Imported once by a server that has one thread and forks: no training waits for
the import of TensorFlow.
"""

import os
import runpy
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["TF_NUM_INTRAOP_THREADS"] = "1"
os.environ["OPENBLAS_NUM_THREADS"] = "1"

import keras
import numpy as np
from keras import layers

import tf_spectral  # noqa: F401
from tf_spectral import callbacks
from tf_spectral import files
from tf_spectral import optimizers
from tf_spectral.bounds import LayerwiseSmoothness
from tf_spectral.constraints import Orthogonal
from tf_spectral.export import export_saved_model
from tf_spectral.layers import OrthogonalRNN
from tf_spectral.layers import SpectralConv1D
from tf_spectral.layers import SpectralDense
from tf_spectral.layers import SpectralGRU
from tf_spectral.layers import SpectralLSTM
from tf_spectral.layers import SpectralRNN

RNG = np.random.default_rng(0)
X = RNG.normal(size=(8, 5, 3)).astype("float32")
Y = RNG.normal(size=(8, 1)).astype("float32")


def sequential(*stack):
    return keras.Sequential([keras.Input((5, 3)), *stack, layers.Dense(1)])


def dense():
    return sequential(
        layers.Flatten(), layers.Dense(4, "tanh"), layers.Dropout(0.3)
    )


def orthogonal():
    return sequential(
        OrthogonalRNN(6, recurrent_constraint=Orthogonal(), dropout=0.2)
    )


def dsgd(certified=False, **options):
    model = dense()
    if certified:
        options["smoothness"] = LayerwiseSmoothness.from_model(
            model, options["norm"], input_norm=9.0, residual=9.0, loss="mse"
        )
    optimizer = optimizers.DSGD(0.1, **options)
    return model, optimizer, [callbacks.LayerUpdateCounter()]


def descent(**options):
    return dense(), optimizers.SpectralDescent(0.01, **options), []


def measured_descent():
    model = keras.Sequential(
        [
            keras.Input((5, 3)),
            layers.SimpleRNN(4, return_sequences=True),
            layers.Dense(2),
        ]
    )
    classes = (Y > 0).astype("int32").repeat(5, axis=1)
    # A divisor of the batches of an epoch, as its documentation asks for.
    estimator = callbacks.LipschitzEstimator(X, classes, every=2)
    optimizer = optimizers.SpectralDescent(
        lipschitz="bound", selection="cyclic"
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return model, optimizer, [estimator], loss, classes


def srgd(**options):
    return orthogonal(), optimizers.SRGD(0.01, **options), []


def srcd(**options):
    return orthogonal(), optimizers.SRCD(0.01, seed=3, **options), []


def adam(*stack, watchers=(), **options):
    optimizer = keras.optimizers.Adam(0.01, **options)
    return sequential(*stack), optimizer, list(watchers)


def annealed():
    def radius(epoch):
        return 0.2 / (1 + epoch)

    layer = SpectralRNN(
        6, reflectors=2, dropout=0.2, sigma_radius=0.2, annealed_radius=True
    )
    watchers = [
        callbacks.SigmaRadiusSchedule(radius),
        callbacks.SpectrumMonitor(every=2),
    ]
    return adam(layer, watchers=watchers, use_ema=True)


def mixed():
    keras.config.set_dtype_policy("mixed_float16")
    optimizer = keras.optimizers.LossScaleOptimizer(
        keras.optimizers.Adam(0.01), dynamic_growth_steps=3
    )
    return sequential(SpectralRNN(6, reflectors=2)), optimizer, []


CASES = {
    "dsgd_greedy": lambda: dsgd(norm=2, certified=True),
    "dsgd_random": lambda: dsgd(norm=1, selection="random", seed=1),
    "dsgd_all": lambda: dsgd(
        norm="inf", selection="all", certified=True, norm_refresh=3
    ),
    "dsgd_measured": dsgd,
    "spectral_descent": lambda: descent(lipschitz=1.0, momentum=0.9),
    "spectral_descent_rms": lambda: descent(
        lipschitz=1.0, preconditioner="rms"
    ),
    "spectral_descent_measured": measured_descent,
    "srgd": lambda: srgd(momentum=0.9, correction_period=3),
    "srgd_cayley": lambda: srgd(retraction="cayley"),
    "srcd_random": lambda: srcd(block_size=2),
    "srcd_cyclic": lambda: srcd(selection="cyclic", momentum=0.5),
    "srcd_adaptive": lambda: srcd(
        selection="greedy", block_size=3, adaptive="rmsprop"
    ),
    "spectral_rnn": annealed,
    "mixed_float16": mixed,
    "spectral_lstm": lambda: adam(
        SpectralLSTM(4, reflectors=1, recurrent_dropout=0.2)
    ),
    "spectral_gru": lambda: adam(SpectralGRU(4, reflectors=1), clipnorm=1.0),
    "spectral_dense_conv": lambda: adam(
        SpectralConv1D(4, 2, reflectors=1),
        layers.BatchNormalization(),
        layers.Flatten(),
        SpectralDense(4, "relu", reflectors=1),
        layers.Dropout(0.5),
    ),
}


class Began(keras.callbacks.Callback):
    """Tells the process that kills when training has begun."""

    def __init__(self, path):
        super().__init__()
        self.path = path

    def on_train_batch_end(self, batch, logs=None):
        self.path.touch()


def train(case, folder, epochs):
    """Trains, or goes on, and at last writes all that training changes."""
    assert len(os.listdir("/proc/self/task")) == 1
    keras.utils.set_random_seed(0)
    model, optimizer, watchers, *others = CASES[case]()
    loss, y = others or ("mse", Y)
    model.compile(optimizer, loss)
    backup = callbacks.Backup(folder / "backup")
    model.fit(
        X,
        y,
        batch_size=4,
        epochs=epochs,
        shuffle=False,
        verbose=0,
        callbacks=[*watchers, Began(folder / "began"), backup],
    )
    variables = [*model.variables, *model.optimizer.variables]
    arrays = [np.array(v) for v in variables]
    with files.replaced(folder / "result.npz") as beside:
        np.savez(beside, *arrays)


def export(folder):
    """Exports a model without end."""
    model = sequential(SpectralRNN(6, reflectors=2))
    for _ in range(1000):
        export_saved_model(model, folder / "model")
        (folder / "began").touch()


def example(script, arguments):
    """Runs an example as the command line does."""
    sys.argv = [script, *arguments]
    sys.path.insert(0, os.path.dirname(script))
    sys.stdout = open(os.devnull, "w")
    runpy.run_path(script, run_name="__main__")

"""What every optimizer here promises: to be a Keras optimizer.

A new optimizer joins by an entry in `OPTIMIZERS`; `test_contract.py` does the
rest.
"""

from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np
from keras import ops

from tests.helpers import BACKEND
from tf_spectral.bounds import LayerwiseSmoothness
from tf_spectral.constraints import Orthogonal
from tf_spectral.optimizers import DSGD
from tf_spectral.optimizers import SRCD
from tf_spectral.optimizers import SRGD
from tf_spectral.optimizers import SpectralDescent


class Contender(NamedTuple):
    """An optimizer under the contract.

    `make(model, **options)` gives one for the model, `learning_rate` being
    one with which `network()` learns. `constraint` is that of the square
    kernel. An optimizer that skips `whole` steps changes no weight where one
    gradient is no number, another at least not the one that it is of. What an
    optimizer `draws` is something else under XLA. `rounding` is what two ways
    of adding up may differ by after some steps.
    """

    make: Callable
    learning_rate: float
    constraint: keras.constraints.Constraint | None = None
    whole: bool = True
    draws: bool = False
    rounding: float = 2e-5


def dsgd(learning_rate=1.0, certified=False, **fixed):
    def make(model, **options):
        options = {"learning_rate": learning_rate, **fixed, **options}
        if certified:
            options["smoothness"] = LayerwiseSmoothness.from_model(
                model, norm=fixed.get("norm", 2), loss=LOSS
            )
        return DSGD(**options)

    # A polar factor may round to 1e-4 of it in each of the steps, ten or so,
    # see `linalg.polar_schedules`.
    return Contender(
        make,
        learning_rate,
        draws=fixed.get("selection") == "random",
        rounding=1e-3 if fixed.get("norm", 2) == 2 else 2e-5,
    )


def riemannian(optimizer, learning_rate=0.2, **fixed):
    def make(model, **options):
        options = {"learning_rate": learning_rate, **fixed, **options}
        if isinstance(options.get("euclidean_optimizer"), type):
            options["euclidean_optimizer"] = options["euclidean_optimizer"]()
        return optimizer(**options)

    return Contender(
        make,
        learning_rate,
        constraint=Orthogonal(),
        whole=False,
        draws=fixed.get("selection", "random") == "random"
        and optimizer is SRCD,
    )


def spectral_descent(lipschitz, learning_rate=1.0, **fixed):
    def make(model, **options):
        rate = options.pop("learning_rate", learning_rate)
        return SpectralDescent(rate, lipschitz, **fixed, **options)

    return Contender(make, learning_rate, rounding=1e-3)


OPTIMIZERS = {
    "dsgd_measured": dsgd(),
    "dsgd_measured_1": dsgd(norm=1, momentum=0.0, selection="greedy"),
    "dsgd_1": dsgd(norm=1, certified=True),
    "dsgd_2": dsgd(norm=2, certified=True),
    "dsgd_all": dsgd(0.1, selection="all", smoothness="constant"),
    "dsgd_random": dsgd(selection="random", certified=True, seed=7),
    "dsgd_delayed": dsgd(norm="inf", certified=True, norm_refresh=3),
    "srgd": riemannian(SRGD, euclidean_optimizer=keras.optimizers.Adam),
    "srgd_adaptive": riemannian(SRGD, 0.05, adaptive="rms"),
    "srcd_random": riemannian(SRCD, block_size=1.0, seed=3, adaptive="adam"),
    "srcd_best": riemannian(
        SRCD,
        selection="greedy",
        adaptive="rmsprop",
        learning_rate=0.05,
    ),
    "spectral_measured": spectral_descent("measured", preconditioner="rms"),
    "spectral_cyclic": spectral_descent(
        4.0, selection="cyclic", radius=0.3, polar_accuracy="fast"
    ),
    "spectral_rms": spectral_descent(
        {"default": 1.0, "bias": 2.0},
        0.002,
        preconditioner="rms",
        momentum=0.5,
    ),
    "srcd_cyclic": riemannian(SRCD, selection="cyclic", block_size=3),
}
FEATURES, CLASSES, BATCH = 5, 3, 16
LOSS = "sparse_categorical_crossentropy"


def network(contender, seed=0, dtype=None):
    """A small smooth network, always the same for a seed."""
    keras.utils.set_random_seed(seed)
    square = {
        "kernel_initializer": "orthogonal",
        "kernel_constraint": contender.constraint,
    }
    return keras.Sequential(
        [
            keras.Input((FEATURES,), dtype=dtype),
            keras.layers.Dense(6, "tanh", name="first", dtype=dtype),
            keras.layers.Dense(
                6, "sigmoid", name="second", dtype=dtype, **square
            ),
            keras.layers.Dense(CLASSES, "softmax", name="out", dtype=dtype),
        ]
    )


def examples(n=64, dtype="float32", seed=0):
    """Inputs and labels that a linear map gives: they can be learned."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, FEATURES)).astype(dtype)
    return x, np.argmax(x @ rng.normal(size=(FEATURES, CLASSES)), axis=1)


def compiled(contender, model=None, options=(), **compile_options):
    """The model compiled with a new optimizer of the contender."""
    model = network(contender) if model is None else model
    optimizer = contender.make(model, **dict(options))
    if not compile_options and BACKEND == "tensorflow":
        # Some steps of a small network are done before a graph is traced.
        compile_options["run_eagerly"] = True
    model.compile(optimizer, LOSS, **compile_options)
    return model


def fitted(model, epochs=2, x=None, y=None, batch=BATCH):
    """The model after training in the order of the data; the losses."""
    if x is None:
        x, y = examples()
    history = model.fit(
        x, y, batch_size=batch, epochs=epochs, shuffle=False, verbose=0
    )
    return history.history["loss"]


def weights_of(model):
    return [ops.convert_to_numpy(v) for v in model.trainable_variables]


def state_of(optimizer):
    """The optimizer's variables as arrays, a wrapper's inner ones too."""
    return [ops.convert_to_numpy(v) for v in optimizer.variables]


def assert_same(actual, expected, tolerance=0.0):
    assert len(actual) == len(expected)
    for a, b in zip(actual, expected):
        np.testing.assert_allclose(a, b, rtol=0.0, atol=tolerance)


def compile_modes():
    """Options of `compile` for each way this backend trains."""
    if BACKEND == "tensorflow":
        return {
            "eager": {"run_eagerly": True},
            "graph": {"jit_compile": False},
            "xla": {"jit_compile": True},
        }
    return {BACKEND: {}}

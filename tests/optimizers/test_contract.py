"""All optimizers under the contract of `contract.py`."""

import inspect
import warnings

import keras
import numpy as np
import pytest
from keras import ops

from tests.helpers import BACKEND
from tests.optimizers.contract import BATCH
from tests.optimizers.contract import LOSS
from tests.optimizers.contract import OPTIMIZERS
from tests.optimizers.contract import assert_same
from tests.optimizers.contract import compile_modes
from tests.optimizers.contract import compiled
from tests.optimizers.contract import examples
from tests.optimizers.contract import fitted
from tests.optimizers.contract import network
from tests.optimizers.contract import state_of
from tests.optimizers.contract import weights_of
from tf_spectral.optimizers import DSGD
from tf_spectral.optimizers import SRCD
from tf_spectral.optimizers import SRGD
from tf_spectral.optimizers import SpectralDescent

# One of each class: what is not of a variant is seen on these.
CLASSES = ("dsgd_measured", "dsgd_2", "spectral_rms", "srgd", "srcd_random")


@pytest.fixture(params=sorted(OPTIMIZERS))
def every(request):
    return OPTIMIZERS[request.param]


@pytest.fixture(
    params=[
        name if name in CLASSES else pytest.param(name, marks=pytest.mark.slow)
        for name in sorted(OPTIMIZERS)
    ]
)
def contender(request):
    return OPTIMIZERS[request.param]


def gradients_like(model, value):
    return [
        ops.full(v.shape, value, v.dtype) for v in model.trainable_variables
    ]


def apply(model, gradients):
    model.optimizer.apply(gradients, model.trainable_variables)


def learn_alike(contender, modes):
    runs = []
    for name in modes:
        model = compiled(contender, **compile_modes()[name])
        # The whole gradient: with less, a certified step may not descend.
        losses = fitted(model, epochs=8, batch=64)
        assert losses[-1] < losses[0]
        if not (contender.draws and name == "xla"):
            runs.append(weights_of(model))
    for run in runs[1:]:
        assert_same(run, runs[0], contender.rounding)


@pytest.mark.costly
def test_learns_alike_in_every_mode(every):
    learn_alike(every, [name for name in compile_modes() if name != "xla"])


@pytest.mark.slow
@pytest.mark.skipif(BACKEND != "tensorflow", reason="the others have one mode")
def test_learns_alike_under_xla(every):
    learn_alike(every, ["graph", "xla"])


@pytest.mark.costly
def test_an_update_step_is_the_sum_of_its_parts(contender):
    """Two half batches accumulated, or one whole batch."""
    whole = compiled(contender)
    fitted(whole, epochs=3)
    halves = compiled(contender, options={"gradient_accumulation_steps": 2})
    fitted(halves, epochs=3, batch=BATCH // 2)
    assert_same(weights_of(halves), weights_of(whole), contender.rounding)


@pytest.mark.costly
def test_loss_scaling_changes_nothing(contender):
    plain = compiled(contender)
    fitted(plain)
    scaled = compiled(contender, options={"loss_scale_factor": 128.0})
    fitted(scaled)
    assert_same(weights_of(scaled), weights_of(plain), contender.rounding)


@pytest.mark.skipif(BACKEND == "torch", reason="not in PyTorch's trainer")
@pytest.mark.costly
def test_several_steps_in_an_execution(contender):
    one = compiled(contender)
    fitted(one)
    several = compiled(contender, steps_per_execution=2, jit_compile=False)
    fitted(several)
    assert_same(weights_of(several), weights_of(one), contender.rounding)


@pytest.mark.costly
def test_schedules_and_whole_numbers_as_learning_rate(contender):
    rate = contender.learning_rate
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay(
        [3], [rate, 0.0]
    )
    model = compiled(contender, options={"learning_rate": schedule})
    fitted(model, epochs=1)
    before = weights_of(model)
    fitted(model, epochs=1)
    if contender.constraint is None:
        assert_same(weights_of(model), before)
    # The others may have an optimizer and a rate of their own.
    np.testing.assert_array_equal(weights_of(model)[2], before[2])
    optimizer = contender.make(network(contender), learning_rate=1)
    assert float(ops.convert_to_numpy(optimizer.learning_rate)) == 1.0
    contender.make(network(contender), learning_rate=np.float32(0.5))


def test_config_round_trip(every):
    optimizer = every.make(network(every))
    config = optimizer.get_config()
    again = type(optimizer).from_config(config)
    assert again.get_config() == config
    keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(optimizer)
    )


SETTINGS = [
    DSGD(
        norm="inf",
        selection="random",
        smoothness="constant",
        polar_accuracy="fast",
        seed=5,
    ),
    DSGD(momentum=0.5, blocks={"kernel": 2, "default": "vector"}),
    SpectralDescent(
        lipschitz={"kernel": 2.0, "default": 1.0},
        selection="cyclic",
        momentum=0.5,
        radius={"kernel": 0.5},
        rho=0.9,
        epsilon=1e-6,
        polar_accuracy="exact",
        seed=3,
    ),
    SpectralDescent(lipschitz=1.0, preconditioner="rms"),
    SpectralDescent(
        preconditioner="adagrad", momentum=0.5, blocks={"kernel": "matrix"}
    ),
    SRGD(
        0.1,
        retraction="cayley",
        metric="spectral",
        momentum=0.9,
        correction_period=7,
    ),
    SRGD(0.1, adaptive="rms"),
    SRCD(
        0.1,
        selection="cyclic",
        block_size=0.25,
        coordinate_scale=0.5,
        adaptive="adam",
        beta_1=0.8,
        beta_2=0.98,
        epsilon=1e-6,
        momentum=0.7,
        correction_period=9,
        seed=2,
    ),
]


def test_config_keeps_every_argument():
    """Each is set to something else than its default in one of the cases."""
    unseen = {
        (type(optimizer), parameter)
        for optimizer in SETTINGS
        for parameter in inspect.signature(type(optimizer)).parameters
        # Of the class above, or with a test of its own.
        if parameter
        not in (
            "learning_rate",
            "name",
            "kwargs",
            "euclidean_optimizer",
            "norm_refresh",
        )
    }
    for optimizer in SETTINGS:
        kind, config = type(optimizer), optimizer.get_config()
        assert kind.from_config(config).get_config() == config
        for name, parameter in inspect.signature(kind).parameters.items():
            if name in config and config[name] != parameter.default:
                again = kind.from_config(config)
                assert getattr(again, name) == getattr(optimizer, name)
                unseen.discard((kind, name))
    assert not unseen


@pytest.mark.costly(keep=2)
def test_saved_training_goes_on_bit_for_bit(every, tmp_path):
    model = compiled(every)
    fitted(model, epochs=1)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert_same(state_of(again.optimizer), state_of(model.optimizer))
    again.compile(again.optimizer, LOSS, run_eagerly=model.run_eagerly)
    fitted(model, epochs=2)
    fitted(again, epochs=2)
    assert_same(weights_of(again), weights_of(model))
    assert_same(state_of(again.optimizer), state_of(model.optimizer))


@pytest.mark.skipif(BACKEND != "tensorflow", reason="of TensorFlow")
@pytest.mark.costly(keep=2)
def test_checkpointed_training_goes_on_bit_for_bit(every, tmp_path):
    import tensorflow as tf

    model = compiled(every)
    fitted(model, epochs=1)
    checkpoint = tf.train.Checkpoint(model=model, optimizer=model.optimizer)
    path = checkpoint.write(str(tmp_path / "checkpoint"))
    again = compiled(every, network(every, seed=1))
    again.optimizer.build(again.trainable_variables)
    tf.train.Checkpoint(model=again, optimizer=again.optimizer).read(
        path
    ).expect_partial()
    fitted(model, epochs=2)
    fitted(again, epochs=2)
    assert_same(weights_of(again), weights_of(model))


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.costly(keep=2)
def test_mixed_precision(contender, policy):
    if BACKEND == "torch" and policy == "mixed_float16":
        pytest.skip("PyTorch has no float16 products on this processor")
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = compiled(contender)
        losses = fitted(model, epochs=4, batch=64)
    finally:
        keras.config.set_dtype_policy(before)
    assert losses[-1] < losses[0]
    for value in weights_of(model):
        assert value.dtype == "float32"
        assert np.isfinite(value).all()


@pytest.mark.costly
def test_constraints_hold(contender):
    model = compiled(contender)
    fitted(model)
    if contender.constraint is not None:
        kernel = weights_of(model)[2]
        np.testing.assert_allclose(kernel.T @ kernel, np.eye(6), atol=1e-5)


@pytest.mark.costly
def test_float64(contender):
    model = compiled(contender, network(contender, dtype="float64"))
    x, y = examples(dtype="float64")
    losses = fitted(model, 3, x, y, batch=64)
    assert losses[-1] < losses[0]
    for value in weights_of(model):
        assert value.dtype == "float64"


@pytest.mark.costly
def test_options_of_every_optimizer(contender):
    plain = compiled(contender)
    fitted(plain, epochs=1)
    for options in (
        {"weight_decay": 0.01},
        {"use_ema": True, "ema_momentum": 0.5},
        {"clipvalue": 0.01},
        {"global_clipnorm": 0.1},
    ):
        model = compiled(contender, options=options)
        fitted(model, epochs=1)
        assert all(np.isfinite(w).all() for w in weights_of(model))
        assert any(
            not np.array_equal(a, b)
            for a, b in zip(weights_of(model), weights_of(plain))
        ), options


def test_zero_gradients_change_nothing(contender):
    model = compiled(contender)
    before = weights_of(model)
    for _ in range(3):
        apply(model, gradients_like(model, 0.0))
    # What starts orthogonal to rounding is made so once.
    tolerance = 0.0 if contender.constraint is None else 1e-6
    assert_same(weights_of(model), before, tolerance)


@pytest.mark.costly(keep=2)
def test_a_gradient_that_is_no_number_is_left_out(contender):
    model = compiled(contender)
    x, y = examples()
    fitted(model, epochs=1)
    for count, value in enumerate((np.nan, np.inf, -np.inf), 1):
        before = weights_of(model)
        gradients = gradients_like(model, 0.1)
        poison = np.full(gradients[2].shape, 0.1, "float32")
        poison[0, 1] = value
        gradients[2] = ops.convert_to_tensor(poison)
        apply(model, gradients)
        after = weights_of(model)
        np.testing.assert_array_equal(after[2], before[2])
        assert all(np.isfinite(weight).all() for weight in after)
        if contender.whole:
            assert_same(after, before)
        skipped = ops.convert_to_numpy(model.optimizer.skipped_steps)
        assert int(skipped) == count
    with pytest.warns(UserWarning, match="NaN"):
        fitted(model, 1, x, y)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*NaN")
        fitted(model, 1, x, y)
    assert any(
        not np.array_equal(a, b) for a, b in zip(weights_of(model), after)
    )


def test_tiny_and_huge_gradients(contender):
    model = compiled(contender)
    rng = np.random.default_rng(0)
    for size in (1e-30, 1e30):
        gradients = [
            ops.convert_to_tensor(size * rng.normal(size=v.shape), "float32")
            for v in model.trainable_variables
        ]
        apply(model, gradients)
        assert all(np.isfinite(w).all() for w in weights_of(model))


def test_a_variable_without_gradient_is_left_alone(contender):
    model = compiled(contender)
    before = weights_of(model)
    gradients = gradients_like(model, 0.01)
    gradients[0] = None
    for _ in range(8):
        with pytest.warns(UserWarning, match="Gradients do not exist"):
            apply(model, gradients)
    after = weights_of(model)
    np.testing.assert_array_equal(after[0], before[0])
    assert any(not np.array_equal(a, b) for a, b in zip(after, before))

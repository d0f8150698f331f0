"""SigmaRadiusSchedule in training, saved and exported."""

import keras
import numpy as np
import pytest
from keras import layers
from keras import ops

from tests.helpers import BACKEND
from tests.helpers import assert_close
from tf_spectral.callbacks import SigmaRadiusSchedule
from tf_spectral.layers import SpectralConv1D
from tf_spectral.layers import SpectralDense
from tf_spectral.layers import SpectralGRU
from tf_spectral.layers import SpectralLSTM
from tf_spectral.layers import SpectralRNN
from tf_spectral.layers import SpectralRNNCell
from tf_spectral.parametrizations import SVD

pytestmark = pytest.mark.usefixtures("eager")

X = np.random.default_rng(0).normal(size=(8, 4, 3)).astype("float32")
Y = np.random.default_rng(1).normal(size=(8, 1)).astype("float32")
WIDE = {
    "sigma_radius": 0.4,
    "annealed_radius": True,
    "activation": "leaky_relu",
    "reflectors": None,
    "reflector_initializer": "gaussian",
}


def compiled(*stack, jit_compile="auto"):
    model = keras.Sequential([layers.Input((4, 3)), *stack, layers.Dense(1)])
    optimizer = keras.optimizers.Adam(0.1)
    model.compile(optimizer, "mse", jit_compile=jit_compile)
    return model


def fit(model, schedule, epochs=3, **kwargs):
    return model.fit(
        X,
        Y,
        batch_size=4,
        epochs=epochs,
        callbacks=[SigmaRadiusSchedule(schedule)],
        verbose=0,
        **kwargs,
    ).history


def parts_of(model):
    return [x for x in model._flatten_layers() if isinstance(x, SVD)]


def sigma_of(svd):
    return ops.convert_to_numpy(svd.sigma()).astype("float64")


def singular_values(matrix):
    matrix = ops.convert_to_numpy(matrix).astype("float64")
    return np.linalg.svd(matrix, compute_uv=False)


class Spreads(keras.callbacks.Callback):
    """The largest `|sigma - 1|` after each batch and before each epoch."""

    def __init__(self):
        super().__init__()
        self.after, self.before = [], []

    def on_epoch_begin(self, epoch, logs=None):
        self.before.append(self._spread())

    def on_epoch_end(self, epoch, logs=None):
        self.after.append(self._spread())

    def _spread(self):
        (svd,) = parts_of(self.model)
        return np.abs(sigma_of(svd) - 1).max()


@pytest.mark.usefixtures("compiled_functions")
@pytest.mark.parametrize(
    "sigma_mode,jit_compile",
    [
        ("sigmoid", False),
        pytest.param("clip", False, marks=pytest.mark.slow),
        pytest.param("sigmoid", True, marks=pytest.mark.slow),
    ],
)
def test_bounds_follow_in_a_compiled_training(sigma_mode, jit_compile):
    if jit_compile and BACKEND == "torch":
        pytest.skip("PyTorch has no XLA here")
    check_bounds_follow(sigma_mode, jit_compile)


def test_clipped_bounds_follow():
    check_bounds_follow("clip", False)


def check_bounds_follow(sigma_mode, jit_compile):
    radii = [0.4, 0.05, 0.01, 0.3]
    rnn = SpectralRNN(6, sigma_mode=sigma_mode, **WIDE)
    model = compiled(rnn, jit_compile=jit_compile)
    spreads = Spreads()
    history = model.fit(
        X,
        Y,
        batch_size=2,
        epochs=4,
        callbacks=[SigmaRadiusSchedule(radii.__getitem__), spreads],
        verbose=0,
    ).history
    assert history["sigma_radius"] == radii
    for spread, radius in zip(spreads.after, radii):
        assert spread <= radius * (1 + 1e-5)
    # It was moved from outside, and moves on when there is room again.
    assert spreads.after[0] > 0.05 and 0.04 < spreads.before[1] < 0.05001
    assert spreads.before[3] < 0.01001 and spreads.after[3] > 0.011
    spread = np.abs(singular_values(rnn.matrix()) - 1).max()
    assert_close(spread, spreads.after[-1], 1e-6, scale=1)


@pytest.mark.usefixtures("compiled_functions")
def test_widening_does_not_change_the_outputs():
    model = compiled(SpectralRNN(6, **WIDE))
    fit(model, lambda epoch: 0.4, epochs=2)
    before = model.predict(X, verbose=0)
    for svd in parts_of(model):
        svd.set_radius(0.8)
    assert_close(model.predict(X, verbose=0), before, 1e-6)
    # What is compiled reads the new radius, not a constant.
    for svd in parts_of(model):
        svd._sigma.assign(np.full(6, 50.0))
        assert_close(sigma_of(svd), np.full(6, 1.8), 1e-6)
    assert np.abs(model.predict(X, verbose=0) - before).max() > 1e-3


def test_reaches_every_kind_of_layer():
    options = {"reflectors": 2, **WIDE}
    inputs = layers.Input((4, 3))
    nested = keras.Sequential(
        [SpectralConv1D(4, 2, padding="same", **options)], name="nested"
    )
    x = nested(inputs)
    x = layers.Bidirectional(SpectralRNN(4, return_sequences=True, **options))(
        x
    )
    x = layers.RNN(
        [SpectralRNNCell(4, **options), SpectralRNNCell(3, **options)],
        return_sequences=True,
    )(x)
    x = SpectralLSTM(3, return_sequences=True, **options)(x)
    x = layers.TimeDistributed(SpectralDense(4, **options))(x)
    x = SpectralRNN(4, sigma_radius=0.3, return_sequences=True)(x)
    x = SpectralGRU(3, **options)(x)
    model = keras.Model(inputs, layers.Dense(1)(x))
    callback = SigmaRadiusSchedule(lambda epoch: 0.5**epoch)
    callback.set_model(model)
    callback.on_epoch_begin(3)
    parts = parts_of(model)
    annealed = [part for part in parts if part.annealed_radius]
    assert len(parts) == 1 + 2 + 2 + 4 + 1 + 1 + 3
    assert len(annealed) == len(parts) - 1
    assert {float(part.radius()) for part in annealed} == {0.125}
    (other,) = set(parts) - set(annealed)
    assert other.radius() == 0.3


def test_saved_model_goes_on_with_the_radius_of_then(tmp_path):
    model = compiled(
        SpectralDense(4, sigma_mode="clip", **WIDE), SpectralRNN(4, **WIDE)
    )
    fit(model, lambda epoch: 0.4 * 0.5**epoch)
    path = tmp_path / "model.keras"
    model.save(path)
    again = keras.models.load_model(path)
    for svd, copy in zip(parts_of(model), parts_of(again)):
        assert copy.sigma_radius == 0.4
        assert float(copy.radius()) == float(svd.radius())
        assert_close(sigma_of(copy), sigma_of(svd), 1e-15)
    outputs = [m.predict(X, verbose=0) for m in (model, again)]
    assert_close(outputs[1], outputs[0], 1e-6)
    fit(again, lambda epoch: 0.4 * 0.5**epoch, epochs=4, initial_epoch=3)
    assert {float(part.radius()) for part in parts_of(again)} == {
        float(np.float32(0.05))
    }


def test_clone_with_weights_has_the_radius():
    model = compiled(SpectralRNN(4, **WIDE))
    fit(model, lambda epoch: 0.2)
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    outputs = [m.predict(X, verbose=0) for m in (model, copy)]
    assert_close(outputs[1], outputs[0], 1e-6)


def test_conversion_keeps_the_option():
    stock = layers.Dense(4)
    stock.build((None, 3))
    layer = SpectralDense.from_stock(stock, annealed_radius=True)
    layer.svd.set_radius(0.9 * layer.sigma_center or 5.0)
    assert layer.svd.radius() != layer.sigma_radius
    assert_close(
        ops.convert_to_numpy(layer.to_stock().kernel),
        ops.convert_to_numpy(stock.kernel),
        1e-4,
    )


@pytest.mark.skipif(BACKEND != "tensorflow", reason="SavedModel")
@pytest.mark.usefixtures("compiled_functions")
@pytest.mark.parametrize(
    "materialize", [False, pytest.param(True, marks=pytest.mark.slow)]
)
def test_exported_model_has_the_radius_of_now(materialize, tmp_path):
    import tensorflow as tf

    from tf_spectral.export import export_saved_model

    model = compiled(SpectralRNN(4, **WIDE))
    (svd,) = parts_of(model)
    svd._sigma.assign(np.linspace(-2.0, 2.0, 4))
    svd.set_radius(0.2)
    expected = ops.convert_to_numpy(model(X))
    folder = export_saved_model(
        model, tmp_path / "saved", materialize=materialize, streaming=False
    )
    serve = tf.saved_model.load(folder).signatures["serving_default"]
    outputs = serve(inputs=tf.constant(X))["outputs"]
    assert_close(np.asarray(outputs), expected, 1e-6)


def test_schedules_of_keras_count_epochs():
    schedule = keras.optimizers.schedules.ExponentialDecay(0.2, 1, 0.5)
    history = fit(compiled(SpectralRNN(4, **WIDE)), schedule)
    np.testing.assert_allclose(history["sigma_radius"], [0.2, 0.1, 0.05])


def test_refuses():
    with pytest.raises(ValueError, match="`schedule`.*Received"):
        SigmaRadiusSchedule(0.1)
    with pytest.raises(ValueError, match="annealed_radius=True.*Received"):
        fit(compiled(SpectralRNN(4)), lambda epoch: 0.1)


def test_refused_radius_changes_no_layer():
    model = compiled(
        SpectralDense(4, sigma_center=2.0, **WIDE), SpectralRNN(4, **WIDE)
    )
    with pytest.raises(ValueError, match="`sigma_radius`.*Received"):
        fit(model, lambda epoch: 1.5)
    radii = {float(part.radius()) for part in parts_of(model)}
    assert radii == {float(np.float32(0.4))}

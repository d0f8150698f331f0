"""The promises of every feed-forward layer: a stock layer, its sigma kept.

A new layer joins by an entry in `LAYERS`.
"""

from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np
import pytest
from keras import ops

from tests import oracles
from tests.helpers import BACKEND
from tests.helpers import assert_close
from tests.helpers import evaluate
from tests.layers import contract
from tests.layers.contract import CLOSE
from tests.layers.contract import EXACT
from tests.layers.contract import gradients
from tests.layers.contract import shaken
from tf_spectral.callbacks import SpectrumMonitor
from tf_spectral.layers import SpectralConv1D
from tf_spectral.layers import SpectralConv2D
from tf_spectral.layers import SpectralDense

CENTER, RADIUS = 1.1, 0.4


class Contender(NamedTuple):
    """A layer under the contract.

    `make(**options)` gives one of wide bounds for inputs of shape `(batch,
    *shape)`.
    """

    make: Callable
    shape: tuple

    def inputs(self, batch=4, seed=0):
        return contract.normal(batch, *self.shape, seed=seed)

    def built(self, **options):
        """A layer whose weights all differ from where they start."""
        layer = self.make(**options)
        layer.build((None, *self.shape))
        return contract.shaken(layer)


def of_kind(make, shape, *arguments, **fixed):
    fixed = {"sigma_center": CENTER, "sigma_radius": RADIUS, **fixed}
    return Contender(lambda **o: make(*arguments, **{**fixed, **o}), shape)


LAYERS = {
    "square": of_kind(SpectralDense, (4,), 4, activation="tanh"),
    "wide": of_kind(SpectralDense, (3,), 5, activation="relu"),
    "tall": of_kind(SpectralDense, (5,), 2, form="dense"),
    "low_rank": of_kind(
        SpectralDense, (6,), 5, form="low_rank", reflectors=(1, 2)
    ),
    "sequence": of_kind(SpectralDense, (2, 3), 3, activation="softsign"),
    "scalar": of_kind(SpectralDense, (1,), 1),
    "conv1d": of_kind(
        SpectralConv1D, (6, 3), 4, 2, padding="causal", dilation_rate=2
    ),
    "conv2d": of_kind(
        SpectralConv2D, (5, 4, 2), 3, (2, 3), strides=(2, 1), activation="tanh"
    ),
    "grouped": of_kind(
        SpectralConv2D, (4, 4, 4), 4, 2, padding="same", groups=2, reflectors=3
    ),
}


def numpy_of(tensor):
    return np.asarray(ops.convert_to_numpy(tensor))


def raw_weights(layer):
    """Of U, of sigma and of V, as float64 arrays."""
    svd = layer.svd
    raw = numpy_of(svd._u), numpy_of(svd._sigma), numpy_of(svd._v)
    return [a.astype("float64") for a in raw]


def kernel_of(u, s, v, center=CENTER, radius=RADIUS):
    """The kernel as a matrix, by loops over reflectors (math.md 2.3, 2.8)."""
    sigma = center + radius * np.tanh(s / 2)
    return oracles.spectral_kernel(oracles.pack(u), sigma, oracles.pack(v))


def reference(layer):
    """The stock layer with the kernel that the raw weights give by loops."""
    stock = layer.to_stock()
    kernel = kernel_of(*raw_weights(layer)).reshape(stock.kernel.shape)
    bias = [numpy_of(layer.bias)] if layer.use_bias else []
    stock.set_weights([kernel, *bias])
    return stock


def gradient_named(gradients, end):
    (gradient,) = (g for path, g in gradients.items() if path.endswith(end))
    return gradient


def model_of(contender, layer, units=None):
    """The layer in a model, after a flattening with a last stock layer."""
    parts = [keras.Input(contender.shape), layer]
    if units is not None:
        parts += [keras.layers.Flatten(), keras.layers.Dense(units)]
    return keras.Sequential(parts)


# Enough where a whole training is compiled: one of each way to compute.
SOME = ("low_rank", "conv2d")


@pytest.fixture(params=LAYERS)
def contender(request):
    return LAYERS[request.param]


@pytest.fixture(autouse=True)
def precision():
    with contract.everything_in(contract.DTYPE):
        yield


@pytest.mark.costly(keep=10)
def test_equals_its_reference(contender, mode):
    layer, x = contender.built(), contender.inputs()
    expected = numpy_of(reference(layer)(x))
    assert layer.compute_output_shape(x.shape) == expected.shape
    assert_close(evaluate(layer, x, mode=mode), expected, EXACT)


def test_without_bias(contender):
    layer, x = contender.built(use_bias=False), contender.inputs()
    assert layer.bias is None and len(layer.weights) == 3
    assert_close(numpy_of(layer(x)), numpy_of(reference(layer)(x)), EXACT)


@pytest.mark.parametrize("contender", SOME, indirect=True)
def test_gradients_in_every_mode(contender, mode):
    layer, x = contender.built(), contender.inputs()
    expected = gradients(layer, x)
    for name, gradient in gradients(layer, x, mode).items():
        assert_close(gradient, expected[name], CLOSE)


def test_gradients_by_finite_differences(contender):
    """By inputs and bias those of the reference; by weights through K."""
    layer, x = contender.built(), contender.inputs()
    expected = gradients(reference(layer), x)
    actual = gradients(layer, x)
    for end in ("x", "bias"):
        close = gradient_named(expected, end)
        assert_close(gradient_named(actual, end), close, CLOSE)
    raw = raw_weights(layer)
    by_kernel = gradient_named(expected, "kernel")
    by_kernel = by_kernel.reshape(-1, by_kernel.shape[-1])
    for i, end in enumerate(("u_reflectors", "sigma_logits", "v_reflectors")):

        def along(weight, i=i):
            kernel = kernel_of(*raw[:i], weight, *raw[i + 1 :])
            return np.sum(kernel * by_kernel)

        # A reflector of one entry has no direction: its gradient is zero.
        assert_close(
            gradient_named(actual, end),
            oracles.finite_difference(along, raw[i]),
            max(CLOSE, 1e-8),
            scale=np.max(np.abs(by_kernel)),
        )


def test_before_it_is_built_there_is_no_decomposition():
    layer = SpectralDense(3)
    for name in ("singular_values", "condition_number", "log_abs_det"):
        with pytest.raises(ValueError, match="called or built first"):
            getattr(layer, name)()
    assert not hasattr(layer, "kernel")


def test_kernel_and_singular_values(contender):
    layer = contender.built()
    kernel = numpy_of(layer.kernel)
    assert kernel.shape == tuple(layer.to_stock().kernel.shape)
    matrix = kernel_of(*raw_weights(layer))
    assert_close(kernel.reshape(matrix.shape), matrix, EXACT)
    assert_close(numpy_of(layer.matrix()), matrix, EXACT)
    expected = np.linalg.svd(matrix, compute_uv=False)
    sigma = np.sort(numpy_of(layer.singular_values()))[::-1]
    assert_close(sigma, expected, EXACT)
    condition = numpy_of(layer.condition_number())
    assert_close(condition, expected[0] / expected[-1], EXACT)


@pytest.mark.parametrize(
    "contender", (*SOME, "square", "scalar"), indirect=True
)
@pytest.mark.costly
def test_bounds_hold_after_large_steps(contender):
    layer, x = contender.make(), contender.inputs()
    layer.build((None, *contender.shape))
    optimizer = keras.optimizers.Adam(0.5)
    optimizer.build(layer.trainable_variables)
    for _ in range(50):
        by_path = gradients(layer, x)
        optimizer.apply(
            [
                ops.convert_to_tensor(by_path[v.path])
                for v in layer.trainable_variables
            ]
        )
    sigma = np.linalg.svd(numpy_of(layer.matrix()), compute_uv=False)
    assert np.all(np.abs(sigma - CENTER) <= RADIUS * (1 + 1e-5))
    assert np.max(np.abs(sigma - CENTER)) > RADIUS / 10


@pytest.mark.parametrize("contender", SOME, indirect=True)
@pytest.mark.costly
def test_learns_in_a_compiled_model(contender):
    model = model_of(contender, contender.make(), units=1)
    model.compile(
        keras.optimizers.Adam(0.05), "mse", jit_compile=BACKEND != "torch"
    )
    x = contender.inputs(32)
    y = 2.0 * np.reshape(x, (32, -1))[:, :1]
    losses = model.fit(x, y, epochs=20, verbose=0).history["loss"]
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.costly(keep=2)
def test_unknown_batch(contender):
    model = model_of(contender, contender.built())
    layer = model.layers[-1]
    expected = layer.compute_output_shape((None, *contender.shape))
    assert model.outputs[0].shape == expected
    for batch in (1, 3):
        x = contender.inputs(batch)
        actual = model.predict(x, batch_size=batch, verbose=0)
        assert_close(actual, numpy_of(layer(x)), EXACT)


def test_config_round_trip(contender):
    layer = contender.built(
        name="mine",
        sigma_mode="clip",
        sigma_center="auto",
        reflector_initializer="haar",
        activation="leaky_relu",
        kernel_regularizer="l2",
        sigma_regularizer="l1",
        bias_constraint="max_norm",
        activity_regularizer="l2",
    )
    data = keras.saving.serialize_keras_object(layer)
    again = keras.saving.deserialize_keras_object(data)
    assert type(again) is type(layer)
    assert again.get_config() == layer.get_config()
    again.set_weights(layer.get_weights())
    x = contender.inputs()
    assert_close(numpy_of(again(x)), numpy_of(layer(x)), 0.0)


def test_saved_and_loaded(contender, tmp_path):
    model = shaken(model_of(contender, contender.make(), units=2))
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    x = contender.inputs()
    assert_close(numpy_of(again(x)), numpy_of(model(x)), 0.0)
    model.save_weights(tmp_path / "model.weights.h5")
    fresh = model_of(contender, contender.make(), units=2)
    fresh.load_weights(tmp_path / "model.weights.h5")
    assert_close(numpy_of(fresh(x)), numpy_of(model(x)), 0.0)


@pytest.mark.costly(keep=4)
def test_an_activation_set_to_none(contender, tmp_path):
    """As with Keras' own layers it is the identity, and it can be saved."""
    for activation in ("relu", keras.layers.LeakyReLU(0.1)):
        layer = contender.built(activation=activation)
        x = contender.inputs()
        layer.activation = None
        plain = contender.make(activation=None)
        plain.build((None, *contender.shape))
        plain.set_weights(layer.get_weights())
        assert_close(numpy_of(layer(x)), numpy_of(plain(x)), 0.0)
        assert layer.get_config()["activation"] == "linear"
        assert layer.activation is None
        stock = layer.to_stock()
        assert_close(numpy_of(stock(x)), numpy_of(plain(x)), EXACT)
        stock.activation = None
        again = type(layer).from_stock(stock)
        assert_close(numpy_of(again(x)), numpy_of(plain(x)), CLOSE)


def test_use_bias_set_later(contender):
    """A conversion computes what the layer does."""
    layer, x = contender.built(), contender.inputs()
    stock = layer.to_stock()
    layer.use_bias = stock.use_bias = False
    expected = numpy_of(stock(x))
    assert_close(numpy_of(layer(x)), expected, EXACT)
    assert_close(numpy_of(layer.to_stock()(x)), expected, EXACT)
    again = type(layer).from_stock(stock)
    assert_close(numpy_of(again(x)), expected, CLOSE)


def test_complex_inputs_are_refused(contender):
    x = ops.convert_to_tensor(contender.inputs().astype("complex64"))
    with pytest.raises(ValueError, match="(?s)`inputs`.*real.*Received"):
        contender.built()(x)


def test_frozen_from_the_start(contender):
    layer = contender.built(trainable=False)
    assert not layer.trainable_variables
    layer.trainable = True
    assert len(layer.trainable_variables) == len(layer.weights)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_half_precision(contender, policy):
    layer = contender.built(dtype=policy)
    x = contender.inputs()
    output = layer(x)
    dtype = policy.removeprefix("mixed_")
    assert keras.backend.standardize_dtype(output.dtype) == dtype
    assert {v.dtype for v in layer.weights} == {"float32"}
    kernel_dtype = keras.backend.standardize_dtype(layer.kernel.dtype)
    assert kernel_dtype == "float32"
    with contract.everything_in("float32"):
        full = contender.make()
        full.build((None, *contender.shape))
        full.set_weights(layer.get_weights())
        expected = numpy_of(full(x.astype("float32")))
    output = numpy_of(ops.cast(output, "float32"))
    assert_close(output, expected, 0.03)


def test_penalties(contender):
    # Not `L1`: that of Keras 3.8 has a tensor of float32, which multiplies no
    # float64.
    def l1(factor):
        return keras.regularizers.L1L2(l1=factor)

    layer = contender.built(
        kernel_regularizer=keras.regularizers.L2(2.0),
        sigma_regularizer=l1(0.5),
        bias_regularizer=keras.regularizers.L2(1.0),
    )
    u, s, v = raw_weights(layer)
    sigma = CENTER + RADIUS * np.tanh(s / 2)
    expected = [
        2.0 * np.sum(kernel_of(u, s, v) ** 2),
        0.5 * np.sum(sigma),
        np.sum(numpy_of(layer.bias) ** 2),
    ]
    losses = sorted(float(loss) for loss in layer.losses)
    assert_close(losses, sorted(expected), CLOSE)
    activity = contender.built(activity_regularizer=l1(1.0))
    stock = activity.to_stock()
    x = contender.inputs()
    total = np.sum(np.abs(numpy_of(activity(x))))
    stock(x)
    loss, of_stock = float(activity.losses[0]), float(stock.losses[0])
    assert_close(loss, of_stock, CLOSE)
    # The mean over the batch; of convolutions in Keras 3.8, the sum.
    assert_close(loss, total if of_stock > total / 2 else total / len(x), CLOSE)


@pytest.mark.parametrize("contender", SOME, indirect=True)
def test_frozen_layer_has_no_trainable_weights(contender):
    layer = contender.built(
        trainable=False, kernel_regularizer="l2", use_bias=True
    )
    assert not layer.trainable_variables and len(layer.weights) == 4
    layer.trainable = True
    assert len(layer.trainable_variables) == 4


@pytest.mark.parametrize("contender", SOME, indirect=True)
def test_the_spectrum_is_monitored(contender):
    layer = contender.make(name="mine")
    model = model_of(contender, layer, units=1)
    model.compile("sgd", "mse")
    monitor = SpectrumMonitor()
    x = contender.inputs()
    model.fit(x, x.reshape(4, -1)[:, :1], callbacks=[monitor], verbose=0)
    sigma = numpy_of(layer.singular_values())
    (key,) = (k for k in monitor.history if k.endswith("sigma_max"))
    assert key == "mine/sigma_max"
    assert_close(monitor.history[key][-1], sigma.max(), EXACT)


@pytest.mark.parametrize("contender", SOME, indirect=True)
@pytest.mark.parametrize("sigma_mode", ["clip", "free", "fixed"])
def test_other_modes_of_sigma(contender, sigma_mode):
    layer = contender.make(sigma_mode=sigma_mode)
    layer.build((None, *contender.shape))
    sigma = np.linalg.svd(numpy_of(layer.matrix()), compute_uv=False)
    assert_close(sigma, np.full(len(sigma), CENTER), 1e-5)
    x = contender.inputs()
    stock = layer.to_stock()
    options = {"sigma_mode": sigma_mode}
    if sigma_mode == "clip":
        options |= {"sigma_center": CENTER, "sigma_radius": RADIUS}
    again = type(layer).from_stock(stock, **options)
    assert_close(numpy_of(again(x)), numpy_of(stock(x)), 1e-4)


@pytest.mark.parametrize("contender", SOME, indirect=True)
def test_center_zero_starts_from_nothing(contender):
    layer = contender.make(sigma_center=0.0, sigma_radius=0.1, activation=None)
    x = contender.inputs()
    assert not np.any(numpy_of(layer(x)))


@pytest.mark.parametrize("contender", SOME, indirect=True)
@pytest.mark.parametrize(
    "options, message",
    [
        ({"kernel_initializer": "zeros"}, "`kernel_initializer`"),
        ({"kernel_constraint": "max_norm"}, "`kernel_constraint`"),
        ({"lora_rank": 2}, "`lora_rank`"),
        ({"sigma_radius": 2.0}, "`sigma_radius`"),
        ({"sigma_radius": 0.0}, "`sigma_radius`"),
        ({"sigma_center": -1.0}, "`sigma_center`"),
        ({"sigma_center": "best"}, "`sigma_center`"),
        ({"sigma_mode": "tanh"}, "`sigma_mode`"),
        ({"reflectors": -1}, "`reflectors`"),
        ({"reflectors": True}, "`reflectors`"),
        ({"reflectors": 1.5}, "`reflectors`"),
        ({"sigma_center": "auto", "activation": "softmax"}, "tanh"),
        ({"dtype": "int8_from_float32"}, "`dtype`"),
        (
            {"sigma_mode": "free", "annealed_radius": True},
            "`annealed_radius`",
        ),
        (
            {"sigma_mode": "fixed", "sigma_regularizer": "l2"},
            "`sigma_regularizer`",
        ),
        (
            {"reflectors": (0, 1), "kernel_regularizer": "l2"},
            "`kernel_regularizer`",
        ),
        ({"reflectors": (100, 1)}, "`reflectors`"),
    ],
)
def test_refuses(contender, options, message):
    with pytest.raises(ValueError, match=f"(?s){message}.*Received"):
        contender.make(**options)


def test_refuses_too_many_reflectors_of_one_side(contender):
    layer = contender.make(reflectors=(1, 100))
    with pytest.raises(ValueError, match="`reflectors`.*Received"):
        layer.build((None, *contender.shape))
    # Of an integer no more are made than can be of use.
    layer = contender.make(reflectors=100)
    layer.build((None, *contender.shape))
    assert layer.svd.reflectors == (min(layer.svd.shape),) * 2


@pytest.mark.parametrize("contender", SOME, indirect=True)
def test_neither_quantized_nor_adapted(contender):
    layer = contender.built()
    for refused in (layer.quantize, layer.enable_lora):
        with pytest.raises(NotImplementedError, match="to_stock"):
            refused("int8")

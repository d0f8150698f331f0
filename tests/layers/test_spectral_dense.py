"""SpectralDense: its two forms, inputs of any rank, masks."""

import keras
import numpy as np
import pytest
from keras import ops

from tests.helpers import BACKEND
from tests.helpers import assert_close
from tests.helpers import evaluate
from tests.helpers import grad
from tests.layers.contract import gradients
from tests.layers.contract import normal
from tests.layers.contract import shaken
from tf_spectral import spectralize
from tf_spectral.layers import SpectralDense
from tf_spectral.parametrizations import SVD

SHAPES = [(4, 4), (6, 3), (3, 6), (1, 1), (1, 5), (5, 1)]


@pytest.fixture(autouse=True)
def double_precision():
    from tests.layers import contract

    with contract.everything_in(contract.DTYPE):
        yield


def built(n_in, units, **options):
    options = {"sigma_radius": 0.5, **options}
    layer = SpectralDense(units, **options)
    layer.build((None, n_in))
    return shaken(layer)


@pytest.mark.parametrize("n_in,units", SHAPES)
@pytest.mark.parametrize("reflectors", [None, 1, (0, 1), (1, 0), (0, 0)])
@pytest.mark.costly(keep=11)
def test_both_forms_agree(n_in, units, reflectors):
    layers = []
    for form in ("dense", "low_rank", "auto"):
        layer = built(n_in, units, reflectors=reflectors, form=form)
        if layers:
            layer.set_weights(layers[0].get_weights())
        layers.append(layer)
    x = normal(3, n_in)
    tolerance = 1e-12 if x.dtype == "float64" else 1e-5
    kernel = ops.convert_to_numpy(layers[0].kernel)
    bias = ops.convert_to_numpy(layers[0].bias)
    for layer in layers:
        output = ops.convert_to_numpy(layer(x))
        assert_close(output, x @ kernel + bias, tolerance)
    first, second = (list(gradients(layer, x).values()) for layer in layers[:2])
    for a, b in zip(first, second, strict=True):
        scale = max(np.max(np.abs(b)), 1.0)
        assert_close(a, b, 100 * tolerance, scale=scale)


@pytest.mark.parametrize(
    "n_in,units,reflectors,rows,form",
    [
        # Formed for many rows if 1/n_in + 1/n_out > 1/m + 1/rows.
        (8, 8, 2, None, "low_rank"),
        (8, 8, 3, None, "dense"),
        (8, 8, 3, 2, "low_rank"),
        (8, 8, None, 1, "low_rank"),
        (8, 8, None, None, "dense"),
        (100, 8, 3, None, "low_rank"),
        (100, 8, 4, 1000, "dense"),
        (100, 8, 4, 10, "low_rank"),
    ],
)
def test_form_of_fewest_operations(
    n_in, units, reflectors, rows, form, monkeypatch
):
    called = []
    for name in ("matrix", "diagonal_plus_low_rank"):
        original = getattr(SVD, name)

        def spy(svd, name=name, original=original):
            called.append(name)
            return original(svd)

        monkeypatch.setattr(SVD, name, spy)
    layer = built(n_in, units, reflectors=reflectors)
    x = ops.convert_to_tensor(normal(rows or 2, n_in))
    # What a call with a batch of unknown size comes to.
    layer._times_kernel(x, rows) if rows is None else layer(x)
    wanted = {"dense": "matrix", "low_rank": "diagonal_plus_low_rank"}[form]
    assert called and set(called) == {wanted}
    m, n = sum(layer.svd.reflectors), rows or 10**9
    low_rank = m * (n_in + units) * n
    dense = n_in * units * (m + n)
    assert (low_rank <= dense) == (form == "low_rank")


@pytest.mark.parametrize("shape", [(3,), (2, 3), (2, 2, 2, 3)])
@pytest.mark.parametrize("form", ["dense", "low_rank"])
def test_inputs_of_any_rank(shape, form, mode):
    layer = built(3, 2, form=form)
    x = normal(4, *shape)
    expected = ops.convert_to_numpy(layer(x.reshape(-1, 3)))
    actual = evaluate(layer, x, mode=mode)
    assert_close(actual, expected.reshape(4, *shape[:-1], 2), 1e-6)


def test_unknown_time():
    layer = built(3, 2)
    inputs = keras.Input((None, 3))
    model = keras.Model(inputs, layer(inputs))
    assert model.output.shape == (None, None, 2)
    for time in (1, 4):
        assert model.predict(normal(2, time, 3), verbose=0).shape == (
            2,
            time,
            2,
        )


def test_integers_and_an_empty_batch():
    layer = built(3, 2)
    x = np.array([[1, 2, 3]])
    assert_close(
        ops.convert_to_numpy(layer(ops.convert_to_tensor(x, "int32"))),
        ops.convert_to_numpy(layer(x.astype(normal(1).dtype))),
        1e-6,
    )
    assert tuple(layer(np.zeros((0, 3))).shape) == (0, 2)
    assert tuple(layer(np.zeros((0, 4, 3))).shape) == (0, 4, 2)


@pytest.mark.skipif(BACKEND == "torch", reason="Keras has none there")
@pytest.mark.parametrize("form", ("dense", "low_rank"))
def test_sparse_inputs(form):
    """As `Dense` takes them: outputs, gradients, rows without an entry."""
    layer = shaken_low_rank(form)
    x = normal(6, 5) * (normal(6, 5, seed=1) > 0.5)
    x[1] = 0.0
    for array in (x, x.astype("int32"), x[:0]):
        expected = ops.convert_to_numpy(layer(array.astype(x.dtype)))
        actual = layer(sparse(array))
        assert_close(ops.convert_to_numpy(actual), expected, 1e-6)
    weights = [ops.convert_to_numpy(v) for v in layer.trainable_variables]

    def loss(x):
        def f(*weights):
            outputs, _ = layer.stateless_call(weights, [], x)
            return ops.sum(ops.square(outputs))

        return f

    expected = grad(loss(ops.convert_to_tensor(x)), *weights)
    for a, b in zip(grad(loss(sparse(x)), *weights), expected, strict=True):
        assert_close(a, b, 1e-6)


@pytest.mark.skipif(BACKEND == "torch", reason="Keras has none there")
def test_models_of_sparse_inputs_are_converted(tmp_path):
    inputs = keras.Input((5,), sparse=True)
    model = keras.Model(inputs, keras.layers.Dense(3, "relu")(inputs))
    x = sparse(normal(6, 5) * (normal(6, 5, seed=1) > 0.5))
    converted = spectralize(model)
    expected = ops.convert_to_numpy(model(x))
    assert_close(ops.convert_to_numpy(converted(x)), expected, 1e-5)
    converted.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert_close(ops.convert_to_numpy(again(x)), expected, 1e-5)
    again.compile("sgd", "mse")
    assert np.isfinite(again.train_on_batch(x, np.ones((6, 3))))


def shaken_low_rank(form):
    layer = SpectralDense(3, "tanh", reflectors=1, form=form)
    layer.build((None, 5))
    return shaken(layer)


def sparse(array):
    if BACKEND == "tensorflow":
        import tensorflow as tf

        return tf.sparse.from_dense(array)
    from jax.experimental.sparse import BCOO

    return BCOO.fromdense(array)


def test_masks_pass():
    masking = keras.layers.Masking()
    x = normal(2, 3, 4)
    x[:, 1:] = 0.0
    layer = built(4, 4)
    stock = layer.to_stock()
    last = keras.layers.GlobalAveragePooling1D()
    assert_close(
        ops.convert_to_numpy(last(layer(masking(x)))),
        ops.convert_to_numpy(last(stock(masking(x)))),
        1e-6,
    )
    mean = ops.convert_to_numpy(layer(x))[:, 0]
    assert_close(ops.convert_to_numpy(last(layer(masking(x)))), mean, 1e-6)


def test_modrelu_is_trained():
    layer = built(4, 3, activation="modrelu", sigma_center="auto")
    assert any(v.path.endswith("mod_re_lu/bias") for v in layer.weights)
    assert len(layer.trainable_variables) == 5
    again = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(layer)
    )
    assert type(again.activation) is type(layer.activation)


def test_by_products_are_those_of_the_kernel():
    layer = built(4, 4)
    kernel = ops.convert_to_numpy(layer.kernel)
    x = normal(3, 4)
    tolerance = 1e-10 if x.dtype == "float64" else 1e-4
    assert_close(ops.convert_to_numpy(layer.solve(x @ kernel)), x, tolerance)
    _, determinant = np.linalg.slogdet(kernel)
    assert_close(float(layer.log_abs_det()), determinant, tolerance, 1.0)
    low = ops.convert_to_numpy(layer.truncated_matrix(1))
    assert np.linalg.matrix_rank(low, tol=1e-4) == 1


@pytest.mark.parametrize(
    "options", [{"units": 0}, {"units": 2.5}, {"units": 2, "form": "sparse"}]
)
def test_refuses(options):
    with pytest.raises(ValueError, match="Received"):
        SpectralDense(**options)


def test_input_of_another_width():
    with pytest.raises(ValueError, match="axis -1"):
        built(3, 2)(normal(2, 4))
    with pytest.raises(ValueError, match="min_ndim=2"):
        built(3, 2)(normal(3))
    with pytest.raises(ValueError, match="`kernel` has the wrong shape"):
        built(3, 2).svd.assign_matrix(normal(2, 3))


def test_takes_the_place_of_a_trained_dense_layer():
    stock = keras.layers.Dense(5, "tanh", use_bias=False)
    stock.build((None, 3))
    layer = SpectralDense.from_stock(stock, sigma_mode="free", form="low_rank")
    assert layer.form == "low_rank" and layer.sigma_mode == "free"
    x = normal(2, 3)
    assert_close(
        ops.convert_to_numpy(layer(x)), ops.convert_to_numpy(stock(x)), 1e-5
    )

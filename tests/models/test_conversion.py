"""spectralize and despectralize: same outputs, other layers."""

import keras
import numpy as np
import pytest
from keras import layers as stock
from keras import ops

from tests.helpers import BACKEND
from tests.helpers import assert_close
from tests.layers.contract import everything_in
from tests.layers.contract import normal
from tests.models.cases import DTYPES
from tests.models.cases import MODELS
from tests.models.cases import TOLERANCES
from tests.models.cases import TYPES
from tests.models.cases import cnn
from tests.models.cases import make_mlp
from tests.models.cases import mlp
from tests.models.cases import nested
from tests.models.cases import output
from tests.models.cases import recurrent
from tests.models.cases import residual
from tests.models.cases import shaken
from tests.models.cases import types
from tests.models.cases import wrapped
from tf_spectral import despectralize
from tf_spectral import layers as spectral
from tf_spectral import spectralize
from tf_spectral.parametrizations import SVD


@pytest.fixture(params=DTYPES)
def dtype(request):
    with everything_in(request.param):
        yield request.param


@pytest.mark.parametrize("make", MODELS)
@pytest.mark.costly(keep=5)
def test_there_and_back_with_the_same_outputs(make, dtype):
    model, x = make()
    shaken(model)
    before = [np.array(w) for w in model.get_weights()]
    expected = output(model, x)
    converted = spectralize(model)
    assert_close(output(converted, x), expected, TOLERANCES[dtype])
    replaced = types(model, TYPES)
    assert replaced and not types(converted, TYPES)
    assert types(converted, TYPES.values()) == [TYPES[t] for t in replaced]
    names = [[layer.name for layer in m.layers[1:]] for m in (model, converted)]
    assert names[0] == names[1]
    assert {w.dtype for w in converted.weights if "int" not in w.dtype} == {
        dtype
    }
    back = despectralize(converted)
    assert_close(output(back, x), expected, TOLERANCES[dtype])
    assert types(back, TYPES) == replaced
    assert len(back.weights) == len(before)
    for weight, after in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, after)


@pytest.mark.parametrize("make", [mlp, cnn, recurrent, wrapped])
@pytest.mark.costly
def test_training_goes_on_within_the_bounds(make):
    model, x = make()
    converted = spectralize(shaken(model))
    y = np.roll(output(model, x), 1, axis=-1)
    # Not as a graph: compiling one takes most of the time.
    eager = BACKEND != "jax"
    converted.compile(keras.optimizers.Adam(0.01), "mse", run_eagerly=eager)
    flat = converted._flatten_layers()
    kept = [layer for layer in flat if type(layer) is SVD]
    starts = [ops.convert_to_numpy(svd.matrix()) for svd in kept]
    converted.fit(x, y, epochs=4, verbose=0)
    missed = [np.mean((output(m, x) - y) ** 2) for m in (model, converted)]
    assert missed[1] < missed[0]
    assert kept
    for svd, start in zip(kept, starts):
        matrix = ops.convert_to_numpy(svd.matrix())
        assert np.abs(matrix - start).max() > 1e-3
        sigma = np.linalg.svd(matrix, compute_uv=False)
        low = max(svd.sigma_center - svd.sigma_radius, 0.0)
        assert sigma.min() > low - 1e-4
        assert sigma.max() < svd.sigma_center + svd.sigma_radius + 1e-4


@pytest.mark.parametrize("make", [cnn, recurrent, wrapped])
@pytest.mark.costly
def test_converted_models_are_saved_and_loaded(make, tmp_path):
    model, x = make()
    converted = spectralize(shaken(model))
    converted.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert_close(output(loaded, x), output(converted, x), 1e-6)


def test_shared_layers_stay_shared():
    for make, paths in ((residual, 2), (nested, 2)):
        model, _ = make()
        converted = spectralize(model)
        assert len(types(converted, TYPES.values())) == paths
    dense = stock.Dense(3)
    x = keras.Input((4, 3))
    y = dense(stock.TimeDistributed(dense)(x))
    model = keras.Model(x, y)
    converted = spectralize(model)
    assert len(types(converted, TYPES.values())) == 1
    x = normal(2, 4, 3)
    assert_close(output(converted, x), output(model, x), 1e-5)


@pytest.mark.parametrize(
    "choice,expected",
    [
        ({"layers": stock.Dense}, ["dense", "block/dense", "twice/dense"]),
        ({"layers": "Dense"}, ["dense", "block/dense", "twice/dense"]),
        ({"layers": ["block"]}, ["block/dense"]),
        ({"layers": ["twice"]}, ["block/dense", "twice/dense"]),
        ({"layers": "twice/dense"}, ["twice/dense"]),
        ({"pattern": "^dense$"}, ["dense"]),
        ({"pattern": "dense", "exclude": "^twice/d"}, ["dense", "block/dense"]),
        ({"layers": ["dense"], "exclude": "block"}, ["dense", "twice/dense"]),
    ],
)
def test_choice_by_class_name_and_pattern(choice, expected):
    inner = keras.Input((4,))
    block = stock.Dense(4, name="dense")(inner)
    block = keras.Model(inner, block, name="block")
    twice = [block, stock.Dense(4, name="dense")]
    twice = keras.Sequential(twice, name="twice")
    x = keras.Input((4,))
    model = keras.Model(x, stock.Dense(2, name="dense")(twice(block(x))))
    converted = spectralize(model, **choice)
    nets = {layer.name: layer for layer in converted.layers}
    found = {
        "dense": nets["dense"],
        "block/dense": nets["block"].get_layer("dense"),
        "twice/dense": nets["twice"].get_layer("dense"),
    }
    chosen = [k for k, v in found.items() if type(v) is spectral.SpectralDense]
    assert chosen == expected


def test_options_and_overrides():
    model = make_mlp()
    converted = spectralize(
        model,
        reflectors=4,
        sigma_center=1.0,
        sigma_radius=0.3,
        exact=False,
        overrides={
            "Dense": {"sigma_mode": "clip"},
            "second": {"sigma_mode": "free", "form": "low_rank"},
            "head": {"sigma_center": None, "sigma_radius": None, "exact": True},
        },
    )
    first, second, head = map(converted.get_layer, ("first", "second", "head"))
    assert (first.sigma_mode, second.sigma_mode) == ("clip", "free")
    assert (first.form, second.form) == ("auto", "low_rank")
    assert first.svd.reflectors == (4, 4) and head.svd.reflectors == (3, 3)
    sigma = ops.convert_to_numpy(first.singular_values())
    assert np.abs(sigma - 1.0).max() < 0.3 + 1e-6
    assert first.conversion_residual > 0.01 > 1e-5 > head.conversion_residual
    assert isinstance(first.kernel_regularizer, keras.regularizers.L2)


def test_residuals_of_recurrent_layers():
    model, _ = recurrent()
    converted = spectralize(shaken(model), reflectors=1, exact=False)
    for layer in converted.layers[1:4]:
        assert layer.conversion_residual > 1e-3
    for layer in spectralize(model).layers[1:]:
        assert layer.conversion_residual < 1e-5
    model, _ = wrapped()
    both = spectralize(model).get_layer("both")
    assert both.forward_layer.conversion_residual < 1e-5


def test_what_is_frozen_stays_frozen():
    model = make_mlp()
    model.get_layer("first").trainable = False
    model.get_layer("batch_normalization").gamma.trainable = False
    for clone in (spectralize(model), despectralize(spectralize(model))):
        assert not clone.get_layer("first").trainable
        assert not clone.get_layer("first").trainable_variables
        trained = {id(v) for v in clone.trainable_variables}
        assert not trained & {id(v) for v in clone.get_layer("first").variables}
        assert not clone.get_layer("batch_normalization").gamma.trainable
        assert clone.get_layer("second").trainable_variables
    model, _ = nested()
    model.get_layer("block").trainable = False
    converted = spectralize(model)
    assert not converted.get_layer("block").trainable
    assert len(converted.trainable_variables) == 4


def test_stateful_models_go_on_from_their_states():
    model = keras.Sequential(
        [
            keras.Input(batch_shape=(2, 4, 3)),
            stock.GRU(3, return_sequences=True, stateful=True),
            stock.SimpleRNN(3, return_sequences=True, stateful=True),
            stock.Bidirectional(stock.LSTM(3, stateful=True)),
        ]
    )
    output(model, normal(2, 4, 3))
    clones = spectralize(model), spectralize(model, exclude="bidirectional")
    expected = output(model, normal(2, 4, 3, seed=1))
    for clone in clones:
        assert_close(output(clone, normal(2, 4, 3, seed=1)), expected, 1e-5)


def test_adapted_layers_keep_what_they_learnt():
    scale = stock.Normalization()
    scale.adapt(3.0 + normal(50, 4).astype("float32"))
    model = keras.Sequential([keras.Input((4,)), scale, stock.Dense(2)])
    x = normal(3, 4)
    assert_close(output(spectralize(model), x), output(model, x), 1e-5)


def test_compiled_models_with_any_loss_and_half_precision():
    with everything_in("float32"):
        keras.config.set_dtype_policy("mixed_bfloat16")
        model = make_mlp()
    model.compile("sgd", loss=lambda y, z: ops.mean(y - z))
    converted = spectralize(model)
    assert model.compiled and not converted.compiled
    head = converted.get_layer("head")
    assert head.compute_dtype == "bfloat16"
    x = normal(5, 6).astype("float32")
    actual, expected = (
        ops.convert_to_numpy(ops.cast(m(x), "float32"))
        for m in (converted, model)
    )
    assert_close(actual, expected, 0.05)


class Block(stock.Layer):
    """A layer with parts that are not converted."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = stock.Dense(4)
        self.norm = stock.BatchNormalization()

    def build(self, shape):
        self.dense.build(shape)
        self.norm.build((*shape[:-1], 4))

    def call(self, x, training=None):
        return self.norm(self.dense(x), training=training)


def test_parts_of_a_cloned_layer_stay_frozen():
    model = keras.Sequential([keras.Input((4,)), Block(), stock.Dense(2)])
    model.layers[0].norm.trainable = False
    clone = spectralize(shaken(model)).layers[0]
    assert not clone.norm.trainable and clone.dense.trainable
    x = normal(3, 4)
    assert_close(
        ops.convert_to_numpy(clone(x, training=True)),
        ops.convert_to_numpy(model.layers[0](x, training=True)),
        1e-5,
    )

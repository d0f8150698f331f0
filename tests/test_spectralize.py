"""spectralize and despectralize: same outputs, other layers, clear errors."""

import keras
import numpy as np
import pytest
from keras import layers as stock
from keras import ops

from tests.helpers import BACKEND
from tests.helpers import assert_close
from tests.layers.contract import everything_in
from tests.layers.contract import normal
from tf_spectral import despectralize
from tf_spectral import layers as spectral
from tf_spectral import spectralize
from tf_spectral.parametrizations import SVD

# Keras rounds products of float64 to float32 on the others.
TOLERANCES = {"float32": 1e-4, "float64": 1e-9}
DTYPES = ["float32", "float64"] if BACKEND == "tensorflow" else ["float32"]
TYPES = {
    stock.Dense: spectral.SpectralDense,
    stock.Conv1D: spectral.SpectralConv1D,
    stock.Conv2D: spectral.SpectralConv2D,
    stock.SimpleRNN: spectral.SpectralRNN,
    stock.LSTM: spectral.SpectralLSTM,
    stock.GRU: spectral.SpectralGRU,
}


@pytest.fixture(params=DTYPES)
def dtype(request):
    with everything_in(request.param):
        yield request.param


def mlp():
    model = keras.Sequential(
        [
            keras.Input((6,)),
            stock.Dense(8, "relu", name="first", kernel_regularizer="l2"),
            stock.BatchNormalization(),
            stock.Dropout(0.5),
            stock.Dense(8, "tanh", use_bias=False, name="second"),
            stock.Dense(3, "softmax", name="head"),
        ],
        name="mlp",
    )
    return model, normal(5, 6)


def cnn():
    model = keras.Sequential(
        [
            keras.Input((8, 8, 2)),
            stock.Conv2D(4, 3, strides=2, padding="same", activation="relu"),
            stock.Conv2D(4, (1, 2), groups=2),
            stock.Reshape((12, 4)),
            stock.Conv1D(3, 3, padding="causal", dilation_rate=2),
            stock.Flatten(),
            stock.Dense(2),
        ]
    )
    return model, normal(3, 8, 8, 2)


def recurrent():
    model = keras.Sequential(
        [
            keras.Input((6,), dtype="int32"),
            stock.Embedding(9, 4, mask_zero=True),
            stock.LSTM(5, return_sequences=True, go_backwards=True),
            stock.GRU(4, return_sequences=True, recurrent_dropout=0.5),
            stock.SimpleRNN(3, dropout=0.5),
            stock.Dense(2),
        ]
    )
    tokens = [[3, 0, 4, 5, 0, 0], [0, 1, 2, 2, 7, 8], [1, 0, 0, 0, 0, 0]]
    return model, np.array(tokens, "int32")


def residual():
    x = keras.Input((4,), name="x")
    shared = stock.Dense(4, "tanh", name="shared")
    y = x
    for _ in range(3):
        y = y + 0.5 * shared(y)
    y = stock.Concatenate()([y, stock.Lambda(lambda t: 2 * t)(x)])
    outputs = {"head": stock.Dense(2, name="head")(y), "body": y}
    return keras.Model(x, outputs, name="residual"), normal(5, 4)


def nested():
    inner = keras.Input((4,))
    block = stock.Dense(4, "relu", name="dense")(inner)
    block = keras.Model(inner, block + inner, name="block")
    twice = [block, stock.Dense(4, name="dense")]
    twice = keras.Sequential(twice, name="twice")
    x, y = keras.Input((4,)), keras.Input((4,))
    outputs = twice(block(x)) + block(y)
    return keras.Model([x, y], outputs), [normal(5, 4), normal(5, 4, seed=1)]


def wrapped():
    inner = keras.Sequential([keras.Input((3,)), stock.Dense(4, "relu")])
    x = keras.Input((5, 3))
    y = stock.TimeDistributed(inner, name="each")(x)
    y = stock.TimeDistributed(stock.Dense(4))(y)
    y = stock.Masking()(y)
    y = stock.Bidirectional(stock.LSTM(3, return_sequences=True))(y)
    y = stock.Bidirectional(
        stock.GRU(2),
        merge_mode="sum",
        backward_layer=stock.SimpleRNN(2, go_backwards=True),
        name="both",
    )(y)
    return keras.Model(x, y), normal(2, 5, 3)


def with_state():
    x = keras.Input((4, 3))
    sequences, h, c = stock.LSTM(5, return_sequences=True, return_state=True)(x)
    y = stock.LSTM(5)(sequences, initial_state=[h, c])
    return keras.Model(x, [y, h]), normal(2, 4, 3)


MODELS = (mlp, cnn, recurrent, residual, nested, wrapped, with_state)


def shaken(model):
    """The model with all weights off their start, variances positive."""
    generator = np.random.default_rng(7)
    for weight in model.weights:
        weight.assign(weight + 0.3 * generator.random(weight.shape))
    return model


def output(model, x):
    outputs = keras.tree.flatten(model(x, training=False))
    return np.concatenate([ops.convert_to_numpy(t) for t in outputs], axis=-1)


def types(model, kinds):
    """The kinds of layers in a model that are among `kinds`."""
    flat = model._flatten_layers()
    return [type(layer) for layer in flat if type(layer) in kinds]


def make_mlp():
    return shaken(mlp()[0])


@pytest.mark.parametrize("make", MODELS)
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


def test_subclasses_and_spectral_layers_are_not_converted():
    class MyDense(stock.Dense):
        pass

    model = keras.Sequential(
        [
            keras.Input((4,)),
            MyDense(4, name="mine"),
            spectral.SpectralDense(4, name="spectral"),
            stock.Dense(4, name="stock"),
        ]
    )
    converted = spectralize(model)
    assert type(converted.get_layer("mine")) is MyDense
    x = normal(3, 4)
    assert_close(output(converted, x), output(model, x), 1e-5)
    back = despectralize(converted, exclude="^stock$")
    assert type(back.get_layer("spectral")) is stock.Dense
    assert type(back.get_layer("stock")) is spectral.SpectralDense
    for name in ("mine", "spectral"):
        with pytest.raises(ValueError, match=f"exactly.* is `{name}`"):
            spectralize(model, layers=["stock", name])


@pytest.mark.parametrize(
    "options,message",
    [
        ({"layers": "nothing"}, "no layer of this model"),
        ({"layers": ["first", "dropout"]}, r"`dropout` \(Dropout\)"),
        ({"layers": [stock.Conv3D]}, "Dense, Conv1D, Conv2D, SimpleRNN"),
        ({"layers": [3]}, "classes or names"),
        ({"layers": [stock.LSTM]}, "No layer was chosen"),
        ({"pattern": "lstm"}, "No layer was chosen"),
        ({"pattern": "["}, "regular expression"),
        ({"exclude": 3}, "regular expression"),
        ({"overrides": ["head"]}, "a dict from names"),
        ({"overrides": {"head": 3}}, "a dict of options"),
        ({"overrides": {"dropout": {}}}, "not converted"),
        ({"overrides": {"head": {"radius": 1}}}, r"`head` \(Dense\).*radius"),
        ({"sigma_mode": "round"}, r"`first` \(Dense\).*sigma_mode"),
        (
            {"overrides": {"head": {"sigma_center": 1.0, "sigma_radius": 0.1}}},
            r"`head` \(Dense\).*values in \[.*They would fit with sigma_center",
        ),
        (
            {"overrides": {"second": {"reflectors": 2}}},
            r"`second` \(Dense\).*relative residual",
        ),
    ],
)
def test_what_cannot_be_done_is_said(options, message):
    model = make_mlp()
    before = model.get_weights()
    with pytest.raises(ValueError, match=f"(?s){message}"):
        spectralize(model, **options)
    assert types(model, TYPES) == [stock.Dense] * 3
    for weight, after in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, after)


def test_the_gate_that_does_not_fit_is_named():
    model, _ = recurrent()
    with pytest.raises(ValueError, match=r"`lstm\S* \(LSTM\).*input_gate"):
        spectralize(shaken(model), sigma_center=1.0, sigma_radius=0.1)
    with pytest.raises(ValueError, match=r"`simple_rnn\S* \(SimpleRNN\)"):
        spectralize(
            model,
            layers=stock.SimpleRNN,
            sigma_center=2.0,
            sigma_radius=0.1,
        )


def test_models_that_are_no_graph_of_layers():
    class Subclassed(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = stock.Dense(2)

        def call(self, x):
            return self.dense(x)

    model = Subclassed()
    model(normal(3, 4))
    unbuilt = keras.Sequential([stock.Dense(2)])
    for convert in (spectralize, despectralize):
        with pytest.raises(ValueError, match="functional keras.Model"):
            convert(model)
        with pytest.raises(ValueError, match="functional keras.Model"):
            convert(stock.Dense(2))
        with pytest.raises(ValueError, match="must be built"):
            convert(unbuilt)
    # Called on data once, it is built.
    unbuilt(normal(3, 4))
    converted = spectralize(unbuilt)
    x = normal(5, 4)
    assert_close(output(converted, x), output(unbuilt, x), 1e-5)


def test_layers_that_cannot_be_cloned_are_named():
    class Odd(stock.Layer):
        def __init__(self, function, **kwargs):
            super().__init__(**kwargs)
            self.function = function

        def call(self, x):
            return self.function(x)

        def get_config(self):
            return super().get_config()

    model = keras.Sequential(
        [keras.Input((3,)), stock.Dense(2), Odd(ops.relu, name="odd")]
    )
    with pytest.raises(ValueError, match=r"`odd` \(Odd\) cannot be cloned"):
        spectralize(model)


def test_a_trainable_activation_has_no_way_back():
    model = keras.Sequential(
        [keras.Input((3,)), spectral.SpectralDense(2, "modrelu", name="odd")]
    )
    with pytest.raises(ValueError, match="`odd` .*trainable activation"):
        despectralize(model)

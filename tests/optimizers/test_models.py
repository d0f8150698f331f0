"""Every optimizer on each kind of model, compiled as `fit` compiles it."""

import warnings

import keras
import numpy as np
import pytest
from keras import layers
from keras import ops

from tests.helpers import BACKEND
from tests.optimizers.contract import CLASSES
from tests.optimizers.contract import LOSS
from tests.optimizers.contract import OPTIMIZERS
from tests.optimizers.contract import compile_modes
from tests.optimizers.contract import fitted
from tests.optimizers.contract import weights_of
from tf_spectral.bounds import LayerwiseSmoothness
from tf_spectral.callbacks import OrthogonalAverages
from tf_spectral.constraints import Orthogonal
from tf_spectral.optimizers import DSGD
from tf_spectral.optimizers import SRCD
from tf_spectral.optimizers import SRGD
from tf_spectral.optimizers import SpectralDescent

SLOW = pytest.mark.slow
TOKENS, LENGTH, FEATURES = 9, 4, 5
# One of each class, and of DSGD one for each way through its step.
CONTENDERS = [
    "dsgd_measured",
    "dsgd_measured_1",
    "dsgd_1",
    "dsgd_random",
    "dsgd_all",
    "dsgd_delayed",
    "srgd",
    "srcd_best",
    "spectral_cyclic",
    "spectral_rms",
]


def square(contender):
    return layers.Dense(
        6,
        "tanh",
        kernel_initializer="orthogonal",
        kernel_constraint=contender.constraint,
    )


def one_layer(contender):
    return keras.Sequential(
        [keras.Input((FEATURES,)), layers.Dense(CLASSES, "softmax")]
    )


def one_kernel(contender):
    model = keras.Sequential(
        [
            keras.Input((FEATURES,)),
            layers.Dense(CLASSES, "softmax", use_bias=False),
        ]
    )
    return model


def frozen_backbone(contender):
    frozen = [layers.Dense(6, "tanh"), layers.Dense(6, "tanh")]
    for layer in frozen:
        layer.trainable = False
    return keras.Sequential(
        [keras.Input((FEATURES,)), *frozen, layers.Dense(CLASSES, "softmax")]
    )


def shared_embedding(contender):
    embedding = layers.Embedding(TOKENS, 6)
    tokens = keras.Input((LENGTH,), dtype="int32")
    others = keras.Input((LENGTH,), dtype="int32")
    x = layers.Concatenate(axis=1)([embedding(tokens), embedding(others)])
    x = square(contender)(layers.GlobalAveragePooling1D()(x))
    return keras.Model([tokens, others], layers.Dense(CLASSES, "softmax")(x))


def sub_models_and_shared_layers(contender):
    inputs = keras.Input((FEATURES,))
    inner = keras.Input((6,))
    block = keras.Model(inner, [square(contender)(inner), inner])
    x = layers.Dense(6, "tanh")(inputs)
    left, same = block(x)
    right, _ = block(left)
    x = layers.Add()([left, right, same])
    return keras.Model(inputs, layers.Dense(CLASSES, "softmax")(x))


def convolutional(contender):
    return keras.Sequential(
        [
            keras.Input((FEATURES,)),
            layers.Reshape((FEATURES, 1)),
            layers.Conv1D(4, 3, padding="same"),
            layers.BatchNormalization(),
            layers.Activation("relu"),
            layers.GlobalMaxPooling1D(),
            layers.Dense(6),
            square(contender),
            layers.Dense(CLASSES, "softmax"),
        ]
    )


def recurrent(contender):
    return keras.Sequential(
        [
            keras.Input((LENGTH,), dtype="int32"),
            layers.Embedding(TOKENS, 3, mask_zero=True),
            layers.SimpleRNN(
                6,
                recurrent_initializer="orthogonal",
                recurrent_constraint=contender.constraint,
                return_sequences=True,
            ),
            layers.LSTM(5),
            layers.Dense(CLASSES, "softmax"),
        ]
    )


def attention(contender):
    tokens = keras.Input((LENGTH,), dtype="int32")
    x = layers.Embedding(TOKENS, 6)(tokens)
    x = layers.Add()([x, layers.MultiHeadAttention(2, 3)(x, x)])
    x = square(contender)(layers.LayerNormalization()(x))
    x = layers.GlobalAveragePooling1D()(x)
    return keras.Model(tokens, layers.Dense(CLASSES, "softmax")(x))


class Scaled(layers.Layer):
    """Weights of rank 0 and of size 0."""

    def build(self, shape):
        self.scale = self.add_weight(shape=(), initializer="ones")
        self.nothing = self.add_weight(shape=(0, 3), initializer="ones")

    def call(self, inputs):
        return inputs * self.scale + keras.ops.sum(self.nothing)


def odd_shapes(contender):
    return keras.Sequential(
        [
            keras.Input((FEATURES,)),
            layers.Dense(6, "tanh"),
            Scaled(),
            square(contender),
            layers.Dense(CLASSES, "softmax"),
        ]
    )


MODELS = [
    one_layer,
    one_kernel,
    frozen_backbone,
    shared_embedding,
    sub_models_and_shared_layers,
    convolutional,
    recurrent,
    attention,
    odd_shapes,
]


def data_for(model):
    """A batch for the model and labels that depend on it."""
    rng = np.random.default_rng(0)
    xs = [
        rng.integers(1, TOKENS, size=(32, *x.shape[1:]))
        if "int" in x.dtype
        else rng.normal(size=(32, *x.shape[1:])).astype("float32")
        for x in model.inputs
    ]
    labels = (np.abs(xs[0]).sum(axis=1) * 7).astype(int) % CLASSES
    return xs[0] if len(xs) == 1 else xs, labels


def has_what_it_names(model, contender, name):
    """Whether the model has the weights that the contender asks for."""
    variables = model.trainable_variables
    if name == "spectral_rms":
        return any(v.path.endswith("bias") for v in variables)
    return contender.constraint is None or any(
        v.constraint is not None for v in variables
    )


def trains(make, name, options):
    contender = OPTIMIZERS[name]
    keras.utils.set_random_seed(0)
    model = make(contender)
    if not has_what_it_names(model, contender, name):
        pytest.skip("nothing to keep orthogonal, or no bias")
    model.compile(contender.make(model), LOSS, **options)
    x, y = data_for(model)
    before = weights_of(model)
    losses = fitted(model, 2, x, y, batch=16)
    assert np.isfinite(losses).all()
    after = weights_of(model)
    assert all(np.isfinite(weight).all() for weight in after)
    assert any(not np.array_equal(a, b) for a, b in zip(after, before))
    return losses


# Those that are tried at once, and whether under XLA; the others cost more.
QUICK = {
    one_layer: True,
    frozen_backbone: False,
    shared_embedding: False,
    sub_models_and_shared_layers: False,
    convolutional: False,
    odd_shapes: False,
}


def learns(make, contender, optimizer, xla):
    options = {"jit_compile": xla} if BACKEND == "tensorflow" else {}
    keras.utils.set_random_seed(0)
    model = make(contender)
    model.compile(optimizer(model), LOSS, **options)
    x, y = data_for(model)
    losses = fitted(model, 12, x, y, batch=32)
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("make", QUICK, ids=lambda make: make.__name__)
@pytest.mark.costly(keep=2)
def test_dsgd_trains_each_kind_of_model(make):
    """With nothing set, which is what is typed first."""
    learns(make, OPTIMIZERS["dsgd_measured"], lambda _: DSGD(), QUICK[make])


@pytest.mark.slow
@pytest.mark.parametrize(
    "make",
    [make for make in MODELS if not QUICK.get(make)],
    ids=lambda make: make.__name__,
)
def test_dsgd_trains_each_kind_of_model_under_xla(make):
    learns(make, OPTIMIZERS["dsgd_measured"], lambda _: DSGD(), True)


@pytest.mark.parametrize("xla", [False, pytest.param(True, marks=SLOW)])
@pytest.mark.parametrize("name", ["srgd", "srcd_best", "spectral_cyclic"])
@pytest.mark.costly
def test_every_class_trains_on_slices(name, xla):
    """Shared embeddings, whose gradients are slices, and a square kernel."""
    learns(shared_embedding, OPTIMIZERS[name], OPTIMIZERS[name].make, xla)


def test_dsgd_warns_of_nothing():
    model = one_layer(None)
    smoothness = LayerwiseSmoothness.from_model(model, loss=LOSS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for kind in (smoothness, "constant", "measured"):
            DSGD(smoothness=kind).build(model.trainable_variables)


@pytest.mark.parametrize("optimizer", [DSGD, SRCD, SRGD, SpectralDescent])
def test_names_are_as_those_of_keras(optimizer):
    keras.utils.clear_session(free_memory=False)
    snake = {SpectralDescent: "spectral_descent"}.get(
        optimizer, optimizer.__name__.lower()
    )
    assert [optimizer().name, optimizer().name] == [snake, f"{snake}_1"]
    assert optimizer(name="mine").name == "mine"
    for name in (optimizer.__name__, optimizer.__name__.lower(), snake):
        assert type(keras.optimizers.get(name)) is optimizer


@pytest.mark.slow
@pytest.mark.parametrize("name", CONTENDERS)
@pytest.mark.parametrize("make", MODELS, ids=lambda make: make.__name__)
def test_every_optimizer_trains_every_kind_of_model(make, name):
    losses = [
        trains(make, name, options)
        for mode, options in compile_modes().items()
        if mode != "eager"
    ]
    if not OPTIMIZERS[name].draws:
        np.testing.assert_allclose(losses[0], losses[-1], rtol=2e-2)


@pytest.mark.parametrize(
    "make",
    [
        DSGD,
        lambda **options: SpectralDescent(lipschitz=1.0, **options),
        SRGD,
        SRCD,
        keras.optimizers.Adam,
    ],
)
@pytest.mark.costly
def test_averages_are_orthogonal_too(make):
    """Written at the end of `fit`, and swapped in for each evaluation."""
    errors = []

    def note(*_):
        w = ops.convert_to_numpy(model.layers[0].kernel)
        errors.append(np.abs(w.T @ w - np.eye(FEATURES)).max())

    def compiled():
        model = keras.Sequential(
            [
                keras.Input((FEATURES,)),
                layers.Dense(
                    FEATURES,
                    kernel_constraint=Orthogonal(),
                    kernel_initializer="orthogonal",
                ),
                layers.Dense(CLASSES, "softmax"),
            ]
        )
        options = {"use_ema": True, "ema_momentum": 0.7}
        model.compile(make(learning_rate=0.05, **options), LOSS)
        return model

    keras.utils.set_random_seed(0)
    model = compiled()
    own = not isinstance(model.optimizer, keras.optimizers.Adam)
    x, y = data_for(model)
    callbacks = [keras.callbacks.SwapEMAWeights(swap_on_epoch=True)]
    callbacks += [] if own else [OrthogonalAverages()]
    callbacks.append(
        keras.callbacks.LambdaCallback(
            on_epoch_end=note, on_test_begin=note, on_train_end=note
        )
    )
    for used in (callbacks, callbacks[1:]):
        if BACKEND == "jax":
            # Averages that became weights share their memory there, and no
            # optimizer of Keras can train on.
            model = compiled()
        model.fit(
            x,
            y,
            epochs=3,
            verbose=0,
            callbacks=used,
            validation_data=(x, y) if used is not callbacks else None,
        )
    assert len(errors) == 11
    assert max(errors) < 1e-4


@pytest.mark.skipif(BACKEND != "tensorflow", reason="variables of TensorFlow")
@pytest.mark.parametrize(
    "make", [DSGD, lambda: SpectralDescent(1.0, {"default": 1.0, "b:0": 2.0})]
)
def test_variables_of_tensorflow_alone(make):
    import tensorflow as tf

    w = tf.Variable(np.ones((3, 2), "float32"), name="w")
    b = tf.Variable(np.ones(2, "float32"), name="b")
    optimizer = make()
    for _ in range(3):
        optimizer.apply_gradients([(tf.ones((3, 2)), w), (tf.ones(2), b)])
    assert np.isfinite(w.numpy()).all()
    assert not np.all(w.numpy() == 1) or not np.all(b.numpy() == 1)


@pytest.mark.parametrize("name", ["dsgd_2", "srgd", "srcd_best"])
@pytest.mark.costly
def test_h5_files_load(name, tmp_path):
    """Keras leaves the optimizer's state out of them, and says so."""
    contender = OPTIMIZERS[name]
    model = keras.Sequential([keras.Input((6,)), square(contender)])
    model.add(layers.Dense(CLASSES, "softmax"))
    model.compile(
        contender.make(model), keras.losses.SparseCategoricalCrossentropy()
    )
    x, y = data_for(model)
    fitted(model, 1, x, y)
    model.save(tmp_path / "model.h5")
    again = keras.models.load_model(tmp_path / "model.h5")
    for a, b in zip(weights_of(again), weights_of(model)):
        np.testing.assert_array_equal(a, b)
    assert np.isfinite(fitted(again, 1, x, y)).all()


CLASSES_OF_OPTIMIZERS = {
    "DSGD": lambda **options: DSGD(selection="all", **options),
    "SpectralDescent": lambda **options: SpectralDescent(
        lipschitz=1.0, **options
    ),
    "SRGD": SRGD,
    "SRCD": SRCD,
}


def orthogonal_network():
    keras.utils.set_random_seed(0)
    square = layers.Dense(
        FEATURES,
        kernel_constraint=Orthogonal(),
        kernel_initializer="orthogonal",
        name="first",
    )
    return keras.Sequential(
        [
            keras.Input((FEATURES,)),
            square,
            layers.Dense(CLASSES, "softmax", name="out"),
        ]
    )


def orthogonality(kernel):
    w = ops.convert_to_numpy(kernel)
    return np.abs(w.T @ w - np.eye(len(w))).max()


@pytest.mark.parametrize("name", CLASSES_OF_OPTIMIZERS)
def test_overwritten_averages_are_orthogonal(name):
    model = orthogonal_network()
    variables = model.trainable_variables
    optimizer = CLASSES_OF_OPTIMIZERS[name](
        learning_rate=0.3,
        use_ema=True,
        ema_momentum=0.6,
        ema_overwrite_frequency=2,
    )
    rng = np.random.default_rng(0)
    for count in range(6):
        optimizer.apply(
            [
                ops.convert_to_tensor(rng.normal(size=v.shape), "float32")
                for v in variables
            ],
            variables,
        )
        kernel = ops.convert_to_numpy(variables[0])
        average = optimizer._model_variables_moving_average[0]
        assert orthogonality(kernel) < 1e-5
        distance = np.abs(ops.convert_to_numpy(average) - kernel).max()
        assert count == 0 or (distance < 1e-5) == (count % 2 == 1)


@pytest.mark.parametrize("name", CLASSES_OF_OPTIMIZERS)
@pytest.mark.costly
def test_wrapped_in_optimizers_of_keras(name, tmp_path):
    """As `mixed_float16` wraps them, and for a part of the weights."""

    def trained(wrap, **options):
        options = options if BACKEND == "tensorflow" else {}
        model = orthogonal_network()
        own = CLASSES_OF_OPTIMIZERS[name](learning_rate=0.1)
        before = weights_of(model)[0]
        model.compile(wrap(own), LOSS, **options)
        fitted(model, 3, *data_for(model), batch=16)
        assert orthogonality(model.layers[0].kernel) < 1e-5
        assert np.abs(weights_of(model)[0] - before).max() > 1e-4
        path = tmp_path / "model.keras"
        model.save(path)
        again = keras.models.load_model(path).optimizer
        for a, b in zip(
            again.variables, model.optimizer.variables, strict=True
        ):
            np.testing.assert_array_equal(
                ops.convert_to_numpy(a), ops.convert_to_numpy(b)
            )
        return weights_of(model)

    plain = trained(lambda own: own, run_eagerly=True)
    scaled = trained(keras.optimizers.LossScaleOptimizer, jit_compile=False)
    for a, b in zip(scaled, plain):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-4)
    if hasattr(keras.optimizers, "MultiOptimizer"):
        trained(
            lambda own: keras.optimizers.MultiOptimizer(
                keras.optimizers.OptimizerMap(
                    keras.optimizers.SGD(), {".*first/kernel": own}
                )
            ),
            run_eagerly=True,
        )

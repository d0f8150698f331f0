"""The contract of `contract.py`, for every layer that is under it."""

import keras
import numpy as np
import pytest
from keras import ops

from tests import helpers
from tests.helpers import BACKEND
from tests.helpers import assert_close
from tests.helpers import skip_what_keras_cannot
from tests.layers import contract
from tests.layers.contract import CLOSE
from tests.layers.contract import DTYPE
from tests.layers.contract import EXACT
from tests.layers.contract import FEATURES
from tests.layers.contract import UNITS
from tests.layers.contract import arrays_of
from tests.layers.contract import built
from tests.layers.contract import gradients
from tests.layers.contract import normal
from tests.layers.contract import same_weights
from tests.layers.contract import shaken

# Starts masked, ends masked, has a hole, is masked throughout.
MASK = np.array(
    [
        [False, False, True, True, True],
        [True, True, True, False, False],
        [True, False, True, False, True],
        [False, False, False, False, False],
    ]
)
BOOLEANS = (False, True)
KERAS = tuple(int(n) for n in keras.__version__.split(".")[:2])


def compiled(*quick):
    """Where compiling takes most of the time: the quick suite has these.

    One of each class that runs a sequence by itself is enough to see whether
    it can be compiled; how it computes is compared in eager mode, for all.
    """
    return pytest.mark.parametrize(
        "contender",
        [
            pytest.param(name, marks=[pytest.mark.slow] * (name not in quick))
            for name in contract.LAYERS
        ],
        indirect=True,
    )


@pytest.fixture(params=contract.LAYERS)
def contender(request):
    return contract.LAYERS[request.param]


@pytest.fixture(autouse=True)
def precision():
    with contract.everything_in(contract.DTYPE):
        yield


@pytest.fixture
def make(contender):
    return contender.make


def assert_equal(actual, expected, tolerance=EXACT):
    actual, expected = arrays_of(actual), arrays_of(expected)
    for a, b in zip(actual, expected, strict=True):
        assert_close(a, b, tolerance)


def call_options(contender, masked, state):
    """Keras on JAX has a rule of its own for a state and a leading mask."""
    options = {"mask": ops.convert_to_tensor(MASK)} if masked else {}
    if state and not (masked and BACKEND == "jax"):
        options["initial_state"] = contender.state()
    return options


# Every pair of values of two options, not all of all four.
@pytest.mark.parametrize(
    "sequences, go_backwards, masked, zeros",
    [
        (False, False, False, False),
        (True, True, False, False),
        (False, True, True, False),
        (True, False, True, False),
        (False, False, True, True),
        (True, True, True, True),
    ],
)
@pytest.mark.costly(keep=17)
def test_equals_its_reference(
    contender, make, sequences, go_backwards, masked, zeros
):
    layer = built(
        make(
            return_sequences=sequences,
            return_state=True,
            go_backwards=go_backwards,
            zero_output_for_mask=zeros,
        )
    )
    reference, x = contender.reference(layer), normal(4, 5, FEATURES)
    for state in BOOLEANS:
        options = call_options(contender, masked, state)
        outputs = layer(x, **options)
        assert len(outputs) == 1 + contender.states
        assert_equal(outputs, reference(x, **options))


@pytest.mark.parametrize("masked", BOOLEANS)
def test_unrolled_equals_its_reference(contender, make, masked):
    layer = built(make(return_sequences=True, return_state=True, unroll=True))
    options = call_options(contender, masked, True)
    x = normal(4, 5, FEATURES)
    assert_equal(layer(x, **options), contender.reference(layer)(x, **options))


@pytest.mark.parametrize("sequences", BOOLEANS)
def test_without_state_or_bias(contender, make, sequences):
    layer = make(return_sequences=sequences, use_bias=False)
    skip_what_keras_cannot(layer)
    layer, x = built(layer), normal(4, 5, FEATURES)
    output = layer(x)
    shape = (4, 5, UNITS) if sequences else (4, UNITS)
    assert tuple(output.shape) == shape
    assert layer.compute_output_shape(x.shape) == shape
    assert_equal(output, contender.reference(layer)(x))


@pytest.mark.parametrize("masked", BOOLEANS)
@pytest.mark.costly(keep=6)
def test_every_gradient_equals_that_of_the_unrolled_loop(
    contender, make, masked
):
    options = {"return_sequences": True, "return_state": True}
    layer = built(make(**options))
    unrolled = same_weights(layer, make(**options, unroll=True))
    x, call = normal(4, 5, FEATURES), call_options(contender, masked, True)
    expected = {
        path.removeprefix(unrolled.name): gradient
        for path, gradient in gradients(unrolled, x, **call).items()
    }
    for path, gradient in gradients(layer, x, **call).items():
        assert np.any(gradient)
        path = path.removeprefix(layer.name)
        assert_close(gradient, expected[path], CLOSE)


@helpers.slow_but_on_torch
@pytest.mark.parametrize("training", BOOLEANS)
def test_second_derivatives_equal_those_of_the_unrolled_loop(
    contender, make, training
):
    """What a gradient penalty needs, with and without a mask."""
    if (BACKEND, make().activation.__name__) == ("tensorflow", "softsign"):
        pytest.skip("TensorFlow's own softsign is differentiated once only")
    layer = built(make(recurrent_dropout=0.3, seed=3))
    unrolled = same_weights(
        layer, make(recurrent_dropout=0.3, seed=3, unroll=True)
    )
    x = normal(4, 5, FEATURES)
    for masked in BOOLEANS:
        call = call_options(contender, masked, True)
        call |= {"order": 2, "training": training}
        expected = gradients(unrolled, x, **call)
        actual = gradients(layer, x, **call)
        for one, other in zip(actual, expected, strict=True):
            assert_close(actual[one], expected[other], CLOSE)


def test_gradients_equal_those_of_the_reference(contender):
    check_gradients(contender, helpers.MODES[0])


@compiled("low_rank", "lstm")
@pytest.mark.costly(keep=2)
def test_gradients_in_every_mode(contender, mode):
    check_gradients(contender, mode)


def check_gradients(contender, mode):
    """By inputs and input kernel, which the stock layer has as well."""
    layer = built(contender.make(go_backwards=True))
    reference, x = contender.reference(layer), normal(4, 5, FEATURES)
    expected = gradients(reference, x)
    actual = gradients(layer, x, mode)
    assert_close(actual["x"], expected["x"], CLOSE)
    (kernel,) = (g for p, g in actual.items() if p.endswith("cell/kernel"))
    (other,) = (g for p, g in expected.items() if p.endswith("cell/kernel"))
    assert_close(kernel, other, CLOSE)


def test_stateful_goes_on_where_it_stopped(contender, make):
    options = {"return_sequences": True, "return_state": True}
    layer = built(make(**options, stateful=True), batch=4)
    whole = same_weights_of_stateful(layer, make(**options))
    x = normal(4, 6, FEATURES)
    expected = arrays_of(whole(x))[0]
    for _ in range(2):
        first, *_ = arrays_of(layer(x[:, :4]))
        second, state, *_ = arrays_of(layer(x[:, 4:]))
        assert_close(first, expected[:, :4], EXACT)
        assert_close(second, expected[:, 4:], EXACT)
        assert_close(state, expected[:, -1], EXACT)
        layer.reset_state()


def same_weights_of_stateful(layer, other):
    other.build((None, None, FEATURES))
    for a, b in zip(layer.trainable_variables, other.trainable_variables):
        b.assign(a)
    return other


@compiled("dense", "gru")
@pytest.mark.costly
def test_stateful_trains(make):
    model = keras.Sequential(
        [
            keras.Input((5, FEATURES), batch_size=4),
            make(stateful=True),
            keras.layers.Dense(1),
        ]
    )
    model.compile(keras.optimizers.Adam(1e-4), "mse")
    before = arrays_of(model.trainable_variables)
    x = normal(8, 5, FEATURES)
    losses = model.fit(
        x, x[:, -1, :1], batch_size=4, epochs=2, shuffle=False, verbose=0
    ).history["loss"]
    assert np.isfinite(losses).all()
    for old, new in zip(before, arrays_of(model.trainable_variables)):
        assert not np.array_equal(old, new)


def test_stateful_needs_its_batch_size(make):
    layer = built(make(stateful=True), batch=4)
    layer(normal(4, 5, FEATURES))
    before = arrays_of(layer.states)
    error, message = ValueError, "(?s)batch size.*Received"
    if KERAS < (3, 12):
        # It does not look: the backend cannot add the two batches.
        error, message = Exception, None
    with pytest.raises(error, match=message):
        layer(normal(3, 5, FEATURES))
    assert_equal(layer.states, before, 0.0)


def test_mask_of_a_masking_layer(contender, make):
    """A mask that comes along with the input, and goes on with sequences."""
    x = normal(4, 5, FEATURES)
    x[~MASK] = 0.0
    layer = built(make(return_sequences=True))
    masking = keras.layers.Masking(dtype="float64")
    expected = layer(x, mask=ops.convert_to_tensor(MASK))
    assert_equal(layer(masking(x)), expected)
    model = keras.Sequential([keras.Input((None, FEATURES)), masking, layer])
    model.add(contender.reference(built(make(), features=UNITS)))
    last = model.layers[-1](expected, mask=ops.convert_to_tensor(MASK))
    assert_equal(model(x), last)


def test_masks_go_on_where_stock_layers_drop_them(make, monkeypatch):
    """As from Keras 3.16 on, with a warning; a layer behind needs it."""
    init = keras.layers.RNN.__init__

    def drops_masks(self, *args, **kwargs):
        init(self, *args, **kwargs)
        self.supports_masking = False

    monkeypatch.setattr(keras.layers.RNN, "__init__", drops_masks)
    x = normal(4, 5, FEATURES)
    x[~MASK] = 0.0
    layer = built(make(return_sequences=True, return_state=True))
    outputs, *_ = layer(keras.layers.Masking(dtype=DTYPE)(x))
    mean = keras.layers.GlobalAveragePooling1D(dtype=DTYPE)
    # Of a sequence that is masked as a whole there is no mean.
    some = MASK.any(axis=1)
    found, expected = mean(outputs), mean(outputs * 1.0, mask=MASK)
    found, expected = map(ops.convert_to_numpy, (found, expected))
    assert_equal(found[some], expected[some])


def test_attributes_that_are_set_later(contender, make):
    """Regularizers before it is built, freezing and policies at any time."""
    layer, x = make(), normal(4, 5, FEATURES)
    layer.cell.recurrent_regularizer = keras.regularizers.L2(2.0)
    built(layer)
    matrix = ops.convert_to_numpy(layer.matrix())
    expected = 2.0 * np.sum(matrix**2)
    assert_close(float(sum(layer.losses)), expected, CLOSE)
    number = len(layer.trainable_variables)
    layer.trainable = False
    assert not layer.trainable_variables
    layer.trainable = True
    assert len(layer.trainable_variables) == number
    expected = arrays_of(layer(x))[0]
    layer.dtype_policy = keras.dtype_policies.get("mixed_bfloat16")
    output = layer(x)
    assert helpers.dtype_of(output) == "bfloat16"
    assert_close(ops.convert_to_numpy(ops.cast(output, DTYPE)), expected, 0.05)


def test_bidirectional(contender, make):
    layer = built(keras.layers.Bidirectional(make(return_sequences=True)))
    forward = contender.reference(layer.forward_layer)
    backward = contender.reference(layer.backward_layer)
    # Keras makes new layers of their configurations.
    reference = keras.layers.Bidirectional(forward, backward_layer=backward)
    reference.build((None, None, FEATURES))
    reference.forward_layer.set_weights(forward.get_weights())
    reference.backward_layer.set_weights(backward.get_weights())
    x, mask = normal(4, 5, FEATURES), ops.convert_to_tensor(MASK)
    assert_equal(layer(x), reference(x))
    assert_equal(layer(x, mask=mask), reference(x, mask=mask))


@pytest.mark.parametrize("masked", BOOLEANS)
def test_the_cell_in_a_plain_rnn(contender, make, masked):
    layer = built(make(return_sequences=True, return_state=True))
    plain = keras.layers.RNN(
        layer.cell, return_sequences=True, return_state=True
    )
    x, options = normal(4, 5, FEATURES), call_options(contender, masked, True)
    assert_equal(plain(x, **options), layer(x, **options))


def test_stacked_cells(make):
    first = built(make(return_sequences=True, return_state=True))
    second = built(make(return_sequences=True, return_state=True), UNITS)
    stacked = keras.layers.RNN(
        [first.cell, second.cell],
        return_sequences=True,
        return_state=True,
    )
    x = normal(4, 5, FEATURES)
    middle, *state = first(x)
    outputs, *last = second(middle)
    assert_equal(stacked(x), [outputs, state, last])


@compiled("dense", "fallback", "gru")
@pytest.mark.costly
def test_dynamic_shapes(make):
    layer = built(make())
    inputs = keras.Input((None, FEATURES))
    model = keras.Model(inputs, layer(inputs))
    assert model.output.shape == (None, UNITS)
    for batch, time in ((2, 3), (3, 20), (1, 1)):
        x = normal(batch, time, FEATURES)
        actual = model.predict(x, batch_size=batch, verbose=0)
        assert_close(actual, arrays_of(layer(x))[0], EXACT)


def test_dropout_is_off_at_inference_and_seeded_in_training(make):
    plain = built(make(return_sequences=True))
    x, dropout = normal(4, 5, FEATURES), {"dropout": 0.4, "seed": 7}
    dropout["recurrent_dropout"] = 0.3
    layers = [make(return_sequences=True, **dropout) for _ in range(2)]
    layers.append(make(return_sequences=True, **dropout, unroll=True))
    for layer in layers:
        layer.build((None, None, FEATURES))
        for a, b in zip(plain.trainable_variables, layer.trainable_variables):
            b.assign(a)
        assert_equal(layer(x), plain(x))
    outputs = [arrays_of(layer(x, training=True))[0] for layer in layers]
    assert np.max(np.abs(outputs[0] - arrays_of(plain(x))[0])) > 0.01
    assert_close(outputs[1], outputs[0], 0.0)
    # The same masks through the other loop.
    assert_close(outputs[2], outputs[0], EXACT)
    again = arrays_of(layers[0](x, training=True))[0]
    assert np.max(np.abs(again - outputs[0])) > 0.01
    assert layers[0].dropout == 0.4
    assert layers[0].recurrent_dropout == 0.3


def test_dropout_of_everything(contender, make):
    """All inputs dropped: they count no more. All states: nor does R."""
    x = normal(4, 5, FEATURES)
    almost = 1 - 1e-12
    layer = built(make(return_sequences=True, dropout=almost))
    assert_equal(layer(x, training=True), layer(np.zeros_like(x)))
    layer = built(make(return_sequences=True, recurrent_dropout=almost))
    without = contender.reference(layer)
    kernel = without.cell.recurrent_kernel
    kernel.assign(ops.zeros(kernel.shape))
    assert_equal(layer(x, training=True), without(x))


def test_gradients_with_dropout_equal_those_of_the_unrolled_loop(make):
    options = {"dropout": 0.4, "recurrent_dropout": 0.3, "seed": 7}
    layer = built(make(**options))
    unrolled = same_weights(layer, make(**options, unroll=True))
    x = normal(4, 5, FEATURES)
    expected = {
        path.removeprefix(unrolled.name): gradient
        for path, gradient in gradients(unrolled, x, training=True).items()
    }
    for path, gradient in gradients(layer, x, training=True).items():
        path = path.removeprefix(layer.name)
        assert_close(gradient, expected[path], CLOSE)


def test_config_round_trip(make):
    layer = make(
        return_sequences=True,
        return_state=True,
        go_backwards=True,
        zero_output_for_mask=True,
        dropout=0.1,
        recurrent_dropout=0.2,
        seed=3,
        use_bias=False,
        name="mine",
        kernel_regularizer="l2",
        kernel_constraint="max_norm",
    )
    data = keras.saving.serialize_keras_object(layer)
    again = keras.saving.deserialize_keras_object(data)
    assert type(again) is type(layer)
    assert again.get_config() == layer.get_config()
    for key in ("return_sequences", "go_backwards", "zero_output_for_mask"):
        assert getattr(again, key)
    assert again.cell.get_config() == layer.cell.get_config()
    weights = shaken(built(layer)).get_weights()
    again.build((None, None, FEATURES))
    again.set_weights(weights)
    x = normal(4, 5, FEATURES)
    assert_equal(again(x), layer(x), 0.0)


@pytest.mark.parametrize("kind", ("bidirectional", "stacked"))
@compiled("low_rank", "lstm")
def test_saved_and_loaded_within_another(make, kind, tmp_path):
    check_saved_and_loaded(make, kind, tmp_path)


def test_saved_and_loaded(make, tmp_path):
    check_saved_and_loaded(make, "plain", tmp_path)


def check_saved_and_loaded(make, kind, tmp_path):
    """The model around the layer gives the same to the last bit."""
    part = {
        "plain": lambda: make(),
        "bidirectional": lambda: keras.layers.Bidirectional(make()),
        "stacked": lambda: keras.layers.RNN([make().cell, make().cell]),
    }[kind]()
    inputs = keras.Input((None, FEATURES))
    model = shaken(keras.Model(inputs, part(inputs)))
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert_equal(again.get_weights(), model.get_weights(), 0.0)
    x = normal(4, 5, FEATURES)
    # One and the same model rounds anew when JAX has compiled it anew.
    tolerance = EXACT if BACKEND == "jax" else 0.0
    assert_equal(again(x), model(x), tolerance)


def test_frozen_from_the_start(make):
    layer = built(make(trainable=False))
    assert not layer.trainable_variables


@pytest.mark.costly(keep=4)
def test_training_moves_every_weight(make):
    """One step of Adam, whose size does not depend on the gradient's."""
    layer = make(return_sequences=True)
    model = keras.Sequential([keras.Input((None, FEATURES)), layer])
    # Not as a graph: compiling one takes most of the time.
    eager = BACKEND != "jax"
    model.compile(keras.optimizers.Adam(0.003), "mse", run_eagerly=eager)
    for variable in model.trainable_variables:
        # Made orthogonal after the step, an entry may end where it was.
        variable.constraint = None
    before = [ops.convert_to_numpy(v) for v in model.trainable_variables]
    x, y = normal(8, 9, FEATURES), normal(8, 9, UNITS)
    model.fit(x, y, verbose=0)
    for old, variable in zip(before, model.trainable_variables, strict=True):
        step = np.abs(ops.convert_to_numpy(variable) - old)
        if "reflectors" in variable.path:
            # Packed: what lies below the diagonal is no weight.
            assert not np.any(np.tril(step, -1)), variable.path
            weights = step[np.triu_indices_from(step)]
            # A last reflector of one entry is a sign.
            square = step.shape[0] == step.shape[1]
            step = weights[:-1] if square else weights
        assert np.all(step > 1e-4), variable.path


@compiled("low_rank", "gru")
@pytest.mark.costly
def test_learns_in_a_compiled_model(make):
    model = keras.Sequential(
        [keras.Input((None, FEATURES)), make(), keras.layers.Dense(1)]
    )
    model.compile(
        keras.optimizers.Adam(0.02), "mse", jit_compile=BACKEND != "torch"
    )
    x = normal(32, 3, FEATURES)
    losses = model.fit(x, x[:, 1:2, 0], epochs=10, verbose=0).history["loss"]
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.costly(keep=2)
def test_integers_and_booleans_are_cast(contender, make):
    """As stock layers do: sequences, initial states and masks."""
    layer = built(make(return_sequences=True))
    plain = keras.layers.RNN(layer.cell, return_sequences=True)
    reference = contender.reference(layer)
    state = keras.tree.map_structure(lambda t: t > 0, contender.state())
    state = keras.tree.map_structure(lambda t: ops.cast(t, "int32"), state)
    counts = np.random.default_rng(0).integers(0, 4, size=(4, 5, FEATURES))
    for dtype in ("int32", "bool"):
        x = counts.astype(dtype)
        expected = layer(x.astype(DTYPE))
        assert_equal(layer(x), expected)
        assert_equal(layer(ops.convert_to_tensor(x)), expected)
        assert_equal(reference(x), expected)
        assert_equal(plain(x), expected)
        mask = ops.convert_to_tensor(MASK.astype(dtype))
        options = {} if BACKEND == "jax" else {"initial_state": state}
        outputs = layer(x, mask=mask, **options)
        mask = ops.convert_to_tensor(MASK)
        assert_equal(outputs, reference(x, mask=mask, **options))
    dropped = same_weights(layer, make(return_sequences=True, dropout=0.4))
    assert_equal(dropped(counts), layer(counts))
    assert np.isfinite(arrays_of(dropped(counts, training=True))[0]).all()


@helpers.slow_but_on_torch
def test_integers_in_a_compiled_model(make):
    counts = np.random.default_rng(0).integers(0, 4, size=(4, 5, FEATURES))
    dropped = make(return_sequences=True, dropout=0.4)
    inputs = keras.Input((None, FEATURES), dtype="int32")
    model = keras.Sequential([inputs, dropped])
    model.compile("sgd", "mse", jit_compile=BACKEND != "torch")
    model.fit(counts, normal(4, 5, UNITS), verbose=0)
    expected = arrays_of(dropped(counts.astype(DTYPE)))[0]
    assert_close(model.predict(counts, verbose=0), expected, CLOSE)


def test_complex_and_empty_sequences(make):
    layer = built(make())
    for x in (
        ops.convert_to_tensor(np.ones((2, 5, FEATURES), "complex64")),
        np.ones((2, 0, FEATURES)),
    ):
        with pytest.raises(ValueError, match="(?s)`sequences`.*Received"):
            layer(x)


def test_input_without_features_or_time(make):
    layer = built(make())
    for shape in ((2, 5), (2, 5, FEATURES, 1)):
        with pytest.raises(ValueError, match="expected ndim=3"):
            layer(np.ones(shape))


@compiled("dense", "fallback", "lstm")
@pytest.mark.costly(keep=3)
def test_usable_after_an_exception(contender, make, mode):
    options = {"dropout": 0.4, "recurrent_dropout": 0.3, "seed": 7}
    layer = built(make(**options))
    x = normal(4, 5, FEATURES)
    expected = arrays_of(layer(x))[0]

    def run(f, x):
        # Keras' seeds of dropout are lost in a plain `jit`.
        return f(x) if mode == "jit" else helpers.evaluate(f, x, mode=mode)

    with pytest.raises(Exception):  # noqa: B017, as each backend's differs
        run(lambda x: layer(x, training=True), normal(2, 5, FEATURES + 1))
    assert_equal(run(layer, x), expected)
    assert np.isfinite(arrays_of(layer(x, training=True))[0]).all()
    step, _ = layer.cell(x[:, 0], [ops.zeros((4, UNITS))] * contender.states)
    assert_equal(step, layer(x[:, :1]))

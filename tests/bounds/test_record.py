"""The record itself: plain data, checks, report, guesses, every mode."""

import json

import keras
import numpy as np
import pytest
from keras import layers
from keras import ops

from tests import oracles_bounds as oracles
from tests.helpers import assert_close
from tests.helpers import dtype_of
from tests.helpers import evaluate
from tf_spectral.bounds import LayerwiseSmoothness
from tf_spectral.bounds import reading

NORMS = (1, 2, "inf")


def network():
    """Everything that can be in a record, but a heuristic."""
    inputs = layers.Input((6, 6, 2), name="picture")
    x = layers.Conv2D(3, 3, activation="softplus", name="window")(inputs)
    x = layers.Concatenate()([x, layers.AveragePooling2D(3, 1)(inputs)])
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dense(5, name="widen")(x)
    y = layers.Dense(5, activation="tanh", name="bend")(x)
    x = layers.Dropout(0.2)(layers.Add()([x, y]))
    model = keras.Model(inputs, layers.Dense(4, activation="sigmoid")(x))
    model.compile(loss="binary_crossentropy")
    return model


@pytest.mark.parametrize("q", NORMS)
def test_configuration_is_plain_and_complete(q):
    model = network()
    record = LayerwiseSmoothness.from_model(model, q, offset=0.5)
    config = record.get_config()
    assert json.loads(json.dumps(config)) == config
    copies = [
        LayerwiseSmoothness.from_config(config),
        keras.saving.deserialize_keras_object(
            json.loads(json.dumps(keras.saving.serialize_keras_object(record)))
        ),
    ]
    expected = record.squared_bounds(model.trainable_variables)
    for copy in copies:
        assert copy.get_config() == config
        assert copy.certified and copy.needed_norms == record.needed_norms
        assert copy.names == record.names and copy.shapes == record.shapes
        found = copy.squared_bounds(model.trainable_variables)
        assert np.array_equal(
            ops.convert_to_numpy(found), ops.convert_to_numpy(expected)
        )


def test_a_record_does_not_share_its_nodes():
    record = LayerwiseSmoothness.from_model(network())
    config = record.get_config()
    config["nodes"][0]["bound"] = 1e9
    config["loss"]["d1"] = 1e9
    assert record.get_config()["nodes"][0]["bound"] < 100
    assert record.get_config()["loss"]["d1"] < 100


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("q", NORMS)
def test_every_mode(q, dtype, mode):
    record = LayerwiseSmoothness.from_model(network(), q)
    norms = np.linspace(0.5, 2.0, len(record.shapes)).astype(dtype)
    found = evaluate(record.squared_bounds_from_norms, norms, mode=mode)
    assert dtype_of(found) == dtype
    # Plain floats run through NumPy alone.
    expected = record._evaluate(lambda i: float(norms[i]))
    assert isinstance(expected, np.ndarray)
    assert_close(found, expected, 1e-12 if dtype == "float64" else 1e-6)


def test_constant_records_in_every_mode(mode):
    model = keras.Sequential([layers.Input((3,)), layers.Dense(2)])
    record = LayerwiseSmoothness.from_model(model, loss="log_cosh")
    assert record.needed_norms == ()
    found = evaluate(
        record.squared_bounds_from_norms, np.zeros(2, "float32"), mode=mode
    )
    assert_close(found, [2.5, 1.5], 1e-6)


def test_half_precision_is_computed_in_float32():
    model = keras.Sequential([layers.Input((3,)), layers.Dense(2)])
    record = LayerwiseSmoothness.from_model(model, loss="log_cosh")
    norms = ops.zeros((2,), "bfloat16")
    assert dtype_of(record.squared_bounds_from_norms(norms)) == "float32"


def test_only_needed_norms_are_read():
    model = keras.Sequential([layers.Input((3,))])
    for units in (4, 5, 2):
        model.add(layers.Dense(units, activation="tanh"))
    record = LayerwiseSmoothness.from_model(model, loss="mse")
    assert record.needed_norms == (2, 4)
    some = [None, None, 1.5, None, 0.5, None]
    some = [x and ops.convert_to_tensor(x, "float32") for x in some]
    norms = np.array([np.nan, np.nan, 1.5, np.nan, 0.5, np.nan], "float32")
    found = record.squared_bounds_from_norms(some)
    assert np.array_equal(
        ops.convert_to_numpy(found),
        ops.convert_to_numpy(record.squared_bounds_from_norms(norms)),
    )
    assert np.all(np.isfinite(ops.convert_to_numpy(found)))


@pytest.mark.parametrize("q", NORMS)
def test_norms_of_variables_are_bounds(q):
    model = network()
    record = LayerwiseSmoothness.from_model(model, q)
    exact = [
        oracles.norm(ops.convert_to_numpy(v), q)
        for v in model.trainable_variables
    ]
    exact = ops.convert_to_numpy(
        record.squared_bounds_from_norms(np.array(exact))
    )
    found = record.squared_bounds(model.trainable_variables)
    assert dtype_of(found) == "float32"
    ratio = ops.convert_to_numpy(found) / exact
    # Within 10% in each of at most three norms, squared.
    assert np.all(ratio > 1 - 1e-5) and np.all(ratio < 1.8)


def test_other_variables_are_refused():
    record = LayerwiseSmoothness.from_model(network())
    other = keras.Sequential([layers.Input((3,)), layers.Dense(7)])
    with pytest.raises(ValueError, match="other variables") as caught:
        record.squared_bounds(other.trainable_variables)
    message = str(caught.value)
    assert "window/kernel (3, 3, 2, 3)" in message
    assert "dense/kernel (3, 7)" in message.replace("dense_1", "dense")
    record.check(network().trainable_variables)
    with pytest.raises(ValueError, match="other variables"):
        record.check(network().trainable_variables[:-1])


def test_report_says_what_was_assumed():
    report = LayerwiseSmoothness.from_model(network(), 2).report()
    for text in (
        "norm 2, offset 1, certified",
        "binary_crossentropy, d1 = 0.5, d2 = 0.0625",
        "picture",
        "Conv2D",
        "softplus",
        "bend",
        "0.7698",
        "sup|f|",
        "by weights",
    ):
        assert text in report, text
    window = next(x for x in report.splitlines() if x.startswith("window"))
    assert window.split()[-2] == "9"
    model = keras.Sequential([layers.Input((3,)), layers.Dense(2, "tanh")])
    report = LayerwiseSmoothness.from_model(model, loss="mse").report()
    assert "errors up to 2" in report


# Records by hand.


NODES = [
    {
        "kind": "input",
        "layer": "x",
        "label": "input",
        "shape": [2],
        "parents": [],
        "doubt": None,
        "starts": [],
        "bound": 3.0,
    },
    {
        "kind": "scale",
        "layer": "y",
        "label": "by hand",
        "shape": [2],
        "parents": [0],
        "doubt": None,
        "starts": [[0, True, 2.0]],
        "factor": 1.0,
        "shift": 0.0,
        "ceiling": None,
    },
]
LOSS = {
    "kind": "by hand",
    "d1": 1.0,
    "d2": 0.5,
    "residual": None,
    "doubt": None,
}


def test_a_record_by_hand():
    record = LayerwiseSmoothness(NODES, [(2, 2)], loss=LOSS)
    p2 = record.squared_bounds_from_norms(np.zeros(1))
    assert_close(ops.convert_to_numpy(p2), [1 + 0.5 * 36], 1e-12)


def changed(node, **entries):
    nodes = [dict(n) for n in NODES]
    nodes[node].update(entries)
    return nodes


@pytest.mark.parametrize(
    "nodes,shapes,loss,message",
    [
        (changed(0, kind="magic"), [(2, 2)], LOSS, "unknown kind"),
        (changed(1, parents=[1]), [(2, 2)], LOSS, "after its parents"),
        (NODES, [(2, 2), (2,)], LOSS, "each variable of `shapes` start"),
        (NODES, [], LOSS, "each variable of `shapes` start"),
        (NODES, [(2, 2)], None, "positive bounds d1, d2"),
        (NODES, [(2, 2)], {**LOSS, "d2": 0.0}, "positive bounds d1, d2"),
    ],
)
def test_records_by_hand_are_checked(nodes, shapes, loss, message):
    with pytest.raises(ValueError, match=message):
        LayerwiseSmoothness(nodes, shapes, loss=loss)


# Guesses from variables.


@pytest.mark.parametrize("q", NORMS)
def test_the_guess_is_exact_for_tanh_and_logits(q):
    model = keras.Sequential([layers.Input((6,))])
    for units in (5, 4):
        model.add(layers.Dense(units, activation="tanh"))
    model.add(layers.Dense(3))
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    exact = LayerwiseSmoothness.from_model(model, q, loss=loss)
    variables = model.trainable_variables
    values = [ops.convert_to_tensor(v) for v in variables]
    norms = np.linspace(0.5, 2.0, 6)
    expected = exact.squared_bounds_from_norms(norms)
    for given in (variables, values):
        guess = LayerwiseSmoothness.from_variables(given, q)
        assert not guess.certified
        assert guess.needed_norms == exact.needed_norms
        assert_close(
            ops.convert_to_numpy(guess.squared_bounds_from_norms(norms)),
            ops.convert_to_numpy(expected),
            1e-9,
        )
    assert "guessed" in guess.report()


class Named:
    def __init__(self, path, *shape):
        self.path, self.shape = path, shape


def test_groups_of_variables():
    def sizes(*variables):
        return [len(group) for _, group in reading._group_by_layer(variables)]

    kernel = Named("a/kernel", 3, 3)
    bias = Named("a/bias", 3)
    recurrent = Named("a/recurrent_kernel", 3, 3)
    assert sizes(kernel, recurrent, bias, Named("b/kernel", 3, 2)) == [3, 1]
    # Paths repeat in a Bidirectional layer that was loaded.
    assert sizes(kernel, bias, kernel, bias) == [2, 2]
    bare = [Named("", 3, 3), Named("", 3), Named("", 3, 2), Named("", 2, 2)]
    assert sizes(*bare) == [2, 1, 1]
    assert sizes(Named("", 3), Named("", 3, 3)) == [1, 1]


def test_any_variable_gets_a_bound():
    inputs = layers.Input((5, 3))
    x = layers.Bidirectional(layers.LSTM(4, return_sequences=True))(inputs)
    x = layers.LayerNormalization()(x)
    x = layers.Conv1D(3, 2)(x)
    model = keras.Model(inputs, layers.Dense(2)(x))
    variables = [*model.trainable_variables, keras.Variable(1.0)]
    for q in NORMS:
        record = LayerwiseSmoothness.from_variables(variables, q)
        p2 = ops.convert_to_numpy(record.squared_bounds(variables))
        assert p2.shape == (len(variables),)
        assert np.all(np.isfinite(p2)) and np.all(p2 > 1.0)
        config = record.get_config()
        assert LayerwiseSmoothness.from_config(config).get_config() == config

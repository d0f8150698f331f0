"""The record itself: plain data, checks, report, guesses, every mode."""

import json

import keras
import numpy as np
import pytest
from keras import layers
from keras import ops

from tests import oracles_bounds as oracles
from tests.bounds.cases import CROSSENTROPY
from tests.bounds.cases import NORMS
from tests.bounds.cases import dense
from tests.bounds.cases import quiet
from tests.helpers import MODES
from tests.helpers import assert_close
from tests.helpers import dtype_of
from tests.helpers import evaluate
from tf_spectral.bounds import LayerwiseSmoothness


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


def test_infinity_is_the_name_of_a_norm():
    model = network()
    named = LayerwiseSmoothness.from_model(model, "inf")
    for norm in (np.inf, float("inf"), np.float32("inf")):
        record = LayerwiseSmoothness.from_model(model, norm)
        assert record.norm == "inf"
        assert record.get_config() == named.get_config()
        guess = LayerwiseSmoothness.from_variables(
            model.trainable_variables, norm
        )
        assert guess.norm == "inf"


def test_a_record_does_not_share_its_nodes():
    record = LayerwiseSmoothness.from_model(network())
    config = record.get_config()
    config["nodes"][0]["bound"] = 1e9
    config["loss"]["d1"] = 1e9
    assert record.get_config()["nodes"][0]["bound"] < 100
    assert record.get_config()["loss"]["d1"] < 100


def test_every_mode(mode):
    for q in NORMS if mode == MODES[0] else (2,):
        record = LayerwiseSmoothness.from_model(network(), q)
        for dtype, tolerance in (("float64", 1e-12), ("float32", 1e-6)):
            norms = np.linspace(0.5, 2.0, len(record.shapes)).astype(dtype)
            found = evaluate(record.squared_bounds_from_norms, norms, mode=mode)
            assert dtype_of(found) == dtype
            # Plain floats run through NumPy alone.
            expected = record._evaluate(norms.tolist().__getitem__)
            assert isinstance(expected, np.ndarray)
            assert_close(found, expected, tolerance)


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


def test_what_a_notebook_shows():
    record = LayerwiseSmoothness.from_model(network(), "inf")
    weights = len(network().trainable_variables)
    shown = f"{weights} weights, norm='inf', certified=True>"
    assert repr(record).endswith(shown)


def test_masks_are_called_so():
    """Not by the operations that make them, which nobody has written."""
    model = keras.Sequential(
        [
            layers.Input((4,)),
            layers.Embedding(9, 3, mask_zero=True),
            layers.GlobalAveragePooling1D(),
            layers.Dense(2),
        ]
    )
    record = quiet(model, loss=CROSSENTROPY)
    reasons = [why for name, why in record.doubts() if "embed" not in name]
    assert reasons == ["no theory for masks", "no theory for this layer"]


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


# Data that are to keep to the record.


def test_inputs_are_checked_against_the_record():
    first, second = layers.Input((3,), name="a"), layers.Input((2,), name="b")
    tokens = layers.Input((2,), dtype="int32", name="tokens")
    embedded = layers.Flatten()(layers.Embedding(9, 2)(tokens))
    x = layers.Concatenate()([first, second, embedded])
    model = keras.Model([first, second, tokens], layers.Dense(2)(x))
    record = LayerwiseSmoothness.from_model(
        model,
        2,
        loss=CROSSENTROPY,
        input_norm={"a": 2.0, "b": None, "tokens": None},
    )
    rng = np.random.default_rng(0)
    a, b = rng.uniform(-1, 1, (2, 4, 3))
    data = {"a": a, "b": b[:, :2], "tokens": np.full((4, 2), 8)}
    for again in (record, LayerwiseSmoothness(**record.get_config())):
        again.check_inputs(data)
        again.check_inputs([data["a"], data["b"], data["tokens"]])
        for name, value in (("a", 2.1), ("b", -1.5), ("b", np.nan)):
            poison = {k: np.array(v, "float64") for k, v in data.items()}
            poison[name][2] = value
            with pytest.raises(ValueError, match=rf"'{name}'.*x\[2\]"):
                again.check_inputs(poison)
        for wrong in (a, [a], {"a": a}):
            with pytest.raises(ValueError, match="`x` must"):
                again.check_inputs(wrong)
        with pytest.raises(ValueError, match="real numbers"):
            again.check_inputs({**data, "a": np.full((4, 3), "x")})


def test_inputs_of_every_kind_are_checked():
    record = quiet(dense("tanh", None, width=2), 2, loss=CROSSENTROPY)
    for good in (np.ones((2, 2), bool), ops.ones((1, 2), "bfloat16"), [[0, 1]]):
        record.check_inputs(good)
    for bad in (1.0, None, np.ones((2, 2), complex), np.full((2, 2), "x")):
        with pytest.raises(ValueError, match="`x` must hold real numbers"):
            record.check_inputs(bad)

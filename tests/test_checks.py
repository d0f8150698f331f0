"""One rule for each kind of argument, and the errors that name it."""

import datetime
import decimal
import fractions
import json
import math
import pathlib

import keras
import ml_dtypes
import numpy as np
import pytest
from keras import ops

from tf_spectral import checks

NAN, INF, HUGE = math.nan, math.inf, 10**400
NO_NUMBERS = [
    None,
    True,
    np.bool_(True),
    NAN,
    HUGE,
    -HUGE,
    10**5000,
    np.float64(NAN),
    "x",
    "",
    "2",
    b"x",
    [],
    {},
    [1],
    1j,
    np.complex64(1),
    np.array([1.0, 2.0]),
    np.array([2]),
    np.array(True),
    np.array("x"),
    np.array(None),
    np.datetime64("2020"),
    datetime.date(2020, 1, 1),
    decimal.Decimal(2),
    object(),
    len,
    int,
    keras.KerasTensor(()),
]

# (rule, what it takes with what it makes of it, what it refuses)
RULES = [
    (
        checks.boolean,
        [(True, True), (np.bool_(False), False)],
        [0, 1, None, "no", NAN, np.int64(1), []],
    ),
    (
        lambda name, value: checks.integer(name, value, 1, 9),
        [(1, 1), (np.int64(9), 9), (np.array(2), 2), (np.uint8(3), 3)],
        [*NO_NUMBERS, 0, 10, -1, 2.0, np.float32(2), INF],
    ),
    (
        lambda name, value: checks.integer(name, value),
        [(-(2**62), -(2**62)), (2**63 - 1, 2**63 - 1)],
        [*NO_NUMBERS, 2**63, 2.5],
    ),
    (
        checks.number,
        [(-1, -1.0), (0.5, 0.5), (np.float32(0.5), 0.5), (1e300, 1e300)],
        [*NO_NUMBERS, INF, -INF],
    ),
    (
        checks.positive,
        [
            (2, 2.0),
            (fractions.Fraction(1, 2), 0.5),
            (np.array(3), 3.0),
            (ml_dtypes.bfloat16(2), 2.0),
            (1e30, 1e30),
        ],
        [*NO_NUMBERS, 0, -0.0, -1, INF, 1e-320, 1e39, np.float64(1e300)],
    ),
    (
        checks.non_negative,
        [(0, 0.0), (np.float16(1), 1.0)],
        [*NO_NUMBERS, -1e-9, INF, 1e39],
    ),
    (
        checks.fraction,
        [(0, 0.0), (0.999, 0.999)],
        [*NO_NUMBERS, 1, 1.0, -0.1, INF],
    ),
    (
        lambda name, value: checks.choice(name, value, ("clip", 1, None)),
        [("clip", "clip"), (np.str_("clip"), "clip"), (1, 1), (None, None)],
        [*NO_NUMBERS[1:], "Clip", 1.0, 2],
    ),
    (
        checks.norm,
        [(1, 1), (2.0, 2), (np.int64(2), 2), ("inf", "inf"), (INF, "inf")]
        + [(np.float32(INF), "inf")],
        [*NO_NUMBERS, 3, 1.5, -INF, "2", 0],
    ),
    (
        lambda name, value: checks.shape(name, value, rank=2),
        [((3, 2), (3, 2)), ([np.int64(3), 2], (3, 2)), (range(1, 3), (1, 2))],
        [*NO_NUMBERS[:-1], (3,), (0, 1), (1.0, 2), (HUGE, 1), "ab", {1, 2}]
        + [(True, 2), 3, ((1, 2), 3), keras.KerasTensor((2, 2))],
    ),
    (
        checks.floating_dtype,
        [("float64", "float64"), (np.float32, "float32")]
        + [(None, keras.config.floatx())],
        ["int32", "x", 1, [], {}, NAN, HUGE, object(), int, "bool"],
    ),
    (
        checks.seed,
        [(None, None), (0, 0), (np.int32(7), 7), (2**31 - 1, 2**31 - 1)],
        [*NO_NUMBERS[1:], -1, 2**31, 1.5, keras.random.SeedGenerator(1)],
    ),
    (
        checks.learning_rate,
        [(0, 0.0), (np.float32(0.5), 0.5), (len, len)],
        [None, True, NAN, INF, -1.0, HUGE, "x", {}, float, [0.1]],
    ),
    (
        checks.function,
        [(len, len)],
        [None, 1, "x", []],
    ),
    (
        checks.path,
        [("a", "a"), (pathlib.Path("a", "b"), str(pathlib.Path("a", "b")))],
        [None, "", b"x", 1, True, [], "a\0b", len],
    ),
    (
        checks.local_path,
        [("a/b", "a/b")],
        [None, "", "gs://bucket/a"],
    ),
    (
        checks.optimizer,
        [(None, None)],
        ["x", 1, True, {}, [], {"class_name": "x"}, NAN, object(), "adamm"],
    ),
]


def test_each_rule():
    for rule, taken, refused in RULES:
        for value, wanted in taken:
            result = rule("it", value)
            assert result == wanted and type(result) is type(wanted), value
        for value in refused:
            with pytest.raises(ValueError, match="^Argument `it` must .* Rec"):
                raise AssertionError(f"{rule('it', value)!r} of {value!r}")


def test_results_are_ready_for_a_configuration():
    results = [
        checks.boolean("it", np.bool_(True)),
        checks.integer("it", np.int16(2)),
        checks.positive("it", np.float32(2)),
        checks.norm("it", np.inf),
        checks.shape("it", np.array([2, 3])),
    ]
    assert json.loads(json.dumps(results)) == [True, 2, 2.0, "inf", [2, 3]]


def test_tensors_of_rank_0_are_numbers():
    assert checks.positive("it", ops.convert_to_tensor(2.0)) == 2.0
    assert checks.integer("it", ops.convert_to_tensor(2)) == 2
    with pytest.raises(ValueError, match="`it`"):
        checks.integer("it", ops.convert_to_tensor(2.0))
    with pytest.raises(ValueError, match="`it`"):
        checks.positive("it", ops.convert_to_tensor([2.0]))


def test_messages():
    with pytest.raises(ValueError, match="a positive integer. Expected un"):
        checks.integer("units", 0, 1)
    with pytest.raises(ValueError, match="version <= 9223372036854775807, R"):
        checks.integer("version", 2**63, 1)
    with pytest.raises(ValueError) as error:
        checks.number("it", [0.0] * 1000)
    assert len(str(error.value)) < 400
    with pytest.raises(ValueError, match="it >= 0.0 and it < 1.0, Received: i"):
        checks.fraction("it", 1)
    with pytest.raises(ValueError, match=r"\(1, 2, 'inf'\), Received: it=3"):
        checks.norm("it", 3)
    # The ends of single precision are told to those who are beyond them.
    for value in (0, -1.0, "x", NAN):
        with pytest.raises(ValueError, match="Expected it > 0, Received"):
            checks.positive("it", value)
    with pytest.raises(ValueError, match="Expected it >= 0.0, Received"):
        checks.non_negative("it", -1)
    with pytest.raises(ValueError, match="Expected it >= 1.17.*e-38, Received"):
        checks.positive("it", 1e-40)
    with pytest.raises(
        ValueError, match="Expected it > 0 and it <= 3.40.*e.38, Rec"
    ):
        checks.positive("it", 1e40)


def test_a_generator_for_a_seed_where_asked_for():
    generator = keras.random.SeedGenerator(1)
    assert checks.seed("it", generator, generator=True) is generator

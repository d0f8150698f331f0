"""Public names, values that nobody should pass, and what may come of them."""

import datetime
import decimal
import fractions
import importlib
import inspect
import json
import math
import pathlib
import re
import warnings

import keras
import numpy as np
from keras import ops

DOCS = pathlib.Path(__file__).parents[1] / "docs" / "api.md"

# Functions without arguments, for some hold state.
VALUES = {
    "None": lambda: None,
    "True": lambda: True,
    "-1": lambda: -1,
    "0": lambda: 0,
    "1": lambda: 1,
    "2.5": lambda: 2.5,
    "nan": lambda: math.nan,
    "inf": lambda: math.inf,
    "-inf": lambda: -math.inf,
    "1e30": lambda: 1e30,
    "-0.0": lambda: -0.0,
    "1e-320": lambda: 1e-320,
    "10**400": lambda: 10**400,
    "text": lambda: "x",
    "empty text": lambda: "",
    "text inf": lambda: "inf",
    "text 0.5": lambda: "0.5",
    "bytes": lambda: b"x",
    "empty list": lambda: [],
    "empty dict": lambda: {},
    "empty tuple": lambda: (),
    "list": lambda: [1],
    "pair": lambda: (1, 2),
    "dict": lambda: {"a": 1},
    "set": lambda: {1},
    "object": object,
    "np.int64": lambda: np.int64(2),
    "np.float32": lambda: np.float32(0.5),
    "np.float64 nan": lambda: np.float64(math.nan),
    "np.bool": lambda: np.bool_(True),
    "np.str": lambda: np.str_("x"),
    "array ()": lambda: np.array(2),
    "array (2,)": lambda: np.array([1.0, 2.0]),
    "array of objects": lambda: np.array([None, "x"]),
    "complex": lambda: 1j,
    "Fraction": lambda: fractions.Fraction(1, 2),
    "Decimal": lambda: decimal.Decimal("0.5"),
    "date": lambda: datetime.date(2020, 1, 1),
    "np.datetime64": lambda: np.datetime64("2020"),
    "lambda": lambda: lambda x: x,
    "class": lambda: int,
    "layer": lambda: keras.layers.Dense(2),
    "symbolic": lambda: keras.KerasTensor((2, 2)),
}

# What these do, Keras says; it does not always name the argument.
OF_KERAS = {"name", "dtype", "activity_regularizer", "autocast", "trainable"}


def public_names():
    """Dict from names, as in the documentation, to what they stand for."""
    found = {}
    for name in re.findall(r"^::: tf_spectral\.(\S+)", DOCS.read_text(), re.M):
        module = importlib.import_module(f"tf_spectral.{name}")
        own = [
            key
            for key, value in vars(module).items()
            if getattr(value, "__module__", None) == module.__name__
            and not key.startswith(("_", "check_"))
            and "Args:" in (value.__doc__ or "")
        ]
        names = getattr(module, "__all__", own)
        things = {f"{name}.{key}": getattr(module, key) for key in names}
        found.update(
            {k: thing for k, thing in things.items() if callable(thing)}
        )
    return found


def arguments_of(thing, more=()):
    """Names of the arguments, those within `**kwargs` by other signatures."""
    names = []
    for callable_ in (thing, *more):
        for name, parameter in inspect.signature(callable_).parameters.items():
            kinds = (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
            if parameter.kind not in kinds and name not in names:
                names.append(name)
    return names


def fault_of(run, argument, value, case):
    """What is wrong with how `run(value)` ends, or `None`.

    Args:
        run: Function that calls something public with the value as argument,
            uses the result, and returns numbers that are to be finite.
        argument: String, its name.
        value: One of `VALUES`.
        case: Case of the public name.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            results = run(value)
    except FileNotFoundError as error:
        # Python's own words, with the path.
        return None if str(error.filename) == str(value) else f"{error}"
    except (ValueError, TypeError) as error:
        named = re.search(rf"\b{argument}\b", str(error))
        if named or argument in (*OF_KERAS, *case.data) or passed_on(value):
            return None
        return f"{type(error).__name__} without the name: {error}"[:300]
    except Exception as error:
        return f"{type(error).__name__}: {error}"[:300]
    infinite = isinstance(value, float) and not math.isfinite(value)
    if case.of_tensors and infinite:
        return None
    for result in keras.tree.flatten(results):
        if not isinstance(result, (str, keras.KerasTensor)):
            numbers = ops.convert_to_numpy(result)
            real = numbers.dtype.kind in "fiubc"
            if not real or not np.isfinite(numbers).all():
                return f"not finite: {numbers!r}"[:300]
    return None


def passed_on(value):
    """Whether Keras takes it for a function, and learns more when it calls."""
    array = isinstance(value, np.ndarray) and value.dtype != object
    return array or callable(value)


def round_trip(thing):
    """The same from its configuration, which went through a file."""
    text = json.dumps(keras.saving.serialize_keras_object(thing))
    return keras.saving.deserialize_keras_object(json.loads(text))

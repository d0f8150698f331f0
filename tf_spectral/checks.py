"""What arguments must be: one rule for each kind.

Each function takes the name of an argument and its value, and returns the
value as plain Python, as a configuration needs it: NumPy's scalars become
Python's. A value that will not do raises a `ValueError` that names the
argument. Booleans are no numbers, and numbers are finite.
"""

import contextlib
import math
import numbers
import operator
import os

import keras
import numpy as np
from keras import backend
from keras import ops

# Where floats of single precision end: the first normal one, the last one.
SMALLEST = float(np.finfo("float32").tiny)
LARGEST = float(np.finfo("float32").max)

# The last one whose square it holds: norms and moments are sums of squares.
SQUARABLE = math.sqrt(LARGEST)

# NumPy, TensorFlow and files count with 64 bits.
MOST = 2**63 - 1

# Backends keep seeds in 32 bits, with a sign (PyTorch) or without (JAX).
SEEDS = 2**31

NORMS = (1, 2, "inf")


def refuse(name, must, value, expected=None):
    """Raises the error of an argument that will not do.

    Args:
        name: String, the argument.
        must: String, how "Argument `name` must ..." goes on.
        value: What was received.
        expected: String, examples or choices. Defaults to `None`.

    Raises:
        ValueError: Always.
    """
    expected = f"Expected {expected}, " if expected else ""
    raise ValueError(
        f"Argument `{name}` must {must}. {expected}"
        f"Received: {name}={shown(value)}"
    ) from None


def shown(value):
    """A value for a message: its `repr`, cut where it is long."""
    try:
        text = repr(value)
    except Exception:
        # Python refuses to write integers of more than 4300 digits.
        text = f"<{type(value).__name__}>"
    return text if len(text) <= 400 else f"{text[:200]}...{text[-20:]}"


def boolean(name, value):
    """`True` or `False`; no number stands for them.

    Example:

    >>> import numpy as np
    >>> from tf_spectral.checks import boolean
    >>> boolean("use_bias", np.bool_(True))
    True
    """
    if not isinstance(value, (bool, np.bool_)):
        refuse(name, "be a boolean", value, "True or False")
    return bool(value)


def integer(name, value, minimum=None, maximum=MOST):
    """An integer of Python, NumPy or a tensor `()`, within bounds.

    Example:

    >>> import numpy as np
    >>> from tf_spectral.checks import integer
    >>> integer("units", np.int64(2), minimum=1)
    2
    """
    result = _scalar(value, operator.index)
    least = -MOST if minimum is None else minimum
    if result is None or not least <= result <= maximum:
        kind = {0: "a non-negative integer", 1: "a positive integer"}
        must = kind.get(minimum, "an integer")
        lower = f"{name} >= {minimum}" if minimum is not None else ""
        large = result is not None and result > maximum
        upper = f"{name} <= {maximum}" if large or maximum != MOST else ""
        bounds = " and ".join(filter(None, (lower, upper)))
        refuse(name, f"be {must}", value, bounds or "a number such as 2")
    return result


def is_integer(value):
    """Whether `integer` would take it, whatever its size."""
    return _scalar(value, operator.index) is not None


def number(
    name,
    value,
    minimum=None,
    above=None,
    maximum=None,
    below=None,
    must="be a finite number",
):
    """A finite number of Python, NumPy or a tensor `()`, as a float.

    Args:
        name: String, the argument.
        value: What was received.
        minimum: Float, the least allowed. Defaults to `None`.
        above: Float, that it must exceed. Defaults to `None`.
        maximum: Float, the largest allowed. Defaults to `None`.
        below: Float, that must exceed it. Defaults to `None`.
        must: String, how "Argument `name` must ..." goes on.

    Example:

    >>> import numpy as np
    >>> from tf_spectral.checks import number
    >>> number("center", np.float32(0.5), minimum=0.0)
    0.5
    """
    result = _scalar(value, float)
    if (
        result is None
        or not math.isfinite(result)
        or (minimum is not None and not result >= minimum)
        or (above is not None and not result > above)
        or (maximum is not None and not result <= maximum)
        or (below is not None and not result < below)
    ):
        # Where floats end is news only to those whose number lies beyond.
        if minimum == SMALLEST and not 0 < (result or 0) < SMALLEST:
            minimum, above = None, 0
        if maximum in (LARGEST, SQUARABLE) and not maximum < (result or 0):
            maximum = None
        bounds = (
            (">=", minimum),
            (">", above),
            ("<=", maximum),
            ("<", below),
        )
        words = [
            f"{name} {sign} {bound}"
            for sign, bound in bounds
            if bound is not None
        ]
        refuse(name, must, value, " and ".join(words) or None)
    return result


def positive(name, value, maximum=LARGEST):
    """A positive number that single precision holds, as a float.

    What is smaller than its normal numbers would be zero in a kernel, what is
    larger infinite.

    Args:
        name: String, the argument.
        value: What was received.
        maximum: Float, the largest allowed. Defaults to `LARGEST`.

    Example:

    >>> from tf_spectral.checks import positive
    >>> positive("epsilon", 1e-7)
    1e-07
    """
    return number(
        name,
        value,
        minimum=SMALLEST,
        maximum=maximum,
        must="be a positive, finite number",
    )


def non_negative(name, value, maximum=LARGEST):
    """Zero or a positive number that single precision holds, as a float.

    Args:
        name: String, the argument.
        value: What was received.
        maximum: Float, the largest allowed. Defaults to `LARGEST`.

    Example:

    >>> from tf_spectral.checks import non_negative
    >>> non_negative("strength", 0)
    0.0
    """
    return number(
        name,
        value,
        minimum=0.0,
        maximum=maximum,
        must="be a non-negative, finite number",
    )


def fraction(name, value):
    """A number in [0, 1), as a float: a momentum, a decay, a share.

    Example:

    >>> import numpy as np
    >>> from tf_spectral.checks import fraction
    >>> fraction("momentum", np.float64(0.9))
    0.9
    """
    return number(name, value, 0.0, below=1.0, must="be a number in [0, 1)")


def choice(name, value, choices):
    """One of some strings, numbers or constants, as it stands in `choices`.

    Example:

    >>> from tf_spectral.checks import choice
    >>> choice("mode", "clip", ("clip", "free"))
    'clip'
    """
    choices = tuple(choices)
    for allowed in choices:
        if isinstance(allowed, bool):
            if isinstance(value, (bool, np.bool_)) and value == allowed:
                return allowed
        elif allowed is None or isinstance(allowed, str):
            kind = type(allowed)
            if isinstance(value, kind) and value == allowed:
                return allowed
        elif _scalar(value, operator.index) == allowed:
            return allowed
    refuse(name, "be one of those known", value, f"one of {choices}")


def norm(name, value):
    """The exponent of a norm: 1, 2 or `"inf"`, for which infinity will do.

    Example:

    >>> import numpy as np
    >>> from tf_spectral.checks import norm
    >>> norm("q", np.inf)
    'inf'
    """
    if isinstance(value, str) and value == "inf":
        return "inf"
    exponent = _scalar(value, float)
    if exponent == math.inf:
        return "inf"
    if exponent not in (1.0, 2.0):
        refuse(name, "be the exponent of a norm", value, f"one of {NORMS}")
    return int(exponent)


def shape(name, value, rank=None, minimum=1, repeat=False):
    """A sequence of integers, as a tuple.

    Args:
        name: String, the argument.
        value: What was received.
        rank: Integer, how many there must be, or `None` for any number.
            Defaults to `None`.
        minimum: Integer, the least allowed. Defaults to `1`.
        repeat: Boolean, whether one integer stands for `rank` of them.
            Defaults to `False`.

    Example:

    >>> import numpy as np
    >>> from tf_spectral.checks import shape
    >>> shape("shape", [np.int64(3), 2], rank=2)
    (3, 2)
    """
    if repeat and is_integer(value):
        return (integer(name, value, minimum),) * rank
    sizes = None
    if not isinstance(value, (str, bytes, dict, set, frozenset)):
        with contextlib.suppress(Exception):
            sizes = [_scalar(size, operator.index) for size in value]
    if (
        sizes is None
        or (rank is not None and len(sizes) != rank)
        or any(size is None or not minimum <= size <= MOST for size in sizes)
    ):
        many = "" if rank is None else f"{rank} "
        single = "an integer or " if repeat else ""
        refuse(
            name,
            f"be {single}a tuple of {many}integers",
            value,
            f"integers >= {minimum}",
        )
    return tuple(sizes)


def floating_dtype(name, value):
    """The name of a floating dtype; `None` is that of `keras.config.floatx`.

    Example:

    >>> import numpy as np
    >>> from tf_spectral.checks import floating_dtype
    >>> floating_dtype("dtype", np.float64)
    'float64'
    """
    dtype = None
    with contextlib.suppress(Exception):
        dtype = backend.standardize_dtype(value)
    if not isinstance(dtype, str) or "float" not in dtype:
        refuse(name, "be a floating dtype", value, "one such as 'float32'")
    return dtype


def tensor(name, value, dtype=None):
    """What `keras.ops.convert_to_tensor` makes of numbers.

    Example:

    >>> from tf_spectral.checks import tensor
    >>> tuple(tensor("x", [[1.0, 2.0]]).shape)
    (1, 2)
    """
    kinds = ("float", "int", "bool", "complex")
    result = None
    try:
        result = ops.convert_to_tensor(value, dtype)
        dtype = backend.standardize_dtype(result.dtype)
    except Exception as error:
        raise ValueError(
            f"Argument `{name}` must be a tensor. Expected numbers of one "
            f"dtype and no ragged rows, Received: {name}={shown(value)}"
        ) from error
    symbolic = isinstance(result, keras.KerasTensor)
    if symbolic or not any(kind in dtype for kind in kinds):
        refuse(name, "be a tensor of numbers", value)
    return result


def seed(name, value, generator=False):
    """An integer that every backend takes for a seed; `None` stays.

    Args:
        name: String, the argument.
        value: What was received.
        generator: Boolean, whether a `keras.random.SeedGenerator` will do,
            too. Defaults to `False`.

    Example:

    >>> import numpy as np
    >>> from tf_spectral.checks import seed
    >>> seed("seed", np.int64(7))
    7
    """
    if value is None:
        return None
    if generator and isinstance(value, keras.random.SeedGenerator):
        return value
    return integer(name, value, minimum=0, maximum=SEEDS - 1)


def function(name, value):
    """Something to be called.

    Example:

    >>> from tf_spectral.checks import function
    >>> function("make", max) is max
    True
    """
    if not callable(value):
        refuse(name, "be callable", value, "a function")
    return value


def sequence(name, value, length=None, of=""):
    """A list or tuple, as a list.

    Args:
        name: String, the argument.
        value: What was received.
        length: Integer, how many items there must be, or `None` for any
            number. Defaults to `None`.
        of: String, what the items are, for the message. Defaults to none.

    Example:

    >>> from tf_spectral.checks import sequence
    >>> sequence("names", ("kernel", "bias"))
    ['kernel', 'bias']
    """
    right = isinstance(value, (list, tuple))
    if not right or (length is not None and len(value) != length):
        many = "" if length is None else f" of {length} items"
        refuse(name, f"be a list{many}{of}", value)
    return list(value)


def instance(name, value, kinds, expected):
    """An object of some classes.

    Args:
        name: String, the argument.
        value: What was received.
        kinds: Class, or tuple of classes.
        expected: String, what these are for a user.

    Example:

    >>> from tf_spectral.checks import instance
    >>> instance("columns", {}, dict, "a dictionary")
    {}
    """
    if not isinstance(value, kinds):
        refuse(name, f"be {expected}", value)
    return value


def path(name, value):
    """A path to a file or folder, as a string.

    Example:

    >>> import pathlib
    >>> from tf_spectral.checks import path
    >>> path("path", pathlib.Path("run.csv"))
    'run.csv'
    """
    text = None
    if isinstance(value, (str, os.PathLike)):
        text = os.fspath(value)
    if not isinstance(text, str) or not text or "\0" in text:
        refuse(name, "be a path", value, "a string or a `pathlib.Path`")
    return text


def local_path(name, value):
    """A path to a file or folder of this machine, as a string.

    Example:

    >>> from tf_spectral.checks import local_path
    >>> local_path("folder", "run/backup")
    'run/backup'
    """
    text = path(name, value)
    if "://" in text:
        refuse(name, "be a local path", value, "one without ://")
    return text


def data(name, value):
    """Arrays or tensors with an axis of examples, in any structure.

    Example:

    >>> import numpy as np
    >>> from tf_spectral.checks import data
    >>> data("x", {"image": np.ones((2, 3))})["image"].shape
    (2, 3)
    """
    leaves = None
    with contextlib.suppress(Exception):
        leaves = keras.tree.flatten(value)
    if not leaves or not all(len(getattr(x, "shape", ())) for x in leaves):
        refuse(name, "be data", value, "an array of examples, or several")
    if any(isinstance(x, keras.KerasTensor) for x in leaves):
        refuse(name, "be data", value, "an array of examples, or several")
    return value


def found(name, value, get, expected):
    """What one of Keras' functions `get` makes of an argument, or `None`.

    Those raise errors of many kinds and name no argument, and return what
    cannot be called.

    Args:
        name: String, the argument.
        value: What was received.
        get: Function such as `keras.regularizers.get`.
        expected: String, what is found so.

    Example:

    >>> import keras
    >>> from tf_spectral.checks import found
    >>> found("f", "relu", keras.activations.get, "an activation").__name__
    'relu'
    """
    result = cause = None
    try:
        result = get(value)
    except Exception as error:
        cause = error
    bad = isinstance(result, type) or not callable(result)
    if cause or (bad and result is not None):
        raise ValueError(
            f"Argument `{name}` must be {expected}. "
            f"Received: {name}={shown(value)}"
        ) from cause
    return result


def activation(name, value):
    """A function from a name, a configuration or itself; `None` is linear."""
    return found(name, value, keras.activations.get, "a Keras activation")


def regularizer(name, value):
    """A Keras regularizer from a name, a configuration or itself."""
    return found(name, value, keras.regularizers.get, "a Keras regularizer")


def initializer(name, value, known=()):
    """A Keras initializer from a name, a configuration, an array or itself.

    Names in `known` are for a message: what the caller takes beside Keras'.
    """
    if isinstance(value, np.generic) and not isinstance(value, str):
        refuse(name, "be a Keras initializer", value)
    if isinstance(value, np.ndarray):
        tensor(name, value)
    names = "".join(f'"{own}" or ' for own in known)
    expected = f"{names}a Keras initializer"
    return found(name, value, keras.initializers.get, expected)


def constraint(name, value):
    """A Keras constraint from a name, a configuration or itself."""
    return found(name, value, keras.constraints.get, "a Keras constraint")


def optimizer(name, value):
    """A Keras optimizer, or `None`, from what `compile` would take."""
    if value is None or isinstance(value, keras.optimizers.Optimizer):
        return value
    try:
        return keras.optimizers.get(value)
    except Exception as error:
        raise ValueError(
            f"Argument `{name}` must be a Keras optimizer. Expected one, or "
            f"its name or configuration, Received: {name}={shown(value)}"
        ) from error


def dtype_policy(name, value):
    """A policy of Keras that computes and stores in floating dtypes."""
    policy = cause = None
    try:
        policy = keras.dtype_policies.get(value)
        for dtype in (policy.compute_dtype, policy.variable_dtype):
            floating_dtype(name, dtype)
    except Exception as error:
        cause = error
    if cause:
        raise ValueError(
            f"Argument `{name}` must be a floating dtype or policy. Expected "
            f"one such as 'float32', Received: {name}={shown(value)}"
        ) from cause
    return policy


def layer_options(options):
    """Arguments of layers that have one meaning in all of Keras.

    Args:
        options: Dictionary from names of arguments to values.

    Returns:
        Dictionary, where what is known by its name is checked.

    Example:

    >>> import numpy as np
    >>> from tf_spectral.checks import layer_options
    >>> layer_options({"use_bias": np.bool_(False), "other": 1})
    {'use_bias': False, 'other': 1}
    """
    return {name: _rule(name)(name, value) for name, value in options.items()}


def _rule(name):
    """The function that checks a layer's argument of this name."""
    if name in _BOOLEANS:
        return boolean
    kinds = {
        "activation": activation,
        "recurrent_activation": activation,
        "dtype": dtype_policy,
        "dropout": _rate,
        "recurrent_dropout": _rate,
        "seed": seed,
        # These know names that Keras does not.
        "reflector_initializer": _anything,
    }
    endings = {
        "initializer": initializer,
        "regularizer": regularizer,
        "constraint": constraint,
    }
    ending = name.rpartition("_")[2]
    return kinds.get(name) or endings.get(ending) or _anything


_BOOLEANS = (
    "annealed_radius",
    "autocast",
    "go_backwards",
    "reset_after",
    "return_sequences",
    "return_state",
    "stateful",
    "trainable",
    "trainable_initial_state",
    "unit_forget_bias",
    "unroll",
    "use_bias",
    "zero_output_for_mask",
)


def _anything(name, value):
    return value


def _rate(name, value):
    return number(name, value, 0.0, maximum=1.0, must="be a number in [0, 1]")


def optimizer_options(options):
    """Arguments that all of Keras' optimizers share.

    Args:
        options: Dictionary from names of arguments to values.

    Returns:
        Dictionary, where what is known by its name is checked.

    Example:

    >>> import numpy as np
    >>> from tf_spectral.checks import optimizer_options
    >>> optimizer_options({"clipnorm": np.float32(1), "name": "it"})
    {'clipnorm': 1.0, 'name': 'it'}
    """
    checked = dict(options)
    rules = {
        # It is taken off again and again.
        "weight_decay": lambda n, v: non_negative(n, v, SQUARABLE),
        "clipnorm": positive,
        "clipvalue": positive,
        "global_clipnorm": positive,
        "loss_scale_factor": positive,
        "use_ema": boolean,
        "ema_momentum": _rate,
        "ema_overwrite_frequency": lambda n, v: integer(n, v, minimum=1),
        "gradient_accumulation_steps": lambda n, v: integer(n, v, minimum=2),
        "name": text,
    }
    for name in rules.keys() & options.keys():
        if options[name] is not None:
            checked[name] = rules[name](name, options[name])
    return checked


def text(name, value, empty=False):
    """A string, that is not empty unless `empty` says that it may be.

    Example:

    >>> from tf_spectral.checks import text
    >>> text("name", "sgd")
    'sgd'
    """
    if not isinstance(value, str) or not (value or empty):
        kind = "" if empty else "one that is not empty"
        refuse(name, "be a string", value, kind)
    return str(value)


def learning_rate(name, value):
    """A finite number as a float, or a schedule or function as it is."""
    schedules = keras.optimizers.schedules.LearningRateSchedule
    if isinstance(value, schedules):
        return value
    if callable(value) and not isinstance(value, type):
        return value
    return non_negative(name, value)


def _scalar(value, convert):
    """`convert(value)` of a real number that is no boolean, else `None`."""
    if isinstance(value, (bool, np.bool_)):
        return None
    if not isinstance(value, numbers.Real):
        # Arrays and tensors of rank 0, and NumPy's scalars of half precision.
        try:
            if tuple(value.shape) != ():
                return None
            dtype = backend.standardize_dtype(value.dtype)
        except Exception:
            return None
        if "float" not in dtype and "int" not in dtype:
            return None
        if "float" in dtype and convert is operator.index:
            return None
    try:
        return convert(value)
    except (TypeError, ValueError, OverflowError):
        # `float(10**400)`; tensors that are not known yet.
        return None


def real_tensor(name, tensor, dtype):
    """A tensor in the dtype of a layer: integers and booleans are cast, too.

    Args:
        name: String, the argument.
        tensor: Tensor, which may be sparse.
        dtype: String, the floating dtype.

    Raises:
        ValueError: If the tensor is complex or holds no numbers, of which a
            cast would lose a part or fail late.
    """
    given = backend.standardize_dtype(tensor.dtype)
    if not any(kind in given for kind in ("float", "int", "bool")):
        raise ValueError(
            f"Argument `{name}` must be a tensor of real numbers. Expected a "
            f"floating or integer dtype, Received: {name}.dtype={given}"
        )
    return tensor if given == dtype else ops.cast(tensor, dtype)


def check_rank(name, value, rank):
    """`value` as a floating tensor of the given rank (`None`: at least 1)."""
    value = tensor(name, value)
    dtype = backend.standardize_dtype(value.dtype)
    if "float" not in dtype:
        raise ValueError(
            f"Argument `{name}` must be a floating tensor. "
            f"Expected a real floating dtype, Received: {name}.dtype={dtype}"
        )
    actual = len(value.shape)
    if actual != rank and not (rank is None and actual > 0):
        wanted = "at least 1" if rank is None else rank
        raise ValueError(
            f"Argument `{name}` has the wrong rank. Expected rank {wanted}, "
            f"Received: {name}.shape={tuple(value.shape)}"
        )
    return value


def check_matrices(name, value):
    """`value` as a floating tensor `(..., n_in, n_out)`."""
    value = check_rank(name, value, None)
    if len(value.shape) < 2:
        raise ValueError(
            f"Argument `{name}` must be a matrix or a stack of matrices. "
            "Expected rank 2 at least, "
            f"Received: {name}.shape={tuple(value.shape)}"
        )
    return value


def check_square(name, value):
    """`value` as a square floating matrix."""
    value = check_rank(name, value, 2)
    if value.shape[0] != value.shape[1]:
        raise ValueError(
            f"Argument `{name}` must be a square matrix. Expected shape "
            f"(d, d), Received: {name}.shape={tuple(value.shape)}"
        )
    return value


def check_alike(name, value, other_name, other):
    """Both as floating matrices of one shape."""
    value = check_rank(name, value, 2)
    other = check_rank(other_name, other, 2)
    if tuple(value.shape) != tuple(other.shape):
        raise ValueError(
            f"Argument `{other_name}` must have the shape of `{name}`. "
            f"Expected {tuple(value.shape)}, "
            f"Received: {other_name}.shape={tuple(other.shape)}"
        )
    return value, other


def check_indices(name, value, count):
    """`value` as an integer tensor with entries from 0 to `count - 1`.

    The entries of a tensor are not looked at: a device would be waited for.
    """
    given = value
    value = tensor(name, value)
    dtype = backend.standardize_dtype(value.dtype)
    if "int" not in dtype:
        raise ValueError(
            f"Argument `{name}` must be an integer tensor. "
            f"Expected an integer dtype, Received: {name}.dtype={dtype}"
        )
    if isinstance(given, (int, list, tuple, np.integer, np.ndarray)):
        entries = np.asarray(given)
        if entries.size and not 0 <= entries.min() <= entries.max() < count:
            refuse(
                name, "hold places of rows", given, f"0 to d - 1 = {count - 1}"
            )
    return ops.cast(value, "int32")


def tensor_shape(name, value, expected):
    """Refuses a tensor of another shape.

    Args:
        name: String, the argument.
        value: Tensor.
        expected: Tuple of lengths; `None` fits any.
    """
    found = tuple(value.shape)
    fits = len(found) == len(expected) and all(
        None in pair or pair[0] == pair[1] for pair in zip(found, expected)
    )
    if not fits:
        raise ValueError(
            f"Argument `{name}` has the wrong shape. Expected {expected}, "
            f"Received: {name}.shape={found}"
        )

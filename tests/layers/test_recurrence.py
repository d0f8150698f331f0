"""The pass through time against NumPy loops: states and all gradients."""

import functools

import keras
import numpy as np
import pytest
from keras import ops

from tests import helpers
from tests import oracles
from tests.helpers import BACKEND
from tests.helpers import assert_close
from tests.helpers import evaluate
from tests.helpers import inner
from tests.helpers import value_and_grad
from tf_spectral.activations import pullback_from_output
from tf_spectral.layers import ModReLU
from tf_spectral.layers import SpectralRNNCell
from tf_spectral.layers.recurrence import Dense
from tf_spectral.layers.recurrence import DiagonalPlusLowRank
from tf_spectral.layers.recurrence import low_rank_pays
from tf_spectral.layers.recurrence import recurrence

TOLERANCE = {"float64": 1e-10, "float32": 2e-5}
ORACLES = {
    "linear": oracles.linear,
    "relu": oracles.relu,
    "leaky_relu": oracles.leaky_relu(0.25),
    "tanh": oracles.tanh,
    "sigmoid": oracles.sigmoid,
    "softsign": oracles.Activation(
        lambda z: z / (1.0 + np.abs(z)), lambda z: (1.0 + np.abs(z)) ** -2.0
    ),
    "elu": oracles.Activation(
        lambda z: np.where(z > 0.0, z, np.expm1(np.minimum(z, 0.0))),
        lambda z: np.where(z > 0.0, 1.0, np.exp(np.minimum(z, 0.0))),
    ),
}
ACTIVATIONS = {
    **{name: keras.activations.get(name) for name in ORACLES},
    # TensorFlow keeps the slope in float32, where 0.2 is not 0.2.
    "leaky_relu": functools.partial(
        keras.activations.leaky_relu, negative_slope=0.25
    ),
}
# One square sum of products (dense), three thin ones, or one square one that
# is split at the end: units against three times the rank.
FORMS = {"dense": 0, "thin": 1, "thick": 3}


class Problem:
    """Arrays of one recurrence, and what the oracle makes of them.

    Args:
        length: Integer, the number of steps.
        batch: Integer.
        units: Integer.
        features: Integer.
        form: One of `FORMS`.
        activation: One of `ORACLES`, or `"modrelu"`.
        bias: Boolean, whether there is a bias.
        masked: Boolean, whether some steps are masked.
        dropped: Boolean, whether the states have a dropout mask.
        sequences: Boolean, whether all states are the output.
        dtype: Floating dtype.
    """

    def __init__(
        self,
        length=7,
        batch=3,
        units=5,
        features=3,
        form="dense",
        activation="softsign",
        bias=True,
        masked=False,
        dropped=False,
        sequences=True,
        dtype="float64",
    ):
        rng = np.random.default_rng(length + 100 * units + features)
        self.dtype, self.form, self.sequences = dtype, form, sequences
        self.arrays = {
            "x": rng.normal(size=(length, batch, features)),
            "kernel": rng.normal(size=(features, units)) / features**0.5,
            "initial_state": rng.normal(size=(batch, units)),
        }
        if bias:
            self.arrays["bias"] = 0.3 * rng.normal(size=units)
        self.activation, self.oracle = activation, ORACLES.get(activation)
        if activation == "modrelu":
            self.arrays["modrelu_bias"] = rng.uniform(-0.4, 0.2, units)
        if form == "dense":
            matrix = rng.normal(size=(units, units))
            self.arrays["matrix"] = 0.7 * matrix / units**0.5
        else:
            rank = FORMS[form]
            self.arrays["sigma"] = rng.uniform(0.5, 1.0, units)
            self.arrays["p"] = 0.4 * rng.normal(size=(units, rank))
            self.arrays["r"] = 0.4 * rng.normal(size=(units, rank))
        self.mask = self.state_mask = None
        if masked:
            # Rows that start, that end and that are wholly masked, and holes.
            self.mask = rng.uniform(size=(length, batch)) < 0.6
            self.mask[:2, 0], self.mask[-2:, 1 % batch] = False, False
            self.mask[:, batch - 1] &= batch < 3
        if dropped:
            kept = rng.uniform(size=(batch, units)) < 0.7
            self.state_mask = kept / 0.7
        shape = (length, batch, units) if sequences else (batch, units)
        self.cotangent = rng.normal(size=shape)
        self.arrays = {k: v.astype(dtype) for k, v in self.arrays.items()}

    def run(self, *tensors):
        """The states by the package: a tensor, from those of the arrays."""
        w = dict(zip(self.arrays, tensors))
        if self.activation == "modrelu":
            activation = ModReLU()
        else:
            activation = ACTIVATIONS[self.activation]
        if self.form == "dense":
            transition = Dense(w["matrix"])
        else:
            transition = DiagonalPlusLowRank(w["sigma"], w["p"], w["r"])
        dtype = w["x"].dtype

        def constant(value, dtype):
            return None if value is None else ops.cast(value, dtype)

        return recurrence(
            w["x"],
            w["kernel"],
            transition,
            w["initial_state"],
            activation,
            pullback_from_output(activation),
            bias=w.get("bias"),
            modrelu_bias=w.get("modrelu_bias"),
            mask=constant(self.mask, "bool"),
            state_mask=constant(self.state_mask, dtype),
            return_sequences=self.sequences,
        )

    def expected(self):
        """States and a dict of gradients, by the oracle."""
        w = {k: v.astype("float64") for k, v in self.arrays.items()}
        length, batch, _ = w["x"].shape
        units = w["initial_state"].shape[1]
        activation = self.oracle or oracles.modrelu(w["modrelu_bias"])
        matrix = w.get("matrix")
        if matrix is None:
            matrix = np.diag(w["sigma"]) - w["p"] @ w["r"].T
        outputs, states = [], []
        gradients = {name: np.zeros(np.shape(v)) for name, v in w.items()}
        by_matrix = np.zeros((units, units))
        for row in range(batch):
            # A dropout mask of this row's state scales the rows of R.
            scale = np.ones((units, 1))
            if self.state_mask is not None:
                scale = self.state_mask[row][:, None]
            one = slice(row, row + 1)
            problem = {
                "x": np.moveaxis(w["x"][:, one], 1, 0),
                "kernel": w["kernel"],
                "bias": w.get("bias", np.zeros(units)),
                "recurrent_kernel": scale * matrix,
                "activation": activation,
                "h0": w["initial_state"][one],
                "mask": None if self.mask is None else self.mask[:, one].T,
                "hold_initial_state": True,
            }
            sequence, state = oracles.simple_rnn(**problem)
            outputs.append(sequence[0])
            states.append(state[0])
            if self.sequences:
                cotangent = np.moveaxis(self.cotangent[:, one], 1, 0)
                new = oracles.bptt(cotangent, **problem)
            else:
                new = oracles.bptt(
                    np.zeros((1, length, units)),
                    state_cotangents=self.cotangent[one],
                    **problem,
                )
            gradients["x"][:, one] = np.moveaxis(new["x"], 0, 1)
            gradients["kernel"] += new["kernel"]
            gradients["initial_state"][one] = new["h0"]
            by_matrix += scale * new["recurrent_kernel"]
            if "bias" in w:
                gradients["bias"] += new["bias"]
            if "modrelu_bias" in w:
                gradients["modrelu_bias"] += new["activation"]
        if self.form == "dense":
            gradients["matrix"] = by_matrix
        else:
            gradients["sigma"] = np.diag(by_matrix)
            gradients["p"] = -by_matrix @ w["r"]
            gradients["r"] = -by_matrix.T @ w["p"]
        states = np.stack(outputs, axis=1) if self.sequences else states
        return np.asarray(states), gradients


def check(problem, mode=helpers.MODES[0]):
    """Value and gradients by every array, against the oracle."""
    tolerance = TOLERANCE[problem.dtype]
    arrays = problem.arrays
    states, expected = problem.expected()

    def loss(*tensors):
        return inner(
            problem.run(*tensors), problem.cotangent.astype(problem.dtype)
        )

    if mode == helpers.MODES[0]:
        actual = evaluate(problem.run, *arrays.values(), mode=mode)
        assert helpers.dtype_of(actual) == problem.dtype
        assert_close(actual, states, tolerance)
    value, gradients = value_and_grad(loss, *arrays.values(), mode=mode)
    scale = np.abs(problem.cotangent).sum()
    assert_close(value, np.sum(states * problem.cotangent), tolerance, scale)
    for name, gradient in zip(arrays, gradients, strict=True):
        assert helpers.dtype_of(gradient) == problem.dtype
        scale = max(np.abs(expected[name]).max(initial=0.0), 1.0)
        assert_close(gradient, expected[name], tolerance, scale)


def check_second_derivative(problem, mode=helpers.MODES[0]):
    """Of one scalar, along a direction: differences of oracle's gradients."""
    arrays, step = problem.arrays, 1e-5
    rng = np.random.default_rng(5)
    directions = [rng.normal(size=a.shape) for a in arrays.values()]
    sides = []
    for sign in (1, -1):
        problem.arrays = {
            name: array + sign * step * direction
            for (name, array), direction in zip(arrays.items(), directions)
        }
        sides.append(problem.expected()[1])
    problem.arrays = arrays
    actual = helpers.second_derivative(
        lambda *tensors: inner(problem.run(*tensors), problem.cotangent),
        directions,
        *arrays.values(),
        mode=mode,
    )
    # Keras rounds tanh to float32 on JAX.
    rounded = (BACKEND, problem.activation) == ("jax", "tanh")
    for name, gradient in zip(arrays, actual, strict=True):
        expected = (sides[0][name] - sides[1][name]) / (2 * step)
        scale = max(np.abs(expected).max(), 1.0)
        assert_close(gradient, expected, 1e-4 if rounded else 1e-6, scale)


# One short chunk, one chunk, chunks without and with a shorter one behind.
@pytest.mark.parametrize("sequences", (True, False))
@pytest.mark.parametrize("length", (1, 2, 7, 16, 17, 33, 40))
def test_every_length(length, sequences):
    check(Problem(length, sequences=sequences))


@pytest.mark.parametrize("length", (1, 17, 40))
@pytest.mark.parametrize("form", ("thin", "thick"))
def test_every_length_of_low_rank(length, form):
    check(Problem(length, form=form))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.costly(keep=3)
def test_every_way_to_run(form, mode):
    check(Problem(18, form=form), mode)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.costly
def test_float32(form):
    check(Problem(17, form=form, dtype="float32"), helpers.MODES[-1])


@pytest.mark.parametrize("form", ("dense", "thin"))
@pytest.mark.costly(keep=2)
def test_every_way_to_run_with_all_options(form, mode):
    check(
        Problem(
            19,
            features=9,
            form=form,
            activation="modrelu",
            masked=True,
            dropped=True,
            sequences=False,
        ),
        mode,
    )


@pytest.mark.parametrize("form", ("dense", "thin"))
@pytest.mark.parametrize("activation", (*ORACLES, "modrelu"))
def test_every_activation(activation, form):
    # Keras rounds tanh to float32 on JAX.
    dtype = "float32" if (BACKEND, activation) == ("jax", "tanh") else "float64"
    check(Problem(form=form, activation=activation, dtype=dtype))


@pytest.mark.parametrize(
    "mode",
    [
        helpers.MODES[0],
        *(pytest.param(m, marks=pytest.mark.slow) for m in helpers.MODES[1:]),
    ],
)
def test_second_derivatives(mode):
    """A gradient penalty: PyTorch took the states for constants."""
    check_second_derivative(Problem(3, form="thin", sequences=False), mode)


@helpers.slow_but_on_torch
def test_second_derivatives_of_every_activation():
    for activation in (*ORACLES, "modrelu"):
        for sequences in (True, False):
            check_second_derivative(
                Problem(activation=activation, sequences=sequences)
            )


@helpers.slow_but_on_torch
def test_second_derivatives_of_every_form_with_masks():
    for form in FORMS:
        for sequences in (True, False):
            check_second_derivative(
                Problem(
                    18,
                    form=form,
                    sequences=sequences,
                    masked=True,
                    dropped=True,
                )
            )


@pytest.mark.parametrize("sequences", (True, False))
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "options", ({"masked"}, {"dropped"}, {"masked", "dropped"}), ids=sorted
)
def test_masks(options, form, sequences):
    options = dict.fromkeys(options, True)
    check(Problem(form=form, sequences=sequences, **options))


def test_masks_across_chunks():
    check(Problem(40, masked=True, dropped=True))


@pytest.mark.parametrize("bias", (True, False))
@pytest.mark.parametrize("features", (1, 3, 9))
def test_every_number_of_features(features, bias):
    check(Problem(17, features=features, bias=bias))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("batch,units", [(1, 5), (3, 1), (1, 1)])
def test_one_row_or_one_unit(batch, units, form):
    check(Problem(17, batch, units, form=form, masked=True, dropped=True))


def test_forms_of_one_matrix_agree():
    """Sigma, P and R, and their matrix: the same states and gradients."""
    low, dense = Problem(17, form="thin"), Problem(17, form="dense")
    sigma, p, r = (low.arrays[name] for name in ("sigma", "p", "r"))
    dense.arrays["matrix"] = np.diag(sigma) - p @ r.T
    for name in ("x", "kernel", "initial_state", "bias"):
        dense.arrays[name] = low.arrays[name]
    gradients = {}
    for problem in (low, dense):

        def loss(*tensors, run=problem.run):
            return inner(run(*tensors), low.cotangent)

        _, values = value_and_grad(loss, *problem.arrays.values())
        gradients[problem.form] = dict(zip(problem.arrays, values))
    for name in ("x", "kernel", "initial_state", "bias"):
        assert_close(gradients["thin"][name], gradients["dense"][name], 1e-12)


@pytest.mark.parametrize("form", FORMS)
def test_bfloat16_is_finite_and_close(form):
    """States have eight bits; the sums over time are kept in float32."""
    problem = Problem(200, batch=8, form=form)
    states, expected = problem.expected()

    def run(*arrays):
        states = problem.run(*(ops.cast(a, "bfloat16") for a in arrays))
        assert helpers.dtype_of(states) == "bfloat16"
        return ops.cast(states, "float32")

    def loss(*arrays):
        return inner(run(*arrays), problem.cotangent.astype("float32"))

    arrays = [v.astype("float32") for v in problem.arrays.values()]
    assert_close(evaluate(run, *arrays), states, 0.05)
    _, gradients = value_and_grad(loss, *arrays)
    for name, gradient in zip(problem.arrays, gradients, strict=True):
        error = np.linalg.norm(gradient - expected[name])
        assert error <= 0.05 * np.linalg.norm(expected[name]), name


def test_nan_comes_out_where_it_went_in(mode):
    problem = Problem()
    problem.arrays["x"][3, 1, 0] = np.nan
    states = evaluate(problem.run, *problem.arrays.values(), mode=mode)
    assert np.isnan(states[3:, 1]).all()
    assert np.isfinite(states[:3]).all()
    assert np.isfinite(states[:, [0, 2]]).all()

    def loss(*tensors):
        return ops.sum(problem.run(*tensors))

    _, gradients = value_and_grad(loss, *problem.arrays.values(), mode=mode)
    gradients = dict(zip(problem.arrays, gradients))
    assert np.isnan(gradients["kernel"]).any()
    assert np.isfinite(gradients["x"][:, [0, 2]]).all()


@pytest.mark.skipif(BACKEND != "tensorflow", reason="shapes are static")
@pytest.mark.parametrize("jit_compile", (False, True))
@pytest.mark.parametrize("sequences", (True, False))
@pytest.mark.costly(keep=2)
def test_unknown_length_and_batch(sequences, jit_compile):
    """One trace serves every length and batch, with masks."""
    import tensorflow as tf

    problems = [
        Problem(length, batch, masked=True, sequences=sequences)
        for length, batch in ((2, 3), (37, 2), (16, 1))
    ]
    weights = {
        name: array
        for name, array in problems[0].arrays.items()
        if name not in ("x", "initial_state")
    }
    free = {"x": (None, None, 3), "initial_state": (None, 5)}
    free["mask"] = (None, None)
    free["cotangent"] = (None,) * (1 + sequences) + (5,)
    traces = []

    @tf.function(
        jit_compile=jit_compile,
        input_signature=[
            tf.TensorSpec(shape, "bool" if name == "mask" else "float64")
            for name, shape in free.items()
        ],
    )
    def run(x, initial_state, mask, cotangent):
        traces.append(1)
        tensors = {"x": x, "initial_state": initial_state}
        tensors |= {k: tf.constant(v) for k, v in weights.items()}
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            states = recurrence(
                tensors["x"],
                tensors["kernel"],
                Dense(tensors["matrix"]),
                tensors["initial_state"],
                keras.activations.softsign,
                pullback_from_output(keras.activations.softsign),
                bias=tensors["bias"],
                mask=mask,
                return_sequences=sequences,
            )
            loss = tf.reduce_sum(states * cotangent)
        return states, tape.gradient(loss, tensors)

    for problem in problems:
        problem.arrays |= weights
        values = problem.arrays["x"], problem.arrays["initial_state"]
        states, gradients = run(*values, problem.mask, problem.cotangent)
        expected_states, expected = problem.expected()
        assert_close(states, expected_states, 1e-10)
        assert gradients.keys() == expected.keys()
        for name, gradient in gradients.items():
            scale = max(np.abs(expected[name]).max(), 1.0)
            assert_close(gradient, expected[name], 1e-10, scale)
    assert len(traces) == 1


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


@pytest.mark.parametrize("units", (2, 7, 64, 128, 500))
@pytest.mark.parametrize("rows", (1, 10, 128, 10**6))
def test_low_rank_only_where_it_costs_less(units, rows):
    """Forward flops of math.md 2.7; both pay for P and Q."""
    for rank in range(1, 2 * units + 1):
        low_rank = 4 * units * rank * rows
        dense = 2 * units**2 * rank + 2 * units**2 * rows
        assert low_rank_pays(units, rank, rows) == (low_rank <= dense)


@pytest.mark.parametrize("units", (2, 8, 128))
def test_half_the_units_is_the_limit_for_many_rows(units):
    assert low_rank_pays(units, units // 2)
    assert not low_rank_pays(units, units // 2 + 1)
    assert low_rank_pays(units, 0)


def test_few_rows_favour_low_rank():
    """Forming the matrix must pay off over the rows it multiplies."""
    assert low_rank_pays(64, 128, 16)
    assert not low_rank_pays(64, 128, 1000)
    assert not low_rank_pays(64, 128, None)


def low_rank(units, rank, dtype="float64"):
    tensors = (
        normal(units),
        normal(units, rank, seed=1),
        normal(units, rank, seed=2),
    )
    return DiagonalPlusLowRank(*(ops.cast(t, dtype) for t in tensors))


def matrix_of(transition):
    sigma, p, q = (ops.convert_to_numpy(t) for t in transition)
    return np.diag(sigma) - p @ q.T


@pytest.mark.parametrize("units,rank", [(1, 1), (5, 1), (5, 2), (4, 8), (3, 0)])
def test_both_forms_multiply_by_the_matrix(units, rank, mode):
    low = low_rank(units, rank)
    matrix = matrix_of(low)
    h = normal(3, units, seed=3)
    for form in (low, Dense(ops.convert_to_tensor(matrix))):
        forward = evaluate(lambda h, f=form: f.forward()(h), h, mode=mode)
        assert_close(forward, h @ matrix, 1e-12)
        backward = evaluate(lambda d, f=form: f.backward()(d), h, mode=mode)
        assert_close(backward, h @ matrix.T, 1e-12)


@pytest.mark.parametrize("units,rank", [(1, 1), (7, 2), (6, 2), (5, 2), (4, 8)])
def test_sums_over_chunks_are_the_gradients(units, rank):
    """In either way to keep the sums: units against three times the rank."""
    low = low_rank(units, rank)
    dense = Dense(ops.convert_to_tensor(matrix_of(low)))
    h, delta = normal(4, units, seed=3), normal(4, units, seed=4)
    by_matrix = h.T @ delta
    p, q = (ops.convert_to_numpy(t) for t in low[1:])
    by_low_rank = np.diag(by_matrix), -by_matrix @ q, -by_matrix.T @ p
    for form, expected in ((dense, (by_matrix,)), (low, by_low_rank)):
        sums = form.zeros()
        for half in (slice(0, 1), slice(1, 4)):
            rows = (ops.convert_to_tensor(t[half]) for t in (h, delta))
            sums = form.accumulate(sums, *rows)
        actual = form.gradients(sums)
        for gradient, values in zip(actual, expected, strict=True):
            assert_close(ops.convert_to_numpy(gradient), values, 1e-12)


@pytest.mark.parametrize("dtype", ("bfloat16", "float16"))
@pytest.mark.parametrize("units,rank", [(8, 2), (4, 2)])
def test_half_precision_sums_in_float32(units, rank, dtype):
    low = low_rank(units, rank, dtype)
    dense = Dense(ops.zeros((units, units), dtype))
    for form in (low, dense):
        rows = ops.ones((2, units), dtype)
        for sums in (form.zeros(), form.accumulate(form.zeros(), rows, rows)):
            dtypes = {keras.backend.standardize_dtype(s.dtype) for s in sums}
            assert dtypes == {"float32"}


@pytest.mark.parametrize(
    "form,reflectors,rows,expected",
    [
        ("dense", 1, 1, Dense),
        ("low_rank", 8, 10**6, DiagonalPlusLowRank),
        ("auto", 2, 10**6, DiagonalPlusLowRank),
        ("auto", 3, 10**6, Dense),
        ("auto", 3, 2, DiagonalPlusLowRank),
        ("auto", (1, 3), None, DiagonalPlusLowRank),
        ("auto", None, None, Dense),
    ],
)
def test_form_of_a_cell(form, reflectors, rows, expected):
    """Ranks count the reflectors of both sides: 4 of 8 units is the limit."""
    cell = SpectralRNNCell(8, reflectors, form=form)
    cell.build((None, 2))
    transition = cell.transition(rows)
    assert type(transition) is expected
    h = ops.ones((1, 8), "float32")
    assert_close(
        ops.convert_to_numpy(transition.forward()(h)),
        ops.convert_to_numpy(ops.matmul(h, cell.matrix())),
        1e-5,
    )

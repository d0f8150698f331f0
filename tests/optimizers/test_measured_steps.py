"""Measured steps of DSGD against plain NumPy, and what they promise."""

import keras
import numpy as np
import pytest
from keras import ops

from tests import oracles_norms as oracles
from tests.helpers import BACKEND
from tests.helpers import assert_close
from tests.optimizers.stepping import stepper
from tf_spectral.optimizers import DSGD
from tf_spectral.optimizers import SpectralDescent
from tf_spectral.optimizers import measured_steps
from tf_spectral.optimizers.slices import slices_of

NORMS = (1, 2, "inf")
DTYPE = "float64" if BACKEND == "tensorflow" else "float32"
TOLERANCE = {"float64": 1e-9, "float32": 2e-3}[DTYPE]
TOKENS, WIDTH = 5, 3


def weights():
    """A kernel of two gates, a bias, an embedding and a scalar."""
    rng = np.random.default_rng(0)
    shapes = {"kernel": (4, 2 * WIDTH), "bias": (WIDTH,), "scale": ()}
    shapes["embeddings"] = (TOKENS, WIDTH)
    return {
        name: 3 * rng.normal(size=shape).astype(DTYPE)
        for name, shape in shapes.items()
    }


def variables_of(values):
    return [
        keras.Variable(value, dtype=DTYPE, name=name)
        for name, value in values.items()
    ]


def gradients(seed):
    rng = np.random.default_rng(100 + seed)
    made = {
        name: rng.normal(size=value.shape).astype(DTYPE) * 10.0**seed
        for name, value in weights().items()
    }
    # A token that is not there for some time.
    made["embeddings"][2] *= seed in (0, 3)
    return made


def cut(name, x):
    """The slices of a weight, each as a matrix."""
    if name == "kernel":
        return [x[:, :WIDTH], x[:, WIDTH:]]
    if name == "embeddings":
        return [row[None] for row in x]
    return [np.reshape(x, (1, -1))]


def paste(name, parts, shape):
    if name == "kernel":
        return np.concatenate(parts, axis=1)
    return np.reshape(np.concatenate(parts), shape)


class Reference:
    """The rule of `measured_steps`, one slice at a time."""

    floors = {"kernel": 1.0, "bias": 0.1, "scale": 0.1, "embeddings": 0.05}

    def __init__(self, values, norm, momentum, preconditioner=None):
        self.w = {k: v.astype("float64") for k, v in values.items()}
        self.norm, self.momentum = norm, momentum
        self.m = {k: np.zeros_like(v) for k, v in self.w.items()}
        self.s = {k: np.zeros_like(v) for k, v in self.w.items()}
        self.v = {k: np.zeros(len(cut(k, v))) for k, v in self.w.items()}
        self.p = {}
        for k, v in self.w.items():
            parts = cut(k, v)
            rng = np.random.default_rng(0)
            self.p[k] = rng.normal(size=(len(parts), parts[0].shape[1]))
        self.c, self.t = 0.01, 0
        self.preconditioner = preconditioner
        self.q = {k: np.zeros_like(v) for k, v in self.w.items()}

    def metric(self, name, g):
        """The weights `A`: `rho` is 0.9, `epsilon` 1e-3."""
        if self.preconditioner == "rms":
            self.q[name] = 0.9 * self.q[name] + 0.1 * g**2
        elif self.preconditioner == "adagrad":
            self.q[name] = self.q[name] + g**2
        else:
            return np.ones_like(g)
        return np.sqrt(1e-3 + np.sqrt(self.q[name]))

    def length(self, name, i, w):
        rows, columns = w.shape
        if self.norm == 1:
            return np.abs(w).sum(axis=1).max() * rows / columns
        if self.norm == "inf":
            return np.abs(w).sum(axis=0).max()
        p = w.T @ (w @ self.p[name][i])
        there = np.linalg.norm(w @ self.p[name][i])
        self.p[name][i] = p / np.linalg.norm(p)
        return np.linalg.norm(p) / there * np.sqrt(rows / columns)

    def direction(self, n):
        dual = oracles.dual_norm(n, self.norm)
        if dual == 0:
            return n
        rows, columns = n.shape
        unit = {1: columns / rows, 2: np.sqrt(columns / rows), "inf": 1}
        return unit[self.norm] * oracles.duality_map(n, self.norm) / dual

    def step(self, g, rate):
        self.t += 1
        g = {k: v.astype("float64") for k, v in g.items()}
        inner = outer = 0.0
        for k in g:
            pairs = zip(cut(k, g[k]), cut(k, self.s[k]), self.v[k])
            for a, b, square in pairs:
                usual = np.sqrt(square / (1 - 0.99 ** max(self.t - 1, 1)))
                inner += np.sum(a * b) / (usual or 1.0)
                outer += np.linalg.norm(b)
        h = np.clip(inner / outer, -1, 1) if outer else 0.0
        self.c *= np.exp(0.3 * min(rate, 1.0) ** 2 * h)
        self.c = np.clip(self.c, 1e-3, 0.1)
        for k in g:
            beta = self.momentum
            self.m[k] = beta * self.m[k] + (1 - beta) * g[k]
            n = beta * self.m[k] / (1 - beta**self.t) + (1 - beta) * g[k]
            steps = []
            parts = (g[k], n, self.w[k], self.metric(k, g[k]))
            parts = zip(*(cut(k, part) for part in parts))
            for i, (part, ahead, w, metric) in enumerate(parts):
                square = np.sum(part**2)
                self.v[k][i] = 0.99 * self.v[k][i] + 0.01 * square
                typical = np.sqrt(self.v[k][i] / (1 - 0.99**self.t))
                share = np.linalg.norm(ahead) / typical if typical else 0.0
                far = max(self.length(k, i, w), self.floors[k])
                step = self.direction(ahead / metric)
                weighted = step / metric
                if np.any(step):
                    size = np.linalg.norm(step) / np.linalg.norm(weighted)
                    step = size * weighted
                steps.append(far * min(share, 1.0) * step)
            self.s[k] = paste(k, steps, g[k].shape)
        for k in g:
            self.w[k] = self.w[k] - rate * self.c * self.s[k]


OPTIONS = {"blocks": {"kernel": 2}, "polar_accuracy": "exact"}


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("momentum", [0.9, 0.0])
@pytest.mark.costly(keep=3)
def test_equals_its_reference(norm, momentum):
    optimizer = DSGD(0.5, norm, momentum=momentum, **OPTIONS)
    follow(optimizer, norm, momentum)


@pytest.mark.parametrize("preconditioner", [None, "rms", "adagrad"])
def test_spectral_descent_equals_its_reference(preconditioner):
    optimizer = SpectralDescent(
        0.5, preconditioner=preconditioner, rho=0.9, epsilon=1e-3, **OPTIONS
    )
    follow(optimizer, 2, 0.9, preconditioner)


def follow(optimizer, *rule):
    """Steps of an optimizer and of the reference, from the same weights."""
    values = weights()
    variables = variables_of(values)
    reference = Reference(values, *rule)
    take = stepper(optimizer, variables)
    for seed in range(5):
        take(list(gradients(seed).values()))
        reference.step(gradients(seed), 0.5)
        for variable, expected in zip(variables, reference.w.values()):
            actual = ops.convert_to_numpy(variable)
            assert_close(actual, expected, TOLERANCE)
        length = ops.convert_to_numpy(optimizer.step_length)
        assert_close(length, reference.c, TOLERANCE)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.costly
def test_scales_of_gradients_do_not_matter(norm):
    """Nor do those whose squares are no numbers."""
    results = []
    for scale in (1.0, 1e-25, 1e25):
        variables = [
            keras.Variable(value, dtype="float32", name=name)
            for name, value in weights().items()
        ]
        take = stepper(DSGD(norm=norm), variables)
        for seed in range(3):
            made = gradients(0) if seed == 0 else gradients(1)
            take([(scale * g).astype("float32") for g in made.values()])
        results.append([ops.convert_to_numpy(v) for v in variables])
    for other in results[1:]:
        for a, b in zip(other, results[0]):
            np.testing.assert_allclose(a, b, rtol=2e-3, atol=1e-4)


@pytest.mark.parametrize("selection", ["greedy", "random", "cyclic", "all"])
@pytest.mark.costly(keep=2)
def test_what_does_not_move_is_not_remembered_as_a_step(selection):
    variables = variables_of(weights())
    optimizer = DSGD(selection=selection, seed=1, momentum=0.0)
    take = stepper(optimizer, variables)
    for seed in range(3):
        before = [ops.convert_to_numpy(v) for v in variables]
        take(list(gradients(seed).values()))
        moved = [
            np.any(ops.convert_to_numpy(v) != b)
            for v, b in zip(variables, before)
        ]
        assert sum(moved) == (4 if selection == "all" else 1)
        steps = [v for v in optimizer.variables if v.name.startswith("step_")]
        kept = [np.any(ops.convert_to_numpy(v)) for v in steps]
        assert kept == moved
        if selection == "greedy":
            norms = float(ops.convert_to_numpy(optimizer.local_gradient_norm))
            assert norms > 0


def test_gradients_that_are_no_numbers_change_nothing_but_the_length():
    variables = variables_of(weights())
    optimizer = DSGD()
    take = stepper(optimizer, variables)
    take(list(gradients(0).values()))
    before = {
        v.path: ops.convert_to_numpy(v)
        for v in [*variables, *optimizer.variables]
    }
    for bad in (np.nan, np.inf):
        broken = gradients(1)
        broken["kernel"][1, 2] = bad
        take(list(broken.values()))
    after = {
        v.path: ops.convert_to_numpy(v)
        for v in [*variables, *optimizer.variables]
    }
    changed = {
        path.split("/")[-1]
        for path in before
        if not np.array_equal(before[path], after[path])
    }
    expected = {"iteration", "skipped_steps", "length", "scales"}
    assert changed <= expected | {"local_gradient_norm"}
    length = float(ops.convert_to_numpy(optimizer.step_length))
    assert_close(length, measured_steps.START / 4, 1e-6)


def test_the_length_follows_the_agreement_of_gradients():
    """It grows while they agree with the last step, and shrinks after."""
    variable = keras.Variable(np.eye(3), dtype="float32", name="kernel")
    optimizer = DSGD(momentum=0.0)
    take = stepper(optimizer, [variable])
    lengths = []
    for sign in (1, 1, 1, -1, 1):
        take([sign * np.eye(3, dtype="float32")])
        lengths.append(float(ops.convert_to_numpy(optimizer.step_length)))
    factors = np.divide(lengths[1:], lengths[:-1])
    grown = np.exp(measured_steps.KAPPA)
    expected = [grown, grown, 1 / grown, 1 / grown]
    np.testing.assert_allclose(factors, expected, rtol=1e-3)


@pytest.mark.parametrize("rate", [0.0, 0.1, 1.0, 7.0])
def test_a_schedule_that_ends_at_zero_is_not_made_up_for(rate):
    length = measured_steps.next_length(
        ops.convert_to_tensor(0.01), ops.convert_to_tensor(1.0), rate
    )
    expected = 0.01 * np.exp(0.3 * min(rate, 1.0) ** 2)
    assert_close(ops.convert_to_numpy(length), expected, 1e-5)


def test_the_length_has_bounds():
    for start, agreed, end in (
        (measured_steps.LONGEST, 1.0, measured_steps.LONGEST),
        (measured_steps.SHORTEST, -1.0, measured_steps.SHORTEST),
    ):
        length = measured_steps.next_length(
            ops.convert_to_tensor(start), ops.convert_to_tensor(agreed), 1.0
        )
        assert_close(ops.convert_to_numpy(length), end, 1e-6)


def test_decay_is_of_the_measured_length():
    """As that of `AdamW` is of its learning rate, and of kernels alone."""
    variables = variables_of(weights())
    optimizer = DSGD(0.5, weight_decay=0.2)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    take = stepper(optimizer, variables)
    before = [ops.convert_to_numpy(v) for v in variables]
    take([np.zeros_like(g) for g in gradients(0).values()])
    factor = 1 - 0.5 * 0.2 * measured_steps.START
    for variable, old in zip(variables, before):
        kept = 1.0 if variable.name == "bias" else factor
        assert_close(ops.convert_to_numpy(variable), kept * old, 1e-6)


def test_it_keeps_two_copies_of_the_weights():
    model = keras.Sequential(
        [
            keras.Input((4,), dtype="int32"),
            keras.layers.Embedding(50, 20),
            keras.layers.LSTM(30),
            keras.layers.Dense(10),
        ]
    )
    optimizer = DSGD()
    optimizer.build(model.trainable_variables)
    weights = sum(np.prod(v.shape) for v in model.trainable_variables)
    state = sum(np.prod(v.shape) for v in optimizer.variables)
    # A row of each kernel, a number of each slice and few others.
    rows = 2 * 4 * 30 + 10
    slices = 50 + 3 * 4 + 2
    assert state <= 2 * weights + rows + slices + 20


def test_only_measured_steps_have_a_length():
    for optimizer in (
        DSGD(),
        DSGD(smoothness="constant"),
        SpectralDescent(),
        SpectralDescent(lipschitz="bound"),
    ):
        assert not hasattr(optimizer, "step_length")
        optimizer.build(variables_of(weights()))
        if not optimizer.measures:
            match = f"measured(.|\n)*{type(optimizer).__name__}"
            with pytest.raises(AttributeError, match=match):
                _ = optimizer.step_length


def test_weights_of_nothing_are_passed_over():
    empty = keras.Variable(np.zeros((0, 3)), name="nothing")
    kernel = keras.Variable(np.eye(3), name="kernel")
    take = stepper(DSGD(), [empty, kernel])
    take([np.zeros((0, 3), "float32"), np.eye(3, dtype="float32")])
    assert ops.convert_to_numpy(kernel)[0, 0] < 1
    take = stepper(DSGD(), [empty])
    take([np.zeros((0, 3), "float32")])


def train(start=1.0, inputs=1.0, depth=1, cosine=False, make=DSGD, **options):
    """Test error of a small network with starts as bad as asked for."""
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(640, 8)).astype("float32")
    y = np.argmax(np.tanh(x @ rng.normal(size=(8, 5))), axis=1)
    hidden = [keras.layers.Dense(32, "tanh") for _ in range(depth)]
    model = keras.Sequential(
        [keras.Input((8,)), *hidden, keras.layers.Dense(5, "softmax")]
    )
    for layer in model.layers:
        layer.kernel.assign(start * layer.kernel)
    if cosine:
        schedule = keras.optimizers.schedules.CosineDecay(1.0, 300)
        options["learning_rate"] = schedule
    model.compile(
        make(**options),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    model.fit(inputs * x, y, epochs=15, batch_size=32, verbose=0)
    return 1 - model.evaluate(inputs * x, y, verbose=0)[1]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"start": 10.0},
        {"start": 0.1},
        {"inputs": 100.0},
        {"norm": 1},
        {"norm": "inf"},
        {"depth": 4, "start": 0.3},
        {"cosine": True},
        {"make": SpectralDescent},
        {"make": SpectralDescent, "preconditioner": "rms"},
        {"make": SpectralDescent, "preconditioner": "adagrad"},
    ],
    ids=str,
)
@pytest.mark.costly
def test_nothing_is_to_be_tuned(options):
    """Chance is an error of 0.8."""
    assert train(**options) < 0.2


@pytest.mark.parametrize("batch,seed", [(1, 1), (1, 3), (2, 1), (2, 3)])
@pytest.mark.costly
def test_single_examples_do_not_throw_it_off(batch, seed):
    """Weights that grow in proportion to themselves would, within epochs."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 4)).astype("float32")
    y = (x[:, 0] > 0).astype("int32") + (x[:, 1] > 0)
    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(8, "tanh"),
            keras.layers.Dense(3, "softmax"),
        ]
    )
    model.compile(DSGD(), "sparse_categorical_crossentropy")
    losses = model.fit(x, y, batch_size=batch, epochs=12 * batch, verbose=0)
    losses = losses.history["loss"]
    assert max(losses) < 1.5
    assert losses[-1] < 0.7 * losses[0]


def test_no_history_stops_the_measuring():
    length = np.float32(measured_steps.START)
    for alignment, bound in ((-1, "SHORTEST"), (1, "LONGEST")):
        for _ in range(100):
            length = measured_steps.next_length(length, alignment, 1.0)
        assert_close(length, getattr(measured_steps, bound), 1e-6)


def test_what_is_small_says_little():
    """Nine small gradients that agree, and a large one that does not."""
    part = measured_steps.Memory(*[None] * 5)
    part = part._replace(step=ops.ones((3,)), typical=ops.ones((1,)))
    slices = slices_of(keras.Variable(np.zeros(3)))
    small, large = (
        measured_steps.alignment([scale * ops.ones((3,))], [part], [slices], 10)
        for scale in (0.01, -10.0)
    )
    assert 0 < float(ops.convert_to_numpy(small)) < 0.06
    assert float(ops.convert_to_numpy(large)) == -1.0

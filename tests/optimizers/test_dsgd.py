"""DSGD against plain NumPy, and what its theory promises."""

import itertools

import keras
import numpy as np
import pytest
from keras import ops

from tests import oracles_norms
from tests.helpers import BACKEND
from tests.helpers import assert_close
from tests.optimizers import contract
from tests.optimizers.stepping import stepper
from tf_spectral.bounds import LayerwiseSmoothness
from tf_spectral.callbacks import LayerUpdateCounter
from tf_spectral.losses import SumOfSquares
from tf_spectral.optimizers import DSGD
from tf_spectral.optimizers import block_steps

NORMS = (1, 2, "inf")
DTYPE = "float64" if BACKEND == "tensorflow" else "float32"
TOLERANCE = {"float64": 1e-10, "float32": 1e-4}[DTYPE]


def network(output="sigmoid", hidden="tanh", dtype=DTYPE, scale=1.0):
    keras.utils.set_random_seed(4)
    uniform = keras.initializers.RandomUniform(-scale, scale)
    options = {
        "dtype": dtype,
        "kernel_initializer": uniform,
        "bias_initializer": uniform,
    }
    return keras.Sequential(
        [
            keras.Input((4,), dtype=dtype),
            keras.layers.Dense(6, hidden, name="first", **options),
            keras.layers.Dense(5, hidden, name="second", **options),
            keras.layers.Dense(3, output, name="out", **options),
        ]
    )


def examples(n=40, dtype=DTYPE):
    rng = np.random.default_rng(3)
    x = rng.uniform(-1, 1, size=(n, 4)).astype(dtype)
    labels = np.argmax(x @ rng.normal(size=(4, 3)), axis=1)
    return x, np.eye(3, dtype=dtype)[labels]


def random_gradients(model, seed=0):
    rng = np.random.default_rng(seed)
    return [
        rng.normal(size=v.shape).astype(DTYPE)
        for v in model.trainable_variables
    ]


def apply(model, optimizer, gradients):
    before = contract.weights_of(model)
    optimizer.apply(
        [ops.convert_to_tensor(g) for g in gradients],
        model.trainable_variables,
    )
    after = contract.weights_of(model)
    return [b - a for b, a in zip(before, after)]


def moved(steps):
    return [i for i, step in enumerate(steps) if np.any(step)]


@pytest.mark.parametrize("norm", NORMS)
def test_greedy_moves_the_best_block_by_its_step(norm):
    model = network()
    record = LayerwiseSmoothness.from_model(model, norm, loss=SumOfSquares())
    squared = ops.convert_to_numpy(
        record.squared_bounds(model.trainable_variables)
    )
    for seed in range(6):
        gradients = random_gradients(model, seed)
        # One block or another wins.
        gradients[2 * seed % 6] *= 30.0
        model = network()
        optimizer = DSGD(0.5, norm, smoothness=record, polar_accuracy="exact")
        steps = apply(model, optimizer, gradients)
        scores = [
            oracles_norms.dual_norm(g, norm) / np.sqrt(s)
            for g, s in zip(gradients, squared)
        ]
        best = int(np.argmax(scores))
        assert moved(steps) == [best]
        expected = oracles_norms.duality_map(gradients[best], norm)
        assert_close(steps[best], 0.5 * expected / squared[best], TOLERANCE)
        assert_close(
            ops.convert_to_numpy(optimizer.local_gradient_norm),
            max(scores),
            TOLERANCE,
        )
        counts = ops.convert_to_numpy(optimizer.update_counts)
        assert counts.tolist() == [int(i == best) for i in range(6)]


@pytest.mark.parametrize("norm", NORMS)
def test_all_blocks_move_by_their_own_steps(norm):
    model = network()
    gradients = random_gradients(model)
    optimizer = DSGD(0.5, norm, "all", "constant", polar_accuracy="exact")
    for step, gradient in zip(apply(model, optimizer, gradients), gradients):
        expected = oracles_norms.duality_map(gradient, norm)
        assert_close(step, 0.5 * expected, TOLERANCE)


@pytest.mark.parametrize("norm", (2, "inf"))
def test_sequential_goes_round(norm):
    model = network()
    optimizer = DSGD(1.0, norm, "cyclic")
    order = [
        moved(apply(model, optimizer, random_gradients(model, seed)))
        for seed in range(8)
    ]
    assert order == [[i % 6] for i in range(8)]


@pytest.mark.parametrize("norm", (2, "inf"))
@pytest.mark.costly
def test_random_draws_each_block_and_repeats_by_seed(norm):
    def draws(seed):
        model = network()
        optimizer = DSGD(1.0, norm, "random", seed=seed)
        step = stepper(optimizer, model.trainable_variables)
        counts = [np.zeros(6)]
        for _ in range(40):
            step(random_gradients(model))
            counts.append(ops.convert_to_numpy(optimizer.update_counts))
        return np.argmax(np.diff(counts, axis=0), axis=1).tolist()

    assert (drawn := draws(1)) == draws(1) != draws(2)
    assert set(drawn) == set(range(6))


def count_polar_factors(monkeypatch):
    calls = []
    compute = block_steps.polar_and_nuclear

    def counted(x, **options):
        calls.append(tuple(x.shape))
        return compute(x, **options)

    monkeypatch.setattr(block_steps, "polar_and_nuclear", counted)
    return calls


@pytest.mark.skipif(BACKEND == "jax", reason="JAX traces both branches")
def test_only_contenders_get_a_polar_factor(monkeypatch):
    calls = count_polar_factors(monkeypatch)
    model = network()
    gradients = random_gradients(model)
    for gradient in gradients[:4]:
        gradient *= 1e-3
    steps = apply(model, DSGD(smoothness="constant"), gradients)
    assert moved(steps) == [4]
    assert calls == [(5, 3)]
    calls.clear()
    apply(model, DSGD(selection="cyclic", smoothness="constant"), gradients)
    assert calls == [(4, 6)]


def test_screening_chooses_what_a_full_comparison_chooses():
    model = network()
    step = stepper(DSGD(1.0, smoothness="constant"), model.trainable_variables)
    for seed in range(20):
        gradients = random_gradients(model, seed)
        scores = [oracles_norms.dual_norm(g, 2) for g in gradients]
        before = contract.weights_of(model)
        step(gradients)
        after = contract.weights_of(model)
        steps = [b - a for b, a in zip(before, after)]
        assert moved(steps) == [int(np.argmax(scores))]


LOSSES = {
    "squares": (SumOfSquares(), "sigmoid", "sigmoid"),
    "mean squares": (keras.losses.MeanSquaredError(), "tanh", "tanh"),
    "softmax": (
        keras.losses.CategoricalCrossentropy(from_logits=True),
        None,
        "softplus",
    ),
    "folded softmax": (
        keras.losses.CategoricalCrossentropy(),
        "softmax",
        "tanh",
    ),
}


def descend(loss, output, hidden, updates, **options):
    """Losses and local gradient norms of full-batch descent."""
    model = network(output, hidden)
    data = examples()
    model.compile(loss=loss)
    norm = options.pop("norm", 2)
    record = LayerwiseSmoothness.from_model(
        model,
        norm,
        input_norm=np.max(np.linalg.norm(data[0], ord=float(norm), axis=1)),
    )
    assert record.certified
    optimizer = DSGD(1.0, norm, smoothness=record, **options)
    model.compile(optimizer, loss, jit_compile=False)
    losses, norms = [], []

    class Watch(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            losses.append(logs["loss"])
            norms.append(
                float(ops.convert_to_numpy(optimizer.local_gradient_norm))
            )

    model.fit(
        *data,
        batch_size=len(data[0]),
        # The loss of an epoch is that before its step.
        epochs=updates + 1,
        verbose=0,
        callbacks=[Watch()],
    )
    return np.array(losses), np.array(norms[:-1])


# Each loss and each norm at once; all pairs of them take longer.
QUICK = {
    ("squares", 2),
    ("mean squares", "inf"),
    ("folded softmax", 2),
    *(("softmax", norm) for norm in NORMS),
}


@pytest.mark.parametrize(
    "name,norm",
    [
        pair if pair in QUICK else pytest.param(*pair, marks=pytest.mark.slow)
        for pair in itertools.product(sorted(LOSSES), NORMS)
    ],
)
@pytest.mark.costly(keep=2)
def test_each_step_gains_what_is_certified(name, norm):
    check_certificate(*descend(*LOSSES[name], 30, norm=norm))


@pytest.mark.parametrize(
    "options",
    [
        {"norm_refresh": 7},
        {"norm_refresh": 7, "norm": "inf"},
        {"polar_accuracy": "fast"},
        {"polar_accuracy": "exact"},
    ],
    ids=str,
)
@pytest.mark.costly
def test_cheaper_steps_keep_the_certificate(options):
    check_certificate(*descend(*LOSSES["softmax"], 30, **options))


def check_certificate(losses, norms):
    """Theorem 4.8: each step's decrease, and the sum of all of them."""
    rounding = 1e-6 if DTYPE == "float64" else 1e-5
    gains = losses[:-1] - losses[1:]
    assert np.all(gains >= norms**2 / 2 - rounding * losses[0])
    steps = np.arange(1, len(norms) + 1)
    least = np.minimum.accumulate(norms**2)
    assert np.all(least <= 2 * losses[0] / steps)
    assert losses[-1] < losses[0]


class AlongTheWeight:
    """A kernel that is a multiple of the identity, and steps along it.

    Its norm grows, or shrinks, by just the length of each step.
    """

    def __init__(self, norm, start, length, dtype="float32", **options):
        self.model = keras.Sequential(
            [
                keras.Input((3,)),
                keras.layers.Dense(3, "tanh", dtype=dtype),
                keras.layers.Dense(
                    3, dtype=dtype, kernel_initializer="identity"
                ),
            ]
        )
        self.variables = self.model.trainable_variables
        self.variables[2].assign(start * self.variables[2])
        record = LayerwiseSmoothness.from_variables(self.variables, norm)
        assert 2 in record.needed_norms
        squared = ops.convert_to_numpy(record.squared_bounds(self.variables))
        # The dual norm of the identity is 3 under each of the norms.
        self.optimizer = DSGD(
            length * float(squared[2]) / 3,
            norm,
            "all",
            record,
            polar_accuracy="exact",
            **options,
        )
        self.norm = norm

    def step(self, sign):
        gradients = [ops.zeros(v.shape, v.dtype) for v in self.variables]
        gradients[2] = sign * ops.eye(3, dtype=self.variables[2].dtype)
        self.optimizer.apply(gradients, self.variables)

    def bound_and_norm(self):
        kernel = ops.convert_to_numpy(ops.cast(self.variables[2], "float32"))
        (bounds,) = (
            ops.convert_to_numpy(v)
            for v in self.optimizer.variables
            if v.name == "norm_bounds"
        )
        return bounds[2], np.linalg.norm(kernel.T, float(self.norm))


@pytest.mark.parametrize("norm", NORMS)
def test_followed_norms_grow_by_the_length_of_each_step(norm):
    case = AlongTheWeight(norm, 1.0, 2.0, norm_refresh=4)
    # The length without the rate would be another one.
    assert abs(float(case.optimizer.learning_rate) - 1) > 0.2
    for count in range(1, 8):
        case.step(-1.0)
        bound, true = case.bound_and_norm()
        np.testing.assert_allclose(true, 1.0 + 2.0 * count, rtol=1e-4)
        # The squarings of `spectral_norm_upper_bound` leave 2 %.
        assert true <= bound <= 1.02 * true


def test_followed_norms_know_of_rounding():
    """A step of 0.6 units in the last place is rounded to one."""
    for norm in NORMS:
        case = AlongTheWeight(
            norm, 1.0, 0.6 * 2**-7, "bfloat16", norm_refresh=50
        )
        for _ in range(6):
            case.step(-1.0)
        bound, true = case.bound_and_norm()
        assert 1.04 < true <= bound < 1.2 * true


def test_followed_norms_know_of_averages_that_fit_writes():
    case = AlongTheWeight(
        1, 10.0, 1.0, norm_refresh=5, use_ema=True, ema_momentum=0.9
    )
    for _ in range(6):
        case.step(1.0)
    bound, true = case.bound_and_norm()
    np.testing.assert_allclose(true, 4.0, rtol=1e-4)
    case.optimizer.finalize_variable_values(case.variables)
    bound, true = case.bound_and_norm()
    assert bound >= true > 7


def test_one_layer_under_every_option():
    """Then no norm of a weight is needed, and none is followed."""
    choices = ("greedy", "all", "random", "cyclic")
    kinds = ("constant", "record", "measured")
    cases = [*itertools.product(NORMS, choices, ("record",), (3,))]
    cases += itertools.product(NORMS, choices[:1], kinds, (1,))
    for norm, selection, smoothness, refresh in cases:
        model = keras.Sequential(
            [keras.Input((4,)), keras.layers.Dense(3, "softmax", dtype=DTYPE)]
        )
        if smoothness == "record":
            smoothness = LayerwiseSmoothness.from_model(
                model, norm, loss=contract.LOSS
            )
        optimizer = DSGD(
            1.0, norm, selection, smoothness, norm_refresh=refresh, seed=0
        )
        steps = apply(model, optimizer, random_gradients(model))
        assert len(moved(steps)) == (2 if selection == "all" else 1)


def test_what_is_not_said_depends_on_the_kind_of_steps():
    record = LayerwiseSmoothness.from_model(network(), loss=SumOfSquares())
    for smoothness, selection, momentum, accuracy in (
        ("measured", "all", 0.9, "fast"),
        ("constant", "greedy", 0.0, "standard"),
        (record, "greedy", 0.0, "standard"),
    ):
        optimizer = DSGD(smoothness=smoothness)
        assert optimizer.selection == selection
        assert optimizer.momentum == momentum
        assert optimizer.polar_accuracy == accuracy
    assert DSGD().smoothness == "measured"


def test_layer_update_counter():
    model = network()
    x, y = examples()
    model.compile(DSGD(norm=2, selection="greedy"), "mse")
    counter = LayerUpdateCounter()
    logs = model.fit(
        x, y, batch_size=10, epochs=3, verbose=0, callbacks=[counter]
    ).history
    names = [
        f"updates/{layer}/{weight}"
        for layer in ("first", "second", "out")
        for weight in ("kernel", "bias")
    ]
    assert set(names) <= set(logs)
    for epoch in range(3):
        assert sum(logs[name][epoch] for name in names) == 4
    assert logs["skipped_steps"] == [0, 0, 0]
    assert all(value > 0 for value in logs["local_gradient_norm"])
    assert counter.history["epoch"] == [-1, 0, 1, 2]


@pytest.mark.parametrize("every", [1, 2])
def test_layer_update_counter_of_a_model_without_an_input(every):
    """Its weights and the optimizer's are made by the first batch."""
    model = keras.Sequential([keras.layers.Dense(2, name="out")])
    model.compile(DSGD(smoothness="constant"), "mse", jit_compile=False)
    counter = LayerUpdateCounter(every)
    x, y = np.ones((20, 3), "float32"), np.ones((20, 2), "float32")
    logs = model.fit(
        x, y, batch_size=10, epochs=2, verbose=0, callbacks=[counter]
    ).history
    moved = np.add(logs["updates/out/kernel"], logs["updates/out/bias"])
    if every == 2 and BACKEND != "tensorflow":
        # Built before the first epoch there: that is the first measurement.
        assert moved.tolist() == [0, 4]
        assert counter.history["epoch"] == [-1, 1]
    else:
        assert moved.tolist() == [2, 2]
        assert counter.history["epoch"][-2:] == [0, 1]


def test_layer_update_counter_wants_dsgd():
    model = network()
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="Expected optimizer=DSGD"):
        model.fit(*examples(), verbose=0, callbacks=[LayerUpdateCounter()])


@pytest.mark.parametrize(
    "options,match",
    [
        ({"norm": 3}, "norm"),
        ({"norm": True}, "norm"),
        ({"norm": "2"}, "norm"),
        ({"selection": "best"}, "selection"),
        ({"polar_accuracy": 0.9}, "polar_accuracy"),
        ({"smoothness": "smooth"}, "smoothness"),
        ({"smoothness": None}, "smoothness"),
        ({"momentum": 1.0}, "momentum"),
        ({"smoothness": "constant", "momentum": 0.5}, "momentum"),
        ({"smoothness": "constant", "blocks": {"kernel": 2}}, "blocks"),
        ({"blocks": {}}, "blocks"),
        ({"blocks": {"kernel": "columns"}}, "kernel"),
        ({"blocks": {"kernel": 0}}, "kernel"),
        ({"norm_refresh": 2}, "norm_refresh"),
        ({"norm_refresh": 0}, "norm_refresh"),
        ({"norm_refresh": 2.0}, "norm_refresh"),
        ({"clipnorm": 1.0, "selection": "greedy"}, "clipnorm"),
        (
            {"norm_refresh": 2, "use_ema": True, "ema_overwrite_frequency": 3},
            "ema_overwrite_frequency",
        ),
    ],
)
def test_errors(options, match):
    with pytest.raises(ValueError, match=match):
        DSGD(**options)


def test_a_record_of_another_norm_or_model_is_refused():
    record = LayerwiseSmoothness.from_model(network(), 1, loss=SumOfSquares())
    with pytest.raises(ValueError, match="norm"):
        DSGD(norm=2, smoothness=record)
    other = contract.network(contract.OPTIMIZERS["dsgd_1"])
    before = contract.weights_of(other)
    other.compile(DSGD(norm=1, smoothness=record), contract.LOSS)
    with pytest.raises(ValueError, match=r"\(4, 6\)(.|\n)*\(5, 6\)"):
        contract.fitted(other)
    contract.assert_same(contract.weights_of(other), before)


def test_followed_norms_refuse_constraints():
    model = keras.Sequential(
        [
            keras.Input((4,)),
            # Of this one no bound needs the norm.
            keras.layers.Dense(3, kernel_constraint="unit_norm"),
            keras.layers.Dense(3, kernel_constraint="unit_norm", name="out"),
        ]
    )
    with pytest.raises(ValueError, match="constraint(.|\n)*out/kernel"):
        variables = model.trainable_variables
        record = LayerwiseSmoothness.from_variables(variables)
        DSGD(smoothness=record, norm_refresh=2).build(variables)


def test_clipnorm_is_allowed_where_nothing_competes():
    model = network()
    optimizer = DSGD(0.1, selection="all", clipnorm=1e-3)
    apply(model, optimizer, random_gradients(model))

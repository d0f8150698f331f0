"""LipschitzEstimator: which constants it sets, when, and what it refuses."""

import keras
import numpy as np
import pytest
from keras import layers
from keras import ops

from tests.helpers import BACKEND
from tests.helpers import assert_close
from tf_spectral import bounds
from tf_spectral.callbacks import LipschitzEstimator
from tf_spectral.callbacks.lipschitz import CertifiedSteps
from tf_spectral.callbacks.networks import labels
from tf_spectral.callbacks.networks import softmax_network
from tf_spectral.layers import OrthogonalRNN
from tf_spectral.layers import SpectralRNN
from tf_spectral.optimizers import DSGD
from tf_spectral.optimizers import SpectralDescent

pytestmark = pytest.mark.usefixtures("eager")

SPARSE = "sparse_categorical_crossentropy"
RNG = np.random.default_rng(0)
X = RNG.normal(size=(8, 5, 3)).astype("float32")
Y = RNG.integers(0, 4, size=(8, 5))
IDS = RNG.integers(0, 6, size=(8, 5))


def bounded(**options):
    return SpectralDescent(lipschitz="bound", **options)


def rnn_model(*before, rnn=None, head="softmax", **options):
    if rnn is None:
        rnn = layers.SimpleRNN(6, return_sequences=True, name="rnn")
    optimizer = options.pop("optimizer", None) or bounded()
    if BACKEND == "tensorflow" and "steps_per_execution" not in options:
        # A few steps of a small network are done before a graph is traced.
        options["run_eagerly"] = True
    shape, dtype = ((5,), "int32") if before else ((5, 3), None)
    model = keras.Sequential(
        [
            keras.Input(shape, dtype=dtype),
            *before,
            rnn,
            layers.Dense(4, head, name="out"),
        ]
    )
    model.compile(optimizer, options.pop("loss", SPARSE), **options)
    return model


def dense_model(*before, optimizer=None, loss=SPARSE):
    model = keras.Sequential(
        [
            keras.Input((3,)),
            *before,
            layers.Dense(4, "softmax", name="out"),
        ]
    )
    model.compile(optimizer or bounded(), loss)
    return model


def fit(model, estimator, x=X, y=Y, epochs=1, batch=8, **options):
    return model.fit(
        x,
        y,
        batch_size=batch,
        epochs=epochs,
        callbacks=[estimator],
        verbose=0,
        shuffle=False,
        **options,
    ).history


def constants_of(model):
    return ops.convert_to_numpy(model.optimizer.constants)


@pytest.fixture
def stub(monkeypatch):
    """Known constants in place of the real ones, and how they were asked."""
    calls = []
    names = ("input", "recurrent", "output", "bias", "output_bias")

    def constants(**arguments):
        calls.append(arguments)
        return {name: float(i + 1) for i, name in enumerate(names)}

    monkeypatch.setattr(bounds, "rnn_lipschitz_constants", constants)
    return calls


def test_constants_reach_the_weights_they_belong_to(stub):
    model = rnn_model()
    estimator = LipschitzEstimator(X, safety=3.0, tier="tensor")
    logs = fit(model, estimator)
    arguments = stub[0]
    np.testing.assert_array_equal(arguments["x"], X)
    assert arguments["tier"] == "tensor" and arguments["outputs"] == "all"
    assert arguments["activation"] is keras.activations.tanh
    # In the order of `trainable_variables`: the bias comes third.
    expected = 3.0 * np.array([1.0, 2.0, 4.0, 3.0, 5.0])
    np.testing.assert_allclose(constants_of(model), expected)
    assert logs["lipschitz/out/kernel"] == [9.0]
    assert logs["lipschitz/simple_rnn_cell/recurrent_kernel"] == [6.0]
    assert (
        arguments["recurrent_kernel"] is model.layers[0].cell.recurrent_kernel
    )


def test_what_is_measured_when(stub):
    model = rnn_model()
    estimator = LipschitzEstimator(X, every=3)
    fit(model, estimator, epochs=4, batch=4)
    assert estimator.history["batch"] == [0, 3, 6]
    # A later training measures anew.
    fit(model, estimator, batch=4)
    assert estimator.history["batch"] == [0, 3, 6, 0]


@pytest.mark.skipif(BACKEND == "torch", reason="not in PyTorch's trainer")
@pytest.mark.usefixtures("compiled_functions")
def test_several_steps_in_an_execution(stub):
    model = rnn_model(steps_per_execution=2)
    estimator = LipschitzEstimator(X, every=3)
    fit(model, estimator, epochs=2, batch=2)
    # Keras 3.8 tells the first batch of an execution, later ones the last.
    assert estimator.history["batch"] in ([0, 4], [0, 3])


def test_numbers_stay_and_frozen_weights_are_left_out(stub):
    optimizer = SpectralDescent(
        lipschitz={"recurrent_kernel": 7.0, "default": "bound"}
    )
    model = rnn_model(optimizer=optimizer)
    model.layers[1].trainable = False
    model.compile(optimizer, SPARSE)
    logs = fit(model, LipschitzEstimator(X, safety=1.0))
    np.testing.assert_allclose(constants_of(model), [1.0, 7.0, 4.0])
    assert not any("out" in name or "recurrent" in name for name in logs)


@pytest.mark.parametrize("tier", ["vector", "global"])
def test_real_constants(tier):
    """Those of the network, whatever layer holds it, at its last step."""
    rnn = OrthogonalRNN(6, activation="tanh", name="rnn", go_backwards=True)
    model = rnn_model(rnn=rnn)
    kernels = [rnn.cell.kernel, rnn.cell.recurrent_kernel]
    expected = bounds.rnn_lipschitz_constants(
        *kernels,
        model.layers[1].kernel,
        X[:, ::-1].copy(),
        bias=rnn.cell.bias,
        outputs="last",
        tier=tier,
    )
    expected = {k: float(ops.convert_to_numpy(v)) for k, v in expected.items()}
    fit(model, LipschitzEstimator(X, tier=tier, safety=1.0), y=Y[:, 0])
    names = {
        "kernel": "input",
        "recurrent_kernel": "recurrent",
        "out/kernel": "output",
        "out/bias": "output_bias",
        "bias": "bias",
    }
    variables = model.trainable_variables
    assert len(variables) == 5
    for variable, value in zip(variables, constants_of(model)):
        end = variable.name
        end = f"out/{end}" if "out/" in variable.path else end
        assert_close(value, expected[names[end]], 1e-4)


def test_the_embedding_is_an_input_kernel_in_disguise():
    """Its table times the kernel is the kernel of one-hot inputs."""
    model = rnn_model(layers.Embedding(6, 3, name="table"))
    network = softmax_network(model)
    cell = network.cell
    constants = network.constants(IDS)
    names = [v.path for v in network.weights()]
    place = next(i for i, name in enumerate(names) if "embeddings" in name)
    table = ops.convert_to_numpy(network.embedding.embeddings)
    kernel = ops.convert_to_numpy(cell.kernel)
    expected = bounds.rnn_lipschitz_constants(
        table @ kernel,
        cell.recurrent_kernel,
        network.head.kernel,
        np.eye(6, dtype="float32")[IDS],
    )
    size = np.linalg.norm(kernel, 2) ** 2
    expected = size * float(ops.convert_to_numpy(expected["input"]))
    value = float(ops.convert_to_numpy(constants[place]))
    # The norm of the kernel is known from above.
    assert expected * (1 - 1e-5) <= value <= 1.1 * expected


def test_a_dense_softmax_needs_no_recurrence():
    x = X[:, 0]
    model = dense_model()
    fit(model, LipschitzEstimator(x, safety=1.0), x=x, y=Y[:, 0])
    squares = np.mean(np.sum(x.astype("float64") ** 2, axis=1))
    assert_close(constants_of(model), [squares, 1.0], 1e-5)


def test_the_last_layer_of_a_deep_network():
    x = X[:, 0]
    optimizer = SpectralDescent(lipschitz={"out": 1.0, "default": 5.0})
    with pytest.raises(ValueError, match="does not exist"):
        fit(
            dense_model(optimizer=optimizer),
            LipschitzEstimator(x),
            x=x,
            y=Y[:, 0],
        )
    given = {"out/kernel": "bound", "out/bias": "bound", "default": 50.0}
    optimizer = SpectralDescent(0.01, lipschitz=given)
    hidden = layers.Dense(6, "tanh", name="hidden")
    model = dense_model(hidden, optimizer=optimizer)
    states = ops.convert_to_numpy(hidden(x))
    fit(model, LipschitzEstimator(x), x=x, y=Y[:, 0])
    squares = np.mean(np.sum(states**2, axis=1))
    assert_close(constants_of(model)[2:], [2 * squares, 2.0], 1e-5)
    with pytest.raises(ValueError, match="hidden/kernel"):
        fit(
            dense_model(layers.Dense(6, name="hidden")),
            LipschitzEstimator(x),
            x=x,
            y=Y[:, 0],
        )


def test_training_descends_with_each_tier():
    for options in ({}, {"tier": "global"}, {"residual": True, "y": Y}):
        keras.utils.set_random_seed(0)
        model = rnn_model()
        estimator = LipschitzEstimator(X, every=1, **options)
        losses = fit(model, estimator, epochs=3)["loss"]
        assert np.all(np.diff(losses) < 0)


def test_the_global_tier_bounds_the_step_of_the_recurrent_kernel():
    model = rnn_model(optimizer=bounded(radius={"out/bias": 0.1}))
    fit(model, LipschitzEstimator(X, Y, tier="global"))
    radii = ops.convert_to_numpy(model.optimizer.radii)
    names = [v.name for v in model.trainable_variables]
    place = names.index("recurrent_kernel")
    assert 0 < radii[place] < 1
    others = np.delete(radii, place)
    fit(model, LipschitzEstimator(X))
    radii = ops.convert_to_numpy(model.optimizer.radii)
    assert np.isinf(radii[place])
    assert np.isinf(others[:-1]).all() and others[-1] == np.float32(0.1)


def measured_trials():
    keras.utils.set_random_seed(0)
    model = rnn_model()
    trials = CertifiedSteps(model, X, Y, "exact")
    trials.refresh()
    return model, trials


def test_trials_know_the_loss_and_its_gradient():
    model, trials = measured_trials()
    loss = float(model.evaluate(X, Y, verbose=0, batch_size=8))
    assert_close(trials._start, loss, 1e-5)
    # By central differences along the direction of the step.
    for place in range(5):
        up, down = (
            trials._loss(trials._moved(place, t)) for t in (-0.01, 0.01)
        )
        slope = (up - down) / 0.02
        assert_close(slope, trials.dual_norm(place), 0.01)


def test_backtracking_finds_the_least_factor_that_keeps_the_promise():
    _, trials = measured_trials()
    for place in range(5):
        dual = trials.dual_norm(place)
        factor = trials.certified_factor(place, 1.0, 1e-4, np.inf)

        for trial, keeps in ((factor, True), (factor / 2, False)):
            moved = trials._moved(place, dual / trial)
            gain = trials._start - trials._loss(moved)
            assert (gain >= dual**2 / (4 * trial)) == keeps
        lower = trials.certified_factor(place, 1.0, 1e3 * factor, np.inf)
        assert_close(lower, 1e3 * factor * 2**-0.25, 1e-6)
        # Too short a step for its gain to be seen.
        assert trials.certified_factor(place, 1e12, 1.0, np.inf) == 1.0
    # A radius shortens the first trial until it succeeds.
    assert trials.certified_factor(0, 1.0, 1e-4, 1e-2) < 1e-4


@pytest.mark.usefixtures("compiled_functions")
def test_backtracking_in_training():
    model = rnn_model()
    estimator = LipschitzEstimator(X, Y, every=1, backtracking=True)
    losses = fit(model, estimator, epochs=3)["loss"]
    assert np.all(np.diff(losses) < 0)
    values = estimator.history["lipschitz/out/bias"]
    assert values[-1] < values[0] < 2.0


@pytest.mark.skipif(BACKEND == "torch", reason="no float16 products there")
def test_mixed_precision():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = rnn_model()
        fit(model, LipschitzEstimator(X, Y, backtracking=True, residual=True))
    finally:
        keras.config.set_dtype_policy(before)
    constants = model.optimizer.inner_optimizer.constants
    assert np.isfinite(ops.convert_to_numpy(constants)).all()


def test_zero_constants_mean_no_step():
    """One step from a zero state: the recurrent kernel has no effect."""
    model = rnn_model()
    x, y = X[:, :1], Y[:, :1]
    fit(model, LipschitzEstimator(x), x=x, y=y)
    names = [v.name for v in model.trainable_variables]
    assert np.isinf(constants_of(model)[names.index("recurrent_kernel")])


def test_constants_that_overflow_are_told_once():
    model = rnn_model()
    kernel = model.layers[0].cell.recurrent_kernel
    kernel.assign(1e30 * ops.ones((6, 6)))
    with pytest.warns(UserWarning, match="recurrent_kernel.*overflow") as seen:
        fit(model, LipschitzEstimator(X, every=1), epochs=2)
    assert sum("overflow" in str(w.message) for w in seen) == 1
    kept = ops.convert_to_numpy(kernel)
    np.testing.assert_array_equal(kept, np.full((6, 6), 1e30, "float32"))


def test_labels_as_the_bounds_take_them():
    model = rnn_model()
    network = softmax_network(model)
    assert labels(model, network, Y[..., None]).shape == Y.shape
    loss = keras.losses.CategoricalCrossentropy(label_smoothing=0.2)
    model = rnn_model(loss=loss)
    smooth = labels(model, network, np.eye(4, dtype="float32")[Y])
    assert_close(ops.convert_to_numpy(smooth), 0.8 * np.eye(4)[Y] + 0.05, 1e-6)


def functional_with_a_bypass():
    inputs = keras.Input((3,))
    dense = layers.Dense(3, "tanh")
    outputs = layers.Dense(4, "softmax")(dense(dense(inputs)))
    model = keras.Model(inputs, outputs)
    model.compile(SpectralDescent(lipschitz={"default": "bound"}), SPARSE)
    return model


def without_head():
    model = keras.Sequential(
        [keras.Input((3,)), layers.Dense(4), layers.Softmax()]
    )
    model.compile(bounded(), SPARSE)
    return model


LOGITS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
MISFITS = {
    "gated": lambda: rnn_model(
        rnn=layers.GRU(4, return_sequences=True, name="gated")
    ),
    "relu": lambda: rnn_model(
        rnn=layers.SimpleRNN(4, "relu", return_sequences=True, name="relu")
    ),
    "modrelu": lambda: rnn_model(
        rnn=OrthogonalRNN(4, return_sequences=True, name="modrelu")
    ),
    "dropout": lambda: rnn_model(
        rnn=layers.SimpleRNN(4, dropout=0.1, return_sequences=True)
    ),
    "u_reflectors": lambda: rnn_model(
        rnn=SpectralRNN(4, activation="tanh", return_sequences=True)
    ),
    "mask_zero": lambda: rnn_model(layers.Embedding(6, 3, mask_zero=True)),
    "softmax": lambda: rnn_model(head=None),
    "from_logits": lambda: rnn_model(loss=LOGITS),
    "entropy": lambda: rnn_model(loss="mse"),
    "batch_normalization": lambda: dense_model(layers.BatchNormalization()),
    "Dense layer at the end": without_head,
    "chain": functional_with_a_bypass,
    "SpectralDescent": lambda: rnn_model(optimizer=DSGD()),
    "no constant": lambda: rnn_model(optimizer=SpectralDescent(lipschitz=1.0)),
    '"bound"': lambda: rnn_model(optimizer=SpectralDescent()),
}


@pytest.mark.parametrize("match", sorted(MISFITS))
def test_what_does_not_fit_is_named(match):
    model = MISFITS[match]()
    x = X if len(model.input_shape) == 3 else X[:, 0]
    x = IDS if match == "mask_zero" else x
    y = Y if len(model.output_shape) == 3 else Y[:, 0]
    y = np.eye(4, dtype="float32")[Y] if match == "entropy" else y
    with pytest.raises(ValueError, match=match):
        fit(model, LipschitzEstimator(x), x=x, y=y)


@pytest.mark.parametrize(
    "options,match",
    [
        ({"every": 0}, "every"),
        ({"every": 2.0}, "every"),
        ({"tier": "best"}, "tier"),
        ({"safety": 0}, "safety"),
        ({"safety": np.inf}, "safety"),
        ({"backtracking": True}, "`y`"),
        ({"residual": True}, "`y`"),
        ({"residual": True, "y": Y, "tier": "global"}, "residual"),
    ],
)
def test_errors(options, match):
    with pytest.raises(ValueError, match=match):
        LipschitzEstimator(X, **options)

import csv

import keras
import numpy as np
import pytest
from keras import layers

from tests.helpers import BACKEND
from tf_spectral.callbacks import SpectrumMonitor
from tf_spectral.callbacks.spectrum import spectral_weights
from tf_spectral.constraints import Orthogonal as Constraint
from tf_spectral.layers import OrthogonalRNN
from tf_spectral.layers import SpectralDense
from tf_spectral.layers import SpectralRNN
from tf_spectral.layers import SpectralRNNCell
from tf_spectral.parametrizations import SVD
from tf_spectral.parametrizations import Orthogonal

pytestmark = pytest.mark.usefixtures("eager")

QUANTITIES = (
    "sigma_min",
    "sigma_max",
    "spectral_margin",
    "orthogonality_error",
)
X = np.random.default_rng(0).normal(size=(8, 5, 3)).astype("float32")
Y = np.random.default_rng(1).normal(size=(8, 1)).astype("float32")


def compiled(*stack):
    model = keras.Sequential([layers.Input((None, 3)), *stack, layers.Dense(1)])
    model.compile(keras.optimizers.Adam(0.1), "mse")
    return model


def fit(model, *callbacks, epochs=3, **kwargs):
    return model.fit(
        X,
        Y,
        batch_size=4,
        epochs=epochs,
        callbacks=list(callbacks),
        verbose=0,
        **kwargs,
    ).history


def svd_of(matrix):
    matrix = keras.ops.convert_to_numpy(matrix).astype("float64")
    return np.linalg.svd(matrix, compute_uv=False)


@pytest.mark.parametrize("mode", ["sigmoid", "free", "fixed"])
@pytest.mark.costly
def test_values_are_those_of_the_matrix(mode):
    rnn = SpectralRNN(6, reflectors=3, sigma_radius=0.3, sigma_mode=mode)
    monitor = SpectrumMonitor()
    history = fit(compiled(rnn), monitor)
    sigma = svd_of(rnn.matrix())
    expected = [sigma.min(), sigma.max(), np.abs(sigma - 1).max()]
    names = [f"spectral_rnn/{q}" for q in QUANTITIES]
    actual = [history[name][-1] for name in names]
    np.testing.assert_allclose(actual[:3], expected, atol=2e-6)
    assert 0 <= actual[3] < 1e-5
    assert all(type(v) is float for v in actual)
    if mode != "fixed":
        assert expected[2] > 1e-2


def test_negative_sigma_counts_by_its_size():
    svd = SVD((4, 4), sigma_mode="free")
    svd.assign_matrix(np.diag([1.5, -2.0, 0.25, -1.0]).astype("float32"))
    svd._sigma.assign([1.5, -2.0, 0.25, -1.0])
    (measure,) = spectral_weights(_model_of(svd)).values()
    values = measure()
    assert values["sigma_min"] == pytest.approx(0.25)
    assert values["sigma_max"] == pytest.approx(2.0)
    assert values["spectral_margin"] == pytest.approx(1.0)


def test_orthogonality_error_is_that_of_the_worse_factor(monkeypatch):
    svd = SVD((3, 5), reflectors=(2, 3), dtype="float64")
    svd.build()
    spoiled = {2: 1.01 * np.eye(5), 3: 1.02 * np.eye(3)}
    monkeypatch.setattr(
        "tf_spectral.callbacks.spectrum.householder_product",
        lambda v: keras.ops.convert_to_tensor(spoiled[v.shape[0]]),
    )
    (measure,) = spectral_weights(_model_of(svd)).values()
    error = measure()["orthogonality_error"]
    assert error == pytest.approx(1.02**2 - 1, rel=1e-4)


def test_history_starts_before_training():
    rnn = SpectralRNN(6, sigma_radius=0.3)
    monitor = SpectrumMonitor()
    model = compiled(rnn)
    history = fit(model, monitor, epochs=2)
    assert monitor.history["epoch"] == [-1, 0, 1]
    margins = monitor.history["spectral_rnn/spectral_margin"]
    assert margins[0] < 1e-6 < margins[1] < margins[2]
    assert margins[1:] == history["spectral_rnn/spectral_margin"]
    fit(model, monitor, epochs=3, initial_epoch=2)
    assert monitor.history["epoch"] == [-1, 0, 1, 2]


def test_every_repeats_the_last_measured_value():
    monitor = SpectrumMonitor(every=2)
    rnn = SpectralRNN(6, sigma_radius=0.3)
    logged = fit(compiled(rnn), monitor, epochs=5)
    measured = monitor.history["spectral_rnn/sigma_max"]
    assert monitor.history["epoch"] == [-1, 1, 3]
    start, second, fourth = measured
    assert start != second != fourth
    assert logged["spectral_rnn/sigma_max"] == [
        start,
        second,
        second,
        fourth,
        fourth,
    ]


def test_csv_logger_after_it_has_all_columns(tmp_path):
    path = tmp_path / "log.csv"
    monitor = SpectrumMonitor(every=2)
    logger = keras.callbacks.CSVLogger(str(path))
    fit(compiled(SpectralRNN(6)), monitor, logger, validation_data=(X, Y))
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3
    for quantity in QUANTITIES:
        values = [float(row[f"spectral_rnn/{quantity}"]) for row in rows]
        assert np.isfinite(values).all()


def test_names_where_the_weights_are():
    inputs = layers.Input((None, 3))
    nested = keras.Sequential(
        [SpectralRNN(4, return_sequences=True, name="low")], name="encoder"
    )
    x = nested(inputs)
    x = layers.Bidirectional(
        SpectralRNN(4, return_sequences=True, name="rnn"), name="both"
    )(x)
    cells = [SpectralRNNCell(4, name="a"), SpectralRNNCell(4, name="b")]
    x = layers.RNN(cells, name="stack")(x)
    model = keras.Model(inputs, layers.Dense(1)(x))
    names = list(spectral_weights(model))
    assert sorted(names) == [
        "both/backward_rnn",
        "both/forward_rnn",
        "encoder",
        "stack/stacked_rnn_cells/a",
        "stack/stacked_rnn_cells/b",
    ]


def test_names_survive_reloading(tmp_path):
    rnn = SpectralRNN(4, name="rnn", return_sequences=True)
    stack = (layers.Bidirectional(rnn, name="both"), SpectralRNN(4, name="top"))
    model = compiled(*stack)
    path = tmp_path / "model.keras"
    model.save(path)
    reloaded = keras.models.load_model(path)
    names = list(spectral_weights(model))
    assert names == list(spectral_weights(reloaded))
    assert sorted(names) == ["both/backward_rnn", "both/forward_rnn", "top"]


def test_equal_names_are_numbered_and_shared_layers_counted_once():
    class Twins(keras.Model):
        def __init__(self):
            super().__init__()
            self.first = SVD((2, 2), name="svd")
            self.second = Orthogonal(2, name="svd")
            self.tower = keras.Sequential([self.first])

    assert list(spectral_weights(Twins())) == ["svd", "svd_1"]


def test_rectangular_and_orthogonal_weights():
    model = _model_of(SVD((3, 5), name="svd"), Orthogonal(4, name="q"))
    for measure in spectral_weights(model).values():
        values = measure()
        assert values["spectral_margin"] == 0.0
        assert values["orthogonality_error"] < 1e-5


def test_weights_under_the_constraint():
    rnn = OrthogonalRNN(6, activation="tanh", name="rnn")
    history = fit(compiled(rnn), SpectrumMonitor(), epochs=2)
    assert history["rnn/spectral_margin"][-1] < 1e-6
    assert history["rnn/orthogonality_error"][-1] < 1e-6
    assert history["rnn/sigma_min"][-1] == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize(
    "shape,blocks", [((4, 4), 1), ((5, 3), 1), ((3, 5), 1), ((3, 6), 2)]
)
def test_values_of_the_constraint_are_those_of_its_blocks(shape, blocks):
    dense = layers.Dense(shape[1], kernel_constraint=Constraint(blocks))
    dense.build((None, shape[0]))
    # The later a column, the larger: the last block is the worst.
    w = np.random.default_rng(0).normal(size=shape)
    w *= np.linspace(0.5, 2.0, shape[1])
    dense.kernel.assign(w)
    (measure,) = spectral_weights(_model_of(dense)).values()
    values = measure()
    w = keras.ops.convert_to_numpy(dense.kernel).astype("float64")
    parts = np.split(w, blocks, axis=1)
    sigma = np.concatenate([svd_of(part) for part in parts])
    tall = [p if p.shape[0] >= p.shape[1] else p.T for p in parts]
    gaps = [np.linalg.norm(p.T @ p - np.eye(p.shape[1]), 2) for p in tall]
    expected = [
        sigma.min(),
        sigma.max(),
        abs(sigma - 1).max(),
        max(gaps),
    ]
    np.testing.assert_allclose([values[q] for q in QUANTITIES], expected)


def test_names_of_weights_under_the_constraint():
    constraint = Constraint()
    both = layers.SimpleRNN(
        4,
        kernel_constraint=constraint,
        recurrent_constraint=constraint,
        return_sequences=True,
        name="both",
    )
    one = layers.SimpleRNN(4, recurrent_constraint=constraint, name="one")

    class Owner(keras.Model):
        def __init__(self):
            super().__init__(name="owner")
            self.parts = keras.Sequential([both, one], name="parts")
            self.parts.build((None, None, 3))
            self.scale = self.add_weight(
                shape=(3, 3), constraint=constraint, name="scale"
            )

    assert sorted(spectral_weights(Owner())) == [
        "owner",
        "parts/both/simple_rnn_cell/kernel",
        "parts/both/simple_rnn_cell/recurrent_kernel",
        "parts/one",
    ]


@pytest.mark.parametrize("every", [0, -1, 1.5, True, None])
def test_every_must_be_a_positive_integer(every):
    with pytest.raises(ValueError, match="`every`"):
        SpectrumMonitor(every=every)


def test_model_without_spectral_weights():
    with pytest.raises(ValueError, match="no weight to monitor"):
        fit(compiled(layers.SimpleRNN(4)), SpectrumMonitor())


@pytest.mark.skipif(BACKEND == "torch", reason="PyTorch has no XLA here")
@pytest.mark.usefixtures("compiled_functions")
def test_beside_a_compiled_train_step():
    model = compiled(SpectralRNN(6, sigma_radius=0.3))
    model.compile("sgd", "mse", jit_compile=True)
    history = fit(model, SpectrumMonitor(), epochs=1)
    assert "spectral_rnn/sigma_min" in history


def _model_of(*weights):
    class Holder(keras.Model):
        def __init__(self):
            super().__init__()
            self.weights_held = list(weights)

    return Holder()


def test_a_model_that_its_first_batch_builds():
    """All weights are found, also those that a layer makes in `build`."""
    rnn = SpectralRNN(4, name="rnn")
    dense = SpectralDense(3, name="dense")
    x, y = np.ones((4, 5, 2), "float32"), np.ones((4, 3), "float32")
    model = keras.Sequential([rnn, dense])
    model.compile("adam", "mse", run_eagerly=True)
    monitor = SpectrumMonitor()
    logs = model.fit(x, y, verbose=0, callbacks=[monitor]).history
    assert {"rnn/sigma_min", "dense/sigma_min"} <= set(logs)
    assert monitor.history["epoch"][-1] == 0
    model = keras.Sequential([layers.Flatten(), layers.Dense(3)])
    model.compile("adam", "mse", run_eagerly=True)
    with pytest.raises(ValueError, match="no weight to monitor"):
        model.fit(x, y, verbose=0, callbacks=[SpectrumMonitor()])

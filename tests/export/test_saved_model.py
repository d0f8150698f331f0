"""SavedModels answer as the model does, by whole sequences and by steps."""

import warnings

import keras
import numpy as np
import pytest
from keras import layers

from tests.export.models import FEATURES
from tests.export.models import RNG
from tests.export.models import STACKS
from tests.export.models import bidirectional
from tests.export.models import functional
from tests.export.models import inputs
from tests.export.models import sequential
from tests.export.models import values
from tests.helpers import BACKEND
from tests.helpers import assert_close
from tf_spectral.export import export_saved_model
from tf_spectral.layers import SpectralConv1D
from tf_spectral.layers import SpectralConv2D
from tf_spectral.layers import SpectralDense
from tf_spectral.layers import SpectralRNN

if BACKEND == "tensorflow":
    import tensorflow as tf
else:
    tf = None

on_tensorflow = pytest.mark.skipif(tf is None, reason="SavedModels are TF's")


def slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


def signatures(folder):
    return tf.saved_model.load(folder).signatures


def stepwise(served, x):
    """All outputs `(batch, time, ...)` of a loop over `step`."""
    state, outputs = served["initial_state"](batch_size=tf.constant(len(x))), []
    for t in range(x.shape[1]):
        state = dict(served["step"](inputs=tf.constant(x[:, t]), **state))
        outputs.append(state.pop("outputs"))
    return np.stack(outputs, axis=1)


@on_tensorflow
@pytest.mark.parametrize(
    "name", [n if n == "stack" else slow(n) for n in STACKS]
)
def test_steps_end_where_the_whole_sequence_does(name, tmp_path):
    model = functional(*STACKS[name]())
    for variable in model.trainable_variables:
        if "initial_state" in variable.path or "bias" in variable.path:
            variable.assign(RNG.normal(size=variable.shape))
    served = signatures(export_saved_model(model, tmp_path / "m"))
    assert set(served) == {"serving_default", "step", "initial_state"}
    for signature in served.values():
        assert not python_in(signature)
    for x in (inputs(), inputs(batch=1, time=1)):
        expected = values(model(x))
        whole = served["serving_default"](inputs=tf.constant(x))["outputs"]
        assert_close(whole, expected, 1e-5)
        assert_close(stepwise(served, x)[:, -1], expected, 1e-5)


@on_tensorflow
@pytest.mark.parametrize("materialize", [False, slow(True)])
def test_steps_of_a_model_that_returns_sequences(materialize, tmp_path):
    stack = (
        SpectralRNN(8, reflectors=2, return_sequences=True, form="low_rank"),
        layers.GRU(3, return_sequences=True),
        layers.Dense(2, activation="softmax"),
    )
    model, x = sequential(*stack, time=7), inputs()
    folder = export_saved_model(model, tmp_path / "m", materialize=materialize)
    served = signatures(folder)
    expected = values(model(x[:, :7]))
    assert_close(stepwise(served, x)[:, :7], expected, 1e-5)
    whole = served["serving_default"](inputs=tf.constant(x))["outputs"]
    assert_close(stepwise(served, x), whole, 1e-5)


@on_tensorflow
@pytest.mark.parametrize("form", [slow("dense"), "low_rank"])
def test_materialized_graphs_hold_the_matrix_and_no_reflectors(form, tmp_path):
    rnn = SpectralRNN(8, reflectors=(2, 4), form=form)
    model, x = sequential(rnn), inputs()
    expected = values(model(x))
    shapes, operations = {}, {}
    for materialize in (True, False):
        folder = export_saved_model(
            model, tmp_path / "m", materialize=materialize
        )
        loaded = tf.saved_model.load(folder)
        served = loaded.signatures
        shapes[materialize] = {
            tuple(v.shape) for v in served["step"].graph.variables
        }
        operations[materialize] = operations_in(served["step"])
        assert_close(stepwise(served, x)[:, -1], expected, 1e-5)
    reflectors = {(2, 8), (4, 8)}
    assert reflectors <= shapes[False]
    assert not reflectors & shapes[True]
    assert ((8, 8) if form == "dense" else (8, 6)) in shapes[True]
    assert operations[True] < operations[False] / 2
    # The model is as it was.
    assert "matrix" not in vars(rnn.cell.svd)
    rnn.cell.svd._u.assign(RNG.normal(size=(2, 8)))
    assert np.abs(values(model(x)) - expected).max() > 1e-3


@on_tensorflow
def test_mixed_precision(tmp_path):
    model = sequential(SpectralRNN(4, dtype="mixed_bfloat16"), layers.Dense(1))
    served = signatures(export_saved_model(model, tmp_path / "m"))
    x = inputs()
    state = served["initial_state"](batch_size=tf.constant(4))
    assert state["state_0"].dtype == tf.bfloat16
    expected = values(model(x))
    assert_close(stepwise(served, x)[:, -1], expected, 0.05)


@on_tensorflow
def test_integer_inputs(tmp_path):
    x = RNG.integers(0, 9, size=(2, 5))
    model = keras.Sequential(
        [
            layers.Input((None,), dtype="int32"),
            layers.Embedding(9, 3),
            layers.SimpleRNN(4, return_sequences=True),
        ]
    )
    served = signatures(export_saved_model(model, tmp_path / "m"))
    expected = values(model(x))
    assert_close(stepwise(served, x.astype("int32")), expected, 1e-5)


@on_tensorflow
@pytest.mark.parametrize("fixed", ["unroll", "time_distributed"])
def test_layers_that_need_a_length_keep_it(fixed, tmp_path):
    if fixed == "unroll":
        stack = [layers.SimpleRNN(4, unroll=True)]
    else:
        stack = [layers.TimeDistributed(layers.Dense(5)), SpectralRNN(4)]
    model = sequential(*stack, time=5)
    served = signatures(export_saved_model(model, tmp_path / "m"))
    x = inputs(time=5)
    expected = values(model(x))
    whole = served["serving_default"](inputs=tf.constant(x))["outputs"]
    assert_close(whole, expected, 1e-5)
    assert_close(stepwise(served, x)[:, -1], expected, 1e-5)


@on_tensorflow
def test_model_without_recurrent_layer_serves_whole_inputs(tmp_path):
    model = keras.Sequential([layers.Input((3,)), layers.Dense(2)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        folder = export_saved_model(model, tmp_path / "m")
    served = signatures(folder)
    assert set(served) == {"serving_default"}
    x = inputs()[:, 0]
    whole = served["serving_default"](inputs=tf.constant(x))["outputs"]
    assert_close(whole, values(model(x)), 1e-5)


@on_tensorflow
def test_several_inputs_and_outputs(tmp_path):
    a = layers.Input((None, FEATURES), name="series")
    b = layers.Input((2,), name="constants")
    h = SpectralRNN(4)(a)
    model = keras.Model({"a": a, "b": b}, [h, layers.Concatenate()([h, b])])
    with pytest.warns(UserWarning, match="without the signatures"):
        folder = export_saved_model(model, tmp_path / "m")
    served = signatures(folder)["serving_default"]
    x, c = inputs(), np.ones((4, 2), "float32")
    outputs = served(series=tf.constant(x), constants=tf.constant(c))
    for i, expected in enumerate(model({"a": x, "b": c})):
        assert_close(outputs[f"outputs_{i}"], values(expected), 1e-5)


@on_tensorflow
def test_inputs_named_as_no_argument_may_be(tmp_path):
    names = ["a b", "a_b", "_a", "self", "é"]
    inputs = [keras.Input((3,), name=name) for name in names]
    model = keras.Model(inputs, keras.layers.Add()(inputs))
    version = export_saved_model(model, tmp_path / "model")
    served = tf.saved_model.load(version).signatures["serving_default"]
    arguments = ["a_b", "a_b_1", "a", "selfinput", "input"]
    assert sorted(served.structured_input_signature[1]) == sorted(arguments)
    x = {name: tf.fill((1, 3), 10.0**i) for i, name in enumerate(arguments)}
    [result] = served(**x).values()
    assert np.array_equal(result, np.full((1, 3), 11111.0))


@on_tensorflow
def test_streaming_on_demand(tmp_path):
    model = bidirectional()
    with pytest.raises(ValueError, match="`streaming`.*Bidirectional"):
        export_saved_model(model, tmp_path / "m", streaming=True)
    assert not list(tmp_path.iterdir())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        folder = export_saved_model(model, tmp_path / "m")
        export_saved_model(model, tmp_path / "m", streaming=False)
    ours = [w for w in caught if "`step`" in str(w.message)]
    assert len(ours) == 1 and ours[0].filename == __file__
    served, x = signatures(folder), inputs()
    assert set(served) == {"serving_default"}
    whole = served["serving_default"](inputs=tf.constant(x))["outputs"]
    assert_close(whole, values(model(x)), 1e-5)


@on_tensorflow
def test_streaming_can_be_left_out(tmp_path):
    model = sequential(SpectralRNN(4))
    folder = export_saved_model(model, tmp_path / "m", streaming=False)
    assert set(signatures(folder)) == {"serving_default"}


@on_tensorflow
def test_models_that_cannot_be_served(tmp_path):
    unbuilt = keras.Sequential([SpectralRNN(4)])
    with pytest.raises(ValueError, match="built Sequential or functional"):
        export_saved_model(unbuilt, tmp_path / "m")
    stateful = keras.Sequential(
        [
            layers.Input((None, FEATURES), batch_size=2),
            SpectralRNN(4, stateful=True, name="keeper"),
        ]
    )
    with pytest.raises(ValueError, match=r"stateful.*keeper"):
        export_saved_model(stateful, tmp_path / "m")
    unsure = sequential(layers.TimeDistributed(layers.Dense(2), name="each"))
    with pytest.raises(ValueError, match=r"TimeDistributed.*each"):
        export_saved_model(unsure, tmp_path / "m")
    assert not list(tmp_path.iterdir())


@on_tensorflow
def test_failure_while_writing_leaves_nothing(tmp_path, monkeypatch):
    def fail(self, path, **options):
        pathlib = tmp_path.__class__
        pathlib(path).mkdir()
        (pathlib(path) / "saved_model.pb").write_text("half")
        raise OSError("disk full")

    archive = type(keras.export.ExportArchive())
    monkeypatch.setattr(archive, "write_out", fail)
    rnn = SpectralRNN(4)
    with pytest.raises(OSError, match="disk full"):
        export_saved_model(sequential(rnn), tmp_path / "m")
    assert not list(tmp_path.iterdir())
    assert "matrix" not in vars(rnn.cell.svd)


@pytest.mark.skipif(tf is not None, reason="the other backends refuse")
def test_other_backends_are_refused(tmp_path):
    with pytest.raises(RuntimeError, match="TensorFlow backend"):
        export_saved_model(sequential(layers.GRU(4)), tmp_path / "m")
    assert not list(tmp_path.iterdir())


def python_in(function):
    """Operations that call back into a process that has Python."""
    graph = function.graph.as_graph_def()
    nodes = [
        *graph.node,
        *(n for f in graph.library.function for n in f.node_def),
    ]
    return {node.op for node in nodes if "PyFunc" in node.op}


def operations_in(function):
    graph = function.graph.as_graph_def()
    inner = sum(len(f.node_def) for f in graph.library.function)
    return len(graph.node) + inner


@on_tensorflow
@pytest.mark.parametrize(
    "form,return_sequences",
    [
        ("dense", True),
        ("low_rank", False),
        slow("dense", False),
        slow("low_rank", True),
    ],
)
@pytest.mark.costly
def test_keras_own_export_keeps_values_and_gradients(
    tmp_path, form, return_sequences
):
    model = keras.Sequential(
        [
            keras.Input((None, 2)),
            SpectralRNN(
                5, reflectors=1, form=form, return_sequences=return_sequences
            ),
        ]
    )
    model.export(str(tmp_path / "model"), verbose=False)
    served = tf.saved_model.load(str(tmp_path / "model"))
    x = tf.random.normal((3, 21, 2))

    def value_and_gradient(function):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = function(x)
            loss = tf.reduce_sum(y**2)
        return y, tape.gradient(loss, x)

    for expected, got in zip(
        value_and_gradient(lambda x: model(x, training=True)),
        value_and_gradient(served.serve),
    ):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def convolutional():
    return keras.Sequential(
        [
            layers.Input((6, 5, 2)),
            SpectralConv2D(4, 3, activation="relu", sigma_center="auto"),
            layers.Reshape((4, 12)),
            SpectralConv1D(3, 2, padding="causal", groups=3, reflectors=2),
            layers.Flatten(),
            SpectralDense(5, "modrelu", reflectors=1, form="low_rank"),
            SpectralDense(2, form="dense"),
        ]
    )


@on_tensorflow
@pytest.mark.parametrize("how", [slow("keras"), "frozen", slow("reflectors")])
def test_convolutions_and_dense_layers_answer_the_same(how, tmp_path):
    model = convolutional()
    folder = str(tmp_path / "model")
    if how == "keras":
        model.export(folder, verbose=False)
    else:
        folder = export_saved_model(model, folder, materialize=how == "frozen")
    served = tf.saved_model.load(folder).signatures["serving_default"]
    for batch in (1, 3):
        x = np.random.default_rng(batch).normal(size=(batch, 6, 5, 2))
        x = x.astype("float32")
        (name,) = served.structured_input_signature[1]
        (answer,) = served(**{name: tf.constant(x)}).values()
        expected = values(model(x))
        assert_close(answer.numpy(), expected, 1e-5)

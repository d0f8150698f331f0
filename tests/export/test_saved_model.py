import os
import tempfile
import threading
import time
import warnings
from concurrent import futures

import keras
import numpy as np
import pytest
from keras import layers

from tests.helpers import BACKEND
from tests.helpers import assert_close
from tf_spectral.export import export_saved_model
from tf_spectral.export import versions
from tf_spectral.export.streaming import chain_of
from tf_spectral.export.streaming import obstacle
from tf_spectral.layers import OrthogonalRNN
from tf_spectral.layers import OrthogonalRNNCell
from tf_spectral.layers import SpectralDense
from tf_spectral.layers import SpectralRNN
from tf_spectral.layers import SpectralRNNCell

if BACKEND == "tensorflow":
    import tensorflow as tf
else:
    tf = None

on_tensorflow = pytest.mark.skipif(tf is None, reason="SavedModels are TF's")
RNG = np.random.default_rng(0)
FEATURES = 3


def sequential(*stack, time=None):
    return keras.Sequential([layers.Input((time, FEATURES)), *stack])


def functional(*stack):
    x = inputs = layers.Input((None, FEATURES), name="series")
    for layer in stack:
        x = layer(x)
    return keras.Model(inputs, x)


def inputs(batch=4, time=11):
    return RNG.normal(size=(batch, time, FEATURES)).astype("float32")


def signatures(folder):
    return tf.saved_model.load(folder).signatures


def stepwise(served, x):
    """All outputs `(batch, time, ...)` of a loop over `step`."""
    state, outputs = served["initial_state"](batch_size=tf.constant(len(x))), []
    for t in range(x.shape[1]):
        state = dict(served["step"](inputs=tf.constant(x[:, t]), **state))
        outputs.append(state.pop("outputs"))
    return np.stack(outputs, axis=1)


STACKS = {
    "spectral": lambda: [SpectralRNN(6, reflectors=2, name="rnn")],
    "spectral_initial_state": lambda: [
        SpectralRNN(6, activation="modrelu", trainable_initial_state=True)
    ],
    "cell": lambda: [layers.RNN(SpectralRNNCell(4, reflectors=4))],
    "cells": lambda: [
        layers.RNN([SpectralRNNCell(4), layers.LSTMCell(5), layers.GRUCell(3)])
    ],
    "orthogonal": lambda: [
        OrthogonalRNN(6, trainable_initial_state=True, return_sequences=True),
        layers.RNN(OrthogonalRNNCell(4, activation="tanh")),
    ],
    "spectral_dense": lambda: [
        SpectralDense(5, "relu", reflectors=1),
        SpectralRNN(4),
        SpectralDense(2, form="dense"),
    ],
    "simple": lambda: [layers.SimpleRNN(4, dropout=0.5)],
    "lstm": lambda: [layers.LSTM(4, recurrent_dropout=0.5)],
    "gru": lambda: [layers.GRU(4)],
    "stack": lambda: [
        layers.Dense(5),
        layers.BatchNormalization(),
        SpectralRNN(6, return_sequences=True),
        layers.LayerNormalization(),
        keras.Sequential([layers.Dropout(0.5), layers.Dense(4)]),
        layers.LSTM(4),
        layers.Reshape((2, 2)),
        layers.Flatten(),
        layers.Dense(2),
    ],
}


@on_tensorflow
@pytest.mark.parametrize("name", STACKS)
def test_steps_end_where_the_whole_sequence_does(name, tmp_path):
    model = functional(*STACKS[name]())
    for variable in model.trainable_variables:
        if "initial_state" in variable.path or "bias" in variable.path:
            variable.assign(RNG.normal(size=variable.shape))
    served = signatures(export_saved_model(model, tmp_path / "m"))
    assert set(served) == {"serving_default", "step", "initial_state"}
    for x in (inputs(), inputs(batch=1, time=1)):
        expected = model.predict(x, verbose=0)
        whole = served["serving_default"](inputs=tf.constant(x))["outputs"]
        assert_close(whole, expected, 1e-5)
        assert_close(stepwise(served, x)[:, -1], expected, 1e-5)


@on_tensorflow
@pytest.mark.parametrize("materialize", [False, True])
def test_steps_of_a_model_that_returns_sequences(materialize, tmp_path):
    stack = (
        SpectralRNN(8, reflectors=2, return_sequences=True, form="low_rank"),
        layers.GRU(3, return_sequences=True),
        layers.Dense(2, activation="softmax"),
    )
    model, x = sequential(*stack, time=7), inputs()
    folder = export_saved_model(model, tmp_path / "m", materialize=materialize)
    served = signatures(folder)
    expected = model.predict(x[:, :7], verbose=0)
    assert_close(stepwise(served, x)[:, :7], expected, 1e-5)
    whole = served["serving_default"](inputs=tf.constant(x))["outputs"]
    assert_close(stepwise(served, x), whole, 1e-5)


@on_tensorflow
@pytest.mark.parametrize("form", ["dense", "low_rank"])
def test_materialized_graphs_hold_the_matrix_and_no_reflectors(form, tmp_path):
    rnn = SpectralRNN(8, reflectors=(2, 4), form=form)
    model, x = sequential(rnn), inputs()
    expected = model.predict(x, verbose=0)
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
    assert "matrix" not in vars(rnn.cell.recurrent)
    rnn.cell.recurrent._u.assign(RNG.normal(size=(2, 8)))
    assert np.abs(model.predict(x, verbose=0) - expected).max() > 1e-3


@on_tensorflow
def test_mixed_precision(tmp_path):
    model = sequential(SpectralRNN(4, dtype="mixed_bfloat16"), layers.Dense(1))
    served = signatures(export_saved_model(model, tmp_path / "m"))
    x = inputs()
    state = served["initial_state"](batch_size=tf.constant(4))
    assert state["state_0"].dtype == tf.bfloat16
    expected = model.predict(x, verbose=0)
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
    expected = model.predict(x, verbose=0)
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
    expected = model.predict(x, verbose=0)
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
    assert_close(whole, model.predict(x, verbose=0), 1e-5)


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
    for i, expected in enumerate(model.predict({"a": x, "b": c}, verbose=0)):
        assert_close(outputs[f"outputs_{i}"], expected, 1e-5)


class Twice(layers.Layer):
    def call(self, x):
        return 2 * x


def bidirectional():
    return sequential(layers.Bidirectional(SpectralRNN(4)))


OBSTACLES = {
    "Bidirectional": bidirectional,
    "goes backwards": lambda: sequential(layers.GRU(4, go_backwards=True)),
    "Masking": lambda: sequential(layers.Masking(), layers.GRU(4)),
    "makes a mask": lambda: keras.Sequential(
        [
            layers.Input((None,)),
            layers.Embedding(9, 3, mask_zero=True),
            layers.GRU(4),
        ]
    ),
    "once more": lambda: sequential(
        layers.GRU(4), layers.RepeatVector(3), layers.GRU(4)
    ),
    "GlobalAveragePooling1D": lambda: sequential(
        layers.GRU(4, return_sequences=True), layers.GlobalAveragePooling1D()
    ),
    "LayerNormalization": lambda: sequential(
        layers.LayerNormalization(axis=[1, 2]), layers.GRU(4), time=5
    ),
    "Softmax": lambda: sequential(
        layers.Softmax(axis=-2), layers.GRU(4), time=5
    ),
    "Twice": lambda: sequential(Twice(), layers.GRU(4)),
    "ConvLSTM1D|convolutional": lambda: keras.Sequential(
        [layers.Input((None, 6, 2)), layers.ConvLSTM1D(2, 3)]
    ),
    "single chain": lambda: functional_with_initial_state(),
    "returns its state": lambda: functional_with_state(),
    "no recurrent layer": lambda: sequential(layers.Dense(2)),
}


def functional_with_initial_state():
    x = layers.Input((None, FEATURES))
    state = layers.GRU(4)(x)
    return keras.Model(x, layers.GRU(4)(x, initial_state=state))


def functional_with_state():
    x = layers.Input((None, FEATURES))
    return keras.Model(x, layers.GRU(4, return_state=True)(x)[0])


@pytest.mark.parametrize("reason", OBSTACLES)
def test_reason_against_streaming(reason):
    found = obstacle(chain_of(OBSTACLES[reason]()))
    assert found is not None
    assert any(part in found for part in reason.split("|"))


def test_calls_with_arguments_break_a_chain():
    x = layers.Input((None, FEATURES))
    model = keras.Model(x, layers.GRU(4)(layers.Dropout(0.5)(x, training=True)))
    assert chain_of(model) is None
    assert chain_of(keras.Model(x, layers.GRU(4)(x * 2))) is None


def test_branches_and_operations_break_a_chain():
    x = layers.Input((None, FEATURES))
    branched = keras.Model(x, layers.Add()([x, layers.Dense(FEATURES)(x)]))
    assert chain_of(branched) is None
    assert chain_of(sequential(branched, layers.GRU(4))) is None
    operation = keras.Model(x, keras.ops.relu(layers.GRU(4)(x)))
    assert chain_of(operation) is None


def test_model_with_a_call_of_its_own_is_no_chain():
    class Doubled(keras.Model):
        def call(self, x):
            return 2 * super().call(x)

    x = layers.Input((None, FEATURES))
    assert chain_of(Doubled(x, layers.GRU(4)(x))) is None


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
    assert_close(whole, model.predict(x, verbose=0), 1e-5)


@on_tensorflow
def test_streaming_can_be_left_out(tmp_path):
    model = sequential(SpectralRNN(4))
    folder = export_saved_model(model, tmp_path / "m", streaming=False)
    assert set(signatures(folder)) == {"serving_default"}


@on_tensorflow
def test_versions(tmp_path):
    model = keras.Sequential([layers.Input((3,)), layers.Dense(2)])
    path = tmp_path / "deep" / "model"
    assert export_saved_model(model, path) == str(path / "1")
    assert export_saved_model(model, path, version=7) == str(path / "7")
    assert export_saved_model(model, str(path)) == str(path / "8")
    with pytest.raises(ValueError, match=r"exists already.*\[1, 7, 8\]"):
        export_saved_model(model, path, version=7)
    for version in (0, -1, 1.0, "2", True):
        with pytest.raises(ValueError, match="must be a positive integer"):
            export_saved_model(model, path, version=version)
    assert sorted(p.name for p in path.iterdir()) == ["1", "7", "8"]
    assert [p.name for p in path.parent.iterdir()] == ["model"]


@on_tensorflow
def test_paths_that_are_no_model_folder(tmp_path):
    model = keras.Sequential([layers.Input((3,)), layers.Dense(2)])
    file = tmp_path / "file"
    file.write_text("kept")
    with pytest.raises(ValueError, match="must be a folder"):
        export_saved_model(model, file)
    with pytest.raises(ValueError, match="folder of one model"):
        export_saved_model(model, tmp_path)
    (tmp_path / "numbers").mkdir()
    (tmp_path / "numbers" / "3").write_text("a file")
    with pytest.raises(ValueError, match="folder of one model"):
        export_saved_model(model, tmp_path / "numbers")
    assert file.read_text() == "kept"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "numbers"]


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
    assert "matrix" not in vars(rnn.cell.recurrent)


@on_tensorflow
def test_versions_that_no_server_reads(tmp_path):
    model = keras.Sequential([layers.Input((3,)), layers.Dense(2)])
    path = tmp_path / "m"
    for version in (2**63, 10**400, 0, -1, 1.0, "2", True, float("nan")):
        with pytest.raises(ValueError, match="`version` must be a positive"):
            export_saved_model(model, path, version=version)
    last = 2**63 - 1
    assert export_saved_model(model, path, np.int64(last)) == str(
        path / f"{last}"
    )
    with pytest.raises(ValueError, match="`version` must be given"):
        export_saved_model(model, path)
    (path / f"{2**63}").mkdir()
    with pytest.raises(ValueError, match="below 2"):
        export_saved_model(model, path, 1)


@on_tensorflow
def test_places_that_are_no_local_folder(tmp_path, monkeypatch):
    model = keras.Sequential([layers.Input((3,)), layers.Dense(2)])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("kept")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    before = sorted(os.listdir(tmp_path))
    for path, message in {
        "gs://bucket/model": "local path",
        "s3://bucket/model": "local path",
        "file": "a file",
        "file/model": "a file",
        "link": "leads nowhere",
        "link/model": "leads nowhere",
        "loop": "leads nowhere",
        "m" * 300: "must be a folder.*too long",
        "null\0": "must be a path",
        "": "must be a path",
        None: "must be a path",
        b"bytes": "must be a path",
    }.items():
        with pytest.raises(ValueError, match=f"`path`.*{message}"):
            export_saved_model(model, path)
    for flag in ("no", 1, None, np.ones(2)):
        with pytest.raises(ValueError, match="`materialize` must be a boolean"):
            export_saved_model(model, "m", materialize=flag)
    for flag in ("no", 0, []):
        with pytest.raises(ValueError, match="`streaming` must be a boolean"):
            export_saved_model(model, "m", streaming=flag)
    assert sorted(os.listdir(tmp_path)) == before


@on_tensorflow
def test_the_current_folder_and_links(tmp_path, monkeypatch):
    model = keras.Sequential([layers.Input((3,)), layers.Dense(2)])
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "link").symlink_to(folder)
    monkeypatch.chdir(folder)
    assert export_saved_model(model, ".") == "1"
    assert export_saved_model(model, "../link") == "../link/2"
    assert sorted(os.listdir(folder)) == ["1", "2"]
    assert sorted(os.listdir(tmp_path)) == ["link", "model"]
    assert tf.saved_model.contains_saved_model("1")
    # As if TensorFlow had written it itself.
    tf.saved_model.save(tf.Module(), "3")
    assert os.stat("1").st_mode == os.stat("3").st_mode


@on_tensorflow
@pytest.mark.skipif(
    not os.path.isdir("/dev/shm")
    or os.stat("/dev/shm").st_dev == os.stat("/tmp").st_dev,
    reason="needs two file systems",
)
def test_a_link_to_another_file_system(tmp_path):
    model = keras.Sequential([layers.Input((3,)), layers.Dense(2)])
    with tempfile.TemporaryDirectory(dir="/dev/shm") as other:
        (tmp_path / "model").symlink_to(other)
        for version in "12":
            folder = export_saved_model(model, tmp_path / "model")
            assert folder == str(tmp_path / "model" / version)
            assert tf.saved_model.contains_saved_model(folder)
        assert sorted(os.listdir(other)) == ["1", "2"]


def write(folder):
    os.mkdir(folder)
    with open(os.path.join(folder, "saved_model.pb"), "w") as file:
        file.write("whole")


def test_what_killed_exports_left_neither_blocks_nor_stays(tmp_path):
    path = tmp_path / "m"
    killed = [path / ".export-0", path / ".export-1"]
    for folder in (*killed, path / ".m-old", path / "lost+found"):
        (folder / "version").mkdir(parents=True)
    two_days_ago = time.time() - 2 * 24 * 3600
    for place in (killed[0] / "version", killed[0]):
        os.utime(place, (two_days_ago, two_days_ago))
    assert versions.model_folder(path) == path
    made = versions.write_version(path, None, write)
    assert made == path / "1"
    expected = [".export-1", ".m-old", "1", "lost+found"]
    assert sorted(os.listdir(path)) == expected


def test_who_loses_a_race_takes_the_next_number(tmp_path):
    path = tmp_path / "deep" / "m"

    def write_late(folder):
        # Meanwhile others export.
        for _ in range(2):
            versions.write_version(path, None, write)
        write(folder)

    assert versions.write_version(path, None, write_late) == path / "3"

    def write_too_late(folder):
        versions.write_version(path, 7, write)
        write(folder)

    with pytest.raises(ValueError, match="`version`.*made meanwhile"):
        versions.write_version(path, 7, write_too_late)
    (path / "8").write_text("a file that appeared")
    assert versions.write_version(path, None, write) == path / "9"
    assert sorted(os.listdir(path)) == ["1", "2", "3", "7", "8", "9"]


def test_concurrent_exports_all_arrive(tmp_path):
    barrier = threading.Barrier(12)

    def export(_):
        def write_together(folder):
            write(folder)
            barrier.wait()

        return versions.write_version(tmp_path / "m", None, write_together)

    with futures.ThreadPoolExecutor(12) as pool:
        made = list(pool.map(export, range(12)))
    numbers = sorted(int(path.name) for path in made)
    assert numbers == list(range(1, 13))
    names = sorted(map(int, os.listdir(tmp_path / "m")))
    assert names == numbers


def test_a_failure_leaves_what_was_there(tmp_path):
    def fail(folder):
        write(folder)
        raise OSError("disk full")

    (tmp_path / "there").mkdir()
    for path in (tmp_path / "there", tmp_path / "not" / "there"):
        with pytest.raises(OSError, match="disk full"):
            versions.write_version(path, None, fail)
    assert os.listdir(tmp_path) == ["there"]
    assert not os.listdir(tmp_path / "there")


@pytest.mark.skipif(tf is not None, reason="the other backends refuse")
def test_other_backends_are_refused(tmp_path):
    with pytest.raises(RuntimeError, match="TensorFlow backend"):
        export_saved_model(sequential(layers.GRU(4)), tmp_path / "m")
    assert not list(tmp_path.iterdir())


def operations_in(function):
    graph = function.graph.as_graph_def()
    inner = sum(len(f.node_def) for f in graph.library.function)
    return len(graph.node) + inner


@on_tensorflow
@pytest.mark.parametrize("return_sequences", [False, True])
@pytest.mark.parametrize("form", ["dense", "low_rank"])
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

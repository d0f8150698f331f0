"""export_saved_model: a trained model as a folder for TensorFlow Serving."""

import contextlib
import re
import warnings

import keras
from keras import layers
from keras import ops
from keras import tree

from tf_spectral import checks
from tf_spectral.backend.keras_internals import call_behind
from tf_spectral.backend.keras_internals import calls_of
from tf_spectral.backend.keras_internals import layers_within
from tf_spectral.export.streaming import Stream
from tf_spectral.export.streaming import chain_of
from tf_spectral.export.streaming import obstacle
from tf_spectral.export.versions import check_version
from tf_spectral.export.versions import model_folder
from tf_spectral.export.versions import write_version
from tf_spectral.parametrizations.svd import SVD


def export_saved_model(
    model, path, version=None, materialize=True, streaming=None
):
    """Writes `path/<version>/`, a SavedModel without any Python in it.

    It loads in TensorFlow Serving, and in Python without Keras and without
    this library. Its signatures are, on batches of any size:

    - `serving_default(inputs) -> {"outputs"}`: whole sequences, of any
      length unless `unroll` or `TimeDistributed` (or, in a model without
      `step`, its Input) fix it.
    - `initial_state(batch_size) -> {"state_0", ...}`: the states of all
      recurrent layers before the first step.
    - `step(inputs, state_0, ...) -> {"outputs", "state_0", ...}`: one time
      step `(batch, features)`. In a loop it gives what `serving_default`
      gives: each output of a model that returns sequences, and the output
      after the last step of one that does not.

    The last two exist for stacks of layers with at least one
    `keras.layers.RNN`, where all others act on each time step alone (`Dense`,
    activations, normalizations over features, `TimeDistributed`, ...) or
    come after a recurrent layer with `return_sequences=False`. Inputs and
    outputs of a model with several are named after its input layers and as
    `outputs_0`, `outputs_1`, ...

    Args:
        model: Built Sequential or functional model, on the TensorFlow
            backend.
        path: Local folder of the model, with versions of it or nothing in
            it. Made if it does not exist. For `gs://` and the like export to
            a local folder, and copy its version.
        version: Positive integer below `2**63`, or `None` for the next free
            one; each of several processes that export at a time gets its
            own. Defaults to `None`.
        materialize: Boolean. `True` saves the matrices of `SpectralRNN` and
            other parametrized layers, ready to use; `False` saves their
            reflectors and singular values and forms the matrices anew at
            each request, and each step. Defaults to `True`.
        streaming: Boolean, whether to export `step` and `initial_state`.
            `None` for wherever possible, with a warning if a model with
            recurrent layers cannot have them. Defaults to `None`.

    Returns:
        Path of the version's folder, a string.

    Raises:
        RuntimeError: If the backend is not TensorFlow.
        ValueError: If the model is not built, is a subclassed model, has a
            stateful layer or a `TimeDistributed` over an unknown length; if
            `path` is no local folder or holds anything but versions (and
            hidden files); if the version is no positive integer or exists;
            if `materialize` or `streaming` is no boolean, or
            `streaming=True` is impossible. Nothing is written then.

    Example:

    >>> import tempfile
    >>> import keras
    >>> import tensorflow as tf
    >>> from tf_spectral.export import export_saved_model
    >>> from tf_spectral.layers import SpectralRNN
    >>> model = keras.Sequential([keras.Input((None, 3)), SpectralRNN(8)])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     version = export_saved_model(model, folder)
    ...     loaded = tf.saved_model.load(version)
    >>> served = loaded.signatures
    >>> x = tf.ones((2, 5, 3))
    >>> state = served["initial_state"](batch_size=tf.constant(2))
    >>> for t in range(5):
    ...     state = served["step"](inputs=x[:, t], **state)
    ...     outputs = state.pop("outputs")
    >>> outputs.shape
    TensorShape([2, 8])
    """
    if keras.backend.backend() != "tensorflow":
        raise RuntimeError(
            "SavedModels are exported from the TensorFlow backend. Expected "
            "KERAS_BACKEND=tensorflow, Received: "
            f"keras.backend.backend()={keras.backend.backend()!r}"
        )
    materialize = checks.boolean("materialize", materialize)
    if streaming is not None:
        streaming = checks.boolean("streaming", streaming)
    _check_model(model)
    path = model_folder(path)
    version = check_version(path, version)
    stream = _stream(model, streaming)
    with frozen_matrices(model) if materialize else contextlib.nullcontext():
        return str(_write(_archive(model, stream), path, version))


def _check_model(model):
    if not getattr(model, "inputs", None):
        raise ValueError(
            "Argument `model` must be a built Sequential or functional model. "
            f"Received: model={model}"
        )
    # Between requests a server would mix the states of different clients.
    stateful = [
        p.name for p in layers_within(model) if getattr(p, "stateful", 0)
    ]
    if stateful:
        raise ValueError(
            "Argument `model` must have no stateful layer: the state goes "
            "through the signature `step`. Expected stateful=False, "
            f"Received: stateful layers {stateful}"
        )
    # With an unknown length Keras makes as many steps as the batch has rows.
    unsure = [
        part.name
        for part in layers_within(model)
        if isinstance(part, layers.TimeDistributed)
        and any(n.input_tensors[0].shape[1] is None for n in calls_of(part))
    ]
    if unsure:
        raise ValueError(
            "Argument `model` must know how many steps a TimeDistributed "
            "layer makes. Expected an Input of fixed length, or a layer such "
            f"as Dense without TimeDistributed, Received: layers {unsure}"
        )


def _stream(model, streaming):
    """The model as a `Stream`, or `None` if it is not to be one."""
    if streaming is not None and not streaming:
        return None
    chain = chain_of(model)
    reason = obstacle(chain)
    if reason is None:
        return Stream(chain)
    if streaming:
        raise ValueError(
            "Argument `streaming` cannot be True for a model that cannot run "
            f"step by step: {reason}. Received: streaming={streaming}"
        )
    if any(isinstance(part, layers.RNN) for part in layers_within(model)):
        warnings.warn(
            f"The model '{model.name}' is exported without the signatures "
            f"`step` and `initial_state`: {reason}. `streaming=False` leaves "
            "them out without this warning.",
            stacklevel=3,
        )
    return None


def _archive(model, stream):
    import tensorflow as tf

    archive = keras.export.ExportArchive()
    specs = _input_specs(model, dynamic_time=stream is not None)

    sequential = isinstance(model, keras.Sequential)
    structure = model.inputs[0] if sequential else model.input

    def serve(*inputs):
        inputs = tree.pack_sequence_as(structure, inputs)
        outputs = tree.flatten(model(inputs, training=False))
        if len(outputs) == 1:
            return {"outputs": outputs[0]}
        return {f"outputs_{i}": y for i, y in enumerate(outputs)}

    archive.add_endpoint("serving_default", serve, specs)
    if stream is None:
        return archive
    (whole,) = specs
    step = {"inputs": (whole.shape[2:], whole.dtype)}
    for name, state in stream.initial_state(1).items():
        step[name] = (state.shape[1:], state.dtype)
    step_specs = [
        tf.TensorSpec([None, *shape], dtype, name)
        for name, (shape, dtype) in step.items()
    ]
    archive.add_endpoint("step", stream.step, step_specs)
    archive.add_endpoint(
        "initial_state",
        stream.initial_state,
        [tf.TensorSpec([], tf.int32, "batch_size")],
    )
    return archive


def _input_specs(model, dynamic_time):
    import tensorflow as tf

    # A chain of recurrent layers fits any length, whatever its Input says.
    for part in layers_within(model):
        if isinstance(part, layers.TimeDistributed) or (
            isinstance(part, layers.RNN) and part.unroll
        ):
            dynamic_time = False
    names = ["inputs"]
    if len(model.inputs) > 1:
        names = _arguments(
            [call_behind(x).operation.name for x in model.inputs]
        )
    specs = []
    for tensor, name in zip(model.inputs, names):
        shape = [None, *tensor.shape[1:]]
        if dynamic_time:
            shape[1] = None
        specs.append(tf.TensorSpec(shape, tensor.dtype, name))
    return specs


def _arguments(names):
    """Names that TensorFlow takes for arguments of a signature."""
    found = []
    for name in names:
        name = re.sub(r"\W", "_", name, flags=re.ASCII).lstrip("_")
        if name in ("", "self"):
            name += "input"
        place = len(found)
        found.append(f"{name}_{place}" if name in found else name)
    return found


def _write(archive, path, version):
    import tensorflow as tf

    # The loops' own gradients cannot be saved, and no server asks for them.
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)

    def write(folder):
        archive.write_out(folder, options=options, verbose=False)

    return write_version(path, version, write)


@contextlib.contextmanager
def frozen_matrices(model):
    """Within it, every `SVD` of the model returns stored matrices.

    What is traced inside has no reflectors in its graph: the matrix, or the
    terms of `diagonal_plus_low_rank` where that form is cheaper, are
    variables with the present values.

    Args:
        model: Built Keras model.
    """
    with contextlib.ExitStack() as stack:
        for part in layers_within(model):
            if isinstance(part, SVD):
                stack.enter_context(_frozen(part))
        yield


@contextlib.contextmanager
def _frozen(svd):
    # A variable that no signature reads is not saved.
    matrix = _constant(svd.matrix())
    terms = _constant(*svd.diagonal_plus_low_rank())
    svd.matrix, svd.diagonal_plus_low_rank = matrix, terms
    try:
        yield
    finally:
        del svd.matrix, svd.diagonal_plus_low_rank


def _constant(*tensors):
    variables = [
        keras.Variable(t, dtype=t.dtype, trainable=False) for t in tensors
    ]

    def values():
        values = tuple(ops.convert_to_tensor(v) for v in variables)
        return values if len(values) > 1 else values[0]

    return values

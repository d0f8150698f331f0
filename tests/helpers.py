"""Run a function of arrays in every way the current backend knows.

A numerical test takes the fixture `mode` and hands it to `evaluate` or to
`value_and_grad`: on TensorFlow it then runs eagerly, as a graph and under
XLA; on JAX under `jit`; on PyTorch eagerly.
"""

import keras
import numpy as np
import pytest
from keras import ops

BACKEND = keras.backend.backend()
MODES = {
    "tensorflow": ("eager", "graph", "xla"),
    "jax": ("jit",),
    "torch": ("eager",),
}[BACKEND]
# Of tests that have to be compiled for long elsewhere.
slow_but_on_torch = (
    (lambda test: test) if BACKEND == "torch" else pytest.mark.slow
)


def skip_what_keras_cannot(layer):
    """Skips a test of a GRU without bias on JAX.

    Keras' own gives float64 for float32 there, while 64 bits are on.
    """
    if BACKEND == "jax" and isinstance(layer, keras.layers.GRU):
        pytest.skip("Keras' GRU without bias fails on JAX with 64 bits on")


def evaluate(f, *arrays, mode=MODES[0]):
    """`f(*tensors)`, outputs as NumPy arrays in the structure `f` returns."""
    outputs = _compile(f, mode)(*_tensors(arrays))
    return keras.tree.map_structure(ops.convert_to_numpy, outputs)


def value_and_grad(f, *arrays, mode=MODES[0]):
    """A scalar function and its gradients by the backend's own autodiff.

    Args:
        f: Function of tensors that returns a scalar tensor.
        *arrays: Floating arrays, the point of evaluation.
        mode: One of `MODES`.

    Returns:
        The value and a tuple with one gradient for each array, zero where
        `f` does not depend on it; all as NumPy arrays.
    """
    differentiate = {
        "tensorflow": _tensorflow_value_and_grad,
        "jax": _jax_value_and_grad,
        "torch": _torch_value_and_grad,
    }[BACKEND]
    value, gradients = differentiate(f, _tensors(arrays), mode)
    return (
        ops.convert_to_numpy(value),
        tuple(ops.convert_to_numpy(g) for g in gradients),
    )


def grad(f, *arrays, mode=MODES[0]):
    """The gradients of `value_and_grad` alone; one array if one is given."""
    gradients = value_and_grad(f, *arrays, mode=mode)[1]
    return gradients[0] if len(arrays) == 1 else gradients


def second_derivative(f, directions, *arrays, mode=MODES[0]):
    """The gradients, by all arrays, of `sum_i <directions_i, df / d array_i>`.

    As in a gradient penalty: the gradient of a function of the gradient.

    Args:
        f: Function of tensors that returns a scalar tensor.
        directions: One array for each of `arrays`.
        *arrays: Floating arrays, the point of evaluation.
        mode: One of `MODES`.
    """

    def slope(*tensors):
        gradients = _gradients(f, tensors)
        return sum(inner(g, d) for g, d in zip(gradients, directions))

    return value_and_grad(slope, *arrays, mode=mode)[1]


def _gradients(f, tensors):
    """Gradients of which the backend can take gradients again."""
    if BACKEND == "jax":
        import jax

        return jax.grad(f, argnums=range(len(tensors)))(*tensors)
    if BACKEND == "torch":
        import torch

        return torch.autograd.grad(
            f(*tensors),
            tensors,
            create_graph=True,
            allow_unused=True,
            materialize_grads=True,
        )
    import tensorflow as tf

    with tf.GradientTape() as tape:
        tape.watch(tensors)
        value = f(*tensors)
    return tape.gradient(value, tensors, unconnected_gradients="zero")


def inner(x, weights):
    """`sum(x * weights)`, a scalar whose gradient by `x` is `weights`."""
    return ops.sum(x * ops.convert_to_tensor(weights))


def dtype_of(x):
    return keras.backend.standardize_dtype(x.dtype)


def assert_close(actual, expected, tolerance, scale=None):
    """Largest error at most `tolerance` times the largest expected entry.

    `scale` replaces the largest entry where that is zero or mere rounding.
    """
    actual = np.asarray(actual, "float64")
    expected = np.asarray(expected, "float64")
    assert actual.shape == expected.shape
    assert np.isfinite(actual).all()
    if scale is None:
        scale = np.max(np.abs(expected), initial=0.0) or 1.0
    error = np.max(np.abs(actual - expected), initial=0.0)
    assert error <= tolerance * scale, f"{error:.2e} at scale {scale:.2e}"


def _tensors(arrays):
    return [ops.convert_to_tensor(array) for array in arrays]


def _compile(f, mode):
    if mode not in MODES:
        raise ValueError(f"Expected a mode among {MODES}, Received: {mode}")
    if mode == "eager":
        return f
    if mode == "jit":
        import jax

        return jax.jit(f)
    import tensorflow as tf

    return tf.function(f, jit_compile=mode == "xla", autograph=False)


def _tensorflow_value_and_grad(f, tensors, mode):
    import tensorflow as tf

    def differentiate(*tensors):
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            value = f(*tensors)
        gradients = tape.gradient(value, tensors, unconnected_gradients="zero")
        return value, gradients

    return _compile(differentiate, mode)(*tensors)


def _jax_value_and_grad(f, tensors, mode):
    import jax

    differentiate = jax.value_and_grad(f, argnums=range(len(tensors)))
    return _compile(differentiate, mode)(*tensors)


def _torch_value_and_grad(f, tensors, mode):
    import torch

    tensors = [tensor.detach().requires_grad_() for tensor in tensors]
    value = _compile(f, mode)(*tensors)
    gradients = torch.autograd.grad(
        value, tensors, allow_unused=True, materialize_grads=True
    )
    return value, gradients

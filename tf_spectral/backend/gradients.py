"""Gradients that Keras has no public function for, on every backend."""

import keras

if keras.backend.backend() == "tensorflow":
    import tensorflow as tf

    def compiled_gradient(f, variables):
        """The gradient of `f` with respect to its first argument.

        Args:
            f: Function of tensors, or of structures of them, that returns a
                scalar tensor.
            variables: List of the Keras variables that `f` reads. Each call
                sees the values they have by then.

        Returns:
            Function of the arguments of `f` that returns a tensor in the
            shape of the first. It is compiled at its first call (on PyTorch
            it runs eagerly).
        """
        del variables  # A graph reads variables whenever it runs.

        @tf.function(autograph=False)
        def gradient(x, *args):
            with tf.GradientTape() as tape:
                tape.watch(x)
                value = f(x, *args)
            return tape.gradient(value, x, unconnected_gradients="zero")

        return gradient

elif keras.backend.backend() == "jax":
    import jax

    def compiled_gradient(f, variables):
        @jax.jit
        def gradient(values, x, *args):
            # Values that are arguments and no constants of the program.
            def of_first(x):
                mapping = list(zip(variables, values))
                with keras.StatelessScope(state_mapping=mapping):
                    return f(x, *args)

            return jax.grad(of_first)(x)

        return lambda *args: gradient([v.value for v in variables], *args)

else:
    import torch

    def compiled_gradient(f, variables):
        del variables

        def gradient(x, *args):
            x = x.detach().requires_grad_()
            with torch.enable_grad():
                value = f(x, *args)
            return torch.autograd.grad(
                value, x, allow_unused=True, materialize_grads=True
            )[0]

        return gradient


def fused_pullback(name, slope=None):
    """The backend's own derivative of an activation, as one operation.

    Without XLA each operation is a pass over memory; these take one.

    Args:
        name: String, the activation: `"relu"`, `"leaky_relu"`, `"tanh"`,
            `"sigmoid"` or `"elu"`.
        slope: Float, that of a leaky ReLU at negative numbers.

    Returns:
        Function `(cotangent of f(z), f(z)) -> cotangent of z`, or `None`
        where the backend has none.
    """
    if keras.backend.backend() != "tensorflow":
        return None
    raw = tf.raw_ops
    return {
        "relu": lambda g, h: raw.ReluGrad(gradients=g, features=h),
        "leaky_relu": lambda g, h: raw.LeakyReluGrad(
            gradients=g, features=h, alpha=slope
        ),
        "tanh": lambda g, h: raw.TanhGrad(y=h, dy=g),
        "sigmoid": lambda g, h: raw.SigmoidGrad(y=h, dy=g),
        "elu": lambda g, h: raw.EluGrad(gradients=g, outputs=h),
    }[name]

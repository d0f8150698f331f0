"""Many steps of an optimizer at the price of few."""

import numpy as np
from keras import ops

from tests.helpers import BACKEND


def stepper(optimizer, variables):
    """`optimizer.apply` as `fit` runs it: traced once, where that helps.

    Args:
        optimizer: Keras optimizer.
        variables: List of variables.

    Returns:
        Function of a list of arrays, the gradients, that takes a step.
    """
    optimizer.build(variables)
    apply = {
        "tensorflow": _tensorflow_apply,
        "jax": _jax_apply,
        "torch": _eager_apply,
    }[BACKEND](optimizer, variables)

    def step(gradients):
        pairs = zip(gradients, variables)
        apply([ops.convert_to_tensor(np.asarray(g), v.dtype) for g, v in pairs])

    return step


def _eager_apply(optimizer, variables):
    return lambda gradients: optimizer.apply(gradients, variables)


def _tensorflow_apply(optimizer, variables):
    import tensorflow as tf

    return tf.function(_eager_apply(optimizer, variables), autograph=False)


def _jax_apply(optimizer, variables):
    import jax

    stateless = jax.jit(optimizer.stateless_apply)

    def apply(gradients):
        state = [v.value for v in optimizer.variables]
        values = [v.value for v in variables]
        values, state = stateless(state, gradients, values)
        for variable, value in zip(variables, values):
            variable.assign(value)
        for variable, value in zip(optimizer.variables, state):
            variable.assign(value)

    return apply

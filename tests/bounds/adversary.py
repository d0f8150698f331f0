"""Looks for curvature above its bound, by gradient ascent in float64.

A record promises `p_i^2 - offset` as a bound of the curvature of the loss in
block i, for every value of that block. So for a step `h u` of that block with
`||u||_q = 1`

    (f(w + h u) - 2 f(w) + f(w - h u)) / h^2 <= p_i^2 - offset.

The left side is climbed over the block, the direction, the other weights (at
their norms, which are all that the bound knows of them), inputs and targets.
"""

import keras
import numpy as np
from keras import ops

from tests import oracles_bounds as oracles
from tests.helpers import BACKEND
from tf_spectral.losses import SumOfSquares

# Of the step h u; on PyTorch Keras' layers multiply in float32.
LENGTH = 1e-1 if BACKEND == "torch" else 1e-3


def worst_ratio(
    model, record, q, loss, rng, blocks=2, steps=30, batch=1, scales=(0.3, 3.0)
):
    """The largest quotient of curvature and bound that was found.

    Args:
        model: Keras model in float64.
        record: Its `LayerwiseSmoothness`.
        q: The norm, 1, 2 or `"inf"`.
        loss: Keras loss.
        rng: NumPy generator.
        blocks: How many blocks to try, chosen at random.
        steps: Steps of ascent for each.
        batch: Number of examples.
        scales: Smallest and largest size of weights to start from.

    Returns:
        Float.
    """
    climb = _objective(model, loss)
    variables = model.trainable_variables
    shapes = [tuple(v.shape) for v in variables]
    count = len(shapes)
    worst = 0.0
    for block in rng.permutation(count)[:blocks]:
        scale = np.exp(rng.uniform(*np.log(scales), count))
        weights = [s * rng.normal(size=n) for s, n in zip(scale, shapes)]
        sizes = [oracles.norm(w, q) for w in weights]
        direction = rng.normal(size=shapes[block])
        data = [rng.normal(size=(batch, *x.shape[1:])) for x in model.inputs]
        target = rng.normal(size=(batch, *model.outputs[0].shape[1:]))
        bound = ops.convert_to_numpy(
            record.squared_bounds_from_norms(np.array(sizes))
        )[block]
        bound = float(bound) - record.offset
        rate = 0.3
        for _ in range(steps):
            weights = [_sized(w, s, q) for w, s in zip(weights, sizes)]
            direction = _sized(direction, 1.0, q)
            moves = [
                direction if i == block else np.zeros(n)
                for i, n in enumerate(shapes)
            ]
            value, gradients = climb(*weights, *moves, *data, target)
            # Blocks that lead nowhere have no curvature but rounding.
            worst = max(worst, float(value) / (bound + 1e-6))
            by_weight = gradients[:count]
            by_step = gradients[count + block]
            others = gradients[2 * count :]
            weights = [_up(w, g, rate) for w, g in zip(weights, by_weight)]
            direction = _up(direction, by_step, rate)
            data = [_up(x, g, rate) for x, g in zip(data, others)]
            target = _up(target, others[-1], rate)
            rate *= 0.95
    return worst


def _sized(w, size, q):
    norm = oracles.norm(w, q)
    return w * (size / norm) if norm else w


def _up(x, gradient, rate):
    """Along the gradient, by a share of the root mean square of x, or one."""
    length = np.sqrt(np.mean(np.square(gradient)))
    if not np.isfinite(length) or length == 0:
        return x
    size = max(np.sqrt(np.mean(np.square(x))), 0.1)
    return x + rate * size * gradient / length


def _objective(model, loss):
    """The second difference, and its gradients, as functions of arrays."""
    count = len(model.trainable_variables)
    rest = [v.value for v in model.non_trainable_variables]
    squares = isinstance(loss, (SumOfSquares, keras.losses.MeanSquaredError))

    def curvature(*values):
        weights = values[:count]
        steps = values[count : 2 * count]
        *data, target = values[2 * count :]
        # Within [-1, 1], what the default `input_norm` assumes.
        data = [ops.tanh(x) for x in data]
        target = ops.tanh(target) if squares else ops.softmax(target)

        def f(h):
            moved = [w + h * u for w, u in zip(weights, steps)]
            outputs, _ = model.stateless_call(moved, rest, _passed(model, data))
            return loss(target, outputs)

        rise = f(LENGTH) - 2 * f(0.0) + f(-LENGTH)
        return ops.abs(rise) / LENGTH**2

    return _differentiated(curvature)


def _passed(model, data):
    return data[0] if len(data) == 1 else data


def _differentiated(function):
    """`function` of arrays and its gradients, compiled once."""
    if BACKEND == "tensorflow":
        import tensorflow as tf

        @tf.function
        def both(*tensors):
            with tf.GradientTape() as tape:
                tape.watch(tensors)
                value = function(*tensors)
            return value, tape.gradient(
                value, tensors, unconnected_gradients="zero"
            )

    elif BACKEND == "jax":
        import jax

        def both(*tensors):
            places = tuple(range(len(tensors)))
            return jax.value_and_grad(function, argnums=places)(*tensors)

        both = jax.jit(both)
    else:
        import torch

        def both(*tensors):
            tensors = [x.detach().requires_grad_() for x in tensors]
            value = function(*tensors)
            return value, torch.autograd.grad(
                value, tensors, allow_unused=True, materialize_grads=True
            )

    def run(*arrays):
        tensors = [ops.convert_to_tensor(x, "float64") for x in arrays]
        value, gradients = both(*tensors)
        return ops.convert_to_numpy(value), [
            ops.convert_to_numpy(g) for g in gradients
        ]

    return run


class Builder:
    """Random graphs of the layers that `from_model` certifies."""

    def __init__(self, rng):
        self.rng = rng
        self.layers = keras.layers

    def pick(self, *choices):
        return choices[self.rng.integers(len(choices))]

    def model(self):
        """A model with one or two inputs and small outputs."""
        sequence = self.rng.random() < 0.6
        inputs = [self.input(sequence) for _ in range(self.pick(1, 1, 2))]
        pool = list(inputs)
        for _ in range(self.rng.integers(1, 5)):
            pool.append(self.grow(pool))
        outputs = pool[-1]
        if self.rng.random() < 0.5 and len(pool) > 2:
            outputs = self.join([outputs, pool[-2]])
        outputs = self.layers.Dense(self.pick(2, 3))(self.flat(outputs))
        squares = self.rng.random() < 0.4
        if squares:
            outputs = self.layers.Activation(self.pick("tanh", "sigmoid"))(
                outputs
            )
        return keras.Model(inputs, outputs), squares

    def input(self, sequence):
        shape = (self.pick(3, 4, 6), self.pick(1, 2)) if sequence else (3,)
        return keras.Input(shape)

    def flat(self, x):
        if len(x.shape) == 2:
            return x
        return self.pick(
            self.layers.Flatten(), self.layers.GlobalAveragePooling1D()
        )(x)

    def grow(self, pool):
        x = pool[self.rng.integers(len(pool))]
        choice = self.rng.random()
        if choice < 0.2:
            return self.join([x, pool[self.rng.integers(len(pool))]])
        if choice < 0.45:
            return self.sub_model(x)
        return self.layer(x)

    def layer(self, x):
        act = self.pick("tanh", "sigmoid", "softplus", "gelu", "linear", "sin")
        layers = self.layers
        if act == "sin":
            act = ops.sin
        if len(x.shape) == 2:
            return self.pick(
                lambda: layers.Dense(self.pick(1, 2, 4), act)(x),
                lambda: layers.Dense(self.pick(2, 3), act)(x),
                lambda: layers.RepeatVector(3)(x),
                lambda: layers.Rescaling(-0.7, 0.2)(x),
                lambda: layers.Activation("softmax")(x),
            )()
        padding = self.pick("valid", "same")
        size, stride = self.pick(1, 2, 3), self.pick(1, 2)
        dilation = self.pick(1, 2) if stride == 1 else 1
        return self.pick(
            lambda: layers.Dense(2, act)(x),
            lambda: layers.Conv1D(
                self.pick(1, 2), size, stride, padding="same", activation=act
            )(x),
            lambda: layers.Conv1D(
                2,
                size,
                padding="same",
                dilation_rate=dilation,
                activation=act,
            )(x),
            lambda: layers.DepthwiseConv1D(
                size, depth_multiplier=2, padding="same", activation=act
            )(x),
            lambda: layers.SeparableConv1D(
                2, size, padding="same", activation=act
            )(x),
            lambda: layers.AveragePooling1D(2, stride, padding)(x),
            lambda: layers.AveragePooling1D(3, stride, "same")(x),
            lambda: layers.ZeroPadding1D(1)(x),
            lambda: layers.UpSampling1D(2)(x),
            lambda: layers.Permute((2, 1))(x),
            lambda: layers.Flatten()(x),
            lambda: layers.GlobalAveragePooling1D()(x),
            lambda: ops.transpose(x, (0, 2, 1)),
        )()

    def join(self, xs):
        a, b = xs
        if a.shape != b.shape:
            a = self.layers.Dense(2, "tanh")(self.flat(a))
            b = self.layers.Dense(2)(self.flat(b))
        return self.pick(
            lambda: self.layers.Add()([a, b]),
            lambda: self.layers.Subtract()([a, b]),
            lambda: self.layers.Average()([a, b]),
            lambda: self.layers.Concatenate()([a, b]),
            lambda: a + b,
            lambda: a - b,
        )()

    def sub_model(self, x):
        """One with several outputs, maybe built for unknown lengths."""
        shape = tuple(x.shape[1:])
        if len(shape) == 2 and self.rng.random() < 0.6:
            shape = (None, shape[1])
        first, second = (keras.Input(shape, name=name) for name in "ba")
        y = self.layers.Dense(2, "tanh")(first)
        z = self.layers.Dense(2)(second)
        if len(shape) == 2:
            z = self.pick(
                lambda: self.layers.Conv1D(2, 2, padding="same")(z),
                lambda: self.layers.AveragePooling1D(2, 1, "same")(z),
                lambda: z,
            )()
        inner = keras.Model(
            self.pick(
                [first, second],
                {"b": first, "a": second},
            ),
            [z, y, self.layers.Add()([y, z])],
        )
        if isinstance(inner.input, dict):
            passed = {"a": x, "b": self.layers.Activation("tanh")(x)}
        else:
            passed = [x, self.layers.Activation("tanh")(x)]
            if self.rng.random() < 0.5:
                passed = {"a": passed[0], "b": passed[1]}
        outputs = inner(passed)
        return outputs[self.rng.integers(3)]

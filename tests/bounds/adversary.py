"""Looks for curvature above its bound, by gradient ascent in float64.

A record promises `p_i^2 - offset` as a bound of the Hessian of the loss in
block i, as a bilinear form of the q-norm, for every value of that block:

    <u, H v> <= p_i^2 - offset    where ||u||_q = ||v||_q = 1.

For given weights the left side is climbed exactly, by duality maps of `H u`
and `H v` in turn; then along its gradient over weights, inputs and targets.
The sizes of the weights, which are what the bound knows of them, follow the
gradient of the quotient.
"""

import itertools

import keras
import numpy as np
from keras import ops

from tests import oracles_bounds as oracles
from tests.helpers import BACKEND
from tf_spectral.losses import SumOfSquares

# Finite differences of bounds, along sizes of weights.
_SHIFT = 1e-4


class Hessian:
    """`<u, H v>` and all its gradients, compiled once for all norms.

    Args:
        model: Keras model in float64.
        loss: Keras loss.
        target: Function that brings arrays into what the loss allows.
        batch: Number of examples.
    """

    def __init__(self, model, loss, target, batch=1):
        self.batch = batch
        self.inputs = [
            (tuple(x.shape[1:]), "int" in x.dtype) for x in model.inputs
        ]
        self.outputs = tuple(model.outputs[0].shape[1:])
        self.shapes = [tuple(v.shape) for v in model.trainable_variables]
        rest = [v.value for v in model.non_trainable_variables]

        def objective(weights, others):
            *data, y = others
            # Within [-1, 1], what the default `input_norm` assumes.
            data = [
                x if whole else ops.tanh(x)
                for x, (_, whole) in zip(data, self.inputs)
            ]
            data = data[0] if len(data) == 1 else data
            outputs, _ = model.stateless_call(weights, rest, data)
            return loss(target(y), outputs)

        self._function = _differentiated(objective, len(self.shapes))

    def __call__(self, weights, left, right, others):
        """Gradients by the two steps, the weights and the data."""
        found = self._function(*weights, *left, *right, *others)
        by_weight, by_left, by_right, by_data = _parts(found, len(weights))
        return by_left, by_right, by_weight, by_data

    def example(self, rng):
        """Random inputs and targets."""
        data = [
            rng.integers(0, 3, (self.batch, *shape)).astype("float64")
            if whole
            else 2 * rng.normal(size=(self.batch, *shape))
            for shape, whole in self.inputs
        ]
        return [*data, 2 * rng.normal(size=(self.batch, *self.outputs))]


def worst_ratio(hessian, record, q, rng, blocks=2, steps=25, scales=(0.3, 3.0)):
    """The largest quotient of curvature and bound that was found.

    Args:
        hessian: `Hessian`.
        record: `LayerwiseSmoothness` of its model and loss.
        q: The norm, 1, 2 or `"inf"`.
        rng: NumPy generator.
        blocks: How many blocks to try, chosen at random.
        steps: Steps of ascent for each.
        scales: Smallest and largest size of weights to start from.

    Returns:
        Float.
    """
    shapes = hessian.shapes
    zeros = [np.zeros(shape) for shape in shapes]
    worst = 0.0
    for block in rng.permutation(len(shapes))[:blocks]:
        scale = np.exp(rng.uniform(*np.log(scales), len(shapes)))
        weights = [s * rng.normal(size=n) for s, n in zip(scale, shapes)]
        others = hessian.example(rng)
        left, right = (list(zeros) for _ in range(2))
        left[block], right[block] = (
            _maximiser(rng.normal(size=shapes[block]), q) for _ in range(2)
        )
        rate = 0.3
        for step in range(steps):
            sizes = np.array([oracles.norm(w, q) for w in weights])
            bound = _bound(record, sizes, block)
            *images, by_weight, by_data = hessian(weights, left, right, others)
            # The image by the one step, as large as the best other step.
            side = step % 2
            image = images[side][block]
            if not np.all(np.isfinite(image)):
                break  # third derivatives overflow sooner than bounds
            best = _maximiser(image, q)
            value = float((image * best).sum())
            worst = max(worst, value / (bound + _NOISE))
            (left, right)[side][block] = best
            if step % 2 == 0:
                continue
            slopes = _slopes(record, sizes, block, bound)
            weights = [
                _up(w, g, rate) * np.exp(-0.3 * rate * slope)
                for w, g, slope in zip(weights, by_weight, slopes)
            ]
            others = [
                x if whole else _up(x, g, rate)
                for x, g, (_, whole) in zip(
                    others, by_data, [*hessian.inputs, (None, False)]
                )
            ]
            rate *= 0.93
    return worst


# On PyTorch Keras' layers multiply in float32.
_NOISE = 1e-5 if BACKEND == "torch" else 1e-11


def _bound(record, sizes, block):
    """Plain floats run through NumPy alone."""
    found = record._evaluate(lambda i: float(sizes[i]))
    return float(found[block]) - record.offset


def _slopes(record, sizes, block, bound):
    """How the logarithm of the bound grows with that of each size."""
    slopes = np.zeros(len(sizes))
    for i in record.needed_norms:
        moved = sizes.copy()
        moved[i] *= 1 + _SHIFT
        rise = _bound(record, moved, block) / max(bound, 1e-300) - 1
        slopes[i] = np.clip(rise / _SHIFT, -9.0, 9.0)
    return slopes


def _maximiser(gradient, q):
    shape = gradient.shape
    columns = shape[-1] if len(shape) > 1 else gradient.size
    found = oracles.maximiser(gradient.reshape(-1, columns), q)
    return found.reshape(shape)


def _up(x, gradient, rate):
    """Along the gradient, by a share of the root mean square of x, or one."""
    length = np.sqrt(np.mean(np.square(gradient)))
    if not np.isfinite(length) or length == 0:
        return x
    size = max(np.sqrt(np.mean(np.square(x))), 0.1)
    return x + rate * size * gradient / length


def _differentiated(objective, count):
    """Gradients of `<u, H v>` by weights, `u`, `v` and data."""

    if BACKEND == "tensorflow":
        import tensorflow as tf

        options = {"unconnected_gradients": "zero"}

        @tf.function
        def run(*values):
            weights, left, right, others = _parts(values, count)
            with tf.GradientTape() as tape:
                tape.watch(values)
                with tf.GradientTape() as middle:
                    middle.watch(weights)
                    with tf.GradientTape() as inner:
                        inner.watch(weights)
                        value = objective(weights, others)
                    first = inner.gradient(value, weights, **options)
                    along = _product(first, left)
                second = middle.gradient(along, weights, **options)
                form = _product(second, right)
            return tape.gradient(form, values, **options)

    elif BACKEND == "jax":
        import jax

        def form(values):
            weights, left, right, others = _parts(values, count)

            def along(weights):
                first = jax.grad(objective)(weights, others)
                return _product(first, left)

            return _product(jax.grad(along)(weights), right)

        gradient = jax.jit(jax.grad(form))

        def run(*values):
            return gradient(values)

    else:
        import torch

        options = {"allow_unused": True, "materialize_grads": True}

        def run(*values):
            values = [x.detach().requires_grad_() for x in values]
            weights, left, right, others = _parts(values, count)
            value = objective(weights, others)
            first = torch.autograd.grad(
                value, weights, create_graph=True, **options
            )
            # What is linear has no second derivative to ask for.
            along = _product(first, left) + 0 * _product(values, values)
            second = torch.autograd.grad(
                along, weights, create_graph=True, **options
            )
            form = _product(second, right)
            return torch.autograd.grad(form, values, **options)

    def on_arrays(*arrays):
        tensors = [ops.convert_to_tensor(x, "float64") for x in arrays]
        return [ops.convert_to_numpy(g) for g in run(*tensors)]

    return on_arrays


def _parts(values, count):
    ends = [0, count, 2 * count, 3 * count, None]
    return [list(values[a:b]) for a, b in itertools.pairwise(ends)]


def _product(a, b):
    return sum(ops.sum(x * y) for x, y in zip(a, b))


class Builder:
    """Random graphs of the layers that `from_model` certifies."""

    def __init__(self, rng):
        self.rng = rng
        self.layers = keras.layers

    def pick(self, *choices):
        return choices[self.rng.integers(len(choices))]

    def model(self):
        """A model of one to three inputs, and its `Objective`."""
        rank = self.pick(1, 2, 2, 2, 3)
        inputs = [self.input(rank) for _ in range(self.pick(1, 1, 2, 3))]
        pool = [self.embedded(x) for x in inputs]
        for _ in range(self.rng.integers(1, 6)):
            pool.append(self.grow(pool))
        outputs = pool[-1]
        for other in pool[:-1]:
            if self.rng.random() < 0.3:
                outputs = self.join([outputs, other])
        if len(outputs.shape) == 2 or self.rng.random() < 0.8:
            outputs = self.flat(outputs)
        outputs = self.layers.Dense(self.pick(1, 2, 3))(outputs)
        loss, last, target = self.pick(*OBJECTIVES)
        if last:
            outputs = self.pick(
                lambda: self.layers.Activation(last)(outputs),
                lambda: self.last_layer(last)(outputs),
                lambda: self.layers.Dense(2, last)(outputs),
            )()
        model = keras.Model(inputs, outputs)
        self.freeze(model)
        return model, loss(dtype="float64"), target

    def last_layer(self, name):
        if name == "softmax":
            return self.layers.Softmax()
        return getattr(ops, name)

    def freeze(self, model):
        """Some layers, with weights of every size."""
        for layer in model.layers:
            if layer.weights and self.rng.random() < 0.1:
                layer.trainable = False
                for weight in layer.weights:
                    size = np.exp(self.rng.uniform(-1, 1))
                    value = size * self.rng.normal(size=weight.shape)
                    weight.assign(value)
        if not model.trainable_variables:
            model.layers[-1].trainable = model.trainable = True
            for layer in model.layers:
                layer.trainable = True

    def input(self, rank):
        if rank == 2 and self.rng.random() < 0.2:
            return keras.Input((self.pick(3, 4),), dtype="int32")
        length = self.pick(3, 4, 6)
        return keras.Input(
            {
                1: (3,),
                2: (length, self.pick(1, 2)),
                3: (self.pick(3, 4), length, self.pick(1, 2)),
            }[rank]
        )

    def embedded(self, x):
        return self.layers.Embedding(3, 2)(x) if "int" in x.dtype else x

    def flat(self, x):
        if len(x.shape) == 2:
            return x
        means = {
            3: self.layers.GlobalAveragePooling1D,
            4: self.layers.GlobalAveragePooling2D,
        }
        return self.pick(self.layers.Flatten, means[len(x.shape)])()(x)

    def grow(self, pool):
        x = pool[self.rng.integers(len(pool))]
        choice = self.rng.random()
        if choice < 0.2:
            return self.join([x, pool[self.rng.integers(len(pool))]])
        if choice < 0.45:
            return self.sub_model(x)
        return self.layer(x)

    def activation(self):
        return self.pick(
            *"tanh sigmoid softplus gelu linear silu mish".split(),
            *"softmax elu squareplus tanh_shrink".split(),
            ops.sin,
            ops.arctan,
            self.layers.Softmax(),
        )

    def layer(self, x):
        choices = {2: self.on_vectors, 3: self.on_series, 4: self.on_images}
        return self.pick(*choices[len(x.shape)](x))()

    def on_vectors(self, x):
        layers, act = self.layers, self.activation()
        return (
            lambda: layers.Dense(self.pick(1, 2, 4), act)(x),
            lambda: layers.Dense(self.pick(2, 3), act)(x),
            lambda: layers.RepeatVector(3)(x),
            lambda: layers.Rescaling(self.pick(-0.7, 3.0), 0.2)(x),
            lambda: layers.Activation("softmax")(x),
            lambda: layers.Reshape((-1, 1))(x),
            lambda: ops.tanh(x),
            lambda: layers.Dropout(0.5)(x),
        )

    def on_series(self, x):
        layers, act = self.layers, self.activation()
        padding = self.pick("valid", "same", "causal")
        size, stride = self.pick(1, 2, 3), self.pick(1, 2)
        dilation = self.pick(1, 2) if stride == 1 else 1
        if padding != "same" and (size - 1) * dilation >= x.shape[1]:
            padding = "same"
        pool = self.pick("valid", "same") if x.shape[1] >= 3 else "same"
        options = {"padding": padding, "activation": act}
        plain = {**options, "padding": "same"}
        groups = self.pick(1, 2) if x.shape[2] % 2 == 0 else 1
        return (
            lambda: layers.Dense(2, act)(x),
            lambda: layers.Conv1D(
                self.pick(2, 4), size, stride, groups=groups, **options
            )(x),
            lambda: layers.Conv1D(2, size, dilation_rate=dilation, **options)(
                x
            ),
            lambda: layers.DepthwiseConv1D(size, depth_multiplier=2, **plain)(
                x
            ),
            lambda: layers.SeparableConv1D(2, size, stride, **plain)(x),
            lambda: layers.AveragePooling1D(2, stride, pool)(x),
            lambda: layers.AveragePooling1D(3, stride, pool)(x),
            lambda: layers.ZeroPadding1D(1)(x),
            lambda: layers.Cropping1D((0, 1))(x) if x.shape[1] > 1 else x,
            lambda: layers.UpSampling1D(2)(x),
            lambda: layers.Permute((2, 1))(x),
            lambda: layers.Flatten()(x),
            lambda: layers.GlobalAveragePooling1D()(x),
            lambda: ops.transpose(x, (0, 2, 1)),
        )

    def on_images(self, x):
        layers, act = self.layers, self.activation()
        window = self.pick(1, 2), self.pick(1, 2, 3)
        strides = self.pick(1, (1, 2), 2)
        if self.pick(True, False):  # TensorFlow has these for squares only.
            strides = self.pick(1, 2)
        fits = x.shape[1] >= 3 and x.shape[2] >= 3
        options = {
            "padding": self.pick("valid", "same") if fits else "same",
            "activation": act,
        }
        square = strides if isinstance(strides, int) else 1
        return (
            lambda: layers.Conv2D(2, window, strides, **options)(x),
            lambda: layers.Conv2D(2, 2, dilation_rate=2, **options)(x),
            lambda: layers.DepthwiseConv2D(2, square, **options)(x),
            lambda: layers.SeparableConv2D(2, 2, square, **options)(x),
            lambda: layers.AveragePooling2D(
                window, strides, options["padding"]
            )(x),
            lambda: layers.UpSampling2D((1, 2))(x),
            lambda: layers.ZeroPadding2D(((1, 0), (0, 2)))(x),
            lambda: layers.GlobalAveragePooling2D()(x),
            lambda: layers.Reshape((-1, x.shape[3]))(x),
            lambda: layers.Dense(2, act)(x),
        )

    def join(self, xs):
        a, b = xs
        if a.shape != b.shape:
            a = self.layers.Dense(2, "tanh")(self.flat(a))
            b = self.layers.Dense(2)(self.flat(b))
            if self.rng.random() < 0.3:
                # One value for each of three positions of the other.
                a = self.layers.RepeatVector(3)(a)
                return self.layers.Add()([a, self.layers.Reshape((1, 2))(b)])
        return self.pick(
            lambda: self.layers.Add()([a, b]),
            lambda: self.layers.Subtract()([a, b]),
            lambda: self.layers.Average()([a, b]),
            lambda: self.layers.Concatenate()([a, b]),
            lambda: self.layers.Concatenate(axis=1)([a, b]),
            lambda: ops.concatenate([a, b], -1),
            lambda: a + b,
            lambda: a - b,
        )()

    def sub_model(self, x):
        """One with several outputs, maybe built for unknown lengths."""
        shape = tuple(x.shape[1:])
        if len(shape) > 1 and self.rng.random() < 0.6:
            shape = (*[None] * (len(shape) - 1), shape[-1])
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
            self.pick([first, second], {"b": first, "a": second}),
            self.pick(
                [z, y, self.layers.Add()([y, z])],
                {"z": z, "big": self.layers.Rescaling(9.0)(y), "y": y},
            ),
        )
        if isinstance(inner.output, list) and self.rng.random() < 0.5:
            inner = self.wrapped(inner)
        bent = self.layers.Activation("tanh")(x)
        if isinstance(inner.input, dict):
            passed = {"a": x, "b": bent}
        else:
            passed = self.pick([x, bent], {"a": x, "b": bent})
        outputs = inner(passed)
        if isinstance(outputs, dict):
            outputs = [outputs[name] for name in ("big", "z", "y")]
        return outputs[self.rng.integers(3)]

    def wrapped(self, inner):
        """A model that calls a model, its inputs in another order."""
        first, second = (
            keras.Input(tuple(x.shape[1:]), name=name)
            for name, x in zip("ab", inner.inputs)
        )
        if isinstance(inner.input, dict):
            return keras.Model(
                [second, first], inner({"a": first, "b": second})
            )
        return keras.Model([second, first], inner([second, first]))


def _folded(loss):
    return lambda **options: loss(from_logits=True, **options)


def _simplex(y):
    return ops.softmax(y) if y.shape[-1] > 1 else ops.ones_like(y)


# Losses, the last activation, and what targets may be.
OBJECTIVES = [
    (_folded(keras.losses.CategoricalCrossentropy), None, _simplex),
    (_folded(keras.losses.CategoricalCrossentropy), None, _simplex),
    (keras.losses.CategoricalCrossentropy, "softmax", _simplex),
    (_folded(keras.losses.BinaryCrossentropy), None, ops.sigmoid),
    (keras.losses.BinaryCrossentropy, "sigmoid", ops.sigmoid),
    (SumOfSquares, "tanh", ops.tanh),
    (SumOfSquares, "sigmoid", ops.tanh),
    (SumOfSquares, "softmax", ops.tanh),
    (keras.losses.MeanSquaredError, "tanh", ops.tanh),
    (keras.losses.MeanSquaredError, "sigmoid", ops.tanh),
    (keras.losses.Huber, None, lambda y: y),
    (keras.losses.LogCosh, None, lambda y: y),
]

"""Bounds beyond chains: branches, convolutions, pooling, sequences."""

import keras
import numpy as np
import pytest
from keras import layers
from keras import ops

from tests import oracles_bounds as oracles
from tests.helpers import assert_close
from tf_spectral.bounds import LayerwiseSmoothness

NORMS = (1, 2, "inf")
CROSSENTROPY = keras.losses.CategoricalCrossentropy(from_logits=True)


@pytest.fixture(autouse=True)
def float64_layers():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_dtype_policy(before)


def curvatures(record, norms):
    p2 = record.squared_bounds_from_norms(np.asarray(norms, "float64"))
    return ops.convert_to_numpy(p2) - record.offset


def read(inputs, outputs, q, loss=CROSSENTROPY, **options):
    model = keras.Model(inputs, outputs)
    return model, LayerwiseSmoothness.from_model(model, q, loss=loss, **options)


# Branches, against brute force.


def branching_model(combine, widths):
    n0, n1, n2 = widths
    inputs = layers.Input((n0,))
    y = layers.Dense(n1, activation="tanh")(inputs)
    branch = layers.Dense(n1, activation="sigmoid")(y)
    y = combine([y, branch])
    return inputs, layers.Dense(n2)(y)


def branching_jet(weights, x, block, combine):
    m = weights[block].size
    start = dict.fromkeys(range(6))
    start[block] = "bias" if block % 2 else "kernel"
    jet = oracles.Jet.constant(x, m)
    y = jet.affine(*weights[:2], start[0] or start[1]).apply("tanh")
    branch = y.affine(*weights[2:4], start[2] or start[3]).apply("sigmoid")
    y = y.join(branch, combine)
    return y.affine(*weights[4:], start[4] or start[5])


BRANCHES = {
    "add": (layers.Add, np.add, 1),
    "subtract": (layers.Subtract, np.subtract, 1),
    "average": (layers.Average, lambda a, b: (a + b) / 2, 1),
    "operator": (lambda: lambda pair: pair[0] + pair[1], np.add, 1),
    "concatenate": (
        layers.Concatenate,
        lambda a, b: np.concatenate([a, b], -1),
        2,
    ),
}


@pytest.mark.parametrize("q", NORMS)
@pytest.mark.parametrize("name", BRANCHES)
def test_branches_against_brute_force(name, q):
    layer, combine, copies = BRANCHES[name]
    ratios = []
    for seed in range(2):
        rng = np.random.default_rng(seed)
        n0, n1, n2 = (int(n) for n in rng.integers(1, 5, 3) + [0, 0, 1])
        _, record = read(*branching_model(layer(), (n0, n1, n2)), q)
        assert record.certified
        shapes = [(n0, n1), n1, (n1, n1), n1, (copies * n1, n2), n2]
        scale = 10 ** rng.uniform(-1, 0.6)
        weights = [scale * rng.normal(size=shape) for shape in shapes]
        x = rng.choice([-1.0, 1.0], (2, n0))
        z = np.eye(n2)[rng.integers(0, n2, 2)]
        bounds = curvatures(record, [oracles.norm(w, q) for w in weights])
        for block, bound in enumerate(bounds):
            jet = branching_jet(weights, x, block, combine)
            hessian = jet.hessian("crossentropy", z)
            shape = weights[block].shape
            found = oracles.bilinear_norm(hessian, shape, q, rng)
            assert found <= bound * (1 + 1e-9)
            ratios.append(found / bound)
    assert max(ratios) > 0.1


def test_residual_sum_by_hand():
    """r-factor 1 + r_F and v-factor v_F, math.md 4.5."""
    _, record = read(*branching_model(layers.Add(), (3, 4, 2)), 2)
    z = np.array([9.0, 9.0, 1.5, 9.0, 0.7, 9.0])
    s1, s2 = 0.25, 1 / (6 * 3**0.5)
    r, v = 1 + s1 * z[2], s2 * z[2] ** 2
    r, v = z[4] * r, z[4] * v
    unit = 0.5 * r**2 + 2**0.5 * (v + 4 / (3 * 3**0.5) * r)
    branch = 0.5 * (s1 * z[4]) ** 2 + 2**0.5 * s2 * z[4]
    # The last input is a sum of two values of norm 4^(1/2).
    expected = [3 * unit, unit, 4 * branch, branch, 16 * 0.5, 0.5]
    assert_close(curvatures(record, z), expected, 1e-9)
    assert record.needed_norms == (2, 4)


# Whole models, by second differences along unit directions.


def images():
    inputs = layers.Input((6, 6, 2))
    x = layers.Conv2D(3, 3, strides=2, activation="tanh")(inputs)
    x = layers.AveragePooling2D(2)(x)
    x = layers.SeparableConv2D(3, 1, activation="softplus")(x)
    return inputs, layers.Dense(3)(layers.Flatten()(x))


def tokens():
    inputs = layers.Input((4,), dtype="int32")
    x = layers.Embedding(5, 3)(inputs)
    x = layers.Conv1D(3, 2, activation="silu")(x)
    x = layers.GlobalAveragePooling1D()(x)
    return inputs, layers.Dense(3)(x)


def sequences():
    inputs = layers.Input((4, 3))
    x = layers.Dense(2, activation="tanh")(inputs)
    return inputs, layers.Dense(3)(x)


def two_inputs():
    a, b = layers.Input((3,)), layers.Input((2,))
    x = layers.Dense(2, activation="tanh")(a)
    x = layers.Concatenate()([x, b])
    x = layers.Dense(3, activation="softmax")(x)
    return [a, b], layers.Dense(3)(x)


def log_loss(logits, targets):
    p = np.exp(logits)
    return -(targets * np.log(p / p.sum(-1, keepdims=True))).sum(-1).mean()


def example(shape, dtype, rng):
    if "int" in dtype:
        return rng.integers(0, 5, (2, *shape))
    return rng.choice([-1.0, 1.0], (2, *shape))


@pytest.mark.parametrize("q", NORMS)
@pytest.mark.parametrize("make", [images, tokens, sequences, two_inputs])
def test_second_differences_stay_below(make, q):
    model, record = read(*make(), q)
    assert record.certified
    rng = np.random.default_rng(1)
    x = [example(t.shape[1:], t.dtype, rng) for t in model.inputs]
    shape = (2, *model.outputs[0].shape[1:])
    z = np.eye(3)[rng.integers(0, 3, shape[:-1])]

    def loss():
        y = model(x if len(x) > 1 else x[0])
        return log_loss(ops.convert_to_numpy(y), z)

    variables = model.trainable_variables
    for v in variables:
        v.assign(rng.normal(size=v.shape))
    norms = [oracles.norm(ops.convert_to_numpy(v), q) for v in variables]
    bounds = curvatures(record, norms)
    here, t = loss(), 1e-3
    for v, bound in zip(variables, bounds):
        value = ops.convert_to_numpy(v)
        columns = value.shape[-1]
        for _ in range(3):
            g = rng.normal(size=value.shape).reshape(-1, columns)
            d = t * oracles.maximiser(g, q).reshape(value.shape)
            v.assign(value + d)
            change = loss()
            v.assign(value - d)
            change += loss() - 2 * here
            v.assign(value)
            assert change / t**2 <= bound * (1 + 1e-3) + 1e-6, v.path


def test_positions_of_a_sequence_count():
    """The same network on one position, and on four that are equal."""
    _, one = read(*chain_on((3,)), 2)
    _, four = read(*chain_on((4, 3)), 2)
    norms = [1.0, 1.0, 2.0, 1.0]
    # d1 by P^(-1/2), d2 by 1/P, squared reach by P: the first terms agree.
    a, b = curvatures(one, norms), curvatures(four, norms)
    assert_close(b[2:], a[2:], 1e-12)
    assert np.all(b >= a - 1e-12)


def chain_on(shape):
    inputs = layers.Input(shape)
    x = layers.Dense(2, activation="tanh")(inputs)
    return inputs, layers.Dense(3)(x)


def test_dropout_multiplies_what_follows():
    inputs = layers.Input((3,))
    x = layers.Dense(4, activation="tanh")(inputs)
    _, plain = read(inputs, layers.Dense(2)(x), 2)
    _, dropped = read(inputs, layers.Dense(2)(layers.Dropout(0.5)(x)), 2)
    a, b = curvatures(plain, [1] * 4), curvatures(dropped, [1, 1, 2, 1])
    assert_close(b[2:] / a[2:], [4.0, 1.0], 1e-12)
    c = curvatures(plain, [1, 1, 4, 1])
    assert_close(b[:2], c[:2], 1e-12)


def test_sub_models_are_entered():
    inputs = layers.Input((3,))
    inner = keras.Sequential(
        [layers.Input((3,)), layers.Dense(4, activation="tanh")]
    )
    _, nested = read(inputs, layers.Dense(2)(inner(inputs)), 2)
    x = layers.Dense(4, activation="tanh")(inputs)
    _, flat = read(inputs, layers.Dense(2)(x), 2)
    sequential = keras.Sequential(
        [
            layers.Input((3,)),
            layers.Dense(4, activation="tanh"),
            layers.Dense(2),
        ]
    )
    direct = LayerwiseSmoothness.from_model(sequential, loss=CROSSENTROPY)
    norms = [0.3, 0.4, 0.5, 0.6]
    expected = curvatures(flat, norms)
    assert np.array_equal(curvatures(nested, norms), expected)
    assert np.array_equal(curvatures(direct, norms), expected)
    assert nested.certified


def test_frozen_layers_are_constants():
    inputs = layers.Input((3,))
    first, last = layers.Dense(4, activation="softplus"), layers.Dense(2)
    outputs = last(first(inputs))
    rng = np.random.default_rng(0)
    for v in first.weights + last.weights:
        v.assign(rng.normal(size=v.shape))
    weights = [ops.convert_to_numpy(v) for v in first.weights + last.weights]
    for q in NORMS:
        _, record = read(inputs, outputs, q)
        everything = curvatures(record, [oracles.norm(w, q) for w in weights])
        last.trainable = False
        _, record = read(inputs, outputs, q)
        assert record.needed_norms == ()
        assert_close(curvatures(record, [0, 0]), everything[:2], 1e-8)
        last.trainable, first.trainable = True, False
        _, record = read(inputs, outputs, q)
        assert record.needed_norms == ()
        assert_close(curvatures(record, [0, 0]), everything[2:], 1e-8)
        first.trainable = True


def test_rescaled_pixels_are_taken_within_one():
    inputs = layers.Input((4,))
    x = layers.Rescaling(1 / 127.5, offset=-1.0)(inputs)
    _, record = read(inputs, layers.Dense(2)(x), "inf")
    assert_close(curvatures(record, [0, 0]), [1.0, 1.0], 1e-9)

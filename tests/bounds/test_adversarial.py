"""No curvature above its bound: gradient ascent against the certificates."""

import keras
import numpy as np
import pytest
from keras import layers
from keras import losses
from keras import ops

from tests.bounds import adversary
from tests.bounds.cases import quiet
from tests.helpers import BACKEND
from tf_spectral.losses import SumOfSquares

NORMS = (1, 2, "inf")
# In float64, as losses have a dtype of their own.
CROSSENTROPY = losses.CategoricalCrossentropy(from_logits=True, dtype="float64")
SQUARES = (
    SumOfSquares(dtype="float64"),
    losses.MeanSquaredError(dtype="float64"),
)
# Second differences are exact to about this.
LIMIT = 1 + (1e-3 if BACKEND == "torch" else 1e-6)


@pytest.fixture(autouse=True)
def float64_layers():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_dtype_policy(before)


def check(model, q, loss=CROSSENTROPY, seed=0, **options):
    """The worst ratio of a record that is certified, `None` of another."""
    record = quiet(model, q, loss=loss)
    if not record.certified:
        return None
    rng = np.random.default_rng(seed)
    worst = adversary.worst_ratio(model, record, q, loss, rng, **options)
    assert worst <= LIMIT, f"{worst:.6g}\n{record.report()}"
    return worst


def search(seeds):
    """How many graphs were certified, and the worst ratio of all."""
    found = []
    for seed in seeds:
        rng = np.random.default_rng(seed)
        model, squares = adversary.Builder(rng).model()
        loss = CROSSENTROPY
        if squares:
            loss = SQUARES[seed % 2]
        ratios = [check(model, q, loss, seed) for q in NORMS]
        found += [ratio for ratio in ratios if ratio is not None]
    return len(found) / 3, max(found)


def test_a_few_random_graphs():
    graphs, worst = search(range(3))
    assert graphs > 1
    assert worst > 0.01  # the search finds something


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
def test_many_random_graphs(part):
    graphs, worst = search(range(100 + 30 * part, 130 + 30 * part))
    assert graphs > 15
    assert worst > 0.1


# Sharp cases: each exceeded its bound once.


def several_outputs():
    """The second output is a hundred times the first."""
    inner = keras.Input((2,))
    big = layers.Rescaling(100.0)(inner)
    block = keras.Model(inner, [inner, big])
    inputs = keras.Input((2,))
    x = layers.Dense(2, "tanh")(inputs)
    return keras.Model(inputs, layers.Dense(2)(block(x)[1]))


def unknown_lengths():
    inner = keras.Input((None, 1))
    block = keras.Model(inner, layers.Dense(1, "tanh")(inner))
    inputs = keras.Input((16, 1))
    x = layers.Flatten()(block(inputs))
    return keras.Model(inputs, layers.Dense(2)(x))


def by_name():
    """Keras pairs a dictionary with a list of inputs by name."""
    a, b = keras.Input((2,), name="a"), keras.Input((2,), name="b")
    block = keras.Model([b, a], layers.Rescaling(100.0)(a) + b)
    inputs = keras.Input((2,))
    x = layers.Dense(2, "tanh")(inputs)
    y = layers.Rescaling(0.001)(inputs)
    return keras.Model(inputs, layers.Dense(2)(block({"a": x, "b": y})))


def fixed_batch():
    inputs = keras.Input(batch_shape=(3, 3))
    x = ops.transpose(layers.Dense(3, "tanh")(inputs))
    return keras.Model(inputs, layers.Dense(2)(x))


def masked_mean():
    inputs = keras.Input((6, 2))
    mask = keras.Input((6,))
    x = layers.Dense(2, "tanh")(inputs)
    x = layers.GlobalAveragePooling1D()(x, mask=mask)
    return keras.Model([inputs, mask], layers.Dense(2)(x))


def uneven_pooling():
    inputs = keras.Input((4, 1))
    x = layers.Dense(1, "tanh")(inputs)
    x = layers.AveragePooling1D(4, 1, "same")(x)
    return keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x)))


def other_rank_joined():
    """Operations line shapes up at their ends: the batch meets an axis."""
    inputs = keras.Input(batch_shape=(3, 2))
    x = layers.Dense(2, "tanh")(inputs)
    y = layers.RepeatVector(3)(inputs) + x
    return keras.Model(inputs, layers.Dense(2)(layers.Flatten()(y)))


def repeated_in_a_sum():
    """What is broadcast counts as often as it is repeated."""
    inputs = keras.Input((2,))
    x = layers.Reshape((1, 2))(layers.Dense(2, "tanh")(inputs))
    x = layers.Add()([x, layers.RepeatVector(4)(inputs)])
    return keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x)))


@pytest.mark.parametrize("q", NORMS)
@pytest.mark.parametrize(
    "make",
    [
        several_outputs,
        unknown_lengths,
        by_name,
        uneven_pooling,
        repeated_in_a_sum,
    ],
)
def test_sharp_cases_stay_below_their_bounds(make, q):
    ratio = check(make(), q, blocks=4, steps=20)
    assert ratio is not None


@pytest.mark.parametrize("make", [fixed_batch, masked_mean, other_rank_joined])
def test_what_mixes_examples_or_is_masked_is_a_doubt(make):
    if BACKEND == "jax" and make is other_rank_joined:
        pytest.skip("one backend will do")
    assert not quiet(make(), 2, loss=CROSSENTROPY).certified


def test_a_regularizer_on_a_folded_activation_is_a_doubt():
    for activity in (None, keras.regularizers.L2(10.0)):
        model = keras.Sequential(
            [
                keras.Input((2,)),
                layers.Dense(2, "tanh"),
                layers.Dense(3, "softmax", activity_regularizer=activity),
            ]
        )
        record = quiet(model, 2, loss="categorical_crossentropy")
        assert record.certified == (activity is None)


@pytest.mark.parametrize("q", NORMS)
@pytest.mark.parametrize("loss", SQUARES)
def test_one_output_and_flat_targets(q, loss):
    """Targets (batch,) beside outputs (batch, 1) are not broadcast."""
    model = keras.Sequential(
        [
            keras.Input((2,)),
            layers.Dense(2, "tanh"),
            layers.Dense(1, "tanh"),
        ]
    )

    class Flat(type(loss)):
        def call(self, y_true, y_pred):
            return super().call(y_true[:, 0], y_pred)

    record = quiet(model, q, loss=loss)
    rng = np.random.default_rng(0)
    worst = adversary.worst_ratio(
        model,
        record,
        q,
        Flat(dtype="float64"),
        rng,
        blocks=4,
        steps=20,
        batch=4,
    )
    assert worst <= LIMIT


def test_constraints_and_half_precision_are_doubts():
    for options in (
        {"kernel_constraint": "unit_norm"},
        {"bias_constraint": "non_neg"},
        {"dtype": "mixed_bfloat16"},
        {"dtype": "float16"},
    ):
        model = keras.Sequential(
            [keras.Input((2,)), layers.Dense(3, **options)]
        )
        assert not quiet(model, 2, loss=CROSSENTROPY).certified

"""JointOptimizer: hooks, conditional updates and learning rates."""

import keras
import numpy as np
import pytest
from keras import ops

from tests.optimizers import contract
from tf_spectral import checks
from tf_spectral.backend.keras_internals import place_of
from tf_spectral.optimizers.base import IterationSeed
from tf_spectral.optimizers.base import JointOptimizer
from tf_spectral.optimizers.base import all_finite


class Largest(JointOptimizer):
    """Moves the variable with the largest gradient entry."""

    def __init__(self, learning_rate=0.1, name="largest", **kwargs):
        super().__init__(learning_rate, name=name, **kwargs)

    def build(self, variables):
        if self.built:
            return
        super().build(variables)
        self.chosen = self.add_variable(
            (), dtype="int32", aggregation="only_first_replica", name="chosen"
        )

    def joint_step(self, gradients, variables, learning_rate):
        sizes = ops.stack([ops.max(ops.abs(g)) for g in gradients])
        self.chosen.assign(ops.cast(ops.argmax(sizes), "int32"))
        return [2.0 * g for g in gradients]

    def update_step(self, gradient, variable, learning_rate):
        index = place_of(self, variable)
        self.assign_sub_if(
            ops.equal(ops.convert_to_tensor(self.chosen), index),
            variable,
            lambda: learning_rate * gradient,
        )


@pytest.mark.parametrize("name", contract.compile_modes())
def test_sees_all_gradients_and_moves_one(name):
    model = contract.network(contract.OPTIMIZERS["dsgd_2"])
    model.compile(Largest(), contract.LOSS, **contract.compile_modes()[name])
    before = contract.weights_of(model)
    contract.fitted(model, 1, *contract.examples(n=contract.BATCH))
    changed = [
        not np.array_equal(a, b)
        for a, b in zip(contract.weights_of(model), before)
    ]
    assert sum(changed) == 1
    chosen = int(ops.convert_to_numpy(model.optimizer.chosen))
    assert changed[chosen]


def test_what_the_joint_step_returns_is_applied():
    model = contract.network(contract.OPTIMIZERS["dsgd_2"])
    optimizer = Largest(0.5)
    gradients = [ops.zeros(v.shape) for v in model.trainable_variables]
    gradients[3] = ops.ones(gradients[3].shape)
    before = contract.weights_of(model)
    optimizer.apply(gradients, model.trainable_variables)
    after = contract.weights_of(model)
    np.testing.assert_allclose(before[3] - after[3], 1.0, rtol=1e-6)


def test_the_base_has_no_step():
    class Without(JointOptimizer):
        pass

    model = contract.network(contract.OPTIMIZERS["dsgd_2"])
    gradients = [ops.ones(v.shape) for v in model.trainable_variables]
    with pytest.raises(NotImplementedError):
        Without(0.1).apply(gradients, model.trainable_variables)


@pytest.mark.parametrize(
    "value", [1, 2.5, np.float32(2.0), np.array(3), np.int64(4)]
)
def test_numbers_become_floats(value):
    assert checks.learning_rate("learning_rate", value) == value
    assert type(checks.learning_rate("learning_rate", value)) is float


def test_schedules_stay_what_they_are():
    schedule = keras.optimizers.schedules.CosineDecay(1.0, 10)
    assert checks.learning_rate("learning_rate", schedule) is schedule


def test_iteration_seed_follows_the_count_alone():
    count = keras.Variable(0, dtype="int32", trainable=False)

    def draw(seed=3):
        seeds = IterationSeed(seed, lambda: count)
        value = keras.random.uniform((4,), seed=seeds)
        return ops.convert_to_numpy(value)

    first = draw()
    np.testing.assert_array_equal(draw(), first)
    assert not np.array_equal(draw(seed=4), first)
    count.assign(1)
    assert not np.array_equal(draw(), first)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_all_finite(value):
    good = np.ones((3, 4), "float32")
    bad = good.copy()
    bad[1, 2] = value
    assert bool(all_finite([good, None, good]))
    assert not bool(all_finite([good, bad]))

"""Every private name of Keras that is used, used once.

A failure here means that this version of Keras dropped or changed it; what
depends on it stands in `tf_spectral/backend/keras_internals.py`.
"""

import keras
import numpy as np
import pytest
from keras import layers
from keras import ops

from tf_spectral.backend import keras_internals as internals


@pytest.fixture
def model():
    inner = keras.Sequential([keras.Input((2,)), layers.Dense(2, name="a")])
    outer = [keras.Input((3,), name="x"), layers.Dense(2, name="b"), inner]
    return keras.Sequential(outer)


def names(parts):
    return [part.name for part in parts]


def test_layers_within(model):
    within = internals.layers_within
    assert within(model)[0] is model
    assert {"a", "b"} <= set(names(within(model)))
    direct = within(model, include_self=False, recursive=False)
    assert model not in direct and "a" not in names(direct)
    twice = keras.Sequential([model.layers[0], model.layers[0]])
    assert names(within(twice, include_self=False)) == ["b"]


def test_variables_of_a_layer(model):
    batch = layers.BatchNormalization()
    batch.build((None, 2))
    assert len(internals.own_variables(batch)) == 4
    assert internals.own_variables(model) == []
    given = layers.Lambda(lambda x: x, output_shape=(5,))
    assert tuple(internals.declared_output_shape(given)) == (5,)


def test_what_comes_with_keras():
    class Own(keras.Model):
        def call(self, x):
            return x

    x = keras.Input((3,))
    assert internals.is_of_keras(layers.Dense)
    assert internals.is_of_keras(keras.Model.call)
    assert not internals.is_of_keras(Own)
    assert not internals.is_of_keras(lambda x: x)
    operation = internals.call_behind(ops.exp(x)).operation
    assert internals.is_symbolic_operation(operation)
    assert not internals.is_symbolic_operation(layers.Dense(2))


def test_a_call_in_progress():
    seen = []

    class Asks(layers.Layer):
        def call(self, x):
            seen.append(internals.call_in_progress(self))
            return x

    one, other = Asks(), Asks()
    x = np.zeros((1, 2))
    # The model is built by a call of its own.
    keras.Sequential([one, other])(x)
    last, before = seen[-1], seen[-2]
    assert last is before
    one(x)
    assert seen[-1] is not last


def test_dropout_masks():
    drawn = []

    class Layer(internals.RNNWithOwnMasks):
        def draw_masks(self, cell, sequence, state):
            drawn.append((cell, sequence.shape, len(state)))
            return self.own

    for own in (True, False):
        drawn.clear()
        layer = Layer(layers.SimpleRNNCell(2, dropout=0.5))
        layer.own = own
        layer(np.ones((1, 4, 3)), training=True)
        ((cell, shape, states),) = drawn
        assert cell is layer.cell and tuple(shape) == (1, 3) and states == 1
        mask = cell.get_dropout_mask(ops.ones((1, 3)))
        assert cell.get_dropout_mask(ops.ones((1, 3))) is mask
        internals.reset_dropout_masks(layer)
        assert cell.get_dropout_mask(ops.ones((1, 3))) is not mask


def test_graphs_of_layers(model):
    assert internals.is_graph(model)
    assert not internals.is_graph(keras.Sequential([layers.Dense(2)]))
    assert not internals.is_graph(model.layers[0])
    call = internals.call_behind(model.outputs[0])
    assert call.operation is model.layers[1]
    assert [tuple(x.shape) for x in call.input_tensors] == [(None, 2)]
    assert len(call.output_tensors) == 1 and len(call.arguments.args) == 1
    assert internals.calls_of(model.layers[0])[0].operation is model.layers[0]
    named = {"p": keras.Input((2,), name="p")}
    given = internals.inputs_as_given(keras.Model(named, named["p"]))
    assert list(given) == ["p"]


def test_a_subclass_with_a_call_of_its_own_is_no_graph():
    class Own(keras.Sequential):
        def call(self, x):
            return 2 * x

    own = Own([keras.Input((2,)), layers.Dense(2)])
    assert not internals.is_graph(own)


def test_chains(model):
    assert internals.chain(model) == model.layers
    x = keras.Input((3,))
    y = layers.Dense(3, name="first")(x)
    chain = internals.chain(keras.Model(x, layers.Dense(1, name="last")(y)))
    assert names(chain) == ["first", "last"]
    for output in (y + x, ops.exp(y), layers.Add()([x, y])):
        assert internals.chain(keras.Model(x, output)) is None
    assert internals.chain(keras.Model(x, [y, x])) is None


def test_training(model):
    loss = keras.losses.Huber(delta=0.5)
    assert internals.settings_of(loss)["delta"] == 0.5
    assert internals.settings_of(lambda y, p: 0) == {}
    model.compile("sgd", "mse")
    epochs = []

    class Noted(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            internals.start_at(self.model, 2)

        def on_epoch_begin(self, epoch, logs=None):
            epochs.append(epoch)
            internals.start_at(self.model, None)

    x = np.zeros((2, 3)), np.zeros((2, 2))
    model.fit(*x, epochs=4, verbose=0, callbacks=[Noted()])
    assert epochs == [2, 3]


class Hooked(internals.HookedOptimizer):
    def __init__(self, **kwargs):
        super().__init__(learning_rate=0.5, **kwargs)
        self.seen, self.spared = [], None

    def before_updates(self, gradients, variables):
        self.seen.append(("before", len(gradients), len(variables)))
        return [0 * g for g in gradients]

    def update_step(self, gradient, variable, learning_rate):
        place = internals.place_of(self, variable)
        self.seen.append(("update", place))
        self.assign_sub(variable, gradient)

    def after_updates(self):
        self.seen.append("after")

    def after_averaging(self):
        self.seen.append("averaged")

    def decayed(self, variables):
        return [v for v in variables if v is not self.spared]


def test_hooks_of_an_optimizer():
    optimizer = Hooked(use_ema=True, weight_decay=0.1)
    weights = [keras.Variable(np.ones((2, 2))) for _ in range(2)]
    optimizer.build(weights)
    optimizer.spared = weights[0]
    assert internals.trained_variables(optimizer) == weights
    optimizer.apply([ops.ones((2, 2)), ops.ones((2, 2))])
    steps = [("update", 0), ("update", 1)]
    assert optimizer.seen == [("before", 2, 2), *steps, "after", "averaged"]
    values = [ops.convert_to_numpy(w)[0, 0] for w in weights]
    np.testing.assert_allclose(values, [1.0, 0.95])
    averages = internals.averages_of(optimizer)
    assert [tuple(a.shape) for a in averages] == [(2, 2), (2, 2)]


def test_optimizers():
    schedule = keras.optimizers.schedules.ExponentialDecay(1.0, 1, 0.5)
    optimizer = keras.optimizers.SGD(schedule, weight_decay=0.5)
    weight = keras.Variable(np.ones(2))
    optimizer.build([weight])
    assert float(internals.current_learning_rate(optimizer)) == 1.0
    internals.count_step(optimizer)
    assert int(optimizer.iterations) == 1
    assert float(internals.current_learning_rate(optimizer)) == 0.5
    assert internals.decays(optimizer, weight)
    internals.decay_weights(optimizer, [weight])
    np.testing.assert_allclose(ops.convert_to_numpy(weight), [0.75, 0.75])

"""Every private name of Keras that this package uses, in one place.

Keras may drop or change such a name with any version.
`tests/backend/test_keras_internals.py` uses each once, and says which one it
was.
"""

import keras

# Layers and models


def layers_within(layer, include_self=True, recursive=True):
    """A layer and all layers within it, each once.

    Args:
        layer: Keras layer or model.
        include_self: Boolean, whether `layer` is among them. Defaults to
            `True`.
        recursive: Boolean, whether to look into these, too. Defaults to
            `True`.
    """
    found = layer._flatten_layers(
        include_self=include_self, recursive=recursive
    )
    return list({id(x): x for x in found}.values())


def own_variables(layer):
    """The variables of a layer without those of layers within it."""
    return layer._trainable_variables + layer._non_trainable_variables


def is_of_keras(thing):
    """Whether a class or function comes with Keras."""
    return (getattr(thing, "__module__", None) or "").startswith("keras.")


def is_symbolic_operation(operation):
    """Whether it is an operation of `keras.ops` in a graph of layers."""
    return type(operation).__module__.startswith("keras.src.ops.")


def declared_output_shape(layer):
    """The `output_shape` that a `keras.layers.Lambda` was made with."""
    return layer._output_shape


def call_in_progress(layer):
    """What stands for the outermost call that a layer is part of.

    Outside of a call Keras begins one when it is asked.
    """
    return layer._get_call_context()


def reset_dropout_masks(layer):
    """Lets the cell of a `keras.layers.RNN` draw new masks."""
    layer._maybe_reset_dropout_masks(layer.cell)


class RNNWithOwnMasks(keras.layers.RNN):
    """A `keras.layers.RNN` that may draw its dropout masks itself."""

    def draw_masks(self, cell, sequence, state):
        """Draws the masks of a sequence, or returns `False`.

        Args:
            cell: The cell of the layer.
            sequence: Tensor, the inputs of one step.
            state: List of tensors, the initial states.

        Returns:
            Boolean, whether they were drawn. Else Keras draws them.
        """
        return False

    def _maybe_config_dropout_masks(self, cell, input_sequence, input_state):
        if not self.draw_masks(cell, input_sequence, input_state):
            super()._maybe_config_dropout_masks(
                cell, input_sequence, input_state
            )


# Graphs of layers


def is_graph(model):
    """Whether `model` runs a graph of layers that can be read."""
    if not isinstance(model, keras.Model):
        return False
    # With a `call` of its own it need not run its graph.
    keeps_call = "call" not in vars(model) and all(
        is_of_keras(getattr(type(model), name)) for name in ("call", "__call__")
    )
    return keeps_call and bool(getattr(model, "outputs", None))


def call_behind(tensor):
    """The call that a symbolic tensor is an output of.

    Args:
        tensor: `keras.KerasTensor` of a graph.

    Returns:
        Node with `operation`, `arguments` (`.args`, `.kwargs`),
        `input_tensors` and `output_tensors`.
    """
    history = tensor._keras_history
    return history.operation._inbound_nodes[history.node_index]


def calls_of(layer):
    """The calls of a layer in graphs, as `call_behind` gives one."""
    return list(layer._inbound_nodes)


def inputs_as_given(model):
    """The inputs of a model in the structure that it was built from."""
    return getattr(model, "_inputs_struct", None)


def chain(model):
    """The layers of a model, where each takes what the one before gives.

    Args:
        model: Sequential or Functional model.

    Returns:
        List of layers, without those of inputs, or `None` if there are other
        calls than those of a chain.
    """
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        return None
    layers, tensor = [], model.outputs[0]
    while tensor is not model.inputs[0]:
        call = call_behind(tensor)
        passed = call.arguments
        tensor, *others = [*passed.args, *passed.kwargs.values()]
        # Keras adds `mask=None` and `training=False` to what was passed.
        plain = all(a is None or a is False for a in others)
        single = isinstance(tensor, keras.KerasTensor)
        is_layer = isinstance(call.operation, keras.layers.Layer)
        if not (plain and single and is_layer):
            return None
        layers.append(call.operation)
    return layers[::-1]


# Training


def settings_of(loss):
    """The arguments that a wrapped loss function is called with."""
    return dict(getattr(loss, "_fn_kwargs", {}))


def start_at(model, epoch):
    """Lets the next `fit` begin with an epoch; `None` leaves it to `fit`."""
    model._initial_epoch = epoch


# Optimizers


def trained_variables(optimizer):
    """The variables that an optimizer was built with, in their order."""
    return list(optimizer._trainable_variables)


def place_of(optimizer, variable):
    """The place of a variable among the `trained_variables`.

    Args:
        optimizer: Keras optimizer.
        variable: Variable, as `update_step` gets it: on TensorFlow one of the
            backend's own kind, which has no path.
    """
    return optimizer._get_variable_index(variable)


def current_learning_rate(optimizer):
    """The learning rate of this step, of a schedule, too."""
    return optimizer._get_current_learning_rate()


def count_step(optimizer):
    """Advances the step count of an optimizer whose `apply` does not run."""
    optimizer._iterations.assign_add(1)


def decay_weights(optimizer, variables):
    """Applies the `weight_decay` of an optimizer whose `apply` does not run."""
    optimizer._apply_weight_decay(variables)


def decays(optimizer, variable):
    """Whether the `weight_decay` of an optimizer is for a variable, too."""
    return bool(optimizer.weight_decay) and optimizer._use_weight_decay(
        variable
    )


def averages_of(optimizer):
    """The moving averages of the `trained_variables`, with `use_ema=True`."""
    return optimizer._model_variables_moving_average


class HookedOptimizer(keras.optimizers.Optimizer):
    """An optimizer that can act at more points of a step than Keras offers.

    A subclass overrides what it needs of

    - `before_updates(gradients, variables)`: what to use in place of the
      gradients, seen all at once, after accumulation, unscaling, clipping
      and, under `tf.distribute`, the sum over replicas;
    - `after_updates()`;
    - `after_averaging()`: the moving averages, if any, are up to date;
    - `decayed(variables)`: those whose weights decay.
    """

    before_updates = None

    def after_updates(self):
        pass

    def after_averaging(self):
        pass

    def decayed(self, variables):
        return variables

    def _backend_update_step(self, grads, trainable_variables, learning_rate):
        if self.before_updates and keras.backend.backend() != "tensorflow":
            grads = self.before_updates(grads, list(trainable_variables))
        super()._backend_update_step(grads, trainable_variables, learning_rate)
        self.after_updates()

    def _all_reduce_sum_gradients(self, grads_and_vars):
        # TensorFlow calls this on the way from the one above to the updates.
        # Before it, each replica knows only its own gradients.
        grads_and_vars = super()._all_reduce_sum_gradients(grads_and_vars)
        if not self.before_updates:
            return grads_and_vars
        grads, variables = zip(*grads_and_vars)
        return list(zip(self.before_updates(grads, list(variables)), variables))

    def _update_model_variables_moving_average(self, trainable_variables):
        super()._update_model_variables_moving_average(trainable_variables)
        if self.use_ema:
            self.after_averaging()

    def _apply_weight_decay(self, variables):
        variables = self.decayed(list(variables))
        if variables:
            super()._apply_weight_decay(variables)

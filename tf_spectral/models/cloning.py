"""Cloner: a model again, with other layers in the place of some."""

import contextlib
import tempfile

import keras
from keras import layers as stock
from keras import ops
from keras import tree

from tf_spectral.backend.keras_internals import call_behind
from tf_spectral.backend.keras_internals import declared_output_shape
from tf_spectral.backend.keras_internals import is_graph
from tf_spectral.backend.keras_internals import layers_within
from tf_spectral.layers.conversion import carry_trainable
from tf_spectral.layers.conversion import config_of
from tf_spectral.models.selection import children_of
from tf_spectral.models.selection import find_layers


class Cloner:
    """Clones models; a layer that they share is cloned once.

    Args:
        replacements: Dict `id(layer) -> layer`, with what is to take the
            place of a layer: built, and with its weights.
    """

    def __init__(self, replacements):
        self.replacements = replacements
        self._clones = dict(replacements)
        # Those that get weights once a model around them has built them.
        self._bare = set()

    def clone(self, model):
        """A clone of a model with all weights, not compiled."""
        with _not_compiled(model):
            clone = keras.models.clone_model(
                model, _inputs_like(model), clone_function=self._layer
            )
        for layer in model.layers:
            if id(layer) in self._bare:
                carry_over(layer, self._clones[id(layer)])
        if not model.trainable:
            clone.trainable = False
        return clone

    def _layer(self, layer):
        if id(layer) not in self._clones:
            self._clones[id(layer)] = self._new(layer)
        return self._clones[id(layer)]

    def _new(self, layer):
        if is_graph(layer):
            return self.clone(layer)
        if find_layers(layer).keys() & self.replacements.keys():
            return self._wrapper(layer)
        self._bare.add(id(layer))
        return _from_configuration(layer)

    def _wrapper(self, wrapper):
        parts = [self._part(part) for part in children_of(wrapper)]
        config = wrapper.get_config()
        config.update(zip(("layer", "backward_layer"), parts))
        new = type(wrapper)(**config)
        new.build_from_config(wrapper.get_build_config())
        for part, own in zip(parts, children_of(new)):
            # `Bidirectional` makes a forward layer of its own.
            if own is not part:
                carry_over(part, own)
                if hasattr(part, "conversion_residual"):
                    own.conversion_residual = part.conversion_residual
        return new

    def _part(self, layer):
        part = self._layer(layer)
        if id(layer) in self._bare:
            if not part.built:
                part.build_from_config(layer.get_build_config())
            carry_over(layer, part)
        return part


@contextlib.contextmanager
def _not_compiled(model):
    """Some versions of Keras compile the clone, if they can read the loss."""
    compiled, model.compiled = model.compiled, False
    try:
        yield
    finally:
        model.compiled = compiled


def _inputs_like(model):
    """Inputs of the same names, which `clone_model` would not keep."""
    if isinstance(model, keras.Sequential):
        return None

    def like(tensor):
        config = call_behind(tensor).operation.get_config()
        return stock.InputLayer.from_config(config).output

    return keras.tree.map_structure(like, model.input)


def _from_configuration(layer):
    try:
        if type(layer) is stock.Lambda:
            return _lambda(layer)
        return type(layer).from_config(config_of(layer))
    except (NotImplementedError, TypeError, ValueError) as error:
        raise ValueError(
            f"Layer `{layer.name}` ({type(layer).__name__}) cannot be cloned. "
            f"{error}"
        ) from error


def _lambda(layer):
    # Keras makes no function from a configuration that it does not trust.
    return stock.Lambda(
        layer.function,
        output_shape=declared_output_shape(layer),
        mask=layer.mask,
        arguments=layer.arguments,
        name=layer.name,
        dtype=layer.dtype_policy,
    )


def carry_over(layer, clone):
    """Gives a built clone the weights and the state of a layer.

    Raises:
        ValueError: If the clone has weights of other number or shape.
    """
    shapes = [tuple(w.shape) for w in layer.weights]
    received = [tuple(w.shape) for w in clone.weights]
    if shapes != received:
        raise ValueError(
            f"Layer `{layer.name}` ({type(layer).__name__}) cannot be cloned: "
            "a layer made from its configuration has other weights. Expected "
            f"shapes {shapes}, Received: {received}"
        )
    # From the outside in: a layer hands what it is told to its parts.
    for old, new in zip(layers_within(layer), layers_within(clone)):
        carry_trainable(old, new)
    for old, new in zip(layer.weights, clone.weights):
        new.assign(ops.copy(old))
        carry_trainable(old, new)
    carry_states(layer, clone)
    if hasattr(layer, "finalize_state"):
        _carry_adapted(layer, clone)


def carry_states(layer, clone):
    """Gives stateful recurrent layers the present states of others."""
    if getattr(layer, "stateful", False) and getattr(layer, "states", None):
        states = zip(tree.flatten(layer.states), tree.flatten(clone.states))
        for old, new in states:
            new.assign(ops.copy(old))
    for old, new in zip(children_of(layer), children_of(clone)):
        carry_states(old, new)


def own_weights(layer):
    """Makes copies of weights that were assigned from those of another layer.

    On JAX the two would share memory, which training gives away.
    """
    for weight in layer.weights:
        weight.assign(ops.copy(weight))


def _carry_adapted(layer, clone):
    """What Keras' preprocessing layers keep beside their weights."""
    store = {}
    layer.save_own_variables(store)
    clone.load_own_variables(store)
    if hasattr(layer, "save_assets"):
        with tempfile.TemporaryDirectory() as folder:
            layer.save_assets(folder)
            clone.load_assets(folder)

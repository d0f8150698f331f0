"""What one layer knows, carried over to a clone of it."""

import tempfile

from keras import ops
from keras import tree

from tf_spectral.layers.conversion import carry_trainable
from tf_spectral.spectralize.selection import parts_of


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
    for old, new in zip(layer._flatten_layers(), clone._flatten_layers()):
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
    for old, new in zip(parts_of(layer), parts_of(clone)):
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

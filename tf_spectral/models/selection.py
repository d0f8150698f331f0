"""Which layers of a model are meant: all there are, and those asked for."""

import re
from typing import Any
from typing import NamedTuple

from keras import layers as stock

from tf_spectral import checks
from tf_spectral.backend.keras_internals import is_graph

# Wrappers and the attributes that hold what they wrap.
WRAPPERS = {
    stock.TimeDistributed: ("layer",),
    stock.Bidirectional: ("forward_layer", "backward_layer"),
}


class Found(NamedTuple):
    """A layer of a model.

    Attributes:
        layer: Keras layer.
        paths: List of the names that lead to it, as in `"encoder/dense_1"`:
            more than one if several models share it.
    """

    layer: Any
    paths: list

    def __str__(self):
        return f"`{self.paths[0]}` ({type(self.layer).__name__})"


def children_of(layer):
    """List of the layers within a model or a wrapper, `[]` for any other."""
    if is_graph(layer):
        return list(layer.layers)
    return [getattr(layer, name) for name in WRAPPERS.get(type(layer), ())]


def find_layers(model):
    """Dict `id(layer) -> Found` of all layers within, each of them once."""
    found = {}

    def visit(outer, prefix):
        for layer in children_of(outer):
            path = prefix + layer.name
            found.setdefault(id(layer), Found(layer, [])).paths.append(path)
            visit(layer, f"{path}/")

    visit(model, "")
    return found


def refers_to(item, found):
    """Whether a class, a class' name or a (part of a) path means the layer.

    A model or a wrapper stands for all that is in it.
    """
    if isinstance(item, type):
        return type(found.layer) is item
    within = any(f"/{item}/" in f"/{path}/" for path in found.paths)
    return within or item == type(found.layer).__name__


def choose_layers(model, classes, layers=None, pattern=None, exclude=None):
    """Dict `id(layer) -> Found` of the layers to convert.

    Args:
        model: Keras model that is a graph of layers.
        classes: Collection of the classes that can be converted.
        layers: As for `spectralize`.
        pattern: As for `spectralize`.
        exclude: As for `spectralize`.

    Raises:
        ValueError: If an argument makes no sense, asks for what cannot be
            converted, or if nothing is left to convert.
    """
    found = find_layers(model)
    items = layers if isinstance(layers, (list, tuple, set)) else [layers]
    if layers is not None:
        for item in items:
            _check_item(item, found.values(), classes)
    wanted = _compiled("pattern", pattern)
    unwanted = _compiled("exclude", exclude)

    def is_chosen(candidate):
        return (
            type(candidate.layer) in classes
            and (layers is None or any(refers_to(i, candidate) for i in items))
            and (wanted is None or any(map(wanted.search, candidate.paths)))
            and not (unwanted and any(map(unwanted.search, candidate.paths)))
        )

    chosen = {k: layer for k, layer in found.items() if is_chosen(layer)}
    if not chosen:
        raise ValueError(
            "No layer was chosen to be converted. Expected a model with "
            f"layers of exactly the classes {names_of(classes)}, and arguments "
            f"that choose one of them. Received: layers={layers}, "
            f"pattern={pattern}, exclude={exclude} and a model with "
            f"{_those_of(classes, found.values())}"
        )
    return chosen


def names_of(classes):
    """The names of classes, for a message."""
    return ", ".join(c.__name__ for c in classes)


def _check_item(item, found, classes):
    if not isinstance(item, (type, str)):
        raise ValueError(
            "Argument `layers` must list classes or names of layers. "
            f"Received: layers with {item!r}"
        )
    if item in classes or item in [c.__name__ for c in classes]:
        return
    meant = [f for f in found if refers_to(item, f)]
    if any(type(f.layer) in classes for f in meant):
        return
    what = ", ".join(map(str, meant)) or "no layer of this model"
    raise ValueError(
        f"Argument `layers` asks for what cannot be converted. Expected layers "
        f"of exactly the classes {names_of(classes)}, "
        f"Received: {item!r}, which is {what}. The model has "
        f"{_those_of(classes, found)}"
    )


def _those_of(classes, found):
    convertible = [str(f) for f in found if type(f.layer) in classes]
    return ", ".join(convertible) or "none"


def _compiled(name, pattern):
    if pattern is None:
        return None
    if not isinstance(getattr(pattern, "pattern", pattern), str):
        checks.refuse(name, "be a regular expression", pattern, "a string")
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ValueError(
            f"Argument `{name}` must be a regular expression ({error}). "
            f"Received: {name}={pattern!r}"
        ) from error

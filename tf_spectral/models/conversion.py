"""spectralize and despectralize: whole models, converted and back."""

import keras

from tf_spectral.backend.keras_internals import is_graph
from tf_spectral.layers import SpectralConv1D
from tf_spectral.layers import SpectralConv2D
from tf_spectral.layers import SpectralDense
from tf_spectral.layers import SpectralGRU
from tf_spectral.layers import SpectralLSTM
from tf_spectral.layers import SpectralRNN
from tf_spectral.models.cloning import Cloner
from tf_spectral.models.cloning import carry_states
from tf_spectral.models.cloning import own_weights
from tf_spectral.models.selection import choose_layers
from tf_spectral.models.selection import refers_to


def spectralize(
    model,
    layers=None,
    pattern=None,
    exclude=None,
    reflectors=None,
    sigma_center=None,
    sigma_radius=None,
    sigma_mode="sigmoid",
    exact=True,
    overrides=None,
):
    """A clone of a model with spectral layers in the place of stock layers.

    `Dense`, `Conv1D`, `Conv2D`, `SimpleRNN`, `LSTM` and `GRU` become
    `SpectralDense`, `SpectralConv1D`, `SpectralConv2D`, `SpectralRNN`,
    `SpectralLSTM` and `SpectralGRU`, of the same names, with the weights
    carried over: the clone computes what the model does, and its training
    starts from there. The other layers are cloned with their weights. Layers
    are also found in models within the model and in `TimeDistributed` and
    `Bidirectional`, but not in layers or models of a class with its own
    `call`. Subclasses of the six are not converted.

    With the defaults all such layers are converted, a classifier's last one
    too, with as many reflectors as reach any kernel, and each with the
    smallest bounds that leave its singular values some room: these stay near
    to where they are, and `sigma_radius` is what decides how near.

    The model stays as it is. The clone is not compiled: an optimizer's state
    would not fit its weights. What the conversion missed of a kernel is, for
    each new layer, the attribute `conversion_residual`. An initializer or
    constraint of a converted kernel is left behind.

    Args:
        model: Built `keras.Sequential` or functional `keras.Model`.
        layers: List of what to convert, or one item: Keras classes (or their
            names), and names of layers or paths of names
            (`"encoder/dense_1"`). A model or a wrapper stands for all that is
            in it. Defaults to `None`, for all that can be converted.
        pattern: Regular expression to be found in the path of a layer that
            is converted. Defaults to `None`.
        exclude: Regular expression not to be found in it. Defaults to `None`.
        reflectors: As for the spectral layers: `None` reaches any kernel, an
            integer is taken as the smaller side of a kernel where it exceeds
            that. Defaults to `None`.
        sigma_center: As for the spectral layers. `None` takes, for each
            layer, the middle of its singular values, or 0 where they come
            close to zero. Defaults to `None`.
        sigma_radius: As for the spectral layers. `None` takes, for each
            layer, a tenth more than its singular values need, and at least a
            hundredth of the center. Defaults to `None`.
        sigma_mode: `"sigmoid"`, `"clip"`, `"free"` or `"fixed"`. Defaults to
            `"sigmoid"`.
        exact: Boolean. `False` also takes kernels that the reflectors or the
            bounds cannot hold, by the fit of `SVD.assign_matrix`. Defaults to
            `True`.
        overrides: Dict from an item as in `layers` to a dict of arguments
            for the layers it stands for: the five above and any other
            argument of the spectral layer. Of two that meet, the later holds.
            Defaults to `None`.

    Returns:
        A `keras.Sequential` or functional `keras.Model`, not compiled.

    Raises:
        ValueError: If the model is no built graph of layers, if nothing is
            chosen, if a layer is asked for by name that cannot be converted,
            or if one cannot hold its kernel: the message names the layer, the
            singular values and the bounds that would do, or the residual of
            too few reflectors. Nothing is converted then.

    Example:

    >>> import keras
    >>> from tf_spectral import spectralize
    >>> model = keras.Sequential([
    ...     keras.Input((8,)),
    ...     keras.layers.Dense(16, activation="relu", name="hidden"),
    ...     keras.layers.Dense(3, name="head"),
    ... ])
    >>> spectral = spectralize(model, exclude="head")
    >>> [type(layer).__name__ for layer in spectral.layers]
    ['SpectralDense', 'Dense']
    >>> spectral = spectralize(model, overrides={"head": {"reflectors": 3}})

    Reference: Zhang et al., "Stabilizing Gradients for Deep Neural Networks
    via Efficient SVD Parameterization", 2018, Theorems 2 and 4.
    """
    _check_model(model)
    chosen = choose_layers(model, TO_SPECTRAL, layers, pattern, exclude)
    options = {
        "reflectors": reflectors,
        "sigma_center": sigma_center,
        "sigma_radius": sigma_radius,
        "sigma_mode": sigma_mode,
        "exact": exact,
    }
    overrides = {} if overrides is None else overrides
    _check_overrides(overrides, chosen.values())
    replacements = {}
    for key, found in chosen.items():
        own = [v for item, v in overrides.items() if refers_to(item, found)]
        merged = {k: v for each in (options, *own) for k, v in each.items()}
        replacements[key] = replace_layer(found, TO_SPECTRAL, **merged)
    return Cloner(replacements).clone(model)


def despectralize(model, layers=None, pattern=None, exclude=None):
    """A clone of a model with stock layers in the place of spectral layers.

    The way back from `spectralize`, for deployment: the kernels are formed once
    and for all, and loading the clone takes none of the spectral layers.

    Args:
        model: Built `keras.Sequential` or functional `keras.Model`.
        layers: As for `spectralize`, of spectral layers. Defaults to `None`,
            for all of them.
        pattern: As for `spectralize`. Defaults to `None`.
        exclude: As for `spectralize`. Defaults to `None`.

    Returns:
        A `keras.Sequential` or functional `keras.Model`, not compiled.

    Raises:
        ValueError: If the model is no built graph of layers, if nothing is
            chosen, or if a layer has what the stock layer lacks, as a modReLU
            (the message names the layer).

    Example:

    >>> import keras
    >>> from tf_spectral import despectralize
    >>> from tf_spectral.layers import SpectralDense
    >>> model = keras.Sequential([keras.Input((8,)), SpectralDense(4)])
    >>> [type(layer).__name__ for layer in despectralize(model).layers]
    ['Dense']
    """
    _check_model(model)
    chosen = choose_layers(model, TO_STOCK, layers, pattern, exclude)
    return Cloner(
        {key: replace_layer(found, TO_STOCK) for key, found in chosen.items()}
    ).clone(model)


def _check_model(model):
    if isinstance(model, keras.Sequential) and not model.built:
        raise ValueError(
            "Argument `model` must be built. Expected a model with an Input "
            f"layer, or called on data once, Received: model={model}"
        )
    if not is_graph(model):
        raise ValueError(
            "Argument `model` must be a keras.Sequential or a functional "
            "keras.Model. The layers of a subclassed model can be converted "
            "one by one: `SpectralDense.from_stock(layer)` and the like. "
            f"Received: model={model}"
        )


def _check_overrides(overrides, chosen):
    """Raises unless each has options, for a layer that is converted."""
    if not isinstance(overrides, dict):
        raise ValueError(
            "Argument `overrides` must be a dict from names of layers to "
            f"dicts of options. Received: overrides={overrides}"
        )
    for item, options in overrides.items():
        if not isinstance(options, dict):
            raise ValueError(
                "Argument `overrides` must give a dict of options for each "
                f"item. Received: {item!r}: {options!r}"
            )
        if not any(refers_to(item, found) for found in chosen):
            raise ValueError(
                "Argument `overrides` has options for a layer that is not "
                f"converted. Expected one of {', '.join(map(str, chosen))}, "
                f"Received: {item!r}"
            )


_SPECTRAL = (
    SpectralDense,
    SpectralConv1D,
    SpectralConv2D,
    SpectralRNN,
    SpectralLSTM,
    SpectralGRU,
)
# For a class the function that converts a layer of it.
TO_SPECTRAL = {spectral.stock: spectral.from_stock for spectral in _SPECTRAL}
TO_STOCK = {spectral: spectral.to_stock for spectral in _SPECTRAL}


def replace_layer(found, table, **options):
    """The layer that replaces one that was found.

    Args:
        found: `Found`.
        table: `TO_SPECTRAL` or `TO_STOCK`.
        **options: Arguments of the function in the table.

    Raises:
        ValueError: If it cannot be converted; the message names the layer.
    """
    layer = found.layer
    try:
        new = table[type(layer)](layer, **options)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"Layer {found} cannot be converted. {error}"
        ) from error
    if not layer.trainable_variables:
        # The layers within hear of it by a change alone.
        new.trainable = True
        new.trainable = False
    own_weights(new)
    carry_states(layer, new)
    return new

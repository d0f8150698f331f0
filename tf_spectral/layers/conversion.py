"""From a stock layer to one of this library and back, by one rule for all.

A layer with a cell has its weights in the cell. What a spectral layer
decomposes is the stock layer's `recurrent_kernel` if there is a cell, and its
`kernel` if not; the other weights go over as they are.
"""

import numpy as np
from keras import ops

from tf_spectral import checks
from tf_spectral.activations import ModReLU
from tf_spectral.activations import activation_gain
from tf_spectral.activations import get_activation
from tf_spectral.activations import plain_activation
from tf_spectral.backend.precision import working_dtype
from tf_spectral.linalg.factorization import svd_factors_from_matrix
from tf_spectral.parametrizations.singular_values import bounds_that_hold
from tf_spectral.parametrizations.singular_values import check_sigma
from tf_spectral.parametrizations.svd import relative_residual

# Arguments of every layer with a decomposed weight, as `SVD` names them.
SPECTRAL_OPTIONS = (
    "reflectors",
    "sigma_center",
    "sigma_radius",
    "sigma_mode",
    "reflector_initializer",
    "sigma_regularizer",
    "annealed_radius",
)


class Convertible:
    """A layer that is a drop-in replacement for a stock layer.

    Attributes:
        stock: The Keras class that it replaces.
        own_options: Names of arguments that the stock class lacks.
        refused_options: Names of arguments that only the stock class has.
        untold_options: Names of arguments that go over although the stock
            layer's configuration may leave them out.
        decomposed: Names of the matrices, side by side in the stock layer's
            weight, that are decomposed.
        svds: Dict with the `SVD` of each of these.
        conversion_residual: Float, what `from_stock` missed of the decomposed
            weight, relative to its size, or `None` for a layer that was not
            converted.
    """

    stock = None
    own_options = ()
    refused_options = ()
    untold_options = ("activity_regularizer", "autocast")
    decomposed = ()
    svds = {}
    conversion_residual = None

    @classmethod
    def from_stock(
        cls,
        layer,
        reflectors=None,
        sigma_center=None,
        sigma_radius=None,
        sigma_mode="sigmoid",
        exact=True,
        **kwargs,
    ):
        """A layer of this class that computes what a built stock layer does.

        The initializer and the constraint of the decomposed weight have no
        counterpart and are left behind; all other options go over.

        Args:
            layer: Built layer of the class `stock`, and of no subclass of it.
            reflectors: As for the constructor; `None` reaches any matrix, and
                an integer is taken as the smaller side of the matrix where it
                exceeds that. Defaults to `None`.
            sigma_center: As for the constructor. `None` takes the middle of
                the singular values (of all gates together), or 0 where they
                come close to zero. Defaults to `None`.
            sigma_radius: As for the constructor. `None` takes a tenth more
                than the singular values need, and at least a hundredth of the
                center. Defaults to `None`.
            sigma_mode: As for the constructor. Defaults to `"sigmoid"`.
            exact: Boolean. `False` also takes a matrix that the reflectors or
                the bounds cannot hold, by the fit of `SVD.assign_matrix`. What
                it misses is then the attribute `conversion_residual`. Defaults
                to `True`.
            **kwargs: Other arguments of the constructor, in place of those of
                `layer`.

        Raises:
            ValueError: If the layer cannot be converted, if no radius below
                the given center is wide enough, or if `exact` and the
                reflectors are too few (with the residual) or the bounds too
                narrow (with those that would do) for a matrix, which is
                named.
        """
        sigma = sigma_mode, sigma_center, sigma_radius
        return spectral_from_stock(cls, layer, reflectors, sigma, exact, kwargs)

    def to_stock(self):
        """A built layer of the class `stock` that computes the same.

        Raises:
            ValueError: If the layer is not built, or has what the stock class
                lacks: an activation with weights, such as a modReLU, or a
                trained initial state.
        """
        return stock_from_spectral(self)


def spectral_from_stock(spectral, layer, reflectors, sigma, exact, options):
    """A layer of a spectral class that computes what a stock layer does.

    Args:
        spectral: Subclass of `Convertible` with a decomposed weight.
        layer: As for `Convertible.from_stock`.
        reflectors: As for `Convertible.from_stock`.
        sigma: Tuple `(sigma_mode, sigma_center, sigma_radius)`.
        exact: As for `Convertible.from_stock`.
        options: Dict of other arguments of the constructor.

    Raises:
        ValueError: As `Convertible.from_stock` does.
    """
    check_stock(layer, spectral.stock)
    exact = checks.boolean("exact", exact)
    kernel = _decomposed_weight(layer)
    whole = ops.convert_to_tensor(kernel)
    whole = ops.cast(whole, working_dtype(whole.dtype))
    whole = ops.reshape(whole, (-1, whole.shape[-1]))
    parts = ops.split(whole, len(spectral.decomposed), axis=1)
    reflectors = usable_reflectors(reflectors, *parts[0].shape)
    matrices = dict(zip(spectral.decomposed, parts))
    activation = None
    if not hasattr(layer, "cell"):
        activation = options.get("activation", layer.activation or "linear")
    center, radius = bounds_for(matrices, reflectors, sigma, activation)
    bounds = {
        "reflectors": reflectors,
        "sigma_mode": sigma[0],
        "sigma_center": center,
        "sigma_radius": radius,
    }
    new = like_stock(spectral, layer, {**bounds, **options})
    for name, svd in new.svds.items():
        try:
            svd.assign_matrix(matrices[name], exact)
        except ValueError as error:
            raise ValueError(
                f"The {name} of `layer` cannot be converted. {error}"
            ) from error
        # With adapters Keras has frozen the kernel that they change.
        if not getattr(layer, "lora_enabled", False):
            carry_trainable(kernel, svd)
    new.conversion_residual = relative_residual(whole, new.matrix())
    return new


def stock_from_spectral(layer):
    """A built stock layer that computes what a layer of this library does.

    Args:
        layer: Layer of a subclass of `Convertible`.

    Raises:
        ValueError: As `Convertible.to_stock` does.
    """
    if not layer.built:
        raise ValueError("The layer must be built. Received: built=False")
    check_untrained(layer)
    if getattr(_owner(layer), "trainable_initial_state", False):
        raise ValueError(
            f"`{layer.stock.__name__}` has no trainable initial state. "
            "Expected trainable_initial_state=False, Received: "
            "trainable_initial_state=True"
        )
    config = layer.get_config()
    kind = "recurrent" if hasattr(layer, "cell") else "kernel"
    new = layer.stock.from_config(
        {
            # Overwritten below: the default may take a QR decomposition.
            f"{kind}_initializer": "zeros",
            **{k: v for k, v in config.items() if k not in layer.own_options},
            "use_bias": adds_bias(layer),
            "autocast": layer.autocast,
        }
    )
    # `SimpleRNN` makes nothing of the argument.
    new.activity_regularizer = layer.activity_regularizer
    new.build_from_config(layer.get_build_config())
    kernel = _decomposed_weight(new)
    kernel.assign(ops.reshape(ops.copy(layer.matrix()), kernel.shape))
    svds = list(layer.svds.values())
    carry_trainable(svds[0] if svds else _decomposed_weight(layer), kernel)
    _carry_other_weights(layer, new)
    return new


def like_stock(cls, layer, options):
    """A built layer of a class, with all of a stock layer but one weight.

    Args:
        cls: Subclass of `Convertible`.
        layer: Built layer of the class `cls.stock`.
        options: Dict of arguments in place of those of `layer`.

    Raises:
        ValueError: If an argument is out of range, or if only one of the two
            has a bias.
    """
    config = config_of(layer)
    new = cls.from_config(
        {
            **{k: config[k] for k in config if k not in cls.refused_options},
            **{k: _attribute(layer, k) for k in cls.untold_options},
            "use_bias": adds_bias(layer),
            **options,
        }
    )
    check_same_bias(new, layer)
    new.build_from_config(layer.get_build_config())
    _carry_other_weights(layer, new)
    return new


def _owner(layer):
    """What has the weights of a layer."""
    return getattr(layer, "cell", layer)


def _attribute(layer, name):
    return getattr(layer if hasattr(layer, name) else _owner(layer), name)


def _decomposed_weight(layer):
    """The weight of a stock layer that a spectral layer decomposes."""
    return (
        layer.cell.recurrent_kernel if hasattr(layer, "cell") else layer.kernel
    )


def _carry_other_weights(old, new):
    names = ["kernel"] if hasattr(old, "cell") else []
    names += ["bias"] if adds_bias(new) else []
    for name in names:
        a, b = getattr(_owner(old), name), getattr(_owner(new), name)
        # Two layers must not share memory: JAX hands it on in training.
        b.assign(ops.copy(a))
        carry_trainable(a, b)


def check_stock(layer, stock):
    """Raises unless it is a built layer of that very class."""
    name = f"keras.layers.{stock.__name__}"
    if type(layer) is not stock or not layer.built:
        raise ValueError(
            f"Argument `layer` must be a built {name}, and of no subclass. "
            f"Received: layer={layer}, built={getattr(layer, 'built', None)}"
        )
    if layer.quantization_mode is not None:
        raise ValueError(
            f"Argument `layer` must be a {name} that is not quantized. "
            f"Received: layer={layer}, mode={layer.quantization_mode}"
        )
    check_untrained(layer)


def check_untrained(layer):
    """Raises if an activation of the layer has weights: they would be lost."""
    for name in ("activation", "recurrent_activation"):
        activation = getattr(layer, name, None)
        trained = bool(getattr(activation, "weights", None))
        if trained or isinstance(activation, ModReLU):
            raise ValueError(
                f"A trainable activation of `{layer.name}` cannot go over. "
                "Expected an activation without weights, Received: "
                f"{name}={activation}"
            )


def adds_bias(layer):
    """Whether a built layer does: `use_bias` may have been set since.

    Convolutions and cells with gates ask for it in each call, dense layers
    and simple cells for the weight.
    """
    owner = _owner(layer)
    if hasattr(owner, "kernel_size") or hasattr(owner, "recurrent_activation"):
        return owner.use_bias
    return owner.bias is not None


def check_same_bias(new, layer):
    """Raises unless both layers have a bias of one form, or none has one."""
    for name in ("use_bias", "reset_after"):
        given, expected = getattr(new, name, None), getattr(layer, name, None)
        if name == "use_bias":
            expected = adds_bias(layer)
        if given != expected:
            raise ValueError(
                f"Argument `{name}` cannot differ from that of `layer`. "
                f"Expected {expected}, Received: {name}={given}"
            )


def config_of(layer):
    """The configuration of a stock layer, activation set to `None` or not."""
    owner = _owner(layer)
    if not hasattr(owner, "activation"):
        return layer.get_config()
    with plain_activation(owner):
        return layer.get_config()


def carry_trainable(old, new):
    """Makes a variable or a layer as trainable as another one."""
    if new.trainable != old.trainable:
        new.trainable = old.trainable


def plain_reflectors(reflectors):
    """The argument `reflectors` as `None`, an integer or a pair of them."""
    if reflectors is None:
        return None
    pair = checks.shape("reflectors", reflectors, 2, 0, repeat=True)
    return pair[0] if checks.is_integer(reflectors) else pair


def usable_reflectors(reflectors, n_in, n_out):
    """The argument `reflectors`, an integer no larger than can be of use."""
    reflectors = plain_reflectors(reflectors)
    if isinstance(reflectors, int):
        return min(reflectors, n_in, n_out)
    return reflectors


def bounds_for(matrices, reflectors, sigma, activation=None):
    """`sigma_center` and `sigma_radius`, chosen where they are `None`.

    Args:
        matrices: Dict `name -> matrix` of what the bounds are to hold.
        reflectors: As for the layer that will hold them.
        sigma: Tuple `(sigma_mode, sigma_center, sigma_radius)`.
        activation: Keras activation, for the center `"auto"`.

    Raises:
        ValueError: If an argument is out of range, or if the center is given
            and too small for any radius.
    """
    mode, center, radius = sigma
    auto = isinstance(center, str) and center == "auto"
    if auto:
        if activation is None:
            raise ValueError(
                'Argument `sigma_center` cannot be "auto" for a recurrent '
                "kernel. Expected a number or None, Received: "
                "sigma_center=auto"
            )
        gain = activation_gain(get_activation(activation))
    _check_given(mode, gain if auto else center, radius)
    if mode == "free":
        return (
            1.0 if center is None else center,
            0.01 if radius is None else radius,
        )
    if center is not None and (radius is not None or mode == "fixed"):
        return center, 0.01 if radius is None else radius
    values = {
        name: ops.convert_to_numpy(
            svd_factors_from_matrix(matrix, reflectors)[1]
        )
        for name, matrix in matrices.items()
    }
    together = np.concatenate(list(values.values()))
    if mode == "fixed":
        return float(np.mean(np.abs(together))), 0.01
    wanted = gain if auto else center
    chosen, enough = bounds_that_hold(together, wanted, radius)
    if wanted is not None and chosen != wanted:
        name = max(values, key=lambda name: abs(values[name] - wanted).max())
        raise ValueError(
            "No `sigma_radius` below `sigma_center` holds the singular values "
            f"of the {name}. Expected, for example, sigma_center={chosen:.6g} "
            f"with sigma_radius={enough:.6g}, Received: sigma_center={center}, "
            f"singular values in [{values[name].min()}, {values[name].max()}]"
        )
    return center if wanted is not None else chosen, enough


def _check_given(mode, center, radius):
    """Raises unless what is given of the bounds makes sense."""
    if center is None:
        center = 0.0
    if radius is None:
        size = checks.non_negative("sigma_center", center, checks.SQUARABLE)
        radius = size / 2 if size > 2 * checks.SMALLEST else 1.0
    check_sigma(mode, center, radius)

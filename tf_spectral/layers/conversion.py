"""From a stock layer to a spectral one and back."""

import numpy as np
from keras import ops

from tf_spectral import checks
from tf_spectral.activations import ModReLU
from tf_spectral.activations import activation_gain
from tf_spectral.activations import get_activation
from tf_spectral.activations import plain_activation
from tf_spectral.backend.keras_internals import kernel_variable
from tf_spectral.linalg.checks import working_dtype
from tf_spectral.linalg.factorization import svd_factors_from_matrix
from tf_spectral.parametrizations.singular_values import bounds_that_hold
from tf_spectral.parametrizations.singular_values import check_sigma


class Convertible:
    """The part of `SpectralKernel` that knows the stock layer.

    Attributes:
        stock: The Keras class that a subclass takes the place of.
        own_options: Names of arguments that the stock class lacks.
        refused_options: Names of arguments that only the stock class has.
    """

    stock = None
    own_options = ()
    refused_options = ()

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

        The kernel's initializer and constraint have no counterpart and are
        left behind; all other options go over.

        Args:
            layer: Built layer of the class `stock`, and of no subclass of it.
            reflectors: As for the constructor; `None` reaches any kernel.
            sigma_center: As for the constructor. `None` takes the middle of
                the singular values, or 0 where they come close to zero.
            sigma_radius: As for the constructor. `None` takes a tenth more
                than the singular values need, and at least a hundredth of the
                center.
            sigma_mode: As for the constructor. Defaults to `"sigmoid"`.
            exact: Boolean. `False` also takes a kernel that the reflectors or
                the bounds cannot hold: by the fit of `SVD.assign_matrix`,
                whose relative residual is then the attribute
                `conversion_residual`. Defaults to `True`.
            **kwargs: Other arguments of the constructor, in place of those of
                `layer`.

        Raises:
            ValueError: If the layer cannot be converted, if no radius below
                the given center is wide enough, or if `exact` and the
                reflectors are too few (with the residual) or the bounds too
                narrow (with those that would do).
        """
        check_stock(layer, cls.stock)
        exact = checks.boolean("exact", exact)
        kernel = _matrix(layer.kernel)
        center, radius = bounds_for(
            {"kernel": kernel},
            usable_reflectors(reflectors, *kernel.shape),
            (sigma_mode, sigma_center, sigma_radius),
            kwargs.get("activation", layer.activation or "linear"),
        )
        config = config_of(layer)
        new = cls.from_config(
            {
                **{
                    k: config[k] for k in config if k not in cls.refused_options
                },
                "use_bias": adds_bias(layer),
                "activity_regularizer": layer.activity_regularizer,
                "autocast": layer.autocast,
                "reflectors": reflectors,
                "sigma_center": center,
                "sigma_radius": radius,
                "sigma_mode": sigma_mode,
                **kwargs,
            }
        )
        check_same_bias(new, layer)
        new.build(new.shape_for_kernel(layer.kernel.shape))
        new.conversion_residual = new.svd.assign_matrix(kernel, exact)
        if new.use_bias:
            # Two layers must not share memory: JAX hands it on in training.
            new.bias.assign(ops.copy(layer.bias))
            carry_trainable(layer.bias, new.bias)
        if not layer.lora_enabled:
            carry_trainable(kernel_variable(layer), new.svd)
        return new

    def to_stock(self):
        """A built layer of the class `stock` that computes the same.

        Raises:
            ValueError: If the layer is not built, or its activation has
                weights, as a modReLU has.
        """
        if not self.built:
            raise ValueError("The layer must be built. Received: built=False")
        check_untrained(self)
        config = {**self.get_config(), "use_bias": adds_bias(self)}
        for key in self.own_options:
            del config[key]
        # Overwritten below: no need to draw from the default.
        layer = self.stock.from_config(
            {**config, "kernel_initializer": "zeros"}
        )
        layer.build(self.shape_for_kernel(self.kernel.shape))
        bias = [ops.copy(self.bias)] if layer.use_bias else []
        layer.set_weights([self.kernel, *bias])
        carry_trainable(self.svd, kernel_variable(layer))
        if layer.use_bias:
            carry_trainable(self.bias, layer.bias)
        return layer

    def shape_for_kernel(self, kernel_shape):
        """A shape of inputs to build a layer with a kernel of that shape."""
        raise NotImplementedError(f"{type(self).__name__}.shape_for_kernel")


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

    Convolutions ask for it in each call, the other layers for the weight.
    """
    owner = getattr(layer, "cell", layer)
    if hasattr(owner, "kernel_size"):
        return owner.use_bias
    return owner.bias is not None


def check_same_bias(new, layer):
    """Raises unless both layers or none of them have a bias."""
    expected = adds_bias(layer)
    if new.use_bias != expected:
        raise ValueError(
            "Argument `use_bias` cannot differ from that of `layer`. "
            f"Expected {expected}, Received: use_bias={new.use_bias}"
        )


def config_of(layer):
    """The configuration of a stock layer, activation set to `None` or not."""
    owner = getattr(layer, "cell", layer)
    if not hasattr(owner, "activation"):
        return layer.get_config()
    with plain_activation(owner):
        return layer.get_config()


def carry_trainable(old, new):
    """Makes a variable or a layer as trainable as another one."""
    if new.trainable != old.trainable:
        new.trainable = old.trainable


def _matrix(kernel):
    kernel = ops.convert_to_tensor(kernel)
    kernel = ops.cast(kernel, working_dtype(kernel.dtype))
    return ops.reshape(kernel, (-1, kernel.shape[-1]))


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


def sequences_shape(layer):
    """The shape to build a copy of a built layer with."""
    batch = layer.states[0].shape[0] if layer.stateful else None
    return batch, None, layer.cell.kernel.shape[0]

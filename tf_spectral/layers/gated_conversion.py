"""GatedConvertible: from a stock LSTM or GRU to a spectral one and back."""

from keras import ops

from tf_spectral import checks
from tf_spectral.layers.conversion import bounds_for
from tf_spectral.layers.conversion import carry_trainable
from tf_spectral.layers.conversion import check_stock
from tf_spectral.layers.conversion import check_untrained
from tf_spectral.layers.gated_cell import REFUSED_OPTIONS
from tf_spectral.layers.gated_cell import SPECTRAL_OPTIONS
from tf_spectral.layers.like_simple_rnn import sequences_shape
from tf_spectral.linalg.checks import working_dtype
from tf_spectral.parametrizations.assignment import relative_residual


class GatedConvertible:
    """The part of `GatedLayer` that knows the stock layer.

    Attributes:
        stock: The Keras class that a subclass takes the place of.
    """

    stock = None

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

        The recurrent kernel's initializer and constraint have no counterpart
        and are left behind; all other options go over.

        Args:
            layer: Built layer of the class `stock`, and of no subclass of it.
            reflectors: As for the constructor; `None` reaches any kernel.
            sigma_center: As for the constructor. `None` takes the middle of
                the singular values of all gates, or 0 where they come close
                to zero.
            sigma_radius: As for the constructor. `None` takes a tenth more
                than the singular values need, and at least a hundredth of the
                center.
            sigma_mode: As for the constructor. Defaults to `"sigmoid"`.
            exact: Boolean. `False` also takes a kernel that the reflectors or
                the bounds cannot hold: by the fit of `SVD.assign_matrix`.
                What it misses, relative to the recurrent kernel, is then the
                attribute `conversion_residual`. Defaults to `True`.
            **kwargs: Other arguments of the constructor, in place of those of
                `layer`.

        Raises:
            ValueError: If the layer cannot be converted, if no radius below
                the given center is wide enough, or if `exact` and the
                reflectors are too few (with the residual) or the bounds too
                narrow (with those that would do) for one of the gates, which
                is named.
        """
        check_stock(layer, cls.stock)
        exact = checks.boolean("exact", exact)
        gates = dict(zip(cls.cell_class.gates, _matrices_of(layer)))
        center, radius = bounds_for(
            gates, reflectors, (sigma_mode, sigma_center, sigma_radius)
        )
        config = layer.get_config()
        new = cls.from_config(
            {
                **{k: config[k] for k in config if k not in REFUSED_OPTIONS},
                "activity_regularizer": layer.activity_regularizer,
                "autocast": layer.autocast,
                "use_cudnn": layer.use_cudnn,
                "reflectors": reflectors,
                "sigma_center": center,
                "sigma_radius": radius,
                "sigma_mode": sigma_mode,
                **kwargs,
            }
        )
        _check_same_bias(new, layer)
        new.build(sequences_shape(layer))
        new.cell.kernel.assign(ops.copy(layer.cell.kernel))
        carry_trainable(layer.cell.kernel, new.cell.kernel)
        if layer.use_bias:
            new.cell.bias.assign(ops.copy(layer.cell.bias))
            carry_trainable(layer.cell.bias, new.cell.bias)
        for name, matrix in gates.items():
            try:
                getattr(new.cell, name).assign_matrix(matrix, exact)
            except ValueError as error:
                raise ValueError(
                    f"The {name} of `layer` cannot be converted. {error}"
                ) from error
            carry_trainable(
                layer.cell.recurrent_kernel, getattr(new.cell, name)
            )
        new.conversion_residual = relative_residual(
            ops.concatenate(list(gates.values()), axis=1),
            new.recurrent_matrix(),
        )
        return new

    def to_stock(self):
        """A built layer of the class `stock` that computes the same.

        Raises:
            ValueError: If the layer is not built, or an activation has
                weights.
        """
        if not self.built:
            raise ValueError("The layer must be built. Received: built=False")
        check_untrained(self)
        config = self.get_config()
        for key in SPECTRAL_OPTIONS:
            del config[key]
        # Overwritten below: the default would take a QR decomposition.
        layer = self.stock.from_config(
            {**config, "recurrent_initializer": "zeros"}
        )
        layer.build(sequences_shape(self))
        cell = self.cell
        bias = [ops.copy(cell.bias)] if cell.use_bias else []
        kernel = ops.copy(cell.kernel)
        layer.set_weights([kernel, self.recurrent_matrix(), *bias])
        carry_trainable(cell.kernel, layer.cell.kernel)
        gate = getattr(cell, cell.gates[0])
        carry_trainable(gate, layer.cell.recurrent_kernel)
        if cell.use_bias:
            carry_trainable(cell.bias, layer.cell.bias)
        return layer


def _check_same_bias(new, layer):
    for name in ("use_bias", "reset_after"):
        given, expected = getattr(new, name, None), getattr(layer, name, None)
        if given != expected:
            raise ValueError(
                f"Argument `{name}` cannot differ from that of `layer`. "
                f"Expected {expected}, Received: {name}={given}"
            )


def _matrices_of(layer):
    kernel = ops.convert_to_tensor(layer.cell.recurrent_kernel)
    kernel = ops.cast(kernel, working_dtype(kernel.dtype))
    return ops.split(kernel, kernel.shape[1] // kernel.shape[0], axis=1)

"""Deep networks of dense layers, plain, residual and spectral."""

import keras

from tf_spectral.initializers import GaussianReflectors
from tf_spectral.layers import SpectralDense
from tf_spectral.regularizers import SingularValues

KINDS = ("mlp", "resnet", "spectral_mlp", "spectral_resnet")


def dense(kind, args, activation=None, sigma_center=None):
    """A layer of the width of the network, plain or spectral."""
    if not kind.startswith("spectral"):
        return keras.layers.Dense(
            args.units, activation, kernel_initializer="he_normal"
        )
    center = args.sigma_center if sigma_center is None else sigma_center
    options = {"sigma_radius": args.sigma_radius}
    if args.sigma_penalty:
        # Drawn to the center instead of bounded around it.
        penalty = SingularValues(args.sigma_penalty, center=center)
        options = {"sigma_mode": "free", "sigma_regularizer": penalty}
    return SpectralDense(
        args.units,
        activation,
        reflectors=args.reflectors,
        sigma_center=center,
        reflector_initializer=GaussianReflectors(args.reflector_scale),
        **options,
    )


def hidden_layers(kind, x, args, dropout=0.0):
    """The hidden layers of a network of this kind, from the inputs on."""

    def activated(x):
        x = keras.layers.LeakyReLU(negative_slope=args.slope)(x)
        return keras.layers.Dropout(dropout)(x) if dropout else x

    first = keras.layers.Dense(args.units, kernel_initializer="he_normal")
    x = activated(first(x))
    if not kind.endswith("resnet"):
        for _ in range(args.layers - 1):
            x = activated(dense(kind, args)(x))
        return x
    for _ in range((args.layers - 1) // 2):
        branch = activated(dense(kind, args)(x))
        branch = dense(kind, args, sigma_center=0.0)(branch)
        x = activated(keras.layers.Add()([x, branch]))
    if args.layers % 2 == 0:
        x = activated(dense(kind, args)(x))
    return x

"""What optimizers ask of their arguments, and tell of their steps."""

import warnings

import keras
from keras import ops

from tf_spectral import checks
from tf_spectral.bounds.layerwise import LayerwiseSmoothness


def check_smoothness(smoothness, norm):
    """Raises unless DSGD can take `smoothness` with this norm."""
    if smoothness is None or isinstance(smoothness, LayerwiseSmoothness):
        if smoothness is not None and smoothness.norm != norm:
            raise ValueError(
                "Argument `smoothness` was made for another norm. Expected "
                f"norm={norm!r}, Received: smoothness.norm={smoothness.norm!r}"
            )
    elif not isinstance(smoothness, str) or smoothness != "constant":
        raise ValueError(
            "Argument `smoothness` is unknown. Expected None, "
            '"constant" or a `LayerwiseSmoothness`, Received: '
            f"smoothness={checks.shown(smoothness)}"
        )


def check_norm_refresh(value, options):
    """`norm_refresh` as an integer, if norms can be followed so long."""
    value = checks.integer("norm_refresh", value, minimum=1)
    if value > 1 and options.get("ema_overwrite_frequency"):
        raise ValueError(
            "With norm_refresh > 1 norms are followed from step to step, and "
            "overwriting weights by their averages breaks that. Expected "
            "ema_overwrite_frequency=None, Received: "
            f"ema_overwrite_frequency={options['ema_overwrite_frequency']}"
        )
    return value


def check_kept_norms(variables):
    """Raises if something beside the steps changes norms of weights."""
    for variable in variables:
        if getattr(variable, "constraint", None) is not None:
            raise ValueError(
                "With norm_refresh > 1 norms are followed from step to step, "
                "and a constraint breaks that. Expected variables without "
                f"constraint, Received: {variable.path} under "
                f"{variable.constraint}"
            )


# Keras optimizers whose `update_step` is not all of a step.
_NOT_ONE_BY_ONE = {
    "Nadam": "its steps share a variable",
    "LossScaleOptimizer": (
        "it wraps another one (wrap the outer optimizer, or give the inner one)"
    ),
    "MultiOptimizer": "it wraps others (put the outer optimizer into it)",
}


def check_unused(optimizer, variables):
    """Raises if a Euclidean optimizer was built for other variables."""
    if not optimizer.built:
        return
    own = {id(v) for v in optimizer._trainable_variables}
    if own != {id(v) for v in variables}:
        raise ValueError(
            f"Argument `euclidean_optimizer` has variables already: "
            f"{optimizer.name} was used for another model, or beside another "
            "optimizer. Expected one that was not used, Received: "
            f"euclidean_optimizer={optimizer.name}"
        )


def check_euclidean(optimizer, momentum):
    """Raises unless another optimizer can be given the other variables."""
    if optimizer is None:
        return
    if momentum:
        raise ValueError(
            "`momentum` is for the default Euclidean optimizer. Expected "
            "momentum=0 beside `euclidean_optimizer`, Received: "
            f"momentum={momentum}"
        )
    kind = type(optimizer).__name__
    why = _NOT_ONE_BY_ONE.get(kind)
    if why is None and hasattr(optimizer, "joint_step"):
        why = "it looks at all gradients at once"
    if why is not None:
        raise ValueError(
            f"Argument `euclidean_optimizer` cannot be {kind}: {why}, and "
            "variables are given to it one by one. Expected another Keras "
            f"optimizer, Received: euclidean_optimizer={kind}"
        )
    for name in (
        "clipnorm",
        "global_clipnorm",
        "clipvalue",
        "use_ema",
        "loss_scale_factor",
        "gradient_accumulation_steps",
    ):
        value = getattr(optimizer, name, None)
        if value:
            raise ValueError(
                f"`{name}` concerns all variables: give it to the outer "
                f"optimizer. Received: euclidean_optimizer.{name}={value}"
            )


def warn_of_skipped_steps(optimizer):
    """Tells once of steps left out for gradients that are no numbers."""
    skipped = int(ops.convert_to_numpy(optimizer.skipped_steps))
    if skipped > getattr(optimizer, "_warned_of_skipped", 0):
        optimizer._warned_of_skipped = skipped
        warnings.warn(
            f"{optimizer.name} left out {skipped} steps whose gradients had "
            "NaN or Inf or were too large for their dtype; the weights are as "
            "if they had not been.",
            stacklevel=3,
        )


def warn_of_guessed_bounds():
    """Says that DSGD was told nothing about the model.

    The text is the same for all: Python shows it once in a process.
    """
    warnings.warn(
        "DSGD was given no `smoothness`: it guesses bounds of the curvature "
        "from the shapes of the variables. Its steps are not certified, and "
        "the loss may rise. For certified steps pass `smoothness=tf_spectral."
        "bounds.LayerwiseSmoothness.from_model(model, loss=...)`.",
        stacklevel=3,
    )


def check_square(variables, who):
    """Raises unless all variables are square matrices kept whole."""
    for variable in variables:
        shape = tuple(variable.shape)
        blocks = variable.constraint.settled(variable).blocks
        if len(shape) != 2 or shape[0] != shape[1] or blocks != 1:
            raise ValueError(
                f"{who} moves square matrices. Expected shape (d, d) and one "
                f"block under `Orthogonal`, Received: {variable.path} of shape "
                f"{shape} with {blocks} blocks. `SRGD` with its default metric "
                "moves these, too"
            )


def check_block_size(value):
    """A number of pairs, a share of them or a schedule, as plain Python."""
    schedule = keras.optimizers.schedules.LearningRateSchedule
    if isinstance(value, schedule):
        return value
    if checks.is_integer(value):
        return checks.integer("block_size", value, minimum=1)
    return checks.number(
        "block_size",
        value,
        minimum=checks.SMALLEST,
        maximum=1.0,
        must="be a positive integer, a float in (0, 1] or a "
        "`LearningRateSchedule`",
    )


def check_coordinate_scale(value, selection):
    """A positive float, or `"unbiased"` where a factor makes it so."""
    if not isinstance(value, str) or value != "unbiased":
        return checks.number(
            "coordinate_scale",
            value,
            minimum=checks.SMALLEST,
            maximum=checks.LARGEST,
            must='be a positive number or "unbiased"',
        )
    if selection == "gauss_southwell":
        raise ValueError(
            "No factor makes the largest coordinates unbiased. Expected a "
            'number, or another `selection`, Received: coordinate_scale="'
            'unbiased", selection="gauss_southwell"'
        )
    return value

"""What optimizers ask of their arguments."""

from tf_spectral.bounds.layerwise import LayerwiseSmoothness


def check_among(name, value, allowed):
    """Raises unless `value` is one of those allowed."""
    if isinstance(value, bool) or value not in tuple(allowed):
        raise ValueError(
            f"Argument `{name}` is unknown. Expected one of "
            f"{tuple(allowed)}, Received: {name}={value!r}"
        )


def check_smoothness(smoothness, norm):
    """Raises unless DSGD can take `smoothness` with this norm."""
    if smoothness is None or isinstance(smoothness, LayerwiseSmoothness):
        if smoothness is not None and smoothness.norm != norm:
            raise ValueError(
                "Argument `smoothness` was made for another norm. Expected "
                f"norm={norm!r}, Received: smoothness.norm={smoothness.norm!r}"
            )
    elif smoothness != "constant":
        raise ValueError(
            "Argument `smoothness` is unknown. Expected None, "
            '"constant" or a `LayerwiseSmoothness`, Received: '
            f"smoothness={smoothness!r}"
        )


def check_norm_refresh(value, options):
    """Raises unless norms can be followed for so many steps."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(
            "Argument `norm_refresh` must be a positive integer. "
            f"Received: norm_refresh={value}"
        )
    if value > 1 and options.get("ema_overwrite_frequency"):
        raise ValueError(
            "With norm_refresh > 1 norms are followed from step to step, and "
            "overwriting weights by their averages breaks that. Expected "
            "ema_overwrite_frequency=None, Received: "
            f"ema_overwrite_frequency={options['ema_overwrite_frequency']}"
        )


def check_kept_norms(variables):
    """Raises if something beside the steps changes norms of weights."""
    for variable in variables:
        if variable.constraint is not None:
            raise ValueError(
                "With norm_refresh > 1 norms are followed from step to step, "
                "and a constraint breaks that. Expected variables without "
                f"constraint, Received: {variable.path} under "
                f"{variable.constraint}"
            )

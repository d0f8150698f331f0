"""DSGD: duality structure gradient descent, steps that theory certifies."""

import math
import warnings

import keras
from keras import backend
from keras import ops

from tf_spectral import checks
from tf_spectral.bounds.layerwise import LayerwiseSmoothness
from tf_spectral.linalg.norms import induced_norm
from tf_spectral.optimizers.block_descent import BlockDescent
from tf_spectral.optimizers.block_descent import Curvature
from tf_spectral.optimizers.block_descent import Measured
from tf_spectral.optimizers.block_descent import Slot
from tf_spectral.optimizers.block_steps import largest_rank


@keras.saving.register_keras_serializable("tf_spectral")
class DSGD(BlockDescent):
    """Layer-wise greedy descent with certified step sizes.

    Each kernel, bias or other weight of the network is a block `i` with a
    norm of its own. A step measures each block's gradient in the dual norm,
    divides by `p_i`, the root of a bound on the curvature of the loss in that
    block, and moves the one block with the largest quotient by

        w_i <- w_i - learning_rate / p_i^2 * duality_map(gradient_i)

    With the full gradient, `learning_rate=1`, smooth activations and a
    `smoothness` read from the model, the loss falls at each step by at least
    half the square of that quotient: no learning rate is to be tuned.

    Args:
        learning_rate: Float, a schedule, or a callable: the theory's step is
            `1.0`, anything in (0, 2) descends. Defaults to `1.0`.
        norm: `1`, `2` or `"inf"`: layers are measured in the norm that this
            vector norm induces. Steps are sparse for `1` and `"inf"`, for `2`
            they are polar factors of gradients. Defaults to `2`.
        selection: `"greedy"` moves the block that is sure to gain most,
            `"all"` moves every block by its own step (the paper's DSGD_ALL;
            not certified), `"random"` one block at random, `"cyclic"` one
            after another. Defaults to `"greedy"`.
        smoothness: `tf_spectral.bounds.LayerwiseSmoothness`, best
            `LayerwiseSmoothness.from_model(model)`, which makes the steps
            certified. `None` guesses one from the shapes of the variables:
            tanh-like layers in a chain, cross-entropy; a warning says that
            nothing is certified then. `"constant"` takes
            `p_i = 1`: with `selection="all"` the normed SGD of the paper.
            Defaults to `None`.
        polar_accuracy: `"standard"`, `"fast"` or `"exact"`; for `norm=2`, how
            well the polar factor is computed: see `accuracy` of
            `tf_spectral.linalg.polar.polar_and_nuclear`, or by singular value
            decomposition, slow. Steps are certified with each: what a factor
            misses is taken off the promise. Defaults to `"standard"`.
        norm_refresh: Positive integer `k`: norms of weights, which the bounds
            need, are computed at every k-th step, and in between bounded by
            the known lengths of the steps; still certified, but for weights
            that are set by hand in between. Defaults to `1`.
        seed: Integer, for `selection="random"`. Defaults to a random one.
        **kwargs: Those of every Keras optimizer. `clipnorm` is refused with
            greedy selection: it makes all norms equal and the choice one of
            rounding. `weight_decay`, `clipvalue` and `global_clipnorm` work
            but are outside the certificate.

    Attributes:
        update_counts: Variable `(n,)`, how often each block was moved.
        local_gradient_norm: Variable, `max_i ||gradient_i||_* / p_i` at the
            last step (of the moved block alone for `"random"` and
            `"cyclic"`): the quantity whose square the theory bounds.
        skipped_steps: Variable, how many steps met a gradient with NaN or Inf.
            Such a step changes no weight; a warning follows.

    Raises:
        ValueError: If an argument is not among the named, and when the
            optimizer is built if `smoothness` was made for variables of other
            shapes or with another norm.

    Example:

    >>> import keras
    >>> from tf_spectral.bounds import LayerwiseSmoothness
    >>> from tf_spectral.optimizers import DSGD
    >>> model = keras.Sequential([
    ...     keras.Input((4,)),
    ...     keras.layers.Dense(8, "tanh"),
    ...     keras.layers.Dense(3, "softmax"),
    ... ])
    >>> model.compile(DSGD(), "sparse_categorical_crossentropy")
    >>> smoothness = LayerwiseSmoothness.from_model(model)
    >>> model.compile(
    ...     DSGD(smoothness=smoothness), "sparse_categorical_crossentropy"
    ... )

    Reference: Flynn, "The duality structure gradient descent algorithm:
    analysis and applications to neural networks", 2017, Algorithm 4.1.
    """

    def __init__(
        self,
        learning_rate=1.0,
        norm=2,
        selection="greedy",
        smoothness=None,
        polar_accuracy="standard",
        norm_refresh=1,
        seed=None,
        name=None,
        **kwargs,
    ):
        kwargs = checks.optimizer_options(kwargs)
        norm = checks.norm("norm", norm)
        _check_smoothness(smoothness, norm)
        norm_refresh = _check_norm_refresh(norm_refresh, kwargs)
        super().__init__(
            learning_rate,
            norm,
            selection,
            polar_accuracy,
            seed,
            name=name,
            **kwargs,
        )
        self.smoothness = smoothness
        self.norm_refresh = norm_refresh

    def build(self, variables):
        if self.built or not variables:
            return
        super().build(variables)
        self.local_gradient_norm = self._add(
            "local_gradient_norm", (), self._dtype
        )
        self.update_counts = self._add(
            "update_counts", (len(variables),), "int32"
        )

    def make_curvature(self, variables):
        if self.smoothness == "constant":
            return UnitCurvature(len(variables), self._dtype)
        smoothness = self.smoothness
        if smoothness is None:
            _warn_of_guessed_bounds()
            smoothness = LayerwiseSmoothness.from_variables(
                variables, self.norm
            )
        smoothness.check(variables)
        return CertifiedCurvature(
            smoothness, variables, self.norm_refresh, self._dtype
        )

    def note(self, dual_norms, curvature, moved):
        duals = ops.where(moved, dual_norms, ops.zeros_like(dual_norms))
        self.local_gradient_norm.assign(ops.max(duals / ops.sqrt(curvature)))
        self.update_counts.assign_add(ops.cast(moved, "int32"))

    def get_config(self):
        smoothness = self.smoothness
        if isinstance(smoothness, LayerwiseSmoothness):
            smoothness = keras.saving.serialize_keras_object(smoothness)
        return {
            **super().get_config(),
            "norm": self.norm,
            "smoothness": smoothness,
            "norm_refresh": self.norm_refresh,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        if isinstance(config.get("smoothness"), dict):
            config["smoothness"] = keras.saving.deserialize_keras_object(
                config["smoothness"], custom_objects
            )
        return super().from_config(config, custom_objects)


class UnitCurvature(Curvature):
    """`p_i = 1` for each of `n` blocks."""

    def __init__(self, n, dtype):
        self._n, self._dtype = n, dtype

    def measure(self, values, gradients, weights, step):
        return Measured(ops.ones((self._n,), self._dtype))


class CertifiedCurvature(Curvature):
    """The `p_i^2` that a record of a model gives, from norms of its weights.

    Args:
        smoothness: `LayerwiseSmoothness`.
        variables: List of the variables it was made for.
        refresh: Positive integer `k`. Norms are computed at every k-th step;
            in between each grows by the lengths of the steps, a bound.
        dtype: `"float32"` or `"float64"`.

    Raises:
        ValueError: If something beside the steps changes norms that are to
            be followed.
    """

    def __init__(self, smoothness, variables, refresh, dtype):
        self._smoothness = smoothness
        self._needed = smoothness.needed_norms
        self._refresh, self._dtype = refresh, dtype
        self._followed = refresh > 1 and bool(self._needed)
        if self._followed:
            _check_kept_norms([variables[i] for i in self._needed])
            self._rounding = [_rounding(v, smoothness.norm) for v in variables]

    def slots(self):
        if not self._followed:
            return {}
        return {"norm_bounds": Slot((len(self._rounding),), self._dtype)}

    def measure(self, values, gradients, weights, step):
        norms = None
        if self._followed:
            norms = ops.cond(
                ops.equal(step % self._refresh, 0),
                lambda: self._norms(weights),
                lambda: values["norm_bounds"],
            )
        elif self._needed:
            norms = self._norms(weights)
        squared = self._smoothness.squared_bounds_from_norms(norms)
        return Measured(ops.cast(squared, self._dtype), kept=norms)

    def after(self, kept, lengths, moved):
        if not self._followed:
            return {}
        grown = kept + lengths
        rounding = ops.convert_to_tensor(self._rounding, self._dtype)
        return {"norm_bounds": ops.where(moved, rounding * grown, grown)}

    def anew(self, weights):
        return {"norm_bounds": self._norms(weights)} if self._followed else {}

    def _norms(self, weights):
        norms = [
            ops.cast(induced_norm(v, self._smoothness.norm), self._dtype)
            if i in self._needed
            else ops.zeros((), self._dtype)
            for i, v in enumerate(weights)
        ]
        return ops.stack(norms)


def _rounding(variable, norm):
    """By which factor a rounded difference may be larger than the exact one.

    Each entry grows by the unit of rounding, and with it the norms 1 and inf;
    the norm 2 by the root of the rank times as much.
    """
    # Weights of half precision are rounded once, others in product and sum.
    units = {"float16": -11, "bfloat16": -8, "float32": -23, "float64": -52}
    unit = 2.0 ** units[backend.standardize_dtype(variable.dtype)]
    return 1 + unit * (math.sqrt(largest_rank(variable)) if norm == 2 else 1)


def _check_smoothness(smoothness, norm):
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


def _check_norm_refresh(value, options):
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


def _check_kept_norms(variables):
    """Raises if something beside the steps changes norms of weights."""
    for variable in variables:
        if getattr(variable, "constraint", None) is not None:
            raise ValueError(
                "With norm_refresh > 1 norms are followed from step to step, "
                "and a constraint breaks that. Expected variables without "
                f"constraint, Received: {variable.path} under "
                f"{variable.constraint}"
            )


def _warn_of_guessed_bounds():
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

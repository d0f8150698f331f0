"""DSGD: duality structure gradient descent, layer by layer."""

import math

import keras
from keras import backend
from keras import ops

from tf_spectral import checks
from tf_spectral.bounds.layerwise import LayerwiseSmoothness
from tf_spectral.linalg.norms import induced_norm
from tf_spectral.optimizers.base import path_of
from tf_spectral.optimizers.block_descent import BlockDescent
from tf_spectral.optimizers.block_steps import largest_rank
from tf_spectral.optimizers.curvature import Curvature
from tf_spectral.optimizers.curvature import Known
from tf_spectral.optimizers.curvature import Slot
from tf_spectral.optimizers.measured_curvature import MeasuredCurvature
from tf_spectral.optimizers.measured_steps import Settings
from tf_spectral.optimizers.slices import checked_blocks
from tf_spectral.optimizers.weight_values import MEASURED

CONSTANT = "constant"


@keras.saving.register_keras_serializable("tf_spectral")
class DSGD(BlockDescent):
    """Layer-wise steepest descent, with measured or certified step sizes.

    Each kernel, bias or other weight of the network is a block `i` with a
    norm of its own. A step goes along the duality map of each block's
    gradient, by `1 / p_i^2`, the inverse of the curvature of the loss in that
    block:

        w_i <- w_i - learning_rate / p_i^2 * duality_map(gradient_i)

    Where `p_i` comes from is said by `smoothness`:

    - `"measured"`, the default: from the training itself. All blocks move at
      each step, along a momentum, by a share of their own norm that grows
      while gradients agree with the steps before and shrinks where they do
      not. Nothing is to be tuned, nothing is certified.
    - a `tf_spectral.bounds.LayerwiseSmoothness`: bounds that hold for every
      data set. With the full gradient, `learning_rate=1`, smooth activations
      and a record read from the model the loss falls at each step. The steps
      are short. This is the method of the paper: the one block with the
      largest `||gradient_i||_* / p_i` moves.
    - `"constant"`: `p_i = 1`; with `selection="all"` the normed SGD of the
      paper.

    Args:
        learning_rate: Float, a schedule, or a callable: `1.0` is the step as
            measured or as certified. Certified steps descend for anything in
            (0, 2). Measured ones make up for a constant other than one in
            time; those of a schedule that ends at zero end at zero; none is
            longer than 0.1 of what it moves. Defaults to `1.0`.
        norm: `1`, `2` or `"inf"`: layers are measured in the norm that this
            vector norm induces. Steps are sparse for `1` and `"inf"`, for `2`
            they are polar factors of gradients. Defaults to `2`.
        selection: `"greedy"` moves the block that is sure to gain most,
            `"all"` moves every block by its own step (the paper's DSGD_ALL;
            not certified), `"random"` one block at random, `"cyclic"` one
            after another. Defaults to `None`: `"all"` with measured steps,
            else `"greedy"`.
        smoothness: `"measured"`, `"constant"` or a
            `tf_spectral.bounds.LayerwiseSmoothness`, best
            `LayerwiseSmoothness.from_model(model)`. Defaults to `"measured"`.
        momentum: Float in [0, 1), the share of the old in the average of
            gradients along which measured steps go, as Nesterov's. Other
            steps have none. Defaults to `None`: `0.9` with measured steps.
        blocks: For measured steps, what the matrices of a weight are where
            its name does not tell, by ends of paths: a positive integer is a
            number of equal blocks of columns, as the gates of a cell;
            `"rows"` makes each row a vector, as in an embedding; `"matrix"`
            and `"vector"` take it as one. Defaults to `None`: gates of
            `LSTM` and `GRU`, heads of attention, rows of embeddings and
            reflectors and channels of depthwise kernels are told by name.
        polar_accuracy: `"standard"`, `"fast"` or `"exact"`; for `norm=2`, how
            well the polar factor is computed: see `accuracy` of
            `tf_spectral.linalg.polar.polar_and_nuclear`, or by singular value
            decomposition, slow. Steps are certified with each: what a factor
            misses is taken off the promise. Defaults to `None`: `"fast"` with
            measured steps, else `"standard"`.
        norm_refresh: Positive integer `k`: norms of weights, which the bounds
            need, are computed at every k-th step, and in between bounded by
            the known lengths of the steps; still certified, but for weights
            that are set by hand in between. Defaults to `1`.
        seed: Integer, for `selection="random"`. Defaults to a random one.
        **kwargs: Those of every Keras optimizer. `clipnorm` is refused with
            greedy selection: it makes all norms equal and the choice one of
            rounding. `weight_decay`, `clipvalue` and `global_clipnorm` work
            but are outside the certificate. With measured steps
            `weight_decay` is multiplied by their length, some 0.01, as that
            of `AdamW` is by its learning rate.

    Measured steps keep two copies of the weights, as Adam does.

    Attributes:
        update_counts: Variable `(n,)`, how often each block was moved.
        local_gradient_norm: Variable, `max_i ||gradient_i||_* / p_i` at the
            last step (of the moved block alone for `"random"` and
            `"cyclic"`): the quantity whose square the theory bounds.
        step_length: Variable, of measured steps: the share of its own norm
            by which a block moves at most.
        skipped_steps: Variable, how many steps met a gradient with NaN or Inf.
            Such a step changes no weight; a warning follows.

    Raises:
        ValueError: If an argument is not among the named, or is one of another
            kind of steps; and when the optimizer is built, if `smoothness`
            was made for variables of other shapes or with another norm, or a
            name in `blocks` fits no weight.

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
    analysis and applications to neural networks", 2017, Algorithm 4.1; for
    measured steps see `tf_spectral.optimizers.measured_steps`.
    """

    def __init__(
        self,
        learning_rate=1.0,
        norm=2,
        selection=None,
        smoothness=MEASURED,
        momentum=None,
        blocks=None,
        polar_accuracy=None,
        norm_refresh=1,
        seed=None,
        name=None,
        **kwargs,
    ):
        kwargs = checks.optimizer_options(kwargs)
        norm = checks.norm("norm", norm)
        _check_smoothness(smoothness, norm)
        measured = _is(smoothness, MEASURED)
        norm_refresh = _check_norm_refresh(norm_refresh, kwargs)
        blocks = checked_blocks(blocks)
        if momentum is None:
            momentum = 0.9 if measured else 0.0
        momentum = checks.fraction("momentum", momentum)
        _check_kind(smoothness, momentum, blocks, norm_refresh)
        if selection is None:
            selection = "all" if measured else "greedy"
        if polar_accuracy is None:
            polar_accuracy = "fast" if measured else "standard"
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
        self.momentum = momentum
        self.blocks = blocks
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
        if _is(self.smoothness, MEASURED):
            settings = Settings(self.norm, self.momentum, self.polar_accuracy)
            paths = [path_of(v) for v in variables]
            return MeasuredCurvature(
                variables, paths, settings, self.blocks, self._dtype
            )
        if _is(self.smoothness, CONSTANT):
            return UnitCurvature(len(variables), self._dtype)
        self.smoothness.check(variables)
        return CertifiedCurvature(
            self.smoothness, variables, self.norm_refresh, self._dtype
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
            "momentum": self.momentum,
            # Keras wraps dicts that are attributes.
            "blocks": None if self.blocks is None else dict(self.blocks),
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
        return Known(ops.ones((self._n,), self._dtype))


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
        return Known(ops.cast(squared, self._dtype), kept=norms)

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


def _is(smoothness, word):
    return isinstance(smoothness, str) and smoothness == word


def _check_smoothness(smoothness, norm):
    """Raises unless DSGD can take `smoothness` with this norm."""
    if isinstance(smoothness, LayerwiseSmoothness):
        if smoothness.norm != norm:
            raise ValueError(
                "Argument `smoothness` was made for another norm. Expected "
                f"norm={norm!r}, Received: smoothness.norm={smoothness.norm!r}"
            )
    elif not (_is(smoothness, MEASURED) or _is(smoothness, CONSTANT)):
        raise ValueError(
            'Argument `smoothness` is unknown. Expected "measured", '
            '"constant" or a `LayerwiseSmoothness`, Received: '
            f"smoothness={checks.shown(smoothness)}"
        )


def _check_kind(smoothness, momentum, blocks, norm_refresh):
    """Raises if an argument does nothing for steps of this kind."""
    measured = _is(smoothness, MEASURED)
    if not measured and (momentum or blocks):
        raise ValueError(
            "Arguments `momentum` and `blocks` are of measured steps. "
            'Expected momentum=0.0 and blocks=None, or smoothness="measured", '
            f"Received: momentum={momentum}, blocks={blocks}"
        )
    if norm_refresh > 1 and not isinstance(smoothness, LayerwiseSmoothness):
        raise ValueError(
            "Argument `norm_refresh` is of certified steps. Expected "
            "norm_refresh=1, or a `LayerwiseSmoothness` as `smoothness`, "
            f"Received: norm_refresh={norm_refresh}"
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

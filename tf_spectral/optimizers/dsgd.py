"""DSGD: duality structure gradient descent, steps that theory certifies."""

import math
import random
import warnings

import keras
from keras import backend
from keras import ops

from tf_spectral import checks
from tf_spectral.backend.precision import working_dtype
from tf_spectral.bounds.layerwise import LayerwiseSmoothness
from tf_spectral.linalg.norms import duality_map
from tf_spectral.linalg.norms import induced_norm
from tf_spectral.optimizers.base import IterationSeed
from tf_spectral.optimizers.base import JointOptimizer
from tf_spectral.optimizers.base import all_finite
from tf_spectral.optimizers.base import warn_of_skipped_steps
from tf_spectral.optimizers.block_steps import POLAR_ACCURACIES
from tf_spectral.optimizers.block_steps import chosen_spectral_steps
from tf_spectral.optimizers.block_steps import greedy_spectral_steps
from tf_spectral.optimizers.block_steps import largest_rank
from tf_spectral.optimizers.block_steps import one_of
from tf_spectral.optimizers.block_steps import sparse_steps

SELECTIONS = ("greedy", "all", "random", "cyclic")


@keras.saving.register_keras_serializable("tf_spectral")
class DSGD(JointOptimizer):
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
        selection = checks.choice("selection", selection, SELECTIONS)
        if selection == "greedy" and kwargs.get("clipnorm"):
            raise ValueError(
                "`clipnorm` gives all gradients the same norm, and greedy "
                "selection compares them. Expected clipnorm=None or "
                'selection="all", or `global_clipnorm`, Received: '
                f"clipnorm={kwargs['clipnorm']}"
            )
        super().__init__(learning_rate, name=name, **kwargs)
        self.norm = norm
        self.selection = selection
        self.smoothness = smoothness
        self.polar_accuracy = checks.choice(
            "polar_accuracy", polar_accuracy, POLAR_ACCURACIES
        )
        self.norm_refresh = norm_refresh
        seed = checks.seed("seed", seed)
        self.seed = random.randrange(checks.SEEDS) if seed is None else seed

    def build(self, variables):
        # Keras' reader of `.h5` files first builds without any.
        if self.built or not variables:
            return
        super().build(variables)
        variables = self._trainable_variables
        self._bounds = self._make_bounds(variables)
        dtypes = {working_dtype(v.dtype) for v in variables}
        self._dtype = "float64" if dtypes == {"float64"} else "float32"
        shape = (len(variables),)
        self._scales = self._add("scales", shape, self._dtype)
        self.local_gradient_norm = self._add(
            "local_gradient_norm", (), self._dtype
        )
        self.update_counts = self._add("update_counts", shape, "int32")
        self.skipped_steps = self._add("skipped_steps", (), "int32")
        self._norm_bounds = None
        if self.norm_refresh > 1 and self._needed_norms():
            _check_kept_norms([variables[i] for i in self._needed_norms()])
            self._norm_bounds = self._add("norm_bounds", shape, self._dtype)
            self._rounding = [_rounding(v, self.norm) for v in variables]
        self._seed = IterationSeed(self.seed, lambda: self.iterations)

    def _add(self, name, shape, dtype):
        return self.add_variable(
            shape, dtype=dtype, aggregation="only_first_replica", name=name
        )

    def _make_bounds(self, variables):
        if self.smoothness == "constant":
            return None
        if self.smoothness is None:
            _warn_of_guessed_bounds()
            return LayerwiseSmoothness.from_variables(variables, self.norm)
        self.smoothness.check(variables)
        return self.smoothness

    def joint_step(self, gradients, variables, learning_rate):
        places = [self._get_variable_index(v) for v in variables]
        blocks = [None] * len(self._trainable_variables)
        for place, gradient in zip(places, gradients):
            # In half precision a polar factor would be longer than one, and
            # a step as long as its certificate may be no number.
            blocks[place] = ops.cast(gradient, working_dtype(gradient.dtype))
        norms = self._weight_norms()
        squared = self._squared_bounds(norms)
        chosen, steps = self._choose(blocks, squared)
        finite = all_finite(blocks)
        moved = ops.logical_and(chosen, finite)
        zeros = ops.zeros_like(squared)
        duals = ops.where(moved, ops.stack(steps.dual_norms), zeros)
        factors = ops.where(moved, ops.stack(steps.factors), zeros)
        self._scales.assign(factors / squared)
        self.local_gradient_norm.assign(ops.max(duals / ops.sqrt(squared)))
        self.update_counts.assign_add(ops.cast(moved, "int32"))
        self.skipped_steps.assign_add(1 - ops.cast(finite, "int32"))
        if self._norm_bounds is not None:
            rate = ops.cast(learning_rate, self._dtype)
            grown = norms + rate * duals / squared
            rounding = ops.convert_to_tensor(self._rounding, self._dtype)
            self._norm_bounds.assign(ops.where(moved, rounding * grown, grown))
        return [steps.directions[place] for place in places]

    def update_step(self, gradient, variable, learning_rate):
        place = self._get_variable_index(variable)
        scale = ops.convert_to_tensor(self._scales)[place]

        def update():
            step = (
                gradient if self.norm == 2 else duality_map(gradient, self.norm)
            )
            rate = ops.cast(learning_rate, self._dtype) * scale
            return ops.cast(rate, step.dtype) * step

        self.assign_sub_if(scale > 0, variable, update)

    def _choose(self, blocks, squared):
        """The mask of blocks to move, and what is known of all of them."""
        dtype, n = self._dtype, len(blocks)
        if self.selection == "greedy":
            roots = ops.sqrt(squared)
            if self.norm == 2:
                steps = greedy_spectral_steps(
                    blocks, ops.unstack(roots), self.polar_accuracy, dtype
                )
            else:
                steps = sparse_steps(blocks, self.norm, dtype)
            scores = ops.stack(steps.dual_norms) / roots
            return one_of(n, ops.argmax(scores)), steps
        if self.selection == "all":
            chosen = ops.ones((n,), dtype="bool")
        elif self.selection == "random":
            chosen = one_of(n, keras.random.randint((), 0, n, seed=self._seed))
        else:
            chosen = one_of(n, self.iterations % n)
        if self.norm == 2:
            return chosen, chosen_spectral_steps(
                blocks, chosen, self.polar_accuracy, dtype
            )
        return chosen, sparse_steps(blocks, self.norm, dtype)

    def _weight_norms(self):
        """Upper bounds of the norms that the `p_i` depend on, or `None`."""
        if not self._needed_norms():
            return None
        if self._norm_bounds is None:
            return self._computed_norms()
        return ops.cond(
            ops.equal(self.iterations % self.norm_refresh, 0),
            self._computed_norms,
            lambda: ops.convert_to_tensor(self._norm_bounds),
        )

    def _needed_norms(self):
        """Places of the weights whose norms the `p_i` depend on."""
        return () if self._bounds is None else self._bounds.needed_norms

    def _computed_norms(self):
        norms = [
            ops.cast(induced_norm(v, self.norm), self._dtype)
            if i in self._needed_norms()
            else ops.zeros((), self._dtype)
            for i, v in enumerate(self._trainable_variables)
        ]
        return ops.stack(norms)

    def _squared_bounds(self, norms):
        n = len(self._trainable_variables)
        if self._bounds is None:
            return ops.ones((n,), self._dtype)
        squared = self._bounds.squared_bounds_from_norms(norms)
        return ops.cast(squared, self._dtype)

    def finalize_variable_values(self, var_list):
        super().finalize_variable_values(var_list)
        warn_of_skipped_steps(self)
        if self._norm_bounds is not None and self.use_ema:
            # The averages that are the weights now may be larger.
            self._norm_bounds.assign(self._computed_norms())

    def get_config(self):
        smoothness = self.smoothness
        if isinstance(smoothness, LayerwiseSmoothness):
            smoothness = keras.saving.serialize_keras_object(smoothness)
        return {
            **super().get_config(),
            "norm": self.norm,
            "selection": self.selection,
            "smoothness": smoothness,
            "polar_accuracy": self.polar_accuracy,
            "norm_refresh": self.norm_refresh,
            "seed": self.seed,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        if isinstance(config.get("smoothness"), dict):
            config["smoothness"] = keras.saving.deserialize_keras_object(
                config["smoothness"], custom_objects
            )
        return super().from_config(config, custom_objects)


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

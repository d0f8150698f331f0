"""SRCD: stochastic Riemannian coordinate descent by plane rotations."""

import math
import random

import keras
from keras import ops

from tf_spectral import checks
from tf_spectral.linalg import givens
from tf_spectral.linalg.checks import working_dtype
from tf_spectral.linalg.orthogonal import skew_gradient
from tf_spectral.optimizers import coordinates
from tf_spectral.optimizers import requirements
from tf_spectral.optimizers.iteration_seed import IterationSeed
from tf_spectral.optimizers.layer_steps import all_finite
from tf_spectral.optimizers.moments import ADAPTIVE
from tf_spectral.optimizers.moments import DenseMoments
from tf_spectral.optimizers.moments import LazyMoments
from tf_spectral.optimizers.riemannian import RiemannianOptimizer

SELECTIONS = ("uniform", "gauss_southwell", "cyclic")


@keras.saving.register_keras_serializable("tf_spectral")
class SRCD(RiemannianOptimizer):
    """Coordinate descent on the orthogonal group.

    Each square variable under `tf_spectral.constraints.Orthogonal` is turned
    in a few planes, spanned by pairs of its rows. A pair `(j, l)` turns by the
    angle `-learning_rate / 2 * S_jl`, `S = R G^T - G R^T`. Drawn and cyclic
    pairs cost four dot products' worth of work and one rotation each, in
    place; no product of matrices is formed. All other variables are left to a
    Euclidean optimizer.

    Args:
        learning_rate: Float, a schedule, or a callable. Defaults to `2e-4`.
        selection: `"uniform"` draws pairs, `"gauss_southwell"` takes those of
            the largest partial derivatives, which costs one product of
            matrices, `"cyclic"` takes all in turn. Defaults to `"uniform"`.
        block_size: How many pairs a step turns: a positive integer; a float
            in (0, 1], the share of all `d (d - 1) / 2`; or a
            `keras.optimizers.schedules.LearningRateSchedule` that gives a
            number of pairs, held within `1` and `d // 2`. Pairs of a step are
            disjoint and are one geodesic step; beyond `d // 2` rounds of
            disjoint pairs follow each other. Defaults to `1`.
        coordinate_scale: Float, a factor on the angles, or `"unbiased"`: the
            factor with which drawn and cyclic steps are in the mean the step
            of `SRGD`. Defaults to `1.0`.
        adaptive: `None`, `"rmsprop"` or `"adam"`: divides partial derivatives
            by their root mean squares, pair by pair, with `"adam"` after
            averaging. Moments stay in the frame of the moving matrix and need
            no transport. Gauss-Southwell updates those of all pairs in each
            step, the others those of the pairs they turn. Defaults to
            `None`.
        beta_1: Float in [0, 1), decay of the means of `"adam"`. Defaults to
            `0.9`.
        beta_2: Float in [0, 1), decay of the mean squares. Defaults to
            `0.999`.
        epsilon: Positive float, added to the root mean squares. Defaults to
            `1e-8`.
        euclidean_optimizer: Keras optimizer for the variables without the
            constraint. Defaults to SGD with `learning_rate`.
        momentum: Float, of that SGD. Defaults to `0.0`.
        correction_period: Positive integer: every how many steps the rounding
            error of orthogonality is removed. Defaults to as many as turn
            each row 1000 times, in half precision ten times.
        seed: Integer, for `"uniform"`. Defaults to a random one.
        **kwargs: Those of every Keras optimizer. Weight decay does not touch
            orthogonal variables.

    Attributes:
        skipped_steps: Variable, how many steps of an orthogonal variable met
            NaN or Inf where they looked, or with `adaptive` derivatives whose
            squares are too large for the dtype. Such a step leaves it as it
            was.

    Raises:
        ValueError: If an argument is out of range, and when the optimizer is
            built if no variable is under the constraint, or one of them is
            not square.

    Example:

    >>> import keras
    >>> from tf_spectral.constraints import Orthogonal
    >>> from tf_spectral.optimizers import SRCD
    >>> model = keras.Sequential([
    ...     keras.Input((None, 2)),
    ...     keras.layers.SimpleRNN(8, recurrent_constraint=Orthogonal()),
    ...     keras.layers.Dense(1),
    ... ])
    >>> model.compile(SRCD(0.01, "gauss_southwell", block_size=4), "mse")

    Reference: Massart and Abrol, "Coordinate descent on the orthogonal group
    for recurrent neural network training", 2022, algorithm 1 (its angles are
    a factor `sqrt(2)` too large in equations 12 and 13).
    """

    def __init__(
        self,
        learning_rate=2e-4,
        selection="uniform",
        block_size=1,
        coordinate_scale=1.0,
        adaptive=None,
        beta_1=0.9,
        beta_2=0.999,
        epsilon=1e-8,
        euclidean_optimizer=None,
        momentum=0.0,
        correction_period=None,
        seed=None,
        name=None,
        **kwargs,
    ):
        super().__init__(
            learning_rate,
            euclidean_optimizer,
            momentum,
            correction_period,
            name=name,
            **kwargs,
        )
        self.selection = checks.choice("selection", selection, SELECTIONS)
        self.block_size = requirements.check_block_size(block_size)
        self.coordinate_scale = requirements.check_coordinate_scale(
            coordinate_scale, selection
        )
        self.adaptive = checks.choice("adaptive", adaptive, ADAPTIVE)
        self.beta_1 = checks.fraction("beta_1", beta_1)
        self.beta_2 = checks.fraction("beta_2", beta_2)
        self.epsilon = checks.positive("epsilon", epsilon)
        seed = checks.seed("seed", seed)
        self.seed = random.randrange(checks.SEEDS) if seed is None else seed

    def build(self, variables):
        # Keras' reader of `.h5` files first builds without any.
        if self.built or not variables:
            return
        super().build(variables)
        kind = (
            DenseMoments if self.selection == "gauss_southwell" else LazyMoments
        )
        self._sizes, self._moments, self._seeds = {}, {}, {}
        for place, variable in enumerate(self._trainable_variables):
            if self._on_manifold[place] and variable.shape[0] > 1:
                sizes = coordinates.round_sizes(
                    self.block_size, variable.shape[0]
                )
                self._sizes[place] = sizes
                self._moments[place] = kind(self, variable)
                self._seeds[place] = IterationSeed(
                    (self.seed + place) % checks.SEEDS, lambda: self.iterations
                )

    def check_manifold(self, variables):
        super().check_manifold(variables)
        requirements.check_square(variables, "SRCD")
        for variable in variables:
            if variable.shape[0] > 1:
                coordinates.round_sizes(self.block_size, variable.shape[0])

    def correction_steps(self, place):
        if place not in self._sizes:
            return 1000
        rows = self._trainable_variables[place].shape[0]
        return max(1, 1000 * rows // (2 * sum(self._sizes[place])))

    def manifold_step(self, place, variable, gradient, learning_rate):
        if place not in self._sizes:
            return all_finite([gradient])
        choose = self._chosen
        if self.selection == "gauss_southwell":
            choose = self._best
        rounds, directions, finite = choose(place, variable, gradient)
        dtype = directions[0].dtype
        rate = ops.cast(learning_rate, dtype) / -math.sqrt(2)
        rate = rate * self._scale(place, dtype)
        angles = [
            rate * direction * self._within(pairs, dtype)
            for pairs, direction in zip(rounds, directions)
        ]
        # A rate may be no number either, or infinite and a derivative zero.
        taken = ops.logical_and(finite, all_finite(angles))
        for pairs, turn in zip(rounds, angles):
            # More than half a turn is noise, see `retractions.shortened`.
            turn = ops.clip(turn, -math.pi, math.pi)
            # A rotation by nothing, where there was a NaN.
            turn = ops.where(taken, turn, ops.zeros_like(turn))
            self._rotate(variable, pairs, turn)
        return taken

    def _best(self, place, variable, gradient):
        dtype = working_dtype(variable.dtype)
        value = ops.cast(ops.convert_to_tensor(variable), dtype)
        s = skew_gradient(value, ops.cast(gradient, dtype))
        finite = self._can_be_remembered([s])
        # All pairs alike: the factor 1/sqrt(2) waits until they are few.
        scale = 1.0 if self.adaptive else 1 / math.sqrt(2)
        if self.adaptive:
            s = self._moments[place].directions(s / math.sqrt(2), finite)
        rounds, best = coordinates.best_pairs(s, self._sizes[place])
        return rounds, [scale * entries for entries in best], finite

    def _chosen(self, place, variable, gradient):
        d, sizes = variable.shape[0], self._sizes[place]
        if self.selection == "uniform":
            rounds = coordinates.drawn_pairs(sizes, d, self._seeds[place])
        else:
            step = ops.cast(ops.convert_to_tensor(self.iterations), "int32")
            rounds = coordinates.cyclic_pairs(sizes, d, step)
        slopes = [self._slopes(variable, gradient, p) for p in rounds]
        finite = self._can_be_remembered(slopes)
        moments = self._moments[place]
        directions = [
            moments.directions(slope, coordinates.flat_places(p, d), finite)
            for slope, p in zip(slopes, rounds)
        ]
        return rounds, directions, finite

    def _can_be_remembered(self, derivatives):
        """Whether they are finite, and their squares where those are kept."""
        # One infinite mean square would stop its pair for good.
        return all_finite([x * x if self.adaptive else x for x in derivatives])

    def _slopes(self, variable, gradient, pairs):
        """Partial derivatives from the rows of the pairs alone."""
        dtype = working_dtype(variable.dtype)
        j, l = pairs[:, 0], pairs[:, 1]  # noqa: E741
        r_j, r_l, g_j, g_l = (
            ops.cast(rows, dtype)
            for rows in (
                self.gather_rows(variable, j),
                self.gather_rows(variable, l),
                ops.take(gradient, j, axis=0),
                ops.take(gradient, l, axis=0),
            )
        )
        return ops.sum(r_j * g_l - g_j * r_l, axis=1) / math.sqrt(2)

    def _rotate(self, variable, pairs, angles):
        d = variable.shape[0]
        if 4 * pairs.shape[0] >= d:
            partner = givens.partners(pairs, d)
            both = ops.concatenate([pairs[:, 0], pairs[:, 1]])[:, None]
            turned = ops.scatter_update(
                ops.zeros((d,), angles.dtype),
                both,
                ops.concatenate([angles, -angles]),
            )
            value = ops.convert_to_tensor(variable)
            self.assign(variable, givens.rotate_block(value, partner, turned))
            return
        j, l = pairs[:, 0], pairs[:, 1]  # noqa: E741
        r_j, r_l = (
            ops.cast(self.gather_rows(variable, rows), angles.dtype)
            for rows in (j, l)
        )
        delta_j, delta_l = givens.rotation_increments(r_j, r_l, angles)
        rows = ops.concatenate([r_j - delta_j, r_l - delta_l])
        rows = ops.cast(rows, variable.dtype)
        self.assign_rows(variable, ops.concatenate([j, l]), rows)

    def _within(self, pairs, dtype):
        """One for the first pairs, as many as a schedule asks for."""
        if self._fixed():
            return ops.ones((), dtype)
        places = ops.arange(pairs.shape[0], dtype="int32")
        return ops.cast(places < self._scheduled(pairs.shape[0]), dtype)

    def _fixed(self):
        return isinstance(self.block_size, (int, float))

    def _scheduled(self, most):
        count = self.block_size(ops.convert_to_tensor(self.iterations))
        return ops.clip(ops.cast(count, "int32"), 1, most)

    def _scale(self, place, dtype):
        if self.coordinate_scale != "unbiased":
            return ops.full((), self.coordinate_scale, dtype)
        count = sum(self._sizes[place])
        if not self._fixed():
            count = ops.cast(self._scheduled(count), dtype)
        d = self._trainable_variables[place].shape[0]
        return ops.full((), coordinates.pair_total(d), dtype) / count

    def get_config(self):
        block_size = self.block_size
        if not self._fixed():
            block_size = keras.optimizers.schedules.serialize(block_size)
        return {
            **super().get_config(),
            "selection": self.selection,
            "block_size": block_size,
            "coordinate_scale": self.coordinate_scale,
            "adaptive": self.adaptive,
            "beta_1": self.beta_1,
            "beta_2": self.beta_2,
            "epsilon": self.epsilon,
            "seed": self.seed,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        if isinstance(config.get("block_size"), dict):
            config["block_size"] = keras.optimizers.schedules.deserialize(
                config["block_size"], custom_objects
            )
        return super().from_config(config, custom_objects)

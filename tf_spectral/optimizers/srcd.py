"""SRCD: stochastic Riemannian coordinate descent by plane rotations."""

import math
import random

import keras
from keras import ops

from tf_spectral import checks
from tf_spectral.backend.keras_internals import trained_variables
from tf_spectral.backend.precision import working_dtype
from tf_spectral.backend.variables import assign_rows
from tf_spectral.backend.variables import gather_rows
from tf_spectral.linalg import givens
from tf_spectral.linalg.orthogonal import skew_gradient
from tf_spectral.linalg.pairings import disjoint_pairs
from tf_spectral.linalg.pairings import gauss_southwell_pair
from tf_spectral.linalg.pairings import random_pairs
from tf_spectral.linalg.pairings import round_count
from tf_spectral.linalg.pairings import round_robin_pairs
from tf_spectral.linalg.pairings import uniform_pair
from tf_spectral.optimizers.base import IterationSeed
from tf_spectral.optimizers.base import all_finite
from tf_spectral.optimizers.riemannian import RiemannianOptimizer
from tf_spectral.optimizers.riemannian import check_square

SELECTIONS = ("greedy", "all", "random", "cyclic", "gauss_southwell")
ADAPTIVE = (None, "rmsprop", "adam")
# As many disjoint pairs as there are.
ROUND = "round"


@keras.saving.register_keras_serializable("tf_spectral")
class SRCD(RiemannianOptimizer):
    """Coordinate descent on the orthogonal group.

    Each square variable under `tf_spectral.constraints.Orthogonal` is turned
    in a few planes, spanned by pairs of its rows. A pair `(j, l)` turns by the
    angle `-learning_rate / 2 * S_jl`, `S = R G^T - G R^T`. Drawn and cyclic
    pairs cost four dot products' worth of work and one rotation each, in
    place; no product of matrices is formed. All other variables are left to a
    Euclidean optimizer.

    `SRCD()` needs no learning rate: partial derivatives are divided by their
    usual size. `SRCD(2e-4)` is the method of the paper.

    Args:
        learning_rate: Float, a schedule, or a callable. Defaults to `None`:
            `1e-3` with `adaptive="adam"`, and Adam with this rate as the
            Euclidean optimizer.
        selection: `"random"` draws pairs; `"greedy"`, the rule of
            Gauss-Southwell and also known as `"gauss_southwell"`, takes those
            of the largest partial derivatives, which costs one product of
            matrices; `"cyclic"` takes each in turn, and `"all"` turns every
            pair in each step. Defaults to `None`: `"random"` beside a
            learning rate, else `"greedy"`.
        block_size: How many pairs a step turns: a positive integer; a float
            in (0, 1], the share of all `d (d - 1) / 2`; `"round"`, as many
            disjoint ones as there are, `d // 2`; or a
            `keras.optimizers.schedules.LearningRateSchedule` that gives a
            number of pairs, held within `1` and `d // 2`. Pairs of a step are
            disjoint and are one geodesic step; beyond `d // 2` rounds of
            disjoint pairs follow each other. `"all"` takes no block size.
            Defaults to `None`: `1` beside a learning rate, else `"round"`.
        coordinate_scale: Float, a factor on the angles, or `"unbiased"`: the
            factor with which drawn and cyclic steps are in the mean the step
            of `SRGD`. Defaults to `1.0`.
        adaptive: `None`, `"rmsprop"` or `"adam"`: divides partial derivatives
            by their root mean squares, pair by pair, with `"adam"` after
            averaging. Moments stay in the frame of the moving matrix and need
            no transport. Greedy selection updates those of all pairs in each
            step, the others those of the pairs they turn. Defaults to `None`
            beside a learning rate, else to `"adam"`.
        beta_1: Float in [0, 1), decay of the means of `"adam"`. Defaults to
            `0.9`.
        beta_2: Float in [0, 1), decay of the mean squares. Defaults to
            `0.999`.
        epsilon: Positive float, added to the root mean squares. Defaults to
            `1e-8`.
        euclidean_optimizer: Keras optimizer for the variables without the
            constraint. Defaults to SGD with `learning_rate`, or Adam if there
            is none.
        momentum: Float, of that SGD. Defaults to `0.0`.
        correction_period: Positive integer: every how many steps the rounding
            error of orthogonality is removed. Defaults to as many as turn
            each row 1000 times, in half precision ten times.
        seed: Integer, for `"random"`. Defaults to a random one.
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
    >>> model.compile(SRCD(), "mse")
    >>> model.compile(SRCD(0.01, "greedy", block_size=4), "mse")

    Reference: Massart and Abrol, "Coordinate descent on the orthogonal group
    for recurrent neural network training", 2022, algorithm 1 (its angles are
    a factor `sqrt(2)` too large in equations 12 and 13).
    """

    def __init__(
        self,
        learning_rate=None,
        selection=None,
        block_size=None,
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
        given = learning_rate is not None
        if selection is None:
            selection = "random" if given else "greedy"
        selection = checks.choice("selection", selection, SELECTIONS)
        if selection == "gauss_southwell":
            selection = "greedy"
        if block_size is None:
            block_size = 1 if given or selection == "all" else ROUND
        if adaptive is None and not given:
            adaptive = "adam"
        self.selection = selection
        self.block_size = _check_block_size(block_size, selection)
        self.coordinate_scale = _check_coordinate_scale(
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
        self._sizes, self._moments, self._seeds = {}, {}, {}
        for place, variable in enumerate(trained_variables(self)):
            if self._on_manifold[place] and variable.shape[0] > 1:
                sizes = self._round_sizes(variable)
                self._sizes[place] = sizes
                self._moments[place] = self._new_moments(variable)
                self._seeds[place] = IterationSeed(
                    (self.seed + place) % checks.SEEDS, lambda: self.iterations
                )

    def _new_moments(self, variable):
        """Variables for the moments of all pairs of rows, by name."""
        d, lazy = variable.shape[0], self.selection != "greedy"
        return {
            name: self.add_variable(
                # Flat, for rows of them to be changed in place.
                (d * d,) if lazy else (d, d),
                dtype=working_dtype(variable.dtype),
                name=f"{variable.name}_{name}",
            )
            for name in moment_names(self.adaptive, lazy)
        }

    def _round_sizes(self, variable):
        share = 1.0 if self.selection == "all" else self.block_size
        return round_sizes(share, variable.shape[0])

    def check_manifold(self, variables):
        super().check_manifold(variables)
        check_square(variables, "SRCD")
        for variable in variables:
            if variable.shape[0] > 1:
                self._round_sizes(variable)

    def correction_steps(self, place):
        if place not in self._sizes:
            return 1000
        rows = trained_variables(self)[place].shape[0]
        return max(1, 1000 * rows // (2 * sum(self._sizes[place])))

    def manifold_step(self, place, variable, gradient, learning_rate):
        if place not in self._sizes:
            return all_finite([gradient])
        choose = self._chosen
        if self.selection == "greedy":
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
            s = self._adapted(place, s / math.sqrt(2), finite)
        rounds, best = best_pairs(s, self._sizes[place])
        return rounds, [scale * entries for entries in best], finite

    def _chosen(self, place, variable, gradient):
        d, sizes = variable.shape[0], self._sizes[place]
        if self.selection == "random":
            rounds = drawn_pairs(sizes, d, self._seeds[place])
        else:
            step = ops.cast(ops.convert_to_tensor(self.iterations), "int32")
            rounds = cyclic_pairs(sizes, d, step)
        slopes = [self._slopes(variable, gradient, p) for p in rounds]
        finite = self._can_be_remembered(slopes)
        directions = [
            self._adapted_in_part(place, slope, flat_places(p, d), finite)
            for slope, p in zip(slopes, rounds)
        ]
        return rounds, directions, finite

    def _adapted(self, place, derivatives, finite):
        """Directions of all pairs; moments change if all is finite."""
        slots = self._moments[place]
        old = {name: ops.convert_to_tensor(v) for name, v in slots.items()}
        new, directions = self._updated(old, derivatives)
        for name, slot in slots.items():
            self.assign(slot, ops.where(finite, new[name], old[name]))
        return directions

    def _adapted_in_part(self, place, derivatives, places, finite):
        """Directions of some pairs, by their places in a flat array."""
        slots = self._moments[place]
        if not slots:
            return derivatives
        old = {name: gather_rows(v, places) for name, v in slots.items()}
        new, directions = self._updated(old, derivatives)
        for name, slot in slots.items():
            kept = ops.where(finite, new[name], old[name])
            assign_rows(self, slot, places, kept)
        return directions

    def _updated(self, old, derivatives):
        count = ops.cast(self.iterations + 1, derivatives.dtype)
        return updated_moments(
            old, derivatives, count, self.beta_1, self.beta_2, self.epsilon
        )

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
                gather_rows(variable, j),
                gather_rows(variable, l),
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
            ops.cast(gather_rows(variable, rows), angles.dtype)
            for rows in (j, l)
        )
        delta_j, delta_l = givens.rotation_increments(r_j, r_l, angles)
        rows = ops.concatenate([r_j - delta_j, r_l - delta_l])
        rows = ops.cast(rows, variable.dtype)
        assign_rows(self, variable, ops.concatenate([j, l]), rows)

    def _within(self, pairs, dtype):
        """One for the first pairs, as many as a schedule asks for."""
        if self._fixed():
            return ops.ones((), dtype)
        places = ops.arange(pairs.shape[0], dtype="int32")
        return ops.cast(places < self._scheduled(pairs.shape[0]), dtype)

    def _fixed(self):
        return isinstance(self.block_size, (int, float, str))

    def _scheduled(self, most):
        count = self.block_size(ops.convert_to_tensor(self.iterations))
        return ops.clip(ops.cast(count, "int32"), 1, most)

    def _scale(self, place, dtype):
        if self.coordinate_scale != "unbiased":
            return ops.full((), self.coordinate_scale, dtype)
        count = sum(self._sizes[place])
        if not self._fixed():
            count = ops.cast(self._scheduled(count), dtype)
        d = trained_variables(self)[place].shape[0]
        return ops.full((), pair_total(d), dtype) / count

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


# Partial derivatives refer to the frame `{W H_jl}` of the matrix itself, so
# those of different steps are comparable as they are (math 3.6). Moments are
# kept in float32 or better: the squares of half precision would be zero or
# infinite, and so would `epsilon`.


def moment_names(adaptive, lazy):
    """Names of the moments of each pair.

    Args:
        adaptive: One of `ADAPTIVE`.
        lazy: Boolean, whether pairs are updated only when it is their turn.
            Those of `"adam"` then count their visits.

    Returns:
        Tuple of strings.
    """
    names = {None: (), "rmsprop": ("v",), "adam": ("m", "v")}[adaptive]
    return (*names, "visits") if lazy and adaptive == "adam" else names


def updated_moments(old, derivatives, count, beta_1, beta_2, epsilon):
    """New moments, and what replaces the partial derivatives.

    Args:
        old: Dict of tensors shaped as `derivatives`: `"v"`, the mean squares;
            for Adam also `"m"`, the means, and perhaps `"visits"`.
        derivatives: Tensor.
        count: Scalar tensor, the number of this update, for Adam; each pair
            has its own where `old` has visits.
        beta_1: Float, decay of the means.
        beta_2: Float, decay of the mean squares.
        epsilon: Float, added to the root mean squares.

    Returns:
        Tuple of a dict with the keys of `old`, and a tensor.
    """
    new = {"v": beta_2 * old["v"] + (1 - beta_2) * derivatives * derivatives}
    if "m" not in old:
        return new, derivatives / (ops.sqrt(new["v"]) + epsilon)
    if "visits" in old:
        count = new["visits"] = old["visits"] + 1
    new["m"] = beta_1 * old["m"] + (1 - beta_1) * derivatives
    mean = new["m"] / (1 - beta_1**count)
    root = ops.sqrt(new["v"] / (1 - beta_2**count))
    return new, mean / (root + epsilon)


# A step takes `k` of the `D = d (d - 1) / 2` pairs of rows. Disjoint pairs are
# turned together; where `k` exceeds the `d // 2` that fit, further rounds of
# disjoint pairs follow (math 3.3).


def pair_total(d):
    """The number of pairs of `d` rows."""
    return d * (d - 1) // 2


def round_sizes(block_size, d):
    """How many pairs each round of a step turns.

    Args:
        block_size: Positive integer, a number of pairs; a float in (0, 1], a
            share of all pairs; or `ROUND` or a schedule, for which there is
            one round of as many pairs as fit.
        d: Integer, at least 2, the number of rows.

    Returns:
        List of integers.

    Raises:
        ValueError: If the integer exceeds the number of pairs.
    """
    fit, total = d // 2, pair_total(d)
    if isinstance(block_size, int):
        if block_size > total:
            raise ValueError(
                "Argument `block_size` is larger than the number of pairs. "
                f"Expected at most {total} for {d} rows, Received: "
                f"block_size={block_size}"
            )
        count = block_size
    elif isinstance(block_size, float):
        count = max(1, round(block_size * total))
    else:
        count = fit
    full, rest = divmod(count, fit)
    return [fit] * full + ([rest] if rest else [])


def drawn_pairs(sizes, d, seed):
    """Pairs drawn uniformly, all different.

    Args:
        sizes: List of integers, see `round_sizes`.
        d: Integer, the number of rows.
        seed: `keras.random.SeedGenerator`.

    Returns:
        List of integer tensors `(size, 2)`.
    """
    if sizes == [1]:
        return [uniform_pair(d, seed)]
    if len(sizes) == 1:
        return [random_pairs(d, seed, sizes[0])]
    # Rounds of a tournament, of players in random order.
    draws = keras.random.uniform((d,), dtype="float32", seed=seed)
    order = ops.cast(ops.argsort(draws), "int32")
    return [
        _ordered(ops.take(order, round_robin_pairs(d, i)))[:size]
        for i, size in enumerate(sizes)
    ]


def cyclic_pairs(sizes, d, step):
    """Pairs in turn, round by round of a tournament, each equally often.

    Where a step takes less than a round, it takes the next part of it, and
    the next time that the round comes it begins where it ended. Where a step
    takes more than a round, its last one may be in part: each round is the
    last one equally often, and takes other pairs each time.

    Args:
        sizes: List of integers, see `round_sizes`.
        d: Integer, the number of rows.
        step: Integer scalar tensor, the number of the step.

    Returns:
        List of integer tensors `(size, 2)`.
    """
    fit, rounds = d // 2, round_count(d)
    if len(sizes) == 1:
        size = sizes[0]
        parts = math.ceil(fit / size)
        round, lap = step // parts, step // (parts * rounds)
        # A whole round moves on, too: a schedule takes the first of it.
        start = lap % fit
        if size < fit:
            start = (lap * parts + step % parts) % fit * size
        return [_part(round_robin_pairs(d, round), start, size)]
    # The last round of a step is the same one again after `period` steps, and
    # of the rounds only one in `common` would ever be it: move on by one.
    common = math.gcd(len(sizes), rounds)
    first = step * len(sizes)
    if common > 1:
        first = first + step // (rounds // common)
    turn = step // rounds % fit
    return [
        _part(round_robin_pairs(d, first + i), turn * size, size)
        for i, size in enumerate(sizes)
    ]


def best_pairs(direction, sizes):
    """The pairs with the largest entries, round by round.

    Each round is a greedy matching of the pairs that no round before it has.
    Where that leaves rows without a new partner, pairs of before fill up,
    with an entry of zero.

    Args:
        direction: Skew tensor `(d, d)`.
        sizes: List of integers, see `round_sizes`.

    Returns:
        List of integer tensors `(size, 2)`, the best first, and list of
        tensors `(size,)`, their entries.
    """
    if sizes == [1]:
        pairs = gauss_southwell_pair(direction)
        return [pairs], [entries(direction, pairs)]
    rounds, picked = [], []
    for size in sizes:
        if rounds:
            direction = _without(direction, rounds[-1])
        scores = ops.abs(direction)
        rounds.append(disjoint_pairs(scores, size))
        picked.append(entries(direction, rounds[-1]))
    return rounds, picked


def entries(matrix, pairs):
    """The entries `(j, l)` of a square matrix, for each pair."""
    flat = ops.reshape(matrix, (-1,))
    return ops.take(flat, flat_places(pairs, matrix.shape[0]))


def flat_places(pairs, d):
    """The places of pairs in a flat `(d * d,)` array."""
    return pairs[:, 0] * d + pairs[:, 1]


def _part(pairs, start, size):
    places = start + ops.arange(size, dtype="int32")
    return ops.take(pairs, places % pairs.shape[0], axis=0)


def _ordered(pairs):
    least, most = ops.min(pairs, axis=1), ops.max(pairs, axis=1)
    return ops.stack([least, most], axis=1)


def _without(direction, pairs):
    indices = ops.concatenate([pairs, ops.flip(pairs, axis=1)])
    zeros = ops.zeros((indices.shape[0],), direction.dtype)
    return ops.scatter_update(direction, indices, zeros)


def _check_block_size(value, selection):
    """A number of pairs, a share of them or a schedule, as plain Python."""
    value = _pairs_or_share(value)
    if selection == "all" and value != 1:
        raise ValueError(
            "Argument `block_size` is for a choice of pairs. Expected "
            'block_size=1 beside selection="all", which turns every pair, '
            f"Received: block_size={checks.shown(value)}"
        )
    return value


def _pairs_or_share(value):
    schedule = keras.optimizers.schedules.LearningRateSchedule
    if isinstance(value, schedule) or _is_round(value):
        return value
    if checks.is_integer(value):
        return checks.integer("block_size", value, minimum=1)
    return checks.number(
        "block_size",
        value,
        minimum=checks.SMALLEST,
        maximum=1.0,
        must='be a positive integer, a float in (0, 1], "round" or a '
        "`LearningRateSchedule`",
    )


def _is_round(value):
    return isinstance(value, str) and value == ROUND


def _check_coordinate_scale(value, selection):
    """A positive float, or `"unbiased"` where a factor makes it so."""
    if not isinstance(value, str) or value != "unbiased":
        return checks.number(
            "coordinate_scale",
            value,
            minimum=checks.SMALLEST,
            maximum=checks.LARGEST,
            must='be a positive number or "unbiased"',
        )
    if selection == "greedy":
        raise ValueError(
            "No factor makes the largest coordinates unbiased. Expected a "
            'number, or another `selection`, Received: coordinate_scale="'
            'unbiased", selection="greedy"'
        )
    return value

"""Descent in blocks: one algorithm, several providers of curvature."""

import random

from keras import ops

from tf_spectral import checks
from tf_spectral.backend.keras_internals import decays
from tf_spectral.backend.keras_internals import place_of
from tf_spectral.backend.keras_internals import trained_variables
from tf_spectral.backend.precision import working_dtype
from tf_spectral.linalg.norms import duality_map
from tf_spectral.optimizers.base import IterationSeed
from tf_spectral.optimizers.base import JointOptimizer
from tf_spectral.optimizers.base import all_finite
from tf_spectral.optimizers.base import warn_of_skipped_steps
from tf_spectral.optimizers.block_steps import POLAR_ACCURACIES
from tf_spectral.optimizers.block_steps import SELECTIONS
from tf_spectral.optimizers.block_steps import block_steps
from tf_spectral.optimizers.block_steps import chosen_blocks
from tf_spectral.optimizers.block_steps import one_of
from tf_spectral.optimizers.block_steps import step_scales
from tf_spectral.optimizers.measured_curvature import MeasuredCurvature
from tf_spectral.optimizers.measured_steps import LONGEST


class BlockDescent(JointOptimizer):
    """Base of `DSGD` and `SpectralDescent`.

    A step measures each block's gradient in the dual norm, chooses, and moves
    what is chosen by the duality map over the block's curvature. A subclass
    says where curvatures come from, by `make_curvature(variables)`: they are
    known before the step (`Curvature`) or come out of the steps themselves
    (`MeasuredCurvature`).

    Args:
        learning_rate: Float, schedule or callable.
        norm: `1`, `2` or `"inf"`.
        selection: `"greedy"`, `"all"`, `"random"` or `"cyclic"`.
        polar_accuracy: `"standard"`, `"fast"` or `"exact"`.
        seed: Integer for `"random"`, or `None` for a random one.
        **kwargs: Those of every Keras optimizer.
    """

    def __init__(
        self, learning_rate, norm, selection, polar_accuracy, seed, **kwargs
    ):
        kwargs = checks.optimizer_options(kwargs)
        norm = checks.norm("norm", norm)
        selection = checks.choice("selection", selection, SELECTIONS)
        if selection == "greedy" and kwargs.get("clipnorm"):
            raise ValueError(
                "`clipnorm` gives all gradients the same norm, and greedy "
                "selection compares them. Expected clipnorm=None or another "
                "`selection`, or `global_clipnorm`, Received: "
                f"clipnorm={kwargs['clipnorm']}"
            )
        polar_accuracy = checks.choice(
            "polar_accuracy", polar_accuracy, POLAR_ACCURACIES
        )
        seed = checks.seed("seed", seed)
        super().__init__(learning_rate, **kwargs)
        self.norm = norm
        self.selection = selection
        self.polar_accuracy = polar_accuracy
        self.seed = random.randrange(checks.SEEDS) if seed is None else seed

    @property
    def step_length(self):
        """Variable, the length of measured steps."""
        if not self.built or not self.measures:
            raise AttributeError(
                "`step_length` is of measured steps, once they are built. "
                "Expected an optimizer that measures its steps and has "
                f"variables, Received: {type(self).__name__} with "
                f"{self.get_config()}, built={self.built}"
            )
        return self._values["length"]

    def make_curvature(self, variables):
        """The provider for these variables; raises if it does not fit them."""
        raise NotImplementedError

    def build(self, variables):
        # Keras' reader of `.h5` files first builds without any.
        if self.built or not variables:
            return
        dtypes = {working_dtype(v.dtype) for v in variables}
        self._dtype = "float64" if dtypes == {"float64"} else "float32"
        self._curvature = self.make_curvature(variables)
        self.measures = isinstance(self._curvature, MeasuredCurvature)
        super().build(variables)
        slots = self._curvature.slots()
        self._values = {name: self._add(name, *s) for name, s in slots.items()}
        self._scales = self._add("scales", (len(variables),), self._dtype)
        self.skipped_steps = self._add("skipped_steps", (), "int32")
        self._seed = IterationSeed(self.seed, lambda: self.iterations)

    def _add(self, name, shape, dtype, initial=None):
        def value(shape, dtype):
            # Called where the variable is made, maybe out of an open graph.
            return ops.convert_to_tensor(initial, dtype)

        return self.add_variable(
            shape,
            initializer="zeros" if initial is None else value,
            dtype=dtype,
            # Every replica knows the same: what the sum over them gives.
            aggregation="only_first_replica",
            name=name,
        )

    def joint_step(self, gradients, variables, learning_rate):
        places = [place_of(self, v) for v in variables]
        blocks = [None] * len(trained_variables(self))
        for place, gradient in zip(places, gradients):
            # Slices of an embedding that became one tensor forgot its shape.
            shape = trained_variables(self)[place].shape
            gradient = ops.reshape(gradient, shape)
            # In half precision a polar factor would be longer than one, and
            # a step as long as its certificate may be no number.
            blocks[place] = ops.cast(gradient, working_dtype(gradient.dtype))
        rate = ops.cast(learning_rate, self._dtype)
        step = self._measured_step if self.measures else self._bounded_step
        directions = step(blocks, rate)
        return [directions[i] for i in places]

    def _bounded_step(self, blocks, rate):
        """Directions by curvatures that are known before a step."""
        blocks, metrics, finite = self.remember(blocks)
        known = self._curvature.measure(
            self._known_values(),
            blocks,
            trained_variables(self),
            self.iterations,
        )
        steps = block_steps(
            blocks,
            known.curvature,
            self.norm,
            self._chosen(len(blocks)),
            self.polar_accuracy,
        )
        scales, lengths = step_scales(
            steps, rate, known.curvature, known.longest
        )
        moved = self._settle(scales, steps.chosen, finite)
        lengths = ops.where(moved, lengths, ops.zeros_like(lengths))
        self._keep(self._curvature.after(known.kept, lengths, moved))
        self.note(steps.dual_norms, known.curvature, moved)
        return [
            x if a is None else x / a for x, a in zip(steps.directions, metrics)
        ]

    def _measured_step(self, blocks, rate):
        """Directions whose length was measured at the steps before."""
        values = self._known_values()
        steps = self._curvature.steps(
            values, blocks, trained_variables(self), self.iterations, rate
        )
        chosen = self._chosen(len(blocks))
        if isinstance(chosen, str):
            chosen = one_of(len(blocks), ops.argmax(steps.gains))
        finite = ops.logical_and(all_finite(blocks), steps.are_finite())
        # Whatever the rate: a weight that doubles at each step is soon none.
        share = ops.minimum(rate * steps.length, LONGEST)
        scales = share * ops.ones_like(steps.gains)
        moved = self._settle(scales, chosen, finite)
        self._keep(self._curvature.after(values, steps, chosen, finite))
        roots = ops.sqrt(ops.maximum(steps.gains, 0.0))
        self.note(roots, ops.ones_like(roots) / steps.length, moved)
        return steps.directions

    def _known_values(self):
        return {
            name: ops.convert_to_tensor(v) for name, v in self._values.items()
        }

    def _chosen(self, n):
        return chosen_blocks(self.selection, n, self.iterations, self._seed)

    def _settle(self, scales, chosen, finite):
        """Leaves scales to `update_step`; which blocks are to move."""
        moved = ops.logical_and(chosen, finite)
        self._scales.assign(ops.where(moved, scales, ops.zeros_like(scales)))
        self.skipped_steps.assign_add(1 - ops.cast(finite, "int32"))
        return moved

    def remember(self, blocks):
        """What to step along, by what is known of earlier gradients.

        Args:
            blocks: List of gradients, or `None` where a block has none.

        Returns:
            Tuple of a list of the same kind; a list of the weights `A` of the
            norms `||A * step||` in which steps are measured, or `None`s; and a
            boolean scalar, whether anything is to move.
        """
        return blocks, [None] * len(blocks), all_finite(blocks)

    def note(self, dual_norms, curvature, moved):
        """Takes down what a step was like; tensors `(n,)`."""

    def _keep(self, values):
        for name, value in values.items():
            self._values[name].assign(value)

    def update_step(self, gradient, variable, learning_rate):
        # The scale knows the learning rate.
        place = place_of(self, variable)
        scale = ops.convert_to_tensor(self._scales)[place]

        def update():
            step = gradient
            if self.measures and decays(self, trained_variables(self)[place]):
                value = ops.convert_to_tensor(variable)
                step = step + self.weight_decay * ops.cast(value, step.dtype)
            elif self.norm != 2 and not self.measures:
                step = duality_map(gradient, self.norm)
            return ops.cast(scale, step.dtype) * step

        self.assign_sub_if(ops.not_equal(scale, 0), variable, update)

    def decayed(self, variables):
        # Measured steps take care of it themselves: by their own length.
        return [] if self.measures else variables

    def finalize_variable_values(self, var_list):
        super().finalize_variable_values(var_list)
        warn_of_skipped_steps(self)
        if self.use_ema:
            # The averages are the weights now.
            self._keep(self._curvature.anew(trained_variables(self)))

    def get_config(self):
        return {
            **super().get_config(),
            "selection": self.selection,
            "polar_accuracy": self.polar_accuracy,
            "seed": self.seed,
        }

"""LipschitzEstimator: measures the constants that spectral descent needs."""

import math
import warnings

import keras
import numpy as np
from keras import callbacks
from keras import ops

from tf_spectral import checks
from tf_spectral.backend.gradients import compiled_gradient
from tf_spectral.backend.precision import working_dtype
from tf_spectral.bounds.recurrent_network import TIERS
from tf_spectral.callbacks.monitor import short_variable_names
from tf_spectral.callbacks.networks import check_chain
from tf_spectral.callbacks.networks import labels
from tf_spectral.callbacks.networks import softmax_network
from tf_spectral.optimizers.block_steps import block_steps
from tf_spectral.optimizers.spectral_descent import SpectralDescent

# Relative changes of a loss that rounding hides: float32, half precision.
_RESOLUTION, _HALF_RESOLUTION = 1e-6, 1e-2
_FALL = 2.0**-0.25
_MAX_DOUBLINGS = 40


class LipschitzEstimator(callbacks.Callback):
    """Measures Lipschitz constants during `fit` and sets the optimizer's.

    For a model trained by `tf_spectral.optimizers.SpectralDescent` with
    `lipschitz="bound"`. The model is a chain of layers:

    - maybe an `Embedding`, one `SimpleRNN` (or `SpectralRNN`,
      `OrthogonalRNN`) with a smooth activation, a `Dense` softmax at all
      steps or at the last one: `tf_spectral.bounds.rnn_lipschitz_constants`
      knows all but the reflectors and singular values of a `SpectralRNN`. An
      embedding has the constant of the bias times the squared norm of the
      input kernel;
    - `Dense`, `SpectralDense`, convolutions and layers that do the same in
      training as without (activations, pooling, `LayerNormalization`,
      `Flatten`, `Reshape`), a `Dense` softmax: only the constants of this last
      layer are known, exactly: the mean squared length of its inputs, and one
      for its bias.

    The loss is the mean cross-entropy. Weights of which no constant is known
    must get a number from the optimizer's `lipschitz`, or be frozen.

    The constants are those of `(x, y)`, which stands for all data, and of the
    weights at the time, without constraints and regularizers. They are set
    before the first batch and before each `every`-th one after it. The logs
    of an epoch get `lipschitz/<weight>`, the constants then in use. A training
    that goes on from a backup measures anew: bit for bit as if it had not
    stopped if `every` divides the batches of an epoch and there is no
    backtracking.

    Args:
        x: Inputs of the model, one batch.
        y: Targets of the batch. `None` where they are not needed. Defaults
            to `None`.
        every: Positive integer, the number of batches between measurements.
            Defaults to `100`.
        tier: `"vector"`, `"tensor"`, `"global"` or `"paper"`, see
            `rnn_lipschitz_constants`. With `"global"` and `y`, steps of the
            recurrent kernel also get the best radius for its gradient on
            `(x, y)`; without `y` steps are inside the region of the constant
            for a learning rate up to `safety`. Feed-forward models have but
            one tier. Defaults to `"vector"`.
        safety: Positive number that constants are multiplied by: local tiers
            hold to second order, and for the weights at the time. Defaults
            to `2.0`.
        backtracking: Boolean. If true, `safety` is a start: each weight has a
            factor of its own, doubled as long as a step by the full gradient
            on `(x, y)` lowers the loss by less than half of what it should,
            and lowered by the fourth root of two at each measurement. Needs
            `y`; each measurement takes a gradient and a few evaluations of
            the loss per weight. Defaults to `False`.
        residual: Boolean, whether a local tier uses the labels, for sharper
            constants. Needs `y`. Defaults to `False`.

    Attributes:
        history: Dict of lists: `"batch"`, how many batches were done at each
            measurement, and the names in the logs.

    Raises:
        ValueError: If an argument is out of range, and when training begins
            if the optimizer or a layer does not fit, or a weight has no known
            constant.

    Example:

    >>> import keras
    >>> import numpy as np
    >>> from tf_spectral.callbacks import LipschitzEstimator
    >>> from tf_spectral.optimizers import SpectralDescent
    >>> model = keras.Sequential(
    ...     [keras.Input((4,)), keras.layers.Dense(3, "softmax", name="head")]
    ... )
    >>> x, y = np.ones((8, 4), "float32"), np.zeros((8,), "int32")
    >>> optimizer = SpectralDescent(lipschitz="bound")
    >>> model.compile(optimizer, "sparse_categorical_crossentropy")
    >>> estimator = LipschitzEstimator(x, safety=1.0)
    >>> history = model.fit(x, y, callbacks=[estimator], verbose=0).history
    >>> history["lipschitz/head/kernel"]
    [4.0]

    Reference: Liu, Hsieh and Cevher, "A novel optimization method for
    recurrent neural network by non-Euclidean geometry", corrected.
    """

    def __init__(
        self,
        x,
        y=None,
        every=100,
        tier="vector",
        safety=2.0,
        backtracking=False,
        residual=False,
    ):
        every = checks.integer("every", every, minimum=1)
        tier = checks.choice("tier", tier, TIERS)
        safety = checks.positive("safety", safety)
        backtracking = checks.boolean("backtracking", backtracking)
        residual = checks.boolean("residual", residual)
        if y is None and (backtracking or residual):
            raise ValueError(
                "Argument `y` is missing. Expected targets with "
                f"`backtracking` and with `residual`, Received: y=None, "
                f"backtracking={backtracking}, residual={residual}"
            )
        if residual and tier not in ("vector", "tensor"):
            raise ValueError(
                "Argument `residual` is for the local tiers. Expected "
                f'tier="vector" or "tensor", Received: tier={tier!r}'
            )
        super().__init__()
        self.x = checks.data("x", x)
        self.y = None if y is None else checks.data("y", y)
        self.every, self.tier, self.safety = every, tier, safety
        self.backtracking, self.residual = backtracking, residual
        self.history = {}

    def on_train_begin(self, logs=None):
        model = self.model
        optimizer = _spectral_descent(model)
        if not model.built:
            model(self.x)
        if not optimizer.built:
            optimizer.build(model.trainable_variables)
        self._network = softmax_network(model)
        check_chain(self._network, model, self.x)
        self._places = _known_places(self._network, optimizer, model)
        names = short_variable_names(model.trainable_variables)
        self._names = {i: f"lipschitz/{names[i]}" for i in self._places}
        self._factors = dict.fromkeys(self._places, self.safety)
        self._trials, self._warned = None, False
        if self._needs_gradient():
            self._trials = CertifiedSteps(
                model, self.x, self.y, optimizer.polar_accuracy
            )
        self._done, self._next = 0, 0

    def on_epoch_begin(self, epoch, logs=None):
        self._before = self._done

    def on_train_batch_begin(self, batch, logs=None):
        # Not when training begins: a backup may be restored after that.
        if self._done >= self._next:
            self._measure()
            self._next = self._done + self.every

    def on_train_batch_end(self, batch, logs=None):
        # Of an execution of several steps, this is the last one.
        self._done = self._before + batch + 1

    def on_epoch_end(self, epoch, logs=None):
        if logs is not None:
            logs.update(self._logged)

    def _needs_gradient(self):
        kernel = self._network.recurrent_kernel
        places = {id(v): i for i, v in enumerate(self.model.trainable_weights)}
        self._kernel_place = places.get(id(kernel))
        self._in_region = (
            self.tier == "global"
            and self.y is not None
            and self._kernel_place in self._places
        )
        return self.backtracking or self._in_region

    def _measure(self):
        # On JAX asking for the model fetches its weights from the training.
        model = self.model
        if self._trials is not None:
            self._trials.refresh()
        radii = self._radii()
        y = labels(model, self._network, self.y) if self.residual else None
        values = self._network.constants(
            self.x,
            y,
            tier=self.tier,
            residual=self.residual,
            radius=radii.get(self._kernel_place),
        )
        values = [float(ops.convert_to_numpy(value)) for value in values]
        known = dict(zip(map(id, self._network.weights()), values))
        constants, infinite = {}, []
        for place in self._places:
            variable = model.trainable_variables[place]
            value = known[id(variable)]
            if not math.isfinite(value):
                infinite.append(variable.path)
            # Zero if the loss does not depend on it: nothing to be gained.
            constants[place] = value if value > 0 else math.inf
        self._warn_of_overflow(infinite)
        if self.backtracking:
            self._update_factors(constants, radii)
        constants = {i: self._factors[i] * v for i, v in constants.items()}
        # Where there is no region, none of an earlier training stays.
        radii = {**dict.fromkeys(constants, math.inf), **radii}
        _spectral_descent(model).set_constants(constants, radii)
        self._log(constants)

    def _warn_of_overflow(self, paths):
        if paths and not self._warned:
            self._warned = True
            warnings.warn(
                f"The constants of {paths} overflow or are not numbers: these "
                "weights stay as they are. Shorter sequences, smaller weights "
                f"or another tier help, Received: tier={self.tier!r}",
                stacklevel=2,
            )

    def _radii(self):
        """The best radius of the recurrent kernel, if it is asked for."""
        if not self._in_region:
            return {}
        norm = self._trials.dual_norm(self._kernel_place)
        radius = self._network.trust_region(self.x, norm)
        return {self._kernel_place: float(ops.convert_to_numpy(radius))}

    def _update_factors(self, constants, radii):
        for place, constant in constants.items():
            self._factors[place] = self._trials.certified_factor(
                place,
                constant,
                self._factors[place],
                radii.get(place, math.inf),
            )

    def _log(self, constants):
        self._logged = {self._names[i]: v for i, v in constants.items()}
        for key, value in {"batch": self._done, **self._logged}.items():
            self.history.setdefault(key, []).append(value)


def _spectral_descent(model):
    optimizer = model.optimizer
    # Mixed precision wraps it in a LossScaleOptimizer.
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    if not isinstance(optimizer, SpectralDescent):
        raise ValueError(
            "The model's optimizer has no Lipschitz constants to set. "
            'Expected optimizer=SpectralDescent(lipschitz="bound"), Received: '
            f"optimizer={optimizer}"
        )
    return optimizer


def _known_places(network, optimizer, model):
    """Places of the weights to measure; raises if one cannot be."""
    places = optimizer.bounded_weights
    known = {id(v) for v in network.weights()}
    variables = model.trainable_variables
    unknown = [
        variables[i].path for i in places if id(variables[i]) not in known
    ]
    if not places:
        raise ValueError(
            "The optimizer leaves no constant to be measured. Expected "
            'lipschitz="bound", or "bound" for some weights, Received: '
            f"lipschitz={optimizer.lipschitz}"
        )
    if unknown:
        raise ValueError(
            "The optimizer leaves constants to be measured that no theory "
            "gives. Expected numbers for these weights, as in lipschitz="
            f'{{"{unknown[0]}": 1.0, "default": "bound"}}, or that they are '
            f"frozen (trainable=False), Received: {unknown}"
        )
    return places


class CertifiedSteps:
    """Gradients of a model's loss on a batch, and trials of steps.

    The loss is that of `compile` without regularization, the model runs as
    at inference.

    Args:
        model: Compiled and built Keras model.
        x: Inputs, one batch.
        y: Targets.
        accuracy: Key of `POLAR_ACCURACIES`, that of the optimizer.
    """

    def __init__(self, model, x, y, accuracy):
        self._model = model
        self._data = [ops.convert_to_tensor(x), ops.convert_to_tensor(y)]
        self._accuracy = accuracy
        self._variables = list(model.trainable_variables)
        self._ends = np.cumsum([math.prod(v.shape) for v in self._variables])
        dtypes = {working_dtype(v.dtype) for v in self._variables}
        self._dtype = "float64" if "float64" in dtypes else "float32"
        half = working_dtype(model.compute_dtype) != model.compute_dtype
        self._resolution = _HALF_RESOLUTION if half else _RESOLUTION
        loss = keras.losses.get(model.loss)
        others = list(model.non_trainable_variables)

        def energy(point, values, x, y):
            pairs = [*zip(self._variables, self._split(point))]
            pairs += zip(others, values)
            with keras.StatelessScope(state_mapping=pairs):
                outputs = model(x, training=False)
            return ops.cast(ops.mean(loss(y, outputs)), self._dtype)

        def scaled(factor, *arguments):
            return factor * energy(*arguments)

        self._others = others
        self._energy_gradient = compiled_gradient(energy, [])
        # The derivative by the factor is the energy.
        self._energy = compiled_gradient(scaled, [])

    def _split(self, point):
        return [
            ops.cast(ops.reshape(part, v.shape), v.dtype)
            for part, v in zip(
                ops.split(point, self._ends[:-1].tolist()), self._variables
            )
        ]

    def _arguments(self):
        values = [ops.convert_to_tensor(v) for v in self._others]
        return [values, *self._data]

    def refresh(self):
        """Reads the weights of the model; call before the others."""
        flat = [ops.reshape(v, (-1,)) for v in self._variables]
        flat = [ops.cast(part, self._dtype) for part in flat]
        self._point = ops.concatenate(flat)
        gradient = self._energy_gradient(self._point, *self._arguments())
        n = (len(self._variables),)
        self._blocks = block_steps(
            self._split(gradient),
            ops.ones(n, self._dtype),
            2,
            ops.ones(n, "bool"),
            self._accuracy,
        )
        self._start = self._loss(self._point)

    def dual_norm(self, place):
        """The nuclear, or Euclidean, norm of a weight's gradient."""
        return float(ops.convert_to_numpy(self._blocks.dual_norms[place]))

    def certified_factor(self, place, constant, factor, radius):
        """The factor of a constant with which a step keeps its promise.

        A step of the length `eta = min(radius, ||G||_* / L)` is to lower the
        loss by `eta ||G||_* / 4`, half of what a true constant `L` promises
        (math 5.7). A factor a little below the last one is doubled as long as
        its step does not.

        Args:
            place: Integer, which of the trainable variables.
            constant: Positive float, what the factor multiplies.
            factor: Positive float, the last one.
            radius: Positive float.

        Returns:
            Positive float; `factor` if rounding hides what would be seen.
        """
        dual = self.dual_norm(place)
        if not dual > 0 or not math.isfinite(constant * dual):
            return factor
        trial = factor * _FALL
        for count in range(_MAX_DOUBLINGS):
            length = min(radius, dual / (trial * constant))
            gain = length * dual / 4
            if not gain > self._resolution * abs(self._start):
                return trial if count else factor
            if self._loss(self._moved(place, length)) <= self._start - gain:
                return trial
            trial *= 2
        return trial

    def _moved(self, place, length):
        """The weights after a step of a length."""
        steps = self._blocks
        scale = length * steps.factors[place] / steps.dual_norms[place]
        step = ops.cast(steps.directions[place], self._dtype) * scale
        end = int(self._ends[place])
        start = end - math.prod(step.shape)
        # Numpy changes a part of it on every backend.
        point = np.array(ops.convert_to_numpy(self._point))
        point[start:end] -= ops.convert_to_numpy(step).ravel()
        return ops.convert_to_tensor(point)

    def _loss(self, point):
        one = ops.ones((), self._dtype)
        value = self._energy(one, point, *self._arguments())
        return float(ops.convert_to_numpy(value))

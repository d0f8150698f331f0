"""GeneralizationMonitor: the bound of Zhang et al., 2018, epoch by epoch."""

import math

import numpy as np
from keras import ops

from tf_spectral import checks
from tf_spectral.bounds.generalization import check_confidence
from tf_spectral.bounds.generalization import generalization_bound
from tf_spectral.bounds.generalization import log_gradient_bound
from tf_spectral.callbacks.monitor import EpochMonitor
from tf_spectral.callbacks.networks import RecurrentClassifier
from tf_spectral.callbacks.networks import class_ids
from tf_spectral.callbacks.networks import class_margins


class GeneralizationMonitor(EpochMonitor):
    """Writes the generalization bound of a recurrent classifier to the logs.

    The model is a chain of layers: maybe some without trained weights, one
    `SpectralRNN`, `OrthogonalRNN` or `SimpleRNN` that returns its last
    output, and a `Dense` layer, the classifier (with one unit: of two
    classes). The logs of an epoch get

    - `generalization/log_complexity`, `generalization/log_gap` and
      `generalization/gap`, see `tf_spectral.bounds.generalization_bound`
      (infinite if the margin is not positive),
    - `generalization/log_gradient_bound`, of the last state by the first, see
      `tf_spectral.bounds.log_gradient_bound`, for an activation of slope up
      to 1,
    - `generalization/margin`, the margin that the bound is for,
    - `generalization/margin_error`, the share of `x` with a margin up to it.
      The theorem bounds the error by this share, over the training set, plus
      the gap.

    The margin of an example is the logit of its class less the largest other
    one. Put this callback before `CSVLogger` and others that read the logs.

    Args:
        x: Inputs of the model, one batch of the training set.
        y: Class ids `(batch,)` or `(batch, 1)`, or one-hot rows `(batch,
            classes)`.
        margin: Positive float, or `None` for the `quantile` of the margins on
            the batch. Defaults to `None`.
        quantile: Float between 0 and 1, used if `margin` is `None`. Defaults
            to `0.1`.
        examples: Positive integer, the size of the training set, or `None`
            for that of the batch. Defaults to `None`.
        input_bound: Positive float, the largest norm of an input of the
            recurrent layer at one step, or `None` for that in the batch.
            Defaults to `None`.
        confidence: Float between 0 and 1. Defaults to `0.95`.
        every: Positive integer `k`: measure at the end of every k-th epoch.
            In between the logs repeat the last measured values. Defaults to
            `1`.

    Attributes:
        history: Dict of lists: `"epoch"` has the epochs at which the model
            was measured, from -1 (before the first training) on, and each of
            the names above its values at them.

    Raises:
        ValueError: If an argument is out of range, and when training begins
            if the model is no such chain or `y` does not fit it.

    Example:

    >>> import keras
    >>> import numpy as np
    >>> from tf_spectral.callbacks import GeneralizationMonitor
    >>> from tf_spectral.layers import SpectralRNN
    >>> model = keras.Sequential([SpectralRNN(8), keras.layers.Dense(3)])
    >>> model.compile(
    ...     "adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    ... )
    >>> x, y = np.random.rand(6, 5, 2), np.array([0, 1, 2, 0, 1, 2])
    >>> monitor = GeneralizationMonitor(x, y, examples=1000, margin=1.0)
    >>> history = model.fit(x, y, callbacks=[monitor], verbose=0).history
    >>> len(history["generalization/log_complexity"])
    1

    Reference: Zhang et al., "Stabilizing Gradients for Deep Neural Networks
    via Efficient SVD Parameterization", 2018, Theorem 5.
    """

    def __init__(
        self,
        x,
        y,
        margin=None,
        quantile=0.1,
        examples=None,
        input_bound=None,
        confidence=0.95,
        every=1,
    ):
        super().__init__(every)
        if margin is not None:
            margin = checks.positive("margin", margin)
        if input_bound is not None:
            input_bound = checks.positive("input_bound", input_bound)
        if isinstance(y, (list, tuple)) and all(np.ndim(v) == 0 for v in y):
            y = np.asarray(y)  # labels as a list
        if examples is None:
            examples = len(checks.data("y", y))
        self.x, self.y = checks.data("x", x), checks.data("y", y)
        self.margin = margin
        self.quantile = checks.number(
            "quantile",
            quantile,
            minimum=0.0,
            maximum=1.0,
            must="be a number between 0 and 1",
        )
        self.examples = checks.integer("examples", examples, minimum=1)
        self.input_bound = input_bound
        self.confidence = check_confidence(confidence)
        self.history = {}

    def prepare(self):
        if not self.model.built:
            self.model(self.x)
        self._network = RecurrentClassifier(self.model)
        self._network.check_chain(self.x)
        logits = self._network.logits(self._network.inputs(self.x))
        self._classes = class_ids(self.y, *logits.shape)

    def measure(self, epoch):
        logs = {f"generalization/{k}": v for k, v in self._values().items()}
        for key, value in {"epoch": epoch, **logs}.items():
            self.history.setdefault(key, []).append(value)
        return logs

    def _values(self):
        network = self._network
        inputs = network.inputs(self.x)
        margins = class_margins(network.logits(inputs), self._classes)
        margin = self.margin
        if margin is None:
            margin = float(np.quantile(margins, self.quantile))
        kernels, steps = network.kernels(), inputs.shape[1]
        values = dict.fromkeys(("log_complexity", "log_gap"), math.inf)
        if margin > 0:
            values = generalization_bound(
                *kernels,
                input_bound=self.input_bound or _largest_norm(inputs),
                steps=steps,
                margin=margin,
                examples=self.examples,
                confidence=self.confidence,
            )
        gradient = 0.0
        if steps > 1:
            gradient = log_gradient_bound(kernels[1], steps - 1)
        values = {"gap": math.inf, **values, "log_gradient_bound": gradient}
        return {
            **{k: float(ops.convert_to_numpy(v)) for k, v in values.items()},
            "margin": margin,
            "margin_error": float(np.mean(margins <= margin)),
        }


def _largest_norm(inputs):
    inputs = ops.convert_to_numpy(inputs).astype("float64")
    return float(np.linalg.norm(inputs, axis=-1).max())

"""SpectrumMonitor: how orthogonal the weights of a model are, epoch by epoch.

Zhang et al., 2018, Figure 4, left.
"""

import numpy as np
from keras import ops

from tf_spectral.backend.keras_internals import layers_within
from tf_spectral.backend.keras_internals import own_variables
from tf_spectral.backend.precision import working_dtype
from tf_spectral.callbacks.monitor import EpochMonitor
from tf_spectral.callbacks.monitor import short_names
from tf_spectral.constraints import Orthogonal
from tf_spectral.linalg.householder import householder_product
from tf_spectral.linalg.orthogonal import orthogonality_error
from tf_spectral.parametrizations.svd import SVD


class SpectrumMonitor(EpochMonitor):
    """Writes the spectra of all spectral and orthogonal weights into the logs.

    For each `tf_spectral.parametrizations.SVD` or `Orthogonal` in the model,
    and each weight under `tf_spectral.constraints.Orthogonal`, however deep
    (in cells, stacked cells, wrappers, nested models), the logs of an epoch
    get

    - `<name>/sigma_min` and `<name>/sigma_max`, the extreme singular values,
    - `<name>/spectral_margin`, `max_i |sigma_i - 1|` of the singular values,
    - `<name>/orthogonality_error`, `||Q^T Q - I||_2` of the computed factors
      U and V, or of the weight under the constraint (`Q Q^T` if it is wide,
      the worst of its blocks): see `tf_spectral.linalg.orthogonal`.

    `<name>` is the name of the model's layer that the weight is in, with the
    names of the layers within it, and of the weight, as far as it takes to
    tell two weights apart, as in `bidirectional/forward_rnn`. It rests on
    these names alone and so survives saving and loading.

    Callbacks run in the order in which they are given and share one dict of
    logs: put this one before `CSVLogger`, `TensorBoard`, `EarlyStopping` and
    whatever else shall see its values. `History`, which Keras appends, comes
    last by itself.

    Args:
        every: Positive integer `k`: measure at the end of every k-th epoch.
            In between the logs repeat the last measured values, so that each
            epoch has every column. Defaults to `1`.

    Attributes:
        history: Dict of lists: `"epoch"` has the epochs at which the model
            was measured, from -1 (before the first training; of a model
            that its first batch builds, from 0) on, and each of the names
            above its values at them.

    Raises:
        ValueError: If `every` is no positive integer, and in training, once
            the model is built, if it has no such weight.

    Example:

    >>> import keras
    >>> import numpy as np
    >>> from tf_spectral.callbacks import SpectrumMonitor
    >>> from tf_spectral.layers import SpectralRNN
    >>> rnn = SpectralRNN(8, name="rnn")
    >>> model = keras.Sequential([rnn, keras.layers.Dense(1)])
    >>> model.compile("adam", "mse")
    >>> x, y = np.ones((4, 5, 2), "float32"), np.ones((4, 1), "float32")
    >>> history = model.fit(x, y, callbacks=[SpectrumMonitor()], verbose=0)
    >>> "rnn/spectral_margin" in history.history
    True

    Reference: Zhang et al., "Stabilizing Gradients for Deep Neural Networks
    via Efficient SVD Parameterization", 2018, section 7.
    """

    def __init__(self, every=1):
        super().__init__(every)
        self.history = {}
        self._weights = {}

    def prepare(self):
        # The first batch of a model without an Input makes weights.
        self._weights = {}
        if self.model.built:
            self._find()

    def _find(self):
        self._weights = spectral_weights(self.model)
        if not self._weights:
            raise ValueError(
                "The model has no weight to monitor. Expected at least one "
                "`tf_spectral.parametrizations.SVD` in its layers, or a weight "
                "under `tf_spectral.constraints.Orthogonal`, Received: "
                f"model={self.model.name}"
            )

    def measure(self, epoch):
        if not self.model.built:
            return None
        if not self._weights:
            self._find()
        logs = {
            f"{name}/{quantity}": value
            for name, measure in self._weights.items()
            for quantity, value in measure().items()
        }
        for key, value in {"epoch": epoch, **logs}.items():
            self.history.setdefault(key, []).append(value)
        return logs


def spectral_weights(model):
    """A function that measures, for each weight with a known spectrum.

    Args:
        model: Keras model or layer.

    Returns:
        Dict from the unique name of each weight to a function without
        arguments that returns a dict of floats.
    """
    paths, measures = [], []
    for path, layer in [((model.name,), model), *_walk(model)]:
        for suffix, measure in (*_parametrized(layer), *_constrained(layer)):
            paths.append(path + suffix)
            measures.append(measure)
    return dict(zip(short_names(paths), measures))


def _parametrized(layer):
    """Pairs `(end of the path, measure)` of the weights of a layer."""
    if isinstance(layer, SVD):
        yield (), lambda: _measure_svd(layer)


def _constrained(layer):
    """The same of the weights that are kept orthogonal by a constraint."""
    for variable in own_variables(layer):
        if isinstance(variable.constraint, Orthogonal):
            yield (variable.name,), lambda v=variable: _measure_constrained(v)


def _measure_svd(svd):
    sigma = ops.convert_to_numpy(svd.singular_values())
    factors = map(householder_product, (svd.u_vectors(), svd.v_vectors()))
    return {
        "sigma_min": float(sigma.min()),
        "sigma_max": float(sigma.max()),
        "spectral_margin": float(abs(sigma - 1).max()),
        "orthogonality_error": max(
            float(ops.convert_to_numpy(orthogonality_error(q, exact=True)))
            for q in factors
        ),
    }


def _measure_constrained(variable):
    sigma, errors = [], []
    for matrix in variable.constraint.matrices(variable):
        q = ops.convert_to_numpy(ops.cast(matrix, working_dtype(matrix.dtype)))
        q = q.astype("float64")
        q = q.T if q.shape[0] < q.shape[1] else q
        sigma.append(np.linalg.svd(q, compute_uv=False))
        errors.append(
            float(ops.convert_to_numpy(orthogonality_error(matrix, exact=True)))
        )
    sigma = np.concatenate(sigma)
    return {
        "sigma_min": float(sigma.min()),
        "sigma_max": float(sigma.max()),
        "spectral_margin": float(abs(sigma - 1).max()),
        "orthogonality_error": max(errors),
    }


def _walk(layer, path=(), seen=None):
    """Pairs `(names on the way, layer)` of all layers, each layer once."""
    seen = set() if seen is None else seen
    for child in layers_within(layer, include_self=False, recursive=False):
        if id(child) not in seen:
            seen.add(id(child))
            yield path + (child.name,), child
            yield from _walk(child, path + (child.name,), seen)

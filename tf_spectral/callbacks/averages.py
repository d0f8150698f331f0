"""OrthogonalAverages: leads averaged weights back to the orthogonal group."""

import keras

from tf_spectral.constraints import Orthogonal
from tf_spectral.linalg.orthogonal import seems_orthogonal


class OrthogonalAverages(keras.callbacks.Callback):
    """Makes averages of orthogonal weights orthogonal, for any optimizer.

    The mean of orthogonal matrices is not orthogonal, and Keras writes it
    into the weights without applying their constraint: at the end of `fit`
    with `use_ema=True`, and before each evaluation with
    `keras.callbacks.SwapEMAWeights`. This callback then applies
    `tf_spectral.constraints.Orthogonal` where it is due. Put it behind
    `SwapEMAWeights` in the list.

    The optimizers of this library keep their averages orthogonal by
    themselves and need no callback.

    Example:

    >>> import keras
    >>> import numpy as np
    >>> from tf_spectral.callbacks import OrthogonalAverages
    >>> from tf_spectral.constraints import Orthogonal
    >>> model = keras.Sequential([
    ...     keras.Input((3,)),
    ...     keras.layers.Dense(3, kernel_constraint=Orthogonal()),
    ... ])
    >>> model.compile(keras.optimizers.Adam(use_ema=True), "mse")
    >>> x = np.ones((8, 3))
    >>> _ = model.fit(x, x, verbose=0, callbacks=[OrthogonalAverages()])
    >>> w = keras.ops.convert_to_numpy(model.layers[0].kernel)
    >>> np.allclose(w.T @ w, np.eye(3), atol=1e-5)
    True
    """

    def on_epoch_end(self, epoch, logs=None):
        self._project()

    def on_train_end(self, logs=None):
        self._project()

    def on_test_begin(self, logs=None):
        self._project()

    def on_predict_begin(self, logs=None):
        self._project()

    def _project(self):
        for variable in self.model.trainable_variables:
            constraint = variable.constraint
            if isinstance(constraint, Orthogonal):
                matrices = constraint.matrices(variable)
                if not all(bool(seems_orthogonal(m, 1e-5)) for m in matrices):
                    variable.assign(constraint(variable))

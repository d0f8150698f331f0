"""Variables of an optimizer: changed in part, or not at all.

`update_step` of an optimizer gets variables of the backend's own kind. They
are changed by the optimizer's own `assign` and its like alone.
"""

import keras
from keras import backend
from keras import ops


def assign_if(optimizer, condition, variable, value):
    """`variable <- value()` where the condition holds.

    Args:
        optimizer: The Keras optimizer that changes the variable.
        condition: Boolean scalar tensor.
        variable: Variable, as `update_step` gets it.
        value: Function without arguments that gives a tensor. It does not
            run where the condition does not hold.
    """
    if backend.backend() == "tensorflow":
        _change_if(optimizer.assign, condition, variable, value)
        return
    old = ops.convert_to_tensor(variable)
    optimizer.assign(variable, ops.cond(condition, value, lambda: old))


def assign_sub_if(optimizer, condition, variable, update, dtype):
    """`variable -= update()` where the condition holds.

    Args:
        optimizer: The Keras optimizer that changes the variable.
        condition: Boolean scalar tensor.
        variable: Variable, as `update_step` gets it.
        update: Function without arguments that gives a tensor. It does not
            run where the condition does not hold.
        dtype: String, the dtype of the difference. A variable of another
            one is rounded once, after it.
    """
    own = backend.standardize_dtype(variable.dtype)
    if backend.backend() == "tensorflow" and own == dtype:
        _change_if(optimizer.assign_sub, condition, variable, update)
        return

    def difference():
        value = ops.cast(ops.convert_to_tensor(variable), dtype)
        return ops.cast(value - ops.cast(update(), dtype), own)

    assign_if(optimizer, condition, variable, difference)


def _change_if(change, condition, variable, value):
    ops.cond(condition, lambda: change(variable, value()), lambda: None)


def gather_rows(variable, indices):
    """Rows of a variable; the rest is not read.

    Args:
        variable: Variable, as `update_step` gets it.
        indices: Integer tensor `(k,)`.

    Returns:
        Tensor `(k, ...)`.
    """
    if backend.backend() == "tensorflow":
        import tensorflow as tf

        # To read the variable as a whole would make the next change of it
        # copy it as a whole.
        if isinstance(variable, keras.Variable):
            variable = variable.value
        return tf.gather(variable, indices)
    return ops.take(ops.convert_to_tensor(variable), indices, axis=0)


def assign_rows(optimizer, variable, indices, rows):
    """Overwrites rows of a variable, in place where the backend can.

    Args:
        optimizer: The Keras optimizer that changes the variable.
        variable: Variable, as `update_step` gets it.
        indices: Integer tensor `(k,)`, all different.
        rows: Tensor `(k, ...)`.
    """
    if backend.backend() == "tensorflow":
        import tensorflow as tf

        optimizer.assign(variable, tf.IndexedSlices(rows, indices))
        return
    value = ops.convert_to_tensor(variable)
    value = ops.scatter_update(value, indices[:, None], rows)
    optimizer.assign(variable, value)

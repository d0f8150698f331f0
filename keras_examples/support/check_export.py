"""Loads a SavedModel where tf_spectral cannot be imported, and checks it.

    python keras_examples/check_export.py FOLDER EXPECTED.npz

EXPECTED holds inputs `x` (batch, time, features) and the model's answers `y`.
"""

import sys

# Importing a module whose entry is None raises ImportError.
sys.modules["tf_spectral"] = None
sys.modules["keras"] = None

import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402


def main():
    folder, expected = sys.argv[1:]
    data = np.load(expected)
    x, y = tf.constant(data["x"]), data["y"]
    served = tf.saved_model.load(folder).signatures
    (whole,) = served["serving_default"](x).values()
    report("whole sequence", whole, y)
    state = served["initial_state"](tf.constant(len(x)))
    for t in range(x.shape[1]):
        result = served["step"](inputs=x[:, t], **state)
        outputs = result.pop("outputs")
        state = result
    report("step by step", outputs, y)


def report(name, answer, expected):
    error = np.abs(answer.numpy() - expected).max()
    scale = np.abs(expected).max()
    print(f"served {name:<15} largest difference {error:.1e} of {scale:.1f}")
    if not error <= 1e-4 * scale:
        sys.exit(f"The served model differs: {name}")


if __name__ == "__main__":
    main()

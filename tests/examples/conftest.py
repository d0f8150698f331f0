"""The package of the examples tells where their helpers are."""

import keras_examples  # noqa: F401

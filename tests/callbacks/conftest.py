"""Small trainings run eagerly: tracing them takes longer than they do."""

import keras
import pytest


@pytest.fixture
def eager():
    """Runs compiled functions as they are, on TensorFlow."""
    if keras.backend.backend() != "tensorflow":
        yield
        return
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.fixture
def compiled_functions(eager):
    """Compiles after all, as users do: for one test of a kind."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.run_functions_eagerly(False)

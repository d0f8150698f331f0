"""SavedModels for TensorFlow Serving, whole sequences and step by step."""

from tf_spectral.export.saved_model import export_saved_model

__all__ = ["export_saved_model"]

"""Delegates in shared libraries that TensorFlow Lite loads."""

from tflite_hal.external.library import ExternalDelegate

__all__ = ["ExternalDelegate"]

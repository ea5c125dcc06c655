"""What is in a ``.tflite`` file: read and checked without running it, and without a runtime."""

from tflite_hal.model.info import Interface, ModelInfo, Operator, Quantization, Signature, TensorSpec
from tflite_hal.model.reader import read_model
from tflite_hal.model.source import Model

__all__ = [
    "Interface",
    "Model",
    "ModelInfo",
    "Operator",
    "Quantization",
    "Signature",
    "TensorSpec",
    "read_model",
]

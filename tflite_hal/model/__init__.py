"""What is in a ``.tflite`` file: read and checked without running it, and without a runtime."""

from tflite_hal.model.info import Interface, ModelInfo, Operator, Quantization, Signature, TensorSpec
from tflite_hal.model.reader import KnownHash, read_model
from tflite_hal.model.source import Model
from tflite_hal.model.variants import Variant, Variants

__all__ = [
    "Interface",
    "KnownHash",
    "Model",
    "ModelInfo",
    "Operator",
    "Quantization",
    "Signature",
    "TensorSpec",
    "Variant",
    "Variants",
    "read_model",
]

"""Delegates in shared libraries that TensorFlow Lite loads: a vendor's class, or data alone."""

from tflite_hal.external.described import (
    NAMED,
    DescribedDelegate,
    described_delegate,
    described_delegates,
    named_library,
)
from tflite_hal.external.library import ExternalDelegate

__all__ = [
    "NAMED",
    "DescribedDelegate",
    "ExternalDelegate",
    "described_delegate",
    "described_delegates",
    "named_library",
]

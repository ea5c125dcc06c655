"""What a vendor's tests need: a conformance class for delegates, and delegates that misbehave on request."""

from __future__ import annotations

from tflite_hal.testing.conformance import DelegateConformance
from tflite_hal.testing.faults import FaultDelegate, PythonFaultDelegate, build_library

__all__ = ["DelegateConformance", "FaultDelegate", "PythonFaultDelegate", "build_library"]

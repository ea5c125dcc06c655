"""The one interface: find, prove, choose, run, measure."""

from tflite_hal.runner.events import Event, TfliteHalWarning
from tflite_hal.runner.runner import Runner
from tflite_hal.runner.verified import verified

__all__ = ["Event", "Runner", "TfliteHalWarning", "verified"]

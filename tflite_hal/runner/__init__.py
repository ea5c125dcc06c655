"""The one interface: find, prove, choose, run, measure."""

from tflite_hal.runner.events import Event, TfliteHalWarning
from tflite_hal.runner.runner import Runner
from tflite_hal.runner.verified import Covered, covered, verified

__all__ = ["Covered", "Event", "Runner", "TfliteHalWarning", "covered", "verified"]

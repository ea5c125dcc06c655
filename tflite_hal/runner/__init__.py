"""The one interface: find, prove, choose, run, measure."""

from tflite_hal.runner.events import Event, TfliteHalWarning
from tflite_hal.runner.runner import Runner

__all__ = ["Event", "Runner", "TfliteHalWarning"]

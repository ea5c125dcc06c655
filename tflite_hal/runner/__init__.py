"""The one interface: find, prove, choose, run, measure."""

from tflite_hal.runner.runner import Event, Runner, TfliteHalWarning

__all__ = ["Event", "Runner", "TfliteHalWarning"]

"""The command line: probe, plugins, profiles, inspect, run, benchmark."""

from tflite_hal.cli.commands import main

__all__ = ["main"]

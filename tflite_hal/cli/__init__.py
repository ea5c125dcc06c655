"""The command line: probe, plugins, profiles, inspect, run, benchmark, verdicts."""

from tflite_hal.cli.commands import main
from tflite_hal.cli.verdicts import verdicts

__all__ = ["main"]

main.add_command(verdicts)

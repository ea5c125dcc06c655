"""The command line: probe, plugins, profiles, inspect, run, benchmark, explain, verify, verdicts."""

from tflite_hal.cli.commands import main
from tflite_hal.cli.explain import explain, verify
from tflite_hal.cli.inspect import inspect
from tflite_hal.cli.probe import probe
from tflite_hal.cli.profiles import profiles
from tflite_hal.cli.verdicts import verdicts

__all__ = ["main"]

main.add_command(probe)
main.add_command(inspect)
main.add_command(profiles)
main.add_command(explain)
main.add_command(verify)
main.add_command(verdicts)

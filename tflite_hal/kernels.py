"""The runtime's own kernels, without any delegate: what is always there, and the measure of right."""

from __future__ import annotations

from collections.abc import Sequence

from tflite_hal.delegate import Configuration, Delegate, Device, Probe
from tflite_hal.host import HostInfo
from tflite_hal.model import Model
from tflite_hal.profiles import DeviceProfile
from tflite_hal.runtime import Runtime
from tflite_hal.session import InterpreterSession, Session

__all__ = ["BuiltinKernels"]


class BuiltinKernels(Delegate):
    """The CPU by the kernels every TensorFlow Lite runtime has; the last candidate of every choice."""

    name = "builtin"
    api_version = 1
    description = "the runtime's built-in CPU kernels, no delegate"
    in_process = True

    def probe(self, host: HostInfo) -> Probe:
        """Return the CPU: every machine has one."""
        return Probe((Device("cpu", "cpu", host.cpu.model or "CPU"),))

    def configurations(
        self, model: Model, device: Device, profile: DeviceProfile | None
    ) -> Sequence[Configuration]:
        """Return one thread: more make small quantised models 6 to 20 times slower here."""
        return (Configuration(threads=1),)

    def open(self, model: Model, device: Device, configuration: Configuration, runtime: Runtime) -> Session:
        """Open a model without the runtime's default delegates."""
        return InterpreterSession(model, runtime, threads=configuration.threads, default_delegates=False)

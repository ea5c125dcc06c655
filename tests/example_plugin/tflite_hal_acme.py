"""An example of a vendor's plugin: the Acme NPU, a device that every machine has.

It is one file and a ``pyproject.toml``. A real one would return what :meth:`probe` found on a bus, and
open its own engine; for a ``.so`` that TensorFlow Lite loads, see ``ExternalDelegate`` instead.
"""

from __future__ import annotations

from collections.abc import Sequence

from tflite_hal import (
    Configuration,
    Delegate,
    Device,
    DeviceProfile,
    HostInfo,
    InterpreterSession,
    Model,
    Option,
    Probe,
    Runtime,
    Session,
    hookimpl,
)


class AcmeDelegate(Delegate):
    """The Acme NPU; its engine is the runtime's own kernels."""

    name = "acme"
    api_version = 1
    description = "Acme NPU (example)"
    install_hint = "pip install tflite-hal-acme"
    options = (Option("mode", "str", "fast", "how to run", choices=("fast", "exact")),)

    def probe(self, host: HostInfo) -> Probe:
        """Return the NPU."""
        return Probe((Device("npu:0", "npu", "Acme NPU"),))

    def supports(self, model: Model, device: Device) -> str | None:
        """Return why a stateful model can't run: the NPU has no memory between calls."""
        return "keeps no state between calls" if model.info.stateful else None

    def configurations(
        self, model: Model, device: Device, profile: DeviceProfile | None
    ) -> Sequence[Configuration]:
        """Return the fast mode first."""
        return [Configuration({"mode": "fast"}), Configuration({"mode": "exact"}, remedy=True)]

    def open(self, model: Model, device: Device, configuration: Configuration, runtime: Runtime) -> Session:
        """Open a model."""
        return InterpreterSession(model, runtime, default_delegates=False)


@hookimpl
def tflite_hal_register_delegates() -> list[type[Delegate]]:
    """Register the Acme NPU."""
    return [AcmeDelegate]

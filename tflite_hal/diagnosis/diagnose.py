"""The whole diagnosis of a machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from tflite_hal.delegate import Delegate, Device, Probe
from tflite_hal.diagnosis.finding import Finding, findings
from tflite_hal.diagnosis.inspection import inspected
from tflite_hal.diagnosis.running import Run, runs
from tflite_hal.diagnosis.unreached import Unreached, unreached
from tflite_hal.host import HostInfo
from tflite_hal.manager import DISABLED, Manager
from tflite_hal.profiles import DeviceProfile, known_pairs, why_known_bad
from tflite_hal.runtime import Runtime, RuntimeStatus
from tflite_hal.trust import Distrust

__all__ = ["Diagnosis", "diagnose"]


class Diagnosis(NamedTuple):
    """What a machine has, how far each device gets, and what nothing reaches."""

    probes: Mapping[str, Probe]  #: by delegate; with what its library said, where that was asked
    findings: tuple[Finding, ...]
    unreached: tuple[Unreached, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return it JSON-ready."""
        return {
            "delegates": {name: found.to_dict() for name, found in self.probes.items()},
            "findings": [one.to_dict() for one in self.findings],
            "unreached": [one.to_dict() for one in self.unreached],
        }


def diagnose(
    host: HostInfo,
    manager: Manager,
    described: Sequence[Delegate],
    profiles: Sequence[DeviceProfile],
    profile: DeviceProfile | None,
    runtime: RuntimeStatus | None,
    allowed: Sequence[str] | None = None,
) -> Diagnosis:
    """Diagnose a machine.

    Files first; on this machine (``host.live``) the libraries of the devices that were found are asked,
    and where there is a runtime a tiny model is run on each, all in child processes with time limits.

    Args:
        host: the machine.
        manager: its plugins.
        described: delegates that device profiles describe.
        profiles: all device profiles.
        profile: the one in force.
        runtime: what to run the model with; None runs nothing.
        allowed: the delegates that may be used: of others nothing is loaded; None is all.
    """
    probes = inspected(manager, manager.probe(host, described), host, allowed)
    ran: dict[tuple[str, str], Run] = {}
    if host.live and runtime is not None:
        # Only its name and version are needed here: it is imported in the child processes.
        bare = Runtime(runtime.name, runtime.version, {}, "")
        barred = partial(_known_bad, known_pairs(profiles), host, bare)
        ran = runs([*manager.delegates, *described], probes, profile, bare, barred, allowed)
    disabled = [plugin.name for plugin in manager.plugins if plugin.problem == DISABLED]
    found = findings(probes, host, ran)
    return Diagnosis(probes, found, tuple(unreached(host, profiles, probes, disabled)))


def _known_bad(
    pairs: Mapping[str, Sequence[Any]], host: HostInfo, runtime: Runtime, delegate: Delegate, device: Device
) -> Distrust | None:
    library = str(device.properties.get("library", ""))
    known = pairs.get(delegate.name, ())
    return why_known_bad(delegate.name, known, host, library, (runtime.name, runtime.version))

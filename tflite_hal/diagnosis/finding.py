"""One picture per device: each stage from the bus to the first answer, and where it ends."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from tflite_hal.delegate import STAGES, Device, Probe, Problem
from tflite_hal.diagnosis.library import examined
from tflite_hal.diagnosis.running import Run
from tflite_hal.host import BusDevice, HostInfo
from tflite_hal.host.commands import group_command

__all__ = ["Finding", "Step", "findings"]


class Step(NamedTuple):
    """One stage of a device."""

    stage: str  #: one of :data:`tflite_hal.delegate.STAGES`
    #: ``ok``: it holds, or means nothing for this device; ``failed``; ``unknown``: not looked at, or what
    #: comes before it failed.
    state: str
    text: str = ""  #: what was seen


class Finding(NamedTuple):
    """One device of a delegate, or one that would be."""

    delegate: str
    device: str  #: id, "" where the delegate has none yet
    kind: str  #: "" where it is not known
    name: str
    #: ``runs``: a tiny model ran on it rightly; ``found``: nothing stands in its way, as far as was looked;
    #: ``blocked``: ``problem`` says where and what to do.
    state: str
    steps: tuple[Step, ...]  #: of every stage, in their order
    problem: Problem | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return it JSON-ready."""
        return {
            **self._asdict(),
            "steps": [dict(step._asdict()) for step in self.steps],
            "problem": None if self.problem is None else self.problem.to_dict(),
        }


def findings(
    probes: Mapping[str, Probe], host: HostInfo, ran: Mapping[tuple[str, str], Run]
) -> tuple[Finding, ...]:
    """Return a finding for each device and each problem.

    Args:
        probes: what each delegate found.
        host: the machine.
        ran: what became of a tiny model, by the names of delegate and device.
    """
    probes = {name: _commanded(probe, host) for name, probe in probes.items()}
    result: list[Finding] = []
    for name, probe in probes.items():
        told = {problem.device for problem in probe.problems}
        # A problem of a device that is listed is its own; it is not told twice.
        result += [_of_device(name, one, probe, host, ran.get((name, one.id))) for one in probe.devices]
        listed = {device.id for device in probe.devices} & told
        result += [_blocked(name, one, "", {}) for one in probe.problems if one.device not in listed]
    return tuple(result)


def _commanded(probe: Probe, host: HostInfo) -> Probe:
    """Return what was found, with the command for a node whose group the user can join."""

    def command(problem: Problem) -> str:
        node = re.search(r"/dev/[\w/.:-]*\w", problem.evidence)
        if problem.command or problem.stage != "permission" or node is None or not host.live:
            return problem.command
        return group_command(node[0])

    return probe._replace(problems=tuple(one._replace(command=command(one)) for one in probe.problems))


def _of_device(name: str, device: Device, probe: Probe, host: HostInfo, ran: Run | None) -> Finding:
    seen = dict(_seen(device, host))
    title = " · ".join(filter(None, (device.name, device.state)))
    problem = next((one for one in probe.problems if one.device == device.id), None)
    problem = problem or _of_library(device, host, ran) or _of_run(device, ran)
    if problem is not None:
        return _blocked(name, problem._replace(device=device.id, kind=device.kind), title, seen)
    if ran is not None:
        seen |= {"open": "", "run": ran.text} if ran.state == "ok" else {"run": ran.text}
    reached = "run" if ran is not None and ran.state == "ok" else "runtime"
    steps = tuple(Step(stage, _state(stage, reached, host), seen.get(stage, "")) for stage in STAGES)
    state = "runs" if reached == "run" else "found"
    return Finding(name, device.id, device.kind, title, state, steps)


def _state(stage: str, reached: str, host: HostInfo) -> str:
    order = list(STAGES)
    if stage == "permission" and not host.live:
        return "unknown"
    return "ok" if order.index(stage) <= order.index(reached) else "unknown"


def _blocked(name: str, problem: Problem, title: str, seen: Mapping[str, str]) -> Finding:
    order = list(STAGES)
    place = order.index(problem.stage)
    steps = [Step(stage, "ok", seen.get(stage, "")) for stage in order[:place]]
    steps.append(Step(problem.stage, "failed", problem.evidence))
    steps += [Step(stage, "unknown") for stage in order[place + 1 :]]
    return Finding(name, problem.device, problem.kind, title, "blocked", tuple(steps), problem)


def _seen(device: Device, host: HostInfo) -> Iterator[tuple[str, str]]:
    """Yield what the machine shows of a device, by stage."""
    on_bus = _bus_device(device, host)
    if on_bus is not None:
        yield "bus", f"{on_bus.id} at {on_bus.slot}"
        if on_bus.driver:
            yield "driver", on_bus.driver
    library = examined(device, host)
    if library is not None:
        yield "library", library.text


def _bus_device(device: Device, host: HostInfo) -> BusDevice | None:
    named = {str(device.properties.get(key, "")) for key in ("slot", "path")}
    return next((one for one in (*host.usb, *host.pci) if {one.slot, one.path} & named), None)


def _of_library(device: Device, host: HostInfo, ran: Run | None) -> Problem | None:
    """Return what its library lacks, unless it was opened all the same."""
    library = examined(device, host)
    if library is None or not library.lacking or (ran is not None and ran.state == "ok"):
        return None
    names = ", ".join(library.lacking)
    evidence = f"{library.text} needs {names}, which the loader would not find"
    return Problem("library", evidence, f"install what has {names}, or add its folder to /etc/ld.so.conf.d")


def _of_run(device: Device, ran: Run | None) -> Problem | None:
    return Problem(ran.stage, ran.text, ran.remedy) if ran is not None and ran.state == "failed" else None

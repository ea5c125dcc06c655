"""What libraries themselves say of the devices found: asked in workers, with a time limit."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import closing

from tflite_hal.contract import check_probe, describe
from tflite_hal.delegate import Delegate, Probe, Problem
from tflite_hal.errors import TfliteHalError
from tflite_hal.host import HostInfo
from tflite_hal.manager import Manager
from tflite_hal.remote import RemoteDelegate, remote_delegate
from tflite_hal.worker import start_worker

__all__ = ["inspected"]


def inspected(
    manager: Manager,
    probes: Mapping[str, Probe],
    host: HostInfo,
    allowed: Collection[str] | None = None,
) -> dict[str, Probe]:
    """Replace what was found from files by what :meth:`Delegate.inspect` says, where there are devices.

    A delegate that fails keeps its devices, and a problem says why. Problems that files told stay: of what
    was refused a worker may know nothing.
    """
    result = dict(probes)
    for delegate in manager.delegates if host.live else ():
        found = probes[delegate.name]
        asks = isinstance(delegate, RemoteDelegate) or type(delegate).inspect is not Delegate.inspect
        if not (asks and found.devices) or (allowed is not None and delegate.name not in allowed):
            continue
        try:
            told = check_probe(_inspect(delegate, host, found), delegate.name, "inspect")
            kept = tuple(problem for problem in found.problems if problem not in told.problems)
            result[delegate.name] = Probe(told.devices, (*kept, *told.problems))
        except TfliteHalError as error:
            problem = Problem("open", f"inspect() failed: {error.reason}", error.remedy)
            result[delegate.name] = Probe(found.devices, (*found.problems, problem))
    return result


def _inspect(delegate: Delegate, host: HostInfo, found: Probe) -> Probe:
    if isinstance(delegate, RemoteDelegate):
        return delegate.inspect(host)
    environment = dict(delegate.environment)
    for device in found.devices:
        environment.update(device.properties.get("environment", {}))
    with closing(
        start_worker(f"inspecting {delegate.name}", runtime=None, environment=environment)
    ) as worker:
        return remote_delegate(describe(type(delegate)), lambda: worker).inspect(host)

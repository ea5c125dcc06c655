"""Third-party delegates: their code runs in a worker only."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

from tflite_hal.delegate import Configuration, Delegate, Device, Option, Probe, Problem
from tflite_hal.errors import DelegateError, WorkerHungError
from tflite_hal.host import HostInfo
from tflite_hal.model import Model
from tflite_hal.profiles import DeviceProfile
from tflite_hal.remote.guard import GuardedSession
from tflite_hal.runtime import Runtime
from tflite_hal.session import Session
from tflite_hal.worker import Worker

__all__ = ["RemoteDelegate", "exclusive_key", "reference", "remote_delegate", "sent"]

#: Seconds a plugin may take to answer: it only looks at facts.
ASK_LIMIT: Final = 10.0

#: Most seconds that a delegate may ask for: a socket takes no more.
MOST_SECONDS: Final = 1e6

_Result = TypeVar("_Result")

#: What the fields of an answer must be, as JSON has them.
_FIELDS: Final[Mapping[type, Mapping[str, tuple[type, ...]]]] = {
    Device: {"id": (str,), "kind": (str,), "name": (str,), "properties": (dict,), "state": (str,)},
    Problem: dict.fromkeys(Problem._fields, (str,)),
    Configuration: {
        "options": (dict,),
        "threads": (int, type(None)),
        "precision": (str,),
        "remedy": (bool,),
    },
}


class RemoteDelegate(Delegate):
    """A third-party delegate: its code runs in a worker only; this is what the core sees of it."""

    def __init__(self, worker: Callable[[], Worker]) -> None:
        """Take how to reach the plugin's worker."""
        self._worker = worker
        self._hung: dict[str, WorkerHungError] = {}  # by method

    def _ask(self, method: str, blob: bytes = b"", **arguments: Any) -> Any:
        if method in self._hung:  # it would cost its time again, for every model and device
            raise WorkerHungError(self._hung[method].reason)
        try:
            reply = self._worker().request(
                "ask",
                limit=ASK_LIMIT,
                stage=f"asking {self.name} for {method}()",
                blob=blob,
                delegate=self.reference,
                method=method,
                arguments=arguments,
            )
        except WorkerHungError as error:
            self._hung[method] = error
            raise
        return reply.body["result"]

    def probe(self, host: HostInfo) -> Probe:
        """See :meth:`Delegate.probe`."""
        return self._checked(lambda: _probe(self._ask("probe", host=host.to_dict())), "probe")

    def inspect(self, host: HostInfo) -> Probe:
        """See :meth:`Delegate.inspect`."""
        return self._checked(lambda: _probe(self._ask("inspect", host=host.to_dict())), "inspect")

    def supports(self, model: Model, device: Device) -> str | None:
        """See :meth:`Delegate.supports`; the worker reads the model itself."""
        answer = self._ask("supports", **sent(model), device=device.to_dict())
        return self._checked(lambda: None if answer is None else _text(answer), "supports")

    def configurations(
        self, model: Model, device: Device, profile: DeviceProfile | None
    ) -> Sequence[Configuration]:
        """See :meth:`Delegate.configurations`; the worker reads the model itself."""
        path = None if profile is None else profile.path
        answer = self._ask("configurations", **sent(model), device=device.to_dict(), profile=path)
        return self._checked(lambda: [_configuration(one) for one in answer], "configurations")

    def limits(self, device: Device) -> Mapping[str, float]:
        """See :meth:`Delegate.limits`."""
        return self._checked(lambda: _limits(self._ask("limits", device=device.to_dict())), "limits")

    def fingerprint(self, device: Device) -> str:
        """See :meth:`Delegate.fingerprint`."""
        return self._checked(lambda: _text(self._ask("fingerprint", device=device.to_dict())), "fingerprint")

    def open(self, model: Model, device: Device, configuration: Configuration, runtime: Runtime) -> Session:
        """Open a model in this process: imports the plugin here, which it must have allowed."""
        module, _, name = self.reference.partition(":")
        try:
            found: type[Delegate] = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError) as error:
            raise DelegateError(
                f"delegate {self.name}: {self.reference} can't be imported: {error}"
            ) from error
        return GuardedSession(self.name, model, found().open(model, device, configuration, runtime))

    def _checked(self, read: Callable[[], _Result], method: str) -> _Result:
        try:
            return read()
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DelegateError(
                f"delegate {self.name}: {method}() answered what is not in the contract: {error}"
            ) from error


def _probe(given: Mapping[str, Any]) -> Probe:
    found = Probe.from_dict(given)
    for device in found.devices:
        _check_fields(device)
    for problem in found.problems:
        _check_fields(problem)
    ids = [device.id for device in found.devices]
    if len(set(ids)) < len(ids):
        raise ValueError(f"the devices' ids {ids} are not unique")
    return found


def _configuration(given: Mapping[str, Any]) -> Configuration:
    made = Configuration(**given)
    _check_fields(made)
    if made.threads is not None and made.threads < 1:
        raise ValueError(f"threads={made.threads}")
    return made


def _check_fields(part: Device | Problem | Configuration) -> None:
    for name, kinds in _FIELDS[type(part)].items():
        if type(getattr(part, name)) not in kinds:
            raise TypeError(f"{type(part).__name__} with {name}={getattr(part, name)!r}")


def _limits(given: Mapping[str, Any]) -> dict[str, float]:
    limits = {str(stage): float(seconds) for stage, seconds in given.items()}
    for stage, seconds in limits.items():
        if not 0 < seconds <= MOST_SECONDS:
            raise ValueError(f"{seconds} seconds for {stage}")
    return limits


def _text(answer: Any) -> str:
    if not isinstance(answer, str):
        raise TypeError(f"{answer!r}, which is no text")
    return answer


def remote_delegate(description: Mapping[str, Any], worker: Callable[[], Worker]) -> RemoteDelegate:
    """Make the core's view of a delegate from what :func:`tflite_hal.manager.describe` said of it."""
    attributes = {**description, "options": tuple(Option(**option) for option in description["options"])}
    for name in ("runtimes", "in_process", "variants"):
        if isinstance(attributes[name], list):
            attributes[name] = tuple(attributes[name])
    proxy: type[RemoteDelegate] = type(f"Remote_{attributes['name']}", (RemoteDelegate,), attributes)
    return proxy(worker)


def reference(delegate: Delegate) -> str:
    """Return from what a worker rebuilds the delegate: ``module:Class``, or as of its ``reference``."""
    return delegate.reference or f"{type(delegate).__module__}:{type(delegate).__qualname__}"


def exclusive_key(delegate: Delegate, device: Device) -> tuple[str, str]:
    """Return what one process at a time may have: whose library, and the device's place.

    Of delegates that are made of data the library itself counts: one may be described twice, or with other
    values.
    """
    library = str(device.properties.get("library", ""))
    if library and " " in delegate.reference:
        return os.path.realpath(library), device.place
    return reference(delegate), device.place


def sent(model: Model) -> dict[str, Any]:
    """Return what makes a worker read the same model.

    Raises:
        ModelError: another file is under its path by now.
    """
    model.require_unchanged()
    return {"model": model.path, "stamp": model.stamp, "blob": model.data if model.path is None else b""}

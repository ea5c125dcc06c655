"""Third-party delegates: their code runs in a worker only."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Final, TypeVar

from tflite_hal.delegate import Configuration, Delegate, Device, Option, Probe
from tflite_hal.errors import DelegateError
from tflite_hal.host import HostInfo
from tflite_hal.model import Model
from tflite_hal.profiles import DeviceProfile
from tflite_hal.runtime import Runtime
from tflite_hal.session import Session
from tflite_hal.worker import Worker

__all__ = ["RemoteDelegate", "reference", "remote_delegate", "sent"]

#: Seconds a plugin may take to answer: it only looks at facts.
ASK_LIMIT: Final = 10.0

_Result = TypeVar("_Result")


class RemoteDelegate(Delegate):
    """A third-party delegate: its code runs in a worker only; this is what the core sees of it."""

    reference: ClassVar[str] = ""

    def __init__(self, worker: Callable[[], Worker]) -> None:
        """Take how to reach the plugin's worker."""
        self._worker = worker

    def _ask(self, method: str, blob: bytes = b"", **arguments: Any) -> Any:
        reply = self._worker().request(
            "ask",
            limit=ASK_LIMIT,
            stage=f"asking {self.name} for {method}()",
            blob=blob,
            delegate=self.reference,
            method=method,
            arguments=arguments,
        )
        return reply.body["result"]

    def probe(self, host: HostInfo) -> Probe:
        """See :meth:`Delegate.probe`."""
        return self._checked(lambda: Probe.from_dict(self._ask("probe", host=host.to_dict())), "probe")

    def inspect(self, host: HostInfo) -> Probe:
        """See :meth:`Delegate.inspect`."""
        return self._checked(lambda: Probe.from_dict(self._ask("inspect", host=host.to_dict())), "inspect")

    def supports(self, model: Model, device: Device) -> str | None:
        """See :meth:`Delegate.supports`; the worker reads the model itself."""
        answer = self._ask(
            "supports",
            blob=model.data if model.path is None else b"",
            model=model.path,
            device=device.to_dict(),
        )
        return None if answer is None else str(answer)

    def configurations(
        self, model: Model, device: Device, profile: DeviceProfile | None
    ) -> Sequence[Configuration]:
        """See :meth:`Delegate.configurations`; the worker reads the model itself."""
        path = None if profile is None else profile.path
        answer = self._ask(
            "configurations",
            blob=model.data if model.path is None else b"",
            model=model.path,
            device=device.to_dict(),
            profile=path,
        )
        return self._checked(lambda: [Configuration(**one) for one in answer], "configurations")

    def limits(self, device: Device) -> Mapping[str, float]:
        """See :meth:`Delegate.limits`."""
        return self._checked(
            lambda: {
                str(stage): float(s) for stage, s in self._ask("limits", device=device.to_dict()).items()
            },
            "limits",
        )

    def fingerprint(self, device: Device) -> str:
        """See :meth:`Delegate.fingerprint`."""
        return str(self._ask("fingerprint", device=device.to_dict()))

    def open(self, model: Model, device: Device, configuration: Configuration, runtime: Runtime) -> Session:
        """Open a model in this process: imports the plugin here, which it must have allowed."""
        module, _, name = self.reference.partition(":")
        try:
            found: type[Delegate] = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError) as error:
            raise DelegateError(
                f"delegate {self.name}: {self.reference} can't be imported: {error}"
            ) from error
        return found().open(model, device, configuration, runtime)

    def _checked(self, read: Callable[[], _Result], method: str) -> _Result:
        try:
            return read()
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DelegateError(
                f"delegate {self.name}: {method}() answered what is not in the contract: {error}"
            ) from error


def remote_delegate(description: Mapping[str, Any], worker: Callable[[], Worker]) -> RemoteDelegate:
    """Make the core's view of a delegate from what :func:`tflite_hal.manager.describe` said of it."""
    attributes = {**description, "options": tuple(Option(**option) for option in description["options"])}
    if attributes["runtimes"] is not None:
        attributes["runtimes"] = tuple(attributes["runtimes"])
    proxy: type[RemoteDelegate] = type(f"Remote_{attributes['name']}", (RemoteDelegate,), attributes)
    return proxy(worker)


def reference(delegate: Delegate) -> str:
    """Return ``module:Class``, from which a worker rebuilds the delegate."""
    if isinstance(delegate, RemoteDelegate):
        return delegate.reference
    return f"{type(delegate).__module__}:{type(delegate).__qualname__}"


def sent(model: Model) -> dict[str, Any]:
    """Return what makes a worker read the same model."""
    return {"model": model.path, "blob": model.data if model.path is None else b""}

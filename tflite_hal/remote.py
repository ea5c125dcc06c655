"""Delegates and sessions that live in a worker, in the shape of those that don't."""

from __future__ import annotations

import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Final, TypeVar

import numpy as np

from tflite_hal.delegate import Configuration, Delegate, Device, Option, Probe
from tflite_hal.errors import DelegateError, WorkerError
from tflite_hal.host import HostInfo
from tflite_hal.model import Model
from tflite_hal.profiles import DeviceProfile
from tflite_hal.runtime import Runtime
from tflite_hal.session import Arrays, Call, Coverage, Session, Shapes
from tflite_hal.worker import SharedArrays, Worker, start_worker

__all__ = ["RemoteDelegate", "RemoteSession", "open_remotely", "reference", "remote_delegate"]

#: Seconds a plugin may take to answer: it only looks at facts.
ASK_LIMIT: Final = 10.0
#: Seconds a session may take to close before its worker is killed.
CLOSE_LIMIT: Final = 5.0
#: Seconds allowed per stage where the delegate does not say otherwise.
LIMITS: Final[Mapping[str, float]] = {"open": 10.0, "run": 30.0}


_Result = TypeVar("_Result")


class RemoteDelegate(Delegate):
    """A third-party delegate: its code runs in a worker only; this is what the core sees of it."""

    reference: ClassVar[str] = ""

    def __init__(self, worker: Callable[[], Worker]) -> None:
        """Take how to reach the plugin's worker."""
        self._worker = worker

    def _ask(self, method: str, limit: float = ASK_LIMIT, blob: bytes = b"", **arguments: Any) -> Any:
        reply = self._worker().request(
            "ask",
            limit=limit,
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
        answer = self._ask("supports", blob=_blob(model), model=model.path, device=device.to_dict())
        return None if answer is None else str(answer)

    def configurations(
        self, model: Model, device: Device, profile: DeviceProfile | None
    ) -> Sequence[Configuration]:
        """See :meth:`Delegate.configurations`; the worker reads the model itself."""
        path = None if profile is None else profile.path
        answer = self._ask(
            "configurations", blob=_blob(model), model=model.path, device=device.to_dict(), profile=path
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


class RemoteSession(Session):
    """A session in a worker; tensors cross the boundary in shared memory."""

    threading = "any"  # the worker answers one request at a time

    def __init__(
        self, worker: Worker, number: int, model: Model, coverage: Coverage | None, run_limit: float
    ) -> None:
        """Take what :func:`open_remotely` got from the worker."""
        self.coverage = coverage
        self._worker: Worker | None = worker
        self._number = number
        self._model = model
        self._run_limit = run_limit
        # A session that is dropped without close() is closed by the next that opens: a finalizer may run
        # anywhere, also while this thread holds the worker's lock.
        self._finalizer = weakref.finalize(self, _orphans.append, (worker, number, model.name))

    def prepare(self, signature: str | None = None, shapes: Shapes | None = None) -> Call:
        """See :meth:`Session.prepare`."""
        specs = self._model.info.interface(signature, self._model.name).inputs
        shapes = [spec.static_shape for spec in specs] if shapes is None else shapes
        if any(spec.dtype.hasobject for spec in specs):
            raise DelegateError(f"{self._model.name}: string inputs can't enter a worker")
        inputs = SharedArrays([(s.dtype.str, shape) for s, shape in zip(specs, shapes, strict=True)])
        try:
            reply = self._running().request(
                "prepare",
                limit=self._run_limit,
                stage=f"preparing {self._model.name}",
                session=self._number,
                signature=signature,
                shapes=[list(shape) for shape in shapes],
                layout=inputs.layout,
                descriptors=[inputs.descriptor],
            )
        finally:
            inputs.close_descriptor()
        return _RemoteCall(self, int(reply.body["call"]), inputs)

    def _running(self) -> Worker:
        if self._worker is None:
            raise WorkerError(f"the session of {self._model.name} is closed")
        return self._worker

    def reset(self) -> None:
        """See :meth:`Session.reset`."""
        self._running().request(
            "reset", limit=self._run_limit, stage=f"resetting {self._model.name}", session=self._number
        )

    def close(self) -> None:
        """See :meth:`Session.close`; a worker that hangs in it is killed, one that died is no error."""
        worker, self._worker = self._worker, None
        if worker is not None:
            self._finalizer.detach()
            _end(worker, self._number, self._model.name)


class _RemoteCall(Call):
    """A prepared call: inputs in memory of ours, outputs in memory of the worker's."""

    def __init__(self, session: RemoteSession, number: int, inputs: SharedArrays) -> None:
        self._session = session
        self._number = number
        self._inputs = inputs
        self._outputs: SharedArrays | None = None
        self._lock = threading.Lock()
        self._stage = f"running {session._model.name}"

    def run(self, arrays: Arrays) -> list[np.ndarray[Any, Any]]:
        """See :meth:`Call.run`."""
        with self._lock:
            for place, array in zip(self._inputs.arrays, arrays, strict=True):
                place[...] = array
            session = self._session
            reply = session._running().call(self._number, limit=session._run_limit, stage=self._stage)
            if reply.kind == b"JSON":
                (descriptor,) = reply.descriptors
                self._outputs = SharedArrays(
                    [(dtype, shape) for dtype, shape in reply.body["layout"]], descriptor
                )
                self._outputs.close_descriptor()
            if self._outputs is None:
                raise WorkerError(f"{session._model.name}: the worker answered without outputs")
            return [array.copy() for array in self._outputs.arrays]


def open_remotely(
    delegate: Delegate,
    model: Model,
    device: Device,
    configuration: Configuration,
    runtime: Runtime | None,
    environment: Mapping[str, str] | None = None,
) -> RemoteSession:
    """Open a model in the worker of a delegate and device; all their sessions live in that one.

    ``environment`` is set before its library loads, beside what the delegate itself asks for.

    Raises:
        WorkerError: no child can be started, or it crashed or hung while opening.
        DelegateError: the delegate's reason.
        ModelError: the runtime refuses the file.
    """
    limits = {**LIMITS, **delegate.limits(device)}
    name = None if runtime is None else runtime.name
    worker = _acquire(delegate, device, name, {**delegate.environment, **(environment or {})})
    try:
        reply = worker.request(
            "open",
            limit=limits["open"],
            stage=f"opening {model.name}",
            blob=_blob(model),
            delegate=reference(delegate),
            model=model.path,
            device=device.to_dict(),
            configuration=configuration.to_dict(),
            runtime=name,
        )
    except BaseException:
        _release(worker)
        raise
    body = reply.body
    coverage = None if body["coverage"] is None else Coverage(*body["coverage"])
    return RemoteSession(worker, int(body["session"]), model, coverage, limits["run"])


def _blob(model: Model) -> bytes:
    return model.data if model.path is None else b""


# One worker per delegate, device and runtime: a second process on one device is refused or aborts.
_pool: dict[tuple[Any, ...], Worker] = {}
_users: dict[int, int] = {}
_orphans: deque[tuple[Worker, int, str]] = deque()  # sessions dropped without close()
_pool_lock = threading.Lock()


def _forget() -> None:
    """In a forked child: the workers are the parent's, and a thread that is not here may hold the lock."""
    global _pool_lock
    _pool_lock = threading.Lock()
    _pool.clear()
    _users.clear()
    _orphans.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def _acquire(
    delegate: Delegate, device: Device, runtime: str | None, environment: Mapping[str, str]
) -> Worker:
    while _orphans:
        _end(*_orphans.popleft())
    key = (reference(delegate), device.id, runtime, tuple(sorted(environment.items())))
    with _pool_lock:
        worker = _pool.get(key)
        if worker is None or not worker.alive:
            label = f"delegate {delegate.name} on {device.id}"
            worker = _pool[key] = start_worker(label, runtime=runtime, environment=environment)
        _users[id(worker)] = _users.get(id(worker), 0) + 1
        return worker


def _end(worker: Worker, session: int, name: str) -> None:
    """Close a session in its worker, and the worker after its last."""
    try:
        if worker.alive:
            worker.request("close", limit=CLOSE_LIMIT, stage=f"closing {name}", session=session)
    except WorkerError:
        pass  # it is gone with its sessions, which is what closing is for
    finally:
        _release(worker)


def _release(worker: Worker) -> None:
    with _pool_lock:
        _users[id(worker)] = _users.get(id(worker), 1) - 1
        if _users[id(worker)] > 0:
            return
        del _users[id(worker)]
        for key in [key for key, pooled in _pool.items() if pooled is worker]:
            del _pool[key]
        worker.close()  # under the lock: the device must be free before another worker opens it

"""Sessions in workers."""

from __future__ import annotations

import itertools
import os
import statistics
import threading
import time
import weakref
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

import numpy as np

from tflite_hal.delegate import Configuration, Delegate, Device
from tflite_hal.errors import DelegateError, InputError, TfliteHalError, WorkerError
from tflite_hal.model import Model, TensorSpec
from tflite_hal.remote.delegate import reference, sent
from tflite_hal.remote.guard import check_outputs, guarded
from tflite_hal.remote.pool import Shared, acquire, drop, end
from tflite_hal.runtime import Runtime
from tflite_hal.session import Arrays, Call, Coverage, Session, Shapes
from tflite_hal.trust import distrust_variable
from tflite_hal.worker import Reply, SharedArrays, Worker

__all__ = ["RemoteSession", "default_limits", "environment_of", "open_remotely"]

#: Seconds allowed per stage where the delegate does not say otherwise.
LIMITS: Final[Mapping[str, float]] = {"open": 10.0, "run": 30.0}

_numbers = itertools.count(1)  # of sessions and calls: chosen here, so that what is given up has a name


class RemoteSession(Session):
    """A session in a worker; tensors cross the boundary in shared memory.

    Attributes:
        run_limit: seconds a run may take before its worker is killed.
        limited: whether the caller set it.
    """

    threading = "any"  # the worker answers one request at a time

    def __init__(
        self,
        shared: Shared,
        number: int,
        model: Model,
        coverage: Coverage | None,
        run_limit: float,
        limited: bool,
    ) -> None:
        """Take what :func:`open_remotely` got from the worker."""
        self.coverage = coverage
        self._shared: Shared | None = shared
        self._number = number
        self._model = model
        self.run_limit = run_limit
        self.limited = limited
        self.boundaries: deque[int] = deque(maxlen=256)  # nanoseconds of the last calls, without running
        # A finalizer may run anywhere, also while this thread holds the worker's lock: it only notes
        # what close_dropped() is to close.
        self._finalizer = weakref.finalize(self, drop, shared, number, model.name)

    @property
    def boundary_ms(self) -> float | None:
        """See :attr:`Session.boundary_ms`."""
        return statistics.median(self.boundaries) / 1e6 if self.boundaries else None

    def prepare(self, signature: str | None = None, shapes: Shapes | None = None) -> Call:
        """See :meth:`Session.prepare`."""
        interface = self._model.info.interface(signature, self._model.name)
        specs = interface.inputs
        shapes = [spec.static_shape for spec in specs] if shapes is None else shapes
        if any(spec.dtype.hasobject for spec in specs):
            raise DelegateError(f"{self._model.name}: string inputs can't enter a worker")
        worker, number = self._running(), next(_numbers)
        try:
            inputs = SharedArrays([(s.dtype.str, shape) for s, shape in zip(specs, shapes, strict=True)])
        except OSError as error:
            raise WorkerError(f"{self._model.name}: no memory to share with a worker: {error}") from error
        try:
            worker.request(
                "prepare",
                limit=self.run_limit,
                stage=f"preparing {self._model.name}",
                session=self._number,
                call=number,
                signature=signature,
                shapes=[list(shape) for shape in shapes],
                layout=inputs.layout,
                descriptors=[inputs.descriptor],
            )
        finally:
            inputs.close_descriptor()
        return _RemoteCall(self, number, inputs, interface.outputs)

    def _running(self) -> Worker:
        if self._shared is None:
            raise WorkerError(f"the session of {self._model.name} is closed")
        return self._shared.worker

    def reset(self) -> None:
        """See :meth:`Session.reset`."""
        self._running().request(
            "reset", limit=self.run_limit, stage=f"resetting {self._model.name}", session=self._number
        )

    def close(self) -> None:
        """See :meth:`Session.close`; a worker that hangs in it is killed, one that died is no error."""
        with suppress(WorkerError):
            self.finish()

    def finish(self) -> None:
        """Close as :meth:`close` does, but say what became of a worker that died of it.

        Raises:
            WorkerCrashedError, WorkerHungError: it crashed or was killed at its limit.
        """
        shared, self._shared = self._shared, None
        if shared is not None:
            self._finalizer.detach()
            end(shared, self._number, self._model.name)


class _RemoteCall(Call):
    """A prepared call: inputs in memory of ours, outputs in memory of the worker's."""

    def __init__(
        self, session: RemoteSession, number: int, inputs: SharedArrays, outputs: Sequence[TensorSpec]
    ) -> None:
        self._session = session
        self._specs = outputs
        self._number = number
        self._inputs = inputs
        self._outputs: SharedArrays | None = None
        self._lock = threading.Lock()
        self._stage = f"running {session._model.name}"

    def run(self, arrays: Arrays) -> list[np.ndarray[Any, Any]]:
        """See :meth:`Call.run`."""
        with self._lock:
            for place, array in zip(self._inputs.arrays, arrays, strict=True):
                if place.shape != array.shape:  # it would be spread over the place in silence
                    raise InputError(f"{self._stage}: given {array.shape}, prepared for {place.shape}")
                place[...] = array
            session = self._session
            started = time.perf_counter_ns()
            reply = session._running().call(
                self._number, limit=session.run_limit, stage=self._stage, fresh=self._outputs is None
            )
            if reply.kind == b"JSON":
                self._outputs = self._attached(reply)
            assert self._outputs is not None  # noqa: S101 -- for the type checker: a fresh answer is JSON
            results = [array.copy() for array in self._outputs.arrays]
            took = reply.call or int(reply.body.get("took", 0))
            session.boundaries.append(time.perf_counter_ns() - started - took)
            return results

    def _attached(self, reply: Reply) -> SharedArrays:
        try:
            (descriptor,) = reply.descriptors
            layout = [(str(dtype), shape) for dtype, shape in reply.body["layout"]]
            check_outputs([np.dtype(dtype) for dtype, _ in layout], self._specs, self._session._model.name)
            return SharedArrays(layout, descriptor)
        except (KeyError, TypeError, ValueError, OSError) as error:
            raise WorkerError(f"while {self._stage}: the outputs can't be read: {error}") from error
        finally:
            for descriptor in reply.descriptors:
                os.close(descriptor)


def default_limits(delegate: Delegate, device: Device) -> dict[str, float]:
    """Return the seconds allowed per stage where the caller says nothing.

    Raises:
        DelegateError: the delegate's limits() fails, or answers what is no number of seconds.
    """
    own = guarded(
        delegate.name,
        "limits",
        lambda: {str(stage): float(seconds) for stage, seconds in delegate.limits(device).items()},
    )
    return {**LIMITS, **own}


def open_remotely(
    delegate: Delegate,
    model: Model,
    device: Device,
    configuration: Configuration,
    runtime: Runtime | None,
    environment: Mapping[str, str] | None = None,
    *,
    limits: Mapping[str, float] | None = None,
) -> RemoteSession:
    """Open a model in the worker of a delegate and device; all their sessions live in that one.

    ``environment`` is set before its library loads, beside what the delegate itself asks for; ``limits``
    are seconds per stage (``open``, ``run``) instead of the delegate's.

    Raises:
        WorkerError: no child can be started, or it crashed or hung while opening.
        DelegateError: the delegate's reason.
        ModelError: the runtime refuses the file.
    """
    allowed = {**default_limits(delegate, device), **(limits or {})}
    name = None if runtime is None else runtime.name
    shared = acquire(delegate, device, name, environment_of(delegate, device, environment or {}))
    number = next(_numbers)
    try:
        reply = shared.worker.request(
            "open",
            limit=allowed["open"],
            stage=f"opening {model.name}",
            session=number,
            delegate=reference(delegate),
            **sent(model),
            device=device.to_dict(),
            configuration=configuration.to_dict(),
            runtime=name,
        )
        coverage = _coverage(delegate, reply.body.get("coverage"))
        return RemoteSession(shared, number, model, coverage, allowed["run"], "run" in (limits or {}))
    except TfliteHalError:
        end(shared, number, model.name)  # it may have opened what makes no sense
        raise
    except BaseException:  # Ctrl-C: the worker may have the session
        drop(shared, number, model.name)
        raise


def environment_of(delegate: Delegate, device: Device, given: Mapping[str, str]) -> dict[str, str]:
    """Return what is set before the library loads.

    Raises:
        DelegateError: a variable would bring code from where others can write.
    """
    asked = device.properties.get("environment", {})
    environment = {**delegate.environment, **(asked if isinstance(asked, Mapping) else {}), **given}
    for variable, value in environment.items():
        if not (isinstance(variable, str) and isinstance(value, str)):
            raise DelegateError(f"delegate {delegate.name}: {variable!r}={value!r} is no variable")
        refused = distrust_variable(variable, value)
        if refused is not None:
            reason = f"delegate {delegate.name}: environment {variable}: {refused.reason}"
            raise DelegateError(reason, remedy=refused.remedy)
    return environment


def _coverage(delegate: Delegate, given: Any) -> Coverage | None:
    if given is None:
        return None
    try:
        return Coverage.from_dict(given)
    except (TypeError, ValueError, AttributeError) as error:
        raise DelegateError(f"delegate {delegate.name}: {given!r} is no coverage") from error

"""The workers that hold sessions, one per delegate and device, each shared by all sessions on it."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

from tflite_hal.delegate import Delegate, Device, may_live_in_process
from tflite_hal.errors import DeviceBusyError, TfliteHalError, WorkerError
from tflite_hal.remote.delegate import exclusive_key
from tflite_hal.worker import Worker, start_worker

__all__ = ["Shared", "acquire", "close_dropped", "drop", "end", "open_sessions", "release"]

#: Seconds a session may take to close before its worker is killed.
CLOSE_LIMIT: Final = 5.0


class Shared:
    """A worker and how many sessions are open in it."""

    __slots__ = ("environment", "runtime", "users", "worker")

    def __init__(self, worker: Worker, runtime: str | None, environment: Mapping[str, str]) -> None:
        self.worker = worker
        self.runtime = runtime
        self.environment = environment
        self.users = 0


# One worker per delegate and device: a second process on one device is refused or aborts.
_pool: dict[tuple[Any, ...], Shared] = {}
_dropped: deque[tuple[Shared, int, str]] = deque()  # sessions that nobody closed
_pool_lock = threading.Lock()


def _forget() -> None:
    """In a forked child: the workers are the parent's, and a thread that is not here may hold the lock."""
    global _pool_lock
    _pool_lock = threading.Lock()
    _pool.clear()
    _dropped.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def drop(shared: Shared, session: int, name: str) -> None:
    """Note a session that nobody will close; takes no lock, so that a finalizer may call it."""
    _dropped.append((shared, session, name))


def close_dropped() -> None:
    """Close the sessions that were dropped without ``close()``."""
    while _dropped:
        with suppress(WorkerError):
            end(*_dropped.popleft())


def open_sessions(delegate: Delegate, device: Device) -> int:
    """Return how many sessions of this process are open on a device, which they share."""
    with _pool_lock:
        shared = _pool.get(exclusive_key(delegate, device))
        return 0 if shared is None or not shared.worker.alive else shared.users


def acquire(
    delegate: Delegate, device: Device, runtime: str | None, environment: Mapping[str, str]
) -> Shared:
    """Return the worker of a delegate and device, counted as used once more.

    Raises:
        DeviceBusyError: it is in use with another runtime or environment.
        WorkerError: it can't be started.
    """
    close_dropped()
    key: tuple[Any, ...] = exclusive_key(delegate, device)
    if may_live_in_process(delegate, device):  # what runs on the CPU shares it
        key = (*key, runtime, tuple(sorted(environment.items())))
    with _pool_lock:
        shared = _pool.get(key)
        if shared is None or not shared.worker.alive:
            label = f"delegate {delegate.name} on {device.id}"
            worker = start_worker(label, runtime=runtime, environment=environment)
            shared = _pool[key] = Shared(worker, runtime, environment)
        elif (shared.runtime, shared.environment) != (runtime, environment):
            raise DeviceBusyError(
                f"{delegate.name} on {device.id} is open in this process with {shared.runtime} "
                "and other settings of its environment",
                remedy="close the other runner first, or use the same runtime and profile",
            )
        shared.users += 1
        return shared


def end(shared: Shared, session: int, name: str) -> None:
    """Close a session in its worker, and the worker after its last.

    Raises:
        WorkerError: it died or hung in that; the device is free all the same.
    """
    try:
        if shared.worker.alive:
            shared.worker.request("close", limit=CLOSE_LIMIT, stage=f"closing {name}", session=session)
    except WorkerError:
        raise
    except TfliteHalError:
        pass  # it could not close: the worker's end frees the device
    finally:
        release(shared)


def release(shared: Shared) -> None:
    """Count a use less; the worker ends with its last."""
    with _pool_lock:
        shared.users -= 1
        if shared.users > 0:
            return
        for key in [key for key, pooled in _pool.items() if pooled is shared]:
            del _pool[key]
        shared.worker.close()  # under the lock: the device must be free before another worker opens it

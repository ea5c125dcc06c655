"""A runner's life: shared by threads, closed once, noticed to have been forked."""

from __future__ import annotations

import os
import threading
from typing import Any

import numpy as np

from tflite_hal.errors import ClosedError, DelegateError
from tflite_hal.model import Model
from tflite_hal.remote import close_dropped
from tflite_hal.runner.active import Active
from tflite_hal.runner.events import Events
from tflite_hal.runner.request import Request
from tflite_hal.runtime import Runtime
from tflite_hal.session import Direct, Turn

__all__ = ["Life"]

Arrays = list[np.ndarray[Any, Any]]


class Life:
    """Guards what is active: one thread at a time, in the process that opened it, until it is closed."""

    def __init__(self, model: Model, runtime: Runtime, request: Request, events: Events) -> None:
        """Open; raises as :class:`Active`."""
        close_dropped()
        self._arguments = (model, runtime, request, events)
        self._turn = Turn()
        self._names = model.info.interface(None, model.name).output_names
        self._closed = False
        self._pid = os.getpid()
        self.direct: Direct | None = None  # the shortest way of predict(), where there is one
        self.active = Active(*self._arguments)

    def run(self, signature: str | None, arrays: Arrays) -> Arrays:
        """See :meth:`Active.run`."""
        if self._pid != os.getpid():
            self._reopen_after_fork()
        with self._turn.lock:
            self.check_open()
            if self._turn.taken:
                reason = f"{self._arguments[0].name}: predict was called inside of a predict of this runner"
                raise DelegateError(reason, remedy="use another runner in signal handlers and finalizers")
            self._turn.taken = True
            try:
                results = self.active.run(signature, arrays)
            finally:
                self._turn.taken = False
            if signature is None:
                self.direct = self.active.direct(signature, arrays, self._names, self._turn)
            return results

    def reset(self) -> None:
        """See :meth:`Active.reset`."""
        self.check_open()
        if self._pid != os.getpid():
            self._reopen_after_fork()
        with self._turn.lock:
            self.check_open()
            self.active.reset()

    def check_open(self) -> None:
        """Raise ClosedError after :meth:`close`."""
        if self._closed:
            name = self._arguments[0].name
            raise ClosedError(f"the runner of {name} is closed", remedy="make a new one")

    def close(self) -> None:
        """Free everything; in a forked process, nothing."""
        if self._pid != os.getpid():
            _leaked.append(self.active)
            self._closed = True
            return
        with self._turn.lock:
            if not self._closed:
                self.active.close()
            self._closed = True
        close_dropped()

    def _reopen_after_fork(self) -> None:
        """Open again in a forked child. The inherited session is leaked on purpose: destroying an
        inherited interpreter with two threads hangs on both runtimes. So is the lock: a thread that
        the child does not have may hold it."""
        model, _, _, events = self._arguments
        with _fork_lock:
            if self._pid == os.getpid():
                return  # another thread of the child was first
            _leaked.append(self.active)
            self._turn = Turn()
            events.record("fork", f"{model.name} was opened again in a forked process", warn=False)
            self.active = Active(*self._arguments)
            self._pid = os.getpid()


_leaked: list[Active] = []
_fork_lock = threading.Lock()


def _new_fork_lock() -> None:
    global _fork_lock
    _fork_lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_new_fork_lock)

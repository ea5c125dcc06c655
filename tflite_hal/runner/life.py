"""A runner's life: shared by threads, closed once, noticed to have been forked."""

from __future__ import annotations

import functools
import os
import threading
import weakref
from typing import Any

from tflite_hal.errors import ClosedError, DelegateError
from tflite_hal.model import Model
from tflite_hal.remote import close_dropped
from tflite_hal.runner.active import Active
from tflite_hal.runner.calls import Arrays
from tflite_hal.runner.events import Events
from tflite_hal.runner.pool import Pool
from tflite_hal.runner.request import Request
from tflite_hal.runtime import Runtime
from tflite_hal.session import Direct, Session, Turn

__all__ = ["Life"]


class Life:
    """Guards what is active: one thread at a time, in the process that opened it, until it is closed; other
    threads get sessions of a pool where there is one."""

    def __init__(self, model: Model, runtime: Runtime, request: Request, events: Events) -> None:
        """Open; raises as :class:`Active`."""
        close_dropped()
        self._arguments = (model, runtime, request, events)
        self._turn = Turn()
        self._names = model.info.interface(None, model.name).output_names
        self._closed = self._freed = False
        self._pid = os.getpid()
        # Not bound to this object: a runner that nobody closed is to be freed when it is dropped.
        self._busy = functools.partial(_beside, weakref.ref(self))
        self.direct: Direct | None = None  # the shortest way of predict(), where there is one
        self._pool: Pool | None = None  # for threads that find the session busy
        self._pool_beside: Session | None = None  # that session
        self.active = Active(*self._arguments)

    def run(self, signature: str | None, arrays: Arrays) -> Arrays:
        """See :meth:`Active.run`; while another thread is in that, on a session of the pool."""
        if self._pid != os.getpid():
            self._reopen_after_fork()
        if not self._turn.lock.acquire(blocking=False):
            pool = self._pool
            results = None if pool is None or not pool.alike else pool.run(signature, arrays)
            if results is not None:
                return results
            self._turn.lock.acquire()
        try:
            self.check_open()
            results = self._run_in_turn(signature, arrays)
            if signature is None:
                self.direct = self.active.direct(signature, arrays, self._names, self._turn, self._busy)
            return results
        finally:
            self._renew()
            self._turn.lock.release()

    def _run_in_turn(self, signature: str | None, arrays: Arrays) -> Arrays:
        if self._turn.taken:
            reason = f"{self._arguments[0].name}: predict was called inside of a predict of this runner"
            raise DelegateError(reason, remedy="use another runner in signal handlers and finalizers")
        self._turn.taken = True
        try:
            return self.active.run(signature, arrays)
        finally:
            self._turn.taken = False

    def _renew(self) -> None:
        """Have the pool fit the session in use."""
        session, pool = self.active.opened.session, self._pool
        if self._pool_beside is not session:
            self._pool_beside, self._pool = session, self.active.pool(self._names)
            if pool is not None:
                pool.close()

    def pool(self) -> Pool | None:
        """Return the sessions with one thread each that many inputs may be spread over, None where there
        can be none."""
        if self._pid != os.getpid():
            self._reopen_after_fork()
        with self._turn.lock:
            self.check_open()
            self._renew()
            if self._pool is None:
                self._pool = self.active.pool(self._names, single=True)
            return self._pool

    def run_pooled(self, signature: str | None, arrays: Arrays) -> Arrays:
        """As :meth:`run`, on a session of :meth:`pool` where that is possible."""
        pool = self._pool if self._pid == os.getpid() else None
        results = None if pool is None else pool.run(signature, arrays)
        return self.run(signature, arrays) if results is None else results

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
            _leaked.append((self.active, self._pool))
            self._closed = True
            return
        self._closed, self.direct = True, None  # first: threads that keep calling would keep the lock
        with self._turn.lock:
            pool, self._pool, self.direct = self._pool, None, None
            if not self._freed:
                self._freed = True
                self.active.close()
            if pool is not None:
                pool.close()
        close_dropped()

    def _reopen_after_fork(self) -> None:
        """Open again in a forked child. The inherited session is leaked on purpose: destroying an
        inherited interpreter with two threads hangs on both runtimes. So is the lock: a thread that
        the child does not have may hold it."""
        model, _, _, events = self._arguments
        with _fork_lock:
            if self._pid == os.getpid():
                return  # another thread of the child was first
            _leaked.append((self.active, self._pool))
            self._turn, self._pool, self._pool_beside = Turn(), None, None
            events.record("fork", f"{model.name} was opened again in a forked process", warn=False)
            self.active = Active(*self._arguments)
            self._pid = os.getpid()


def _beside(life: weakref.ref[Life], value: Any) -> Any:
    """Return an answer of the pool by the shortest way; None where there is none: then a thread waits."""
    owner = life()
    pool = None if owner is None else owner._pool
    return None if pool is None or not pool.alike else pool.direct(value)


_leaked: list[tuple[Active, Pool | None]] = []
_fork_lock = threading.Lock()


def _new_fork_lock() -> None:
    global _fork_lock
    _fork_lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_new_fork_lock)

"""Sessions in this process that only the thread that opened them may use: each gets a thread of its own.

A worker has one thread, so there every session is opened, run and closed by the same one.
"""

from __future__ import annotations

import itertools
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from queue import SimpleQueue
from typing import Any, Final, TypeVar

import numpy as np

from tflite_hal.errors import DelegateError
from tflite_hal.session import Arrays, Call, Session, Shapes

__all__ = ["open_bound"]

_Result = TypeVar("_Result")
_Held = dict[int, Any]  # the session as number 0, and its calls

_SESSION: Final = 0


def open_bound(open_session: Callable[[], Session]) -> Session:
    """Open a session, on a thread of its own where it says that it is bound to the one that opens it.

    Raises:
        TfliteHalError: as ``open_session``.
    """
    session = open_session()
    if session.threading != "owner":
        return session
    session.close()  # only an open session says so
    return _BoundSession(open_session)


class _Thread:
    """A thread and what only it may touch: nothing else has a reference, so nothing is destroyed elsewhere.

    A daemon: at the interpreter's end, and in a forked child, what it holds is left as it is.
    """

    def __init__(self) -> None:
        self._jobs: SimpleQueue[Callable[[_Held], None] | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._ended = False
        self._thread = threading.Thread(
            target=_serve, args=(self._jobs,), name="tflite-hal-session", daemon=True
        )
        self._thread.start()

    def do(self, work: Callable[[_Held], _Result], last: bool = False) -> _Result:
        """Return what work answers there, or raise what it raises; the thread ends after the ``last``.

        Raises:
            DelegateError: it has ended, or is another process's.
        """
        if not self.alive:  # in a forked child the lock may be held for ever
            raise DelegateError("the session's thread has ended")
        future: Future[_Result] = Future()
        with self._lock:
            if self._ended:
                raise DelegateError("the session is closed")
            self._ended = last
            self._jobs.put(partial(_answer, future, work))
            if last:
                self._jobs.put(None)
        try:
            return future.result()
        finally:
            del future  # it has the error, which has this frame

    @property
    def alive(self) -> bool:
        """Whether it runs, in this process."""
        return self._thread.is_alive()

    def later(self, *jobs: Callable[[_Held], None] | None) -> None:
        """Have jobs done without waiting; takes no lock, so that a finalizer may call it."""
        for job in jobs:
            self._jobs.put(job)


def _serve(jobs: SimpleQueue[Callable[[_Held], None] | None]) -> None:
    held: _Held = {}
    while (job := jobs.get()) is not None:
        job(held)
        del job
    held.clear()


def _answer(future: Future[_Result], work: Callable[[_Held], _Result], held: _Held) -> None:
    try:
        future.set_result(work(held))
    except BaseException as error:
        future.set_exception(error)
    finally:
        del future, work  # as in do()


def _close(held: _Held) -> None:
    session = held.pop(_SESSION, None)
    held.clear()
    if session is not None:
        session.close()


class _BoundSession(Session):
    """A session on a thread of its own; any thread may call it, the calls come one after the other."""

    threading = "any"

    def __init__(self, open_session: Callable[[], Session]) -> None:
        self._thread = _Thread()
        self._numbers = itertools.count(_SESSION + 1)
        # Dropped without close(): closed all the same, but not at the interpreter's end.
        self._dropped = weakref.finalize(self, self._thread.later, _close, None)
        self._dropped.atexit = False

        def opened(held: _Held) -> Any:
            held[_SESSION] = open_session()
            return held[_SESSION].coverage

        try:
            self.coverage = self._thread.do(opened)
        except BaseException:
            self._dropped()
            raise

    def prepare(self, signature: str | None = None, shapes: Shapes | None = None) -> Call:
        """See :meth:`Session.prepare`."""
        number = next(self._numbers)

        def prepared(held: _Held) -> None:
            held[number] = held[_SESSION].prepare(signature, shapes)

        self._thread.do(prepared)
        return _BoundCall(self, number)

    def reset(self) -> None:
        """See :meth:`Session.reset`."""
        self._thread.do(lambda held: held[_SESSION].reset())

    def close(self) -> None:
        """See :meth:`Session.close`; ends the thread."""
        if self._dropped.detach() is not None and self._thread.alive:
            self._thread.do(_close, last=True)


class _BoundCall(Call):
    def __init__(self, session: _BoundSession, number: int) -> None:
        self._session = session  # which is open as long as a call of it is used
        self._thread = session._thread
        self._number = number
        dropped = weakref.finalize(self, self._thread.later, lambda held: _forget(held, number))
        dropped.atexit = False

    def run(self, arrays: Arrays) -> list[np.ndarray[Any, Any]]:
        """See :meth:`Call.run`."""
        number = self._number
        return self._thread.do(lambda held: held[number].run(arrays))


def _forget(held: _Held, number: int) -> None:
    held.pop(number, None)

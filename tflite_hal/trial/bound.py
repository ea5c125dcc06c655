"""Sessions in this process that only the thread that opened them may use: each gets a thread of its own.

A worker has one thread, so there every session is opened, run and closed by the same one.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np

from tflite_hal.session import Arrays, Call, Session, Shapes

__all__ = ["open_bound"]

_Result = TypeVar("_Result")


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


class _BoundSession(Session):
    """A session on a thread of its own; any thread may call it, the calls come one after the other."""

    threading = "any"

    def __init__(self, open_session: Callable[[], Session]) -> None:
        self._thread = ThreadPoolExecutor(1, "tflite-hal-session")
        try:
            self._inner = self._there(open_session)
        except BaseException:
            self._thread.shutdown(wait=False)
            raise
        self.coverage = self._inner.coverage

    def _there(self, work: Callable[[], _Result]) -> _Result:
        return self._thread.submit(work).result()

    @property
    def boundary_ms(self) -> float | None:
        """See :attr:`Session.boundary_ms`."""
        return self._inner.boundary_ms

    def prepare(self, signature: str | None = None, shapes: Shapes | None = None) -> Call:
        """See :meth:`Session.prepare`."""
        return _BoundCall(self, self._there(lambda: self._inner.prepare(signature, shapes)))

    def reset(self) -> None:
        """See :meth:`Session.reset`."""
        self._there(self._inner.reset)

    def close(self) -> None:
        """See :meth:`Session.close`; ends the thread."""
        try:
            future = self._thread.submit(self._inner.close)
        except RuntimeError:  # closed before
            return
        self._thread.shutdown(wait=False)
        future.result()


class _BoundCall(Call):
    def __init__(self, session: _BoundSession, inner: Call) -> None:
        self._session = session
        self._inner = inner

    def run(self, arrays: Arrays) -> list[np.ndarray[Any, Any]]:
        """See :meth:`Call.run`."""
        return self._session._there(lambda: self._inner.run(arrays))

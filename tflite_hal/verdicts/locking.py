"""A lock between processes that ends with the process that holds it."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from pathlib import Path
from typing import Final

__all__ = ["Lock", "acquire", "is_held"]

_FLAGS: Final = (
    os.O_RDWR | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
)
#: Seconds between two looks: the first, growing to the last.
_PAUSE: Final = 0.005, 0.1

if sys.platform == "win32":
    import msvcrt

    def _take(descriptor: int) -> bool:
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except PermissionError:
            return False
        return True

    def _give(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)
else:
    import fcntl

    def _take(descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _give(descriptor: int) -> None:
        # Closing alone would leave it with a process that was forked meanwhile.
        fcntl.flock(descriptor, fcntl.LOCK_UN)


class Lock:
    """A lock that is held."""

    __slots__ = ("_descriptor", "_path", "_pid")

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path, self._descriptor, self._pid = path, descriptor, os.getpid()

    def release(self) -> None:
        """Let the next one in, and leave no file behind."""
        if self._pid == os.getpid():  # a forked process must not end its parent's lock
            with contextlib.suppress(OSError):  # Windows keeps files that are open; the next one uses it
                self._path.unlink()
            with contextlib.suppress(OSError):  # it ends with the descriptor too
                _give(self._descriptor)
        os.close(self._descriptor)


def acquire(path: Path, limit: float) -> Lock | None:
    """Wait for the lock for ``limit`` seconds; None where another still holds it then.

    Raises:
        OSError: the file can't be made, or its file system has no locks.
    """
    end, pause = time.monotonic() + limit, _PAUSE[0]
    while True:
        descriptor = _attempt(path, os.O_CREAT)
        if descriptor is not None:
            return Lock(path, descriptor)
        left = end - time.monotonic()
        if left <= 0:
            return None
        time.sleep(min(pause, left))
        pause = min(pause * 2, _PAUSE[1])


def is_held(path: Path) -> bool:
    """Return whether someone holds the lock; a file left by a dead process does not."""
    try:
        descriptor = _attempt(path, 0)
    except OSError:
        return False  # no such file, or no locks here
    if descriptor is None:
        return True
    os.close(descriptor)
    return False


def _attempt(path: Path, create: int) -> int | None:
    while True:
        descriptor = os.open(path, _FLAGS | create, 0o600)
        try:
            if not _take(descriptor):
                os.close(descriptor)
                return None
            if _is_at(path, descriptor):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        # Its last holder removed the file between our opening and locking it: others lock a new one.
        os.close(descriptor)


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.lstat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False

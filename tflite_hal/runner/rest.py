"""Devices that failed while running rest before they are tried again, longer each time."""

from __future__ import annotations

import os
import threading
import time
from typing import Final

from tflite_hal.remote import exclusive_key
from tflite_hal.selection import Candidate

__all__ = ["failed", "has_failed", "recovered", "rests"]

#: Seconds a device rests after its first failure, and at most; each failure doubles them.
FIRST: Final = 0.5
MOST: Final = 300.0
#: A device that answered so many calls since its last failure begins anew.
FORGIVEN_AFTER: Final = 50

_lock = threading.Lock()
_until: dict[tuple[str, str], tuple[float, float]] = {}  # when it may be tried, and the pause


def _key(candidate: Candidate) -> tuple[str, str]:
    return exclusive_key(candidate.delegate, candidate.device)


def failed(candidate: Candidate) -> float:
    """Send a device to rest; returns for how many seconds."""
    with _lock:
        _, before = _until.get(_key(candidate), (0.0, FIRST / 2))
        pause = min(before * 2, MOST)
        _until[_key(candidate)] = time.monotonic() + pause, pause
        return pause


def rests(candidate: Candidate) -> bool:
    """Whether a device is not to be tried yet."""
    return time.monotonic() < _until.get(_key(candidate), (0.0, 0.0))[0]


def has_failed(candidate: Candidate) -> bool:
    """Whether a device's failures are remembered: its answers are counted then."""
    return _key(candidate) in _until


def recovered(candidate: Candidate) -> None:
    """Forget the failures of a device that has answered for a while."""
    with _lock:
        _until.pop(_key(candidate), None)


def _new_lock() -> None:
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_new_lock)

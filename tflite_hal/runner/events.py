"""What happens to a runner and does not stop it: kept, and told once as a warning."""

from __future__ import annotations

import sys
import time
import warnings
from collections import deque
from typing import Final, NamedTuple

__all__ = ["Event", "Events", "TfliteHalWarning"]

#: Events a runner keeps.
MOST_EVENTS: Final = 1000


class TfliteHalWarning(UserWarning):
    """Something worked, but not as one might think: a fallback, a saturated input, no isolation."""


class Event(NamedTuple):
    """Something that happened to a runner and did not stop it."""

    when: float  #: seconds since the epoch
    kind: str  #: fallback, isolation, input, fork
    message: str


class Events:
    """The last thousand events, oldest first."""

    def __init__(self) -> None:
        self._events: deque[Event] = deque(maxlen=MOST_EVENTS)
        self._warned: set[str] = set()

    def record(self, kind: str, message: str, *, warn: bool = True) -> None:
        """Keep an event; the first of its text is a warning too."""
        self._events.append(Event(time.time(), kind, message))
        if warn and message not in self._warned:
            self._warned.add(message)
            warnings.warn(message, TfliteHalWarning, stacklevel=_depth_outside())

    def all(self) -> list[Event]:
        """Return them, oldest first."""
        return list(self._events)


def _depth_outside() -> int:
    """Return the stack level of the caller outside this package: a warning should point there."""
    depth, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("tflite_hal."):
        depth, frame = depth + 1, frame.f_back
    return depth

"""What happens to a runner and does not stop it: kept, and told once as a warning."""

from __future__ import annotations

import sys
import time
import warnings
from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

__all__ = ["Event", "Events", "TfliteHalWarning"]

#: Events a runner keeps.
MOST_EVENTS: Final = 1000


class TfliteHalWarning(UserWarning):
    """Something worked, but not as one might think: a fallback, a saturated input, no isolation."""


class Event(NamedTuple):
    """Something that happened to a runner and did not stop it."""

    when: float  #: seconds since the epoch
    #: fallback, failure, recovery, isolation, memory, setting, plugin, profile, variant, absence, input,
    #: fork or callback
    kind: str
    message: str


class Events:
    """The last thousand events, oldest first."""

    def __init__(self, on_event: Callable[[Event], None] | None = None) -> None:
        self._on_event = on_event
        self._events: deque[Event] = deque(maxlen=MOST_EVENTS)
        self._warned: dict[str, None] = {}  # the last ones, oldest first

    def record(self, kind: str, message: str, *, warn: bool = True) -> None:
        """Keep an event; the first of its text is a warning too."""
        event = Event(time.time(), kind, message)
        self._events.append(event)
        self._tell(event)
        if warn and message not in self._warned:
            if len(self._warned) >= MOST_EVENTS:
                del self._warned[next(iter(self._warned))]
            self._warned[message] = None
            warnings.warn(message, TfliteHalWarning, stacklevel=_depth_outside())

    def _tell(self, event: Event) -> None:
        if self._on_event is None:
            return
        # The application's own code: its failure must not cost the answer that is under way.
        try:
            self._on_event(event)
        except Exception as error:
            text = f"on_event= raised {type(error).__name__}: {error}"
            self._events.append(Event(time.time(), "callback", text))

    def all(self) -> list[Event]:
        """Return them, oldest first."""
        return list(self._events)


def _depth_outside() -> int:
    """Return the stack level of the caller outside this package: a warning should point there."""
    depth, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("tflite_hal."):
        depth, frame = depth + 1, frame.f_back
    return depth

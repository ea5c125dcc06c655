"""The prepared calls of one session, one per signature and shapes."""

from __future__ import annotations

from typing import Any

import numpy as np

from tflite_hal.session import MOST_CALLS, Call
from tflite_hal.trial import Opened

__all__ = ["Arrays", "Calls"]

Arrays = list[np.ndarray[Any, Any]]


class Calls:
    """Prepares calls of a session as they are needed, and keeps the last; used by one thread at a time."""

    def __init__(self, opened: Opened) -> None:
        self._opened = opened
        self._calls: dict[tuple[Any, ...], Call] = {}

    def __len__(self) -> int:
        return len(self._calls)

    def known(self, signature: str | None, arrays: Arrays) -> Call | None:
        """Return the call for inputs like these, None where it is not prepared."""
        return self._calls.get((signature, *[array.shape for array in arrays]))

    def prepared(self, signature: str | None, arrays: Arrays) -> Call:
        """Return the call for inputs like these.

        Raises:
            TfliteHalError: as :meth:`tflite_hal.Session.prepare`.
        """
        key = (signature, *[array.shape for array in arrays])
        call = self._calls.get(key)
        if call is None:
            if len(self._calls) >= MOST_CALLS:
                del self._calls[next(iter(self._calls))]  # the oldest: each holds memory for its tensors
            call = self._calls[key] = self._opened.prepare(signature, key[1:])
        return call

    def clear(self) -> None:
        """Forget them, before the session is closed."""
        self._calls.clear()

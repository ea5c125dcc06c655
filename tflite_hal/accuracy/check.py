"""What a caller may set about the comparison."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any, NamedTuple

import numpy as np

from tflite_hal.errors import InputError

__all__ = ["Check", "Grade", "validated"]


class Grade(str, Enum):
    """How right a candidate is, best first."""

    OK = "ok"
    DEGRADED = "degraded"  #: used only by who accepts it
    WRONG = "wrong"  #: never used


class Check(NamedTuple):
    """What a caller may set about the comparison."""

    #: Inputs as ``predict`` takes them, one per call; None compares on seeded inputs only.
    samples: Sequence[Any] | None = None
    #: The largest error of any answer, as defined above, for every kind of model and output: up to it
    #: ok, beyond wrong. 0 is bit by bit, 0.05 is 12 steps of 256. None: the defaults.
    tolerance: float | None = None
    accept: str = "ok"  #: the worst grade that is used: ``ok`` or ``degraded``
    seeded: int = 8  #: number of seeded inputs; of fewer than four, "typical" says little

    def key(self) -> str:
        """Return 16 hexadecimal digits that differ where a setting or a byte of the samples does.

        For a check that is validated; the same samples as another type have another key.
        """
        digest = hashlib.sha256()
        settings = [self.tolerance, Grade(self.accept).value, self.seeded]
        digest.update(json.dumps(settings).encode())
        _feed(digest, None if self.samples is None else list(self.samples))
        return digest.hexdigest()[:16]


def validated(check: Check) -> Check:
    """Return the check with plain values.

    Raises:
        InputError: a value is of the wrong kind or out of range; says which and what it may be.
    """
    samples, tolerance, accept, seeded = check
    if samples is not None and (not isinstance(samples, (list, tuple)) or not samples):
        given = "an empty one" if isinstance(samples, (list, tuple)) else type(samples).__name__
        raise InputError(
            f"samples takes a list of inputs, not {given}", remedy="give one entry per call of predict"
        )
    number = isinstance(tolerance, (int, float, np.integer, np.floating)) and not isinstance(tolerance, bool)
    if tolerance is not None and not (number and 0 <= tolerance <= 1):
        raise InputError(f"tolerance takes None or a share of the range from 0 to 1, not {tolerance!r}")
    if not isinstance(accept, str) or accept not in ("ok", "degraded"):
        raise InputError(f"accept takes 'ok' or 'degraded', not {accept!r}")
    whole = isinstance(seeded, (int, np.integer)) and not isinstance(seeded, bool)
    if not whole or not (samples is None) <= seeded <= 1000:
        least = "1 to 1000 without samples, 0 to 1000 with them"
        raise InputError(f"seeded takes a number of inputs, {least}, not {seeded!r}")
    kept = None if samples is None else tuple(samples)
    allowed = None if tolerance is None else float(tolerance)
    return Check(kept, allowed, Grade(accept).value, int(seeded))


def _feed(digest: Any, value: Any) -> None:
    """Hash a sample: arrays by dtype, shape and bytes; containers by their parts."""
    if isinstance(value, Mapping):
        _feed(digest, [[name, value[name]] for name in sorted(value, key=str)])
    elif isinstance(value, (list, tuple)):
        digest.update(f"[{len(value)}".encode())
        for part in value:
            _feed(digest, part)
    elif isinstance(value, (str, bytes)):
        data = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value
        digest.update(f"{type(value).__name__}{len(data)}:".encode() + data)
    else:
        array = np.asarray(value)
        if not array.dtype.hasobject:
            digest.update(f"{array.dtype.str}{array.shape}".encode() + array.tobytes())
        elif array.ndim:
            _feed(digest, [list(array.shape), array.reshape(-1).tolist()])
        else:
            digest.update(repr(array.item()).encode())

"""The faults themselves, for the delegate in Python; ``faults.c`` does the same in C."""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, NoReturn

import numpy as np

from tflite_hal.errors import DelegateError

__all__ = ["ENDING", "NUMERIC", "STAGES", "Settings", "changed", "misbehave"]

#: Faults that end a call or the process, at any stage.
ENDING: Final = ("error", "segv", "abort", "exit0", "exit7", "hang")
#: Faults that change numbers, at stage ``run`` only.
NUMERIC: Final = ("wrong", "small", "nan", "inf", "zero", "constant", "stale")
STAGES: Final = ("create", "delegate_prepare", "kernel_prepare", "run", "destroy")

_MOST_CODES: Final = 1024
_MOST_STEPS: Final = 127


class Settings(NamedTuple):
    """The options, read."""

    operators: frozenset[int] | None = None  #: builtin codes; None is every operator but custom ones
    fault: str = "none"
    stage: str = "run"
    at: int = 1
    steps: int = 3

    @classmethod
    def checked(cls, name: str, given: Mapping[str, Any]) -> Settings:
        """Read options whose names and types were checked.

        Raises:
            DelegateError: a value that can't be followed, in the words of the library.
        """
        settings = cls(**{**given, "operators": _codes(name, str(given.get("operators", "all")))})
        for option, value, most in (("at", settings.at, 2**31 - 1), ("steps", settings.steps, _MOST_STEPS)):
            if not 1 <= value <= most:
                raise DelegateError(f"{name}: option {option}={value} is not understood")
        if settings.fault in NUMERIC and settings.stage != "run":
            raise DelegateError(f"{name}: {settings.fault} changes numbers, which is at stage run only")
        return settings

    def takes(self, code: int, custom: bool) -> bool:
        """Whether the operator with this builtin code is to be taken."""
        return not custom if self.operators is None else code in self.operators


def _codes(name: str, text: str) -> frozenset[int] | None:
    if text == "all":
        return None
    try:
        codes = frozenset(int(code) for code in text.split(","))
    except ValueError:
        codes = frozenset((-1,))
    if not all(0 <= code < _MOST_CODES for code in codes):
        raise DelegateError(f"{name}: option operators={text} is not understood")
    return codes


def misbehave(settings: Settings, stage: str, runs: int = 0) -> str:
    """Do what is asked for at this stage; return the message of an error that the caller is to raise.

    Returns "" where nothing is to happen.
    """
    here = settings.fault in ENDING and settings.stage == stage
    if not here or (stage == "run" and runs < settings.at):
        return ""
    text = f"tflite-hal fault injection: {settings.fault} at {stage}" + (f" {runs}" if stage == "run" else "")
    if settings.fault != "error" or stage == "destroy":
        os.write(2, f"{text}\n".encode())  # not through Python's buffers, which the fault may lose
    if settings.fault != "error":
        _end(settings.fault, holding=stage != "run")
    return text


def _end(fault: str, *, holding: bool) -> NoReturn:
    """End the process as asked; a hang keeps Python's lock where the runtimes call a library with it."""
    if fault == "segv":
        ctypes.memset(0, 0, 1)
    if fault == "abort":
        os.abort()
    if fault.startswith("exit"):
        os._exit(int(fault.removeprefix("exit")))
    while True:
        ctypes.PyDLL(None).pause() if holding else time.sleep(3600)


def changed(fault: str, values: np.ndarray[Any, Any], steps: int) -> np.ndarray[Any, Any]:
    """Return what a fault makes of a flat array; the same array where it leaves the type alone."""
    if fault == "zero":
        return np.zeros_like(values)
    if fault == "constant":
        return np.resize(values[:1], values.shape)
    if values.dtype == np.float32:
        return _changed_floats(fault, values, steps)
    return _changed_integers(fault, values, steps) if values.dtype.kind in "iu" else values


def _changed_floats(fault: str, values: np.ndarray[Any, Any], steps: int) -> np.ndarray[Any, Any]:
    changed = np.full_like(values, np.nan if fault == "nan" else np.inf)
    finite = values[np.isfinite(values)]
    span = (np.ptp(finite) if finite.size else 0) or np.float32(1)
    if fault == "wrong":
        changed[...] = -values - span  # reversed as for integers, and moved: values of zero change too
    if fault == "small":
        # Had it been quantised, 256 steps would cover the range.
        changed[...] = values + span / np.float32(256) * np.float32(steps)
    return changed


def _changed_integers(fault: str, values: np.ndarray[Any, Any], steps: int) -> np.ndarray[Any, Any]:
    highest = np.iinfo(values.dtype).max
    changed = np.array(values)
    if fault == "wrong":
        changed[...] = ~values  # reversed about the middle of the type: nothing leaves its range
    if fault == "small":
        step = values.dtype.type(steps)
        changed[...] = np.where(values <= highest - step, values + step, values - step)
    if fault == "inf":
        changed[...] = highest
    return changed

"""Runs a tiny model on every device that was found, in child processes, and compares the answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

from tflite_hal.accuracy import Check, validated
from tflite_hal.delegate import Delegate, Device, Probe
from tflite_hal.diagnosis.tiny import TINY, tiny_model
from tflite_hal.model import Model, read_model
from tflite_hal.profiles import DeviceProfile
from tflite_hal.runtime import Runtime
from tflite_hal.selection import DELEGATES, Attempt, Candidate, Outcome, Wish, candidates
from tflite_hal.trial import Terms, verify
from tflite_hal.trust import Distrust

__all__ = ["Run", "runs"]

_BROKEN: Final = (Outcome.FAILED, Outcome.CRASHED, Outcome.HUNG, Outcome.WRONG, Outcome.DEGRADED)


class Run(NamedTuple):
    """What became of the tiny model on a device."""

    state: str  #: ``ok``, ``failed`` or ``unknown``: not run
    stage: str  #: ``open`` or ``run``
    text: str  #: what it did, or why it did not
    remedy: str = ""


def runs(
    delegates: Sequence[Delegate],
    probes: Mapping[str, Probe],
    profile: DeviceProfile | None,
    runtime: Runtime,
    barred: Callable[[Delegate, Device], Distrust | None],
    allowed: Sequence[str] | None = None,
) -> dict[tuple[str, str], Run]:
    """Return what became of each device, by the names of delegate and device.

    Each is given the first model that it takes, by its first configuration, within the delegate's own
    time limits; nothing of it is remembered.
    """
    result: dict[tuple[str, str], Run] = {}
    wish = Wish(allowed, cpu_last=False, named_by=f"{DELEGATES}=")
    for precision in TINY:
        model = read_model(tiny_model(precision))
        found = candidates(model, delegates, probes, profile, runtime, wish, barred)
        first: dict[tuple[str, str], Candidate] = {}
        for candidate in found.found:
            place = (candidate.delegate.name, candidate.device.id)
            if result.get(place, _NOT).state == "unknown":
                first.setdefault(place, candidate)
        attempts = verify(list(first.values()), model, _terms(model))
        result |= {place: _of(one, precision) for place, one in zip(first, attempts, strict=True)}
        for one in found.refused:
            if result.get((one.delegate, one.device), _NOT).state == "unknown":
                result[one.delegate, one.device] = _refused(one)
    return result


_NOT: Final = Run("unknown", "run", "")


def _terms(model: Model) -> Terms:
    return Terms(check=validated(Check()), isolate=True)


def _of(attempt: Attempt, precision: str) -> Run:
    stage = "run" if attempt.stage in ("run", "compare") else "open"
    if attempt.outcome is Outcome.RIGHT:
        coverage = "" if attempt.coverage is None else f", {attempt.coverage}"
        return Run("ok", "run", f"ran a convolution in {precision} rightly{coverage}")
    if attempt.outcome in _BROKEN:
        return Run("failed", stage, attempt.reason, attempt.remedy)
    return Run("unknown", stage, f"not run: {attempt.reason or attempt.outcome.value}", attempt.remedy)


def _refused(attempt: Attempt) -> Run:
    """Return what is told of a device without candidate; a library that is known to crash is one that
    fails, without being tried."""
    if attempt.outcome is Outcome.FAILED or (attempt.outcome is Outcome.UNAVAILABLE and attempt.remedy):
        return Run("failed", "open", attempt.reason, attempt.remedy)
    return Run("unknown", "run", f"not run: {attempt.reason}", attempt.remedy)

"""Compares every candidate with the built-in kernels, and chooses and times none."""

from __future__ import annotations

import time
from collections.abc import Sequence

from tflite_hal.errors import TfliteHalError
from tflite_hal.model import Model
from tflite_hal.selection import Attempt, Candidate, Outcome
from tflite_hal.trial.gate import Gate, why_untried
from tflite_hal.trial.proof import Terms, failed

__all__ = ["verify"]


def verify(found: Sequence[Candidate], model: Model, terms: Terms) -> list[Attempt]:
    """Return an attempt of every candidate: ``right``, or what a choice would make of it.

    Those without a comparison were compared with nothing: the built-in kernels themselves, which are
    the measure, and what can't be opened. Each is closed before the next is opened.
    """
    if not found:
        return []
    gate = Gate(model, terms, found[0].runtime)
    attempts: list[Attempt] = []
    try:
        missing = _without_measure(gate)
        for candidate in found:
            reason = why_untried(candidate, attempts, False)
            started = time.perf_counter()
            if missing is not None:
                attempt = failed(candidate, missing)._replace(outcome=Outcome.UNTRIED)
            elif reason:
                attempt = Attempt.of(candidate, Outcome.UNTRIED, reason=reason)
            else:
                attempt = _verified(gate, candidate)
            attempts.append(attempt._replace(seconds=time.perf_counter() - started))
    finally:
        gate.close([])
    return attempts


def _without_measure(gate: Gate) -> TfliteHalError | None:
    """Return why nothing can be compared, None where the built-in kernels have answered."""
    try:
        gate.attempt(gate.measure)
    except TfliteHalError as error:
        reason = f"there is nothing to compare with, the built-in kernels fail: {error.reason}"
        return TfliteHalError(reason, remedy=error.remedy)
    if gate.inputs:
        return None
    return TfliteHalError("there is no input to compare on: the model takes text", remedy="give samples")


def _verified(gate: Gate, candidate: Candidate) -> Attempt:
    try:
        opened, attempt = gate.attempt(candidate)
    except TfliteHalError as error:
        return failed(candidate, error)
    if opened is not None:
        opened.session.close()
    return attempt._replace(outcome=Outcome.RIGHT) if attempt.outcome is Outcome.CHOSEN else attempt

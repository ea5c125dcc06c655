"""Errors as the caller of ``predict`` gets them: with what to do."""

from __future__ import annotations

from tflite_hal.errors import TfliteHalError
from tflite_hal.runner.choice import OTHERS

__all__ = ["interrupted", "with_remedy"]


def with_remedy(error: TfliteHalError) -> TfliteHalError:
    """Return an error that says what to do, if only to use another device."""
    return error if error.remedy else _told(error, error.reason, OTHERS)


def interrupted(error: TfliteHalError, model: str, place: str) -> TfliteHalError:
    """Return the error of a stateful model that goes on elsewhere without its earlier inputs."""
    reason = f"{error.reason}; {model} is stateful, {place} goes on from a fresh state"
    return _told(error, reason, "give the sequence again from its beginning")


def _told(error: TfliteHalError, reason: str, remedy: str) -> TfliteHalError:
    told = type(error)(reason, remedy=remedy)
    told.stage = error.stage
    return told

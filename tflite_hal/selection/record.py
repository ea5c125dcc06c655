"""The whole record of one choice."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any, NamedTuple

from tflite_hal.accuracy import Comparison
from tflite_hal.delegate import Configuration, Delegate, Device
from tflite_hal.runtime import Runtime
from tflite_hal.session import Coverage

__all__ = ["Attempt", "Candidate", "Outcome", "Selection"]


class Outcome(str, Enum):
    """What became of a candidate."""

    CHOSEN = "chosen"
    SLOWER = "slower"
    DEGRADED = "degraded"
    WRONG = "wrong"
    UNSUPPORTED = "unsupported"
    UNAVAILABLE = "unavailable"
    FAILED = "failed"
    CRASHED = "crashed"
    HUNG = "hung"
    QUARANTINED = "quarantined"
    EXCLUDED = "excluded"
    UNTRIED = "untried"


class Candidate(NamedTuple):
    """One way to run the model."""

    delegate: Delegate
    device: Device
    configuration: Configuration
    runtime: Runtime
    environment: Mapping[str, str] = {}  #: the profile's, for the process that loads the library


class Attempt(NamedTuple):
    """A candidate, or a delegate that gave none, and what became of it."""

    delegate: str
    device: str  #: its id; "" where the delegate has no device here
    kind: str  #: of the device, "" as above
    configuration: str
    runtime: str
    outcome: Outcome
    stage: str = ""  #: where it ended: probe, open, allocate, run, compare, close
    reason: str = ""
    remedy: str = ""
    seconds: float = 0.0  #: spent on it
    coverage: Coverage | None = None  #: operators taken, None = not reported
    comparison: Comparison | None = None  #: with the built-in kernels' answers; None = not compared
    latency_ms: float | None = None  #: of one run, measured beside the others'; None = not measured

    def to_dict(self) -> dict[str, Any]:
        """Return it JSON-ready."""
        coverage = None if self.coverage is None else self.coverage._asdict()
        comparison = None if self.comparison is None else self.comparison.to_dict()
        given = {"outcome": self.outcome.value, "coverage": coverage, "comparison": comparison}
        return {**self._asdict(), **given}

    @classmethod
    def of(cls, candidate: Candidate, outcome: Outcome, **details: Any) -> Attempt:
        """Return the attempt of a candidate."""
        return cls(
            candidate.delegate.name,
            candidate.device.id,
            candidate.device.kind,
            str(candidate.configuration),
            candidate.runtime.name,
            outcome,
            **details,
        )

    def __str__(self) -> str:
        text = self.outcome.value
        if self.stage and self.outcome not in (Outcome.UNTRIED, Outcome.EXCLUDED):
            text += f" at {self.stage}"
        if self.latency_ms is not None:
            text += f", {self.latency_ms:.3g} ms"
        if self.reason:
            text += f": {self.reason}"
        return f"{text} (to fix it: {self.remedy})" if self.remedy else text


class Selection:
    """All attempts in order, the profile, the winner.

    Attributes:
        model: name of the model's file.
        profile: name of the device profile, "" where none matched.
        attempts: in the order they were made.
        compared: whether candidates were measured against each other.
    """

    __slots__ = ("attempts", "compared", "model", "profile")

    def __init__(self, model: str, profile: str) -> None:
        self.model = model
        self.profile = profile
        self.attempts: list[Attempt] = []
        self.compared = False

    @property
    def winner(self) -> Attempt | None:
        """The attempt that was chosen."""
        return next((a for a in self.attempts if a.outcome is Outcome.CHOSEN), None)

    def to_dict(self) -> dict[str, Any]:
        """Return it JSON-ready."""
        winner = self.winner
        return {
            "model": self.model,
            "profile": self.profile,
            "compared": self.compared,
            "winner": None if winner is None else winner.to_dict(),
            "attempts": [attempt.to_dict() for attempt in self.attempts],
        }

    def __str__(self) -> str:
        winner = self.winner
        head = f"{self.model}: " + ("nothing answered" if winner is None else _title(winner))
        if winner is not None and winner.coverage is not None:
            head += f", {winner.coverage.taken} of {winner.coverage.total} operators"
        if winner is not None and winner.latency_ms is not None:
            head += f", {winner.latency_ms:.3g} ms"
        if winner is not None and winner.comparison is None and winner.delegate != "builtin":
            head += " (not compared with the built-in kernels)"
        rest = [f"  {_title(a)}: {a}" for a in self.attempts if a is not winner]
        return "\n".join([head, *rest])


def _title(attempt: Attempt) -> str:
    place = f" on {attempt.device}" if attempt.device else ""
    details = ", ".join(part for part in (attempt.configuration, attempt.runtime) if part)
    return f"{attempt.delegate}{place}" + (f" ({details})" if details else "")

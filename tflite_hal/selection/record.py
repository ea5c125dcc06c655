"""The whole record of one choice."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any, NamedTuple

from tflite_hal.accuracy import Comparison, Grade
from tflite_hal.delegate import Configuration, Delegate, Device
from tflite_hal.model import Model, Variant
from tflite_hal.runtime import Runtime
from tflite_hal.session import Coverage

__all__ = ["Attempt", "Candidate", "Outcome", "Selection"]


class Outcome(str, Enum):
    """What became of a candidate."""

    CHOSEN = "chosen"
    RIGHT = "right"  #: may be used, where the question was only whether it answers rightly
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
    limits: Mapping[str, float] = {}  #: the profile's seconds per stage, instead of the delegate's
    check: Mapping[str, Any] = {}  #: the profile's settings of how right it must be
    variant: Variant | None = None  #: what it opens instead of the model that was named
    load: int = 0  #: sessions that are open on its device in this process

    @property
    def equals(self) -> tuple[str, str, str]:
        """What it has in common with those on devices that are as good: spread over them."""
        return self.delegate.name, self.device.kind, self.device.name

    def opens(self, model: Model) -> Model:
        """Return what it opens of the model that was named."""
        return model if self.variant is None else self.variant.model


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
    #: Latency and boundary of the last races it took part in, by the race's name: only those of one race
    #: can be compared, since each was measured beside others, perhaps on a busier machine.
    races: Mapping[str, tuple[float, float | None]] = {}
    boundary_ms: float | None = None  #: the process boundary's part of it; None = there is none
    recalled: bool = False  #: known from an earlier trial
    rank: int | None = None  #: 1 is used first, the next where it fails; None = never used
    variant: str = ""  #: the file that it opens instead of the model that was named
    load: int = 0  #: sessions that were open on its device in this process

    def to_dict(self) -> dict[str, Any]:
        """Return it JSON-ready."""
        coverage = None if self.coverage is None else self.coverage.to_dict()
        comparison = None if self.comparison is None else self.comparison.to_dict()
        given: dict[str, Any] = {
            "outcome": self.outcome.value,
            "coverage": coverage,
            "comparison": comparison,
        }
        given["races"] = {name: list(figures) for name, figures in self.races.items()}
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
            variant="" if candidate.variant is None else candidate.variant.model.name,
            load=candidate.load,
        )

    @classmethod
    def remembered(cls, candidate: Candidate, record: Mapping[str, Any]) -> Attempt | None:
        """Return the attempt of a candidate from what :meth:`to_dict` gave, None where that is none."""
        try:
            coverage, comparison = record.get("coverage"), record.get("comparison")
            latency, boundary = record.get("latency_ms"), record.get("boundary_ms")
            return cls.of(
                candidate,
                Outcome(record["outcome"]),
                stage=str(record["stage"]),
                reason=str(record["reason"]),
                remedy=str(record["remedy"]),
                coverage=None if coverage is None else Coverage.from_dict(coverage),
                comparison=None if comparison is None else Comparison.from_dict(comparison),
                latency_ms=_float(latency),
                races={str(n): (float(ms), _float(part)) for n, (ms, part) in record["races"].items()},
                boundary_ms=_float(boundary),
                recalled=True,
            )
        except (KeyError, TypeError, ValueError, AttributeError):
            return None  # written by another release

    def __str__(self) -> str:
        text = ", ".join([self.ending, *self.figures])
        if self.reason:
            text += f": {self.reason}"
        return f"{text} (to fix it: {self.remedy})" if self.remedy else text

    @property
    def title(self) -> str:
        """What was tried: ``xnnpack on cpu (threads=1, ai_edge_litert)``."""
        place = f" on {self.device}" if self.device else ""
        details = ", ".join(filter(None, (self.configuration, self.variant, self.runtime)))
        return f"{self.delegate}{place}" + (f" ({details})" if details else "")

    @property
    def ending(self) -> str:
        """The outcome, and the stage where it ended if that says more."""
        plain = self.outcome in _WITHOUT_STAGE or not self.stage
        return self.outcome.value if plain else f"{self.outcome.value} at {self.stage}"

    @property
    def figures(self) -> list[str]:
        """What was measured, each in a few words; a reason that tells the error is not repeated."""
        figures = []
        if self.coverage is not None:
            figures.append(f"{self.coverage.taken} of {self.coverage.total} operators")
        if self.latency_ms is not None:
            boundary = "" if self.boundary_ms is None else f" ({self.boundary_ms:.2g} ms process boundary)"
            figures.append(f"{self.latency_ms:.3g} ms{boundary}")
        if self.load:
            figures.append(f"shared with {self.load} open session{'s' * (self.load > 1)}")
        if self.comparison is not None and not self.reason:
            figures.append(_apart(self.comparison))
        return figures


#: Outcomes of a comparison, and of what was never begun.
_WITHOUT_STAGE = (Outcome.WRONG, Outcome.DEGRADED, Outcome.UNTRIED, Outcome.EXCLUDED)


def _apart(comparison: Comparison) -> str:
    if comparison.grade is Grade.OK and not comparison.error:
        return "answers as the built-in kernels do"
    grade = "" if comparison.grade is Grade.OK else f"{comparison.grade.value}, "
    return f"{grade}at most {comparison.difference} from the built-in kernels"


def _float(given: Any) -> float | None:
    return None if given is None else float(given)


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

    def mark(
        self, candidate: Candidate, outcome: Outcome, reason: str, *, only: Outcome | None = None
    ) -> bool:
        """Write down what became of a candidate while running, where it was ``only`` that before; whether
        that is new."""
        title, before = Attempt.of(candidate, outcome)[:5], tuple(self.attempts)
        for place, attempt in enumerate(self.attempts):
            if attempt[:5] == title and (only is None or attempt.outcome is only):
                stage = "run" if reason else ""
                self.attempts[place] = attempt._replace(
                    outcome=outcome, stage=stage, reason=reason, remedy=""
                )
        return before != tuple(self.attempts)

    def latency_of(self, candidate: Candidate) -> float:
        """Return what was measured of a candidate, in milliseconds; 0 where nothing was."""
        title = Attempt.of(candidate, Outcome.CHOSEN)[:5]
        return next((a.latency_ms or 0.0 for a in self.attempts if a[:5] == title), 0.0)

    def rank(self, order: Iterable[Candidate]) -> None:
        """Write down in which order the candidates that are right are used."""
        places = {Attempt.of(one, Outcome.CHOSEN)[:5]: place for place, one in enumerate(order, 1)}
        self.attempts = [attempt._replace(rank=places.get(attempt[:5])) for attempt in self.attempts]

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
        head = f"{self.model}: " + ("nothing answered" if winner is None else winner.title)
        if winner is not None:
            head = ", ".join([head, *winner.figures])
        if winner is not None and winner.comparison is None and winner.delegate != "builtin":
            head += " (not compared with the built-in kernels)"
        rest = [f"  {a.title}: {a}" for a in self.attempts if a is not winner]
        return "\n".join([head, *rest])

"""Tries candidates in order, compares their answers, times those that are right, takes the fastest."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from tflite_hal.accuracy import Comparison, Grade, compare, model_kind
from tflite_hal.delegate import Configuration, Device
from tflite_hal.errors import TfliteHalError
from tflite_hal.kernels import BuiltinKernels
from tflite_hal.model import Model
from tflite_hal.runtime import Runtime
from tflite_hal.selection import Attempt, Candidate, Outcome, Selection, is_own_cpu
from tflite_hal.trial.inputs import seeded_inputs
from tflite_hal.trial.proof import Answers, Opened, Proof, Terms, outcome_of, prove
from tflite_hal.trial.race import race

__all__ = ["Chosen", "choose"]

#: Seeded inputs that are enough for a slow model.
FEW_INPUTS: Final = 4
#: Latencies within this factor are equal: the order decides.
NOISE: Final = 1.05


class Chosen(NamedTuple):
    """What came of trying the candidates."""

    opened: Opened | None
    alternatives: list[Candidate]  #: the other ones that were right, best first
    failures: list[tuple[Candidate, TfliteHalError]]


class _Right(NamedTuple):
    """A candidate that may be used, and the place of its attempt in the selection."""

    opened: Opened
    place: int


def choose(found: Sequence[Candidate], model: Model, selection: Selection, terms: Terms) -> Chosen:
    """Record an attempt of every candidate in the selection, and return the best.

    By order, the first that is right is taken and what comes after it stays untried. Else all that are
    right are timed side by side, each where it would live.
    """
    trial = _Trial(model, terms, found[0].runtime) if found else None
    right: list[_Right] = []
    failures: list[tuple[Candidate, TfliteHalError]] = []
    try:
        for candidate in found:
            reason = _why_untried(candidate, selection.attempts, bool(right), terms)
            if reason or trial is None:
                selection.attempts.append(Attempt.of(candidate, Outcome.UNTRIED, reason=reason))
                continue
            started = time.perf_counter()
            try:
                opened, attempt = trial.attempt(candidate)
            except TfliteHalError as error:
                failures.append((candidate, error))
                opened, attempt = None, _failed(candidate, error)
            if opened is not None:
                right.append(_Right(opened, len(selection.attempts)))
            selection.attempts.append(attempt._replace(seconds=time.perf_counter() - started))
        ranked = _ranked(right, selection, terms, trial, failures)
    except BaseException:
        for one in right:
            one.opened.session.close()
        raise
    finally:
        if trial is not None:
            trial.close([one.opened for one in right])
    for loser in ranked[1:]:
        loser.opened.session.close()
    alternatives = [one.opened.candidate for one in ranked[1:]]
    if ranked and trial is not None:
        used = [one.opened.candidate for one in ranked]
        alternatives += [c for c in found if c not in used and trial.is_proven(c)]
    return Chosen(ranked[0].opened if ranked else None, alternatives, failures)


def _why_untried(candidate: Candidate, attempts: Sequence[Attempt], found: bool, terms: Terms) -> str:
    if found and terms.prefer == "order":
        return "comes after what is used"
    place = (candidate.delegate.name, candidate.device.id)
    ends = [attempt.outcome for attempt in attempts if (attempt.delegate, attempt.device) == place]
    if Outcome.CRASHED in ends or Outcome.HUNG in ends:
        return "another configuration crashed or hung"
    if candidate.configuration.remedy and not {Outcome.WRONG, Outcome.DEGRADED} & set(ends):
        return "only where other configurations answer wrongly"
    return ""


def _failed(candidate: Candidate, error: TfliteHalError) -> Attempt:
    details = {"stage": error.stage or "open", "reason": error.reason, "remedy": error.remedy}
    return Attempt.of(candidate, outcome_of(error), **details)


class _Trial:
    """One model's inputs and the built-in kernels' answers to them, made when first needed."""

    def __init__(self, model: Model, terms: Terms, runtime: Runtime) -> None:
        self._model = model
        self._terms = terms
        kernels, device = BuiltinKernels(), Device("cpu", "cpu")
        self._builtin = Candidate(kernels, device, Configuration(threads=1), runtime)
        specs = model.info.inputs
        seeded = 0 if any(spec.dtype.hasobject for spec in specs) else terms.check.seeded
        self.inputs: list[Sequence[Any]] = [*terms.samples, *[seeded_inputs(specs, n) for n in range(seeded)]]
        self._reference: Proof | TfliteHalError | None = None

    def attempt(self, candidate: Candidate) -> tuple[Opened | None, Attempt]:
        """Try a candidate; returns its session where it may be used."""
        reference = self._answered_by_builtin()
        if self._is_builtin(candidate):
            if isinstance(reference, TfliteHalError):
                raise reference
            opened = reference.opened._replace(candidate=candidate)
            return opened, Attempt.of(candidate, Outcome.CHOSEN, coverage=opened.session.coverage)
        opened, answers = prove(candidate, self._model, self.inputs, self._terms)
        comparison = self._compared(reference, answers)
        outcome = self._graded(candidate, comparison)
        details: dict[str, Any] = {"comparison": comparison, "coverage": opened.session.coverage}
        if outcome is Outcome.CHOSEN:
            return opened, Attempt.of(candidate, outcome, **details)
        opened.session.close()
        assert comparison is not None  # noqa: S101 -- for the type checker: it was graded
        remedy = "check=Check(accept='degraded') uses it" if outcome is Outcome.DEGRADED else ""
        return None, Attempt.of(
            candidate, outcome, stage="compare", reason=comparison.reason, remedy=remedy, **details
        )

    def _is_builtin(self, candidate: Candidate) -> bool:
        builtin = self._builtin
        return candidate[2:4] == builtin[2:4] and candidate.delegate.name == builtin.delegate.name

    def is_proven(self, candidate: Candidate) -> bool:
        """Whether it has answered although it was not its turn: as what the others are compared with."""
        return isinstance(self._reference, Proof) and self._is_builtin(candidate)

    def _graded(self, candidate: Candidate, comparison: Comparison | None) -> Outcome:
        """Return CHOSEN for what may be used. What ships with the runtime may be degraded: its kernels
        are no further from the truth than the built-in ones."""
        if comparison is None or comparison.grade is Grade.OK:
            return Outcome.CHOSEN
        if comparison.grade is Grade.WRONG:
            return Outcome.WRONG
        accepted = self._terms.check.accept == "degraded" or is_own_cpu(candidate.delegate, candidate.device)
        return Outcome.CHOSEN if accepted else Outcome.DEGRADED

    def _answered_by_builtin(self) -> Proof | TfliteHalError:
        if self._reference is None:
            least = len(self._terms.samples) + FEW_INPUTS
            try:
                self._reference = prove(self._builtin, self._model, self.inputs, self._terms, least=least)
                del self.inputs[len(self._reference.answers) :]
            except TfliteHalError as error:
                self._reference = error
        return self._reference

    def _compared(self, reference: Proof | TfliteHalError, given: Answers) -> Comparison | None:
        """Compare on the caller's samples and on the seeded inputs: what is wrong on these is not used,
        but how near right it is, the samples say. None where the built-in kernels have no answers."""
        if isinstance(reference, TfliteHalError) or not reference.answers:
            return None
        right = reference.answers
        kind, outputs, own = model_kind(self._model.info), self._model.info.outputs, len(self._terms.samples)
        found = [
            compare(right[part], given[part], outputs, kind, self._terms.check)
            for part in (slice(0, own), slice(own, None))
            if right[part]
        ]
        wrong = [one for one in found if one.grade is Grade.WRONG]
        return (wrong or found)[0]

    def close(self, kept: Sequence[Opened]) -> None:
        """Close the built-in kernels' session unless it is one of those kept."""
        if isinstance(self._reference, Proof) and all(
            one.session is not self._reference.opened.session for one in kept
        ):
            self._reference.opened.session.close()


def _ranked(
    right: list[_Right],
    selection: Selection,
    terms: Terms,
    trial: _Trial | None,
    failures: list[tuple[Candidate, TfliteHalError]],
) -> list[_Right]:
    """Return what is right, best first, and write down who is chosen and who is slower."""
    attempts = selection.attempts
    if trial is not None and trial.inputs and len(right) > 1 and terms.prefer != "order":
        timed = race([one.opened for one in right], trial.inputs[0])
        selection.compared = True
        for one, latency in zip(right, timed, strict=True):
            if isinstance(latency, TfliteHalError):
                failures.append((one.opened.candidate, latency))
                attempts[one.place] = _failed(one.opened.candidate, latency)
                one.opened.session.close()
            else:
                attempts[one.place] = attempts[one.place]._replace(latency_ms=latency)
        right = [one for one in right if attempts[one.place].outcome is Outcome.CHOSEN]
        costs = {one.place: _cost(one, attempts[one.place], terms) for one in right}
        best = min(costs.values(), default=0.0)
        # Equal ones keep their order, in front of the slower ones.
        right.sort(key=lambda one: 0.0 if costs[one.place] <= NOISE * best else costs[one.place])
    for loser in right[1:]:
        attempts[loser.place] = attempts[loser.place]._replace(outcome=Outcome.SLOWER)
    return right


def _cost(one: _Right, attempt: Attempt, terms: Terms) -> float:
    """Return what is to be small: the latency; for throughput that of all CPU threads it occupies, which
    could run other instances meanwhile."""
    latency = attempt.latency_ms or 0.0
    return (
        latency * (one.opened.candidate.configuration.threads or 1)
        if terms.prefer == "throughput"
        else latency
    )

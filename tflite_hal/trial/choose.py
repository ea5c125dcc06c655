"""Tries candidates in order, compares their answers, times those that are right, takes the fastest."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from tflite_hal.accuracy import Comparison, Grade, compare, model_kind
from tflite_hal.delegate import Configuration, Device
from tflite_hal.errors import TfliteHalError, WorkerCrashedError
from tflite_hal.kernels import BuiltinKernels
from tflite_hal.model import Model
from tflite_hal.runtime import Runtime
from tflite_hal.selection import Attempt, Candidate, Outcome, Selection, is_own_cpu
from tflite_hal.trial.inputs import Inputs
from tflite_hal.trial.memory import Memory
from tflite_hal.trial.proof import Answers, Opened, Proof, Terms, failed, open_candidate, prove
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


class _Right:
    """A candidate that may be used, and the place of its attempt in the selection."""

    __slots__ = ("candidate", "opened", "place")

    def __init__(self, candidate: Candidate, opened: Opened | None, place: int) -> None:
        self.candidate = candidate
        self.opened = opened  # None: it is known to be right and not opened yet
        self.place = place


def choose(found: Sequence[Candidate], model: Model, selection: Selection, terms: Terms) -> Chosen:
    """Record an attempt of every candidate in the selection, and return the best.

    By order, the first that is right is taken and what comes after it stays untried. Else all that are
    right are timed side by side, each where it would live. What an earlier trial found is not tried again.
    """
    if not found:
        return Chosen(None, [], [])
    memory = Memory(terms.verdicts, model, terms, terms.context)
    choice = _Choice(found, model, selection, terms, memory)
    if choice.is_known():
        return choice.make()
    with memory.lock():  # of two processes the second waits, then finds it known
        return choice.make()


class _Choice:
    """One choice in the making."""

    def __init__(
        self,
        found: Sequence[Candidate],
        model: Model,
        selection: Selection,
        terms: Terms,
        memory: Memory,
    ) -> None:
        self._found = found
        self._model = model
        self._attempts = selection.attempts
        self._selection = selection
        self._terms = terms
        self._memory = memory
        self._trial = _Trial(model, terms, found[0].runtime)
        self._by_order = terms.prefer == "order" or not self._trial.inputs
        self._right: list[_Right] = []
        self._failures: list[tuple[Candidate, TfliteHalError]] = []

    def is_known(self) -> bool:
        """Whether all that would be tried is remembered."""
        try:
            return all(self._memory.recall(candidate) is not None for candidate in self._found)
        except TfliteHalError:
            return False  # told when it is that candidate's turn

    def make(self) -> Chosen:
        """Try what is not known, rank what is right, and open the best."""
        try:
            for candidate in self._found:
                started = time.perf_counter()
                attempt = self._attempt(candidate)
                self._attempts.append(attempt._replace(seconds=time.perf_counter() - started))
            self._rank()
            opened = self._opened_best()
        except BaseException:
            self._close(self._right)
            raise
        finally:
            self._trial.close([one.opened for one in self._right if one.opened is not None])
        self._close(self._right[1:])
        return Chosen(opened, [one.candidate for one in self._right[1:]], self._failures)

    def _attempt(self, candidate: Candidate) -> Attempt:
        """Recall or try a candidate; one that may be used is noted as right."""
        reason = _why_untried(candidate, self._attempts, bool(self._right) and self._by_order)
        if reason:
            return Attempt.of(candidate, Outcome.UNTRIED, reason=reason)
        try:
            known = self._memory.recall(candidate)
            if known is None:
                return self._tried(candidate)
        except TfliteHalError as error:
            return self._failed(candidate, error)
        if known.outcome in (Outcome.CHOSEN, Outcome.SLOWER):
            self._right.append(_Right(candidate, None, len(self._attempts)))
            return known._replace(outcome=Outcome.CHOSEN)
        if known.outcome is Outcome.QUARANTINED:
            self._failures.append((candidate, WorkerCrashedError(known.reason, remedy=known.remedy)))
        return known

    def _tried(self, candidate: Candidate) -> Attempt:
        self._memory.begin(candidate)
        try:
            opened, attempt = self._trial.attempt(candidate)
        except TfliteHalError as error:
            attempt = self._failed(candidate, error)
            self._memory.end(candidate, attempt)
            return attempt
        except BaseException:
            self._memory.cancel(candidate)
            raise
        if opened is None:
            self._memory.end(candidate, attempt)
        else:
            self._right.append(_Right(candidate, opened, len(self._attempts)))
        return attempt

    def _failed(self, candidate: Candidate, error: TfliteHalError) -> Attempt:
        self._failures.append((candidate, error))
        return failed(candidate, error)

    def _rank(self) -> None:
        """Sort what is right, best first, and write down who is slower."""
        if not self._by_order and len(self._right) > 1:
            if any(self._attempts[one.place].latency_ms is None for one in self._right):
                self._race()
            self._selection.compared = True
            costs = {one.place: self._cost(one) for one in self._right}
            best = min(costs.values(), default=0.0)
            # Equal ones keep their order, in front of the slower ones.
            self._right.sort(key=lambda one: 0.0 if costs[one.place] <= NOISE * best else costs[one.place])
        for loser in self._right[1:]:
            self._attempts[loser.place] = self._attempts[loser.place]._replace(outcome=Outcome.SLOWER)
        for one in self._right:
            if one.opened is not None:
                self._memory.end(one.candidate, self._attempts[one.place])

    def _race(self) -> None:
        """Time all that are right, also those with a latency: others than now were beside it then."""
        runners = [one for one in self._right if self._open(one)]
        opened = [one.opened for one in runners if one.opened is not None]
        for one, latency in zip(runners, race(opened, self._trial.inputs()[0]), strict=True):
            if isinstance(latency, TfliteHalError):
                self._attempts[one.place] = self._failed(one.candidate, latency)
                self._memory.end(one.candidate, self._attempts[one.place])
                self._close([one])
            else:
                boundary = None if one.opened is None else one.opened.session.boundary_ms
                self._attempts[one.place] = self._attempts[one.place]._replace(
                    latency_ms=latency, boundary_ms=boundary
                )
        self._right = [one for one in runners if self._attempts[one.place].outcome is Outcome.CHOSEN]

    def _open(self, one: _Right) -> bool:
        """Open what is known to be right, if it still can be."""
        if one.opened is None:
            try:
                one.opened = open_candidate(one.candidate, self._model, self._terms)
            except TfliteHalError as error:
                self._attempts[one.place] = self._failed(one.candidate, error)
                self._memory.end(one.candidate, self._attempts[one.place])
        return one.opened is not None

    def _opened_best(self) -> Opened | None:
        while self._right:
            best = self._right[0]
            if self._open(best):
                self._attempts[best.place] = self._attempts[best.place]._replace(outcome=Outcome.CHOSEN)
                return best.opened
            del self._right[0]
        return None

    def _cost(self, one: _Right) -> float:
        """Return what is to be small: the latency; for throughput that of all CPU threads it occupies,
        which could run other instances meanwhile."""
        latency = self._attempts[one.place].latency_ms or 0.0
        threads = one.candidate.configuration.threads or 1
        return latency * threads if self._terms.prefer == "throughput" else latency

    def _close(self, those: Sequence[_Right]) -> None:
        for one in those:
            if one.opened is not None:
                one.opened.session.close()
                one.opened = None


def _why_untried(candidate: Candidate, attempts: Sequence[Attempt], found: bool) -> str:
    if found:
        return "comes after what is used"
    place = (candidate.delegate.name, candidate.device.id)
    ends = {attempt.outcome for attempt in attempts if (attempt.delegate, attempt.device) == place}
    if ends & {Outcome.CRASHED, Outcome.HUNG, Outcome.QUARANTINED}:
        return "another configuration crashed or hung"
    if candidate.configuration.remedy and not ends & {Outcome.WRONG, Outcome.DEGRADED}:
        return "only where other configurations answer wrongly"
    return ""


class _Trial:
    """One model's inputs and the built-in kernels' answers to them, made when first needed."""

    def __init__(self, model: Model, terms: Terms, runtime: Runtime) -> None:
        self._model = model
        self._terms = terms
        kernels, device = BuiltinKernels(), Device("cpu", "cpu")
        self._builtin = Candidate(kernels, device, Configuration(threads=1), runtime)
        self.inputs = Inputs(model.info.inputs, terms.samples, terms.check.seeded)
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
            least = self.inputs.own + FEW_INPUTS
            try:
                self._reference = prove(self._builtin, self._model, self.inputs, self._terms, least=least)
                self.inputs.keep(len(self._reference.answers))
            except TfliteHalError as error:
                self._reference = error
        return self._reference

    def _compared(self, reference: Proof | TfliteHalError, given: Answers) -> Comparison | None:
        """Compare on the caller's samples and on the seeded inputs: what is wrong on these is not used,
        but how near right it is, the samples say. None where the built-in kernels have no answers."""
        if isinstance(reference, TfliteHalError) or not reference.answers:
            return None
        right = reference.answers
        kind, outputs, own = model_kind(self._model.info), self._model.info.outputs, self.inputs.own
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

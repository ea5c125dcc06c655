"""Tries candidates in order, compares their answers, times those that are right, takes the fastest."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from typing import Final, NamedTuple

from tflite_hal.errors import TfliteHalError, WorkerCrashedError, WorkerGoneError
from tflite_hal.model import Model
from tflite_hal.selection import Attempt, Candidate, Outcome, Selection
from tflite_hal.trial.gate import Gate, why_untried
from tflite_hal.trial.memory import Memory
from tflite_hal.trial.proof import Opened, Terms, failed, open_candidate
from tflite_hal.trial.race import limit_runs, race

__all__ = ["Chosen", "choose"]

#: Latencies within this factor are equal: the order decides.
NOISE: Final = 1.05
#: Races that a verdict remembers, for choices among different candidates.
MOST_RACES: Final = 8


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
        self._gate = Gate(model, terms, found[0].runtime)
        self._by_order = terms.prefer == "order" or not self._gate.inputs
        self._recalled: dict[int, Attempt] = {}  # by place, where nothing has to be tried
        self._right: list[_Right] = []
        self._failures: list[tuple[Candidate, TfliteHalError]] = []

    def is_known(self) -> bool:
        """Whether all that would be tried is remembered."""
        attempts: list[Attempt] = []
        recalled: dict[int, Attempt] = {}
        found = False
        for place, candidate in enumerate(self._found):
            if why_untried(candidate, attempts, found and self._by_order):
                continue
            try:
                known = self._memory.recall(candidate)
            except TfliteHalError:
                return False  # told when it is that candidate's turn
            if known is None:
                return False
            attempts.append(known)
            recalled[place] = known
            right = known.outcome in (Outcome.CHOSEN, Outcome.SLOWER)
            found = found or (right and not self._terms.too_little(candidate, known.coverage))
        self._recalled = recalled
        return True

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
            self._gate.close([one.opened for one in self._right if one.opened is not None])
        self._close(self._right[1:])
        return Chosen(opened, [one.candidate for one in self._right[1:]], self._failures)

    def _attempt(self, candidate: Candidate) -> Attempt:
        """Recall or try a candidate; one that may be used is noted as right."""
        reason = why_untried(candidate, self._attempts, bool(self._right) and self._by_order)
        if reason:
            return Attempt.of(candidate, Outcome.UNTRIED, reason=reason)
        try:
            known = self._recalled.get(len(self._attempts)) or self._memory.recall(candidate)
            if known is None:
                with self._memory.trying(candidate):
                    return self._tried(candidate)
        except TfliteHalError as error:
            return self._failed(candidate, error)
        if known.outcome in (Outcome.CHOSEN, Outcome.SLOWER):
            return self._passed(candidate, None, known._replace(outcome=Outcome.CHOSEN))
        if known.outcome is Outcome.QUARANTINED:
            self._failures.append((candidate, WorkerCrashedError(known.reason, remedy=known.remedy)))
        return known

    def _tried(self, candidate: Candidate) -> Attempt:
        self._memory.begin(candidate)
        try:
            try:
                opened, attempt = self._gate.attempt(candidate)
            except WorkerGoneError:
                opened, attempt = self._gate.attempt(candidate)
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
            return self._passed(candidate, opened, attempt)
        return attempt

    def _passed(self, candidate: Candidate, opened: Opened | None, attempt: Attempt) -> Attempt:
        """Note one that answers rightly, unless it takes too little of the model for the caller."""
        reason = self._terms.too_little(candidate, attempt.coverage)
        if not reason:
            self._right.append(_Right(candidate, opened, len(self._attempts)))
            return attempt
        if opened is not None:
            self._memory.end(candidate, attempt)  # others may ask for less
            opened.session.close()
        return attempt._replace(outcome=Outcome.UNSUPPORTED, stage="open", reason=reason)

    def _failed(self, candidate: Candidate, error: TfliteHalError) -> Attempt:
        self._failures.append((candidate, error))
        return failed(candidate, error)

    def _rank(self) -> None:
        """Sort what is right, best first, and write down who is slower."""
        if not self._by_order and len(self._right) > 1:
            if not self._recall_race():
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

    def _recall_race(self) -> bool:
        """Take the latencies of the last race of all that are right; whether there was one."""
        ran = [self._attempts[one.place].races for one in self._right]
        name = next((n for n in reversed(list(ran[0])) if all(n in races for races in ran)), None)
        for one in self._right if name is not None else ():
            attempt = self._attempts[one.place]
            latency, boundary = attempt.races[str(name)]
            self._attempts[one.place] = attempt._replace(latency_ms=latency, boundary_ms=boundary)
        return name is not None

    def _race(self) -> None:
        """Time all that are right."""
        name = secrets.token_hex(8)
        runners = [one for one in self._right if self._open(one)]
        opened = [one.opened for one in runners if one.opened is not None]
        for one, latency in zip(runners, race(opened, self._gate.inputs()[0]), strict=True):
            if isinstance(latency, TfliteHalError):
                self._attempts[one.place] = self._failed(one.candidate, latency)
                self._memory.end(one.candidate, self._attempts[one.place])
                self._close([one])
            else:
                boundary = None if one.opened is None else one.opened.session.boundary_ms
                attempt = self._attempts[one.place]
                kept = list(attempt.races.items())[1 - MOST_RACES :]
                self._attempts[one.place] = attempt._replace(
                    latency_ms=latency,
                    boundary_ms=boundary,
                    races=dict([*kept, (name, (latency, boundary))]),
                )
        self._right = [one for one in runners if self._attempts[one.place].outcome is Outcome.CHOSEN]

    def _open(self, one: _Right) -> bool:
        """Open what is known to be right, if it still can be."""
        if one.opened is None:
            try:
                one.opened = open_candidate(one.candidate, self._model, self._terms)
                limit_runs(one.opened, (self._attempts[one.place].latency_ms or 0.0) / 1e3)
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
        which could run other instances meanwhile. Sessions on one device wait for each other: with more
        of them than on an equal device, it takes as many times as long."""
        latency = self._attempts[one.place].latency_ms or 0.0
        least = min(o.candidate.load for o in self._right if o.candidate.equals == one.candidate.equals)
        latency *= 1 + one.candidate.load - least
        threads = one.candidate.configuration.threads or 1
        return latency * threads if self._terms.prefer == "throughput" else latency

    def _close(self, those: Sequence[_Right]) -> None:
        for one in those:
            if one.opened is not None:
                one.opened.session.close()
                one.opened = None

"""What answers for a runner at the moment, and what takes over when it fails: no request is lost."""

from __future__ import annotations

from collections.abc import Sequence

from tflite_hal.delegate import Device, Problem
from tflite_hal.errors import ClosedError, DelegateError, TfliteHalError, WorkerError
from tflite_hal.model import Model
from tflite_hal.runner import rest
from tflite_hal.runner.again import look_again
from tflite_hal.runner.calls import Arrays, Calls
from tflite_hal.runner.choice import OTHERS, choose_for
from tflite_hal.runner.events import Events
from tflite_hal.runner.pool import Pool
from tflite_hal.runner.recheck import Recheck
from tflite_hal.runner.request import Request
from tflite_hal.runner.told import interrupted, with_remedy
from tflite_hal.runtime import Runtime
from tflite_hal.selection import Attempt, Candidate, Outcome, Selection
from tflite_hal.session import Direct, TensorCall, Turn
from tflite_hal.trial import Memory, Opened, choose, limit_runs, open_candidate, outcome_of

__all__ = ["Active"]


class Active:
    """The session in use and its prepared calls; used by one thread at a time.

    Attributes:
        selection: the record of the choice, kept true while running.
        opened: what answers now.
    """

    def __init__(self, model: Model, runtime: Runtime, request: Request, events: Events) -> None:
        """Choose; raises as :func:`choose_for`."""
        self._model = model
        self._request = request
        self._events = events
        choice = choose_for(model, runtime, request)
        self.selection, self.opened = choice.selection, choice.opened
        self._order: list[Candidate] = [choice.opened.candidate, *choice.alternatives, *choice.untried]
        self._untried = choice.untried
        self._terms = choice.terms
        self._calls = Calls(self.opened)
        self._lost: TfliteHalError | None = None
        self._closed = False
        self._answered = 0
        self._recheck: Recheck | None = None
        try:
            for kind, message in choice.notes:
                # Of other plugins nobody wants to hear who has named what runs.
                events.record(kind, message, warn=not (kind == "plugin" and request.explicit))
            self._recheck = Recheck.of(model, runtime, request, choice)
            self._after_opening()
        except BaseException:  # warnings may be errors
            self.close()
            raise

    def _after_opening(self) -> None:
        if self.opened.warning:
            self._events.record("isolation", self.opened.warning)
        if "run" in self._terms.limits and not self._in_worker():
            reason = f"timeout= can't be enforced on {self._name()}, which runs in this process"
            if self._request.explicit:
                raise DelegateError(reason, remedy="isolate=True runs it in a child process")
            self._events.record("setting", reason)
        self._tell_variant()
        if self._request.recheck and self._recheck is None:
            self._events.record(
                "setting", "recheck= has no effect: the built-in kernels can't run this model"
            )

    def _tell_variant(self) -> None:
        """Say what runs instead of the model that was named: for its own engine that is what was meant."""
        variant = self.opened.candidate.variant
        if variant is None:
            return
        message = f"{self._name()} runs {variant.model.name}, which is beside {self._model.name}"
        replaced = variant is self._terms.plain
        if replaced:
            message += f", since nothing usable here takes its {', '.join(self._model.info.custom)}"
        self._events.record("variant", message, warn=replaced)

    def _in_worker(self) -> bool:
        return not self.opened.warning and self._terms.stays_in_worker(self.opened.candidate)

    def _name(self) -> str:
        return f"{self.opened.candidate.delegate.name} on {self.opened.candidate.device.id}"

    def run(self, signature: str | None, arrays: Arrays) -> Arrays:
        """Run the model once, on another candidate where this one fails.

        Raises:
            InputError: the model can't take these shapes.
            DelegateError, WorkerError: the run failed and nothing may take over; says why.
        """
        self._come_back()
        failed: list[tuple[Candidate, TfliteHalError]] = []
        while True:
            self._check_open()
            try:
                results = self._calls.prepared(signature, arrays).run(arrays)
                break
            except (DelegateError, WorkerError) as error:
                failed.append((self.opened.candidate, error))
                self._fail_over(error, failed)
        self._answered += 1
        if self._answered == rest.FORGIVEN_AFTER:
            rest.recovered(self.opened.candidate)
        return results if self._recheck is None else self._rechecked(signature, arrays, results)

    def direct(
        self, signature: str | None, arrays: Arrays, names: Sequence[str], turn: Turn, busy: Direct
    ) -> Direct | None:
        """Return the shortest way for inputs like these, which just got their answer; None where there
        is none, and while something has to be counted, compared or come back to."""
        candidate = self.opened.candidate
        call = self._calls.known(signature, arrays)
        if not self._may_be_many() or candidate is not self._order[0] or rest.has_failed(candidate):
            return None
        return call.direct(names, turn, busy) if isinstance(call, TensorCall) else None

    def _may_be_many(self) -> bool:
        """Whether answers do not depend on the ones before, and nobody compares them."""
        return self._lost is None and self._recheck is None and not self._model.info.stateful

    def pool(self, names: Sequence[str], *, single: bool = False) -> Pool | None:
        """Return sessions beside the one in use for other threads, None where there can be none. If
        ``single``, one that has several threads gets some with one each, unless ``threads=`` forbids."""
        main, candidate = self.opened.candidate, self.opened.candidate
        if not self._may_be_many():
            return None
        if (main.configuration.threads or 1) > 1:
            if not single or self._request.wish.threads is not None:
                return None
            candidate = main._replace(configuration=main.configuration._replace(threads=1))
        pool = Pool(main, candidate, self._model, self._terms, names, self._events)
        known = pool.alike or (candidate in self._order and candidate not in self._untried)
        return pool if pool.possible() and (known or pool.proven()) else None

    def _rechecked(self, signature: str | None, arrays: Arrays, results: Arrays) -> Arrays:
        assert self._recheck is not None  # noqa: S101 -- for the type checker
        try:
            right, wrong = self._recheck.checked(signature, arrays, results)
        except TfliteHalError as error:  # the built-in kernels' own: nothing is said against the answer
            self._events.record("recheck", f"answers are not compared any more: {error}")
            self._recheck.close()
            self._recheck = None
            return results
        if wrong:
            self._drop_wrong(wrong)  # for the next calls: this one has the built-in kernels' answer
        return right

    def _check_open(self) -> None:
        """Raise ClosedError: what hears of events may close the runner while it runs."""
        if self._closed:
            raise ClosedError(f"the runner of {self._model.name} was closed while it ran")

    def _fail_over(self, error: TfliteHalError, failed: list[tuple[Candidate, TfliteHalError]]) -> None:
        """Let the next candidate take over, or raise: where none may or can, and of a stateful model,
        whose earlier inputs the next has not seen. ``failed``: who has failed on this request; where
        all have refused it, it was the request's fault, and none of them rests."""
        failing = self.opened.candidate
        if not self._request.falls_back:
            told = with_remedy(error)
            if self._model.info.stateful and isinstance(error, WorkerError):
                told = interrupted(told, self._model.name, self._name())
            self._events.record("failure", f"{self._name()} failed while running: {error}", warn=False)
            gone = isinstance(look_again(failing, self._order), Problem)
            if gone or isinstance(error, WorkerError):
                rest.failed(failing)
                self._lost = told
            raise told from error
        pause = rest.failed(failing)
        self.selection.mark(failing, outcome_of(error), error.reason)
        place = self._order.index(failing)
        message = f"{self._name()} failed while running: {error}"
        # Those before it failed earlier; they may answer again, and are better than no answer.
        for candidate in [*self._order[place + 1 :], *self._order[:place]]:
            if any(candidate is one for one, _ in failed):
                continue
            same = candidate.device == failing.device and candidate.delegate is failing.delegate
            if same and isinstance(error, WorkerError):
                continue  # it crashed or hung: another configuration of it may cost another time limit
            if self._switch(candidate):
                self._events.record(
                    "fallback", f"{message}; {self._name()} answers, for {pause:g} s at least"
                )
                if self._model.info.stateful:
                    raise interrupted(error, self._model.name, self._name()) from error
                return
        self._lost = error if isinstance(error, WorkerError) else None
        if all(isinstance(one, DelegateError) for _, one in failed):
            for candidate, _ in failed:
                rest.recovered(candidate)
        raise error

    def _switch(self, candidate: Candidate) -> bool:
        """Have another candidate answer from now on, if it can be opened."""
        self._check_open()
        try:
            if candidate in self._untried:
                opened = self._tried(candidate)
            else:
                opened = open_candidate(candidate, self._model, self._terms)
                limit_runs(opened, self.selection.latency_of(candidate) / 1e3)
        except TfliteHalError as error:
            rest.failed(candidate)
            self.selection.mark(candidate, outcome_of(error), error.reason)
            self._events.record("fallback", f"{candidate.delegate.name} on {candidate.device.id}: {error}")
            return False
        if opened is None:
            return False
        self._let_go()
        self.opened, self._lost, self._answered = opened, None, 0
        self._calls = Calls(opened)
        if self._recheck is not None:
            self._recheck.forget()
        self.selection.mark(candidate, Outcome.CHOSEN, "")
        self._after_opening()
        return True

    def _tried(self, candidate: Candidate) -> Opened | None:
        """Open one that nobody has needed yet, after the trial that the chosen one had; None where it
        answers wrongly, which is told.

        Raises:
            TfliteHalError: it can't be opened or run.
        """
        selection = Selection(self.selection.model, self.selection.profile)
        opened, _, failures = choose([candidate], self._model, selection, self._terms)
        if failures:
            raise failures[0][1]
        self._untried.remove(candidate)
        if opened is None:
            self._order.remove(candidate)
            attempt = selection.attempts[0]
            self.selection.mark(candidate, attempt.outcome, attempt.reason)
            self._events.record("fallback", f"{attempt.delegate} on {attempt.device}: {attempt}")
        return opened

    def _come_back(self, *, afresh: bool = False) -> None:
        """Return to a better candidate that has rested, or to the only one; in a sequence of a stateful
        model only ``afresh``: the better one has not seen its beginning."""
        stays = self._model.info.stateful and not afresh
        if self._lost is None and (stays or self.opened.candidate is self._order[0]):
            return
        for candidate in tuple(self._order):
            if candidate is self.opened.candidate and self._lost is None:
                return
            if not rest.rests(candidate):
                before = self.opened.candidate
                back = self._found_again(candidate)
                if back is not None and self._switch(back):
                    self.selection.mark(before, Outcome.SLOWER, "", only=Outcome.CHOSEN)
                    self._events.record("recovery", f"{self._name()} is tried again", warn=False)
                    return
        if self._lost is not None:
            raise type(self._lost)(self._lost.reason, remedy=self._lost.remedy) from self._lost

    def _found_again(self, candidate: Candidate) -> Candidate | None:
        """Return a candidate, where it failed with what is known of its device now; None while that is not
        there, which is told once."""
        found = look_again(candidate, self._order) if rest.has_failed(candidate) else candidate
        if isinstance(found, Candidate):
            return self._moved(candidate, found.device)
        rest.failed(candidate)
        reason = f"{candidate.delegate.name} on {candidate.device.id} is not there: {found.evidence}"
        if self.selection.mark(candidate, Outcome.UNAVAILABLE, found.evidence):
            self._events.record("absence", f"{reason}; it is looked for again", warn=False)
        if self._lost is not None and candidate is self.opened.candidate:
            self._lost = DelegateError(reason, remedy=found.remedy)
        return None

    def _moved(self, candidate: Candidate, device: Device) -> Candidate:
        """Take what is known now of a candidate's device, in all that are on it; returns the candidate."""
        every = [*self._order, *self._untried, self.opened.candidate]
        on_it = [one for one in every if one.delegate is candidate.delegate and one.device.id == device.id]
        # One object each: who answers is told from the others by identity.
        now = {id(one): one._replace(device=device) for one in on_it if one.device != device}
        self._order = [now.get(id(one), one) for one in self._order]
        self._untried = [now.get(id(one), one) for one in self._untried]
        self.opened = self.opened._replace(
            candidate=now.get(id(self.opened.candidate), self.opened.candidate)
        )
        wanted = candidate._replace(device=device)
        return next(one for one in self._order if one == wanted)

    def _drop_wrong(self, reason: str) -> None:
        """Never use a candidate again that was seen to answer wrongly; the built-in kernels' answer is
        given instead where the caller allows it."""
        wrong = self.opened.candidate
        self.selection.mark(wrong, Outcome.WRONG, reason)
        attempt = Attempt.of(wrong, Outcome.WRONG, stage="run", reason=reason)
        # With its settings: another configuration of the same device may be the next, and wrong too.
        message = f"{attempt.title} answers wrongly: {reason}"
        Memory(self._terms.verdicts, self._model, self._terms, self._terms.context).end(wrong, attempt)
        later = self._order[self._order.index(wrong) + 1 :]
        self._order.remove(wrong)
        if not self._request.falls_back:
            self._events.record("failure", message, warn=False)
            self._lost = DelegateError(message, remedy=OTHERS)
            raise self._lost
        if not any(self._switch(candidate) for candidate in later):
            self._lost = DelegateError(f"{message}; nothing else can be opened")
            self._events.record("failure", self._lost.reason, warn=False)
            return
        taking = Attempt.of(self.opened.candidate, Outcome.CHOSEN).title
        self._events.record("fallback", f"{message}; {taking} answers from now on")

    def reset(self) -> None:
        """Forget what a stateful model remembers; one that was lost is opened again."""
        self._come_back(afresh=True)
        self.opened.session.reset()

    def _let_go(self) -> None:
        self._calls.clear()
        try:
            self.opened.session.close()
        except TfliteHalError as error:
            self._events.record("fallback", f"{self._name()} could not be closed: {error}", warn=False)

    def close(self) -> None:
        """Free everything."""
        self._closed = True
        self._calls.clear()
        self.opened.session.close()
        if self._recheck is not None:
            self._recheck.close()

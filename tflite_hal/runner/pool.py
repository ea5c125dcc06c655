"""Sessions beside the one in use, for threads that find it busy: each serves one thread at a time."""

from __future__ import annotations

import functools
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from tflite_hal.delegate import may_live_in_process
from tflite_hal.errors import DelegateError, TfliteHalError, WorkerError
from tflite_hal.host import probe_host
from tflite_hal.model import Model
from tflite_hal.runner.calls import Arrays, Calls
from tflite_hal.runner.events import Events
from tflite_hal.selection import Candidate, Selection
from tflite_hal.session import Call, Direct, TensorCall, Turn
from tflite_hal.trial import Opened, Terms, choose, open_candidate

__all__ = ["Pool", "usable_cores"]

_Result = TypeVar("_Result")


@functools.cache
def usable_cores() -> int:
    """Return how many CPUs this process may use, by affinity and control group."""
    return probe_host().cpu.usable or 1


class _Member:
    """A session and what is prepared on it; used by one thread at a time."""

    def __init__(self, opened: Opened, names: Sequence[str]) -> None:
        self._opened = opened
        self._names = names
        self._calls = Calls(opened)
        self._direct: Direct | None = None
        self._directs: Call | None = None  # whose that is

    def run(self, signature: str | None, arrays: Arrays) -> Arrays:
        """Run the model once."""
        return self._calls.prepared(signature, arrays).run(arrays)

    def direct(self, value: Any) -> Any:
        """Run the model once on an array that is exactly what it takes, by the shortest way."""
        result = None if self._direct is None else self._direct(value)
        if result is not None:
            return result
        call = self._calls.prepared(None, [value])
        if call is not self._directs and isinstance(call, TensorCall):
            self._direct, self._directs = call.direct(self._names, Turn(), _nothing), call
        results = call.run([value])
        return results[0] if len(results) == 1 else dict(zip(self._names, results, strict=True))

    def close(self) -> None:
        """Free the session."""
        self._calls.clear()
        self._opened.session.close()


def _nothing(value: Any) -> None:
    """Answer nothing: nobody else has the lock."""


class _Waiting:
    """A thread that waits for its turn, and what it gets then."""

    __slots__ = ("member", "over", "turn")

    def __init__(self) -> None:
        self.turn = threading.Lock()
        self.turn.acquire()
        self.member: _Member | None = None
        self.over = False


class Pool:
    """As many sessions as there are usable cores, each opened when all others are busy; from one path they
    share the pages of the model's file. Threads beyond that wait for their turn, in the order they came.

    Attributes:
        main: the candidate in use, for which the pool was made.
        candidate: what its sessions are of: the same with one thread.
    """

    def __init__(
        self,
        main: Candidate,
        candidate: Candidate,
        model: Model,
        terms: Terms,
        names: Sequence[str],
        events: Events,
    ) -> None:
        """Open nothing yet; ``names`` are those of the model's outputs."""
        self.main = main
        self.candidate = candidate
        self._model = model
        self._terms = terms
        self._names = names
        self._events = events
        # Of all below; held for a moment only, in which a signal handler may predict.
        self._lock = threading.RLock()
        self._size: int | None = None  # how many threads may have a session; not asked for yet
        self._busy = 0  # how many have one
        self._idle: list[_Member] = []  # the one used last is the next
        self._waiting: deque[_Waiting] = deque()
        self._refused = False
        self._over = False
        self._emptied = threading.Event()

    @property
    def alike(self) -> bool:
        """Whether its sessions are of the very candidate in use."""
        return self.candidate is self.main

    def possible(self) -> bool:
        """Whether its sessions are independent: on the CPU, in this process."""
        delegate, device, configuration = self.candidate[:3]
        here = may_live_in_process(delegate, device, configuration.threads)
        return here and device.kind == "cpu" and not self._terms.stays_in_worker(self.candidate)

    def proven(self) -> bool:
        """Whether its candidate answers rightly, which that has to show now; why it doesn't is an event."""
        selection = Selection(self._model.name, "")
        opened, _, _ = choose([self.candidate], self._model, selection, self._terms)
        if opened is not None:
            opened.session.close()
            return True
        for attempt in selection.attempts:
            self._events.record("failure", f"{attempt.title}: {attempt}", warn=False)
        return False

    def run(self, signature: str | None, arrays: Arrays) -> Arrays | None:
        """Run the model once; None where no session can be had or it failed: then the usual way is due,
        which decides what that means.

        Raises:
            InputError: the model can't take these shapes.
        """
        return self._on_one(_Member.run, signature, arrays)

    def direct(self, value: Any) -> Any:
        """As :meth:`run`, for an array that is exactly what a model of one input takes."""
        return self._on_one(_Member.direct, value)

    def _on_one(self, work: Callable[..., _Result], *given: Any) -> _Result | None:
        member = self._taken()
        if member is None:
            return None
        kept: _Member | None = member
        try:
            return work(member, *given)
        except (DelegateError, WorkerError) as error:
            kept, reason = None, error
        finally:
            self._give_back(kept)
        # Only now: who hears of it may use or close the runner.
        self._let_go(member)
        self._tell(f"failed while running: {reason}")
        return None

    def _taken(self) -> _Member | None:
        """Return a session for this thread alone; None where there is none to be had."""
        with self._lock:
            if self._size is None:
                cores = usable_cores()
                self._size = cores if cores > 1 else 0  # a second session needs a second core
            if self._over or not self._size:
                return None
            if self._busy < self._size:
                self._busy += 1
                member, waiting = self._idle.pop() if self._idle else None, None
            else:
                waiting = _Waiting()
                self._waiting.append(waiting)
        if waiting is not None:
            self._wait(waiting)
            if waiting.over:
                return None
            member = waiting.member
        return self._opened() if member is None else member

    def _wait(self, waiting: _Waiting) -> None:
        try:
            waiting.turn.acquire()
        except BaseException:  # Ctrl-C: whoever comes next must not lack what this one gets
            with self._lock:
                has_turn = waiting not in self._waiting
                if not has_turn:
                    self._waiting.remove(waiting)
            if has_turn and not waiting.over:
                self._give_back(waiting.member)
            raise

    def _opened(self) -> _Member | None:
        """Open a session; None where that failed, which is told once."""
        reason: TfliteHalError | None = None
        member: _Member | None = None
        try:
            if not self._refused:
                member = _Member(open_candidate(self.candidate, self._model, self._terms), self._names)
        except TfliteHalError as error:
            self._refused, reason = True, error
        finally:
            if member is None:
                self._give_back(None)
        if reason is not None:
            self._tell(f"could not be opened: {reason}")
        return member

    def _give_back(self, member: _Member | None) -> None:
        """Let the next thread have a session, or None to open one."""
        with self._lock:
            if self._waiting:
                waiting = self._waiting.popleft()
                waiting.member = member
                waiting.turn.release()
                return
            self._busy -= 1
            if member is not None:
                self._idle.append(member)
            if not self._busy:
                self._emptied.set()

    def _tell(self, what: str) -> None:
        place = f"{self.candidate.delegate.name} on {self.candidate.device.id}"
        self._events.record("failure", f"a further session of {place} {what}", warn=False)

    def _let_go(self, member: _Member) -> None:
        try:
            member.close()
        except TfliteHalError as error:
            self._tell(f"could not be closed: {error}")

    def close(self) -> None:
        """Free all sessions, once those that are busy have answered; who waits for one gets none."""
        with self._lock:
            self._over = True
            self._emptied.clear()
            busy = self._busy
            while self._waiting:
                waiting = self._waiting.popleft()
                waiting.over = True
                waiting.turn.release()
        if busy:
            self._emptied.wait()
        while self._idle:
            self._let_go(self._idle.pop())

"""Times candidates side by side: what disturbs one disturbs all."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from typing import Any, Final

from tflite_hal.errors import TfliteHalError
from tflite_hal.remote import RemoteSession
from tflite_hal.session import Call
from tflite_hal.trial.proof import Opened

__all__ = ["limit_runs", "race"]

#: Rounds that are always run, after which those far behind leave, and most rounds.
FIRST_ROUNDS: Final = 3
MOST_ROUNDS: Final = 1001
#: Seconds after these in which further rounds are begun: who was slow in them costs the others none.
ENOUGH: Final = 0.3
#: A candidate this much slower than the best needs no exact figure.
FAR_BEHIND: Final = 2.0
#: A run in a worker may take so many times its measured latency, and never less than this many seconds.
MARGIN: Final = 100.0
LEAST_LIMIT: Final = 10.0


def race(opened: Sequence[Opened], inputs: Sequence[Any]) -> list[float | TfliteHalError]:
    """Run the sessions in turn and return the median latency of each in milliseconds, the process
    boundary included, or the error that ended it.

    Sessions are reset afterwards; those in workers get a time limit that fits what was measured.
    """
    times: list[list[float]] = [[] for _ in opened]
    ended: dict[int, TfliteHalError] = {}
    calls: dict[int, Call] = {}
    for place, one in enumerate(opened):
        try:
            calls[place] = one.prepare(None, [array.shape for array in inputs])
            calls[place].run(inputs)  # the first run of a session is slower
        except TfliteHalError as error:
            ended[place] = error
    for round_number in range(MOST_ROUNDS):
        if round_number <= FIRST_ROUNDS:
            started = time.perf_counter()
        for place in _still_in(times, round_number):
            if place not in ended:
                try:
                    times[place].append(_timed(calls[place], inputs))
                except TfliteHalError as error:
                    ended[place] = error
                    times[place].clear()
        if round_number >= FIRST_ROUNDS and time.perf_counter() - started > ENOUGH:
            break
    for place, one in enumerate(opened):
        if place not in ended:
            try:
                one.session.reset()
                limit_runs(one, max(times[place]))
            except TfliteHalError as error:
                ended[place] = error
    for failure in ended.values():
        failure.stage = failure.stage or "run"
    return [ended.get(place) or statistics.median(times[place]) * 1e3 for place in range(len(opened))]


def _timed(call: Call, inputs: Sequence[Any]) -> float:
    started = time.perf_counter()
    call.run(inputs)
    return time.perf_counter() - started


def _still_in(times: Sequence[Sequence[float]], round_number: int) -> list[int]:
    everyone = list(range(len(times)))
    if round_number < FIRST_ROUNDS:
        return everyone
    best = min(min(own) for own in times if own) if any(times) else 0.0
    return [place for place in everyone if times[place] and min(times[place]) <= FAR_BEHIND * best]


def limit_runs(one: Opened, slowest: float) -> None:
    """Give runs in a worker a time limit that fits what was measured, in seconds; 0 is not measured."""
    if slowest and isinstance(one.session, RemoteSession) and not one.session.limited:
        one.session.run_limit = max(LEAST_LIMIT, MARGIN * slowest)

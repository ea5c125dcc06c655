"""How a runner answers many inputs: in how many threads and on which sessions, as measured."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import repeat
from typing import Any, Final, NamedTuple

from tflite_hal.errors import InputError, TfliteHalError
from tflite_hal.model import Model
from tflite_hal.runner.life import Life
from tflite_hal.runner.pool import usable_cores
from tflite_hal.runner.request import MOST_THREADS
from tflite_hal.runner.results import Results
from tflite_hal.session import Session
from tflite_hal.trial import seeded_inputs

__all__ = ["Many"]

#: Rounds in which the ways are timed in turn, seconds of each, and within how much they are equal.
ROUNDS: Final = 3
SECONDS: Final = 0.01
NOISE: Final = 1.15
#: Seconds of a run beside which handing it to another thread costs nothing.
SLOW: Final = 0.02

Predict = Callable[[Any], Any]


class _Way(NamedTuple):
    """One way to answer many inputs."""

    threads: int  #: as :class:`Results` counts them
    pooled: bool = False  #: on sessions with one thread each, where the one in use has several


class Many:
    """Answers many inputs by ``predict``, the runner's own, or ``pooled``, the same on the pool's sessions;
    keeps the threads that coroutines wait for."""

    def __init__(self, model: Model, life: Life) -> None:
        self._model = model
        self._life = life
        self._measured: tuple[Session | None, _Way] = None, _Way(0)
        self._executors: dict[int, ThreadPoolExecutor] = {}  # by process: a forked one has not its threads

    def results(self, predict: Predict, pooled: Predict, items: Iterable[Any], workers: int | str) -> Results:
        """See :meth:`tflite_hal.Runner.predict_many`."""
        self._life.check_open()
        number = _checked(workers)
        if self._model.info.stateful:
            reason = f"{self._model.name} is stateful: an answer depends on the inputs before it"
            raise InputError(reason, remedy="call predict() for one after the other")
        try:
            given = iter(items)
        except TypeError as error:
            raise InputError(f"{type(items).__name__} is no iterable of inputs") from error
        way = self._fastest(predict, pooled) if number is None else self._way(number)
        return Results(pooled if way.pooled else predict, given, way.threads)

    def _way(self, threads: int) -> _Way:
        pool = self._life.pool() if threads > 1 else None
        return _Way(threads, pool is not None and not pool.alike)

    def _fastest(self, predict: Predict, pooled: Predict) -> _Way:
        """Return the way that is fastest by now; of equal ones that with the most threads, beside which the
        caller's own may prepare the inputs."""
        cores = usable_cores()
        several = self._way(cores)
        session = self._life.active.opened.session
        if self._measured[0] is not session:
            alone = cores == 1 or self._life.pool() is None
            ways = [_Way(0), _Way(1)] if alone else [_Way(0), _Way(1), several]
            self._measured = session, _timed(ways, predict, pooled, seeded_inputs(self._model.info.inputs))
        return self._measured[1]

    def submit(self, work: Callable[[], Any]) -> Future[Any]:
        """Have a thread of the runner's do something."""
        self._life.check_open()
        executor = self._executors.get(os.getpid())
        if executor is None:
            made = ThreadPoolExecutor(max(2, usable_cores()), "tflite-hal-predict")  # without threads yet
            executor = self._executors.setdefault(os.getpid(), made)
        return executor.submit(work)

    def close(self) -> None:
        """Let the threads end; what waits for one is answered, by then with a ClosedError."""
        executor = self._executors.get(os.getpid())
        if executor is not None:
            executor.shutdown(wait=False)  # this may be one of them


def _timed(ways: list[_Way], predict: Predict, pooled: Predict, inputs: list[Any]) -> _Way:
    """Return the last of the fastest ways to answer these inputs over and over; the last of all where they
    can't be answered: what the caller gives may be."""
    given = inputs[0] if len(inputs) == 1 else inputs
    try:
        predict(given)
        started = time.perf_counter()
        predict(given)
        took = time.perf_counter() - started
        if took > SLOW:
            ways = [way for way in ways if way.threads]
            ways = ways if ways[-1].pooled else ways[-1:]
        rates = dict.fromkeys(ways, 0.0)
        for _ in range(ROUNDS if len(ways) > 1 else 0):
            for way in ways:
                number = max(2, 2 * way.threads, int(SECONDS / took))
                started = time.perf_counter()
                for _ in Results(pooled if way.pooled else predict, repeat(given, number), way.threads):
                    pass
                rates[way] = max(rates[way], number / (time.perf_counter() - started))
    except TfliteHalError:  # it is in the runner's events, where it says something about the device
        return ways[-1]
    return [way for way in ways if rates[way] * NOISE >= max(rates.values())][-1]


def _checked(workers: int | str) -> int | None:
    """Return a number of threads, None for ``"auto"``.

    Raises:
        InputError: it is neither.
    """
    if isinstance(workers, str) and workers == "auto":
        return None
    if isinstance(workers, bool) or not isinstance(workers, int) or not 1 <= workers <= MOST_THREADS:
        raise InputError(f"workers={workers!r} is not 'auto' or an integer from 1 to {MOST_THREADS}")
    return workers

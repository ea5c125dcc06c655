"""Answers to many inputs: in their order, from several threads, and never more of them than are taken."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, Final

from tflite_hal.errors import ClosedError, TfliteHalError

__all__ = ["Results"]

#: Inputs and answers that are held at most, per thread: one in it and one to go on with.
IN_FLIGHT: Final = 2


class _Job:
    """An input on its way to its answer."""

    __slots__ = ("answer", "done", "error", "index", "item")

    def __init__(self, index: int, item: Any) -> None:
        self.index = index
        self.item = item
        self.answer: Any = None
        self.error: BaseException | None = None
        self.done = threading.Lock()
        self.done.acquire()

    def work(self, predict: Callable[[Any], Any]) -> None:
        """Answer, or keep what was raised for whoever takes the answer."""
        try:
            self.answer = predict(self.item)
        except BaseException as error:
            self.error = error
        self.item = None
        self.done.release()


def _serve(jobs: SimpleQueue[_Job | None], predict: Callable[[Any], Any]) -> None:
    while (job := jobs.get()) is not None:
        job.work(predict)
        del job  # nothing of it is kept while this thread waits


class Results(Iterator[Any]):
    """The answers, each when it is asked for; for one thread at a time.

    Asking draws one input from the iterable, and further ones until the answer is there or there are two
    per thread. Closing it (or dropping it) ends the threads; what they are in the middle of is finished.
    """

    def __init__(self, predict: Callable[[Any], Any], items: Iterator[Any], threads: int) -> None:
        """Take what answers one input, the inputs, and how many threads do it: 0 is the one that asks, 1
        another beside it, and more count the one that asks, while it waits."""
        self._predict = predict
        self._items = enumerate(items)
        self._number = threads
        self._threads: list[threading.Thread] = []
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._held: deque[_Job] = deque()  # in order
        self._end: Exception | None = None  # of the iterable: comes after the answers to what it gave
        self._pid = os.getpid()
        self._over = False

    def __next__(self) -> Any:
        """Return the next answer.

        Raises:
            TfliteHalError: of this input, as ``predict``; the text and ``item`` say which.
            ClosedError: the process was forked since; the threads are the parent's.
            Exception: the iterable's own.
        """
        if self._over:
            raise StopIteration
        try:
            self._draw()
            if not self._held:
                assert self._end is not None  # noqa: S101 -- for the type checker
                raise self._end
            job = self._held.popleft()
            self._have_done(job)
            if job.error is not None:
                raise _told(job)
            return job.answer
        except BaseException:
            self.close()
            raise

    def _draw(self) -> None:
        if self._number and self._pid != os.getpid():
            raise ClosedError(
                "predict_many() was begun before the process was forked", remedy="call it again"
            )
        most = max(1, IN_FLIGHT * self._number)
        drawn = False
        while self._end is None and len(self._held) < most:
            if drawn and not self._held[0].done.locked():
                return
            try:
                job = _Job(*next(self._items))
            except Exception as error:
                self._end = error
                return
            drawn = True
            self._held.append(job)
            if self._number:
                self._start(job)
            else:
                job.work(self._predict)

    def _start(self, job: _Job) -> None:
        self._jobs.put(job)
        if len(self._threads) < max(1, self._number - 1):  # with the one that asks
            name = f"tflite-hal-many-{len(self._threads)}"
            thread = threading.Thread(target=_serve, args=(self._jobs, self._predict), name=name, daemon=True)
            thread.start()
            self._threads.append(thread)

    def _have_done(self, job: _Job) -> None:
        """Return when an input has its answer; until then this thread, one of several, answers what no
        other has begun: to wake up for each answer would cost more than a small model."""
        while self._number > 1 and job.done.locked():
            try:
                waiting = self._jobs.get_nowait()
            except Empty:
                break
            if waiting is not None:
                waiting.work(self._predict)
                if waiting.error is not None and not isinstance(waiting.error, Exception):
                    raise waiting.error  # Ctrl-C does not wait for its place
        job.done.acquire()

    def _stop(self) -> None:
        self._over = True
        self._end = None  # its traceback holds this object
        self._held.clear()
        with suppress(Empty):
            while True:
                self._jobs.get_nowait()
        for _ in self._threads:
            self._jobs.put(None)

    def close(self) -> None:
        """Answer nothing more; returns when the threads have ended. May be called twice."""
        if self._over:
            return
        self._stop()
        self._items = enumerate(())
        for thread in self._threads:
            thread.join()
        self._threads.clear()

    def __enter__(self) -> Results:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __del__(self) -> None:
        # May run in any thread, holding any lock: the threads end by themselves.
        if not self._over:
            self._stop()


def _told(job: _Job) -> BaseException:
    """Return an input's error, with which one that is."""
    error = job.error
    assert error is not None  # noqa: S101 -- for the type checker
    job.error = None  # its traceback holds the job
    if isinstance(error, TfliteHalError):
        told = type(error)(f"item {job.index}: {error.reason}", remedy=error.remedy)
        told.stage, told.item, told.__cause__ = error.stage, job.index, error
        return told
    if hasattr(error, "add_note"):  # Python 3.11
        error.add_note(f"item {job.index} of predict_many()")
    return error

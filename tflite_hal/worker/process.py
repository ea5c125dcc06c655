"""Workers: starting them, talking to them, and saying how they ended."""

from __future__ import annotations

import atexit
import os
import signal
import socket
import sys
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from tflite_hal.errors import WorkerCrashedError, WorkerError, WorkerGoneError, WorkerHungError
from tflite_hal.worker.protocol import Channel, Reply, rebuilt_error, socket_pair
from tflite_hal.worker.zygote import Zygote, last_words, new_words, search_path

__all__ = ["Worker", "shutdown", "start_worker"]


class Worker:
    """A child process; requests are answered one at a time, from any thread."""

    def __init__(self, zygote: Zygote, label: str) -> None:
        """Fork it from a zygote; ``label`` names it in errors ("delegate edgetpu on usb:0").

        Raises:
            WorkerError: the process can't be started.
        """
        self.label = label
        self._zygote = zygote
        self._lock = threading.Lock()
        self._owner = os.getpid()
        self._failure: WorkerError | None = None
        try:
            ours, theirs = socket_pair()
            self._channel = Channel(ours)
            with theirs, ExitStack() as undo:
                undo.callback(ours.close)
                self._words = new_words()
                undo.callback(os.close, self._words)
                self.pid = zygote.fork(theirs.fileno(), self._words)
                undo.pop_all()
        except OSError as error:
            raise WorkerError(f"no child process can be started: {error}") from error
        # Whoever forgets to close a worker loses the process all the same.
        self._finalizer = weakref.finalize(self, _part, self._channel, self._words, self._owner)

    @property
    def alive(self) -> bool:
        """False once it was closed, died or was killed, and in a process forked from its owner."""
        return self._failure is None and self._owner == os.getpid()

    def request(
        self,
        operation: str,
        *,
        limit: float,
        stage: str,
        blob: bytes = b"",
        descriptors: Sequence[int] = (),
        **fields: Any,
    ) -> Reply:
        """Ask for an operation and wait for its answer.

        Args:
            operation: name of a handler of :mod:`tflite_hal.worker_main`.
            limit: seconds; a worker that needs longer is killed.
            stage: what is being done, for the error: "opening m.tflite".

        Raises:
            WorkerCrashedError: it died; with the signal or status and its last words.
            WorkerHungError: it was killed at the limit.
            TfliteHalError: what the operation raised, rebuilt.
        """
        message = {"op": operation, **fields}
        return self._transact(
            lambda: self._channel.ask(message, limit, blob=blob, descriptors=descriptors), limit, stage
        )

    def call(self, number: int, *, limit: float, stage: str, fresh: bool) -> Reply:
        """Run a prepared call whose inputs are in shared memory; errors as of :meth:`request`.

        ``fresh`` asks for the memory of the outputs.
        """
        return self._transact(lambda: self._channel.ask_call(number, limit, fresh=fresh), limit, stage)

    def _transact(self, ask: Callable[[], Reply], limit: float, stage: str) -> Reply:
        self._check()  # before the lock, which a forked process may have inherited taken
        with self._lock:
            self._check()
            try:
                reply = ask()
            except TimeoutError as error:
                raise self._fail(self._hang(limit, stage)) from error
            except (EOFError, OSError) as error:
                raise self._fail(self._crash(stage)) from error
            except ValueError as error:
                raise self._fail(self._nonsense(stage, error)) from error
            except BaseException:
                # Ctrl-C. A frame that was cut short ends the conversation; an answer that comes later
                # is known by its number.
                if not self._channel.in_step:
                    self._zygote.kill(self.pid)
                    self._fail(WorkerError(f"{self.label}: interrupted while {stage}"))
                raise
        if "error" in reply.body:
            raise rebuilt_error(reply.body["error"])
        return reply

    def _hang(self, limit: float, stage: str) -> WorkerError:
        self._zygote.kill(self.pid)
        reason = f"{self.label}: no answer within {limit:g} s while {stage}; killed"
        return WorkerHungError(reason + self._last_words())

    def _nonsense(self, stage: str, error: ValueError) -> WorkerError:
        self._zygote.kill(self.pid)
        reason = f"{self.label}: answered wrongly while {stage} ({error}); killed"
        return WorkerCrashedError(reason + self._last_words())

    def _crash(self, stage: str) -> WorkerError:
        self._channel.end()
        status = self._zygote.wait(self.pid)
        reason = f"{self.label}: {_how_it_ended(status)} while {stage}{self._last_words()}"
        # Its own code does not do that: someone did, or the system for want of memory.
        killed = status is None or (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL)
        return WorkerGoneError(reason) if killed else WorkerCrashedError(reason)

    def _last_words(self) -> str:
        said = last_words(self._words)
        return f"; last words: {said}" if said else ""

    def _fail(self, failure: WorkerError) -> WorkerError:
        self._failure = failure
        self._finalizer()
        return failure

    def _check(self) -> None:
        if self._owner != os.getpid():
            raise WorkerError(f"{self.label}: belongs to the process that forked this one")
        if self._failure is not None:  # another's request ended it
            raise WorkerGoneError(self._failure.reason, remedy=self._failure.remedy)

    def close(self) -> None:
        """End the worker; sessions still open in it are lost. May be called twice."""
        if self._owner != os.getpid():
            return
        with self._lock:
            if not self.alive:
                return
            self._failure = WorkerError(f"{self.label}: closed")
            self._finalizer()
            self._zygote.wait(self.pid)


def _part(channel: Channel, words: int, owner: int) -> None:
    """Let go of a worker; in a process forked from its owner, of the copies only."""
    if owner == os.getpid():
        channel.end()
    else:
        channel.close()
    os.close(words)


_zygotes: dict[tuple[Any, ...], Zygote] = {}
_zygotes_lock = threading.Lock()


def start_worker(label: str, *, runtime: str | None, environment: Mapping[str, str] | None = None) -> Worker:
    """Start a worker.

    Args:
        label: what it is for, used in errors.
        runtime: name of the runtime it will use, imported before the fork; None imports none.
        environment: variables its libraries need from the start of the process, such as
            ``LD_LIBRARY_PATH`` (set later they have no effect).

    Raises:
        WorkerError: no child process can be started here; says why.
    """
    key = (runtime, tuple(sorted((environment or {}).items())), tuple(search_path()))
    zygote = _running_zygote(key, runtime, environment or {})
    try:
        return Worker(zygote, label)
    except WorkerError:
        if zygote.alive:
            raise
    return Worker(_running_zygote(key, runtime, environment or {}), label)  # it ended just now: idle, killed


def _running_zygote(key: tuple[Any, ...], runtime: str | None, environment: Mapping[str, str]) -> Zygote:
    with _zygotes_lock:
        zygote = _zygotes.get(key)
        if zygote is not None and not zygote.alive:
            zygote.close()
            zygote = None
        if zygote is None:
            zygote = _zygotes[key] = _start_zygote(runtime, environment)
        return zygote


def _start_zygote(runtime: str | None, environment: Mapping[str, str]) -> Zygote:
    if not hasattr(os, "fork") or not hasattr(socket, "send_fds"):
        raise WorkerError(f"isolation in a child process is not available on {sys.platform}")
    zygote = Zygote(runtime, environment)
    if zygote.threads != 1:
        # This runtime starts threads when it is imported, and forking those hangs: each worker
        # imports it for itself.
        zygote.close()
        zygote = Zygote(None, environment)
    return zygote


def shutdown() -> None:
    """End every child process of this one; workers in use fail at their next request."""
    with _zygotes_lock:
        zygotes = list(_zygotes.values())
        _zygotes.clear()
    for zygote in zygotes:
        zygote.close()


def _forget() -> None:
    """In a forked child: the zygotes belong to the parent; closing the copies tells them nothing."""
    global _zygotes_lock
    _zygotes_lock = threading.Lock()
    for zygote in _zygotes.values():
        zygote.disown()
    _zygotes.clear()


atexit.register(shutdown)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def _how_it_ended(status: int | None) -> str:
    if status is None:
        return "died together with its parent"
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
        return f"killed by {name}"
    return f"ended with exit status {os.waitstatus_to_exitcode(status)} without an answer"

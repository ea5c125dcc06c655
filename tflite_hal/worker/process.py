"""Workers: starting them, talking to them, and saying how they ended."""

from __future__ import annotations

import atexit
import os
import signal
import socket
import sys
import tempfile
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any

from tflite_hal.errors import WorkerCrashedError, WorkerError, WorkerHungError
from tflite_hal.worker.protocol import Channel, Reply, rebuilt_error
from tflite_hal.worker.zygote import LAST_WORDS, Zygote, search_path

__all__ = ["Worker", "shutdown", "start_worker"]


class Worker:
    """A child process; requests are answered one at a time, from any thread."""

    def __init__(self, zygote: Zygote, label: str) -> None:
        """Fork it from a zygote; ``label`` names it in errors ("delegate edgetpu on usb:0")."""
        self.label = label
        self._zygote = zygote
        self._lock = threading.Lock()
        self._owner = os.getpid()
        self._stderr = _new_words()
        ours, theirs = socket.socketpair()
        self._channel = Channel(ours)
        # Whoever forgets to close a worker loses the process all the same.
        self._finalizer = weakref.finalize(self, _close_both, self._channel, self._stderr)
        self._failure: WorkerError | None = None
        with theirs:
            self.pid = zygote.fork(theirs.fileno(), self._stderr.fileno())

    @property
    def alive(self) -> bool:
        """False once it was closed, died or was killed."""
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
        with self._lock:
            self._check()
            return self._exchange(
                lambda: self._channel.send(message, blob=blob, descriptors=descriptors), limit, stage
            )

    def call(self, number: int, *, limit: float, stage: str) -> Reply:
        """Run a prepared call whose inputs are in shared memory; errors as of :meth:`request`."""
        with self._lock:
            self._check()
            return self._exchange(lambda: self._channel.send_call(b"CALL", number), limit, stage)

    def _exchange(self, send: Callable[[], None], limit: float, stage: str) -> Reply:
        try:
            send()
            reply = self._channel.receive(limit)
        except TimeoutError as error:
            self._fail(self._hang(limit, stage), kill=True)
            raise self._failure_now() from error
        except (EOFError, OSError) as error:
            self._fail(self._crash(stage), kill=False)
            raise self._failure_now() from error
        except BaseException:
            # Ctrl-C while waiting: the answer would be taken for the next request's.
            self._fail(WorkerError(f"{self.label}: interrupted while {stage}"), kill=True)
            raise
        if "error" in reply.body:
            raise rebuilt_error(reply.body["error"])
        return reply

    def _hang(self, limit: float, stage: str) -> WorkerError:
        reason = f"{self.label}: no answer within {limit:g} s while {stage}; killed"
        return WorkerHungError(reason + self._last_words())

    def _crash(self, stage: str) -> WorkerError:
        ending = _how_it_ended(self._zygote.wait(self.pid))
        return WorkerCrashedError(f"{self.label}: {ending} while {stage}{self._last_words()}")

    def _fail(self, failure: WorkerError, *, kill: bool) -> None:
        self._failure = failure
        if kill:
            self._zygote.kill(self.pid)
        self._finalizer()

    def _failure_now(self) -> WorkerError:
        return self._failure or WorkerError(f"{self.label}: gone")

    def _check(self) -> None:
        if self._owner != os.getpid():
            raise WorkerError(f"{self.label}: belongs to the process that forked this one")
        if self._failure is not None:
            raise type(self._failure)(self._failure.reason, remedy=self._failure.remedy)

    def _last_words(self) -> str:
        """Return the end of what the worker wrote to stderr and stdout, in one line."""
        # By position: the child shares the file's offset.
        file, most = self._stderr.fileno(), 8 * LAST_WORDS
        lines = (
            os.pread(file, most, max(os.fstat(file).st_size - most, 0)).decode(errors="replace").split("\n")
        )
        words = " | ".join(line.strip() for line in lines if line.strip())[-LAST_WORDS:]
        return f"; last words: {words}" if words else ""

    def close(self) -> None:
        """End the worker; sessions still open in it are lost. May be called twice."""
        with self._lock:
            if not self.alive:
                return
            self._failure = WorkerError(f"{self.label}: closed")
            self._finalizer()
            self._zygote.wait(self.pid)


def _new_words() -> IO[bytes]:
    """Return an unlinked file for what a child writes: a pipe could fill up and stop it."""
    return tempfile.TemporaryFile()


def _close_both(channel: Channel, stderr: IO[bytes]) -> None:
    channel.close()
    stderr.close()


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
    with _zygotes_lock:
        zygote = _zygotes.get(key)
        if zygote is not None and not zygote.alive:
            zygote.close()
            zygote = None
        if zygote is None:
            zygote = _zygotes[key] = _start_zygote(runtime, environment or {})
    return Worker(zygote, label)


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

"""Starting child processes and talking to them: the zygote and its workers."""

from __future__ import annotations

import atexit
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Final

from tflite_hal.errors import WorkerCrashedError, WorkerError, WorkerHungError
from tflite_hal.worker.protocol import Channel, Reply, rebuilt_error

__all__ = ["Worker", "shutdown", "start_worker"]

#: What the child runs: it can import nothing of ours before it has the parent's ``sys.path``.
_BOOTSTRAP: Final = """\
import json, socket, struct, sys
s = socket.socket(fileno=int(sys.argv[1]))
n = struct.unpack("<I", s.recv(4, socket.MSG_WAITALL))[0]
sys.path[:] = json.loads(s.recv(n, socket.MSG_WAITALL))
from tflite_hal.worker_main import zygote
zygote(s)
"""

_START_LIMIT: Final = 60.0  # seconds for the zygote's imports: a cold disk and TensorFlow
_EXIT_LIMIT: Final = 2.0  # seconds a worker may take to end once its channel is closed
_LAST_WORDS: Final = 400  # characters of the end of stderr that go into a reason


class Worker:
    """A child process; requests are answered one at a time, from any thread."""

    def __init__(self, zygote: _Zygote, label: str) -> None:
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
        file, most = self._stderr.fileno(), 8 * _LAST_WORDS
        lines = (
            os.pread(file, most, max(os.fstat(file).st_size - most, 0)).decode(errors="replace").split("\n")
        )
        words = " | ".join(line.strip() for line in lines if line.strip())[-_LAST_WORDS:]
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


class _Zygote:
    """The first child: forks workers, reports how they ended, ends when this process does."""

    def __init__(self, runtime: str | None, environment: Mapping[str, str]) -> None:
        self._lock = threading.Lock()
        ours, theirs = socket.socketpair()
        self._socket, self._channel = ours, Channel(ours)
        with theirs, tempfile.TemporaryFile() as words:
            try:
                self._process = subprocess.Popen(
                    [
                        _python(),
                        "-I",
                        *(["-B"] if sys.dont_write_bytecode else []),
                        "-c",
                        _BOOTSTRAP,
                        str(theirs.fileno()),
                    ],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=words,
                    stderr=words,
                    cwd="/",
                    env={**os.environ, "OPENBLAS_NUM_THREADS": "1", **environment},
                    start_new_session=True,  # Ctrl-C in the terminal is the application's affair
                )
            except (OSError, ValueError) as error:
                ours.close()
                raise WorkerError(
                    f"no child process can be started: {error}", remedy=_PYTHON_REMEDY
                ) from error
            theirs.close()
            self.threads = self._greet(runtime, words)

    def _greet(self, runtime: str | None, words: Any) -> int:
        path = json.dumps(_search_path()).encode()
        try:
            self._socket.sendall(struct.pack("<I", len(path)) + path)
            self._channel.send({"op": "hello", "runtime": runtime})
            return int(self._channel.receive(_START_LIMIT).body["threads"])
        except (OSError, EOFError, TimeoutError, KeyError, ValueError) as error:
            self._process.kill()
            status = self._process.wait()
            words.seek(0)
            said = " | ".join(words.read().decode(errors="replace").split("\n")[-4:])[-_LAST_WORDS:]
            self._channel.close()
            reason = f"the child process {_python()} did not start (status {status}): {said or error}"
            raise WorkerError(reason, remedy=_PYTHON_REMEDY) from error

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def fork(self, channel: int, stderr: int) -> int:
        return int(self._ask({"op": "fork"}, (channel, stderr))["pid"])

    def wait(self, pid: int) -> int | None:
        """Return the wait status of a worker whose channel is closed; None where the zygote died too."""
        try:
            return int(self._ask({"op": "wait", "pid": pid, "limit": _EXIT_LIMIT})["status"])
        except WorkerError:  # the zygote is gone, and its workers with it
            return None

    def kill(self, pid: int) -> None:
        """Kill a worker; only the zygote knows that the number is still this worker's."""
        with suppress(WorkerError):
            self._ask({"op": "kill", "pid": pid})

    def _ask(self, body: Mapping[str, Any], descriptors: Sequence[int] = ()) -> dict[str, Any]:
        with self._lock:
            try:
                self._channel.send(body, descriptors=descriptors)
                reply = self._channel.receive(_START_LIMIT).body
            except (OSError, EOFError, TimeoutError) as error:
                raise WorkerError(f"the worker process is gone: {error}") from error
        if "error" in reply:
            raise WorkerError(f"no child process can be started: {reply['error']}")
        return reply

    def close(self) -> None:
        self._channel.close()
        try:
            self._process.wait(_EXIT_LIMIT + 1)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


_PYTHON_REMEDY: Final = "set TFLITE_HAL_PYTHON to a Python interpreter that can import tflite_hal"
_zygotes: dict[tuple[Any, ...], _Zygote] = {}
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
    key = (runtime, tuple(sorted((environment or {}).items())), tuple(_search_path()))
    with _zygotes_lock:
        zygote = _zygotes.get(key)
        if zygote is not None and not zygote.alive:
            zygote.close()
            zygote = None
        if zygote is None:
            zygote = _zygotes[key] = _start_zygote(runtime, environment or {})
    return Worker(zygote, label)


def _start_zygote(runtime: str | None, environment: Mapping[str, str]) -> _Zygote:
    if not hasattr(os, "fork") or not hasattr(socket, "send_fds"):
        raise WorkerError(f"isolation in a child process is not available on {sys.platform}")
    zygote = _Zygote(runtime, environment)
    if zygote.threads != 1:
        # This runtime starts threads when it is imported, and forking those hangs: each worker
        # imports it for itself.
        zygote.close()
        zygote = _Zygote(None, environment)
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
        zygote._channel.close()
        zygote._process.returncode = 0  # not ours to wait for
    _zygotes.clear()


atexit.register(shutdown)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def _python() -> str:
    chosen = os.environ.get("TFLITE_HAL_PYTHON")
    if chosen:
        return chosen
    if getattr(sys, "frozen", False) or not sys.executable:
        raise WorkerError(
            "this interpreter is embedded or frozen, it can't be started again", remedy=_PYTHON_REMEDY
        )
    return sys.executable


def _search_path() -> list[str]:
    """Return what the child may import from: our path, but neither '' nor the working directory,
    where a stray ``numpy.py`` would be imported; this package's own folder comes last.
    """
    try:
        here = str(Path.cwd())
    except OSError:  # the folder was deleted
        here = ""
    path = [entry for entry in sys.path if entry and Path(entry).is_absolute() and entry != here]
    own = str(Path(__file__).resolve().parents[2])
    return path if own in path else [*path, own]


def _how_it_ended(status: int | None) -> str:
    if status is None:
        return "died together with its parent"
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
        return f"killed by {name}"
    return f"ended with exit status {os.waitstatus_to_exitcode(status)} without an answer"

"""The first child process: it opens no model, has one thread, and forks the workers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Final

from tflite_hal.errors import WorkerError
from tflite_hal.worker.protocol import Channel, new_memory, socket_pair

__all__ = ["Zygote", "last_words", "new_words", "search_path"]

#: What the child runs: it can import nothing of ours before it has the parent's ``sys.path``.
_BOOTSTRAP: Final = """\
import json, socket, struct, sys
s = socket.socket(fileno=int(sys.argv[1]))
n = struct.unpack("<I", s.recv(4, socket.MSG_WAITALL))[0]
sys.path[:] = json.loads(s.recv(n, socket.MSG_WAITALL))
from tflite_hal.worker_main import zygote
zygote(s)
"""

_ANSWER_LIMIT: Final = 10.0  # seconds for the zygote to fork, kill or wait for a worker
_START_LIMIT: Final = 60.0  # seconds for the zygote's imports: a cold disk and TensorFlow
_EXIT_LIMIT: Final = 2.0  # seconds a worker may take to end once its channel is closed

#: Characters of the end of stderr that go into a reason.
LAST_WORDS: Final = 400
_PYTHON_REMEDY: Final = "set TFLITE_HAL_PYTHON to a Python interpreter that can import tflite_hal"


class Zygote:
    """The first child: forks workers, reports how they ended, ends when this process does."""

    def __init__(self, runtime: str | None, environment: Mapping[str, str]) -> None:
        """Start it; raises WorkerError where that is not possible here."""
        self._lock = threading.Lock()
        try:
            self._channel, self._process, words = _started(environment)
        except (OSError, ValueError) as error:
            raise WorkerError(f"no child process can be started: {error}", remedy=_PYTHON_REMEDY) from error
        try:
            self.threads = self._greet(runtime, words)
        finally:
            os.close(words)

    def _greet(self, runtime: str | None, words: int) -> int:
        try:
            self._channel.introduce(json.dumps(search_path()).encode())
            return int(self._channel.ask({"op": "hello", "runtime": runtime}, _START_LIMIT).body["threads"])
        except (OSError, EOFError, KeyError, ValueError) as error:
            self._process.kill()
            status = self._process.wait()
            self._channel.close()
            said = last_words(words) or str(error)
            reason = f"the child process {_python()} did not start (status {status}): {said}"
            raise WorkerError(reason, remedy=_PYTHON_REMEDY) from error
        except BaseException:  # Ctrl-C
            self.close()
            raise

    @property
    def alive(self) -> bool:
        """Whether it runs and can be talked to."""
        return self._channel.in_step and self._process.poll() is None

    def fork(self, channel: int, stderr: int) -> int:
        """Return the number of a new worker that talks over one descriptor and writes to the other."""
        return int(self._ask({"op": "fork"}, "pid", (channel, stderr)))

    def wait(self, pid: int) -> int | None:
        """Return the wait status of a worker whose channel is closed; None where the zygote died too."""
        try:
            return int(self._ask({"op": "wait", "pid": pid, "limit": _EXIT_LIMIT}, "status"))
        except WorkerError:  # the zygote is gone, and its workers with it
            return None

    def kill(self, pid: int) -> None:
        """Kill a worker; only the zygote knows that the number is still this worker's."""
        with suppress(WorkerError):  # the zygote is gone: the kernel has killed its workers
            self._ask({"op": "kill", "pid": pid}, "status")

    def _ask(self, body: Mapping[str, Any], wanted: str, descriptors: Sequence[int] = ()) -> Any:
        with self._lock:
            try:
                reply = self._channel.ask(body, _ANSWER_LIMIT, descriptors=descriptors).body
            except (OSError, EOFError, ValueError) as error:
                # It does nothing that takes long: one that does not answer is of no more use.
                self._channel.in_step = False
                self._process.kill()
                raise WorkerError(f"the process that starts workers is gone: {error}") from error
        if wanted not in reply:
            raise WorkerError(f"no child process can be started: {reply.get('error', reply)}")
        return reply[wanted]

    def disown(self) -> None:
        """In a forked child: it is the parent's; closing the copy of the channel tells it nothing."""
        self._channel.close()
        self._process.returncode = 0

    def close(self) -> None:
        """End it and its workers."""
        self._channel.end()
        try:
            self._process.wait(_EXIT_LIMIT + 1)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _started(environment: Mapping[str, str]) -> tuple[Channel, subprocess.Popen[bytes], int]:
    """Return the channel to a new process, the process, and what it writes to stdout and stderr."""
    ours, theirs = socket_pair()
    with theirs, ExitStack() as undo:
        undo.callback(ours.close)
        words = new_words()
        undo.callback(os.close, words)
        process = subprocess.Popen(
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
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1", **_added(environment)},
            start_new_session=True,  # Ctrl-C in the terminal is the application's affair
        )
        undo.pop_all()
    return Channel(ours), process, words


def _added(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables with the search path that this process has behind the one given."""
    inherited, added = os.environ.get("LD_LIBRARY_PATH"), dict(environment)
    if inherited and added.get("LD_LIBRARY_PATH"):
        added["LD_LIBRARY_PATH"] += f":{inherited}"
    return added


def new_words() -> int:
    """Return memory for what a child writes: a pipe could fill up and stop it."""
    import fcntl  # POSIX only, as are workers

    words = new_memory()
    fcntl.fcntl(words, fcntl.F_SETFL, fcntl.fcntl(words, fcntl.F_GETFL) | os.O_APPEND)
    return words


def last_words(words: int) -> str:
    """Return the end of what a child wrote, in one line."""
    most = 8 * LAST_WORDS
    # By position: the child shares the file's offset.
    text = os.pread(words, most, max(os.fstat(words).st_size - most, 0)).decode(errors="replace")
    return " | ".join(line.strip() for line in text.split("\n") if line.strip())[-LAST_WORDS:]


def _python() -> str:
    chosen = os.environ.get("TFLITE_HAL_PYTHON")
    if chosen:
        return chosen
    if getattr(sys, "frozen", False) or not sys.executable:
        raise WorkerError(
            "this interpreter is embedded or frozen, it can't be started again", remedy=_PYTHON_REMEDY
        )
    return sys.executable


def search_path() -> list[str]:
    """Return what the child may import from: our path, but neither '' nor the folder this process was
    started in, where a stray ``numpy.py`` would be imported; this package's own folder comes last.
    """
    texts = [entry for entry in sys.path if isinstance(entry, str)]  # the import system passes over others
    path = [entry for entry in texts if Path(entry).is_absolute() and not _is_accidental(entry)]
    own = str(Path(__file__).resolve().parents[2])
    return path if own in path else [*path, own]


def _is_accidental(entry: str) -> bool:
    return entry == _STARTED_IN and Path(entry).name not in ("site-packages", "dist-packages")


def _started_in() -> str:
    try:
        return str(Path.cwd())
    except OSError:  # the folder was deleted
        return ""


#: As it was when this package was imported: a later chdir makes no other folder accidental.
_STARTED_IN: Final = _started_in()

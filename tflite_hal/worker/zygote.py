"""The first child process: it opens no model, has one thread, and forks the workers."""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from tflite_hal.errors import WorkerError
from tflite_hal.worker.protocol import Channel

__all__ = ["LAST_WORDS", "Zygote", "search_path"]

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

#: Characters of the end of stderr that go into a reason.
LAST_WORDS: Final = 400
_PYTHON_REMEDY: Final = "set TFLITE_HAL_PYTHON to a Python interpreter that can import tflite_hal"


class Zygote:
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
        path = json.dumps(search_path()).encode()
        try:
            self._socket.sendall(struct.pack("<I", len(path)) + path)
            self._channel.send({"op": "hello", "runtime": runtime})
            return int(self._channel.receive(_START_LIMIT).body["threads"])
        except (OSError, EOFError, TimeoutError, KeyError, ValueError) as error:
            self._process.kill()
            status = self._process.wait()
            words.seek(0)
            said = " | ".join(words.read().decode(errors="replace").split("\n")[-4:])[-LAST_WORDS:]
            self._channel.close()
            reason = f"the child process {_python()} did not start (status {status}): {said or error}"
            raise WorkerError(reason, remedy=_PYTHON_REMEDY) from error

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process.poll() is None

    def fork(self, channel: int, stderr: int) -> int:
        """Return the number of a new worker that talks over one descriptor and writes to the other."""
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

    def disown(self) -> None:
        """In a forked child: it is the parent's; closing the copy of the channel tells it nothing."""
        self._channel.close()
        self._process.returncode = 0

    def close(self) -> None:
        """End it and its workers."""
        self._channel.close()
        try:
            self._process.wait(_EXIT_LIMIT + 1)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


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

"""The first child: forks workers and watches over them."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import os
import select
import signal
import socket
import sys
import time
import traceback
from pathlib import Path
from typing import Any, Final, NoReturn

from tflite_hal.runtime import load_runtime
from tflite_hal.worker import Channel, Reply
from tflite_hal.worker_main.server import Server

__all__ = ["zygote"]

_IDLE = 300.0  # seconds without a worker after which the zygote ends; the next worker starts another
_PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h
_FIRST_TO_GO: Final = 500  # of -1000 (never) to 1000; proc(5), oom_score_adj


def zygote(sock: socket.socket) -> None:
    """Import what workers need, then fork them on request until the parent is gone."""
    channel = Channel(sock)
    hello = channel.receive()
    if hello.body["runtime"] is not None:
        load_runtime(hello.body["runtime"])
        importlib.import_module("tflite")  # the schema: 40 ms once instead of in every worker
    _limit_resources()
    gc.collect()
    gc.freeze()  # what is imported stays shared between the workers
    channel.send({"pid": os.getpid(), "threads": _count_threads()}, number=hello.number)
    family, ends = _Family(), _ends_of_children()
    while _answer(channel, family, ends):
        pass
    family.kill_all()
    os._exit(0)


class _Family:
    """The workers that were forked and how those that ended did; keeps no zombies."""

    def __init__(self) -> None:
        self.alive: set[int] = set()
        self._ended: dict[int, int] = {}

    def reap(self) -> None:
        """Note which workers have ended; a number may be another process's after that."""
        for pid in list(self.alive):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                self.alive.discard(pid)
                self._ended[pid] = status

    def wait(self, pid: int, limit: float) -> int:
        """Return the wait status; a worker that does not end within the limit is killed."""
        deadline = time.monotonic() + limit
        pause = 0.001
        while pid in self.alive and time.monotonic() < deadline:
            self.reap()
            select.select([], [], [], pause)
            pause = min(pause * 2, 0.05)
        self.kill(pid)
        return self._ended.pop(pid)

    def kill(self, pid: int) -> None:
        """Kill a worker and wait for its end."""
        self.reap()
        if pid in self.alive:
            os.kill(pid, signal.SIGKILL)
            self._ended[pid] = os.waitpid(pid, 0)[1]
            self.alive.discard(pid)

    def kill_all(self) -> None:
        """Leave nothing behind."""
        for pid in list(self.alive):
            self.kill(pid)


def _ends_of_children() -> socket.socket:
    """Return what can be read once a child has ended: one that nobody asks for must not stay a zombie."""
    read, write = socket.socketpair()
    for end in (read, write):
        end.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)  # it writes a byte
    signal.set_wakeup_fd(write.detach(), warn_on_full_buffer=False)
    return read


def _default_signals() -> None:
    """In a worker: its own children are a delegate's affair."""
    os.close(signal.set_wakeup_fd(-1))
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def _answer(channel: Channel, family: _Family, ends: socket.socket) -> bool:
    watched: list[Channel | socket.socket] = [channel, ends]
    ready, _, _ = select.select(watched, [], [], _IDLE)
    if ends in ready:
        ends.recv(4096)
    family.reap()
    if channel not in ready:
        return bool(ready or family.alive)
    try:
        request = channel.receive()
        answer = _answered(channel, request, family)
        channel.send(answer, number=request.number)
    except (EOFError, OSError, ValueError):
        return False
    return True


def _answered(channel: Channel, request: Reply, family: _Family) -> dict[str, Any]:
    try:
        if request.body["op"] == "fork":
            return _fork(channel, request, family)
        pid = request.body["pid"]
        if request.body["op"] == "kill":
            family.kill(pid)
        return {"status": family.wait(pid, request.body.get("limit", 0.0))}
    except (KeyError, TypeError, ValueError, OSError) as error:
        return {"error": f"{type(error).__name__}: {error}"}


def _fork(channel: Channel, request: Reply, family: _Family) -> dict[str, Any]:
    ours, words = request.descriptors
    parent = os.getpid()
    try:
        pid = os.fork()
        if pid == 0:
            _become_worker(channel, ours, words, parent)
    finally:
        os.close(ours)
        os.close(words)
    family.alive.add(pid)
    return {"pid": pid}


def _become_worker(zygote: Channel, channel: int, words: int, parent: int) -> NoReturn:
    """Serve one worker's channel until it ends; whatever happens, never return into the zygote."""
    try:
        zygote.close()
        _default_signals()
        os.dup2(words, 1)
        os.dup2(words, 2)
        os.close(words)
        _die_with(parent)
        Server(Channel(socket.socket(fileno=channel))).serve()
        os._exit(0)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)


def _die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent ends (Linux: elsewhere it ends when its channel
    does, unless it hangs)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it was gone before
            os._exit(0)


def _count_threads() -> int:
    tasks = Path("/proc/self/task")
    return len(list(tasks.iterdir())) if tasks.is_dir() else 1


def _limit_resources() -> None:
    """Write no core dumps, since a crash here is an expected answer, and be what the kernel ends first
    where memory runs out: the application does without a worker."""
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    with contextlib.suppress(OSError, ValueError):  # no Linux, or /proc is read-only
        score = Path("/proc/self/oom_score_adj")
        score.write_text(str(max(int(score.read_text()), _FIRST_TO_GO)))

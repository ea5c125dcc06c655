"""The child's side of :mod:`tflite_hal.worker`: the zygote's loop and the worker's operations.

Everything foreign runs here: vendors' libraries, third-party plugins, the first open of an unknown
model. What it raises goes back as a message; what it kills is this process only.
"""

from __future__ import annotations

import gc
import importlib
import os
import select
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tflite_hal.delegate import Configuration, Delegate, Device
from tflite_hal.errors import DelegateError
from tflite_hal.host import HostInfo
from tflite_hal.manager import collect, describe
from tflite_hal.model import Model, read_model
from tflite_hal.profiles import load_profile
from tflite_hal.runtime import load_runtime
from tflite_hal.session import MOST_CALLS, Call, Session
from tflite_hal.worker import Channel, Reply, SharedArrays, described_error

_IDLE = 300.0  # seconds without a worker after which the zygote ends; the next worker starts another


def zygote(sock: socket.socket) -> None:
    """Import what workers need, then fork them on request until the parent is gone."""
    channel = Channel(sock)
    runtime = channel.receive().body["runtime"]
    if runtime is not None:
        load_runtime(runtime)
        importlib.import_module("tflite")  # the schema: 40 ms once instead of in every worker
    _no_core_dumps()
    gc.collect()
    gc.freeze()  # what is imported stays shared between the workers
    channel.send({"pid": os.getpid(), "threads": _count_threads()})
    family = _Family()
    while _answer(channel, family):
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


def _answer(channel: Channel, family: _Family) -> bool:
    ready, _, _ = select.select([channel], [], [], _IDLE)
    family.reap()
    if not ready:
        return bool(family.alive)
    try:
        request = channel.receive()
        if request.body["op"] == "fork":
            channel.send(_fork(channel, request, family))
        elif request.body["op"] == "kill":
            family.kill(request.body["pid"])
            channel.send({})
        else:
            channel.send({"status": family.wait(request.body["pid"], request.body["limit"])})
    except (EOFError, OSError):
        return False
    return True


def _fork(channel: Channel, request: Reply, family: _Family) -> dict[str, Any]:
    ours, stderr = request.descriptors
    try:
        pid = os.fork()
    except OSError as error:
        pid = -1
        answer: dict[str, Any] = {"error": str(error)}
    if pid == 0:
        channel.close()
        os.dup2(stderr, 1)
        os.dup2(stderr, 2)
        os.close(stderr)
        _Server(Channel(socket.socket(fileno=ours))).serve()
        os._exit(0)
    os.close(ours)
    os.close(stderr)
    if pid > 0:
        family.alive.add(pid)
        answer = {"pid": pid}
    return answer


def _count_threads() -> int:
    tasks = Path("/proc/self/task")
    return len(list(tasks.iterdir())) if tasks.is_dir() else 1


def _no_core_dumps() -> None:
    # A crash here is an expected answer, not something to fill the disk with.
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


class _Server:
    """One worker: answers requests, holds sessions and the calls prepared on them."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._delegates: dict[str, Delegate] = {}
        self._sessions: dict[int, tuple[Session, Model]] = {}
        self._calls: dict[int, _Prepared] = {}
        self._numbers = iter(range(1, 1 << 31))
        self._operations: dict[str, Callable[..., dict[str, Any]]] = {
            "plugin": self._plugin,
            "ask": self._ask,
            "runtime": self._runtime,
            "open": self._open,
            "prepare": self._prepare,
            "reset": self._reset,
            "close": self._close,
        }

    def serve(self) -> None:
        """Answer until the parent closes the channel."""
        while True:
            try:
                request = self._channel.receive()
            except (EOFError, OSError):
                return
            # Foreign code may raise anything; whatever it is goes back as this request's answer.
            try:
                self._handle(request)
            except Exception as error:
                place = traceback.format_exception(type(error), error, error.__traceback__)[-2:]
                self._channel.send({"error": described_error(error, " ".join("".join(place).split())[-300:])})

    def _handle(self, request: Reply) -> None:
        if request.kind == b"CALL":
            prepared = self._calls[request.number]
            memory = prepared.run()
            if memory is None:
                self._channel.send_call(b"DONE", request.number)
            else:
                self._channel.send({"layout": memory.layout}, descriptors=[memory.descriptor])
                memory.close_descriptor()
            return
        fields = dict(request.body)
        operation = self._operations[fields.pop("op")]
        if request.blob:
            fields["blob"] = request.blob
        if request.descriptors:
            fields["descriptors"] = request.descriptors
        self._channel.send(operation(**fields))

    def _plugin(self, module: str, plugin: str) -> dict[str, Any]:
        """Import a plugin and say what it contributes."""
        delegates, folders = collect(importlib.import_module(module), plugin)
        return {"delegates": [describe(delegate) for delegate in delegates], "folders": folders}

    def _ask(
        self, delegate: str, method: str, arguments: dict[str, Any], blob: bytes = b""
    ) -> dict[str, Any]:
        """Call one of a delegate's methods that only look."""
        given: dict[str, Any] = {}
        if "host" in arguments:
            given["host"] = HostInfo.from_dict(arguments["host"])
        if "device" in arguments:
            given["device"] = Device(**arguments["device"])
        if "model" in arguments:
            given["model"] = read_model(blob or arguments["model"])
        if "profile" in arguments:
            path = arguments["profile"]
            given["profile"] = None if path is None else load_profile(path)
        result = getattr(self._delegate(delegate), method)(**given)
        if method == "configurations":
            result = [configuration.to_dict() for configuration in result]
        elif method in ("probe", "inspect"):
            result = result.to_dict()
        return {"result": result}

    def _runtime(self, name: str) -> dict[str, Any]:
        """Import a runtime: whether it can be used is only known afterwards."""
        return {"version": load_runtime(name).version}

    def _delegate(self, reference: str) -> Delegate:
        if reference not in self._delegates:
            module, _, name = reference.partition(":")
            found: type[Delegate] = getattr(importlib.import_module(module), name)
            self._delegates[reference] = found()
        return self._delegates[reference]

    def _open(
        self,
        delegate: str,
        model: str | None,
        device: dict[str, Any],
        configuration: dict[str, Any],
        runtime: str,
        blob: bytes = b"",
    ) -> dict[str, Any]:
        source = read_model(blob if model is None else model)
        session = self._delegate(delegate).open(
            source, Device(**device), Configuration(**configuration), load_runtime(runtime)
        )
        number = next(self._numbers)
        self._sessions[number] = session, source
        return {"session": number, "coverage": session.coverage, "threading": session.threading}

    def _prepare(
        self,
        session: int,
        signature: str | None,
        shapes: list[list[int]],
        layout: list[tuple[str, list[int]]],
        descriptors: tuple[int, ...],
    ) -> dict[str, Any]:
        (descriptor,) = descriptors
        inputs = SharedArrays(layout, descriptor)
        inputs.close_descriptor()
        call = self._sessions[session][0].prepare(signature, [tuple(shape) for shape in shapes])
        number = next(self._numbers)
        own = [n for n, prepared in self._calls.items() if prepared.session == session]
        if len(own) >= MOST_CALLS:  # the parent has forgotten the oldest too
            del self._calls[own[0]]
        self._calls[number] = _Prepared(session, call, inputs)
        return {"call": number}

    def _reset(self, session: int) -> dict[str, Any]:
        self._sessions[session][0].reset()
        return {}

    def _close(self, session: int) -> dict[str, Any]:
        for number in [number for number, call in self._calls.items() if call.session == session]:
            del self._calls[number]
        found = self._sessions.pop(session, None)
        if found is not None:
            found[0].close()
        return {}


class _Prepared:
    """A call with its inputs and outputs in shared memory."""

    def __init__(self, session: int, call: Call, inputs: SharedArrays) -> None:
        self.session = session
        self._call = call
        self._inputs = inputs
        self._outputs: SharedArrays | None = None

    def run(self) -> SharedArrays | None:
        """Run once; return the outputs' memory where it is new: at the first run, and whenever the
        outputs' shapes have changed."""
        results = self._call.run(self._inputs.arrays)
        layout = [(array.dtype.str, array.shape) for array in results]
        if any(array.dtype.hasobject for array in results):
            raise DelegateError("string outputs can't leave a worker")
        fresh = self._outputs is None or self._outputs.layout != layout
        if fresh:
            self._outputs = SharedArrays(layout)
        assert self._outputs is not None  # noqa: S101 -- for the type checker: set just above
        for array, place in zip(results, self._outputs.arrays, strict=True):
            place[...] = array
        return self._outputs if fresh else None


if __name__ == "__main__":
    sys.exit("tflite_hal.worker_main is started by tflite_hal.worker")

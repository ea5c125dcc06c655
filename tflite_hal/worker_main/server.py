"""One worker: answers requests until its parent lets go of it."""

from __future__ import annotations

import importlib
import json
import os
import time
from collections.abc import Callable, Iterable
from typing import Any, Final

from tflite_hal.contract import check_probe, collect, describe
from tflite_hal.delegate import Configuration, Delegate, Device
from tflite_hal.errors import DelegateError
from tflite_hal.host import HostInfo
from tflite_hal.model import Model, read_model
from tflite_hal.profiles import load_profile
from tflite_hal.runtime import load_runtime
from tflite_hal.session import MOST_CALLS, Call, Coverage, Session
from tflite_hal.worker import Channel, Reply, SharedArrays, described_error

__all__ = ["Server"]

_MOST_WORDS: Final = 1 << 20  # bytes a worker may have written before they are forgotten


class Server:
    """One worker: answers requests, holds sessions and the calls prepared on them."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._delegates: dict[str, Delegate] = {}
        self._sessions: dict[int, tuple[Session, Model]] = {}
        self._calls: dict[int, _Prepared] = {}
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
                request = self._channel.receive(blobs=True)
            except EOFError:
                return
            # Foreign code may raise anything; whatever it is goes back as this request's answer.
            try:
                self._handle(request)
            except Exception as error:
                self._channel.send({"error": described_error(error)}, number=request.number)

    def _handle(self, request: Reply) -> None:
        if request.kind == b"CALL":
            self._run(request)
            return
        if os.fstat(2).st_size > _MOST_WORDS:
            os.ftruncate(2, 0)
        fields = dict(request.body)
        operation = self._operations[fields.pop("op")]
        if request.blob:
            fields["blob"] = request.blob
        if request.descriptors:
            fields["descriptors"] = request.descriptors
        self._channel.send(operation(**fields), number=request.number)

    def _run(self, request: Reply) -> None:
        started = time.perf_counter_ns()
        memory = self._calls[request.call].run(request.fresh)
        took = time.perf_counter_ns() - started
        if memory is None:
            self._channel.send_done(request.number, took)
        else:
            answer = {"layout": memory.layout, "took": took}
            self._channel.send(answer, number=request.number, descriptors=[memory.descriptor])

    def _plugin(self, module: str, plugin: str) -> dict[str, Any]:
        """Import a plugin and say what it contributes."""
        delegates, folders = collect(importlib.import_module(module), plugin)
        return {"delegates": [describe(delegate) for delegate in delegates], "folders": folders}

    def _ask(
        self, delegate: str, method: str, arguments: dict[str, Any], blob: bytes = b""
    ) -> dict[str, Any]:
        """Call one of a delegate's methods that only look."""
        given: list[Any] = []  # in the order of every method; vendors may call them as they like
        if "host" in arguments:
            given.append(HostInfo.from_dict(arguments["host"]))
        if "model" in arguments:
            given.append(_model(arguments["model"], arguments["stamp"], blob))
        if "device" in arguments:
            given.append(Device(**arguments["device"]))
        if "profile" in arguments:
            path = arguments["profile"]
            given.append(None if path is None else load_profile(path, trusted=True))
        asked = self._delegate(delegate)
        result = getattr(asked, method)(*given)
        if method == "configurations":
            result = _configurations(result, asked.name)
        elif method in ("probe", "inspect"):
            result = check_probe(result, asked.name, method).to_dict()
        return {"result": result}

    def _runtime(self, name: str) -> dict[str, Any]:
        """Import a runtime: whether it can be used is only known afterwards."""
        return {"version": load_runtime(name).version}

    def _delegate(self, reference: str) -> Delegate:
        if reference not in self._delegates:
            place, _, data = reference.partition(" ")  # the data of a delegate that is made of it
            module, _, name = place.partition(":")
            made: Callable[..., Delegate] = getattr(importlib.import_module(module), name)
            self._delegates[reference] = made(json.loads(data)) if data else made()
        return self._delegates[reference]

    def _open(
        self,
        session: int,
        delegate: str,
        model: str | None,
        stamp: list[int] | None,
        device: dict[str, Any],
        configuration: dict[str, Any],
        runtime: str,
        blob: bytes = b"",
    ) -> dict[str, Any]:
        source = _model(model, stamp, blob)
        made = self._delegate(delegate)
        opened = made.open(source, Device(**device), Configuration(**configuration), load_runtime(runtime))
        if not isinstance(opened, Session):
            raise DelegateError(f"delegate {made.name}: open() gave {opened!r}, which is no Session")
        self._sessions[session] = opened, source
        coverage = opened.coverage
        return {"coverage": coverage.to_dict() if isinstance(coverage, Coverage) else coverage}

    def _prepare(
        self,
        session: int,
        call: int,
        signature: str | None,
        shapes: list[list[int]],
        layout: list[tuple[str, list[int]]],
        descriptors: tuple[int, ...],
    ) -> dict[str, Any]:
        (descriptor,) = descriptors
        try:
            inputs = SharedArrays(layout, descriptor)
        finally:
            os.close(descriptor)
        prepared = self._sessions[session][0].prepare(signature, [tuple(shape) for shape in shapes])
        own = [n for n, other in self._calls.items() if other.session == session]
        if len(own) >= MOST_CALLS:  # the parent has forgotten the oldest too
            del self._calls[own[0]]
        self._calls[call] = _Prepared(session, prepared, inputs)
        return {}

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


def _configurations(given: Any, delegate: str) -> list[dict[str, Any]]:
    if not isinstance(given, Iterable):
        reason = f"delegate {delegate}: configurations() gave {given!r}, which is no sequence"
        raise DelegateError(reason)
    found = list(given)
    wrong = [one for one in found if not isinstance(one, Configuration)]
    if wrong:
        reason = f"delegate {delegate}: configurations() gave {wrong[0]!r}, which is no Configuration"
        raise DelegateError(reason)
    return [one.to_dict() for one in found]


def _model(path: str | None, stamp: list[int] | None, blob: bytes) -> Model:
    """Read the model that the parent has read."""
    model = read_model(blob if path is None else path)
    model.require(None if stamp is None else (stamp[0], stamp[1], stamp[2], stamp[3]))
    return model


class _Prepared:
    """A call with its inputs and outputs in shared memory."""

    def __init__(self, session: int, call: Call, inputs: SharedArrays) -> None:
        self.session = session
        self._call = call
        self._inputs = inputs
        self._outputs: SharedArrays | None = None

    def run(self, fresh: bool) -> SharedArrays | None:
        """Run once; return the outputs' memory where the parent does not have it: when it asks for it,
        and whenever the outputs' shapes have changed."""
        results = self._call.run(self._inputs.arrays)
        layout = [(array.dtype.str, array.shape) for array in results]
        if any(array.dtype.hasobject for array in results):
            raise DelegateError("string outputs can't leave a worker")
        if self._outputs is None or self._outputs.layout != layout:
            self._outputs, fresh = SharedArrays(layout), True
        for array, place in zip(results, self._outputs.arrays, strict=True):
            place[...] = array
        return self._outputs if fresh else None

"""The one interface: find, prove, choose, run, measure."""

from __future__ import annotations

import os
import threading
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from tflite_hal.benchmark import BenchmarkResult, time_calls
from tflite_hal.delegate import Device
from tflite_hal.errors import ClosedError, DelegateError
from tflite_hal.model import Interface, TensorSpec, read_model
from tflite_hal.runner.choice import Request, checked_threads, choose_for
from tflite_hal.runner.events import Event, Events
from tflite_hal.runner.measured import measured
from tflite_hal.runtime import Runtime, load_runtime
from tflite_hal.selection import Wish
from tflite_hal.session import MOST_CALLS, Call
from tflite_hal.tensors import arrange, convert, deliver, write_out
from tflite_hal.trial import seeded_inputs

__all__ = ["Runner"]


class Runner:
    """A model on the right hardware.

    ``Runner.auto(model)`` chooses and falls back, keeping every reason; ``Runner(model)`` is the plain
    CPU; ``Runner(model, device=...)`` and ``Runner(model, delegate=...)`` never fall back. A runner may
    be shared between threads.

    Attributes:
        selection: what was chosen, and why not the others.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | bytes,
        *,
        device: str | None = None,
        delegate: str | None = None,
        options: Mapping[str, Any] | None = None,
        profile: str | os.PathLike[str] | None = None,
        threads: int | None = None,
        runtime: str | None = None,
    ) -> None:
        """Open a model on the CPU, on a device (by kind or id) or with a delegate (by name).

        Args:
            model: path or bytes of a ``.tflite`` file.
            device: ``cpu``, ``npu``, ``usb:0`` ...
            delegate: name of a plugin's delegate.
            options: for the delegate, as it declares them.
            profile: name or file of a device profile instead of the one that matches.
            threads: CPU threads instead of the delegate's choice.
            runtime: ``ai_edge_litert``, ``tflite_runtime`` or ``tensorflow``.

        Raises:
            ModelError: the file is not a model that can be run.
            DelegateError: what was asked for is unknown, absent or fails; ends with the remedy.
            RuntimeUnavailableError: no runtime, or not the one asked for.
        """
        if options and delegate is None:
            raise DelegateError("options= belong to a delegate", remedy="give delegate= as well")
        if device is None and delegate is None:
            device = "cpu"
        wish = Wish(
            delegates=None if delegate is None else (delegate,),
            device=device,
            cpu_last=False,
            threads=checked_threads(threads),
            options=options,
        )
        self._start(model, Request(wish, profile, runtime, explicit=True))

    @classmethod
    def auto(
        cls,
        model: str | os.PathLike[str] | bytes,
        *,
        delegates: Sequence[str] | None = None,
        exclude: Collection[str] = (),
        device: str | None = None,
        profile: str | os.PathLike[str] | None = None,
        threads: int | None = None,
        runtime: str | None = None,
    ) -> Runner:
        """Open a model on the best device that answers.

        Foreign libraries take part only when ``delegates=`` or ``device=`` names them. The CPU is the
        last resort unless it is excluded.

        Args:
            model: path or bytes of a ``.tflite`` file.
            delegates: names of the delegates that may be used, in order; None is all.
            exclude: names of delegates, ids or kinds of devices not to be used.
            device: id or kind of the accelerators that may be used.
            profile: name or file of a device profile instead of the one that matches.
            threads: CPU threads instead of the delegate's choice.
            runtime: ``ai_edge_litert``, ``tflite_runtime`` or ``tensorflow``.

        Raises:
            ModelError: the file is not a model that can be run.
            NoDelegateError: nothing that is allowed answers; has the selection.
            DelegateError: ``delegates`` has an unknown name.
            RuntimeUnavailableError: no runtime, or not the one asked for.
        """
        for words, name in ((delegates, "delegates"), (exclude, "exclude")):
            if isinstance(words, str):
                raise DelegateError(
                    f"{name}={words!r} is a string", remedy=f"give a sequence: {name}=[{words!r}]"
                )
        runner = cls.__new__(cls)
        wish = Wish(delegates, device, exclude, cpu_last=True, threads=checked_threads(threads))
        runner._start(model, Request(wish, profile, runtime, explicit=False))
        return runner

    def _start(self, model: str | os.PathLike[str] | bytes, request: Request) -> None:
        self._lock = threading.RLock()
        self._closed = False
        self._interfaces: dict[str | None, Interface] = {}
        self._events = Events()
        self._request = request
        self._model = read_model(model)
        self._runtime = load_runtime(request.runtime)
        self._open()

    def _open(self) -> None:
        choice = choose_for(self._model, self._runtime, self._request)
        self.selection, self._opened = choice.selection, choice.opened
        self._calls: dict[tuple[Any, ...], Call] = {}
        self._pid = os.getpid()
        for kind, message in choice.notes:
            self._events.record(kind, message)
        for failure in choice.failures:
            self._events.record("fallback", f"{failure.candidate.delegate.name}: {failure.error}")
        if choice.opened.warning:
            self._events.record("isolation", choice.opened.warning)

    @property
    def events(self) -> list[Event]:
        """What happened and did not stop it, oldest first; the last thousand."""
        return self._events.all()

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The model's inputs, in its order."""
        return self._model.info.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """The model's outputs, in its order."""
        return self._model.info.outputs

    @property
    def device(self) -> Device:
        """What the model runs on."""
        return self._opened.candidate.device

    @property
    def delegate(self) -> str:
        """Name of the delegate that runs it."""
        return self._opened.candidate.delegate.name

    @property
    def runtime(self) -> Runtime:
        """The TensorFlow Lite implementation underneath."""
        return self._runtime

    def predict(
        self,
        inputs: Any,
        *,
        signature: str | None = None,
        dequantize: bool | None = None,
        out: Any = None,
    ) -> Any:
        """Run the model once.

        Args:
            inputs: an array, a sequence in the model's order, or a mapping by name. Values are
                converted only where nothing is lost; real numbers for a quantised input are quantised.
            signature: key of a signature of the model; its names then apply.
            dequantize: True gives quantised outputs as float32, False never; None does where real
                numbers were given to a quantised input.
            out: an array (or mapping by name) of exactly the outputs' dtypes and shapes to fill.

        Returns:
            One array for one output, else a mapping in the model's order; the caller's to keep.

        Raises:
            InputError: the input does not fit; names the tensor, expected and given.
            DelegateError: the run failed. Nothing of an earlier run is returned.
            WorkerError: the worker that holds the session died or was killed.
            ClosedError: the runner is closed.
        """
        interface = self._interface(signature)
        given = arrange(interface.renamed(inputs), interface.input_names, interface.inputs)
        pairs = zip(given, interface.inputs, strict=True)
        converted = [convert(value, spec, self._warn_about_input) for value, spec in pairs]
        results = self._run(signature, [one.array for one in converted])
        if dequantize is None:
            dequantize = any(one.real for one in converted)
        result = deliver(results, interface.output_names, interface.outputs, dequantize)
        return result if out is None else write_out(result, out)

    def _interface(self, signature: str | None) -> Interface:
        if self._closed:
            raise ClosedError(f"the runner of {self._model.name} is closed", remedy="make a new one")
        interface = self._interfaces.get(signature)
        if interface is None:
            interface = self._model.info.interface(signature, self._model.name)
            self._interfaces[signature] = interface
        return interface

    def _run(self, signature: str | None, arrays: list[np.ndarray[Any, Any]]) -> list[np.ndarray[Any, Any]]:
        key = (signature, *[array.shape for array in arrays])
        if self._pid != os.getpid():
            self._reopen_after_fork()
        with self._lock:
            call = self._calls.get(key)
            if call is None:
                call = self._prepare(key)
            return call.run(arrays)

    def _prepare(self, key: tuple[Any, ...]) -> Call:
        if len(self._calls) >= MOST_CALLS:
            del self._calls[next(iter(self._calls))]  # the oldest: each holds memory for its tensors
        call = self._calls[key] = self._opened.session.prepare(key[0], key[1:])
        return call

    def _reopen_after_fork(self) -> None:
        """Open again in a forked child. The inherited session is leaked on purpose: destroying an
        inherited interpreter with two threads hangs on both runtimes. So is the lock: a thread that
        the child does not have may hold it."""
        with _fork_lock:
            if self._pid == os.getpid():
                return  # another thread of the child was first
            _leaked.append((self._opened, self._calls))
            self._lock = threading.RLock()
            self._events.record(
                "fork", f"{self._model.name} was opened again in a forked process", warn=False
            )
            self._open()

    def _warn_about_input(self, message: str) -> None:
        self._events.record("input", message)

    def reset(self) -> None:
        """Forget what a stateful model (an LSTM, say) remembers from earlier runs."""
        self._interface(None)
        if self._pid != os.getpid():
            self._reopen_after_fork()
        with self._lock:
            self._opened.session.reset()

    def warmup(self, runs: int = 3) -> None:
        """Run the model on seeded inputs and forget the answers; a stateful model is reset after."""
        inputs = seeded_inputs(self.inputs)
        for _ in range(runs):
            self.predict(inputs)
        if self._model.info.stateful:
            self.reset()

    def benchmark(
        self,
        *,
        inputs: Any = None,
        runs: int | None = None,
        seconds: float | None = None,
        warmup: int | None = None,
    ) -> BenchmarkResult:
        """Measure ``predict``: the same call, all its checks included.

        Args:
            inputs: as for :meth:`predict`; None is seeded random data.
            runs: how many to time; None leaves it to ``seconds``.
            seconds: for how long; None is about one second where ``runs`` is None too.
            warmup: untimed runs before; None is until the time is stable.

        Raises:
            InputError: the inputs or the numbers do not fit.
            DelegateError: a run failed.
        """
        given = seeded_inputs(self.inputs) if inputs is None else inputs
        timing = time_calls(lambda: self.predict(given), runs=runs, seconds=seconds, warmup=warmup)
        if self._model.info.stateful:
            self.reset()
        return measured(self._model, self._runtime, self._opened, timing)

    def close(self) -> None:
        """Free the model; may be called twice. A closed runner says so when it is used."""
        if self._pid != os.getpid():  # inherited: leaked, see _reopen_after_fork
            self._closed = True
            return
        with self._lock:
            if not self._closed:
                self._calls.clear()
                self._opened.session.close()
            self._closed = True

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        if not hasattr(self, "_opened"):  # seen in the traceback of a constructor that failed
            return "<Runner, not opened>"
        return f"<Runner {self._model.name} by {self.delegate} on {self.device.id} ({self._runtime.name})>"


_leaked: list[Any] = []  # sessions inherited by a fork: see Runner._reopen_after_fork
_fork_lock = threading.Lock()


def _new_fork_lock() -> None:
    global _fork_lock
    _fork_lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_new_fork_lock)

"""The one interface: find, prove, choose, run, measure."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from tflite_hal.accuracy import Check
from tflite_hal.benchmark import BenchmarkResult, time_calls
from tflite_hal.delegate import Device
from tflite_hal.errors import InputError
from tflite_hal.model import TensorSpec, read_model
from tflite_hal.runner.events import Event, Events
from tflite_hal.runner.life import Life
from tflite_hal.runner.many import Many
from tflite_hal.runner.measured import measured
from tflite_hal.runner.request import (
    Request,
    automatic_request,
    checked_listener,
    explicit_request,
    terms_of,
)
from tflite_hal.runner.results import Results
from tflite_hal.runner.usual import Usual
from tflite_hal.runtime import Runtime, load_runtime
from tflite_hal.selection import Selection
from tflite_hal.trial import seeded_inputs
from tflite_hal.verdicts import Verdicts, cache_folder

__all__ = ["Runner"]


class Runner:
    """A model on the right hardware.

    ``Runner.auto(model)`` chooses and falls back, keeping every reason; ``Runner(model)`` is the plain
    CPU; ``Runner(model, device=...)`` and ``Runner(model, delegate=...)`` never fall back. A runner may
    be shared between threads.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | bytes,
        *,
        device: str | None = None,
        delegate: str | None = None,
        delegate_library: str | os.PathLike[str] | None = None,
        options: Mapping[str, Any] | None = None,
        profile: str | os.PathLike[str] | None = None,
        threads: int | None = None,
        runtime: str | None = None,
        check: Check | None = None,
        variants: bool = True,
        isolate: str | bool = "auto",
        recheck: int = 0,
        open_timeout: float | None = None,
        timeout: float | None = None,
        on_event: Callable[[Event], None] | None = None,
    ) -> None:
        """Open a model on the CPU, on a device (by kind or id) or with a delegate (by name or file).

        It never falls back: what fails, or answers wrongly, raises.

        Args:
            model: path or bytes of a ``.tflite`` file.
            device: ``cpu``, ``npu``, ``usb:0`` ...
            delegate: name of a plugin's delegate.
            delegate_library: file of an external delegate that no plugin knows; a name without a folder is
                looked for in those of the loader.
            options: for the delegate, as it declares them; a file's are passed on in their order.
            profile: name or file of a device profile instead of the one that matches.
            threads: CPU threads instead of the delegate's choice.
            runtime: ``ai_edge_litert``, ``tflite_runtime`` or ``tensorflow``.
            check: how right the answers must be; see :class:`tflite_hal.Check`.
            variants: whether a file beside the model may run instead, where a delegate has its own
                (``m_npu.tflite`` for ``m.tflite``) or the runtime can't run the one given.
            isolate: ``"auto"``: foreign libraries live in child processes; True: all sessions; False: none,
                and a library that crashes takes the application with it.
            recheck: every so many answers are compared with the built-in kernels'; 0 is none.
            open_timeout: seconds that opening may take, instead of what the delegate allows.
            timeout: seconds that a run in a child process may take.
            on_event: called with each event, in the thread it happens in.

        Raises:
            ModelError: the file is not a model that can be run.
            DelegateError: what was asked for is unknown, absent, fails or answers wrongly; ends with the
                remedy.
            RuntimeUnavailableError: no runtime, or not the one asked for.
        """
        request = explicit_request(device, delegate, delegate_library, options, threads)
        request = request.completed(profile, runtime, recheck, variants)
        limits = {"open_timeout": open_timeout, "timeout": timeout}
        self._start(model, request, on_event, check=check, prefer="order", isolate=isolate, **limits)

    @classmethod
    def auto(
        cls,
        model: str | os.PathLike[str] | bytes,
        *,
        delegates: Sequence[str] | None = None,
        exclude: Collection[str] = (),
        device: str | None = None,
        delegate_library: str | os.PathLike[str] | None = None,
        options: Mapping[str, Any] | None = None,
        profile: str | os.PathLike[str] | None = None,
        threads: int | None = None,
        runtime: str | None = None,
        check: Check | None = None,
        variants: bool = True,
        prefer: str = "latency",
        isolate: str | bool = "auto",
        min_coverage: float = 0.0,
        fallback: str = "auto",
        recheck: int = 0,
        open_timeout: float | None = None,
        timeout: float | None = None,
        on_event: Callable[[Event], None] | None = None,
    ) -> Runner:
        """Open a model on what answers rightly and fastest.

        Every candidate is tried in a child process and compared with the runtime's built-in kernels;
        those that are right are timed side by side. The CPU stays a candidate unless it is excluded.

        Args:
            delegates: names of the delegates that may be used, in order; None is all.
            exclude: names of delegates, ids or kinds of devices not to be used.
            device: id or kind of the accelerators that may be used.
            delegate_library, options: a candidate more, ``"library"`` by name; as of the constructor.
            prefer: ``"latency"``; ``"throughput"``: latency times the CPU threads it occupies; or
                ``"order"``: the first that is right, nothing is timed.
            min_coverage: share (0 to 1) of the model's operators that an accelerator must take; one that
                does not report what it took is refused where it is not 0.
            fallback: ``"auto"``: another candidate answers where one fails while running, with the same
                input; ``"never"``: that raises.

        The other arguments and errors are the constructor's.

        Raises:
            NoDelegateError: nothing that is allowed answers; has the selection.
        """
        runner = cls.__new__(cls)
        request = automatic_request(delegates, exclude, device, delegate_library, options, threads, fallback)
        runner._start(
            model,
            request.completed(profile, runtime, recheck, variants),
            on_event,
            check=check,
            prefer=prefer,
            min_coverage=min_coverage,
            isolate=isolate,
            open_timeout=open_timeout,
            timeout=timeout,
        )
        return runner

    def _start(
        self, model: Any, request: Request, on_event: Callable[[Event], None] | None, **terms: Any
    ) -> None:
        self._events = Events(checked_listener(on_event))
        verdicts = Verdicts(cache_folder())
        self._model = read_model(model, known_hash=verdicts.model_sha256)
        request = request._replace(terms=terms_of(self._model, **terms, verdicts=verdicts))
        self._runtime = load_runtime(request.runtime)
        self._life = Life(self._model, self._runtime, request, self._events)
        self._usual = Usual(self._model, self._life, functools.partial(self._events.record, "input"))
        self._many = Many(self._model, self._life)

    @property
    def selection(self) -> Selection:
        """What was chosen, and why not the others."""
        return self._life.active.selection

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
        return self._life.active.opened.candidate.device

    @property
    def delegate(self) -> str:
        """Name of the delegate that runs it."""
        return self._life.active.opened.candidate.delegate.name

    @property
    def runtime(self) -> Runtime:
        """The TensorFlow Lite implementation underneath."""
        return self._runtime

    def predict(
        self, inputs: Any, *, signature: str | None = None, dequantize: bool | None = None, out: Any = None
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
        direct = self._life.direct
        if direct is not None and signature is None and dequantize is None and out is None:
            result = direct(inputs)
            if result is not None:
                return result
        return self._usual.answer(self._life.run, inputs, signature, dequantize, out)

    def predict_many(
        self,
        inputs: Iterable[Any],
        *,
        workers: int | str = "auto",
        signature: str | None = None,
        dequantize: bool | None = None,
    ) -> Results:
        """Run the model as :meth:`predict` on each of many inputs, on all cores where that is faster.

        Args:
            inputs: an iterable of what :meth:`predict` takes. It is drawn on in the caller's thread, as
                answers are asked for; at most two inputs per thread are under way.
            workers: threads (of several the caller's is one while it waits), each with a session where
                the model runs on this process's CPU; ``"auto"``: the fastest, measured on seeded inputs.

        Returns:
            An iterator over the answers, in the inputs' order; once closed its threads have ended. The
            error of an input (``item``, from 0, is which) or of the iterable comes at its place.

        Raises:
            InputError: the model is stateful; ``inputs`` or ``workers`` is none.
        """
        named: dict[str, Any] = {"signature": signature, "dequantize": dequantize}
        pooled = functools.partial(self._usual.answer, self._life.run_pooled, **named)
        return self._many.results(functools.partial(self.predict, **named), pooled, inputs, workers)

    async def apredict(self, inputs: Any, **arguments: Any) -> Any:
        """Run the model once as :meth:`predict` does, in a thread of the runner's; the loop goes on.

        Cancelled, a call that has not begun never does; one that has runs to its end, its answer is
        dropped, and its inputs must not be changed before.
        """
        import asyncio  # who calls this has it

        work = functools.partial(self.predict, inputs, **arguments)
        return await asyncio.wrap_future(self._many.submit(work))

    def reset(self) -> None:
        """Forget what a stateful model (an LSTM, say) remembers from earlier runs."""
        self._life.reset()

    def warmup(self, runs: int = 3) -> None:
        """Run the model on seeded inputs and forget the answers; a stateful model is reset after."""
        if not isinstance(runs, int) or runs < 0:
            raise InputError(f"runs={runs!r} is not a number of runs")
        inputs = seeded_inputs(self.inputs)
        for _ in range(runs):
            self.predict(inputs)
        self._forget_state()

    def _forget_state(self) -> None:
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
        self._forget_state()
        return measured(self._model, self._runtime, self._life.active.opened, timing)

    def close(self) -> None:
        """Free the model; may be called twice. A closed runner says so when it is used."""
        self._life.close()
        self._many.close()

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        if not hasattr(self, "_life"):  # seen in the traceback of a constructor that failed
            return "<Runner, not opened>"
        return f"<Runner {self._model.name} by {self.delegate} on {self.device.id} ({self._runtime.name})>"

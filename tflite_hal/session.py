"""Sessions: one model opened by one delegate, and calls prepared on it.

:class:`Session` and :class:`Call` are the shapes every engine fits: the runtime's interpreter
(:class:`InterpreterSession`, here), a session in a worker, a vendor's own engine.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from tflite_hal.coverage import Coverage, coverage_of
from tflite_hal.errors import DelegateError, InputError, ModelError, RuntimeUnavailableError, TfliteHalError
from tflite_hal.model import Model, Signature
from tflite_hal.runtime import Runtime

__all__ = ["MOST_CALLS", "Call", "Coverage", "Direct", "InterpreterSession", "Session", "TensorCall", "Turn"]

Arrays = Sequence[np.ndarray[Any, Any]]
Shapes = Sequence[tuple[int, ...]]
Direct = Callable[[Any], Any]  # see TensorCall.direct

#: Prepared calls kept per session, one per signature and shapes; the oldest makes room.
MOST_CALLS = 16

#: What the runtimes' native code raises; SystemError where it was built for another numpy.
_NATIVE_ERRORS = (ValueError, RuntimeError, MemoryError, SystemError)
_NATIVE_TEXT = 400  # characters kept of a runtime's message: it grows with every failed invoke


class Turn:
    """Whose turn it is to run a session: one thread's, and in that one call's."""

    __slots__ = ("lock", "taken")

    def __init__(self) -> None:
        self.lock = threading.RLock()
        #: Whether a run is under way: a signal handler or a finalizer may call for another in the same
        #: thread, which the lock lets pass, and its numbers would be the first call's too.
        self.taken = False


class Call:
    """A session prepared for one signature and one set of input shapes."""

    def run(self, arrays: Arrays) -> list[np.ndarray[Any, Any]]:
        """Run the model once.

        Args:
            arrays: one per input in the signature's order, of exactly the tensors' dtypes and the
                prepared shapes.

        Returns:
            One array per output in the signature's order, owned by the caller.

        Raises:
            DelegateError: the run failed; nothing of an earlier run is returned.
        """
        raise DelegateError(f"{type(self).__name__} does not implement run()")


class Session:
    """One model opened by one delegate on one device; base class with safe defaults.

    Attributes:
        threading: ``"any"`` (several threads may run calls at once), ``"serial"`` (any thread, one at
            a time) or ``"owner"`` (only the thread that opened it: a worker has one thread, and in the
            application it gets a thread of its own).
        coverage: operators really taken; None where the engine does not report it.
    """

    threading: str = "serial"
    coverage: Coverage | None = None

    @property
    def boundary_ms(self) -> float | None:
        """What the process boundary adds to a call, the median of the last; None where there is none."""
        return None

    def prepare(self, signature: str | None = None, shapes: Shapes | None = None) -> Call:
        """Return a call for a signature (None: the model's inputs and outputs as they stand) and
        concrete input shapes (None: the shapes stored in the file).

        Raises:
            InputError: no such signature, or the model can't take these shapes.
            DelegateError: the engine refuses the model in this shape.
        """
        raise DelegateError(f"{type(self).__name__} does not implement prepare()")

    def reset(self) -> None:
        """Forget what a stateful model remembers from earlier runs."""

    def close(self) -> None:
        """Free the engine's memory and devices; may be called twice."""


class InterpreterSession(Session):
    """A model opened by a runtime's ``Interpreter``, with or without delegates."""

    def __init__(
        self,
        model: Model,
        runtime: Runtime,
        *,
        delegates: Sequence[Any] = (),
        threads: int | None = None,
        default_delegates: bool = True,
    ) -> None:
        """Open and allocate; arguments as of :meth:`tflite_hal.runtime.Runtime.interpreter`.

        Raises:
            ModelError: the runtime refuses the file.
            DelegateError: a delegate refuses the model, or an operator is missing.
        """
        self._model = model
        self._delegates = tuple(delegates)  # must outlive the interpreter
        with _native_errors(model, "open"):
            self._interpreter: Any = runtime.interpreter(
                model.path if model.path is not None else model.data,
                delegates=delegates,
                threads=threads,
                default_delegates=default_delegates,
            )
        explicit = coverage_of(self._interpreter) if delegates else None
        with _native_errors(model, "allocate"):
            self._interpreter.allocate_tensors()
        self.coverage = explicit or (coverage_of(self._interpreter) if default_delegates else None)
        self._active: TensorCall | None = None

    def prepare(self, signature: str | None = None, shapes: Shapes | None = None) -> Call:
        """See :meth:`Session.prepare`."""
        if signature is None:
            inputs = [detail["index"] for detail in self._interpreter.get_input_details()]
            outputs = [detail["index"] for detail in self._interpreter.get_output_details()]
            return self._tensor_call(inputs, outputs, shapes)
        found = self._signature(signature)
        if found.subgraph != 0:
            return _SignatureCall(self, found)
        return self._tensor_call(
            [s.tensor_index for s in found.inputs], [s.tensor_index for s in found.outputs], shapes
        )

    def _tensor_call(self, inputs: list[int], outputs: list[int], shapes: Shapes | None) -> Call:
        if shapes is None:
            details = {d["index"]: d for d in self._interpreter.get_input_details()}
            shapes = [tuple(int(n) for n in details[index]["shape"]) for index in inputs]
        call = TensorCall(self, inputs, outputs, tuple(shapes))
        self._activate(call)
        return call

    def _signature(self, key: str) -> Signature:
        for signature in self._model.info.signatures:
            if signature.key == key:
                return signature
        known = ", ".join(repr(s.key) for s in self._model.info.signatures) or "none"
        raise InputError(f"{self._model.name} has no signature {key!r}", remedy=f"it has: {known}")

    def _activate(self, call: TensorCall) -> None:
        """Bring the interpreter into a call's shapes: several calls share one interpreter."""
        current = {d["index"]: tuple(d["shape"]) for d in self._interpreter.get_input_details()}
        changed = [(i, s) for i, s in zip(call.inputs, call.shapes, strict=True) if current.get(i) != s]
        with _native_errors(self._model, "resize"):
            for index, shape in changed:
                self._interpreter.resize_tensor_input(index, shape)
            if changed:
                self._active = None  # a failed allocation leaves no usable shape behind
                self._interpreter.allocate_tensors()
        self._active = call

    def reset(self) -> None:
        """See :meth:`Session.reset`."""
        self._interpreter.reset_all_variables()

    def close(self) -> None:
        """See :meth:`Session.close`."""
        self._active = None
        self._interpreter = None  # before its delegates: they must outlive it
        self._delegates = ()


class TensorCall(Call):
    """A call by tensor index on the primary subgraph."""

    __slots__ = ("_direct", "_session", "inputs", "outputs", "shapes")

    def __init__(
        self,
        session: InterpreterSession,
        inputs: list[int],
        outputs: list[int],
        shapes: tuple[tuple[int, ...], ...],
    ) -> None:
        self._session = session
        self.inputs = inputs
        self.outputs = outputs
        self.shapes = shapes
        self._direct: tuple[Direct | None] | None = None  # made once

    def run(self, arrays: Arrays) -> list[np.ndarray[Any, Any]]:
        """See :meth:`Call.run`."""
        session = self._session
        if session._active is not self:
            session._activate(self)
        interpreter = session._interpreter
        # A failed invoke leaves the previous outputs in place: nothing is read after an exception.
        try:  # no context manager here: it would cost more than the rest of the wrapper
            for index, array in zip(self.inputs, arrays, strict=True):
                interpreter.set_tensor(index, array)
            interpreter.invoke()
            return [interpreter.get_tensor(index) for index in self.outputs]
        except _NATIVE_ERRORS as error:
            raise _explained(session._model, "run", error) from error

    def direct(self, names: Sequence[str], turn: Turn, busy: Direct) -> Direct | None:
        """Return the shortest way of a call of one input: it looks only at what can change from call to
        call, and costs less than ``set_tensor, invoke, get_tensor`` by hand, where all that a runner
        looks after costs as much as a small model.

        Args:
            names: of the outputs.
            turn: what keeps other threads from the session, and it from being closed.
            busy: what may answer instead while it is another thread's; None waits for it.

        Returns:
            What takes the input and returns the output (a dict of several); None where it does not fit
            exactly, or fails: then the usual way is due, which tells. None for several inputs.
        """
        if self._direct is None:
            self._direct = (self._make_direct(names, turn, busy),)
        return self._direct[0]

    def _make_direct(self, names: Sequence[str], turn: Turn, busy: Direct) -> Direct | None:
        if len(self.inputs) != 1:
            return None
        (number,), (shape,), outputs = self.inputs, self.shapes, self.outputs
        details = self._session._interpreter.get_input_details()
        dtype = next(np.dtype(d["dtype"]) for d in details if d["index"] == number)
        session, pid, getpid, array_type = self._session, os.getpid(), os.getpid, np.ndarray
        acquire, release = turn.lock.acquire, turn.lock.release
        single = outputs[0] if len(outputs) == 1 else None

        def direct(value: Any) -> Any:
            if type(value) is not array_type or value.dtype is not dtype or value.shape != shape:
                return None
            if getpid() != pid:  # in a forked process the lock may be held for ever
                return None
            if not acquire(False):
                result = busy(value)
                if result is not None:
                    return result
                acquire()
            try:
                # Closed, or in the shapes of another call, or a signal handler inside of a run.
                if session._active is not self or turn.taken:
                    return None
                turn.taken = True
                # Not kept: the runtimes' public methods refuse while another holds it.
                native = session._interpreter._interpreter
                try:
                    native.SetTensor(number, value)
                    native.Invoke()
                    if single is not None:
                        return native.GetTensor(single, 0)
                    return {name: native.GetTensor(one, 0) for name, one in zip(names, outputs, strict=True)}
                except _NATIVE_ERRORS:
                    return None
                finally:
                    turn.taken = False
            finally:
                release()

        return direct if hasattr(self._session._interpreter, "_interpreter") else None


class _SignatureCall(Call):
    """A call of a signature that has a subgraph of its own."""

    __slots__ = ("_names", "_outputs", "_runner", "_session")

    def __init__(self, session: InterpreterSession, signature: Signature) -> None:
        self._session = session
        self._names = signature.input_names
        self._outputs = signature.output_names
        with _native_errors(session._model, "allocate"):
            self._runner = session._interpreter.get_signature_runner(signature.key)

    def run(self, arrays: Arrays) -> list[np.ndarray[Any, Any]]:
        """See :meth:`Call.run`."""
        with _native_errors(self._session._model, "run"):
            results = self._runner(**dict(zip(self._names, arrays, strict=True)))
        return [results[name] for name in self._outputs]


@contextmanager
def _native_errors(model: Model, stage: str) -> Iterator[None]:
    """Turn the runtimes' exceptions into ours: each kind and text seen is in the runtimes' own code."""
    try:
        yield
    except _NATIVE_ERRORS as error:
        raise _explained(model, stage, error) from error


def _explained(model: Model, stage: str, error: Exception) -> TfliteHalError:
    explained = _translated(model, stage, error)
    explained.stage = stage
    return explained


def _translated(model: Model, stage: str, error: Exception) -> TfliteHalError:
    if isinstance(error, SystemError):
        reason = f"the runtime does not fit the installed numpy {np.__version__}: {error}"
        return RuntimeUnavailableError(reason, remedy="pip install 'numpy<2'")
    text = " ".join(str(error).split())[-_NATIVE_TEXT:]
    missing = re.search(r"unresolved custom op: ([^\s]+?)\.?(?:\s|$)", text)
    if missing:
        name = missing.group(1)
        need = next((n for n in model.info.needs() if n.startswith(name + ":")), "")
        return DelegateError(
            f"{model.name} needs the custom operator {name!r}, which nothing opened here provides",
            remedy="it runs on" + need[len(name) + 1 :] if need else "",
        )
    if stage == "open" and isinstance(error, ValueError):
        return ModelError(f"{model.name}: {text or 'the runtime refuses the file'}")
    return DelegateError(f"{model.name}: {stage} failed: {text or type(error).__name__}")

"""Tensor buffers of a compiled model, and a call on them."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from ctypes import byref, c_void_p
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tflite_hal.compiled.library import Layout, Library, TensorType, status_text
from tflite_hal.errors import DelegateError, InputError
from tflite_hal.session import Arrays, Call

if TYPE_CHECKING:
    from tflite_hal.compiled.session import CompiledSession

__all__ = ["CompiledCall", "Port", "Signature"]

_READ, _WRITE = 0, 1  # LiteRtTensorBufferLockMode

Shape = tuple[int, ...]


class Port(NamedTuple):
    """One input or output of a signature as LiteRT numbers it."""

    number: int  #: in its signature
    tensor: int  #: in its subgraph, as in the file
    type: TensorType


class Signature(NamedTuple):
    """A signature as LiteRT numbers it; a model without any has one with a name of LiteRT's."""

    number: int
    key: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]


class _Buffer:
    """A tensor buffer that LiteRT manages, and a view of what it shows the host while it is locked."""

    __slots__ = ("_address", "_lock", "_unlock", "_view", "dtype", "handle", "shape")

    def __init__(
        self,
        library: Library,
        environment: int,
        requirements: int,
        tensor: TensorType,
        dtype: Any,
        shape: Shape,
    ) -> None:
        self._lock = library.functions["LiteRtLockTensorBuffer"]
        self._unlock = library.functions["LiteRtUnlockTensorBuffer"]
        self.dtype, self.shape = np.dtype(dtype), shape
        self._address: int | None = None
        self._view: np.ndarray[Any, Any] | None = None
        name = "LiteRtCreateManagedTensorBufferFromRequirements"
        self.handle = library.handle(name, environment, byref(tensor.with_shape(shape)), requirements)
        size, needed = library.number("LiteRtGetTensorBufferPackedSize", self.handle), self._bytes()
        if size != needed:
            library.functions["LiteRtDestroyTensorBuffer"](self.handle)
            raise DelegateError(f"a tensor buffer of {size} bytes, expected {needed}")

    def _bytes(self) -> int:
        return math.prod(self.shape) * int(self.dtype.itemsize)

    def write(self, array: np.ndarray[Any, Any]) -> None:
        """Copy an array of this dtype and shape in."""
        view = self._locked(_WRITE)
        try:
            np.copyto(view, array, casting="no")
        finally:
            self._unlocked()

    def read(self) -> np.ndarray[Any, Any]:
        """Return a copy."""
        view = self._locked(_READ)
        try:
            return np.array(view)
        finally:
            self._unlocked()

    def _locked(self, mode: int) -> np.ndarray[Any, Any]:
        # Only while locked is the address good, and a GPU's memory is copied: locked for every access.
        address = c_void_p()
        status = self._lock(self.handle, byref(address), mode)
        if status:
            raise DelegateError(status_text("LiteRtLockTensorBuffer", status))
        if address.value != self._address or self._view is None:
            if not address.value:
                self._unlocked()
                raise DelegateError("LiteRtLockTensorBuffer gave no address")
            memory: Any = (ctypes.c_char * self._bytes()).from_address(address.value)
            self._view = np.ndarray(self.shape, self.dtype, memory)
            self._address = address.value
        return self._view

    def _unlocked(self) -> None:
        status = self._unlock(self.handle)
        if status:
            raise DelegateError(status_text("LiteRtUnlockTensorBuffer", status))


class CompiledCall(Call):
    """A call of one signature in one set of shapes."""

    __slots__ = ("_arguments", "_inputs", "_order", "_outputs", "_run", "_session", "_signature", "shapes")

    def __init__(
        self,
        session: CompiledSession,
        signature: Signature,
        shapes: Sequence[Shape],
        order: tuple[Sequence[int], Sequence[int]],
    ) -> None:
        """Take shapes in LiteRT's order of the inputs, and LiteRT's number per array given and returned."""
        self._session = session
        self._signature = signature
        self.shapes = tuple(shapes)
        self._order = order
        self._run = session.library.functions["LiteRtRunCompiledModel"]
        self._inputs: list[_Buffer] = []
        self._outputs: list[_Buffer] = []
        self._arguments: tuple[Any, ...] = ()

    def run(self, arrays: Arrays) -> list[np.ndarray[Any, Any]]:
        """See :meth:`Call.run`.

        Raises:
            InputError: an array has not exactly the dtype and the shape prepared.
            DelegateError: a C function failed: its name and status.
        """
        if self._session.active.get(self._signature.number) is not self:
            self.activate()
        into, out = self._order
        for index, array in zip(into, arrays, strict=True):
            buffer = self._inputs[index]
            if array.dtype != buffer.dtype or array.shape != buffer.shape:
                expected = f"{buffer.dtype} {buffer.shape}"
                raise InputError(f"input {index} is {expected}, not {array.dtype} {array.shape}")
            buffer.write(array)
        status = self._run(*self._arguments)
        if status:
            raise self._session.failure("run it", status_text("LiteRtRunCompiledModel", status))
        return [self._outputs[index].read() for index in out]

    def activate(self) -> None:
        """Bring the model into this call's shapes: several calls share one signature."""
        session, number = self._session, self._signature.number
        session.deactivate(number)
        session.resize(self._signature, self.shapes)
        try:
            with session.explained("allocate it"):
                self._allocate(session)
        except BaseException:
            self.release()
            raise
        sizes = (len(self._inputs), len(self._outputs))
        inputs = (c_void_p * sizes[0])(*(buffer.handle for buffer in self._inputs))
        outputs = (c_void_p * sizes[1])(*(buffer.handle for buffer in self._outputs))
        self._arguments = (session.compiled, number, sizes[0], inputs, sizes[1], outputs)
        session.active[number] = self

    def _allocate(self, session: CompiledSession) -> None:
        for port, shape in zip(self._signature.inputs, self.shapes, strict=True):
            self._inputs.append(self._buffer(session, "Input", port, shape))
        layouts = (Layout * len(self._signature.outputs))()
        arguments = (session.compiled, self._signature.number, len(layouts), layouts, True)
        session.library.call("LiteRtGetCompiledModelOutputTensorLayouts", *arguments)
        for port, layout in zip(self._signature.outputs, layouts, strict=True):
            self._outputs.append(self._buffer(session, "Output", port, layout.shape()))

    def _buffer(self, session: CompiledSession, which: str, port: Port, shape: Shape) -> _Buffer:
        if any(size < 0 for size in shape):
            raise session.failure(
                "prepare", f"{which.lower()} {port.number} has no size before a run: {shape}"
            )
        library = session.library
        name = f"LiteRtGetCompiledModel{which}BufferRequirements"
        needed = library.handle(name, session.compiled, self._signature.number, port.number)
        return _Buffer(library, session.environment, needed, port.type, session.dtype(port), shape)

    def release(self) -> None:
        """Free the buffers."""
        destroy = self._session.library.functions["LiteRtDestroyTensorBuffer"]
        for buffer in (*self._inputs, *self._outputs):
            destroy(buffer.handle)
        self._inputs, self._outputs, self._arguments = [], [], ()

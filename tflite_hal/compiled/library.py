"""LiteRT's C functions: declared, found, called, and their status turned into an error.

Structures, enumerations and prototypes: google-ai-edge/LiteRT, ``litert/c/*.h``, which declares them
stable; checked against ai-edge-litert 2.3.0. Releases before it lack functions used here and have
other prototypes: they are refused by name, not called.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import POINTER, byref, c_bool, c_char_p, c_int, c_size_t, c_uint32, c_void_p
from typing import Any, Final

import numpy as np

from tflite_hal.errors import DelegateError
from tflite_hal.runtime import Runtime

__all__ = ["ACCELERATORS", "Layout", "Library", "TensorType", "load", "status_text"]

MOST_DIMENSIONS: Final = 8

#: Bits of LiteRtHwAccelerators.
ACCELERATORS: Final = {"cpu": 1, "gpu": 2, "npu": 4}

#: LiteRtElementType of the types numpy has.
DTYPES: Final = {
    1: np.dtype(np.float32), 2: np.dtype(np.int32), 3: np.dtype(np.uint8), 4: np.dtype(np.int64),
    6: np.dtype(np.bool_), 7: np.dtype(np.int16), 8: np.dtype(np.complex64), 9: np.dtype(np.int8),
    10: np.dtype(np.float16), 11: np.dtype(np.float64), 12: np.dtype(np.complex128),
    13: np.dtype(np.uint64), 16: np.dtype(np.uint32), 17: np.dtype(np.uint16),
}  # fmt: skip

#: LiteRtStatus.
STATUSES: Final = {
    1: "invalid argument", 2: "out of memory", 3: "runtime failure", 4: "missing input tensor",
    5: "unsupported", 6: "not found", 7: "timeout", 8: "wrong version", 9: "unknown error",
    10: "already exists", 100: "cancelled", 500: "file error", 501: "invalid flatbuffer",
    502: "a library can't be loaded", 503: "serialization", 504: "compilation", 1000: "index out of bounds",
    1001: "invalid type", 1002: "invalid graph", 1003: "graph modification", 1500: "invalid configuration",
    2000: "no legalization", 2001: "invalid legalization", 3000: "no pattern", 3001: "invalid transformation",
    4000: "unsupported runtime version", 4001: "unsupported compiler version",
    4002: "incompatible byte code version", 5000: "no shape inference for an operator",
    5001: "shape inference failed",
}  # fmt: skip


class Layout(ctypes.Structure):
    """``LiteRtLayout``, 68 bytes."""

    _fields_ = (
        ("bits", c_uint32),  # 0-6: rank, 7: whether there are strides
        ("dimensions", ctypes.c_int32 * MOST_DIMENSIONS),
        ("strides", c_uint32 * MOST_DIMENSIONS),
    )

    def shape(self) -> tuple[int, ...]:
        """Return the dimensions; negative where they are not known yet."""
        return tuple(self.dimensions[: min(self.bits & 0x7F, MOST_DIMENSIONS)])


class TensorType(ctypes.Structure):
    """``LiteRtRankedTensorType``, 72 bytes."""

    _fields_ = (("element_type", c_int), ("layout", Layout))

    def with_shape(self, shape: Sequence[int]) -> TensorType:
        """Return this element type in a shape, without strides."""
        return TensorType(self.element_type, Layout(len(shape), (ctypes.c_int32 * MOST_DIMENSIONS)(*shape)))


class _Value(ctypes.Union):
    _fields_ = (("integer", ctypes.c_int64), ("text", c_char_p))


class _Any(ctypes.Structure):
    """``LiteRtAny``, 16 bytes."""

    _fields_ = (("type", c_int), ("value", _Value))


class EnvironmentOption(ctypes.Structure):
    """``LiteRtEnvOption``, 24 bytes."""

    _fields_ = (("tag", c_int), ("any", _Any))

    @classmethod
    def of(cls, tag: int, value: bytes | int) -> EnvironmentOption:
        """Return one with a text, which must outlive the environment, or an integer."""
        if isinstance(value, bytes):
            return cls(tag, _Any(8, _Value(text=value)))
        return cls(tag, _Any(2, _Value(integer=value)))


#: Frees the data of opaque options: nothing, they belong to Python.
Deleter: Final = ctypes.CFUNCTYPE(None, c_void_p)
keep: Final = Deleter(lambda _: None)

_HANDLE, _OUT = c_void_p, POINTER(c_void_p)

#: Arguments of the functions that return a status.
_PROTOTYPES: Final[dict[str, tuple[Any, ...]]] = {
    "LiteRtCreateEnvironment": (c_int, POINTER(EnvironmentOption), _OUT),
    "LiteRtGetNumAccelerators": (_HANDLE, POINTER(c_size_t)),
    "LiteRtGetAccelerator": (_HANDLE, c_size_t, _OUT),
    "LiteRtGetAcceleratorHardwareSupport": (_HANDLE, POINTER(c_int)),
    "LiteRtCreateModelFromFile": (_HANDLE, c_char_p, _OUT),
    "LiteRtCreateModelFromBuffer": (_HANDLE, c_char_p, c_size_t, _OUT),
    "LiteRtGetNumModelSignatures": (_HANDLE, POINTER(c_size_t)),
    "LiteRtGetModelSignature": (_HANDLE, c_size_t, _OUT),
    "LiteRtGetSignatureKey": (_HANDLE, POINTER(c_char_p)),
    "LiteRtGetNumSignatureInputs": (_HANDLE, POINTER(c_size_t)),
    "LiteRtGetNumSignatureOutputs": (_HANDLE, POINTER(c_size_t)),
    "LiteRtGetSignatureInputTensorByIndex": (_HANDLE, c_size_t, _OUT),
    "LiteRtGetSignatureOutputTensorByIndex": (_HANDLE, c_size_t, _OUT),
    "LiteRtGetTensorName": (_HANDLE, POINTER(c_char_p)),
    "LiteRtGetTensorIndex": (_HANDLE, POINTER(c_uint32)),
    "LiteRtGetRankedTensorType": (_HANDLE, POINTER(TensorType)),
    "LiteRtCreateOptions": (_OUT,),
    "LiteRtSetOptionsHardwareAccelerators": (_HANDLE, c_int),
    "LiteRtCreateOpaqueOptions": (c_char_p, c_void_p, Deleter, _OUT),
    "LiteRtAddOpaqueOptions": (_HANDLE, _HANDLE),
    "LiteRtCreateCompiledModel": (_HANDLE, _HANDLE, _HANDLE, _OUT),
    "LiteRtCompiledModelIsFullyAccelerated": (_HANDLE, POINTER(c_bool)),
    "LiteRtCompiledModelIsNonCpuFullyAccelerated": (_HANDLE, POINTER(c_bool)),
    "LiteRtCompiledModelResizeInputTensor": (_HANDLE, c_size_t, c_size_t, POINTER(c_int), c_size_t),
    "LiteRtGetCompiledModelOutputTensorLayouts": (_HANDLE, c_size_t, c_size_t, POINTER(Layout), c_bool),
    "LiteRtGetCompiledModelInputBufferRequirements": (_HANDLE, c_size_t, c_size_t, _OUT),
    "LiteRtGetCompiledModelOutputBufferRequirements": (_HANDLE, c_size_t, c_size_t, _OUT),
    "LiteRtCreateManagedTensorBufferFromRequirements": (_HANDLE, POINTER(TensorType), _HANDLE, _OUT),
    "LiteRtGetTensorBufferPackedSize": (_HANDLE, POINTER(c_size_t)),
    "LiteRtLockTensorBuffer": (_HANDLE, _OUT, c_int),
    "LiteRtUnlockTensorBuffer": (_HANDLE,),
    "LiteRtRunCompiledModel": (_HANDLE, c_size_t, c_size_t, c_void_p, c_size_t, c_void_p),
}
_DESTROYERS: Final = (
    "LiteRtDestroyTensorBuffer",
    "LiteRtDestroyCompiledModel",
    "LiteRtDestroyOptions",
    "LiteRtDestroyModel",
    "LiteRtDestroyEnvironment",
)


class Library:
    """The loaded library; every call releases the GIL.

    Attributes:
        functions: by name, for calls whose status the caller reads.
    """

    __slots__ = ("functions", "path")

    def __init__(self, path: str) -> None:
        self.path = path
        api = ctypes.CDLL(path)
        self.functions: dict[str, Any] = {}
        for name, arguments in _PROTOTYPES.items():
            function = getattr(api, name)
            function.argtypes, function.restype = arguments, c_int
            self.functions[name] = function
        for name in _DESTROYERS:
            function = getattr(api, name)
            function.argtypes, function.restype = (c_void_p,), None
            self.functions[name] = function

    def call(self, name: str, *arguments: Any) -> None:
        """Call a function.

        Raises:
            DelegateError: names the function and the status it returned.
        """
        status = self.functions[name](*arguments)
        if status:
            raise DelegateError(status_text(name, status))

    def handle(self, name: str, *arguments: Any) -> int:
        """Call a function whose last argument receives a handle or an address, and return that."""
        result = c_void_p()
        self.call(name, *arguments, byref(result))
        if not result.value:
            raise DelegateError(f"{name} gave nothing")
        return result.value

    def number(self, name: str, *arguments: Any, kind: Any = c_size_t) -> Any:
        """Call a function whose last argument receives a number, a truth value or a text, and return it."""
        result = kind()
        self.call(name, *arguments, byref(result))
        return result.value

    def tensor_type(self, tensor: int) -> TensorType:
        """Return a tensor's type."""
        result = TensorType()
        self.call("LiteRtGetRankedTensorType", tensor, byref(result))
        return result


def status_text(name: str, status: int) -> str:
    """Return the words for a status other than 0."""
    return f"{name} failed: status {status} ({STATUSES.get(status, 'unknown')})"


_loaded: dict[str, Library] = {}


def load(runtime: Runtime) -> Library:
    """Load a runtime's library once.

    Raises:
        DelegateError: the runtime has none, it can't be loaded, or it is another release's.
    """
    path = runtime.compiled_library
    if not path:
        raise DelegateError(
            f"{runtime.name} {runtime.version} has no CompiledModel",
            remedy="pip install 'ai-edge-litert>=2.3'",
        )
    if path not in _loaded:
        try:
            _loaded[path] = Library(path)
        except OSError as error:
            raise DelegateError(f"{path} can't be loaded: {error}") from error
        except AttributeError as error:
            raise DelegateError(
                f"{path} of {runtime.name} {runtime.version} is not the C API used here: {error}",
                remedy="pip install 'ai-edge-litert>=2.3'",
            ) from error
    return _loaded[path]

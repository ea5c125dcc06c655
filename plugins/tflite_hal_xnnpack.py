"""XNNPACK: the fast CPU kernels that ship inside the runtimes.

ai-edge-litert applies XNNPACK by itself, 8-bit models included. tflite-runtime 2.14.0 applies it to
float models only, but its wheel exports the C API, through which 8-bit models get it too: 2 to 10 times
faster than the built-in kernels on the models of the README. The struct below is that version's, so it
is used with exactly that version.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

from tflite_hal import (
    Configuration,
    Delegate,
    DelegateError,
    Device,
    DeviceProfile,
    HostInfo,
    InterpreterSession,
    Model,
    Probe,
    Problem,
    Runtime,
    Session,
    hookimpl,
)

_C_API_RUNTIME = ("tflite_runtime", "2.14.0")
_FLAGS_QS8_QU8 = 1 | 2  # TFLITE_XNNPACK_DELEGATE_FLAG_QS8, _QU8
_MOST_THREADS = 4
# Two threads gain 1.1 to 1.7 on networks with at least so many convolutions and lose up to a factor of
# 5 on smaller ones (benchmarks/interleaved.py threads); nothing is measured on this machine yet.
_CONVOLUTIONS_WORTH_THREADS = 9


class XnnpackDelegate(Delegate):
    """The CPU by XNNPACK."""

    name = "xnnpack"
    api_version = 1
    description = "fast CPU kernels inside the runtime (SSE, AVX, NEON, SVE)"
    install_hint = "comes with ai-edge-litert, and with tflite-runtime on 64-bit systems"
    in_process = True

    def probe(self, host: HostInfo) -> Probe:
        """Return the CPU, where the runtimes' builds have XNNPACK."""
        if host.arch in ("armv7l", "armv6l"):
            evidence = f"the runtimes for {host.arch} are built without XNNPACK; their built-in kernels run"
            remedy = "install a 64-bit system if the board has one"
            return Probe((), (Problem("runtime", evidence, remedy, kind="cpu"),))
        if not (host.live or host.arch or host.cpu.model or host.cpu.logical):
            return Probe((), (Problem("probe", "nothing here tells of the processor", kind="cpu"),))
        # Beyond four threads memory is the limit.
        threads = min(host.cpu.fast, _MOST_THREADS)
        return Probe((Device("cpu", "cpu", host.cpu.model or "CPU", {"threads": threads}),))

    def configurations(
        self, model: Model, device: Device, profile: DeviceProfile | None
    ) -> Sequence[Configuration]:
        """Return thread counts: the profile's, else the fast cores for a network with work for them."""
        most = int(device.properties.get("threads", 1))
        advised = profile.threads if profile is not None else ()
        counts = [count for count in advised if count <= most] or [most, 1]
        if _convolutions(model) < _CONVOLUTIONS_WORTH_THREADS:
            counts = [1, *counts]
        return [Configuration(threads=count) for count in dict.fromkeys(counts)]

    def open(self, model: Model, device: Device, configuration: Configuration, runtime: Runtime) -> Session:
        """Open a model; see the module's docstring for the ways."""
        threads = configuration.threads or 1
        if (runtime.name, runtime.version) != _C_API_RUNTIME:
            return InterpreterSession(model, runtime, threads=threads)
        delegate = _Native(runtime.library, threads)
        return InterpreterSession(model, runtime, delegates=[delegate], threads=threads)


class _Options(ctypes.Structure):
    """``TfLiteXNNPackDelegateOptions`` of TensorFlow Lite 2.14 (xnnpack_delegate.h), 24 bytes."""

    _fields_ = (
        ("num_threads", ctypes.c_int32),
        ("flags", ctypes.c_uint32),
        ("weights_cache", ctypes.c_void_p),
        ("handle_variable_ops", ctypes.c_bool),
    )


class _Native:
    """A delegate made by the wheel's C API; lives as long as this object."""

    def __init__(self, library: str, threads: int) -> None:
        try:
            api = ctypes.CDLL(library)
            create, self._delete = api.TfLiteXNNPackDelegateCreate, api.TfLiteXNNPackDelegateDelete
        except (OSError, AttributeError) as error:
            raise DelegateError(f"{library} does not export XNNPACK's C API: {error}") from error
        create.restype = ctypes.c_void_p
        create.argtypes = [ctypes.POINTER(_Options)]
        self._delete.argtypes = [ctypes.c_void_p]
        self._delete.restype = None
        self._pointer: int = create(ctypes.byref(_Options(threads, _FLAGS_QS8_QU8, None, False)))
        if not self._pointer:
            raise DelegateError("XNNPACK could not be initialised on this processor")

    def _get_native_delegate_pointer(self) -> int:
        return self._pointer

    def __del__(self) -> None:
        pointer = getattr(self, "_pointer", None)
        if pointer:
            self._delete(pointer)


def _convolutions(model: Model) -> int:
    return sum(operator.occurrences for operator in model.info.operators if "CONV" in operator.name)


@hookimpl
def tflite_hal_register_delegates() -> list[type[Delegate]]:
    """Register XNNPACK."""
    return [XnnpackDelegate]

"""Delegates and hardware abstraction for TensorFlow Lite / LiteRT: find, prove, choose, run.

    from tflite_hal import Runner

    with Runner.auto("m.tflite") as runner:
        scores = runner.predict(image)

Names are imported when first used, so that what is not needed costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tflite_hal import images
    from tflite_hal.accuracy import Check, Comparison
    from tflite_hal.benchmark import BenchmarkResult
    from tflite_hal.compiled import CompiledSession
    from tflite_hal.delegate import (
        Configuration,
        Delegate,
        Device,
        Option,
        Probe,
        Problem,
    )
    from tflite_hal.errors import (
        ClosedError,
        DelegateError,
        DeviceBusyError,
        InputError,
        ModelError,
        NoDelegateError,
        PluginError,
        ProfileError,
        RuntimeUnavailableError,
        TfliteHalError,
        WorkerCrashedError,
        WorkerError,
        WorkerGoneError,
        WorkerHungError,
    )
    from tflite_hal.external import ExternalDelegate
    from tflite_hal.hookspecs import hookimpl
    from tflite_hal.host import BusDevice, HostInfo, probe_host
    from tflite_hal.model import Model, ModelInfo, TensorSpec, read_model
    from tflite_hal.profiles import DeviceProfile
    from tflite_hal.runner import Event, Runner, TfliteHalWarning
    from tflite_hal.runtime import Runtime
    from tflite_hal.selection import Attempt, Outcome, Selection
    from tflite_hal.session import Call, Coverage, InterpreterSession, Session
    from tflite_hal.trust import file_identity

__version__ = "0.1.0.dev0"

_HOMES = {
    "accuracy": ("Check", "Comparison"),
    "benchmark": ("BenchmarkResult",),
    "compiled": ("CompiledSession",),
    "delegate": ("Configuration", "Delegate", "Device", "Option", "Probe", "Problem"),
    "errors": (
        "ClosedError",
        "DelegateError",
        "DeviceBusyError",
        "InputError",
        "ModelError",
        "NoDelegateError",
        "PluginError",
        "ProfileError",
        "RuntimeUnavailableError",
        "TfliteHalError",
        "WorkerCrashedError",
        "WorkerError",
        "WorkerGoneError",
        "WorkerHungError",
    ),
    "external": ("ExternalDelegate",),
    "hookspecs": ("hookimpl",),
    "host": ("BusDevice", "HostInfo", "probe_host"),
    "model": ("Model", "ModelInfo", "TensorSpec", "read_model"),
    "profiles": ("DeviceProfile",),
    "runner": ("Event", "Runner", "TfliteHalWarning"),
    "runtime": ("Runtime",),
    "selection": ("Attempt", "Outcome", "Selection"),
    "session": ("Call", "Coverage", "InterpreterSession", "Session"),
    "trust": ("file_identity",),
}
_MODULE_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "Attempt",
    "BenchmarkResult",
    "BusDevice",
    "Call",
    "Check",
    "ClosedError",
    "Comparison",
    "CompiledSession",
    "Configuration",
    "Coverage",
    "Delegate",
    "DelegateError",
    "Device",
    "DeviceBusyError",
    "DeviceProfile",
    "Event",
    "ExternalDelegate",
    "HostInfo",
    "InputError",
    "InterpreterSession",
    "Model",
    "ModelError",
    "ModelInfo",
    "NoDelegateError",
    "Option",
    "Outcome",
    "PluginError",
    "Probe",
    "Problem",
    "ProfileError",
    "Runner",
    "Runtime",
    "RuntimeUnavailableError",
    "Selection",
    "Session",
    "TensorSpec",
    "TfliteHalError",
    "TfliteHalWarning",
    "WorkerCrashedError",
    "WorkerError",
    "WorkerGoneError",
    "WorkerHungError",
    "__version__",
    "file_identity",
    "hookimpl",
    "images",
    "probe_host",
    "read_model",
]


def __getattr__(name: str) -> Any:
    if name in _MODULE_OF:
        return getattr(importlib.import_module(f"tflite_hal.{_MODULE_OF[name]}"), name)
    if name == "images":
        return importlib.import_module("tflite_hal.images")
    raise AttributeError(f"module 'tflite_hal' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__

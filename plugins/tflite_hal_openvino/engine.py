"""OpenVINO itself: imported without its telemetry, asked for its devices, and its models.

Its reader of TensorFlow Lite takes paths that end in ``.tflite`` only, no bytes
(src/frontends/tensorflow_lite/src/frontend.cpp).
"""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from tflite_hal import Call, Coverage, DelegateError, InputError, Model, Session, TensorSpec
from tflite_hal_openvino.package import INSTALL, version

__all__ = ["OpenvinoSession", "device_names"]

_LONGEST_REASON = 300
_TELEMETRY = "openvino_telemetry"


def device_names() -> dict[str, str]:
    """Return the name of every device that OpenVINO lists, by its place.

    Raises:
        DelegateError: OpenVINO can't be imported, or asked.
    """
    with _told("OpenVINO's devices"):
        core = _core()
        return {place: str(core.get_property(place, "FULL_DEVICE_NAME")) for place in core.available_devices}


class OpenvinoSession(Session):
    """A model that OpenVINO has read, and compiled for the shapes stored in the file."""

    threading = "any"  # each call has a request and a lock of its own

    def __init__(self, model: Model, place: str, properties: Mapping[str, Any]) -> None:
        """Read and compile; ``place`` and ``properties`` are OpenVINO's.

        Raises:
            DelegateError: OpenVINO can't be imported, or refuses the model or a property.
        """
        self._model = model
        self._target = place, dict(properties)
        with _told(model.name):
            self._network: Any = _read(model)
        self._stored = tuple(spec.static_shape for spec in model.info.inputs)
        self._ready: Any = self._compile(model.info.inputs, self._stored)
        total = sum(operator.occurrences for operator in model.info.operators)
        self.coverage = Coverage(total, total, 1)  # it takes all operators or refuses the model

    def prepare(self, signature: str | None = None, shapes: Sequence[tuple[int, ...]] | None = None) -> Call:
        """See :meth:`Session.prepare`."""
        info, name = self._model.info, self._model.name
        interface = info.interface(signature, name)
        if any(one.key == signature and one.subgraph != 0 for one in info.signatures):
            raise DelegateError(f"{name}: OpenVINO runs the main graph only, not signature {signature!r}")
        wanted = tuple(spec.static_shape for spec in interface.inputs) if shapes is None else tuple(shapes)
        stored = interface.inputs == info.inputs and wanted == self._stored
        compiled = self._ready if stored else self._compile(interface.inputs, wanted)
        with _told(name):
            return _InferCall(name, compiled, interface.inputs, interface.outputs)

    def _compile(self, inputs: Sequence[TensorSpec], shapes: Sequence[tuple[int, ...]]) -> Any:
        with _told(self._model.name):
            network = self._network.clone()
            network.reshape({spec.name: list(shape) for spec, shape in zip(inputs, shapes, strict=True)})
            return _core().compile_model(network, *self._target)

    def close(self) -> None:
        """See :meth:`Session.close`."""
        self._network = self._ready = None


class _InferCall(Call):
    """One infer request: inputs are written into its own memory, outputs copied out of it."""

    __slots__ = ("_inputs", "_lock", "_model", "_order", "_request")

    def __init__(
        self, model: str, compiled: Any, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
    ) -> None:
        self._model = model
        self._request = compiled.create_infer_request()
        self._inputs = [self._request.get_tensor(spec.name).data for spec in inputs]
        self._order = [_position(compiled, spec) for spec in outputs]
        self._lock = threading.Lock()
        given = [place.dtype for place in self._inputs]
        given += [compiled.outputs[position].element_type.to_dtype() for position in self._order]
        for spec, dtype in zip((*inputs, *outputs), given, strict=True):
            if dtype != spec.dtype:
                raise DelegateError(f"{model}: OpenVINO makes {dtype} of {spec.name!r}, which is {spec.type}")

    def run(self, arrays: Sequence[np.ndarray[Any, Any]]) -> list[np.ndarray[Any, Any]]:
        """See :meth:`Call.run`."""
        with self._lock:
            for place, array in zip(self._inputs, arrays, strict=True):
                if place.shape != array.shape:  # it would be spread over the place in silence
                    raise InputError(f"{self._model}: given {array.shape}, prepared for {place.shape}")
                np.copyto(place, array, "no")
            try:  # no context manager here: this is called often
                # Without inputs nothing is looked up: they are in the request's memory already.
                results = self._request.infer(_NO_INPUTS, share_inputs=True).to_tuple()
            except (RuntimeError, MemoryError) as error:
                raise _explained(self._model, error) from error
        return [results[position] for position in self._order]


_NO_INPUTS: dict[int, Any] = {}


def _position(compiled: Any, spec: TensorSpec) -> int:
    """Return an output's place among OpenVINO's, which may be in another order."""
    for position, output in enumerate(compiled.outputs):
        if spec.name in output.get_names():
            return position
    raise DelegateError(f"OpenVINO has no output of the name {spec.name!r}")


@cache
def _core() -> Any:
    """Return the process's only core: each loads the engines anew."""
    return _imported().Core()


def _imported() -> Any:
    """Import OpenVINO without its telemetry, which writes into the user's home, starts a thread and sends
    an event when it is imported. Where that package is missing OpenVINO does without."""
    absent: Any = None
    telemetry = sys.modules.get(_TELEMETRY)
    sys.modules[_TELEMETRY] = absent
    try:
        return importlib.import_module("openvino")
    except (ImportError, OSError, RuntimeError, ValueError, SystemError) as error:
        if version() is None:
            raise DelegateError("the package openvino is not installed", remedy=INSTALL) from error
        reason = f"openvino {version()} can't be imported: {type(error).__name__}: {error}"
        raise DelegateError(reason, remedy="pip install --force-reinstall openvino") from error
    finally:
        sys.modules.pop(_TELEMETRY, None)
        if telemetry is not None:
            sys.modules[_TELEMETRY] = telemetry


def _read(model: Model) -> Any:
    """Read a model by its path, or by a link to it or to its bytes under a name that OpenVINO takes."""
    path = model.path
    if path is not None and path.endswith(".tflite") and path.isprintable():
        return _core().read_model(path)
    try:
        with tempfile.TemporaryDirectory(prefix="tflite-hal-") as folder, _in_memory(model) as target:
            link = Path(folder) / "model.tflite"
            link.symlink_to(target)
            return _core().read_model(str(link))
    except OSError as error:
        reason = f"{model.name}: OpenVINO reads files named *.tflite only, and no link can be made: {error}"
        raise DelegateError(reason, remedy="give the path of a .tflite file") from error


@contextmanager
def _in_memory(model: Model) -> Iterator[str]:
    """Yield a path of the model; that of a file without a name where it was given as bytes."""
    if model.path is not None:
        yield model.path
        return
    with os.fdopen(os.memfd_create("model"), "wb") as file:
        file.write(model.data)
        file.flush()
        yield f"/proc/self/fd/{file.fileno()}"


@contextmanager
def _told(name: str) -> Iterator[None]:
    """Turn OpenVINO's exceptions, which have no class in common, into ours."""
    try:
        yield
    except (DelegateError, InputError):
        raise
    except Exception as error:
        raise _explained(name, error) from error


def _explained(name: str, error: Exception) -> DelegateError:
    """Return its last line: those before say where in OpenVINO's sources it happened."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = lines[-1] if lines else type(error).__name__
    return DelegateError(f"{name}: OpenVINO {version()}: {reason[:_LONGEST_REASON]}")

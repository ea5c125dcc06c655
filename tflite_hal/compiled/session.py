"""A model compiled by LiteRT: opened, described, called, closed."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from ctypes import c_bool, c_char_p, c_int, c_uint32
from pathlib import Path
from typing import Any, Final

from tflite_hal.compiled.call import CompiledCall, Port, Signature
from tflite_hal.compiled.library import (
    ACCELERATORS,
    DTYPES,
    EnvironmentOption,
    keep,
    load,
    status_text,
)
from tflite_hal.errors import DelegateError, InputError
from tflite_hal.model import Interface, Model, TensorSpec
from tflite_hal.runtime import Runtime
from tflite_hal.session import Call, Coverage, Session, Shapes

__all__ = ["CompiledSession"]

#: LiteRtEnvOptionTag of folders. Without the runtime's own, accelerators beside it are not found and
#: the model is compiled for the CPU in silence.
_FOLDERS: Final = {"compiler": 0, "dispatch": 1, "cache": 18, "runtime": 22}
_REGISTERED = 24  # which accelerators' libraries are loaded


class CompiledSession(Session):
    """A model that LiteRT compiled for its accelerators.

    Attributes:
        fully_accelerated: whether every operator runs on the accelerators asked for; the CPU's fast
            kernels count where ``accelerators`` is ``("cpu",)`` only.
        coverage: all operators, where that is so; else None. LiteRT does not tell some from none: a
            session of ``("gpu", "cpu")`` or ``("npu", "cpu")`` that is not fully accelerated may run on
            the CPU alone. One without ``"cpu"`` is fully accelerated or a DelegateError.
    """

    def __init__(
        self,
        model: Model,
        runtime: Runtime,
        *,
        accelerators: Sequence[str] = ("cpu",),
        threads: int | None = None,
        options: Mapping[str, str] | None = None,
        folders: Mapping[str, str] | None = None,
    ) -> None:
        """Compile.

        Args:
            model: the model; one with variable tensors (LSTM) can't be compiled.
            runtime: one with a ``compiled_library``.
            accelerators: ``"gpu"``, ``"npu"`` and ``"cpu"``; with ``"cpu"`` beside another the CPU may
                run what the other does not take.
            threads: of the CPU's kernels; None is LiteRT's choice.
            options: LiteRT's opaque options, by identifier (``"gpu_options"``, ``"xnnpack"``,
                ``"intel_openvino"``), each the TOML text that LiteRT reads, e.g. ``"precision = 2"``.
            folders: absolute folders: ``"dispatch"`` and ``"compiler"`` of an NPU's libraries,
                ``"cache"`` of compiled models, ``"runtime"`` of the GPU accelerators (default: the
                runtime's own).

        Raises:
            DelegateError: an accelerator is not there, or a C function failed: its name and status.
        """
        self._handles: list[tuple[str, int]] = []
        self._kept: list[Any] = []  # what LiteRT reads while the model lives
        self._pid = os.getpid()
        self._model = model
        self._shapes: dict[int, list[tuple[int, ...]]] = {}
        self.active: dict[int, CompiledCall] = {}
        self.library = load(runtime)
        try:
            self._open(accelerators, threads, dict(options or {}), folders or {})
        except BaseException:
            self.close()
            raise
        total = sum(operator.occurrences for operator in model.info.operators)
        self.coverage = Coverage(total, total, 1) if self.fully_accelerated else None

    def _open(
        self,
        accelerators: Sequence[str],
        threads: int | None,
        options: dict[str, str],
        folders: Mapping[str, str],
    ) -> None:
        self.environment = self._create_environment(accelerators, folders)
        opened = self._open_model()
        self._signatures = tuple(self._read_signatures(opened))
        arguments = (self.environment, opened, self._create_options(accelerators, threads, options))
        with self.explained(f"compile it for {' and '.join(accelerators)}"):
            name = "LiteRtCreateCompiledModel"
            self.compiled = self._create(name, *arguments, destroy="LiteRtDestroyCompiledModel")
        self.fully_accelerated = self._is_fully_accelerated(accelerators)

    def _create(self, name: str, *arguments: Any, destroy: str) -> int:
        handle = self.library.handle(name, *arguments)
        self._handles.append((destroy, handle))
        return handle

    def _create_environment(self, accelerators: Sequence[str], folders: Mapping[str, str]) -> int:
        wrong = [name for name in accelerators if name not in ACCELERATORS]
        if wrong or not accelerators:
            known = ", ".join(ACCELERATORS)
            raise DelegateError(f"accelerators={list(accelerators)!r}: LiteRT has {known}")
        unknown = [
            name for name, path in folders.items() if name not in _FOLDERS or not Path(path).is_absolute()
        ]
        if unknown:
            raise DelegateError(
                f"folders: {', '.join(unknown)}: not one of {', '.join(_FOLDERS)}, or not absolute"
            )
        paths = {"runtime": str(Path(self.library.path).parent), **folders}
        values: dict[int, bytes | int] = {_FOLDERS[name]: os.fsencode(path) for name, path in paths.items()}
        values[_REGISTERED] = _bits(accelerators) | ACCELERATORS["cpu"]
        array = (EnvironmentOption * len(values))(*(EnvironmentOption.of(*item) for item in values.items()))
        self._kept += [array, values]
        name = "LiteRtCreateEnvironment"
        environment = self._create(name, len(array), array, destroy="LiteRtDestroyEnvironment")
        self._check_registered(environment, accelerators, paths)
        return environment

    def _check_registered(
        self, environment: int, accelerators: Sequence[str], paths: Mapping[str, str]
    ) -> None:
        """Refuse an accelerator that LiteRT did not find: it would run on the CPU in silence."""
        library, found = self.library, 0
        for index in range(library.number("LiteRtGetNumAccelerators", environment)):
            one = library.handle("LiteRtGetAccelerator", environment, index)
            found |= library.number("LiteRtGetAcceleratorHardwareSupport", one, kind=c_int)
        for name in accelerators:
            if not ACCELERATORS[name] & found:
                places = ", ".join(
                    f"{key} {path}" for key, path in paths.items() if key in ("runtime", "dispatch")
                )
                raise DelegateError(f"LiteRT found no {name.upper()} accelerator in its folders: {places}")

    def _open_model(self) -> int:
        with self.explained("load it"):
            if self._model.path is not None:
                source: tuple[Any, ...] = ("LiteRtCreateModelFromFile", os.fsencode(self._model.path))
            else:
                self._kept.append(self._model.data)
                source = ("LiteRtCreateModelFromBuffer", self._model.data, len(self._model.data))
            name, *arguments = source
            return self._create(name, self.environment, *arguments, destroy="LiteRtDestroyModel")

    def _create_options(
        self, accelerators: Sequence[str], threads: int | None, options: dict[str, str]
    ) -> int:
        if threads is not None:
            options["xnnpack"] = f"{options.get('xnnpack', '')}\nnum_threads = {int(threads)}\n"
        handle = self._create("LiteRtCreateOptions", destroy="LiteRtDestroyOptions")
        self.library.call("LiteRtSetOptionsHardwareAccelerators", handle, _bits(accelerators))
        for identifier, text in options.items():
            payload = ctypes.create_string_buffer(text.encode())
            self._kept.append(payload)
            opaque = self.library.handle("LiteRtCreateOpaqueOptions", identifier.encode(), payload, keep)
            self.library.call("LiteRtAddOpaqueOptions", handle, opaque)
        return handle

    def _read_signatures(self, opened: int) -> Iterator[Signature]:
        library = self.library
        for index in range(library.number("LiteRtGetNumModelSignatures", opened)):
            signature = library.handle("LiteRtGetModelSignature", opened, index)
            key = library.number("LiteRtGetSignatureKey", signature, kind=c_char_p) or b""
            ports = [tuple(self._ports(signature, which)) for which in ("Input", "Output")]
            yield Signature(index, key.decode("utf-8", "backslashreplace"), *ports)

    def _ports(self, signature: int, which: str) -> Iterator[Port]:
        library = self.library
        for index in range(library.number(f"LiteRtGetNumSignature{which}s", signature)):
            tensor = library.handle(f"LiteRtGetSignature{which}TensorByIndex", signature, index)
            number = library.number("LiteRtGetTensorIndex", tensor, kind=c_uint32)
            yield Port(index, number, library.tensor_type(tensor))

    def _is_fully_accelerated(self, accelerators: Sequence[str]) -> bool:
        name = "LiteRtCompiledModelIsFullyAccelerated"
        if set(accelerators) - {"cpu"}:
            name = "LiteRtCompiledModelIsNonCpuFullyAccelerated"
        return bool(self.library.number(name, self.compiled, kind=c_bool))

    @contextmanager
    def explained(self, doing: str) -> Iterator[None]:
        """Turn a failed C function into what could not be done to this model."""
        try:
            yield
        except DelegateError as error:
            raise self.failure(doing, error.reason) from error

    def failure(self, doing: str, reason: str) -> DelegateError:
        """Return the error that says what could not be done to this model."""
        remedy = ""
        if "variable tensors" in self._model.info.stateful:
            remedy = "LiteRT's CompiledModel takes no variable tensors: use the CPU"
        return DelegateError(f"{self._model.name}: can't {doing}: {reason}", remedy=remedy)

    def prepare(self, signature: str | None = None, shapes: Shapes | None = None) -> Call:
        """See :meth:`Session.prepare`."""
        interface = self._model.info.interface(signature, self._model.name)
        chosen = self._find(signature, interface)
        into = self._matched(interface.inputs, chosen.inputs)
        out = self._matched(interface.outputs, chosen.outputs)
        given = [spec.static_shape for spec in interface.inputs] if shapes is None else shapes
        by_index = {}
        for index, spec, shape in zip(into, interface.inputs, given, strict=True):
            self._check_shape(spec, shape)
            by_index[index] = tuple(shape)
        call = CompiledCall(self, chosen, [by_index[port.number] for port in chosen.inputs], (into, out))
        call.activate()
        return call

    def _find(self, key: str | None, interface: Interface) -> Signature:
        """Return LiteRT's signature of this name, or one of the main subgraph: LiteRT runs no others."""
        wanted = {spec.tensor_index for spec in interface.inputs}
        main = [one.key for one in self._model.info.signatures if one.subgraph == 0]
        for one in self._signatures:
            named = one.key == key if key is not None else one.key in main or not self._model.info.signatures
            if named and {port.tensor for port in one.inputs} == wanted:
                return one
        what = "its inputs as they stand" if key is None else f"signature {key!r}"
        raise self.failure("prepare it", f"LiteRT has no signature that takes {what}")

    def _matched(self, specs: Sequence[TensorSpec], ports: Sequence[Port]) -> list[int]:
        """Return LiteRT's index per tensor: its order may be another than the file's."""
        index = {port.tensor: port.number for port in reversed(ports)}
        for spec in specs:
            if spec.tensor_index not in index:
                raise self.failure("prepare it", f"LiteRT does not know tensor {spec.name!r}")
            if self.dtype(ports[index[spec.tensor_index]]) != spec.dtype:
                raise self.failure("prepare it", f"{spec.name!r} is {spec.type}, which can't be exchanged")
        return [index[spec.tensor_index] for spec in specs]

    def dtype(self, port: Port) -> Any:
        """Return the dtype of a tensor.

        Raises:
            DelegateError: numpy has none for it.
        """
        found = DTYPES.get(port.type.element_type)
        if found is None:
            raise self.failure(
                "prepare it", f"tensor {port.tensor} has element type {port.type.element_type}"
            )
        return found

    def _check_shape(self, spec: TensorSpec, shape: Sequence[int]) -> None:
        fits = len(spec.shape) == len(shape) and all(
            size in (-1, given) for size, given in zip(spec.shape, shape, strict=True)
        )
        if not fits:
            raise InputError(f"{self._model.name}: input {spec.name!r} is {spec.shape}, not {tuple(shape)}")

    def resize(self, signature: Signature, shapes: Sequence[tuple[int, ...]]) -> None:
        """Bring a signature's inputs into these shapes.

        Raises:
            DelegateError: the accelerator can't take them; the session is closed.
        """
        if not self._handles:
            raise self.failure("run it", "the session is closed")
        first = [port.type.layout.shape() for port in signature.inputs]
        current = self._shapes.setdefault(signature.number, first)
        for port, shape in zip(signature.inputs, shapes, strict=True):
            if current[port.number] == shape:
                continue
            name, dims = "LiteRtCompiledModelResizeInputTensor", (c_int * len(shape))(*shape)
            current[port.number] = ()  # unknown, should it fail half-way
            status = self.library.functions[name](
                self.compiled, signature.number, port.number, dims, len(shape)
            )
            if status:
                # The engine's own limit: another may take this shape.
                raise self.failure(f"give input {port.number} the shape {shape}", status_text(name, status))
            current[port.number] = shape

    def deactivate(self, signature: int) -> None:
        """Free the buffers of the call that a signature is prepared for."""
        if signature in self.active:
            self.active.pop(signature).release()

    def close(self) -> None:
        """See :meth:`Session.close`; in a forked child nothing is freed."""
        if self._pid != os.getpid():
            return
        for signature in tuple(self.active):
            self.deactivate(signature)
        while self._handles:
            destroy, handle = self._handles.pop()
            self.library.functions[destroy](handle)
        self._kept.clear()

    def __del__(self) -> None:
        if getattr(self, "_handles", None):
            self.close()


def _bits(accelerators: Sequence[str]) -> int:
    return sum(ACCELERATORS[name] for name in set(accelerators))

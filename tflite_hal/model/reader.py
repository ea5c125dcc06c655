"""Reading the facts out of a file that is checked on the way."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np

from tflite_hal.errors import ModelError
from tflite_hal.model.flatfile import DAMAGE, Flatfile, NoSuchNumber, names, within
from tflite_hal.model.info import ModelInfo, Operator, Quantization, Signature, TensorSpec
from tflite_hal.model.source import Model, read_file

__all__ = ["KnownHash", "read_model"]

#: Given a path and a function that hashes it, returns the file's SHA-256; it may know that of a file that
#: has not changed.
KnownHash = Callable[[str, Callable[[], str]], str]

#: First bytes of files that are given by mistake, and what they are.
_MISTAKES: Final = (
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself", "run git lfs pull"),
    (b"<!DOCTYPE", "an HTML page", "download the file itself"),
    (b"<html", "an HTML page", "download the file itself"),
    (b"\x89HDF", "a Keras HDF5 file", "convert it to .tflite first"),
    (
        b"PK\x03\x04",
        "a zip archive (a .keras file is one)",
        "unpack it, or convert the Keras model to .tflite first",
    ),
    (b"\x1f\x8b", "a gzip archive", "unpack it"),
)

_NUMPY_TYPES: Final = {
    "float32": "f4",
    "float16": "f2",
    "float64": "f8",
    "int8": "i1",
    "int16": "i2",
    "int32": "i4",
    "int64": "i8",
    "uint8": "u1",
    "uint16": "u2",
    "uint32": "u4",
    "uint64": "u8",
    "bool": "?",
    "complex64": "c8",
    "complex128": "c16",
}
_VARIABLE_OPERATORS: Final = {"VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE"}


def read_model(
    source: str | os.PathLike[str] | bytes | Model,
    *,
    known_hash: KnownHash | None = None,
) -> Model:
    """Read and check a model.

    Args:
        source: path or bytes of a ``.tflite`` file; a :class:`Model` is returned as it is.
        known_hash: see :data:`KnownHash`.

    Raises:
        ModelError: the file is missing, truncated, or no model; names it and the defect.
    """
    if isinstance(source, Model):
        return source
    if isinstance(source, (bytes, bytearray, memoryview)):
        data = bytes(source)
        return Model(None, data, "<bytes>", _read(data, "<bytes>", _sha256(data)))
    if source == "":
        raise ModelError("the path of the model is empty")
    try:
        path = str(Path(source).absolute())
    except TypeError as error:
        raise ModelError(f"a model is a path or bytes, not {type(source).__name__}") from error
    data, stamp = read_file(path)
    known = _sha256(data) if known_hash is None else known_hash(path, lambda: _sha256(data))
    return Model(path, None, Path(path).name, _read(data, path, known), stamp)


def _sha256(data: bytes) -> str:
    import hashlib  # costs 2 ms

    return hashlib.sha256(data).hexdigest()


def _read(data: bytes, name: str, sha256: str) -> ModelInfo:
    if not data:
        raise ModelError(f"{name} is empty: 0 bytes")
    if data[4:8] != b"TFL3":
        for start, what, remedy in _MISTAKES:
            if data[:256].lstrip().lower().startswith(start.lower()):
                raise ModelError(f"{name} is {what}", remedy=remedy)
        raise ModelError(f"{name} is not a .tflite file: {len(data)} bytes without the identifier TFL3")
    try:
        return _Reader(data).info(sha256)
    except DAMAGE as error:
        raise ModelError(f"{name} is damaged or truncated: {error}") from error


class _Reader:
    """One pass over a file; raises one of ``DAMAGE`` where it is damaged."""

    def __init__(self, data: bytes) -> None:
        import tflite

        self._data = data
        self._file = Flatfile(data)
        self._model = self._file.checked(tflite.Model.GetRootAs(data))
        self._operator_names = names(tflite.BuiltinOperator)
        self._type_names = names(tflite.TensorType)
        self._custom_code = tflite.BuiltinOperator.CUSTOM

    def info(self, sha256: str) -> ModelInfo:
        """Return the facts."""
        graphs = list(self._file.items(self._model, "Subgraphs"))
        if not graphs:
            raise ValueError("no subgraph")
        buffers = list(self._file.items(self._model, "Buffers"))
        for metadata in self._file.items(self._model, "Metadata"):
            self._file.text(metadata.Name())
        tensors = [list(self._file.items(graph, "Tensors")) for graph in graphs]
        inner: list[set[int]] = [set() for _ in graphs]  # intermediate tensors, of each graph
        for graph, of_graph, found in zip(graphs, tensors, inner, strict=True):
            for operator in self._file.items(graph, "Operators"):
                found.update(self._file.check_operator(operator, len(of_graph)))
            for tensor in of_graph:
                if tensor.Buffer():  # 0 is none
                    within(tensor.Buffer(), buffers, "buffer")
        operators = self._operators(graphs)
        types = Counter(self._type(tensor) for of_graph in tensors for tensor in of_graph)
        inputs = self._specs(graphs[0], "Inputs", tensors[0])
        return ModelInfo(
            size=len(self._data),
            sha256=sha256,
            description=self._file.text(self._model.Description()),
            version=self._model.Version(),
            inputs=inputs,
            outputs=self._specs(graphs[0], "Outputs", tensors[0]),
            signatures=tuple(self._signatures(tensors)),
            operators=operators,
            subgraphs=len(graphs),
            types=tuple(sorted(types)),
            precision=self._precision(tensors[0], buffers, inner[0]),
            stateful=self._stateful(operators, tensors),
            parameters_bytes=sum(_buffer_size(buffer) for buffer in buffers),
        )

    def _operators(self, graphs: list[Any]) -> tuple[Operator, ...]:
        codes = [self._operator_code(code) for code in self._file.items(self._model, "OperatorCodes")]
        counts: Counter[tuple[str, bool, int]] = Counter()
        for graph in graphs:
            for operator in self._file.items(graph, "Operators"):
                counts[codes[within(operator.OpcodeIndex(), codes, "operator code")]] += 1
        found = [Operator(name, count, custom, version) for (name, custom, version), count in counts.items()]
        return tuple(sorted(found, key=lambda operator: (-operator.occurrences, operator.name)))

    def _operator_code(self, code: Any) -> tuple[str, bool, int]:
        # Codes above 126 do not fit the older field; the larger one counts (schema comment).
        number = max(code.DeprecatedBuiltinCode(), code.BuiltinCode())
        custom = number == self._custom_code
        if custom:
            name = self._file.text(code.CustomCode()) or "(custom operator without name)"
        else:
            name = self._operator_names.get(number, f"OPERATOR_{number}")
        return name, custom, code.Version()

    def _specs(self, graph: Any, which: str, tensors: list[Any]) -> tuple[TensorSpec, ...]:
        indices = self._file.numbers(graph, which)
        return tuple(self._spec(tensors[within(index, tensors, which)], index) for index in indices)

    def _spec(self, tensor: Any, index: int) -> TensorSpec:
        self._file.spend(10)  # about what the rest of this costs
        stored = tuple(self._file.numbers(tensor, "Shape"))
        signature = tuple(self._file.numbers(tensor, "ShapeSignature"))
        kind = self._type(tensor)
        return TensorSpec(
            name=self._file.text(tensor.Name()),
            tensor_index=index,
            shape=_shape(stored, signature),
            dtype=np.dtype(_NUMPY_TYPES.get(kind, "O")),
            type=kind,
            quantization=self._quantization(tensor),
            static_shape=stored,
        )

    def _type(self, tensor: Any) -> str:
        return self._type_names.get(tensor.Type(), f"type_{tensor.Type()}").lower()

    def _quantization(self, tensor: Any) -> Quantization | None:
        parameters = tensor.Quantization()
        if parameters is None:
            return None
        scales = tuple(self._file.numbers(parameters, "Scale"))
        zeros = tuple(self._file.numbers(parameters, "ZeroPoint"))
        if not scales or not any(scales):
            return None
        zeros = zeros if len(zeros) == len(scales) else (zeros[0] if zeros else 0,) * len(scales)
        return Quantization(scales, zeros, parameters.QuantizedDimension())

    def _signatures(self, tensors: list[list[Any]]) -> Iterator[Signature]:
        """Yield the signatures that can be called: one that names a tensor there is not, can't."""
        for definition in list(self._file.items(self._model, "SignatureDefs")):
            try:
                yield self._signature(definition, tensors)
            except NoSuchNumber:
                continue

    def _signature(self, definition: Any, tensors: list[list[Any]]) -> Signature:
        number = within(definition.SubgraphIndex(), tensors, "subgraph")
        names: dict[str, tuple[str, ...]] = {}
        specs: dict[str, tuple[TensorSpec, ...]] = {}
        for which in ("Inputs", "Outputs"):
            maps = list(self._file.items(definition, which))
            names[which] = tuple(self._file.text(one.Name()) for one in maps)
            places = [within(one.TensorIndex(), tensors[number], "tensor") for one in maps]
            specs[which] = tuple(self._spec(tensors[number][place], place) for place in places)
        key = self._file.text(definition.SignatureKey())
        return Signature(key, names["Inputs"], specs["Inputs"], names["Outputs"], specs["Outputs"], number)

    def _precision(self, tensors: list[Any], buffers: list[Any], inner: set[int]) -> str:
        """Name the model by its weights and activations: constant tensors have a buffer with data.

        What an operator keeps for itself, within a call or between calls, has a precision of its own.
        """
        sizes = [_buffer_size(buffer) for buffer in buffers]
        weights: set[str] = set()
        activations: set[str] = set()
        for index, tensor in enumerate(tensors):
            if index in inner or tensor.IsVariable():
                continue
            place = tensor.Buffer()
            constant = place < len(sizes) and sizes[place] > 0
            (weights if constant else activations).add(self._type(tensor))
        if "float32" in activations:
            if "float16" in weights:
                return "float16"
            return "hybrid" if weights & {"int8", "uint8", "int4"} else "float32"
        return next((kind for kind in ("int16", "int8", "uint8", "float16") if kind in activations), "other")

    def _stateful(self, operators: tuple[Operator, ...], tensors: list[list[Any]]) -> str:
        resources = [operator.name for operator in operators if operator.name in _VARIABLE_OPERATORS]
        if resources:
            return f"resource variables ({', '.join(sorted(set(resources)))})"
        variables = [tensor for of_graph in tensors for tensor in of_graph if tensor.IsVariable()]
        if not variables:
            return ""
        shown = ", ".join(self._file.text(tensor.Name()) for tensor in variables[:4])
        return f"variable tensors ({shown}{', ...' if len(variables) > 4 else ''})"


def _buffer_size(buffer: Any) -> int:
    # Beyond 2 GB the data lies outside the flatbuffer, at an offset of its own.
    return int(buffer.DataLength() or (buffer.Size() if buffer.Offset() > 1 else 0))


def _shape(stored: tuple[int, ...], signature: tuple[int, ...]) -> tuple[int, ...]:
    """Mark what may have any size; the other sizes are those stored, which runtimes go by."""
    if len(signature) != len(stored):
        return stored
    return tuple(-1 if mark == -1 else size for mark, size in zip(signature, stored, strict=True))

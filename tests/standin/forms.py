"""Small models in several forms, made byte by byte: a plain one, and what a compiler would make of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import flatbuffers
import numpy as np
import tflite

from tflite_hal.model import TensorSpec, read_model

CUSTOM = "edgetpu-custom-op"


def _vector(builder, start, offsets: Sequence[int]) -> int:
    start(builder, len(offsets))
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return builder.EndVector()


def _numbers(builder, values: Sequence[int]) -> int:
    return builder.CreateNumpyVector(np.asarray(values, np.int32))


def _tensor(builder, spec: TensorSpec) -> int:
    name, shape = builder.CreateString(spec.name), _numbers(builder, spec.static_shape)
    quantization = None
    if spec.quantization is not None:
        scales = builder.CreateNumpyVector(np.asarray(spec.quantization.scales, np.float32))
        zeros = builder.CreateNumpyVector(np.asarray(spec.quantization.zero_points, np.int64))
        tflite.QuantizationParametersStart(builder)
        tflite.QuantizationParametersAddScale(builder, scales)
        tflite.QuantizationParametersAddZeroPoint(builder, zeros)
        quantization = tflite.QuantizationParametersEnd(builder)
    tflite.TensorStart(builder)
    tflite.TensorAddName(builder, name)
    tflite.TensorAddShape(builder, shape)
    tflite.TensorAddType(builder, getattr(tflite.TensorType, spec.type.upper()))
    if quantization is not None:
        tflite.TensorAddQuantization(builder, quantization)
    return tflite.TensorEnd(builder)


def _operator(builder, code: int, inputs: Sequence[int], outputs: Sequence[int]) -> int:
    given, made = _numbers(builder, inputs), _numbers(builder, outputs)
    tflite.OperatorStart(builder)
    tflite.OperatorAddOpcodeIndex(builder, code)
    tflite.OperatorAddInputs(builder, given)
    tflite.OperatorAddOutputs(builder, made)
    return tflite.OperatorEnd(builder)


def _code(builder, code: int, custom: str | None = None) -> int:
    text = None if custom is None else builder.CreateString(custom)
    tflite.OperatorCodeStart(builder)
    tflite.OperatorCodeAddDeprecatedBuiltinCode(builder, code)
    tflite.OperatorCodeAddBuiltinCode(builder, code)
    if text is not None:
        tflite.OperatorCodeAddCustomCode(builder, text)
    tflite.OperatorCodeAddVersion(builder, 1)
    return tflite.OperatorCodeEnd(builder)


def _signature(builder, key: str, inputs: dict[str, int], outputs: dict[str, int]) -> int:
    maps = []
    for group in (inputs, outputs):
        made = []
        for name, index in group.items():
            text = builder.CreateString(name)
            tflite.TensorMapStart(builder)
            tflite.TensorMapAddName(builder, text)
            tflite.TensorMapAddTensorIndex(builder, index)
            made.append(tflite.TensorMapEnd(builder))
        maps.append(made)
    takes = _vector(builder, tflite.SignatureDefStartInputsVector, maps[0])
    gives = _vector(builder, tflite.SignatureDefStartOutputsVector, maps[1])
    text = builder.CreateString(key)
    tflite.SignatureDefStart(builder)
    tflite.SignatureDefAddInputs(builder, takes)
    tflite.SignatureDefAddOutputs(builder, gives)
    tflite.SignatureDefAddSignatureKey(builder, text)
    tflite.SignatureDefAddSubgraphIndex(builder, 0)
    return tflite.SignatureDefEnd(builder)


def _model(builder, tensors, operators, codes, inputs, outputs, signatures=()) -> bytes:
    listed = _vector(builder, tflite.SubGraphStartTensorsVector, tensors)
    run = _vector(builder, tflite.SubGraphStartOperatorsVector, operators)
    takes, gives = _numbers(builder, inputs), _numbers(builder, outputs)
    tflite.SubGraphStart(builder)
    tflite.SubGraphAddTensors(builder, listed)
    tflite.SubGraphAddInputs(builder, takes)
    tflite.SubGraphAddOutputs(builder, gives)
    tflite.SubGraphAddOperators(builder, run)
    graphs = _vector(builder, tflite.ModelStartSubgraphsVector, [tflite.SubGraphEnd(builder)])
    known = _vector(builder, tflite.ModelStartOperatorCodesVector, codes)
    tflite.BufferStart(builder)
    buffers = _vector(builder, tflite.ModelStartBuffersVector, [tflite.BufferEnd(builder)])
    defined = _vector(builder, tflite.ModelStartSignatureDefsVector, list(signatures))
    tflite.ModelStart(builder)
    tflite.ModelAddVersion(builder, 3)
    tflite.ModelAddOperatorCodes(builder, known)
    tflite.ModelAddSubgraphs(builder, graphs)
    tflite.ModelAddBuffers(builder, buffers)
    tflite.ModelAddSignatureDefs(builder, defined)
    builder.Finish(tflite.ModelEnd(builder), b"TFL3")
    return bytes(builder.Output())


def arithmetic(*, swapped: bool = False) -> bytes:
    """Return a model of two inputs and two outputs that can't be mistaken for each other: ``difference``
    and ``product`` of ``a`` and ``b``; signature ``named`` calls them ``left``, ``right``, ``minus``,
    ``times``. Where ``swapped`` each output is the other."""
    builder = flatbuffers.Builder()
    specs = [
        TensorSpec(name, i, (1, 4), np.dtype("f4"), "float32", None, (1, 4))
        for i, name in enumerate(("a", "b", "difference", "product"))
    ]
    tensors = [_tensor(builder, spec) for spec in specs]
    operators = [_operator(builder, 0, [0, 1], [2]), _operator(builder, 1, [0, 1], [3])]
    codes = [_code(builder, tflite.BuiltinOperator.SUB), _code(builder, tflite.BuiltinOperator.MUL)]
    codes = codes[::-1] if swapped else codes
    # Another order than the model's own.
    named = _signature(builder, "named", {"right": 1, "left": 0}, {"times": 3, "minus": 2})
    return _model(builder, tensors, operators, codes, [0, 1], [2, 3], [named])


def compiled(plain: Path | bytes, *, turned: bool = False, **changes) -> bytes:
    """Return what ``edgetpu_compiler`` makes of a whole model: one operator with the same inputs and outputs,
    in the opposite order where ``turned``, and no signature. ``changes`` are made to the last output."""
    info = read_model(plain).info
    inputs, outputs = list(info.inputs), list(info.outputs)
    outputs[-1] = outputs[-1]._replace(**changes)
    builder = flatbuffers.Builder()
    tensors = [_tensor(builder, spec) for spec in (*inputs, *outputs)]
    takes, gives = list(range(len(inputs))), list(range(len(inputs), len(tensors)))
    operator = _operator(builder, 0, takes, gives)
    codes = [_code(builder, tflite.BuiltinOperator.CUSTOM, CUSTOM)]
    if turned:
        takes, gives = takes[::-1], gives[::-1]
    return _model(builder, tensors, [operator], codes, takes, gives)

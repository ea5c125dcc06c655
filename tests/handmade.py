"""Models written by hand, table by table: an operator per subgraph."""

from __future__ import annotations

from collections.abc import Sequence

import flatbuffers
import numpy as np
import tflite

ADD, CUSTOM = tflite.BuiltinOperator.ADD, tflite.BuiltinOperator.CUSTOM
FLOAT = tflite.TensorType.FLOAT32


def vector(builder, start, offsets: Sequence[int]) -> int:
    """Write a vector of offsets."""
    start(builder, len(offsets))
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return builder.EndVector()


def numbers(builder, values: Sequence[int]) -> int:
    """Write a vector of int32."""
    return builder.CreateNumpyVector(np.asarray(values, np.int32))


def tensor(builder, name: str | bytes, kind: int, shape=(1, 4), signature=None, variable=False) -> int:
    text, sizes = builder.CreateString(name), numbers(builder, shape)
    takes = None if signature is None else numbers(builder, signature)
    tflite.TensorStart(builder)
    tflite.TensorAddName(builder, text)
    tflite.TensorAddShape(builder, sizes)
    if takes is not None:
        tflite.TensorAddShapeSignature(builder, takes)
    tflite.TensorAddType(builder, kind)
    tflite.TensorAddIsVariable(builder, variable)
    return tflite.TensorEnd(builder)


def operator_code(builder, code: int, custom: str | None) -> int:
    text = None if custom is None else builder.CreateString(custom)
    tflite.OperatorCodeStart(builder)
    tflite.OperatorCodeAddDeprecatedBuiltinCode(builder, min(code, 127))
    tflite.OperatorCodeAddBuiltinCode(builder, code)
    if text is not None:
        tflite.OperatorCodeAddCustomCode(builder, text)
    tflite.OperatorCodeAddVersion(builder, 1)
    return tflite.OperatorCodeEnd(builder)


def subgraph(builder, name: str | bytes, kind: int, gives: int | None = None, **options) -> int:
    """One operator: x, and the tensor ``name``, to y, which may be of another kind."""
    kinds = (kind, kind, kind if gives is None else gives)
    tensors = [tensor(builder, each, k, **options) for each, k in zip(("x", name, "y"), kinds, strict=True)]
    listed = vector(builder, tflite.SubGraphStartTensorsVector, tensors)
    inputs, outputs = numbers(builder, [0, 1]), numbers(builder, [2])
    tflite.OperatorStart(builder)
    tflite.OperatorAddOpcodeIndex(builder, 0)
    tflite.OperatorAddInputs(builder, inputs)
    tflite.OperatorAddOutputs(builder, outputs)
    operators = vector(builder, tflite.SubGraphStartOperatorsVector, [tflite.OperatorEnd(builder)])
    tflite.SubGraphStart(builder)
    tflite.SubGraphAddTensors(builder, listed)
    tflite.SubGraphAddInputs(builder, inputs)
    tflite.SubGraphAddOutputs(builder, outputs)
    tflite.SubGraphAddOperators(builder, operators)
    return tflite.SubGraphEnd(builder)


def tensor_map(builder, name: str, index: int) -> int:
    text = builder.CreateString(name)
    tflite.TensorMapStart(builder)
    tflite.TensorMapAddName(builder, text)
    tflite.TensorMapAddTensorIndex(builder, index)
    return tflite.TensorMapEnd(builder)


def signature_def(builder, key: str, number: int) -> int:
    inputs = [tensor_map(builder, f"{key}_{name}", i) for i, name in enumerate("ab")]
    takes = vector(builder, tflite.SignatureDefStartInputsVector, inputs)
    gives = vector(builder, tflite.SignatureDefStartOutputsVector, [tensor_map(builder, f"{key}_sum", 2)])
    text = builder.CreateString(key)
    tflite.SignatureDefStart(builder)
    tflite.SignatureDefAddInputs(builder, takes)
    tflite.SignatureDefAddOutputs(builder, gives)
    tflite.SignatureDefAddSignatureKey(builder, text)
    tflite.SignatureDefAddSubgraphIndex(builder, number)
    return tflite.SignatureDefEnd(builder)


def build(
    *,
    code: int = ADD,
    custom: str | None = None,
    name: str | bytes = "w",
    kind: int = FLOAT,
    subgraphs: int = 1,
    signatures: Sequence[tuple[str, int]] = (),
    **options,
) -> bytes:
    """Return a model of one operator per subgraph."""
    builder = flatbuffers.Builder()
    graphs = [subgraph(builder, name, kind, **options) for _ in range(subgraphs)]
    listed = vector(builder, tflite.ModelStartSubgraphsVector, graphs)
    codes = [operator_code(builder, code, custom)]
    operators = vector(builder, tflite.ModelStartOperatorCodesVector, codes)
    tflite.BufferStart(builder)
    buffers = vector(builder, tflite.ModelStartBuffersVector, [tflite.BufferEnd(builder)])
    defined = [signature_def(builder, key, number) for key, number in signatures]
    definitions = vector(builder, tflite.ModelStartSignatureDefsVector, defined)
    description = builder.CreateString("made by a test")
    tflite.ModelStart(builder)
    tflite.ModelAddVersion(builder, 3)
    tflite.ModelAddOperatorCodes(builder, operators)
    tflite.ModelAddSubgraphs(builder, listed)
    tflite.ModelAddDescription(builder, description)
    tflite.ModelAddBuffers(builder, buffers)
    tflite.ModelAddSignatureDefs(builder, definitions)
    builder.Finish(tflite.ModelEnd(builder), b"TFL3")
    return bytes(builder.Output())

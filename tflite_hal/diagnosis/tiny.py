"""A model small enough to be run on everything that is found: one convolution, in 8 bits or in floats.

A convolution, since there are accelerators that take little else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import flatbuffers
import numpy as np
import tflite

__all__ = ["TINY", "tiny_model"]

#: The kinds there are, in the order in which accelerators are asked.
TINY: Final = ("int8", "float32")

_SIZE, _CHANNELS, _KERNEL = 8, 4, 3
#: Steps of input, weights and output; the accumulator's is the product of the first two.
_STEPS: Final = (1 / 64, 1 / 64, 1 / 8)
_SEED: Final = 7


class _Tensor(NamedTuple):
    name: str
    kind: int
    shape: tuple[int, ...]
    step: float | None  # None: not quantised
    buffer: int  # 0 is the empty one


def tiny_model(precision: str) -> bytes:
    """Return the model: image ``[1, 8, 8, 4]`` to ``[1, 8, 8, 4]``, both of ``precision``
    (one of :data:`TINY`)."""
    quantised = precision == "int8"
    steps: Sequence[float | None] = (*_STEPS, _STEPS[0] * _STEPS[1]) if quantised else (None,) * 4
    kind = tflite.TensorType.INT8 if quantised else tflite.TensorType.FLOAT32
    wide = tflite.TensorType.INT32 if quantised else tflite.TensorType.FLOAT32
    random = np.random.default_rng(_SEED)
    weights = random.integers(-64, 64, (_CHANNELS, _KERNEL, _KERNEL, _CHANNELS)).astype(np.int8)
    bias = random.integers(-256, 256, _CHANNELS).astype(np.int32)
    data: list[np.ndarray[Any, Any]] = [weights, bias]
    if not quantised:
        data = [
            (weights * _STEPS[1]).astype(np.float32),
            (bias * _STEPS[0] * _STEPS[1]).astype(np.float32),
        ]
    image = (1, _SIZE, _SIZE, _CHANNELS)
    tensors = (
        _Tensor("image", kind, image, steps[0], 0),
        _Tensor("weights", kind, weights.shape, steps[1], 1),
        _Tensor("bias", wide, bias.shape, steps[3], 2),
        _Tensor("features", kind, image, steps[2], 0),
    )
    return _written(tensors, [b"", *(array.tobytes() for array in data)], 3 if quantised else 1)


def _written(tensors: Sequence[_Tensor], buffers: Sequence[bytes], version: int) -> bytes:
    builder = flatbuffers.Builder(1024)
    graph = _graph(builder, tensors)
    tflite.OperatorCodeStart(builder)
    tflite.OperatorCodeAddDeprecatedBuiltinCode(builder, tflite.BuiltinOperator.CONV_2D)
    tflite.OperatorCodeAddBuiltinCode(builder, tflite.BuiltinOperator.CONV_2D)
    tflite.OperatorCodeAddVersion(builder, version)
    codes = _vector(builder, tflite.ModelStartOperatorCodesVector, [tflite.OperatorCodeEnd(builder)])
    graphs = _vector(builder, tflite.ModelStartSubgraphsVector, [graph])
    stored = _vector(
        builder, tflite.ModelStartBuffersVector, [_buffer(builder, content) for content in buffers]
    )
    tflite.ModelStart(builder)
    tflite.ModelAddVersion(builder, 3)
    tflite.ModelAddOperatorCodes(builder, codes)
    tflite.ModelAddSubgraphs(builder, graphs)
    tflite.ModelAddBuffers(builder, stored)
    builder.Finish(tflite.ModelEnd(builder), b"TFL3")
    return bytes(builder.Output())


def _vector(builder: Any, start: Callable[[Any, int], Any], offsets: Sequence[int]) -> int:
    start(builder, len(offsets))
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return int(builder.EndVector())


def _numbers(builder: Any, values: Sequence[int]) -> int:
    return int(builder.CreateNumpyVector(np.asarray(values, np.int32)))


def _buffer(builder: Any, content: bytes) -> int:
    data = builder.CreateByteVector(content) if content else None
    tflite.BufferStart(builder)
    if data is not None:
        tflite.BufferAddData(builder, data)
    return int(tflite.BufferEnd(builder))


def _tensor(builder: Any, tensor: _Tensor) -> int:
    name, shape, step = builder.CreateString(tensor.name), _numbers(builder, tensor.shape), None
    if tensor.step is not None:
        scales = builder.CreateNumpyVector(np.asarray([tensor.step], np.float32))
        zeros = builder.CreateNumpyVector(np.asarray([0], np.int64))
        tflite.QuantizationParametersStart(builder)
        tflite.QuantizationParametersAddScale(builder, scales)
        tflite.QuantizationParametersAddZeroPoint(builder, zeros)
        step = tflite.QuantizationParametersEnd(builder)
    tflite.TensorStart(builder)
    tflite.TensorAddName(builder, name)
    tflite.TensorAddShape(builder, shape)
    tflite.TensorAddType(builder, tensor.kind)
    tflite.TensorAddBuffer(builder, tensor.buffer)
    if step is not None:
        tflite.TensorAddQuantization(builder, step)
    return int(tflite.TensorEnd(builder))


def _graph(builder: Any, tensors: Sequence[_Tensor]) -> int:
    listed = _vector(
        builder, tflite.SubGraphStartTensorsVector, [_tensor(builder, tensor) for tensor in tensors]
    )
    takes, gives = _numbers(builder, [0, 1, 2]), _numbers(builder, [3])
    tflite.Conv2DOptionsStart(builder)
    tflite.Conv2DOptionsAddPadding(builder, tflite.Padding.SAME)
    tflite.Conv2DOptionsAddStrideW(builder, 1)
    tflite.Conv2DOptionsAddStrideH(builder, 1)
    options = tflite.Conv2DOptionsEnd(builder)
    tflite.OperatorStart(builder)
    tflite.OperatorAddOpcodeIndex(builder, 0)
    tflite.OperatorAddInputs(builder, takes)
    tflite.OperatorAddOutputs(builder, gives)
    tflite.OperatorAddBuiltinOptionsType(builder, tflite.BuiltinOptions.Conv2DOptions)
    tflite.OperatorAddBuiltinOptions(builder, options)
    operators = _vector(builder, tflite.SubGraphStartOperatorsVector, [tflite.OperatorEnd(builder)])
    first, last = _numbers(builder, [0]), _numbers(builder, [3])
    tflite.SubGraphStart(builder)
    tflite.SubGraphAddTensors(builder, listed)
    tflite.SubGraphAddInputs(builder, first)
    tflite.SubGraphAddOutputs(builder, last)
    tflite.SubGraphAddOperators(builder, operators)
    return int(tflite.SubGraphEnd(builder))

"""What a caller gives to ``Runner.predict``, turned into the exact arrays a model takes, and back.

Nothing is lost silently: a value arrives as it was meant, or an :class:`~tflite_hal.errors.InputError`
names the tensor, what it takes and what was given. A tensor of an integer type with quantisation
parameters is *quantised*: floats given to it are real numbers, integers are quantised values already.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any, Final, NamedTuple

import numpy as np

from tflite_hal.errors import InputError
from tflite_hal.model import TensorSpec

__all__ = ["Converted", "Warn", "arrange", "convert", "deliver", "dequantize", "quantize", "write_out"]

#: Receives the text of a warning.
Warn = Callable[[str], None]

_INTEGERS: Final = (int, np.integer, np.bool_)
_REALS: Final = (*_INTEGERS, float, np.floating)


class Converted(NamedTuple):
    """An array as the model takes it."""

    array: np.ndarray  #: of exactly the tensor's dtype and a shape that fits, C-contiguous, native
    real: bool  #: real numbers were given to a quantised tensor


def arrange(inputs: Any, names: Sequence[str], specs: Sequence[TensorSpec]) -> list[Any]:
    """Return what was given for each input, in the model's order, not yet converted.

    Args:
        inputs: an array for one input; a list or tuple in the model's order; or a mapping by name. For
            one input, a list that is not exactly one fitting array is nested numbers.
        names: what a mapping may call the inputs: unique, in the model's order.
        specs: the inputs.

    Raises:
        InputError: nothing given; a wrong number of inputs; a name is missing or unknown.
    """
    if isinstance(inputs, Mapping):
        _check_names(inputs, names, "input")
        return [inputs[name] for name in names]
    listed = isinstance(inputs, (list, tuple))
    if inputs is not None and len(specs) == 1:
        single = listed and len(inputs) == 1 and isinstance(inputs[0], np.ndarray)
        return [inputs[0] if single and _fitted(inputs[0], specs[0].shape) is not None else inputs]
    if listed and len(inputs) == len(specs):
        return list(inputs)
    takes = ", ".join(f"{name!r} ({_expected(spec)})" for name, spec in zip(names, specs, strict=True))
    given = f"{len(inputs)} of them" if listed else _given(inputs)
    text = f"the model takes {len(specs)} input(s): {takes or 'none'}; given: {given}"
    raise InputError(text, remedy="give a list in this order, or a mapping by name")


def convert(value: Any, spec: TensorSpec, warn: Warn) -> Converted:
    """Return a value as the exact array an input tensor takes, without a copy where it fits already.

    Args:
        value: an array, a number, nested lists, or anything else numpy can read.
        spec: the tensor. A dimension of -1 takes any size but 0; one missing batch dimension is added
            where the tensor's first is 1 or -1.
        warn: called when more than 1 % of the real numbers lie outside what the tensor can express,
            and when a 0-255 image goes to a float tensor as it is.

    Raises:
        InputError: the shape does not fit; the tensor can't hold a value (out of range, not exact, no
            longer finite, NaN if quantised); uint8 for int8 or back; masked or other kinds of values.
    """
    same = type(value) is np.ndarray and value.dtype == spec.dtype
    # The stored shape fits as well: only sizes that may be any differ from it, and it has no 0.
    if (
        same
        and (value.shape == spec.shape or (value.size and value.shape == spec.static_shape))
        and value.flags.carray
        and not value.dtype.hasobject
    ):
        return Converted(value, False)
    try:
        array = _strings(value, spec) if spec.dtype.kind == "O" else _numbers(value, spec)
        given = _fitted(array, spec.shape)
        if given is None:
            raise _refusal(spec, _given(array), "no dimension may be 0" if 0 in array.shape else "")
        real = given.dtype.kind == "f" and spec.dtype.kind in "iub"
        if given.dtype == spec.dtype:
            array = given
        elif real:
            array, saturated = quantize(given, spec)
            if saturated > 0.01:
                warn(
                    f"input {spec.name!r} takes {_expected(spec)}; {saturated:.1%} of the values lie outside"
                )
        else:
            array = _floats(given, spec, warn) if spec.dtype.kind == "f" else _integers(given, spec)
    except (OverflowError, UnicodeEncodeError) as error:  # an int beyond every float; half a surrogate pair
        raise _refusal(spec, f"a value that can't be converted ({error})") from error
    return Converted(np.require(array, requirements=("C", "A")), real)


def quantize(real: np.ndarray, spec: TensorSpec) -> tuple[np.ndarray, float]:
    """Return ``rint(real / scale) + zero_point`` in the tensor's dtype, and the share that saturated.

    Args:
        real: real numbers in the tensor's shape. Halves round to even; infinities saturate.
        spec: a quantised tensor, with parameters for all of it or along one axis.

    Raises:
        InputError: the tensor isn't quantised, or NaN was given.
    """
    scale, zero_point = _parameters(spec, real)
    low, high = _limits(spec.dtype)
    with np.errstate(all="ignore"):
        steps = np.rint(real.astype(np.float64) / scale) + zero_point
    if np.isnan(steps).any():
        raise _refusal(spec, "NaN, which has no quantised value", "replace NaN before the call")
    saturated = np.count_nonzero((steps < low) | (steps > high)) / max(real.size, 1)
    top = float(high) if float(high) <= high else np.nextafter(float(high), 0.0)  # 64 bits: below 2.0**63
    return np.asarray(np.clip(steps, float(low), top)).astype(spec.dtype), saturated


def dequantize(array: np.ndarray, spec: TensorSpec) -> np.ndarray:
    """Return ``(array - zero_point) * scale`` as float32 in the array's shape.

    An array of a tensor that isn't quantised is returned as it is.
    """
    if not spec.quantized:
        return array
    wide = np.float32 if array.dtype.itemsize <= 2 else np.float64  # 16 bits are exact in float32
    scale, zero_point = (part.astype(wide) for part in _parameters(spec, array))
    return np.asarray((array.astype(wide) - zero_point) * scale, dtype=np.float32)


def deliver(
    arrays: Sequence[np.ndarray], names: Sequence[str], specs: Sequence[TensorSpec], dequantized: bool
) -> np.ndarray | dict[str, np.ndarray]:
    """Return a model's outputs as ``predict`` does: one array, or a dict in the model's order.

    Args:
        arrays: one per output.
        names: unique, one per output.
        specs: the outputs.
        dequantized: return quantised outputs as float32; all others keep the tensor's dtype.
    """
    if dequantized:
        arrays = [dequantize(array, spec) for array, spec in zip(arrays, specs, strict=True)]
    return arrays[0] if len(arrays) == 1 else dict(zip(names, arrays, strict=True))


def write_out(result: np.ndarray | dict[str, np.ndarray], out: Any) -> Any:
    """Copy what :func:`deliver` returned into the caller's buffers, and return ``out``.

    Args:
        result: one array, or a dict by name.
        out: an array for one output, else a mapping of arrays by name, of exactly the outputs' dtypes
            and shapes. Nothing is written unless every buffer fits.

    Raises:
        InputError: a buffer is missing, unknown, read-only, or of another dtype or shape.
    """
    if not isinstance(result, dict):
        pairs = [("the model's output", result, out)]
    elif isinstance(out, Mapping):
        _check_names(out, list(result), "output")
        pairs = [(f"output {name!r}", array, out[name]) for name, array in result.items()]
    else:
        raise InputError(f"out: a mapping with the outputs {list(result)} expected; given: {_given(out)}")
    for label, array, buffer in pairs:
        plain = isinstance(buffer, np.ndarray) and not isinstance(buffer, np.ma.MaskedArray)
        same = plain and (buffer.dtype, buffer.shape) == (array.dtype, array.shape)
        if not same or not buffer.flags.writeable:
            given = f"{'read-only ' if same else ''}{_given(buffer)}"
            raise InputError(f"out for {label}: a writeable {_given(array)} expected; given: {given}")
    for _, array, buffer in pairs:
        np.copyto(buffer, array)
    return out


def _check_names(given: Mapping[Any, Any], names: Sequence[str], what: str) -> None:
    if len(set(names)) != len(names):
        raise InputError(f"the {what}s {list(names)} have no unique names", remedy="give a list instead")
    if unknown := [str(name) for name in given if name not in names]:
        close = difflib.get_close_matches(unknown[0], names, n=1, cutoff=0.4)
        remedy = f"use {close[0]!r}" if close else ""
        raise InputError(f"no {what} is named {unknown[0]!r}; the {what}s are {list(names)}", remedy=remedy)
    if missing := [name for name in names if name not in given]:
        raise InputError(f"missing {what}(s) {missing}; the {what}s are {list(names)}, given: {list(given)}")


def _given(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype.name} of shape {list(value.shape)}"
    return "None" if value is None else type(value).__name__


def _expected(spec: TensorSpec) -> str:
    text = f"{spec.type} of shape {list(spec.shape)}"
    if not spec.quantized:
        return text
    scale, zero_point = _parameters(spec)
    least, most = (np.subtract(limit, zero_point) * scale for limit in _limits(spec.dtype))
    return f"{text}, quantised, real numbers from {least.min():.6g} to {most.max():.6g}"


def _refusal(spec: TensorSpec, given: str, remedy: str = "") -> InputError:
    return InputError(f"input {spec.name!r} takes {_expected(spec)}; given: {given}", remedy=remedy)


def _limits(dtype: np.dtype) -> tuple[int, int]:
    return (0, 1) if dtype.kind == "b" else (int(np.iinfo(dtype).min), int(np.iinfo(dtype).max))


def _parameters(spec: TensorSpec, array: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return scale and zero point in float64, ready to broadcast against an array."""
    if spec.quantization is None or not spec.quantized:
        raise _refusal(spec, "floats, but it is not quantised: integers are expected", "convert them first")
    scales, points, axis = spec.quantization.scales, spec.quantization.zero_points, spec.quantization.axis
    shape = [] if len(scales) == 1 else [len(scales)]
    if shape and array is not None:
        if array.shape[axis : axis + 1] != (len(scales),):
            raise _refusal(spec, f"{_given(array)}, for {len(scales)} scales along axis {axis}")
        shape += [1] * (array.ndim - axis - 1)
    scale = np.array(scales, dtype=np.float64)
    return scale.reshape(shape), np.resize(np.array(points, dtype=np.float64), scale.shape).reshape(shape)


def _fitted(array: np.ndarray, takes: tuple[int, ...]) -> np.ndarray | None:
    """Return the array, with the batch dimension it may lack; None where its shape does not fit."""
    if array.ndim == len(takes) - 1:
        array = array[np.newaxis]
    pairs = zip(array.shape, takes, strict=False)
    fits = array.ndim == len(takes) and all(size == take or (take == -1 and size > 0) for size, take in pairs)
    return array if fits else None


def _has_masked(value: Any) -> bool:
    level = [value]
    for _ in range(64):  # dimensions numpy has at most
        kinds = set(map(type, level))
        if any(issubclass(kind, np.ma.MaskedArray) for kind in kinds) and any(map(np.ma.is_masked, level)):
            return True
        if not any(issubclass(kind, (list, tuple)) for kind in kinds):
            break
        level = list(chain.from_iterable(part for part in level if isinstance(part, (list, tuple))))
    return False


def _read(value: Any, spec: TensorSpec, dtype: Any = None) -> np.ndarray:
    """Return a value as numpy reads it, as a plain array in native byte order."""
    if value is None or _has_masked(value):
        raise _refusal(spec, "None" if value is None else "masked values", "fill them before the call")
    try:
        array = np.asarray(value, dtype=dtype)
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:  # also what __array__ may raise
        raise _refusal(spec, f"a {type(value).__name__} that is no array ({error})") from error
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def _numbers(value: Any, spec: TensorSpec) -> np.ndarray:
    """Return booleans, integers, floats or the tensor's dtype; Python ints past 64 bits as objects."""
    array = _read(value, spec)
    python = isinstance(value, (list, tuple, int))  # numpy reads [2**63, -1] as floats, 2**64 as an object
    rounded = python and array.dtype == np.float64 and float(np.abs(array).max(initial=0)) >= 2.0**63
    if rounded or (python and array.dtype.kind == "O"):
        items = _read(value, spec, object)
        flat = [item[()] if isinstance(item, np.ndarray) else item for item in items.ravel().tolist()]
        if all(isinstance(item, _INTEGERS) for item in flat):
            items.reshape(-1)[:] = [int(item) for item in flat]
            return items
        if all(isinstance(item, _REALS) for item in flat):
            return items.astype(np.float64)
    if array.dtype.kind not in "biuf" and array.dtype != spec.dtype:
        raise _refusal(spec, _given(array))
    return array


def _floats(given: np.ndarray, spec: TensorSpec, warn: Warn) -> np.ndarray:
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        array = given.astype(spec.dtype)
    if given.dtype.kind == "f":
        lost = given[np.isfinite(given) & ~np.isfinite(array)].tolist()
    else:
        exact = 2 ** (np.finfo(spec.dtype).nmant + 1)  # up to here every integer is
        fits = -exact <= int(given.min(initial=0)) and int(given.max(initial=0)) <= exact
        pairs = () if fits else zip(given.ravel().tolist(), array.ravel().tolist(), strict=True)
        lost = [before for before, after in pairs if before != after]  # Python compares int and float exactly
    if lost:
        raise _refusal(
            spec, f"{lost[0]}, which is not {'finite' if given.dtype.kind == 'f' else 'exact'} in it"
        )
    shaped = given.ndim == 4 or (given.ndim == 3 and min(given.shape[:2]) > 1)
    image = shaped and given.shape[-1] in (1, 3, 4)
    if image and given.dtype == np.uint8 and given.max(initial=0) > 1:
        text = f"a uint8 image was given, and its values up to {given.max()} are passed as they are"
        warn(f"input {spec.name!r} takes {_expected(spec)}: {text}; images.fit with mean and std scales it")
    return array


def _integers(given: np.ndarray, spec: TensorSpec) -> np.ndarray:
    if spec.dtype.kind not in "iub":
        raise _refusal(spec, _given(given), f"give a {spec.type} array")
    if spec.quantized and {given.dtype, spec.dtype} == {np.dtype(np.int8), np.dtype(np.uint8)}:
        sign = "-" if spec.dtype == np.int8 else "+"
        remedy = f"shift it by the offset 128, (array.astype(np.int16) {sign} 128).astype(np.{spec.type})"
        raise _refusal(spec, _given(given), f"{remedy}, or use images.fit for an image")
    low, high = _limits(spec.dtype)
    least, most = int(given.min(initial=0)), int(given.max(initial=0))
    if least < low or most > high:
        raise _refusal(spec, f"integers from {least} to {most}, outside {low} to {high}")
    return given.astype(spec.dtype)


def _strings(value: Any, spec: TensorSpec) -> np.ndarray:
    """Return an object array of bytes."""
    if spec.type != "string":
        raise _refusal(spec, _given(value), f"numpy has no {spec.type}: convert the model's input type")
    array = _read(value, spec, object)
    items = array.ravel().tolist()
    if wrong := {type(item).__name__ for item in items if not isinstance(item, (str, bytes))}:
        raise _refusal(spec, f"values of {', '.join(sorted(wrong))}, where str or bytes are expected")
    if any(type(item) is not bytes for item in items):
        array = np.empty(array.shape, dtype=object)
        array.reshape(-1)[:] = [item.encode() if isinstance(item, str) else bytes(item) for item in items]
    return array

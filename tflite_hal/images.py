"""Pictures in, labels out: an array that ``predict`` takes, and the best classes by name.

Reading and resizing pictures needs Pillow (``pip install 'tflite-hal[image]'``).
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from tflite_hal.errors import InputError
from tflite_hal.model import TensorSpec
from tflite_hal.tensors import dequantize, quantize

__all__ = ["fit", "read_labels", "top"]

_MODES: Final = {1: "L", 3: "RGB", 4: "RGBA"}
_QUANTIZED: Final = (np.dtype(np.uint8), np.dtype(np.int8), np.dtype(np.int16))


def fit(
    image: Any,
    spec: TensorSpec,
    *,
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
) -> np.ndarray[Any, Any]:
    """Return a picture as an array of a tensor's shape and dtype, as ``predict`` takes it.

    The whole picture is resized, its aspect ratio not kept (Pillow's bilinear, which averages when it
    shrinks), turned as its EXIF orientation says, and made grey, RGB or RGBA as the tensor has 1, 3 or 4
    channels. Transparency is dropped, not blended; 16-bit grey keeps its upper 8 bits.

    Pixels are 0 to 255. The real value of one is ``(pixel - mean) / std``, with ``mean`` 0 and ``std`` 1
    for the one that is None. What the tensor gets:

    * float: the real value. One of them must be given, since the file does not say which values a model
      was trained on: most want ``mean=0, std=255`` (0 to 1) or ``mean=127.5, std=127.5`` (-1 to 1);
      ``std=1`` leaves 0.0 to 255.0.
    * integer, neither given: the pixels as they are; for int8 ``pixel - 128``, the int8 twin of raw
      pixels, whatever the scale. A quantised int16 tensor has no such twin: it needs ``mean`` or ``std``.
    * quantised uint8, int8 or int16, either given (even as 0 or 1): ``round(real / scale) + zero_point``,
      halves to even, clipped to the dtype's range; more than 1 % clipped is a ``UserWarning``.

    Args:
        image: path, ``PIL.Image`` or uint8 array H×W, H×W×1, H×W×3 (RGB) or H×W×4 (RGBA).
        spec: the input, a ``TensorSpec``: ``[1, H, W, C]``, ``[H, W, C]``, ``[1, H, W]`` or ``[H, W]``; a
            last size of 1, 3 or 4 in rank 3 is C. A size of -1 becomes the picture's, for the batch 1.
        mean: subtracted from pixels, so in units of 0 to 255; one value or one per channel.
        std: divides after that; one value or one per channel.

    Raises:
        InputError: Pillow is not installed, the picture can't be read, the tensor is not shaped as an
            image or of no such dtype, or ``mean`` and ``std`` don't fit it or are needed.
    """
    if isinstance(spec, Sequence) and not hasattr(spec, "quantization"):
        raise InputError("spec is a sequence, not one input", remedy="give one of them: runner.inputs[0]")
    layout = _layout(spec)
    sizes = dict(zip(layout, spec.shape, strict=True))
    channels = sizes.get("C", 1)
    offset, divisor = _per_channel("mean", mean, 0.0, channels), _per_channel("std", std, 1.0, channels)
    raw = mean is None and std is None
    _check_dtype(spec, raw)
    pixels = _pixels(image, sizes["H"], sizes["W"], channels)
    final = {"N": 1, "H": pixels.shape[0], "W": pixels.shape[1], "C": channels}
    shape = [final[letter] for letter in layout]
    if raw and spec.dtype.kind in "iu":
        return _raw(pixels, spec.dtype).reshape(shape)
    real = ((pixels - offset) / divisor).reshape(shape)
    if spec.dtype.kind == "f":
        return np.asarray(real, spec.dtype)
    stored, clipped = _quantize(real, spec)
    if clipped > 0.01:
        text = f"the picture's values {real.min():.4g} to {real.max():.4g} do not fit input {spec.name!r}"
        scaling = f"mean={mean} and std={std} may not be this model's"
        warnings.warn(f"{text}: {clipped:.1%} of them are clipped; {scaling}", stacklevel=2)
    return stored


def _layout(spec: TensorSpec) -> str:
    """Return what each size of the tensor is: a letter each of batch N, height H, width W, channels C."""
    shape = tuple(spec.shape)
    last, batch = shape[-1:], shape[:1]
    if any(size == 0 or size < -1 for size in shape):
        layout = ""
    elif len(shape) == 4:
        layout = "NHWC" if batch[0] in (1, -1) and last[0] in _MODES else ""
    elif len(shape) == 3:
        layout = "HWC" if last[0] in _MODES else "NHW" if batch[0] in (1, -1) else ""
    else:
        layout = "HW" if len(shape) == 2 else ""
    if not layout:
        raise _no_image(spec.name, shape)
    return layout


def _no_image(name: str, shape: tuple[int, ...]) -> InputError:
    first = len(shape) in (3, 4) and shape[-3] in _MODES and shape[-1] not in _MODES
    reason = "has its channels first: channels last is expected" if first else "is no image"
    remedy = "convert the model to channels last, or make the array yourself" if first else ""
    wanted = "give an input of [1, height, width, channels] with 1, 3 or 4 channels"
    return InputError(f"input {name!r} of shape {list(shape)} {reason}", remedy=remedy or wanted)


def _per_channel(name: str, value: Any, default: float, channels: int) -> np.ndarray[Any, Any]:
    """Return one number, or one per channel."""
    try:
        array = np.asarray(default if value is None else value, np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name}={value!r} is not a number or one per channel") from error
    if array.ndim > 1 or array.size not in (1, channels):
        raise InputError(f"{name}={value!r} is not one number or one for each of {channels} channels")
    if not np.isfinite(array).all() or (name == "std" and not array.all()):
        raise InputError(f"{name}={value!r} must be finite{' and other than 0' if name == 'std' else ''}")
    return array


def _check_dtype(spec: TensorSpec, raw: bool) -> None:
    """Refuse what has no meaning for the tensor."""
    what, quantized = f"input {spec.name!r} is {spec.dtype}", spec.quantization is not None
    if spec.dtype.kind not in "fiu":
        raise InputError(f"{what}: pictures are numbers")
    if raw and spec.dtype.kind == "f":
        remedy = (
            "give mean=0, std=255 for values of 0 to 1, mean=127.5, std=127.5 for -1 to 1, std=1 for 0 to 255"
        )
        raise InputError(f"{what}, and the file does not say how its pixels are scaled", remedy=remedy)
    if spec.dtype.kind == "f":
        return
    if quantized and spec.dtype not in _QUANTIZED:
        raise InputError(f"{what} and quantised: pictures can be uint8, int8 or int16")
    if not raw and not quantized:
        raise InputError(f"{what} without a scale: mean and std have no meaning", remedy="leave them out")
    if raw and quantized and spec.dtype == np.int16:
        raise InputError(f"{what} and quantised: raw pixels mean nothing to it", remedy="give mean and std")


def _pixels(image: Any, height: int, width: int, channels: int) -> np.ndarray[Any, Any]:
    """Return a picture as uint8 H×W×C; -1 keeps its own size."""
    picture = _open(image, _MODES[channels])
    size = (picture.width if width == -1 else width, picture.height if height == -1 else height)
    if picture.size != size:
        from PIL import Image

        picture = picture.resize(size, Image.Resampling.BILINEAR)
    return np.asarray(picture, np.uint8).reshape(size[1], size[0], channels)


def _open(image: Any, mode: str) -> Any:
    """Return a PIL image of the mode, upright."""
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        remedy = "pip install 'tflite-hal[image]'"
        raise InputError("reading pictures needs Pillow", remedy=remedy) from error
    if isinstance(image, np.ndarray):
        return _converted(Image.fromarray(_checked(image)), mode)
    path = None if isinstance(image, Image.Image) else _path(image)
    try:
        if path is None:
            return _converted(ImageOps.exif_transpose(image), mode)
        with Image.open(path) as opened:
            return _converted(ImageOps.exif_transpose(opened), mode)
    except InputError:
        raise
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        # Pillow's readers report damage by any of these.
        name = "the picture" if path is None else f"{path!s}"
        said = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise InputError(f"{name} can't be read as a picture: {said}") from error


def _path(image: Any) -> Any:
    try:
        return os.fspath(image)
    except TypeError as error:
        kind = type(image).__name__
        raise InputError(f"a picture is a path, a PIL image or a uint8 array, not {kind}") from error


def _checked(image: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    if image.ndim == 3 and image.shape[2] == 1:
        image = image[:, :, 0]
    shaped = image.ndim == 2 or (image.ndim == 3 and image.shape[2] in (3, 4))
    if image.dtype != np.uint8 or not shaped or not image.size:
        given = f"{image.dtype} {list(image.shape)}"
        raise InputError(f"a picture as an array is uint8 of height×width[×1, 3 or 4], not {given}")
    return image


def _converted(picture: Any, mode: str) -> Any:
    from PIL import Image

    if picture.mode.startswith("I;16"):
        picture = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))  # Pillow would clip
    if picture.mode in ("I", "F"):
        raise InputError(
            f"a picture of mode {picture.mode} has no known range", remedy="convert it to 8 bits first"
        )
    if picture.mode == "P" and "transparency" in picture.info:
        picture = picture.convert("RGBA")  # straight from a palette Pillow warns
    return picture.convert(mode)


def _raw(pixels: np.ndarray[Any, Any], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    return (pixels.astype(np.int16) - 128).astype(np.int8) if dtype == np.int8 else pixels.astype(dtype)


def _quantize(real: np.ndarray[Any, Any], spec: TensorSpec) -> tuple[np.ndarray[Any, Any], float]:
    """Store real values as the tensor does; also return the share that was clipped."""
    if spec.quantization is None:
        raise InputError(f"input {spec.name!r} is not quantised")
    scales = np.asarray(spec.quantization.scales)
    if not (np.isfinite(scales).all() and (scales > 0).all()):
        raise InputError(f"input {spec.name!r} has a scale that is not positive")
    stored, clipped = quantize(real, spec)
    if clipped:  # a step beyond the end is rounding: 1.0 where the tensor ends at 127/128
        clipped = float(np.mean(np.abs(dequantize(stored, spec) - real) > 1.5 * scales.max()))
    return stored, clipped


def top(scores: Any, labels: Sequence[str] | None = None, k: int = 5) -> list[tuple[str, float]]:
    """Return the ``k`` best classes as (label, score), the best first; all where there are fewer.

    Of equal scores the one of the lower index comes first; NaN comes last.

    Args:
        scores: N or 1×N integers or floats; they come back as ``float`` in the same units.
        labels: N names, as :func:`read_labels` gives; None names them ``class 17``. One more or less is not
            taken for a background.
        k: how many, at least 1.

    Raises:
        InputError: the scores are no such array, ``labels`` is a path or not as many, or ``k`` is below 1.
    """
    if isinstance(scores, Mapping):
        names = ", ".join(repr(name) for name in scores)
        raise InputError("scores is a mapping, not one output", remedy=f"give the value of one of: {names}")
    array = np.asarray(scores)
    if array.ndim == 2 and array.shape[0] == 1:
        array = array[0]
    if array.ndim != 1 or array.dtype.kind not in "fiu" or not array.size:
        raise InputError(f"scores are N or 1×N numbers, not {array.dtype} {list(array.shape)}")
    if isinstance(labels, (str, bytes, os.PathLike)):
        remedy = "read the file's labels with images.read_labels(path)"
        raise InputError(f"labels={labels!r} is text or a path, not the names themselves", remedy=remedy)
    if labels is not None and len(labels) != len(array):
        remedy = "use the labels that belong to this model"
        raise InputError(f"{len(labels)} labels for {len(array)} scores", remedy=remedy)
    if not isinstance(k, (int, np.integer)) or k < 1:
        raise InputError(f"k={k!r} is not a whole number of at least 1")
    # ~ turns the order of integers round without overflow or rounding.
    falling = -array if array.dtype.kind == "f" else ~array
    best = np.argsort(falling, kind="stable")[:k].tolist()
    return [(f"class {i}" if labels is None else str(labels[i]), float(array[i])) for i in best]


def read_labels(path: str | os.PathLike[str]) -> list[str]:
    """Return the labels of a UTF-8 text file, one per line.

    Where every line starts with its own number, counted from 0 (``0 background``, ``0: background``), the
    numbers are taken off. Blank lines at the end are no labels; others are empty ones, to keep the count.

    Raises:
        InputError: the file can't be read, is not UTF-8, or has no labels; names the file.
    """
    try:
        text = Path(path).read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        reason = f"{os.fspath(path)} can't be read as labels: {error.reason} at byte {error.start}"
        raise InputError(reason, remedy="give a text file in UTF-8") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        said = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise InputError(f"{os.fspath(path)} can't be read as labels: {said}") from error
    if not text.strip():
        raise InputError(f"{os.fspath(path)} has no labels")
    # Not splitlines: that takes form feeds and the like for ends of lines too, which moves all labels after.
    lines = [line.strip() for line in text.rstrip().split("\n")]
    numbered = [re.match(rf"{number}(?:\s*:\s*|\s+)(?=\S)", line) for number, line in enumerate(lines)]
    bare = [line[found.end() :] for line, found in zip(lines, numbered, strict=True) if found]
    return bare if len(bare) == len(lines) else lines

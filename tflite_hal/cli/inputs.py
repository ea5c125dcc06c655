"""What the commands read: arrays, archives of arrays, pictures."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tflite_hal import images
from tflite_hal.errors import InputError
from tflite_hal.model import Interface, TensorSpec
from tflite_hal.tensors import arrange
from tflite_hal.trial import seeded_inputs

__all__ = ["read_inputs", "read_options", "read_samples"]

_PICTURES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".tif", ".tiff"}


def read_options(given: Sequence[str]) -> dict[str, Any]:
    """Return options for a delegate from texts "NAME=VALUE"; a value is JSON (true, 3, 0.5) or else text.

    Raises:
        InputError: one is no such text, or a name comes twice.
    """
    options: dict[str, Any] = {}
    for one in given:
        name, sign, text = one.partition("=")
        if not (name and sign) or name in options:
            raise InputError(f"--option {one!r} is not NAME=VALUE with another name each")
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        options[name] = text if isinstance(value, (dict, list)) or value is None else value
    return options


def read_inputs(
    sources: Sequence[str], specs: Sequence[TensorSpec], mean: float | None, std: float | None
) -> Any:
    """Return what ``predict`` takes: from files, or seeded random arrays where there are none.

    Raises:
        InputError: a file can't be read, there are not as many as inputs, or a scaling without a picture.
    """
    pictures = [source for source in sources if _suffix(source) in _PICTURES]
    if not pictures and (mean is not None or std is not None):
        remedy = "give a picture as --input, or scale the arrays yourself"
        raise InputError("--mean and --std are for pictures, and no input is one", remedy=remedy)
    if not sources:
        return seeded_inputs(specs)
    if len(sources) == 1 and _suffix(sources[0]) == ".npz":
        return _load_archive(sources[0])
    if len(sources) != len(specs):
        raise InputError(f"{len(sources)} --input for a model with {len(specs)} inputs")
    given = [_read_input(source, spec, mean, std) for source, spec in zip(sources, specs, strict=True)]
    return given[0] if len(given) == 1 else given


def read_samples(source: str, interface: Interface) -> list[list[Any]]:
    """Return samples of an archive, each with an array per input in the model's order.

    An array of an input's own shape is one sample; where other inputs have more, it goes with each.

    Raises:
        InputError: the file can't be read, a name or shape is none of the model's, or the numbers of
            samples differ.
    """
    given, specs = _load_archive(source), interface.inputs
    if isinstance(given, list) and len(given) != len(specs):
        raise InputError(f"{source} has {len(given)} arrays for a model with {len(specs)} inputs")
    if not isinstance(given, list):
        given = arrange(interface.renamed(given), interface.input_names, specs)
    parts = [_samples_of(source, array, spec) for array, spec in zip(given, specs, strict=True)]
    most = max((len(part) for part in parts), default=1)
    counts = [f"{len(part)} of {spec.name!r}" for part, spec in zip(parts, specs, strict=True)]
    if any(len(part) not in (1, most) for part in parts):
        raise InputError(f"{source} has {', '.join(counts)}", remedy="give as many samples of each input")
    return [[part[number % len(part)] for part in parts] for number in range(most)]


def _samples_of(source: str, array: np.ndarray[Any, Any], spec: TensorSpec) -> list[np.ndarray[Any, Any]]:
    """Return the samples that an array holds."""

    def fits(given: Sequence[int], wanted: Sequence[int]) -> bool:
        return len(given) == len(wanted) and all(b in (-1, a) for a, b in zip(given, wanted, strict=True))

    samples = [array]
    if array.ndim and fits(array.shape[1:], spec.shape):
        samples = list(array)
    elif spec.shape[:1] in ((1,), (-1,)) and fits(array.shape[1:], spec.shape[1:]):
        # A batch counts samples: candidates are tried on one at a time.
        samples = [array[number : number + 1] for number in range(len(array))]
    elif not fits(array.shape, spec.shape):
        inner = ", ".join(str(size) for size in spec.shape)
        takes = f"[{inner}] or [samples, {inner}]"
        raise InputError(f"{source}: input {spec.name!r} takes {takes}; given: {list(array.shape)}")
    if not samples:
        raise InputError(f"{source}: no sample of input {spec.name!r}")
    return samples


def _suffix(source: str) -> str:
    return Path(source).suffix.lower()


def _read_input(source: str, spec: TensorSpec, mean: float | None, std: float | None) -> Any:
    suffix = _suffix(source)
    if suffix == ".npy":
        return _load_array(source)
    if suffix in _PICTURES:
        scaling = {name: value for name, value in (("mean", mean), ("std", std)) if value is not None}
        return images.fit(source, spec, **scaling)
    known = " ".join(sorted(_PICTURES))
    reason = f"{source}: not a .npy or .npz file or a picture, by its name"
    raise InputError(reason, remedy=f"give a file that ends in .npy .npz {known}")


def _load_array(source: str) -> np.ndarray[Any, Any]:
    try:
        with Path(source).open("rb") as file:
            return np.lib.format.read_array(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{source} can't be read as an array: {_said(error)}") from error


def _said(error: Exception) -> str:
    """Return what went wrong, without the name of the file once more."""
    return error.strerror if isinstance(error, OSError) and error.strerror else str(error)


def _load_archive(source: str) -> Any:
    """Return arrays by name; in order, where ``np.savez`` was given no names."""
    arrays = _read_archive(source)
    unnamed = [f"arr_{number}" for number in range(len(arrays))]
    return [arrays[name] for name in unnamed] if arrays and set(arrays) == set(unnamed) else arrays


def _read_archive(source: str) -> dict[str, np.ndarray[Any, Any]]:
    try:
        with zipfile.ZipFile(source) as archive:
            names = [name for name in archive.namelist() if name.endswith(".npy")]
            return {name[: -len(".npy")]: _member(archive, name) for name in names}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{source} can't be read as an archive of arrays: {_said(error)}") from error


def _member(archive: zipfile.ZipFile, name: str) -> np.ndarray[Any, Any]:
    with archive.open(name) as file:
        return np.lib.format.read_array(file, allow_pickle=False)

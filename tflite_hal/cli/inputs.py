"""What the commands read: arrays, archives of arrays, pictures."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tflite_hal import images
from tflite_hal.errors import InputError
from tflite_hal.model import TensorSpec
from tflite_hal.trial import seeded_inputs

__all__ = ["read_inputs"]

_PICTURES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".tif", ".tiff"}


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

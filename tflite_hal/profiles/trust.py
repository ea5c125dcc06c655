"""The rule of :mod:`tflite_hal.trust` for profiles: what names libraries is code."""

from __future__ import annotations

from pathlib import Path

from tflite_hal.errors import ProfileError
from tflite_hal.profiles.document import At
from tflite_hal.trust import Distrust, distrust_file, distrust_place

__all__ = ["require_owned", "require_owned_file"]


def require_owned_file(file: Path, at: At) -> None:
    """Raise unless only the user and root can change a file, or put another in its place."""
    _require(distrust_file(file), at)


def require_owned(path: Path, at: At) -> None:
    """Raise unless only the user and root can change ``path``, whatever the folders above it allow."""
    _require(distrust_place(path), at)


def _require(found: Distrust | None, at: At) -> None:
    if found is not None:
        raise ProfileError(f"{at}: {found.reason}", remedy=found.remedy)

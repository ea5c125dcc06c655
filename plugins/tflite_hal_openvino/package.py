"""Packages that are installed, found without importing them or their metadata."""

from __future__ import annotations

from importlib.machinery import PathFinder
from pathlib import Path
from typing import Final, NamedTuple

__all__ = ["INSTALL", "Installed", "installed", "version"]

INSTALL: Final = "pip install 'tflite-hal[openvino]'"


class Installed(NamedTuple):
    """A package in ``sys.path``."""

    version: str  #: "?" where unknown
    folder: Path
    information: Path  #: its ``.dist-info``


def installed(package: str) -> Installed | None:
    """Return what is installed under a package's name, None where nothing is."""
    spec = PathFinder.find_spec(package)
    if spec is None or spec.origin is None:  # without an origin: a mere folder of that name
        return None
    folder = Path(spec.origin).parent
    found = sorted(folder.parent.glob(f"{package}-*.dist-info"))
    if not found:
        return Installed("?", folder, folder)
    return Installed(found[-1].name.removesuffix(".dist-info").partition("-")[2], folder, found[-1])


def version() -> str | None:
    """Return the installed version of OpenVINO, None where there is none."""
    found = installed("openvino")
    return None if found is None else found.version

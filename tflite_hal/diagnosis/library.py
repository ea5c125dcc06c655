"""The library of a device, as it lies there: its place, its processor, and what it lacks."""

from __future__ import annotations

import posixpath
from pathlib import Path
from typing import NamedTuple

from tflite_hal.delegate import Device
from tflite_hal.external.elf import read_elf, read_needs
from tflite_hal.host import HostInfo

__all__ = ["Library", "examined"]


class Library(NamedTuple):
    """What was found of a library."""

    text: str  #: path, processor
    lacking: tuple[str, ...]  #: names of libraries that it needs and that are in no folder of the loader's


def examined(device: Device, host: HostInfo) -> Library | None:
    """Return what is known of the device's library, None where it has none.

    Of a captured machine only its path is known: what is packed of libraries is that they are there.
    """
    path = device.properties.get("library")
    if not isinstance(path, str) or not path:
        return None
    if not host.live:
        return Library(path, ())
    real, elf = str(Path(path).resolve()), read_elf(path, ())
    parts = [path if posixpath.basename(real) == posixpath.basename(path) else f"{path} ({real})"]
    parts += [elf.processor] if elf is not None else []
    return Library(", ".join(parts), _lacking(path, device, host))


def _lacking(path: str, device: Device, host: HostInfo) -> tuple[str, ...]:
    needs = read_needs(path)
    if needs is None:
        return ()
    needed, folders = needs
    named = str(device.properties.get("environment", {}).get("LD_LIBRARY_PATH", "")).split(":")
    preloaded = {posixpath.basename(str(one)) for one in device.properties.get("companions", ())}

    def is_there(name: str) -> bool:
        if name in preloaded or name.startswith("ld-"):  # the loader itself is where the kernel looks
            return True
        places = [folder for folder in (*folders, *named) if folder.startswith("/")]
        return bool(host.find_library(name, folders=places) or host.distrusted_library(name, folders=places))

    return tuple(name for name in needed if not is_there(name))

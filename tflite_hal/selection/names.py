"""The names by which delegates and devices are wanted or not: which there are, and what was mistyped."""

from __future__ import annotations

import difflib
import os
from collections.abc import Collection, Iterable, Mapping
from typing import Final

from tflite_hal.delegate import KINDS, Probe

__all__ = ["DELEGATES", "allowed_delegates", "hint", "unknown_exclusions"]

#: Names, with commas, the delegates that automatic choice may use where no argument does.
DELEGATES: Final = "TFLITE_HAL_DELEGATES"


def allowed_delegates() -> tuple[str, ...] | None:
    """Return the names of TFLITE_HAL_DELEGATES, in order; None where it is empty or not set."""
    names = [name.strip() for name in os.environ.get(DELEGATES, "").split(",")]
    return tuple(dict.fromkeys(filter(None, names))) or None


def hint(name: str, known: Iterable[str]) -> str:
    """Return the closest of the known names as a question, "" where none is close."""
    close = difflib.get_close_matches(name, list(known), 1)
    return f"did you mean {close[0]!r}? " if close else ""


def unknown_exclusions(
    exclude: Collection[str], probes: Mapping[str, Probe], plugins: Collection[str]
) -> list[str]:
    """Return a remark for each word of ``exclude=`` that rules nothing out because nothing has that name.

    An id (``usb:0``) is of a device that may come and go, and a plugin's name (of one that is disabled) may
    be its delegate's: neither is a mistake.
    """
    ids = {device.id for probe in probes.values() for device in probe.devices}
    known = {*probes, *plugins, *KINDS, *ids}
    return [
        f"exclude= has {name!r}, which is no delegate, device or kind here: "
        f"{hint(name, known) or 'it has no effect'}".rstrip()
        for name in exclude
        if name not in known and ":" not in name
    ]

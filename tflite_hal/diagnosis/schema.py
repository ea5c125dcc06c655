"""What ``tflite-hal probe --json`` prints, as a JSON Schema made of the types it is made of."""

from __future__ import annotations

import types
from collections.abc import Mapping
from typing import Any, Final, Union, get_args, get_origin, get_type_hints

from tflite_hal.delegate import KINDS, STAGES, Device, Probe, Problem
from tflite_hal.diagnosis.finding import Finding, Step
from tflite_hal.diagnosis.unreached import Unreached
from tflite_hal.host import Board, BusDevice, Cpu, Dmi, PlatformDevice, Thermal
from tflite_hal.manager import Plugin
from tflite_hal.runtime import RuntimeStatus

__all__ = ["report_schema"]

_Text = str | None
_Number = int | None
#: The report's own keys; the machine's are those of :meth:`tflite_hal.host.HostInfo.to_dict`.
_KEYS: Final[Mapping[str, Any]] = {
    "root": str, "live": bool, "arch": _Text, "cpu": Cpu, "memory_bytes": _Number,
    "memory_available_bytes": _Number, "memory_limit_bytes": _Number, "board": Board, "dmi": Dmi,
    "usb": tuple[BusDevice, ...], "pci": tuple[BusDevice, ...], "platform": tuple[PlatformDevice, ...],
    "nodes": tuple[str, ...], "os": _Text, "os_version": _Text, "os_id": tuple[str, ...], "kernel": _Text,
    "container": str, "virtual": str, "thermal": Thermal, "python": _Text, "pointer_bits": _Number,
    "page_size": _Number, "groups": tuple[str, ...] | None,
    "profile": _Text, "profile_errors": tuple[str, ...], "settings_errors": tuple[str, ...],
    "runtimes": tuple[RuntimeStatus, ...], "delegates": Mapping[str, Probe],
    "findings": tuple[Finding, ...], "unreached": tuple[Unreached, ...], "plugins": tuple[Plugin, ...],
}  # fmt: skip
#: What a text may be, where that is not any.
_WORDS: Final[Mapping[tuple[type, str], tuple[str, ...]]] = {
    (Device, "kind"): KINDS,
    (Problem, "kind"): (*KINDS, ""),
    (Problem, "stage"): tuple(STAGES),
    (Step, "stage"): tuple(STAGES),
    (Step, "state"): ("ok", "failed", "unknown"),
    (Finding, "kind"): (*KINDS, ""),
    (Finding, "state"): ("runs", "found", "blocked"),
    (Unreached, "kind"): KINDS,
    (RuntimeStatus, "state"): ("usable", "broken", "absent", "unchecked"),
}
_SCALARS: Final = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}


def report_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of a report."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "tflite-hal probe --json",
        **_object({name: _of(kind) for name, kind in _KEYS.items()}),
    }


def _object(properties: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(properties),
        "additionalProperties": False,
    }


def _of(kind: Any) -> dict[str, Any]:
    """Return the schema of what a type becomes in JSON."""
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return {}
    if origin in (Union, types.UnionType):
        return {"anyOf": [_of(one) for one in arguments]}
    if origin is tuple:
        return {"type": "array", "items": _of(arguments[0])}
    if origin is not None and issubclass(origin, Mapping):
        return {"type": "object", "additionalProperties": _of(arguments[1])}
    if kind in _SCALARS:
        return {"type": _SCALARS[kind]}
    fields = get_type_hints(kind)
    words = {name: _WORDS.get((kind, name)) for name in kind._fields}
    return _object(
        {name: {"enum": list(given)} if given else _of(fields[name]) for name, given in words.items()}
    )

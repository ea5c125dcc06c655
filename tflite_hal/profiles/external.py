"""Delegates that a profile describes: what stands under ``external``, by name.

The libraries are TensorFlow Lite's external delegates, opened by ``load_delegate``; a description names
the file, its options in the order in which it reads them, and how its device is seen. Nothing here is
code: :mod:`tflite_hal.external` makes a delegate of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from tflite_hal.profiles.checks import (
    KIND,
    LIMITS,
    OPTIONS,
    PROVENANCE_OF,
    TEXT,
    VARIABLES,
    Check,
    list_of,
    matching,
    one_of,
    option_value,
    record,
    schema_of,
    table_of,
    that,
)
from tflite_hal.profiles.document import At, show

__all__ = ["EXTERNAL"]

_TYPES: Final[Mapping[str, tuple[type, ...]]] = {
    "str": (str,),
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
}


def _option(name: str, value: Any, at: At) -> dict[str, Any]:
    """Check what an option may be, and that what is given for it is that."""
    option: dict[str, Any] = _OPTION(value, at)
    given = [("choices", one) for one in option.get("choices", ())]
    given += [("value", option["value"])] if "value" in option else []
    for key, one in given:
        option_value(name, one, at.child(key))
        if not isinstance(one, _TYPES[option["type"]]) or (
            isinstance(one, bool) and option["type"] != "bool"
        ):
            raise at.child(key).fail(option["type"], show(one))
    if "value" in option and option["value"] not in option.get("choices", (option["value"],)):
        raise at.child("value").fail("one of the choices", show(option["value"]))
    return option


def _described(value: Any, at: At) -> dict[str, Any]:
    fields: dict[str, Any] = _FIELDS(value, at)
    for index, device in enumerate(fields["devices"]):
        for name in device.get("options", ()):
            if name not in fields.get("options", ()):
                raise at.child("devices").child(index).fail("options that are declared", show(name))
    return fields


_true: Final = that(lambda value: value is True, "true, or leave it out", const=True)
_device_id: Final = matching(r"[a-z0-9]+(:[a-z0-9]+)?", 'an id such as "npu:0"')
_node: Final = matching(r"/dev/[A-Za-z0-9_*?./-]+", "a node below /dev; * and ? stand for any characters")
_file_name: Final = that(
    lambda value: isinstance(value, str) and value and ("/" not in value or Path(value).is_absolute()),
    "the name of a file, or an absolute path",
    type="string",
    minLength=1,
)
_folder: Final = that(
    lambda value: isinstance(value, str) and Path(value).is_absolute() and "$" not in value,
    "an absolute folder",
    type="string",
    minLength=1,
)
_anything: Final[Check] = lambda value, at: value  # noqa: E731 - checked by _option, which knows the type
_OPTION: Final = record(
    {
        "type": one_of(*_TYPES),
        "value": _anything,
        "choices": list_of(_anything),
        "required": _true,
        "help": TEXT,
    },
    "type",
)
_DEVICE: Final = record(
    {
        "id": _device_id,
        "kind": KIND,
        "name": TEXT,
        "arch": list_of(TEXT),
        "compatible": list_of(TEXT),
        "nodes": list_of(_node),
        "driver": list_of(TEXT),
        "remedy": TEXT,
        "options": OPTIONS,
    },
    "id",
)
_MODEL: Final = record({"custom": list_of(TEXT), "precision": list_of(TEXT), "remedy": TEXT})
_FIELDS: Final = record(
    {
        "title": TEXT,
        "kind": KIND,
        "libraries": list_of(_file_name),
        "search": list_of(_folder),
        "companions": list_of(_file_name),
        "options": table_of(TEXT, _option, schema_of(_OPTION)),
        "environment": VARIABLES,
        "runtimes": list_of(TEXT),
        "model": _MODEL,
        "devices": list_of(_DEVICE),
        "limits": LIMITS,
        "remedy": TEXT,
        **PROVENANCE_OF,
    },
    "title",
    "libraries",
    "devices",
    "provenance",
    "source",
)
_name: Final = matching(r"(?!builtin$)[a-z][a-z0-9_]*", "a name of a-z, 0-9 and _, and not builtin")

#: The check of a profile's ``external``.
EXTERNAL: Final[Check] = table_of(_name, lambda _, value, at: _described(value, at), schema_of(_FIELDS))

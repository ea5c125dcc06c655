"""Checks of plain values: each says which key of which file is wrong, and what was expected.

Each also knows what JSON Schema can say of the values it takes (:func:`schema_of`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias

from tflite_hal.errors import ProfileError
from tflite_hal.profiles.document import At, show
from tflite_hal.profiles.schema import PROVENANCE
from tflite_hal.trust import changes_loading, distrust_variable

__all__ = [
    "KIND",
    "LIMITS",
    "NAME",
    "OPTIONS",
    "PROVENANCE_OF",
    "TEXT",
    "VARIABLES",
    "Check",
    "Described",
    "all_of",
    "is_text",
    "list_of",
    "matching",
    "one_of",
    "option_value",
    "record",
    "schema_of",
    "table_of",
    "that",
]

_MAX_ENTRIES: Final = 100
_ANY: Final[Mapping[str, Any]] = {}

Check: TypeAlias = Callable[[Any, At], Any]


class Described:
    """A check, and what JSON Schema says of the values it takes."""

    __slots__ = ("_check", "schema")

    def __init__(self, check: Check, schema: Mapping[str, Any]) -> None:
        self._check = check
        self.schema = schema

    def __call__(self, value: Any, at: At) -> Any:  # noqa: D102 - a Check
        return self._check(value, at)


def schema_of(check: Check) -> dict[str, Any]:
    """Return the JSON Schema of what a check takes; {} takes anything."""
    return dict(check.schema) if isinstance(check, Described) else {}


def that(test: Callable[[Any], Any], expected: str, **schema: Any) -> Check:
    """Return a check that a value passes a test; ``schema`` is the same as JSON Schema."""

    def check(value: Any, at: At) -> Any:
        if not test(value):
            raise at.fail(expected, show(value))
        return value

    return Described(check, schema)


def matching(pattern: str, expected: str) -> Check:
    """Return a check of text by a pattern."""
    return that(
        lambda value: isinstance(value, str) and re.fullmatch(pattern, value),
        expected,
        type="string",
        pattern=f"^(?:{pattern})$",
    )


def one_of(*words: str) -> Check:
    """Return a check of text that is one of a few words."""
    return that(lambda value: isinstance(value, str) and value in words, " or ".join(words), enum=[*words])


def all_of(*checks: Check) -> Check:
    """Return checks one after the other."""

    def check(value: Any, at: At) -> Any:
        for one in checks:
            value = one(value, at)
        return value

    return Described(check, {"allOf": [schema_of(one) for one in checks]})


def is_text(value: Any) -> bool:
    """Whether a value is text without control characters."""
    return isinstance(value, str) and value.replace("\n", "").isprintable()


def list_of(item: Check) -> Check:
    """Return the check of a list whose entries differ; it gives a tuple."""

    def check(value: Any, at: At) -> tuple[Any, ...]:
        if not isinstance(value, list) or not 1 <= len(value) <= _MAX_ENTRIES:
            raise at.fail(f"a list of 1 to {_MAX_ENTRIES} entries", show(value))
        for index, entry in enumerate(value):
            if entry in value[:index]:
                raise at.child(index).fail("each entry once", show(entry))
        return tuple(item(entry, at.child(index)) for index, entry in enumerate(value))

    sizes = {"minItems": 1, "maxItems": _MAX_ENTRIES, "uniqueItems": True}
    return Described(check, {"type": "array", "items": schema_of(item), **sizes})


def record(known: Mapping[str, Check], *required: str) -> Check:
    """Return the check of a mapping with known keys."""

    def check(value: Any, at: At) -> dict[str, Any]:
        if not isinstance(value, dict) or not value:
            raise at.fail(f"a mapping with keys of {', '.join(known)}", show(value))
        for key in value:
            if key not in known:
                raise at.child(key).fail(f"a known key, {_nearest(key, known)}", show(key))
        for key in required:
            if key not in value:
                raise at.child(key).fail("this key", "nothing")
        return {key: known[key](item, at.child(key)) for key, item in value.items()}

    schema: dict[str, Any] = {"type": "object", "minProperties": 1, "additionalProperties": False}
    schema["properties"] = {key: schema_of(one) for key, one in known.items()}
    return Described(check, {**schema, "required": [*required]} if required else schema)


def _nearest(key: str, known: Iterable[str]) -> str:
    import difflib

    close = difflib.get_close_matches(key, known, 1, 0.5)
    return f"such as {close[0]!r}" if close else f"one of {', '.join(known)}"


def table_of(name: Check, entry: Callable[[str, Any, At], Any], of: Mapping[str, Any] = _ANY) -> Check:
    """Return the check of a mapping whose keys are the file's own; ``of`` is its entries' JSON Schema."""

    def check(value: Any, at: At) -> dict[str, Any]:
        if not isinstance(value, dict) or not value:
            raise at.fail("a mapping with at least one entry", show(value))
        return {name(key, at.child(key)): entry(key, item, at.child(key)) for key, item in value.items()}

    keys = {"propertyNames": schema_of(name), "additionalProperties": dict(of)}
    return Described(check, {"type": "object", "minProperties": 1, **keys})


_PATH_OPTION: Final = re.compile(r"library|path|(^|[^a-z])(file|dir|folder)([^a-z]|$)", re.IGNORECASE)


def option_value(name: str, value: Any, at: At) -> str | int | float | bool:
    """Check an option's value; one that names a file or folder must not depend on the working one."""
    if not isinstance(value, int | float) and not is_text(value):
        raise at.fail("text, a number, or true or false", show(value))
    absolute = not isinstance(value, str) or value.startswith("/") or Path(value).is_absolute()
    if value != "" and not absolute and _PATH_OPTION.search(name):
        raise at.fail("an absolute path", show(value))
    checked: str | int | float | bool = value
    return checked


def _variable(name: str, value: Any, at: At) -> str:
    """Check an environment variable; none may bring code from where others can write."""
    text = str(TEXT(value, at))
    if changes_loading(name):
        raise at.fail("a variable that does not change what programs load", name)
    found = distrust_variable(name, text)
    if found is not None:
        raise ProfileError(f"{at}: {found.reason}", remedy=found.remedy)
    return text


TEXT: Final = that(
    lambda value: is_text(value) and value.strip(),
    "text (in quotes, if it is a number)",
    type="string",
    pattern=r"\S",
)
#: Kinds of devices; as of :data:`tflite_hal.delegate.KINDS`, which is on a higher floor.
KIND: Final = one_of("tpu", "npu", "dsp", "gpu", "cpu")
NAME: Final = matching(r"[a-z0-9]+([._-][a-z0-9]+)*", "a name of a-z, 0-9 and - _ . between them")
VARIABLE_NAME: Final = matching(r"[A-Za-z_][A-Za-z0-9_]*", "the name of an environment variable")
SECONDS: Final = that(
    lambda n: isinstance(n, (int, float)) and not isinstance(n, bool) and 0 < n <= 86400,
    "seconds, up to a day",
    type="number",
    exclusiveMinimum=0,
    maximum=86400,
)
#: What every fact must tell: how it came to be known, and where it can be looked up.
PROVENANCE_OF: Final[Mapping[str, Check]] = {
    "provenance": one_of(*PROVENANCE),
    "source": list_of(TEXT),
}
LIMITS: Final = record({"open": SECONDS, "run": SECONDS})
OPTIONS: Final = table_of(TEXT, option_value, {"type": ["string", "number", "boolean"]})
VARIABLES: Final = table_of(VARIABLE_NAME, _variable, schema_of(TEXT))

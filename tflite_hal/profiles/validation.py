"""The checks a profile passes: each says which key of which file is wrong, and what was expected."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias

from tflite_hal.errors import ProfileError
from tflite_hal.profiles.document import At, parse_yaml, show
from tflite_hal.profiles.schema import PROVENANCE, DeviceProfile, Fact, Match
from tflite_hal.trust import changes_loading, distrust_variable

__all__ = ["FIELDS", "parse_profile"]

_MAX_ENTRIES: Final = 100

_Check: TypeAlias = Callable[[Any, At], Any]


def parse_profile(text: str, path: str) -> DeviceProfile:
    """Validate the text of a profile; ``path`` is for messages and for ``DeviceProfile.path``.

    Raises:
        ProfileError: names the file, the key path, what was expected and what was given.
    """
    at = At(path)
    fields = _record(FIELDS, "schema", "name", "title", "match", "sources")(parse_yaml(text, at), at)
    for key in _SOURCES:
        if key in fields and key not in fields["sources"]:
            raise at.child("sources").child(key).fail(f"the sources of {key!r}", "none")
    del fields["schema"]
    return DeviceProfile(**fields, path=path)


def _that(test: Callable[[Any], Any], expected: str) -> _Check:
    def check(value: Any, at: At) -> Any:
        if not test(value):
            raise at.fail(expected, show(value))
        return value

    return check


def _matching(pattern: str, expected: str) -> _Check:
    return _that(lambda value: isinstance(value, str) and re.fullmatch(pattern, value), expected)


def _all_of(*checks: _Check) -> _Check:
    def check(value: Any, at: At) -> Any:
        for one in checks:
            value = one(value, at)
        return value

    return check


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and all(char.isprintable() or char == "\n" for char in value)


def _list_of(item: _Check) -> _Check:
    def check(value: Any, at: At) -> tuple[Any, ...]:
        if not isinstance(value, list) or not 1 <= len(value) <= _MAX_ENTRIES:
            raise at.fail(f"a list of 1 to {_MAX_ENTRIES} entries", show(value))
        for index, entry in enumerate(value):
            if entry in value[:index]:
                raise at.child(index).fail("each entry once", show(entry))
        return tuple(item(entry, at.child(index)) for index, entry in enumerate(value))

    return check


def _record(known: Mapping[str, _Check], *required: str) -> _Check:
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

    return check


def _nearest(key: str, known: Iterable[str]) -> str:
    import difflib

    close = difflib.get_close_matches(key, known, 1, 0.5)
    return f"such as {close[0]!r}" if close else f"one of {', '.join(known)}"


def _table_of(name: _Check, entry: Callable[[str, Any, At], Any]) -> _Check:
    def check(value: Any, at: At) -> dict[str, Any]:
        if not isinstance(value, dict) or not value:
            raise at.fail("a mapping with at least one entry", show(value))
        return {name(key, at.child(key)): entry(key, item, at.child(key)) for key, item in value.items()}

    return check


_PATH_OPTION: Final = re.compile(r"library|path|(^|[^a-z])(file|dir|folder)([^a-z]|$)", re.IGNORECASE)


def _option(name: str, value: Any, at: At) -> str | int | float | bool:
    """Check an option's value; one that names a file or folder must not depend on the working one."""
    if not isinstance(value, int | float) and not _is_text(value):
        raise at.fail("text, a number, or true or false", show(value))
    absolute = not isinstance(value, str) or value.startswith("/") or Path(value).is_absolute()
    if value != "" and not absolute and _PATH_OPTION.search(name):
        raise at.fail("an absolute path", show(value))
    checked: str | int | float | bool = value
    return checked


def _variable(name: str, value: Any, at: At) -> str:
    """Check an environment variable; none may bring code from where others can write."""
    text = str(_text(value, at))
    if changes_loading(name):
        raise at.fail("a variable that does not change what programs load", name)
    found = distrust_variable(name, text)
    if found is not None:
        raise ProfileError(f"{at}: {found.reason}", remedy=found.remedy)
    return text


def _fact(*required: str) -> _Check:
    record = _record(
        {"text": _text, "provenance": _provenance, "source": _list_of(_text), "applies": _text}, *required
    )
    return lambda value, at: Fact(**{"text": "", **record(value, at)})


def _match(known: Mapping[str, _Check]) -> _Check:
    record = _record(known)
    return lambda value, at: Match(**record(value, at))


_text: Final = _that(lambda value: _is_text(value) and value.strip(), "text (in quotes, if it is a number)")
_name: Final = _matching(r"[a-z0-9]+([._-][a-z0-9]+)*", "a name of a-z, 0-9 and - _ . between them")
#: The runtime's own kernels are last in every choice, whatever the order says.
_delegate: Final = _all_of(
    _name, _that(lambda value: value != "builtin", "a delegate; builtin is always last")
)
_bus_id: Final = _matching(r"[0-9a-f]{4}:[0-9a-f]{4}", 'an id like "1a6e:089a", in lower case and quotes')
_variable_name: Final = _matching(r"[A-Za-z_][A-Za-z0-9_]*", "the name of an environment variable")
_provenance: Final = _that(lambda value: value in PROVENANCE, " or ".join(PROVENANCE))
_thread_count: Final = _that(lambda n: type(n) is int and 0 < n <= 1024, "a whole number from 1 to 1024")
_seconds: Final = _that(
    lambda n: isinstance(n, (int, float)) and not isinstance(n, bool) and 0 < n <= 86400,
    "seconds, up to a day",
)
_share: Final = _that(
    lambda n: isinstance(n, (int, float)) and not isinstance(n, bool) and 0 <= n <= 1, "a share from 0 to 1"
)
_grade: Final = _that(lambda value: value in ("ok", "degraded"), "ok or degraded")
_checks: Final = _record({"tolerance": _share, "accept": _grade})
_limits: Final = _record({"open": _seconds, "run": _seconds})
_options: Final = _table_of(_text, _option)
_variables: Final = _table_of(_variable_name, _variable)
_ALTERNATIVE: Final[dict[str, _Check]] = {
    **dict.fromkeys(("arch", "os", "dmi_vendor", "dmi_product"), _text),
    **dict.fromkeys(("compatible", "model_prefix", "features"), _list_of(_text)),
    **dict.fromkeys(("usb", "pci"), _list_of(_bus_id)),
}
#: The keys whose grounds must be told when they are given.
_SOURCES: Final = dict.fromkeys(
    ("match", "delegates", "threads", "options", "environment", "limits", "checks"),
    _list_of(_fact("provenance", "source")),
)
#: The keys of a profile, each with its check.
FIELDS: Final[dict[str, _Check]] = {
    "schema": _that(lambda value: type(value) is int and value == 1, "1"),
    "name": _name,
    "title": _text,
    "match": _match({**_ALTERNATIVE, "any_of": _list_of(_match(_ALTERNATIVE))}),
    "delegates": _list_of(_delegate),
    "threads": _list_of(_thread_count),
    "options": _table_of(_name, lambda _, value, at: _options(value, at)),
    "environment": _table_of(_name, lambda _, value, at: _variables(value, at)),
    "limits": _table_of(_name, lambda _, value, at: _limits(value, at)),
    "checks": _table_of(_name, lambda _, value, at: _checks(value, at)),
    "quirks": _list_of(_fact("text", "provenance", "source")),
    "sources": _record(_SOURCES, "match"),
}

"""The checks a profile passes: each says which key of which file is wrong, and what was expected."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from tflite_hal.profiles.checks import (
    KIND,
    LIMITS,
    NAME,
    OPTIONS,
    PROVENANCE_OF,
    TEXT,
    VARIABLES,
    Check,
    Described,
    all_of,
    list_of,
    matching,
    one_of,
    record,
    schema_of,
    table_of,
    that,
)
from tflite_hal.profiles.document import At, parse_yaml
from tflite_hal.profiles.external import EXTERNAL
from tflite_hal.profiles.schema import Accelerator, DeviceProfile, Fact, Match
from tflite_hal.profiles.versions import VERSIONS

__all__ = ["FIELDS", "json_schema", "parse_profile"]


def parse_profile(text: str, path: str) -> DeviceProfile:
    """Validate the text of a profile; ``path`` is for messages and for ``DeviceProfile.path``.

    Raises:
        ProfileError: names the file, the key path, what was expected and what was given.
    """
    at = At(path)
    fields = _PROFILE(parse_yaml(text, at), at)
    if not fields.keys() & set(_PURPOSES):
        for key in ("match", "sources"):
            if key not in fields:
                raise at.child(key).fail("this key", "nothing")
    if "match" not in fields:
        for index, one in enumerate(fields.get("accelerators", ())):
            if one.match == Match():
                raise at.child("accelerators").child(index).child("match").fail("this key", "nothing")
    for key in _SOURCES:
        if key in fields and key not in fields.get("sources", ()):
            raise at.child("sources").child(key).fail(f"the sources of {key!r}", "none")
    del fields["schema"]
    return DeviceProfile(**fields, path=path)


def json_schema() -> dict[str, Any]:
    """Return what JSON Schema (2020-12) can say of a profile; ``device_profiles/schema.json`` is this.

    It says less than :func:`parse_profile`, and nothing else: paths, variables and YAML are not in it.
    """
    own_match = {"properties": {"accelerators": {"items": {"required": ["match"]}}}}
    grounds = {
        key: {"properties": {"sources": {"required": [key]}}, "required": ["sources"]} for key in _SOURCES
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Device profile of tflite-hal",
        **schema_of(_PROFILE),
        "anyOf": [*({"required": [key]} for key in _PURPOSES), {"required": ["match", "sources"]}],
        "if": {"required": ["match"]},
        "else": own_match,
        "dependentSchemas": grounds,
    }


def _fact(known: Mapping[str, Check], *required: str) -> Check:
    fields = record({"text": TEXT, "applies": TEXT, **known, **PROVENANCE_OF}, *required)
    return Described(lambda value, at: Fact(**{"text": "", **fields(value, at)}), schema_of(fields))


def _match(known: Mapping[str, Check]) -> Check:
    fields = record(known)
    return Described(lambda value, at: Match(**fields(value, at)), schema_of(fields))


def _by_delegate(entry: Check) -> Check:
    return table_of(NAME, lambda _, value, at: entry(value, at), schema_of(entry))


def _accelerator(value: Any, at: At) -> Accelerator:
    fields = _ACCELERATOR(value, at)
    if not fields.keys() & {"delegates", "instead"}:
        raise at.child("instead").fail("what reaches it, where no delegate does", "nothing")
    return Accelerator(**fields)


#: The runtime's own kernels are last in every choice, whatever the order says.
_delegate: Final = all_of(
    NAME,
    that(
        lambda value: value != "builtin",
        "a delegate; builtin is always last",
        **{"not": {"const": "builtin"}},
    ),
)
_bus_id: Final = matching(r"[0-9a-f]{4}:[0-9a-f]{4}", 'an id like "1a6e:089a", in lower case and quotes')
_thread_count: Final = that(
    lambda n: type(n) is int and 0 < n <= 1024,
    "a whole number from 1 to 1024",
    type="integer",
    minimum=1,
    maximum=1024,
)
_share: Final = that(
    lambda n: isinstance(n, (int, float)) and not isinstance(n, bool) and 0 <= n <= 1,
    "a share from 0 to 1",
    type="number",
    minimum=0,
    maximum=1,
)
_checks: Final = record({"tolerance": _share, "accept": one_of("ok", "degraded")})
_BOUND: Final = r"(<|<=|>|>=|==) ?[0-9]+(\.[0-9]+)*"
_versions: Final = matching(rf"{_BOUND}(, {_BOUND})*", 'versions such as ">= 6.7, < 7.2"')
_ALTERNATIVE: Final[dict[str, Check]] = {
    **dict.fromkeys(("arch", "os", "dmi_vendor", "dmi_product"), TEXT),
    **dict.fromkeys(("compatible", "model_prefix", "features"), list_of(TEXT)),
    **dict.fromkeys(("usb", "pci"), list_of(_bus_id)),
}
#: The keys whose grounds must be told when they are given.
_SOURCES: Final = dict.fromkeys(
    ("match", "delegates", "threads", "options", "environment", "limits", "checks"),
    list_of(_fact({}, "provenance", "source")),
)
_ACCELERATOR: Final = record(
    {
        "kind": KIND,
        "name": TEXT,
        "delegates": list_of(_delegate),
        "instead": TEXT,
        "match": _match(_ALTERNATIVE),
        "text": TEXT,
        **PROVENANCE_OF,
    },
    "kind",
    "name",
    "provenance",
    "source",
)
_ACCELERATORS: Final = list_of(
    Described(
        _accelerator,
        {
            **schema_of(_ACCELERATOR),
            "anyOf": [{"required": ["delegates"]}, {"required": ["instead"]}],
        },
    )
)
#: Each says what a profile is for, instead of a match.
_PURPOSES: Final = ("external", "versions", "accelerators", "quirks")
#: The keys of a profile, each with its check.
FIELDS: Final[dict[str, Check]] = {
    "schema": that(lambda value: type(value) is int and value == 1, "1", const=1),
    "name": NAME,
    "title": TEXT,
    "match": _match({**_ALTERNATIVE, "any_of": list_of(_match(_ALTERNATIVE))}),
    "delegates": list_of(_delegate),
    "threads": list_of(_thread_count),
    "options": _by_delegate(OPTIONS),
    "environment": _by_delegate(VARIABLES),
    "limits": _by_delegate(LIMITS),
    "checks": _by_delegate(_checks),
    "external": EXTERNAL,
    "versions": VERSIONS,
    "accelerators": _ACCELERATORS,
    "quirks": list_of(
        _fact(
            {"affects": table_of(TEXT, lambda _, v, at: _versions(v, at), schema_of(_versions))},
            "text",
            "provenance",
            "source",
        )
    ),
    "sources": record(_SOURCES),
}
_PROFILE: Final = record(FIELDS, "schema", "name", "title")

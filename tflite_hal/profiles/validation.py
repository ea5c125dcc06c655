"""The checks a profile passes: each says which key of which file is wrong, and what was expected."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tflite_hal.profiles.checks import (
    LIMITS,
    NAME,
    OPTIONS,
    PROVENANCE_OF,
    TEXT,
    VARIABLES,
    Check,
    all_of,
    list_of,
    matching,
    record,
    table_of,
    that,
)
from tflite_hal.profiles.document import At, parse_yaml
from tflite_hal.profiles.external import EXTERNAL
from tflite_hal.profiles.schema import DeviceProfile, Fact, Match
from tflite_hal.profiles.versions import VERSIONS

__all__ = ["FIELDS", "parse_profile"]


def parse_profile(text: str, path: str) -> DeviceProfile:
    """Validate the text of a profile; ``path`` is for messages and for ``DeviceProfile.path``.

    Raises:
        ProfileError: names the file, the key path, what was expected and what was given.
    """
    at = At(path)
    fields = record(FIELDS, "schema", "name", "title")(parse_yaml(text, at), at)
    if not fields.keys() & {"external", "versions"}:  # they say what it is for, instead of a match
        for key in ("match", "sources"):
            if key not in fields:
                raise at.child(key).fail("this key", "nothing")
    for key in _SOURCES:
        if key in fields and key not in fields.get("sources", ()):
            raise at.child("sources").child(key).fail(f"the sources of {key!r}", "none")
    del fields["schema"]
    return DeviceProfile(**fields, path=path)


def _fact(*required: str) -> Check:
    fields = record({"text": TEXT, "applies": TEXT, **PROVENANCE_OF}, *required)
    return lambda value, at: Fact(**{"text": "", **fields(value, at)})


def _match(known: Mapping[str, Check]) -> Check:
    fields = record(known)
    return lambda value, at: Match(**fields(value, at))


#: The runtime's own kernels are last in every choice, whatever the order says.
_delegate: Final = all_of(NAME, that(lambda value: value != "builtin", "a delegate; builtin is always last"))
_bus_id: Final = matching(r"[0-9a-f]{4}:[0-9a-f]{4}", 'an id like "1a6e:089a", in lower case and quotes')
_thread_count: Final = that(lambda n: type(n) is int and 0 < n <= 1024, "a whole number from 1 to 1024")
_share: Final = that(
    lambda n: isinstance(n, (int, float)) and not isinstance(n, bool) and 0 <= n <= 1, "a share from 0 to 1"
)
_grade: Final = that(lambda value: value in ("ok", "degraded"), "ok or degraded")
_checks: Final = record({"tolerance": _share, "accept": _grade})
_ALTERNATIVE: Final[dict[str, Check]] = {
    **dict.fromkeys(("arch", "os", "dmi_vendor", "dmi_product"), TEXT),
    **dict.fromkeys(("compatible", "model_prefix", "features"), list_of(TEXT)),
    **dict.fromkeys(("usb", "pci"), list_of(_bus_id)),
}
#: The keys whose grounds must be told when they are given.
_SOURCES: Final = dict.fromkeys(
    ("match", "delegates", "threads", "options", "environment", "limits", "checks"),
    list_of(_fact("provenance", "source")),
)
#: The keys of a profile, each with its check.
FIELDS: Final[dict[str, Check]] = {
    "schema": that(lambda value: type(value) is int and value == 1, "1"),
    "name": NAME,
    "title": TEXT,
    "match": _match({**_ALTERNATIVE, "any_of": list_of(_match(_ALTERNATIVE))}),
    "delegates": list_of(_delegate),
    "threads": list_of(_thread_count),
    "options": table_of(NAME, lambda _, value, at: OPTIONS(value, at)),
    "environment": table_of(NAME, lambda _, value, at: VARIABLES(value, at)),
    "limits": table_of(NAME, lambda _, value, at: LIMITS(value, at)),
    "checks": table_of(NAME, lambda _, value, at: _checks(value, at)),
    "external": EXTERNAL,
    "versions": VERSIONS,
    "quirks": list_of(_fact("text", "provenance", "source")),
    "sources": record(_SOURCES),
}

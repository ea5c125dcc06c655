"""Pairs of library and runtime that are known to work or to crash: what stands under ``versions``.

A library's version is that of the Debian package it belongs to (``/var/lib/dpkg``): the libraries in
question do not tell it without being loaded, which is what crashes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from tflite_hal.host import HostInfo
from tflite_hal.profiles.checks import (
    NAME,
    PROVENANCE_OF,
    TEXT,
    Check,
    Described,
    list_of,
    matching,
    record,
    schema_of,
    table_of,
    that,
)
from tflite_hal.profiles.document import At
from tflite_hal.profiles.schema import DeviceProfile
from tflite_hal.trust import Distrust

__all__ = ["ALLOW", "VERSIONS", "known_pairs", "why_known_bad"]

#: The variable that names delegates, with commas, whose known-bad pairs are tried all the same.
ALLOW: Final = "TFLITE_HAL_ALLOW_KNOWN_BAD"

_STATUS: Final = "/var/lib/dpkg/status"
_STATUS_LIMIT: Final = 64 * 1024 * 1024
#: How names of package lists may end: the kernel's architecture does not tell that of the packages.
_ARCHITECTURES: Final = ("", ":amd64", ":arm64", ":armel", ":armhf", ":i386", ":riscv64")


def known_pairs(profiles: Iterable[DeviceProfile]) -> dict[str, list[Mapping[str, Any]]]:
    """Return what all profiles know, by delegate."""
    pairs: dict[str, list[Mapping[str, Any]]] = {}
    for profile in profiles:
        for delegate, known in profile.versions.items():
            pairs.setdefault(delegate, []).extend(known)
    return pairs


def why_known_bad(
    delegate: str, pairs: Sequence[Mapping[str, Any]], host: HostInfo, library: str, runtime: tuple[str, str]
) -> Distrust | None:
    """Return why a library is not tried with a runtime, None where nothing bad is known of the two.

    Args:
        delegate: its name, for what to do.
        pairs: what is known of it.
        library: path of the library.
        runtime: name and version.
    """
    if delegate in os.environ.get(ALLOW, "").split(","):
        return None
    for pair in pairs:
        if pair["works"] or not _covers(pair, runtime):
            continue
        version = _package_version(host, library, pair["packages"])
        if version in pair["package_versions"]:
            good = "; ".join(f"known to work: {p['text']}" for p in pairs if p["works"])
            reason = (
                f"{library} {version} with {' '.join(runtime)}: {pair['text']} ({'; '.join(pair['source'])})"
            )
            remedy = f"{pair['remedy']}; {good}" if good else pair["remedy"]
            return Distrust(reason, f"{remedy}; {ALLOW}={delegate} tries it all the same")
    return None


def _covers(pair: Mapping[str, Any], runtime: tuple[str, str]) -> bool:
    name, version = runtime
    return name in pair["runtimes"] and _numbers(pair["runtime_from"]) <= _numbers(version)


def _numbers(version: str) -> tuple[int, ...]:
    found = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in found[0].split(".")) if found else ()


def _package_version(host: HostInfo, library: str, packages: Sequence[str]) -> str | None:
    """Return the version of the package that a library belongs to, None where it belongs to none of these,
    or the device has none."""
    for package in packages if library else ():
        lists = (host.read(f"/var/lib/dpkg/info/{package}{end}.list") for end in _ARCHITECTURES)
        files = {line.removeprefix("/usr") for text in lists for line in (text or "").splitlines()}
        if library.removeprefix("/usr") in files:  # /lib may be a link to /usr/lib
            status = host.read(_STATUS, _STATUS_LIMIT) or ""
            pattern = rf"^Package: {re.escape(package)}\n(?:[^\n]+\n)*?Version: (\S+)"
            found = re.search(pattern, status, re.MULTILINE)
            return found[1] if found else None
    return None


def _pair(value: Any, at: At) -> dict[str, Any]:
    pair: dict[str, Any] = _PAIR(value, at)
    if not pair["works"]:
        for key in ("runtimes", "runtime_from", "packages", "package_versions", "remedy"):
            if key not in pair:
                raise at.child(key).fail("this key, where works is false", "nothing")
    return pair


_PAIR: Final = record(
    {
        "works": that(lambda value: isinstance(value, bool), "true or false", type="boolean"),
        "text": TEXT,
        "runtimes": list_of(TEXT),
        "runtime_from": matching(r"\d+(\.\d+)*", 'a version in quotes, such as "2.12"'),
        "packages": list_of(NAME),
        "package_versions": list_of(TEXT),
        "remedy": TEXT,
        **PROVENANCE_OF,
    },
    "works",
    "text",
    "provenance",
    "source",
)

_PAIRS: Final = list_of(Described(_pair, schema_of(_PAIR)))

#: The check of a profile's ``versions``.
VERSIONS: Final[Check] = table_of(NAME, lambda _, value, at: _PAIRS(value, at), schema_of(_PAIRS))

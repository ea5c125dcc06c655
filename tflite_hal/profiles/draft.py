"""A first profile of a machine, made of what it says of itself."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from tflite_hal.errors import ProfileError
from tflite_hal.profiles.checks import is_text
from tflite_hal.profiles.validation import parse_profile

if TYPE_CHECKING:
    from tflite_hal.host import HostInfo

__all__ = ["draft_name", "draft_profile"]

#: What processors must have in common with this one, where nothing tells the machine itself.
_FEATURES: Final = ("avx2", "avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "asimdhp", "i8mm", "sve")
#: What makers leave in the DMI where a name should be.
_PLACEHOLDERS: Final = (
    "to be filled",
    "default string",
    "system product name",
    "system manufacturer",
    "o.e.m",
)

_TEMPLATE: Final = """\
schema: 1
name: {name}
title: {title}

# Written by tflite-hal profiles new: match is what this machine says of itself. Whatever begins with # is
# yours to fill in; tflite-hal profiles validate checks it, device_profiles/README.md describes it all.
match:
{match}

# delegates: [xnnpack]       # in the order to try them; tflite-hal plugins lists those there are
# threads: {threads}          # thread counts to try, best first
# options:                   # by delegate
#   example: {{mode: fast}}
# limits:                    # by delegate: seconds, where 10 to open and 30 to run are short
#   example: {{open: 60}}
# accelerators:              # what the machine has besides its CPU
#   - kind: npu
#     name: Example NPU
#     delegates: [example]
#     provenance: measured
#     source: [which run on this machine]
# quirks:
#   - text: What goes wrong on this machine, and what to do about it.
#     provenance: measured
#     source: [which run on this machine]

sources:                     # the grounds of each part above: measured, vendor, source or inferred
  match:
    - provenance: measured
      source: ["tflite-hal profiles new, {day}"]
"""


def draft_profile(host: HostInfo, name: str, day: str) -> str:
    """Return the text of a profile that matches a machine, with hints for the rest.

    Args:
        host: the machine; its device tree tells it best, then DMI, then the processor.
        name: the profile's name, which is its file's.
        day: when this was, for its grounds.

    Raises:
        ProfileError: nothing that could be matched is known of the machine, or the name is none.
    """
    alternatives = _alternatives(host)
    if not alternatives:
        raise ProfileError("nothing is known of this machine that a profile could match", remedy=_REMEDY)
    if len(alternatives) == 1:
        lines = [f"  {line}" for line in alternatives[0]]
    else:
        lines = ["  any_of:"]
        for first, *others in alternatives:
            lines += [f"    - {first}", *(f"      {line}" for line in others)]
    text = _TEMPLATE.format(
        name=_quoted(name),
        title=_quoted(_title(host)),
        match="\n".join(lines),
        threads=_threads(host),
        day=day,
    )
    parse_profile(text, f"{name}.yaml")
    return text


_REMEDY: Final = "write match by hand: device_profiles/README.md"


def draft_name(host: HostInfo) -> str:
    """Return a name for a machine's profile, of the board or its processor; none that ships has it."""
    return "-".join(["my", *re.findall(r"[a-z0-9]+", _title(host).lower())[:6]])


def _alternatives(host: HostInfo) -> list[list[str]]:
    """Return what to match, as lines of YAML: any of the entries, all of the lines of one."""
    model = _model(host)
    entries = []
    if host.board.compatible and _usable(host.board.compatible[0]):
        entries.append([f"compatible: [{_quoted(host.board.compatible[0])}]"])
    if _usable(model):
        entries.append([f"model_prefix: [{_quoted(model)}]"])
    if entries:
        return entries
    vendor, product = host.dmi.vendor or "", host.dmi.product or ""
    if all(_usable(word) and not _placeholder(word) for word in (vendor, product)):
        return [[f"dmi_vendor: {_quoted(vendor)}", f"dmi_product: {_quoted(product)}"]]
    features = [one for one in _FEATURES if one in (host.cpu.features or ())]
    lines = [f"arch: {_quoted(host.arch)}"] if host.arch and _usable(host.arch) else []
    lines += ["os: linux"] if "linux" in host.os_id else []
    lines += [f"features: [{', '.join(features)}]"] if features else []
    return [lines] if lines else []


def _model(host: HostInfo) -> str:
    """Return the board's model without the revision that firmware may append."""
    return re.sub(r"\s+Rev\s.*", "", host.board.model or "")


def _usable(value: str) -> bool:
    return is_text(value) and bool(value.strip())


def _placeholder(value: str) -> bool:
    return any(word in value.lower() for word in _PLACEHOLDERS)


def _title(host: HostInfo) -> str:
    dmi = [word for word in (host.dmi.vendor, host.dmi.product) if word and not _placeholder(word)]
    words: Iterable[str | None] = (_model(host), " ".join(dmi), host.cpu.model, host.arch)
    return next((word for word in words if word and _usable(word)), "my machine")


def _threads(host: HostInfo) -> list[int]:
    usable = host.cpu.usable or host.cpu.online or 1
    return sorted({usable, max(1, usable // 2), 1}, reverse=True)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)

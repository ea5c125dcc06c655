"""What a profile is made of."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple, TypeAlias

__all__ = ["PROVENANCE", "Accelerator", "DeviceProfile", "Fact", "Match", "ProfileMatch", "Quirk"]

#: How a fact came to be known: run by this project, said by the vendor, read in published code or data,
#: or concluded from the other facts.
PROVENANCE: Final = ("measured", "vendor", "source", "inferred")

_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})


class Match(NamedTuple):
    """How to recognise a machine: every key that is given must hold."""

    arch: str = ""  #: "x86_64", "aarch64"
    os: str = ""  #: a word of ``HostInfo.os_id``, such as "linux"
    compatible: tuple[str, ...] = ()  #: any of these device-tree strings
    model_prefix: tuple[str, ...] = ()  #: the board's model begins with any of these
    dmi_vendor: str = ""  #: beginning of the DMI vendor
    dmi_product: str = ""  #: beginning of the DMI product
    features: tuple[str, ...] = ()  #: all of these CPU features
    usb: tuple[str, ...] = ()  #: any of these "vvvv:dddd"
    pci: tuple[str, ...] = ()  #: any of these "vvvv:dddd"
    any_of: tuple[Match, ...] = ()  #: alternatives: one of them must hold in full


class Fact(NamedTuple):
    """A statement and where it comes from: a quirk, or the grounds of a part of the profile."""

    text: str
    provenance: str  #: one of :data:`PROVENANCE`
    source: tuple[str, ...]
    applies: str | None = None  #: when it holds, where not always
    affects: Mapping[str, str] = _NOTHING  #: versions by software: {"linux": "< 6.7", "mesa": ">= 26"}


#: A quirk of the machine is a fact worth showing to its user.
Quirk: TypeAlias = Fact


class Accelerator(NamedTuple):
    """What a machine has besides its CPU, and what reaches it."""

    kind: str  #: one of :data:`tflite_hal.delegate.KINDS`
    name: str
    provenance: str  #: one of :data:`PROVENANCE`
    source: tuple[str, ...]
    delegates: tuple[str, ...] = ()  #: that reach it, best first; () where no TensorFlow Lite delegate does
    instead: str = ""  #: what else reaches it, such as a vendor's own runtime; given where no delegate does
    match: Match = Match()  #: where only some of the profile's machines have it
    text: str = ""  #: on which condition, from which version


class DeviceProfile(NamedTuple):
    """What is known about a family of machines."""

    name: str
    title: str
    match: Match = Match()  #: empty where it is about delegates, add-ons or runtimes, not a machine
    delegates: tuple[str, ...] = ()  #: in the order to try them
    threads: tuple[int, ...] = ()  #: thread counts to try, best first; () is no opinion
    options: Mapping[str, Mapping[str, str | int | float | bool]] = _NOTHING  #: by delegate
    environment: Mapping[str, Mapping[str, str]] = _NOTHING  #: by delegate
    limits: Mapping[str, Mapping[str, float]] = _NOTHING  #: seconds per stage (open, run), by delegate
    checks: Mapping[str, Mapping[str, Any]] = _NOTHING  #: ``tolerance``, ``accept``, by delegate
    external: Mapping[str, Mapping[str, Any]] = _NOTHING  #: delegates it describes; see :data:`EXTERNAL`
    versions: Mapping[str, tuple[Mapping[str, Any], ...]] = _NOTHING  #: known pairs, by delegate
    accelerators: tuple[Accelerator, ...] = ()  #: what its machines have
    quirks: tuple[Quirk, ...] = ()
    sources: Mapping[str, tuple[Fact, ...]] = _NOTHING  #: the grounds, by key of the profile
    path: str = ""  #: the file it was read from

    def to_dict(self) -> dict[str, Any]:
        """Return it JSON-ready; but for ``path`` and the lacking ``schema`` it is the file's content."""
        plain: dict[str, Any] = _plain(self)
        return plain


class ProfileMatch(NamedTuple):
    """A profile that fits a host, and why."""

    profile: DeviceProfile
    specificity: int
    reasons: tuple[str, ...]  #: "compatible raspberrypi,5-model-b", "arch aarch64"


def _plain(value: Any) -> Any:
    """Turn named tuples into dicts of what they give, other tuples into lists."""
    if hasattr(value, "_asdict"):
        value = {
            key: item for key, item in value._asdict().items() if item not in ("", (), None, {}, Match())
        }
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value

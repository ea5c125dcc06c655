"""The board, the operating system, memory and temperature."""

from __future__ import annotations

import os
import platform
import re
import sys
from typing import Final, NamedTuple

from tflite_hal.host.cpu import CPUINFO_LIMIT
from tflite_hal.host.devices import DEVICE_TREES
from tflite_hal.host.tree import Tree, printable

__all__ = [
    "Board", "Dmi", "System", "Thermal", "read_board", "read_dmi", "read_groups", "read_memory",
    "read_system", "read_thermal",
]  # fmt: skip

_MOST_ZONES: Final = 64
#: Bits of the Raspberry Pi's firmware, from its documentation of ``vcgencmd get_throttled``; sixteen
#: bits higher the same since the start.
_THROTTLED: Final = ("under-voltage", "frequency capped", "throttled", "soft temperature limit")
_THROTTLED_FILE: Final = "/sys/devices/platform/soc/soc:firmware/get_throttled"


class Board(NamedTuple):
    """From the device tree."""

    model: str | None
    compatible: tuple[str, ...]  #: most specific first


class Dmi(NamedTuple):
    """From SMBIOS."""

    vendor: str | None
    product: str | None


class System(NamedTuple):
    """The operating system."""

    name: str | None
    version: str | None  #: the distribution's ``VERSION_ID``
    words: tuple[str, ...]  #: what it calls itself and its parents, and ``linux``


class Thermal(NamedTuple):
    """Temperature now."""

    zones: int  #: that the kernel watches
    max_celsius: float | None  #: of the hottest zone
    throttled: tuple[str, ...] | None  #: Raspberry Pi: what slows it, or did since the start; None is unknown


def read_board(tree: Tree) -> Board:
    """Return the board, from the device tree, else as cpuinfo names it."""
    for folder in DEVICE_TREES:
        model, compatible = tree.value(f"{folder}/model"), tree.read(f"{folder}/compatible", 4096)
        if model or compatible:
            return Board(model, tuple(filter(None, map(printable, (compatible or "").split("\0")))))
    lines = re.findall(
        r"^(Model|Hardware)[ \t]*:[ \t]*(\S.*)$",
        tree.read("/proc/cpuinfo", CPUINFO_LIMIT) or "",
        re.MULTILINE,
    )
    named = dict(lines)
    return Board(printable(named.get("Model") or named.get("Hardware")) or None, ())


def read_dmi(tree: Tree) -> Dmi:
    """Return what SMBIOS tells, beside a device tree too."""
    return Dmi(tree.value("/sys/class/dmi/id/sys_vendor"), tree.value("/sys/class/dmi/id/product_name"))


def read_memory(tree: Tree) -> tuple[int | None, int | None]:
    """Return all memory and what is free or can be freed, in bytes."""
    text = tree.read("/proc/meminfo") or ""
    total, available = (
        re.search(rf"^{name}:\s*(\d{{1,15}}) kB", text, re.MULTILINE) for name in ("MemTotal", "MemAvailable")
    )
    if total or not tree.live:
        return total and int(total[1]) * 1024, available and int(available[1]) * 1024
    try:
        import psutil
    except ImportError:
        return None, None
    memory = psutil.virtual_memory()
    return int(memory.total), int(memory.available)


def read_thermal(tree: Tree) -> Thermal:
    """Return the temperature of the hottest zone, and of a Raspberry Pi what its firmware holds back.

    The file of the latter is that of Raspberry Pi's own kernels; others have none.
    """
    names = tree.names("/sys/class/thermal")
    zones = [name for name in names if re.fullmatch(r"thermal_zone\d{1,4}", name)][:_MOST_ZONES]
    texts = [tree.value(f"/sys/class/thermal/{zone}/temp") or "" for zone in zones]
    degrees = [int(text) / 1000 for text in texts if re.fullmatch(r"-?[0-9]{1,6}", text)]
    bits = re.fullmatch(r"(?:0x)?([0-9a-f]{1,8})", tree.value(_THROTTLED_FILE) or "")
    return Thermal(len(zones), max(degrees, default=None), _slowed(int(bits[1], 16)) if bits else None)


def _slowed(bits: int) -> tuple[str, ...]:
    now = [word for bit, word in enumerate(_THROTTLED) if bits >> bit & 1]
    before = [f"{word} since the start" for bit, word in enumerate(_THROTTLED) if bits >> (bit + 16) & 1]
    return (*now, *before)


def read_system(tree: Tree) -> System:
    """Return the distribution."""
    text = tree.read("/etc/os-release") or tree.read("/usr/lib/os-release") or ""
    fields = {
        key.strip(): printable(value.strip().strip("\"'"))
        for key, _, value in (line.partition("=") for line in text.splitlines())
    }
    words = [*fields.get("ID", "").split(), *fields.get("ID_LIKE", "").split()]
    linux = sys.platform.startswith("linux") if tree.live else tree.exists("/proc") or tree.exists("/sys")
    name = fields.get("PRETTY_NAME") or (f"{platform.system()} {platform.release()}" if tree.live else None)
    known = tuple(dict.fromkeys([*words, *(["linux"] if linux else [])]))
    return System(name, fields.get("VERSION_ID") or None, known)


def read_groups(tree: Tree) -> tuple[str, ...] | None:
    """Return the names of this process's groups, a number where one has no name; None where that can't
    be known."""
    if not tree.live or not hasattr(os, "getgroups"):
        return None
    import grp

    def name(number: int) -> str:
        try:
            return grp.getgrgid(number).gr_name
        except KeyError:
            return str(number)

    return tuple(sorted({name(number) for number in {*os.getgroups(), os.getegid()}}))

"""What a shared library says of itself before it is loaded: its processor, and what it exports and needs.

Reads the header and the dynamic symbols of an ELF file (System V ABI, chapters 4 and 5), bounded, and
believes nothing of it: what makes no sense is not told, and the loader may judge.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

from tflite_hal.trust import Distrust

__all__ = ["Elf", "read_elf", "read_needs", "why_unloadable"]

#: What ``load_delegate`` calls, and what a stable delegate has instead (LiteRT,
#: tflite/core/acceleration/configuration/c/stable_delegate.h).
CREATE: Final = "tflite_plugin_create_delegate"
STABLE: Final = "TFL_TheStableDelegate"

#: Most bytes of a table that are read: those of a whole TensorFlow are smaller.
_MOST: Final = 64 * 1024 * 1024
_MOST_SECTIONS: Final = 4096
_DYNAMIC: Final = 6  # SHT_DYNAMIC
_NEEDED: Final = 1  # DT_NEEDED
_SEARCHED: Final = (15, 29)  # DT_RPATH, DT_RUNPATH
_SYMBOLS: Final = 11  # SHT_DYNSYM
_NOWHERE: Final = 0  # SHN_UNDEF: needed, not exported
_DSP6: Final = 164  # EM_QDSP6
_MACHINES: Final = {3: "x86", 40: "Arm", 62: "x86-64", _DSP6: "QDSP6", 183: "AArch64", 243: "RISC-V"}


class Elf(NamedTuple):
    """An ELF file."""

    bits: int  #: 32 or 64
    order: str  #: of bytes, as :mod:`struct` writes it
    machine: int  #: e_machine
    exported: frozenset[str] | None  #: of the names asked for; None: there is no table that can be read

    @property
    def processor(self) -> str:
        """What it is built for, for people."""
        return f"{self.bits}-bit {_MACHINES.get(self.machine, f'machine {self.machine}')}"


def read_elf(path: str, names: Collection[str]) -> Elf | None:
    """Return what an ELF file says, and which of the names it exports; None for any other file."""
    try:
        with Path(path).open("rb") as file:
            return _read(file, names)
    except (OSError, ValueError, struct.error):  # gone, no file's name, or cut short
        return None


def why_unloadable(path: str) -> Distrust | None:
    """Return why ``load_delegate`` can't load a library, as far as can be told without loading it."""
    elf, own = read_elf(path, (CREATE, STABLE)), read_elf("/proc/self/exe", ())
    if elf is None:
        return None  # the loader says what it is not
    if own is not None and elf[:3] != own[:3]:
        reason = f"{path} is built for {elf.processor}, this Python for {own.processor}"
        if elf.machine == _DSP6:
            return Distrust(f"{reason}: it is what runs on the DSP", "name the delegate, which loads it")
        return Distrust(reason, "install the build for this processor and word size")
    if elf.exported is not None and STABLE in elf.exported and CREATE not in elf.exported:
        reason = f"{path} is a stable delegate (it exports {STABLE}): load_delegate can't load it"
        return Distrust(reason, f"use its maker's tools, or a build that exports {CREATE}")
    return None


def read_needs(path: str) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    """Return the libraries that one needs, and the folders (``RUNPATH``, ``RPATH``) it wants searched for
    them, ``$ORIGIN`` being its own; None for what is no ELF file, or has no such table."""
    try:
        with Path(path).open("rb") as file:
            elf = _read(file, ())
            return None if elf is None else _needs(file, elf, str(Path(path).resolve().parent))
    except (OSError, ValueError, OverflowError, struct.error):
        return None


def _needs(file: BinaryIO, elf: Elf, origin: str) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    table = _sections(file, elf)
    entry = struct.Struct(f"{elf.order}{'II' if elf.bits == 32 else 'QQ'}")
    for _, kind, _, _, start, length, link, *_ in table:
        if kind != _DYNAMIC or not link < len(table):
            continue
        text, raw = _part(file, table[link][4], table[link][5]), _part(file, start, length)
        found = list(entry.iter_unpack(raw[: len(raw) - len(raw) % entry.size]))
        needed = [_text(text, value) for tag, value in found if tag == _NEEDED]
        given = ":".join(_text(text, value) for tag, value in found if tag in _SEARCHED)
        folders = given.replace("${ORIGIN}", origin).replace("$ORIGIN", origin).split(":")
        return tuple(filter(None, needed)), tuple(filter(None, folders))
    return None


def _text(table: bytes, place: int) -> str:
    return table[place : table.find(b"\0", place)].decode(errors="replace") if place < len(table) else ""


def _sections(file: BinaryIO, elf: Elf) -> list[tuple[Any, ...]]:
    word = "I" if elf.bits == 32 else "Q"
    header = struct.Struct(f"{elf.order}HHI{word}{word}{word}IHHHHHH")
    file.seek(16)
    _, _, _, _, _, place, _, _, _, _, size, count, _ = header.unpack(file.read(header.size))
    section = struct.Struct(f"{elf.order}II{word}{word}{word}{word}II{word}{word}")
    if size != section.size or not 0 < count <= _MOST_SECTIONS:
        return []
    return list(section.iter_unpack(_part(file, place, size * count)))


def _read(file: BinaryIO, names: Collection[str]) -> Elf | None:
    ident = file.read(16)
    if len(ident) < 16 or ident[:4] != b"\x7fELF" or ident[4] not in (1, 2) or ident[5] not in (1, 2):
        return None
    bits, order = 32 * ident[4], "<" if ident[5] == 1 else ">"
    elf = Elf(bits, order, struct.unpack(f"{order}2xH", file.read(4))[0], None)
    if not names:
        return elf
    try:
        table = _sections(file, elf)
        for _, kind, _, _, start, length, link, *_ in table:
            if kind == _SYMBOLS and link < len(table):
                text = _part(file, table[link][4], table[link][5])
                found = _exported(elf, _part(file, start, length), text, names)
                return elf._replace(exported=frozenset(found))
    except (OSError, ValueError, OverflowError, struct.error):
        pass  # sections that point elsewhere: the loader does not need them either
    return elf


def _part(file: BinaryIO, start: int, length: int) -> bytes:
    if length > _MOST:
        raise ValueError(f"{length} bytes")
    file.seek(start)
    return file.read(length)


def _exported(elf: Elf, symbols: bytes, text: bytes, names: Collection[str]) -> Iterator[str]:
    # A name may be the end of a longer one: linkers share them.
    at = {place: name for name in names for place in _places(text, name.encode() + b"\0")}
    layout = struct.Struct(f"{elf.order}{'IIIBBH' if elf.bits == 32 else 'IBBHQQ'}")
    index = 5 if elf.bits == 32 else 3
    for symbol in layout.iter_unpack(symbols[: len(symbols) - len(symbols) % layout.size]):
        if symbol[0] in at and symbol[index] != _NOWHERE:
            yield at[symbol[0]]


def _places(text: bytes, name: bytes) -> Iterator[int]:
    place = text.find(name)
    while place >= 0:
        yield place
        place = text.find(name, place + 1)

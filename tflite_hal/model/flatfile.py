"""A FlatBuffers file, checked at every step.

FlatBuffers' Python accessors can't reach outside the buffer, but they check little else: offsets may
wrap, lengths may be anything. So layouts and lengths are compared with the size of the file before
anything is followed or counted by them, as the verifier of ai-edge-litert does; tflite-runtime has none
and dies of what is refused here. What only a runtime can judge is left to it: nothing is refused here
that a verifying runtime runs.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import cache
from typing import Any, Final

__all__ = ["DAMAGE", "Flatfile", "NoSuchNumber", "names", "text", "within"]

#: What the accessors raise on a damaged file.
DAMAGE: Final = (struct.error, IndexError, ValueError, TypeError, OverflowError, MemoryError, AttributeError)


class Flatfile:
    """The bytes, and checked ways into them; raises one of ``DAMAGE`` where they are damaged."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def items(self, table: Any, name: str) -> Iterator[Any]:
        """Yield a vector's elements, once its length is known to fit the file."""
        length = getattr(table, f"{name}Length")()
        # An element takes at least 4 bytes: an offset, or an int32.
        if not 0 <= length <= len(self._data) // 4:
            raise ValueError(f"{name} claims {length} elements in {len(self._data)} bytes")
        get = getattr(table, name)
        for position in range(length):
            item = get(position)
            yield self.checked(item) if hasattr(item, "_tab") else item

    def checked(self, table: Any) -> Any:
        """Return a table whose layout is sound: its own fields lie in it, and it in the file.

        The accessors would read elsewhere, and so would a runtime that does not verify: it dies of it.
        """
        place, size = table._tab.Pos, len(self._data)
        (back,) = struct.unpack_from("<i", self._data, place)
        fields = place - back
        if place < 0 or not 0 <= fields <= size - 4:
            raise ValueError(f"{type(table).__name__} at {place} has its layout outside the file")
        (length,) = struct.unpack_from("<H", self._data, fields)
        if length % 2 or fields + length > size:
            raise ValueError(f"{type(table).__name__} at {place} does not fit the file")
        known = min(
            max(length // 2 - 2, 0), len(_fields(table.__class__))
        )  # what a newer schema adds is not followed
        offsets = struct.unpack_from(f"<{known}H", self._data, fields + 4)
        if place + max(offsets, default=0) >= size:
            raise ValueError(f"{type(table).__name__} at {place} has a field outside the file")
        for name in _fields(table.__class__):
            self._check_field(table, name)
        return table

    def _check_field(self, table: Any, name: str) -> None:
        """Follow a field as far as a runtime would: to the end of a vector, into another table."""
        read = getattr(table, f"{name}AsNumpy", None) or getattr(table, f"{name}Length", None)
        value = (read or getattr(table, name))()
        if hasattr(value, "_tab"):
            self.checked(value)

    def check_operator(self, operator: Any, tensors: int) -> None:
        """Follow what a runtime will follow: tensors by number, and the table of options."""
        import tflite

        for which in ("Inputs", "Outputs", "Intermediates"):
            for index in self.items(operator, which):
                if not -1 <= index < tensors:  # -1 is an optional tensor that is absent
                    raise ValueError(f"an operator has tensor {index} of {tensors}")
        options = operator.BuiltinOptions()
        kind = getattr(tflite, names(tflite.BuiltinOptions).get(operator.BuiltinOptionsType(), ""), None)
        if options is not None and kind is not None:
            table = kind()
            table.Init(options.Bytes, options.Pos)
            self.checked(table)


class NoSuchNumber(ValueError):
    """A table names another by a number there is not."""


def within(index: int, of: list[Any], what: str) -> int:
    """Return an index that is one; raises NoSuchNumber."""
    if not 0 <= index < len(of):
        raise NoSuchNumber(f"{what} {index} of {len(of)}")
    return index


def text(raw: bytes | None) -> str:
    """Return a name; bytes that are not UTF-8 are shown escaped."""
    return (raw or b"").decode("utf-8", "backslashreplace")


@cache
def _fields(kind: Any) -> frozenset[str]:
    """Return the names of a table's fields, by its accessors, of which a vector has several."""
    names = {name for name in vars(kind) if name[0].isupper() and not name.startswith(("GetRoot", "Init"))}
    extra = {name + end for name in names for end in ("AsNumpy", "Length", "IsNone")}
    return frozenset(name for name in names - extra if not name.endswith("BufferHasIdentifier"))


@cache
def names(enum: Any) -> dict[int, str]:
    """Return an enumeration's names by value."""
    return {value: name for name, value in vars(enum).items() if isinstance(value, int)}

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
from itertools import chain
from typing import Any, Final

__all__ = ["DAMAGE", "Flatfile", "NoSuchNumber", "names", "within"]

#: What the accessors raise on a damaged file.
DAMAGE: Final = (struct.error, IndexError, ValueError, TypeError, OverflowError, MemoryError, AttributeError)

#: What reading any file may cost: a number is one, a table three and one for each field, when it is new.
_STEPS: Final = 1_500_000


class Flatfile:
    """The bytes, and checked ways into them; raises one of ``DAMAGE`` where they are damaged.

    Vectors and tables may share their bytes, so that a few kilobytes can stand for millions of tables.
    What is read is counted therefore: no file of a converter comes near the limit, which grows with it.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._sound: set[tuple[Any, int]] = set()  # tables that are checked: class and position
        self._left = _STEPS + len(data) // 4  # nothing is smaller than 4 bytes

    def items(self, table: Any, name: str) -> Iterator[Any]:
        """Yield a vector's tables, once its length is known to fit the file."""
        length = self._length(table, name)
        get = getattr(table, name)
        for position in range(length):
            yield self.checked(get(position))

    def numbers(self, table: Any, name: str) -> list[Any]:
        """Return a vector's numbers."""
        length = self._length(table, name)
        self.spend(length)
        # numpy refuses a vector that reaches beyond the file; for one that is absent there is no array.
        return list(getattr(table, f"{name}AsNumpy")().tolist()) if length else []

    def text(self, raw: bytes | None) -> str:
        """Return a name; bytes that are not UTF-8 are shown escaped."""
        self.spend(len(raw or b"") // 8)
        return (raw or b"").decode("utf-8", "backslashreplace")

    def checked(self, table: Any) -> Any:
        """Return a table whose layout is sound: its own fields lie in it, and it in the file.

        The accessors would read elsewhere, and so would a runtime that does not verify: it dies of it.
        """
        self.spend(3)
        key = table.__class__, table._tab.Pos
        if key not in self._sound:
            self._check(table)
            self._sound.add(key)
        return table

    def check_operator(self, operator: Any, tensors: int) -> list[int]:
        """Follow what a runtime will follow: tensors by number, and the table of options.

        Returns the numbers of its intermediate tensors.
        """
        import tflite

        numbers = {which: self.numbers(operator, which) for which in ("Inputs", "Outputs", "Intermediates")}
        for index in chain.from_iterable(numbers.values()):
            if not -1 <= index < tensors:  # -1 is an optional tensor that is absent
                raise ValueError(f"an operator has tensor {index} of {tensors}")
        options = operator.BuiltinOptions()
        kind = getattr(tflite, names(tflite.BuiltinOptions).get(operator.BuiltinOptionsType(), ""), None)
        if options is not None and kind is not None:
            table = kind()
            table.Init(options.Bytes, options.Pos)
            self.checked(table)
        return numbers["Intermediates"]

    def spend(self, steps: int) -> None:
        """Count work that was done for the file; raises ValueError beyond what any file may cost."""
        self._left -= steps
        if self._left < 0:
            raise ValueError(f"its vectors overlap: too much structure for {len(self._data)} bytes")

    def _length(self, table: Any, name: str) -> int:
        length = int(getattr(table, f"{name}Length")())
        # An element takes at least 4 bytes: an offset, or an int32.
        if not 0 <= length <= len(self._data) // 4:
            raise ValueError(f"{name} claims {length} elements in {len(self._data)} bytes")
        return length

    def _check(self, table: Any) -> None:
        place, size = table._tab.Pos, len(self._data)
        (back,) = struct.unpack_from("<i", self._data, place)
        fields = place - back
        if place < 0 or not 0 <= fields <= size - 4:
            raise ValueError(f"{type(table).__name__} at {place} has its layout outside the file")
        (length,) = struct.unpack_from("<H", self._data, fields)
        if length % 2 or fields + length > size:
            raise ValueError(f"{type(table).__name__} at {place} does not fit the file")
        # What a newer schema adds is not followed.
        known = min(max(length // 2 - 2, 0), len(_fields(table.__class__)))
        offsets = struct.unpack_from(f"<{known}H", self._data, fields + 4)
        if place + max(offsets, default=0) >= size:
            raise ValueError(f"{type(table).__name__} at {place} has a field outside the file")
        self.spend(known - offsets.count(0))
        for name in _fields(table.__class__):
            self._check_field(table, name)

    def _check_field(self, table: Any, name: str) -> None:
        """Follow a field as far as a runtime would: to the end of a vector, into another table."""
        read = getattr(table, f"{name}AsNumpy", None) or getattr(table, f"{name}Length", None)
        value = (read or getattr(table, name))()
        if isinstance(value, bytes):
            self.spend(len(value) // 1024)  # it was copied
        if hasattr(value, "_tab"):
            self.checked(value)


class NoSuchNumber(ValueError):
    """A table names another by a number there is not."""


def within(index: int, of: list[Any], what: str) -> int:
    """Return an index that is one; raises NoSuchNumber."""
    if not 0 <= index < len(of):
        raise NoSuchNumber(f"{what} {index} of {len(of)}")
    return index


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

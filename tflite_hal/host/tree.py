"""Bounded reading below a root: partial, odd and hostile trees give nothing instead of an exception."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Final

__all__ = ["MOST_CPUS", "Tree", "cpu_list", "mode", "printable"]

#: Bytes of a file that holds one value; a device tree's ``compatible`` is the longest.
_VALUE: Final = 4096

_MOST_NAMES: Final = 4096
_MOST_LINKS: Final = 16
_LONGEST_LINK: Final = 512
_LONGEST_PATH: Final = 4096
MOST_CPUS: Final = 8192


class Tree:
    """A file tree below ``root``; links are followed, but never out of it.

    It keeps what was found in it, so that this much can be packed and read again elsewhere.

    Attributes:
        files: each file that was read, and the most bytes that were asked for.
        links: each link whose text was read, and the last part of it.
        places: what else was found to be there.
    """

    __slots__ = ("files", "links", "live", "places", "root")

    def __init__(self, root: str) -> None:
        self.root = root
        self.live = root == "/"
        self.files: dict[str, int] = {}
        self.links: dict[str, str] = {}
        self.places: set[str] = set()

    def real(self, path: str) -> str | None:
        """Return where a path below the root really is, every link resolved below the root; None where
        it is missing, loops, or would leave."""
        if self.live:
            path = f"/{path.lstrip('/')}"
            return path if mode(path) else None
        if len(path) > _LONGEST_PATH:
            return None
        place, todo, links = "", [part for part in reversed(path.split("/")) if part not in ("", ".")], 0
        while todo:
            part = todo.pop()
            if part == "..":
                place = place.rpartition("/")[0]
                continue
            target = self._link(f"{self.root}{place}/{part}")
            if target is None:
                place = f"{place}/{part}"
                continue
            links += 1
            if links > _MOST_LINKS:
                return None
            place = "" if target.startswith("/") else place
            todo += [step for step in reversed(target.split("/")) if step not in ("", ".")]
        real = f"{self.root}{place}"
        return real if os.path.lexists(real) else None

    def read(self, path: str, limit: int = 65536) -> str | None:
        """Return a file's text, NULs and white space at its end removed; None where it can't be read."""
        content = self.content(path, limit)
        if content is None:
            return None
        self.files[path] = max(limit, self.files.get(path, 0))
        return content.decode("utf-8", "backslashreplace").rstrip("\0 \t\r\n")

    def value(self, path: str) -> str | None:
        """Return the text of a file of at most 4096 bytes, fit for people; None where there is none."""
        return printable(self.read(path, _VALUE)) or None

    def content(self, path: str, limit: int) -> bytes | None:
        """Return a file's first bytes; None where it can't be read."""
        real = self.real(path)
        if real is None or not stat.S_ISREG(mode(real)):
            return None  # a device or a pipe would block
        try:
            # Not to wait either where it has become one meanwhile.
            with open(real, "rb", opener=_open_at_once) as file:
                return file.read(max(0, limit))
        except (OSError, ValueError):
            return None

    def exists(self, path: str) -> bool:
        """Whether something is there; a dangling link is nothing."""
        return self._seen(path, self.real(path) is not None)

    def is_file(self, path: str) -> bool:
        """Whether a regular file is there."""
        real = self.real(path)
        return self._seen(path, real is not None and stat.S_ISREG(mode(real)))

    def is_node(self, path: str) -> bool:
        """Whether a character device is there; a captured tree has plain files for them."""
        real = self.real(path)
        kind = 0 if real is None else mode(real)
        return self._seen(path, stat.S_ISCHR(kind) if self.live else bool(kind) and not stat.S_ISDIR(kind))

    def _seen(self, path: str, there: bool) -> bool:
        if there:
            self.places.add(path)
        return there

    def names(self, path: str) -> tuple[str, ...]:
        """Return a folder's printable names, sorted, at most 4096; () where there is none."""
        real = self.real(path)
        if real is None:
            return ()
        try:
            with os.scandir(real) as entries:
                return tuple(sorted(e.name for e in islice(entries, _MOST_NAMES) if e.name.isprintable()))
        except (OSError, ValueError):
            return ()

    def link_name(self, path: str) -> str | None:
        """Return the last part of a link's text, dangling or not: a driver's name, say."""
        folder, _, name = path.rpartition("/")
        real = self.real(folder or "/")
        target = self._link(f"{real}/{name}") if real else None
        last = printable(target.rstrip("/").rpartition("/")[2]) if target else ""
        if last:
            self.links[path] = last
        return last or None

    def _link(self, place: str) -> str | None:
        """Return a link's text. In a captured tree a small file that holds a relative path is one too:
        archives and checkouts without symbolic links store them so."""
        try:
            return str(Path(place).readlink())
        except (OSError, ValueError):
            pass  # no link, or none of the system's
        if self.live:
            return None
        try:
            found = os.lstat(place)
            if not stat.S_ISREG(found.st_mode) or not 2 < found.st_size < _LONGEST_LINK:
                return None
            with open(place, "rb", opener=_open_at_once) as file:
                text = file.read(_LONGEST_LINK).decode()
        except (OSError, ValueError):
            return None
        return text.strip() if text.startswith(("../", "./")) else None


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def printable(text: str | None) -> str:
    """Return a text on one line, with a space for each run of what can't be shown."""
    text = text or ""
    if not text.isprintable():
        text = "".join(c if c.isprintable() else " " for c in text)
    return " ".join(text.split())


def mode(place: str) -> int:
    """Return a file's type and permissions as ``stat`` gives them; 0 where it is missing or out of reach."""
    try:
        return Path(place).stat().st_mode
    except (OSError, ValueError):
        return 0


def cpu_list(text: str | None) -> tuple[int, ...]:
    """Return the numbers of a kernel list such as ``0-3,8``; () where it is no such list."""
    return tuple(dict.fromkeys(islice(_numbers(text or ""), MOST_CPUS)))


def _numbers(text: str) -> Iterator[int]:
    for part in text.split(","):
        found = re.fullmatch(r"\s*(\d{1,5})(?:-(\d{1,5}))?\s*", part)
        if found is None:
            return
        first, last = int(found[1]), int(found[2] or found[1])
        yield from range(first, min(last, MOST_CPUS) + 1)

"""From where code may be loaded: the one rule for libraries, for what names them, and for what is remembered.

A file is trusted where only this user and root can change it or put another in its place: it, every folder
above it, and those of every link on the way to it, belong to one of the two and are writable by nobody else.

* In a folder with the sticky bit, such as /tmp, only the owner of an entry can replace it: what this user
  or root has there stays theirs. But others can add to such a folder, and a library may load what lies
  beside it: the folder that holds a library must not be writable by others at all.
* In ``site-packages`` and ``dist-packages`` this user's primary group may write (an environment made with
  umask 002): whoever is in it can change the Python code there, too.

POSIX only: Windows has no such modes, everything passes there.
"""

from __future__ import annotations

import os
import re
import shlex
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

__all__ = [
    "Distrust",
    "changes_loading",
    "distrust_file",
    "distrust_library",
    "distrust_place",
    "distrust_variable",
    "file_identity",
]

_MOST_LINKS: Final = 40  # as the kernel
_PACKAGES: Final = {"site-packages", "dist-packages"}


class Distrust(NamedTuple):
    """Why something is not used."""

    reason: str
    remedy: str


def distrust_library(path: str | os.PathLike[str]) -> Distrust | None:
    """Return why a library is not loaded, None where it may be."""
    found = distrust_file(path)
    if found:
        return found
    real = Path(os.path.realpath(path))
    return distrust_place(real.parent, group=_is_package(real))


def distrust_file(path: str | os.PathLike[str]) -> Distrust | None:
    """Return why a file or folder is not trusted, None where only this user and root can change or
    replace it."""
    file = Path(path).absolute()  # "chmod go-w ." would help nobody
    if "\0" in str(file):
        return Distrust(f"{str(file)!r} is no file's name", "")
    group = _is_package(file) or _is_package(Path(os.path.realpath(file)))
    found = distrust_place(file, group=group)
    for folder, entry in () if found else _steps(file):
        found = found or distrust_place(folder, holding=entry, group=group)
    return found


def distrust_place(path: Path, *, holding: Path | None = None, group: bool = False) -> Distrust | None:
    """Return why others can change this one file or folder, None where they can't.

    Args:
        path: links are followed.
        holding: the entry of a folder that matters: in a sticky one, its owner decides.
        group: whether this user's primary group may write.
    """
    if os.name == "nt":
        return None
    try:
        info = path.stat()
        entry = None if holding is None else holding.lstat()
    except OSError as error:
        return Distrust(f"{path}: {error.strerror}", "")
    quoted, trusted = shlex.quote(str(path)), (0, os.geteuid())
    if info.st_uid not in trusted:
        reason = f"{path} belongs to user {info.st_uid}, neither to you nor to root"
        return Distrust(reason, f"copy it to a folder of yours, or chown {os.geteuid()} {quoted}")
    kept = entry is not None and info.st_mode & stat.S_ISVTX and entry.st_uid in trusted
    forbidden = 0o002 if group and info.st_gid == os.getgid() else 0o022
    if info.st_mode & forbidden and not kept:
        reason = f"{path} has mode {info.st_mode & 0o7777:04o}: others could change what is run"
        # Everybody's folder, such as /tmp, has to stay so.
        remedy = "use a folder of your own" if info.st_mode & stat.S_ISVTX else f"chmod go-w {quoted}"
        return Distrust(reason, remedy)
    return None


def changes_loading(name: str) -> bool:
    """Whether a variable makes programs load other code than theirs; ``LD_LIBRARY_PATH`` may, by rule."""
    upper = name.upper()
    return upper == "PATH" or (upper.startswith(("LD_", "DYLD_", "PYTHON")) and upper != "LD_LIBRARY_PATH")


def distrust_variable(name: str, value: str) -> Distrust | None:
    """Return why a variable is not set for a library, None where it may be: its name, or a folder of a
    search path that is not absolute or that others can write."""
    if changes_loading(name):
        return Distrust(f"{name} changes what programs load", "leave it out")
    if not name.upper().endswith("LIBRARY_PATH"):
        return None
    for folder in re.split("[:;]", value):  # ld.so takes both
        path = Path(folder)
        if not path.is_absolute() or "$" in folder:
            return Distrust(f"{name} has {folder!r}, which is no absolute folder", "name it in full")
        while not os.path.lexists(path):  # where it is missing: nobody else may be able to create it
            path = path.parent
        found = distrust_file(path) or distrust_place(path)
        if found:
            return found
    return None


def file_identity(path: str | os.PathLike[str]) -> str:
    """Return a text that changes when a file is replaced: where it really is, its bytes and the time of its
    last change in nanoseconds; of one that can't be looked at, its path and why. For fingerprints.
    """
    try:
        found = Path(path).stat()
    except (OSError, ValueError) as error:
        return f"{os.fspath(path)}: {getattr(error, 'strerror', None) or error}"
    return f"{os.path.realpath(path)} {found.st_size} {found.st_mtime_ns}"


def _is_package(path: Path) -> bool:
    return not _PACKAGES.isdisjoint(path.parts)


def _steps(path: Path) -> Iterator[tuple[Path, Path]]:
    """Yield each folder that the system looks into on the way to a path, and the entry it takes there."""
    place, todo, links = Path("/"), list(reversed(path.parts[1:])), 0
    while todo:
        part = todo.pop()
        if part == "..":
            place = place.parent
            continue
        entry = place / part
        yield place, entry
        if not entry.is_symlink():
            place = entry
            continue
        links += 1
        if links > _MOST_LINKS:
            return  # the file's own check has told
        target = entry.readlink()
        place = Path("/") if target.is_absolute() else place
        todo += [step for step in reversed(target.parts) if step != "/"]

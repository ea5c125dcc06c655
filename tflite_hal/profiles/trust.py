"""Whom a file may belong to that says what code is run."""

from __future__ import annotations

import os
import shlex
import stat
from pathlib import Path

from tflite_hal.errors import ProfileError
from tflite_hal.profiles.document import At

__all__ = ["require_owned", "require_owned_file"]


def require_owned_file(file: Path, at: At) -> None:
    """Raise unless only the user and root can change a file, or put another in its place.

    In a folder with the sticky bit, such as /tmp, only a file's owner can replace it.
    """
    file = file.absolute()  # "chmod go-w ." would help nobody
    require_owned(file, at)
    for entry in dict.fromkeys((file, Path(os.path.realpath(file)))):
        require_owned(entry.parent, at, holding=entry)


def require_owned(path: Path, at: At, holding: Path | None = None) -> None:
    """Raise unless only the user and root can change ``path``; or, if it is sticky, what it is holding."""
    if os.name == "nt":
        return
    try:
        info = path.stat()
        entry = None if holding is None else holding.lstat()
    except OSError as error:
        raise ProfileError(f"{at}: {path}: {error.strerror}") from error
    quoted = shlex.quote(str(path))
    trusted = (0, os.geteuid())
    if info.st_uid not in trusted:
        reason = f"{at}: {path} belongs to user {info.st_uid}, neither to you nor to root"
        raise ProfileError(reason, remedy=f"copy it to a folder of yours, or chown {os.geteuid()} {quoted}")
    kept = entry is not None and info.st_mode & stat.S_ISVTX and entry.st_uid in trusted
    if info.st_mode & 0o022 and not kept:
        reason = f"{at}: {path} has mode {info.st_mode & 0o7777:04o}: others could change what is run"
        # Everybody's folder, such as /tmp, has to stay so.
        remedy = "use a folder of your own" if info.st_mode & stat.S_ISVTX else f"chmod go-w {quoted}"
        raise ProfileError(reason, remedy=remedy)

"""Whom a file may belong to that says what code is run."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from tflite_hal.errors import ProfileError
from tflite_hal.profiles.document import At

__all__ = ["require_owned"]


def require_owned(path: Path, at: At) -> None:
    """Raise unless only the user and root can change ``path``."""
    if os.name == "nt":
        return
    try:
        info = path.stat()
    except OSError as error:
        raise ProfileError(f"{at}: {path}: {error.strerror}") from error
    quoted = shlex.quote(str(path))
    if info.st_uid not in (0, os.geteuid()):
        reason = f"{at}: {path} belongs to user {info.st_uid}, neither to you nor to root"
        raise ProfileError(reason, remedy=f"copy it to a folder of yours, or chown {os.geteuid()} {quoted}")
    if info.st_mode & 0o022:
        reason = f"{at}: {path} has mode {info.st_mode & 0o7777:04o}: others could change what is run"
        raise ProfileError(reason, remedy=f"chmod go-w {quoted}")

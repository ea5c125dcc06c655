"""Writing a file so that it is there whole or not at all, and replaces another only where that is asked."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from tflite_hal.errors import TfliteHalError

__all__ = ["write_aside"]


def write_aside(target: Path, content: bytes, force: bool, mode: int = 0o600) -> None:
    """Write a file aside, then give it its name.

    Args:
        force: whether a file that is there is replaced.
        mode: the file's permissions.

    Raises:
        TfliteHalError: there is such a file, or it can't be written.
    """
    if os.path.lexists(target) and not force:
        raise _there(target)
    try:
        _put(target, content, force, mode)
    except FileExistsError:
        raise _there(target) from None
    except OSError as error:
        raise TfliteHalError(f"{target} can't be written: {error.strerror or error}") from error


def _there(target: Path) -> TfliteHalError:
    return TfliteHalError(f"{target} is there already", remedy="give another name, or --force to replace it")


def _put(target: Path, content: bytes, force: bool, mode: int) -> None:
    handle, aside = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(aside).chmod(mode)
        if not force:  # whoever was faster keeps the name
            os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        Path(aside).replace(target)
    except BaseException:
        Path(aside).unlink(missing_ok=True)
        raise

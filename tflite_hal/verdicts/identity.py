"""The SHA-256 of a model's file, remembered as long as the file is the same."""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from tflite_hal.verdicts.document import decode, encode
from tflite_hal.verdicts.folder import Folder

__all__ = ["sha256_of"]

_SHA256: Final = re.compile(r"[0-9a-f]{64}")
#: Nanoseconds in which a file can be written again without its time of modification telling.
_RACY: Final = 2 * 10**9


class _Identity(NamedTuple):
    path: str
    device: int
    inode: int
    size: int
    modified: int  #: nanoseconds since the epoch
    changed: int  #: likewise; tells of a file that was overwritten and given its old time back


def sha256_of(folder: Folder, path: str | os.PathLike[str], hash_now: Callable[[], str]) -> str:
    """Return the file's SHA-256; ``hash_now`` is asked where it is not known, or the file changed."""
    try:
        before = _identity(path)
        name = hashlib.sha256(os.fsencode(before.path)).hexdigest() + ".model.json"
    except (OSError, ValueError):
        return hash_now()  # it says better what is wrong with the file
    known = _known(folder, name, before)
    if known:
        return known
    began = time.time_ns()
    found = hash_now()
    try:
        unchanged = _identity(path) == before
    except OSError:
        return found  # removed while it was read
    if unchanged and before.modified < began - _RACY:
        folder.write(name, encode({"file": list(before), "sha256": found}))
    return found


def _known(folder: Folder, name: str, identity: _Identity) -> str:
    try:
        body = decode(folder.read(name))
    except (OSError, ValueError):
        return ""  # the first time, or damaged: written anew
    found = body.get("sha256")
    same = body.get("file") == list(identity)
    return found if same and isinstance(found, str) and _SHA256.fullmatch(found) else ""


def _identity(path: str | os.PathLike[str]) -> _Identity:
    file = os.path.abspath(path)  # noqa: PTH100 - Path.absolute keeps ".."
    info = Path(file).stat()
    return _Identity(file, info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns)

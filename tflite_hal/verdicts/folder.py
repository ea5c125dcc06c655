"""The folder of small files: where it is, whom it may belong to, and reading and writing in it."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tflite_hal.errors import ProfileError
from tflite_hal.profiles.document import At
from tflite_hal.profiles.trust import require_owned
from tflite_hal.verdicts.document import MAX_BYTES
from tflite_hal.verdicts.locking import acquire

__all__ = ["VERDICT", "Folder", "cache_folder"]

#: Names of files that hold verdicts.
VERDICT: Final = re.compile(r"[0-9a-f]{64}\.json")
_OTHERS: Final = re.compile(r"[0-9a-f]{64}\.model\.json|\.writing-[0-9]+-[0-9a-f]{16}")
_LOCK: Final = re.compile(r"[0-9a-f]{64}\.lock")
_SAFE: Final = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
_NOWHERE: Final = (
    "nothing is remembered: no folder is set and there is no home"
    " (to fix it: set TFLITE_HAL_CACHE_DIR to a folder of yours)"
)


def cache_folder() -> Path | None:
    """Return the folder to remember in: ``TFLITE_HAL_CACHE_DIR``, else the service's, else the user's;
    None where there is none of them."""
    named = os.environ.get("TFLITE_HAL_CACHE_DIR")
    # systemd's CacheDirectory=, already the service's own; it may be a list.
    named = named or os.environ.get("CACHE_DIRECTORY", "").split(os.pathsep)[0]
    if named:
        return Path(named)
    user = _user_cache()
    return None if user is None else user / "tflite-hal"


def _user_cache() -> Path | None:
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA", "")
        return Path(local) if local else None
    named = os.environ.get("XDG_CACHE_HOME", "")
    if Path(named).is_absolute():
        return Path(named)
    home = Path(os.environ.get("HOME", ""))
    if not home.is_absolute() or not os.path.isdir(home):  # noqa: PTH112 - Path.is_dir may raise
        return None  # users of services have homes that are not there: not ours to make
    return home / "Library" / "Caches" if sys.platform == "darwin" else home / ".cache"


class Folder:
    """A folder of files that only this user (or root) may have written.

    Attributes:
        problem: the first thing that kept something from being remembered, "" where nothing did.
    """

    __slots__ = ("_path", "_state", "problem")

    def __init__(self, path: Path | None) -> None:
        self._path = path or Path()
        self._state = "refused" if path is None else "unknown"
        self.problem = _NOWHERE if path is None else ""

    def ready(self, *, create: bool = False) -> bool:
        """Return whether it can be used; the first use decides. Only writing creates it."""
        if self._state == "unknown":
            try:
                self._path = self._path.absolute()
                if create:
                    _make(self._path)
                if not os.path.lexists(self._path):
                    return False
                self._check()
                self._state = "usable"
            except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
                self._state = "refused"
                self.blame(error)
        return self._state == "usable"

    def _check(self) -> None:
        require_owned(self._path, At("verdicts"))
        if not stat.S_ISDIR(self._path.stat().st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(self._path))
        # A link set by another user would have us write into a folder that is ours, but not meant.
        if os.name == "posix" and self._path.lstat().st_uid not in (0, os.geteuid()):
            raise ProfileError(f"verdicts: {self._path} is a link that belongs to another user")

    def blame(self, error: Exception, failed: str = "nothing is remembered in") -> None:
        """Keep why something is not remembered: the first reason explains the later ones."""
        self.problem = self.problem or f"{failed} {self._path}: {error}"

    def path(self, name: str) -> Path:
        """Return where a file is."""
        return self._path / name

    def names(self) -> list[str]:
        """Return the names of all files, sorted."""
        try:
            return sorted(one.name for one in self._path.iterdir()) if self.ready() else []
        except OSError as error:
            self.blame(error, "what is remembered can't be listed:")
            return []

    def read(self, name: str) -> bytes:
        """Return a file's bytes.

        Raises:
            OSError, ValueError: it can't be read, is no file, is too long, or others may have written it.
        """
        if not self.ready():
            raise FileNotFoundError(errno.ENOENT, "No usable folder", name)
        # Opening a pipe would wait for a writer, and a link leads to what is not ours.
        descriptor = os.open(self.path(name), os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | _SAFE)
        try:
            info = os.fstat(descriptor)
            if not stat.S_ISREG(info.st_mode):
                raise ValueError("not a file")
            if os.name == "posix" and (info.st_uid not in (0, os.geteuid()) or info.st_mode & 0o022):
                raise ValueError("others could have written it")
            parts = list(_pieces(descriptor))
        finally:
            os.close(descriptor)
        return b"".join(parts)

    def write(self, name: str, content: bytes, *, lasting: bool = False) -> bool:
        """Replace a file at once or not at all; ``lasting`` waits until a crash can't undo it."""
        if not self.ready(create=True):
            return False
        passing = self.path(f".writing-{os.getpid()}-{os.urandom(8).hex()}")
        try:
            try:
                _create(passing, content)
                os.replace(passing, self.path(name))  # noqa: PTH105 - one call for both names
            except BaseException:
                with contextlib.suppress(OSError):
                    passing.unlink()
                raise
        except OSError as error:
            self.blame(error)
            return False
        if lasting:
            _settle(self._path)
        return True

    def remove(self, name: str) -> bool:
        """Remove a file; whether there was one that could be removed."""
        try:
            self.path(name).unlink()
        except FileNotFoundError:
            return False
        except OSError as error:
            self.blame(error, f"{name} can't be removed from")
            return False
        return True

    def clean(self) -> None:
        """Remove what is ours and holds no verdict, but no lock that is held."""
        for name in self.names():
            if _OTHERS.fullmatch(name):
                self.remove(name)
            elif _LOCK.fullmatch(name):
                try:
                    lock = acquire(self.path(name), 0)
                except OSError as error:
                    self.blame(error, f"{name} can't be removed from")
                else:
                    if lock is not None:
                        lock.release()


def _make(folder: Path) -> None:
    missing = [one for one in (folder, *folder.parents) if not os.path.lexists(one)]
    for one in reversed(missing):
        one.mkdir(0o700, exist_ok=True)


def _create(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _SAFE, 0o600)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _settle(folder: Path) -> None:
    # The new name must survive too. Some systems can't open or flush a folder; then it is in time or not.
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | _SAFE)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _pieces(descriptor: int) -> Iterator[bytes]:
    left = MAX_BYTES
    while piece := os.read(descriptor, left + 1):
        left -= len(piece)
        if left < 0:
            raise ValueError(f"longer than {MAX_BYTES:,} bytes")
        yield piece

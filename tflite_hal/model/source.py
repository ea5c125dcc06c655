"""A model's file or bytes, and whether the file is still the one that was read."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from tflite_hal.errors import ModelError
from tflite_hal.model.info import ModelInfo

__all__ = ["Model", "Stamp", "read_file"]

Stamp = tuple[int, int, int, int]  #: device, inode, bytes, time of the last change in nanoseconds


class Model:
    """A model's file or bytes, and what is known about it.

    Attributes:
        path: absolute path, None for bytes.
        name: for messages.
        info: what is in it.
        stamp: what tells the file that was read from another one under its path; None for bytes.
    """

    __slots__ = ("_data", "info", "name", "path", "stamp")

    def __init__(
        self, path: str | None, data: bytes | None, name: str, info: ModelInfo, stamp: Stamp | None = None
    ) -> None:
        self.path = path
        self._data = data
        self.name = name
        self.info = info
        self.stamp = stamp

    @property
    def data(self) -> bytes:
        """The bytes; read from the file where it was given by path.

        Raises:
            ModelError: the file is gone, or is another one now.
        """
        if self._data is None:
            data, stamp = read_file(str(self.path))
            self.require(stamp)
            self._data = data
        return self._data

    def require(self, stamp: Stamp | None) -> None:
        """Refuse another file than the one that was read.

        Raises:
            ModelError: names it and what to do.
        """
        if stamp != self.stamp:
            raise ModelError(
                f"{self.path} was replaced after it was opened",
                remedy="make a new Runner; or give the model as bytes",
            )

    def require_unchanged(self) -> None:
        """Refuse a path that leads to another file by now, before a runtime opens it.

        Raises:
            ModelError: it does, or leads nowhere; names it and what to do.
        """
        if self.path is None:
            return
        try:
            self.require(_stamp(Path(self.path).stat()))
        except OSError as error:
            reason = f"{self.path} was removed after it was opened: {error.strerror}"
            raise ModelError(reason, remedy="make a new Runner; or give the model as bytes") from error

    def __repr__(self) -> str:
        return f"<Model {self.name}>"


def _stamp(found: os.stat_result) -> Stamp:
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


def _at_once(path: str, flags: int) -> int:
    """Open a file without waiting for who writes into it, should it be a pipe."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def read_file(path: str) -> tuple[bytes, Stamp]:
    """Return a file's bytes, and what tells it from another under the same path.

    Raises:
        ModelError: it can't be read; says why.
    """
    try:
        with open(path, "rb", opener=_at_once) as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):  # a pipe or a device: reading it may never end
                raise ValueError("it is no regular file, but a pipe or a device")
            return file.read(), _stamp(found)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        saved = "it is a SavedModel: convert it to .tflite first"
        remedy = (
            saved if isinstance(error, IsADirectoryError) and Path(path, "saved_model.pb").exists() else ""
        )
        raise ModelError(f"{path}: {reason}", remedy=remedy) from error

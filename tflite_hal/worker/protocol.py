"""What parent and child say to each other: frames over a socket, arrays in shared memory, errors as JSON."""

from __future__ import annotations

import json
import mmap
import os
import socket
import struct
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from tflite_hal import errors
from tflite_hal.errors import TfliteHalError, WorkerError

__all__ = ["Channel", "Reply", "SharedArrays", "described_error", "rebuilt_error"]

_HEADER: Final = struct.Struct(
    "<4sIQI"
)  # kind, length of the JSON or id of the call, length of the blob, descriptors
_MOST_JSON: Final = 64 << 20
_MOST_DESCRIPTORS: Final = 4


class Reply(NamedTuple):
    """One message: ``body`` and, where sent, ``blob`` and descriptors (the receiver closes them)."""

    kind: bytes  #: ``JSON``, ``CALL`` or ``DONE``
    number: int  #: id of the call
    body: dict[str, Any]
    blob: bytes = b""
    descriptors: tuple[int, ...] = ()


class Channel:
    """Frames over a Unix socket; both sides use it. One thread at a time."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock

    def send(self, body: Mapping[str, Any], *, blob: bytes = b"", descriptors: Sequence[int] = ()) -> None:
        """Send a JSON message; raises OSError where the other side is gone."""
        text = json.dumps(body).encode()
        header = _HEADER.pack(b"JSON", len(text), len(blob), len(descriptors))
        self._socket.settimeout(None)
        socket.send_fds(self._socket, [header], list(descriptors))
        self._socket.sendall(text)
        self._socket.sendall(blob)

    def send_call(self, kind: bytes, number: int) -> None:
        """Send the binary frame that starts (``CALL``) or ends (``DONE``) a call."""
        self._socket.sendall(_HEADER.pack(kind, number, 0, 0))

    def receive(self, limit: float | None = None) -> Reply:
        """Wait for a message.

        Raises:
            TimeoutError: nothing complete came within ``limit`` seconds.
            EOFError: the other side is gone, or sent what is no message.
        """
        deadline = None if limit is None else time.monotonic() + limit
        self._socket.settimeout(limit)
        try:
            data, descriptors, _, _ = socket.recv_fds(self._socket, _HEADER.size, _MOST_DESCRIPTORS)
            header = (
                data
                if len(data) == _HEADER.size
                else data + self._exactly(_HEADER.size - len(data), deadline)
            )
            kind, length, size, count = _HEADER.unpack(header)
            if kind in (b"CALL", b"DONE"):
                return Reply(kind, length, {})
            if kind != b"JSON" or length > _MOST_JSON or count != len(descriptors):
                raise EOFError("not a message of this protocol")
            body = json.loads(self._exactly(length, deadline))
            if not isinstance(body, dict):
                raise EOFError("not a message of this protocol")
            return Reply(kind, 0, body, self._exactly(size, deadline), tuple(descriptors))
        except (ConnectionError, ValueError) as error:
            raise EOFError(str(error)) from error

    def _exactly(self, size: int, deadline: float | None) -> bytes:
        parts = []
        while size:
            if deadline is not None:
                self._socket.settimeout(max(deadline - time.monotonic(), 0.001))
            part = self._socket.recv(min(size, 1 << 20))
            if not part:
                raise EOFError("the other side is gone")
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def fileno(self) -> int:
        """Return the socket's descriptor, for ``select``."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close the socket: the other side sees the end."""
        self._socket.close()


class SharedArrays:
    """Arrays in memory that two processes share through a descriptor.

    The layout is the list of (dtype name, shape) in order; each array starts at a multiple of 64 bytes.
    """

    def __init__(self, layout: Sequence[tuple[str, Sequence[int]]], descriptor: int | None = None) -> None:
        """Create the memory, or attach to the one behind ``descriptor`` (left open: it's the caller's).

        Raises:
            EOFError: the memory behind the descriptor is smaller than its layout.
        """
        self.layout = [(dtype, tuple(shape)) for dtype, shape in layout]
        places, total = [], 0
        for dtype, shape in self.layout:
            places.append(total)
            total += -(-int(np.dtype(dtype).itemsize * np.prod(shape, dtype=np.int64)) // 64) * 64
        self.descriptor = _new_memory(max(total, 64)) if descriptor is None else descriptor
        if os.fstat(self.descriptor).st_size < total:
            raise EOFError("shared memory smaller than its layout")
        self._memory = mmap.mmap(self.descriptor, max(total, 64))
        self.arrays = [
            np.ndarray(shape, dtype, buffer=self._memory, offset=place)
            for (dtype, shape), place in zip(self.layout, places, strict=True)
        ]

    def close_descriptor(self) -> None:
        """Close the descriptor; the memory stays mapped as long as the arrays live."""
        os.close(self.descriptor)


def _new_memory(size: int) -> int:
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("tflite-hal")
    else:
        descriptor, name = tempfile.mkstemp()
        Path(name).unlink()
    os.truncate(descriptor, size)
    return descriptor


def described_error(error: BaseException, place: str) -> dict[str, str]:
    """Return an exception as the JSON that :func:`rebuilt_error` understands; ``place`` is the end of
    its traceback, told for exceptions that are not ours."""
    if isinstance(error, TfliteHalError):
        return {
            "type": type(error).__name__,
            "reason": error.reason,
            "remedy": error.remedy,
            "stage": error.stage,
        }
    return {"type": "DelegateError", "reason": f"{type(error).__name__}: {error} ({place})", "remedy": ""}


def rebuilt_error(described: Mapping[str, str]) -> TfliteHalError:
    """Rebuild what :func:`described_error` described; an unknown type becomes a WorkerError."""
    kind = getattr(errors, str(described.get("type")), WorkerError)
    if not (isinstance(kind, type) and issubclass(kind, TfliteHalError)):
        kind = WorkerError
    error = kind(str(described.get("reason", "")), remedy=str(described.get("remedy", "")))
    error.stage = str(described.get("stage", ""))
    return error

"""What parent and child say to each other: frames over a socket, arrays in shared memory, errors as JSON."""

from __future__ import annotations

import itertools
import json
import mmap
import os
import socket
import struct
import time
import traceback
import weakref
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from tflite_hal import errors
from tflite_hal.errors import TfliteHalError, WorkerError

__all__ = [
    "Channel",
    "Reply",
    "SharedArrays",
    "described_error",
    "new_memory",
    "rebuilt_error",
    "socket_pair",
]

#: kind, number of the request, length of the JSON or number of the call, length of the blob, descriptors
_HEADER: Final = struct.Struct("<4sQIQI")
_MOST_JSON: Final = 64 << 20
_MOST_BLOB: Final = 2 << 30  # a flatbuffer's own limit
_MOST_DESCRIPTORS: Final = 4


class Reply(NamedTuple):
    """One message: ``body`` and, where sent, ``blob`` and descriptors (the receiver closes them)."""

    kind: bytes  #: ``JSON``, ``CALL`` or ``DONE``
    number: int  #: of the request; an answer has its request's
    body: dict[str, Any]
    blob: bytes = b""
    descriptors: tuple[int, ...] = ()
    call: int = 0  #: ``CALL``: number of the call to run; ``DONE``: nanoseconds that running it took
    fresh: bool = False  #: whether the caller does not have the outputs' memory yet


class Channel:
    """Numbered frames over a Unix socket; both sides use it. One thread at a time.

    Attributes:
        in_step: False after a frame was cut short, by a time limit or Ctrl-C: what follows on the
            socket can't be told from the rest of it.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._numbers = itertools.count(1)
        self.in_step = True

    def introduce(self, path: bytes) -> None:
        """Send what a new child needs before it can import this module: its search path."""
        self._send([struct.pack("<I", len(path)), path], (), None)

    def ask(
        self,
        body: Mapping[str, Any],
        limit: float,
        *,
        blob: bytes | memoryview = b"",
        descriptors: Sequence[int] = (),
    ) -> Reply:
        """Send a request and return its answer, both within ``limit`` seconds.

        Raises:
            TimeoutError: it was not sent and answered by then.
            EOFError, OSError: the other side is gone.
            ValueError: the other side sent what is no message of this protocol.
        """
        number, deadline = next(self._numbers), time.monotonic() + limit
        self.send(body, number=number, blob=blob, descriptors=descriptors, deadline=deadline)
        return self._answer(number, deadline)

    def ask_call(self, call: int, limit: float, *, fresh: bool) -> Reply:
        """Ask for a run of a prepared call by a fixed frame; as :meth:`ask`.

        ``fresh`` asks for the memory of the outputs, in a JSON answer; else it is known and the answer
        is ``DONE``, or JSON where the outputs have changed shape.
        """
        number, deadline = next(self._numbers), time.monotonic() + limit
        self._send([_HEADER.pack(b"CALL", number, call, int(fresh), 0)], (), deadline)
        return self._answer(number, deadline)

    def _answer(self, number: int, deadline: float) -> Reply:
        while True:
            reply = self.receive(deadline)
            if reply.number == number:
                return reply
            # The answer to a request that Ctrl-C made its caller give up.
            for descriptor in reply.descriptors:
                os.close(descriptor)

    def send(
        self,
        body: Mapping[str, Any],
        *,
        number: int,
        blob: bytes | memoryview = b"",
        descriptors: Sequence[int] = (),
        deadline: float | None = None,
    ) -> None:
        """Send a JSON message; raises OSError where the other side is gone, TimeoutError at the deadline."""
        text = json.dumps(body).encode()
        header = _HEADER.pack(b"JSON", number, len(text), len(blob), len(descriptors))
        self._send([header, text, blob] if blob else [header, text], descriptors, deadline)

    def send_done(self, number: int, took: int) -> None:
        """Send the binary frame that answers a call whose outputs' memory is known; it took so many
        nanoseconds."""
        self._send([_HEADER.pack(b"DONE", number, took, 0, 0)], (), None)

    def _send(
        self, parts: Sequence[bytes | memoryview], descriptors: Sequence[int], deadline: float | None
    ) -> None:
        self._set_time(deadline)
        # The parts of a small message leave in one system call: Ctrl-C comes before or after it.
        sent = socket.send_fds(self._socket, parts, list(descriptors))
        for part in parts:
            if sent < len(part):
                self.in_step = False
                self._set_time(deadline)
                self._socket.sendall(memoryview(part)[sent:])
            sent = max(sent - len(part), 0)
        self.in_step = True

    def receive(self, deadline: float | None = None, *, blobs: bool = False) -> Reply:
        """Wait for a message; ``blobs`` says whether it may hold one.

        Raises:
            TimeoutError: nothing complete came before the deadline (of ``time.monotonic``).
            EOFError, OSError: the other side is gone.
            ValueError: it sent what is no message of this protocol.
        """
        self._set_time(deadline)
        header, descriptors, flags, _ = socket.recv_fds(self._socket, _HEADER.size, _MOST_DESCRIPTORS)
        self.in_step = False
        try:
            # Fewer come than were sent where this process has no descriptor left.
            lost = bool(flags & socket.MSG_CTRUNC)
            reply = self._rest(header, tuple(descriptors), lost, deadline, blobs)
        except BaseException:
            for descriptor in descriptors:
                os.close(descriptor)
            raise
        self.in_step = True
        return reply

    def _rest(
        self, header: bytes, descriptors: tuple[int, ...], lost: bool, deadline: float | None, blobs: bool
    ) -> Reply:
        if not header:
            raise EOFError("the other side is gone")
        header += self._exactly(_HEADER.size - len(header), deadline)
        kind, number, length, size, count = _HEADER.unpack(header)
        if kind in (b"CALL", b"DONE") and not descriptors:
            return Reply(kind, number, {}, call=length, fresh=bool(size))
        if kind != b"JSON" or length > _MOST_JSON or (count != len(descriptors) and not lost):
            raise ValueError("not a message of this protocol")
        if size > (_MOST_BLOB if blobs else 0):
            raise ValueError(f"a message with {size} bytes attached")
        body = json.loads(self._exactly(length, deadline))
        if not isinstance(body, dict):
            raise ValueError("not a message of this protocol")
        return Reply(kind, number, body, self._exactly(size, deadline), descriptors)

    def _exactly(self, size: int, deadline: float | None) -> bytes:
        parts = []
        while size:
            self._set_time(deadline)
            part = self._socket.recv(min(size, 1 << 20))
            if not part:
                raise EOFError("the other side is gone")
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def _set_time(self, deadline: float | None) -> None:
        # Never 0: that would mean "do not wait" and raise another error.
        self._socket.settimeout(None if deadline is None else max(deadline - time.monotonic(), 1e-4))

    def fileno(self) -> int:
        """Return the socket's descriptor, for ``select``."""
        return self._socket.fileno()

    def end(self) -> None:
        """End the conversation: the other side sees it although a forked process holds a copy."""
        with suppress(OSError):  # the other side was gone before
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def close(self) -> None:
        """Close this copy of the socket."""
        self._socket.close()


def socket_pair() -> tuple[socket.socket, socket.socket]:
    """Return two connected sockets, neither with the number of a standard stream: an application that
    runs without those would print into it."""
    ours, theirs = socket.socketpair()
    return _above_standard(ours), _above_standard(theirs)


def _above_standard(sock: socket.socket) -> socket.socket:
    if sock.fileno() > 2:
        return sock
    with sock:
        return socket.socket(fileno=_copy_above_standard(sock.fileno()))


def _copy_above_standard(descriptor: int) -> int:
    import fcntl  # POSIX only, as are workers

    return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 3)


class SharedArrays:
    """Arrays in memory that two processes share through a descriptor.

    The layout is the list of (dtype name, shape) in order; each array starts at a multiple of 64 bytes.
    """

    def __init__(self, layout: Sequence[tuple[str, Sequence[int]]], descriptor: int | None = None) -> None:
        """Create the memory, or attach to the one behind ``descriptor`` (left open: it's the caller's).

        Raises:
            ValueError: the memory behind the descriptor is smaller than its layout, or no layout.
            OSError: no memory or no descriptor is left.
        """
        self.layout = [(dtype, tuple(shape)) for dtype, shape in layout]
        places, total = [], 0
        for dtype, shape in self.layout:
            places.append(total)
            total += -(-int(np.dtype(dtype).itemsize * np.prod(shape, dtype=np.int64)) // 64) * 64
        self.descriptor = new_memory(max(total, 64)) if descriptor is None else descriptor
        self._finalizer = weakref.finalize(self, os.close, self.descriptor) if descriptor is None else None
        if os.fstat(self.descriptor).st_size < total:
            raise ValueError("shared memory smaller than its layout")
        self._memory = mmap.mmap(self.descriptor, max(total, 64))
        self.arrays = [
            np.ndarray(shape, dtype, buffer=self._memory, offset=place)
            for (dtype, shape), place in zip(self.layout, places, strict=True)
        ]

    def close_descriptor(self) -> None:
        """Close the descriptor of memory created here; it stays mapped as long as the arrays live."""
        if self._finalizer is not None:
            self._finalizer()


def new_memory(size: int = 0) -> int:
    """Return the descriptor of new memory that is a file without a name, above the standard streams.

    Raises:
        OSError: no memory, no descriptor or, where the system needs one, no temporary folder.
    """
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("tflite-hal")
    else:
        import tempfile  # not on Linux: it costs 2 ms

        descriptor, name = tempfile.mkstemp()
        Path(name).unlink()
    if descriptor <= 2:
        low, descriptor = descriptor, _copy_above_standard(descriptor)
        os.close(low)
    if size:
        os.truncate(descriptor, size)
    return descriptor


def described_error(error: BaseException) -> dict[str, str]:
    """Return an exception as the JSON that :func:`rebuilt_error` understands; one that is not ours in one
    line, with the end of its traceback."""
    if isinstance(error, TfliteHalError):
        return {
            "type": next(kind.__name__ for kind in type(error).__mro__ if kind.__module__ == errors.__name__),
            "reason": error.reason,
            "remedy": error.remedy,
            "stage": error.stage,
        }
    place = traceback.format_exception(type(error), error, error.__traceback__)[-2:]
    text, tail = " ".join(str(error).split()), " ".join("".join(place).split())[-300:]
    return {"type": "DelegateError", "reason": f"{type(error).__name__}: {text} ({tail})", "remedy": ""}


def rebuilt_error(described: Mapping[str, str]) -> TfliteHalError:
    """Rebuild what :func:`described_error` described; an unknown type becomes a WorkerError."""
    kind = getattr(errors, str(described.get("type")), WorkerError)
    if not (isinstance(kind, type) and issubclass(kind, TfliteHalError)):
        kind = WorkerError
    error = kind(str(described.get("reason", "")), remedy=str(described.get("remedy", "")))
    error.stage = str(described.get("stage", ""))
    return error

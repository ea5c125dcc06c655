"""Whether the process that wrote something is still there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

__all__ = ["Process", "is_running", "this_process"]

_BOOT = Path("/proc/sys/kernel/random/boot_id")


class Process(NamedTuple):
    """A process that no other is mistaken for, where the system tells; "" is unknown."""

    pid: int
    boot: str = ""  #: of the system: numbers start again
    namespace: str = ""  #: two containers have a process 1 each
    start: str = ""  #: numbers are given again


def this_process() -> Process:
    """Return this one."""
    pid = os.getpid()
    try:
        if Path("/proc/self").readlink().name != str(pid):
            return Process(pid)  # another namespace's /proc: its numbers are not ours
        namespace = str(Path("/proc/self/ns/pid").readlink())
        return Process(pid, _BOOT.read_text().strip(), namespace, _state_and_start(pid)[1])
    except OSError:
        return Process(pid)  # no /proc here


def is_running(process: Process) -> bool | None:
    """Return whether it is there; None where that can't be told from here."""
    own = this_process()
    if not own.start or not process.start or process[1:3] != own[1:3]:
        return None
    try:
        state, start = _state_and_start(process.pid)
    except (FileNotFoundError, ProcessLookupError):
        return False
    except OSError:
        return None
    return start == process.start and state not in "ZX"  # dead, and nobody asked yet how it ended


def _state_and_start(pid: int) -> tuple[str, str]:
    # The name stands in parentheses and may hold any character, parentheses and spaces too.
    fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    return fields[0].decode("ascii"), fields[19].decode("ascii")

"""Verdicts: written before and after a trial, read at the next start, listed and forgotten."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

from tflite_hal.selection import Outcome
from tflite_hal.verdicts.document import canonical, decode, encode, storable
from tflite_hal.verdicts.document import key as key_of
from tflite_hal.verdicts.folder import VERDICT, Folder
from tflite_hal.verdicts.identity import sha256_of
from tflite_hal.verdicts.locking import acquire, is_held
from tflite_hal.verdicts.processes import Process, is_running, this_process

__all__ = ["Entry", "Verdict", "Verdicts", "quarantined"]

#: What a trial can find. The others say that none was made, or repeat what is remembered already.
_REMEMBERED: Final = frozenset(Outcome) - {
    Outcome.UNAVAILABLE,
    Outcome.EXCLUDED,
    Outcome.UNTRIED,
    Outcome.QUARANTINED,
}
_KEY: Final = re.compile(r"[0-9a-f]{64}")
#: Seconds since the epoch: what has a date.
_LATEST: Final = 1e11


class Verdict(NamedTuple):
    """An attempt that is remembered, or the beginning of one."""

    key: str
    parts: Mapping[str, Any]  #: what decides, as the caller gave it
    outcome: Outcome | None  #: None where the trial has not ended
    attempt: Mapping[str, Any]  #: as its ``to_dict`` and the caller had it
    when: float  #: seconds since the epoch
    state: str  #: ``finished``; ``started``: by a process that is there; ``interrupted``: by one that is gone
    same_boot: bool = False  #: whether it was written since the system started

    @property
    def remedy(self) -> str:
        """The command that has it tried again."""
        return f"tflite-hal verdicts forget {self.key[:12]}"

    @property
    def day(self) -> str:
        """Its date, in UTC."""
        # Here because the usual start shows no date; by day numbers because 32-bit systems have no
        # other times after 2038.
        from datetime import date

        return date.fromordinal(date(1970, 1, 1).toordinal() + int(self.when // 86400)).isoformat()

    def to_dict(self) -> dict[str, Any]:
        """Return it JSON-ready."""
        return {**self._asdict(), "outcome": None if self.outcome is None else self.outcome.value}


class Entry(NamedTuple):
    """A file: a verdict, or why it is none."""

    key: str
    verdict: Verdict | None
    problem: str = ""


def quarantined(verdict: Verdict, limit: float) -> str:
    """Return why what it is about must not be tried again, "" where it may; ``limit``: seconds that a
    trial would have now. One that was too slow gets another chance with more time (the attempt's
    ``limit`` is what it had)."""
    if verdict.state == "interrupted":
        return f"a trial on {verdict.day} took the machine or the process down"
    if verdict.outcome not in (Outcome.CRASHED, Outcome.HUNG):
        return ""
    had = verdict.attempt.get("limit")
    if verdict.outcome is Outcome.HUNG and isinstance(had, (int, float)) and limit > had:
        return ""
    stage, reason = verdict.attempt.get("stage"), verdict.attempt.get("reason")
    place = f" at {stage}" if stage else ""
    return f"it {verdict.outcome.value}{place} on {verdict.day}" + (f": {reason}" if reason else "")


class Verdicts:
    """The verdicts in a folder, shared with other processes of this user.

    Nothing happens before the first use, and the folder is created by the first writing.

    Attributes:
        unusable: by key, why a file that was read is no verdict.
    """

    __slots__ = ("_folder", "_held", "unusable")

    def __init__(self, folder: Path | None) -> None:
        self._folder = Folder(folder)
        self._held: dict[str, int] = {}  # by key, the thread
        self.unusable: dict[str, str] = {}

    @property
    def problem(self) -> str:
        """Why something could not be remembered, for one warning; "" where nothing went wrong."""
        return self._folder.problem

    def read(self, key: str, parts: Mapping[str, Any]) -> Verdict | None:
        """Return what is known, None where nothing is; never raises for what is in the file."""
        entry = self._entry(_checked(key))
        if entry is None or entry.verdict is None:
            return None
        if canonical(entry.verdict.parts) == canonical(dict(parts)):
            return entry.verdict
        self.unusable[key] = "it is about something else"
        return None

    def start(self, key: str, parts: Mapping[str, Any]) -> bool:
        """Note that a trial begins, before it does; whether that is on disk."""
        return self._write(key, parts, {}, None)

    def finish(self, key: str, parts: Mapping[str, Any], attempt: Mapping[str, Any]) -> bool:
        """Remember how a trial ended: the attempt's ``to_dict()``, and ``limit``, the seconds it had.

        An attempt that proves nothing (``unavailable``, ``excluded``, ``untried``, ``quarantined``) is
        not remembered: a device that is absent now may be there at the next start.

        Returns:
            Whether it is on disk.

        Raises:
            ValueError: ``outcome`` is no outcome.
        """
        outcome = Outcome(attempt["outcome"])
        if outcome in _REMEMBERED and self._write(key, parts, storable(attempt), outcome):
            return True
        self.cancel(key)  # a beginning that was left would look like a trial that took the machine down
        return False

    def cancel(self, key: str) -> None:
        """Withdraw this process's ``start``, where a trial was stopped on purpose, by Ctrl-C say."""
        name = f"{_checked(key)}.json"
        try:
            body = decode(self._folder.read(name))
        except (OSError, ValueError):
            return  # none of ours: that would be readable
        if body.get("outcome") is None and body.get("process") == list(this_process()):
            self._folder.remove(name)

    @contextmanager
    def lock(self, key: str, limit: float) -> Iterator[bool]:
        """Keep other processes (and threads) from trying the same; waits ``limit`` seconds for them.

        Gives whether it is held: not where another still tries, or where nothing can be locked (then
        there is a ``problem``). It ends with the process at the latest.
        """
        lock = None
        if self._folder.ready(create=True):
            try:
                lock = acquire(self._folder.path(f"{_checked(key)}.lock"), limit)
            except OSError as error:
                self._folder.blame(error, "trials can't be kept apart by a lock in")
        if lock is None:
            yield False
            return
        self._held[key] = threading.get_ident()
        try:
            yield True
        finally:
            del self._held[key]
            lock.release()

    def entries(self, prefix: str = "") -> list[Entry]:
        """Return all files whose key begins so, by key, with those that are no verdicts."""
        keys = [name[:64] for name in self._folder.names() if VERDICT.fullmatch(name)]
        found = [self._entry(key) for key in keys if key.startswith(prefix)]
        return [entry for entry in found if entry is not None]

    def forget(self, prefix: str | None = None) -> int:
        """Remove the verdicts whose key begins so, or with None everything that is ours; how many
        verdicts that were. Files of other names stay."""
        names = [name for name in self._folder.names() if VERDICT.fullmatch(name)]
        if prefix is not None:
            names = [name for name in names if prefix and name[:64].startswith(prefix)]
        removed = sum(self._folder.remove(name) for name in names)
        if prefix is None:
            self._folder.clean()
        return removed

    def model_sha256(self, path: str | os.PathLike[str], hash_now: Callable[[], str]) -> str:
        """Return a file's SHA-256; ``hash_now`` is asked where the file changed since it was last."""
        return sha256_of(self._folder, path, hash_now)

    def _write(
        self, key: str, parts: Mapping[str, Any], attempt: Mapping[str, Any], outcome: Outcome | None
    ) -> bool:
        body = {
            "parts": dict(parts),
            "outcome": None if outcome is None else outcome.value,
            "attempt": attempt,
            "when": time.time(),
            "process": list(this_process()),
        }
        try:
            content = encode(body)
        except ValueError as error:
            self._folder.blame(error)
            return False
        return self._folder.write(f"{_checked(key)}.json", content, lasting=True)

    def _entry(self, key: str) -> Entry | None:
        if not self._folder.ready():
            return None
        try:
            verdict = self._verdict(key, decode(self._folder.read(f"{key}.json")))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            self.unusable[key] = str(error)
            return Entry(key, None, str(error))
        return Entry(key, verdict)

    def _verdict(self, key: str, body: Mapping[str, Any]) -> Verdict:
        parts, attempt, outcome = body.get("parts"), body.get("attempt"), body.get("outcome")
        when, process = body.get("when"), _process(body.get("process"))
        if not isinstance(parts, dict) or not isinstance(attempt, dict) or process is None:
            raise ValueError("not a verdict")
        if not isinstance(when, float) or not 0 <= when < _LATEST:
            raise ValueError("not a verdict: its time is none")
        if key_of(parts) != key:
            raise ValueError("it is about something else than its name says")
        if outcome is None:
            state = "started" if self._still_runs(key, process) else "interrupted"
            boot = this_process().boot
            return Verdict(key, parts, None, attempt, when, state, bool(boot) and boot == process.boot)
        found = Outcome(outcome)
        if found not in _REMEMBERED:
            raise ValueError(f"{found.value} is nothing to remember")
        return Verdict(key, parts, found, attempt, when, "finished")

    def _still_runs(self, key: str, process: Process) -> bool:
        running = is_running(process)
        if running is not None:
            return running
        # Another container, host or boot, or a system that doesn't tell: the lock does, since whoever
        # tries holds it and the kernel frees it. Where it is ours, no other has it.
        mine = self._held.get(key) == threading.get_ident()
        return not mine and is_held(self._folder.path(f"{key}.lock"))


def _checked(key: str) -> str:
    if not _KEY.fullmatch(key):
        raise ValueError(f"{key!r} is no key")
    return key


def _process(given: Any) -> Process | None:
    if not isinstance(given, list) or [type(one) for one in given] != [int, str, str, str]:
        return None
    return Process(*given)

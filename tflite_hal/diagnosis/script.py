"""The remedies of a diagnosis as a shell script that somebody reads before running any of it."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from tflite_hal.diagnosis.finding import Finding
from tflite_hal.diagnosis.unreached import Unreached
from tflite_hal.runtime import RuntimeStatus

__all__ = ["repair_script"]

_WIDTH: Final = 79
_HEAD: Final = """\
#!/bin/sh
# What stands in the way on this machine, and what to do about it. None of it
# was run: read it, take out what you do not want, and run the rest. Remedies
# that are no commands are comments.
set -e
"""


def repair_script(
    found: Iterable[Finding], runtimes: Sequence[RuntimeStatus], others: Iterable[Unreached]
) -> str:
    """Return the script: what is wrong as comments, what fixes it as commands where it is one."""
    lines = [line for block in _blocks(found, runtimes, others) for line in ("", *block)]
    return _HEAD + "\n".join(lines or ["", "# Nothing: no remedy is known that this machine needs."]) + "\n"


def _blocks(
    found: Iterable[Finding], runtimes: Sequence[RuntimeStatus], others: Iterable[Unreached]
) -> Iterator[list[str]]:
    given: set[str] = set()
    for runtime in _needed(runtimes):
        command = runtime.remedy if runtime.remedy.startswith("pip install") else ""
        yield _block(f"{runtime.name}: {runtime.reason}", runtime.remedy, command, given)
    for one in found:
        problem = one.problem
        if problem is not None and (problem.remedy or problem.command):
            place = " ".join(filter(None, (one.delegate, one.device)))
            title = f"{place}, {problem.stage}: {problem.evidence}"
            yield _block(title, problem.remedy, problem.command, given)
    for other in others:
        if other.remedy:
            yield _block(f"{other.name}: {other.evidence}; {other.reason}", other.remedy, "", given)


def _needed(runtimes: Sequence[RuntimeStatus]) -> list[RuntimeStatus]:
    """Return the runtimes to be repaired; of absent ones the first, where none can be used."""
    broken = [one for one in runtimes if one.state == "broken"]
    absent = [one for one in runtimes if one.state == "absent" and one.remedy]
    usable = any(one.state in ("usable", "unchecked") for one in runtimes)
    return broken if usable or not absent else [*broken, absent[0]]


def _block(title: str, remedy: str, command: str, given: set[str]) -> list[str]:
    lines = _comment(title, "# ")
    if remedy and remedy != command:
        lines += _comment(remedy, "#   ")
    if command in given:
        return [*lines, "# (the command for it is above)"]
    given |= {command} if command else set()
    return [*lines, command] if command else lines


def _comment(text: str, start: str) -> list[str]:
    """Return text as comments: whatever is in it, no line of it is a command."""
    plain = "".join(letter if letter.isprintable() else " " for letter in " ".join(text.split()))
    return textwrap.wrap(plain, _WIDTH, initial_indent=start, subsequent_indent=start, break_long_words=False)

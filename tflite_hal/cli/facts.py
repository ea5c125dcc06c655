"""How facts of device profiles are shown to people and to scripts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

from tflite_hal.profiles import Accelerator, Fact

__all__ = ["plain", "print_accelerators", "print_facts", "row"]


def row(fact: Accelerator | Fact) -> dict[str, Any]:
    """Return a fact JSON-ready, with all its keys."""
    given = fact._asdict()
    given |= (
        {"match": fact.match._asdict()} if isinstance(fact, Accelerator) else {"affects": dict(fact.affects)}
    )
    return given


def plain(value: Any) -> str:
    """Return nested values in one line."""
    if isinstance(value, Mapping):
        return "; ".join(f"{key} {plain(one)}" for key, one in value.items())
    if isinstance(value, list):
        joint = " or " if value and isinstance(value[0], Mapping) else ", "
        return joint.join(plain(one) for one in value)
    return str(value)


def print_accelerators(there: Sequence[Accelerator]) -> None:
    """Print what a machine has, what reaches it, and how that is known."""
    _heading("accelerators", there)
    for one in there:
        words = [f"delegate {' or '.join(one.delegates)}" if one.delegates else "no delegate"]
        words += [f"else {one.instead}"] if one.instead else []
        words += [one.text] if one.text else []
        click.echo(f"  {one.kind} {one.name}: {'; '.join(words)}")
        click.echo(f"    {_origin(one)}")


def print_facts(title: str, facts: Sequence[Fact]) -> None:
    """Print facts, when they hold, and where each can be looked up."""
    _heading(title, facts)
    for fact in facts:
        where = [fact.applies or "", *(f"{name} {versions}" for name, versions in fact.affects.items())]
        said = f"{fact.text} [{'; '.join(filter(None, where))}]" if any(where) else fact.text
        click.echo(f"  {said}\n    {_origin(fact)}" if said else f"  {_origin(fact)}")


def _heading(title: str, of: Sequence[object]) -> None:
    if of:
        click.echo(title)


def _origin(fact: Accelerator | Fact) -> str:
    return f"{fact.provenance}: {'; '.join(fact.source)}"

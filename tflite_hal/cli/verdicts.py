"""The commands about what is remembered: list it, show it, forget it."""

from __future__ import annotations

from typing import Any

import click
from rich.markup import escape

from tflite_hal.cli import show as shown
from tflite_hal.errors import InputError, TfliteHalError
from tflite_hal.verdicts import Entry, Verdicts, cache_folder, quarantined

__all__ = ["verdicts"]

_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group()
def verdicts() -> None:
    """What trials found on this machine: list, show, forget."""


@verdicts.command("list")
@_json_option
def list_(as_json: bool) -> None:
    """List what is remembered, and files that can't be read as such."""
    entries = _usable(store := _store(), store.entries())
    if as_json:
        shown.print_json([_row(entry) for entry in entries])
        return
    if not entries:
        click.echo(f"nothing is remembered in {cache_folder()}")
        return
    rows = shown.table("key", "date", "candidate", "outcome")
    for entry in entries:
        if entry.verdict is None:
            rows.add_row(entry.key[:12], "-", "-", f"[yellow]no verdict: {escape(entry.problem)}[/]")
            continue
        row = _row(entry)
        reason = row["quarantined"] or str(row["attempt"].get("reason") or "")
        outcome = escape(row["outcome"] or row["state"]) + (f": {escape(reason)}" if reason else "")
        rows.add_row(entry.key[:12], entry.verdict.day, escape(_candidate(row)), outcome)
    shown.console().print(rows)


@verdicts.command()
@click.argument("key")
@_json_option
def show(key: str, as_json: bool) -> None:
    """Show the verdict whose key begins with KEY."""
    entries = _usable(store := _store(), store.entries(key))
    if len(entries) != 1:
        found = f"{len(entries)} verdicts begin" if entries else "no verdict begins"
        raise InputError(f"{found} with {key!r}", remedy="tflite-hal verdicts list")
    row = _row(entries[0])
    if as_json:
        shown.print_json(row)
        return
    for name, value in row.items():
        if isinstance(value, dict):
            click.echo(f"{name}")
            for inner, one in value.items():
                click.echo(f"  {inner}: {one}")
        elif value not in (None, ""):
            click.echo(f"{name}: {value}")


@verdicts.command()
@click.argument("key", required=False)
@click.option("--all", "everything", is_flag=True, help="Forget all, damaged files and hashes too.")
@_json_option
def forget(key: str | None, everything: bool, as_json: bool) -> None:
    """Forget the verdicts whose key begins with KEY, so that they are tried again."""
    if bool(key) == everything:
        raise click.UsageError("give a KEY, or --all")
    store = _store()
    removed = _usable(store, store.forget(None if everything else key))
    if not removed and not everything:
        raise InputError(f"no verdict begins with {key!r}", remedy="tflite-hal verdicts list")
    if as_json:
        shown.print_json({"forgotten": removed})
    else:
        click.echo(f"{removed} forgotten")


def _store() -> Verdicts:
    return Verdicts(cache_folder())


def _usable(store: Verdicts, answer: Any) -> Any:
    """Return the answer, unless the folder could not be used: then it says nothing."""
    if store.problem:
        raise TfliteHalError(store.problem)
    return answer


def _row(entry: Entry) -> dict[str, Any]:
    if entry.verdict is None:
        return {"key": entry.key, "state": "unusable", "problem": entry.problem}
    return {
        **entry.verdict.to_dict(),
        "date": entry.verdict.day,
        "quarantined": quarantined(entry.verdict, 0),
    }


def _candidate(row: dict[str, Any]) -> str:
    attempt = row["attempt"] or row["parts"]  # a beginning has only the parts, whatever the caller put there
    words = [str(attempt[name]) for name in ("delegate", "device") if attempt.get(name)]
    details = [str(attempt[name]) for name in ("configuration", "runtime") if attempt.get(name)]
    return " on ".join(words) + (f" ({', '.join(details)})" if details else "")

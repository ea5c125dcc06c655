"""The commands about device profiles: list, show, match, check and write them."""

from __future__ import annotations

import datetime
import difflib
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import click
from rich.markup import escape

from tflite_hal.cli import facts
from tflite_hal.cli import show as shown
from tflite_hal.cli.aside import write_aside
from tflite_hal.errors import ProfileError
from tflite_hal.host import probe_host
from tflite_hal.kernels import BuiltinKernels
from tflite_hal.manager import Manager
from tflite_hal.profiles import (
    DeviceProfile,
    accelerators,
    chosen_among,
    draft_name,
    draft_profile,
    explain,
    json_schema,
    load_profile,
    load_profiles,
    profile_folders,
    quirks,
    unknown_delegates,
)
from tflite_hal.trust import distrust_file

__all__ = ["profiles"]

_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_root_option = click.option(
    "--root",
    default="/",
    type=click.Path(exists=True, file_okay=False),
    help="The machine of this file tree.",
)
_LONGEST = 100  # of the reason why a profile does not match, in the list


class _Known(NamedTuple):
    """Every profile there is, and which names delegates have."""

    profiles: tuple[DeviceProfile, ...]
    errors: tuple[ProfileError, ...]
    delegates: frozenset[str]


@click.group(invoke_without_command=True)
@_root_option
@_json_option
@click.pass_context
def profiles(ctx: click.Context, root: str, as_json: bool) -> None:
    """What is known of families of machines. Without a command: list.

    \b
    Exit status: 0; 1 where validate finds a mistake; 3 where match finds no profile; 2 for errors.
    """
    if ctx.invoked_subcommand is None:
        _list(root, as_json)
    elif as_json or root != "/":
        raise click.UsageError(f"give --root and --json after {ctx.invoked_subcommand}")


@profiles.command("list")
@_root_option
@_json_option
def list_(root: str, as_json: bool) -> None:
    """List all, which is in force on this machine, and why each does or does not match."""
    _list(root, as_json)


@profiles.command()
@click.argument("name")
@_json_option
def show(name: str, as_json: bool) -> None:
    """Show the profile NAME, or that of a file: what it says, and where that is from."""
    profile = _find(name)
    if as_json:
        shown.print_json(profile.to_dict())
        return
    click.echo(f"{profile.name}: {profile.title}")
    for key, value in profile.to_dict().items():
        if key not in ("name", "title", "accelerators", "quirks", "sources"):
            click.echo(f"  {key}: {facts.plain(value)}")
    facts.print_accelerators(profile.accelerators)
    facts.print_facts("quirks", profile.quirks)
    for key, grounds in profile.sources.items():
        facts.print_facts(f"grounds of {key}", grounds)


@profiles.command()
@click.argument("files", nargs=-1, required=True, type=click.Path())
@_json_option
def validate(files: Sequence[str], as_json: bool) -> None:
    """Check profiles: keys, values, names of delegates, and who may write the file.

    Exit status 1 where one would be refused; what is only doubtful is a warning.
    """
    known = _known()
    rows = [_validated(file, known) for file in files]
    if as_json:
        shown.print_json(rows)
    for row in () if as_json else rows:
        click.echo(f"{row['file']}: {'ok' if row['valid'] else 'refused'}")
        for key in ("errors", "warnings"):
            for line in row[key]:
                click.echo(f"  {key[:-1]}: {line}")
    if not all(row["valid"] for row in rows):
        _exit(1)


@profiles.command()
@_root_option
@_json_option
def match(root: str, as_json: bool) -> None:
    """Tell which profile is in force on a machine, why, and what it knows of it.

    Exit status 3 where none is.
    """
    host, known = probe_host(root), _known()
    best = chosen_among(None, host, known.profiles, known.errors).match
    others = [(name, why) for name, fits, why in explain(host, known.profiles) if fits]
    others = [(name, why) for name, why in others if best is None or name != best.profile.name]
    there, wrong = accelerators(host, known.profiles), quirks(host, known.profiles)
    if as_json:
        shown.print_json(
            {
                "in_force": None if best is None else best.profile.name,
                "reasons": [] if best is None else list(best.reasons),
                "also": [{"name": name, "reason": why} for name, why in others],
                "accelerators": [facts.row(one) for one in there],
                "quirks": [facts.row(one) for one in wrong],
                "errors": [str(error) for error in known.errors],
            }
        )
    else:
        click.echo("no profile matches" if best is None else f"{best.profile.name}: {best.profile.title}")
        for line in () if best is None else best.reasons:
            click.echo(f"  {line}")
        for name, why in others:
            click.echo(f"also matches: {name} ({why})")
        facts.print_accelerators(there)
        facts.print_facts("quirks", wrong)
        for error in known.errors:
            click.echo(str(error), err=True)
    if best is None:
        _exit(3)


@profiles.command()
@_root_option
@click.option("--output", type=click.Path(), help="Where to, NAME.yaml; without it to the standard output.")
@click.option("--force", is_flag=True, help="Replace the file that is there.")
@_json_option
def new(root: str, output: str | None, force: bool, as_json: bool) -> None:
    """Write a first profile of this machine: what it says of itself, and hints for the rest."""
    if force and output is None:
        raise click.UsageError("--force is for --output FILE")
    host, path = probe_host(root), None if output is None else Path(output)
    if path is not None and path.suffix not in (".yaml", ".yml"):
        raise ProfileError(f"{path}: profiles are found by .yaml or .yml", remedy=f"--output {path}.yaml")
    name = draft_name(host) if path is None else path.stem
    text = draft_profile(host, name, datetime.date.today().isoformat())
    if path is not None:
        write_aside(path, text.encode(), force, 0o644)
    if as_json:
        shown.print_json({"name": name, "file": output, "text": text})
    else:
        click.echo(
            text if path is None else f"{path} is written; TFLITE_HAL_PROFILE_PATH={path.absolute()} uses it",
            nl=path is not None,
        )


@profiles.command()
def schema() -> None:
    """Print the JSON Schema of profiles."""
    click.echo(json.dumps(json_schema(), indent=1))


def _list(root: str, as_json: bool) -> None:
    host, known = probe_host(root), _known()
    remarks = _remarks(known.profiles, known)
    best = chosen_among(None, host, known.profiles, known.errors).match
    chosen = None if best is None else best.profile.name
    reasons = {name: (fits, why) for name, fits, why in explain(host, known.profiles)}
    if as_json:
        rows = [
            {**one.to_dict(), "matches": reasons[one.name][0], "reason": reasons[one.name][1]}
            for one in known.profiles
        ]
        problems = [str(error) for error in known.errors]
        shown.print_json({"in_force": chosen, "profiles": rows, "errors": problems, "warnings": remarks})
        return
    listing = shown.table("profile", "title", "matches here", "delegates")
    for profile in sorted(known.profiles, key=lambda one: (one.name != chosen, not reasons[one.name][0])):
        fits, why = reasons[profile.name]
        mark = "[green]yes[/]" if fits else "[dim]no[/]"
        if best is not None and profile.name == chosen:
            mark, why = "[bold green]in force[/]", "; ".join(best.reasons)
        elif not fits and len(why) > _LONGEST:
            why = f"{why[: _LONGEST - 3]}..."
        listing.add_row(
            profile.name, escape(profile.title), f"{mark}: {escape(why)}", " > ".join(profile.delegates)
        )
    shown.console().print(listing)
    for line, colour in [(str(error), "red") for error in known.errors] + [
        (one, "yellow") for one in remarks
    ]:
        shown.console().print(f"[{colour}]{escape(line)}[/]")


def _known() -> _Known:
    manager = Manager()
    found, errors = load_profiles(manager.profile_folders)
    names = {delegate.name for delegate in manager.delegates} | {BuiltinKernels.name}
    names |= {plugin.name for plugin in manager.plugins}  # one that is disabled is no mistake
    return _Known(found, errors, frozenset(names | {name for one in found for name in one.external}))


def _remarks(of: Iterable[DeviceProfile], known: _Known) -> list[str]:
    """Return what is doubtful; the package's own may name plugins that are not installed here."""
    own = profile_folders()[0]
    written = [one for one in of if Path(one.path).parent != own]
    return [remark for one in written for remark in unknown_delegates(one, known.delegates)]


def _find(name: str) -> DeviceProfile:
    if os.sep in name or name.endswith((".yaml", ".yml")):
        return load_profile(name, trusted=True)  # it is shown, not used
    known = _known()
    found = {profile.name: profile for profile in known.profiles}
    if name in found:
        return found[name]
    close = difflib.get_close_matches(name, found, 1)
    hint = f"did you mean {close[0]!r}?" if close else "tflite-hal profiles list"
    for error in known.errors:
        click.echo(str(error), err=True)
    raise ProfileError(f"no device profile {name!r}", remedy=hint)


def _validated(file: str, known: _Known) -> dict[str, Any]:
    row: dict[str, Any] = {"file": file, "name": None, "valid": False, "errors": [], "warnings": []}
    try:
        profile = load_profile(file, trusted=True)
    except ProfileError as error:
        row["errors"] = [str(error)]
        return row
    row["name"] = profile.name
    if profile.name != Path(file).stem:
        row["errors"].append(
            f"{file}: name: expected the file's own name, {Path(file).stem!r}, given {profile.name!r}"
        )
    distrust = distrust_file(Path(file))
    if distrust is not None:  # of a checkout that others may write it says nothing
        row["warnings"].append(f"{distrust.reason} (to fix it: {distrust.remedy})")
    row["warnings"] += unknown_delegates(profile, known.delegates | set(profile.external))
    row["valid"] = not row["errors"]
    return row


def _exit(status: int) -> NoReturn:
    click.get_current_context().exit(status)

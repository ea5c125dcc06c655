"""The command about this machine: what it has, what TensorFlow Lite reaches of it, and what is in the way."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from typing import Any

import click
from rich.console import Console
from rich.markup import escape

from tflite_hal.cli import show
from tflite_hal.cli.bundle import write_bundle
from tflite_hal.diagnosis import diagnose, proven, repair_script, report_schema
from tflite_hal.errors import ProfileError, TfliteHalError
from tflite_hal.external import described_delegates
from tflite_hal.host import HostInfo, probe_host
from tflite_hal.kernels import BuiltinKernels
from tflite_hal.manager import Manager, Plugin
from tflite_hal.profiles import Chosen, chosen_profile, load_profiles, match_profile
from tflite_hal.runtime import RuntimeStatus, runtime_status, runtime_statuses
from tflite_hal.selection import DELEGATES, allowed_delegates, hint

__all__ = ["probe"]


@click.command()
@click.option(
    "--root", default="/", type=click.Path(exists=True, file_okay=False), help="Probe this file tree."
)
@click.option("--fix", is_flag=True, help="Print the remedies as a shell script; nothing is run.")
@click.option("--no-run", "run", is_flag=True, flag_value=False, default=True, help="Run no test model.")
@click.option(
    "--bundle", type=click.Path(), help="Write all of it, and the files it was read from, to FILE.tar.gz."
)
@click.option("--force", is_flag=True, help="Replace the bundle that is there.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option(
    "--schema",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=lambda ctx, _, given: _print_schema(ctx) if given else None,
    help="Print the JSON Schema of --json.",
)
def probe(root: str, fix: bool, run: bool, bundle: str | None, force: bool, as_json: bool) -> None:
    """Show this machine: host, runtimes, delegates, devices, problems and remedies.

    The libraries of what is found are asked, and a test model runs on each device, in child processes.
    A bundle is for whoever helps: without serial numbers, addresses and names, and `probe --root` reads
    it, unpacked, as the machine it is from.
    """
    if force and bundle is None:
        raise click.UsageError("--force is for --bundle FILE")
    if fix and as_json:
        raise click.UsageError("--fix prints a script, --json has the same remedies: give one of them")
    host, manager = probe_host(root), Manager()
    wrong = [*manager.remarks, *map(str, _wrong_settings())]
    chosen = _in_force(host, manager, wrong)
    match = chosen.match
    described = described_delegates(chosen.profiles, [one.name for one in manager.delegates])
    runtimes = [proven(status, host) for status in runtime_statuses()] if host.live else []
    runtime = _chosen(runtimes) if run else None
    allowed = _allowed([one.name for one in (*manager.delegates, *described)], wrong)
    found = diagnose(host, manager, described, chosen.profiles, chosen.profile, runtime, allowed)

    def show_on(out: Console) -> None:
        why = None if match is None else f"{match.profile.name} ({', '.join(match.reasons)})"
        show.print_host(out, host, why)
        show.print_runtimes(out, runtimes)
        show.print_findings(out, host, found, manager.plugins, {one.name for one in described})
        for error in (*map(str, chosen.errors), *wrong):
            out.print(f"[red]{escape(error)}[/]")

    report: dict[str, Any] = {
        **host.to_dict(),
        "profile": None if match is None else match.profile.name,
        "profile_errors": [str(error) for error in chosen.errors],
        "settings_errors": wrong,
        **_plain(runtimes=runtimes, plugins=manager.plugins),
        **found.to_dict(),
    }
    if bundle is not None:
        with io.StringIO() as text:
            show_on(Console(file=text, width=1 << 16))  # a line broken in two would hide what it names
            _bundle(bundle, host, report, text.getvalue(), force)
    if fix:
        click.echo(repair_script(found.findings, runtimes, found.unreached), nl=False)
    elif as_json:
        show.print_json(report)
    else:
        show_on(show.console())


def _print_schema(ctx: click.Context) -> None:
    show.print_json(report_schema())
    ctx.exit()


def _plain(**parts: Sequence[RuntimeStatus | Plugin]) -> dict[str, list[dict[str, Any]]]:
    return {name: [one.to_dict() for one in part] for name, part in parts.items()}


def _in_force(host: HostInfo, manager: Manager, wrong: list[str]) -> Chosen:
    """Return the profile in force; of one that is wrongly named, add why, and match instead."""
    try:
        return chosen_profile(None, host, manager.profile_folders)
    except ProfileError as error:
        wrong.append(str(error))
        profiles, errors = load_profiles(manager.profile_folders)
        return Chosen(match_profile(host, profiles), profiles, errors)


def _allowed(known: list[str], wrong: list[str]) -> tuple[str, ...] | None:
    """Return the delegates that automatic choice may use, None for all; of unknown ones, add that."""
    names = allowed_delegates()
    known = [*known, BuiltinKernels.name]
    for name in names or ():
        if name not in known:
            wrong.append(f"{DELEGATES}: no delegate {name!r}: {hint(name, known)}known: {', '.join(known)}")
    return names


def _bundle(path: str, host: HostInfo, report: dict[str, Any], text: str, force: bool) -> None:
    count = write_bundle(path, host, report, text, force)
    note = f"wrote {path} with {count} files of this machine; look through it before you send it"
    click.echo(note, err=True)


def _chosen(runtimes: list[RuntimeStatus]) -> RuntimeStatus | None:
    """Return the runtime that a choice would use: the one asked for, else the first usable one."""
    wanted = os.environ.get("TFLITE_HAL_RUNTIME")
    usable = [one for one in runtimes if one.state == "usable" and wanted in (None, "", one.name)]
    return usable[0] if usable else None


def _wrong_settings() -> list[TfliteHalError]:
    """Return what is wrong with the variable that names the runtime of every call."""
    wanted = os.environ.get("TFLITE_HAL_RUNTIME")
    try:
        if wanted:
            runtime_status(wanted)
    except TfliteHalError as error:
        return [type(error)(f"TFLITE_HAL_RUNTIME: {error.reason}", remedy=error.remedy)]
    return []

"""The command line: probe, plugins, profiles, inspect, run, benchmark."""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tflite_hal import __version__, images
from tflite_hal.errors import InputError, TfliteHalError
from tflite_hal.host import HostInfo, probe_host
from tflite_hal.kernels import BuiltinKernels
from tflite_hal.manager import Manager
from tflite_hal.model import ModelInfo, TensorSpec, read_model
from tflite_hal.profiles import explain, load_profiles, match_profile
from tflite_hal.runner import Runner
from tflite_hal.runtime import RuntimeStatus, runtime_statuses
from tflite_hal.trial import seeded_inputs
from tflite_hal.worker import start_worker

__all__ = ["main"]

_Command = TypeVar("_Command", bound=Callable[..., Any])
_PICTURES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".tif", ".tiff"}


class _Group(click.Group):
    """Turns our errors into one line and exit status 2, unless ``--debug`` asks for the traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except TfliteHalError as error:
            if ctx.params.get("debug"):
                raise
            click.echo(f"tflite-hal: {' '.join(str(error).split())}", err=True)
            sys.exit(2)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="tflite-hal")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def main(debug: bool) -> None:
    """Run TensorFlow Lite models on the hardware that is there."""


def _json_option(command: _Command) -> _Command:
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def _choice_options(command: _Command) -> _Command:
    """Add the options that choose where a model runs."""
    options = (
        click.option("--device", help="Kind or id of the device: cpu, npu, usb:0 ..."),
        click.option("--delegate", help="Name of the delegate: never falls back."),
        click.option("--runtime", help="ai_edge_litert, tflite_runtime or tensorflow."),
        click.option("--threads", type=click.IntRange(1), help="CPU threads."),
        click.option("--profile", help="Name or file of a device profile."),
    )
    return functools.reduce(lambda decorated, option: option(decorated), reversed(options), command)


def _runner(model: str, choice: Mapping[str, Any]) -> Runner:
    """Open by explicit choice where a delegate or device is named, else automatically."""
    common = {key: choice[key] for key in ("runtime", "threads", "profile")}
    if choice["delegate"] or choice["device"]:
        return Runner(model, device=choice["device"], delegate=choice["delegate"], **common)
    return Runner.auto(model, **common)


@main.command()
@click.option(
    "--root", default="/", type=click.Path(exists=True, file_okay=False), help="Probe this file tree."
)
@_json_option
def probe(root: str, as_json: bool) -> None:
    """Show this machine: host, runtimes, delegates, devices, problems and remedies."""
    host, manager = probe_host(root), Manager()
    profiles, _ = load_profiles(manager.profile_folders)
    match = match_profile(host, profiles)
    probes = manager.probe(host)
    runtimes = [_proven(status) for status in runtime_statuses()] if host.live else []
    if as_json:
        _print_json(
            {
                **host.to_dict(),
                "profile": None if match is None else match.profile.name,
                "runtimes": [status.to_dict() for status in runtimes],
                "delegates": {name: found.to_dict() for name, found in probes.items()},
                "plugins": [plugin.to_dict() for plugin in manager.plugins],
            }
        )
        return
    console = _console()
    _print_host(
        console, host, None if match is None else f"{match.profile.name} ({', '.join(match.reasons)})"
    )
    _print_runtimes(console, runtimes)
    table = _table("delegate", "device", "what")
    for name, found in probes.items():
        for device in found.devices:
            table.add_row(name, f"{device.id} ({device.kind})", device.name)
        for problem in found.problems:
            table.add_row(
                name,
                f"[yellow]{escape(problem.device or '-')}[/]",
                _problem(problem.evidence, problem.remedy),
            )
        if not found.devices and not found.problems:
            table.add_row(name, "[dim]-[/]", "[dim]no such device here[/]")
    builtin = BuiltinKernels()
    table.add_row(builtin.name, "cpu (cpu)", builtin.description)
    for plugin in manager.plugins:
        if plugin.problem:
            table.add_row(f"[red]plugin {escape(plugin.name)}[/]", "-", escape(plugin.problem))
    console.print(table)


def _proven(status: RuntimeStatus) -> RuntimeStatus:
    """Import a runtime in a worker: only that shows that it can be used, and it may die of it."""
    if status.state != "usable":
        return status
    worker = None
    try:
        worker = start_worker(f"runtime {status.name}", runtime=None)
        worker.request("runtime", limit=60.0, stage="importing it", name=status.name)
    except TfliteHalError as error:
        return status._replace(state="broken", reason=error.reason, remedy=error.remedy)
    finally:
        if worker is not None:
            worker.close()
    return status


def _print_host(console: Console, host: HostInfo, profile: str | None) -> None:
    cpu = host.cpu
    memory = "unknown" if host.memory_bytes is None else f"{host.memory_bytes / 2**30:.1f} GiB"
    rows = {
        "board": host.board.model or " ".join(filter(None, (host.dmi.vendor, host.dmi.product))) or "unknown",
        "cpu": f"{cpu.model or cpu.vendor or 'unknown'} ({host.arch or 'architecture unknown'})",
        "cores": f"{cpu.logical or '?'} logical, {cpu.online or '?'} online, {cpu.usable or '?'} usable",
        "memory": memory,
        "system": " · ".join(filter(None, (host.os, host.kernel, host.python and f"Python {host.python}")))
        or "unknown",
        "buses": f"{len(host.usb)} USB, {len(host.pci)} PCI devices",
        "profile": profile or "none matches",
    }
    for name, value in rows.items():
        console.print(f"[bold]{name:>8}[/]  {escape(value)}", highlight=False)


def _print_runtimes(console: Console, runtimes: Sequence[RuntimeStatus]) -> None:
    if not runtimes:
        return
    table = _table("runtime", "state", "what")
    colours = {"usable": "green", "broken": "red", "absent": "dim"}
    for status in runtimes:
        what = status.version if status.state == "usable" else _problem(status.reason, status.remedy)
        table.add_row(status.name, f"[{colours[status.state]}]{status.state}[/]", what)
    console.print(table)


def _problem(evidence: str, remedy: str) -> str:
    return escape(evidence) + (f"\n[bold]→ {escape(remedy)}[/]" if remedy else "")


@main.command()
@_json_option
def plugins(as_json: bool) -> None:
    """List plugins, what they contribute, and why a broken one is not used."""
    manager = Manager()
    if as_json:
        _print_json([plugin.to_dict() for plugin in manager.plugins])
        return
    table = _table("plugin", "delegates", "from", "state")
    for plugin in manager.plugins:
        source = "built in" if plugin.builtin else f"{plugin.distribution} {plugin.version}"
        state = f"[red]{escape(plugin.problem)}[/]" if plugin.problem else "[green]ok[/]"
        table.add_row(escape(plugin.name), ", ".join(plugin.delegates) or "-", escape(source), state)
    _console().print(table)


@main.command()
@click.option(
    "--root", default="/", type=click.Path(exists=True, file_okay=False), help="Match against this tree."
)
@_json_option
def profiles(root: str, as_json: bool) -> None:
    """List device profiles, and why each does or does not match this machine."""
    found, errors = load_profiles(Manager().profile_folders)
    reasons = {name: (matched, reason) for name, matched, reason in explain(probe_host(root), found)}
    if as_json:
        rows = [{**p.to_dict(), "matches": reasons[p.name][0], "reason": reasons[p.name][1]} for p in found]
        _print_json({"profiles": rows, "errors": [str(error) for error in errors]})
        return
    table = _table("profile", "title", "matches here", "delegates")
    for profile in found:
        matched, reason = reasons[profile.name]
        mark = "[green]yes[/]" if matched else "[dim]no[/]"
        table.add_row(
            profile.name, escape(profile.title), f"{mark}: {escape(reason)}", " > ".join(profile.delegates)
        )
    _console().print(table)
    for error in errors:
        _console().print(f"[red]{escape(str(error))}[/]")


@main.command()
@click.argument("model", type=click.Path())
@_json_option
def inspect(model: str, as_json: bool) -> None:
    """Describe MODEL without running it."""
    info = read_model(model).info
    if as_json:
        _print_json(info.to_dict())
        return
    console = _console()
    console.print(
        f"[bold]{escape(Path(model).name)}[/]  {info.size:,} bytes, {info.precision}", highlight=False
    )
    console.print(f"sha256 {info.sha256}", highlight=False)
    table = _table("", "name", "dtype", "shape", "quantisation")
    for label, specs in (("input", info.inputs), ("output", info.outputs)):
        for spec in specs:
            table.add_row(label, escape(spec.name), spec.type, str(list(spec.shape)), _quantisation(spec))
    console.print(table)
    counts = ", ".join(f"{operator.name} ×{operator.occurrences}" for operator in info.operators)
    console.print(f"operators: {escape(counts)}", highlight=False)
    for line in _remarks(info):
        console.print(escape(line), highlight=False)


def _remarks(info: ModelInfo) -> list[str]:
    signatures = ", ".join(signature.key for signature in info.signatures)
    remarks = [f"signatures: {signatures}"] if signatures else []
    remarks += [f"needs {need}" for need in info.needs()]
    remarks += ["dynamic dimensions: -1 may be any size"] if info.dynamic else []
    return remarks + ([f"stateful: {info.stateful}"] if info.stateful else [])


def _quantisation(spec: TensorSpec) -> str:
    if spec.quantization is None:
        return "-"
    scales, zeros = spec.quantization.scales, spec.quantization.zero_points
    return f"scale {scales[0]:.6g}, zero point {zeros[0]}" if len(scales) == 1 else f"{len(scales)} scales"


@main.command()
@click.argument("model", type=click.Path())
@click.option(
    "--input", "sources", multiple=True, type=click.Path(), help=".npy, .npz or a picture; one per input."
)
@click.option("--labels", type=click.Path(), help="Text file, one label per line.")
@click.option("--top", default=5, show_default=True, type=click.IntRange(1), help="How many classes to show.")
@click.option("--mean", type=float, help="Picture: subtracted from each pixel (0 to 255).")
@click.option("--std", type=float, help="Picture: divides each pixel after that.")
@click.option(
    "--repeat", default=1, type=click.IntRange(1), help="Run again after a reset, so many times in all."
)
@_choice_options
@_json_option
def run(
    model: str,
    sources: Sequence[str],
    labels: str | None,
    top: int,
    mean: float | None,
    std: float | None,
    repeat: int,
    as_json: bool,
    **choice: Any,
) -> None:
    """Run MODEL once and show its outputs; random input when none is given."""
    names = images.read_labels(labels) if labels else None
    with _runner(model, choice) as runner:
        inputs = _read_inputs(sources, runner.inputs, mean, std)
        results = []
        for _ in range(repeat):
            results.append(runner.predict(inputs, dequantize=True))
            runner.reset()
        if as_json:
            _print_json({"selection": runner.selection.to_dict(), "outputs": [_listed(r) for r in results]})
            return
        console = _console()
        console.print(escape(str(runner.selection)), highlight=False)
        for result in results:
            _print_result(console, result, names, top)


def _read_inputs(
    sources: Sequence[str], specs: Sequence[TensorSpec], mean: float | None, std: float | None
) -> Any:
    if not sources:
        return seeded_inputs(specs)
    if len(sources) == 1 and Path(sources[0]).suffix.lower() == ".npz":
        with _load(sources[0]) as archive:
            return {name: archive[name] for name in archive.files}
    if len(sources) != len(specs):
        raise InputError(f"{len(sources)} --input for a model with {len(specs)} inputs")
    return [_read_input(source, spec, mean, std) for source, spec in zip(sources, specs, strict=True)]


def _read_input(source: str, spec: TensorSpec, mean: float | None, std: float | None) -> Any:
    suffix = Path(source).suffix.lower()
    if suffix == ".npy":
        return _load(source)
    if suffix in _PICTURES:
        scaling = {name: value for name, value in (("mean", mean), ("std", std)) if value is not None}
        return images.fit(source, spec, **scaling)
    raise InputError(
        f"{source}: not a .npy or .npz file or a picture", remedy="give one of " + " ".join(sorted(_PICTURES))
    )


def _load(source: str) -> Any:
    try:
        return np.load(source, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise InputError(f"{source} can't be read as an array: {error}") from error


def _print_result(console: Console, result: Any, labels: Sequence[str] | None, top: int) -> None:
    outputs = result if isinstance(result, dict) else {"": result}
    for name, array in outputs.items():
        if (
            array.ndim <= 2
            and array.size == max(array.shape, default=0)
            and array.size > 1
            and array.dtype.kind in "fiu"
        ):
            table = _table("class", "score")
            for label, score in images.top(array, labels, min(top, array.size)):
                table.add_row(escape(label), f"{score:.4g}")
            console.print(table)
        else:
            console.print(f"{name} {array.dtype} {list(array.shape)}\n{array}".strip(), highlight=False)


def _listed(result: Any) -> Any:
    if isinstance(result, dict):
        return {name: array.tolist() for name, array in result.items()}
    return result.tolist()


@main.command()
@click.argument("model", type=click.Path())
@click.option(
    "--input", "sources", multiple=True, type=click.Path(), help=".npy, .npz or a picture; one per input."
)
@click.option("--runs", type=click.IntRange(1), help="Timed runs.")
@click.option("--seconds", type=float, help="For how long.")
@click.option("--warmup", type=click.IntRange(0), help="Untimed runs before.")
@_choice_options
@_json_option
def benchmark(
    model: str,
    sources: Sequence[str],
    runs: int | None,
    seconds: float | None,
    warmup: int | None,
    as_json: bool,
    **choice: Any,
) -> None:
    """Measure MODEL: load, first run and steady state apart."""
    with _runner(model, choice) as runner:
        inputs = _read_inputs(sources, runner.inputs, None, None)
        result = runner.benchmark(inputs=inputs, runs=runs, seconds=seconds, warmup=warmup)
        click.echo(result.to_json() if as_json else str(result))


def _console() -> Console:
    # Tables are for people: in a pipe they get a width of their own instead of 80 columns.
    return Console(width=None if sys.stdout.isatty() else int(os.environ.get("COLUMNS", "120")))


def _table(*columns: str) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _print_json(content: Any) -> None:
    click.echo(json.dumps(content, indent=2, ensure_ascii=False))

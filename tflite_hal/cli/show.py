"""What the commands print, for people."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Collection, Sequence
from typing import Any, Final

import click
import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from tflite_hal import images
from tflite_hal.diagnosis import Diagnosis, Finding, Unreached
from tflite_hal.host import HostInfo
from tflite_hal.kernels import BuiltinKernels
from tflite_hal.manager import Plugin
from tflite_hal.model import ModelInfo, TensorSpec
from tflite_hal.runtime import RuntimeStatus

__all__ = [
    "classes",
    "console",
    "listed",
    "print_findings",
    "print_host",
    "print_json",
    "print_runtimes",
    "problem",
    "quantisation",
    "remarks",
    "results",
    "table",
]


#: Where a machine shows its devices; a captured one may have left it all out.
_DEVICE_PLACES: Final = (
    "/sys/bus/pci", "/sys/bus/usb", "/proc/device-tree/compatible", "/sys/firmware/devicetree/base", "/dev",
)  # fmt: skip


def console() -> Console:
    """Return where to print: as wide as the terminal; in a pipe 120 columns or ``COLUMNS``."""
    return Console(width=shutil.get_terminal_size((120, 24)).columns)


def table(*columns: str) -> Table:
    """Return a table without lines."""
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def print_json(content: Any) -> None:
    """Print JSON; text that is not UTF-8 is shown escaped, and complex numbers as text."""

    def shown(value: Any) -> str:
        return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)

    click.echo(json.dumps(content, indent=2, ensure_ascii=False, default=shown))


def print_host(console: Console, host: HostInfo, profile: str | None) -> None:
    """Print the machine's facts, one a line."""
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


def print_runtimes(console: Console, runtimes: Sequence[RuntimeStatus]) -> None:
    """Print which runtimes are usable, broken or absent."""
    if not runtimes:
        return
    rows = table("runtime", "state", "what")
    colours = {"usable": "green", "broken": "red", "absent": "dim", "unchecked": "yellow"}
    for status in runtimes:
        what = status.version if status.state == "usable" else problem(status.reason, status.remedy)
        rows.add_row(status.name, f"[{colours[status.state]}]{status.state}[/]", what)
    console.print(rows)


def print_findings(
    console: Console,
    host: HostInfo,
    found: Diagnosis,
    plugins: Sequence[Plugin],
    described: Collection[str],
) -> None:
    """Print how far each device gets and what stands in its way, what nothing reaches, the kernels that are
    always there, and which plugins are broken; delegates without a device here in one row each, those that
    device profiles describe in one together."""
    rows = table("delegate", "device", "stage", "what")
    for one in found.findings:
        place = f"{one.device} ({one.kind})" if one.device and one.kind else one.device or one.kind or "-"
        rows.add_row(one.delegate, escape(place), _stage(one), _what(one))
    shown = host.live or any(map(host.exists, _DEVICE_PLACES))
    nothing = "no such device here" if shown else "unknown: nothing here tells of devices"
    silent = [name for name, probe in found.probes.items() if not (probe.devices or probe.problems)]
    for name in silent:
        if name not in described:
            rows.add_row(name, "[dim]-[/]", "[dim]-[/]", f"[dim]{nothing}[/]")
    absent = [name for name in silent if name in described]
    if absent:
        what = f"[dim]{'no device here' if shown else 'unknown'}: {', '.join(sorted(absent))}[/]"
        rows.add_row("[dim]profiles[/]", "[dim]-[/]", "[dim]-[/]", what)
    if host.live:
        rows.add_row(BuiltinKernels.name, "cpu (cpu)", "[dim]-[/]", BuiltinKernels.description)
    told = {one.delegate for one in found.findings if one.problem and one.problem.stage == "probe"}
    for plugin in plugins:
        if plugin.problem and not (told & set(plugin.delegates)):
            rows.add_row(f"[red]plugin {escape(plugin.name)}[/]", "-", "-", escape(plugin.problem))
    console.print(rows)
    _print_unreached(console, found.unreached)


def _stage(one: Finding) -> str:
    if one.problem is not None:
        return f"[yellow]{one.problem.stage}[/]"
    return f"[green]{one.state}[/]" if one.state == "runs" else one.state


def _what(one: Finding) -> str:
    """Return a device's name, what was seen of it, and what stands in its way."""
    seen = {step.stage: step.text for step in one.steps if step.text and step.state != "failed"}
    lines = [one.name] if one.name else []
    bus = ", driver ".join(filter(None, (seen.get("bus"), seen.get("driver"))))
    lines += [line for line in (bus, seen.get("library"), seen.get("run")) if line]
    shown = [escape(line) for line in lines]
    if one.problem is not None:
        shown.append(problem(one.problem.evidence, one.problem.remedy, one.problem.command))
    return "\n".join(shown)


def _print_unreached(console: Console, unreached: Sequence[Unreached]) -> None:
    if not unreached:
        return
    console.print()
    rows = table("not reached", "kind", "why")
    for one in unreached:
        instead = f"\ninstead: {escape(one.instead)}" if one.instead else ""
        rows.add_row(
            escape(one.name), one.kind, problem(f"{one.evidence}: {one.reason}", one.remedy) + instead
        )
    console.print(rows)


def problem(evidence: str, remedy: str, command: str = "") -> str:
    """Return what was seen and, below it, what to do and the command for it."""
    told = escape(evidence) + (f"\n[bold]→ {escape(remedy)}[/]" if remedy else "")
    return told + (f"\n[bold]$ {escape(command)}[/]" if command else "")


def remarks(info: ModelInfo) -> list[str]:
    """Return what else is worth knowing of a model, one a line."""
    signatures = ", ".join(signature.key for signature in info.signatures)
    remarks = [f"signatures: {signatures}"] if signatures else []
    remarks += [f"needs {need}" for need in info.needs()]
    remarks += ["dynamic dimensions: -1 may be any size"] if info.dynamic else []
    return remarks + ([f"stateful: {info.stateful}"] if info.stateful else [])


def quantisation(spec: TensorSpec) -> str:
    """Return a tensor's scale and zero point."""
    if spec.quantization is None:
        return "-"
    scales, zeros = spec.quantization.scales, spec.quantization.zero_points
    return f"scale {scales[0]:.6g}, zero point {zeros[0]}" if len(scales) == 1 else f"{len(scales)} scales"


def results(result: Any, labels: Sequence[str] | None, top: int) -> list[Table | Text]:
    """Return outputs as they are shown: scores as the best classes, anything else as it is.

    Raises:
        InputError: as :func:`classes`.
    """
    found = classes(result, labels, top)
    if labels is not None and not found:
        warnings.warn("--labels is not used: no output is a row of scores", stacklevel=2)
    shown: list[Table | Text] = []
    for name, array in _named(result).items():
        if name not in found:
            shown.append(Text(f"{name} {array.dtype} {list(array.shape)}\n{array}".strip()))
            continue
        shown += [Text(name)] if name else []
        rows = table("class", "score")
        for label, score in found[name]:
            rows.add_row(escape(label), f"{score:.4g}")
        shown.append(rows)
    return shown


def classes(result: Any, labels: Sequence[str] | None, top: int) -> dict[str, list[tuple[str, float]]]:
    """Return the best classes and their scores of each output that is a row of scores, by its name, which is
    "" where it is the only output. Of several outputs the labels are for those that have as many scores.

    Raises:
        InputError: there are scores, and labels, but nowhere as many.
    """
    scores = {name: array for name, array in _named(result).items() if _are_scores(array)}
    fitting = {name for name, array in scores.items() if labels is None or len(labels) == array.size}
    # Where the labels fit nothing, top says so.
    return {
        name: images.top(array, labels if name in fitting or not fitting else None, top)
        for name, array in scores.items()
    }


def _named(result: Any) -> dict[str, Any]:
    return result if isinstance(result, dict) else {"": result}


def _are_scores(array: Any) -> bool:
    return 1 < array.size == array.shape[-1] and array.ndim <= 2 and array.dtype.kind in "fiu"


def listed(result: Any) -> Any:
    """Return outputs JSON-ready; JSON has no infinities and no NaN, which become null."""
    if isinstance(result, dict):
        return {name: listed(array) for name, array in result.items()}
    if result.dtype.kind == "f" and not np.isfinite(result).all():
        result = np.where(np.isfinite(result), result.astype(object), None)
    return result.tolist()

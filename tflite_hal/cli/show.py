"""What the commands print, for people."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tflite_hal import images
from tflite_hal.delegate import Probe
from tflite_hal.host import HostInfo
from tflite_hal.kernels import BuiltinKernels
from tflite_hal.manager import Plugin
from tflite_hal.model import ModelInfo, TensorSpec
from tflite_hal.runtime import RuntimeStatus

__all__ = [
    "console",
    "listed",
    "print_delegates",
    "print_host",
    "print_json",
    "print_result",
    "print_runtimes",
    "problem",
    "quantisation",
    "remarks",
    "table",
]


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


def print_delegates(console: Console, probes: Mapping[str, Probe], plugins: Sequence[Plugin]) -> None:
    """Print what each delegate found, the kernels that are always there, and which plugins are broken."""
    rows = table("delegate", "device", "what")
    for name, found in probes.items():
        for device in found.devices:
            rows.add_row(name, f"{escape(device.id)} ({escape(device.kind)})", escape(device.name))
        for one in found.problems:
            place = f"[yellow]{escape(one.device or '-')}[/]"
            rows.add_row(name, place, problem(one.evidence, one.remedy))
        if not found.devices and not found.problems:
            rows.add_row(name, "[dim]-[/]", "[dim]no such device here[/]")
    rows.add_row(BuiltinKernels.name, "cpu (cpu)", BuiltinKernels.description)
    for plugin in plugins:
        if plugin.problem:
            rows.add_row(f"[red]plugin {escape(plugin.name)}[/]", "-", escape(plugin.problem))
    console.print(rows)


def problem(evidence: str, remedy: str) -> str:
    """Return what was seen and, below it, what to do."""
    return escape(evidence) + (f"\n[bold]→ {escape(remedy)}[/]" if remedy else "")


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


def print_result(console: Console, result: Any, labels: Sequence[str] | None, top: int) -> None:
    """Print outputs: scores as the best classes, anything else as it is."""
    outputs = result if isinstance(result, dict) else {"": result}
    for name, array in outputs.items():
        if 1 < array.size == array.shape[-1] and array.ndim <= 2 and array.dtype.kind in "fiu":
            rows = table("class", "score")
            for label, score in images.top(array, labels, min(top, array.size)):
                rows.add_row(escape(label), f"{score:.4g}")
            console.print(rows)
        else:
            console.print(
                f"{name} {array.dtype} {list(array.shape)}\n{array}".strip(), highlight=False, markup=False
            )


def listed(result: Any) -> Any:
    """Return outputs JSON-ready."""
    if isinstance(result, dict):
        return {name: array.tolist() for name, array in result.items()}
    return result.tolist()

"""The command about a model as it is: what it takes and gives, its operators, and who takes which."""

from __future__ import annotations

import sys
from pathlib import Path

import click
from rich.markup import escape

from tflite_hal.cli import show
from tflite_hal.model import ModelInfo, read_model
from tflite_hal.runner import covered

__all__ = ["inspect"]


@click.command()
@click.argument("model", type=click.Path())
@click.option("--delegate", help="Open it with this delegate too, and show which operators it takes.")
@click.option("--device", help="Kind or id of the delegate's device; without it all of them.")
@click.option("--runtime", help="ai_edge_litert, tflite_runtime or tensorflow.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def inspect(model: str, delegate: str | None, device: str | None, runtime: str | None, as_json: bool) -> None:
    """Describe MODEL without running it.

    With --delegate it is opened in a child process; exit status 3 where that fails on every device.
    """
    if delegate is None and (device or runtime):
        raise click.UsageError("--device and --runtime belong to --delegate")
    info = read_model(model).info
    found = [] if delegate is None else covered(model, delegate, device=device, runtime=runtime)
    if as_json:
        taken = [] if delegate is None else [("coverage", [one.to_dict() for one in found])]
        show.print_json({**info.to_dict(), **dict(taken)})
    else:
        _print_model(model, info)
        for one in found:
            show.console().print(escape(str(one)), highlight=False)
    if found and all(one.reason for one in found):
        sys.exit(3)


def _print_model(model: str, info: ModelInfo) -> None:
    out = show.console()
    out.print(f"[bold]{escape(Path(model).name)}[/]  {info.size:,} bytes, {info.precision}", highlight=False)
    out.print(f"sha256 {info.sha256}", highlight=False)
    rows = show.table("", "name", "dtype", "shape", "quantisation")
    for label, specs in (("input", info.inputs), ("output", info.outputs)):
        for spec in specs:
            rows.add_row(label, escape(spec.name), spec.type, str(list(spec.shape)), show.quantisation(spec))
    out.print(rows)
    counts = ", ".join(f"{operator.name} ×{operator.occurrences}" for operator in info.operators)
    out.print(f"operators: {escape(counts)}", highlight=False)
    for line in show.remarks(info):
        out.print(escape(line), highlight=False)

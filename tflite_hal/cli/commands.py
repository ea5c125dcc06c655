"""The commands: each reads, asks the rooms below, and shows."""

from __future__ import annotations

import functools
import math
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import click
from rich.markup import escape

from tflite_hal import __version__, images
from tflite_hal.cli import show
from tflite_hal.cli.group import Group
from tflite_hal.cli.inputs import read_inputs, read_options
from tflite_hal.host import probe_host
from tflite_hal.manager import Manager
from tflite_hal.runner import Runner
from tflite_hal.runner.request import MOST_THREADS

__all__ = ["library_options", "main", "variants_option", "warn_of_threads"]

_Command = TypeVar("_Command", bound=Callable[..., Any])


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="tflite-hal")
def main() -> None:
    """Run TensorFlow Lite models on the hardware that is there."""


def _json_option(command: _Command) -> _Command:
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def _input_options(command: _Command) -> _Command:
    """Add the options that say what a model gets."""
    options = (
        click.option(
            "--input",
            "sources",
            multiple=True,
            type=click.Path(),
            help=".npy, .npz, a picture; one per input.",
        ),
        click.option("--mean", type=float, help="Picture: subtracted from each pixel (0 to 255)."),
        click.option("--std", type=float, help="Picture: divides each pixel after that."),
    )
    return functools.reduce(lambda decorated, option: option(decorated), reversed(options), command)


#: The options that name a delegate's file, and what it is given.
library_options = (
    click.option("--delegate-library", type=click.Path(), help="File of a delegate that no plugin knows."),
    click.option(
        "--option", "options", multiple=True, help="NAME=VALUE for the delegate or its file; repeatable."
    ),
)
variants_option = click.option(
    "--no-variants",
    "variants",
    is_flag=True,
    flag_value=False,
    default=True,
    help="Run MODEL itself only, not what lies beside it for a device (m_edgetpu.tflite).",
)


def _choice_options(command: _Command) -> _Command:
    """Add the options that choose where a model runs."""
    options = (
        click.option("--device", help="Kind or id of the device: cpu, npu, usb:0 ..."),
        click.option("--delegate", help="Name of the delegate: never falls back."),
        *library_options,
        click.option("--runtime", help="ai_edge_litert, tflite_runtime or tensorflow."),
        click.option("--threads", type=click.IntRange(1, MOST_THREADS), help="CPU threads."),
        click.option("--profile", help="Name or file of a device profile."),
        variants_option,
    )
    return functools.reduce(lambda decorated, option: option(decorated), reversed(options), command)


def _runner(model: str, choice: Mapping[str, Any]) -> Runner:
    """Open by explicit choice where a delegate or device is named, else automatically."""
    common = {key: choice[key] for key in ("runtime", "threads", "profile", "variants")}
    common["options"] = read_options(choice["options"]) or None
    named = {key: choice[key] for key in ("device", "delegate", "delegate_library")}
    warn_of_threads(choice["threads"])
    if any(named.values()):
        return Runner(model, **named, **common)
    return Runner.auto(model, **common)


def warn_of_threads(threads: int | None) -> None:
    """Warn of more threads than CPUs."""
    here = os.cpu_count()
    if threads and here and threads > here:
        warnings.warn(f"--threads {threads} on {here} CPUs is slower than one each", stacklevel=2)


@main.command()
@_json_option
def plugins(as_json: bool) -> None:
    """List plugins, what they contribute, and why a broken one is not used."""
    manager = Manager()
    manager.probe(probe_host())  # one that fails only when it is asked is broken too
    if as_json:
        show.print_json([plugin.to_dict() for plugin in manager.plugins])
        return
    rows = show.table("plugin", "delegates", "from", "state")
    for plugin in manager.plugins:
        source = "built in" if plugin.builtin else f"{plugin.distribution} {plugin.version}"
        state = f"[red]{escape(plugin.problem)}[/]" if plugin.problem else "[green]ok[/]"
        rows.add_row(escape(plugin.name), ", ".join(plugin.delegates) or "-", escape(source), state)
    show.console().print(rows)


@main.command()
@click.argument("model", type=click.Path())
@_input_options
@click.option("--labels", type=click.Path(), help="Text file, one label per line.")
@click.option("--top", default=5, show_default=True, type=click.IntRange(1), help="How many classes to show.")
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
    """Run MODEL once and show its outputs, as real numbers where they are quantised.

    Without --input it gets random numbers: the answers show that it runs, and mean nothing.
    """
    names = images.read_labels(labels) if labels else None
    with _runner(model, choice) as runner:
        inputs = read_inputs(sources, runner.inputs, mean, std)
        results = []
        for _ in range(repeat):
            results.append(runner.predict(inputs, dequantize=True))
            runner.reset()
        if as_json:
            named = [_ranked(show.classes(result, names, top)) for result in results]
            show.print_json(
                {
                    "selection": runner.selection.to_dict(),
                    "input": list(sources) or "random",
                    "outputs": [show.listed(r) for r in results],
                    "classes": named,
                }
            )
            return
        shown = [part for result in results for part in show.results(result, names, top)]
        out = show.console()
        out.print(escape(str(runner.selection)), highlight=False)
        if not sources:
            out.print("input: random numbers, so the answers mean nothing; give --input FILE")
        for part in shown:
            out.print(part, highlight=False)


def _ranked(found: Mapping[str, Sequence[tuple[str, float]]]) -> dict[str, list[dict[str, Any]]]:
    """Return the best classes JSON-ready, by output; NaN and infinities as null."""
    return {
        name: [{"label": label, "score": score if math.isfinite(score) else None} for label, score in best]
        for name, best in found.items()
    }


@main.command()
@click.argument("model", type=click.Path())
@_input_options
@click.option("--runs", type=click.IntRange(1), help="Timed runs.")
@click.option("--seconds", type=float, help="For how long.")
@click.option("--warmup", type=click.IntRange(0), help="Untimed runs before.")
@_choice_options
@_json_option
def benchmark(
    model: str,
    sources: Sequence[str],
    mean: float | None,
    std: float | None,
    runs: int | None,
    seconds: float | None,
    warmup: int | None,
    as_json: bool,
    **choice: Any,
) -> None:
    """Measure MODEL: load, first run and steady state apart."""
    with _runner(model, choice) as runner:
        inputs = read_inputs(sources, runner.inputs, mean, std)
        result = runner.benchmark(inputs=inputs, runs=runs, seconds=seconds, warmup=warmup)
        click.echo(result.to_json() if as_json else str(result))

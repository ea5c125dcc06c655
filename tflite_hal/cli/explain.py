"""The commands about a choice: explain it, and verify what it would choose from."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from tflite_hal.accuracy import Check
from tflite_hal.cli import attempts, show
from tflite_hal.cli.commands import library_options, variants_option, warn_of_threads
from tflite_hal.cli.inputs import read_options, read_samples
from tflite_hal.errors import NoDelegateError
from tflite_hal.model import read_model
from tflite_hal.runner import Runner, TfliteHalWarning, verified
from tflite_hal.runner.request import MOST_THREADS
from tflite_hal.selection import Attempt, Outcome, Selection

__all__ = ["explain", "verify"]

_Command = TypeVar("_Command", bound=Callable[..., Any])


class _Nothing(click.ClickException):
    """Nothing was chosen, or nothing could be compared: an answer, and not a mistake of the caller's."""

    exit_code = 3


def _options(*added: Callable[[_Command], _Command]) -> Callable[[_Command], _Command]:
    return lambda command: functools.reduce(lambda decorated, option: option(decorated), added[::-1], command)


_check_options = _options(
    click.option(
        "--samples",
        type=click.Path(),
        help="Compare on these inputs too: .npz of arrays by name of input, each of the input's shape or "
        "with a leading dimension of samples.",
    ),
    click.option("--tolerance", type=float, help="Largest error that is right, a share from 0 to 1."),
    click.option(
        "--accept",
        type=click.Choice(["ok", "degraded"]),
        default="ok",
        show_default=True,
        help="The worst grade that is used.",
    ),
    click.option("--runtime", help="ai_edge_litert, tflite_runtime or tensorflow."),
    variants_option,
)
_delegates_option = click.option(
    "--delegate", "delegates", multiple=True, help="Name of a delegate that takes part; repeatable."
)
_device_option = click.option("--device", help="Kind or id of the device: cpu, npu, usb:0 ...")
_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def _check(model: str, samples: str | None, tolerance: float | None, accept: str) -> Check:
    given = samples and read_samples(samples, read_model(model).info.interface(None, model))
    return Check(given or None, tolerance, accept)


@click.command()
@click.argument("model", type=click.Path())
@_options(
    _delegates_option,
    click.option("--exclude", multiple=True, help="Delegate, or kind or id of a device; repeatable."),
    _device_option,
    *library_options,
    click.option(
        "--prefer",
        type=click.Choice(["latency", "throughput", "order"]),
        default="latency",
        show_default=True,
        help="What decides among those that are right; order times nothing.",
    ),
    _check_options,
    click.option("--threads", type=click.IntRange(1, MOST_THREADS), help="CPU threads."),
    click.option("--profile", help="Name or file of a device profile."),
    _json_option,
)
def explain(
    model: str,
    delegates: Sequence[str],
    samples: str | None,
    tolerance: float | None,
    accept: str,
    as_json: bool,
    options: Sequence[str],
    **choice: Any,
) -> None:
    """Choose as Runner.auto does, and show every candidate: what it did, and why it is used or not.

    Exit status 3 where nothing can be used.
    """
    warn_of_threads(choice["threads"])
    check, given = _check(model, samples, tolerance, accept), read_options(options) or None
    nothing: NoDelegateError | None = None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", TfliteHalWarning)  # told below, those that the table hasn't
            runner = Runner.auto(model, delegates=delegates or None, check=check, options=given, **choice)
        with runner:
            selection, events = runner.selection, runner.events
    except NoDelegateError as error:
        if not isinstance(error.selection, Selection):
            raise
        selection, events, nothing = error.selection, [], error
    tabled = {f"{attempt.delegate}: {attempt}" for attempt in selection.attempts}
    for event in events:
        if event.message not in tabled:
            warnings.warn(event.message, TfliteHalWarning, stacklevel=1)
    if as_json:
        show.print_json(selection.to_dict())
    else:
        attempts.print_selection(show.console(), selection)
    if nothing is not None:
        raise _Nothing(str(nothing)) from nothing


@click.command()
@click.argument("model", type=click.Path())
@_options(_delegates_option, _device_option, _check_options, _json_option)
def verify(
    model: str,
    delegates: Sequence[str],
    device: str | None,
    samples: str | None,
    tolerance: float | None,
    accept: str,
    runtime: str | None,
    variants: bool,
    as_json: bool,
) -> None:
    """Compare what can run MODEL here with the runtime's built-in kernels, without timing.

    Exit status 0 where all that could be compared is right, 1 where something is wrong (or degraded,
    without --accept degraded), 3 where nothing could be compared.
    """
    check = _check(model, samples, tolerance, accept)
    selection = verified(
        model, delegates=delegates or None, device=device, runtime=runtime, check=check, variants=variants
    )
    tried = [one for one in selection.attempts if one.outcome is not Outcome.EXCLUDED]
    compared = [one for one in tried if one.comparison is not None]
    right = all(one.outcome is Outcome.RIGHT for one in compared) if compared else None
    if as_json:
        rows = [one.to_dict() for one in tried]
        show.print_json({"model": selection.model, "right": right, "attempts": rows})
    else:
        attempts.print_grades(show.console(), selection, tried)
    if right is None:
        raise _Nothing(_why_nothing(selection.model, tried))
    if not right:
        click.get_current_context().exit(1)


def _why_nothing(model: str, tried: Sequence[Attempt]) -> str:
    told = next((one for one in tried if one.reason), None)
    if told is None:
        return f"{model}: nothing here to compare with the built-in kernels (to fix it: tflite-hal probe)"
    remedy = f" (to fix it: {told.remedy})" if told.remedy else ""
    # What was never begun is not to blame for it.
    place = "" if told.outcome is Outcome.UNTRIED else f"{told.title}: "
    return f"{model}: nothing could be compared; {place}{told.reason}{remedy}"

"""How attempts are shown to people: a line of figures each, the reasons below."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from tflite_hal.cli import show
from tflite_hal.selection import Attempt, Outcome, Selection

__all__ = ["print_grades", "print_selection"]

#: Colours of outcomes; dim where none is here.
_STYLES: Final = {
    Outcome.CHOSEN: "bold green",
    Outcome.RIGHT: "green",
    Outcome.SLOWER: "green",
    Outcome.DEGRADED: "yellow",
    Outcome.QUARANTINED: "yellow",
    Outcome.WRONG: "red",
    Outcome.FAILED: "red",
    Outcome.CRASHED: "red",
    Outcome.HUNG: "red",
}
_NOT_BEGUN: Final = (Outcome.EXCLUDED, Outcome.UNTRIED)
#: Columns of a terminal from which every figure has a column of its own.
_WIDE: Final = 110
#: Letters of an output's name in fewer columns; the reasons have the whole name.
_LONGEST_NAME: Final = 16


def _error(attempt: Attempt) -> str:
    """Return the largest error: in steps, or as a bare share, which the column is narrow for."""
    compared = attempt.comparison
    if compared is None or compared.error is None:
        return "-"
    return f"{compared.error:.2g}" if compared.steps is None else compared.difference


def _coloured(outcome: Outcome, text: str = "") -> str:
    return f"[{_STYLES.get(outcome, 'dim')}]{text or outcome.value}[/]"


def _cosine(attempt: Attempt) -> str:
    compared = attempt.comparison
    return "-" if compared is None or compared.cosine is None else f"{compared.cosine:.4f}"


def print_selection(console: Console, selection: Selection) -> None:
    """Print what is used first, then what takes over, then the rest in the order of the trials."""
    attempts = sorted(selection.attempts, key=lambda one: one.rank or len(selection.attempts) + 1)
    _print_head(console, selection, "" if selection.compared else "nothing was timed")
    if attempts:
        console.print(_wide(attempts) if console.width >= _WIDE else _narrow(attempts), highlight=False)
    _print_reasons(console, attempts)


def print_grades(console: Console, selection: Selection, tried: Sequence[Attempt]) -> None:
    """Print how right each attempt was, a line each."""
    _print_head(console, selection)
    rows = show.table("grade", "candidate", "error", "cosine", "arg-max", "worst output")
    narrow = console.width < _WIDE
    if narrow:
        rows.padding = (0, 1, 0, 0)
    for one in tried:
        found = one.comparison
        if found is None:
            state = "the measure" if one.outcome is Outcome.RIGHT else _coloured(one.outcome)
            rows.add_row(state, escape(_place(one)), "-", "-", "-", "-")
            continue
        largest = "-" if found.argmax is None else f"{found.argmax:.0%}"
        figures = [_error(one), _cosine(one), largest, _output(found.output, narrow)]
        rows.add_row(_coloured(one.outcome, found.grade.value), escape(_place(one)), *figures)
    if tried:
        console.print(rows, highlight=False)
    _print_reasons(console, tried)


def _print_head(console: Console, selection: Selection, remark: str = "") -> None:
    runtime = next((one.runtime for one in selection.attempts), "")
    profile = f"profile {selection.profile}" if selection.profile else "no profile matches"
    about = " · ".join(filter(None, (runtime, profile, remark)))
    console.print(f"[bold]{escape(selection.model)}[/]  {escape(about)}", highlight=False)


def _wide(attempts: Sequence[Attempt]) -> Table:
    rows = show.table("#", "delegate", "device", "configuration", "outcome", "stage", *_FIGURES)
    for one in attempts:
        place = [one.delegate, one.device or "-", _settings(one) or "-"]
        stage = one.stage or "-"
        rows.add_row(_rank(one), *map(escape, place), _coloured(one.outcome), escape(stage), *_figures(one))
    return _aligned(rows)


def _narrow(attempts: Sequence[Attempt]) -> Table:
    """Return it for 80 columns: a candidate in one column, its stage among the reasons only."""
    rows = show.table("#", "candidate", "outcome", *_FIGURES)
    rows.padding = (0, 1, 0, 0)
    for one in attempts:
        place = _place(one)
        rows.add_row(_rank(one), escape(place), _coloured(one.outcome), *_figures(one))
    return _aligned(rows)


def _output(name: str, narrow: bool) -> str:
    """Return an output's name; for 80 columns its end, in which outputs differ."""
    short = narrow and len(name) > _LONGEST_NAME
    return escape(f"…{name[1 - _LONGEST_NAME :]}" if short else name or "-")


_FIGURES: Final = ("ms", "error", "cosine", "operators", "seconds")


def _aligned(rows: Table) -> Table:
    """Align the figures, which don't break: what is long is names and options."""
    for column in rows.columns:
        if column.header in _FIGURES:
            column.justify, column.no_wrap = "right", True
    return rows


def _figures(one: Attempt) -> list[str]:
    """Return a row's :data:`_FIGURES`."""
    latency = "-" if one.latency_ms is None else f"{one.latency_ms:.3g}"
    taken = "-" if one.coverage is None else f"{one.coverage.taken} of {one.coverage.total}"
    return [latency, _error(one), _cosine(one), taken, f"{one.seconds:.2f}" if one.seconds else "-"]


def _rank(one: Attempt) -> str:
    return "-" if one.rank is None else str(one.rank)


def _place(one: Attempt) -> str:
    place = f"{one.delegate} on {one.device}" if one.device else one.delegate
    return f"{place}, {_settings(one)}" if _settings(one) else place


def _settings(one: Attempt) -> str:
    return ", ".join(filter(None, (one.configuration, one.variant)))


def _print_reasons(console: Console, attempts: Sequence[Attempt]) -> None:
    """Print why, and what to do, over the whole width, once; of what was never begun, a line."""
    told: dict[tuple[Outcome, str, str, str], list[str]] = {}
    for one in attempts:
        if one.reason:
            told.setdefault((one.outcome, one.ending, one.reason, one.remedy), []).append(_place(one))
    idle = []
    for (outcome, ending, reason, remedy), places in told.items():
        names = "; ".join(places)
        if outcome in _NOT_BEGUN:
            idle.append(f"{names}: {ending}, {reason}" + (f" (to fix it: {remedy})" if remedy else ""))
            continue
        console.print(f"\n[bold]{escape(names)}: {escape(ending)}[/]", highlight=False)
        console.print(Padding(show.problem(reason, remedy), (0, 0, 0, 2)), highlight=False)
    covered: dict[str, list[str]] = {}
    for one in attempts:
        # What the CPU's fast kernels leave runs on the CPU all the same.
        if one.kind != "cpu" and one.coverage is not None and one.coverage.refused:
            covered.setdefault(str(one.coverage), []).append(_place(one))
    idle += [f"{'; '.join(places)}: took {coverage}" for coverage, places in covered.items()]
    for number, line in enumerate(idle):
        console.print(("" if number else "\n") + f"[dim]{escape(line)}[/]", highlight=False)

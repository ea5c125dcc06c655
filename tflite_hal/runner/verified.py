"""From what was asked for to a comparison of everything that fits it, or to what it takes of a model."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

from tflite_hal.accuracy import Check
from tflite_hal.errors import TfliteHalError
from tflite_hal.model import read_model
from tflite_hal.runner.choice import find_for
from tflite_hal.runner.request import Request, terms_of
from tflite_hal.runtime import load_runtime
from tflite_hal.selection import Attempt, Outcome, Selection, Wish
from tflite_hal.session import Coverage
from tflite_hal.trial import open_candidate, verify

__all__ = ["Covered", "covered", "verified"]


class Covered(NamedTuple):
    """What one candidate takes of a model."""

    title: str  #: the candidate, as :attr:`tflite_hal.Attempt.title` has it
    coverage: Coverage | None  #: None = not reported, or not opened
    reason: str = ""  #: why it could not be opened
    remedy: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return it JSON-ready."""
        return {**self._asdict(), "coverage": None if self.coverage is None else self.coverage.to_dict()}

    def __str__(self) -> str:
        if self.reason:
            return f"{self.title}: {self.reason}" + (f" (to fix it: {self.remedy})" if self.remedy else "")
        return f"{self.title}: {'not reported' if self.coverage is None else self.coverage}"


def verified(
    model: str | os.PathLike[str] | bytes,
    *,
    delegates: Sequence[str] | None = None,
    device: str | None = None,
    runtime: str | None = None,
    check: Check | None = None,
    variants: bool = True,
) -> Selection:
    """Compare what fits with the runtime's built-in kernels: a record of attempts without a winner.

    The arguments are those of :meth:`Runner.auto`, but the CPU takes part only where it fits them.

    Raises:
        ModelError, InputError, DelegateError, RuntimeUnavailableError: as :meth:`Runner.auto`.
    """
    opened = read_model(model)
    terms = terms_of(opened, check=check)
    wish = Wish(delegates, device, cpu_last=False, variants=variants)
    request = Request(wish, explicit=True, runtime=runtime, terms=terms)
    selection, (found, refused, _, forms), _, _ = find_for(opened, load_runtime(runtime), request)
    terms = terms._replace(plain=forms.plain)
    selection.attempts = [*verify(found, opened, terms), *refused]
    return selection


def covered(
    model: str | os.PathLike[str] | bytes,
    delegate: str,
    *,
    device: str | None = None,
    runtime: str | None = None,
) -> list[Covered]:
    """Open a model with a delegate, in a child process, and return what each of its devices takes.

    Raises:
        ModelError, DelegateError, RuntimeUnavailableError: as :class:`Runner`.
    """
    opened = read_model(model)
    terms = terms_of(opened, check=None, isolate=True)
    request = Request(Wish((delegate,), device, cpu_last=False), explicit=True, runtime=runtime, terms=terms)
    _, (found, refused, *_), _, _ = find_for(opened, load_runtime(runtime), request)
    results = []
    for candidate in found:
        title = Attempt.of(candidate, Outcome.UNTRIED).title
        try:
            session = open_candidate(candidate, opened, terms).session
        except TfliteHalError as error:
            results.append(Covered(title, None, error.reason, error.remedy))
            continue
        results.append(Covered(title, session.coverage))
        session.close()
    asked = [one for one in refused if one.delegate == delegate and one.outcome is not Outcome.EXCLUDED]
    return results + [Covered(one.title, None, one.reason, one.remedy) for one in asked]

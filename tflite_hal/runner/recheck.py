"""Compares every so many answers with the built-in kernels': an engine may go wrong after its trial."""

from __future__ import annotations

from typing import Any

import numpy as np

from tflite_hal.accuracy import Grade, compare, model_kind
from tflite_hal.errors import InputError
from tflite_hal.model import Model
from tflite_hal.runner.choice import Choice
from tflite_hal.runner.request import Request
from tflite_hal.runtime import Runtime
from tflite_hal.selection import Candidate
from tflite_hal.trial import Opened, Terms, builtin_candidate, open_candidate

__all__ = ["Recheck"]

Arrays = list[np.ndarray[Any, Any]]


class Recheck:
    """Counts answers; each that is due is compared together with the one before it, since an engine that
    repeats itself is found only by two."""

    def __init__(self, model: Model, measure: Candidate, every: int, terms: Terms) -> None:
        self._model = model
        self._measure = measure
        self._every = every
        self._terms = terms
        self._count = 0
        self._before: list[tuple[str | None, Arrays, Arrays]] = []
        self._opened: Opened | None = None

    @classmethod
    def of(cls, model: Model, runtime: Runtime, request: Request, choice: Choice) -> Recheck | None:
        """Return what was asked for; None for nothing, and where the built-in kernels have not answered.

        Raises:
            InputError: of a stateful model, whose state the built-in kernels do not share.
        """
        if not request.recheck:
            return None
        if model.info.stateful:
            raise InputError(f"{model.name} is stateful: its answers can't be compared one by one")
        winner = choice.selection.winner
        if winner is None or (winner.comparison is None and winner.delegate != "builtin"):
            return None
        measure = builtin_candidate(runtime, choice.terms.plain)
        return cls(model, measure, request.recheck, choice.terms)

    def checked(self, signature: str | None, arrays: Arrays, results: Arrays) -> tuple[Arrays, str]:
        """Return the right answer, and why the given one is wrong or ""."""
        self._count += 1
        given = (signature, arrays, results)
        wrong, right = "", results
        if self._count % self._every == 0:
            right, wrong = self._compared([*self._before, given])
        if (self._count + 1) % self._every == 0:
            self._before = [(signature, [a.copy() for a in arrays], [r.copy() for r in results])]
        return right, wrong

    def forget(self) -> None:
        """Begin anew for another candidate, which has nothing to do with the answer before."""
        self._before.clear()

    def _compared(self, pairs: list[tuple[str | None, Arrays, Arrays]]) -> tuple[Arrays, str]:
        signature = pairs[-1][0]
        outputs = self._model.info.interface(signature, self._model.name).outputs
        pairs = [pair for pair in pairs if pair[0] == signature]
        references = [self._answer(signature, arrays) for _, arrays, _ in pairs]
        answers = [results for _, _, results in pairs]
        found = compare(
            references, answers, outputs, model_kind(self._measure.opens(self._model).info), self._terms.check
        )
        return (references[-1], found.reason) if found.grade is Grade.WRONG else (answers[-1], "")

    def _answer(self, signature: str | None, arrays: Arrays) -> Arrays:
        if self._opened is None:
            self._opened = open_candidate(self._measure, self._model, self._terms)
        return self._opened.prepare(signature, [array.shape for array in arrays]).run(arrays)

    def close(self) -> None:
        """Free the built-in kernels' session."""
        if self._opened is not None:
            self._opened.session.close()

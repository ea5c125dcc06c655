"""Compares two sets of answers; the package's docstring defines the error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tflite_hal.accuracy.check import Check, Grade
from tflite_hal.accuracy.limits import LIMITS, Kind, Limits
from tflite_hal.accuracy.output import Output, argmax, typical_of
from tflite_hal.errors import InputError
from tflite_hal.model import TensorSpec

__all__ = ["Comparison", "compare"]

Array = np.ndarray[Any, Any]


class Comparison(NamedTuple):
    """What comparing found; the figures are of the worst output, None where there are none."""

    grade: Grade
    reason: str  #: one sentence
    error: float | None = None  #: the largest of all answers
    typical: float | None = None  #: the median of the answers
    steps: int | None = None  #: the largest error of quantised outputs, in quantisation steps
    cosine: float | None = None  #: the smallest between two answers
    #: Share of rows (last axis) whose largest element is the same or as large. For information: a wrong
    #: engine had all of them right, and right ones differ where answers are flat.
    argmax: float | None = None
    output: str = ""  #: the name of the worst output

    @property
    def difference(self) -> str:
        """The largest error in a few words, "" where there is no figure."""
        if self.steps is not None:
            return f"{self.steps} step" + ("" if self.steps == 1 else "s")
        if self.error is None:
            return ""
        # Labels have no direction, hence no cosine.
        return f"{self.error:.2g} of the " + ("elements" if self.cosine is None else "range")

    def to_dict(self) -> dict[str, Any]:
        """Return it JSON-ready."""
        return {**self._asdict(), "grade": self.grade.value}

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> Comparison:
        """Rebuild what :meth:`to_dict` gave; raises TypeError or ValueError for anything else."""
        return cls(**{**given, "grade": Grade(given.get("grade"))})


def compare(
    reference: Sequence[Sequence[Array]],
    given: Sequence[Sequence[Array]],
    specs: Sequence[TensorSpec],
    kind: Kind,
    check: Check | None = None,
) -> Comparison:
    """Grade a candidate's answers by those of the built-in kernels.

    Wrong whatever the limits, unless the difference is one that rounding makes: NaN or infinity,
    constants (zeros among them) and answers of an earlier sample, where the reference has others; and
    another shape or dtype.

    Args:
        reference: the built-in kernels' answers: per sample, one array per output in the model's order.
        given: the candidate's, to the same inputs in the same order.
        specs: the outputs; what is quantised is read from them.
        kind: as :func:`model_kind` returns it.
        check: only its tolerance counts here.

    Raises:
        InputError: no sample; a different number of samples; the reference's outputs are not the specs'.
    """
    if not reference or len(reference) != len(given):
        raise InputError(f"{len(reference)} answers of the reference, {len(given)} to compare with them")
    if any(len(answer) != len(specs) for answer in reference):
        raise InputError(f"a reference answer has not the model's {len(specs)} outputs")
    for answer in given:
        if len(answer) != len(specs):
            reason = f"gives {len(answer)} outputs, the built-in kernels {len(specs)}"
            return Comparison(Grade.WRONG, reason)
    tolerance = None if check is None else check.tolerance
    found = []
    with np.errstate(all="ignore"):
        for place, spec in enumerate(specs):
            right = [np.asarray(answer[place]) for answer in reference]
            own = [np.asarray(answer[place]) for answer in given]
            found.append(_compare_output(spec, right, own, LIMITS[kind], tolerance))
    return _joined(found)


def _joined(found: list[Comparison]) -> Comparison:
    """Return the first of the worst, with the worst figures of all outputs."""
    if not found:
        return Comparison(Grade.OK, "the model has no outputs")
    order = list(Grade)
    figures: dict[str, Any] = {}
    for name, pick in (("error", max), ("typical", max), ("steps", max), ("cosine", min), ("argmax", min)):
        values = [value for one in found if (value := getattr(one, name)) is not None]
        figures[name] = pick(values) if values else None
    worst = max(found, key=lambda one: (order.index(one.grade), one.error or 0.0))
    return worst._replace(**figures)


def _compare_output(
    spec: TensorSpec, reference: list[Array], given: list[Array], limits: Limits, tolerance: float | None
) -> Comparison:
    for right, own in zip(reference, given, strict=True):
        if (right.shape, right.dtype) != (own.shape, own.dtype):
            formats = f"{own.dtype}{list(own.shape)}, the built-in kernels {right.dtype}{list(right.shape)}"
            return Comparison(Grade.WRONG, f"output {spec.name!r} is {formats}", output=spec.name)
    output = Output.of(spec, reference, given, limits)
    errors = sorted(output.errors())
    cosines = output.cosines()
    figures = Comparison(
        Grade.OK,
        f"output {spec.name!r} agrees within {output.amount(errors[-1])}",
        error=errors[-1],
        typical=typical_of(errors),
        steps=round(errors[-1] * 2 * output.half) if output.quantized else None,
        cosine=min(cosines, default=None),
        argmax=None if output.labels else argmax(reference, given),
        output=spec.name,
    )
    failure = output.failure()
    if failure:
        return figures._replace(grade=Grade.WRONG, reason=f"output {spec.name!r} {failure}")
    grade, reason = output.grade(errors, cosines, tolerance)
    if grade is Grade.OK:
        return figures
    cosine = "" if figures.cosine is None else f", cosine {figures.cosine:.4f}"
    return figures._replace(grade=grade, reason=f"output {spec.name!r} {reason}{cosine}")

"""Compares a candidate's answers with those of the runtime's built-in kernels: right before fast.

An answer's *error* is the largest difference in it, as a share of the output's range; of labels
(integers without quantisation, booleans, text) it is the share of elements that differ. The range
spans the reference's values over all samples and zero, and at least 256 steps where the output is
quantised (all levels of an 8-bit output, so that an error of 1/256 is one step) or 1e-6.

Rounding flips an answer near a decision now and then, also between kernels that are right, so no one
limit fits all answers: the *typical* error (the median over the samples, of an even number the lower
middle) tells ok from degraded and wrong, and the worst one is held to a wide limit of its own.
"""

from __future__ import annotations

import hashlib
import json
import math
import sys
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any, Final, Literal, NamedTuple

import numpy as np

from tflite_hal.errors import InputError
from tflite_hal.model import ModelInfo, TensorSpec

__all__ = ["Check", "Comparison", "Grade", "Kind", "Limits", "compare", "model_kind", "validated"]

Array = np.ndarray[Any, Any]
#: ``quantized``: computes with integers; ``hybrid``: float activations, 8-bit weights; ``float``.
Kind = Literal["quantized", "hybrid", "float"]


class Limits(NamedTuple):
    """Errors up to which an answer counts; shares as in the module's docstring."""

    ok: float  #: typical error up to which it is ok
    degraded: float  #: typical error up to which it is degraded; beyond, wrong
    worst: float  #: beyond it one answer suffices for wrong


#: Measured on x86-64 against the built-in kernels, in steps. Four inputs: XNNPACK up to 8 (ok),
#: OpenVINO 21 and 31 (degraded, where typical), WebGPU 97 (wrong). Typical and worst of 64 seeded
#: inputs of ResNet-8: XNNPACK 3 and 45, OpenVINO 5 and 51, while the built-in and the reference kernels
#: are 1 and 32 apart, XNNPACK and the reference kernels 3 and 69: all of these are right.
_QUANTIZED: Final = Limits(12 / 256, 48 / 256, 80 / 256)
#: Kernels differ in how they round activations. A keyword spotter, typical and worst of 64 seeded
#: inputs, of a range of 0.54 to 1: XNNPACK 0.004 and 0.012, OpenVINO 0.011 and 0.027.
_HYBRID: Final = Limits(0.03, 0.1, 0.25)
#: Engines in float32 stay within 1e-6 of the range (measured: 5e-5 of values up to 43). Half precision
#: keeps 11 bits, which accumulate to 1e-3 to 1e-2 (not measured): ok up to 1e-2, degraded beyond.
_FLOAT: Final = Limits(0.01, 0.05, 0.15)
#: Shares of elements. A segmentation by every engine measured: none differ. Whole numbers flip at near
#: ties: up to a quarter of the arg-max of flat answers did.
_LABELS: Final = Limits(0.05, 0.3, 0.5)
LIMITS: Final[Mapping[str, Limits]] = {"quantized": _QUANTIZED, "hybrid": _HYBRID, "float": _FLOAT}

#: Below it a typical cosine is degraded, which finds noise all over an answer of few large elements.
#: Not where errors are small, as in flat answers: 2 steps made 0.988 of MobileNet, on every engine.
_COSINE: Final = 0.9
_FEW: Final = 1 / 3  #: of the ok limit: errors that are small whatever the cosine
_GRAIN: Final = 1 / 12  #: of the ok limit: one step of a quantised output
_MANY: Final = 16  #: elements; chance does not make so many agree, or differ, by more than a grain
_SMALLEST_RANGE: Final = 1e-6


class Grade(str, Enum):
    """How right a candidate is, best first."""

    OK = "ok"
    DEGRADED = "degraded"  #: used only by who accepts it
    WRONG = "wrong"  #: never used


class Check(NamedTuple):
    """What a caller may set about the comparison."""

    #: Inputs as ``predict`` takes them, one per call; None compares on seeded inputs only.
    samples: Sequence[Any] | None = None
    #: The largest error of any answer, as defined above, for every kind of model and output: up to it
    #: ok, beyond wrong. 0 is bit by bit, 0.05 is 12 steps of 256. None: the defaults.
    tolerance: float | None = None
    accept: str = "ok"  #: the worst grade that is used: ``ok`` or ``degraded``
    seeded: int = 8  #: number of seeded inputs; of fewer than four, "typical" says little

    def key(self) -> str:
        """Return 16 hexadecimal digits that differ where a setting or a byte of the samples does."""
        digest = hashlib.sha256()
        settings = [self.tolerance, Grade(self.accept).value, self.seeded]
        digest.update(json.dumps(settings).encode())
        _feed(digest, None if self.samples is None else list(self.samples))
        return digest.hexdigest()[:16]


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

    def to_dict(self) -> dict[str, Any]:
        """Return it JSON-ready."""
        return {**self._asdict(), "grade": self.grade.value}


def validated(check: Check) -> Check:
    """Return the check with plain values.

    Raises:
        InputError: a value is of the wrong kind or out of range; says which and what it may be.
    """
    samples, tolerance, accept, seeded = check
    if samples is not None and (not isinstance(samples, (list, tuple)) or not samples):
        given = "an empty one" if isinstance(samples, (list, tuple)) else type(samples).__name__
        raise InputError(
            f"samples takes a list of inputs, not {given}", remedy="give one entry per call of predict"
        )
    number = isinstance(tolerance, (int, float, np.integer, np.floating)) and not isinstance(tolerance, bool)
    if tolerance is not None and not (number and 0 <= tolerance <= 1):
        raise InputError(f"tolerance takes None or a share of the range from 0 to 1, not {tolerance!r}")
    if not isinstance(accept, str) or accept not in ("ok", "degraded"):
        raise InputError(f"accept takes 'ok' or 'degraded', not {accept!r}")
    whole = isinstance(seeded, (int, np.integer)) and not isinstance(seeded, bool)
    if not whole or seeded < (samples is None):
        least = "1 or more without samples, 0 or more with them"
        raise InputError(f"seeded takes a number of inputs, {least}, not {seeded!r}")
    kept = None if samples is None else tuple(samples)
    allowed = None if tolerance is None else float(tolerance)
    return Check(kept, allowed, Grade(accept).value, int(seeded))


def model_kind(info: ModelInfo) -> Kind:
    """Return which limits fit: float inputs and outputs around integer arithmetic are quantised."""
    inside = info.precision in ("int8", "uint8", "int16")
    # A graph that quantises its activations computes with integers; a hybrid one has no such operator.
    inside = inside or (
        info.precision == "hybrid" and any(operator.name == "QUANTIZE" for operator in info.operators)
    )
    if inside or any(spec.quantized for spec in (*info.inputs, *info.outputs)):
        return "quantized"
    return "hybrid" if info.precision == "hybrid" else "float"


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
            return Comparison(Grade.WRONG, f"output {spec.name!r} is {formats}")
    output = _Output.of(spec, reference, given, limits)
    errors = sorted(output.errors())
    cosines = [] if output.labels else [_cosine(*pair) for pair in output.pairs()]
    figures = Comparison(
        Grade.OK,
        f"output {spec.name!r} agrees within {output.amount(errors[-1])}",
        error=errors[-1],
        typical=_typical(errors),
        steps=round(errors[-1] * output.range) if output.quantized else None,
        cosine=min(cosines, default=None),
        argmax=None if output.labels else _argmax(reference, given),
    )
    failure = output.failure()
    if failure:
        return figures._replace(grade=Grade.WRONG, reason=f"output {spec.name!r} {failure}")
    grade, reason = output.grade(errors, cosines, tolerance)
    if grade is Grade.OK:
        return figures
    cosine = "" if figures.cosine is None else f", cosine {figures.cosine:.4f}"
    return figures._replace(grade=grade, reason=f"output {spec.name!r} {reason}{cosine}")


class _Output(NamedTuple):
    """One output over all samples."""

    reference: list[Array]  #: per sample, flat: float64 of quantised steps or real values, or labels
    given: list[Array]
    limits: Limits
    labels: bool
    quantized: bool
    range: float

    @staticmethod
    def of(spec: TensorSpec, reference: list[Array], given: list[Array], limits: Limits) -> _Output:
        kind = reference[0].dtype.kind
        quantized = spec.quantized and kind in "iu"
        if not quantized and kind not in "fc":
            flat = [[array.reshape(-1) for array in arrays] for arrays in (reference, given)]
            return _Output(flat[0], flat[1], _LABELS, True, False, 1.0)
        flat = [[_numbers(array, spec, quantized) for array in arrays] for arrays in (reference, given)]
        ends = [0.0]
        for array in flat[0]:
            finite = array[np.isfinite(array)]
            ends += [finite.min(), finite.max()] if finite.size else []
        smallest = 256.0 if quantized else _SMALLEST_RANGE
        return _Output(flat[0], flat[1], limits, False, quantized, max(max(ends) - min(ends), smallest))

    def pairs(self) -> list[tuple[Array, Array]]:
        return list(zip(self.reference, self.given, strict=True))

    def errors(self) -> list[float]:
        """Return one per sample. Few labels have no share worth the name: those of all samples count."""
        errors = [self.error(*pair) for pair in self.pairs()]
        if self.labels and self.reference[0].size < _MANY:
            return [sum(errors) / len(errors)] * len(errors)
        return errors

    def error(self, a: Array, b: Array) -> float:
        distances = self.distances(a, b)
        if not distances.size:
            return 0.0
        # A finite figure, however far apart: JSON has no infinity.
        return min(float(distances.mean() if self.labels else distances.max()), sys.float_info.max)

    def distances(self, a: Array, b: Array) -> Array:
        if self.labels:
            return np.not_equal(a, b).astype(np.float64)
        # Halves: the distance of two large numbers has no infinity. What isn't finite has its own rule.
        apart = np.abs(a / 2 - b / 2) / (self.range / 2)
        return np.where(np.isfinite(a) & np.isfinite(b), apart, 0.0)

    def differ(self, a: Array, b: Array) -> bool:
        """Whether two answers are further apart than two roundings of the same."""
        many = max(_MANY, a.size / _MANY)
        grains = np.count_nonzero(self.distances(a, b) > self.limits.ok * _GRAIN * (1 + 1e-9))
        return self.error(a, b) > self.limits.ok or grains >= many

    def failure(self) -> str:
        """Return what is wrong whatever the limits, or ""."""
        for number, (right, own) in enumerate(self.pairs(), 1):
            if not self.labels and (bad := np.isfinite(right) & ~np.isfinite(own)).any():
                return f"has {np.count_nonzero(bad)} NaN or infinite elements in answer {number}"
            if own.size > 1 and _constant(own) and self.differ(right, own) and self.varies(right):
                return f"is constant ({own[0]}) in answer {number}, the built-in kernels' isn't"
        return self.stale()

    def varies(self, a: Array) -> bool:
        return self.error(a, np.full_like(a, a[0])) > self.limits.ok * _FEW

    def stale(self) -> str:
        off = [self.differ(*pair) for pair in self.pairs()]
        moved = [self.differ(a, b) for a, b in zip(self.reference, self.reference[1:], strict=False)]
        for i, moves in enumerate(moved, 1):
            same = np.array_equal(self.given[i], self.given[i - 1])
            if moves and same and (off[i] or off[i - 1]):
                return f"repeats answer {i} as answer {i + 1}, to another input"
        late = [not self.differ(a, b) for a, b in zip(self.reference, self.given[1:], strict=False)]
        if late and all(late) and any(m and o for m, o in zip(moved, off[1:], strict=True)):
            return "is always the answer to the sample before"
        return ""

    def grade(self, errors: list[float], cosines: list[float], tolerance: float | None) -> tuple[Grade, str]:
        """Grade by the limits; ``errors`` are sorted."""
        worst, typical, limits = errors[-1], _typical(errors), self.limits
        if tolerance is not None and worst > tolerance * (1 + 1e-9):
            return Grade.WRONG, f"differs by {self.amount(worst)} (tolerance {tolerance:g})"
        if tolerance is None and worst > limits.worst:
            return Grade.WRONG, f"differs by {self.amount(worst)} (limit {self.amount(limits.worst)})"
        if tolerance is None and typical > limits.ok:
            grade = Grade.WRONG if typical > limits.degraded else Grade.DEGRADED
            return grade, f"typically differs by {self.amount(typical)} (limit {self.amount(limits.ok)})"
        flat = typical <= limits.ok * _FEW or self.reference[0].size < _MANY
        if tolerance is None and not flat and _typical(sorted(cosines, reverse=True)) < _COSINE:
            return Grade.DEGRADED, f"points elsewhere (limit of the cosine {_COSINE})"
        if not self.labels and any(_unlike(*pair) for pair in self.pairs()):
            return Grade.DEGRADED, "is finite where the built-in kernels' isn't: nothing to compare with"
        return Grade.OK, ""

    def amount(self, error: float) -> str:
        """Return an error in words."""
        if self.labels:
            return f"{error:.3g} of its elements"
        if self.quantized and self.range == 256:
            return f"{round(error * 256)} of 256 steps"
        return f"{error:.3g} of its range"


def _numbers(array: Array, spec: TensorSpec, quantized: bool) -> Array:
    """Return them flat, as float64: of quantised ones the distance to zero, in steps."""
    if array.dtype.kind == "c":
        array = np.stack([array.real, array.imag])
    flat = array.reshape(-1).astype(np.float64)
    # Outputs quantised per axis share one zero point in practice; steps need no scale.
    return flat - spec.quantization.zero_points[0] if quantized and spec.quantization else flat


def _typical(errors: list[float]) -> float:
    return errors[(len(errors) - 1) // 2]


def _constant(array: Array) -> bool:
    return bool((array == array[0]).all())


def _unlike(right: Array, own: Array) -> bool:
    """Whether something is finite, or another infinity, where the reference isn't finite."""
    same = np.isfinite(right) | (right == own) | (np.isnan(right) & np.isnan(own))
    return not bool(same.all())


def _cosine(right: Array, own: Array) -> float:
    both = np.isfinite(right) & np.isfinite(own)
    a, b = right[both], own[both]
    if not a.any() or np.array_equal(a, b):
        return 1.0  # a reference of zeros has no direction: its error counts alone
    if not b.any():
        return 0.0
    a, b = a / np.abs(a).max(), b / np.abs(b).max()  # squares of large numbers overflow
    return float(np.clip(a @ b / math.sqrt((a @ a) * (b @ b)), -1.0, 1.0))


def _argmax(reference: list[Array], given: list[Array]) -> float | None:
    """Compare the largest elements along the last axis of the arrays as they came."""
    agreeing: list[bool] = []
    for right, own in zip(reference, given, strict=True):
        if right.dtype.kind not in "fiu" or right.ndim == 0 or right.shape[-1] < 2 or not right.size:
            continue
        a, b = right.reshape(-1, right.shape[-1]), own.reshape(-1, right.shape[-1])
        rows, first, second = np.arange(len(a)), a.argmax(1), b.argmax(1)
        agreeing += ((first == second) | (a[rows, first] == a[rows, second])).tolist()
    return sum(agreeing) / len(agreeing) if agreeing else None


def _feed(digest: Any, value: Any) -> None:
    """Hash a sample: arrays by dtype, shape and bytes; containers by their parts."""
    if isinstance(value, Mapping):
        _feed(digest, [[name, value[name]] for name in sorted(value, key=str)])
    elif isinstance(value, (list, tuple)):
        digest.update(f"[{len(value)}".encode())
        for part in value:
            _feed(digest, part)
    elif isinstance(value, (str, bytes)):
        data = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value
        digest.update(f"{type(value).__name__}{len(data)}:".encode() + data)
    else:
        array = np.asarray(value)
        if not array.dtype.hasobject:
            digest.update(f"{array.dtype.str}{array.shape}".encode() + array.tobytes())
        elif array.ndim:
            _feed(digest, [list(array.shape), array.reshape(-1).tolist()])
        else:
            digest.update(repr(array.item()).encode())

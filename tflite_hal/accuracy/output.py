"""One output of a model, over all samples: how far apart, and what is wrong whatever the limits."""

from __future__ import annotations

import math
import sys
from typing import Any, NamedTuple

import numpy as np

from tflite_hal.accuracy.check import Grade
from tflite_hal.accuracy.limits import COSINE, FEW, GRAIN, LABELS, MANY, SMALLEST_RANGE, Limits
from tflite_hal.model import TensorSpec

__all__ = ["Output", "argmax", "typical_of"]

Array = np.ndarray[Any, Any]


class Output(NamedTuple):
    """One output over all samples."""

    reference: list[Array]  #: per sample, flat: float64 of quantised steps or real values, or labels
    given: list[Array]
    limits: Limits
    labels: bool
    quantized: bool
    half: float  #: of the range, which itself may be too large for a float

    @staticmethod
    def of(spec: TensorSpec, reference: list[Array], given: list[Array], limits: Limits) -> Output:
        """Make one of arrays of equal shapes and dtypes, one per sample."""
        kind = reference[0].dtype.kind
        quantized = spec.quantized and kind in "iu"
        if not quantized and kind not in "fc":
            flat = [[array.reshape(-1) for array in arrays] for arrays in (reference, given)]
            return Output(flat[0], flat[1], LABELS, True, False, 0.5)
        flat = [[_numbers(array, spec, quantized) for array in arrays] for arrays in (reference, given)]
        ends = [0.0]
        for array in flat[0]:
            finite = array[np.isfinite(array)]
            ends += [finite.min(), finite.max()] if finite.size else []
        smallest = 256.0 if quantized else SMALLEST_RANGE
        half = max(max(ends) / 2 - min(ends) / 2, smallest / 2)
        return Output(flat[0], flat[1], limits, False, quantized, half)

    def pairs(self) -> list[tuple[Array, Array]]:
        """Return the reference's and the given answer per sample."""
        return list(zip(self.reference, self.given, strict=True))

    def errors(self) -> list[float]:
        """Return one per sample. Few labels have no share worth the name: those of all samples count."""
        errors = [self.error(*pair) for pair in self.pairs()]
        if self.labels and self.reference[0].size < MANY:
            return [sum(errors) / len(errors)] * len(errors)
        return errors

    def cosines(self) -> list[float]:
        """Return one per sample; labels have none."""
        return [] if self.labels else [_cosine(*pair) for pair in self.pairs()]

    def error(self, a: Array, b: Array) -> float:
        """Return how far apart two answers are, as the package's docstring defines it."""
        distances = self.distances(a, b)
        if not distances.size:
            return 0.0
        # A finite figure, however far apart: JSON has no infinity.
        return min(float(distances.mean() if self.labels else distances.max()), sys.float_info.max)

    def distances(self, a: Array, b: Array) -> Array:
        """Return it per element, as float64: a share of the range, or 1 where labels differ."""
        if self.labels:
            return np.not_equal(a, b).astype(np.float64)
        # Halves: the distance of two large numbers has no infinity. What isn't finite has its own rule.
        apart = np.abs(a / 2 - b / 2) / self.half
        return np.where(np.isfinite(a) & np.isfinite(b), apart, 0.0)

    def differ(self, a: Array, b: Array) -> bool:
        """Whether two answers are further apart than two roundings of the same."""
        if a.size != b.size or self.error(a, b) > self.limits.ok:
            return True  # sizes may differ from sample to sample
        grains = int(np.count_nonzero(self.distances(a, b) > self.limits.ok * GRAIN * (1 + 1e-9)))
        return grains >= max(MANY, a.size / MANY)

    def failure(self) -> str:
        """Return what is wrong whatever the limits, or ""."""
        if self.labels and self.reference[0].size < MANY:
            return ""  # one flip at a near tie makes them constant, or those of the sample before
        for number, (right, own) in enumerate(self.pairs(), 1):
            if not self.labels and (bad := np.isfinite(right) & ~np.isfinite(own)).any():
                return f"has {np.count_nonzero(bad)} NaN or infinite elements in answer {number}"
            if own.size > 1 and _constant(own) and self.differ(right, own) and self.varies(right):
                what = "constant" if own[0] else "all zeros"
                return f"is {what} in answer {number}, where the built-in kernels' isn't"
        return self.stale()

    def varies(self, a: Array) -> bool:
        """Whether an answer is far from constant."""
        return self.error(a, np.full_like(a, a[0])) > self.limits.ok * FEW

    def stale(self) -> str:
        """Return which answer belongs to an earlier sample, or ""."""
        off = [self.differ(*pair) for pair in self.pairs()]
        moved = [self.differ(a, b) for a, b in zip(self.reference, self.reference[1:], strict=False)]
        for i, moves in enumerate(moved, 1):
            same = np.array_equal(self.given[i], self.given[i - 1])
            if moves and same and (off[i] or off[i - 1]):
                return f"repeats answer {i} as answer {i + 1}, to another input"
        late = [not self.differ(a, b) for a, b in zip(self.reference, self.given[1:], strict=False)]
        if len(late) > 1 and all(late) and any(m and o for m, o in zip(moved, off[1:], strict=True)):
            return "is always the answer to the sample before"
        return ""

    def grade(self, errors: list[float], cosines: list[float], tolerance: float | None) -> tuple[Grade, str]:
        """Grade by the limits; ``errors`` are sorted."""
        worst, typical, limits = errors[-1], typical_of(errors), self.limits
        if tolerance is not None and worst > tolerance * (1 + 1e-9):
            return Grade.WRONG, f"differs by {self.amount(worst)} (tolerance {tolerance:g})"
        if tolerance is None and worst > limits.worst:
            return Grade.WRONG, f"differs by {self.amount(worst)} (limit {self.amount(limits.worst)})"
        if tolerance is None and typical > limits.ok:
            grade = Grade.WRONG if typical > limits.degraded else Grade.DEGRADED
            return grade, f"typically differs by {self.amount(typical)} (limit {self.amount(limits.ok)})"
        flat = self.labels or typical <= limits.ok * FEW or self.reference[0].size < MANY
        if tolerance is None and not flat and typical_of(sorted(cosines, reverse=True)) < COSINE:
            return Grade.DEGRADED, f"has noise all over (limit of the cosine {COSINE})"
        if not self.labels and any(_unlike(*pair) for pair in self.pairs()):
            return Grade.DEGRADED, "is finite where the built-in kernels' isn't: nothing to compare with"
        return Grade.OK, ""

    def amount(self, error: float) -> str:
        """Return an error in words."""
        if self.labels:
            return f"{error:.3g} of its elements"
        if self.quantized and self.half == 128:
            return f"{round(error * 256)} of 256 steps"
        return f"{error:.3g} of its range"


def _numbers(array: Array, spec: TensorSpec, quantized: bool) -> Array:
    """Return them flat, as float64: of quantised ones the distance to zero, in steps."""
    if array.dtype.kind == "c":
        array = np.stack([array.real, array.imag])
    flat = array.reshape(-1).astype(np.float64)
    # Outputs quantised per axis share one zero point in practice; steps need no scale.
    return flat - spec.quantization.zero_points[0] if quantized and spec.quantization else flat


def typical_of(errors: list[float]) -> float:
    """Return the median of sorted figures, of an even number the lower middle."""
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


def argmax(reference: list[Array], given: list[Array]) -> float | None:
    """Return the share of rows (last axis) of the unflattened arrays whose largest elements agree."""
    agreeing: list[bool] = []
    for right, own in zip(reference, given, strict=True):
        if right.dtype.kind not in "fiu" or right.ndim == 0 or right.shape[-1] < 2 or not right.size:
            continue
        a, b = right.reshape(-1, right.shape[-1]), own.reshape(-1, right.shape[-1])
        rows, first, second = np.arange(len(a)), a.argmax(1), b.argmax(1)
        agreeing += ((first == second) | (a[rows, first] == a[rows, second])).tolist()
    return sum(agreeing) / len(agreeing) if agreeing else None

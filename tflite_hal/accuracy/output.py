"""One output of a model, over all samples: how far apart, and what is wrong whatever the limits."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import numpy as np

from tflite_hal.accuracy.check import Grade
from tflite_hal.accuracy.limits import COSINE, FEW, GRAIN, LABELS, MANY, SMALLEST_RANGE, Limits
from tflite_hal.model import TensorSpec

__all__ = ["Output", "argmax", "typical_of"]

Array = np.ndarray[Any, Any]

#: Elements that are converted to float64 at a time: an answer of many megabytes stays as it is.
_PIECE: Final = 1 << 16


class Output(NamedTuple):
    """One output over all samples."""

    reference: list[Array]  #: per sample, flat, as the model gave it; of complex numbers both parts
    given: list[Array]
    zero: float  #: what stands for 0: of quantised outputs the zero point
    limits: Limits
    labels: bool
    quantized: bool
    half: float  #: of the range, which itself may be too large for a float

    @staticmethod
    def of(spec: TensorSpec, reference: list[Array], given: list[Array], limits: Limits) -> Output:
        """Make one of arrays of equal shapes and dtypes, one per sample."""
        kind = reference[0].dtype.kind
        quantized = spec.quantized and kind in "iu"
        right, own = [_flat(array) for array in reference], [_flat(array) for array in given]
        if not quantized and kind not in "fc":
            return Output(right, own, 0.0, LABELS, True, False, 0.5)
        # Outputs quantised per axis share one zero point in practice; steps need no scale.
        zero = float(spec.quantization.zero_points[0]) if quantized and spec.quantization else 0.0
        ends = [0.0]
        for array in right:
            for (piece,) in _pieces(array, less=zero):
                finite = piece[np.isfinite(piece)]
                ends += [float(finite.min()), float(finite.max())] if finite.size else []
        smallest = 256.0 if quantized else SMALLEST_RANGE
        half = max(max(ends) / 2 - min(ends) / 2, smallest / 2)
        return Output(right, own, zero, limits, False, quantized, half)

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
        return [] if self.labels else [_cosine(*pair, self.zero) for pair in self.pairs()]

    def error(self, a: Array, b: Array) -> float:
        """Return how far apart two answers are, as the package's docstring defines it."""
        worst = total = 0.0
        for distances in self.distances(a, b):
            worst, total = max(worst, float(distances.max())), total + float(distances.sum())
        # A finite figure, however far apart: JSON has no infinity.
        return min(total / a.size if self.labels and a.size else worst, sys.float_info.max)

    def distances(self, a: Array, b: Array) -> Iterator[Array]:
        """Yield it per element, as float64 and piece by piece: a share of the range, or 1 where labels
        differ."""
        if self.labels:
            yield from (np.not_equal(a, b).astype(np.float64) for a, b in _pieces(a, b))
            return
        for one, other in _pieces(a, b, less=self.zero):
            # Halves: the distance of two large numbers has no infinity. What isn't finite has its own rule.
            apart = np.abs(one / 2 - other / 2) / self.half
            yield np.where(np.isfinite(one) & np.isfinite(other), apart, 0.0)

    def differ(self, a: Array, b: Array) -> bool:
        """Whether two answers are further apart than two roundings of the same."""
        if a.size != b.size or self.error(a, b) > self.limits.ok:
            return True  # sizes may differ from sample to sample
        grain = self.limits.ok * GRAIN * (1 + 1e-9)
        grains = sum(int(np.count_nonzero(piece > grain)) for piece in self.distances(a, b))
        return grains >= max(MANY, a.size / MANY)

    def failure(self) -> str:
        """Return what is wrong whatever the limits, or ""."""
        if self.labels and self.reference[0].size < MANY:
            return ""  # one flip at a near tie makes them constant, or those of the sample before
        for number, (right, own) in enumerate(self.pairs(), 1):
            if not self.labels and (bad := np.isfinite(right) & ~np.isfinite(own)).any():
                return f"has {np.count_nonzero(bad)} NaN or infinite elements in answer {number}"
            if own.size > 1 and _constant(own) and self.differ(right, own) and self.varies(right):
                what = "all zeros" if own[0] == self.zero else "constant"
                return f"is {what} in answer {number}, where the built-in kernels' isn't"
        return self.stale()

    def varies(self, a: Array) -> bool:
        """Whether an answer is far from constant."""
        return self.error(a, np.broadcast_to(a[0], a.shape)) > self.limits.ok * FEW

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


def _flat(array: Array) -> Array:
    flat = np.ascontiguousarray(array).reshape(-1)
    return flat.view(flat.real.dtype) if flat.dtype.kind == "c" else flat


def _pieces(*arrays: Array, less: float | None = None) -> Iterator[tuple[Array, ...]]:
    """Yield arrays of one size piece by piece: as they are, or as float64 ``less`` a number."""
    for start in range(0, arrays[0].size, _PIECE):
        found = [array[start : start + _PIECE] for array in arrays]
        yield tuple(found if less is None else [one.astype(np.float64) - less for one in found])


def typical_of(errors: list[float]) -> float:
    """Return the median of sorted figures, of an even number the lower middle."""
    return errors[(len(errors) - 1) // 2]


def _constant(array: Array) -> bool:
    return bool((array == array[0]).all())


def _unlike(right: Array, own: Array) -> bool:
    """Whether something is finite, or another infinity, where the reference isn't finite."""
    same = np.isfinite(right) | (right == own) | (np.isnan(right) & np.isnan(own))
    return not bool(same.all())


def _cosine(right: Array, own: Array, zero: float) -> float:
    if np.array_equal(right, own):
        return 1.0
    largest = [0.0, 0.0]
    for pair in _pieces(right, own, less=zero):
        both = np.isfinite(pair[0]) & np.isfinite(pair[1])
        largest = [
            max(most, np.abs(one[both]).max(initial=0.0)) for most, one in zip(largest, pair, strict=True)
        ]
    if not largest[0]:
        return 1.0  # a reference of zeros has no direction: its error counts alone
    if not largest[1]:
        return 0.0
    products = np.zeros(3)
    for pair in _pieces(right, own, less=zero):
        both = np.isfinite(pair[0]) & np.isfinite(pair[1])
        # Squares of large numbers overflow.
        a, b = (one[both] / most for one, most in zip(pair, largest, strict=True))
        products += (a @ b, a @ a, b @ b)
    return float(np.clip(products[0] / math.sqrt(products[1] * products[2]), -1.0, 1.0))


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

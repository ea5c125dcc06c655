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

from tflite_hal.accuracy.check import Check, Grade, validated
from tflite_hal.accuracy.comparison import Comparison, compare
from tflite_hal.accuracy.limits import LIMITS, Kind, Limits, model_kind

__all__ = ["LIMITS", "Check", "Comparison", "Grade", "Kind", "Limits", "compare", "model_kind", "validated"]

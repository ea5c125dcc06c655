"""Orders the candidates, and keeps the whole record of one choice."""

from tflite_hal.selection.candidates import Candidates, Wish, candidates, is_own_cpu
from tflite_hal.selection.record import Attempt, Candidate, Outcome, Selection

__all__ = [
    "Attempt",
    "Candidate",
    "Candidates",
    "Outcome",
    "Selection",
    "Wish",
    "candidates",
    "is_own_cpu",
]

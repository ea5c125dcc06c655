"""Orders the candidates, and keeps the whole record of one choice."""

from tflite_hal.selection.candidates import Candidates, Wish, candidates, is_own_cpu
from tflite_hal.selection.names import DELEGATES, allowed_delegates, hint, unknown_exclusions
from tflite_hal.selection.record import Attempt, Candidate, Outcome, Selection

__all__ = [
    "DELEGATES",
    "Attempt",
    "Candidate",
    "Candidates",
    "Outcome",
    "Selection",
    "Wish",
    "allowed_delegates",
    "candidates",
    "hint",
    "is_own_cpu",
    "unknown_exclusions",
]

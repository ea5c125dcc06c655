"""Tries candidates: opens them where they can do no harm, compares their answers, times them."""

from tflite_hal.trial.choosing import Chosen, choose
from tflite_hal.trial.gate import builtin_candidate
from tflite_hal.trial.inputs import seeded_inputs
from tflite_hal.trial.memory import Memory
from tflite_hal.trial.proof import Opened, Terms, open_candidate, outcome_of
from tflite_hal.trial.race import limit_runs
from tflite_hal.trial.verify import verify

__all__ = [
    "Chosen",
    "Memory",
    "Opened",
    "Terms",
    "builtin_candidate",
    "choose",
    "limit_runs",
    "open_candidate",
    "outcome_of",
    "seeded_inputs",
    "verify",
]

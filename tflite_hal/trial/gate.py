"""Lets pass who answers rightly: one model's inputs, and the built-in kernels' answers to them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from tflite_hal.accuracy import Check, Comparison, Grade, compare, model_kind
from tflite_hal.delegate import Configuration, Device
from tflite_hal.errors import DelegateError, TfliteHalError, WorkerError
from tflite_hal.kernels import BuiltinKernels
from tflite_hal.model import Model, Variant
from tflite_hal.runtime import Runtime
from tflite_hal.selection import Attempt, Candidate, Outcome, is_own_cpu
from tflite_hal.trial.inputs import Inputs
from tflite_hal.trial.proof import Answers, Opened, Proof, Terms, prove

__all__ = ["Gate", "builtin_candidate", "why_untried"]

#: Seconds the built-in kernels may take.
PATIENT: Final = {"open": 60.0, "run": 600.0}
#: Seeded inputs that are enough for a slow model.
FEW_INPUTS: Final = 4


def why_untried(candidate: Candidate, attempts: Sequence[Attempt], found: bool) -> str:
    """Return why a candidate is left out after these attempts, "" where it is not; ``found``: the one to
    be used is among them."""
    if found:
        return "comes after what is used"
    place = (candidate.delegate.name, candidate.device.id)
    ends = {attempt.outcome for attempt in attempts if (attempt.delegate, attempt.device) == place}
    if ends & {Outcome.CRASHED, Outcome.HUNG, Outcome.QUARANTINED}:
        return "another configuration crashed or hung"
    if candidate.configuration.remedy and not ends & {Outcome.WRONG, Outcome.DEGRADED}:
        return "only where other configurations answer wrongly"
    return ""


def builtin_candidate(runtime: Runtime, plain: Variant | None = None) -> Candidate:
    """Return the runtime's own kernels, which all others are compared with; ``plain`` is what they run
    instead of a model that was made for another engine."""
    device, configuration = Device("cpu", "cpu"), Configuration(threads=1)
    return Candidate(BuiltinKernels(), device, configuration, runtime, variant=plain)


class Gate:
    """One model's inputs and the built-in kernels' answers to them, made when first needed."""

    def __init__(self, model: Model, terms: Terms, runtime: Runtime) -> None:
        self._model = model
        self._terms = terms
        self.measure = builtin_candidate(runtime, terms.plain)
        self.inputs = Inputs(model.info, terms.samples, terms.check.seeded)
        self._reference: Proof | TfliteHalError | None = None

    def attempt(self, candidate: Candidate) -> tuple[Opened | None, Attempt]:
        """Try a candidate; returns its session where it may be used."""
        if self.inputs.text and self._terms.stays_in_worker(candidate):
            raise DelegateError(f"{self._model.name} has text, which does not cross a process boundary")
        reference = self._answered_by_builtin()
        if self._is_builtin(candidate):
            if isinstance(reference, TfliteHalError):
                raise reference
            opened = reference.opened._replace(candidate=candidate)
            return opened, Attempt.of(candidate, Outcome.CHOSEN, coverage=opened.session.coverage)
        own = is_own_cpu(candidate.delegate, candidate.device)
        if isinstance(reference, WorkerError) and not own:
            # Not the same as a model that the built-in kernels lack an operator for: they have no say yet.
            raise DelegateError(f"there is nothing to compare with: {reference.reason}")
        opened, answers = prove(candidate, self._model, self.inputs, self._terms)
        comparison = self._compared(reference, answers, self._terms.check_of(candidate))
        outcome = self._graded(candidate, comparison)
        details: dict[str, Any] = {"comparison": comparison, "coverage": opened.session.coverage}
        if outcome is Outcome.CHOSEN:
            return opened, Attempt.of(candidate, outcome, **details)
        opened.session.close()
        assert comparison is not None  # noqa: S101 -- for the type checker: it was graded
        remedy = "check=Check(accept='degraded') uses it" if outcome is Outcome.DEGRADED else ""
        return None, Attempt.of(
            candidate, outcome, stage="compare", reason=comparison.reason, remedy=remedy, **details
        )

    def _is_builtin(self, candidate: Candidate) -> bool:
        measure = self.measure
        return candidate[2:4] == measure[2:4] and candidate.delegate.name == measure.delegate.name

    def _graded(self, candidate: Candidate, comparison: Comparison | None) -> Outcome:
        """Return CHOSEN for what may be used. What ships with the runtime may be degraded: its kernels
        are no further from the truth than the built-in ones."""
        if comparison is None or comparison.grade is Grade.OK:
            return Outcome.CHOSEN
        if comparison.grade is Grade.WRONG:
            return Outcome.WRONG
        accepted = self._terms.check_of(candidate).accept == "degraded" or is_own_cpu(
            candidate.delegate, candidate.device
        )
        return Outcome.CHOSEN if accepted else Outcome.DEGRADED

    def _answered_by_builtin(self) -> Proof | TfliteHalError:
        if self._reference is None:
            self._reference = self._ask_builtin()
            if isinstance(self._reference, WorkerError):
                self._reference = self._ask_builtin()  # killed by the system, perhaps: all depends on it
        return self._reference

    def _ask_builtin(self) -> Proof | TfliteHalError:
        # The caller's limits are for the candidates: the measure may be slower than what it measures.
        terms = self._terms._replace(limits=PATIENT)
        try:
            proof = prove(self.measure, self._model, self.inputs, terms, least=self.inputs.own + FEW_INPUTS)
        except TfliteHalError as error:
            return error
        self.inputs.keep(len(proof.answers))
        return proof

    def _compared(self, reference: Proof | TfliteHalError, given: Answers, check: Check) -> Comparison | None:
        """Compare on the caller's samples and on the seeded inputs: what is wrong on these is not used,
        but how near right it is, the samples say. None where the built-in kernels have no answers."""
        if isinstance(reference, TfliteHalError) or not reference.answers:
            return None
        right = reference.answers
        kind = model_kind(self.measure.opens(self._model).info)
        outputs, own = self._model.info.outputs, self.inputs.own
        found = [
            compare(right[part], given[part], outputs, kind, check)
            for part in (slice(0, own), slice(own, None))
            if right[part]
        ]
        wrong = [one for one in found if one.grade is Grade.WRONG]
        return (wrong or found)[0]

    def close(self, kept: Sequence[Opened]) -> None:
        """Close the built-in kernels' session unless it is one of those kept."""
        if isinstance(self._reference, Proof) and all(
            one.session is not self._reference.opened.session for one in kept
        ):
            self._reference.opened.session.close()

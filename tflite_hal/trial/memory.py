"""What trials found before, under the key of everything that decides."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, Final

from tflite_hal.model import Model
from tflite_hal.remote import default_limits, exclusive_key, guarded, reference
from tflite_hal.selection import Attempt, Candidate, Outcome, is_own_cpu
from tflite_hal.trial.proof import Terms
from tflite_hal.verdicts import Verdicts, key, quarantined

__all__ = ["Memory"]

#: Seconds to wait for another process that is trying the same model.
PATIENCE: Final = 120.0

#: What stays true until something in the key changes. What merely failed may have been busy or unplugged.
_LASTING: Final = (
    Outcome.CHOSEN,
    Outcome.SLOWER,
    Outcome.DEGRADED,
    Outcome.WRONG,
    Outcome.CRASHED,
    Outcome.HUNG,
)


class Memory:
    """The verdicts on one model's candidates."""

    def __init__(self, verdicts: Verdicts, model: Model, terms: Terms, context: Mapping[str, Any]) -> None:
        """``context``: what identifies the host and the plugins, JSON-ready; plugins by delegate."""
        self._verdicts = verdicts
        self._terms = terms
        self._plugins: Mapping[str, str] = context.get("plugins", {})
        self._common = {
            "model": model.info.sha256,
            "measure": None if terms.plain is None else terms.plain.model.info.sha256,
            "host": context.get("host", {}),
            "check": terms.check.key(),
        }
        self._keys: dict[tuple[Any, ...], tuple[str, dict[str, Any]]] = {}

    def recall(self, candidate: Candidate) -> Attempt | None:
        """Return what became of a candidate before, None where that is not known."""
        name, parts = self._key(candidate)
        verdict = self._verdicts.read(name, parts)
        if verdict is None or verdict.state == "started":
            return None
        if verdict.state == "interrupted" and verdict.same_boot and self._terms.stays_in_worker(candidate):
            return None  # the machine survived it: someone ended the application meanwhile
        reason = quarantined(verdict, self._limit(candidate, verdict.attempt.get("stage")))
        if reason:
            return Attempt.of(candidate, Outcome.QUARANTINED, reason=reason, remedy=verdict.remedy)
        lasting = verdict.outcome in _LASTING and verdict.outcome is not Outcome.HUNG
        return Attempt.remembered(candidate, verdict.attempt) if lasting else None

    def begin(self, candidate: Candidate) -> None:
        """Note that a trial begins: one that takes the machine down is seen at the next start. Not of
        the runtime's own kernels, which must stay when someone kills the application meanwhile."""
        if not is_own_cpu(candidate.delegate, candidate.device):
            self._verdicts.start(*self._key(candidate))

    def end(self, candidate: Candidate, attempt: Attempt) -> None:
        """Remember how it ended, where that lasts."""
        name, parts = self._key(candidate)
        own = is_own_cpu(candidate.delegate, candidate.device)
        # Nothing is lost by trying the runtime's own kernels again; and what had nothing to be compared
        # with may have it next time.
        died = own and attempt.outcome in (Outcome.CRASHED, Outcome.HUNG)
        right = attempt.outcome in (Outcome.CHOSEN, Outcome.SLOWER)
        uncompared = right and attempt.comparison is None and not own
        if attempt.outcome in _LASTING and not died and not uncompared:
            limit = self._limit(candidate, attempt.stage)
            self._verdicts.finish(name, parts, {**attempt.to_dict(), "limit": limit})
        else:
            self._verdicts.cancel(name)

    def cancel(self, candidate: Candidate) -> None:
        """Forget that a trial began: it was stopped on purpose."""
        self._verdicts.cancel(self._key(candidate)[0])

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other processes from trying the same model meanwhile, where that is possible."""
        with self._verdicts.lock(key(self._common), PATIENCE):
            yield

    @contextmanager
    def trying(self, candidate: Candidate) -> Iterator[None]:
        """Hold, during a trial, the lock by which others tell that it is still under way, and that of
        the device: many take one process at a time, whatever the model."""
        with ExitStack() as held:
            if candidate.device.kind != "cpu":
                library, slot = exclusive_key(candidate.delegate, candidate.device)
                place = {"delegate": library, "device": slot}
                held.enter_context(self._verdicts.lock(key(place), PATIENCE))
            held.enter_context(self._verdicts.lock(self._key(candidate)[0], PATIENCE))
            yield

    def _limit(self, candidate: Candidate, stage: Any) -> float:
        """Return the seconds that a stage may take."""
        own = default_limits(candidate.delegate, candidate.device)
        limits = {**own, **candidate.limits, **self._terms.limits}
        return limits["open" if stage in ("open", "allocate") else "run"]

    def _key(self, candidate: Candidate) -> tuple[str, dict[str, Any]]:
        delegate, device, configuration, runtime, environment = candidate[:5]
        place = (delegate.name, device.id, repr(configuration), runtime.name)
        if place not in self._keys:
            parts = {
                **self._common,
                "variant": None if candidate.variant is None else candidate.variant.model.info.sha256,
                "delegate": [reference(delegate), self._plugins.get(delegate.name, "")],
                "device": device._replace(state="").to_dict(),
                "fingerprint": guarded(
                    delegate.name, "fingerprint", lambda: str(delegate.fingerprint(device))
                ),
                "configuration": configuration.to_dict(),
                "environment": dict(environment),
                "check": self._terms.check_of(candidate).key(),
                "runtime": [runtime.name, runtime.version],
                "isolated": self._terms.stays_in_worker(candidate),
            }
            self._keys[place] = key(parts), parts
        return self._keys[place]

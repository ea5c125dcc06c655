"""Orders the candidates, and keeps the whole record of one choice."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from enum import Enum
from typing import Any, NamedTuple

from tflite_hal.delegate import KINDS, Configuration, Delegate, Device, Probe, check_options
from tflite_hal.errors import DelegateError
from tflite_hal.model import Model
from tflite_hal.profiles import DeviceProfile
from tflite_hal.runtime import Runtime
from tflite_hal.session import Coverage

__all__ = ["Attempt", "Candidate", "Outcome", "Selection", "Wish", "candidates"]


class Outcome(str, Enum):
    """What became of a candidate."""

    CHOSEN = "chosen"
    SLOWER = "slower"
    DEGRADED = "degraded"
    WRONG = "wrong"
    UNSUPPORTED = "unsupported"
    UNAVAILABLE = "unavailable"
    FAILED = "failed"
    CRASHED = "crashed"
    HUNG = "hung"
    QUARANTINED = "quarantined"
    EXCLUDED = "excluded"
    UNTRIED = "untried"


class Candidate(NamedTuple):
    """One way to run the model."""

    delegate: Delegate
    device: Device
    configuration: Configuration
    runtime: Runtime
    environment: Mapping[str, str] = {}  #: the profile's, for the process that loads the library


class Attempt(NamedTuple):
    """A candidate, or a delegate that gave none, and what became of it."""

    delegate: str
    device: str  #: its id; "" where the delegate has no device here
    kind: str  #: of the device, "" as above
    configuration: str
    runtime: str
    outcome: Outcome
    stage: str = ""  #: where it ended: probe, open, run
    reason: str = ""
    remedy: str = ""
    seconds: float = 0.0  #: spent on it
    coverage: Coverage | None = None  #: operators taken, None = not reported

    def to_dict(self) -> dict[str, Any]:
        """Return it JSON-ready."""
        coverage = None if self.coverage is None else self.coverage._asdict()
        return {**self._asdict(), "outcome": self.outcome.value, "coverage": coverage}


class Selection:
    """All attempts in order, the profile, the winner.

    Attributes:
        model: name of the model's file.
        profile: name of the device profile, "" where none matched.
        attempts: in the order they were made.
        compared: whether candidates were measured against each other.
    """

    __slots__ = ("attempts", "compared", "model", "profile")

    def __init__(self, model: str, profile: str) -> None:
        self.model = model
        self.profile = profile
        self.attempts: list[Attempt] = []
        self.compared = False

    @property
    def winner(self) -> Attempt | None:
        """The attempt that was chosen."""
        return next((a for a in self.attempts if a.outcome is Outcome.CHOSEN), None)

    def to_dict(self) -> dict[str, Any]:
        """Return it JSON-ready."""
        winner = self.winner
        return {
            "model": self.model,
            "profile": self.profile,
            "compared": self.compared,
            "winner": None if winner is None else winner.to_dict(),
            "attempts": [attempt.to_dict() for attempt in self.attempts],
        }

    def __str__(self) -> str:
        winner = self.winner
        head = f"{self.model}: " + ("nothing answered" if winner is None else _title(winner))
        if winner is not None and winner.coverage is not None:
            head += f", {winner.coverage.taken} of {winner.coverage.total} operators"
        if winner is not None and not self.compared:
            head += " (not compared)"
        rest = [f"  {_title(a)}: {_story(a)}" for a in self.attempts if a is not winner]
        return "\n".join([head, *rest])


def _title(attempt: Attempt) -> str:
    place = f" on {attempt.device}" if attempt.device else ""
    details = ", ".join(part for part in (attempt.configuration, attempt.runtime) if part)
    return f"{attempt.delegate}{place}" + (f" ({details})" if details else "")


def _story(attempt: Attempt) -> str:
    text = attempt.outcome.value
    if attempt.stage and attempt.outcome not in (Outcome.UNTRIED, Outcome.EXCLUDED):
        text += f" at {attempt.stage}"
    if attempt.reason:
        text += f": {attempt.reason}"
    return f"{text} (to fix it: {attempt.remedy})" if attempt.remedy else text


class Wish(NamedTuple):
    """What the caller allows."""

    delegates: Sequence[str] | None = None  #: names, in order; None is all
    device: str | None = None  #: id or kind
    exclude: Collection[str] = ()  #: names of delegates, ids or kinds of devices
    cpu_last: bool = True  #: the CPU stays a candidate although not named
    threads: int | None = None
    options: Mapping[str, Any] | None = None

    def names(self, delegate: Delegate, device: Device) -> bool:
        """Whether the caller asked for this one by name; foreign libraries take part only then."""
        by_delegate = self.delegates is not None and delegate.name in self.delegates
        return by_delegate or self.device in (device.id, device.kind)

    def refusal(self, delegate: Delegate, device: Device) -> str:
        """Return why the caller's words rule a device out, "" where they don't."""
        for word in (delegate.name, device.id, device.kind):
            if word in self.exclude:
                return f"exclude has {word!r}"
        if self.cpu_last and device.kind == "cpu" and delegate.in_process:
            return ""
        if self.delegates is not None and delegate.name not in self.delegates:
            return "not in delegates=" + repr(list(self.delegates))
        if self.device is not None and self.device not in (device.id, device.kind):
            return f"not device={self.device!r}"
        return ""


def candidates(
    model: Model,
    delegates: Sequence[Delegate],
    probes: Mapping[str, Probe],
    profile: DeviceProfile | None,
    runtime: Runtime,
    wish: Wish,
) -> tuple[list[Candidate], list[Attempt]]:
    """Return the candidates in the order in which they are to be tried, and an attempt for
    everything that is none, with the reason.

    The order: the caller's, the profile's, then delegates it does not name, by kind and name; the CPU
    last.
    """
    chosen: list[Candidate] = []
    refused: list[Attempt] = []
    for delegate in sorted(delegates, key=lambda d: d.name):
        probe = probes[delegate.name]
        refused += _unusable(delegate, probe, runtime, wish)
        for device in probe.devices:
            try:
                reason = _ruled_out(delegate, device, model, runtime, wish)
                if reason is None:
                    chosen += _configured(delegate, device, model, profile, runtime, wish)
            except DelegateError as error:
                reason = Outcome.FAILED, error.reason
            if reason is not None:
                refused.append(_none(delegate, device, runtime, *reason))
    chosen.sort(key=_order(profile, wish))
    return chosen, refused


def _unusable(delegate: Delegate, probe: Probe, runtime: Runtime, wish: Wish) -> Iterator[Attempt]:
    """Yield an attempt per problem; a delegate without device or problem has nothing to say, unless
    it was asked for by name."""
    for problem in probe.problems:
        device = Device(problem.device, "")
        refusal = wish.refusal(delegate, device) if wish.device is None else ""
        outcome = Outcome.EXCLUDED if refusal else Outcome.UNAVAILABLE
        yield Attempt(
            delegate.name,
            problem.device,
            "",
            "",
            runtime.name,
            outcome,
            problem.stage,
            refusal or problem.evidence,
            "" if refusal else problem.remedy,
        )
    if (
        not probe.devices
        and not probe.problems
        and wish.delegates is not None
        and delegate.name in wish.delegates
    ):
        reason = "no such device on this machine"
        yield Attempt(
            delegate.name,
            "",
            "",
            "",
            runtime.name,
            Outcome.UNAVAILABLE,
            "probe",
            reason,
            delegate.install_hint,
        )


def _ruled_out(
    delegate: Delegate, device: Device, model: Model, runtime: Runtime, wish: Wish
) -> tuple[Outcome, str] | None:
    refusal = wish.refusal(delegate, device)
    if refusal:
        return Outcome.EXCLUDED, refusal
    if not delegate.in_process and not wish.names(delegate, device):
        reason = f"a foreign library takes part only when asked for: delegates=[{delegate.name!r}]"
        return Outcome.UNTRIED, reason
    if delegate.runtimes is not None and runtime.name not in delegate.runtimes:
        return Outcome.UNAVAILABLE, f"works with {', '.join(delegate.runtimes)} only, not with {runtime.name}"
    reason = _guarded(lambda: delegate.supports(model, device), delegate, "supports")
    return None if reason is None else (Outcome.UNSUPPORTED, str(reason))


def _configured(
    delegate: Delegate,
    device: Device,
    model: Model,
    profile: DeviceProfile | None,
    runtime: Runtime,
    wish: Wish,
) -> list[Candidate]:
    given = dict(wish.options or {})
    found = _guarded(
        lambda: list(delegate.configurations(model, device, profile)), delegate, "configurations"
    )
    defaults = dict(profile.options.get(delegate.name, {})) if profile is not None else {}
    check_options(delegate, defaults)
    environment = dict(profile.environment.get(delegate.name, {})) if profile is not None else {}
    configurations: list[Configuration] = []
    for one in found or [Configuration()]:
        threads = wish.threads if wish.threads is not None and one.threads is not None else one.threads
        one = one._replace(options={**defaults, **one.options, **given}, threads=threads)
        if one not in configurations:
            configurations.append(one)
    return [Candidate(delegate, device, one, runtime, environment) for one in configurations]


def _guarded(ask: Callable[[], Any], delegate: Delegate, method: str) -> Any:
    # A vendor's code over any model: whatever it raises is told as the delegate's own failure.
    try:
        return ask()
    except Exception as error:
        raise DelegateError(
            f"delegate {delegate.name}: {method}() failed: {type(error).__name__}: {error}"
        ) from error


def _none(delegate: Delegate, device: Device, runtime: Runtime, outcome: Outcome, reason: str) -> Attempt:
    return Attempt(delegate.name, device.id, device.kind, "", runtime.name, outcome, "probe", reason)


def _order(profile: DeviceProfile | None, wish: Wish) -> Callable[[Candidate], tuple[Any, ...]]:
    def place(names: Sequence[str] | None, name: str) -> int:
        return list(names).index(name) if names is not None and name in names else len(names or ())

    def key(candidate: Candidate) -> tuple[Any, ...]:
        name, kind = candidate.delegate.name, candidate.device.kind
        return (
            kind == "cpu",
            name == "builtin",
            place(wish.delegates, name),
            place(profile.delegates if profile is not None else None, name),
            KINDS.index(kind) if kind in KINDS else len(KINDS),
            name,
        )

    return key

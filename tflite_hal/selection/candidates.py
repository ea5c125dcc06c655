"""What may be tried, in which order, and why the rest may not."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

from tflite_hal.delegate import KINDS, Configuration, Delegate, Device, Probe, check_options
from tflite_hal.errors import DelegateError
from tflite_hal.model import KnownHash, Model, Variant
from tflite_hal.profiles import DeviceProfile
from tflite_hal.remote import RemoteDelegate, guarded, open_sessions
from tflite_hal.runtime import Runtime
from tflite_hal.selection.forms import Forms
from tflite_hal.selection.record import Attempt, Candidate, Outcome
from tflite_hal.trust import Distrust

__all__ = ["Candidates", "Wish", "candidates", "is_own_cpu"]


#: Configurations a delegate may give of a device: each is opened and timed.
MOST_CONFIGURATIONS: Final = 32


class Wish(NamedTuple):
    """What the caller allows."""

    delegates: Sequence[str] | None = None  #: names, in order; None is all
    device: str | None = None  #: id or kind
    exclude: Collection[str] = ()  #: names of delegates, ids or kinds of devices
    cpu_last: bool = True  #: the CPU stays a candidate although not named
    threads: int | None = None
    options: Mapping[str, Any] | None = None
    variants: bool = True  #: what lies beside the model may run instead
    named_by: str = "delegates="  #: where the delegates were named

    def asks_for(self, delegate: Delegate, device: Device) -> bool:
        """Whether the caller named this one, or nothing at all."""
        return not self._misses(delegate, device)

    def refusal(self, delegate: Delegate, device: Device) -> str:
        """Return why the caller's words rule a device out, "" where they don't."""
        for word in (delegate.name, device.id, device.kind):
            if word and word in self.exclude:
                return f"exclude has {word!r}"
        if self.cpu_last and is_own_cpu(delegate, device):
            return ""
        return self._misses(delegate, device)

    def names(self, delegate: Delegate, device: Device) -> bool:
        """Whether the caller named this device, its kind or its delegate."""
        return delegate.name in (self.delegates or ()) or self.device in (device.id, device.kind)

    def _misses(self, delegate: Delegate, device: Device) -> str:
        if self.delegates is not None and delegate.name not in self.delegates:
            return f"not in {self.named_by}{list(self.delegates)}"
        if self.device is not None and self.device not in (device.id, device.kind):
            return f"not device={self.device!r}"
        if self.device is not None and self.delegates is None and device.kind == "cpu":
            return "" if is_own_cpu(delegate, device) else "not one of the runtime's own CPU kernels"
        return ""


def is_own_cpu(delegate: Delegate, device: Device) -> bool:
    """Whether this is the CPU by what ships with the runtime, not by a vendor's engine."""
    ships = delegate.in_process is True and not isinstance(delegate, RemoteDelegate)
    return device.kind == "cpu" and ships


class Candidates(NamedTuple):
    """What can be tried, and what can't."""

    found: list[Candidate]  #: in the order in which they are to be tried
    refused: list[Attempt]  #: everything that is none, with the reason
    notes: list[str]  #: what was left out of those that are: the profile's mistakes, settings without effect
    forms: Forms  #: of the model


def candidates(
    model: Model,
    delegates: Sequence[Delegate],
    probes: Mapping[str, Probe],
    profile: DeviceProfile | None,
    runtime: Runtime,
    wish: Wish,
    barred: Callable[[Delegate, Device], Distrust | None] = lambda delegate, device: None,
    known_hash: KnownHash | None = None,
) -> Candidates:
    """Return the candidates in order, and an attempt for everything that is none; ``barred`` says why a
    device must not be tried, and what to do.

    The order: the caller's, the profile's, then delegates it does not name, by kind and name; the
    runtime's own CPU kernels last; of equal devices that with the fewest open sessions. ``known_hash``
    as of :func:`tflite_hal.model.read_model`.
    """
    forms = Forms(model, delegates if wish.variants else (), known_hash)
    result = Candidates([], [], [], forms)
    for delegate in sorted(delegates, key=lambda d: d.name):
        probe = probes[delegate.name]
        result.refused.extend(_unusable(delegate, probe, runtime, wish))
        defaults = _defaults(delegate, profile, result.notes) if probe.devices else {}
        settings = _settings(delegate, profile)
        for device in probe.devices:
            try:
                variant, remedy = None, ""
                reason = _ruled_out(delegate, device, runtime, wish)
                known_bad = None if reason else barred(delegate, device)
                if known_bad is not None:
                    reason, remedy = (Outcome.UNAVAILABLE, known_bad.reason), known_bad.remedy
                if reason is None:
                    variant, reason = _form(delegate, device, model, forms)
                if reason is None:
                    opened = model if variant is None else variant.model
                    configured = _configured(delegate, device, opened, profile, wish, defaults)
                    settings.update(variant=variant, load=open_sessions(delegate, device))
                    made = [Candidate(delegate, device, one, runtime, **settings) for one in configured]
                    result.found.extend(made)
                    if wish.threads is not None and all(c.threads is None for c in configured):
                        result.notes.append(f"threads={wish.threads} has no effect on {delegate.name}")
            except DelegateError as error:
                reason, remedy = (Outcome.FAILED, error.reason), error.remedy
            if reason is not None:
                result.refused.append(_none(delegate, device, runtime, *reason, remedy))
    result.found.sort(key=_order(result.found, profile, wish))
    return result


def _settings(delegate: Delegate, profile: DeviceProfile | None) -> dict[str, Any]:
    """Return the profile's environment, limits and check of a delegate."""
    if profile is None:
        return {}
    tables = {"environment": profile.environment, "limits": profile.limits, "check": profile.checks}
    return {name: dict(table.get(delegate.name, {})) for name, table in tables.items()}


def _defaults(delegate: Delegate, profile: DeviceProfile | None, notes: list[str]) -> dict[str, Any]:
    """Return the profile's options that the delegate takes: a mistake in one costs that one."""
    kept = {}
    for name, value in ({} if profile is None else profile.options.get(delegate.name, {})).items():
        try:
            check_options(delegate, {name: value})
            kept[name] = value
        except DelegateError as error:
            notes.append(f"device profile {profile.name if profile else ''}: left out: {error}")
    return kept


def _unusable(delegate: Delegate, probe: Probe, runtime: Runtime, wish: Wish) -> Iterator[Attempt]:
    """Yield an attempt per problem; a delegate without device or problem has nothing to say, unless
    it was asked for by name."""

    def attempt(device: Device, outcome: Outcome, stage: str, reason: str, remedy: str) -> Attempt:
        place = (delegate.name, device.id, device.kind, "", runtime.name)
        return Attempt(*place, outcome, stage, reason, remedy)

    for problem in probe.problems:
        device = Device(problem.device, problem.kind)
        refusal = wish.refusal(delegate, device)
        if refusal:
            yield attempt(device, Outcome.EXCLUDED, problem.stage, refusal, "")
        else:
            yield attempt(device, Outcome.UNAVAILABLE, problem.stage, problem.evidence, problem.remedy)
    if not probe.devices and not probe.problems and delegate.name in (wish.delegates or ()):
        # What the delegate needs besides is no remedy for a device that is not there, but may be why none
        # is found: of an engine for CPUs the package is all there is to see.
        reason, remedy = "no such device on this machine", "tflite-hal probe shows what is there"
        remedy += f"; beside a device it needs: {delegate.install_hint}" if delegate.install_hint else ""
        yield attempt(Device("", ""), Outcome.UNAVAILABLE, "probe", reason, remedy)


def _ruled_out(
    delegate: Delegate, device: Device, runtime: Runtime, wish: Wish
) -> tuple[Outcome, str] | None:
    refusal = wish.refusal(delegate, device)
    if refusal:
        return Outcome.EXCLUDED, refusal
    if device.properties.get("software") and not wish.names(delegate, device):
        ways = f"device={device.kind!r} or delegates=[{delegate.name!r}]"
        return Outcome.EXCLUDED, f"{device.name or device.id} computes on the CPU; {ways} asks for it"
    if delegate.runtimes is not None and runtime.name not in delegate.runtimes:
        return Outcome.UNAVAILABLE, f"works with {', '.join(delegate.runtimes)} only, not with {runtime.name}"
    return None


def _form(
    delegate: Delegate, device: Device, model: Model, forms: Forms
) -> tuple[Variant | None, tuple[Outcome, str] | None]:
    """Return the first form of the model that the delegate takes, or why it takes none."""
    reasons = []
    for variant in forms.of(delegate, is_own_cpu(delegate, device)):
        opened = model if variant is None else variant.model
        reason = guarded(delegate.name, "supports", partial(delegate.supports, opened, device))
        if reason is None:
            return variant, None
        reasons.append(str(reason) if variant is None else f"{opened.name}: {reason}")
    return None, (Outcome.UNSUPPORTED, "; ".join(filter(None, [*reasons, forms.missing(delegate)])))


def _configured(
    delegate: Delegate,
    device: Device,
    model: Model,
    profile: DeviceProfile | None,
    wish: Wish,
    defaults: Mapping[str, Any],
) -> list[Configuration]:
    given = dict(wish.options or {})
    found = guarded(
        delegate.name, "configurations", lambda: list(delegate.configurations(model, device, profile))
    )
    configurations: list[Configuration] = []
    for one in found or [Configuration()]:
        threads = wish.threads if wish.threads is not None and one.threads is not None else one.threads
        check_options(delegate, one.options)
        one = one._replace(options={**defaults, **one.options, **given}, threads=threads)
        if one not in configurations:
            configurations.append(one)
    if len(configurations) > MOST_CONFIGURATIONS:
        raise DelegateError(
            f"delegate {delegate.name}: {len(configurations)} configurations are more than "
            f"{MOST_CONFIGURATIONS}: each is tried"
        )
    return configurations


def _none(
    delegate: Delegate, device: Device, runtime: Runtime, outcome: Outcome, reason: str, remedy: str
) -> Attempt:
    place = (delegate.name, device.id, device.kind, "", runtime.name)
    return Attempt(*place, outcome, "probe", reason, remedy)


def _order(
    found: Sequence[Candidate], profile: DeviceProfile | None, wish: Wish
) -> Callable[[Candidate], tuple[Any, ...]]:
    groups = list(dict.fromkeys(one.equals for one in found))

    def place(names: Sequence[str] | None, name: str) -> int:
        return list(names).index(name) if names is not None and name in names else len(names or ())

    def key(candidate: Candidate) -> tuple[Any, ...]:
        name, kind = candidate.delegate.name, candidate.device.kind
        return (
            is_own_cpu(candidate.delegate, candidate.device),
            name == "builtin",
            place(wish.delegates, name),
            place(profile.delegates if profile is not None else None, name),
            KINDS.index(kind) if kind in KINDS else len(KINDS),
            name,
            groups.index(candidate.equals),
            candidate.load,
        )

    return key

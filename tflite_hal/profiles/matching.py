"""Which profile fits a host best, and why the others do not."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

from tflite_hal.profiles.schema import Accelerator, DeviceProfile, Match, ProfileMatch, Quirk

if TYPE_CHECKING:
    from tflite_hal.host import HostInfo

__all__ = ["accelerators", "explain", "match_profile", "quirks", "unknown_delegates"]


class _Verdict(NamedTuple):
    score: int
    hits: tuple[str, ...]
    misses: tuple[str, ...]


def match_profile(host: HostInfo, profiles: Iterable[DeviceProfile]) -> ProfileMatch | None:
    """Return the most specific profile that fits, or None; of equals the first given, saying so."""
    fitting = [
        ProfileMatch(profile, verdict.score, verdict.hits)
        for profile, verdict in ((profile, _judge(profile.match, host)) for profile in profiles)
        if not verdict.misses
    ]
    fitting.sort(key=lambda match: -match.specificity)  # stable: equals keep the order they were given in
    if not fitting:
        return None
    best = fitting[0]
    tied = [match.profile.name for match in fitting[1:] if match.specificity == best.specificity]
    if not tied:
        return best
    return best._replace(reasons=(*best.reasons, f"tie with {', '.join(tied)}, which come after it"))


def explain(host: HostInfo, profiles: Iterable[DeviceProfile]) -> list[tuple[str, bool, str]]:
    """Return (name, whether it matches, why or why not) for each profile, in the order given."""
    rows = []
    for profile in profiles:
        verdict = _judge(profile.match, host)
        rows.append((profile.name, not verdict.misses, "; ".join(verdict.misses or verdict.hits)))
    return rows


def accelerators(host: HostInfo, profiles: Iterable[DeviceProfile]) -> list[Accelerator]:
    """Return what a machine has, as far as profiles know: the profile in force, and those for no machine
    (cards and sticks). An NPU of the chip is told from the board's name: whether it is switched on isn't."""
    return [
        one
        for profile in _about(host, profiles)
        for one in profile.accelerators
        if one.match == Match() or not _judge(one.match, host).misses
    ]


def quirks(host: HostInfo, profiles: Iterable[DeviceProfile]) -> list[Quirk]:
    """Return what goes wrong here, of the profile in force, or anywhere, of those for no machine."""
    return [one for profile in _about(host, profiles) for one in profile.quirks]


def _about(host: HostInfo, profiles: Iterable[DeviceProfile]) -> list[DeviceProfile]:
    profiles = list(profiles)
    match = match_profile(host, profiles)
    anywhere = [profile for profile in profiles if profile.match == Match()]
    return anywhere if match is None else [match.profile, *anywhere]


def unknown_delegates(profile: DeviceProfile, known: Collection[str]) -> list[str]:
    """Return, per name that no delegate has, where the profile uses it: a typing error has no effect.

    Args:
        profile: it may rightly name delegates whose plugins are not installed here.
        known: the names there are.
    """
    import difflib

    places = {f"delegates[{index}]": name for index, name in enumerate(profile.delegates)}
    places |= {f"options.{name}": name for name in profile.options}
    places |= {f"environment.{name}": name for name in profile.environment}
    places |= {
        f"accelerators[{index}].delegates[{number}]": name
        for index, accelerator in enumerate(profile.accelerators)
        for number, name in enumerate(accelerator.delegates)
    }
    remarks = []
    for place, name in places.items():
        if name not in known and name not in profile.external:
            close = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {close[0]!r}?" if close else "a misspelling, or its plugin is not installed"
            remarks.append(f"{profile.path}: {place}: no delegate {name!r} here: {hint}")
    return remarks


def _judge(match: Match, host: HostInfo) -> _Verdict:
    if match == Match():
        return _Verdict(0, (), ("it is about delegates, add-ons or runtimes, and for no machine",))
    verdicts = [
        _judge_key(key, (wanted,) if isinstance(wanted, str) else wanted, host)
        for key, wanted in match._asdict().items()
        if wanted and key != "any_of"
    ]
    if match.any_of:
        verdicts.append(_judge_any(match.any_of, host))
    return _Verdict(
        sum(verdict.score for verdict in verdicts),
        tuple(hit for verdict in verdicts for hit in verdict.hits),
        tuple(miss for verdict in verdicts for miss in verdict.misses),
    )


def _judge_any(alternatives: Iterable[Match], host: HostInfo) -> _Verdict:
    verdicts = [_judge(alternative, host) for alternative in alternatives]
    missed = ", and ".join("; ".join(verdict.misses) for verdict in verdicts)
    holding = [verdict for verdict in verdicts if not verdict.misses]
    return max(holding, key=lambda verdict: verdict.score, default=_Verdict(0, (), (missed,)))


def _judge_key(key: str, wanted: tuple[str, ...], host: HostInfo) -> _Verdict:
    label, known = key.removesuffix("_prefix"), _FACTS[key](host)
    if known is None:
        return _Verdict(0, (), (f"{label} unknown, needs {' or '.join(wanted)}",))
    if key == "features":
        lacking = ", ".join(feature for feature in wanted if feature not in known)
        misses = (f"features lack {lacking}",) if lacking else ()
        return _Verdict(10 * min(len(wanted), 9), (f"features {', '.join(wanted)}",), misses)
    prefix = key in ("model_prefix", "dmi_vendor", "dmi_product")
    for index, value in enumerate(known):
        if value.startswith(wanted) if prefix else value in wanted:
            nearness = 100 * max(0, 9 - index) if key == "compatible" else 0
            return _Verdict(_WEIGHTS.get(key, 1000) + nearness, (f"{label} {value}",), ())
    given = "has no" if key in ("usb", "pci") else f"is {', '.join(known)}, not"
    return _Verdict(0, (), (f"{label} {given} {' or '.join(wanted)}",))


#: What counts less than the machine's own name: what is plugged in, and what many machines share.
_WEIGHTS: Final = {"usb": 500, "pci": 500, "arch": 1, "os": 1}

#: What a host knows for each key of ``match``; None where it does not know.
_FACTS: Final[Mapping[str, Callable[[HostInfo], tuple[str, ...] | None]]] = {
    "arch": lambda host: (host.arch,) if host.arch else None,
    "os": lambda host: host.os_id or None,
    "compatible": lambda host: host.board.compatible or None,
    "model_prefix": lambda host: (host.board.model,) if host.board.model else None,
    "dmi_vendor": lambda host: (host.dmi.vendor,) if host.dmi.vendor else None,
    "dmi_product": lambda host: (host.dmi.product,) if host.dmi.product else None,
    "features": lambda host: host.cpu.features,
    "usb": lambda host: tuple(device.id for device in host.usb),
    "pci": lambda host: tuple(device.id for device in host.pci),
}

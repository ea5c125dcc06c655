"""From what was asked for to a session that answers, or to the error that says why none does."""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

from tflite_hal.delegate import Delegate, check_options
from tflite_hal.errors import (
    DelegateError,
    InputError,
    ModelError,
    NoDelegateError,
    ProfileError,
    TfliteHalError,
    WorkerCrashedError,
    WorkerHungError,
)
from tflite_hal.host import HostInfo, probe_host
from tflite_hal.kernels import BuiltinKernels
from tflite_hal.manager import Manager
from tflite_hal.model import Model
from tflite_hal.profiles import DeviceProfile, load_profile, load_profiles, match_profile
from tflite_hal.runtime import Runtime
from tflite_hal.selection import Outcome, Selection, Wish, candidates
from tflite_hal.trial import Failure, Opened, choose

__all__ = ["Choice", "Request", "checked_threads", "choose_for", "known_host"]


class Request(NamedTuple):
    """What a runner was asked for; kept, so that a forked child can open it again."""

    wish: Wish
    profile: str | os.PathLike[str] | None
    runtime: str | None
    explicit: bool


class Choice(NamedTuple):
    """What came of a request."""

    selection: Selection
    opened: Opened
    failures: list[Failure]  #: what was tried before
    notes: list[tuple[str, str]]  #: kind and text of what was left out on the way: plugins, profiles


_known: dict[str, Any] = {}  # this process's host and plugins: facts that cost to gather


def known_host() -> HostInfo:
    """Return this machine's facts, gathered once per process."""
    if "host" not in _known:
        _known["host"] = probe_host()
    host: HostInfo = _known["host"]
    return host


def known_manager() -> Manager:
    """Return the plugins, found once per process."""
    if "manager" not in _known:
        _known["manager"] = Manager()
    manager: Manager = _known["manager"]
    return manager


def choose_for(model: Model, runtime: Runtime, request: Request) -> Choice:
    """Open a model as requested.

    Raises:
        DelegateError: a name is unknown, or an option is not the delegate's.
        ProfileError: no such device profile.
        NoDelegateError: nothing that is allowed answers; has the selection.
        ModelError: nothing can run this file.
    """
    host, manager = known_host(), known_manager()
    builtin = BuiltinKernels()
    delegates = [*manager.delegates, builtin]
    _check_names(request.wish, delegates)
    probes = {**manager.probe(host), builtin.name: builtin.probe(host)}
    profile, errors = _find_profile(request.profile, host, manager)
    notes = [
        ("plugin", f"plugin {plugin.name}: {plugin.problem}") for plugin in manager.plugins if plugin.broken
    ]
    notes += [("profile", str(error)) for error in errors]
    selection = Selection(model.name, "" if profile is None else profile.name)
    found, refused = candidates(model, delegates, probes, profile, runtime, request.wish)
    opened, failures = choose(found, model, selection)
    selection.attempts += refused
    if opened is None:
        raise _nothing_answers(model, selection, failures, request.explicit)
    return Choice(selection, opened, failures, notes + _missed(selection, opened, failures, request.wish))


def _missed(
    selection: Selection, opened: Opened, failures: Sequence[Failure], wish: Wish
) -> list[tuple[str, str]]:
    """Return why what the caller named is not what runs, where trying it did not already say so."""
    named = wish.delegates is not None or wish.device is not None
    if not named or failures or wish.names(opened.candidate.delegate, opened.candidate.device):
        return []
    lacking = (Outcome.UNAVAILABLE, Outcome.UNSUPPORTED, Outcome.FAILED)
    reasons = [f"{a.delegate}: {a.reason}" for a in selection.attempts if a.outcome in lacking]
    asked = f"device={wish.device!r}" if wish.delegates is None else f"delegates={list(wish.delegates)}"
    because = "; ".join(reasons) or "no such device on this machine"
    return [
        ("fallback", f"{selection.model} runs on {opened.candidate.device.id}, not on {asked}: {because}")
    ]


def checked_threads(threads: int | None) -> int | None:
    """Return a number of threads that is one, or None.

    Raises:
        InputError: it is no positive integer.
    """
    if threads is not None and (isinstance(threads, bool) or not isinstance(threads, int) or threads < 1):
        raise InputError(f"threads={threads!r} is not a positive integer")
    return threads


def _check_names(wish: Wish, delegates: Sequence[Delegate]) -> None:
    known = {delegate.name: delegate for delegate in delegates}
    for name in wish.delegates or ():
        if name not in known:
            close = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise DelegateError(
                f"no delegate {name!r}", remedy=f"{hint}installed: {', '.join(sorted(known))}"
            )
        check_options(known[name], wish.options or {})


def _find_profile(
    named: str | os.PathLike[str] | None, host: HostInfo, manager: Manager
) -> tuple[DeviceProfile | None, tuple[ProfileError, ...]]:
    """Return the profile, and the errors of those that could not be read."""
    wanted = None if named is None else os.fspath(named)
    if wanted is not None and (os.sep in wanted or wanted.endswith((".yaml", ".yml"))):
        return load_profile(wanted), ()
    profiles, errors = load_profiles(manager.profile_folders)
    if wanted is None:
        match = match_profile(host, profiles)
        return None if match is None else match.profile, errors
    for profile in profiles:
        if profile.name == wanted:
            return profile, errors
    known = ", ".join(sorted(profile.name for profile in profiles))
    invalid = "".join(f"; not usable: {error}" for error in errors)
    raise ProfileError(f"no device profile {wanted!r}", remedy=f"known: {known}{invalid}")


def _nothing_answers(
    model: Model, selection: Selection, failures: Sequence[Failure], explicit: bool
) -> TfliteHalError:
    """Return the error of a choice without winner: the model's where every failure blames the model."""
    if failures and all(isinstance(f.error, ModelError) for f in failures):
        return failures[-1].error
    crashed = [f for f in failures if isinstance(f.error, (WorkerCrashedError, WorkerHungError))]
    if crashed and len(crashed) == len(failures) and all(f.candidate.device.kind == "cpu" for f in failures):
        return ModelError(f"{model.name} can't be run on any CPU kernel: {crashed[-1].error.reason}")
    tried = [a for a in selection.attempts if a.outcome not in (Outcome.EXCLUDED, Outcome.UNTRIED)]
    if not tried:
        return NoDelegateError(
            f"{model.name}: no device on this machine fits what was asked for",
            remedy="see tflite-hal probe",
            selection=selection,
        )
    first = tried[0] if explicit else tried[-1]
    for attempt in tried:
        if not explicit and attempt.outcome not in (Outcome.UNAVAILABLE, Outcome.UNSUPPORTED):
            first = attempt
    place = " ".join(filter(None, (first.delegate, first.device)))
    # A reason that begins with the model's name is about the model, wherever it was tried.
    about_model = first.reason.startswith(model.name)
    text = first.reason if about_model else f"{model.name} can't run on {place}: {first.reason}"
    return NoDelegateError(text, remedy=first.remedy, selection=selection)

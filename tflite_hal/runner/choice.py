"""From what was asked for to a session that answers, or to the error that says why none does."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

import numpy as np

from tflite_hal import __version__
from tflite_hal.delegate import Delegate, Device, check_options
from tflite_hal.errors import (
    DelegateError,
    ModelError,
    NoDelegateError,
    TfliteHalError,
    WorkerCrashedError,
    WorkerHungError,
)
from tflite_hal.external import NAMED, described_delegate, described_delegates
from tflite_hal.host import HostInfo, probe_host
from tflite_hal.kernels import BuiltinKernels
from tflite_hal.manager import Manager
from tflite_hal.model import Model
from tflite_hal.profiles import (
    chosen_profile,
    known_pairs,
    why_known_bad,
)
from tflite_hal.runner.request import Request
from tflite_hal.runtime import Runtime
from tflite_hal.selection import (
    Attempt,
    Candidate,
    Candidates,
    Outcome,
    Selection,
    Wish,
    candidates,
    hint,
    is_own_cpu,
    unknown_exclusions,
)
from tflite_hal.trial import Opened, Terms, choose
from tflite_hal.trust import Distrust

__all__ = ["OTHERS", "Choice", "choose_for"]


class Found(NamedTuple):
    """What a request finds on this machine, before anything is tried."""

    selection: Selection  #: without attempts yet
    candidates: Candidates
    notes: list[tuple[str, str]]  #: kind and text of what can't be used at all
    identity: dict[str, Any]  #: of host and plugins, for what is remembered


class Choice(NamedTuple):
    """What came of a request."""

    selection: Selection
    opened: Opened
    alternatives: list[Candidate]  #: what else was right, best first
    notes: list[tuple[str, str]]  #: kind and text of what was left out or went wrong on the way
    untried: list[Candidate]  #: what comes after by order and was not needed yet
    terms: Terms  #: by what it was made


_managers: list[Manager] = []  # this process's plugins, found once: that costs
_managers_lock = threading.Lock()


def known_manager() -> Manager:
    """Return the plugins, found once per process."""
    with _managers_lock:
        manager = _managers[0] if _managers else Manager()
        if not _managers and not manager.lacked_workers:  # a shortage passes
            _managers.append(manager)
        return manager


def _new_managers_lock() -> None:
    global _managers_lock
    _managers_lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_new_managers_lock)


def find_for(model: Model, runtime: Runtime, request: Request) -> Found:
    """Find what may be tried.

    Raises:
        DelegateError: a name is unknown, or an option is not the delegate's.
        ProfileError: no such device profile.
    """
    host, manager, wish = probe_host(), known_manager(), request.wish
    chosen = chosen_profile(request.profile, host, manager.profile_folders)
    profile, profiles = chosen.profile, chosen.profiles
    builtin, delegates = BuiltinKernels(), list(manager.delegates)
    described = described_delegates(profiles, [one.name for one in (*delegates, builtin)])
    if request.library is not None:
        described = [one for one in described if one.name != NAMED]
        described.append(described_delegate(request.library))
    delegates += [*described, builtin]
    _check_names(wish, delegates, manager)
    probes = {**manager.probe(host, described), builtin.name: builtin.probe(host)}
    selection = Selection(model.name, "" if profile is None else profile.name)
    broken = "; ".join(f"plugin {p.name}: {p.problem}" for p in manager.plugins if p.broken)
    notes = [("plugin", broken)] if broken else []
    notes += [("profile", str(error)) for error in chosen.errors]
    unknown = unknown_exclusions(wish.exclude, probes, [plugin.name for plugin in manager.plugins])
    notes += [("setting", remark) for remark in (*manager.remarks, *unknown)]
    if request.library is not None:  # the caller named it: nothing of it is passed over in silence
        notes += [
            ("fallback", f"{NAMED}: {DelegateError(p[1], remedy=p[2])}") for p in probes[NAMED].problems
        ]
    barred = partial(_known_bad, known_pairs(profiles), host, runtime)
    known_hash = request.terms.verdicts.model_sha256
    found = candidates(model, delegates, probes, profile, runtime, wish, barred, known_hash)
    notes += [("variant", f"left aside: {problem}") for problem in found.forms.problems]
    return Found(selection, found, notes, _identity(host, manager))


def _known_bad(
    pairs: Mapping[str, Sequence[Any]], host: HostInfo, runtime: Runtime, delegate: Delegate, device: Device
) -> Distrust | None:
    library = str(device.properties.get("library", ""))
    known = pairs.get(delegate.name, ())
    return why_known_bad(delegate.name, known, host, library, (runtime.name, runtime.version))


def choose_for(model: Model, runtime: Runtime, request: Request) -> Choice:
    """Open a model as requested.

    Raises:
        DelegateError, ProfileError: as :func:`find_for`.
        NoDelegateError: nothing that is allowed answers; has the selection.
        ModelError: nothing can run this file.
    """
    selection, (found, refused, left_out, forms), notes, identity = find_for(model, runtime, request)
    if request.explicit and request.wish.threads is not None and left_out and found:
        raise DelegateError("; ".join(left_out), remedy="leave it out")
    terms = request.terms._replace(context=identity, plain=forms.plain)
    opened, alternatives, failures = choose(found, model, selection, terms)
    untried = _not_needed(found, selection, request)
    selection.attempts += refused
    if opened is None:
        raise _nothing_answers(model, selection, failures, request)
    selection.rank([opened.candidate, *alternatives, *untried])
    notes += [("setting", note) for note in left_out]
    if terms.verdicts.problem:
        notes.append(("memory", f"what trials found is not remembered: {terms.verdicts.problem}"))
    return Choice(
        selection, opened, alternatives, notes + _told(selection, opened, request.wish), untried, terms
    )


def _identity(host: HostInfo, manager: Manager) -> dict[str, Any]:
    """Return what a verdict depends on beside the candidate: the machine with the CPUs that may be used,
    and the release of each delegate's plugin."""
    cpu = host.cpu
    processor = [cpu.vendor, cpu.model, cpu.logical, cpu.online, cpu.usable]
    machine = [__version__, np.__version__, host.arch, *processor, host.board.model]
    plugins = {
        name: f"{plugin.distribution} {plugin.version} {plugin.source}"
        for plugin in manager.plugins
        for name in plugin.delegates
    }
    return {"host": machine, "plugins": plugins}


def _not_needed(found: Sequence[Candidate], selection: Selection, request: Request) -> list[Candidate]:
    """Return what may take over although nobody has tried it: by order, all after the chosen one."""
    ends = [attempt.outcome for attempt in selection.attempts]
    if request.terms.prefer != "order" or not request.falls_back or Outcome.CHOSEN not in ends:
        return []
    after = ends.index(Outcome.CHOSEN) + 1
    rest = zip(found[after:], ends[after:], strict=True)
    return [one for one, end in rest if end is Outcome.UNTRIED and not one.configuration.remedy]


#: What to do where one device was asked for, and nothing better is known.
OTHERS: Final = "Runner.auto takes what answers rightly; tflite-hal explain shows it"

#: What is told of an attempt, also where nobody asked for it.
_LOUD = (Outcome.FAILED, Outcome.CRASHED, Outcome.HUNG, Outcome.WRONG, Outcome.DEGRADED)


def _told(selection: Selection, opened: Opened, wish: Wish) -> list[tuple[str, str]]:
    """Return what went wrong on the way, and why what the caller named is not what runs."""
    loud = [a for a in selection.attempts if a.outcome in _LOUD]
    notes = [("fallback", f"{a.delegate}: {a}") for a in loud]
    runs = opened.candidate
    # TFLITE_HAL_DELEGATES allows and wishes for nothing.
    named = (wish.delegates is not None and wish.named_by == "delegates=") or wish.device is not None
    if named and not loud and not wish.asks_for(runs.delegate, runs.device):
        reasons = [why for a in selection.attempts if (why := _why_not(a, wish))]
        asked = f"device={wish.device!r}" if wish.delegates is None else f"delegates={list(wish.delegates)}"
        because = "; ".join(reasons) or "no such device on this machine"
        notes.append(("fallback", f"{selection.model} runs on {runs.device.id}, not on {asked}: {because}"))
    return notes


def _why_not(attempt: Attempt, wish: Wish) -> str:
    """Return why one that the caller named does not run, "" where it is not named or says nothing."""
    if attempt.outcome in (Outcome.UNAVAILABLE, Outcome.UNSUPPORTED):
        remedy = f" (to fix it: {attempt.remedy})" if attempt.remedy else ""
        return f"{attempt.delegate}: {attempt.reason}{remedy}"
    if attempt.outcome is Outcome.QUARANTINED:
        return f"{attempt.delegate} on {attempt.device}: {attempt}"
    words = (attempt.delegate,) if wish.delegates is not None else (attempt.device, attempt.kind)
    if attempt.outcome is Outcome.SLOWER and set(words) & {*(wish.delegates or ()), wish.device}:
        took = f"{attempt.latency_ms:.3g} ms"
        return f"{attempt.delegate} on {attempt.device} is slower ({took}; prefer='order' uses it)"
    return ""


def _check_names(wish: Wish, delegates: Sequence[Delegate], manager: Manager) -> None:
    known = {delegate.name: delegate for delegate in delegates}
    for name in wish.delegates or ():
        if name not in known:
            problem = manager.why_not(name)
            if problem:
                raise DelegateError(f"delegate {name!r} can't be used: plugin {name}: {problem}")
            source = "" if wish.named_by == "delegates=" else wish.named_by.replace("=", ": ")
            remedy = f"{hint(name, known)}installed: {', '.join(sorted(known))}"
            raise DelegateError(f"{source}no delegate {name!r}", remedy=remedy)
        check_options(known[name], wish.options or {})


def _nothing_answers(
    model: Model,
    selection: Selection,
    failures: Sequence[tuple[Candidate, TfliteHalError]],
    request: Request,
) -> TfliteHalError:
    """Return the error of a choice without winner: the model's where every failure blames the model."""
    errors = [error for _, error in failures]
    if errors and all(isinstance(error, ModelError) for error in errors):
        return errors[-1]
    died = [isinstance(error, (WorkerCrashedError, WorkerHungError)) for error in errors]
    if errors and all(died) and all(is_own_cpu(c.delegate, c.device) for c, _ in failures):
        reason = getattr(errors[-1], "reason", "")
        return ModelError(f"{model.name} can't be run on any CPU kernel: {reason}")
    tried = [a for a in selection.attempts if a.outcome not in (Outcome.EXCLUDED, Outcome.UNTRIED)]
    if not tried:
        wish = request.wish
        words = {
            "device": wish.device,
            "delegates": list(wish.delegates or ()),
            "exclude": list(wish.exclude),
        }
        asked = ", ".join(f"{name}={word!r}" for name, word in words.items() if word)
        here = ", ".join(sorted({a.device for a in selection.attempts if a.device})) or "nothing"
        return NoDelegateError(
            f"{model.name}: no device on this machine fits what was asked for ({asked}); here: {here}",
            remedy="tflite-hal probe shows what is there",
            selection=selection,
        )
    told = _most_telling(tried, request.explicit)
    place = " ".join(filter(None, (told.delegate, told.device)))
    # A reason that begins with the model's name is about the model, wherever it was tried.
    about_model = told.reason.startswith(model.name)
    text = told.reason if about_model else f"{model.name} can't run on {place}: {told.reason}"
    remedy = told.remedy or (OTHERS if request.explicit else "")
    return NoDelegateError(text, remedy=remedy, selection=selection)


def _most_telling(tried: Sequence[Attempt], explicit: bool) -> Attempt:
    """Return the attempt whose reason the caller should see: of an explicit choice the first, else the
    last that was opened."""
    if explicit:
        return tried[0]
    opened = [a for a in tried if a.outcome not in (Outcome.UNAVAILABLE, Outcome.UNSUPPORTED)]
    return (opened or list(tried))[-1]

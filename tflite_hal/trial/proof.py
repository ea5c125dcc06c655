"""Opens a candidate and has it answer: loaded is not working.

The first open of a model by a delegate happens in a worker. Foreign libraries stay there; what ships
with the runtime is opened in this process once it was proven.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from tflite_hal.accuracy import Check
from tflite_hal.delegate import may_live_in_process
from tflite_hal.errors import (
    DelegateError,
    DeviceBusyError,
    TfliteHalError,
    WorkerCrashedError,
    WorkerError,
    WorkerGoneError,
    WorkerHungError,
)
from tflite_hal.model import Model, Variant
from tflite_hal.remote import RemoteSession, environment_of, guarded, open_remotely
from tflite_hal.selection import Attempt, Candidate, Outcome
from tflite_hal.session import Call, Coverage, Session, Shapes
from tflite_hal.trial.adapting import adapted
from tflite_hal.trial.bound import open_bound
from tflite_hal.trial.inputs import Inputs
from tflite_hal.verdicts import Verdicts

__all__ = ["Answers", "Opened", "Proof", "Terms", "failed", "open_candidate", "outcome_of", "prove"]

Answers = list[list[np.ndarray[Any, Any]]]  # per input, one array per output

#: Seconds after which a slow model is tried on no more inputs than needed.
LONG: Final = 2.0

_log: Final = logging.getLogger("tflite_hal")


class Terms(NamedTuple):
    """By what a choice is made, and where what was chosen lives."""

    check: Check = Check()
    samples: Sequence[Sequence[np.ndarray[Any, Any]]] = ()  #: the check's, as the model's tensors
    prefer: str = "latency"  #: ``latency``, ``throughput`` or ``order``
    isolate: str | bool = "auto"  #: True: all sessions in workers; False: none
    limits: Mapping[str, float] = {}  #: seconds per stage, instead of the delegate's
    checks_of_profile: bool = True  #: whether a device profile may change the check
    verdicts: Verdicts = Verdicts(None)  #: where what was found is remembered
    context: Mapping[str, Any] = {}  #: what identifies the host and the plugins; see :class:`Memory`
    min_coverage: float = 0.0  #: share of the operators that an accelerator must take
    plain: Variant | None = None  #: what the built-in kernels run where the named model is another engine's

    def check_of(self, candidate: Candidate) -> Check:
        """Return how right a candidate must be."""
        return self.check._replace(**candidate.check) if self.checks_of_profile else self.check

    def too_little(self, candidate: Candidate, coverage: Coverage | None) -> str:
        """Return why a candidate takes too little of the model, "" where it doesn't; the CPU is there to
        take what the others leave."""
        if not self.min_coverage or candidate.device.kind == "cpu":
            return ""
        if coverage is None:
            return f"it does not report what it takes, and min_coverage={self.min_coverage:g}"
        if coverage.taken >= self.min_coverage * coverage.total:
            return ""
        return f"it takes {coverage}, and min_coverage={self.min_coverage:g}"

    def stays_in_worker(self, candidate: Candidate) -> bool:
        """Whether this candidate's sessions live in a worker."""
        if self.isolate == "auto":
            threads = candidate.configuration.threads
            return not may_live_in_process(candidate.delegate, candidate.device, threads)
        return bool(self.isolate)


class Opened(NamedTuple):
    """A candidate's session that has answered."""

    candidate: Candidate
    session: Session
    load_ms: float  #: opening it, once it was proven
    warning: str = ""  #: why it was not isolated, "" where it was

    def prepare(self, signature: str | None, shapes: Shapes) -> Call:
        """Prepare a call of the model that was named, see :meth:`Session.prepare`, whatever form runs."""
        return adapted(self.session, self.candidate.variant, signature, shapes)


class Proof(NamedTuple):
    """What a candidate answered when it was tried."""

    opened: Opened
    answers: Answers


def prove(
    candidate: Candidate,
    model: Model,
    inputs: Inputs,
    terms: Terms,
    *,
    least: int | None = None,
) -> Proof:
    """Open a candidate and run it on the inputs, in a worker where one can be started.

    Returns an open session, in this process where it may live there, and its answers; to the first
    ``least`` inputs only where more would take longer than :data:`LONG` seconds.

    Raises:
        WorkerCrashedError, WorkerHungError: it killed its worker, or was killed at its limit.
        WorkerError: a foreign library, and no worker can be started.
        DelegateError, ModelError: its reason.
    """
    place = f"{candidate.delegate.name} on {candidate.device.id}"
    _log.info("trying %s on %s", model.name, place)  # compiling for an NPU may take minutes
    stays = terms.stays_in_worker(candidate)
    try:
        remote = _open_remotely(candidate, model, terms)
        _log.info("%s is open on %s after %.1f s", model.name, place, remote.load_ms / 1e3)
        # Text does not leave this process: what takes it is only opened in the other.
        answers = [] if inputs.text else _answers(remote, model, inputs, least)
        if not stays:
            _finish(remote)
    except (WorkerCrashedError, WorkerGoneError, WorkerHungError):
        raise
    except WorkerError as error:
        if stays:
            raise
        warning = f"{model.name} was opened without a trial in a child process: {error}"
        opened = _open_here(candidate, model)._replace(warning=warning)
        return Proof(opened, _answers(opened, model, inputs, least))
    if stays:
        return Proof(remote, answers)
    opened = _open_here(candidate, model)
    return Proof(opened, _answers(opened, model, inputs, least) if inputs.text else answers)


def _finish(remote: Opened) -> None:
    """Close it before it is opened in this process: a device takes one process at a time, and what dies
    when it is closed would take this one along."""
    try:
        if isinstance(remote.session, RemoteSession):
            remote.session.finish()
    except WorkerError as error:
        error.stage = "close"
        raise


def open_candidate(candidate: Candidate, model: Model, terms: Terms) -> Opened:
    """Open a candidate that was proven before, where it is to live; raises as :func:`prove`."""
    if terms.stays_in_worker(candidate):
        return _open_remotely(candidate, model, terms)
    return _open_here(candidate, model)


def _open_here(candidate: Candidate, model: Model) -> Opened:
    opened = candidate.opens(model)
    opened.require_unchanged()
    started = time.perf_counter()
    delegate, device, configuration, runtime = candidate[:4]
    _require_environment(candidate)
    session = guarded(
        delegate.name,
        "open",
        lambda: open_bound(lambda: delegate.open(opened, device, configuration, runtime)),
    )
    return Opened(candidate, session, (time.perf_counter() - started) * 1e3)


def _require_environment(candidate: Candidate) -> None:
    """Raise where a library needs variables that this process was not started with: set later, they have
    no effect on the loader, and are the application's."""
    wanted = environment_of(candidate.delegate, candidate.device, candidate.environment)
    for name, value in wanted.items():
        given = os.environ.get(name)
        paths = name.upper().endswith("LIBRARY_PATH")
        folders = re.split("[:;]", given or "")
        if given != value and not (paths and all(one in folders for one in re.split("[:;]", value))):
            raise DelegateError(
                f"{candidate.delegate.name} needs {name}={value} from the start of its process",
                remedy="isolate='auto' gives it one, or set it before this one is started",
            )


def _open_remotely(candidate: Candidate, model: Model, terms: Terms) -> Opened:
    started = time.perf_counter()
    session = open_remotely(
        candidate.delegate,
        candidate.opens(model),
        candidate.device,
        candidate.configuration,
        candidate.runtime,
        candidate.environment,
        limits={**candidate.limits, **terms.limits},
    )
    return Opened(candidate, session, (time.perf_counter() - started) * 1e3)


def _answers(opened: Opened, model: Model, inputs: Inputs, least: int | None) -> Answers:
    """Run a new session on the inputs, each from a fresh state; it is closed where that fails."""
    session, candidate = opened.session, opened.candidate
    try:
        if candidate.device.kind != "cpu" and session.coverage is not None:
            session.coverage.require_some(candidate.delegate.name, candidate.opens(model).name)
        given = inputs()
        calls: dict[tuple[Any, ...], Call] = {}  # the caller's samples may differ in shape
        answers: Answers = []
        started = time.perf_counter()
        for one in given:
            if least is not None and len(answers) >= least and time.perf_counter() - started > LONG:
                break
            shapes = tuple(array.shape for array in one)
            if shapes not in calls:
                calls[shapes] = opened.prepare(None, shapes)
            answers.append(calls[shapes].run(one))
            session.reset()
    except TfliteHalError as error:
        error.stage = error.stage or "run"
        session.close()
        raise
    except MemoryError as error:
        session.close()
        raise DelegateError(f"{model.name}: no memory for its answers: {error}") from error
    except BaseException:
        session.close()
        raise
    return answers


def failed(candidate: Candidate, error: TfliteHalError) -> Attempt:
    """Return the attempt of a candidate that ended in this error."""
    outcome = outcome_of(error)
    hint = candidate.delegate.crash_hint if outcome is Outcome.CRASHED else ""
    details = {"stage": error.stage or "open", "reason": error.reason, "remedy": error.remedy or hint}
    return Attempt.of(candidate, outcome, **details)


def outcome_of(error: TfliteHalError) -> Outcome:
    """Return what a candidate became that ended in this error."""
    if isinstance(error, DeviceBusyError):
        return Outcome.UNAVAILABLE
    if isinstance(error, WorkerCrashedError):
        return Outcome.CRASHED
    return Outcome.HUNG if isinstance(error, WorkerHungError) else Outcome.FAILED

"""Opens candidates in order and proves that one answers: loaded is not working."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from tflite_hal.errors import DelegateError, TfliteHalError, WorkerCrashedError, WorkerError, WorkerHungError
from tflite_hal.model import Model, TensorSpec
from tflite_hal.remote import open_remotely, reference
from tflite_hal.selection import Attempt, Candidate, Outcome, Selection
from tflite_hal.session import Session

__all__ = ["Failure", "Opened", "choose", "open_proven", "seeded_inputs"]

#: What has answered in a worker of this process before: opening it here again needs no trial.
_proven: set[tuple[str, ...]] = set()


class Opened(NamedTuple):
    """A candidate's session that has answered."""

    candidate: Candidate
    session: Session
    load_ms: float  #: opening it, once it was proven
    warning: str = ""  #: why it was not isolated, "" where it was


class Failure(NamedTuple):
    """A candidate that did not answer, and why."""

    candidate: Candidate
    error: TfliteHalError


def choose(
    found: Sequence[Candidate], model: Model, selection: Selection
) -> tuple[Opened | None, list[Failure]]:
    """Take the first candidate that opens and answers, and record every attempt in the selection.

    What comes after it stays untried, and so do further configurations of what has failed.
    """
    failures: list[Failure] = []
    opened: Opened | None = None
    for candidate in found:
        if opened is not None:
            selection.attempts.append(_attempt(candidate, Outcome.UNTRIED, reason="not compared"))
            continue
        if any(f.candidate[:2] == candidate[:2] for f in failures):
            selection.attempts.append(
                _attempt(candidate, Outcome.UNTRIED, reason="another configuration failed")
            )
            continue
        started = time.perf_counter()
        try:
            opened = open_proven(candidate, model)
            attempt = _attempt(candidate, Outcome.CHOSEN, coverage=opened.session.coverage)
        except TfliteHalError as error:
            failures.append(Failure(candidate, error))
            attempt = _attempt(
                candidate,
                _outcome_of(error),
                stage=error.stage or "open",
                reason=error.reason,
                remedy=error.remedy,
            )
        selection.attempts.append(attempt._replace(seconds=time.perf_counter() - started))
    return opened, failures


def _attempt(candidate: Candidate, outcome: Outcome, **details: Any) -> Attempt:
    return Attempt(
        candidate.delegate.name,
        candidate.device.id,
        candidate.device.kind,
        str(candidate.configuration),
        candidate.runtime.name,
        outcome,
        **details,
    )


def open_proven(candidate: Candidate, model: Model) -> Opened:
    """Open a candidate and run it once on seeded inputs.

    The first open of a model by a delegate happens in a worker. Foreign libraries stay there; what
    ships with the runtime is then opened in this process.

    Raises:
        WorkerCrashedError, WorkerHungError: it killed its worker, or was killed at its limit.
        WorkerError: a foreign library, and no worker can be started.
        DelegateError, ModelError: its reason.
    """
    warning = ""
    key = _key(candidate, model)
    if not candidate.delegate.in_process or key not in _proven:
        try:
            remote, load_ms = _open_and_run(candidate, model)
        except (WorkerCrashedError, WorkerHungError):
            raise
        except WorkerError as error:
            if not candidate.delegate.in_process:
                raise
            warning = f"{model.name} was opened without a trial in a child process: {error}"
        else:
            if not candidate.delegate.in_process:
                return Opened(candidate, remote, load_ms)
            remote.close()
            _proven.add(key)
    started = time.perf_counter()
    session = candidate.delegate.open(model, candidate.device, candidate.configuration, candidate.runtime)
    load_ms = (time.perf_counter() - started) * 1e3
    return Opened(candidate, session, load_ms, warning)


def _open_and_run(candidate: Candidate, model: Model) -> tuple[Session, float]:
    started = time.perf_counter()
    session = open_remotely(
        candidate.delegate,
        model,
        candidate.device,
        candidate.configuration,
        candidate.runtime,
        candidate.environment,
    )
    load_ms = (time.perf_counter() - started) * 1e3
    try:
        _run_once(session, candidate, model)
    except TfliteHalError as error:
        error.stage = error.stage or "run"
        session.close()
        raise
    except BaseException:
        session.close()
        raise
    return session, load_ms


def _run_once(session: Session, candidate: Candidate, model: Model) -> None:
    specs = model.info.inputs
    if candidate.device.kind != "cpu" and session.coverage is not None and session.coverage.taken == 0:
        total = session.coverage.total
        raise DelegateError(f"{candidate.delegate.name} took none of the {total} operators of {model.name}")
    if any(spec.dtype.hasobject for spec in specs):
        return  # text has no seeded value, and does not cross the process boundary
    session.prepare().run(seeded_inputs(specs))
    session.reset()


def seeded_inputs(specs: Sequence[TensorSpec], seed: int = 0) -> list[np.ndarray[Any, Any]]:
    """Return inputs fit for the tensors: normally distributed for floats, the whole range for
    quantised integers, zeros for other integers (they may be indices) and booleans.
    """
    random = np.random.default_rng(seed)
    return [_seeded(spec, random) for spec in specs]


def _seeded(spec: TensorSpec, random: np.random.Generator) -> np.ndarray[Any, Any]:
    shape = spec.static_shape
    if spec.dtype.kind == "f":
        return random.standard_normal(shape).astype(spec.dtype)
    if spec.quantized:
        limits = np.iinfo(spec.dtype)
        return random.integers(limits.min, limits.max, shape, spec.dtype, endpoint=True)
    return np.zeros(shape, spec.dtype)


def _outcome_of(error: TfliteHalError) -> Outcome:
    """Return what a candidate became that ended in this error."""
    if isinstance(error, WorkerCrashedError):
        return Outcome.CRASHED
    return Outcome.HUNG if isinstance(error, WorkerHungError) else Outcome.FAILED


def _key(candidate: Candidate, model: Model) -> tuple[str, ...]:
    runtime = candidate.runtime
    return (
        model.info.sha256,
        runtime.name,
        runtime.version,
        reference(candidate.delegate),
        candidate.device.id,
        repr(candidate.configuration),
    )

"""Timing of any callable, and the numbers that describe it."""

from __future__ import annotations

import gc
import json
import operator
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from tflite_hal.errors import InputError

__all__ = ["BenchmarkResult", "Timing", "peak_rss", "statistics", "time_calls"]

#: Version of :meth:`BenchmarkResult.to_dict`.
SCHEMA: Final = 1

_LEAST_RUNS: Final = 10
_MOST_RUNS: Final = 100_000  # where only the time is given: bounds the memory of the samples
_DEFAULT_SECONDS: Final = 1.0
_WARMUP_SECONDS: Final = 0.25
_LEAST_WARMUP: Final = 3
_MOST_WARMUP: Final = 50
_STABLE: Final = 1.05  # the slowest of the last calls by the fastest


class Timing(NamedTuple):
    """What :func:`time_calls` measured."""

    first_ms: float  #: the very first call, apart from the rest
    warmup_runs: int  #: calls after it that were not counted
    samples_ms: np.ndarray[Any, np.dtype[np.float64]]  #: one per counted call


class BenchmarkResult(NamedTuple):
    """A measurement of ``predict``; times in milliseconds."""

    model: str
    model_sha256: str
    delegate: str
    device: str
    options: Mapping[str, Any]
    runtime: str
    runtime_version: str
    threads: int | None
    host: Mapping[str, Any]  #: arch, cpu, board, os
    versions: Mapping[str, str]  #: python, numpy, tflite_hal
    load_ms: float | None  #: opening and allocating
    first_ms: float
    warmup_runs: int
    runs: int
    mean_ms: float
    std_ms: float
    min_ms: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float
    throughput: float  #: runs per second, one after the other
    peak_rss_bytes: int | None  #: of this process, since its start
    boundary_ms: float | None = None  #: what the process boundary adds to a run; None: there is none

    def to_dict(self) -> dict[str, Any]:
        """Return it JSON-ready, with the version of this form as ``schema``.

        Values of ``options``, ``host`` and ``versions`` that JSON lacks are given as text.
        """
        return {"schema": SCHEMA, **{name: _plain(value) for name, value in self._asdict().items()}}

    def to_json(self) -> str:
        """Return it as JSON text."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False)

    def __str__(self) -> str:
        threads = f", {self.threads} thread{'s' if self.threads != 1 else ''}" if self.threads else ""
        place = " · ".join(str(self.host[key]) for key in ("board", "cpu", "arch") if self.host.get(key))
        load = "not measured" if self.load_ms is None else f"{_short(self.load_ms)} ms"
        memory = "not available" if self.peak_rss_bytes is None else f"{self.peak_rss_bytes / 2**20:.0f} MiB"
        p50, p90, p99 = _short(self.p50_ms), _short(self.p90_ms), _short(self.p99_ms)
        boundary = (
            ""
            if self.boundary_ms is None
            else f"\n            of it the process boundary {_short(self.boundary_ms)} ms"
        )
        spread = f"{_short(self.mean_ms)} ± {_short(self.std_ms)}"
        return "\n".join(
            [
                f"{self.model} by {self.delegate} on {self.device}{threads}"
                f" ({self.runtime} {self.runtime_version})",
                f"  on        {place or 'an unknown machine'}",
                f"  load      {load}, first run {_short(self.first_ms)} ms",
                f"  latency   p50 {p50} · p90 {p90} · p99 {p99} ms",
                f"            mean {spread}, {_short(self.min_ms)} to {_short(self.max_ms)} ms{boundary}",
                f"  rate      {_short(self.throughput)} per second over {self.runs:,} runs",
                f"  memory    {memory} at most, the whole process",
            ]
        )


def _short(value: float) -> str:
    """Three digits, never with an exponent for what is large."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _plain(value: Any) -> Any:
    """Return what JSON has in place of a value."""
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def time_calls(
    call: Callable[[], object],
    *,
    runs: int | None = None,
    seconds: float | None = None,
    warmup: int | None = None,
    clock: Callable[[], int] = time.perf_counter_ns,
) -> Timing:
    """Call again and again and note how long each call takes.

    The first call is timed apart: it pays for what is done once. Calls that warm up follow, uncounted;
    then the counted ones, one after the other. An exception of ``call`` is passed on as it is.

    Automatic garbage collection is off during the counted calls only: a collection goes over the whole
    program's objects and would be charged to whichever call happens to set it off. It is then as before.

    Args:
        call: what is measured; its result is dropped.
        runs: how many calls to count. None: as many as fit into ``seconds``, at least 10 and at most
            100 000.
        seconds: for how long to count; the call under way is finished. With ``runs``, whichever is
            reached first ends it, though not before 10 calls (or ``runs``, if fewer). None without
            ``runs``: one second.
        warmup: calls after the first that are not counted. None: until the last three differ by no more
            than 5 %, or 50 calls or 0.25 s are reached; at least 3.
        clock: nanoseconds since any moment.

    Raises:
        InputError: ``runs`` is no whole number of at least 1, ``seconds`` is not positive and finite, or
            ``warmup`` is no whole number of at least 0.
    """
    _check_count("runs", runs, 1)
    _check_count("warmup", warmup, 0)
    _check_seconds(seconds)
    first = _once(call, clock)
    warmed = _warm_up(call, warmup, clock)
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        samples = _sample(call, runs, seconds, clock)
    finally:
        if was_enabled:
            gc.enable()
    return Timing(first, warmed, np.asarray(samples, np.float64))


def _check_count(name: str, value: int | None, least: int) -> None:
    try:
        good = value is None or operator.index(value) >= least
    except TypeError:
        good = False
    if not good:
        raise InputError(f"{name}={value!r} is not a whole number of at least {least}")


def _check_seconds(seconds: float | None) -> None:
    try:
        good = seconds is None or 0 < seconds < float("inf")
    except TypeError:
        good = False
    if not good:
        raise InputError(f"seconds={seconds!r} is not a positive, finite number")


def _once(call: Callable[[], object], clock: Callable[[], int]) -> float:
    start = clock()
    call()
    return (clock() - start) / 1e6


def _warm_up(call: Callable[[], object], warmup: int | None, clock: Callable[[], int]) -> int:
    if warmup is not None:
        for _ in range(warmup):
            call()
        return warmup
    end = clock() + int(_WARMUP_SECONDS * 1e9)
    times = [_once(call, clock) for _ in range(_LEAST_WARMUP)]
    while len(times) < _MOST_WARMUP and clock() < end and not _stable(times[-_LEAST_WARMUP:]):
        times.append(_once(call, clock))
    return len(times)


def _stable(times: list[float]) -> bool:
    return max(times) <= _STABLE * min(times)


def _sample(
    call: Callable[[], object], runs: int | None, seconds: float | None, clock: Callable[[], int]
) -> list[float]:
    samples: list[float] = []
    length = _DEFAULT_SECONDS if seconds is None and runs is None else seconds
    end = None if length is None else clock() + int(length * 1e9)
    least, most = (runs, runs) if runs is not None and seconds is None else (_LEAST_RUNS, runs or _MOST_RUNS)
    least = min(least, most)
    while len(samples) < least or (len(samples) < most and end is not None and clock() < end):
        samples.append(_once(call, clock))
    return samples


def statistics(samples_ms: Sequence[float] | np.ndarray[Any, Any]) -> dict[str, float]:
    """Return the fields of :class:`BenchmarkResult` that describe samples in milliseconds, by name.

    ``mean_ms``, ``std_ms`` (of a sample, n - 1; 0.0 for one run), ``min_ms``, ``p50_ms``, ``p90_ms``,
    ``p99_ms`` (interpolated linearly), ``max_ms``, and ``throughput`` in runs per second, 1000 / mean (0.0
    where the clock saw no time pass).

    Raises:
        InputError: the samples are not a list of at least one number.
    """
    samples = np.asarray(samples_ms, np.float64)
    if samples.ndim != 1 or not samples.size:
        raise InputError(f"statistics need a list of at least one time, not shape {list(samples.shape)}")
    p50, p90, p99 = (float(value) for value in np.percentile(samples, (50, 90, 99)))
    mean = float(np.mean(samples))
    return {
        "mean_ms": mean,
        "std_ms": float(np.std(samples, ddof=1)) if len(samples) > 1 else 0.0,
        "min_ms": float(np.min(samples)),
        "p50_ms": p50,
        "p90_ms": p90,
        "p99_ms": p99,
        "max_ms": float(np.max(samples)),
        "throughput": 1e3 / mean if mean else 0.0,
    }


def peak_rss() -> int | None:
    """Return the most memory this process has had resident, in bytes; None where not available."""
    # First, because Linux's getrusage counts what the parent had before it started this program.
    peak = _peak_of_proc()
    if peak is not None:
        return peak
    try:
        import resource
    except ImportError:  # Windows
        import psutil

        return getattr(psutil.Process().memory_info(), "peak_wset", None)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # kilobytes everywhere else (getrusage(2))


def _peak_of_proc() -> int | None:
    try:
        status = Path("/proc/self/status").read_text("ascii", "replace")
    except OSError:
        return None
    found = re.search(r"^VmHWM:\s*(\d+) kB$", status, re.MULTILINE)
    return int(found[1]) * 1024 if found else None

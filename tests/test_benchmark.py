"""The timing loop on a clock of its own, and the statistics against numpy."""

from __future__ import annotations

import gc
import json
import math
import subprocess
import sys
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tflite_hal.benchmark import BenchmarkResult, peak_rss, statistics, time_calls
from tflite_hal.errors import InputError

MS = 1_000_000


class Machine:
    """A call and a clock: each call takes as long as it is told, nothing else takes time."""

    def __init__(self, *durations_ms: float) -> None:
        self.durations = durations_ms  # the last one goes on for ever
        self.calls = 0
        self.now = 0

    def call(self) -> None:
        self.now += int(self.durations[min(self.calls, len(self.durations) - 1)] * MS)
        self.calls += 1

    def clock(self) -> int:
        return self.now

    def time(self, **arguments):
        return time_calls(self.call, clock=self.clock, **arguments)


def result(**changes) -> BenchmarkResult:
    fields = {
        "model": "m.tflite",
        "model_sha256": "ab" * 32,
        "delegate": "xnnpack",
        "device": "cpu:0",
        "options": {},
        "runtime": "ai-edge-litert",
        "runtime_version": "2.1.0",
        "threads": 4,
        "host": {"arch": "aarch64", "cpu": "Cortex-A76", "board": "Raspberry Pi 5", "os": "linux"},
        "versions": {"python": "3.11.7", "numpy": "2.0", "tflite_hal": "0.1"},
        "load_ms": 12.0,
        "first_ms": 9.0,
        "warmup_runs": 3,
        "runs": 100,
        "mean_ms": 4.0,
        "std_ms": 0.1,
        "min_ms": 3.5,
        "p50_ms": 4.0,
        "p90_ms": 4.2,
        "p99_ms": 4.4,
        "max_ms": 5.0,
        "throughput": 250.0,
        "peak_rss_bytes": 64 * 2**20,
    }
    return BenchmarkResult(**{**fields, **changes})


def test_the_first_call_and_the_warm_up_are_not_counted() -> None:
    machine = Machine(100, 50, 50, 1, 2, 3)
    timing = machine.time(runs=3, warmup=2)
    assert (timing.first_ms, timing.warmup_runs) == (100.0, 2)
    assert timing.samples_ms.dtype == np.float64
    assert timing.samples_ms.tolist() == [1.0, 2.0, 3.0]
    assert machine.calls == 6


def test_no_warm_up_and_one_run() -> None:
    machine = Machine(9, 4)
    timing = machine.time(runs=1, warmup=0)
    assert (timing.warmup_runs, timing.samples_ms.tolist(), machine.calls) == (0, [4.0], 2)


@pytest.mark.parametrize(
    ("durations", "expected"),
    [
        ((10,), 3),  # stable at once
        ((90, 9, 5, 3, 2, 1, 1.01, 1.02), 7),  # the last three of 1, 1.01, 1.02 agree
        ((1000,), 3),  # never fewer than 3, however long they take
        ((9, *(1, 2) * 100), 50),  # never stable, and fast
        ((9, *(20, 40) * 100), 9),  # never stable: 0.25 s are over
        ((0,), 3),  # too fast for the clock
    ],
)
def test_warm_up_ends_when_stable_or_bounded(durations, expected) -> None:
    assert Machine(*durations).time(runs=1).warmup_runs == expected


@pytest.mark.parametrize(
    ("duration", "arguments", "expected"),
    [
        (10, {}, 100),  # about one second
        (700, {}, 10),  # but at least 10
        (0.001, {}, 100_000),  # and at most 100 000
        (10, {"seconds": 0.5}, 50),
        (10, {"seconds": 0.001}, 10),
        (10, {"runs": 7}, 7),
        (1000, {"runs": 20}, 20),  # runs alone: no time limit
        (0.001, {"runs": 100_001}, 100_001),  # and no bound of ours
        (10, {"runs": 20, "seconds": 5}, 20),  # both: whichever comes first
        (10, {"runs": 200, "seconds": 0.5}, 50),
        (1000, {"runs": 200, "seconds": 1}, 10),
        (1000, {"runs": 4, "seconds": 1}, 4),
        (10, {"runs": np.int64(2), "seconds": np.float32(1)}, 2),
    ],
)
def test_how_many_calls_are_counted(duration, arguments, expected) -> None:
    assert len(Machine(duration).time(warmup=0, **arguments).samples_ms) == expected


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("runs", value) for value in (0, -1, 2.5, "3", math.nan)),
        *(("seconds", value) for value in (0, -0.5, math.nan, math.inf, "1")),
        *(("warmup", value) for value in (-1, 1.5, "2")),
    ],
)
def test_invalid_numbers_are_refused_before_any_call(name, value) -> None:
    machine = Machine(1)
    with pytest.raises(InputError, match=f"^{name}="):
        machine.time(**{name: value})
    assert machine.calls == 0


@pytest.fixture(params=[True, False], ids=["gc on", "gc off"])
def collecting(request):
    """The collector on or off before, and as it was afterwards."""
    before = gc.isenabled()
    (gc.enable if request.param else gc.disable)()
    yield request.param
    (gc.enable if before else gc.disable)()


def test_the_collector_is_off_for_counted_calls_only(collecting) -> None:
    seen = []
    time_calls(lambda: seen.append(gc.isenabled()), runs=2, warmup=1)
    assert seen == [collecting, collecting, False, False]
    assert gc.isenabled() is collecting


@pytest.mark.parametrize("failing", [0, 1, 4], ids=["first", "warm-up", "counted"])
def test_an_exception_passes_and_the_collector_is_restored(collecting, failing) -> None:
    error, calls = KeyError("mine"), iter(range(100))

    def call() -> None:
        if next(calls) == failing:
            raise error

    with pytest.raises(KeyError) as caught:
        time_calls(call, runs=5, warmup=2)
    assert caught.value is error
    assert gc.isenabled() is collecting


def test_the_real_clock_gives_plausible_times() -> None:
    timing = time_calls(lambda: sum(range(1000)), runs=20)
    assert timing.first_ms > 0
    assert len(timing.samples_ms) == 20
    assert (timing.samples_ms > 0).all()
    assert 3 <= timing.warmup_runs <= 50


@given(st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=200))
def test_statistics_agree_with_their_definitions(samples) -> None:
    found = statistics(np.array(samples))
    ordered, mean = sorted(samples), math.fsum(samples) / len(samples)
    for share, name in ((0.5, "p50_ms"), (0.9, "p90_ms"), (0.99, "p99_ms")):
        low = math.floor(share * (len(samples) - 1))
        part = share * (len(samples) - 1) - low
        high = ordered[min(low + 1, len(samples) - 1)]
        assert found[name] == pytest.approx(ordered[low] + part * (high - ordered[low]))
        assert found[name] == np.percentile(samples, round(share * 100))
    assert found["mean_ms"] == pytest.approx(mean)
    assert (found["min_ms"], found["max_ms"]) == (ordered[0], ordered[-1])
    assert found["throughput"] == pytest.approx(1000 / mean)
    deviation = math.sqrt(math.fsum((x - mean) ** 2 for x in samples) / max(len(samples) - 1, 1))
    assert found["std_ms"] == pytest.approx(deviation, rel=1e-6, abs=1e-6 * mean)
    assert all(type(value) is float for value in found.values())


def test_statistics_of_one_run_and_of_no_time() -> None:
    assert statistics([4.0])["std_ms"] == 0.0
    assert statistics([4.0])["throughput"] == 250.0
    assert statistics([0.0, 0.0])["throughput"] == 0.0


@pytest.mark.parametrize("samples", [[], [[1.0]], 1.0])
def test_statistics_need_samples(samples) -> None:
    with pytest.raises(InputError, match="at least one"):
        statistics(samples)


def test_statistics_are_fields_of_the_result() -> None:
    assert set(statistics([1.0])) <= set(BenchmarkResult._fields)


def test_a_result_is_json() -> None:
    options = MappingProxyType({"threads": np.int64(4), "path": Path("a"), "list": (1, None), "flag": True})
    measured = result(options=options, load_ms=None, peak_rss_bytes=None, model="größe.tflite")
    found = json.loads(measured.to_json())
    assert found == measured.to_dict()
    assert found["schema"] == 1
    assert set(found) == {"schema", *BenchmarkResult._fields}
    assert found["options"] == {"threads": 4, "path": "a", "list": [1, None], "flag": True}
    assert found["load_ms"] is None
    assert found["model"] == "größe.tflite"


def test_a_result_reads_well() -> None:
    text = str(result())
    assert len(text.splitlines()) <= 12
    for part in (
        "m.tflite",
        "xnnpack",
        "cpu:0",
        "4 threads",
        "Raspberry Pi 5 · Cortex-A76",
        "p50 4",
        "64 MiB",
    ):
        assert part in text
    assert ", 1 thread " in str(result(threads=1))
    bare = str(result(threads=None, host={}, load_ms=None, peak_rss_bytes=None))
    for part in ("unknown machine", "not measured", "not available"):
        assert part in bare
    assert "thread" not in bare


def test_large_and_slow_numbers_have_no_exponent() -> None:
    slow = str(result(p50_ms=12345.6, max_ms=54321.0, throughput=0.081))
    assert "12,346" in slow and "54,321" in slow and "0.081 per second" in slow and "e+" not in slow


def test_peak_rss_is_this_process_not_its_parent() -> None:
    code = "from tflite_hal.benchmark import peak_rss; print(peak_rss())"
    ballast = np.ones(300 * 2**20, np.uint8)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    own = peak_rss()
    assert own is not None and own > ballast.nbytes
    if sys.platform == "linux":
        assert 2**20 < int(done.stdout) < ballast.nbytes


def test_importing_stays_light() -> None:
    code = (
        "import sys, tflite_hal.benchmark; print([m for m in ('psutil', 'PIL', 'click') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"

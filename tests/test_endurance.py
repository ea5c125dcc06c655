"""For a long time, with workers that die and hang: every answer is right, and nothing is left behind."""

import ctypes
import gc
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil
import pytest

from tflite_hal import Runner, WorkerGoneError
from tflite_hal.worker import shutdown, start_worker

#: Its call tells that it has begun and then never ends, as often as the file ``hold`` says.
PLUGIN = """
import os
import signal
from pathlib import Path

from tflite_hal import Configuration, Delegate, Device, InterpreterSession, Probe, hookimpl
from tflite_hal.testing import PythonFaultDelegate

FOLDER = Path({folder!r})

class HeldCall:
    def __init__(self, call):
        self.call = call

    def run(self, arrays):
        if (FOLDER / "hold").exists():
            (FOLDER / "hold").unlink()
            with open(FOLDER / "entered", "wb", buffering=0) as entered:
                entered.write(b"x")
            while True:
                signal.pause()
        return self.call.run(arrays)

class HeldDelegate(Delegate):
    name = "held"
    api_version = 1

    def probe(self, host):
        return Probe((Device("npu:0", "npu"),))

    def open(self, model, device, configuration, runtime):
        session = InterpreterSession(model, runtime, default_delegates=False)
        prepare = session.prepare
        session.prepare = lambda *arguments: HeldCall(prepare(*arguments))
        return session

class HangingDelegate(PythonFaultDelegate):
    name = "hanging"

    def configurations(self, model, device, profile):
        return [Configuration({{"fault": "hang", "at": 15}})]

@hookimpl
def tflite_hal_register_delegates():
    return [HeldDelegate, HangingDelegate]
"""

ZEROS = np.zeros((1, 8, 8, 1), np.int8)


@pytest.fixture
def folder(install, tmp_path: Path) -> Path:
    """Where the plugin, which is installed, finds its files."""
    os.mkfifo(tmp_path / "entered")
    install("held", PLUGIN.format(folder=str(tmp_path)))
    return tmp_path


@pytest.fixture
def inputs() -> np.ndarray:
    return np.random.default_rng(6).integers(-128, 127, (50, 1, 8, 8, 1), np.int8)


@pytest.fixture
def right(inputs: np.ndarray, digits: Path, runtime_name: str) -> list[np.ndarray]:
    """What the built-in kernels answer."""
    with Runner(digits, delegate="builtin", runtime=runtime_name) as runner:
        return [runner.predict(one) for one in inputs]


def on(delegate: str, path: Path, runtime: str, **arguments) -> Runner:
    """Open by order, with the built-in kernels to fall back to: all answers are equal bit by bit."""
    return Runner.auto(
        path, delegates=[delegate], exclude=["xnnpack"], prefer="order", runtime=runtime, **arguments
    )


def worker_of(runner: Runner) -> int:
    return runner._life.active.opened.session._shared.worker.pid


# ---- workers that die and hang ----


class Killer:
    """A thread that kills the worker whenever it tells that a call is in progress."""

    def __init__(self, folder: Path, runner: Runner) -> None:
        self._hold, self._runner = folder / "hold", runner
        self._entered = os.open(folder / "entered", os.O_RDWR)  # its own writer: it sees no end
        self.kills = 0
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    def _work(self) -> None:
        while os.read(self._entered, 1) == b"x":
            os.kill(worker_of(self._runner), signal.SIGKILL)
            self.kills += 1

    def arm(self) -> None:
        """Have it kill in the middle of the next call."""
        self._hold.touch()

    def end(self) -> None:
        os.write(self._entered, b".")
        self._thread.join()
        os.close(self._entered)


def test_a_worker_killed_twenty_times_costs_none_of_a_thousand_answers(
    folder: Path, digits: Path, runtime_name: str, monkeypatch, inputs, right
) -> None:
    monkeypatch.setattr("tflite_hal.runner.rest.FIRST", 0.0)  # it is tried again at once
    between, wrong, on_device = 0, [], 0
    with warnings.catch_warnings(), on("held", digits, runtime_name) as runner:
        warnings.simplefilter("ignore")  # each fallback is one
        killer = Killer(folder, runner)
        try:
            for number in range(1000):
                if number % 50 == 25:
                    if number % 150 == 25:
                        os.kill(worker_of(runner), signal.SIGKILL)
                        between += 1
                    else:
                        killer.arm()
                answer = runner.predict(inputs[number % 50])
                if not np.array_equal(answer, right[number % 50]):
                    wrong.append(number)
                on_device += runner.delegate == "held"
        finally:
            killer.end()
        kinds = [event.kind for event in runner.events]
    assert wrong == []
    assert (killer.kills, between) == (13, 7)
    assert (kinds.count("fallback"), kinds.count("recovery")) == (20, 20)
    assert on_device == 980  # each time one answer came from elsewhere


def test_what_starts_the_workers_may_be_killed_too(
    folder: Path, digits: Path, runtime_name: str, monkeypatch, inputs, right
) -> None:
    monkeypatch.setattr("tflite_hal.runner.rest.FIRST", 0.0)
    with warnings.catch_warnings(), on("held", digits, runtime_name) as runner:
        warnings.simplefilter("ignore")
        answers, by = [], []
        for number in range(9):
            if number % 3 == 1:
                worker = worker_of(runner)
                os.kill(psutil.Process(worker).ppid(), signal.SIGKILL)
                assert gone(worker)  # it may have answered before
            answers.append(runner.predict(inputs[number]))
            by.append(runner.delegate)
    assert all(map(np.array_equal, answers, right))
    assert by == ["held", "builtin", "held"] * 3


class Ticking:
    """Another thread of the application, and how long it ever had to wait."""

    def __init__(self) -> None:
        self.ticks: list[float] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    def _work(self) -> None:
        while not self._stop.wait(0.005):
            self.ticks.append(time.perf_counter())

    def end(self) -> float:
        """Return the longest time between two ticks."""
        self._stop.set()
        self._thread.join()
        return float(np.diff(self.ticks).max())


def test_a_hang_is_given_up_at_its_limit_and_stops_nobody_else(
    folder: Path, digits: Path, runtime_name: str, inputs, right
) -> None:
    limit = 1.0
    with warnings.catch_warnings(), on("hanging", digits, runtime_name, timeout=limit) as runner:
        warnings.simplefilter("ignore")
        for number in range(6):
            assert np.array_equal(runner.predict(inputs[number]), right[number])
        other = Ticking()
        started = time.perf_counter()
        answer = runner.predict(inputs[6])
        took = time.perf_counter() - started
        longest = other.end()
        assert runner.delegate == "builtin"
    assert np.array_equal(answer, right[6])
    assert limit <= took <= limit + 1
    assert len(other.ticks) > 20
    assert longest < limit / 2
    assert any("no answer within 1 s while running" in event.message for event in runner.events)


@pytest.mark.parametrize("delegate", ["builtin", "held"])
def test_eight_threads_share_a_runner(
    delegate: str, folder: Path, digits: Path, runtime_name: str, inputs, right
) -> None:
    failures: list[object] = []
    counts = [0] * 8

    def work(thread: int, runner: Runner) -> None:
        try:
            for number in range(2000):
                place = (number * 7 + thread) % len(inputs)
                if not np.array_equal(runner.predict(inputs[place]), right[place]):
                    failures.append((thread, number))
                counts[thread] += 1
        except Exception as error:
            failures.append(error)

    with on(delegate, digits, runtime_name) as runner:
        assert runner.delegate == delegate
        threads = [threading.Thread(target=work, args=(n, runner)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert runner.events == []
    assert failures == []
    assert counts == [2000] * 8


# ---- nothing piles up ----


class Held(NamedTuple):
    """What this process holds."""

    memory: int
    descriptors: list[str]
    children: list[int]


def tidied() -> None:
    """Give back what is only kept for later, which would be counted as used."""
    gc.collect()
    getattr(ctypes.CDLL(None), "malloc_trim", lambda pad: None)(0)  # glibc has it


def held() -> Held:
    tidied()
    process = psutil.Process()
    children = process.children(recursive=True)
    assert [child for child in children if child.status() == psutil.STATUS_ZOMBIE] == []
    return Held(process.memory_info().rss, descriptors(os.getpid()), sorted(c.pid for c in children))


def descriptors(pid: int) -> list[str]:
    """What a process has open: files by path, others by kind."""
    found = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found.append(str(link.readlink()).partition(":[")[0])
        except FileNotFoundError:  # the folder's own, which is closed by now
            continue
    return sorted(found)


def mapped(pid: int) -> str:
    return Path(f"/proc/{pid}/maps").read_text()


def check_kept(before: Held, after: Held) -> None:
    assert after.memory - before.memory < 2 << 20
    assert after.descriptors == before.descriptors
    assert after.children == before.children


def test_a_thousand_runners_in_this_process_leave_nothing(
    digits: Path, runtime_name: str, monkeypatch
) -> None:
    shutdown()
    monkeypatch.setenv("TFLITE_HAL_PYTHON", "/no/such/python")  # the trial is in a child otherwise

    def cycle(times: int) -> None:
        for _ in range(times):
            with Runner(digits, delegate="builtin", runtime=runtime_name) as runner:
                runner.predict(ZEROS)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there is no isolation
        cycle(300)
        before = held()
        cycle(1000)
    # tflite-runtime 2.14 itself leaks a kilobyte per interpreter: the names in its signatures.
    check_kept(before, held())


def test_two_hundred_runners_in_workers_leave_nothing(folder: Path, digits: Path, runtime_name: str) -> None:
    def cycle(times: int) -> None:
        for _ in range(times):
            with Runner(digits, delegate="held", runtime=runtime_name) as runner:
                runner.predict(ZEROS)

    cycle(20)
    before = held()
    grown = {pid: psutil.Process(pid).memory_info().rss for pid in before.children}
    cycle(200)
    check_kept(before, held())
    for pid, memory in grown.items():  # what starts the workers
        assert psutil.Process(pid).memory_info().rss - memory < 2 << 20


@pytest.mark.parametrize(("delegate", "calls"), [("builtin", 100_000), ("held", 5000)])
def test_many_predictions_need_no_more_memory(
    delegate: str, calls: int, folder: Path, digits: Path, runtime_name: str, inputs, right
) -> None:
    with Runner(digits, delegate=delegate, runtime=runtime_name) as runner:
        processes = [psutil.Process()]
        if delegate == "held":
            processes.append(psutil.Process(worker_of(runner)))

        def run(times: int) -> list[int]:
            for number in range(times):
                answer = runner.predict(inputs[number % 50])
                if number % 50 == 0:
                    assert np.array_equal(answer, right[0])
            tidied()
            return [process.memory_info().rss for process in processes]

        before, kept = run(1000), held()
        after = run(calls)
        check_kept(kept, held())
        assert all("/dev/shm" not in mapped(process.pid) for process in processes)
    assert all(late - early < 2 << 20 for early, late in zip(before, after, strict=True))


def test_a_worker_that_ends_unnoticed_is_no_zombie() -> None:
    worker = start_worker("x", runtime=None)
    os.kill(worker.pid, signal.SIGKILL)
    for _ in range(500):
        if not psutil.pid_exists(worker.pid):
            break
        threading.Event().wait(0.01)
    else:
        pytest.fail(f"process {worker.pid} is {psutil.Process(worker.pid).status()}")
    with pytest.raises(WorkerGoneError, match="killed by SIGKILL"):  # and how it ended is still known
        worker.request("plugin", limit=5, stage="x", module="tflite_hal_xnnpack", plugin="x")


# ---- the application is killed ----

APPLICATION = """
import sys
import numpy as np
from tflite_hal import Runner
from tflite_hal.worker.process import _zygotes

runner = Runner(sys.argv[1], delegate="held", runtime=sys.argv[2])
zeros = np.zeros((1, 8, 8, 1), np.int8)
runner.predict(zeros)
worker = runner._life.active.opened.session._shared.worker.pid
print(worker, *[zygote._process.pid for zygote in _zygotes.values()], flush=True)
sys.stdin.readline()
runner.predict(zeros)
"""


def gone(pid: int) -> bool:
    """Whether a process ends within five seconds."""
    for _ in range(500):
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        threading.Event().wait(0.01)
    return False


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "in a call"])
def test_nothing_survives_an_application_that_is_killed(
    busy: bool, folder: Path, digits: Path, runtime_name: str
) -> None:
    application = subprocess.Popen(
        [sys.executable, "-c", APPLICATION, str(digits), runtime_name],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with application:
        pids = [int(pid) for pid in application.stdout.readline().split()]
        assert len(pids) >= 2
        if busy:
            (folder / "hold").touch()
            application.stdin.write("\n")
            application.stdin.flush()
            assert (folder / "entered").read_bytes() == b"x"
        assert all("/dev/shm" not in mapped(pid) for pid in [application.pid, *pids])
        application.kill()
    assert [pid for pid in pids if not gone(pid)] == []

"""What trials found is remembered: nothing is tried twice, and what went wrong is not tried again."""

import importlib
import json
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from tflite_hal import Check, Outcome, Runner, TfliteHalWarning
from tflite_hal.delegate import Device
from tflite_hal.model import read_model
from tflite_hal.runtime import load_runtime
from tflite_hal.trial import Memory, Terms, builtin_candidate
from tflite_hal.verdicts import Verdicts
from tflite_hal.worker import process

EXAMPLE = Path(__file__).parent / "example_plugin" / "tflite_hal_acme.py"
CRASHING = EXAMPLE.read_text().replace(
    "        return InterpreterSession(model, runtime, default_delegates=False)",
    "        import os\n\n        os.kill(os.getpid(), 11)",
)


@pytest.fixture
def cache() -> Path:
    return Path(os.environ["TFLITE_HAL_CACHE_DIR"])


def verdicts(cache: Path) -> list[dict]:
    return [json.loads(p.read_text()) for p in cache.glob("*.json") if not p.name.endswith(".model.json")]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The labels of workers that were started."""
    labels: list[str] = []
    init = process.Worker.__init__

    def noted(self, zygote, label) -> None:
        labels.append(label)
        init(self, zygote, label)

    monkeypatch.setattr(process.Worker, "__init__", noted)
    return labels


def test_the_second_start_needs_no_trial(digits: Path, runtime_name: str, started, cache: Path) -> None:
    with Runner.auto(digits, runtime=runtime_name) as first:
        tried = first.selection
    assert started
    started.clear()
    with Runner.auto(digits, runtime=runtime_name) as second:
        assert started == []
        assert second.delegate == tried.winner.delegate
        assert second.selection.winner.latency_ms == tried.winner.latency_ms
        assert all(a.recalled for a in second.selection.attempts if a.latency_ms is not None)
        assert second.events == []
    assert cache.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("change", ["model", "check", "threads", "cpus"])
def test_what_changed_is_tried_anew(
    digits: Path, digits_float: Path, started, monkeypatch, change: str
) -> None:
    Runner.auto(digits).close()
    started.clear()
    if change == "cpus":
        monkeypatch.setattr("tflite_hal.runner.choice._identity", lambda host, manager: {"host": ["other"]})
    arguments = {"check": {"check": Check(seeded=5)}, "threads": {"threads": 3}}.get(change, {})
    Runner.auto(digits_float if change == "model" else digits, **arguments).close()
    assert started


def test_a_crash_is_not_repeated(install, digits: Path, started) -> None:
    install("acme", CRASHING)
    with pytest.warns(TfliteHalWarning, match="SIGSEGV"), Runner.auto(digits) as runner:
        assert runner.delegate == "xnnpack"
    started.clear()
    with Runner.auto(digits) as runner:
        acme = next(a for a in runner.selection.attempts if a.delegate == "acme")
        assert acme.outcome is Outcome.QUARANTINED
        assert "it crashed at open" in acme.reason and "SIGSEGV" in acme.reason
        assert acme.remedy.startswith("tflite-hal verdicts forget ")
    assert [label for label in started if "delegate" in label] == []


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_hang_is_tried_again_with_more_time(install, digits: Path, started) -> None:
    install("acme", CRASHING.replace("os.kill(os.getpid(), 11)", "__import__('threading').Event().wait()"))
    outcomes = []
    for limit, run in ((0.5, 1.0), (0.5, 1.0), (0.5, 60.0), (1.0, 1.0)):
        limits = {"open_timeout": limit, "timeout": run}  # more time to run does not help one that opens
        with Runner.auto(digits, **limits, fallback="never", check=Check(seeded=1)) as runner:
            outcomes.append(next(a.outcome for a in runner.selection.attempts if a.delegate == "acme"))
    assert outcomes == [Outcome.HUNG, Outcome.QUARANTINED, Outcome.QUARANTINED, Outcome.HUNG]


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_what_merely_failed_is_tried_again(install, digits: Path, tmp_path: Path) -> None:
    plugged = tmp_path / "plugged"
    body = f"if not os.path.exists({str(plugged)!r}):\n            raise RuntimeError('unplugged')\n"
    text = CRASHING.replace(
        "os.kill(os.getpid(), 11)",
        body + "        return InterpreterSession(model, runtime, default_delegates=False)",
    )
    install("acme", text)
    outcomes = []
    for _ in range(2):
        with Runner.auto(digits) as runner:
            outcomes.append(next(a.outcome for a in runner.selection.attempts if a.delegate == "acme"))
        plugged.touch()
    assert outcomes == [Outcome.FAILED, Outcome.SLOWER]


KILLED = """
import os, sys
from tflite_hal import Runner
from tflite_hal.trial import proof

real = proof.open_remotely
def killed(delegate, *arguments, **named):
    if delegate.name == "acme":
        os.kill(os.getpid(), 9)
    return real(delegate, *arguments, **named)

proof.open_remotely = killed
Runner(sys.argv[1], delegate="acme")
"""


def test_a_trial_that_took_the_machine_down_is_not_repeated(
    install, digits: Path, cache: Path, tmp_path: Path, monkeypatch
) -> None:
    install("acme", EXAMPLE.read_text())
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(digits)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -9, done.stderr
    with Runner.auto(digits) as runner:  # the machine survived it: someone killed the application
        acme = next(a for a in runner.selection.attempts if a.delegate == "acme")
        assert acme.outcome is Outcome.SLOWER
    for path in cache.glob("*.json"):
        path.unlink()
    again = subprocess.run([*done.args], env=environment, capture_output=True, check=False)
    assert again.returncode == -9
    (tmp_path / "boot").write_text("another\n")
    monkeypatch.setattr("tflite_hal.verdicts.processes._BOOT", tmp_path / "boot")
    with Runner.auto(digits) as runner:
        acme = next(a for a in runner.selection.attempts if a.delegate == "acme")
        assert acme.outcome is Outcome.QUARANTINED
        assert "took the machine or the process down" in acme.reason


def test_ctrl_c_in_a_trial_is_no_verdict(install, digits: Path, monkeypatch, cache: Path) -> None:
    install("acme", EXAMPLE.read_text())

    def interrupted(self, candidate) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["tflite_hal.trial.gate"].Gate, "attempt", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Runner.auto(digits)
    assert verdicts(cache) == []


def test_two_processes_make_one_trial(digits: Path, cache: Path) -> None:
    script = (
        "import sys\nfrom tflite_hal import Runner\nfrom tflite_hal.trial import proof\n"
        "real, tried = proof.open_remotely, []\n"
        "def counted(*arguments, **named):\n    tried.append(1)\n    return real(*arguments, **named)\n"
        "proof.open_remotely = counted\n"
        "with Runner.auto(sys.argv[1]) as runner:\n    print(len(tried), runner.delegate, runner.events)\n"
    )
    running = [
        subprocess.Popen([sys.executable, "-c", script, str(digits)], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = sorted(one.communicate(timeout=60)[0].split() for one in running)
    assert [words[0] for words in said] == ["0", str(len(verdicts(cache)))]
    assert said[0][1:] == said[1][1:]


def test_where_nothing_can_be_remembered_it_works_and_says_so_once(
    digits: Path, monkeypatch, tmp_path
) -> None:
    monkeypatch.setenv("TFLITE_HAL_CACHE_DIR", "/proc/nowhere")
    with pytest.warns(TfliteHalWarning, match="not remembered") as caught, Runner.auto(digits) as runner:
        assert [event.kind for event in runner.events] == ["memory"]
        assert runner.predict(np.zeros((1, 8, 8, 1), np.int8)).shape == (1, 10)
    assert len(caught) == 1


def test_a_damaged_verdict_is_none(digits: Path, cache: Path, started) -> None:
    Runner.auto(digits).close()
    for path in cache.glob("*.json"):
        path.write_bytes(path.read_bytes()[:100])
    started.clear()
    with Runner.auto(digits) as runner:
        assert runner.events == []
    assert started


def test_times_of_different_choices_are_not_compared(install, digits: Path) -> None:
    """Each was measured beside others than now, perhaps on a machine that was busy then."""
    install("acme", EXAMPLE.read_text())

    def races(*exclude: str) -> set[str]:
        with Runner.auto(digits, exclude=exclude) as runner:
            right = [a.races for a in runner.selection.attempts if a.latency_ms is not None]
            return set.intersection(*map(set, right))

    first, second = races("builtin", "acme"), races("xnnpack")
    together = races()
    assert [len(found) for found in (first, second, together)] == [1, 1, 1]
    assert len(first | second | together) == 3


def test_choices_that_share_candidates_need_no_new_race_each(digits: Path, monkeypatch) -> None:
    ran: list[int] = []
    choosing = importlib.import_module("tflite_hal.trial.choosing")
    race = choosing.race
    monkeypatch.setattr(choosing, "race", lambda *given: ran.append(1) or race(*given))
    for _ in range(3):
        Runner.auto(digits).close()
        Runner.auto(digits, threads=1).close()
        Runner.auto(digits, threads=3).close()
    assert len(ran) == 2  # of all, and with three threads; with one, all were in the first


def test_a_device_is_tried_with_one_model_at_a_time(digits: Path, digits_float: Path, tmp_path: Path) -> None:
    """Many take one process at a time; the CPU takes all."""
    npu = builtin_candidate(load_runtime())._replace(device=Device("npu:0", "npu"))
    cpu = npu._replace(device=Device("cpu", "cpu"))
    verdicts = [Verdicts(tmp_path / "cache"), Verdicts(tmp_path / "cache")]
    lock, taken = Verdicts.lock, []

    @contextmanager
    def noted(self, key: str, limit: float):
        with lock(self, key, 0.0) as held:
            taken.append(held)
            yield held

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Verdicts, "lock", noted)
        first, second = (
            Memory(one, read_model(path), Terms(), {})
            for one, path in zip(verdicts, (digits, digits_float), strict=True)
        )
        with first.trying(npu), second.trying(npu):
            assert taken == [True, True, False, True]  # the device's, the trial's
        taken.clear()
        with first.trying(cpu), second.trying(cpu):
            assert taken == [True, True]

"""A driver that crashes, hangs, refuses or answers wrongly at any stage costs the application nothing.

Every fault of :class:`FaultDelegate` at every stage, by a plugin that is named, through the runtime's own
``load_delegate``. The table in README is made of what is expected here.
"""

import json
import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from tflite_hal import Check, DelegateError, Outcome, Runner
from tflite_hal.model import read_model
from tflite_hal.remote import pool
from tflite_hal.testing import build_library
from tflite_hal.testing.misbehaviour import ENDING, NUMERIC, STAGES
from tflite_hal.trial import seeded_inputs

ROOT = Path(__file__).resolve().parents[1]
TRIAL_RUNS = Check().seeded
#: Calls of ``predict`` that are right before the fault of a later run, and all calls.
GOOD, CALLS = 2, 6
LATER = TRIAL_RUNS + GOOD + 1
LIMITS = {"open_timeout": 1.0, "timeout": 1.0}

PLUGIN = """
import json
from pathlib import Path

from tflite_hal import Configuration, hookimpl
from tflite_hal.testing import FaultDelegate

class BadDelegate(FaultDelegate):
    name = "bad"
    library = {library!r}

    def configurations(self, model, device, profile):
        return [Configuration(json.loads(Path({options!r}).read_text()))]

class WorseDelegate(BadDelegate):
    name = "worse"

    def configurations(self, model, device, profile):
        return [Configuration({{"fault": "constant"}})]

@hookimpl
def tflite_hal_register_delegates():
    return [BadDelegate, WorseDelegate]
"""


# ---- what is expected; README has it as tables ----


class Ending(NamedTuple):
    """What a fault that ends a call or the process comes to."""

    outcome: str  #: of the attempt
    reason: str  #: what the selection and the events say; "{}" is the injected message
    alone: str  #: what becomes of the application with ``isolate=False``, at a run after the trial
    status: int | None  #: with which exit status; None where it never ends
    closing: str = "nothing"  #: what the application sees where it happens at the end


ENDINGS = {
    "error": Ending("failed", "{}", "gets another candidate's answer", 0),
    "segv": Ending("crashed", "killed by SIGSEGV", "is killed by SIGSEGV", -signal.SIGSEGV),
    "abort": Ending("crashed", "killed by SIGABRT", "is killed by SIGABRT", -signal.SIGABRT),
    "exit0": Ending("crashed", "ended with exit status 0", "ends with exit status 0", 0),
    "exit7": Ending("crashed", "ended with exit status 7", "ends with exit status 7", 7),
    "hang": Ending("hung", "no answer within 1 s", "hangs", None, "`close()` takes up to 5 s"),
}


class Wrong(NamedTuple):
    """What a fault in numbers comes to; "" where the default limits allow it."""

    trial: str  #: the reason where it is there from the first run
    later: str  #: the reason where it begins after the trial


VALUES = {
    "wrong": Wrong("differs by 255 of 256 steps", "differs by 255 of 256 steps"),
    "small": Wrong("", ""),
    "nan": Wrong("NaN or infinite elements", "NaN or infinite elements"),
    "inf": Wrong("NaN or infinite elements", "NaN or infinite elements"),
    # A stored zero is no real zero; the first value of a later answer is one.
    "zero": Wrong("is constant", "is constant"),
    "constant": Wrong("is constant", "is constant"),
    # Nothing precedes the first answer.
    "stale": Wrong("is constant", "repeats answer 1 as answer 2"),
}


def test_readme_has_the_tables() -> None:
    text = (ROOT / "README.md").read_text()
    section = text.partition("## What a bad driver can do")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| `")]
    assert rows == [*map(ending_row, ENDINGS), *map(value_row, VALUES)]


def ending_row(fault: str) -> str:
    end = ENDINGS[fault]
    reason = end.reason.format("its message").replace("within 1 s", "within the limit")
    return f"| `{fault}` | `{end.outcome}`: {reason} | {end.closing} | {end.alone} |"


def value_row(fault: str) -> str:
    trial, later = VALUES[fault]
    if not trial:
        return f"| `{fault}` | chosen, within the limits | given | given |"
    return f"| `{fault}` | `wrong`: {trial} | `wrong`: {later} | given |"


# ---- what is run ----


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library of the C delegate; skips where there is no compiler."""
    try:
        return build_library(tmp_path_factory.mktemp("faults"))
    except DelegateError as error:
        if "no C compiler" not in str(error):
            raise
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def site(library: Path, tmp_path_factory: pytest.TempPathFactory, install_into) -> Path:
    """A folder with a plugin that misbehaves as its file of options says: one for all tests, which
    then need no process of their own to start from."""
    folder = tmp_path_factory.mktemp("site")
    options = str(folder / "options.json")
    install_into(folder, "bad", PLUGIN.format(library=str(library), options=options))
    return folder


@pytest.fixture
def bad(site: Path, monkeypatch: pytest.MonkeyPatch):
    """Have the plugin misbehave as told; returns a function."""
    monkeypatch.syspath_prepend(str(site))
    return lambda **options: (site / "options.json").write_text(json.dumps(options))


class Seen(NamedTuple):
    """What an application saw."""

    answers: list[np.ndarray]
    right: list[np.ndarray]  #: the built-in kernels' answers
    selection: object
    events: list[str]

    @property
    def attempt(self):
        """What became of the plugin's delegate."""
        return next(attempt for attempt in self.selection.attempts if attempt.delegate == "bad")

    @property
    def all_right(self) -> bool:
        return len(self.answers) == CALLS and all(map(np.array_equal, self.answers, self.right))

    @property
    def told(self) -> str:
        return " ".join(self.events)


def use(path: Path, runtime: str, **arguments) -> Seen:
    """Be an application: open, predict some times, close."""
    inputs = [seeded_inputs(read_model(path).info.inputs, 100 + n) for n in range(CALLS)]
    with Runner(path, delegate="builtin", runtime=runtime) as cpu:
        right = [cpu.predict(one) for one in inputs]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # each is an event too
        terms = {"delegates": ["bad"], "exclude": ["xnnpack"], "prefer": "order", **arguments}
        with Runner.auto(path, runtime=runtime, **terms) as runner:
            answers = [runner.predict(one) for one in inputs]
    return Seen(answers, right, runner.selection, [event.message for event in runner.events])


# ---- faults that end a call or the process ----

#: Where it happens, how that is told, and what the attempt names as its stage.
PLACES = {
    "create": ("create", 1, "opening", ("open",)),
    "delegate_prepare": ("delegate_prepare", 1, "opening", ("open",)),
    "kernel_prepare": ("kernel_prepare", 1, "opening", ("open", "allocate")),
    "first run": ("run", 1, "running", ("run",)),
    "later run": ("run", LATER, "running", ("run",)),
}


def test_every_fault_and_stage_is_here() -> None:
    assert tuple(ENDINGS) == ENDING
    assert tuple(VALUES) == NUMERIC
    assert {stage for stage, *_ in PLACES.values()} | {"destroy"} == set(STAGES)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("fault", ENDINGS)
def test_it_costs_no_answer(bad, runtime_name: str, digits: Path, fault: str, place: str) -> None:
    stage, at, doing, stages = PLACES[place]
    bad(fault=fault, stage=stage, at=at)
    seen = use(digits, runtime_name, **(LIMITS if fault == "hang" else {}))
    end, where = ENDINGS[fault], f"run {at}" if stage == "run" else stage
    injected = f"tflite-hal fault injection: {fault} at {where}"
    assert seen.all_right
    assert seen.attempt.outcome is Outcome(end.outcome)
    assert seen.attempt.stage in stages
    assert seen.selection.winner.delegate == "builtin"
    for told in (seen.attempt.reason, seen.told):
        assert injected in told
        assert end.reason.format(injected) in told
        assert fault == "error" or f"while {doing} digits_int8.tflite" in told


def test_what_was_not_needed_is_tried_before_it_takes_over(bad, runtime_name: str, digits: Path) -> None:
    bad(fault="segv", at=LATER)
    seen = use(digits, runtime_name, delegates=["bad", "worse"])
    assert seen.all_right
    ends = {attempt.delegate: attempt.outcome for attempt in seen.selection.attempts}
    assert (ends["bad"], ends["worse"]) == (Outcome.CRASHED, Outcome.WRONG)
    assert seen.selection.winner.delegate == "builtin"
    assert "worse on fault:0: wrong" in seen.told


def test_a_fault_while_it_is_timed_is_told_as_one_of_running(bad, runtime_name: str, digits: Path) -> None:
    bad(fault="segv", at=TRIAL_RUNS + 1)
    seen = use(digits, runtime_name, prefer="latency")
    assert seen.all_right
    assert (seen.attempt.outcome, seen.attempt.stage) == (Outcome.CRASHED, "run")
    assert f"segv at run {TRIAL_RUNS + 1}" in seen.told


@pytest.mark.parametrize("fault", ENDINGS)
def test_at_the_end_nobody_sees_it(bad, runtime_name: str, digits: Path, monkeypatch, fault: str) -> None:
    monkeypatch.setattr(pool, "CLOSE_LIMIT", 1.0)
    bad(fault=fault, stage="destroy")
    seen = use(digits, runtime_name)
    assert seen.all_right
    assert seen.events == []
    assert seen.attempt.outcome is Outcome.CHOSEN
    assert pool._pool == {}


# ---- faults in numbers ----


@pytest.fixture
def model(fault: str, digits: Path, digits_float: Path) -> Path:
    """One whose numbers the fault can spoil."""
    return digits_float if fault in ("nan", "inf") else digits


@pytest.mark.parametrize("at", [1, LATER], ids=["first run", "later run"])
@pytest.mark.parametrize("fault", VALUES)
def test_no_wrong_answer_is_given(bad, runtime_name: str, model: Path, fault: str, at: int) -> None:
    bad(fault=fault, at=at)
    seen = use(model, runtime_name, recheck=1)
    reason = VALUES[fault].trial if at == 1 else VALUES[fault].later
    if not reason:
        check_small(seen, at)
        return
    assert seen.all_right
    assert seen.attempt.outcome is Outcome.WRONG
    assert seen.attempt.stage == ("compare" if at == 1 else "run")
    for told in (seen.attempt.reason, seen.told):
        assert reason in told
    assert seen.selection.winner.delegate == "builtin"


def check_small(seen: Seen, at: int) -> None:
    """Three steps of 256 are right by the limits: the answers are the driver's."""
    assert seen.attempt.outcome is Outcome.CHOSEN
    assert seen.events == []
    first = 0 if at == 1 else GOOD
    for number, (own, right) in enumerate(zip(seen.answers, seen.right, strict=True)):
        off = np.abs(own.astype(int) - right.astype(int))
        assert set(off.flat) == {3 if number >= first else 0}


@pytest.mark.parametrize("at", [1, LATER], ids=["first run", "later run"])
def test_a_small_error_is_found_by_a_tolerance(bad, runtime_name: str, digits: Path, at: int) -> None:
    bad(fault="small", at=at)
    seen = use(digits, runtime_name, recheck=1, check=Check(tolerance=0))
    assert seen.all_right
    assert seen.attempt.outcome is Outcome.WRONG
    assert "differs by 3 of 256 steps (tolerance 0)" in seen.told


@pytest.mark.parametrize("fault", VALUES)
def test_without_recheck_a_later_fault_is_given(bad, runtime_name: str, model: Path, fault: str) -> None:
    bad(fault=fault, at=LATER)
    seen = use(model, runtime_name)
    assert [np.array_equal(*pair) for pair in zip(seen.answers, seen.right, strict=True)] == [
        number < GOOD for number in range(CALLS)
    ]
    assert seen.events == []


@pytest.mark.parametrize("explicit", [False, True], ids=["auto", "explicit"])
def test_what_answered_wrongly_never_answers_again(
    bad, runtime_name: str, digits: Path, explicit: bool
) -> None:
    bad(fault="constant", at=LATER)
    options = {"fault": "constant", "at": LATER}
    inputs = seeded_inputs(read_model(digits).info.inputs, 100)
    every = GOOD + 1
    with (
        Runner(digits, delegate="bad", options=options, runtime=runtime_name, recheck=every)
        if explicit
        else Runner.auto(digits, delegates=["bad"], exclude=["cpu"], runtime=runtime_name, recheck=every)
    ) as runner:
        for _ in range(GOOD):
            runner.predict(inputs)
        if not explicit:
            runner.predict(inputs)  # has the answer that it was compared with
        for _ in range(every + 1):  # also those that are not due to be compared
            with pytest.raises(DelegateError, match="answers wrongly"):
                runner.predict(inputs)


# ---- without isolation ----

ALONE = """
import sys
import numpy as np
from tflite_hal import Runner
from tflite_hal.model import read_model
from tflite_hal.trial import seeded_inputs

path, runtime, calls = sys.argv[1], sys.argv[2], int(sys.argv[3])
inputs = seeded_inputs(read_model(path).info.inputs, 100)
right = Runner(path, delegate="builtin", runtime=runtime).predict(inputs)
with Runner.auto(
    path, delegates=["bad"], exclude=["xnnpack"], prefer="order", runtime=runtime, isolate=False
) as runner:
    for _ in range(calls):
        print(np.array_equal(runner.predict(inputs), right), runner.delegate, flush=True)
"""


def start_alone(folder: Path, path: Path, runtime: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", ALONE, str(path), runtime, str(LATER + 1)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("fault", ENDINGS)
def test_without_isolation_it_takes_the_application_along(
    bad, runtime_name: str, digits: Path, tmp_path: Path, fault: str
) -> None:
    bad(fault=fault, at=LATER)  # a library counts its runs anew in this process
    end = ENDINGS[fault]
    with start_alone(tmp_path, digits, runtime_name) as application:
        if end.status is None:
            assert any(f"{fault} at run {LATER}" in line for line in application.stderr)
            assert application.poll() is None
            application.kill()
        answers = application.communicate()[0].splitlines()
    assert answers[: LATER - 1] == ["True bad"] * (LATER - 1)
    assert answers[LATER - 1 :] == (["True builtin"] * 2 if fault == "error" else [])
    assert application.returncode == (-signal.SIGKILL if end.status is None else end.status)


@pytest.mark.parametrize("stage", ["create", "kernel_prepare", "run", "destroy"])
def test_without_isolation_the_trial_still_finds_it(
    bad, runtime_name: str, digits: Path, tmp_path: Path, stage: str
) -> None:
    bad(fault="segv", stage=stage)
    with start_alone(tmp_path, digits, runtime_name) as application:
        assert application.communicate()[0].splitlines() == ["True builtin"] * (LATER + 1)
    assert application.returncode == 0

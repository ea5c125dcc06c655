"""Trials compare on inputs that tell engines apart, and blame and remember only who failed."""

import time
from pathlib import Path

import numpy as np
import pytest

from tflite_hal import Call, Check, Outcome, Runner, Session, TfliteHalWarning, WorkerGoneError, read_model
from tflite_hal.runtime import load_runtime
from tflite_hal.trial import Opened, builtin_candidate, gate, seeded_inputs
from tflite_hal.trial.race import FIRST_ROUNDS, race

EXAMPLE = Path(__file__).parent / "example_plugin" / "tflite_hal_acme.py"
OPEN = "        return InterpreterSession(model, runtime, default_delegates=False)"
#: The third reset is the one after the timing: the trial resets after each of two inputs.
RESETS = """
        session = InterpreterSession(model, runtime, default_delegates=False)
        left = iter([None, None])

        def reset():
            next(left)

        session.reset = reset
        return session
"""


def acme(runner: Runner):
    return next(a for a in runner.selection.attempts if a.delegate == "acme")


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("times", [1, 2])
def test_without_the_measure_no_vendors_engine_is_used_or_remembered(
    install, digits: Path, monkeypatch, times: int
) -> None:
    install("acme", EXAMPLE.read_text())
    prove, failures = gate.prove, [WorkerGoneError("killed from outside")] * times

    def killed(candidate, *arguments, **named):
        if candidate.delegate.name == "builtin" and failures:
            raise failures.pop()
        return prove(candidate, *arguments, **named)

    monkeypatch.setattr(gate, "prove", killed)
    if times == 1:  # it is asked again
        with Runner.auto(digits) as runner:
            assert acme(runner).comparison.error == 0
        return
    with Runner.auto(digits) as runner:
        assert acme(runner).outcome is Outcome.FAILED
        assert any("nothing to compare with" in event.message for event in runner.events)
    with Runner.auto(digits) as runner:
        assert acme(runner).comparison.error == 0


def test_one_that_fails_after_it_was_timed_is_told(install, digits: Path) -> None:
    install("acme", EXAMPLE.read_text().replace(OPEN, RESETS))
    with (
        pytest.warns(TfliteHalWarning, match="StopIteration"),
        Runner.auto(digits, check=Check(seeded=2)) as runner,
    ):
        assert (acme(runner).outcome, acme(runner).stage) == (Outcome.FAILED, "run")
        assert runner.device.id == "cpu"


def test_samples_may_differ_in_batch(install, models: Path) -> None:
    install("acme", EXAMPLE.read_text())
    samples = [np.ones((n, 32, 32, 3), np.float32) for n in (1, 3)]
    check = Check(samples=samples, seeded=1)
    with Runner(models / "pretrainedResnet.tflite", delegate="acme", check=check) as runner:
        assert runner.selection.winner.comparison.error == 0


def test_seeded_inputs_are_of_several_kinds(digits: Path, digits_float: Path) -> None:
    for path, wide in ((digits, 100), (digits_float, 1)):
        specs = read_model(path).info.inputs
        means = [float(np.mean(seeded_inputs(specs, seed)[0].astype(float))) for seed in range(8)]
        assert max(means) - min(means) > wide
        again = [seeded_inputs(specs, seed)[0] for seed in range(8)]
        assert all(np.array_equal(seeded_inputs(specs, n)[0], array) for n, array in enumerate(again))
    spec = read_model(digits_float).info.inputs[0]
    for dtype in (np.int32, np.int64, np.bool_):
        whole = spec._replace(dtype=np.dtype(dtype), quantization=None)
        assert set(seeded_inputs([whole], 0)[0].astype(int).flat) == {0}  # they may be indices
        assert set(seeded_inputs([whole], 1)[0].astype(int).flat) == {0, 1}


class Timed(Session):
    """Answers after a while, and counts."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.runs = seconds, 0

    def prepare(self, signature=None, shapes=None):
        session = self

        class Waiting(Call):
            def run(self, arrays):
                session.runs += 1
                time.sleep(session.seconds)
                return []

        return Waiting()


def test_a_slow_one_does_not_cost_the_others_their_rounds() -> None:
    sessions = [Timed(0.0), Timed(0.002), Timed(0.15)]
    candidate = builtin_candidate(load_runtime())
    latencies = race([Opened(candidate, session, 0.0) for session in sessions], [])
    assert latencies == sorted(latencies)
    fast, _, slow = (session.runs for session in sessions)
    assert slow == 1 + FIRST_ROUNDS
    assert fast > 10 * slow

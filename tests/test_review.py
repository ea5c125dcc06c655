"""What a second reader could break: each test failed once."""

import importlib
from pathlib import Path

import numpy as np
import pytest

from tflite_hal import Runner, TfliteHalError

EXAMPLE = Path(__file__).parent / "example_plugin" / "tflite_hal_acme.py"
#: The example with a session that misbehaves as the file named by ``fault`` says, and as long as it exists.
FAULTY = (
    EXAMPLE.read_text()
    + '''
import os
import sys

import numpy as np

_open = AcmeDelegate.open
AcmeDelegate.supports = lambda self, model, device: None


class Faulty(Session):
    def __init__(self, inner):
        self.inner = inner

    def prepare(self, *arguments):
        call = self.inner.prepare(*arguments)
        run = call.run

        def misbehave(arrays):
            results = run(arrays)
            what = ""
            if os.path.exists(FAULT):
                with open(FAULT) as file:
                    what = file.read()
            if what == "raise":
                raise ValueError("late")
            if what == "raise here" and "tflite_hal.worker_main.server" not in sys.modules:
                raise TypeError("late and here")
            if what == "flip":
                return [np.flip(array).copy() for array in results]
            if what == "none":
                return []
            if what == "float":
                return [array.astype(np.float32) for array in results]
            return results

        class Wrapped:
            run = staticmethod(misbehave)

        return Wrapped()

    def reset(self):
        self.inner.reset()

    def close(self):
        self.inner.close()


AcmeDelegate.open = lambda self, *arguments: Faulty(_open(self, *arguments))
'''
)


@pytest.fixture
def fault(tmp_path: Path, install) -> Path:
    """Install the faulty plugin; returns the file that says what goes wrong."""
    path = tmp_path / "fault"
    install("acme", f"FAULT = {str(path)!r}\n" + FAULTY.replace("from __future__ import annotations\n", ""))
    return path


@pytest.fixture
def preferred(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first candidate wins, however slow it is."""
    monkeypatch.setattr(importlib.import_module("tflite_hal.trial.choose"), "NOISE", 1e9)


@pytest.fixture
def image(digits: Path) -> np.ndarray:
    return np.random.default_rng(0).integers(-128, 128, (1, 8, 8, 1)).astype(np.int8)


@pytest.fixture
def expected(digits: Path, image: np.ndarray) -> np.ndarray:
    with Runner(digits, delegate="builtin") as runner:
        return runner.predict(image)


ACME = {"delegates": ["acme"], "exclude": ["xnnpack"]}


@pytest.mark.filterwarnings("ignore")
def test_one_is_not_blamed_for_anothers_answer(digits, fault, preferred, image, expected) -> None:
    with Runner.auto(digits, **ACME, recheck=1) as runner:
        assert runner.delegate == "acme"
        fault.write_text("flip")
        for _ in range(3):
            assert np.array_equal(runner.predict(image), expected)
            assert runner.delegate == "builtin"


@pytest.mark.filterwarnings("ignore")
def test_a_runner_that_nothing_answers_for_keeps_saying_so(digits, fault, preferred, image) -> None:
    with Runner.auto(digits, delegates=["acme"], exclude=["cpu"], recheck=1) as runner:
        fault.write_text("flip")
        for _ in range(3):
            with pytest.raises(TfliteHalError, match="answers wrongly"):
                runner.predict(image)


@pytest.mark.filterwarnings("ignore")
def test_a_sequence_stays_where_it_was_begun(models, fault, preferred, monkeypatch) -> None:
    monkeypatch.setattr("tflite_hal.runner.rest.FIRST", 0.0)
    with Runner.auto(models / "keras_lstm_mnist_ptq.tflite", **ACME) as runner:
        given = [np.zeros(spec.static_shape, spec.dtype) for spec in runner.inputs]
        fault.write_text("raise")
        with pytest.raises(TfliteHalError, match="fresh state"):
            runner.predict(given)
        fault.unlink()
        runner.predict(given)
        assert runner.delegate == "builtin"
        runner.reset()
        assert runner.delegate == "acme"


@pytest.mark.filterwarnings("ignore")
def test_closing_from_an_event_is_told(digits, fault, preferred, image) -> None:
    runners = []

    def close(event) -> None:
        if runners:
            runners[0].close()

    runners.append(Runner.auto(digits, **ACME, on_event=close))
    fault.write_text("raise")
    with pytest.raises(TfliteHalError, match="closed"):
        runners[0].predict(image)

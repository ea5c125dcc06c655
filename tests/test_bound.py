"""What is bound to one thread gets one, and what needs an environment is not run without it."""

import importlib
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tflite_hal import DelegateError, NoDelegateError, Runner

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = (ROOT / "tests/example_plugin/tflite_hal_acme.py").read_text()

#: Refuses every call from another thread than the one that opened it, as OpenGL's delegate does.
BOUND = """

import threading

from tflite_hal import Call, DelegateError

_open = AcmeDelegate.open
opened = []


class BoundSession(Session):
    threading = "owner"

    def __init__(self, inner):
        self.inner, self.owner = inner, threading.get_ident()
        opened.append(self)
        self.closed = False

    def check(self):
        if threading.get_ident() != self.owner:
            raise DelegateError("must run on the same thread where it was initialized")

    def prepare(self, signature=None, shapes=None):
        self.check()
        return BoundCall(self, self.inner.prepare(signature, shapes))

    def reset(self):
        self.check()
        self.inner.reset()

    def close(self):
        self.check()
        self.inner.close()
        self.closed = True


class BoundCall(Call):
    def __init__(self, session, inner):
        self.session, self.inner = session, inner

    def run(self, arrays):
        self.session.check()
        return self.inner.run(arrays)


def _bound(self, model, device, configuration, runtime):
    return BoundSession(_open(self, model, device, configuration, runtime))


AcmeDelegate.open = _bound
"""


@pytest.fixture
def bound(install):
    """Install the example plugin with sessions that are bound to their thread."""
    install("bound", EXAMPLE.replace('"acme"', '"bound"') + BOUND)


@pytest.mark.parametrize("isolate", ["auto", False])
def test_any_thread_may_call_a_session_that_is_bound_to_one(
    bound, digits: Path, runtime_name, isolate
) -> None:
    with Runner(digits, delegate="bound", runtime=runtime_name, isolate=isolate) as runner:
        image = np.zeros(runner.inputs[0].shape, runner.inputs[0].dtype)
        here = runner.predict(image)
        with ThreadPoolExecutor(3) as pool:
            for answer in pool.map(lambda _: runner.predict(image), range(9)):
                assert np.array_equal(answer, here)
        runner.reset()
    for thread in threading.enumerate():
        if thread.name.startswith("tflite-hal-session"):
            thread.join(10)
            assert not thread.is_alive(), "closing the runner ends it"


def test_it_is_closed_where_it_was_opened(bound, digits: Path) -> None:
    with Runner(digits, delegate="bound", isolate=False) as runner:
        runner.predict(np.zeros(runner.inputs[0].shape, runner.inputs[0].dtype))
    sessions = importlib.import_module("tflite_hal_bound").opened
    assert len(sessions) >= 2, "one told that it is bound, the other was opened on a thread of its own"
    assert all(one.closed for one in sessions)
    assert sessions[-1].owner != threading.get_ident()
    runner.close()


def test_what_it_raises_is_raised_here(bound, digits: Path, monkeypatch) -> None:
    with Runner(digits, delegate="bound", isolate=False) as runner:
        session = importlib.import_module("tflite_hal_bound").opened[-1]
        with monkeypatch.context() as patch:
            patch.setattr(session, "owner", -1)
            with pytest.raises(DelegateError, match="must run on the same thread"):
                runner.predict(np.zeros(runner.inputs[0].shape, runner.inputs[0].dtype))


ASKING = """

AcmeDelegate.environment = {"ACME_HOME": "/opt/acme"}
"""


def test_what_needs_an_environment_is_not_run_in_a_process_without_it(
    install, digits: Path, monkeypatch
) -> None:
    install("asking", EXAMPLE.replace('"acme"', '"asking"') + ASKING)
    monkeypatch.delenv("ACME_HOME", raising=False)
    with Runner(digits, delegate="asking") as runner:
        assert runner.delegate == "asking", "its worker has it"
    assert "ACME_HOME" not in os.environ
    with pytest.raises(NoDelegateError, match=r"needs ACME_HOME=/opt/acme from the start.*isolate='auto'"):
        Runner(digits, delegate="asking", isolate=False)
    monkeypatch.setenv("ACME_HOME", "/opt/acme")
    with Runner(digits, delegate="asking", isolate=False) as runner:
        assert runner.delegate == "asking"

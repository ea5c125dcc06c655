"""What is bound to one thread gets one, and what needs an environment is not run without it."""

import gc
import importlib
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tflite_hal import Call, DelegateError, NoDelegateError, Runner, Session
from tflite_hal.trial.bound import open_bound

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


class Owned(Session):
    """Notes what happens to it and to its calls, and on which thread."""

    threading = "owner"

    def __init__(self, log: list[tuple[str, int]]) -> None:
        self.log = log

    def prepare(self, signature=None, shapes=None) -> Call:
        return OwnedCall(self.log)

    def close(self) -> None:
        self.log.append(("closed", threading.get_ident()))

    def __del__(self) -> None:
        self.log.append(("destroyed", threading.get_ident()))


class OwnedCall(Call):
    def __init__(self, log: list[tuple[str, int]]) -> None:
        self.log = log

    def run(self, arrays):
        self.log.append(("ran", threading.get_ident()))
        return []

    def __del__(self) -> None:
        self.log.append(("call destroyed", threading.get_ident()))


@pytest.mark.parametrize("last", ["session", "call", "cycle"])
def test_one_that_is_dropped_is_closed_and_destroyed_where_it_was_opened(last: str) -> None:
    before, log = set(threading.enumerate()), []
    session = open_bound(lambda: Owned(log))
    (thread,) = set(threading.enumerate()) - before
    log.clear()  # of the one that told that it is bound
    calls = [session.prepare(), session.prepare()]
    calls[0].run([])
    if last == "cycle":
        calls.append(calls)
    elif last == "session":
        calls.clear()
    del session, calls
    gc.collect()
    thread.join(10)
    assert not thread.is_alive()
    assert [name for name, _ in log if name != "call destroyed"] == ["ran", "closed", "destroyed"]
    assert len(log) == 5
    assert {where for _, where in log} == {thread.ident}


def test_a_closed_one_says_so_and_may_be_closed_again() -> None:
    session = open_bound(lambda: Owned([]))
    call = session.prepare()
    session.close()
    session.close()
    with pytest.raises(DelegateError, match=r"closed|has ended"):
        call.run([])


LEFT = """
import gc, os, sys
sys.path[:0] = {path!r}
from test_bound import Owned, open_bound

class Loud(Owned):
    def __del__(self):
        if loud:
            os.write(2, b"destroyed")
    def close(self):
        if loud:
            os.write(2, b"closed")

loud, log = False, []
session = open_bound(lambda: Loud(log))
call = session.prepare()
call.run([])
loud = True
{end}
"""


@pytest.mark.parametrize(
    "end",
    [
        "",
        "sys.exit(0)",
        pytest.param(
            """
if os.fork() == 0:
    session.close()
    del session, call
    gc.collect()
    os._exit(0)
assert os.wait()[1] == 0
""",
            marks=pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here"),
        ),
    ],
    ids=["end", "exit", "fork"],
)
def test_it_is_left_alone_at_the_end_and_in_a_forked_child(end: str) -> None:
    code = LEFT.format(path=[str(ROOT), str(ROOT / "tests"), *sys.path], end=end)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


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

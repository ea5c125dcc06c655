"""What a second reader could break: each test failed once."""

import importlib
import os
import shutil
import signal
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from tflite_hal import Check, Device, ModelError, Runner, TfliteHalError, TfliteHalWarning, read_model
from tflite_hal.errors import WorkerHungError
from tflite_hal.manager import Manager
from tflite_hal.remote import RemoteSession
from tflite_hal.verdicts import Verdicts
from tflite_hal.worker import shutdown

EXAMPLE = Path(__file__).parent / "example_plugin" / "tflite_hal_acme.py"
#: The example with a session that misbehaves as the file named by ``fault`` says, and as long as it exists.
FAULTY = (
    EXAMPLE.read_text()
    + """
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
"""
)


@pytest.fixture
def fault(tmp_path: Path, install, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Install the faulty plugin; returns the file that says what goes wrong."""
    monkeypatch.setitem(sys.modules, "tflite_hal_acme", None)  # put back afterwards
    del sys.modules["tflite_hal_acme"]
    path = tmp_path / "fault"
    install("acme", f"FAULT = {str(path)!r}\n" + FAULTY.replace("from __future__ import annotations\n", ""))
    return path


@pytest.fixture
def preferred(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first candidate wins, however slow it is."""
    monkeypatch.setattr(importlib.import_module("tflite_hal.trial.choosing"), "NOISE", 1e9)


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
def test_a_runner_that_nothing_answers_for_keeps_saying_so(digits, fault, preferred, image, expected) -> None:
    with Runner.auto(digits, delegates=["acme"], exclude=["cpu"], recheck=1) as runner:
        fault.write_text("flip")
        assert np.array_equal(runner.predict(image), expected)  # what it was compared with
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


WRONG = [
    ("configurations", "[Configuration(threads='two')]"),
    ("configurations", "[Configuration(precision=5)]"),
    ("probe", "Probe((Device(['a'], 'npu'),))"),
    ("probe", "Probe((Device('a', 'npu'), Device('a', 'npu')))"),
    ("probe", "Probe((), (Problem(None, None),))"),
    ("probe", "Probe((), (Problem('x', 'y', '', ['a']),))"),
    ("limits", "{'open': float('inf')}"),
    ("limits", "{'run': 1e12}"),
    ("limits", "{'run': float('nan')}"),
    ("limits", "{'open': -1}"),
    ("supports", "True"),
    ("open", "Covered(5)"),
    ("open", "Covered([1, 2])"),
]

ANSWERS = """
from tflite_hal import Problem


def Covered(coverage):
    session = Session()
    session.coverage = coverage
    return session


AcmeDelegate.{} = lambda *arguments: {}
"""


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("method", "answer"), WRONG)
def test_nonsense_from_a_plugin_is_its_own_failure(install, digits, method: str, answer: str) -> None:
    install("acme", EXAMPLE.read_text() + ANSWERS.format(method, answer))
    for prefer in ("latency", "throughput"):
        with Runner.auto(digits, exclude=["xnnpack"], prefer=prefer) as runner:
            assert runner.delegate == "builtin"
            told = [str(a) for a in runner.selection.attempts if a.delegate == "acme"]
            assert "contract" in str(told) or "coverage" in str(told)
    with pytest.raises(TfliteHalError, match=r"contract|coverage"):
        Runner(digits, delegate="acme")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("what", ["none", "float"])
@pytest.mark.parametrize("isolate", ["auto", False])
def test_other_outputs_than_the_models_are_a_failure(
    digits, fault, preferred, image, expected, what, isolate
) -> None:
    with Runner.auto(digits, **ACME, isolate=isolate) as runner:
        fault.write_text(what)
        assert np.array_equal(runner.predict(image), expected)
        assert runner.delegate == "builtin"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("isolate", ["auto", False])
def test_what_a_plugin_raises_in_this_process_is_told_too(
    digits, fault, preferred, image, expected, isolate, install
) -> None:
    with Runner.auto(digits, **ACME, isolate=isolate) as runner:
        fault.write_text("raise here" if isolate is False else "raise")
        assert np.array_equal(runner.predict(image), expected)
        assert runner.delegate == "builtin"


@pytest.mark.filterwarnings("ignore")
def test_an_error_of_a_vendors_own_class_is_no_lack_of_workers(install, digits) -> None:
    source = EXAMPLE.read_text() + (
        "\nimport os\n\nfrom tflite_hal import DelegateError\n\nclass AcmeError(DelegateError):\n    pass\n\n"
        "def refuse(*arguments):\n    raise AcmeError(f'refused in {os.getpid()}')\n\n"
        "AcmeDelegate.in_process = True\nAcmeDelegate.open = refuse\n"
    )
    install("acme", source)
    with pytest.raises(TfliteHalError, match="refused in") as caught:
        Runner(digits, delegate="acme")
    assert f"refused in {os.getpid()}" not in str(caught.value)


def test_a_vendor_may_name_arguments_as_it_likes(install, digits) -> None:
    source = EXAMPLE.read_text() + (
        "\nAcmeDelegate.probe = lambda self, machine: Probe((Device('npu:0', 'npu'),))"
        "\nAcmeDelegate.supports = lambda self, network, unit: None"
        "\nAcmeDelegate.configurations = lambda self, network, unit, board: [Configuration()]\n"
    )
    install("acme", source)
    with Runner(digits, delegate="acme") as runner:
        assert runner.delegate == "acme"


def test_options_without_choices_to_look_at_are_refused(install, digits) -> None:
    install("acme", EXAMPLE.read_text() + "\nAcmeDelegate.options = (Option('mode', 'str', choices=5),)\n")
    with pytest.raises(TfliteHalError, match="options = "):
        Runner(digits, delegate="acme", options={"mode": "fast"})


@pytest.mark.filterwarnings("ignore")
def test_what_was_taken_by_order_falls_back_too(digits, fault, image, expected) -> None:
    with Runner.auto(digits, **ACME, prefer="order") as runner:
        assert runner.delegate == "acme"
        fault.write_text("raise")
        assert np.array_equal(runner.predict(image), expected)
        assert runner.delegate == "builtin"
        assert runner.selection.winner.delegate == "builtin"


ODD = [
    {"profile": 5},
    {"profile": b"x"},
    {"device": ["npu"]},
    {"device": 5},
    {"check": "strict"},
    {"isolate": np.array([1, 2])},
    {"on_event": 5},
    {"threads": 100_000},
]


@pytest.mark.parametrize("arguments", ODD, ids=str)
def test_odd_arguments_are_refused_by_name(digits, arguments) -> None:
    for make in (Runner, Runner.auto):
        with pytest.raises(TfliteHalError, match=next(iter(arguments))):
            make(digits, **arguments)


@pytest.mark.parametrize("arguments", [{"prefer": np.array([1, 2])}, {"fallback": np.array([1, 2])}], ids=str)
def test_odd_arguments_of_auto_are_refused_by_name(digits, arguments) -> None:
    with pytest.raises(TfliteHalError, match=next(iter(arguments))):
        Runner.auto(digits, **arguments)


@pytest.mark.parametrize("options", ["x", ["a"], [("a", 1)]])
def test_odd_options_are_refused(digits, options) -> None:
    with pytest.raises(TfliteHalError, match="options="):
        Runner(digits, delegate="xnnpack", options=options)


def test_odd_signatures_and_runs_are_refused(digits, image) -> None:
    with Runner(digits) as runner:
        for signature in ([], {}, 5):
            with pytest.raises(TfliteHalError, match="signature="):
                runner.predict(image, signature=signature)
        for runs in ("x", 1.5, None, -1):
            with pytest.raises(TfliteHalError, match="runs="):
                runner.warmup(runs)


def test_plugins_are_found_where_no_thread_can_be_started(install, digits, monkeypatch) -> None:
    def refuse(self) -> None:
        raise RuntimeError("can't start new thread")

    install("acme", EXAMPLE.read_text())
    monkeypatch.setattr(threading.Thread, "start", refuse)
    with Runner(digits, delegate="acme") as runner:
        assert runner.delegate == "acme"


def test_what_is_no_text_on_the_search_path_is_passed_over(digits, monkeypatch) -> None:
    monkeypatch.setattr("sys.path", [*sys.path, Path("/opt")])
    with Runner(digits, isolate=True) as runner:
        assert runner.device.id == "cpu"


def test_a_shortage_of_workers_passes(digits, install, monkeypatch) -> None:
    install("acme", EXAMPLE.read_text())
    shutdown()
    with monkeypatch.context() as short:
        short.setenv("TFLITE_HAL_PYTHON", "/no/such/python")
        with pytest.warns(TfliteHalWarning, match="no child process can be started"):
            Runner(digits).close()
    with Runner(digits, delegate="acme") as runner:
        assert runner.delegate == "acme"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("[Configuration({'nosuch': 1})]", "no option 'nosuch'"),
        ("[Configuration(threads=n) for n in range(1, 40)]", "39 configurations are more than 32"),
    ],
)
def test_configurations_are_checked_and_counted(digits, install, given: str, words: str) -> None:
    text = EXAMPLE.read_text()
    start = text.index("        return [Configuration(")
    install("acme", text[:start] + f"        return {given}\n" + text[text.index("\n", start) + 1 :])
    with pytest.raises(TfliteHalError, match=words):
        Runner(digits, delegate="acme")


@pytest.mark.parametrize("name", ["LD_PRELOAD", "PYTHONPATH", "Path", "DYLD_INSERT_LIBRARIES"])
def test_a_plugins_environment_brings_no_code(install, name: str) -> None:
    member = f"    api_version = 1\n    environment = {{{name!r}: 'x'}}"
    install("acme", EXAMPLE.read_text().replace("    api_version = 1", member))
    (plugin,) = [p for p in Manager().plugins if p.name == "acme"]
    assert name in plugin.problem


def test_counts_and_flags_are_checked(digits) -> None:
    with pytest.raises(TfliteHalError, match="1 to 1000"):
        Runner.auto(digits, check=Check(seeded=10**9))
    with Runner(digits) as runner, pytest.raises(TfliteHalError, match="dequantize="):
        runner.predict(np.zeros((1, 8, 8, 1), np.int8), dequantize=np.ones(2))


def test_an_explicit_choice_that_fails_tells_what_to_do(digits, fault, image) -> None:
    with Runner(digits, delegate="acme") as runner:
        fault.write_text("raise")
        with pytest.raises(TfliteHalError, match="late") as caught:
            runner.predict(image)
        assert "Runner.auto" in caught.value.remedy
        assert [event.kind for event in runner.events] == ["failure"]
    fault.write_text("flip")
    with pytest.raises(TfliteHalError, match="differs by") as caught:
        Runner(digits, delegate="acme", check=Check(seeded=2))  # what was found with others is remembered
    assert "tflite-hal explain" in caught.value.remedy


def test_a_hanging_plugin_is_told_with_how_to_leave_it_out(install, monkeypatch) -> None:
    monkeypatch.setattr("tflite_hal.manager.IMPORT_LIMIT", 1.0)
    install("slow", "import threading; threading.Event().wait()")
    (plugin,) = [p for p in Manager().plugins if p.name == "slow"]
    assert "TFLITE_HAL_DISABLED_PLUGINS=slow leaves it out" in plugin.problem


def test_what_a_plugin_says_is_one_line(digits, install) -> None:
    opens = "        return InterpreterSession("
    raises = "        raise RuntimeError('one\\ntwo')\n"
    install("acme", EXAMPLE.read_text().replace(opens, raises + opens))
    with pytest.raises(TfliteHalError, match="one two") as caught:
        Runner(digits, delegate="acme")
    assert "\n" not in str(caught.value)


def test_nobodys_shared_folder_is_to_lose_its_rights(digits, tmp_path, monkeypatch) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    monkeypatch.setenv("TFLITE_HAL_CACHE_DIR", str(shared))
    with pytest.warns(TfliteHalWarning, match="a folder of your own") as caught:
        Runner.auto(digits).close()
    assert "chmod" not in str(caught[0].message)


def test_a_warm_start_reads_each_verdict_once(digits, monkeypatch) -> None:
    Runner.auto(digits).close()
    read: list[str] = []
    real = Verdicts.read
    monkeypatch.setattr(Verdicts, "read", lambda self, key, parts: read.append(key) or real(self, key, parts))
    Runner.auto(digits).close()
    assert len(read) == len(set(read)) > 0


@pytest.fixture
def own(tmp_path: Path, digits: Path) -> Path:
    return Path(shutil.copy(digits, tmp_path / "own.tflite"))


def replace(own: Path) -> None:
    """Put a model with the same tensors and other weights in its place."""
    changed = bytearray(own.read_bytes())
    for place in range(len(changed) // 2, len(changed) // 2 + 200):
        changed[place] ^= 0x15
    aside = own.with_suffix(".new")
    aside.write_bytes(changed)
    aside.replace(own)


def test_a_model_says_that_its_file_is_another_one(own: Path) -> None:
    model, kept, data = read_model(own), read_model(own), own.read_bytes()
    assert kept.data == data
    model.require_unchanged()
    replace(own)
    with pytest.raises(ModelError, match="was replaced after it was opened"):
        model.require_unchanged()
    with pytest.raises(ModelError, match="was replaced after it was opened"):
        _ = model.data
    assert kept.data == data
    own.unlink()
    with pytest.raises(ModelError, match=r"was removed after it was opened.*make a new Runner"):
        model.require_unchanged()
    read_model(data).require_unchanged()


@pytest.mark.filterwarnings("ignore")
def test_answers_are_compared_with_no_other_models(own, fault, preferred, image) -> None:
    with Runner.auto(own, **ACME, recheck=1) as runner:
        replace(own)
        first = runner.predict(image)
        assert np.array_equal(first, runner.predict(image))
        told = [event.message for event in runner.events if event.kind == "recheck"]
        assert len(told) == 1
        assert "was replaced" in told[0]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("change", [replace, Path.unlink])
def test_another_models_answer_takes_over_for_nothing(own, fault, preferred, image, change) -> None:
    with Runner.auto(own, delegates=["acme"], exclude=["xnnpack"]) as runner:
        assert runner.delegate == "acme"
        change(own)
        fault.write_text("raise")
        with pytest.raises(TfliteHalError, match="late"):
            runner.predict(image)
        assert any("after it was opened" in event.message for event in runner.events)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_opens_no_other_model(own, image) -> None:
    with Runner.auto(own) as runner:
        runner.predict(image)
        replace(own)
        child = os.fork()
        if child == 0:
            try:
                runner.predict(image)
            except ModelError as error:
                os._exit(3 if "was replaced" in str(error) else 4)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3


@pytest.mark.filterwarnings("ignore")
def test_a_sequence_that_lost_its_worker_is_told_to_begin_again(models, fault, monkeypatch) -> None:
    monkeypatch.setattr("tflite_hal.runner.rest.FIRST", 0.0)
    with Runner(models / "keras_lstm_mnist_ptq.tflite", delegate="acme") as runner:
        given = [np.zeros(spec.static_shape, spec.dtype) for spec in runner.inputs]
        first = runner.predict(given)
        os.kill(runner._life.active.opened.session._running().pid, signal.SIGKILL)
        with pytest.raises(TfliteHalError, match=r"fresh state.*give the sequence again"):
            runner.predict(given)
        assert np.array_equal(first, runner.predict(given))


@pytest.mark.filterwarnings("ignore")
def test_what_takes_over_has_the_time_limit_that_was_measured(digits, fault, preferred, image) -> None:
    with Runner.auto(digits, **ACME, isolate=True, recheck=1) as runner:
        fault.write_text("raise")
        assert [runner.predict(image) is not None, runner.delegate] == [True, "builtin"]
        active = runner._life.active
        assert active.opened.session.run_limit == 10.0
        assert isinstance(active._recheck._opened.session, RemoteSession)  # nothing is opened here


def test_a_method_that_hung_does_not_cost_its_time_again(install, digits: Path, monkeypatch) -> None:
    source = (
        EXAMPLE.read_text() + "\n\nAcmeDelegate.supports = lambda *given: __import__('time').sleep(3600)\n"
    )
    install("acme", source)
    (acme,) = (delegate for delegate in Manager().delegates if delegate.name == "acme")
    model, device = read_model(digits), Device("npu:0", "npu")
    for limit in (0.5, 3600.0):
        monkeypatch.setattr("tflite_hal.remote.delegate.ASK_LIMIT", limit)
        with pytest.raises(WorkerHungError, match=r"asking acme for supports"):
            acme.supports(model, device)

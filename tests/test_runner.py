"""The main road: from a file to an answer, on real runtimes."""

import gc
import json
import os
import subprocess
import sys
import threading
import warnings
from pathlib import Path
from textwrap import indent

import numpy as np
import pytest

from tflite_hal import (
    BenchmarkResult,
    Check,
    ClosedError,
    DelegateError,
    InputError,
    ModelError,
    NoDelegateError,
    Outcome,
    ProfileError,
    Runner,
    RuntimeUnavailableError,
    TfliteHalError,
    TfliteHalWarning,
    WorkerError,
)
from tflite_hal.remote import pool
from tflite_hal.runtime import load_runtime
from tflite_hal.session import TensorCall
from tflite_hal.worker import shutdown

EXAMPLE = Path(__file__).parent / "example_plugin" / "tflite_hal_acme.py"


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(1).random((1, 8, 8, 1), np.float32)


def raw(runtime: str, path: Path, array: np.ndarray, **options) -> np.ndarray:
    interpreter = load_runtime(runtime).interpreter(str(path), **options)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], array)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


def test_auto_chooses_and_answers_like_the_raw_runtime(runtime_name: str, digits_float: Path, pixels) -> None:
    with Runner.auto(digits_float, runtime=runtime_name) as runner:
        assert runner.device.kind == "cpu"
        assert runner.delegate == "xnnpack"
        assert runner.runtime.name == runtime_name
        threads = runner._life.active.opened.candidate.configuration.threads
        assert np.array_equal(
            runner.predict(pixels), raw(runtime_name, digits_float, pixels, threads=threads)
        )


def test_plain_and_builtin(runtime_name: str, digits: Path) -> None:
    array = np.random.default_rng(2).integers(-128, 127, (1, 8, 8, 1), np.int8)
    with Runner(digits, delegate="builtin", runtime=runtime_name) as runner:
        expected = raw(runtime_name, digits, array, default_delegates=False)
        assert np.array_equal(runner.predict(array), expected)
    with Runner(digits, runtime=runtime_name) as runner:
        assert runner.delegate == "xnnpack"
        assert runner.predict(array).dtype == np.int8


@pytest.mark.parametrize("form", [str, Path, Path.read_bytes])
def test_a_model_is_a_path_or_bytes(form, digits: Path, runtime_name: str) -> None:
    given = form(digits)
    with Runner.auto(given, runtime=runtime_name) as runner:
        assert runner.predict(np.zeros((1, 8, 8, 1), np.int8)).shape == (1, 10)


def test_a_relative_path_is_read_from_the_working_directory(digits: Path, monkeypatch) -> None:
    monkeypatch.chdir(digits.parent)
    with Runner.auto(digits.name) as runner:
        assert runner.predict(np.zeros((1, 8, 8, 1), np.int8)).shape == (1, 10)


def test_inputs_by_name_sequence_and_without_batch(digits: Path) -> None:
    array = np.arange(64, dtype=np.int8).reshape(1, 8, 8, 1)
    with Runner.auto(digits) as runner:
        expected = runner.predict(array)
        (spec,) = runner.inputs
        for given in ({spec.name: array}, [array], (array,), array[0], {"image": array}):
            assert np.array_equal(runner.predict(given), expected)
        assert np.array_equal(runner.predict({"image": array}, signature="serving_default"), expected)
        with pytest.raises(InputError, match=r"no signature 'other'.*serving_default"):
            runner.predict(array, signature="other")


def test_real_numbers_are_quantised_and_come_back_real(digits: Path, pixels) -> None:
    with Runner.auto(digits) as runner:
        real = runner.predict(pixels)
        assert real.dtype == np.float32
        assert real.sum() == pytest.approx(1.0, abs=0.05)
        stored = runner.predict(pixels, dequantize=False)
        assert stored.dtype == np.int8
        (scale,), (zero,) = runner.outputs[0].quantization[:2]
        assert np.allclose((stored.astype(np.float32) - zero) * np.float32(scale), real)
        exact = np.zeros((1, 8, 8, 1), np.int8)
        assert runner.predict(exact).dtype == np.int8
        assert runner.predict(exact, dequantize=True).dtype == np.float32


def test_out_is_filled_and_results_are_the_callers(digits: Path) -> None:
    array = np.ones((1, 8, 8, 1), np.int8)
    with Runner.auto(digits) as runner:
        first = runner.predict(array)
        kept = first.copy()
        out = np.empty((1, 10), np.int8)
        assert runner.predict(array, out=out) is out
        assert np.array_equal(out, first)
        runner.predict(array * 100)
        assert np.array_equal(first, kept)
        with pytest.raises(InputError):
            runner.predict(array, out=np.empty((1, 10), np.float32))


def test_a_suspicious_input_warns_once_and_is_an_event(digits_float: Path) -> None:
    image = np.full((1, 8, 8, 1), 200, np.uint8)
    with Runner.auto(digits_float) as runner:
        with pytest.warns(TfliteHalWarning, match=r"images\.fit") as caught:
            runner.predict(image)
        assert caught[0].filename == __file__
        runner.predict(image)
        assert [event.kind for event in runner.events] == ["input", "input"]


def test_the_selection_tells_the_whole_story(digits: Path) -> None:
    with Runner.auto(digits, exclude=("xnnpack",)) as runner:
        assert runner.delegate == "builtin"
        story = {a.delegate: a.outcome for a in runner.selection.attempts}
        assert story["builtin"] is Outcome.CHOSEN
        assert story["xnnpack"] is Outcome.EXCLUDED
        text = str(runner.selection)
        assert "exclude has 'xnnpack'" in text
        record = json.loads(json.dumps(runner.selection.to_dict()))
        assert record["winner"]["delegate"] == "builtin"
        assert record["compared"] is False  # there was nothing to compare it with


def test_threads_are_the_callers(digits: Path) -> None:
    with Runner.auto(digits, threads=2) as runner:
        assert runner.selection.winner.configuration == "threads=2"
    with pytest.raises(InputError, match="threads=0"):
        Runner.auto(digits, threads=0)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"delegate": "xnpack"}, DelegateError, "did you mean 'xnnpack'"),
        ({"delegate": "edgetpu"}, NoDelegateError, "edgetpu"),
        ({"device": "npu"}, NoDelegateError, "no device on this machine fits"),
        ({"delegate": "xnnpack", "options": {"fast": 1}}, DelegateError, "no option 'fast'"),
        ({"options": {"fast": 1}}, DelegateError, "give delegate="),
        ({"runtime": "torch"}, RuntimeUnavailableError, "unknown runtime 'torch'"),
        ({"profile": "no-such-board"}, ProfileError, "no-such-board"),
        ({"profile": "/no/such/file.yaml"}, ProfileError, "/no/such/file.yaml"),
    ],
)
def test_an_explicit_choice_fails_loudly(digits: Path, arguments, error, words: str) -> None:
    with pytest.raises(error, match=words):
        Runner(digits, **arguments)


def test_a_string_is_no_sequence_of_names(digits: Path) -> None:
    for arguments in ({"delegates": "xnnpack"}, {"exclude": "cpu"}):
        with pytest.raises(DelegateError, match="is a string"):
            Runner.auto(digits, **arguments)


def test_everything_excluded_is_an_error_with_the_selection(digits: Path) -> None:
    with pytest.raises(NoDelegateError) as caught:
        Runner.auto(digits, exclude=("cpu",))
    assert caught.value.selection.winner is None


def test_not_a_model(tmp_path: Path) -> None:
    (tmp_path / "x.tflite").write_bytes(b"<html>not found</html>")
    for given in (tmp_path / "x.tflite", tmp_path / "missing.tflite", tmp_path, b"", b"TFL3"):
        with pytest.raises(ModelError):
            Runner.auto(given)


def test_a_closed_runner_says_so(digits: Path) -> None:
    runner = Runner.auto(digits)
    runner.close()
    runner.close()
    with pytest.raises(ClosedError, match="digits_int8"):
        runner.predict(np.zeros((1, 8, 8, 1), np.int8))
    with pytest.raises(ClosedError):
        runner.reset()


def test_threads_share_a_runner(digits: Path, runtime_name: str) -> None:
    random = np.random.default_rng(3)
    inputs = random.integers(-128, 127, (40, 1, 8, 8, 1), np.int8)
    with Runner.auto(digits, runtime=runtime_name) as runner:
        expected = [runner.predict(one) for one in inputs]
        wrong = []

        def work() -> None:
            wrong.extend(
                i for i, one in enumerate(inputs) if not np.array_equal(runner.predict(one), expected[i])
            )

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []


def test_a_forked_child_opens_its_own(digits: Path, runtime_name: str) -> None:
    code = (
        "import os, sys, numpy as np\nfrom tflite_hal import Runner\n"
        "r = Runner.auto(sys.argv[1], runtime=sys.argv[2], threads=2)\nx = np.ones((1, 8, 8, 1), 'int8')\n"
        "a = r.predict(x)\npid = os.fork()\n"
        "if pid == 0:\n    same = np.array_equal(r.predict(x), a)\n"
        "    print(same, [e.kind for e in r.events], flush=True)\n    r.close()\n    sys.exit(0)\n"
        "print(os.waitpid(pid, 0)[1], np.array_equal(r.predict(x), a))\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", code, str(digits), runtime_name],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == "True ['fork']\n0 True\n", done.stderr


def test_benchmark_measures_and_reports(digits: Path, runtime_name: str) -> None:
    with Runner.auto(digits, runtime=runtime_name) as runner:
        result = runner.benchmark(runs=20, warmup=2)
        assert isinstance(result, BenchmarkResult)
        assert result.runs == 20
        assert 0 < result.min_ms <= result.p50_ms <= result.p90_ms <= result.p99_ms <= result.max_ms
        assert (result.delegate, result.runtime) == ("xnnpack", runtime_name)
        assert result.load_ms > 0
        assert json.loads(result.to_json())["model"] == "digits_int8.tflite"
        runner.warmup()


def test_without_child_processes_the_cpu_still_runs_and_says_so(digits: Path, monkeypatch) -> None:
    shutdown()
    monkeypatch.setenv("TFLITE_HAL_PYTHON", "/no/such/python")
    with (
        pytest.warns(TfliteHalWarning, match="without a trial in a child process"),
        Runner.auto(digits) as runner,
    ):
        assert runner.delegate == "xnnpack"
        assert runner.predict(np.zeros((1, 8, 8, 1), np.int8)).shape == (1, 10)
        assert [event.kind for event in runner.events] == ["isolation"]


def test_a_vendors_plugin_runs_in_its_worker(install, monkeypatch, digits: Path, runtime_name: str) -> None:
    monkeypatch.delitem(sys.modules, "tflite_hal_acme", raising=False)
    install("acme", EXAMPLE.read_text())
    array = np.random.default_rng(4).integers(-128, 127, (1, 8, 8, 1), np.int8)
    with Runner.auto(digits, runtime=runtime_name) as runner:
        assert runner.delegate == "xnnpack"
        acme = next(a for a in runner.selection.attempts if a.delegate == "acme")
        assert acme.outcome is Outcome.SLOWER  # the process boundary costs more than the model
        assert acme.latency_ms > runner.selection.winner.latency_ms
        assert acme.comparison.error == 0
    with (
        pytest.warns(TfliteHalWarning, match=r"acme on npu:0 is slower \(.* ms; prefer='order' uses it"),
        Runner.auto(digits, runtime=runtime_name, delegates=["acme"]) as runner,
    ):
        assert runner.delegate == "xnnpack"
    for arguments in ({"delegates": ["acme"]}, {"device": "npu"}, {"device": "npu:0"}):
        with Runner.auto(digits, runtime=runtime_name, prefer="order", **arguments) as runner:
            assert (runner.delegate, runner.device.id) == ("acme", "npu:0")
            expected = raw(runtime_name, digits, array, default_delegates=False)
            for _ in range(3):
                assert np.array_equal(runner.predict(array), expected)
    with Runner(digits, delegate="acme", options={"mode": "exact"}, runtime=runtime_name) as runner:
        assert "mode=exact" in str(runner.selection)
    assert "tflite_hal_acme" not in sys.modules


BROKEN_OPEN = EXAMPLE.read_text().replace(
    "        return InterpreterSession(model, runtime, default_delegates=False)", "        {}"
)


@pytest.mark.parametrize(
    ("body", "outcome", "words"),
    [
        ("raise RuntimeError('no firmware')", Outcome.FAILED, "no firmware"),
        ("import os; os.kill(os.getpid(), 11)", Outcome.CRASHED, "killed by SIGSEGV"),
        ("import os; os._exit(0)", Outcome.CRASHED, "without an answer"),
        ("import threading; threading.Event().wait()", Outcome.HUNG, "no answer within"),
    ],
)
def test_auto_falls_back_and_explicit_does_not(
    install, monkeypatch, digits: Path, body, outcome, words
) -> None:
    install("acme", BROKEN_OPEN.replace("{}", body))
    monkeypatch.setattr("tflite_hal.remote.session.LIMITS", {"open": 1.5, "run": 1.5})
    with pytest.warns(TfliteHalWarning, match=words), Runner.auto(digits, delegates=["acme"]) as runner:
        assert runner.delegate == "xnnpack"
        failed = runner.selection.attempts[0]
        assert (failed.delegate, failed.outcome) == ("acme", outcome)
        assert words in failed.reason
        assert runner.predict(np.zeros((1, 8, 8, 1), np.int8)).shape == (1, 10)
    with pytest.raises(DelegateError, match=words):
        Runner(digits, delegate="acme")


FAILS_AT_THE_THIRD_RUN = """
session = InterpreterSession(model, runtime, default_delegates=False)
prepare = session.prepare
class Failing:
    def __init__(self, call):
        self.call, self.left = call, 10
    def run(self, arrays):
        self.left -= 1
        if self.left < 0:
            raise RuntimeError("unplugged")
        return self.call.run(arrays)
session.prepare = lambda *arguments: Failing(prepare(*arguments))
return session
"""


def test_a_run_that_fails_raises_and_returns_nothing_old(install, digits: Path) -> None:
    session = indent(FAILS_AT_THE_THIRD_RUN, " " * 8).strip()
    install("acme", BROKEN_OPEN.replace("{}", session))
    with Runner(digits, delegate="acme") as runner:
        for _ in range(10):  # the trial had a call of its own
            runner.predict(np.zeros((1, 8, 8, 1), np.int8))
        with pytest.raises(DelegateError, match="unplugged"):
            runner.predict(np.zeros((1, 8, 8, 1), np.int8))


def test_runners_do_not_leak_descriptors(digits: Path, install) -> None:
    install("acme", EXAMPLE.read_text())

    def use() -> None:
        with Runner(digits, delegate="acme") as runner:
            runner.predict(np.zeros((1, 8, 8, 1), np.int8))
            runner.predict(np.zeros((1, 8, 8, 1), np.int8))
        with Runner.auto(digits) as runner:
            runner.predict(np.zeros((1, 8, 8, 1), np.int8))

    use()
    gc.collect()
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        use()
    gc.collect()
    assert len(list(Path("/proc/self/fd").iterdir())) <= before


def test_quiet_when_all_is_well(digits: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with Runner.auto(digits) as runner:
            runner.predict(np.zeros((1, 8, 8, 1), np.int8))
            assert runner.events == []


def test_many_shapes_do_not_pile_up(models: Path, install) -> None:
    install("acme", EXAMPLE.read_text())
    path = models / "pretrainedResnet.tflite"
    with Runner(path, delegate="acme") as remote, Runner(path, delegate="builtin") as local:
        for batch in [*range(1, 21), 3, 20, 1]:
            images = np.random.default_rng(batch).standard_normal((batch, 32, 32, 3)).astype(np.float32)
            assert np.array_equal(remote.predict(images), local.predict(images))
        assert len(remote._life.active._calls) == len(local._life.active._calls) == 16


def test_events_are_bounded(digits_float: Path) -> None:
    image = np.full((1, 8, 8, 1), 200, np.uint8)
    with Runner.auto(digits_float) as runner, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(1010):
            runner.predict(image)
        assert len(runner.events) == 1000


def test_an_interrupted_call_does_not_answer_the_next(install, digits: Path) -> None:
    install("acme", EXAMPLE.read_text())
    with Runner(digits, delegate="acme") as runner:
        runner.predict(np.zeros((1, 8, 8, 1), np.int8))
        channel = runner._life.active.opened.session._shared.worker._channel
        receive = channel.receive

        def interrupted(deadline):
            channel.receive = receive
            raise KeyboardInterrupt

        channel.receive = interrupted
        seven, zeros = np.full((1, 8, 8, 1), 7, np.int8), np.zeros((1, 8, 8, 1), np.int8)
        with pytest.raises(KeyboardInterrupt):
            runner.predict(seven)
        with Runner(digits) as cpu:
            np.testing.assert_array_equal(runner.predict(zeros), cpu.predict(zeros))


def test_a_broken_plugin_or_profile_is_an_event(install, digits: Path, tmp_path: Path, monkeypatch) -> None:
    install("bad", "raise ImportError('the SDK is missing')")
    profile = tmp_path / "mine.yaml"
    profile.write_text("schema: 1\nname: mine\n")
    profile.chmod(0o600)
    tmp_path.chmod(0o700)
    monkeypatch.setenv("TFLITE_HAL_PROFILE_PATH", str(profile))
    with pytest.warns(TfliteHalWarning) as caught, Runner.auto(digits) as runner:
        kinds = {event.kind: event.message for event in runner.events}
    assert "the SDK is missing" in kinds["plugin"]
    assert "mine.yaml" in kinds["profile"]
    assert len(caught) == 2
    with pytest.raises(ProfileError, match=r"no device profile 'mine'.*mine\.yaml"):
        Runner.auto(digits, profile="mine")
    monkeypatch.setenv("TFLITE_HAL_DISABLED_PLUGINS", "bad")
    monkeypatch.delenv("TFLITE_HAL_PROFILE_PATH")
    monkeypatch.setattr("tflite_hal.runner.choice._managers", [])
    with Runner.auto(digits) as runner:
        assert runner.events == []


def test_a_runner_dropped_without_close_leaves_no_worker(install, digits: Path) -> None:
    install("acme", EXAMPLE.read_text())
    runner = Runner(digits, delegate="acme")
    runner.predict(np.zeros((1, 8, 8, 1), np.int8))
    first = runner._life.active.opened.session._shared.worker
    del runner
    gc.collect()
    with Runner(digits, delegate="acme") as runner:
        assert runner._life.active.opened.session._shared.worker is not first
        assert not first.alive
    assert pool._pool == {}


def test_two_threads_open_run_and_close_on_one_device(install, digits: Path) -> None:
    install("acme", EXAMPLE.read_text())
    expected = Runner(digits, delegate="builtin").predict(np.ones((1, 8, 8, 1), np.int8))
    failures = []

    def work() -> None:
        for _ in range(10):
            with Runner(digits, delegate="acme") as runner:
                for _ in range(5):
                    if not np.array_equal(runner.predict(np.ones((1, 8, 8, 1), np.int8)), expected):
                        failures.append("wrong")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert pool._pool == {}


def test_a_worker_killed_while_others_wait_fails_them_all(install, digits: Path) -> None:
    install("acme", EXAMPLE.read_text())
    with Runner(digits, delegate="acme") as runner, Runner(digits, delegate="acme") as other:
        worker = runner._life.active.opened.session._shared.worker
        assert other._life.active.opened.session._shared.worker is worker
        os.kill(worker.pid, 9)
        for one in (runner, other):
            with pytest.raises(WorkerError, match="SIGKILL"):
                one.predict(np.zeros((1, 8, 8, 1), np.int8))
    with Runner(digits, delegate="acme") as runner:
        assert runner.predict(np.zeros((1, 8, 8, 1), np.int8)).shape == (1, 10)


@pytest.mark.parametrize("arguments", [{"delegates": ["edgetpu"]}, {"device": "tpu"}])
def test_falling_back_from_what_was_named_is_told(digits: Path, arguments) -> None:
    with pytest.warns(TfliteHalWarning, match="no such device"), Runner.auto(digits, **arguments) as runner:
        assert runner.device.kind == "cpu"
        (event,) = runner.events
        assert event.kind == "fallback"
        assert next(iter(arguments)) in event.message


def test_a_model_the_named_delegate_does_not_take_is_told(install, models: Path) -> None:
    install("acme", EXAMPLE.read_text())
    stateful = models / "keras_lstm_mnist_ptq.tflite"
    with (
        pytest.warns(TfliteHalWarning, match="keeps no state"),
        Runner.auto(stateful, device="npu") as runner,
    ):
        assert runner.device.kind == "cpu"
    with pytest.raises(DelegateError, match="keeps no state"):
        Runner(stateful, delegate="acme")


@pytest.mark.parametrize("own", ["True", '("npu", "cpu")'])
def test_a_vendors_delegate_that_may_runs_in_the_application(
    install, monkeypatch, digits: Path, own: str
) -> None:
    monkeypatch.delitem(sys.modules, "tflite_hal_acme", raising=False)
    install(
        "acme",
        EXAMPLE.read_text().replace("    api_version = 1", f"    api_version = 1\n    in_process = {own}"),
    )
    array = np.full((1, 8, 8, 1), 5, np.int8)
    with Runner(digits, delegate="acme") as runner, Runner(digits, delegate="builtin") as cpu:
        assert np.array_equal(runner.predict(array), cpu.predict(array))
        assert "tflite_hal_acme" in sys.modules
        assert runner._life.active.opened.session.boundary_ms is None
    monkeypatch.delitem(sys.modules, "tflite_hal_acme")


def test_a_vendors_delegate_that_may_on_other_devices_stays_in_a_worker(
    install, monkeypatch, digits: Path
) -> None:
    monkeypatch.delitem(sys.modules, "tflite_hal_acme", raising=False)
    text = EXAMPLE.read_text().replace(
        "    api_version = 1", '    api_version = 1\n    in_process = ("cpu",)'
    )
    install("acme", text)
    with Runner(digits, delegate="acme") as runner:
        assert runner.predict(np.zeros((1, 8, 8, 1), np.int8)).shape == (1, 10)
        assert runner.benchmark(runs=3).boundary_ms is not None
    assert "tflite_hal_acme" not in sys.modules


@pytest.mark.parametrize("isolate", [True, False])
def test_isolation_is_the_callers(install, monkeypatch, digits: Path, isolate: bool) -> None:
    monkeypatch.delitem(sys.modules, "tflite_hal_acme", raising=False)
    install("acme", EXAMPLE.read_text())
    for delegate in ("acme", "xnnpack"):
        with Runner(digits, delegate=delegate, isolate=isolate) as runner:
            assert runner.predict(np.zeros((1, 8, 8, 1), np.int8)).shape == (1, 10)
            result = runner.benchmark(runs=5)
            assert (result.boundary_ms is not None) == isolate
            assert ("process boundary" in str(result)) == isolate
    assert ("tflite_hal_acme" in sys.modules) != isolate
    monkeypatch.delitem(sys.modules, "tflite_hal_acme", raising=False)


def test_closing_while_others_predict_is_told_as_closed(digits: Path) -> None:
    runner = Runner(digits)
    ends: list[BaseException] = []

    def work() -> None:
        try:
            while True:
                runner.predict(np.zeros((1, 8, 8, 1), np.int8))
        except BaseException as error:
            ends.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    runner.close()
    for thread in threads:
        thread.join()
    assert {type(error) for error in ends} == {ClosedError}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"delegates": iter([1])}, "not a sequence of names"),
        ({"delegates": 3}, "not a sequence of names"),
        ({"exclude": "cpu"}, "is a string"),
        ({"prefer": "fast"}, "prefer='fast'"),
        ({"isolate": "yes"}, "isolate='yes'"),
        ({"fallback": True}, "fallback=True"),
        ({"recheck": -1}, "recheck=-1"),
        ({"timeout": 0}, "timeout=0"),
        ({"open_timeout": "1"}, "open_timeout='1'"),
        ({"check": Check(accept="wrong")}, "accept takes"),
        ({"check": Check(samples=[np.zeros((2, 2))])}, "shape"),
    ],
)
def test_odd_arguments_are_told(digits: Path, arguments, words: str) -> None:
    with pytest.raises(TfliteHalError, match=words):
        Runner.auto(digits, **arguments)


def test_the_callers_samples_are_compared_too(digits: Path) -> None:
    samples = [np.full((1, 8, 8, 1), n, np.int8) for n in (1, 2)]
    with Runner.auto(digits, check=Check(samples=samples, seeded=0, tolerance=0.5), prefer="order") as runner:
        assert runner.selection.winner.comparison.error is not None


def test_threads_without_effect_are_told(install, digits: Path) -> None:
    install("acme", EXAMPLE.read_text())
    with (
        pytest.warns(TfliteHalWarning, match="threads=2 has no effect on acme"),
        Runner.auto(digits, threads=2) as runner,
    ):
        assert runner.device.id == "cpu"
    with pytest.raises(DelegateError, match="threads=2 has no effect on acme"):
        Runner(digits, delegate="acme", threads=2)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_request_that_nobody_can_answer_sends_nobody_to_rest(digits: Path, monkeypatch) -> None:
    run = TensorCall.run

    def picky(self, arrays):
        if arrays[0].flat[0] == 9:
            raise DelegateError("not this one")
        return run(self, arrays)

    monkeypatch.setattr(TensorCall, "run", picky)
    with Runner.auto(digits, prefer="order") as runner:
        with pytest.raises(DelegateError, match="not this one"):
            runner.predict(np.full((1, 8, 8, 1), 9, np.int8))
        runner.predict(np.ones((1, 8, 8, 1), np.int8))
        assert runner.delegate == "xnnpack"
        assert runner.selection.winner.delegate == "xnnpack"


def test_a_device_that_is_not_here_is_told_with_those_that_are(digits: Path) -> None:
    with pytest.raises(DelegateError, match=r"asked for \(device='CPU'\); here: .*cpu"):
        Runner(digits, device="CPU")

"""An Edge TPU in use, by its plugin and a library that stands for libedgetpu: served, pulled out, back."""

import re
import warnings
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from edgetpu_standin import BOOTLOADER, RUNNING, Bus
from forms import compiled

from tflite_hal import DelegateError, Outcome, Runner, TfliteHalWarning, WorkerCrashedError, read_model
from tflite_hal.runtime import load_runtime
from tflite_hal.session import InterpreterSession
from tflite_hal.trial import seeded_inputs


@pytest.fixture
def pair(tmp_path: Path, digits: Path, edge_tpu: Bus) -> Path:
    """The plain model, beside it the compiled one, and a stick that runs it."""
    folder = tmp_path / "models"
    folder.mkdir()
    plain = folder / "m.tflite"
    plain.write_bytes(digits.read_bytes())
    (folder / "m_edgetpu.tflite").write_bytes(compiled(digits))
    edge_tpu.serve(plain)
    edge_tpu.plug("1-1")
    return plain


class Clock:
    """Time as devices that rest see it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("tflite_hal.runner.rest.time", clock)
    return clock


def answers_of(path: Path, inputs, runtime: str | None = None) -> list[np.ndarray]:
    """What the built-in kernels answer to each input."""
    session = InterpreterSession(read_model(path), load_runtime(runtime), default_delegates=False)
    call = session.prepare()
    return [call.run(one)[0] for one in inputs]


def told(runner: Runner) -> list[str]:
    return [event.kind for event in runner.events if event.kind not in ("variant", "setting")]


@pytest.mark.parametrize("name", ["mobilenet_v1_0.25_128_quant", "keras_lstm_mnist_ptq"])
@pytest.mark.parametrize("named", ["", "_edgetpu"])
def test_real_compiled_models_answer_as_their_plain_form(
    models: Path, edge_tpu: Bus, runtime_name: str, name: str, named: str
) -> None:
    edge_tpu.serve(models / f"{name}.tflite")
    edge_tpu.plug("1-1")
    with Runner(models / f"{name}{named}.tflite", delegate="edgetpu", runtime=runtime_name) as runner:
        inputs = [seeded_inputs(runner.inputs, seed) for seed in range(4)]
        right = answers_of(models / f"{name}.tflite", inputs, runtime_name)  # of a sequence, where stateful
        for given, expected in zip(inputs, right, strict=True):
            np.testing.assert_array_equal(runner.predict(given), expected)
        runner.reset()
        np.testing.assert_array_equal(runner.predict(inputs[0]), right[0])
        assert runner.selection.winner.coverage.taken == 1
    assert edge_tpu.opened == ["1-1"]


def test_the_first_open_loads_the_firmware_and_the_stick_stays_usb_0(edge_tpu: Bus, pair: Path) -> None:
    edge_tpu.plug("1-2", RUNNING)  # the library counts this one after the one without firmware
    for _ in range(2):
        for device, slot in (("usb:0", "1-1"), ("usb:1", "1-2")):
            with Runner(pair, device=device) as runner:
                assert runner.device.id == device
            assert edge_tpu.opened[-1] == slot
        identity = edge_tpu.tree / "sys/bus/usb/devices/1-1/idVendor"
        assert identity.read_text().strip() == RUNNING[:4]


@pytest.mark.parametrize(
    ("mode", "outcome", "reason"),
    [
        ("error", Outcome.FAILED, "Failed to execute request"),
        ("abort", Outcome.CRASHED, "killed by SIGABRT.*USB transfer error 5"),
        ("hang", Outcome.HUNG, "no answer within 1 s"),
    ],
)
@pytest.mark.filterwarnings("ignore:timeout= can't be enforced on builtin")
def test_no_request_is_lost_while_a_stick_is_out(
    edge_tpu: Bus, pair: Path, clock: Clock, mode: str, outcome: Outcome, reason: str
) -> None:
    edge_tpu.mode(mode)
    inputs = [seeded_inputs(read_model(pair).info.inputs, seed) for seed in range(12)]
    right = answers_of(pair, inputs)
    given = []
    with Runner.auto(pair, prefer="order", delegates=["edgetpu"], exclude=["xnnpack"], timeout=1.0) as runner:

        def run(number: int) -> None:
            given.extend(runner.predict(one) for one in inputs[len(given) : len(given) + number])

        run(3)
        assert runner.delegate == "edgetpu"
        edge_tpu.unplug("1-1")
        with pytest.warns(TfliteHalWarning):
            run(1)
        assert runner.delegate == "builtin"
        message = next(event.message for event in runner.events if event.kind == "fallback")
        assert re.search(f"edgetpu on usb:0 failed while running.*{reason}.*builtin on cpu answers", message)
        (attempt,) = [a for a in runner.selection.attempts if a.delegate == "edgetpu"]
        assert (attempt.outcome, attempt.variant) == (outcome, "m_edgetpu.tflite")
        run(2)
        assert told(runner) == ["fallback"], "it rests"

        clock.now += 0.6
        run(1)  # looked for, and not there
        assert told(runner) == ["fallback", "absence"]
        assert "edgetpu on usb:0 is not there: no such device on this machine" in runner.events[-1].message
        (attempt,) = [a for a in runner.selection.attempts if a.delegate == "edgetpu"]
        assert attempt.outcome is Outcome.UNAVAILABLE
        edge_tpu.plug("2-3", BOOTLOADER)  # another port, its firmware lost
        run(1)
        clock.now += 0.6
        run(1)
        assert told(runner) == ["fallback", "absence"], "it rests twice as long"

        clock.now += 0.6
        run(1)
        assert told(runner) == ["fallback", "absence", "recovery"]
        assert (runner.delegate, runner.device.id) == ("edgetpu", "usb:0")
        assert runner.device.properties["path"].endswith("/2-3")
        run(2)
        assert (runner.delegate, runner.selection.winner.delegate) == ("edgetpu", "edgetpu")
    assert edge_tpu.opened == ["1-1", "2-3"]
    for one, expected in zip(given, right, strict=True):
        np.testing.assert_array_equal(one, expected)


def test_absence_is_told_once_however_often_it_is_looked_for(edge_tpu: Bus, pair: Path, clock: Clock) -> None:
    with Runner.auto(pair, prefer="order", delegates=["edgetpu"], exclude=["xnnpack"]) as runner:
        inputs = seeded_inputs(runner.inputs)
        runner.predict(inputs)
        edge_tpu.unplug("1-1")
        with pytest.warns(TfliteHalWarning, match="failed while running"):
            runner.predict(inputs)
        for _ in range(5):
            clock.now += 1000
            runner.predict(inputs)
        assert told(runner) == ["fallback", "absence"]


def test_a_stick_that_is_back_and_fails_again_rests_longer(edge_tpu: Bus, pair: Path, clock: Clock) -> None:
    with (
        Runner.auto(pair, prefer="order", delegates=["edgetpu"], exclude=["xnnpack"]) as runner,
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore", TfliteHalWarning)
        inputs = seeded_inputs(runner.inputs)
        right = answers_of(pair, [inputs])[0]
        for _ in range(3):
            edge_tpu.unplug("1-1")
            np.testing.assert_array_equal(runner.predict(inputs), right)
            assert runner.delegate == "builtin"
            edge_tpu.plug("1-1")
            clock.now += 1000
            np.testing.assert_array_equal(runner.predict(inputs), right)
            assert runner.delegate == "edgetpu"
        pauses = [e.message.rpartition("for ")[2] for e in runner.events if e.kind == "fallback"]
        assert pauses == ["0.5 s at least", "1 s at least", "2 s at least"]


def test_an_explicit_choice_raises_until_it_is_back(edge_tpu: Bus, pair: Path, clock: Clock) -> None:
    edge_tpu.mode("abort")
    with Runner(pair, device="usb:0") as runner:
        inputs = seeded_inputs(runner.inputs)
        right = runner.predict(inputs)
        edge_tpu.unplug("1-1")
        with pytest.raises(WorkerCrashedError, match="USB transfer error 5"):
            runner.predict(inputs)
        clock.now += 0.6
        with pytest.raises(DelegateError, match="edgetpu on usb:0 is not there: no such device"):
            runner.predict(inputs)
        edge_tpu.plug("1-1")
        clock.now += 1000
        np.testing.assert_array_equal(runner.predict(inputs), right)
        assert told(runner) == ["failure", "absence", "recovery"]


def test_another_process_has_the_stick(edge_tpu: Bus, pair: Path) -> None:
    import fcntl

    with (edge_tpu.tree / "owner-1-1").open("w") as owner:
        fcntl.flock(owner, fcntl.LOCK_EX)
        with pytest.raises(DelegateError, match=r"USB error -6.*no other process uses the Edge TPU"):
            Runner(pair, device="usb:0")
    with Runner(pair, device="usb:0") as runner:  # and that is not remembered
        assert runner.delegate == "edgetpu"


# ---- several ----


@pytest.fixture
def two(edge_tpu: Bus, pair: Path) -> Bus:
    edge_tpu.plug("1-2")
    return edge_tpu


@pytest.mark.parametrize("prefer", ["order", "latency"])
def test_runners_spread_over_equal_sticks(two: Bus, pair: Path, prefer: str) -> None:
    def open_one() -> Runner:
        return Runner.auto(pair, delegates=["edgetpu"], exclude=["xnnpack", "builtin"], prefer=prefer)

    with ExitStack() as stack:
        runners = [stack.enter_context(open_one()) for _ in range(4)]
        assert sorted(runner.device.id for runner in runners[:2]) == ["usb:0", "usb:1"]
        assert sorted(runner.device.id for runner in runners) == ["usb:0", "usb:0", "usb:1", "usb:1"]
        loads = {a.device: a.load for a in runners[1].selection.attempts if a.delegate == "edgetpu"}
        assert loads == {runners[0].device.id: 1, runners[1].device.id: 0}
        inputs = seeded_inputs(runners[0].inputs)
        right = answers_of(pair, [inputs])[0]
        for runner in runners:
            np.testing.assert_array_equal(runner.predict(inputs), right)
        workers = {runner.device.id: set() for runner in runners}
        for runner in runners:
            workers[runner.device.id].add(worker_of(runner))
        assert all(len(pids) == 1 for pids in workers.values()), "one process has a device"
        assert workers["usb:0"] != workers["usb:1"]
        free = runners[0].device.id
        runners[0].close()
        assert stack.enter_context(open_one()).device.id == free


def test_an_explicit_kind_spreads_and_an_id_pins(two: Bus, pair: Path) -> None:
    with Runner(pair, device="tpu") as first, Runner(pair, device="tpu") as second:
        assert [first.device.id, second.device.id] == ["usb:0", "usb:1"]
        with Runner(pair, device="usb:1") as third, Runner(pair, device="usb:1") as fourth:
            assert {third.device.id, fourth.device.id} == {"usb:1"}
            assert "shared with 2 open sessions" in str(fourth.selection)


def test_one_of_two_that_is_pulled_out_is_replaced_by_the_other(two: Bus, pair: Path, clock: Clock) -> None:
    """The one that stays is ``usb:0`` to a probe then, and is not taken for the one that is gone."""
    with Runner.auto(pair, prefer="order", delegates=["edgetpu"], exclude=["xnnpack"]) as runner:
        inputs = seeded_inputs(runner.inputs)
        right = runner.predict(inputs)
        assert runner.device.id == "usb:0"
        two.unplug("1-1")
        with pytest.warns(TfliteHalWarning, match="edgetpu on usb:0 failed while running"):
            np.testing.assert_array_equal(runner.predict(inputs), right)
        assert (runner.device.id, two.opened[-1]) == ("usb:1", "1-2")
        clock.now += 1000
        np.testing.assert_array_equal(runner.predict(inputs), right)
        assert (runner.device.id, told(runner)) == ("usb:1", ["fallback", "absence"])
        with Runner(pair, device="usb:0") as other:  # the same stick, in the process that has it
            np.testing.assert_array_equal(other.predict(inputs), right)
            assert worker_of(other) == worker_of(runner)
        two.plug("1-1")
        clock.now += 1000
        np.testing.assert_array_equal(runner.predict(inputs), right)
        assert (runner.device.id, two.opened[-1]) == ("usb:0", "1-1")


def test_the_one_that_stays_is_found_again_under_its_new_number(two: Bus, pair: Path, clock: Clock) -> None:
    two.unplug("1-1")
    two.plug("1-3")
    with Runner(pair, device="usb:1") as runner:
        inputs = seeded_inputs(runner.inputs)
        right = runner.predict(inputs)
        two.unplug("1-2")
        two.unplug("1-3")
        with pytest.raises(DelegateError, match="Failed to execute request"):
            runner.predict(inputs)
        two.plug("1-3")
        clock.now += 1000
        np.testing.assert_array_equal(runner.predict(inputs), right)
        assert (runner.device.id, set(two.opened)) == ("usb:1", {"1-3"})


def worker_of(runner: Runner) -> int:
    return runner._life.active.opened.session._running().pid

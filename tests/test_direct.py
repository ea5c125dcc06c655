"""The shortest way of ``predict``: the same answers and errors as the usual way, whatever is given."""

import os
import signal
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tflite_hal import ClosedError, Runner, TfliteHalError


def image(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-128, 128, (1, 8, 8, 1)).astype(np.int8)


@pytest.fixture
def runner(digits: Path, runtime_name: str):
    with Runner(digits, runtime=runtime_name) as opened:
        opened.predict(image())
        assert opened._life.direct is not None
        yield opened


def usual(runner: Runner, value):
    """Predict without the shortest way; returns the answer, or the error's type and text."""
    kept, runner._life.direct = runner._life.direct, None
    try:
        return runner.predict(value)
    except TfliteHalError as error:
        return type(error), str(error)
    finally:
        runner._life.direct = kept


def test_answers_are_the_same_and_the_callers_own(runner: Runner) -> None:
    answers = [runner.predict(image(seed)) for seed in range(4)]
    for seed, answer in enumerate(answers):
        assert np.array_equal(answer, usual(runner, image(seed)))
        assert answer.flags.owndata and answer.flags.writeable
    assert len({answer.tobytes() for answer in answers}) > 1


def test_it_is_taken(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner._life, "run", lambda *given: pytest.fail("the usual way"))
    runner.predict(image())


SHAPES = st.sampled_from([(1, 8, 8, 1), (8, 8, 1), (8, 8), (2, 8, 8, 1), (1, 1), ()])
DTYPES = st.sampled_from([np.int8, np.uint8, np.int16, np.float32, np.float64, np.dtype(">i2"), bool])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_whatever_is_given_it_comes_to_the_same(runner: Runner, data) -> None:
    value = data.draw(hnp.arrays(data.draw(DTYPES), data.draw(SHAPES)))
    value = data.draw(st.sampled_from([value, value.tolist(), value[..., ::-1] if value.ndim else value]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("warnings.warn", lambda *arguments, **named: None)
        expected = usual(runner, value)
        try:
            found = runner.predict(value)
        except TfliteHalError as error:
            assert (type(error), str(error)) == expected
        else:
            assert found.dtype == expected.dtype
            assert np.array_equal(found, expected)


def test_subclasses_and_byte_orders_are_looked_at(runner: Runner) -> None:
    with pytest.raises(TfliteHalError, match="mask"):
        runner.predict(np.ma.masked_equal(image(), image()[0, 0, 0, 0]))
    swapped = image().astype(">i2")
    assert np.array_equal(runner.predict(swapped), usual(runner, image()))


def test_two_shapes_take_turns(models: Path, runtime_name: str) -> None:
    random = np.random.default_rng(0)
    one, three = (random.random((n, 32, 32, 3), np.float32) for n in (1, 3))
    with Runner(models / "pretrainedResnet.tflite", runtime=runtime_name) as runner:
        first, second = runner.predict(one), runner.predict(three)
        for _ in range(3):
            assert np.array_equal(runner.predict(one), first)
            assert np.array_equal(runner.predict(three), second)
            assert np.array_equal(runner.predict(three), second)


def test_a_closed_runner_says_so(digits: Path) -> None:
    runner = Runner(digits)
    runner.predict(image())
    runner.close()
    with pytest.raises(ClosedError):
        runner.predict(image())


def test_what_has_to_be_looked_after_takes_the_usual_way(digits: Path, models: Path) -> None:
    with Runner(digits, recheck=2) as runner:
        runner.predict(image())
        assert runner._life.direct is None
    with Runner(digits, isolate=True) as runner:
        runner.predict(image())
        assert runner._life.direct is None
    with Runner(models / "keras_lstm_mnist_ptq.tflite") as runner:
        runner.predict([np.zeros(spec.static_shape, spec.dtype) for spec in runner.inputs])
        assert runner._life.direct is None


def test_a_run_that_fails_is_told_as_ever(runner: Runner) -> None:
    """A stand-in, because nothing makes the runtimes' own kernels fail and then run."""
    session = runner._life.active.opened.session

    class Failing:
        def __init__(self, real) -> None:
            self.real = real

        def Invoke(self) -> None:
            raise RuntimeError("Node number 3 failed to invoke.")

        def __getattr__(self, name):
            return getattr(self.real, name)

    # No name holds one of the two: the public methods refuse while another reference is there.
    session._interpreter._interpreter = Failing(session._interpreter._interpreter)
    with pytest.raises(TfliteHalError, match="Node number 3 failed to invoke"):
        runner.predict(image())
    session._interpreter._interpreter = vars(session._interpreter._interpreter).pop("real")
    assert np.array_equal(runner.predict(image()), usual(runner, image()))


def test_threads_share_it(runner: Runner) -> None:
    expected = {seed: usual(runner, image(seed)).tobytes() for seed in range(8)}
    wrong: list[int] = []

    def work(seed: int) -> None:
        wrong.extend(seed for _ in range(300) if runner.predict(image(seed)).tobytes() != expected[seed])

    threads = [threading.Thread(target=work, args=(seed,)) for seed in expected]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_opens_its_own(runner: Runner) -> None:
    expected = runner.predict(image(1))
    with runner._life._turn.lock:  # as another thread might at that moment
        child = os.fork()
        if child == 0:
            same = all(np.array_equal(runner.predict(image(1)), expected) for _ in range(3))
            os._exit(0 if same else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs POSIX signals")
@pytest.mark.parametrize("way", ["direct", "usual"])
def test_a_signal_handler_gets_no_turn_inside_of_a_run(runner: Runner, way: str) -> None:
    """Its inputs would be in the tensors when the interrupted call reads its outputs."""
    expected, refused = {s: usual(runner, image(s)).tobytes() for s in (0, 1)}, []

    def handler(*_: object) -> None:
        try:
            assert runner.predict(image(1)).tobytes() == expected[1]
        except TfliteHalError as error:
            refused.append(str(error))

    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    try:
        for _ in range(3000):
            if way == "usual":
                runner._life.direct = None
            assert runner.predict(image(0)).tobytes() == expected[0]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert all("inside of a predict of this runner" in reason for reason in refused)


def test_it_is_made_once_per_call(runner: Runner) -> None:
    direct = runner._life.direct
    runner.predict(image().astype(np.int16))
    runner.predict(image().tolist())
    assert runner._life.direct is direct

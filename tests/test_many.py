"""Many inputs, many threads, coroutines: right answers in order, nothing held that nobody asked for."""

import asyncio
import gc
import os
import subprocess
import sys
import threading
import weakref
from itertools import count, islice, repeat
from pathlib import Path

import numpy as np
import psutil
import pytest

from tflite_hal import ClosedError, DelegateError, InputError, Runner, TfliteHalError
from tflite_hal.runner.pool import Pool

#: On the CPU, in the application: answers as the built-in kernels do until a file says otherwise.
PLUGIN = """
import os
from pathlib import Path

from tflite_hal import Configuration, Delegate, DelegateError, Device, InterpreterSession, Probe, hookimpl

def is_told_to(what):
    return (Path(os.environ.get("FLAKY", "/no/such/folder")) / what).exists()

class FlakyCall:
    def __init__(self, call):
        self.call = call

    def run(self, arrays):
        if is_told_to("fail"):
            raise DelegateError("flaky has failed")
        return self.call.run(arrays)

class FlakyDelegate(Delegate):
    name = "flaky"
    api_version = 1
    in_process = ("cpu",)

    def probe(self, host):
        return Probe((Device("cpu", "cpu"),))

    def configurations(self, model, device, profile):
        return [Configuration(threads=1)]

    def open(self, model, device, configuration, runtime):
        if is_told_to("refuse"):
            raise DelegateError("flaky has no memory")
        session = InterpreterSession(model, runtime, threads=1, default_delegates=False)
        prepare = session.prepare
        session.prepare = lambda *arguments: FlakyCall(prepare(*arguments))
        return session

@hookimpl
def tflite_hal_register_delegates():
    return [FlakyDelegate]
"""


@pytest.fixture(autouse=True)
def _two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever this machine has."""
    monkeypatch.setattr("tflite_hal.runner.pool.usable_cores", lambda: 2)
    monkeypatch.setattr("tflite_hal.runner.many.usable_cores", lambda: 2)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(3).integers(-128, 127, (64, 1, 8, 8, 1), np.int8)


@pytest.fixture
def runner(digits: Path, runtime_name: str):
    with Runner(digits, runtime=runtime_name) as opened:
        yield opened


@pytest.fixture
def right(runner: Runner, images) -> list[np.ndarray]:
    return [runner.predict(image) for image in images]


@pytest.fixture
def flaky(install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    install("flaky", PLUGIN)
    monkeypatch.setenv("FLAKY", str(tmp_path))
    return tmp_path


def same(answers, expected) -> bool:
    answers = list(answers)
    return len(answers) == len(expected) and all(map(np.array_equal, answers, expected))


def own_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("tflite-hal-many")]


class Counted:
    """An endless iterable that counts what was drawn from it."""

    def __init__(self, images) -> None:
        self.images, self.drawn = images, 0

    def __iter__(self):
        for number in count():
            self.drawn += 1
            yield self.images[number % len(self.images)]


# ---- predict_many ----


@pytest.mark.parametrize("workers", [1, 2, 5, "auto"])
def test_answers_come_in_order(workers, runner: Runner, images, right) -> None:
    for _ in range(5):
        assert same(runner.predict_many(images, workers=workers), right)
    assert own_threads() == []
    assert runner.events == []


def test_arguments_are_those_of_predict(runner: Runner, images) -> None:
    expected = [runner.predict(image, dequantize=True) for image in images]
    assert same(runner.predict_many(images, workers=2, dequantize=True), expected)
    real = (images.astype(np.float64) + 128) / 256
    assert same(runner.predict_many(real, workers=2), [runner.predict(one) for one in real])
    with pytest.raises(InputError, match=r"item 0: .*no signature 'x'"):
        next(runner.predict_many(images, workers=2, signature="x"))


@pytest.mark.parametrize("isolate", [True, False])
def test_sessions_in_a_worker_answer_one_after_the_other(isolate, digits: Path, images) -> None:
    with Runner(digits, delegate="builtin", isolate=isolate) as runner:
        expected = [runner.predict(image) for image in images]
        for workers in (1, 2, "auto"):
            assert same(runner.predict_many(images, workers=workers), expected)
        assert (runner._life._pool is None) == isolate


def test_one_thread_each_where_the_session_in_use_has_several(models: Path, runtime_name: str) -> None:
    path = models / "vww_96_int8.tflite"
    with Runner.auto(path, delegates=["xnnpack"], prefer="order", runtime=runtime_name) as runner:
        if runner._life.active.opened.candidate.configuration.threads == 1:
            pytest.skip("one core here: XNNPACK has one thread anyway")
        pictures = np.random.default_rng(0).integers(-128, 127, (6, 1, 96, 96, 3), np.int8)
        expected = [runner.predict(one) for one in pictures]
        assert runner._life._pool is None
        assert same(runner.predict_many(pictures, workers=2), expected)
        pool = runner._life._pool
        assert not pool.alike
        assert pool.candidate.configuration.threads == 1
        assert 1 <= len(pool._idle) <= 2
        assert same(runner.predict_many(pictures), expected)
    with Runner(path, threads=2, runtime=runtime_name) as runner:  # as was asked for
        assert same(runner.predict_many(pictures, workers=2), expected)
        assert runner._life._pool is None


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_the_iterable_is_drawn_on_as_answers_are_taken(workers: int, runner: Runner, images, right) -> None:
    given = Counted(images)
    with runner.predict_many(given, workers=workers) as answers:
        assert given.drawn == 0
        for taken, answer in enumerate(islice(answers, 200), 1):
            assert np.array_equal(answer, right[(taken - 1) % len(right)])
            assert taken <= given.drawn <= taken + 2 * workers
    assert own_threads() == []


def test_an_answer_that_is_there_waits_for_no_further_input(runner: Runner, images, right) -> None:
    """A camera gives one picture a second: its answer must not wait for two more."""
    answers = None

    def camera():
        yield images[0]
        while answers._held[0].done.locked():  # the next picture takes longer than the answer
            threading.Event().wait(0.001)
        yield images[1]
        pytest.fail("a third was drawn")

    answers = runner.predict_many(camera(), workers=2)
    assert np.array_equal(next(answers), right[0])
    answers.close()


def test_two_per_worker_are_held_and_no_more(runner: Runner) -> None:
    held: list[weakref.ref] = []

    class Watched(np.ndarray):
        pass

    def given():
        for _ in range(100):
            image = np.zeros((1, 8, 8, 1), np.int8).view(Watched)
            held.append(weakref.ref(image))
            yield image
            del image

    most = 0
    for _ in runner.predict_many(given(), workers=2):
        most = max(most, sum(one() is not None for one in held))
    assert len(held) == 100
    assert most <= 4 + 1  # and the one that is being drawn


class OwnError(Exception):
    pass


@pytest.mark.parametrize("workers", [1, 2, "auto"])
def test_an_error_of_the_iterable_comes_at_its_place(workers, runner: Runner, images, right) -> None:
    def given():
        yield from images[:7]
        raise OwnError("no more pictures")

    answers, got = runner.predict_many(given(), workers=workers), []
    with pytest.raises(OwnError, match="no more pictures"):
        for answer in answers:
            got.append(answer)
    assert same(got, right[:7])
    assert list(answers) == []
    assert own_threads() == []


@pytest.mark.parametrize("workers", [1, 2, "auto"])
@pytest.mark.parametrize("place", [0, 9])
def test_an_error_names_its_input(workers, place: int, runner: Runner, images, right) -> None:
    given = Counted([*images[:place], np.zeros((3, 3), np.int8), *images])
    answers, got = runner.predict_many(given, workers=workers), []
    with pytest.raises(InputError, match=f"^item {place}: .*shape") as raised:
        for answer in answers:
            got.append(answer)
    assert raised.value.item == place
    assert isinstance(raised.value.__cause__, InputError)
    assert same(got, right[:place])
    assert given.drawn <= place + 4 + 1
    assert own_threads() == []
    assert next(answers, None) is None
    assert np.array_equal(runner.predict(images[0]), right[0])


def test_an_engine_that_fails_is_told_with_the_input(flaky: Path, digits: Path, images) -> None:
    def given():
        yield from images[:20]
        (flaky / "fail").touch()
        yield from images

    with Runner(digits, delegate="flaky") as runner:
        answers = runner.predict_many(given(), workers=2)
        got = []
        with pytest.raises(DelegateError, match=r"item \d+: flaky has failed") as raised:
            for answer in answers:
                got.append(answer)
        assert raised.value.item == len(got)
        assert 16 <= len(got) <= 20
        assert own_threads() == []
        (flaky / "fail").unlink()
        assert len(list(runner.predict_many(images, workers=2))) == 64


def test_closed_early_it_ends_its_threads(runner: Runner, images) -> None:
    given = Counted(images)
    answers = runner.predict_many(given, workers=3)
    assert own_threads() == []  # before the first is asked for
    list(islice(answers, 10))
    assert 1 <= len(own_threads()) <= 3
    answers.close()
    assert own_threads() == []
    drawn = given.drawn
    assert list(answers) == []
    assert given.drawn == drawn
    answers.close()


def test_dropped_it_ends_its_threads_too(runner: Runner, images) -> None:
    answers = runner.predict_many(Counted(images), workers=2)
    next(answers)
    running = [one for one in threading.enumerate() if one.name.startswith("tflite-hal-many")]
    assert running
    del answers
    gc.collect()
    for thread in running:
        thread.join(10)
        assert not thread.is_alive()


def test_a_runner_that_is_dropped_is_freed_at_once(digits: Path, images) -> None:
    runner = Runner(digits)
    runner.predict(images[0])
    list(runner.predict_many(images, workers=2))
    life = weakref.ref(runner._life)
    gc.disable()
    try:
        del runner
        assert life() is None
    finally:
        gc.enable()


def test_a_runner_that_is_closed_meanwhile_says_so(digits: Path, images) -> None:
    with Runner(digits) as runner:
        answers = runner.predict_many(Counted(images), workers=2)
        next(answers)
    with pytest.raises(ClosedError, match=r"item \d+: the runner of digits_int8.tflite is closed"):
        for _ in range(10):
            next(answers)
    assert own_threads() == []
    with pytest.raises(ClosedError):
        runner.predict_many(images)


def test_what_makes_no_sense_is_refused_at_once(runner: Runner, models: Path, images) -> None:
    for workers in (0, -1, True, 1.5, "all", None, 100_000):
        with pytest.raises(InputError, match=r"workers=.* is not 'auto' or an integer from 1 to 1024"):
            runner.predict_many(images, workers=workers)
    with pytest.raises(InputError, match="int is no iterable of inputs"):
        runner.predict_many(3)
    with (
        Runner(models / "keras_lstm_mnist_ptq.tflite") as stateful,
        pytest.raises(InputError, match="is stateful"),
    ):
        stateful.predict_many([])


def test_nothing_gives_nothing(runner: Runner) -> None:
    assert list(runner.predict_many([])) == []
    assert list(runner.predict_many([], workers=2)) == []


def test_compared_answers_take_the_usual_way(digits: Path, images, right) -> None:
    with Runner(digits, recheck=3) as runner:
        assert same(runner.predict_many(images, workers=2), right)
        assert runner._life._pool is None
        assert runner._life.active._recheck._count == 64


def test_ten_thousand_answers_need_no_more_memory(runner: Runner, images) -> None:
    def used(number: int) -> int:
        for _ in runner.predict_many(repeat(images[0], number), workers=2):
            pass
        gc.collect()
        return psutil.Process().memory_info().rss

    before = used(1000)
    assert used(10_000) - before < 2 << 20


# ---- threads ----


def in_threads(number: int, work) -> None:
    """Run ``work(n)`` in threads that begin together; raises what one of them raised."""
    barrier, errors = threading.Barrier(number), []

    def run(which: int) -> None:
        barrier.wait()
        try:
            work(which)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(which,)) for which in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


@pytest.mark.parametrize("real", [False, True], ids=["as it is", "converted"])
def test_eight_threads_get_right_answers(real: bool, runner: Runner, images) -> None:
    given = (images.astype(np.float64) + 128) / 256 if real else images
    expected = [runner.predict(one).tobytes() for one in given]
    wrong: list[int] = []

    def work(thread: int) -> None:
        for number in range(500):
            place = (number * 7 + thread) % len(given)
            if runner.predict(given[place]).tobytes() != expected[place]:
                wrong.append(number)

    in_threads(8, work)
    assert wrong == []
    assert runner.events == []
    assert len(runner._life._pool._idle) <= 2


def busy(runner: Runner):
    """Have another thread be in the middle of a call for as long as the block lasts."""

    class Held:
        def __enter__(self):
            self.entered, self.leave = threading.Event(), threading.Event()
            self.thread = threading.Thread(target=self.hold)
            self.thread.start()
            self.entered.wait()

        def hold(self):
            with runner._life._turn.lock:
                self.entered.set()
                self.leave.wait()

        def __exit__(self, *exception):
            self.leave.set()
            self.thread.join()

    return Held()


def test_a_thread_waits_for_no_other(runner: Runner, images, right) -> None:
    with busy(runner):
        assert same([runner.predict(image) for image in images], right)
        assert np.array_equal(runner.predict(images[0].astype(np.int64)), right[0])
        assert len(runner._life._pool._idle) == 1


def test_more_threads_than_sessions_wait_for_one(runner: Runner, images, right) -> None:
    with busy(runner):
        in_threads(6, lambda which: [runner.predict(images[which]) for _ in range(50)])
        assert 1 <= len(runner._life._pool._idle) <= 2


def test_several_inputs_and_shapes_are_spread_too(models: Path) -> None:
    random = np.random.default_rng(0)
    given = [random.random((n, 32, 32, 3), np.float32) for n in (1, 3, 2)]
    with Runner(models / "pretrainedResnet.tflite", threads=1) as runner:
        expected = [runner.predict(one) for one in given]
        with busy(runner):
            for _ in range(3):
                assert same([runner.predict(one) for one in given], expected)


def test_on_one_core_there_is_one_session(digits: Path, images, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tflite_hal.runner.pool.usable_cores", lambda: 1)
    with Runner(digits) as runner:
        expected = [runner.predict(image) for image in images]
        in_threads(4, lambda which: [runner.predict(images[which]) for _ in range(100)])
        assert same(runner.predict_many(images, workers=2), expected)
        assert runner._life._pool._idle == []


def test_one_fallback_for_all_threads(flaky: Path, digits: Path, runtime_name: str, images, right) -> None:
    with Runner.auto(
        digits, delegates=["flaky"], exclude=["xnnpack"], prefer="order", runtime=runtime_name
    ) as runner:
        assert runner.delegate == "flaky"
        expected = [runner.predict(image) for image in images]
        with busy(runner):
            runner.predict(images[0])  # so that there is a further session
        pool = runner._life._pool
        failures: list[int] = []

        def work(thread: int) -> None:
            for number in range(100):
                if thread == 0 and number == 30:
                    (flaky / "fail").touch()
                if not np.array_equal(runner.predict(images[number % 64]), expected[number % 64]):
                    failures.append(number)

        with pytest.warns(UserWarning, match="flaky has failed; builtin on cpu answers"):
            in_threads(4, work)
        assert failures == []
        assert runner.delegate == "builtin"
        kinds = [event.kind for event in runner.events]
        assert kinds.count("fallback") == 1
        assert runner._life._pool is not pool
        assert pool._idle == []
        assert pool.run(None, [images[0]]) is None  # what still has it gets nothing


def test_a_further_session_that_fails_costs_no_answer(flaky: Path, digits: Path, images) -> None:
    with Runner(digits, delegate="flaky") as runner:
        expected = runner.predict(images[0])
        pool = runner._life._pool
        (flaky / "refuse").touch()
        assert pool.run(None, [images[0]]) is None
        assert pool.run(None, [images[0]]) is None
        assert np.array_equal(runner.predict(images[0]), expected)
        told = [(event.kind, event.message) for event in runner.events]
        assert told == [
            ("failure", "a further session of flaky on cpu could not be opened: flaky has no memory")
        ]
        in_threads(4, lambda which: [runner.predict(images[which]) for _ in range(50)])
    with pytest.raises(TfliteHalError, match="flaky has no memory"):
        Runner(digits, delegate="flaky")
    (flaky / "refuse").unlink()
    with Runner(digits, delegate="flaky") as runner:
        expected = runner.predict(images[0])
        pool = runner._life._pool
        assert np.array_equal(pool.run(None, [images[0]])[0], expected)
        (flaky / "fail").touch()
        assert pool.run(None, [images[0]]) is None
        assert pool._idle == []
        assert "failed while running: flaky has failed" in runner.events[-1].message
        (flaky / "fail").unlink()
        assert np.array_equal(pool.run(None, [images[0]])[0], expected)


def test_closing_waits_for_what_runs_and_frees_all(digits: Path, images) -> None:
    for _ in range(20):
        runner = Runner(digits)
        runner.predict(images[0])
        started = threading.Semaphore(0)

        def work(runner=runner, started=started) -> None:
            with pytest.raises(ClosedError):
                for number in count():
                    runner.predict(images[number % 64])
                    if number == 5:
                        started.release()

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for _ in threads:
            started.acquire()
        pool: Pool = runner._life._pool
        runner.close()
        for thread in threads:
            thread.join(20)
            assert not thread.is_alive()
        assert pool._idle == []


def test_sessions_share_the_pages_of_the_file(models: Path) -> None:
    path = models / "pretrainedResnet.tflite"
    with Runner(path, threads=1) as runner:
        image = np.zeros(runner.inputs[0].static_shape, np.float32)
        runner.predict(image)
        with busy(runner):
            runner.predict(image)
        mapped = [
            one for one in psutil.Process().memory_maps(grouped=False) if one.path == str(path.resolve())
        ]
        assert len(mapped) == 2
        assert all(one.private_dirty == 0 for one in mapped)


FORKED = """
import os, sys, threading, numpy as np
from tflite_hal import ClosedError, Runner
images = np.random.default_rng(3).integers(-128, 127, (64, 1, 8, 8, 1), np.int8)
runner = Runner(sys.argv[1], runtime=sys.argv[2])
expected = [runner.predict(image) for image in images]
answers = runner.predict_many(images, workers=2)
next(answers)
assert len(list(runner.predict_many(images, workers=2))) == 64
slot = runner._life._pool._taken()  # as another thread might have it
lock = runner._life._turn.lock.__enter__()
pid = os.fork()
if pid == 0:
    try:
        next(answers)
    except ClosedError as error:
        print(error, flush=True)
    given = runner.predict_many(images, workers=2)
    print(all(map(np.array_equal, given, expected)), flush=True)
    threads = [threading.Thread(target=runner.predict, args=(images[0],)) for _ in range(4)]
    [thread.start() for thread in threads], [thread.join() for thread in threads]
    runner.close()
    print(len(threading.enumerate()), flush=True)
    sys.exit(0)
status = os.waitpid(pid, 0)[1]
print(status, len(list(answers)), flush=True)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_has_sessions_of_its_own(digits: Path, runtime_name: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKED, str(digits), runtime_name],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
            "TFLITE_HAL_CACHE_DIR": str(tmp_path / "c"),
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines() == [
        "predict_many() was begun before the process was forked (to fix it: call it again)",
        "True",
        "1",
        "0 63",
    ]


# ---- coroutines ----


def test_many_coroutines_at_once(runner: Runner, images, right) -> None:
    async def main() -> list[np.ndarray]:
        return await asyncio.gather(*(runner.apredict(image) for image in images))

    for _ in range(3):  # each with a loop of its own
        assert same(asyncio.run(main()), right)


def test_the_loop_goes_on_meanwhile(runner: Runner, images, right) -> None:
    async def main() -> None:
        with busy(runner):
            runner._life._pool._taken(), runner._life._pool._taken()  # no session is free
            waiting = asyncio.ensure_future(runner.apredict(images[0]))
            for _ in range(100):
                await asyncio.sleep(0)
            assert not waiting.done()
            for _ in range(2):
                runner._life._pool._give_back(None)
        assert np.array_equal(await waiting, right[0])

    asyncio.run(main())


def test_a_cancelled_call_that_has_not_begun_never_does(
    runner: Runner, images, right, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[int] = []
    predict, gate = runner.predict, threading.Event()

    def slow(number: int):
        begun.append(number)
        gate.wait()
        return predict(images[number])

    async def main() -> None:
        monkeypatch.setattr(runner, "predict", slow)
        calls = [asyncio.ensure_future(runner.apredict(number)) for number in range(6)]
        while len(begun) < 2:
            await asyncio.sleep(0.001)
        for number in (0, 5):  # one that runs, and one that waits
            calls[number].cancel()
        await asyncio.sleep(0)
        gate.set()
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert [isinstance(one, asyncio.CancelledError) for one in answers] == [True, *[False] * 4, True]
        assert same(answers[1:5], right[1:5])

    asyncio.run(main())
    assert sorted(begun) == [0, 1, 2, 3, 4]


def test_errors_reach_the_coroutine(runner: Runner, images, right) -> None:
    async def main() -> None:
        with pytest.raises(InputError, match="shape"):
            await runner.apredict(np.zeros((2, 2), np.int8))
        real = await runner.apredict(images[0], dequantize=True)
        assert real.dtype == np.float32
        out = np.empty_like(right[0])
        assert await runner.apredict(images[0], out=out) is out
        assert np.array_equal(out, right[0])
        waiting = [asyncio.ensure_future(runner.apredict(image)) for image in images]
        await asyncio.sleep(0)
        runner.close()
        for answer in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(answer, (np.ndarray, ClosedError))
        with pytest.raises(ClosedError):
            await runner.apredict(images[0])

    asyncio.run(main())

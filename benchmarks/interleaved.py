"""Ratios of medians, A and B interleaved in one process: absolute times on a shared machine say little.

python benchmarks/interleaved.py runtime MODEL...    raw Interpreter as it comes / Runner.auto
python benchmarks/interleaved.py predict MODEL...    predict / hand-written set_tensor, invoke, get_tensor
python benchmarks/interleaved.py threads MODEL...    one thread / two threads
python benchmarks/interleaved.py worker MODEL...     what a call through a worker costs more, in µs
python benchmarks/interleaved.py concurrent MODEL... two one-thread sessions in two threads / one
python benchmarks/interleaved.py many MODEL...       predict_many with two workers / a loop over predict
python benchmarks/interleaved.py auto MODEL...       the best single engine by hand / Runner.auto
"""

import argparse
import statistics
import threading
import time
from collections.abc import Callable
from itertools import repeat
from pathlib import Path

from tflite_hal_openvino import OpenvinoDelegate, package

from tflite_hal import CompiledSession, Configuration, InterpreterSession, Outcome, Runner, read_model
from tflite_hal.delegate import Device
from tflite_hal.kernels import BuiltinKernels
from tflite_hal.remote import open_remotely
from tflite_hal.runtime import load_runtime, runtime_statuses
from tflite_hal.trial import seeded_inputs

ROUNDS = 31
SECONDS_PER_ROUND = 0.02
CONCURRENT_ROUNDS, SECONDS_CONCURRENT = 31, 0.1
#: What `concurrent` compares: one-thread sessions of a model.
ENGINES = {
    "CompiledSession": lambda model, runtime: CompiledSession(model, runtime, threads=1),
    "Interpreter": lambda model, runtime: InterpreterSession(model, runtime, threads=1),
}
if package.version() is not None:
    ENGINES["OpenVINO"] = lambda model, runtime: OpenvinoDelegate().open(
        model, Device("cpu", "cpu"), Configuration({"precision": "f32"}, threads=1), runtime
    )
WHAT = ["runtime", "predict", "threads", "worker", "concurrent", "many", "auto"]
#: What the geometric mean is of.
RATIOS: list[float] = []


def hand_written(interpreter, inputs) -> Callable[[], object]:
    """The loop that applications write."""
    into = [detail["index"] for detail in interpreter.get_input_details()]
    out = [detail["index"] for detail in interpreter.get_output_details()]

    def call() -> object:
        for index, array in zip(into, inputs, strict=True):
            interpreter.set_tensor(index, array)
        interpreter.invoke()
        return [interpreter.get_tensor(index) for index in out]

    return call


def medians(*calls: Callable[[], object]) -> list[float]:
    """Median seconds per call of each, over interleaved rounds of equal length."""
    counts = []
    for call in calls:
        call()
        start = time.perf_counter()
        call()
        counts.append(max(1, int(SECONDS_PER_ROUND / (time.perf_counter() - start))))
    samples: list[list[float]] = [[] for _ in calls]
    for _ in range(ROUNDS):
        for call, count, sample in zip(calls, counts, samples, strict=True):
            start = time.perf_counter()
            for _ in range(count):
                call()
            sample.append((time.perf_counter() - start) / count)
    return [statistics.median(sample) for sample in samples]


def runtime(path: Path) -> str:
    with Runner.auto(path, threads=1) as runner:
        inputs = seeded_inputs(runner.inputs)
        raw = runner.runtime.interpreter(str(path))
        raw.allocate_tensors()
        ours, theirs = medians(lambda: runner.predict(inputs), hand_written(raw, inputs))
        return f"{runner.runtime.name} {runner.runtime.version}: raw / ours {theirs / ours:.2f}"


def predict(path: Path) -> str:
    with Runner.auto(path, threads=1, delegates=["xnnpack"]) as runner:  # an interpreter in this process
        inputs = seeded_inputs(runner.inputs)
        given = inputs[0] if len(inputs) == 1 else inputs
        same = hand_written(runner._life.active.opened.session._interpreter, inputs)
        ours, hand = medians(lambda: runner.predict(given), same)
        return f"predict / hand-written {ours / hand:.3f} ({(ours - hand) * 1e6:+.1f} µs of {hand * 1e6:.0f})"


def threads(path: Path) -> str:
    with Runner.auto(path, threads=1) as one, Runner.auto(path, threads=2) as two:
        inputs = seeded_inputs(one.inputs)
        first, second = medians(lambda: one.predict(inputs), lambda: two.predict(inputs))
        return f"one thread / two threads {first / second:.2f}"


def worker(path: Path) -> str:
    model, delegate, device = read_model(path), BuiltinKernels(), Device("cpu", "cpu")
    runtime = load_runtime()
    (configuration,) = delegate.configurations(model, device, None)
    inputs = seeded_inputs(model.info.inputs)
    here = delegate.open(model, device, configuration, runtime)
    there = open_remotely(delegate, model, device, configuration, runtime)
    near, far = here.prepare(), there.prepare()
    inside, outside = medians(lambda: near.run(inputs), lambda: far.run(inputs))
    there.close()
    return f"in a worker {(outside - inside) * 1e6:+.0f} µs"


def rate(calls: list[Callable[[], object]]) -> float:
    """Runs per second of calls, each in a thread of its own, that start and end together."""
    counts, barrier = [0] * len(calls), threading.Barrier(len(calls) + 1)
    end = [0.0]

    def repeat(index: int) -> None:
        barrier.wait()
        while time.perf_counter() < end[0]:
            calls[index]()
            counts[index] += 1

    running = [threading.Thread(target=repeat, args=(index,)) for index in range(len(calls))]
    for thread in running:
        thread.start()
    start = time.perf_counter()
    end[0] = start + SECONDS_CONCURRENT
    barrier.wait()
    for thread in running:
        thread.join()
    return sum(counts) / (time.perf_counter() - start)


def concurrent(path: Path) -> str:
    model, runtime, told = read_model(path), load_runtime("ai_edge_litert"), []
    inputs = seeded_inputs(model.info.inputs)
    for name, engine in ENGINES.items():
        prepared = [engine(model, runtime).prepare() for _ in range(2)]
        calls = [lambda call=call: call.run(inputs) for call in prepared]
        ones, twos = zip(*((rate(calls[:1]), rate(calls)) for _ in range(CONCURRENT_ROUNDS)), strict=True)
        # The best rounds: what else runs on the machine takes from two threads more than from one.
        told.append(f"{name} {max(twos) / max(ones):.2f}")
    return "two in two threads / one: " + ", ".join(told)


def many(path: Path) -> str:
    with Runner.auto(path, threads=1) as runner:
        inputs = seeded_inputs(runner.inputs)
        given = inputs[0] if len(inputs) == 1 else inputs
        runner.predict(given)
        start = time.perf_counter()
        runner.predict(given)
        count = max(8, int(SECONDS_CONCURRENT / (time.perf_counter() - start)))

        def took(call: Callable[[], object]) -> tuple[float, float]:
            start = time.perf_counter(), time.process_time()
            call()
            return time.perf_counter() - start[0], time.process_time() - start[1]

        def loop() -> None:
            for _ in range(count):
                runner.predict(given)

        def spread() -> None:
            for _ in runner.predict_many(repeat(given, count), workers=2):
                pass

        def by_hand() -> None:
            running = [threading.Thread(target=loop) for _ in range(2)]
            for thread in running:
                thread.start()
            for thread in running:
                thread.join()

        spread()
        rounds = [(took(loop), took(spread), took(by_hand)) for _ in range(CONCURRENT_ROUNDS)]
        # The best rounds, as in `concurrent`, by the clock and by what the processors spent.
        best = [[min(one) for one in zip(*each, strict=True)] for each in zip(*rounds, strict=True)]
        (one, spent), (two, by_two), (hand, _) = best
        more = f"{(by_two - spent) / count * 1e6:+.1f} µs of processor time on {spent / count * 1e6:.0f}"
        return f"two workers / one stream {one / two:.2f}, two threads by hand {2 * one / hand:.2f} ({more})"


def bare_openvino(path: Path, inputs) -> Callable[[], object]:
    """OpenVINO as its documentation has it, with one thread and one set of shapes."""
    import openvino

    core = openvino.Core()
    model = core.read_model(path)
    model.reshape({port: list(array.shape) for port, array in zip(model.inputs, inputs, strict=True)})
    properties = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    compiled = core.compile_model(model, "CPU", {**properties, "INFERENCE_NUM_THREADS": 1})
    return lambda: [compiled(inputs)[port] for port in compiled.outputs]


def auto(path: Path) -> str:
    with Runner.auto(path, threads=1) as runner:
        inputs = seeded_inputs(runner.inputs)
        given = inputs[0] if len(inputs) == 1 else inputs
        calls: dict[str, Callable[[], object]] = {}
        for status in runtime_statuses():
            if status.state == "usable" and status.name != "tensorflow":
                raw = load_runtime(status.name).interpreter(str(path), threads=1)
                raw.allocate_tensors()
                calls[status.name] = hand_written(raw, inputs)
        right = (Outcome.CHOSEN, Outcome.SLOWER)
        if any(a.delegate == "openvino" and a.outcome in right for a in runner.selection.attempts):
            calls["openvino"] = bare_openvino(path, inputs)
        ours, *others = medians(lambda: runner.predict(given), *calls.values())
        RATIOS.append(min(others) / ours)
        each = ", ".join(f"{name} {took * 1e6:.0f}" for name, took in zip(calls, others, strict=True))
        return f"best / ours {RATIOS[-1]:.2f} ({runner.delegate} {ours * 1e6:.0f} µs; {each})"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=WHAT)
    parser.add_argument("models", nargs="+", type=Path)
    arguments = parser.parse_args()
    for path in arguments.models:
        print(f"{path.name:40s} {globals()[arguments.what](path)}", flush=True)
    if RATIOS:
        print(f"geometric mean {statistics.geometric_mean(RATIOS):.2f}, least {min(RATIOS):.2f}")


if __name__ == "__main__":
    main()

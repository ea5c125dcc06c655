"""Ratios of medians, A and B interleaved in one process: absolute times on a shared machine say little.

python benchmarks/interleaved.py runtime MODEL...    raw Interpreter as it comes / Runner.auto
python benchmarks/interleaved.py predict MODEL...    predict / hand-written set_tensor, invoke, get_tensor
python benchmarks/interleaved.py threads MODEL...    one thread / two threads
python benchmarks/interleaved.py worker MODEL...     what a call through a worker costs more, in µs
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from tflite_hal import Runner, read_model
from tflite_hal.delegate import Device
from tflite_hal.kernels import BuiltinKernels
from tflite_hal.remote import open_remotely
from tflite_hal.runtime import load_runtime
from tflite_hal.trial import seeded_inputs

ROUNDS = 31
SECONDS_PER_ROUND = 0.02


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
    with Runner.auto(path, threads=1) as runner:
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


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["runtime", "predict", "threads", "worker"])
    parser.add_argument("models", nargs="+", type=Path)
    arguments = parser.parse_args()
    for path in arguments.models:
        print(f"{path.name:40s} {globals()[arguments.what](path)}", flush=True)


if __name__ == "__main__":
    main()

"""Damaged models kill no process of the application; what a verifying runtime answers, we answer.

TFLITE_HAL_MUTANTS sets how many there are per runtime.
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
COUNT = int(os.environ.get("TFLITE_HAL_MUTANTS", "1000"))

# Each in a process of its own: the raw runtime does not survive them all either.
RAW = """
import os, sys, numpy as np
from test_mutants import mutants
from tflite_hal.runtime import load_runtime
runtime = load_runtime("ai_edge_litert")

# Those on which XNNPACK and the built-in kernels disagree run on these: ours says which.
builtin = set(sys.argv[3].split(","))

def answer(number, data):
    interpreter = runtime.interpreter(data, default_delegates=str(number) not in builtin)
    interpreter.allocate_tensors()
    random = np.random.default_rng(number)
    for detail in interpreter.get_input_details():
        array = (random.random(detail["shape"]) * 100).astype(detail["dtype"])
        interpreter.set_tensor(detail["index"], array)
    interpreter.invoke()
    outputs = [interpreter.get_tensor(detail["index"]) for detail in interpreter.get_output_details()]
    return np.concatenate([array.ravel().astype(np.float64) for array in outputs])

answers = {}
for number, data in mutants(int(sys.argv[1])):
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(theirs, b"+" + answer(number, data).tobytes())
        finally:
            os._exit(0)
    os.close(theirs)
    with open(ours, "rb") as file:
        said = file.read()
    os.waitpid(pid, 0)
    if said:
        answers[str(number)] = np.frombuffer(said[1:])
np.savez(sys.argv[2], **answers)
"""

OURS = """
import sys, warnings, numpy as np
from test_mutants import mutants
from tflite_hal import DelegateError, ModelError, Runner
import tflite_hal.remote.session
tflite_hal.remote.session.LIMITS = {"open": 2.0, "run": 2.0}   # some mutants loop for ever on tflite-runtime
warnings.simplefilter("ignore")
answers, errors, builtin = {}, 0, []
for number, data in mutants(int(sys.argv[1])):
    random = np.random.default_rng(number)
    try:
        with Runner.auto(data, runtime=sys.argv[3], threads=1, prefer="order") as runner:
            inputs = [(random.random(s.static_shape) * 100).astype(s.dtype) for s in runner.inputs]
            result = runner.predict(inputs)
            if runner.delegate == "builtin":
                builtin.append(number)
            arrays = list(result.values()) if isinstance(result, dict) else [result]
            answers[str(number)] = np.concatenate([a.ravel().astype(np.float64) for a in arrays])
    except (ModelError, DelegateError):
        errors += 1
np.savez(sys.argv[2], errors=errors, builtin=builtin, **answers)
"""


def sources() -> list[bytes]:
    """Our own models, and two real ones where they are."""
    paths = sorted((ROOT / "examples").glob("*.tflite"))
    real = ROOT.parent / "shared" / "models"
    paths += [
        real / n for n in ("kws_ref_model.tflite", "keras_lstm_mnist_ptq.tflite") if (real / n).is_file()
    ]
    return [path.read_bytes() for path in paths]


def mutants(count: int):
    """Yield (number, bytes): overwritten bytes anywhere, near the start or the end, and truncation."""
    originals = sources()
    for number in range(count):
        random = np.random.default_rng(number)
        data = bytearray(originals[number % len(originals)])
        where = [(0, len(data)), (0, 2048), (len(data) * 4 // 5, len(data))][number // len(originals) % 3]
        if random.random() < 0.1:
            del data[random.integers(8, len(data)) :]
        else:
            for _ in range(random.integers(1, 9)):
                data[random.integers(*where)] = random.integers(256)
        yield number, bytes(data)


def run(script: str, target: Path, *arguments: str) -> dict[str, np.ndarray]:
    done = subprocess.run(
        [sys.executable, "-c", script, str(COUNT), str(target), *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT / "tests")},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    with np.load(target) as archive:
        return dict(archive)


def test_no_process_dies_and_the_verified_answers_are_ours(tmp_path: Path, runtime_name: str) -> None:
    ours = run(OURS, tmp_path / "ours.npz", runtime_name)
    errors = int(ours.pop("errors"))
    builtin = [int(number) for number in ours.pop("builtin")]
    assert len(ours) + errors == COUNT
    print(f"{runtime_name}: {COUNT} mutants, {len(ours)} answered, {errors} refused")
    if runtime_name != "ai_edge_litert":
        return
    assert len(builtin) < COUNT / 10  # XNNPACK refuses or fails few that the built-in kernels take
    raw = run(RAW, tmp_path / "raw.npz", ",".join(map(str, builtin)))
    missing = sorted(set(raw) - set(ours), key=int)
    assert missing == []
    different = [n for n, right in raw.items() if not np.array_equal(ours[n], right, equal_nan=True)]
    assert different == []
    print(f"raw {runtime_name} answers {len(raw)}, all of them equally")

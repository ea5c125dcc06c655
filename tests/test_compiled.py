"""CompiledModel by LiteRT's C API, on the CPU: what it takes, what it gives, what it refuses."""

from __future__ import annotations

import ctypes
import gc
import threading
from pathlib import Path

import numpy as np
import psutil
import pytest
import tflite
from handmade import build

from tflite_hal import CompiledSession, Configuration, Device, InputError, read_model
from tflite_hal.compiled.library import EnvironmentOption, Layout, TensorType
from tflite_hal.errors import DelegateError
from tflite_hal.kernels import BuiltinKernels
from tflite_hal.runtime import load_runtime, runtime_status
from tflite_hal.session import Coverage
from tflite_hal.trial import seeded_inputs

CPU = Device("cpu", "cpu")


@pytest.fixture(scope="module")
def litert():
    """The runtime that has a CompiledModel; skips where it is another one."""
    if runtime_status("ai_edge_litert").state != "usable":
        pytest.skip("ai_edge_litert is not installed here")
    runtime = load_runtime("ai_edge_litert")
    if not runtime.compiled_library:
        pytest.skip(f"ai_edge_litert {runtime.version} has no libLiteRt")
    return runtime


def built_in(model, runtime, arrays, signature=None, shapes=None):
    session = BuiltinKernels().open(model, CPU, Configuration(threads=1), runtime)
    return session.prepare(signature, shapes).run(arrays)


def test_structures_are_as_large_as_the_headers_say() -> None:
    assert [ctypes.sizeof(one) for one in (Layout, TensorType, EnvironmentOption)] == [68, 72, 24]
    assert EnvironmentOption.any.offset == 8


def test_a_runtime_without_it_is_named(runtime_name: str, digits: Path) -> None:
    runtime = load_runtime(runtime_name)
    if runtime.compiled_library:
        assert Path(runtime.compiled_library).is_file()
        return
    with pytest.raises(DelegateError, match=f"{runtime_name} .* has no CompiledModel .*ai-edge-litert>=2.3"):
        CompiledSession(read_model(digits), runtime)


@pytest.mark.parametrize("given", ["path", "bytes"])
def test_answers_are_those_of_the_built_in_kernels(litert, digits: Path, digits_float: Path, given) -> None:
    for path in (digits, digits_float):
        model = read_model(path if given == "path" else path.read_bytes())
        inputs = seeded_inputs(model.info.inputs)
        session = CompiledSession(model, litert, threads=1)
        call = session.prepare()
        for _ in range(3):
            (answer,) = call.run(inputs)
        (expected,) = built_in(model, litert, inputs)
        np.testing.assert_allclose(answer, expected, rtol=1e-5, atol=1)
        assert answer.dtype == expected.dtype
        (other,) = call.run([np.zeros_like(inputs[0])])
        assert not np.array_equal(answer, other), "an answer belongs to the caller"
        session.close()


def test_what_was_taken_is_told(litert, digits: Path, digits_float: Path) -> None:
    whole, part = (CompiledSession(read_model(p), litert) for p in (digits_float, digits))
    assert whole.fully_accelerated
    assert whole.coverage == Coverage(8, 8, 1)
    assert not part.fully_accelerated
    assert part.coverage is None


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((1, 8, 8, 1), np.uint8),
        np.zeros((1, 8, 8, 1), np.float32),
        np.zeros((1, 8, 8), np.int8),
        np.zeros((1, 8, 8, 2), np.int8),
        np.zeros((0,), np.int8),
    ],
)
def test_arrays_that_do_not_fit_are_refused(litert, digits: Path, array) -> None:
    call = CompiledSession(read_model(digits), litert).prepare()
    with pytest.raises(InputError, match=r"input 0 is int8 \(1, 8, 8, 1\), not"):
        call.run([array])


def test_arrays_in_any_order_of_memory(litert, digits_float: Path) -> None:
    model = read_model(digits_float)
    call = CompiledSession(model, litert).prepare()
    (inputs,) = seeded_inputs(model.info.inputs)
    turned = np.asfortranarray(inputs.repeat(2, axis=2))[:, :, ::2]
    assert not turned.flags["C_CONTIGUOUS"]
    np.testing.assert_array_equal(call.run([turned])[0], call.run([inputs])[0])


@pytest.mark.parametrize(
    "kind", [tflite.TensorType.INT64, tflite.TensorType.INT32, tflite.TensorType.FLOAT32]
)
def test_dtypes(litert, kind) -> None:
    model = read_model(build(kind=kind))
    call = CompiledSession(model, litert).prepare()
    dtype = model.info.inputs[0].dtype
    arrays = [np.array([[1, 2, 3, 4]], dtype), np.array([[10, 20, 30, 2**31 - 5]], dtype)]
    (total,) = call.run(arrays)
    assert total.dtype == dtype
    np.testing.assert_array_equal(total, arrays[0] + arrays[1])


def test_truth_values(litert) -> None:
    model = read_model(build(kind=tflite.TensorType.BOOL, code=tflite.BuiltinOperator.LOGICAL_AND))
    given = [np.array([[True, True, False, False]]), np.array([[True, False, True, False]])]
    (both,) = CompiledSession(model, litert).prepare().run(given)
    assert both.tolist() == [[True, False, False, False]]


def test_a_type_that_can_not_be_exchanged_is_named(litert) -> None:
    model = read_model(build(kind=tflite.TensorType.STRING))
    with pytest.raises(DelegateError, match=r"string|element type 5|status"):
        CompiledSession(model, litert).prepare()


def test_shapes_change_and_come_back(litert) -> None:
    model = read_model(build(shape=(1, 4), signature=(-1, 4)))
    session = CompiledSession(model, litert)
    one, three = session.prepare(), session.prepare(None, [(3, 4), (3, 4)])
    for _ in range(3):
        assert one.run([np.ones((1, 4), np.float32)] * 2)[0].tolist() == [[2] * 4]
        assert three.run([np.ones((3, 4), np.float32)] * 2)[0].tolist() == [[2] * 4] * 3
    with pytest.raises(InputError, match=r"input 'x' is \(-1, 4\), not \(3, 5\)"):
        session.prepare(None, [(3, 5), (3, 5)])
    with pytest.raises(InputError, match="input 0 is"):
        one.run([np.ones((3, 4), np.float32)] * 2)


def test_signatures(litert) -> None:
    model = read_model(build(subgraphs=2, signatures=[("first", 0), ("second", 1)]))
    session = CompiledSession(model, litert)
    calls = [session.prepare(key) for key in (None, "first", "second")]
    for factor, call in enumerate(calls * 2):
        arrays = [np.full((1, 4), factor, np.float32), np.full((1, 4), 10, np.float32)]
        assert call.run(arrays)[0].tolist() == [[factor + 10] * 4]
    with pytest.raises(InputError, match="'first', 'second'"):
        session.prepare("third")


def test_closing(litert, digits: Path) -> None:
    model = read_model(digits)
    session = CompiledSession(model, litert)
    call = session.prepare()
    session.close()
    session.close()
    with pytest.raises(DelegateError, match="the session is closed"):
        call.run(seeded_inputs(model.info.inputs))
    with pytest.raises(DelegateError, match="the session is closed"):
        session.prepare()


def test_nothing_is_left_behind(litert, digits: Path) -> None:
    model = read_model(digits)
    inputs = seeded_inputs(model.info.inputs)

    def once(close: bool) -> None:
        session = CompiledSession(model, litert, threads=1)
        session.prepare().run(inputs)
        if close:
            session.close()

    for _ in range(20):
        once(True)
    process = psutil.Process()
    before = process.memory_info().rss, process.num_fds()
    for round_ in range(200):
        once(round_ % 2 == 0)
    gc.collect()
    assert process.memory_info().rss - before[0] < 8 << 20
    assert process.num_fds() <= before[1]


def test_the_gil_is_free_while_it_runs(litert) -> None:
    """Another thread counts during a run; held for the run, there would be a few ticks around it."""
    size = 1 << 22
    call = CompiledSession(read_model(build(shape=(1, size))), litert, threads=1).prepare()
    run, ticks, during = call._run, [0], []
    stop = threading.Event()

    def tick() -> None:
        while not stop.is_set():
            ticks[0] += 1

    def counted(*arguments) -> int:
        before = ticks[0]
        status = run(*arguments)
        during.append(ticks[0] - before)
        return status

    call._run = counted
    thread = threading.Thread(target=tick)
    thread.start()
    try:
        for _ in range(10):
            call.run([np.ones((1, size), np.float32)] * 2)
    finally:
        stop.set()
        thread.join()
    assert max(during) > 1000


def test_sessions_in_two_threads_do_not_mix(litert, digits: Path) -> None:
    model = read_model(digits)
    wrong = []

    def repeat(seed: int) -> None:
        inputs = seeded_inputs(model.info.inputs, seed)
        call = CompiledSession(model, litert, threads=1).prepare()
        (first,) = call.run(inputs)
        wrong.extend(1 for _ in range(2000) if not np.array_equal(call.run(inputs)[0], first))
        (alone,) = CompiledSession(model, litert, threads=1).prepare().run(inputs)
        wrong.extend([] if np.array_equal(first, alone) else [seed])

    running = [threading.Thread(target=repeat, args=(seed,)) for seed in range(2)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    assert not wrong


# What is refused


def test_an_lstm_is_refused_with_what_to_do(litert, models: Path) -> None:
    with pytest.raises(DelegateError) as caught:
        CompiledSession(read_model(models / "keras_lstm_mnist_ptq.tflite"), litert)
    assert "LiteRtCreateModelFromFile failed: status 5 (unsupported)" in caught.value.reason
    assert "use the CPU" in caught.value.remedy


def test_an_operator_that_nothing_has(litert) -> None:
    model = read_model(build(code=tflite.BuiltinOperator.CUSTOM, custom="acme-op"))
    with pytest.raises(DelegateError, match=r"LiteRt\w+ failed: status \d+"):
        CompiledSession(model, litert).prepare()


def test_an_accelerator_that_is_not_there_is_never_the_cpu(litert, digits: Path, tmp_path: Path) -> None:
    model = read_model(digits)
    for name, folders in (("gpu", {"runtime": str(tmp_path)}), ("npu", {})):
        with pytest.raises(DelegateError, match=f"LiteRT found no {name.upper()} accelerator"):
            CompiledSession(model, litert, accelerators=(name, "cpu"), folders=folders)


def test_an_npu_without_its_libraries_takes_nothing(litert, digits_float: Path, tmp_path: Path) -> None:
    """LiteRT compiles such a model for the CPU in silence, and calls that fully accelerated."""
    model, folders = read_model(digits_float), {"dispatch": str(tmp_path)}
    with pytest.raises(DelegateError, match="LiteRtCreateCompiledModel failed: status 504"):
        CompiledSession(model, litert, accelerators=("npu",), folders=folders)
    session = CompiledSession(model, litert, accelerators=("npu", "cpu"), folders=folders)
    assert not session.fully_accelerated
    assert session.coverage is None


def test_arguments(litert, digits: Path) -> None:
    model = read_model(digits)
    for arguments, message in (
        ({"accelerators": ("tpu",)}, "LiteRT has cpu, gpu, npu"),
        ({"accelerators": ()}, "LiteRT has cpu, gpu, npu"),
        ({"folders": {"dispatch": "relative"}}, "dispatch: not one of .* or not absolute"),
        ({"folders": {"elsewhere": "/"}}, "elsewhere: not one of compiler, dispatch, cache, runtime"),
        ({"options": {"xnnpack": "num_threads = many"}}, r"LiteRtCreateCompiledModel failed: status \d+"),
    ):
        with pytest.raises(DelegateError, match=message):
            CompiledSession(model, litert, **arguments)

"""OpenVINO: every model on the CPU, its devices from files, and what it may not do to an application."""

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import flatbuffers
import numpy as np
import pytest
import tflite
import tflite_hal_openvino
from tflite_hal_openvino import OpenvinoDelegate, dispatch, package

from tflite_hal import (
    Check,
    Configuration,
    DelegateError,
    Device,
    InputError,
    Outcome,
    Runner,
    probe_host,
    read_model,
)
from tflite_hal.accuracy import Grade, compare, model_kind
from tflite_hal.delegate import check_options
from tflite_hal.remote import open_remotely
from tflite_hal.runtime import load_runtime
from tflite_hal.testing import DelegateConformance
from tflite_hal.trial import builtin_candidate, seeded_inputs

ROOT = Path(__file__).resolve().parents[1]
HOSTS = ROOT / "tests" / "hosts"
TREES = [path for path in sorted(HOSTS.glob("*")) if path.is_dir()]
EXAMPLES = [ROOT / "examples" / name for name in ("digits_int8.tflite", "digits_float.tflite")]
WITH_ENGINES = True

CPU = Device("cpu", "cpu")
ONE = Configuration({"precision": "f32"}, threads=1)
TWO = Configuration({"precision": "f32"}, threads=2)

RUNNING = [
    "ad01_fp32.tflite",
    "ad01_int8.tflite",
    "kws_ref_model.tflite",
    "kws_ref_model_float32.tflite",
    "mobilenet_v1_0.25_128_quant.tflite",
    "pretrainedResnet.tflite",
    "pretrainedResnet_quant.tflite",
    "str_ww_ref_model.tflite",
    "vww_96_float.tflite",
    "vww_96_int8.tflite",
]
#: Within limits on CPUs with 8-bit instructions, degraded where OpenVINO does without.
MAY_BE_DEGRADED = {"kws_ref_model.tflite", "pretrainedResnet_quant.tflite"}
REFUSED = {
    "keras_lstm_mnist_ptq.tflite": "no state between calls",
    "keras_lstm_mnist_ptq_edgetpu.tflite": "no state between calls",
    "mobilenet_v1_0.25_128_quant_edgetpu.tflite": "edgetpu-custom-op",
    "model_invoking_error.tflite": "fake-op-double",
}

needs_openvino = pytest.mark.skipif(
    package.version() is None, reason="openvino is not installed: pip install 'tflite-hal[openvino]'"
)


class TestConformance(DelegateConformance):
    delegate = OpenvinoDelegate
    models = EXAMPLES
    hosts = TREES


def opened(path: Path | bytes, configuration: Configuration = ONE):
    return OpenvinoDelegate().open(read_model(path), CPU, configuration, load_runtime())


def builtin_answers(path: Path | bytes, inputs: Sequence[list[np.ndarray]]) -> list[list[np.ndarray]]:
    candidate = builtin_candidate(load_runtime())
    session = candidate.delegate.open(read_model(path), CPU, candidate.configuration, candidate.runtime)
    call = session.prepare(None, [array.shape for array in inputs[0]])
    return [call.run(one) for one in inputs]


def graded(path: Path | bytes, given, right):
    info = read_model(path).info
    return compare(right, given, info.outputs, model_kind(info), Check())


# ---- models ----


@pytest.mark.engine("OpenVINO")
@needs_openvino
@pytest.mark.parametrize("configuration", [ONE, TWO], ids=str)
@pytest.mark.parametrize("name", RUNNING)
def test_every_model_answers_within_the_gate(models: Path, name: str, configuration: Configuration) -> None:
    path = models / name
    info = read_model(path).info
    inputs = [seeded_inputs(info.inputs, seed) for seed in range(8)]
    session = opened(path, configuration)
    call = session.prepare()
    given = [call.run(one) for one in inputs]
    for outputs in given:
        assert [(a.dtype, a.shape) for a in outputs] == [(s.dtype, s.static_shape) for s in info.outputs]
    found = graded(path, given, builtin_answers(path, inputs))
    assert found.grade in (Grade.OK, *([Grade.DEGRADED] if name in MAY_BE_DEGRADED else [])), found.reason
    assert session.coverage.taken == session.coverage.total


@pytest.mark.parametrize("name", REFUSED)
def test_what_it_can_not_take_is_refused_with_the_reason(models: Path, name: str) -> None:
    reason = OpenvinoDelegate().supports(read_model(models / name), CPU)
    assert REFUSED[name] in reason


@needs_openvino
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("keras_lstm_mnist_ptq.tflite", "UNIDIRECTIONAL_SEQUENCE_LSTM"),
        ("mobilenet_v1_0.25_128_quant_edgetpu.tflite", "No translator found for edgetpu-custom-op"),
        ("model_invoking_error.tflite", "malformed flatbuffer"),
    ],
)
def test_its_own_refusal_is_one_line(models: Path, name: str, words: str) -> None:
    with pytest.raises(DelegateError) as caught:
        opened(models / name)
    assert words in caught.value.reason
    assert caught.value.reason.startswith(f"{name}: OpenVINO {package.version()}: ")
    assert "\n" not in caught.value.reason
    assert ".cpp" not in caught.value.reason


def vector(builder: flatbuffers.Builder, start, items: Sequence[int], put: str) -> int:
    start(builder, len(items))
    for item in reversed(items):
        getattr(builder, put)(item)
    return builder.EndVector()


def indices(builder: flatbuffers.Builder, values: Sequence[int]) -> int:
    return vector(builder, lambda b, n: b.StartVector(4, n, 4), values, "PrependInt32")


def offsets(builder: flatbuffers.Builder, values: Sequence[int]) -> int:
    return vector(builder, lambda b, n: b.StartVector(4, n, 4), values, "PrependUOffsetTRelative")


def tensor(builder: flatbuffers.Builder, name: str) -> int:
    text, shape, any_batch = (
        builder.CreateString(name),
        indices(builder, [1, 4]),
        indices(builder, [-1, 4]),
    )
    tflite.TensorStart(builder)
    tflite.TensorAddName(builder, text)
    tflite.TensorAddShape(builder, shape)
    tflite.TensorAddShapeSignature(builder, any_batch)
    tflite.TensorAddType(builder, tflite.TensorType.FLOAT32)
    return tflite.TensorEnd(builder)


def operator(builder: flatbuffers.Builder, code: int, options: int, out: int) -> int:
    start, end = {
        tflite.BuiltinOptions.SubOptions: (tflite.SubOptionsStart, tflite.SubOptionsEnd),
        tflite.BuiltinOptions.MulOptions: (tflite.MulOptionsStart, tflite.MulOptionsEnd),
    }[options]
    takes, gives = indices(builder, [0, 1]), indices(builder, [out])
    start(builder)
    given = end(builder)
    tflite.OperatorStart(builder)
    tflite.OperatorAddOpcodeIndex(builder, code)
    tflite.OperatorAddInputs(builder, takes)
    tflite.OperatorAddOutputs(builder, gives)
    tflite.OperatorAddBuiltinOptionsType(builder, options)
    tflite.OperatorAddBuiltinOptions(builder, given)
    return tflite.OperatorEnd(builder)


def two_by_two(names: Sequence[str] = ("a", "b", "difference", "product")) -> bytes:
    """Return a model of two inputs and two outputs, b before a and the product before the difference."""
    builder = flatbuffers.Builder()
    tensors = offsets(builder, [tensor(builder, name) for name in names])
    run = [
        operator(builder, 0, tflite.BuiltinOptions.SubOptions, 2),
        operator(builder, 1, tflite.BuiltinOptions.MulOptions, 3),
    ]
    operators, takes, gives = offsets(builder, run), indices(builder, [1, 0]), indices(builder, [3, 2])
    tflite.SubGraphStart(builder)
    tflite.SubGraphAddTensors(builder, tensors)
    tflite.SubGraphAddInputs(builder, takes)
    tflite.SubGraphAddOutputs(builder, gives)
    tflite.SubGraphAddOperators(builder, operators)
    graphs = offsets(builder, [tflite.SubGraphEnd(builder)])
    codes = []
    for code in (tflite.BuiltinOperator.SUB, tflite.BuiltinOperator.MUL):
        tflite.OperatorCodeStart(builder)
        tflite.OperatorCodeAddDeprecatedBuiltinCode(builder, code)
        tflite.OperatorCodeAddBuiltinCode(builder, code)
        tflite.OperatorCodeAddVersion(builder, 1)
        codes.append(tflite.OperatorCodeEnd(builder))
    known = offsets(builder, codes)
    tflite.BufferStart(builder)
    buffers = offsets(builder, [tflite.BufferEnd(builder)])
    tflite.ModelStart(builder)
    tflite.ModelAddVersion(builder, 3)
    tflite.ModelAddOperatorCodes(builder, known)
    tflite.ModelAddSubgraphs(builder, graphs)
    tflite.ModelAddBuffers(builder, buffers)
    builder.Finish(tflite.ModelEnd(builder), b"TFL3")
    return bytes(builder.Output())


@needs_openvino
def test_inputs_and_outputs_are_in_the_models_order() -> None:
    content = two_by_two()
    assert [spec.name for spec in read_model(content).info.outputs] == ["product", "difference"]
    session = opened(content)
    for batch in (1, 3):
        shape = (batch, 4)
        call = session.prepare(None, [shape, shape])
        b, a = np.full(shape, 2, np.float32), np.full(shape, 5, np.float32)
        product, difference = call.run([b, a])
        assert np.array_equal(product, a * b)
        assert np.array_equal(difference, a - b)
        assert np.array_equal(product, builtin_answers(content, [[b, a]])[0][0])
    with pytest.raises(InputError, match=r"given \(1, 4\), prepared for \(3, 4\)"):
        call.run([np.zeros((1, 4), np.float32)] * 2)


@pytest.mark.parametrize("names", [("a", "a", "c", "d"), ("a", "b", "c", "c"), ("", "b", "c", "d")])
def test_tensors_that_have_no_names_of_their_own_are_refused(names: Sequence[str]) -> None:
    reason = OpenvinoDelegate().supports(read_model(two_by_two(names)), CPU)
    assert "not unique" in reason


@needs_openvino
def test_answers_are_the_callers_own(digits: Path) -> None:
    call = opened(digits).prepare()
    first = call.run([np.full((1, 8, 8, 1), 60, np.int8)])
    kept = [array.copy() for array in first]
    call.run([np.full((1, 8, 8, 1), -60, np.int8)])
    assert np.array_equal(first[0], kept[0])
    first[0][...] = 0
    assert call.run([np.full((1, 8, 8, 1), 60, np.int8)])[0].any()


@needs_openvino
def test_a_dynamic_batch_is_compiled_for_each_shape(models: Path) -> None:
    session = opened(models / "pretrainedResnet.tflite")
    images = np.random.default_rng(0).standard_normal((5, 32, 32, 3)).astype(np.float32)
    (together,) = session.prepare(None, [images.shape]).run([images])
    single = session.prepare()
    for image, row in zip(images, together, strict=True):
        assert np.allclose(single.run([image[None]])[0][0], row, atol=1e-5)


@needs_openvino
def test_a_shape_the_model_can_not_take_is_told(models: Path) -> None:
    session = opened(models / "vww_96_int8.tflite")
    with pytest.raises(DelegateError, match=r"vww_96_int8.tflite: OpenVINO"):
        session.prepare(None, [(1, 97, 3)])


@needs_openvino
@pytest.mark.parametrize("way", ["bytes", "not UTF-8", "another suffix"])
def test_a_model_needs_no_name_that_openvino_takes(tmp_path: Path, digits: Path, monkeypatch, way) -> None:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    given: Path | bytes = digits.read_bytes()
    if way != "bytes":
        given = tmp_path / (os.fsdecode(b"\xff\xfe.tflite") if way == "not UTF-8" else "model.bin")
        given.write_bytes(digits.read_bytes())
    array = [np.full((1, 8, 8, 1), 30, np.int8)]
    right = opened(digits).prepare().run(array)
    assert np.array_equal(opened(given).prepare().run(array)[0], right[0])
    assert not list(folder.iterdir())


@needs_openvino
def test_without_a_place_for_a_link_it_says_what_to_do(digits: Path, monkeypatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", "/nonexistent")
    with pytest.raises(DelegateError, match="no link can be made") as caught:
        opened(digits.read_bytes())
    assert ".tflite" in caught.value.remedy


# ---- properties ----


@needs_openvino
@pytest.mark.parametrize(
    ("options", "threads", "expected"),
    [
        ({"precision": "f32"}, 1, {"NUM_STREAMS": 0}),
        ({"precision": "f32"}, 2, {"NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": 2}),
        ({"pinning": False}, 2, {"ENABLE_CPU_PINNING": False}),
    ],
)
def test_properties_are_openvinos(digits: Path, options, threads: int, expected) -> None:
    check_options(OpenvinoDelegate(), options)
    session = opened(digits, Configuration(options, threads))
    for name, value in expected.items():
        assert session._ready.get_property(name) == value
    hint = session._ready.get_property("INFERENCE_PRECISION_HINT").to_string()
    assert hint == "f32" or "precision" not in options


@pytest.mark.parametrize(
    "options", [{"precision": "f64"}, {"pinning": 1}, {"cores": "P"}, {"CACHE_DIR": "x"}]
)
def test_options_are_checked(options) -> None:
    with pytest.raises(DelegateError, match=next(iter(options))):
        check_options(OpenvinoDelegate(), options)


def test_bfloat16_is_never_the_default(digits: Path) -> None:
    model = read_model(digits)
    for kind in ("cpu", "gpu", "npu"):
        device = Device(f"{kind}:0", kind, properties={"threads": 4})
        for configuration in OpenvinoDelegate().configurations(model, device, None):
            assert configuration.options.get("precision") != "bf16"
            assert (kind == "cpu") == (configuration.threads is not None)


# ---- in an application ----


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a script in a fresh interpreter with its own home; it sees what this one does."""
    paths = os.pathsep.join(path for path in sys.path if path)
    env = {**os.environ, "PYTHONPATH": paths, **environment}
    return subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False, timeout=120
    )


@needs_openvino
def test_it_sends_and_writes_nothing_and_starts_no_thread(tmp_path: Path, digits: Path) -> None:
    code = f"""
import os, sys, socket
socket.socket.connect = lambda *a: (_ for _ in ()).throw(SystemExit("connects"))
from tflite_hal_openvino import OpenvinoDelegate
from tflite_hal import Configuration, Device, read_model
import numpy as np
before = len(os.listdir("/proc/self/task"))
model, cpu = read_model({str(digits)!r}), Device("cpu", "cpu")
session = OpenvinoDelegate().open(model, cpu, Configuration({{"precision": "f32"}}, threads=1), None)
session.prepare().run([np.zeros((1, 8, 8, 1), np.int8)])
import openvino
print(hasattr(openvino, "convert_model"), "openvino_telemetry" in sys.modules)
print(os.listdir({str(tmp_path)!r}), os.sched_getaffinity(0) == set(range(os.cpu_count())))
"""
    environment = {"HOME": str(tmp_path), "OPENBLAS_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    environment |= dict.fromkeys(("CI", "TF_BUILD", "JENKINS_URL"), "")  # it is silent there by itself
    done = run(code, **environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "True False"
    assert done.stdout.splitlines()[1].startswith("[]")


def test_it_is_not_imported_where_it_is_not_used(digits: Path) -> None:
    code = f"""
import sys
from tflite_hal import Runner
with Runner({str(digits)!r}) as runner:
    runner.selection
print("openvino" in sys.modules)
"""
    done = run(code)
    assert done.stdout == "False\n", done.stderr


@needs_openvino
@pytest.mark.parametrize("threads", [1, 2, None])
def test_a_forked_process_opens_its_own_and_ends_well(digits: Path, threads: int) -> None:
    code = f"""
import os, signal
import numpy as np
from tflite_hal import Runner
array = np.full((1, 8, 8, 1), 30, np.int8)
with Runner({str(digits)!r}, delegate="openvino", threads={threads}) as runner:
    right = runner.predict(array)
    for used in (True, False):
        child = os.fork()
        if child == 0:
            signal.alarm(60)
            if used:
                assert np.array_equal(runner.predict(array), right)
            raise SystemExit(0)
        assert os.waitpid(child, 0)[1] == 0, used
    assert np.array_equal(runner.predict(array), right)
"""
    done = run(code)
    assert done.returncode == 0, done.stderr


@needs_openvino
def test_two_sessions_in_two_threads_answer_rightly(models: Path) -> None:
    path = models / "vww_96_int8.tflite"
    info = read_model(path).info
    inputs = [seeded_inputs(info.inputs, seed) for seed in range(4)]
    right = [opened(path).prepare().run(one) for one in inputs]
    calls = [opened(path).prepare(), opened(path).prepare(), opened(path, TWO).prepare()]
    shared = opened(path).prepare()
    wrong: list[int] = []

    def work(number: int) -> None:
        for turn in range(50):
            which = (turn + number) % len(inputs)
            for call in (calls[number], shared):
                if not np.array_equal(call.run(inputs[which])[0], right[which][0]):
                    wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@needs_openvino
def test_the_cpu_lives_in_the_application_once_it_was_proven_in_a_worker(digits: Path) -> None:
    array = np.full((1, 8, 8, 1), 30, np.int8)
    session = open_remotely(OpenvinoDelegate(), read_model(digits), CPU, TWO, load_runtime())
    remote = session.prepare().run([array])
    session.close()
    for arguments, inside in (({}, True), ({"isolate": True}, False), ({"threads": 2}, False)):
        with Runner(digits, delegate="openvino", **{"threads": 1, **arguments}) as runner:
            assert np.array_equal(runner.predict(array), remote[0])
            assert (runner.benchmark(runs=3).boundary_ms is None) == inside


@needs_openvino
def test_it_takes_part_in_the_choice_and_passes_the_gate(digits: Path) -> None:
    with Runner.auto(digits, check=Check(tolerance=0, seeded=2)) as runner:
        own = [a for a in runner.selection.attempts if a.delegate == "openvino"]
        assert own
        assert all(
            a.outcome in (Outcome.CHOSEN, Outcome.SLOWER, Outcome.DEGRADED, Outcome.WRONG) for a in own
        )
        assert all(a.comparison is not None for a in own)
    with Runner(digits) as runner, Runner(digits, device="cpu") as cpu:
        assert "openvino" not in {runner.delegate, cpu.delegate}


# ---- devices ----


def changed(tmp_path: Path, gone: str) -> Path:
    tree = tmp_path / "host"
    shutil.copytree(HOSTS / "x86-intel-npu", tree)
    place = tree / gone
    shutil.rmtree(place) if place.is_dir() else place.unlink()
    return tree


def test_a_machine_with_everything_has_its_gpu_and_npu() -> None:
    probe = OpenvinoDelegate().probe(probe_host(HOSTS / "x86-intel-npu"))
    assert [(device.id, device.kind) for device in probe.devices] == [("gpu:0", "gpu"), ("npu:0", "npu")]
    assert probe.devices[1].properties["library"].endswith("libze_intel_npu.so.1")
    assert probe.devices[0].properties["library"].endswith("libigdrcl.so")
    assert not probe.problems


def test_an_npu_without_driver() -> None:
    (problem,) = OpenvinoDelegate().probe(probe_host(HOSTS / "x86-intel-npu-no-driver")).problems
    assert (problem.stage, problem.device, problem.kind) == ("driver", "npu:0", "npu")
    assert "Meteor Lake" in problem.evidence
    assert "intel_vpu" in problem.remedy


_NPU = "sys/bus/pci/devices/0000:00:0b.0"
_GPU = "sys/bus/pci/devices/0000:00:02.0"
_LIBRARIES = "usr/lib/x86_64-linux-gnu"


@pytest.mark.parametrize(
    ("gone", "device", "stage", "evidence", "remedy"),
    [
        ("dev/accel/accel0", "npu:0", "node", "/dev/accel/accel0", "--device"),
        (f"{_NPU}/accel", "npu:0", "node", "there is no a node", "kernel log"),
        (
            f"{_LIBRARIES}/libze_intel_npu.so.1",
            "npu:0",
            "library",
            "libze_intel_npu.so.1",
            "intel-level-zero",
        ),
        (f"{_LIBRARIES}/libze_loader.so.1", "npu:0", "library", "libze_loader.so.1", "libze1"),
        ("dev/dri/renderD128", "gpu:0", "node", "/dev/dri/renderD128", "--device"),
        (f"{_LIBRARIES}/libOpenCL.so.1", "gpu:0", "library", "libOpenCL.so.1", "intel-opencl-icd"),
        ("etc/OpenCL/vendors/intel.icd", "gpu:0", "library", "names no driver", "intel-opencl-icd"),
    ],
)
def test_what_is_missing_is_told(tmp_path: Path, gone, device, stage, evidence, remedy) -> None:
    probe = OpenvinoDelegate().probe(probe_host(changed(tmp_path, gone)))
    (problem,) = probe.problems
    assert (problem.device, problem.stage) == (device, stage)
    assert evidence in problem.evidence
    assert remedy in problem.remedy
    assert len(probe.devices) == 1


def test_other_makers_gpus_are_not_its_own(tmp_path: Path) -> None:
    tree = changed(tmp_path, f"{_NPU}/accel")
    (tree / _GPU / "vendor").write_text("0x10de\n")
    probe = OpenvinoDelegate().probe(probe_host(tree))
    assert [problem.device for problem in probe.problems] == ["npu:0"]
    assert not probe.devices


class Live:
    """A captured machine, taken for this one."""

    def __init__(self, tree: Path, permitted: bool | None = True) -> None:
        self._host, self._permitted, self.live = probe_host(tree), permitted, True

    def __getattr__(self, name: str):
        return getattr(self._host, name)

    def access(self, path: str, mode: str = "rw") -> bool | None:
        return self._permitted


def test_a_node_that_may_not_be_opened(monkeypatch) -> None:
    probe = OpenvinoDelegate().probe(Live(HOSTS / "x86-intel-npu", permitted=False))
    assert {(p.device, p.stage) for p in probe.problems} == {("gpu:0", "permission"), ("npu:0", "permission")}
    assert all("group render" in problem.remedy for problem in probe.problems)


def test_hardware_without_the_package_is_told_and_a_mere_cpu_is_not(monkeypatch) -> None:
    monkeypatch.setattr(package, "version", lambda: None)
    probe = OpenvinoDelegate().probe(Live(HOSTS / "x86-intel-npu"))
    assert not probe.devices
    assert {(p.device, p.stage) for p in probe.problems} == {("gpu:0", "runtime"), ("npu:0", "runtime")}
    assert all(problem.remedy == "pip install 'tflite-hal[openvino]'" for problem in probe.problems)
    assert OpenvinoDelegate().probe(Live(HOSTS / "x86-hybrid")) == ((), ())


def test_the_cpu_is_a_device_where_the_package_is(monkeypatch) -> None:
    monkeypatch.setattr(package, "version", lambda: "2026.3.1")
    (device,) = OpenvinoDelegate().probe(Live(HOSTS / "x86-hybrid")).devices
    assert (device.id, device.kind, device.properties["threads"]) == ("cpu", "cpu", 2)
    assert OpenvinoDelegate().fingerprint(device) == "openvino 2026.3.1"
    raspberry = OpenvinoDelegate().probe(Live(HOSTS / "raspberry-pi-5-coral-usb"))
    assert not raspberry.devices


def test_without_the_package_an_explicit_choice_says_how_to_get_it(digits: Path, monkeypatch) -> None:
    monkeypatch.setattr(package, "version", lambda: None)
    with pytest.raises(DelegateError, match=r"pip install 'tflite-hal\[openvino\]'"):
        Runner(digits, delegate="openvino")


@pytest.mark.parametrize("kind", ["gpu", "npu"])
def test_the_fingerprint_names_the_driver_and_the_kernel(tmp_path: Path, kind: str, monkeypatch) -> None:
    driver = tmp_path / "libdriver.so"
    driver.write_bytes(b"one")
    device = Device(f"{kind}:0", kind, properties={"library": str(driver)})
    first = OpenvinoDelegate().fingerprint(device)
    driver.write_bytes(b"another")
    assert OpenvinoDelegate().fingerprint(device) != first
    monkeypatch.setattr("platform.release", lambda: "6.1.2-other")
    assert OpenvinoDelegate().fingerprint(device).endswith(" 6.1.2-other")
    driver.unlink()
    assert "No such file" in OpenvinoDelegate().fingerprint(device)


@needs_openvino
def test_openvino_names_its_devices_and_lacks_others(monkeypatch) -> None:
    found = OpenvinoDelegate().inspect(probe_host())
    assert [device.id for device in found.devices if device.kind == "cpu"] == ["cpu"]
    if any(device.kind == "npu" for device in found.devices):
        pytest.skip("there is an NPU here")
    lacking = OpenvinoDelegate().inspect(Live(HOSTS / "x86-intel-npu"))
    problem = next(one for one in lacking.problems if one.device == "npu:0")
    assert problem.stage == "open"
    assert "CPU only" in problem.evidence


@needs_openvino
def test_a_device_that_is_not_there_is_an_error_of_ours(digits: Path) -> None:
    runtime, npu = load_runtime(), Device("npu:0", "npu")
    with pytest.raises(DelegateError, match="OpenVINO"):
        open_remotely(OpenvinoDelegate(), read_model(digits), npu, Configuration(), runtime)


def test_the_plugin_registers_one_delegate() -> None:
    assert tflite_hal_openvino.tflite_hal_register_delegates() == [OpenvinoDelegate]
    assert json.dumps([option._asdict() for option in OpenvinoDelegate.options])


# ---- through LiteRT ----


def needs_dispatch() -> None:
    if not dispatch.folder():
        problem = dispatch.mismatch()
        evidence = (
            problem.evidence if problem is not None else "LiteRT's libraries or their OpenVINO are missing"
        )
        pytest.skip(f"LiteRT's dispatch to OpenVINO can't be used: {evidence}")


@pytest.mark.engine("OpenVINO by LiteRT's dispatch")
@pytest.mark.parametrize("name", RUNNING)
def test_every_model_answers_through_litert_too(models: Path, name: str) -> None:
    needs_dispatch()
    path, runtime = models / name, load_runtime("ai_edge_litert")
    model = read_model(path)
    inputs = [seeded_inputs(model.info.inputs, seed) for seed in range(4)]
    session = dispatch.open_session(model, runtime, "cpu", "f32")
    assert session.fully_accelerated
    assert session.coverage.taken == session.coverage.total
    call = session.prepare()
    given = [call.run(one) for one in inputs]
    session.close()
    # In bfloat16 where the CPU has it.
    assert graded(path, given, builtin_answers(path, inputs)).grade in (Grade.OK, Grade.DEGRADED)


@pytest.mark.parametrize("name", REFUSED)
def test_what_litert_can_not_compile_is_an_error_of_ours(models: Path, name: str) -> None:
    needs_dispatch()
    with pytest.raises(DelegateError, match=name) as caught:
        dispatch.open_session(read_model(models / name), load_runtime("ai_edge_litert"), "cpu", None)
    assert caught.value.remedy


def test_an_npu_that_is_not_there_is_an_error_through_litert_too(digits: Path) -> None:
    needs_dispatch()
    if Path("/dev/accel/accel0").exists():
        pytest.skip("there is an accelerator here")
    npu, configuration = Device("npu:0", "npu"), Configuration({"through": "litert"})
    runtime = load_runtime("ai_edge_litert")
    with pytest.raises(DelegateError, match="LiteRT's dispatch to OpenVINO") as caught:
        open_remotely(OpenvinoDelegate(), read_model(digits), npu, configuration, runtime)
    assert "through='openvino'" in caught.value.remedy


def test_the_cpu_is_not_reached_through_litert(digits: Path) -> None:
    with pytest.raises(DelegateError, match="chooses threads and precision"):
        opened(digits, Configuration({"through": "litert"}, threads=1))


def test_litert_takes_its_own_runtime_only(digits: Path) -> None:
    class Other:
        name = "tflite_runtime"

    with pytest.raises(DelegateError, match="not with tflite_runtime") as caught:
        dispatch.open_session(read_model(digits), Other(), "npu", None)
    assert "runtime='ai_edge_litert'" in caught.value.remedy


def fake(folder: Path, package: str, version: str, requires: str = "") -> None:
    (folder / package).mkdir()
    (folder / package / "__init__.py").write_text("raise SystemExit('imported')")
    information = folder / f"{package}-{version}.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n{requires}"
    )
    if package == "ai_edge_litert":
        for part in ("dispatch", "compiler"):
            (folder / package / "vendors" / "intel_openvino" / part).mkdir(parents=True)


@pytest.mark.parametrize(
    ("litert", "sdk", "openvino", "usable", "evidence"),
    [
        ("2.3.0", "2.3.0", "2026.3.1", True, ""),
        ("2.3.0", None, "2026.3.1", True, ""),
        ("2.3.0", None, "2026.4.0", False, ""),
        ("2.9.0", None, "2026.3.1", False, ""),  # nobody tells what it is linked with
        ("2.2.0", "2.3.0", "2026.3.1", False, "installed: ai-edge-litert 2.2.0 and openvino 2026.3.1"),
        ("2.3.0", "2.3.0", "2026.4.0", False, "needs ai-edge-litert 2.3.0 and openvino 2026.3.1"),
        ("2.3.0", "2.3.0", None, False, "and openvino none"),
        (None, "2.3.0", "2026.3.1", False, "ai-edge-litert none"),
    ],
)
def test_releases_that_do_not_fit_together_are_told(
    tmp_path: Path, monkeypatch, litert, sdk, openvino, usable: bool, evidence: str
) -> None:
    for package_name, version, requires in (
        ("ai_edge_litert", litert, ""),
        ("ai_edge_litert_sdk_intel", sdk, "Requires-Dist: openvino==2026.3.1\n"),
        ("openvino", openvino, ""),
    ):
        if version is not None:
            fake(tmp_path, package_name, version, requires)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert bool(dispatch.folder()) == usable
    probe = OpenvinoDelegate().probe(Live(HOSTS / "x86-hybrid"))
    if not evidence:
        assert not probe.problems
        return
    (problem,) = probe.problems
    assert (problem.stage, problem.kind) == ("runtime", "npu")
    assert evidence in problem.evidence
    assert problem.remedy == (
        "pip install ai-edge-litert-sdk-intel==2.3.0 ai-edge-litert==2.3.0 openvino==2026.3.1"
    )


def test_an_npu_is_tried_both_ways_where_litert_fits(tmp_path: Path, monkeypatch, digits: Path) -> None:
    fake(tmp_path, "openvino", "2026.3.1")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    model = read_model(digits)

    def ways() -> list[dict]:
        devices = OpenvinoDelegate().probe(Live(HOSTS / "x86-intel-npu")).devices
        npu = next(device for device in devices if device.kind == "npu")
        return [dict(one.options) for one in OpenvinoDelegate().configurations(model, npu, None)]

    assert ways() == [{}]
    fake(tmp_path, "ai_edge_litert", "2.3.0")
    assert ways() == [{}, {"through": "litert"}]

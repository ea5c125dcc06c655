"""The delegates that misbehave on request: right without a fault, and each fault as it is described."""

import ctypes
import gc
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil
import pytest

from tflite_hal import (
    Configuration,
    Delegate,
    DelegateError,
    Device,
    InterpreterSession,
    WorkerCrashedError,
    WorkerHungError,
    probe_host,
    read_model,
)
from tflite_hal.accuracy import Grade, compare
from tflite_hal.delegate import check_options
from tflite_hal.kernels import BuiltinKernels
from tflite_hal.remote import RemoteSession, open_remotely
from tflite_hal.runtime import load_runtime
from tflite_hal.session import Session
from tflite_hal.testing import DelegateConformance, FaultDelegate, PythonFaultDelegate, build_library, faults
from tflite_hal.testing.forwarding import ForwardingDelegate
from tflite_hal.testing.misbehaviour import ENDING, NUMERIC, STAGES, Settings, changed
from tflite_hal.trial import seeded_inputs

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = [ROOT / "examples" / name for name in ("digits_int8.tflite", "digits_float.tflite")]
REAL = [
    "ad01_fp32.tflite",
    "ad01_int8.tflite",
    "keras_lstm_mnist_ptq.tflite",
    "kws_ref_model.tflite",
    "kws_ref_model_float32.tflite",
    "mobilenet_v1_0.25_128_quant.tflite",
    "pretrainedResnet.tflite",
    "pretrainedResnet_quant.tflite",
    "str_ww_ref_model.tflite",
    "vww_96_float.tflite",
    "vww_96_int8.tflite",
]


class Faulty(NamedTuple):
    delegate: Delegate
    device: Device

    def open(self, path: Path, runtime: str, **options) -> Session:
        return self.delegate.open(
            read_model(path), self.device, Configuration(options), load_runtime(runtime)
        )

    def open_remotely(self, path: Path, runtime: str, **options) -> RemoteSession:
        return open_remotely(
            self.delegate, read_model(path), self.device, Configuration(options), load_runtime(runtime)
        )

    def native(self, runtime: str, **options):
        """Return what the interpreter takes."""
        if isinstance(self.delegate, FaultDelegate):
            return load_runtime(runtime).load_delegate(self.device.properties["library"], options)
        return ForwardingDelegate(Settings.checked("fault_python", options))


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library of the C delegate; skips where there is no compiler."""
    try:
        return build_library(tmp_path_factory.mktemp("faults"))
    except DelegateError as error:
        if "no C compiler" not in str(error):
            raise
        pytest.skip(str(error))


@pytest.fixture(params=["c", "python"])
def faulty(request: pytest.FixtureRequest) -> Faulty:
    """Each of the two delegates in turn."""
    if request.param == "python":
        return Faulty(PythonFaultDelegate(), Device("fault:0", "npu"))
    library = request.getfixturevalue("library")
    return Faulty(FaultDelegate(), Device("fault:0", "npu", properties={"library": str(library)}))


def answers(session: Session, path: Path, runs: int = 3, shapes=None) -> list[list[np.ndarray]]:
    """Run on as many different inputs, close, and return each run's outputs."""
    specs = read_model(path).info.inputs
    call = session.prepare(None, shapes)
    try:
        return [call.run(inputs_of(specs, seed, shapes)) for seed in range(runs)]
    finally:
        session.close()


def inputs_of(specs, seed: int, shapes) -> list[np.ndarray]:
    arrays = seeded_inputs(specs, seed)
    return (
        arrays if shapes is None else [np.resize(a, shape) for a, shape in zip(arrays, shapes, strict=True)]
    )


def builtin(path: Path, runtime: str, runs: int = 3, shapes=None) -> list[list[np.ndarray]]:
    session = BuiltinKernels().open(
        read_model(path), Device("cpu", "cpu"), Configuration(threads=1), load_runtime(runtime)
    )
    return answers(session, path, runs, shapes)


def equal(one: list[list[np.ndarray]], other: list[list[np.ndarray]]) -> bool:
    return all(
        np.array_equal(a, b)
        for mine, theirs in zip(one, other, strict=True)
        for a, b in zip(mine, theirs, strict=True)
    )


# ---- without a fault ----


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_without_a_fault_it_computes_as_the_runtime_does(
    faulty: Faulty, runtime_name: str, path: Path
) -> None:
    session = faulty.open(path, runtime_name, fault="none")
    assert session.coverage[:3] == (8, 8, 8)
    assert equal(answers(session, path), builtin(path, runtime_name))


@pytest.mark.engine("an external delegate through load_delegate")
@pytest.mark.parametrize("name", REAL)
def test_real_models_too(faulty: Faulty, runtime_name: str, models: Path, name: str) -> None:
    path = models / name
    session = faulty.open(path, runtime_name)
    total = sum(operator.occurrences for operator in read_model(path).info.operators)
    assert session.coverage[:3] == (total, total, total)
    assert equal(answers(session, path), builtin(path, runtime_name))


def test_a_resized_model_too(faulty: Faulty, runtime_name: str, models: Path) -> None:
    path, shapes = models / "pretrainedResnet.tflite", [(3, 32, 32, 3)]
    given = answers(faulty.open(path, runtime_name), path, shapes=shapes)
    assert given[0][0].shape == (3, 10)
    assert equal(given, builtin(path, runtime_name, shapes=shapes))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
@pytest.mark.parametrize(
    ("operators", "names"), [("3,4", ("CONV_2D", "DEPTHWISE_CONV_2D")), ("25", ("SOFTMAX",))]
)
def test_it_takes_the_operators_it_is_told_to(
    faulty: Faulty, runtime_name: str, path: Path, operators: str, names: tuple[str, ...]
) -> None:
    model = read_model(path)
    native = faulty.native(runtime_name, operators=operators)
    session = InterpreterSession(
        model, load_runtime(runtime_name), delegates=[native], default_delegates=False
    )
    wanted = sum(o.occurrences for o in model.info.operators if o.name in names)
    assert session.coverage[:3] == (wanted, 8, wanted)
    assert equal(answers(session, path), builtin(path, runtime_name))


def test_a_model_without_such_operators_is_refused(faulty: Faulty, runtime_name: str, digits: Path) -> None:
    with pytest.raises(DelegateError, match="took none of the 8 operators"):
        faulty.open(digits, runtime_name, operators="0")


class TestPythonDelegate(DelegateConformance):
    delegate = PythonFaultDelegate
    models = EXAMPLES


class TestLibraryDelegate(DelegateConformance):
    delegate = FaultDelegate
    models = EXAMPLES

    @pytest.fixture(autouse=True)
    def _found(self, library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(faults.VARIABLE, str(library))


# ---- faults that end a call or the process ----

ENDINGS = {
    "segv": "killed by SIGSEGV",
    "abort": "killed by SIGABRT",
    "exit0": "ended with exit status 0 without an answer",
    "exit7": "ended with exit status 7 without an answer",
    "hang": "no answer within 1 s",
}
WHILE = {"create": "opening", "delegate_prepare": "opening", "kernel_prepare": "opening", "run": "running"}


def provoke(faulty: Faulty, path: Path, runtime: str, **options) -> None:
    """Open, run twice, close."""
    session = faulty.open_remotely(path, runtime, **options)
    try:
        call = session.prepare()
        for seed in range(2):
            call.run(seeded_inputs(read_model(path).info.inputs, seed))
    finally:
        session.close()


@pytest.mark.parametrize("stage", WHILE)
@pytest.mark.parametrize("fault", ENDINGS)
def test_it_ends_the_process(
    faulty: Faulty, runtime_name: str, digits: Path, monkeypatch, fault: str, stage: str
) -> None:
    if fault == "hang":  # only where it is waited for: a busy machine opens slowly
        limit = "open" if WHILE[stage] == "opening" else "run"
        monkeypatch.setattr("tflite_hal.remote.session.LIMITS", {"open": 10.0, "run": 30.0, limit: 1.0})
    place = "run 2" if stage == "run" else stage
    error = WorkerHungError if fault == "hang" else WorkerCrashedError
    with pytest.raises(error) as caught:
        provoke(faulty, digits, runtime_name, fault=fault, stage=stage, at=2)
    assert ENDINGS[fault] in str(caught.value)
    assert f"while {WHILE[stage]} digits_int8.tflite" in str(caught.value)
    assert f"last words: tflite-hal fault injection: {fault} at {place}" in " ".join(
        str(caught.value).split()
    )


@pytest.mark.parametrize("fault", ENDINGS)
def test_it_ends_the_process_when_it_is_destroyed(
    faulty: Faulty, runtime_name: str, digits: Path, monkeypatch, fault: str
) -> None:
    monkeypatch.setattr("tflite_hal.remote.pool.CLOSE_LIMIT", 1.0)
    session = faulty.open_remotely(digits, runtime_name, fault=fault, stage="destroy")
    worker = session._shared.worker
    answers(session, digits)
    failure = worker._failure  # closing hides it: the session is gone either way
    assert isinstance(failure, WorkerHungError if fault == "hang" else WorkerCrashedError)
    assert ENDINGS[fault] in str(failure)
    assert f"{fault} at destroy" in str(failure)


@pytest.mark.parametrize("stage", ["create", "delegate_prepare", "kernel_prepare", "run"])
def test_an_error_is_told_and_the_worker_lives(
    faulty: Faulty, runtime_name: str, digits: Path, stage: str
) -> None:
    place = "run 2" if stage == "run" else stage
    keeper = faulty.open_remotely(digits, runtime_name)
    worker = keeper._shared.worker
    with pytest.raises(DelegateError, match=f"tflite-hal fault injection: error at {place}"):
        provoke(faulty, digits, runtime_name, fault="error", stage=stage, at=2)
    assert worker.alive
    assert equal(answers(keeper, digits), builtin(digits, runtime_name))


def test_an_error_lasts(faulty: Faulty, runtime_name: str, digits: Path) -> None:
    session = faulty.open(digits, runtime_name, fault="error", at=2)
    call, inputs = session.prepare(), seeded_inputs(read_model(digits).info.inputs)
    call.run(inputs)
    for run in (2, 3):
        with pytest.raises(DelegateError, match=f"error at run {run}"):
            call.run(inputs)
    session.close()


def test_destroying_it_with_an_error_is_said_on_stderr(
    faulty: Faulty, runtime_name: str, digits: Path, capfd
) -> None:
    session = faulty.open(digits, runtime_name, fault="error", stage="destroy")
    assert equal(answers(session, digits), builtin(digits, runtime_name))
    assert "tflite-hal fault injection: error at destroy\n" in capfd.readouterr().err


# ---- faults in numbers ----


def expected(fault: str, right: np.ndarray, before: np.ndarray) -> np.ndarray:
    """What the description says of an output that should be ``right``; ``before`` is the run before's."""
    whole = right.dtype.kind in "iu"
    if fault == "wrong":
        return ~right if whole else -right - np.ptp(right)
    if fault == "small":
        if not whole:
            return right + np.ptp(right) / np.float32(256) * np.float32(3)
        return np.where(right.astype(int) + 3 > np.iinfo(right.dtype).max, right - 3, right + 3)
    if fault in ("nan", "inf"):
        if whole:
            return right if fault == "nan" else np.full_like(right, np.iinfo(right.dtype).max)
        return np.full_like(right, float(fault))
    if fault == "stale":
        return before
    return np.full_like(right, 0 if fault == "zero" else right.flat[0])


def check_numbers(faulty: Faulty, path: Path, runtime: str, fault: str, at: int) -> None:
    right = builtin(path, runtime, runs=4)
    given = answers(faulty.open(path, runtime, fault=fault, at=at), path, runs=4)
    before = [np.zeros_like(array) for array in right[0]]
    for run, (own, correct) in enumerate(zip(given, right, strict=True), 1):
        for mine, theirs, old in zip(own, correct, before, strict=True):
            want = theirs if run < at else expected(fault, theirs, old)
            assert mine.dtype == theirs.dtype
            assert np.array_equal(mine, want, equal_nan=mine.dtype.kind == "f"), f"run {run}"
            if fault == "wrong" and run >= at:
                assert mine.argmax() != theirs.argmax()
        before = correct


@pytest.mark.parametrize("at", [1, 3])
@pytest.mark.parametrize("fault", NUMERIC)
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_it_changes_the_outputs_from_a_run_on(
    faulty: Faulty, runtime_name: str, path: Path, fault: str, at: int
) -> None:
    check_numbers(faulty, path, runtime_name, fault, at)


@pytest.mark.parametrize("fault", NUMERIC)
def test_it_changes_unsigned_outputs(faulty: Faulty, runtime_name: str, models: Path, fault: str) -> None:
    check_numbers(faulty, models / "mobilenet_v1_0.25_128_quant.tflite", runtime_name, fault, at=2)


def test_a_small_error_passes_the_conformance_tests_and_is_not_zero(runtime_name: str, digits: Path) -> None:
    python = Faulty(PythonFaultDelegate(), Device("fault:0", "npu"))
    right = builtin(digits, runtime_name)
    for steps in (1, 3):
        given = answers(python.open(digits, runtime_name, fault="small", steps=steps), digits)
        for (own,), (correct,) in zip(given, right, strict=True):
            off = np.abs(own.astype(int) - correct.astype(int))
            assert set(off.flat) == {steps}
    outputs = read_model(digits).info.outputs
    assert compare(right, given, outputs, "quantized").grade is Grade.OK


class NumbersOfC:
    """The functions of the header, reached through a library of one more function."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        source = Path(faults.__file__).with_name("faults_numbers.h")
        (folder / "faults.c").write_text(
            f'#include "{source}"\n'
            "void go(int type, void *data, int count, size_t bytes, int fault, long steps) {\n"
            "    int dims[2] = {1, count};\n"
            "    Tensor t = {.type = type, .data = data, .dims = (IntArray *)dims, .bytes = bytes};\n"
            "    Copy c = {0};\n"
            "    if (fault == STALE) { keep(&c, &t, true); free(c.data); }\n"
            "    else change(&t, fault, steps);\n}\n"
            "int find(const char *name) { int i = 0; while (strcmp(fault_names[i], name)) i++; return i; }\n"
        )
        monkeypatch.setattr("tflite_hal.testing.faults.__file__", str(folder / "faults.py"))
        self._library = ctypes.CDLL(str(build_library(folder)))

    def changed(self, fault: str, values: np.ndarray, steps: int, type_code: int) -> np.ndarray:
        result = values.copy()
        self._library.go(
            type_code,
            ctypes.c_void_p(result.ctypes.data),
            result.size,
            ctypes.c_size_t(result.nbytes),
            self._library.find(fault.encode()),
            ctypes.c_long(steps),
        )
        return result


TYPES = {"float32": 1, "int32": 2, "uint8": 3, "int64": 4, "bool": 6, "int16": 7, "int8": 9, "float64": 11}


def test_both_delegates_change_every_type_alike(library: Path, tmp_path: Path, monkeypatch) -> None:
    numbers = NumbersOfC(tmp_path, monkeypatch)
    random = np.random.default_rng(5)
    for name, code in TYPES.items():
        info = np.iinfo(name) if np.dtype(name).kind in "iu" else np.iinfo("int8")
        values = random.integers(info.min, info.max, 50, endpoint=True, dtype=info.dtype).astype(name)
        values[:2] = info.min, info.max
        for fault in NUMERIC[:-1]:
            own = numbers.changed(fault, values, 5, code)
            opaque = values.view(f"V{values.itemsize}") if name in ("bool", "float64") else values
            right = changed(fault, opaque, 5).view(name)
            assert np.array_equal(own, right, equal_nan=own.dtype.kind == "f"), (name, fault)
        assert not numbers.changed("stale", values, 5, code).any()


# ---- memory, options, building ----


def test_memory_stays_flat(faulty: Faulty, runtime_name: str, digits: Path) -> None:
    model, process = read_model(digits), psutil.Process()
    inputs = seeded_inputs(model.info.inputs)

    def cycle(times: int) -> int:
        for _ in range(times):
            session = faulty.open(digits, runtime_name, fault="stale")
            session.prepare().run(inputs)
            session.close()
        gc.collect()
        return process.memory_info().rss

    before = cycle(50)
    assert cycle(200) - before < 2 << 20


def test_an_exception_in_a_callback_is_kept(runtime_name: str, digits: Path, monkeypatch) -> None:
    native = ForwardingDelegate(Settings())
    monkeypatch.setattr("tflite_hal.testing.forwarding._Engine._wanted", lambda *_: 1 / 0)
    with pytest.raises(DelegateError, match="open failed"):
        InterpreterSession(read_model(digits), load_runtime(runtime_name), delegates=[native])
    assert isinstance(native.error, ZeroDivisionError)


@pytest.mark.parametrize(
    "options",
    [
        {"at": 0},
        {"steps": 0},
        {"steps": 128},
        {"operators": ""},
        {"operators": "3,"},
        {"operators": "CONV_2D"},
        {"operators": "5000"},
        {"fault": "zero", "stage": "create"},
    ],
    ids=str,
)
def test_options_that_cant_be_followed_are_refused(
    faulty: Faulty, runtime_name: str, digits: Path, options
) -> None:
    with pytest.raises(DelegateError, match=r"is not understood|at stage run only"):
        faulty.open(digits, runtime_name, **options)


def test_both_declare_the_same_options() -> None:
    assert FaultDelegate.options == PythonFaultDelegate.options
    for fault in ("none", *ENDING, *NUMERIC):
        for stage in STAGES:
            check_options(FaultDelegate(), {"fault": fault, "stage": stage})
    for wrong in ({"fault": "fire"}, {"stage": "later"}, {"at": "3"}):
        with pytest.raises(DelegateError):
            check_options(PythonFaultDelegate(), wrong)


def test_the_library_is_found_where_it_is_named(tmp_path: Path, monkeypatch) -> None:
    host = probe_host()
    monkeypatch.delenv(faults.VARIABLE, raising=False)
    (problem,) = FaultDelegate().probe(host).problems
    assert faults.VARIABLE in problem.evidence
    named = tmp_path / faults.LIBRARY
    monkeypatch.setenv(faults.VARIABLE, str(named))
    (problem,) = FaultDelegate().probe(host).problems
    assert problem.evidence == f"{named} is no file"
    named.touch()
    (device,) = FaultDelegate().probe(host).devices
    assert device.properties["library"] == str(named)
    assert FaultDelegate().probe(probe_host(tmp_path)).devices == ()


def test_a_compiler_that_is_missing_or_fails_is_named(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("CC", "/no/such/compiler -m32")
    with pytest.raises(DelegateError, match=r"no C compiler: /no/such/compiler.*PythonFaultDelegate"):
        build_library(tmp_path)
    monkeypatch.setenv("CC", "false")
    with pytest.raises(DelegateError, match=r"false can't compile faults\.c"):
        build_library(tmp_path)


def test_it_compiles_without_warnings(library: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("CC", "cc -std=c11 -D_DEFAULT_SOURCE -Wall -Wextra -Wpedantic -Werror")
    assert build_library(tmp_path).is_file()

"""Child processes: what crashes or hangs in one costs that one only."""

import os
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from tflite_hal import worker
from tflite_hal.errors import DelegateError, WorkerCrashedError, WorkerError, WorkerHungError
from tflite_hal.worker import SharedArrays, Worker, rebuilt_error, start_worker


def plugin(folder: Path, source: str) -> str:
    (folder / "misbehaving.py").write_text(textwrap.dedent(source))
    return "misbehaving"


def import_in(one: Worker, module: str, limit: float = 20.0) -> None:
    one.request("plugin", limit=limit, stage="importing it", module=module, plugin="misbehaving")


@pytest.fixture
def on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (
            "import os, signal; os.write(2, b'about to die\\n'); os.kill(os.getpid(), signal.SIGSEGV)",
            ["killed by SIGSEGV while importing it", "about to die"],
        ),
        ("import os; os.abort()", ["killed by SIGABRT"]),
        ("import os; os._exit(0)", ["exit status 0 without an answer"]),
        ("import os; os._exit(7)", ["exit status 7"]),
        ("import ctypes; ctypes.string_at(0)", ["killed by SIGSEGV"]),
    ],
)
def test_a_crash_is_named_with_signal_stage_and_last_words(
    on_path: Path, source: str, words: list[str]
) -> None:
    one = start_worker("plugin x", runtime=None)
    with pytest.raises(WorkerCrashedError) as caught:
        import_in(one, plugin(on_path, source))
    for word in ["plugin x", *words]:
        assert word in str(caught.value)
    with pytest.raises(WorkerCrashedError):
        import_in(one, "json")
    assert not one.alive


def test_a_hang_is_killed_at_its_limit_even_with_the_gil_held(on_path: Path) -> None:
    source = "import ctypes; print('waiting', flush=True); ctypes.PyDLL(None).pause()"
    one = start_worker("plugin x", runtime=None)
    with pytest.raises(
        WorkerHungError, match=r"no answer within 0.5 s while importing it; killed; last words: waiting"
    ):
        import_in(one, plugin(on_path, source), limit=0.5)
    with pytest.raises(ProcessLookupError):
        os.kill(one.pid, 0)


def test_an_exception_comes_back_and_the_worker_lives(on_path: Path) -> None:
    one = start_worker("plugin x", runtime=None)
    with pytest.raises(DelegateError, match="ModuleNotFoundError"):
        import_in(one, "no_such_module_anywhere")
    import_in(one, "json")
    one.close()
    one.close()
    assert not one.alive


def test_the_zygote_dies_and_another_is_started() -> None:
    one = start_worker("a", runtime=None)
    zygote = one._zygote
    zygote._process.kill()
    zygote._process.wait()
    two = start_worker("b", runtime=None)
    import_in(two, "json")
    two.close()


def test_no_interpreter_to_start_is_an_error_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    worker.shutdown()
    monkeypatch.setenv("TFLITE_HAL_PYTHON", "/no/such/python")
    with pytest.raises(WorkerError, match=r"no child process can be started.*TFLITE_HAL_PYTHON"):
        start_worker("x", runtime=None)
    monkeypatch.setenv("TFLITE_HAL_PYTHON", "/bin/true")
    with pytest.raises(WorkerError, match="did not start"):
        start_worker("x", runtime=None)


def test_environment_is_there_from_the_start_of_the_process(on_path: Path) -> None:
    source = "import os; assert os.environ['LD_LIBRARY_PATH'] == '/opt/x', os.environ.get('LD_LIBRARY_PATH')"
    one = start_worker("x", runtime=None, environment={"LD_LIBRARY_PATH": "/opt/x"})
    import_in(one, plugin(on_path, source))
    one.close()


def test_the_working_directory_is_not_searched(tmp_path: Path) -> None:
    (tmp_path / "numpy.py").write_text("raise SystemExit('the wrong numpy')")
    script = (
        "from tflite_hal.worker import start_worker\n"
        "w = start_worker('x', runtime=None)\nprint('started', w.alive)"
    )
    (tmp_path / "main.py").write_text(
        "import sys; sys.path.pop(0); import numpy; sys.path.insert(0, '')\n" + script
    )
    done = subprocess.run(
        [sys.executable, "main.py"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout == "started True\n"


SCRIPT = """
import sys, numpy
from tflite_hal import Runner
runner = Runner.auto(sys.argv[1])
zeros = numpy.zeros(runner.inputs[0].shape, "int8")
print(runner.delegate, runner.predict(zeros).shape)
print([e.message for e in runner.events])
"""


@pytest.mark.parametrize("how", ["script", "stdin", "-c", "thread"])
def test_it_works_from_everywhere(how: str, tmp_path: Path, digits: Path) -> None:
    text, command, given = SCRIPT, [sys.executable], None
    if how == "thread":
        text = (
            "def main():\n"
            + textwrap.indent(SCRIPT, "    ")
            + "\nimport threading\nt = threading.Thread(target=main)\nt.start(); t.join()\n"
        )
    if how in ("script", "thread"):
        (tmp_path / "application.py").write_text(text)
        command += ["application.py"]
    elif how == "-c":
        command += ["-c", text]
    else:
        command += ["-"]
        given = text
    done = subprocess.run(
        [*command, str(digits)], cwd=tmp_path, input=given, capture_output=True, text=True, check=False
    )
    assert done.stdout == "xnnpack (1, 10)\n[]\n", done.stderr
    # What the runtime itself says on loading is left alone.
    assert [line for line in done.stderr.splitlines() if "Created TensorFlow Lite XNNPACK" not in line] == []


def test_no_process_stays_behind(digits: Path) -> None:
    script = (
        "import sys, os\nfrom tflite_hal import Runner\nfrom tflite_hal.worker.process import _zygotes\n"
        "r = Runner.auto(sys.argv[1])\n"
        "print(*[z._process.pid for z in _zygotes.values()], flush=True)\nos.kill(os.getpid(), 9)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(digits)], stdout=subprocess.PIPE, text=True, check=False
    )
    pids = [int(pid) for pid in done.stdout.split()]
    assert pids
    for pid in pids:  # the zygote sees the end of its channel and leaves
        for _ in range(500):
            if not Path(f"/proc/{pid}").exists() or "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text():
                break
            threading.Event().wait(0.01)
        else:
            pytest.fail(f"process {pid} is still there")


def test_shared_arrays_of_two_views_are_the_same_memory() -> None:
    layout = [("<f4", (2, 3)), ("|i1", (7,)), ("<i8", ())]
    one = SharedArrays(layout)
    two = SharedArrays(layout, one.descriptor)
    one.arrays[0][...] = 3.5
    one.arrays[2][...] = -9
    assert two.arrays[0].tolist() == [[3.5] * 3] * 2
    assert two.arrays[2].item() == -9
    with pytest.raises(EOFError, match="smaller"):
        SharedArrays([("<f8", (1000, 1000))], one.descriptor)
    one.close_descriptor()


def test_an_error_of_unknown_type_is_rebuilt_as_a_worker_error() -> None:
    assert type(rebuilt_error({"type": "SystemExit", "reason": "x"})) is WorkerError
    assert type(rebuilt_error({"type": "annotations"})) is WorkerError
    assert type(rebuilt_error({"type": "DelegateError", "reason": "x"})) is DelegateError

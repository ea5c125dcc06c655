"""Child processes: what crashes or hangs in one costs that one only."""

import os
import signal
import socket
import struct
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from tflite_hal import worker
from tflite_hal.errors import (
    DelegateError,
    ModelError,
    PluginError,
    WorkerCrashedError,
    WorkerError,
    WorkerGoneError,
    WorkerHungError,
)
from tflite_hal.model import read_model
from tflite_hal.worker import Channel, SharedArrays, Worker, rebuilt_error, start_worker


def plugin(folder: Path, source: str) -> str:
    (folder / "misbehaving.py").write_text(textwrap.dedent(source))
    return "misbehaving"


def import_in(one: Worker, module: str, limit: float = 20.0) -> None:
    """Have a worker import any module: one without hooks is refused after that."""
    try:
        one.request("plugin", limit=limit, stage="importing it", module=module, plugin="misbehaving")
    except PluginError as error:
        assert "it has none of the hooks" in str(error)


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
    with pytest.raises(WorkerGoneError, match="plugin x"):  # it was not this request's fault
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
    with pytest.raises(ValueError, match="smaller"):
        SharedArrays([("<f8", (1000, 1000))], one.descriptor)
    one.close_descriptor()
    one.close_descriptor()


def test_an_error_of_unknown_type_is_rebuilt_as_a_worker_error() -> None:
    assert type(rebuilt_error({"type": "SystemExit", "reason": "x"})) is WorkerError
    assert type(rebuilt_error({"type": "annotations"})) is WorkerError
    assert type(rebuilt_error({"type": "DelegateError", "reason": "x"})) is DelegateError


def test_the_answer_to_an_interrupted_request_is_not_the_next_ones(on_path: Path) -> None:
    one = start_worker("a", runtime=None)
    receive = one._channel.receive

    def interrupted(deadline: float) -> None:
        one._channel.receive = receive
        raise KeyboardInterrupt

    one._channel.receive = interrupted
    with pytest.raises(KeyboardInterrupt):
        import_in(one, "no_such_module_anywhere")
    import_in(one, "json")
    one.close()


def test_ctrl_c_while_a_worker_is_forked_leaves_the_next_ones_their_own_numbers() -> None:
    one = start_worker("a", runtime=None)
    channel = one._zygote._channel
    receive = channel.receive

    def interrupted(deadline: float) -> None:
        channel.receive = receive
        raise KeyboardInterrupt

    channel.receive = interrupted
    with pytest.raises(KeyboardInterrupt):
        start_worker("b", runtime=None)
    two = start_worker("c", runtime=None)
    assert two.pid != one.pid
    two._zygote.kill(two.pid)
    import_in(one, "json")
    with pytest.raises(WorkerGoneError):
        import_in(two, "json")
    one.close()


def test_a_frame_cut_short_ends_the_worker(on_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = start_worker("a", runtime=None)

    def interrupted(size: int, deadline: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(one._channel, "_exactly", interrupted)
    with pytest.raises(KeyboardInterrupt):
        import_in(one, "json")
    with pytest.raises(WorkerError, match="interrupted while importing it"):
        import_in(one, "json")


def gone(pid: int) -> bool:
    """Whether a process ends within five seconds."""
    for _ in range(500):
        status = Path(f"/proc/{pid}/status")
        if not status.exists() or "\nState:\tZ" in status.read_text():
            return True
        threading.Event().wait(0.01)
    return False


def test_workers_end_with_their_zygote(on_path: Path) -> None:
    source = "import ctypes; print('hanging', flush=True); ctypes.PyDLL(None).pause()"
    one = start_worker("plugin x", runtime=None)
    two = start_worker("plugin y", runtime=None)
    import_in(two, "json")
    ends: list[WorkerError] = []

    def hang() -> None:
        try:
            import_in(one, plugin(on_path, source))
        except WorkerError as error:
            ends.append(error)

    hanging = threading.Thread(target=hang)
    hanging.start()
    while b"hanging" not in os.pread(one._words, 100, 0):
        threading.Event().wait(0.01)
    one._zygote._process.kill()
    assert gone(one.pid)
    assert gone(two.pid)
    hanging.join()
    assert "died together with its parent" in str(ends[0])


def test_a_worker_that_reads_nothing_is_given_up_at_the_limit() -> None:
    one = start_worker("a", runtime=None)
    os.kill(one.pid, signal.SIGSTOP)
    with pytest.raises(WorkerHungError, match=r"no answer within 0\.5 s"):
        one.request("ask", limit=0.5, stage="sending", blob=bytes(8 << 20))
    assert gone(one.pid)


def descriptors_open() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize(
    "frame",
    [
        b"NONS" + bytes(24),
        b"JSON" + struct.pack("<QIQI", 1, 3, 0, 0) + b"[1]",
        b"JSON" + struct.pack("<QIQI", 1, 3, 1 << 60, 0) + b"{} ",
        b"JSON" + struct.pack("<QIQI", 1, 2, 0, 3) + b"{}",
        b"JSON" + struct.pack("<QIQI", 1, 1 << 31, 0, 0),
        b"JSON" + struct.pack("<QIQI", 1, 4, 0, 0) + b"{\xff\xfe}",
    ],
)
def test_what_is_no_message_is_refused_and_leaks_nothing(frame: bytes) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        channel = Channel(ours)
        before = descriptors_open()
        socket.send_fds(theirs, [frame], [0])
        with pytest.raises(ValueError):
            channel.receive(time.monotonic() + 5)
        assert descriptors_open() == before
        assert not channel.in_step


def test_a_worker_that_answers_nonsense_is_killed(on_path: Path) -> None:
    source = """
        import gc, socket
        for found in gc.get_objects():
            if isinstance(found, socket.socket) and found.fileno() > 2:
                found.sendall(b"nonsense" * 8)
    """
    one = start_worker("plugin x", runtime=None)
    with pytest.raises(WorkerCrashedError, match="answered wrongly while importing it"):
        import_in(one, plugin(on_path, source))
    assert gone(one.pid)


@pytest.mark.parametrize(
    "source", ["raise SystemExit(3)", "import os; os.closerange(3, 100)", "raise KeyboardInterrupt"]
)
def test_one_worker_that_leaves_in_an_odd_way_costs_no_other(on_path: Path, source: str) -> None:
    other = start_worker("a", runtime=None)
    one = start_worker("plugin x", runtime=None)
    with pytest.raises(WorkerCrashedError, match="exit status"):
        import_in(one, plugin(on_path, source))
    import_in(other, "json")
    assert other._zygote.alive
    other.close()


@pytest.mark.parametrize("closed", [(0,), (1,), (0, 1, 2)])
def test_an_application_without_standard_streams(tmp_path: Path, closed: tuple[int, ...]) -> None:
    out = tmp_path / "out"
    script = (
        "import os, sys\n"
        + "".join(f"os.close({n})\n" for n in closed)
        + "from tflite_hal.worker import start_worker\n"
        "w = start_worker('x', runtime=None)\n"
        "w.request('plugin', limit=20, stage='x', module='tflite_hal_xnnpack', plugin='x')\n"
        f"open({str(out)!r}, 'w').write('answered')\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
    assert out.read_text() == "answered"


def test_a_forked_child_neither_waits_for_a_busy_worker_nor_ends_it(on_path: Path) -> None:
    one = start_worker("a", runtime=None)
    with one._lock:  # as of a thread in the middle of a call
        child = os.fork()
        if child == 0:
            os._exit(_in_child(one))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    import_in(one, "json")
    one.close()


def _in_child(one: Worker) -> int:
    try:
        import_in(one, "json")
    except WorkerError as error:
        if "forked" not in str(error):
            return 2
        one.close()
        one._finalizer()
        return 0
    return 1


def test_closing_needs_no_forked_process_to_end(on_path: Path) -> None:
    one = start_worker("a", runtime=None)
    ready, hold = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(hold)
        os.read(ready, 1)
        os._exit(0)
    statuses = []
    wait = one._zygote.wait
    one._zygote.wait = lambda pid: statuses.append(wait(pid))
    one.close()
    os.close(hold)
    os.waitpid(child, 0)
    assert statuses == [0]  # it saw the end: it did not have to be killed


def test_a_changed_working_folder_needs_no_other_zygote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = start_worker("a", runtime=None)
    monkeypatch.chdir(tmp_path)
    two = start_worker("b", runtime=None)
    assert one._zygote is two._zygote
    one.close()
    two.close()


def test_started_in_site_packages(digits: Path) -> None:
    import click

    site = Path(click.__file__).parents[1]
    script = (
        "from tflite_hal import PluginError\n"
        "from tflite_hal.worker import start_worker\n"
        "try:\n"
        "    one = start_worker('x', runtime=None)\n"
        "    one.request('plugin', limit=20, stage='x', module='click', plugin='x')\n"
        "except PluginError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=site, capture_output=True, text=True, check=True
    )
    assert "it has none of the hooks" in done.stdout, done.stderr  # it was found, and imported


LIMITED = """
import resource, sys, os
from tflite_hal import Runner
runner = Runner(sys.argv[1])
before = len(os.listdir("/proc/self/fd"))
runner.close()
resource.setrlimit(resource.RLIMIT_NOFILE, (before + 3, before + 3))  # two locks, the model
with Runner.auto(sys.argv[2]) as runner:
    runner.warmup(1)
    print(runner.device.id, "isolation" in [e.kind for e in runner.events])
"""


def test_without_a_free_descriptor_the_cpu_runs_unisolated(digits_float: Path, digits: Path) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-W",
            "ignore",
            "-c",
            LIMITED,
            str(digits),
            str(digits_float),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "cpu True\n", done.stderr[-2000:]


def test_without_a_temporary_folder(digits: Path) -> None:
    script = (
        "import sys; from tflite_hal import Runner; r = Runner.auto(sys.argv[1]); print(r.delegate, r.events)"
    )
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import tempfile; tempfile._get_default_tempdir = lambda: 1 / 0\n" + script,
            str(digits),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "xnnpack []\n", done.stderr[-2000:]


def test_a_worker_opens_no_other_model_than_its_parent_read(tmp_path: Path, digits: Path) -> None:
    """It looks for itself: the file may be replaced after the parent has looked."""
    own = tmp_path / "own.tflite"
    own.write_bytes(digits.read_bytes())
    stamp = read_model(own).stamp
    aside = tmp_path / "aside"
    aside.write_bytes(digits.read_bytes())
    aside.replace(own)
    one = start_worker("a", runtime=None)
    with pytest.raises(ModelError, match="was replaced after it was opened"):
        one.request(
            "open",
            limit=10,
            stage="opening",
            session=1,
            delegate="tflite_hal.kernels:BuiltinKernels",
            model=str(own),
            stamp=stamp,
            device={"id": "cpu", "kind": "cpu"},
            configuration={},
            runtime=None,
        )
    one.close()


@pytest.mark.skipif(not Path("/proc/self/oom_score_adj").exists(), reason="needs Linux")
def test_a_worker_is_ended_before_the_application_where_memory_runs_out() -> None:
    one = start_worker("a", runtime=None)
    own = int(Path("/proc/self/oom_score_adj").read_text())
    assert int(Path(f"/proc/{one.pid}/oom_score_adj").read_text()) == max(own, 500)
    limits = Path(f"/proc/{one.pid}/limits").read_text().splitlines()
    assert next(line for line in limits if line.startswith("Max core file size")).split()[4] == "0"
    one.close()

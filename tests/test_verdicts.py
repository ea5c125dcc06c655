"""What is remembered: never believed when damaged, never in the way, one trial for many processes."""

from __future__ import annotations

import errno
import json
import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from tflite_hal.cli import main
from tflite_hal.selection import Attempt, Outcome
from tflite_hal.verdicts import Verdict, Verdicts, cache_folder, key, processes, quarantined
from tflite_hal.verdicts.document import MAX_BYTES, canonical, decode, encode, storable
from tflite_hal.verdicts.locking import is_held

ROOT = Path(__file__).resolve().parents[1]
PARTS = {"model": "ab" * 32, "plugin": ["acme", "1.2"], "cpus": 4, "check": {"seed": 0, "limit": 0.5}}
KEY = key(PARTS)
ATTEMPT = Attempt("acme", "npu:0", "npu", "threads=1", "ai_edge_litert", Outcome.CHOSEN).to_dict()
posix = pytest.mark.skipif(os.name != "posix", reason="owners, modes and pipes of POSIX")
linux = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs Linux's /proc")

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "tflite-hal"


@pytest.fixture
def verdicts(folder: Path) -> Verdicts:
    return Verdicts(folder)


def attempt(outcome: Outcome, **details: object) -> dict[str, object]:
    return {**ATTEMPT, "outcome": outcome.value, **details}


def remembered(verdicts: Verdicts, outcome: Outcome = Outcome.CHOSEN, **details: object) -> Verdict:
    assert verdicts.finish(KEY, PARTS, attempt(outcome, **details))
    verdict = verdicts.read(KEY, PARTS)
    assert verdict is not None
    return verdict


@pytest.fixture(autouse=True)
def _umask() -> Iterator[None]:
    """Files written by a test are ours alone, whatever the umask of who runs it."""
    before = os.umask(0o077)
    yield
    os.umask(before)


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder for one example: a fixture would be shared by all of a test."""
    with TemporaryDirectory() as name:
        yield Path(name)


def child(code: str, *arguments: object, **options: object) -> subprocess.Popen[str]:
    code = "import os, sys\nfrom tflite_hal.verdicts import *\n" + code
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "plugins")])},
        **options,
    )


# ------------------------------------------------------------------------------------- where it is


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have other folders")
@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"TFLITE_HAL_CACHE_DIR": "/a", "CACHE_DIRECTORY": "/b", "HOME": "/"}, "/a"),
        ({"CACHE_DIRECTORY": "/var/cache/app:/var/cache/other", "HOME": "/"}, "/var/cache/app"),
        ({"TFLITE_HAL_CACHE_DIR": "", "XDG_CACHE_HOME": "/x", "HOME": "/"}, "/x/tflite-hal"),
        ({"XDG_CACHE_HOME": "relative", "HOME": "/"}, "/.cache/tflite-hal"),
        ({"HOME": "/nonexistent"}, None),
        ({"HOME": "relative"}, None),
        ({"HOME": ""}, None),
        ({}, None),
    ],
)
def test_the_folder(environment, expected, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TFLITE_HAL_CACHE_DIR", "CACHE_DIRECTORY", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert cache_folder() == (None if expected is None else Path(expected))


def everything(verdicts: Verdicts, model: Path) -> None:
    """Call all there is: nothing of it may raise, nor remember."""
    assert verdicts.read(KEY, PARTS) is None
    assert not verdicts.start(KEY, PARTS)
    assert not verdicts.finish(KEY, PARTS, ATTEMPT)
    assert not verdicts.finish(KEY, PARTS, attempt(Outcome.UNAVAILABLE))
    verdicts.cancel(KEY)
    with verdicts.lock(KEY, 0) as got:
        assert not got
    assert verdicts.entries() == []
    assert verdicts.forget() == 0
    assert verdicts.model_sha256(model, lambda: "now") == "now"
    assert verdicts.model_sha256("\0", lambda: "now") == "now"


def test_without_a_folder_there_is_one_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    verdicts = Verdicts(None)
    assert "TFLITE_HAL_CACHE_DIR" in verdicts.problem
    before = verdicts.problem
    everything(verdicts, Path(__file__))
    assert verdicts.problem == before
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_folders_place(tmp_path: Path) -> None:
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        (tmp_path / "file").write_text("mine")
        verdicts = Verdicts(place)
        everything(verdicts, Path(__file__))
        assert "otadirectory" in verdicts.problem.lower().replace(" ", "")
        assert (tmp_path / "file").read_text() == "mine"


@linux
@pytest.mark.parametrize("place", ["/proc/tflite-hal", "/sys/tflite-hal", "/dev/null", "\0", "x" * 5000])
def test_a_place_that_takes_no_folder(place: str) -> None:
    verdicts = Verdicts(Path(place))
    everything(verdicts, Path(__file__))
    assert verdicts.problem.startswith("nothing is remembered in ")


def test_a_full_disk(verdicts: Verdicts, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert verdicts.start(KEY, PARTS)

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        assert not verdicts.finish(KEY, PARTS, ATTEMPT)
    assert "No space left" in verdicts.problem
    # A beginning that can't be ended must not look like a trial that took the machine down.
    assert list(folder.iterdir()) == []
    assert verdicts.finish(KEY, PARTS, ATTEMPT)


def test_nothing_happens_before_something_is_remembered(verdicts: Verdicts, folder: Path) -> None:
    assert verdicts.read(KEY, PARTS) is None
    assert verdicts.entries() == [] and verdicts.forget() == 0
    assert not folder.parent.exists()
    assert verdicts.problem == ""
    assert verdicts.start(KEY, PARTS)
    if os.name == "posix":
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert stat.S_IMODE((folder / f"{KEY}.json").stat().st_mode) == 0o600


@posix
@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o720, 0o702])
def test_a_folder_that_others_can_write(verdicts: Verdicts, folder: Path, mode: int) -> None:
    remembered(verdicts)
    folder.chmod(mode)
    other = Verdicts(folder)
    everything(other, Path(__file__))
    remedy = "a folder of your own" if mode & 0o1000 else "chmod go-w"
    assert "others could change" in other.problem and remedy in other.problem
    assert (folder / f"{KEY}.json").exists()


@posix
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root gives files away")
def test_what_belongs_to_another_user(verdicts: Verdicts, folder: Path, tmp_path: Path) -> None:
    remembered(verdicts)
    os.chown(folder / f"{KEY}.json", 12345, -1)
    assert Verdicts(folder).read(KEY, PARTS) is None
    os.chown(folder / f"{KEY}.json", 0, -1)
    link = tmp_path / "link"
    link.symlink_to(folder)
    assert Verdicts(link).read(KEY, PARTS) is not None
    os.chown(link, 12345, -1, follow_symlinks=False)
    planted = Verdicts(link)
    assert planted.read(KEY, PARTS) is None and "another user" in planted.problem
    os.chown(folder, 12345, -1)
    other = Verdicts(folder)
    everything(other, Path(__file__))
    assert "belongs to user 12345" in other.problem


@posix
def test_a_folder_that_is_read_only_still_answers(verdicts: Verdicts, folder: Path, monkeypatch) -> None:
    """As on a root file system mounted read-only; root ignores modes, so the calls refuse."""
    remembered(verdicts)
    real = os.open

    def refuse(path, flags, *rest, **options):
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return real(path, flags, *rest, **options)

    monkeypatch.setattr(os, "open", refuse)
    other = Verdicts(folder)
    verdict = other.read(KEY, PARTS)
    assert verdict is not None and other.problem == ""
    with other.lock(KEY, 0) as got:
        assert not got
    assert not other.start(KEY, PARTS)
    assert "Read-only file system" in other.problem
    assert other.read(KEY, PARTS) == verdict


# --------------------------------------------------------------------------------- what is believed


def test_a_verdict_comes_back_as_it_was(verdicts: Verdicts, folder: Path) -> None:
    verdict = remembered(verdicts, limit=10.0)
    assert verdict.parts == PARTS and verdict.outcome is Outcome.CHOSEN and verdict.state == "finished"
    assert verdict.attempt == {**ATTEMPT, "limit": 10.0}
    assert Verdicts(folder).read(KEY, PARTS) == verdict
    assert [path.name for path in folder.iterdir()] == [f"{KEY}.json"]
    assert json.dumps(verdict.to_dict())


@given(st.dictionaries(st.text(), JSON, max_size=5))
def test_keys_are_those_of_the_content(parts: dict[str, object]) -> None:
    assert key(parts) == key(dict(reversed(parts.items()))) == key(json.loads(json.dumps(parts)))
    assert key({**parts, "": "other"}) == key(parts) or parts.get("") != "other"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), b"bytes", Path("x"), {1, 2}])
def test_keys_are_json_only(value: object) -> None:
    with pytest.raises((TypeError, ValueError)):
        key({"part": value})


@pytest.mark.parametrize("name", ["", "ab", "../" + "a" * 61, "A" * 64, "a" * 64 + "\n"])
def test_a_key_is_no_path(verdicts: Verdicts, name: str) -> None:
    for call in (
        lambda: verdicts.read(name, PARTS),
        lambda: verdicts.start(name, PARTS),
        lambda: verdicts.cancel(name),
        lambda: verdicts.lock(name, 0).__enter__(),
    ):
        with pytest.raises(ValueError, match="no key"):
            call()


@settings(max_examples=60, deadline=None)
@given(
    parts=st.dictionaries(st.text(), JSON, max_size=4), details=st.dictionaries(st.text(), JSON, max_size=4)
)
def test_any_json_comes_back(parts: dict[str, object], details: dict[str, object]) -> None:
    with scratch() as folder:
        verdicts = Verdicts(folder)
        given = {**details, "outcome": "failed"}
        assert verdicts.finish(key(parts), parts, given)
        verdict = verdicts.read(key(parts), parts)
        assert verdict is not None and canonical(verdict.parts) == canonical(parts)
        assert canonical(verdict.attempt) == canonical(storable(given))


def test_every_cut_is_the_verdict_or_nothing(verdicts: Verdicts, folder: Path) -> None:
    verdict = remembered(verdicts)
    file = folder / f"{KEY}.json"
    whole = file.read_bytes()
    for end in range(len(whole)):
        file.write_bytes(whole[:end])
        assert verdicts.read(KEY, PARTS) in ((verdict,) if whole[:end] == whole.strip() else (None,)), end
        assert [entry.key for entry in verdicts.entries()] == [KEY]


def test_every_damaged_byte_is_the_verdict_or_nothing(verdicts: Verdicts, folder: Path) -> None:
    verdict = remembered(verdicts)
    file = folder / f"{KEY}.json"
    whole = file.read_bytes()
    for place in range(len(whole)):
        for bit in (0x01, 0x20):
            damaged = bytearray(whole)
            damaged[place] ^= bit
            file.write_bytes(damaged)
            assert verdicts.read(KEY, PARTS) in (None, verdict), place


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_no_verdict(content: bytes) -> None:
    with scratch() as folder:
        (folder / f"{KEY}.json").write_bytes(content)
        verdicts = Verdicts(folder)
        assert verdicts.read(KEY, PARTS) is None
        (entry,) = verdicts.entries()
        assert entry.verdict is None and entry.problem and verdicts.unusable == {KEY: entry.problem}
        assert verdicts.problem == ""
        assert remembered(verdicts).state == "finished"


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_what_is_well_formed_but_nonsense_is_no_verdict(data: st.DataObject) -> None:
    body = {"parts": PARTS, "outcome": "chosen", "attempt": {}, "when": 1.0, "process": [1, "", "", ""]}
    name = data.draw(st.sampled_from(sorted(body)))
    value = data.draw(JSON | st.sampled_from(["untried", "unavailable", -1.0, 1e300, [1, 2, 3, 4], {"a": 1}]))
    with scratch() as folder:
        (folder / f"{KEY}.json").write_bytes(encode({**body, name: value}))
        verdict = Verdicts(folder).read(KEY, PARTS)
        if verdict is not None:
            assert isinstance(verdict.attempt, dict) and verdict.day and verdict.outcome in (*Outcome, None)
            assert isinstance(quarantined(verdict, 1.0), str) and json.dumps(verdict.to_dict())


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"[" * 60_000, "deep"),
        (b"9" * 60_000, "not JSON"),
        (b" " * (MAX_BYTES + 1), "longer than"),
        (b"\xff\xfe", "not JSON"),
        (b"[]", "not a file of this package"),
        (b'{"format": 2, "sum": "", "body": {}}', "format 2"),
        (b'{"format": 1, "sum": "", "body": {"a": 1e999}}', "not JSON compliant"),
        (b'{"format": 1, "sum": "", "body": {}}', "edited"),
    ],
)
def test_strange_files_are_told(verdicts: Verdicts, folder: Path, content: bytes, reason: str) -> None:
    folder.mkdir(parents=True, mode=0o700)
    (folder / f"{KEY}.json").write_bytes(content)
    assert verdicts.read(KEY, PARTS) is None
    assert reason in verdicts.entries()[0].problem
    assert verdicts.forget() == 1


@posix
@pytest.mark.parametrize("kind", ["fifo", "folder", "link", "dangling", "loop", "open to all"])
def test_what_is_no_file_of_ours_is_not_read(verdicts: Verdicts, folder: Path, kind: str) -> None:
    remembered(verdicts)
    file = folder / f"{KEY}.json"
    file.rename(folder / "real")
    if kind == "fifo":
        os.mkfifo(file)
    elif kind == "folder":
        file.mkdir()
    elif kind == "open to all":
        (folder / "real").rename(file)
        file.chmod(0o666)
    else:
        file.symlink_to({"link": "real", "dangling": "nowhere", "loop": file.name}[kind])
    assert verdicts.read(KEY, PARTS) is None
    assert verdicts.entries()[0].problem
    assert verdicts.problem == ""
    if kind != "folder":
        assert verdicts.finish(KEY, PARTS, ATTEMPT)
    else:
        assert not verdicts.finish(KEY, PARTS, ATTEMPT) and verdicts.forget() == 0
        assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == []


def test_a_verdict_about_something_else(verdicts: Verdicts, folder: Path) -> None:
    remembered(verdicts)
    other = key({})
    (folder / f"{KEY}.json").rename(folder / f"{other}.json")
    assert verdicts.read(other, {}) is None
    assert "something else" in verdicts.unusable[other]
    assert remembered(verdicts) and verdicts.read(KEY, {}) is None


def test_what_proves_nothing_is_not_remembered(verdicts: Verdicts, folder: Path) -> None:
    for outcome in (Outcome.UNAVAILABLE, Outcome.EXCLUDED, Outcome.UNTRIED, Outcome.QUARANTINED):
        assert verdicts.start(KEY, PARTS)
        assert not verdicts.finish(KEY, PARTS, attempt(outcome))
        assert list(folder.iterdir()) == []
    assert verdicts.problem == ""
    with pytest.raises(ValueError, match="nonsense"):
        verdicts.finish(KEY, PARTS, {**ATTEMPT, "outcome": "nonsense"})


def test_the_last_words_of_a_library_are_cut(verdicts: Verdicts) -> None:
    words = "begin" + "x" * 10**6 + "end"
    verdict = remembered(verdicts, Outcome.CRASHED, reason=words, errors=[float("nan"), float("-inf")])
    assert verdict.attempt["reason"].startswith("begin") and verdict.attempt["reason"].endswith("end")
    assert verdict.attempt["errors"] == [None, None]


def test_parts_that_are_too_long(verdicts: Verdicts, folder: Path) -> None:
    parts = {"model": "x" * MAX_BYTES}
    assert not verdicts.start(key(parts), parts)
    assert not verdicts.finish(key(parts), parts, ATTEMPT)
    assert "too many" in verdicts.problem
    assert not folder.exists()


# ------------------------------------------------------------------------------------- quarantine


def test_quarantine(verdicts: Verdicts) -> None:
    crashed = remembered(verdicts, Outcome.CRASHED, stage="run", reason="signal 11")
    assert quarantined(crashed, 1e9) == f"it crashed at run on {crashed.day}: signal 11"
    assert crashed.remedy == f"tflite-hal verdicts forget {KEY[:12]}"
    hung = remembered(verdicts, Outcome.HUNG, limit=10.0)
    assert quarantined(hung, 10.0).startswith("it hung on ")
    assert quarantined(hung, 10.1) == ""
    assert quarantined(remembered(verdicts, Outcome.HUNG), 1e9)
    for outcome in (Outcome.CHOSEN, Outcome.SLOWER, Outcome.DEGRADED, Outcome.WRONG, Outcome.FAILED):
        assert quarantined(remembered(verdicts, outcome), 1.0) == ""


def begun(folder: Path) -> Verdict:
    verdict = Verdicts(folder).read(KEY, PARTS)
    assert verdict is not None and verdict.outcome is None
    return verdict


START = """
import json
verdicts, parts = Verdicts(__import__('pathlib').Path(sys.argv[1])), json.loads(sys.argv[2])
with verdicts.lock(key(parts), 60) as got:
    verdicts.start(key(parts), parts)
    print(got, flush=True)
    sys.stdin.read()
    verdicts.finish(key(parts), parts, {"outcome": "chosen"})
"""


def test_the_beginning_of_a_process_that_is_there(folder: Path) -> None:
    with child(START, folder, json.dumps(PARTS)) as process:
        assert process.stdout is not None and process.stdout.readline() == "True\n"
        assert begun(folder).state == "started"
        assert quarantined(begun(folder), 1.0) == ""
        other = Verdicts(folder)
        with other.lock(KEY, 0) as got:
            assert not got
        assert other.problem == ""
        other.cancel(KEY)  # not its own
        assert begun(folder).state == "started"
        process.communicate("")
    assert process.returncode == 0
    verdict = Verdicts(folder).read(KEY, PARTS)
    assert verdict is not None and verdict.state == "finished"
    assert [path.name for path in folder.iterdir()] == [f"{KEY}.json"]


@posix
def test_the_beginning_of_a_process_that_was_killed(folder: Path) -> None:
    with child(START, folder, json.dumps(PARTS)) as process:
        assert process.stdout is not None and process.stdout.readline() == "True\n"
        process.send_signal(signal.SIGKILL)
        # Not waited for yet: dead, though its number is still taken.
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert begun(folder).state == "interrupted"
        process.wait()
        assert "took the machine or the process down" in quarantined(begun(folder), 1.0)
        with Verdicts(folder).lock(KEY, 0) as got:  # the kernel freed it; the file it left is used again
            assert got
        assert [path.name for path in folder.iterdir()] == [f"{KEY}.json"]


@linux
@pytest.mark.parametrize("changed", [{"boot": "earlier"}, {"namespace": "pid:[1]"}, {"start": ""}])
def test_the_beginning_of_another_boot_or_container(folder: Path, changed, monkeypatch) -> None:
    """Its number says nothing here; the lock does."""
    mine = processes.this_process()
    assert all(mine)
    there, here = Verdicts(folder), Verdicts(folder)
    with there.lock(KEY, 0) as got:
        assert got
        with monkeypatch.context() as patch:
            patch.setattr("tflite_hal.verdicts.store.this_process", lambda: mine._replace(**changed))
            assert there.start(KEY, PARTS)
        assert here.read(KEY, PARTS).state == "started"
        assert there.read(KEY, PARTS).state == "interrupted"  # who holds the lock knows that no one tries
    assert here.read(KEY, PARTS).state == "interrupted"


@linux
def test_a_number_that_was_given_again(verdicts: Verdicts, folder: Path, monkeypatch) -> None:
    mine = processes.this_process()
    monkeypatch.setattr("tflite_hal.verdicts.store.this_process", lambda: mine._replace(start="1"))
    assert verdicts.start(KEY, PARTS)
    assert begun(folder).state == "interrupted"


@linux
def test_without_proc_the_lock_tells(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(processes, "_BOOT", tmp_path / "none")
    assert processes.this_process() == (os.getpid(), "", "", "")
    verdicts = Verdicts(folder)
    with verdicts.lock(KEY, 0):
        assert verdicts.start(KEY, PARTS)
        assert begun(folder).state == "started"
    assert begun(folder).state == "interrupted"


def test_a_beginning_can_be_withdrawn(verdicts: Verdicts, folder: Path) -> None:
    verdicts.start(KEY, PARTS)
    assert begun(folder).state == "started"
    verdicts.cancel(KEY)
    verdicts.cancel(KEY)
    assert verdicts.read(KEY, PARTS) is None
    verdict = remembered(verdicts)
    verdicts.cancel(KEY)
    assert verdicts.read(KEY, PARTS) == verdict
    (folder / f"{KEY}.json").write_text("{")
    verdicts.cancel(KEY)
    assert (folder / f"{KEY}.json").read_text() == "{"


# ----------------------------------------------------------------------------------- many at a time

RACE = """
import json
from pathlib import Path
verdicts, parts, trials = Verdicts(Path(sys.argv[1])), json.loads(sys.argv[2]), sys.argv[3]
print("ready", flush=True)
sys.stdin.readline()
with verdicts.lock(key(parts), 60) as got:
    assert got, verdicts.problem
    if verdicts.read(key(parts), parts) is None:
        verdicts.start(key(parts), parts)
        with open(trials, "a") as file:
            file.write("trial\\n")
        verdicts.finish(key(parts), parts, {"outcome": "chosen"})
print(verdicts.read(key(parts), parts).state, flush=True)
"""


@pytest.mark.parametrize("count", [2, 5])
def test_processes_that_start_together_make_one_trial(folder: Path, tmp_path: Path, count: int) -> None:
    trials = tmp_path / "trials"
    racers = [child(RACE, folder, json.dumps(PARTS), trials) for _ in range(count)]
    for racer in racers:
        assert racer.stdout is not None and racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("\n")
        racer.stdin.flush()
    assert [racer.communicate()[0] for racer in racers] == ["finished\n"] * count
    assert trials.read_text() == "trial\n"
    assert [path.name for path in folder.iterdir()] == [f"{KEY}.json"]


def test_the_lock_lets_one_in_at_a_time(folder: Path) -> None:
    """Also where its file is removed by who leaves while others wait for it."""
    inside, most, failed = [0], [0], []

    def work() -> None:
        verdicts = Verdicts(folder)
        for _ in range(40):
            with verdicts.lock(KEY, 60) as got:
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                if not got:
                    failed.append(verdicts.problem)
                inside[0] -= 1

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed and most == [1]
    assert list(folder.iterdir()) == []


def test_a_file_system_without_locks(verdicts: Verdicts, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: int) -> bool:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("tflite_hal.verdicts.locking._take", refuse)
    with verdicts.lock(KEY, 60) as got:
        assert not got
        assert remembered(verdicts)
    assert "lock" in verdicts.problem


@posix
def test_a_forked_process_does_not_end_the_lock_of_its_parent(verdicts: Verdicts, folder: Path) -> None:
    code = """
from pathlib import Path
from tflite_hal.verdicts.locking import is_held
verdicts, name = Verdicts(Path(sys.argv[1])), "a" * 64
lock = Path(sys.argv[1]) / (name + ".lock")
with verdicts.lock(name, 0):
    pid = os.fork()
    if pid:
        os.waitpid(pid, 0)
        print(is_held(lock))
if not pid:
    os._exit(0)
print(is_held(lock))
"""
    with child(code, folder) as process:
        assert process.communicate()[0] == "True\nFalse\n"


def test_writers_at_the_same_time_leave_one_whole_file(folder: Path) -> None:
    def write(name: str) -> None:
        verdicts = Verdicts(folder)
        for number in range(20):
            assert verdicts.finish(KEY, PARTS, attempt(Outcome.FAILED, reason=f"{name} {number} " * 50))

    threads = [threading.Thread(target=write, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    reader = Verdicts(folder)
    while any(thread.is_alive() for thread in threads):
        reader.read(KEY, PARTS)
        assert reader.unusable == {}
    for thread in threads:
        thread.join()
    verdict = reader.read(KEY, PARTS)
    assert verdict is not None and verdict.attempt["reason"].split()[1] == "19"
    assert [path.name for path in folder.iterdir()] == [f"{KEY}.json"]


class Store(RuleBasedStateMachine):
    """Against a dictionary: whatever is done in whatever order, what is read is what was written."""

    keys = Bundle("keys")

    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory()
        self.verdicts = Verdicts(Path(self.folder.name))
        self.expected: dict[str, str | None] = {}
        self.parts: dict[str, dict[str, object]] = {}

    @rule(target=keys, parts=st.dictionaries(st.sampled_from("ab"), st.integers(0, 2), max_size=2))
    def name(self, parts: dict[str, object]) -> str:
        self.parts[key(parts)] = parts
        return key(parts)

    @rule(name=keys)
    def start(self, name: str) -> None:
        assert self.verdicts.start(name, self.parts[name])
        self.expected[name] = "started"

    @rule(name=keys, outcome=st.sampled_from(Outcome))
    def finish(self, name: str, outcome: Outcome) -> None:
        stored = self.verdicts.finish(name, self.parts[name], attempt(outcome))
        lasting = outcome.value not in ("unavailable", "excluded", "untried", "quarantined")
        assert stored == lasting
        if stored:
            self.expected[name] = outcome.value
        elif self.expected.get(name) == "started":
            del self.expected[name]

    @rule(name=keys)
    def damage(self, name: str) -> None:
        file = Path(self.folder.name) / f"{name}.json"
        if file.exists():
            file.write_bytes(file.read_bytes()[:-2])
            self.expected[name] = None

    @rule(name=keys, length=st.integers(1, 64))
    def forget(self, name: str, length: int) -> None:
        gone = [one for one in self.expected if one.startswith(name[:length])]
        assert self.verdicts.forget(name[:length]) == len(gone)
        for one in gone:
            del self.expected[one]

    @rule()
    def forget_all(self) -> None:
        assert self.verdicts.forget() == len(self.expected)
        assert list(Path(self.folder.name).iterdir()) == []
        self.expected.clear()

    @rule()
    def another_process(self) -> None:
        self.verdicts = Verdicts(Path(self.folder.name))

    @invariant()
    def reads_what_was_written(self) -> None:
        for name, parts in self.parts.items():
            verdict = self.verdicts.read(name, parts)
            said = None if verdict is None else verdict.state if verdict.outcome is None else verdict.outcome
            assert said == self.expected.get(name)
        assert [entry.key for entry in self.verdicts.entries()] == sorted(self.expected)
        assert self.verdicts.problem == ""

    def teardown(self) -> None:
        self.folder.cleanup()


TestStore = Store.TestCase
TestStore.settings = settings(max_examples=30, stateful_step_count=15, deadline=None)


# ------------------------------------------------------------------------------- forgetting, models


def test_forgetting_removes_what_is_ours_only(verdicts: Verdicts, folder: Path, tmp_path: Path) -> None:
    remembered(verdicts)
    aged = tmp_path / "m.tflite"
    aged.write_bytes(b"model")
    os.utime(aged, (1e9, 1e9))
    verdicts.model_sha256(aged, lambda: "c" * 64)
    mine = [f"{'b' * 64}.lock", f".writing-1-{'0' * 16}", f"{'b' * 64}.json"]
    others = ["notes.txt", "b.json", f"{'b' * 63}g.json", f"{'B' * 64}.json", ".writing", f"{'b' * 65}.json"]
    for name in mine + others:
        (folder / name).write_text("x")
    assert len(list(folder.iterdir())) == 2 + len(mine) + len(others)
    assert verdicts.forget("b" * 10) == 1 and verdicts.forget("") == 0 and verdicts.forget("..") == 0
    assert verdicts.forget() == 1
    assert sorted(path.name for path in folder.iterdir()) == sorted(others)
    assert verdicts.problem == ""


def test_forgetting_keeps_locks_that_are_held(verdicts: Verdicts, folder: Path) -> None:
    with verdicts.lock(KEY, 0):
        assert Verdicts(folder).forget() == 0
        assert is_held(folder / f"{KEY}.lock")
    assert not is_held(folder / f"{KEY}.lock")


class Hash:
    """Counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self) -> str:
        self.asked += 1
        return f"{self.asked:064x}"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    file = tmp_path / "m.tflite"
    file.write_bytes(b"model")
    os.utime(file, (1e9, 1e9))
    return file


def test_an_unchanged_model_is_hashed_once(folder: Path, model: Path, monkeypatch) -> None:
    hash_now = Hash()
    first = Verdicts(folder).model_sha256(model, hash_now)
    assert Verdicts(folder).model_sha256(str(model), hash_now) == first
    monkeypatch.chdir(model.parent)
    assert Verdicts(folder).model_sha256("m.tflite", hash_now) == first
    assert hash_now.asked == 1


@pytest.mark.parametrize("change", ["content", "time", "replaced", "replaced in place", "damaged"])
def test_a_changed_model_is_hashed_again(folder: Path, model: Path, change: str) -> None:
    verdicts, hash_now = Verdicts(folder), Hash()
    verdicts.model_sha256(model, hash_now)
    if change == "content":
        model.write_bytes(b"longer model")
        os.utime(model, (1e9, 1e9))
    elif change == "time":
        os.utime(model, (1e9 + 1, 1e9 + 1))
    elif change == "replaced":
        new = model.with_suffix(".new")
        new.write_bytes(b"other")
        os.utime(new, (1e9, 1e9))
        new.replace(model)
    elif change == "replaced in place":
        model.write_bytes(b"other")
        os.utime(model, (1e9, 1e9))  # the time of the last change still tells, where there is one
        if os.name != "posix":
            return
    else:
        (file,) = folder.iterdir()
        file.write_bytes(file.read_bytes()[:-5])
    assert verdicts.model_sha256(model, hash_now) == f"{2:064x}"
    assert verdicts.model_sha256(model, hash_now) == f"{2:064x}"


def test_a_model_just_written_is_not_remembered(folder: Path, model: Path, monkeypatch) -> None:
    verdicts, hash_now = Verdicts(folder), Hash()
    for since, asked in ((0, 1), (1.9, 2), (-100, 3), (2.1, 4), (0, 4)):
        monkeypatch.setattr("tflite_hal.verdicts.identity.time.time_ns", lambda s=since: int((1e9 + s) * 1e9))
        verdicts.model_sha256(model, hash_now)
        assert hash_now.asked == asked


def test_a_model_that_changes_while_it_is_hashed(folder: Path, model: Path) -> None:
    def changing() -> str:
        model.write_bytes(b"another model")
        os.utime(model, (1e9, 1e9))
        return "a" * 64

    def removing() -> str:
        model.unlink()
        return "b" * 64

    verdicts = Verdicts(folder)
    assert verdicts.model_sha256(model, changing) == "a" * 64
    assert verdicts.model_sha256(model, removing) == "b" * 64
    assert not folder.exists()

    def failing() -> str:
        raise FileNotFoundError(str(model))

    with pytest.raises(FileNotFoundError):
        verdicts.model_sha256(model, failing)


def test_an_entry_about_another_model_or_without_a_hash(folder: Path, model: Path) -> None:
    verdicts = Verdicts(folder)
    verdicts.model_sha256(model, lambda: "a" * 64)
    (file,) = folder.iterdir()
    body = decode(file.read_bytes())
    for change in ({"sha256": "short"}, {"sha256": None}, {"file": None}, {"file": body["file"][:-1]}):
        file.write_bytes(encode({**body, **change}))
        assert verdicts.model_sha256(model, lambda: "b" * 64) == "b" * 64


# -------------------------------------------------------------------------------------- the command


@pytest.fixture
def command(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TFLITE_HAL_CACHE_DIR", str(folder))
    monkeypatch.setenv("COLUMNS", "300")

    def call(*arguments: str, status: int = 0) -> Result:
        result = CliRunner().invoke(main, ["verdicts", *arguments])
        assert result.exit_code == status, (result.output, result.exception)
        return result

    return call


def test_listing_and_showing(command, verdicts: Verdicts, folder: Path) -> None:
    assert "nothing is remembered" in command("list").stdout
    assert json.loads(command("list", "--json").stdout) == []
    assert not folder.exists()
    remembered(verdicts, Outcome.CRASHED, stage="run", reason="signal 11 [bold]")
    (folder / f"{'f' * 64}.json").write_text("{")
    begun_parts = {"delegate": "acme", "device": "npu:0"}
    verdicts.start(key(begun_parts), begun_parts)
    text = command("list").stdout
    assert "acme on npu:0" in text and "signal 11 [bold]" in text and "no verdict: not JSON" in text
    rows = {row["key"]: row for row in json.loads(command("list", "--json").stdout)}
    assert rows[KEY]["outcome"] == "crashed" and rows[KEY]["quarantined"]
    assert rows["f" * 64]["state"] == "unusable"
    assert rows[key(begun_parts)]["state"] == "started"
    assert json.loads(command("show", KEY[:8], "--json").stdout) == rows[KEY]
    assert "signal 11 [bold]" in command("show", KEY[:8]).stdout
    assert "not JSON" in command("show", "ffff").stdout


def test_forgetting_by_command(command, verdicts: Verdicts, folder: Path) -> None:
    remembered(verdicts)
    assert "list" in command("forget", "0" * 64, status=2).stderr
    assert "KEY" in command("forget", status=2).stderr
    assert "KEY" in command("forget", KEY, "--all", status=2).stderr
    assert verdicts.entries() != []
    assert command("forget", KEY[:12]).stdout == "1 forgotten\n"
    remembered(verdicts)
    assert command("forget", "--all").stdout == "1 forgotten\n"
    assert command("forget", "--all").stdout == "0 forgotten\n"
    assert list(folder.iterdir()) == []


def test_showing_what_is_not_there(command, verdicts: Verdicts) -> None:
    remembered(verdicts)
    verdicts.start(key({}), {})
    assert "no verdict begins with 'x'" in command("show", "x", status=2).stderr
    assert "2 verdicts begin with ''" in command("show", "", status=2).stderr


@posix
def test_a_folder_that_is_not_to_be_trusted_by_command(command, verdicts: Verdicts, folder: Path) -> None:
    remembered(verdicts)
    folder.chmod(0o777)
    for arguments in (["list"], ["show", KEY], ["forget", KEY], ["forget", "--all"]):
        (line,) = command(*arguments, status=2).stderr.splitlines()
        assert line.startswith("tflite-hal: ") and "chmod go-w" in line


# ---------------------------------------------------------------------------------------- its price


def test_it_is_cheap_to_import() -> None:
    heavy = [
        "yaml",
        "psutil",
        "pluggy",
        "importlib.metadata",
        "click",
        "rich",
        "tempfile",
        "secrets",
        "datetime",
    ]
    code = f"print([name for name in {heavy} if name in sys.modules])"
    bare = subprocess.run(
        [sys.executable, "-c", f"import sys, numpy; {code}"], capture_output=True, text=True, check=True
    )
    with child(code) as process:
        assert process.communicate()[0] == bare.stdout

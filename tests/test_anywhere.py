"""It works in the places where applications really live."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parent / "example_plugin" / "tflite_hal_acme.py"

#: Opens automatically and in a worker, and says that both answer alike.
USE = """
import sys, numpy as np
from tflite_hal import Runner
x = np.full((1, 8, 8, 1), 3, "int8")
def use():
    with Runner.auto(sys.argv[1]) as auto, Runner(sys.argv[1], delegate="acme") as acme:
        return bool(np.array_equal(auto.predict(x), acme.predict(x))), [e.kind for e in auto.events]
"""


def run(code: str, *arguments: object, prefix: tuple[str, ...] = (), **variables: str) -> str:
    """Run an application with what is installed for this test, and no setting but those given."""
    environment = {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p), "PATH": os.environ["PATH"]}
    done = subprocess.run(
        [*prefix, sys.executable, "-W", "ignore", "-c", code, *map(str, arguments)],
        env={**environment, **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture
def acme(install) -> None:
    install("acme", EXAMPLE.read_text())


@pytest.mark.usefixtures("acme")
def test_without_a_home_there_is_no_memory_and_all_works(digits: Path) -> None:
    assert run(USE + "print(use())", digits) == "(True, ['memory'])\n"


@pytest.mark.usefixtures("acme")
def test_inside_a_running_event_loop(digits: Path, tmp_path: Path) -> None:
    code = USE + (
        "import asyncio\n"
        "async def main():\n"
        "    here = use()\n"
        "    there = await asyncio.to_thread(use)\n"
        "    print(here, there)\n"
        "asyncio.run(main())\n"
    )
    assert run(code, digits, TFLITE_HAL_CACHE_DIR=str(tmp_path / "c")) == "(True, []) (True, [])\n"


@pytest.mark.usefixtures("acme")
def test_beside_tensorflow_or_both_runtimes(digits: Path, tmp_path: Path) -> None:
    code = (
        "import importlib\n"
        "for name in ('tensorflow', 'ai_edge_litert.interpreter', 'tflite_runtime.interpreter'):\n"
        "    try:\n        importlib.import_module(name)\n"
        "    except Exception:\n        pass  # not installed, or not with this numpy\n"
    )
    assert (
        run(code + USE + "print(use())", digits, TFLITE_HAL_CACHE_DIR=str(tmp_path / "c")) == "(True, [])\n"
    )


def may_mount() -> bool:
    if shutil.which("unshare") is None:
        return False
    command = ["unshare", "-m", "mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", "/dev/shm"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not may_mount(), reason="mounting needs root")
@pytest.mark.usefixtures("acme")
def test_with_little_shared_memory_and_a_read_only_disk(digits: Path, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    mounts = (
        "mount -t tmpfs -o size=64k tmpfs /dev/shm && "
        f'mount -t tmpfs -o ro,size=64k tmpfs {tmp_path / "disk"} && exec "$@"'
    )
    prefix = ("unshare", "-m", "sh", "-c", mounts, "sh")
    said = run(USE + "print(use())", digits, prefix=prefix, TFLITE_HAL_CACHE_DIR=f"{tmp_path}/disk/cache")
    assert said == "(True, ['memory'])\n"


FORKED = """
import os, sys, time, numpy as np
from tflite_hal import Runner
x = np.ones((1, 8, 8, 1), "int8")
arguments = {"delegate": "acme"} if sys.argv[3] == "worker" else {"threads": 2}
runner = Runner(sys.argv[1], runtime=sys.argv[2], **arguments)
expected = runner.predict(x)
reading, writing = os.pipe()
pid = os.fork()
if pid == 0:
    same = np.array_equal(runner.predict(x), expected)
    os.write(writing, b"+" if same else b"-")
    sys.exit(0)
answer = os.read(reading, 1)
started = time.monotonic()
status = os.waitpid(pid, 0)[1]
print(answer.decode(), status, time.monotonic() - started < 1, np.array_equal(runner.predict(x), expected))
"""


@pytest.mark.usefixtures("acme")
@pytest.mark.parametrize("where", ["two threads", "worker"])
def test_a_forked_application_predicts_and_ends(
    digits: Path, runtime_name: str, where: str, tmp_path: Path
) -> None:
    said = run(FORKED, digits, runtime_name, where, TFLITE_HAL_CACHE_DIR=str(tmp_path / "c"))
    assert said == "+ 0 True True\n"

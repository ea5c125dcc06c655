"""Broken plugins cost themselves only, and say why."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from tflite_hal.cli import main
from tflite_hal.host import probe_host
from tflite_hal.manager import Manager

WITH_ENGINES = True

GOOD = """
from tflite_hal import Delegate, Device, Probe, hookimpl

class D(Delegate):
    name = "{name}"
    api_version = {version}
    description = "test"
    def probe(self, host):
        {probe}
        return Probe((Device("npu:0", "npu"),))

@hookimpl
def tflite_hal_register_delegates():
    {hook}
    return [D]
"""


def source(
    name: str = "good", version: int = 1, probe: str = "pass", hook: str = "pass", first: str = ""
) -> str:
    return first + GOOD.format(name=name, version=version, probe=probe, hook=hook)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the time limits: what hangs, hangs for ever."""
    monkeypatch.setattr("tflite_hal.manager.IMPORT_LIMIT", 1.5)
    monkeypatch.setattr("tflite_hal.remote.delegate.ASK_LIMIT", 1.5)


def test_builtins_are_found_by_their_entry_points() -> None:
    manager = Manager()
    assert [p.name for p in manager.plugins if p.builtin] == [
        "edgetpu",
        "gpu",
        "hexagon",
        "openvino",
        "xnnpack",
    ]
    assert not [p.problem for p in manager.plugins if p.builtin and p.problem]


def test_a_good_plugin_is_probed_in_a_worker_and_not_imported_here(install) -> None:
    install("good", source())
    manager = Manager()
    probe = manager.probe(probe_host())["good"]
    assert [device.id for device in probe.devices] == ["npu:0"]
    assert "tflite_hal_good" not in sys.modules


HANG = "import threading; threading.Event().wait()"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (source(first="raise ImportError('the SDK is missing')\n"), "the SDK is missing"),
        (source(first=HANG + "\n"), "no answer within"),
        (source(first="import os; os._exit(0)\n"), "exit status 0 without an answer"),
        (source(first="import os, signal; os.kill(os.getpid(), signal.SIGSEGV)\n"), "killed by SIGSEGV"),
        (source(hook="raise ValueError('no licence')"), "a hook raised ValueError: no licence"),
        (source(version=99), "written for plugin API 99"),
        (source(name="Not A Name"), "lower-case identifier"),
        (source(name="xnnpack"), "already provided by tflite-hal"),
        (source().replace("return [D]", "return [int]"), "not a subclass"),
        (
            source().replace("def tflite_hal_register_delegates()", "def tflite_hal_register_delegate()"),
            "unknown hook",
        ),
    ],
    ids=["import", "hang", "exit", "crash", "hook", "version", "name", "duplicate", "class", "hook-name"],
)
@pytest.mark.usefixtures("quick")
def test_a_broken_plugin_is_listed_with_its_reason(install, text: str, reason: str) -> None:
    install("bad", text)
    install("good", source())
    manager = Manager()
    by_name = {plugin.name: plugin for plugin in manager.plugins}
    assert reason in by_name["bad"].problem
    assert by_name["good"].delegates == ("good",)
    assert {"xnnpack", "edgetpu", "gpu", "hexagon", "good"} <= {d.name for d in manager.delegates}


@pytest.mark.parametrize(
    ("probe", "reason"),
    [(HANG, "no answer within"), ("raise KeyError('x')", "KeyError"), ("return 7", "probe()")],
)
@pytest.mark.usefixtures("quick")
def test_a_failing_probe_becomes_a_problem(install, probe: str, reason: str) -> None:
    install("bad", source(name="bad", probe=probe))
    install("good", source())
    manager = Manager()
    probes = manager.probe(probe_host())
    assert reason in probes["bad"].problems[0].evidence
    assert probes["good"].devices
    again = manager.probe(probe_host())["bad"]
    assert again == probes["bad"]
    assert (again is probes["bad"]) == (probe == HANG)  # what hung is not asked again
    listed = CliRunner().invoke(main, ["plugins", "--json"])
    problems = {plugin["name"]: plugin["problem"] for plugin in json.loads(listed.stdout)}
    assert reason in problems["bad"]
    assert problems["good"] == ""


def test_two_distributions_with_one_entry_point_name_are_both_listed(install) -> None:
    install("twin", source(name="twin"))
    install("twin2", source(name="other"))
    manager = Manager()
    assert {"twin", "other"} <= {d.name for d in manager.delegates}


def test_a_plugin_can_be_disabled(install, monkeypatch: pytest.MonkeyPatch) -> None:
    install("good", source())
    monkeypatch.setenv("TFLITE_HAL_DISABLED_PLUGINS", "good,gpu")
    manager = Manager()
    assert not {"good", "gpu"} & {d.name for d in manager.delegates}
    assert {p.name for p in manager.plugins if "disabled" in p.problem} == {"good", "gpu"}


def test_hooks_bring_profile_folders(install, tmp_path: Path) -> None:
    folder = tmp_path / "profiles"
    folder.mkdir()
    hook = "\n@hookimpl\ndef tflite_hal_register_device_profiles():\n    return [" + repr(str(folder)) + "]\n"
    install("good", source() + hook)
    assert Manager().profile_folders == [str(folder)]


def test_the_command_lists_broken_plugins(install) -> None:
    install("bad", source(first="raise ImportError('the SDK is missing')\n"))
    install("good", source())
    done = subprocess.run(
        [sys.executable, "-m", "tflite_hal", "plugins", "--json"],
        env={"PYTHONPATH": sys.path[0], "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    listed = {plugin["name"]: plugin for plugin in json.loads(done.stdout)}
    assert "the SDK is missing" in listed["bad"]["problem"]
    assert listed["good"]["problem"] == ""
    assert listed["xnnpack"]["problem"] == ""


@pytest.mark.parametrize("name", ["tflite_hal_broken", "unrelated"])
@pytest.mark.parametrize(
    "content", [None, b"[tflite_hal]\nthis is no entry point\n", b"\xff\xfe\x00[", b"x=y\n"]
)
def test_one_damaged_distribution_costs_no_other(install, tmp_path: Path, name: str, content) -> None:
    install("good", source())
    info = tmp_path / "site" / f"{name}-1.0.dist-info"
    info.mkdir()
    if content is not None:
        (info / "entry_points.txt").write_bytes(content)
    manager = Manager()
    assert "good" in {d.name for d in manager.delegates}
    for plugin in manager.plugins:  # told where it is ours, and where it was read at all
        assert plugin.problem == "" or (name == "tflite_hal_broken" and "damaged" in plugin.problem)


def test_a_plugin_without_metadata_is_found(install, tmp_path: Path) -> None:
    install("good", source())
    next((tmp_path / "site").glob("*.dist-info/METADATA")).unlink()
    manager = Manager()
    (plugin,) = [p for p in manager.plugins if not p.builtin]
    assert (plugin.name, plugin.delegates) == ("good", ("good",)) or "damaged" in plugin.problem


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (source(name="builtin"), "runtime's own kernels"),
        (source().replace("return [D]", "return [D, D]"), "already provided by tflite-hal-bad"),
        (source().replace('description = "test"', "options = ('mode',)"), "options = ('mode',)"),
        (source().replace('description = "test"', "environment = {'A': 1}"), "environment = {'A': 1}"),
        (source().replace('description = "test"', "runtimes = 'all'"), "runtimes = 'all'"),
    ],
)
def test_names_and_members_are_checked(install, text: str, reason: str) -> None:
    install("bad", text)
    (plugin,) = [p for p in Manager().plugins if p.name == "bad"]
    assert reason in plugin.problem


def test_a_probe_that_crashed_once_is_asked_again(install, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    probe = (
        f"import os, pathlib\n        mark = pathlib.Path({str(mark)!r})\n"
        "        mark.exists() or (mark.touch(), os.kill(os.getpid(), 11))"
    )
    install("shaky", source(name="shaky", probe=probe))
    manager = Manager()
    assert manager.probe(probe_host())["shaky"].devices
    assert [p.problem for p in manager.plugins if p.name == "shaky"] == [""]

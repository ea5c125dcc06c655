"""The diagnosis: how far each device gets, what nothing reaches, and what to type; on trees and live."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from tflite_hal import DelegateError, Device, Probe, Problem, read_model
from tflite_hal.cli import main
from tflite_hal.contract import check_probe
from tflite_hal.delegate import STAGES
from tflite_hal.diagnosis import Unreached, findings, proven, repair_script, report_schema, unreached
from tflite_hal.diagnosis.library import examined
from tflite_hal.diagnosis.running import Run
from tflite_hal.diagnosis.runtimes import illegal_instruction
from tflite_hal.diagnosis.tiny import TINY, tiny_model
from tflite_hal.external import described_delegates
from tflite_hal.host import HostInfo, probe_host
from tflite_hal.manager import Manager
from tflite_hal.profiles import load_profiles
from tflite_hal.runtime import RuntimeStatus, load_runtime
from tflite_hal.session import InterpreterSession

HOSTS = sorted(path for path in (Path(__file__).parent / "hosts").iterdir() if path.is_dir())
CAPTURES = Path(__file__).resolve().parents[1].parent / "shared" / "captures"
TREES = HOSTS + sorted(CAPTURES.glob("*/root"))
EXAMPLE = (Path(__file__).parent / "example_plugin" / "tflite_hal_acme.py").read_text()
OPEN = "        return InterpreterSession(model, runtime, default_delegates=False)"


def write(root: Path, files: dict[str, str]) -> HostInfo:
    for name, content in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    return probe_host(root)


def card(slot: str, id_: str, code: str, driver: str | None = None) -> dict[str, str]:
    vendor, device = id_.split(":")
    folder = f"sys/bus/pci/devices/{slot}"
    files = {"vendor": f"0x{vendor}", "device": f"0x{device}", "class": f"0x{code}"}
    return {f"{folder}/{name}": text for name, text in files.items()}


def others(host: HostInfo) -> list[Unreached]:
    manager = Manager()
    profiles, errors = load_profiles(manager.profile_folders)
    assert not errors
    described = described_delegates(profiles, [one.name for one in manager.delegates])
    return unreached(host, profiles, manager.probe(host, described), [])


def call(*arguments: object, columns: int = 80, status: int = 0) -> Result:
    result = CliRunner(env={"COLUMNS": str(columns)}).invoke(main, [str(one) for one in arguments])
    assert result.exit_code == status, (result.output, result.exception)
    return result


def finding(delegate: str, *arguments: object) -> dict:
    (one,) = [
        one
        for one in json.loads(call("probe", "--json", *arguments).stdout)["findings"]
        if one["delegate"] == delegate
    ]
    return one


# What is there and out of reach


@pytest.mark.parametrize(
    ("files", "kind", "evidence", "instead"),
    [
        (card("0000:01:00.0", "1e60:2864", "0b4000"), "npu", "PCI 1e60:2864 at 0000:01:00.0", "HailoRT"),
        (card("0000:01:00.0", "1e60:45c4", "0b4000"), "npu", "no driver is bound", "HailoRT"),
        (card("0000:01:00.0", "1e60:9999", "0b4000"), "npu", "PCI 1e60:9999", "HailoRT"),
        ({"dev/hailo0": ""}, "npu", "/dev/hailo0", "HailoRT"),
        ({"dev/rknpu": ""}, "npu", "/dev/rknpu", "RKNN"),
        (card("0000:c5:00.1", "1022:17f0", "118000"), "npu", "PCI 1022:17f0", "nothing that is known"),
        (card("0000:c5:00.1", "1022:1502", "118000"), "npu", "PCI 1022:1502", "nothing that is known"),
        ({"proc/device-tree/compatible": "st,stm32mp257f-ev1\0st,stm32mp257\0"}, "npu", "has it", "stai_mpu"),
        (
            {"proc/device-tree/compatible": "nvidia,p3509-0000+p3668-0000\0nvidia,tegra194\0"},
            "gpu", "has it", "TensorRT",
        ),
    ],
)  # fmt: skip
def test_what_no_delegate_reaches_is_named_with_what_does(tmp_path, files, kind, evidence, instead) -> None:
    found = [one for one in others(write(tmp_path, files)) if one.kind == kind]
    (one,) = found
    assert evidence in one.evidence
    assert one.reason == "no TensorFlow Lite delegate reaches it"
    assert instead in one.instead
    assert one.source


def test_a_processing_accelerator_that_nobody_knows_is_told(tmp_path: Path) -> None:
    (one,) = others(write(tmp_path, card("0000:03:00.0", "1234:5678", "120000")))
    assert "PCI 1234:5678 at 0000:03:00.0" in one.evidence
    assert one.reason == "no plugin and no device profile knows it"
    assert one.source == ()


def test_what_a_delegate_tells_of_is_not_told_twice(tmp_path: Path) -> None:
    assert others(write(tmp_path, card("0000:00:0b.0", "1ac1:089a", "120000"))) == []


def test_an_npu_that_the_device_tree_leaves_off(tmp_path: Path) -> None:
    tree = {
        "proc/device-tree/compatible": "nobody,board\0nobody,chip\0",
        **{f"proc/device-tree/npu@fdab{n}000/compatible": "rockchip,rk3588-rknn-core\0" for n in range(3)},
        **{f"proc/device-tree/npu@fdab{n}000/status": "disabled\0" for n in range(3)},
    }
    (one,) = others(write(tmp_path, tree))
    assert "npu@fdab0000, npu@fdab1000, npu@fdab2000" in one.evidence
    assert "status disabled" in one.evidence and "leaves it off" in one.reason
    assert "overlay" in one.remedy


def test_another_way_to_an_npu_is_told_beside_what_is_in_the_way_of_the_delegate(tmp_path: Path) -> None:
    host = write(tmp_path, {"proc/device-tree/compatible": "radxa,rock-5b\0rockchip,rk3588\0"})
    (one,) = [one for one in others(host) if one.kind == "npu"]
    assert one.name == "RKNPU"
    assert "teflon could, but for the problem above" in one.reason
    assert "RKNN toolkit lite" in one.instead


def test_a_disabled_plugin_is_why_its_device_is_out_of_reach(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("TFLITE_HAL_DISABLED_PLUGINS", "edgetpu")
    write(tmp_path, card("0000:01:00.0", "1ac1:089a", "0880ff"))
    (one,) = json.loads(call("probe", "--json", "--root", tmp_path).stdout)["unreached"]
    assert one["reason"] == "the plugin edgetpu, which reaches it, is disabled"
    assert one["remedy"] == "take edgetpu out of TFLITE_HAL_DISABLED_PLUGINS"
    text = " ".join(call("probe", "--root", tmp_path).stdout.split())
    assert "Coral Edge TPU" in text and "take edgetpu out of TFLITE_HAL_DISABLED_PLUGINS" in text


@pytest.mark.parametrize(
    ("files", "delegate", "said"),
    [
        (
            {
                **card("0000:00:0b.0", "8086:7d1d", "120000"),
                "sys/bus/pci/devices/0000:00:0b.0/accel/accel0/dev": "",
            },
            "openvino",
            "--device /dev/accel/accel0",
        ),
        ({"proc/device-tree/compatible": "nxp,x\0fsl,imx93\0"}, "ethosu", "--device /dev/ethosu0"),
        ({"proc/device-tree/compatible": "qcom,x\0qcom,qcm6490\0"}, "hexagon", "--device /dev/fastrpc-cdsp"),
    ],
)  # fmt: skip
def test_a_node_that_a_container_lacks_is_passed_in(tmp_path, monkeypatch, files, delegate, said) -> None:
    monkeypatch.delenv("TFLITE_HAL_DISABLED_PLUGINS")
    write(tmp_path, {**files, ".dockerenv": ""})
    if delegate == "openvino":
        (tmp_path / "sys/bus/pci/devices/0000:00:0b.0/driver").symlink_to("/x/intel_vpu")
    found = json.loads(call("probe", "--json", "--root", tmp_path).stdout)["findings"]
    problems = [one["problem"] for one in found if one["delegate"] == delegate and one["kind"] == "npu"]
    assert [one["stage"] for one in problems] == ["node"]
    assert f"start the container with {said}" in problems[0]["remedy"]
    assert problems[0]["command"] == ""


# Stages


@pytest.mark.parametrize("stage", STAGES)
def test_a_problem_says_where_a_device_ends(stage: str) -> None:
    problem = Problem(stage, "seen", "do it", "npu:0", "npu", "sudo do it")
    (one,) = findings({"acme": Probe((), (problem,))}, probe_host("/"), {})
    assert (one.state, one.problem, one.device) == ("blocked", problem, "npu:0")
    place = list(STAGES).index(stage)
    assert [step.stage for step in one.steps] == list(STAGES)
    assert {step.state for step in one.steps[:place]} <= {"ok"}
    assert one.steps[place][1:] == ("failed", "seen")
    assert {step.state for step in one.steps[place + 1 :]} <= {"unknown"}


def test_a_device_shows_its_bus_its_driver_and_its_library(tmp_path: Path) -> None:
    host = write(tmp_path, card("0000:01:00.0", "1234:5678", "120000"))
    (tmp_path / "sys/bus/pci/devices/0000:01:00.0/driver").symlink_to("/sys/bus/pci/drivers/acme")
    host = probe_host(tmp_path)
    device = Device("npu:0", "npu", "NPU", {"slot": "0000:01:00.0", "library": "/usr/lib/libacme.so"}, "warm")
    (one,) = findings({"acme": Probe((device,))}, host, {})
    assert (one.name, one.state) == ("NPU · warm", "found")
    steps = {step.stage: step[1:] for step in one.steps}
    assert steps["bus"] == ("ok", "1234:5678 at 0000:01:00.0")
    assert steps["driver"] == ("ok", "acme")
    assert steps["library"] == ("ok", "/usr/lib/libacme.so")
    assert steps["permission"] == ("unknown", "")  # another machine's
    assert steps["run"] == ("unknown", "")


@pytest.mark.parametrize(
    ("run", "state", "stage"),
    [
        (Run("ok", "run", "ran"), "runs", None),
        (Run("failed", "open", "refused", "ask"), "blocked", "open"),
        (Run("failed", "run", "differs"), "blocked", "run"),
        (Run("unknown", "run", "not run: busy"), "found", None),
    ],
)
def test_what_the_tiny_model_did_is_the_last_stage(run: Run, state: str, stage: str | None) -> None:
    probe = Probe((Device("npu:0", "npu", "NPU"),))
    (one,) = findings({"acme": probe}, probe_host("/"), {("acme", "npu:0"): run})
    assert one.state == state
    assert (one.problem and one.problem.stage) == stage
    steps = {step.stage: step for step in one.steps}
    assert steps[stage or "run"].text == run.text
    assert steps["bus"].state == "ok"


@pytest.fixture
def half_a_library(tmp_path: Path) -> Path:
    """A library that needs another, which is gone."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler here")
    folder = tmp_path / "lib"
    folder.mkdir(mode=0o755)
    for name, code, more in (
        ("other", "int f(void) { return 1; }", []),
        ("whole", "int f(void);", ["other"]),
    ):
        source = tmp_path / f"{name}.c"
        source.write_text(code + "\nint g_" + name + "(void) { return f(); }\n")
        flags = [f"-L{folder}", *(f"-l{one}" for one in more), f"-Wl,-soname,lib{name}.so"]
        target = folder / f"lib{name}.so"
        subprocess.run([compiler, "-shared", "-fPIC", "-o", target, source, *flags], check=True)
    return folder


def test_a_library_that_lacks_another_is_found_before_it_is_loaded(half_a_library: Path) -> None:
    host, library = probe_host("/"), half_a_library / "libwhole.so"
    device = Device("npu:0", "npu", "NPU", {"library": str(library)})
    told = examined(device, host)
    assert told is not None and told.lacking == ("libother.so",)
    assert "-bit " in told.text
    (one,) = findings({"acme": Probe((device,))}, host, {})
    assert one.problem is not None and one.problem.stage == "library"
    assert "needs libother.so, which the loader would not find" in one.problem.evidence
    assert "libother.so" in one.problem.remedy
    # Whatever the loader does: what was opened lacks nothing.
    (one,) = findings({"acme": Probe((device,))}, host, {("acme", "npu:0"): Run("ok", "run", "ran")})
    assert one.problem is None
    for more in (
        {"companions": [str(half_a_library / "libother.so")]},
        {"environment": {"LD_LIBRARY_PATH": str(half_a_library)}},
    ):
        told = examined(device._replace(properties={**device.properties, **more}), host)
        assert told is not None and told.lacking == ()


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (None, "probe() gave None, which is no Probe"),
        (Probe((None,)), "probe() gave None, which is no Device or Problem"),  # type: ignore[arg-type]
        (Probe((), (Problem("firmware", "x"),)), "stage 'firmware' is none of probe, bus, driver"),
        (Probe((), (Problem("node", "x", command="a\nb"),)), "command 'a\\nb' is no line of text"),
    ],
)
def test_answers_that_break_the_contract_are_told_as_such(found: object, said: str) -> None:
    with pytest.raises(DelegateError, match=re.escape(said)):
        check_probe(found, "acme", "probe")


# The tiny model, and running it


@pytest.mark.parametrize("precision", TINY)
def test_the_tiny_model_runs_on_the_runtimes(precision: str, runtime_name: str) -> None:
    model = read_model(tiny_model(precision))
    assert [operator.name for operator in model.info.operators] == ["CONV_2D"]
    (spec,) = model.info.inputs
    answers = []
    for value in (16, 48):
        session = InterpreterSession(model, load_runtime(runtime_name), default_delegates=False)
        (answer,) = session.prepare().run([np.full(spec.shape, value, spec.dtype)])
        assert len(np.unique(answer)) > 3  # nothing an engine might give by chance
        answers.append(answer)
    assert (answers[0] != answers[1]).any()


def test_a_device_that_works_is_told_so(install) -> None:
    install("acme", EXAMPLE)
    one = finding("acme")
    assert (one["state"], one["device"], one["problem"]) == ("runs", "npu:0", None)
    assert one["steps"][-1]["text"].startswith("ran a convolution in int8 rightly")
    one = finding("acme", "--no-run")
    assert (one["state"], one["steps"][-1]) == ("found", {"stage": "run", "state": "unknown", "text": ""})


@pytest.mark.parametrize(
    ("body", "stage", "said"),
    [
        ("        raise RuntimeError('no firmware')", "open", "no firmware"),
        ("        __import__('os').kill(__import__('os').getpid(), 11)", "open", "SIGSEGV"),
        ("        return None", "open", "open() gave None, which is no Session"),
    ],
)
def test_a_device_that_does_not_open_is_told_with_its_last_words(install, body, stage, said) -> None:
    install("acme", EXAMPLE.replace(OPEN, body))
    one = finding("acme")
    assert (one["state"], one["problem"]["stage"]) == ("blocked", stage)
    assert said in one["problem"]["evidence"]


def test_a_device_that_answers_wrongly_is_told_with_the_figure(install) -> None:
    wrong = """
from tflite_hal import Configuration, hookimpl
from tflite_hal.testing import PythonFaultDelegate

class Acme(PythonFaultDelegate):
    name = "acme"
    def configurations(self, model, device, profile):
        return [Configuration({"fault": "wrong"})]

@hookimpl
def tflite_hal_register_delegates():
    return [Acme]
"""
    install("acme", wrong)
    one = finding("acme")
    assert (one["state"], one["problem"]["stage"]) == ("blocked", "run")
    assert "of 256 steps" in one["problem"]["evidence"]


def test_a_device_without_a_model_for_it_is_not_run_and_says_why(edge_tpu) -> None:
    edge_tpu.plug("1-1")
    one = finding("edgetpu")
    assert (one["state"], one["kind"]) == ("found", "tpu")
    assert "not run: not compiled for the Edge TPU" in one["steps"][-1]["text"]
    assert "libedgetpu.so.1" in one["steps"][list(STAGES).index("library")]["text"]
    assert "firmware not loaded yet" in one["name"]


# A runtime that dies


def test_a_runtime_that_this_processor_can_not_run_is_told_with_what_it_lacks(tmp_path, monkeypatch) -> None:
    package = tmp_path / "site" / "tensorflow"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGILL)\n")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    flags = "flags\t\t: fpu lm ssse3 sse4_1 sse4_2 popcnt\n"
    host = write(tmp_path / "host", {"proc/cpuinfo": f"processor\t: 0\nmodel name\t: Old One\n{flags}"})
    told = proven(RuntimeStatus("tensorflow", "usable", "2.19.0"), host)
    assert told.state == "broken"
    assert "SIGILL" in told.reason
    assert told.reason.endswith("it was built for another processor: Old One has no avx, f16c, fma, avx2")
    assert "TensorFlow's builds need AVX" in told.remedy


@pytest.mark.parametrize(
    ("arch", "flags", "name", "lacks", "remedy"),
    [
        ("x86_64", "lm ssse3 sse4_1 sse4_2 popcnt", "tflite_runtime", "avx, f16c", "needs no AVX"),
        ("x86_64", "lm", "ai_edge_litert", "ssse3, sse4_1", "or build it for this processor"),
        ("aarch64", "fp asimd", "ai_edge_litert", "atomics, asimdhp", "or build it for this processor"),
    ],
)
def test_what_a_processor_lacks(tmp_path: Path, arch, flags, name, lacks, remedy) -> None:
    word = "flags\t\t" if arch == "x86_64" else "Features\t"
    text = f"processor\t: 0\n{word}: {flags}\n"
    if arch == "aarch64":
        text += "CPU implementer\t: 0x41\nCPU architecture: 8\nCPU part\t: 0xd03\n"
    host = write(tmp_path, {"proc/cpuinfo": text})
    assert host.arch == arch
    told, what = illegal_instruction(name, host)
    assert f"has no {lacks}" in told
    assert remedy in what and "pip install --force-reinstall --only-binary :all: " in what


# The script


def test_the_script_has_commands_once_and_everything_else_as_comments() -> None:
    evil = "gone\nrm -rf /\r\x1b[2J; `reboot`"
    problems = (
        Problem("library", evil, "install it\nreboot", "npu:0", "npu", "sudo apt-get install acme"),
        Problem("node", "no node", "see the log", "npu:1"),
        Problem("permission", "closed", "", "npu:2", "npu", "sudo apt-get install acme"),
    )
    found = findings({"acme": Probe((), problems)}, probe_host("/"), {})
    runtimes = [RuntimeStatus("a", "broken", "1", "for numpy 1", "pip install 'numpy<2'")]
    script = repair_script(found, runtimes, [Unreached("npu", "X", "seen", "off", "", "turn it on")])
    commands = [line for line in script.splitlines() if line and not line.startswith("#")]
    assert commands == ["set -e", "pip install 'numpy<2'", "sudo apt-get install acme"]
    for said in ("gone rm -rf /", "install it reboot", "see the log", "turn it on", "is above"):
        assert said in script
    assert max(map(len, script.splitlines())) <= 80
    subprocess.run(["sh", "-n"], input=script, text=True, check=True)


def test_fix_prints_what_fits_the_system_and_runs_nothing(tmp_path: Path) -> None:
    gpu = card("0000:00:02.0", "8086:9bc8", "030000")
    nodes = {"sys/bus/pci/devices/0000:00:02.0/drm/renderD128/dev": "", "dev/dri/renderD128": ""}
    for name, command in (
        ("debian", "sudo apt-get install libvulkan1"),
        ("fedora", "sudo dnf install vulkan-loader"),
        ("linuxmint", "sudo apt-get install libvulkan1"),
        ("plan9", None),
    ):
        likes = "\nID_LIKE=ubuntu debian" if name == "linuxmint" else ""
        root = tmp_path / name
        write(root, {**gpu, **nodes, "etc/os-release": f"ID={name}{likes}\n"})
        (root / "sys/bus/pci/devices/0000:00:02.0/driver").symlink_to("/x/i915")
        script = call("probe", "--fix", "--root", root).stdout
        lines = script.splitlines()
        assert (command in lines) if command else not [one for one in lines if one.startswith("sudo")]
        assert "install the Vulkan loader" in " ".join(script.replace("#", "").split())
    assert "give one of them" in call("probe", "--fix", "--json", status=2).stderr


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="groups are POSIX")
def test_what_may_not_be_opened_gets_its_own_group(tmp_path: Path, monkeypatch) -> None:
    node = tmp_path / "acme0"
    node.write_text("")
    node.chmod(0o660)
    problem = Problem("permission", "/dev/acme0 may not be opened", "join its group", "npu:0", "npu")
    monkeypatch.setattr(
        "tflite_hal.diagnosis.finding.group_command", lambda path: f"join the group of {path}"
    )
    (one,) = findings({"acme": Probe((), (problem,))}, probe_host("/"), {})
    assert one.problem is not None and one.problem.command == "join the group of /dev/acme0"
    monkeypatch.undo()
    from tflite_hal.host.commands import group_command

    group = node.group()
    assert group_command(str(node)) == ("" if group == "root" else f'sudo usermod -aG {group} "$USER"')
    node.chmod(0o600)
    assert group_command(str(node)) == ""
    assert group_command(str(tmp_path / "absent")) == ""


# Every tree


@pytest.fixture(scope="module")
def schema():
    """A validator of reports; skips where there is none."""
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.Draft202012Validator.check_schema(report_schema())
    return jsonschema.Draft202012Validator(report_schema())


def test_the_report_of_this_machine_is_what_the_schema_says(install, schema) -> None:
    install("acme", EXAMPLE.replace(OPEN, "        raise RuntimeError('no firmware')"))
    assert json.loads(call("probe", "--schema").stdout) == json.loads(json.dumps(report_schema()))
    report = json.loads(call("probe", "--json").stdout)
    schema.validate(report)
    assert list(report)[: len(HostInfo.__slots__) - 1] == [n for n in HostInfo.__slots__ if n != "_tree"]
    for wrong in ({**report, "more": 1}, {**report, "memory_bytes": "1"}, {**report, "findings": [{}]}):
        assert not schema.is_valid(wrong)


@pytest.mark.parametrize(
    "root", TREES, ids=lambda path: path.name if path.name != "root" else path.parent.name
)
def test_every_machine_has_a_diagnosis_in_eighty_columns(root: Path) -> None:
    text = call("probe", "--root", root).stdout
    assert max(map(len, text.splitlines())) <= 80
    call("probe", "--fix", "--root", root)
    report = json.loads(call("probe", "--json", "--root", root).stdout)
    for one in report["findings"]:
        assert one["state"] in ("found", "blocked")  # nothing is run for another machine
        assert (one["problem"] is None) == (one["state"] == "found")


@pytest.mark.parametrize("root", TREES, ids=lambda path: "-".join(path.parts[-2:]))
def test_the_report_of_every_machine_is_what_the_schema_says(root: Path, schema) -> None:
    schema.validate(json.loads(call("probe", "--json", "--root", root).stdout))


CORAL = {
    "coral-pcie-no-driver": ("driver", "gasket-dkms"),
    "coral-pcie-no-node": ("node", "kernel log"),
    "coral-usb-bootloader": ("library", "libedgetpu1-std"),
    "coral-usb-running": ("library", "libedgetpu1-std"),
    "x86-coral-pcie": ("library", "libedgetpu1-std"),
}


@pytest.mark.parametrize("name", CORAL)
def test_every_state_of_a_coral_ends_at_its_stage(name: str) -> None:
    stage, remedy = CORAL[name]
    one = finding("edgetpu", "--root", Path(__file__).parent / "hosts" / name)
    assert (one["state"], one["problem"]["stage"]) == ("blocked", stage)
    assert remedy in one["problem"]["remedy"]
    assert remedy in call("probe", "--fix", "--root", Path(__file__).parent / "hosts" / name).stdout


def test_a_coral_card_on_a_pi_5_with_large_pages_says_which_kernel(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            **card("0000:01:00.0", "1ac1:089a", "0880ff"),
            "proc/sys/kernel/osrelease": "6.6.31+rpt-rpi-2712\n",
            "proc/modules": "apex 20480 0 - Live 0x0\n",
            "dev/apex_0": "",
            "usr/lib/libedgetpu.so.1": "",
        },
    )
    one = finding("edgetpu", "--root", tmp_path)
    assert one["state"] == "found"
    assert "kernel=kernel8.img" in one["name"]


# Plugins that contribute nothing by mistake


def test_a_plugin_without_the_mark_is_no_good_plugin(install) -> None:
    install("unmarked", EXAMPLE.replace("@hookimpl\n", ""))
    install("bare", "def register():\n    pass\n")
    states = {one["name"]: one["problem"] for one in json.loads(call("plugins", "--json").stdout)}
    assert "tflite_hal_register_delegates() lacks the mark @hookimpl" in states["unmarked"]
    assert "put @hookimpl above the function" in states["unmarked"]
    assert "it has none of the hooks" in states["bare"]


def test_none_from_a_plugin_names_its_method_and_costs_one_row(install) -> None:
    install("acme", EXAMPLE + "\nAcmeDelegate.probe = lambda self, host: None\n")
    one = finding("acme")
    assert one["problem"]["evidence"] == "probe() failed: delegate acme: probe() gave None, which is no Probe"
    assert "TFLITE_HAL_DISABLED_PLUGINS=acme leaves it out" in one["problem"]["remedy"]
    text = call("probe", columns=200).stdout
    assert len([line for line in text.splitlines() if "which is no Probe" in line]) == 1

"""The Edge TPU's plugin: what it says of captured and hand-written machines, and of its library's words."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tflite_hal_edgetpu import EdgeTpuDelegate

from tflite_hal import (
    Configuration,
    DelegateError,
    Device,
    Problem,
    WorkerCrashedError,
    probe_host,
    read_model,
)
from tflite_hal.remote import open_remotely
from tflite_hal.runtime import load_runtime
from tflite_hal.selection import Candidate
from tflite_hal.trial import Memory, Terms
from tflite_hal.trial.proof import failed
from tflite_hal.verdicts import Verdicts

ROOT = Path(__file__).resolve().parents[1]
CAPTURES = ROOT.parent / "shared" / "captures"
HOSTS = ROOT / "tests" / "hosts"

#: By tree: the device, the stage, and what evidence and remedy say.
STATES = {
    "coral-pcie-no-driver": ("pci:0", "driver", "no driver is bound", "gasket-dkms"),
    "coral-pcie-no-node": ("pci:0", "node", "no /dev/apex_0", "kernel log"),
    "coral-usb-bootloader": ("usb:0", "library", "firmware not loaded yet", "libedgetpu1-std"),
    "coral-usb-running": ("usb:0", "library", "firmware loaded", "libedgetpu1-std"),
    "raspberry-pi-5-coral-usb": ("usb:0", "library", "firmware loaded", "libedgetpu1-std"),
    "x86-coral-pcie": ("pci:0", "library", "1ac1:089a at 0000:01:00.0", "libedgetpu1-std"),
}
CAPTURED = {
    "issue-coral-pcie-no-driver": STATES["coral-pcie-no-driver"],
    "issue-coral-pcie-no-devnode": STATES["coral-pcie-no-node"],
    "issue-coral-usb-bootloader": STATES["coral-usb-bootloader"],
    "issue-coral-usb-runtime": STATES["coral-usb-running"],
    "sbc-rpi4": None,
    "sbc-rpi5": None,
}


def told_by_the_command(root: Path) -> list[dict[str, str]]:
    """What ``tflite-hal probe --root`` says of Edge TPUs."""
    command = [sys.executable, "-m", "tflite_hal", "probe", "--json", "--root", str(root)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)["delegates"]["edgetpu"]
    assert found["devices"] == []
    return found["problems"]


def check_state(problems: list[dict[str, str]], expected: tuple[str, str, str, str] | None) -> None:
    if expected is None:
        assert problems == []
        return
    (problem,) = problems
    device, stage, evidence, remedy = expected
    assert (problem["device"], problem["kind"], problem["stage"]) == (device, "tpu", stage)
    assert evidence in problem["evidence"]
    assert remedy in problem["remedy"]
    if stage == "library":
        assert "libedgetpu.so.1" in problem["evidence"]


@pytest.mark.parametrize("name", STATES)
def test_the_state_of_hand_written_machines(name: str) -> None:
    check_state(told_by_the_command(HOSTS / name), STATES[name])


@pytest.mark.parametrize("name", CAPTURED)
def test_the_state_of_captured_machines(name: str) -> None:
    if not (CAPTURES / name).is_dir():
        pytest.skip(f"the captured machine {name} is not at shared/captures beside the checkout")
    check_state(told_by_the_command(CAPTURES / name / "root"), CAPTURED[name])


class Machine:
    """A file tree with Edge TPUs in it."""

    def __init__(self, root: Path, *, library: bool = True) -> None:
        self.root = root
        if library:
            self.write("usr/lib/libedgetpu.so.1", "")

    def write(self, path: str, text: str) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def stick(self, slot: str, identity: str, **more: str) -> None:
        vendor, product = identity.split(":")
        for name, text in {"idVendor": vendor, "idProduct": product, **more}.items():
            self.write(f"sys/bus/usb/devices/{slot}/{name}", f"{text}\n")

    def card(self, slot: str, driver: str | None = "apex", node: str | None = None, **more: str) -> None:
        folder = f"sys/bus/pci/devices/{slot}"
        self.write(f"{folder}/vendor", "0x1ac1\n")
        self.write(f"{folder}/device", "0x089a\n")
        if driver is not None:
            self.write(f"{folder}/driver", f"../../../bus/pci/drivers/{driver}")
        if node is not None:
            self.write(f"dev/{node}", "")
            for name, text in {"pci_address": slot, **more}.items():
                self.write(f"sys/class/apex/{node}/{name}", f"{text}\n")

    def probe(self):
        return EdgeTpuDelegate().probe(probe_host(self.root))

    def problem(self) -> Problem:
        found = self.probe()
        assert found.devices == ()
        (problem,) = found.problems
        return problem


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_a_stick_stays_the_same_device_when_its_firmware_is_loaded(machine: Machine) -> None:
    machine.stick("1-10", "1a6e:089a", busnum="1", devnum="7")
    machine.stick("1-2", "18d1:9302", busnum="1", devnum="4")
    before = machine.probe()
    assert before.problems == ()
    assert [(d.id, d.properties["path"][-4:]) for d in before.devices] == [
        ("usb:0", "/1-2"),
        ("usb:1", "1-10"),
    ]
    assert before.devices[1].state.startswith("firmware not loaded yet")
    machine.stick("1-10", "18d1:9302", busnum="1", devnum="8", speed="480")
    after = machine.probe()
    assert [d._replace(state="") for d in after.devices] == [d._replace(state="") for d in before.devices]
    assert after.devices[1].state == "firmware loaded, on USB 2, which slows transfers"
    assert after.devices[0].properties["library"] == "/usr/lib/libedgetpu.so.1"


def test_a_stick_without_its_node_needs_the_whole_bus(machine: Machine) -> None:
    machine.stick("1-1", "1a6e:089a", busnum="1", devnum="7")
    machine.write("dev/bus/usb/001/001", "")
    problem = machine.problem()
    assert problem.stage == "node"
    assert "no /dev/bus/usb/001/007" in problem.evidence
    assert "whole of /dev/bus/usb" in problem.remedy
    machine.write("dev/bus/usb/001/007", "")
    assert machine.probe().problems == ()


def test_what_may_not_be_opened_says_both_udev_rules(machine: Machine, monkeypatch) -> None:
    machine.stick("1-1", "18d1:9302", busnum="1", devnum="7")
    machine.card("0000:01:00.0", node="apex_0")
    # Root may open everything, and a captured tree can't know.
    monkeypatch.setattr("tflite_hal.host.facts.HostInfo.access", lambda self, path: False)
    usb, pci = machine.probe().problems
    assert (usb.stage, pci.stage) == ("permission", "permission")
    for identity in ("1a6e", "089a", "18d1", "9302", "plugdev"):
        assert identity in usb.remedy
    assert "group apex" in pci.remedy


def test_cards_are_counted_by_slot_whatever_their_nodes(machine: Machine) -> None:
    machine.card("0000:02:00.0", node="apex_0", status="ALIVE", temp="54800", device_owner="0")
    machine.card("0000:01:00.0", node="apex_1", status="ALIVE", temp="61200", device_owner="4711")
    found = machine.probe()
    assert found.problems == ()
    first, second = found.devices
    assert (first.id, first.properties["path"]) == ("pci:0", "/dev/apex_1")
    assert (second.id, second.properties["path"]) == ("pci:1", "/dev/apex_0")
    assert first.state == "1ac1:089a at 0000:01:00.0, 61 °C, open in process 4711"
    assert second.state == "1ac1:089a at 0000:02:00.0, 55 °C"


@pytest.mark.parametrize("status", ["DEAD", "LAMED"])
def test_one_card_of_two_that_its_driver_could_not_set_up(machine: Machine, status: str) -> None:
    machine.card("0000:01:00.0", node="apex_0", status=status)
    machine.card("0000:02:00.0", node="apex_1", status="ALIVE")
    found = machine.probe()
    assert [device.id for device in found.devices] == ["pci:1"]
    (problem,) = found.problems
    assert (problem.device, problem.stage) == ("pci:0", "driver")
    assert f"/dev/apex_0 says {status}" in problem.evidence
    assert "MSI-X" in problem.remedy


def test_a_card_that_is_given_to_a_virtual_machine(machine: Machine) -> None:
    machine.card("0000:01:00.0", driver="vfio-pci")
    problem = machine.problem()
    assert "its driver is vfio-pci" in problem.evidence
    assert "unbind" in problem.remedy


def test_a_module_that_is_built_and_not_loaded(machine: Machine) -> None:
    machine.card("0000:01:00.0", driver=None)
    machine.write("proc/sys/kernel/osrelease", "6.1.0-18-amd64\n")
    assert "no driver is bound (Linux 6.1.0-18-amd64)" in machine.problem().evidence
    machine.write("lib/modules/6.1.0-18-amd64/updates/dkms/apex.ko.xz", "")
    assert "modprobe apex" in machine.problem().remedy


@pytest.mark.parametrize(
    ("kernel", "large"),
    [("6.6.31+rpt-rpi-2712", True), ("6.6.31+rpt-rpi-v8", False), ("6.6.69-v8-16k+", True)],
)
def test_large_pages_are_told_of_cards(machine: Machine, kernel: str, large: bool) -> None:
    machine.write("proc/sys/kernel/osrelease", kernel)
    machine.card("0000:01:00.0", node="apex_0", status="ALIVE")
    machine.stick("1-1", "18d1:9302")
    states = {device.id: device.state for device in machine.probe().devices}
    assert ("kernel=kernel8.img" in states["pci:0"]) is large
    assert "pages" not in states["usb:0"]


def test_every_device_without_library_is_a_problem_of_its_own(tmp_path: Path) -> None:
    machine = Machine(tmp_path, library=False)
    machine.stick("1-1", "1a6e:089a")
    machine.stick("1-2", "18d1:9302")
    machine.card("0000:01:00.0", node="apex_0", status="ALIVE")
    found = machine.probe()
    assert found.devices == ()
    assert [(p.device, p.stage) for p in found.problems] == [
        (d, "library") for d in ("usb:0", "usb:1", "pci:0")
    ]
    words = ("firmware not loaded yet", "firmware loaded", "1ac1:089a at 0000:01:00.0")
    assert all(word in p.evidence for word, p in zip(words, found.problems, strict=True))


# ---- the library's words ----


@pytest.mark.parametrize(
    ("message", "remedy"),
    [
        (
            "m.tflite: allocate failed: Failed to prepare for TPU. Failed precondition: Package requires "
            "runtime version (14), which is newer than this runtime version (13).Node number 2 "
            "(EdgeTpuDelegateForCustomOp) failed to prepare.",
            "runtime version 14 or newer, or compile the model for this one: edgetpu_compiler -m 13",
        ),
        (
            "Internal: Unsupported data type in custom op handler: 0Node number 1 "
            "(EdgeTpuDelegateForCustomOp) failed to prepare.",
            "works with the TensorFlow Lite it was built for",
        ),
        (
            "Failed to open device [Apex (PCIe)] at [/dev/apex_0]: Failed precondition: Could not partition "
            "page table. : 6 (Operation not permitted)",
            "kernel=kernel8.img",
        ),
        (
            "Failed to open device [Apex (USB)] at [/sys/bus/usb/devices/2-1]: Permission denied: USB error "
            "-3 [OpenDevice]",
            "plugdev",
        ),
        (
            "Failed to open device [Apex (USB)] at [/sys/bus/usb/devices/2-1]: Not found: OpenDevice",
            "cable",
        ),
        ("it gave no message (device absent, busy or not permitted)", "no other process uses the Edge TPU"),
    ],
    ids=["runtime-version", "other-tflite", "pages", "permission", "gone", "none"],
)
def test_the_librarys_words_have_a_remedy(message: str, remedy: str) -> None:
    assert remedy in EdgeTpuDelegate().refusal_remedy(message)


LIBRARY = r"""
#include <stddef.h>
#include <stdio.h>
#include <string.h>

struct device { int type; const char *path; };
static struct device devices[] = {
    {1, "/sys/bus/usb/devices/1-10"}, {0, "/dev/apex_1"},
    {1, "/sys/bus/usb/devices/1-2"}, {0, "/dev/apex_0"}};
static int verbosity;
struct device *edgetpu_list_devices(size_t *count) { *count = 4; return devices; }
void edgetpu_free_devices(struct device *given) { if (given != devices) __builtin_trap(); }
void edgetpu_verbosity(int level) { verbosity = level; }
void *tflite_plugin_create_delegate(char **keys, char **values, size_t count, void (*report)(const char *)) {
    if (verbosity < 1) return NULL;
    fprintf(stderr, "I tflite/edgetpu_context_direct.cc:401] Failed to open device [Apex (USB)]: "
                    "Permission denied: USB error -3 [OpenDevice];");
    for (size_t i = 0; i < count; i++) fprintf(stderr, " %s=%s", keys[i], values[i]);
    fprintf(stderr, "\n");
    return NULL;
}
void tflite_plugin_destroy_delegate(void *delegate) { (void)delegate; }
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler here")
    folder = tmp_path_factory.mktemp("library")
    (folder / "edgetpu.c").write_text(LIBRARY)
    path = folder / "libedgetpu.so.1"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(path), str(folder / "edgetpu.c")], check=True)
    return path


def refused(library: Path, digits: Path, runtime: str, device: str, path: str) -> DelegateError:
    known = Device(device, "tpu", properties={"library": str(library), "path": path})
    configuration = Configuration({"Performance": "High", "Usb.AlwaysDfu": True})
    with pytest.raises(DelegateError) as caught:
        open_remotely(EdgeTpuDelegate(), read_model(digits), known, configuration, load_runtime(runtime))
    return caught.value


@pytest.mark.parametrize(
    ("device", "path", "selector"),
    [
        ("usb:0", "/sys/bus/usb/devices/1-2", "usb:1"),
        ("usb:1", "/sys/bus/usb/devices/1-10", "usb:0"),
        ("pci:0", "/dev/apex_0", "pci:1"),
    ],
)
def test_it_is_opened_by_where_it_is_and_says_what_the_library_said(
    library: Path, digits: Path, runtime_name: str, device: str, path: str, selector: str
) -> None:
    error = refused(library, digits, runtime_name, device, path)
    # The library counts sticks without firmware first; it tells the cause on stderr, where it is asked to.
    assert f"device={selector} Performance=High Usb.AlwaysDfu=True" in error.reason
    assert "Permission denied: USB error -3" in error.reason
    assert "plugdev" in error.remedy


def test_a_device_that_the_library_does_not_see(library: Path, digits: Path, runtime_name: str) -> None:
    error = refused(library, digits, runtime_name, "usb:0", "/sys/bus/usb/devices/3-3")
    assert "sees no Edge TPU at /sys/bus/usb/devices/3-3, only: /sys/bus/usb/devices/1-10" in error.reason
    assert "cable" in error.remedy


def test_what_is_remembered_does_not_depend_on_the_firmware(machine: Machine, digits: Path) -> None:
    keys = []
    for identity in ("1a6e:089a", "18d1:9302"):
        machine.stick("1-1", identity)
        (device,) = machine.probe().devices
        candidate = Candidate(EdgeTpuDelegate(), device, Configuration(), load_runtime())
        keys.append(Memory(Verdicts(None), read_model(digits), Terms(), {})._key(candidate))
    assert keys[0] == keys[1]


def test_a_crash_says_what_it_usually_means() -> None:
    candidate = Candidate(EdgeTpuDelegate(), Device("usb:0", "tpu"), Configuration(), load_runtime())
    crashed = failed(candidate, WorkerCrashedError("killed by SIGSEGV"))
    assert "works with the TensorFlow Lite it was built for" in crashed.remedy
    assert failed(candidate, DelegateError("refused")).remedy == ""

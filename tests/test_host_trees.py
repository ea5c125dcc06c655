"""The host probe on every kind of tree: partial, garbled, hostile, large; and what each capture is."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import types
import typing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tflite_hal.host import Cluster, Dmi, HostInfo, PlatformDevice, Thermal, probe_host
from tflite_hal.host.tree import Tree

HOSTS = Path(__file__).resolve().parent / "hosts"
CAPTURES = Path(__file__).resolve().parents[1].parent / "shared" / "captures"
CPUS = "sys/devices/system/cpu"
POSIX = pytest.mark.skipif(os.name == "nt", reason="links, pipes and odd names are POSIX")


def write(root: Path, files: dict[str, str | bytes]) -> HostInfo:
    for name, content in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return probe_host(root)


def is_a(value: object, kind: object) -> bool:
    """Whether a value is what an annotation says, all the way down."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        return any(is_a(value, one) for one in arguments)
    if origin is tuple:
        return type(value) is tuple and all(is_a(one, arguments[0]) for one in value)
    if kind is type(None) or kind is None:
        return value is None
    if isinstance(kind, type) and issubclass(kind, tuple):
        hints = typing.get_type_hints(kind)
        return type(value) is kind and all(is_a(getattr(value, name), hints[name]) for name in hints)
    return type(value) is kind


FACTS = {
    "arch": str | None, "memory_bytes": int | None, "memory_available_bytes": int | None,
    "memory_limit_bytes": int | None, "os": str | None, "os_version": str | None, "os_id": tuple[str, ...],
    "kernel": str | None, "nodes": tuple[str, ...], "container": str, "virtual": str,
    "platform": tuple[PlatformDevice, ...], "thermal": Thermal, "dmi": Dmi,
    "python": None, "pointer_bits": None, "page_size": None, "groups": None,
}  # fmt: skip


def assert_sound(host: HostInfo) -> None:
    """Right types, JSON-ready, printable, and the same after a round trip."""
    for name, kind in FACTS.items():
        assert is_a(getattr(host, name), kind), (name, getattr(host, name))
    for value in (host.cpu, host.board, *host.usb, *host.pci):
        assert is_a(value, type(value)), value
    text = json.dumps(host.to_dict(), allow_nan=False)
    assert HostInfo.from_dict(json.loads(text)).to_dict() == host.to_dict()
    for shown in (host.cpu.model, host.board.model, host.dmi.product, host.os, host.kernel):
        assert shown is None or (shown.isprintable() and shown), shown
    usable, online = host.cpu.usable, host.cpu.online
    assert usable is None or online is None or 1 <= usable <= online
    assert sum(len(cluster.cpus) for cluster in host.cpu.clusters) == (online or 0)


# --- garbage -------------------------------------------------------------------------------------------

_WORDS = [
    "processor", "Processor", "flags", "Features", "CPU part", "CPU implementer", "CPU architecture", "0x41",
    "0xd0b", "8", "7", "AArch64", "lm", "asimd", "hypervisor", "Model", "Hardware", "Serial", "\t: ", ":",
    "\n",
    "\n\n", "\0", "²", "٣", "0-3", "0-99999", ",", " ", "99999", "-1", "max", "max 100000", "150000 100000",
    "MemTotal:", "MemAvailable:", " kB", "ID=", "VERSION_ID=\"", "PRETTY_NAME=", "'", "0::/", "0::/../..",
    "4:cpu,cpuacct:/docker/", "/kubepods/", "../", "./", "/", "rockchip,rk3588-rknn-core", "okay", "disabled",
    "0x120000", "1ac1", "18d1", "Microsoft", "QEMU", "control_d", "\u2028", "\x1b[31m",
    "45000", "-87900", "50005",
]  # fmt: skip
_TEXTS = st.lists(st.sampled_from(_WORDS) | st.text(max_size=4), max_size=30).map("".join)
_BYTES = st.binary(max_size=200) | _TEXTS.map(str.encode) | _TEXTS.map(lambda text: text.encode("utf-16"))
#: Every file the probe reads, and the folders it lists.
_FILES = [
    "proc/cpuinfo", "proc/meminfo", "proc/self/cgroup", "proc/1/cgroup", "proc/xen/capabilities",
    "proc/sys/kernel/osrelease", "proc/device-tree/model", "proc/device-tree/compatible",
    "proc/device-tree/hypervisor/compatible", "proc/device-tree/npu@1/compatible",
    "proc/device-tree/npu@1/status", "proc/device-tree/soc/gpu@2/compatible", "proc/device-tree/soc/bus/dsp",
    "sys/firmware/devicetree/base/model", f"{CPUS}/online", f"{CPUS}/present", f"{CPUS}/possible",
    f"{CPUS}/cpu0/cpufreq/cpuinfo_max_freq", f"{CPUS}/cpu0/cpufreq/related_cpus", f"{CPUS}/cpu1",
    "sys/class/dmi/id/sys_vendor", "sys/class/dmi/id/product_name", "sys/class/dmi/id/board_vendor",
    "sys/class/thermal/thermal_zone0/temp", "sys/class/thermal/thermal_zone1",
    "sys/devices/platform/soc/soc:firmware/get_throttled", "sys/hypervisor/type",
    "sys/bus/usb/devices/1-1/idVendor", "sys/bus/usb/devices/1-1/idProduct", "sys/bus/usb/devices/2-1",
    "sys/bus/pci/devices/0/vendor", "sys/bus/pci/devices/0/device", "sys/bus/pci/devices/0/class",
    "sys/bus/pci/devices/0/driver", "sys/fs/cgroup/cpu.max", "sys/fs/cgroup/memory.max",
    "sys/fs/cgroup/cpu/cpu.cfs_quota_us", "sys/fs/cgroup/cpu/cpu.cfs_period_us",
    "sys/fs/cgroup/memory/memory.limit_in_bytes", "run/systemd/container", "run/host/container-manager",
    "etc/os-release", "usr/lib/os-release", "dev/apex_0", "dev/accel/accel0",
]  # fmt: skip


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(_FILES), _BYTES, max_size=len(_FILES)))
def test_any_tree_of_any_bytes_gives_facts(files: dict[str, bytes]) -> None:
    root = Path(tempfile.mkdtemp())
    try:
        assert_sound(write(root, files))  # type: ignore[arg-type]
    finally:
        shutil.rmtree(root)


_FIELDS = ["processor", "Processor", "CPU part", "CPU implementer", "CPU architecture", "Features", "flags",
           "isa", "model name", "vendor_id", "Model", "Hardware", "BogoMIPS"]  # fmt: skip
_LINES = st.tuples(st.sampled_from(_FIELDS), st.sampled_from(["\t: ", ":", " : ", ""]), _TEXTS).map("".join)


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(_LINES | st.just(""), max_size=40).map("\n".join))
def test_any_cpuinfo_gives_a_processor(text: str) -> None:
    root = Path(tempfile.mkdtemp())
    try:
        assert_sound(write(root, {"proc/cpuinfo": text}))
    finally:
        shutil.rmtree(root)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_a_machine_with_any_files_missing_gives_facts(data: st.DataObject) -> None:
    source = data.draw(st.sampled_from(sorted(path for path in HOSTS.iterdir() if any(path.iterdir()))))
    files = sorted(path.relative_to(source) for path in source.rglob("*") if path.is_file())
    missing = data.draw(st.sets(st.sampled_from(files)))
    root = Path(tempfile.mkdtemp())
    try:
        for file in files:
            if file not in missing:
                (root / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source / file, root / file)
        assert_sound(probe_host(root))
    finally:
        shutil.rmtree(root)


@POSIX
@pytest.mark.parametrize("kind", ["folder", "pipe", "loop", "dangling", "outside", "above", "device"])
def test_anything_in_the_place_of_a_file_is_harmless(tmp_path: Path, kind: str) -> None:
    root, secret = tmp_path / "root", tmp_path / "etc"
    write(tmp_path, {"etc": "processor: 0\nflags: lm secret\nsecret"})
    for name in _FILES:
        place = root / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if kind == "folder":
            place.mkdir(exist_ok=True)
        elif kind == "pipe":
            os.mkfifo(place)
        else:
            above = "../" * (name.count("/") + 1) + "etc"
            targets = {"loop": place.name, "dangling": "/nowhere", "outside": secret, "device": "/dev/zero"}
            place.symlink_to(targets.get(kind, above))
    host = probe_host(root)
    assert_sound(host)
    assert host.arch is None
    assert "secret" not in json.dumps({**host.to_dict(), "root": ""})


@POSIX
def test_absolute_and_parent_links_stay_below_the_root(tmp_path: Path) -> None:
    """A captured link to /etc is that of the captured machine, however it is spelt."""
    root = tmp_path / "root"
    write(root, {"etc/os-release": "ID=captured\nPRETTY_NAME=Captured\n", "real/model": "Board\0"})
    (root / "proc").mkdir()
    (root / "proc" / "device-tree").symlink_to("/real")
    (root / "usr" / "lib").mkdir(parents=True)
    (root / "usr" / "lib" / "os-release").symlink_to("../" * 30 + "etc/os-release")
    (root / "etc" / "passwd").symlink_to("/etc/passwd")
    (root / "etc" / "up").symlink_to("../" * 30)
    (root / "etc" / "tricky").symlink_to("up/../etc/../../etc/os-release")
    host = probe_host(root)
    assert (host.os, host.board.model) == ("Captured", "Board")
    for path in ("/usr/lib/os-release", "/etc/up/etc/os-release", "/etc/tricky", "/etc/../../etc/os-release"):
        assert host.read(path) == "ID=captured\nPRETTY_NAME=Captured", path
    assert host.read("/etc/passwd") is None
    assert set(host.list("/etc/up")) == {"etc", "proc", "real", "usr"}


# --- how much is read ----------------------------------------------------------------------------------


def test_what_is_read_of_a_machine_is_little(monkeypatch: pytest.MonkeyPatch) -> None:
    for root in sorted(HOSTS.iterdir()):
        files, size = _cost(root, monkeypatch)
        assert files <= 120, root.name
        assert size <= 64 << 10, root.name


def test_what_is_read_of_a_huge_machine_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    block = "processor\t: {}\nCPU implementer: 0x41\nCPU part: 0x{:x}\n\n"
    cpuinfo = "".join(block.format(n, n) for n in range(20_000))
    files: dict[str, str | bytes] = {"proc/cpuinfo": cpuinfo * 20, f"{CPUS}/online": "0-99999"}
    for number in range(1500):
        files[f"sys/bus/pci/devices/{number:04x}/vendor"] = "x" * 100_000 if number % 50 == 0 else "0x1ac1"
        files[f"sys/bus/pci/devices/{number:04x}/device"] = "0x089a"
    for number in range(300):
        files[f"proc/device-tree/npu@{number}/compatible"] = "a,npu\0" * 5000
        files[f"proc/device-tree/soc@{number}/x"] = ""
        files[f"sys/class/thermal/thermal_zone{number}/temp"] = "1000"
    files["proc/self/cgroup"] = "0::" + "/a" * 30_000
    write(tmp_path, files)
    read, size = _cost(tmp_path, monkeypatch)
    assert read <= 20_000
    assert size <= 24 << 20
    host = probe_host(tmp_path)
    assert (len(host.platform), host.thermal.zones) == (64, 64)
    assert len(host.pci) <= 1024
    assert host.cpu.online == 8192


def _cost(root: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[int, int]:
    """Return how many files a probe asks for, and how many bytes it gets."""
    asked: list[int] = []
    content = Tree.content

    def counted(tree: Tree, path: str, limit: int) -> bytes | None:
        found = content(tree, path, limit)
        asked.append(len(found or b""))
        return found

    with monkeypatch.context() as patch:
        patch.setattr(Tree, "content", counted)
        probe_host(root)
    return len(asked), sum(asked)


# --- processors ----------------------------------------------------------------------------------------


def test_a_32_bit_view_denies_nothing(tmp_path: Path) -> None:
    """Features that a 32-bit reader or kernel can't see are unknown, and what is listed is known."""
    narrow = (
        "processor: 0\nFeatures: half thumb neon\nCPU implementer: 0x41\nCPU architecture: {}\nCPU part: {}\n"
    )
    reader = write(tmp_path / "a", {"proc/cpuinfo": narrow.format("8", "0xd05")}).cpu
    kernel = write(tmp_path / "b", {"proc/cpuinfo": narrow.format("7", "0xd03")}).cpu
    for cpu in (reader, kernel):
        assert cpu.narrow
        assert (cpu.has("neon"), cpu.has("asimddp")) == (True, None)
    old = write(tmp_path / "c", {"proc/cpuinfo": narrow.format("7", "0xc08")}).cpu
    assert (old.narrow, old.has("neon"), old.has("asimddp")) == (False, True, False)
    assert probe_host(HOSTS / "empty").cpu.has("neon") is None
    assert probe_host(HOSTS / "raspberry-pi-5-coral-usb").cpu.has("sve") is False


def test_interleaved_cores_without_masks(tmp_path: Path) -> None:
    """cpu0 and cpu4 little, the others big; no possible, present or online."""
    text = "".join(
        f"processor: {cpu}\nCPU implementer: 0x41\nCPU architecture: 8\nCPU part: {part}\n\n"
        for cpu, part in enumerate(["0xd05", "0xd41", "0xd41", "0xd41"] * 2)
    )
    cpu = write(tmp_path, {"proc/cpuinfo": text}).cpu
    assert (cpu.logical, cpu.online, cpu.usable) == (8, 8, 8)
    assert cpu.clusters == (
        Cluster((0, 4), "0x41", "0xd05", None),
        Cluster((1, 2, 3, 5, 6, 7), "0x41", "0xd41", None),
    )
    assert cpu.model == "2× Cortex-A55 + 6× Cortex-A78"


def test_a_clock_that_old_kernels_tell_of_one_cpu_is_that_of_all_related(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {
        f"{CPUS}/online": "0-3",
        f"{CPUS}/cpu0/cpufreq/cpuinfo_max_freq": "800000",
        f"{CPUS}/cpu0/cpufreq/related_cpus": "0 1",
        f"{CPUS}/cpu2/cpufreq/cpuinfo_max_freq": "1600000",
        f"{CPUS}/cpu2/cpufreq/related_cpus": "2 3",
    }
    speeds = [(cluster.cpus, cluster.max_mhz) for cluster in write(tmp_path, files).cpu.clusters]
    assert speeds == [((0, 1), 800), ((2, 3), 1600)]


def test_processors_by_folders_alone(tmp_path: Path) -> None:
    (tmp_path / CPUS).mkdir(parents=True)
    for name in ("cpu0", "cpu1", "cpu10", "cpufreq", "cpuidle", "cpux"):
        (tmp_path / CPUS / name).mkdir()
    cpu = probe_host(tmp_path).cpu
    assert (cpu.logical, cpu.online, cpu.usable) == (3, None, None)


# --- other facts ---------------------------------------------------------------------------------------


def test_smbios_and_a_device_tree_are_both_told(tmp_path: Path) -> None:
    host = write(
        tmp_path,
        {
            "proc/device-tree/model": "Example Board\0",
            "proc/device-tree/compatible": b"example,board\0\xe4,soc\0",
            "sys/class/dmi/id/sys_vendor": "Ger\xe4te\x00 GmbH".encode("latin-1"),
            "sys/class/dmi/id/product_name": "U-Boot\x1b[2J\n",
        },
    )
    assert host.board.model == "Example Board"
    assert host.board.compatible == ("example,board", "\\xe4,soc")
    assert host.dmi == Dmi("Ger\\xe4te GmbH", "U-Boot [2J")
    assert_sound(host)


def test_what_computes_in_the_device_tree(tmp_path: Path) -> None:
    base = "sys/firmware/devicetree/base"
    host = write(
        tmp_path,
        {
            f"{base}/model": "Example\0",
            f"{base}/npu@fdab0000/compatible": "rockchip,rk3588-rknn-core\0",
            f"{base}/npu@fdab0000/status": "okay\0",
            f"{base}/npu@fdac0000/compatible": "rockchip,rk3588-rknn-core\0",
            f"{base}/npu@fdac0000/status": "disabled\0",
            f"{base}/soc@0/npu@4a900000/compatible": "fsl,imx93-npu\0arm,ethos-u65\0",
            f"{base}/soc/bus@ff600000/npu@ff100000/compatible": "vivante,gc\0",
            f"{base}/bus@100000/dsp@64800000/compatible": "ti,j721e-c71-dsp\0",
            f"{base}/cpus/cpu@0/compatible": "arm,cortex-a76\0",
            f"{base}/soc@0/serial@1/compatible": "arm,pl011\0",
            f"{base}/gpu-opp-table/opp-1/x": "",
            "sys/bus/platform/devices/fdab0000.npu/driver": "../../../../bus/platform/drivers/rocket",
        },
    )
    found = {device.name: device for device in host.platform}
    assert found["npu@fdab0000"] == PlatformDevice(
        "npu@fdab0000",
        ("rockchip,rk3588-rknn-core",),
        "okay",
        "rocket",
        "/sys/firmware/devicetree/base/npu@fdab0000",
    )
    assert (found["npu@fdac0000"].status, found["npu@fdac0000"].driver) == ("disabled", None)
    assert found["npu@4a900000"].compatible == ("fsl,imx93-npu", "arm,ethos-u65")
    assert found["npu@4a900000"].status == "okay", "where the tree says nothing"
    assert set(found) == {"npu@fdab0000", "npu@fdac0000", "npu@4a900000", "npu@ff100000", "dsp@64800000"}


def test_pci_classes_are_named(tmp_path: Path) -> None:
    classes = {
        "0x120000": "processing accelerator",
        "0x030200": "3D controller",
        "0x020000": None,
        "odd": None,
    }
    for number, code in enumerate(classes):
        folder = f"sys/bus/pci/devices/{number}"
        write(tmp_path, {f"{folder}/vendor": "0x1e60", f"{folder}/device": "0x2864", f"{folder}/class": code})
    assert [device.class_name for device in probe_host(tmp_path).pci] == list(classes.values())


def test_nodes_of_accelerators_are_listed(tmp_path: Path) -> None:
    wanted = [
        "apex_0", "galcore", "ethosu0", "neutron0", "hailo0", "rknpu", "mali0", "kgsl-3d0", "fastrpc-cdsp",
        "fastrpc-cdsp-secure", "adsprpc-smd", "neuron0", "dxg", "nvidia0", "nvidiactl", "nvhost-gpu", "kfd",
        "accel/accel0", "dri/renderD128", "dri/card0", "dma_heap/system",
    ]  # fmt: skip
    common = [
        "null",
        "tty0",
        "sda1",
        "nvme0n1",
        "random",
        "loop0",
        "stdin",
        "input/event0",
        "bus/usb/001/001",
    ]
    host = write(tmp_path, {f"dev/{name}": "" for name in wanted + common})
    assert set(host.nodes) == {f"/dev/{name}" for name in wanted}


def test_memory_version_and_temperature(tmp_path: Path) -> None:
    host = write(
        tmp_path,
        {
            "proc/meminfo": "MemTotal:  2048 kB\nMemFree: 1 kB\nMemAvailable:  1024 kB\n",
            "etc/os-release": 'PRETTY_NAME="Debian 12"\nID=debian\nVERSION_ID="12"\n',
            "sys/class/thermal/thermal_zone0/temp": "48312\n",
            "sys/class/thermal/thermal_zone1/temp": "-87900\n",
            "sys/class/thermal/thermal_zone2/temp": "hot\n",
            "sys/devices/platform/soc/soc:firmware/get_throttled": "50005\n",
        },
    )
    assert (host.memory_bytes, host.memory_available_bytes) == (2 << 20, 1 << 20)
    assert (host.os_version, host.os_id) == ("12", ("debian", "linux"))
    slowed = ("under-voltage", "throttled", "under-voltage since the start", "throttled since the start")
    assert host.thermal == Thermal(3, 48.312, slowed)
    assert probe_host(HOSTS / "empty").thermal == Thermal(0, None, None)


# --- what each capture is ------------------------------------------------------------------------------

#: Architecture, CPUs known and online, sizes of the clusters, board, and what identifies accelerators.
MACHINES = {
    "android-galaxy-s9-global": ("aarch64", 8, 8, [4, 4], None, ""),
    "android-huawei-mate-20": ("aarch64", 8, 8, [4, 2, 2], None, ""),
    "android-nexus-s": ("armv7l", 1, 1, [1], "herring", ""),
    "android-pixel-8": ("aarch64", 9, 9, [4, 4, 1], None, ""),
    "android-zenfone-2": ("x86_64", 4, 4, [4], None, ""),
    "cpuinfo-beagleboard-xm": ("armv7l", 1, 1, [1], "Generic OMAP36xx (Flattened Device Tree)", ""),
    "cpuinfo-jetson-tx1": ("aarch64", 4, 4, [4], "jetson_tx1", ""),
    "cpuinfo-raspberrypi2": ("armv7l", 4, 4, [4], "BCM2709", ""),
    "ghw-amd64-accel": ("x86_64", 2, 2, [2], None, "1af4:1050 1b36:0005"),
    "ghw-amd64-offlineCPUs": ("x86_64", 4, 2, [2], None, ""),
    "ghw-arm64-c288e0776090cd55": ("aarch64", 1, 1, [1], None, ""),
    "hw-rpi3b-opensuse": (None, None, None, [], None, ""),
    "hwloc-20em64t-hybrid-1p6c2t_2ca4co1t": ("x86_64", 20, 20, [8, 4, 8], None, ""),
    "hwloc-2arm-2c": ("armv7l", 2, 2, [2], "ST-Ericsson MOP500 platform", ""),
    "issue-coral-pcie-no-devnode": (None, None, None, [], None, "1ac1:089a"),
    "issue-coral-pcie-no-driver": (None, None, None, [], None, "1ac1:089a"),
    "issue-coral-usb-bootloader": (None, None, None, [], None, "1a6e:089a"),
    "issue-coral-usb-runtime": ("x86_64", None, None, [], None, "18d1:9302"),
    "sbc-a311d": ("aarch64", 6, 6, [2, 4], None, ""),
    "sbc-apple-m1": ("aarch64", 10, 10, [2, 8], None, ""),
    "sbc-graviton3": ("aarch64", 1, 1, [1], None, ""),
    "sbc-imx8m": ("aarch64", 4, 4, [4], None, ""),
    "sbc-jetson-nano": ("aarch64", 4, 4, [4], None, ""),
    "sbc-qrb5165": ("aarch64", 8, 8, [4, 4], "Qualcomm Technologies, Inc KONA", ""),
    "sbc-rk3588": ("aarch64", 8, 8, [4, 4], None, ""),
    "sbc-rpi-zero": ("armv6l", 1, 1, [1], "Raspberry Pi Zero Rev 1.3", ""),
    "sbc-rpi-zero2": ("armv7l", 4, 4, [4], "Raspberry Pi Zero 2 Rev 1.0", ""),
    "sbc-rpi4": ("aarch64", 4, 4, [4], "Raspberry Pi 4 Model B Rev 1.4", ""),
    "sbc-rpi5": ("aarch64", 4, 4, [4], "Raspberry Pi 5 Model B Rev 1.0", ""),
    "sbc-stm32mp1": ("armv7l", 2, 2, [2], "Generic DT based system", ""),
    "sbc-ti-am625": ("aarch64", 4, 4, [4], None, ""),
    "sbctxt-imx8mp-evk": (None, 4, 4, [4], "NXP i.MX8MPlus EVK board", ""),
    "sbctxt-rock5b": (None, 8, 8, [4, 4], "Radxa ROCK 5 Model B", ""),
    "sbctxt-rpi5-full": (None, 4, 4, [4], "Raspberry Pi 5 Model B Rev 1.0", ""),
}
NARROW = {"android-galaxy-s9-global", "android-huawei-mate-20", "sbc-rpi-zero2"}
VIRTUAL = {"ghw-amd64-accel", "ghw-amd64-offlineCPUs"}
CORALS = {"1ac1:089a", "1a6e:089a", "18d1:9302"}


@pytest.mark.parametrize("name", MACHINES)
def test_what_a_capture_is(name: str) -> None:
    if not CAPTURES.is_dir():
        pytest.skip("captured machines are not at shared/captures beside the checkout")
    if not (CAPTURES / name).is_dir():
        pytest.skip(f"shared/captures has no {name}")
    host = probe_host(CAPTURES / name / "root")
    assert_sound(host)
    arch, logical, online, clusters, board, ids = MACHINES[name]
    assert (host.arch, host.cpu.logical, host.cpu.online) == (arch, logical, online)
    assert [len(cluster.cpus) for cluster in host.cpu.clusters] == clusters
    assert host.board.model == board
    accelerators = [d.id for d in host.usb if d.id in CORALS]
    accelerators += [d.id for d in host.pci if d.id in CORALS or (d.class_code or "")[:2] in ("03", "12")]
    assert " ".join(accelerators) == ids
    assert host.cpu.narrow is (name in NARROW)
    assert host.container == ""
    assert host.virtual == ("vm-other" if name in VIRTUAL else "")

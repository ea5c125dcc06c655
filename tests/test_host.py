"""Host facts: hand-written machines, captured ones, hostile trees, and the machine the tests run on."""

import json
import os
import platform
import shutil
import socket
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tflite_hal.host import Board, BusDevice, Cluster, Cpu, Dmi, HostInfo, probe_host

HOSTS = Path(__file__).resolve().parent / "hosts"
CAPTURES = Path(__file__).resolve().parents[1].parent / "shared" / "captures"
POSIX = pytest.mark.skipif(os.name == "nt", reason="file modes are POSIX")
CPUS = "sys/devices/system/cpu"
ARCHITECTURES = {
    "arm": {"armv6l", "armv7l"},
    "aarch64-cpu-with-32bit-cpuinfo-view": {"aarch64"},
}
#: Rebuilt from listings without /proc/cpuinfo: nothing in the tree says what the listing said of it.
ARCH_NOT_IN_THE_TREE = {"hw-rpi3b-opensuse", "sbctxt-imx8mp-evk", "sbctxt-rock5b", "sbctxt-rpi5-full"}
A76 = (
    "aes", "asimd", "asimddp", "asimdhp", "asimdrdm", "atomics", "cpuid", "crc32", "dcpop", "evtstrm", "fp",
    "fphp", "lrcpc", "pmull", "sha1", "sha2",
)  # fmt: skip
#: The kernel's names for what expected.json calls by the instructions' names.
FEATURES = {
    "neon": {"neon", "asimd"},
    "dotprod": {"asimddp"},
    "fp16": {"asimdhp"},
    "bf16": {"bf16", "svebf16"},
}


def put(root, **files):
    """Write files below a root; ``__`` in a name stands for ``/``."""
    for name, content in files.items():
        file = root / name.replace("__", "/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else content.encode())


# --- hand-written machines -----------------------------------------------------------------------------


def test_raspberry_pi_5_with_a_coral_on_usb():
    host = probe_host(HOSTS / "raspberry-pi-5-coral-usb")
    assert host.arch == "aarch64"
    assert host.cpu == Cpu(
        vendor="ARM",
        model="4× Cortex-A76",
        logical=4,
        online=4,
        usable=4,
        features=A76,
        clusters=(Cluster((0, 1, 2, 3), "0x41", "0xd0b", 2400),),
    )
    assert host.memory_bytes == 8257536 * 1024
    assert host.board == Board("Raspberry Pi 5 Model B Rev 1.0", ("raspberrypi,5-model-b", "brcm,bcm2712"))
    assert host.dmi == Dmi(None, None)
    assert host.usb == (
        BusDevice("18d1:9302", "1-1", "usb", None, "/sys/bus/usb/devices/1-1"),
        BusDevice("1d6b:0002", "usb1", None, None, "/sys/bus/usb/devices/usb1"),
    )
    assert host.read(f"{host.usb[0].path}/busnum") == "1"
    assert host.pci == ()
    assert host.nodes == ("/dev/video0", "/dev/dri/renderD128")
    assert (host.os, host.os_id) == ("Debian GNU/Linux 12 (bookworm)", ("debian", "linux"))
    assert (host.kernel, host.python, host.page_size) == ("6.6.31+rpt-rpi-2712", None, None)


def test_pc_with_a_coral_on_pci():
    host = probe_host(HOSTS / "x86-coral-pcie")
    assert host.arch == "x86_64"
    assert (host.cpu.vendor, host.cpu.model) == (
        "GenuineIntel",
        "Intel(R) Pentium(R) Silver J5040 CPU @ 2.00GHz",
    )
    assert "avx" not in host.cpu.features
    assert host.cpu.clusters == (Cluster((0, 1, 2, 3), None, None, None),)
    assert host.memory_bytes == 7914548 * 1024
    assert host.board == Board(None, ())
    assert host.dmi == Dmi("Example Maker", "Example Board")
    assert host.pci == (
        BusDevice("8086:31e8", "0000:00:1f.0", None, None, "/sys/bus/pci/devices/0000:00:1f.0"),
        BusDevice(
            "1ac1:089a",
            "0000:01:00.0",
            "apex",
            "088000",
            "/sys/bus/pci/devices/0000:01:00.0",
            "system peripheral",
        ),
    )
    assert host.nodes == ("/dev/apex_0",)
    assert host.access("/dev/apex_0") is None, "of a captured machine that can't be known"
    assert (host.os, host.os_id) == ("Ubuntu 22.04.4 LTS", ("ubuntu", "debian", "linux"))


def test_hybrid_processor_with_interleaved_clusters_and_offline_cpus():
    cpu = probe_host(HOSTS / "x86-hybrid").cpu
    assert (cpu.logical, cpu.online, cpu.usable) == (8, 6, 6)
    assert cpu.clusters == (Cluster((0, 2, 3, 5), None, None, 3900), Cluster((1, 4), None, None, 5200))
    assert "avx2" in cpu.features
    assert "avx_vnni" not in cpu.features, "not every CPU lists it"


def test_of_an_empty_tree_nothing_is_known(monkeypatch):
    monkeypatch.setattr(platform, "processor", lambda: "this machine's, not the captured one's")
    host = probe_host(HOSTS / "empty")
    assert (host.arch, host.memory_bytes, host.os, host.kernel) == (None, None, None, None)
    assert host.cpu == Cpu(None, None, None, None, None, None, ())
    assert (host.board, host.dmi) == (Board(None, ()), Dmi(None, None))
    assert (host.usb, host.pci, host.nodes, host.os_id) == ((), (), (), ())


@pytest.mark.parametrize(
    ("cpuinfo", "arch"),
    [
        ("Processor\t: ARMv7 Processor rev 2 (v7l)\nprocessor: 0\n\nCPU architecture: 7\n", "armv7l"),
        ("processor: 0\nmodel name: ARMv6-compatible processor\nCPU architecture: 7\n", "armv6l"),
        ("processor: 0\nCPU architecture: 6TEJ\n", "armv6l"),
        ("processor: 0\nFeatures: half thumb neon\nCPU architecture: 8\n", "aarch64"),
        ("processor: 0\nflags: fpu sse\n", "i686"),
        ("processor: 0\nisa: rv64imafdc\n", None),
    ],
)
def test_architecture_from_cpuinfo(tmp_path, cpuinfo, arch):
    put(tmp_path, proc__cpuinfo=cpuinfo)
    assert probe_host(tmp_path).arch == arch


def test_one_identification_block_holds_for_all_cpus(tmp_path):
    identity = "CPU implementer: 0x41\nCPU architecture: 7\nCPU part: 0xc09\n"
    put(tmp_path, proc__cpuinfo=f"Processor: ARMv7\nprocessor: 0\n\nprocessor: 1\n\n{identity}")
    assert probe_host(tmp_path).cpu.clusters == (Cluster((0, 1), "0x41", "0xc09", None),)


def test_architecture_from_the_kernel_release_where_there_is_no_cpuinfo(tmp_path):
    put(tmp_path, proc__sys__kernel__osrelease="5.14.0-70.el9.x86_64\n")
    assert probe_host(tmp_path).arch == "x86_64"


# --- captured machines ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def captures():
    """Return (name, host, what expected.json says) of each captured machine."""
    if not CAPTURES.is_dir():
        pytest.skip("captured machines are not at shared/captures beside the checkout")
    return [
        (file.parent.name, probe_host(file.parent / "root"), json.loads(file.read_text("utf-8")))
        for file in sorted(CAPTURES.glob("*/expected.json"))
    ]


def grouped(clusters, key):
    groups = {}
    for cluster in clusters:
        groups.setdefault(key(cluster), []).extend(cluster.cpus)
    return groups


def test_captures_are_whole_and_json_ready(captures):
    assert len(captures) >= 34
    for _, host, _ in captures:
        plain = json.loads(json.dumps(host.to_dict()))
        assert HostInfo.from_dict(plain).to_dict() == host.to_dict()


def test_captured_architecture(captures):
    unknown = {name for name, host, expected in captures if "arch" in expected and host.arch is None}
    assert unknown == ARCH_NOT_IN_THE_TREE
    for name, host, expected in captures:
        if name not in unknown and "arch" in expected:
            assert host.arch in ARCHITECTURES.get(expected["arch"], {expected["arch"]}), name


def test_captured_processors(captures):
    for name, host, expected in captures:
        cpu = host.cpu
        assert cpu.usable == cpu.online, name
        assert cpu.online == expected.get("cpus_online", cpu.online), name
        assert cpu.logical == expected.get("cpus_present", cpu.logical), name
        assert set(cpu.features or ()).isdisjoint(expected.get("features_not_listed", ())), name
        for feature in expected.get("features_all_cpus", ()):
            assert FEATURES.get(feature, {feature}) & set(cpu.features), (name, feature)


def test_captured_core_types_and_clusters(captures):
    for name, host, expected in captures:
        types = grouped(host.cpu.clusters, lambda cluster: (cluster.implementer, cluster.part))
        if "core_types" in expected:
            given = {(t["implementer"], t["part"]): t["cpus"] for t in expected["core_types"]}
            assert types == given, name
        if "core_types_incomplete" in expected:
            block = expected["core_types_incomplete"]
            assert list(types) == [(block["implementer"], block["part"])], name
        speeds = grouped(host.cpu.clusters, lambda cluster: cluster.max_mhz)
        for group in expected.get("clusters_by_cpuinfo_max_freq_khz", ()):
            # Old kernels tell it of the first CPU only.
            alike = {"hwloc-2arm-2c": [0, 1]}.get(name, group["cpus"])
            assert speeds[group["khz"] // 1000] == alike, name


def test_captured_boards(captures):
    for name, host, expected in captures:
        assert host.board.model == expected.get("board_model", host.board.model), name
        assert list(host.board.compatible) == expected.get("dt_compatible", []), name
        dmi = expected.get("dmi", {})
        assert host.dmi == Dmi(dmi.get("sys_vendor"), dmi.get("product_name")), name


def test_captured_devices(captures):
    for name, host, expected in captures:
        assert sorted({device.id for device in host.usb}) == expected.get("usb_ids", []), name
        assert len(host.pci) == expected.get("pci_count", len(host.pci)), name
        for device in expected.get("accelerators", ()):
            if "slot" in device:
                found = {pci.slot: (pci.id, pci.driver) for pci in host.pci}[device["slot"]]
                assert found == (f"{device['vendor'][2:]}:{device['device'][2:]}", device["driver"]), name
        if "apex_dev_node_present" in expected:
            assert ("/dev/apex_0" in host.nodes) is expected["apex_dev_node_present"], name


# --- hostile trees -------------------------------------------------------------------------------------

_BYTES = st.binary(max_size=400) | st.lists(
    st.sampled_from(
        [
            b"processor", b"Processor", b"flags", b"Features", b"CPU part", b"CPU architecture", b"0x41",
            b":", b": ", b"\n", b"\n\n", b"\0", b"\xff", b"lm", b"8", b"7", b"0-", b"-", b",", b"3",
            b"99999", b"MemTotal:", b" kB", b"\xc2\xb2", b"../", b"./", b"/",
        ]
    ),
    max_size=40,
).map(b"".join)  # fmt: skip


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@example(b"processor: \xc2\xb2\n", b"MemTotal: \xc2\xb2 kB", b"\0", b"\xc2\xb2")
@example(b"../cpuinfo", b"../../proc/meminfo", b"./model", b"0-8192," * 9000)
@given(_BYTES, _BYTES, _BYTES, _BYTES)
def test_any_bytes_are_harmless(tmp_path, cpuinfo, meminfo, tree, cpus):
    put(
        tmp_path,
        proc__cpuinfo=cpuinfo,
        proc__meminfo=meminfo,
        etc__ld=tree,
        sys__class__dmi__id__sys_vendor=tree,
        sys__bus__pci__devices__0__vendor=tree,
    )
    for name in ("model", "compatible"):
        put(tmp_path, **{f"proc__device-tree__{name}": tree})
    for name in ("online", "present", "cpu0/cpufreq/cpuinfo_max_freq"):
        put(tmp_path, **{f"{CPUS}/{name}": cpus})
    host = probe_host(tmp_path)
    plain = json.loads(json.dumps(host.to_dict()))
    assert HostInfo.from_dict(plain).to_dict() == host.to_dict()
    assert host.memory_bytes is None or host.memory_bytes >= 0


@pytest.fixture
def linked(tmp_path):
    """A tree whose files are links of every bad kind, and a secret beside it."""
    (tmp_path / "secret").write_text("processor: 0\nsecret")
    root = tmp_path / "root"
    for folder in ("proc/device-tree", "sys/bus/usb/devices/1-1", f"{CPUS}/cpu0", "dev", "etc"):
        (root / folder).mkdir(parents=True)
    for link, target in {
        "proc/cpuinfo": "../../secret",
        "proc/meminfo": "meminfo",
        "proc/device-tree/model": tmp_path / "secret",
        "proc/device-tree/compatible": "a",
        "proc/device-tree/a": "compatible",
        "etc/os-release": "../../../../../../../../etc/passwd",
        "sys/bus/usb/devices/1-1/idVendor": "nowhere",
        "sys/bus/usb/devices/1-1/driver": "../../drivers/gone",
        "sys/bus/usb/devices/loop": ".",
        "sys/bus/pci": "../../../..",
        "dev/apex_0": tmp_path / "secret",
        "dev/apex_1": "apex_1",
    }.items():
        (root / link).symlink_to(target)
    return root


@POSIX
def test_bad_links_are_harmless(linked):
    host = probe_host(linked)
    assert (host.arch, host.memory_bytes, host.board, host.os) == (None, None, Board(None, ()), None)
    assert (host.usb, host.pci, host.nodes) == ((), (), ())
    assert "secret" not in json.dumps(host.to_dict() | {"root": ""})
    assert host.link_name("/sys/bus/usb/devices/1-1/driver") == "gone"
    assert not host.exists("/sys/bus/usb/devices/1-1/driver")


@POSIX
@pytest.mark.parametrize(
    "path",
    [
        "/../secret", "../secret", "/proc/../../secret", "/proc/cpuinfo", "/proc/device-tree/model",
        "/dev/apex_0", "/dev/apex_1", "/proc/device-tree/a", "/sys/bus/pci/secret", "/etc/os-release",
        "/proc/\0", "/" + "a" * 5000, "/" + "a/" * 3000,
    ],
    ids=range(13),
)  # fmt: skip
def test_nothing_leaves_the_root(linked, path):
    host = probe_host(linked)
    assert not host.exists(path)
    assert host.read(path) is None
    assert host.list(path) == ()
    host.link_name(path)


def test_links_inside_the_root_are_followed(tmp_path):
    put(tmp_path, a__real="text\0\n", a__small="../a/real")
    host = probe_host(tmp_path)
    assert host.read("/a/small") == "text", "as archives store links"
    assert host.read("/a/../../a/real") == "text", "the root is its own parent"
    if os.name != "nt":
        (tmp_path / "absolute").symlink_to("/a")
        assert host.read("/absolute/real") == "text", "absolute links begin at the root"
        assert host.list("/absolute") == ("real", "small")


@POSIX
def test_what_is_no_file_is_not_read(tmp_path):
    (tmp_path / "proc" / "cpuinfo").mkdir(parents=True)
    os.mkfifo(tmp_path / "proc" / "meminfo")
    (tmp_path / "etc").mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        before = Path.cwd()
        os.chdir(tmp_path)  # the path of a socket is short
        try:
            listener.bind("etc/os-release")
        finally:
            os.chdir(before)
        host = probe_host(tmp_path)
    assert (host.arch, host.memory_bytes, host.os) == (None, None, None)


def test_reading_is_bounded(tmp_path):
    put(tmp_path, a="x" * 100_000)
    host = probe_host(tmp_path)
    assert len(host.read("/a")) == 65536
    assert host.read("/a", 3) == "xxx"


def test_a_root_that_is_missing_or_a_file(tmp_path):
    put(tmp_path, file="")
    for root in (tmp_path / "missing", tmp_path / "file"):
        assert probe_host(root).arch is None


# --- libraries -----------------------------------------------------------------------------------------


def test_find_library_in_a_tree(tmp_path, monkeypatch):
    put(
        tmp_path,
        proc__cpuinfo="processor: 0\nCPU architecture: 8\n",
        etc__ld_so="",
        usr__lib__liba="",
    )
    put(tmp_path, **{"etc/ld.so.conf.d/npu.conf": "# vendor\n/opt/npu/lib\n", "opt/npu/lib/libnpu.so": ""})
    put(tmp_path, **{"usr/lib/aarch64-linux-gnu/libb.so.1": "", "usr/lib/libb.so.1": ""})
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path / "usr" / "lib"))
    host = probe_host(tmp_path)
    assert host.find_library("libnpu.so") == "/opt/npu/lib/libnpu.so"
    assert host.find_library("libb.so.1") == "/usr/lib/aarch64-linux-gnu/libb.so.1"
    assert host.find_library("libmissing.so", "liba") == "/usr/lib/liba"
    assert host.find_library("libmissing.so") is None
    assert host.find_library() is None


@pytest.fixture
def live_library(tmp_path, monkeypatch):
    """A library of this user's in a folder the loader searches."""
    folder = tmp_path / "lib"
    folder.mkdir(mode=0o755)
    library = folder / "libtflite_hal_example.so"
    library.write_bytes(b"")
    library.chmod(0o644)
    monkeypatch.setenv("LD_LIBRARY_PATH", f"relative:{folder}")
    return library


@POSIX
def test_a_library_others_can_write_is_passed_over(live_library):
    host = probe_host()
    assert host.find_library(live_library.name) == str(live_library)
    for place in (live_library, live_library.parent):
        mode = place.stat().st_mode
        for bit in (0o020, 0o002):
            place.chmod(mode | bit)
            assert host.find_library(live_library.name) is None
        place.chmod(mode)
    assert host.find_library(live_library.name) == str(live_library)


@POSIX
def test_a_link_in_a_folder_others_can_write_is_passed_over(live_library, tmp_path, monkeypatch):
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / live_library.name).symlink_to(live_library)
    monkeypatch.setenv("LD_LIBRARY_PATH", str(shared))
    host = probe_host()
    shared.chmod(0o755)
    assert host.find_library(live_library.name) == str(shared / live_library.name)
    shared.chmod(0o777)
    assert host.find_library(live_library.name) is None


@POSIX
def test_a_library_of_another_user_is_passed_over(live_library, monkeypatch):
    host, owner = probe_host(), live_library.stat().st_uid
    if owner == 0:
        os.chown(live_library, 12345, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    assert host.find_library(live_library.name) is None


# --- the contract --------------------------------------------------------------------------------------


@pytest.mark.parametrize("tree", sorted(HOSTS.glob("*")), ids=lambda tree: tree.name)
def test_round_trip(tree):
    host = probe_host(tree)
    plain = json.loads(json.dumps(host.to_dict()))
    again = HostInfo.from_dict(plain)
    for name in host.to_dict():
        assert getattr(again, name) == getattr(host, name), name
    assert again.to_dict() == host.to_dict()
    assert again.read("/proc/cpuinfo") == host.read("/proc/cpuinfo"), "the tree can be asked again"


def test_names_of_the_contract():
    plain = probe_host(HOSTS / "raspberry-pi-5-coral-usb").to_dict()
    assert set(plain) == {
        "root", "live", "arch", "cpu", "memory_bytes", "memory_available_bytes", "memory_limit_bytes",
        "board", "dmi", "usb", "pci", "platform", "nodes", "os", "os_version", "os_id", "kernel", "container",
        "virtual", "thermal", "python", "pointer_bits", "page_size", "groups",
    }  # fmt: skip
    assert set(plain["cpu"]) == {
        "vendor", "model", "logical", "online", "usable", "features", "clusters", "narrow",
    }  # fmt: skip
    assert set(plain["cpu"]["clusters"][0]) == {"cpus", "implementer", "part", "max_mhz"}
    assert set(plain["board"]) == {"model", "compatible"}
    assert set(plain["usb"][0]) == {"id", "slot", "driver", "class_code", "path", "class_name"}
    pci = probe_host(HOSTS / "x86-coral-pcie").to_dict()["pci"]
    assert [device["id"] for device in pci] == ["8086:31e8", "1ac1:089a"]


def test_a_relative_root_is_made_absolute(monkeypatch):
    monkeypatch.chdir(HOSTS)
    assert probe_host("x86-hybrid").root == str(HOSTS / "x86-hybrid")


# --- this machine --------------------------------------------------------------------------------------


def test_this_machine():
    host = probe_host()
    aliases = {"AMD64": "x86_64", "arm64": "aarch64", "ARM64": "aarch64", "armv8l": "armv7l"}
    assert host.live
    assert host.root == "/"
    assert host.arch == aliases.get(platform.machine(), platform.machine())
    assert 1 <= host.cpu.usable <= host.cpu.logical
    assert host.cpu.usable <= host.cpu.online <= host.cpu.logical
    assert host.memory_bytes > 0
    assert host.python == platform.python_version()
    assert HostInfo.from_dict(json.loads(json.dumps(host.to_dict()))).to_dict() == host.to_dict()


@POSIX
def test_access_on_this_machine(tmp_path):
    file = tmp_path / "node"
    file.write_text("")
    host = probe_host()
    assert host.access(str(file)) is True
    assert host.access(str(tmp_path / "missing")) is None
    assert host.exists(str(file))
    assert not host.exists("/" + "a" * 5000)
    assert host.read("/" + "a" * 5000) is None
    assert shutil.which("sh") is None or host.read("/dev/null") is None, "a device would block"

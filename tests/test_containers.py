"""Containers, virtual machines and their limits, recognised from files."""

from __future__ import annotations

from pathlib import Path

import pytest

from tflite_hal.host import HostInfo, probe_host

V1 = "12:cpuset:/\n4:cpu,cpuacct:/docker/abc\n3:memory:/docker/abc\n0::/\n"


def write(root: Path, files: dict[str, str]) -> HostInfo:
    for name, content in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    return probe_host(root)


@pytest.mark.parametrize(
    ("files", "container"),
    [
        ({}, ""),
        ({".dockerenv": ""}, "docker"),
        ({"run/.containerenv": ""}, "podman"),
        ({"run/.containerenv": "", ".dockerenv": ""}, "podman"),
        ({"run/host/container-manager": "systemd-nspawn\n"}, "systemd-nspawn"),
        ({"run/systemd/container": "lxc\n"}, "lxc"),
        ({"run/systemd/container": "oci\n", ".dockerenv": ""}, "docker"),
        ({"run/systemd/container": "no name!\n"}, ""),
        ({"run/secrets/kubernetes.io/serviceaccount/namespace": "default", ".dockerenv": ""}, "kubernetes"),
        ({"var/run/secrets/kubernetes.io/serviceaccount/namespace": "default"}, "kubernetes"),
        ({"proc/1/cgroup": "0::/kubepods.slice/kubepods-besteffort.slice\n"}, "kubernetes"),
        ({"proc/1/cgroup": "4:memory:/docker/0123456789ab\n"}, "docker"),
        ({"proc/1/cgroup": "0::/system.slice/docker-0123.scope\n"}, "docker"),
        ({"proc/1/cgroup": "0::/machine.slice/libpod-0123.scope\n"}, "podman"),
        ({"proc/1/cgroup": "0::/lxc.payload.frigate\n"}, "lxc"),
        ({"proc/1/cgroup": "0::/init.scope\n"}, ""),
        ({"proc/1/cgroup": "0::/system.slice/mydocker.service\n"}, ""),
        ({"proc/sys/kernel/osrelease": "5.15.153.1-microsoft-standard-WSL2\n"}, "wsl"),
        ({"proc/sys/kernel/osrelease": "5.15.153.1-microsoft-standard-WSL2\n", ".dockerenv": ""}, "docker"),
        ({"proc/sys/kernel/osrelease": "4.4.0-19041-Microsoft\n"}, "wsl"),
    ],
)
def test_containers(tmp_path: Path, files: dict[str, str], container: str) -> None:
    assert write(tmp_path, files).container == container


ID = "sys/class/dmi/id"


@pytest.mark.parametrize(
    ("files", "virtual"),
    [
        ({}, ""),
        ({f"{ID}/sys_vendor": "QEMU\n", f"{ID}/product_name": "Standard PC (Q35 + ICH9, 2009)\n"}, "qemu"),
        ({f"{ID}/sys_vendor": "QEMU\n", f"{ID}/product_name": "KVM\n"}, "kvm"),
        ({f"{ID}/sys_vendor": "VMware, Inc.\n"}, "vmware"),
        ({f"{ID}/sys_vendor": "innotek GmbH\n", f"{ID}/product_name": "VirtualBox\n"}, "oracle"),
        ({f"{ID}/sys_vendor": "Oracle Corporation\n", f"{ID}/product_name": "SUN SERVER\n"}, ""),
        ({f"{ID}/sys_vendor": "Xen\n", f"{ID}/product_name": "HVM domU\n"}, "xen"),
        (
            {f"{ID}/sys_vendor": "Microsoft Corporation\n", f"{ID}/product_name": "Virtual Machine\n"},
            "microsoft",
        ),
        ({f"{ID}/sys_vendor": "Microsoft Corporation\n", f"{ID}/product_name": "Surface Pro\n"}, ""),
        ({f"{ID}/sys_vendor": "Google\n", f"{ID}/product_name": "Google Compute Engine\n"}, "google"),
        ({f"{ID}/sys_vendor": "Amazon EC2\n", f"{ID}/product_name": "c6g.large\n"}, "amazon"),
        ({f"{ID}/sys_vendor": "Amazon EC2\n", f"{ID}/product_name": "c6g.metal\n"}, ""),
        ({f"{ID}/sys_vendor": "ASRock\n", f"{ID}/product_name": "J5040-ITX\n"}, ""),
        ({"sys/hypervisor/type": "xen\n"}, "xen"),
        ({"sys/hypervisor/type": "xen\n", "proc/xen/capabilities": "control_d\n"}, ""),
        ({"proc/device-tree/hypervisor/compatible": "linux,kvm\0"}, "kvm"),
        ({"proc/device-tree/hypervisor/compatible": "xen,xen-4.17\0xen,xen\0"}, "xen"),
        ({"proc/device-tree/hypervisor/compatible": "acme,vm\0"}, "vm-other"),
        ({"proc/cpuinfo": "processor: 0\nflags: fpu lm hypervisor\n"}, "vm-other"),
        ({"proc/cpuinfo": "processor: 0\nflags: fpu lm\n"}, ""),
        ({"proc/sys/kernel/osrelease": "5.15.153.1-microsoft-standard-WSL2\n"}, "microsoft"),
    ],
)
def test_virtual_machines(tmp_path: Path, files: dict[str, str], virtual: str) -> None:
    assert write(tmp_path, files).virtual == virtual


@pytest.mark.parametrize(
    ("files", "usable"),
    [
        ({}, 8),
        ({"sys/fs/cgroup/cpu.max": "max 100000\n"}, 8),
        ({"sys/fs/cgroup/cpu.max": "150000 100000\n"}, 2),
        ({"sys/fs/cgroup/cpu.max": "1000 100000\n"}, 1),
        ({"sys/fs/cgroup/cpu.max": "9000000 100000\n"}, 8),
        ({"sys/fs/cgroup/cpu.max": "150000 0\n"}, 8),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/cpu.max": "300000 100000\n"}, 3),
        (
            {
                "proc/self/cgroup": "0::/a/b\n",
                "sys/fs/cgroup/a/cpu.max": "300000 100000\n",
                "sys/fs/cgroup/a/b/cpu.max": "max 100000\n",
            },
            3,
        ),
        (
            {
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "400000\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            4,
        ),
        (
            {
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            8,
        ),
        (
            {
                "proc/self/cgroup": V1,
                "sys/fs/cgroup/cpu/docker/abc/cpu.cfs_quota_us": "200000\n",
                "sys/fs/cgroup/cpu/docker/abc/cpu.cfs_period_us": "100000\n",
            },
            2,
        ),
    ],
)
def test_cpu_quotas(tmp_path: Path, files: dict[str, str], usable: int) -> None:
    assert write(tmp_path, {"sys/devices/system/cpu/online": "0-7", **files}).cpu.usable == usable


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({}, None),
        ({"sys/fs/cgroup/memory.max": "max\n"}, None),
        ({"sys/fs/cgroup/memory.max": "536870912\n"}, 1 << 29),
        (
            {
                "proc/self/cgroup": "0::/a/b\n",
                "sys/fs/cgroup/a/memory.max": "1048576\n",
                "sys/fs/cgroup/a/b/memory.max": "2097152\n",
            },
            1 << 20,
        ),
        ({"sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n"}, None),
        (
            {"proc/self/cgroup": V1, "sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes": "1048576\n"},
            1 << 20,
        ),
    ],
)
def test_memory_limits(tmp_path: Path, files: dict[str, str], limit: int | None) -> None:
    assert write(tmp_path, files).memory_limit_bytes == limit


@pytest.mark.parametrize(
    ("container", "node", "words"),
    [
        ("docker", "/dev/apex_0", ["--device /dev/apex_0"]),
        ("docker", "/dev/bus/usb/001/004", ["-v /dev/bus/usb:/dev/bus/usb", "'c 189:* rwm'"]),
        ("podman", "/dev/dri/renderD128", ["--device /dev/dri/renderD128"]),
        ("kubernetes", "/dev/apex_0", ["device plugin", "/dev/apex_0", "hostPath"]),
        (
            "lxc",
            "/dev/apex_0",
            [
                "lxc.mount.entry = /dev/apex_0 dev/apex_0 none bind,optional,create=file",
                "lxc.cgroup2.devices.allow = c MAJOR:MINOR rwm",
            ],
        ),
        (
            "lxc",
            "/dev/bus/usb/001/004",
            ["c 189:* rwm", "/dev/bus/usb dev/bus/usb none bind,optional,create=dir"],
        ),
        ("systemd-nspawn", "/dev/apex_0", ["--bind=/dev/apex_0", "DeviceAllow='/dev/apex_0 rw'"]),
        ("wsl", "/dev/bus/usb/001/004", ["usbipd attach --wsl --busid"]),
        ("wsl", "/dev/apex_0", ["outside of WSL"]),
        ("garden", "/dev/apex_0", ["pass /dev/apex_0 into the container"]),
    ],
)
def test_how_a_device_gets_in(tmp_path: Path, container: str, node: str, words: list[str]) -> None:
    inside = {
        "kubernetes": "run/secrets/kubernetes.io/x",
        "docker": ".dockerenv",
        "podman": "run/.containerenv",
    }
    files = {inside.get(container, "run/systemd/container"): container}
    told = write(tmp_path, files).pass_in(node)
    for part in words:
        assert part in told
    write(tmp_path, {node[1:]: ""})
    assert probe_host(tmp_path).pass_in(node) == "", "it is there"


def test_nothing_gets_in_where_there_is_no_container(tmp_path: Path) -> None:
    assert probe_host(tmp_path).pass_in("/dev/apex_0") == ""


def test_the_environment_tells_of_a_live_machine_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "192.0.2.1")
    assert probe_host().container == "kubernetes"
    assert probe_host(tmp_path).container == ""

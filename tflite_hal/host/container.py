"""Containers and virtual machines: whether this is one, and how a device gets into it.

Recognised as systemd-detect-virt does it (systemd, src/basic/virt.c), by files and names only; what it
asks the processor for (CPUID) is the flag ``hypervisor`` in cpuinfo here. Its words are used.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from typing import Final

from tflite_hal.host.tree import Tree

__all__ = ["find_container", "find_virtual", "pass_in"]

#: Of ``product_name``, ``sys_vendor``, ``board_vendor`` and ``bios_vendor``, the beginning. Oracle and
#: Amazon sell real machines under their names too: these are told by the product.
_DMI: Final = (
    ("KVM", "kvm"), ("OpenStack", "kvm"), ("KubeVirt", "kvm"), ("QEMU", "qemu"),
    ("VMware", "vmware"), ("VMW", "vmware"), ("innotek GmbH", "oracle"), ("VirtualBox", "oracle"),
    ("Xen", "xen"), ("Bochs", "bochs"), ("Parallels", "parallels"), ("BHYVE", "bhyve"),
    ("Hyper-V", "microsoft"), ("Apple Virtualization", "apple"), ("Google Compute Engine", "google"),
    ("Amazon EC2", "amazon"),
)  # fmt: skip
_MANAGER_FILES: Final = ("/run/host/container-manager", "/run/systemd/container")
_FILES: Final = (("/run/.containerenv", "podman"), ("/.dockerenv", "docker"))
_KUBERNETES: Final = ("/run/secrets/kubernetes.io", "/var/run/secrets/kubernetes.io")
#: In the control groups of process 1, where they are not hidden.
_GROUPS: Final = (
    ("kubepods", "kubernetes"), ("libpod", "podman"), ("docker", "docker"), ("lxc", "lxc"),
)  # fmt: skip


def find_container(tree: Tree) -> str:
    """Return ``kubernetes``, ``docker``, ``podman``, ``lxc``, ``systemd-nspawn``, ``wsl``, what another
    container manager calls itself, or "" outside of one."""
    told = tree.live and "KUBERNETES_SERVICE_HOST" in os.environ
    if told or any(tree.exists(path) for path in _KUBERNETES):
        return "kubernetes"
    named = [tree.value(path) or "" for path in _MANAGER_FILES]
    named += [os.environ.get("container", "")] if tree.live else []  # noqa: SIM112 - its name is lower case
    for name in named:
        # "oci" says only which format the image has.
        if name != "oci" and re.fullmatch(r"[a-z][a-z0-9-]{1,31}", name):
            return name
    found = next((name for path, name in _FILES if tree.exists(path)), "")
    groups = tree.read("/proc/1/cgroup") or ""
    found = found or next((name for word, name in _GROUPS if re.search(rf"[/:]{word}[-./_]", groups)), "")
    return found or ("wsl" if _is_wsl(tree) else "")


def _is_wsl(tree: Tree) -> bool:
    release = tree.value("/proc/sys/kernel/osrelease") or ""
    return "Microsoft" in release or "WSL" in release


def find_virtual(tree: Tree, features: Collection[str]) -> str:
    """Return ``kvm``, ``qemu``, ``vmware``, ``oracle`` (VirtualBox), ``xen``, ``microsoft``, ``amazon``,
    ``google`` ..., ``vm-other`` for one that does not tell its name, or "" on a real machine.

    ``features`` are those of the processor.
    """
    names = ("product_name", "sys_vendor", "board_vendor", "bios_vendor")
    dmi = [tree.value(f"/sys/class/dmi/id/{name}") or "" for name in names]
    if ".metal" in dmi[0] and dmi[1] == "Amazon EC2":  # without a hypervisor
        return ""
    found = next((word for text in dmi for start, word in _DMI if text.startswith(start)), "")
    if not found and dmi[0] == "Virtual Machine" and dmi[1] == "Microsoft Corporation":
        found = "microsoft"
    found = found or _from_kernel(tree) or ("microsoft" if _is_wsl(tree) else "")
    return found or ("vm-other" if "hypervisor" in features else "")


def _from_kernel(tree: Tree) -> str:
    """Return what the kernel tells of the hypervisor: Xen's own domain 0 is no guest."""
    if tree.value("/sys/hypervisor/type") == "xen":
        return "" if "control_d" in (tree.value("/proc/xen/capabilities") or "") else "xen"
    given = tree.value("/proc/device-tree/hypervisor/compatible") or ""
    return next((word for word in ("kvm", "xen", "vmware") if word in given), "vm-other" if given else "")


_USB: Final = "/dev/bus/usb"


def pass_in(container: str, node: str) -> str:
    """Return how a device node gets into a container of this kind, in words for a remedy; "" outside.

    A node below ``/dev/bus/usb`` stands for all of USB: a device that loads its firmware comes back under
    another number (a Coral), which a node passed in alone would miss.

    Sources: Docker's and Podman's ``run`` reference (``--device``, ``--device-cgroup-rule``; 189 is the
    kernel's major number of USB devices), lxc.container.conf(5), systemd-nspawn(1) and
    systemd.resource-control(5), Kubernetes' device plugins, the readme of usbipd-win.
    """
    usb = node.startswith(_USB)
    place, kind = (_USB, "dir") if usb else (node, "file")
    numbers = "189:*" if usb else "MAJOR:MINOR"
    shown = "" if usb else f" (ls -l {node} on the host shows the numbers)"
    if container in ("docker", "podman"):
        rule = f"-v {_USB}:{_USB} --device-cgroup-rule='c 189:* rwm'"
        return f"start the container with {rule if usb else f'--device {node}'}"
    if container == "kubernetes":
        return (
            f"have a device plugin on the node offer {place} and ask for its resource in the pod, "
            f"or mount it as a hostPath volume into a privileged container"
        )
    if container == "lxc":
        return (
            f"add lxc.cgroup2.devices.allow = c {numbers} rwm{shown} and lxc.mount.entry = {place} "
            f"{place[1:]} none bind,optional,create={kind} to the container's configuration"
        )
    if container == "systemd-nspawn":
        allowed = f"{'char-usb_device' if usb else node} rw"
        return f"start the container with --bind={place} --property=DeviceAllow='{allowed}'"
    if container == "wsl":
        if usb:
            return "in Windows: usbipd bind --busid ID, then usbipd attach --wsl --busid ID (usbipd list)"
        return "run it outside of WSL, which passes in USB devices (usbipd) and GPUs (/dev/dxg)"
    return f"pass {place} into the container" if container else ""

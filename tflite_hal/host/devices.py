"""What sits on the buses, in the device tree and in ``/dev``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from tflite_hal.host.tree import Tree, printable

__all__ = [
    "DEVICE_TREES",
    "BusDevice",
    "PlatformDevice",
    "find_nodes",
    "find_pci",
    "find_platform",
    "find_usb",
]

DEVICE_TREES: Final = ("/proc/device-tree", "/sys/firmware/devicetree/base")
_MOST_DEVICES: Final = 1024
#: Nodes every machine has, of no interest to anyone who looks for an accelerator.
_NOISE: Final = re.compile(
    r"(tty|pty|vcs|loop|ram|sd[a-z]|nvme|mmcblk|dm-|std(in|out|err)"
    r"|null|zero|full|u?random|console|ptmx|pts|shm"
    r"|fd|core|kmsg|mem$|port|hpet|rtc|cpu|input|block|char|disk|mapper|net|log|initctl|fuse|cuse|uinput|sg\d|sr\d|bus$"
    r"|mqueue|snapshot|autofs|btrfs|vfio|vhost|hwrng|watchdog|urandom|\.keep)"
)
_NODE_FOLDERS: Final = ("/dev", "/dev/dri", "/dev/accel", "/dev/dma_heap")
#: The classes at which accelerators are found, from the PCI ID database; the longest beginning counts.
_CLASSES: Final = {
    "0300": "VGA compatible controller", "0302": "3D controller", "03": "display controller",
    "0880": "system peripheral", "0b40": "co-processor", "1200": "processing accelerator",
    "12": "processing accelerator", "ff": "unassigned class",
}  # fmt: skip
#: Names of nodes for what computes, and of those that only hold other nodes; as mainline device trees
#: have them (``npu@fdab0000``, ``/soc@0/gpu@38000000``, ``/bus@100000/dsp@64800000``).
_COMPUTES: Final = re.compile(
    r"(npu|gpu|dsp|tpu|vpu|nna|apu|neutron|ethosu|galcore|rknpu|remoteproc)[0-9a-z_-]*(@.*)?"
)
_HOLDS: Final = re.compile(r"(soc|bus|axi|amba|ahb|apb|aips|host1x|interconnect)[0-9a-z_-]*(@.*)?")
_MOST_HOLDERS: Final = 128
_MOST_NODES: Final = 64
_DEEPEST: Final = 4


class BusDevice(NamedTuple):
    """A device on USB or PCI."""

    id: str  #: ``vvvv:dddd``, lower-case hexadecimal
    slot: str  #: ``1-1.2``, ``0000:01:00.0``
    driver: str | None
    class_code: str | None  #: PCI class, six hexadecimal digits; no identity: vendors choose it freely
    path: str  #: of its folder
    class_name: str | None = None  #: "processing accelerator", "3D controller" ...; None for the others


class PlatformDevice(NamedTuple):
    """A processor for graphics, signals or neural networks that the device tree describes; it need not be
    usable: see ``status``."""

    name: str  #: of its node: ``npu@fdab0000``
    compatible: tuple[str, ...]  #: most specific first
    status: str  #: ``okay`` (also where the tree says nothing, as its specification has it), ``disabled`` ...
    driver: str | None  #: the one that is bound
    path: str  #: of its folder


def find_usb(tree: Tree) -> Iterator[BusDevice]:
    """Yield the devices on USB."""
    for slot in tree.names("/sys/bus/usb/devices")[:_MOST_DEVICES]:
        path = f"/sys/bus/usb/devices/{slot}"
        found = _id(tree.value(f"{path}/idVendor"), tree.value(f"{path}/idProduct"))
        if found:
            yield BusDevice(found, slot, tree.link_name(f"{path}/driver"), None, path)


def find_pci(tree: Tree) -> Iterator[BusDevice]:
    """Yield the devices on PCI."""
    for slot in tree.names("/sys/bus/pci/devices")[:_MOST_DEVICES]:
        path = f"/sys/bus/pci/devices/{slot}"
        found = _id(tree.value(f"{path}/vendor"), tree.value(f"{path}/device"))
        if found:
            given = re.fullmatch(r"0x([0-9a-f]{6})", (tree.value(f"{path}/class") or "").lower())
            code = given[1] if given else None
            starts = [code[:length] for length in (4, 2)] if code else []
            name = next((_CLASSES[start] for start in starts if start in _CLASSES), None)
            yield BusDevice(found, slot, tree.link_name(f"{path}/driver"), code, path, name)


def _id(vendor: str | None, product: str | None) -> str | None:
    words = [(word or "").lower().removeprefix("0x") for word in (vendor, product)]
    return ":".join(words) if all(re.fullmatch(r"[0-9a-f]{4}", word) for word in words) else None


def find_platform(tree: Tree) -> Iterator[PlatformDevice]:
    """Yield what computes in the device tree: below its root, and below the nodes that hold others there,
    which are listed without being read."""
    base = next((folder for folder in DEVICE_TREES if tree.names(folder)), None)
    todo, found, held = [(base, 0)] if base else [], 0, 0
    for folder, depth in todo:
        for name in tree.names(folder):
            path = f"{folder}/{name}"
            if _COMPUTES.fullmatch(name) and found < _MOST_NODES:
                device = _platform_device(tree, name, path)
                found += device is not None
                yield from [device] if device else []
            elif _HOLDS.fullmatch(name) and depth < _DEEPEST and held < _MOST_HOLDERS:
                held += 1
                todo.append((path, depth + 1))


def _platform_device(tree: Tree, name: str, path: str) -> PlatformDevice | None:
    text = tree.read(f"{path}/compatible", 4096)
    words = tuple(filter(None, map(printable, (text or "").split("\0"))))
    if not words:
        return None
    status = tree.value(f"{path}/status") or "okay"
    kind, _, address = name.partition("@")
    driver = tree.link_name(f"/sys/bus/platform/devices/{address}.{kind}/driver") if address else None
    return PlatformDevice(name, words, "okay" if status == "ok" else status, driver, path)


def find_nodes(tree: Tree) -> Iterator[str]:
    """Yield the device nodes, without those that every machine has."""
    for folder in _NODE_FOLDERS:
        for name in tree.names(folder):
            path = f"{folder}/{name}"
            if path not in _NODE_FOLDERS and not _NOISE.match(name) and tree.is_node(path):
                yield path

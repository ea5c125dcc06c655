"""All facts together, and what delegates may ask of the tree they came from."""

from __future__ import annotations

import os
import platform
import re
import stat
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from tflite_hal.host.cpu import CPUINFO_LIMIT, Cluster, Cpu, read_cpu
from tflite_hal.host.tree import Tree, mode
from tflite_hal.trust import Distrust, distrust_library

__all__ = ["Board", "BusDevice", "Cluster", "Cpu", "Dmi", "HostInfo", "probe_host"]

#: Nodes every machine has, of no interest to anyone who looks for an accelerator.
_NOISE: Final = re.compile(
    r"(tty|pty|vcs|loop|ram|sd[a-z]|nvme|mmcblk|dm-|std(in|out|err)"
    r"|null|zero|full|u?random|console|ptmx|pts|shm"
    r"|fd|core|kmsg|mem$|port|hpet|rtc|cpu|input|block|char|disk|mapper|net|log|initctl|fuse|cuse|uinput|sg\d|sr\d|bus$"
    r"|mqueue|snapshot|autofs|btrfs|vfio|vhost|hwrng|watchdog|urandom|\.keep)"
)
_NODE_FOLDERS: Final = ("/dev", "/dev/dri", "/dev/accel", "/dev/dma_heap")
_TRIPLETS: Final = {
    "x86_64": "x86_64-linux-gnu",
    "aarch64": "aarch64-linux-gnu",
    "armv7l": "arm-linux-gnueabihf",
    "armv6l": "arm-linux-gnueabihf",
    "i686": "i386-linux-gnu",
}


class Board(NamedTuple):
    """From the device tree."""

    model: str | None
    compatible: tuple[str, ...]  #: most specific first


class Dmi(NamedTuple):
    """From SMBIOS."""

    vendor: str | None
    product: str | None


class BusDevice(NamedTuple):
    """A device on USB or PCI."""

    id: str  #: ``vvvv:dddd``, lower-case hexadecimal
    slot: str  #: ``1-1.2``, ``0000:01:00.0``
    driver: str | None
    class_code: str | None  #: PCI class, six hexadecimal digits
    path: str  #: of its folder


class HostInfo:
    """A machine: facts only. None is unknown, never "no".

    Attributes:
        root: the tree the facts were read from; ``live`` is True for ``/``.
        arch: ``x86_64``, ``aarch64``, ``armv7l``, ``armv6l``, ``i686`` ...
        memory_bytes: all of it.
        nodes: device nodes, without those that every machine has.
        os: name and version; ``os_id`` the words a distribution gives for itself and its parents,
            with ``linux`` where the kernel is.
        python, page_size: of this process; None for a captured machine.
    """

    __slots__ = (
        "_tree", "arch", "board", "cpu", "dmi", "kernel", "live", "memory_bytes", "nodes", "os", "os_id",
        "page_size", "pci", "python", "root", "usb",
    )  # fmt: skip

    def __init__(self, root: str, **facts: Any) -> None:
        self._tree = Tree(root)
        self.root = root
        self.live = self._tree.live
        self.arch: str | None = facts["arch"]
        self.cpu: Cpu = facts["cpu"]
        self.memory_bytes: int | None = facts["memory_bytes"]
        self.board: Board = facts["board"]
        self.dmi: Dmi = facts["dmi"]
        self.usb: tuple[BusDevice, ...] = facts["usb"]
        self.pci: tuple[BusDevice, ...] = facts["pci"]
        self.nodes: tuple[str, ...] = facts["nodes"]
        self.os: str | None = facts["os"]
        self.os_id: tuple[str, ...] = facts["os_id"]
        self.kernel: str | None = facts["kernel"]
        self.python: str | None = facts["python"]
        self.page_size: int | None = facts["page_size"]

    def exists(self, path: str) -> bool:
        """Whether something is there, below the root; a dangling link is nothing."""
        return self._tree.real(path) is not None

    def read(self, path: str, limit: int = 65536) -> str | None:
        """Return a file's text up to ``limit`` bytes, without NULs and white space at its end."""
        return self._tree.read(path, limit)

    def list(self, path: str) -> tuple[str, ...]:
        """Return the names in a folder, sorted."""
        return self._tree.names(path)

    def link_name(self, path: str) -> str | None:
        """Return the last part of a link's text, even where it dangles."""
        return self._tree.link_name(path)

    def access(self, path: str, mode: str = "rw") -> bool | None:
        """Whether this process may open a node for reading (``r``), writing (``w``) or both; None where
        that can't be known: it is not there, or this is a captured machine."""
        if not self.live or not self.exists(path):
            return None
        return os.access(path, os.R_OK * ("r" in mode) | os.W_OK * ("w" in mode))

    def find_library(self, *names: str, folders: Iterable[str] = ()) -> str | None:
        """Return the path of the first shared library found in ``folders``, then in the loader's; a name
        that is an absolute path is taken as it is.

        One that others than its owner and root can write or replace is passed over: see
        :meth:`distrusted_library`.
        """
        return next((p for p in self._libraries(names, folders) if self._distrust(p) is None), None)

    def distrusted_library(self, *names: str, folders: Iterable[str] = ()) -> Distrust | None:
        """Return why the first library is passed over that :meth:`find_library` does pass over."""
        return next(filter(None, map(self._distrust, self._libraries(names, folders))), None)

    def _distrust(self, path: str) -> Distrust | None:
        return distrust_library(path) if self.live else None

    def _libraries(self, names: Iterable[str], folders: Iterable[str]) -> Iterator[str]:
        places = list(dict.fromkeys((*folders, *self._library_folders())))
        for name in (name for name in names if name and ("/" not in name or name.startswith("/"))):
            paths = [name] if "/" in name else [f"{folder}/{name}" for folder in places]
            yield from (path for path in paths if self._tree.is_file(path))

    def _library_folders(self) -> Iterator[str]:
        if self.live:
            yield from (f for f in os.environ.get("LD_LIBRARY_PATH", "").split(":") if f.startswith("/"))
        for conf in (
            "/etc/ld.so.conf",
            *(f"/etc/ld.so.conf.d/{name}" for name in self.list("/etc/ld.so.conf.d")),
        ):
            lines = (line.strip() for line in (self.read(conf) or "").splitlines())
            yield from (line for line in lines if line.startswith("/"))
        triplet = _TRIPLETS.get(self.arch or "")
        for base in ("/usr/local/lib", "/usr/lib", "/lib"):
            yield from ([f"{base}/{triplet}"] if triplet else [])
            yield base
        yield from ("/usr/lib64", "/lib64", "/vendor/lib64", "/system/lib64", "/vendor/lib", "/system/lib")

    def to_dict(self) -> dict[str, Any]:
        """Return it JSON-ready; the names are a contract."""
        cpu = {**self.cpu._asdict(), "clusters": [cluster._asdict() for cluster in self.cpu.clusters]}
        return {
            "root": self.root,
            "live": self.live,
            "arch": self.arch,
            "cpu": cpu,
            "memory_bytes": self.memory_bytes,
            "board": self.board._asdict(),
            "dmi": self.dmi._asdict(),
            "usb": [device._asdict() for device in self.usb],
            "pci": [device._asdict() for device in self.pci],
            "nodes": list(self.nodes),
            "os": self.os,
            "os_id": list(self.os_id),
            "kernel": self.kernel,
            "python": self.python,
            "page_size": self.page_size,
        }

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> HostInfo:
        """Rebuild what :meth:`to_dict` gave, in another process on the same machine."""
        facts = {name: value for name, value in given.items() if name not in ("root", "live")}
        cpu = dict(facts["cpu"])
        cpu["clusters"] = tuple(Cluster(**{**c, "cpus": tuple(c["cpus"])}) for c in cpu["clusters"])
        cpu["features"] = None if cpu["features"] is None else tuple(cpu["features"])
        facts["cpu"] = Cpu(**cpu)
        facts["board"] = Board(facts["board"]["model"], tuple(facts["board"]["compatible"]))
        facts["dmi"] = Dmi(**facts["dmi"])
        for bus in ("usb", "pci"):
            facts[bus] = tuple(BusDevice(**device) for device in facts[bus])
        for words in ("nodes", "os_id"):
            facts[words] = tuple(facts[words])
        return cls(given["root"], **facts)


def probe_host(root: str | os.PathLike[str] = "/") -> HostInfo:
    """Read the facts of the machine whose file tree is ``root``; never raises for what is in it."""
    tree = Tree(_absolute(os.fspath(root)))
    arch, cpu = read_cpu(tree)
    name, words = _system(tree)
    return HostInfo(
        tree.root,
        arch=arch,
        cpu=cpu,
        memory_bytes=_memory(tree),
        board=_board(tree),
        dmi=Dmi(
            tree.read("/sys/class/dmi/id/sys_vendor") or None,
            tree.read("/sys/class/dmi/id/product_name") or None,
        ),
        usb=tuple(_usb(tree)),
        pci=tuple(_pci(tree)),
        nodes=tuple(_nodes(tree)),
        os=name,
        os_id=words,
        kernel=platform.release() if tree.live else tree.read("/proc/sys/kernel/osrelease"),
        python=platform.python_version() if tree.live else None,
        page_size=os.sysconf("SC_PAGE_SIZE") if tree.live and hasattr(os, "sysconf") else None,
    )


def _absolute(root: str) -> str:
    """Return the root without ``.``, ``..`` and doubled slashes: every spelling of ``/`` is this machine."""
    if root == "/":
        return root
    return os.path.normpath(Path(root).absolute()).rstrip("/") or "/"


def _memory(tree: Tree) -> int | None:
    found = re.search(r"^MemTotal:\s*(\d{1,15}) kB", tree.read("/proc/meminfo") or "", re.MULTILINE)
    if found:
        return int(found[1]) * 1024
    if not tree.live:
        return None
    try:
        import psutil
    except ImportError:
        return None
    return int(psutil.virtual_memory().total)


def _board(tree: Tree) -> Board:
    for folder in ("/proc/device-tree", "/sys/firmware/devicetree/base"):
        model, compatible = tree.read(f"{folder}/model"), tree.read(f"{folder}/compatible")
        if model or compatible:
            return Board(model or None, tuple(word for word in (compatible or "").split("\0") if word))
    lines = re.findall(
        r"^(Model|Hardware)[ \t]*:[ \t]*(\S.*)$",
        tree.read("/proc/cpuinfo", CPUINFO_LIMIT) or "",
        re.MULTILINE,
    )
    named = dict(lines)
    return Board(named.get("Model") or named.get("Hardware"), ())


def _usb(tree: Tree) -> Iterator[BusDevice]:
    for slot in tree.names("/sys/bus/usb/devices"):
        path = f"/sys/bus/usb/devices/{slot}"
        found = _id(tree.read(f"{path}/idVendor"), tree.read(f"{path}/idProduct"))
        if found:
            yield BusDevice(found, slot, tree.link_name(f"{path}/driver"), None, path)


def _pci(tree: Tree) -> Iterator[BusDevice]:
    for slot in tree.names("/sys/bus/pci/devices"):
        path = f"/sys/bus/pci/devices/{slot}"
        found = _id(tree.read(f"{path}/vendor"), tree.read(f"{path}/device"))
        if found:
            code = re.fullmatch(r"0x([0-9a-f]{6})", (tree.read(f"{path}/class") or "").lower())
            yield BusDevice(found, slot, tree.link_name(f"{path}/driver"), code and code[1], path)


def _id(vendor: str | None, product: str | None) -> str | None:
    words = [(word or "").strip().lower().removeprefix("0x") for word in (vendor, product)]
    return ":".join(words) if all(re.fullmatch(r"[0-9a-f]{4}", word) for word in words) else None


def _nodes(tree: Tree) -> Iterator[str]:
    for folder in _NODE_FOLDERS:
        for name in tree.names(folder):
            path = f"{folder}/{name}"
            if path not in _NODE_FOLDERS and not _NOISE.match(name) and _is_node(tree, path):
                yield path


def _is_node(tree: Tree, path: str) -> bool:
    real = tree.real(path)
    if real is None:
        return False
    # A capture has plain files for nodes.
    return stat.S_ISCHR(mode(real)) if tree.live else not stat.S_ISDIR(mode(real))


def _system(tree: Tree) -> tuple[str | None, tuple[str, ...]]:
    """Return the system's name and the words for it."""
    text = tree.read("/etc/os-release") or tree.read("/usr/lib/os-release") or ""
    fields = {
        key: value.strip("\"'") for key, _, value in (line.partition("=") for line in text.splitlines())
    }
    words = [*fields.get("ID", "").split(), *fields.get("ID_LIKE", "").split()]
    linux = (
        sys.platform.startswith("linux")
        if tree.live
        else tree.real("/proc") is not None or tree.real("/sys") is not None
    )
    name = fields.get("PRETTY_NAME") or (f"{platform.system()} {platform.release()}" if tree.live else None)
    return name, tuple(dict.fromkeys([*words, *(["linux"] if linux else [])]))

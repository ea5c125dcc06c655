"""All facts together, and what delegates may ask of the tree they came from."""

from __future__ import annotations

import os
import platform
import struct
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from tflite_hal.host.cgroup import memory_limit
from tflite_hal.host.commands import install_command
from tflite_hal.host.container import find_container, find_virtual, pass_in
from tflite_hal.host.cpu import Cluster, Cpu, read_cpu
from tflite_hal.host.devices import (
    BusDevice,
    PlatformDevice,
    find_nodes,
    find_pci,
    find_platform,
    find_usb,
)
from tflite_hal.host.system import (
    Board,
    Dmi,
    Thermal,
    read_board,
    read_dmi,
    read_groups,
    read_memory,
    read_system,
    read_thermal,
)
from tflite_hal.host.tree import Tree
from tflite_hal.trust import Distrust, distrust_library

__all__ = ["HostInfo", "probe_host"]

_TRIPLETS: Final = {
    "x86_64": "x86_64-linux-gnu",
    "aarch64": "aarch64-linux-gnu",
    "armv7l": "arm-linux-gnueabihf",
    "armv6l": "arm-linux-gnueabihf",
    "i686": "i386-linux-gnu",
}
_NARROW: Final = {"x86_64": "i686", "aarch64": "armv7l"}


class HostInfo:
    """A machine: facts only. None is unknown, never "no".

    Attributes:
        root: the tree the facts were read from; ``live`` is True for ``/``.
        arch: ``x86_64``, ``aarch64``, ``armv7l``, ``armv6l``, ``i686`` ... as the kernel has it.
        memory_bytes: all of it; ``memory_available_bytes`` what is free or can be freed, and
            ``memory_limit_bytes`` what the control groups allow, None where they don't limit it.
        board, dmi: from the device tree and from SMBIOS; a machine may have both.
        platform: what computes in the device tree, usable or not.
        nodes: device nodes, without those that every machine has.
        os: name and version; ``os_version`` the number alone; ``os_id`` the words a distribution gives
            for itself and its parents, with ``linux`` where the kernel is.
        container: the kind of container this process is in (``docker``, ``kubernetes``, ``lxc``,
            ``wsl`` ...), "" where none is seen; ``virtual`` likewise of virtual machines (``kvm``, ...).
        thermal: temperature and, of a Raspberry Pi, what slows it.
        python, pointer_bits, page_size, groups: of this process; None for a captured machine.
    """

    __slots__ = (
        "_tree", "arch", "board", "container", "cpu", "dmi", "groups", "kernel", "live",
        "memory_available_bytes", "memory_bytes", "memory_limit_bytes", "nodes", "os", "os_id", "os_version",
        "page_size", "pci", "platform", "pointer_bits", "python", "root", "thermal", "usb", "virtual",
    )  # fmt: skip

    def __init__(self, tree: Tree, **facts: Any) -> None:
        self._tree = tree
        self.root = tree.root
        self.live = tree.live
        self.arch: str | None = facts["arch"]
        self.cpu: Cpu = facts["cpu"]
        self.memory_bytes: int | None = facts["memory_bytes"]
        self.memory_available_bytes: int | None = facts["memory_available_bytes"]
        self.memory_limit_bytes: int | None = facts["memory_limit_bytes"]
        self.board: Board = facts["board"]
        self.dmi: Dmi = facts["dmi"]
        self.usb: tuple[BusDevice, ...] = facts["usb"]
        self.pci: tuple[BusDevice, ...] = facts["pci"]
        self.platform: tuple[PlatformDevice, ...] = facts["platform"]
        self.nodes: tuple[str, ...] = facts["nodes"]
        self.os: str | None = facts["os"]
        self.os_version: str | None = facts["os_version"]
        self.os_id: tuple[str, ...] = facts["os_id"]
        self.kernel: str | None = facts["kernel"]
        self.container: str = facts["container"]
        self.virtual: str = facts["virtual"]
        self.thermal: Thermal = facts["thermal"]
        self.python: str | None = facts["python"]
        self.pointer_bits: int | None = facts["pointer_bits"]
        self.page_size: int | None = facts["page_size"]
        self.groups: tuple[str, ...] | None = facts["groups"]

    def exists(self, path: str) -> bool:
        """Whether something is there, below the root; a dangling link is nothing."""
        return self._tree.exists(path)

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

    def pass_in(self, node: str) -> str:
        """Return how a device node, such as ``/dev/apex_0``, gets into the container this process is in:
        words that end a remedy. "" outside of a container, and for a node that is there."""
        return "" if self.exists(node) else pass_in(self.container, node)

    def install_command(self, **packages: str) -> str:
        """Return the command that installs a package on this system, "" where none is given for it.

        Args:
            packages: names by distribution: ``debian``, ``ubuntu``, ``fedora``, ``arch``. Those derived
                from one of them are served by what they call their parent.
        """
        return install_command(self.os_id, packages)

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
        # A 64-bit kernel may run a 32-bit Python, which loads 32-bit libraries.
        arch = _NARROW.get(self.arch or "", self.arch) if self.pointer_bits == 32 else self.arch
        triplet = _TRIPLETS.get(arch or "")
        for base in ("/usr/local/lib", "/usr/lib", "/lib"):
            yield from ([f"{base}/{triplet}"] if triplet else [])
            yield base
        yield from ("/usr/lib64", "/lib64", "/vendor/lib64", "/system/lib64", "/vendor/lib", "/system/lib")

    def to_dict(self) -> dict[str, Any]:
        """Return it JSON-ready; the names are a contract."""
        names = [name for name in self.__slots__ if name != "_tree"]
        return {name: _plain(getattr(self, name)) for name in names}

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
        facts["platform"] = tuple(
            PlatformDevice(**{**device, "compatible": tuple(device["compatible"])})
            for device in facts["platform"]
        )
        slowed = facts["thermal"]["throttled"]
        facts["thermal"] = Thermal(
            **{**facts["thermal"], "throttled": None if slowed is None else tuple(slowed)}
        )
        for words in ("nodes", "os_id", "groups"):
            facts[words] = None if facts[words] is None else tuple(facts[words])
        return cls(Tree(given["root"]), **facts)


def _plain(value: Any) -> Any:
    if hasattr(value, "_asdict"):
        return {name: _plain(part) for name, part in value._asdict().items()}
    return [_plain(part) for part in value] if isinstance(value, tuple) else value


def probe_host(root: str | os.PathLike[str] = "/") -> HostInfo:
    """Read the facts of the machine whose file tree is ``root``; never raises for what is in it."""
    tree = Tree(_absolute(os.fspath(root)))
    arch, cpu = read_cpu(tree)
    memory, available = read_memory(tree)
    system = read_system(tree)
    release = tree.value("/proc/sys/kernel/osrelease")
    return HostInfo(
        tree,
        arch=arch,
        cpu=cpu,
        memory_bytes=memory,
        memory_available_bytes=available,
        memory_limit_bytes=memory_limit(tree),
        board=read_board(tree),
        dmi=read_dmi(tree),
        usb=tuple(find_usb(tree)),
        pci=tuple(find_pci(tree)),
        platform=tuple(find_platform(tree)),
        nodes=tuple(find_nodes(tree)),
        os=system.name,
        os_version=system.version,
        os_id=system.words,
        kernel=release or (platform.release() if tree.live else None),
        container=find_container(tree),
        virtual=find_virtual(tree, cpu.features or ()),
        thermal=read_thermal(tree),
        python=platform.python_version() if tree.live else None,
        pointer_bits=struct.calcsize("P") * 8 if tree.live else None,
        page_size=os.sysconf("SC_PAGE_SIZE") if tree.live and hasattr(os, "sysconf") else None,
        groups=read_groups(tree),
    )


def _absolute(root: str) -> str:
    """Return the root without ``.``, ``..`` and doubled slashes: every spelling of ``/`` is this machine."""
    if root == "/":
        return root
    return os.path.normpath(Path(root).absolute()).rstrip("/") or "/"

"""The processor: from cpuinfo and sysfs, which leave much out and differ by kernel and word size.

Known traps: a ``Processor`` line before the ``processor`` lines; one identification block for many
CPUs; offline CPUs that are not listed; clusters interleaved; a 32-bit view of a 64-bit CPU, which
lists few features and denies none.
"""

from __future__ import annotations

import os
import platform
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from tflite_hal.host.cgroup import cpu_quota
from tflite_hal.host.tree import MOST_CPUS, Tree, cpu_list, printable

__all__ = ["CPUINFO_LIMIT", "Cluster", "Cpu", "read_cpu"]

_SYS = "/sys/devices/system/cpu"
#: Bytes: a server with a thousand CPUs writes about 2 MiB.
CPUINFO_LIMIT: Final = 1 << 22

# MIDR implementers and the parts met most, from Arm's and the vendors' manuals as util-linux lists them.
_IMPLEMENTERS: Final = {
    "0x41": "ARM", "0x42": "Broadcom", "0x43": "Cavium", "0x46": "Fujitsu", "0x48": "HiSilicon",
    "0x4e": "NVIDIA", "0x51": "Qualcomm", "0x53": "Samsung", "0x56": "Marvell", "0x61": "Apple",
    "0x66": "Faraday", "0x69": "Intel", "0xc0": "Ampere",
}  # fmt: skip
_ARM_PARTS: Final = {
    "0xb76": "ARM1176", "0xc07": "Cortex-A7", "0xc08": "Cortex-A8", "0xc09": "Cortex-A9",
    "0xc0f": "Cortex-A15",
    "0xd03": "Cortex-A53", "0xd04": "Cortex-A35", "0xd05": "Cortex-A55", "0xd07": "Cortex-A57",
    "0xd08": "Cortex-A72", "0xd09": "Cortex-A73", "0xd0a": "Cortex-A75", "0xd0b": "Cortex-A76",
    "0xd0c": "Neoverse-N1", "0xd0d": "Cortex-A77", "0xd40": "Neoverse-V1", "0xd41": "Cortex-A78",
    "0xd42": "Cortex-A78AE", "0xd44": "Cortex-X1", "0xd46": "Cortex-A510", "0xd47": "Cortex-A710",
    "0xd49": "Neoverse-N2", "0xd4d": "Cortex-A715", "0xd4e": "Cortex-X3", "0xd4f": "Neoverse-V2",
    "0xd80": "Cortex-A520", "0xd81": "Cortex-A720",
}  # fmt: skip
_MACHINES: Final = {
    "AMD64": "x86_64",
    "arm64": "aarch64",
    "x64": "x86_64",
    "ARM64": "aarch64",
    "armv8l": "armv7l",
}


class Cluster(NamedTuple):
    """CPUs of one kind: same core and same maximum frequency."""

    cpus: tuple[int, ...]
    implementer: str | None  #: of Arm cores, as in cpuinfo: ``0x41``
    part: str | None  #: of Arm cores: ``0xd0b``
    max_mhz: int | None


class Cpu(NamedTuple):
    """The processor; None is unknown."""

    vendor: str | None
    model: str | None
    logical: int | None  #: CPUs the kernel knows, online or not
    online: int | None
    usable: int | None  #: for this process: affinity and cgroup quota
    features: tuple[str, ...] | None  #: that every CPU lists, lower case; see :meth:`has`
    clusters: tuple[Cluster, ...]
    narrow: bool = False  #: the features are a 32-bit view of a 64-bit processor, which leaves many out

    def has(self, feature: str) -> bool | None:
        """Whether every CPU has a feature (the kernel's name, lower case); None where that can't be seen:
        no list, or a 32-bit view of a 64-bit processor that does not have it listed."""
        if self.features is None:
            return None
        return feature in self.features or (None if self.narrow else False)

    @property
    def fast(self) -> int:
        """How many of the fastest cores this process may use, at least one."""
        usable = self.usable or 1
        clusters = [cluster for cluster in self.clusters if cluster.max_mhz is not None]
        if clusters:
            fastest = max(cluster.max_mhz or 0 for cluster in clusters)
            # Cores within a tenth of the fastest count as fast: turbo bins differ between equal cores.
            usable = min(usable, sum(len(c.cpus) for c in clusters if (c.max_mhz or 0) >= 0.9 * fastest))
        return max(1, usable)


def read_cpu(tree: Tree) -> tuple[str | None, Cpu]:
    """Return the architecture and the processor."""
    head, blocks = _blocks(tree.read("/proc/cpuinfo", CPUINFO_LIMIT))
    online = cpu_list(tree.value(f"{_SYS}/online")) or tuple(blocks)
    known = (
        cpu_list(tree.value(f"{_SYS}/present"))
        or tuple(sorted(set(_folders(tree)) | set(online)))
        or cpu_list(tree.value(f"{_SYS}/possible"))
    )
    cpus = {cpu: {**head, **blocks.get(cpu, {})} for cpu in online}
    features = _features([{**head, **block} for block in blocks.values()] or [head])
    architecture = _live_machine() if tree.live else _architecture(head, blocks, features) or _of_kernel(tree)
    cpu = Cpu(
        vendor=_vendor(head, cpus),
        model=_model(head, cpus) or (platform.processor() or None if tree.live else None),
        logical=len(known) or (os.cpu_count() if tree.live else None),
        online=len(online) or (os.cpu_count() if tree.live else None),
        usable=None,
        features=features,
        clusters=_clusters(tree, online, cpus),
        narrow=_is_narrow(architecture, cpus, features),
    )
    return architecture, cpu._replace(usable=_usable(tree, cpu.online))


def _folders(tree: Tree) -> list[int]:
    """Return the CPUs that have a folder."""
    names = [name for name in tree.names(_SYS) if re.fullmatch(r"cpu[0-9]{1,5}", name)]
    return [int(name[3:]) for name in names if tree.exists(f"{_SYS}/{name}")]


def _is_narrow(
    architecture: str | None, cpus: Mapping[int, Mapping[str, str]], features: tuple[str, ...] | None
) -> bool:
    """Whether a 64-bit processor is seen as a 32-bit one: by a 32-bit reader of a 64-bit kernel, to whom
    it lists no ``asimd``, or under a 32-bit kernel, where the part tells (Arm's of ARMv8-A and later begin
    with ``0xd``)."""
    if features is None or "asimd" in features or "lm" in features:
        return False
    parts = [
        fields.get("CPU part", "") for fields in cpus.values() if fields.get("CPU implementer") == "0x41"
    ]
    return architecture == "aarch64" or any(part.startswith("0xd") for part in parts)


def _blocks(text: str | None) -> tuple[dict[str, str], dict[int, dict[str, str]]]:
    """Return what holds for all CPUs, and what is said of each: a ``processor`` line opens its block,
    a blank line closes it. Fields outside, and those of the last block where the others lack an
    identification, hold for all."""
    head: dict[str, str] = {}
    blocks: dict[int, dict[str, str]] = {}
    current = head
    for line in (text or "").splitlines():
        key, colon, value = (part.strip() for part in line.partition(":"))
        if not colon:
            current = current if line.strip() else head
        elif key == "processor" and value.isdecimal() and len(value) < 6 and len(blocks) < MOST_CPUS:
            current = blocks.setdefault(int(value), {})
        else:
            current.setdefault(key, printable(value))
    return _shared(head, blocks), blocks


def _shared(head: dict[str, str], blocks: Mapping[int, Mapping[str, str]]) -> dict[str, str]:
    identified = [block for block in blocks.values() if "CPU part" in block]
    if len(identified) == 1:  # one block for many CPUs
        head = {**identified[0], **head}
    return head


def _features(blocks: Sequence[Mapping[str, str]]) -> tuple[str, ...] | None:
    lists = [b.get("flags") or b.get("Features") or b.get("isa") for b in blocks]
    sets = [set(text.lower().split()) for text in lists if text]
    return tuple(sorted(set.intersection(*sets))) if sets else None


def _architecture(
    head: Mapping[str, str], blocks: Mapping[int, Mapping[str, str]], features: tuple[str, ...] | None
) -> str | None:
    """Return the architecture a capture proves.

    ``CPU architecture: 8`` is printed by 64-bit kernels only, to 32-bit readers too, who see few of the
    features; a 32-bit kernel on the same core prints 7.
    """
    listed = set(features or ())
    fields = {**head, **next(iter(blocks.values()), {})}
    if "flags" in fields:
        return "x86_64" if "lm" in listed else "i686"
    text = f"{head.get('Processor', '')} {fields.get('model name', '')}"
    revision = fields.get("CPU architecture", "")
    if revision in ("8", "AArch64") or "asimd" in listed or "AArch64" in text:
        return "aarch64"
    if revision.startswith("7"):
        return "armv6l" if "ARMv6" in text else "armv7l"
    return "armv6l" if revision.startswith("6") else None


def _of_kernel(tree: Tree) -> str | None:
    """Return the architecture that distributions put into the kernel's release."""
    found = re.search(r"(x86_64|aarch64|armv7l)$", tree.read("/proc/sys/kernel/osrelease") or "")
    return found[1] if found else None


def _live_machine() -> str | None:
    machine = platform.machine()
    return _MACHINES.get(machine, machine) or None


def _vendor(head: Mapping[str, str], cpus: Mapping[int, Mapping[str, str]]) -> str | None:
    fields = next(iter(cpus.values()), head)
    implementer = fields.get("CPU implementer")
    return fields.get("vendor_id") or (_IMPLEMENTERS.get(implementer, implementer) if implementer else None)


def _model(head: Mapping[str, str], cpus: Mapping[int, Mapping[str, str]]) -> str | None:
    """Return the processor's name: the x86 brand string, else the Arm cores, biggest part number last."""
    fields = next(iter(cpus.values()), head)
    if fields.get("model name") and "CPU part" not in fields:
        return fields["model name"]
    parts = [(f.get("CPU implementer"), f["CPU part"]) for f in cpus.values() if "CPU part" in f]
    names = [
        _ARM_PARTS.get(part, part) if who == "0x41" else f"{_IMPLEMENTERS.get(who or '', who)} {part}"
        for who, part in parts
    ]
    counted = Counter(names)  # in the order of first meeting
    return (
        " + ".join(f"{count}× {name}" for name, count in counted.items())
        or head.get("Processor")
        or fields.get("Hardware")
    )


def _clusters(
    tree: Tree, online: Sequence[int], cpus: Mapping[int, Mapping[str, str]]
) -> tuple[Cluster, ...]:
    groups: dict[tuple[str | None, str | None, int | None], list[int]] = {}
    speeds = _speeds(tree, online)
    for cpu in online:
        fields = cpus[cpu]
        key = (fields.get("CPU implementer"), fields.get("CPU part"), speeds.get(cpu))
        groups.setdefault(key, []).append(cpu)
    return tuple(Cluster(tuple(members), *key) for key, members in groups.items())


def _speeds(tree: Tree, online: Sequence[int]) -> dict[int, int]:
    """Return the maximum MHz of each CPU that has one; old kernels tell it with the first of those that
    share a clock only, and which they are."""
    speeds = {}
    for cpu in online:
        khz = tree.value(f"{_SYS}/cpu{cpu}/cpufreq/cpuinfo_max_freq") or ""
        if khz.isdecimal() and len(khz) < 12:
            speeds[cpu] = int(khz) // 1000
    if 0 < len(speeds) < len(online):
        for cpu, mhz in list(speeds.items()):
            related = (tree.value(f"{_SYS}/cpu{cpu}/cpufreq/related_cpus") or "").replace(" ", ",")
            for other in cpu_list(related):
                speeds.setdefault(other, mhz)
    return speeds


def _usable(tree: Tree, online: int | None) -> int | None:
    """Return how many CPUs this process may use; of a captured machine, those that are online, within the
    quota that was captured."""
    affinity = len(os.sched_getaffinity(0)) if tree.live and hasattr(os, "sched_getaffinity") else None
    limits = [n for n in (online, affinity, cpu_quota(tree)) if n is not None]
    return max(1, min(limits)) if limits and (tree.live or online is not None) else None

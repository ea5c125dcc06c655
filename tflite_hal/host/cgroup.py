"""What the kernel's control groups leave to this process, in version 1 and 2.

Sources: the kernel's admin-guide/cgroup-v2.rst (``cpu.max``, ``memory.max``: the smallest of a group and
those above it holds), and cgroup-v1 (``cpu.cfs_quota_us``, ``memory.limit_in_bytes``).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from tflite_hal.host.tree import Tree

__all__ = ["cpu_quota", "memory_limit"]

_TOP: Final = "/sys/fs/cgroup"
_DEEPEST: Final = 32


def cpu_quota(tree: Tree) -> int | None:
    """Return how many CPUs' time the quotas allow, rounded up; None where there is no quota."""
    quotas = [(tree.value(f"{folder}/cpu.max") or "").split() for folder in _folders(tree, "")]
    for folder in _folders(tree, "cpu"):
        names = (f"{folder}/cpu.cfs_quota_us", f"{folder}/cpu.cfs_period_us")
        quotas.append([tree.value(name) or "" for name in names])
    numbers = [(_number(q[0]), _number(q[1])) for q in quotas if len(q) == 2]
    counts = [-(-quota // period) for quota, period in numbers if quota is not None and period]
    return max(1, min(counts)) if counts else None


def memory_limit(tree: Tree) -> int | None:
    """Return the smallest limit in bytes; None where there is none (version 1 writes a huge number)."""
    files = [f"{folder}/memory.max" for folder in _folders(tree, "")]
    files += [f"{folder}/memory.limit_in_bytes" for folder in _folders(tree, "memory")]
    limits = [limit for limit in (_number(tree.value(file)) for file in files) if limit]
    return min((limit for limit in limits if limit < 1 << 60), default=None)


def _folders(tree: Tree, controller: str) -> Iterator[str]:
    """Yield the folders of this process's group and of those above it: of a version 1 controller, or of
    version 2 for ``""``."""
    mount = f"{_TOP}/{controller}".rstrip("/")
    group = _group(tree, controller)
    for _ in range(_DEEPEST):
        yield mount + group
        if not group:
            return
        group = group.rpartition("/")[0]


def _group(tree: Tree, controller: str) -> str:
    for line in (tree.read("/proc/self/cgroup") or "").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        mine = controller in controllers.split(",") if controller else number == "0" and not controllers
        if mine and path.startswith("/"):
            return path.rstrip("/")
    return ""


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isdecimal() and len(text) < 20 else None

"""Commands that bring a missing package or a permission, as this system spells them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

__all__ = ["group_command", "install_command"]

#: By the words of ``os-release``, the system's own before its parents'.
_INSTALLERS: Final = {
    "debian": "sudo apt-get install {}",
    "ubuntu": "sudo apt-get install {}",
    "fedora": "sudo dnf install {}",
    "arch": "sudo pacman -S {}",
}


def install_command(os_id: Sequence[str], packages: Mapping[str, str]) -> str:
    """Return the command that installs the package of the first of a system's words that has one."""
    word = next((word for word in os_id if word in packages and word in _INSTALLERS), None)
    return "" if word is None else _INSTALLERS[word].format(packages[word])


def group_command(node: str) -> str:
    """Return the command that adds the user to the group that owns a node of this machine; "" where the
    group is root's, has no name, or may not open it either."""
    try:
        found = Path(node).stat()
        group = Path(node).group()
    except (OSError, KeyError, NotImplementedError):
        return ""
    may = found.st_mode & 0o060 == 0o060
    return f'sudo usermod -aG {group} "$USER"' if may and group != "root" and group.isprintable() else ""

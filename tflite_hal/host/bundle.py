"""What a support bundle holds of a machine: the files its facts were read from, and nothing personal.

Taken out are serial numbers, UUIDs, machine and container ids, MAC and IP addresses, kernel addresses,
the names of the host, of the user and of home folders: by their form, and by their value where the
machine tells it. What only serves to learn such a value (``/etc/machine-id``, serial numbers in SMBIOS)
is never packed.
"""

from __future__ import annotations

import contextlib
import getpass
import ipaddress
import os
import posixpath
import re
import socket
from collections.abc import Iterable, Iterator
from typing import Any, Final

from tflite_hal.host.cpu import CPUINFO_LIMIT
from tflite_hal.host.facts import HostInfo
from tflite_hal.host.tree import Tree

__all__ = ["Scrubber", "packed_files", "scrubber_for"]

_REMOVED: Final = "[removed]"
#: Files that hold one secret each, and folders of which each entry has such a file.
_SECRET_FILES: Final = (
    "/etc/machine-id", "/var/lib/dbus/machine-id", "/proc/sys/kernel/random/boot_id",
    "/proc/device-tree/serial-number", "/sys/firmware/devicetree/base/serial-number",
    "/sys/devices/soc0/serial_number", "/sys/devices/soc0/soc_uid",
    *(f"/sys/class/dmi/id/{name}" for name in (
        "product_serial", "product_uuid", "board_serial", "chassis_serial", "board_asset_tag",
        "chassis_asset_tag",
    )),
)  # fmt: skip
_SECRET_FOLDERS: Final = (("/sys/bus/usb/devices", "serial"), ("/sys/class/net", "address"))
_MOST_SECRETS: Final = 512
_HOST_FILES: Final = ("/etc/hostname", "/proc/sys/kernel/hostname")
#: Of no one in particular: what images and SMBIOS tables are shipped with.
_NOBODY: Final = frozenset({
    "root", "user", "admin", "pi", "raspberrypi", "localhost", "localdomain", "debian", "ubuntu", "linux",
    "android", "mendel", "orangepi", "default", "string", "none", "unknown", "system", "serial", "number",
    "cpu", "gpu", "npu", "arm", "model", "processor", "features", "hardware", "board", "device", "docker",
    "container", "test",
})  # fmt: skip
#: Characters: what is shorter is found in too many words.
_SHORTEST_NAME: Final = 3
_SHORTEST_VALUE: Final = 6

_HEX: Final = "0-9A-Fa-f"
_SERIAL: Final = re.compile(r"(?i)(\bserial(?:[ _-]?(?:number|no))?[ \t]*[:=][ \t]*)\S[^\r\n]*")
#: Whatever is before it: the "pod" that Kubernetes puts there ends in a hexadecimal digit.
_UUID: Final = re.compile(rf"[{_HEX}]{{8}}(?:[-_][{_HEX}]{{4}}){{3}}[-_][{_HEX}]{{12,}}")
_MAC: Final = re.compile(
    rf"(?<![{_HEX}:.-])[{_HEX}]{{2}}([:-])[{_HEX}]{{2}}(?:\1[{_HEX}]{{2}}){{4}}(?![{_HEX}:-])"
)
_IPV6: Final = re.compile(rf"(?<![\w:.])(?=[{_HEX}:.]*:[{_HEX}:.]*:)[{_HEX}:.]{{3,45}}(?![\w:])")
_IPV4: Final = re.compile(r"(?<![\w.])(?:[0-9]{1,3}\.){3}[0-9]{1,3}(?![\w.]|-microsoft)")
_LONG_HEX: Final = re.compile(rf"(?<![{_HEX}])(?=[{_HEX}]*[0-9])[{_HEX}]{{16,}}(?![{_HEX}])")
_HOME: Final = re.compile(r"((?:/home|/Users|[\\/]Users|/run/user|/media)[\\/]+)([^\\/\s:\"']+)")
_UID: Final = re.compile(r"\b(user-|user@)([0-9]+)\b")


class Scrubber:
    """Takes out of texts what identifies a machine or a person; ``values`` are known ones."""

    def __init__(self, values: Iterable[str]) -> None:
        longest_first = sorted({value for value in values if value}, key=len, reverse=True)
        joined = "|".join(map(re.escape, longest_first))
        bounded = rf"(?<![A-Za-z0-9])(?:{joined})(?![A-Za-z0-9])"
        self._values = re.compile(bounded, re.IGNORECASE) if joined else None

    def text(self, text: str) -> str:
        """Return a text with ``[removed]`` in the places."""
        text = _SERIAL.sub(rf"\1{_REMOVED}", text)
        if self._values is not None:
            text = self._values.sub(_REMOVED, text)
        for pattern in (_UUID, _MAC, _LONG_HEX):
            text = pattern.sub(_REMOVED, text)
        text = _IPV4.sub(_address, _IPV6.sub(_address, text))
        return _UID.sub(rf"\1{_REMOVED}", _HOME.sub(rf"\1{_REMOVED}", text))

    def content(self, content: bytes) -> bytes:
        """Return a file's content likewise; what is not UTF-8 is kept as it is."""
        return self.text(content.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")

    def plain(self, value: Any) -> Any:
        """Return JSON-ready data with every text in it likewise."""
        if isinstance(value, dict):
            taken: set[str] = set()
            return {_untaken(self.text(str(key)), taken): self.plain(part) for key, part in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.plain(part) for part in value]
        return self.text(value) if isinstance(value, str) else value


def _untaken(text: str, taken: set[str]) -> str:
    """Return a text, with a number where it is taken already, and take it."""
    number, own = 1, text
    while own in taken:
        number += 1
        own = f"{text}-{number}"
    taken.add(own)
    return own


def _address(found: re.Match[str]) -> str:
    try:
        address = ipaddress.ip_address(found[0])
    except ValueError:
        return found[0]  # a slot, a time, a version
    # "0::" begins a line of a control group.
    return found[0] if address.is_unspecified or address.is_loopback else _REMOVED


def scrubber_for(host: HostInfo) -> Scrubber:
    """Return a scrubber that knows what this machine tells of itself. A name that is the board's own in
    the device tree, as images set it, is no one's."""
    tree = Tree(host.root)  # what it reads is not to be packed
    own = {word.rpartition(",")[2].lower() for word in host.board.compatible}
    values = [tree.value(path) or "" for path in _SECRET_FILES]
    for folder, name in _SECRET_FOLDERS:
        values += [tree.value(f"{folder}/{one}/{name}") or "" for one in tree.names(folder)[:_MOST_SECRETS]]
    values += re.findall(r"(?m)^Serial\s*:\s*(\S+)", tree.read("/proc/cpuinfo", CPUINFO_LIMIT) or "")
    values = [value for value in values if len(value) >= _SHORTEST_VALUE and not _is_no_secret(value)]
    names = [tree.value(path) or "" for path in _HOST_FILES] + (_live_names() if host.live else [])
    names += [name.partition(".")[0] for name in names]
    taken = _NOBODY | own
    return Scrubber(
        values + [name for name in names if len(name) >= _SHORTEST_NAME and name.lower() not in taken]
    )


def _is_no_secret(value: str) -> bool:
    """Whether a serial number is none: zeros, words, and of a USB bus its controller's slot."""
    slot = re.fullmatch(rf"[{_HEX}]{{4}}:[{_HEX}]{{2}}:[{_HEX}]{{2}}\.[0-7]", value)
    return len(set(value)) < 3 or slot is not None or not any(c.isdigit() for c in value)


def _live_names() -> list[str]:
    names = [socket.gethostname(), os.path.basename(os.path.expanduser("~"))]  # noqa: PTH111, PTH119
    with contextlib.suppress(KeyError, OSError, ImportError):  # a user without a name
        names.append(getpass.getuser())
    variables = ("USER", "LOGNAME", "SUDO_USER", "USERNAME", "HOSTNAME")
    return names + [os.environ.get(variable, "") for variable in variables]


def packed_files(host: HostInfo, scrubber: Scrubber) -> Iterator[tuple[str, bytes | None]]:
    """Yield the path and content of what the host's facts were read from so far, by the probe and by
    delegates: of a folder None, of a node and of a library nothing, of a link a small file that stands
    for it. Nothing is yielded twice, or below a file: where two names are the same text without what
    identifies, one gets a number."""
    tree = host._tree
    files = {_inside(path): tree.content(path, limit) for path, limit in tree.files.items()}
    found: dict[str, bytes | None] = {name: content for name, content in files.items() if content is not None}
    for path, last in tree.links.items():
        found.setdefault(_inside(path), f"./{last}".encode())
    for path in tree.places:
        found.setdefault(_inside(path), None if _is_folder(tree, path) else b"")
    folders = {parent for name in found for parent in _parents(name)}
    places, taken = {"": ""}, set[str]()
    for name in sorted(name for name in found if name):
        content = found[name]
        for part in (*reversed(list(_parents(name))), name):
            if part not in places:
                above = places[part.rpartition("/")[0]]
                own = scrubber.text(f"/{part}").rpartition("/")[2]  # a home is known by the slash before it
                places[part] = _untaken(f"{above}/{own}".lstrip("/"), taken)
        if content is None or name not in folders:
            yield places[name], None if content is None else scrubber.content(content)


def _inside(path: str) -> str:
    return posixpath.normpath(f"/{path}").lstrip("/")


def _parents(name: str) -> Iterator[str]:
    while name := name.rpartition("/")[0]:
        yield name


def _is_folder(tree: Tree, path: str) -> bool:
    real = tree.real(path)
    return real is not None and os.path.isdir(real)  # noqa: PTH112

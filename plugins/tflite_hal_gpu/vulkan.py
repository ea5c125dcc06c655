"""Vulkan: its drivers by their manifests, from files, and its adapters by its loader.

Vulkan's loader loads every driver that a manifest names (Khronos, "Driver interface to the Vulkan loader").
Manifests and libraries that others can change are refused, and kept from the loader by the variables that
name manifests.
"""

from __future__ import annotations

import ctypes
import json
import os
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

from tflite_hal import DelegateError, Device, ExternalDelegate, HostInfo, Problem

__all__ = [
    "DRIVER_REMEDY",
    "LOADER",
    "LOADER_REMEDY",
    "Adapter",
    "Driver",
    "adapters",
    "environment",
    "find",
    "lacking",
]

LOADER = "libvulkan.so.1"
LOADER_REMEDY = "install the Vulkan loader (Debian, Ubuntu: libvulkan1; Fedora: vulkan-loader)"
DRIVER_REMEDY = "install a Vulkan driver for it (Debian, Ubuntu: mesa-vulkan-drivers; or its maker's)"
_SOFTWARE = ("swiftshader", "vulkan_lvp", "llvmpipe")  # parts of software drivers' library names
_ICD_FOLDERS = tuple(f"{p}/vulkan/icd.d" for p in ("/etc/xdg", "/etc", "/usr/local/share", "/usr/share"))
#: The later one takes precedence; loaders before 1.3.207 know the earlier one only.
_VARIABLES = ("VK_ICD_FILENAMES", "VK_DRIVER_FILES")


class Driver(NamedTuple):
    """A Vulkan driver whose manifest and library are there."""

    manifest: str
    library: str

    @property
    def software(self) -> bool:
        """Whether it computes on the CPU, by its name."""
        return _is_software(self.library)


def find(host: HostInfo) -> list[Driver | Problem]:
    """Return each driver that is there, or why it is not used."""
    found: list[Driver | Problem] = []
    for manifest in _manifests(host):
        try:
            name = str(json.loads(host.read(manifest) or "{}")["ICD"]["library_path"])
        except (ValueError, KeyError, TypeError, RecursionError):
            continue  # the loader passes over it too
        if "/" in name:  # from the manifest's folder; not without "..": a link may come before it
            name = str(PurePosixPath(manifest).parent / name)
        library = host.find_library(name)
        # Of copies of one name the loader takes the first: one that is refused may come before the other.
        refused = host.distrusted_library(manifest) or host.distrusted_library(name)
        if refused is not None:
            evidence = f"the Vulkan driver of {manifest} is not used: {refused.reason}"
            id_ = "gpu:software" if _is_software(name) else "gpu:0"
            found.append(Problem("library", evidence, refused.remedy, id_, "gpu"))
        elif library is not None:
            found.append(Driver(manifest, library))
    return found


def lacking(
    host: HostInfo, names: str, loader: str | None, drivers: Sequence[Driver | Problem]
) -> Problem | None:
    """Return what the GPUs of these names lack, None where that is told already or there are none."""
    refused = host.distrusted_library(LOADER) if loader is None else None
    if refused is not None and (names or drivers):
        evidence = f"Vulkan's loader is not used: {refused.reason}"
        return Problem("library", evidence, refused.remedy, "gpu:0", "gpu")
    if names and loader is None:
        evidence = f"{names}: {LOADER} is not in the loader's folders"
        command = host.install_command(debian="libvulkan1", fedora="vulkan-loader")
        return Problem("library", evidence, LOADER_REMEDY, "gpu:0", "gpu", command)
    if names and not any(isinstance(one, Problem) and one.device == "gpu:0" for one in drivers):
        evidence = f"{names}: no Vulkan driver has a manifest in {', '.join(_ICD_FOLDERS)}"
        command = host.install_command(debian="mesa-vulkan-drivers")
        return Problem("library", evidence, DRIVER_REMEDY, "gpu:0", "gpu", command)
    return None


def environment(host: HostInfo, drivers: Sequence[Driver | Problem]) -> Mapping[str, str]:
    """Return the variables that name a worker's manifests: it may have begun without those of this process,
    and must not know of drivers that are refused, or named by what is no absolute path."""
    named = _named_manifests(host)
    manifests = ":".join(one.manifest for one in drivers if isinstance(one, Driver))
    refused = any(isinstance(one, Problem) for one in drivers)
    if host.live and (refused or (named and manifests not in named.values())):
        return dict.fromkeys(_VARIABLES, manifests)
    return named


def _named_manifests(host: HostInfo) -> dict[str, str]:
    names = [name for name in reversed(_VARIABLES) if host.live and os.environ.get(name)]
    return {name: os.environ[name] for name in names[:1]}


def _manifests(host: HostInfo) -> Iterator[str]:
    folders = list(_ICD_FOLDERS)
    if given := "".join(_named_manifests(host).values()):
        yield from (path for path in given.split(":") if path.startswith("/"))
        return
    if host.live:
        home = os.environ.get("HOME", "")
        for variable, usual in (("XDG_CONFIG_HOME", ".config"), ("XDG_DATA_HOME", ".local/share")):
            folders.append(f"{os.environ.get(variable) or posixpath.join(home, usual)}/vulkan/icd.d")
    for folder in folders:
        yield from (f"{folder}/{name}" for name in host.list(folder) if name.endswith(".json"))


def _is_software(library: str) -> bool:
    return any(part in posixpath.basename(library) for part in _SOFTWARE)


class Adapter(NamedTuple):
    """What Vulkan says of a physical device."""

    name: str
    type: str
    version: str

    @property
    def software(self) -> bool:
        """Whether it computes on the CPU."""
        return self.type == "CPU"

    def __str__(self) -> str:
        return f"{self.name} ({self.type}, Vulkan {self.version})"


_TYPES = ("other", "integrated GPU", "discrete GPU", "virtual GPU", "CPU")  # VkPhysicalDeviceType


def adapters(device: Device) -> list[Adapter]:
    """Ask Vulkan for its adapters, those that are no software first.

    Raises:
        DelegateError: there is none, or a library of the device can't be loaded, or others can change it.
    """
    loader = ExternalDelegate.trusted_path(str(device.properties["loader"]))
    for driver in device.properties.get("drivers", ()):  # which the loader loads
        ExternalDelegate.trusted_path(str(driver))
    try:
        vulkan = ctypes.CDLL(loader)
    except OSError as error:
        raise DelegateError(f"{loader} can't be loaded: {error}", remedy=LOADER_REMEDY) from error
    # VkInstanceCreateInfo on 64-bit systems: sType 1, all else zero.
    information = (ctypes.c_uint64 * 8)(1)
    instance = ctypes.c_void_p()
    result = vulkan.vkCreateInstance(information, None, ctypes.byref(instance))
    if result:
        raise DelegateError(f"vkCreateInstance failed: VkResult {result}", remedy=DRIVER_REMEDY)
    try:
        count = ctypes.c_uint32()
        vulkan.vkEnumeratePhysicalDevices(instance, ctypes.byref(count), None)
        devices = (ctypes.c_void_p * count.value)()
        result = vulkan.vkEnumeratePhysicalDevices(instance, ctypes.byref(count), devices)
        found = [_properties(vulkan, device) for device in devices[: count.value] if device]
    finally:
        vulkan.vkDestroyInstance(instance, None)
    if not found:
        raise DelegateError(f"Vulkan has no adapter (VkResult {result})", remedy=DRIVER_REMEDY)
    return sorted(found, key=lambda adapter: adapter.software)


def _properties(vulkan: ctypes.CDLL, device: int) -> Adapter:
    buffer = ctypes.create_string_buffer(4096)  # VkPhysicalDeviceProperties has 824 bytes
    vulkan.vkGetPhysicalDeviceProperties(ctypes.c_void_p(device), buffer)
    version, _, _, _, kind = (ctypes.c_uint32 * 5).from_buffer(buffer)
    name = buffer.raw[20:276].partition(b"\0")[0].decode("utf-8", "replace")
    number = f"{version >> 22 & 0x7F}.{version >> 12 & 0x3FF}.{version & 0xFFF}"
    return Adapter(name, _TYPES[kind] if kind < len(_TYPES) else str(kind), number)

"""The Coral Edge TPU, on USB and PCIe, by ``libedgetpu`` as an external delegate.

A USB stick has two identities: 1a6e:089a before its firmware is loaded, which the first open does, and
18d1:9302 after; it is the same device, and its id here stays. On PCIe it is 1ac1:089a, driven by the
out-of-tree modules gasket and apex, which make ``/dev/apex_N``. Sources: google-coral/libedgetpu @ e35aed1,
google/gasket-driver @ 5815ee3, google-coral/edgetpu issues 44, 71, 122, 435, 817, 846.
"""

from __future__ import annotations

import ctypes
import platform
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from tflite_hal import (
    BusDevice,
    Configuration,
    Delegate,
    DelegateError,
    Device,
    ExternalDelegate,
    HostInfo,
    Model,
    Option,
    Probe,
    Problem,
    Runtime,
    Session,
    hookimpl,
)

_BOOTLOADER, _RUNNING = "1a6e:089a", "18d1:9302"
_USB_STATES = {
    _BOOTLOADER: f"firmware not loaded yet: the first open loads it, and {_BOOTLOADER} becomes {_RUNNING}",
    _RUNNING: "firmware loaded",
}
_PCI_ID = "1ac1:089a"
_CUSTOM_OPERATOR = "edgetpu-custom-op"
#: The library's numbers of the two buses, in what ``edgetpu_list_devices`` returns.
_LISTED = {"pci": 0, "usb": 1}

_PACKAGES = "install libedgetpu1-std (Coral's Debian repository; libedgetpu1-max runs hotter)"
_USB_RULES = "; ".join(
    f'SUBSYSTEM=="usb", ATTRS{{idVendor}}=="{vendor}", ATTRS{{idProduct}}=="{product}", GROUP="plugdev"'
    for vendor, product in (identity.split(":") for identity in (_BOOTLOADER, _RUNNING))
)
_USB_PERMISSION = (
    "libedgetpu1-std brings the udev rules for both identities of the stick; add your user to group plugdev, "
    f"log in again and replug the stick. The rules by hand: {_USB_RULES}"
)
_PCI_PERMISSION = (
    "gasket-dkms brings the udev rule; add your user to group apex and log in again. The rule by hand: "
    'SUBSYSTEM=="apex", MODE="0660", GROUP="apex"'
)
_USB_MAPPING = (
    "give the container or virtual machine the whole of /dev/bus/usb: the stick's node and identity change "
    "when its firmware is loaded"
)
_MODULES = (
    "install gasket-dkms for this kernel (it brings the modules gasket and apex) and reboot; its release "
    "1.0-18 does not build on Linux 6.4 and newer, the current source of google/gasket-driver may"
)
_SMALL_PAGES = "use a kernel with 4 KiB pages (Raspberry Pi 5: kernel=kernel8.img in config.txt)"
_INTERRUPTS = (
    "see the kernel log for apex: the board needs MSI-X (Raspberry Pi 5: the overlays "
    "pciex1-compat-pi5,no-mip and pcie-32bit-dma-pi5 in config.txt)"
)
_REBUILD = (
    "each libedgetpu works with the TensorFlow Lite it was built for (16.0 of 2021: up to 2.11; "
    "16.0tf2.16.1: 2.16.1): install the build for this runtime, or name that runtime with runtime="
)
#: Words of the library, and what to do; the first that is found counts.
_REMEDIES = (
    ("partition page table", _SMALL_PAGES),
    ("Unsupported data type in custom op handler", _REBUILD),
    ("single_input_size != input->bytes", _REBUILD),
    ("Failed to retrieve TPU context", _REBUILD),
    ("Permission denied", _USB_PERMISSION),
    ("sees no Edge TPU", f"check cable, port and power; {_USB_MAPPING}"),
    ("OpenDevice", f"check cable, port and power; {_USB_MAPPING}"),
    ("Couldn't initialize interrupts", _INTERRUPTS),
)


class EdgeTpuDelegate(ExternalDelegate):
    """Edge TPUs on USB and PCIe; ``usb:0`` is the first by port, ``pci:0`` by slot."""

    name = "edgetpu"
    api_version = 1
    description = "Coral Edge TPU on USB or PCIe; takes models compiled by edgetpu_compiler"
    install_hint = _PACKAGES
    crash_hint = _REBUILD
    libraries = ("libedgetpu.so.1", "libedgetpu.so")
    library_remedy = _PACKAGES
    kind = "tpu"
    variants = ("_edgetpu",)  # what edgetpu_compiler writes
    options: ClassVar[tuple[Option, ...]] = (
        Option("Performance", "str", None, "clock of a USB device", choices=("Low", "Medium", "High", "Max")),
        Option("Usb.AlwaysDfu", "bool", None, "load the firmware at every open"),
        Option("Usb.MaxBulkInQueueLength", "int", None, "0 to 255", choices=tuple(range(256))),
    )

    def find(self, host: HostInfo) -> Probe:
        """Return the devices on USB and PCI, each with what stands in its way."""
        devices, problems = [], []
        for device, problem in (*_on_usb(host), *_on_pci(host)):
            if problem is None:
                devices.append(device)
            else:
                evidence = f"{device.name} ({device.state}): {problem.evidence}"
                problems.append(problem._replace(evidence=evidence, device=device.id))
        return Probe(tuple(devices), tuple(problems))

    def supports(self, model: Model, device: Device) -> str | None:
        """Return None for a model that edgetpu_compiler made, else what to do."""
        if _CUSTOM_OPERATOR in model.info.custom:
            return None
        return f"not compiled for the Edge TPU (no {_CUSTOM_OPERATOR}); run edgetpu_compiler on it"

    def fingerprint(self, device: Device) -> str:
        """Return the library, and on PCIe the kernel and its module; the firmware is in the library."""
        if not device.id.startswith("pci"):
            return super().fingerprint(device)
        try:
            module = Path("/sys/module/apex/srcversion").read_text().strip()
        except OSError:
            module = ""
        return f"{super().fingerprint(device)} {platform.release()} {module}"

    def open(self, model: Model, device: Device, configuration: Configuration, runtime: Runtime) -> Session:
        """See :meth:`ExternalDelegate.open`; the device is named by where it is plugged in.

        Raises:
            DelegateError: also where the library does not see the device.
        """
        named = {**device.properties, "selector": _selector(device)}
        return super().open(model, device._replace(properties=named), configuration, runtime)

    def library_options(self, device: Device, configuration: Configuration) -> Mapping[str, Any]:
        """Name the device by index: without one the library drops every other option."""
        selector = device.properties.get("selector", device.id)
        return {"device": selector, **{k: str(v) for k, v in configuration.options.items()}}

    def refusal_remedy(self, message: str) -> str:
        """Return what to do about a message of the library, or about none."""
        versions = re.search(r"requires runtime version \((\d+)\).*this runtime version \((\d+)\)", message)
        if versions:
            newer, own = versions.groups()
            return (
                f"install a libedgetpu of runtime version {newer} or newer, or compile the model for this "
                f"one: edgetpu_compiler -m {own}"
            )
        known = next((remedy for words, remedy in _REMEDIES if words in message), "")
        if known or "failed to prepare" in message:
            return known
        return f"check that no other process uses the Edge TPU, its cable and power; {_USB_PERMISSION}"


def _on_usb(host: HostInfo) -> Iterator[tuple[Device, Problem | None]]:
    """Yield the sticks by port, which loading the firmware does not change, and what stands in their way."""
    found = sorted((one for one in host.usb if one.id in _USB_STATES), key=lambda one: _numbers(one.slot))
    for number, one in enumerate(found):
        state = _USB_STATES[one.id]
        if one.id == _RUNNING and host.read(f"{one.path}/speed") == "480":
            state += ", on USB 2, which slows transfers"
        yield (
            Device(f"usb:{number}", "tpu", "Edge TPU on USB", {"path": one.path}, state),
            _usb_problem(host, one),
        )


def _numbers(slot: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", slot)]


def _usb_problem(host: HostInfo, stick: BusDevice) -> Problem | None:
    bus, number = host.read(f"{stick.path}/busnum"), host.read(f"{stick.path}/devnum")
    if bus is None or number is None or not (bus.isdigit() and number.isdigit()):
        return None
    node = f"/dev/bus/usb/{int(bus):03d}/{int(number):03d}"
    if not host.exists(node) and (host.live or host.exists("/dev/bus/usb")):
        remedy = host.pass_in(node) or _USB_MAPPING
        return Problem("node", f"{stick.id} is on the bus at {stick.slot}, there is no {node}", remedy)
    if host.access(node) is False:
        return Problem("permission", f"{node} may not be opened", _USB_PERMISSION)
    return None


def _on_pci(host: HostInfo) -> Iterator[tuple[Device, Problem | None]]:
    """Yield the cards by slot, and what stands in their way."""
    nodes = {host.read(f"/sys/class/apex/{name}/pci_address"): name for name in host.list("/sys/class/apex")}
    for number, one in enumerate(card for card in host.pci if card.id == _PCI_ID):
        # Without the driver's own word, nodes are counted in the order of the slots.
        name = nodes.get(one.slot) or next(iter(host.list(f"{one.path}/apex")), f"apex_{number}")
        path = {"path": f"/dev/{name}"}
        yield (
            Device(f"pci:{number}", "tpu", "Edge TPU on PCIe", path, _pci_state(host, one, name)),
            _pci_problem(host, one, name),
        )


def _pci_state(host: HostInfo, card: BusDevice, name: str) -> str:
    parts = [f"{_PCI_ID} at {card.slot}"]
    temperature = host.read(f"/sys/class/apex/{name}/temp") or ""
    if temperature.isdigit():
        parts.append(f"{int(temperature) / 1000:.0f} °C")
    owner = host.read(f"/sys/class/apex/{name}/device_owner") or "0"
    if owner.isdigit() and int(owner):
        parts.append(f"open in process {owner}")
    if _large_pages(host):
        parts.append(f"{_large_pages(host)}, which its driver is not known to work with: {_SMALL_PAGES}")
    return ", ".join(parts)


def _large_pages(host: HostInfo) -> str:
    """Return what the kernel's pages are where they are larger than 4 KiB; of a captured machine only
    Raspberry Pi OS's own kernel for the Pi 5 is known by its name."""
    if host.page_size is not None:
        return f"kernel pages of {host.page_size // 1024} KiB" if host.page_size > 4096 else ""
    return "kernel pages of 16 KiB" if re.search(r"-rpi-2712$|-16k\+?$", host.kernel or "") else ""


def _pci_problem(host: HostInfo, card: BusDevice, name: str) -> Problem | None:
    node = f"/dev/{name}"
    loaded = any(line.startswith("apex ") for line in (host.read("/proc/modules") or "").splitlines())
    if card.driver not in (None, "apex"):
        remedy = f"give it to the driver apex: unbind it from {card.driver}"
        return Problem("driver", f"it is on the bus, its driver is {card.driver}", remedy)
    if card.driver is None and not loaded:
        return _without_module(host)
    if not host.exists(node):
        remedy = host.pass_in(node) or (
            "see the kernel log for apex; boards without MSI-X, and kernels newer than the module, fail here"
        )
        return Problem("node", f"module apex is loaded, but there is no {node}", remedy)
    status = host.read(f"/sys/class/apex/{name}/status")
    if status in ("DEAD", "LAMED"):
        return Problem("driver", f"the driver of {node} says {status}: it could not set it up", _INTERRUPTS)
    if host.access(node) is False:
        return Problem("permission", f"{node} may not be opened", _PCI_PERMISSION)
    return None


def _without_module(host: HostInfo) -> Problem:
    kernel = host.kernel or "?"
    if any(name.startswith("apex.ko") for name in host.list(f"/lib/modules/{kernel}/updates/dkms")):
        remedy = "sudo modprobe apex; the kernel log says why where that fails (Secure Boot: sign the module)"
        return Problem(
            "driver", f"it is on the bus, module apex is there for Linux {kernel}, not loaded", remedy
        )
    return Problem("driver", f"it is on the bus, no driver is bound (Linux {kernel})", _MODULES)


class _Listed(ctypes.Structure):
    """One device as the library lists it."""

    _fields_ = (("bus", ctypes.c_int), ("path", ctypes.c_char_p))


def _selector(device: Device) -> str:
    """Return the library's own name for a device: it counts sticks without firmware first, and cards as
    they come, so that its numbers change while ours do not.

    Raises:
        DelegateError: it does not see the device, or others can change the library.
    """
    path = device.properties.get("path")
    try:
        library = ctypes.CDLL(ExternalDelegate.trusted_path(str(device.properties.get("library", ""))))
        listing, free = library.edgetpu_list_devices, library.edgetpu_free_devices
        library.edgetpu_verbosity(1)  # it tells why it can't open a device on stderr only, and only then
    except (OSError, AttributeError):
        return device.id  # what is wrong with it, who loads it as a delegate says
    listing.restype, free.argtypes = ctypes.POINTER(_Listed), (ctypes.POINTER(_Listed),)
    count = ctypes.c_size_t()
    records = listing(ctypes.byref(count))
    seen = [(records[i].bus, (records[i].path or b"").decode(errors="replace")) for i in range(count.value)]
    if records:
        free(records)
    bus = device.id.partition(":")[0]
    paths = [found for kind, found in seen if kind == _LISTED.get(bus)]
    if path not in paths:
        reason = f"the library sees no Edge TPU at {path}, only: {', '.join(paths) or 'none'}"
        raise DelegateError(reason, remedy=EdgeTpuDelegate().refusal_remedy(reason))
    return f"{bus}:{paths.index(path)}"


@hookimpl
def tflite_hal_register_delegates() -> list[type[Delegate]]:
    """Register the Edge TPU."""
    return [EdgeTpuDelegate]

"""The Coral Edge TPU, on USB and PCIe, by ``libedgetpu`` as an external delegate.

A USB stick has two identities: 1a6e:089a before its firmware is loaded, which the first open does, and
18d1:9302 after. On PCIe it is 1ac1:089a, driven by the out-of-tree modules gasket and apex, which make
``/dev/apex_N``. Sources: google-coral/libedgetpu, google-coral/edgetpu issues 122, 817, 846.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from tflite_hal import (
    Configuration,
    Delegate,
    Device,
    ExternalDelegate,
    HostInfo,
    Model,
    Option,
    Probe,
    Problem,
    hookimpl,
)

_USB_IDS = {"1a6e:089a": "before its firmware is loaded", "18d1:9302": "firmware loaded"}
_PCI_ID = "1ac1:089a"
_CUSTOM_OPERATOR = "edgetpu-custom-op"
_PACKAGES = "install libedgetpu1-std (Coral's Debian repository; libedgetpu1-max runs hotter)"
_UDEV_REMEDY = (
    "add your user to group plugdev (USB) or apex (PCIe) and log in again; "
    "the package libedgetpu1-std brings the udev rules"
)


class EdgeTpuDelegate(ExternalDelegate):
    """Edge TPUs on USB and PCIe."""

    name = "edgetpu"
    api_version = 1
    description = "Coral Edge TPU on USB or PCIe; takes models compiled by edgetpu_compiler"
    install_hint = _PACKAGES
    libraries = ("libedgetpu.so.1", "libedgetpu.so")
    library_remedy = _PACKAGES
    kind = "tpu"
    options: ClassVar[tuple[Option, ...]] = (
        Option("Performance", "str", None, "clock of a USB device", choices=("Low", "Medium", "High", "Max")),
        Option("Usb.AlwaysDfu", "bool", None, "load the firmware at every open"),
        Option("Usb.MaxBulkInQueueLength", "int", None, "0 to 255", choices=tuple(range(256))),
    )

    def find(self, host: HostInfo) -> Probe:
        """Return the devices on USB and PCI, each with what stands in its way."""
        usb, pci = self._on_usb(host), self._on_pci(host)
        return Probe(usb.devices + pci.devices, usb.problems + pci.problems)

    def _on_usb(self, host: HostInfo) -> Probe:
        devices, problems = [], []
        for number, found in enumerate(d for d in host.usb if d.id in _USB_IDS):
            device = Device(
                f"usb:{number}", self.kind, f"Edge TPU on USB ({_USB_IDS[found.id]})", {"slot": found.slot}
            )
            node = _usb_node(host, found.path)
            if node is not None and host.access(node) is False:
                problems.append(Problem("permission", f"{node} may not be opened", _UDEV_REMEDY, device.id))
            else:
                devices.append(device)
        return Probe(tuple(devices), tuple(problems))

    def _on_pci(self, host: HostInfo) -> Probe:
        devices, problems = [], []
        for number, found in enumerate(d for d in host.pci if d.id == _PCI_ID):
            device = Device(f"pci:{number}", self.kind, "Edge TPU on PCIe", {"slot": found.slot})
            problem = _pci_problem(host, found.driver, number, f"{_PCI_ID} at {found.slot}")
            if problem is None:
                devices.append(device)
            else:
                problems.append(problem._replace(device=device.id))
        return Probe(tuple(devices), tuple(problems))

    def supports(self, model: Model, device: Device) -> str | None:
        """Return None for a model that edgetpu_compiler made, else what to do."""
        if _CUSTOM_OPERATOR in model.info.custom:
            return None
        return f"not compiled for the Edge TPU (no {_CUSTOM_OPERATOR}); run edgetpu_compiler on it"

    def library_options(self, device: Device, configuration: Configuration) -> Mapping[str, Any]:
        """Name the device by index: without one the library drops every other option."""
        return {"device": device.id, **{k: str(v) for k, v in configuration.options.items()}}

    def refusal_remedy(self, message: str) -> str:
        """Return what to do where the library found no device it could open."""
        if "partition page table" in message:
            return "use a kernel with 4 KiB pages (Raspberry Pi 5: kernel=kernel8.img in config.txt)"
        return (
            "check that no other process uses the Edge TPU, its cable and power, and the permission: "
            + _UDEV_REMEDY
        )


def _usb_node(host: HostInfo, path: str) -> str | None:
    bus, number = host.read(f"{path}/busnum"), host.read(f"{path}/devnum")
    if bus is None or number is None or not (bus.isdigit() and number.isdigit()):
        return None
    return f"/dev/bus/usb/{int(bus):03d}/{int(number):03d}"


def _pci_problem(host: HostInfo, driver: str | None, number: int, where: str) -> Problem | None:
    node = f"/dev/apex_{number}"
    loaded = any(line.startswith("apex ") for line in (host.read("/proc/modules") or "").splitlines())
    if driver != "apex" and not (driver is None and loaded):
        bound = f"its driver is {driver}" if driver else "no driver is bound"
        remedy = "install gasket-dkms for this kernel (it brings the modules gasket and apex) and reboot"
        return Problem("driver", f"{where} is on the bus, {bound}", remedy)
    if not host.exists(node):
        remedy = (
            "see the kernel log for apex; boards without MSI-X, and kernels newer than the module, fail here"
        )
        return Problem("node", f"{where} has its driver, but there is no {node}", remedy)
    if host.access(node) is False:
        return Problem("permission", f"{node} may not be opened", _UDEV_REMEDY)
    return None


@hookimpl
def tflite_hal_register_delegates() -> list[type[Delegate]]:
    """Register the Edge TPU."""
    return [EdgeTpuDelegate]

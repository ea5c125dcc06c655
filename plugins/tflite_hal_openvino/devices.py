"""Intel's GPUs and NPUs, from files, each with what stands in its way.

Sources: the ids of NPUs, linux drivers/accel/ivpu/ivpu_drv.h; their libraries, intel/linux-npu-driver
docs/overview.md (renamed in 1.16); a GPU's, docs.openvino.ai, configurations for GPU, and the libraries
that libopenvino_intel_gpu_plugin.so of 2026.3.1 needs.
"""

from __future__ import annotations

from collections.abc import Iterator

from tflite_hal import Device, HostInfo, Problem

__all__ = ["gpus", "npus", "place"]

_INTEL = "8086:"
_DISPLAY_CLASS = "03"  # PCI base class of display controllers
_NPUS = {
    "8086:7d1d": "Meteor Lake",
    "8086:ad1d": "Arrow Lake",
    "8086:643e": "Lunar Lake",
    "8086:b03e": "Panther Lake",
    "8086:fd3e": "Wildcat Lake",
}
_NPU_DRIVERS = ("libze_intel_npu.so.1", "libze_intel_npu.so", "libze_intel_vpu.so.1", "libze_intel_vpu.so")
_NPU_REMEDY = "install Intel's NPU driver (intel-level-zero-npu, intel-driver-compiler-npu, intel-fw-npu)"
_VENDORS = "/etc/OpenCL/vendors"
_GPU_REMEDY = "install intel-opencl-icd (it brings libOpenCL.so.1)"


def place(device: Device) -> str:
    """Return OpenVINO's name of a device: ``CPU``, ``GPU.0``, ``NPU``."""
    kind, _, number = device.id.partition(":")
    return f"GPU.{number}" if kind == "gpu" else kind.upper()


def gpus(host: HostInfo) -> Iterator[Device | Problem]:
    """Yield Intel's GPUs, ready or not; on the bus an integrated one comes first, as in OpenVINO's
    numbers."""
    displays = [d for d in host.pci if (d.class_code or "").startswith(_DISPLAY_CLASS)]
    for number, found in enumerate(d for d in displays if d.id.startswith(_INTEL)):
        at, name = (f"gpu:{number}", "gpu"), f"Intel GPU {found.id} at {found.slot}"
        problem = _node_problem(host, found.path, found.driver, f"{name} is on the bus", "i915 or xe")
        library = _opencl_driver(host)
        if problem is not None:
            yield problem._replace(device=at[0], kind=at[1])
        elif host.find_library("libOpenCL.so.1") is None:
            evidence = f"{name} has its node, but libOpenCL.so.1 is not in the loader's folders"
            yield Problem("library", evidence, _GPU_REMEDY, *at, _gpu_command(host))
        elif not library:
            evidence = f"{name} has its node, but {_VENDORS} names no driver"
            yield Problem("library", evidence, _GPU_REMEDY, *at, _gpu_command(host))
        else:
            yield Device(*at, name, {"slot": found.slot, "library": library})


def npus(host: HostInfo) -> Iterator[Device | Problem]:
    """Yield the NPU, ready or not."""
    for number, found in enumerate(d for d in host.pci if d.id in _NPUS):
        at, name = (f"npu:{number}", "npu"), f"Intel NPU ({_NPUS[found.id]}) {found.id} at {found.slot}"
        problem = _node_problem(host, found.path, found.driver, f"{name} is on the bus", "intel_vpu")
        library = host.find_library(*_NPU_DRIVERS)
        if problem is not None:
            yield problem._replace(device=at[0], kind=at[1])
        elif library is None:
            evidence = f"{name} has its node, but {_NPU_DRIVERS[0]} is not in the loader's folders"
            yield Problem("library", evidence, _NPU_REMEDY, *at)
        elif host.find_library("libze_loader.so.1") is None:
            evidence = f"{name} has its driver, but libze_loader.so.1 is not in the loader's folders"
            yield Problem("library", evidence, "install the Level Zero loader (libze1 or level-zero)", *at)
        else:
            yield Device(*at, name, {"slot": found.slot, "library": library})


def _gpu_command(host: HostInfo) -> str:
    """Return how to install the driver (Arch: wiki.archlinux.org, GPGPU)."""
    return host.install_command(debian="intel-opencl-icd", arch="intel-compute-runtime")


def _node_problem(host: HostInfo, path: str, driver: str | None, seen: str, modules: str) -> Problem | None:
    """Return the problem where a device on the bus has no node that may be opened."""
    nodes = [f"/dev/accel/{name}" for name in host.list(f"{path}/accel") if name.startswith("accel")]
    nodes += [f"/dev/dri/{name}" for name in host.list(f"{path}/drm") if name.startswith("renderD")]
    if not nodes and driver not in modules.split(" or "):
        bound = f"its driver is {driver}" if driver else "no driver is bound"
        command = f"sudo modprobe {modules}" if " " not in modules and not host.container else ""
        return Problem("driver", f"{seen}, {bound}", f"load the kernel module {modules}", command=command)
    node = next((node for node in nodes if host.exists(node)), None)
    if node is None:
        missing = nodes[0] if nodes else "a node for it"
        remedy = host.pass_in(nodes[0]) if nodes else ""
        remedy = remedy or "see the kernel log; in a container, hand the node in (--device)"
        return Problem("node", f"{seen} with its driver, but there is no {missing}", remedy)
    if host.access(node) is False:
        remedy = "add your user to group render and log in again"
        return Problem("permission", f"{node} may not be opened", remedy)
    return None


def _opencl_driver(host: HostInfo) -> str:
    """Return the path of Intel's OpenCL driver as the loader's registry has it, "" where it has none."""
    for name in host.list(_VENDORS):
        if name.startswith("intel") and name.endswith(".icd"):
            named = (host.read(f"{_VENDORS}/{name}") or "").strip()
            if named:
                return named if named.startswith("/") else host.find_library(named) or named
    return ""

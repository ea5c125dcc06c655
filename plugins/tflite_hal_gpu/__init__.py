"""GPUs: by LiteRT's accelerators, and by the classic GPU delegate as a library.

``gpu`` compiles a model for LiteRT's accelerator: WebGPU over Vulkan on Linux, Metal on macOS, WebGPU
over Direct3D on Windows. LiteRT chooses the adapter, so there is one device for all of them. Vulkan's
drivers are found by manifests (Khronos, "Driver interface to the Vulkan loader"). Adapters that compute
on the CPU (SwiftShader, llvmpipe) are devices with the property ``software``; files can't always tell,
so :meth:`GpuDelegate.open` asks Vulkan once more.

``gpu_tflite`` is ``libtensorflowlite_gpu_delegate.so``. It takes no options: in builds before
tensorflow pull request 125807 each sets another than the one it names.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from tflite_hal import (
    CompiledSession,
    Configuration,
    Delegate,
    DelegateError,
    Device,
    DeviceProfile,
    ExternalDelegate,
    HostInfo,
    Model,
    Option,
    Probe,
    Problem,
    Runtime,
    Session,
    file_identity,
    hookimpl,
)
from tflite_hal_gpu import vulkan

__all__ = ["ClassicGpuDelegate", "GpuDelegate", "tflite_hal_register_delegates"]

_DISPLAY_CLASS = "03"  # PCI base class of display controllers
_VENDOR_NODES = ("/dev/mali0", "/dev/kgsl-3d0", "/dev/nvidia0")
_NODE_REMEDY = "use a driver that renders, not the display's only; in a container pass --device /dev/dri"
_PERMISSION_REMEDY = "add your user to the group that owns it (render or video) and log in again"
_OTHER_SYSTEMS = {"Darwin": "Metal", "Windows": "WebGPU over Direct3D"}
_PRECISIONS = {"fp16": 1, "fp32": 2}  # LiteRtDelegatePrecision


class GpuDelegate(Delegate):
    """GPUs by LiteRT's accelerators."""

    name = "gpu"
    api_version = 1
    description = "GPUs by LiteRT's accelerators: WebGPU over Vulkan, Metal"
    install_hint = f"pip install 'ai-edge-litert>=2.3'; {vulkan.LOADER_REMEDY} and a Vulkan driver"
    runtimes = ("ai_edge_litert",)
    options: ClassVar[tuple[Option, ...]] = (
        Option("precision", "str", None, "of floating-point operators", choices=tuple(_PRECISIONS)),
        Option(
            "partial",
            "bool",
            False,
            "let the CPU run what the GPU does not take; LiteRT does not tell how much that is, even all",
        ),
        Option("software", "bool", False, "take an adapter that computes on the CPU"),
    )

    def probe(self, host: HostInfo) -> Probe:
        """Return one device for the GPUs that can be used, and what stands in the way of the others."""
        system = (host.os or "").partition(" ")[0]
        if host.live and system in _OTHER_SYSTEMS:
            return Probe((Device("gpu:0", "gpu", f"GPU by {_OTHER_SYSTEMS[system]}"),))
        gpus = list(_gpus(host))
        problems = [gpu for gpu in gpus if isinstance(gpu, Problem)]
        names = ", ".join(gpu for gpu in gpus if isinstance(gpu, str))
        drivers = vulkan.find(host)
        problems += [one for one in drivers if isinstance(one, Problem)]
        usable = [one for one in drivers if isinstance(one, vulkan.Driver)]
        hardware = [one.library for one in usable if not one.software]
        software = [one.library for one in usable if one.software]
        loader = host.find_library(vulkan.LOADER)
        properties: dict[str, Any] = {"loader": loader, "environment": vulkan.environment(host, drivers)}
        if names and loader and hardware:
            properties["drivers"] = hardware
            return Probe((Device("gpu:0", "gpu", names, properties),), tuple(problems))
        lacking = vulkan.lacking(host, names, loader, drivers)
        problems += [lacking] if lacking is not None else []
        if not (loader and software):
            return Probe((), tuple(problems))
        properties |= {"drivers": software, "software": True}
        name = f"software adapter ({', '.join(map(posixpath.basename, software))})"
        return Probe((Device("gpu:software", "gpu", name, properties),), tuple(problems))

    def inspect(self, host: HostInfo) -> Probe:
        """Ask Vulkan for the adapters' names."""
        found = self.probe(host)
        if not host.live or not found.devices or "loader" not in found.devices[0].properties:
            return found
        (device,) = found.devices
        try:
            adapters = vulkan.adapters(device)
        except DelegateError as error:
            problem = Problem("driver", error.reason, error.remedy, device.id, device.kind)
            return Probe((), (*found.problems, problem))
        properties = {**device.properties, "adapters": [str(adapter) for adapter in adapters]}
        if all(adapter.software for adapter in adapters):
            properties["software"] = True
        name = ", ".join(map(str, adapters))
        return Probe((device._replace(name=name, properties=properties),), found.problems)

    def supports(self, model: Model, device: Device) -> str | None:
        """Return why LiteRT's CompiledModel can't take a model at all."""
        if "variable tensors" in model.info.stateful:
            return f"LiteRT's CompiledModel takes no {model.info.stateful}"
        needs = model.info.needs()
        return f"needs {needs[0]}" if needs else None

    def configurations(
        self, model: Model, device: Device, profile: DeviceProfile | None
    ) -> Sequence[Configuration]:
        """Return LiteRT's choice of precision and, where a model has floats, full precision as a remedy."""
        if model.info.precision in ("int8", "uint8", "int16"):
            return [Configuration()]  # measured: precision changes nothing in them
        return [Configuration(), Configuration({"precision": "fp32"}, remedy=True)]

    def limits(self, device: Device) -> dict[str, float]:
        """Return a minute for each: drivers compile shaders."""
        return {"open": 60.0, "run": 60.0}

    def fingerprint(self, device: Device) -> str:
        """Return size and time of change of the loader and the drivers."""
        files = [device.properties.get("loader", ""), *device.properties.get("drivers", ())]
        return " ".join(file_identity(str(file)) for file in files if file)

    def open(self, model: Model, device: Device, configuration: Configuration, runtime: Runtime) -> Session:
        """Compile a model for the GPU, and with ``partial`` for the CPU beside it.

        Raises:
            DelegateError: no adapter, a software one that was not asked for, a Vulkan library that others
                can change, or LiteRT refuses.
        """
        options = configuration.options
        adapters = vulkan.adapters(device) if device.properties.get("loader") else []
        asked = options.get("software") or device.properties.get("software")
        if adapters and all(adapter.software for adapter in adapters) and not asked:
            raise DelegateError(
                f"Vulkan has only {adapters[0]}, which computes on the CPU",
                remedy=f'{vulkan.DRIVER_REMEDY}, or allow it: delegate="gpu", options={{"software": True}}',
            )
        precision = _PRECISIONS.get(options.get("precision") or "")
        given = {} if precision is None else {"gpu_options": f"precision = {precision}\n"}
        accelerators = ("gpu", "cpu") if options.get("partial") else ("gpu",)
        try:
            return CompiledSession(model, runtime, accelerators=accelerators, options=given)
        except DelegateError as error:
            there = f" (adapters: {', '.join(map(str, adapters))})" if adapters else ""
            lacking = "(compilation)" in error.reason
            remedy = 'let the CPU run the rest: options={"partial": True}' if lacking else error.remedy
            raise DelegateError(f"{error.reason}{there}", remedy=remedy) from error


class ClassicGpuDelegate(ExternalDelegate):
    """GPUs by TensorFlow Lite's own delegate over OpenCL or OpenGL ES."""

    name = "gpu_tflite"
    api_version = 1
    description = "GPUs by libtensorflowlite_gpu_delegate.so (OpenCL, OpenGL ES)"
    install_hint = "build tensorflow/lite/delegates/gpu:tensorflowlite_gpu_delegate; no package has it"
    libraries = ("libtensorflowlite_gpu_delegate.so",)
    kind = "gpu"

    def find(self, host: HostInfo) -> Probe:
        """Return the GPUs, where the library is there: elsewhere nobody misses it."""
        if not (host.find_library(*self.libraries) or host.distrusted_library(*self.libraries)):
            return Probe()
        gpus = list(_gpus(host))
        problems = [gpu for gpu in gpus if isinstance(gpu, Problem)]
        names = ", ".join(gpu for gpu in gpus if isinstance(gpu, str))
        if host.find_library("libOpenCL.so.1") and not host.find_library("libOpenCL.so"):
            evidence = "libOpenCL.so.1 is there, but the delegate opens libOpenCL.so"
            remedy = "install the package that has that name (Debian, Ubuntu: ocl-icd-opencl-dev)"
            problems.append(Problem("library", evidence, remedy, "gpu:0"))
        return Probe((Device("gpu:0", "gpu", names),) if names else (), tuple(problems))

    def open(self, model: Model, device: Device, configuration: Configuration, runtime: Runtime) -> Session:
        """Open as every external delegate; OpenGL runs only in the thread that opened."""
        session = super().open(model, device, configuration, runtime)
        session.threading = "owner"
        return session


def _gpus(host: HostInfo) -> Iterator[str | Problem]:
    """Yield the name of each GPU that this process may use, or what stands in the way."""
    left = [n for n in host.nodes if n.startswith("/dev/dri/renderD") or n in _VENDOR_NODES]
    for found in host.pci:
        if not (found.class_code or "").startswith(_DISPLAY_CLASS):
            continue
        where = f"GPU {found.id} at {found.slot}"
        if found.driver is None:
            yield Problem(
                "driver", f"{where} is on the bus, no driver is bound", vulkan.DRIVER_REMEDY, "", "gpu"
            )
            continue
        own = [f"/dev/dri/{name}" for name in host.list(f"{found.path}/drm") if name.startswith("renderD")]
        own += ["/dev/nvidia0"] if found.driver == "nvidia" else []
        nodes = [node for node in (own or left) if node in left]
        if not nodes:
            evidence = f"{where} has the driver {found.driver}, but no node to render with"
            yield Problem("node", evidence, _NODE_REMEDY, "", "gpu")
            continue
        left = [node for node in left if node not in nodes]
        yield _allowed(host, nodes, f"{where} ({found.driver})")
    for node in left:  # on a platform bus, or of a container without /sys
        driver = host.link_name(f"/sys/class/drm/{posixpath.basename(node)}/device/driver")
        yield _allowed(host, [node], f"GPU at {node}" + (f" ({driver})" if driver else ""))


def _allowed(host: HostInfo, nodes: Sequence[str], name: str) -> str | Problem:
    if all(host.access(node) is False for node in nodes):
        return Problem("permission", f"{name}: {nodes[0]} may not be opened", _PERMISSION_REMEDY, "", "gpu")
    return name


@hookimpl
def tflite_hal_register_delegates() -> list[type[Delegate]]:
    """Register both."""
    return [GpuDelegate, ClassicGpuDelegate]

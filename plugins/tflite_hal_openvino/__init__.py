"""Intel CPUs, GPUs and NPUs by OpenVINO, which reads ``.tflite`` files itself."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from tflite_hal import (
    Configuration,
    Delegate,
    DelegateError,
    Device,
    DeviceProfile,
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
from tflite_hal_openvino import devices, dispatch, engine, package

__all__ = ["OpenvinoDelegate", "tflite_hal_register_delegates"]

#: OpenVINO's names of the options.
_PROPERTIES = {
    "precision": "INFERENCE_PRECISION_HINT",
    "pinning": "ENABLE_CPU_PINNING",
    "cores": "SCHEDULING_CORE_TYPE",
}


class OpenvinoDelegate(Delegate):
    """Intel CPUs, GPUs and NPUs by OpenVINO."""

    name = "openvino"
    api_version = 1
    description = "OpenVINO on x86-64 CPUs, Intel GPUs and NPUs"
    install_hint = package.INSTALL
    runtimes = None
    in_process = ("cpu",)
    options: ClassVar[tuple[Option, ...]] = (
        Option("precision", "str", None, "to compute in", choices=("f32", "f16", "bf16")),
        Option("pinning", "bool", None, "bind the threads of the CPU to cores"),
        Option("cores", "str", None, "of the CPU", choices=("ANY_CORE", "PCORE_ONLY", "ECORE_ONLY")),
        Option("through", "str", None, "by itself or by LiteRT's dispatch", choices=("openvino", "litert")),
    )

    def probe(self, host: HostInfo) -> Probe:
        """Return the CPU where the package is installed, and Intel's GPUs and NPUs with what they lack.

        An x86-64 CPU without the package is no problem: XNNPACK runs there.
        """
        found = [*devices.gpus(host), *devices.npus(host)]
        ready = [one for one in found if isinstance(one, Device)]
        problems = [one for one in found if isinstance(one, Problem)]
        if host.live and package.version() is None:
            evidence = "is ready, but the package openvino is not installed"
            how = package.INSTALL
            problems += [Problem("runtime", f"{d.name} {evidence}", how, *d[:2], how) for d in ready]
            ready = []
        elif host.live and host.arch == "x86_64":
            folder = dispatch.folder()
            litert = {"litert": folder} if folder else {}
            ready = [one._replace(properties={**one.properties, **litert}) for one in ready]
            ready.append(Device("cpu", "cpu", host.cpu.model or "CPU", {"threads": host.cpu.fast}))
        mismatch = dispatch.mismatch() if host.live else None
        return Probe(tuple(ready), (*problems, *([mismatch] if mismatch is not None else [])))

    def inspect(self, host: HostInfo) -> Probe:
        """Name the devices as OpenVINO does; one that it doesn't list is a problem.

        Raises:
            DelegateError: OpenVINO can't be imported, or asked.
        """
        found = self.probe(host)
        if not found.devices:
            return found
        named, problems = [], list(found.problems)
        names = engine.device_names()
        for device in found.devices:
            place = devices.place(device)
            # A single GPU is listed without its number.
            name = names.get(place) or names.get(place.removesuffix(".0"))
            if name is not None:
                named.append(device._replace(name=name))
            else:
                evidence = f"{device.name}: OpenVINO {package.version()} lists {', '.join(names)} only"
                problems.append(Problem("open", evidence, "update its driver", device.id, device.kind))
        return Probe(tuple(named), tuple(problems))

    def supports(self, model: Model, device: Device) -> str | None:
        """Return what OpenVINO's reader of TensorFlow Lite lacks: state, custom operators, text, and
        tensors that can't be told by name."""
        info = model.info
        if info.stateful:
            return f"OpenVINO keeps no state between calls ({info.stateful})"
        if info.custom:
            return f"OpenVINO has no custom operators: {', '.join(info.custom)}"
        for specs in (info.inputs, info.outputs):
            names = [spec.name for spec in specs]
            if any(spec.dtype.hasobject for spec in specs):
                return f"OpenVINO exchanges no {', '.join(spec.type for spec in specs)}"
            if "" in names or len(set(names)) < len(names):
                return f"OpenVINO tells tensors by name, and these are not unique: {names}"
        return None

    def configurations(
        self, model: Model, device: Device, profile: DeviceProfile | None
    ) -> Sequence[Configuration]:
        """Return one thread and all fast cores in 32 bits for the CPU; 16 bits for a GPU, and 32 where
        these are wrong; an NPU computes as it likes, and is reached by LiteRT too where that is there."""
        if device.kind == "gpu":
            return [Configuration({"precision": "f16"}), Configuration({"precision": "f32"}, remedy=True)]
        if device.kind == "npu":
            second = [Configuration({"through": "litert"})] if device.properties.get("litert") else []
            return [Configuration(), *second]
        most = int(device.properties.get("threads", 1))
        advised = [count for count in profile.threads if count <= most] if profile is not None else []
        counts = dict.fromkeys(advised or [1, most])
        # By itself OpenVINO computes in bfloat16 on CPUs that have it.
        return [Configuration({"precision": "f32"}, threads=count) for count in counts]

    def limits(self, device: Device) -> Mapping[str, float]:
        """Allow GPUs and NPUs to compile for two minutes."""
        return {} if device.kind == "cpu" else {"open": 120.0, "run": 120.0}

    def fingerprint(self, device: Device) -> str:
        """Return OpenVINO's version, and of a device with a driver that and the kernel."""
        library = str(device.properties.get("library", ""))
        driver = f" {file_identity(library)} {platform.release()}" if library else ""
        return f"openvino {package.version()}{driver}"

    def open(self, model: Model, device: Device, configuration: Configuration, runtime: Runtime) -> Session:
        """Read and compile a model.

        Raises:
            DelegateError: OpenVINO can't be imported, or refuses the model; ends with its own words.
        """
        given = {name: value for name, value in configuration.options.items() if value is not None}
        if given.pop("through", "openvino") == "litert":
            if device.kind == "cpu":
                reason = "LiteRT's dispatch to OpenVINO chooses threads and precision of a CPU by itself"
                raise DelegateError(reason, remedy="through='openvino'")
            return dispatch.open_session(model, runtime, device.kind, given.get("precision"))
        properties: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"}
        if device.kind == "cpu":
            # Without a stream the model runs in the thread that calls, alone: two sessions run side by side,
            # which those with a stream each do not. A stream has threads that outlive it, and a process that
            # was forked meanwhile hangs or aborts at its end, where they are to be joined.
            many = (configuration.threads or 1) > 1
            properties["NUM_STREAMS"] = int(many)
            properties |= {"INFERENCE_NUM_THREADS": configuration.threads} if many else {}
        properties |= {_PROPERTIES[name]: value for name, value in given.items()}
        return engine.OpenvinoSession(model, devices.place(device), properties)


@hookimpl
def tflite_hal_register_delegates() -> list[type[Delegate]]:
    """Register OpenVINO."""
    return [OpenvinoDelegate]

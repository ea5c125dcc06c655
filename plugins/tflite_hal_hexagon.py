"""Qualcomm's Hexagon, by whichever of two delegates is there.

* QNN (``libQnnTFLiteDelegate.so``, Linux and Android): an external delegate. Its backend is a library of
  its own: ``libQnnHtp.so`` drives the tensor processor (device ``npu:0``), ``libQnnDsp.so`` the v66 DSP
  (``dsp:0``), ``libQnnGpu.so`` the GPU (``gpu:0``). The DSP's side is a skel, found by ``ADSP_LIBRARY_PATH``.
* The older Hexagon delegate (``libhexagon_delegate.so``, Android): a C API, which ``load_delegate`` can't
  load; it needs ``libhexagon_interface.so`` and the skels ``libhexagon_nn_skel*.so`` beside it.

Sources: docs.qualcomm.com 80-63442-10 (External Delegate Options, TFLite Delegate backend libraries);
google-ai-edge/LiteRT @ f67457790c9c, tflite/delegates/hexagon, litert/vendors/qualcomm/supported_soc.csv;
Debian arm64 kernels 6.12.117-1 and 7.2.13-1 (device trees, module fastrpc).
"""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from tflite_hal import (
    Configuration,
    Delegate,
    DelegateError,
    Device,
    DeviceProfile,
    ExternalDelegate,
    HostInfo,
    InterpreterSession,
    Model,
    Option,
    Probe,
    Problem,
    Runtime,
    Session,
    file_identity,
    hookimpl,
)

_LEGACY = "libhexagon_delegate.so"
_INTERFACE = "libhexagon_interface.so"
_LEGACY_SKELS = ("libhexagon_nn_skel.so", "libhexagon_nn_skel_v65.so", "libhexagon_nn_skel_v66.so")
#: Backends of QNN: device, kind, ``backend_type``, library, skel ({} is the Hexagon version).
_BACKENDS = (
    ("npu:0", "npu", "htp", "libQnnHtp.so", "libQnnHtpV{}Skel.so"),
    ("dsp:0", "dsp", "dsp", "libQnnDsp.so", "libQnnDspV{}Skel.so"),
    ("gpu:0", "gpu", "gpu", "libQnnGpu.so", ""),
)
#: Where skels lie: Qualcomm Linux, and Ubuntu's QAIRT packages.
_SKEL_FOLDERS = ("/usr/lib/rfsa/adsp", "/usr/lib/dsp/cdsp")
#: Hexagon versions by device-tree string of the chip.
_VERSIONS = {
    "qcom,qcm6490": 68,
    "qcom,sm8250": 66,
    "qcom,qcs8300": 75,
    "qcom,qcs9100": 73,
    "qcom,sa8775p": 73,
    "qcom,x1e80100": 73,
}
_DSP_VERSION = 66  # the last with the backend dsp
_HALF_VERSION = 69  # the first that computes in 16-bit floats

_INSTALL = (
    "install Qualcomm's AI runtime (QAIRT) with its TFLite delegate and put its folder into LD_LIBRARY_PATH"
)
_NODE_REMEDY = (
    "load the kernel module fastrpc (Debian's 6.12 has it, 6.1 has not); "
    "in a container map /dev/fastrpc-cdsp and /dev/dma_heap/system"
)
_SKEL_REMEDY = f"install the skel of the same QAIRT release in {_SKEL_FOLDERS[0]}, or set ADSP_LIBRARY_PATH"


class HexagonDelegate(ExternalDelegate):
    """Hexagon by QNN or by the older delegate, and the GPU by QNN."""

    name = "hexagon"
    api_version = 1
    description = "Qualcomm Hexagon by QNN, or by the older Hexagon delegate (Android)"
    install_hint = _INSTALL
    libraries = ("libQnnTFLiteDelegate.so",)
    library_remedy = _INSTALL
    kind = "npu"
    options: ClassVar[tuple[Option, ...]] = (
        Option("htp_precision", "int", None, "QNN on npu:0; 1 is 16-bit floats", choices=(0, 1)),
        Option("htp_performance_mode", "int", None, "QNN on npu:0; 2 is burst", choices=tuple(range(10))),
        Option("dsp_performance_mode", "int", None, "QNN on dsp:0", choices=tuple(range(9))),
        Option("gpu_precision", "int", None, "QNN on gpu:0", choices=(0, 1, 2, 3)),
        Option("gpu_performance_mode", "int", None, "QNN on gpu:0", choices=(0, 1, 2, 3)),
        Option("cache_dir", "str", None, "QNN: folder for compiled graphs"),
        Option("model_token", "str", None, "QNN: name of the compiled graph"),
        Option("log_level", "int", None, "QNN"),
        Option("debug_level", "int", None, "older delegate"),
        Option("powersave_level", "int", None, "older delegate; 0 is fastest"),
        Option("print_graph_profile", "bool", None, "older delegate"),
        Option("print_graph_debug", "bool", None, "older delegate"),
        Option("max_delegated_partitions", "int", None, "older delegate; 0 is no limit"),
        Option("min_nodes_per_partition", "int", None, "older delegate; 2 where it is not given"),
    )

    def probe(self, host: HostInfo) -> Probe:
        """Return the devices of the delegate that is there, and what is missing: node, permission, library
        or skel. QNN goes before the older one."""
        if host.find_library(*self.libraries) is not None or not _is_there(host, _LEGACY):
            return super().probe(host)
        found = self._legacy(host, host.find_library(_LEGACY) or "")
        refused = _refused(host, self.libraries[0], "npu:0", "npu")
        return found if refused is None else Probe(found.devices, (refused, *found.problems))

    def find(self, host: HostInfo) -> Probe:
        """Return what QNN's backends drive."""
        version = next((_VERSIONS[word] for word in host.board.compatible if word in _VERSIONS), None)
        if version is None and not _nodes(host) and not _is_there(host, *self.libraries):
            return Probe()
        found = [self._backend(host, backend, version) for backend in _backends(host, version)]
        return Probe(
            tuple(one for one in found if isinstance(one, Device)),
            tuple(one for one in found if isinstance(one, Problem)),
        )

    def _backend(self, host: HostInfo, backend: Sequence[str], version: int | None) -> Device | Problem:
        id_, kind, name, file, skel = backend
        problem = None if kind == "gpu" else _node_problem(host, id_, kind)
        if problem is not None:
            return problem
        device = Device(id_, kind, f"{'Adreno' if kind == 'gpu' else 'Hexagon'} by QNN ({name})")
        properties: dict[str, Any] = {"backend": name, "version": version}
        if host.find_library(*self.libraries) is None:
            return device._replace(properties=properties)  # told with the library
        library = host.find_library(file)
        if library is None:
            evidence = f"QNN's backend {file} is in none of the loader's folders"
            return _refused(host, file, id_, kind) or Problem("library", evidence, _INSTALL, id_, kind)
        properties |= {"backend_library": library, "files": [library]}
        environment = {"LD_LIBRARY_PATH": library.rpartition("/")[0]}
        if skel:
            folders = _skel_folders(host)
            paths = [path for folder in folders for path in _skels(host, folder, skel, version)]
            chosen = host.find_library(*paths)
            if chosen is None:
                evidence = f"{skel.format(version or '*')} is in none of {', '.join(folders)}"
                absent = Problem("library", evidence, _SKEL_REMEDY, id_, kind)
                return next(filter(None, (_refused(host, path, id_, kind) for path in paths)), absent)
            environment["ADSP_LIBRARY_PATH"] = chosen.rpartition("/")[0]
            properties["files"].append(chosen)
        return device._replace(properties={**properties, "environment": environment})

    def _legacy(self, host: HostInfo, library: str) -> Probe:
        """Return the DSP by the older delegate, which finds its other libraries in one folder."""
        id_, kind = "dsp:0", "dsp"
        problem = _node_problem(host, id_, kind)
        if problem is None and not library:
            problem = _refused(host, _LEGACY, id_, kind)
        folder = library.rpartition("/")[0]
        beside = [f"{folder}/{name}" for name in (_INTERFACE, *_LEGACY_SKELS)]
        problem = problem or next(filter(None, (_refused(host, path, id_, kind) for path in beside)), None)
        for names in ((_INTERFACE,), _LEGACY_SKELS):
            if problem is None and not any(host.find_library(f"{folder}/{name}") for name in names):
                evidence = f"{library} needs {' or '.join(names)} beside it, which is not there"
                problem = Problem("library", evidence, "install all from the same release", id_, kind)
        if problem is not None:
            return Probe((), (problem,))
        files = [path for path in beside if host.find_library(path) is not None]
        properties: dict[str, Any] = {"backend": "legacy", "library": library, "files": files}
        properties["environment"] = {"ADSP_LIBRARY_PATH": folder}
        return Probe((Device(id_, kind, "Hexagon by the older Hexagon delegate", properties),))

    def supports(self, model: Model, device: Device) -> str | None:
        """Return None, or why this device can't run the model."""
        precision, version = model.info.precision, device.properties.get("version")
        if device.kind == "gpu" or precision in ("int8", "uint8"):
            return None
        if device.kind == "npu" and precision.startswith("float") and (version or 0) >= _HALF_VERSION:
            return None
        return f"is {precision}; this Hexagon takes int8 and uint8: quantise it"

    def configurations(
        self, model: Model, device: Device, profile: DeviceProfile | None
    ) -> Sequence[Configuration]:
        """Return one: a float model on the tensor processor is computed in 16-bit floats."""
        if device.kind == "npu" and model.info.precision.startswith("float"):
            return [Configuration({"htp_precision": 1}, precision="fp16")]
        return [Configuration()]

    def library_options(self, device: Device, configuration: Configuration) -> Mapping[str, Any]:
        """Name the backend, without which QNN refuses; it is the device's."""
        backend, library = (str(device.properties.get(key, "")) for key in ("backend", "backend_library"))
        return {"backend_type": backend, "library_path": library, **configuration.options}

    def limits(self, device: Device) -> Mapping[str, float]:
        """Allow for compiling the graph, which happens when it is opened."""
        return {"open": 120.0}

    def fingerprint(self, device: Device) -> str:
        """Return the libraries on both sides, skels included, and the kernel, whose driver lies between."""
        files = (file_identity(str(path)) for path in device.properties.get("files", ()))
        return "; ".join([super().fingerprint(device), *files, platform.release()])

    def open(self, model: Model, device: Device, configuration: Configuration, runtime: Runtime) -> Session:
        """Open a model by the delegate that the device stands for; see :meth:`ExternalDelegate.open`."""
        for path in device.properties.get("files", ()):
            self.trusted_path(str(path))
        if device.properties.get("backend") != "legacy":
            return super().open(model, device, configuration, runtime)
        library = self.trusted_path(str(device.properties.get("library", "")))
        native = _Native(library, configuration.options)
        session = InterpreterSession(model, runtime, delegates=[native], threads=configuration.threads)
        if session.coverage is not None and session.coverage.taken == 0:
            session.close()
            raise DelegateError(
                f"{self.name} took none of the {session.coverage.total} operators of {model.name}"
            )
        return session

    def refusal_remedy(self, message: str) -> str:
        """Return what to do where QNN gives no reason."""
        return f"see that the DSP runs (/sys/class/remoteproc/*/state); {_SKEL_REMEDY}"


def _backends(host: HostInfo, version: int | None) -> Iterator[Sequence[str]]:
    """Yield the backends that this chip has; of an unknown chip, those whose libraries are there."""
    for backend in _BACKENDS:
        if backend[1] == "gpu" or version is None:
            if _is_there(host, backend[3]) or (version is None and backend[1] == "npu"):
                yield backend
        elif (version == _DSP_VERSION) == (backend[1] == "dsp"):
            yield backend


def _nodes(host: HostInfo) -> list[str]:
    return [node for node in host.nodes if node.startswith(("/dev/fastrpc-", "/dev/adsprpc-smd"))]


def _node_problem(host: HostInfo, id_: str, kind: str) -> Problem | None:
    nodes = _nodes(host)
    if not nodes:
        return Problem(
            "node",
            "no /dev/fastrpc-* or /dev/adsprpc-smd: the DSP is out of reach",
            host.pass_in("/dev/fastrpc-cdsp") or _NODE_REMEDY,
            id_,
            kind,
            "" if host.container else "sudo modprobe fastrpc",
        )
    if all(host.access(node) is False for node in nodes):
        remedy = "add your user to the group that owns it (ls -l shows it) and log in again"
        return Problem("permission", f"{', '.join(nodes)} may not be opened", remedy, id_, kind)
    return None


def _skel_folders(host: HostInfo) -> list[str]:
    named = os.environ.get("ADSP_LIBRARY_PATH", "") if host.live else ""
    return [*(folder for folder in named.split(";") if folder.startswith("/")), *_SKEL_FOLDERS]


def _skels(host: HostInfo, folder: str, skel: str, version: int | None) -> list[str]:
    head, tail = skel.split("{}")
    names = [name for name in host.list(folder) if name.startswith(head) and name.endswith(tail)]
    return [f"{folder}/{name}" for name in names if version is None or name == skel.format(version)]


def _is_there(host: HostInfo, *names: str) -> bool:
    """Whether a library is there, be it one that is refused."""
    return bool(host.find_library(*names) or host.distrusted_library(*names))


def _refused(host: HostInfo, library: str, id_: str, kind: str) -> Problem | None:
    refused = host.distrusted_library(library)
    return None if refused is None else Problem("library", refused.reason, refused.remedy, id_, kind)


class _Options(ctypes.Structure):
    """``TfLiteHexagonDelegateOptions`` (hexagon_delegate.h)."""

    _fields_ = (
        ("debug_level", ctypes.c_int),
        ("powersave_level", ctypes.c_int),
        ("print_graph_profile", ctypes.c_bool),
        ("print_graph_debug", ctypes.c_bool),
        ("max_delegated_partitions", ctypes.c_int),
        ("min_nodes_per_partition", ctypes.c_int),
        ("enable_dynamic_batch_size", ctypes.c_bool),
        ("max_batch_size", ctypes.c_int),
        ("input_batch_dimensions", ctypes.c_void_p),
        ("output_batch_dimensions", ctypes.c_void_p),
    )


class _Native:
    """A delegate made by the older delegate's C API; lives as long as this object."""

    def __init__(self, library: str, options: Mapping[str, Any]) -> None:
        known = {name for name, _ in _Options._fields_}
        foreign = [name for name, value in options.items() if name not in known and value is not None]
        if foreign:
            raise DelegateError(f"the older Hexagon delegate has no option {foreign[0]}: it is QNN's")
        try:
            api = ctypes.CDLL(library)
            create, self._delete = api.TfLiteHexagonDelegateCreate, api.TfLiteHexagonDelegateDelete
            start = api.TfLiteHexagonInitWithPath
        except (OSError, AttributeError) as error:
            raise DelegateError(f"{library} is not the older Hexagon delegate: {error}") from error
        start.argtypes, start.restype = [ctypes.c_char_p], None
        create.argtypes, create.restype = [ctypes.POINTER(_Options)], ctypes.c_void_p
        self._delete.argtypes, self._delete.restype = [ctypes.c_void_p], None
        # Never torn down: other sessions share the process, whose end does it.
        start(os.fsencode(Path(library).parent))
        given = {name: value for name, value in options.items() if value is not None}
        self._pointer: int | None = create(ctypes.byref(_Options(**{"min_nodes_per_partition": 2, **given})))
        if not self._pointer:
            raise DelegateError(
                f"{library} refused: it gave no message (DSP absent or not supported, or versions differ)",
                remedy="see the log for Hexagon, and use interface library and skels of one release",
            )

    def _get_native_delegate_pointer(self) -> int | None:
        return self._pointer

    def __del__(self) -> None:
        if getattr(self, "_pointer", None):
            self._delete(self._pointer)


@hookimpl
def tflite_hal_register_delegates() -> list[type[Delegate]]:
    """Register Hexagon."""
    return [HexagonDelegate]

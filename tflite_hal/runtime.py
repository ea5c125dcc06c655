"""The TensorFlow Lite runtimes: which are usable, broken or absent, and one way to use each.

The only module that imports ``ai_edge_litert``, ``tflite_runtime`` or ``tensorflow``. Several of them
work side by side in one process; each is imported when it is first asked for.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from tflite_hal.errors import RuntimeUnavailableError

__all__ = ["NAMES", "Runtime", "RuntimeStatus", "load_runtime", "runtime_status", "runtime_statuses"]

#: Every runtime this package knows, in the order of automatic choice: the first kept up, the fastest
#: on 8-bit models, first; TensorFlow last because importing it takes seconds.
NAMES: Final = ("ai_edge_litert", "tflite_runtime", "tensorflow")

_MODULES: Final = {
    "ai_edge_litert": "ai_edge_litert.interpreter",
    "tflite_runtime": "tflite_runtime.interpreter",
    "tensorflow": "tensorflow",
}
_loaded: dict[str, Runtime] = {}


class RuntimeStatus(NamedTuple):
    """What is known about a runtime before importing it."""

    name: str
    state: str  #: "usable", "broken" or "absent"
    version: str  #: "" where unknown
    reason: str = ""  #: why it is broken or absent
    remedy: str = ""  #: what to do about it, a command where there is one

    def to_dict(self) -> dict[str, str]:
        """Return it JSON-ready."""
        return dict(self._asdict())


class Runtime:
    """One imported runtime.

    Attributes:
        name: one of :data:`NAMES`.
        version: its version.
        library: path of the shared library that holds the interpreter and its C symbols, for
            plugins that reach an exported function through :mod:`ctypes`; "" where not known.
        compiled_library: path of LiteRT's library with the C API of its ``CompiledModel``; ""
            where the runtime has none.
    """

    __slots__ = ("_api", "compiled_library", "library", "name", "version")

    def __init__(self, name: str, version: str, api: Any, library: str, compiled_library: str = "") -> None:
        self.name = name
        self.version = version
        self.library = library
        self.compiled_library = compiled_library
        self._api = api

    def interpreter(
        self,
        model: str | bytes,
        *,
        delegates: Sequence[Any] = (),
        threads: int | None = None,
        default_delegates: bool = True,
    ) -> Any:
        """Return this runtime's ``Interpreter`` on a model, tensors not yet allocated.

        Args:
            model: a path, or the bytes of the file.
            delegates: objects of :meth:`load_delegate`, or with ``_get_native_delegate_pointer()``.
            threads: for the CPU kernels; None is one.
            default_delegates: apply what the runtime applies by itself (XNNPACK); without it the
                built-in kernels run.

        Raises:
            ValueError: the runtime refuses the file.
            OSError: a file whose name is not UTF-8 can't be read.
            RuntimeError: a delegate refuses the model.
            SystemError: the runtime does not fit the installed numpy.
        """
        resolvers = self._api["OpResolverType"]
        resolver = resolvers.AUTO if default_delegates else resolvers.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        if isinstance(model, str) and not _is_utf8(model):  # the runtimes take no other names
            model = Path(model).read_bytes()
        source = {"model_content": model} if isinstance(model, bytes) else {"model_path": model}
        return self._api["Interpreter"](
            **source,
            num_threads=threads or 1,
            experimental_op_resolver_type=resolver,
            experimental_delegates=list(delegates) or None,
        )

    def load_delegate(self, path: str, options: Mapping[str, Any] | None = None) -> Any:
        """Load an external delegate's shared library; holds the GIL until the library is done.

        Raises:
            OSError: the library can't be loaded.
            AttributeError: it is no external delegate (a symbol is missing).
            ValueError: it refuses the options, or finds no device.
        """
        return self._api["load_delegate"](path, dict(options or {}))

    def __repr__(self) -> str:
        return f"<Runtime {self.name} {self.version}>"


def _is_utf8(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:  # bytes of the file system that are no text
        return False
    return True


def load_runtime(name: str | None = None) -> Runtime:
    """Import a runtime and return it.

    Args:
        name: one of :data:`NAMES`; None is ``TFLITE_HAL_RUNTIME``, else the first that is usable and
            can be imported.

    Raises:
        RuntimeUnavailableError: the one asked for is absent or broken, or none is usable. Says why
            for each, with what to install.
    """
    wanted = name or os.environ.get("TFLITE_HAL_RUNTIME") or None
    if wanted is not None:
        return _load(wanted)
    reasons = []
    for candidate in NAMES:
        try:
            return _load(candidate)
        except RuntimeUnavailableError as error:
            reasons.append(error)
    raise RuntimeUnavailableError(
        "no TensorFlow Lite runtime is usable: " + "; ".join(error.reason for error in reasons),
        remedy=next((error.remedy for error in reasons if error.remedy), ""),
    )


def _load(name: str) -> Runtime:
    if name not in _loaded:
        status = runtime_status(name)
        if status.state != "usable":
            raise RuntimeUnavailableError(f"{name} is {status.state}: {status.reason}", remedy=status.remedy)
        _loaded[name] = _import(name, status.version)
    return _loaded[name]


def _import(name: str, version: str) -> Runtime:
    # Extension modules built for another numpy or another C library fail in all these ways: numpy's own
    # check raises RuntimeError, Cython's ValueError. AttributeError: a name is missing from the package.
    try:
        return _bound(name, version, importlib.import_module(_MODULES[name]))
    except (ImportError, AttributeError, SystemError, OSError, ValueError, RuntimeError) as error:
        reason = f"{name} {version} can't be imported: {type(error).__name__}: {error}"
        raise RuntimeUnavailableError(reason, remedy=_repair(name, error)) from error


def _bound(name: str, version: str, module: Any) -> Runtime:
    """Collect what is used of an imported runtime."""
    version = str(getattr(sys.modules[name], "__version__", version))
    if name != "tensorflow":
        api = {key: getattr(module, key) for key in ("Interpreter", "OpResolverType", "load_delegate")}
        library = getattr(getattr(module, "_interpreter_wrapper", None), "__file__", None)
        return Runtime(name, version, api, str(library or ""), _compiled_library(name))
    lite = module.lite
    return Runtime(
        name,
        version,
        {
            "Interpreter": lite.Interpreter,
            "OpResolverType": lite.experimental.OpResolverType,
            "load_delegate": lite.experimental.load_delegate,
        },
        "",
    )


def _compiled_library(name: str) -> str:
    """Return the path of LiteRT's own library in a runtime's package, by the name it has on each system."""
    package = Path(str(sys.modules[name].__file__)).parent
    found = (package / file for file in ("libLiteRt.so", "libLiteRt.dylib", "libLiteRt.dll"))
    return next((str(path) for path in found if path.is_file()), "")


def _repair(name: str, error: Exception) -> str:
    """Return what may bring an installed runtime to work: the other numpy, or installing it again."""
    if "numpy" in str(error):
        return "pip install 'numpy<2'" if _numpy_major() >= 2 else "pip install 'numpy>=2'"
    return _pip_line(name)[1].replace("pip install", "pip install --force-reinstall")


def runtime_status(name: str) -> RuntimeStatus:
    """Say whether a runtime is usable, broken or absent, without importing it.

    Raises:
        RuntimeUnavailableError: no runtime has this name.
    """
    if name not in _MODULES:
        raise RuntimeUnavailableError(f"unknown runtime {name!r}", remedy="use one of " + ", ".join(NAMES))
    try:
        spec = importlib.util.find_spec(name)
    except ValueError as error:  # something else was put in sys.modules under its name
        reason, remedy = f"not a package: {error}", f"take what stands for {name} out of sys.modules"
        return RuntimeStatus(name, "broken", "", reason, remedy)
    if spec is None or spec.origin is None:  # without an origin: a mere folder of that name in the path
        reason, remedy = _pip_line(name)
        return RuntimeStatus(name, "absent", "", reason or "not installed", remedy)
    if not spec.submodule_search_locations:
        reason = f"the file {spec.origin} is found in its place"
        return RuntimeStatus(name, "broken", "", reason, f"rename {spec.origin}")
    version = _version_beside(Path(next(iter(spec.submodule_search_locations))))
    if name == "tflite_runtime" and _needs_old_numpy(version) and _numpy_major() >= 2:
        reason = f"tflite-runtime {version} was built for numpy 1, installed is numpy {_numpy_version()}"
        return RuntimeStatus(name, "broken", version, reason, "pip install 'numpy<2'")
    return RuntimeStatus(name, "usable", version)


def runtime_statuses() -> tuple[RuntimeStatus, ...]:
    """Return :func:`runtime_status` of every runtime, in the order of choice."""
    return tuple(runtime_status(name) for name in NAMES)


def _version_beside(package: Path) -> str:
    """Read the version from the name of the ``.dist-info`` folder: importing metadata costs 50 ms."""
    # Others begin with the same name: tensorflow_cpu is another build of it, tensorflow_estimator is not.
    exact = sorted(package.parent.glob(f"{package.name}-*.dist-info"))
    found = exact or sorted(package.parent.glob(f"{package.name}*.dist-info"))
    return found[-1].name[: -len(".dist-info")].rpartition("-")[2] if found else ""


def _needs_old_numpy(version: str) -> bool:
    # 2.14.0 is the last on the index; others build newer ones, against numpy 2.
    numbers = version.split(".")
    return (
        len(numbers) < 2
        or not all(n.isdigit() for n in numbers[:2])
        or [int(n) for n in numbers[:2]] <= [2, 14]
    )


def _numpy_version() -> str:
    import numpy

    return str(numpy.__version__)


def _numpy_major() -> int:
    return int(_numpy_version().partition(".")[0])


def _pip_line(name: str) -> tuple[str, str]:
    """Return (why there is no wheel or "", the command that installs it or what to do instead)."""
    system, machine, python = platform.system(), platform.machine(), sys.version_info[:2]
    place = f"Python {python[0]}.{python[1]} on {system} {machine}"
    if name == "ai_edge_litert":
        fits = (system, machine) in {
            ("Linux", "x86_64"),
            ("Linux", "aarch64"),
            ("Darwin", "arm64"),
            ("Windows", "AMD64"),
        }
        if fits and (3, 10) <= python <= (3, 14):
            return "", "pip install ai-edge-litert"
        return f"not installed, and no wheel is published for {place}", "use tflite_runtime or tensorflow"
    if name == "tflite_runtime":
        if system == "Linux" and machine in {"x86_64", "aarch64", "armv7l"} and python <= (3, 11):
            return "", "pip install 'tflite-hal[tflite-runtime]'"
        return f"not installed, and no wheel is published for {place}", "use ai_edge_litert"
    return "", "pip install tensorflow"

"""Delegates in shared libraries that TensorFlow Lite loads: everything but their names and devices."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from tflite_hal.delegate import Configuration, Delegate, Device, Probe, Problem
from tflite_hal.errors import DelegateError
from tflite_hal.host import HostInfo
from tflite_hal.model import Model
from tflite_hal.runtime import Runtime
from tflite_hal.session import InterpreterSession, Session
from tflite_hal.trust import Distrust, distrust_library

__all__ = ["ExternalDelegate"]


class ExternalDelegate(Delegate):
    """A delegate in a shared library that exports ``tflite_plugin_create_delegate``.

    Subclasses name the library and find their devices; opening is done here.

    Attributes:
        libraries: file names, the preferred one first; found in the folders of the system's loader.
        kind: what kind of device it drives.
        library_remedy: what to do where the library is missing.
    """

    libraries: ClassVar[tuple[str, ...]] = ()
    kind: ClassVar[str] = "npu"
    library_remedy: ClassVar[str] = ""

    def probe(self, host: HostInfo) -> Probe:
        """Find the devices (:meth:`find`) and the library; a device without library is a problem."""
        found = self.find(host)
        found = found._replace(problems=tuple(p._replace(kind=p.kind or self.kind) for p in found.problems))
        if not found.devices:
            return found
        library = host.find_library(*self.libraries)
        if library is None:
            refused = host.distrusted_library(*self.libraries)
            absent = Distrust(
                f"{' or '.join(self.libraries)} is not in the loader's folders", self.library_remedy
            )
            lacking = tuple(Problem("library", *(refused or absent), d.id, d.kind) for d in found.devices)
            return Probe((), (*found.problems, *lacking))
        properties = {"library": library}
        devices = tuple(d._replace(properties={**properties, **d.properties}) for d in found.devices)
        return Probe(devices, found.problems)

    def find(self, host: HostInfo) -> Probe:
        """Return the devices on the bus, without regard to the library; here: none.

        A subclass without a bus to look at returns one device where :meth:`HostInfo.find_library`
        finds the library.
        """
        return Probe()

    def library_options(self, device: Device, configuration: Configuration) -> Mapping[str, Any]:
        """Return the options as the library reads them (it gets them as strings)."""
        return configuration.options

    def fingerprint(self, device: Device) -> str:
        """Return the library's path, size and time of change."""
        library = str(device.properties.get("library", ""))
        try:
            found = Path(library).stat()
        except OSError as error:
            return f"{library}: {error.strerror}"
        return f"{Path(library).resolve()} {found.st_size} {found.st_mtime_ns}"

    def open(self, model: Model, device: Device, configuration: Configuration, runtime: Runtime) -> Session:
        """Load the library, give it the model, and refuse a session in which it took nothing.

        Raises:
            DelegateError: the library can't be loaded, refuses its options or the model.
        """
        library = str(device.properties.get("library", ""))
        if not Path(library).is_absolute():
            raise DelegateError(f"{self.name}: no absolute path of a library for device {device.id!r}")
        loaded = self._load(library, self.library_options(device, configuration), runtime)
        session = InterpreterSession(model, runtime, delegates=[loaded], threads=configuration.threads)
        if session.coverage is not None and session.coverage.taken == 0:
            session.close()
            raise DelegateError(
                f"{self.name} took none of the {session.coverage.total} operators of {model.name}"
            )
        return session

    def _load(self, library: str, options: Mapping[str, Any], runtime: Runtime) -> Any:
        """Load the library, where nobody else can have changed it: the one place that does."""
        refused = distrust_library(library)
        if refused is not None and Path(library).exists():  # of what is missing the loader says more
            raise DelegateError(f"{library} is not loaded: {refused.reason}", remedy=refused.remedy)
        library = os.path.realpath(library)
        given = {name: value for name, value in options.items() if value is not None}
        try:
            return runtime.load_delegate(library, given)
        except OSError as error:
            raise DelegateError(
                f"{library} can't be loaded: {error}", remedy=_loader_remedy(str(error))
            ) from error
        except AttributeError as error:
            raise DelegateError(f"{library} is not a TensorFlow Lite delegate: {error}") from error
        except (ValueError, RuntimeError) as error:
            text = " ".join(str(error).split())
            said = (
                text.partition(library)[2].strip()
                or "it gave no message (device absent, busy or not permitted)"
            )
            raise DelegateError(
                f"{self.name}: the library {library} refused: {said}", remedy=self.refusal_remedy(said)
            ) from error

    def refusal_remedy(self, message: str) -> str:
        """Return what to do where the library refused with this message."""
        return ""


def _loader_remedy(message: str) -> str:
    # The texts of glibc's loader.
    if "cannot open shared object file" in message:
        missing = message.partition(":")[0]
        return f"install the package that has {missing}, or add its folder to /etc/ld.so.conf.d"
    if "ELF" in message:
        return "install the build for this processor and word size"
    if "GLIBC" in message or "version" in message:
        return "install a build made for this system's C library"
    return ""

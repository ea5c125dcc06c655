"""Delegates in shared libraries that TensorFlow Lite loads: everything but their names and devices."""

from __future__ import annotations

import ctypes
import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

from tflite_hal.delegate import Configuration, Delegate, Device, Probe, Problem
from tflite_hal.errors import DelegateError
from tflite_hal.external.elf import why_unloadable
from tflite_hal.host import HostInfo
from tflite_hal.model import Model
from tflite_hal.runtime import Runtime
from tflite_hal.session import InterpreterSession, Session
from tflite_hal.trust import Distrust, distrust_library, file_identity

__all__ = ["ExternalDelegate"]

#: Bytes of what a library wrote to stderr that go into a reason.
_MOST_SAID: Final = 400


class ExternalDelegate(Delegate):
    """A delegate in a shared library that exports ``tflite_plugin_create_delegate``.

    Subclasses name the library and find their devices; opening is done here.

    Attributes:
        libraries: file names, the preferred one first; or absolute paths.
        search: absolute folders that are looked into before those of the system's loader.
        companions: libraries that it needs and that the loader would not find: loaded before it, in this
            order, with their symbols visible to it (``RTLD_GLOBAL``).
        kind: what kind of device it drives.
        library_remedy: what to do where the library is missing.
    """

    libraries: ClassVar[tuple[str, ...]] = ()
    search: ClassVar[tuple[str, ...]] = ()
    companions: ClassVar[tuple[str, ...]] = ()
    kind: ClassVar[str] = "npu"
    library_remedy: ClassVar[str] = ""

    def probe(self, host: HostInfo) -> Probe:
        """Find the devices (:meth:`find`) and the library; a device without library is a problem."""
        found = self.find(host)
        found = found._replace(problems=tuple(p._replace(kind=p.kind or self.kind) for p in found.problems))
        if not found.devices:
            return found
        library = self._located(host, self.libraries)
        companions = [self._located(host, (name,)) for name in self.companions]
        refused = next((one for one in (library, *companions) if isinstance(one, Distrust)), None)
        if refused is None and host.live:
            refused = why_unloadable(str(library))
        if refused is not None:
            reason, remedy = refused
            lacking = tuple(
                Problem("library", _about(d, reason), remedy, d.id, d.kind) for d in found.devices
            )
            return Probe((), (*found.problems, *lacking))
        properties = {"library": library, **({"companions": companions} if companions else {})}
        devices = tuple(d._replace(properties={**properties, **d.properties}) for d in found.devices)
        return Probe(devices, found.problems)

    def _located(self, host: HostInfo, names: Sequence[str]) -> str | Distrust:
        """Return the path of the first library there is, or why there is none."""
        found = host.find_library(*names, folders=self.search)
        if found is not None:
            return found
        folders = "".join(f"{folder}, " for folder in self.search)
        absent = f"{' or '.join(names)} is not in {folders}the loader's folders"
        if all(name.startswith("/") for name in names):
            absent = f"{' or '.join(names)} is no file"
        return host.distrusted_library(*names, folders=self.search) or Distrust(absent, self.library_remedy)

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
        """Return the libraries' paths, sizes and times of change."""
        own = device.properties.get("library", "")
        return "; ".join(file_identity(str(path)) for path in (own, *device.properties.get("companions", ())))

    def open(self, model: Model, device: Device, configuration: Configuration, runtime: Runtime) -> Session:
        """Load the library, give it the model, and refuse a session in which it took nothing.

        Raises:
            DelegateError: the library can't be loaded, refuses its options or the model.
        """
        library = str(device.properties.get("library", ""))
        if not Path(library).is_absolute():
            raise DelegateError(f"{self.name}: no absolute path of a library for device {device.id!r}")
        for companion in device.properties.get("companions", ()):
            self._preload(str(companion))
        loaded = self._load(library, self.library_options(device, configuration), runtime)
        try:
            session = InterpreterSession(model, runtime, delegates=[loaded], threads=configuration.threads)
        except DelegateError as error:
            told = DelegateError(error.reason, remedy=error.remedy or self.refusal_remedy(error.reason))
            told.stage = error.stage
            raise told from error
        try:
            if session.coverage is not None:
                session.coverage.require_some(self.name, model.name)
        except DelegateError:
            session.close()
            raise
        return session

    @staticmethod
    def trusted_path(library: str) -> str:
        """Return where a library really is, if nobody else can have changed it: every load passes here.

        Raises:
            DelegateError: others can change it, or put another in its place.
        """
        refused = distrust_library(library)
        if refused is not None and Path(library).exists():  # of what is missing the loader says more
            raise DelegateError(f"{library} is not loaded: {refused.reason}", remedy=refused.remedy)
        return os.path.realpath(library)

    def _preload(self, companion: str) -> None:
        """Load a library that the delegate needs, so that the loader finds it by its name."""
        try:
            ctypes.CDLL(self.trusted_path(companion), mode=ctypes.RTLD_GLOBAL)
        except OSError as error:
            reason = f"{companion}, which {self.name} needs, can't be loaded: {error}"
            raise DelegateError(reason, remedy=_loader_remedy(str(error))) from error

    def _load(self, library: str, options: Mapping[str, Any], runtime: Runtime) -> Any:
        library = self.trusted_path(library)
        unfit = why_unloadable(library)
        if unfit is not None:
            raise DelegateError(unfit.reason, remedy=unfit.remedy)
        given = {name: value for name, value in options.items() if value is not None}
        before = _stderr_size()
        try:
            return runtime.load_delegate(library, given)
        except OSError as error:
            raise DelegateError(
                f"{library} can't be loaded: {error}", remedy=_loader_remedy(str(error))
            ) from error
        except AttributeError as error:
            reason = f"{library} is not a TensorFlow Lite delegate: {error}"
            remedy = "give the library that its vendor calls a TensorFlow Lite delegate"
            raise DelegateError(reason, remedy=remedy) from error
        except (ValueError, RuntimeError) as error:
            text = " ".join(str(error).split())
            said = (
                text.partition(library)[2].strip()
                or _stderr_since(before)
                or "it gave no message (device absent, busy or not permitted)"
            )
            raise DelegateError(
                f"{self.name}: the library {library} refused: {said}", remedy=self.refusal_remedy(said)
            ) from error

    def refusal_remedy(self, message: str) -> str:
        """Return what to do where the library refused its options, or the model, with this message."""
        return ""


def _about(device: Device, reason: str) -> str:
    """Return the reason with the device it is about, unless that is a library which it names."""
    if not device.name or reason.partition(" ")[0] in device.name:
        return reason
    return f"{device.name}{f' ({device.state})' if device.state else ''}: {reason}"


def _stderr_size() -> int | None:
    """Return the size of the file that stderr is in a worker; None where it is none."""
    try:
        found = os.fstat(2)
    except OSError:
        return None
    return found.st_size if stat.S_ISREG(found.st_mode) else None


def _stderr_since(before: int | None) -> str:
    """Return the end of what was written since then, in one line: some libraries tell nothing else."""
    size = _stderr_size()
    if before is None or size is None or size <= before or not hasattr(os, "pread"):
        return ""
    try:
        text = os.pread(2, _MOST_SAID, max(before, size - _MOST_SAID)).decode(errors="replace")
    except OSError:  # the application's own, opened for writing only
        return ""
    return " | ".join(line.strip() for line in text.split("\n") if line.strip())


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

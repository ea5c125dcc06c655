"""What a vendor sees: a delegate finds its devices, says which models it takes, and opens sessions.

A plugin contributes subclasses of :class:`Delegate`. For a ``.so`` file that TensorFlow Lite loads as
an external delegate, :class:`tflite_hal.external.ExternalDelegate` is ready made.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final, NamedTuple

from tflite_hal.errors import DelegateError
from tflite_hal.host import HostInfo
from tflite_hal.model import Model
from tflite_hal.profiles import DeviceProfile
from tflite_hal.runtime import Runtime
from tflite_hal.session import Session

__all__ = [
    "API_VERSIONS",
    "KINDS",
    "SCALARS",
    "STAGES",
    "Configuration",
    "Delegate",
    "Device",
    "Option",
    "Probe",
    "Problem",
    "check_options",
    "may_live_in_process",
]

#: The first and the last version of the plugin contract this release understands.
API_VERSIONS: Final = (1, 1)

#: What must hold before a device computes, in this order: where a :class:`Problem` may be. One at a stage
#: says that those before it hold, or mean nothing for its device.
STAGES: Final[Mapping[str, str]] = {
    "probe": "the delegate can be asked",
    "bus": "the device is on its bus, or in the device tree and enabled there",
    "driver": "a kernel driver is bound to it",
    "node": "its device node is there",
    "permission": "this process may open the node",
    "library": "the delegate's library and all that it needs are there, and may be loaded",
    "runtime": "a runtime, or a package of the engine, is installed and fits",
    "open": "the library opens the device",
    "run": "a model runs on it and answers rightly",
}

#: Kinds of devices, accelerators in the order in which they are tried where nothing else decides.
KINDS: Final = ("tpu", "npu", "dsp", "gpu", "cpu")

#: Types of options, by their names.
SCALARS: Final[dict[str, tuple[type, ...]]] = {
    "str": (str,),
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
}


class Device(NamedTuple):
    """One thing to compute on."""

    id: str  #: unique within the delegate and stable: ``cpu``, ``usb:0``, ``gpu:0``
    kind: str  #: one of :data:`KINDS`
    name: str = ""  #: for people
    #: JSON-ready facts. Known to the core: ``library``, the file to be loaded; ``environment``, variables
    #: to be set before it is, beside the delegate's; ``software``, true for an accelerator that is
    #: emulated on the CPU, which is used only where it is asked for by name; ``path``, where it is plugged
    #: in, of devices that come and go: they may be counted otherwise then.
    properties: Mapping[str, Any] = {}
    state: str = ""  #: what passes, for people: "firmware not loaded yet"; no part of what it is

    @property
    def place(self) -> str:
        """What tells it from the delegate's others, however they are counted."""
        return str(self.properties.get("path") or self.id)

    def to_dict(self) -> dict[str, Any]:
        """Return it JSON-ready."""
        return {**self._asdict(), "properties": dict(self.properties)}


class Problem(NamedTuple):
    """Why a device that is, or should be, there can't be used."""

    stage: str  #: one of :data:`STAGES`
    evidence: str  #: what was seen
    remedy: str = ""  #: what to do about it, in words
    device: str = ""  #: id of the device, "" where there is none yet
    kind: str = ""  #: of the device, one of :data:`KINDS`; "" where that is not known
    command: str = (
        ""  #: the shell command that does it, in one line, where it is one; nobody runs it but users
    )

    def to_dict(self) -> dict[str, Any]:
        """Return it JSON-ready."""
        return dict(self._asdict())


class Probe(NamedTuple):
    """What a delegate found on a host."""

    devices: tuple[Device, ...] = ()
    problems: tuple[Problem, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return it JSON-ready."""
        return {
            "devices": [d.to_dict() for d in self.devices],
            "problems": [p.to_dict() for p in self.problems],
        }

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> Probe:
        """Rebuild what :meth:`to_dict` gave."""
        return cls(
            tuple(Device(**device) for device in given["devices"]),
            tuple(Problem(**problem) for problem in given["problems"]),
        )


class Configuration(NamedTuple):
    """One set of options worth trying on a device."""

    options: Mapping[str, Any] = {}  #: by option name, JSON-ready
    threads: int | None = None  #: CPU threads; None where that has no meaning
    precision: str = ""  #: ``fp32``, ``fp16``, ``int8``; "" is the engine's own choice
    remedy: bool = False  #: worth trying only where the ones before gave wrong results

    def to_dict(self) -> dict[str, Any]:
        """Return it JSON-ready."""
        return {**self._asdict(), "options": dict(self.options)}

    def __str__(self) -> str:
        parts = [f"{name}={value}" for name, value in self.options.items()]
        parts += [f"threads={self.threads}"] if self.threads else []
        return " ".join([*parts, self.precision] if self.precision else parts)


class Option(NamedTuple):
    """One option a delegate takes; checked before anything is loaded."""

    name: str
    type: str  #: ``str``, ``int``, ``float`` or ``bool``
    default: Any = None  #: None: the library's own default
    help: str = ""
    choices: tuple[Any, ...] = ()  #: () is any value of the type


class Delegate:
    """Contributed by a plugin: finds its devices, says which models it takes, opens sessions.

    Subclasses need a constructor without arguments. Hooks do no work: the core calls the methods one
    at a time, guarded, and for third-party plugins in a child process.

    Attributes:
        name: what users type, lower case, unique.
        api_version: the contract it was written for, a literal integer (:data:`API_VERSIONS`).
        description: one line.
        install_hint: how to get what it needs.
        crash_hint: what to do where its library crashes, "" where nothing is known.
        options: what ``options=`` may hold.
        environment: variables that must be set before its library loads.
        runtimes: names of the runtimes it works with, or None for an engine of its own.
        variants: suffixes of files made for it, the preferred one first: with ``("_npu",)`` it opens
            ``m_npu.tflite`` where it is beside ``m.tflite``.
        in_process: whether sessions may live in the application: True only for what ships with a runtime,
            the kinds of devices on which the engine is proven as safe (``("cpu",)``; configurations with
            more than one thread stay in a worker), else False.
        reference: from what a worker rebuilds it; "" is the class by its module and name. For delegates
            that are made of data: "module:function JSON".
    """

    name: ClassVar[str] = ""
    api_version: ClassVar[int] = 0
    description: ClassVar[str] = ""
    install_hint: ClassVar[str] = ""
    crash_hint: ClassVar[str] = ""
    options: ClassVar[tuple[Option, ...]] = ()
    environment: ClassVar[Mapping[str, str]] = {}
    runtimes: ClassVar[tuple[str, ...] | None] = ("ai_edge_litert", "tflite_runtime", "tensorflow")
    variants: ClassVar[tuple[str, ...]] = ()
    in_process: ClassVar[bool | tuple[str, ...]] = False
    reference: ClassVar[str] = ""

    def probe(self, host: HostInfo) -> Probe:
        """Return the devices on this host, and what stands in the way of those that can't be used.

        From facts and the presence of files only, below the probed root; loads nothing.
        """
        return Probe()

    def inspect(self, host: HostInfo) -> Probe:
        """Ask the library itself; called in a worker only, never for a captured tree."""
        return self.probe(host)

    def supports(self, model: Model, device: Device) -> str | None:
        """Return None, or why this device can't run the model; decided without opening it."""
        return None

    def configurations(
        self, model: Model, device: Device, profile: DeviceProfile | None
    ) -> Sequence[Configuration]:
        """Return the configurations worth trying, best first; at least one."""
        return (Configuration(),)

    def limits(self, device: Device) -> Mapping[str, float]:
        """Return seconds allowed per stage (``open``, ``run``) where the defaults (10, 30) are too short."""
        return {}

    def fingerprint(self, device: Device) -> str:
        """Return what identifies library, driver and firmware, from files."""
        return ""

    def open(self, model: Model, device: Device, configuration: Configuration, runtime: Runtime) -> Session:
        """Open a model.

        Raises:
            DelegateError: with the reason and, where there is one, the remedy.
        """
        raise DelegateError(f"delegate {self.name!r} does not implement open()")


def may_live_in_process(delegate: Delegate, device: Device, threads: int | None = None) -> bool:
    """Whether sessions on a device may live in the application, once they were proven.

    Of an engine that is proven on some kinds of devices those with one thread: threads of its own are
    missing in a process that the application forks, which may hang or abort at its end.
    """
    allowed = delegate.in_process
    return allowed if isinstance(allowed, bool) else device.kind in allowed and (threads or 1) == 1


def check_options(delegate: Delegate, given: Mapping[str, Any]) -> None:
    """Refuse options the delegate does not declare, or of another type.

    Raises:
        DelegateError: names the option, what was expected, and the closest name.
    """
    declared = {option.name: option for option in delegate.options}
    for name, value in given.items():
        option = declared.get(name)
        if option is None:
            close = difflib.get_close_matches(str(name), declared, 1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            known = ", ".join(sorted(declared)) or "none"
            raise DelegateError(f"{delegate.name} has no option {name!r}", remedy=f"{hint}it takes: {known}")
        right = isinstance(value, SCALARS[option.type]) and (
            option.type == "bool" or not isinstance(value, bool)
        )
        if not right or (option.choices and value not in option.choices):
            expected = " | ".join(map(repr, option.choices)) if option.choices else option.type
            raise DelegateError(f"{delegate.name}: option {name}={value!r} is not {expected}")
        if isinstance(value, float) and not math.isfinite(value):
            raise DelegateError(f"{delegate.name}: option {name}={value!r} is not a finite number")
        if isinstance(value, str) and "\0" in value:  # the library would see its beginning only
            raise DelegateError(f"{delegate.name}: option {name}={value!r} has a zero byte")

"""Delegates that no plugin contributes: described by a device profile, or named by the caller."""

from __future__ import annotations

import fnmatch
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

from tflite_hal.delegate import Configuration, Device, Option, Probe, Problem
from tflite_hal.errors import DelegateError
from tflite_hal.external.library import ExternalDelegate
from tflite_hal.host import HostInfo
from tflite_hal.model import Model
from tflite_hal.profiles import DeviceProfile
from tflite_hal.runtime import Runtime
from tflite_hal.session import Session

__all__ = ["NAMED", "DescribedDelegate", "described_delegate", "described_delegates", "named_library"]

#: The name of the delegate that is a library named by the caller.
NAMED: Final = "library"

#: Where the kernel tells which driver a node belongs to.
_CLASSES: Final = {"/dev/accel": "accel", "/dev/dri": "drm", "/dev": "misc"}


class DescribedDelegate(ExternalDelegate):
    """A delegate made of data; see ``external`` in ``device_profiles/README.md``.

    Attributes:
        data: what a device profile says of it, and its name.
    """

    api_version = 1
    data: ClassVar[Mapping[str, Any]] = {}

    def find(self, host: HostInfo) -> Probe:
        """Return, per id, the first device that can be used, else what stands in the way of the first
        that is there."""
        devices: dict[str, Device] = {}
        problems: dict[str, Problem] = {}
        for entry in self.data["devices"]:
            seen = self._seen(entry, host)
            if isinstance(seen, Device):
                devices.setdefault(seen.id, seen)
            elif seen is not None:
                problems.setdefault(seen.device, seen)
        standing = (problem for id_, problem in problems.items() if id_ not in devices)
        return Probe(tuple(devices.values()), tuple(standing))

    def _seen(self, entry: Mapping[str, Any], host: HostInfo) -> Device | Problem | None:
        """Return the device of an entry, what stands in its way, or None where it is not there."""
        id_, kind = entry["id"], entry.get("kind", self.kind)
        if "arch" in entry and host.arch not in entry["arch"]:
            return None
        compatible = [word for word in host.board.compatible if word in entry.get("compatible", ())]
        if "compatible" in entry and not compatible:
            return None
        properties = {"options": dict(entry["options"])} if "options" in entry else {}
        device = Device(id_, kind, entry.get("name", self.description), properties)
        if "nodes" not in entry:
            return device if compatible or self._has_library(host) else None
        nodes = [node for node in host.nodes if self._is_node(node, entry, host)]
        if not nodes:
            wanted = " or ".join(entry["nodes"])
            driver = f" of driver {' or '.join(entry['driver'])}" if "driver" in entry else ""
            evidence = f"{', '.join(compatible)} is here, but no {wanted}{driver}"
            remedy = host.pass_in(entry["nodes"][0]) or entry.get("remedy", "")
            return Problem("node", evidence, remedy, id_, kind) if compatible else None
        if all(host.access(node) is False for node in nodes):
            remedy = "add your user to the group that owns it (ls -l shows it) and log in again"
            return Problem("permission", f"{nodes[0]} may not be opened", remedy, id_, kind)
        return device

    def _has_library(self, host: HostInfo) -> bool:
        names = self.libraries
        found = host.find_library(*names, folders=self.search)
        told = self.name == NAMED or names[0].startswith("/")  # that it is not there
        return told or bool(found or host.distrusted_library(*names, folders=self.search))

    def _is_node(self, node: str, entry: Mapping[str, Any], host: HostInfo) -> bool:
        if not any(fnmatch.fnmatchcase(node, pattern) for pattern in entry["nodes"]):
            return False
        folder, _, name = node.rpartition("/")
        place = f"/sys/class/{_CLASSES.get(folder, 'misc')}/{name}/device/driver"
        return "driver" not in entry or host.link_name(place) in entry["driver"]

    def supports(self, model: Model, device: Device) -> str | None:
        """Return None, or what the model lacks."""
        needs: Mapping[str, Any] = self.data.get("model", {})
        remedy = f"; {needs['remedy']}" if "remedy" in needs else ""
        custom, precision = needs.get("custom", ()), needs.get("precision", ())
        if custom and not set(custom) & set(model.info.custom):
            return f"has no operator {' or '.join(custom)}{remedy}"
        if precision and model.info.precision not in precision:
            return f"is {model.info.precision}; {self.name} takes {', '.join(precision)}{remedy}"
        return None

    def configurations(
        self, model: Model, device: Device, profile: DeviceProfile | None
    ) -> Sequence[Configuration]:
        """Return the one configuration: what the description gives the library, and the device's own, but
        for what a device profile sets."""
        theirs = () if profile is None else profile.options.get(self.name, ())
        own = self._given(device, Configuration())
        return (Configuration({name: value for name, value in own.items() if name not in theirs}),)

    def _given(self, device: Device, configuration: Configuration) -> dict[str, Any]:
        """Return the description's values, what the device's own entry says of them, and what was set."""
        own = {option.name: option.default for option in self.options if option.default is not None}
        return {**own, **device.properties.get("options", {}), **configuration.options}

    def library_options(self, device: Device, configuration: Configuration) -> Mapping[str, Any]:
        """Return the options in the order of the description: some libraries read them one by one."""
        given = self._given(device, configuration)
        ordered = {option.name: given[option.name] for option in self.options if option.name in given}
        return {name: _text(value) for name, value in ordered.items() if value is not None}

    def limits(self, device: Device) -> Mapping[str, float]:
        """Return the description's limits."""
        return dict(self.data.get("limits", {}))

    def open(self, model: Model, device: Device, configuration: Configuration, runtime: Runtime) -> Session:
        """See :meth:`ExternalDelegate.open`.

        Raises:
            DelegateError: an option that must be given is not.
        """
        given = self._given(device, configuration)
        for name, option in self.data.get("options", {}).items():
            if option.get("required") and given.get(name) is None:
                remedy = f"options={{{name!r}: ...}}, or options of {self.name} in a device profile"
                raise DelegateError(f"{self.name} needs its option {name}", remedy=remedy)
        return super().open(model, device, configuration, runtime)


def _text(value: Any) -> str:
    """Return a value as these libraries read it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def described_delegate(data: Mapping[str, Any]) -> DescribedDelegate:
    """Return the delegate of a description: an entry of a profile's ``external``, with its ``name``."""
    options = tuple(
        Option(name, o["type"], o.get("value"), o.get("help", ""), tuple(o.get("choices", ())))
        for name, o in data.get("options", {}).items()
    )
    attributes: dict[str, Any] = {
        "name": data["name"],
        "description": data["title"],
        "install_hint": data.get("remedy", ""),
        "library_remedy": data.get("remedy", ""),
        "options": options,
        "environment": dict(data.get("environment", {})),
        "libraries": tuple(data["libraries"]),
        "search": tuple(data.get("search", ())),
        "companions": tuple(data.get("companions", ())),
        "kind": data.get("kind", "npu"),
        "data": data,
        "reference": f"{__name__}:{described_delegate.__name__} {json.dumps(data)}",
    }
    if "runtimes" in data:
        attributes["runtimes"] = tuple(data["runtimes"])
    made: type[DescribedDelegate] = type(f"Described_{data['name']}", (DescribedDelegate,), attributes)
    return made()


def described_delegates(profiles: Iterable[DeviceProfile], taken: Iterable[str]) -> list[DescribedDelegate]:
    """Return the delegates that profiles describe: of two with one name the first, and none with a name
    that is taken by a plugin's."""
    names, found = set(taken), []
    for profile in profiles:
        for name, entry in profile.external.items():
            if name not in names:
                names.add(name)
                found.append(described_delegate({"name": name, **entry}))
    return found


def named_library(path: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the description of a library that the caller names, with its options as they are given; a
    name without a folder is looked for where the loader looks.

    Raises:
        DelegateError: a value is no text, finite number or truth value.
    """
    declared: dict[str, Any] = {}
    for name, value in options.items():
        kind = next((k for k, t in _KINDS_OF_VALUES.items() if type(value) is t), None)
        if not isinstance(name, str) or not name or kind is None:
            raise DelegateError(f"option {name!r}={value!r} is no name with text, a number or a truth value")
        if isinstance(value, float) and not math.isfinite(value):
            raise DelegateError(f"option {name}={value!r} is not a finite number")
        declared[name] = {"type": kind, "value": value}
    bare = path != "" and Path(path).name == path
    file = path if bare else str(Path(path).absolute())
    return {
        "name": NAMED,
        "title": f"the library {file}",
        "libraries": [file],
        "remedy": "give the path of the delegate's library",
        "devices": [{"id": "npu:0"}],
        **({"options": declared} if declared else {}),
    }


_KINDS_OF_VALUES: Final = {"bool": bool, "int": int, "float": float, "str": str}

"""Accelerators that are there and that no delegate here reaches: what they are, and what does reach them.

Known from three places: device profiles (``accelerators``), the device tree with the nodes and PCI ids
below, and PCI's own class of processing accelerators, for what nobody here has heard of.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from tflite_hal.delegate import Probe
from tflite_hal.host import HostInfo, PlatformDevice
from tflite_hal.profiles import Accelerator, DeviceProfile, accelerators

__all__ = ["Unreached", "unreached"]


class Unreached(NamedTuple):
    """One accelerator that no delegate here has as a device."""

    kind: str  #: one of :data:`tflite_hal.delegate.KINDS`
    name: str
    evidence: str  #: what was seen, or from what it is concluded
    reason: str  #: why no delegate reaches it
    instead: str = ""  #: what does reach it, "" where nothing is known
    remedy: str = ""  #: what to do to use it here, "" where that is not possible
    source: tuple[str, ...] = ()  #: of what is not seen

    def to_dict(self) -> dict[str, Any]:
        """Return it JSON-ready."""
        return {**self._asdict(), "source": list(self.source)}


class _Known(NamedTuple):
    """What no TensorFlow Lite delegate reaches, by its nodes or by the vendor of its PCI ids."""

    name: str
    instead: str
    source: str
    nodes: tuple[str, ...] = ()  #: beginnings
    vendor: str = ""


_KNOWN: Final = (
    _Known(
        "Hailo",
        "HailoRT, with .hef models",
        "pci.ids 2026.10.24; blakeblackshear/frigate: frigate/detectors/plugins/hailo8l.py",
        ("/dev/hailo",),
        "1e60",
    ),
    _Known(
        "Rockchip NPU with the vendor's kernel",
        "RKNN toolkit lite, with .rknn models",
        "blakeblackshear/frigate: docs/docs/configuration/object_detectors.md",
        ("/dev/rknpu",),
    ),
)
_NO_DELEGATE: Final = "no TensorFlow Lite delegate reaches it"
_PROCESSING: Final = "12"  # PCI base class of processing accelerators
#: Of a device-tree node's name, and of what it is compatible with: what computes neural networks. GPUs,
#: signal processors and video units have the same kinds of nodes, and are no promise.
_NPU_WORDS: Final = ("npu", "rknn", "nna", "neutron", "ethos", "galcore", "tpu")


def unreached(
    host: HostInfo,
    profiles: Iterable[DeviceProfile],
    probes: Mapping[str, Probe],
    disabled: Collection[str] = (),
) -> list[Unreached]:
    """Return the accelerators that are there without being a device, or a problem, of any delegate.

    Args:
        host: the machine.
        profiles: every device profile.
        probes: what each delegate found.
        disabled: names of plugins that the user does not want.
    """
    found = _of_profiles(host, list(profiles), probes, disabled)
    found += [one for one in _of_host(host) if not _is_told(one, found)]
    claimed = _claimed(probes)
    claimed |= {word for one in accelerators(host, profiles) for word in one.match.pci}
    for device in host.pci:
        code, vendor = device.class_code or "", device.id.partition(":")[0]
        if not code.startswith(_PROCESSING) or claimed & {device.id, device.slot, device.path}:
            continue
        if any(known.vendor == vendor for known in _KNOWN):
            continue
        where = f"PCI {device.id} at {device.slot}, {_driver(device.driver)}"
        reason = "no plugin and no device profile knows it"
        remedy = "ask its maker for a TensorFlow Lite delegate: any external one can be used"
        found.append(Unreached("npu", device.class_name or "accelerator", where, reason, "", remedy))
    return found + [one for one in _of_device_tree(host, probes) if not _is_told(one, found)]


def _driver(name: str | None) -> str:
    return f"driver {name}" if name else "no driver is bound"


def _claimed(probes: Mapping[str, Probe]) -> set[str]:
    """Return the words by which delegates tell what they found: ids, slots and paths."""
    words: set[str] = set()
    for probe in probes.values():
        for device in probe.devices:
            words.update(str(value) for value in device.properties.values())
            words.update(word.strip(",;:()") for word in device.name.split())
        for problem in probe.problems:
            words.update(word.strip(",;:()") for word in problem.evidence.split())
    return words


def _of_profiles(
    host: HostInfo,
    profiles: list[DeviceProfile],
    probes: Mapping[str, Probe],
    disabled: Collection[str],
) -> list[Unreached]:
    found = []
    for one in accelerators(host, profiles):
        seeing = [name for name in one.delegates if _sees(probes.get(name), one.kind)]
        # Where a delegate tells what stands in its way, only another way round is news.
        if seeing and (not one.instead or any(_has(probes[name], one.kind) for name in seeing)):
            continue
        reason, remedy = _why(one, probes, disabled)
        evidence = _seen(one, host)
        found.append(Unreached(one.kind, one.name, evidence, reason, one.instead, remedy, one.source))
    return found


def _sees(probe: Probe | None, kind: str) -> bool:
    if probe is None:
        return False
    return _has(probe, kind) or any(problem.kind in (kind, "") for problem in probe.problems)


def _has(probe: Probe, kind: str) -> bool:
    return any(device.kind == kind for device in probe.devices)


def _seen(one: Accelerator, host: HostInfo) -> str:
    """Return by what it is there: the id on a bus, or the name of the machine."""
    for bus, devices, wanted in (("USB", host.usb, one.match.usb), ("PCI", host.pci, one.match.pci)):
        for device in devices:
            if device.id in wanted:
                return f"{bus} {device.id} at {device.slot}, {_driver(device.driver)}"
    return f"{host.board.model or host.dmi.product or 'this machine'} has it"


def _why(one: Accelerator, probes: Mapping[str, Probe], disabled: Collection[str]) -> tuple[str, str]:
    """Return why nothing reaches it, and what to do."""
    if not one.delegates:
        return _NO_DELEGATE, ""
    here = [name for name in one.delegates if name in probes]
    off = [name for name in one.delegates if name in disabled]
    if off:
        reason = f"the plugin {off[0]}, which reaches it, is disabled"
        return reason, f"take {off[0]} out of TFLITE_HAL_DISABLED_PLUGINS"
    if not here:
        names = " or ".join(one.delegates)
        return f"it takes the delegate {names}, and no plugin here has that", "install the plugin that has it"
    blocked = [name for name in here if _sees(probes[name], one.kind)]
    if blocked:
        return f"{blocked[0]} could, but for the problem above", ""
    condition = f"; it takes: {one.text}" if one.text else ""
    return f"{' or '.join(here)} finds nothing of it here{condition}", ""


def _of_host(host: HostInfo) -> Iterator[Unreached]:
    """Yield what is known by its node or vendor."""
    for known in _KNOWN:
        nodes = [node for node in host.nodes if known.nodes and node.startswith(known.nodes)]
        cards = [card for card in host.pci if card.id.partition(":")[0] == known.vendor]
        seen = [f"PCI {card.id} at {card.slot}, {_driver(card.driver)}" for card in cards] + nodes
        if seen:
            evidence = "; ".join(seen)
            yield Unreached("npu", known.name, evidence, _NO_DELEGATE, known.instead, "", (known.source,))


def _of_device_tree(host: HostInfo, probes: Mapping[str, Probe]) -> Iterator[Unreached]:
    """Yield the NPUs of the device tree, where no delegate has one: one for all nodes of a kind."""
    if any(_sees(probe, "npu") for probe in probes.values()):
        return
    kinds: dict[tuple[str, str], list[PlatformDevice]] = {}
    for node in host.platform:
        if any(word in f"{node.name} {node.compatible[0]}" for word in _NPU_WORDS):
            kinds.setdefault((node.compatible[0], node.status), []).append(node)
    for (compatible, status), nodes in kinds.items():
        names = ", ".join(node.name for node in nodes)
        evidence = f"device tree: {names} ({compatible}), status {status}, {_driver(nodes[0].driver)}"
        reason = "no delegate here has a device like that"
        remedy = ""
        if status == "disabled":
            reason = "the device tree leaves it off"
            remedy = "enable it: a device tree or an overlay of the board with status okay, and a reboot"
        yield Unreached("npu", compatible, evidence, reason, "", remedy)


def _is_told(one: Unreached, found: Iterable[Unreached]) -> bool:
    """Whether the same is there already, from a profile: which knows more of it."""
    if one.evidence.startswith(("device tree", "/dev/")):
        return any(other.kind == one.kind for other in found)
    return any(one.evidence == other.evidence for other in found)

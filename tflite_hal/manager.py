"""Finds plugins by entry point and keeps broken ones from hurting the rest, with the reason.

Built-ins are trusted and imported here. Third-party plugins are imported and asked in a worker with a
time limit: one that raises, hangs or dies costs itself only.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import threading
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any, Final, NamedTuple

import pluggy

from tflite_hal.delegate import Delegate, Probe, Problem, check_delegate
from tflite_hal.errors import PluginError, TfliteHalError
from tflite_hal.hookspecs import GROUP, HOOKS
from tflite_hal.host import HostInfo
from tflite_hal.remote import remote_delegate
from tflite_hal.worker import Worker, start_worker

__all__ = ["Manager", "Plugin", "collect", "describe"]

#: Seconds a third-party plugin may take to be imported and to register.
IMPORT_LIMIT: Final = 10.0

#: The problem of a plugin the user does not want.
DISABLED: Final = "disabled by TFLITE_HAL_DISABLED_PLUGINS"

_DISTRIBUTION: Final = "tflite-hal"


class Plugin(NamedTuple):
    """One plugin, loaded or not."""

    name: str  #: of its entry point
    module: str
    distribution: str
    version: str
    builtin: bool
    delegates: tuple[str, ...]  #: names of the delegates it contributed
    problem: str = ""  #: why it, or some of what it contributes, is not used; "" where all is well

    @property
    def broken(self) -> bool:
        """Whether something is wrong with it, other than that the user disabled it."""
        return bool(self.problem) and self.problem != DISABLED

    def to_dict(self) -> dict[str, Any]:
        """Return it JSON-ready."""
        return {**self._asdict(), "delegates": list(self.delegates)}


class Manager:
    """The delegates of all plugins, and the plugins' own story."""

    def __init__(self) -> None:
        """Find and load every plugin; never raises for what a plugin does."""
        self.plugins: list[Plugin] = []
        self.delegates: list[Delegate] = []
        self.profile_folders: list[str] = []
        self._failed: dict[str, Probe] = {}
        disabled = {n for n in os.environ.get("TFLITE_HAL_DISABLED_PLUGINS", "").split(",") if n}
        found = _entry_points()
        builtins = [point for point in found if _is_builtin(point)]
        for point in builtins:
            self._load_builtin(point, disabled)
        self._load_third_parties([point for point in found if point not in builtins], disabled)

    def _load_builtin(self, point: importlib.metadata.EntryPoint, disabled: set[str]) -> None:
        if point.name in disabled:
            self._record(point, (), DISABLED)
            return
        # A built-in that can't be imported is our bug, but must not cost the other delegates.
        try:
            classes, folders = collect(importlib.import_module(point.value), point.name)
        except (ImportError, TfliteHalError) as error:
            self._record(point, (), f"{type(error).__name__}: {error}")
            return
        self._take(point, [cls() for cls in classes], folders)

    def _load_third_parties(
        self, points: Sequence[importlib.metadata.EntryPoint], disabled: set[str]
    ) -> None:
        """Load them all at once: each hangs for its own time limit only."""
        results: dict[int, tuple[list[Delegate], list[str]] | str] = {}

        def load(index: int, point: importlib.metadata.EntryPoint) -> None:
            results[index] = self._load_in_worker(point)

        wanted = [(i, point) for i, point in enumerate(points) if point.name not in disabled]
        threads = [threading.Thread(target=load, args=one, daemon=True) for one in wanted]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for index, point in enumerate(points):
            result = results.get(index, DISABLED)
            if isinstance(result, str):
                self._record(point, (), result)
            else:
                self._take(point, *result)

    def _load_in_worker(self, point: importlib.metadata.EntryPoint) -> tuple[list[Delegate], list[str]] | str:
        holder = _PluginWorker(point)
        try:
            reply = holder.get().request(
                "plugin",
                limit=IMPORT_LIMIT,
                stage=f"importing {point.value}",
                module=point.value,
                plugin=point.name,
            )
            delegates: list[Delegate] = [remote_delegate(one, holder.get) for one in reply.body["delegates"]]
        except TfliteHalError as error:
            return f"{type(error).__name__}: {error}"
        return delegates, [str(folder) for folder in reply.body["folders"]]

    def _take(
        self, point: importlib.metadata.EntryPoint, delegates: Sequence[Delegate], folders: list[str]
    ) -> None:
        """Add a plugin's delegates; a name that is taken stays with the one that had it first."""
        problems, taken = [], []
        for delegate in delegates:
            owner = next((p for p in self.plugins if delegate.name in p.delegates), None)
            if owner is not None:
                problems.append(f"delegate {delegate.name!r} is already provided by {owner.distribution}")
            else:
                self.delegates.append(delegate)
                taken.append(delegate.name)
        self.profile_folders += folders
        self._record(point, tuple(taken), "; ".join(problems))

    def _record(self, point: importlib.metadata.EntryPoint, delegates: tuple[str, ...], problem: str) -> None:
        name, version = (point.dist.name, point.dist.version) if point.dist else ("?", "?")
        self.plugins.append(
            Plugin(point.name, point.value, name, version, _is_builtin(point), delegates, problem)
        )

    def probe(self, host: HostInfo) -> dict[str, Probe]:
        """Ask every delegate what it finds on the host; one that fails becomes a problem of its own, and
        of its plugin, and is not asked again: a probe that hangs costs its time limit once."""
        probes = {d.name: self._failed.get(d.name) or _probe(d, host) for d in self.delegates}
        for index, plugin in enumerate(self.plugins):
            failed = [
                f"{name}: {problem.evidence}"
                for name in plugin.delegates
                for problem in probes[name].problems
                if problem.stage == "probe"
            ]
            if failed:
                self._failed.update({name: probes[name] for name in plugin.delegates})
                self.plugins[index] = plugin._replace(problem="; ".join(failed))
        return probes

    def find(self, name: str) -> Delegate | None:
        """Return the delegate of this name."""
        return next((delegate for delegate in self.delegates if delegate.name == name), None)


class _PluginWorker:
    """A third-party plugin's worker: started when first needed, again after it died."""

    def __init__(self, point: importlib.metadata.EntryPoint) -> None:
        self._label = f"plugin {point.name}"
        self._worker: Worker | None = None

    def get(self) -> Worker:
        """Return the worker, alive."""
        if self._worker is None or not self._worker.alive:
            self._worker = start_worker(self._label, runtime=None)
        return self._worker


def _probe(delegate: Delegate, host: HostInfo) -> Probe:
    # A probe runs a vendor's code over files of any content: whatever it raises is its own problem.
    try:
        return delegate.probe(host)
    except Exception as error:
        evidence = f"probe() failed: {type(error).__name__}: {error}"
        return Probe((), (Problem("probe", evidence, f"report it to the maker of delegate {delegate.name}"),))


def _entry_points() -> list[importlib.metadata.EntryPoint]:
    """Return the plugins' entry points, built-ins first, each once, in a fixed order."""
    unique = {(point.name, point.value): point for point in importlib.metadata.entry_points(group=GROUP)}
    return sorted(unique.values(), key=lambda point: (not _is_builtin(point), point.name, point.value))


def _is_builtin(point: importlib.metadata.EntryPoint) -> bool:
    return point.dist is not None and point.dist.name.replace("_", "-").lower() == _DISTRIBUTION


def collect(module: ModuleType, plugin: str) -> tuple[list[type[Delegate]], list[str]]:
    """Run an imported plugin's hooks, checked against the contract.

    Raises:
        PluginError: an unknown hook or argument, a hook that raised, or a class that breaks the
            contract; names the plugin and the defect.
    """
    manager = pluggy.PluginManager(GROUP)
    marker = pluggy.HookspecMarker(GROUP)
    for hook in HOOKS:
        marker(hook)
    manager.add_hookspecs(importlib.import_module("tflite_hal.hookspecs"))
    try:
        manager.register(module, plugin)
        manager.check_pending()
    except (pluggy.PluginValidationError, ValueError) as error:
        raise PluginError(f"plugin {plugin} breaks the contract: {error}") from error
    # A hook is a vendor's code: whatever it raises is told, with the plugin's name.
    try:
        delegates = [cls for given in manager.hook.tflite_hal_register_delegates() for cls in given]
        folders = [str(f) for given in manager.hook.tflite_hal_register_device_profiles() for f in given]
    except Exception as error:
        raise PluginError(f"plugin {plugin}: a hook raised {type(error).__name__}: {error}") from error
    for delegate in delegates:
        check_delegate(delegate, plugin)
    return delegates, folders


def describe(delegate: type[Delegate]) -> Mapping[str, Any]:
    """Return what the core must know of a delegate it does not import, JSON-ready."""
    return {
        "reference": f"{delegate.__module__}:{delegate.__qualname__}",
        "name": delegate.name,
        "api_version": delegate.api_version,
        "description": delegate.description,
        "install_hint": delegate.install_hint,
        "options": [option._asdict() for option in delegate.options],
        "environment": dict(delegate.environment),
        "runtimes": None if delegate.runtimes is None else list(delegate.runtimes),
        "in_process": delegate.in_process,
    }

"""Finds plugins by entry point and keeps broken ones from hurting the rest, with the reason.

Built-ins are trusted and imported here. Third-party plugins are imported and asked in a worker with a
time limit: one that raises, hangs or dies costs itself only.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.metadata
import os
import threading
from collections.abc import Sequence
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any, Final, NamedTuple

from tflite_hal.contract import check_probe, collect
from tflite_hal.delegate import Delegate, Probe, Problem
from tflite_hal.errors import (
    TfliteHalError,
    WorkerCrashedError,
    WorkerError,
    WorkerHungError,
)
from tflite_hal.hookspecs import GROUP
from tflite_hal.host import HostInfo
from tflite_hal.remote import remote_delegate
from tflite_hal.worker import Worker, start_worker

__all__ = ["DISABLED", "Manager", "Plugin"]

#: Seconds a third-party plugin may take to be imported and to register.
IMPORT_LIMIT: Final = 10.0

#: The problem of a plugin the user does not want.
DISABLED: Final = "disabled by TFLITE_HAL_DISABLED_PLUGINS"

#: The name of what is no plugin's: :class:`tflite_hal.kernels.BuiltinKernels`.
RESERVED: Final = "builtin"

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
    def source(self) -> str:
        """The time of change and the size of a third party's module, "" where it is no single file: the
        code of an editable installation changes under the same version."""
        try:
            spec = None if self.builtin else PathFinder.find_spec(self.module.partition(".")[0])
            found = Path(spec.origin).stat() if spec is not None and spec.origin else None
        except (ImportError, ValueError, OSError):
            return ""
        return "" if found is None else f"{found.st_mtime_ns} {found.st_size}"

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
        self.delegates: list[Delegate] = []
        self.profile_folders: list[str] = []
        self.remarks: list[str] = []  # names that are disabled and no plugin's
        self.lacked_workers = False  # whether a plugin is missing because no child could be started
        self._plugins: list[Plugin] = []
        self._probe_failures: dict[str, str] = {}  # by delegate
        self._hung: dict[str, Probe] = {}
        named = os.environ.get("TFLITE_HAL_DISABLED_PLUGINS", "").split(",")
        disabled = {name.strip() for name in named if name.strip()}
        points, damaged = _entry_points()
        self.remarks = _unknown(disabled, [point.name for point in points])
        self._plugins += damaged
        for point in points:
            if point.builtin:
                self._load_builtin(point, disabled)
        self._load_third_parties([point for point in points if not point.builtin], disabled)

    @property
    def plugins(self) -> list[Plugin]:
        """Every plugin, with what is wrong with it so far."""
        return [self._with_failures(plugin) for plugin in self._plugins]

    def _with_failures(self, plugin: Plugin) -> Plugin:
        failed = [f"{n}: {self._probe_failures[n]}" for n in plugin.delegates if n in self._probe_failures]
        return plugin._replace(problem="; ".join(filter(None, [plugin.problem, *failed])))

    def _load_builtin(self, point: _Point, disabled: set[str]) -> None:
        if point.name in disabled:
            self._record(point, (), DISABLED)
            return
        # A built-in that can't be imported is our bug, but must not cost the other delegates.
        try:
            classes, folders = collect(importlib.import_module(point.module), point.name)
        except (ImportError, TfliteHalError) as error:
            self._record(point, (), f"{type(error).__name__}: {error}")
            return
        self._take(point, [cls() for cls in classes], folders)

    def _load_third_parties(self, points: Sequence[_Point], disabled: set[str]) -> None:
        """Load them all at once: each hangs for its own time limit only."""
        results: dict[int, tuple[list[Delegate], list[str]] | str] = {}

        def load(index: int, point: _Point) -> None:
            results[index] = self._load_in_worker(point)

        wanted = [(i, point) for i, point in enumerate(points) if point.name not in disabled]
        threads = [threading.Thread(target=load, args=one, daemon=True) for one in wanted]
        for thread, one in zip(threads, wanted, strict=True):
            try:
                thread.start()
            except RuntimeError:  # no more threads here: one after the other, then
                load(*one)
        for thread in threads:
            if thread.ident is not None:
                thread.join()
        for index, point in enumerate(points):
            result = results.get(index, DISABLED)
            if isinstance(result, str):
                self._record(point, (), result)
            else:
                self._take(point, *result)

    def _load_in_worker(self, point: _Point) -> tuple[list[Delegate], list[str]] | str:
        holder = _PluginWorker(point)
        try:
            reply = holder.get().request(
                "plugin",
                limit=IMPORT_LIMIT,
                stage=f"importing {point.module}",
                module=point.module,
                plugin=point.name,
            )
            delegates: list[Delegate] = [remote_delegate(one, holder.get) for one in reply.body["delegates"]]
        except TfliteHalError as error:
            self.lacked_workers |= type(error) is WorkerError
            way = f" (TFLITE_HAL_DISABLED_PLUGINS={point.name} leaves it out)"
            return f"{type(error).__name__}: {error}{way if isinstance(error, WorkerHungError) else ''}"
        return delegates, [str(folder) for folder in reply.body["folders"]]

    def _take(self, point: _Point, delegates: Sequence[Delegate], folders: list[str]) -> None:
        """Add a plugin's delegates; a name that is taken stays with the one that had it first."""
        problems, taken = [], []
        for delegate in delegates:
            owner = next((p.distribution for p in self._plugins if delegate.name in p.delegates), None)
            if delegate.name in taken:
                owner = point.distribution
            if delegate.name == RESERVED:
                owner = f"{_DISTRIBUTION} for the runtime's own kernels"
            if owner is not None:
                problems.append(f"delegate {delegate.name!r} is already provided by {owner}")
            else:
                self.delegates.append(delegate)
                taken.append(delegate.name)
        self.profile_folders += folders
        self._record(point, tuple(taken), "; ".join(problems))

    def _record(self, point: _Point, delegates: tuple[str, ...], problem: str) -> None:
        self._plugins.append(Plugin(*point, delegates, problem))

    def probe(self, host: HostInfo, others: Sequence[Delegate] = ()) -> dict[str, Probe]:
        """Ask every delegate, and others that no plugin contributed, what it finds on the host; one that
        fails becomes a problem of its own, and of its plugin. One that hung is not asked again: it costs
        its time limit once."""
        return {delegate.name: self.probe_one(delegate, host) for delegate in (*self.delegates, *others)}

    def probe_one(self, delegate: Delegate, host: HostInfo) -> Probe:
        """Ask one delegate, as :meth:`probe` does."""
        name = delegate.name
        if name in self._hung:
            return self._hung[name]
        # A probe runs a vendor's code over files of any content: whatever it raises is its own problem.
        try:
            try:
                probe = check_probe(delegate.probe(host), name, "probe")
            except WorkerCrashedError:
                # Its worker may have died of something else since it was used.
                probe = check_probe(delegate.probe(host), name, "probe")
        except Exception as error:
            told = error.reason if isinstance(error, TfliteHalError) else f"{type(error).__name__}: {error}"
            evidence = f"probe() failed: {told}"
            remedy = (
                f"report it to its maker; TFLITE_HAL_DISABLED_PLUGINS={self._plugin_of(name)} leaves it out"
            )
            probe = Probe((), (Problem("probe", evidence, remedy),))
            self._probe_failures[name] = evidence
            if isinstance(error, WorkerHungError):
                self._hung[name] = probe
            return probe
        self._probe_failures.pop(name, None)
        return probe

    def _plugin_of(self, delegate: str) -> str:
        return next((plugin.name for plugin in self._plugins if delegate in plugin.delegates), delegate)

    def find(self, name: str) -> Delegate | None:
        """Return the delegate of this name."""
        return next((delegate for delegate in self.delegates if delegate.name == name), None)

    def why_not(self, name: str) -> str:
        """Return why there is no delegate of this name although there is a plugin, "" where there is none."""
        return next((p.problem for p in self.plugins if p.name == name and p.problem), "")


def _unknown(disabled: set[str], known: Sequence[str]) -> list[str]:
    remarks = []
    for name in sorted(disabled - set(known)):
        close = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean {close[0]!r}?" if close else f"installed: {', '.join(known)}"
        remarks.append(f"TFLITE_HAL_DISABLED_PLUGINS has {name!r}, which is no plugin: {hint}")
    return remarks


class _PluginWorker:
    """A third-party plugin's worker: started when first needed, again after it died."""

    def __init__(self, point: _Point) -> None:
        self._label = f"plugin {point.name}"
        self._worker: Worker | None = None

    def get(self) -> Worker:
        """Return the worker, alive."""
        if self._worker is None or not self._worker.alive:
            self._worker = start_worker(self._label, runtime=None)
        return self._worker


class _Point(NamedTuple):
    """An entry point of ours."""

    name: str
    module: str
    distribution: str
    version: str
    builtin: bool


def _entry_points() -> tuple[list[_Point], list[Plugin]]:
    """Return the plugins' entry points, built-ins first, each once, in a fixed order, and plugins whose
    distribution is damaged: ``importlib.metadata.entry_points`` would fail for all because of one."""
    found: dict[tuple[str, str], _Point] = {}
    damaged = []
    for distribution in importlib.metadata.distributions():
        # What the folder of a half-removed package makes the standard library raise is not documented.
        try:
            for point in distribution.entry_points:
                if point.group == GROUP:
                    found.setdefault((point.name, point.value), _point(point, distribution))
        except Exception as error:
            folder = Path(str(getattr(distribution, "_path", "?"))).name
            if GROUP in folder.replace("-", "_"):  # the others are not ours to judge
                problem = f"its installation is damaged: {type(error).__name__}: {error}"
                damaged.append(Plugin(folder, "", folder, "?", False, (), problem))
    return sorted(found.values(), key=lambda point: (not point.builtin, point.name, point.module)), damaged


def _point(point: importlib.metadata.EntryPoint, distribution: importlib.metadata.Distribution) -> _Point:
    metadata = distribution.metadata
    name = metadata["Name"] or "?"
    builtin = name.replace("_", "-").lower() == _DISTRIBUTION
    return _Point(point.name, point.value, name, metadata["Version"] or "?", builtin)

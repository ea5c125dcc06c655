"""What a plugin contributes and answers, held against what :mod:`tflite_hal.delegate` documents."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, Final

import pluggy

from tflite_hal.delegate import (
    API_VERSIONS,
    KINDS,
    SCALARS,
    STAGES,
    Delegate,
    Device,
    Option,
    Probe,
    Problem,
)
from tflite_hal.errors import DelegateError, PluginError
from tflite_hal.hookspecs import GROUP, HOOKS
from tflite_hal.trust import changes_loading

__all__ = ["check_delegate", "check_probe", "collect", "describe"]


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
    _require_hooks(module, plugin)
    # A hook is a vendor's code: whatever it raises is told, with the plugin's name.
    try:
        delegates = [cls for given in manager.hook.tflite_hal_register_delegates() for cls in given]
        folders = [str(f) for given in manager.hook.tflite_hal_register_device_profiles() for f in given]
    except Exception as error:
        raise PluginError(f"plugin {plugin}: a hook raised {type(error).__name__}: {error}") from error
    for delegate in delegates:
        check_delegate(delegate, plugin)
    return delegates, folders


def _require_hooks(module: ModuleType, plugin: str) -> None:
    """Refuse a plugin that contributes nothing because it lacks the hooks, or their mark."""
    names = [hook.__name__ for hook in HOOKS if hasattr(module, hook.__name__)]
    unmarked = [name for name in names if not hasattr(getattr(module, name), f"{GROUP}_impl")]
    if unmarked or not names:
        defect = f"{unmarked[0]}() lacks the mark @hookimpl" if unmarked else "it has none of the hooks"
        hint = "from tflite_hal import hookimpl, and put @hookimpl above the function"
        raise PluginError(f"plugin {plugin} breaks the contract: {defect}", remedy=hint)


def describe(delegate: type[Delegate]) -> Mapping[str, Any]:
    """Return what the core must know of a delegate it does not import, JSON-ready."""
    return {
        "reference": f"{delegate.__module__}:{delegate.__qualname__}",
        "name": delegate.name,
        "api_version": delegate.api_version,
        "description": delegate.description,
        "install_hint": delegate.install_hint,
        "crash_hint": delegate.crash_hint,
        "options": [option._asdict() for option in delegate.options],
        "environment": dict(delegate.environment),
        "runtimes": None if delegate.runtimes is None else list(delegate.runtimes),
        "variants": list(delegate.variants),
        "in_process": own if isinstance(own := delegate.in_process, bool) else list(own),
    }


def check_delegate(delegate: type[Delegate], plugin: str) -> None:
    """Refuse a class that breaks the contract.

    Raises:
        PluginError: names the plugin, the class and the defect.
    """
    where = f"plugin {plugin}: {getattr(delegate, '__name__', delegate)!s}"
    if not (isinstance(delegate, type) and issubclass(delegate, Delegate)):
        raise PluginError(f"{where} is not a subclass of tflite_hal.Delegate")
    if (
        not (isinstance(delegate.name, str) and delegate.name.isidentifier())
        or delegate.name != delegate.name.lower()
    ):
        raise PluginError(f"{where}: name {delegate.name!r} is not a lower-case identifier")
    low, high = API_VERSIONS
    if not (isinstance(delegate.api_version, int) and low <= delegate.api_version <= high):
        raise PluginError(
            f"{where} was written for plugin API {delegate.api_version!r}, not for {low} to {high}",
            remedy="install a release of the plugin that matches",
        )
    for member, fits in _MEMBERS.items():
        value = getattr(delegate, member)
        if not fits(value):
            raise PluginError(f"{where}: {member} = {value!r} is not what Delegate documents")


def check_probe(found: Any, delegate: str, method: str) -> Probe:
    """Return what a delegate's ``probe`` or ``inspect`` gave, if it is what the contract has.

    Raises:
        DelegateError: it is not; names the delegate, the method and the defect.
    """
    where = f"delegate {delegate}: {method}()"
    if not isinstance(found, Probe):
        raise DelegateError(f"{where} gave {found!r}, which is no Probe")
    wrong: list[Any] = [one for one in found.devices if not isinstance(one, Device)]
    wrong += [one for one in found.problems if not isinstance(one, Problem)]
    if wrong:
        raise DelegateError(f"{where} gave {wrong[0]!r}, which is no Device or Problem")
    for problem in found.problems:
        if problem.stage not in STAGES:
            known = ", ".join(STAGES)
            raise DelegateError(f"{where} breaks the contract: stage {problem.stage!r} is none of {known}")
        if not (isinstance(problem.command, str) and problem.command.isprintable()):
            raise DelegateError(
                f"{where} breaks the contract: command {problem.command!r} is no line of text"
            )
    return found


def _all(values: Any, kind: type) -> bool:
    return all(isinstance(value, kind) for value in values)


def _is_option(option: Option) -> bool:
    return (
        isinstance(option.name, str) and option.type in SCALARS and isinstance(option.choices, (tuple, list))
    )


def _is_path(suffix: str) -> bool:
    return not suffix or any(letter in suffix for letter in "/\\\0")


#: What the other attributes of a delegate must be.
_MEMBERS: Final[Mapping[str, Callable[[Any], bool]]] = {
    "description": lambda value: isinstance(value, str),
    "install_hint": lambda value: isinstance(value, str),
    "crash_hint": lambda value: isinstance(value, str),
    "in_process": lambda value: (
        isinstance(value, bool) or (isinstance(value, (tuple, list)) and all(kind in KINDS for kind in value))
    ),
    "options": lambda value: (
        isinstance(value, (tuple, list)) and _all(value, Option) and all(map(_is_option, value))
    ),
    "environment": lambda value: (
        isinstance(value, Mapping)
        and _all(value, str)
        and _all(value.values(), str)
        and not any(map(changes_loading, value))
    ),
    "variants": lambda value: (
        isinstance(value, (tuple, list)) and _all(value, str) and not any(map(_is_path, value))
    ),
    "runtimes": lambda value: value is None or (isinstance(value, (tuple, list)) and _all(value, str)),
}

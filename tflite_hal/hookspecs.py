"""The pluggy contract: hooks register and do no work.

A plugin is a module named by an entry point in group ``tflite_hal``. Its functions carry the names of
these hooks and the :data:`hookimpl` mark. Hooks return classes and folders; work is done by the
delegates' methods, which the core calls one at a time, guarded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

from tflite_hal.delegate import Delegate

__all__ = ["GROUP", "HOOKS", "hookimpl"]

#: The entry-point group of plugins and the name under which pluggy knows this project.
GROUP: Final = "tflite_hal"

_Function = TypeVar("_Function", bound=Callable[..., Any])


def hookimpl(function: _Function) -> _Function:
    """Mark a plugin's function as the implementation of a hook.

    Does what ``pluggy.HookimplMarker("tflite_hal")`` does, without importing pluggy: a plugin must not
    cost the application that only runs one.
    """
    options = {
        "hookwrapper": False,
        "optionalhook": False,
        "specname": None,
        "tryfirst": False,
        "trylast": False,
        "wrapper": False,
    }
    setattr(function, f"{GROUP}_impl", options)
    return function


def tflite_hal_register_delegates() -> Sequence[type[Delegate]]:
    """Return the plugin's subclasses of :class:`tflite_hal.Delegate`."""
    return ()


def tflite_hal_register_device_profiles() -> Sequence[str]:
    """Return absolute paths of folders with device profiles (``*.yaml``)."""
    return ()


#: Every hook of the contract.
HOOKS: Final = (tflite_hal_register_delegates, tflite_hal_register_device_profiles)

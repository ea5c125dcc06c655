"""The errors of tflite-hal, all below one tree.

::

    TfliteHalError
    ├── ModelError (ValueError)              the file is not a model that can be run
    ├── InputError (ValueError)              an array, a name or a shape given to ``predict``
    ├── ProfileError (ValueError)            a device profile: file, key path, what was expected
    ├── RuntimeUnavailableError (ImportError)  no usable TensorFlow Lite runtime
    ├── PluginError                          a plugin breaks the contract
    ├── DelegateError (RuntimeError)         a delegate can't be found, opened or run
    │   ├── DeviceBusyError                  the device is held by another session or application
    │   └── NoDelegateError                  nothing that was allowed answered; carries the selection
    ├── WorkerError (RuntimeError)           no child process could be started
    │   ├── WorkerGoneError                  it ended for another's request, or was killed from outside
    │   ├── WorkerCrashedError               it died: signal or exit status, and its last words
    │   └── WorkerHungError                  it exceeded its time limit and was killed
    └── ClosedError (RuntimeError)           a runner was used after ``close()``

Every message says what happened and on what; ``remedy`` says what to do about it.
"""

from __future__ import annotations

__all__ = [
    "ClosedError",
    "DelegateError",
    "DeviceBusyError",
    "InputError",
    "ModelError",
    "NoDelegateError",
    "PluginError",
    "ProfileError",
    "RuntimeUnavailableError",
    "TfliteHalError",
    "WorkerCrashedError",
    "WorkerError",
    "WorkerGoneError",
    "WorkerHungError",
]


class TfliteHalError(Exception):
    """Base of every error this package raises: ``reason`` (what, on what) and ``remedy`` (or "")."""

    def __init__(self, reason: str, *, remedy: str = "") -> None:
        super().__init__(f"{reason} (to fix it: {remedy})" if remedy else reason)
        self.reason = reason
        self.remedy = remedy
        #: Where it happened, where that is known: probe, open, allocate, run.
        self.stage = ""
        #: Of many inputs the one it is about, counted from 0.
        self.item: int | None = None


class ModelError(TfliteHalError, ValueError):
    """The file or bytes are not a model that can be run: names the file and the defect."""


class InputError(TfliteHalError, ValueError):
    """What was given to ``predict`` does not fit the model: names the tensor, expected and given."""


class ProfileError(TfliteHalError, ValueError):
    """A device profile is invalid: names the file, the key path and what was expected."""


class RuntimeUnavailableError(TfliteHalError, ImportError):
    """A TensorFlow Lite runtime is absent or broken: says why and gives the pip line."""


class PluginError(TfliteHalError):
    """A plugin breaks the contract: names the plugin and its distribution."""


class DelegateError(TfliteHalError, RuntimeError):
    """A delegate is unknown, unavailable, or failed to open or run a model."""


class DeviceBusyError(DelegateError):
    """The device is there and held by another session or application: trying again later may help."""


class NoDelegateError(DelegateError):
    """No allowed candidate answered. ``selection`` holds every attempt with its reason."""

    def __init__(self, reason: str, *, remedy: str = "", selection: object = None) -> None:
        super().__init__(reason, remedy=remedy)
        self.selection = selection


class WorkerError(TfliteHalError, RuntimeError):
    """No child process could be started, so nothing can be isolated: says why."""


class WorkerGoneError(WorkerError):
    """The child process is no more, through no fault of this request: trying again may help."""


class WorkerCrashedError(WorkerError):
    """The child process died: names the signal or exit status, the stage and its last words."""


class WorkerHungError(WorkerError):
    """The child process exceeded its time limit at the named stage and was killed."""


class ClosedError(TfliteHalError, RuntimeError):
    """The runner was closed."""

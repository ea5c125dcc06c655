"""Delegates and sessions that live in a worker, in the shape of those that don't."""

from tflite_hal.remote.delegate import RemoteDelegate, exclusive_key, reference, remote_delegate
from tflite_hal.remote.guard import guarded
from tflite_hal.remote.pool import close_dropped, open_sessions
from tflite_hal.remote.session import RemoteSession, default_limits, environment_of, open_remotely

__all__ = [
    "RemoteDelegate",
    "RemoteSession",
    "close_dropped",
    "default_limits",
    "environment_of",
    "exclusive_key",
    "guarded",
    "open_remotely",
    "open_sessions",
    "reference",
    "remote_delegate",
]

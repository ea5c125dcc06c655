"""Child processes that hold foreign code: the parent's side.

One mechanism for everything that may crash or hang: a subprocess of ``sys.executable`` (never
``multiprocessing``, which fails for scripts without a main guard, from stdin and in notebooks). The
first child is a zygote: it imports numpy and the runtime, opens no model, has exactly one thread, and
forks a worker in a few milliseconds. The application itself is never forked.

Set-up messages are length-prefixed JSON, a call is a fixed binary frame, tensors live in memory shared
by descriptor. Success is an explicit message, never an exit code. The child's side is
:mod:`tflite_hal.worker_main`.
"""

from tflite_hal.worker.process import Worker, shutdown, start_worker
from tflite_hal.worker.protocol import Channel, Reply, SharedArrays, described_error, rebuilt_error

__all__ = [
    "Channel",
    "Reply",
    "SharedArrays",
    "Worker",
    "described_error",
    "rebuilt_error",
    "shutdown",
    "start_worker",
]

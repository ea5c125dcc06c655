"""The child's side of :mod:`tflite_hal.worker`: the zygote's loop and the worker's operations.

Everything foreign runs here: vendors' libraries, third-party plugins, the first open of an unknown
model. What it raises goes back as a message; what it kills is this process only.
"""

from tflite_hal.worker_main.zygote import zygote

__all__ = ["zygote"]

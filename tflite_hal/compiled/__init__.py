"""Models compiled by LiteRT for its GPU, NPU and CPU accelerators, through its C API.

The Python class ``CompiledModel`` of ``ai_edge_litert`` holds the GIL while a model runs, takes arrays
of a wrong dtype or length in silence, and reads no 64-bit integers; the same C functions called by
:mod:`ctypes` release the GIL, and are checked here.
"""

from tflite_hal.compiled.session import CompiledSession

__all__ = ["CompiledSession"]

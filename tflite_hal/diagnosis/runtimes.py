"""Whether a runtime can be used: it is imported in a child process, which may die of it."""

from __future__ import annotations

from typing import Final

from tflite_hal.errors import TfliteHalError, WorkerCrashedError
from tflite_hal.host import HostInfo
from tflite_hal.runtime import RuntimeStatus
from tflite_hal.worker import start_worker

__all__ = ["proven"]

#: Seconds that importing a runtime may take: TensorFlow takes long on a slow machine.
_IMPORT_LIMIT: Final = 60.0
#: What builds are made for beyond the oldest processors, in the order of their age.
_FEATURES: Final = {
    "x86_64": ("ssse3", "sse4_1", "sse4_2", "popcnt", "avx", "f16c", "fma", "avx2"),
    "aarch64": ("atomics", "asimdhp", "asimddp", "sve", "i8mm"),
    "armv7l": ("neon", "vfpv4"),
    "armv6l": ("neon",),
}


def proven(status: RuntimeStatus, host: HostInfo) -> RuntimeStatus:
    """Return the status after importing it in a worker: only that shows that it can be used."""
    if status.state != "usable":
        return status
    try:
        worker = start_worker(f"runtime {status.name}", runtime=None)
    except TfliteHalError as error:  # says nothing of the runtime
        reason = f"{status.version}, installed; importing it was not tried: {error.reason}"
        return status._replace(state="unchecked", reason=reason, remedy=error.remedy)
    try:
        worker.request("runtime", limit=_IMPORT_LIMIT, stage="importing it", name=status.name)
    except WorkerCrashedError as error:
        if "SIGILL" not in error.reason:
            return status._replace(state="broken", reason=error.reason, remedy=error.remedy)
        lacks, remedy = illegal_instruction(status.name, host)
        return status._replace(state="broken", reason=f"{error.reason}; {lacks}", remedy=remedy)
    except TfliteHalError as error:
        return status._replace(state="broken", reason=error.reason, remedy=error.remedy)
    finally:
        worker.close()
    return status


def illegal_instruction(name: str, host: HostInfo) -> tuple[str, str]:
    """Return what the processor lacks that a build may have been made for, and what to do.

    TensorFlow's own builds need AVX since 1.6 (tensorflow/tensorflow issue 47146). The wheels of
    tflite-runtime 2.14.0 and ai-edge-litert 2.3.0 do not: measured under emulation of a Nehalem, which
    has SSE4.2 and no AVX, where they were imported and ran a model.
    """
    lacking = [one for one in _FEATURES.get(host.arch or "", ()) if host.cpu.has(one) is False]
    model = host.cpu.model or "this processor"
    lacks = f"it was built for another processor: {model} has no {', '.join(lacking)}"
    if not lacking:
        lacks = f"it has instructions that {model} does not have"
    if name == "tensorflow":
        return lacks, "TensorFlow's builds need AVX; the wheels of ai_edge_litert and tflite_runtime do not"
    distribution = {"ai_edge_litert": "ai-edge-litert", "tflite_runtime": "tflite-runtime==2.14.0"}[name]
    remedy = f"pip install --force-reinstall --only-binary :all: {distribution}"
    if host.arch == "x86_64" and host.cpu.has("avx") is False and host.cpu.has("sse4_2"):
        return lacks, f"{remedy} (that wheel needs no AVX)"
    return lacks, f"take the published wheel ({remedy}), or build it for this processor"

"""How far an answer may be from the built-in kernels', and the measurements behind it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, NamedTuple

from tflite_hal.model import ModelInfo

__all__ = [
    "COSINE",
    "FEW",
    "GRAIN",
    "LABELS",
    "LIMITS",
    "MANY",
    "SMALLEST_RANGE",
    "Kind",
    "Limits",
    "model_kind",
]

#: ``quantized``: computes with integers; ``hybrid``: float activations, 8-bit weights; ``float``.
Kind = Literal["quantized", "hybrid", "float"]


class Limits(NamedTuple):
    """Errors up to which an answer counts; shares as in the module's docstring."""

    ok: float  #: typical error up to which it is ok
    degraded: float  #: typical error up to which it is degraded; beyond, wrong
    worst: float  #: beyond it one answer suffices for wrong


#: Measured on x86-64 against the built-in kernels, in steps. Four inputs: XNNPACK up to 8 (ok),
#: OpenVINO 21 and 31 (degraded, where typical), WebGPU 97 (wrong). Typical and worst of 64 seeded
#: inputs of ResNet-8: XNNPACK 3 and 45, OpenVINO 5 and 51, while the built-in and the reference kernels
#: are 1 and 32 apart, XNNPACK and the reference kernels 3 and 69: all of these are right.
_QUANTIZED: Final = Limits(12 / 256, 48 / 256, 80 / 256)
#: Kernels differ in how they round activations. A keyword spotter, typical and worst of 64 seeded
#: inputs, of a range of 0.54 to 1: XNNPACK 0.004 and 0.012, OpenVINO 0.011 and 0.027.
_HYBRID: Final = Limits(0.03, 0.1, 0.25)
#: Engines in float32 stay within 1e-6 of the range (measured: 5e-5 of values up to 43). Half precision
#: keeps 11 bits, which accumulate to 1e-3 to 1e-2 (not measured): ok up to 1e-2, degraded beyond.
_FLOAT: Final = Limits(0.01, 0.05, 0.15)
#: Shares of elements. A segmentation by every engine measured: none differ. Whole numbers flip at near
#: ties: up to a quarter of the arg-max of flat answers did.
LABELS: Final = Limits(0.05, 0.3, 0.5)
LIMITS: Final[Mapping[str, Limits]] = {"quantized": _QUANTIZED, "hybrid": _HYBRID, "float": _FLOAT}

#: Below it a typical cosine is degraded, which finds noise all over an answer of few large elements.
#: Not where errors are small, as in flat answers: 2 steps made 0.988 of MobileNet, on every engine.
COSINE: Final = 0.9
FEW: Final = 1 / 3  #: of the ok limit: errors that are small whatever the cosine
GRAIN: Final = 1 / 12  #: of the ok limit: one step of a quantised output
MANY: Final = 16  #: elements; chance does not make so many agree, or differ, by more than a grain
SMALLEST_RANGE: Final = 1e-6


def model_kind(info: ModelInfo) -> Kind:
    """Return which limits fit: float inputs and outputs around integer arithmetic are quantised."""
    inside = info.precision in ("int8", "uint8", "int16")
    # A graph that quantises its activations computes with integers; a hybrid one has no such operator.
    inside = inside or (
        info.precision == "hybrid" and any(operator.name == "QUANTIZE" for operator in info.operators)
    )
    if inside or any(spec.quantized for spec in (*info.inputs, *info.outputs)):
        return "quantized"
    return "hybrid" if info.precision == "hybrid" else "float"

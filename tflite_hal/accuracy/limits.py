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
    """Limits of errors, shares as the package's docstring defines them."""

    ok: float  #: typical error up to which it is ok
    degraded: float  #: typical error up to which it is degraded; beyond, wrong
    worst: float  #: beyond it one answer suffices for wrong


#: Measured on x86-64 against the built-in kernels, in steps of 256. The largest of four inputs: XNNPACK up
#: to 8 (ok), OpenVINO 21 and 31 (degraded where that is typical), WebGPU 97 (wrong). Few inputs say
#: little: of 64 seeded inputs of an int8 ResNet-8, typically and at worst, XNNPACK differs by 3 and 45,
#: OpenVINO 2026 by 5 and 51, the reference kernels by 1 and 32 (from XNNPACK by 3 and 69). None is to
#: blame: from the same network in float, the built-in kernels differ by 5 and 75, XNNPACK by 5.5 and 54.
_QUANTIZED: Final = Limits(12 / 256, 48 / 256, 80 / 256)
#: Kernels round activations differently. A keyword spotter on 64 seeded inputs, shares of a range of
#: 0.64: XNNPACK typically 0.006, at worst 0.019; OpenVINO 0.018 and 0.042.
_HYBRID: Final = Limits(0.03, 0.1, 0.25)
#: Engines in float32 stay within 1e-6 of the range (measured: 5e-5 of values up to 43). Half precision
#: keeps 11 bits; not measured, taken to accumulate to 1e-3 to 1e-2: ok up to 1e-2, degraded beyond.
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

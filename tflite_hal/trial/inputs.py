"""Inputs on which candidates are tried."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tflite_hal.model import TensorSpec

__all__ = ["seeded_inputs"]


def seeded_inputs(specs: Sequence[TensorSpec], seed: int = 0) -> list[np.ndarray[Any, Any]]:
    """Return inputs fit for the tensors: normally distributed for floats, the whole range for
    quantised integers, zeros for other integers (they may be indices) and booleans.
    """
    random = np.random.default_rng(seed)
    return [_seeded(spec, random) for spec in specs]


def _seeded(spec: TensorSpec, random: np.random.Generator) -> np.ndarray[Any, Any]:
    shape = spec.static_shape
    if spec.dtype.kind == "f":
        return random.standard_normal(shape).astype(spec.dtype)
    if spec.quantized:
        limits = np.iinfo(spec.dtype)
        return random.integers(limits.min, limits.max, shape, spec.dtype, endpoint=True)
    return np.zeros(shape, spec.dtype)

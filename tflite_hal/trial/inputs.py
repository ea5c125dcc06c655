"""Inputs on which candidates are tried."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from tflite_hal.errors import DelegateError
from tflite_hal.model import TensorSpec

__all__ = ["Inputs", "seeded_inputs"]

Arrays = Sequence[np.ndarray[Any, Any]]

#: What all seeded inputs together may take, but for the first.
MOST_BYTES: Final = 256 << 20


class Inputs:
    """The inputs of a trial: the caller's samples, then seeded ones; made when a model has been opened,
    since only then its shapes are known to be possible."""

    def __init__(self, specs: Sequence[TensorSpec], samples: Sequence[Arrays], seeded: int) -> None:
        self._specs = specs
        self._samples = samples
        self._seeded = 0 if any(spec.dtype.hasobject for spec in specs) else seeded
        self._made: list[Arrays] | None = None
        self.own = len(samples)  # how many are the caller's

    def __bool__(self) -> bool:
        """Whether there are any; text has no seeded value, and does not cross a process boundary."""
        return bool(self.own or self._seeded)

    def __call__(self) -> Sequence[Arrays]:
        """Return them: per input of the trial, one array per input of the model.

        Raises:
            DelegateError: there is no memory for one.
        """
        if self._made is None:
            size = sum(math.prod(spec.static_shape) * spec.dtype.itemsize for spec in self._specs)
            number = min(self._seeded, max(1, MOST_BYTES // max(size, 1)))
            try:
                made = [seeded_inputs(self._specs, seed) for seed in range(number)]
            except MemoryError as error:
                raise DelegateError(f"no memory for an input of {size} bytes: {error}") from error
            self._made = [*self._samples, *made]
        return self._made

    def keep(self, number: int) -> None:
        """Leave out what comes after so many."""
        self._made = list(self())[:number]


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

"""Inputs on which candidates are tried."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from tflite_hal.errors import DelegateError
from tflite_hal.model import ModelInfo, TensorSpec

__all__ = ["Inputs", "seeded_inputs"]

Arrays = Sequence[np.ndarray[Any, Any]]

#: What all seeded inputs and the answers to them together may take, but for the first.
MOST_BYTES: Final = 64 << 20


class Inputs:
    """The inputs of a trial: the caller's samples, then seeded ones; made when a model has been opened,
    since only then its shapes are known to be possible."""

    def __init__(self, info: ModelInfo, samples: Sequence[Arrays], seeded: int) -> None:
        specs = self._specs = info.inputs
        self._answers = info.outputs  # kept per input, of each candidate
        self._samples = samples
        self._seeded = 0 if any(spec.dtype.hasobject for spec in specs) else seeded
        #: Whether the model takes or gives text, which does not cross a process boundary.
        self.text = any(spec.dtype.hasobject for spec in (*specs, *info.outputs))
        self._made: list[Arrays] | None = None
        self.own = len(samples)  # how many are the caller's

    def __bool__(self) -> bool:
        """Whether there are any; text has no seeded value."""
        return bool(self.own or self._seeded)

    def __call__(self) -> Sequence[Arrays]:
        """Return them: per input of the trial, one array per input of the model.

        Raises:
            DelegateError: there is no memory for one.
        """
        if self._made is None:
            specs = (*self._specs, *self._answers)
            size = sum(math.prod(spec.static_shape) * spec.dtype.itemsize for spec in specs)
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


#: Amplitude and offset of seeded inputs, by seed: noise of one kind makes many networks answer alike,
#: and one that repeats itself would not be seen. The first is plain noise.
_KINDS: Final = ((1, 0), (0.1, 0.9), (0.3, -0.9), (1, 0.5), (0.5, -0.5), (0.2, 0), (1, 0.2), (0.7, -0.2))


def seeded_inputs(specs: Sequence[TensorSpec], seed: int = 0) -> list[np.ndarray[Any, Any]]:
    """Return inputs fit for the tensors: noise and, of odd seeds, coarse blocks, around another mean each
    time; normally distributed for floats, over the whole range for quantised integers. Other integers
    (they may be indices) and booleans are zeros for seed 0, then zeros and ones.
    """
    random = np.random.default_rng(seed)
    return [_seeded(spec, random, seed) for spec in specs]


def _seeded(spec: TensorSpec, random: np.random.Generator, seed: int) -> np.ndarray[Any, Any]:
    shape = spec.static_shape
    if spec.dtype.kind != "f" and not spec.quantized:
        return (random.integers(0, 2, shape) * (seed > 0)).astype(spec.dtype)
    if seed == 0 and spec.quantized:
        limits = np.iinfo(spec.dtype)
        return random.integers(limits.min, limits.max, shape, spec.dtype, endpoint=True)
    amplitude, offset = _KINDS[seed % len(_KINDS)]
    real = _noise(shape, random, coarse=seed % 2 == 1) * amplitude + offset
    if spec.dtype.kind == "f":
        return real.astype(spec.dtype)
    low, high = np.iinfo(spec.dtype).min, np.iinfo(spec.dtype).max
    return np.clip((real / 2 + 0.5) * (float(high) - low) + low, low, high).astype(spec.dtype)


def _noise(shape: tuple[int, ...], random: np.random.Generator, *, coarse: bool) -> np.ndarray[Any, Any]:
    """Return normal noise; coarse noise of pictures is constant in eighths of their width and height."""
    if not coarse or len(shape) < 3:
        return random.standard_normal(shape, np.float32)
    inner = range(1, len(shape) - 1)
    noise = random.standard_normal([max(1, n // 8) if i in inner else n for i, n in enumerate(shape)])
    for axis in inner:
        noise = np.take(noise, np.arange(shape[axis]) * noise.shape[axis] // shape[axis], axis)
    return noise.astype(np.float32)

"""Calls in the order of the model the caller named, whatever form of it runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tflite_hal.errors import DelegateError
from tflite_hal.model import TensorSpec, Variant
from tflite_hal.session import Arrays, Call, Session, Shapes

__all__ = ["adapted"]


def adapted(session: Session, variant: Variant | None, signature: str | None, shapes: Shapes | None) -> Call:
    """Prepare a session of a variant for a call of the named model; see :meth:`Session.prepare`.

    Tensors are matched by name: the order may differ, and signatures are often lost where a model is
    compiled.
    """
    if variant is None:
        return session.prepare(signature, shapes)
    named = variant.named.info.interface(signature, variant.named.name)
    own = variant.model.info
    inputs, outputs = _places(named.inputs, own.inputs), _places(own.outputs, named.outputs)
    if len(inputs) != len(own.inputs) or len(outputs) != len(named.outputs):
        raise DelegateError(
            f"{variant.model.name} can't be called by signature {signature!r} of the other form"
        )
    call = session.prepare(None, None if shapes is None else [shapes[place] for place in inputs])
    in_order = inputs == list(range(len(own.inputs))) and outputs == list(range(len(own.outputs)))
    return call if in_order else _Reordered(call, inputs, outputs)


def _places(given: Sequence[TensorSpec], wanted: Sequence[TensorSpec]) -> list[int]:
    """Return where each of the wanted tensors is among those given."""
    places = {spec.name: place for place, spec in enumerate(given)}
    return [places[spec.name] for spec in wanted if spec.name in places]


class _Reordered(Call):
    """A call whose inputs and outputs are in another order."""

    __slots__ = ("_inner", "_inputs", "_outputs")

    def __init__(self, inner: Call, inputs: list[int], outputs: list[int]) -> None:
        self._inner = inner
        self._inputs = inputs
        self._outputs = outputs

    def run(self, arrays: Arrays) -> list[np.ndarray[Any, Any]]:
        """See :meth:`Call.run`."""
        results = self._inner.run([arrays[place] for place in self._inputs])
        return [results[place] for place in self._outputs]

"""The facts about a model, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from tflite_hal.errors import InputError

__all__ = ["Interface", "ModelInfo", "Operator", "Quantization", "Signature", "TensorSpec"]

# Custom operators whose provider is known. The detection post-processing is registered by the
# runtimes themselves (checked on both).
_PROVIDERS = {
    "edgetpu-custom-op": "an Edge TPU (delegate edgetpu), or the model before edgetpu_compiler on a CPU",
    "ethos-u": "an Arm Ethos-U (compiled by Vela)",
}
_BUILT_IN = {"TFLite_Detection_PostProcess"}


class Quantization(NamedTuple):
    """real = scale × (stored − zero point); one value per tensor, or one per index of ``axis``."""

    scales: tuple[float, ...]
    zero_points: tuple[int, ...]
    axis: int = 0


class TensorSpec(NamedTuple):
    """One input or output."""

    name: str  #: bytes that are not UTF-8 are shown escaped
    tensor_index: int  #: in its subgraph
    shape: tuple[int, ...]  #: -1 where any size is taken
    dtype: np.dtype[Any]  #: ``object`` for text and for types numpy lacks
    type: str  #: TensorFlow Lite's name: ``float32``, ``string``, ``int4``, ``type_37`` where unknown
    quantization: Quantization | None  #: None where the values are what they are
    static_shape: tuple[int, ...]  #: as stored in the file: sizes that may be any are usually 1

    @property
    def quantized(self) -> bool:
        """Whether integers stand for real numbers."""
        return self.quantization is not None and self.dtype.kind in "iu"

    def to_dict(self) -> dict[str, Any]:
        """Return it JSON-ready."""
        quantization = None if self.quantization is None else self.quantization._asdict()
        return {
            "name": self.name,
            "tensor_index": self.tensor_index,
            "shape": list(self.shape),
            "type": self.type,
            "quantization": quantization,
        }


class Operator(NamedTuple):
    """One kind of operator and how often it occurs, over all subgraphs."""

    name: str  #: ``CONV_2D``, or the name of a custom operator
    occurrences: int
    custom: bool
    version: int


class Signature(NamedTuple):
    """A named way to call the model."""

    key: str
    input_names: tuple[str, ...]
    inputs: tuple[TensorSpec, ...]
    output_names: tuple[str, ...]
    outputs: tuple[TensorSpec, ...]
    subgraph: int  #: 0 is the one that runs without a signature


class Interface(NamedTuple):
    """What one call takes and gives."""

    input_names: tuple[str, ...]
    inputs: tuple[TensorSpec, ...]
    output_names: tuple[str, ...]
    outputs: tuple[TensorSpec, ...]
    aliases: Mapping[str, str]  #: other names of inputs → their names here

    def renamed(self, inputs: Any) -> Any:
        """Return a mapping with the names used here; anything else as it is."""
        if not self.aliases or not isinstance(inputs, Mapping):
            return inputs
        return {self.aliases.get(name, name): value for name, value in inputs.items()}


class ModelInfo(NamedTuple):
    """All that is known of a model without running it."""

    size: int  #: bytes
    sha256: str
    description: str
    version: int  #: of the schema
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    signatures: tuple[Signature, ...]
    operators: tuple[Operator, ...]  #: by falling count, then name
    subgraphs: int
    types: tuple[str, ...]  #: of all tensors, sorted
    precision: str  #: ``float32``, ``float16``, ``int8``, ``uint8``, ``int16``, ``hybrid``, ``other``
    stateful: str  #: why it remembers from call to call, "" where it doesn't
    parameters_bytes: int  #: of all constant tensors

    @property
    def dynamic(self) -> bool:
        """Whether an input takes more than one shape."""
        return any(-1 in spec.shape for spec in self.inputs)

    @property
    def custom(self) -> tuple[str, ...]:
        """Names of the operators that are not TensorFlow Lite's own."""
        return tuple(operator.name for operator in self.operators if operator.custom)

    @property
    def flex(self) -> tuple[str, ...]:
        """Those of them that are TensorFlow's."""
        return tuple(name for name in self.custom if name.startswith("Flex"))

    def needs(self) -> tuple[str, ...]:
        """Return, per custom operator the runtimes lack, its name and what would run it."""
        return tuple(f"{name}: {_provider(name)}" for name in self.custom if name not in _BUILT_IN)

    def interface(self, signature: str | None, model: str) -> Interface:
        """Return what a call takes and gives; ``model`` names the file in the error.

        Raises:
            InputError: no such signature; lists those there are.
        """
        if signature is None:
            names = tuple(spec.name for spec in self.inputs), tuple(spec.name for spec in self.outputs)
            return Interface(names[0], self.inputs, names[1], self.outputs, self._aliases())
        for one in self.signatures:
            if one.key == signature:
                return Interface(one.input_names, one.inputs, one.output_names, one.outputs, {})
        known = ", ".join(repr(one.key) for one in self.signatures) or "none"
        raise InputError(f"{model} has no signature {signature!r}", remedy=f"it has: {known}")

    def _aliases(self) -> dict[str, str]:
        """Names that the only signature of the main subgraph gives to its inputs."""
        main = [one for one in self.signatures if one.subgraph == 0]
        if len(main) != 1:
            return {}
        return {name: spec.name for name, spec in zip(main[0].input_names, main[0].inputs, strict=True)}

    def to_dict(self) -> dict[str, Any]:
        """Return it JSON-ready."""
        return {
            **{name: value for name, value in self._asdict().items() if isinstance(value, (str, int))},
            "inputs": [spec.to_dict() for spec in self.inputs],
            "outputs": [spec.to_dict() for spec in self.outputs],
            "signatures": [
                {
                    "key": s.key,
                    "inputs": list(s.input_names),
                    "outputs": list(s.output_names),
                    "subgraph": s.subgraph,
                }
                for s in self.signatures
            ],
            "operators": [operator._asdict() for operator in self.operators],
            "types": list(self.types),
            "dynamic": self.dynamic,
            "needs": list(self.needs()),
        }


def _provider(name: str) -> str:
    if name.startswith("Flex"):
        return "the Flex delegate (TensorFlow's own operators; the package tensorflow has it)"
    return _PROVIDERS.get(name, "a runtime or delegate that registers this custom operator")

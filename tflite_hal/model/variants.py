"""The same network in another form beside a model: found by name, read and compared without running it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tflite_hal.errors import ModelError
from tflite_hal.model.info import ModelInfo, TensorSpec
from tflite_hal.model.reader import KnownHash, read_model
from tflite_hal.model.source import Model

__all__ = ["Variant", "Variants"]


class Variant(NamedTuple):
    """A file beside the model the caller named, with its inputs and outputs, perhaps in another order."""

    model: Model
    named: Model  #: the one the caller named


class Variants:
    """What lies beside a model under its name and a suffix: ``m_npu.tflite`` beside ``m.tflite``.

    Each is read when it is first asked for. One counts only if its inputs and outputs are the model's, by
    name: dtype, shape and quantisation.

    Attributes:
        problems: by path, why a file that is there does not count.
    """

    def __init__(
        self,
        model: Model,
        suffixes: Sequence[str],
        known_hash: KnownHash | None = None,
    ) -> None:
        """Take every suffix that is in use, so that the name without one is known; ``known_hash`` as of
        :func:`read_model`. A model given as bytes has nothing beside it."""
        self._model = model
        self._known_hash = known_hash
        self._found: dict[str, Variant | None] = {}
        self.problems: dict[str, str] = {}
        path = None if model.path is None else Path(model.path)
        self._path = path
        #: The suffix the model itself has; "" where none.
        self.own = next(
            (s for s in suffixes if path is not None and path.stem.endswith(s) and path.stem != s), ""
        )

    def beside(self, suffix: str) -> Variant | None:
        """Return the variant with this suffix, or for "" the one without; None where none counts."""
        name = self.name(suffix)
        if self._path is None or suffix == self.own:
            return None
        path = str(self._path.with_name(name))
        if path not in self._found:
            self._found[path] = self._read(path)
        return self._found[path]

    def name(self, suffix: str) -> str:
        """Return the file name of the variant with this suffix; "" of a model without a file."""
        if self._path is None:
            return ""
        return self._path.stem.removesuffix(self.own) + suffix + self._path.suffix

    def _read(self, path: str) -> Variant | None:
        if not Path(path).is_file():
            return None
        try:
            found = read_model(path, known_hash=self._known_hash)
        except ModelError as error:
            self.problems[path] = error.reason
            return None
        difference = _difference(self._model.info, found.info)
        if difference:
            self.problems[path] = f"{found.name} is not {self._model.name} in another form: {difference}"
            return None
        return Variant(found, self._model)


def _difference(named: ModelInfo, other: ModelInfo) -> str:
    """Return in what two models differ for a caller, "" where in nothing."""
    if any(signature.subgraph for signature in named.signatures):
        return "its signatures have graphs of their own"
    if bool(named.stateful) != bool(other.stateful):
        return "one of them is stateful"
    return _apart("input", named.inputs, other.inputs) or _apart("output", named.outputs, other.outputs)


def _apart(kind: str, named: Sequence[TensorSpec], other: Sequence[TensorSpec]) -> str:
    by_name = {spec.name: spec for spec in other}
    names = [spec.name for spec in named]
    if len(by_name) < len(other) or len(set(names)) < len(names):
        return f"names of {kind}s occur twice"
    if sorted(by_name) != sorted(names):
        return f"{kind}s {', '.join(by_name) or 'none'}, not {', '.join(names) or 'none'}"
    for spec in named:
        mine, its = _facts(spec), _facts(by_name[spec.name])
        if mine != its:
            return f"{kind} {spec.name!r} is {_told(by_name[spec.name])}, not {_told(spec)}"
    return ""


def _facts(spec: TensorSpec) -> TensorSpec:
    return spec._replace(tensor_index=0)


def _told(spec: TensorSpec) -> str:
    if spec.quantization is None:
        return f"{spec.type}{list(spec.shape)}"
    scales, zeros = spec.quantization.scales, spec.quantization.zero_points
    return f"{spec.type}{list(spec.shape)} of scale {scales[0]:.9g} and zero point {zeros[0]}"

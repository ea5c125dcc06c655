"""The usual way of ``predict``: names, conversions and checks around a run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tflite_hal.errors import InputError
from tflite_hal.model import Interface, Model
from tflite_hal.runner.calls import Arrays
from tflite_hal.runner.life import Life
from tflite_hal.tensors import arrange, convert, deliver, write_out

__all__ = ["Usual"]


class Usual:
    """Answers whatever may be given; see :meth:`tflite_hal.Runner.predict`."""

    def __init__(self, model: Model, life: Life, warn: Callable[[str], None]) -> None:
        self._model = model
        self._life = life
        self._warn = warn
        self._interfaces: dict[str | None, Interface] = {}

    def answer(
        self,
        run: Callable[[str | None, Arrays], Arrays],
        inputs: Any,
        signature: str | None,
        dequantize: bool | None,
        out: Any = None,
    ) -> Any:
        """Return the answer of ``run``, one of :class:`Life`'s; raises as ``predict``."""
        interface = self._interface(signature)
        if not (dequantize is None or isinstance(dequantize, bool)):
            raise InputError(f"dequantize={dequantize!r} is not True, False or None")
        given = arrange(interface.renamed(inputs), interface.input_names, interface.inputs)
        pairs = zip(given, interface.inputs, strict=True)
        converted = [convert(value, spec, self._warn) for value, spec in pairs]
        results = run(signature, [one.array for one in converted])
        if dequantize is None:
            dequantize = any(one.real for one in converted)
        result = deliver(results, interface.output_names, interface.outputs, dequantize)
        return result if out is None else write_out(result, out)

    def _interface(self, signature: str | None) -> Interface:
        self._life.check_open()
        if signature is not None and not isinstance(signature, str):
            raise InputError(f"signature={signature!r} is not the key of one")
        if signature not in self._interfaces:
            self._interfaces[signature] = self._model.info.interface(signature, self._model.name)
        return self._interfaces[signature]

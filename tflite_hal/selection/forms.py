"""Which form of the model each delegate opens: the one that was named, or a variant beside it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from tflite_hal.delegate import Delegate
from tflite_hal.model import KnownHash, Model, Variant, Variants

__all__ = ["Forms"]


class Forms:
    """A model and what lies beside it for the delegates that are given: with none, the model itself."""

    def __init__(
        self,
        model: Model,
        delegates: Sequence[Delegate],
        known_hash: KnownHash | None = None,
    ) -> None:
        """Take every delegate: their suffixes tell which part of the model's name is one; ``known_hash``
        as of :func:`tflite_hal.model.read_model`."""
        self._suffixes = sorted({s for one in delegates for s in one.variants}, key=len, reverse=True)
        self._variants = Variants(model, self._suffixes, known_hash)
        self._model = model

    @property
    def plain(self) -> Variant | None:
        """What the runtime's own kernels run instead of a model that was made for another engine; None
        where they run the model itself, or nothing else is there."""
        made_for_another = self._variants.own and self._model.info.needs()
        return self._variants.beside("") if made_for_another else None

    @property
    def problems(self) -> list[str]:
        """Why files that were looked at don't count."""
        return list(self._variants.problems.values())

    def of(self, delegate: Delegate, own_cpu: bool) -> Iterator[Variant | None]:
        """Yield what the delegate may open, what was made for it first; None is the model itself.

        Only of the runtime's own kernels (``own_cpu``) it is known that they can't run what was made for
        another engine; whether others can, they say.
        """
        for suffix in self._of(delegate):
            if suffix == self._variants.own:
                yield None
                return
            found = self._variants.beside(suffix)
            if found is not None:
                yield found
        plain = self.plain
        if plain is None or not own_cpu:
            yield None
        if plain is not None:
            yield plain

    def _of(self, delegate: Delegate) -> list[str]:
        return [suffix for suffix in delegate.variants if suffix in self._suffixes]

    def missing(self, delegate: Delegate) -> str:
        """Return what is not beside the model and would be for the delegate, "" where nothing is."""
        wanted = [self._variants.name(s) for s in self._of(delegate) if s != self._variants.own]
        seen = [Path(path).name for path in self._variants.problems]
        unseen = [name for name in wanted if name and name not in seen]
        return f"there is no {' or '.join(unseen)} beside it" if unseen else "; ".join(self.problems)

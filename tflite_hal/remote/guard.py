"""Vendors' code in this process: whatever it raises is a DelegateError."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from tflite_hal.errors import DelegateError, TfliteHalError
from tflite_hal.model import Model, TensorSpec
from tflite_hal.session import Arrays, Call, Coverage, Session, Shapes

__all__ = ["GuardedSession", "check_outputs", "guarded"]

_Result = TypeVar("_Result")


def guarded(delegate: str, method: str, work: Callable[[], _Result]) -> _Result:
    """Do what calls one of a delegate's methods.

    Raises:
        DelegateError: it raised what is no error of ours; names the delegate, the method and the error.
    """
    # A vendor's code over any model and machine: all that it raises is its own failure.
    try:
        return work()
    except TfliteHalError:
        raise
    except Exception as error:
        reason = f"delegate {delegate}: {method}() failed: {type(error).__name__}: {error}"
        raise DelegateError(reason) from error


def check_outputs(dtypes: Sequence[np.dtype[Any]], specs: Sequence[TensorSpec], model: str) -> None:
    """Refuse answers that are not the model's outputs; their shapes may depend on the inputs' values.

    Raises:
        DelegateError: another number of outputs, or another type.
    """
    if len(dtypes) != len(specs):
        raise DelegateError(f"{model}: run gave {len(dtypes)} outputs, the model has {len(specs)}")
    for dtype, spec in zip(dtypes, specs, strict=True):
        if dtype != spec.dtype and not spec.dtype.hasobject:  # that stands for types numpy lacks, too
            raise DelegateError(f"{model}: run gave {dtype} for output {spec.name!r}, which is {spec.type}")


class GuardedSession(Session):
    """A third party's session; what it raises is told as a worker would."""

    def __init__(self, delegate: str, model: Model, inner: Session) -> None:
        """Guard a session; raises DelegateError where it is none."""
        if not isinstance(inner, Session):
            raise DelegateError(f"delegate {delegate}: open() gave {inner!r}, which is no Session")
        self._delegate = delegate
        self._model = model
        self._inner = inner
        self.threading = inner.threading
        self.coverage: Coverage | None = inner.coverage

    def prepare(self, signature: str | None = None, shapes: Shapes | None = None) -> Call:
        """See :meth:`Session.prepare`."""
        call = self._guarded("prepare", lambda: self._inner.prepare(signature, shapes))
        outputs = self._model.info.interface(signature, self._model.name).outputs
        return _GuardedCall(self, call, lambda given: check_outputs(given, outputs, self._model.name))

    def reset(self) -> None:
        """See :meth:`Session.reset`."""
        self._guarded("reset", self._inner.reset)

    def close(self) -> None:
        """See :meth:`Session.close`."""
        self._guarded("close", self._inner.close)

    def _guarded(self, method: str, work: Callable[[], _Result]) -> _Result:
        return guarded(self._delegate, method, work)


class _GuardedCall(Call):
    def __init__(
        self, session: GuardedSession, inner: Call, check: Callable[[Sequence[np.dtype[Any]]], None]
    ) -> None:
        self._session = session
        self._inner = inner
        self._check = check

    def run(self, arrays: Arrays) -> list[np.ndarray[Any, Any]]:
        """See :meth:`Call.run`."""
        return self._session._guarded("run", lambda: self._checked(arrays))

    def _checked(self, arrays: Arrays) -> list[np.ndarray[Any, Any]]:
        results = self._inner.run(arrays)
        self._check([array.dtype for array in results])
        return results

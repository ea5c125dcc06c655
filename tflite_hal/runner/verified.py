"""From what was asked for to a comparison of everything that fits it."""

from __future__ import annotations

import os
from collections.abc import Sequence

from tflite_hal.accuracy import Check
from tflite_hal.model import read_model
from tflite_hal.runner.choice import find_for
from tflite_hal.runner.request import Request, terms_of
from tflite_hal.runtime import load_runtime
from tflite_hal.selection import Selection, Wish
from tflite_hal.trial import verify

__all__ = ["verified"]


def verified(
    model: str | os.PathLike[str] | bytes,
    *,
    delegates: Sequence[str] | None = None,
    device: str | None = None,
    runtime: str | None = None,
    check: Check | None = None,
) -> Selection:
    """Compare what fits with the runtime's built-in kernels: a record of attempts without a winner.

    The arguments are those of :meth:`Runner.auto`, but the CPU takes part only where it fits them.

    Raises:
        ModelError, InputError, DelegateError, RuntimeUnavailableError: as :meth:`Runner.auto`.
    """
    opened = read_model(model)
    terms = terms_of(opened, check=check)
    wish = Wish(delegates, device, cpu_last=False)
    request = Request(wish, explicit=True, runtime=runtime, terms=terms)
    selection, (found, refused, _), _, _ = find_for(opened, load_runtime(runtime), request)
    selection.attempts = [*verify(found, opened, terms), *refused]
    return selection

"""What a runner is asked for, checked."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, NamedTuple

from tflite_hal.accuracy import Check, validated
from tflite_hal.errors import DelegateError, InputError, ProfileError
from tflite_hal.external import NAMED, named_library
from tflite_hal.model import Model
from tflite_hal.selection import DELEGATES, Wish, allowed_delegates
from tflite_hal.tensors import arrange, convert
from tflite_hal.trial import Terms
from tflite_hal.verdicts import Verdicts

__all__ = [
    "MOST_THREADS",
    "Request",
    "automatic_request",
    "explicit_request",
    "terms_of",
]


#: More CPU threads than that are a mistake; of a hundred thousand the runtimes die.
MOST_THREADS: Final = 1024


class Request(NamedTuple):
    """What a runner was asked for; kept, so that a forked child can open it again."""

    wish: Wish
    explicit: bool
    profile: str | None = None  #: name or path
    runtime: str | None = None
    terms: Terms = Terms()
    fallback: bool = True  #: whether another candidate answers where one fails while running
    library: Mapping[str, Any] | None = None  #: description of one that the caller names
    recheck: int = 0  #: every so many answers are compared with the built-in kernels'; 0 none

    @property
    def falls_back(self) -> bool:
        """Whether another candidate may answer."""
        return self.fallback and not self.explicit

    def completed(
        self, profile: str | os.PathLike[str] | None, runtime: str | None, recheck: int, variants: bool
    ) -> Request:
        """Return it with what both ways of asking take.

        Raises:
            InputError, ProfileError: a value is none of those allowed.
        """
        return self._replace(
            wish=self.wish._replace(variants=_checked_switch(variants, "variants")),
            profile=_checked_profile(profile),
            runtime=runtime,
            recheck=_checked_count(recheck),
        )


def explicit_request(
    device: str | None,
    delegate: str | None,
    library: str | os.PathLike[str] | None,
    options: Mapping[str, Any] | None,
    threads: int | None,
) -> Request:
    """Return what ``Runner(...)`` asks for: the plain CPU where none of the three is named.

    Raises:
        DelegateError: options without a delegate, or a delegate beside a library.
        InputError: a value is none of those allowed.
    """
    if delegate is not None and library is not None:
        raise DelegateError("delegate= and delegate_library= name two delegates", remedy="give one of them")
    described = _described(library, options, "delegate= or delegate_library=" if delegate is None else "")
    names = None if delegate is None else (_checked_name(delegate, "delegate"),)
    if described is not None:
        names, options = (NAMED,), None
    place = "cpu" if device is None and names is None else _checked_device(device)
    wish = Wish(names, place, (), False, _checked_threads(threads), options)
    return Request(wish, explicit=True, library=described)


def automatic_request(
    delegates: Collection[str] | None,
    exclude: Collection[str],
    device: str | None,
    library: str | os.PathLike[str] | None,
    options: Mapping[str, Any] | None,
    threads: int | None,
    fallback: str,
) -> Request:
    """Return what ``Runner.auto(...)`` asks for.

    Raises:
        DelegateError, InputError: a value is none of those allowed.
    """
    if not isinstance(fallback, str) or fallback not in ("auto", "never"):
        raise InputError(f"fallback={fallback!r} is not 'auto' or 'never'")
    described = _described(library, options, "delegate= to Runner(...), or delegate_library=")
    names, left_out = _checked_names(delegates, "delegates"), _checked_names(exclude, "exclude") or ()
    if names is not None and described is not None and NAMED not in names:
        names = (*names, NAMED)
    wish = Wish(names, _checked_device(device), left_out, True, _checked_threads(threads))
    if names is None and allowed_delegates() is not None:
        named = (*(allowed_delegates() or ()), *([NAMED] if described is not None else []))
        wish = wish._replace(delegates=named, named_by=f"{DELEGATES}=")
    return Request(wish, explicit=False, fallback=fallback == "auto", library=described)


def _described(
    library: str | os.PathLike[str] | None, options: Mapping[str, Any] | None, needed: str
) -> dict[str, Any] | None:
    """Return the description of a library that is named; ``needed``: what options need otherwise."""
    if options is not None and not isinstance(options, Mapping):
        raise DelegateError(f"options={options!r} is not a mapping of names to values")
    if library is None:
        if options and needed:
            raise DelegateError("options= belong to a delegate", remedy=f"give {needed} as well")
        return None
    return named_library(_checked_path(library, "delegate_library"), options or {})


def _checked_name(given: str, name: str) -> str:
    if not isinstance(given, str):
        raise DelegateError(f"{name}={given!r} is not a name")
    return given


def _checked_device(given: str | None) -> str | None:
    return None if given is None else _checked_name(given, "device")


def _checked_threads(threads: int | None) -> int | None:
    """Return a number of threads that is one, or None.

    Raises:
        InputError: it is no positive integer, or beyond :data:`MOST_THREADS`.
    """
    if threads is None:
        return None
    if isinstance(threads, bool) or not isinstance(threads, int) or not 1 <= threads <= MOST_THREADS:
        raise InputError(f"threads={threads!r} is not an integer from 1 to {MOST_THREADS}")
    return threads


def _checked_count(number: int) -> int:
    """Return every how many answers are to be compared.

    Raises:
        InputError: it is none.
    """
    if isinstance(number, bool) or not isinstance(number, int) or number < 0:
        raise InputError(f"recheck={number!r} is not a number of answers")
    return number


def _checked_switch(given: bool, name: str) -> bool:
    """Return a value that is True or False.

    Raises:
        InputError: it is neither.
    """
    if not isinstance(given, bool):
        raise InputError(f"{name}={given!r} is not True or False")
    return given


def _checked_profile(given: str | os.PathLike[str] | None) -> str | None:
    """Return the name or path of a device profile.

    Raises:
        ProfileError: it is neither.
    """
    try:
        return None if given is None else _checked_path(given, "profile", " a name or")
    except DelegateError as error:
        raise ProfileError(error.reason) from error


def _checked_path(given: str | os.PathLike[str], name: str, also: str = "") -> str:
    try:
        path: str | bytes = os.fspath(given)
    except TypeError as error:
        raise DelegateError(f"{name}={given!r} is not{also} a path") from error
    if isinstance(path, bytes):
        raise DelegateError(f"{name}={given!r} is not{also} a path")
    return path


def checked_listener(given: Any) -> Any:
    """Return what is to be called with events.

    Raises:
        InputError: it can't be called.
    """
    if given is not None and not callable(given):
        raise InputError(f"on_event={given!r} can't be called")
    return given


def _checked_names(given: Collection[str] | None, name: str) -> tuple[str, ...] | None:
    """Return a sequence of names as a tuple, None as it is.

    Raises:
        DelegateError: it is a string, or not a collection of strings.
    """
    if given is None:
        return None
    if isinstance(given, str):
        raise DelegateError(f"{name}={given!r} is a string", remedy=f"give a sequence: {name}=[{given!r}]")
    try:
        words = tuple(given)
    except TypeError as error:
        raise DelegateError(f"{name}={given!r} is not a sequence of names") from error
    if not all(isinstance(word, str) for word in words):
        raise DelegateError(f"{name}={given!r} is not a sequence of names")
    return words


def terms_of(
    model: Model,
    *,
    check: Check | None,
    prefer: str = "order",
    min_coverage: float = 0.0,
    isolate: str | bool = "auto",
    open_timeout: float | None = None,
    timeout: float | None = None,
    verdicts: Verdicts | None = None,
) -> Terms:
    """Return the terms of a choice, with the check's samples as the model's tensors.

    Raises:
        InputError: a value is none of those allowed; a sample does not fit the model.
    """
    if not isinstance(prefer, str) or prefer not in ("latency", "throughput", "order"):
        raise InputError(f"prefer={prefer!r} is not 'latency', 'throughput' or 'order'")
    if not (isinstance(isolate, bool) or (isinstance(isolate, str) and isolate == "auto")):
        raise InputError(f"isolate={isolate!r} is not 'auto', True or False")
    share = min_coverage if isinstance(min_coverage, (int, float)) else -1
    if isinstance(min_coverage, bool) or not 0 <= share <= 1:
        raise InputError(f"min_coverage={min_coverage!r} is not a share from 0 to 1")
    limits = {}
    for stage, name, value in (("open", "open_timeout", open_timeout), ("run", "timeout", timeout)):
        if value is not None:
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1e6:
                raise InputError(f"{name}={value!r} is not a number of seconds")
            limits[stage] = float(value)
    if check is not None and not isinstance(check, Check):
        raise InputError(f"check={check!r} is not a tflite_hal.Check")
    of_profile = check is None
    check = validated(Check() if check is None else check)
    samples = [_converted(model, sample) for sample in check.samples or ()]
    return Terms(
        check,
        samples,
        prefer,
        isolate,
        limits,
        of_profile,
        verdicts or Verdicts(None),
        min_coverage=float(share),
    )


def _converted(model: Model, sample: Any) -> list[Any]:
    interface = model.info.interface(None, model.name)
    given: Sequence[Any] = arrange(interface.renamed(sample), interface.input_names, interface.inputs)
    return [
        convert(value, spec, lambda message: None).array
        for value, spec in zip(given, interface.inputs, strict=True)
    ]

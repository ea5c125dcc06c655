"""The text of a remembered file: JSON with the sum of what it says, so that damage is never believed."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any, Final

__all__ = ["MAX_BYTES", "canonical", "decode", "encode", "key", "storable"]

#: The longest file that is read or written.
MAX_BYTES: Final = 64 * 1024
_FORMAT: Final = 1
#: The longest text of an attempt: the last words of a library can be megabytes.
_MAX_TEXT: Final = 4000


def key(parts: Mapping[str, Any]) -> str:
    """Return the name under which is remembered what was found with these parts.

    Raises:
        TypeError, ValueError: a part is not JSON, or not a finite number.
    """
    return _sum(dict(parts))


def encode(body: Mapping[str, Any]) -> bytes:
    """Return the text of a file.

    Raises:
        ValueError: it would be too long to be read again.
    """
    text = canonical({"format": _FORMAT, "sum": _sum(dict(body)), "body": dict(body)})
    if len(text) >= MAX_BYTES:
        raise ValueError(f"{len(text):,} bytes are too many to remember, {MAX_BYTES:,} is the limit")
    return text.encode("ascii") + b"\n"


def decode(text: bytes) -> dict[str, Any]:
    """Return what a file says.

    Raises:
        ValueError: it is damaged, was edited, or another version wrote it.
    """
    try:
        return _body(text)
    except RecursionError as error:
        raise ValueError("nested too deep") from error


def _body(text: bytes) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except ValueError as error:
        raise ValueError(f"not JSON: {error}") from error
    if not isinstance(document, dict) or not isinstance(body := document.get("body"), dict):
        raise ValueError("not a file of this package")
    if document.get("format") != _FORMAT:
        raise ValueError(
            f"written in format {str(document.get('format'))[:20]}, this version reads {_FORMAT}"
        )
    if document.get("sum") != _sum(body):
        raise ValueError("damaged or edited: its sum does not match")
    return body


def storable(value: Any) -> Any:
    """Return what can be written of an attempt: long texts cut, numbers that JSON lacks as None."""
    if isinstance(value, Mapping):
        return {str(name): storable(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [storable(one) for one in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if value is None or isinstance(value, (bool, int)):
        return value
    text = value if isinstance(value, str) else str(value)
    # The end of a library's words says more than their beginning, and the start says who speaks.
    return text if len(text) <= _MAX_TEXT else f"{text[: _MAX_TEXT // 2]} … {text[-_MAX_TEXT // 2 :]}"


def _sum(value: Any) -> str:
    return hashlib.sha256(canonical(value).encode("ascii")).hexdigest()


def canonical(value: Any) -> str:
    """Return the one text of a JSON value, the same before writing and after reading."""
    # Through JSON once before sorting: keys that are no text, and halves of surrogate pairs, change on
    # the way, and what is read back must give the same text as what was written.
    plain = json.loads(json.dumps(value, allow_nan=False))
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), allow_nan=False)

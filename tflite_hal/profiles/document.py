"""A YAML document of plain values, bounded in size and depth, and the places in it that messages name."""

from __future__ import annotations

import math
from typing import Any, Final, NamedTuple

from tflite_hal.errors import ProfileError

__all__ = ["MAX_BYTES", "At", "parse_yaml", "show"]

#: The longest profile that is read.
MAX_BYTES: Final = 256 * 1024
_MAX_DEPTH: Final = 8


class At(NamedTuple):
    """A place in a profile, for messages."""

    file: str
    key: str = ""

    def child(self, key: str | int) -> At:
        """Return the place of an entry."""
        if isinstance(key, int):
            return At(self.file, f"{self.key}[{key}]")
        shown = key if key.isprintable() and len(key) <= 60 else show(key)
        return At(self.file, f"{self.key}.{shown}" if self.key else shown)

    def fail(self, expected: str, given: str) -> ProfileError:
        """Return the error to raise."""
        return ProfileError(f"{self}: expected {expected}, given {given}")

    def __str__(self) -> str:
        return f"{self.file}: {self.key}" if self.key else self.file


def parse_yaml(text: str, at: At) -> Any:
    """Read one document of plain values: no anchors, aliases or tags, bounded in size and depth.

    Raises:
        ProfileError: names the place, what was expected and what was given.
    """
    import yaml

    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    event: Any
    depth = 0
    try:
        for event in yaml.parse(text[: MAX_BYTES + 1], loader):  # before anything is built from it
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > _MAX_DEPTH or len(text) > MAX_BYTES:
                raise at.fail(f"at most {MAX_BYTES} bytes and {_MAX_DEPTH} levels", "more")
            if getattr(event, "anchor", None) or getattr(event, "tag", None):
                line = event.start_mark.line + 1
                raise at.fail("plain values", f"an anchor, alias or tag in line {line}")
        return _value(yaml.compose(text, loader), at)
    except (yaml.YAMLError, UnicodeError) as error:
        raise at.fail("one YAML document", " ".join(str(error).split())) from error


def _value(node: Any, at: At) -> Any:
    if node is None or node.id == "scalar":
        return node and _scalar(node.tag.rpartition(":")[2], node.value, at)
    if node.id == "sequence":
        return [_value(item, at.child(index)) for index, item in enumerate(node.value)]
    items: dict[str, Any] = {}
    for key_node, item in node.value:
        key = _value(key_node, at)
        if not isinstance(key, str) or key in items:
            raise at.fail("keys that are text, each once", f"the key {show(key)}")
        items[key] = _value(item, at.child(key))
    return items


def _scalar(kind: str, text: str, at: At) -> str | int | float | bool | None:
    """Return a scalar's value; what YAML 1.1 reads in surprising ways (on, 010, dates) is refused."""
    if kind in ("str", "null"):
        return text if kind == "str" else None
    if kind == "bool" and text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        if kind == "int" and abs(whole := int(text, 0)) < 2**63:
            return whole
        if kind == "float" and math.isfinite(real := float(text)):
            return real
    except ValueError:
        pass  # sexagesimal, octal, too long: the message below
    raise at.fail("text in quotes, a number, or true or false", show(text))


def show(value: Any) -> str:
    """Return a value as messages show it: short, without control characters."""
    shown = {dict: "a mapping", list: "a list", type(None): "nothing"}.get(type(value), repr(value))
    return shown if len(shown) <= 80 else shown[:77] + "..."

"""Device profiles: YAML about a family of machines, loaded, validated and matched to a host.

``device_profiles/README.md`` shows the schema by example. Profiles order what is tried; measurements
decide. A profile that names libraries or environment is code, so profiles come from the package, from
installed plugins, or from files that only the user (or root) can change.

**Specificity** decides between profiles that match. What identifies a machine (``compatible``,
``model_prefix``, ``dmi_*``, ``usb``, ``pci``) counts 1000 a key, and ``compatible`` up to 900 more the
earlier the board lists the string, since device trees go from board to chip. Each required CPU feature
counts 10 (nine at most), ``arch`` and ``os`` 1 each: so any identification beats any features, and any
features beat ``arch`` and ``os``. A fact the host does not know never fulfils a requirement.
"""

from __future__ import annotations

import math
import os
import re
import shlex
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from tflite_hal.errors import ProfileError

if TYPE_CHECKING:
    from tflite_hal.host import HostInfo

__all__ = [
    "PROVENANCE",
    "DeviceProfile",
    "Fact",
    "Match",
    "ProfileMatch",
    "Quirk",
    "explain",
    "load_profile",
    "load_profiles",
    "match_profile",
    "parse_profile",
    "profile_folders",
]

#: How a fact came to be known: run by this project, said by the vendor, read in published code or data,
#: or concluded from the other facts.
PROVENANCE: Final = ("measured", "vendor", "source", "inferred")

_MAX_BYTES: Final = 256 * 1024
_MAX_DEPTH: Final = 8
_MAX_ENTRIES: Final = 100
_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})


class Match(NamedTuple):
    """How to recognise a machine: every key that is given must hold."""

    arch: str = ""  #: "x86_64", "aarch64"
    os: str = ""  #: a word of ``HostInfo.os_id``, such as "linux"
    compatible: tuple[str, ...] = ()  #: any of these device-tree strings
    model_prefix: tuple[str, ...] = ()  #: the board's model begins with any of these
    dmi_vendor: str = ""  #: beginning of the DMI vendor
    dmi_product: str = ""  #: beginning of the DMI product
    features: tuple[str, ...] = ()  #: all of these CPU features
    usb: tuple[str, ...] = ()  #: any of these "vvvv:dddd"
    pci: tuple[str, ...] = ()  #: any of these "vvvv:dddd"
    any_of: tuple[Match, ...] = ()  #: alternatives: one of them must hold in full


class Fact(NamedTuple):
    """A statement and where it comes from: a quirk, or the grounds of a part of the profile."""

    text: str
    provenance: str  #: one of :data:`PROVENANCE`
    source: tuple[str, ...]
    applies: str | None = None  #: when it holds, where not always


#: A quirk of the machine is a fact worth showing to its user.
Quirk: TypeAlias = Fact


class DeviceProfile(NamedTuple):
    """What is known about a family of machines."""

    name: str
    title: str
    match: Match
    delegates: tuple[str, ...] = ()  #: in the order to try them
    threads: tuple[int, ...] = ()  #: thread counts to try, best first; () is no opinion
    options: Mapping[str, Mapping[str, str | int | float | bool]] = _NOTHING  #: by delegate
    environment: Mapping[str, Mapping[str, str]] = _NOTHING  #: by delegate
    quirks: tuple[Quirk, ...] = ()
    sources: Mapping[str, tuple[Fact, ...]] = _NOTHING  #: the grounds, by key of the profile
    path: str = ""  #: the file it was read from

    def to_dict(self) -> dict[str, Any]:
        """Return it JSON-ready; but for ``path`` and the lacking ``schema`` it is the file's content."""
        plain: dict[str, Any] = _plain(self)
        return plain


class ProfileMatch(NamedTuple):
    """A profile that fits a host, and why."""

    profile: DeviceProfile
    specificity: int
    reasons: tuple[str, ...]  #: "compatible raspberrypi,5-model-b", "arch aarch64"


def _plain(value: Any) -> Any:
    """Turn named tuples into dicts of what they give, other tuples into lists."""
    if hasattr(value, "_asdict"):
        value = {key: item for key, item in value._asdict().items() if item not in ("", (), None, {})}
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def profile_folders(extra: Iterable[str | Path] = ()) -> list[Path]:
    """Return where profiles are read from: the package, TFLITE_HAL_PROFILE_PATH, then ``extra``.

    Entries of TFLITE_HAL_PROFILE_PATH are separated by ``os.pathsep`` and may be files.
    """
    return [path for path, _ in _places(extra)]


def load_profiles(
    extra_folders: Iterable[str | Path] = (),
) -> tuple[tuple[DeviceProfile, ...], tuple[ProfileError, ...]]:
    """Load every profile there is, and tell what is wrong with the others.

    Args:
        extra_folders: folders of installed plugins; trusted as the plugins themselves.

    Of two profiles with one name the first found wins, so a built-in can't be replaced.
    """
    found: dict[str, DeviceProfile] = {}
    errors: list[ProfileError] = []
    for place, check_owner in _places(extra_folders):
        try:
            files = _files(place)
        except ProfileError as error:
            errors.append(error)
            continue
        for file in files:
            try:
                _add(load_profile(file, check_owner=check_owner), found)
            except ProfileError as error:
                errors.append(error)
    return tuple(found.values()), tuple(errors)


def load_profile(path: str | Path, *, check_owner: bool = False) -> DeviceProfile:
    """Read and validate one profile.

    Args:
        path: the file; naming it here is trusting it.
        check_owner: refuse a file that, or whose folder, others than the user and root can change,
            as is done for TFLITE_HAL_PROFILE_PATH.

    Raises:
        ProfileError: names the file, the key path, what was expected and what was given.
    """
    file = Path(path)
    if check_owner:
        for part in dict.fromkeys((file, file.parent, Path(os.path.realpath(file)).parent)):
            _require_owned(part, _At(str(file)))
    return parse_profile(_read(file), str(file))


def _places(extra: Iterable[str | Path]) -> list[tuple[Path, bool]]:
    """Return files and folders, each with whether its owner has to be checked."""
    inside = Path(__file__).parent / "device_profiles"
    beside = Path(__file__).parent.parent / "device_profiles"
    named = os.environ.get("TFLITE_HAL_PROFILE_PATH", "").split(os.pathsep)
    return [
        (inside if inside.is_dir() or not beside.is_dir() else beside, False),
        *((Path(entry), True) for entry in named if entry),
        *((Path(entry), False) for entry in extra),
    ]


def _files(place: Path) -> list[Path]:
    try:
        if not place.is_dir():
            return [place]
        return sorted(file for file in place.iterdir() if file.suffix in (".yaml", ".yml"))
    except OSError as error:
        raise ProfileError(f"{place}: can't be listed: {error.strerror}") from error


def _add(profile: DeviceProfile, found: dict[str, DeviceProfile]) -> None:
    first = found.setdefault(profile.name, profile)
    if Path(first.path) != Path(profile.path):
        raise _At(profile.path, "name").fail("a name of its own", f"{profile.name!r}, used by {first.path}")


def _read(file: Path) -> str:
    try:
        if not file.is_file():
            raise ProfileError(f"{file}: no such file")
        with file.open("rb") as stream:
            return stream.read(_MAX_BYTES + 1).decode("utf-8")
    except OSError as error:
        raise ProfileError(f"{file}: can't be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ProfileError(f"{file}: expected UTF-8 text, given {error.reason} at {error.start}") from error


def _require_owned(path: Path, at: _At) -> None:
    """Raise unless only the user and root can change ``path``."""
    if os.name == "nt":
        return
    try:
        info = path.stat()
    except OSError as error:
        raise ProfileError(f"{at}: {path}: {error.strerror}") from error
    quoted = shlex.quote(str(path))
    if info.st_uid not in (0, os.geteuid()):
        reason = f"{at}: {path} belongs to user {info.st_uid}, neither to you nor to root"
        raise ProfileError(reason, remedy=f"copy it to a folder of yours, or chown {os.geteuid()} {quoted}")
    if info.st_mode & 0o022:
        reason = f"{at}: {path} has mode {info.st_mode & 0o7777:04o}: others could change what is run"
        raise ProfileError(reason, remedy=f"chmod go-w {quoted}")


class _At(NamedTuple):
    """A place in a profile, for messages."""

    file: str
    key: str = ""

    def child(self, key: str | int) -> _At:
        if isinstance(key, int):
            return _At(self.file, f"{self.key}[{key}]")
        shown = key if key.isprintable() and len(key) <= 60 else _show(key)
        return _At(self.file, f"{self.key}.{shown}" if self.key else shown)

    def fail(self, expected: str, given: str) -> ProfileError:
        return ProfileError(f"{self}: expected {expected}, given {given}")

    def __str__(self) -> str:
        return f"{self.file}: {self.key}" if self.key else self.file


_Check: TypeAlias = Callable[[Any, _At], Any]


def parse_profile(text: str, path: str) -> DeviceProfile:
    """Validate the text of a profile; ``path`` is for messages and for ``DeviceProfile.path``.

    Raises:
        ProfileError: names the file, the key path, what was expected and what was given.
    """
    at = _At(path)
    fields = _record(_PROFILE, "schema", "name", "title", "match", "sources")(_parse_yaml(text, at), at)
    for key in _SOURCES:
        if key in fields and key not in fields["sources"]:
            raise at.child("sources").child(key).fail(f"the sources of {key!r}", "none")
    del fields["schema"]
    return DeviceProfile(**fields, path=path)


def _parse_yaml(text: str, at: _At) -> Any:
    """Read one document of plain values: no anchors, aliases or tags, bounded in size and depth."""
    import yaml

    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    event: Any
    depth = 0
    try:
        for event in yaml.parse(text[: _MAX_BYTES + 1], loader):  # before anything is built from it
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > _MAX_DEPTH or len(text) > _MAX_BYTES:
                raise at.fail(f"at most {_MAX_BYTES} bytes and {_MAX_DEPTH} levels", "more")
            if getattr(event, "anchor", None) or getattr(event, "tag", None):
                line = event.start_mark.line + 1
                raise at.fail("plain values", f"an anchor, alias or tag in line {line}")
        return _value(yaml.compose(text, loader), at)
    except (yaml.YAMLError, UnicodeError) as error:
        raise at.fail("one YAML document", " ".join(str(error).split())) from error


def _value(node: Any, at: _At) -> Any:
    if node is None or node.id == "scalar":
        return node and _scalar(node.tag.rpartition(":")[2], node.value, at)
    if node.id == "sequence":
        return [_value(item, at.child(index)) for index, item in enumerate(node.value)]
    items: dict[str, Any] = {}
    for key_node, item in node.value:
        key = _value(key_node, at)
        if not isinstance(key, str) or key in items:
            raise at.fail("keys that are text, each once", f"the key {_show(key)}")
        items[key] = _value(item, at.child(key))
    return items


def _scalar(kind: str, text: str, at: _At) -> str | int | float | bool | None:
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
    raise at.fail("text in quotes, a number, or true or false", _show(text))


def _show(value: Any) -> str:
    shown = {dict: "a mapping", list: "a list", type(None): "nothing"}.get(type(value), repr(value))
    return shown if len(shown) <= 80 else shown[:77] + "..."


def _that(test: Callable[[Any], Any], expected: str) -> _Check:
    def check(value: Any, at: _At) -> Any:
        if not test(value):
            raise at.fail(expected, _show(value))
        return value

    return check


def _matching(pattern: str, expected: str) -> _Check:
    return _that(lambda value: isinstance(value, str) and re.fullmatch(pattern, value), expected)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and all(char.isprintable() or char == "\n" for char in value)


def _list_of(item: _Check) -> _Check:
    def check(value: Any, at: _At) -> tuple[Any, ...]:
        if not isinstance(value, list) or not 1 <= len(value) <= _MAX_ENTRIES:
            raise at.fail(f"a list of 1 to {_MAX_ENTRIES} entries", _show(value))
        for index, entry in enumerate(value):
            if entry in value[:index]:
                raise at.child(index).fail("each entry once", _show(entry))
        return tuple(item(entry, at.child(index)) for index, entry in enumerate(value))

    return check


def _record(known: Mapping[str, _Check], *required: str) -> _Check:
    def check(value: Any, at: _At) -> dict[str, Any]:
        if not isinstance(value, dict) or not value:
            raise at.fail(f"a mapping with keys of {', '.join(known)}", _show(value))
        for key in value:
            if key not in known:
                raise at.child(key).fail(f"a known key, {_nearest(key, known)}", _show(key))
        for key in required:
            if key not in value:
                raise at.child(key).fail("this key", "nothing")
        return {key: known[key](item, at.child(key)) for key, item in value.items()}

    return check


def _nearest(key: str, known: Iterable[str]) -> str:
    import difflib

    close = difflib.get_close_matches(key, known, 1, 0.5)
    return f"such as {close[0]!r}" if close else f"one of {', '.join(known)}"


def _table_of(name: _Check, entry: Callable[[str, Any, _At], Any]) -> _Check:
    def check(value: Any, at: _At) -> dict[str, Any]:
        if not isinstance(value, dict) or not value:
            raise at.fail("a mapping with at least one entry", _show(value))
        return {name(key, at.child(key)): entry(key, item, at.child(key)) for key, item in value.items()}

    return check


_PATH_OPTION: Final = re.compile(r"library|path|(^|[^a-z])(file|dir|folder)([^a-z]|$)", re.IGNORECASE)


def _option(name: str, value: Any, at: _At) -> str | int | float | bool:
    """Check an option's value; one that names a file or folder must not depend on the working one."""
    if not isinstance(value, int | float) and not _is_text(value):
        raise at.fail("text, a number, or true or false", _show(value))
    absolute = not isinstance(value, str) or value.startswith("/") or Path(value).is_absolute()
    if value != "" and not absolute and _PATH_OPTION.search(name):
        raise at.fail("an absolute path", _show(value))
    checked: str | int | float | bool = value
    return checked


def _variable(name: str, value: Any, at: _At) -> str:
    """Check an environment variable; none may bring code from where others can write."""
    upper, text = name.upper(), str(_text(value, at))
    refused = upper == "PATH" or upper.startswith(("LD_", "DYLD_", "PYTHON"))
    if refused and upper != "LD_LIBRARY_PATH":
        raise at.fail("a variable that does not change what programs load", name)
    if upper.endswith("LIBRARY_PATH"):
        for folder in re.split("[:;]", text):  # ld.so takes both
            _library_folder(folder, at)
    return text


def _library_folder(folder: str, at: _At) -> None:
    path = Path(folder)
    if not path.is_absolute() or "$" in folder:
        raise at.fail("absolute folders", _show(folder))
    while not os.path.lexists(path):  # where it is missing: nobody else may be able to create it
        path = path.parent
    _require_owned(path, at)


def _fact(*required: str) -> _Check:
    record = _record(
        {"text": _text, "provenance": _provenance, "source": _list_of(_text), "applies": _text}, *required
    )
    return lambda value, at: Fact(**{"text": "", **record(value, at)})


def _match(known: Mapping[str, _Check]) -> _Check:
    record = _record(known)
    return lambda value, at: Match(**record(value, at))


_text: Final = _that(lambda value: _is_text(value) and value.strip(), "text (in quotes, if it is a number)")
_name: Final = _matching(r"[a-z0-9]+([._-][a-z0-9]+)*", "a name of a-z, 0-9 and - _ . between them")
_bus_id: Final = _matching(r"[0-9a-f]{4}:[0-9a-f]{4}", 'an id like "1a6e:089a", in lower case and quotes')
_variable_name: Final = _matching(r"[A-Za-z_][A-Za-z0-9_]*", "the name of an environment variable")
_provenance: Final = _that(lambda value: value in PROVENANCE, " or ".join(PROVENANCE))
_thread_count: Final = _that(lambda n: type(n) is int and 0 < n <= 1024, "a whole number from 1 to 1024")
_options: Final = _table_of(_text, _option)
_variables: Final = _table_of(_variable_name, _variable)
_ALTERNATIVE: Final[dict[str, _Check]] = {
    **dict.fromkeys(("arch", "os", "dmi_vendor", "dmi_product"), _text),
    **dict.fromkeys(("compatible", "model_prefix", "features"), _list_of(_text)),
    **dict.fromkeys(("usb", "pci"), _list_of(_bus_id)),
}
#: The keys whose grounds must be told when they are given.
_SOURCES: Final = dict.fromkeys(
    ("match", "delegates", "threads", "options", "environment"), _list_of(_fact("provenance", "source"))
)
_PROFILE: Final[dict[str, _Check]] = {
    "schema": _that(lambda value: type(value) is int and value == 1, "1"),
    "name": _name,
    "title": _text,
    "match": _match({**_ALTERNATIVE, "any_of": _list_of(_match(_ALTERNATIVE))}),
    "delegates": _list_of(_name),
    "threads": _list_of(_thread_count),
    "options": _table_of(_name, lambda _, value, at: _options(value, at)),
    "environment": _table_of(_name, lambda _, value, at: _variables(value, at)),
    "quirks": _list_of(_fact("text", "provenance", "source")),
    "sources": _record(_SOURCES, "match"),
}


class _Verdict(NamedTuple):
    score: int
    hits: tuple[str, ...]
    misses: tuple[str, ...]


def match_profile(host: HostInfo, profiles: Iterable[DeviceProfile]) -> ProfileMatch | None:
    """Return the most specific profile that fits, or None; of equals the first by name, saying so."""
    fitting = [
        ProfileMatch(profile, verdict.score, verdict.hits)
        for profile, verdict in ((profile, _judge(profile.match, host)) for profile in profiles)
        if not verdict.misses
    ]
    fitting.sort(key=lambda match: (-match.specificity, match.profile.name))
    if not fitting:
        return None
    best = fitting[0]
    tied = [match.profile.name for match in fitting[1:] if match.specificity == best.specificity]
    if not tied:
        return best
    return best._replace(reasons=(*best.reasons, f"tie with {', '.join(tied)}: the first by name"))


def explain(host: HostInfo, profiles: Iterable[DeviceProfile]) -> list[tuple[str, bool, str]]:
    """Return (name, whether it matches, why or why not) for each profile, in the order given."""
    rows = []
    for profile in profiles:
        verdict = _judge(profile.match, host)
        rows.append((profile.name, not verdict.misses, "; ".join(verdict.misses or verdict.hits)))
    return rows


def _judge(match: Match, host: HostInfo) -> _Verdict:
    verdicts = [
        _judge_key(key, (wanted,) if isinstance(wanted, str) else wanted, host)
        for key, wanted in match._asdict().items()
        if wanted and key != "any_of"
    ]
    if match.any_of:
        verdicts.append(_judge_any(match.any_of, host))
    return _Verdict(
        sum(verdict.score for verdict in verdicts),
        tuple(hit for verdict in verdicts for hit in verdict.hits),
        tuple(miss for verdict in verdicts for miss in verdict.misses),
    )


def _judge_any(alternatives: Iterable[Match], host: HostInfo) -> _Verdict:
    verdicts = [_judge(alternative, host) for alternative in alternatives]
    missed = ", and ".join("; ".join(verdict.misses) for verdict in verdicts)
    holding = [verdict for verdict in verdicts if not verdict.misses]
    return max(holding, key=lambda verdict: verdict.score, default=_Verdict(0, (), (missed,)))


def _judge_key(key: str, wanted: tuple[str, ...], host: HostInfo) -> _Verdict:
    label, known = key.removesuffix("_prefix"), _FACTS[key](host)
    if known is None:
        return _Verdict(0, (), (f"{label} unknown, needs {' or '.join(wanted)}",))
    if key == "features":
        lacking = ", ".join(feature for feature in wanted if feature not in known)
        misses = (f"features lack {lacking}",) if lacking else ()
        return _Verdict(10 * min(len(wanted), 9), (f"features {', '.join(wanted)}",), misses)
    prefix = key in ("model_prefix", "dmi_vendor", "dmi_product")
    for index, value in enumerate(known):
        if value.startswith(wanted) if prefix else value in wanted:
            nearness = 100 * max(0, 9 - index) if key == "compatible" else 0
            return _Verdict(1 if key in ("arch", "os") else 1000 + nearness, (f"{label} {value}",), ())
    given = "has no" if key in ("usb", "pci") else f"is {', '.join(known)}, not"
    return _Verdict(0, (), (f"{label} {given} {' or '.join(wanted)}",))


#: What a host knows for each key of ``match``; None where it does not know.
_FACTS: Final[Mapping[str, Callable[[HostInfo], tuple[str, ...] | None]]] = {
    "arch": lambda host: (host.arch,) if host.arch else None,
    "os": lambda host: host.os_id or None,
    "compatible": lambda host: host.board.compatible or None,
    "model_prefix": lambda host: (host.board.model,) if host.board.model else None,
    "dmi_vendor": lambda host: (host.dmi.vendor,) if host.dmi.vendor else None,
    "dmi_product": lambda host: (host.dmi.product,) if host.dmi.product else None,
    "features": lambda host: host.cpu.features,
    "usb": lambda host: tuple(device.id for device in host.usb),
    "pci": lambda host: tuple(device.id for device in host.pci),
}

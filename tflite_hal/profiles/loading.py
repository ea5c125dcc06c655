"""Where profiles come from, who may have written them, and whose goes before whose."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable
from pathlib import Path

from tflite_hal.errors import ProfileError
from tflite_hal.profiles.document import MAX_BYTES, At
from tflite_hal.profiles.schema import DeviceProfile
from tflite_hal.profiles.trust import require_owned_file
from tflite_hal.profiles.validation import parse_profile

__all__ = ["load_profile", "load_profiles", "profile_folders"]

#: Whose a profile is; of equal matches the lowest wins: what the user wrote is about this machine.
_USER, _PLUGIN, _PACKAGE = range(3)


def profile_folders(extra: Iterable[str | Path] = ()) -> list[Path]:
    """Return where profiles are read from: the package, TFLITE_HAL_PROFILE_PATH, then ``extra``.

    Entries of TFLITE_HAL_PROFILE_PATH are separated by ``os.pathsep`` and may be files.
    """
    return [path for path, _ in _places(extra)]


def load_profiles(
    extra_folders: Iterable[str | Path] = (),
) -> tuple[tuple[DeviceProfile, ...], tuple[ProfileError, ...]]:
    """Load every profile there is, and tell what is wrong with the others.

    They come in the order that decides between equal matches: those of TFLITE_HAL_PROFILE_PATH, those of
    plugins, those of the package. Of two with one name a built-in stays, else the first in that order.

    Args:
        extra_folders: folders of installed plugins; trusted as the plugins themselves.
    """
    found: dict[str, tuple[int, DeviceProfile]] = {}
    errors: list[ProfileError] = []
    for place, origin in _places(extra_folders):
        try:
            files = _files(place)
        except ProfileError as error:
            errors.append(error)
            continue
        for file in files:
            try:
                profile = load_profile(file, trusted=origin != _USER)
                _check_file_name(profile)
                _add(profile, origin, found)
            except ProfileError as error:
                errors.append(error)
    listed = sorted(found.values(), key=lambda entry: entry[0])  # stable: the order within each origin stays
    return tuple(profile for _, profile in listed), tuple(errors)


def load_profile(path: str | Path, *, trusted: bool = False) -> DeviceProfile:
    """Read and validate one profile.

    A profile may say which libraries are loaded, so the file and its folder must belong to the user or
    root, and nobody else may be able to write them. The package's own are trusted as the package is.

    Args:
        path: the file.
        trusted: whose it is was checked before, or it comes with an installed plugin.

    Raises:
        ProfileError: names the file, the key path, what was expected and what was given; or whose it is.
    """
    file = Path(path)
    text = _read(file)
    if not trusted and os.path.realpath(file.parent) != os.path.realpath(_builtin_folder()):
        require_owned_file(file, At(str(file)))
    return _parsed(text, str(file))


@functools.lru_cache(maxsize=256)
def _parsed(text: str, path: str) -> DeviceProfile:
    """Parse a text once per process: every runner reads all the files again, which is cheap."""
    return parse_profile(text, path)


def _builtin_folder() -> Path:
    """Return the folder inside the package, or beside it in a checkout."""
    package = Path(__file__).parent.parent
    inside, beside = package / "device_profiles", package.parent / "device_profiles"
    return inside if inside.is_dir() or not beside.is_dir() else beside


def _places(extra: Iterable[str | Path]) -> list[tuple[Path, int]]:
    """Return files and folders in the order of reading, each with whose it is."""
    named = os.environ.get("TFLITE_HAL_PROFILE_PATH", "").split(os.pathsep)
    return [
        (_builtin_folder(), _PACKAGE),
        *((Path(entry), _USER) for entry in named if entry),
        *((Path(entry), _PLUGIN) for entry in extra),
    ]


def _files(place: Path) -> list[Path]:
    try:
        if not place.is_dir():
            return [place]
        return sorted(file for file in place.iterdir() if file.suffix in (".yaml", ".yml"))
    except OSError as error:
        raise ProfileError(f"{place}: can't be listed: {error.strerror}") from error


def _check_file_name(profile: DeviceProfile) -> None:
    """Hold that a profile is found by its name, also by people."""
    stem = Path(profile.path).stem
    if profile.name != stem:
        raise At(profile.path, "name").fail(f"the file's own name, {stem!r}", repr(profile.name))


def _add(profile: DeviceProfile, origin: int, found: dict[str, tuple[int, DeviceProfile]]) -> None:
    _, first = found.setdefault(profile.name, (origin, profile))
    if Path(first.path) != Path(profile.path):
        raise At(profile.path, "name").fail("a name of its own", f"{profile.name!r}, used by {first.path}")


def _read(file: Path) -> str:
    try:
        if not file.is_file():
            raise ProfileError(f"{file}: {'is no file' if file.exists() else 'no such file'}")
        with file.open("rb") as stream:
            return stream.read(MAX_BYTES + 1).decode("utf-8")
    except OSError as error:
        raise ProfileError(f"{file}: can't be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ProfileError(f"{file}: expected UTF-8 text, given {error.reason} at {error.start}") from error

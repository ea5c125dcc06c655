"""Where profiles come from, and who may have written them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from tflite_hal.errors import ProfileError
from tflite_hal.profiles.document import MAX_BYTES, At
from tflite_hal.profiles.schema import DeviceProfile
from tflite_hal.profiles.trust import require_owned
from tflite_hal.profiles.validation import parse_profile

__all__ = ["load_profile", "load_profiles", "profile_folders"]


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
            require_owned(part, At(str(file)))
    return parse_profile(_read(file), str(file))


def _places(extra: Iterable[str | Path]) -> list[tuple[Path, bool]]:
    """Return files and folders, each with whether its owner has to be checked."""
    package = Path(__file__).parent.parent
    inside, beside = package / "device_profiles", package.parent / "device_profiles"
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
        raise At(profile.path, "name").fail("a name of its own", f"{profile.name!r}, used by {first.path}")


def _read(file: Path) -> str:
    try:
        if not file.is_file():
            raise ProfileError(f"{file}: no such file")
        with file.open("rb") as stream:
            return stream.read(MAX_BYTES + 1).decode("utf-8")
    except OSError as error:
        raise ProfileError(f"{file}: can't be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ProfileError(f"{file}: expected UTF-8 text, given {error.reason} at {error.start}") from error

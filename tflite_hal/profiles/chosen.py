"""Which profile is in force: the one that is named, by argument or variable, else the one that matches."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from tflite_hal.errors import ProfileError
from tflite_hal.profiles.loading import load_profile, load_profiles
from tflite_hal.profiles.matching import match_profile
from tflite_hal.profiles.schema import DeviceProfile, ProfileMatch

if TYPE_CHECKING:
    from tflite_hal.host import HostInfo

__all__ = ["VARIABLE", "Chosen", "chosen_among", "chosen_profile"]

#: Names the profile in force where no argument does.
VARIABLE: Final = "TFLITE_HAL_PROFILE"


class Chosen(NamedTuple):
    """The profile in force, and all others."""

    match: ProfileMatch | None  #: with why it is in force; None where none is
    profiles: tuple[DeviceProfile, ...]  #: all that there are
    errors: tuple[ProfileError, ...]  #: of those that could not be read

    @property
    def profile(self) -> DeviceProfile | None:
        """The profile in force."""
        return None if self.match is None else self.match.profile


def chosen_profile(wanted: str | None, host: HostInfo, folders: Iterable[str | Path] = ()) -> Chosen:
    """Return the profile in force on a host.

    Args:
        wanted: its name or file; None is that of TFLITE_HAL_PROFILE, else the one that matches best.
        host: the machine.
        folders: of plugins.

    Raises:
        ProfileError: the one that is named is not there, or invalid; says who named it.
    """
    return chosen_among(wanted, host, *load_profiles(folders))


def chosen_among(
    wanted: str | None,
    host: HostInfo,
    profiles: tuple[DeviceProfile, ...],
    errors: tuple[ProfileError, ...] = (),
) -> Chosen:
    """Do what :func:`chosen_profile` does, with profiles that are read already."""
    named = wanted or os.environ.get(VARIABLE) or None
    if named is None:
        return Chosen(match_profile(host, profiles), profiles, errors)
    reason = "named" if wanted else f"named by {VARIABLE}"
    try:
        found = _named(named, profiles, errors)
    except ProfileError as error:
        if wanted:
            raise
        raise ProfileError(f"{VARIABLE}: {error.reason}", remedy=error.remedy) from error
    every = profiles if any(found is one for one in profiles) else (found, *profiles)
    return Chosen(ProfileMatch(found, 0, (reason,)), every, errors)


def _named(name: str, profiles: tuple[DeviceProfile, ...], errors: tuple[ProfileError, ...]) -> DeviceProfile:
    if os.sep in name or name.endswith((".yaml", ".yml")):
        return load_profile(name)
    for profile in profiles:
        if profile.name == name:
            return profile
    known = ", ".join(sorted(profile.name for profile in profiles))
    invalid = "".join(f"; not usable: {error}" for error in errors)
    raise ProfileError(f"no device profile {name!r}", remedy=f"known: {known}{invalid}")

"""Device profiles: YAML about a family of machines, loaded, validated and matched to a host.

``device_profiles/README.md`` shows the schema by example. Profiles order what is tried; measurements
decide. A profile that names libraries or environment is code, so profiles come from the package, from
installed plugins, or from files that only the user (or root) can change.

**Specificity** decides between profiles that match. What identifies a machine (``compatible``,
``model_prefix``, ``dmi_*``, ``usb``, ``pci``) counts 1000 a key, and ``compatible`` up to 900 more the
earlier the board lists the string, since device trees go from board to chip. Each required CPU feature
counts 10 (nine at most), ``arch`` and ``os`` 1 each: so any identification beats any features, and any
features beat ``arch`` and ``os``. A fact the host does not know never fulfils a requirement.

**Of equal matches** the user's own profile (TFLITE_HAL_PROFILE_PATH, in its order) wins, then a plugin's,
then the package's; within a folder the first by file name. A profile given by path or name is not matched.
"""

from tflite_hal.profiles.loading import load_profile, load_profiles, profile_folders
from tflite_hal.profiles.matching import explain, match_profile, unknown_delegates
from tflite_hal.profiles.schema import PROVENANCE, DeviceProfile, Fact, Match, ProfileMatch, Quirk
from tflite_hal.profiles.validation import parse_profile
from tflite_hal.profiles.versions import known_pairs, why_known_bad

__all__ = [
    "PROVENANCE",
    "DeviceProfile",
    "Fact",
    "Match",
    "ProfileMatch",
    "Quirk",
    "explain",
    "known_pairs",
    "load_profile",
    "load_profiles",
    "match_profile",
    "parse_profile",
    "profile_folders",
    "unknown_delegates",
    "why_known_bad",
]

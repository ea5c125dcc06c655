"""Device profiles: YAML about a family of machines, loaded, validated and matched to a host.

``device_profiles/README.md`` shows the schema by example. Profiles order what is tried; measurements
decide. A profile that names libraries or environment is code, so profiles come from the package, from
installed plugins, or from files that only the user (or root) can change.

**Specificity** decides between profiles that match. What identifies a machine (``compatible``,
``model_prefix``, ``dmi_*``) counts 1000 a key, and ``compatible`` up to 900 more the earlier the board lists
the string, since device trees go from board to chip. What is plugged in (``usb``, ``pci``) counts 500 a key,
each required CPU feature 10 (nine at most), ``arch`` and ``os`` 1 each: so the board beats a card in it, a
card beats any features, and any features beat ``arch`` and ``os``. A fact the host does not know never
fulfils a requirement.

**Of equal matches** the user's own profile (TFLITE_HAL_PROFILE_PATH, in its order) wins, then a plugin's,
then the package's; within a folder the first by file name. A profile given by path or name is not matched.
"""

from tflite_hal.profiles.chosen import Chosen, chosen_among, chosen_profile
from tflite_hal.profiles.draft import draft_name, draft_profile
from tflite_hal.profiles.loading import load_profile, load_profiles, profile_folders
from tflite_hal.profiles.matching import accelerators, explain, match_profile, quirks, unknown_delegates
from tflite_hal.profiles.schema import (
    PROVENANCE,
    Accelerator,
    DeviceProfile,
    Fact,
    Match,
    ProfileMatch,
    Quirk,
)
from tflite_hal.profiles.validation import json_schema, parse_profile
from tflite_hal.profiles.versions import known_pairs, why_known_bad

__all__ = [
    "PROVENANCE",
    "Accelerator",
    "Chosen",
    "DeviceProfile",
    "Fact",
    "Match",
    "ProfileMatch",
    "Quirk",
    "accelerators",
    "chosen_among",
    "chosen_profile",
    "draft_name",
    "draft_profile",
    "explain",
    "json_schema",
    "known_pairs",
    "load_profile",
    "load_profiles",
    "match_profile",
    "parse_profile",
    "profile_folders",
    "quirks",
    "unknown_delegates",
    "why_known_bad",
]

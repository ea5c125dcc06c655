"""The device profiles that ship: each loads, matches what it is for, and tells where its facts are from."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from tflite_hal.host import probe_host
from tflite_hal.kernels import BuiltinKernels
from tflite_hal.manager import Manager
from tflite_hal.profiles import (
    PROVENANCE,
    Match,
    accelerators,
    json_schema,
    load_profiles,
    match_profile,
    unknown_delegates,
)

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "device_profiles"
FILES = sorted(FOLDER.glob("*.yaml"))
HOSTS = sorted(path for path in (Path(__file__).parent / "hosts").glob("*") if path.is_dir())
CAPTURES = ROOT.parent / "shared" / "captures"
PROFILES, ERRORS = load_profiles()
FOR_MACHINES = [profile for profile in PROFILES if profile.match != Match()]
#: Plugins of their own that profiles may name before they are installed.
COMING = {"openvino"}


def ids(profile):
    return profile.name


def hosts_of(match):
    """Machines made of what a match asks for: each string it names, with nothing else known."""
    alternatives = match.any_of or (match,)
    for one in alternatives:
        facts = {
            "arch": one.arch or None,
            "os_id": (one.os,) if one.os else (),
            "features": one.features or None,
            "usb": one.usb[:1],
            "pci": one.pci[:1],
            "vendor": one.dmi_vendor or None,
            "product": one.dmi_product or None,
            "model": None,
            "compatible": (),
        }
        several = [("compatible", (word,)) for word in one.compatible]
        several += [("model", f"{prefix} Rev 1.1") for prefix in one.model_prefix]
        several += [(bus, (word,)) for bus in ("usb", "pci") for word in getattr(one, bus)]
        for name, value in several or [("arch", facts["arch"])]:
            yield host(**{**facts, name: value})


def host(**facts):
    """A machine of which only ``facts`` are known."""
    return SimpleNamespace(
        arch=facts.get("arch"),
        os_id=facts.get("os_id", ()),
        board=SimpleNamespace(model=facts.get("model"), compatible=facts.get("compatible", ())),
        dmi=SimpleNamespace(vendor=facts.get("vendor"), product=facts.get("product")),
        cpu=SimpleNamespace(features=facts.get("features")),
        usb=tuple(SimpleNamespace(id=device) for device in facts.get("usb", ())),
        pci=tuple(SimpleNamespace(id=device) for device in facts.get("pci", ())),
    )


def tied(match):
    return match is not None and any("tie" in reason for reason in match.reasons)


def test_all_load():
    assert ERRORS == ()
    assert len(PROFILES) == len(FILES)


@pytest.mark.parametrize("profile", FOR_MACHINES, ids=ids)
def test_each_is_in_force_wherever_one_of_its_strings_is(profile):
    machines = list(hosts_of(profile.match))
    assert machines
    for machine in machines:
        match = match_profile(machine, PROFILES)
        assert match is not None and match.profile.name == profile.name, (machine, match)
        assert not tied(match), match.reasons


@pytest.mark.parametrize("profile", PROFILES, ids=ids)
def test_every_fact_says_how_it_is_known_and_where_it_can_be_looked_up(profile):
    facts = [*profile.quirks, *(fact for grounds in profile.sources.values() for fact in grounds)]
    grounds = [(one.provenance, one.source) for one in (*facts, *profile.accelerators)]
    grounds += [(one["provenance"], one["source"]) for one in profile.external.values()]
    assert grounds
    for provenance, source in grounds:
        assert provenance in PROVENANCE
        assert all(len(one) > 5 for one in source)


@pytest.mark.parametrize("profile", PROFILES, ids=ids)
def test_each_names_only_delegates_that_there_are(profile):
    known = {delegate.name for delegate in Manager().delegates} | {BuiltinKernels.name} | COMING
    known |= {name for one in PROFILES for name in one.external}
    assert unknown_delegates(profile, known) == []


def test_the_file_is_found_by_the_name_of_the_board_and_says_what_it_is():
    for profile in FOR_MACHINES:
        assert profile.delegates, f"{profile.name} orders nothing"
        assert len(profile.title) < 100
        assert re.fullmatch(r"[a-z0-9-]+", profile.name)


@pytest.mark.parametrize("tree", HOSTS, ids=lambda tree: tree.name)
def test_the_synthetic_trees_have_one_best_profile_at_most(tree):
    assert not tied(match_profile(probe_host(tree), PROFILES))


# --- the JSON Schema -----------------------------------------------------------------------------------


def test_the_json_schema_is_what_the_checks_say():
    written = json.loads((FOLDER / "schema.json").read_text("utf-8"))
    assert written == json_schema(), "write it anew: tflite-hal profiles schema > device_profiles/schema.json"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_file_is_valid_by_the_json_schema(file):
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(json_schema())
    validator.check_schema(json_schema())
    assert [error.message for error in validator.iter_errors(yaml.safe_load(file.read_text("utf-8")))] == []


# --- what a machine has besides its CPU ----------------------------------------------------------------


def test_add_ons_are_told_wherever_they_are_plugged_in_and_others_are_not():
    pi = host(compatible=("raspberrypi,5-model-b",), pci=("1e60:2864",))
    (hailo,) = accelerators(pi, PROFILES)
    assert (hailo.kind, hailo.delegates) == ("npu", ())
    assert "HailoRT" in hailo.instead
    assert accelerators(pi, []) == []
    pc = host(arch="x86_64", os_id=("linux",), features=("avx2",), pci=("8086:643e", "1ac1:089a"))
    assert {one.name: one.delegates for one in accelerators(pc, PROFILES)} == {
        "Coral Edge TPU on PCIe": ("edgetpu",),
        "Intel NPU": ("openvino",),
    }


def test_what_the_board_has_comes_from_the_profile_in_force_only():
    nano = host(compatible=("nvidia,p3450-0000", "nvidia,tegra210"), usb=("1a6e:089a",))
    assert [one.name for one in accelerators(nano, PROFILES)] == ["Maxwell GPU", "Coral USB Accelerator"]

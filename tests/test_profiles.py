"""Device profiles: schema, trust, matching, and the built-in ones."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tflite_hal.errors import ProfileError
from tflite_hal.profiles import (
    Accelerator,
    DeviceProfile,
    Fact,
    Match,
    accelerators,
    explain,
    json_schema,
    load_profile,
    load_profiles,
    match_profile,
    parse_profile,
    profile_folders,
    unknown_delegates,
)
from tflite_hal.profiles.validation import FIELDS

ROOT = Path(__file__).parent.parent
BUILTIN = ROOT / "device_profiles"
POSIX = pytest.mark.skipif(os.name == "nt", reason="file modes are POSIX")
HEAD = "schema: 1\nname: a\ntitle: A\n"
WHY = "[{provenance: vendor, source: [manual]}]"
MINIMAL = f"{HEAD}match: {{arch: x86_64}}\nsources: {{match: {WHY}}}\n"


def npu(more):
    return f"accelerators: [{{kind: npu, name: N, provenance: vendor, source: [manual], {more}}}]\n"


def quirk(affects):
    return f"quirks: [{{text: x, provenance: vendor, source: [manual], affects: {affects}}}]\n"


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    monkeypatch.delenv("TFLITE_HAL_PROFILE_PATH", raising=False)


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


PI_5 = {"arch": "aarch64", "os_id": ("debian", "linux")}
PC = {"arch": "x86_64", "os_id": ("linux",)}
MACHINES = {
    "pi 5": (
        {**PI_5, "compatible": ("raspberrypi,5-model-b", "brcm,bcm2712"), "model": "Raspberry Pi 5 Model B"},
        "raspberry-pi-5",
    ),
    "pi 5 in a container": ({**PI_5, "model": "Raspberry Pi 5 Model B Rev 1.0"}, "raspberry-pi-5"),
    "pi 500": ({**PI_5, "compatible": ("raspberrypi,500", "brcm,bcm2712")}, "raspberry-pi-5"),
    "pi 4": ({**PI_5, "model": "Raspberry Pi 4 Model B Rev 1.5"}, "raspberry-pi-4"),
    "arm64": ({**PI_5, "model": "Some Other Board"}, "generic-linux-arm64"),
    "arm64 with dot products": ({**PI_5, "features": ("asimddp", "fp")}, "generic-linux-arm64-dotprod"),
    "arm64 with matrices": ({**PI_5, "features": ("asimddp", "i8mm")}, "generic-linux-arm64-i8mm"),
    "armv7": ({"arch": "armv7l", "os_id": ("linux",), "features": ("neon",)}, "generic-linux-armv7"),
    "risc-v": ({"arch": "riscv64", "os_id": ("linux",)}, "generic-linux-riscv64"),
    "old pc": ({"arch": "x86_64", "os_id": ("linux",), "features": ("sse4_1",)}, "generic-linux-x86-64"),
    "pc": ({**PC, "features": ("avx2",)}, "generic-linux-x86-64-avx2"),
    "server": ({**PC, "features": ("avx2", "avx512_vnni")}, "generic-linux-x86-64-vnni"),
    "laptop": ({**PC, "features": ("avx2", "avx_vnni")}, "generic-linux-x86-64-vnni"),
    "pc with a coral": ({**PC, "features": ("avx2",), "pci": ("1ac1:089a",)}, "coral-pcie"),
    "pi 4 with a coral": (
        {**PI_5, "model": "Raspberry Pi 4 Model B Rev 1.5", "usb": ("18d1:9302",)},
        "raspberry-pi-4",
    ),
    "mac": ({"arch": "aarch64", "os_id": ("darwin",)}, None),
    "unknown": ({}, None),
}


def profile(name="p", **match):
    return DeviceProfile(name, name, Match(**match), path=f"{name}.yaml")


# --- the built-in profiles -----------------------------------------------------------------------------


def test_every_builtin_loads_and_is_named_as_its_file():
    loaded, errors = load_profiles()
    assert errors == ()
    assert [Path(item.path).name for item in loaded] == [f"{item.name}.yaml" for item in loaded]
    assert {"generic-linux-arm64", "generic-linux-x86-64", "raspberry-pi-5"} <= {i.name for i in loaded}


@pytest.mark.parametrize("machine", MACHINES)
def test_builtins_match_the_machines_they_are_for_without_a_tie(machine):
    facts, expected = MACHINES[machine]
    match = match_profile(host(**facts), load_profiles()[0])
    assert (match and match.profile.name) == expected
    assert not match or not any("tie" in reason for reason in match.reasons)


def test_the_example_in_the_readme_is_valid():
    text = (BUILTIN / "README.md").read_text("utf-8").split("```yaml\n")[1].split("```")[0]
    example = parse_profile(text, "README.md")
    assert example.options == {"edgetpu": {"device": "usb"}}
    assert set(FIELDS) - {"schema"} == set(example._fields) - {"path"}
    assert all(example.match), "the example shows every key of match"


# --- the schema ----------------------------------------------------------------------------------------


def test_a_whole_profile_round_trips():
    whole = parse_profile((BUILTIN / "raspberry-pi-5.yaml").read_text("utf-8"), "pi.yaml")
    assert whole.threads == (4, 3, 1)
    assert whole.match.any_of[1] == Match(model_prefix=("Raspberry Pi 5",))
    assert isinstance(whole.quirks[0], Fact)
    plain = whole.to_dict()
    assert plain.pop("path") == "pi.yaml"
    assert parse_profile(json.dumps({"schema": 1, **plain}), "pi.yaml") == whole


def test_what_is_left_out_is_empty():
    minimal = parse_profile(MINIMAL, "a.yaml")
    assert (minimal.delegates, minimal.threads, minimal.quirks) == ((), (), ())
    assert minimal.to_dict()["match"] == {"arch": "x86_64"}
    assert (dict(minimal.options), dict(minimal.environment)) == ({}, {})


@pytest.mark.parametrize(
    ("text", "key", "words"),
    [
        ("", "", "a mapping"),
        ("[1]", "", "a mapping"),
        ("a: [", "", "one YAML document"),
        ("a: 1\n---\nb: 1", "", "one YAML document"),
        ("a: &x 1\nb: *x", "", "line 1"),
        ("a: !!python/name:os.system ''", "", "tag in line 1"),
        ("a: !!int ''", "", "tag in line 1"),
        ("[" * 100, "", "levels"),
        ("[" * 100_000, "", "level"),  # newer libyaml refuses it by itself, in its own words
        ("#" * 300_000, "", "bytes"),
        ("a: {b: 1, b: 2}", "a", "'b'"),
        ("{1: 2}", "", "keys that are text"),
        ("? [a]\n: b", "", "keys that are text"),
        ("a: on", "a", "'on'"),
        ("a: 010", "a", "in quotes"),
        ("a: 12:34", "a", "in quotes"),
        ("a: .inf", "a", "in quotes"),
        ("a: 2024-99-99", "a", "in quotes"),
        ("\ud800", "", "document"),
        (MINIMAL.replace("schema: 1", "schema: 2"), "schema", "expected 1, given 2"),
        (MINIMAL.replace("schema: 1", "schema: true"), "schema", "given True"),
        (MINIMAL.replace("schema: 1\n", ""), "schema", "this key"),
        (MINIMAL.replace("name: a", "name: A b"), "name", "'A b'"),
        (MINIMAL.replace("title: A", "title: 5"), "title", "given 5"),
        (MINIMAL.replace("title: A", 'title: "\\e[31m"'), "title", "text"),
        (MINIMAL + "delegate: [cpu]", "delegate", "'delegates'"),
        (MINIMAL + "zzzzzz: 1", "zzzzzz", "one of schema, name"),
        (MINIMAL + "delegates: cpu", "delegates", "a list"),
        (MINIMAL + "delegates: []", "delegates", "1 to 100 entries"),
        (MINIMAL + f"threads: {list(range(1, 102))}", "threads", "1 to 100 entries"),
        (MINIMAL + f"{'x' * 900}: 1", "'xxx", "a known key"),
        (MINIMAL + '"\\e[31m": 1', "'\\x1b[31m'", "a known key"),
        (MINIMAL + "delegates: [cpu, cpu]", "delegates[1]", "once"),
        (MINIMAL + "delegates: [xnnpack, builtin]", "delegates[1]", "builtin is always last"),
        (MINIMAL + "delegates: [cpu]", "sources.delegates", "sources of 'delegates'"),
        (MINIMAL + "threads: [0]", "threads[0]", "1 to 1024"),
        (MINIMAL + "threads: [true]", "threads[0]", "given True"),
        (MINIMAL.replace("{arch: x86_64}", "{}"), "match", "a mapping"),
        (MINIMAL.replace("{arch: x86_64}", "{arhc: a}"), "match.arhc", "'arch'"),
        (MINIMAL.replace("{arch: x86_64}", "{usb: [1A6E:089A]}"), "match.usb[0]", "lower case"),
        (
            MINIMAL.replace("{arch: x86_64}", "{any_of: [{any_of: []}]}"),
            "match.any_of[0].any_of",
            "known key",
        ),
        (MINIMAL.replace("vendor", "rumour"), "sources.match[0].provenance", "measured or vendor"),
        (MINIMAL.replace(", source: [manual]", ""), "sources.match[0].source", "this key"),
        (MINIMAL + "quirks: [{text: x, provenance: vendor}]", "quirks[0].source", "this key"),
        (MINIMAL + quirk("{linux: '6.7'}"), "quirks[0].affects.linux", "< 7.2"),
        (MINIMAL + quirk("{linux: ~6.7}"), "quirks[0].affects.linux", "< 7.2"),
        (MINIMAL + quirk("{}"), "quirks[0].affects", "at least one entry"),
        (MINIMAL + "accelerators: []", "accelerators", "1 to 100 entries"),
        (MINIMAL + npu("delegates: [a]").replace("kind: npu", "kind: fpga"), "accelerators[0].kind", "npu"),
        (MINIMAL + npu("text: x"), "accelerators[0].instead", "where no delegate does"),
        (MINIMAL + npu("delegates: [builtin]"), "accelerators[0].delegates[0]", "always last"),
        (MINIMAL + npu("instead: x").replace("manual", "''"), "accelerators[0].source[0]", "text"),
        (MINIMAL + npu("instead: x, match: {any_of: []}"), "accelerators[0].match.any_of", "known key"),
        (HEAD + npu("instead: x"), "accelerators[0].match", "this key"),
        (MINIMAL + "options: {npu: {a: [1]}}", "options.npu.a", "a list"),
        (MINIMAL + "options: {npu: 1}", "options.npu", "a mapping"),
        (MINIMAL + "options: {npu: {library: a.so}}", "options.npu.library", "an absolute path"),
        (MINIMAL + "options: {npu: {cachePath: ./a}}", "options.npu.cachePath", "an absolute path"),
        (MINIMAL + "options: {npu: {artifacts_folder: a}}", "options.npu.artifacts_folder", "absolute"),
        (MINIMAL + "environment: {npu: {A: 1}}", "environment.npu.A", "in quotes"),
        (MINIMAL + "environment: {npu: {'A=B': c}}", "environment.npu.A=B", "name of an environment"),
        *(
            (MINIMAL + f"environment: {{npu: {{{name}: /x}}}}", f"environment.npu.{name}", "programs load")
            for name in ("LD_PRELOAD", "LD_AUDIT", "DYLD_LIBRARY_PATH", "PYTHONPATH", "PATH", "Path")
        ),
        *(
            (MINIMAL + f"environment: {{npu: {{LD_LIBRARY_PATH: '{value}'}}}}", "environment.npu", "absolute")
            for value in ("lib", "/usr/lib:", "/usr/lib;lib", "/usr/$LIB", "$ORIGIN/lib")
        ),
    ],
)
def test_each_error_names_file_key_and_what_was_expected(text, key, words):
    with pytest.raises(ProfileError) as caught:
        parse_profile(text, "some/a.yaml")
    message = str(caught.value)
    assert message.startswith(f"some/a.yaml: {key}" if key else "some/a.yaml: ")
    assert words in message
    assert len(message) < 500


def test_options_keep_their_types_and_absolute_paths():
    text = MINIMAL.replace("{match:", f"{{options: {WHY}, match:")
    options = (
        "{npu: {device: '', level: 3, rate: 0.5, fast: true, library_path: /usr/lib/a.so, profile: burst}}"
    )
    parsed = parse_profile(f"{text}options: {options}", "a.yaml")
    assert parsed.options["npu"] == yaml.safe_load(options)["npu"]


@settings(deadline=None)
@given(
    st.text(alphabet=st.sampled_from("abm:-[]{}#&*!|>'\"%@,? \n\t01.\x00é\ue000"), max_size=60) | st.text()
)
def test_any_text_gives_a_profile_error(text):
    with pytest.raises(ProfileError):
        parse_profile(text, "a.yaml")


_KEYS = st.sampled_from(
    [*FIELDS, *Match._fields, *Fact._fields, *Accelerator._fields, "LD_LIBRARY_PATH", "x"]
)
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None)
@given(st.dictionaries(_KEYS, _VALUES, max_size=3), st.booleans())
def test_any_values_give_a_profile_or_a_profile_error(values, keep):
    valid = yaml.safe_load(MINIMAL)
    text = yaml.safe_dump({**valid, **values} if keep else {**values, **valid}, sort_keys=False)
    try:
        parsed = parse_profile(text, "a.yaml")
    except ProfileError as error:
        assert str(error).startswith("a.yaml: ")
    else:
        json.dumps(parsed.to_dict(), allow_nan=False)


_WORDS = st.text("abc,-: é", min_size=1, max_size=6).filter(str.strip)
_LISTS = st.lists(_WORDS, min_size=1, max_size=3, unique=True)
_IDS = st.lists(
    st.from_regex(r"[0-9a-f]{4}:[0-9a-f]{4}", fullmatch=True), min_size=1, max_size=3, unique=True
)
_WHERE = st.fixed_dictionaries(
    {"arch": _WORDS}, optional={"os": _WORDS, "compatible": _LISTS, "model_prefix": _LISTS, "pci": _IDS}
)
_GROUNDS = {"provenance": st.sampled_from(["measured", "vendor", "source", "inferred"]), "source": _LISTS}
_NAMES = st.lists(
    st.from_regex(r"[a-z]{1,8}", fullmatch=True).filter(lambda n: n != "builtin"),
    min_size=1,
    max_size=2,
    unique=True,
)
_RANGES = st.from_regex(r"(<|<=|>|>=|==) ?[0-9]{1,3}(\.[0-9]{1,3}){0,2}", fullmatch=True)
_ACCELERATOR = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(["tpu", "npu", "dsp", "gpu", "cpu"]),
        "name": _WORDS,
        "match": _WHERE,
        **_GROUNDS,
    },
    optional={"text": _WORDS},
).flatmap(
    lambda one: st.sampled_from([("delegates",), ("instead",), ("delegates", "instead")]).flatmap(
        lambda keys: st.fixed_dictionaries(
            {
                **{k: st.just(v) for k, v in one.items()},
                **{k: {"delegates": _NAMES, "instead": _WORDS}[k] for k in keys},
            }
        )
    )
)
_QUIRK = st.fixed_dictionaries(
    {"text": _WORDS, **_GROUNDS},
    optional={"applies": _WORDS, "affects": st.dictionaries(_WORDS, _RANGES, min_size=1, max_size=2)},
)


@settings(deadline=None)
@given(
    st.lists(_ACCELERATOR, min_size=1, max_size=3), st.lists(_QUIRK, min_size=1, max_size=2), st.booleans()
)
def test_accelerators_and_quirks_round_trip_and_are_valid_by_the_json_schema(reached, quirks, for_a_machine):
    given_ = {**yaml.safe_load(MINIMAL if for_a_machine else HEAD), "accelerators": [], "quirks": []}
    for key, values in (("accelerators", reached), ("quirks", quirks)):
        given_[key] = [one for index, one in enumerate(values) if one not in values[:index]]
    parsed = parse_profile(json.dumps(given_), "a.yaml")
    plain = parsed.to_dict()
    assert plain.pop("path") == "a.yaml"
    assert {"schema": 1, **plain} == given_
    assert all(isinstance(one, Accelerator) for one in parsed.accelerators)
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.validate(given_, json_schema(), jsonschema.Draft202012Validator)


@settings(deadline=None)
@given(st.dictionaries(_KEYS, _VALUES, max_size=3), st.sampled_from([MINIMAL, HEAD + npu("instead: x")]))
def test_what_a_profile_may_be_is_valid_by_the_json_schema(values, text):
    jsonschema = pytest.importorskip("jsonschema")
    document = {**yaml.safe_load(text), **values}
    try:
        parse_profile(yaml.safe_dump(document, sort_keys=False), "a.yaml")
    except ProfileError:
        return  # the schema says less than the checks
    jsonschema.validate(document, json_schema(), jsonschema.Draft202012Validator)


@pytest.mark.parametrize(
    "text",
    [
        MINIMAL + "delegates: [cpu]",
        MINIMAL + npu("text: x"),
        MINIMAL + npu("delegates: [builtin]"),
        MINIMAL + quirk("{linux: '6.7'}"),
        MINIMAL + "threads: [0]",
        MINIMAL + "zzz: 1",
        MINIMAL.replace("schema: 1", "schema: 2"),
        MINIMAL.replace("vendor", "rumour"),
        HEAD,
        HEAD + "delegates: [cpu]",
        HEAD + npu("instead: x"),
    ],
)
def test_the_json_schema_refuses_what_the_checks_refuse(text):
    jsonschema = pytest.importorskip("jsonschema")
    with pytest.raises(ProfileError):
        parse_profile(text, "a.yaml")
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(yaml.safe_load(text), json_schema(), jsonschema.Draft202012Validator)


# --- where profiles come from --------------------------------------------------------------------------


def write(folder, name, mode=0o644, text=MINIMAL):
    folder.mkdir(mode=0o755, exist_ok=True)
    file = folder / f"{name}.yaml"
    file.write_text(text.replace("name: a\n", f"name: {name}\n"), "utf-8")
    file.chmod(mode)
    return file


def test_folders_in_order(monkeypatch, tmp_path):
    file = write(tmp_path / "mine", "b")
    monkeypatch.setenv("TFLITE_HAL_PROFILE_PATH", os.pathsep.join([str(tmp_path / "mine"), "", str(file)]))
    assert profile_folders([str(tmp_path)]) == [BUILTIN, tmp_path / "mine", file, tmp_path]


def test_the_builtin_folder_is_in_the_package_when_installed_and_beside_it_in_a_checkout(tmp_path):
    package = tmp_path / "tflite_hal"
    shutil.copytree(ROOT / "tflite_hal", package, ignore=shutil.ignore_patterns("__pycache__"))
    code = "from tflite_hal.profiles import load_profiles; print(*(p.path for p in load_profiles()[0]))"
    for folder in (tmp_path / "device_profiles", package / "device_profiles"):
        write(folder, "a")
        done = subprocess.check_output(
            [sys.executable, "-c", code],
            cwd=tmp_path,
            text=True,
            env={**os.environ, "PYTHONPATH": str(tmp_path)},
        )
        assert done.split() == [str(folder / "a.yaml")]


def test_one_bad_file_hides_no_other(monkeypatch, tmp_path):
    write(tmp_path / "mine", "good")
    write(tmp_path / "mine", "bad", text="schema: 1")
    (tmp_path / "mine" / "notes.txt").write_text("no profile")
    monkeypatch.setenv("TFLITE_HAL_PROFILE_PATH", os.pathsep.join([str(tmp_path / "mine"), "/nowhere/x"]))
    loaded, errors = load_profiles()
    assert loaded[0].name == "good"
    assert [str(error).split(":")[0] for error in errors] == [f"{tmp_path}/mine/bad.yaml", "/nowhere/x"]


def test_a_builtin_can_not_be_replaced_and_a_file_counts_once(monkeypatch, tmp_path):
    file = write(tmp_path / "mine", "raspberry-pi-5")
    other = write(tmp_path / "mine", "other")
    monkeypatch.setenv("TFLITE_HAL_PROFILE_PATH", os.pathsep.join([str(other), str(file)]))
    loaded, errors = load_profiles([other.parent])
    assert [item.path for item in loaded if item.name == "raspberry-pi-5"] == [
        str(BUILTIN / "raspberry-pi-5.yaml")
    ]
    assert {str(error) for error in errors} == {
        f"{file}: name: expected a name of its own, given 'raspberry-pi-5', "
        f"used by {BUILTIN / 'raspberry-pi-5.yaml'}"
    }
    assert [item.name for item in loaded].count("other") == 1


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "no such file"), ("folder", "is no file"), (b"\xff\xfe", "UTF-8"), (b"#" * 300_000, "bytes")],
)
def test_unreadable_files(tmp_path, content, words):
    file = tmp_path / "a.yaml"
    if content == "folder":
        file.mkdir()
    elif content is not None:
        file.write_bytes(content)
        file.chmod(0o600)
    with pytest.raises(ProfileError, match=words) as caught:
        load_profile(file)
    assert str(caught.value).startswith(str(file))


@POSIX
@pytest.mark.parametrize("mode", [0o664, 0o646])
def test_a_file_others_can_write_is_refused(monkeypatch, tmp_path, mode):
    file = write(tmp_path / "mine", "b", mode)
    monkeypatch.setenv("TFLITE_HAL_PROFILE_PATH", str(file.parent))
    (error,) = load_profiles()[1]
    assert error.reason.startswith(f"{file}: {file} has mode {mode:04o}")
    assert error.remedy == f"chmod go-w {file}"
    file.chmod(0o644)
    assert load_profiles()[1] == ()


@POSIX
def test_a_file_in_a_folder_others_can_write_is_refused_also_behind_a_link(monkeypatch, tmp_path):
    file = write(tmp_path / "open folder", "b")
    file.parent.chmod(0o777)
    (tmp_path / "links").mkdir(mode=0o755)
    (tmp_path / "links" / "b.yaml").symlink_to(file)
    for path in (file, tmp_path / "links" / "b.yaml"):
        monkeypatch.setenv("TFLITE_HAL_PROFILE_PATH", str(path))
        (error,) = load_profiles()[1]
        assert error.remedy == f"chmod go-w '{file.parent}'"
        with pytest.raises(ProfileError, match=r"mode 0777.*chmod go-w"):
            load_profile(path)
    monkeypatch.delenv("TFLITE_HAL_PROFILE_PATH")
    assert load_profiles([file.parent])[0][0].name == "b", "folders of plugins are trusted"
    file.parent.chmod(0o755)
    assert load_profile(tmp_path / "links" / "b.yaml").name == "b"


@POSIX
def test_a_file_of_another_user_is_refused(monkeypatch, tmp_path):
    file = write(tmp_path / "mine", "b")
    owner = file.stat().st_uid
    if owner == 0:
        os.chown(file, 12345, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    with pytest.raises(ProfileError, match="belongs to user") as caught:
        load_profile(file)
    assert "chown" in caught.value.remedy


@POSIX
def test_a_file_given_by_path_is_checked_and_says_what_to_do(tmp_path):
    file = write(tmp_path / "mine", "b", 0o664)
    with pytest.raises(ProfileError, match="mode 0664: others could change what is run") as caught:
        load_profile(file)
    assert str(file) in caught.value.reason
    assert caught.value.remedy == f"chmod go-w {file}"
    assert load_profile(file, trusted=True).name == "b"
    file.chmod(0o600)
    assert load_profile(file).name == "b"


@POSIX
def test_what_to_change_is_named_in_full(tmp_path, monkeypatch):
    file = write(tmp_path / "mine", "b")
    file.parent.chmod(0o777)
    monkeypatch.chdir(file.parent)
    with pytest.raises(ProfileError) as caught:
        load_profile("b.yaml")
    assert caught.value.remedy == f"chmod go-w {file.parent}"


@POSIX
def test_the_packages_own_profiles_are_trusted_wherever_it_is_checked_out(monkeypatch, tmp_path):
    file = write(tmp_path / "device_profiles", "b", 0o664)
    file.parent.chmod(0o775)
    monkeypatch.setattr("tflite_hal.profiles.loading._builtin_folder", lambda: file.parent)
    assert load_profile(file).name == load_profiles()[0][0].name == "b"


@POSIX
def test_a_sticky_folder_keeps_what_is_in_it(tmp_path):
    file = write(tmp_path / "shared", "b")
    file.parent.chmod(0o1777)
    assert load_profile(file).name == "b"
    file.parent.chmod(0o777)
    with pytest.raises(ProfileError, match="mode 0777"):
        load_profile(file)


def test_the_name_is_the_files_where_profiles_are_found_by_name(monkeypatch, tmp_path):
    file = write(tmp_path / "mine", "b")
    other = file.rename(file.with_name("other.yaml"))
    monkeypatch.setenv("TFLITE_HAL_PROFILE_PATH", str(file.parent))
    loaded, (error,) = load_profiles()
    assert str(error) == f"{other}: name: expected the file's own name, 'other', given 'b'"
    assert "b" not in {item.name for item in loaded}


def test_the_users_profile_wins_a_tie_then_a_plugins_then_a_built_in(monkeypatch, tmp_path):
    own = MINIMAL.replace("{arch: x86_64}", "{arch: x86_64, os: linux}")
    write(tmp_path / "mine", "zzz", text=own)
    write(tmp_path / "plugin", "hhh", text=own)
    machine = host(arch="x86_64", os_id=("linux",))
    built_in = match_profile(machine, load_profiles()[0])
    assert built_in.profile.name == "generic-linux-x86-64"
    assert match_profile(machine, load_profiles([tmp_path / "plugin"])[0]).profile.name == "hhh"
    monkeypatch.setenv("TFLITE_HAL_PROFILE_PATH", str(tmp_path / "mine"))
    match = match_profile(machine, load_profiles([tmp_path / "plugin"])[0])
    assert match.profile.name == "zzz"
    assert match.reasons[-1] == "tie with hhh, generic-linux-x86-64, which come after it"


def test_delegates_that_there_are_not_are_told_with_their_place():
    named = profile()._replace(delegates=("edgtpu", "xnnpack"), options={"npu": {}}, environment={"npu": {}})
    assert unknown_delegates(named, ["edgetpu", "xnnpack"]) == [
        "p.yaml: delegates[0]: no delegate 'edgtpu' here: did you mean 'edgetpu'?",
        "p.yaml: options.npu: no delegate 'npu' here: a misspelling, or its plugin is not installed",
        "p.yaml: environment.npu: no delegate 'npu' here: a misspelling, or its plugin is not installed",
    ]


@POSIX
def test_library_folders_follow_the_same_rule(tmp_path):
    folder = tmp_path / "lib"
    folder.mkdir(mode=0o755)
    text = MINIMAL.replace("{match:", f"{{environment: {WHY}, match:")
    text += f"environment: {{npu: {{LD_LIBRARY_PATH: '{folder}:{folder}/missing', DEBUG: '1'}}}}"
    assert parse_profile(text, "a.yaml").environment["npu"]["DEBUG"] == "1"
    folder.chmod(0o775)
    with pytest.raises(ProfileError, match=r"a.yaml: environment.npu.LD_LIBRARY_PATH: .* mode 0775"):
        parse_profile(text, "a.yaml")
    folder.rmdir()
    tmp_path.chmod(0o777)
    with pytest.raises(ProfileError, match="mode 0777"):
        parse_profile(text, "a.yaml")


def test_importing_the_module_does_not_import_yaml():
    code = "import sys, tflite_hal.profiles; sys.exit('yaml' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


# --- matching ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("match", "facts", "reason"),
    [
        ({"arch": "aarch64"}, {"arch": "x86_64"}, "arch is x86_64, not aarch64"),
        ({"arch": "aarch64"}, {}, "arch unknown, needs aarch64"),
        ({"os": "linux"}, {}, "os unknown, needs linux"),
        ({"os": "linux"}, {"os_id": ("darwin",)}, "os is darwin, not linux"),
        ({"compatible": ("a", "b")}, {"compatible": ("c",)}, "compatible is c, not a or b"),
        ({"model_prefix": ("Pi 5",)}, {"model": "A Pi 5"}, "model is A Pi 5, not Pi 5"),
        ({"features": ("avx2",)}, {}, "features unknown, needs avx2"),
        ({"features": ("avx2", "f16c")}, {"features": ("f16c",)}, "features lack avx2"),
        ({"usb": ("1a6e:089a",)}, {}, "usb has no 1a6e:089a"),
        ({"dmi_vendor": "Dell"}, {"vendor": "HP"}, "dmi_vendor is HP, not Dell"),
        ({"arch": "x", "os": "y"}, {}, "arch unknown, needs x; os unknown, needs y"),
        (
            {"any_of": (Match(arch="a"), Match(os="b"))},
            {"arch": "c"},
            "arch is c, not a, and os unknown, needs b",
        ),
    ],
)
def test_why_not(match, facts, reason):
    assert explain(host(**facts), [profile(**match)]) == [("p", False, reason)]
    assert match_profile(host(**facts), [profile(**match)]) is None


@pytest.mark.parametrize(
    ("match", "facts", "reason"),
    [
        ({"arch": "x86_64"}, {"arch": "x86_64"}, "arch x86_64"),
        ({"compatible": ("b", "a")}, {"compatible": ("a", "b")}, "compatible a"),
        ({"model_prefix": ("Pi 5",)}, {"model": "Pi 5 Rev 1"}, "model Pi 5 Rev 1"),
        ({"dmi_product": "NUC"}, {"product": "NUC13"}, "dmi_product NUC13"),
        ({"features": ("a", "b")}, {"features": ("b", "a", "c")}, "features a, b"),
        ({"pci": ("1ac1:089a",)}, {"pci": ("8086:1", "1ac1:089a")}, "pci 1ac1:089a"),
        ({"any_of": (Match(arch="a"), Match(os="b"))}, {"os_id": ("b",)}, "os b"),
    ],
)
def test_why(match, facts, reason):
    assert explain(host(**facts), [profile(**match)]) == [("p", True, reason)]
    assert match_profile(host(**facts), [profile(**match)]).reasons == (reason,)


def test_specificity():
    machine = host(
        arch="aarch64",
        os_id=("linux",),
        features=tuple("abcdefghijkl"),
        compatible=("vendor,board", "vendor,chip"),
        usb=("1a6e:089a",),
    )
    ascending = [
        profile("arch", arch="aarch64"),
        profile("arch-os", arch="aarch64", os="linux"),
        profile("feature", features=("a",)),
        profile("features", features=("a", "b"), arch="aarch64"),
        profile("many-features", features=tuple("abcdefghijkl"), arch="aarch64", os="linux"),
        profile("usb", usb=("1a6e:089a",)),
        profile("chip", compatible=("vendor,chip",), arch="aarch64", os="linux"),
        profile("board", compatible=("vendor,board",)),
        profile("board-usb", compatible=("vendor,board",), usb=("1a6e:089a",)),
    ]
    found = [match_profile(machine, ascending[: count + 1]) for count in range(len(ascending))]
    assert [match.profile.name for match in found] == [item.name for item in ascending]
    assert [match.specificity for match in found] == sorted({match.specificity for match in found})


def test_accelerators_are_those_of_the_profile_in_force_and_of_those_for_no_machine():
    def reached(name, **match):
        return Accelerator("npu", name, "vendor", ("manual",), instead="a runtime", match=Match(**match))

    board = profile("board", compatible=("board",))._replace(
        accelerators=(reached("of the board"), reached("of one chip", compatible=("chip",)))
    )
    chip = profile("chip", compatible=("chip",))._replace(accelerators=(reached("of the chip"),))
    card = DeviceProfile("card", "card", accelerators=(reached("card", pci=("1e60:2864",)),))
    everything = [chip, board, card]

    def names(**facts):
        return [one.name for one in accelerators(host(**facts), everything)]

    assert names(compatible=("board", "chip")) == ["of the board", "of one chip"]
    assert names(compatible=("board",), pci=("1e60:2864",)) == ["of the board", "card"]
    assert names(pci=("1e60:2864",)) == ["card"]
    assert names() == []
    assert match_profile(host(pci=("1e60:2864",)), [card]) is None


def test_the_board_beats_a_card_in_it_even_without_a_device_tree():
    machine = host(model="Board Rev 1", usb=("1a6e:089a",), features=("a",), arch="aarch64")
    known = [
        profile("features", features=("a",), arch="aarch64"),
        profile("stick", usb=("1a6e:089a",)),
        profile("board", model_prefix=("Board",)),
    ]
    assert match_profile(machine, known).profile.name == "board"
    assert match_profile(machine, known[:2]).profile.name == "stick"


def test_a_tie_is_decided_by_order_and_said():
    machine = host(arch="x86_64")
    match = match_profile(machine, [profile("b", arch="x86_64"), profile("a", arch="x86_64")])
    assert match.profile.name == "b"
    assert match.reasons == ("arch x86_64", "tie with a, which come after it")

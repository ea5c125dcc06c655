"""``tflite-hal profiles``: its commands, their exit statuses, and the first profile of a machine."""

import json
import os
import stat
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from tflite_hal.cli import main
from tflite_hal.errors import ProfileError
from tflite_hal.profiles import draft_name, draft_profile, json_schema, match_profile, parse_profile

ROOT = Path(__file__).resolve().parents[1]
PI_5 = ROOT / "tests" / "hosts" / "raspberry-pi-5-coral-usb"
EMPTY = ROOT / "tests" / "hosts" / "empty"
POSIX = pytest.mark.skipif(os.name == "nt", reason="file modes are POSIX")
VALID = (
    "schema: 1\nname: mine\ntitle: Mine\nmatch: {arch: x86_64}\n"
    "sources: {match: [{provenance: vendor, source: [manual]}]}\n"
)


def call(*arguments, status=0):
    result = CliRunner().invoke(main, ["profiles", *map(str, arguments)])
    assert result.exit_code == status, (result.output, result.exception)
    return result


def call_json(*arguments, status=0):
    return json.loads(call(*arguments, "--json", status=status).stdout)


def refused(*arguments):
    result = call(*arguments, status=2)
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("tflite-hal: ")
    return line


def write(path, text=VALID, mode=0o600):
    path.write_text(text, "utf-8")
    path.chmod(mode)
    return path


# --- list and match ------------------------------------------------------------------------------------


def test_without_a_command_it_lists(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert call_json("--root", PI_5) == call_json("list", "--root", PI_5)
    assert call("--root", PI_5).stdout == call("list", "--root", PI_5).stdout


def test_what_matches_is_listed_first_and_the_reasons_of_the_others_are_short(monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    lines = call("list", "--root", PI_5).stdout.splitlines()
    assert lines[1].startswith("raspberry-pi-5 ") and "in force" in lines[1]
    assert "yes: " in lines[2]
    assert max(len(line) for line in lines) < 350


def test_options_before_a_command_are_not_passed_over():
    assert "give --root and --json after show" in refused("--json", "show", "raspberry-pi-5")
    assert "give --root and --json after match" in refused("--root", PI_5, "match")


def test_match_tells_what_is_in_force_what_is_there_and_what_goes_wrong():
    found = call_json("match", "--root", PI_5)
    assert found["in_force"] == "raspberry-pi-5"
    assert found["reasons"] == ["compatible raspberrypi,5-model-b"]
    assert "coral-usb" in {one["name"] for one in found["also"]}
    (stick,) = found["accelerators"]
    assert (stick["name"], stick["delegates"]) == ("Coral USB Accelerator", ["edgetpu"])
    assert all(one["source"] for one in found["quirks"])
    text = call("match", "--root", PI_5).stdout
    assert text.startswith("raspberry-pi-5: Raspberry Pi 5")
    assert "also matches: coral-usb" in text
    assert "tpu Coral USB Accelerator: delegate edgetpu" in text


def test_match_ends_in_status_3_where_nothing_matches():
    assert call("match", "--root", EMPTY, status=3).stdout.startswith("no profile matches")
    found = call_json("match", "--root", EMPTY, status=3)
    assert (found["in_force"], found["reasons"], found["also"]) == (None, [], [])


def test_a_file_tree_that_is_not_there_is_refused(tmp_path):
    assert "does not exist" in refused("match", "--root", tmp_path / "absent")


# --- show ----------------------------------------------------------------------------------------------


def test_show_says_what_reaches_an_accelerator_and_where_facts_are_from():
    text = call("show", "jetson-xavier-nx").stdout
    assert text.startswith("jetson-xavier-nx: ")
    assert "npu NVDLA: no delegate; else TensorRT" in text
    assert "grounds of match" in text
    assert "inferred: " in text
    plain = call_json("show", "jetson-xavier-nx")
    assert Path(plain["path"]).name == "jetson-xavier-nx.yaml"


def test_show_takes_a_file_and_shows_which_versions_a_quirk_affects(tmp_path):
    quirk = "quirks: [{text: Slow., provenance: vendor, source: [manual], affects: {linux: '< 6.7'}}]\n"
    file = write(tmp_path / "mine.yaml", VALID + quirk)
    text = call("show", file).stdout
    assert "Slow. [linux < 6.7]\n    vendor: manual" in text


def test_show_of_a_name_that_is_none_names_the_closest():
    assert "did you mean 'jetson-nano'?" in refused("show", "jetson-nanno")
    assert "tflite-hal profiles list" in refused("show", "zzzzz")


# --- validate ------------------------------------------------------------------------------------------


def test_everything_that_ships_is_valid():
    files = sorted((ROOT / "device_profiles").glob("*.yaml"))
    rows = call_json("validate", *files)
    assert [row["name"] for row in rows] == [file.stem for file in files]
    assert all(row["valid"] and not row["errors"] for row in rows)


def test_validate_tells_mistakes_of_each_file_and_ends_in_status_1(tmp_path):
    good = write(tmp_path / "mine.yaml")
    bad = write(tmp_path / "bad.yaml", VALID + "thread: [1]\n")
    other = write(tmp_path / "other.yaml")
    rows = call_json("validate", good, bad, other, tmp_path / "absent.yaml", status=1)
    assert [row["valid"] for row in rows] == [True, False, False, False]
    assert "thread: expected a known key, such as 'threads'" in rows[1]["errors"][0]
    assert "expected the file's own name, 'other', given 'mine'" in rows[2]["errors"][0]
    assert "no such file" in rows[3]["errors"][0]
    text = call("validate", good, bad, status=1).stdout
    assert f"{good}: ok\n" in text
    assert f"{bad}: refused\n  error: " in text


@POSIX
def test_validate_warns_of_what_is_doubtful_and_ends_in_status_0(tmp_path):
    text = VALID.replace(
        "sources: {", "delegates: [edgtpu]\nsources: {delegates: [{provenance: vendor, source: [manual]}], "
    )
    (row,) = call_json("validate", write(tmp_path / "mine.yaml", text, 0o666))
    assert row["valid"]
    assert any("mode 0666" in warning and "chmod go-w" in warning for warning in row["warnings"])
    assert any("did you mean 'edgetpu'?" in warning for warning in row["warnings"])


def test_validate_needs_a_file():
    assert "FILES" in refused("validate")


# --- new -----------------------------------------------------------------------------------------------


def test_new_writes_a_profile_that_is_in_force_where_it_was_written(tmp_path, monkeypatch):
    file = tmp_path / "my-pi.yaml"
    assert str(file) in call("new", "--root", PI_5, "--output", file).stdout
    assert call_json("validate", file)[0]["errors"] == []
    monkeypatch.setenv("TFLITE_HAL_PROFILE_PATH", str(file))
    assert call_json("match", "--root", PI_5)["in_force"] == "my-pi"
    assert "# delegates:" in file.read_text("utf-8")
    assert list(tmp_path.iterdir()) == [file], "nothing is left aside"


@POSIX
def test_new_writes_a_file_that_only_its_owner_can_change(tmp_path):
    file = tmp_path / "mine.yaml"
    call("new", "--root", PI_5, "--output", file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o644


def test_new_replaces_a_file_only_where_that_is_asked(tmp_path):
    file = write(tmp_path / "mine.yaml", "precious")
    assert "--force" in refused("new", "--root", PI_5, "--output", file)
    assert file.read_text() == "precious"
    call("new", "--root", PI_5, "--output", file, "--force")
    assert parse_profile(file.read_text("utf-8"), "mine.yaml").name == "mine"
    link = tmp_path / "link.yaml"
    link.symlink_to(tmp_path / "absent")
    assert "is there already" in refused("new", "--root", PI_5, "--output", link)


def test_new_without_a_file_prints_the_profile():
    text = call("new", "--root", PI_5).stdout
    assert parse_profile(text, "a.yaml").name == "my-raspberry-pi-5-model-b"
    found = call_json("new", "--root", PI_5)
    assert (found["name"], found["file"], found["text"]) == ("my-raspberry-pi-5-model-b", None, text)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--output", "mine.txt"], "found by .yaml"),
        (["--output", "My Board.yaml"], "a name of a-z"),
        (["--output", "/nowhere/mine.yaml"], "can't be written"),
        (["--force"], "--force is for --output"),
        (["--root", str(EMPTY)], "nothing is known of this machine"),
    ],
)
def test_new_refuses_what_would_not_be_found(arguments, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given_ = arguments if "--root" in arguments else ["--root", str(PI_5), *arguments]
    assert words in refused("new", *given_)
    assert list(tmp_path.iterdir()) == []


def test_schema_prints_what_ships():
    printed = json.loads(call("schema").stdout)
    assert printed == json_schema() == json.loads((ROOT / "device_profiles" / "schema.json").read_text())


_TEXTS = st.none() | st.text(max_size=20) | st.sampled_from(["To be filled by O.E.M.", "Board Rev 1.5", " "])
_HOSTS = st.builds(
    lambda arch, words, model, compatible, vendor, product, features, cpu: SimpleNamespace(
        arch=arch,
        os_id=words,
        board=SimpleNamespace(model=model, compatible=tuple(compatible)),
        dmi=SimpleNamespace(vendor=vendor, product=product),
        cpu=SimpleNamespace(features=features, model=cpu, usable=4, online=4),
        usb=(),
        pci=(),
    ),
    _TEXTS,
    st.sampled_from([(), ("linux",), ("debian", "linux")]),
    _TEXTS,
    st.lists(st.text(min_size=1, max_size=12), max_size=3),
    _TEXTS,
    _TEXTS,
    st.sampled_from([None, (), ("avx2", "fma"), ("asimddp", "i8mm", "fp")]),
    _TEXTS,
)


@settings(deadline=None)
@given(_HOSTS)
def test_a_first_profile_matches_its_machine_whatever_that_says_of_itself(host):
    try:
        text = draft_profile(host, draft_name(host), "2026-11-24")
    except ProfileError as error:
        assert "nothing is known" in error.reason
        return
    profile = parse_profile(text, "a.yaml")
    assert match_profile(host, [profile]) is not None
    assert profile.sources["match"][0].provenance == "measured"

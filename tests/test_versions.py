"""Pairs of library and runtime that are known to crash: told, not tried, and tried where that is allowed."""

from pathlib import Path

import pytest

from tflite_hal import NoDelegateError, Outcome, Runner, probe_host
from tflite_hal.errors import ProfileError
from tflite_hal.profiles import known_pairs, load_profiles, parse_profile, why_known_bad
from tflite_hal.profiles.versions import ALLOW

STATUS = """Package: libedgetpu1-std
Status: install ok installed
Architecture: amd64
Version: {version}
Description: x
 y

Package: other
Version: 16.0
"""
LIBRARY = "/usr/lib/x86_64-linux-gnu/libedgetpu.so.1"


def machine(root: Path, version: str = "16.0", listed: str = LIBRARY, end: str = ":amd64"):
    """A machine on which the package has the library."""
    for path, text in (
        (f"var/lib/dpkg/info/libedgetpu1-std{end}.list", f"/.\n{listed}\n{listed}.0\n"),
        ("var/lib/dpkg/status", STATUS.format(version=version)),
        ("proc/cpuinfo", "processor: 0\nvendor_id: GenuineIntel\nflags: lm\n"),
        (LIBRARY[1:], ""),
    ):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    return probe_host(root)


def verdict(host, runtime=("tflite_runtime", "2.14.0"), library: str = LIBRARY):
    return why_known_bad("edgetpu", known_pairs(load_profiles()[0])["edgetpu"], host, library, runtime)


@pytest.mark.parametrize(
    ("version", "runtime", "bad"),
    [
        ("16.0", ("tflite_runtime", "2.14.0"), True),
        ("16.0", ("tflite_runtime", "2.12"), True),
        ("16.0", ("tensorflow", "2.17.1"), True),
        ("16.0", ("tensorflow", "3.0.0rc1"), True),
        ("16.0", ("tflite_runtime", "2.5.0.post1"), False),
        ("16.0", ("tensorflow", "2.11.1"), False),
        ("16.0", ("tflite_runtime", "unknown"), False),
        ("16.0", ("ai_edge_litert", "2.3.0"), False),  # nobody has said so: its trial decides
        ("16.0tf2.17.1-1", ("tflite_runtime", "2.14.0"), False),
    ],
)
def test_the_shipped_table(tmp_path: Path, version: str, runtime, bad: bool) -> None:
    found = verdict(machine(tmp_path, version), runtime)
    assert (found is not None) is bad
    if found is not None:
        assert found.reason.startswith(f"{LIBRARY} 16.0 with {' '.join(runtime)}: segmentation fault")
        assert "tensorflow/tensorflow issue 62371" in found.reason
        assert "known to work: libedgetpu 16.0tf2.17.1" in found.remedy
        assert found.remedy.endswith(f"{ALLOW}=edgetpu tries it all the same")


def test_the_package_is_the_one_the_library_belongs_to(tmp_path: Path) -> None:
    assert verdict(machine(tmp_path / "a"), library=LIBRARY.removeprefix("/usr")) is not None
    assert verdict(machine(tmp_path / "b", end="")) is not None
    assert verdict(machine(tmp_path / "c"), library="/opt/own/libedgetpu.so.1") is None
    (tmp_path / "c/var/lib/dpkg/status").unlink()
    assert verdict(probe_host(tmp_path / "c")) is None
    assert verdict(probe_host(tmp_path / "nothing")) is None


@pytest.mark.parametrize("kernel", ["x86_64", "aarch64", "armv7l", None])
def test_packages_may_be_of_another_architecture_than_the_kernel(tmp_path: Path, kernel: str | None) -> None:
    """As with 32-bit Raspberry Pi OS on its 64-bit kernel."""
    host = machine(tmp_path, listed="/usr/lib/arm-linux-gnueabihf/libedgetpu.so.1", end=":armhf")
    host.arch = kernel
    assert verdict(host, library="/usr/lib/arm-linux-gnueabihf/libedgetpu.so.1.0") is not None
    assert verdict(host, library="/usr/lib/libedgetpu.so.1") is None


def test_a_device_without_a_library_belongs_to_no_package(tmp_path: Path) -> None:
    host = machine(tmp_path, listed="/usr")  # of which nothing is left without /usr
    assert verdict(host, library="") is None


def test_it_can_be_overridden(tmp_path: Path, monkeypatch) -> None:
    host = machine(tmp_path)
    monkeypatch.setenv(ALLOW, "vx")
    assert verdict(host) is not None
    monkeypatch.setenv(ALLOW, "vx,edgetpu")
    assert verdict(host) is None


FACT = "provenance: vendor, source: [manual]"
OWN = f"""schema: 1
name: own
title: Mine
external:
  mine: {{title: T, libraries: ['{LIBRARY}'], devices: [{{id: 'npu:0'}}], {FACT}}}
versions:
  mine:
    - works: false
      text: crashes
      runtimes: [ai_edge_litert, tflite_runtime]
      runtime_from: "2"
      packages: [libedgetpu1-std]
      package_versions: ["16.0"]
      remedy: install another
      {FACT.replace(", source", chr(10) + "      source")}
"""


def test_what_is_known_to_crash_is_not_tried(
    tmp_path: Path, runtime_name: str, digits: Path, monkeypatch
) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(OWN)
    host = machine(tmp_path / "root")
    monkeypatch.setattr("tflite_hal.runner.choice.probe_host", lambda: host)
    with pytest.raises(NoDelegateError, match=r"crashes \(manual\).*install another; TFLITE_HAL_ALLOW"):
        Runner(digits, delegate="mine", profile=file, runtime=runtime_name)
    with Runner.auto(digits, profile=file, prefer="order", runtime=runtime_name) as runner:
        (attempt,) = (one for one in runner.selection.attempts if one.delegate == "mine")
    assert (attempt.outcome, attempt.device) == (Outcome.UNAVAILABLE, "npu:0")
    assert attempt.remedy.startswith("install another; ")
    monkeypatch.setenv(ALLOW, "mine")
    with pytest.raises(NoDelegateError, match="cannot open shared object"):  # it is not there in truth
        Runner(digits, delegate="mine", profile=file, runtime=runtime_name)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('runtime_from: "2"', "runtime_from: 2", "a version in quotes"),
        ("      packages: [libedgetpu1-std]\n", "", "packages: expected this key, where works is false"),
        ("works: false", "works: 0", "true or false"),
        ("source: [manual]\n", "sources: [manual]\n", "a known key, such as 'source'"),
    ],
)
def test_each_error_names_its_place(old: str, new: str, words: str) -> None:
    assert old in OWN
    without = OWN[: OWN.index("external:")] + OWN[OWN.index("versions:") :]
    with pytest.raises(ProfileError, match=rf"own.yaml: versions.mine\[0\].*{words}"):
        parse_profile(without.replace(old, new), "own.yaml")

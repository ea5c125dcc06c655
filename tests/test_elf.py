"""What a library says of itself before it is loaded: real ones, other processors', and any bytes."""

import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tflite_hal import Configuration, DelegateError, Device, NoDelegateError, Runner, probe_host, read_model
from tflite_hal.external import described_delegate
from tflite_hal.external.elf import CREATE, STABLE, read_elf, why_unloadable
from tflite_hal.remote import open_remotely
from tflite_hal.runtime import load_runtime

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="no ELF files here")

NAMES = (CREATE, STABLE)


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory):
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler here")

    def make(name: str, source: str, *arguments: str) -> Path:
        folder = tmp_path_factory.mktemp("elf")
        (folder / "a.c").write_text(source)
        command = [compiler, "-shared", "-fPIC", "-o", str(folder / name), str(folder / "a.c"), *arguments]
        subprocess.run(command, check=True)
        return folder / name

    return make


@pytest.mark.parametrize(
    ("source", "exported"),
    [
        (f"void {CREATE}(void) {{}}", {CREATE}),
        (f"const int {STABLE} = 1;", {STABLE}),
        (f"void {CREATE}(void) {{}} const int {STABLE} = 1;", {CREATE, STABLE}),
        (f"void {CREATE}(void); void f(void) {{ {CREATE}(); }}", set()),  # needed, not exported
        (f"void my_{CREATE}(void) {{}}", set()),
        (f"void my_{CREATE}(void) {{}} void {CREATE}(void) {{}}", {CREATE}),
        (f"static void {CREATE}(void) {{}} void *f = {CREATE};", set()),
    ],
)
@pytest.mark.parametrize("arguments", [(), ("-s",)], ids=["whole", "stripped"])
def test_what_it_exports(build, source: str, exported: set[str], arguments) -> None:
    elf = read_elf(str(build("libx.so", source, *arguments)), NAMES)
    assert elf.exported == exported
    assert elf.bits == 8 * struct.calcsize("P")


def test_a_versioned_symbol_too(build, tmp_path: Path) -> None:
    script = tmp_path / "versions"
    script.write_text(f"VERS_1.0 {{ global: {STABLE}; local: *; }};")
    built = build("libx.so", f"const int {STABLE} = 1;", f"-Wl,--version-script={script}")
    assert read_elf(str(built), NAMES).exported == {STABLE}


STABLE_SOURCE = f"const int {STABLE} = 1;"


def test_a_stable_delegate_is_told_as_such(build, runtime_name: str, digits: Path) -> None:
    built = build("libneuron_stable_delegate.so", STABLE_SOURCE)
    data = {"name": "mine", "title": "T", "libraries": [str(built)], "devices": [{"id": "npu:0"}]}
    (problem,) = described_delegate(data).probe(probe_host()).problems
    assert problem.stage == "library"
    assert "is a stable delegate (it exports TFL_TheStableDelegate)" in problem.evidence
    device = Device("npu:0", "npu", properties={"library": str(built)})
    with pytest.raises(DelegateError, match="load_delegate can't load it"):
        open_remotely(
            described_delegate(data), read_model(digits), device, Configuration(), load_runtime(runtime_name)
        )
    with pytest.raises(NoDelegateError, match="is a stable delegate"):
        Runner(digits, delegate_library=built)


def other_processor(path: Path, machine: int, bits: int = 64) -> Path:
    """An ELF header of another processor, without anything behind it."""
    word = "Q" if bits == 64 else "I"
    ident = b"\x7fELF" + bytes([bits // 32, 1, 1]) + bytes(9)
    path.write_bytes(
        ident + struct.pack(f"<HHI{word}{word}{word}IHHHHHH", 3, machine, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    )
    return path


@pytest.mark.parametrize(
    ("machine", "bits", "words"),
    [
        (183 if os.uname().machine == "x86_64" else 62, 64, "64-bit"),
        (40, 32, "32-bit Arm"),
        (164, 32, "32-bit QDSP6.*runs on the DSP"),
        (999, 64, "machine 999"),
    ],
)
def test_another_processors_library_is_told_before_it_is_loaded(
    tmp_path: Path, digits: Path, machine: int, bits: int, words: str
) -> None:
    file = other_processor(tmp_path / "libx.so", machine, bits)
    with pytest.raises(NoDelegateError, match=f"is built for .*{words}.*this Python for 64-bit|{words}"):
        Runner(digits, delegate_library=file)
    assert "is built for" in why_unloadable(str(file)).reason


def test_what_is_no_library_is_left_to_the_loader(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("not a library" * 10)
    for path in (tmp_path / "text", tmp_path, tmp_path / "missing", "/dev/null"):
        assert read_elf(str(path), NAMES) is None
        assert why_unloadable(str(path)) is None
    assert read_elf("a\0b", NAMES) is None


def test_this_python_fits_itself() -> None:
    assert why_unloadable(sys.executable) is None


WORDS = st.integers(0, 2**64 - 1) | st.sampled_from([0, 1, 40, 64, 2**31, 2**63, 2**64 - 1])


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=400), st.sampled_from([1, 2]), st.sampled_from([1, 2]))
@example(b"", 2, 1)
def test_any_bytes_give_a_header_or_nothing(tmp_path_factory, content: bytes, bits: int, order: int) -> None:
    file = tmp_path_factory.getbasetemp() / "any.so"
    file.write_bytes(b"\x7fELF" + bytes([bits, order, 1]) + bytes(9) + content)
    elf = read_elf(str(file), NAMES)
    assert elf is None or elf.exported in (None, frozenset())


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_any_damage_to_a_real_library_is_survived(build, tmp_path_factory, data) -> None:
    if not hasattr(test_any_damage_to_a_real_library_is_survived, "whole"):
        source = f"void {CREATE}(void) {{}} {STABLE_SOURCE}"
        test_any_damage_to_a_real_library_is_survived.whole = build("libx.so", source).read_bytes()
    whole = bytearray(test_any_damage_to_a_real_library_is_survived.whole)
    sections = struct.unpack_from("<Q", whole, 40)[0]
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, 63) | st.integers(sections, len(whole) - 8))
        struct.pack_into("<Q", whole, min(at, len(whole) - 8), data.draw(WORDS))
    file = tmp_path_factory.getbasetemp() / "damaged.so"
    file.write_bytes(whole[: data.draw(st.integers(0, len(whole)))])
    elf = read_elf(str(file), NAMES)
    assert elf is None or elf.exported is None or elf.exported <= set(NAMES)

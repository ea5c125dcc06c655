"""From where code may be loaded: files, folders, links, variables, and libraries that are refused for it."""

import os
from pathlib import Path

import pytest

from tflite_hal import (
    Configuration,
    DelegateError,
    Device,
    ExternalDelegate,
    file_identity,
    probe_host,
    read_model,
)
from tflite_hal.delegate import Probe
from tflite_hal.errors import PluginError
from tflite_hal.remote import open_remotely
from tflite_hal.runtime import load_runtime
from tflite_hal.testing import FaultDelegate, build_library, faults
from tflite_hal.trust import changes_loading, distrust_file, distrust_library, distrust_variable

pytestmark = pytest.mark.skipif(os.name == "nt", reason="file modes are POSIX")


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """A file two folders down that nobody else can change."""
    file = tmp_path / "outer" / "lib" / "libx.so"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"")
    for place, mode in ((file, 0o644), (file.parent, 0o755), (file.parent.parent, 0o755)):
        place.chmod(mode)
    return file


@pytest.mark.parametrize("up", [0, 1, 2], ids=["file", "folder", "above"])
@pytest.mark.parametrize("bit", [0o020, 0o002])
def test_what_others_can_change_anywhere_on_the_way_is_not_loaded(library: Path, up: int, bit: int) -> None:
    place = [library, *library.parents][up]
    assert distrust_library(library) is None
    place.chmod(place.stat().st_mode & 0o777 | bit)
    refused = distrust_library(library)
    assert refused is not None
    assert refused.reason.startswith(f"{place} has mode ")
    assert refused.remedy == f"chmod go-w {place}"


@pytest.mark.parametrize("up", [0, 1, 2], ids=["file", "folder", "above"])
def test_what_belongs_to_another_user_is_not_loaded(library: Path, up: int, monkeypatch) -> None:
    place = [library, *library.parents][up]
    owner = place.stat().st_uid
    if owner == 0:
        os.chown(place, 12345, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    assert "belongs to user" in distrust_library(library).reason


def test_every_link_on_the_way_is_followed(library: Path, tmp_path: Path) -> None:
    shared, own = tmp_path / "shared", tmp_path / "own"
    for folder in (shared, own):
        folder.mkdir(mode=0o755)
    # own/libx.so -> shared/hop -> outer/lib/libx.so: who can write "shared" decides what own/libx.so is.
    (shared / "hop").symlink_to(library.parent.parent)
    (own / "libx.so").symlink_to(Path("..") / "shared" / "hop" / "lib" / "libx.so")
    assert distrust_library(own / "libx.so") is None
    shared.chmod(0o777)
    assert distrust_library(own / "libx.so").reason.startswith(f"{shared} has mode 0777")
    assert distrust_library(library) is None


def test_a_sticky_folder_keeps_files_but_holds_no_libraries(library: Path) -> None:
    above = library.parent.parent
    above.chmod(0o1777)
    assert distrust_library(library) is None, "nobody else can replace the folder in it"
    above.chmod(0o755)
    library.parent.chmod(0o1777)
    assert distrust_file(library) is None
    refused = distrust_library(library)  # others may put beside it what it loads
    assert refused.reason.startswith(f"{library.parent} has mode 1777")
    assert refused.remedy == "use a folder of your own"


def test_an_environment_made_with_umask_002_is_fine_for_its_user(tmp_path: Path, monkeypatch) -> None:
    file = tmp_path / "venv" / "lib" / "site-packages" / "maker" / "libx.so"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"")
    for place in [file, *list(file.parents)[:4]]:
        place.chmod(0o775)
    assert distrust_library(file) is None
    monkeypatch.setattr(os, "getgid", lambda: file.stat().st_gid + 1)
    assert "mode 0775" in distrust_library(file).reason
    monkeypatch.undo()
    file.chmod(0o777)
    assert "mode 0777" in distrust_library(file).reason


def test_loops_and_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert distrust_library(tmp_path / "loop").reason.startswith(f"{tmp_path / 'loop'}: ")
    assert "No such file" in distrust_library(tmp_path / "missing.so").reason
    assert distrust_library("/x\0y").reason


def test_the_identity_of_a_file_changes_with_it_and_never_raises(library: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.so"
    link.symlink_to(library)
    first = file_identity(library)
    assert first.startswith(f"{library} 0 ")
    assert file_identity(str(link)) == first, "it is the file that counts, by whatever name"
    library.write_bytes(b"more")
    longer = file_identity(library)
    os.utime(library, ns=(1, 1))
    assert len({first, longer, file_identity(library)}) == 3
    library.unlink()
    assert file_identity(link) == f"{link}: No such file or directory"
    assert "null" in file_identity("/x\0y")


@pytest.mark.parametrize("name", ["LD_PRELOAD", "ld_audit", "DYLD_INSERT_LIBRARIES", "PYTHONPATH", "PATH"])
def test_variables_that_bring_other_code(name: str) -> None:
    assert changes_loading(name)
    assert name in distrust_variable(name, "/usr/lib").reason


def test_search_paths_are_absolute_and_nobody_elses(library: Path) -> None:
    folder = library.parent
    assert distrust_variable("VENDOR_DEBUG", "anything at all") is None
    for name in ("LD_LIBRARY_PATH", "ADSP_LIBRARY_PATH"):
        assert distrust_variable(name, f"/usr/lib;{folder}:{folder}/missing") is None
        for wrong in ("lib", f"{folder}:", "$ORIGIN/lib", "/usr/$LIB"):
            assert "no absolute folder" in distrust_variable(name, wrong).reason
        folder.chmod(0o777)
        assert "mode 0777" in distrust_variable(name, f"/usr/lib:{folder}/missing").reason
        folder.chmod(0o755)
    assert "mode 1777" in distrust_variable("LD_LIBRARY_PATH", "/tmp/nowhere-of-mine").reason


class Found(ExternalDelegate):
    """A device that is always there."""

    name = "found"
    api_version = 1
    libraries = ("libx.so",)

    def find(self, host) -> Probe:
        return Probe((Device("npu:0", "npu"),))


def test_probe_tells_of_a_library_that_is_passed_over(library: Path, monkeypatch) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", str(library.parent))
    assert Found().probe(probe_host()).devices[0].properties["library"] == str(library)
    library.parent.chmod(0o777)
    (problem,) = Found().probe(probe_host()).problems
    assert problem.stage == "library"
    assert problem.evidence.startswith(f"{library.parent} has mode 0777")
    assert problem.remedy == f"chmod go-w {library.parent}"


@pytest.fixture(scope="module")
def real_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        return build_library(tmp_path_factory.mktemp("faults"))
    except DelegateError as error:
        if "no C compiler" not in str(error):
            raise
        pytest.skip(str(error))


def test_a_worker_refuses_it_before_it_is_loaded(
    tmp_path: Path, real_library: Path, runtime_name: str, digits: Path
) -> None:
    folder = tmp_path / "shared"
    folder.mkdir()
    copied = folder / faults.LIBRARY
    copied.write_bytes(real_library.read_bytes())
    device = Device("fault:0", "npu", properties={"library": str(copied)})
    configuration = Configuration({"fault": "abort", "stage": "create"})  # loading it would be noticed
    folder.chmod(0o777)
    with pytest.raises(DelegateError, match=r"is not loaded: .* mode 0777.*chmod go-w"):
        open_remotely(FaultDelegate(), read_model(digits), device, configuration, load_runtime(runtime_name))
    folder.chmod(0o755)
    session = open_remotely(
        FaultDelegate(), read_model(digits), device, Configuration(), load_runtime(runtime_name)
    )
    assert session.coverage.taken == 8
    session.close()


@pytest.mark.parametrize("variable", ["LD_PRELOAD", "LD_LIBRARY_PATH"])
def test_a_device_can_not_bring_variables_that_load_other_code(
    real_library: Path, digits: Path, variable: str
) -> None:
    properties = {"library": str(real_library), "environment": {variable: "/tmp/nowhere-of-mine"}}
    device = Device("fault:0", "npu", properties=properties)
    with pytest.raises(DelegateError, match=f"environment {variable}: "):
        open_remotely(FaultDelegate(), read_model(digits), device, Configuration(), load_runtime())


def test_nor_can_a_plugin() -> None:
    from tflite_hal.contract import check_delegate

    class Preloading(Found):
        environment = {"LD_AUDIT": "/usr/lib/x.so"}  # noqa: RUF012

    with pytest.raises(PluginError, match="environment"):
        check_delegate(Preloading, "preloading")

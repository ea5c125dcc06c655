"""Which runtimes are usable, broken or absent, and why."""

import importlib
import os
import platform
import subprocess
import sys
import types
from pathlib import Path

import pytest

from tflite_hal import runtime
from tflite_hal.errors import RuntimeUnavailableError
from tflite_hal.runtime import NAMES, load_runtime, runtime_status, runtime_statuses


def fake_package(folder: Path, name: str, version: str, source: str = "") -> None:
    package = folder / name
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(f"__version__ = {version!r}\n")
    (package / "interpreter.py").write_text(source)
    (folder / f"{name}-{version}.dist-info").mkdir()


def test_every_runtime_has_a_status_with_a_way_out() -> None:
    for status in runtime_statuses():
        assert status.state in {"usable", "broken", "absent"}
        assert status.state == "usable" or (status.reason and status.remedy)


def test_load_gives_a_working_interpreter(runtime_name: str, digits: Path) -> None:
    loaded = load_runtime(runtime_name)
    assert (loaded.name, load_runtime(runtime_name)) == (runtime_name, loaded)
    assert loaded.version == runtime_status(runtime_name).version
    assert Path(loaded.library).is_file()
    interpreter = loaded.interpreter(digits.read_bytes(), threads=2, default_delegates=False)
    interpreter.allocate_tensors()
    interpreter.invoke()


def test_a_model_whose_name_is_no_text_is_opened(runtime_name: str, digits: Path, tmp_path: Path) -> None:
    path = os.fsdecode(os.fsencode(tmp_path) + b"/\xff.tflite")
    try:
        Path(path).write_bytes(digits.read_bytes())
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    load_runtime(runtime_name).interpreter(path).allocate_tensors()


def test_all_usable_runtimes_work_in_one_process(digits: Path) -> None:
    usable = [s.name for s in runtime_statuses() if s.state == "usable" and s.name != "tensorflow"]
    for name in usable * 2:
        interpreter = load_runtime(name).interpreter(str(digits))
        interpreter.allocate_tensors()
        interpreter.invoke()


def test_the_order_of_choice_and_its_overrides(monkeypatch: pytest.MonkeyPatch) -> None:
    first = next(s.name for s in runtime_statuses() if s.state == "usable")
    assert load_runtime().name == first
    monkeypatch.setenv("TFLITE_HAL_RUNTIME", "no_such")
    with pytest.raises(RuntimeUnavailableError, match=r"unknown runtime 'no_such'.*ai_edge_litert"):
        load_runtime()
    assert load_runtime(first).name == first


def test_an_old_tflite_runtime_under_numpy_2_is_broken_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_package(tmp_path, "tflite_runtime", "2.14.0")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(runtime, "_numpy_version", lambda: "2.4.6")
    status = runtime_status("tflite_runtime")
    assert (status.state, status.remedy) == ("broken", "pip install 'numpy<2'")
    assert "numpy 2.4.6" in status.reason
    monkeypatch.setattr(runtime, "_loaded", {})
    with pytest.raises(RuntimeUnavailableError, match="built for numpy 1"):
        load_runtime("tflite_runtime")


@pytest.mark.parametrize(
    "error",
    [
        "ImportError('libX.so')",
        "SystemError('numpy')",
        "AttributeError('_ARRAY_API')",
        "ValueError('numpy.dtype size changed, may indicate binary incompatibility')",
        "RuntimeError('module compiled against ABI version 0x1000009 but this numpy is 0x2000000')",
    ],
)
def test_a_runtime_that_fails_to_import_is_skipped_with_the_reason(tmp_path: Path, error: str) -> None:
    fake_package(tmp_path, "ai_edge_litert", "9.9", f"raise {error}")
    said = load_in_a_process(tmp_path)
    assert f"ai_edge_litert 9.9 can't be imported: {error.partition('(')[0]}" in said
    assert ("to fix it: pip install 'numpy" in said) == ("numpy" in error)
    assert "numpy" in error or "to fix it: pip install --force-reinstall ai-edge-litert" in said


def test_a_runtime_without_the_names_that_are_used_is_broken(tmp_path: Path) -> None:
    fake_package(tmp_path, "ai_edge_litert", "9.9", "Interpreter = OpResolverType = None")
    said = load_in_a_process(tmp_path)
    assert "ai_edge_litert 9.9 can't be imported: AttributeError: " in said and "load_delegate" in said


def test_where_its_library_is_may_stay_unknown(tmp_path: Path) -> None:
    fake_package(tmp_path, "ai_edge_litert", "9.9", "Interpreter = OpResolverType = load_delegate = None")
    assert load_in_a_process(tmp_path) == "<Runtime ai_edge_litert 9.9> ''\n"


def load_in_a_process(folder: Path) -> str:
    """Load the ``ai_edge_litert`` of a folder in a process of its own; return what it is, or the error."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from tflite_hal.runtime import load_runtime\n"
        "try:\n    r = load_runtime('ai_edge_litert'); print(r, repr(r.library))\n"
        "except ImportError as e:\n    print(e)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True
    )
    return done.stdout


def only_path(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Let a folder be the whole path, as if nothing were installed."""
    for name in NAMES:
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(sys, "path", [str(folder)])
    importlib.invalidate_caches()


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_that_only_has_the_name_is_no_runtime(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / name).mkdir()
    only_path(monkeypatch, tmp_path)
    status = runtime_status(name)
    assert (status.state, status.version) == ("absent", "")
    assert "not installed" in status.reason and status.remedy


def test_a_file_in_its_place_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "tensorflow.py"
    script.write_text("")
    only_path(monkeypatch, tmp_path)
    status = runtime_status("tensorflow")
    assert (status.state, status.remedy) == ("broken", f"rename {script}")
    assert str(script) in status.reason


def test_a_stand_in_is_no_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow", types.ModuleType("tensorflow"))
    status = runtime_status("tensorflow")
    assert status.state == "broken" and "sys.modules" in status.remedy


def test_the_version_is_that_of_the_package_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_package(tmp_path, "tensorflow", "2.15.1")
    (tmp_path / "tensorflow_estimator-2.15.0.dist-info").mkdir()
    only_path(monkeypatch, tmp_path)
    assert runtime_status("tensorflow").version == "2.15.1"
    (tmp_path / "tensorflow-2.15.1.dist-info").rename(tmp_path / "tensorflow_cpu-2.15.2.dist-info")
    (tmp_path / "tensorflow_estimator-2.15.0.dist-info").rmdir()
    assert runtime_status("tensorflow").version == "2.15.2"


def test_nothing_usable_names_every_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "_loaded", {})
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(RuntimeUnavailableError) as caught:
        load_runtime()
    for name in NAMES:
        assert name in str(caught.value)
    assert "pip install" in caught.value.remedy


@pytest.mark.parametrize(
    ("name", "system", "machine", "python", "remedy"),
    [
        ("ai_edge_litert", "Linux", "x86_64", (3, 11), "pip install ai-edge-litert"),
        ("ai_edge_litert", "Darwin", "arm64", (3, 14), "pip install ai-edge-litert"),
        ("ai_edge_litert", "Linux", "armv7l", (3, 11), "use tflite_runtime or tensorflow"),
        ("tflite_runtime", "Linux", "armv7l", (3, 11), "pip install 'tflite-hal[tflite-runtime]'"),
        ("tflite_runtime", "Linux", "x86_64", (3, 12), "use ai_edge_litert"),
        ("tflite_runtime", "Windows", "AMD64", (3, 11), "use ai_edge_litert"),
    ],
)
def test_the_pip_line_fits_python_and_processor(
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    system: str,
    machine: str,
    python: tuple[int, int],
    remedy: str,
) -> None:
    monkeypatch.setattr(platform, "system", lambda: system)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(sys, "version_info", (*python, 0))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    status = runtime_status(name)
    assert (status.state, status.remedy) == ("absent", remedy)

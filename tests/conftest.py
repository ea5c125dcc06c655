"""Fixtures: the runtimes of this environment, the example models, the real models beside the checkout."""

from __future__ import annotations

import os
import shutil
import sys
from collections import Counter
from functools import partial
from pathlib import Path

import pytest
from edgetpu_standin import Bus, build_library

from tflite_hal.host import probe_host
from tflite_hal.runtime import runtime_status, runtime_statuses

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"
#: TensorFlow takes seconds to import and is no dependency: tested where TFLITE_HAL_RUNTIME asks for it.
RUNTIMES = [s.name for s in runtime_statuses() if s.state == "usable" and s.name != "tensorflow"]

#: Manifests of Vulkan drivers for the tests that need an adapter, separated by colons (SwiftShader's is
#: enough, see .ci/run). All other tests run without: what is found must not depend on it.
VULKAN = os.environ.pop("VK_ICD_FILENAMES", "")


_engines: dict[str, Counter[str]] = {}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):
    """Count the tests that run models on an engine for real."""
    report = yield
    marker = item.get_closest_marker("engine")
    if marker is not None and (report.when == "call" or report.skipped):
        name = str(marker.args[0])
        runtime = getattr(item, "callspec", None) and item.callspec.params.get("runtime_name")
        _engines.setdefault(f"{name}, {runtime}" if runtime else name, Counter())[report.outcome] += 1
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Tell which engines ran: a run where all of one were skipped looks alike otherwise."""
    for name, counts in sorted(_engines.items()):
        terminalreporter.write_line(
            f"engine {name}: " + ", ".join(f"{number} {outcome}" for outcome, number in counts.items())
        )


@pytest.fixture(params=RUNTIMES)
def runtime_name(request: pytest.FixtureRequest) -> str:
    """Each usable runtime in turn."""
    return str(request.param)


@pytest.fixture(scope="session")
def digits() -> Path:
    """The int8 example model."""
    return ROOT / "examples" / "digits_int8.tflite"


@pytest.fixture(scope="session")
def digits_float() -> Path:
    """The float example model."""
    return ROOT / "examples" / "digits_float.tflite"


@pytest.fixture(scope="session")
def models() -> Path:
    """The folder of real models; skips where it is missing."""
    folder = SHARED / "models"
    if not folder.is_dir():
        pytest.skip(f"real models are not at {folder.parent.name}/{folder.name} beside the checkout")
    return folder


@pytest.fixture(scope="module")
def vulkan():
    """The GPU's device; skips with the probe's reason where there is none."""
    from tflite_hal_gpu import GpuDelegate

    if runtime_status("ai_edge_litert").state != "usable":
        pytest.skip("ai_edge_litert, which has the GPU accelerators, is not installed here")
    with pytest.MonkeyPatch.context() as patch:
        if VULKAN:
            patch.setenv("VK_ICD_FILENAMES", VULKAN)
        found = GpuDelegate().probe(probe_host())
        if not any("loader" in device.properties for device in found.devices):
            reasons = "; ".join(problem.evidence for problem in found.problems) or "no GPU, no Vulkan driver"
            pytest.skip(f"{reasons} (VK_ICD_FILENAMES={VULKAN or 'not set'})")
        yield found.devices[0]


@pytest.fixture(autouse=True)
def _fresh(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Each test finds plugins anew, remembers nothing, and reads no settings of who runs it. Engines that
    may or may not be installed take part where a module sets ``WITH_ENGINES``."""
    monkeypatch.setenv("TFLITE_HAL_CACHE_DIR", str(tmp_path_factory.mktemp("cache") / "tflite-hal"))
    if "tflite_hal.runner" in sys.modules:
        monkeypatch.setattr("tflite_hal.runner.choice._managers", [])
        monkeypatch.setattr("tflite_hal.runner.rest._until", {})
    for name in (
        "TFLITE_HAL_RUNTIME",
        "TFLITE_HAL_PROFILE_PATH",
        "TFLITE_HAL_PROFILE",
        "TFLITE_HAL_DELEGATES",
        "TFLITE_HAL_DISABLED_PLUGINS",
        "TFLITE_HAL_PYTHON",
        "TFLITE_HAL_ALLOW_KNOWN_BAD",
    ):
        monkeypatch.delenv(name, raising=False)
    if not getattr(request.module, "WITH_ENGINES", False):
        monkeypatch.setenv("TFLITE_HAL_DISABLED_PLUGINS", "openvino")


@pytest.fixture(scope="session")
def install_into():
    """Return a function that makes a plugin of given source a distribution in a folder."""

    def make(folder: Path, name: str, source: str, distribution: str | None = None) -> None:
        module, dist = f"tflite_hal_{name}", distribution or f"tflite-hal-{name}"
        (folder / f"{module}.py").write_text(source)
        info = folder / f"{dist.replace('-', '_')}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {dist}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[tflite_hal]\n{name} = {module}\n")

    return make


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, install_into):
    """Install a plugin of given source as a distribution of its own; returns a function."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    return partial(install_into, folder)


EDGE_TPU = """
from pathlib import Path

from tflite_hal import Device, hookimpl, probe_host
from tflite_hal_edgetpu import EdgeTpuDelegate

TREE = Path({tree!r})

class StandIn(EdgeTpuDelegate):
    def probe(self, host):
        found = super().probe(probe_host(TREE))
        library = {{"library": str(TREE / "usr/lib/libedgetpu.so.1")}}
        devices = [one._replace(properties={{**one.properties, **library}}) for one in found.devices]
        return found._replace(devices=tuple(devices))

@hookimpl
def tflite_hal_register_delegates():
    return [StandIn]
"""


@pytest.fixture
def edge_tpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, install) -> Bus:
    """A USB without sticks, and the Edge TPU's plugin looking at it instead of this machine."""
    if shutil.which("cc") is None:
        pytest.skip("no C compiler here")
    tree = tmp_path / "machine"
    bus = Bus(tree)
    build_library(tree)
    install("standin", EDGE_TPU.format(tree=str(tree)))
    monkeypatch.setenv("TFLITE_HAL_DISABLED_PLUGINS", "edgetpu,openvino")
    return bus

"""GPUs: what stands in the way, by files; and models on a real Vulkan adapter, a software one included."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import tflite
from handmade import build
from tflite_hal_gpu import ClassicGpuDelegate, GpuDelegate
from tflite_hal_gpu import vulkan as of_vulkan

from tflite_hal import (
    Configuration,
    DelegateError,
    Device,
    HostInfo,
    Outcome,
    Runner,
    probe_host,
    read_model,
)
from tflite_hal.delegate import Delegate, Probe, check_options
from tflite_hal.diagnosis.inspection import inspected
from tflite_hal.kernels import BuiltinKernels
from tflite_hal.manager import Manager
from tflite_hal.remote import open_remotely
from tflite_hal.runner.verified import verified
from tflite_hal.runtime import load_runtime
from tflite_hal.selection import Wish, candidates
from tflite_hal.testing import DelegateConformance
from tflite_hal.trial import seeded_inputs

CARD = "0000:01:00.0"
ICD = "usr/share/vulkan/icd.d"
LIBRARIES = "usr/lib/x86_64-linux-gnu"

#: By real model: what its trial on SwiftShader ends with, where that is not `right`.
REFUSED = {
    "pretrainedResnet_quant.tflite": Outcome.WRONG,
    "keras_lstm_mnist_ptq.tflite": Outcome.UNSUPPORTED,
    "keras_lstm_mnist_ptq_edgetpu.tflite": Outcome.UNSUPPORTED,
    "model_invoking_error.tflite": Outcome.UNSUPPORTED,
}


def machine(root: Path, *, driver: str = "", node: str = "", files=(), manifests=None) -> HostInfo:
    """Make a machine with one display controller."""
    card = root / "sys/bus/pci/devices" / CARD
    card.mkdir(parents=True)
    for name, text in (("vendor", "0x8086"), ("device", "0x46a6"), ("class", "0x030000")):
        (card / name).write_text(text)
    if driver:
        (card / "driver").symlink_to(f"../../../drivers/{driver}")
    if node:
        (card / "drm" / node).mkdir(parents=True)
        add(root, f"dev/dri/{node}")
    add(root, "proc/cpuinfo", "flags : lm\n")
    for path in files:
        add(root, path)
    for name, library in (manifests or {}).items():
        add(root, f"{ICD}/{name}.json", json.dumps({"ICD": {"library_path": library}}))
    return probe_host(root)


def add(root: Path, path: str, text: str = "") -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


LOADER = f"{LIBRARIES}/libvulkan.so.1"
INTEL = f"{LIBRARIES}/libvulkan_intel.so"
LAVAPIPE = f"{LIBRARIES}/libvulkan_lvp.so"
READY = {"driver": "i915", "node": "renderD128"}


@pytest.mark.parametrize(
    ("given", "stage", "evidence", "remedy"),
    [
        ({}, "driver", f"GPU 8086:46a6 at {CARD} is on the bus, no driver is bound", "Vulkan driver"),
        ({"driver": "bochs-drm"}, "node", "has the driver bochs-drm, but no node to render with", "/dev/dri"),
        (READY, "library", "libvulkan.so.1 is not in the loader's folders", "libvulkan1"),
        ({**READY, "files": [LOADER]}, "library", "no Vulkan driver has a manifest", "mesa-vulkan-drivers"),
        (
            {**READY, "files": [LOADER], "manifests": {"intel": "libvulkan_intel.so"}},
            "library",
            "no Vulkan driver has a manifest",  # its library is not there
            "mesa-vulkan-drivers",
        ),
    ],
)
def test_what_stands_in_the_way_is_told_apart(tmp_path: Path, given, stage, evidence, remedy) -> None:
    found = GpuDelegate().probe(machine(tmp_path, **given))
    assert found.devices == ()
    (problem,) = found.problems
    assert (problem.stage, problem.kind) == (stage, "gpu")
    assert evidence in problem.evidence
    assert remedy in problem.remedy


@pytest.mark.parametrize(
    "library", ["libvulkan_intel.so", f"/{INTEL}", "../../../lib/x86_64-linux-gnu/libvulkan_intel.so"]
)
def test_a_gpu_with_all_it_needs_is_a_device(tmp_path: Path, library: str) -> None:
    manifests = {"intel": library, "lvp": f"/{LAVAPIPE}", "broken": 3}
    host = machine(tmp_path, **READY, files=[LOADER, INTEL, LAVAPIPE], manifests=manifests)
    add(tmp_path, f"{ICD}/damaged.json", "{")
    (device,) = GpuDelegate().probe(host).devices
    assert (device.id, device.kind) == ("gpu:0", "gpu")
    assert device.name == f"GPU 8086:46a6 at {CARD} (i915)"
    (driver,) = device.properties["drivers"]
    assert os.path.normpath(driver) == f"/{INTEL}"
    assert "software" not in device.properties


@pytest.mark.parametrize("driver", ["", "bochs-drm", "i915"])
def test_a_software_driver_is_marked_and_hides_no_problem(tmp_path: Path, driver: str) -> None:
    given = READY if driver == "i915" else {"driver": driver}
    host = machine(tmp_path, **given, files=[LOADER, LAVAPIPE], manifests={"lvp": f"/{LAVAPIPE}"})
    found = GpuDelegate().probe(host)
    (device,) = found.devices
    assert (device.id, device.properties["software"]) == ("gpu:software", True)
    assert len(found.problems) == 1


def test_a_gpu_on_a_platform_bus(tmp_path: Path) -> None:
    add(tmp_path, "dev/dri/renderD128")
    (tmp_path / "sys/class/drm/renderD128/device").mkdir(parents=True)
    (tmp_path / "sys/class/drm/renderD128/device/driver").symlink_to("../../bus/platform/drivers/panfrost")
    (problem,) = GpuDelegate().probe(probe_host(tmp_path)).problems
    assert problem.evidence.startswith("GPU at /dev/dri/renderD128 (panfrost): libvulkan.so.1 is not")


def test_a_node_that_may_not_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests may run as root, who may open everything: the answer is given here."""
    host = machine(tmp_path, **READY, files=[LOADER, INTEL], manifests={"intel": f"/{INTEL}"})
    monkeypatch.setattr(HostInfo, "access", lambda *_: False)
    found = GpuDelegate().probe(host)
    assert found.devices == ()
    assert found.problems[0].stage == "permission"
    assert "/dev/dri/renderD128 may not be opened" in found.problems[0].evidence
    assert "group" in found.problems[0].remedy


def test_a_machine_without_a_gpu_has_nothing_to_say(tmp_path: Path) -> None:
    assert GpuDelegate().probe(probe_host(tmp_path)) == Probe()
    assert ClassicGpuDelegate().probe(probe_host(tmp_path)) == Probe()


# What others can change

POSIX = pytest.mark.skipif(os.name == "nt", reason="file modes are POSIX")


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that has all that Vulkan needs, named to this process, and nobody else's."""
    for name, text in (
        ("lib/libvulkan.so.1", ""),
        ("driver/libvk_swiftshader.so", ""),
        ("manifest/own.json", json.dumps({"ICD": {"library_path": "../driver/libvk_swiftshader.so"}})),
    ):
        add(tmp_path, name, text)
        (tmp_path / name).chmod(0o644)
        (tmp_path / name).parent.chmod(0o755)
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path / "lib"))
    monkeypatch.setenv("VK_ICD_FILENAMES", str(tmp_path / "manifest" / "own.json"))
    monkeypatch.delenv("VK_DRIVER_FILES", raising=False)
    return tmp_path


@POSIX
@pytest.mark.parametrize(
    ("place", "mode"),
    [
        ("driver/libvk_swiftshader.so", 0o666),
        ("driver", 0o777),
        ("driver", 0o1777),
        ("manifest/own.json", 0o664),
        ("manifest", 0o777),
    ],
)
def test_a_driver_that_others_can_change_is_a_problem_and_no_device(own: Path, place: str, mode: int) -> None:
    (device,) = [one for one in GpuDelegate().probe(probe_host()).devices if one.id == "gpu:software"]
    assert device.properties["environment"] == {"VK_ICD_FILENAMES": f"{own}/manifest/own.json"}
    (own / place).chmod(mode)
    found = GpuDelegate().probe(probe_host())
    assert not found.devices
    problem = next(one for one in found.problems if "own.json" in one.evidence)
    assert (problem.stage, problem.device, problem.kind) == ("library", "gpu:software", "gpu")
    assert f"/{Path(place).name} has mode {mode:04o}" in problem.evidence
    assert problem.remedy


@POSIX
def test_a_driver_by_its_name_is_the_first_that_the_loader_finds(own: Path, monkeypatch) -> None:
    """One that is passed over here would be loaded there."""
    (own / "manifest/own.json").write_text(json.dumps({"ICD": {"library_path": "libvk_swiftshader.so"}}))
    add(own, "other/libvk_swiftshader.so")
    monkeypatch.setenv("LD_LIBRARY_PATH", f"{own}/lib:{own}/driver:{own}/other")
    assert GpuDelegate().probe(probe_host()).devices
    (own / "driver").chmod(0o777)
    assert not GpuDelegate().probe(probe_host()).devices


@POSIX
def test_a_loader_that_others_can_change_is_told_and_not_loaded(own: Path, monkeypatch) -> None:
    (device,) = GpuDelegate().probe(probe_host()).devices
    monkeypatch.setattr(of_vulkan.ctypes, "CDLL", lambda *_: pytest.fail("it was loaded"))
    for place in ("lib/libvulkan.so.1", "driver/libvk_swiftshader.so"):
        (own / place).chmod(0o666)
        with pytest.raises(DelegateError, match=rf"{place} is not loaded: .* mode 0666") as caught:
            of_vulkan.adapters(device)
        assert "chmod go-w" in caught.value.remedy
        (own / place).chmod(0o644)
    (own / "lib").chmod(0o777)
    monkeypatch.setattr(HostInfo, "_library_folders", lambda _: iter([f"{own}/lib"]))
    found = GpuDelegate().probe(probe_host())
    assert not found.devices
    assert any(f"Vulkan's loader is not used: {own}/lib has mode" in one.evidence for one in found.problems)


@POSIX
def test_beside_a_driver_that_is_refused_others_are_used(own: Path, monkeypatch) -> None:
    """The loader would load all that the variable names."""
    for name in ("bad", "good"):
        add(own, f"{name}/libvk_swiftshader.so")
        add(own, f"{name}/own.json", json.dumps({"ICD": {"library_path": "./libvk_swiftshader.so"}}))
        (own / name).chmod(0o777 if name == "bad" else 0o755)
    monkeypatch.setenv("VK_DRIVER_FILES", f"{own}/bad/own.json:{own}/good/own.json:relative.json")
    (device,) = GpuDelegate().probe(probe_host()).devices
    expected = dict.fromkeys(("VK_DRIVER_FILES", "VK_ICD_FILENAMES"), f"{own}/good/own.json")
    assert device.properties["environment"] == expected
    assert device.properties["drivers"] == [f"{own}/good/libvk_swiftshader.so"]
    monkeypatch.setenv("VK_DRIVER_FILES", f"{own}/good/own.json:relative.json")
    (device,) = GpuDelegate().probe(probe_host()).devices
    assert device.properties["environment"] == expected


@POSIX
def test_asking_vulkan_loads_nothing_that_is_refused_and_tells_of_it(
    vulkan: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trusted = GpuDelegate().probe(probe_host()).devices[0].properties["environment"]
    if not trusted:
        pytest.skip("no variable names the drivers here")
    add(tmp_path, "libvk_other.so", "a driver that is none")
    (tmp_path / "libvk_other.so").chmod(0o666)
    add(tmp_path, "other.json", json.dumps({"ICD": {"library_path": "./libvk_other.so"}}))
    monkeypatch.setenv("VK_ICD_FILENAMES", f"{tmp_path}/other.json:{''.join(trusted.values())}")
    manager, host = Manager(), probe_host()
    found = inspected(manager, manager.probe(host), host)["gpu"]
    assert [one.id for one in found.devices] == [vulkan.id]
    assert "(CPU" in found.devices[0].name or not vulkan.properties.get("software")
    assert any("libvk_other.so has mode 0666" in one.evidence for one in found.problems)


# The classic delegate


def test_the_classic_delegate_is_missed_by_nobody(tmp_path: Path) -> None:
    assert ClassicGpuDelegate().probe(machine(tmp_path, **READY)) == Probe()


def test_the_classic_delegate_with_opencl_under_another_name(tmp_path: Path) -> None:
    library = f"{LIBRARIES}/libtensorflowlite_gpu_delegate.so"
    host = machine(tmp_path, **READY, files=[library, f"{LIBRARIES}/libOpenCL.so.1"])
    found = ClassicGpuDelegate().probe(host)
    assert found.devices[0].properties["library"] == f"/{library}"
    assert "libOpenCL.so.1 is there, but the delegate opens libOpenCL.so" in found.problems[0].evidence


@POSIX
def test_the_classic_delegate_that_others_can_change_is_told(tmp_path: Path, monkeypatch) -> None:
    library = tmp_path / "libtensorflowlite_gpu_delegate.so"
    library.write_bytes(b"")
    library.chmod(0o666)
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    host = probe_host()
    host.pci, host.nodes = (), ("/dev/mali0",)
    found = ClassicGpuDelegate().probe(host)
    assert not found.devices
    (problem,) = (one for one in found.problems if "mode 0666" in one.evidence)
    assert (problem.stage, problem.device, problem.remedy) == ("library", "gpu:0", f"chmod go-w {library}")


def test_the_classic_delegate_takes_no_options() -> None:
    """Its builds read them as others than they name."""
    with pytest.raises(DelegateError, match="has no option"):
        check_options(ClassicGpuDelegate(), {"is_precision_loss_allowed": 0})


# The choice


class Emulated(Delegate):
    name, api_version, runtimes = "emulated", 1, None

    def probe(self, host: HostInfo) -> Probe:
        return Probe((Device("gpu:7", "gpu", "an emulation", {"software": True}),))


@pytest.mark.parametrize(
    ("wish", "taken"),
    [
        (Wish(), False),
        (Wish(device="cpu"), False),
        (Wish(delegates=["other"]), False),
        (Wish(device="gpu"), True),
        (Wish(device="gpu:7"), True),
        (Wish(delegates=["other", "emulated"]), True),
        (Wish(delegates=["emulated"], exclude=["gpu"]), False),
    ],
)
def test_software_takes_part_where_it_is_asked_for(digits: Path, wish: Wish, taken: bool) -> None:
    delegate = Emulated()
    given = (read_model(digits), [delegate], {"emulated": delegate.probe(None)}, None, load_runtime())
    result = candidates(*given, wish)
    assert bool(result.found) == taken
    if wish == Wish():
        (attempt,) = result.refused
        assert attempt.outcome is Outcome.EXCLUDED
        assert "an emulation computes on the CPU; device='gpu' or delegates=['emulated']" in attempt.reason


# On a real adapter


@pytest.mark.usefixtures("vulkan")
class TestOnAnAdapter(DelegateConformance):
    delegate = GpuDelegate
    models = tuple((Path(__file__).parents[1] / "examples").glob("*.tflite"))


def test_vulkan_names_its_adapters(vulkan: Device) -> None:
    manager = Manager()
    host = probe_host()
    found = inspected(manager, manager.probe(host), host)["gpu"]
    (device,) = found.devices
    assert device.id == vulkan.id
    assert device.name in ", ".join(device.properties["adapters"])
    assert "Vulkan 1." in device.name
    assert device.properties.get("software", False) == ("(CPU" in device.properties["adapters"][0])


def test_only_live_machines_are_asked(vulkan: Device, tmp_path: Path) -> None:
    host = machine(tmp_path, **READY, files=[LOADER, INTEL], manifests={"intel": f"/{INTEL}"})
    assert GpuDelegate().inspect(host) == GpuDelegate().probe(host)


@pytest.mark.parametrize("variable", ["VK_ICD_FILENAMES", "VK_DRIVER_FILES"])
def test_drivers_that_variables_name(
    vulkan: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, str(tmp_path / "absent.json"))
    assert not any("loader" in device.properties for device in GpuDelegate().probe(probe_host()).devices)


def test_a_driver_that_is_none_is_a_problem(vulkan: Device, tmp_path: Path) -> None:
    add(tmp_path, "libvulkan_broken.so", "no library")
    add(tmp_path, "broken.json", json.dumps({"ICD": {"library_path": "./libvulkan_broken.so"}}))
    environment = {"VK_ICD_FILENAMES": str(tmp_path / "broken.json")}
    device = vulkan._replace(properties={**vulkan.properties, "environment": environment})
    given = (GpuDelegate(), read_model(build()), device, Configuration(), load_runtime("ai_edge_litert"))
    with pytest.raises(DelegateError, match="vkCreateInstance failed: VkResult -9") as caught:
        open_remotely(*given)
    assert "install a Vulkan driver" in caught.value.remedy


def test_a_software_adapter_behind_a_gpu_is_noticed(vulkan: Device, digits: Path) -> None:
    """Files may promise a GPU that the driver does not know."""
    if not vulkan.properties.get("software"):
        pytest.skip(f"{vulkan.name} is no software adapter")
    device = vulkan._replace(properties={**vulkan.properties, "software": False})
    given = (GpuDelegate(), read_model(digits), device)
    runtime = load_runtime("ai_edge_litert")
    with pytest.raises(DelegateError, match="which computes on the CPU") as caught:
        open_remotely(*given, Configuration(), runtime)
    assert 'options={"software": True}' in caught.value.remedy
    open_remotely(*given, Configuration({"software": True}), runtime).close()


@pytest.mark.parametrize("name", ["digits_int8", "digits_float"])
def test_the_example_models_answer_rightly(vulkan: Device, digits: Path, name: str) -> None:
    path = digits.with_name(f"{name}.tflite")
    with Runner(path, delegate="gpu") as runner, Runner(path, delegate="builtin") as plain:
        inputs = seeded_inputs(runner.inputs)
        np.testing.assert_allclose(runner.predict(inputs), plain.predict(inputs), atol=1, rtol=1e-4)
        assert runner.device.id == vulkan.id
        assert runner.selection.winner.coverage.taken == 8


@pytest.mark.engine("LiteRT's WebGPU on a Vulkan adapter")
def test_every_real_model_is_right_or_refused(vulkan: Device, models: Path) -> None:
    outcomes = {}
    for path in sorted(models.glob("*.tflite")):
        attempts = verified(path, delegates=["gpu"], runtime="ai_edge_litert").attempts
        (attempt,) = [a for a in attempts if a.delegate == "gpu" and a.outcome is not Outcome.UNTRIED]
        outcomes[path.name] = attempt.outcome
        assert attempt.reason or attempt.outcome is Outcome.RIGHT
    right = dict.fromkeys(outcomes, Outcome.RIGHT)
    assert outcomes == {**right, **REFUSED}


def test_a_dynamic_batch_resizes(vulkan: Device, models: Path) -> None:
    images = np.random.default_rng(0).standard_normal((5, 32, 32, 3)).astype(np.float32)
    with Runner(models / "pretrainedResnet.tflite", delegate="gpu") as runner:
        together = runner.predict(images)
        for one, row in zip(images, together, strict=True):
            np.testing.assert_allclose(runner.predict(one[None])[0], row, atol=1e-5)
        np.testing.assert_array_equal(runner.predict(images), together)


def test_an_operator_that_the_gpu_lacks(vulkan: Device) -> None:
    """64-bit integers: refused, or run by the CPU where that is asked for, and then never called covered."""
    content = build(kind=tflite.TensorType.INT64)
    with pytest.raises(DelegateError, match=r"status 504 \(compilation\)") as caught:
        Runner(content, delegate="gpu")
    assert "'partial': True" in str(caught.value).replace('"', "'")
    with Runner(content, delegate="gpu", options={"partial": True}) as runner:
        arrays = [np.array([[1, 2, 3, 2**40]], np.int64)] * 2
        assert runner.predict(arrays).tolist() == [[2, 4, 6, 2**41]]
        assert runner.selection.winner.coverage is None


def test_precision_is_what_was_asked_for(vulkan: Device, digits_float: Path) -> None:
    model = read_model(digits_float)
    inputs, runtime = seeded_inputs(model.info.inputs), load_runtime("ai_edge_litert")
    plain = BuiltinKernels().open(model, Device("cpu", "cpu"), Configuration(threads=1), runtime)
    (right,) = plain.prepare().run(inputs)
    error = {}
    for precision in ("fp16", "fp32"):
        configuration = Configuration({"precision": precision, "software": True})
        session = open_remotely(GpuDelegate(), model, vulkan, configuration, runtime)
        error[precision] = float(np.abs(session.prepare().run(inputs)[0] - right).max())
        session.close()
    assert error["fp32"] < 1e-5 < error["fp16"]


# Asking libraries, in child processes


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("raise RuntimeError('no answer')", "no answer"),
        ("__import__('os').kill(__import__('os').getpid(), 11)", "SIGSEGV"),
        ("__import__('threading').Event().wait()", "no answer within 1 s"),
    ],
)
def test_an_inspection_that_fails_costs_no_device(install, monkeypatch, body: str, said: str) -> None:
    install(
        "asked",
        f"""
from tflite_hal import Delegate, Device, Probe, hookimpl

class Asked(Delegate):
    name, api_version, runtimes = "asked", 1, None
    def probe(self, host):
        return Probe((Device("npu:0", "npu"),))
    def inspect(self, host):
        {body}

@hookimpl
def tflite_hal_register_delegates():
    return [Asked]
""",
    )
    monkeypatch.setattr("tflite_hal.remote.delegate.ASK_LIMIT", 1.0)
    manager, host = Manager(), probe_host()
    found = inspected(manager, manager.probe(host), host)["asked"]
    assert found.devices == (Device("npu:0", "npu"),)
    (problem,) = found.problems
    assert problem.stage == "open"
    assert said in problem.evidence

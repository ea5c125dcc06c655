"""The built-in plugins and the example: conformance, captured machines, real libraries that fail."""

import importlib
import shutil
import subprocess
from pathlib import Path

import pytest
from tflite_hal_acme import AcmeDelegate
from tflite_hal_edgetpu import EdgeTpuDelegate
from tflite_hal_gpu import ClassicGpuDelegate, GpuDelegate
from tflite_hal_hexagon import HexagonDelegate
from tflite_hal_xnnpack import XnnpackDelegate

from tflite_hal import (
    Configuration,
    DelegateError,
    Device,
    DeviceProfile,
    ExternalDelegate,
    HostInfo,
    Option,
    WorkerCrashedError,
    WorkerHungError,
    probe_host,
    read_model,
)
from tflite_hal.delegate import check_options
from tflite_hal.kernels import BuiltinKernels
from tflite_hal.profiles import parse_profile
from tflite_hal.remote import open_remotely
from tflite_hal.runtime import load_runtime
from tflite_hal.testing import DelegateConformance

ROOT = Path(__file__).resolve().parents[1]
CAPTURES = ROOT.parent / "shared" / "captures"
TREES = [path for path in sorted((ROOT / "tests" / "hosts").glob("*")) if path.is_dir()]
EXAMPLES = [ROOT / "examples" / name for name in ("digits_int8.tflite", "digits_float.tflite")]


class Conformance(DelegateConformance):
    models = EXAMPLES
    hosts = TREES + [path / "root" for path in sorted(CAPTURES.glob("*")) if path.is_dir()]


class TestXnnpack(Conformance):
    delegate = XnnpackDelegate


class TestBuiltinKernels(Conformance):
    delegate = BuiltinKernels


class TestEdgeTpu(Conformance):
    delegate = EdgeTpuDelegate


class TestGpu(Conformance):
    delegate = GpuDelegate


class TestClassicGpu(Conformance):
    delegate = ClassicGpuDelegate


class TestHexagon(Conformance):
    delegate = HexagonDelegate


class TestExample(Conformance):
    delegate = AcmeDelegate


def test_the_edge_tpu_takes_compiled_models_only(digits: Path) -> None:
    reason = EdgeTpuDelegate().supports(read_model(digits), Device("usb:0", "tpu"))
    assert "edgetpu_compiler" in reason


@pytest.mark.parametrize(
    ("options", "right"),
    [
        ({"Performance": "Max"}, True),
        ({"Performance": "Fastest"}, False),
        ({"Usb.MaxBulkInQueueLength": 256}, False),
        ({"Usb.MaxBulkInQueueLength": True}, False),
        ({"Usb.AlwaysDfu": True}, True),
        ({"Usb.AlwaysDfu": 1}, False),
        ({"device": "usb:1"}, False),
    ],
)
def test_the_edge_tpus_options_are_checked(options, right: bool) -> None:
    if right:
        check_options(EdgeTpuDelegate(), options)
    else:
        with pytest.raises(DelegateError, match=next(iter(options))):
            check_options(EdgeTpuDelegate(), options)


def compiled(folder: Path, name: str, source: str) -> Path:
    """Build a shared library from C; skips where there is no compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler here")
    (folder / f"{name}.c").write_text(source)
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-o", str(folder / name), str(folder / f"{name}.c")], check=True
    )
    return folder / name


HEAD = "#include <stddef.h>\n#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n"
CREATE = HEAD + (
    "typedef void (*report)(const char *);\n"
    "void *tflite_plugin_create_delegate(char **k, char **v, size_t n, report say) {{\n{}\n}}\n"
)
DESTROY = "void tflite_plugin_destroy_delegate(void *d) { free(d); }\n"
TELLS_OPTIONS = """
char text[1000] = "options:";
for (size_t i = 0; i < n; i++)
    sprintf(text + strlen(text), " %s=%s", k[i], v[i]);
say(text); return NULL;"""
# Laid out as TfLiteDelegate: data, Prepare, three buffer functions, flags, builder. Prepare takes nothing.
IDLE = (
    "struct d { void *data; int (*prepare)(void *, void *); void *c[3]; long flags; void *b; };\n"
    "static int ok(void *a, void *b) { return 0; }\n"
)
MAKES_IDLE = "struct d *d = calloc(1, sizeof *d); d->prepare = ok; return d;"
REFUSES = IDLE.replace("return 0", "return 1")


@pytest.mark.parametrize(
    ("source", "error", "words"),
    [
        (CREATE.format(TELLS_OPTIONS) + DESTROY, DelegateError, "options: device=usb:0 Performance=Max"),
        (CREATE.format("return NULL;") + DESTROY, DelegateError, "it gave no message"),
        (
            CREATE.format('say("Could not partition page table."); return NULL;') + DESTROY,
            DelegateError,
            "4 KiB pages",
        ),
        ("int x;", DelegateError, "is not a TensorFlow Lite delegate"),
        (IDLE + CREATE.format(MAKES_IDLE) + DESTROY, DelegateError, "took none of the 8 operators"),
        (REFUSES + CREATE.format(MAKES_IDLE) + DESTROY, DelegateError, "open failed"),
        (
            CREATE.format('fputs("no firmware", stderr); abort();') + DESTROY,
            WorkerCrashedError,
            "SIGABRT.*no firmware",
        ),
        (CREATE.format("exit(0);") + DESTROY, WorkerCrashedError, "exit status 0 without an answer"),
        (
            "__attribute__((constructor)) static void f(void) { __builtin_trap(); }",
            WorkerCrashedError,
            "killed by SIGILL",
        ),
    ],
    ids=["options", "null", "message", "symbols", "idle", "prepare", "abort", "exit", "constructor"],
)
def test_a_real_library_that_fails(
    tmp_path: Path, runtime_name: str, digits: Path, source: str, error, words: str
) -> None:
    device = Device(
        "usb:0", "tpu", properties={"library": str(compiled(tmp_path, "libedgetpu.so.1", source))}
    )
    configuration = Configuration({"Performance": "Max"})
    with pytest.raises(error, match=words):
        open_remotely(
            EdgeTpuDelegate(), read_model(digits), device, configuration, load_runtime(runtime_name)
        )


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"not a library", "invalid ELF header|file too short"), (None, "cannot open shared object")],
)
def test_a_file_that_is_no_library(
    tmp_path: Path, runtime_name: str, digits: Path, content, words: str
) -> None:
    library = tmp_path / "libedgetpu.so.1"
    if content is not None:
        library.write_bytes(content * 100)
    device = Device("usb:0", "tpu", properties={"library": str(library)})
    with pytest.raises(DelegateError, match=words):
        open_remotely(
            EdgeTpuDelegate(), read_model(digits), device, Configuration(), load_runtime(runtime_name)
        )


def test_a_library_is_named_by_absolute_path(digits: Path) -> None:
    class Relative(ExternalDelegate):
        name = "relative"

    device = Device("x", "npu", properties={"library": "libx.so"})
    with pytest.raises(DelegateError, match="no absolute path"):
        Relative().open(read_model(digits), device, Configuration(), load_runtime())


def test_options_are_of_their_type() -> None:
    class Vendor(ExternalDelegate):
        name = "vendor"
        options = (Option("rate", "float"), Option("name", "str"))

    check_options(Vendor(), {"rate": 1, "name": "x"})
    for wrong in ({"rate": "1"}, {"rate": True}, {"name": 1}):
        with pytest.raises(DelegateError):
            check_options(Vendor(), wrong)


def host_with(tmp_path: Path, cpuinfo: str, mhz: dict[int, int]) -> HostInfo:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text(cpuinfo)
    for cpu, value in mhz.items():
        folder = tmp_path / f"sys/devices/system/cpu/cpu{cpu}/cpufreq"
        folder.mkdir(parents=True)
        (folder / "cpuinfo_max_freq").write_text(f"{value * 1000}\n")
    return probe_host(tmp_path)


ARM64 = "".join(f"processor : {n}\nFeatures : fp asimd\nCPU architecture: 8\n\n" for n in range(8))


def test_xnnpack_takes_the_fast_cores(tmp_path: Path) -> None:
    host = host_with(tmp_path, ARM64, {n: 1800 if n < 5 else 2400 for n in range(8)})
    (device,) = XnnpackDelegate().probe(host).devices
    assert device.properties["threads"] == 3


def test_xnnpack_on_32_bit_arm_says_why_not(tmp_path: Path) -> None:
    host = host_with(tmp_path, "processor : 0\nCPU architecture: 7\nFeatures : neon\n", {})
    probe = XnnpackDelegate().probe(host)
    assert probe.devices == ()
    assert "built without XNNPACK" in probe.problems[0].evidence


def threads(model: Path, most: int, profile: DeviceProfile | None = None) -> list[int | None]:
    device = Device("cpu", "cpu", properties={"threads": most})
    return [c.threads for c in XnnpackDelegate().configurations(read_model(model), device, profile)]


def test_xnnpack_thread_choices(models: Path, digits: Path) -> None:
    assert threads(models / "mobilenet_v1_0.25_128_quant.tflite", 4) == [4, 1]
    assert threads(digits, 4) == [1, 4]
    assert threads(digits, 1) == [1]


def test_xnnpack_follows_the_profile(models: Path) -> None:
    text = (ROOT / "device_profiles" / "raspberry-pi-5.yaml").read_text()
    profile = parse_profile(text, "raspberry-pi-5.yaml")
    assert threads(models / "mobilenet_v1_0.25_128_quant.tflite", 3, profile) == [3, 1]


def test_a_probe_that_hangs_fails_its_conformance_test_and_ends(install, monkeypatch) -> None:
    text = (ROOT / "tests/example_plugin/tflite_hal_acme.py").read_text()
    hang = "        __import__('threading').Event().wait()\n"
    place = text.index("    def probe(")
    body = text.index('"""\n', text.index('"""', place) + 3) + 4
    install("stuck", text[:body] + hang + text[body:])
    monkeypatch.setattr("tflite_hal.remote.delegate.ASK_LIMIT", 1.0)
    module = importlib.import_module("tflite_hal_stuck")

    class Stuck(DelegateConformance):
        delegate = module.AcmeDelegate

    with pytest.raises(WorkerHungError, match=r"no answer within 1 s while asking acme for probe"):
        Stuck().test_probe_never_raises()


REVERSED = """

_open = AcmeDelegate.open


def _reversed(self, model, device, configuration, runtime):
    session = _open(self, model, device, configuration, runtime)
    prepare = session.prepare

    def reverse(*arguments):
        call = prepare(*arguments)

        class Reversed:
            def run(self, arrays):
                return [array[..., ::-1].copy() for array in call.run(arrays)]

        return Reversed() if configuration.options["mode"] == "exact" else call

    session.prepare = reverse
    return session


AcmeDelegate.open = _reversed
"""


def test_conformance_compares_every_configuration_and_passes_nothing_untried(install) -> None:
    text = (ROOT / "tests/example_plugin/tflite_hal_acme.py").read_text()
    install("turned", text + REVERSED)
    module = importlib.import_module("tflite_hal_turned")

    class Turned(DelegateConformance):
        delegate = module.AcmeDelegate
        models = EXAMPLES

    with pytest.raises(AssertionError, match="mode=exact"):
        Turned().test_it_agrees_with_the_builtin_kernels()
    Turned.models = []
    with pytest.raises(pytest.skip.Exception, match="there are none"):
        Turned().test_it_agrees_with_the_builtin_kernels()

"""Qualcomm's Hexagon: which of two delegates is there, what is missing, and stand-ins that really load."""

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from tflite_hal_hexagon import HexagonDelegate

from tflite_hal import Configuration, DelegateError, Device, Probe, probe_host, read_model
from tflite_hal.contract import check_delegate
from tflite_hal.delegate import check_options
from tflite_hal.remote import open_remotely
from tflite_hal.runtime import load_runtime
from tflite_hal.testing import faults
from tflite_hal.trial import seeded_inputs

HOSTS = Path(__file__).parent / "hosts"
FAULTS = Path(faults.__file__).parent


@pytest.fixture
def board(tmp_path: Path) -> Path:
    """A copy of the board with everything."""
    shutil.copytree(HOSTS / "qcom-rb3gen2", tmp_path / "board")
    return tmp_path / "board"


def probe(root: Path) -> Probe:
    return HexagonDelegate().probe(probe_host(root))


def test_the_contract() -> None:
    check_delegate(HexagonDelegate, "hexagon")


def test_qnn_drives_the_tensor_processor_and_the_gpu(board: Path) -> None:
    npu, gpu = probe(board).devices
    assert (npu.id, npu.kind, npu.name) == ("npu:0", "npu", "Hexagon by QNN (htp)")
    assert npu.properties["library"] == "/usr/lib/libQnnTFLiteDelegate.so"
    assert npu.properties["environment"] == {
        "LD_LIBRARY_PATH": "/usr/lib",
        "ADSP_LIBRARY_PATH": "/usr/lib/rfsa/adsp",
    }
    assert (gpu.id, gpu.kind) == ("gpu:0", "gpu")
    options = HexagonDelegate().library_options(npu, Configuration({"htp_performance_mode": 2}))
    assert list(options.items()) == [
        ("backend_type", "htp"),
        ("library_path", "/usr/lib/libQnnHtp.so"),
        ("htp_performance_mode", 2),
    ]


@pytest.mark.parametrize(
    ("missing", "stage", "evidence", "remedy"),
    [
        (("dev/fastrpc-cdsp", "dev/fastrpc-adsp"), "node", "/dev/fastrpc-*", "module fastrpc"),
        (("usr/lib/libQnnTFLiteDelegate.so",), "library", "libQnnTFLiteDelegate.so is not in", "QAIRT"),
        (("usr/lib/libQnnHtp.so",), "library", "backend libQnnHtp.so", "QAIRT"),
        (("usr/lib/rfsa/adsp/libQnnHtpV68Skel.so",), "library", "libQnnHtpV68Skel.so", "ADSP_LIBRARY_PATH"),
    ],
)
def test_what_is_missing_is_told_by_stage(board: Path, missing, stage: str, evidence: str, remedy) -> None:
    for name in missing:
        (board / name).unlink()
    problem = next(one for one in probe(board).problems if one.device == "npu:0")
    assert (problem.stage, problem.kind) == (stage, "npu")
    assert evidence in problem.evidence
    assert remedy in problem.remedy


def test_a_skel_for_another_hexagon_or_a_link_that_loops_is_none(board: Path) -> None:
    skel = board / "usr/lib/rfsa/adsp/libQnnHtpV68Skel.so"
    skel.rename(skel.with_name("libQnnHtpV73Skel.so"))
    assert probe(board).problems[0].stage == "library"
    skel.symlink_to(skel.name)  # as Ubuntu's packages may leave them
    assert probe(board).problems[0].stage == "library"
    other = board / "usr/lib/dsp/cdsp" / skel.name
    other.parent.mkdir(parents=True)
    other.write_bytes(b"")
    assert probe(board).devices[0].properties["environment"]["ADSP_LIBRARY_PATH"] == "/usr/lib/dsp/cdsp"


def test_nodes_that_may_not_be_opened(board: Path, monkeypatch) -> None:
    host = probe_host(board)
    monkeypatch.setattr(type(host), "access", lambda self, path, mode="rw": False)
    problem = HexagonDelegate().probe(host).problems[0]
    assert (problem.stage, problem.device) == ("permission", "npu:0")


def test_the_v66_dsp_has_a_backend_of_its_own(board: Path) -> None:
    (board / "proc/device-tree/compatible").write_text("qcom,qrb5165-rb5\0qcom,sm8250\0")
    for name in ("usr/lib/libQnnDsp.so", "usr/lib/rfsa/adsp/libQnnDspV66Skel.so"):
        (board / name).write_bytes(b"")
    dsp, _ = probe(board).devices
    assert (dsp.id, dsp.kind, dsp.properties["backend"]) == ("dsp:0", "dsp", "dsp")


def test_the_older_delegate_where_it_alone_is_there(tmp_path: Path) -> None:
    root = tmp_path / "phone"
    shutil.copytree(HOSTS / "android-hexagon", root)
    (device,) = probe(root).devices
    assert (device.id, device.name) == ("dsp:0", "Hexagon by the older Hexagon delegate")
    for name, stage in (
        ("libhexagon_nn_skel_v66.so", "library"),
        ("libhexagon_interface.so", "library"),
        ("../../dev/adsprpc-smd", "node"),
    ):
        (root / "vendor/lib64" / name).unlink()
        (problem,) = probe(root).problems
        assert (problem.stage, problem.device, problem.kind) == (stage, "dsp:0", "dsp")


# ---- what others can change ----

POSIX = pytest.mark.skipif(os.name == "nt", reason="file modes are POSIX")


@pytest.fixture
def live(tmp_path: Path, monkeypatch):
    """This machine with the files of a board, by name, and a node; modes 0644 and 0755."""

    def make(**files: str):
        for folder, names in files.items():
            (tmp_path / folder).mkdir(mode=0o755)
            for name in names.split():
                (tmp_path / folder / name).write_bytes(b"")
                (tmp_path / folder / name).chmod(0o644)
        monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path / "lib"))
        monkeypatch.setenv("ADSP_LIBRARY_PATH", str(tmp_path / "skels"))
        host = probe_host()
        host.nodes = ("/dev/fastrpc-cdsp",)
        return host

    return make


@POSIX
@pytest.mark.parametrize(
    "place", ["lib/libQnnTFLiteDelegate.so", "lib/libQnnHtp.so", "skels/libQnnHtpV68Skel.so", "skels"]
)
def test_a_library_of_qnn_that_others_can_change_is_told(live, tmp_path: Path, place: str) -> None:
    host = live(lib="libQnnTFLiteDelegate.so libQnnHtp.so", skels="libQnnHtpV68Skel.so")
    mode = 0o777 if place == "skels" else 0o666
    (tmp_path / place).chmod(mode)
    found = HexagonDelegate().probe(host)
    assert not found.devices
    (problem,) = found.problems
    assert (problem.stage, problem.device, problem.kind) == ("library", "npu:0", "npu")
    assert f"{tmp_path / place} has mode {mode:04o}" in problem.evidence
    assert problem.remedy == f"chmod go-w {tmp_path / place}"


@POSIX
def test_qnn_that_is_refused_is_told_where_nothing_else_is_seen(live, tmp_path: Path) -> None:
    host = live(lib="libQnnTFLiteDelegate.so libQnnGpu.so")
    host.nodes = ()
    (tmp_path / "lib").chmod(0o777)
    told = {problem.device: problem.evidence for problem in HexagonDelegate().probe(host).problems}
    assert told.keys() == {"npu:0", "gpu:0"}
    assert f"{tmp_path}/lib has mode 0777" in told["gpu:0"]


@POSIX
@pytest.mark.parametrize(
    "name", ["libhexagon_delegate.so", "libhexagon_interface.so", "libhexagon_nn_skel_v66.so"]
)
def test_a_library_of_the_older_delegate_likewise(live, tmp_path: Path, name: str) -> None:
    host = live(lib="libhexagon_delegate.so libhexagon_interface.so libhexagon_nn_skel_v66.so")
    (device,) = HexagonDelegate().probe(host).devices
    (tmp_path / "lib" / name).chmod(0o666)
    found = HexagonDelegate().probe(host)
    assert not found.devices
    (problem,) = found.problems
    assert (problem.stage, problem.device) == ("library", "dsp:0")
    assert f"{tmp_path / 'lib' / name} has mode 0666" in problem.evidence
    with pytest.raises(DelegateError, match=f"{name} is not loaded: .* mode 0666"):
        HexagonDelegate().open(None, device, Configuration(), None)


@POSIX
def test_the_older_delegate_beside_qnn_that_is_refused(live, tmp_path: Path) -> None:
    older = "libhexagon_delegate.so libhexagon_interface.so libhexagon_nn_skel.so"
    host = live(lib=f"{older} libQnnTFLiteDelegate.so")
    (tmp_path / "lib/libQnnTFLiteDelegate.so").chmod(0o666)
    found = HexagonDelegate().probe(host)
    assert [device.id for device in found.devices] == ["dsp:0"]
    assert "libQnnTFLiteDelegate.so has mode 0666" in found.problems[0].evidence


# ---- what verdicts are remembered for ----


@pytest.mark.parametrize(
    ("names", "changed"),
    [
        ("libQnnTFLiteDelegate.so libQnnHtp.so libQnnHtpV68Skel.so", "libQnnHtp.so"),
        ("libQnnTFLiteDelegate.so libQnnHtp.so libQnnHtpV68Skel.so", "libQnnHtpV68Skel.so"),
        ("libhexagon_delegate.so libhexagon_interface.so", "libhexagon_interface.so"),
        ("libhexagon_delegate.so libhexagon_interface.so", "libhexagon_delegate.so"),
    ],
)
def test_what_computes_is_in_the_fingerprint(tmp_path: Path, monkeypatch, names: str, changed: str) -> None:
    library, *files = [str(tmp_path / name) for name in names.split()]
    for name in (library, *files):
        Path(name).write_bytes(b"")
    properties = {"library": library, "files": files}
    device, delegate = Device("npu:0", "npu", properties=properties), HexagonDelegate()
    before = delegate.fingerprint(device)
    assert delegate.fingerprint(device) == before
    (tmp_path / changed).write_bytes(b"another release")
    after = delegate.fingerprint(device)
    assert after != before
    monkeypatch.setattr("platform.release", lambda: "6.1.2-other")
    assert delegate.fingerprint(device) != after


def test_devices_tell_the_files_that_compute(board: Path) -> None:
    npu, gpu = probe(board).devices
    assert npu.properties["files"] == ["/usr/lib/libQnnHtp.so", "/usr/lib/rfsa/adsp/libQnnHtpV68Skel.so"]
    assert gpu.properties["files"] == ["/usr/lib/libQnnGpu.so"]
    (dsp,) = probe(HOSTS / "android-hexagon").devices
    assert [Path(one).name for one in dsp.properties["files"]] == [
        "libhexagon_interface.so",
        "libhexagon_nn_skel_v66.so",
    ]


def test_other_machines_have_nothing_to_say() -> None:
    for name in ("empty", "x86-coral-pcie", "raspberry-pi-5-coral-usb"):
        assert probe(HOSTS / name) == Probe()


@pytest.mark.parametrize(
    ("kind", "version", "right"),
    [("npu", 68, False), ("npu", 73, True), ("npu", None, False), ("dsp", 66, False), ("gpu", 68, True)],
)
def test_float_models_need_a_hexagon_with_floats_or_the_gpu(
    digits: Path, digits_float: Path, kind: str, version: int | None, right: bool
) -> None:
    delegate, device = HexagonDelegate(), Device(f"{kind}:0", kind, properties={"version": version})
    assert delegate.supports(read_model(digits), device) is None
    reason = delegate.supports(read_model(digits_float), device)
    assert (reason is None) is right
    assert right or "quantise it" in reason
    (configuration,) = delegate.configurations(read_model(digits_float), device, None)
    assert configuration.options == ({"htp_precision": 1} if kind == "npu" else {})


@pytest.mark.parametrize("options", [{"htp_precision": 2}, {"backend_type": "htp"}, {"debug_level": "1"}])
def test_options_are_typed(options) -> None:
    with pytest.raises(DelegateError, match=next(iter(options))):
        check_options(HexagonDelegate(), options)


# ---- stand-ins under the real names, loaded for real ----

#: Passes for QNN: needs its backend by name, and the environment, then computes as the fault library does.
QNN = """
#include <dlfcn.h>
#define tflite_plugin_create_delegate fault_create
#include "faults.c"
#undef tflite_plugin_create_delegate
const char *backend_name(void);
void *tflite_plugin_create_delegate(char **k, char **v, size_t n, void (*say)(const char *)) {
    static char text[500];
    if (n < 1 || strcmp(k[0], "backend_type") || strcmp(v[0], backend_name())) {
        say("no backend_type");
        return NULL;
    }
    if (!getenv("ADSP_LIBRARY_PATH") || !dlopen("libQnnSystem.so", RTLD_NOW)) {
        snprintf(text, sizeof text, "Failed to create device_handle: %s", dlerror());
        say(text);
        return NULL;
    }
    return fault_create(NULL, NULL, 0, say);
}
"""
HTP = 'const char *backend_name(void) { return "htp"; }'
LEGACY = """
#define tflite_plugin_create_delegate fault_create
#define tflite_plugin_destroy_delegate fault_destroy
#include "faults.c"
struct options {
    int debug, power;
    _Bool profile, graph;
    int most, least;
    _Bool dynamic;
    int batch;
    void *a, *b;
};
static char folder[500];
void TfLiteHexagonInitWithPath(const char *path) { snprintf(folder, sizeof folder, "%s", path); }
void *TfLiteHexagonDelegateCreate(const struct options *given) {
    if (given->power != 3 || given->least != 2 || !given->profile || given->a || strcmp(folder, FOLDER))
        return NULL;
    return fault_create(NULL, NULL, 0, NULL);
}
void TfLiteHexagonDelegateDelete(void *delegate) { fault_destroy(delegate); }
"""


def build(folder: Path, name: str, source: str, *arguments: str) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler here")
    folder.mkdir(exist_ok=True)
    (folder / "a.c").write_text(source)
    command = [compiler, "-shared", "-fPIC", "-I", str(FAULTS), "-o", str(folder / name)]
    subprocess.run([*command, str(folder / "a.c"), *arguments], check=True)
    return folder / name


def answers_as_the_runtime(session, model: Path) -> bool:
    specs = read_model(model).info.inputs
    inputs = seeded_inputs(specs)
    given = session.prepare().run(inputs)
    session.close()
    from tflite_hal.kernels import BuiltinKernels

    plain = BuiltinKernels().open(
        read_model(model), Device("cpu", "cpu"), Configuration(threads=1), load_runtime()
    )
    return all(np.array_equal(a, b) for a, b in zip(given, plain.prepare().run(inputs), strict=True))


@pytest.fixture
def qnn(tmp_path: Path, monkeypatch):
    """A machine whose loader finds the stand-ins of QNN, two of them by LD_LIBRARY_PATH only."""
    qairt, skels = tmp_path / "qairt", tmp_path / "skels"
    backend = build(qairt, "libQnnHtp.so", HTP, "-Wl,-soname,libQnnHtp.so")
    build(qairt, "libQnnSystem.so", "int system_version;")
    build(qairt, "libQnnTFLiteDelegate.so", QNN, str(backend), "-ldl")
    skels.mkdir()
    (skels / "libQnnHtpV68Skel.so").write_bytes(b"")
    monkeypatch.setenv("LD_LIBRARY_PATH", str(qairt))
    monkeypatch.setenv("ADSP_LIBRARY_PATH", str(skels))
    host = probe_host()
    host.nodes = ("/dev/fastrpc-cdsp",)  # of which this machine has none
    (device,) = HexagonDelegate().probe(host).devices
    # From here on the worker has only what the device says.
    monkeypatch.delenv("LD_LIBRARY_PATH")
    monkeypatch.delenv("ADSP_LIBRARY_PATH")
    return device


def test_what_needs_environment_gets_a_worker_started_with_it(
    qnn: Device, runtime_name: str, digits: Path
) -> None:
    assert qnn.properties["environment"].keys() == {"LD_LIBRARY_PATH", "ADSP_LIBRARY_PATH"}
    session = open_remotely(
        HexagonDelegate(), read_model(digits), qnn, Configuration(), load_runtime(runtime_name)
    )
    assert session.coverage.taken == 8
    assert answers_as_the_runtime(session, digits)


def test_without_it_the_loader_does_not_find_the_companions(
    qnn: Device, runtime_name: str, digits: Path
) -> None:
    properties = {name: value for name, value in qnn.properties.items() if name != "environment"}
    with pytest.raises(DelegateError, match=r"libQnnHtp\.so: cannot open shared object"):
        open_remotely(
            HexagonDelegate(),
            read_model(digits),
            qnn._replace(properties=properties),
            Configuration(),
            load_runtime(runtime_name),
        )


def test_the_applications_own_search_path_stays_behind_it(
    qnn: Device, runtime_name: str, digits: Path, monkeypatch
) -> None:
    folder = Path(qnn.properties["environment"]["LD_LIBRARY_PATH"])
    moved = folder.with_name("elsewhere")
    moved.mkdir()
    (folder / "libQnnSystem.so").rename(moved / "libQnnSystem.so")
    monkeypatch.setenv("LD_LIBRARY_PATH", str(moved))
    session = open_remotely(
        HexagonDelegate(), read_model(digits), qnn, Configuration(), load_runtime(runtime_name)
    )
    assert session.coverage.taken == 8
    session.close()


def test_the_older_delegate_is_opened_by_its_c_api(tmp_path: Path, runtime_name: str, digits: Path) -> None:
    library = build(tmp_path / "lib", "libhexagon_delegate.so", LEGACY, f'-DFOLDER="{tmp_path / "lib"}"')
    device = Device("dsp:0", "dsp", properties={"backend": "legacy", "library": str(library)})

    def opened(options):
        return open_remotely(
            HexagonDelegate(), read_model(digits), device, Configuration(options), load_runtime(runtime_name)
        )

    session = opened({"powersave_level": 3, "print_graph_profile": True})
    assert session.coverage.taken == 8
    assert answers_as_the_runtime(session, digits)
    with pytest.raises(DelegateError, match="refused: it gave no message"):
        opened({})
    with pytest.raises(DelegateError, match="no option htp_precision: it is QNN's"):
        opened({"htp_precision": 1})
    library.chmod(0o666)
    with pytest.raises(DelegateError, match=r"is not loaded: .* mode 0666"):
        opened({})

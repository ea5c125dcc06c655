"""Delegates without code: described by a device profile, or a file that the caller names."""

import json
import os
import shutil
import subprocess
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from tflite_hal import (
    Configuration,
    DelegateError,
    Device,
    NoDelegateError,
    Runner,
    TfliteHalWarning,
    probe_host,
    read_model,
)
from tflite_hal.cli import main
from tflite_hal.delegate import check_options
from tflite_hal.errors import InputError, ProfileError
from tflite_hal.external import described_delegate, described_delegates, named_library
from tflite_hal.profiles import load_profiles, parse_profile
from tflite_hal.remote import exclusive_key, open_remotely, reference
from tflite_hal.remote.pool import _pool
from tflite_hal.runtime import load_runtime
from tflite_hal.testing import PythonFaultDelegate, build_library
from tflite_hal.verdicts import Verdicts

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = ROOT / "device_profiles" / "vendor-delegates.yaml"
POSIX = pytest.mark.skipif(os.name == "nt", reason="no child processes here")
HEAD = "schema: 1\nname: own\ntitle: Mine\n"
FACT = "provenance: vendor, source: [manual]"


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        return build_library(tmp_path_factory.mktemp("faults"))
    except DelegateError as error:
        if "no C compiler" not in str(error):
            raise
        pytest.skip(str(error))


def compiled(folder: Path, name: str, source: str, *arguments: str) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler here")
    (folder / f"{name}.c").write_text(source)
    command = [compiler, "-shared", "-fPIC", "-o", str(folder / name), str(folder / f"{name}.c"), *arguments]
    subprocess.run(command, check=True)
    return folder / name


def shipped(name: str):
    profile = parse_profile(SHIPPED.read_text("utf-8"), str(SHIPPED))
    return described_delegate({"name": name, **profile.external[name]})


def tree(root: Path, compatible: str = "", **links: str):
    """A machine with these strings, files (value "") and links."""
    if compatible:
        (root / "proc/device-tree").mkdir(parents=True)
        (root / "proc/device-tree/compatible").write_text("\0".join(compatible.split()) + "\0")
    for path, target in links.items():
        place = root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(target) if target else place.write_text("")
    (root / "proc").mkdir(parents=True, exist_ok=True)
    (root / "proc/cpuinfo").write_text("processor: 0\nCPU architecture: 8\n")
    return probe_host(root)


# ---- what is shipped ----

BOARDS = {
    "vx": ("fsl,imx8mp-evk fsl,imx8mp", {"dev/galcore": ""}, "usr/lib/libvx_delegate.so"),
    "ethosu": ("fsl,imx93-11x11-evk fsl,imx93", {"dev/ethosu0": ""}, "usr/lib/libethosu_delegate.so"),
    "neutron": ("fsl,imx95-19x19-evk fsl,imx95", {"dev/neutron0": ""}, "usr/lib/libneutron_delegate.so"),
    "teflon": (
        "khadas,vim3 amlogic,a311d",
        {
            "dev/dri/renderD128": "",
            "sys/class/drm/renderD128/device/driver": "../../../../bus/platform/drivers/etnaviv",
        },
        "usr/lib/teflon/libteflon.so",
    ),
    "tidl": ("ti,am62a7-sk ti,am62a7", {}, "usr/lib/libtidl_tfl_delegate.so"),
}


@pytest.mark.parametrize("name", BOARDS)
def test_a_shipped_delegate_is_there_where_its_device_and_its_library_are(tmp_path: Path, name: str) -> None:
    compatible, nodes, file = BOARDS[name]
    delegate = shipped(name)
    assert delegate.probe(tree(tmp_path / "other", "some,board")) == ((), ()), "not on other machines"
    (problem,) = delegate.probe(tree(tmp_path / "bare", compatible, **nodes)).problems
    assert (problem.stage, problem.device, problem.kind) == ("library", "npu:0", "npu")
    assert Path(file).name in problem.evidence
    assert problem.remedy.startswith(("install ", "use TI's SDK"))
    found = delegate.probe(tree(tmp_path / "whole", compatible, **nodes, **{file: ""}))
    assert found.problems == ()
    (device,) = found.devices
    assert (device.id, device.kind, device.properties["library"]) == ("npu:0", "npu", f"/{file}")


@pytest.mark.parametrize("name", sorted(set(BOARDS) - {"tidl"}))
def test_a_board_without_the_node_says_so(tmp_path: Path, name: str) -> None:
    compatible, _, file = BOARDS[name]
    (problem,) = shipped(name).probe(tree(tmp_path, compatible, **{file: ""})).problems
    assert problem.stage == "node"
    assert compatible.split()[1] in problem.evidence
    assert problem.remedy


@pytest.mark.parametrize("driver", ["rocket", "ethosu", "intel_vpu"])
def test_teflon_takes_accelerators_by_their_driver(tmp_path: Path, driver: str) -> None:
    link = {"sys/class/accel/accel0/device/driver": f"../../../bus/platform/drivers/{driver}"}
    host = tree(tmp_path, **{"dev/accel/accel0": "", "usr/lib/teflon/libteflon.so": "", **link})
    assert bool(shipped("teflon").probe(host).devices) is (driver != "intel_vpu")


def test_arm_nn_is_where_its_libraries_are_and_names_its_backends_first(tmp_path: Path, digits: Path) -> None:
    delegate = shipped("armnn")
    assert delegate.probe(tree(tmp_path / "without")) == ((), ())
    half = delegate.probe(tree(tmp_path / "half", **{"usr/lib/libarmnnDelegate.so": ""}))
    assert half.problems[0].evidence.startswith("Arm CPU by Arm NN: libarmnn.so is not in")
    files = {"usr/lib/libarmnnDelegate.so": "", "usr/lib/libarmnn.so": ""}
    (device,) = delegate.probe(tree(tmp_path / "whole", **files)).devices
    assert (device.id, device.kind) == ("cpu", "cpu")
    assert device.properties["companions"] == ["/usr/lib/libarmnn.so"]
    (own,) = delegate.configurations(read_model(digits), device, None)
    given = Configuration({"number-of-threads": 2, "enable-fast-math": True, **own.options})
    assert list(delegate.library_options(device, given).items()) == [
        ("backends", "CpuAcc"),
        ("enable-fast-math", "true"),
        ("number-of-threads", "2"),
    ]


@pytest.mark.parametrize(
    ("name", "reason"),
    [("neutron", "NeutronGraph; convert it with"), ("teflon", None), ("vx", None), ("tidl", None)],
)
def test_a_model_that_does_not_fit_is_told(digits: Path, name: str, reason: str | None) -> None:
    given = shipped(name).supports(read_model(digits), Device("npu:0", "npu"))
    assert given is None if reason is None else reason in given


def test_a_float_model_does_not_fit_eight_bits(digits_float: Path) -> None:
    reason = shipped("teflon").supports(read_model(digits_float), Device("npu:0", "npu"))
    assert reason == "is float32; teflon takes int8, uint8; quantise it"


def test_an_option_that_must_be_given_is_asked_for(digits: Path, library: Path) -> None:
    device = Device("npu:0", "npu", properties={"library": str(library)})
    with pytest.raises(DelegateError, match="tidl needs its option artifacts_folder"):
        shipped("tidl").open(read_model(digits), device, Configuration(), load_runtime())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"allowed_cache_mod": True}, "no option 'allowed_cache_mod'.*did you mean 'allowed_cache_mode'"),
        ({"allowed_cache_mode": "yes"}, "allowed_cache_mode='yes' is not bool"),
        ({"device_id": True}, "device_id=True is not int"),
        ({"cache_file_path": "a\0b"}, "zero byte"),
        ({5: 1}, "no option 5"),
    ],
)
def test_options_are_checked_before_anything_loads(options, words: str) -> None:
    with pytest.raises(DelegateError, match=words):
        check_options(shipped("vx"), options)


# ---- the schema ----

ENTRY = f"{{title: T, libraries: [libx.so], devices: [{{id: npu:0}}], {FACT}}}"


def external(entry: str) -> str:
    return f"{HEAD}external: {{mine: {entry}}}"


def test_a_profile_that_only_describes_delegates_is_for_no_machine() -> None:
    profile = parse_profile(external(ENTRY), "own.yaml")
    assert profile.external["mine"]["libraries"] == ("libx.so",)
    plain = profile.to_dict()
    plain.pop("path")
    assert parse_profile(json.dumps({"schema": 1, **plain}), "own.yaml") == profile._replace(path="own.yaml")


@pytest.mark.parametrize(
    ("entry", "key", "words"),
    [
        ("{}", "external.mine", "a mapping"),
        (ENTRY.replace("title: T, ", ""), "external.mine.title", "this key"),
        (ENTRY.replace(", source: [manual]", ""), "external.mine.source", "this key"),
        (ENTRY.replace("libx.so", "lib/x.so"), "external.mine.libraries[0]", "an absolute path"),
        (ENTRY.replace("id: npu:0", "id: A"), "external.mine.devices[0].id", 'such as "npu:0"'),
        (
            ENTRY.replace("{id: npu:0}", "{id: npu:0, nodes: [/etc/x]}"),
            "external.mine.devices[0].nodes[0]",
            "/dev",
        ),
        (
            ENTRY.replace("{id: npu:0}", "{id: npu:0, options: {a: 1}}"),
            "external.mine.devices[0]",
            "declared",
        ),
        (ENTRY.replace("{title", "{search: [lib], title"), "external.mine.search[0]", "an absolute folder"),
        (ENTRY.replace("{title", "{kind: fpga, title"), "external.mine.kind", "tpu or npu"),
        (
            ENTRY.replace("{title", "{options: {a: {type: number}}, title"),
            "external.mine.options.a.type",
            "str",
        ),
        (
            ENTRY.replace("{title", "{options: {a: {type: int, value: true}}, title"),
            "external.mine.options.a.value",
            "expected int",
        ),
        (
            ENTRY.replace("{title", "{options: {a: {type: int, value: 3, choices: [1]}}, title"),
            "external.mine.options.a.value",
            "one of the choices",
        ),
        (
            ENTRY.replace("{title", "{options: {cache_path: {type: str, value: x}}, title"),
            "external.mine.options.cache_path.value",
            "an absolute path",
        ),
        (
            ENTRY.replace("{title", "{environment: {LD_PRELOAD: /x}, title"),
            "external.mine.environment.LD_PRELOAD",
            "programs load",
        ),
    ],
)
def test_each_error_names_its_place(entry: str, key: str, words: str) -> None:
    with pytest.raises(ProfileError) as caught:
        parse_profile(external(entry), "own.yaml")
    assert str(caught.value).startswith(f"own.yaml: {key}: ")
    assert words in str(caught.value)


def test_the_example_in_the_readme_is_valid_and_shows_every_key() -> None:
    text = (SHIPPED.parent / "README.md").read_text("utf-8").split("```yaml\n")[2].split("```")[0]
    shown = parse_profile(text, "README.md").external["example"]
    assert described_delegate({"name": "example", **shown}).limits(Device("npu:0", "npu"))["open"] == 300
    with pytest.raises(ProfileError) as caught:
        parse_profile(external(ENTRY.replace("title: T", "title: T, zzzz: 1")), "own.yaml")
    known = str(caught.value).partition("one of ")[2].partition(", given")[0].split(", ")
    assert set(known) == set(shown)


def test_a_name_is_taken_once_and_the_users_profile_goes_before_the_shipped() -> None:
    own = parse_profile(external(ENTRY).replace("mine:", "vx:"), "own.yaml")
    found = described_delegates([own, *load_profiles()[0]], ["teflon"])
    assert [one.description for one in found if one.name == "vx"] == ["T"]
    assert "teflon" not in {one.name for one in found}, "a plugin has it"


# ---- real libraries ----

TELLS = """
#include <stddef.h>
#include <stdio.h>
#include <string.h>
void *tflite_plugin_create_delegate(char **k, char **v, size_t n, void (*say)(const char *)) {
    char text[1000] = "options:";
    for (size_t i = 0; i < n; i++)
        sprintf(text + strlen(text), " %s=%s", k[i], v[i]);
    say(text);
    return NULL;
}
void tflite_plugin_destroy_delegate(void *d) {}
"""


def own_profile(folder: Path, entry: str, more: str = "") -> Path:
    file = folder / "own.yaml"
    file.write_text(external(entry) + "\n" + more)
    return file


@POSIX
def test_a_profile_makes_a_delegate_of_a_library(
    tmp_path: Path, library: Path, runtime_name: str, digits: Path, monkeypatch
) -> None:
    entry = (
        f"{{title: T, libraries: [{library.name}], search: [{library.parent}], devices: [{{id: 'npu:0'}}], "
        f"options: {{operators: {{type: str, value: '3,4'}}, fault: {{type: str}}}}, {FACT}}}"
    )
    file = own_profile(tmp_path, entry)
    with Runner(digits, delegate="mine", profile=file, runtime=runtime_name) as runner:
        assert runner.selection.winner.coverage.taken == 3
        assert runner.device.id == "npu:0"
    with Runner(digits, delegate="mine", profile=file, options={"operators": "all"}) as runner:
        assert runner.selection.winner.coverage.taken == 8
    monkeypatch.setenv("TFLITE_HAL_PROFILE_PATH", str(file))
    with Runner.auto(digits, delegates=["mine"], exclude=["cpu"], runtime=runtime_name) as runner:
        assert runner.delegate == "mine"
    with pytest.raises(DelegateError, match=r"no delegate 'nine'.*did you mean 'mine'"):
        Runner(digits, delegate="nine")
    with pytest.raises(DelegateError, match=r"mine has no option 'operator'.*did you mean 'operators'"):
        Runner(digits, delegate="mine", options={"operator": "3"})


@POSIX
def test_a_library_gets_its_options_in_the_order_of_the_description(
    tmp_path: Path, runtime_name: str, digits: Path
) -> None:
    file = compiled(tmp_path, "libtells.so", TELLS)
    options = "{first: {type: str, value: a}, second: {type: bool}, third: {type: int}}"
    entry = f"{{title: T, libraries: [{file}], devices: [{{id: 'npu:0'}}], options: {options}, {FACT}}}"
    profile = own_profile(tmp_path, entry)
    with pytest.raises(NoDelegateError, match="options: first=a second=false third=7"):
        Runner(
            digits,
            delegate="mine",
            profile=profile,
            options={"third": 7, "second": False},
            runtime=runtime_name,
        )


@POSIX
@pytest.mark.parametrize(
    ("profile", "options", "told"),
    [
        ("", None, "first=here second=false third=1"),
        ("options: {mine: {first: theirs, third: 2}}", None, "first=theirs second=false third=2"),
        ("options: {mine: {first: theirs, third: two}}", None, "first=theirs second=false third=1"),
        ("options: {mine: {first: theirs, third: 2}}", {"third": 3}, "first=theirs second=false third=3"),
    ],
    ids=["description", "profile", "mistaken profile", "caller"],
)
@pytest.mark.filterwarnings("ignore:device profile own. left out")
def test_a_profiles_options_go_before_the_descriptions_and_the_callers_before_both(
    tmp_path: Path, digits: Path, profile: str, options, told: str
) -> None:
    file = compiled(tmp_path, "libtells.so", TELLS)
    declared = (
        "{first: {type: str, value: a, required: true}, second: {type: bool, value: false}, "
        "third: {type: int, value: 1}}"
    )
    devices = "[{id: 'npu:0', options: {first: here}}]"
    entry = f"{{title: T, libraries: [{file}], devices: {devices}, options: {declared}, {FACT}}}"
    grounds = f"[{{{FACT}}}]"
    board = f"match: {{os: linux}}\nsources: {{match: {grounds}, options: {grounds}}}\n" if profile else ""
    own = own_profile(tmp_path, entry, board + profile)
    with pytest.raises(NoDelegateError, match=f"options: {told}"):
        Runner(digits, delegate="mine", profile=own, options=options)


@POSIX
def test_a_companion_is_loaded_first_and_seen(tmp_path: Path, runtime_name: str, digits: Path) -> None:
    said = compiled(tmp_path, "libcompanion.so", 'const char *companion(void) { return "here"; }')
    source = TELLS.replace('"options:"', '""').replace("say(text)", "say(companion())")
    file = compiled(tmp_path, "libneeds.so", "const char *companion(void);\n" + source)
    data = {"name": "mine", "title": "T", "libraries": [str(file)], "devices": [{"id": "npu:0"}]}
    with pytest.raises(DelegateError, match=r"undefined symbol: companion|refused"):
        open_it({**data}, digits, runtime_name)
    with pytest.raises(DelegateError, match="refused: here"):
        open_it({**data, "companions": [str(said)]}, digits, runtime_name)
    said.chmod(0o666)
    (problem,) = described_delegate({**data, "companions": [str(said)]}).probe(probe_host()).problems
    assert problem.evidence.startswith(f"T: {said} has mode 0666")
    device = Device("npu:0", "npu", properties={"library": str(file), "companions": [str(said)]})
    with pytest.raises(DelegateError, match=r"libcompanion.so is not loaded: .* mode 0666"):
        open_remotely(
            described_delegate(data), read_model(digits), device, Configuration(), load_runtime(runtime_name)
        )


def open_it(data, model: Path, runtime: str):
    delegate = described_delegate(data)
    (device,) = delegate.probe(probe_host()).devices
    return open_remotely(delegate, read_model(model), device, Configuration(), load_runtime(runtime))


def test_two_descriptions_are_two_delegates_for_workers_and_verdicts() -> None:
    one, other = (described_delegate({"name": "library", **named_library(f"/{n}.so", {})}) for n in "ab")
    assert reference(one) != reference(other)
    assert reference(one) == reference(described_delegate(dict(one.data)))


def test_what_is_exclusive_is_the_library_and_the_place(tmp_path: Path) -> None:
    file = tmp_path / "libx.so.1"
    file.write_bytes(b"")
    (tmp_path / "libx.so").symlink_to(file)

    def key(name: str, library: Path, place: str = "npu:0", **options) -> tuple[str, str]:
        delegate = described_delegate({**named_library(str(library), options), "name": name})
        return exclusive_key(delegate, Device("npu:0", "npu", "", {"library": str(library), "path": place}))

    own = key("mine", file)
    assert own == (str(file.resolve()), "npu:0")
    assert own == key("mine", file, first=1) == key("library", tmp_path / "libx.so")
    assert own != key("mine", file, "npu:1")
    assert own != key("mine", tmp_path / "liby.so")
    coded = PythonFaultDelegate()
    assert exclusive_key(coded, Device("npu:0", "npu", "", {"library": str(file)})) == (
        reference(coded),
        "npu:0",
    )


@POSIX
def test_one_process_has_the_device_whatever_the_options(
    tmp_path: Path, library: Path, digits: Path, runtime_name: str, monkeypatch
) -> None:
    entry = (
        f"{{title: T, libraries: [{library}], devices: [{{id: 'npu:0'}}], "
        f"options: {{operators: {{type: str, value: '3'}}, fault: {{type: str}}}}, {FACT}}}"
    )
    monkeypatch.setenv("TFLITE_HAL_PROFILE_PATH", str(own_profile(tmp_path, entry)))
    locked, lock = [], Verdicts.lock

    def noted(self, name, patience):
        locked.append(name)
        return lock(self, name, patience)

    monkeypatch.setattr(Verdicts, "lock", noted)
    ways = [
        {"delegate": "mine"},
        {"delegate_library": library, "options": {"operators": "3"}},
        {"delegate_library": library, "options": {"operators": "all"}},
    ]
    with ExitStack() as stack:
        runners, devices = [], []
        for way in ways:
            locked.clear()
            runners.append(stack.enter_context(Runner(digits, runtime=runtime_name, **way)))
            devices.append(set(locked))
        assert len(set.intersection(*devices)) == 2, "the model's lock, and the device's"
        assert [runner.selection.winner.coverage.taken for runner in runners] == [3, 3, 8]
        assert len(_pool) == 1
        (shared,) = _pool.values()
        assert shared.users == 3
        right = runners[0].predict(np.zeros(runners[0].inputs[0].shape, runners[0].inputs[0].dtype))
        for runner in runners:
            given = runner.predict(np.zeros(runner.inputs[0].shape, runner.inputs[0].dtype))
            np.testing.assert_array_equal(given, right)
    assert _pool == {}


@POSIX
def test_a_file_named_by_the_caller(library: Path, runtime_name: str, digits: Path, monkeypatch) -> None:
    monkeypatch.chdir(library.parent)
    with Runner(
        digits, delegate_library=f"./{library.name}", options={"operators": "3"}, runtime=runtime_name
    ) as runner:
        assert (runner.delegate, runner.device.id) == ("library", "npu:0")
        assert runner.selection.winner.coverage.total == 8
    with Runner.auto(digits, delegates=[], delegate_library=library, prefer="order") as runner:
        assert runner.delegate == "library"
        assert runner.predict(np.zeros(runner.inputs[0].shape, runner.inputs[0].dtype)).shape == (1, 10)


@POSIX
def test_a_bare_name_is_looked_for_where_the_loader_looks(
    library: Path, tmp_path: Path, digits: Path, monkeypatch
) -> None:
    """As ``load_delegate`` does; not in the folder in which the application happens to be."""
    monkeypatch.chdir(library.parent)
    reason = f"{library.name} is not in the loader's folders.*give the path"
    with pytest.raises(NoDelegateError, match=reason):
        Runner(digits, delegate_library=library.name)
    monkeypatch.setenv("LD_LIBRARY_PATH", str(library.parent))
    with Runner(digits, delegate_library=library.name, options={"operators": "3"}) as runner:
        assert runner.device.properties["library"] == str(library)
    with Runner(digits, delegate_library=library.name, isolate=False) as runner:
        assert runner.delegate == "library"
    loose = tmp_path / "loose"
    loose.mkdir()
    shutil.copy(library, loose / library.name)
    loose.chmod(0o777)
    monkeypatch.setenv("LD_LIBRARY_PATH", str(loose))
    with pytest.raises(NoDelegateError, match=f"{loose} has mode 0777"):
        Runner(digits, delegate_library=library.name)


@POSIX
def test_a_file_that_is_not_there_is_told_where_others_answer_too(digits: Path) -> None:
    with pytest.warns(TfliteHalWarning, match="library: /nowhere/libx.so is no file") as told:
        Runner.auto(digits, delegate_library="/nowhere/libx.so", prefer="order").close()
    assert len(told) == 1


@POSIX
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"delegate_library": "/nowhere/libx.so"}, "/nowhere/libx.so is no file"),
        ({"delegate_library": b"x"}, "delegate_library=b'x' is not a path"),
        ({"delegate_library": 5}, "delegate_library=5 is not a path"),
        ({"delegate_library": "x.so", "delegate": "edgetpu"}, "name two delegates"),
        ({"delegate_library": "x.so", "options": {"rate": float("nan")}}, "rate=nan is not a finite number"),
        ({"delegate_library": "x.so", "options": {"list": [1]}}, r"list.=\[1\] is no name with text"),
        (
            {"delegate": "edgetpu", "options": {"Usb.AlwaysDfu": float("nan")}},
            "Usb.AlwaysDfu=nan is not bool",
        ),
        ({"options": {"a": 1}}, "give delegate= or delegate_library= as well"),
    ],
)
def test_what_is_wrong_with_it_is_told(digits: Path, arguments, words: str) -> None:
    with pytest.raises(DelegateError, match=words):
        Runner(digits, **arguments)


def test_numbers_that_are_none_are_refused_by_name() -> None:
    delegate = described_delegate(
        {
            "name": "mine",
            "title": "T",
            "libraries": ["libx.so"],
            "devices": [{"id": "npu:0"}],
            "options": {"rate": {"type": "float"}},
        }
    )
    check_options(delegate, {"rate": 0.5})
    for value in (float("nan"), float("inf")):
        with pytest.raises(DelegateError, match=f"mine: option rate={value} is not a finite number"):
            check_options(delegate, {"rate": value})


@POSIX
def test_the_commands_take_a_file_and_options(library: Path, digits: Path) -> None:
    given = ["--delegate-library", str(library), "--option", "operators=3,4"]
    done = CliRunner().invoke(main, ["run", str(digits), *given, "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["selection"]["winner"]["coverage"]["taken"] == 3
    done = CliRunner().invoke(main, ["explain", str(digits), *given, "--json"])
    assert done.exit_code == 0, done.output
    assert "library" in {one["delegate"] for one in json.loads(done.stdout)["attempts"]}
    done = CliRunner().invoke(main, ["run", str(digits), *given, "--option", "operators"])
    assert "is not NAME=VALUE" in done.output


def test_option_texts_are_json_or_text() -> None:
    from tflite_hal.cli.inputs import read_options

    given = ["a=true", "b=3", "c=0.5", "d=CpuAcc", 'e="3"', "f=[1]", "g=", "h=a=b", "i=null"]
    assert read_options(given) == {
        "a": True,
        "b": 3,
        "c": 0.5,
        "d": "CpuAcc",
        "e": "3",
        "f": "[1]",
        "g": "",
        "h": "a=b",
        "i": "null",
    }
    for wrong in (["a"], ["=1"], ["a=1", "a=2"]):
        with pytest.raises(InputError, match="NAME=VALUE"):
            read_options(wrong)


def test_probe_tells_of_what_profiles_describe(tmp_path: Path) -> None:
    compatible, nodes, _ = BOARDS["vx"]
    tree(tmp_path, compatible, **nodes)
    done = CliRunner().invoke(main, ["probe", "--root", str(tmp_path), "--json"])
    found = json.loads(done.stdout)["delegates"]
    assert found["vx"]["problems"][0]["stage"] == "library"
    text = CliRunner().invoke(main, ["probe", "--root", str(tmp_path)]).stdout
    assert "libvx_delegate.so" in text
    assert "no device here: armnn" in text

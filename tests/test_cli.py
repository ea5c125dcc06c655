"""The command line as a person or a script uses it: output, exit status, and one line per error."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

import tflite_hal
from tflite_hal.cli import main, show
from tflite_hal.errors import DelegateError, InputError, ModelError
from tflite_hal.host import probe_host
from tflite_hal.runtime import NAMES
from tflite_hal.worker import shutdown

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"
SEVEN, LABELS = EXAMPLES / "digit_7.png", EXAMPLES / "digits_labels.txt"
HOSTS = sorted(path for path in (ROOT / "tests" / "hosts").glob("*") if path.is_dir())
HOST_NAMES = {
    "root", "live", "arch", "cpu", "memory_bytes", "memory_available_bytes", "memory_limit_bytes",
    "board", "dmi", "usb", "pci", "platform", "nodes", "os", "os_version", "os_id", "kernel", "container",
    "virtual", "thermal", "python", "pointer_bits", "page_size", "groups",
}  # fmt: skip


REPORT = {
    "profile", "profile_errors", "settings_errors", "runtimes", "delegates", "findings", "unreached",
    "plugins",
}  # fmt: skip


def call(*arguments: object, status: int = 0) -> Result:
    """Run a command; it must end with this exit status."""
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == status, (result.output, result.exception)
    return result


def call_json(*arguments: object):
    return json.loads(call(*arguments, "--json").stdout)


def refused(*arguments: object) -> str:
    """Run a command that must end in exit status 2 and one line on stderr; return the line."""
    result = call(*arguments, status=2)
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("tflite-hal: ")
    return line


def classes(text: str) -> list[str]:
    """Return the first class of each table of scores."""
    lines = text.splitlines()
    return [
        lines[i + 1].rsplit(None, 1)[0] for i, line in enumerate(lines) if line.split() == ["class", "score"]
    ]


def rows(text: str) -> list[str]:
    """Return the lines of the only table of scores."""
    lines = text.splitlines()
    (head,) = [number for number, line in enumerate(lines) if line.split() == ["class", "score"]]
    return lines[head + 1 :]


# probe, plugins, profiles


def test_probe_as_json_is_the_host_and_what_runs_on_it() -> None:
    found = call_json("probe")
    assert set(found) == HOST_NAMES | REPORT
    host = probe_host()
    for name in ("arch", "kernel", "python", "memory_bytes"):
        assert found[name] == getattr(host, name)
    assert found["live"] is True
    assert [one["name"] for one in found["runtimes"]] == list(NAMES)
    assert {one["state"] for one in found["runtimes"]} <= {"usable", "broken", "absent"}
    assert "usable" in {one["state"] for one in found["runtimes"]}
    assert {"xnnpack", "edgetpu", "gpu", "hexagon"} <= set(found["delegates"])
    assert found["delegates"]["xnnpack"]["devices"][0]["kind"] == "cpu"


def test_probe_for_people_names_the_machine_and_the_runtimes() -> None:
    text = call("probe").stdout
    for part in ("board", "cpu", "memory", "profile", "xnnpack", "builtin", "usable", "tflite_runtime"):
        assert part in text


@pytest.mark.parametrize("folder", HOSTS, ids=lambda path: path.name)
def test_probe_of_a_captured_machine(folder: Path) -> None:
    found = call_json("probe", "--root", folder)
    host = probe_host(folder)
    assert (found["live"], found["runtimes"], found["python"]) == (False, [], None)
    assert {name: found[name] for name in HOST_NAMES} == json.loads(json.dumps(host.to_dict()))
    text = call("probe", "--root", folder).stdout
    assert (host.board.model or host.dmi.product or "unknown") in text
    assert "ai_edge_litert" not in text  # this machine's runtimes say nothing about that one


def test_probe_of_a_raspberry_pi_finds_its_profile_and_its_coral() -> None:
    folder = ROOT / "tests" / "hosts" / "raspberry-pi-5-coral-usb"
    if not folder.is_dir():
        pytest.skip("the captured Raspberry Pi 5 is not in tests/hosts")
    found = call_json("probe", "--root", folder)
    assert found["profile"] == "raspberry-pi-5"
    edgetpu = found["delegates"]["edgetpu"]
    assert len(edgetpu["devices"]) + len(edgetpu["problems"]) >= 1


def test_probe_of_no_folder_is_a_usage_error(tmp_path: Path) -> None:
    assert "does not exist" in call("probe", "--root", tmp_path / "absent", status=2).stderr


def test_plugins_are_listed() -> None:
    names = [one["name"] for one in call_json("plugins")]
    assert {"xnnpack", "gpu", "edgetpu", "hexagon"} <= set(names)
    text = call("plugins").stdout
    for name in names:
        assert name in text
    assert "built in" in text


def test_probe_tells_of_a_profile_that_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TFLITE_HAL_PROFILE_PATH", str(tmp_path / "absent.yaml"))
    assert "absent.yaml: no such file" in call("probe").stdout
    (error,) = call_json("probe")["profile_errors"]
    assert "absent.yaml: no such file" in error


def test_probe_tells_of_a_runtime_that_there_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TFLITE_HAL_RUNTIME", "litert")
    text = " ".join(call("probe").stdout.split())
    assert "TFLITE_HAL_RUNTIME: unknown runtime 'litert' (to fix it: use one of ai_edge_litert," in text


def test_a_broken_plugin_is_listed_with_its_reason(install) -> None:
    install("broken", "raise ValueError('no such chip')\n")
    (broken,) = [one for one in call_json("plugins") if one["name"] == "broken"]
    assert "no such chip" in broken["problem"]
    assert "no such chip" in call("plugins").stdout
    assert "broken" in call("probe").stdout


def test_profiles_are_listed_with_why_they_match() -> None:
    found = call_json("profiles")
    assert found["errors"] == []
    rows = {one["name"]: one for one in found["profiles"]}
    assert "raspberry-pi-5" in rows
    assert all(isinstance(row["matches"], bool) and row["reason"] for row in rows.values())
    matching = [name for name, row in rows.items() if row["matches"]]
    assert call_json("probe")["profile"] in (matching or [None])
    text = call("profiles").stdout
    assert "raspberry-pi-5" in text and "matches here" in text


def test_the_profile_in_force_is_marked_and_mistakes_in_profiles_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    tree = ROOT / "tests" / "hosts" / "raspberry-pi-5-coral-usb"
    (line,) = [line for line in call("profiles", "--root", tree).stdout.splitlines() if "in force" in line]
    assert line.startswith("raspberry-pi-5 ")
    assert call_json("profiles", "--root", tree)["in_force"] == "raspberry-pi-5"
    text = (ROOT / "device_profiles" / "raspberry-pi-5.yaml").read_text()
    mine = tmp_path / "my-pi.yaml"
    mine.write_text(text.replace("name: raspberry-pi-5", "name: my-pi").replace("[edgetpu,", "[edgtpu,"))
    mine.chmod(0o600)
    monkeypatch.setenv("TFLITE_HAL_PROFILE_PATH", str(mine))
    found = call_json("profiles", "--root", tree)
    assert (found["in_force"], found["errors"]) == ("my-pi", [])
    (warning,) = found["warnings"]
    assert "delegates[0]: no delegate 'edgtpu'" in warning and "did you mean 'edgetpu'?" in warning
    assert "did you mean 'edgetpu'?" in call("profiles", "--root", tree).stdout


# inspect


def test_inspect_describes_the_model(digits: Path) -> None:
    info = tflite_hal.read_model(digits).info
    assert call_json("inspect", digits) == json.loads(json.dumps(info.to_dict()))
    text = call("inspect", digits).stdout
    for part in (
        "digits_int8.tflite",
        "12,664 bytes",
        info.sha256,
        "serving_default_image:0",
        "[1, 8, 8, 1]",
        "CONV_2D ×3",
        "signatures: serving_default",
    ):
        assert part in text


def test_inspect_says_what_is_special(models: Path) -> None:
    assert "stateful: " in call("inspect", models / "keras_lstm_mnist_ptq.tflite").stdout
    assert "-1 may be any size" in call("inspect", models / "pretrainedResnet.tflite").stdout
    assert "needs fake-op-double" in call("inspect", models / "model_invoking_error.tflite").stdout
    assert "Edge TPU" in call("inspect", models / "keras_lstm_mnist_ptq_edgetpu.tflite").stdout


# run


@pytest.fixture
def image(digits_float: Path) -> np.ndarray:
    """The picture of a 7 as the float model takes it."""
    from tflite_hal import images

    return images.fit(SEVEN, tflite_hal.read_model(digits_float).info.inputs[0], mean=0, std=255)


def test_run_puts_the_seven_first(digits: Path, runtime_name: str) -> None:
    scaling = ("--mean", 0, "--std", 255, "--runtime", runtime_name)
    text = call("run", digits, "--input", SEVEN, "--labels", LABELS, *scaling).stdout
    assert classes(text) == ["7"]
    assert runtime_name in text
    assert len(rows(text)) == 5
    (scores,) = [np.ravel(one) for one in call_json("run", digits, "--input", SEVEN, *scaling)["outputs"]]
    assert scores.argmax() == 7


def test_run_shows_as_many_classes_as_asked(digits: Path) -> None:
    for top, shown in ((2, 2), (100, 10)):
        assert len(rows(call("run", digits, "--top", top).stdout)) == shown


def test_run_takes_arrays(digits_float: Path, tmp_path: Path, image: np.ndarray) -> None:
    np.save(tmp_path / "a.npy", image)
    np.savez(tmp_path / "a.npz", **{"serving_default_image:0": image})
    np.savez(tmp_path / "alias.npz", image=image)
    answers = [
        call_json("run", digits_float, "--input", tmp_path / name)["outputs"]
        for name in ("a.npy", "a.npz", "alias.npz")
    ]
    assert answers[0] == answers[1] == answers[2]
    assert np.argmax(answers[0][0]) == 7


def test_run_without_input_is_the_same_each_time(digits: Path) -> None:
    first, second = (call_json("run", digits, "--repeat", 2) for _ in range(2))
    assert first["outputs"] == second["outputs"]
    assert first["outputs"][0] == first["outputs"][1]
    assert np.shape(first["outputs"][0]) == (1, 10)
    assert first["selection"]
    assert first["input"] == "random"


def test_answers_to_random_numbers_say_so(digits: Path) -> None:
    said = "random numbers, so the answers mean nothing; give --input FILE"
    assert said in call("run", digits).stdout
    assert said not in call("run", digits, "--input", SEVEN).stdout
    assert call_json("run", digits, "--input", SEVEN)["input"] == [str(SEVEN)]


def test_run_by_an_explicit_delegate(digits: Path) -> None:
    text = call("run", digits, "--delegate", "builtin", "--threads", 1).stdout
    assert "builtin on cpu" in text


# benchmark


def test_benchmark_measures(digits: Path) -> None:
    found = call_json("benchmark", digits, "--runs", 5)
    assert (found["schema"], found["runs"], found["model"]) == (1, 5, "digits_int8.tflite")
    assert 0 < found["min_ms"] <= found["p50_ms"] <= found["max_ms"]
    assert found["model_sha256"] == tflite_hal.read_model(digits).info.sha256
    text = call("benchmark", digits, "--runs", 5, "--warmup", 0).stdout
    assert "over 5 runs" in text and "latency" in text


# Errors: status 2 and one line


def test_missing_files_and_what_is_no_model(tmp_path: Path) -> None:
    page = tmp_path / "page.tflite"
    page.write_text("<!DOCTYPE html>")
    for command in ("run", "inspect", "benchmark"):
        assert "absent.tflite: No such file" in refused(command, tmp_path / "absent.tflite")
        assert "page.tflite is an HTML page" in refused(command, page)


def test_unknown_choices_name_those_there_are(digits: Path) -> None:
    assert (
        "no delegate 'nope'" in (line := refused("run", digits, "--delegate", "nope")) and "xnnpack" in line
    )
    assert "unknown runtime 'nope'" in refused("run", digits, "--runtime", "nope")
    assert "no device profile 'nope'" in refused("run", digits, "--profile", "nope")
    assert "no device" in refused("benchmark", digits, "--device", "nope")


def test_inputs_that_do_not_fit(digits: Path, tmp_path: Path, image: np.ndarray) -> None:
    array = tmp_path / "a.npy"
    np.save(array, image)
    assert "2 --input for a model with 1 inputs" in refused("run", digits, "--input", array, "--input", array)
    np.save(array, image[:, :4])
    assert "serving_default_image:0" in refused("run", digits, "--input", array)
    np.savez(tmp_path / "a.npz", other=image)
    assert "other" in refused("run", digits, "--input", tmp_path / "a.npz")
    assert "notes.txt: not a .npy or .npz file" in refused("run", digits, "--input", tmp_path / "notes.txt")
    labels = tmp_path / "labels.txt"
    labels.write_text("one\ntwo\n")
    assert "2 labels for 10 scores" in refused("run", digits, "--labels", labels)
    assert "seconds=-1" in refused("benchmark", digits, "--seconds", -1)


def test_a_wrong_shape_is_told_as_it_was_given(digits: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((3, 8, 8, 1), np.float32))
    assert "given: float32 of shape [3, 8, 8, 1]" in refused("run", digits, "--input", tmp_path / "a.npy")


def test_arrays_without_names_are_taken_in_order(digits_float: Path, tmp_path: Path, image) -> None:
    np.savez(tmp_path / "a.npz", image)
    assert np.argmax(call_json("run", digits_float, "--input", tmp_path / "a.npz")["outputs"][0]) == 7
    np.savez(tmp_path / "a.npz", image, image)
    refused("run", digits_float, "--input", tmp_path / "a.npz")


def test_a_scaling_is_for_pictures_and_benchmark_takes_it_too(
    digits_float: Path, tmp_path: Path, image
) -> None:
    np.save(tmp_path / "a.npy", image)
    for given in ([], ["--input", tmp_path / "a.npy"]):
        line = refused("run", digits_float, *given, "--mean", 0, "--std", 255)
        assert "--mean and --std are for pictures" in line
    assert "give mean=0, std=255" in refused("benchmark", digits_float, "--input", SEVEN, "--runs", 2)
    call("benchmark", digits_float, "--input", SEVEN, "--runs", 2, "--mean", 0, "--std", 255)


def test_a_missing_file_is_named_once(digits: Path, tmp_path: Path) -> None:
    for name in ("absent.npy", "absent.npz", "absent.png"):
        line = refused("run", digits, "--input", tmp_path / name)
        assert line.count(name) == 1 and line.endswith(": No such file or directory")
    line = refused("run", digits, "--labels", tmp_path / "absent.txt")
    assert line.count("absent.txt") == 1 and line.endswith(": No such file or directory")
    (tmp_path / "latin.txt").write_bytes("Käse\n".encode("latin-1"))
    assert "give a text file in UTF-8" in refused("run", digits, "--labels", tmp_path / "latin.txt")


def test_a_path_may_be_any_bytes_and_the_terminal_any_encoding(digits: Path, tmp_path: Path) -> None:
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/\xff \xc3\xbc.tflite")
    try:
        Path(odd).write_bytes(digits.read_bytes())
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    for encoding in ("ascii", "utf-8"):
        for command in ("inspect", "run"):
            done = as_module(command, odd, PYTHONIOENCODING=encoding)
            assert done.returncode == 0, done.stderr
            assert "udcff" in done.stdout


def bad_file(folder: Path, kind: str) -> Path:
    """Write a file that is no readable array."""
    np.save(folder / "good.npy", np.zeros((1, 8, 8, 1), np.float32))
    np.savez(folder / "good.npz", image=np.zeros((1, 8, 8, 1), np.float32))
    array, archive = (folder / "good.npy").read_bytes(), (folder / "good.npz").read_bytes()
    name, content = {
        "text": ("bad.npy", b"hello"),
        "cut": ("bad.npy", array[:150]),
        "empty": ("bad.npy", b""),
        "archive": ("bad.npy", archive),
        "cut archive": ("bad.npz", archive[:100]),
        "array as archive": ("bad.npz", array),
    }.get(kind, ("", b""))
    if kind == "objects":
        np.save(folder / "bad.npy", np.array([{}], object), allow_pickle=True)
        return folder / "bad.npy"
    if kind == "archive of objects":
        np.savez(folder / "bad.npz", image=np.array([{}], object))
        return folder / "bad.npz"
    if kind != "absent":
        (folder / name).write_bytes(content)
    return folder / (name or "bad.npy")


@pytest.mark.parametrize(
    "kind",
    [
        "text",
        "cut",
        "objects",
        "absent",
        "empty",
        "archive",
        "cut archive",
        "array as archive",
        "archive of objects",
    ],
)
def test_arrays_that_cannot_be_read(digits: Path, tmp_path: Path, kind: str) -> None:
    # In a process of its own: numpy leaves a damaged archive open, which is an error in this one.
    path = bad_file(tmp_path, kind)
    done = as_module("run", str(digits), "--input", str(path))
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = [line for line in done.stderr.splitlines() if not line.startswith("INFO: ")]  # the runtime's
    assert line.startswith("tflite-hal: ") and path.name in line


def test_debug_raises_the_error_itself(digits: Path, tmp_path: Path) -> None:
    result = call("--debug", "inspect", tmp_path / "absent.tflite", status=1)
    assert isinstance(result.exception, ModelError)
    late = call("inspect", tmp_path / "absent.tflite", "--debug", status=1)
    assert isinstance(late.exception, ModelError)
    refused("inspect", tmp_path / "absent.tflite")  # it is not kept for the next call
    assert isinstance(call("--debug", "run", digits, "--delegate", "nope", status=1).exception, DelegateError)
    done = as_module("--debug", "inspect", str(tmp_path / "absent.tflite"))
    assert done.returncode == 1
    assert "Traceback" in done.stderr and "ModelError" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run"], "Missing argument 'MODEL'. (see tflite-hal run --help)"),
        (["nope"], "No such command 'nope'. (see tflite-hal --help)"),
        (["inspect", "--nope", "m"], "No such option '--nope'"),
        (["run", "m.tflite", "--threads", "0"], "'--threads': 0 is not in the range 1<=x<=1024"),
        (["benchmark", "m.tflite", "--threads", "1025"], "1025 is not in the range"),
        (["run", "m.tflite", "--threads", "many"], "'many' is not a valid integer"),
    ],
)
def test_wrong_arguments_are_one_line_with_where_to_look(arguments: list[str], said: str) -> None:
    done = as_module(*arguments)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert said in done.stderr.replace('"', "'")  # click quotes differently over its versions
    assert done.stderr.startswith("tflite-hal: ") and "--help)" in done.stderr


@pytest.mark.parametrize("name", sorted(main.commands))
def test_every_command_takes_json_and_debug_as_the_readme_says(name: str) -> None:
    parts = ("list", "show") if name == "verdicts" else ("",)
    for part in parts:
        text = call(*filter(None, (name, part)), "--help").stdout
        assert "--json" in text and "--debug" in text


def test_without_arguments_the_help_is_shown() -> None:
    done = as_module()
    assert "Usage: tflite-hal" in done.stdout + done.stderr and "probe" in done.stdout + done.stderr


def test_a_warning_is_a_line_of_the_programs_own(digits: Path) -> None:
    done = as_module("run", str(digits), "--input", str(SEVEN), "--mean", "0", "--std", "1")
    (line,) = [line for line in done.stderr.splitlines() if not line.startswith("INFO: ")]
    assert line.startswith("tflite-hal: warning: the picture's values 0 to ") and "are clipped" in line
    done = as_module("run", str(digits), "--threads", str((os.cpu_count() or 1) + 1))
    assert "tflite-hal: warning: --threads" in done.stderr and ".py" not in done.stderr
    assert done.returncode == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no full device here")
@pytest.mark.parametrize("arguments", [["plugins"], ["probe", "--json"], ["--help"]])
def test_output_that_cannot_be_written_is_told(arguments: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "tflite_hal", *arguments],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 2
    assert done.stderr == "tflite-hal: the output can't be written: No space left on device\n"


def test_a_failure_of_the_system_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def full() -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("tflite_hal.cli.commands.probe_host", full)
    line = refused("plugins")
    assert "Too many open files" in line and "--debug" in line
    assert isinstance(call("plugins", "--debug", status=1).exception, OSError)


def test_an_interpreter_that_cannot_be_started_says_nothing_of_the_runtimes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TFLITE_HAL_PYTHON", str(tmp_path / "no-python"))
    shutdown()  # what an earlier test started would answer
    installed = [one for one in call_json("probe")["runtimes"] if one["state"] != "absent"]
    assert installed and {one["state"] for one in installed} <= {"unchecked", "broken"}
    for one in installed:
        if one["state"] == "unchecked":
            assert "importing it was not tried" in one["reason"] and "no-python" in one["reason"]
            assert "TFLITE_HAL_PYTHON" in one["remedy"]
    assert "unchecked" in call("probe").stdout


# As a program of its own


def as_module(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tflite_hal", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        check=False,
    )


def test_python_m_gives_the_version() -> None:
    done = as_module("--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"tflite-hal, version {tflite_hal.__version__}\n"


def test_an_error_of_the_program_is_one_line_and_status_2(tmp_path: Path) -> None:
    done = as_module("inspect", str(tmp_path / "absent.tflite"))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1 and "No such file" in done.stderr


def test_a_strange_width_of_the_terminal_is_no_error() -> None:
    assert as_module("plugins", COLUMNS="x").returncode == 0


def test_labels_are_for_the_outputs_that_have_as_many_scores() -> None:
    def text(result, labels) -> str:
        console = show.console()
        with console.capture() as captured:
            for part in show.results(result, labels, 2):
                console.print(part)
        return captured.get()

    outputs = {"kinds": np.array([[0.25, 0.75]]), "sizes": np.arange(3.0), "boxes": np.zeros((2, 4))}
    shown = text(outputs, ["cat", "dog"]).splitlines()
    assert [line.split() for line in shown[:4]] == [
        ["kinds"],
        ["class", "score"],
        ["dog", "0.75"],
        ["cat", "0.25"],
    ]
    assert shown[4] == "sizes" and shown[6].split() == ["class", "2", "2"]
    assert shown[8].startswith("boxes float64 [2, 4]")
    with pytest.raises(InputError, match="4 labels for 2 scores"):
        text(outputs, list("abcd"))
    with pytest.warns(UserWarning, match="--labels is not used"):
        text({"boxes": outputs["boxes"]}, ["cat", "dog"])


def test_json_has_no_infinities() -> None:
    assert show.listed({"a": np.array([[1, np.nan, np.inf]], np.float32)}) == {"a": [[1.0, None, None]]}


def test_bytes_and_complex_numbers_become_text_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    show.print_json([np.array([b"caf\xe9", "x"], object).tolist(), np.array([1 + 2j]).tolist()])
    assert json.loads(capsys.readouterr().out) == [["caf\\xe9", "x"], ["(1+2j)"]]


# Real models


@pytest.mark.parametrize(("picture", "word"), [("cat.bmp", "cat"), ("parrot.jpg", "macaw")])
def test_photographs_are_recognised(models: Path, runtime_name: str, picture: str, word: str) -> None:
    text = call(
        "run",
        models / "mobilenet_v1_0.25_128_quant.tflite",
        *("--input", models / picture),
        *("--labels", models / "imagenet_labels.txt"),
        *("--runtime", runtime_name),
    ).stdout
    (first,) = classes(text)
    assert word in first


def test_a_stateful_model_gives_the_same_each_time_after_a_reset(models: Path, runtime_name: str) -> None:
    model, picture = models / "keras_lstm_mnist_ptq.tflite", models / "mnist_nine.bmp"
    arguments = ("run", model, "--input", picture, "--repeat", 3, "--runtime", runtime_name)
    assert classes(call(*arguments).stdout) == ["class 9"] * 3
    outputs = call_json(*arguments)["outputs"]
    assert outputs[0] == outputs[1] == outputs[2]

"""A choice explained and verified: what a person reads, what a script gets, and the exit status."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from tflite_hal import Check, Outcome, Runner, read_model
from tflite_hal.cli import main
from tflite_hal.cli.inputs import read_samples
from tflite_hal.errors import InputError, NoDelegateError
from tflite_hal.model import Interface

EXAMPLE = Path(__file__).parent / "example_plugin" / "tflite_hal_acme.py"
#: The faults as a vendor's plugin, which lives in a worker.
FAULTY = """
from tflite_hal import Configuration, hookimpl
from tflite_hal.testing import PythonFaultDelegate


class Acme(PythonFaultDelegate):
    name = "acme"

    def configurations(self, model, device, profile):
        return [Configuration({options})]


@hookimpl
def tflite_hal_register_delegates():
    return [Acme]
"""
OPEN = "        return InterpreterSession(model, runtime, default_delegates=False)"

pytestmark = pytest.mark.filterwarnings("ignore::tflite_hal.TfliteHalWarning")


def faulty(**options: object) -> str:
    return FAULTY.replace("{options}", repr(options))


WRONG = faulty(fault="wrong")
DEGRADED = faulty(fault="small", steps=20)
CRASHES = EXAMPLE.read_text().replace(
    OPEN, f"        __import__('os').kill(__import__('os').getpid(), 11)\n{OPEN}"
)
REFUSES = EXAMPLE.read_text().replace(OPEN, "        raise RuntimeError('no firmware')")


def call(*arguments: object, status: int = 0, columns: int = 120) -> Result:
    """Run a command; it must end with this exit status."""
    runner = CliRunner(env={"COLUMNS": str(columns)})
    result = runner.invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == status, (result.output, result.exception)
    return result


def call_json(*arguments: object, status: int = 0):
    return json.loads(call(*arguments, "--json", status=status).stdout)


def row(text: str, *words: str) -> list[str]:
    """Return the cells of the only line with these words, split at two blanks."""
    (line,) = [line for line in text.splitlines() if all(word in line for word in words)]
    return [cell for cell in line.split("  ") if cell.strip()]


def line_of_error(result: Result) -> str:
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("tflite-hal: ")]
    return line


# explain


@pytest.mark.parametrize("columns", [80, 120])
def test_every_candidate_is_a_row(digits: Path, runtime_name: str, columns: int) -> None:
    text = call("explain", digits, "--runtime", runtime_name, columns=columns).stdout
    head, titles, *rows = text.splitlines()
    assert head.startswith(f"digits_int8.tflite  {runtime_name} · ")
    assert {"#", "outcome", "ms", "error", "cosine", "operators", "seconds"} <= set(titles.split())
    assert len(rows) == 3 and max(len(line) for line in text.splitlines()) <= columns
    assert [line.split()[0] for line in rows] == ["1", "2", "3"]
    assert sum("chosen" in line for line in rows) == 1
    for line in rows:
        assert ("xnnpack" in line and "1.0000" in line and " of " in line) or "builtin" in line


def test_json_is_the_selection(digits: Path, runtime_name: str) -> None:
    found = call_json("explain", digits, "--runtime", runtime_name)
    assert set(found) == {"model", "profile", "compared", "winner", "attempts"}
    assert found["compared"] and found["winner"]["rank"] == 1
    assert sorted(one["rank"] for one in found["attempts"]) == [1, 2, 3]
    assert {one["runtime"] for one in found["attempts"]} == {runtime_name}
    best, second, third = sorted(found["attempts"], key=lambda one: one["rank"])
    assert best == found["winner"]
    fastest = min(one["latency_ms"] for one in (best, second, third))
    assert best["latency_ms"] <= fastest * 1.051  # equal ones keep their order


def test_the_arguments_are_those_of_auto(digits: Path) -> None:
    text = call("explain", digits, "--exclude", "xnnpack", "--prefer", "order", "--threads", 1).stdout
    assert "nothing was timed" in text and "exclude has 'xnnpack'" in text
    assert row(text, "builtin")[0] == "1"
    assert call_json("explain", digits, "--threads", 1)["winner"]["configuration"] == "threads=1"
    assert "no device profile 'nope'" in call("explain", digits, "--profile", "nope", status=2).stderr
    assert "did you mean 'xnnpack'" in call("explain", digits, "--delegate", "xnpack", status=2).stderr
    assert "tolerance takes" in call("explain", digits, "--tolerance", 2, status=2).stderr


@pytest.mark.parametrize(
    ("source", "outcome", "stage", "reason"),
    [
        (WRONG, "wrong", "compare", "differs by"),
        (DEGRADED, "degraded", "compare", "typically differs by 20 of 256 steps"),
        (CRASHES, "crashed", "open", "killed by SIGSEGV"),
        (REFUSES, "failed", "open", "no firmware"),
    ],
)
@pytest.mark.parametrize("columns", [80, 120])
def test_what_is_not_used_is_below_the_others_with_its_reason(
    install, digits: Path, source: str, outcome: str, stage: str, reason: str, columns: int
) -> None:
    install("acme", source)
    result = call("explain", digits, columns=columns)
    lines = result.stdout.splitlines()
    (acme,) = [line for line in lines[2 : lines.index("")] if "acme" in line and outcome in line]
    assert acme.startswith("-") and all(line[0] in "123" for line in lines[2 : lines.index(acme)])
    assert (stage in acme.split()) == (columns == 120)
    below = " ".join(" ".join(lines[lines.index("") :]).split())
    assert below.startswith(f"acme on {'npu' if source in (CRASHES, REFUSES) else 'fault'}:0, ")
    assert f": {outcome}" in below and reason in below
    assert max(map(len, lines)) <= columns
    assert result.stderr == "" or "warning" not in result.stderr  # the table has it


def test_a_degraded_one_is_used_by_who_accepts_it(install, digits: Path) -> None:
    install("acme", DEGRADED)
    arguments = ("explain", digits, "--delegate", "acme", "--prefer", "order")
    assert call_json(*arguments)["winner"]["delegate"] == "xnnpack"
    winner = call_json(*arguments, "--accept", "degraded")["winner"]
    assert (winner["delegate"], winner["comparison"]["steps"]) == ("acme", 20)
    assert call_json(*arguments, "--tolerance", 0.1)["winner"]["delegate"] == "acme"


def test_nothing_chosen_is_status_3_after_the_attempts(install, digits: Path) -> None:
    install("acme", REFUSES)
    arguments = ("explain", digits, "--delegate", "acme", "--exclude", "cpu")
    result = call(*arguments, status=3)
    assert "no firmware" in result.stdout and "exclude has 'cpu'" in result.stdout
    assert "no firmware" in line_of_error(result)
    found = call_json(*arguments, status=3)
    assert found["winner"] is None and found["attempts"][0]["outcome"] == "failed"
    assert "no device on this machine fits" in line_of_error(
        call("explain", digits, "--exclude", "cpu", "--exclude", "acme", status=3)
    )


# verify


def test_right_is_status_0(install, digits: Path, digits_float: Path, runtime_name: str) -> None:
    install("acme", EXAMPLE.read_text())
    for model in (digits, digits_float):
        text = call("verify", model, "--runtime", runtime_name).stdout
        acme = row(text, "acme on npu:0, mode=fast")
        assert acme[0] == "ok" and "100%" in text and "StatefulPartitionedCall_1:0" in text
        assert "only where other configurations answer wrongly" in text
        assert row(text, "builtin on cpu")[0] == "the measure"
    assert call_json("verify", digits, "--runtime", runtime_name)["right"] is True


def test_a_candidate_is_a_line_at_80_columns_too(digits: Path) -> None:
    head, titles, *lines = call("verify", digits, columns=80).stdout.splitlines()
    assert head.startswith("digits_int8.tflite  ") and titles.split()[-1] == "output"
    assert [line.split()[0] for line in lines] == ["ok", "ok", "the"]
    assert lines[0].rstrip().endswith(" …itionedCall_1:0") and max(map(len, lines)) <= 80


def test_wrong_is_status_1_and_the_others_are_shown_too(install, digits: Path, runtime_name: str) -> None:
    install("acme", WRONG)
    text = call("verify", digits, "--runtime", runtime_name, status=1).stdout
    assert row(text, "acme on fault:0", "255 steps")[0] == "wrong"
    assert sum(line.startswith("ok ") for line in text.splitlines()) == 2
    found = call_json("verify", digits, "--runtime", runtime_name, "--delegate", "acme", status=1)
    (acme,) = found["attempts"]
    assert (found["right"], acme["outcome"], acme["comparison"]["grade"]) == (False, "wrong", "wrong")
    assert acme["comparison"]["output"] == "StatefulPartitionedCall_1:0" and acme["latency_ms"] is None
    call("verify", digits, "--delegate", "xnnpack", "--runtime", runtime_name)


def test_degraded_is_status_1_unless_accepted(install, digits: Path) -> None:
    install("acme", DEGRADED)
    assert row(call("verify", digits, "--device", "npu", status=1).stdout, "20 steps")[0] == "degraded"
    accepted = call("verify", digits, "--device", "npu", "--accept", "degraded").stdout
    assert row(accepted, "20 steps")[0] == "degraded"
    assert row(call("verify", digits, "--device", "npu", "--tolerance", 0.1).stdout, "20 steps")[0] == "ok"


def test_where_nothing_can_be_compared_is_status_3(install, digits: Path) -> None:
    install("acme", CRASHES)
    result = call("verify", digits, "--delegate", "acme", status=3)
    assert "crashed" in result.stdout and "killed by SIGSEGV" in line_of_error(result)
    assert "another configuration crashed or hung" in result.stdout
    call("verify", digits)  # the CPU is right
    assert "nothing here to compare" in line_of_error(
        call("verify", digits, "--delegate", "builtin", status=3)
    )
    absent = call("verify", digits, "--device", "tpu", status=3)
    assert "nothing here to compare" in line_of_error(absent)
    assert "no such device" in line_of_error(call("verify", digits, "--delegate", "hexagon", status=3))
    assert call_json("verify", digits, "--device", "tpu", status=3)["right"] is None


def test_a_model_that_the_builtin_kernels_cannot_run_is_status_3(models: Path) -> None:
    result = call("verify", models / "model_invoking_error.tflite", status=3)
    assert "could be compared; there is nothing to compare with, the built-in" in line_of_error(result)
    (told,) = [line for line in result.stdout.splitlines() if "builtin on cpu, threads=1: untried" in line]
    assert told.startswith("xnnpack on cpu, threads=")
    # Everything fails for the same reason, which is the model's: told once for each stage.
    result = call("explain", models / "model_invoking_error.tflite", status=3)
    assert result.stdout.count("nothing opened here") == len(
        {line.split(": failed at ")[1] for line in result.stdout.splitlines() if ": failed at " in line}
    )


# --samples


@pytest.mark.parametrize("shape", [(4, 1, 8, 8, 1), (4, 8, 8, 1)])
def test_samples_are_compared_too(install, digits: Path, tmp_path: Path, shape: tuple[int, ...]) -> None:
    install("acme", faulty(fault="wrong", at=11))  # the seeded inputs are eight
    archive = tmp_path / "x.npz"
    np.savez(archive, image=np.random.default_rng(1).integers(-128, 127, shape, np.int8))
    arguments = ("verify", digits, "--delegate", "acme")
    call(*arguments)
    call(*arguments, "--samples", archive, status=1)
    found = call_json("explain", digits, "--delegate", "acme", "--samples", archive)
    assert {one["outcome"] for one in found["attempts"] if one["delegate"] == "acme"} == {"wrong"}


def test_samples_that_do_not_fit(digits: Path, tmp_path: Path) -> None:
    archive = tmp_path / "x.npz"

    def said(**arrays: np.ndarray) -> str:
        np.savez(archive, **arrays)
        return line_of_error(call("verify", digits, "--samples", archive, status=2))

    assert "takes [1, 8, 8, 1] or [samples, 1, 8, 8, 1]; given: [8, 8]" in said(image=np.zeros((8, 8)))
    assert "no sample of input" in said(image=np.zeros((0, 8, 8, 1)))
    assert "other" in said(other=np.zeros((1, 8, 8, 1)))
    assert "1 inputs" in said(arr_0=np.zeros((1, 8, 8, 1)), arr_1=np.zeros((1, 8, 8, 1)))
    (tmp_path / "x.npy").write_bytes(b"hello")
    assert "archive of arrays" in call("verify", digits, "--samples", tmp_path / "x.npy", status=2).stderr
    assert "No such file" in call("explain", digits, "--samples", tmp_path / "absent.npz", status=2).stderr


def two_inputs(digits: Path) -> Interface:
    spec = read_model(digits).info.inputs[0]
    specs = spec._replace(name="a", shape=(1, 3)), spec._replace(name="b", shape=(-1, 2))
    return Interface(("a", "b"), specs, ("c",), specs[:1], {"first": "a"})


def test_an_array_of_an_inputs_own_shape_goes_with_every_sample(digits: Path, tmp_path: Path) -> None:
    archive = str(tmp_path / "x.npz")
    a, b = np.arange(3).reshape(1, 3), np.arange(10).reshape(5, 2)
    for arrays in ({"first": a, "b": b}, {"arr_0": a, "arr_1": b}):
        np.savez(archive, **arrays)
        samples = read_samples(archive, two_inputs(digits))
        assert len(samples) == 5
        for number, (first, second) in enumerate(samples):
            assert np.array_equal(first, a) and np.array_equal(second, b[number : number + 1])
    np.savez(archive, a=np.zeros((2, 1, 3)), b=b)
    with pytest.raises(InputError, match="2 of 'a', 5 of 'b'"):
        read_samples(archive, two_inputs(digits))


# str(selection)


def test_the_record_reads_well_on_the_cpu_alone(digits: Path) -> None:
    with Runner.auto(digits) as runner:
        lines = str(runner.selection).splitlines()
    # On so small a model the noise of the machine decides which of them is first.
    assert lines[0].startswith("digits_int8.tflite: ") and len(lines) == 3
    for line in lines:
        if "xnnpack on cpu (threads=" in line:
            assert " of 8 operators, " in line
            # Rounding may differ by a step.
            assert line.endswith((" ms, answers as the built-in kernels do", "from the built-in kernels"))
        else:
            assert "builtin on cpu (threads=1, " in line and line.endswith(" ms")
    with Runner(digits, delegate="builtin") as runner:
        first = str(runner.selection).splitlines()[0]
        assert first.startswith("digits_int8.tflite: builtin on cpu (threads=1, ")


def test_the_record_reads_well_where_an_npu_is_chosen(install, digits: Path) -> None:
    install("acme", faulty(fault="small", steps=3))
    with Runner.auto(digits, device="npu", prefer="order") as runner:
        head, *rest = str(runner.selection).splitlines()
    assert head.startswith("digits_int8.tflite: acme on fault:0 (fault=small steps=3, ")
    assert head.endswith(" operators, at most 3 steps from the built-in kernels")
    assert all(line.endswith(": untried: comes after what is used") for line in rest if "cpu" in line)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (WRONG, "): wrong, 8 of 8 operators: output 'StatefulPartitionedCall_1:0' "),
        (DEGRADED, "cosine 0."),
        (CRASHES, "): crashed at open: "),
    ],
)
def test_the_record_reads_well_where_an_npu_is_not_used(
    install, digits: Path, source: str, words: str
) -> None:
    install("acme", source)
    with Runner.auto(digits) as runner:
        lines = str(runner.selection).splitlines()
    assert " on cpu (threads=" in lines[0] and lines[1].startswith("  acme on ")
    assert words in lines[1]
    assert lines[1].count("256 steps") <= 2  # the error and its limit, once


def test_the_record_reads_well_where_a_degraded_one_is_used(install, digits: Path) -> None:
    install("acme", DEGRADED)
    check = Check(accept="degraded")
    with Runner.auto(digits, device="npu", prefer="order", check=check) as runner:
        head = str(runner.selection).splitlines()[0]
    assert head.endswith(", degraded, at most 20 steps from the built-in kernels")


def test_the_record_reads_well_where_nothing_answers(install, digits: Path) -> None:
    install("acme", REFUSES)
    with pytest.raises(NoDelegateError) as caught:
        Runner(digits, delegate="acme")
    head, first, *_ = str(caught.value.selection).splitlines()
    assert head == "digits_int8.tflite: nothing answered"
    assert first.startswith("  acme on npu:0 (mode=fast, ") and "): failed at open: " in first
    assert {one.outcome for one in caught.value.selection.attempts} >= {Outcome.FAILED, Outcome.EXCLUDED}


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_profile_says_how_right_is_right_enough(install, digits: Path, tmp_path: Path) -> None:
    install("acme", DEGRADED)
    fact = '[{provenance: inferred, source: ["a test"]}]'
    file = tmp_path / "acme-board.yaml"
    file.write_text(
        "schema: 1\nname: acme-board\ntitle: Acme\nmatch: {arch: x86_64}\n"
        "checks: {acme: {accept: degraded}}\n"
        f"sources: {{match: {fact}, checks: {fact}}}\n"
    )
    file.chmod(0o600)
    used = {}
    for name, given in {"none": {}, "profile": {"profile": file}}.items():
        with Runner.auto(digits, delegates=["acme"], prefer="order", **given) as runner:
            used[name] = runner.delegate == "acme"
    with Runner.auto(digits, delegates=["acme"], prefer="order", profile=file, check=Check()) as runner:
        used["caller"] = runner.delegate == "acme"
    assert used == {"none": False, "profile": True, "caller": False}


def test_explain_says_where_what_was_asked_for_is_not_there(digits: Path) -> None:
    command = [sys.executable, "-m", "tflite_hal", "explain", str(digits), "--device", "npu"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "runs on cpu, not on device='npu': no such device on this machine" in done.stderr

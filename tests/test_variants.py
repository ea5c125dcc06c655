"""The same network in another form beside a model: what counts as one, who opens it, what is told of it."""

import json
import re
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from edgetpu_standin import Bus
from forms import arithmetic, compiled

from tflite_hal import (
    DelegateError,
    InputError,
    NoDelegateError,
    Outcome,
    Runner,
    TfliteHalWarning,
    read_model,
)
from tflite_hal.contract import check_delegate
from tflite_hal.errors import PluginError
from tflite_hal.model import Quantization, Variants
from tflite_hal.runner import verified
from tflite_hal.runtime import load_runtime
from tflite_hal.session import InterpreterSession
from tflite_hal.trial import seeded_inputs

SUFFIXES = ("_edgetpu",)


class Pair:
    """``m.tflite`` and ``m_edgetpu.tflite`` in a folder."""

    def __init__(self, folder: Path, plain: bytes, **changes) -> None:
        folder.mkdir(exist_ok=True)
        self.plain, self.compiled = folder / "m.tflite", folder / "m_edgetpu.tflite"
        self.plain.write_bytes(plain)
        self.compiled.write_bytes(compiled(plain, **changes))

    def right(self, inputs, runtime: str | None = None):
        """What the built-in kernels answer on the plain model, in its order."""
        session = InterpreterSession(read_model(self.plain), load_runtime(runtime), default_delegates=False)
        return session.prepare().run(inputs)


@pytest.fixture
def pair(tmp_path: Path, digits: Path) -> Pair:
    return Pair(tmp_path / "models", digits.read_bytes())


@pytest.fixture
def turned(tmp_path: Path) -> Pair:
    return Pair(tmp_path / "models", arithmetic(), turned=True)


@pytest.fixture
def stick(edge_tpu: Bus, pair: Pair) -> Bus:
    edge_tpu.plug("1-1")
    edge_tpu.serve(pair.plain)
    return edge_tpu


def events(runner: Runner, kind: str) -> list[str]:
    return [event.message for event in runner.events if event.kind == kind]


# ---- what counts as one ----


def test_it_is_found_from_either_side(pair: Pair) -> None:
    for named, suffix, other in ((pair.plain, "_edgetpu", pair.compiled), (pair.compiled, "", pair.plain)):
        variants = Variants(read_model(named), SUFFIXES)
        found = variants.beside(suffix)
        assert found.model.path == str(other)
        assert found.named.path == str(named)
        assert variants.problems == {}
        assert variants.beside("" if suffix else "_edgetpu") is None, "that is the model itself"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": "else"}, "outputs else, not"),
        ({"type": "uint8"}, "is uint8"),
        ({"static_shape": (1, 11)}, r"is int8\[1, 11\]"),
        ({"quantization": Quantization((0.5,), (-128,))}, "scale 0.5 and zero point -128"),
        ({"quantization": None}, "is int8"),
    ],
    ids=["name", "dtype", "shape", "quantisation", "unquantised"],
)
def test_another_network_does_not_count(tmp_path: Path, digits: Path, changes, words: str) -> None:
    pair = Pair(tmp_path / "models", digits.read_bytes(), **changes)
    variants = Variants(read_model(pair.plain), SUFFIXES)
    assert variants.beside("_edgetpu") is None
    (problem,) = variants.problems.values()
    assert problem.startswith("m_edgetpu.tflite is not m.tflite in another form: output")
    assert re.search(words, problem)


def test_a_damaged_file_does_not_count(pair: Pair) -> None:
    pair.compiled.write_bytes(pair.compiled.read_bytes()[:100])
    variants = Variants(read_model(pair.plain), SUFFIXES)
    assert variants.beside("_edgetpu") is None
    assert "damaged" in variants.problems[str(pair.compiled)]


def test_bytes_have_nothing_beside_them(pair: Pair) -> None:
    variants = Variants(read_model(pair.plain.read_bytes()), SUFFIXES)
    assert variants.beside("_edgetpu") is None
    assert variants.name("_edgetpu") == ""


@pytest.mark.parametrize("suffixes", [("",), ("_a/b",), "_edgetpu", (1,)])
def test_suffixes_are_checked(suffixes) -> None:
    from tflite_hal_acme import AcmeDelegate

    wrong = type("Wrong", (AcmeDelegate,), {"variants": suffixes})
    with pytest.raises(PluginError, match="variants = "):
        check_delegate(wrong, "wrong")


def test_real_pairs_agree(models: Path) -> None:
    for name in ("mobilenet_v1_0.25_128_quant", "keras_lstm_mnist_ptq"):
        variants = Variants(read_model(models / f"{name}.tflite"), SUFFIXES)
        assert variants.beside("_edgetpu") is not None, variants.problems


# ---- with a TPU ----


@pytest.mark.parametrize("named", ["plain", "compiled"])
def test_the_tpu_runs_its_own_form(stick: Bus, pair: Pair, runtime_name: str, named: str) -> None:
    path = getattr(pair, named)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # what was meant is no warning
        runner = Runner.auto(path, delegates=["edgetpu"], prefer="order", runtime=runtime_name)
    with runner:
        winner = runner.selection.winner
        assert (winner.delegate, winner.device) == ("edgetpu", "usb:0")
        assert winner.variant == ("m_edgetpu.tflite" if named == "plain" else "")
        assert winner.comparison.error == 0, "compared with the plain model's built-in kernels"
        assert events(runner, "variant") == (
            ["edgetpu on usb:0 runs m_edgetpu.tflite, which is beside m.tflite"] if named == "plain" else []
        )
        for seed in range(3):
            inputs = seeded_inputs(runner.inputs, seed)
            np.testing.assert_array_equal(runner.predict(inputs), pair.right(inputs, runtime_name)[0])
        result = runner.benchmark(runs=2, warmup=0)
        assert result.model == "m_edgetpu.tflite"
        assert result.model_sha256 == read_model(pair.compiled).info.sha256
    assert stick.opened == ["1-1"]


@pytest.mark.parametrize("named", ["plain", "compiled"])
def test_an_explicit_choice_does_too(stick: Bus, pair: Pair, named: str) -> None:
    with Runner(getattr(pair, named), device="tpu") as runner:
        inputs = seeded_inputs(runner.inputs)
        np.testing.assert_array_equal(runner.predict(inputs), pair.right(inputs)[0])
        assert runner.selection.winner.comparison is not None


def test_all_take_part_and_each_says_what_it_ran(stick: Bus, pair: Pair) -> None:
    with Runner.auto(pair.plain) as runner:
        ran = {(a.delegate, a.variant) for a in runner.selection.attempts if a.outcome is not Outcome.UNTRIED}
    assert {("edgetpu", "m_edgetpu.tflite"), ("xnnpack", ""), ("builtin", "")} <= ran
    assert "edgetpu on usb:0 (m_edgetpu.tflite, " in str(runner.selection)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TfliteHalWarning)
        with Runner.auto(pair.compiled) as runner:
            ran = {(a.delegate, a.variant) for a in runner.selection.attempts}
    assert {("edgetpu", ""), ("xnnpack", "m.tflite"), ("builtin", "m.tflite")} <= ran


def test_inputs_and_outputs_are_those_of_the_named_model(edge_tpu: Bus, turned: Pair) -> None:
    edge_tpu.plug("1-1")
    edge_tpu.serve(turned.plain)
    a, b = np.float32([[1, 2, 3, 4]]), np.float32([[0.5, 0.25, 2, 8]])
    right = turned.right([a, b])
    for named in (turned.plain, turned.compiled):
        with Runner(named, delegate="edgetpu") as runner:
            assert runner.selection.winner.comparison.error == 0
            order = [spec.name for spec in runner.inputs]
            assert order == (["a", "b"] if named is turned.plain else ["b", "a"])
            given = runner.predict([{"a": a, "b": b}[name] for name in order])
            assert list(given) == [spec.name for spec in runner.outputs]
            np.testing.assert_array_equal(given["difference"], right[0])
            np.testing.assert_array_equal(given["product"], right[1])
    with Runner(turned.plain, delegate="edgetpu") as runner:
        given = runner.predict({"left": a, "right": b}, signature="named")  # the compiled file has none
        assert list(given) == ["times", "minus"]
        np.testing.assert_array_equal(given["minus"], right[0])
        np.testing.assert_array_equal(given["times"], right[1])


def test_a_form_that_answers_wrongly_is_not_used(edge_tpu: Bus, turned: Pair, tmp_path: Path) -> None:
    """What is beside it has the same tensors and is another network all the same."""
    other = tmp_path / "other.tflite"
    other.write_bytes(arithmetic(swapped=True))
    edge_tpu.plug("1-1")
    edge_tpu.serve(other)
    with pytest.warns(TfliteHalWarning, match="wrong"), Runner.auto(turned.plain) as runner:
        (attempt,) = [a for a in runner.selection.attempts if a.delegate == "edgetpu"]
        assert attempt.outcome is Outcome.WRONG
        assert runner.delegate != "edgetpu"


def test_without_variants_the_tpu_does_not_take_the_plain_model(stick: Bus, pair: Pair) -> None:
    with Runner.auto(pair.plain, variants=False) as runner:
        (attempt,) = [a for a in runner.selection.attempts if a.delegate == "edgetpu"]
    assert attempt.outcome is Outcome.UNSUPPORTED
    assert "beside" not in attempt.reason
    with pytest.raises(DelegateError, match="edgetpu_compiler"):
        Runner(pair.plain, device="tpu", variants=False)
    with pytest.raises(InputError, match="variants='no' is not True or False"):
        Runner(pair.plain, variants="no")


def test_a_missing_or_wrong_neighbour_is_told(stick: Bus, pair: Pair, digits: Path) -> None:
    pair.compiled.unlink()
    with pytest.raises(
        NoDelegateError, match=r"run edgetpu_compiler on it; there is no m_edgetpu.tflite beside it"
    ):
        Runner(pair.plain, device="tpu")
    pair.compiled.write_bytes(compiled(digits, name="else"))
    with pytest.warns(
        TfliteHalWarning, match=r"left aside: m_edgetpu.tflite is not m.tflite in another form"
    ):
        Runner.auto(pair.plain).close()
    with pytest.raises(NoDelegateError, match=r"m_edgetpu.tflite is not m.tflite in another form"):
        Runner(pair.plain, device="tpu")


def test_what_is_remembered_is_about_the_variant_too(stick: Bus, pair: Pair) -> None:
    def recalled() -> bool:
        with Runner.auto(pair.plain, prefer="order") as runner:
            assert runner.delegate == "edgetpu"
            return runner.selection.winner.recalled

    assert not recalled()
    assert recalled()
    pair.compiled.write_bytes(pair.compiled.read_bytes() + bytes(16))  # compiled anew
    assert not recalled()
    assert recalled()


def test_recheck_compares_with_the_plain_model(stick: Bus, pair: Pair) -> None:
    with Runner(pair.compiled, device="tpu", recheck=1) as runner:
        inputs = seeded_inputs(runner.inputs)
        np.testing.assert_array_equal(runner.predict(inputs), pair.right(inputs)[0])
        assert [event.kind for event in runner.events] == []


@pytest.mark.parametrize("named", ["plain", "compiled"])
def test_a_library_that_is_named_gets_the_file_that_is_named(
    stick: Bus, pair: Pair, runtime_name: str, named: str
) -> None:
    """Nothing is known of which form it takes."""
    library = stick.tree / "usr/lib/libedgetpu.so.1"
    given = {"delegate_library": library, "options": {"device": "usb:0"}, "runtime": runtime_name}
    if named == "plain":
        with pytest.raises(DelegateError, match=r"library took none of the \d+ operators of m.tflite"):
            Runner(pair.plain, **given)
        return
    with Runner(pair.compiled, **given) as runner:
        winner = runner.selection.winner
        assert (winner.delegate, winner.variant, winner.coverage.taken) == ("library", "", 1)
        assert winner.comparison.error == 0, "compared with the plain model's built-in kernels"
        assert events(runner, "variant") == []


# ---- without one ----


@pytest.mark.parametrize("make", [Runner.auto, Runner], ids=["auto", "plain"])
def test_the_plain_form_runs_on_the_cpu_and_that_is_told(
    edge_tpu: Bus, pair: Pair, runtime_name: str, make
) -> None:
    with pytest.warns(
        TfliteHalWarning,
        match=r"beside m_edgetpu\.tflite, since nothing usable here takes .*edgetpu-custom-op",
    ):
        runner = make(pair.compiled, runtime=runtime_name)
    with runner:
        inputs = seeded_inputs(runner.inputs)
        runner.predict(inputs)
        (told,) = events(runner, "variant")
        assert f"{runner.delegate} on cpu runs m.tflite" in told
        assert runner.selection.winner.variant == "m.tflite"
        assert "(threads=1, m.tflite, " in str(runner.selection)


@pytest.mark.parametrize("make", [Runner.auto, Runner], ids=["auto", "plain"])
def test_without_variants_or_neighbour_it_fails_as_ever(edge_tpu: Bus, pair: Pair, make) -> None:
    with pytest.raises(DelegateError, match="edgetpu-custom-op"):
        make(pair.compiled, variants=False)
    pair.plain.unlink()
    with pytest.raises(DelegateError, match="edgetpu-custom-op"):
        make(pair.compiled)


def test_a_device_that_was_asked_for_is_not_replaced(edge_tpu: Bus, pair: Pair) -> None:
    with pytest.raises(DelegateError, match="no device on this machine"):
        Runner(pair.compiled, device="tpu")


def test_a_name_alone_makes_no_other_form(edge_tpu: Bus, pair: Pair, digits_float: Path) -> None:
    """``m_edgetpu.tflite`` that the CPU can run is run by it."""
    pair.compiled.write_bytes(digits_float.read_bytes())
    pair.plain.write_bytes(digits_float.read_bytes())
    with Runner(pair.compiled) as runner:
        assert runner.selection.winner.variant == ""
        assert events(runner, "variant") == []


def test_verify_measures_by_the_plain_model(stick: Bus, pair: Pair) -> None:
    attempts = {a.delegate: a for a in verified(pair.compiled).attempts}
    assert attempts["edgetpu"].outcome is Outcome.RIGHT
    assert attempts["edgetpu"].comparison.error == 0
    assert attempts["builtin"].variant == "m.tflite"


def test_the_command_line_says_so_and_can_be_told_not_to(pair: Pair) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "tflite_hal", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    found = run("explain", str(pair.compiled), "--json")
    assert found.returncode == 0, found.stderr
    assert "runs m.tflite, which is beside m_edgetpu.tflite" in found.stderr
    assert json.loads(found.stdout)["winner"]["variant"] == "m.tflite"
    for command in ("explain", "verify", "run", "benchmark"):
        refused = run(command, str(pair.compiled), "--no-variants")
        assert refused.returncode in (2, 3), command
        assert "edgetpu-custom-op" in refused.stderr

"""Which operators a delegate really took: told exactly, and what too little of it means."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from tflite_hal import Coverage, DelegateError, InputError, Outcome, Runner
from tflite_hal.cli import main
from tflite_hal.model import read_model
from tflite_hal.runtime import load_runtime
from tflite_hal.session import InterpreterSession
from tflite_hal.testing.forwarding import ForwardingDelegate
from tflite_hal.testing.misbehaviour import Settings

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.tflite"))
REAL = [
    "ad01_fp32",
    "ad01_int8",
    "keras_lstm_mnist_ptq",
    "kws_ref_model",
    "kws_ref_model_float32",
    "mobilenet_v1_0.25_128_quant",
    "pretrainedResnet",
    "pretrainedResnet_quant",
    "str_ww_ref_model",
    "vww_96_float",
    "vww_96_int8",
]
#: Builtin codes: all, convolutions, ADD, FULLY_CONNECTED, SOFTMAX.
CLAIMS = ["all", "3,4", "0", "9", "25"]


def taking(operators: str) -> ForwardingDelegate:
    return ForwardingDelegate(Settings.checked("fault_python", {"operators": operators}))


def check_claim(path: Path, runtime: str, operators: str) -> None:
    """Compare what is told with what the delegate knows that it took."""
    native, model = taking(operators), read_model(path)
    session = InterpreterSession(model, load_runtime(runtime), delegates=[native])
    told = session.coverage
    session.close()
    assert told is not None
    assert told.nodes == tuple(sorted(native.claimed))
    assert told.taken == told.partitions == len(native.claimed)  # one partition per operator
    assert told.total == sum(operator.occurrences for operator in model.info.operators)
    assert sum(told.refused.values()) == told.total - told.taken
    assert set(told.refused) <= {operator.name for operator in model.info.operators}
    assert Coverage.from_dict(json.loads(json.dumps(told.to_dict()))) == told


@pytest.mark.parametrize("operators", CLAIMS)
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_it_is_the_delegates_own_claim(path: Path, runtime_name: str, operators: str) -> None:
    check_claim(path, runtime_name, operators)


@pytest.mark.parametrize("operators", CLAIMS)
@pytest.mark.parametrize("name", REAL)
def test_it_is_the_delegates_own_claim_on_real_models(
    models: Path, runtime_name: str, name: str, operators: str
) -> None:
    check_claim(models / f"{name}.tflite", runtime_name, operators)


#: Measured on ai-edge-litert 2.3: what XNNPACK takes, of how many, in how many pieces.
XNNPACK = {
    "keras_lstm_mnist_ptq": (2, 6, 1),
    "kws_ref_model": (11, 13, 2),
    "str_ww_ref_model": (10, 11, 1),
    "pretrainedResnet_quant": (14, 16, 2),
    "ad01_int8": (10, 10, 1),
    "vww_96_int8": (29, 31, 2),
    "pretrainedResnet": (16, 16, 1),
}


@pytest.mark.parametrize("name", XNNPACK)
def test_pieces_of_several_operators_are_told_too(models: Path, name: str) -> None:
    runtime = load_runtime()
    if runtime.name != "ai_edge_litert":
        pytest.skip("the figures are of ai-edge-litert")
    told = InterpreterSession(read_model(models / f"{name}.tflite"), runtime).coverage
    assert told is not None
    assert told[:3] == XNNPACK[name]
    assert len(told.nodes) == told.taken


PLUGIN = """
from tflite_hal import Configuration, hookimpl
from tflite_hal.testing import PythonFaultDelegate

class Partial(PythonFaultDelegate):
    name = "partial"

    def configurations(self, model, device, profile):
        return [Configuration({"operators": "3,4"})]

@hookimpl
def tflite_hal_register_delegates():
    return [Partial]
"""


@pytest.fixture
def partial(install, digits: Path) -> Coverage:
    """Install a delegate of convolutions; returns what it takes of the example model."""
    install("partial", PLUGIN)
    told = InterpreterSession(read_model(digits), load_runtime(), delegates=[taking("3,4")]).coverage
    assert told is not None
    return told


def test_a_caller_may_refuse_partial_delegation(digits: Path, partial: Coverage) -> None:
    share = partial.taken / partial.total
    for _ in range(2):  # tried, then remembered
        with Runner.auto(digits, min_coverage=share) as runner:
            found = next(a for a in runner.selection.attempts if a.delegate == "partial")
            assert found.outcome in (Outcome.CHOSEN, Outcome.SLOWER)
            assert found.coverage == partial
        with Runner.auto(digits, min_coverage=share + 0.01) as runner:
            found = next(a for a in runner.selection.attempts if a.delegate == "partial")
            assert (found.outcome, found.stage, found.rank) == (Outcome.UNSUPPORTED, "open", None)
            assert found.reason.startswith(f"it takes {partial.taken} of {partial.total} operators")
            assert runner.device.kind == "cpu"


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan"), True, "1", None])
def test_a_share_is_between_none_and_all(digits: Path, share) -> None:
    with pytest.raises(InputError, match=r"min_coverage=.* is not a share from 0 to 1"):
        Runner.auto(digits, min_coverage=share)


def test_the_command_line_names_what_was_refused(digits: Path, partial: Coverage) -> None:
    names = ", ".join(n if k == 1 else f"{n} x{k}" for n, k in partial.refused.items())
    text = f"{partial.taken} of {partial.total} operators in {partial.partitions} pieces; not {names}"
    for command in (["inspect", "--delegate", "partial"], ["explain", "--exclude", "xnnpack"]):
        shown = CliRunner().invoke(main, [command[0], str(digits), *command[1:]], catch_exceptions=False)
        assert shown.exit_code == 0, shown.output
        assert text in " ".join(shown.output.split())
    shown = CliRunner().invoke(main, ["inspect", str(digits), "--delegate", "partial", "--json"])
    (found,) = json.loads(shown.stdout)["coverage"]
    assert Coverage.from_dict(found["coverage"]) == partial
    assert found["title"].startswith("partial on fault:0")


def test_inspect_says_why_a_delegate_takes_nothing(digits: Path) -> None:
    shown = CliRunner().invoke(main, ["inspect", str(digits), "--delegate", "edgetpu"])
    assert shown.exit_code == 3
    assert "no such device on this machine" in " ".join(shown.output.split())
    assert CliRunner().invoke(main, ["inspect", str(digits), "--device", "npu"]).exit_code == 2


def test_nothing_taken_is_an_error_of_the_delegate() -> None:
    Coverage(1, 8, 1).require_some("acme", "m.tflite")
    with pytest.raises(DelegateError, match=r"^acme took none of the 8 operators of m.tflite$"):
        Coverage(0, 8, 0).require_some("acme", "m.tflite")

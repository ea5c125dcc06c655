"""Variables that say what may be used: honoured by runners and the probe, and told where they are wrong."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from tflite_hal import DelegateError, Outcome, Runner, TfliteHalWarning
from tflite_hal.cli import main
from tflite_hal.errors import ProfileError
from tflite_hal.host import probe_host
from tflite_hal.manager import Manager
from tflite_hal.profiles import chosen_profile

EXAMPLE = (Path(__file__).parent / "example_plugin" / "tflite_hal_acme.py").read_text()
HOSTS = Path(__file__).parent / "hosts"


def call(*arguments: object, status: int = 0) -> Result:
    result = CliRunner(env={"COLUMNS": "200"}).invoke(main, [str(one) for one in arguments])
    assert result.exit_code == status, (result.output, result.exception)
    return result


def probed(*arguments: object) -> dict:
    return json.loads(call("probe", "--json", *arguments).stdout)


# The device profile


def test_the_profile_of_the_variable_is_in_force(monkeypatch, digits: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    own = (Path(__file__).parents[1] / "device_profiles" / "raspberry-pi-5.yaml").read_text()
    mine.write_text(own.replace("name: raspberry-pi-5", "name: mine"))
    mine.chmod(0o600)
    for named, name in (("raspberry-pi-5", "raspberry-pi-5"), (str(mine), "mine")):
        monkeypatch.setenv("TFLITE_HAL_PROFILE", named)
        with Runner.auto(digits, prefer="order") as runner:
            assert runner.selection.profile == name
        assert probed()["profile"] == name
        assert "named by TFLITE_HAL_PROFILE" in call("probe").stdout
        assert json.loads(call("profiles", "match", "--json").stdout)["in_force"] == name
    with Runner.auto(digits, prefer="order", profile="coral-usb") as runner:  # the argument goes first
        assert runner.selection.profile == "coral-usb"


def test_a_profile_that_there_is_not_is_told_with_the_variable(monkeypatch, digits: Path) -> None:
    monkeypatch.setenv("TFLITE_HAL_PROFILE", "raspberry-pi-55")
    said = r"TFLITE_HAL_PROFILE: no device profile 'raspberry-pi-55' .*raspberry-pi-5"
    with pytest.raises(ProfileError, match=said):
        Runner.auto(digits)
    found = probed("--root", HOSTS / "raspberry-pi-5-coral-usb")
    assert found["profile"] == "raspberry-pi-5"  # what matches
    (error,) = found["settings_errors"]
    assert error.startswith("TFLITE_HAL_PROFILE: no device profile 'raspberry-pi-55'")
    assert "TFLITE_HAL_PROFILE: no device profile" in call("probe").stdout
    monkeypatch.setenv("TFLITE_HAL_PROFILE", "/absent/x.yaml")
    with pytest.raises(ProfileError, match=r"TFLITE_HAL_PROFILE: .*/absent/x\.yaml"):
        chosen_profile(None, probe_host("/"))


# The delegates


@pytest.mark.filterwarnings("error::tflite_hal.TfliteHalWarning")
def test_only_the_delegates_of_the_variable_are_used_in_its_order(install, monkeypatch, digits) -> None:
    install("acme", EXAMPLE)
    monkeypatch.setenv("TFLITE_HAL_DELEGATES", "hexagon, acme")
    with Runner.auto(digits, prefer="order") as runner:
        assert runner.delegate == "acme"
    monkeypatch.setenv("TFLITE_HAL_DELEGATES", "xnnpack")
    with Runner.auto(digits) as runner:
        assert runner.delegate in ("xnnpack", "builtin")
        (acme,) = [one for one in runner.selection.attempts if one.delegate == "acme"]
        assert (acme.outcome, acme.reason) == (Outcome.EXCLUDED, "not in TFLITE_HAL_DELEGATES=['xnnpack']")
    with Runner.auto(digits, delegates=["acme"], prefer="order") as runner:  # the argument goes first
        assert runner.delegate == "acme"
    with Runner(digits, delegate="acme") as runner:  # it is for automatic choice
        assert runner.delegate == "acme"
    found = {one["delegate"]: one for one in probed()["findings"]}
    assert found["xnnpack"]["state"] == "runs"
    assert found["acme"]["steps"][-1]["text"] == "not run: not in TFLITE_HAL_DELEGATES=['xnnpack']"


def test_a_delegate_that_there_is_not_is_told_with_the_variable(monkeypatch, digits: Path) -> None:
    monkeypatch.setenv("TFLITE_HAL_DELEGATES", "xnpack")
    said = r"TFLITE_HAL_DELEGATES: no delegate 'xnpack' .*did you mean 'xnnpack'\?"
    with pytest.raises(DelegateError, match=said):
        Runner.auto(digits)
    (error,) = probed()["settings_errors"]
    assert error.startswith("TFLITE_HAL_DELEGATES: no delegate 'xnpack': did you mean 'xnnpack'?")
    monkeypatch.setenv("TFLITE_HAL_DELEGATES", " , ")  # nothing is named
    assert probed()["settings_errors"] == []


# Names that rule nothing out


def test_a_plugin_to_be_disabled_that_there_is_not_is_told(monkeypatch, digits: Path) -> None:
    monkeypatch.setenv("TFLITE_HAL_DISABLED_PLUGINS", "openvino, hexagn")
    said = "TFLITE_HAL_DISABLED_PLUGINS has 'hexagn', which is no plugin: did you mean 'hexagon'?"
    assert Manager().remarks == [said]
    assert probed()["settings_errors"] == [said]
    with pytest.warns(TfliteHalWarning, match="did you mean 'hexagon'"), Runner.auto(digits):
        pass


def test_an_exclusion_that_excludes_nothing_is_told(digits: Path, recwarn) -> None:
    with Runner.auto(digits, exclude=["xnpack", "gpu", "usb:3", "openvino", "npu"]) as runner:
        told = [event.message for event in runner.events if event.kind == "setting"]
    said = "exclude= has 'xnpack', which is no delegate, device or kind here: did you mean 'xnnpack'?"
    assert told == [said]
    assert [str(one.message) for one in recwarn.list] == [said]
    with Runner.auto(digits, exclude=["xnnpack"]) as runner:
        assert not [event for event in runner.events if event.kind == "setting"]


# Broken plugins


def test_broken_plugins_are_one_warning_and_none_where_another_is_named(install, digits, recwarn) -> None:
    install("one", "raise ImportError('no SDK')")
    install("two", "raise ImportError('no chip')")
    with Runner.auto(digits) as runner:
        (event,) = [event for event in runner.events if event.kind == "plugin"]
    assert "plugin one: " in event.message and "no chip" in event.message
    assert len([one for one in recwarn.list if "no SDK" in str(one.message)]) == 1
    recwarn.clear()
    with Runner(digits, delegate="xnnpack") as runner:
        assert [event for event in runner.events if event.kind == "plugin"]
    assert [str(one.message) for one in recwarn.list] == []


# What a captured machine does not tell


def test_a_machine_that_tells_nothing_has_no_device_and_no_absent_one() -> None:
    found = probed("--root", HOSTS / "empty")
    (one,) = found["findings"]
    assert (one["delegate"], one["kind"], one["state"]) == ("xnnpack", "cpu", "blocked")
    assert one["problem"]["evidence"] == "nothing here tells of the processor"
    text = call("probe", "--root", HOSTS / "empty").stdout
    assert "no such device here" not in text
    assert "unknown: nothing here tells of devices" in text
    assert "cpu (cpu)" not in text
    assert "no such device here" in call("probe", "--root", HOSTS / "x86-coral-pcie").stdout


# JSON of the other commands


def test_run_as_json_has_the_labels(digits: Path) -> None:
    examples = digits.parent
    arguments = ("--input", examples / "digit_7.png", "--mean", 0, "--std", 255)
    labels = ("--labels", examples / "digits_labels.txt")
    done = json.loads(call("run", digits, *arguments, *labels, "--top", 2, "--json").stdout)
    ((first, second),) = done["classes"][0].values()
    assert first["label"] == "7"
    assert first["score"] == pytest.approx(np.max(done["outputs"][0]))
    assert first["score"] >= second["score"]
    done = json.loads(call("run", digits, *arguments, "--json").stdout)
    assert len(done["classes"][0][""]) == 5


def test_forgetting_verdicts_as_json(digits: Path) -> None:
    with Runner.auto(digits):
        pass
    listed = json.loads(call("verdicts", "list", "--json").stdout)
    done = json.loads(call("verdicts", "forget", "--all", "--json").stdout)
    assert done["forgotten"] >= len(listed) > 0


# The same thing said twice


def test_configurations_of_one_device_that_go_wrong_are_told_apart(install, digits: Path, recwarn) -> None:
    source = """
from tflite_hal import Configuration, hookimpl
from tflite_hal.testing import PythonFaultDelegate

class Acme(PythonFaultDelegate):
    name = "acme"
    def configurations(self, model, device, profile):
        return [Configuration({"fault": "wrong", "at": at}) for at in (20, 21)]

@hookimpl
def tflite_hal_register_delegates():
    return [Acme]
"""
    install("acme", source)
    with Runner.auto(digits, delegates=["acme"], exclude=["cpu"], recheck=1, prefer="order") as runner:
        given = np.ones((1, 8, 8, 1), np.int8)
        with pytest.raises(DelegateError, match="nothing else can be opened"):
            for _ in range(50):
                runner.predict(given)
        first, last = [one for one in runner.events if "answers wrongly" in one.message]
    assert "acme on fault:0 (fault=wrong at=20" in first.message
    assert "acme on fault:0 (fault=wrong at=21" in first.message.partition(";")[2]
    assert (first.kind, last.kind) == ("fallback", "failure")
    assert "at=21" in last.message and "nothing else can be opened" in last.message

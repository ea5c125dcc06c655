"""Every real model answers as the raw interpreter does with the same kernels, or ends in one clear error."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tflite_hal import DelegateError, Runner, TfliteHalWarning
from tflite_hal.runtime import load_runtime
from tflite_hal.trial import seeded_inputs

RUNNING = [
    "ad01_fp32.tflite",
    "ad01_int8.tflite",
    "keras_lstm_mnist_ptq.tflite",
    "kws_ref_model.tflite",
    "kws_ref_model_float32.tflite",
    "mobilenet_v1_0.25_128_quant.tflite",
    "pretrainedResnet.tflite",
    "pretrainedResnet_quant.tflite",
    "str_ww_ref_model.tflite",
    "vww_96_float.tflite",
    "vww_96_int8.tflite",
]
FOR_THE_EDGE_TPU = [
    "keras_lstm_mnist_ptq_edgetpu.tflite",
    "mobilenet_v1_0.25_128_quant_edgetpu.tflite",
]


def raw_session(runner: Runner, path: Path):
    """Open the raw interpreter with the kernels and threads the runner chose."""
    candidate = runner._life.active.opened.candidate
    delegates = []
    if runner.delegate == "xnnpack" and runner.runtime.name == "tflite_runtime":
        from tflite_hal_xnnpack import _Native

        delegates = [_Native(runner.runtime.library, candidate.configuration.threads)]
    interpreter = runner.runtime.interpreter(
        str(path),
        threads=candidate.configuration.threads,
        delegates=delegates,
        default_delegates=runner.delegate != "builtin",
    )
    interpreter.allocate_tensors()
    return interpreter, delegates


def raw_answer(interpreter, inputs) -> list[np.ndarray]:
    for detail, array in zip(interpreter.get_input_details(), inputs, strict=True):
        interpreter.set_tensor(detail["index"], array)
    interpreter.invoke()
    return [interpreter.get_tensor(detail["index"]) for detail in interpreter.get_output_details()]


@pytest.mark.engine("XNNPACK and the built-in kernels")
@pytest.mark.parametrize("choice", ["auto", "builtin"])
@pytest.mark.parametrize("name", RUNNING)
def test_bit_equal_to_the_raw_interpreter(models: Path, runtime_name: str, name: str, choice: str) -> None:
    path = models / name
    explicit = {"delegate": "builtin"} if choice == "builtin" else {}
    make = Runner if explicit else Runner.auto
    with make(path, runtime=runtime_name, **explicit) as runner:
        interpreter, delegates = raw_session(runner, path)
        for seed in range(3):
            inputs = seeded_inputs(runner.inputs, seed)
            result = runner.predict(inputs)
            given = list(result.values()) if isinstance(result, dict) else [result]
            for own, right in zip(given, raw_answer(interpreter, inputs), strict=True):
                assert own.dtype == right.dtype
                assert np.array_equal(own, right)
        del interpreter, delegates


@pytest.mark.parametrize("name", FOR_THE_EDGE_TPU)
def test_a_model_for_the_edge_tpu_names_it(models: Path, runtime_name: str, name: str) -> None:
    with pytest.raises(DelegateError, match=r"custom operator 'edgetpu-custom-op'.*an Edge TPU"):
        Runner.auto(models / name, runtime=runtime_name, variants=False)


@pytest.mark.parametrize("name", FOR_THE_EDGE_TPU)
def test_a_model_for_the_edge_tpu_runs_as_its_plain_form(models: Path, runtime_name: str, name: str) -> None:
    plain = name.replace("_edgetpu", "")
    with pytest.warns(TfliteHalWarning, match=f"runs {plain}, which is beside {name}"):
        runner = Runner.auto(models / name, runtime=runtime_name)
    with runner, Runner.auto(models / plain, runtime=runtime_name) as other:
        inputs = seeded_inputs(runner.inputs)
        np.testing.assert_array_equal(runner.predict(inputs), other.predict(inputs))


def test_an_unknown_custom_operator_is_named(models: Path, runtime_name: str) -> None:
    with pytest.raises(DelegateError, match="custom operator 'fake-op-double'"):
        Runner.auto(models / "model_invoking_error.tflite", runtime=runtime_name)


def test_a_stateful_model_starts_anew_after_reset(models: Path, runtime_name: str) -> None:
    array = np.asarray(Image.open(models / "mnist_nine.bmp"))[None] // 2
    with Runner.auto(models / "keras_lstm_mnist_ptq.tflite", runtime=runtime_name) as runner:
        first = runner.predict(array)
        second = runner.predict(array)
        assert not np.array_equal(first, second)
        for _ in range(3):
            runner.reset()
            assert np.array_equal(runner.predict(array), first)


def test_a_dynamic_batch_resizes(models: Path, runtime_name: str) -> None:
    images = np.random.default_rng(0).standard_normal((5, 32, 32, 3)).astype(np.float32)
    with Runner.auto(models / "pretrainedResnet.tflite", runtime=runtime_name) as runner:
        together = runner.predict(images)
        assert together.shape == (5, 10)
        for one, row in zip(images, together, strict=True):
            assert np.allclose(runner.predict(one[None])[0], row, atol=1e-5)
        assert np.array_equal(runner.predict(images), together)


def test_8_bit_models_reach_xnnpack_on_the_older_runtime(models: Path) -> None:
    if "tflite_runtime" not in {s.name for s in usable()}:
        pytest.skip("tflite_runtime is not usable here")
    if load_runtime("tflite_runtime").version != "2.14.0":
        pytest.skip("its XNNPACK is reached by the C API of 2.14.0 exactly")
    with Runner.auto(models / "vww_96_int8.tflite", runtime="tflite_runtime") as runner:
        assert runner.selection.winner.coverage.taken >= 29


def usable():
    from tflite_hal.runtime import runtime_statuses

    return [status for status in runtime_statuses() if status.state == "usable"]

"""What is read from a model's file, against what the runtimes say of it, and from damaged files."""

from __future__ import annotations

import hashlib
import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import flatbuffers
import numpy as np
import pytest
import tflite
from handmade import ADD, CUSTOM, build, numbers, operator_code, vector
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tflite_hal import Check, NoDelegateError, Runner
from tflite_hal.errors import InputError, ModelError
from tflite_hal.model import Model, Operator, TensorSpec, read_model
from tflite_hal.runtime import load_runtime, runtime_statuses

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.tflite"))
SMALL = (ROOT / "examples" / "digits_int8.tflite").read_bytes()
REAL = (
    "ad01_fp32.tflite",
    "ad01_int8.tflite",
    "keras_lstm_mnist_ptq.tflite",
    "keras_lstm_mnist_ptq_edgetpu.tflite",
    "kws_ref_model.tflite",
    "kws_ref_model_float32.tflite",
    "mobilenet_v1_0.25_128_quant.tflite",
    "mobilenet_v1_0.25_128_quant_edgetpu.tflite",
    "model_invoking_error.tflite",
    "pretrainedResnet.tflite",
    "pretrainedResnet_quant.tflite",
    "str_ww_ref_model.tflite",
    "vww_96_float.tflite",
    "vww_96_int8.tflite",
)


def overlapping(what: str, times: int) -> bytes:
    """Return a small model whose vectors name one table ``times`` times, at two levels."""
    builder = flatbuffers.Builder()
    name = builder.CreateString("n" * (40_000 if what == "names" else 1))
    many = numbers(builder, [0] * times)
    tflite.TensorStart(builder)
    tflite.TensorAddName(builder, name)
    tflite.TensorAddShape(builder, many)
    tensors = [tflite.TensorEnd(builder)] * times
    listed = vector(builder, tflite.SubGraphStartTensorsVector, tensors)
    tflite.OperatorStart(builder)
    tflite.OperatorAddInputs(builder, many)
    operators = [tflite.OperatorEnd(builder)] * (times if what == "operators" else 1)
    run = vector(builder, tflite.SubGraphStartOperatorsVector, operators)
    tflite.SubGraphStart(builder)
    tflite.SubGraphAddTensors(builder, listed)
    tflite.SubGraphAddOperators(builder, run)
    if what in ("shapes", "names"):
        tflite.SubGraphAddInputs(builder, many)
    graphs = [tflite.SubGraphEnd(builder)] * (times if what == "subgraphs" else 1)
    subgraphs = vector(builder, tflite.ModelStartSubgraphsVector, graphs)
    codes = vector(builder, tflite.ModelStartOperatorCodesVector, [operator_code(builder, ADD, None)])
    tflite.ModelStart(builder)
    tflite.ModelAddSubgraphs(builder, subgraphs)
    tflite.ModelAddOperatorCodes(builder, codes)
    builder.Finish(tflite.ModelEnd(builder), b"TFL3")
    return bytes(builder.Output())


@pytest.mark.parametrize("what", ["subgraphs", "operators", "shapes", "names"])
def test_a_small_file_cannot_stand_for_endless_structure(what: str) -> None:
    content = overlapping(what, 2000)
    assert len(content) < 100_000
    with pytest.raises(ModelError, match=r"its vectors overlap: too much structure for \d+ bytes"):
        read_model(content)
    assert len(read_model(overlapping(what, 20)).info.types) == 1  # sharing as such is no damage


# Against the runtimes


def assert_same(specs: Sequence[TensorSpec], details: Sequence[dict]) -> None:
    """Compare with what ``get_input_details`` or ``get_output_details`` gives."""
    assert len(specs) == len(details)
    for spec, detail in zip(specs, details, strict=True):
        assert spec.name == detail["name"]
        assert spec.tensor_index == detail["index"]
        assert spec.static_shape == tuple(detail["shape"])
        assert spec.shape == tuple(detail["shape_signature"])
        assert spec.dtype == detail["dtype"]
        assert spec.type == np.dtype(detail["dtype"]).name
        parameters = detail["quantization_parameters"]
        if not len(parameters["scales"]):
            assert spec.quantization is None
            assert not spec.quantized
        else:
            assert spec.quantized
            assert spec.quantization.scales == tuple(parameters["scales"].tolist())
            assert spec.quantization.zero_points == tuple(parameters["zero_points"].tolist())
            assert spec.quantization.axis == parameters["quantized_dimension"]


def assert_as_the_runtime_says(path: Path, runtime_name: str) -> None:
    model = read_model(path)
    interpreter = load_runtime(runtime_name).interpreter(str(path))
    assert_same(model.info.inputs, interpreter.get_input_details())
    assert_same(model.info.outputs, interpreter.get_output_details())
    signatures = {
        one.key: {"inputs": list(one.input_names), "outputs": list(one.output_names)}
        for one in model.info.signatures
    }
    theirs = interpreter.get_signature_list()
    assert sorted(signatures) == sorted(theirs)
    for key, names in theirs.items():
        assert sorted(signatures[key]["inputs"]) == sorted(names["inputs"])
        assert sorted(signatures[key]["outputs"]) == sorted(names["outputs"])
    ours = {operator.name: operator.occurrences for operator in model.info.operators}
    assert sum(ours.values()) == len(interpreter._get_ops_details())


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples_are_as_the_runtime_says(path: Path, runtime_name: str) -> None:
    assert_as_the_runtime_says(path, runtime_name)


@pytest.mark.parametrize("name", REAL)
def test_real_models_are_as_the_runtime_says(models: Path, runtime_name: str, name: str) -> None:
    assert_as_the_runtime_says(models / name, runtime_name)


def test_no_real_model_is_left_out(models: Path) -> None:
    assert tuple(sorted(path.name for path in models.glob("*.tflite"))) == REAL


@pytest.mark.parametrize("name", REAL)
def test_hash_and_size_are_the_files(models: Path, name: str) -> None:
    path = models / name
    content, info = path.read_bytes(), read_model(path).info
    assert (info.size, info.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert 0 <= info.parameters_bytes < info.size
    assert info == read_model(content).info


@pytest.mark.parametrize(
    ("name", "count", "most"),
    [
        ("mobilenet_v1_0.25_128_quant.tflite", 31, ("CONV_2D", 15)),
        ("vww_96_int8.tflite", 31, ("CONV_2D", 14)),
        ("ad01_fp32.tflite", 10, ("FULLY_CONNECTED", 10)),
        ("pretrainedResnet.tflite", 16, ("CONV_2D", 9)),
    ],
)
def test_operators_are_counted_most_frequent_first(models: Path, name: str, count: int, most) -> None:
    operators = read_model(models / name).info.operators
    assert sum(operator.occurrences for operator in operators) == count
    assert operators[0][:2] == most
    assert list(operators) == sorted(operators, key=lambda one: (-one.occurrences, one.name))
    assert not any(operator.custom for operator in operators)


@pytest.mark.parametrize(
    ("name", "precision"),
    [
        ("ad01_fp32.tflite", "float32"),
        ("ad01_int8.tflite", "int8"),
        ("mobilenet_v1_0.25_128_quant.tflite", "uint8"),
        ("kws_ref_model_float32.tflite", "hybrid"),
        ("keras_lstm_mnist_ptq.tflite", "int8"),  # its state and intermediate tensors are int16
    ],
)
def test_precision_of_real_models(models: Path, name: str, precision: str) -> None:
    assert read_model(models / name).info.precision == precision


def test_a_stateful_model_says_why(models: Path) -> None:
    info = read_model(models / "keras_lstm_mnist_ptq.tflite").info
    assert info.stateful == "variable tensors (tfl.pseudo_qconst, tfl.pseudo_qconst1)"
    stateful = [name for name in REAL if read_model(models / name).info.stateful]
    assert stateful == ["keras_lstm_mnist_ptq.tflite", "keras_lstm_mnist_ptq_edgetpu.tflite"]


def test_dynamic_models_are_those_with_a_size_of_any(models: Path) -> None:
    assert read_model(models / "pretrainedResnet.tflite").info.dynamic
    assert not read_model(models / "mobilenet_v1_0.25_128_quant.tflite").info.dynamic


def test_an_unknown_custom_operator_is_needed_by_name(models: Path) -> None:
    (need,) = read_model(models / "model_invoking_error.tflite").info.needs()
    assert need.startswith("fake-op-double: ")


@pytest.mark.parametrize("name", [name for name in REAL if "edgetpu" in name])
def test_models_for_the_edge_tpu_name_it(models: Path, name: str) -> None:
    info = read_model(models / name).info
    assert info.custom == ("edgetpu-custom-op",)
    assert [need for need in info.needs() if "Edge TPU" in need]


def test_real_models_that_run_need_nothing(models: Path) -> None:
    for name in REAL:
        if "edgetpu" not in name and "error" not in name:
            assert read_model(models / name).info.needs() == ()


# Models made here


def test_a_model_of_one_add(runtime_name: str) -> None:
    content = build()
    model = read_model(content)
    info = model.info
    assert [spec.name for spec in info.inputs] == ["x", "w"]
    assert [(spec.shape, spec.type) for spec in info.outputs] == [((1, 4), "float32")]
    assert info.operators == (Operator("ADD", 1, False, 1),)
    assert (info.subgraphs, info.version, info.description) == (1, 3, "made by a test")
    assert (info.types, info.precision, info.stateful) == (("float32",), "float32", "")
    assert (info.needs(), info.signatures, info.parameters_bytes) == ((), (), 0)
    assert (model.path, model.name, model.data, repr(model)) == (None, "<bytes>", content, "<Model <bytes>>")
    interpreter = load_runtime(runtime_name).interpreter(content)  # the builder makes a real model
    interpreter.allocate_tensors()
    assert_same(info.inputs, interpreter.get_input_details())
    for position, value in enumerate((1.5, 2.0)):
        interpreter.set_tensor(position, np.full((1, 4), value, np.float32))
    interpreter.invoke()
    assert interpreter.get_tensor(2).tolist() == [[3.5] * 4]


@pytest.mark.parametrize(
    ("custom", "provider"),
    [
        ("my-op", "a runtime or delegate that registers this custom operator"),
        ("edgetpu-custom-op", "an Edge TPU"),
        ("ethos-u", "an Arm Ethos-U"),
        ("FlexAddV2", "the Flex delegate"),
    ],
)
def test_a_custom_operator_is_named_with_who_runs_it(custom: str, provider: str) -> None:
    info = read_model(build(code=CUSTOM, custom=custom)).info
    assert info.operators == (Operator(custom, 1, True, 1),)
    (need,) = info.needs()
    assert need.startswith(f"{custom}: {provider}")
    assert info.flex == ((custom,) if custom.startswith("Flex") else ())


def test_custom_operators_of_the_runtimes_or_without_a_name() -> None:
    known = read_model(build(code=CUSTOM, custom="TFLite_Detection_PostProcess")).info
    assert (known.custom, known.needs()) == (("TFLite_Detection_PostProcess",), ())
    assert read_model(build(code=CUSTOM)).info.custom == ("(custom operator without name)",)


def test_a_name_that_is_not_utf_8_is_shown_escaped() -> None:
    info = read_model(build(name=b"caf\xe9 \xff")).info
    assert info.inputs[1].name == r"caf\xe9 \xff"
    assert read_model(build(name="größe")).info.inputs[1].name == "größe"


def test_an_unknown_tensor_type_is_shown_not_refused() -> None:
    info = read_model(build(kind=99)).info
    assert info.types == ("type_99",)
    assert (info.inputs[0].type, info.inputs[0].dtype) == ("type_99", np.dtype(object))
    assert info.precision == "other"
    text = read_model(build(kind=tflite.TensorType.STRING)).info.inputs[0]
    assert (text.type, text.dtype) == ("string", np.dtype(object))


@pytest.mark.parametrize(("code", "name"), [(9999, "OPERATOR_9999"), (126, "OPERATOR_126"), (127, None)])
def test_operator_codes_beyond_the_older_field(code: int, name: str | None) -> None:
    # 127 in the older field stands for "see the newer one": each code must come from the right field.
    names = {value: key for key, value in vars(tflite.BuiltinOperator).items() if isinstance(value, int)}
    expected = names.get(code, name)
    info = read_model(build(code=code)).info
    assert [(operator.name, operator.custom) for operator in info.operators] == [(expected, False)]
    assert info.needs() == ()


def test_every_known_operator_has_its_name() -> None:
    names = {value: key for key, value in vars(tflite.BuiltinOperator).items() if isinstance(value, int)}
    assert len(names) > 150
    for code, name in names.items():
        if code != CUSTOM:
            assert read_model(build(code=code)).info.operators[0].name == name


def test_variable_tensors_make_a_model_stateful() -> None:
    assert read_model(build(variable=True)).info.stateful == "variable tensors (x, w, y)"
    resource = read_model(build(code=tflite.BuiltinOperator.READ_VARIABLE)).info
    assert resource.stateful == "resource variables (READ_VARIABLE)"


def test_sizes_that_may_be_any() -> None:
    info = read_model(build(signature=(-1, 4))).info
    assert (info.inputs[0].shape, info.inputs[0].static_shape, info.dynamic) == ((-1, 4), (1, 4), True)
    # A signature of another rank says nothing about this shape.
    assert read_model(build(signature=(-1,))).info.inputs[0].shape == (1, 4)


def test_scalars_have_no_shape() -> None:
    info = read_model(build(shape=())).info
    assert (info.inputs[0].shape, info.dynamic) == ((), False)


def test_no_subgraph_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "empty.tflite"
    path.write_bytes(build(subgraphs=0))
    with pytest.raises(ModelError, match=r"empty\.tflite.*no subgraph"):
        read_model(path)


def test_all_subgraphs_are_counted() -> None:
    info = read_model(build(subgraphs=3)).info
    assert (info.subgraphs, info.operators) == (3, (Operator("ADD", 3, False, 1),))


def test_a_description_as_json_has_its_parts() -> None:
    info = read_model(build(kind=99, code=CUSTOM, custom="my-op", signatures=[("go", 0)])).info
    found = json.loads(json.dumps(info.to_dict()))
    assert found["inputs"][0] == {
        "name": "x",
        "tensor_index": 0,
        "shape": [1, 4],
        "type": "type_99",
        "quantization": None,
    }
    assert found["signatures"] == [
        {"key": "go", "inputs": ["go_a", "go_b"], "outputs": ["go_sum"], "subgraph": 0}
    ]
    assert found["operators"] == [{"name": "my-op", "occurrences": 1, "custom": True, "version": 1}]
    assert (found["size"], found["sha256"], found["dynamic"]) == (info.size, info.sha256, False)
    assert found["needs"] == list(info.needs())


# Signatures


def test_the_interface_without_a_signature(digits: Path) -> None:
    info = read_model(digits).info
    interface = info.interface(None, "m.tflite")
    assert interface.inputs == info.inputs
    assert interface.input_names == ("serving_default_image:0",)
    assert interface.aliases == {"image": "serving_default_image:0"}


def test_the_interface_of_a_signature(digits: Path) -> None:
    info = read_model(digits).info
    interface = info.interface("serving_default", "m.tflite")
    assert (interface.input_names, interface.output_names) == (("image",), ("output_0",))
    assert (interface.inputs, interface.outputs) == (info.inputs, info.outputs)
    assert interface.aliases == {}


def test_an_unknown_signature_is_refused_with_those_there_are(digits: Path) -> None:
    with pytest.raises(InputError, match=r"m\.tflite has no signature 'nope'.*'serving_default'"):
        read_model(digits).info.interface("nope", "m.tflite")
    with pytest.raises(InputError, match="it has: none"):
        read_model(build()).info.interface("serving_default", "m.tflite")


def test_aliases_come_from_the_only_signature_of_the_main_subgraph() -> None:
    one = read_model(build(subgraphs=2, signatures=[("go", 0), ("other", 1)])).info
    assert one.interface(None, "m").aliases == {"go_a": "x", "go_b": "w"}
    assert one.interface("other", "m").input_names == ("other_a", "other_b")
    two = read_model(build(signatures=[("go", 0), ("again", 0)])).info
    assert [signature.key for signature in two.signatures] == ["go", "again"]
    assert two.interface(None, "m").aliases == {}


def test_a_damaged_signature_does_not_refuse_the_model() -> None:
    info = read_model(build(signatures=[("go", 0), ("lost", 7)])).info
    assert [signature.key for signature in info.signatures] == ["go"]


# Mistakes


def test_a_folder_is_no_model_and_a_saved_model_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="the path of the model is empty"):
        read_model("")
    with pytest.raises(ModelError, match="Is a directory") as caught:
        read_model(tmp_path)
    assert caught.value.remedy == ""
    (tmp_path / "saved_model.pb").write_bytes(b"")
    with pytest.raises(ModelError, match=r"Is a directory.*it is a SavedModel: convert it"):
        read_model(tmp_path)


@pytest.mark.skipif(not Path(os.devnull).is_char_device(), reason="no such device here")
def test_a_device_is_not_read() -> None:
    with pytest.raises(ModelError, match="it is no regular file"):
        read_model(os.devnull)


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"", "0 bytes"),
        (b"TFL3", "TFL3"),
        (b"\0" * 100, "not a .tflite file"),
        (b"<!DOCTYPE html><html></html>", "an HTML page"),
        (b"\n  <html><body>404</body></html>", "an HTML page"),
        (b"<!doctype html><html lang=en>", "an HTML page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 3\n", "Git LFS pointer"),
        (b"PK\x03\x04" + b"\0" * 40, "a zip archive"),
        (b"\x1f\x8b\x08\0\0\0\0\0\0\0", "a gzip archive"),
        (b"\x89HDF\r\n\x1a\n\0\0", "HDF5"),
    ],
    ids=["empty", "short", "zeros", "html", "html-space", "html-lower", "lfs", "zip", "gzip", "hdf5"],
)
def test_what_is_no_model_is_named_for_what_it_is(tmp_path: Path, content: bytes, part: str) -> None:
    path = tmp_path / "mistake.tflite"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=part) as caught:
        read_model(path)
    assert str(path) in str(caught.value)
    with pytest.raises(ModelError, match="<bytes>"):
        read_model(content)


def test_missing_files_and_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"absent\.tflite: No such file"):
        read_model(tmp_path / "absent.tflite")
    with pytest.raises(ModelError, match="Is a directory") as caught:
        read_model(str(tmp_path))
    assert str(tmp_path) in str(caught.value)
    with pytest.raises(ModelError, match="null"):
        read_model("a\0b")
    for thing in (None, 7, ["m.tflite"]):
        with pytest.raises(ModelError, match=f"not {type(thing).__name__}"):
            read_model(thing)


def test_paths_bytes_and_models_are_taken(digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = read_model(str(digits))
    assert read_model(model) is model
    assert (model.path, model.name, model.data) == (str(digits), digits.name, SMALL)
    monkeypatch.chdir(digits.parent)
    assert read_model(digits.name).path == str(digits)
    for content in (SMALL, bytearray(SMALL), memoryview(SMALL)):
        assert read_model(content).info == model.info


def test_a_file_that_vanished_is_a_model_error(tmp_path: Path) -> None:
    path = tmp_path / "going.tflite"
    path.write_bytes(SMALL)
    model = read_model(path)
    path.unlink()
    with pytest.raises(ModelError, match=r"going\.tflite"):
        assert model.data


# Damage


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_truncated_files_are_refused_by_name(tmp_path: Path, path: Path) -> None:
    content, target = path.read_bytes(), tmp_path / "cut.tflite"
    for length in (*range(64), *range(64, len(content), 97), len(content) - 1):
        target.write_bytes(content[:length])
        with pytest.raises(ModelError) as caught:
            read_model(target)
        assert str(target) in str(caught.value)


def model_or_model_error(content: bytes) -> None:
    """Read it: anything but a Model or a ModelError comes out as it is."""
    try:
        model = read_model(content)
    except ModelError as error:
        assert "<bytes>" in str(error)
        return
    assert isinstance(model, Model)
    assert model.info.to_dict()["size"] == len(content)
    assert len(model.info.interface(None, "m").inputs) == len(model.info.inputs)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.tuples(st.integers(0, len(SMALL) - 1), st.binary(min_size=1, max_size=8)), min_size=1, max_size=6
    )
)
def test_overwritten_bytes_give_a_model_or_a_model_error(patches: list[tuple[int, bytes]]) -> None:
    content = bytearray(SMALL)
    for place, patch in patches:
        content[place : place + len(patch)] = patch
    model_or_model_error(bytes(content[: len(SMALL)]))


@settings(max_examples=150, deadline=None)
@given(st.integers(0, len(SMALL)), st.integers(0, 2047), st.binary(min_size=0, max_size=4))
def test_truncation_with_damage_gives_a_model_or_a_model_error(length: int, place: int, patch: bytes) -> None:
    content = bytearray(SMALL[:length])
    content[place : place + len(patch)] = patch
    model_or_model_error(bytes(content[:length]))


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=400))
def test_noise_behind_the_identifier_gives_a_model_or_a_model_error(noise: bytes) -> None:
    model_or_model_error(b"\x10\0\0\0TFL3" + noise)


# Agreement with a runtime that verifies what it loads


def test_a_size_that_no_runtime_reads_refuses_nothing(runtime_name: str) -> None:
    content = bytearray(build())
    table = tflite.Model.GetRootAs(bytes(content)).Buffers(0)._tab
    (back,) = struct.unpack_from("<i", content, table.Pos)
    # A vtable holds its own size, then the size of the table: the verifier leaves the second alone.
    struct.pack_into("<H", content, table.Pos - back + 2, 0xFFFF)
    load_runtime(runtime_name).interpreter(bytes(content)).allocate_tensors()
    assert read_model(bytes(content)).info.inputs == read_model(build()).info.inputs


RAW = """
import sys
from pathlib import Path
from ai_edge_litert.interpreter import Interpreter
for path in sorted(Path(sys.argv[1]).glob("*.tflite")):
    try:
        interpreter = Interpreter(model_path=str(path))
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError, TypeError):
        continue
    print("accepted", path.stem, flush=True)
print("done", flush=True)
"""
MUTANTS = 150


def mutants(content: bytes) -> Iterator[bytes]:
    """Yield copies with 1 to 8 bytes overwritten anywhere, near the start or the end, or cut off."""
    places = ((0, len(content)), (0, 2048), (len(content) * 4 // 5, len(content)), None)
    for number in range(MUTANTS):
        random, data = np.random.default_rng(number), bytearray(content)
        where = places[number % len(places)]
        if where is None:
            del data[int(random.integers(0, len(data))) :]
        else:
            for place in random.integers(*where, int(random.integers(1, 9))):
                data[place] = int(random.integers(256))
        yield bytes(data)


def test_whatever_a_verifying_runtime_loads_is_read(digits_float: Path, tmp_path: Path) -> None:
    if "ai_edge_litert" not in {one.name for one in runtime_statuses() if one.state == "usable"}:
        pytest.skip("ai-edge-litert, the runtime that verifies what it loads, is not usable here")
    for number, content in enumerate(mutants(digits_float.read_bytes())):
        (tmp_path / f"{number:03}.tflite").write_bytes(content)
    done = subprocess.run(
        [sys.executable, "-c", RAW, str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        timeout=120,
        check=False,
    )
    lines = done.stdout.splitlines()
    assert (done.returncode, lines[-1]) == (0, "done")
    accepted = [line.split()[1] for line in lines if line.startswith("accepted ")]
    assert MUTANTS // 10 < len(accepted) < MUTANTS  # else nothing was compared
    refused = {}
    for number in accepted:
        try:
            read_model(tmp_path / f"{number}.tflite")
        except ModelError as error:
            refused[number] = str(error)
    assert refused == {}


# Text


@pytest.fixture
def same_words(tmp_path: Path) -> Path:
    """A model that tells which of two rows of four words are equal."""
    path = tmp_path / "words.tflite"
    kinds = {"kind": tflite.TensorType.STRING, "gives": tflite.TensorType.BOOL}
    path.write_bytes(build(code=tflite.BuiltinOperator.EQUAL, **kinds))
    return path


WORDS = [np.array([["a", "bc", "", "d"]], object), np.array([["a", "x", "", "e"]], object)]


@pytest.mark.parametrize("check", [None, Check(samples=[WORDS, WORDS[::-1]])])
def test_a_model_that_takes_text_runs_and_can_be_checked(same_words: Path, runtime_name: str, check) -> None:
    with Runner.auto(same_words, runtime=runtime_name, check=check) as runner:
        assert runner.predict(WORDS).tolist() == [[True, False, True, False]]
        assert runner.selection.compared == (check is not None)


@pytest.mark.filterwarnings("ignore")
def test_text_does_not_enter_a_child_process(same_words: Path) -> None:
    with pytest.raises(NoDelegateError, match="has text, which does not cross a process boundary"):
        Runner.auto(same_words, isolate=True)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs POSIX")
def test_a_pipe_is_no_model_and_nobody_waits_for_its_writer(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "m.tflite")
    with pytest.raises(ModelError, match=r"m\.tflite: it is no regular file"):
        read_model(tmp_path / "m.tflite")

"""How right an answer is: the measured cases, every kind of failure, properties, the real models."""

import json
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tflite_hal.accuracy import LIMITS, Check, Comparison, Grade, compare, model_kind, validated
from tflite_hal.delegate import Configuration, Device
from tflite_hal.errors import InputError
from tflite_hal.kernels import BuiltinKernels
from tflite_hal.model import Quantization, TensorSpec, read_model
from tflite_hal.runtime import load_runtime
from tflite_hal.trial import seeded_inputs

ORDER = list(Grade)


def spec(dtype="int8", quantized=None, name="scores", zero=0) -> TensorSpec:
    dtype = np.dtype(dtype)
    quantized = dtype.itemsize == 1 and dtype.kind in "iu" if quantized is None else quantized
    quantization = Quantization((0.25,), (zero,)) if quantized else None
    return TensorSpec(name, 0, (-1,), dtype, str(dtype), quantization, (1,))


def grade(reference, own, kind="quantized", check=None, **of) -> Comparison:
    """Compare answers of one output; ``reference`` and ``own`` hold one array per sample."""
    made = spec(np.asarray(reference[0]).dtype, **of)
    return compare([[a] for a in reference], [[a] for a in own], [made], kind, check)


def answers(n=4, size=32, dtype="int8", low=-90, high=20):
    random = np.random.default_rng(7)
    return [random.integers(low, high, (1, size)).astype(dtype) for _ in range(n)]


def off_by(arrays, error, samples=None):
    """Change one element of each, or of the first samples only."""
    made = [array.copy() for array in arrays]
    for array in made[:samples]:
        array[0, 3] += error
    return made


# What was measured, in steps of 256: XNNPACK's are right, OpenVINO's degraded, WebGPU's wrong.
@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        *((0, "ok"), (1, "ok"), (8, "ok"), (12, "ok")),
        *((13, "degraded"), (21, "degraded"), (31, "degraded"), (48, "degraded")),
        *((49, "wrong"), (97, "wrong")),
    ],
)
def test_quantised_steps(steps: int, expected: str) -> None:
    found = grade(answers(), off_by(answers(), steps))
    assert (found.grade.value, found.steps) == (expected, steps)
    assert found.error == found.typical == steps / 256
    assert (found.cosine == 1.0) == (steps == 0)


def test_a_wrong_answer_whose_arg_max_agrees() -> None:
    reference = [np.array([[100, -28, -128, -128]], np.int8) for _ in range(4)]
    own = [np.array([[3, -31, -128, -125]], np.int8) for _ in range(4)]
    found = grade(reference, own, zero=-128)
    assert (found.grade, found.argmax, found.steps) == ("wrong", 1.0, 97)
    right, wrong = np.array([228, 100, 0, 0]), np.array([131, 97, 0, 3])  # from the zero point
    assert found.cosine == pytest.approx(right @ wrong / np.linalg.norm(right) / np.linalg.norm(wrong))
    assert found.reason.startswith("output 'scores' differs by 97 of 256 steps (limit 80 of 256 steps), cosi")


def test_flat_answers_are_not_condemned_by_cosine_or_arg_max() -> None:
    random = np.random.default_rng(0)
    reference = [random.integers(0, 6, (1, 1001)).astype(np.uint8) for _ in range(4)]
    own = [(a + random.integers(0, 3, a.shape)).astype(np.uint8) for a in reference]
    reference[0][0, 0], own[0][0, 0] = 6, 6  # its largest by one step, and no longer
    found = grade(reference, own)
    assert found.grade == "ok" and found.steps == 2
    assert found.cosine < 0.99 and found.argmax < 1


def test_noise_all_over_is_degraded_though_each_error_is_small() -> None:
    reference = [np.zeros((1, 1001), np.uint8) for _ in range(4)]
    for i, array in enumerate(reference):
        array[0, i] = 120
    own = [a + np.random.default_rng(1).integers(0, 12, a.shape).astype(np.uint8) for a in reference]
    found = grade(reference, own)
    assert found.grade == "degraded" and found.steps <= 12 and "cosine" in found.reason


def test_answers_near_a_decision_may_flip_now_and_then() -> None:
    # XNNPACK against the built-in kernels on four seeded inputs of ResNet-8: 0, 1, 42 and 45 steps.
    own = [a for error, a in zip([0, 1, 42, 45], answers(), strict=True) for a in off_by([a], error)]
    assert grade(answers(), own).grade == "ok"
    assert grade(answers()[2:], own[2:]).grade == "degraded"


@pytest.mark.parametrize("n", [1, 2, 5, 40])
def test_one_wrong_answer_among_many_suffices(n: int) -> None:
    assert grade(answers(n), off_by(answers(n), 97, samples=1)).grade == "wrong"
    floats = [a.astype(np.float32) for a in answers(n)]
    assert grade(floats, off_by(floats, 97, samples=1), "float").grade == "wrong"


@pytest.mark.parametrize(
    ("kind", "peak", "error", "expected"),
    [
        ("float", 43.0, 5e-5, "ok"),
        ("float", 1.0, 3.6e-7, "ok"),
        ("float", 1.0, 9e-3, "ok"),  # half precision
        ("float", 1.0, 2e-2, "degraded"),
        ("float", 1.0, 0.06, "wrong"),
        ("hybrid", 0.54, 0.012, "ok"),
        ("hybrid", 1.0, 0.0109, "ok"),
        ("hybrid", 1.0, 0.0267, "ok"),
        ("hybrid", 1.0, 0.05, "degraded"),
        ("hybrid", 1.0, 0.12, "wrong"),
        ("quantized", 1.0, 8 / 256, "ok"),  # float outputs of integer arithmetic
        ("quantized", 1.0, 21 / 256, "degraded"),
    ],
)
def test_float_errors(kind: str, peak: float, error: float, expected: str) -> None:
    reference = [np.linspace(0, peak, 12, dtype=np.float32)[None] for _ in range(4)]
    found = grade(reference, off_by(reference, error), kind)
    assert (found.grade, found.steps) == (expected, None)
    assert found.error == pytest.approx(error / peak, rel=0.1)


def test_range_of_large_values_that_hardly_differ() -> None:
    reference = [np.array([[1000.0, 1000.001, 1000.002, 1000.0]], np.float32)]
    assert grade(reference, off_by(reference, 0.01), "float").grade == "ok"


def test_wider_integers_by_their_range_but_few_steps_are_few() -> None:
    wide = [np.arange(-8000, 8000, 500, dtype=np.int16)[None] for _ in range(3)]
    assert grade(wide, off_by(wide, 700), quantized=True).grade == "ok"
    assert grade(wide, off_by(wide, 2000), quantized=True).grade == "degraded"
    assert grade(wide, off_by(wide, 2000), quantized=True).steps == 2000
    flat = [np.arange(32, dtype=np.int16)[None] for _ in range(3)]
    assert grade(flat, off_by(flat, 12), quantized=True).grade == "ok"


def test_labels_by_the_share_that_differs() -> None:
    reference = [np.arange(100, dtype=np.int64) % 21 for _ in range(2)]
    for share, expected in ((0, "ok"), (5, "ok"), (6, "degraded"), (30, "degraded"), (31, "wrong")):
        own = [a.copy() for a in reference]
        for array in own:
            array[:share] += 1
        found = grade(reference, own)
        assert (found.grade, found.error, found.cosine) == (expected, share / 100, None)


def test_one_label_per_answer_counts_over_all_samples() -> None:
    reference = [np.array([i], np.int64) for i in (3, 4, 3, 3)]
    own = [np.array([i], np.int64) for i in (3, 3, 3, 3)]
    assert grade(reference, own).grade == "degraded"
    assert grade(reference, [a + 1 for a in reference]).grade == "wrong"


@pytest.mark.parametrize("dtype", ["bool", "object", "S3"])
def test_truth_and_text_by_equality(dtype: str) -> None:
    reference = [np.array([[True, False] * 16]) if dtype == "bool" else np.array([b"a", b"bc"] * 16, dtype)]
    assert grade(reference, [reference[0].copy()]).grade == "ok"
    assert grade(reference, [reference[0][..., ::-1]]).grade == "wrong"


FAILURES = {
    "NaN": lambda a, i: np.where(np.arange(a.size) == 2, np.nan, a),
    "infinite": lambda a, i: np.where(np.arange(a.size) == 2, np.inf, a),
    "is all zeros": lambda a, i: a * 0,
    "is constant": lambda a, i: a * 0 + 7,
}


@pytest.mark.parametrize("words", FAILURES)
@pytest.mark.parametrize("check", [None, Check(tolerance=1.0)])
def test_failures_whatever_the_limits(words: str, check: Check | None) -> None:
    reference = [a.astype(np.float32) for a in answers(3)]
    own = [reference[0], FAILURES[words](reference[1], 1).astype(np.float32), reference[2]]
    found = grade(reference, own, "float", check)
    assert found.grade == "wrong" and words in found.reason and "answer 2" in found.reason


def test_zeros_where_the_answer_is_weak_are_wrong() -> None:
    reference = answers(3, low=-7, high=8)  # no error beyond the limit for ok
    found = grade(reference, [a * 0 for a in reference])
    assert found.grade == "wrong" and "is all zeros" in found.reason and found.steps <= 12


def test_constants_that_the_reference_has_too_or_nearly() -> None:
    same = [np.full((1, 32), -128, np.int8)] * 4
    assert grade(same, same, zero=-128).grade == "ok"
    nearly = [np.full((1, 4000), -128, np.int8) for _ in range(4)]
    for i, array in enumerate(nearly):
        array[0, i : i + 900] += 1  # rounding up or down, which engines do differently
    assert grade(nearly, same[:0] + [np.full((1, 4000), -128, np.int8)] * 4, zero=-128).grade == "ok"


def test_constants_that_only_rounding_makes() -> None:
    beside = [np.array([[120, 127]], np.int8)] * 4  # two elements, seven steps apart
    assert grade(beside, [np.array([[127, 127]], np.int8)] * 4).grade == "ok"
    level = [np.array([[10] * 31 + [11]], np.int8)] * 4
    found = grade(level, [a * 0 + 25 for a in level])
    assert found.grade == "degraded" and "typically differs by 15 of 256 steps" in found.reason


def test_answers_of_other_samples() -> None:
    weak = answers(4, low=-8, high=9)  # neighbours differ in many elements, by few steps each
    for reference in (answers(4), weak):
        repeated = grade(reference, [reference[0], *reference[:1], *reference[2:]])
        assert repeated.grade == "wrong" and "repeats answer 1 as answer 2" in repeated.reason
        assert "repeats" in grade(reference, [reference[3]] * 4).reason
    late = [answers(5, low=0, high=40)[i] for i in (4, 0, 1, 2)]
    found = grade(answers(5, low=0, high=40)[:4], late, check=Check(tolerance=1.0))
    assert found.grade == "wrong" and "the sample before" in found.reason


def test_what_is_not_stale() -> None:
    independent = answers(1) * 4  # a model that does not look at its input
    assert grade(independent, independent).grade == "ok"
    assert grade(answers(1), answers(1)).grade == "ok"
    ones = [(answers(1)[0] + i % 2).astype(np.int8) for i in range(4)]  # one step apart, everywhere
    assert grade(ones, answers(1) * 4).grade == "ok"
    between = [np.array([[113, 0, 90]], np.int8), np.array([[127, 0, 90]], np.int8)]
    assert grade(between, [np.array([[120, 0, 90]], np.int8)] * 2).grade == "ok"
    two = [np.array([10], np.int8), np.array([30], np.int8)]  # near the other sample's by chance
    assert grade(two, [np.array([15], np.int8), np.array([12], np.int8)]).grade == "ok"
    saturated = [np.array([[i % 2, 0, 255]], np.uint8) for i in range(4)]
    assert grade(saturated, [saturated[0]] * 4).grade == "ok"


def test_shape_dtype_and_number_of_outputs() -> None:
    found = grade(answers(), [a[0] for a in answers()])
    assert found.grade == "wrong" and "int8[32], the built-in kernels int8[1, 32]" in found.reason
    assert grade(answers(), [a.view(np.uint8) for a in answers()]).grade == "wrong"
    assert compare([[*answers(1)]], [[]], [spec()], "quantized").grade == "wrong"
    for reference, own in (([], []), ([answers(1)], [])):
        with pytest.raises(InputError, match="answers of the reference"):
            compare(reference, own, [spec()], "quantized")
    with pytest.raises(InputError, match="1 outputs"):
        compare([[]], [[]], [spec()], "quantized")


def test_where_the_reference_is_not_finite() -> None:
    reference = [np.array([[np.nan, np.inf, -np.inf, 1.0, 2.0]], np.float32)] * 2
    assert grade(reference, reference, "float").grade == "ok"
    found = grade(reference, [np.nan_to_num(a) for a in reference], "float")
    assert found.grade == "degraded" and "nothing to compare with" in found.reason


def test_the_worst_output_decides() -> None:
    reference = [[a, a.astype(np.float32)] for a in answers()]
    own = [[off, a.astype(np.float32)] for a, off in zip(answers(), off_by(answers(), 21), strict=True)]
    specs = [spec(name="first"), spec("float32", name="second")]
    found = compare(reference, own, specs, "quantized")
    assert (found.grade, found.steps) == ("degraded", 21) and "'first'" in found.reason
    assert found.cosine < 1
    assert compare([[]], [[]], [], "float").grade == "ok"


def test_answers_of_several_sizes() -> None:
    reference = [np.arange(n, dtype=np.float32) for n in (3, 0, 40)]
    assert grade(reference, [a.copy() for a in reference], "float").grade == "ok"
    assert grade(reference, [a + 30 for a in reference], "float").grade == "wrong"


def test_tolerance_replaces_the_limits() -> None:
    own = off_by(answers(), 21)
    assert grade(answers(), own, check=Check(tolerance=0.05)).grade == "wrong"
    assert grade(answers(), own, check=Check(tolerance=0.09)).grade == "ok"
    assert grade(answers(), own, check=Check(tolerance=21 / 256)).grade == "ok"
    assert grade(answers(), off_by(answers(), 1), check=Check(tolerance=0)).grade == "wrong"
    assert grade(answers(), answers(), check=Check(tolerance=0)).grade == "ok"
    # Every answer is held to it, not the typical one.
    assert grade(answers(), off_by(answers(), 21, samples=1), check=Check(tolerance=0.05)).grade == "wrong"


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"samples": []}, "an empty one"),
        ({"samples": np.zeros((2, 3))}, "not ndarray"),
        ({"samples": "x.npy"}, "not str"),
        ({"tolerance": -0.1}, "from 0 to 1, not -0.1"),
        ({"tolerance": float("nan")}, "nan"),
        ({"tolerance": True}, "True"),
        ({"tolerance": "1"}, "'1'"),
        ({"accept": "wrong"}, "'ok' or 'degraded', not 'wrong'"),
        ({"accept": None}, "None"),
        ({"seeded": 0}, "1 to 1000 without samples"),
        ({"seeded": -1, "samples": [1]}, "-1"),
        ({"seeded": 1.5}, "1.5"),
    ],
)
def test_checks_that_mean_nothing(bad: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        validated(Check(**bad))


def test_checks_become_plain() -> None:
    check = validated(Check([1], np.float32(0.5), Grade.DEGRADED, np.int64(3)))
    assert check == ((1,), 0.5, "degraded", 3)
    assert [type(value) for value in check] == [tuple, float, str, int]
    assert validated(Check(samples=[0], seeded=0)).seeded == 0
    assert validated(Check()) == Check()


def test_keys_follow_every_byte() -> None:
    array = np.arange(6, dtype=np.float32)
    checks = [
        Check(),
        Check(tolerance=0.0),
        Check(accept="degraded"),
        Check(seeded=5),
        Check(samples=[array]),
        Check(samples=[array.reshape(2, 3)]),
        Check(samples=[array.view(np.int32)]),
        Check(samples=[array, array]),
        Check(samples=[[array, array]]),
        Check(samples=[{"a": array}]),
        Check(samples=[{"b": array}]),
        Check(samples=["ab"]),
        Check(samples=["a", "b"]),
        Check(samples=[b"ab"]),
        Check(samples=[np.array(["ab", 1], object)]),
        Check(samples=[np.array(["ab", 2], object)]),
    ]
    keys = [check.key() for check in checks]
    assert len(set(keys)) == len(keys) and {len(key) for key in keys} == {16}
    assert keys == [check.key() for check in checks]
    turned = np.asfortranarray(array.reshape(2, 3))
    assert Check(samples=(turned,)).key() == keys[5]
    one, other = {"a": array, "b": 1}, {"b": 1, "a": array}
    assert Check(samples=[one]).key() == Check(samples=[other]).key()
    assert Check().key() == "f600ea98b13c52a2"  # verdicts on disk are found by it


DTYPES = ["int8", "uint8", "int16", "int32", "int64", "float16", "float32", "float64", "complex64", "bool"]
KINDS = st.sampled_from(list(LIMITS))


@st.composite
def outputs(draw, count=1):
    """Draw ``count`` sets of answers of one format: any values, NaN and infinity among them."""
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
    n = draw(st.integers(1, 4))
    made = [[draw(hnp.arrays(dtype, shape)) for _ in range(n)] for _ in range(count)]
    zero = draw(st.integers(-128, 255))
    return made, spec(dtype, draw(st.booleans()) and dtype.kind in "iu", zero=zero)


def judged(reference, own, made: TensorSpec, kind: str, check=None) -> Comparison:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = compare([[a] for a in reference], [[a] for a in own], [made], kind, check)
    json.dumps(found.to_dict(), allow_nan=False)
    return found


@settings(max_examples=200, deadline=None)
@given(outputs(), KINDS, st.sampled_from([None, Check(tolerance=0.0)]))
def test_the_same_is_ok(drawn, kind: str, check) -> None:
    (arrays,), made = drawn
    found = judged(arrays, [a.copy() for a in arrays], made, kind, check)
    assert (found.grade, found.error, found.typical) == ("ok", 0, 0)
    assert found.steps in (None, 0) and found.cosine in (None, 1.0) and found.argmax in (None, 1.0)


@settings(max_examples=300, deadline=None)
@given(outputs(count=2), KINDS)
def test_any_values_are_judged(drawn, kind: str) -> None:
    (reference, own), made = drawn
    found = judged(reference, own, made, kind)
    bad = any((np.isfinite(a) & ~np.isfinite(b)).any() for a, b in zip(reference, own, strict=True))
    assert found.reason and (found.grade == "wrong" or not bad)


@settings(max_examples=200, deadline=None)
@given(
    hnp.arrays(np.int16, (3, 20), elements=st.integers(-100, 100)),
    hnp.arrays(np.int16, (3, 20), elements=st.integers(-40, 40)),
    st.sampled_from(["int16", "float32", "float64"]),
    KINDS,
    st.sampled_from([None, Check(tolerance=0.1)]),
)
def test_a_larger_error_is_never_better(right, error, dtype, kind, check) -> None:
    # The first elements stay, and differ from sample to sample: nothing becomes constant or stale.
    right[:, :3] = [[100, -100, 0], [-100, 100, 0], [0, 100, -100]]
    error[:, :3] = 0
    grades, errors = [], []
    for factor in (0, 1, 2, 3, 5, 8):
        own = [(a + factor * e).astype(dtype) for a, e in zip(right, error, strict=True)]
        found = judged([a.astype(dtype) for a in right], own, spec(dtype, dtype == "int16"), kind, check)
        grades.append(ORDER.index(found.grade))
        errors.append(found.error)
    assert grades == sorted(grades) and errors == sorted(errors)


def test_huge_values_and_denormals() -> None:
    huge = [np.array([1.7e308, -1.7e308, 0.0, 1e308])]
    assert judged(huge, huge, spec("float64"), "float").grade == "ok"
    assert judged(huge, [-huge[0]], spec("float64"), "float").grade == "wrong"
    tiny = [np.array([5e-324, 0.0, 1e-310])]
    assert judged(tiny, [tiny[0] * 0], spec("float64"), "float").grade == "ok"


KINDS_OF_MODELS = {
    "ad01_fp32": "float",
    "ad01_int8": "quantized",
    "keras_lstm_mnist_ptq": "quantized",
    "kws_ref_model": "quantized",
    "kws_ref_model_float32": "hybrid",
    "mobilenet_v1_0.25_128_quant": "quantized",
    "pretrainedResnet": "float",
    "pretrainedResnet_quant": "quantized",
    "str_ww_ref_model": "quantized",
    "vww_96_float": "float",
    "vww_96_int8": "quantized",
}


@pytest.mark.parametrize("name", KINDS_OF_MODELS)
def test_xnnpack_is_right_on_the_real_models(models: Path, runtime_name: str, name: str) -> None:
    from tflite_hal_xnnpack import XnnpackDelegate

    model, runtime = read_model(models / f"{name}.tflite"), load_runtime(runtime_name)
    found = []
    for delegate in (BuiltinKernels(), XnnpackDelegate()):
        session = delegate.open(model, Device("cpu", "cpu", "CPU"), Configuration(threads=1), runtime)
        call, ran = session.prepare(), []
        for seed in range(Check().seeded):
            session.reset()
            ran.append(call.run(seeded_inputs(model.info.inputs, seed)))
        session.close()
        found.append(ran)
    kind = model_kind(model.info)
    assert kind == KINDS_OF_MODELS[name]
    compared = compare(found[0], found[1], model.info.outputs, kind)
    print(f"{name}: {compared}")
    assert compared.grade == "ok", compared
    # The same answers are told from those of a broken engine, also on this model.
    zeros = [[np.zeros_like(a) for a in answer] for answer in found[1]]
    assert compare(found[0], zeros, model.info.outputs, kind).grade == "wrong"


def test_float_in_and_out_around_integers_is_quantised(digits: Path, digits_float: Path) -> None:
    info = read_model(digits_float).info
    assert model_kind(info) == "float" and model_kind(read_model(digits).info) == "quantized"
    assert model_kind(info._replace(precision="hybrid")) == "hybrid"
    quantize = info.operators[0]._replace(name="QUANTIZE")
    around = info._replace(precision="hybrid", operators=(*info.operators, quantize))
    assert model_kind(around) == "quantized"
    assert model_kind(info._replace(precision="int8")) == "quantized"


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_comparing_large_answers_takes_little_memory(dtype: str) -> None:
    """Its own, beside the answers: a segmentation map may have 20 MB."""
    random = np.random.default_rng(0)
    right = [random.integers(0, 255, (1, 1 << 21)).astype(dtype) for _ in range(3)]
    own = [one + (np.arange(one.size) % 7 == 0).astype(dtype) for one in right]
    tracemalloc.start()
    try:
        found = grade(right, own)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found.error == pytest.approx(1 / 256 if dtype == "uint8" else 1 / 254)
    assert peak < 2 * right[0].size + (8 << 20)


@given(hnp.arrays(np.int8, st.tuples(st.just(1), st.integers(1, 300))), st.integers(1, 50), st.data())
def test_pieces_change_nothing(right, size, data) -> None:
    """Whatever is converted at a time, the figures are those of the whole."""
    own = data.draw(hnp.arrays(np.int8, right.shape))
    whole = grade([right], [own])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tflite_hal.accuracy.output._PIECE", size)
        found = grade([right], [own])
    assert found._replace(cosine=None) == whole._replace(cosine=None)
    assert found.cosine == pytest.approx(whole.cosine, abs=1e-12)

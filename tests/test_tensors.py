"""Conversion between what a caller gives and what a model takes: each row of the table, and an oracle."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import chain
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tflite_hal import tensors
from tflite_hal.errors import InputError
from tflite_hal.model import Quantization, TensorSpec


def spec(dtype, *shape, scale=None, zero_point=0, axis=0, name="x"):
    kind = np.dtype(object if dtype in ("string", "bfloat16") else dtype)
    scales = scale if isinstance(scale, tuple) else (scale,)
    points = zero_point if isinstance(zero_point, tuple) else (zero_point,)
    quantization = None if scale is None else Quantization(scales, points, axis)
    return TensorSpec(name, 0, shape, kind, dtype, quantization, tuple(abs(size) for size in shape))


def convert(value, wanted):
    """Convert where no warning is expected."""
    return tensors.convert(value, wanted, pytest.fail)


def warned(value, wanted):
    said: list[str] = []
    converted = tensors.convert(value, wanted, said.append)
    return converted, said


def refused(value, wanted, *parts):
    with pytest.raises(InputError) as caught:
        convert(value, wanted)
    for part in (f"'{wanted.name}'", wanted.type, *parts):
        assert part in str(caught.value)
    return caught.value


def same(array, expected, dtype):
    assert type(array) is np.ndarray
    assert array.dtype == dtype
    assert array.flags.c_contiguous and array.flags.aligned
    np.testing.assert_array_equal(array, np.asarray(expected, dtype=dtype), strict=True)


INT8 = spec("int8", 1, 4, scale=0.5, zero_point=10)


# ---- the table -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "dtype",
    ["float16", "float32", "float64", "int8", "uint8", "int16", "int32", "int64", "bool", "complex64"],
)
def test_the_tensors_dtype_is_taken_as_it_is(dtype):
    array = np.ones((2, 3), dtype)
    converted = convert(array, spec(dtype, 2, 3))
    assert converted.array is array and not converted.real
    assert convert(array, spec(dtype, -1, 3)).array is array
    assert np.shares_memory(convert(array, spec(dtype, 1, 2, 3)).array, array)


def test_a_read_only_array_that_fits_is_not_copied():
    array = np.frombuffer(bytes(8), np.float32)
    assert np.shares_memory(convert(array, spec("float32", 2)).array, array)


def test_quantised_values_in_the_tensors_dtype_are_not_real_numbers():
    array = np.array([[1, 2, 3, 4]], np.int8)
    converted = convert(array, INT8)
    assert converted.array is array and not converted.real


@pytest.mark.parametrize("value", [np.array([1.5, 2]), np.array([1.5, 2], np.float16), [1.5, 2], (1.5, 2)])
def test_other_floats_for_float32_are_converted(value):
    converted = convert(value, spec("float32", 2))
    same(converted.array, [1.5, 2], np.float32)
    assert not converted.real


def test_floats_too_large_for_float32_are_refused():
    refused([1.0, 1e39], spec("float32", 2), "1e+39", "not finite")
    refused(np.float32([70000]), spec("float16", 1), "70000", "not finite")
    refused([0.5, 10**400], spec("float32", 2), "too large")
    refused([10**400], spec("float32", 1), "too large")


def test_floats_not_finite_before_stay_as_they_are():
    same(
        convert([math.inf, -math.inf, math.nan], spec("float32", 3)).array,
        [math.inf, -math.inf, math.nan],
        "f4",
    )


@pytest.mark.parametrize(
    "value",
    [2**24, -(2**24), 2**24 + 2, 2**40, 2**63, 2**64, 2**100, True, np.int64(-(2**63)), np.uint64(2**63)],
)
def test_integers_exact_in_a_float_are_converted(value):
    same(convert(value, spec("float32")).array, float(value), np.float32)


@pytest.mark.parametrize("value", [2**24 + 1, -(2**24) - 1, 2**63 - 1, 2**64 + 1, np.uint64(2**64 - 1)])
def test_integers_not_exact_in_a_float_are_refused(value):
    refused(value, spec("float32"), str(value), "not exact")


def test_integers_numpy_would_round_to_floats_are_compared_exactly():
    assert np.asarray([2**63 + 1, -1]).dtype == np.float64  # why it takes care
    refused([2**63 + 1, -1], spec("float64", 2), str(2**63 + 1))
    refused([np.uint64(2**63 + 1), np.int64(-1)], spec("float64", 2), str(2**63 + 1))
    refused([np.array(2**63 + 1, np.uint64), np.array(-1)], spec("float64", 2), str(2**63 + 1))
    same(convert([2**63, -1], spec("float64", 2)).array, [2.0**63, -1], np.float64)
    same(convert([2.0**63, -1], spec("float64", 2)).array, [2.0**63, -1], np.float64)


@pytest.mark.parametrize("value", [[0, 127, -128], np.array([0, 127, -128], np.int64), (False, 127, -128)])
def test_integers_of_another_width_are_range_checked(value):
    same(convert(value, spec("int8", 3)).array, [0, 127, -128], np.int8)
    refused(value, spec("uint8", 3), "-128 to 127", "0 to 255")
    refused([*value[:2], 128], spec("int8", 3), "128", "outside -128 to 127")


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1, 10**400])
def test_integers_beyond_64_bits_are_refused(value):
    refused(value, spec("int64"), "outside")
    refused([value, -1], spec("int64", 2), "outside")


def test_integers_for_a_quantised_input_are_quantised_values():
    converted = convert(np.array([[1, 2, 3, 4]], np.int64), INT8)
    same(converted.array, [[1, 2, 3, 4]], np.int8)
    assert not converted.real
    assert not convert([[1, 2, 3, 255]], spec("uint8", 1, 4, scale=1.0)).real
    refused([[0, 0, 0, 200]], INT8, "outside -128 to 127")


def test_floats_for_a_quantised_input_are_quantised():
    converted = convert([[0.0, 0.25, 0.75, -1.0]], INT8)  # halves round to even
    same(converted.array, [[10, 10, 12, 8]], np.int8)
    assert converted.real
    assert convert([[0, 1, 2, 0.5]], INT8).real  # any float makes the list real numbers


def test_floats_for_a_quantised_input_along_an_axis():
    wanted = spec("int16", 2, 2, scale=(0.5, 2.0), zero_point=(0, 1), axis=0)
    same(convert([[1.0, 2.0], [4.0, 8.0]], wanted).array, [[2, 4], [3, 5]], np.int16)
    wanted = spec("int16", 2, 2, scale=(0.5, 2.0), zero_point=(0,), axis=1)
    same(convert([[1.0, 2.0], [4.0, 8.0]], wanted).array, [[2, 1], [8, 4]], np.int16)
    refused([[1.0], [2.0]], spec("int8", 2, -1, scale=(1.0, 2.0), axis=1), "2 scales along axis 1")


def test_a_scale_of_zero_never_warns_of_a_division():
    assert warned([1.0, -1.0], spec("int8", 2, scale=0.0))[0].array.tolist() == [127, -128]
    refused([0.0], spec("int8", 1, scale=0.0), "NaN")


def test_a_list_of_arrays_beyond_64_bits_keeps_its_values():
    same(convert([np.array(2.0**70), np.array(1)], spec("float64", 2)).array, [2.0**70, 1], np.float64)


def test_more_than_one_percent_saturated_warns_of_the_range():
    wanted = spec("int8", 100, scale=0.5, zero_point=10)
    value = np.zeros(100)
    value[0] = 1000
    assert warned(value, wanted)[1] == []
    value[1] = -math.inf
    converted, said = warned(value, wanted)
    assert converted.array[:3].tolist() == [127, -128, 10]
    assert len(said) == 1
    assert "'x'" in said[0] and "from -69 to 58.5" in said[0] and "2.0%" in said[0]


def test_nan_has_no_quantised_value():
    refused([[0.0, 0.0, 0.0, math.nan]], INT8, "NaN")
    refused([math.nan], spec("int32", 1), "integers are expected")


@pytest.mark.parametrize("value", [1.0, [1.0], np.float32([1])])
@pytest.mark.parametrize("dtype", ["int32", "uint8", "bool"])
def test_floats_for_integers_without_quantisation_are_refused(value, dtype):
    refused(value, spec(dtype, 1), "integers are expected")


@pytest.mark.parametrize(("given_dtype", "wanted", "sign"), [("uint8", "int8", "-"), ("int8", "uint8", "+")])
def test_uint8_and_int8_are_not_mixed_up(given_dtype, wanted, sign):
    array = np.zeros((1, 4), given_dtype)
    refused(array, spec(wanted, 1, 4, scale=1.0), given_dtype, "128", f"{sign} 128", "images.fit")
    refused([array[0]], spec(wanted, 1, 4, scale=1.0), "128")
    same(convert(array.tolist(), spec(wanted, 1, 4, scale=1.0)).array, array, wanted)
    same(convert(array, spec(wanted, 1, 4)).array, array, wanted)  # not quantised: range-checked


@pytest.mark.parametrize("shape", [(1, 8, 8, 3), (8, 8, 3), (1, 8, 8, 1), (1, 8, 8, 4)])
def test_a_uint8_image_for_floats_warns_once(shape):
    image = np.full(shape, 200, np.uint8)
    converted, said = warned(image, spec("float32", 1, *image.shape[-3:]))
    same(converted.array, image.reshape(1, *image.shape[-3:]), np.float32)
    assert len(said) == 1
    assert "'x'" in said[0] and "images.fit" in said[0] and "200" in said[0]


def test_a_uint8_array_that_is_no_0_to_255_image_does_not_warn():
    convert(np.ones((1, 8, 8, 3), np.uint8), spec("float32", 1, 8, 8, 3))
    convert(np.full((1, 8, 8, 5), 9, np.uint8), spec("float32", 1, 8, 8, 5))
    convert(np.full((1, 8, 3), 9, np.uint8), spec("float32", 1, 8, 3))
    convert(np.full((1, 8, 8, 3), 9, np.int32), spec("float32", 1, 8, 8, 3))
    convert(np.uint8(9), spec("float32"))


def test_one_missing_batch_dimension_is_added():
    same(convert(np.ones(4, np.float32), spec("float32", 1, 4)).array, np.ones((1, 4)), np.float32)
    same(convert([1.0, 2.0], spec("float32", -1, 2)).array, [[1, 2]], np.float32)
    same(convert(5, spec("int32", 1)).array, [5], np.int32)
    refused(np.ones(4), spec("float32", 2, 4), "[2, 4]", "[4]")
    refused(np.ones(4), spec("float32", 1, 1, 4), "[1, 1, 4]", "[4]")


def test_dynamic_dimensions_take_any_size_but_zero():
    assert convert(np.ones((7, 4)), spec("float32", -1, 4)).array.shape == (7, 4)
    refused(np.ones((0, 4)), spec("float32", -1, 4), "[0, 4]", "may be 0")
    refused(np.ones((1, 0), np.float32), spec("float32", 1, -1), "[1, 0]")
    same(convert(np.ones(0, np.int16), spec("int8", 0)).array, [], np.int8)


@pytest.mark.parametrize("shape", [(1,), (3, 2), (2, 3, 1), (1, 2, 3)])
def test_another_shape_is_refused(shape):
    refused(np.ones(shape, np.float32), spec("float32", 2, 3), "[2, 3]", str(list(shape)))
    refused(np.ones(shape), spec("float32"), "[]", str(list(shape)))


# ---- kinds of values -------------------------------------------------------------------------------


def test_a_scalar_tensor_takes_a_number():
    same(convert(1.5, spec("float32")).array, 1.5, np.float32)
    same(convert(np.float32(1.5), spec("float32")).array, 1.5, np.float32)
    same(convert(3, spec("int64")).array, 3, np.int64)
    same(convert(1.0, spec("int8", scale=0.5)).array, 2, np.int8)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int8", "uint8", "int64", "bool"])
def test_booleans_are_0_and_1(dtype):
    same(convert([False, True], spec(dtype, 2)).array, [0, 1], dtype)
    same(convert(np.array([False, True]), spec(dtype, 2)).array, [0, 1], dtype)


def test_a_boolean_tensor_takes_0_and_1():
    same(convert([0, 1], spec("bool", 2)).array, [False, True], np.bool_)
    refused([0, 2], spec("bool", 2), "outside 0 to 1")


@pytest.mark.parametrize(
    "value",
    [
        None,
        [1j],
        [None],
        [[1], [2, 3]],
        [1, [2]],
        [{"1"}],
        {1},
        (x for x in "1"),
        [Fraction(1)],
        [2**70, Fraction(1)],
        [2**70, None],
        np.array([1], object),
        np.array(["2020"], "M8[s]"),
        np.zeros(1, [("a", "f4")]),
        np.ma.array([1.0], mask=[True]),
        [np.ma.masked],
        [np.ma.array(1.0, mask=True)],
        [np.datetime64(1, "s"), 1],
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("dtype", ["float32", "int8", "bool", "complex64", "bfloat16", "string"])
def test_values_of_another_kind_are_refused(value, dtype):
    refused(value, spec(dtype, 1))


@pytest.mark.parametrize("value", [["1"], "1", b"1", np.array(["1"]), [1, "1"]])
@pytest.mark.parametrize("dtype", ["float32", "int8", "bool", "bfloat16"])
def test_strings_are_no_numbers(value, dtype):
    refused(value, spec(dtype, 1))


def test_a_type_numpy_lacks_is_named():
    refused([1.0], spec("bfloat16", 1), "numpy has no bfloat16")
    refused([1.0], spec("complex64", 1), "give a complex64 array")


class Unreadable:
    def __array__(self, dtype=None, copy=None):
        raise RuntimeError("detach it first")


def test_an_object_that_refuses_to_become_an_array_is_refused_with_its_words():
    refused(Unreadable(), spec("float32", 1), "Unreadable", "detach it first")


@pytest.mark.parametrize(
    "value",
    [
        np.arange(12, dtype=">f4").reshape(3, 4),
        np.asfortranarray(np.arange(12, dtype="f4").reshape(3, 4)),
        np.arange(24, dtype="f4").reshape(3, 8)[:, ::2] / 2,
        np.ma.array(np.arange(12, dtype="f4").reshape(3, 4)),
        np.arange(12, dtype="f4").reshape(3, 4).view(type("Own", (np.ndarray,), {})),
        np.frombuffer(b"\0" + np.arange(12, dtype="f4").tobytes(), "f4", offset=1).reshape(3, 4),
        memoryview(np.arange(12, dtype="f4").reshape(3, 4)),
    ],
    ids=["big-endian", "fortran", "strided", "masked", "subclass", "unaligned", "memoryview"],
)
def test_any_layout_is_made_plain(value):
    converted = convert(value, spec("float32", 3, 4))
    same(converted.array, np.arange(12).reshape(3, 4), np.float32)
    assert converted.array.dtype.isnative


@pytest.mark.parametrize(
    "value",
    [
        ["é", "b"],
        ["é", b"b"],
        np.array(["é", "b"]),
        np.array(["é", "b"], object),
        [np.str_("é"), np.bytes_(b"b")],
    ],
)
def test_strings_become_bytes(value):
    array = convert(value, spec("string", 2)).array
    assert array.dtype == object and array.tolist() == ["é".encode(), b"b"]
    assert all(type(item) is bytes for item in array)


def test_strings_keep_their_last_nulls_and_scalars_their_shape():
    assert convert([b"a\0"], spec("string", 1)).array.tolist() == [b"a\0"]
    assert convert("a", spec("string")).array.tolist() == b"a"
    assert convert("a", spec("string", 1)).array.tolist() == [b"a"]
    array = np.array([b"a"], object)
    assert convert(array, spec("string", 1)).array is array


@pytest.mark.parametrize("value", [["a", 0], ["a", None], ["\ud800", "a"], [["a"], "b"], ["a", 1.5], [1, 2]])
def test_what_is_no_string_is_refused(value):
    refused(value, spec("string", 2))


# ---- arrange ---------------------------------------------------------------------------------------

A, B = spec("float32", 2, name="a"), spec("int8", 1, 3, name="b")


def test_inputs_by_position_and_by_name():
    one, two = np.ones(2), [1, 2, 3]
    assert tensors.arrange([one, two], ["a", "b"], [A, B])[1] is two
    assert tensors.arrange((one, two), ["a", "b"], [A, B])[0] is one
    assert tensors.arrange({"b": two, "a": one}, ["a", "b"], [A, B])[1] is two
    assert tensors.arrange({}, [], []) == tensors.arrange([], [], []) == []


def test_one_input_takes_an_array_a_number_a_sequence_of_one_or_nested_numbers():
    array = np.ones(2, np.float32)
    for inputs in (array, [array], (array,), {"a": array}):
        assert tensors.arrange(inputs, ["a"], [A])[0] is array
    wide = spec("float32", 1, 3, 2)
    rows = [np.ones((3, 2))]
    assert tensors.arrange(rows, ["a"], [wide])[0] is rows[0]
    assert tensors.arrange([1.0, 2.0], ["a"], [A]) == [[1.0, 2.0]]
    nested = [np.ones((4, 2))]
    assert tensors.arrange(nested, ["a"], [wide])[0] is nested
    assert tensors.arrange(5, ["a"], [spec("int8")]) == [5]


@pytest.mark.parametrize("inputs", [None, np.ones((2, 3)), [1], [1, 2, 3], 5, "ab", {1, 2}])
def test_inputs_that_do_not_match_the_model_are_refused(inputs):
    with pytest.raises(InputError, match=r"2 input.*'a' \(float32 of shape \[2\]\), 'b'"):
        tensors.arrange(inputs, ["a", "b"], [A, B])


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"a": 1}, r"missing input\(s\) \['b'\].*\['a', 'b'\]"),
        ({"image": 1, "b": 1}, "'image'.*use 'images'"),
        ({7: 1, "b": 1}, "named '7'"),
    ],
)
def test_names_missing_or_unknown_are_refused_with_the_closest(inputs, words):
    names = ["images", "b"] if "image" in inputs else ["a", "b"]
    with pytest.raises(InputError, match=words):
        tensors.arrange(inputs, names, [A, B])


def test_nothing_given_and_names_that_name_two_tensors_are_refused():
    with pytest.raises(InputError, match="None"):
        tensors.arrange(None, ["a"], [A])
    with pytest.raises(InputError, match="unique"):
        tensors.arrange({"a": 1}, ["a", "a"], [A, B])


# ---- outputs ---------------------------------------------------------------------------------------


def test_outputs_are_one_array_or_a_dict_in_order():
    one, two = np.ones(2, np.float32), np.array([[1, 2, 3]], np.int8)
    assert tensors.deliver([one], ["a"], [A], True) is one
    result = tensors.deliver([two, one], ["b", "a"], [INT8, A], False)
    assert list(result) == ["b", "a"] and result["b"] is two and result["a"] is one
    assert tensors.deliver([], [], [], False) == {}


def test_quantised_outputs_are_dequantised_where_asked():
    raw, counts = np.array([[10, 12, -128, 127]], np.int8), np.array([3], np.int32)
    result = tensors.deliver([raw, counts], ["q", "n"], [INT8, spec("int32", 1)], True)
    same(result["q"], [[0, 1, -69, 58.5]], np.float32)
    assert result["n"] is counts


def test_dequantising_int32_and_along_an_axis():
    wide = spec("int32", 1, scale=1.0, zero_point=2**30)
    same(tensors.dequantize(np.array([2**30 + 1], np.int32), wide), [1], np.float32)
    along = spec("int8", 2, 2, scale=(1.0, 0.5), zero_point=(0, 1), axis=1)
    same(tensors.dequantize(np.array([[1, 2], [3, 4]], np.int8), along), [[1, 0.5], [3, 1.5]], np.float32)


def test_quantize_tells_the_saturated_share_and_refuses_tensors_without_parameters():
    array, share = tensors.quantize(np.array([0.0, 1e9, 1.0, -1e9]), spec("uint8", 4, scale=1.0))
    same(array, [0, 255, 1, 0], np.uint8)
    assert share == 0.5
    with pytest.raises(InputError, match="not quantised"):
        tensors.quantize(np.ones(2), A)
    assert tensors.quantize(np.array([1e30]), spec("int64", 1, scale=1.0))[0][0] > 2**62


def test_results_are_written_into_the_callers_buffers():
    one, two = np.ones(2, np.float32), np.array([[1, 2, 3]], np.int8)
    out = np.zeros(2, np.float32)
    assert tensors.write_out(one, out) is out and out.tolist() == [1, 1]
    outs = {"b": np.zeros((1, 3), np.int8), "a": np.zeros(2, np.float32)}
    assert tensors.write_out({"a": one, "b": two}, outs) is outs
    assert outs["b"].tolist() == [[1, 2, 3]] and outs["a"].tolist() == [1, 1]


@pytest.mark.parametrize(
    ("out", "words"),
    [
        (np.zeros(2), "a.*float32 of shape.*float64"),
        (np.zeros(3, np.float32), r"\[2\].*\[3\]"),
        (np.zeros(2, ">f4"), "a writeable float32"),
        (np.ma.zeros(2, np.float32), "a writeable float32"),
        (np.frombuffer(bytes(8), np.float32), "read-only"),
        ([0, 0], "list"),
        (None, "None"),
    ],
)
def test_a_buffer_that_does_not_fit_is_refused_and_nothing_written(out, words):
    with pytest.raises(InputError, match=words):
        tensors.write_out(np.ones(2, np.float32), out)
    first = np.zeros(2, np.float32)
    with pytest.raises(InputError, match="output 'b'"):
        tensors.write_out({"a": np.ones(2, np.float32), "b": np.ones(2, np.float32)}, {"a": first, "b": out})
    assert first.tolist() == [0, 0]


def test_buffers_by_name_must_have_the_outputs_names():
    result = {"a": np.ones(2, np.float32), "b": np.ones(2, np.float32)}
    for out in ({"a": np.zeros(2, np.float32)}, {**result, "c": 1}, np.zeros(2, np.float32)):
        with pytest.raises(InputError, match=r"\['a', 'b'\]"):
            tensors.write_out(result, out)


# ---- anything at all, against an oracle in plain Python --------------------------------------------

NUMERIC = [
    "float16",
    "float32",
    "float64",
    "int8",
    "uint8",
    "int16",
    "uint16",
    "int32",
    "uint32",
    "int64",
    "uint64",
]
INTS = st.one_of(
    st.integers(-300, 300), st.integers(-(2**70), 2**70), st.sampled_from([10**400, 2**63, 2**24 + 1])
)
FLOATS = st.one_of(st.floats(), st.floats(-200, 200), st.integers(-400, 400).map(lambda half: half / 4))
SCALARS = st.one_of(
    INTS, FLOATS, st.booleans(), st.text(max_size=2), st.binary(max_size=2), st.none(), st.complex_numbers()
)
KINDS = st.sampled_from([INTS, FLOATS, st.booleans(), st.one_of(INTS, FLOATS, st.booleans()), SCALARS])


@st.composite
def specs(draw):
    dtype = draw(st.sampled_from([*NUMERIC, "bool", "string", "bfloat16"]))
    shape = draw(st.lists(st.sampled_from([1, 2, 3, -1]), max_size=3))
    if np.dtype(object if dtype in ("string", "bfloat16") else dtype).kind not in "iu" or draw(st.booleans()):
        return spec(dtype, *shape)
    axis = draw(st.sampled_from([None, *(i for i, size in enumerate(shape) if size > 1)]))
    count = 1 if axis is None else shape[axis]
    scale = tuple(
        draw(st.sampled_from([0.5, 1.0, 0.00392156862745098, 2.0**-20, 1e10])) for _ in range(count)
    )
    zero_point = tuple(draw(st.integers(0, 127)) for _ in range(count))
    return spec(dtype, *shape, scale=scale, zero_point=zero_point, axis=axis or 0)


def nested(items, shape):
    """Nest lists: ``items()`` gives each leaf."""
    return items() if not shape else [nested(items, shape[1:]) for _ in range(shape[0])]


@st.composite
def values(draw, wanted):
    shape = [size if size > 0 else draw(st.integers(0, 2)) for size in wanted.shape]
    shape = draw(st.sampled_from([shape, shape, shape, shape[1:], [2, *shape]]))
    way = draw(st.sampled_from(["array", "list", "anything"]))
    if way == "array":
        kinds = hnp.scalar_dtypes() | st.sampled_from([np.dtype(name) for name in NUMERIC])
        array = draw(hnp.arrays(draw(kinds), tuple(shape)))
        return array[..., ::-1] if array.ndim and draw(st.booleans()) else array
    if way == "list":
        leaf = draw(KINDS)
        return nested(lambda: draw(leaf), shape)
    return draw(st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3), max_leaves=6))


def shape_and_leaves(value):
    """Return shape and flat leaves of nested lists; None where they are ragged."""
    if not isinstance(value, list):
        return (), [value]
    parts = [shape_and_leaves(part) for part in value]
    if any(part is None for part in parts) or len({part[0] for part in parts}) > 1:
        return None
    inner = parts[0][0] if parts else ()
    return (len(value), *inner), list(chain.from_iterable(part[1] for part in parts))


def nearest_float(value, dtype):
    """Round to a float type; None where it becomes infinite or an integer isn't exact."""
    try:
        with np.errstate(all="ignore"):
            rounded = float(np.array(float(value)).astype(dtype))
    except OverflowError:
        return None
    if isinstance(value, int):
        return rounded if rounded == value else None
    return None if math.isinf(rounded) and not math.isinf(value) else rounded


def quantised(value, wanted, position, shape):
    scales, points, axis = wanted.quantization
    index = 0 if len(scales) == 1 else position // math.prod(shape[axis + 1 :]) % shape[axis]
    low, high = limits(wanted.dtype)
    if math.isnan(value):
        return None
    steps = value / scales[index] if not math.isinf(value) else value
    if math.isinf(steps):
        return low if steps < 0 else high
    return min(max(round(steps) + points[index % len(points)], low), high)


def limits(dtype):
    bits = dtype.itemsize * 8
    return (
        (0, 1)
        if dtype.kind == "b"
        else (0, 2**bits - 1)
        if dtype.kind == "u"
        else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    )


def oracle_shape(shape, wanted):
    for candidate in (shape, (1, *shape)):
        if candidate != shape and (not wanted.shape or wanted.shape[0] not in (1, -1)):
            continue
        if len(candidate) == len(wanted.shape) and all(
            w == g or (w == -1 and g > 0) for g, w in zip(candidate, wanted.shape, strict=True)
        ):
            return candidate
    return None


def oracle(value, wanted):
    """Return shape, values and whether they were real numbers; None where it must be refused."""
    array = isinstance(value, np.ndarray)
    found = (value.shape, value.ravel().tolist()) if array else shape_and_leaves(value)
    shape = found and oracle_shape(found[0], wanted)
    if shape is None or (array and value.dtype.kind in "mMcVO"):
        return None
    leaves = found[1]
    if wanted.type == "string" and all(isinstance(leaf, (str, bytes)) for leaf in leaves):
        if any("\ud800" <= char <= "\udfff" for leaf in leaves if isinstance(leaf, str) for char in leaf):
            return None
        return shape, [leaf if isinstance(leaf, bytes) else leaf.encode() for leaf in leaves], False
    if wanted.dtype.kind == "O" or not all(isinstance(leaf, (int, float)) for leaf in leaves):
        return None
    real = any(isinstance(leaf, float) for leaf in leaves)
    if real and any(isinstance(leaf, int) and abs(leaf) > 2**1023 for leaf in leaves):
        return None
    leaves = [float(leaf) if real else int(leaf) for leaf in leaves]
    if wanted.dtype.kind == "f":
        result = [nearest_float(leaf, wanted.dtype) for leaf in leaves]
    elif real:
        result = [wanted.quantization and quantised(leaf, wanted, i, shape) for i, leaf in enumerate(leaves)]
    elif array and wanted.quantization and {value.dtype.name, wanted.dtype.name} == {"int8", "uint8"}:
        return None
    else:
        low, high = limits(wanted.dtype)
        result = [leaf if low <= leaf <= high else None for leaf in leaves]
    return None if None in result else (shape, result, real and wanted.dtype.kind in "iu")


def fits(got: Any, expected: Any, wide: bool) -> bool:
    """Compare exactly; 64-bit integers saturate at the nearest float below their limit."""
    if isinstance(expected, float):
        return got == expected or (math.isnan(got) and math.isnan(expected))
    return got == expected or (wide and abs(got - expected) <= max(abs(expected) // 2**50, 1))


@settings(max_examples=600, deadline=None)
@given(st.data())
def test_anything_is_converted_rightly_or_refused(data):
    wanted = data.draw(specs())
    value = data.draw(values(wanted))
    expected = oracle(value, wanted)
    try:
        converted, _ = warned(value, wanted)
    except InputError as error:
        assert expected is None, error
        assert "'x'" in str(error)
        return
    assert expected is not None, converted
    shape, leaves, real = expected
    assert type(converted.array) is np.ndarray
    assert (converted.array.dtype, converted.array.shape, converted.real) == (wanted.dtype, shape, real)
    assert converted.array.flags.c_contiguous and converted.array.flags.aligned
    wide = real and wanted.dtype.itemsize == 8
    for got, leaf in zip(converted.array.ravel().tolist(), leaves, strict=True):
        assert fits(got, leaf, wide), (got, leaf)


@given(hnp.arrays(np.int8, (2, 3)), st.floats(1e-6, 1e6), st.integers(-128, 127))
def test_what_was_quantised_comes_back(array, scale, zero_point):
    wanted = spec("int8", 2, 3, scale=scale, zero_point=zero_point)
    back, saturated = tensors.quantize(tensors.dequantize(array, wanted), wanted)
    same(back, array, np.int8)
    assert saturated == 0

"""Pictures made here, in files and arrays, against what each kind of tensor must get."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from tflite_hal.errors import InputError
from tflite_hal.images import fit, read_labels, top
from tflite_hal.model import Quantization, TensorSpec

RGB = np.random.default_rng(1).integers(0, 256, (6, 5, 3), np.uint8)
GREY = np.random.default_rng(2).integers(0, 256, (6, 5), np.uint8)


def spec(dtype, *shape, scale=None, zero_point=0, axis=0, name="picture"):
    scales = scale if isinstance(scale, tuple) else (scale,)
    points = zero_point if isinstance(zero_point, tuple) else (zero_point,)
    quantization = None if scale is None else Quantization(scales, points, axis)
    return TensorSpec(name, 0, shape, np.dtype(dtype), str(dtype), quantization, shape)


@pytest.fixture
def save(tmp_path: Path):
    def write(picture, name="a.png", **options) -> Path:
        image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
        image.save(tmp_path / name, **options)
        return tmp_path / name

    return write


# Where a picture comes from


def test_paths_pictures_and_arrays_give_the_same(save) -> None:
    path, wanted = save(RGB), spec("uint8", 1, 6, 5, 3)
    for image in (path, str(path), Image.fromarray(RGB), RGB, RGB[:, ::-1][:, ::-1]):
        fitted = fit(image, wanted)
        assert (fitted.dtype, fitted.shape) == (np.uint8, (1, 6, 5, 3))
        assert np.array_equal(fitted[0], RGB)
    assert np.array_equal(fit(GREY[..., np.newaxis], spec("uint8", 6, 5)), GREY)


def test_the_exif_orientation_is_applied(save) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise
    path, wanted = save(RGB, exif=exif), spec("uint8", -1, -1, 3)
    upright = np.rot90(RGB, -1)
    assert np.array_equal(fit(path, wanted), upright)
    with Image.open(path) as opened:
        assert np.array_equal(fit(opened, wanted), upright)


def test_colours_are_converted_both_ways(save) -> None:
    assert np.array_equal(fit(save(GREY), spec("uint8", 6, 5, 3)), np.stack([GREY] * 3, -1))
    luma = RGB @ np.array([0.299, 0.587, 0.114])
    assert np.abs(fit(RGB, spec("uint8", 6, 5, 1))[..., 0] - luma).max() <= 1


def test_transparency_is_dropped_or_kept_where_the_tensor_has_four_channels(save) -> None:
    rgba = np.dstack([RGB, GREY])
    for image in (rgba, save(rgba)):
        assert np.array_equal(fit(image, spec("uint8", 6, 5, 3)), RGB)
        assert np.array_equal(fit(image, spec("uint8", 6, 5, 4)), rgba)
    assert (fit(RGB, spec("uint8", 6, 5, 4))[..., 3] == 255).all()


def test_palettes_with_transparency_are_read_without_a_warning(save) -> None:
    palette = Image.fromarray(np.array([[0, 1], [1, 0]], np.uint8), "L").convert("P")
    palette.putpalette([10, 20, 30, 40, 50, 60])
    fitted = fit(save(palette, transparency=b"\x80\x00"), spec("uint8", 2, 2, 3))
    assert fitted.reshape(4, 3).tolist() == [[10, 20, 30], [40, 50, 60], [40, 50, 60], [10, 20, 30]]


def test_sixteen_bit_grey_is_scaled_not_clipped() -> None:
    deep = Image.fromarray(np.array([[0, 255, 256], [32768, 40000, 65535]], np.uint16))
    expected = [[0, 0, 1], [128, 156, 255]]
    assert fit(deep, spec("uint8", 2, 3)).tolist() == expected
    assert fit(deep, spec("uint8", 2, 3, 3))[..., 2].tolist() == expected


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_pictures_of_no_known_range_are_refused(dtype) -> None:
    with pytest.raises(InputError, match=r"no known range.*8 bits"):
        fit(Image.fromarray(np.ones((2, 2), dtype)), spec("uint8", 2, 2))


@pytest.mark.parametrize(
    "array",
    [
        RGB.astype(np.float32),
        RGB.astype(np.int8),
        RGB[..., :2],
        RGB[0, 0],
        RGB[np.newaxis],
        np.zeros((0, 5, 3), np.uint8),
    ],
    ids=lambda array: f"{array.dtype}{array.shape}",
)
def test_other_arrays_are_refused(array) -> None:
    with pytest.raises(InputError, match=f"uint8 of height.*{array.dtype}"):
        fit(array, spec("uint8", 6, 5, 3))


def test_what_is_no_picture_is_refused_by_name(tmp_path: Path) -> None:
    wanted = spec("uint8", 6, 5, 3)
    text = tmp_path / "notes.txt"
    text.write_text("no picture")
    for path in (text, tmp_path / "absent.png", tmp_path):
        with pytest.raises(InputError, match=f"{path.name}.*can't be read as a picture"):
            fit(path, wanted)
    for thing in (17, None, RGB.tolist()):
        with pytest.raises(InputError, match=f"not {type(thing).__name__}"):
            fit(thing, wanted)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.gif", "a.bmp"])
def test_damaged_files_are_input_errors_or_pictures(save, tmp_path: Path, name) -> None:
    content = save(np.kron(RGB, np.ones((8, 8, 1), np.uint8)), name).read_bytes()
    random, damaged = np.random.default_rng(3), tmp_path / f"damaged{Path(name).suffix}"
    cut = [content[: int(n)] for n in random.integers(0, len(content), 40)]
    flipped = [bytearray(content) for _ in range(80)]
    for each in flipped:
        each[int(random.integers(8, len(each)))] ^= 1 << int(random.integers(8))
    refused = 0
    for each in (*cut, *flipped):
        damaged.write_bytes(each)
        try:
            assert fit(damaged, spec("uint8", 6, 5, 3)).shape == (6, 5, 3)
        except InputError as error:
            refused += 1
            assert damaged.name in str(error)
    assert refused > 0


def test_without_pillow_the_remedy_is_named(tmp_path: Path) -> None:
    (tmp_path / "PIL").mkdir()
    (tmp_path / "PIL" / "__init__.py").write_text("raise ImportError('no Pillow here')")
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import numpy as np\n"
        "from tflite_hal import images, InputError, TensorSpec\n"
        "spec = TensorSpec('x', 0, (1, 1), np.dtype('uint8'), 'uint8', None, (1, 1))\n"
        "print(images.top([1, 2]))\n"
        "try: images.fit(np.zeros((1, 1), np.uint8), spec)\n"
        "except InputError as error: print(error.reason, '|', error.remedy)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == [
        "[('class 1', 2.0), ('class 0', 1.0)]",
        "reading pictures needs Pillow | pip install 'tflite-hal[image]'",
    ]


# The tensor's shape


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((1, 8, 4, 3), (1, 8, 4, 3)),
        ((1, 8, 4, 1), (1, 8, 4, 1)),
        ((1, 8, 4, 4), (1, 8, 4, 4)),
        ((8, 4, 3), (8, 4, 3)),
        ((1, 8, 4, 1), (1, 8, 4, 1)),
        ((1, 8, 7), (1, 8, 7)),
        ((8, 7), (8, 7)),
        ((-1, 8, 4, 3), (1, 8, 4, 3)),
        ((-1, -1, -1, 3), (1, 6, 5, 3)),
        ((1, -1, 4, 3), (1, 6, 4, 3)),
        ((1, 8, -1, 3), (1, 8, 5, 3)),
        ((-1, -1, 3), (6, 5, 3)),
        ((-1, -1, -1), (1, 6, 5)),
        ((-1, 7), (6, 7)),
        ((-1, -1), (6, 5)),
    ],
)
def test_shapes_of_images(shape, expected) -> None:
    assert fit(RGB, spec("uint8", *shape)).shape == expected


@pytest.mark.parametrize("shape", [(1, 3, 224, 224), (1, 1, 28, 28), (-1, 3, -1, -1), (3, 224, 224)])
def test_channels_first_is_refused_as_such(shape) -> None:
    with pytest.raises(InputError, match=r"'picture'.*channels last is expected"):
        fit(RGB, spec("float32", *shape))


@pytest.mark.parametrize(
    "shape", [(), (10,), (2, 8, 8, 3), (1, 8, 8, 2), (1, 0, 8, 3), (1, 8, 8, 3, 1), (1, 8, 8, -1), (5, 8, 8)]
)
def test_other_shapes_are_refused_by_name(shape) -> None:
    with pytest.raises(InputError, match=r"'picture'.*is no image") as caught:
        fit(RGB, spec("float32", *shape))
    assert str(list(shape)) in str(caught.value)


def test_the_whole_picture_is_resized() -> None:
    halves = np.zeros((4, 40), np.uint8)
    halves[:, 20:] = 200
    fitted = fit(halves, spec("uint8", 8, 4))
    assert (fitted[:, 0] == 0).all() and (fitted[:, -1] == 200).all()
    flat = fit(np.full((9, 31, 3), (1, 2, 3), np.uint8), spec("uint8", 1, 16, 16, 3))
    assert (flat == (1, 2, 3)).all()


# Values


def test_raw_pixels_where_mean_and_std_are_not_given() -> None:
    shape = (1, 6, 5, 3)
    assert np.array_equal(fit(RGB, spec("uint8", *shape, scale=0.5, zero_point=9))[0], RGB)
    signed = fit(RGB, spec("int8", *shape, scale=0.5, zero_point=9))
    assert signed.dtype == np.int8
    assert np.array_equal(signed[0].astype(int), RGB.astype(int) - 128)
    for dtype in ("int16", "int32", "int64"):
        fitted = fit(RGB, spec(dtype, *shape))
        assert fitted.dtype == dtype
        assert np.array_equal(fitted[0], RGB)


@pytest.mark.parametrize("dtype", ["float32", "float16", "float64"])
def test_floats_say_which_scaling_they_need(dtype) -> None:
    wanted = spec(dtype, 1, 6, 5, 3)
    with pytest.raises(InputError, match=r"'picture' is float.*does not say.*mean=0, std=255.*mean=127.5"):
        fit(RGB, wanted)
    fitted = fit(RGB, wanted, std=1)
    assert fitted.dtype == dtype
    assert np.array_equal(fitted[0], RGB)


def test_a_wrong_scaling_of_a_quantised_input_is_told() -> None:
    wanted = spec("int8", 1, 6, 5, 3, scale=1 / 128)
    with pytest.warns(UserWarning, match=r"'picture'.* of them are clipped; mean=0 and std=1 may") as caught:
        fitted = fit(RGB, wanted, mean=0, std=1)
    assert (fitted[RGB[np.newaxis] > 0] == 127).all()
    assert caught[0].filename == __file__
    white = np.full((6, 5, 3), 255, np.uint8)  # 1.0, a step beyond what the tensor takes
    assert (fit(white, wanted, mean=127.5, std=127.5) == 127).all()  # a warning would fail here


def test_quantised_int16_has_no_raw_pixels() -> None:
    wanted = spec("int16", 1, 6, 5, 3, scale=1 / 32768)
    with pytest.raises(InputError, match=r"'picture'.*give mean and std"):
        fit(RGB, wanted)
    fitted = fit(RGB, wanted, std=255)
    assert np.array_equal(fitted[0], np.minimum(np.rint(RGB / 255 * 32768), 32767))


def test_giving_the_defaults_is_not_leaving_them_out() -> None:
    pixels = np.array([[0, 3, 200]], np.uint8)
    wanted = spec("uint8", 1, 3, scale=2.0, zero_point=10)
    assert fit(pixels, wanted).tolist() == [[0, 3, 200]]
    for given_one in ({"mean": 0}, {"std": 1.0}, {"mean": 0.0, "std": 1.0}):
        assert fit(pixels, wanted, **given_one).tolist() == [[10, 12, 110]]  # 1.5 rounds to even


def test_mean_and_std_may_be_given_per_channel() -> None:
    mean, std = (123.675, 116.28, 103.53), np.array([58.395, 57.12, 57.375])
    fitted = fit(RGB, spec("float32", 1, 6, 5, 3), mean=mean, std=std)
    assert np.array_equal(fitted[0], ((RGB - np.array(mean)) / std).astype(np.float32))
    assert np.array_equal(fit(RGB, spec("float32", 6, 5, 3), mean=[2]), RGB.astype(np.float32) - 2)


def test_scales_per_axis_are_each_used() -> None:
    grey = np.full((1, 1), 100, np.uint8)
    last = spec("uint8", 1, 1, 1, 3, scale=(1.0, 2.0, 4.0), zero_point=(0, 1, 2), axis=3)
    assert fit(grey, last, mean=0).ravel().tolist() == [100, 51, 27]
    wrong = spec("uint8", 1, 1, 1, 3, scale=(1.0, 2.0), zero_point=(0, 0), axis=3)
    with pytest.raises(InputError, match=r"'picture'.*2 scales"):
        fit(grey, wrong, mean=0)


@pytest.mark.parametrize(
    ("values", "part"),
    [
        ({"std": 0}, "std=0"),
        ({"std": (1, 0, 1)}, "other than 0"),
        ({"mean": float("nan")}, "mean=nan"),
        ({"std": float("inf")}, "std=inf"),
        ({"mean": (1, 2)}, "3 channels"),
        ({"mean": ()}, "3 channels"),
        ({"std": [[1, 2, 3]]}, "3 channels"),
        ({"mean": "a"}, "mean='a'"),
        ({"mean": (1, None, 2)}, "mean="),
        ({"mean": ((1, 2), 3)}, "mean="),
    ],
)
def test_mean_and_std_are_checked(values, part) -> None:
    with pytest.raises(InputError, match=part):
        fit(RGB, spec("float32", 1, 6, 5, 3), **values)
    with pytest.raises(InputError, match="1 channels"):
        fit(RGB, spec("float32", 1, 6, 5, 1), mean=(1, 2, 3))


@pytest.mark.parametrize(
    ("wanted", "values", "part"),
    [
        (spec(object, 6, 5), {}, "numbers"),
        (spec("bool", 6, 5), {}, "numbers"),
        (spec("complex64", 6, 5), {}, "numbers"),
        (spec("uint8", 6, 5), {"mean": 0}, "without a scale"),
        (spec("int32", 6, 5, scale=1.0), {"mean": 0}, "int32"),
        (spec("int8", 6, 5, scale=0.0), {"mean": 0}, "not positive"),
    ],
)
def test_tensors_that_take_no_such_values_are_refused(wanted, values, part) -> None:
    with pytest.raises(InputError, match=f"'picture'.*{part}"):
        fit(RGB, wanted, **values)


sizes = st.integers(1, 12)
pictures = hnp.arrays(
    np.uint8,
    st.one_of(st.tuples(sizes, sizes), st.tuples(sizes, sizes, st.sampled_from([1, 3, 4]))),
)
dtypes = st.sampled_from(["float16", "float32", "float64", "uint8", "int8", "int16"])


@pytest.mark.filterwarnings("ignore:the picture's values")
@given(
    pictures, dtypes, st.sampled_from([1, 3, 4]), st.one_of(st.just(-1), sizes), st.one_of(st.just(-1), sizes)
)
def test_any_picture_fits_any_size_and_dtype(picture, dtype, channels, height, width) -> None:
    scale = None if dtype.startswith("float") else 1 / 64
    wanted = spec(dtype, -1, height, width, channels, scale=scale, zero_point=3 if scale else 0)
    fitted = fit(picture, wanted, mean=127.5, std=127.5)
    assert fitted.dtype == dtype
    own = (picture.shape[0] if height == -1 else height, picture.shape[1] if width == -1 else width)
    assert fitted.shape == (1, *own, channels)
    real = fitted.astype(np.float64) if scale is None else (fitted.astype(np.float64) - 3) * scale
    assert real.min() >= -1.01 and real.max() <= 1.01


@pytest.mark.filterwarnings("ignore:the picture's values")
@given(
    hnp.arrays(np.uint8, st.tuples(sizes, sizes, st.just(3))),
    st.sampled_from(["uint8", "int8", "int16"]),
    st.floats(1e-3, 10),
    st.integers(-128, 127),
    st.floats(-300, 300),
    st.floats(0.1, 300),
)
def test_quantised_values_are_the_nearest_in_range(picture, dtype, scale, zero, mean, std) -> None:
    wanted = spec(dtype, 1, *picture.shape, scale=scale, zero_point=zero)
    stored = fit(picture, wanted, mean=mean, std=std)[0].astype(np.float64)
    exact = (picture.astype(np.float64) - mean) / std / scale + zero
    limits = np.iinfo(dtype)
    assert np.abs(stored - np.clip(exact, limits.min, limits.max)).max() <= 0.5 + 1e-6


# Scores and labels


def test_the_best_come_first_and_ties_by_index() -> None:
    assert top([1, 3, 2, 3], list("abcd"), k=3) == [("b", 3.0), ("d", 3.0), ("c", 2.0)]
    assert top(np.array([[0.25, 0.5]], np.float32)) == [("class 1", 0.5), ("class 0", 0.25)]
    assert len(top(np.zeros(20))) == 5
    assert [name for name, _ in top([float("nan"), 1.0, -1.0])] == ["class 1", "class 2", "class 0"]


@given(
    st.sampled_from(["uint8", "int8", "int16", "uint64", "int64", "float16", "float32", "float64"]).flatmap(
        lambda dtype: hnp.arrays(
            dtype, st.integers(1, 30), elements={"allow_nan": False} if dtype[0] == "f" else None
        )
    ),
    st.integers(1, 40),
)
def test_top_orders_every_dtype(scores, k) -> None:
    expected = sorted(range(len(scores)), key=lambda i: (-scores[i].item(), i))[:k]
    assert top(scores, k=k) == [(f"class {i}", float(scores[i])) for i in expected]


@pytest.mark.parametrize(
    "scores", [[], 1.0, np.zeros((2, 3)), np.zeros((1, 1, 3)), [True, False], ["a"], [1j], [None]]
)
def test_other_scores_are_refused(scores) -> None:
    with pytest.raises(InputError, match="N or 1×N"):
        top(scores)


@pytest.mark.parametrize("count", [0, 999, 1001])
def test_a_background_is_not_guessed(count) -> None:
    with pytest.raises(InputError, match=f"{count} labels for 1000 scores"):
        top(np.zeros(1000), ["x"] * count)


@pytest.mark.parametrize("labels", ["labels.txt", b"labels.txt", Path("labels.txt"), "ab"])
def test_a_path_is_no_labels(labels) -> None:
    with pytest.raises(InputError, match=r"labels=.*read_labels"):
        top([1, 2], labels)


def test_all_outputs_or_all_inputs_are_not_one() -> None:
    with pytest.raises(InputError, match=r"scores is a mapping.*'a', 'b'"):
        top({"a": [1], "b": [2]})
    with pytest.raises(InputError, match=r"not one input.*runner.inputs\[0\]"):
        fit(RGB, (spec("uint8", 6, 5, 3),))


@pytest.mark.parametrize("k", [0, -1, 2.5, "3", None])
def test_k_is_checked(k) -> None:
    with pytest.raises(InputError, match=f"k={k!r}"):
        top([1, 2], k=k)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cat\ndog\n", ["cat", "dog"]),
        ("cat\r\ndog", ["cat", "dog"]),
        ("cat\n dog \n\n  \n", ["cat", "dog"]),
        ("cat\n\ndog\n", ["cat", "", "dog"]),
        ("\ufeffcat\nKäse", ["cat", "Käse"]),
        ("a\x0cb\nc\u2028d\n", ["a\x0cb", "c\u2028d"]),
        ("0 background\n1 tench\n2  great white shark\n", ["background", "tench", "great white shark"]),
        ("0: background\n1:tench\n2 : 3 fish\n", ["background", "tench", "3 fish"]),
        ("0\tcat\n1\tdog", ["cat", "dog"]),
        ("\n".join(f"{i} n{i}" for i in range(12)), [f"n{i}" for i in range(12)]),
        ("0 person\n2 car\n", ["0 person", "2 car"]),  # not the line's own number
        ("0 cat\ndog\n", ["0 cat", "dog"]),
        ("1 euro\n2 euro\n", ["1 euro", "2 euro"]),
        ("0\n1\n2\n", ["0", "1", "2"]),  # the digits themselves
        ("0th\n1st\n", ["0th", "1st"]),
    ],
)
def test_label_files(tmp_path: Path, text, expected) -> None:
    path = tmp_path / "labels.txt"
    path.write_bytes(text.encode())
    assert read_labels(path) == read_labels(str(path)) == expected


def test_label_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "latin.txt").write_bytes("Käse\n".encode("latin-1"))
    (tmp_path / "empty.txt").write_text("\n\n")
    for name in ("latin.txt", "empty.txt", "absent.txt", "."):
        path = tmp_path / name
        with pytest.raises(InputError) as caught:
            read_labels(path)
        assert str(path) in str(caught.value)


def test_real_labels(models: Path) -> None:
    labels = read_labels(models / "imagenet_labels.txt")
    assert (len(labels), labels[0], labels[2]) == (1001, "background", "goldfish, Carassius auratus")
    assert labels[-1] == "toilet tissue, toilet paper, bathroom tissue"


def test_a_real_photograph(models: Path) -> None:
    fitted = fit(models / "parrot.jpg", spec("uint8", 1, 128, 128, 3, scale=1 / 128, zero_point=128))
    assert (fitted.shape, fitted.dtype) == ((1, 128, 128, 3), np.uint8)
    assert fitted.std() > 20

"""Types of values, invalid pixels, clipping and each image's statistics, against NumPy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from segreg.config.sections import Input
from segreg.data.images import read_image
from segreg.data.values import as_network_input, as_shown, ignore_invalid, image_statistics, own_dtype, read_values
from segreg.errors import SegregError

FILE = Path("data/a.tif")
NOISE = np.random.default_rng(0)


def section(**settings):
    return Input(**{"channels": 1, "normalize": "none", **settings})


def noise(dtype, *shape):
    if np.dtype(dtype).kind == "f":
        return NOISE.normal(1000, 300, shape).astype(dtype)
    return NOISE.integers(0, np.iinfo(dtype).max, shape, endpoint=True, dtype=dtype)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_values_keep_their_type_and_what_is_not_changed_is_not_copied(dtype):
    image = noise(dtype, 5, 7, 3)
    values, invalid = read_values(image, section(channels=3), FILE)
    assert np.shares_memory(values, image)
    assert values.dtype == dtype
    assert invalid is None
    assert as_network_input(values, section(channels=3)).dtype == ("uint8" if dtype == "uint8" else "float32")
    np.testing.assert_array_equal(as_network_input(values, section(channels=3)), image)


@pytest.mark.parametrize(
    ("given", "becomes"),
    [("bool", "uint8"), ("int16", "uint16"), ("int64", "uint16"), ("float16", "float32"), ("float64", "float32"),
     (">u2", "uint16"), (">f4", "float32")],
)  # fmt: skip
def test_other_types_become_one_of_three_where_nothing_is_lost(given, becomes):
    image = np.array([[0, 1], [1, 1]]).astype(given)
    values, _ = read_values(image, section(), FILE)
    assert values.dtype == becomes
    np.testing.assert_array_equal(values[..., 0] > 0, image > 0)


@pytest.mark.parametrize(
    ("image", "words"),
    [(np.array([[-1, 2]], np.int16), "-1 to 2"), (np.array([[70000]], np.uint32), "70000"),
     (np.array([[1e300]]), "float32"), (np.array([[1j]]), "complex")],
)  # fmt: skip
def test_what_no_type_holds_is_refused_by_name(image, words):
    with pytest.raises(SegregError, match=FILE.name) as raised:
        read_values(image, section(), FILE)
    assert words in str(raised.value)


def test_types_meet():
    eight, sixteen, floating = (noise(dtype, 4, 4) for dtype in ("uint8", "uint16", "float32"))
    widened, _ = read_values(eight, section(dtype="uint16"), FILE)
    np.testing.assert_array_equal(widened[..., 0], eight.astype(np.uint16) * 257)
    reduced, _ = read_values(sixteen, section(dtype="uint8", sixteen_bit="full_range"), FILE)
    np.testing.assert_array_equal(reduced[..., 0], np.rint(sixteen / 257))
    for image, input, hint in (
        (sixteen, section(dtype="uint8"), "input.sixteen_bit"),
        (eight, section(dtype="float32"), "one type"),
        (floating, section(dtype="uint16"), "one type"),
        (floating, section(dtype="uint8", sixteen_bit="min_max"), "one type"),
    ):
        with pytest.raises(SegregError, match=FILE.name) as raised:
            read_values(image, input, FILE)
        assert hint in str(raised.value)
    assert [own_dtype(one, section()) for one in (eight, sixteen, floating)] == ["uint8", "uint16", "float32"]
    assert own_dtype(sixteen, section(sixteen_bit="min_max")) == "uint8"


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_nodata_and_what_is_not_finite_is_filled_and_ignored(dtype):
    image = noise(dtype, 6, 5, 2)
    image[0, 0, 0] = image[3, 4, 1] = 7
    image[image == 7] = 8
    image[0, 0, 0] = image[3, 4, 1] = 7
    if dtype == "float32":
        image[1, 1, 1], image[2, 2, 0] = np.nan, np.inf
    expected = (image == 7).any(axis=2) | ~np.isfinite(image).all(axis=2)
    values, invalid = read_values(image, section(channels=2, nodata=7), FILE)
    np.testing.assert_array_equal(invalid, expected)
    np.testing.assert_array_equal(values[~expected], image[~expected])
    mean = image[~expected].astype(np.float64).mean(axis=0)
    np.testing.assert_allclose(values[expected], np.tile(mean, (expected.sum(), 1)), atol=0.51, rtol=1e-6)
    assert ignore_invalid(np.zeros((6, 5), np.uint8), invalid).sum() == 255 * expected.sum()
    assert ignore_invalid(np.zeros((3, 6, 5), np.uint8), invalid).sum() == 3 * 255 * expected.sum()
    nothing, everywhere = read_values(np.full((4, 4), 7, dtype), section(nodata=7), FILE)
    assert everywhere.all()
    assert not nothing.any()


def test_a_value_that_float32_rounds_is_nodata_all_the_same():
    image = np.array([[-3.4028234663852886e38, 0.1], [2, 3]], np.float32)
    for nodata, place in ((-3.4028234663852886e38, (0, 0)), (0.1, (0, 1))):
        assert np.argwhere(read_values(image, section(nodata=nodata), FILE)[1]).tolist() == [list(place)]


@pytest.mark.parametrize(("dtype", "top"), [("uint8", 255), ("uint16", 65535), ("float32", 1)])
def test_clip_stretches_between_numpys_percentiles(dtype, top):
    image = noise(dtype, 40, 30, 2)
    image[:2, :3] = 9
    valid = ~(image == 9).any(axis=2)
    values, _ = read_values(image, section(channels=2, clip=(2, 97), nodata=9), FILE)
    low, high = np.percentile(image[valid], (2, 97), axis=0)
    expected = np.clip((image.astype(np.float64) - low) / (high - low), 0, 1) * top
    expected = expected if dtype == "float32" else np.rint(expected)
    np.testing.assert_allclose(values[valid], expected[valid], rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(values[~valid][0], expected[valid].mean(axis=0), atol=0.51, rtol=1e-6)
    assert values.dtype == dtype
    assert read_values(np.full((4, 4), 5, dtype), section(clip=(0.5, 99.5)), FILE)[0].max() == 0


def test_clip_comes_before_eight_bits_and_after_nothing_is_left_out():
    image = (np.arange(1024, dtype=np.uint16) % 1000).reshape(32, 32)
    values, _ = read_values(image, section(clip=(0, 100), sixteen_bit="full_range"), FILE)
    assert values.dtype == np.uint8
    assert len(np.unique(values)) == 256


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_statistics_and_z_scores_are_numpys(dtype, monkeypatch):
    image = noise(dtype, 50, 40, 3)
    invalid = NOISE.random((50, 40)) < 0.2
    for at_once in (1 << 22, 500):
        monkeypatch.setattr("segreg.data.values._AT_ONCE", at_once)
        for mask, pixels in ((None, image.reshape(-1, 3)), (invalid, image[~invalid])):
            found = image_statistics(image, mask)
            wide = pixels.astype(np.float64)
            np.testing.assert_array_equal(found.pixels, len(pixels))
            np.testing.assert_allclose(found.mean, wide.mean(axis=0), rtol=1e-12)
            np.testing.assert_allclose(found.std, wide.std(axis=0), rtol=1e-12)
            np.testing.assert_array_equal((found.least, found.most), (wide.min(axis=0), wide.max(axis=0)))
    scores = as_network_input(image[10:20], section(channels=3, normalize="per_image"), image_statistics(image))
    wide = image.astype(np.float64)
    np.testing.assert_allclose(scores, ((wide - wide.mean((0, 1))) / wide.std((0, 1)))[10:20], atol=1e-5)
    assert scores.dtype == np.float32
    constant = np.full((4, 4, 1), 7, dtype)
    assert not as_network_input(constant, section(normalize="per_image"), image_statistics(constant)).any()
    empty = image_statistics(constant, np.ones((4, 4), np.bool_))
    assert [float(one[0]) for one in empty] == [0, 0, 0, 0, 0]


def test_wide_images_are_shown_in_eight_bits():
    ramp = np.linspace(-5, 5, 4096, dtype=np.float32).reshape(64, 64)
    ramp[0, 0], ramp[0, 1] = np.nan, np.inf
    shown = as_shown(ramp)
    assert shown.dtype == np.uint8
    assert (shown[0, 0], shown[0, 1], shown[-1, -1]) == (0, 255, 255)
    assert len(np.unique(as_shown(np.arange(512, dtype=np.uint16)))) == 256
    assert not as_shown(np.full((4, 4), np.nan)).any()
    eight = noise("uint8", 4, 4, 3)
    assert as_shown(eight) is eight


def test_floating_point_tiffs_are_read(tmp_path):
    import tifffile

    image = noise("float64", 6, 5, 4)
    image[0, 0, 0] = np.nan
    tifffile.imwrite(tmp_path / "a.tif", image, photometric="minisblack", planarconfig="contig")
    read = read_image(tmp_path / "a.tif")
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, image.astype(np.float32))

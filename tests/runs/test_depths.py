"""Runs on images of more than 8 bits: what they learn from, what a run notes, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import tifffile

import segreg
import small_runs
from segreg.errors import SegregError

RECIPE = small_runs.RECIPE.replace(
    "dataset: {name: synthetic_lesions, root: images, samples: 24, size: 48}",
    "dataset: {name: folder, images: root/images, masks: root/masks}",
).replace("input: {size: [32, 32]}", "input: {size: [32, 32], channels: 1, normalize: dataset}")


pytestmark = pytest.mark.usefixtures("three_convolutions", "undrawn")


def write_images(folder, dtype="uint16", least=10_000):
    """Write images of 32x32 whose masks can be told from their lower 10 bits alone: 8 bits have one level for all."""
    drawn = np.random.default_rng(0)
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for number in range(24):
        mask = np.zeros((32, 32), np.uint8)
        top, left = drawn.integers(0, 17, 2)
        mask[top : top + 16, left : left + 16] = 1
        values = least + 100 * mask.astype(int) + drawn.integers(0, 20, mask.shape)
        tifffile.imwrite(folder / "images" / f"{number:02}.tif", values.astype(dtype))
        tifffile.imwrite(folder / "masks" / f"{number:02}.tif", mask)
    return folder


def run(folder, *overrides):
    return small_runs.run(folder, *overrides, text=RECIPE.replace("root/", f"{folder}/"))


def test_what_lies_below_8_bits_is_learned_and_is_not_where_they_are_reduced(tmp_path):
    write_images(tmp_path)
    kept = run(tmp_path)
    reduced = run(tmp_path, "input.sixteen_bit=full_range", "input.normalize=none")
    assert [one.recipe.input.dtype for one in (kept, reduced)] == ["uint16", "uint8"]
    assert kept.results["metrics"]["test"]["iou.pooled"] > 0.7
    assert reduced.results["metrics"]["test"]["iou.pooled"] < 0.5
    # What is scored is what is predicted, and an 8-bit image is given to it as 16 bits.
    image = tifffile.imread(tmp_path / "images" / "00.tif")
    np.testing.assert_array_equal(kept.predict(image), kept.predict(tmp_path / "images" / "00.tif"))
    shown = (image // 257).astype(np.uint8)
    np.testing.assert_array_equal(kept.predict(shown), kept.predict(shown.astype(np.uint16) * 257))
    tifffile.imwrite(tmp_path / "floating.tif", image.astype(np.float32))
    with pytest.raises(SegregError, match=r"floating\.tif: .*float32"):
        kept.predict(tmp_path / "floating.tif")


def test_floating_point_images_are_normalised_by_themselves(tmp_path):
    write_images(tmp_path, "float32", least=-700)
    for file in (tmp_path / "images").iterdir():
        values = tifffile.imread(file)
        values[:3, :3] = np.nan
        tifffile.imwrite(file, values)
    made = run(tmp_path, "input.normalize=per_image", "train.epochs=1", "evaluate.resolution=original")
    assert made.recipe.input.dtype == "float32"
    image = tifffile.imread(tmp_path / "images" / "00.tif")
    seen = made.preprocess(image)[0, 0].numpy()
    valid = np.isfinite(image)
    np.testing.assert_allclose(seen[valid], (image[valid] - image[valid].mean()) / image[valid].std(), atol=1e-4)
    assert not seen[~valid].any()
    again = segreg.evaluate(made, progress="quiet").scores
    assert again["iou.pooled"] == made.results["metrics"]["test"]["iou.pooled"]


@pytest.mark.parametrize(
    ("dtype", "least", "overrides", "words"),
    [
        ("uint16", 100, ["input.normalize=encoder"], ["none of their values is above 21", "input.clip"]),
        ("float32", -700, ["input.normalize=encoder"], ["values from -700 to -58", "per_image"]),
        ("float32", 0, ["augment=RandomBrightnessContrast"], ['"RandomBrightnessContrast" needs 8-bit', "input.clip"]),
        ("uint16", 0, ["augment=RandomGamma"], ['"RandomGamma" needs 8-bit', "input.sixteen_bit"]),
    ],
)
def test_what_would_be_lost_is_refused_before_training(tmp_path, dtype, least, overrides, words):
    write_images(tmp_path, dtype, least)
    with pytest.raises(SegregError) as raised:
        run(tmp_path, *overrides)
    assert all(word in str(raised.value) for word in words)


@pytest.mark.skipif("SEGREG_REAL_DATA" not in os.environ, reason="needs the real images")
def test_real_16_bit_images_are_learned_and_predicted(tmp_path):
    root = Path(os.environ["SEGREG_REAL_DATA"]) / "nonrgb/uint16_instances"
    image = tifffile.imread(next((root / "images").iterdir()))
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    mask = (tifffile.imread(next((root / "masks").iterdir())) > 0).astype(np.uint8)
    for number in range(8):  # its quarters, twice
        top, left = (part * (side // 2) for part, side in zip(divmod(number % 4, 2), image.shape, strict=True))
        part = slice(top, top + image.shape[0] // 2), slice(left, left + image.shape[1] // 2)
        tifffile.imwrite(tmp_path / "images" / f"{number}.tif", image[part])
        tifffile.imwrite(tmp_path / "masks" / f"{number}.tif", mask[part])
    made = run(tmp_path, "train.epochs=1")
    assert made.recipe.input.dtype == "uint16"
    assert made.predict(tmp_path / "images" / "0.tif").shape == (image.shape[0] // 2, image.shape[1] // 2)

"""Small regions and small holes, against SciPy's labelling and filling."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

import tiny_runs
from segreg import api
from segreg.errors import SegregError
from segreg.inference.cleaning import Cleaning, clean
from segreg.task import Task

BINARY = Task(("cell",), "binary")


def without_small(mask, area):
    regions, count = ndimage.label(mask, np.ones((3, 3)))
    sizes = ndimage.sum_labels(mask, regions, range(1, count + 1))
    return mask & ~np.isin(regions, 1 + np.flatnonzero(sizes < area))


def filled(mask, area):
    holes = ndimage.binary_fill_holes(mask) & ~mask
    regions, count = ndimage.label(holes)
    sizes = ndimage.sum_labels(holes, regions, range(1, count + 1))
    return mask | np.isin(regions, 1 + np.flatnonzero(sizes < area))


def blobs(seed, size=(60, 70), share=0.5):
    smooth = ndimage.gaussian_filter(np.random.default_rng(seed).random(size), 1.2)
    return smooth > np.quantile(smooth, 1 - share)


@pytest.mark.parametrize("share", [0.3, 0.5, 0.75])
def test_regions_and_holes_are_scipys(share):
    changed = 0
    for seed in range(10):
        mask = blobs(seed, share=share)
        changed += (filled(mask, 6) ^ mask).any() and (without_small(mask, 6) ^ mask).any()
        for area in (1, 2, 6, 30, 5000):
            assert np.array_equal(
                clean(mask.astype(np.uint8), BINARY, Cleaning(min_area=area)), without_small(mask, area)
            )
            assert np.array_equal(clean(mask.astype(np.uint8), BINARY, Cleaning(fill_holes=area)), filled(mask, area))
        both = clean(mask.astype(np.uint8), BINARY, Cleaning(9, 12))
        assert np.array_equal(both, filled(without_small(mask, 9), 12)), "regions go first"
    assert changed


def test_classes_that_overlap_are_cleaned_each_for_itself():
    masks = np.stack([blobs(1), blobs(2, share=0.7)])
    found = clean(masks.astype(np.uint8), Task(("a", "b"), "multilabel"), Cleaning(9, 12))
    assert np.array_equal(found, [filled(without_small(mask, 9), 12) for mask in masks])


def test_regions_of_classes_become_background_and_holes_the_class_around_them():
    labels = np.zeros((12, 16), np.uint8)
    labels[1:6, 1:6] = 1
    labels[3, 3] = 0  # a hole
    labels[7:11, 1:6] = 2
    labels[8, 2] = 1  # too small, and then a hole of the 2 around it
    labels[1:6, 8:11], labels[1:6, 11:14] = 1, 2
    labels[3, 10] = 0  # between two classes: no class alone surrounds it
    labels[0, 15] = 2
    task = Task(("Background", "one", "two"), "multiclass")
    wanted = labels.copy()
    wanted[3, 3], wanted[8, 2], wanted[0, 15] = 1, 2, 0
    assert np.array_equal(clean(labels, task, Cleaning(min_area=2, fill_holes=2)), wanted)
    with pytest.raises(SegregError, match='the first class is "sky"'):
        clean(labels, Task(("sky", "one", "two"), "multiclass"), Cleaning(min_area=2))


def test_nothing_is_cleaned_by_default_and_less_than_nothing_is_refused():
    assert not Cleaning()
    with pytest.raises(SegregError, match="min_area must be a number of pixels, 0 at least, not -1"):
        Cleaning(min_area=-1)


def test_predict_writes_cleaned_masks(segreg, tmp_path, tmp_path_factory):
    run = tiny_runs.finished(tmp_path_factory)
    images, _ = tiny_runs.folder_dataset(tmp_path / "data", count=3)
    words = ("predict", run.directory.path, images, "--device", "cpu", "--quiet")
    assert segreg(*words, "--out", tmp_path / "raw").status == 0
    cleaning = ("--min-area", "40", "--fill-holes", "25")
    assert segreg(*words, "--out", tmp_path / "clean", *cleaning).status == 0
    for file in sorted((tmp_path / "raw" / "masks").iterdir()):
        raw, cleaned = (np.asarray(Image.open(tmp_path / name / "masks" / file.name)) > 0 for name in ("raw", "clean"))
        assert np.array_equal(cleaned, filled(without_small(raw, 40), 25))
    settings = json.loads((tmp_path / "clean" / "prediction.json").read_text())["settings"]
    assert (settings["min_area"], settings["fill_holes"]) == (40, 25)
    (labels,) = api.predict(run, images / "image 00.png", device="cpu", min_area=40, fill_holes=25)
    assert np.array_equal(labels, np.asarray(Image.open(tmp_path / "clean" / "masks" / "image 00.png")) > 0)
    printed = segreg(*words, "--out", tmp_path / "clean", "--skip-existing")
    assert "min_area was 40, now null" in printed.err
    assert segreg(*words, "--out", tmp_path / "x", "--min-area", "-1").err.startswith(
        "error: --min-area must be at least 0"
    )

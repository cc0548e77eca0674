"""Finding copies: recoloured, mirrored, turned, shifted, saved as JPEG - and not what merely looks similar."""

from __future__ import annotations

import io
import os
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from segreg.data.images import read_image
from segreg.data.inspection.leaks import ORIENTATIONS, _blur, alike_pairs, clusters, turned
from segreg.data.inspection.scan import SIDE, thumbnail

REAL = os.environ.get("SEGREG_REAL_DATA")
needs_real = pytest.mark.skipif(not REAL, reason="SEGREG_REAL_DATA is not set")


def image(seed, size=(200, 160)):
    """A image with detail of all sizes."""
    drawn = np.random.default_rng(seed)
    layers = [
        Image.fromarray(drawn.integers(0, 256, (k, k, 3), dtype=np.uint8)).resize(size[::-1], Image.Resampling.BICUBIC)
        for k in (4, 9, 20, 40)
    ]
    return np.mean([np.asarray(layer, np.float32) for layer in layers], axis=0).astype(np.uint8)


def blob(seed, size=200):
    """A dark spot in the middle of a bright ground: what all images of a kind have in common."""
    drawn = np.random.default_rng(seed)
    rows, columns = np.mgrid[:size, :size] - size / 2
    angle = np.arctan2(rows, columns)
    radius = 40 + sum(drawn.normal(0, 4) * np.cos(k * angle + drawn.uniform(0, 6)) for k in range(2, 7))
    image = np.where(np.hypot(rows, columns) < radius, 90, 190)[..., None] + drawn.normal(0, 12, (size, size, 3))
    return np.clip(image, 0, 255).astype(np.uint8)


def likeness(one, other):
    pairs = alike_pairs([thumbnail(one), thumbnail(other)], threshold=-1.0)
    return pairs[0].likeness if pairs else 0.0


def as_jpeg(image, quality):
    file = io.BytesIO()
    Image.fromarray(image).save(file, format="JPEG", quality=quality)
    return np.asarray(Image.open(file))


COPIES = {
    "itself": lambda image: image,
    "recoloured": lambda image: np.clip(image * np.array([0.6, 0.8, 0.5]) + [40, 0, 10], 0, 255).astype(np.uint8),
    "grey": lambda image: image.mean(axis=2).astype(np.uint8),
    "16 bits": lambda image: image.astype(np.uint16) * 100 + 2000,
    "with alpha": lambda image: np.dstack([image, np.full(image.shape[:2], 255, np.uint8)]),
    "JPEG": lambda image: as_jpeg(image, 30),
    "smaller": lambda image: np.asarray(Image.fromarray(image).resize((90, 70), Image.Resampling.BICUBIC)),
    "shifted": lambda image: np.roll(image, (4, -3), axis=(0, 1)),
    "cropped": lambda image: image[3:-3, 3:-3],
}


@pytest.mark.parametrize("copy", COPIES)
def test_a_copy_is_found(copy):
    for seed in range(5):
        picked = image(seed)
        assert likeness(picked, COPIES[copy](picked)) > 0.6


def test_other_images_are_not_copies():
    assert alike_pairs([thumbnail(image(seed)) for seed in range(60)]) == []
    # Spots that have nothing but their round form: of 780 pairs in eight orientations hardly any.
    assert len(alike_pairs([thumbnail(blob(seed)) for seed in range(40)])) <= 4


@pytest.mark.parametrize("way", range(8))
def test_the_orientation_that_is_reported_turns_the_second_onto_the_first(way):
    first = image(7)
    second = turned(first, way)
    (pair,) = alike_pairs([thumbnail(first), thumbnail(second)])
    assert (pair.first, pair.second) == (0, 1)
    assert np.array_equal(turned(second, pair.orientation), first)
    assert "turned" in ORIENTATIONS[way] or way < 2


def test_each_pair_is_reported_once_whatever_the_number_of_images(monkeypatch):
    """More images than are multiplied at once, so that copies lie in other blocks than their originals."""
    monkeypatch.setattr("segreg.data.inspection.leaks._BLOCK", 32)
    images = [thumbnail(image(seed, (64, 64))) for seed in range(80)]
    images[3] = turned(images[70], 2)
    images[75] = images[1]
    pairs = alike_pairs(images)
    assert [(pair.first, pair.second) for pair in pairs] == [(1, 75), (3, 70)]
    assert pairs[0].likeness == pytest.approx(1.0, abs=1e-5)


def test_frames_of_a_film_are_compared_in_little_time():
    scene = np.random.default_rng(0).integers(0, 256, (64, 64))
    grain = np.random.default_rng(1).integers(-40, 41, (150, 64, 64))
    begun = time.process_time()
    assert len(alike_pairs(list(np.clip(scene + grain, 0, 255).astype(np.uint8)))) == 150 * 149 // 2
    assert time.process_time() - begun < 3


@pytest.mark.parametrize("value", [0, 128, 255])
def test_images_without_detail_are_like_nothing(value):
    flat = np.full((SIDE, SIDE), value, np.uint8)
    nearly = flat + np.random.default_rng(0).integers(0, 2, flat.shape).astype(np.uint8) * (value < 255)
    assert alike_pairs([flat, flat, thumbnail(image(0))]) == []
    assert alike_pairs([flat, nearly.astype(np.uint8)]) == []
    assert alike_pairs([]) == alike_pairs([flat]) == []


@pytest.mark.parametrize("sigma", [2.0, 4.0])
def test_the_blur_is_a_gaussian(sigma):
    image = np.random.default_rng(0).random((64, 64))
    matrix = _blur(64, sigma)
    assert matrix @ image @ matrix.T == pytest.approx(gaussian_filter(image, sigma, mode="nearest"), abs=1e-5)


def test_clusters_are_connected_components():
    assert clusters([(9, 4), (1, 7), (7, 30), (4, 5), (1, 30), (2, 2)]) == [[1, 7, 30], [2], [4, 5, 9]]
    drawn = np.random.default_rng(0)
    pairs = [(int(a), int(b)) for a, b in drawn.integers(0, 60, (40, 2))]
    expected = {item: {item} for pair in pairs for item in pair}
    for _ in range(60):
        for first, second in pairs:
            expected[first] |= expected[second]
            expected[second] |= expected[first]
    assert clusters(pairs) == sorted({tuple(sorted(found)): sorted(found) for found in expected.values()}.values())


@needs_real
@pytest.mark.real
@pytest.mark.slow
def test_of_real_lesions_it_takes_the_same_ones_and_no_others():
    """All seven were looked at; one of them is known as a pair of the archive."""
    alike = {
        (12756, 13184), (186, 14698), (230, 14763), (182, 15395), (189, 15161), (227, 15034), (225, 14778),
    }  # fmt: skip
    every = sorted((Path(REAL) / "isic" / "ISIC2018_Task1-2_Training_Input").glob("*.jpg"))
    theirs = {number for pair in alike for number in pair}
    files = [file for place, file in enumerate(every) if place % 3 == 0 or int(file.stem[5:]) in theirs]
    pairs = alike_pairs([thumbnail(read_image(file)) for file in files])
    assert {tuple(int(files[i].stem[5:]) for i in (p.first, p.second)) for p in pairs} == alike

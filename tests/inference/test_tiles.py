"""Tiles: that they cover, that their weights sum to one, and that blending leaves nothing of them to be seen."""

from __future__ import annotations

import numpy as np
import pytest

from segreg.inference.tiles import blend, tile_starts, tile_weights

CASES = [
    (length, tile, overlap)
    for length in (1, 2, 7, 64, 100, 101, 255, 1000)
    for tile in (1, 2, 5, 64, 100)
    for overlap in (0.0, 0.1, 0.25, 0.5, 0.75, 0.9)
    if tile <= length
]


@pytest.mark.parametrize(("length", "tile", "overlap"), CASES)
def test_tiles_cover_overlap_enough_and_are_no_more_than_needed(length, tile, overlap):
    starts = tile_starts(length, tile, overlap)
    assert starts[0] == 0
    assert starts[-1] == length - tile
    steps = np.diff(starts)
    assert (steps >= 1).all()
    most = max(1, int(tile * (1 - overlap) + 1e-9))
    assert (steps <= most).all()
    assert np.ptp(steps) <= 1 if len(steps) else True  # evenly spread
    assert (len(starts) - 2) * most < length - tile or len(starts) == 1  # one tile fewer would not do


@pytest.mark.parametrize(("length", "tile", "overlap"), CASES)
def test_the_weights_of_all_tiles_sum_to_one_at_every_pixel(length, tile, overlap):
    starts = tile_starts(length, tile, overlap)
    weights = tile_weights(length, tile, starts)
    total = np.zeros(length)
    for start, own in zip(starts, weights, strict=True):
        total[start : start + tile] += own
    np.testing.assert_allclose(total, 1, rtol=1e-12)
    assert (weights >= 0).all()
    for before, after in zip(range(len(starts) - 1), range(1, len(starts)), strict=True):
        margin = 3 * (starts[before] + tile - starts[after]) // 8  # where a tile shows what its border did
        assert not weights[before, tile - margin :].any()
        assert not weights[after, :margin].any()


def test_weights_by_hand():
    # Two tiles of ten pixels that share eight: of their middle two, a quarter and three quarters of half a cosine.
    low, high = np.sin(np.pi / 8) ** 2, np.sin(3 * np.pi / 8) ** 2
    weights = tile_weights(12, 10, [0, 2])
    ones, none = [1, 1, 1, 1, 1], [0, 0, 0]
    np.testing.assert_allclose(weights, [[*ones, high, low, *none], [*none, low, high, *ones]], rtol=1e-12, atol=1e-16)


def test_weights_fade_smoothly_from_one_tile_to_the_next():
    weights = tile_weights(160, 100, tile_starts(160, 100, 0.4))
    assert weights.shape == (2, 100)
    first = weights[0][60:]  # where the second tile lies below it
    assert (first[:15] == 1).all()
    assert (np.diff(first[15:25]) < 0).all()
    assert (first[25:] == 0).all()
    assert np.abs(np.diff(weights[0])).max() < 0.16


def spied(image, tile, calls):
    """Return what looks at tiles of an image `[K, H, W]` and sees it as it is, noting the corners."""

    def look(corners):
        calls.append(list(corners))
        return np.stack([image[:, top : top + tile[0], left : left + tile[1]] for top, left in corners])

    return look


@pytest.mark.parametrize("size", [(1, 1), (5, 90), (37, 41), (64, 64), (100, 33)])
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.6])
@pytest.mark.parametrize("at_once", [1, 3, 100])
def test_a_map_that_all_tiles_agree_on_is_kept_row_for_row(size, overlap, at_once):
    image = np.random.default_rng(0).random((3, *size), np.float32)
    tile = min(16, size[0]), min(24, size[1])
    calls = []
    rows, tops = [], []
    for top, part in blend(size, tile, overlap, spied(image, tile, calls), channels=3, at_once=at_once):
        tops.append(top)
        rows.append(part)
    assert all(len(corners) <= at_once for corners in calls)
    assert tops == list(np.cumsum([0, *(part.shape[1] for part in rows)])[:-1])
    np.testing.assert_allclose(np.concatenate(rows, axis=1), image, rtol=0, atol=1e-6)
    looked = [corner for corners in calls for corner in corners]
    assert len(looked) == len(set(looked))


@pytest.mark.parametrize("overlap", [0.0, 0.3, 0.7])
def test_blending_against_a_plain_sum_over_the_whole_image(overlap):
    drawn = np.random.default_rng(1)
    size, tile = (50, 67), (16, 20)
    maps = {}

    def look(corners):
        for corner in corners:
            maps[corner] = drawn.random((2, *tile), np.float32)  # every tile says something else
        return np.stack([maps[corner] for corner in corners])

    blended = np.concatenate([part for _, part in blend(size, tile, overlap, look, channels=2, at_once=4)], axis=1)
    starts = [tile_starts(length, side, overlap) for length, side in zip(size, tile, strict=True)]
    down, across = (tile_weights(*each) for each in zip(size, tile, starts, strict=True))
    total = np.zeros((2, *size))
    for (top, left), values in maps.items():
        window = np.outer(down[starts[0].index(top)], across[starts[1].index(left)])
        total[:, top : top + 16, left : left + 20] += window * values
    np.testing.assert_allclose(blended, total, rtol=0, atol=1e-6)


def test_what_is_given_stays_as_it_was_when_the_next_rows_come():
    image = np.random.default_rng(2).random((1, 40, 16), np.float32)
    parts = list(blend((40, 16), (16, 16), 0.5, spied(image, (16, 16), []), channels=1))
    np.testing.assert_allclose(np.concatenate([part for _, part in parts], axis=1), image, atol=1e-6)


def test_only_a_row_of_tiles_is_held_however_tall_the_image(monkeypatch):
    image = np.ones((2, 4000, 32), np.float32)
    sizes = []
    zeros = np.zeros

    def spy(shape, *given):
        sizes.append(np.prod(shape))
        return zeros(shape, *given)

    monkeypatch.setattr("segreg.inference.tiles.np.zeros", spy)
    parts = blend((4000, 32), (16, 16), 0.25, spied(image, (16, 16), []), channels=2)
    assert max(part.size for _, part in parts) <= 2 * 16 * 32
    assert max(sizes) <= 4000  # the sum of the weights along one side

"""The dataset `synthetic_lesions`: the same files for the same seed, exact masks, drawn once."""

from __future__ import annotations

import hashlib
import multiprocessing
from pathlib import Path

import cv2
import numpy as np
import pytest

from segreg.errors import SegregError
from segreg_plugins.datasets.drawing import draw
from segreg_plugins.datasets.synthetic_lesions import drawn_set, synthetic_lesions

SIZE = 64


def contents(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_a_set_has_the_layout_of_isic_and_is_read_like_it(tmp_path):
    dataset = synthetic_lesions(root=tmp_path / "new" / "root", samples=3, size=SIZE)
    assert [s.id for s in dataset.samples] == ["ISIC_0000000", "ISIC_0000001", "ISIC_0000002"]
    first = dataset.samples[0]
    assert first.image.parent.name == "ISIC2018_Task1-2_Training_Input"
    assert first.mask.parent.name == "ISIC2018_Task1_Training_GroundTruth"
    assert (first.image.name, first.mask.name) == ("ISIC_0000000.jpg", "ISIC_0000000_segmentation.png")
    assert dataset.read_image(first).shape == (SIZE, SIZE, 3)
    np.testing.assert_array_equal(dataset.read_mask(first), draw(0, 0, SIZE)[1] // 255)
    assert dataset.notice.startswith("SYNTHETIC IMAGES: 3 drawn skin lesions")
    assert (dataset.task.classes, dataset.task.mode) == (("lesion",), "binary")


def test_the_same_seed_gives_the_same_files_and_another_others(tmp_path):
    a = contents(drawn_set(tmp_path / "a", samples=4, size=SIZE, seed=5))
    assert a == contents(drawn_set(tmp_path / "b", samples=4, size=SIZE, seed=5))
    other = contents(drawn_set(tmp_path / "a", samples=4, size=SIZE, seed=6))
    assert not set(a.values()) & set(other.values())
    longer = contents(drawn_set(tmp_path / "a", samples=6, size=SIZE, seed=5))
    assert {k: v for k, v in a.items() if k != "set.json"}.items() <= longer.items()


def test_a_set_is_drawn_once_and_leaves_nothing_beside(tmp_path, monkeypatch):
    drawn = drawn_set(tmp_path, samples=2, size=SIZE, seed=0)
    monkeypatch.setattr("segreg_plugins.datasets.drawing.draw", None)
    assert drawn_set(tmp_path, samples=2, size=SIZE, seed=0) == drawn
    assert [path.name for path in tmp_path.iterdir()] == [drawn.name]


def test_an_interrupted_drawing_leaves_no_set(tmp_path, monkeypatch):
    def interrupt(seed, index, size):
        if index == 1:
            raise KeyboardInterrupt
        return draw(seed, index, size)

    monkeypatch.setattr("segreg_plugins.datasets.drawing.draw", interrupt)
    with pytest.raises(KeyboardInterrupt):
        drawn_set(tmp_path, samples=2, size=SIZE, seed=0)
    assert list(tmp_path.iterdir()) == []


def test_a_set_that_lost_a_file_is_reported(tmp_path):
    drawn = drawn_set(tmp_path, samples=2, size=SIZE, seed=0)
    next(drawn.rglob("*.jpg")).unlink()
    with pytest.raises(SegregError, match=r"\(1 images and 2 masks of 2\)\n  delete that folder"):
        drawn_set(tmp_path, samples=2, size=SIZE, seed=0)


def test_a_root_that_is_a_file_is_reported(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SegregError, match="can't be written to"):
        synthetic_lesions(root=tmp_path / "file" / "below", samples=1, size=SIZE)


def _draw_set(root: Path) -> dict[str, str]:
    return contents(drawn_set(root, samples=6, size=SIZE, seed=0))


def test_two_processes_at_once_get_one_set(tmp_path):
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        first, second = pool.map(_draw_set, [tmp_path, tmp_path], chunksize=1)
    assert first == second
    assert len(first) == 13
    assert len(list(tmp_path.iterdir())) == 1


def test_lesions_are_one_piece_without_holes_of_about_isics_sizes():
    masks = [draw(1, index, SIZE)[1] for index in range(80)]
    for mask in masks:
        assert set(np.unique(mask)) <= {0, 255}
        assert cv2.connectedComponents(mask)[0] == 2
        # The background may fall apart where a lesion touches the frame, but no part of it lies inside the lesion.
        padded = cv2.copyMakeBorder(255 - mask, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=255)
        assert cv2.connectedComponents(padded, connectivity=8)[0] == 2
    shares = np.array([mask.mean() / 255 for mask in masks])
    assert 0.1 < np.median(shares) < 0.28
    assert shares.min() < 0.04
    assert shares.max() > 0.7


def test_images_are_neither_trivial_nor_hopeless():
    overlaps, contrasts = [], []
    for index in range(60):
        image, mask = draw(0, index, 128)
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        threshold, _ = cv2.threshold(grey, 0, 255, cv2.THRESH_OTSU)
        dark, lesion = grey <= threshold, mask > 0
        overlaps.append((dark & lesion).sum() / (dark | lesion).sum())
        ring = cv2.dilate(mask, np.ones((15, 15))) > 0
        contrasts.append(np.median(grey[ring & ~lesion]) - np.median(grey[lesion]) if (ring & ~lesion).any() else 1)
    assert 0.45 < np.mean(overlaps) < 0.7
    assert np.mean(np.array(contrasts) > 0) > 0.95

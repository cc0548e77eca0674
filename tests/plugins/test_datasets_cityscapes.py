"""The dataset `cityscapes`: its folders, train ids, cities as groups."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segreg.config.sections import Split
from segreg.data.split import divide
from segreg.errors import SegregError
from segreg_plugins.datasets.cityscapes import LABELS, cityscapes

# The 19 scored labels of the benchmark, in the order of their train ids.
TRAIN_IDS = [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]


def place(root: Path, split: str, city: str, *numbers: int, values=None) -> Path:
    images, masks = root / "leftImg8bit" / split / city, root / "gtFine" / split / city
    for folder in (images, masks):
        folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        stem = f"{city}_{number:06d}_000019"
        Image.new("RGB", (34, 2)).save(images / f"{stem}_leftImg8bit.png")
        mask = np.tile(np.arange(34), (2, 1)) if values is None else np.array(values)
        Image.fromarray(mask.astype(np.uint8)).save(masks / f"{stem}_gtFine_labelIds.png")
        for other in ("instanceIds", "color"):
            Image.new("L", (34, 2)).save(masks / f"{stem}_gtFine_{other}.png")
        (masks / f"{stem}_gtFine_polygons.json").write_text("{}")
    return root


def all_masks(root: Path) -> list[np.ndarray]:
    dataset = cityscapes(root=root)
    return [dataset.read_mask(sample) for sample in dataset.samples]


def refusal(*words: str, root: Path) -> SegregError:
    with pytest.raises(SegregError) as caught:
        all_masks(root)
    for word in words:
        assert word in str(caught.value), str(caught.value)
    return caught.value


def test_label_ids_become_train_ids_and_all_others_are_ignored(tmp_path):
    place(tmp_path, "train", "aachen", 0)
    dataset = cityscapes(root=tmp_path)
    expected = [TRAIN_IDS.index(label) if label in TRAIN_IDS else 255 for label in range(34)]
    assert dataset.read_mask(dataset.samples[0]).tolist() == [expected, expected]
    assert dataset.read_mask(dataset.samples[0]).dtype == np.uint8
    assert list(LABELS) == TRAIN_IDS
    assert len(dataset.task.classes) == 19
    assert (dataset.task.classes[0], dataset.task.classes[13], dataset.task.classes[18]) == ("road", "car", "bicycle")


def test_folders_are_the_split_cities_are_groups_and_test_is_left_out(tmp_path):
    for city in ("aachen", "bochum", "bremen", "ulm"):
        place(tmp_path, "train", city, 0, 1)
    place(tmp_path, "val", "munster", 0)
    place(tmp_path, "test", "berlin", 0, values=np.zeros((2, 34)))
    dataset = cityscapes(root=tmp_path)
    assert len(dataset.samples) == 9
    first, last = dataset.samples[0], dataset.samples[-1]
    assert (first.id, first.group, first.split) == ("aachen_000000_000019", "aachen", "train")
    assert (last.id, last.group, last.split) == ("munster_000000_000019", "munster", "val")
    splits = divide(dataset, Split(test=0.2))  # drawn from train, by whole cities
    assert len({dataset.samples[index].group for index in splits["test"]}) == 1
    assert {split: len(indices) for split, indices in splits.items()} == {"train": 6, "val": 1, "test": 2}


def test_what_is_wrong_is_reported_with_where_the_data_comes_from(tmp_path):
    url = "https://www.cityscapes-dataset.com/downloads/"
    refusal(f"root: there is no folder {tmp_path}/x", url, root=tmp_path / "x")
    place(tmp_path, "train", "ulm", 0, 1)
    place(tmp_path, "val", "munster", 0)
    (tmp_path / "gtFine/train/ulm/ulm_000001_000019_gtFine_labelIds.png").unlink()
    (tmp_path / "leftImg8bit/val/munster/munster_000000_000019_leftImg8bit.png").unlink()
    refusal("1 image has no mask", "ulm_000001_000019_leftImg8bit.png", "holds no images", url, root=tmp_path)
    (tmp_path / "gtFine").rename(tmp_path / "gtfine")
    refusal('has no "gtFine/train"', 'did you mean "gtfine"?', url, root=tmp_path)
    (tmp_path / "packed").mkdir()
    for name in ("leftImg8bit_trainvaltest.zip", "gtFine_trainvaltest.zip"):
        (tmp_path / "packed" / name).write_bytes(b"")
    refusal("are there, but not unpacked", root=tmp_path / "packed")


def test_grey_levels_of_a_palette_are_the_label_ids(tmp_path):
    place(tmp_path, "train", "ulm", 0)
    expected = all_masks(tmp_path)
    file = tmp_path / "gtFine/train/ulm/ulm_000000_000019_gtFine_labelIds.png"
    mask = Image.fromarray(33 - np.tile(np.arange(34), (2, 1)).astype(np.uint8))
    mask.putpalette([level for value in range(33, -1, -1) for level in [value] * 3])
    mask.save(file)
    assert np.array_equal(all_masks(tmp_path), expected)


def test_train_ids_are_not_taken_for_label_ids(tmp_path):
    place(tmp_path, "train", "ulm", 0, values=[[0, 18], [255, 3]])
    refusal(
        "ulm_000000_000019_gtFine_labelIds.png: holds the value 255, and Cityscapes' label ids are 0 to 33",
        root=tmp_path,
    )

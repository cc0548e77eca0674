"""The dataset `isic2018`: the challenge's folders, and what happens where they are missing."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segreg.errors import SegregError
from segreg_plugins.datasets.isic2018 import isic2018

REAL = os.environ.get("SEGREG_REAL_DATA")


def part(root: Path, name: str, numbers: range, *, truth: bool = True) -> None:
    images, masks = root / f"ISIC2018_Task1-2_{name}_Input", root / f"ISIC2018_Task1_{name}_GroundTruth"
    images.mkdir(parents=True)
    (images / "LICENSE.txt").write_text("CC-0")
    if truth:
        masks.mkdir()
    for number in numbers:
        Image.new("RGB", (6, 4)).save(images / f"ISIC_{number:07d}.jpg")
        if truth:
            Image.new("L", (6, 4), 255).save(masks / f"ISIC_{number:07d}_segmentation.png")


def refusal(*words: str, **settings) -> SegregError:
    with pytest.raises(SegregError) as caught:
        isic2018(**settings)
    for word in words:
        assert word in str(caught.value), str(caught.value)
    return caught.value


def test_the_training_part_alone_has_no_split(tmp_path):
    part(tmp_path, "Training", range(3))
    dataset = isic2018(root=tmp_path)
    assert [(s.id, s.split) for s in dataset.samples] == [(f"ISIC_000000{i}", None) for i in range(3)]
    assert (dataset.task.classes, dataset.notice) == (("lesion",), "")
    assert dataset.read_mask(dataset.samples[0]).tolist() == [[1] * 6] * 4


def test_official_parts_bring_the_official_split_where_they_have_truth(tmp_path):
    part(tmp_path, "Training", range(2))
    part(tmp_path, "Validation", range(2, 4))
    part(tmp_path, "Test", range(4, 6), truth=False)
    assert [s.split for s in isic2018(root=tmp_path).samples] == ["train", "train", "val", "val"]
    assert [s.split for s in isic2018(root=tmp_path, parts=("training",)).samples] == [None, None]
    refusal("has no ISIC2018_Task1_Test_GroundTruth", root=tmp_path, parts=("training", "test"))
    # What is asked for is never replaced by drawn images, nor half of the data.
    refusal("has no ISIC2018_Task1_Test_GroundTruth", root=tmp_path, parts=("test",), if_missing="synthetic")


def test_white_comes_first_in_a_padded_palette(tmp_path):
    part(tmp_path, "Training", range(2))
    for number in range(2):
        mask = Image.fromarray(np.array([[0, 1, 1], [1, 1, 1]], np.uint8))
        mask.putpalette([255] * 3 + [0] * 765)  # as Pillow 9 quantized
        mask.resize((6, 4), 0).save(
            tmp_path / f"ISIC2018_Task1_Training_GroundTruth/ISIC_{number:07d}_segmentation.png"
        )
    dataset = isic2018(root=tmp_path)
    assert dataset.read_mask(dataset.samples[0]).tolist() == [[1, 1, 0, 0, 0, 0]] * 2 + [[0] * 6] * 2


def test_a_part_that_is_half_unpacked_is_not_left_out_in_silence(tmp_path):
    part(tmp_path, "Training", range(2))
    part(tmp_path, "Test", range(2, 4), truth=False)
    packed = tmp_path / "ISIC2018_Task1_Test_GroundTruth.zip"
    packed.touch()
    refusal(f"root: {tmp_path} has {packed.name}, not unpacked", "set dataset.parts", root=tmp_path)
    assert len(isic2018(root=tmp_path, parts=("training",)).samples) == 2
    (tmp_path / "ISIC2018_Task1_Training_GroundTruth.zip").touch()  # that of a part that is there says nothing
    packed.unlink()
    assert len(isic2018(root=tmp_path).samples) == 2


def test_where_to_get_the_data_is_reported(tmp_path):
    refusal(
        f"root: {tmp_path}/isic is not there; it should hold ISIC2018_Task1-2_Training_Input and "
        "ISIC2018_Task1_Training_GroundTruth",
        "ISIC2018_Task1-2_Training_Input.zip and ISIC2018_Task1_Training_GroundTruth.zip from "
        "https://challenge.isic-archive.com/data/#2018",
        "dataset.if_missing: download",
        root=tmp_path / "isic",
    )
    part(tmp_path / "isic" / "deeper", "Training", range(1))
    refusal("in another folder: set dataset.root:", str(tmp_path / "isic/deeper"), root=tmp_path / "isic")
    (tmp_path / "packed").mkdir()
    (tmp_path / "packed/ISIC2018_Task1-2_Training_Input.zip").write_bytes(b"")
    refusal("ISIC2018_Task1-2_Training_Input.zip is there, but not unpacked", root=tmp_path / "packed")
    (tmp_path / "file").write_text("")
    refusal("is a file, not a folder", root=tmp_path / "file")
    refusal("parts: name at least one", root=tmp_path, parts=())


def test_a_missing_mask_is_named(tmp_path):
    part(tmp_path, "Training", range(3))
    (tmp_path / "ISIC2018_Task1_Training_GroundTruth/ISIC_0000001_segmentation.png").unlink()
    refusal("1 image has no mask:", "ISIC_0000001.jpg", '"ISIC_0000001_segmentation"', root=tmp_path)


def test_synthetic_images_lie_in_the_cache_and_nowhere_near_root_and_are_reported(tmp_path, monkeypatch):
    monkeypatch.setenv("SEGREG_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "data" / "isic2018"
    for missing in (root, root / "deep", Path()):
        (tmp_path / "data").mkdir(exist_ok=True)
        monkeypatch.chdir(tmp_path / "data")
        dataset = isic2018(root=missing, if_missing="synthetic", synthetic_samples=2)
        assert len(dataset.samples) == 2
        assert dataset.samples[0].image.is_relative_to(tmp_path / "cache/synthetic")
        assert dataset.notice.startswith(f"SYNTHETIC IMAGES: ISIC 2018 is not in {missing}, so 2 drawn skin lesions")
        assert list((tmp_path / "data").iterdir()) == []
    part(root, "Training", range(3))
    real = isic2018(root=root, if_missing="synthetic", synthetic_samples=2)
    assert (len(real.samples), real.notice) == (3, "")


def test_real_images_near_a_misspelt_root_are_not_replaced_by_drawn_ones(tmp_path):
    real = tmp_path / "isic2018"
    part(real, "Training", range(1))
    asked = {"if_missing": "synthetic", "synthetic_samples": 1}
    refusal(f"set dataset.root: {real}", root=tmp_path / "isic2018x", **asked)
    refusal(f"set dataset.root: {real}", root=tmp_path, **asked)
    refusal(f"set dataset.root: {real}", root=real / "ISIC2018_Task1-2_Training_Input", **asked)
    (tmp_path / "packed").mkdir()
    (tmp_path / "packed/ISIC2018_Task1_Training_GroundTruth.zip").write_bytes(b"")
    refusal("ISIC2018_Task1_Training_GroundTruth.zip is there, but not unpacked", root=tmp_path / "packed", **asked)


def test_half_of_the_data_is_not_replaced_by_drawn_images(tmp_path):
    part(tmp_path, "Training", range(1), truth=False)
    refusal("has no ISIC2018_Task1_Training_GroundTruth", root=tmp_path, if_missing="synthetic")


@pytest.mark.real
@pytest.mark.skipif(not REAL, reason="SEGREG_REAL_DATA is not set")
def test_real_pairs():
    dataset = isic2018(root=Path(REAL or "") / "isic")
    assert len(dataset.samples) == 750
    lists = Path(REAL or "") / "isic" / "lists"
    ids = {s.id for s in dataset.samples}
    assert all(line in ids for line in (lists / "val.txt").read_text().split())
    shares = [(dataset.read_mask(s) == 1).mean() for s in dataset.samples[::15]]
    assert 0.1 < np.median(shares) < 0.3
    assert dataset.read_image(dataset.samples[0]).shape == (512, 512, 3)

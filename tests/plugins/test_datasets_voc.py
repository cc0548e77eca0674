"""The dataset `voc`: lists, palette masks, the augmented set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segreg.errors import SegregError
from segreg_plugins.datasets.voc import CLASSES, voc


def devkit(root: Path, *, masks="SegmentationClass", palette=True, **lists) -> Path:
    """Write a VOC folder: lists by name, and an image and mask for each name in them."""
    for folder in ("JPEGImages", masks, "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for name, stems in lists.items():
        (root / "ImageSets/Segmentation" / f"{name}.txt").write_text("\n".join(stems) + "\n\n")
        for stem in stems:
            Image.new("RGB", (4, 2)).save(root / "JPEGImages" / f"{stem}.jpg")
            mask = Image.fromarray(np.array([[0, 1, 20, 255], [15, 0, 0, 255]], np.uint8))
            if palette:  # as VOC has them: colours that mean nothing to us
                mask.putpalette([(index * 53) % 256 for index in range(768)])
            mask.save(root / masks / f"{stem}.png")
    return root


def refusal(*words: str, **settings) -> SegregError:
    with pytest.raises(SegregError) as caught:
        voc(**settings)
    for word in words:
        assert word in str(caught.value), str(caught.value)
    return caught.value


def test_lists_are_the_split_and_borders_are_ignored(tmp_path):
    devkit(tmp_path, train=["2007_2", "2007_1"], val=["2008_1"], trainval=["2007_1", "2007_2", "2008_1"])
    dataset = voc(root=tmp_path)
    assert [(s.id, s.split) for s in dataset.samples] == [("2007_2", "train"), ("2007_1", "train"), ("2008_1", "val")]
    assert dataset.task.classes == CLASSES
    assert (len(CLASSES), CLASSES[15], CLASSES[20]) == (21, "person", "tvmonitor")
    assert dataset.read_mask(dataset.samples[0]).tolist() == [[0, 1, 20, 255], [15, 0, 0, 255]]
    assert dataset.read_image(dataset.samples[0]).shape == (2, 4, 3)


def test_trainval_alone_has_no_split(tmp_path):
    devkit(tmp_path, trainval=["a", "b"])
    assert [(s.id, s.split) for s in voc(root=tmp_path).samples] == [("a", None), ("b", None)]


def test_the_augmented_set(tmp_path):
    devkit(tmp_path, train=["a"], val=["v"])
    refusal('has no "SegmentationClassAug"', "Semantic Boundaries Dataset", "voc2012", root=tmp_path, masks="augmented")
    devkit(tmp_path, masks="SegmentationClassAug", palette=False, val=["v"], rest=["a", "b"])
    splits = [(s.id, s.split) for s in voc(root=tmp_path, masks="augmented").samples]
    assert splits == [("a", "train"), ("b", "train"), ("v", "val")]
    (tmp_path / "ImageSets/Segmentation/trainaug.txt").write_text("b\n")
    dataset = voc(root=tmp_path, masks="augmented")
    assert [(s.id, s.split) for s in dataset.samples] == [("b", "train"), ("v", "val")]
    assert dataset.read_mask(dataset.samples[0]).tolist() == [[0, 1, 20, 255], [15, 0, 0, 255]]
    assert [s.id for s in voc(root=tmp_path).samples] == ["a", "v"]


def test_palettes_that_contradict_each_other_are_refused(tmp_path):
    devkit(tmp_path, train=["a", "b"], val=["v"])
    mask = Image.fromarray(np.array([[0, 1, 2, 3], [1, 0, 0, 3]], np.uint8))
    mask.putpalette([0, 0, 0, 53, 106, 159, 9, 9, 9, 1, 2, 3])
    mask.save(tmp_path / "SegmentationClass/b.png")
    error = refusal("masks: the index 0 is the colour", "has a program saved them anew?", "voc2012", root=tmp_path)
    assert "values" not in str(error)
    assert "palette: indices" not in str(error)


def test_a_value_without_a_class_names_no_setting_that_voc_lacks(tmp_path):
    devkit(tmp_path, train=["a"], val=["v"], palette=False)
    Image.fromarray(np.full((2, 4), 38, np.uint8)).save(tmp_path / "SegmentationClass/a.png")
    dataset = voc(root=tmp_path)
    with pytest.raises(SegregError) as caught:
        dataset.read_mask(dataset.samples[0])
    assert "holds the value 38" in str(caught.value)
    assert "voc2012" in str(caught.value)
    assert "ignore_index" not in str(caught.value)


def test_missing_data_says_where_it_comes_from(tmp_path):
    url = "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/"
    refusal(f"root: there is no folder {tmp_path}/x", url, root=tmp_path / "x")
    devkit(tmp_path / "VOCdevkit/VOC2012", train=["a"], val=["v"])
    for outer in (tmp_path, tmp_path / "VOCdevkit"):
        refusal(f"set dataset.root: {tmp_path}/VOCdevkit/VOC2012", url, root=outer)
    root = tmp_path / "VOCdevkit/VOC2012"
    (root / "JPEGImages/a.jpg").unlink()
    (root / "SegmentationClass/v.png").unlink()
    refusal(
        f"2 files of the lists are not there: {root}/JPEGImages/a.jpg and {root}/SegmentationClass/v.png",
        url,
        root=root,
    )
    (root / "JPEGImages").rename(root / "JPEGImage")
    refusal('has no "JPEGImages"', 'did you mean "JPEGImage"', root=root)


def test_lists_that_are_wrong_are_reported_with_their_line(tmp_path):
    devkit(tmp_path, train=["a", "b"], val=["b"])
    lists = tmp_path / "ImageSets/Segmentation"
    refusal(f'{lists}: "b" stands in train and val', root=tmp_path)
    (lists / "val.txt").write_text("c\nd 1\n")
    refusal(f'{lists}/val.txt:2: "d 1" is not one name', root=tmp_path)
    (lists / "val.txt").write_text("c\n\nc\n")
    refusal(f'{lists}/val.txt:3: "c" stands already in line 1', root=tmp_path)
    (lists / "val.txt").write_text("\n")
    refusal(f"{lists}/val.txt: is empty", root=tmp_path)
    (lists / "val.txt").unlink()
    refusal(f"{lists}/val.txt: can't be read (No such file or directory)", root=tmp_path)

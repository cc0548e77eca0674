"""Masks as COCO and YOLO annotations: they read back as the same masks."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from segreg.inference.annotations import compressed, outline, write_annotations
from segreg.inference.inputs import ImageFile
from segreg.inference.writer import Outputs
from segreg.task import Task
from segreg_plugins.datasets.coco import coco
from segreg_plugins.datasets.rle import counts_of, pixels_of
from segreg_plugins.datasets.yolo import yolo
from shape_masks import within

RING = np.array([[0, 1, 1, 1, 0], [0, 1, 0, 1, 1], [1, 1, 1, 0, 1], [0, 0, 1, 1, 1]], bool)
"""A region with two holes that touch in a corner, and with the outside."""


def regions(mask):
    labels, count = ndimage.label(mask)
    return [labels == number for number in range(1, count + 1)]


def test_a_square_is_its_four_corners():
    assert outline(np.ones((2, 3), bool)).tolist() == [[0, 0], [3, 0], [3, 2], [0, 2]]


def test_outlines_enclose_the_pixels_of_any_region():
    noise = np.random.default_rng(3)
    cases = [RING, *(noise.random((9, 11)) < share for share in (0.2, 0.5, 0.7, 0.9) for _ in range(4))]
    for mask in cases:
        for region in regions(mask):
            corners = [tuple(point) for point in outline(region).tolist()]
            np.testing.assert_array_equal(within(corners, region.shape), region)


def test_compressed_runs_are_read_back():
    noise = np.random.default_rng(4)
    for size in ((1, 1), (7, 5), (130, 90)):
        for share in (0.0, 0.02, 0.5, 1.0):
            mask = noise.random(size) < share
            np.testing.assert_array_equal(pixels_of(counts_of(compressed(mask)), size), mask)


def predicted(folder, task, labels):
    """Write masks as `segreg predict` does, and the images; return what is given to `write_annotations`."""
    outputs = Outputs(folder, ("masks",), task, "index" if task.mode == "multiclass" else "255", ())
    images = []
    for name, mask in labels.items():
        file = folder / "yolo/images" / f"{name}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((*mask.shape[-2:], 3), np.uint8)).save(file)
        outputs.save(name, np.zeros((*mask.shape[-2:], 3), np.uint8), mask)
        images.append(ImageFile(file, name))
    return images, outputs


def noisy(classes, size, *, layers=False):
    noise = np.random.default_rng(5)
    small = noise.integers(0, 2 if layers else classes, (*((classes,) if layers else ()), *(-(-s // 3) for s in size)))
    large = small.repeat(3, axis=-1).repeat(3, axis=-2)[..., : size[0], : size[1]]
    return large.astype(np.uint8)


def back(form, folder, task):
    """The masks that the written annotations read back as, by sample."""
    names = [name for name in task.classes if name != "background"]
    settings = {"mode": task.mode, "classes": tuple(names)}
    if form == "yolo":
        dataset = yolo(data=folder / "yolo/data.yaml", groups=None, **settings)
    else:
        dataset = coco(annotations=folder / f"{form}.json", images=folder / "yolo/images", groups=None, **settings)
    return {sample.image.stem: dataset.read_mask(sample) for sample in dataset.samples}


@pytest.mark.parametrize("form", ["coco-rle", "coco-polygons", "yolo"])
@pytest.mark.parametrize(
    ("task", "layers"),
    [
        (Task(("background", "cat", "dog"), "multiclass"), False),
        (Task(("lesion",), "binary"), False),
        (Task(("cat", "dog"), "multilabel"), True),
    ],
    ids=lambda value: getattr(value, "mode", ""),
)
def test_what_is_written_reads_back_as_the_same_masks(tmp_path, form, task, layers):
    count = 2 if task.mode == "binary" else len(task.classes)
    masks = {"a": noisy(count, (37, 53), layers=layers), "b": noisy(count, (20, 21), layers=layers)}
    images, outputs = predicted(tmp_path, task, masks)
    file = write_annotations(form, images, outputs)
    assert file.is_file()
    found = back(form, tmp_path, task)
    assert set(found) == {"a", "b"}
    for name, mask in masks.items():
        np.testing.assert_array_equal(found[name], mask)


def test_an_image_without_objects_and_folders(tmp_path):
    task = Task(("background", "cat"), "multiclass")
    mask = noisy(2, (9, 9))
    images, outputs = predicted(tmp_path, task, {"deep/a": mask, "b": np.zeros((4, 6), np.uint8)})
    for form in ("coco-rle", "coco-polygons", "yolo"):
        write_annotations(form, images, outputs)
    assert (tmp_path / "yolo/labels/b.txt").read_text() == ""
    assert (tmp_path / "yolo/labels/deep/a.txt").read_text().startswith("0 ")
    content = json.loads((tmp_path / "coco-rle.json").read_text())
    assert content["images"] == [
        {"id": 1, "file_name": "deep/a.png", "height": 9, "width": 9},
        {"id": 2, "file_name": "b.png", "height": 4, "width": 6},
    ]
    assert content["categories"] == [{"id": 1, "name": "cat"}]
    (annotation,) = content["annotations"]
    rows, columns = np.nonzero(mask)
    left, top = int(columns.min()), int(rows.min())
    assert annotation["area"] == int(mask.sum())
    assert annotation["bbox"] == [left, top, int(columns.max()) + 1 - left, int(rows.max()) + 1 - top]
    assert annotation["segmentation"]["size"] == [9, 9]
    for form in ("coco-rle", "coco-polygons", "yolo"):
        found = back(form, tmp_path, task)
        np.testing.assert_array_equal(found["a"], mask)
        assert found["b"].max() == 0


def test_an_image_of_any_ending_is_named_as_its_file(tmp_path):
    images, outputs = predicted(tmp_path, Task(("cat",), "binary"), {"deep/IM.0001": np.zeros((4, 6), np.uint8)})
    write_annotations("coco-rle", [replace(images[0], file=tmp_path / "deep/IM.0001")], outputs)
    assert json.loads((tmp_path / "coco-rle.json").read_text())["images"][0]["file_name"] == "deep/IM.0001"


def test_runs_are_those_of_cocos_own_tools(tmp_path):
    tools = pytest.importorskip("pycocotools.mask")
    mask = np.random.default_rng(6).random((120, 77)) < 0.3
    mask[20:90, 10:50] = True
    assert compressed(mask) == tools.encode(np.asfortranarray(mask, np.uint8))["counts"].decode()

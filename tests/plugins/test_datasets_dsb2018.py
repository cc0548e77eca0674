"""The dataset `dsb2018`, Kaggle's layout and two folders, and the recipes for one class that train on it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import segreg
import tiny_runs
from segreg.config.recipe import read_recipe, shipped_recipe
from segreg.config.resolve import resolve
from segreg.data.split import divide
from segreg.errors import SegregError
from segreg.registry.protocols import Dataset, Sample
from segreg.registry.registry import load_registry
from segreg.task import Task
from segreg_plugins.datasets.dsb2018 import dsb2018

REAL = os.environ.get("SEGREG_REAL_DATA")
needs_real = pytest.mark.skipif(not REAL, reason="SEGREG_REAL_DATA is not set")


def save(path: Path, values, mode=None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.asarray(values, np.uint8))
    (image.convert(mode) if mode else image).save(path)
    return path


def nucleus(rows, columns):
    mask = np.zeros((6, 8), np.uint8)
    mask[rows, columns] = 255
    return mask


def raw(folder: Path, name: str, *masks, mode=None) -> Path:
    """Write one sample as Kaggle has it: an RGBA image, and a mask a nucleus."""
    save(folder / name / "images" / f"{name}.png", np.full((6, 8, 4), 255))
    for number, mask in enumerate(masks):
        save(folder / name / "masks" / f"{number:04x}.png", mask, mode)
    return folder


def all_masks(root: Path) -> list[np.ndarray]:
    dataset = dsb2018(root=root)
    return [dataset.read_mask(sample) for sample in dataset.samples]


def refusal(*words: str, root: Path) -> SegregError:
    with pytest.raises(SegregError) as caught:
        all_masks(root)
    for word in words:
        assert word in str(caught.value), str(caught.value)
    return caught.value


@pytest.mark.parametrize("mode", [None, "RGBA", "1"])
def test_nuclei_are_united(tmp_path, mode):
    one, two = nucleus(slice(0, 3), slice(0, 3)), nucleus(slice(2, 5), slice(2, 6))
    raw(tmp_path / "stage1_train", "b", one, two, mode=mode)
    raw(tmp_path / "stage1_train", "a", np.zeros((6, 8)), mode=mode)  # an image with nothing in it
    (tmp_path / "stage1_train/.DS_Store").write_text("")
    for root in (tmp_path, tmp_path / "stage1_train"):
        dataset = dsb2018(root=root)
        assert (dataset.task.classes, dataset.task.mode) == (("nucleus",), "binary")
        assert [(s.id, s.split, s.group) for s in dataset.samples] == [("a", None, None), ("b", None, None)]
        mask = dataset.read_mask(dataset.samples[1])
        assert mask.dtype == np.uint8
        np.testing.assert_array_equal(mask, (one | two) // 255)
        assert not dataset.read_mask(dataset.samples[0]).any()
        assert dataset.read_image(dataset.samples[0]).shape == (6, 8, 4)


def test_neighbours_of_kaggles_folder_are_not_taken_for_samples(tmp_path):
    raw(tmp_path / "stage1_train", "a", nucleus(0, 0))
    save(tmp_path / "mine/images/x.png", nucleus(0, 0))
    save(tmp_path / "mine/masks/x.png", nucleus(0, 0))
    (tmp_path / "stage1_train/__MACOSX/a").mkdir(parents=True)
    assert [sample.id for sample in dsb2018(root=tmp_path).samples] == ["a"]


def test_prepared_folders(tmp_path):
    for name in ("img2", "img10"):
        save(tmp_path / "images" / f"{name}.png", np.zeros((6, 8, 3)))
        save(tmp_path / "masks" / f"{name}.png", nucleus(slice(0, 2), slice(0, 2)))
    dataset = dsb2018(root=tmp_path)
    assert [s.id for s in dataset.samples] == ["img2", "img10"]
    assert dataset.read_mask(dataset.samples[0]).sum() == 4
    (tmp_path / "masks/img2.png").unlink()
    refusal("1 image has no mask", root=tmp_path)


def test_missing_data_says_where_it_comes_from(tmp_path):
    url = "https://www.kaggle.com/c/data-science-bowl-2018/data"
    refusal(f"root: there is no folder {tmp_path}/dsb", url, root=tmp_path / "dsb")
    (tmp_path / "dsb/stage1_trian").mkdir(parents=True)
    refusal(f'root: {tmp_path}/dsb has no "stage1_train"', 'did you mean "stage1_trian"?', url, root=tmp_path / "dsb")
    (tmp_path / "packed").mkdir()
    (tmp_path / "packed/stage1_train.zip").write_bytes(b"")
    refusal('"stage1_train.zip" is there, but not unpacked', root=tmp_path / "packed")
    raw(tmp_path / "outer/inner/stage1_train", "a", nucleus(0, 0))
    refusal(f"set dataset.root: {tmp_path}/outer/inner", root=tmp_path / "outer")
    (tmp_path / "bare/stage1_train").mkdir(parents=True)
    refusal("stage1_train: is empty", url, root=tmp_path / "bare")


def test_incomplete_samples_are_reported_together(tmp_path):
    folder = tmp_path / "stage1_train"
    raw(folder, "whole", nucleus(0, 0))
    raw(folder, "maskless")
    raw(folder, "empty", nucleus(0, 0))
    (folder / "empty/masks/0000.png").unlink()
    save(folder / "blind/masks/0.png", nucleus(0, 0))
    raw(folder, "two", nucleus(0, 0))
    save(folder / "two/images/other.png", np.zeros((6, 8, 3)))
    error = refusal(
        f'{folder}/two/images: holds 2 images, and one is expected: "other.png" and "two.png"',
        f"1 folder holds no image: {folder}/blind/images",
        f"2 folders hold no mask: {folder}/empty/masks and {folder}/maskless/masks",
        "kaggle.com",
        root=tmp_path,
    )
    assert len(error.problems) == 3


def test_strange_masks_are_reported(tmp_path):
    raw(tmp_path / "a/stage1_train", "x", nucleus(0, 0), np.zeros((5, 8)))
    refusal(f"{tmp_path}/a/stage1_train/x/masks/0001.png: is 5x8, and the masks before it are 6x8", root=tmp_path / "a")
    raw(tmp_path / "b/stage1_train", "x", nucleus(0, 0) // 3)
    refusal("x/masks/0000.png: holds the values 0 and 85", root=tmp_path / "b")


def test_the_recipe_splits_kaggles_670_images_into_402_134_and_134():
    resolved = resolve(read_recipe(shipped_recipe("dsb2018_v3plus")), load_registry())
    assert (resolved.split.val, resolved.split.test, resolved.split.seed) == (0.2, 0.2, 42)
    samples = [Sample(f"{number:064x}", Path("image")) for number in range(670)]
    splits = divide(Dataset(Task(("nucleus",), "binary"), samples, None, None), resolved.split)
    assert {split: len(indices) for split, indices in splits.items()} == {"train": 402, "val": 134, "test": 134}


def test_the_recipe_for_folders_keeps_15_percent_for_the_test_and_15_of_the_rest_for_validation():
    resolved = resolve(read_recipe(shipped_recipe("folder_v3")), load_registry())
    assert resolved.split.test == 0.15
    assert resolved.split.val == pytest.approx(0.15 * (1 - 0.15))
    assert resolved.split.seed == 42


# Real images


@pytest.mark.real
@needs_real
def test_real_raw_images():
    root = Path(REAL or "") / "dsb2018"
    raw_ones, prepared = dsb2018(root=root / "raw_sample"), dsb2018(root=root)
    assert (len(raw_ones.samples), len(prepared.samples)) == (12, 536)
    by_id = {sample.id: sample for sample in prepared.samples}
    compared = 0
    for sample in raw_ones.samples:
        mask, image = raw_ones.read_mask(sample), raw_ones.read_image(sample)
        assert image.shape == (*mask.shape, 4)
        assert (image[..., 3] == 255).all()
        if sample.id in by_id:
            compared += 1
            np.testing.assert_array_equal(mask, prepared.read_mask(by_id[sample.id]))
            np.testing.assert_array_equal(image[..., :3], prepared.read_image(by_id[sample.id]))
    assert compared


def a_few(tmp_path: Path) -> Path:
    """Links 12 real pairs into a folder."""
    source, folder = Path(REAL or "") / "dsb2018", tmp_path / "data"
    for path in sorted((source / "images").iterdir())[:12]:
        for kind in ("images", "masks"):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            (folder / kind / path.name).symlink_to(source / kind / path.name)
    return folder


NETWORK = ("encoder={name: timm/test_resnet, weights: null}", "decoder={name: deeplabv3plus, channels: 16}")
"""In place of one that another recipe has too, or that tests/runs/test_paths.py trains."""
TINY = ("input.size=[32,32]", "train.epochs=1", "train.batch_size=3", "train.workers=0", "train.device=cpu",
        "evaluate.overlays=0", "split.val=0.25", "split.test=0.25")  # fmt: skip


@pytest.mark.real
@pytest.mark.slow
@needs_real
@pytest.mark.usefixtures("quick_networks")
@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("dsb2018_v3plus", ["encoder.weights=null", "dataset.root={data}"]),
        ("folder_v3", ["dataset.images={data}/images", "dataset.masks={data}/masks", *NETWORK]),
        (
            "scratch_v3plus",
            ["dataset.images={data}/images", "dataset.masks={data}/masks", "schedule.warmup_epochs=0", *NETWORK],
        ),
        (
            "scratch_v3plus",
            ["dataset.images={data}/images", "dataset.masks={data}/masks", "schedule=null", "loss=iou", *NETWORK],
        ),
    ],
)
def test_the_recipes_train_on_real_images(tmp_path, monkeypatch, name, more):
    monkeypatch.setenv("SEGREG_CACHE", str(tmp_path / "cache"))
    data = a_few(tmp_path)
    recipe = segreg.load_recipe(shipped_recipe(name), [*TINY, *(word.replace("{data}", str(data)) for word in more)])
    with tiny_runs.undrawn():
        run = segreg.run_recipe(recipe, out=tmp_path / "runs", progress="quiet")
    assert json.loads((run.directory.path / "results.json").read_text())
    split = json.loads((run.directory.path / "split.json").read_text())
    assert [len(split[name]) for name in ("train", "val", "test")] == [6, 3, 3]

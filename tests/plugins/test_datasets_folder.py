"""The dataset `folder`: pairing, what mask values mean, and what is refused by name."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from segreg.errors import SegregError
from segreg.runtime.files import natural_key
from segreg.settings import check_value
from segreg_plugins.datasets import segreg_entries
from segreg_plugins.datasets.folder import folder

REAL = os.environ.get("SEGREG_REAL_DATA")
needs_real = pytest.mark.skipif(not REAL, reason="SEGREG_REAL_DATA is not set")


def image(path: Path, values=None, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.zeros((4, 6, 3), np.uint8) if values is None else np.asarray(values)
    Image.fromarray(array).save(path, **options)
    return path


def mask(path: Path, values=((0, 255), (255, 0))) -> Path:
    return image(path, np.array(values, np.uint8))


def refusal(*words: str, **settings) -> SegregError:
    with pytest.raises(SegregError) as caught:
        folder(**settings)
    for word in words:
        assert word in str(caught.value), str(caught.value)
    return caught.value


def reading(dataset, index=0):
    return dataset.read_mask(dataset.samples[index])


# Pairing


def test_pairs_by_stem_with_other_extensions_cases_blanks_dots_and_hidden_files(tmp_path):
    images, masks = tmp_path / "my images", tmp_path / "masks"
    names = ["img 10.rf.0a1b", "img 10.rf.ffff", "IMG 2", "b.c"]
    for name, extension in zip(names, (".jpg", ".JPG", ".PNG", ".bmp"), strict=True):
        image(images / f"{name}{extension}")
        mask(masks / f"{name}_segmentation.PNG")
    for hidden in (images / ".DS_Store", images / "._IMG 2.PNG", masks / ".x.png", images / "Thumbs.db"):
        hidden.write_bytes(b"no image")
    (images / "notes.txt").write_text("no image")
    dataset = folder(images=images, masks=masks, mask_suffix="_segmentation")
    assert [sample.id for sample in dataset.samples] == ["b.c", "IMG 2", "img 10.rf.0a1b", "img 10.rf.ffff"]
    assert [sample.mask.name for sample in dataset.samples][2] == "img 10.rf.0a1b_segmentation.PNG"
    assert dataset.samples[0].image == images / "b.c.bmp"
    assert dataset.read_image(dataset.samples[0]).shape == (4, 6, 3)
    assert dataset.folders == (images, masks)
    assert all(sample.split is None and sample.group is None for sample in dataset.samples)


def test_natural_order_is_total_and_ignores_case():
    names = ["b", "A10", "a2", "a02", "A2", "a", "1", "10", "9", "é"]
    assert len({repr(natural_key(name)) for name in names}) == len(names)
    assert sorted(names, key=natural_key)[:3] == ["1", "9", "10"]
    assert sorted(["x10", "x9", "X1"], key=natural_key) == ["X1", "x9", "x10"]


def test_one_folder_for_both_reported_apart_by_suffixes(tmp_path):
    for name in ("a", "b"):
        image(tmp_path / f"{name}_sat.jpg")
        mask(tmp_path / f"{name}_mask.png")
    both = folder(images=tmp_path, masks=tmp_path, image_suffix="_sat", mask_suffix="_mask")
    assert [s.id for s in both.samples] == ["a", "b"]
    for name in ("a", "b"):
        (tmp_path / f"{name}_sat.jpg").rename(tmp_path / f"{name}.jpg")
    one = folder(images=tmp_path, masks=tmp_path, mask_suffix="_mask")
    assert [(s.image.name, s.mask.name) for s in one.samples] == [("a.jpg", "a_mask.png"), ("b.jpg", "b_mask.png")]
    refusal("images and masks are one folder", "mask_suffix", images=tmp_path, masks=tmp_path)


def test_trees_pair_by_name_or_by_path(tmp_path):
    for patient in ("p1", "p 2"):
        image(tmp_path / "i" / patient / "x.jpg")
        mask(tmp_path / "m" / patient / "x.png")
    mirrored = folder(images=tmp_path / "i", masks=tmp_path / "m", search="mirrored_tree", groups="^([^/]+)/")
    assert [(s.id, s.group) for s in mirrored.samples] == [("p1__x", "p1"), ("p 2__x", "p 2")]
    refusal(
        "images: 1 name is given twice",
        str(tmp_path / "i/p 2/x.jpg"),
        "mirrored_tree",
        images=tmp_path / "i",
        masks=tmp_path / "m",
        search="tree",
    )
    (tmp_path / "i/p1/x.jpg").rename(tmp_path / "i/p1/y.jpg")
    (tmp_path / "m/p1/x.png").rename(tmp_path / "m/y.png")
    tree = folder(images=tmp_path / "i", masks=tmp_path / "m", search="tree")
    assert [s.id for s in tree.samples] == ["x", "y"]


def test_a_link_in_a_circle_ends_and_a_broken_link_is_reported(tmp_path):
    image(tmp_path / "i/a/1.png")
    mask(tmp_path / "m/1.png")
    (tmp_path / "i/a/up").symlink_to(tmp_path / "i", target_is_directory=True)
    assert len(folder(images=tmp_path / "i", masks=tmp_path / "m", search="tree").samples) == 1
    (tmp_path / "i/a/2.png").symlink_to(tmp_path / "nowhere.png")
    refusal("2.png: is a link to a file that is not there", images=tmp_path / "i", masks=tmp_path / "m", search="tree")


def test_accents_written_in_two_ways_pair(tmp_path):
    image(tmp_path / "i" / "le\u0301sion.png")
    mask(tmp_path / "m" / "l\u00e9sion.png")
    assert [s.id for s in folder(images=tmp_path / "i", masks=tmp_path / "m").samples] == ["l\u00e9sion"]


def test_every_file_without_partner_is_reported_at_once(tmp_path):
    images, masks = tmp_path / "i", tmp_path / "m"
    for name in ("a", "b", "c", "d", "e"):
        image(images / f"{name}.jpg")
    for name in ("a", "zebra"):
        mask(masks / f"{name}.png")
    error = refusal(
        f"4 images have no mask: {images}/b.jpg, {images}/c.jpg, {images}/d.jpg and 1 more",
        'the mask of b.jpg would be named "b" and any extension',
        f"1 mask has no image: {masks}/zebra.png",
        images=images,
        masks=masks,
    )
    assert len(error.problems) == 2


def test_a_forgotten_suffix_is_guessed_at(tmp_path):
    image(tmp_path / "i/lesion_1.jpg")
    mask(tmp_path / "m/lesion_1_mask.png")
    refusal(
        "1 image has no mask",
        '"lesion_1_mask" is there: set mask_suffix: _mask',
        images=tmp_path / "i",
        masks=tmp_path / "m",
    )
    refusal(
        "no image in",
        'has a name that ends in "_seg"',
        'such as "lesion_1_mask.png"; set mask_suffix',
        images=tmp_path / "i",
        masks=tmp_path / "m",
        mask_suffix="_seg",
    )


def test_what_is_wrong_with_names_is_guessed_at(tmp_path):
    both = {"images": tmp_path / "i", "masks": tmp_path / "m"}
    image(tmp_path / "i/IMG_1.jpg")
    mask(tmp_path / "m/img_1.png")
    refusal('"img_1" is there: upper and lower case must be the same', **both)
    (tmp_path / "m/img_1.png").rename(tmp_path / "m/IMG.png")
    refusal('"IMG" is there: set image_suffix: _1', **both)
    (tmp_path / "m/IMG.png").rename(tmp_path / "m/IMG-1.png")
    refusal('did you mean "IMG-1"?', **both)


def test_two_files_of_one_name_are_reported(tmp_path):
    image(tmp_path / "i/a.png")
    image(tmp_path / "i/a.jpg")
    mask(tmp_path / "m/a.png")
    refusal(
        f"1 name is given twice: {tmp_path}/i/a.jpg and {tmp_path}/i/a.png", images=tmp_path / "i", masks=tmp_path / "m"
    )


def test_missing_and_empty_folders_are_reported_precisely(tmp_path, monkeypatch):
    image(tmp_path / "dsb/images/a.png")
    refusal(
        f"images: there is no folder {tmp_path}/dsb/image\n",
        'but has no folder "image"; did you mean "images"?',
        f"masks: {tmp_path}/dsb/images/a.png is a file, not a folder",
        images=tmp_path / "dsb/image",
        masks=tmp_path / "dsb/images/a.png",
    )
    monkeypatch.chdir(tmp_path)
    refusal(
        "images: there is no folder no/such/thing",
        f"it is looked for in the current folder, {tmp_path}",
        'but has no folder "no"',
        images=Path("no/such/thing"),
        masks=Path("dsb"),
    )
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").mkdir()
    (tmp_path / "text/a.npy").write_text("")
    refusal(
        "images: empty is empty",
        "masks: text holds no images (its files: 1 with .npy)",
        "images end in .bmp",
        images=Path("empty"),
        masks=Path("text"),
    )
    refusal(
        'dsb holds no images, only folders such as "images"', "search: tree", images=Path("dsb"), masks=Path("text")
    )


def test_the_home_folder_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    image(tmp_path / "i/a.png")
    mask(tmp_path / "m/a.png")
    assert len(folder(images=Path("~/i"), masks=Path("~/m")).samples) == 1
    refusal("images: there is no folder ~no such user/i", images=Path("~no such user/i"), masks=Path("~/m"))


# Groups


def test_groups(tmp_path):
    for name in ("img1_jpg.rf.aa", "img1_jpg.rf.bb", "img2_jpg.rf.cc"):
        image(tmp_path / "i" / f"{name}.jpg")
        mask(tmp_path / "m" / f"{name}.png")
    both = {"images": tmp_path / "i", "masks": tmp_path / "m"}
    assert [s.group for s in folder(**both, groups=r"^(.*)_jpg\.rf\.").samples] == ["img1", "img1", "img2"]
    refusal(
        'groups: "(" is not a regular expression: missing ), unterminated subpattern at character 1', **both, groups="("
    )
    refusal("has no group in parentheses", **both, groups="_jpg")
    refusal('finds no group in 1 of 3 names: "img2_jpg.rf.cc"', **both, groups="(img1)")


# Mask values


@pytest.fixture
def one(tmp_path):
    """Return settings for a folder with one image, whose mask the test writes."""
    image(tmp_path / "i/a.png", np.zeros((2, 2, 3), np.uint8))
    (tmp_path / "m").mkdir()

    def write(values, name="a.png", dtype=np.uint8, **settings):
        path = tmp_path / "m" / name
        if name.endswith(".tif"):
            tifffile.imwrite(path, np.array(values, dtype))
        else:
            Image.fromarray(np.array(values, dtype)).save(path)
        dataset = folder(images=tmp_path / "i", masks=tmp_path / "m", **settings)
        path_read = dataset.samples[0].mask
        assert path_read == path
        try:
            return reading(dataset).tolist()
        finally:
            path.unlink()

    return write


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([[0, 255], [255, 0]], [[0, 1], [1, 0]]),
        ([[0, 1], [1, 0]], [[0, 1], [1, 0]]),
        ([[0, 0], [0, 0]], [[0, 0], [0, 0]]),
        ([[1, 1], [1, 1]], [[1, 1], [1, 1]]),
        ([[255, 255], [255, 255]], [[1, 1], [1, 1]]),
    ],
)
def test_binary_masks(one, values, expected):
    assert one(values) == expected


def test_one_bit_masks(one):
    assert one([[False, True], [True, False]], "a.bmp", np.bool_) == [[0, 1], [1, 0]]


def test_unexpected_values_of_a_binary_mask_are_refused_by_name(one, tmp_path):
    with pytest.raises(SegregError) as caught:
        one([[0, 3], [7, 255]])
    assert str(caught.value).startswith(
        f"{tmp_path}/m/a.png: holds the values 0, 3, 7 and 255, and a mask of one class holds 0 and 1, or 0 and 255\n"
    )
    assert "foreground: above_127" in caught.value.problems[0].hint.splitlines()[0]
    with pytest.raises(SegregError, match="holds the values 0, 1 and 2") as caught:
        one([[0, 1], [2, 0]])
    assert "foreground: nonzero" in caught.value.problems[0].hint.splitlines()[0]
    with pytest.raises(SegregError, match=r"holds 16 values \(0, 1, 2, 3, 4, ... 15\)"):
        one(np.arange(16).reshape(4, 4))


def test_foreground_rules(one):
    assert one([[0, 183], [1, 300]], "a.tif", np.uint16, foreground="nonzero") == [[0, 1], [1, 1]]
    assert one([[0, 127], [128, 250]], foreground="above_127") == [[0, 0], [1, 1]]
    assert one([[0, 1], [255, 1]], ignore_index=255) == [[0, 1], [255, 1]]
    assert one([[0, 9], [4, 4]], foreground="nonzero", ignore_index=9) == [[0, 255], [1, 1]]


def test_index_masks(one):
    classes = ("sky", "road", "car")
    assert one([[0, 1], [2, 255]], classes=classes) == [[0, 1], [2, 255]]
    assert one([[0, 1], [2, 11]], classes=classes, ignore_index=11) == [[0, 1], [2, 255]]
    assert one([[0, 1], [2, 1000]], "a.tif", np.uint16, classes=classes, ignore_index=1000) == [[0, 1], [2, 255]]
    with pytest.raises(
        SegregError, match=r"a\.png: holds the value 3, and 3 classes have the numbers 0 to 2"
    ) as caught:
        one([[0, 1], [2, 3]], classes=classes)
    assert "its values are the values 0, 1, 2 and 3" in str(caught.value)
    with pytest.raises(SegregError, match="holds the value 255"):
        one([[0, 1], [2, 255]], classes=classes, ignore_index=11)
    with pytest.raises(SegregError, match="holds the value -1"):
        one([[0, 1], [2, -1]], "a.tif", np.int16, classes=classes)


def test_two_classes_do_not_swallow_a_foreground_of_255(one):
    with pytest.raises(SegregError, match="with two classes, 255 may be the foreground or ignored"):
        one([[0, 255], [0, 0]], classes=("skin", "lesion"))
    assert one([[0, 255], [0, 0]], classes=("skin", "lesion"), ignore_index=255) == [[0, 255], [0, 0]]
    assert one([[0, 255], [1, 0]], classes=("skin", "lesion")) == [[0, 255], [1, 0]]


def test_palette_masks_are_indices(tmp_path):
    image(tmp_path / "i/a.png", np.zeros((2, 2, 3), np.uint8))
    (tmp_path / "m").mkdir()
    indexed = Image.fromarray(np.array([[0, 1], [2, 2]], np.uint8)).convert("L")
    indexed.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
    indexed.save(tmp_path / "m/a.png")
    dataset = folder(images=tmp_path / "i", masks=tmp_path / "m", classes=("a", "b", "c"))
    assert reading(dataset).tolist() == [[0, 1], [2, 2]]
    assert reading(dataset).dtype == np.uint8
    assert dataset.task.mode == "multiclass"


def test_settings_that_contradict_each_other_are_reported_with_all_else(tmp_path):
    error = refusal(
        'ignore_index: 1 is the number of the class "b"',
        "is not a regular expression",
        "images: there is no folder",
        images=tmp_path / "x",
        masks=tmp_path,
        classes=("a", "b"),
        ignore_index=1,
        groups="[",
    )
    assert len(error.problems) == 3
    both = {"images": tmp_path, "masks": tmp_path}
    refusal("foreground: nonzero is for one class, and 2 are named", **both, classes=("a", "b"), foreground="nonzero")
    refusal("class names must differ", **both, classes=("a", "a"))
    refusal("ignore_index: 0 is the background", **both, ignore_index=0)


def test_what_changes_the_masks_changes_the_reader(tmp_path):
    image(tmp_path / "i/a.png")
    mask(tmp_path / "m/a.png")
    both = {"images": tmp_path / "i", "masks": tmp_path / "m"}
    choices = [{}, {"foreground": "nonzero"}, {"ignore_index": 7}, {"classes": ("a", "b")}]
    choices += [{"classes": ("a", "b", "c")}, {"classes": ("a", "b"), "ignore_index": 7}]
    assert len({folder(**both, **choice).reader for choice in choices}) == len(choices)


def test_a_dataset_can_be_sent_to_another_process(tmp_path):
    image(tmp_path / "i/a.png")
    mask(tmp_path / "m/a.png")
    dataset = pickle.loads(pickle.dumps(folder(images=tmp_path / "i", masks=tmp_path / "m")))
    assert reading(dataset).tolist() == [[0, 1], [1, 0]]


# The kind's table


def test_entries_are_torch_free_and_every_setting_is_documented():
    for entry in segreg_entries():
        assert entry.kind == "dataset"
        assert all(setting.meaning for setting in entry.settings.values())
        for setting in entry.settings.values():
            if not setting.required and setting.default is not None:
                default = json.loads(json.dumps(setting.default, default=str))
                assert check_value(setting.hint, default) == setting.default
    code = (
        "import sys, segreg_plugins.datasets as d\n"
        "[entry.settings for entry in d.segreg_entries()]\n"
        "print([n for n in ('torch', 'numpy', 'PIL', 'cv2', 'pydantic', 'tifffile') if n in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    assert result.stdout.strip() == "[]"


# Real images


@pytest.mark.real
@needs_real
def test_real_dsb2018():
    root = Path(REAL or "") / "dsb2018"
    dataset = folder(images=root / "images", masks=root / "masks", classes=("nucleus",))
    assert len(dataset.samples) == 536
    shares = [(dataset.read_mask(s) == 1).mean() for s in dataset.samples[::20]]
    assert 0.05 < np.mean(shares) < 0.25
    sample = dataset.samples[0]
    assert dataset.read_image(sample).shape[:2] == dataset.read_mask(sample).shape


@pytest.mark.real
@needs_real
def test_real_ph2_in_its_own_tree():
    root = Path(REAL or "") / "ph2" / "PH2 Dataset images"
    dataset = folder(images=root, masks=root, mask_suffix="_lesion", search="tree")
    assert [s.id for s in dataset.samples] == ["IMD013", "IMD057", "IMD120"]
    for sample in dataset.samples:
        labels = dataset.read_mask(sample)
        assert set(np.unique(labels)) == {0, 1}
        assert dataset.read_image(sample).shape == (*labels.shape, 3)


@pytest.mark.real
@needs_real
def test_real_16_bit_instances_em_and_native():
    root = Path(REAL or "")
    wide = root / "nonrgb/uint16_instances"
    with pytest.raises(SegregError, match=r"img2d\.tif: holds \d+ values \(0, 1, "):
        reading(folder(images=wide / "images", masks=wide / "masks"))
    dataset = folder(images=wide / "images", masks=wide / "masks", foreground="nonzero")
    assert set(np.unique(reading(dataset))) == {0, 1}
    assert dataset.read_image(dataset.samples[0]).dtype == np.uint16
    em = folder(images=root / "isbi_em/images", masks=root / "isbi_em/masks", classes=("cell",))
    assert [s.id for s in em.samples] == ["0", "5", "10", "15", "20", "25"]
    assert em.read_image(em.samples[0]).ndim == 2
    assert 0.7 < np.mean([reading(em, i).mean() for i in range(6)]) < 0.85
    native = folder(images=root / "isic_native/images", masks=root / "isic_native/masks", mask_suffix="_segmentation")
    assert len(native.samples) == 5
    assert native.read_image(native.samples[0]).shape[:2] == reading(native).shape


@pytest.mark.real
@needs_real
def test_real_camvid_with_void():
    root = Path(REAL or "") / "camvid"
    classes = tuple(json.loads((root / "classes.json").read_text())["classes"])
    camvid = {"images": root / "val", "masks": root / "valannot", "classes": classes}
    dataset = folder(**camvid, ignore_index=11)
    assert len(dataset.samples) == 101
    seen = np.unique([np.unique(reading(dataset, i)).tolist()[-1] for i in range(0, 101, 10)])
    assert seen.max() == 255
    labels = np.concatenate([reading(dataset, i).ravel() for i in range(0, 101, 5)])
    assert set(np.unique(labels)) == {*range(11), 255}
    with pytest.raises(SegregError, match="holds the value 11, and 11 classes have the numbers 0 to 10"):
        reading(folder(**camvid))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
@pytest.mark.parametrize("which", ["images", "masks"])
def test_a_named_pipe_is_refused_at_once(tmp_path, which):
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / name / "a.png")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / which / "a.png").unlink()
    (tmp_path / which / "a.png").symlink_to(tmp_path / "pipe")
    with pytest.raises(SegregError, match=r"a\.png: is a named pipe"):
        folder(images=tmp_path / "images", masks=tmp_path / "masks")

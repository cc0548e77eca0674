"""`segreg data check` and `segreg data split`: what they print and write, and their exit status."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import tifffile
import yaml
from PIL import Image

import plugged
import tiny_runs
from segreg import build_part, run_recipe
from segreg.data import Augmentation, BatchLoader, prepare
from segreg.data.inspection import sheets
from segreg.data.split import drawn
from segreg.errors import SegregError
from segreg.runtime.progress import Lines
from segreg.task import Task

RECIPE = """\
seed: 3
dataset: {name: folder, images: data/images, masks: data/masks}
split: {method: random, val: 0.2, test: 0.2}
input: {size: [130, 130]}
augment: [{name: HorizontalFlip, p: 0.5}, {name: Rotate, limit: 30, p: 0.5}]
encoder: timm/test_resnet
decoder: deeplabv3plus
loss: bce
optimizer: {name: adam, lr: 0.01}
train: {monitor: val.dice.pooled}
evaluate: {metrics: [dice]}
"""


@pytest.fixture(scope="module")
def drawn_once(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drawn")
    tiny_runs.folder_dataset(folder, count=15, size=(150, 140))
    return folder


@pytest.fixture(autouse=True)
def data(installed, tmp_path, monkeypatch, drawn_once):
    installed(*plugged.builtin())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEGREG_CACHE", str(tmp_path / "cache"))
    shutil.copytree(drawn_once, "data")
    Path("recipe.yaml").write_text(RECIPE)


# check


def test_check_of_a_good_data_set(segreg):
    printed = segreg("data", "check", "recipe.yaml")
    assert printed.status == 0
    assert printed.out.startswith("15 images, binary: foreground\n  split     train 9, val 3, test 3\n")
    assert printed.out.endswith("\nno error, no warning and no note\n")


def test_check_exits_2_on_errors_and_names_the_files(segreg):
    Path("data/images/image 04.png").write_bytes(b"")
    for number in range(6, 15):
        Image.new("L", (140, 150), 9).save(f"data/masks/image {number:02}.png")
    printed = segreg("data", "check", "recipe.yaml")
    assert printed.status == 2
    assert "error: images that can't be read: 1 [image-unreadable]\n    data/images/image 04.png" in printed.out
    assert "    and 4 more; --all prints them, --json too\n" in printed.out
    assert printed.out.count("    data/masks/") == 5
    assert printed.out.endswith("\n2 errors, no warning and no note\n")
    assert segreg("data", "check", "recipe.yaml", "--all").out.count("    data/masks/") == 9


def test_check_names_integers_beside_floating_point_values(segreg):
    for number in range(0, 15, 4):
        file = Path(f"data/images/image {number:02}.png")
        tifffile.imwrite(file.with_suffix(".tif"), np.asarray(Image.open(file), np.float32), photometric="rgb")
        file.unlink()
    printed = segreg("data", "check", "recipe.yaml", "input.normalize=per_image")
    assert printed.status == 2
    assert "error: integers and floating-point values [types-mixed]\n" in printed.out
    assert ".tif: float32\n" in printed.out
    assert ".png: uint8\n" in printed.out
    with pytest.raises(SegregError, match="holds floating-point values, and"):
        run_recipe("recipe.yaml", ["input.normalize=per_image"], progress="quiet")


@pytest.mark.parametrize(
    ("dtype", "changed", "words"),
    [
        ("uint16", ["input.normalize=per_image", "augment=RandomGamma"], '"RandomGamma" needs 8-bit images'),
        ("uint8", ["augment=[{name: RandomCrop, height: 8, width: 8}]"], "it must keep the size"),
        ("uint8", ["input.resize=crop", "input.size=[256,256]"], "are larger than every training image"),
        ("uint16", ["input.normalize=imagenet"], "all would look black"),
    ],
)
def test_check_tries_what_training_would_refuse(segreg, dtype, changed, words):
    for file in sorted(Path("data/images").iterdir()):
        if dtype == "uint16":
            tifffile.imwrite(file.with_suffix(".tif"), np.asarray(Image.open(file)).astype(dtype), photometric="rgb")
            file.unlink()
    printed = segreg("data", "check", "recipe.yaml", *changed)
    assert printed.status == 2
    assert "error: settings that don't go with these images [recipe-refused]\n" in printed.out
    assert words in printed.out
    with pytest.raises(SegregError, match=re.escape(words)):
        run_recipe("recipe.yaml", changed, progress="quiet")


def test_check_prints_json(segreg):
    Path("data/masks/image 04.png").write_bytes(b"")
    printed = segreg("data", "check", "recipe.yaml", "--json")
    assert printed.status == 2
    found = json.loads(printed.out)
    assert found["images"] == 15
    assert found["splits"] == {"train": 9, "val": 3, "test": 3}
    (finding,) = found["findings"]
    assert (finding["severity"], finding["name"]) == ("error", "mask-unreadable")
    assert finding["cases"][0]["files"] == ["data/images/image 04.png", "data/masks/image 04.png"]
    assert set(found["classes"]) == {"all", "train", "val", "test"}
    assert found["weights"]["positive_weight"]["of"] == "train"
    assert list(found["weights"]["positive_weight"]["values"]) == ["foreground"]


def test_check_draws_what_to_look_at(segreg):
    image = np.asarray(Image.open("data/images/image 01.png"))
    Image.fromarray(image[:, ::-1].copy()).save("data/images/image 02.png")
    printed = segreg("data", "check", "--out", "seen", "--samples", "2", "--draws", "3", "recipe.yaml", "seed=4")
    assert printed.status == 0
    assert printed.out.endswith("wrote seen/augmented.png\nwrote seen/alike.png\nwrote seen/findings.json\n")
    with Image.open("seen/augmented.png") as sheet:
        pixels = np.asarray(sheet.convert("RGB"))
    panel = int(2.4 * 120)
    assert pixels.shape[1] == 4 * panel, "as prepared, and three epochs"
    assert 2 * panel < pixels.shape[0] < 3 * panel
    assert (pixels == (255, 60, 200)).all(axis=2).sum() > 8 * 20, "outlines and legend in the class's colour"
    assert json.loads(Path("seen/findings.json").read_text())["pairs"][0]["ids"] == ["image 01", "image 02"]
    assert json.loads(Path("seen/findings.json").read_text())["pairs"][0]["orientation"] == 1


def test_a_check_is_printed_and_kept_where_there_is_nothing_to_draw(segreg, monkeypatch):
    for file in Path("data/masks").iterdir():
        Image.fromarray(np.ones((20, 20), np.uint8)).save(file)
    shutil.copy("data/images/image 01.png", "data/images/image 02.png")
    Path("seen").mkdir()
    Path("seen/augmented.png").touch()
    with monkeypatch.context() as full:
        full.setattr("segreg.runtime.files.write_json", mock.Mock(side_effect=OSError(28, "No space left on device")))
        printed = segreg("data", "check", "--out", "full", "recipe.yaml")
        assert printed.status == 2
        assert "[sizes-differ]" in printed.out, "the report is not lost"
        assert "full can't be written: No space left on device" in printed.err
    printed = segreg("data", "check", "--out", "seen", "recipe.yaml")
    assert printed.status == 2
    assert "masks of another size than their image: 15 [sizes-differ]" in printed.out
    assert printed.out.endswith("\nwrote seen/findings.json\n")
    assert [file.name for file in Path("seen").iterdir()] == ["findings.json"]


def test_the_contact_sheet_shows_what_the_first_epochs_train_on(segreg, monkeypatch, builtin):
    from segreg.config.recipe import read_recipe
    from segreg.config.resolve import resolve
    from segreg.models.build import build_augmentations, build_dataset

    recipe = resolve(read_recipe("recipe.yaml"), builtin)
    dataset = build_dataset(recipe)
    shown = []
    monkeypatch.setattr(sheets, "_sheet", lambda rows, *_, **__: shown.extend(rows))
    monkeypatch.setattr(sheets, "_outlined", lambda image, mask, _: np.dstack([image, mask]))
    augment = build_augmentations(recipe)
    sheets.contact_sheet(dataset, range(15), recipe.input, augment, seed=3, samples=4, draws=3)
    prepared = prepare(dataset, recipe.input)
    augmentation = Augmentation(augment, dataset.task)
    batches = BatchLoader(prepared, range(15), batch_size=5, augment=augmentation, seed=3)
    assert [row[0].words for row in shown] == drawn([s.id for s in dataset.samples], 3, "contact sheet")[:4]
    for epoch in (1, 2, 3):
        for batch in batches.epoch(epoch):
            for name, image, target in zip(batch.ids, batch.images, batch.targets, strict=True):
                for row in shown:
                    if row[0].words == name:
                        assert row[epoch].words == f"epoch {epoch}"
                        assert np.array_equal(row[epoch].image[..., :3], image.permute(1, 2, 0))
                        assert np.array_equal(row[epoch].image[..., 3], target)
    differ = [not np.array_equal(row[0].image, panel.image) for row in shown for panel in row[1:]]
    assert 4 < sum(differ) <= 12
    plain = shown.copy()
    shown.clear()

    def turned(batch, epoch, ids):
        assert list(ids) == [row[0].words for row in plain]
        return batch[::-1] if epoch == 2 else batch

    sheets.contact_sheet(dataset, range(15), recipe.input, augment, seed=3, samples=4, draws=3, mix=turned)
    for number, row in enumerate(shown):
        for epoch, other in ((1, number), (2, 3 - number), (3, number)):
            assert np.array_equal(row[epoch].image, plain[other][epoch].image)


def test_a_sheet_names_its_panels_and_every_class_as_they_are():
    task = Task(("background", *(f"class_{number} $x_{number}$" for number in range(1, 40))), "multiclass")
    images = [np.full((60, 80, 3), value, np.uint8) for value in (10, 20, 30)]
    long = "a/very/long/folder/of/a/data_set/with $two$ dollars/image 0001.png"
    rows = [[sheets.Panel(images[0], long), sheets.Panel(images[1], "epoch 1")], [sheets.Panel(images[2], "b")]]
    figure = sheets._sheet(rows, "a title\na notice", task)
    figure.canvas.draw()
    assert figure.get_suptitle() == "a title\na notice"
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == list(task.classes[1:])
    shown = [axes for axes in figure.axes if axes.images]
    assert [axes.get_title(loc="left").replace("\n", "") for axes in shown] == [long, "epoch 1", "b"]
    assert all(np.array_equal(axes.images[0].get_array(), image) for axes, image in zip(shown, images, strict=True))
    boxes = [axes.get_window_extent() for axes in shown]
    assert min(box.width for box in boxes) > 0.85 * 2.4 * 120
    assert legend.get_window_extent().y1 <= min(box.y0 for box in boxes), "below the panels"
    assert legend.get_window_extent().x1 <= figure.bbox.x1


def test_large_images_are_shrunk_before_they_are_outlined():
    image, mask = np.full((480, 960, 3), 200, np.uint8), np.zeros((480, 960), np.uint8)
    mask[160:320, 240:480] = 1
    shown = sheets._outlined(image, mask, Task(("lesion",), "binary"))
    assert shown.shape == (120, 240, 3)
    edge = np.zeros((120, 240), bool)
    edge[40:80, 60:120] = True
    edge[41:79, 61:119] = False
    assert np.array_equal((shown == (255, 60, 200)).all(axis=2), edge)


def test_outlines_lie_on_the_masks_and_ignored_pixels_are_dimmed():
    image = np.full((120, 240, 3), 200, np.uint8)
    mask = np.zeros((120, 240), np.uint8)
    mask[40:80, 60:120] = 1
    mask[:, 200:] = 255
    shown = sheets._outlined(image, mask, Task(("lesion",), "binary"))
    pink = (shown == (255, 60, 200)).all(axis=2)
    edge = np.zeros_like(pink)
    edge[40:80, 60:120] = True
    edge[41:79, 61:119] = False
    assert np.array_equal(pink, edge)
    assert (shown[:, 200:] == 66).all()
    assert (shown[mask == 0] == 200).all()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ("check", "train.epochs=3"),
            "data check takes one recipe; name one, for example: segreg data check recipe.yaml",
        ),
        (("split", "a.yaml", "b.yaml", "--out", "x"), "data split takes one recipe; these are 2"),
        (("check", "recipe.yaml", "--draws", "0"), "--draws must be at least 1"),
        (("check", "recipe.yaml", "dataset.images=nowhere"), "nowhere"),
        (("check", "recipe.yaml", "--out", "recipe.yaml/x"), "recipe.yaml/x can't be written: Not a directory"),
    ],
)
def test_mistakes_are_reported(arguments, says, segreg):
    printed = segreg("data", *arguments)
    assert printed.status == 2
    assert printed.err.startswith("error: ")
    assert says in printed.err


def test_an_action_must_be_named(segreg):
    assert segreg("data").status == 2
    assert segreg("data", "chek", "recipe.yaml").status == 2
    assert "augmented.png" in segreg("data", "check", "--help").out
    assert "split.val=0.1275" in segreg("data", "split", "--help").out


# split


def test_split_writes_folders_and_says_what_they_hold(segreg):
    printed = segreg("data", "split", "recipe.yaml", "split.seed=42", "--out", "out")
    assert (printed.status, printed.out) == (
        0,
        (
            "train 9, val 3, test 3 in out: 30 of 30 files made, the others were there\n"
            "masks are the data set's own files; the manifest is out/split.csv\n"
            "a recipe reads it back by\n\ndataset:\n  name: csv\n  manifest: out/split.csv\n  classes: [foreground]\n"
        ),
    )
    assert len(list(Path("out/test_split/images").iterdir())) == 3
    again = segreg("data", "split", "--out", "out", "recipe.yaml", "split.seed=42", "--json")
    assert json.loads(again.out)["made"] == 0
    printed = segreg("data", "split", "recipe.yaml", "split.seed=7", "--out", "out")
    assert (printed.status, printed.out) == (2, "")
    assert "files that are not of this split" in printed.err


def test_the_section_that_split_prints_reads_the_same_labels_whatever_settings_there_were(segreg, tmp_path):
    """Masks of 0, 1 and 255 of one class, and of two, whose 255 might be taken for the foreground."""
    for classes, ignored in (("[disc]", 255), ("[ground, disc]", 255)):
        folder = tmp_path / str(len(classes))
        images, masks = tiny_runs.folder_dataset(folder, count=8, size=(12, 12))
        for file in masks.iterdir():
            values = np.asarray(Image.open(file)) // 255
            values[:2] = 255
            Image.fromarray(values).save(file)
        words = [
            f"dataset={{name: folder, images: {images}, masks: {masks}, classes: {classes}, ignore_index: {ignored}}}"
        ]
        printed = segreg("data", "split", "recipe.yaml", *words, "--out", folder / "out", "--json")
        assert printed.status == 0, printed.err
        section = json.loads(printed.out)["dataset"]
        read = [
            build_part("dataset", given.pop("name"), **given)
            for given in (yaml.safe_load(words[0].partition("=")[2]), dict(section))
        ]
        labels = [{s.id: each.read_mask(s) for s in each.samples} for each in read]
        assert labels[0].keys() == labels[1].keys()
        for name, mask in labels[0].items():
            np.testing.assert_array_equal(labels[1][name], mask)


def test_a_split_passes_the_gate_that_a_run_passes(segreg, tmp_path):
    images, masks = tiny_runs.folder_dataset(tmp_path / "more", count=8, size=(12, 12))
    words = [f"dataset.images={images}", f"dataset.masks={masks}", "--out", "out"]
    assert segreg("data", "split", "recipe.yaml", *words).status == 0
    for name in ("val", "test"):
        for file in Path(f"out/{name}_split/masks").iterdir():
            Image.fromarray(np.zeros((12, 12), np.uint8)).save(masks / file.name)
    printed = segreg("data", "split", "recipe.yaml", *words[:2], "--out", "other")
    assert printed.status == 0, printed.err
    assert '!! NO FOREGROUND: val never shows "foreground"' in printed.out
    for file in masks.iterdir():
        Image.fromarray(np.zeros((12, 12), np.uint8)).save(file)
    printed = segreg("data", "split", "recipe.yaml", *words[:2], "--out", "third")
    assert (printed.status, Path("third").exists()) == (2, False)
    assert 'the masks of train show nothing but "background"' in printed.err


def test_a_split_refuses_files_that_a_run_refuses(segreg):
    first, second, third = sorted(Path("data/masks").iterdir())[:3]
    Image.new("L", (7, 5), 255).save(first)
    second.write_bytes(b"")
    Image.new("L", (140, 150), 255).save(third)
    sorted(Path("data/images").iterdir())[2].write_bytes(b"")
    printed = segreg("data", "split", "recipe.yaml", "--out", "out")
    assert (printed.status, printed.out, Path("out").exists()) == (2, "", False)
    assert re.findall(r"^error: (.*)", printed.err, re.MULTILINE) == [
        f"data/images/image 00.png: is 150x140 but its mask {first} is 5x7 (height x width)",
        f"{second}: is empty (0 bytes)",
        "data/images/image 02.png: is empty (0 bytes)",
    ]


def test_a_notice_about_the_data_is_framed(segreg):
    for words in (["check", "recipe.yaml"], ["split", "recipe.yaml", "--out", "out"]):
        printed = segreg("data", *words, "dataset={name: synthetic_lesions, samples: 8, size: 32}", "augment=[]")
        assert printed.out.splitlines()[1].startswith("!! SYNTHETIC IMAGES: 8 drawn skin lesions"), printed.err


def test_shares_of_the_rest_are_shares_of_all(segreg, tmp_path):
    """15% for the test and 15% of the rest for validation, as a reference system divides."""
    images, masks = tiny_runs.folder_dataset(tmp_path / "more", count=100, size=(8, 8))
    printed = segreg(
        "data", "split", "recipe.yaml", f"dataset.images={images}", f"dataset.masks={masks}",
        "split.test=0.15", "split.val=0.1275", "--out", "out", "--link", "symbolic", "--json",
    )  # fmt: skip
    splits = json.loads(printed.out)["splits"]
    assert splits["test"] == 0.15 * 100
    assert abs(splits["val"] - 0.15 * (100 - splits["test"])) <= 1
    assert sum(splits.values()) == 100
    assert next(Path("out/val_split/masks").iterdir()).is_symlink()


def test_the_recipe_for_folders_can_split_as_scikit_learn_does(segreg, tmp_path):
    from sklearn.model_selection import train_test_split

    images, masks = tiny_runs.folder_dataset(tmp_path / "more", count=40, size=(8, 8))
    recipe = Path(__file__).parents[2] / "recipes" / "folder_v3.yaml"
    printed = segreg(
        "data", "split", recipe, f"dataset.images={images}", f"dataset.masks={masks}",
        "split.method=train_test_split", "split.val=0.15", "--out", "out", "--json",
    )  # fmt: skip
    assert printed.status == 0, printed.err
    names = sorted(file.name for file in images.iterdir())
    rest, test = train_test_split(names, test_size=0.15, random_state=42)
    train, val = train_test_split(rest, test_size=0.15, random_state=42)
    for split, wanted in (("train", train), ("val", val), ("test", test)):
        assert sorted(file.name for file in Path(f"out/{split}_split/images").iterdir()) == sorted(wanted)


def test_split_reports_its_progress(segreg, monkeypatch):
    monkeypatch.setattr("segreg.runtime.progress.progress", lambda mode, stream: Lines(stream, every=0))
    printed = segreg("data", "split", "recipe.yaml", "split.seed=42", "--out", "out")
    done = [line.partition(",")[0] for line in printed.err.splitlines()]
    assert done[:15] == [f"  reading images: {count}/15 images" for count in range(1, 16)]
    assert done[15:30] == [f"  reading masks: {count}/15 masks" for count in range(1, 16)]
    assert done[30:45] == [f"  comparing images with their files: {count}/15 images" for count in range(1, 16)]
    assert done[45:] == [f"  writing the split: {count}/30 files" for count in range(1, 31)]
    assert all(line.endswith(" left") for line in printed.err.splitlines())


def test_a_split_is_trained_on_as_it_was_drawn(segreg):
    segreg("data", "split", "recipe.yaml", "--out", "out")
    changed = RECIPE.replace(
        "{name: folder, images: data/images, masks: data/masks}", "{name: csv, manifest: out/split.csv}"
    )
    Path("again.yaml").write_text(changed.replace("method: random", "method: dataset"))
    one, other = segreg("data", "check", "recipe.yaml", "--json"), segreg("data", "check", "again.yaml", "--json")
    assert json.loads(one.out)["classes"] == json.loads(other.out)["classes"]


def test_input_is_only_read(segreg):
    before = {path: path.read_bytes() for path in Path("data").rglob("*") if path.is_file()}
    segreg("data", "check", "recipe.yaml", "--out", "seen", "--samples", "1", "--draws", "1")
    segreg("data", "split", "recipe.yaml", "--out", "out", "--link", "hard")
    assert {path: path.read_bytes() for path in Path("data").rglob("*") if path.is_file()} == before

"""The dataset `yolo`: data.yaml in all its forms, and polygons in shares of the sides."""

from __future__ import annotations

import pickle
import random

import numpy as np
import pytest
import yaml

import plugged
import segreg.testing
from segreg.errors import SegregError
from segreg.registry.registry import load_registry
from segreg_plugins.datasets.yolo import yolo
from shape_masks import layered, masks, refusal, within, write_image

SQUARE = "0 0.2 0.125 0.6 0.125 0.6 0.5 0.2 0.5"
"""Columns 2 to 5 of rows 1 to 3 of 8x10."""
BOX = "0 0.4 0.3125 0.4 0.375"
"""The same as centre, width and height."""


def export(root, labels, *, names=("cat", "dog"), split="train", **settings):
    """Write data.yaml, and an image (8x10) with its labels for each name in `labels`; None is no file."""
    for name, lines in labels.items():
        write_image(root / "images" / split / f"{name}.png")
        if lines is not None:
            file = root / "labels" / split / f"{name}.txt"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(lines)
    content = {split: f"images/{split}", "names": list(names)} | settings
    (root / "data.yaml").write_text(yaml.safe_dump(content))
    return root / "data.yaml"


def drawn(data, **settings):
    return next(iter(masks(yolo(data=data, **settings)).values()))


def test_polygons_are_drawn_and_later_lines_lie_on_top(tmp_path):
    data = export(tmp_path, {"a": f"{SQUARE}\n\n1 0.5 0 1 0 1 1 0.5 1\n"})
    square, right = np.s_[1:4, 2:6], np.s_[:, 5:]
    np.testing.assert_array_equal(drawn(data), layered((square, 1), (right, 2)))
    data = export(tmp_path, {"a": f"1 0.5 0 1 0 1 1 0.5 1\n{SQUARE}\n"})
    np.testing.assert_array_equal(drawn(data), layered((right, 2), (square, 1)))


def test_any_polygon_has_the_pixels_whose_centres_lie_in_it(tmp_path):
    dice = random.Random(5)
    lines = {}
    expected = {}
    for number in range(20):
        corners = [(dice.random(), dice.random()) for _ in range(dice.randrange(3, 9))]
        lines[f"p{number}"] = "0 " + " ".join(f"{x!r} {y!r}" for x, y in corners)
        expected[f"p{number}"] = within([(x * 10, y * 8) for x, y in corners])
    found = masks(yolo(data=export(tmp_path, lines)))
    assert {name: mask.tolist() for name, mask in found.items()} == {
        name: mask.astype(int).tolist() for name, mask in expected.items()
    }


def test_an_image_is_measured_once_for_all_its_lines(tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr("segreg_plugins.datasets.shapes.upright_size", lambda path: read.append(path.name) or (8, 10))
    yolo(data=export(tmp_path, {"a": f"{SQUARE}\n" * 3, "b": SQUARE}))
    assert read == ["a.png", "b.png"]


def test_images_without_labels_are_background_and_one_without_any_is_refused(tmp_path):
    data = export(tmp_path, {"a": SQUARE, "b": None, "c": ""})
    found = masks(yolo(data=data))
    assert [int(found[name].sum()) for name in "abc"] == [12, 0, 0]
    (tmp_path / "labels/train/a.txt").unlink()
    (tmp_path / "labels/train/c.txt").unlink()
    refusal(lambda: yolo(data=data), str(data), "none of its 3 images", str(tmp_path / "labels/train/a.txt"))


@pytest.mark.parametrize(("boxes", "value"), [("draw", 1), ("ignore", 255), ("skip", 0)])
def test_lines_of_a_detection_export_are_refused_unless_it_is_said_what_they_become(tmp_path, boxes, value):
    data = export(tmp_path, {"a": f"{BOX}\n1 0.8 0 1 0 1 1 0.8 1"})
    refusal(lambda: yolo(data=data), str(data), "1 of 2 annotations are boxes", "line 1 of", "a.txt", "boxes: ignore")
    classes = ("dog",) if boxes == "skip" else ("cat", "dog")
    right = len(classes)
    expected = layered((np.s_[1:4, 2:6], value), (np.s_[:, 8:], right))
    np.testing.assert_array_equal(drawn(data, boxes=boxes), expected)


def test_layouts(tmp_path):
    for split in ("train", "valid", "test"):  # as Roboflow writes it
        write_image(tmp_path / f"r/{split}/images/{split}_jpg.rf.0a.jpg")
        (tmp_path / f"r/{split}/labels").mkdir()
        (tmp_path / f"r/{split}/labels/{split}_jpg.rf.0a.txt").write_text(SQUARE)
    content = {f"{'val' if s == 'valid' else s}": f"../{s}/images" for s in ("train", "valid", "test")}
    (tmp_path / "r/data.yaml").write_text(yaml.safe_dump(content | {"nc": 1, "names": ["cat"]}))
    samples = yolo(data=tmp_path / "r/data.yaml").samples
    found = [(sample.split, sample.group) for sample in samples]
    assert found == [("train", "train_jpg"), ("val", "valid_jpg"), ("test", "test_jpg")]
    # As Ultralytics writes it: a path elsewhere, names by number, lists of images, and labels beside their images.
    export(tmp_path / "u", {"a": SQUARE, "b": None})
    write_image(tmp_path / "u/more/c.png")
    (tmp_path / "u/more/c.txt").write_text(SQUARE.replace("0 ", "3 ", 1))
    (tmp_path / "u/list.txt").write_text("./images/train/a.png\n\nmore\\c.png\n")
    content = {"path": "../elsewhere", "train": ["list.txt"], "names": {0: "cat", 3: "dog"}}
    (tmp_path / "u/data.yaml").write_text(yaml.safe_dump(content))
    dataset = yolo(data=tmp_path / "u/data.yaml")
    assert dataset.task.classes == ("background", "cat", "dog")
    assert {name: int(mask.max()) for name, mask in masks(dataset).items()} == {"a": 1, "c": 2}
    (tmp_path / "apart.yaml").write_text(yaml.safe_dump(content | {"path": "u"}))
    assert len(yolo(data=tmp_path / "apart.yaml").samples) == 2
    assert len(yolo(data=tmp_path / "apart.yaml", root=tmp_path / "u").samples) == 2


def test_a_test_that_is_not_there_is_reported_and_left_out(tmp_path):
    dataset = yolo(data=export(tmp_path, {"a": SQUARE}, test="../test/images"))
    assert "../test/images" in dataset.notice
    assert [sample.split for sample in dataset.samples] == ["train"]


def test_images_in_two_splits_are_refused(tmp_path):
    data = export(tmp_path, {"a": SQUARE}, val="images/train")
    refusal(lambda: yolo(data=data), "1 images of val are also in train", "a.png", "take val out of data.yaml")


def test_paths_stay_in_the_folder(tmp_path):
    write_image(tmp_path / "secret/x.png")
    for name in ("../secret", str(tmp_path / "secret"), "images/../../secret"):
        data = export(tmp_path / "data", {"a": SQUARE}, val=name)
        refusal(lambda data=data: yolo(data=data), str(data), "val", "there is no", name)
    data = export(tmp_path / "data", {"a": SQUARE}, val="list.txt")
    (tmp_path / "data/list.txt").write_text("images/train/a.png\n../secret/x.png\n")
    refusal(lambda: yolo(data=data), "list.txt:2: ", "../secret/x.png", "is not an image in")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("2 0 0 1 0 1 1", ["a.txt:2: ", "class is 2", "2 classes, 0 to 1"]),
        ("0.5 0 0 1 0 1 1", ["a.txt:2: ", "class is 0.5"]),
        ("0 0 0 1 0 1", ["a.txt:2: ", "holds 6 numbers", "a detection's prediction"]),
        ("0 0 0", ["a.txt:2: ", "holds 3 numbers"]),
        ("0 0 0 640 0 640 480", ["a.txt:2: ", "a coordinate is 640", "divide x by the image's width"]),
        ("0 0 0 nan 0 1 1", ["a.txt:2: ", "a coordinate is NaN"]),
        ("cat 0 0 1 0 1 1", ["a.txt:2: ", "not a number", "a line has a class number"]),
    ],
)
def test_lines_that_are_wrong_are_refused_by_number(tmp_path, line, says):
    data = export(tmp_path, {"a": f"{SQUARE}\n{line}"})
    refusal(lambda: yolo(data=data), *says)


def test_outlines_that_enclose_nothing_are_left_out(tmp_path):
    data = export(tmp_path, {"a": f"{SQUARE}\n1 0.1 0.1 0.5 0.1 0.9 0.1"})
    assert yolo(data=data).task.classes == ("background", "cat")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("train: [", ["data.yaml:1:", "not a YAML"]),
        ("- a", ["data.yaml", "not a mapping"]),
        ("train: images/train\nnames: 3", ["names is 3"]),
        ("train: images/train\nnames: [cat, no]", ["names holds 1: False", "in quotes"]),
        ("train: images/train\nnames: [cat, cat]", ['"cat"', "more than once"]),
        ("train: images/train\nnames: [cat]\nnc: 2", ["nc is 2", "names has 1"]),
        ("tran: images/train\nnames: [cat]", ["neither train nor val", "tran"]),
        ("train: images/tran\nnames: [cat]", ['no "images/tran"', 'did you mean "train"?']),
        ("train: images/train\nnames: [cat]\nkpt_shape: [17, 3]", ["kpt_shape"]),
        ("train: {a: 1}\nnames: [cat]", ["train is", "a folder"]),
    ],
)
def test_settings_that_are_wrong_are_refused(tmp_path, content, says):
    export(tmp_path, {"a": SQUARE})
    (tmp_path / "data.yaml").write_text(content)
    refusal(lambda: yolo(data=tmp_path / "data.yaml"), *says)


def test_labels_without_an_image_are_refused(tmp_path):
    data = export(tmp_path, {"a": SQUARE})
    (tmp_path / "labels/train/classes.txt").write_text("cat")
    yolo(data=data)
    (tmp_path / "labels/train/b.txt").write_text(SQUARE)
    refusal(lambda: yolo(data=data), "1 files of labels have no image", "b.txt")


def test_labels_of_images_that_no_list_names_are_not_refused(tmp_path):
    data = export(tmp_path, {"a": SQUARE, "b": SQUARE})
    (tmp_path / "images/train/b.png").rename(tmp_path / "images/train/b.PNG")
    (tmp_path / "train.txt").write_text("./images/train/a.png\n")
    data.write_text("train: train.txt\nnames: [cat, dog]\n")
    (tmp_path / "labels/train/._a.txt").write_bytes(b"\0\5\26\7")  # as macOS leaves behind
    assert [sample.id for sample in yolo(data=data).samples] == ["a"]
    (tmp_path / "images/train/b.PNG").unlink()
    refusal(lambda: yolo(data=data), "1 files of labels have no image", "b.txt")


def test_missing_files_are_reported(tmp_path):
    data = export(tmp_path, {"a": SQUARE})
    refusal(lambda: yolo(data=tmp_path / "data.yml"), "there is no file", 'did you mean "data.yaml"?')
    refusal(lambda: yolo(data=tmp_path), "is a folder", f"set data: {data}")


def test_classes_are_chosen_as_with_coco(tmp_path):
    data = export(tmp_path, {"a": f"{SQUARE}\n1 0.5 0 1 0 1 1 0.5 1"})
    one = yolo(data=data, classes={"pet": ("cat", "dog")}, mode="binary")
    assert int(next(iter(masks(one).values())).sum()) == 8 * 5 + 9
    both = yolo(data=data, mode="multilabel")
    assert [int(layer.sum()) for layer in next(iter(masks(both).values()))] == [12, 40]
    refusal(lambda: yolo(data=data, classes=("cat",)), '"dog"', "others: background")
    refusal(lambda: yolo(data=data, classes=("cad", "dog")), '"cad"', 'did you mean "cat"?')


def test_it_can_be_pickled_and_names_what_changes_masks(tmp_path):
    data = export(tmp_path, {"a": f"{SQUARE}\n{BOX}"})
    dataset = yolo(data=data, boxes="draw")
    again = pickle.loads(pickle.dumps(dataset))
    np.testing.assert_array_equal(again.read_mask(again.samples[0]), dataset.read_mask(dataset.samples[0]))
    assert dataset.reader != yolo(data=data, boxes="ignore").reader
    settings = {"boxes": "draw", "classes": {"pet": ("cat", "dog")}}
    export(tmp_path, {"a": f"{SQUARE}\n{BOX.replace('0', '1', 1)}"})
    before = yolo(data=data, **settings).reader
    export(tmp_path, {}, names=("dog", "cat"))
    assert yolo(data=data, **settings).reader != before


def test_a_name_of_no_file_and_deep_settings_are_no_crash(tmp_path):
    data = export(tmp_path, {"a": SQUARE}, val="x" * 5000)
    refusal(lambda: yolo(data=data), "there is no")
    data.write_text("[" * 10_000)
    with pytest.raises(SegregError):
        yolo(data=data)


def test_it_passes_the_kit(tmp_path):
    part = load_registry(plugged.builtin()).find("dataset", "yolo")
    data = export(tmp_path, {"a": SQUARE, "b": None}, val="images/more")
    write_image(tmp_path / "images/more/c.png")
    outcomes = [check.outcome() for check in segreg.testing.checks(part, settings={"data": str(data)})]
    assert [str(outcome) for outcome in outcomes if outcome.status != "passed"] == []

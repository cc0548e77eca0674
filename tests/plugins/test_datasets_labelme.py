"""The dataset `labelme`: every kind of shape, and where images are found."""

from __future__ import annotations

import base64
import io
import json
import pickle

import numpy as np
import pytest
from PIL import Image

import plugged
import segreg.testing
from segreg.registry.protocols import Objects
from segreg.registry.registry import load_registry
from segreg_plugins.datasets.labelme import labelme
from shape_masks import layered, masks, near, refusal, within, write_image

SQUARE = {"label": "cat", "shape_type": "polygon", "points": [[2, 1], [6, 1], [6, 4], [2, 4]]}
"""Columns 2 to 5 of rows 1 to 3 of 8x10."""


def png(values):
    file = io.BytesIO()
    Image.fromarray(np.asarray(values, np.uint8)).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def annotate(root, shapes, name="a", *, image=True, size=(8, 10), **keys):
    """Write a LabelMe file, and its image beside it."""
    if image:
        write_image(root / f"{name}.png")
    root.mkdir(parents=True, exist_ok=True)
    content = {"version": "5.5.0", "flags": {}, "shapes": shapes, "imagePath": f"{name}.png", "imageData": None}
    content |= {"imageHeight": size[0], "imageWidth": size[1]} | keys
    (root / f"{name}.json").write_text(json.dumps(content))
    return root


def drawn(root, **settings):
    return next(iter(masks(labelme(root=root, **settings)).values()))


def test_polygons_rectangles_and_circles(tmp_path):
    triangle = [[1.2, 0.3], [9.1, 2.7], [3.3, 7.6]]
    circle = {"label": "dog", "shape_type": "circle", "points": [[5, 4], [7.5, 4]]}
    box = {"label": "dog", "shape_type": "rectangle", "points": [[9, 7], [7, 5]]}
    root = annotate(tmp_path, [SQUARE | {"points": triangle}, circle, box])
    corner = np.s_[5:7, 7:9]
    expected = layered((within(triangle), 1), (near(5, 4, 2.5, 2.5), 2), (corner, 2))
    np.testing.assert_array_equal(drawn(root), expected)
    # Files of old versions say nothing of the kind.
    old = {key: value for key, value in SQUARE.items() if key != "shape_type"}
    np.testing.assert_array_equal(drawn(annotate(tmp_path, [old])), layered((np.s_[1:4, 2:6], 1)))


def test_later_shapes_lie_on_top(tmp_path):
    whole = {"label": "dog", "shape_type": "rectangle", "points": [[0, 0], [10, 8]]}
    square = np.s_[1:4, 2:6]
    np.testing.assert_array_equal(drawn(annotate(tmp_path, [whole, SQUARE])), layered((np.s_[:], 2), (square, 1)))
    assert (drawn(annotate(tmp_path, [SQUARE, whole]), classes=("cat", "dog")) == 2).all()


def test_masks_lie_where_their_points_say(tmp_path):
    pixels = [[1, 0, 1], [0, 1, 1]]
    mask = {"label": "cat", "shape_type": "mask", "points": [[4, 5], [6, 6]], "mask": png(pixels)}
    expected = np.zeros((8, 10), np.uint8)
    expected[5:7, 4:7] = pixels
    np.testing.assert_array_equal(drawn(annotate(tmp_path, [mask])), expected)
    for x, y in ((3.5, 4.5), (4.5, 5.5)):  # it was moved; it begins at the nearest pixel
        moved = mask | {"points": [[x, y], [x + 2, y + 1]]}
        by = (int(y + 0.5) - 5, int(x + 0.5) - 4)
        np.testing.assert_array_equal(drawn(annotate(tmp_path, [moved])), np.roll(expected, by, (0, 1)))
    expected = np.zeros((8, 10), np.uint8)
    expected[7, 8:10] = [1, 0]  # what lies outside is cut off
    outside = mask | {"points": [[8, 7], [10, 8]]}
    np.testing.assert_array_equal(drawn(annotate(tmp_path, [outside])), expected)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"mask": png([[1]])}, "its mask is 1x1, and its points are 2x3"),
        (
            {"mask": png(np.ones((9, 10))), "points": [[0, 0], [9, 8]]},
            "its mask is 9x10, and the image it lies",
        ),
        ({"mask": "AAAA"}, "its mask is not a PNG"),
        ({"mask": "A"}, "its mask is not base64"),
        ({"mask": png(np.ones((2, 3, 3)))}, 'a PNG of "RGB" colours'),
        ({"mask": None}, "a mask has no base64 PNG"),
        ({"points": [[1, 2]]}, "a mask has 1 points"),
    ],
)
def test_damaged_masks_are_refused_by_name(tmp_path, change, says):
    mask = {"label": "cat", "shape_type": "mask", "points": [[4, 5], [6, 6]], "mask": png(np.ones((2, 3)))}
    root = annotate(tmp_path, [SQUARE, mask | change])
    refusal(lambda: labelme(root=root), str(tmp_path / "a.json"), "shape 2", says)


def test_shapes_without_an_area_are_refused_or_left_out_and_counted(tmp_path):
    shapes = [{"label": "cat", "shape_type": kind, "points": [[1, 1]]} for kind in ("point", "line", "point")]
    root = annotate(tmp_path, [*shapes, SQUARE, {"label": "eye", "shape_type": "linestrip", "points": []}])
    says = ["4 shapes enclose no area", "2 point, 1 line and 1 linestrip", "shape 1 of", "other_shapes: skip"]
    refusal(lambda: labelme(root=root), *says)
    dataset = labelme(root=root, other_shapes="skip")
    left_out = {"points have no area": 2, "lines have no area": 1, "linestrips have no area": 1}
    assert dataset.objects == Objects(5, left_out=left_out, notes=[])
    assert dataset.task.classes == ("background", "cat")
    np.testing.assert_array_equal(drawn(root, other_shapes="skip"), layered((np.s_[1:4, 2:6], 1)))


def test_what_no_mask_shows_is_counted(tmp_path):
    def moved(x, y, **more):
        return SQUARE | {"points": [[px + x, py + y] for px, py in SQUARE["points"]]} | more

    shapes = [
        SQUARE, moved(20, 0), moved(6, 0), SQUARE | {"points": [[1, 1], [1.3, 1], [1.3, 1.3]]},
        SQUARE | {"points": [[1, 1], [2, 2]]}, SQUARE | {"points": [[1, 1], [2, 2], [4, 4]]},
        {"label": "cat", "shape_type": "circle", "points": [[-9, 4], [-9, 6]]},
        {"label": "cat", "shape_type": "circle", "points": [[3, 3], [3, 3]]},
        {"label": "dog", "shape_type": "rectangle", "points": [[3, 3], [5, 3]]},
        {"label": "eye", "shape_type": "rectangle", "points": [[3, 3], [5, 5]]},
        {"label": "eye", "shape_type": "rectangle", "points": [[13, 13], [15, 15]]},
    ]  # fmt: skip
    root = annotate(tmp_path, shapes)
    left_out = {"outside the image": 3, "no pixel's centre in them": 2, "enclose nothing": 3}
    assert labelme(root=root).objects == Objects(11, left_out=left_out, cut_off=1, notes=[])
    assert labelme(root=root).task.classes == ("background", "cat", "eye")
    boxes = labelme(root=root, boxes="ignore").objects
    assert boxes.ignored == {"boxes without an outline; `boxes: ignore`": 2}
    one = labelme(root=root, classes=("cat",), others="background").objects
    assert (one.total, one.notes) == (9, ["2 more in no class are not drawn (`others: background`)"])
    (mask,) = (labelme(root=root).read_mask(sample) for sample in labelme(root=root).samples)
    assert (mask == 1).sum() == 12 + 6 - 2  # under the box


@pytest.mark.parametrize(("boxes", "value"), [("draw", 1), ("ignore", 255), ("skip", 0)])
def test_rectangles(tmp_path, boxes, value):
    box = {"label": "cat", "shape_type": "rectangle", "points": [[0, 0], [2, 2]]}
    root = annotate(tmp_path, [SQUARE, box])
    np.testing.assert_array_equal(drawn(root, boxes=boxes), layered((np.s_[1:4, 2:6], 1), (np.s_[:2, :2], value)))
    refusal(lambda: labelme(root=root, boxes="error"), "1 of 2 annotations are boxes", "shape 2 of", "boxes: ignore")
    for kind in ("rotation", "oriented_rectangle"):
        corners = box | {"shape_type": kind, "points": [[0, 0], [2, 0], [2, 2], [0, 2]]}
        root = annotate(tmp_path, [SQUARE, corners])
        np.testing.assert_array_equal(drawn(root, boxes=boxes), layered((np.s_[1:4, 2:6], 1), (np.s_[:2, :2], value)))


def test_where_images_are_found(tmp_path):
    root = tmp_path / "root"
    for name, path in (("a", "..\\images\\a.png"), ("b", "C:\\pictures\\b.png"), ("c", "../../outside/c.png")):
        annotate(root / "labels", [SQUARE], name, image=False, imagePath=path)
    write_image(root / "images/a.png")
    write_image(root / "labels/b.png")
    write_image(root / "labels/c.png")
    write_image(tmp_path / "outside/c.png")
    found = [sample.image for sample in labelme(root=root).samples]
    assert found == [root / "images/a.png", root / "labels/b.png", root / "labels/c.png"]
    (root / "labels/c.png").unlink()
    refusal(lambda: labelme(root=root), "c.json", "../../outside/c.png", "is not in", "set images:")
    found = [sample.image for sample in labelme(root=root, images=tmp_path / "outside").samples]
    assert found[2] == tmp_path / "outside/c.png"


def test_the_image_in_the_file_is_taken_where_there_is_no_other(tmp_path):
    inside = np.arange(240, dtype=np.uint8).reshape(8, 10, 3)
    dataset = labelme(root=annotate(tmp_path, [SQUARE], image=False, imageData=png(inside)))
    sample = dataset.samples[0]
    assert not sample.image.exists()
    np.testing.assert_array_equal(dataset.read_image(sample), inside)
    np.testing.assert_array_equal(dataset.read_mask(sample), layered((np.s_[1:4, 2:6], 1)))
    for data, says in (("AAAA", "its imageData is not an image"), ("A", "its imageData is not base64")):
        root = annotate(tmp_path, [SQUARE], image=False, imageData=data)
        refusal(lambda root=root: labelme(root=root), str(tmp_path / "a.json"), says)


def test_folders_of_splits_and_images_without_a_file(tmp_path):
    for split in ("train", "valid", "test"):
        annotate(tmp_path / split, [SQUARE])
    write_image(tmp_path / "train/unlabelled.png")
    samples = labelme(root=tmp_path).samples
    assert [(sample.id, sample.split) for sample in samples] == [
        ("test__a.json", "test"), ("train__a.json", "train"), ("valid__a.json", "val")
    ]  # fmt: skip
    annotate(tmp_path / "more", [SQUARE])
    assert {sample.split for sample in labelme(root=tmp_path).samples} == {None}


def test_sizes_that_differ_are_refused_or_scaled(tmp_path):
    double = SQUARE | {"points": [[2 * x, 2 * y] for x, y in SQUARE["points"]]}
    circle = {"label": "dog", "shape_type": "circle", "points": [[16, 10], [19, 10]]}
    mask = {"label": "owl", "shape_type": "mask", "points": [[0, 12], [3, 15]], "mask": png(np.ones((4, 4)))}
    root = annotate(tmp_path, [double, circle, mask], size=(16, 20))
    refusal(lambda: labelme(root=root), "16x20", "8x10", "size_mismatch: scale")
    expected = layered((np.s_[1:4, 2:6], 1), (near(8, 5, 1.5, 1.5), 2), (np.s_[6:8, :2], 3))
    np.testing.assert_array_equal(drawn(root, size_mismatch="scale"), expected)
    refusal(lambda: labelme(root=annotate(tmp_path, [SQUARE], size=(10, 8))), "height and width are exchanged")


@pytest.mark.parametrize(
    ("shape", "says"),
    [
        ("x", "is not an object"),
        (SQUARE | {"label": ""}, "its label is"),
        (SQUARE | {"points": 3}, "its points are 3"),
        (SQUARE | {"points": [[1]]}, "its points hold [1]"),
        (SQUARE | {"points": [[1, "2"]]}, 'a coordinate is "2"'),
        (SQUARE | {"points": [[1, 1e300]]}, "a coordinate is 1e+300"),
        (SQUARE | {"points": [[1, 10**400]]}, "a coordinate is 1000000"),
        (SQUARE | {"points": [[1, float("inf")]]}, "a coordinate is Infinity, and a number was expected"),
        (SQUARE | {"shape_type": "circle"}, "a circle has 4 points"),
        (SQUARE | {"shape_type": "rectangle", "points": [[1, 1]]}, "a rectangle has 1 points"),
        (SQUARE | {"shape_type": 3}, "its shape_type is 3"),
    ],
)
def test_shapes_that_are_wrong_are_refused_by_name(tmp_path, shape, says):
    root = annotate(tmp_path, [SQUARE, shape])
    refusal(lambda: labelme(root=root), f"{tmp_path / 'a.json'}: shape 2: ", says)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", ["other.json:1:2: is not a JSON"]),
        ('{"images": []}', ["other.json: is not a LabelMe file", '"images"', "move other .json files"]),
        ("[" * 100_000, ["other.json: can't be read as JSON"]),
        ('{"shapes": [], "imagePath": 3}', ["other.json: its imagePath is 3"]),
    ],
)
def test_files_that_are_wrong_are_refused_by_name(tmp_path, text, says):
    annotate(tmp_path, [SQUARE])
    (tmp_path / "other.json").write_text(text)
    refusal(lambda: labelme(root=tmp_path), *says)


def test_an_outline_that_would_fill_the_memory_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("segreg_plugins.datasets.polygons.MOST_CROSSINGS", 50)
    assert labelme(root=annotate(tmp_path, [SQUARE])).samples
    zigzag = SQUARE | {"points": [[n, 8 * (n % 2)] for n in range(9)]}
    root = annotate(tmp_path, [SQUARE, zigzag])
    refusal(lambda: labelme(root=root), "a.json: shape 2 ", "a.png): a polygon of 9 points crosses rows of pixels 64")


def test_what_is_missing_is_reported(tmp_path):
    refusal(lambda: labelme(root=tmp_path / "gone"), "there is no folder", "LabelMe writes")
    refusal(lambda: labelme(root=tmp_path), "holds no .json file", "LabelMe writes")
    annotate(tmp_path, [SQUARE], image=False)
    write_image(tmp_path / "aa.png")
    refusal(lambda: labelme(root=tmp_path), 'its image "a.png"', 'did you mean "aa.png"?')
    annotate(tmp_path / "empty", [])
    refusal(lambda: labelme(root=tmp_path / "empty"), "no shape is annotated")
    annotate(tmp_path / "twice", [SQUARE])
    annotate(tmp_path / "twice", [SQUARE], "b", imagePath="a.png")
    refusal(lambda: labelme(root=tmp_path / "twice"), "b.json: its image is", "as is that of", "a.json")


def test_it_passes_the_kit_and_can_be_pickled(tmp_path):
    part = load_registry(plugged.builtin()).find("dataset", "labelme")
    mask = {"label": "dog", "shape_type": "mask", "points": [[4, 5], [6, 6]], "mask": png(np.ones((2, 3)))}
    for split in ("train", "val"):
        annotate(tmp_path / split, [SQUARE, mask], split)
    outcomes = [check.outcome() for check in segreg.testing.checks(part, settings={"root": str(tmp_path)})]
    assert [str(outcome) for outcome in outcomes if outcome.status != "passed"] == []
    again = pickle.loads(pickle.dumps(labelme(root=tmp_path)))
    assert all((mask == masks(labelme(root=tmp_path))[name]).all() for name, mask in masks(again).items())

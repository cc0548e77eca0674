"""The dataset `supervisely`: projects, polygons with holes, and bitmaps."""

from __future__ import annotations

import base64
import io
import json
import pickle
import zlib

import numpy as np
import pytest
from PIL import Image

import plugged
import segreg.testing
from segreg.registry.registry import load_registry
from segreg_plugins.datasets.supervisely import supervisely
from shape_masks import layered, masks, refusal, within, write_image

OUTER = [[1, 1], [9, 1], [9, 7], [1, 7]]
INNER = [[3, 2], [6, 2], [6, 5]]
CAT = {"classTitle": "cat", "geometryType": "polygon", "points": {"exterior": OUTER, "interior": []}}
DOG = CAT | {"classTitle": "dog"}


def png(values, mode="L"):
    """A PNG of 0 and 1: grey, or as Supervisely writes it, a palette whose first colour is transparent."""
    image = Image.fromarray(np.asarray(values, np.uint8))
    options = {}
    if mode == "P":
        image = image.convert("P")
        image.putpalette([0, 0, 0, 255, 255, 255])
        options = {"transparency": 0}
    file = io.BytesIO()
    image.save(file, "PNG", **options)
    return file.getvalue()


def bitmap(data, origin=(0, 0), title="cat"):
    packed = base64.b64encode(zlib.compress(data)).decode()
    return {"classTitle": title, "geometryType": "bitmap", "bitmap": {"data": packed, "origin": list(origin)}}


def project(root, objects, *, dataset="ds", name="a.png", size=(8, 10), ann=None):
    """Write meta.json, and an image (8x10) with its annotations."""
    write_image(root / dataset / "img" / name)
    file = root / dataset / "ann" / (ann or f"{name}.json")
    file.parent.mkdir(parents=True, exist_ok=True)
    content = {"description": "", "tags": [], "size": {"height": size[0], "width": size[1]}, "objects": objects}
    file.write_text(json.dumps(content))
    classes = [{"title": "dog", "shape": "polygon"}, {"title": "cat", "shape": "bitmap"}]
    (root / "meta.json").write_text(json.dumps({"classes": classes, "tags": []}))
    return root


def edges(*rings):
    """Corners of pixels' centres, for pixels' numbers."""
    return [[[x + 0.5, y + 0.5] for x, y in ring] for ring in rings]


def drawn(root, **settings):
    return next(iter(masks(supervisely(root=root, **settings)).values()))


def test_polygons_with_holes_and_later_objects_on_top(tmp_path):
    hollow = CAT | {"points": {"exterior": OUTER, "interior": [INNER, [[7, 5], [8, 5], [8, 6], [7, 6]]]}}
    expected = within(OUTER, holes=[INNER, [[7, 5], [8, 5], [8, 6], [7, 6]]])
    assert 0 < expected.sum() < 48 - 1
    np.testing.assert_array_equal(drawn(project(tmp_path, [hollow])), expected.astype(np.uint8))
    # What lies beneath shows in the hole; classes are in meta.json's order.
    both = drawn(project(tmp_path, [DOG, hollow]))
    np.testing.assert_array_equal(both, layered((within(OUTER), 1), (expected, 2)))
    assert (drawn(project(tmp_path, [hollow, DOG]), classes=("dog", "cat"))[within(OUTER)] == 1).all()


def test_whole_coordinates_are_numbers_of_pixels_and_fractions_count_from_edges(tmp_path):
    outer, hole = [[0, 0], [9, 1], [2, 7]], [[2, 1], [5, 2], [3, 5]]
    cat = CAT | {"points": {"exterior": outer, "interior": [hole]}}
    centres = edges(outer, hole)
    expected = within(centres[0], holes=centres[1:])
    assert (expected != within(outer, holes=[hole])).any()
    np.testing.assert_array_equal(drawn(project(tmp_path, [cat])), expected.astype(np.uint8))
    cat = CAT | {"points": {"exterior": centres[0], "interior": centres[1:]}}
    np.testing.assert_array_equal(drawn(project(tmp_path, [cat])), expected.astype(np.uint8))


def test_files_that_macos_leaves_behind_are_no_annotations(tmp_path):
    root = project(tmp_path, [CAT])
    (root / "ds/ann/._a.png.json").write_bytes(b"\0\5\26\7")
    assert len(supervisely(root=root).samples) == 1


@pytest.mark.parametrize("mode", ["L", "P"])
def test_bitmaps_lie_at_their_origin(tmp_path, mode):
    pixels = [[0, 1, 1], [1, 0, 1]]
    expected = np.zeros((8, 10), np.uint8)
    expected[4:6, 2:5] = pixels
    np.testing.assert_array_equal(drawn(project(tmp_path, [bitmap(png(pixels, mode), (2, 4))])), expected)
    expected = np.zeros((8, 10), np.uint8)
    expected[0, 0:2] = pixels[1][1:]  # what lies outside is cut off
    np.testing.assert_array_equal(drawn(project(tmp_path, [bitmap(png(pixels, mode), (-1, -1))])), expected)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (base64.b64encode(b"abc").decode(), "is not zlib in base64"),
        ("A", "is not zlib in base64"),
        (base64.b64encode(zlib.compress(b"abc")).decode(), "is not a PNG"),
        (base64.b64encode(zlib.compress(png(np.ones((9, 10))))).decode(), "its mask is 9x10"),
        (base64.b64encode(zlib.compress(bytes(1 << 24))).decode(), "unpacks to more than 65936 bytes"),
    ],
)
def test_damaged_bitmaps_are_refused_by_name(tmp_path, data, says):
    broken = bitmap(b"")
    broken["bitmap"]["data"] = data
    root = project(tmp_path, [CAT, broken])
    refusal(lambda: supervisely(root=root), "a.png.json: object 2 ", says)


def test_projects_of_several_datasets(tmp_path):
    project(tmp_path, [CAT], dataset="train")
    project(tmp_path, [DOG], dataset="train", name="b.png", ann="b.json")
    project(tmp_path, [CAT], dataset="val")
    samples = supervisely(root=tmp_path).samples
    found = [(sample.id, sample.split, sample.mask.name) for sample in samples]
    assert found == [
        ("train__img__a.png", "train", "a.png.json"), ("b", "train", "b.json"), ("val__img__a.png", "val", "a.png.json")
    ]  # fmt: skip
    project(tmp_path, [CAT], dataset="val/datasets/inner", name="c.png")
    assert supervisely(root=tmp_path).samples[-1].split == "val"
    project(tmp_path, [CAT], dataset="more")
    assert {sample.split for sample in supervisely(root=tmp_path).samples} == {None}


@pytest.mark.parametrize(("boxes", "value"), [("draw", 2), ("ignore", 255), ("skip", 0)])
def test_rectangles(tmp_path, boxes, value):
    box = CAT | {"geometryType": "rectangle", "points": {"exterior": [[2, 2], [0, 0]], "interior": []}}
    dog = DOG | {"points": {"exterior": [[5, 0], [10, 0], [10, 8], [5, 8]], "interior": []}}
    root = project(tmp_path, [dog, box])
    refusal(lambda: supervisely(root=root), "1 of 2 annotations are boxes", "object 2 of", "boxes: ignore")
    np.testing.assert_array_equal(drawn(root, boxes=boxes), layered((np.s_[:, 5:], 1), (np.s_[:3, :3], value)))
    fractions = box | {"points": {"exterior": [[2.0, 2.2], [0, 0]], "interior": []}}  # from the pixels' edges
    drawn_by_edges = drawn(project(tmp_path, [dog, fractions]), boxes=boxes)
    np.testing.assert_array_equal(drawn_by_edges, layered((np.s_[:, 5:], 1), (np.s_[:2, :2], value)))


def test_shapes_without_an_area_are_refused_or_left_out_and_counted(tmp_path):
    others = [CAT | {"geometryType": kind} for kind in ("line", "point", "graph", "point")]
    root = project(tmp_path, [*others, CAT])
    refusal(lambda: supervisely(root=root), "4 shapes enclose no area", "2 point, 1 line and 1 graph", "object 1 of")
    left_out = {"points have no area": 2, "lines have no area": 1, "graphs have no area": 1}
    assert supervisely(root=root, other_shapes="skip").objects.left_out == left_out
    np.testing.assert_array_equal(drawn(root, other_shapes="skip"), within(OUTER).astype(np.uint8))


def test_sizes_that_differ_are_refused_or_scaled(tmp_path):
    double = CAT | {"points": {"exterior": [[2 * x, 2 * y] for x, y in OUTER], "interior": []}}
    root = project(tmp_path, [double, bitmap(png(np.ones((4, 4))), (0, 12), "dog")], size=(16, 20))
    refusal(lambda: supervisely(root=root), "16x20", "8x10", "size_mismatch: scale")
    expected = layered((within(OUTER), 2), (np.s_[6:8, :2], 1))
    np.testing.assert_array_equal(drawn(root, size_mismatch="scale"), expected)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"classTitle": "cad"}, ['its class is "cad"', 'did you mean "cat"?']),
        ({"classTitle": None}, ["its class is"]),
        ({"points": [[1, 1]]}, ["its points are not an object"]),
        ({"points": {"exterior": "x", "interior": []}}, ["its points are a string"]),
        ({"points": {"exterior": OUTER, "interior": [[[1]]]}}, ["its points hold [1]"]),
        ({"geometryType": "rectangle"}, ["a rectangle has 4 points"]),
        ({"geometryType": "bitmap"}, ["a bitmap has no data"]),
        ({"geometryType": "bitmap", "bitmap": {"data": "", "origin": [1]}}, ["a bitmap's origin is [1]"]),
        ({"geometryType": "bitmap", "bitmap": {"data": "", "origin": [1, 1e9]}}, ["a bitmap's origin is 1e+09"]),
    ],
)
def test_objects_that_are_wrong_are_refused_by_name(tmp_path, change, says):
    root = project(tmp_path, [CAT, CAT | change])
    refusal(lambda: supervisely(root=root), "a.png.json: object 2: ", *says)


def test_what_is_missing_is_reported(tmp_path):
    refusal(lambda: supervisely(root=tmp_path), "has no", "meta.json", "download the project")
    project(tmp_path / "deeper", [CAT])
    refusal(lambda: supervisely(root=tmp_path), f"set dataset.root: {tmp_path / 'deeper'}")
    root = project(tmp_path / "a", [CAT])
    write_image(root / "ds/img/b.png")
    (root / "ds/ann/c.png.json").write_text("{}")
    refusal(lambda: supervisely(root=root), "1 of 2 images have no annotations there", "b.png",
            "1 annotation files have no image there", "c.png.json")  # fmt: skip
    root = project(tmp_path / "b", [CAT])
    (root / "ds/ann/a.png.json").write_text('{"shapes": []}')
    refusal(lambda: supervisely(root=root), "is not a Supervisely annotation", '"shapes"')
    (root / "meta.json").write_text("[]")
    refusal(lambda: supervisely(root=root), "meta.json", 'no list "classes"')
    root = project(tmp_path / "c", [])
    refusal(lambda: supervisely(root=root), "no shape is annotated")
    (tmp_path / "d").mkdir()
    (tmp_path / "d/meta.json").write_text((root / "meta.json").read_text())
    refusal(lambda: supervisely(root=tmp_path / "d"), "no folder that holds img and ann")


def test_it_passes_the_kit_and_can_be_pickled(tmp_path):
    part = load_registry(plugged.builtin()).find("dataset", "supervisely")
    for split in ("train", "test"):
        project(tmp_path, [CAT, bitmap(png([[1]]), (2, 3), "dog")], dataset=split)
    outcomes = [check.outcome() for check in segreg.testing.checks(part, settings={"root": str(tmp_path)})]
    assert [str(outcome) for outcome in outcomes if outcome.status != "passed"] == []
    again = pickle.loads(pickle.dumps(supervisely(root=tmp_path)))
    assert all((mask == masks(supervisely(root=tmp_path))[name]).all() for name, mask in masks(again).items())

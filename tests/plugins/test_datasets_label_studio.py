"""The dataset `label_studio`: polygons in percent, brush strokes, and where images are found."""

from __future__ import annotations

import json
import pickle
import random

import numpy as np
import pytest

import plugged
import segreg.testing
from segreg.errors import SegregError
from segreg.registry.registry import load_registry
from segreg_plugins.datasets.brush_rle import brush_pixels
from segreg_plugins.datasets.label_studio import label_studio
from shape_masks import layered, masks, near, refusal, write_image

SQUARE = [[20, 12.5], [60, 12.5], [60, 50], [20, 50]]
"""Columns 2 to 5 of rows 1 to 3 of 8x10."""


def packed(values, sizes=(3, 4, 8, 16), *, dice=None):
    """The bytes of values as rle-pack has them, bit by bit; `dice` cuts them into chunks of any length and form."""
    bits = f"{len(values):032b}{8 - 1:05b}" + "".join(f"{size - 1:04b}" for size in sizes)
    at = 0
    while at < len(values):
        run = 1
        while at + run < len(values) and values[at + run] == values[at]:
            run += 1
        same = run > 1
        length = run if same else 1
        if dice:
            length = dice.randrange(1, min(len(values) - at, 600) + 1)
            same = len(set(values[at : at + length])) == 1 and dice.random() < 0.7
        fitting = [number for number, size in enumerate(sizes) if length <= 2**size]
        if not fitting:
            length, fitting = 2 ** max(sizes), [sizes.index(max(sizes))]
        choice = dice.choice(fitting) if dice else fitting[0]
        bits += f"{int(same)}{choice:02b}{length - 1:0{sizes[choice]}b}"
        bits += "".join(f"{value:08b}" for value in (values[at : at + 1] if same else values[at : at + length]))
        at += length
    bits += "0" * (-len(bits) % 8)
    return bytes(int(bits[start : start + 8], 2) for start in range(0, len(bits), 8))


def rgba(mask, alpha=255):
    return (np.repeat(np.asarray(mask, np.uint8)[..., None], 4, axis=2) * alpha).ravel().tolist()


def region(value, kind="polygonlabels", label="cat", **keys):
    value = value | ({kind: [label]} if label else {})
    own = {
        "id": "r",
        "type": kind,
        "from_name": "label",
        "to_name": "image",
        "original_width": 10,
        "original_height": 8,
    }
    return own | {"image_rotation": 0, "value": value} | keys


def polygon(points=SQUARE, label="cat", **keys):
    return region({"points": points, "closed": True}, label=label, **{"id": label or "r"} | keys)


def brush(data, label="cat", **keys):
    return region({"format": "rle", "rle": list(data)}, "brushlabels", label, **{"id": f"brush {label}"} | keys)


def task(results, image="a.png", number=1, **keys):
    annotations = [{"id": 7, "was_cancelled": False, "ground_truth": False, "result": results}]
    return {"id": number, "data": {"image": image}, "annotations": annotations, "predictions": []} | keys


def export(root, *tasks, images=("a.png",)):
    for name in images:
        write_image(root / "images" / name)
    root.mkdir(parents=True, exist_ok=True)
    (root / "export.json").write_text(json.dumps(list(tasks)))
    return {"annotations": root / "export.json", "images": root / "images"}


def drawn(where, **settings):
    return next(iter(masks(label_studio(**where, **settings)).values()))


# Brush strokes


def test_a_known_brush():
    # 4 values; 8 bits each; sizes 3, 4, 8 and 16; a run of four 255.
    bits = f"{4:032b}" + "00111" + "0010" + "0011" + "0111" + "1111" + "1" + "00" + "011" + "11111111"
    data = int(bits.ljust(72, "0"), 2).to_bytes(9, "big")
    assert brush_pixels(data, (1, 1)).tolist() == [[True]]
    assert packed([255] * 4) == data


def test_brushes_are_decoded_as_they_were_encoded():
    dice = random.Random(7)
    noise = np.random.default_rng(7)
    for height, width in ((1, 1), (8, 10), (33, 47)):
        for share in (0.0, 0.03, 0.5, 1.0):
            mask = noise.random((height, width)) < share
            for sizes in ((3, 4, 8, 16), (1, 2, 3, 5), (16, 16, 16, 16)):
                for data in (packed(rgba(mask), sizes), packed(rgba(mask), sizes, dice=dice)):
                    np.testing.assert_array_equal(brush_pixels(data, (height, width)), mask)


def test_alpha_alone_counts_and_from_half_on():
    values = [255, 255, 255, 127, 0, 0, 0, 128]
    assert brush_pixels(packed(values), (1, 2)).tolist() == [[False, True]]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "breaks off after 0 bytes"),
        (packed(rgba(np.ones((8, 10))))[:8], "breaks off after 8 bytes"),
        (packed(list(range(80)) * 4)[:40], "breaks off after 40 bytes"),
        (packed(rgba(np.ones((9, 10)))), "is of 360 values of 8 bits, and RGBA of 8x10 (height x width) has 320"),
        (b"\xff" * 100, "is of 4294967295 values"),
    ],
)
def test_damaged_brushes_are_refused_by_name(tmp_path, data, says):
    with pytest.raises(SegregError, match=says.replace("(", "[(]").replace(")", "[)]")):
        brush_pixels(data, (8, 10))
    where = export(tmp_path, task([polygon(), brush(data)]))
    refusal(lambda: label_studio(**where), "export.json: region brush cat", "a.png", says)


def test_a_run_that_is_too_long_is_refused():
    bits = f"{4:032b}" + "00111" + "0010" + "0011" + "0111" + "1111" + "1" + "00" + "100" + "11111111"
    with pytest.raises(SegregError, match="more than the 4 values"):
        brush_pixels(int(bits.ljust(72, "0"), 2).to_bytes(9, "big"), (1, 1))


# Masks


def test_polygons_brushes_and_ellipses_and_later_regions_on_top(tmp_path):
    stroke = np.zeros((8, 10), bool)
    stroke[2:7, 3:5] = True
    ellipse = region({"x": 80, "y": 50, "radiusX": 15, "radiusY": 25, "rotation": 0}, "ellipselabels", "owl", id="e")
    where = export(tmp_path, task([polygon(), brush(packed(rgba(stroke)), "dog"), ellipse]))
    expected = layered((np.s_[1:4, 2:6], 1), (stroke, 2), (near(8, 4, 1.5, 2), 3))
    np.testing.assert_array_equal(drawn(where), expected)
    where = export(tmp_path, task([brush(packed(rgba(stroke)), "dog"), polygon()]))
    np.testing.assert_array_equal(drawn(where), layered((stroke, 2), (np.s_[1:4, 2:6], 1)))


def test_a_turned_ellipse_lies_across(tmp_path):
    ellipse = {"x": 50, "y": 50, "radiusX": 40, "radiusY": 12.5, "rotation": 90}
    where = export(tmp_path, task([region(ellipse, "ellipselabels")]))
    np.testing.assert_array_equal(drawn(where), near(5, 4, 1, 4).astype(np.uint8))


@pytest.mark.parametrize(("boxes", "value"), [("draw", 1), ("ignore", 255), ("skip", 0)])
def test_rectangles(tmp_path, boxes, value):
    box = {"x": 50, "y": 0, "width": 20, "height": 50, "rotation": 90}
    where = export(tmp_path, task([polygon(), region(box, "rectanglelabels", id="b")]))
    refusal(lambda: label_studio(**where), "1 of 2 annotations are boxes", "region b of", "boxes: ignore")
    # Turned by 90 degrees around its upper left corner: 2 wide and 4 high become 4 to the left and 2 down.
    expected = layered((np.s_[:2, 1:5], value), (np.s_[1:4, 2:6], 1))
    np.testing.assert_array_equal(drawn(where, boxes=boxes), expected)


def test_labels_may_be_a_tag_of_their_own(tmp_path):
    shape = polygon(label=None, type="polygon", id="one")
    labels = region({"points": SQUARE, "labels": ["dog"]}, "labels", None, id="one")
    text = region({"text": ["x"]}, "textarea", None, id="one")
    choice = region({"choices": ["good"]}, "choices", None, id="whole")
    where = export(tmp_path, task([shape, labels, text, choice]))
    dataset = label_studio(**where)
    assert dataset.task.classes == ("background", "dog")
    np.testing.assert_array_equal(drawn(where), layered((np.s_[1:4, 2:6], 1)))


def test_several_labels_of_one_region_are_layers(tmp_path):
    both = polygon()
    both["value"]["polygonlabels"] = ["cat", "dog"]
    layers = drawn(export(tmp_path, task([both])), mode="multilabel")
    assert [int(layer.sum()) for layer in layers] == [12, 12]


def test_shapes_without_an_area_are_refused_or_left_out_and_counted(tmp_path):
    point = region({"x": 1, "y": 1, "width": 0.5}, "keypointlabels", id="k")
    unclosed = region({"points": SQUARE, "closed": False}, id="o")
    where = export(tmp_path, task([point, unclosed, polygon()]))
    refusal(lambda: label_studio(**where), "2 shapes enclose no area", "1 key point and 1 open polygon", "region k of")
    dataset = label_studio(**where, other_shapes="skip")
    assert dataset.objects.left_out == {"key points have no area": 1, "open polygons have no area": 1}
    np.testing.assert_array_equal(drawn(where, other_shapes="skip"), layered((np.s_[1:4, 2:6], 1)))


# Tasks


@pytest.mark.parametrize(
    ("named", "file"),
    [
        ("/data/upload/3/0a1b2c3d-a%20b.png", "a b.png"),
        ("/data/upload/3/0a1b2c3d-a.png", "0a1b2c3d-a.png"),
        ("/data/local-files/?d=deep%2Fmore%2Fa.png", "more/a.png"),
        ("s3://bucket/deep/a.png", "deep/a.png"),
        ("https://example.com/x/a.png?token=1", "a.png"),
        ("C:\\data\\a.png", "a.png"),
        ("../../a.png", "a.png"),
    ],
)
def test_where_images_are_found(tmp_path, named, file):
    where = export(tmp_path, task([polygon()], named), images=[file])
    assert label_studio(**where).samples[0].image == tmp_path / "images" / file


def test_images_outside_the_folder_are_not_found(tmp_path):
    write_image(tmp_path / "secret/x.png")
    for named in ("../secret/x.png", str(tmp_path / "secret/x.png"), "/data/local-files/?d=../secret/x.png"):
        where = export(tmp_path, task([polygon()], named))
        refusal(lambda where=where: label_studio(**where), "task 1: its image", named, "is not in", "set images:")


def test_tasks_without_an_annotation_are_left_out_and_counted(tmp_path):
    skipped = task([polygon()], "b.png", 2)
    skipped["annotations"][0]["was_cancelled"] = True
    where = export(tmp_path, task([polygon()]), skipped, task([], "c.png", 3), task([], "d.png", 4, annotations=[]),
                   images=["a.png", "c.png"])  # fmt: skip
    dataset = label_studio(**where)
    assert [sample.id for sample in dataset.samples] == ["a", "c"]
    assert "2 tasks that are not annotated are left out" in dataset.notice
    assert masks(dataset)["c"].max() == 0


def test_several_annotations_are_refused_or_chosen(tmp_path):
    several = task([polygon()])
    several["annotations"].append({"id": 8, "result": [polygon(label="dog")]})
    where = export(tmp_path, several)
    refusal(lambda: label_studio(**where), "task 1: has 2 annotations", "annotators: first or last")
    assert label_studio(**where, annotators="first").task.classes[1] == "cat"
    assert label_studio(**where, annotators="last").task.classes[1] == "dog"
    same = task([polygon()])
    same["annotations"] *= 2
    where = export(tmp_path, same)
    assert label_studio(**where, annotators="first").reader != label_studio(**where, annotators="last").reader


def test_sizes_that_differ_are_refused_or_scaled(tmp_path):
    stroke = np.zeros((16, 20), bool)
    stroke[12:16, :4] = True
    size = {"original_width": 20, "original_height": 16}
    where = export(tmp_path, task([polygon(**size), brush(packed(rgba(stroke)), "dog", **size)]))
    refusal(lambda: label_studio(**where), "16x20", "8x10", "size_mismatch: scale")
    expected = layered((np.s_[1:4, 2:6], 1), (np.s_[6:8, :2], 2))
    np.testing.assert_array_equal(drawn(where, size_mismatch="scale"), expected)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"original_width": None}, ["has no original_width"]),
        ({"original_width": 11}, ["is in an image of 8x11"]),
        ({"image_rotation": 90}, ["turned by 90 degrees"]),
        ({"value": {"points": SQUARE}}, ["has no label", "give it one"]),
        ({"value": {"points": 3, "polygonlabels": ["cat"]}}, ["its points are 3"]),
        ({"value": {"points": [[1, 1e99]], "polygonlabels": ["cat"]}}, ["a coordinate is 1e+99"]),
        ({"value": {"rle": [256], "polygonlabels": ["cat"]}}, ["an rle that is not a list of bytes"]),
        ({"value": {"rle": 10**9, "polygonlabels": ["cat"]}}, ["an rle that is not a list of bytes"]),
        ({"value": {"rle": "x", "polygonlabels": ["cat"]}}, ["an rle that is not a list of bytes"]),
        ({"value": {"rle": [1], "format": "png", "polygonlabels": ["cat"]}}, ['the format "png"']),
        ({"value": {"height": 1, "polygonlabels": ["cat"]}}, ["whose x is null"]),
    ],
)
def test_regions_that_are_wrong_are_refused_by_name(tmp_path, change, says):
    where = export(tmp_path, task([polygon(), polygon(label="dog") | change], number=12))
    refusal(lambda: label_studio(**where), "export.json: task 12: region dog: ", *says)


def test_files_and_tasks_that_are_wrong_are_refused(tmp_path):
    where = export(tmp_path, task([polygon()]))
    gone = where | {"annotations": tmp_path / "exports.json"}
    refusal(lambda: label_studio(**gone), "there is no file", 'did you mean "export.json"?', "Label Studio's export")
    refusal(lambda: label_studio(**where | {"images": tmp_path / "gone"}), "images: there is no folder")
    for content, says in (
        ("{", "is not a JSON"),
        ("{}", "is not Label Studio's JSON"),
        ('[{"image": "a.png", "label": []}]', 'a list of an object with "image" and "label"'),
        ('[{"data": {}, "annotations": 3}]', "annotations are not a list"),
        ('[{"data": {}, "annotations": [{"result": 3}]}]', "result of its annotation is not a list"),
        ('[{"data": {"img": "a.png"}, "annotations": [{"result": []}]}]', 'set key: to the one of "img"'),
        ('[{"data": {"image": "a.png"}, "annotations": []}]', "none of its 1 tasks is annotated"),
    ):
        where["annotations"].write_text(content)
        refusal(lambda: label_studio(**where), "export.json", says)
    where = export(tmp_path, task([polygon()]), task([polygon()], "x/a.png", 2))
    refusal(lambda: label_studio(**where), "task 2: its image is", "as is that of task 1")
    where = export(tmp_path, task([polygon()], "b.png"))
    refusal(lambda: label_studio(**where), 'its image "b.png" is not in', 'did you mean "a.png"?')
    assert label_studio(**export(tmp_path, task([polygon()], data={"img": "a.png"})), key="img").samples


def test_it_passes_the_kit_and_can_be_pickled(tmp_path):
    part = load_registry(plugged.builtin()).find("dataset", "label_studio")
    where = export(tmp_path, task([polygon(), brush(packed(rgba(np.eye(8, 10))), "dog")]))
    settings = {name: str(path) for name, path in where.items()}
    outcomes = {check.name: check.outcome() for check in segreg.testing.checks(part, settings=settings)}
    assert [str(outcome) for outcome in outcomes.values() if outcome.status == "failed"] == []
    assert [n for n, o in outcomes.items() if o.status == "not checked"] == ["splits_are_disjoint"]
    again = pickle.loads(pickle.dumps(label_studio(**where)))
    np.testing.assert_array_equal(masks(again)["a"], drawn(where))

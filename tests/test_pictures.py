"""Colours, outlines, pictures side by side, and curves."""

from __future__ import annotations

import math

import numpy as np
import pytest
from PIL import Image

from segreg.pictures import (
    PREDICTION_COLOUR,
    TRUTH_COLOUR,
    class_colours,
    draw_curves,
    outline,
    paint,
    side_by_side,
)
from segreg.task import Task

BINARY = Task(("disc",), "binary")
MULTICLASS = Task(("ground", "red", "green"), "multiclass")
MULTILABEL = Task(("cell", "nucleus"), "multilabel")


def test_every_class_has_a_colour_of_its_own():
    for count in (2, 3, 8, 60):
        colours = class_colours(Task(tuple(f"c{i}" for i in range(count)), "multiclass"))
        assert len(colours) == len(set(colours)) == count
        assert colours[0] == (0, 0, 0)
        assert all(0 <= value <= 255 for colour in colours for value in colour)
    assert len(class_colours(BINARY)) == 2  # the ground and the class
    assert (0, 0, 0) not in class_colours(MULTILABEL)
    assert len(class_colours(MULTILABEL)) == 2


def test_labels_are_painted_and_ignored_ones_are_grey():
    labels = np.array([[0, 1], [2, 255]], np.uint8)
    colours = class_colours(MULTICLASS)
    assert paint(labels, colours).tolist() == [[list(colours[0]), list(colours[1])], [list(colours[2]), [128] * 3]]


def test_overlapping_labels_are_painted_the_later_over_the_earlier():
    labels = np.array([[[1, 1, 0]], [[0, 1, 0]]], np.uint8)
    first, second = class_colours(MULTILABEL)
    assert paint(labels, [first, second]).tolist() == [[list(first), list(second), [0, 0, 0]]]


def test_an_outline_is_the_border_of_areas_and_not_of_the_ground():
    labels = np.zeros((7, 7), np.uint8)
    labels[1:6, 1:6] = 1
    inner = np.zeros_like(labels, dtype=bool)
    inner[2:5, 2:5] = True
    assert np.array_equal(outline(labels), (labels == 1) & ~inner)
    assert not outline(np.ones((4, 4), np.uint8)).any()  # the picture's rim is no border
    assert not outline(np.full((4, 4), 255, np.uint8)).any()


def test_outlines_part_classes_from_each_other_and_ignored_pixels_have_none():
    labels = np.array([[1, 1, 2, 2, 255, 0]], np.uint8)
    assert outline(labels).tolist() == [[False, True, True, True, False, False]]
    layers = np.array([[[1, 1, 0, 0]], [[0, 0, 0, 1]]], np.uint8)
    assert outline(layers).tolist() == [[False, True, False, True]]


def panel(sheet, number, size, header):
    left = 8 + number * (size + 8)
    return np.asarray(sheet)[header : header + size, left : left + size]


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_panels_are_image_truth_prediction_and_outlines(channels):
    size = 240  # large enough to be shown as it is
    image = np.random.default_rng(0).integers(0, 256, (size, size, channels), dtype=np.uint8)
    truth, prediction = (np.zeros((size, size), np.uint8) for _ in range(2))
    truth[50:100, 50:100] = 1
    truth[0] = 255
    prediction[60:120, 60:120] = 1
    sheet = side_by_side(image, truth, prediction, BINARY, title="a title")
    assert sheet.size == (4 * (size + 8) + 8, size + 2 * 18 + 8)
    shown = image[..., :3] if channels >= 3 else np.repeat(image, 3, axis=-1)
    header = 36
    assert np.array_equal(panel(sheet, 0, size, header), shown)
    assert np.array_equal(
        panel(sheet, 1, size, header), np.where(truth == 255, 128, truth * 255)[..., None].repeat(3, -1)
    )
    assert np.array_equal(panel(sheet, 2, size, header), (prediction * 255)[..., None].repeat(3, -1))
    overlay = panel(sheet, 3, size, header)
    assert tuple(overlay[50, 70]) == TRUTH_COLOUR
    assert tuple(overlay[60, 110]) == PREDICTION_COLOUR
    assert tuple(overlay[80, 80]) == tuple(shown[80, 80])


def test_without_a_truth_there_are_three_panels():
    image = np.zeros((240, 240, 3), np.uint8)
    sheet = side_by_side(image, None, np.zeros((240, 240), np.uint8), MULTICLASS)
    assert sheet.width == 3 * 248 + 8


def test_small_pictures_are_enlarged_by_a_whole_factor():
    image = np.random.default_rng(0).integers(0, 256, (32, 40, 3), dtype=np.uint8)
    sheet = np.asarray(side_by_side(image, None, np.zeros((32, 40), np.uint8), BINARY))
    assert np.array_equal(sheet[36 : 36 + 224, 8 : 8 + 280], image.repeat(7, axis=0).repeat(7, axis=1))


def test_multilabel_is_drawn():
    labels = np.zeros((2, 32, 32), np.uint8)
    labels[0, 4:20, 4:20] = 1
    labels[1, 10:14, 10:14] = 1
    sheet = np.asarray(side_by_side(np.zeros((32, 32, 3), np.uint8), labels, labels, MULTILABEL))
    found = {tuple(colour) for colour in sheet.reshape(-1, 3)}
    assert set(class_colours(MULTILABEL)) <= found
    assert PREDICTION_COLOUR in found


def test_a_long_notice_is_written_whole_above_everything():
    image = np.zeros((32, 32, 3), np.uint8)
    labels = np.zeros((32, 32), np.uint8)
    plain = side_by_side(image, labels, labels, BINARY, title="t")
    noticed = side_by_side(image, labels, labels, BINARY, title="t", notice="SYNTHETIC PICTURES " * 20)
    lines = (noticed.height - plain.height) // 18
    assert lines >= 3
    pixels = np.asarray(noticed)
    for number in range(lines):
        band = pixels[number * 18 : (number + 1) * 18]
        assert ((band == (200, 0, 0)) | (band > 150)).mean() > 0.5
        assert (band.min(axis=-1) > 200).sum() > 50  # words
    assert np.array_equal(pixels[lines * 18 :], np.asarray(plain))


ROW = {"epoch": 1, "lr.encoder": 1e-3, "train.loss": 1.0, "val.loss": 1.1, "val.dice.pooled": 0.1, "seconds": 2.0}
HISTORIES = {
    "one epoch": [ROW],
    "several epochs": [{**ROW, "epoch": n, "train.loss": 1 / n} for n in range(1, 30)],
    "a rate of nothing": [{**ROW, "lr.encoder": 0.0}, {**ROW, "epoch": 2, "lr.encoder": 0.0}],
    "a rate that ends at nothing": [ROW, {**ROW, "epoch": 2, "lr.encoder": 0.0}],
    "a score that was never defined": [
        {**ROW, "val.dice.pooled": math.nan},
        {**ROW, "epoch": 2, "val.dice.pooled": math.nan},
    ],
    "a value that came later": [{"epoch": 1, "train.loss": 1.0}, {**ROW, "epoch": 2}],
    "no validation": [{"epoch": 1, "train.loss": 1.0, "lr.head": 0.1}],
    "many classes": [{**ROW, **{f"val.iou.class.{i}": 0.5 for i in range(50)}, "val.iou.pooled": 0.5}],
    "a metric from elsewhere": [{**ROW, "val.hausdorff": 12.0}],
    "no epoch": [],
}


@pytest.mark.parametrize("case", HISTORIES)
def test_curves_are_drawn_of_any_history(case, tmp_path):
    file = tmp_path / "curves.png"
    draw_curves(HISTORIES[case], file, monitor="val.dice.pooled", best_epoch=1)
    with Image.open(file) as picture:
        assert picture.format == "PNG"
        spread = np.asarray(picture.convert("L")).std()
    assert spread > 5 or not HISTORIES[case]


def test_curves_name_what_they_show(tmp_path, monkeypatch):
    from matplotlib.axes import Axes

    plotted = {}
    plot = Axes.plot

    def note(axes, x, y, **how):
        plotted[how["label"]] = (list(x), list(y))
        return plot(axes, x, y, **how)

    monkeypatch.setattr(Axes, "plot", note)
    rows = [{**ROW, "epoch": n, "train.loss": 1 / n, "val.hausdorff": 3.0 * n} for n in (1, 2, 3)]
    draw_curves(rows, tmp_path / "c.png", monitor="val.hausdorff", best_epoch=None)
    assert plotted["train.loss"] == ([1, 2, 3], [1, 1 / 2, 1 / 3])
    assert plotted["val.hausdorff (monitored)"] == ([1, 2, 3], [3.0, 6.0, 9.0])
    assert {"val.loss", "val.dice.pooled", "lr.encoder"} <= plotted.keys()
    assert "seconds" not in plotted

"""Colours, outlines and curves."""

from __future__ import annotations

import math

import numpy as np
import pytest
from PIL import Image

from segreg.task import Task
from segreg.visualize.colours import class_colours, draw_curves, outline, paint

BINARY = Task(("disc",), "binary")
MULTICLASS = Task(("ground", "red", "green"), "multiclass")
MULTILABEL = Task(("cell", "nucleus"), "multilabel")


def test_every_class_has_a_colour_of_its_own():
    for count in (2, 3, 8, 60, 255):
        colours = class_colours(Task(tuple(f"c{i}" for i in range(count)), "multiclass"))
        assert len(colours) == len(set(colours)) == count
        assert colours[0] == (0, 0, 0)
        assert all(0 <= value <= 255 for colour in colours for value in colour)
    assert len(class_colours(BINARY)) == 2  # the ground and the class
    assert (0, 0, 0) not in class_colours(MULTILABEL)
    assert len(class_colours(MULTILABEL)) == 2


@pytest.mark.parametrize(("count", "apart"), [(8, 65), (12, 65), (20, 65), (40, 60)])
def test_colours_of_many_classes_are_told_apart(count, apart):
    colours = np.array([*class_colours(Task(tuple(f"c{i}" for i in range(count)), "multiclass")), (128, 128, 128)])
    between = np.linalg.norm(colours[:, None].astype(float) - colours[None], axis=-1)
    assert between[~np.eye(len(colours), dtype=bool)].min() > apart


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
    assert not outline(np.ones((4, 4), np.uint8)).any()  # the image's rim is not a border
    assert not outline(np.full((4, 4), 255, np.uint8)).any()


def test_outlines_part_classes_from_each_other_and_ignored_pixels_have_none():
    labels = np.array([[1, 1, 2, 2, 255, 0]], np.uint8)
    assert outline(labels).tolist() == [[False, True, True, True, False, False]]
    layers = np.array([[[1, 1, 0, 0]], [[0, 0, 0, 1]]], np.uint8)
    assert outline(layers).tolist() == [[False, True, False, True]]


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
    with Image.open(file) as image:
        assert image.format == "PNG"
        spread = np.asarray(image.convert("L")).std()
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


def test_values_that_are_always_the_same_are_one_line(tmp_path, monkeypatch):
    from matplotlib.axes import Axes

    labels = []
    plot = Axes.plot
    monkeypatch.setattr(
        Axes, "plot", lambda axes, *points, **how: labels.append(how["label"]) or plot(axes, *points, **how)
    )
    rows = [{**ROW, "epoch": n, "lr.decoder": 1e-3, "lr.head": 1e-3 * n} for n in (1, 2)]
    draw_curves(rows, tmp_path / "c.png", monitor="val.loss", best_epoch=None)
    assert [label for label in labels if label.startswith("lr.")] == ["lr.encoder, lr.decoder", "lr.head"]

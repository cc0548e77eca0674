"""Image, truth and prediction side by side: every panel where it belongs, and words that can be read."""

from __future__ import annotations

import numpy as np
import pytest

from segreg.task import Task
from segreg.visualize.colours import IGNORED_COLOUR, PREDICTION_COLOUR, TRUTH_COLOUR, class_colours
from segreg.visualize.overlay import overlay
from segreg.visualize.panels import _legend, side_by_side

BINARY = Task(("disc",), "binary")
MULTICLASS = Task(("ground", "red", "green"), "multiclass")
MULTILABEL = Task(("cell", "nucleus"), "multilabel")
COLOURS = [(0, 0, 0), (250, 0, 0), (0, 0, 250)]
LINE, MARGIN = 18, 8


def pixels(*arguments, **given):
    return np.asarray(side_by_side(*arguments, **given))


def panel(sheet, number, height, width, header=LINE):
    left = MARGIN + number * (width + MARGIN)
    return sheet[header : header + height, left : left + width]


def colours_in(part):
    return {tuple(colour) for colour in part.reshape(-1, 3).tolist()}


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_panels_are_image_truth_prediction_and_outlines(channels):
    height, width = 240, 300  # large enough to be shown as it is
    image = np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)
    truth, prediction = (np.zeros((height, width), np.uint8) for _ in range(2))
    truth[50:100, 50:100] = 1
    truth[0] = 255
    prediction[60:120, 60:120] = 1
    sheet = pixels(image, truth, prediction, BINARY, title="a title")
    header = 2 * LINE
    assert sheet.shape == (header + height + MARGIN + LINE, 4 * (width + MARGIN) + MARGIN, 3)
    shown = image[..., :3] if channels >= 3 else np.repeat(image, 3, axis=-1)
    image_, truth_, prediction_, outlines = (panel(sheet, number, height, width, header) for number in range(4))
    assert np.array_equal(image_, shown)
    assert np.array_equal(truth_, np.where(truth == 255, 128, truth * 255)[..., None].repeat(3, -1))
    assert np.array_equal(prediction_, (prediction * 255)[..., None].repeat(3, -1))
    assert tuple(outlines[50, 70]) == TRUTH_COLOUR
    assert tuple(outlines[60, 110]) == PREDICTION_COLOUR
    assert tuple(outlines[80, 80]) == tuple(shown[80, 80])


def test_without_a_truth_the_prediction_is_laid_over_the_image():
    image = np.random.default_rng(0).integers(0, 256, (230, 240, 3), dtype=np.uint8)
    labels = np.zeros((230, 240), np.uint8)
    labels[50:150, 60:200] = 1
    sheet = pixels(image, None, labels, BINARY, colours=COLOURS[:2])
    assert sheet.shape == (LINE + 230 + MARGIN, 3 * (240 + MARGIN) + MARGIN, 3)
    assert np.array_equal(panel(sheet, 0, 230, 240), image)
    assert np.array_equal(panel(sheet, 1, 230, 240), np.array(COLOURS, np.uint8)[labels])
    assert np.array_equal(panel(sheet, 2, 230, 240), overlay(image, labels, COLOURS[:2], BINARY))


@pytest.mark.parametrize("truth", [True, False])
@pytest.mark.parametrize(
    ("size", "shown"),
    [
        ((1, 1), (224, 224)),
        ((32, 40), (224, 280)),
        ((50, 700), (50, 700)),
        ((30, 300), (90, 900)),
        ((3000, 2001), (1000, 667)),
        ((2500, 3), (834, 1)),
        ((1, 3500), (1, 875)),
    ],
)
def test_images_of_any_size_get_panels_that_can_be_seen(size, shown, truth):
    labels = (np.arange(size[0])[:, None] * 2 >= size[0]).astype(np.uint8).repeat(size[1], axis=1)  # the lower half
    sheet = pixels(np.zeros((*size, 1), np.uint8), labels if truth else None, labels, BINARY, colours=COLOURS[:2])
    panels = 4 if truth else 3
    assert sheet.shape[1] == panels * (shown[1] + MARGIN) + MARGIN
    for number in (1, 2) if truth else (1,):
        part = panel(sheet, number, *shown)
        assert part.shape == (*shown, 3)
        assert (part == COLOURS[1]).all(axis=-1).mean() == pytest.approx(labels.mean(), abs=0.01)


def legend(sheet, height):
    """Return the colours that stand below the panels, but for grey and black and white."""
    return {colour for colour in colours_in(sheet[LINE + height + MARGIN :]) if max(colour) - min(colour) > 20}


def test_a_legend_names_the_classes_that_are_there():
    image = np.zeros((240, 240, 3), np.uint8)
    truth, prediction = np.full((240, 240), 1, np.uint8), np.zeros((240, 240), np.uint8)
    colours = class_colours(MULTICLASS)
    assert legend(pixels(image, None, truth, MULTICLASS), 240) == {colours[1]}
    assert legend(pixels(image, None, prediction, MULTICLASS), 240) == set()  # the ground is black
    outlines = {TRUTH_COLOUR, PREDICTION_COLOUR}
    assert legend(pixels(image, truth, prediction, MULTICLASS), 240) == {colours[1]} | outlines
    assert legend(pixels(image, truth, prediction + 2, MULTICLASS), 240) == set(colours[1:]) | outlines
    assert pixels(image, None, truth, BINARY).shape[0] == LINE + 240 + MARGIN  # one colour explains itself
    truth[0] = 255
    below = pixels(image, truth, prediction, MULTICLASS)[LINE + 240 + MARGIN :]
    assert (below == IGNORED_COLOUR).all(axis=-1).sum() >= 80


def test_a_long_legend_takes_several_lines_and_stays_on_the_sheet():
    task = Task(tuple(f"a class with a long name, number {number}" for number in range(40)), "multiclass")
    labels = (np.arange(240)[:, None].repeat(240, axis=1) // 6).astype(np.uint8)
    sheet = pixels(np.zeros((240, 240, 3), np.uint8), None, labels, task)
    below = sheet[LINE + 240 + MARGIN :]
    assert below.shape[0] % LINE == 0
    assert below.shape[0] > 5 * LINE
    assert (below[:, -MARGIN:] == 255).all()  # nothing runs out of it
    assert set(class_colours(task)) <= colours_in(below)


def test_multilabel_is_drawn():
    labels = np.zeros((2, 32, 32), np.uint8)
    labels[0, 4:20, 4:20] = 1
    labels[1, 10:14, 10:14] = 1
    sheet = pixels(np.zeros((32, 32, 3), np.uint8), labels, labels, MULTILABEL)
    assert set(class_colours(MULTILABEL)) <= colours_in(panel(sheet, 1, 224, 224))
    assert set(class_colours(MULTILABEL)) <= legend(sheet, 224)
    assert PREDICTION_COLOUR in colours_in(panel(sheet, 3, 224, 224))


def test_a_long_notice_and_a_long_title_are_written_whole():
    image, labels = np.zeros((32, 32, 3), np.uint8), np.zeros((32, 32), np.uint8)
    plain = pixels(image, labels, labels, BINARY)
    titled = pixels(image, labels, labels, BINARY, title="a title that continues " * 20)
    noticed = pixels(
        image, labels, labels, BINARY, title="a title that continues " * 20, notice="SYNTHETIC IMAGES " * 20
    )
    for sheet, other, on_red in ((titled, plain, False), (noticed, titled, True)):
        lines, rest = divmod(sheet.shape[0] - other.shape[0], LINE)
        assert (lines >= 3, rest) == (True, 0)
        for number in range(lines):
            band = sheet[number * LINE : (number + 1) * LINE]
            words = band.min(axis=-1) > 200 if on_red else band.max(axis=-1) < 100
            assert words.sum() > 50
            assert ((band == (200, 0, 0)).all(axis=-1).mean() > 0.5) == on_red
        assert np.array_equal(sheet[lines * LINE :], other)


@pytest.mark.parametrize("mode", ["multiclass", "multilabel"])
def test_a_legend_of_many_classes_names_the_largest(mode):
    task = Task(tuple(f"class {k}" for k in range(254)), mode)
    rows = np.arange(254)[:, None].repeat(508, 1).astype(np.uint8)
    rows[50:150] = 77
    labels = (rows == np.arange(254)[:, None, None]).astype(np.uint8) if mode == "multilabel" else rows
    legend = _legend(labels, labels, task, class_colours(task))
    there = 254 - 99
    assert list(legend)[:41] == [*(f"class {k}" for k in range(39)), "class 77", f"(and {there - 40} smaller classes)"]
    assert legend["class 77"] == class_colours(task)[77]
    image = np.zeros((254, 508, 3), np.uint8)
    assert pixels(image, labels, labels, task).shape[0] < 254 + 12 * LINE


def test_254_classes_have_254_colours():
    assert len(set(class_colours(Task(tuple(f"class {k}" for k in range(254)), "multiclass")))) == 254

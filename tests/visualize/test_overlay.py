"""Painted and outlined labels."""

from __future__ import annotations

import numpy as np

from segreg.task import Task
from segreg.visualize.colours import class_colours
from segreg.visualize.overlay import outline, overlay, paint

MULTICLASS = Task(("ground", "red", "green"), "multiclass")
MULTILABEL = Task(("cell", "nucleus"), "multilabel")


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


def test_the_last_of_as_many_classes_as_there_can_be_is_outlined():
    task = Task(tuple(map(str, range(255))), "multiclass")
    labels = np.zeros((8, 8), np.uint8)
    labels[2:6, 2:6] = 254
    drawn = overlay(np.full((8, 8, 3), 50, np.uint8), labels, class_colours(task), task)
    assert tuple(drawn[2, 2]) == class_colours(task)[254]

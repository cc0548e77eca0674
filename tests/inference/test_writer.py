"""What a prediction leaves: exact masks and probabilities, tints and outlines where they belong, whole files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from segreg.data.values import as_shown
from segreg.errors import SegregError
from segreg.inference.predictor import PredictedRows
from segreg.inference.writer import KINDS, Outputs
from segreg.task import Task
from segreg.visualize.overlay import overlay

BINARY = Task(("lesion",), "binary")
MULTICLASS = Task(("ground", "cell", "edge"), "multiclass")
MULTILABEL = Task(("cat", "dog/wolf"), "multilabel")
COLOURS = [(0, 0, 0), (250, 0, 0), (0, 0, 250)]


def outputs(folder, task, **given):
    colours = {"binary": COLOURS[:2], "multiclass": COLOURS, "multilabel": COLOURS[1:]}[task.mode]
    return Outputs(**{"folder": folder, "kinds": KINDS, "task": task, "values": "index", "colours": colours, **given})


def strips_of(probabilities, task, *, rows=4):
    for top in range(0, probabilities.shape[1], rows):
        yield PredictedRows(
            top, torch.from_numpy(probabilities[:, top : top + rows]), "probabilities", task, 0.5, "a.png"
        )


def written(folder, task, *, size=(30, 40), **given):
    """Write every output of a random prediction and gives what it was made from, and the files."""
    drawn = np.random.default_rng(0)
    probabilities = drawn.random((task.channels, *size), np.float32)
    image = drawn.integers(0, 256, (*size, 3), dtype=np.uint8)
    out = outputs(folder, task, **given)
    labels = out.collect("sub/one.two", size, strips_of(probabilities, task))
    out.save("sub/one.two", image, labels)
    return image, probabilities, labels, out.files("sub/one.two")


def pixels(file):
    with Image.open(file) as image:
        return np.array(image)


@pytest.mark.parametrize("task", [BINARY, MULTICLASS, MULTILABEL], ids=lambda task: task.mode)
def test_every_kind_is_written_whole_and_nothing_else(tmp_path, task):
    _, probabilities, labels, files = written(tmp_path, task)
    assert {file for file in tmp_path.rglob("*") if file.is_file()} == set(files.values())
    kept = np.load(files["probabilities"])
    assert kept.dtype == np.float16
    np.testing.assert_allclose(kept, probabilities, atol=2**-12)
    expected = {"binary": probabilities[0] >= 0.5, "multiclass": probabilities.argmax(axis=0)}
    np.testing.assert_array_equal(labels, expected.get(task.mode, probabilities >= 0.5))


def test_masks_hold_indices_or_0_and_255(tmp_path):
    for task, values in ((BINARY, "index"), (BINARY, "255"), (MULTICLASS, "index")):
        _, _, labels, files = written(tmp_path / f"{task.mode}{values}", task, values=values)
        with Image.open(files["masks"]) as image:
            assert (image.format, image.mode, image.size) == ("PNG", "L", (40, 30))
        np.testing.assert_array_equal(pixels(files["masks"]), labels * (255 if values == "255" else 1))


def test_classes_that_overlap_have_a_folder_of_masks_each(tmp_path):
    _, _, labels, files = written(tmp_path, MULTILABEL, kinds=("masks",), values="255")
    assert files == {
        "masks/cat": tmp_path / "masks/cat/sub/one.two.png",
        "masks/dog_wolf": tmp_path / "masks/dog_wolf/sub/one.two.png",
    }
    for layer, file in zip(labels, files.values(), strict=True):
        np.testing.assert_array_equal(pixels(file), layer * 255)


def test_several_classes_do_not_go_into_0_and_255(tmp_path):
    with pytest.raises(SegregError, match="a mask of 3 classes can't hold 0 and 255 alone"):
        outputs(tmp_path, MULTICLASS, values="255")


def test_coloured_masks(tmp_path):
    _, _, labels, files = written(tmp_path, MULTICLASS)
    np.testing.assert_array_equal(pixels(files["coloured"]), np.array(COLOURS, np.uint8)[labels])


def test_a_write_that_fails_leaves_nothing_half_done(tmp_path):
    def broken():
        yield from strips_of(np.zeros((1, 4, 6), np.float32), BINARY)
        raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError):
        outputs(tmp_path, BINARY).collect("one", (8, 6), broken())
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == []


def test_room_for_probabilities_is_taken_before_they_are_written(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full, raising=False)
    with pytest.raises(SegregError, match="the disk is full"):
        outputs(tmp_path, BINARY).collect("one", (4, 6), strips_of(np.zeros((1, 4, 6), np.float32), BINARY))


# overlays


def test_an_overlay_by_hand():
    image = np.full((9, 9, 3), 100, np.uint8)
    labels = np.zeros((9, 9), np.uint8)
    labels[2:7, 2:7] = 1
    drawn = overlay(image, labels, COLOURS[:2], BINARY)
    expected = image.copy()
    expected[2:7, 2:7] = COLOURS[1]  # the outline
    expected[3:6, 3:6] = [(100 * 160 + part * 96) // 256 for part in COLOURS[1]]  # the tint
    np.testing.assert_array_equal(drawn, expected)


def test_images_of_more_bits_are_shown_in_8(tmp_path):
    image = np.linspace(0, 40_000, 30 * 40).reshape(30, 40, 1).astype(np.uint16)
    shown = as_shown(image).repeat(3, axis=2)
    for dtype in (np.uint16, np.float32):
        out = outputs(tmp_path / dtype.__name__, BINARY)
        out.save("one", image.astype(dtype), np.zeros((30, 40), np.uint8))
        np.testing.assert_array_equal(pixels(out.files("one")["overlays"]), shown)
        assert pixels(out.files("one")["strips"])[:30, :40].std() > 50


def test_touching_classes_are_both_outlined_and_the_ground_is_left_alone_unless_it_has_a_colour():
    image = np.full((20, 20, 3), 100, np.uint8)
    labels = np.repeat([0, 1, 2, 2], 5)[None].repeat(20, axis=0).astype(np.uint8)
    drawn = overlay(image, labels, COLOURS, MULTICLASS)
    np.testing.assert_array_equal(drawn[:, :5], image[:, :5])
    assert (drawn[:, [5, 9]] == COLOURS[1]).all()
    assert (drawn[:, 10] == COLOURS[2]).all()
    assert not (drawn[:, 11:] == COLOURS[2]).all(axis=-1).any()
    coloured = overlay(image, labels, [(0, 250, 0), *COLOURS[1:]], MULTICLASS)
    assert (coloured[:, 4] == (0, 250, 0)).all()


def test_classes_that_overlap_are_drawn_over_each_other():
    image = np.full((12, 12, 3), 100, np.uint8)
    labels = np.zeros((2, 12, 12), np.uint8)
    labels[0, 1:8, 1:8] = labels[1, 4:11, 4:11] = 1
    drawn = overlay(image, labels, COLOURS[1:], MULTILABEL)
    once = (100 * 160 + 250 * 96) // 256, 100 * 160 // 256, 100 * 160 // 256
    assert tuple(drawn[2, 2]) == once
    assert tuple(drawn[6, 6]) == (once[0] * 160 // 256, once[1] * 160 // 256, (once[2] * 160 + 250 * 96) // 256)


@pytest.mark.parametrize("task", [BINARY, MULTICLASS, MULTILABEL], ids=lambda task: task.mode)
def test_large_images_drawn_in_strips_have_no_seams(task, monkeypatch):
    drawn = np.random.default_rng(0)
    shape = (2, 900, 820) if task.mode == "multilabel" else (900, 820)
    labels = np.kron(
        drawn.integers(0, task.channels + (task.mode == "binary"), (*shape[:-2], 9, 10)), np.ones((100, 82))
    )
    labels = np.minimum(labels, 1 if task.mode == "multilabel" else 9).astype(np.uint8)
    image = drawn.integers(0, 256, (900, 820, 3), dtype=np.uint8)
    colours = COLOURS[1:] if task.mode == "multilabel" else COLOURS
    whole = overlay(image, labels, colours, task)
    monkeypatch.setattr("segreg.visualize.overlay._ROWS", 820 * 7)
    np.testing.assert_array_equal(overlay(image, labels, colours, task), whole)


def test_outlines_grow_with_the_image():
    labels = np.zeros((1200, 1300), np.uint8)
    labels[300:900, 300:900] = 1
    drawn = overlay(np.zeros((1200, 1300, 3), np.uint8), labels, COLOURS[:2], BINARY)
    assert ((drawn[600] == COLOURS[1]).all(axis=-1)).sum() == 2 * 3


@pytest.mark.parametrize("channels", [1, 3, 4, 7])
def test_images_of_any_number_of_channels_are_shown(channels):
    image = np.random.default_rng(0).integers(0, 256, (10, 12, channels), dtype=np.uint8)
    drawn = overlay(image, np.zeros((10, 12), np.uint8), COLOURS[:2], BINARY)
    np.testing.assert_array_equal(drawn, image[..., :3] if channels >= 3 else image.repeat(3, axis=-1))


def test_files_are_named_below_the_folder():
    files = outputs(Path("out"), BINARY, kinds=("masks", "probabilities")).files("a/b.c")
    assert files == {"masks": Path("out/masks/a/b.c.png"), "probabilities": Path("out/probabilities/a/b.c.npy")}

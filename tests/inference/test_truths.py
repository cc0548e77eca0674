"""True masks beside images that are predicted: which belongs to which, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segreg.errors import SegregError
from segreg.inference.inputs import gather
from segreg.inference.truths import find_truths
from segreg.task import Task

BINARY = Task(("lesion",), "binary")
MULTICLASS = Task(("ground", "cell", "edge"), "multiclass")


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def save(name, values=((0, 255),)):
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array(values, np.uint8)).save(name)


def found(images, *masks, task=BINARY, words=None, **given):
    """Return which mask each image has."""
    for name in images:
        save(f"in/{name}")
    Path("true").mkdir(exist_ok=True)
    for name in masks:
        save(f"true/{name}")
    truths = find_truths(gather(words or ["in"]), Path("true"), task, **given)
    return {name: str(file.relative_to("true")) for name, file in truths.files.items()}


def refused(*arguments, **given):
    with pytest.raises(SegregError) as caught:
        found(*arguments, **given)
    return str(caught.value)


def test_names_are_paired_by_all_but_the_extension():
    masks = ["a.b.png", "a.c.tif", "10.bmp", ".hidden.png", "other.png"]
    assert found(["a.b.jpg", "a.c.png", "10.png", "1.png"], *masks) == {
        "a.b": "a.b.png", "a.c": "a.c.tif", "10": "10.bmp",
    }  # fmt: skip


def test_a_suffix_of_the_masks():
    masks = ["1_mask.png", "2.png", "3_mask.tif"]
    assert found(["1.jpg", "2.jpg", "3.jpg"], *masks, suffix="_mask") == {"1": "1_mask.png", "3": "3_mask.tif"}


def test_the_same_folders_come_before_the_same_name_anywhere():
    assert found(["a/1.png", "b/1.png", "c/2.png"], "a/1.png", "b/1.png", "else/2.png") == {
        "a/1": "a/1.png", "b/1": "b/1.png", "c/2": "else/2.png",
    }  # fmt: skip
    assert found(["d/2.png"]) == {"a/1": "a/1.png", "b/1": "b/1.png"}  # which of the two is else/2.png?
    assert found([], words=["in/c/2.png"]) == {"2": "else/2.png"}
    assert refused([], words=["in/a/1.png"]) == (
        "the mask of in/a/1.png may be each of true/a/1.png and true/b/1.png\n"
        "  keep one of each, or lay masks in folders of the same names as the images'"
    )


def test_what_cannot_be_paired_is_refused():
    assert refused(["1.jpg", "2.jpg"], "1_mask.png") == (
        'no image has a mask in true\n  the mask of in/1.jpg would be named "1" and any extension; there is 1_mask.png'
    )
    assert refused([], suffix="_m") == (
        'no image has a mask in true\n  the mask of in/1.jpg would be named "1_m" and any extension; '
        "there is 1_mask.png"
    )
    assert refused([], "1.png", "1.tif").startswith("the mask of in/1.jpg may be each of true/1.png and true/1.tif")
    assert refused([], task=Task(("a", "b"), "multilabel")) == (
        "the classes of this run may overlap, and a mask with one value a pixel can't say so"
    )
    with pytest.raises(SegregError, match=r"^nowhere is no folder of masks$"):
        find_truths(gather(["in"]), Path("nowhere"), BINARY)


HOLDS = "a mask of this run's classes holds"
HINT = "\n  --mask-ignored names a value that counts for nothing"


@pytest.mark.parametrize(
    ("task", "held", "ignored", "labels"),
    [
        (MULTICLASS, [[2, 3, 1]], 3, [[2, 255, 1]]),
        (BINARY, [[0, 255, 127]], 127, [[0, 1, 255]]),
        (BINARY, [[0, 1, 255]], 255, [[0, 1, 255]]),
    ],
)
def test_a_value_that_counts_for_nothing(task, held, ignored, labels):
    save("in/1.png")
    save("true/1.png", held)
    assert find_truths(gather(["in"]), Path("true"), task, ignored=ignored).read("1", (1, 3)).tolist() == labels


@pytest.mark.parametrize(
    ("task", "held", "labels"),
    [
        (BINARY, [[0, 255]], [[0, 1]]),
        (BINARY, [[0, 1]], [[0, 1]]),
        (BINARY, [[0, 0]], [[0, 0]]),
        (BINARY, [[255, 255]], [[1, 1]]),
        (MULTICLASS, [[2, 255]], [[2, 255]]),
        (MULTICLASS, [[0, 1]], [[0, 1]]),
    ],
)
def test_labels(task, held, labels):
    save("in/1.png")
    save("true/1.png", held)
    truths = find_truths(gather(["in"]), Path("true"), task)
    read = truths.read("1", (1, 2))
    assert (read.tolist(), read.dtype) == (labels, np.uint8)
    assert truths.read("another", (1, 2)) is None


@pytest.mark.parametrize(
    ("task", "held", "says"),
    [
        (BINARY, [[0, 7]], f"true/1.png: holds 7; {HOLDS} 0 and 1, or 0 and 255{HINT}"),
        (BINARY, [[1, 255]], f"true/1.png: holds 255; {HOLDS} 0 and 1, or 0 and 255{HINT}"),
        (MULTICLASS, [[3, 9]], f"true/1.png: holds 3 and 9; {HOLDS} 0 to 2{HINT}"),
        (BINARY, [[0], [1]], "true/1.png: is 2x1 (height x width), but its image is 1x2"),
    ],
)
def test_masks_that_are_wrong(task, held, says):
    save("in/1.png")
    save("true/1.png", held)
    with pytest.raises(SegregError) as caught:
        find_truths(gather(["in"]), Path("true"), task).read("1", (1, 2))
    assert str(caught.value) == says

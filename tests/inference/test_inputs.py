"""Input images, their order and names, and their true masks."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segreg.errors import SegregError
from segreg.inference.inputs import find_images, find_masks
from segreg.task import Task

BINARY = Task(("lesion",), "binary")
MULTICLASS = Task(("ground", "cell", "edge"), "multiclass")


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def touch(*files):
    for file in files:
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        Path(file).write_bytes(b"")


def found(*words, **given):
    return {str(image.file): image.name for image in find_images(words, **given)}


def test_a_folder_with_all_below_it_in_natural_order():
    touch(
        "in/img10.png",
        "in/img2.JPG",
        "in/a/img1.tif",
        "in/b/c/img1.png",
        "in/notes.txt",
        "in/.hidden.png",
        "in/.dir/x.png",
    )
    assert list(found("in").items()) == [
        ("in/a/img1.tif", "a/img1"),
        ("in/b/c/img1.png", "b/c/img1"),
        ("in/img2.JPG", "img2"),
        ("in/img10.png", "img10"),
    ]


def test_names_of_a_folder_do_not_hang_on_what_it_holds():
    touch("in/only/x.png")
    assert found("in") == {"in/only/x.png": "only/x"}


def test_files_and_folders_keep_their_order_and_their_structure():
    touch("z/1.png", "a/1.png", "a/b/2.png")
    assert list(found("z", "a", "z/1.png").items()) == [
        ("z/1.png", "z/1"),
        ("a/1.png", "a/1"),
        ("a/b/2.png", "a/b/2"),
    ]
    assert found("z/1.png", "a/b/2.png") == {"z/1.png": "z/1", "a/b/2.png": "a/b/2"}
    assert found("z/1.png") == {"z/1.png": "1"}


def test_wildcards():
    touch("in/a/1.png", "in/b/1.png", "in/b/2.jpg", "in/b/.3.png", "in/b/deep/4.png", "in/b/notes.txt")
    assert found("in/*/*.png") == {"in/a/1.png": "a/1", "in/b/1.png": "b/1"}
    assert found("in/b/*") == {"in/b/1.png": "1", "in/b/2.jpg": "2", "in/b/deep/4.png": "deep/4"}
    assert list(found("in/**/*.png").values()) == ["a/1", "b/1", "b/deep/4"]
    assert list(found("in/**")) == ["in/a/1.png", "in/b/1.png", "in/b/2.jpg", "in/b/deep/4.png"]
    assert found("in/?") == {
        "in/a/1.png": "a/1",
        "in/b/1.png": "b/1",
        "in/b/2.jpg": "b/2",
        "in/b/deep/4.png": "b/deep/4",
    }


def test_a_file_whose_name_looks_like_a_wildcard_is_a_file():
    touch("in/a[1].png", "in/a1.png")
    assert found("in/a[1].png") == {"in/a[1].png": "a[1]"}


def test_a_file_that_is_named_may_have_any_ending_and_only_a_images_ending_goes():
    touch("in/scan.dat", "in/image29_JPG.rf.0db1.jpg", "in/image29_JPG.rf.77aa.jpg", "in/IMG.0001")
    assert found("in/scan.dat", "in/IMG.0001") == {"in/scan.dat": "scan.dat", "in/IMG.0001": "IMG.0001"}
    assert list(found("in").values()) == ["image29_JPG.rf.0db1", "image29_JPG.rf.77aa"]
    assert found("in/*.dat") == {"in/scan.dat": "scan.dat"}


def test_names_that_differ_only_in_their_extension_are_refused():
    touch("in/a.png", "in/a.jpg", "in/b.png")
    with pytest.raises(SegregError) as refused:
        find_images(["in"])
    assert str(refused.value) == (
        'in/a.jpg and in/a.png would both be written as "a"\n'
        "names must differ before their extension\n  predict them into two folders"
    )


def test_own_outputs_inside_a_folder_are_left_out():
    touch("in/1.png", "in/out/masks/1.png", "in/out/more.png")
    assert list(found("in", without=["in/out/masks"])) == ["in/1.png", "in/out/more.png"]
    assert list(found("in/out/masks", without=["in/out/masks"])) == ["in/out/masks/1.png"]  # where they are asked for
    assert list(found("in/**/*.png", without=[Path("in/out/masks")])) == ["in/1.png", "in/out/more.png"]


def test_links_are_followed_once():
    touch("in/1.png", "elsewhere/2.png")
    Path("in/linked").symlink_to(Path("elsewhere").absolute())
    Path("in/circle").symlink_to(Path("in").absolute())
    assert found("in") == {"in/1.png": "1", "in/linked/2.png": "linked/2"}


def test_of_links_to_one_folder_the_first_by_its_name_is_followed(monkeypatch):
    touch("in/z/1.png")
    for name in ("b", "y"):
        Path(f"in/{name}").symlink_to("z")

    def reversed_walk(folder, *given, walk=os.walk, **named):
        for where, folders, files in walk(folder, *given, **named):
            folders.sort(reverse=True)
            yield where, folders, files

    monkeypatch.setattr("segreg.inference.inputs.os.walk", reversed_walk)
    assert found("in") == {"in/b/1.png": "b/1"}


def test_a_word_that_looks_like_a_users_folder():
    touch("~tmp.png")
    assert found("~tmp.png") == {"~tmp.png": "~tmp"}
    with pytest.raises(SegregError, match=r"there is no file or folder ~nobody/x\.png"):
        found("~nobody/x.png")


def test_what_is_not_there_is_reported_with_what_is_meant():
    touch("photos/dog.png", "empty/notes.txt")
    with pytest.raises(SegregError) as refused:
        find_images(["photo", "photos/dgo.png", "no/where.png", "empty", "photos/*.tif"])
    endings = "images end in .bmp .dib .gif .jfif .jpe .jpeg .jpg .pbm .pgm .png .pnm .ppm .tif .tiff .webp"
    assert str(refused.value).splitlines() == [
        "there is no file or folder photo",
        '  did you mean "photos"?',
        "there is no file or folder photos/dgo.png",
        '  did you mean "dog.png"?',
        "there is no file or folder no/where.png",
        "  there is no folder no",
        "empty holds no images",
        f"  {endings}",
        "photos/*.tif means no images",
        f"  {endings}",
    ]


# true masks


def save(name, values=((0, 255),)):
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array(values, np.uint8)).save(name)


def masks_of(images, *masks, task=BINARY, words=None, **given):
    """Return which mask each image has."""
    for name in images:
        save(f"in/{name}")
    Path("true").mkdir(exist_ok=True)
    for name in masks:
        save(f"true/{name}")
    truths = find_masks(find_images(words or ["in"]), Path("true"), task, **given)
    return {name: str(file.relative_to("true")) for name, file in truths.files.items()}


def refused_masks(*arguments, **given):
    with pytest.raises(SegregError) as caught:
        masks_of(*arguments, **given)
    return str(caught.value)


def test_names_are_paired_by_all_but_the_extension():
    masks = ["a.b.png", "a.c.tif", "10.bmp", ".hidden.png", "other.png"]
    assert masks_of(["a.b.jpg", "a.c.png", "10.png", "1.png"], *masks) == {
        "a.b": "a.b.png", "a.c": "a.c.tif", "10": "10.bmp",
    }  # fmt: skip


def test_a_suffix_of_the_masks():
    masks = ["1_mask.png", "2.png", "3_mask.tif"]
    assert masks_of(["1.jpg", "2.jpg", "3.jpg"], *masks, suffix="_mask") == {"1": "1_mask.png", "3": "3_mask.tif"}


def test_the_same_folders_come_before_the_same_name_anywhere():
    assert masks_of(["a/1.png", "b/1.png", "c/2.png"], "a/1.png", "b/1.png", "else/2.png") == {
        "a/1": "a/1.png", "b/1": "b/1.png", "c/2": "else/2.png",
    }  # fmt: skip
    assert masks_of(["d/2.png"]) == {"a/1": "a/1.png", "b/1": "b/1.png"}  # which of the two is else/2.png?
    assert masks_of([], words=["in/c/2.png"]) == {"2": "else/2.png"}
    assert refused_masks([], words=["in/a/1.png"]) == (
        "the mask of in/a/1.png may be each of true/a/1.png and true/b/1.png\n"
        "  keep one of each, or lay masks in folders of the same names as the images'"
    )


def test_what_cannot_be_paired_is_refused():
    assert refused_masks(["1.jpg", "2.jpg"], "1_mask.png") == (
        'no image has a mask in true\n  the mask of in/1.jpg would be named "1" and any extension; there is 1_mask.png'
    )
    assert refused_masks([], suffix="_m") == (
        'no image has a mask in true\n  the mask of in/1.jpg would be named "1_m" and any extension; '
        "there is 1_mask.png"
    )
    assert refused_masks([], "1.png", "1.tif").startswith(
        "the mask of in/1.jpg may be each of true/1.png and true/1.tif"
    )
    assert refused_masks([], task=Task(("a", "b"), "multilabel")) == (
        "the classes of this run may overlap, and a mask with one value a pixel can't say so"
    )
    with pytest.raises(SegregError, match=r"^nowhere is not a folder of masks$"):
        find_masks(find_images(["in"]), Path("nowhere"), BINARY)


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
    assert find_masks(find_images(["in"]), Path("true"), task, ignored=ignored).read("1", (1, 3)).tolist() == labels


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
    truths = find_masks(find_images(["in"]), Path("true"), task)
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
        find_masks(find_images(["in"]), Path("true"), task).read("1", (1, 2))
    assert str(caught.value) == says


def test_images_on_several_drives_are_refused(monkeypatch):
    touch("a.png")

    def commonpath(_):
        raise ValueError("Paths don't have the same drive")

    monkeypatch.setattr("os.path.commonpath", commonpath)
    with pytest.raises(SegregError, match="the images are on several drives\n  predict those of each into a folder"):
        find_images(["a.png"])

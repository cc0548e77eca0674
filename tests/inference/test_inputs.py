"""Which images words mean, in which order, and what they are called."""

from __future__ import annotations

from pathlib import Path

import pytest

from segreg.errors import SegregError
from segreg.inference.inputs import gather


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def touch(*files):
    for file in files:
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        Path(file).write_bytes(b"")


def found(*words, **given):
    return {str(image.file): image.name for image in gather(words, **given)}


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
        gather(["in"])
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


def test_what_is_not_there_is_told_with_what_is_meant():
    touch("photos/dog.png", "empty/notes.txt")
    with pytest.raises(SegregError) as refused:
        gather(["photo", "photos/dgo.png", "no/where.png", "empty", "photos/*.tif"])
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

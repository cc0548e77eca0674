"""A split written out: what is copied, linked or rendered, what is refused, and that it reads back as it was."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

import tiny_runs
from segreg.config.sections import Split
from segreg.data import divide
from segreg.data import export as split_folders
from segreg.data.export import write_split
from segreg.errors import SegregError
from segreg.registry.protocols import Dataset, Sample
from segreg.runtime.progress import Quiet
from segreg.task import Task
from segreg_plugins.datasets.csv_manifest import csv_manifest
from segreg_plugins.datasets.folder import folder

SPLIT = Split(method="random", val=0.25, test=0.25, seed=42)


@pytest.fixture
def lesions(tmp_path):
    images, masks = tiny_runs.folder_dataset(tmp_path / "data", count=8)
    return folder(images=images, masks=masks)


def write(dataset, out, *, link="copy", split=SPLIT):
    return write_split(dataset, divide(dataset, split), out, link=link, progress=Quiet())


def files_in(out):
    return sorted(str(path.relative_to(out)) for path in Path(out).rglob("*") if not path.is_dir())


def rows_of(out):
    with (out / "split.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def reads_back(dataset, out, **settings):
    """Read the manifest and compares splits, images and labels with those of the data set."""
    again = csv_manifest(manifest=out / "split.csv", **settings)
    splits, wanted = divide(again, Split(method="dataset")), divide(dataset, SPLIT)
    by_id = {sample.id: sample for sample in again.samples}
    for split, indices in wanted.items():
        assert {again.samples[i].id for i in splits[split]} == {dataset.samples[i].id for i in indices}
        for sample in (dataset.samples[index] for index in indices):
            assert np.array_equal(again.read_image(by_id[sample.id]), dataset.read_image(sample))
            assert np.array_equal(again.read_mask(by_id[sample.id]), dataset.read_mask(sample))
            assert by_id[sample.id].group == sample.group
    assert again.task == dataset.task


def refused(*words, **settings):
    with pytest.raises(SegregError) as caught:
        write(**settings)
    for word in words:
        assert word in str(caught.value), str(caught.value)


# what is written


def test_folders_of_copies_and_a_manifest(lesions, tmp_path):
    out = tmp_path / "out"
    written = write(lesions, out)
    assert (written.made, written.files, written.form, written.ignored) == (16, 16, "files", False)
    assert written.splits == {"train": 4, "val": 2, "test": 2}
    expected = ["split.csv"]
    for split, indices in divide(lesions, SPLIT).items():
        for sample in (lesions.samples[index] for index in indices):
            for kind, source in (("images", sample.image), ("masks", sample.mask)):
                file = out / f"{split}_split" / kind / source.name
                assert file.read_bytes() == source.read_bytes()
                assert not file.is_symlink()
                expected.append(str(file.relative_to(out)))
    assert files_in(out) == sorted(expected)
    rows = rows_of(out)
    assert list(rows[0]) == ["id", "image", "mask", "split", "group"]
    assert rows[0] == {
        "id": rows[0]["id"], "image": f"train_split/images/{rows[0]['id']}.png",
        "mask": f"train_split/masks/{rows[0]['id']}.png", "split": "train", "group": "",
    }  # fmt: skip
    reads_back(lesions, out)


def test_the_folders_are_data_sets_of_their_own(lesions, tmp_path):
    write(lesions, tmp_path / "out")
    train = folder(images=tmp_path / "out/train_split/images", masks=tmp_path / "out/train_split/masks")
    assert len(train.samples) == 4
    assert train.task.mode == "binary"


@pytest.mark.parametrize("link", ["hard", "symbolic"])
def test_links_hold_what_the_files_hold(link, lesions, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(lesions, Path("out"), link=link)
    sample = lesions.samples[divide(lesions, SPLIT)["val"][0]]
    file = Path("out/val_split/masks") / sample.mask.name
    assert file.samefile(sample.mask)
    assert file.is_symlink() == (link == "symbolic")
    reads_back(lesions, tmp_path / "out")
    assert write(lesions, Path("out"), link=link).made == 0


def test_class_numbers_stay_files_and_ignored_pixels_are_reported(tmp_path):
    images, masks = tiny_runs.folder_dataset(tmp_path / "data", count=6, classes=3)
    dataset = folder(images=images, masks=masks, classes=("sea", "sand", "wood"))
    written = write(dataset, tmp_path / "out")
    assert (written.form, written.ignored) == ("files", True)
    reads_back(dataset, tmp_path / "out", classes=("sea", "sand", "wood"))


@pytest.mark.parametrize(
    ("colours", "suffix", "form"),
    [
        ([[0, 0, 0, 255, 0, 0, 0, 255, 0]], ".png", "files"),
        ([[0, 0, 0, 255, 0, 0, 0, 255, 0]], ".gif", "index"),
        ([[0, 0, 0, 255, 0, 0, 0, 255, 0], [9, 9, 9, 0, 0, 255, 0, 255, 0]], ".png", "index"),
        ([[0, 0, 0, 7, 7, 7, 1, 1, 1]], ".png", "index"),
    ],
    ids=["one palette", "GIF", "palettes that differ", "grey palettes"],
)
def test_masks_with_palettes_need_no_setting_when_they_are_read_back(colours, suffix, form, tmp_path):
    images, masks = tiny_runs.folder_dataset(tmp_path / "data", count=6)
    for number, file in enumerate(sorted(masks.iterdir())):
        mask = Image.fromarray(np.asarray(Image.open(file)) // 255 + np.eye(40, dtype=np.uint8) % 2).convert("P")
        mask.putpalette(colours[number % len(colours)])
        file.unlink()
        mask.save(file.with_suffix(suffix))
    classes = ("sea", "sand", "wood")
    dataset = folder(images=images, masks=masks, classes=classes, palette="indices")
    assert write(dataset, tmp_path / "out").form == form
    reads_back(dataset, tmp_path / "out", classes=classes)


def test_masks_of_instances_become_masks_of_classes(tmp_path):
    images, masks = tiny_runs.folder_dataset(tmp_path / "data", count=6)
    for number, file in enumerate(sorted(masks.iterdir())):
        labels = np.asarray(Image.open(file)) // 255
        Image.fromarray(labels * np.uint8(number + 1)).save(file)
    dataset = folder(images=images, masks=masks, foreground="nonzero")
    for link in ("copy", "hard"):
        written = write(dataset, tmp_path / link, link=link)
        assert written.form == "index"
        reads_back(dataset, tmp_path / link)
    some = next((tmp_path / "copy/train_split/masks").iterdir())
    assert set(np.unique(np.asarray(Image.open(some)))) == {0, 1}


def test_one_mask_that_is_no_class_numbers_renders_them_all(tmp_path):
    """In one folder 1 can't mean foreground here and an instance there."""
    images, masks = tiny_runs.folder_dataset(tmp_path / "data", count=6)
    first = sorted(masks.iterdir())[0]
    Image.fromarray(np.asarray(Image.open(first)) // 85).save(first)
    dataset = folder(images=images, masks=masks, foreground="nonzero")
    assert write(dataset, tmp_path / "out").form == "index"
    values = {int(v) for file in (tmp_path / "out").rglob("masks/*") for v in np.unique(np.asarray(Image.open(file)))}
    assert values == {0, 1}


def drawn(task, masks, *, images=None, groups=None, file=Path("annotations.json")):
    """A data set without files of its own, as of annotations in one file."""
    count = len(masks)
    images = images or [np.full((*masks[n].shape[-2:], 3), n, np.uint8) for n in range(count)]
    samples = [Sample(f"s{n}", Path(f"{n}.npy"), file, groups[n] if groups else None) for n in range(count)]
    return Dataset(task, samples, lambda s: images[int(s.id[1:])], lambda s: masks[int(s.id[1:])])


def test_images_and_masks_that_are_no_files_are_rendered(tmp_path):
    mask = np.zeros((6, 5), np.uint8)
    mask[2:] = 1
    mask[0] = 255
    groups = ["p", "p", "q", "q", "r", "r", "s", "s"]
    dataset = drawn(Task(("lesion",), "binary"), [mask] * 8, groups=groups)
    written = write(dataset, tmp_path / "out")
    assert (written.form, written.ignored) == ("index", True)
    reads_back(dataset, tmp_path / "out", classes=("lesion",), ignore_index=255)
    assert {row["group"] for row in rows_of(tmp_path / "out")} == {"p", "q", "r", "s"}
    assert write(dataset, tmp_path / "out").made == 0


def test_images_that_are_read_otherwise_than_their_files_are_rendered(lesions, tmp_path):
    """As a reader does that takes some bands of a file, or a part of it."""
    dataset = replace(lesions, read_image=lambda sample: lesions.read_image(sample)[..., ::-1])
    assert write(dataset, tmp_path / "out").form == "files"
    reads_back(dataset, tmp_path / "out")
    assert write(dataset, tmp_path / "out").made == 0


def test_deep_and_many_banded_images_are_rendered_as_tiff(tmp_path):
    mask = np.ones((6, 5), np.uint8)
    mask[0] = 0
    images = [np.random.default_rng(n).integers(0, 60000, (6, 5, 5)).astype(np.uint16) for n in range(4)]
    dataset = drawn(Task(("lesion",), "binary"), [mask] * 4, images=images)
    write(dataset, tmp_path / "out")
    file = next((tmp_path / "out/test_split/images").iterdir())
    assert file.suffix == ".tif"
    assert np.array_equal(tifffile.imread(file), images[int(file.stem[1:])])
    reads_back(dataset, tmp_path / "out", classes=("lesion",))


def test_a_fourth_band_does_not_become_alpha(tmp_path):
    mask = np.eye(6, 5, dtype=np.uint8)
    bands = np.random.default_rng(0).integers(0, 256, (6, 5, 6), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "scene.tif", bands, photometric="minisblack", planarconfig="contig")
    whole = drawn(Task(("lesion",), "binary"), [mask] * 4, images=[bands[..., :4]] * 4)
    dataset = replace(whole, samples=[replace(sample, image=tmp_path / "scene.tif") for sample in whole.samples])
    write(dataset, tmp_path / "out")
    assert {file.suffix for file in (tmp_path / "out").glob("*/images/*")} == {".tif"}


def test_multilabel_masks_are_a_folder_for_each_class(tmp_path):
    layers = np.zeros((2, 6, 5), np.uint8)
    layers[0, :3], layers[1, 2:] = 1, 1
    dataset = drawn(Task(("a/b", "c"), "multilabel"), [layers] * 4)
    written = write(dataset, tmp_path / "out")
    assert (written.form, written.files) == ("layers", 12)
    name = rows_of(tmp_path / "out")[0]["id"]
    for label, class_folder in enumerate(("a_b", "c")):
        file = tmp_path / "out/train_split/masks" / class_folder / f"{name}.png"
        assert np.array_equal(np.asarray(Image.open(file)), layers[label])
    assert {row["mask"] for row in rows_of(tmp_path / "out")} == {""}


def test_every_id_and_group_reads_back_as_it_was(tmp_path):
    names = ["=1+1", "@b", "+c", "-d", "'=e", " f ", "g, h", '"i"', "~", "é"]
    for number, name in enumerate(names):
        for kind in ("images", "masks"):
            (tmp_path / kind).mkdir(exist_ok=True)
            Image.fromarray(np.full((4, 4), number % 2, np.uint8)).save(tmp_path / kind / f"{name}.png")
    dataset = folder(images=tmp_path / "images", masks=tmp_path / "masks")
    samples = [replace(sample, group=f"={sample.id}\\n") for sample in dataset.samples]
    write(replace(dataset, samples=samples), tmp_path / "out")
    reads_back(replace(dataset, samples=samples), tmp_path / "out")


# continuing, and leaving alone what is there


def test_it_goes_on_where_it_was_stopped(lesions, tmp_path, monkeypatch):
    out = tmp_path / "out"
    made = []

    def tiring(source, target):
        if len(made) == 5:
            Path(target).write_bytes(b"half of")
            raise KeyboardInterrupt
        made.append(target)
        Path(target).write_bytes(Path(source).read_bytes())

    monkeypatch.setattr(split_folders.shutil, "copy2", tiring)
    with pytest.raises(KeyboardInterrupt):
        write(lesions, out)
    assert not (out / "split.csv").exists()
    monkeypatch.undo()
    assert write(lesions, out).made == 11
    assert len(files_in(out)) == 17
    reads_back(lesions, out)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    assert write(lesions, out).made == 0
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()} == before


def test_no_other_file_is_replaced(lesions, tmp_path):
    out = tmp_path / "out"
    write(lesions, out)
    mine = next((out / "val_split/images").iterdir())
    mine.write_bytes(b"mine")
    refused(f"{mine} is there already and is not what would be written", dataset=lesions, out=out)
    assert mine.read_bytes() == b"mine"


@pytest.mark.parametrize(("first", "then"), [("symbolic", "copy"), ("copy", "symbolic")])
def test_links_are_not_taken_for_copies(first, then, lesions, tmp_path):
    """Whoever asks for copies may be about to move the folder."""
    write(lesions, tmp_path / "out", link=first)
    refused("is not what would be written", "name an empty folder", dataset=lesions, out=tmp_path / "out", link=then)


def test_another_split_in_the_same_folder_is_refused(lesions, tmp_path):
    """Its images would are in two splits."""
    out = tmp_path / "out"
    write(lesions, out)
    before = files_in(out)
    other = Split(method="random", val=0.25, test=0.25, seed=1)
    refused("files that are not of this split, such as", "remove the old split", dataset=lesions, out=out, split=other)
    assert files_in(out) == before


def test_another_manifest_is_left_alone(lesions, tmp_path):
    (tmp_path / "split.csv").write_text("a,b\n1,2\n")
    refused("split.csv is there already and is not a manifest of a split", dataset=lesions, out=tmp_path)
    assert (tmp_path / "split.csv").read_text() == "a,b\n1,2\n"
    assert not (tmp_path / "train_split").exists()


def test_what_cannot_be_written_is_reported(lesions, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    refused("can't be written", dataset=lesions, out=tmp_path / "file")

    def no_link(*_):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(split_folders.os, "link", no_link)
    refused(
        "can't be written: Invalid cross-device link", "--link copy works everywhere",
        dataset=lesions, out=tmp_path / "out", link="hard",
    )  # fmt: skip


# what can't be written


@pytest.mark.parametrize("damaged", ["image", "mask"])
def test_damaged_files_are_refused_before_anything_is_written(damaged, lesions, tmp_path):
    out = tmp_path / "out"
    for index in (0, 3):
        getattr(lesions.samples[index], damaged).write_bytes(b"")
    with pytest.raises(SegregError) as caught:
        write(lesions, out)
    assert len(caught.value.problems) == 2
    assert not out.exists()


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["a", "b", "c/d", "e"], "the id \"c/d\" can't be a file's name"),
        (["a", "..", "c", "d"], "the id \"..\" can't be a file's name"),
        (["a", "B", "b", "d"], 'the ids "B" and "b" differ in nothing but capital letters'),
    ],
)
def test_ids_that_make_no_file_names_are_refused(names, says, tmp_path):
    mask = np.ones((4, 4), np.uint8)
    whole = drawn(Task(("a",), "binary"), [mask] * 4)
    samples = [Sample(name, s.image, s.mask, split="train") for name, s in zip(names, whole.samples, strict=True)]
    dataset = Dataset(whole.task, samples, whole.read_image, whole.read_mask)
    with pytest.raises(SegregError) as caught:
        write_split(dataset, {"train": [0, 1, 2, 3]}, tmp_path / "out", progress=Quiet())
    assert says in str(caught.value)

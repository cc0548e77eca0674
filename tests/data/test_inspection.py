"""The check of a data set: damaged files, odd masks, class shares, and what is in two splits of a split."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.utils.class_weight import compute_class_weight

from segreg.config.sections import Input, Split
from segreg.data.images import read_image
from segreg.data.inspection import inspect
from segreg.data.inspection.checks import Finding, FindingCase, in_order, summary
from segreg.data.inspection.scan import class_shares, scan, suggested_weights
from segreg.errors import SegregError
from segreg.registry.protocols import Dataset, Sample
from segreg.runtime.layout import plain
from segreg.runtime.progress import Quiet
from segreg.task import Task
from segreg_plugins.datasets.folder import folder

LESION = Task(("lesion",), "binary")
LANDS = Task(("sea", "sand", "wood"), "multiclass")
OVERLAPPING = Task(("a", "b"), "multilabel")
INPUT = Input(size=(32, 32))


def noise(seed, size=(40, 40)):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def half(size=(40, 40), value=1):
    mask = np.zeros(size, np.uint8)
    mask[: size[0] // 2] = value
    return mask


def in_memory(masks, *, task=LESION, images=None, groups=None, splits=None, names=None):
    """A data set whose images are arrays; an exception in place of an array is raised."""
    count = len(masks)
    images = images or [noise(number) for number in range(count)]

    def read(values):
        def reading(sample):
            value = values[int(sample.id)]
            if isinstance(value, Exception):
                raise value
            return value

        return reading

    samples = [
        Sample(
            str(n),
            Path(f"images/{names[n] if names else n}.png"),
            None if masks[n] is None else Path(f"masks/{n}.png"),
            groups[n] if groups else None, splits[n] if splits else None,
        )
        for n in range(count)
    ]  # fmt: skip
    return Dataset(task, samples, read(images), read(masks))


def report_of(dataset, *, split=None, input=INPUT):
    split = split or Split(method="random", val=0.25, test=0.25)
    return inspect(dataset, split, input, progress=Quiet())


def found(report):
    return {finding.name: finding for finding in report.findings}


def reported(report, name):
    return [case.message for case in found(report)[name].cases]


def ids(report, name):
    return [case.ids for case in found(report)[name].cases]


# class shares and weights


def test_shares_and_weights_are_those_of_scikit_learn_and_of_the_paper():
    drawn = np.random.default_rng(0)
    masks = [drawn.choice(np.array([0, 1, 255], np.uint8), (20, 30), p=[0.7, 0.2, 0.1]) for _ in range(3)]
    masks += [drawn.choice(np.array([0, 1, 2], np.uint8), (10, 10), p=[0.2, 0.2, 0.6]) for _ in range(2)]
    dataset = in_memory(masks, task=LANDS, images=[noise(n, mask.shape) for n, mask in enumerate(masks)])
    scanned = scan(dataset, INPUT, range(5), progress=Quiet())
    labels = np.concatenate([mask.ravel() for mask in masks])
    labels = labels[labels != 255]
    shares = class_shares(scanned, LANDS)
    assert [share.pixels for share in shares] == [int((labels == k).sum()) for k in range(3)]
    assert [share.share for share in shares] == pytest.approx([(labels == k).mean() for k in range(3)])
    assert [(share.images, share.image_share) for share in shares] == [(5, 1.0), (5, 1.0), (2, 0.4)]
    weights = suggested_weights(scanned, LANDS)
    balanced = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    assert weights["inverse_frequency"] == pytest.approx(list(balanced), rel=1e-3)
    # Eigen and Fergus: pixels of the class by the pixels of the images that show it.
    frequencies = []
    for k in range(3):
        showing = [mask[mask != 255] for mask in masks if (mask == k).any()]
        frequencies.append(sum((m == k).sum() for m in showing) / sum(m.size for m in showing))
    expected = np.median(frequencies) / np.array(frequencies)
    assert weights["median_frequency"] == pytest.approx(list(expected), rel=1e-3)


def test_weights_of_binary_and_multilabel_tasks_and_of_classes_that_are_not_there():
    mask = half()
    mask[:5] = 255
    scanned = scan(in_memory([mask]), INPUT, [0], progress=Quiet())
    assert suggested_weights(scanned, LESION) == {"positive_weight": [pytest.approx(20 / 15, rel=1e-3)]}
    layers = np.stack([half(), np.zeros((40, 40), np.uint8)])
    layers[1, 0, :8] = 255
    scanned = scan(in_memory([layers], task=OVERLAPPING), INPUT, [0], progress=Quiet())
    assert [share.share for share in class_shares(scanned, OVERLAPPING)] == [0.5, 0.0]
    assert suggested_weights(scanned, OVERLAPPING) == {"positive_weight": [1.0, None]}
    scanned = scan(in_memory([half()], task=LANDS), INPUT, [0], progress=Quiet())
    assert suggested_weights(scanned, LANDS) == {
        "median_frequency": [1.0, 1.0, None],
        "inverse_frequency": [1.0, 1.0, None],
    }
    assert suggested_weights([], LANDS) == {"median_frequency": [None] * 3, "inverse_frequency": [None] * 3}


def test_weights_are_of_the_training_side():
    dataset = in_memory([half(), half(), np.ones((40, 40), np.uint8)], splits=["train", "val", "test"])
    report = report_of(dataset, split=Split(method="dataset"))
    assert report.weights == {"positive_weight": [1.0]}
    assert [share.share for share in report.shares["all"]] == pytest.approx([1 / 3, 2 / 3])
    assert [share.share for share in report.shares["test"]] == [0.0, 1.0]


# files that training would refuse


def test_every_damaged_or_wrong_file_is_named(tmp_path):
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    for number in range(12):
        Image.fromarray(noise(number)).save(tmp_path / "images" / f"{number}.png")
        Image.fromarray(half() * np.uint8(255)).save(tmp_path / "masks" / f"{number}.png")
    whole = (tmp_path / "images" / "0.png").read_bytes()
    (tmp_path / "images" / "0.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "images" / "1.png").write_bytes(b"")
    (tmp_path / "masks" / "2.png").write_bytes(b"no image at all")
    Image.fromarray(half() * np.uint8(7)).save(tmp_path / "masks" / "3.png")
    Image.fromarray(half((20, 40))).save(tmp_path / "masks" / "4.png")
    Image.fromarray(np.dstack([noise(5), noise(6)[..., :1]])).save(tmp_path / "images" / "5.png")
    report = report_of(folder(images=tmp_path / "images", masks=tmp_path / "masks"))
    assert report.in_error
    assert {name for name, finding in found(report).items() if finding.severity == "error"} == {
        "image-unreadable", "mask-unreadable", "mask-values", "sizes-differ", "unfit",
    }  # fmt: skip
    assert ids(report, "image-unreadable") == [("0",), ("1",)]
    assert ids(report, "mask-unreadable") == [("2",)]
    assert ids(report, "mask-values") == [("3",)]
    assert reported(report, "sizes-differ") == [
        f"{tmp_path}/images/4.png: is 40x40 but its mask {tmp_path}/masks/4.png is 20x40 (height x width)"
    ]
    assert "set input.channels: 4" in reported(report, "unfit")[0]
    for finding in report.findings:
        for case in finding.cases:
            assert case.message.count(str(tmp_path)) >= 1
            assert all(Path(file).exists() for file in case.files)
    # The others are counted all the same.
    assert report.shares["all"][1].images == 10
    assert report.formats == {"3 channels, 8 bits": 9, "4 channels, 8 bits": 1}


def test_a_mask_with_a_colour_that_no_class_has_can_be_read(tmp_path):
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    for number in range(4):
        Image.fromarray(noise(number)).save(tmp_path / "images" / f"{number}.png")
        Image.fromarray(noise(number) // 255 * 255).save(tmp_path / "masks" / f"{number}.png")
    values = {"a": [0, 0, 0], "b": [255, 0, 0]}
    report = report_of(folder(images=tmp_path / "images", masks=tmp_path / "masks", values=values))
    assert len(found(report)["mask-values"].cases) == 4
    assert "mask-unreadable" not in found(report)


def test_types_that_only_another_split_has_are_mixed_too():
    images = [noise(n) if n < 3 else noise(n).astype(np.float32) for n in range(4)]
    dataset = in_memory([half()] * 4, images=images, splits=["train", "train", "train", "val"])
    assert "types-mixed" in found(report_of(dataset, split=Split(method="dataset", test=0)))


def test_eight_bits_beside_sixteen_are_judged_as_training_gets_them():
    images = [noise(n) if n < 2 else noise(n).astype(np.uint16) * 11 for n in range(4)]
    for splits in (["train", "train", "train", "val"], ["train", "train", "val", "val"]):
        report = report_of(in_memory([half()] * 4, images=images, splits=splits), split=Split(method="dataset", test=0))
        assert "recipe-refused" not in found(report)
    dark = in_memory([half()] * 4, images=[one.astype(np.uint16) for one in images], splits=splits)
    assert "recipe-refused" in found(report_of(dark, split=Split(method="dataset", test=0)))


def test_images_of_one_bit_are_looked_at():
    dataset = in_memory([half()] * 4, images=[noise(n)[..., 0] > 99 for n in range(4)])
    assert not report_of(dataset).in_error


def test_what_a_data_set_of_another_package_does_wrong_is_reported():
    dataset = in_memory(
        [half(), half(), half(), None, half().astype(np.int64), half() * np.uint8(9)],
        images=[noise(0), ZeroDivisionError("by zero"), np.zeros((40, 40), complex), *map(noise, range(3, 6))],
    )
    report = report_of(dataset)
    assert reported(report, "image-unreadable") == [
        "images/1.png: can't be read: ZeroDivisionError: by zero",
        "images/2.png: the data set gave an array of shape [40, 40] and type complex128",
    ]
    assert reported(report, "mask-missing") == ["images/3.png: has no mask"]
    assert reported(report, "mask-values") == [
        "masks/4.png: holds values of type int64; labels are uint8",
        "masks/5.png: holds 9; the binary task has 0 to 1, and 255 for pixels to ignore",
    ]


def test_a_good_data_set_has_no_finding():
    report = report_of(in_memory([half()] * 8))
    assert list(report.findings) == []
    assert not report.in_error
    assert report.sizes == {"40x40": 8}
    assert report.formats == {"3 channels, 8 bits": 8}


# what is allowed and seldom meant


def test_odd_masks_and_images():
    speck = np.zeros((40, 40), np.uint8)
    speck[0, 0] = 1
    masks = [np.zeros((40, 40), np.uint8), np.full((40, 40), 255, np.uint8), np.ones((40, 40), np.uint8), half(), speck]
    masks += [half((40, 70)), half((20, 20)), half()]
    images = [noise(n, mask.shape) for n, mask in enumerate(masks)]
    images[3][:] = 17
    report = report_of(in_memory(masks, images=images), input=Input(size=(16, 16)))
    assert reported(report, "mask-empty") == ["masks/0.png"]
    assert reported(report, "mask-ignored") == ["masks/1.png"]
    assert reported(report, "mask-of-one-class") == ["masks/2.png: all lesion"]
    assert reported(report, "image-blank") == ["images/3.png"]
    assert reported(report, "lost-by-resizing") == ["masks/4.png: loses lesion (1 pixel)"]
    assert reported(report, "stretched") == ["images/5.png: 40x70"]
    assert "enlarged" not in found(report)
    assert not report.in_error
    report = report_of(in_memory(masks, images=images), input=Input(size=(32, 32), resize="letterbox"))
    assert reported(report, "enlarged") == ["images/6.png: 20x20"]
    assert "stretched" not in found(report)


def test_alpha_that_is_left_out_is_mentioned(tmp_path):
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    for number in range(4):
        alpha = np.full((40, 40, 1), 255, np.uint8)
        pixels = noise(number) if number % 2 else np.concatenate([noise(number), alpha], axis=2)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{number}.png")
        Image.fromarray(half()).save(tmp_path / "masks" / f"{number}.png")
    dataset = folder(images=tmp_path / "images", masks=tmp_path / "masks", classes=("lesion",))
    found = {f.name: f for f in inspect(dataset, Split(), INPUT, progress=Quiet()).findings}
    assert [case.ids for case in found["alpha-dropped"].cases] == [("0",), ("2",)]
    assert found["alpha-dropped"].severity == "note"
    wide = Input(size=(32, 32), channels=4)
    assert "alpha-dropped" not in {f.name for f in inspect(dataset, Split(), wide, progress=Quiet()).findings}


def test_a_mask_of_class_0_is_not_called_empty_where_that_is_a_class():
    report = report_of(in_memory([np.zeros((40, 40), np.uint8), *[half()] * 7], task=LANDS))
    assert "mask-empty" not in found(report)
    assert reported(report, "mask-of-one-class") == ["masks/0.png: all sea"]
    layers = np.zeros((2, 40, 40), np.uint8)
    report = report_of(in_memory([layers, *[layers + half()] * 7], task=OVERLAPPING))
    assert ids(report, "mask-empty") == [("0",)]


def test_classes_that_a_side_does_not_show():
    splits = ["train", "train", "val", "test"]
    masks = [half(), half(value=0), half(value=2), half()]
    report = report_of(in_memory(masks, task=LANDS, splits=splits), split=Split(method="dataset"))
    assert found(report)["class-not-in-train"].what == ('val shows "wood", and train never does: only 1 image shows it')
    assert [f.what for f in report.findings if f.name == "class-not-in-split"] == [
        'val never shows "sand": only 2 images show it'
    ]
    report = report_of(in_memory([half()] * 8, task=LANDS))
    assert found(report)["class-never-present"].what == 'no mask shows "wood"'


# what is in two splits


def test_equal_images_are_reported_with_their_sides_and_their_masks(tmp_path):
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    images = {"a.png": 0, "b.bmp": 0, "c.png": 1, "d.png": 1, "e.png": 2, "f.png": 3}
    for name, seed in images.items():
        Image.fromarray(noise(seed)).save(tmp_path / "images" / name)
        mask = half(value=255) if name != "d.png" else half(value=255).T.copy()
        Image.fromarray(mask).save(tmp_path / "masks" / f"{name[0]}.png")
    lists = {}
    for split, names in {"train": "ace", "val": "bf", "test": "d"}.items():
        lists[split] = tmp_path / f"{split}.txt"
        lists[split].write_text("\n".join(names))
    dataset = folder(images=tmp_path / "images", masks=tmp_path / "masks")
    report = report_of(dataset, split=Split(method="lists", lists=lists))
    assert found(report)["duplicate-across-splits"].severity == "error"
    assert ids(report, "duplicate-across-splits") == [("a", "b"), ("c", "d")]
    assert (
        reported(report, "duplicate-across-splits")[0]
        == f"{tmp_path}/images/a.png (train) and {tmp_path}/images/b.bmp (val)"
    )
    assert ids(report, "duplicate-with-other-mask") == [("c", "d")]
    assert "near-duplicate" not in "".join(found(report))
    assert [(pair.first, pair.second, pair.likeness, pair.across) for pair in report.pairs] == [
        (0, 1, 1.0, True), (2, 3, 1.0, True),
    ]  # fmt: skip
    lists["train"].write_text("a\nb\nc\nd")
    lists["val"].write_text("e")
    lists["test"].write_text("f")
    report = report_of(dataset, split=Split(method="lists", lists=lists))
    assert ids(report, "duplicate") == [("a", "b"), ("c", "d")]
    assert not report.in_error


def test_groups_in_two_splits_are_all_reported():
    dataset = in_memory(
        [half()] * 6, groups=["p", "p", "q", "q", "r", "r"], splits=["train", "val", "train", "test", "train", "train"]
    )
    report = report_of(dataset, split=Split())
    assert report.in_error
    assert reported(report, "group-across-splits") == [
        'group "p": images/0.png (train) and images/1.png (val)',
        'group "q": images/2.png (train) and images/3.png (test)',
    ]
    assert "split-refused" not in found(report)
    assert {split: len(indices) for split, indices in report.splits.items()} == {"train": 4, "val": 1, "test": 1}


def test_a_split_that_cannot_be_made_is_reported_and_the_rest_is_checked():
    dataset = in_memory([half(), np.zeros((40, 40), np.uint8)])
    report = report_of(dataset, split=Split(method="dataset"))
    assert report.in_error
    assert "2 of 2 samples don't say in which split" in reported(report, "split-refused")[0]
    assert ids(report, "mask-empty") == [("1",)]
    assert report.splits == {}
    assert list(report.shares) == ["all"]
    assert json.loads(json.dumps(report.as_data()))["splits"] == {}


def test_augmented_copies_are_known_by_their_names_where_there_is_no_group():
    names = [f"{source}_jpg.rf.{copy:032x}" for source in "abcd" for copy in range(3)]
    dataset = in_memory([half()] * 12, names=names)
    report = report_of(dataset, split=Split(method="random", val=0.3, test=0.3))
    assert report.in_error
    assert reported(report, "augmented-copies-across-splits")[0].startswith('source "images/b_jpg": ')
    grouped = in_memory([half()] * 12, names=names, groups=[name[0] for name in names])
    assert "augmented-copies-across-splits" not in found(report_of(grouped))


def test_augmented_copies_are_found_in_the_folders_of_splits_and_twice_augmented():
    copies = ["train/a_jpg.rf.00000001", "train/b_jpg.rf.00000002", "val/a_jpg.rf.00000003.rf.00000004", "val/c"]
    dataset = in_memory([half()] * 4, names=copies, splits=["train", "train", "val", "val"])
    report = report_of(dataset, split=Split(method="dataset", test=0))
    assert ids(report, "augmented-copies-across-splits") == [("0", "2")]


def smooth(seed, size=128):
    """A image with detail of all sizes."""
    grain = np.random.default_rng(seed).random((size, size, 3), np.float32)
    image = sum(
        np.asarray(
            Image.fromarray((grain[:k, :k] * 255).astype(np.uint8)).resize((size, size), Image.Resampling.BICUBIC)
        )
        * np.float32(0.25)
        for k in (4, 9, 20, 40)
    )
    return image.astype(np.uint8)


def test_near_duplicates_are_reported_across_sides_and_within():
    images = [smooth(n) for n in range(8)]
    images[3] = np.clip(images[0].astype(int) * 0.7 + 30, 0, 255).astype(np.uint8)[:, ::-1].copy()
    images[5] = np.roll(images[1], 2, axis=0)
    masks = [half((128, 128))] * 8
    splits = ["train", "train", "train", "test", "train", "train", "val", "val"]
    report = report_of(in_memory(masks, images=images, splits=splits), split=Split(method="dataset"))
    assert not report.in_error
    assert ids(report, "near-duplicate-across-splits") == [("0", "3")]
    words = reported(report, "near-duplicate-across-splits")[0]
    assert words.endswith(", the second mirrored: images/0.png (train) and images/3.png (test)")
    assert ids(report, "near-duplicate") == [("1", "5")]
    # Those of one group belong together.
    groups = ["p", "q", "a", "p2", "b", "q", "c", "d"]
    report = report_of(in_memory(masks, images=images, splits=splits, groups=groups), split=Split(method="dataset"))
    assert "near-duplicate" not in found(report)


def test_samples_on_no_side_are_counted_and_not_read(tmp_path):
    lists = {}
    for split, names in {"train": "0\n1", "val": "2"}.items():
        lists[split] = tmp_path / split
        lists[split].write_text(names)
    dataset = in_memory([half()] * 3 + [ValueError("must not be read")])
    report = report_of(dataset, split=Split(method="lists", lists=lists))
    assert [(f.name, f.what) for f in report.findings] == [("unused", "1 of 4 images are in no split")]


def test_no_samples_and_twice_one_id_are_refused():
    with pytest.raises(SegregError, match="the data set has no samples"):
        report_of(in_memory([]))
    dataset = in_memory([half()] * 2)
    twice = Dataset(dataset.task, [dataset.samples[0]] * 2, dataset.read_image, dataset.read_mask)
    assert "sample ids must differ" in reported(report_of(twice), "split-refused")[0]


# how it is reported


def test_the_report_formatted():
    masks = [half(), half(), half(), np.zeros((40, 40), np.uint8)]
    dataset = in_memory(masks, splits=["train", "train", "val", "test"])
    reported_lines = plain(report_of(dataset, split=Split(method="dataset")).lines())
    assert reported_lines == [
        "4 images, binary: lesion",
        "  split     train 2, val 1, test 1",
        "  sizes     40x40 (4)",
        "  channels  3 channels, 8 bits (4)",
        "  values    0 to 255",
        "",
        "  pixels        all %  train %    val %   test %  images that show it",
        "  background     62.5       50       50      100                    4  (100 %)",
        "  lesion         37.5       50       50        0                    3  (75 %)",
        "",
        "  weights by positive_weight of train: [1]",
        "    pixels without the class / pixels with it",
        "",
        "warning: masks without a pixel of any class: 1 [mask-empty]",
        "    masks/3.png",
        "  why: a mask that was never drawn looks like this; it is right where there is nothing to see",
        "  do:  look at them; take out those whose image does show something",
        "",
        'warning: test never shows "lesion", nothing but "background" [split-empty]',
        "  why: most scores of test are undefined, or perfect for a network that gives one answer everywhere",
        "  do:  split otherwise: split.stratify: true spreads rare classes, and so can split.lists; or larger shares",
        "",
        "no error, 2 warnings and no note",
    ]


def test_findings_are_ordered_cut_and_counted():
    cases = tuple(FindingCase(f"file {number}") for number in range(7))
    findings = [Finding(s, s, f"a {s}", "why", "do", cases) for s in ("note", "error", "warning", "error")]
    assert [finding.severity for finding in in_order(findings)] == ["error", "error", "warning", "note"]
    assert summary(findings) == "2 errors, 1 warning and 1 note"
    assert findings[1].lines(most=2) == [
        "error: a error [error]", "    file 0", "    file 1", "    and 5 more; --all prints them, --json too",
        "  why: why", "  do:  do",
    ]  # fmt: skip
    assert findings[0].as_data()["cases"][6] == {"message": "file 6", "files": [], "ids": []}


def test_reading_is_the_data_sets_own(tmp_path):
    """A palette image is compared by its colours, as it is trained on."""
    Image.fromarray(noise(0)).quantize(8).save(tmp_path / "p.png")
    Image.fromarray(read_image(tmp_path / "p.png")).save(tmp_path / "q.bmp")
    samples = [Sample(name, tmp_path / name, tmp_path / "m") for name in ("p.png", "q.bmp")]
    dataset = Dataset(LESION, samples, lambda s: read_image(s.image), lambda _: half())
    one, other = scan(dataset, INPUT, [0, 1], progress=Quiet())
    assert one.image_digest == other.image_digest

"""Datasets and augmentations that are broken on purpose, each caught by one check with these words."""

# ruff: noqa: E501 - messages stand here as they are printed

from __future__ import annotations

import dataclasses
import itertools
import threading
from pathlib import Path

import albumentations
import numpy as np
import pytest

from segreg.errors import SegregError
from segreg.registry.entry import Entry
from segreg.registry.protocols import Dataset, Recognised, Sample
from segreg.task import Task

FINE = Dataset(
    task=Task(("thing",), "binary"),
    samples=[Sample(str(i), Path(f"{i}.png"), Path(f"{i}-mask.png"), split="train" if i else "val") for i in range(4)],
    read_image=lambda sample: np.full((6, 8, 3), int(sample.id), np.uint8),
    read_mask=lambda sample: np.ones((6, 8), np.uint8),
)
COUNT = itertools.count()


def made_of(**changes):
    def build():
        """A dataset of the tests."""
        return dataclasses.replace(FINE, **changes)

    return Entry("dataset", "broken", build)


def samples(**changes):
    return [dataclasses.replace(sample, **changes) for sample in FINE.samples]


def noise(sample):
    return np.full((6, 8), next(COUNT) % 250, np.uint8)


def alone_only(sample):
    """Stand in for a reader with one open file, in which another thread seeks meanwhile."""
    return np.full((6, 8), int(sample.id) + (threading.current_thread() is not threading.main_thread()), np.uint8)


DATASETS = [
    (made_of(samples=[]), "it_can_be_built", "it has no samples"),
    (made_of(samples=samples(id="a")), "ids_are_unique_and_stable", 'two samples have the id "a"'),
    (
        made_of(samples=[Sample("../a", Path("a"))]),
        "ids_are_unique_and_stable",
        "'../a' can't be an id: it names files, below the folder that they are written to",
    ),
    (
        made_of(read_image=lambda sample: np.zeros((6, 8, 3))),
        "images_are_what_is_promised",
        'the image of "0" is float64 of shape [6, 8, 3]; uint8, uint16 or float32 of [H, W] or [H, W, C] was expected',
    ),
    (
        made_of(read_mask=lambda sample: np.zeros((8, 6), np.uint8)),
        "images_are_what_is_promised",
        'the mask of "0" is uint8 of shape [8, 6]; uint8 of [6, 8] was expected, as its image and its task have it',
    ),
    (
        made_of(read_mask=lambda sample: np.full((6, 8), 254, np.uint8)),
        "labels_are_of_the_task",
        'the mask of "0" holds 254, no class of its binary task of 1, nor 255',
    ),
    (
        made_of(read_mask=lambda sample: np.tile(np.array([0, 255], np.uint8), (6, 4))),
        "labels_are_of_the_task",
        "the masks of 4 samples hold 0 and 255 alone, and 255 is ignored: where 255 means an object, give 1 for it",
    ),
    (
        made_of(read_mask=lambda sample: np.full((6, 8), 255, np.uint8)),
        "labels_are_of_the_task",
        "the masks of 4 samples hold 255 alone, and 255 is ignored: where 255 means an object, give 1 for it",
    ),
    (made_of(read_image=noise), "reading_repeats", 'the image of "0" is another at the second reading'),
    (
        made_of(read_image=alone_only),
        "reading_repeats",
        'the image of "0" is another one when threads read at once; open a file for each reading, or hold a lock',
    ),
    (
        made_of(samples=[*FINE.samples[1:], dataclasses.replace(FINE.samples[1], id="again", split="test")]),
        "splits_are_disjoint",
        'the image "1.png" is in two splits: train and test',
    ),
    (
        made_of(samples=samples(group="patient 7")),
        "splits_are_disjoint",
        'the group "patient 7" is in two splits: val and train',
    ),
    (
        made_of(samples=samples(split="training")),
        "splits_are_disjoint",
        '"0" is in the split "training"; there is "train", "val" and "test"',
    ),
]


@pytest.mark.parametrize(("entry", "check", "words"), DATASETS)
def test_a_broken_dataset_is_caught(said, entry, check, words):
    assert said(entry, check) == words


def test_nothing_is_said_of_a_dataset_that_keeps_to_the_contract(outcome):
    for check in {check for _, check, _ in DATASETS}:
        assert outcome(made_of(), check).status == "passed", check
    undefined = made_of(read_image=lambda sample: np.full((6, 8), np.nan, np.float32))
    assert outcome(undefined, "reading_repeats").status == "passed", "pixels without data are NaN each time"


def in_a_folder(read):
    def build(*, root: Path):
        """A dataset of the tests.

        Args:
            root: its folder.
        """
        return read(root)

    return Entry("dataset", "broken", build)


def careless(root):
    return dataclasses.replace(FINE, samples=[Sample(file.name, file) for file in list(root.iterdir())])


def silent(root):
    return dataclasses.replace(FINE, samples=[Sample(file.name, file) for file in root.glob("*.png")])


def short(root):
    raise SegregError("the data is missing")


def without_a_hint(root):
    raise SegregError(f"{root} is not there")


def with_a_hint(root):
    raise SegregError(f"{root} is not there", hint="get it from https://example.org")


def test_missing_data_is_reported(said, outcome):
    def reported(read):
        return said(in_a_folder(read), "missing_data_is_named")

    assert reported(careless).startswith(
        "where its folder is missing, it raises FileNotFoundError: [Errno 2] No such file"
    )
    assert reported(careless).endswith("/not_here/root', which is not a SegregError")
    assert reported(silent) == "where its folder is missing, it says nothing"
    assert reported(short) == "where its folder is missing, its message does not name it: the data is missing"
    assert reported(without_a_hint).startswith(
        "where its folder is missing, its message has no hint that says where to get the data: /"
    )
    assert outcome(in_a_folder(with_a_hint), "missing_data_is_named").status == "passed"


@pytest.mark.parametrize(
    ("recognise", "says"),
    [
        (lambda folder: [Recognised({}, "anything")], "it claims a folder that holds notes.txt alone: anything"),
        (
            lambda folder: [Recognised({"place": folder}, "a")] * (folder.name == "here"),
            '"place", which is not a setting',
        ),
        (lambda folder: [Recognised({}, "")] * (folder.name == "here"), "without a word of why"),
    ],
)
def test_a_careless_recognise_is_caught(said, tmp_path, recognise, says):
    (tmp_path / "here").mkdir()
    entry = dataclasses.replace(in_a_folder(lambda root: FINE), recognise=recognise)
    assert says in said(entry, "recognise_is_careful", root=str(tmp_path / "here"))


def test_a_dataset_needs_its_folder(said, outcome, tmp_path):
    found = outcome(in_a_folder(silent), "it_can_be_built")
    assert (found.status, found.what) == ("not checked", 'needs "root"')
    assert said(in_a_folder(silent), "it_can_be_built", root=str(tmp_path)) == "it has no samples"
    assert said(in_a_folder(short), "it_can_be_built", root=str(tmp_path)) == (
        "it refuses the settings that it was given: the data is missing"
    )
    (tmp_path / "a.png").touch()
    assert outcome(in_a_folder(silent), "it_can_be_built", root=str(tmp_path)).status == "passed"


# augmentations


class Mirrored(albumentations.DualTransform):
    """Mirror image and mask: nothing is wrong with it."""

    def apply(self, img, **params):
        return np.ascontiguousarray(img[:, ::-1])

    def apply_to_mask(self, mask, **params):
        return np.ascontiguousarray(mask[:, ::-1])


class ImageAlone(Mirrored):
    def apply_to_mask(self, mask, **params):
        return mask


class MaskAlone(Mirrored):
    def apply(self, img, **params):
        return img


class TwoPixelsOff(Mirrored):
    def apply_to_mask(self, mask, **params):
        return np.roll(super().apply_to_mask(mask), self.py_random.choice((-2, 2)), 1)


class OneLayer(Mirrored):
    def apply_to_mask(self, mask, **params):
        after = mask.copy()
        after[..., :1] = after[:, ::-1, :1]
        return after


class Blends(Mirrored):
    def apply_to_mask(self, mask, **params):
        return (mask // 2 + mask[:, ::-1] // 2).astype(np.uint8)


class Halves(Mirrored):
    def apply(self, img, **params):
        return np.ascontiguousarray(img[::2])

    def apply_to_mask(self, mask, **params):
        return np.ascontiguousarray(mask[::2])


class Global(Mirrored):
    def apply(self, img, **params):
        return np.clip(img.astype(int) + np.random.randint(-50, 50), 0, 255).astype(np.uint8)


class InPlace(Mirrored):
    def apply(self, img, **params):
        img[:] = 255 - img
        return img

    def apply_to_mask(self, mask, **params):
        return mask


class Idle(Mirrored):
    def apply(self, img, **params):
        return img

    def apply_to_mask(self, mask, **params):
        return mask


class WithLambda(Mirrored):
    def __init__(self, p=0.5):
        super().__init__(p=p)
        self.change = lambda image: image


def transform_entry(transform):
    def build():
        """An augmentation of the tests."""
        return transform()

    return Entry("augmentation", "broken", build)


AUGMENTATIONS = [
    (dict, "it_can_be_built", "dict is not an Albumentations transform"),
    (
        Blends,
        "it_keeps_size_type_and_labels",
        (
            'the augmentation "Blends" puts 100 into masks, which are no classes (masks take the nearest label '
            "(mask_interpolation=0), and fill_mask is a class or 255)"
        ),
    ),
    (
        Halves,
        "it_keeps_size_type_and_labels",
        (
            'the augmentation "Halves" turns an image of 64x64x3 into one of 32x64x3; it must keep the size (crops '
            "smaller than input.size aren't available; RandomResizedCrop with the size of the input, ShiftScaleRotate "
            "and Affine with a scale show parts of an image\nturns by 90 degrees need a square input)"
        ),
    ),
    (
        ImageAlone,
        "image_and_mask_move_together",
        (
            "image and mask are out of step: its images agree better with masks that are mirrored (0.99) than with those "
            "that it gives (0.23)"
        ),
    ),
    (
        MaskAlone,
        "image_and_mask_move_together",
        (
            "image and mask are out of step: its images agree better with masks that are mirrored (0.99) than with those "
            "that it gives (0.23)"
        ),
    ),
    (
        TwoPixelsOff,
        "image_and_mask_move_together",
        (
            "image and mask are out of step: its images agree better with masks that are shifted by a few pixels (0.99) "
            "than with those that it gives (0.87)"
        ),
    ),
    (Idle, "it_changes_something", "it leaves every image as it is"),
    (OneLayer, "image_and_mask_move_together", "two equal layers of a mask are moved apart"),
    (
        Global,
        "the_seed_decides",
        "one seed gives something else the second time; draw from self.py_random and self.random_generator",
    ),
    (InPlace, "it_leaves_its_inputs_alone", "it changes the image that it is given in place"),
    (
        WithLambda,
        "it_can_be_copied_and_sent",
        "when it is pickled, it raises AttributeError: Can't pickle local object 'WithLambda.__init__.<locals>.<lambda>'",
    ),
]


@pytest.mark.parametrize(
    ("transform", "check", "words"), AUGMENTATIONS, ids=[one.__name__ for one, _, _ in AUGMENTATIONS]
)
def test_a_broken_augmentation_is_caught(said, transform, check, words):
    assert said(transform_entry(transform), check) == words


def test_nothing_is_said_of_an_augmentation_that_keeps_to_the_contract(outcome):
    for check in {check for _, check, _ in AUGMENTATIONS}:
        assert outcome(transform_entry(Mirrored), check).status == "passed", check

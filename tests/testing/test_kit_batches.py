"""Batch augmentations that are broken on purpose, each caught by one check with these words."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from segreg.registry.entry import Entry
from segreg.registry.protocols import MixedBatch
from segreg.task import IGNORE_INDEX


def swapped(images, targets, generator):
    """Nothing is wrong with it."""
    places = int(generator.integers(1, len(images)))
    return MixedBatch(images.roll(places, 0), targets.roll(places, 0))


def a_pair(images, targets, generator):
    return images, targets


def a_half(images, targets, generator):
    return MixedBatch(images[..., ::2], targets[..., ::2])


def floats(images, targets, generator):
    return MixedBatch(images.float(), targets)


def images_alone(images, targets, generator):
    return MixedBatch(images.roll(1, 0), targets)


def the_ignored_counted(images, targets, generator):
    return MixedBatch(images.roll(1, 0), targets.roll(1, 0).masked_fill(targets.roll(1, 0) == IGNORE_INDEX, 0))


def half_and_half(images, targets, generator):
    mean = (0.5 * images.float() + 0.5 * images.roll(1, 0).float()).to(images.dtype)
    return MixedBatch(mean, targets, targets.roll(1, 0), share=0.9)


def by_torch(images, targets, generator):
    places = int(torch.randint(1, len(images), ()))
    return MixedBatch(images.roll(places, 0), targets.roll(places, 0))


def by_numpy(images, targets, generator):
    places = np.random.randint(1, len(images))
    return MixedBatch(images.roll(places, 0), targets.roll(places, 0))


def by_python(images, targets, generator):
    places = random.randint(1, len(images) - 1)
    return MixedBatch(images.roll(places, 0), targets.roll(places, 0))


def turned(images, targets, generator):
    return MixedBatch(*(torch.rot90(each, 1, (-2, -1)) for each in (images, targets)))


def of_three(images, targets, generator):
    return MixedBatch(images[[1, 2, 0]], targets[[1, 2, 0]])


def in_place(images, targets, generator):
    images[0] = images[1]
    targets[0] = targets[1]
    return MixedBatch(images, targets)


def nothing(images, targets, generator):
    return MixedBatch(images, targets)


def entry_of(mix):
    def build(task):
        """A batch augmentation of the tests."""
        return mix

    return Entry("batch_augmentation", "broken", build)


BROKEN = [
    ("none", "it_can_be_built", "for a binary task it gives str, which is not a function of a batch"),
    (a_pair, "it_keeps_size_and_type", "gave tuple where a segreg.MixedBatch was expected"),
    (
        a_half,
        "it_keeps_size_and_type",
        (
            "turns images [3, 3, 12, 16] of torch.uint8 into [3, 3, 12, 8] of torch.uint8; they must keep their size "
            "and type"
        ),
    ),
    (
        floats,
        "it_keeps_size_and_type",
        (
            "turns images [3, 3, 12, 16] of torch.uint8 into [3, 3, 12, 16] of torch.float32; they must keep their "
            "size and type"
        ),
    ),
    (images_alone, "pixels_keep_their_truth", "64% of the pixels show something else than their truth says"),
    (the_ignored_counted, "pixels_keep_their_truth", "21% of the pixels show something else than their truth says"),
    (half_and_half, "pixels_keep_their_truth", "64% of the pixels show something else than their truth says"),
    (
        by_torch,
        "the_generator_decides",
        "it draws from torch's own generator; draw from the one that it is given",
    ),
    (
        by_numpy,
        "the_generator_decides",
        "it draws from NumPy's own generator; draw from the one that it is given",
    ),
    (
        by_python,
        "the_generator_decides",
        "one generator gives something else the second time; draw from the one that it is given",
    ),
    (
        turned,
        "it_keeps_size_and_type",
        (
            "turns images [3, 3, 12, 16] of torch.uint8 into [3, 3, 16, 12] of torch.uint8; they must keep their size "
            "and type"
        ),
    ),
    (
        of_three,
        "it_keeps_size_and_type",
        "on a binary task, it raises IndexError: index 2 is out of bounds for dimension 0 with size 2",
    ),
    (in_place, "it_leaves_its_inputs_alone", "it changes the images in place"),
    (nothing, "it_mixes", "it leaves every batch as it is"),
]


@pytest.mark.parametrize(("mix", "check", "words"), BROKEN, ids=[getattr(one, "__name__", one) for one, _, _ in BROKEN])
def test_a_broken_batch_augmentation_is_caught(said, mix, check, words):
    assert said(entry_of(mix), check) == words


def test_nothing_is_said_of_a_batch_augmentation_that_keeps_to_the_contract(outcome):
    for check in {check for _, check, _ in BROKEN}:
        assert outcome(entry_of(swapped), check).status == "passed", check

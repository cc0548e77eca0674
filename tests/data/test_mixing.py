"""Mixing a batch: what decides the drawing, the order of the parts, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from segreg.data.mixing import Mixing
from segreg.errors import SegregError
from segreg.registry.protocols import MixedBatch

IMAGES = torch.arange(3 * 3 * 8 * 8).reshape(3, 3, 8, 8).to(torch.uint8)
TARGETS = (torch.arange(3 * 8 * 8).reshape(3, 8, 8) % 3 == 0).to(torch.uint8)
IDS = ("a", "b", "c")


def faded(images, targets, generator):
    """Return the next image's and the own one's mean by a drawn weight."""
    share = float(generator.random())
    mean = share * images.float() + (1 - share) * images.roll(1, 0).float()
    return MixedBatch(mean.round().to(images.dtype), targets, targets.roll(1, 0), share)


def swapped(images, targets, generator):
    places = int(generator.integers(1, len(images)))
    return MixedBatch(images.roll(places, 0), targets.roll(places, 0))


def test_seed_epoch_and_ids_decide_and_nothing_else():
    def share(seed=0, epoch=1, ids=IDS):
        torch.manual_seed(np.random.randint(1000))
        return Mixing([("faded", faded)], seed)(IMAGES, TARGETS, epoch, ids).share

    assert share() == share()
    assert len({share(), share(seed=1), share(epoch=2), share(ids=("a", "c", "b"))}) == 4


def test_parts_follow_each_other_until_there_are_two_truths():
    once = Mixing([("swapped", swapped)], 5)(IMAGES, TARGETS, 1, IDS)
    both = Mixing([("swapped", swapped), ("faded", faded), ("swapped", swapped)], 5)(IMAGES, TARGETS, 1, IDS)
    assert torch.equal(both.targets, once.targets)
    assert torch.equal(both.others, once.targets.roll(1, 0))


def test_one_image_and_no_part_leave_the_batch_as_it_is():
    assert Mixing([("faded", faded)], 0)(IMAGES[:1], TARGETS[:1], 1, IDS[:1]).images.tolist() == IMAGES[:1].tolist()
    assert Mixing([], 0)(IMAGES, TARGETS, 1, IDS).images is IMAGES


def test_what_is_not_a_mixed_batch_is_refused_by_name():
    with pytest.raises(SegregError, match=r'"pair" gave tuple where .*\n  it is defined at \S+test_mixing\.py:\d+'):
        Mixing([("pair", lambda images, targets, generator: (images, targets))], 0)(IMAGES, TARGETS, 1, IDS)

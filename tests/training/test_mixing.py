"""Mixed batches in training: what decides the drawing, and how two truths share the loss."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from segreg.errors import SegregError
from segreg.registry.protocols import MixedBatch
from segreg.training import history
from segreg.training.loss import Objective
from segreg.training.mixing import Mixing
from tiny_training import SETTINGS, Scale, TinyNet, bce, dice, replace, train

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


def test_two_truths_share_the_loss():
    torch.manual_seed(0)
    model = TinyNet(dropout=0.0, auxiliary=True)
    model.further = {"auxiliary": 0.25}
    objective = Objective(model, Scale(), [("bce", 1.0, bce), ("dice", 0.5, dice)])
    others = TARGETS.flip(0)
    terms = objective(IMAGES, TARGETS, others, torch.tensor(0.3))
    main, auxiliary = model.supervised(IMAGES.float() / 255 - 0.5, TARGETS)[0].values()
    for name, loss in (("bce", bce), ("dice", dice)):
        torch.testing.assert_close(terms[name], 0.3 * loss(main, TARGETS) + 0.7 * loss(main, others))
    losses = [
        0.3 * loss(logits, TARGETS) + 0.7 * loss(logits, others) for logits in (main, auxiliary) for loss in (bce, dice)
    ]
    torch.testing.assert_close(terms["loss"], losses[0] + 0.5 * losses[1] + 0.25 * (losses[2] + 0.5 * losses[3]))


def test_two_truths_share_a_networks_own_losses():
    model, others = TinyNet(), TARGETS.flip(0) * 0
    model.own_losses = {"fit": 2.0}
    model.supervised = lambda image, targets: ({}, {"fit": model.head.weight.sum() * (1 + targets.float().mean())})
    terms = Objective(model, Scale(), [("bce", 1.0, bce)])(IMAGES, TARGETS, others, torch.tensor(0.3))
    fit = model.head.weight.sum() * (0.3 * (1 + TARGETS.float().mean()) + 0.7)
    torch.testing.assert_close(terms, {"loss": 2 * fit, "fit": fit})


def test_training_mixes_batches_and_validation_does_not(tmp_path):
    seen = []

    def noted(logits, target):
        seen.append((logits.requires_grad, bool(target.any())))
        return bce(logits, target)

    def emptied(images, targets, generator):
        return MixedBatch(images, torch.zeros_like(targets))

    own = Objective(TinyNet(), Scale(), [("noted", 1.0, noted)])
    train(tmp_path, settings=replace(SETTINGS, epochs=1), objective=own, batch_augmentations=[("emptied", emptied)])
    assert seen == [(True, False)] * 6 + [(False, True)] * 2


def test_micro_batches_of_a_mixed_batch_have_both_truths_and_their_share(tmp_path):
    losses = []
    for count in (1, 2):

        def in_parts(training, *_, count=count):
            training.micro_batches = count

        torch.manual_seed(0)
        own = Objective(TinyNet(norm=False, dropout=0.0), Scale(), [("bce", 1.0, bce)])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("segreg.training.trainer.choose_micro_batches", in_parts)
            train(
                tmp_path / str(count), settings=replace(SETTINGS, epochs=1), objective=own,
                batch_augmentations=[("faded", faded)],
            )  # fmt: skip
        losses.append(history.read(tmp_path / str(count))[0])
    assert [row["micro_batches"] for row in losses] == [1, 2]
    assert losses[0]["train.loss"] == pytest.approx(losses[1]["train.loss"], rel=1e-5)

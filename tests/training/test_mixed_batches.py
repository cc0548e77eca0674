"""Mixed batches in training: how two truths share the loss, in micro-batches too, and that validation mixes nothing."""

from __future__ import annotations

import pytest
import torch

from segreg.registry.protocols import MixedBatch
from segreg.training import history
from segreg.training.loss import Objective
from tiny_training import SETTINGS, Scale, TinyNet, bce, dice, replace, train

IMAGES = torch.arange(3 * 3 * 8 * 8).reshape(3, 3, 8, 8).to(torch.uint8)
TARGETS = (torch.arange(3 * 8 * 8).reshape(3, 8, 8) % 3 == 0).to(torch.uint8)


def faded(images, targets, generator):
    """Return the next image's and the own one's mean by a drawn weight."""
    share = float(generator.random())
    mean = share * images.float() + (1 - share) * images.roll(1, 0).float()
    return MixedBatch(mean.round().to(images.dtype), targets, targets.roll(1, 0), share)


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

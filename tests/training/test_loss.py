from __future__ import annotations

import re

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from segreg.config import sections
from segreg.errors import SegregError
from segreg.training.loss import Objective
from tiny_training import Scale, TinyNet, bce, dice

IMAGES = torch.randint(0, 256, (2, 3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
TARGETS = torch.randint(0, 2, (2, 8, 8), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


def network(*, auxiliary=True):
    torch.manual_seed(0)
    return TinyNet(dropout=0.0, norm=False, auxiliary=auxiliary)


def test_the_total_is_the_weighted_sum_of_the_terms():
    model = network()
    model.further = {"auxiliary": 0.25}
    objective = Objective(model, Scale(), [("bce", 1.0, bce), ("dice", 0.3, dice)])
    terms = objective(IMAGES, TARGETS)
    assert list(terms) == ["loss", "bce", "dice", "auxiliary.bce", "auxiliary.dice"]
    main, auxiliary = model.supervised(IMAGES.float() / 255 - 0.5, TARGETS)[0].values()
    torch.testing.assert_close(terms["bce"], F.binary_cross_entropy_with_logits(main[:, 0], TARGETS.float()))
    torch.testing.assert_close(terms["auxiliary.dice"], dice(auxiliary, TARGETS))
    by_hand = bce(main, TARGETS) + 0.3 * dice(main, TARGETS)
    by_hand = by_hand + 0.25 * (bce(auxiliary, TARGETS) + 0.3 * dice(auxiliary, TARGETS))
    torch.testing.assert_close(terms["loss"], by_hand)


class Ramp(nn.Module):
    """A loss that grows by one with each call in training, and knows its epoch."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))
        self.epoch = 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def forward(self, logits, target):
        if self.training:
            self.calls += 1
        return self.calls * bce(logits, target)


def test_a_loss_with_state_has_a_state_for_each_output():
    ramp = Ramp()
    objective = Objective(network(), Scale(), [("ramp", 1.0, ramp), ("bce", 1.0, bce)])
    for calls in (1, 2, 3):
        terms = objective(IMAGES, TARGETS)
        torch.testing.assert_close(terms["ramp"], calls * terms["bce"])
        torch.testing.assert_close(terms["auxiliary.ramp"], calls * terms["auxiliary.bce"])
    objective.eval()(IMAGES, TARGETS)
    assert ramp.calls == 3
    assert {"loss_modules.0.calls", "auxiliary_loss_modules.0.calls"} <= objective.state_dict().keys()


def test_a_loss_with_state_in_a_closure_is_built_once_for_each_output():
    def ramp():
        calls = 0

        def loss(logits, target):
            nonlocal calls
            calls += 1
            return calls * bce(logits, target)

        return [("ramp", 1.0, loss), ("bce", 1.0, bce)]

    objective = Objective(network(), Scale(), ramp(), [ramp()])
    for calls in (1, 2, 3):
        terms = objective(IMAGES, TARGETS)
        torch.testing.assert_close(terms["ramp"], calls * terms["bce"])
        torch.testing.assert_close(terms["auxiliary.ramp"], calls * terms["auxiliary.bce"])


def test_losses_that_want_to_know_get_the_epoch():
    ramp = Ramp()
    objective = Objective(network(), Scale(), [("ramp", 1.0, ramp), ("bce", 1.0, bce)])
    objective.set_epoch(7, 9)
    assert [loss.epoch for loss in (ramp, *objective.auxiliary_loss_modules)] == [7, 7]
    assert objective.model.epoch == (7, 9)


def test_a_weight_follows_its_line_from_epoch_to_epoch():
    losses = [("bce", 0.5, bce), ("dice", sections.Ramp(start=0.1, end=0.9, epochs=(2, 6)), dice)]
    model = network()
    model.further = {"auxiliary": 0.25}
    objective = Objective(model, Scale(), losses)
    for epoch, weight in ((None, 0.1), (1, 0.1), (2, 0.1), (3, 0.3), (5, 0.7), (6, 0.9), (9, 0.9), (4, 0.5)):
        if epoch is not None:
            objective.set_epoch(epoch, 9)
        terms = objective(IMAGES, TARGETS)
        main = 0.5 * terms["bce"] + weight * terms["dice"]
        auxiliary = 0.5 * terms["auxiliary.bce"] + weight * terms["auxiliary.dice"]
        torch.testing.assert_close(terms["loss"], main + 0.25 * auxiliary)
        assert objective.changing_weights(epoch or 1) == {"dice": pytest.approx(weight)}


def test_evaluation_scores_the_main_logits_alone():
    with_it = Objective(network(), Scale(), [("bce", 2.0, bce)]).eval()
    without = Objective(network(auxiliary=False), Scale(), [("bce", 2.0, bce)]).eval()
    without.model.load_state_dict(with_it.model.state_dict(), strict=False)
    terms = with_it(IMAGES, TARGETS)
    assert list(terms) == ["loss", "bce"]
    torch.testing.assert_close(terms, without(IMAGES, TARGETS))


def test_losses_get_float32_and_no_autocast_whatever_the_network_computes_in():
    seen = []

    def loss(logits, target):
        seen.append((logits.dtype, target.dtype, torch.is_autocast_enabled("cpu")))
        return bce(logits, target)

    objective = Objective(network(), Scale(), [("bce", 1.0, loss)])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = objective(IMAGES, TARGETS)
    assert set(seen) == {(torch.float32, torch.int64, False)}
    assert {term.dtype for term in terms.values()} == {torch.float32}
    assert all(term.shape == () for term in terms.values())


def test_repeated_names_are_numbered():
    losses = [("bce", 1.0, bce), ("bce", 1.0, bce), ("loss", 1.0, bce)]
    objective = Objective(network(auxiliary=False), Scale(), losses)
    terms = objective(IMAGES, TARGETS)
    assert list(terms) == ["loss", "bce", "bce#2", "loss#2"]
    torch.testing.assert_close(terms["loss"], 3 * terms["bce"])


def test_losses_that_are_modules_move_with_the_network():
    loss = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0]))
    objective = Objective(network(), Scale(), [("ce", 1.0, loss), ("bce", 1.0, bce)]).to("meta")
    assert loss.weight.device.type == "meta"
    assert next(objective.model.parameters()).device.type == "meta"


def test_a_loss_whose_parameters_nobody_would_train_is_refused():
    loss = nn.BCEWithLogitsLoss()
    loss.scale = nn.Parameter(torch.ones(()))
    with pytest.raises(SegregError, match='the loss "mine" has parameters, and nothing would train them: scale\n'):
        Objective(network(), Scale(), [("bce", 1.0, bce), ("mine", 1.0, loss)])
    Objective(network(), Scale(), [("mine", 1.0, loss.requires_grad_(False))])


def test_at_least_one_loss_is_required():
    with pytest.raises(SegregError, match="there is no loss to train with"):
        Objective(network(), Scale(), [])


@pytest.mark.parametrize(
    ("loss", "given"),
    [
        (lambda logits, target: logits.mean((1, 2, 3)), "[2]"),
        (lambda logits, target: logits[:1].mean((2, 3)), "[1, 1]"),
        (lambda logits, target: 0.5, "float"),
        (lambda logits, target: None, "NoneType"),
    ],
)
def test_a_loss_that_is_not_a_scalar_is_refused(loss, given):
    objective = Objective(network(), Scale(), [("mine", 1.0, loss)])
    with pytest.raises(SegregError) as caught:
        objective(IMAGES, TARGETS)
    first, hint = str(caught.value).split("\n")
    assert first == f'the loss "mine" returned {given} where a scalar tensor was expected'
    assert re.search(r"it is defined at \S+test_loss\.py:\d+$", hint)


class Detached(nn.Module):
    def forward(self, logits, target):
        return (logits.argmax(1) != target).float().mean()


@pytest.mark.parametrize(
    "loss",
    [
        Detached(), lambda logits, target: logits.detach().mean(), lambda logits, target: torch.zeros(()),
        lambda logits, target: torch.tensor(logits.mean().item()),
    ],
)  # fmt: skip
def test_a_loss_that_is_cut_off_from_the_logits_is_refused(loss):
    for losses in ([("mine", 1.0, loss)], [("bce", 1.0, bce), ("mine", 1.0, loss)]):
        objective = Objective(network(), Scale(), losses)
        with pytest.raises(
            SegregError, match='the loss "mine" returned a value without a gradient: it is cut off'
        ) as caught:
            objective(IMAGES, TARGETS)
        assert re.search(r"\n  compute it from the logits .*it is defined at \S+test_loss\.py:\d+$", str(caught.value))
    with torch.no_grad():
        objective.eval()(IMAGES, TARGETS)  # validation has no gradient anyway


def test_a_loss_that_finds_nothing_to_learn_from_is_not_refused():
    objective = Objective(network(), Scale(), [("mine", 1.0, lambda logits, target: torch.zeros(()))])
    terms = objective(IMAGES, torch.full_like(TARGETS, 255))
    terms["loss"].backward()
    assert terms["loss"] == 0
    assert all(p.grad is None or not p.grad.any() for p in objective.model.parameters())


def test_a_networks_own_losses_are_added_with_their_weights_and_replace_the_recipes():
    model = network()
    model.further, model.own_losses = {"auxiliary": 0.5}, {"fit": 2.0, "size": 0.25}
    whole = model.supervised
    own = {"fit": model.head.weight.sum(), "size": model.head.bias.sum()}
    model.supervised = lambda image, targets: ({"auxiliary": whole(image, targets)[0]["auxiliary"]}, own)
    objective = Objective(model, Scale(), [("bce", 1.0, bce), ("dice", 1.0, dice)])
    terms = objective(IMAGES, TARGETS)
    assert list(terms) == ["loss", "auxiliary.bce", "auxiliary.dice", "fit", "size"]
    expected = 0.5 * (terms["auxiliary.bce"] + terms["auxiliary.dice"]) + 2 * own["fit"] + 0.25 * own["size"]
    torch.testing.assert_close(terms["loss"], expected)
    assert list(objective.eval()(IMAGES, TARGETS)) == ["loss", "bce", "dice"]
    own["size"] = torch.zeros(2)
    with pytest.raises(SegregError, match=r'the loss "size" returned \[2\] where a scalar tensor was expected'):
        objective.train()(IMAGES, TARGETS)

"""Losses and metrics that are broken on purpose, each caught by one check with these words."""

# ruff: noqa: E501 - messages stand here as they are printed

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchmetrics import Metric

from segreg.errors import SegregError
from segreg.registry.entry import Entry


def brier(task, logits, target):
    """Nothing is wrong with it."""
    truth, counts = task.one_hot(target)
    return ((task.probabilities(logits) - truth).square() * counts).sum() / counts.sum().clamp(min=1)


def loss_entry(function, *, modes=("binary", "multiclass", "multilabel"), error=SegregError):
    def build(task):
        """A loss of the tests."""
        if task.mode not in modes:
            raise error(f"it does not serve a {task.mode} task")
        return lambda logits, target: function(task, logits, target)

    return Entry("loss", "broken", build)


def of_pixels(task, logits, target):
    return (task.probabilities(logits) - task.one_hot(target)[0]).square()


def of_labels(task, logits, target):
    return (task.labels(logits) != target).float().mean()


def over_nothing(task, logits, target):
    truth, counts = task.one_hot(target)
    return ((task.probabilities(logits) - truth).square() * counts).sum() / counts.sum()


def with_logarithm(task, logits, target):
    truth, counts = task.one_hot(target)
    right = (task.probabilities(logits) * truth + (1 - task.probabilities(logits)) * (1 - truth)).log()
    return -(right * counts).sum() / counts.sum().clamp(min=1)


def exponential(task, logits, target):
    truth, counts = task.one_hot(target)
    return ((-(2 * truth - 1) * logits / 1e3).exp() * counts).sum() / counts.sum().clamp(min=1)


def ignoring_nothing(task, logits, target):
    return (task.probabilities(logits) - task.one_hot(target)[0]).square().mean()


def upside_down(task, logits, target):
    return 1 - brier(task, logits, target)


def first_class_twice(task, logits, target):
    truth, counts = task.one_hot(target)
    weight = torch.ones(task.channels)
    weight[0] = 2
    return ((task.probabilities(logits) - truth).square() * counts * weight.view(1, -1, 1, 1)).mean()


def filling_in(task, logits, target):
    target[target == 255] = 0
    return brier(task, logits, target)


def for_square_images(task, logits, target):
    return brier(task, logits.transpose(-1, -2), target.transpose(-1, -2)) + 0 * (logits @ logits).mean()


def for_several_images(task, logits, target):
    return brier(task, logits, target) / (len(logits) > 1)


def without_teeth(task, logits, target):
    return brier(task, logits, target).detach() + 0 * logits.sum()


LOSSES = [
    (of_pixels, "it_gives_a_scalar_with_a_gradient", "on a binary task it gives [4, 1, 12, 12] where a scalar tensor was expected"),
    (of_labels, "it_gives_a_scalar_with_a_gradient", "on a binary task it is cut off from the logits: it has no gradient"),
    (for_several_images, "any_batch_will_do", "on a binary task with 1 image of 12x12 it is inf"),
    (over_nothing, "it_is_finite_everywhere", "on a binary task with a target that is all ignored it is nan"),
    (with_logarithm, "it_is_finite_everywhere", "on a binary task with an empty target and logits of -10000 it is inf"),
    (exponential, "it_is_finite_on_half_precision", "on a binary task with logits born in bf16 it is nan"),
    (ignoring_nothing, "ignored_pixels_count_for_nothing", "on a binary task ignored pixels get a gradient"),
    (upside_down, "better_answers_cost_less", "on a binary task right answers cost 1 and half right answers 0.8575"),
    (filling_in, "it_leaves_its_inputs_alone", "on a binary task it changes the target in place"),
]  # fmt: skip


@pytest.mark.parametrize(("function", "check", "words"), LOSSES, ids=[function.__name__ for function, _, _ in LOSSES])
def test_a_broken_loss_is_caught(said, function, check, words):
    assert said(loss_entry(function), check) == words


@pytest.mark.parametrize(
    ("function", "check", "words"),
    [
        (for_square_images, "any_batch_will_do", "on a binary task with 2 images of 6x20, it raises RuntimeError: "),
        (first_class_twice, "classes_are_alike", "on a multiclass task classes in another order make it "),
        (
            without_teeth,
            "it_can_be_learned_from",
            "on a binary task 60 steps of Adam on eight easy images bring it from ",
        ),
    ],
)
def test_a_broken_loss_is_caught_with_numbers(said, function, check, words):
    assert said(loss_entry(function), check).startswith(words)


def test_what_is_no_scalar_is_reported_once(outcome):
    for check in (
        "it_is_finite_everywhere", "it_is_finite_on_half_precision", "ignored_pixels_count_for_nothing",
        "better_answers_cost_less", "classes_are_alike", "it_can_be_learned_from",
    ):  # fmt: skip
        found = outcome(loss_entry(of_pixels), check)
        reported = "it gives no scalar, see it_gives_a_scalar_with_a_gradient"
        assert (found.status, found.what) == ("not checked", reported), check


def test_modes_are_served_or_refused(said, outcome):
    assert said(loss_entry(brier, modes=["binary"], error=ValueError), "it_can_be_built") == (
        "its builder raises ValueError: it does not serve a multiclass task for a multiclass task; a mode that it does "
        "not serve is refused with a SegregError"
    )
    assert said(loss_entry(brier, modes=[], error=ValueError), "it_can_be_built") == (
        "its builder raises ValueError: it does not serve a binary task for a binary task"
    )
    assert outcome(loss_entry(brier, modes=["binary"]), "it_can_be_built").status == "passed"
    found = outcome(loss_entry(brier, modes=["binary"]), "classes_are_alike")
    assert (found.status, found.what) == ("not checked", "it serves binary tasks alone")
    found = outcome(loss_entry(brier, modes=[]), "it_can_be_built")
    assert (found.status, found.what) == (
        "not checked",
        'it serves no task of "binary", "multiclass" and "multilabel": it does not serve a multilabel task; give settings',
    )


def late(task, logits, target):
    raise SegregError("logits are not what they were")


def test_a_mode_is_refused_before_it_is_called(said):
    assert said(loss_entry(late), "it_can_be_built") == (
        "it refuses a binary task only when it is called: logits are not what they were"
    )


def test_nothing_is_said_of_a_loss_that_keeps_to_the_contract(outcome):
    for check in {check for _, check, _ in LOSSES} | {"classes_are_alike", "it_can_be_learned_from"}:
        assert outcome(loss_entry(brier), check).status == "passed", check


# losses with a state


class Ramp(nn.Module):
    """Brier's loss with a weight that grows with each training call."""

    def __init__(self, task, weight=lambda calls: 0.1 + min(1.0, calls / 100), always=False):
        super().__init__()
        self.task, self.weight, self.always = task, weight, always
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))

    def forward(self, logits, target):
        if self.training or self.always:
            self.calls += 1
        return self.weight(self.calls.item()) * brier(self.task, logits, target)


class Told(nn.Module):
    """Brier's loss with a weight that grows with each epoch, from nothing."""

    def __init__(self, task):
        super().__init__()
        self.task, self.weight = task, 0.0

    def set_epoch(self, epoch):
        self.weight = min(1.0, (epoch - 1) / 10)

    def forward(self, logits, target):
        return self.weight * brier(self.task, logits, target)


def counting(task):
    calls = []

    def loss(logits, target):
        calls.append(1)
        return min(1.0, 0.1 + len(calls) / 50) * brier(task, logits, target)

    return loss


def state_entry(build_loss):
    def build(task):
        """A loss of the tests."""
        return build_loss(task)

    return Entry("loss", "stateful", build)


class InNoBuffer(nn.Module):
    """Brier's loss with a weight that grows with each training call, which a saved state does not have."""

    def __init__(self, task):
        super().__init__()
        self.task, self.calls = task, 0

    def forward(self, logits, target):
        self.calls += self.training
        return (1 + self.calls) * brier(self.task, logits, target)


class KeepsTheGraph(nn.Module):
    """A mean over batches that is never detached."""

    def __init__(self, task):
        super().__init__()
        self.task = task
        self.register_buffer("mean", torch.zeros(()))

    def forward(self, logits, target):
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * self.task.probabilities(logits).mean()
        return brier(self.task, logits, target) + self.mean


def scaled_by_a_parameter(task):
    scale = nn.Parameter(torch.ones(()))
    return lambda logits, target: scale * brier(task, logits, target)


class Trainable(Ramp):
    def __init__(self, task):
        super().__init__(task)
        self.sharpness = nn.Parameter(torch.ones(()))


EVERY_CHECK = {check for _, check, _ in LOSSES} | {
    "classes_are_alike", "it_can_be_learned_from", "it_leaves_its_inputs_alone", "evaluation_leaves_its_state_alone",
}  # fmt: skip


@pytest.mark.parametrize(
    "build_loss", [Ramp, Told, counting, lambda task: Ramp(task, lambda calls: min(1.0, max(0, calls - 2) / 100))]
)
def test_a_right_loss_with_a_state_passes(build_loss, outcome, monkeypatch):
    monkeypatch.setattr("segreg.testing.loss.PAST", 40)  # so many calls precede each one of a loss that can't be copied
    for check in EVERY_CHECK:
        found = outcome(state_entry(build_loss), check)
        unaware = check == "evaluation_leaves_its_state_alone" and build_loss is counting
        assert found.status == ("not checked" if unaware else "passed"), str(found)
    if build_loss is not counting:
        for check in ("it_has_nothing_to_train", "it_goes_on_where_it_stopped"):
            assert outcome(state_entry(build_loss), check).status == "passed"


@pytest.mark.parametrize(
    ("build_loss", "check", "words"),
    [
        (
            lambda task: Ramp(task, lambda calls: 1 - calls / 100), "better_answers_cost_less",
            "on a binary task after 200 calls right answers cost",
        ),
        (
            lambda task: Ramp(task, lambda calls: float("nan") if calls < 2 else 1.0), "it_is_finite_everywhere",
            "on a binary task with an empty target it is nan",
        ),
        (
            lambda task: Ramp(task, lambda calls: 2.0**calls * 1e10), "it_is_finite_everywhere",
            "on a binary task after 200 calls with an empty target it is inf",
        ),
        (
            lambda task: Ramp(task, always=True), "evaluation_leaves_its_state_alone",
            "on a binary task in evaluation mode it is first",
        ),
        (InNoBuffer, "it_goes_on_where_it_stopped", "on a binary task after 200 calls it is "),
        (counting, "it_goes_on_where_it_stopped", "on a binary task after 200 calls it is "),
        (KeepsTheGraph, "it_goes_on_where_it_stopped", "in three training steps on a binary task, each with backward(), it"),
        (
            scaled_by_a_parameter, "it_has_nothing_to_train",
            "it depends on tensors with a gradient, and nothing would train them: of shape []",
        ),
        (
            Trainable, "it_has_nothing_to_train",
            'it has parameters, and nothing would train them: "sharpness"',
        ),
    ],
)  # fmt: skip
def test_a_wrong_loss_with_a_state_is_caught(build_loss, check, words, said):
    assert said(state_entry(build_loss), check).startswith(words)


# metrics


class Fine(Metric):
    """The share of pixels that are right, pooled."""

    full_state_update = False
    higher_is_better = True
    definitions = {"right": "The share of pixels that are right."}

    def __init__(self, task, threshold):
        super().__init__()
        self.task, self.threshold = task, threshold
        self.add_state("right", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("all", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def counted(self, logits, target):
        found = self.task.labels(logits, threshold=self.threshold)
        return ((found == target) & (target != 255)).flatten(1).sum(1), (target != 255).flatten(1).sum(1)

    def update(self, logits, target):
        right, counted = self.counted(logits, target)
        self.right += right.sum()
        self.all += counted.sum()

    def compute(self):
        return {"right": self.right / self.all}

    def per_image(self, logits, target):
        right, counted = self.counted(logits, target)
        return {"right": right / counted}


class EachClass(Fine):
    def compute(self):
        return {"right": torch.stack([self.right, self.all])}


class MeanOfBatches(Fine):
    def update(self, logits, target):
        right, counted = self.counted(logits, target)
        self.right += right.sum() / counted.sum()
        self.all += 1


class CountsIgnored(Fine):
    def counted(self, logits, target):
        found = self.task.labels(logits, threshold=self.threshold)
        return (found.clamp(max=1) == target.clamp(max=1)).flatten(1).sum(1), (target >= 0).flatten(1).sum(1)


class Remembers(Fine):
    def __init__(self, task, threshold):
        super().__init__(task, threshold)
        self.seen = 0

    def update(self, logits, target):
        super().update(logits, target)
        self.seen += float(logits.abs().sum())

    def compute(self):
        return {"right": torch.tensor(self.seen)}


class Untold(Fine):
    definitions = {"wrong": "The share of pixels that are wrong."}


class WrongWay(Fine):
    higher_is_better = False


class OfAllImages(Fine):
    def per_image(self, logits, target):
        right, counted = self.counted(logits, target)
        return {"right": (right / counted) / (right / counted).max()}


class CountsTwice(Fine):
    def per_image(self, logits, target):
        self.update(*(x.flip(-1) for x in (logits[:1], logits[:1, 0].long())))
        return super().per_image(logits, target)


class FillsIn(Fine):
    def update(self, logits, target):
        logits.clamp_(-1, 1)
        super().update(logits, target)


class OtherCounts(Fine):
    def scores_of_counts(self, counts):
        return {"right": counts.sum((1, 2)).double()}


class UndefinedCounts(Fine):
    def scores_of_counts(self, counts):
        return {"right": counts.sum((1, 2)).double() * float("nan")}


class OfLabels(Fine):
    of_labels = True


class OfProbabilities(OfLabels):
    def counted(self, logits, target):
        right, counted = super().counted(logits, target)
        return right * self.task.probabilities(logits).flatten(1).mean(1), counted


class OfOneThreshold(OfLabels):
    def __init__(self, task, threshold):
        super().__init__(task, 0.5)


class Sums(Fine):
    factor = 1

    def sums(self, logits, target):
        return torch.stack(self.counted(logits, target), dim=1)

    def scores_of_sums(self, sums):
        return {"right": self.factor * sums[..., 0] / sums[..., 1]}


class HalfOfSums(Sums):
    factor = 0.5


class NeedsObjects(Fine):
    def update(self, logits, target):
        assert (target == 1).any(), "no object"
        super().update(logits, target)


class OfThisProcess(Fine):
    """It counts beside torchmetrics' states."""

    def __init__(self, task, threshold):
        super().__init__(task, threshold)
        self.reset()

    def reset(self):
        super().reset()
        self.images = 0

    def update(self, logits, target):
        self.images += len(target)

    def compute(self):
        return {"right": torch.tensor(self.images)}


class NothingToDraw(Fine):
    def tables(self):
        return {"a": 1}


def metric_entry(metric):
    def build(task, threshold):
        """A metric of the tests."""
        if task.mode != "binary":
            raise SegregError("it serves binary tasks alone")
        return metric(task, threshold)

    return Entry("metric", "broken", build)


METRICS = [
    (lambda task, threshold: F.mse_loss, "it_can_be_built", "for a binary task it gives function, which is not a torchmetrics.Metric"),
    (EachClass, "it_gives_named_numbers", "on a binary task right is [2] where a scalar tensor was expected"),
    (MeanOfBatches, "batches_do_not_matter", "on a binary task with images one by one right is "),
    (CountsIgnored, "ignored_pixels_count_for_nothing", "on a binary task with other logits of ignored pixels right is "),
    (Remembers, "reset_forgets", "on a binary task after counting and a reset right is "),
    (Untold, "every_value_is_defined", 'on a binary task no definition says what "right" means'),
    (WrongWay, "its_direction_is_true", "on a binary task higher_is_better is False, but right is 1 for right and 0 for wrong answers"),
    (OfAllImages, "per_image_agrees", "on a binary task per_image gives an image another right beside others"),
    (CountsTwice, "per_image_agrees", "on a binary task after a call of per_image right is "),
    (FillsIn, "it_leaves_its_inputs_alone", "on a binary task it changes the logits in place"),
    (UndefinedCounts, "scores_of_counts_agree", "on a binary task scores_of_counts gives right as [nan]"),
    (OtherCounts, "scores_of_counts_agree", "on a binary task scores_of_counts gives right as ["),
    (HalfOfSums, "scores_of_sums_agree", "on a binary task scores_of_sums gives right as ["),
    (OfProbabilities, "labels_alone_count", "on a binary task with a threshold of 0.5 and surer logits of the same labels right is "),
    (OfOneThreshold, "labels_alone_count", "on a binary task with a threshold of 0.2 and surer logits of the same labels right is "),
    (NeedsObjects, "any_image_will_do", "on a binary task given empty images, it raises AssertionError: no object"),
    (OfThisProcess, "processes_agree", "on a binary task merged from two processes right is 2, not 6"),
    (NothingToDraw, "tables_can_be_drawn", "on a binary task tables gives int as a; Curve, Matrix and Reliability are drawn"),
]  # fmt: skip


@pytest.mark.parametrize(("metric", "check", "words"), METRICS, ids=[metric.__name__ for metric, _, _ in METRICS])
def test_a_broken_metric_is_caught(said, metric, check, words):
    assert said(metric_entry(metric), check).startswith(words)


def test_nothing_is_said_of_a_metric_that_keeps_to_the_contract(outcome):
    for check in {check for _, check, _ in METRICS}:
        found = outcome(metric_entry(Fine), check)
        offers = ("it offers no ", "it has neither of_labels nor scores_of_counts")
        assert found.status == "passed" or found.what.startswith(offers), check
    assert outcome(metric_entry(Sums), "scores_of_sums_agree").status == "passed"
    assert outcome(metric_entry(OfLabels), "labels_alone_count").status == "passed"

"""Losses of hard pixels and rare classes, and smoothed truths, against sums over single pixels in plain Python."""

from __future__ import annotations

import math

import pytest
import torch

from segreg.task import IGNORE_INDEX, Task
from segreg_plugins.losses import builders, combined, rare

BINARY = Task(("lesion",), "binary")
MULTICLASS = Task(("background", "road", "car", "tree"), "multiclass")
MULTILABEL = Task(("cell", "nucleus", "wall"), "multilabel")
by_mode = pytest.mark.parametrize("task", [BINARY, MULTICLASS, MULTILABEL], ids=lambda task: task.mode)


def draw(task, *, images=3, size=(9, 7)):
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(images, task.channels, *size, generator=generator)
    shape = (images, task.channels, *size) if task.mode == "multilabel" else (images, *size)
    target = torch.randint(0, task.channels if task.mode == "multiclass" else 2, shape, generator=generator)
    target[torch.rand(shape, generator=generator) < 0.2] = IGNORE_INDEX
    return logits, target


def true_probabilities(task, logits, target):
    """Return the probability of what is true of each pixel (and label) that counts."""
    if task.mode == "multiclass":
        pairs = zip(logits.movedim(1, -1).reshape(-1, task.channels).tolist(), target.flatten().tolist(), strict=True)
        return [math.exp(v[t]) / sum(math.exp(x) for x in v) for v, t in pairs if t != IGNORE_INDEX]
    pairs = zip(logits.flatten().tolist(), target.flatten().tolist(), strict=True)
    return [1 / (1 + math.exp(-z if t else z)) for z, t in pairs if t != IGNORE_INDEX]


@by_mode
@pytest.mark.parametrize(("threshold", "min_kept"), [(0.7, 0.1), (0.1, 0.6), (1.0, 0.0), (1e-6, 0.0)])
def test_hard_pixels_are_those_below_the_threshold_and_no_fewer_than_their_share(task, threshold, min_kept):
    logits, target = draw(task)
    ranked = sorted(true_probabilities(task, logits, target))
    least = max(1, math.ceil(min_kept * len(ranked)))
    kept = [p for place, p in enumerate(ranked) if p < threshold or place < least]
    assert (len(kept) > least) == (threshold >= 0.7)  # each rule decides in some of the cases
    value = rare.ohem(task, threshold=threshold, min_kept=min_kept)(logits, target)
    assert value.item() == pytest.approx(-sum(map(math.log, kept)) / len(kept), rel=1e-5)


def test_pixels_that_are_not_kept_have_no_gradient():
    logits, target = draw(BINARY)
    logits.requires_grad_()
    rare.ohem(BINARY, threshold=0.4, min_kept=0.0)(logits, target).backward()
    easy = torch.where(target == 1, logits[:, 0].sigmoid(), 1 - logits[:, 0].sigmoid()) >= 0.4
    assert (logits.grad[:, 0] == 0)[easy].all()
    assert (logits.grad[:, 0] != 0)[~easy & (target != IGNORE_INDEX)].all()


def test_class_balanced_weights_are_the_papers():
    logits, target = draw(MULTICLASS)
    counts, beta = (1000, 200, 30, 1), 0.99
    # The effective number as the sum 1 + beta + beta^2 + ... that the paper proves it to be.
    effective = [sum(beta**power for power in range(count)) for count in counts]
    weights = tuple(4 / number / sum(1 / other for other in effective) for number in effective)
    value = rare.class_balanced_focal(MULTICLASS, class_counts=counts, beta=beta, gamma=1.5)(logits, target)
    torch.testing.assert_close(value, builders.focal(MULTICLASS, gamma=1.5, class_weights=weights)(logits, target))


@pytest.mark.parametrize("task", [BINARY, MULTILABEL], ids=lambda task: task.mode)
def test_smoothed_truths_of_sigmoids_by_their_formula(task):
    logits, target = draw(task)
    total, counted = 0.0, 0
    for z, t in zip(logits.flatten().tolist(), target.flatten().tolist(), strict=True):
        if t != IGNORE_INDEX:
            p, soft = 1 / (1 + math.exp(-z)), 0.9 if t else 0.1
            total -= 3 * soft * math.log(p) + (1 - soft) * math.log(1 - p)
            counted += 1
    value = builders.bce(task, positive_weight=3.0, label_smoothing=0.2)(logits, target)
    assert value.item() == pytest.approx(total / counted, rel=1e-5)
    both = combined.dice_bce(task, positive_weight=3.0, label_smoothing=0.2)(logits, target)
    torch.testing.assert_close(both, value + builders.dice(task)(logits, target))


def test_smoothed_truths_of_a_softmax_by_their_formula():
    logits, target = draw(MULTICLASS)
    total, counted = 0.0, 0
    for values, t in zip(logits.movedim(1, -1).reshape(-1, 4).tolist(), target.flatten().tolist(), strict=True):
        if t != IGNORE_INDEX:
            log_sum = math.log(sum(map(math.exp, values)))
            total -= sum((0.85 if k == t else 0.05) * (v - log_sum) for k, v in enumerate(values))
            counted += 1
    value = builders.cross_entropy(MULTICLASS, label_smoothing=0.2)(logits, target)
    assert value.item() == pytest.approx(total / counted, rel=1e-5)
    both = combined.dice_ce(MULTICLASS, label_smoothing=0.2)(logits, target)
    torch.testing.assert_close(both, value + builders.dice(MULTICLASS)(logits, target))

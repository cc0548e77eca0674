"""What other libraries print: against these libraries themselves, on drawn and on degenerate masks."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import sklearn.metrics
import torch
import torchmetrics.classification as tm

from segreg.errors import SegregError
from segreg.evaluation.conventions import LIBRARIES, scores_of_library
from segreg.evaluation.counts import image_counts
from segreg.task import Task

BINARY = Task(("lesion",), "binary")
SEVERAL = Task(("ground", "car", "tree", "house"), "multiclass")
LAYERS = Task(("nucleus", "cell", "debris"), "multilabel")
SIZE = (9, 7)


def drawn(task, seed, *, images=5, ignored=0.2):
    """Return logits and a target in which some classes stand in some images only."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(images, task.channels, *SIZE, generator=generator)
    shape = (images, task.channels, *SIZE) if task.mode == "multilabel" else (images, *SIZE)
    high = task.channels if task.mode == "multiclass" else 2
    target = torch.randint(0, high, shape, generator=generator)
    if task.mode == "multiclass":  # the last class stands in the last images only
        logits[: images // 2, -1] = -9.0
        target[: images // 2] %= task.channels - 1
    target[torch.rand(target.shape, generator=generator) < ignored] = 255
    return logits, target


def constant(task, predicted, true, images=3):
    """Return logits and a target of one label everywhere; of a multilabel task in the first layer alone."""
    logits = torch.full((images, task.channels, *SIZE), -3.0)
    target = torch.zeros((images, task.channels, *SIZE) if task.mode == "multilabel" else (images, *SIZE)).long()
    if task.mode == "multiclass":
        logits[:, predicted] = 3.0
        target[:] = true
    else:
        logits[:, 0] = 3.0 if predicted else -3.0
        target[:, 0] = true if task.mode == "multilabel" else 0
        if task.mode == "binary":
            target[:] = true
    return logits, target


def without_class(task, seed):
    """Return drawn ones in which one class is neither there nor predicted, in any image."""
    logits, target = drawn(task, seed)
    if task.mode == "multiclass":
        logits[:, 2] = -99.0
        target[target == 2] = 0
    else:
        logits[:, -1] = -99.0
        (target[:, -1] if task.mode == "multilabel" else target).clamp_(max=0)
    return logits, target


def cases():
    for task in (BINARY, SEVERAL, LAYERS):
        # scikit-learn has no pixels that are ignored in one layer only.
        share = 0.0 if task.mode == "multilabel" else 0.2
        for seed in range(4):
            yield pytest.param(task, *drawn(task, seed, ignored=share), id=f"{task.mode}-drawn-{seed}")
        yield pytest.param(task, *drawn(task, 9, images=1, ignored=0.0), id=f"{task.mode}-one-image")
        logits, target = without_class(task, 3)
        yield pytest.param(task, logits, target.where(target != 255, 0), id=f"{task.mode}-absent-class")
        for predicted, true in ((0, 0), (0, 1), (1, 0), (1, 1)):
            both = constant(task, predicted, true)
            yield pytest.param(task, *both, id=f"{task.mode}-all-{predicted}-for-{true}")


each_case = pytest.mark.parametrize(("task", "logits", "target"), list(cases()))


def reported(library, task, logits, target):
    counts = image_counts(task, logits, target, 0.5).numpy()
    return scores_of_library(library, task, counts)


def same(found, wanted):
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert found[name] == pytest.approx(float(value), abs=1e-6, nan_ok=True), name


@each_case
def test_counts_are_those_of_a_loop(task, logits, target):
    counts = image_counts(task, logits, target, 0.5).numpy()
    labels = task.labels(logits).numpy()
    for image in range(len(logits)):
        for k in range(task.channels):
            if task.mode == "multilabel":
                truth, said = target[image, k].numpy(), labels[image, k]
            else:
                truth, said = target[image].numpy(), labels[image]
            label = k if task.mode == "multiclass" else 1
            pairs = [(t == label, s == label) for t, s in zip(truth.flat, said.flat, strict=True) if t != 255]
            wanted = [pairs.count(pair) for pair in ((True, True), (False, True), (True, False), (False, False))]
            assert counts[image, k].tolist() == wanted


@each_case
def test_smp(task, logits, target):
    import segmentation_models_pytorch as smp

    if task.mode == "multiclass":
        stats = smp.metrics.get_stats(
            task.labels(logits), target, mode="multiclass", num_classes=task.channels, ignore_index=255
        )
    else:
        truth, given = (target if task.mode == "multilabel" else target[:, None]), logits.clone()
        # SMP ignores nothing here; a pixel that is neither true nor predicted changes none of the four scores.
        given[truth == 255] = -9.0
        truth = truth.where(truth != 255, 0)
        stats = smp.metrics.get_stats(given.sigmoid(), truth, mode=task.mode, threshold=0.5)
    wanted = {
        f"{name} {reduction}": getattr(smp.metrics, name)(*stats, reduction=reduction)
        for name in ("iou_score", "f1_score")
        for reduction in ("micro", "macro", "micro-imagewise", "macro-imagewise")
    }
    same(reported("smp", task, logits, target).values, wanted)


@each_case
def test_torchmetrics(task, logits, target):
    settings = {
        "binary": {"ignore_index": 255},
        "multiclass": {"num_classes": task.channels, "average": "macro", "ignore_index": 255},
        "multilabel": {"num_labels": task.channels, "average": "macro", "ignore_index": 255},
    }[task.mode]
    mode, average = task.mode.title(), "" if task.mode == "binary" else " macro"
    metrics = {
        f"{mode}{name}{average}": getattr(tm, f"{mode}{name}")(**settings) for name in ("JaccardIndex", "F1Score")
    }
    given = logits[:, 0] if task.mode == "binary" else logits
    for one, truth in zip(given, target, strict=True):  # streamed, image by image
        for metric in metrics.values():
            metric.update(one[None], truth[None])
    same(
        reported("torchmetrics", task, logits, target).values,
        {name: metric.compute() for name, metric in metrics.items()},
    )


@each_case
def test_sklearn(task, logits, target):
    labels = task.labels(logits)
    if task.mode == "multilabel":
        truth, said = (layers.movedim(1, -1).reshape(-1, task.channels).numpy() for layers in (target, labels))
    else:
        truth, said = target[target != 255].numpy(), labels[target != 255].numpy()
    average = "binary" if task.mode == "binary" else "macro"
    wanted = {
        f"{name} {average}": getattr(sklearn.metrics, name)(truth, said, average=average, zero_division=0)
        for name in ("jaccard_score", "f1_score")
    }
    same(reported("sklearn", task, logits, target).values, wanted)


@each_case
def test_mmseg(task, logits, target):
    """Its formulas, written down again: areas by histogram, then fractions, of which NaN are left out."""
    if task.mode == "multilabel":
        with pytest.raises(SegregError, match="mmsegmentation has no metric for classes that may overlap"):
            reported("mmseg", task, logits, target)
        return
    number = max(2, task.channels)
    areas = np.zeros((3, number))
    for said, truth in zip(task.labels(logits).numpy(), target.numpy(), strict=True):
        said, truth = said[truth != 255], truth[truth != 255]
        for row, labels in enumerate((said[said == truth], said, truth)):
            areas[row] += np.histogram(labels, bins=number, range=(0, number - 1))[0]
    both, predicted, true = areas
    with np.errstate(invalid="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wanted = {
            "aAcc": both.sum() / true.sum(),
            "mIoU": np.nanmean(both / (predicted + true - both)),
            "mAcc": np.nanmean(both / true),
            "mDice": np.nanmean(2 * both / (predicted + true)),
        }
    same(
        reported("mmseg", task, logits, target).values,
        {name: np.round(100 * value, 2) for name, value in wanted.items()},
    )


@pytest.mark.parametrize("task", [BINARY, SEVERAL, LAYERS], ids=lambda task: task.mode)
@pytest.mark.parametrize("library", LIBRARIES)
def test_every_library_says_what_it_does_differently(library, task):
    if (library, task.mode) != ("mmseg", "multilabel"):
        words = reported(library, task, *drawn(task, 0)).how
        assert words.endswith(".")
        assert len(words) > 60


@pytest.mark.parametrize("library", LIBRARIES)
def test_nothing_but_ignored_pixels(library):
    logits, target = drawn(SEVERAL, 0, ignored=1.1)
    values = reported(library, SEVERAL, logits, target).values
    if library == "torchmetrics":
        assert math.isnan(values["MulticlassJaccardIndex macro"])
    if library == "smp":
        assert values["iou_score macro"] == 1.0
        assert math.isnan(values["iou_score micro"])
    if library in ("mmseg", "sklearn"):
        assert all(math.isnan(value) for value in values.values())

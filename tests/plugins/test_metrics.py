"""The metrics' values against scikit-learn, and that they stream, share what they count and say what they mean."""

from __future__ import annotations

import pickle
import warnings

import numpy as np
import pytest
import sklearn.metrics
import torch
from torch._subclasses import FakeTensorMode
from torchmetrics import MetricCollection

from segreg.errors import SegregError
from segreg.evaluation.counts import count_pixels, image_counts
from segreg.task import IGNORE_INDEX, Task
from segreg_plugins.metrics import segreg_entries

ELSEWHERE = {"boundary_iou", "roc_auc", "pr_auc", "mse", "ece", "best_threshold"}  # test_metrics_*.py have these
BUILDERS = {entry.name: entry.build for entry in segreg_entries() if entry.name not in ELSEWHERE}
BINARY = Task(("lesion",), "binary")
MULTICLASS = Task(("background", "road", "car", "tree"), "multiclass")
MULTILABEL = Task(("cell", "nucleus", "wall"), "multilabel")
TASKS = [BINARY, MULTICLASS, MULTILABEL]
NAMES = {
    "dice": "f1_score",
    "f1": "f1_score",
    "iou": "jaccard_score",
    "precision": "precision_score",
    "recall": "recall_score",
}
FILLS = ["random", "empty truth", "empty prediction", "both empty", "absent classes", "all ignored", "perfect", "full"]
CASES = [(name, task) for task in TASKS for name in BUILDERS if (name, task.mode) != ("mean_accuracy", "multilabel")]
every_metric = pytest.mark.parametrize(("name", "task"), CASES, ids=[f"{name}-{task.mode}" for name, task in CASES])


def draw(task, fill="random", *, images=5, size=(8, 6), seed=0):
    """Return logits and a target; every image of the degenerate fills is degenerate."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(images, task.channels, *size, generator=generator)
    shape = (images, task.channels, *size) if task.mode == "multilabel" else (images, *size)
    target = torch.randint(0, task.channels if task.mode == "multiclass" else 2, shape, generator=generator)
    if fill in ("empty truth", "both empty"):
        target = target * 0
    if fill in ("empty prediction", "both empty"):
        logits = (
            logits.clone() - 100
            if task.mode != "multiclass"
            else logits + torch.tensor([100.0, 0, 0, 0]).view(1, 4, 1, 1)
        )
    if fill == "absent classes":
        if task.mode == "multiclass":
            target, logits = target.clamp(max=2), logits - torch.tensor([0, 0, 0, 100.0]).view(1, 4, 1, 1)
        else:
            target, logits = target.clone(), logits.clone()
            target[:, -1], logits[:, -1] = 0, -100.0
    if fill == "full":
        target = target * 0 + 1
    if fill == "perfect":
        truth = (
            torch.nn.functional.one_hot(target, 4).movedim(-1, 1)
            if task.mode == "multiclass"
            else target.view_as(logits)
        )
        logits = truth * 2.0 - 1
    ignored = torch.rand(shape, generator=generator) < (1.1 if fill == "all ignored" else 0.15)
    return logits, target.masked_fill(ignored, IGNORE_INDEX)


def pixels(task, logits, target):
    """Return truth and prediction of the pixels that count, as arrays; a list with one pair for each label."""
    if task.mode == "multiclass":
        predicted = logits.softmax(1).numpy().argmax(1)
        return [(target.numpy()[target != IGNORE_INDEX], predicted[target != IGNORE_INDEX])]
    target = target.unsqueeze(1) if task.mode == "binary" else target
    predicted = (logits.sigmoid() >= 0.5).int()
    pairs = [(target[:, k], predicted[:, k]) for k in range(task.channels)]
    return [(t[t != IGNORE_INDEX].numpy(), p[t != IGNORE_INDEX].numpy()) for t, p in pairs]


def reference(name, task, logits, target):
    """Return scikit-learn's value, NaN where no pixel counts, and each class's."""
    pairs = pixels(task, logits, target)
    if not sum(len(truth) for truth, _ in pairs):
        return np.nan, [np.nan] * task.channels
    if name == "accuracy":
        truths, predictions = (np.concatenate(side) for side in zip(*pairs, strict=True))
        return sklearn.metrics.accuracy_score(truths, predictions), []
    if name == "mean_accuracy":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # scikit-learn warns of predicted classes that are not there
            value = sklearn.metrics.balanced_accuracy_score(*pairs[0])
        each = [recall_of(pairs[0], k) for k in range(task.channels)]
        return value, each
    if name == "specificity":
        labelled = [(t == k, p == k) for t, p in pairs for k in range(task.channels)] if task is MULTICLASS else pairs
        each = [recall_of((t == 0, p == 0), 1) for t, p in labelled]
        return np.mean([v for v in each if not np.isnan(v)]) if not np.isnan(each).all() else np.nan, each
    score = getattr(sklearn.metrics, NAMES[name])
    if task.mode == "multiclass":
        # scikit-learn's default labels are those of truth and prediction: the others are left out.
        here = np.union1d(*pairs[0])
        by_class = dict(zip(here, score(*pairs[0], labels=here, average=None, zero_division=0), strict=True))
        return score(*pairs[0], average="macro", zero_division=0), [by_class.get(k, np.nan) for k in range(4)]
    each = [score(t, p, zero_division=0) if t.any() or p.any() else np.nan for t, p in pairs]
    there = [value for value in each if not np.isnan(value)]
    return np.mean(there) if there else 1.0, each


def recall_of(pair, k):
    truth, predicted = pair
    return np.mean(predicted[truth == k] == k) if (truth == k).any() else np.nan


def streamed(metric, logits, target, sizes):
    metric.reset()
    for part_logits, part_target in zip(logits.split(sizes), target.split(sizes), strict=True):
        metric.update(part_logits, part_target)
    return metric.compute()


def equal(value, expected):
    np.testing.assert_allclose(value.item(), expected, rtol=0, atol=1e-12)


@every_metric
@pytest.mark.parametrize("fill", FILLS)
def test_values_are_scikit_learns(name, task, fill):
    logits, target = draw(task, fill, images=3)
    metric = BUILDERS[name](task, 0.5)
    found = streamed(metric, logits, target, 2)
    pooled, each = reference(name, task, logits, target)
    equal(found[f"{name}.pooled"], pooled)
    by_image = np.array([reference(name, task, logits[i : i + 1], target[i : i + 1])[0] for i in range(3)])
    there = by_image[~np.isnan(by_image)]
    equal(found[f"{name}.per_image_mean"], there.mean() if len(there) else np.nan)
    np.testing.assert_allclose(
        metric.scores_of_counts(image_counts(task, logits, target, 0.5))[f"{name}.pooled"].numpy(),
        by_image,
        rtol=0,
        atol=1e-12,
    )
    classes = [] if task is BINARY or name == "accuracy" else list(zip(task.classes, each, strict=True))
    for label, value in classes:
        equal(found[f"{name}.class.{label}"], value)
    assert set(found) == {f"{name}.pooled", f"{name}.per_image_mean"} | {
        f"{name}.class.{label}" for label, _ in classes
    }
    assert all(value.dtype == torch.float64 and value.shape == () for value in found.values())


@every_metric
@pytest.mark.parametrize("fill", ["random", "absent classes"])
def test_batches_do_not_matter(name, task, fill):
    logits, target = draw(task, fill, images=7)
    metric = BUILDERS[name](task, 0.5)
    whole = streamed(metric, logits, target, 7)
    for sizes in (1, 2, [3, 4], [1, 5, 1]):
        for key, value in streamed(metric, logits, target, sizes).items():
            equal(value, whole[key].item())
    # Images of one set may differ in size.
    metric.reset()
    metric.update(logits[:3], target[:3])
    metric.update(logits[3:].transpose(-1, -2), target[3:].transpose(-1, -2))
    equal(metric.compute()[f"{name}.pooled"], whole[f"{name}.pooled"].item())


@every_metric
def test_ignored_pixels_and_images_do_not_matter(name, task):
    logits, target = draw(task)
    metric = BUILDERS[name](task, 0.5)
    whole = streamed(metric, logits, target, 5)
    ignored = target == IGNORE_INDEX
    ignored = (ignored if task.mode == "multilabel" else ignored.unsqueeze(1)).expand_as(logits)
    changed = streamed(metric, logits.where(~ignored, 50 * torch.randn(logits.shape)), target, 5)
    padded = streamed(metric, torch.cat([logits, logits]), torch.cat([target, torch.full_like(target, 255)]), 5)
    for other in (changed, padded):
        for key, value in other.items():
            equal(value, whole[key].item())


@every_metric
def test_every_value_is_defined_formatted(name, task):
    metric = BUILDERS[name](task, 0.4)
    found = streamed(metric, *draw(task), 5)
    assert list(metric.definitions) == list(found)
    for key, sentence in metric.definitions.items():
        assert sentence.endswith(".")
        assert "\n" not in sentence
        assert "ignored pixels left out" in sentence
        assert ("0.4" in sentence) == (task.mode != "multiclass")
        assert ("all images together" in sentence) == (not key.endswith("per_image_mean"))
    assert metric.higher_is_better


def test_definitions_read_well():
    assert BUILDERS["dice"](BINARY, 0.5).definitions == {
        "dice.pooled": (
            'Dice = F1 = 2 TP / (2 TP + FP + FN) of "lesion", counted over the pixels of all images together; '
            "nothing there and nothing predicted counts as 1; foreground from probability 0.5; ignored pixels left out."
        ),
        "dice.per_image_mean": (
            'Dice = F1 = 2 TP / (2 TP + FP + FN) of "lesion", counted in each image; nothing there and nothing '
            "predicted counts as 1; foreground from probability 0.5; ignored pixels left out; then the mean over "
            "images, without those where it is undefined."
        ),
    }
    found = BUILDERS["iou"](MULTICLASS, 0.5, exclude=("background",)).definitions
    assert found["iou.pooled"] == (
        "IoU = Jaccard = TP / (TP + FP + FN) of each class, counted over the pixels of all images together, then the "
        'mean over all classes but "background"; a class absent from both truth and prediction is left out; nothing '
        "there and nothing predicted counts as 1; the class with the largest logit is predicted; ignored pixels left "
        "out."
    )
    assert found["iou.class.car"] == (
        'IoU = Jaccard = TP / (TP + FP + FN) of "car", counted over the pixels of all images together; undefined for '
        "a class absent from both truth and prediction; the class with the largest logit is predicted; ignored pixels "
        "left out."
    )
    assert BUILDERS["mean_accuracy"](BINARY, 0.5).definitions["mean_accuracy.pooled"] == (
        'mean of the shares of "lesion" pixels and of background pixels that were found, counted over the pixels of '
        "all images together; foreground from probability 0.5; ignored pixels left out."
    )
    assert BUILDERS["accuracy"](MULTILABEL, 0.5).definitions["accuracy.pooled"] == (
        "accuracy = right pixels / pixels, a pixel counting once for each label, counted over the pixels of all images "
        "together; foreground from probability 0.5; ignored pixels left out."
    )


@pytest.mark.parametrize("name", ["dice", "iou", "precision", "recall"])
@pytest.mark.parametrize("fill", FILLS)
def test_classes_left_out_are_not_in_the_mean(name, fill):
    logits, target = draw(MULTICLASS, fill)
    metric = BUILDERS[name](MULTICLASS, 0.5, exclude=("background", "car"))
    found = streamed(metric, logits, target, 2)
    each = reference(name, MULTICLASS, logits, target)[1]
    there = [value for value in (each[1], each[3]) if not np.isnan(value)]
    # As of a binary task: nothing there and nothing predicted is right.
    empty = np.nan if fill == "all ignored" else 1.0
    equal(found[f"{name}.pooled"], np.mean(there) if there else empty)


def test_a_threshold_of_many_digits_is_defined_as_it_is():
    (sentence, _) = BUILDERS["dice"](BINARY, 65535 / 65536).definitions.values()
    assert "foreground from probability 0.999984741211;" in sentence


def test_the_threshold_is_kept():
    logits = torch.tensor([-2.0, -0.5, 0.5, 2.0]).view(1, 1, 1, 4)
    target = torch.tensor([[[0, 1, 0, 1]]])
    values = [BUILDERS["recall"](BINARY, t) for t in (0.3, 0.5, 0.95)]
    assert [streamed(m, logits, target, 1)["recall.pooled"].item() for m in values] == [1.0, 0.5, 0.0]


def test_a_collection_counts_once_for_metrics_of_the_same_settings(monkeypatch):
    import segreg_plugins.metrics.counted as module

    calls = []
    monkeypatch.setattr(module, "count_pixels", lambda *given: calls.append(1) or count_pixels(*given))
    names = [name for name in BUILDERS if name != "mean_accuracy"]
    together = MetricCollection({name: BUILDERS[name](MULTICLASS, 0.5) for name in names})
    logits, target = draw(MULTICLASS, images=6)
    for epoch in range(2):
        calls.clear()
        together.reset()
        for part in range(3):
            together.update(logits[2 * part : 2 * part + 2], target[2 * part : 2 * part + 2])
        assert len(calls) == (len(names) + 2 if epoch == 0 else 3)  # each counts the very first batch for itself
        found = together.compute()
        for name in names:
            for key, value in streamed(BUILDERS[name](MULTICLASS, 0.5), logits, target, 2).items():
                assert torch.equal(found.pop(key), value) or value.isnan()
        assert not found
    assert list(together.compute_groups.values()) == [sorted(names)]


def test_a_collection_keeps_other_settings_apart_though_their_first_batches_agree():
    logits, target = draw(MULTICLASS, images=6)
    perfect, truth = draw(MULTICLASS, "perfect", images=2)
    metrics = {
        "all": BUILDERS["iou"](MULTICLASS, 0.5),
        "objects": BUILDERS["iou"](MULTICLASS, 0.5, exclude=("background",)),
        "dice": BUILDERS["dice"](MULTICLASS, 0.5),
    }
    together = MetricCollection(metrics)
    together.update(perfect, truth)
    together.update(logits, target)
    found = together.compute()
    for name, metric in metrics.items():
        alone = metric.clone()
        alone.reset()
        alone.update(perfect, truth)
        alone.update(logits, target)
        for key, value in alone.compute().items():
            # Two metrics of one name stand in a collection under its keys.
            assert torch.equal(found[f"{name}_{key}"], value)
    assert sorted(map(sorted, together.compute_groups.values())) == [["all", "dice"], ["objects"]]

    binary = MetricCollection({"low": BUILDERS["iou"](BINARY, 0.2), "high": BUILDERS["iou"](BINARY, 0.8)})
    binary.update(*draw(BINARY, "empty prediction"))
    binary.update(*draw(BINARY))
    assert binary.compute()["low_iou.pooled"] != binary.compute()["high_iou.pooled"]


@every_metric
def test_processes_add_up(name, task):
    # What torch.distributed does to states: stacked over processes and reduced.
    logits, target = draw(task)
    whole = BUILDERS[name](task, 0.5)
    whole.update(logits, target)
    parts = [BUILDERS[name](task, 0.5) for _ in range(2)]
    parts[0].update(logits[:2], target[:2])
    parts[1].update(logits[2:], target[2:])
    total = BUILDERS[name](task, 0.5)
    total.update(logits[:0], target[:0])
    for state, reduce in total._reductions.items():
        setattr(total, state, reduce(torch.stack([getattr(part, state) for part in parts])))
    for key, value in total.compute().items():
        equal(value, whole.compute()[key].item())


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.mode)
def test_counts_are_scikit_learns_confusion_matrices(task):
    logits, target = draw(task)
    matrices, unknown = count_pixels(task, logits, target, 0.5)
    assert matrices.dtype == torch.int64
    assert unknown == 0
    for image in range(5):
        for group, (truth, predicted) in enumerate(pixels(task, logits[image : image + 1], target[image : image + 1])):
            labels = range(task.channels if task.mode == "multiclass" else 2)
            expected = sklearn.metrics.confusion_matrix(truth, predicted, labels=labels)
            assert np.array_equal(matrices[image, group].numpy(), expected)


def test_as_many_classes_as_there_can_be():
    task = Task(tuple(f"c{k}" for k in range(255)), "multiclass")
    target = torch.arange(256).view(1, 16, 16)
    logits = torch.zeros(1, 255, 16, 16).scatter(1, target.clamp(max=254).unsqueeze(1), 5.0)
    found = streamed(BUILDERS["iou"](task, 0.5), logits, target, 1)
    assert found["iou.pooled"] == 1
    assert found["iou.class.c254"] == 1


@pytest.mark.parametrize("odd", [-100, -1, 4, 7, 254, 256, 1000])
def test_labels_that_the_task_does_not_have_are_reported(odd):
    logits, target = draw(MULTICLASS)
    target[0, 0, :3] = odd
    metric = BUILDERS["iou"](MULTICLASS, 0.5)
    metric.update(logits, target)
    with pytest.raises(SegregError) as error:
        metric.compute()
    assert str(error.value) == (
        "3 pixels of the masks carry labels that the task does not have\n"
        '  a multiclass task of "background", "road", "car" and "tree" has 0 to 3 and 255, which is ignored'
    )


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.mode)
def test_counting_waits_for_no_device(task):
    metrics = {name: BUILDERS[name](task, 0.5) for name, served in CASES if served is task}
    with FakeTensorMode(allow_non_fake_inputs=True) as fake:
        logits, target = map(fake.from_tensor, draw(task))
        counts = image_counts(task, logits, target, 0.5)
        for name, metric in metrics.items():
            metric.update(logits, target)
            assert metric.scores_of_counts(counts)[f"{name}.pooled"].shape == (5,), name


@every_metric
def test_half_precision_uint8_and_copies(name, task):
    logits, target = draw(task)
    expected = streamed(BUILDERS[name](task, 0.5), logits.half(), target, 5)
    metric = pickle.loads(pickle.dumps(BUILDERS[name](task, 0.5)))
    found = streamed(metric, logits.half().contiguous(memory_format=torch.channels_last), target.to(torch.uint8), 5)
    for key, value in found.items():
        equal(value, expected[key].item())
    assert metric.state_dict() == {}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@every_metric
def test_the_gpu_counts_the_same_and_is_never_waited_for(name, task):
    logits, target = draw(task)
    expected = streamed(BUILDERS[name](task, 0.5), logits, target, 5)
    metric = BUILDERS[name](task, 0.5).cuda()
    logits, target = logits.cuda(), target.cuda()
    metric.update(logits, target)
    metric.reset()
    torch.cuda.set_sync_debug_mode("error")
    try:
        metric.update(logits, target)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for key, value in metric.compute().items():
        equal(value, expected[key].item())


def test_what_it_can_not_serve_is_refused():
    with pytest.raises(SegregError) as error:
        BUILDERS["mean_accuracy"](MULTILABEL, 0.5)
    assert str(error.value) == (
        'mean_accuracy does not serve a multilabel task\n  its classes don\'t exclude each other; use "recall"'
    )
    with pytest.raises(SegregError, match='did you mean "road"'):
        BUILDERS["iou"](MULTICLASS, 0.5, exclude=("raod",))
    with pytest.raises(SegregError, match=r"logits \[5, 1, 8, 6\] and target \[5, 1, 8, 6\] do not match"):
        BUILDERS["iou"](BINARY, 0.5).update(draw(BINARY)[0], draw(BINARY)[1].unsqueeze(1))

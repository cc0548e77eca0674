"""Checks of metrics: values that depend on the pixels alone, not on batches or order, each with what it means."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection

from segreg.evaluation.counts import image_counts
from segreg.registry.protocols import Curve, Matrix, Reliability
from segreg.task import IGNORE_INDEX, Task
from segreg.testing import inputs
from segreg.testing.check import Rule
from segreg.testing.modes import (
    THRESHOLD,
    build_for,
    it_leaves_its_inputs_alone,
    on_each_task,
    served,
    shape_of,
    try_every_mode,
)
from segreg.testing.subject import Broken, NotChecked, Subject, doing, needs_method
from segreg.visualize.plots import plot_metrics

IMAGES = 6


def it_can_be_built(subject: Subject) -> None:
    """It gives a torchmetrics.Metric for each mode that it serves, and refuses the others with a SegregError."""
    for mode, metric in try_every_mode(subject).items():
        if not isinstance(metric, Metric):
            raise Broken(f"for a {mode} task it gives {type(metric).__name__}, which is not a torchmetrics.Metric")


@on_each_task
def it_gives_named_numbers(task: Task, metric: Any) -> None:
    """`compute` gives a scalar, or a mapping of names to scalars."""
    metric.update(*_batch(task))
    found = metric.compute()
    for name, value in (found if isinstance(found, Mapping) else {"compute": found}).items():
        if not isinstance(name, str) or not isinstance(value, Tensor) or value.numel() != 1:
            raise Broken(f"{name} is {shape_of(value)} where a scalar tensor was expected")


@on_each_task
def batches_do_not_matter(task: Task, metric: Any) -> None:
    """Images one by one, in two batches, in another order or all at once give the same."""
    logits, target = _batch(task)
    wanted = _scores(metric, (logits, target))
    ways = {
        "one by one": [(logits[i : i + 1], target[i : i + 1]) for i in range(IMAGES)],
        "in batches of 2 and 4": [(logits[:2], target[:2]), (logits[2:], target[2:])],
        "in another order": [(logits.flip(0), target.flip(0))],
    }
    for words, batches in ways.items():
        _same(wanted, _scores(metric, *batches), f"with images {words}")


@on_each_task
def any_image_will_do(task: Task, metric: Any) -> None:
    """Images without any object, full ones, ignored ones, wide and tall ones are scored; NaN is a score."""
    whole = inputs.truth(task, images=2)
    targets = {
        "empty images": torch.zeros_like(whole),
        "images of one class": torch.ones_like(whole),
        "images that are all ignored": torch.full_like(whole, IGNORE_INDEX),
        "images of 6x20": inputs.truth(task, images=2, size=(6, 20), ignored=True),
        "images of 20x6": inputs.truth(task, images=2, size=(20, 6), ignored=True),
    }
    for words, target in targets.items():
        with doing(f"given {words}"):
            logits = torch.randn_like(inputs.answers(task, target, 1.0))
            _scores(metric, (logits, target))
            if callable(getattr(metric, "per_image", None)):
                metric.per_image(logits, target)


def processes_agree(subject: Subject) -> None:
    """What two processes counted, each of some images, makes the score of all of them."""
    for task, metric in served(subject):
        logits, target = _batch(task)
        wanted = _scores(metric, (logits, target))
        one, other = build_for(subject, task), build_for(subject, task)
        one.update(logits[:2], target[:2])
        other.update(logits[2:], target[2:])
        with doing(f"on a {task.mode} task merged from two processes"):
            try:
                one.merge_state(other.metric_state)
            except RuntimeError as error:
                raise NotChecked("torchmetrics merges its state only with full_state_update = False") from error
            found = _values(one)
        _same(wanted, found, f"on a {task.mode} task merged from two processes")


@on_each_task
def ignored_pixels_count_for_nothing(task: Task, metric: Any) -> None:
    """What is predicted of ignored pixels changes nothing."""
    logits, target = _batch(task)
    _, counts = task.one_hot(target)
    wanted = _scores(metric, (logits, target))
    other = torch.where(counts == 0, -5 * logits, logits)
    _same(wanted, _scores(metric, (other, target)), "with other logits of ignored pixels")


def reset_forgets(subject: Subject) -> None:
    """After `reset` it gives what a new one gives."""
    for task, metric in served(subject):
        first, second = _batch(task), _batch(task)
        metric.update(*first)
        metric.compute()
        metric.reset()
        metric.update(*second)
        found = _values(metric)
        wanted = _scores(build_for(subject, task), second)
        _same(wanted, found, f"on a {task.mode} task after counting and a reset")


def every_value_is_defined(subject: Subject) -> None:
    """`definitions` has a sentence for each value."""
    for task, metric in served(subject):
        if (reported := getattr(metric, "definitions", None)) is None:
            raise NotChecked("it offers no definitions: results name its class instead")
        for name in _scores(metric, _batch(task)):
            defined = isinstance(reported, Mapping) and (reported.get(name) or reported.get(subject.part.name))
            if not str(defined or "").strip():
                raise Broken(f'on a {task.mode} task no definition says what "{name}" means')


@on_each_task
def its_direction_is_true(task: Task, metric: Any) -> None:
    """`higher_is_better` is what right and wrong answers say."""
    if metric.higher_is_better is None:
        raise NotChecked("it has no higher_is_better, so that train.monitor can't name its values")
    target = inputs.truth(task, images=IMAGES)
    right, wrong = (_scores(metric, (inputs.answers(task, target, size), target)) for size in (6.0, -6.0))
    sign = 1 if metric.higher_is_better else -1
    if not any(sign * right[name] > sign * wrong[name] for name in right):
        name = next(iter(right))
        raise Broken(
            f"higher_is_better is {metric.higher_is_better}, but {name} is {right[name]:.4g} for right and "
            f"{wrong[name]:.4g} for wrong answers"
        )


def labels_alone_count(subject: Subject) -> None:
    """A metric that says so scores the labels at the threshold, however sure the network is of them."""
    for threshold in (THRESHOLD, 0.2):
        for task, metric in served(subject, threshold):
            if not (getattr(metric, "of_labels", False) or callable(getattr(metric, "scores_of_counts", None))):
                raise NotChecked("it has neither of_labels nor scores_of_counts: probabilities may count")
            logits, target = _batch(task)
            labels = task.labels(logits, threshold=threshold)
            wanted, found = (_scores(metric, (given, target)) for given in (logits, inputs.answers(task, labels, 9.0)))
            words = f"on a {task.mode} task with a threshold of {threshold:g} and surer logits of the same labels"
            _same(wanted, found, words)


@on_each_task
def per_image_agrees(task: Task, metric: Any) -> None:
    """`per_image` gives an image the same beside any others, counts nothing, and has the mean that is reported."""
    needs_method(metric, "per_image")
    logits, target = _batch(task)
    wanted = _scores(metric, (logits, target))
    with doing("in per_image"):
        rows = metric.per_image(logits, target)
    _same(wanted, _values(metric), "after a call of per_image")
    for name, values in rows.items():
        if not isinstance(values, Tensor) or values.shape != (IMAGES,):
            raise Broken(f"per_image gives {shape_of(values)} for {IMAGES} images as {name}")
        alone = torch.cat([metric.per_image(logits[i : i + 1], target[i : i + 1])[name] for i in range(IMAGES)])
        if not torch.allclose(values.double(), alone.double(), atol=1e-6, equal_nan=True):
            raise Broken(f"per_image gives an image another {name} beside others")
        _same_mean(wanted, f"{name}.per_image_mean", values, "per_image")


@on_each_task
def scores_of_counts_agree(task: Task, metric: Any) -> None:
    """`scores_of_counts` returns for counted pixels what `compute` returns, for single images too."""
    needs_method(metric, "scores_of_counts")
    logits, target = _batch(task)
    _added_up_agree(metric, logits, target, image_counts(task, logits, target, THRESHOLD), "scores_of_counts")


@on_each_task
def scores_of_sums_agree(task: Task, metric: Any) -> None:
    """`scores_of_sums` of what `sums` counts is what `compute` returns, for single images too."""
    needs_method(metric, "sums")
    logits, target = _batch(task)
    wanted = _scores(metric, (logits, target))
    with doing("in sums"):
        sums = metric.sums(logits, target)
    _same(wanted, _values(metric), "after a call of sums")
    if len(sums) != IMAGES:
        raise Broken(f"sums gives {shape_of(sums)} for {IMAGES} images")
    alone = torch.cat([metric.sums(logits[i : i + 1], target[i : i + 1]) for i in range(IMAGES)])
    if not torch.allclose(sums.double(), alone.double(), atol=1e-6, equal_nan=True):
        raise Broken("sums gives an image something else beside others")
    _added_up_agree(metric, logits, target, sums, "scores_of_sums")


def _added_up_agree(metric: Any, logits: Tensor, target: Tensor, each: Tensor, method: str) -> None:
    """Compare the scores of what was counted `[B, ...]`, of all images and of each, with those of `compute`."""
    wanted = _scores(metric, (logits, target))
    with doing(f"in {method}"):
        found, rows = (getattr(metric, method)(counts) for counts in (each.sum(0, keepdim=True), each))
    for name, value in found.items():
        if name not in wanted or value.shape != (1,) or not _equal(float(value), wanted[name]):
            raise Broken(f"{method} gives {name} as {value.tolist()}, but compute gives {wanted.get(name)}")
    for name, values in rows.items():
        _same_mean(wanted, f"{name.removesuffix('.pooled')}.per_image_mean", values, f"{method} over images")


@on_each_task
def tables_can_be_drawn(task: Task, metric: Any) -> None:
    """`tables` returns curves, matrices and reliability by name, which can be drawn."""
    needs_method(metric, "tables")
    _scores(metric, _batch(task))
    with doing("in tables"):
        tables = metric.tables()
    if not isinstance(tables, Mapping):
        raise Broken(f"tables gives {type(tables).__name__}, not a mapping of names to tables")
    for name, table in tables.items():
        if not isinstance(table, Curve | Matrix | Reliability):
            raise Broken(f"tables gives {type(table).__name__} as {name}; Curve, Matrix and Reliability are drawn")
    with tempfile.TemporaryDirectory() as folder, doing("drawing its tables"):
        plot_metrics(MetricCollection({"it": metric}), Path(folder))


def _batch(task: Task) -> tuple[Tensor, Tensor]:
    """Return logits that are right more often than not, and a target with ignored pixels."""
    target = inputs.truth(task, images=IMAGES, ignored=True)
    right = inputs.answers(task, target, 0.7)
    return right + torch.randn_like(right), target


def _values(metric: Any) -> dict[str, float]:
    found = metric.compute()
    return {name: float(v) for name, v in (found if isinstance(found, Mapping) else {"compute": found}).items()}


def _scores(metric: Any, *batches: tuple[Tensor, Tensor]) -> dict[str, float]:
    metric.reset()
    for logits, target in batches:
        metric.update(logits, target)
    return _values(metric)


def _equal(one: float, other: float, tolerance: float = 1e-6) -> bool:
    return one == other or abs(one - other) <= tolerance or (math.isnan(one) and math.isnan(other))


def _same(wanted: Mapping[str, float], found: Mapping[str, float], words: str) -> None:
    """Compare two results, in which NaN equals NaN."""
    for name in {**wanted, **found}:
        a, b = wanted.get(name, float("nan")), found.get(name, float("nan"))
        if not _equal(a, b, 1e-6 * max(1.0, abs(a))):
            raise Broken(f"{words} {name} is {b:.6g}, not {a:.6g}")


def _same_mean(wanted: Mapping[str, float], name: str, values: Tensor, words: str) -> None:
    """Compare the mean over images with the one that `compute` gave, if it gave one."""
    mean, found = wanted.get(name), float(values.double().nanmean())
    if mean is not None and not _equal(found, mean):
        raise Broken(f"{name} is {mean:.6g}, but the mean of {words} is {found:.6g}")


RULES = (
    Rule(it_can_be_built, "a metric that does not serve a task is to be refused before anything trains"),
    Rule(it_gives_named_numbers, "each value is a column of the history and a row of the results"),
    Rule(batches_do_not_matter, "a score must not depend on the batch size; segreg streams images"),
    Rule(processes_agree, "several GPUs score an image each, and merge what they counted"),
    Rule(any_image_will_do, "such images come in real data, and a metric that fails on one ends the scoring"),
    Rule(ignored_pixels_count_for_nothing, "255 marks pixels of which nobody knows the truth"),
    Rule(reset_forgets, "one metric scores every epoch"),
    Rule(every_value_is_defined, "results and reports print what each number means"),
    Rule(its_direction_is_true, "the best checkpoint is chosen by it"),
    Rule(per_image_agrees, "per_image.csv and the intervals are made of these values"),
    Rule(scores_of_counts_agree, "the intervals of these values are made of counted pixels"),
    Rule(scores_of_sums_agree, "the intervals of these values are made of the sums"),
    Rule(labels_alone_count, "networks that were exported to return labels are scored by it"),
    Rule(tables_can_be_drawn, "a run's diagrams are drawn from them", slow=True),
    Rule(it_leaves_its_inputs_alone, "the next metric is given the same tensors"),
)

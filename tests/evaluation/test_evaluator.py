"""Scoring a network on chosen samples: intervals of scores, the order of images, memory that is given back."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torchmetrics import Metric, MetricCollection

import segreg
import small_runs
import tiny_runs
from segreg.data import prepare
from segreg.evaluation.counts import image_counts
from segreg.evaluation.evaluator import Evaluator, choose_overlays, write_rows
from segreg.evaluation.scores import Scores
from segreg.evaluation.statistics import Measure, intervals
from segreg.inference.predictor import InferenceConfig, predict_labels, prepare_image
from segreg.models import build
from segreg.runtime.progress import Quiet
from segreg.task import Task

TASKS = [
    Task(("lesion",), "binary"),
    Task(("ground", "car", "tree"), "multiclass"),
    Task(("cell", "nucleus"), "multilabel"),
]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SEGREG_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return tiny_runs.finished(tmp_path_factory)


@pytest.fixture
def exam(finished):
    dataset = build.build_dataset(finished.recipe)
    prepared = prepare(dataset, finished.recipe.input)
    return Evaluator.of(finished.recipe, finished.predictor(), dataset, prepared)


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.mode)
@pytest.mark.parametrize("name", ["dice", "iou", "accuracy", "precision", "recall", "specificity"])
def test_scores_of_counts_are_those_of_the_metric(name, task):
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(4, task.channels, 6, 5, generator=generator)
    shape = logits.shape if task.mode == "multilabel" else (4, 6, 5)
    target = torch.randint(0, task.channels if task.mode == "multiclass" else 2, shape, generator=generator)
    target[torch.rand(shape, generator=generator) < 0.2] = 255
    metric = segreg.build_part("metric", name, task, 0.5)
    metric.update(logits, target)
    computed = {key: float(value) for key, value in metric.compute().items() if not key.endswith(".per_image_mean")}
    counts = image_counts(task, logits, target, 0.5)
    found = metric.scores_of_counts(counts.sum(0))
    assert {key: float(value) for key, value in found.items()} == pytest.approx(computed, abs=1e-12)
    each = metric.scores_of_counts(counts)[f"{name}.pooled"]
    mean = float(metric.compute()[f"{name}.per_image_mean"])
    assert float(each.nanmean()) == pytest.approx(mean, abs=1e-12)


def test_a_run_has_intervals_around_its_scores(finished):
    results = finished.results
    for split in ("val", "test"):
        assert results["intervals"][split].keys() == results["metrics"][split].keys()
        for name, (low, high) in results["intervals"][split].items():
            assert low <= results["metrics"][split][name] <= high
    with finished.directory.per_image.open() as file:
        values = [float(row["dice"]) for row in csv.DictReader(file)]
    again = intervals([Measure.means(("dice",), np.array(values)[None, :, None])], seed=finished.results["seed"])[
        "dice"
    ]
    assert results["intervals"]["test"]["dice.per_image_mean"] == pytest.approx(again)


class Grouped:
    """A data set whose images are of patients, three of each."""

    def __init__(self, dataset):
        self.dataset = dataset
        self.samples = [replace(one, group=f"patient {n // 3}") for n, one in enumerate(dataset.samples)]

    def __getattr__(self, name):
        return getattr(self.dataset, name)


def test_intervals_are_over_groups_where_the_data_have_some(exam):
    alone = exam.scores(range(12), "", Quiet())
    assert (alone.groups, alone.group_of) == (None, {})
    patients = replace(exam, dataset=Grouped(exam.dataset))
    assert patients.scores(range(0, 12, 3), "", Quiet()).groups is None  # one of each
    whole = patients.scores(range(12), "", Quiet())
    assert (whole.values, whole.per_image) == (alone.values, alone.per_image)
    assert list(whole.group_of.values()) == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    values = np.array([row["dice"] for row in whole.per_image]).reshape(4, 3).mean(1)
    of_patients = intervals([Measure.means(("dice",), values[None, :, None])], seed=exam.recipe.seed)["dice"]
    assert whole.intervals["dice.per_image_mean"] == pytest.approx(of_patients)
    assert whole.intervals.keys() == alone.intervals.keys()
    assert whole.intervals != alone.intervals


def test_an_exam_gives_the_scores_of_the_run(exam, finished):
    ids = json.loads(finished.directory.split.read_text())["test"]
    index_of = {sample.id: index for index, sample in enumerate(exam.dataset.samples)}
    exam.predictor.model.train()
    scores = exam.scores([index_of[name] for name in ids], "", Quiet())
    assert not exam.predictor.model.training
    assert scores.values == pytest.approx(finished.results["metrics"]["test"])
    assert scores.counts.shape == (5, 1, 4)
    assert (scores.counts.sum(-1) == 32 * 32).all()


@pytest.mark.parametrize("resize", ["stretch", "letterbox"])
def test_scales_and_flips_are_scored_as_they_are_predicted(exam, resize):
    evaluate = replace(exam.recipe.evaluate, resolution="original", scales=(0.5, 1.0, 1.5), flips="mirror")
    section = replace(exam.recipe.input, resize=resize)
    predictor = replace(exam.predictor, input=section, config=InferenceConfig.of(evaluate, section))
    dataset = exam.dataset
    recipe = replace(exam.recipe, input=section, evaluate=evaluate)
    own = Evaluator.of(recipe, predictor, dataset, prepare(dataset, section))
    scores = own.scores([3, 0, 5], "", Quiet())
    for index, row, counts in zip([3, 0, 5], scores.per_image, scores.counts, strict=True):
        sample = dataset.samples[index]
        image = prepare_image([predictor], dataset.read_image(sample), sample.image)
        labels, truth = predict_labels([predictor], image), dataset.read_mask(sample)
        assert row["id"] == sample.id
        assert counts[0, 0] == ((labels == 1) & (truth == 1)).sum()
        assert counts[0].sum() == (truth != 255).sum()
        assert 2 * counts[0, 0] / (2 * counts[0, 0] + counts[0, 1] + counts[0, 2]) == pytest.approx(row["dice"])
    assert scores.definitions["dice.pooled"].endswith(
        "; images are predicted at 0.5, 1 and 1.5 times their size, also flipped left-right, and probabilities are "
        "averaged"
    )
    at_input = replace(own, recipe=replace(recipe, evaluate=replace(evaluate, resolution="input")))
    assert at_input.scores([3, 0, 5], "", Quiet()).counts.sum() <= 3 * 32 * 32


def test_validation_and_the_results_are_predicted_alike(tmp_path, monkeypatch):
    monkeypatch.setattr("segreg.runs.evaluate_run.plot_metrics", lambda *_: None)
    with small_runs.encoder():
        run = small_runs.run(tmp_path, "evaluate.flips=flips", "evaluate.scales=[0.5,1]", "evaluate.overlays=0")
        row = run.history[run.results["best_epoch"] - 1]
        for name, value in run.results["metrics"]["val"].items():
            assert row[f"val.{name}"] == value
        assert run.predictor().config == InferenceConfig(scales=(0.5, 1.0), flips="flips")
        again = segreg.evaluate(run, {"evaluate.flips": "none", "evaluate.scales": [1.0]}, split="val")
    assert again.data["metrics"]["val"] != run.results["metrics"]["val"]
    assert "; images are" not in again.data["definitions"]["dice.pooled"]


def test_the_means_of_the_columns_stand_in_a_file_of_their_own(tmp_path):
    rows = [{"id": "a", "dice": 0.25, "iou": float("nan")}, {"id": "b", "dice": 1.0, "iou": 0.5}]
    write_rows(tmp_path / "per_image.csv", Scores({}, {}, rows))
    assert (tmp_path / "per_image.csv").read_text() == "id,dice,iou\na,0.25,nan\nb,1.0,0.5\n"
    assert (tmp_path / "per_image_mean.csv").read_text() == "id,dice,iou\nmean,0.625,0.5\n"


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.mode)
@pytest.mark.parametrize("name", ["boundary_iou", "mse"])
def test_scores_of_sums_are_those_of_the_metric(name, task):
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(4, task.channels, 16, 15, generator=generator)
    shape = logits.shape if task.mode == "multilabel" else (4, 16, 15)
    target = torch.randint(0, 2, shape, generator=generator)
    metric = segreg.build_part("metric", name, task, 0.5)
    metric.update(logits, target)
    computed = {key: float(value) for key, value in metric.compute().items()}
    mean = computed.pop(f"{name}.per_image_mean")
    sums = metric.sums(logits, target)
    found = metric.scores_of_sums(sums.sum(0))
    for key, value in computed.items():
        assert float(found[key]) == pytest.approx(value, abs=1e-12, nan_ok=True)
    assert found.keys() == computed.keys()
    assert float(metric.scores_of_sums(sums)[f"{name}.pooled"].nanmean()) == pytest.approx(mean, abs=1e-12)


class Distance(Metric):
    """What a plugin may offer: values by other names than its own."""

    higher_is_better = False
    full_state_update = False

    def update(self, logits, target):
        pass

    def compute(self):
        return {"hd95.per_image_mean": torch.tensor(1.0)}


def test_the_worst_stand_first_whatever_is_better_and_the_undefined_before_them(exam):
    rows = [{"id": name, "dice": value} for name, value in zip("abcd", (0.5, float("nan"), 0.9, 0.1), strict=True)]
    scores = Scores({}, {}, rows)
    exam.metrics.update(torch.zeros(1, 1, 2, 2), torch.zeros(1, 2, 2).long())
    assert [row["id"] for _, row in exam.ranked(range(4), scores)] == ["b", "d", "a", "c"]
    metrics = MetricCollection({"surface": Distance()})
    metrics.update(torch.zeros(1), torch.zeros(1))
    lower = replace(exam, metrics=metrics)
    scores = Scores({}, {}, [{"id": row["id"], "hd95": row["dice"]} for row in rows])
    assert [row["id"] for _, row in lower.ranked(range(4), scores)] == ["b", "c", "a", "d"]


@pytest.mark.parametrize(
    ("count", "worst", "best", "at_random"),
    [(0, [], [], 0), (1, [0], [], 0), (2, [0], [6], 0), (3, [0], [6], 1), (6, [0, 1], [6, 5], 2),
     (7, [0, 1, 2], [6, 5], 2), (99, [0, 1, 2], [6, 5], 2)],
)  # fmt: skip
def test_the_worst_the_best_and_some_of_the_others_are_shown(count, worst, best, at_random):
    ranked = [(place, {"id": f"p{place}"}) for place in range(7)]
    shown = {why: [index for index, _ in images] for why, images in choose_overlays(ranked, count, 0).items()}
    assert (shown["worst"], shown["best"], len(shown["random"])) == (worst, best, at_random)
    assert set(shown["random"]) <= set(range(7)) - {*worst, *best}
    assert len(set(shown["random"])) == at_random


def test_those_shown_at_random_are_any_of_the_others_and_hang_on_the_seed_and_the_ids_alone():
    ranked = [(place, {"id": f"p{place}"}) for place in range(12)]
    draws = [[row["id"] for _, row in choose_overlays(ranked, 6, seed)["random"]] for seed in range(60)]
    assert {name for pair in draws for name in pair} == {f"p{place}" for place in range(2, 10)}
    other = [*ranked[:2], *ranked[2:10][::-1], *ranked[10:]]
    assert [[row["id"] for _, row in choose_overlays(other, 6, seed)["random"]] for seed in range(60)] == draws


def test_images_are_read_again_after_they_were_released(exam):
    before = exam.prepared.images[3].copy(), exam.prepared.masks[3].copy()
    exam.prepared.release()
    assert np.array_equal(exam.prepared.images[3], before[0])
    assert np.array_equal(exam.prepared.masks[3], before[1])

"""A bench of folds: every image scored once by a network that has not seen it, and models compared on all of them."""

from __future__ import annotations

import csv
import json
import shutil

import numpy as np
import pytest

import folded
from segreg.benchmark.bench.board import TrialProgress, table
from segreg.benchmark.bench.plan import Plan, checked, plan_of, plan_of_file
from segreg.benchmark.bench.trials import trials_of
from segreg.benchmark.comparison.compare import compare
from segreg.benchmark.comparison.runs import run_groups_of
from segreg.config.recipe import read_recipe
from segreg.errors import SegregError
from segreg.registry.registry import load_registry
from segreg.runs.load import load_run


@pytest.fixture(autouse=True)
def _parts(installed):
    installed(*folded.points())


@pytest.fixture
def bench(tmp_path_factory):
    return folded.bench(tmp_path_factory)


def rows_of(file):
    with file.open() as text:
        return list(csv.DictReader(text))


def runs_of(bench, model):
    return sorted(bench.glob(f"runs/{model.replace('/', '_')}_*/*"))


def test_trials_of_folds_and_seeds(tmp_path):
    plan = folded.plan_in(tmp_path, seeds=(4, 7))
    trials = trials_of(plan, load_registry(folded.points()))
    assert [(trial.seed, trial.fold, trial.model) for trial in trials] == [
        (seed, fold, model) for seed in (4, 7) for fold in range(3) for model in folded.MODELS
    ]
    assert len({trial.key for trial in trials}) == 2
    assert len({trial.name for trial in trials}) == 12
    assert trials[-1].title == "two_convolutions, seed 7, fold 2"
    assert [trials[2].recipe.split.method, trials[2].recipe.split.folds, trials[2].recipe.split.fold] == ["folds", 3, 1]
    assert trials[2].recipe.split.test == 0.2, "the recipe's share is held out"
    steps = folded.Plan(plan.recipe, {}, folds=3, change=["split.test=0"])
    assert [trial.recipe.split.complete().test for trial in trials_of(steps, load_registry(folded.points()))] == [
        0.0
    ] * 3
    shown = table([TrialProgress(trial, "waiting") for trial in trials[:2]])
    assert [column.head for column in shown.columns][:4] == ["model", "state", "seed", "fold"]


def test_folds_in_a_bench_file_and_what_is_refused(tmp_path):
    (tmp_path / "bench.yaml").write_text("recipe: discs.yaml\nfolds: 4\n")
    assert plan_of_file(read_recipe(tmp_path / "bench.yaml")).folds == 4
    plan, _ = plan_of(tmp_path / "bench.yaml", vary={}, folds=2, budgets={})
    assert plan.folds == 2
    (tmp_path / "bench.yaml").write_text("recipe: discs.yaml\nfolds: 1\n")
    with pytest.raises(SegregError, match=r"bench.yaml:2:8: folds must be a number from 2 to 1,000, not 1"):
        plan_of_file(read_recipe(tmp_path / "bench.yaml"))
    with pytest.raises(SegregError, match="folds do not vary like other settings\n  use --folds"):
        checked(Plan(tmp_path, {"split.fold": [0, 1]}), None)


def test_models_are_compared_on_all_images_out_of_fold(bench):
    results = json.loads((bench / "results.json").read_text())
    assert results["title"] == "discs: encoder"
    assert len(results["images"]) == 16
    for model in results["models"]:
        folders = runs_of(bench, model["name"])
        assert [fold["run"] for fold in model["folds"]] == model["runs"] == [str(folder) for folder in folders]
        assert (model["seeds"], [fold["fold"] for fold in model["folds"]]) == ([0], [0, 1, 2])
        own = [row for folder in folders for row in rows_of(folder / "fold" / "per_image.csv")]
        assert sorted(row["id"] for row in own) == sorted(results["images"]), "each image once"
        dice = np.array([float(row["dice"]) for row in own])
        value = model["values"]["dice.per_image_mean"]
        assert value["mean"] == pytest.approx(dice.mean())
        drawn = np.random.default_rng(5).integers(0, 16, (4000, 16))
        assert [value["low"], value["high"]] == pytest.approx(
            np.quantile(dice[drawn].mean(1), [0.025, 0.975]), abs=0.02
        )
        counts = [row for folder in folders for row in rows_of(folder / "fold" / "counts.csv")]
        tp, fp, fn = (sum(int(row[name]) for row in counts) for name in ("tp", "fp", "fn"))
        assert model["values"]["dice.pooled"]["mean"] == pytest.approx(2 * tp / (2 * tp + fp + fn))
        by_id = {row["id"]: float(row["dice"]) for row in own}
        assert model["per_image"] == pytest.approx([by_id[image] for image in results["images"]])
        for fold, folder in zip(model["folds"], folders, strict=True):
            within = [float(row["dice"]) for row in rows_of(folder / "fold" / "per_image.csv")]
            assert fold["value"] == pytest.approx(np.mean(within))
            assert len(rows_of(folder / "per_image.csv")) == 4, "the test's"
    first, second = results["models"]
    difference = (first if first["difference"] else second)["difference"]
    assert difference["low"] <= difference["mean"] <= difference["high"]


OF_FOLDS = (
    "Scores are out of fold: each image's are of the network that was not trained on it. Its fold also chose that "
    "network's checkpoint, which flatters the scores a little. The test images have no part in this comparison; the "
    "runs' own results have their scores."
)


def test_the_files_say_that_scores_are_out_of_fold(bench):
    results = json.loads((bench / "results.json").read_text())
    assert results["verdict"][-1] == OF_FOLDS
    assert not results["notices"]
    rows = rows_of(bench / "results.csv")
    assert [(row["model"], row["seed"], len(row["run"].split())) for row in rows] == [
        (model["name"], "0", 3) for model in results["models"]
    ]
    page = (bench / "report.html").read_text()
    assert "16, each scored out of fold" in page
    assert "3 per model" in page
    assert "fold 2" in page


def test_the_runs_by_themselves_are_compared_alike(bench):
    results = json.loads((bench / "results.json").read_text())
    folders = [run for model in results["models"] for run in model["runs"]]
    found = compare(run_groups_of([load_run(folder) for folder in folders]), title="by hand")
    assert {model.name: model.values["dice.pooled"].mean for model in found.models} == {
        model["name"]: model["values"]["dice.pooled"]["mean"] for model in results["models"]
    }
    assert set(found.images) == set(results["images"])
    with pytest.raises(SegregError, match="are runs of one recipe with one seed and fold"):
        run_groups_of([load_run(folders[0]), load_run(folders[0])])


def as_seed(seed, folder, where):
    """Copy a run's small files, as if it had been trained with another seed."""
    shutil.copytree(folder, where, ignore=shutil.ignore_patterns("*.pt"))
    recipe, results = where / "resolved.yaml", where / "results.json"
    recipe.write_text(recipe.read_text().replace("seed: 0", f"seed: {seed}", 1))
    results.write_text(json.dumps({**json.loads(results.read_text()), "seed": seed}))
    return where


def test_seeds_and_folds_and_a_seed_without_all_folds(bench, tmp_path):
    results = json.loads((bench / "results.json").read_text())
    folders = [run for model in results["models"] for run in model["runs"]]
    own = runs_of(bench, folded.MODELS[0])
    others = [as_seed(7, own[fold - 1], tmp_path / f"seed-7_fold-{fold}") for fold in range(3)]
    for fold, other in enumerate(others):  # the folds change places, and each image keeps its score
        recipe = (other / "resolved.yaml").read_text()
        (other / "resolved.yaml").write_text(recipe.replace(f"  fold: {(fold - 1) % 3}\n", f"  fold: {fold}\n"))
    others.append(as_seed(9, own[0], tmp_path / "seed-9_fold-0"))
    found = compare(run_groups_of([load_run(folder) for folder in [*folders, *others]]), title="by hand")
    assert found.notices == (f"{folded.MODELS[0]} has not all of its folds with seed 9, which is left out.",)
    seeds = {model.name: model.seeds for model in found.models}
    assert seeds == {folded.MODELS[0]: (0, 7), folded.MODELS[1]: (0,)}
    model = next(model for model in found.models if model.name == folded.MODELS[0])
    alone = next(model for model in results["models"] if model["name"] == folded.MODELS[0])
    mean = alone["values"]["dice.per_image_mean"]["mean"]
    assert model.values["dice.per_image_mean"].of_seeds == pytest.approx((mean, mean))
    assert [(fold.seed, fold.fold) for fold in model.folds] == [(0, 0), (0, 1), (0, 2), (7, 0), (7, 1), (7, 2), (9, 0)]


def test_one_fold_alone_is_an_ordinary_run(bench):
    folders = [runs_of(bench, model)[0] for model in folded.MODELS]
    found = compare(run_groups_of([load_run(folder) for folder in folders]), title="by hand")
    assert len(found.images) == 4, "the test's"
    assert not found.models[0].folds

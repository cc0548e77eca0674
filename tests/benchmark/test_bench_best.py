"""`segreg best` against masks that `segreg predict` writes, scored with NumPy and SciPy."""

from __future__ import annotations

import dataclasses
import json
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

import folded
from segreg.benchmark.bench.best import best_of, format_choice
from segreg.benchmark.bench.models import models_of
from segreg.runtime.layout import plain
from segreg.runtime.progress import Quiet


@pytest.fixture(autouse=True)
def _parts(installed, tmp_path, monkeypatch):
    installed(*folded.points())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEGREG_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def bench(tmp_path_factory):
    return folded.bench(tmp_path_factory)


@pytest.fixture(scope="module")
def choice(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "segreg.registry.registry.entry_points", lambda group: [p for p in folded.points() if p.group == group]
        )
        return best_of(folded.bench(tmp_path_factory), device="cpu", progress=Quiet())


def mask_of(file):
    return np.asarray(Image.open(file)) > 0


def dice(one, other):
    return 2 * (one & other).sum() / (one.sum() + other.sum())


@pytest.fixture(scope="module")
def known():
    """What `predicted` has predicted."""
    return {}


@pytest.fixture
def predicted(bench, segreg, tmp_path, known):
    """Return each image's mask, predicted by the runs of one or both models that have not seen it, by the image."""

    def predict(*models):
        if models in known:
            return known[models]
        found = {}
        folders = {model.name: model.folder for model in models_of(bench)}
        for fold in range(folded.FOLDS):
            runs = [folders[name] / f"seed-0_fold-{fold}" for name in models]
            val = json.loads((runs[0] / "split.json").read_text())["val"]
            images = [bench.parent / "images" / f"{name}.png" for name in val]
            out = tmp_path / f"{len(models)}-{models[0].replace('/', '_')}-{fold}"
            printed = segreg("predict", *runs, "--images", *images, "--out", out, "--quiet", "--device", "cpu")
            assert printed.status == 0, printed.err
            found |= {name: mask_of(out / "masks" / f"{name}.png") for name in val}
        return known.setdefault(models, found)

    return predict


def test_candidates_are_scored_as_their_predicted_masks(bench, choice, predicted):
    true = {file.stem: mask_of(file) for file in (bench / ".." / "masks").iterdir()}
    results = json.loads((bench / "results.json").read_text())
    assert (choice.images, choice.groups, choice.folds, choice.seeds) == (16, 8, 3, (0,))
    assert {one.models for one in choice.candidates} == {(a,) for a in folded.MODELS} | {folded.MODELS}
    each = {}
    for one in choice.candidates:
        masks = predicted(*one.models)
        assert len(masks) == 16
        each[one.models] = {name: dice(mask, true[name]) for name, mask in masks.items()}
        assert one.score.mean == pytest.approx(np.mean(list(each[one.models].values())), abs=1e-9)
    for model in results["models"]:  # which was scored at the images' own size too
        own = next(one for one in choice.candidates if one.models == (model["name"],))
        assert own.score.mean == pytest.approx(model["values"]["dice.per_image_mean"]["mean"], abs=1e-9)
    by_hand = sorted((np.mean([*found.values()]) for found in each.values()), reverse=True)
    assert [one.score.mean for one in choice.candidates] == pytest.approx(by_hand)

    # Groups are drawn by hand, each with all of its images.
    names = sorted(true.keys() & masks.keys())
    groups = sorted({name[:2] for name in names})
    sums = np.array(
        [[[each[one.models][n] for n in names if n[:2] == g] for g in groups] for one in choice.candidates]
    ).sum(-1)
    drawn = np.random.default_rng(11).integers(0, len(groups), (20_000, len(groups)))
    draws = sums[:, drawn].sum(-1) / 16
    ahead = draws == draws.max(0)  # equal ones share the win
    shares = (ahead / ahead.sum(0)).mean(1)
    for number, one in enumerate(choice.candidates):
        assert [one.score.low, one.score.high] == pytest.approx(np.quantile(draws[number], [0.025, 0.975]), abs=0.01)
        assert one.wins == pytest.approx(shares[number], abs=0.04)
    change = draws[0] - draws[1]
    assert choice.to_runner_up.mean == pytest.approx(choice.candidates[0].score.mean - choice.candidates[1].score.mean)
    ends = [choice.to_runner_up.low, choice.to_runner_up.high]
    assert ends == pytest.approx(np.quantile(change, [0.025, 0.975]), abs=0.01)


def test_cleaning_is_decided_as_scipy_cleans_the_predicted_masks(bench, choice, predicted):
    true = {file.stem: mask_of(file) for file in (bench / ".." / "masks").iterdir()}
    masks = predicted(*choice.candidates[0].models)

    def cleaned(mask, tried):
        regions, count = ndimage.label(mask, np.ones((3, 3)))
        small = np.flatnonzero(ndimage.sum_labels(mask, regions, range(1, count + 1)) < tried.min_area)
        mask = mask & ~np.isin(regions, 1 + small)
        holes = ndimage.binary_fill_holes(mask) & ~mask
        regions, count = ndimage.label(holes)
        small = np.flatnonzero(ndimage.sum_labels(holes, regions, range(1, count + 1)) < tried.fill_holes)
        return mask | np.isin(regions, 1 + small)

    assert [(each.min_area, each.fill_holes) for each in choice.tried][:2] == [(10, 0), (0, 10)]
    for tried in choice.tried:
        changes = [dice(cleaned(mask, tried), true[name]) - dice(mask, true[name]) for name, mask in masks.items()]
        assert tried.difference.mean == pytest.approx(np.mean(changes), abs=1e-9)
        assert tried.helps == (tried.difference.low > 0)
    taken = (choice.cleaning.min_area, choice.cleaning.fill_holes)
    assert taken == (0, 0) or any(each.helps and (each.min_area, each.fill_holes) == taken for each in choice.tried)


def test_the_command_that_is_printed_predicts_with_all_folds(bench, choice, segreg):
    words = shlex.split(choice.command)
    assert words[:2] == ["segreg", "predict"]
    words[words.index("IMAGES")] = str(bench.parent / "images")
    printed = segreg(*words[1:], "--quiet", "--device", "cpu")
    assert printed.status == 0, printed.err
    settings = json.loads(Path("predicted/prediction.json").read_text())["settings"]
    assert len(settings["runs"]) == 3 * len(choice.candidates[0].models)


def test_what_is_printed(bench, choice, segreg, monkeypatch):
    text = "\n".join(plain(format_choice(choice)))
    assert "decided out of fold on 16 images in 8 groups, 3 folds, 1 seed, by dice.per_image_mean" in text
    assert f"best: {choice.candidates[0].name}, in {choice.candidates[0].wins:.0%} of the resamples" in text
    assert "note: The same images chose each network's checkpoint, which flatters all scores a little." in text
    assert text.endswith(choice.command)
    monkeypatch.setattr("segreg.benchmark.bench.best.best_of", lambda *_, **__: choice)
    assert json.loads(segreg("best", bench, "--json").out) == json.loads(json.dumps(dataclasses.asdict(choice)))
    assert segreg("best", bench, "--quiet").out.splitlines()[-1] == choice.command


def test_a_bench_without_folds_decides_on_its_validation_split(tmp_path_factory, segreg):
    bench = folded.bench_without(tmp_path_factory)
    choice = best_of(bench, device="cpu", progress=Quiet())
    assert (choice.folds, choice.to_runner_up, len(choice.candidates)) == (None, None, 1)
    assert choice.images == 4
    text = "\n".join(plain(format_choice(choice)))
    assert "decided on the 4 images in 2 groups of the validation split, 1 seed" in text
    printed = segreg("predict", bench, bench.parent / "images", "--out", "all", "--quiet", "--device", "cpu")
    assert printed.status == 0, printed.err


def test_a_bench_is_found_wherever_it_is_moved_and_named_by_its_models(bench, segreg, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(bench, moved)
    assert [model.name for model in models_of(moved)] == [model.name for model in models_of(bench)]
    assert all(run.directory.path.is_relative_to(moved) for model in models_of(moved) for run in model.runs)
    printed = segreg("predict", moved, bench.parent / "images", "--out", "x")
    assert printed.status == 2
    assert "is a bench of 2 models, whose runs are not predicted with together" in printed.err
    assert f"{models_of(moved)[0].folder}   {models_of(moved)[0].name}" in printed.err


def test_what_has_no_answer_is_refused(bench, segreg, tmp_path):
    assert "nowhere is not there" in segreg("best", "nowhere").err
    printed = segreg("best", bench / "runs")
    assert "is not the folder of a bench" in printed.err
    empty = tmp_path / "empty"
    (empty / "runs").mkdir(parents=True)
    (empty / "trials").mkdir()
    assert "has no results yet" in segreg("best", empty).err
    auc = tmp_path / "auc"
    shutil.copytree(bench, auc)
    results = json.loads((auc / "results.json").read_text())
    (auc / "results.json").write_text(json.dumps({**results, "metric": "roc_auc"}))
    assert "single images don't add up to roc_auc" in segreg("best", auc).err

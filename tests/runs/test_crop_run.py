"""Runs that are trained on crops: resumed bit for bit, and whole images are validated, scored and predicted alike."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import segreg
import small_runs
import tiny_runs
from segreg.config.resolve import read_resolved
from segreg.data.images import read_labels
from segreg.errors import SegregError
from segreg.runs.assembly import seeded_network

SIZES = [(40, 60), (57, 33), (20, 90)]


def recipe_in(folder):
    """Write images of three sizes, mixed by their names, and return a recipe of crops of them."""
    for number, size in enumerate(SIZES):
        images, masks = tiny_runs.folder_dataset(folder / str(number), count=8, size=size, seed=number)
        for one, kind in ((images, "images"), (masks, "masks")):
            (folder / kind).mkdir(exist_ok=True)
            for file in one.iterdir():
                file.rename(folder / kind / f"{file.stem}-{number}.png")
    return recipe_of(folder)


def recipe_of(folder):
    """Return a recipe of crops of the images in a folder."""
    return small_runs.RECIPE.replace(
        "{name: synthetic_lesions, root: images, samples: 24, size: 48}",
        f"{{name: folder, images: {folder / 'images'}, masks: {folder / 'masks'}}}",
    ).replace(
        "{size: [32, 32]}", "{size: [32, 32], resize: crop}\ncrop: {scale: [0.5, 1.5], foreground: 0.3, per_image: 2}"
    )


pytestmark = pytest.mark.usefixtures("three_convolutions", "undrawn")


@pytest.fixture(scope="module")
def run(three_convolutions, tmp_path_factory):
    folder = tmp_path_factory.mktemp("crops")
    recipe_in(folder)
    return trained(folder, "train.epochs=3")


def trained(folder, *overrides):
    """Return a run on the images of `folder`."""
    return small_runs.run(folder, "evaluate.threshold=0.3", *overrides, text=recipe_of(folder))


def folder_of(run):
    return run.directory.path.parents[2]


def same_weights(one, other):
    ours, theirs = load_file(one.directory.last), load_file(other.directory.last)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.fixture(autouse=True)
def _own_cache(run, monkeypatch):
    monkeypatch.setenv("SEGREG_CACHE", str(folder_of(run) / "cache"))


def predicted_counts(run, ids, **given):
    """Return true and false positives, false and true negatives of what `predict` returns for each image."""
    folder = folder_of(run)
    found = []
    for name in ids:
        labels = run.predict(folder / "images" / f"{name}.png", **given) == 1
        truth = read_labels(folder / "masks" / f"{name}.png") > 0
        assert labels.shape == truth.shape
        found.append([(labels & truth).sum(), (labels & ~truth).sum(), (~labels & truth).sum(),
                      (~labels & ~truth).sum()])  # fmt: skip
    return np.array(found)


def counts_in(folder):
    rows = [line.split(",") for line in (folder / "counts.csv").read_text().splitlines()]
    return [row[0] for row in rows[1:]], np.array([[int(value) for value in row[2:6]] for row in rows[1:]])


def test_validation_results_evaluation_and_prediction_agree(run, tmp_path):
    row = run.history[run.results["best_epoch"] - 1]
    for name, value in run.results["metrics"]["val"].items():
        assert row[f"val.{name}"] == pytest.approx(value, abs=1e-12), name
    again = segreg.evaluate(run, split="test", out=tmp_path / "scores")
    assert again.data["metrics"]["test"] == run.results["metrics"]["test"]
    assert run.results["resolution"] == again.data["resolution"] == "original"
    ids, counts = counts_in(run.directory.path)
    assert ids == json.loads(run.directory.split.read_text())["test"]  # in the split's order, whatever their sizes
    np.testing.assert_array_equal(counts, predicted_counts(run, ids))
    assert counts[:, 0].sum() > 0
    assert run.results["definitions"]["dice.pooled"].endswith(
        "; images are predicted whole at their own size, in tiles of 32x32 that overlap by 0.25 where they have more "
        "than 4,194,304 pixels"
    )


def test_tiles_scales_and_flips_are_evaluated_as_they_are_predicted(run, tmp_path):
    from segreg.inference.predictor import InferenceConfig

    how = {"tile": (32, 48), "overlap": 0.5, "scales": (0.8, 1.0), "flips": "mirror"}
    overrides = {f"evaluate.{name}": list(value) if isinstance(value, tuple) else value for name, value in how.items()}
    scored = segreg.evaluate(run, overrides, split="test", out=tmp_path / "scores")
    ids, counts = counts_in(tmp_path / "scores")
    np.testing.assert_array_equal(counts, predicted_counts(run, ids, config=InferenceConfig(**how)))
    assert scored.data["metrics"]["test"] != run.results["metrics"]["test"]
    assert "in tiles of 32x48 that overlap by 0.5 where they are larger" in scored.data["definitions"]["dice.pooled"]
    with pytest.raises(SegregError, match="was trained on crops"):
        segreg.evaluate(run, resolution="input", out=tmp_path / "other")


def test_a_tile_that_the_network_cannot_take_is_refused_before_training(tmp_path, monkeypatch):
    def network(*given, **more):
        model, weights = seeded_network(*given, **more)
        model.size_divisor = 16
        return model, weights

    monkeypatch.setattr("segreg.runs.assembly.seeded_network", network)
    with pytest.raises(SegregError, match="tiles of 32x15 are too small for its network"):
        small_runs.run(tmp_path, "evaluate.tile=[32,15]", text=recipe_in(tmp_path))


def test_every_pixel_is_scored_once_at_its_own_resolution(run):
    assert run.results["metrics"]["test"]["iou.pooled"] > 0.3
    ids, counts = counts_in(run.directory.path)
    for name, pixels in zip(ids, counts.sum(axis=1), strict=True):
        height, width = SIZES[int(name.rpartition("-")[2])]
        assert pixels == height * width


def test_stopped_and_resumed_it_ends_with_the_same_weights(run):
    begun = trained(folder_of(run), "train.epochs=1")
    more = segreg.resume(begun.directory.path, ["train.epochs=3"])
    assert same_weights(more, run)
    assert more.results["metrics"] == run.results["metrics"]


def test_the_resolved_recipe_has_the_crops(run):
    recipe = read_resolved(run.directory.resolved)
    assert recipe.crop == run.recipe.crop
    assert recipe.plain() == run.recipe.plain()


def test_a_centre_crop_is_validated_and_called_so(run):
    centre = trained(folder_of(run), "train.epochs=1", "train.validate_on=center_crop")
    whole = trained(folder_of(run), "train.epochs=1")
    definitions = centre.results["definitions"]
    where = "in the history it is computed for a crop of 32x32 in the middle of each image"
    assert definitions["val.dice.pooled"].endswith(f"; {where}")
    assert "whole at their own size" in definitions["dice.pooled"]
    values = centre.results["metrics"]["val"]
    assert any(centre.history[0][f"val.{name}"] != value for name, value in values.items())
    assert same_weights(centre, whole)
    assert centre.history[0]["val.loss"] != whole.history[0]["val.loss"]
    assert centre.results["metrics"]["test"] == whole.results["metrics"]["test"]


def test_crops_larger_than_all_images_are_refused_before_anything_is_made(run):
    with pytest.raises(SegregError, match="larger than every training image") as caught:
        trained(folder_of(run), "input.size=[256, 256]")
    assert "set input.size to at most" in caught.value.problems[0].hint
    assert not list(folder_of(run).glob("runs/*/.*/history.csv"))


def test_what_is_preprocessed_keeps_its_size(run):
    image = Image.fromarray(np.zeros((50, 41, 3), np.uint8))
    assert run.preprocess(np.asarray(image)).shape == (1, 3, 50, 41)

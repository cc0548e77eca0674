"""A run on crops of images of several sizes: resumed bit for bit, scored on whole images, the same wherever."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import segreg
import tiny_runs
from segreg.errors import SegregError

RECIPE = """\
seed: 3
dataset: {name: folder, images: images, masks: masks, classes: [disc]}
split: {method: random, val: 0.25, test: 0.25}
input: {size: [32, 32], resize: crop}
crop: {scale: [0.5, 1.5], foreground: 0.3, per_image: 2}
augment: [{name: HorizontalFlip, p: 0.5}]
encoder: timm/test_resnet
decoder: {name: deeplabv3plus, channels: 16}
loss: dice_bce
optimizer: {name: adam, lr: 0.01}
train: {epochs: 4, batch_size: 4, precision: float32, device: cpu}
evaluate: {metrics: [dice, iou], overlays: 1}
"""
SIZES = [(40, 56), (72, 40), (40, 56), (64, 64)]


def write_images(folder):
    chance = np.random.default_rng(0)
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for number in range(16):
        size = SIZES[number % len(SIZES)]
        rows, columns = np.indices(size)
        centre = chance.uniform(0.3, 0.7, 2) * size
        disc = np.hypot(rows - centre[0], columns - centre[1]) < 9
        image = chance.integers(0, 90, (*size, 3), dtype=np.uint8)
        image[disc] += 110
        Image.fromarray(image).save(folder / "images" / f"i{number:02}.png")
        Image.fromarray(disc.astype(np.uint8) * 255).save(folder / "masks" / f"i{number:02}.png")


def run(folder, *overrides):
    text = RECIPE.replace("images: images, masks: masks", f"images: {folder}/images, masks: {folder}/masks")
    (folder / "crops.yaml").write_text(text)
    recipe = segreg.load_recipe(folder / "crops.yaml", overrides)
    return segreg.run_recipe(recipe, out=folder / "runs", progress="quiet")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("crops")
    write_images(folder)
    return folder


@pytest.fixture(autouse=True)
def _cache(folder, monkeypatch):
    monkeypatch.setenv("SEGREG_CACHE", str(folder / "cache"))
    for name in tiny_runs._SLOW:
        monkeypatch.setattr(name, lambda *_, **__: None)


@pytest.fixture(scope="module")
def finished(folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEGREG_CACHE", str(folder / "cache"))
        for name in tiny_runs._SLOW:
            patch.setattr(name, lambda *_, **__: None)
        return run(folder)


def weights(run):
    return load_file(run.directory.last)


def test_it_learns_and_is_scored_on_whole_images(finished):
    metrics = finished.results["metrics"]["test"]
    assert metrics["iou.pooled"] > 0.3
    with (finished.directory.path / "counts.csv").open() as file:
        counted = {
            row["id"]: sum(int(row[key]) for key in row if key not in ("id", "class")) for row in csv.DictReader(file)
        }
    for name, pixels in counted.items():
        height, width = SIZES[int(name[1:]) % len(SIZES)]
        assert pixels == height * width  # every pixel once, at its own resolution


def test_stopped_and_resumed_it_ends_with_the_same_weights(finished, folder):
    half = run(folder, "train.epochs=2")
    more = segreg.resume(half.directory.path, ["train.epochs=4"])
    ours, theirs = weights(more), weights(finished)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert more.results["metrics"] == finished.results["metrics"]


def test_evaluate_gives_the_scores_of_the_run(finished):
    again = segreg.evaluate(finished.directory.path)
    for name, value in finished.results["metrics"]["test"].items():
        assert again.scores[name] == value, name


def test_the_resolved_recipe_repeats_the_run(finished, folder):
    recipe = segreg.load_recipe(finished.directory.path / "resolved.yaml")
    again = segreg.run_recipe(recipe, out=folder / "again", progress="quiet")
    assert all(torch.equal(weights(again)[name], weight) for name, weight in weights(finished).items())


def test_validation_on_centres_is_another_number_and_the_results_are_not(finished, folder):
    centre = run(folder, "train.validate_on=center_crop", "train.epochs=1")
    whole = run(folder, "train.epochs=1")
    assert all(torch.equal(weights(whole)[name], weight) for name, weight in weights(centre).items())
    assert centre.history[0]["val.loss"] != whole.history[0]["val.loss"]
    assert centre.results["metrics"]["test"] == whole.results["metrics"]["test"]


def test_crops_larger_than_all_images_are_refused_before_anything_is_made(folder):
    with pytest.raises(SegregError, match="larger than every training image") as caught:
        run(folder, "input.size=[256, 256]")
    assert "set input.size to at most" in caught.value.problems[0].hint
    assert not list((Path(folder) / "runs").glob("*/.*/history.csv"))

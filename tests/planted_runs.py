"""Runs that nobody trained: folders with the files that a run leaves, with planted settings and scores."""

from __future__ import annotations

import copy
import csv
import json
import os
import time

import numpy as np
from safetensors.numpy import save_file

from segreg.config.recipe import to_yaml

RECIPE = {
    "seed": 3,
    "dataset": {"name": "synthetic_lesions", "root": "/data/lesions", "samples": 24, "size": 48},
    "split": {"method": "random", "val": 0.2, "test": 0.2, "seed": 0, "lists": {}},
    "input": {"size": [32, 32], "resize": "stretch", "channels": 3, "sixteen_bit": "full_range"},
    "augment": [{"name": "HorizontalFlip", "p": 0.5}],
    "encoder": {"name": "timm/test_resnet", "weights": None},
    "decoder": {"name": "deeplabv3plus", "channels": 16},
    "auxiliary": None,
    "loss": [{"name": "dice_bce", "dice_weight": 1.0, "weight": 1.0}],
    "optimizer": {"name": "adam", "lr": 0.01},
    "schedule": None,
    "train": {"epochs": 3, "batch_size": 4, "monitor": "val.dice.pooled"},
    "evaluate": {"metrics": [{"name": "dice"}, {"name": "accuracy"}], "threshold": 0.5, "resolution": "input"},
}
ENVIRONMENT = {
    "recipe": "/recipes/tiny.yaml", "python": "3.11.7", "platform": "Linux", "cpus": 2,
    "device": {"name": "cpu", "model": "a CPU", "threads": 1}, "packages": {"torch": "2.15.0", "timm": "1.0.31"},
    "plugins": [{"name": "builtin-encoders", "distribution": "segreg-toolkit", "version": "0.1.0", "error": ""}],
    "commit": "1a2b3c", "command": ["segreg", "run", "tiny.yaml"], "precision": "float32",
    "model": {"parameters": {"encoder": 900, "total": 1000}, "encoder": {"strides": [2, 4], "weights": ""}},
    "initial_weights": "", "data_fingerprint": "f00d", "previous": [],
}  # fmt: skip
SPLIT = {"train": ["a", "b", "c"], "val": ["d"], "test": ["p0", "p1", "p2", "p3"]}
DEFINITION = "Dice, counted in each image."


def recipe(**changes):
    """Return the recipe with settings changed by path, dots written as two underscores."""
    values = copy.deepcopy(RECIPE)
    for path, value in changes.items():
        *way, last = path.split("__")
        inside = values
        for step in way:
            inside = inside[step]
        inside[last] = value
    return values


def plant(folder, *, settings=None, epochs=3, environment=None, split=None, results=None, finished=True):
    """Write what a run's process leaves: a finished run without scores of single images, or an unfinished one."""
    folder.mkdir(parents=True)
    settings = settings or recipe()
    (folder / "resolved.yaml").write_text(to_yaml(settings, header="segreg run resolved.yaml"), encoding="utf-8")
    (folder / "recipe.yaml").write_text(to_yaml(settings), encoding="utf-8")
    _write_json(folder / "environment.json", {**ENVIRONMENT, **(environment or {})})
    _write_json(folder / "split.json", split or SPLIT)
    rows = [{"epoch": number, "val.loss": 1 / number, "seconds": 2.0} for number in range(1, epochs + 1)]
    (folder / "history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    if finished:
        _write_json(folder / "results.json", {**_results(settings, epochs), **(results or {})})
    return folder


def score(folder, dice, *, counts=None, pooled=0.5, definition=DEFINITION):
    """Return a planted run its scores: of each test image, and what they add up to.

    Args:
        folder: the run's.
        dice: by id each image's Dice, NaN where it is undefined.
        counts: by id tp, fp, fn and tn, of which the pooled Dice is then made; None leaves none, as older runs did.
        pooled: the pooled Dice where there are no counts.
        definition: of the mean.
    """
    with (folder / "per_image.csv").open("w", encoding="utf-8", newline="") as text:
        writer = csv.writer(text)
        writer.writerows([["id", "dice"], *dice.items()])
    if counts:
        with (folder / "counts.csv").open("w", encoding="utf-8", newline="") as text:
            writer = csv.writer(text)
            writer.writerow(["id", "class", "tp", "fp", "fn", "tn"])
            writer.writerows([name, "lesion", *numbers] for name, numbers in counts.items())
        tp, fp, fn, _ = np.sum(list(counts.values()), 0)
        pooled = float(2 * tp / (2 * tp + fp + fn))
    values = {"dice.pooled": pooled, "dice.per_image_mean": float(np.nanmean(list(dice.values())))}
    results = json.loads((folder / "results.json").read_text())
    results |= {"metrics": {"val": {"dice.pooled": pooled / 2}, "test": values}}
    results |= {"definitions": {"dice.per_image_mean": definition}}
    _write_json(folder / "results.json", results)
    return folder


def weigh(folder, *, seed=0):
    """Return a planted run the files of its weights, with the notes that tell its classes."""
    tensors = {"head": np.random.default_rng(seed).random(8, dtype=np.float32)}
    for name in ("best", "last"):
        notes = {"task": json.dumps({"classes": ["lesion"], "mode": "binary"}), "recipe": str(folder)}
        save_file(tensors, folder / f"{name}.safetensors", notes)
    return folder


def touch(folder, when):
    """Has all files of a run changed at a local time such as "2026-01-31 12:00:00"."""
    seconds = time.mktime(time.strptime(when, "%Y-%m-%d %H:%M:%S"))
    for file in folder.iterdir():
        os.utime(file, (seconds, seconds))


def _results(settings, epochs):
    return {
        "notice": "", "weights": "", "recipe": "/recipes/tiny.yaml", "dataset": settings["dataset"]["name"],
        "classes": ["lesion"], "seed": settings["seed"], "images": {"train": 3, "val": 1, "test": 4},
        "epochs": epochs, "stopped_because": "finished", "monitor": "val.dice.pooled", "best_epoch": epochs,
        "best_value": 0.5, "training_seconds": 6.5, "precision": "float32", "scored_on": "test", "resolution": "input",
        "metrics": {"val": {"dice.pooled": 0.25}, "test": {"dice.pooled": 0.5}}, "definitions": {}, "intervals": {},
    }  # fmt: skip


def _write_json(file, content):
    file.write_text(json.dumps(content), encoding="utf-8")


IMAGES = 40


def planted(folder, encoder, *, seed=0, better=0.0, noise=0.02, images=IMAGES, counts=True, hard=None):
    """Plant a run whose Dice in each image is that of its counts: a common difficulty, noise, and what is better."""
    settings = recipe(encoder={"name": encoder, "weights": None}, seed=seed)
    weigh(plant(folder, settings=settings))
    draw = np.random.default_rng([seed, *map(ord, encoder)])
    common = np.random.default_rng(7).uniform(0.5, 0.9, 200)[:images] if hard is None else hard
    dice = np.clip(common + better + draw.normal(0, noise, len(common)), 0, 1)
    found = {
        f"p{n:02}": (round(1000 * d), 1000 - round(1000 * d), 1000 - round(1000 * d), 500) for n, d in enumerate(dice)
    }
    each = {name: tp / 1000 for name, (tp, *_) in found.items()}
    score(folder, each, counts=found if counts else None)
    return folder

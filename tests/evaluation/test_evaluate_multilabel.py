"""Classes that overlap, from COCO's files through a training to `segreg evaluate`, against scikit-learn and NumPy."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from PIL import Image
from sklearn import metrics as sklearn

import small_runs
from segreg.runs.load import load_run

COUNT, SIZE, CROWD = 20, (40, 48), 3
CLASSES = ["cell", "nucleus"]
METRICS = "[dice, iou, accuracy, roc_auc, pr_auc, mse, ece, best_threshold]"


@pytest.fixture
def _encoder():
    with small_runs.encoder():
        yield


def outline(top, left, bottom, right):
    return [[left, top, right, top, right, bottom, left, bottom]]


def write_export(folder):
    """Write cells with nuclei in them and a strip of unparted nuclei, and return each image's layers by its name."""
    drawn = np.random.default_rng(3)
    images, annotations, layers = [], [], {}
    # A region of many nuclei, the first columns, run by run from the top left and downwards.
    strip = {"size": list(SIZE), "counts": [0, CROWD * SIZE[0], (SIZE[1] - CROWD) * SIZE[0]]}
    for number in range(COUNT):
        top, left = drawn.integers(2, 12), drawn.integers(5, 16)
        bottom, right = top + drawn.integers(14, 24), left + drawn.integers(14, 28)
        cell, nucleus = (top, left, bottom, right), (top + 2, left + 2, bottom - 2, right - 2)
        image = drawn.integers(0, 90, (*SIZE, 3), dtype=np.uint8)
        own = np.zeros((2, *SIZE), int)
        for layer, (y, x, below, beyond) in enumerate((cell, nucleus)):
            own[layer, y:below, x:beyond] = 1
            image[y:below, x:beyond, layer] += np.uint8(150)
        own[1, :, :CROWD] = 255
        name = f"{number:02}"
        layers[name] = own
        Image.fromarray(image).save(folder / f"{name}.png")
        images.append({"id": number, "file_name": f"{name}.png", "height": SIZE[0], "width": SIZE[1]})
        for category, segmentation in ((1, outline(*map(int, cell))), (2, outline(*map(int, nucleus))), (2, strip)):
            annotations.append(
                {"id": len(annotations), "image_id": number, "category_id": category, "segmentation": segmentation,
                 "iscrowd": int(segmentation is strip)}
            )  # fmt: skip
    categories = [{"id": number, "name": name} for number, name in enumerate(CLASSES, start=1)]
    reported = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "cells.json").write_text(json.dumps(reported))
    return layers


def pixels(layers, probabilities, k):
    """Return the truth and the probability of a class at every pixel that counts."""
    truth = np.concatenate([own[k].ravel() for own in layers])
    probability = np.concatenate([own[k].ravel() for own in probabilities])
    return truth[truth != 255], probability[truth != 255]


def calibration_error(truth, probability):
    places = np.minimum((probability * 15).astype(int), 14)
    there = [places == place for place in range(15)]
    return sum(abs(probability[own].sum() - truth[own].sum()) for own in there) / len(truth)


@pytest.mark.slow
@pytest.mark.usefixtures("_encoder")
def test_a_run_of_coco_is_scored_as_scikit_learn_scores_it(tmp_path, monkeypatch, segreg):
    monkeypatch.setenv("SEGREG_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "export"
    folder.mkdir()
    layers = write_export(folder)
    text = small_runs.RECIPE.replace(
        "{name: synthetic_lesions, root: images, samples: 24, size: 48}", f"{{name: coco, root: {folder}}}"
    )
    ran = small_runs.run(tmp_path, "dataset.mode=multilabel", "loss=bce", "evaluate.overlays=0", text=text)
    monkeypatch.setattr("segreg.runs.evaluate_run.plot_metrics", lambda *_: None)
    printed = segreg(
        "evaluate", ran.directory.path, "--out", tmp_path / "out", "--resolution", "original", "--quiet",
        f"evaluate.metrics={METRICS}",
    )  # fmt: skip
    assert printed.status == 0, printed.err
    reported = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert (reported["mode"], reported["classes"], reported["images"]) == ("multilabel", CLASSES, {"test": 4})
    scored = reported["metrics"]["test"]

    run = load_run(ran.directory.path)
    names = json.loads(run.directory.split.read_text())["test"]
    truths = [layers[name] for name in names]
    said = [run.probabilities(folder / f"{name}.png") for name in names]
    each = {key: [] for key in ("dice", "iou", "roc_auc", "pr_auc", "mse", "ece")}
    right = count = 0
    for k, name in enumerate(CLASSES):
        truth, probability = pixels(truths, said, k)
        assert len(truth) == 4 * SIZE[0] * (SIZE[1] - k * CROWD)
        found = probability >= 0.5
        assert found.any()  # or there would be little to compare
        right, count = right + (found == truth).sum(), count + len(truth)
        for key, value in (
            ("dice", sklearn.f1_score(truth, found)),
            ("iou", sklearn.jaccard_score(truth, found)),
            ("roc_auc", sklearn.roc_auc_score(truth, probability)),
            ("pr_auc", sklearn.average_precision_score(truth, probability)),
            ("mse", sklearn.brier_score_loss(truth, probability)),
            ("ece", calibration_error(truth, probability.astype(float))),
        ):
            assert scored[f"{key}.class.{name}"] == pytest.approx(value, abs=1e-5), key
            each[key].append(value)
        threshold = scored[f"best_threshold.class.{name}"]
        best = scored[f"best_threshold.f1.class.{name}"]
        assert best == pytest.approx(sklearn.f1_score(truth, probability >= threshold), abs=1e-5)
        assert best >= max(sklearn.f1_score(truth, probability >= other) for other in np.linspace(0, 1, 21)) - 1e-5
    for key, values in each.items():
        assert scored[f"{key}.pooled"] == pytest.approx(np.mean(values), abs=1e-5), key
    assert scored["accuracy.pooled"] == pytest.approx(right / count, abs=1e-5)

    with (tmp_path / "out" / "per_image.csv").open() as file:
        rows = {row["id"]: row for row in csv.DictReader(file)}
    assert list(rows) == names
    own = []
    for name, truth, probability in zip(names, truths, said, strict=True):
        both = [pixels([truth], [probability], k) for k in range(2)]
        own.append(np.mean([sklearn.f1_score(t, p >= 0.5) for t, p in both]))
        assert float(rows[name]["dice"]) == pytest.approx(own[-1], abs=1e-5)
    assert scored["dice.per_image_mean"] == pytest.approx(np.mean(own), abs=1e-5)

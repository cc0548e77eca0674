"""What a finished training leaves: results with definitions, rows, overlays, and the words at its end."""

from __future__ import annotations

import contextlib
import csv
import json
import math
import re
import shutil
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from PIL import Image

import segreg
import small_runs
import tiny_runs
from segreg.runs import results as run_results
from segreg.runs.results import format_results
from segreg.runtime.layout import plain

pytestmark = pytest.mark.usefixtures("three_convolutions", "undrawn")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SEGREG_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return tiny_runs.finished(tmp_path_factory)


@pytest.fixture(scope="module")
def trained(three_convolutions, tmp_path_factory):
    """A run of one epoch, with overlays; nobody may change it."""
    return small_runs.run(tmp_path_factory.mktemp("trained"), "train.epochs=1")


def rows_of(run):
    with run.directory.per_image.open() as file:
        return list(csv.DictReader(file))


def test_results_say_what_was_scored_and_on_what(finished):
    results = finished.results
    split = json.loads(finished.directory.split.read_text())
    assert results["images"] == {split: len(ids) for split, ids in split.items()} == {"train": 14, "val": 5, "test": 5}
    assert results["dataset"] == "synthetic_lesions"
    assert results["classes"] == ["lesion"]
    assert (results["epochs"], results["stopped_because"], results["seed"]) == (6, "finished", 3)
    assert results["precision"] == "float32"
    assert results["recipe"].endswith("tiny.yaml")
    assert results["weights"] == ""
    assert results["training_seconds"] == pytest.approx(sum(row["seconds"] for row in finished.history), abs=0.01)


def test_every_number_has_a_definition(finished):
    for split in ("val", "test"):
        assert finished.results["metrics"][split].keys() == finished.results["definitions"].keys()
    pooled = finished.results["definitions"]["dice.pooled"]
    assert "2 TP / (2 TP + FP + FN)" in pooled
    assert "foreground from probability 0.5" in pooled


def test_what_the_last_epoch_has_predicted_is_not_predicted_again(tmp_path):
    words = ("train.epochs=1", "split.test=0", "train.ema=0.5")
    for name in ("once", "again"):
        (tmp_path / name).mkdir()
    with mock.patch("segreg.training.trainer.MOST_KEPT", 0):
        again = small_runs.run(tmp_path / "again", *words)
    with mock.patch("segreg.evaluation.evaluator.logits_of", side_effect=AssertionError):
        once = small_runs.run(tmp_path / "once", *words)
    for name in ("metrics", "intervals", "overlays"):
        assert once.results[name] == again.results[name]
    for file in ("per_image.csv", "counts.csv"):
        assert (once.directory.path / file).read_bytes() == (again.directory.path / file).read_bytes()


@pytest.fixture(scope="module")
def asked(three_convolutions, tmp_path_factory):
    """A run of one epoch with metrics in another order and more overlays than it has images."""
    words = ("train.epochs=1", "evaluate.metrics=[recall, accuracy, dice]", "evaluate.overlays=99")
    return small_runs.run(tmp_path_factory.mktemp("asked"), *words)


def test_metrics_stand_in_the_recipes_order(asked):
    names = [name.split(".")[0] for name in asked.results["metrics"]["test"]]
    assert list(dict.fromkeys(names)) == ["recall", "accuracy", "dice"]
    assert list(rows_of(asked)[0]) == ["id", "recall", "accuracy", "dice"]


def test_as_many_overlays_as_asked_for_and_no_more_than_images(finished, asked):
    drawn = [len(list(run.directory.overlays.iterdir())) for run in (finished, asked)]
    assert drawn == [2, 5]


def test_rows_are_the_test_images_and_their_mean_is_the_per_image_mean(finished):
    rows = rows_of(finished)
    assert [row["id"] for row in rows] == json.loads(finished.directory.split.read_text())["test"]
    for name in ("dice", "iou", "accuracy"):
        mean = np.mean([float(row[name]) for row in rows])
        assert mean == pytest.approx(finished.results["metrics"]["test"][f"{name}.per_image_mean"], abs=1e-12)


def test_without_athe_test_split_validation_is_scored_and_said_so(tmp_path, segreg):
    recipe = small_runs.write_recipe(tmp_path)
    printed = segreg("run", recipe, "train.epochs=1", "split.test=0", "--out", tmp_path / "runs")
    run = load_run(tmp_path)
    assert run.results["scored_on"] == "val"
    assert run.results["metrics"].keys() == {"val"}
    assert [row["id"] for row in rows_of(run)] == json.loads(run.directory.split.read_text())["val"]
    assert "val (5 images, at input resolution, best weights):" in printed.out.splitlines()


def run_in(path):
    return segreg.load_run(path)


def load_run(tmp_path):
    (path,) = (tmp_path / "runs" / "tiny").iterdir()
    return run_in(path)


def test_overlays_go_from_the_worst_to_the_best(tmp_path):
    run = small_runs.run(tmp_path, "train.epochs=3", "evaluate.overlays=3")
    ids = [file.stem.split("_", 1)[1] for file in sorted(run.directory.overlays.iterdir())]
    by_score = sorted(rows_of(run), key=lambda row: float(row["dice"]))
    shown = run.results["overlays"]
    assert (shown["worst"], shown["best"]) == ([by_score[0]["id"]], [by_score[4]["id"]])
    assert shown["random"][0] in [row["id"] for row in by_score[1:4]]
    assert ids == [*shown["worst"], *shown["random"], *shown["best"]]


def test_an_overlay_shows_the_networks_prediction(finished):
    from segreg.data import fit_image, fit_mask
    from segreg.data.images import read_image
    from segreg.visualize.panels import side_by_side

    file = sorted(finished.directory.overlays.iterdir())[0]
    name = file.stem.split("_", 1)[1]
    row = next(row for row in rows_of(finished) if row["id"] == name)
    folder = next((finished.directory.path.parents[2] / "images").iterdir())
    image = fit_image(read_image(next(folder.glob(f"*Input/{name}.jpg"))), finished.recipe.input)
    truth = np.asarray(Image.open(next(folder.glob(f"*/{name}_segmentation.png")))) // 255
    labels = (finished.model()(finished.preprocess(next(folder.glob(f"*Input/{name}.jpg"))))[0, 0] >= 0).numpy()
    title = "  ".join([name, *(f"{key} {float(row[key]):.3f}" for key in ("dice", "iou", "accuracy"))])
    again = side_by_side(
        image, fit_mask(truth, finished.recipe.input), labels.astype("uint8"), finished.task,
        title=title, notice=finished.results["notice"],
    )  # fmt: skip
    assert np.array_equal(np.asarray(Image.open(file)), np.asarray(again))


def test_the_curves_are_a_image_of_something(finished):
    image = Image.open(finished.directory.curves)
    assert image.format == "PNG"
    assert image.width > 800
    assert np.asarray(image.convert("L")).std() > 10


def test_what_is_undefined_is_null_in_the_file_and_so_reported(tmp_path, segreg, monkeypatch, drawn):
    """Masks of nothing but ignored pixels, were they not refused: no score is defined, and JSON has no NaN."""
    monkeypatch.setattr("segreg.data.inspection.gate.Verdict.refuse_errors", lambda _: None)
    _, masks = tiny_runs.folder_dataset(tmp_path, count=10, classes=3)
    for file in masks.iterdir():
        Image.fromarray(np.full((40, 40), 255, np.uint8)).save(file)
    text = small_runs.RECIPE.replace(
        "{name: synthetic_lesions, root: images, samples: 24, size: 48}",
        f"{{name: folder, images: {tmp_path}/images, masks: {tmp_path}/masks, classes: [a, b, c]}}",
    ).replace("loss: dice_bce", "loss: cross_entropy")
    recipe = small_runs.write_recipe(tmp_path, text)
    printed = segreg("run", recipe, "train.epochs=1", "--out", tmp_path / "runs")
    assert printed.status == 0, printed.err
    assert "; val.dice.pooled was never defined\n" in printed.out
    assert "last weights" in printed.out
    assert re.search(r"^  dice\.pooled +undefined$", printed.out, re.MULTILINE)
    run = load_run(tmp_path)
    strict = json.loads(run.directory.results.read_text(), parse_constant=lambda name: pytest.fail(name))
    assert strict["metrics"]["test"]["dice.pooled"] is None
    assert strict["best_epoch"] == 0
    assert strict["best_value"] is None
    assert math.isnan(run.history[0]["val.dice.pooled"])
    assert not run.directory.best.exists()
    # Without a best epoch, predictions come from the last one.
    assert run.predict(next((tmp_path / "images").iterdir())).shape == (40, 40)
    assert segreg("run", "--resume", run.directory.path, "--quiet").status == 0


RESULTS = {
    "notice": "", "weights": "", "stopped_because": "early stopping", "epochs": 12, "training_seconds": 200.4,
    "monitor": "val.loss", "best_epoch": 7, "best_value": 0.25, "scored_on": "test", "images": {"test": 9},
    "resolution": "original", "metrics": {"test": {"dice.pooled": 0.5, "iou.class.sky": None}},
}  # fmt: skip


def test_words_at_the_end(finished):
    directory = finished.directory
    assert plain(format_results(RESULTS, directory)) == [
        "",
        "12 epochs in 3 min 20 s, early stopping; best epoch 7 (val.loss 0.2500)",
        "test (9 images, at original resolution, best weights):",
        "  dice.pooled    0.5000",
        "  iou.class.sky  undefined",
        "dice.pooled is 0.500 on images that no training step has seen",
        f"everything is in {directory.path}",
    ]
    shouted = plain(format_results({**RESULTS, "notice": "SYNTHETIC", "weights": "RANDOM weights"}, directory))
    assert [line for line in shouted if line.startswith("!! ")] == [
        f"!! {word:<74} !!" for word in ("SYNTHETIC", "RANDOM weights")
    ]


def test_results_are_written_before_pictures(tmp_path, monkeypatch):
    seen = {}

    def look(metrics, folder, guard):
        seen.update(json.loads((folder / "results.json").read_text()))
        assert (folder / "per_image.csv").exists()

    with mock.patch.object(run_results, "plot_metrics", look):
        run = small_runs.run(tmp_path, "train.epochs=1", drawn=True)
    assert seen["metrics"] == run.results["metrics"]
    assert run.results["warnings"] == []


def disk_is_full(*_, **__):
    raise OSError(28, "No space left on device")


@pytest.fixture
def copied(trained, tmp_path, drawn):
    """Return the directory of a trained run that the test may have scored, drawn and reported again."""
    path = shutil.copytree(trained.directory.path, tmp_path / "copied")
    shutil.rmtree(path / "overlays")
    (path / "results.json").unlink()
    return path


FAULTS = {
    "confusion matrices and each overlay": (
        {"segreg.visualize.plots._matrices": MemoryError(), "segreg.evaluation.evaluator.side_by_side": disk_is_full},
        {"confusion.png": "confusion.png was not written: Memory", "overlays/01": "No space left on device",
         "overlays/02": "No space left on device"},
    ),
    "curves, all overlays and the report": (
        {"segreg.runs.results.plot_history": RuntimeError("no"), "segreg.reports.run._history": MemoryError(),
         "segreg.evaluation.evaluator.Evaluator.save_overlays": KeyError("a")},
        {"curves.png": "curves.png was not written: Runtime", "overlays/": "overlays was not written",
         "report.html": "no report was written: Memory"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", FAULTS)
def test_a_picture_or_report_that_fails_costs_only_itself(case, copied, segreg):
    broken, lost = FAULTS[case]
    with contextlib.ExitStack() as faults:
        for target, fault in broken.items():
            faults.enter_context(mock.patch(target, side_effect=fault))
        printed = segreg("run", "--resume", copied)
    assert printed.status == 0, printed.err
    run = run_in(copied)
    assert len(run.results["warnings"]) == len(lost)
    for warning in run.results["warnings"]:
        assert f"warning: {warning}" in printed.err
        assert any(says in warning for says in lost.values())
    for says in lost.values():
        assert any(says in warning for warning in run.results["warnings"])
    assert run.results["metrics"]["test"]["dice.pooled"] is not None
    there = {str(file.relative_to(run.directory.path)) for file in run.directory.path.rglob("*.*")}
    wanted = {"confusion.png", "curves.png", "report.html", "per_image.csv", "overlays/01", "overlays/02"}
    gone = {name for name in wanted if not any(file.startswith(name) for file in there)}
    assert gone == {name for name in wanted if name.startswith(tuple(lost))}
    assert not [file for file in there if file.endswith(".writing")]
    if "report.html" in there:
        page = run.directory.report.read_text()
        assert all(says.replace("'", "&#39;") in page for says in lost.values())


def test_curves_that_fail_do_not_stop_a_training(tmp_path, segreg, monkeypatch):
    monkeypatch.setattr("segreg.runs.run.SECONDS_BETWEEN_CURVES", -1.0)
    recipe = small_runs.write_recipe(tmp_path)
    with mock.patch("segreg.runs.run.plot_history", side_effect=MemoryError):
        printed = segreg("run", recipe, "train.epochs=3", "--out", tmp_path / "runs")
    assert printed.status == 0, printed.err
    assert load_run(tmp_path).results["warnings"] == ["curves.png was not written: MemoryError"]
    assert printed.err.count("warning: curves.png") == 1


def test_an_interrupt_while_drawing_is_an_interrupt(copied, segreg):
    with mock.patch("segreg.visualize.plots._matrices", side_effect=KeyboardInterrupt):
        printed = segreg("run", "--resume", copied)
    assert printed.status != 0
    assert json.loads((copied / "results.json").read_text())["metrics"]


def test_overlays_of_an_evaluation_before_are_removed(trained, tmp_path, segreg):
    path = shutil.copytree(trained.directory.path, tmp_path / "copied")
    (path / "overlays" / "01_of_before.png").write_bytes(b"")
    (path / "results.json").unlink()
    assert segreg("run", "--resume", path).status == 0
    assert len(list((path / "overlays").iterdir())) == 2


@pytest.mark.parametrize(
    "overrides",
    [("train.precision=bf16", "evaluate.batch_size=3", "train.ema=0.9"),
     ("train.precision=float32", "train.channels_last=false")],
)  # fmt: skip
def test_validation_the_results_and_evaluate_give_the_same_weights_the_same_scores(tmp_path, segreg, overrides):
    metrics = "evaluate.metrics=[dice, boundary_iou, roc_auc, mse]"
    run = small_runs.run(tmp_path, "train.epochs=2", "evaluate.overlays=0", metrics, *overrides)
    assert not run.directory.overlays.exists()
    val = run.results["metrics"]["val"]
    row = run.history[run.results["best_epoch"] - 1]
    assert {name: row[f"val.{name}"] for name in val} == val
    printed = segreg("evaluate", run.directory.path, "--split", "val", "--json")
    assert printed.status == 0, printed.err
    assert json.loads(printed.out)["metrics"]["val"] == val
    out = tmp_path / "test"
    assert segreg("evaluate", run.directory.path, "--split", "test", "--out", out, "--quiet").status == 0
    assert json.loads((out / "metrics.json").read_text())["metrics"]["test"] == run.results["metrics"]["test"]
    assert (out / "per_image.csv").read_text() == run.directory.per_image.read_text()
    exact = json.loads(segreg("evaluate", run.directory.path, "--split", "val", "--precision", "float32", "--json").out)
    assert (exact["precision"], Path(exact["out"]).name) == ("float32", "val_float32")
    half = overrides[0].endswith("bf16")
    assert (exact["metrics"]["val"] != val) == half
    assert exact["metrics"]["val"] == pytest.approx(val, abs=0.05)  # rounding moves the scores of so small a network
    assert run.results["precision"] == ("bf16" if half else "float32")


def test_254_classes_are_scored_drawn_and_reported(tmp_path, segreg, drawn):
    images, masks = tiny_runs.folder_dataset(tmp_path, count=10, size=(32, 32))
    drawn = np.random.default_rng(0)
    for file in masks.iterdir():
        Image.fromarray(drawn.integers(0, 254, (32, 32), dtype=np.uint8)).save(file)
    classes = ", ".join(f"class {k}" for k in range(254))
    text = small_runs.RECIPE.replace(
        "{name: synthetic_lesions, root: images, samples: 24, size: 48}",
        f"{{name: folder, images: {images}, masks: {masks}, classes: [{classes}]}}",
    ).replace("loss: dice_bce", "loss: cross_entropy")
    recipe = small_runs.write_recipe(tmp_path, text)
    printed = segreg("run", recipe, "train.epochs=1", "--out", tmp_path / "runs")
    assert printed.status == 0, printed.err
    run = load_run(tmp_path)
    assert run.results["warnings"] == []
    assert len(run.results["metrics"]["test"]) > 2 * 254
    for name in ("confusion.png", "curves.png"):
        with Image.open(run.directory.path / name) as image:
            assert max(image.size) <= 3300
    page = run.directory.report.read_text()
    assert "the 60 of 254 classes with the lowest dice; results.json has all" in page
    assert "class 59 and 194 more" in page
    assert page.count('<tr><th scope="row">class ') == 60

"""`segreg evaluate`: what it scores, what it leaves and prints, and what it refuses."""

from __future__ import annotations

import csv
import dataclasses
import json
import shutil
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from PIL import Image

import small_runs
import tiny_runs
from segreg.data import divide
from segreg.errors import SegregError
from segreg.runs.evaluate_run import Request, _folder_name, rescore
from segreg.runs.load import load_run
from segreg.runtime.progress import Quiet
from segreg.task import Task
from segreg.visualize.plots import plot_metrics

SEVERAL = small_runs.RECIPE.replace("loss: dice_bce", "loss: cross_entropy")
IMAGES = "{name: synthetic_lesions, root: images, samples: 24, size: 48}"


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    """Work in an empty folder, without the diagrams of metrics."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEGREG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("segreg.runs.evaluate_run.plot_metrics", lambda *_: None)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return tiny_runs.finished(tmp_path_factory)


@pytest.fixture(scope="module")
def of_classes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("classes")
    images, masks = tiny_runs.folder_dataset(folder / "set", count=12, classes=3)
    own = f"{{name: folder, images: {images}, masks: {masks}, classes: [ground, disc, ring]}}"
    with small_runs.encoder():
        yield small_runs.run(folder, "train.epochs=1", "evaluate.overlays=1", text=SEVERAL.replace(IMAGES, own))


@pytest.fixture
def copy(finished, tmp_path):
    """A run of one's own, which may be changed."""
    folder = tmp_path / "copy"
    shutil.copytree(finished.directory.path, folder)
    return folder


def found(folder):
    return json.loads((folder / "metrics.json").read_text(), parse_constant=lambda name: pytest.fail(name))


def rows(folder):
    with (folder / "per_image.csv").open() as file:
        return list(csv.DictReader(file))


def split_of(run):
    return json.loads(run.directory.split.read_text())


def test_the_test_split_gives_the_scores_of_the_run(segreg, finished, monkeypatch):
    monkeypatch.setattr("segreg.runs.evaluate_run.plot_metrics", plot_metrics)
    printed = segreg("evaluate", finished.directory.path, "--out", "out", "--device", "cpu")
    assert (printed.status, printed.err) == (0, "")
    here, reported = Path("out"), found(Path("out"))
    for key in ("metrics", "intervals"):
        assert reported[key].keys() == {"test"}
        for name, value in finished.results[key]["test"].items():
            assert reported[key]["test"][name] == pytest.approx(value)
    assert reported["definitions"] == finished.results["definitions"]
    assert [row["id"] for row in rows(here)] == split_of(finished)["test"]
    assert (here / "per_image.csv").read_text() == finished.directory.per_image.read_text()
    assert (reported["threshold"], reported["threshold_is"], reported["weights"]) == (0.5, "the recipe's", "best")
    assert "test (5 images, at input resolution, best weights, threshold 0.5 (the recipe's)):" in printed.out
    assert (here / "confusion.png").is_file()
    low, high = reported["intervals"]["test"]["dice.pooled"]
    assert (
        f"  dice.pooled              {reported['metrics']['test']['dice.pooled']:.4f}  [{low:.4f}, {high:.4f}]"
        in printed.out
    )


def test_a_picture_that_fails_costs_only_itself(segreg, finished, monkeypatch):
    monkeypatch.setattr("segreg.runs.evaluate_run.plot_metrics", plot_metrics)
    with mock.patch("segreg.visualize.plots._matrices", side_effect=MemoryError):
        printed = segreg("evaluate", finished.directory.path, "--out", "out", "--device", "cpu")
    assert printed.status == 0
    assert found(Path("out"))["warnings"] == ["confusion.png was not written: MemoryError"]
    assert "warning: confusion.png was not written: MemoryError" in printed.err
    assert not Path("out/confusion.png").exists()
    assert list(Path("out/worst").iterdir())


def test_worst_and_best_images(segreg, finished):
    folder = Path("out")
    (folder / "worst").mkdir(parents=True)
    (folder / "worst" / "07_of_another_time.png").touch()
    (folder / "worst" / "mine.png").touch()
    assert segreg("evaluate", finished.directory.path, "--out", folder, "--quiet").status == 0
    by_score = [row["id"] for row in sorted(rows(folder), key=lambda row: float(row["dice"]))]
    names = {split: sorted(file.name for file in (folder / split).iterdir()) for split in ("worst", "best")}
    assert names["worst"] == [f"01_{by_score[0]}.png", f"02_{by_score[1]}.png", "mine.png"]
    assert names["best"] == [f"01_{by_score[-1]}.png", f"02_{by_score[-2]}.png"]


def test_other_sides_go_into_the_runs_folder(segreg, copy):
    for split, count in (("val", 5), ("train", 14)):
        assert segreg("evaluate", copy, "--split", split, "--quiet").status == 0
        reported = found(copy / "evaluations" / split)
        assert (reported["scored_on"], reported["images"], len(rows(copy / "evaluations" / split))) == (
            split,
            {split: count},
            count,
        )
    val = load_run(copy).results["metrics"]["val"]
    assert found(copy / "evaluations" / "val")["metrics"]["val"] == pytest.approx(val)


@pytest.mark.parametrize(
    ("value", "status", "words"),
    [
        (255, 2, "every pixel of the data of discs.yaml is ignored"),
        (0, 0, '!! NO FOREGROUND: the data of discs.yaml never shows "lesion", nothing but'),
    ],
)
def test_other_data_passes_the_gate_that_a_run_passes(segreg, finished, tmp_path, value, status, words):
    images, masks = tiny_runs.folder_dataset(tmp_path / "discs", count=4)
    for mask in masks.iterdir():
        Image.fromarray(np.full(np.asarray(Image.open(mask)).shape, value, np.uint8)).save(mask)
    own = f"{{name: folder, images: {images}, masks: {masks}, classes: [lesion], ignore_index: 255}}"
    recipe = tiny_runs.write_recipe(tmp_path, tiny_runs.RECIPE.replace(IMAGES, own), name="discs")
    printed = segreg("evaluate", finished.directory.path, "--data", recipe, "--out", "all", "--quiet")
    assert printed.status == status, printed.err
    assert words in (printed.err if status else printed.out)
    assert (tmp_path / "all").exists() == (not status)
    if not status:
        assert found(tmp_path / "all")["alerts"][0].startswith("NO FOREGROUND")
        assert found(tmp_path / "all")["warnings"] == ['no mask shows "lesion"']


def test_recipes_of_one_file_name_keep_their_own_scores(segreg, copy, tmp_path):
    for place, count in (("one", 3), ("two", 4)):
        images, masks = tiny_runs.folder_dataset(tmp_path / place, count=count)
        own = f"{{name: folder, images: {images}, masks: {masks}, classes: [lesion]}}"
        recipe = tiny_runs.write_recipe(tmp_path / place, tiny_runs.RECIPE.replace(IMAGES, own), name="discs")
        assert segreg("evaluate", copy, "--data", recipe, "--quiet").status == 0
    assert segreg("evaluate", copy, "--data", tmp_path / "one" / recipe.name, "--quiet").status == 0
    one, two = sorted((copy / "evaluations").glob("discs*"))
    assert (len(rows(one)), len(rows(two))) == (3, 4)
    named = tmp_path / "three" / recipe.name  # the same file, for other data
    shutil.copytree(tmp_path / "two", named.parent)
    for count, place in enumerate(("one", "two")):
        text = recipe.read_text().replace(str(tmp_path / "two"), str(tmp_path / place))
        named.write_text(text)
        assert segreg("evaluate", copy, "--data", named, "--quiet").status == 0
        assert len(list((copy / "evaluations").glob("discs*"))) == 3 + count
    (one / "metrics.json").write_text("{")
    assert segreg("evaluate", copy, "--data", tmp_path / "one" / recipe.name, "--quiet").status == 0
    assert found(one)["higher_is_better"]["dice"] is True


def test_other_data_whole_and_a_side_of_it(segreg, finished, tmp_path):
    images, masks = tiny_runs.folder_dataset(tmp_path / "discs", count=10)
    own = f"{{name: folder, images: {images}, masks: {masks}, classes: [lesion]}}"
    recipe = tiny_runs.write_recipe(tmp_path, tiny_runs.RECIPE.replace(IMAGES, own), name="discs")
    printed = segreg("evaluate", finished.directory.path, "--data", recipe, "--out", "all", "--json")
    reported = json.loads(printed.out)
    assert (reported["scored_on"], reported["images"], reported["dataset"]) == ("all", {"all": 10}, "folder")
    assert reported["notice"].startswith("trained on: SYNTHETIC")
    assert len(rows(tmp_path / "all")) == 10
    assert segreg("evaluate", finished.directory.path, "--data", recipe, "--split", "test", "--out", "side").status == 0
    from segreg.config.recipe import read_recipe
    from segreg.config.resolve import resolve
    from segreg.models.build import build_dataset
    from segreg.registry.registry import load_registry

    other = resolve(read_recipe(recipe), load_registry())
    dataset = build_dataset(other)
    ids = [dataset.samples[index].id for index in divide(dataset, other.split)["test"]]
    assert [row["id"] for row in rows(tmp_path / "side")] == ids


def test_at_original_resolution_pixels_of_the_images_are_counted(segreg, finished):
    assert (
        segreg("evaluate", finished.directory.path, "--resolution", "original", "--out", "out", "--quiet").status == 0
    )
    reported = found(Path("out"))
    assert reported["resolution"] == "original"
    assert reported["metrics"]["test"] != finished.results["metrics"]["test"]
    dataset_root = finished.directory.path.parents[2] / "images"
    scores = []
    for row in rows(Path("out")):
        truth = np.asarray(Image.open(next(dataset_root.rglob(f"{row['id']}_segmentation.png")))) > 0
        said = finished.predict(next(dataset_root.rglob(f"{row['id']}.jpg"))) > 0
        scores.append(2 * (truth & said).sum() / (truth.sum() + said.sum()))
        assert float(row["dice"]) == pytest.approx(scores[-1], abs=1e-12)


def test_thresholds(segreg, finished):
    assert segreg("evaluate", finished.directory.path, "--threshold", "1", "--out", "one", "--quiet").status == 0
    assert found(Path("one"))["metrics"]["test"]["dice.pooled"] == 0
    printed = segreg("evaluate", finished.directory.path, "--split", "val", "--threshold", "best", "--out", "best")
    assert printed.status == 0, printed.err
    reported = found(Path("best"))
    assert reported["threshold_is"].startswith("the best on the validation split, which is the one that is scored")
    assert reported["metrics"]["val"]["dice.pooled"] >= finished.results["metrics"]["val"]["dice.pooled"]


def test_overrides(segreg, copy):
    words = ["evaluate.metrics=[iou, boundary_iou, mse]", "evaluate.threshold=0.3", "input.size=[48,40]"]
    printed = segreg("evaluate", copy, *words, "--quiet")
    assert printed.status == 0, printed.err
    name = "test_evaluate.metrics-iou-boundary_iou-mse_evaluate.threshold-0.3_input.size-48-40"
    reported = found(copy / "evaluations" / name)
    assert (reported["threshold"], reported["threshold_is"], reported["overrides"]) == (0.3, "given", words)
    names = {name.partition(".")[0] for name in reported["metrics"]["test"]}
    assert names == {"iou", "boundary_iou", "mse"}
    assert reported["intervals"]["test"].keys() == reported["metrics"]["test"].keys()
    for name, (low, high) in reported["intervals"]["test"].items():
        assert low <= reported["metrics"]["test"][name] <= high


def test_features_finer_than_in_training(segreg, copy):
    assert segreg("evaluate", copy, "decoder.output_stride=8", "--quiet").status == 0
    assert found(copy / "evaluations/test_decoder.output_stride-8")["overrides"] == ["decoder.output_stride=8"]
    run = load_run(copy)
    finer = dataclasses.replace(run, overrides=("decoder.output_stride=8",)).model()
    expected = run.model()  # the same weights, its strides traded and its rates doubled by hand
    assert expected.encoder.strides[-1] == 16
    assert expected.encoder.dilate(8)
    for branch in expected.decoder.aspp.atrous:
        branch[0].dilation = branch[0].padding = tuple(2 * rate for rate in branch[0].dilation)
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(finer(image), expected(image))
        assert not torch.allclose(finer(image), run.model()(image), atol=1e-3)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["decoder.channels=8"], "decoder.channels can't be changed for an evaluation"),
        (["encoder=resnet18"], "encoder can't be changed for an evaluation"),
        (["input.normalize=none"], "input.normalize can't be changed for an evaluation"),
        (["evaluate.threshold=2"], '"threshold" of the section "evaluate"'),
        (["evaluate.threshold=0.2", "--threshold", "0.3"], "--threshold and evaluate.threshold say the same thing"),
        (["--resolution", "input", "evaluate.resolution=input"], "--resolution and evaluate.resolution say the same"),
    ],
)
def test_overrides_that_are_refused(segreg, finished, words, says):
    printed = segreg("evaluate", finished.directory.path, *words)
    assert printed.status == 2
    assert says in printed.err


def test_several_classes_and_other_libraries(segreg, of_classes):
    libraries = [word for name in ("smp", "mmseg", "torchmetrics", "sklearn") for word in ("--as", name)]
    printed = segreg("evaluate", of_classes.directory.path, "--out", "out", *libraries)
    assert printed.status == 0, printed.err
    reported = found(Path("out"))
    assert reported["threshold"] is None
    iou = reported["metrics"]["test"]["iou.pooled"]
    assert reported["as"]["mmseg"]["values"]["mIoU"] == round(100 * iou, 2)
    assert reported["as"]["sklearn"]["values"]["jaccard_score macro"] == pytest.approx(iou)
    assert f"  mIoU   {100 * iou:.2f}" in printed.out
    assert "as smp:" in printed.out


def test_a_run_without_weights(segreg, copy):
    for file in copy.glob("*.safetensors"):
        file.unlink()
    printed = segreg("evaluate", copy)
    assert printed.status == 2
    assert printed.err.startswith(f"error: {copy} has no best weights yet\n")


def test_samples_that_are_gone(segreg, copy):
    splits = json.loads((copy / "split.json").read_text())
    splits["test"].append("ISIC_9999999")
    (copy / "split.json").write_text(json.dumps(splits))
    printed = segreg("evaluate", copy)
    assert printed.status == 2
    assert 'error: 1 of the 6 samples of test are gone from synthetic_lesions: "ISIC_9999999"\n' in printed.err
    (copy / "split.json").write_text(json.dumps({**splits, "test": []}))
    assert (
        f"error: {copy} has no samples in test; there are 14 in train, 5 in val\n"
        in segreg("evaluate", copy, "--split", "test").err
    )
    (copy / "split.json").unlink()
    assert "split.json is missing" in segreg("evaluate", copy).err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--split", "tset"], 'there is no split "tset"\n  did you mean "test"?'),
        (["--threshold", "1.5"], "the threshold must be from 0 to 1, not 1.5"),
        (["--threshold", "nan"], "the threshold must be from 0 to 1, not nan"),
        (["--threshold", "half"], '--threshold is a number from 0 to 1, or "best", not "half"'),
        (["--out", "{run}"], "{run} is a run's own folder, whose scores would be replaced"),
        (["--out", "{run}/results.json"], "{run}/results.json is a file"),
        (["--data", "missing.yaml"], "missing.yaml"),
    ],
)
def test_mistakes(segreg, finished, words, says):
    run = str(finished.directory.path)
    printed = segreg("evaluate", run, *(word.format(run=run) for word in words))
    assert printed.status == 2
    assert says.format(run=run) in printed.err
    assert printed.out == ""


def test_no_run(segreg, finished):
    printed = segreg("evaluate", finished.directory.path.parent)
    assert printed.status == 2
    assert f"error: {finished.directory.path.parent} is not the directory of a run" in printed.err


def test_classes_that_differ(segreg, finished, of_classes):
    printed = segreg("evaluate", finished.directory.path, "--data", of_classes.directory.resolved)
    assert printed.status == 2
    assert '"ground", "disc" and "ring" (multiclass)' in printed.err
    assert 'was trained on "lesion" (binary)' in printed.err
    printed = segreg("evaluate", of_classes.directory.path, "--threshold", "0.4")
    assert printed.status == 2
    assert "no threshold takes part" in printed.err


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ({}, "test"),
        ({"resolution": "original"}, "test_original"),
        ({"threshold": "best", "weights": "last"}, "test_threshold-best_last"),
        ({"resolution": "input", "threshold": 0.25}, "test_input_threshold-0.25"),
        ({"overrides": ["input.size=[48,40]"]}, "test_input.size-48-40"),
        (
            {"overrides": ["evaluate.metrics=[iou, {name: ece, exclude: [a/b]}]", "evaluate.threshold=0.3"]},
            "test_evaluate.metrics-iou-name-ece-exclude-a-b_evaluate.threshold-0.3",
        ),
    ],
)
def test_an_evaluation_of_another_kind_has_a_folder_of_its_own(asked, name):
    assert _folder_name("test", Request(**asked)) == name


def test_a_library_that_can_not_score_such_classes_says_so_before_anything_is_scored():
    run = mock.Mock(task=Task(("a", "b"), "multilabel"))
    with pytest.raises(SegregError, match="mmsegmentation has no metric for classes that may overlap"):
        rescore(run, Request(libraries=("smp", "mmseg")), Quiet())
    run.predictor.assert_not_called()


def test_scores_of_a_run_in_the_hubs_cache_need_another_place(monkeypatch):
    monkeypatch.setattr("segreg.runtime.hub.in_cache", lambda folder: "hf://a/b" if "cached" in str(folder) else "")
    run = mock.Mock(task=Task(("a",), "binary"), directory=mock.Mock(path=Path("cached")))
    with pytest.raises(SegregError, match=r"hf://a/b is in the hub's cache(.|\n)*--out"):
        rescore(run, Request(), Quiet())
    run.predictor.assert_not_called()


def test_however_many_overrides_there_are_a_folder_can_be_named_by_them():
    name = _folder_name("test", Request(overrides=["evaluate.metrics=[" + "iou, " * 90 + "dice]"]))
    assert (name[:29], len(name)) == ("test_evaluate.metrics-iou-iou", 197)
    name = _folder_name("test", Request(overrides=["evaluate.metrics=[{name: iou, exclude: [" + "道路, " * 30 + "]}]"]))
    assert 190 < len(name.encode()) <= 197

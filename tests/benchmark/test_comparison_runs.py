"""Run side by side: what is compared of planted runs, what is noticed, and what is refused."""

from __future__ import annotations

import csv
import json
import shutil

import numpy as np
import pytest

import planted_comparison
import planted_runs
import plugged
import small_runs
from planted_runs import planted
from segreg.benchmark.comparison.compare import RunGroup, compare
from segreg.benchmark.comparison.record import Model, Value
from segreg.benchmark.comparison.runs import TO_BEST, run_groups_of, with_costs
from segreg.benchmark.comparison.significance import GROUPED, verdict
from segreg.benchmark.comparison.text import format_comparison
from segreg.benchmark.cost.record import Cost
from segreg.errors import SegregError
from segreg.evaluation import statistics
from segreg.evaluation.counts import read_sums
from segreg.evaluation.scores import with_way
from segreg.evaluation.statistics import Measure
from segreg.reports.comparison import write_comparison
from segreg.runs.directory import RunDirectory
from segreg.runs.listing import KnownRun, read_run
from segreg.runs.load import load_run
from segreg.runs.scored import Scored, _same_weights, compare_scores, out_of_fold, shared_groups
from segreg.runs.trained_run import Run
from segreg.runtime.layout import plain


@pytest.fixture(autouse=True)
def _parts(installed):
    installed(*plugged.builtin())


@pytest.fixture
def _encoder():
    with small_runs.encoder():
        yield


def rows_of(file):
    with file.open() as text:
        return list(csv.DictReader(text))


def compared(*folders, **named):
    return compare(run_groups_of([load_run(folder) for folder in folders]), title="planted", **named)


def test_a_planted_difference_is_found_and_a_planted_tie_is_not(tmp_path):
    folders = [
        planted(tmp_path / f"{name}{seed}", name, seed=seed, better=better)
        for name, better in (("resnet18", 0.0), ("resnet34", 0.03), ("resnet50", 0.0))
        for seed in range(3)
    ]
    found = compared(*folders)
    assert found.models[0].name == "resnet34"
    by_name = {model.name: model for model in found.models}
    assert (found.baseline, by_name["resnet18"].difference) == ("resnet18", None)
    better, tie = by_name["resnet34"].difference, by_name["resnet50"].difference
    assert better.significant
    assert better.low < 0.03 < better.high
    assert better.p_holm < 0.001
    assert not tie.significant
    assert tie.low < 0 < tie.high
    assert by_name["resnet34"].rank.best == 1.0
    assert by_name["resnet34"].seeds == (0, 1, 2)
    assert found.verdict[1:] == (
        "It is significantly different from all others.",
        f"Better than the baseline resnet18: resnet34 ({better.mean:+.4f}).",
        f"Not significantly different from the baseline resnet18: resnet50 ({tie.mean:+.4f}).",
    )


def test_what_is_not_significantly_different_has_a_sentence(tmp_path):
    found = compared(planted(tmp_path / "a", "resnet18"), planted(tmp_path / "b", "resnet34", noise=0.021))
    worst = found.models[1].name
    assert f"On 40 images and 1 seed of each model, it is not significantly different from {worst}." in found.verdict
    assert found.verdict[-1] == (
        "There is one seed of each: how much another training of the same model would differ is unknown."
    )


def grouped(folder, size=5):
    """Return a planted run of a data set in which so many images each are of one patient."""
    results = json.loads((folder / "results.json").read_text())
    ids = [row["id"] for row in rows_of(folder / "per_image.csv")]
    results["groups"] = {"test": {name: number // size for number, name in enumerate(ids)}}
    (folder / "results.json").write_text(json.dumps(results))
    return folder


def test_groups_of_images_are_sampled_and_swapped_whole(tmp_path):
    folders = [planted(tmp_path / name, name, better=better) for name, better in (("resnet18", 0), ("resnet34", 0.01))]
    alone = compared(*folders)
    grouped(folders[1])  # the other run is of a version that did not say
    found = compared(*folders)
    dice = np.array([[float(row["dice"]) for row in rows_of(folder / "per_image.csv")] for folder in folders])
    patients = np.repeat(np.arange(8), 5).tolist()
    measures = [Measure.means(("dice",), own[None, :, None]).by_group(patients) for own in dice]
    difference = {model.name: model.difference for model in found.models}["resnet34"]
    assert difference.p == statistics.permutation_p(measures[1], measures[0], seed=statistics.SEED)
    draws = statistics.resampled(measures, seed=statistics.SEED)[..., 0]
    assert (difference.low, difference.high) == pytest.approx(statistics.interval(draws[1] - draws[0]))
    assert {model.name: model.values for model in found.models} != {model.name: model.values for model in alone.models}
    assert set(found.method) - set(alone.method) == {GROUPED}
    assert found.notices == alone.notices
    cities = [grouped(folder, size=14) for folder in folders]
    (notice,) = compared(*cities).notices[len(alone.notices) :]
    assert notice.startswith("Over 3 groups of images no difference is significant, whatever it is: the p of the ")
    assert notice.endswith(" is 0.25 at least.")
    assert not any("significant" in line for line in compared(cities[0]).notices)  # nothing is compared
    [grouped(folder) for folder in folders]
    scores = compare_scores(*(read_run(folder) for folder in folders))
    assert scores.intervals_over == "8 groups of images"
    (pair,) = (pair for pair in scores.pairs if pair.name == "dice.per_image_mean")
    assert (pair.low, pair.high) == pytest.approx((difference.low, difference.high))


def test_so_few_images_that_no_test_can_find_anything_are_noticed(tmp_path):
    draws = {"resnet18": -0.3, "resnet34": 0.3}
    five = [planted(tmp_path / name, name, better=better, images=5) for name, better in draws.items()]
    assert compared(*five).notices[-1] == (
        "Over 5 images no difference is significant, whatever it is: the p of the permutation test is 0.0625 at least."
    )
    more = [planted(tmp_path / f"{name}7", name, better=better, images=7) for name, better in draws.items()]
    further = {"resnet50": 0.1, "resnet101": 0.2, "densenet121": 0.4}
    more += [planted(tmp_path / name, name, better=better, images=7) for name, better in further.items()]
    assert compared(*more).notices[-1] == (
        "Over 7 images no difference is significant, whatever it is: the p of the permutation test is 0.0625 at least "
        "after the correction for several models."
    )
    six = [planted(tmp_path / f"{name}6", name, better=better, images=6) for name, better in draws.items()]
    found = compared(*six)
    assert found.models[0].difference.significant
    assert not any("significant" in line for line in found.notices)


def test_folds_keep_their_groups_apart():
    folds = [
        Scored((), "val", {}, ids, {}, None, groups=groups)
        for ids, groups in ((("a", "b"), [0, 0]), (("c", "d"), None), (("e", "f"), [0, 0]))
    ]
    together = out_of_fold(folds)
    groups = shared_groups([together], ["f", "a", "c", "b", "d"])
    assert [groups.index(group) for group in groups] == [0, 1, 2, 1, 4]
    assert shared_groups([together], ["a", "c", "e"]) is None  # each is one by itself
    assert out_of_fold(folds[1:2]).groups is None


def test_values_are_means_over_seeds_and_pooled_ones_follow_from_the_counts(tmp_path):
    folders = [planted(tmp_path / str(seed), "resnet18", seed=seed) for seed in range(2)]
    (model,) = compared(*folders).models
    own = [json.loads((folder / "results.json").read_text())["metrics"]["test"] for folder in folders]
    for name in ("dice.pooled", "dice.per_image_mean"):
        value = model.values[name]
        assert value.of_seeds == pytest.approx([values[name] for values in own])
        assert value.mean == pytest.approx(np.mean(value.of_seeds))
        assert value.low < value.mean < value.high


def test_without_counts_pooled_scores_have_no_interval(tmp_path):
    folder = planted(tmp_path / "old", "resnet18", counts=False)
    value = compared(folder).models[0].values["dice.pooled"]
    assert (value.mean, value.low, value.high) == (0.5, None, None)


def test_only_common_images_are_compared_with_a_notice(tmp_path):
    found = compared(planted(tmp_path / "a", "resnet18"), planted(tmp_path / "b", "resnet34", images=30))
    assert len(found.images) == 30
    assert found.notices[0] == (
        "The runs were scored on different images. This comparison is of the 30 that all of them were scored on, "
        "of at most 40; scores that can't be computed from single images are each run's own."
    )
    own = rows_of(tmp_path / "a" / "per_image.csv")[:30]
    value = next(model for model in found.models if model.name == "resnet18").values["dice.per_image_mean"]
    assert value.mean == pytest.approx(np.mean([float(row["dice"]) for row in own]))


def test_scores_that_not_all_know_of_single_images_are_each_run_s_own(tmp_path):
    one = planted(tmp_path / "a", "resnet18")
    found = compared(one, planted(tmp_path / "b", "resnet34", images=30, counts=False))
    own = json.loads((one / "results.json").read_text())["metrics"]["test"]["dice.pooled"]
    values = {model.name: model.values["dice.pooled"] for model in found.models}
    assert values["resnet18"].mean == own
    assert (values["resnet34"].mean, values["resnet18"].low) == (0.5, None)


def test_one_image_is_enough_to_compare(tmp_path):
    found = compared(planted(tmp_path / "a", "resnet18", images=1), planted(tmp_path / "b", "resnet34", images=1))
    for model in found.models:
        assert (model.difference, model.values["dice.per_image_mean"].low) == (None, None)
    assert found.verdict == (
        "dice.per_image_mean is of one image and one seed, so its differences have no interval and no test.",
    )


def test_a_run_says_which_direction_is_better(tmp_path):
    folders = [planted(tmp_path / name, name, better=better) for name, better in (("resnet18", 0.0), ("resnet34", 0.1))]
    for folder in folders:
        results = json.loads((folder / "results.json").read_text())
        reported = {**results, "higher_is_better": {"dice.per_image_mean": False}}
        (folder / "results.json").write_text(json.dumps(reported))
    found = compared(*folders)
    assert (found.models[0].name, found.higher_is_better) == ("resnet18", False)


def test_models_without_a_score_are_not_called_alike():
    names = ["base", "good", "better"]
    scores = {"base": np.full(20, np.nan), "good": np.linspace(0.3, 0.5, 20), "better": np.linspace(0.5, 0.7, 20)}
    measures = [Measure.means(["dice"], scores[name].reshape(1, -1, 1)) for name in names]
    draws = statistics.resampled(measures, seed=0)[..., 0]
    values = [Value(float(np.mean(scores[name])), None, None, (0.5,)) for name in names]
    models = [Model(name, {}, ("",), (0,), {"dice": value}) for name, value in zip(names, values, strict=True)]
    sentences, best = verdict(models, measures, draws, metric="dice", baseline="base", images=20, higher_is_better=True)
    assert best == ""
    assert sentences[1:-1] == ["How it differs from base is unknown.", "It is significantly different from the others."]


def test_the_time_to_the_best_epoch_needs_all_epochs_before_it():
    curves = ({"epoch": [3, 4], "seconds": [1.0, 1.0]}, {"epoch": [1, 2, 3], "seconds": [2.0, 2.0, 2.0]})
    models = tuple(
        Model(str(place), {}, ("",), (0,), {}, best_epochs=(2,), curves=(curve,)) for place, curve in enumerate(curves)
    )
    found = with_costs(planted_comparison.comparison(models=models), {}, ())
    assert [model.costs.get(TO_BEST) for model in found.models] == [None, Cost(4.0, 4.0, 4.0, "s")]


def test_two_versions_of_an_edited_plugin_are_two_models(tmp_path):
    folders = [planted(tmp_path / str(seed), "resnet18", seed=seed) for seed in range(3)]
    for folder, digest in zip(folders, ("a" * 32, "b" * 32, "b" * 32), strict=True):
        reported = json.loads((folder / "environment.json").read_text())
        (folder / "environment.json").write_text(json.dumps({**reported, "sources": {"segreg-lab:parts": digest}}))
    found = compared(*folders)
    assert {model.name: model.seeds for model in found.models} == {
        "source of segreg-lab:parts=aaaaaaaa": (0,),
        "source of segreg-lab:parts=bbbbbbbb": (1, 2),
    }
    assert found.notices == ('The source of segreg-lab:parts is not the same in all runs: "aaaaaaaa" and "bbbbbbbb".',)


def test_other_differences_of_the_runs_have_notices(tmp_path):
    one, other = planted(tmp_path / "a", "resnet18"), planted(tmp_path / "b", "resnet34")
    reported = json.loads((other / "environment.json").read_text())
    (other / "environment.json").write_text(json.dumps({**reported, "precision": "bf16"}))
    results = json.loads((other / "results.json").read_text())
    (other / "results.json").write_text(json.dumps({**results, "resolution": "original", "notice": "SYNTHETIC"}))
    found = compared(one, other)
    assert found.notices == (
        "SYNTHETIC",
        'The runs were scored with different resolutions: "input" and "original".',
        'The runs\' environments differ: precision "float32" and "bf16".',
    )


def test_images_that_were_predicted_otherwise_do_not_change_what_a_metric_means(tmp_path):
    one, other = planted(tmp_path / "a", "resnet18"), planted(tmp_path / "b", "resnet34")
    results = json.loads((other / "results.json").read_text())
    whole = {name: with_way(text, "predicted whole") for name, text in results["definitions"].items()}
    (other / "results.json").write_text(json.dumps({**results, "definitions": whole}))
    ways = "Images were predicted in different ways: at the size of the input / predicted whole."
    assert compared(one, other).notices == (ways,)
    results["definitions"]["dice.per_image_mean"] = "Another Dice."
    (other / "results.json").write_text(json.dumps(results))
    meanings = "dice.per_image_mean does not mean the same in all runs: Dice, counted in each image / Another Dice"
    assert compared(one, other).notices == (meanings,)


@pytest.mark.parametrize(
    ("metric", "chosen"), [("", "dice.per_image_mean"), ("dice.pooled", "dice.pooled"), ("dice", "dice.per_image_mean")]
)
def test_the_metric_to_compare_by(metric, chosen, tmp_path):
    found = compared(planted(tmp_path / "a", "resnet18"), planted(tmp_path / "b", "resnet34"), metric=metric)
    assert found.metric == chosen
    assert found.models[1].difference is not None or found.models[0].difference is not None


def problem(call):
    with pytest.raises(SegregError) as caught:
        call()
    (found,) = caught.value.problems
    return found.message, found.hint


def test_what_is_refused(tmp_path):
    one, other = planted(tmp_path / "a", "resnet18"), planted(tmp_path / "b", "resnet34")
    assert problem(lambda: compared(one, other, metric="dise.pooled")) == (
        'not all of these runs have a metric "dise.pooled"', 'did you mean "dice.pooled"?',
    )  # fmt: skip
    assert problem(lambda: compared(one, other, baseline="resnet81")) == (
        'there is no model "resnet81" to compare with', 'did you mean "resnet18" or "resnet34"?',
    )  # fmt: skip
    again = planted(tmp_path / "c", "resnet18")
    assert problem(lambda: compared(one, again)) == (
        f'"{one}" and "{again}" are runs of one recipe with one seed', "name one of them",
    )  # fmt: skip
    elsewhere = planted(tmp_path / "d", "resnet50")
    text = (elsewhere / "per_image.csv").read_text()
    (elsewhere / "per_image.csv").write_text(text.replace("\np", "\nq"))
    assert problem(lambda: compared(one, elsewhere)) == (
        f"{elsewhere}/counts.csv and {elsewhere}/per_image.csv are not of the same images",
        f"one of them was changed; segreg run --resume {elsewhere} writes both again",
    )
    (elsewhere / "counts.csv").unlink()
    assert problem(lambda: compared(one, elsewhere))[0] == "these runs have no scored image in common"
    unfinished = planted_runs.weigh(planted_runs.plant(tmp_path / "e", finished=False))
    assert problem(lambda: compared(one, unfinished)) == (
        f"{unfinished} has no results yet", f"segreg run --resume {unfinished} continues with it",
    )  # fmt: skip


def test_a_metric_whose_direction_nobody_knows_does_not_compare(tmp_path):
    folders = planted(tmp_path / "a", "resnet18"), planted(tmp_path / "b", "resnet34")
    for folder in folders:
        results = json.loads((folder / "results.json").read_text())
        results["metrics"]["test"] = {"gap.per_image_mean": 0.5, **results["metrics"]["test"]}
        (folder / "results.json").write_text(json.dumps(results))
    assert compared(*folders).metric == "dice.per_image_mean", "the first that has a direction"
    message, hint = problem(lambda: compared(*folders, metric="gap"))
    assert message == 'nothing says whether larger values of "gap.per_image_mean" are better'
    assert 'others are "dice.pooled" and "dice.per_image_mean"' in hint


def test_equal_ids_of_other_images_are_noticed(tmp_path):
    one, other = planted(tmp_path / "a", "resnet18"), planted(tmp_path / "b", "resnet34")
    assert compared(one, other).notices == ()
    environment = json.loads((other / "environment.json").read_text())
    (other / "environment.json").write_text(json.dumps({**environment, "data_fingerprint": "beef"}))
    (notice,) = compared(one, other).notices
    assert notice.startswith(f"Equal ids are not equal images: the images or masks of {other} are not those of {one}")


def test_seeds_that_found_the_same_images_elsewhere_are_of_one_model(tmp_path):
    folders = [planted(tmp_path / str(seed), "resnet18", seed=seed) for seed in range(2)]
    file = folders[1] / "resolved.yaml"
    file.write_text(file.read_text().replace("root: /data/lesions", "root: /mnt/lesions"))
    (group,) = run_groups_of([load_run(folder) for folder in folders])
    assert len(group.runs) == 2
    environment = json.loads((folders[1] / "environment.json").read_text())
    (folders[1] / "environment.json").write_text(json.dumps({**environment, "data_fingerprint": "beef"}))
    names = [group.name for group in run_groups_of([load_run(folder) for folder in folders])]
    assert names == ["dataset.root=/data/lesions", "dataset.root=/mnt/lesions"]


def test_no_run_is_nothing_to_compare():
    assert problem(lambda: run_groups_of([]))[0] == "there is no run to compare"


def test_files_and_text_agree(tmp_path):
    found = compared(planted(tmp_path / "a", "resnet18"), planted(tmp_path / "b", "resnet34", better=0.05))
    files = write_comparison(found, tmp_path / "out")
    assert [file.name for file in files] == ["results.json", "results.csv", "report.html"]
    reported = json.loads(files[0].read_text())
    assert reported["models"][0]["name"] == "resnet34"
    assert reported["models"][0]["difference"]["significant"] is True
    rows = rows_of(files[1])
    assert [(row["model"], row["encoder"], row["seed"]) for row in rows] == [
        ("resnet34", "resnet34", "0"), ("resnet18", "resnet18", "0"),
    ]  # fmt: skip
    assert float(rows[0]["dice.pooled"]) == found.models[0].values["dice.pooled"].mean
    lines = plain(format_comparison(found))
    head = next(line for line in lines if line.startswith("rank"))
    assert head.split() == [
        "rank",
        "model",
        "dice.per_image_mean",
        "to",
        "the",
        "baseline",
        "p",
        "(Holm)",
        "dice.pooled",
    ]
    assert any(line.startswith("1 [1, 1]  resnet34") and " *  " in line for line in lines)
    assert any("resnet18" in line and "baseline" in line for line in lines)


def test_runs_that_nothing_reports_apart_are_called_by_their_folder(tmp_path):
    one = planted(tmp_path / "a", "resnet18")
    assert run_groups_of([Run(load_run(one).directory)])[0].name == str(one)


def test_recipes_that_differ_in_much_are_called_by_their_names(tmp_path):
    stamp = "2026-01-02_03-04-05"
    one, other = planted(tmp_path / "first" / stamp, "resnet18"), planted(tmp_path / "second" / stamp, "resnet34")
    file = other / "resolved.yaml"
    changed = file.read_text(encoding="utf-8")
    changes = {"epochs: ": "epochs: 1", "batch_size: ": "batch_size: 1", "lr: 0": "lr: 1", "p: 0.5": "p: 0.7"}
    for old, new in changes.items():
        changed = changed.replace(old, new)
    file.write_text(changed, encoding="utf-8")
    first, second = run_groups_of([load_run(one), load_run(other)])
    assert (first.name, second.name) == ("first", "second")
    assert second.settings["encoder"] == "resnet34"
    assert len(second.settings) == 5
    of_one_recipe = shutil.copytree(other, tmp_path / "first" / f"{stamp}-2")  # changed on the command line
    names = [one.name for one in run_groups_of([load_run(one), load_run(of_one_recipe)])]
    assert ["resnet18" in names[0], "resnet34" in names[1]] == [True, True]


@pytest.mark.usefixtures("_encoder")
def test_pooled_values_of_sums_have_intervals_and_tests(tmp_path):
    """Squared errors and pixels near contours don't follow from counts, so that each image's sums are kept."""
    runs = [
        small_runs.run(tmp_path / name, "train.epochs=1", f"seed={seed}", f"optimizer.lr={lr}",
                      "evaluate.metrics=[dice, mse, boundary_iou]", "evaluate.overlays=0", "evaluate.threshold=0.4")
        for name, seed, lr in (("a0", 1, 0.01), ("a1", 2, 0.01), ("b0", 1, 0.001), ("b1", 2, 0.001))
        if not (tmp_path / name).mkdir()
    ]  # fmt: skip
    groups = [RunGroup(name, {}, tuple(runs[k : k + 2])) for name, k in (("a", 0), ("b", 2))]
    found = compare(groups, title="sums", metric="mse.pooled")
    for number, model in enumerate(sorted(found.models, key=lambda model: model.name)):
        own = [run.results["metrics"]["test"] for run in runs[2 * number : 2 * number + 2]]
        for name in ("mse.pooled", "boundary_iou.pooled", "dice.pooled"):
            value = model.values[name]
            assert value.of_seeds == pytest.approx([values[name] for values in own])
            assert value.low <= value.mean <= value.high
            assert value.low < value.high
    assert all(model.rank for model in found.models)
    one = [read_sums(run.directory.sums)[1]["mse"] for run in runs[:2]]
    chosen = np.random.default_rng(0).integers(0, 5, (4000, 5))
    seeds = np.random.default_rng(1).integers(0, 2, (4000, 2))
    of_seeds = np.stack([(each[:, 0, 0][chosen].sum(1)) / each[:, 1, 0][chosen].sum(1) for each in one], 1)
    by_hand = np.take_along_axis(of_seeds, seeds, 1).mean(1)
    value = next(model for model in found.models if model.name == "a").values["mse.pooled"]
    assert (value.low, value.high) == pytest.approx(np.quantile(by_hand, [0.025, 0.975]), rel=0.03)

    pair = [read_run(run.directory.path) for run in runs[:2]]
    apart = next(each for each in compare_scores(*pair).pairs if each.name == "mse.pooled")
    changes = np.diff(of_seeds, axis=1)
    assert (apart.low, apart.high) == pytest.approx(np.quantile(changes, [0.025, 0.975]), abs=1e-3)

    runs[0].directory.sums.write_bytes(b"not an archive")
    with pytest.raises(SegregError, match=r"sums\.npz does not hold the sums of images"):
        compare(groups, title="sums")
    runs[0].directory.sums.unlink()  # an older run has none
    found = compare(groups, title="sums", metric="dice.pooled")
    values = next(m for m in found.models if m.name == "a").values
    assert values["mse.pooled"].low is None
    assert values["dice.pooled"].low is not None
    sentence = 'ooled scores of "boundary_iou" and "mse" have no interval: not every run has them in sums.npz'
    assert f"P{sentence}" in found.notices[-1]
    old = compare_scores(*pair)
    assert f"p{sentence}" in old.notes[-1]
    assert {each.name: each.low for each in old.pairs}["mse.pooled"] is None


@pytest.mark.parametrize("content", [b"no weights at all", (2).to_bytes(8, "little") + b"[]"])
def test_weights_that_are_no_safetensors_are_not_compared(content, tmp_path):
    (tmp_path / "best.safetensors").write_bytes(content)
    run = KnownRun(RunDirectory(tmp_path), {}, {}, {"best_epoch": 1}, [])
    assert _same_weights(run, run) is None

"""`segreg diff`, with what it prints; the intervals against SciPy's paired bootstrap."""

from __future__ import annotations

import json
import math
import re

import numpy as np
import pytest
from scipy.stats import bootstrap

from planted_runs import plant, recipe, score, weigh

IDS = [f"p{number}" for number in range(40)]
SPLIT = {"train": ["a", "b", "c"], "val": ["d"], "test": IDS}


def planted_counts(seed):
    return dict(zip(IDS, np.random.default_rng(seed).integers(1, 400, (len(IDS), 4)).tolist(), strict=True))


def dice_of(counts):
    return {name: 2 * tp / (2 * tp + fp + fn) for name, (tp, fp, fn, _) in counts.items()}


@pytest.fixture
def pair(tmp_path):
    """Return what plants the runs one and other, with the changes of the other."""

    def make(*, seeds=(1, 2), kept=True, **other):
        folders = []
        for name, changes, seed in (("one", {}, seeds[0]), ("other", other, seeds[1])):
            folder = weigh(plant(tmp_path / name, **{"split": SPLIT, **changes}), seed=seed)
            counts = planted_counts(seed)
            folders.append(score(folder, dice_of(counts), counts=counts if kept else None))
        return folders

    return make


def test_what_differs_stands_side_by_side(segreg, pair):
    settings = recipe(encoder={"name": "resnet18", "weights": "imagenet", "depth": 5}, train__epochs=5)
    one, other = pair(settings=settings, epochs=5, kept=False)
    alike = "data, plugins and packages, source of plugins, environment, weights at the start and network"
    printed = segreg("diff", one, other)
    assert printed.status == 0
    assert (
        printed.out.partition("\nscores on")[0]
        == f"""\
A  {one}  (finished)
B  {other}  (finished)

recipe
  encoder          A timm/test_resnet  B resnet18
  encoder.weights  A null              B imagenet
  train.epochs     A 3                 B 5
  encoder only in B: depth 5

training
  epochs      A 3  B 5
  best_epoch  A 3  B 5

the two runs are alike in all of {alike}
"""
    )


def test_versions_machine_and_start(segreg, pair):
    reported = {
        "packages": {"torch": "2.16.0", "timm": "1.0.31"}, "python": "3.12.1", "commit": None,
        "plugins": [
            {"name": "builtin-encoders", "distribution": "segreg-toolkit", "version": "0.2.0", "error": ""},
            {"name": "lungs", "distribution": "segreg-lungs", "version": "1.0", "error": "broken"},
        ],
        "device": {"name": "cuda:0", "model": "a GPU", "cuda": "13.0"}, "precision": "bf16",
        "command": ["segreg", "run", "tiny.yaml", "train.device=cuda:0", "--out", "a folder of this name"],
        "initial_weights": "runs/before: 120 of 122 tensors", "previous": [{}],
    }  # fmt: skip
    one, other = pair(environment=reported, kept=False)
    out = segreg("diff", one, other).out
    lines = [" ".join(line.split()) for line in out.splitlines()]
    for line in (
        "segreg-toolkit A 0.1.0 B 0.2.0", "torch A 2.15.0 B 2.16.0", "segreg-lungs A - B 1.0",
        "lungs (a plugin) A - B not in use", "python A 3.11.7 B 3.12.1", "device A cpu B cuda:0",
        "device's model A a CPU B a GPU", "threads A 1 B -", "cuda A - B 13.0", "precision A float32 B bf16",
        "commit A 1a2b3c B -", "A segreg run tiny.yaml",
        "B segreg run tiny.yaml train.device=cuda:0 --out 'a folder of this name'",
        "initial_weights A none B runs/before: 120 of 122 tensors", "processes A 1 B 2",
    ):  # fmt: skip
        assert line in lines
    assert "timm" not in out.partition("packages")[2]


def test_the_source_of_a_plugin_that_was_edited(segreg, pair):
    plugin = {"name": "lungs", "distribution": "segreg-lungs", "version": "1.0", "error": "", "digest": "a" * 32}
    one, other = pair(environment={"plugins": [plugin]}, kept=False)
    (one / "environment.json").write_text(json.dumps({"plugins": [{**plugin, "digest": "b" * 32}]}))
    out = segreg("diff", one, other).out
    assert "source of plugins\n  segreg-lungs:lungs  A bbbbbbbb  B aaaaaaaa\n" in out
    reported = json.loads(segreg("diff", one, other, "--json").out)
    assert [each["path"] for each in reported["differences"]["plugins"]] == ["segreg-lungs:lungs"]


def test_samples_that_moved(segreg, pair):
    split = {"train": ["a", "b", "d"], "val": ["c"], "test": [*IDS, "new"]}
    one, other = pair(split=split, environment={"data_fingerprint": "beef"}, kept=False)
    out = segreg("diff", one, other).out
    assert out.partition("\ndata\n")[2].partition("\n\n")[0] == (
        "  fingerprint of images and masks as the network sees them  A f00d  B beef\n"
        '  1 sample of train in A, of val in B: "c"\n'
        '  1 sample of val in A, of train in B: "d"\n'
        '  1 sample only in B, in test: "new"'
    )


def test_results_that_are_the_same_to_the_last_bit(segreg, pair):
    one, other = pair(seeds=(1, 1))
    alike = (
        "recipe, data, plugins and packages, source of plugins, environment, weights at the start, network and training"
    )
    reported = f"""\
A  {one}  (finished)
B  {other}  (finished)

the two runs are alike in all of {alike}

the results are the same to the last bit: 2 metrics, and the values of each of 40 images; so are the weights
"""
    assert segreg("diff", one, other).out == reported
    weigh(other, seed=2)
    assert segreg("diff", one, other).out.endswith("each of 40 images; the weights are not\n")
    (other / "best.safetensors").unlink()
    assert segreg("diff", one, other).out.endswith("each of 40 images\n")
    rows = (other / "per_image.csv").read_text()
    (other / "per_image.csv").write_text(re.sub(r"(p7,0\.\d{6})\d", r"\g<1>9", rows))
    assert "to the last bit" not in segreg("diff", one, other).out


def table(out):
    """Return the metrics of the printed table: value, value, difference and interval."""
    rows = re.findall(r"^  ([\w.]+) +(\d\S*|undefined) +(\d\S*|undefined) +(\S+)?(?: +\[(\S+), (\S+)\])?", out, re.M)
    return {name: cells for name, *cells in rows}


def scipys(one, other, statistic):
    """Return the ends of SciPy's paired percentile interval of the difference."""
    given = np.arange(len(one))
    found = bootstrap(
        (given,), lambda drawn, axis: statistic(other[drawn], axis) - statistic(one[drawn], axis), vectorized=True,
        method="percentile", n_resamples=20_000, rng=np.random.default_rng(5),
    )  # fmt: skip
    return found.confidence_interval


def pooled_dice(counts, axis=-1):
    tp, fp, fn, _ = np.moveaxis(counts, -1, 0).sum(axis)
    return 2 * tp / (2 * tp + fp + fn)


def test_intervals_are_scipys(segreg, pair):
    one, other = pair()
    reported = json.loads(segreg("diff", one, other, "--json").out)["scores"]
    counts = [np.array(list(planted_counts(seed).values())) for seed in (1, 2)]
    dice = [np.array(list(dice_of(planted_counts(seed)).values())) for seed in (1, 2)]
    wanted = {"dice.pooled": (counts, pooled_dice), "dice.per_image_mean": (dice, np.mean)}
    assert [each["name"] for each in reported["pairs"]] == list(wanted)
    for each in reported["pairs"]:
        values, statistic = wanted[each["name"]]
        assert each["one"] == pytest.approx(statistic(values[0]), abs=1e-12)
        assert each["other"] == pytest.approx(statistic(values[1]), abs=1e-12)
        assert each["difference"] == pytest.approx(statistic(values[1]) - statistic(values[0]), abs=1e-12)
        low, high = scipys(*values, statistic)
        # Of 50 seeds none gave an end that was off by more than 0.054 of SciPy's width.
        assert (each["low"], each["high"]) == pytest.approx((low, high), abs=0.08 * (high - low))
    assert (reported["images"], reported["of"], reported["notes"], reported["identical"]) == (40, [40, 40], [], False)


def test_the_table_of_scores(segreg, pair):
    one, other = pair()
    out = segreg("diff", one, other).out
    assert "scores on 40 images of test; intervals: 95%, paired bootstrap over images\n" in out
    reported = {each["name"]: each for each in json.loads(segreg("diff", one, other, "--json").out)["scores"]["pairs"]}
    assert set(table(out)) == set(reported)
    for name, (mine, its, difference, low, high) in table(out).items():
        assert (mine, its) == (f"{reported[name]['one']:.4f}", f"{reported[name]['other']:.4f}")
        assert difference == f"{reported[name]['difference']:+.4f}"
        assert (low, high) == (f"{reported[name]['low']:+.4f}", f"{reported[name]['high']:+.4f}")


def test_runs_without_counts_have_intervals_of_means_only(segreg, pair):
    one, other = pair(kept=False)
    out = segreg("diff", one, other).out
    note = "pooled scores have no interval: neither run has a counts.csv, which runs of older versions did not leave"
    assert f"  note: {note}\n" in out
    assert table(out)["dice.pooled"][3:] == ["", ""]
    assert table(out)["dice.per_image_mean"][3] != ""
    score(other, dice_of(planted_counts(2)), counts=planted_counts(2))
    assert "  note: pooled scores have no interval: A has no counts.csv, " in segreg("diff", one, other).out


def test_runs_whose_metrics_are_gone_have_intervals_of_means_only(segreg, pair):
    metrics = [{"name": "dice"}, {"name": "of_a_plugin_of_then"}]
    one, other = pair(settings=recipe(evaluate__metrics=metrics))
    out = segreg("diff", one, other).out
    assert "  note: pooled scores have no interval: the runs' metrics can't be built: " in out
    assert "of_a_plugin_of_then" in out
    assert table(out)["dice.per_image_mean"][3] != ""


def test_scores_on_other_images_are_compared_on_the_common_ones(segreg, pair):
    one, other = pair(seeds=(1, 1), kept=False)
    mine, its = ({name: (number * step % 7) / 7 for number, name in enumerate(IDS)} for step in (1, 3))
    score(one, {name: mine[name] for name in IDS[:30]})
    score(other, {name: its[name] for name in reversed(IDS[10:])}, pooled=0.6)
    out = segreg("diff", one, other).out
    assert "scores on the 20 images that both were scored on (A on 30, B on 30); intervals: 95%," in out
    means = [np.mean([values[name] for name in IDS[10:30]]) for values in (mine, its)]
    assert table(out)["dice.per_image_mean"][:3] == [
        f"{means[0]:.4f}", f"{means[1]:.4f}", f"{means[1] - means[0]:+.4f}",
    ]  # fmt: skip
    assert re.search(r"^  dice.pooled +0.5000  0.6000  \+0.1000 +own images$", out, re.MULTILINE)
    score(other, {"else": 0.5, "where": 0.6})
    out = segreg("diff", one, other).out
    assert "  note: no image was scored in both runs, so nothing is said of how sure the differences are\n" in out
    assert table(out)["dice.per_image_mean"][3:] == ["", ""]


def test_images_where_a_score_is_undefined_are_left_out_of_its_mean(segreg, pair):
    one, other = pair(kept=False)
    mine = {name: math.nan if number % 4 == 0 else number / 40 for number, name in enumerate(IDS)}
    its = {name: math.nan if number % 5 == 0 else 1 - number / 80 for number, name in enumerate(IDS)}
    score(one, mine)
    score(other, its)
    (reported,) = [
        each
        for each in json.loads(segreg("diff", one, other, "--json").out)["scores"]["pairs"]
        if each["name"] == "dice.per_image_mean"
    ]
    values = [np.array(list(each.values())) for each in (mine, its)]
    assert reported["difference"] == pytest.approx(np.nanmean(values[1]) - np.nanmean(values[0]), abs=1e-12)
    low, high = scipys(*values, np.nanmean)
    assert (reported["low"], reported["high"]) == pytest.approx((low, high), abs=0.08 * (high - low))


def test_what_was_scored_otherwise_is_noted(segreg, pair):
    one, other = pair(
        kept=False, settings=recipe(evaluate__threshold=0.4, input__size=[64, 64]),
        environment={"data_fingerprint": "beef"},
        results={"scored_on": "test"},
    )  # fmt: skip
    score(other, dice_of(planted_counts(2)), definition="Another Dice.")
    notes = [line for line in segreg("diff", one, other).out.splitlines() if "note: " in line]
    assert notes[:3] == [
        "  note: scored otherwise: evaluate.threshold 0.5 in A, 0.4 in B",
        "  note: scored otherwise: input.size [32, 32] in A, [64, 64] in B",
        "  note: the definitions of dice.per_image_mean differ: Dice, counted in each image. / Another Dice.",
    ]


def test_images_that_were_predicted_otherwise_are_noted(segreg, pair):
    one, other = pair(kept=False)
    score(other, dice_of(planted_counts(2)), definition="Dice, counted in each image; images are predicted whole")
    notes = [line for line in segreg("diff", one, other).out.splitlines() if "note: " in line]
    assert "  note: scored otherwise: images at the size of the input in A, predicted whole in B" in notes
    assert not any("definitions" in note for note in notes)


def test_images_that_changed_behind_their_ids_are_noted(segreg, pair):
    one, other = pair(kept=False, environment={"data_fingerprint": "beef"})
    note = "equal ids are not equal images: the files of the samples have changed between the runs"
    assert f"  note: {note}\n" in segreg("diff", one, other).out


def test_a_metric_that_only_one_has(segreg, pair):
    one, other = pair(kept=False)
    results = json.loads((one / "results.json").read_text())
    results["metrics"]["test"]["roc_auc.pooled"] = 0.75
    (one / "results.json").write_text(json.dumps(results))
    assert '  note: only A has "roc_auc.pooled"\n' in segreg("diff", one, other).out


def test_runs_without_scores(segreg, tmp_path):
    one, other = plant(tmp_path / "one"), plant(tmp_path / "other", finished=False)
    out = segreg("diff", one, other).out
    assert out.startswith(f"A  {one}  (finished)\nB  {other}  (unfinished)\n")
    assert out.endswith("\nB has no scores yet: nothing to compare\n")
    out = segreg("diff", plant(tmp_path / "third", finished=False), other).out
    assert out.endswith("\nneither run has scores yet: nothing to compare\n")


def test_json(segreg, pair):
    one, other = pair(kept=False, settings=recipe(loss=[{"name": "dice", "weight": 1.0}]), split={**SPLIT, "val": []})
    reported = json.loads(segreg("diff", one, other, "--json").out)
    assert (reported["one"], reported["other"]) == (str(one), str(other))
    assert reported["differences"]["recipe"] == [
        {"path": "loss", "one": "dice_bce", "other": "dice", "only_one": {"dice_weight": 1.0}}
    ]
    assert reported["moved"] == [{"one": "val", "other": "", "ids": ["d"]}]
    assert reported["alike"] == ["packages", "plugins", "environment", "start", "network", "training"]


def test_mistakes_are_reported(segreg, pair, tmp_path):
    one, other = pair(kept=False)
    assert segreg("diff", one, one).err == f"error: {one} and {one} are one and the same run\n  name two runs\n"
    assert segreg("diff", one, tmp_path / "othr").err == (
        f'error: there is no run {tmp_path / "othr"}\n  did you mean "other"?\n'
    )
    (other / "split.json").write_text("[]")
    assert segreg("diff", one, other).err == (
        f"error: {other / 'split.json'}: damaged: it does not hold an object\n"
        "  it should be the ids of the samples of each split\n"
    )
    (other / "split.json").unlink()
    assert segreg("diff", one, other).err.startswith(f"error: {other / 'split.json'}: can't be read: ")
    (other / "results.json").write_text("{")
    printed = segreg("diff", one, other)
    assert (printed.status, printed.err.replace(" enclosed in double quotes", "")) == (
        2,
        f"error: {other} can't be compared: results.json: damaged: not valid JSON (line 1): Expecting property name\n",
    )

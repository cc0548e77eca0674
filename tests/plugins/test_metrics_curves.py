"""The metrics of probabilities against scikit-learn and torchmetrics; that they stream, share counts and have words."""

from __future__ import annotations

import itertools
import pickle

import numpy as np
import pytest
import sklearn.metrics
import torch
from sklearn.calibration import calibration_curve
from torch._subclasses import FakeTensorMode
from torchmetrics import MetricCollection
from torchmetrics.functional.classification import binary_calibration_error, multiclass_calibration_error

from segreg.errors import SegregError
from segreg.task import IGNORE_INDEX, Task
from segreg_plugins.metrics import curves, ranking, segreg_entries
from segreg_plugins.metrics.keys import BROKEN, KEYS, UNCOUNTED, keys_of, own_logits

ALL = {entry.name: entry.build for entry in segreg_entries()}
NAMES = ["roc_auc", "pr_auc", "mse", "ece", "best_threshold"]
BINARY = Task(("lesion",), "binary")
MULTICLASS = Task(("background", "road", "car", "tree"), "multiclass")
MULTILABEL = Task(("cell", "nucleus", "wall"), "multilabel")
TASKS = [BINARY, MULTICLASS, MULTILABEL]
CASES = [(name, task) for task in TASKS for name in NAMES if (name, task.mode) != ("best_threshold", "multiclass")]
every_metric = pytest.mark.parametrize(("name", "task"), CASES, ids=[f"{name}-{task.mode}" for name, task in CASES])
every_task = pytest.mark.parametrize("task", TASKS, ids=lambda task: task.mode)
SKLEARN = {"roc_auc": sklearn.metrics.roc_auc_score, "pr_auc": sklearn.metrics.average_precision_score}


def draw(task, *, images=5, size=(24, 20), scale=1.0, seed=0, ignored=0.15):
    """Return logits that know something of the target, and the target."""
    generator = torch.Generator().manual_seed(seed)
    several = task.mode == "multilabel"
    shape = (images, task.channels, *size) if several else (images, *size)
    target = torch.randint(0, task.channels if task.mode == "multiclass" else 2, shape, generator=generator)
    if task.mode == "multiclass":
        truth = torch.nn.functional.one_hot(target, task.channels).movedim(-1, 1).float()
    else:
        truth = target.view(images, task.channels, *size).float()
    logits = scale * (torch.randn(images, task.channels, *size, generator=generator) + 1.5 * truth - 1)
    return logits, target.masked_fill(torch.rand(shape, generator=generator) < ignored, IGNORE_INDEX)


def by_class(task, logits, target):
    """Return for each class truth, log-odds and probabilities of its pixels that count; computed in float64."""
    exact = logits.double()
    if task.mode == "multiclass":
        others = [[j for j in range(task.channels) if j != k] for k in range(task.channels)]
        odds = torch.stack([exact[:, k] - exact[:, others[k]].logsumexp(1) for k in range(task.channels)], 1)
        truth = torch.stack([target == k for k in range(task.channels)], 1)
        counts = (target != IGNORE_INDEX).unsqueeze(1).expand_as(truth)
    else:
        odds = exact
        truth = target.view_as(logits) == 1
        counts = target.view_as(logits) != IGNORE_INDEX
    for k in range(task.channels):
        keep = counts[:, k]
        yield truth[:, k][keep].numpy(), odds[:, k][keep].numpy(), odds[:, k][keep].sigmoid().numpy()


def streamed(metric, logits, target, sizes=2):
    metric.reset()
    for part_logits, part_target in zip(logits.split(sizes), target.split(sizes), strict=True):
        metric.update(part_logits, part_target)
    return metric.compute()


def pooled_name(name, task):
    return "ece.classwise.pooled" if (name, task.mode) == ("ece", "multiclass") else f"{name}.pooled"


@pytest.fixture(params=["kept", "counted"])
def way(request, monkeypatch):
    """Both ways of the areas: of small sets every logit is kept, those of large ones are counted."""
    if request.param == "counted":
        monkeypatch.setattr(curves, "MOST_KEPT", 0)
    return request.param


def values_of(found, name, task):
    """Return the pooled value and each class's; a single class's is the pooled one."""
    assert all(value.dtype == torch.float64 and value.shape == () for value in found.values())
    others = ("mse.per_image_mean", "ece.top_label.pooled")
    found = {key: value for key, value in found.items() if ".f1." not in key and key not in others}
    pooled = found[pooled_name(name, task)].item()
    if len(task.classes) == 1:
        assert set(found) == {f"{name}.pooled"}
        return pooled, [pooled]
    each = [found[f"{name}.class.{label}"].item() for label in task.classes]
    assert len(found) == 1 + len(each)
    return pooled, each


@every_task
@pytest.mark.parametrize("name", SKLEARN)
@pytest.mark.parametrize("scale", [1.0, 8.0])
def test_areas_are_scikit_learns_to_the_fourth_digit(name, task, scale, way):
    logits, target = draw(task, scale=scale, size=(60, 50))
    pooled, each = values_of(streamed(ALL[name](task, 0.5), logits, target), name, task)
    expected = [SKLEARN[name](truth, odds) for truth, odds, _ in by_class(task, logits, target)]
    # What is kept is float32, as the log-odds of a softmax are; the others are the logits themselves.
    tolerance = {"kept": 1e-6 if task.mode == "multiclass" else 1e-12, "counted": 1e-4}[way]
    np.testing.assert_allclose(each, expected, rtol=0, atol=tolerance)
    assert pooled == pytest.approx(np.mean(expected), abs=tolerance)


@pytest.mark.parametrize("task", [BINARY, MULTILABEL], ids=lambda task: task.mode)
@pytest.mark.parametrize("name", SKLEARN)
@pytest.mark.parametrize(
    ("scale", "dtype"),
    [(0.01, torch.bfloat16), (1.0, torch.float16), (8.0, torch.bfloat16), (300.0, torch.float16)],
)
def test_areas_are_exact_for_logits_of_sixteen_bits(name, task, scale, dtype, way):
    logits, target = draw(task, scale=scale)
    logits = (scale * (logits / scale * 4).round() / 4).to(dtype)  # many pixels of equal logits, zeros among them
    _, each = values_of(streamed(ALL[name](task, 0.5), logits, target), name, task)
    expected = [SKLEARN[name](truth, odds) for truth, odds, _ in by_class(task, logits, target)]
    np.testing.assert_allclose(each, expected, rtol=0, atol=1e-12)


def sets(*sizes):
    """Return labels and float32 logits of sets that are hard: lopsided, saturated, equal in part, hardly trained."""
    drawn = np.random.default_rng(0)
    for pixels in sizes:
        for share in (0.5, 0.1, 0.003):
            truth = drawn.random(pixels) < share
            truth[:2] = True, False
            noise = drawn.standard_normal(pixels)
            good = noise + 2 * truth - 1
            yield "good", truth, good
            yield "saturated", truth, 300 * good
            yield "hardly trained", truth, 0.2 * (noise + truth)
            yield "tiny", truth, 1e-3 * (noise + truth)
            yield "cut off below", truth, np.maximum(good, np.float32(-0.54321))
            yield "partly equal", truth, np.where(drawn.random(pixels) < 0.3, np.float32(0.7777), good)
            yield "constant", truth, np.full(pixels, np.float32(-4.59512))
            yield "near the first bias", truth, -4.6 + 0.05 * (noise + truth)


def areas(truth, logits):
    logits = torch.from_numpy(logits.astype(np.float32)).view(1, 1, 1, -1)
    target = torch.from_numpy(truth).long().view(1, 1, -1)
    return [ALL[name](BINARY, 0.5).forward(logits, target)[f"{name}.pooled"].item() for name in SKLEARN]


def test_areas_of_hard_sets_are_scikit_learns():
    for kind, truth, logits in sets(300, 3000):
        expected = [area(truth, logits.astype(np.float32)) for area in SKLEARN.values()]
        assert areas(truth, logits) == pytest.approx(expected, abs=1e-12), (kind, len(truth), truth.sum())


def test_areas_of_large_hard_sets_are_scikit_learns_to_the_fourth_digit(monkeypatch):
    monkeypatch.setattr(curves, "MOST_KEPT", 0)
    for kind, truth, logits in sets(30_000):
        if truth.sum() > 1000:
            expected = [area(truth, logits.astype(np.float32)) for area in SKLEARN.values()]
            assert areas(truth, logits) == pytest.approx(expected, abs=1e-4), (kind, truth.sum())


def test_a_set_that_grows_large_is_counted_from_its_first_batch_on(monkeypatch):
    logits, target = draw(BINARY, images=6)
    monkeypatch.setattr(curves, "MOST_KEPT", 0)
    counted = streamed(ALL["pr_auc"](BINARY, 0.5), logits, target)["pr_auc.pooled"]
    monkeypatch.setattr(curves, "MOST_KEPT", 3 * 24 * 20)
    metric = ALL["pr_auc"](BINARY, 0.5)
    assert streamed(metric, logits, target) == {"pr_auc.pooled": counted}
    assert metric.logits == metric.kinds == []
    few = streamed(metric, logits[:2], target[:2])["pr_auc.pooled"]
    assert sum(map(torch.numel, metric.logits)) == 2 * 24 * 20
    truth, odds, _ = next(by_class(BINARY, logits[:2], target[:2]))
    assert few.item() == pytest.approx(SKLEARN["pr_auc"](truth, odds), abs=1e-12)


def test_what_differing_logits_of_one_key_add_is_the_mean_over_their_orders():
    """Of every order of the middle level's 3 positives and 4 negatives."""
    found = []
    for places in itertools.combinations(range(7), 3):
        middle = [place in places for place in range(7)]
        truth = [True, False, True, *middle, False, True, False]
        found.append(SKLEARN["pr_auc"](truth, -np.arange(len(truth))))
    # From the top, which stands last: a true one, a false one, a true one, the seven, and so on.
    histogram = torch.tensor([[1, 0, 1, 4, 0, 1, 0], [0, 1, 0, 3, 1, 0, 1]])
    differing = torch.tensor([0.0, 0, 0, 1, 0, 0, 0], dtype=torch.float64)
    assert ranking.average_precision(histogram, differing).item() == pytest.approx(np.mean(found), abs=1e-12)


def test_keys_rise_with_logits():
    numbers = torch.tensor([-torch.inf, -65504, -1, -6e-8, -0.0, 0.0, 6e-8, 1e-3, 1, 65504, torch.inf])
    keys = keys_of(numbers)
    assert keys.tolist() == sorted(keys.tolist())
    assert keys[0] == keys[1] > UNCOUNTED
    assert keys[-1] == keys[-2] < BROKEN
    assert keys[3] < keys[4] == keys[5] < keys[6]
    assert keys_of(torch.tensor(torch.nan)) == BROKEN == KEYS - 1


def test_between_the_keys_of_16_bit_numbers_one_is_free():
    # A bfloat16 may be smaller than a float16; those below 1e-5 are not distinguished.
    for dtype, smallest in ((torch.float16, 2.0**-24), (torch.bfloat16, 2.0**-17)):
        numbers = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype).float().unique()
        numbers = numbers[(numbers.abs() <= 65504) & ((numbers == 0) | (numbers.abs() >= smallest))]
        assert (keys_of(numbers).diff() >= 2).all()
        assert len(numbers) > 8000


def test_log_odds_of_a_softmax_are_right_where_its_probabilities_are_1():
    logits = torch.tensor([[40.0, -30, 10, 10], [5, 5, 5, 5], [300, -300, 0, 0]]).view(3, 4, 1, 1)
    found = own_logits(MULTICLASS, logits)[..., 0, 0]
    odds = logits[..., 0, 0].double()
    for k in range(4):
        others = odds[:, [j for j in range(4) if j != k]].logsumexp(1)
        np.testing.assert_allclose(found[:, k].double(), odds[:, k] - others, rtol=1e-6)
    torch.testing.assert_close(own_logits(MULTICLASS, logits + 7), own_logits(MULTICLASS, logits))


@every_task
@pytest.mark.parametrize("scale", [1.0, 8.0])
def test_squared_errors_are_those_of_the_probabilities(task, scale):
    logits, target = draw(task, scale=scale)
    pooled, each = values_of(streamed(ALL["mse"](task, 0.5), logits, target), "mse", task)
    expected = [sklearn.metrics.brier_score_loss(truth, p) for truth, _, p in by_class(task, logits, target)]
    np.testing.assert_allclose(each, expected, rtol=1e-6)
    assert pooled == pytest.approx(np.mean(expected), rel=1e-6)


@every_task
@pytest.mark.parametrize("scale", [1.0, 8.0])
def test_calibration_errors_are_torchmetrics(task, scale):
    logits, target = draw(task, scale=scale)
    pooled, each = values_of(streamed(ALL["ece"](task, 0.5), logits, target), "ece", task)
    expected = [
        binary_calibration_error(torch.from_numpy(p), torch.from_numpy(truth).long(), n_bins=15).item()
        for truth, _, p in by_class(task, logits, target)
    ]
    np.testing.assert_allclose(each, expected, rtol=0, atol=1e-6)
    assert pooled == pytest.approx(np.mean(expected), abs=1e-6)


@pytest.mark.parametrize("scale", [0.3, 1.0, 8.0])
@pytest.mark.parametrize("exclude", [(), ("background",)])
def test_the_top_label_calibration_error_is_torchmetrics(scale, exclude):
    logits, target = draw(MULTICLASS, scale=scale, images=7)
    metric = ALL["ece"](MULTICLASS, 0.5, exclude=exclude)
    found = streamed(metric, logits, target, [3, 4])
    expected = multiclass_calibration_error(
        logits.softmax(1), target, num_classes=4, n_bins=15, norm="l1", ignore_index=IGNORE_INDEX
    )
    assert found["ece.top_label.pooled"].item() == pytest.approx(expected.item(), abs=1e-5)
    table = metric.tables()["ece.top_label"]
    assert next(iter(metric.tables())) == "ece.top_label"
    assert table.name == "predicted class"
    assert table.note == f"top-label ECE {expected:.4f}"
    counts = target != IGNORE_INDEX
    confidence, chosen = logits.softmax(1).max(1)
    accuracy, mean = calibration_curve((chosen == target)[counts], confidence[counts], n_bins=15)
    there = table.share > 0
    np.testing.assert_allclose(table.accuracy[there], accuracy, atol=1e-9)
    np.testing.assert_allclose(table.confidence[there], mean, atol=1e-6)


def test_calibration_of_hand_counted_bins():
    # Four pixels sure of 0.9526 of which two are right, one of 0.5 that is right.
    logits = torch.tensor([3.0, 3, 3, 3, 0]).view(1, 1, 1, 5)
    found = streamed(ALL["ece"](BINARY, 0.5), logits, torch.tensor([[[1, 1, 0, 0, 1]]]))
    assert found["ece.pooled"].item() == pytest.approx((4 * (1 / (1 + np.exp(-3)) - 0.5) + 0.5) / 5, abs=1e-7)


@pytest.mark.parametrize("task", [BINARY, MULTILABEL], ids=lambda task: task.mode)
@pytest.mark.parametrize("score", ["f1", "iou"])
def test_no_threshold_is_better_than_the_best(task, score):
    logits, target = draw(task, seed=3)
    found = streamed(ALL["best_threshold"](task, 0.5, score=score), logits, target)
    ours = {key: value for key, value in found.items() if f".{score}." not in key}
    pooled, each = values_of(ours, "best_threshold", task)

    def reached(threshold):
        values = streamed(ALL[score](task, threshold), logits, target, 5)
        return values_of({k: v for k, v in values.items() if "per_image" not in k}, score, task)

    for k, (truth, _, p) in enumerate(by_class(task, logits, target)):
        precision, recall, _ = sklearn.metrics.precision_recall_curve(truth, p)
        f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
        most = (f1 if score == "f1" else f1 / (2 - f1)).max()
        assert reached(each[k])[1][k] == pytest.approx(most, abs=1e-4)  # the thresholds lie 1/65536 apart
    best = reached(pooled)[0]
    assert all(reached(threshold)[0] <= best + 1e-4 for threshold in np.linspace(0.01, 0.99, 50))


@pytest.mark.parametrize("task", [BINARY, MULTILABEL], ids=lambda task: task.mode)
@pytest.mark.parametrize("score", ["f1", "iou"])
@pytest.mark.parametrize("scale", [0.001, 1.0, 300.0])
@pytest.mark.parametrize("kept", ["every class", "one"])
def test_setting_the_best_threshold_gives_the_very_score_that_is_reported(task, score, scale, kept):
    """At scale 300 most probabilities are 0 or 1, and logits that differ have the same."""
    logits, target = draw(task, scale=scale, seed=4)
    if task.mode == "multilabel":
        target[:, 1] = 0  # of a class that is not there, predicted pixels are wrong and none are no matter
    exclude = task.classes[:-1] if kept == "one" else ()
    found = streamed(ALL["best_threshold"](task, 0.5, score=score, exclude=exclude), logits, target)
    reported = {key.replace("best_threshold.", "", 1): value for key, value in found.items() if f".{score}." in key}
    assert len(reported) == len(found) / 2
    for key, value in reported.items():
        threshold = found["best_threshold" + key.removeprefix(score)].item()
        if np.isnan(threshold):
            assert key == f"{score}.class.{task.classes[1]}"
            assert value.isnan()
            continue
        written = float(repr(threshold))  # as YAML has it
        set_so = streamed(ALL[score](task, written, exclude=exclude), logits, target)
        assert set_so[key].item() == value.item()
        assert 0 <= value <= 1


def test_the_best_threshold_stands_between_the_pixels_that_it_parts():
    logits = torch.tensor([-3.0, -1, 2, 4]).view(1, 1, 1, 4)
    found = streamed(ALL["best_threshold"](BINARY, 0.5), logits, torch.tensor([[[0, 0, 1, 1]]]))
    # Between 0.2689 and 0.8808, near their middle 0.5749, in the fewest digits.
    assert {key: value.item() for key, value in found.items()} == {
        "best_threshold.pooled": 0.6,
        "best_threshold.f1.pooled": 1.0,
    }
    # Where everything is best taken.
    found = streamed(ALL["best_threshold"](BINARY, 0.5), logits, torch.tensor([[[1, 0, 1, 1]]]))
    assert found["best_threshold.pooled"].item() == 0


@every_metric
@pytest.mark.parametrize("fill", ["only positives", "only negatives", "all ignored", "nothing"])
def test_what_is_not_defined_is_nan(name, task, fill):
    logits, target = draw(task, ignored=0)
    if fill == "nothing":
        logits, target = logits[:0], target[:0]
    else:
        target = torch.full_like(target, {"only positives": 1, "only negatives": 0, "all ignored": 255}[fill])
    found = streamed(ALL[name](task, 0.5), logits, target, 5)
    seen = fill.startswith("only")
    for value in found.values():
        assert value.isfinite() if seen and name in ("mse", "ece") else value.isnan()


@every_task
@pytest.mark.parametrize("name", ["roc_auc", "pr_auc"])
def test_classes_that_are_absent_are_left_out_of_the_mean(name, task):
    logits, target = draw(task, ignored=0)
    if len(task.classes) == 1:
        return
    if task.mode == "multiclass":
        target = target.clamp(max=2)
    else:
        target[:, -1] = 0
    pooled, each = values_of(streamed(ALL[name](task, 0.5), logits, target), name, task)
    assert np.isnan(each[-1])
    assert pooled == pytest.approx(np.mean(each[:-1]), abs=1e-15)


@every_metric
def test_classes_left_out_are_not_in_the_mean(name, task):
    if len(task.classes) == 1:
        return
    logits, target = draw(task)
    out = task.classes[0]
    metric = ALL[name](task, 0.5, exclude=(out,))
    pooled, each = values_of(streamed(metric, logits, target), name, task)
    if name != "best_threshold":
        assert pooled == pytest.approx(np.mean(each[1:]), abs=1e-15)
    assert f'all classes but "{out}"' in metric.definitions[pooled_name(name, task)]
    with pytest.raises(SegregError, match="which is not a class"):
        ALL[name](task, 0.5, exclude=("none",))


@every_metric
def test_batches_do_not_matter(name, task):
    logits, target = draw(task, images=7)
    metric = ALL[name](task, 0.5)
    whole = streamed(metric, logits, target, 7)
    for sizes in (1, [3, 4], [1, 5, 1]):
        for key, value in streamed(metric, logits, target, sizes).items():
            assert value.item() == pytest.approx(whole[key].item(), abs=1e-9 if name in ("mse", "ece") else 0)
    metric.reset()
    metric.update(logits[:3], target[:3])
    metric.update(logits[3:].transpose(-1, -2), target[3:].transpose(-1, -2))
    key = pooled_name(name, task)
    assert metric.compute()[key].item() == pytest.approx(whole[key].item(), abs=1e-9)


@every_metric
def test_ignored_pixels_do_not_matter_even_if_they_are_nan(name, task):
    logits, target = draw(task)
    metric = ALL[name](task, 0.5)
    whole = streamed(metric, logits, target)
    ignored = (target == IGNORE_INDEX).reshape(target.shape[0], -1, *target.shape[-2:]).expand_as(logits)
    for other in (50 * torch.randn(logits.shape), torch.tensor(torch.nan)):
        for key, value in streamed(metric, logits.where(~ignored, other), target).items():
            assert value.item() == pytest.approx(whole[key].item(), abs=1e-9)


@every_metric
def test_a_network_that_gives_nan_has_no_score(name, task):
    logits, target = draw(task, ignored=0)
    logits[0, 0, 0, 0] = torch.nan
    metric = ALL[name](task, 0.5)
    found = streamed(metric, logits, target)
    assert found[pooled_name(name, task)].isnan()
    assert all(value.isnan() for key, value in found.items() if ".class." not in key)
    if hasattr(metric, "tables"):
        tables = metric.tables()
        assert len(tables) == sum(not value.isnan() for key, value in found.items() if ".class." in key)
        assert not any("nan" in table.note for table in tables.values())


@every_metric
def test_every_value_is_defined_formatted(name, task):
    metric = ALL[name](task, 0.5)
    assert list(metric.definitions) == list(streamed(metric, *draw(task)))
    for key, sentence in metric.definitions.items():
        per_image = key == "mse.per_image_mean"
        assert "ignored pixels left out" in sentence
        assert sentence.endswith("where it is undefined." if per_image else "ignored pixels left out.")
        assert ("counted in each image" if per_image else "all images together") in sentence
        assert ("against the rest" in sentence) == (task.mode == "multiclass" and "top_label" not in key)
        if ".class." in key:
            assert f'"{key.split(".")[-1]}"' in sentence
    assert metric.higher_is_better is {"roc_auc": True, "pr_auc": True, "best_threshold": None}.get(name, False)


def test_definitions_read_well():
    assert ALL["roc_auc"](BINARY, 0.5).definitions == {
        "roc_auc.pooled": (
            'area under the ROC curve, recall over false positive rate at every threshold, of "lesion", counted over '
            "the pixels of all images together; undefined without pixels of the class, or without others; ignored "
            "pixels left out."
        )
    }
    words = ALL["best_threshold"](MULTILABEL, 0.5, score="iou", exclude=("wall",)).definitions
    assert words["best_threshold.pooled"] == (
        "threshold in steps of 1/65536, or a number of fewer digits that parts the same pixels, from which on "
        "foreground has the largest IoU = Jaccard = TP / (TP + FP + FN), chosen on the very pixels that are scored, of "
        "each class, counted over the pixels of all images together, one threshold for all by the largest mean of "
        'these over all classes but "wall"; a class absent from both truth and prediction is left out; ignored pixels '
        "left out."
    )
    assert words["best_threshold.iou.class.cell"] == (
        "IoU = Jaccard = TP / (TP + FP + FN) with best_threshold, chosen on the very pixels that are scored, of "
        '"cell", counted over the pixels of all images together; undefined without pixels of the class, or without '
        "others; ignored pixels left out."
    )
    words = ALL["ece"](MULTICLASS, 0.5).definitions
    assert list(words)[:2] == ["ece.top_label.pooled", "ece.classwise.pooled"]
    assert words["ece.top_label.pooled"] == (
        "expected calibration error of the predicted class (arXiv:1706.04599), the distance between the mean "
        "probability of the class with the largest logit and the share of pixels that truly are of it in 15 equal bins "
        'of that probability, averaged over pixels, of "background", "road", "car" and "tree" together, counted over '
        "the pixels of all images together; undefined without pixels; ignored pixels left out."
    )
    assert words["ece.classwise.pooled"].startswith("class-wise expected calibration error, the distance")


def test_a_collection_has_one_histogram_for_all(monkeypatch):
    import segreg_plugins.metrics.curves as module

    calls = []
    monkeypatch.setattr(module, "MOST_KEPT", 0)
    monkeypatch.setattr(module, "keys_of", lambda given: calls.append(1) or keys_of(given))
    names = [*NAMES, "dice", "accuracy"]
    together = MetricCollection({name: ALL[name](MULTILABEL, 0.5) for name in names})
    logits, target = draw(MULTILABEL, images=6)
    for _ in range(2):
        calls.clear()
        together.reset()
        for part in range(3):
            together.update(logits[2 * part : 2 * part + 2], target[2 * part : 2 * part + 2])
        found = together.compute()
        for name in names:
            for key, value in ALL[name](MULTILABEL, 0.5).forward(logits, target).items():
                assert found.pop(key).item() == pytest.approx(value.item(), abs=1e-9)
        assert not found
    groups = sorted(map(sorted, together.compute_groups.values()))
    assert groups == [["accuracy", "dice"], ["best_threshold"], ["ece"], ["mse"], ["pr_auc", "roc_auc"]]
    assert len(calls) == 3 + 2 * 2  # three batches, and twice each metric's `forward`


@every_metric
def test_processes_add_up(name, task):
    logits, target = draw(task)
    whole = ALL[name](task, 0.5)
    whole.update(logits, target)
    parts = [ALL[name](task, 0.5) for _ in range(2)]
    parts[0].update(logits[:2], target[:2])
    parts[1].update(logits[2:], target[2:])
    total = ALL[name](task, 0.5)
    total.update(logits[:0], target[:0])
    for state, reduce in total._reductions.items():
        given = [getattr(part, state) for part in parts]
        is_list = isinstance(given[0], list)
        setattr(total, state, reduce([*given[0], *given[1]] if is_list else torch.stack(given)))
    for key, value in total.compute().items():
        assert value.item() == pytest.approx(whole.compute()[key].item(), abs=1e-9)


def test_processes_add_up_where_only_one_of_them_has_counted(monkeypatch):
    """The two areas of a collection share what the first process has counted; the other one still keeps its logits."""
    monkeypatch.setattr(curves, "MOST_KEPT", 2 * 8 * 8)
    task = Task(("lesion",), "binary")
    logits, target = torch.randn(4, 1, 8, 8).half(), torch.randint(0, 2, (4, 8, 8))
    logits[3] += 3.0 * target[3]
    made = lambda: MetricCollection({name: ALL[name](task, 0.5) for name in ("roc_auc", "pr_auc")})  # noqa: E731
    whole, one, other = made(), made(), made()
    whole.update(logits, target)
    one.update(logits[:3], target[:3])
    other.update(logits[3:], target[3:])
    for own, its in zip(one.values(copy_state=False), other.values(copy_state=False), strict=True):
        own.merge_state(its)
    assert one.compute() == whole.compute()


@every_metric
def test_bfloat16_uint8_and_copies(name, task):
    logits, target = draw(task)
    logits = logits.bfloat16()
    expected = streamed(ALL[name](task, 0.5), logits.float(), target)
    metric = pickle.loads(pickle.dumps(ALL[name](task, 0.5)))
    found = streamed(metric, logits.contiguous(memory_format=torch.channels_last), target.to(torch.uint8))
    for key, value in found.items():
        assert value.item() == pytest.approx(expected[key].item(), abs=1e-7)
    assert metric.state_dict() == {}


@every_metric
def test_counting_waits_for_no_device(name, task):
    logits, target = draw(task)
    metric = ALL[name](task, 0.5)
    with FakeTensorMode(allow_non_fake_inputs=True) as fake:
        metric.update(fake.from_tensor(logits), fake.from_tensor(target))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@every_metric
def test_the_gpu_counts_the_same_and_is_never_waited_for(name, task):
    logits, target = draw(task)
    expected = streamed(ALL[name](task, 0.5), logits, target, 5)
    metric = ALL[name](task, 0.5).cuda()
    logits, target = logits.cuda(), target.cuda()
    metric.update(logits, target)
    metric.reset()
    torch.cuda.set_sync_debug_mode("error")
    try:
        metric.update(logits, target)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for key, value in metric.compute().items():
        assert value.item() == pytest.approx(expected[key].item(), abs=1e-5)


@every_metric
@pytest.mark.parametrize("odd", [-1, 4, 254, 256])
def test_labels_that_the_task_does_not_have_are_reported(name, task, odd):
    logits, target = draw(task)
    target[0, ..., 0, :3] = odd
    metric = ALL[name](task, 0.5)
    metric.update(logits, target)
    with pytest.raises(SegregError, match="pixels of the masks carry labels that the task does not have"):
        metric.compute()


def test_what_it_can_not_serve_is_refused():
    with pytest.raises(SegregError, match="best_threshold does not serve a multiclass task"):
        ALL["best_threshold"](MULTICLASS, 0.5)
    for name in NAMES:
        with pytest.raises(SegregError, match=r"logits \[5, 1, 24, 20\] and target \[5, 1, 24, 20\] do not match"):
            ALL[name](BINARY, 0.5).update(draw(BINARY)[0], draw(BINARY)[1].unsqueeze(1))


# what they give to be drawn


@every_task
def test_curves_are_scikit_learns_and_enclose_the_area(task):
    logits, target = draw(task)
    logits = logits.half().float() if task.mode != "multiclass" else logits
    roc, pr = ALL["roc_auc"](task, 0.5), ALL["pr_auc"](task, 0.5)
    streamed(roc, logits, target)
    streamed(pr, logits, target)
    curves, others = roc.tables(), pr.tables()
    assert list(curves) == [f"roc_auc.{name}" for name in task.classes]
    for name, (truth, odds, _) in zip(task.classes, by_class(task, logits, target), strict=True):
        curve, other = curves[f"roc_auc.{name}"], others[f"pr_auc.{name}"]
        area = sklearn.metrics.roc_auc_score(truth, odds)
        assert (curve.x[0], curve.y[0], curve.x[-1], curve.y[-1]) == (0, 0, 1, 1)
        assert sklearn.metrics.auc(curve.x, curve.y) == pytest.approx(area, abs=1e-4)
        assert float(curve.note.split()[-1]) == pytest.approx(area, abs=1.1e-4)
        precision, recall, _ = sklearn.metrics.precision_recall_curve(truth, odds)
        np.testing.assert_allclose(
            np.interp([0.2, 0.5, 0.9], other.x, other.y), np.interp([0.2, 0.5, 0.9], recall[::-1], precision[::-1]),
            atol=5e-3,
        )  # fmt: skip
        assert other.chance == pytest.approx((truth.mean(), truth.mean()))
        assert curve.name == other.name == name


def test_curves_are_thinned_and_keep_their_ends():
    logits, target = draw(BINARY, images=8, size=(90, 90))
    metric = ALL["roc_auc"](BINARY, 0.5)
    area = streamed(metric, logits, target)["roc_auc.pooled"].item()
    curve = metric.tables()["roc_auc.lesion"]
    assert metric._levels(0)[0].shape[1] > 4000
    assert 1000 < len(curve.x) <= 2000
    assert (curve.x[0], curve.y[0], curve.x[-1], curve.y[-1]) == (0, 0, 1, 1)
    assert sklearn.metrics.auc(curve.x, curve.y) == pytest.approx(area, abs=1e-5)


def test_reliability_is_scikit_learns():
    logits, target = draw(BINARY, images=8)
    metric = ALL["ece"](BINARY, 0.5)
    error = streamed(metric, logits.half(), target)["ece.pooled"].item()
    table = metric.tables()["ece.lesion"]
    truth, _, p = next(by_class(BINARY, logits.half(), target))
    accuracy, confidence = calibration_curve(truth, p, n_bins=15)
    there = table.share > 0
    np.testing.assert_allclose(table.accuracy[there], accuracy, atol=1e-9)
    np.testing.assert_allclose(table.confidence[there], confidence, atol=1e-9)
    assert table.share.sum() == pytest.approx(1)
    gaps = table.share * np.abs(table.accuracy - table.confidence)
    assert np.nansum(gaps) == pytest.approx(error, abs=1e-12)


@every_task
def test_accuracy_gives_the_confusion_matrix(task):
    logits, target = draw(task)
    metric = ALL["accuracy"](task, 0.5)
    streamed(metric, logits, target)
    tables = metric.tables()
    if task.mode == "multilabel":
        assert [table.name for table in tables.values()] == list(task.classes)
    labels = range(4 if task.mode == "multiclass" else 2)
    predicted = task.labels(logits)
    for k, table in enumerate(tables.values()):
        true, found = (target[:, k], predicted[:, k]) if task.mode == "multilabel" else (target, predicted)
        keep = true != IGNORE_INDEX
        expected = sklearn.metrics.confusion_matrix(true[keep], found[keep], labels=labels)
        assert np.array_equal(table.counts, expected)
        assert len(table.labels) == len(labels)
    assert ALL["dice"](task, 0.5).tables() == {}


@every_metric
def test_degenerate_pixels_give_no_curve(name, task):
    logits, target = draw(task)
    metric = ALL[name](task, 0.5)
    streamed(metric, logits, torch.full_like(target, 255))
    assert not (metric.tables() if hasattr(metric, "tables") else {})

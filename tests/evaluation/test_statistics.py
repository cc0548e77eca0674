"""Intervals, tests and ranks: against loops in plain Python and NumPy, and against counting everything."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats

from segreg.evaluation.statistics import (
    Measure,
    holm,
    interval,
    intervals,
    of_seeds,
    permutation_p,
    ranks,
    resampled,
    resampled_words,
)

NAN = math.nan


def means(values):
    """One score of `[S, N]`."""
    return Measure.means(("score",), np.asarray(values, float)[..., None])


def pooled_dice(counts):
    """Dice pooled over `[S, N, 3]` true positives, false positives and false negatives."""
    return Measure(
        ("dice",), np.asarray(counts, float), lambda s: (2 * s[..., :1]) / (2 * s[..., :1] + s[..., 1:2] + s[..., 2:])
    )


def planted(images, difference, seeds=1, noise=0.05, seed=0):
    """Two models' scores `[S, N]`: images differ much, the models by a little."""
    draw = np.random.default_rng(seed)
    hard = draw.normal(0.7, 0.1, images)
    one = hard + draw.normal(0, noise, (seeds, images))
    return one + difference, hard + draw.normal(0, noise, (seeds, images))


def p_by_hand(one, other, swaps):
    """Return the share of swaps, each a row of 0 and 1, with a difference of means at least as large as measured."""
    measured = abs(one.mean() - other.mean())
    differences = [abs(np.where(swap, other - one, one - other).mean()) for swap in swaps]
    return np.mean([difference >= measured - 1e-12 for difference in differences])


def test_few_images_are_swapped_in_all_ways():
    one, other = planted(9, 0.04)
    expected = p_by_hand(one[0], other[0], itertools.product((0, 1), repeat=9))
    assert permutation_p(means(one), means(other), seed=0) == pytest.approx(expected, abs=1e-12)


def test_one_image_shows_no_difference():
    one, other = np.array([[0.9], [0.8]]), np.array([[0.1], [0.2]])
    assert permutation_p(means(one), means(other), seed=0) == 1.0


def test_random_swaps_agree_with_a_loop():
    one, other = planted(60, 0.012)
    expected = p_by_hand(one[0], other[0], np.random.default_rng(1).integers(0, 2, (20_000, 60)))
    found = permutation_p(means(one), means(other), seed=0)
    assert 0.02 < expected < 0.5, "a p that says something"
    assert found == pytest.approx(expected, abs=4 * np.sqrt(expected * (1 - expected) / 10_000) + 0.003)


def test_a_pooled_score_is_swapped_as_a_whole():
    counts = np.random.default_rng(2).integers(1, 50, (2, 1, 7, 3))
    one, other = pooled_dice(counts[0]), pooled_dice(counts[1])
    measured = abs((of_seeds(one) - of_seeds(other)).item())
    as_large = 0
    for swap in itertools.product((False, True), repeat=7):
        here = np.where(np.array(swap)[:, None], counts[1, 0], counts[0, 0]).sum(0)
        there = counts[:, 0].sum((0, 1)) - here
        dice = [2 * s[0] / (2 * s[0] + s[1] + s[2]) for s in (here, there)]
        as_large += abs(dice[0] - dice[1]) >= measured - 1e-12
    assert permutation_p(one, other, seed=0) == as_large / 2**7


def test_a_planted_difference_is_found_and_a_planted_tie_is_not():
    better, worse = planted(120, 0.03, seeds=3)
    assert permutation_p(means(better), means(worse), seed=0) < 0.001
    both = resampled([means(better), means(worse)], seed=0)[..., 0]
    low, high = interval(both[0] - both[1])
    assert 0 < low < 0.03 < high
    found = []
    for seed in range(40):
        one, other = planted(40, 0.0, seeds=2, seed=seed + 10)
        found.append(permutation_p(means(one), means(other), seed=0, swaps=999))
    assert sum(p < 0.05 for p in found) <= 6  # 2 are expected; more than 6 come once in 200 times
    assert stats.kstest(found, "uniform").pvalue > 0.01


def test_equal_models_are_never_apart():
    one, _ = planted(20, 0.0)
    assert permutation_p(means(one), means(one), seed=0) == 1.0
    assert permutation_p(means(one[:, :5]), means(one[:, :5]), seed=0) == 1.0


def test_with_other_numbers_of_seeds_the_mean_over_seeds_is_swapped():
    one, other = planted(8, 0.05, seeds=3)
    expected = permutation_p(means(one.mean(0, keepdims=True)), means(other[:1]), seed=0)
    assert permutation_p(means(one), means(other[:1]), seed=0) == pytest.approx(expected, abs=1e-12)


def test_an_undefined_score_has_an_undefined_p():
    empty = means([[np.nan] * 4])
    assert np.isnan(permutation_p(empty, means([[0.1, 0.2, 0.3, 0.4]]), seed=0))


def test_intervals_over_images_and_seeds_agree_with_a_loop():
    one, _ = planted(80, 0.0, seeds=3)
    generator = np.random.default_rng(0)
    expected = np.quantile(
        [one[generator.integers(0, 3, 3)][:, generator.integers(0, 80, 80)].mean() for _ in range(9999)],
        [0.025, 0.975],
    )
    found = interval(resampled([means(one)], seed=1, resamples=9999)[0, :, 0])
    assert found == pytest.approx(tuple(expected), abs=0.0015)


def test_one_image_of_one_seed_is_all_there_is():
    assert np.array_equal(
        resampled([means([[0.5]]), means([[0.7]])], seed=0, resamples=3)[..., 0], [[0.5] * 3, [0.7] * 3]
    )
    found = resampled([means([[0.5], [0.7]]), means([[0.2]])], seed=0, resamples=500)[..., 0]
    assert set(found[0].round(6)) == {0.5, 0.6, 0.7}
    assert set(found[1]) == {0.2}


def test_the_same_seed_samples_the_same_and_another_otherwise():
    first, again, other = (of_images(np.random.default_rng(3).random(30), seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert first != other


def test_images_and_seeds_are_drawn_the_same_for_all_models():
    one, _ = planted(30, 0.0, seeds=3)
    draws = resampled([means(one), means(one + 0.25)], seed=0)[..., 0]
    assert draws[1] - draws[0] == pytest.approx(0.25)
    assert np.ptp(draws[0]) > 0.01


def test_seeds_widen_the_interval_by_as_much_as_they_vary():
    """The bootstrap's variance of a mean of S seeds is that of a draw from them over S."""
    seeds = np.array([0.5, 0.6, 0.7, 0.8])
    draws = resampled([means(np.repeat(seeds[:, None], 50, 1))], seed=0, resamples=20_000)[0, :, 0]
    assert draws.mean() == pytest.approx(seeds.mean(), abs=0.002)
    assert draws.std() == pytest.approx(seeds.std() / 2, rel=0.03)


def test_undefined_images_are_left_out_of_means():
    values = np.array([[0.2, np.nan, 0.6, 0.4]])
    assert of_seeds(means(values)).item() == pytest.approx(np.nanmean(values))
    draws = resampled([means(values)], seed=0)[0, :, 0]
    assert np.nanmin(draws) == pytest.approx(0.2)
    assert np.nanmax(draws) == pytest.approx(0.6)
    assert 0 < np.isnan(draws).sum() < 30, "a resample of the undefined image alone, 1 in 256"
    assert interval(np.array([np.nan, np.nan, 0.1])) is None


def test_holm_by_hand_and_as_statsmodels_writes_it():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    found = holm([0.02, float("nan"), 0.01])
    assert found[::2] == pytest.approx([0.02, 0.02])
    assert np.isnan(found[1])
    draw = np.random.default_rng(0).uniform(0, 0.2, 8)
    order = np.argsort(draw)
    expected = np.minimum(1, np.maximum.accumulate(draw[order] * np.arange(8, 0, -1)))
    assert np.array(holm(list(draw)))[order] == pytest.approx(expected)


@pytest.mark.parametrize("higher", [True, False])
def test_ranks_count_the_better_and_half_of_the_equal(higher):
    scores = np.random.default_rng(0).integers(0, 5, (6, 4)).astype(float)
    keys = -scores if higher else scores
    expected = [
        [(keys[:, j] < keys[i, j]).sum() + ((keys[:, j] == keys[i, j]).sum() + 1) / 2 for j in range(4)]
        for i in range(6)
    ]
    assert np.array_equal(ranks(scores, higher_is_better=higher), expected)


def test_an_undefined_score_ranks_last():
    assert ranks(np.array([np.nan, 0.1, 0.9]), higher_is_better=True).tolist() == [3, 2, 1]


# the intervals of one run


def of_images(values, *, seed=0, resamples=1000):
    """Return the interval of a mean over images, or None."""
    values = np.asarray(values, float).reshape(1, -1, 1)
    return intervals([Measure.means(("mean",), values)], seed=seed, resamples=resamples).get("mean")


def dice_of(counts):
    tp, fp, fn = counts[..., 0, 0], counts[..., 0, 1], counts[..., 0, 2]
    return {"dice.pooled": torch.where(tp + fp + fn > 0, 2 * tp / (2 * tp + fp + fn).clamp(min=1), NAN)}


def test_intervals_of_means_and_pooled_scores_agree_with_loops():
    generator = np.random.default_rng(1)
    values = np.where(generator.random(40) < 0.2, NAN, generator.random(40))
    counts = generator.integers(0, 4000, (40, 2, 4))
    measures = [
        Measure.means(("mean",), values[None, :, None]),
        Measure.pooled(counts[None], [dice_of], ["dice.pooled"]),
    ]
    found = intervals(measures, seed=5, resamples=8000)
    means_, dices = [], []
    for _ in range(8000):
        chosen = generator.integers(0, 40, 40)
        means_.append(np.nanmean(values[chosen]))
        tp, fp, fn, _ = counts[chosen, 0].sum(0)
        dices.append(2 * tp / (2 * tp + fp + fn))
    assert found.keys() == {"mean", "dice.pooled"}
    for name, scores in (("mean", means_), ("dice.pooled", dices)):
        assert found[name] == pytest.approx(tuple(np.quantile(scores, [0.025, 0.975])), abs=0.12 * np.std(scores))


def test_how_many_resamples_are_computed_at_once_changes_nothing(monkeypatch):
    values = np.random.default_rng(2).random(23)
    whole = of_images(values, resamples=100)
    for at_once in (1, 7 * 23):
        monkeypatch.setattr("segreg.evaluation.statistics._AT_ONCE", at_once)
        assert of_images(values, resamples=100) == pytest.approx(whole, abs=1e-12)


def test_large_counts_are_added_exactly():
    """Ten images of 400 million pixels each are more than a float32 or an int32 holds."""
    counts = np.full((1, 10, 1, 4), 400_000_001, np.int64)
    sums = []

    def scorer(summed):
        sums.append(summed.reshape(-1))
        return {"s": summed[..., 0, 0].double()}

    intervals([Measure.pooled(counts, [scorer], ["s"])], seed=0, resamples=3)
    assert (torch.cat(sums) == 4_000_000_010).all()


def test_about_95_of_100_intervals_hold_the_mean():
    """Of 400 samples of 60 images, with a true mean of 0.5; the normal approximation of the count has 3 sigma = 13."""
    generator = np.random.default_rng(4)
    held = 0
    for seed in range(400):
        low, high = of_images(generator.uniform(0, 1, 60), seed=seed, resamples=400)
        held += low <= 0.5 <= high
    assert 0.915 <= held / 400 <= 0.975


def test_an_interval_is_as_wide_as_the_standard_error_says():
    values = np.random.default_rng(5).normal(0.7, 0.1, 2000)
    low, high = of_images(values)
    assert high - low == pytest.approx(2 * 1.96 * values.std() / math.sqrt(2000), rel=0.1)


@pytest.mark.parametrize(
    ("values", "expected"),
    [([], None), ([0.5], None), ([NAN, NAN, NAN], None), ([0.5, 0.5], (0.5, 0.5)), ([0.5, NAN, NAN], (0.5, 0.5)),
     ([0.5, 0.6, math.inf], None)],
)  # fmt: skip
def test_where_there_is_an_interval(values, expected):
    assert of_images(values) == expected


def test_a_score_that_is_mostly_undefined_has_no_interval():
    """A class in one image of a hundred is in 63% of the resamples; one that only a rule defines, in fewer."""
    counts = np.zeros((1, 100, 1, 4), np.int64)
    counts[0, 0, 0, 0] = 9
    assert intervals([Measure.pooled(counts, [dice_of], ["dice.pooled"])], seed=0) == {"dice.pooled": (1.0, 1.0)}
    twice = lambda summed: {"s": torch.where(summed[..., 0, 0] > 9, 1.0, NAN)}  # noqa: E731
    assert intervals([Measure.pooled(counts, [twice], ["s"])], seed=0) == {}


def test_groups_are_resampled_whole_and_single_images_as_without_groups():
    of_patients = np.random.default_rng(3).normal(0.6, 0.2, 8)
    measure, patients = means(np.repeat(of_patients, 5)[None]), np.repeat(np.arange(8), 5).tolist()
    alone = intervals([measure], seed=0)["score"]
    for singles in (None, range(40)):
        assert intervals([measure.by_group(singles)], seed=0)["score"] == alone
    whole = intervals([measure.by_group(patients)], seed=0)["score"]
    assert whole == pytest.approx(intervals([means(of_patients[None])], seed=0)["score"])
    assert np.diff(whole) > 1.8 * np.diff(alone)
    assert intervals([measure.by_group([7] * 40)], seed=0) == {}
    words = [resampled_words(each) for each in (None, patients, [7])]
    assert words == ["images", "8 groups of images", "1 group of images"]

"""The comparison's statistics, against SciPy's and against counting everything."""

import itertools

import numpy as np
import pytest
from scipy import stats

from segreg.evaluation.statistics import Measure, holm, interval, of_seeds, permutation_p, ranks, resampled


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


def test_all_swaps_are_scipys_exact_permutation_test():
    one, other = planted(9, 0.04)
    expected = stats.permutation_test(
        (one[0], other[0]), lambda a, b, axis: (a - b).mean(axis), permutation_type="samples", vectorized=True
    ).pvalue
    assert permutation_p(means(one), means(other), seed=0) == pytest.approx(expected, abs=1e-12)


def test_drawn_swaps_agree_with_scipys():
    one, other = planted(60, 0.012)
    expected = stats.permutation_test(
        (one[0], other[0]), lambda a, b, axis: (a - b).mean(axis), permutation_type="samples", vectorized=True,
        n_resamples=20_000, rng=np.random.default_rng(1),
    ).pvalue  # fmt: skip
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


def test_intervals_over_images_agree_with_scipys_bootstrap():
    one, _ = planted(80, 0.0)
    expected = stats.bootstrap(
        (one[0],), np.mean, method="percentile", n_resamples=9999, rng=np.random.default_rng(0)
    ).confidence_interval
    found = interval(resampled([means(one)], seed=1, resamples=9999)[0, :, 0])
    assert found == pytest.approx((expected.low, expected.high), abs=0.0015)


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
def test_ranks_are_scipys(higher):
    scores = np.random.default_rng(0).integers(0, 5, (6, 4)).astype(float)
    expected = stats.rankdata(-scores if higher else scores, axis=0)
    assert np.array_equal(ranks(scores, higher_is_better=higher), expected)


def test_an_undefined_score_stands_behind_all_others():
    assert ranks(np.array([np.nan, 0.1, 0.9]), higher_is_better=True).tolist() == [3, 2, 1]

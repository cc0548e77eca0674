"""Bootstrap intervals: against loops in plain Python, whether they cover what they should, and where there are none."""

from __future__ import annotations

import math

import numpy as np
import pytest

from segreg.evaluation.intervals import bootstrap

NAN = math.nan


def pooled_dice(counts):
    tp, fp, fn = counts[..., 0, 0], counts[..., 0, 1], counts[..., 0, 2]
    return {"dice.pooled": np.where(tp + fp + fn > 0, 2 * tp / np.maximum(2 * tp + fp + fn, 1), np.nan)}


def quantile(values, share):
    """Return a quantile by linear interpolation between the ordered values."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def test_intervals_are_those_of_loops_over_the_same_draws():
    drawn = np.random.default_rng(1)
    values = [NAN if drawn.random() < 0.2 else float(drawn.random()) for _ in range(17)]
    counts = drawn.integers(0, 4000, (17, 2, 4))
    found = bootstrap({"mean": values}, counts, [pooled_dice], seed=5, resamples=300)

    generator = np.random.default_rng(5)
    means, dices = [], []
    for _ in range(300):
        chosen = [int(generator.integers(0, 17)) for _ in range(17)]
        defined = [values[i] for i in chosen if not math.isnan(values[i])]
        means.append(sum(defined) / len(defined))
        tp, fp, fn = (sum(int(counts[i, 0, kind]) for i in chosen) for kind in range(3))
        dices.append(2 * tp / (2 * tp + fp + fn))
    assert found.keys() == {"mean", "dice.pooled"}
    for name, scores in (("mean", means), ("dice.pooled", dices)):
        assert found[name] == pytest.approx((quantile(scores, 0.025), quantile(scores, 0.975)), abs=1e-12)


def test_the_size_of_a_block_changes_nothing():
    drawn = np.random.default_rng(2)
    values, counts = drawn.random(23), drawn.integers(0, 90, (23, 1, 4))
    one, seven, all_ = (
        bootstrap({"mean": values}, counts, [pooled_dice], seed=0, resamples=100, block=block) for block in (1, 7, 100)
    )
    for name in ("mean", "dice.pooled"):
        assert one[name] == pytest.approx(seven[name], abs=1e-12)
        assert one[name] == pytest.approx(all_[name], abs=1e-12)


def test_another_seed_draws_otherwise_and_the_same_one_draws_the_same():
    values = np.random.default_rng(3).random(30)
    first, again, other = (bootstrap({"mean": values}, None, [], seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert first != other


def test_large_counts_are_added_exactly():
    """Ten images of 400 million pixels each are more than a float32 or an int32 holds."""
    counts = np.full((10, 1, 4), 400_000_001, np.int64)
    sums = []

    def scorer(summed):
        sums.append(summed)
        return {}

    bootstrap({}, counts, [scorer], seed=0, resamples=3)
    assert (np.concatenate(sums) == 4_000_000_010).all()


def test_about_95_of_100_intervals_hold_the_mean():
    """Of 400 samples of 60 images, with a true mean of 0.5; the normal approximation of the count has 3 sigma = 13."""
    drawn = np.random.default_rng(4)
    held = 0
    for seed in range(400):
        low, high = bootstrap({"mean": drawn.uniform(0, 1, 60)}, None, [], seed=seed, resamples=400)["mean"]
        held += low <= 0.5 <= high
    assert 0.915 <= held / 400 <= 0.975


def test_an_interval_is_as_wide_as_the_standard_error_says():
    values = np.random.default_rng(5).normal(0.7, 0.1, 2000)
    low, high = bootstrap({"mean": values}, None, [], seed=0)["mean"]
    assert high - low == pytest.approx(2 * 1.96 * values.std() / math.sqrt(2000), rel=0.1)


@pytest.mark.parametrize(
    ("values", "names"),
    [([], set()), ([0.5], set()), ([NAN, NAN, NAN], set()), ([0.5, 0.5], {"mean"}), ([0.5, NAN, NAN], {"mean"})],
)
def test_where_there_is_an_interval(values, names):
    found = bootstrap({"mean": values}, None, [], seed=0)
    assert found.keys() == names
    assert all(interval == (0.5, 0.5) for interval in found.values())


def test_a_score_that_is_mostly_undefined_has_no_interval():
    """A class in one image of a hundred is in 63% of the resamples; one that only a rule defines, in fewer."""
    counts = np.zeros((100, 1, 4), np.int64)
    counts[0, 0, 0] = 9
    assert bootstrap({}, counts, [pooled_dice], seed=0) == {"dice.pooled": (1.0, 1.0)}
    twice = lambda summed: {"s": np.where(summed[:, 0, 0] > 9, 1.0, np.nan)}  # noqa: E731
    assert bootstrap({}, counts, [twice], seed=0) == {}

"""Which samples go where."""

import dataclasses
import os
import random
from itertools import chain

import numpy as np
import pytest

from segreg.config.sections import Split
from segreg.data.split import divide, drawn
from segreg.errors import SegregError


def ids(dataset, splits):
    return {split: {dataset.samples[i].id for i in indices} for split, indices in splits.items()}


def shuffled(dataset):
    samples = list(dataset.samples)
    random.Random(3).shuffle(samples)
    return dataclasses.replace(dataset, samples=samples)


def test_a_drawn_split_has_the_shares_and_is_a_partition(memory):
    splits = divide(memory(200), Split(method="random", val=0.15, test=0.1))
    assert {split: len(found) for split, found in splits.items()} == {"train": 150, "val": 30, "test": 20}
    assert sorted(splits["train"] + splits["val"] + splits["test"]) == list(range(200))
    assert all(found == sorted(found) for found in splits.values())


def test_a_drawn_split_does_not_depend_on_order(memory):
    dataset = memory(60)
    other = shuffled(dataset)
    assert [s.id for s in dataset.samples] != [s.id for s in other.samples]
    assert ids(dataset, divide(dataset, Split())) == ids(other, divide(other, Split()))


def test_a_drawn_split_depends_on_the_seed_and_stays_the_same_for_ever(memory):
    dataset = memory(12)
    one, two = (divide(dataset, Split(seed=seed, val=0.25, test=0.25)) for seed in (0, 1))
    assert one != two
    # What the seed has always meant: published splits must not change.
    assert one == FIRST_SPLIT
    assert drawn(["a", "b", "c", "d", "e"], 0) == FIRST_ORDER
    assert drawn(["e", "d", "c", "b", "a"], 0) == FIRST_ORDER


FIRST_SPLIT = {"train": [0, 4, 5, 7, 8, 11], "val": [1, 2, 6], "test": [3, 9, 10]}
FIRST_ORDER = ["b", "a", "c", "e", "d"]


def test_groups_are_never_divided_and_shares_are_near(memory):
    groups = [f"patient {i % 37 if i % 3 else i % 5}" for i in range(300)]
    dataset = memory(300, groups=groups)
    splits = divide(dataset, Split(val=0.2, test=0.2))
    held = [{dataset.samples[i].group for i in splits[split]} for split in ("train", "val", "test")]
    assert not held[0] & held[1]
    assert not held[0] & held[2]
    assert not held[1] & held[2]
    smallest = min(groups.count(group) for group in set(groups))
    assert abs(len(splits["val"]) - 60) <= smallest / 2
    assert abs(len(splits["test"]) - 60) <= smallest / 2


def test_a_group_is_no_sample_of_the_same_name(memory):
    dataset = memory(8, groups=["s000", *[None] * 7])
    assert sorted(i for split in divide(dataset, Split()).values() for i in split) == list(range(8))


def test_few_samples_still_fill_each_side(memory):
    assert {s: len(f) for s, f in divide(memory(3), Split()).items()} == {"train": 1, "val": 1, "test": 1}


def test_too_few_samples_are_reported(memory):
    with pytest.raises(SegregError, match="leaves train empty: of 1 samples, 0 are in train, 0 in val and 1 in test"):
        divide(memory(1), Split())
    with pytest.raises(SegregError, match="leaves val empty"):
        divide(memory(10), Split(val=0.0))
    with pytest.raises(SegregError, match="leaves train empty"):
        divide(memory(10), Split(val=0.5, test=0.5))


def test_no_test_is_fine_only_where_its_share_is_zero(memory):
    assert divide(memory(10), Split(test=0.0))["test"] == []
    own = memory(4, splits=["train", "train", "val", "val"])
    assert divide(own, Split(method="dataset", test=0.0))["test"] == []
    with pytest.raises(SegregError, match=r"leaves test empty(?s:.*)split.method: auto draws"):
        divide(own, Split(method="dataset"))


def test_the_data_sets_own_sides_are_taken(memory):
    splits = ["train", "val", "test", "train"]
    for method in ("dataset", "auto"):
        assert divide(memory(4, splits=splits), Split(method=method)) == {"train": [0, 3], "val": [1], "test": [2]}


def test_auto_draws_what_the_data_set_lacks_from_its_train(memory):
    own = memory(20, splits=["train"] * 15 + ["val"] * 5)
    splits = divide(own, Split(test=0.2))
    assert splits["val"] == [15, 16, 17, 18, 19]
    assert len(splits["test"]) == 4
    assert sorted(splits["test"] + splits["train"]) == list(range(15))
    own = memory(20, splits=["train"] * 15 + ["test"] * 5)
    splits = divide(own, Split(val=0.1))
    assert splits["test"] == [15, 16, 17, 18, 19]
    assert len(splits["val"]) == 2


def test_random_ignores_the_data_sets_sides(memory):
    own, none = memory(30, splits=["train"] * 30), memory(30)
    assert divide(own, Split(method="random")) == divide(none, Split())


@pytest.mark.parametrize("count", [7, 20, 101, 670])
@pytest.mark.parametrize(("test", "val", "seed"), [(0.15, 0.15, 42), (0.2, 0.25, 0), (0.1, 0.3, 7)])
def test_train_test_split_draws_what_scikit_learn_draws(memory, count, test, val, seed):
    from sklearn.model_selection import train_test_split

    dataset = memory(count)
    rest, held_out = train_test_split(range(count), test_size=test, random_state=seed)
    train, chosen = train_test_split(rest, test_size=val, random_state=seed)
    splits = divide(dataset, Split(method="train_test_split", test=test, val=val, seed=seed))
    assert splits == {"train": sorted(train), "val": sorted(chosen), "test": sorted(held_out)}


def test_train_test_split_without_a_test_is_one_call(memory):
    from sklearn.model_selection import train_test_split

    train, val = train_test_split(range(10), test_size=0.3, random_state=1)
    splits = divide(memory(10), Split(method="train_test_split", test=0.0, val=0.3, seed=1))
    assert splits == {"train": sorted(train), "val": sorted(val), "test": []}


def test_train_test_split_ignores_the_data_sets_sides_and_refuses_groups(memory):
    split = Split(method="train_test_split")
    assert divide(memory(30, splits=["train"] * 30), split) == divide(memory(30), split)
    assert divide(memory(8, groups=[f"g{n}" for n in range(8)]), split) == divide(memory(8), split)
    with pytest.raises(SegregError) as caught:
        divide(memory(8, groups=["a", "a", "b", "b", None, None, "c", None]), split)
    assert str(caught.value) == (
        "split.method: train_test_split draws single samples and would divide groups, and the data set has 2 of them, "
        'such as "a" and "b"\n  split.method: random draws whole groups'
    )
    with pytest.raises(SegregError, match=r"leaves train empty(?s:.*)split.val of what the test leaves"):
        divide(memory(2), split)


def test_a_sample_without_a_side_is_reported(memory):
    with pytest.raises(SegregError, match=r'2 of 4 samples don\'t say.*"s002" and "s003"'):
        divide(memory(4, splits=["train", "val", None, "training"]), Split())


@pytest.fixture
def lists(tmp_path):
    def write(**texts):
        found = {}
        for split, text in texts.items():
            found[split] = tmp_path / f"{split}.txt"
            found[split].write_text(text, encoding="utf-8")
        return Split(method="lists", lists=found)

    return write


def test_lists_are_read(memory, lists):
    split = lists(train="\ufeffs000\n# a remark\n\n  s003 \r\n", val="s001", test="s002\n")
    assert divide(memory(9), split) == {"train": [0, 3], "val": [1], "test": [2]}
    assert divide(memory(9), lists(train="s000", val="s001"))["test"] == []


def test_every_wrong_line_of_the_lists_is_reported(memory, lists, tmp_path):
    split = lists(train="s000\n\ns0001\ns000\n", val="s002\ns000\nelse\n")
    with pytest.raises(SegregError) as caught:
        divide(memory(9), split)
    first, second, third, fourth = caught.value.problems
    assert str(first.place) == f"{tmp_path / 'train.txt'}:3"
    assert first.message == 'the data set has no sample "s0001"'
    assert 'did you mean "s001"' in first.hint
    assert second.message == f'"s000" is given twice in one list; it stands already at {tmp_path / "train.txt"}:1'
    assert "in two splits, train and val" in third.message
    assert str(third.place) == f"{tmp_path / 'val.txt'}:2"
    assert fourth.hint == 'ids look like "s000"'


def test_lists_that_cannot_be_read_are_reported(memory, lists, tmp_path):
    with pytest.raises(SegregError, match='has none for "val"'):
        divide(memory(9), lists(train="s000"))
    split = lists(train="s000", val="s001")
    (tmp_path / "val.txt").write_bytes(b"\xff\xfe\x00s")
    with pytest.raises(SegregError, match=r"val.txt: is not a UTF-8 text"):
        divide(memory(9), split)
    (tmp_path / "val.txt").unlink()
    with pytest.raises(SegregError, match=r"val.txt: can't read this list of sample ids: No such file"):
        divide(memory(9), split)
    os.mkfifo(tmp_path / "val.txt")  # which would be waited for
    with pytest.raises(SegregError, match=r"val.txt: is not a file; a list has one sample id a line"):
        divide(memory(9), split)
    (tmp_path / "val.txt").unlink()
    with pytest.raises(SegregError, match=r"leaves val empty(?s:.*)the list for val names no sample"):
        divide(memory(9), lists(train="s000", val="# none\n"))


def test_a_divided_group_is_reported(memory, lists):
    groups = ["one", "two", "one", "two", None]
    with pytest.raises(SegregError, match=r'group "one".*"s000" in train and "s002" in val \(and 1 groups more\)'):
        divide(memory(5, groups=groups), lists(train="s000\ns001", val="s002\ns003"))
    with pytest.raises(SegregError, match='the group "one" is in two splits'):
        divide(memory(5, groups=groups, splits=["train", "val", "val", "val", "test"]), Split())


def test_two_samples_of_one_id_are_reported(memory):
    dataset = memory(3)
    double = dataclasses.replace(dataset, samples=[*dataset.samples, dataset.samples[1]])
    with pytest.raises(SegregError, match='sample ids must differ, but "s001" stands for several'):
        divide(double, Split())


@pytest.mark.parametrize("method", ["random", "train_test_split"])
def test_names_that_are_not_utf_8_are_split_as_others_are(memory, method):
    dataset = memory(6)
    odd = dataclasses.replace(dataset.samples[2], id="caf\udce9")
    samples = (*dataset.samples[:2], odd, *dataset.samples[3:])
    splits = divide(dataclasses.replace(dataset, samples=samples), Split(method=method, val=0.3, test=0.2))
    assert sorted(index for indices in splits.values() for index in indices) == list(range(6))


# stratified


def scattered(memory, count=200, groups=None, seed=0):
    """A data set of which a tenth shows the rarest label, and which labels each sample shows, bool `[N, 4]`."""
    shares = np.array([1.0, 0.5, 0.25, 0.1])
    places = np.random.default_rng(seed).permuted(np.tile(np.arange(count), (4, 1)), axis=1)
    return memory(count, groups=groups), (places < shares[:, None] * count).T


def shown(splits, present):
    return {split: present[indices].sum(axis=0).tolist() for split, indices in splits.items()}


def test_each_split_gets_its_share_of_rare_labels(memory):
    dataset, present = scattered(memory)
    assert present.sum(axis=0).tolist() == [200, 100, 50, 20]
    settings = [Split(val=0.15, test=0.1, seed=seed, stratify=stratify) for seed in range(20) for stratify in (0, 1)]
    off = {0: [], 1: []}
    for one in settings:
        splits = divide(dataset, one, lambda: present)
        assert sorted(i for indices in splits.values() for i in indices) == list(range(200))
        counts = shown(splits, present)
        off[one.stratify] += [abs(counts["val"][3] - 3), abs(counts["test"][3] - 2)]
        if one.stratify:
            assert np.abs(np.array(counts["train"]) - [150, 75, 37.5, 15]).max() <= 2
            assert np.abs(np.array(counts["val"]) - [30, 15, 7.5, 3]).max() <= 2
            assert np.abs(np.array(counts["test"]) - [20, 10, 5, 2]).max() <= 2
    assert max(off[1]) == 0  # the rarest exactly
    assert sum(off[0]) > 20  # of 40


def test_a_stratified_split_depends_on_the_seed_and_on_nothing_else(memory):
    dataset, present = scattered(memory, 60)
    one = divide(dataset, Split(stratify=True), lambda: present)
    assert one == divide(dataset, Split(stratify=True), lambda: present)
    assert one != divide(dataset, Split(stratify=True, seed=1), lambda: present)
    other = shuffled(dataset)
    order = [int(sample.id[1:]) for sample in other.samples]
    assert ids(dataset, one) == ids(other, divide(other, Split(stratify=True), lambda: present[order]))


def test_stratified_groups_stay_whole(memory):
    sizes = np.random.default_rng(5).integers(1, 9, 60)
    groups = [f"patient {number}" for number, size in enumerate(sizes) for _ in range(size)]
    dataset, present = scattered(memory, len(groups), groups)
    splits = divide(dataset, Split(val=0.2, test=0.2, stratify=True), lambda: present)
    held = [{groups[i] for i in splits[split]} for split in ("train", "val", "test")]
    assert sum(map(len, held)) == len(set(groups))
    wanted = 0.2 * present.sum(axis=0)
    for split in ("val", "test"):
        assert np.abs(present[splits[split]].sum(axis=0) - wanted).max() <= 8, split


def test_what_a_data_set_has_of_its_own_is_kept_and_the_rest_stratified(memory):
    own = memory(100, splits=["train"] * 80 + ["val"] * 20)
    present = np.array([[True, number % 8 == 0] for number in range(100)])
    splits = divide(own, Split(test=0.2, stratify=True), lambda: present)
    assert splits["val"] == list(range(80, 100))
    assert shown(splits, present)["test"] == pytest.approx([20, 2.5], abs=0.5)
    whole = memory(9, splits=["train"] * 5 + ["val"] * 2 + ["test"] * 2)
    with pytest.raises(SegregError, match="splits of its own, and nothing is drawn"):
        divide(whole, Split(stratify=True), lambda: present)


def test_a_label_in_one_image_and_images_without_labels_are_dealt_out_too(memory):
    present = np.zeros((10, 3), bool)
    present[3, 1] = True
    splits = divide(memory(10), Split(val=0.2, test=0.2, stratify=True), lambda: present)
    assert 3 in splits["train"]
    assert {split: len(indices) for split, indices in splits.items()} == {"train": 6, "val": 2, "test": 2}
    splits = divide(memory(3), Split(stratify=True), lambda: np.ones((3, 1), bool))
    assert {split: len(indices) for split, indices in splits.items()} == {"train": 1, "val": 1, "test": 1}


# folds


def dealt(dataset, present=None, **settings):
    """Every fold's val, the trains and tests checked."""
    count = settings.get("folds", 5)
    found = [divide(dataset, Split(method="folds", fold=fold, **settings), present) for fold in range(count)]
    test = found[0]["test"]
    every = sorted(index for splits in found for index in splits["val"])
    for splits in found:
        assert splits["test"] == test
        assert splits["train"] == [index for index in every if index not in set(splits["val"])]
    assert sorted([*every, *test]) == sorted(set(every) | set(test)), "each sample once"
    return [splits["val"] for splits in found], test


def test_each_sample_is_in_one_fold_of_about_one_size(memory):
    vals, test = dealt(memory(53))
    assert test == []
    assert sorted(chain(*vals)) == list(range(53))
    assert sorted(map(len, vals)) == [10, 10, 11, 11, 11]
    vals, _ = dealt(memory(3), folds=3)
    assert sorted(map(len, vals)) == [1, 1, 1]


def test_folds_depend_on_the_seed_and_on_nothing_else(memory):
    dataset = memory(12)
    vals, _ = dealt(dataset, folds=3)
    assert vals == FIRST_FOLDS  # for ever, as published ones must not change
    assert dealt(dataset, folds=3, seed=1)[0] != vals
    other = shuffled(dataset)
    assert [{other.samples[i].id for i in val} for val in dealt(other, folds=3)[0]] == [
        {dataset.samples[i].id for i in val} for val in vals
    ]


FIRST_FOLDS = [[6, 8, 9, 11], [0, 2, 3, 7], [1, 4, 5, 10]]


def test_a_test_is_held_out_before_folds_are_dealt(memory):
    vals, test = dealt(memory(60), test=0.2)
    assert test == divide(memory(60), Split(method="random", test=0.2))["test"]
    assert sorted(map(len, vals)) == [9, 9, 10, 10, 10]
    own = memory(30, splits=["train"] * 15 + ["val"] * 5 + ["test"] * 10)
    assert dealt(own)[1] == dealt(own, test=0.2)[1] == list(range(20, 30))
    assert dealt(own)[0] == dealt(memory(20))[0], "its train and val are dealt together"


def test_folds_of_lists(memory, lists):
    named = lists(train="s000\ns001\ns002", val="s003\ns004", test="s005").lists
    vals, test = dealt(memory(9), lists=named)
    assert sorted(map(len, vals)) == [1, 1, 1, 1, 1]
    assert sorted(chain(*vals)) == [0, 1, 2, 3, 4]
    assert test == [5]


def test_folds_keep_groups_whole(memory):
    sizes = np.random.default_rng(5).integers(1, 9, 40)
    groups = [f"patient {number}" for number, size in enumerate(sizes) for _ in range(size)]
    vals, test = dealt(memory(len(groups), groups=groups), test=0.1)
    held = [{groups[i] for i in indices} for indices in (*vals, test)]
    assert sum(map(len, held)) == len(set(groups))
    assert max(map(len, vals)) - min(map(len, vals)) <= 1, "large groups first, then small ones even it out"
    vals, _ = dealt(memory(12, groups=["big"] * 10 + ["a", "b"]), folds=3)
    assert sorted(map(len, vals)) == [1, 1, 10]


def test_stratified_folds_have_each_class_in_its_share(memory):
    dataset, present = scattered(memory)
    for test in (0.0, 0.1):
        vals, _ = dealt(dataset, lambda: present, stratify=True, test=test)
        of_fold = np.array([present[val].sum(axis=0) for val in vals])
        assert of_fold[:, 3].max() - of_fold[:, 3].min() <= (0 if not test else 1), "20 images, or 18, show the rarest"
        assert (of_fold.max(axis=0) - of_fold.min(axis=0)).max() <= 2
    other = shuffled(dataset)
    order = [int(sample.id[1:]) for sample in other.samples]
    again = dealt(other, lambda: present[order], stratify=True)[0]
    first = dealt(dataset, lambda: present, stratify=True)[0]
    assert [{order[i] for i in val} for val in again] == list(map(set, first))


def test_folds_that_cannot_be_are_refused(memory):
    with pytest.raises(SegregError, match="there are 5 folds, numbered from 0, and no fold 5"):
        divide(memory(9), Split(method="folds", fold=5))
    with pytest.raises(SegregError, match="5 folds can't be dealt from 4 samples"):
        divide(memory(4), Split(method="folds"))
    with pytest.raises(SegregError, match="5 folds can't be dealt from 2 groups"):
        divide(memory(9, groups=["a", "b", "a", "b", "a", "b", "a", "b", "a"]), Split(method="folds"))
    divided = memory(9, groups=["a"] * 9, splits=["train"] * 8 + ["test"])
    with pytest.raises(SegregError, match='group "a" is in two splits: "s000" in train and "s008" in test'):
        divide(divided, Split(method="folds", folds=2))

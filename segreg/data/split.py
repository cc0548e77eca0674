"""Which samples train, which choose the checkpoint and which are kept for the end."""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from segreg.config.sections import Split
from segreg.errors import Place, Problem, SegregError, did_you_mean, listed
from segreg.registry.protocols import Dataset, Sample

Name = TypeVar("Name", bound=Hashable)
SplitName = Literal["train", "val", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "val", "test")


def divide(
    dataset: Dataset, settings: Split, present: Callable[[], NDArray[np.bool_]] | None = None
) -> dict[SplitName, list[int]]:
    """Return each split's samples as indices into `dataset.samples`, in the data set's order.

    * `random` draws by a hash of the seed with each sample's group (its id where it has none). So the split does not
      depend on the samples' order, on the machine or on any library's version, and a group is never divided. A split
      gets as near to its share of all samples as whole groups allow, and one group at least where its share isn't 0.
    * `dataset` takes the data set's own splits and draws nothing.
    * `lists` reads ids from text files (UTF-8, one id a line, blank lines and lines that begin with # skipped).
      Samples that no list names are left out. Without a list for test there is no test.
    * `train_test_split` draws what scikit-learn's function of that name draws, called twice with the seed: `test` of
      all samples, then `val` of what is left. It depends on the samples' order and knows no groups.
    * `folds` deals the samples that are not kept for the test into folds of about one size, as `_stratified` does, by
      the same hash as `random`: val is one fold, train the others. The test is the data set's own, or that of the
      lists, or drawn as `random` draws it where it has a share.
    * `auto` is `dataset` where the samples name their splits and `random` where they don't. A val or test that the data
      set does not have is drawn from its train, as `random` draws.

    With `stratify`, what is drawn has each class in its share too, see `_stratified`.

    Args:
        dataset: the data set.
        settings: the recipe's section.
        present: returns which labels each sample's mask shows, bool `[N, L]`; called where `stratify` needs it.

    Raises:
        SegregError: train or val is empty, or test though its share is not 0; a sample or a group is in two splits;
            two samples have one id; a list can't be read or names an unknown id; a sample has no split of its own;
            there are groups, and `train_test_split` was to draw; there is nothing to draw, and `stratify` is set;
            there is no such fold, or there are more folds than groups.
    """
    samples, settings = dataset.samples, settings.complete()
    _refuse_double_ids(samples)
    own = any(sample.split is not None for sample in samples)
    if settings.method == "lists":
        splits = _listed(samples, settings.lists)
    elif settings.method == "train_test_split":
        splits = _as_scikit_learn(samples, settings)
    elif settings.method == "folds":
        splits = _fold(samples, settings, present)
    elif settings.method == "dataset" or (settings.method == "auto" and own):
        splits = _own(samples)
        if settings.method == "auto" and splits["train"]:
            splits = _completed(samples, splits, settings, present)
    else:
        splits = {"train": list(range(len(samples))), "val": [], "test": []}
        splits = _completed(samples, splits, settings, present)
    _refuse_divided_groups(samples, splits)
    _refuse_empty(splits, settings, len(samples))
    return {split: sorted(splits[split]) for split in SPLITS}


def drawn(words: Iterable[str], *seed: object) -> list[str]:
    """Return the words in an order that depends on the seed and on nothing else, not even on their order."""
    key = hashlib.blake2b("/".join(map(str, seed)).encode(errors="surrogatepass")).digest()

    def place(word: str) -> tuple[bytes, str]:
        return hashlib.blake2b(word.encode(errors="surrogatepass"), key=key, digest_size=16).digest(), word

    return sorted(words, key=place)


def group_numbers(samples: Iterable[Sample]) -> list[int] | None:
    """Return a number for each sample, the same for those of one group; None where each is one by itself."""
    names = [_group(sample) for sample in samples]
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return [numbers[name] for name in names] if len(numbers) < len(names) else None


def _completed(
    samples: Sequence[Sample],
    splits: Mapping[SplitName, list[int]],
    settings: Split,
    present: Callable[[], NDArray[np.bool_]] | None,
) -> dict[SplitName, list[int]]:
    """Return the splits with test and val, where they are empty, drawn from train."""
    groups = _groups(samples, splits["train"])
    left = drawn(groups, settings.seed)
    complete = {split: list(splits[split]) for split in SPLITS}
    shares = _shares(settings)
    if settings.stratify:
        wanted = {split: max(1.0, share * len(samples)) for split, share in shares if share and not complete[split]}
        if not wanted:
            raise SegregError(
                "split.stratify: the data set has splits of its own, and nothing is drawn",
                hint="split.method: random draws them anew",
            )
        if present is None:
            raise ValueError("a stratified split needs to know which labels are present")
        wanted["train"] = max(1.0, len(splits["train"]) - sum(wanted.values()))
        return complete | _stratified([groups[name] for name in left], wanted, present(), settings.seed)
    for split, share in shares:
        if not complete[split] and share > 0:
            chosen = _nearest_to(share * len(samples), left, {name: len(groups[name]) for name in left})
            complete[split] = [index for name in chosen for index in groups[name]]
            left = [name for name in left if name not in chosen]
    complete["train"] = [index for name in left for index in groups[name]]
    return complete


def _shares(settings: Split) -> tuple[tuple[SplitName, float], ...]:
    return ("test", settings.test or 0.0), ("val", settings.val)


def _groups(samples: Sequence[Sample], indices: Iterable[int]) -> dict[str, list[int]]:
    """Return the samples of each group; one without a group is one by itself."""
    groups: dict[str, list[int]] = defaultdict(list)
    for index in indices:
        groups[_group(samples[index])].append(index)
    return groups


def _group(sample: Sample) -> str:
    # No sample's id can pass for a group's name: they begin differently.
    return f"sample {sample.id}" if sample.group is None else f"group {sample.group}"


def _fold(
    samples: Sequence[Sample], settings: Split, present: Callable[[], NDArray[np.bool_]] | None
) -> dict[SplitName, list[int]]:
    """Return one fold as val, the others as train, and the test that was held out before."""
    folds, fold = settings.folds or 0, settings.fold or 0
    if fold >= folds:
        raise SegregError(f"split.fold: there are {folds} folds, numbered from 0, and no fold {fold}")
    splits: dict[SplitName, list[int]] = {"train": list(range(len(samples))), "val": [], "test": []}
    if settings.lists:
        splits = _listed(samples, settings.lists)
    elif any(sample.split is not None for sample in samples):
        splits = _own(samples)
    _refuse_divided_groups(samples, {"train": [*splits["train"], *splits["val"]], "val": [], "test": splits["test"]})
    test, left = splits["test"], [*splits["train"], *splits["val"]]
    if settings.test and not test:
        held = _completed(samples, {"train": left, "val": [], "test": []}, replace(settings, val=0.0), present)
        test, left = held["test"], held["train"]
    groups = _groups(samples, left)
    if len(groups) < folds:
        of = "groups" if len(groups) < len(left) else "samples"
        raise SegregError(
            f"split.folds: {folds} folds can't be dealt from {len(groups)} {of}", hint="each fold needs one at least"
        )
    if settings.stratify and present is None:
        raise ValueError("stratified folds need to know which labels are present")
    shown = present() if settings.stratify and present else np.zeros((len(samples), 0), bool)
    ordered = [groups[name] for name in drawn(groups, settings.seed)]
    dealt = _stratified(ordered, dict.fromkeys(range(folds), len(left) / folds), shown, settings.seed)
    return {"train": [index for number in range(folds) if number != fold for index in dealt[number]],
            "val": dealt[fold], "test": test}  # fmt: skip


def _stratified(
    groups: Sequence[Sequence[int]], wanted: Mapping[Name, float], present: NDArray[np.bool_], seed: int
) -> dict[Name, list[int]]:
    """Return each split's samples, by iterative stratification.

    The groups of the label that the fewest images show are dealt out first, each to the split that lacks that label
    most; among equals to the one that lacks most images, and then by chance. Then those of the next label, and last
    what shows no label. Large groups go before small ones.

    Source: Sechidis, Tsoumakas and Vlahavas, "On the Stratification of Multi-Label Data", ECML PKDD 2011; there samples
    stand alone, as groups of one.

    Args:
        groups: indices of each group's samples, in the order in which they are drawn.
        wanted: images of each split, or of each fold.
        present: which labels each sample shows, bool `[N, L]`.
        seed: of the drawing.
    """
    names = list(wanted)
    # The number of images is one more label, which all of them have and which is never the rarest.
    shown = np.array([[*present[group].sum(axis=0), len(group)] for group in groups], np.int64)
    lacking = np.outer([wanted[name] for name in names], shown.sum(axis=0)) / sum(wanted.values())
    found = np.full(len(groups), -1)
    while (left := np.flatnonzero(found < 0)).size:
        images = shown[left].sum(axis=0)
        label = (
            int(np.where(images[:-1] > 0, images[:-1], np.iinfo(np.int64).max).argmin()) if images[:-1].any() else -1
        )
        members = left[shown[left, label] > 0]
        for group in members[np.argsort(-shown[members, label], kind="stable")]:
            keys = [(round(lacking[number, label], 9), round(lacking[number, -1], 9)) for number in range(len(names))]
            equal = [str(number) for number, key in enumerate(keys) if key == max(keys)]
            found[group] = int(drawn(equal, seed, group)[0])
            lacking[found[group]] -= shown[group]
    return {
        name: [index for group, of in zip(groups, found, strict=True) if of == number for index in group]
        for number, name in enumerate(names)
    }


def _nearest_to(wanted: float, names: Sequence[str], sizes: Mapping[str, int]) -> set[str]:
    """Take names in their order while they fit into what is wanted, then the smallest left if that is nearer."""
    chosen: set[str] = set()
    missing = wanted
    for name in names:
        if sizes[name] <= missing:
            chosen.add(name)
            missing -= sizes[name]
    smallest = min((name for name in names if name not in chosen), key=lambda name: sizes[name], default=None)
    if smallest is not None and (not chosen or sizes[smallest] - missing < missing):
        chosen.add(smallest)
    return chosen


def _as_scikit_learn(samples: Sequence[Sample], settings: Split) -> dict[SplitName, list[int]]:
    """Return the splits of `train_test_split(samples, test_size=..., random_state=seed)`, for test and then for val.

    The first of a permutation, their number rounded up, are held out. NumPy keeps this generator's numbers for ever.
    """
    grouped = Counter(sample.group for sample in samples if sample.group is not None)
    if several := [group for group, count in grouped.items() if count > 1]:
        raise SegregError(
            "split.method: train_test_split draws single samples and would divide groups, and the data set has "
            f"{len(several)} of them, such as {listed(several, most=3)}",
            hint="split.method: random draws whole groups",
        )
    splits: dict[SplitName, list[int]] = {"train": list(range(len(samples))), "val": [], "test": []}
    for split, share in _shares(settings):
        left = splits["train"]
        count = math.ceil(share * len(left))
        order = np.random.RandomState(settings.seed).permutation(len(left)) if count else range(len(left))
        shuffled = [left[place] for place in order]
        splits[split], splits["train"] = shuffled[:count], shuffled[count:]
    return splits


def _own(samples: Sequence[Sample]) -> dict[SplitName, list[int]]:
    lost = [sample.id for sample in samples if sample.split not in SPLITS]
    if lost:
        raise SegregError(
            f"{len(lost)} of {len(samples)} samples don't say in which split they are: {listed(lost, most=5)}",
            hint="the data set gives train, val or test to each or to none; split.method: random draws a split",
        )
    return {split: [index for index, sample in enumerate(samples) if sample.split == split] for split in SPLITS}


def _listed(samples: Sequence[Sample], lists: Mapping[SplitName, Path]) -> dict[SplitName, list[int]]:
    if "train" not in lists or "val" not in lists:
        missing = [split for split in SPLITS[:2] if split not in lists]
        raise SegregError(
            f"split.method is lists, but split.lists has none for {listed(missing)}",
            hint="it names a text file with one sample id a line for each of train, val and test",
        )
    index_of = {sample.id: index for index, sample in enumerate(samples)}
    example = f'ids look like "{samples[0].id}"' if samples else ""
    splits: dict[SplitName, list[int]] = {split: [] for split in SPLITS}
    seen: dict[str, tuple[SplitName, Place]] = {}
    problems: list[Problem] = []
    for split in SPLITS:
        for name, place in _lines(Path(lists[split])) if split in lists else ():
            if name not in index_of:
                hint = did_you_mean(name, index_of) or example
                problems.append(Problem(f'the data set has no sample "{name}"', place, hint))
            elif name in seen:
                other, there = seen[name]
                where = "is given twice in one list" if other == split else f"is in two splits, {other} and {split}"
                problems.append(Problem(f'"{name}" {where}; it stands already at {there}', place))
            else:
                seen[name] = (split, place)
                splits[split].append(index_of[name])
    if problems:
        raise SegregError.of(problems, most=20, rest="more lines are wrong")
    return splits


def _lines(file: Path) -> list[tuple[str, Place]]:
    if file.exists() and not file.is_file():  # reading a named pipe would never end
        raise SegregError(f"{file}: is not a file; a list has one sample id a line")
    try:
        text = file.read_text(encoding="utf-8-sig")  # editors on Windows begin a file with a byte order mark
    except OSError as error:
        raise SegregError(f"{file}: can't read this list of sample ids: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SegregError(f"{file}: is not a UTF-8 text; a list has one sample id a line") from error
    stripped = ((number, line.strip()) for number, line in enumerate(text.splitlines(), start=1))
    return [(line, Place(str(file), number)) for number, line in stripped if line and not line.startswith("#")]


def _refuse_double_ids(samples: Sequence[Sample]) -> None:
    double = [name for name, count in Counter(sample.id for sample in samples).items() if count > 1]
    if double:
        files = [str(sample.image) for sample in samples if sample.id == double[0]]
        raise SegregError(f"sample ids must differ, but {listed(double, most=5)} stands for several: {listed(files)}")


def _refuse_divided_groups(samples: Sequence[Sample], splits: Mapping[SplitName, list[int]]) -> None:
    stands: dict[str, dict[SplitName, str]] = defaultdict(dict)
    for split in SPLITS:
        for index in splits[split]:
            sample = samples[index]
            if sample.group is not None:
                stands[sample.group].setdefault(split, sample.id)
    divided = {group: found for group, found in stands.items() if len(found) > 1}
    if divided:
        group, found = next(iter(divided.items()))
        members = " and ".join(f'"{name}" in {split}' for split, name in found.items())
        others = f" (and {len(divided) - 1} groups more)" if len(divided) > 1 else ""
        raise SegregError(
            f'the group "{group}" is in two splits: {members}{others}',
            hint="images of one group (a patient, a source image) belong in one split",
        )


def _refuse_empty(splits: Mapping[SplitName, list[int]], settings: Split, count: int) -> None:
    train, val, test = (len(splits[split]) for split in SPLITS)
    counts = f"of {count} samples, {train} are in train, {val} in val and {test} in test"
    for split in SPLITS:
        if splits[split]:
            continue
        if split == "test" and ("test" not in settings.lists if settings.method == "lists" else not settings.test):
            continue
        hints = {
            "dataset": f"the data set itself has no {split}; split.method: auto draws val and test from its train"
            + (", and split.test: 0 does without a test" if split == "test" else ""),
            "lists": f"the list for {split} names no sample",
            "train_test_split": "split.test is a share of all samples, split.val of what the test leaves",
        }
        hint = hints.get(settings.method, "split.val and split.test are shares of all samples; train gets the rest")
        raise SegregError(f"the split leaves {split} empty: {counts}", hint=hint)

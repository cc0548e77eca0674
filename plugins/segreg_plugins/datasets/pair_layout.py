"""Which two folders, or which two endings of names, are images and their masks: for `folder`'s `recognise`."""

from __future__ import annotations

import os
import re
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations, pairwise
from pathlib import Path
from typing import Literal

from segreg_plugins.datasets.coco_layout import SPLITS
from segreg_plugins.datasets.listing import counted, evenly, images_below, in_splits
from segreg_plugins.datasets.mask_guess import looks_like_mask

MASK_WORDS = re.compile(r"mask|annot|label|seg|truth|(?:^|[^a-z])gt(?:$|[^a-z])|target|lesion|matte", re.IGNORECASE)
"""Words in the names of masks' folders and in the endings of masks' names."""
_SPLIT = re.compile(r"(train|validation|valid|val|test)(?:ing)?(?=$|[^a-z]|[a-z]*(?:annot|label|mask|gt|seg))")
PAIRED = 0.9
"""Share of the fewer files that must have a partner; the others are named when the folder is read."""
MOST_FOLDERS = 24


@dataclass(frozen=True)
class Pairs:
    """Images and masks that belong together.

    Attributes:
        images: folder, below the one that was looked at ("" is itself), or one for each split.
        masks: likewise.
        files: masks, as paths below that folder.
        because: what was seen.
        image_suffix: what ends the images' names only.
        mask_suffix: what ends the masks' names only.
        search: as the setting of `folder`.
    """

    images: str | Mapping[str, str]
    masks: str | Mapping[str, str]
    files: Sequence[str] = field(repr=False)
    because: str
    image_suffix: str = ""
    mask_suffix: str = ""
    search: str = "folder"


def find_pairs(root: Path) -> list[Pairs]:
    """Return the ways in which the images of a folder are pairs of image and mask; the plainest kind alone."""
    below = images_below(root)
    top = {path: names for path, names in below.items() if path and "/" not in path}
    for find in (_split_folders, _siblings):
        if found := find(root, below):
            return found
    if "" in below and (together := _by_endings(root, {name: name for name in below[""]}, "folder")):
        return [together]
    if not top and (trees := _trees(root, below)):
        return trees
    paths = {name: f"{path}/{name}".lstrip("/") for path, names in below.items() for name in names}
    unique = len(paths) == sum(map(len, below.values()))
    if len(below) > 1 and unique and (tree := _by_endings(root, paths, "tree")):
        return [tree]
    return []


def _siblings(root: Path, below: Mapping[str, Sequence[str]]) -> list[Pairs]:
    """Return the pairs of folders that lie side by side."""
    folders = [path for path in below if path and "/" not in path][:MOST_FOLDERS]
    return [pairs for one, other in combinations(folders, 2) for pairs in _two(root, one, other, below)]


def _two(root: Path, one: str, other: str, below: Mapping[str, Sequence[str]]) -> list[Pairs]:
    """Return the pairs of two folders; several where images have several masks, such as one for each class."""
    found = []
    for endings in match_names(_stems(below[one]), _stems(below[other])):
        order = _masks_of(root, dict(zip((one, other), endings, strict=True)), below)
        if order is None:
            continue
        (images, image_suffix), (masks, mask_suffix) = order
        files = [f"{masks}/{name}" for name in below[masks] if _stem(name).endswith(mask_suffix)]
        saw = f"{counted(min(len(below[images]), len(files)), 'pair')} of {images} and {masks}"
        saw += _named(image_suffix, mask_suffix)
        found.append(Pairs(images, masks, files, saw, image_suffix, mask_suffix))
    return found


def _masks_of(
    root: Path, endings: Mapping[str, str], below: Mapping[str, Sequence[str]]
) -> tuple[tuple[str, str], tuple[str, str]] | None:
    """Return both folders, each with the ending of its names, the images' first; None where neither has masks."""
    one, other = endings.items()
    words = [bool(MASK_WORDS.search(" ".join(each))) for each in (one, other)]
    flat = [looks_like_mask([root / path / name for name in evenly(below[path], 3)]) for path in endings]
    if words[0] != words[1]:
        flat = [is_flat and is_named for is_flat, is_named in zip(flat, words, strict=True)]
    if flat[0] == flat[1]:
        return None
    return (other, one) if flat[0] else (one, other)


def _split_folders(root: Path, below: Mapping[str, Sequence[str]]) -> list[Pairs]:
    """Return pairs of folders that are there for each split: train/images, images/train, or train and train_masks."""
    kinds: dict[str, dict[str, str]] = {}
    for path in below:
        parts = path.split("/")
        for place, part in enumerate(parts[:2] if len(parts) <= 2 else ()):
            found = _SPLIT.match(part.lower())
            if found and (len(parts) == 1 or found.end() == len(part)):
                kind = [*parts[:place], "*" + part[found.end() :], *parts[place + 1 :]]
                kinds.setdefault("/".join(kind), {}).setdefault(SPLITS[found[1]], path)
    kinds = {kind: splits for kind, splits in kinds.items() if "train" in splits}
    both = combinations([*kinds][:MOST_FOLDERS], 2)
    same = [(kinds[a], kinds[b]) for a, b in both if ("/" in a) == ("/" in b) and (a[0] == "*") == (b[0] == "*")]
    apart = [pairs for one, other in same for pairs in _of_splits(root, one, other, below)]
    return apart or [pairs for splits in kinds.values() for pairs in _of_mixed_splits(root, splits, below)]


def _of_splits(
    root: Path, one: Mapping[str, str], other: Mapping[str, str], below: Mapping[str, Sequence[str]]
) -> list[Pairs]:
    found = []
    for train in _two(root, one["train"], other["train"], below):
        images, masks = (one, other) if train.images == one["train"] else (other, one)
        splits = [split for split in ("train", "val", "test") if split in images and split in masks]
        found.append(_with_splits(train, images, masks, splits, below))
    return found


def _of_mixed_splits(root: Path, folders: Mapping[str, str], below: Mapping[str, Sequence[str]]) -> list[Pairs]:
    """Return the pairs of folders in which images and masks lie together, one for each of several splits."""
    path = folders["train"]
    train = _by_endings(root, {name: f"{path}/{name}" for name in below[path]}, "folder")
    if train is None:
        return []
    splits = [
        split
        for split in ("train", "val", "test")
        if split in folders and any(_stem(name).endswith(train.mask_suffix) for name in below[folders[split]])
    ]
    return [_with_splits(train, folders, folders, splits, below)] if len(splits) > 1 else []


def _with_splits(
    train: Pairs,
    images: Mapping[str, str],
    masks: Mapping[str, str],
    splits: Sequence[str],
    below: Mapping[str, Sequence[str]],
) -> Pairs:
    """Return the pairs of all splits, whose folders are given, named as those of train are."""
    own = {split: [name for name in below[masks[split]] if _stem(name).endswith(train.mask_suffix)] for split in splits}
    files = [f"{masks[split]}/{name}" for split in splits for name in own[split]]
    counts = in_splits([(images[split], len(own[split])) for split in splits])
    saw = f"{counts}, with masks in {masks['train']}{_named(train.image_suffix, train.mask_suffix)}"
    return Pairs(
        {split: images[split] for split in splits}, {split: masks[split] for split in splits}, files, saw,
        train.image_suffix, train.mask_suffix,
    )  # fmt: skip


def _by_endings(root: Path, paths: Mapping[str, str], search: Literal["folder", "tree"]) -> Pairs | None:
    """Return the pairs of files that are known by the endings of their names, given each one's path by its name."""
    stems = sorted(_stems(paths))
    endings = Counter(_endings(one, two) for one, two in pairwise(stems))
    for (end, other_end), _ in endings.most_common(3):
        if end == other_end or not other_end:
            continue
        ways = [(end, other_end), (other_end, end)] if end else [(end, other_end)]
        ways.sort(key=lambda way: not MASK_WORDS.search(way[1]))
        for image_end, mask_end in ways:
            masks = [name for name in paths if _stem(name).endswith(mask_end)]
            bases = {_stem(name).removesuffix(mask_end) for name in masks}
            others = {name for name in paths if _stem(name).endswith(image_end)}.difference(masks)
            paired = sum(_stem(name).removesuffix(image_end) in bases for name in others)
            enough = paired >= PAIRED * max(len(masks), 1) and 2 * paired >= PAIRED * len(paths)
            if enough and looks_like_mask([root / paths[name] for name in evenly(masks, 3)]):
                where = "one folder" if search == "folder" else "folders below"
                saw = f"{counted(paired, 'pair')} in {where}{_named(image_end, mask_end)}"
                return Pairs("", "", [paths[name] for name in masks], saw, image_end, mask_end, search)
    return None


def _trees(root: Path, below: Mapping[str, Sequence[str]]) -> list[Pairs]:
    """Return two folders whose trees mirror each other."""
    trees: dict[str, list[str]] = {}
    for path, names in below.items():
        first, _, rest = path.partition("/")
        trees.setdefault(first, []).extend(f"{rest}/{name}".lstrip("/") for name in names)
    if len(trees) != 2:
        return []
    one, other = trees
    return [replace(pairs, search="mirrored_tree") for pairs in _two(root, one, other, trees)]


def match_names(one: Sequence[str], other: Sequence[str]) -> list[tuple[str, str]]:
    """Return the endings that images' and masks' names differ by, so that nearly all find a partner.

    Several where names on either side have one beginning: there is a file for each class, or for each object.
    """
    first, second = set(one), set(other)
    fewer = min(len(first), len(second))
    if len(first & second) >= PAIRED * fewer:
        return [("", "")]
    ordered = sorted(second)
    votes: Counter[tuple[str, str]] = Counter()
    for name in evenly(sorted(first), 24):
        place = bisect_left(ordered, name)
        votes.update({_endings(name, near) for near in ordered[max(place - 1, 0) : place + 2]})
    for (end, other_end), _ in votes.most_common(4):
        bases, other_bases = _without(end, first), _without(other_end, second)
        if len(bases & other_bases) >= PAIRED * fewer:
            ends, other_ends = _ends_behind(other_bases, first), _ends_behind(bases, second)
            enough = PAIRED * len(bases & other_bases)
            more = [(ending, other_end) for ending, count in ends.items() if end and count >= enough]
            more += [(end, ending) for ending, count in other_ends.items() if other_end and count >= enough]
            return list(dict.fromkeys([(end, other_end), *sorted(more)]))
    return []


def _without(end: str, names: Iterable[str]) -> set[str]:
    return {name.removesuffix(end) for name in names if name.endswith(end)}


def _ends_behind(bases: Iterable[str], names: Iterable[str]) -> Counter[str]:
    """Return how often names go on in each way behind the longest of the bases that they begin with."""
    ordered = sorted(bases)
    ends: Counter[str] = Counter()
    for name in names:
        place = bisect_right(ordered, name)
        if place and name.startswith(base := ordered[place - 1]):
            ends[name.removeprefix(base)] += 1
    return ends


def _endings(one: str, other: str) -> tuple[str, str]:
    """Return what follows the common beginning of two names, from its last separator on where both go on."""
    common = next((place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), None)
    common = min(len(one), len(other)) if common is None else common
    if common < len(one) and common < len(other):
        common = max((one.rfind(mark, 0, common) for mark in "_-. "), default=-1)
        common = max(common, 0)
    return one[common:], other[common:]


def _stem(name: str) -> str:
    return os.path.splitext(name)[0]  # noqa: PTH122 - of strings, a hundred thousand of them


def _stems(names: Iterable[str]) -> list[str]:
    return [_stem(name) for name in names]


def _named(image_suffix: str, mask_suffix: str) -> str:
    ends = [f"images end in {image_suffix}"] * bool(image_suffix) + [f"masks end in {mask_suffix}"] * bool(mask_suffix)
    return f" by name ({', '.join(ends)})" if ends else " by name"

"""The dataset `folder`: images in one folder, masks in another, paired by name."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from segreg.errors import Problem, SegregError, listed
from segreg.registry.protocols import Dataset, Recognised, Sample
from segreg.runtime.files import expanded
from segreg_plugins.datasets.coco_layout import SplitName
from segreg_plugins.datasets.grouping import group_pattern, groups_of
from segreg_plugins.datasets.mask_files import Channel
from segreg_plugins.datasets.mask_guess import guess_masks
from segreg_plugins.datasets.mask_rules import MaskRules, mask_rules
from segreg_plugins.datasets.mask_values import Values
from segreg_plugins.datasets.masks import read_image
from segreg_plugins.datasets.pair_layout import MASK_WORDS, Pairs, find_pairs
from segreg_plugins.datasets.pairing import pairs_of_splits

Folders = Path | Mapping[Literal["train", "val", "test"], Path]


def folder(
    *,
    images: Folders,
    masks: Folders,
    classes: tuple[str, ...] | None = None,
    image_suffix: str = "",
    mask_suffix: str = "",
    search: Literal["folder", "tree", "mirrored_tree"] = "folder",
    values: Values | None = None,
    foreground: Literal["auto", "nonzero", "above_127"] = "auto",
    ignore_index: int | None = None,
    mask_channel: Channel | None = None,
    palette: Literal["auto", "indices"] = "auto",
    groups: str | None = None,
) -> Dataset:
    """Images in one folder and masks in another, paired by name.

    The mask of `a.b.JPG` is `a.b.png`, or `a.b_mask.tif` with `mask_suffix: _mask`: only the last dot parts the
    extension, extensions may differ, hidden files are skipped. A file without a partner is an error.

    Args:
        images: folder of the images, or one for each of train, val and test, which are the split.
        masks: folder of the masks, or one for each split; may be that of the images where a suffix distinguishes them.
        classes: class names. One is the foreground of binary masks; several are those of the mask values 0, 1, 2 ...
            Where it is null, those of `values`, and without them one, "foreground".
        values: class names with the values that masks have for them: a number, a range such as "10-20", a list of
            those, or colours such as [128, 0, 128]. `ignore` has the values that count for nothing. Any other value
            of a mask is an error. For a binary task, `classes` names the foreground and `values` it and `background`.
        image_suffix: ending of the image names, before the extension, that mask names don't have.
        mask_suffix: ending of the mask names, before the extension, that image names don't have.
        search: `folder` takes the files in the folders themselves, `tree` those in all folders below as well, paired
            by name, and `mirrored_tree` the same, paired by the path below `images` and `masks`.
        foreground: which values of a binary mask are foreground. `auto` takes masks of 0/1 or 0/255 and refuses others,
            `nonzero` takes all but 0 (numbered instances), `above_127` those above 127 (soft edges).
        ignore_index: mask value of pixels that count for nothing. Where it is null, 255 with several classes and none
            with one.
        mask_channel: channel of RGB, RGBA or multi-band masks that has the values: red, green, blue, alpha or a number
            from 0. Where it is null, the masks have one channel, or equal ones.
        palette: what counts in masks with a palette. `auto` compares the palettes of all masks: the grey levels count
            where all palettes are grey, otherwise the indices, which must have the same colours in all files.
            `indices` takes the indices, whatever their colours are.
        groups: regular expression, searched in each image's name without extension (its path, with `mirrored_tree`),
            whose first group names what must not be split, such as `^(.*)_jpg[.]rf[.]`.

    Raises:
        SegregError: folders, names or settings are wrong. All that is found is reported at once, files by their names.
    """
    places = _places(images, masks)
    problems: list[Problem] = []
    rules: MaskRules | None = None
    pattern: re.Pattern[str] | None = None
    pairs: list[tuple[SplitName | None, str, Path, Path]] = []
    try:
        rules = mask_rules(classes, foreground, ignore_index, values=values, mask_channel=mask_channel, palette=palette)
    except SegregError as error:
        problems += error.problems
    try:
        pattern = group_pattern(groups)
    except SegregError as error:
        problems += error.problems
    try:
        pairs = pairs_of_splits(places, search=search, image_suffix=image_suffix, mask_suffix=mask_suffix)
    except SegregError as error:
        problems += error.problems
    if problems or rules is None:
        raise SegregError.of(problems)
    names = [f"{name}{image_suffix}" for _, name, _, _ in pairs]
    count = Counter(name for _, name, _, _ in pairs)
    ids = [(name if count[name] == 1 else f"{split}/{name}").replace("/", "__") for split, name, _, _ in pairs]
    if twice := sorted(name for name, number in Counter(ids).items() if number > 1):
        raise SegregError(f"images: paths that differ only in / and __ make the same id: {listed(twice, most=3)}")
    samples = [
        Sample(id_, image, mask, group, split)
        for id_, group, (split, _, image, mask) in zip(ids, groups_of(names, pattern), pairs, strict=True)
    ]
    read_mask, reader = rules.reading([mask for *_, mask in pairs])
    folders = tuple(folder for both in places.values() for folder in both)
    return Dataset(rules.task, samples, read_image, read_mask, reader=f"folder: {reader}", folders=folders)


def _places(images: Folders, masks: Folders) -> dict[SplitName | None, tuple[Path, Path]]:
    """Return the folders of images and masks of each split; of None where there is no split.

    Raises:
        SegregError: the one names splits that the other does not.
    """
    if isinstance(images, Path) and isinstance(masks, Path):
        return {None: (expanded(images), expanded(masks))}
    if isinstance(images, Path) or isinstance(masks, Path) or set(images) != set(masks) or not images:
        raise SegregError(
            "images and masks must name folders of the same splits",
            hint="as in images: {train: data/train, val: data/val} and masks: {train: data/train_masks, ...}, or one "
            "folder each",
        )
    return {split: (expanded(images[split]), expanded(masks[split])) for split in images}


def recognise_folder(root: Path) -> list[Recognised]:
    """Return the pairs of images and masks in a folder, with what a sample of the masks holds.

    Raises:
        SegregError: there are pairs by their names, and no rule says what any of their masks holds.
    """
    found = []
    unknown: list[str] = []
    for pairs in find_pairs(root):
        guess = guess_masks([root / name for name in pairs.files], root)
        if guess is not None:
            found.append(Recognised({**_settings(root, pairs), **guess.settings}, f"{pairs.because}, {guess.because}"))
        elif MASK_WORDS.search(f"{pairs.masks} {pairs.mask_suffix}"):
            unknown.append(pairs.because)
    if unknown and not found:
        raise SegregError(
            f"{root}: {unknown[0]}, and no rule says what the masks' values mean",
            hint="say it: --layout folder, dataset.images, dataset.masks, and dataset.values, such as "
            "'dataset.values={background: 0, cell: 7, ignore: -1}'",
        )
    return found


def _settings(root: Path, pairs: Pairs) -> dict[str, Any]:
    """Return the settings that name the files, without those that are the defaults."""

    def paths(folder: str | Mapping[str, str]) -> Path | dict[str, Path]:
        return root / folder if isinstance(folder, str) else {split: root / name for split, name in folder.items()}

    settings: dict[str, Any] = {"images": paths(pairs.images), "masks": paths(pairs.masks)}
    named = {"image_suffix": pairs.image_suffix, "mask_suffix": pairs.mask_suffix}
    settings |= {key: value for key, value in named.items() if value}
    if pairs.search != "folder":
        settings["search"] = pairs.search
    return settings

"""The dataset `folder`: images in one folder, masks in another, paired by name."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from segreg.errors import Problem, SegregError, listed
from segreg.registry.protocols import Dataset, Sample
from segreg_plugins.datasets.grouping import group_pattern, groups_of
from segreg_plugins.datasets.images import expanded
from segreg_plugins.datasets.mask_files import Channel
from segreg_plugins.datasets.mask_rules import MaskRules, mask_rules
from segreg_plugins.datasets.mask_values import Values
from segreg_plugins.datasets.masks import read_image
from segreg_plugins.datasets.pairing import pairs_in


def folder(
    *,
    images: Path,
    masks: Path,
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
        images: folder of the images.
        masks: folder of the masks; may be that of the images where a suffix tells them apart.
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
    images, masks = expanded(images), expanded(masks)
    problems: list[Problem] = []
    rules: MaskRules | None = None
    pattern: re.Pattern[str] | None = None
    pairs: list[tuple[str, Path, Path]] = []
    try:
        rules = mask_rules(
            classes,
            foreground,
            ignore_index,
            values=values,
            mask_channel=mask_channel,
            palette=palette,
        )
    except SegregError as error:
        problems += error.problems
    try:
        pattern = group_pattern(groups)
    except SegregError as error:
        problems += error.problems
    try:
        pairs = pairs_in(images, masks, search=search, image_suffix=image_suffix, mask_suffix=mask_suffix)
    except SegregError as error:
        problems += error.problems
    if problems or rules is None:
        raise SegregError.of(problems)
    names = [f"{name}{image_suffix}" for name, _, _ in pairs]
    ids = [name.replace("/", "__") for name, _, _ in pairs]
    if len(set(ids)) < len(ids):
        twice = sorted({name for name in ids if ids.count(name) > 1})
        raise SegregError(f"images: paths that differ only in / and __ make the same id: {listed(twice, most=3)}")
    samples = [
        Sample(id_, image, mask, group)
        for id_, group, (_, image, mask) in zip(ids, groups_of(names, pattern), pairs, strict=True)
    ]
    read_mask, reader = rules.reading([mask for _, _, mask in pairs])
    return Dataset(rules.task, samples, read_image, read_mask, reader=f"folder: {reader}", folders=(images, masks))

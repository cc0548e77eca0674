"""The dataset `folder`: images in one folder, masks in another, paired by name."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Literal

from segreg.contracts import Dataset, Sample
from segreg.errors import Problem, SegregError, listed
from segreg.settings import NonNegativeInt
from segreg.task import Task
from segreg_plugins.datasets.masks import read_binary_mask, read_image, read_index_mask
from segreg_plugins.datasets.pairing import pairs_in
from segreg_plugins.datasets.pictures import expanded


def folder(
    *,
    images: Path,
    masks: Path,
    classes: tuple[str, ...] = ("foreground",),
    image_suffix: str = "",
    mask_suffix: str = "",
    search: Literal["folder", "tree", "mirrored_tree"] = "folder",
    foreground: Literal["auto", "nonzero", "above_127"] = "auto",
    ignore_index: NonNegativeInt | None = None,
    groups: str | None = None,
) -> Dataset:
    """Images in one folder and masks in another, paired by name.

    The mask of `a.b.JPG` is `a.b.png`, or `a.b_mask.tif` with `mask_suffix: _mask`: only the last dot parts the
    extension, extensions may differ, hidden files are skipped. A file without a partner is an error.

    Args:
        images: folder of the images.
        masks: folder of the masks; may be that of the images where a suffix tells them apart.
        classes: class names. One is the foreground of binary masks; several are those of the mask values 0, 1, 2 ...
        image_suffix: ending of the image names, before the extension, that mask names don't have.
        mask_suffix: ending of the mask names, before the extension, that image names don't have.
        search: `folder` takes the files in the folders themselves, `tree` those in all folders below as well, paired
            by name, and `mirrored_tree` the same, paired by the path below `images` and `masks`.
        foreground: which values of a binary mask are foreground. `auto` takes masks of 0/1 or 0/255 and refuses others,
            `nonzero` takes all but 0 (numbered instances), `above_127` those above 127 (soft edges).
        ignore_index: mask value of pixels that count for nothing. Where it is null, 255 with several classes and none
            with one.
        groups: regular expression, searched in each image's name without extension (its path, with `mirrored_tree`),
            whose first group names what must not be split, such as `^(.*)_jpg[.]rf[.]`.

    Raises:
        SegregError: folders, names or settings are wrong. All that is found is told at once, files by their names.
    """
    images, masks = expanded(images), expanded(masks)
    problems: list[Problem] = []
    task: Task | None = None
    pattern: re.Pattern[str] | None = None
    pairs: list[tuple[str, Path, Path]] = []
    try:
        task = _task(classes, foreground, ignore_index)
    except SegregError as error:
        problems += error.problems
    try:
        pattern = _pattern(groups)
    except SegregError as error:
        problems += error.problems
    try:
        pairs = pairs_in(images, masks, search=search, image_suffix=image_suffix, mask_suffix=mask_suffix)
    except SegregError as error:
        problems += error.problems
    if problems or task is None:
        raise SegregError.of(problems)
    names = [f"{name}{image_suffix}" for name, _, _ in pairs]
    ids = [name.replace("/", "__") for name, _, _ in pairs]
    if len(set(ids)) < len(ids):
        twice = sorted({name for name in ids if ids.count(name) > 1})
        raise SegregError(f"images: paths that differ only in / and __ make the same id: {listed(twice, most=3)}")
    samples = [
        Sample(id_, image, mask, group)
        for id_, group, (_, image, mask) in zip(ids, _groups_of(names, pattern), pairs, strict=True)
    ]
    if task.mode == "binary":
        read_mask = partial(read_binary_mask, foreground=foreground, ignore=ignore_index)
        reader = f"folder: binary, foreground {foreground}, ignored {ignore_index}"
    else:
        read_mask = partial(read_index_mask, classes=len(classes), ignore=ignore_index)
        reader = f"folder: {len(classes)} classes, ignored {ignore_index}"
    return Dataset(task, samples, read_image, read_mask, reader=reader, folders=(images, masks))


def _task(classes: tuple[str, ...], foreground: str, ignore_index: int | None) -> Task:
    if len(classes) == 1:
        if ignore_index == 0:
            raise SegregError("ignore_index: 0 is the background of a binary mask; ignoring it leaves nothing to learn")
        return Task(classes, "binary")
    if foreground != "auto":
        raise SegregError(f"foreground: {foreground} is for one class, and {len(classes)} are named")
    if ignore_index is not None and ignore_index < len(classes):
        raise SegregError(
            f'ignore_index: {ignore_index} is the number of the class "{classes[ignore_index]}"',
            hint="the first class has the number 0",
        )
    return Task(classes, "multiclass")


def _pattern(groups: str | None) -> re.Pattern[str] | None:
    if groups is None:
        return None
    try:
        pattern = re.compile(groups)
    except re.error as error:
        at = "" if error.pos is None else f" at character {error.pos + 1}"
        raise SegregError(f'groups: "{groups}" is no regular expression: {error.msg}{at}') from None
    if not pattern.groups:
        raise SegregError(
            f'groups: "{groups}" has no group in parentheses to take the name from',
            hint="for instance ^(.*)_jpg[.]rf[.]",
        )
    return pattern


def _groups_of(names: list[str], pattern: re.Pattern[str] | None) -> list[str | None]:
    if pattern is None:
        return [None] * len(names)
    found = [pattern.search(name) for name in names]
    strangers = [name for name, match in zip(names, found, strict=True) if match is None or match.group(1) is None]
    if strangers:
        raise SegregError(
            f'groups: "{pattern.pattern}" finds no group in {len(strangers)} of {len(names)} names: '
            f"{listed(strangers, most=3)}",
            hint="it is searched in the name without its extension; every image needs a group",
        )
    return [match.group(1) if match else None for match in found]

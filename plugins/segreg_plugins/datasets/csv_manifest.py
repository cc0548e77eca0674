"""The dataset `csv`: images and masks as a table names them, one pair a row."""

from __future__ import annotations

import os
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Literal

from segreg.errors import Place, Problem, SegregError, did_you_mean, listed
from segreg.registry.protocols import Dataset, Recognised, Sample
from segreg.runtime.files import expanded
from segreg_plugins.datasets.annotation_files import first_of, is_file, is_folder
from segreg_plugins.datasets.images import near
from segreg_plugins.datasets.listing import counted, head, listing
from segreg_plugins.datasets.mask_files import Channel
from segreg_plugins.datasets.mask_guess import guess_masks
from segreg_plugins.datasets.mask_rules import mask_rules
from segreg_plugins.datasets.mask_values import Values
from segreg_plugins.datasets.masks import read_image
from segreg_plugins.datasets.table import JSON_LINES, TableRow, read_table

_SPLITS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val",
          "test": "test", "testing": "test"}  # fmt: skip
_OPTIONAL = ("split", "group", "id")
_NAMES = {
    "image": ("image", "image_path", "image_file", "img", "img_path", "image_filename"),
    "mask": ("mask", "mask_path", "mask_file", "label_path", "segmentation", "annotation", "mask_filename"),
    "split": ("split", "subset", "fold_name"),
    "group": ("group", "patient", "patient_id", "case", "case_id", "group_id"),
    "id": ("id",),
}
"""What columns are called, the likeliest first, in tables that `recognise_csv` knows."""


def csv_manifest(
    *,
    manifest: Path,
    root: Path | None = None,
    columns: dict[Literal["image", "mask", "split", "group", "id"], str] | None = None,
    classes: tuple[str, ...] | None = None,
    values: Values | None = None,
    foreground: Literal["auto", "nonzero", "above_127"] = "auto",
    ignore_index: int | None = None,
    mask_channel: Channel | None = None,
    palette: Literal["auto", "indices"] = "auto",
) -> Dataset:
    """Images and masks as a table names them, CSV with a header or JSON lines, with split, group and id if wanted.

    The columns `image` and `mask` hold paths; `split` holds train, val (or valid, validation) or test; `group` names
    what a split must not part, such as a patient; `id` names the sample in results. Only the first two must be there;
    other columns are not looked at. Columns are parted by commas, semicolons or tabs, whichever the header has.
    In JSON lines (.jsonl, .ndjson) each line is one object. Images may be all that `folder` reads, such as multi-band
    and 16-bit TIFF.

    Args:
        manifest: the table's file, UTF-8.
        root: folder that the paths start from; null is the manifest's own.
        columns: what the columns are called where they are called otherwise, as in `{image: path, group: patient}`.
        classes: class names. One is the foreground of binary masks; several are those of the mask values 0, 1, 2 ...
            Where it is null, those of `values`, and without them one, "foreground".
        values: class names with the values that masks have for them: a number, a range such as "10-20", a list of
            those, or colours such as [128, 0, 128]. `ignore` has the values that count for nothing. Any other value
            of a mask is an error. For a binary task, `classes` names the foreground and `values` it and `background`.
        foreground: which values of a binary mask are foreground. `auto` takes masks of 0/1 or 0/255 and refuses others,
            `nonzero` takes all but 0 (numbered instances), `above_127` those above 127 (soft edges).
        ignore_index: mask value of pixels that count for nothing. Where it is null, 255 with several classes and none
            with one.
        mask_channel: channel of RGB, RGBA or multi-band masks that has the values: red, green, blue, alpha or a number
            from 0. Where it is null, the masks have one channel, or equal ones.
        palette: what counts in masks with a palette. `auto` compares the palettes of all masks: the grey levels count
            where all palettes are grey, otherwise the indices, which must have the same colours in all files.
            `indices` takes the indices, whatever their colours are.

    Raises:
        SegregError: the table, a path in it or a setting is wrong; reported with the table's line, up to 20 at once.
    """
    rules = mask_rules(classes, foreground, ignore_index, values=values, mask_channel=mask_channel, palette=palette)
    manifest = expanded(manifest)
    if not manifest.is_file():
        raise _no_table(manifest)
    folder = manifest.parent if root is None else expanded(root)
    names = {"image": "image", "mask": "mask", "split": "split", "group": "group", "id": "id"} | dict(columns or {})
    header, rows = read_table(manifest)
    named = _named(manifest, header, names, set(columns or {}))
    if not rows:
        raise SegregError(f"{manifest}: has no rows")
    problems: list[Problem] = []
    samples = [sample for row in rows if (sample := _sample(row, manifest, folder, named, problems))]
    if not problems:
        samples = _with_ids(samples, rows, manifest, folder, problems)
    if problems:
        raise first_of(problems, manifest)
    folders = list(dict.fromkeys(sample.image.parent for sample in samples))
    read_mask, reader = rules.reading([sample.mask for sample in samples if sample.mask])
    return Dataset(rules.task, samples, read_image, read_mask, reader=f"csv: {reader}", folders=folders)


def _no_table(manifest: Path) -> SegregError:
    """Return the error of a table that is not there: it is the user's own, so that nobody offers it."""
    hints = [near(manifest)]
    if not manifest.is_absolute():
        hints.append(f"a relative path starts from the folder that segreg runs in, {Path.cwd()}")
    hints.append("the table is your own: a header with image and mask, and a row for each image")
    what = "a folder" if manifest.is_dir() else "not there"
    return SegregError(f"manifest: {manifest} is {what}", hint="\n".join(filter(None, hints)))


def _named(manifest: Path, header: list[str], names: dict[str, str], renamed: set[str]) -> dict[str, str]:
    """Return the header's own name of each column that is there.

    Raises:
        SegregError: a column that must be there is not, or one that is there looks like a misspelt one.
    """
    lowered = {column.lower(): column for column in header}
    found = {what: lowered[name.lower()] for what, name in names.items() if name.lower() in lowered}
    problems = []
    for what, name in names.items():
        free = [column for column in header if column not in found.values()]
        guess = did_you_mean(name, free)
        if what not in found and (what not in _OPTIONAL or what in renamed):
            columns = f"its columns are {listed(header)}; set columns: {{{what}: ...}} to the one that is meant"
            problems.append(
                Problem(f'{manifest}: has no column "{name}"', hint="\n".join(filter(None, (guess, columns))))
            )
        elif what not in found and what != "id":
            plural = [column for column in free if column.lower() in (f"{name}s", f"{name}_id", f"{name}id")]
            if plural:
                hint = f"set columns: {{{what}: {plural[0]}}} if it is, and rename it if it is not"
                problems.append(Problem(f'{manifest}: the column "{plural[0]}" may be meant as {what}', hint=hint))
    if problems:
        raise SegregError.of(problems)
    return found


def _sample(
    row: TableRow, manifest: Path, folder: Path, named: dict[str, str], problems: list[Problem]
) -> Sample | None:
    """Return a row's sample, with the id that the row has or none yet, or notes what is wrong with it."""
    values = {what: row.values.get(column, "").strip() for what, column in named.items()}
    place = Place(str(manifest), row.line)
    before = len(problems)
    files: dict[str, Path] = {}
    for what in ("image", "mask"):
        path = _file(values[what], folder)
        files[what] = path
        if not values[what]:
            problems.append(Problem(f"names no {what}", place))
        elif not is_file(path):
            state = "a folder" if is_folder(path) else "not there"
            problems.append(Problem(f"{what}: {path} is {state}", place, near(path)))
    split = values.get("split", "")
    if split and split.lower() not in _SPLITS:
        hint = did_you_mean(split, _SPLITS) or "train, val and test are splits"
        problems.append(Problem(f'split: "{split}" is not a split', place, hint))
    elif "split" in values and not split:
        problems.append(Problem("says no split", place, "the column gives train, val or test in every row"))
    if re.search(r"[/\\]", values.get("id", "")):
        problems.append(Problem(f'id: "{values["id"]}" has a slash, and ids become file names', place))
    elif "id" in values and not values["id"]:
        problems.append(Problem("has no id", place))
    if len(problems) > before:
        return None
    return Sample(
        values.get("id", ""), files["image"], files["mask"], values.get("group") or None, _SPLITS.get(split.lower())
    )


def _with_ids(
    samples: list[Sample], rows: list[TableRow], manifest: Path, folder: Path, problems: list[Problem]
) -> list[Sample]:
    """Return the samples with ids: their own, else the image's name, or its path in `folder` where two have one."""
    seen: dict[tuple[str, object], int] = {}
    stems = Counter(sample.image.stem for sample in samples)
    complete: list[Sample] = []
    for sample, row in zip(samples, rows, strict=True):
        path = sample.image
        unique = stems[path.stem] == 1
        own = path.stem if unique else os.path.relpath(path, folder).replace(os.sep, "__").lstrip(".")
        # Cells are stripped, and names of images may begin or end with spaces.
        name = path.stem if sample.id == path.stem.strip() else sample.id or own
        for what, value in (("image", sample.image), ("id", name)):
            if (what, value) in seen:
                message = f'{what}: "{value}" stands already in line {seen[what, value]}'
                problems.append(Problem(message, Place(str(manifest), row.line)))
                break
            seen[what, value] = row.line
        complete.append(replace(sample, id=name))
    return complete


def _file(text: str, folder: Path) -> Path:
    """Return the file that a row names; backslashes part folders where they lead to a file and slashes do not."""
    path, turned = folder / expanded(Path(text)), folder / text.replace("\\", "/")
    return turned if "\\" in text and is_file(turned) and not is_file(path) else path


def recognise_csv(root: Path) -> list[Recognised]:
    """Return the tables in a folder that name images and masks which are there."""
    found = []
    for name in listing(root).files:
        file = root / name
        if file.suffix.lower() in (".csv", ".tsv", *JSON_LINES) and _may_name_masks(file) and (one := _table(file)):
            found.append(one)
    return found


def _may_name_masks(file: Path) -> bool:
    first = head(file).split("\n", 1)[0].lower()
    return any(word in first for word in _NAMES["image"]) and any(word in first for word in _NAMES["mask"])


def _table(file: Path) -> Recognised | None:
    """Return how a table is read; None where it does not name images and masks."""
    try:
        header, rows = read_table(file)
    except SegregError:
        return None
    lowered = {column.lower(): column for column in header}
    named = {what: lowered[name] for what, known in _NAMES.items() for name in known[::-1] if name in lowered}
    if "image" not in named or "mask" not in named or not rows:
        return None
    if "split" in named and not all(row.values.get(named["split"], "").strip().lower() in _SPLITS for row in rows):
        del named["split"]  # such as numbers of folds
    files = [_file(row.values.get(named["mask"], "").strip(), file.parent) for row in rows]
    images = [_file(row.values.get(named["image"], "").strip(), file.parent) for row in rows[:3]]
    if not all(map(is_file, (*images, *files[:3]))):
        return None
    guess = guess_masks(files, file.parent)
    if guess is None:
        return None
    columns = {what: column for what, column in named.items() if column.lower() != what}
    settings = {"manifest": file, **({"columns": columns} if columns else {}), **guess.settings}
    saw = f"{file.name} with {counted(len(rows), 'row')} and the columns {listed(list(named.values()), quote='')}"
    return Recognised(settings, f"{saw}; {guess.because}", instead_of=("folder",))

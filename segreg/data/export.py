"""A split written out as folders: `train_split/images`, `train_split/masks` and so on, of copies or links."""

from __future__ import annotations

import contextlib
import csv
import filecmp
import io
import os
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segreg.data import SPLITS, SplitName
from segreg.data.images import has_alpha, read_image, read_labels
from segreg.data.inspection.scan import read_each
from segreg.errors import SegregError
from segreg.registry.protocols import Dataset, Sample
from segreg.runtime.files import write_text
from segreg.runtime.output import as_folder_names, printable
from segreg.runtime.progress import Progress
from segreg.task import IGNORE_INDEX

Link = Literal["copy", "hard", "symbolic"]
Form = Literal["files", "index", "layers"]
MANIFEST = "split.csv"
COLUMNS = ("id", "image", "mask", "split", "group")
_PART = ".segreg-part"


@dataclass(frozen=True)
class Written:
    """What a written split is.

    Attributes:
        out: the folder.
        splits: samples in each split.
        made: files written by this call; the others were there already.
        files: all files of the split, the manifest left out.
        form: how masks are written: the data set's own `files`, `index` PNGs whose values are class numbers (255 is
            ignored), or `layers`, an index PNG of 0 and 1 for each class of a multilabel task.
        ignored: whether index PNGs hold 255.
    """

    out: Path
    splits: Mapping[SplitName, int]
    made: int
    files: int
    form: Form
    ignored: bool


@dataclass(frozen=True)
class _File:
    """One file to be: a copy or link of `source`, or rendered from what the data set reads for `sample`."""

    target: Path
    sample: Sample
    source: Path | None
    holds: Literal["image", "mask"]
    layer: int = 0


def write_split(
    dataset: Dataset, splits: Mapping[SplitName, Sequence[int]], out: Path, *, link: Link = "copy", progress: Progress
) -> Written:
    """Write each split's images and masks into `out/<split>_split/images` and `.../masks`, and a manifest.

    A file's name is its sample's id, so that image and mask pair by name. Images are the data set's own files where
    these hold what it reads, and rendered where they don't (parts of a scene, chosen bands). Masks are its own files
    where these hold class numbers, or 0 and 255 for one class. Where they don't (instances, colours, polygons), or have
    palettes that are grey or differ, which says something else of the same numbers, every mask is written as a PNG of
    class numbers. Files are made aside and renamed, and a call that was stopped continues where it was: files that are
    there and right are kept. Nothing else is ever replaced. Each sample has a mask.

    Raises:
        SegregError: a file can't be read, something else is in the way, or a link could not be created.
    """
    chosen = [(split, dataset.samples[index]) for split, indices in splits.items() for index in indices]
    samples = [sample for _, sample in chosen]
    _refuse_names(samples)
    form, ignored = _form_of_masks(dataset, samples, progress)
    own = _own_images(dataset, samples, progress)
    files = [file for split, sample in chosen for file in _files(dataset, sample, out / f"{split}_split", form, own)]
    _refuse_strangers(out, files)
    made = 0
    with progress.watch("writing the split", len(files), "files") as advance:
        for file in files:
            made += _make(file, dataset, link)
            advance()
    _write_manifest(out, dataset, chosen, files)
    return Written(out, {s: len(i) for s, i in splits.items()}, made, len(files), form, ignored)


def _refuse_names(samples: Sequence[Sample]) -> None:
    ids = [sample.id for sample in samples]
    if bad := [i for i in ids if i.strip() in ("", ".", "..") or any(c in i for c in "/\\\n") or printable(i) != i]:
        raise SegregError(
            f"the id \"{bad[0]}\" can't be a file's name", hint="rename the file of its image to plain letters"
        )
    folded = Counter(sample.id.casefold() for sample in samples)
    twice = sorted(sample.id for sample in samples if folded[sample.id.casefold()] > 1)
    if twice:
        raise SegregError(
            f'the ids "{twice[0]}" and "{twice[1]}" differ in nothing but capital letters',
            hint="some file systems take them for one file",
        )


def _form_of_masks(dataset: Dataset, samples: Sequence[Sample], progress: Progress) -> tuple[Form, bool]:
    """Choose how masks are written, one way for all, so that a folder of them has one meaning."""
    if dataset.task.mode == "multilabel":
        return "layers", False
    shared = any(n > 1 for n in Counter(sample.mask for sample in samples).values())
    found = read_each(
        lambda sample: _fitting(dataset, sample, shared=shared), samples, "reading masks", unit="masks", most=10,
        rest="masks more can't be read", progress=progress,
    )  # fmt: skip
    ways, ignored, found_palettes = zip(*found, strict=True)
    palettes = set(found_palettes) - {b""}
    grey = any(palette[::3] == palette[1::3] == palette[2::3] for palette in palettes)
    plain = not palettes or (len(palettes) == 1 and not grey)
    return ("files" if plain and set.intersection(*ways) else "index"), any(ignored)


def _own_images(dataset: Dataset, samples: Sequence[Sample], progress: Progress) -> set[Path]:
    """Return the image files that hold by themselves what the data set reads of the one sample that they are of."""
    samples_of = Counter(sample.image for sample in dataset.samples)

    def holds_it(sample: Sample) -> bool:
        if samples_of[sample.image] > 1 or not sample.image.is_file():
            return False
        read = np.asarray(dataset.read_image(sample))
        try:
            held = read_image(sample.image)
        except SegregError:
            return False
        read, held = (image[..., 0] if image.ndim == 3 and image.shape[2] == 1 else image for image in (read, held))
        return read.dtype == held.dtype and np.array_equal(read, held, equal_nan=read.dtype.kind == "f")

    own = read_each(holds_it, samples, "comparing images with their files", progress=progress)
    return {sample.image for sample, holds in zip(samples, own, strict=True) if holds}


def _fitting(dataset: Dataset, sample: Sample, *, shared: bool) -> tuple[set[str], bool, bytes]:
    """Return in which ways a mask's file holds the labels by itself, whether some are ignored, and its palette."""
    assert sample.mask is not None
    labels = dataset.read_mask(sample)
    ignored = bool((labels == IGNORE_INDEX).any())
    if shared or not sample.mask.is_file():
        return set(), ignored, b""
    try:
        raw = read_labels(sample.mask)
    except SegregError:
        return set(), ignored, b""
    palette = b""
    with contextlib.suppress(OSError), Image.open(sample.mask) as image:
        palette = bytes(image.getpalette() or b"")
        if image.format == "GIF":  # whose indices are trusted only where a recipe says so
            return set(), ignored, palette
    ways = {"numbers"} if np.array_equal(raw, labels) else set()
    if dataset.task.mode == "binary" and not ignored and np.array_equal(raw, labels * np.uint16(255)):
        ways.add("0 and 255")
    return ways, ignored, palette


def _files(dataset: Dataset, sample: Sample, folder: Path, form: Form, own: set[Path]) -> list[_File]:
    as_it_is = sample.image in own
    suffix = sample.image.suffix if as_it_is else _suffix_for(dataset, sample)
    files = [_File(folder / "images" / f"{sample.id}{suffix}", sample, sample.image if as_it_is else None, "image")]
    if form == "files":
        assert sample.mask is not None
        files.append(_File(folder / "masks" / f"{sample.id}{sample.mask.suffix}", sample, sample.mask, "mask"))
    elif form == "index":
        files.append(_File(folder / "masks" / f"{sample.id}.png", sample, None, "mask"))
    else:
        files += [
            _File(folder / "masks" / name / f"{sample.id}.png", sample, None, "mask", layer)
            for layer, name in enumerate(as_folder_names(dataset.task.classes))
        ]
    return files


def _suffix_for(dataset: Dataset, sample: Sample) -> str:
    """Return the suffix of an image that is not a file of its own: PNG where that can hold it, else TIFF.

    A PNG's fourth channel is alpha, which a band of a raster is not.
    """
    image = dataset.read_image(sample)
    channels = 1 if image.ndim == 2 else image.shape[2]
    alpha = channels == 4 and (has_alpha(sample.image) or not sample.image.is_file())
    return ".png" if image.dtype == np.uint8 and (channels in (1, 3) or alpha) else ".tif"


def _refuse_strangers(out: Path, files: Sequence[_File]) -> None:
    """Refuse folders that hold other files, above all those of another split: a sample would be in two splits."""
    wanted = {file.target for file in files}
    there: list[Path] = []
    for split in SPLITS:
        there += [p for p in (out / f"{split}_split").rglob("*") if not p.is_dir() or p.is_symlink()]
    strange = [path for path in there if path not in wanted and not path.name.endswith(_PART)]
    if strange:
        raise SegregError(
            f"{out} holds {len(strange)} files that are not of this split, such as {strange[0]}",
            hint="name an empty folder with --out, or remove the old split first",
        )
    manifest = out / MANIFEST
    if manifest.exists() and not manifest.read_text(encoding="utf-8", errors="replace").startswith(",".join(COLUMNS)):
        raise SegregError(f"{manifest} is there already and is not a manifest of a split", hint="name another folder")


def _make(file: _File, dataset: Dataset, link: Link) -> bool:
    """Make one file; return whether it had to be made."""
    target = file.target
    try:
        if target.exists() or target.is_symlink():
            if _is_right(file, dataset, link):
                return False
            raise SegregError(
                f"{target} is there already and is not what would be written", hint="name an empty folder with --out"
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = target.with_name(target.name + _PART)
        aside.unlink(missing_ok=True)
        if file.source is None:
            _render(file, dataset, aside)
        elif link == "copy":
            shutil.copy2(file.source, aside)
        elif link == "hard":
            os.link(file.source.resolve(), aside)
        else:
            aside.symlink_to(file.source.absolute())
        aside.rename(target)
    except OSError as error:
        hint = "--link copy works everywhere" if link != "copy" and file.source is not None else ""
        raise SegregError(f"{target} can't be written: {error.strerror or error}", hint=hint) from error
    return True


def _is_right(file: _File, dataset: Dataset, link: Link) -> bool:
    if file.source is not None:
        as_wanted = file.target.is_symlink() == (link == "symbolic")
        return as_wanted and file.target.exists() and filecmp.cmp(file.source, file.target, shallow=False)
    aside = file.target.with_name(file.target.name + _PART)
    try:
        _render(file, dataset, aside)
        return filecmp.cmp(aside, file.target, shallow=False)
    finally:
        aside.unlink(missing_ok=True)


def _render(file: _File, dataset: Dataset, target: Path) -> None:
    values: NDArray[Any]
    if file.holds == "image":
        values = np.asarray(dataset.read_image(file.sample))
        if file.target.suffix == ".tif":
            import tifffile

            tifffile.imwrite(target, values, photometric="minisblack", planarconfig="contig", metadata=None)
            return
        values = values[..., 0] if values.ndim == 3 and values.shape[2] == 1 else values
    else:
        values = np.asarray(dataset.read_mask(file.sample))
        values = values[file.layer] if values.ndim == 3 else values
    Image.fromarray(np.ascontiguousarray(values)).save(target, format="PNG")


def _write_manifest(
    out: Path, dataset: Dataset, chosen: Sequence[tuple[SplitName, Sample]], files: Sequence[_File]
) -> None:
    """Write the manifest last: with it, the split is whole. A multilabel task's masks are named by their folder."""
    path_of = {(file.holds, file.sample.id): file.target.relative_to(out).as_posix() for file in files}
    layered = dataset.task.mode == "multilabel"
    rows = [
        (one.id, path_of["image", one.id], "" if layered else path_of["mask", one.id], split, one.group or "")
        for split, one in chosen
    ]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([COLUMNS, *rows])  # plain cells, as the dataset `csv` reads them
    manifest = out / MANIFEST
    with contextlib.suppress(OSError):
        if manifest.read_text(encoding="utf-8") == text.getvalue():
            return
    write_text(manifest, text.getvalue())

"""The dataset `coco`: masks drawn from COCO's instance annotations (arXiv:1405.0312)."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

from segreg.errors import Problem, SegregError, did_you_mean, listed
from segreg.registry.protocols import Dataset, Recognised, Sample
from segreg.task import Task
from segreg_plugins.datasets.annotation_files import inside, is_file, unique_ids
from segreg_plugins.datasets.class_choice import NOTHING, class_task
from segreg_plugins.datasets.coco_drawing import Drawing, DrawingRules, counted_objects, read_coco_mask
from segreg_plugins.datasets.coco_file import CocoFile, CocoImage, Id, read_coco
from segreg_plugins.datasets.coco_layout import SPLITS, AnnotationFile, found_parts, named_parts
from segreg_plugins.datasets.grouping import group_pattern, groups_of, roboflow_source
from segreg_plugins.datasets.listing import head, in_splits, listing
from segreg_plugins.datasets.masks import read_image

_DRAWING_VERSION = 1
"""Raised whenever the same annotations and settings would give other masks."""
_LIST = re.compile(r'"(images|annotations|categories|licenses)"\s*:\s*\[')


def coco(
    *,
    root: Path = Path("data/coco"),
    annotations: Path | Mapping[Literal["train", "val", "test"], Path] | None = None,
    images: Path | Mapping[Literal["train", "val", "test"], Path] | None = None,
    classes: tuple[str, ...] | Mapping[str, tuple[str, ...]] | None = None,
    others: Literal["error", "background", "ignore"] = "error",
    background: str = "background",
    mode: Literal["multiclass", "binary", "multilabel"] = "multiclass",
    crowd: Literal["auto", "ignore", "draw", "skip"] = "auto",
    boxes: Literal["error", "ignore", "draw", "skip"] = "error",
    overlap: Literal["large_first", "file_order"] = "large_first",
    size_mismatch: Literal["error", "scale"] = "error",
    groups: str | None = "auto",
) -> Dataset:
    """COCO instance annotations, polygons and both RLE forms, drawn into masks.

    `root` is laid out as Roboflow (`train/_annotations.coco.json` beside the images), COCO and CVAT
    (`annotations/instances_train2017.json`, `train2017/`) do it, or holds one .json. Folders named train, valid and
    test are the split.

    A pixel belongs to a polygon that its centre lies in; several polygons of one annotation are united, and what lies
    outside the image is cut off. Images without annotations are all background. Images that the annotation file
    does not list are left out. Categories are identified by their names, so ids may start anywhere, have gaps and
    differ between the files.

    Args:
        root: folder of the export; not looked at where `annotations` is set.
        annotations: the annotation file, or one for each of train, val and test.
        images: folder of the images, or one for each annotation file; goes with `annotations`. Where it is null, the
            annotation file's own folder, or `images` in it or beside it.
        classes: categories in the order of the classes, or the categories that make up each class, as in
            `{vehicle: [car, bus], person: [person]}`. Null takes all that something is annotated with, in the order of
            their ids; so Roboflow's unused category 0 is none.
        others: what categories that `classes` leaves out become: with `background` they are not drawn, so that what
            lies beneath them shows.
        background: name of what is in no class, the first class of a multiclass task. A category of that name is it.
        mode: `multiclass` draws the classes over the background, `binary` one class, `multilabel` one layer a class, in
            which classes may overlap.
        crowd: what regions of many objects without an outline of their own (iscrowd) become. They lie beneath all else
            where they are ignored. `auto` ignores them, except in files of CVAT whose masks are all marked so: CVAT
            sets iscrowd for whatever was drawn with its brush, so these are drawn as objects.
        boxes: what annotations become that have a box and no outline, or one of fewer than three points; those that
            have neither are left out except with `error`, which lists all of them. Boxes lie beneath all else where
            they are ignored.
        overlap: which objects are drawn first and so lie beneath: the larger ones, or those that come first in
            the file.
        size_mismatch: what is done where an image's size is not the one that the annotation file says: `error`
            refuses the image, `scale` stretches the outlines.
        groups: images of one group are never parted by a split. `auto` takes what stands before ".rf." in Roboflow's
            names, which copies of one source share; a regular expression takes its first group in parentheses,
            searched in each name without extension; null has no groups.

    Raises:
        SegregError: files are missing or not as they should be, or settings don't fit them.
    """
    if annotations is None and images is not None:
        raise SegregError("images: goes with annotations, which is not set", hint="or set root, and neither of both")
    pattern = None if groups == "auto" else group_pattern(groups)
    parts = found_parts(root) if annotations is None else named_parts(annotations, images)
    files = _read(parts)
    notes: list[str] = []
    if crowd == "auto":
        files, notes = _without_false_crowds(files)
    task, labels = class_task(_names(files), classes=classes, mode=mode, background=background, others=others)
    by_id = {file.path: {key: labels[file.categories[key]] for key in file.used()} for file in files}
    if boxes == "error":
        _refuse_without_outline(files, by_id, crowd)
    found = _found(parts, files)
    stems = [path.stem for _, _, path in found]
    sources = [roboflow_source(stem) for stem in stems] if groups == "auto" else groups_of(stems, pattern)
    samples: list[Sample] = []
    input_images: dict[str, CocoImage] = {}
    for name, group, (part, image, path) in zip(_ids(found), sources, found, strict=True):
        samples.append(Sample(name, path, part.annotations, group, part.split))
        input_images[name] = image
    rules = DrawingRules("ignore" if crowd == "auto" else crowd, boxes, overlap, size_mismatch)
    nothing = {file.path: [key for key, name in file.categories.items() if name == background] for file in files}
    objects = counted_objects([(part.annotations, image, path) for part, image, path in found], by_id, rules, nothing)
    return Dataset(
        task,
        samples,
        read_image,
        partial(read_coco_mask, drawing=Drawing(task, rules, input_images, by_id)),
        reader=_reader(task, labels, rules) + f", masks of {len(notes)} files drawn" * bool(notes),
        folders=list(dict.fromkeys(path.parent for _, _, path in found)),
        objects=replace(objects, notes=[*notes, *objects.notes]),
    )


def _without_false_crowds(files: Sequence[CocoFile]) -> tuple[list[CocoFile], list[str]]:
    """Return the files, with objects in place of crowds where every mask is called one, and a note of each such."""
    changed, notes = [], []
    for file in files:
        if not file.crowds_are_masks:
            changed.append(file)
            continue
        count = 0
        images = []
        for image in file.images:
            masks = [replace(each, crowd=False) if each.runs is not None else each for each in image.annotations]
            count += sum(each.runs is not None for each in masks)
            images.append(replace(image, annotations=masks))
        changed.append(replace(file, images=images))
        notes.append(
            f"all {count} masks of {file.path.name} have iscrowd 1, as CVAT writes it for every mask, and are drawn as "
            "objects (`crowd: ignore` ignores them)"
        )
    return changed, notes


def _read(parts: Sequence[AnnotationFile]) -> list[CocoFile]:
    files: list[CocoFile] = []
    problems: list[Problem] = []
    for part in parts:
        try:
            files.append(read_coco(part.annotations))
        except SegregError as error:
            problems += error.problems
    if problems:
        raise SegregError.of(problems)
    return files


def _names(files: Sequence[CocoFile]) -> list[str]:
    """Return the names of the categories that are used, in the order of their ids in the first file that uses them.

    Raises:
        SegregError: nothing is annotated.
    """
    names: list[str] = []
    for file in files:
        used = [file.categories[key] for key in sorted(file.used(), key=_in_order)]
        names += [name for name in used if name not in names]
    if not names:
        raise SegregError(f"{files[0].path}: no annotation in it, so that there is nothing to learn")
    return names


def _in_order(key: Id) -> tuple[int, str]:
    return (key, "") if isinstance(key, int) else (1 << 62, key)


def _found(parts: Sequence[AnnotationFile], files: Sequence[CocoFile]) -> list[tuple[AnnotationFile, CocoImage, Path]]:
    """Return every image's file, in the order of the annotation files."""
    found: list[tuple[AnnotationFile, CocoImage, Path]] = []
    owners: dict[Path, str] = {}
    problems: list[Problem] = []
    for part, file in zip(parts, files, strict=True):
        missing: list[str] = []
        outside: list[str] = []
        for image in file.images:
            path = _image_file(image.name, part.images)
            if path is not None and _leads_out(image.name, part.images):
                outside.append(image.name)
            elif path is None:
                missing.append(image.name)
            elif path in owners:
                problems.append(Problem(f"{part.annotations}: {image.name} is {path}, as is {owners[path]}"))
            else:
                owners[path] = f"{image.name} of {part.annotations}"
                found.append((part, image, path))
        if outside:
            problems.append(
                Problem(
                    f"{part.annotations}: {len(outside)} of its images are in other folders than "
                    f"{listed([str(folder) for folder in part.images if folder.is_dir()], quote='', last='or')}: "
                    f"{listed(outside, most=3)}",
                    hint="set annotations: and images: to the folder that holds all of them, and file_name to paths in "
                    "it",
                )
            )
        if missing:
            problems.append(_missing(part, missing, [image.name for image in file.images]))
    if not problems and not found:
        problems.append(Problem(f"{parts[0].annotations}: lists no image"))
    if problems:
        raise SegregError.of(problems)
    return found


def _image_file(name: str, folders: Sequence[Path]) -> Path | None:
    """Return the file of an image by the name that an annotation file has for it, or None.

    Paths of the computer where the file was made, with either slash, are cut down to the file's name where they lead
    nowhere.
    """
    plain = name.replace("\\", "/")
    for folder in folders:
        for path in dict.fromkeys((folder / name, folder / plain, folder / plain.rsplit("/", 1)[-1])):
            if is_file(path):
                return path
    return None


def _leads_out(name: str, folders: Sequence[Path]) -> bool:
    """Whether a name, `../a.png` or an absolute path, leads to a file in none of the folders."""
    plain = name.replace("\\", "/")
    return any(inside(folder, plain) is None and is_file(folder / plain) for folder in folders)


def _missing(part: AnnotationFile, missing: Sequence[str], named: Sequence[str]) -> Problem:
    folders = [folder for folder in part.images if folder.is_dir()]
    # Among numbered names there is always a close one; only files that the annotation file does not name may be meant.
    spare = {file.name for folder in folders for file in folder.iterdir()} - set(named)
    guess = did_you_mean(missing[0].replace("\\", "/").rsplit("/", 1)[-1], spare) if len(spare) < 10_000 else ""
    looked = listed([str(folder) for folder in folders], quote="") or "any folder"
    count = f"{len(missing)} of its {len(named)} images {'are' if len(missing) > 1 else 'is'} not in {looked}"
    return Problem(
        f"{part.annotations}: {count}: {listed(missing, most=3)}",
        hint=guess or "set annotations: and images: to the folder that holds the images",
    )


def _refuse_without_outline(
    files: Sequence[CocoFile], labels: Mapping[Path, Mapping[int | str, int]], crowd: str
) -> None:
    problems = []
    for file in files:
        bare = [
            (image.name, annotation)
            for image in file.images
            for annotation in image.annotations
            if not annotation.outlined
            and labels[file.path][annotation.category] != NOTHING
            and not (annotation.crowd and crowd == "skip")
        ]
        if not bare:
            continue
        total = sum(len(image.annotations) for image in file.images)
        some = [f"annotation {annotation.id} in {name}" for name, annotation in bare]
        boxed = sum(annotation.box is not None for _, annotation in bare)
        having = f"{boxed} of them a box" if boxed < len(bare) else "only a box"
        problems.append(
            Problem(
                f"{file.path}: {len(bare)} of {total} annotations have no outline, {having}: "
                f"{listed(some, quote='', most=3)}"
            )
        )
    if problems:
        hint = (
            "set boxes: ignore (pixels in the box count for nothing), draw (the box is the object) or skip (it is not "
            "there); what has neither outline nor box is then left out"
        )
        raise SegregError.of([*problems[:-1], Problem(problems[-1].message, hint=hint)])


def _ids(found: Sequence[tuple[AnnotationFile, CocoImage, Path]]) -> list[str]:
    """Return each image's name without extension, behind its split where two have the same, or else its path."""
    count = Counter(path.stem for _, _, path in found)
    ids = [
        path.stem if count[path.stem] == 1 else f"{part.split or path.parent.name}__{path.name}"
        for part, _, path in found
    ]
    count = Counter(ids)
    if len(count) == len(ids):
        return ids
    paths = [path for _, _, path in found]
    long = unique_ids(paths, Path(os.path.commonpath([path.parent.absolute() for path in paths])))
    return [name if count[name] == 1 else other for name, other in zip(ids, long, strict=True)]


def _reader(task: Task, labels: Mapping[str, int], rules: DrawingRules) -> str:
    how = [_DRAWING_VERSION, task.mode, sorted(labels.items()), rules.crowd, rules.boxes, rules.overlap]
    return f"coco: {json.dumps([*how, rules.size_mismatch])}"


def recognise_coco(root: Path) -> list[Recognised]:
    """Return an export in one of the layouts that `root` may have, whose files begin as COCO's do."""
    if not any("json" in name.rpartition(".")[2].lower() for name in _names_near(root)):
        return []
    try:
        parts = found_parts(root)
    except SegregError:
        return []
    if not all(_begins_as_coco(part.annotations) for part in parts):
        return []
    counts = []
    for part in parts:
        images = max(len(listing(folder).images) for folder in part.images)
        counts.append((part.split or part.annotations.parent.name, images))
    saw = f"{in_splits(counts)}, and {parts[0].annotations.name}"
    return [Recognised({"root": root}, saw)]


def _names_near(root: Path) -> list[str]:
    """Return the names of the files in a folder, and in those below it that may hold annotations."""
    own = listing(root)
    near = [name for name in own.folders if name.lower() in (*SPLITS, "annotations")]
    return [*own.files, *(file for name in near for file in listing(root / name).files)]


def _begins_as_coco(file: Path) -> bool:
    """Whether a file begins as an object with one of COCO's lists, and not as one image of LabelMe."""
    start = head(file).lstrip()
    return start.startswith("{") and _LIST.search(start) is not None and '"shapes"' not in start

"""The dataset `label_studio`: masks drawn from Label Studio's own JSON export."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qs, unquote, urlsplit

from segreg.errors import Problem, SegregError, listed
from segreg.registry.protocols import Dataset, Recognised, Sample
from segreg.runtime.files import expanded
from segreg_plugins.datasets.annotation_files import (
    MOST_BYTES,
    MOST_PROBLEMS,
    inside,
    is_file,
    number,
    outline,
    read_json,
    side,
    unique_ids,
    what_it_holds,
)
from segreg_plugins.datasets.brush_rle import brush_pixels
from segreg_plugins.datasets.grouping import group_pattern, groups_of
from segreg_plugins.datasets.images import missing_folder, near
from segreg_plugins.datasets.listing import head, images_below, listing
from segreg_plugins.datasets.shapes import Annotated, Shape, Size, rectangle, shape_dataset

SOURCE = 'annotations: is Label Studio\'s export as "JSON"; images: is a folder that holds the images it names'
_UPLOADED = re.compile(r"^[0-9a-f]{8}-(?=.)")
"""What Label Studio puts before the name of an uploaded file."""


def label_studio(
    *,
    annotations: Path,
    images: Path | None = None,
    key: str = "image",
    annotators: Literal["error", "first", "last"] = "error",
    classes: tuple[str, ...] | Mapping[str, tuple[str, ...]] | None = None,
    others: Literal["error", "background", "ignore"] = "error",
    background: str = "background",
    mode: Literal["multiclass", "binary", "multilabel"] = "multiclass",
    boxes: Literal["error", "ignore", "draw", "skip"] = "error",
    other_shapes: Literal["error", "skip"] = "error",
    size_mismatch: Literal["error", "scale"] = "error",
    groups: str | None = None,
) -> Dataset:
    """Label Studio's JSON export: polygons, brush strokes and ellipses, drawn into masks.

    Images are looked for in `images` by the longest end of their path or address that is there, and without the eight
    characters that Label Studio puts before the names of uploads. Tasks that nobody annotated, or that were skipped,
    are left out; predictions are not looked at. A pixel belongs to a shape that its centre lies in, and to a brush
    stroke from half of the full alpha on; later regions lie on top.

    Args:
        annotations: the exported file.
        images: folder of the images; null is that of `annotations`.
        key: what the image is called in the `data` of a task.
        annotators: what is taken where a task has several annotations.
        classes: labels in the order of the classes, or the labels that make up each class, as in
            `{vehicle: [car, bus], person: [person]}`. Null takes all that something is annotated with, in natural
            order.
        others: what labels that `classes` leaves out become: with `background` they are not drawn.
        background: name of what is in no class, the first class of a multiclass task.
        mode: `multiclass` draws the classes over the background, `binary` one class, `multilabel` one layer a class, in
            which classes may overlap.
        boxes: what rectangles become. They lie beneath all else where they are ignored.
        other_shapes: whether key points, open polygons and other shapes without an area are refused, or left out and
            counted.
        size_mismatch: what is done where an image's size is not the one that the export says: `error` refuses the
            image, `scale` stretches the shapes.
        groups: regular expression, searched in each image's name without extension, whose first group names what must
            not be split.

    Raises:
        SegregError: files are missing or not as they should be, or settings don't fit them.
    """
    pattern = group_pattern(groups)
    annotations = expanded(annotations)
    if not annotations.is_file():
        hint = "\n".join(filter(None, (near(annotations), SOURCE)))
        raise SegregError(f"annotations: there is no file {annotations}", hint=hint)
    images = annotations.parent if images is None else expanded(images)
    if problem := missing_folder(images, "images"):
        raise SegregError.of([problem])
    found: dict[Path, Annotated] = {}
    owners: dict[Path, str] = {}
    problems: list[Problem] = []
    unfinished = 0
    for place, task in enumerate(_tasks(annotations), start=1):
        if len(problems) == MOST_PROBLEMS:
            break
        named = f"task {task.get('id', place)}"
        try:
            results = _results(task, annotators)
            if results is None:
                unfinished += 1
                continue
            path = _image(task, key, images)
            if path in owners:
                raise ValueError(f"its image is {path}, as is that of {owners[path]}")
            owners[path] = named
            found[path] = _annotated(results)
        except ValueError as error:
            message, *hints = str(error).split("\n")
            problems.append(Problem(f"{annotations}: {named}: {message}", hint="\n".join(hints)))
    if problems:
        raise SegregError.of(problems)
    if not found:
        raise SegregError(f"{annotations}: none of its {unfinished} tasks is annotated")
    paths = list(found)
    ids = unique_ids(paths, images)
    samples = [
        Sample(name, path, annotations, group)
        for name, path, group in zip(ids, paths, groups_of([path.stem for path in paths], pattern), strict=True)
    ]
    return shape_dataset(
        f"label_studio {annotators}",
        samples,
        partial(_loaded, by_id=dict(zip(ids, found.values(), strict=True))),
        source=annotations,
        names=None,
        classes=classes,
        others=others,
        background=background,
        mode=mode,
        boxes=boxes,
        other_shapes=other_shapes,
        size_mismatch=size_mismatch,
        notices=[f"{unfinished} tasks that are not annotated are left out"] if unfinished else [],
    )


def _loaded(sample: Sample, *, by_id: Mapping[str, Annotated]) -> Annotated:
    return by_id[sample.id]


def _tasks(path: Path) -> list[Any]:
    tasks = read_json(path, MOST_BYTES)
    whole = isinstance(tasks, list) and all(isinstance(task, dict) and "data" in task for task in tasks)
    if not whole or not any("annotations" in task for task in tasks):
        held = f"a list of {what_it_holds(tasks[0])}" if isinstance(tasks, list) and tasks else what_it_holds(tasks)
        raise SegregError(
            f"{path}: is not Label Studio's JSON: it holds {held}",
            hint='one holds a list of tasks with "data" and "annotations"; export as "JSON", not as "JSON-MIN"; for a '
            "COCO export take the dataset coco",
        )
    return list(tasks)


def _results(task: Mapping[str, Any], annotators: str) -> list[Any] | None:
    """Return the regions of the annotation that counts, or None where there is none.

    Raises:
        ValueError: there are several, or they are not as they should be; lines after the first are a hint.
    """
    annotations = task.get("annotations") or []
    if not isinstance(annotations, list) or not all(isinstance(each, dict) for each in annotations):
        raise ValueError("its annotations are not a list of objects")
    done = [each for each in annotations if not each.get("was_cancelled")]
    if not done:
        return None
    if len(done) > 1 and annotators == "error":
        raise ValueError(f"has {len(done)} annotations\nset annotators: first or last to take one of each task's")
    results = done[-1 if annotators == "last" else 0].get("result")
    if not isinstance(results, list) or not all(isinstance(each, dict) for each in results):
        raise ValueError("the result of its annotation is not a list of objects")
    return results


def _image(task: Mapping[str, Any], key: str, folder: Path) -> Path:
    """Return the image of a task.

    Raises:
        ValueError: it is not in the folder; lines after the first are a hint.
    """
    data = task.get("data")
    name = data.get(key) if isinstance(data, dict) else None
    if not isinstance(name, str) or not name.strip():
        has = list(data) if isinstance(data, dict) else []
        raise ValueError(f'its data has no "{key}"\nset key: to the one of {listed(has, last="or")} that is the image')
    parts = [part for part in _path_of(name).split("/") if part not in ("", ".", "..")]
    bare = parts[-1] if parts else ""
    for first in range(len(parts)):
        for last in dict.fromkeys((bare, _UPLOADED.sub("", bare))):
            path = inside(folder, "/".join([*parts[first:-1], last]))
            if path is not None and is_file(path):
                return path
    hint = f"{near(folder / bare)}\nset images: to the folder that holds the images".strip()
    raise ValueError(f'its image "{name}" is not in {folder}\n{hint}')


def _path_of(name: str) -> str:
    """Return the path in an address: of `/data/local-files/?d=a/b.jpg` it is a/b.jpg, of `s3://bucket/b.jpg` b.jpg."""
    address = urlsplit(name.replace("\\", "/"))
    local = parse_qs(address.query).get("d")
    return local[0] if local else unquote(address.path)


def _annotated(results: Sequence[Mapping[str, Any]]) -> Annotated:
    """Return the shapes of an annotation, in pixels of the size that all of them refer to.

    Raises:
        ValueError: a region is not as it should be; lines after the first are a hint.
    """
    # Where labels and shapes are tags of their own, or a text describes a region, several results have its id.
    regions: dict[str, list[Mapping[str, Any]]] = {}
    for place, each in enumerate(results, start=1):
        regions.setdefault(str(each.get("id") or place), []).append(each)
    size: Size | None = None
    shapes: list[Shape] = []
    for name, parts in regions.items():
        drawn = next((part for part in parts if _kind(part)), None)
        if drawn is None:  # a choice or a text about the image
            continue
        try:
            own = (side(drawn.get("original_height")), side(drawn.get("original_width")))
            if not own[0] or not own[1]:
                raise ValueError("has no original_width and original_height")
            if size not in (None, own):
                raise ValueError(f"is in an image of {own[0]}x{own[1]}, and one before it in {size} (height x width)")
            if turned := drawn.get("image_rotation"):
                raise ValueError(f"is in an image that was turned by {turned} degrees\nturn the file itself instead")
            size = own
            labels = dict.fromkeys(label for part in parts for label in _labels(part))
            if not labels:
                raise ValueError("has no label\ngive it one in Label Studio, or delete it")
            for label in labels:
                shape = _shape(drawn, label, f"region {name}", own)
                shapes.append(shape)
        except ValueError as error:
            raise ValueError(f"region {name}: {error}") from None
    return Annotated(size, shapes)


def _kind(result: Mapping[str, Any]) -> str:
    """Return the shape of a result, or "" where it has none."""
    value = result.get("value")
    if not isinstance(value, dict):
        return ""
    for key, kind in (("points", "polygon"), ("rle", "brush"), ("radiusX", "ellipse"), ("height", "rectangle"),
                      ("x", "key point"), ("vertices", "vector"), ("imageDataURL", "bitmask")):  # fmt: skip
        if key in value:
            return "open polygon" if kind == "polygon" and value.get("closed") is False else kind
    return ""


def _labels(result: Mapping[str, Any]) -> list[str]:
    """Return the labels of a result: those of `polygonlabels` are in a list of this name."""
    value, kind = result.get("value"), str(result.get("type"))
    labels = value.get(kind) if isinstance(value, dict) and kind.endswith("labels") else None
    return [str(label).strip() for label in labels] if isinstance(labels, list) else []


def _shape(region: Mapping[str, Any], label: str, where: str, size: Size) -> Shape:
    """Return the shape of a region, whose coordinates are percent.

    Raises:
        ValueError: it is not as it should be.
    """
    value, kind = region["value"], _kind(region)
    percent = (size[1] / 100, size[0] / 100)
    match kind:
        case "polygon":
            points = outline(value["points"], scale=percent)
            return Shape(label, where, kind, (points,))
        case "brush":
            rle = value["rle"]
            if not isinstance(rle, list) or not all(type(byte) is int and 0 <= byte <= 255 for byte in rle):
                raise ValueError("has an rle that is not a list of bytes, 0 to 255")
            if value.get("format", "rle") != "rle":
                raise ValueError(f'has the format "{value["format"]}", and "rle" was expected')
            return Shape(label, where, kind, pixels=partial(brush_pixels, bytes(rle)))
        case "rectangle" | "ellipse":
            names = ("x", "y", "width", "height") if kind == "rectangle" else ("x", "y", "radiusX", "radiusY")
            scales = (*percent, *percent)
            x, y, across, down = (number(value.get(n), f"whose {n}") * f for n, f in zip(names, scales, strict=True))
            turned = number(value.get("rotation", 0), "whose rotation")
            if kind == "ellipse":
                return Shape(label, where, kind, ellipse=(x, y, across, down, turned))
            box = rectangle(x, y, x + across, y + down, turned)
            return Shape(label, where, kind, (box,), box=True)
    return Shape(label, where, kind)


def recognise_label_studio(root: Path) -> list[Recognised]:
    """Return the exports of a folder, with the folder below that holds the images where they don't lie beside them."""
    found = []
    for name in listing(root).files:
        start = head(root / name).lstrip() if name.lower().endswith(".json") else ""
        if not (start.startswith("[") and '"annotations"' in start and '"data"' in start):
            continue
        below = images_below(root)
        folder = max(below, key=lambda path: len(below[path]), default="")
        settings: dict[str, Any] = {"annotations": root / name} | ({"images": root / folder} if folder else {})
        saw = f"{name} is a list of tasks, and {len(below.get(folder, [])):,} images are in {folder or 'its folder'}"
        found.append(Recognised(settings, saw))
    return found

"""What a COCO annotation file says, checked: its categories, its images, and the outlines in each."""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from segreg.errors import Problem, SegregError
from segreg_plugins.datasets.annotation_files import MOST_BYTES, first_of, number, read_json, shown, what_it_holds
from segreg_plugins.datasets.polygons import extends

Id = int | str

MOST_PIXELS = 1 << 28
"""How many pixels an image is taken to have at most; no larger one can be read."""
_TOO_LARGE = f"more than the {MOST_PIXELS:,} pixels that an image may have"
_LONGEST_NAME = 4096


@dataclass(frozen=True)
class RunLengths:
    """A run-length encoded mask: its (height, width), and its counts, still as a string in the compressed form."""

    size: tuple[int, int]
    counts: str | Sequence[int]


@dataclass(frozen=True)
class Annotation:
    """One annotated object, or a crowd of them.

    Attributes:
        id: as the file has it.
        category: the id of its category.
        crowd: whether it is a region of many objects without outlines of their own.
        polygons: its outline, x and y in turns; several where other things hide parts of it.
        runs: its outline as a mask, in place of polygons.
        box: left, top, width and height; looked at only where there is no outline.
    """

    id: Id | None
    category: Id
    crowd: bool
    polygons: tuple[array[float], ...] = ()
    runs: RunLengths | None = None
    box: tuple[float, float, float, float] | None = None

    @property
    def outlined(self) -> bool:
        """Whether its shape is known."""
        return bool(self.polygons) or self.runs is not None


@dataclass(frozen=True)
class CocoImage:
    """One image and what is annotated in it.

    Attributes:
        name: its file's name or path, as the annotation file has it.
        size: (height, width) that coordinates refer to, or None where the file does not say.
        annotations: in the file's order.
    """

    name: str
    size: tuple[int, int] | None
    annotations: list[Annotation] = field(default_factory=list)


@dataclass(frozen=True)
class CocoFile:
    """An annotation file's content.

    Attributes:
        path: the file.
        categories: their names, by id.
        images: in the file's order.
        crowds_are_masks: whether its program sets iscrowd for every object that is a mask, as CVAT does: iscrowd says
            nothing of such objects then.
    """

    path: Path
    categories: Mapping[Id, str]
    images: Sequence[CocoImage]
    crowds_are_masks: bool = False

    def used(self) -> set[Id]:
        """Return the ids of the categories that something is annotated with."""
        return {annotation.category for image in self.images for annotation in image.annotations}


def read_coco(path: Path) -> CocoFile:
    """Return the content of a COCO instance annotation file.

    Raises:
        SegregError: it can't be read, is of another kind, or something in it can't be what it should; up to 20 things
            are reported at once, each with the annotation's or image's id.
    """
    content = _parsed(path)
    problems: list[str] = []
    categories = _categories(content["categories"], problems)
    images = _images(content["images"], problems)
    _annotate(content["annotations"], categories, images, problems)
    _refuse_shares(path, images.values())
    if problems:
        raise first_of([Problem(f"{path}: {problem}") for problem in problems], path)
    return CocoFile(path, categories, list(images.values()), _is_of_cvat(path, content) and _crowds_are_masks(images))


def _is_of_cvat(path: Path, content: Mapping[str, Any]) -> bool:
    """Whether CVAT, or Datumaro, whose code it exports by, wrote a file.

    Its files are named after the subset, "default" where there is none, `info` and `licenses` are there and empty, and
    annotations have the attribute `occluded`.
    """
    info, licenses = content.get("info"), content.get("licenses")
    described = isinstance(info, dict) and any(info.values())
    licensed = isinstance(licenses, list) and any(isinstance(one, dict) and any(one.values()) for one in licenses)
    if described or licensed:
        return False
    attributes = (item.get("attributes") for item in content["annotations"])
    if any(isinstance(each, dict) and "occluded" in each for each in attributes):
        return True
    return path.name == "instances_default.json" or (isinstance(info, dict) and "contributor" in info)


def _crowds_are_masks(images: Mapping[Id, CocoImage]) -> bool:
    """Whether there are crowds, and every object that is a mask is one."""
    masks = [each.crowd for image in images.values() for each in image.annotations if each.runs is not None]
    return bool(masks) and all(masks)


def _parsed(path: Path) -> dict[str, list[Any]]:
    content = read_json(path, MOST_BYTES)
    keys = ("images", "annotations", "categories")
    if not isinstance(content, dict) or any(not isinstance(content.get(key), list) for key in keys):
        raise SegregError(
            f"{path}: is not a COCO annotation file: it holds {what_it_holds(content)}",
            hint='one holds the lists "images", "annotations" and "categories"',
        )
    if any(isinstance(item, dict) and "segments_info" in item for item in content["annotations"][:1]):
        raise SegregError(
            f"{path}: is a panoptic annotation file, whose masks are PNG files", hint="export instances instead"
        )
    return content


def _categories(items: Sequence[Any], problems: list[str]) -> dict[Id, str]:
    categories: dict[Id, str] = {}
    for place, item in enumerate(items, start=1):
        key = _id(item.get("id")) if isinstance(item, dict) else None
        name = item.get("name") if isinstance(item, dict) else None
        if key is None or not isinstance(name, str) or not name.strip():
            problems.append(f"category {place} of the list has no id or no name")
        elif key in categories:
            problems.append(f'category {key} is given twice, as "{categories[key]}" and "{name}"')
        else:
            categories[key] = name.strip()
    return categories


def _images(items: Sequence[Any], problems: list[str]) -> dict[Id, CocoImage]:
    images: dict[Id, CocoImage] = {}
    names: dict[str, Id] = {}
    for place, item in enumerate(items, start=1):
        key = _id(item.get("id")) if isinstance(item, dict) else None
        name = item.get("file_name") if isinstance(item, dict) else None
        if key is None or not isinstance(name, str) or not name.strip():
            problems.append(f"image {place} of the list has no id or no file_name")
        elif len(name) > _LONGEST_NAME:
            problems.append(f"image {key} has a file_name of {len(name)} characters")
        elif key in images:
            problems.append(f"image {key} is given twice, as {images[key].name} and {name}")
        elif name in names:
            problems.append(f"images {names[name]} and {key} are one file, {name}")
        else:
            names[name] = key
            size = (_whole(item.get("height")), _whole(item.get("width")))
            if size[0] * size[1] > MOST_PIXELS:
                problems.append(f"image {key} ({name}) is said to be {_hw(size)} (height x width), {_TOO_LARGE}")
                size = (0, 0)
            images[key] = CocoImage(name, (size[0], size[1]) if size[0] and size[1] else None)
    return images


def _annotate(
    items: Sequence[Any], categories: Mapping[Id, str], images: Mapping[Id, CocoImage], problems: list[str]
) -> None:
    for place, item in enumerate(items, start=1):
        if not isinstance(item, dict):
            problems.append(f"annotation {place} of the list is not an object")
            continue
        own = _id(item.get("id"))
        named = f"annotation {place} of the list" if own is None else f"annotation {own}"
        image, category = _id(item.get("image_id")), _id(item.get("category_id"))
        if image not in images:
            problems.append(f"{named} is of image {item.get('image_id')}, which is not in the list of images")
        elif category not in categories:
            problems.append(f"{named} is of category {item.get('category_id')}, which is not in the list of categories")
        else:
            assert image is not None and category is not None  # noqa: PT018
            crowd = item.get("iscrowd") in (1, True, "1")
            try:
                polygons, runs = _outline(item.get("segmentation"))
                box = _box(item.get("bbox")) if not polygons and runs is None else None
            except ValueError as error:
                problems.append(f"{named} ({images[image].name}): {error}")
                continue
            images[image].annotations.append(Annotation(own, category, crowd, polygons, runs, box))


def _outline(segmentation: Any) -> tuple[tuple[array[float], ...], RunLengths | None]:
    """Return polygons or runs; neither where the annotation has none that encloses anything.

    Raises:
        ValueError: it is none of the forms that COCO has.
    """
    if segmentation is None or segmentation in ([], {}, ""):
        return (), None
    if isinstance(segmentation, Mapping):
        return (), _runs(segmentation)
    if not isinstance(segmentation, list):
        raise ValueError(f"its segmentation is a {type(segmentation).__name__}")
    if all(isinstance(value, (int, float)) for value in segmentation):
        segmentation = [segmentation]  # some programs leave the outer list out where there is one polygon
    polygons = [_polygon(part) for part in segmentation]
    return tuple(polygon for polygon in polygons if extends(polygon)), None


def _polygon(part: Any) -> array[float]:
    try:
        polygon = array("d", part if isinstance(part, list) else [part])
    except (TypeError, OverflowError):
        raise ValueError("a polygon of its segmentation is not a list of numbers x, y, x, y ...") from None
    if len(polygon) % 2:
        raise ValueError(f"a polygon of its segmentation has {len(polygon)} numbers, an x without a y")
    if not all(map(math.isfinite, polygon)):
        raise ValueError("a polygon of its segmentation holds a number that is not finite")
    for value in (min(polygon, default=0), max(polygon, default=0)):
        number(value, "a coordinate of its segmentation")
    return polygon


def _runs(segmentation: Mapping[str, Any]) -> RunLengths:
    counts, size = segmentation.get("counts"), segmentation.get("size")
    if not isinstance(size, list) or len(size) != 2 or not all(_whole(side) for side in size):
        raise ValueError(f"its mask's size is {shown(size)}, and [height, width] was expected")
    height, width = _whole(size[0]), _whole(size[1])
    if height * width > MOST_PIXELS:
        raise ValueError(f"its mask is {_hw((height, width))} (height x width), {_TOO_LARGE}")
    if not isinstance(counts, str) and not (isinstance(counts, list) and all(type(count) is int for count in counts)):
        raise ValueError("its mask's counts are neither a string nor a list of integers")
    if not isinstance(counts, str):
        for count in (min(counts, default=0), max(counts, default=0)):
            number(count, "a run of its mask", most=MOST_PIXELS)
    return RunLengths((height, width), counts if isinstance(counts, str) else array("q", counts))


def _box(box: Any) -> tuple[float, float, float, float] | None:
    if box is None or box == []:
        return None
    if not isinstance(box, list) or len(box) != 4 or not all(type(side) in (int, float) for side in box):
        raise ValueError(f"its bbox is {shown(box)}, and [left, top, width, height] was expected")
    if any(isinstance(side, float) and not math.isfinite(side) for side in box):
        raise ValueError("its bbox holds a number that is not finite")
    for side in box:
        number(side, "a number of its bbox")
    left, top, width, height = (float(side) for side in box)
    return (left, top, width, height) if width > 0 and height > 0 else None


def _refuse_shares(path: Path, images: Any) -> None:
    """Refuse coordinates that are shares of the image's sides: drawn as pixels, they would leave nothing."""
    polygons = [polygon for image in images for each in image.annotations for polygon in each.polygons]
    if polygons and all(max(polygon) <= 1 for polygon in polygons):
        raise SegregError(
            f"{path}: no coordinate of its {len(polygons)} polygons is above 1, so they seem to be shares of the "
            "images' sides",
            hint="COCO's coordinates are pixels; multiply x by the width and y by the height",
        )


def _id(value: Any) -> Id | None:
    """Return an id, the same for 3, 3.0 and "3", which programs mix within one file."""
    if isinstance(value, bool) or value is None or value == "":
        return None
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    if isinstance(value, str):
        return int(value) if value.isascii() and value.isdecimal() else value
    return value if isinstance(value, int) else None


def _hw(size: tuple[int, int]) -> str:
    return "x".join(shown(side) for side in size)


def _whole(value: Any) -> int:
    """Return a side's length in pixels, or 0 where it is none."""
    number = _id(value)
    return number if isinstance(number, int) and number > 0 else 0

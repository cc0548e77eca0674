"""The dataset `supervisely`: masks drawn from a project of Supervisely."""

from __future__ import annotations

import base64
import zlib
from array import array
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from segreg.errors import Problem, SegregError, did_you_mean, listed
from segreg.registry.protocols import Dataset, Recognised, Sample
from segreg_plugins.datasets.annotation_files import (
    MOST_PROBLEMS,
    number,
    outline,
    read_json,
    side,
    splits_of,
    unique_ids,
    what_it_holds,
)
from segreg_plugins.datasets.grouping import group_pattern, groups_of
from segreg_plugins.datasets.images import images_in
from segreg_plugins.datasets.listing import counted, has, head, listing
from segreg_plugins.datasets.polygons import extends
from segreg_plugins.datasets.shapes import Annotated, Shape, Size, png_mask, rectangle, shape_dataset, shapes_of
from segreg_plugins.datasets.sources import found_root

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SOURCE = 'download the project from Supervisely with images and annotations, "Supervisely format"'


def supervisely(
    *,
    root: Path = Path("data/supervisely"),
    classes: tuple[str, ...] | Mapping[str, tuple[str, ...]] | None = None,
    others: Literal["error", "background", "ignore"] = "error",
    background: str = "background",
    mode: Literal["multiclass", "binary", "multilabel"] = "multiclass",
    boxes: Literal["error", "ignore", "draw", "skip"] = "error",
    other_shapes: Literal["error", "skip"] = "error",
    size_mismatch: Literal["error", "scale"] = "error",
    groups: str | None = None,
) -> Dataset:
    """A Supervisely project: `meta.json`, and folders with `img` and `ann`; polygons with holes and bitmaps.

    The annotations of `<dataset>/img/a.jpg` are in `<dataset>/ann/a.jpg.json` (or `a.json`). Datasets named train,
    valid and test are the split. Whole coordinates are numbers of pixels, of which a rectangle has the last ones too;
    fractions count from their edges. A pixel belongs to a polygon that its centre lies in; later objects lie on top.

    Args:
        root: folder of the project.
        classes: titles in the order of the classes, or the titles that make up each class, as in
            `{vehicle: [car, bus], person: [person]}`. Null takes all that something is annotated with, in meta.json's
            order.
        others: what titles that `classes` leaves out become: with `background` they are not drawn.
        background: name of what is in no class, the first class of a multiclass task.
        mode: `multiclass` draws the classes over the background, `binary` one class, `multilabel` one layer a class, in
            which classes may overlap.
        boxes: what rectangles become. They lie beneath all else where they are ignored.
        other_shapes: whether points, lines and other shapes without an area are refused, or left out and counted.
        size_mismatch: what is done where an image's size is not the one that its annotations say: `error` refuses the
            image, `scale` stretches the shapes.
        groups: regular expression, searched in each image's name without extension, whose first group names what must
            not be split.

    Raises:
        SegregError: files are missing or not as they should be, or settings don't fit them.
    """
    pattern = group_pattern(groups)
    root = found_root(root, ["meta.json"], source=SOURCE)
    titles = _titles(root / "meta.json")
    datasets = list(_datasets(root))
    if not datasets:
        raise SegregError(f"root: {root} has no folder that holds img and ann", hint=SOURCE)
    pairs: list[tuple[Path, Path, str]] = []
    problems: list[Problem] = []
    for folder in datasets:
        first = folder.relative_to(root).parts[:1]
        found = [(image.path, _annotations(image.path)) for image in images_in(folder / "img", "folder")]
        pairs += [(image, file, "".join(first)) for image, file in found if file]
        if missing := [str(image) for image, file in found if not file]:
            what = f"{folder / 'ann'}: {len(missing)} of {len(found)} images have no annotations there"
            some = listed(missing, quote="", most=3)
            problems.append(Problem(f"{what}: {some}", hint="those of img/a.jpg are in ann/a.jpg.json"))
        used = {file for _, file in found}
        spare = [str(file) for file in sorted((folder / "ann").glob("[!.]*.json")) if file not in used]
        if spare:
            what = f"{folder / 'img'}: {len(spare)} annotation files have no image there"
            some = listed(spare, quote="", most=3)
            problems.append(Problem(f"{what}: {some}", hint="download the project with its images"))
    if problems:
        raise SegregError.of(problems[:MOST_PROBLEMS])
    if not pairs:
        raise SegregError(f"root: {root} holds no images", hint=SOURCE)
    images = [image for image, _, _ in pairs]
    splits = splits_of([name for _, _, name in pairs])
    grouped = groups_of([image.stem for image in images], pattern)
    samples = [
        Sample(name, image, file, group, split)
        for name, (image, file, _), group, split in zip(unique_ids(images, root), pairs, grouped, splits, strict=True)
    ]
    return shape_dataset(
        "supervisely 2",  # before, pixels' numbers were taken for edges
        samples,
        partial(load_supervisely, titles=titles),
        source=root,
        names=titles,
        classes=classes,
        others=others,
        background=background,
        mode=mode,
        boxes=boxes,
        other_shapes=other_shapes,
        size_mismatch=size_mismatch,
    )


def load_supervisely(sample: Sample, *, titles: tuple[str, ...]) -> Annotated:
    """Return what is annotated in a file of a project.

    Raises:
        SegregError: the file or an object in it is not as it should be, up to 20 reported at once.
    """
    assert sample.mask is not None
    content = read_json(sample.mask)
    if not isinstance(content, dict) or not isinstance(content.get("objects"), list):
        raise SegregError(
            f"{sample.mask}: is not a Supervisely annotation: it holds {what_it_holds(content)}",
            hint='one holds "size" and the list "objects"',
        )
    size = content.get("size")
    height, width = (side(size.get(key)) for key in ("height", "width")) if isinstance(size, dict) else (0, 0)
    shapes = shapes_of(sample.mask, "object", content["objects"], partial(_shape, titles=titles))
    return Annotated((height, width) if height and width else None, shapes)


def _titles(path: Path) -> tuple[str, ...]:
    content = read_json(path)
    items = content.get("classes") if isinstance(content, dict) else None
    titles = [item.get("title") for item in items if isinstance(item, dict)] if isinstance(items, list) else []
    if not titles or not all(isinstance(title, str) and title for title in titles):
        raise SegregError(f'{path}: has no list "classes" of objects with a title', hint=SOURCE)
    return tuple(dict.fromkeys(str(title).strip() for title in titles))


def _datasets(folder: Path) -> Iterator[Path]:
    """Return the folders that hold `img` and `ann`; further ones may lie in their folder `datasets`."""
    for inner in sorted(folder.iterdir()):
        if inner.is_dir() and not inner.name.startswith("."):
            if (inner / "img").is_dir() and (inner / "ann").is_dir():
                yield inner
            if (inner / "datasets").is_dir() and not inner.is_symlink():
                yield from _datasets(inner / "datasets")


def _annotations(image: Path) -> Path | None:
    folder = image.parent.parent / "ann"
    return next((file for name in (image.name, image.stem) if (file := folder / f"{name}.json").is_file()), None)


def _shape(item: Any, where: str, titles: tuple[str, ...]) -> Shape:
    """Return an object's shape.

    Raises:
        ValueError: it is not as it should be.
    """
    if not isinstance(item, dict):
        raise ValueError("is not an object")
    title, kind = item.get("classTitle"), item.get("geometryType")
    title = title.strip() if isinstance(title, str) else title
    if title not in titles:
        raise ValueError(f'its class is "{title}", which meta.json does not have; {did_you_mean(str(title), titles)}')
    if kind is None:  # old projects have none
        kind = "bitmap" if item.get("bitmap") else "polygon"
    match kind:
        case "polygon":
            exterior, interior = _points(item)
            outer, *inner = _edges([outline(exterior), *map(outline, interior)])
            return Shape(title, where, kind, (outer,), tuple(hole for hole in inner if extends(hole)))
        case "rectangle":
            exterior, _ = _points(item)
            corners = outline(exterior)
            if len(corners) != 4:
                raise ValueError(f"a rectangle has {len(corners) // 2} points, and two opposite corners were expected")
            (left, right), (top, bottom) = sorted(corners[::2]), sorted(corners[1::2])
            last = 1 if _are_indices(corners) else 0  # the right column and the bottom row are in it
            box = rectangle(left, top, right + last, bottom + last)
            return Shape(title, where, kind, (box,), box=True)
        case "bitmap":
            bitmap = item.get("bitmap")
            if not isinstance(bitmap, dict) or not isinstance(bitmap.get("data"), str):
                raise ValueError("a bitmap has no data")
            origin = bitmap.get("origin")
            if not isinstance(origin, list) or len(origin) != 2:
                raise ValueError(f"a bitmap's origin is {origin}, and [x, y] was expected")
            left, top = (round(number(value, "a bitmap's origin")) for value in origin)
            return Shape(title, where, kind, pixels=partial(_pixels, text=bitmap["data"]), corner=(top, left))
        case str():
            return Shape(title, where, kind)
    raise ValueError(f"its geometryType is {kind}, and a name was expected")


def _points(item: Mapping[str, Any]) -> tuple[Any, list[Any]]:
    points = item.get("points")
    if not isinstance(points, dict) or not isinstance(points.get("interior", []), list):
        raise ValueError("its points are not an object with the lists exterior and interior")
    return points.get("exterior"), points.get("interior", [])


def _are_indices(points: array[float]) -> bool:
    """Whether these are numbers of pixels, as Supervisely exports them, and not fractions, counted from their edges."""
    return all(value.is_integer() for value in points)


def _edges(rings: list[array[float]]) -> list[array[float]]:
    """Return corners as they lie between pixels' edges: a pixel's number means its centre."""
    if not all(map(_are_indices, rings)):
        return rings
    return [array("d", [value + 0.5 for value in ring]) for ring in rings]


def _pixels(most: Size, *, text: str) -> NDArray[np.bool_]:
    limit = 5 * most[0] * most[1] + (1 << 16)  # more than an RGBA PNG of that size without any compression
    try:
        unpacking = zlib.decompressobj()
        data = unpacking.decompress(base64.b64decode(text), limit)
    except (ValueError, zlib.error) as error:
        raise SegregError(f"its bitmap is not zlib in base64 ({error})") from None
    if unpacking.unconsumed_tail:
        raise SegregError(f"its bitmap unpacks to more than {limit} bytes, more than its image could need")
    return png_mask(data, most)


def recognise_supervisely(root: Path) -> list[Recognised]:
    """Return a project, by its meta.json and its folders with img and ann."""
    if '"classes"' not in head(root / "meta.json"):
        return []
    folders = [name for name in listing(root).folders if has(root / name, "img", "ann")]
    if not folders:
        return []
    images = sum(len(listing(root / name / "img").images) for name in folders)
    saw = f"meta.json, and {counted(images, 'image')} in {listed(folders, quote='', most=4)}"
    return [Recognised({"root": root}, saw)]

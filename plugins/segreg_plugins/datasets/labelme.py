"""The dataset `labelme`: masks drawn from LabelMe's JSON files, one for each image."""

from __future__ import annotations

import base64
import math
import tempfile
from array import array
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from segreg.errors import Problem, SegregError, did_you_mean
from segreg.registry.protocols import Dataset, Recognised, Sample
from segreg.runtime.files import expanded, natural_key
from segreg_plugins.datasets.annotation_files import (
    MOST_PROBLEMS,
    inside,
    is_file,
    outline,
    read_json,
    side,
    splits_of,
    unique_ids,
    what_it_holds,
)
from segreg_plugins.datasets.grouping import group_pattern, groups_of
from segreg_plugins.datasets.images import missing_folder
from segreg_plugins.datasets.listing import counted, evenly, head, listing
from segreg_plugins.datasets.masks import read_image
from segreg_plugins.datasets.shapes import (
    Annotated,
    Shape,
    Size,
    png_mask,
    rectangle,
    sample_size,
    shape_dataset,
    shapes_of,
)
from segreg_plugins.datasets.sources import found_root

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SOURCE = "LabelMe writes a.json beside a.jpg; it is at https://github.com/wkentaro/labelme"
_NO_AREA = ("point", "points", "line", "linestrip")


def labelme(
    *,
    root: Path = Path("data/labelme"),
    images: Path | None = None,
    classes: tuple[str, ...] | Mapping[str, tuple[str, ...]] | None = None,
    others: Literal["error", "background", "ignore"] = "error",
    background: str = "background",
    mode: Literal["multiclass", "binary", "multilabel"] = "multiclass",
    boxes: Literal["error", "ignore", "draw", "skip"] = "draw",
    other_shapes: Literal["error", "skip"] = "error",
    size_mismatch: Literal["error", "scale"] = "error",
    groups: str | None = None,
) -> Dataset:
    """LabelMe's JSON files, one for each image: polygons, rectangles, circles and masks, drawn into masks.

    All .json files in `root` and below are taken; images without one are left out. Where they lie in folders named
    train, valid and test, these are the split. An image is looked for at `imagePath` and by its name, beside its file
    or in `images`; without it, the image that the file holds is taken. A pixel belongs to a shape that its centre lies
    in; later shapes lie on top.

    Args:
        root: folder of the JSON files; `imagePath` must stay in it.
        images: folder of the images where they don't lie beside their files, or where `imagePath` leads.
        classes: labels in the order of the classes, or the labels that make up each class, as in
            `{vehicle: [car, bus], person: [person]}`. Null takes all that something is annotated with, in natural
            order.
        others: what labels that `classes` leaves out become: with `background` they are not drawn.
        background: name of what is in no class, the first class of a multiclass task.
        mode: `multiclass` draws the classes over the background, `binary` one class, `multilabel` one layer a class, in
            which classes may overlap.
        boxes: what rectangles become. They lie beneath all else where they are ignored.
        other_shapes: whether points, lines and other shapes without an area are refused, or left out and counted.
        size_mismatch: what is done where an image's size is not the one that its file says: `error` refuses the
            image, `scale` stretches the shapes.
        groups: regular expression, searched in each image's name without extension, whose first group names what must
            not be split.

    Raises:
        SegregError: files are missing or not as they should be, or settings don't fit them.
    """
    pattern = group_pattern(groups)
    root = found_root(root, [], source=SOURCE)
    folder = None if images is None else expanded(images)
    if folder is not None and (problem := missing_folder(folder, "images")):
        raise SegregError.of([problem])
    files = [path for path in root.rglob("*.json") if not any(p.startswith(".") for p in path.relative_to(root).parts)]
    if not files:
        raise SegregError(f"root: {root} holds no .json file", hint=SOURCE)
    files.sort(key=lambda path: natural_key(path.relative_to(root).as_posix()))
    found: dict[Path, Path] = {}
    problems: list[Problem] = []
    for file in files:
        if len(problems) == MOST_PROBLEMS:
            break
        try:
            image = _image_of(file, root, folder)
        except SegregError as error:
            problems += error.problems
            continue
        if image in found:
            problems.append(Problem(f"{file}: its image is {image}, as is that of {found[image]}"))
        found[image] = file
    if problems:
        raise SegregError.of(problems)
    stems = [image.stem for image in found]
    splits = splits_of([file.relative_to(root).parts[0] for file in found.values()])
    ids = unique_ids(list(found.values()), root)
    samples = [
        Sample(name, image, file, group, split)
        for name, (image, file), group, split in zip(ids, found.items(), groups_of(stems, pattern), splits, strict=True)
    ]
    return shape_dataset(
        "labelme",
        samples,
        load_labelme,
        source=root,
        names=None,
        classes=classes,
        others=others,
        background=background,
        mode=mode,
        boxes=boxes,
        other_shapes=other_shapes,
        size_mismatch=size_mismatch,
        read=read_labelme_image,
        size=_size,
    )


def load_labelme(sample: Sample) -> Annotated:
    """Return what is annotated in a LabelMe file.

    Raises:
        SegregError: the file or a shape in it is not as it should be, up to 20 reported at once.
    """
    assert sample.mask is not None
    content = _content(sample.mask)
    height, width = side(content.get("imageHeight")), side(content.get("imageWidth"))
    shapes = shapes_of(sample.mask, "shape", content["shapes"], _shape)
    return Annotated((height, width) if height and width else None, shapes)


def read_labelme_image(sample: Sample) -> NDArray[np.uint8 | np.uint16 | np.float32]:
    """Return a sample's image as its file has it, or where there is none, as the LabelMe file holds it.

    Raises:
        SegregError: it can't be read; the message names the file.
    """
    if is_file(sample.image):
        return read_image(sample)
    assert sample.mask is not None
    try:
        data = base64.b64decode(_content(sample.mask)["imageData"])
    except ValueError as error:
        raise SegregError(f"{sample.mask}: its imageData is not base64 ({error})") from None
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "imageData"
        file.write_bytes(data)
        try:
            return read_image(Sample(sample.id, file))
        except SegregError as error:
            message = str(error).replace(f"{file}:", f"{sample.mask}: its imageData")
            raise SegregError(message) from None


def _size(sample: Sample) -> Size:
    if is_file(sample.image):
        return sample_size(sample)
    height, width = read_labelme_image(sample).shape[:2]
    return height, width


def _content(file: Path) -> dict[str, Any]:
    content = read_json(file)
    if not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
        raise SegregError(
            f"{file}: is not a LabelMe file: it holds {what_it_holds(content)}",
            hint='one holds the list "shapes", "imagePath" and "imageData"; move other .json files elsewhere',
        )
    return content


def _image_of(file: Path, root: Path, folder: Path | None) -> Path:
    """Return the image of a LabelMe file; where it is not there and the file holds it, the path that it would have.

    Raises:
        SegregError: there is neither.
    """
    content = _content(file)
    name = content.get("imagePath")
    if not isinstance(name, str) or not name.strip():
        raise SegregError(f"{file}: its imagePath is {name}, and a file's name was expected")
    plain = name.replace("\\", "/")
    bare = plain.rsplit("/", 1)[-1]
    places = [inside(folder, plain), inside(folder, bare)] if folder is not None else []
    beside = file.parent.absolute()
    places += [inside(root, str(beside / plain)), inside(root, str(beside / bare))]
    for path in places:
        if path is not None and is_file(path):
            return path
    if isinstance(content.get("imageData"), str):
        return file.parent / bare
    where = file.parent if folder is None else f"{folder} or {file.parent}"
    near = did_you_mean(bare, [other.name for other in (folder or file.parent).iterdir() if other.suffix != ".json"])
    raise SegregError(
        f'{file}: its image "{name}" is not in {where}, and the file does not hold it',
        hint=f"{near}\nset images: to the folder of the images; paths that leave root are not followed".strip(),
    )


def _shape(item: Any, where: str) -> Shape:
    """Return a shape.

    Raises:
        ValueError: it is not as it should be.
    """
    if not isinstance(item, dict):
        raise ValueError("is not an object")
    label, kind = item.get("label"), item.get("shape_type") or "polygon"
    if not isinstance(label, str) or not label.strip():
        raise ValueError(f"its label is {label}, and a name was expected")
    label = label.strip()
    if kind in _NO_AREA:
        return Shape(label, where, kind)
    points = outline(item.get("points"))
    match kind:
        case "polygon":
            return Shape(label, where, outlines=(points,))
        case "rectangle" | "rotation" | "oriented_rectangle":  # the last two have four corners
            if len(points) not in (4, 8):
                raise ValueError(f"a rectangle has {len(points) // 2} points, and two opposite corners were expected")
            return Shape(label, where, kind, (rectangle(*points) if len(points) == 4 else points,), box=True)
        case "circle":
            if len(points) != 4:
                raise ValueError(f"a circle has {len(points) // 2} points, and its centre and an edge were expected")
            radius = math.dist(points[:2], points[2:])
            ellipse = (points[0], points[1], radius, radius, 0.0)
            return Shape(label, where, kind, ellipse=ellipse)
        case "mask":
            mask = item.get("mask")
            if not isinstance(mask, str):
                raise ValueError("a mask has no base64 PNG")
            left, top, right, bottom = _box(points)
            pixels = partial(_pixels, text=mask, size=(bottom - top + 1, right - left + 1))
            return Shape(label, where, kind, pixels=pixels, corner=(top, left))
        case str():
            return Shape(label, where, kind)
    raise ValueError(f"its shape_type is {kind}, and a name was expected")


def _box(points: array[float]) -> tuple[int, int, int, int]:
    """Return the left, top, right and bottom of a mask: its first and its last column and row."""
    if len(points) != 4:
        raise ValueError(f"a mask has {len(points) // 2} points, and two opposite corners were expected")
    (left, right), (top, bottom) = sorted(points[::2]), sorted(points[1::2])
    # One that was moved may begin at half a pixel; it keeps its size.
    column, row = math.floor(left + 0.5), math.floor(top + 0.5)
    return column, row, column + round(right - left), row + round(bottom - top)


def _pixels(most: Size, *, text: str, size: Size) -> NDArray[np.bool_]:
    try:
        data = base64.b64decode(text)
    except ValueError as error:
        raise SegregError(f"its mask is not base64 ({error})") from None
    mask = png_mask(data, most)
    if mask.shape != size:
        raise SegregError(
            f"its mask is {mask.shape[0]}x{mask.shape[1]}, and its points are {size[0]}x{size[1]} (height x width)"
        )
    return mask


def recognise_labelme(root: Path) -> list[Recognised]:
    """Return LabelMe's files, in a folder or in those of its splits, by how a few of them begin."""
    folders = [root, *(root / name for name in listing(root).folders)]
    files = [folder / name for folder in folders for name in listing(folder).files if name.lower().endswith(".json")]
    few = evenly(files, 5)
    if not few or not all(all(f'"{key}"' in _ends(file) for key in ("shapes", "imagePath")) for file in few):
        return []
    return [Recognised({"root": root}, f"{counted(len(files), 'file')} of LabelMe's, one for each image")]


def _ends(file: Path) -> str:
    """Return the beginning and the end of a file, which may hold an image in between."""
    try:
        with file.open("rb") as opened:
            opened.seek(max(0, file.stat().st_size - 4096))
            return head(file) + opened.read().decode("utf-8", "replace")
    except OSError:
        return ""

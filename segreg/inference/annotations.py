"""Predicted masks as annotations that labelling programs and other toolkits read: COCO and YOLO."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from segreg.data.images import read_labels
from segreg.inference.inputs import ImageFile
from segreg.inference.writer import Outputs
from segreg.runtime.files import write_text
from segreg.task import BACKGROUND

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Mask = NDArray[np.bool_]

Form = Literal["coco-rle", "coco-polygons", "yolo"]


def write_annotations(form: Form, images: Sequence[ImageFile], outputs: Outputs) -> Path:
    """Write what is in the masks of images, which must be there, and return the file.

    * `coco-rle`: `coco-rle.json`, a compressed run-length mask for each class of an image.
    * `coco-polygons`: `coco-polygons.json`, a polygon for each connected region.
    * `yolo`: `yolo/data.yaml` and `yolo/labels/<name>.txt`, a polygon for each connected region.

    Polygons run along the edges of the pixels, and holes are joined to them by a seam without width: the pixels whose
    centres they enclose an odd number of times are the mask's.

    Raises:
        SegregError: a file can't be written, or a mask can't be read.
    """
    classes = [name for name in outputs.task.classes if name != BACKGROUND]
    return _write_yolo(images, outputs, classes) if form == "yolo" else _write_coco(form, images, outputs, classes)


def coco_regions(form: Form, mask: Mask) -> Iterator[dict[str, Any]]:
    """Yield COCO's `segmentation`, `area` and `bbox` of a mask `[H, W]`: of each connected region, or of all of it.

    Args:
        form: "coco-polygons" are connected regions, and "coco-rle" is all of the mask.
        mask: of a class.
    """
    import numpy as np

    for top, left, region in _regions(mask, connected=form == "coco-polygons"):
        yield {
            "segmentation": [np.add(outline(region), (left, top)).ravel().tolist()]
            if form == "coco-polygons"
            else {"size": list(mask.shape), "counts": compressed(mask)},
            "area": int(region.sum()),
            "bbox": [left, top, region.shape[1], region.shape[0]],
        }


def _write_coco(form: Form, images: Sequence[ImageFile], outputs: Outputs, classes: Sequence[str]) -> Path:
    listed: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, image in enumerate(images, start=1):
        for name, mask in _masks(image, outputs):
            height, width = mask.shape
            if not listed or listed[-1]["id"] != number:
                file_name = Path(image.name).with_name(image.file.name).as_posix()
                listed.append({"id": number, "file_name": file_name, "height": height, "width": width})
            if name not in classes:
                continue
            for region in coco_regions(form, mask):
                place = {"id": len(annotations) + 1, "image_id": number, "category_id": classes.index(name) + 1}
                annotations.append({**place, **region, "iscrowd": 0})
    categories = [{"id": place, "name": name} for place, name in enumerate(classes, start=1)]
    content = {"images": listed, "annotations": annotations, "categories": categories}
    return _written(outputs.folder / f"{form}.json", json.dumps(content, ensure_ascii=False) + "\n")


def _write_yolo(images: Sequence[ImageFile], outputs: Outputs, classes: Sequence[str]) -> Path:
    import numpy as np
    import yaml

    folder = outputs.folder / "yolo"
    for image in images:
        lines = []
        for name, mask in _masks(image, outputs):
            height, width = mask.shape
            for top, left, region in _regions(mask, connected=True) if name in classes else ():
                corners = np.add(outline(region), (left, top)) / (width, height)
                shares = " ".join(f"{share:.7g}" for share in corners.ravel())
                lines.append(f"{classes.index(name)} {shares}\n")
        _written(folder / "labels" / f"{image.name}.txt", "".join(lines))
    content = {"train": "images", "names": dict(enumerate(classes))}
    return _written(folder / "data.yaml", yaml.safe_dump(content, sort_keys=False, allow_unicode=True))


def outline(region: Mask) -> NDArray[np.int64]:
    """Return the corners of a connected region, its holes joined to them by seams without width.

    Shape: bool `[H, W]` to `[N, 2]`, x and y of pixels' edges: pixel (row r, column c) covers x from c to c + 1 and y
    from r to r + 1.
    """
    import numpy as np

    # Each run of edges of one direction, by where it starts and how it goes: the region lies to its right.
    padded = np.pad(region.astype(np.int8), 1)
    rows = _edges(padded[1:, 1:-1] - padded[:-1, 1:-1])
    columns = _edges((padded[1:-1, :-1] - padded[1:-1, 1:]).T)
    across = {(first, line, way): last for line, first, last, way in rows}
    along = {(line, first, way): last for line, first, last, way in columns}
    loops: list[list[tuple[int, int]]] = []
    while across:
        loop: list[tuple[int, int]] = []
        start = at = next(iter(across))
        while True:
            x, y, way = at
            loop.append((x, y))
            x = across.pop(at)
            loop.append((x, y))
            # Where two pixels touch in a corner there are two ways on: to the right keeps them apart.
            way = way if (x, y, way) in along else -way
            y = along.pop((x, y, way))
            at = (x, y, -way)
            if at != start and at not in across:
                at = (x, y, way)
            if at == start:
                break
        loops.append(loop)
    loops.sort(key=min)  # the outermost reaches farthest to the left
    outer, *holes = loops
    return np.array([*outer, *(point for hole in holes for point in (outer[0], *hole, hole[0]))], np.int64)


def compressed(mask: Mask) -> str:
    """Return COCO's compressed run lengths of a mask `[H, W]`, column by column, first those outside."""
    import numpy as np

    values = np.concatenate([[False], mask.T.ravel()])
    turns = np.flatnonzero(values[1:] != values[:-1])
    counts = np.diff(np.concatenate([[0], turns, [mask.size]])).tolist()
    text = []
    for place, count in enumerate(counts):
        value, more = count - counts[place - 2] if place > 2 else count, True
        while more:
            piece = value & 31
            value >>= 5
            more = value != (-1 if piece & 16 else 0)
            text.append(chr(48 + (piece | 32 if more else piece)))
    return "".join(text)


def _edges(steps: NDArray[np.int8]) -> Iterator[tuple[int, int, int, int]]:
    """Yield line, start, end and direction of each run of equal steps in `[lines, cells]`; 1 goes up, -1 down."""
    import numpy as np

    padded = np.pad(steps, ((0, 0), (1, 1)))
    line, at = np.nonzero(np.diff(padded, axis=1))
    way = padded[line, at + 1]
    for start in np.flatnonzero(way):
        first, last = int(at[start]), int(at[start + 1])
        yield int(line[start]), *((first, last) if way[start] > 0 else (last, first)), int(way[start])


def _regions(mask: Mask, *, connected: bool) -> Iterator[tuple[int, int, Mask]]:
    """Yield top, left and pixels of each connected region of a mask, or of the whole of it; of nothing, none."""
    import numpy as np
    from scipy import ndimage

    labels = ndimage.label(mask)[0] if connected else mask.astype(np.int32)
    for number, (rows, columns) in enumerate(ndimage.find_objects(labels), start=1):
        yield rows.start, columns.start, labels[rows, columns] == number


def _masks(image: ImageFile, outputs: Outputs) -> Iterator[tuple[str, Mask]]:
    """Yield each class and its pixels in the mask that was written of an image."""
    task = outputs.task
    found = outputs.files(image.name, raster=image.raster)
    files = [file for kind, file in found.items() if kind.startswith("masks")]
    if task.mode == "multiclass":
        labels = read_labels(files[0])
        yield from ((name, labels == number) for number, name in enumerate(task.classes))
    else:
        masks = (read_labels(file) for file in files)
        yield from (
            (name, mask == 1 if image.raster else mask > 0) for name, mask in zip(task.classes, masks, strict=True)
        )


def _written(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, text)
    return file

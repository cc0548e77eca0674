"""Drawing what is annotated in an image into its mask."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from segreg.errors import SegregError
from segreg.registry.protocols import Objects
from segreg.task import IGNORE_INDEX, Task
from segreg_plugins.datasets.class_choice import NOTHING
from segreg_plugins.datasets.coco_file import Annotation, CocoImage, RunLengths
from segreg_plugins.datasets.masks import upright_size
from segreg_plugins.datasets.polygons import fate_of
from segreg_plugins.datasets.shapes import layered, unwanted_notes

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from segreg.registry.protocols import Sample
    from segreg_plugins.datasets.polygons import Window

Treatment = Literal["ignore", "draw", "skip"]
Size = tuple[int, int]

_LONGEST_WITHOUT_PIXELS = 16
"""Letters of a compressed mask above which it is not looked into."""


@dataclass(frozen=True)
class DrawingRules:
    """How annotations become a mask.

    Attributes:
        crowd: what a crowd's region becomes.
        boxes: what an annotation becomes that has a box and no outline; `error` refuses it.
        overlap: what is drawn first, and so lies beneath.
        size_mismatch: what is done where the image's size is not the one that coordinates refer to.
    """

    crowd: Treatment
    boxes: Literal["error", "ignore", "draw", "skip"]
    overlap: Literal["large_first", "file_order"]
    size_mismatch: Literal["error", "scale"]


@dataclass(frozen=True)
class Drawing:
    """All that is needed to draw the mask of any sample. It can be pickled, and threads may share it.

    Attributes:
        task: the classes.
        rules: how annotations become a mask.
        images: what is annotated in each sample, by the sample's id.
        labels: the label of each category, by the annotation file and the category's id.
    """

    task: Task
    rules: DrawingRules
    images: Mapping[str, CocoImage]
    labels: Mapping[Path, Mapping[int | str, int]]


def read_coco_mask(sample: Sample, *, drawing: Drawing) -> NDArray[np.uint8]:
    """Return the mask of a sample, drawn: uint8 labels `[H, W]`, or 0/1 `[K, H, W]` if multilabel; 255 = ignored.

    What is ignored lies beneath what is drawn.

    Raises:
        SegregError: the image can't be read or has another size than its annotations say, or an annotation can't be
            drawn; the message names the annotation file, the image and the annotation.
    """
    assert sample.mask is not None
    image, labels = drawing.images[sample.id], drawing.labels[sample.mask]
    size = upright_size(sample.image)
    refers_to = image.size or size
    _check_size(sample, refers_to, size, drawing.rules)
    ignored: list[tuple[int, Annotation]] = []
    drawn: list[tuple[float, int, Annotation]] = []
    for annotation in image.annotations:
        label = labels[annotation.category]
        if label == NOTHING or (treatment := _treatment(annotation, sample, drawing.rules)) == "skip":
            continue
        if label == IGNORE_INDEX or treatment == "ignore":
            ignored.append((label, annotation))
        else:
            with _named(annotation, sample):
                drawn.append((_area(annotation), label, annotation))
    if drawing.rules.overlap == "large_first":
        drawn.sort(key=lambda item: -item[0])

    def windows(annotation: Annotation) -> list[Window]:
        with _named(annotation, sample):
            return list(_windows(annotation, refers_to, size))

    beneath, above = ((label, windows(each)) for label, each in ignored), ((n, windows(each)) for _, n, each in drawn)
    return layered(drawing.task, size, beneath, above)


def counted_objects(
    images: Sequence[tuple[Path, CocoImage, Path]],
    labels: Mapping[Path, Mapping[int | str, int]],
    rules: DrawingRules,
    background: Mapping[Path, Collection[int | str]],
) -> Objects:
    """Return how many objects there are, and how many are ignored, left out or cut off.

    Args:
        images: each image's annotation file, what is annotated in it, and its own file.
        labels: the label of each category, by the annotation file and the category's id.
        rules: how annotations become a mask.
        background: the categories that are the background, and so not objects, by the annotation file.
    """
    ignored: Counter[str] = Counter()
    left_out: Counter[str] = Counter()
    unwanted: Counter[int] = Counter()
    total = cut_off = 0
    for file, image, path in images:
        own_size = cache(partial(upright_size, path))
        for annotation in image.annotations:
            label = labels[file][annotation.category]
            if label in (NOTHING, IGNORE_INDEX):
                unwanted[label] += annotation.category not in background[file]
                continue
            total += 1
            marked = annotation.crowd and rules.crowd != "draw"
            treatment = rules.crowd if marked else "draw" if annotation.outlined else rules.boxes
            if treatment != "draw":
                why = "iscrowd is 1; `crowd: draw` draws them" if marked else "they have a box and no outline"
                if not (annotation.outlined or annotation.box):
                    left_out["neither outline nor box"] += 1
                else:
                    (ignored if treatment == "ignore" else left_out)[why] += 1
                continue
            fate = _fate(annotation, image.size, own_size)
            if fate in ("drawn", "cut off"):
                cut_off += fate == "cut off"
            else:
                left_out[fate] += 1
    return Objects(total, dict(ignored), dict(left_out), cut_off, unwanted_notes(unwanted))


def _fate(annotation: Annotation, size: Size | None, own_size: Callable[[], Size]) -> str:
    if annotation.runs is not None:
        try:
            return "drawn" if _has_pixels(annotation.runs) else "masks without a pixel"
        except SegregError:
            return "drawn"  # drawing it reports what is wrong with it
    outlines = annotation.polygons or _corners(annotation)
    if not outlines:
        return "neither outline nor box"
    try:
        return fate_of(outlines, size or own_size())
    except SegregError:
        return "drawn"  # as above


def _has_pixels(runs: RunLengths) -> bool:
    if isinstance(runs.counts, str) and len(runs.counts) > _LONGEST_WITHOUT_PIXELS:
        return True  # a run of pixels takes three counts, but for the first
    return sum(_counts(runs)[1::2]) > 0


def _treatment(annotation: Annotation, sample: Sample, rules: DrawingRules) -> Treatment:
    if annotation.crowd and rules.crowd != "draw":
        return rules.crowd if annotation.outlined or annotation.box else "skip"
    if annotation.outlined:
        return "draw"
    if rules.boxes == "error":
        # The data set has counted and refused them before.
        raise SegregError(f"{sample.mask}: annotation {annotation.id} has no outline")
    return rules.boxes if annotation.box else "skip"


@contextmanager
def _named(annotation: Annotation, sample: Sample) -> Iterator[None]:
    """Name the annotation, its file and its image in what can't be drawn."""
    try:
        yield
    except SegregError as error:
        raise SegregError(f"{sample.mask}: annotation {annotation.id} ({sample.image}): {error}") from None


def _windows(annotation: Annotation, refers_to: Size, size: Size) -> Iterator[Window]:
    """Return the pixels of an annotation, part by part; parts may overlap."""
    import numpy as np

    from segreg_plugins.datasets.polygons import Window, polygon_window
    from segreg_plugins.datasets.rle import pixels_of

    if annotation.runs is not None:
        if annotation.runs.size != refers_to:
            raise SegregError(
                f"its mask is {_hw(annotation.runs.size)}, and its image {_hw(refers_to)} (height x width)"
            )
        inside = pixels_of(_counts(annotation.runs), refers_to)
        if inside.shape != size:  # each pixel takes the one that its centre lies in
            rows, columns = (((2 * np.arange(n) + 1) * m) // (2 * n) for n, m in zip(size, inside.shape, strict=True))
            inside = inside[np.ix_(rows, columns)]
        yield Window(slice(None), slice(None), inside)
        return
    scale = np.array([size[1] / refers_to[1], size[0] / refers_to[0]])
    for polygon in annotation.polygons or _corners(annotation):
        if window := polygon_window(np.frombuffer(polygon).reshape(-1, 2) * scale, size):
            yield window


def _corners(annotation: Annotation) -> list[array[float]]:
    if annotation.box is None:
        return []
    left, top, width, height = annotation.box
    right, bottom = left + width, top + height
    return [array("d", (left, top, right, top, right, bottom, left, bottom))]


def _counts(runs: RunLengths) -> Sequence[int]:
    from segreg_plugins.datasets.rle import counts_of

    return counts_of(runs.counts) if isinstance(runs.counts, str) else runs.counts


def _area(annotation: Annotation) -> float:
    """Return the area that decides the order; files' own "area" is often that of the box."""
    import numpy as np

    from segreg_plugins.datasets.polygons import polygon_area

    if annotation.runs is not None:
        return float(sum(_counts(annotation.runs)[1::2]))
    polygons = annotation.polygons or _corners(annotation)
    return sum(polygon_area(np.frombuffer(polygon).reshape(-1, 2)) for polygon in polygons)


def _check_size(sample: Sample, refers_to: Size, size: Size, rules: DrawingRules) -> None:
    if refers_to == size or rules.size_mismatch == "scale":
        return
    hint = "set size_mismatch: scale if the image was resized after it was annotated"
    if refers_to == size[::-1]:
        hint = (
            "height and width are exchanged: the image may have been turned after it was annotated, or by its Exif "
            "orientation; annotate or export it again"
        )
    raise SegregError(
        f"{sample.mask}: says that {sample.image} is {_hw(refers_to)}, and the file is {_hw(size)} (height x width)",
        hint=hint,
    )


def _hw(size: Size) -> str:
    return f"{size[0]}x{size[1]}"

"""Shapes as annotation programs write them, and the data set and masks that are made of them.

A pixel belongs to a shape that its centre lies in (see `polygons`). Later shapes lie on top of earlier ones.
"""

from __future__ import annotations

import json
import math
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from segreg.errors import Problem, SegregError, listed
from segreg.registry.protocols import Dataset, Objects, Sample
from segreg.runtime.files import natural_key
from segreg.task import IGNORE_INDEX, Task
from segreg_plugins.datasets.annotation_files import MOST_PROBLEMS, first_of
from segreg_plugins.datasets.class_choice import NOTHING, Mode, Others, class_task
from segreg_plugins.datasets.masks import read_image, upright_size
from segreg_plugins.datasets.polygons import Fate, extends, fate_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from segreg_plugins.datasets.polygons import Window

Size = tuple[int, int]
Boxes = Literal["error", "ignore", "draw", "skip"]
OtherShapes = Literal["error", "skip"]

_DRAWING_VERSION = 1
"""Raised whenever the same shapes and settings would give other masks."""


@dataclass(frozen=True)
class Shape:
    """One annotated shape, in one of four forms, or in none where its kind encloses no area.

    Attributes:
        label: what it is annotated as.
        where: its place in the file, as "shape 3".
        kind: what the file calls it: "polygon", "line".
        outlines: polygons that are united, x and y in turns.
        holes: polygons that are cut out of them.
        ellipse: centre x and y, radii along x and y, and degrees that it is turned clockwise.
        pixels: reads a mask, bool `[h, w]`, at most as large as the (height, width) that it is given.
        corner: row and column of the first of the pixels.
        box: whether it is a box around an object.
    """

    label: str
    where: str
    kind: str = "polygon"
    outlines: tuple[array[float], ...] = ()
    holes: tuple[array[float], ...] = ()
    ellipse: tuple[float, float, float, float, float] | None = None
    pixels: Callable[[Size], NDArray[np.bool_]] | None = None
    corner: tuple[int, int] = (0, 0)
    box: bool = False

    @property
    def has_area(self) -> bool:
        """Whether it is of a kind that encloses anything."""
        return bool(self.outlines) or self.ellipse is not None or self.pixels is not None

    @property
    def is_flat(self) -> bool:
        """Whether it encloses nothing, though others of its kind do."""
        if self.ellipse is not None:
            return min(self.ellipse[2:4]) <= 0
        return bool(self.outlines) and not any(map(extends, self.outlines))


@dataclass(frozen=True)
class Annotated:
    """What is annotated in one image.

    Attributes:
        size: (height, width) that coordinates refer to, or None where the file does not say: the image's own then.
            (1, 1) where coordinates are shares of the sides.
        shapes: in the file's order.
    """

    size: Size | None
    shapes: Sequence[Shape]


@dataclass(frozen=True)
class ShapeDrawing:
    """All that is needed to draw the mask of any sample. It can be pickled, and threads may share it.

    Attributes:
        task: the classes.
        labels: the number of each label, `IGNORE_INDEX` or `NOTHING`.
        load: reads what is annotated in a sample.
        size: reads a sample's height and width, upright.
        boxes: what boxes become; `error` has refused them before.
        size_mismatch: what is done where the image's size is not the one that coordinates refer to.
    """

    task: Task
    labels: Mapping[str, int]
    load: Callable[[Sample], Annotated]
    size: Callable[[Sample], Size]
    boxes: Boxes
    size_mismatch: Literal["error", "scale"]


def sample_size(sample: Sample) -> Size:
    """Return the height and width of a sample's image file."""
    return upright_size(sample.image)


def shape_dataset(
    name: str,
    samples: Sequence[Sample],
    load: Callable[[Sample], Annotated],
    *,
    source: Path,
    names: Sequence[str] | None,
    classes: Sequence[str] | Mapping[str, Sequence[str]] | None,
    others: Others,
    background: str,
    mode: Mode,
    boxes: Boxes,
    other_shapes: OtherShapes = "error",
    size_mismatch: Literal["error", "scale"] = "error",
    read: Callable[[Sample], NDArray[np.uint8 | np.uint16 | np.float32]] = read_image,
    size: Callable[[Sample], Size] = sample_size,
    notices: Sequence[str] = (),
) -> Dataset:
    """Return the data set of annotated images, once every annotation file has been read and checked.

    Args:
        name: the data set's, with all that changes what `load` reads from the same files; for the cache.
        samples: the images, with their annotation file as mask.
        load: reads what is annotated in a sample.
        source: the file or folder that messages name where nothing is annotated.
        names: the labels in the order of the classes; natural order where it is None.
        classes: as a recipe has it, and so for what follows.
        read: reads an image.
        size: reads an image's height and width.
        notices: what else is reported with the run.

    Raises:
        SegregError: files are not as they should be, up to 20 reported at once, or settings don't fit them.
    """
    found: Counter[str] = Counter()
    fates: Counter[tuple[str, bool, str]] = Counter()
    boxed: dict[str, list[str]] = defaultdict(list)
    areas: dict[str, list[tuple[str, str]]] = defaultdict(list)
    problems: list[Problem] = []
    for sample in samples:
        try:
            annotated = load(sample)
        except SegregError as error:
            problems += error.problems
            continue
        own_size = cache(partial(size, sample))
        for shape in annotated.shapes:
            if not shape.has_area:
                areas[shape.label].append((shape.kind, f"{shape.where} of {sample.mask}"))
            elif shape.is_flat:
                fates[shape.label, False, "enclose nothing"] += 1
            else:
                found[shape.label] += 1
                fates[shape.label, shape.box, _fate(shape, annotated.size, own_size)] += 1
                if shape.box:
                    boxed[shape.label].append(f"{shape.where} of {sample.mask}")
    if problems:
        raise first_of(problems, source)
    if boxes == "skip":
        found.subtract({label: len(places) for label, places in boxed.items()})
    there = {label for label, count in found.items() if count > 0}
    known = sorted(there, key=natural_key) if names is None else [name for name in names if name in there]
    if not known:
        _refuse_without_area(source, areas, other_shapes)
        raise SegregError(f"{source}: no shape is annotated, so that there is nothing to learn")
    task, labels = class_task(known, classes=classes, mode=mode, background=background, others=others)
    wanted = {label: places for label, places in areas.items() if labels.get(label) != NOTHING}
    _refuse_without_area(source, wanted, other_shapes)
    if boxes == "error":
        _refuse_boxes(source, boxed, labels, found.total())
    kinds = Counter(kind for places in wanted.values() for kind, _ in places)
    objects = _objects(fates, kinds, labels, boxes, background)
    # A shape of a label that is not drawn anywhere is one that is left out: flat, or by `boxes: skip`.
    labels = dict.fromkeys([*boxed, *areas, *(label for label, _, _ in fates)], NOTHING) | labels
    rules = [_DRAWING_VERSION, task.mode, sorted(labels.items()), boxes, size_mismatch]
    return Dataset(
        task,
        samples,
        read,
        partial(read_shape_mask, drawing=ShapeDrawing(task, labels, load, size, boxes, size_mismatch)),
        notice="; ".join(notices),
        reader=f"{name}: {json.dumps(rules)}",
        folders=list(dict.fromkeys(sample.image.parent for sample in samples)),
        objects=objects,
    )


def _fate(shape: Shape, refers_to: Size | None, size: Callable[[], Size]) -> Fate:
    """Return what becomes of a shape in its image; of a mask it is only known whether it begins outside."""
    if refers_to is None or refers_to == (1, 1):
        try:
            real = size()
        except SegregError:
            return "drawn"  # reading the image reports what is wrong with it
    else:
        real = refers_to
    if shape.pixels is not None:
        return "outside the image" if shape.corner[0] >= real[0] or shape.corner[1] >= real[1] else "drawn"
    outlines = shape.outlines if shape.ellipse is None else (_polygon_of(shape.ellipse),)
    if refers_to == (1, 1):
        scale = (real[1], real[0])
        outlines = tuple(array("d", [v * scale[n % 2] for n, v in enumerate(each)]) for each in outlines)
    return fate_of(outlines, real)


def _polygon_of(ellipse: tuple[float, float, float, float, float]) -> array[float]:
    """Return 32 points on an ellipse."""
    x, y, radius_x, radius_y, turned = ellipse
    cos, sin = math.cos(math.radians(turned)), math.sin(math.radians(turned))
    points = array("d")
    for step in range(32):
        along, across = radius_x * math.cos(step * math.pi / 16), radius_y * math.sin(step * math.pi / 16)
        points.extend((x + along * cos - across * sin, y + along * sin + across * cos))
    return points


def _objects(
    fates: Mapping[tuple[str, bool, str], int],
    kinds: Counter[str],
    labels: Mapping[str, int],
    boxes: Boxes,
    background: str,
) -> Objects:
    """Return how many shapes of the classes there are, and what becomes of them."""
    ignored: Counter[str] = Counter()
    left_out = Counter({f"{kind}s have no area": count for kind, count in kinds.items()})
    unwanted: Counter[int] = Counter()
    total, cut_off = kinds.total(), 0
    for (label, box, fate), count in fates.items():
        number = labels.get(label, 0)
        if number in (NOTHING, IGNORE_INDEX):
            unwanted[number] += count if label != background else 0
            continue
        total += count
        if box and boxes in ("ignore", "skip"):
            (ignored if boxes == "ignore" else left_out)[f"boxes without an outline; `boxes: {boxes}`"] += count
        elif fate in ("drawn", "cut off"):
            cut_off += count if fate == "cut off" else 0
        else:
            left_out[fate] += count
    return Objects(total, dict(ignored), dict(left_out), cut_off, unwanted_notes(unwanted))


def unwanted_notes(counts: Mapping[int, int]) -> list[str]:
    """Return a note about objects that are in no class, by the label that they get, `NOTHING` or `IGNORE_INDEX`."""
    become = {NOTHING: "not drawn (`others: background`)", IGNORE_INDEX: "ignored (`others: ignore`)"}
    return [f"{count} more in no class are {become[label]}" for label, count in counts.items() if count]


def read_shape_mask(sample: Sample, *, drawing: ShapeDrawing) -> NDArray[np.uint8]:
    """Return the mask of a sample, drawn: uint8 labels `[H, W]`, or 0/1 `[K, H, W]` if multilabel; 255 = ignored.

    Later shapes lie on top of earlier ones; what is ignored lies beneath what is drawn.

    Raises:
        SegregError: the image can't be read or has another size than its annotations say, or a shape can't be drawn;
            the message names the annotation file, the image and the shape.
    """
    annotated = drawing.load(sample)
    size = drawing.size(sample)
    refers_to = annotated.size or size
    if refers_to != size and drawing.size_mismatch == "error":
        raise SegregError(
            f"{sample.mask}: says that {sample.image} is {refers_to[0]}x{refers_to[1]}, and the file is "
            f"{size[0]}x{size[1]} (height x width)",
            hint="set size_mismatch: scale if the image was resized after it was annotated"
            if refers_to != size[::-1]
            else "height and width are exchanged: the image was turned after it was annotated; annotate it again",
        )
    ignored: list[tuple[int, Shape]] = []
    drawn: list[tuple[int, Shape]] = []
    for shape in annotated.shapes:
        label = drawing.labels[shape.label] if shape.has_area and not shape.is_flat else NOTHING
        if label != NOTHING and not (shape.box and drawing.boxes == "skip"):
            hidden = label == IGNORE_INDEX or (shape.box and drawing.boxes == "ignore")
            (ignored if hidden else drawn).append((label, shape))
    beneath, above = (
        ((label, _windows(shape, sample, refers_to, size)) for label, shape in some) for some in (ignored, drawn)
    )
    return layered(drawing.task, size, beneath, above)


def layered(
    task: Task, size: Size, ignored: Iterable[tuple[int, list[Window]]], drawn: Iterable[tuple[int, list[Window]]]
) -> NDArray[np.uint8]:
    """Return a mask of what is ignored, and of what is drawn on top of it in its order, each a label and its pixels."""
    import numpy as np

    several = task.mode == "multilabel"
    layers = np.zeros((task.channels if several else 1, *size), np.uint8)
    for label, windows in ignored:
        # A crowd or box of one label says nothing of the others; what has no class says nothing of any.
        layer = layers[label : label + 1] if several and label != IGNORE_INDEX else layers
        for window in windows:
            layer[:, window.rows, window.columns][:, window.inside] = IGNORE_INDEX
    for label, windows in drawn:
        one, value = (layers[label], 1) if several else (layers[0], label)
        for window in windows:
            one[window.rows, window.columns][window.inside] = value
    return layers if several else layers[0]


def shapes_of(file: Path, noun: str, items: Sequence[Any], shape: Callable[[Any, str], Shape]) -> list[Shape]:
    """Return the shapes of the items of a file, which `shape` makes of an item and its place, as "shape 3".

    Raises:
        SegregError: `shape` raised a ValueError; up to 20 are reported at once, each with the file and the place.
    """
    shapes, problems = [], []
    for number, item in enumerate(items, start=1):
        try:
            shapes.append(shape(item, f"{noun} {number}"))
        except ValueError as error:
            problems.append(Problem(f"{file}: {noun} {number}: {error}"))
    if problems:
        raise SegregError.of(problems[:MOST_PROBLEMS])
    return shapes


def png_mask(data: bytes, most: Size) -> NDArray[np.bool_]:
    """Return the pixels of a PNG that are not transparent where it has transparency, and not 0 where it has none.

    Raises:
        SegregError: it is not a PNG of one channel or with alpha, is damaged, or larger than `most` (height, width).
    """
    import io

    import numpy as np
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            width, height = image.size
            if height > most[0] or width > most[1]:
                raise SegregError(
                    f"its mask is {height}x{width}, and the image it lies in {most[0]}x{most[1]} (height x width)"
                )
            if image.has_transparency_data:
                return np.array(image.convert("RGBA").getchannel("A")) > 0
            if image.mode not in ("1", "L", "P", "I;16", "I"):
                raise SegregError(f'its mask is a PNG of "{image.mode}" colours, and one channel or alpha was expected')
            return np.array(image) != 0
    except SegregError:
        raise
    except Exception as error:  # on damaged files decoders raise whatever they stumble over
        raise SegregError(f"its mask is not a PNG that can be decoded ({error})") from None


def rectangle(left: float, top: float, right: float, bottom: float, turned: float = 0) -> array[float]:
    """Return the corners of a rectangle, turned clockwise around its first one by so many degrees."""
    cos, sin = math.cos(math.radians(turned)), math.sin(math.radians(turned))
    offsets = ((0.0, 0.0), (right - left, 0.0), (right - left, bottom - top), (0.0, bottom - top))
    if not turned:
        cos, sin = 1.0, 0.0
    return array("d", [v for x, y in offsets for v in (left + x * cos - y * sin, top + x * sin + y * cos)])


def _windows(shape: Shape, sample: Sample, refers_to: Size, size: Size) -> list[Window]:
    """Return the pixels of a shape, part by part; parts may overlap.

    Raises:
        SegregError: it can't be drawn; the message names the annotation file, the shape and the image.
    """
    try:
        return list(_parts(shape, refers_to, size))
    except SegregError as error:
        raise SegregError(f"{sample.mask}: {shape.where} ({sample.image}): {error}") from None


def _parts(shape: Shape, refers_to: Size, size: Size) -> Iterator[Window]:
    import numpy as np

    from segreg_plugins.datasets.polygons import Window, polygon_window

    scale = (size[1] / refers_to[1], size[0] / refers_to[0])
    if shape.pixels is not None:
        window = _placed(shape.pixels(refers_to), shape.corner, refers_to, size)
        yield from [window] if window else []
        return
    if shape.ellipse is not None:
        yield _ellipse(shape.ellipse, scale, size)
        return
    corners = (np.frombuffer(part).reshape(-1, 2) for part in (*shape.outlines, *shape.holes))
    windows = [polygon_window(part * np.array(scale), size) for part in corners]
    if not shape.holes:
        yield from (window for window in windows if window)
        return
    whole = np.zeros(size, np.bool_)
    for number, window in enumerate(windows):
        if window:
            whole[window.rows, window.columns][window.inside] = number < len(shape.outlines)
    yield Window(slice(None), slice(None), whole)


def _placed(inside: NDArray[np.bool_], corner: tuple[int, int], refers_to: Size, size: Size) -> Window | None:
    """Return the window of a mask that lies at `corner`; each pixel takes the one that its centre lies in."""
    import numpy as np

    from segreg_plugins.datasets.polygons import Window

    slices, taken = [], []
    for n, m, first, length in zip(size, refers_to, corner, inside.shape, strict=True):
        source = ((2 * np.arange(n) + 1) * m) // (2 * n) - first
        there = np.flatnonzero((source >= 0) & (source < length))
        if not len(there):
            return None
        slices.append(slice(int(there[0]), int(there[-1]) + 1))
        taken.append(source[there])
    return Window(slices[0], slices[1], inside[np.ix_(*taken)])


def _ellipse(ellipse: tuple[float, float, float, float, float], scale: tuple[float, float], size: Size) -> Window:
    import numpy as np

    from segreg_plugins.datasets.polygons import Window

    x, y, radius_x, radius_y, turned = ellipse
    reach = max(radius_x, radius_y)
    slices, centres = [], []
    for middle, factor, length in ((y, scale[1], size[0]), (x, scale[0], size[1])):
        first = min(max(math.floor((middle - reach) * factor), 0), length)
        last = min(max(math.ceil((middle + reach) * factor), first), length)
        slices.append(slice(first, last))
        centres.append((np.arange(first, last) + 0.5) / factor - middle)
    down, right = centres[0][:, None], centres[1][None, :]
    cos, sin = math.cos(math.radians(turned)), math.sin(math.radians(turned))
    along, across = right * cos + down * sin, down * cos - right * sin
    return Window(slices[0], slices[1], (along / radius_x) ** 2 + (across / radius_y) ** 2 <= 1)


def _refuse_without_area(
    source: Path, areas: Mapping[str, Sequence[tuple[str, str]]], other_shapes: OtherShapes
) -> None:
    found = [item for places in areas.values() for item in places]
    if not found or other_shapes == "skip":
        return
    kinds = Counter(kind for kind, _ in found)
    raise SegregError(
        f"{source}: {len(found)} shapes enclose no area, {_counted(kinds)}: "
        f"{listed([place for _, place in found], quote='', most=3)}",
        hint="set other_shapes: skip to leave them out, or draw them as polygons",
    )


def _refuse_boxes(source: Path, boxed: Mapping[str, Sequence[str]], labels: Mapping[str, int], total: int) -> None:
    places = [place for label, those in boxed.items() if labels[label] != NOTHING for place in those]
    if places:
        raise SegregError(
            f"{source}: {len(places)} of {total} annotations are boxes without an outline: "
            f"{listed(places, quote='', most=3)}",
            hint="set boxes: ignore (pixels in the box count for nothing), draw (the box is the object) or skip (it is "
            "not there), or export outlines",
        )


def _counted(kinds: Counter[str]) -> str:
    return listed([f"{count} {kind}" for kind, count in kinds.most_common()], quote="")

"""What a dataset holds, in the numbers that a recipe's settings follow from: sizes, classes, objects, symmetry, copies.

Of a large dataset a sample is read, drawn by a seed, and the fingerprint says so.
"""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segreg.config.sections import Input
from segreg.data.images import as_known_type, fit_channels
from segreg.data.inspection.leaks import alike_pairs
from segreg.data.inspection.scan import ClassShare, Scanned, class_shares, read_each, scan_sample, suggested_weights
from segreg.data.resize import format_size
from segreg.data.split import SPLITS, SplitName, drawn
from segreg.data.values import common_dtype
from segreg.errors import SegregError
from segreg.registry.protocols import Dataset, Sample
from segreg.runtime.progress import Progress
from segreg.task import BACKGROUND, IGNORE_INDEX, Task, label_names

MOST_READ = 1000
"""Images of which a fingerprint is taken at most."""
SMALLEST_OBJECT = 4
"""Pixels below which a region is a speck, not an object."""
MOST_COMPARED = 2000
"""Images that are compared with each other at most."""


@dataclass(frozen=True)
class ObjectSizes:
    """The objects of one class, regions of 8-connected pixels, in pixels of the images as they are.

    Diameters are those of disks of the objects' areas. Specks at the borders of large objects are many and hold next to
    nothing, so that objects count by their area: half of the class's pixels are in objects below the median.

    Attributes:
        count: objects in the images that were read.
        per_image: median of the images that show the class.
        small: diameter below which a tenth of the class's pixels lies.
        median: diameter below which half of them lies.
        thickness: of the objects' widest places, likewise half.
    """

    count: int
    per_image: float
    small: float
    median: float
    thickness: float


@dataclass(frozen=True)
class Fingerprint:
    """What a dataset holds.

    Attributes:
        images: all of them.
        read: those that were read.
        seed: by which they were drawn, where not all were.
        task: the classes.
        splits: images of each split that the dataset has of its own.
        groups: groups of images that no split divides; 0 where it names none.
        sizes: how many images have each height and width, the most frequent first.
        channels: of the images.
        dtype: of their values: uint8, uint16 or float32.
        grey: share of the images whose channels are equal.
        shares: each label's share of pixels and images.
        weights: for a loss, by formula, as `segreg data check` suggests them.
        objects: of each class but the background, by its name; those without an object are left out.
        upright: how unevenly the classes lie above and below an image's middle, 0 to 1.
        sideways: the same, left and right.
        alike: pairs of images that show the same thing and have no group in common.
        alike_images: images among them.
        across: such pairs in two splits of the dataset's own.
        ignored: share of the pixels that count for nothing.
        faults: why training would refuse samples.
    """

    images: int
    read: int
    seed: int
    task: Task
    splits: Mapping[SplitName, int]
    groups: int
    sizes: Mapping[tuple[int, int], int]
    channels: int
    dtype: str
    grey: float
    shares: Sequence[ClassShare]
    weights: Mapping[str, Sequence[float | None]]
    objects: Mapping[str, ObjectSizes]
    upright: float
    sideways: float
    alike: int = 0
    alike_images: int = 0
    across: int = 0
    ignored: float = 0.0
    faults: Sequence[str] = field(default=())

    @property
    def height(self) -> int:
        """Return the median height."""
        return self._median(0)

    @property
    def width(self) -> int:
        """Return the median width."""
        return self._median(1)

    @property
    def aspects(self) -> tuple[float, float]:
        """Return the least and the largest of width by height."""
        found = [width / height for height, width in self.sizes]
        return min(found), max(found)

    def _median(self, axis: int) -> int:
        return int(np.median(np.repeat([size[axis] for size in self.sizes], list(self.sizes.values()))))

    def as_data(self) -> dict[str, Any]:
        """Return it as plain values for JSON."""
        values = {each.name: getattr(self, each.name) for each in dataclasses.fields(self)}
        return values | {
            "task": {"mode": self.task.mode, "classes": list(self.task.classes)},
            "splits": dict(self.splits),
            "sizes": {format_size(size): count for size, count in self.sizes.items()},
            "shares": [dataclasses.asdict(share) for share in self.shares],
            "weights": {name: list(values) for name, values in self.weights.items()},
            "objects": {name: dataclasses.asdict(sizes) for name, sizes in self.objects.items()},
            "faults": list(self.faults),
        }


@dataclass(frozen=True, eq=False)
class _Measured:
    """One sample's numbers: what `scan` finds, its objects' areas and widths, and each label's pixels in each half."""

    scanned: Scanned
    areas: Mapping[int, NDArray[np.float64]]
    halves: NDArray[np.float64]
    ignored: float


def fingerprint(dataset: Dataset, *, progress: Progress, most: int = MOST_READ, seed: int = 0) -> Fingerprint:
    """Return a dataset's fingerprint; of more than `most` images, that of as many, drawn by the seed.

    Raises:
        SegregError: there is no image, or none that can be read.
    """
    if not dataset.samples:
        raise SegregError("the dataset has no image")
    by_id = {sample.id: index for index, sample in enumerate(dataset.samples)}
    chosen = sorted(by_id[name] for name in drawn(by_id, seed)[:most]) if len(by_id) > most else list(by_id.values())
    section = _section(dataset, chosen)
    measured = read_each(
        lambda index: _measure(dataset, section, index), chosen, "taking the fingerprint", progress=progress
    )
    readable = [one.scanned for one in measured if not one.scanned.faults]
    faults = [fault.message for one in measured for fault in one.scanned.faults]
    if not readable:
        raise SegregError(f"none of the {len(chosen)} images that were read can be trained on: {faults[0]}")
    task = dataset.task
    with progress.watch("comparing images", None, "images"):
        pairs = _alike(dataset, readable[:MOST_COMPARED])
    own = Counter(sample.split for sample in dataset.samples)
    files = {one.dtype: dataset.samples[one.index].image for one in readable if one.dtype is not None}
    sizes = Counter(one.size for one in readable if one.size is not None)
    upright, sideways = _asymmetry(measured, task)
    return Fingerprint(
        images=len(dataset.samples),
        read=len(chosen),
        seed=seed,
        task=task,
        splits={split: own[split] for split in SPLITS if own[split]},
        groups=len({sample.group for sample in dataset.samples if sample.group is not None}),
        sizes=dict(sizes.most_common()),
        channels=section.channels,
        dtype=common_dtype(files),
        grey=sum(", grey" in one.format or one.format.startswith("1 ") for one in readable) / len(readable),
        shares=class_shares(readable, task),
        weights=suggested_weights(readable, task),
        objects=_objects(measured, task),
        upright=upright,
        sideways=sideways,
        alike=len(pairs),
        alike_images=len({index for pair in pairs for index in pair}),
        across=sum(dataset.samples[a].split != dataset.samples[b].split for a, b in pairs),
        ignored=float(np.mean([one.ignored for one in measured if not one.scanned.faults])),
        faults=faults,
    )


def _section(dataset: Dataset, chosen: Sequence[int]) -> Input:
    """Return a recipe's section for the channels of the first image that can be read.

    They are 3 for grey, colours, and colours with a full alpha.
    """
    for sample in (dataset.samples[index] for index in chosen):
        try:
            image = as_known_type(np.asarray(dataset.read_image(sample)), sample.image)
        except Exception:  # noqa: S112 - reported with all others that can't be read
            continue
        channels = 1 if image.ndim == 2 else image.shape[2]
        try:
            fit_channels(image, 3, sample.image)
        except SegregError:
            return Input(channels=channels)
        break
    return Input()


def _measure(dataset: Dataset, section: Input, index: int) -> _Measured:
    """Read one sample once."""
    kept: list[NDArray[np.uint8]] = []

    def read_mask(sample: Sample) -> NDArray[np.uint8]:
        kept.append(np.asarray(dataset.read_mask(sample)))
        return kept[-1]

    scanned = scan_sample(dataclasses.replace(dataset, read_mask=read_mask), section, index)
    labels = dataset.task.label_count
    if scanned.faults or not kept:
        return _Measured(scanned, {}, np.zeros((4, labels)), 0.0)
    mask = kept[0]
    layers = _layers(mask, dataset.task)
    areas = {label: found for label, layer in layers.items() if len(found := _regions(layer))}
    return _Measured(scanned, areas, _halves(mask, dataset.task), float((mask == IGNORE_INDEX).mean()))


def _layers(mask: NDArray[np.uint8], task: Task) -> dict[int, NDArray[np.bool_]]:
    """Return where each class but the background is, by its label."""
    if task.mode == "multilabel":
        return {label: mask[label] == 1 for label in range(len(task.classes))}
    names = label_names(task)
    return {int(k): mask == k for k in np.unique(mask) if k != IGNORE_INDEX and names[k].lower() != BACKGROUND}


def _regions(layer: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the area and the width of each region that is not a speck, float64 `[N, 2]`."""
    import cv2

    if not layer.any():
        return np.zeros((0, 2))
    count, labels, stats, _ = cv2.connectedComponentsWithStats(layer.astype(np.uint8), connectivity=8)
    padded = np.pad(layer.astype(np.uint8), 1)
    distance = cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
    widest = np.zeros(count)
    np.maximum.at(widest, labels[layer], distance[layer])
    found = np.stack([stats[1:, cv2.CC_STAT_AREA], 2 * widest[1:] - 1], axis=1).astype(np.float64)
    return found[found[:, 0] >= SMALLEST_OBJECT]


def _objects(measured: Sequence[_Measured], task: Task) -> dict[str, ObjectSizes]:
    areas: dict[int, list[NDArray[np.float64]]] = defaultdict(list)
    for one in measured:
        for label, found in one.areas.items():
            areas[label].append(found)
    sizes = {}
    for label in sorted(areas):
        every = np.concatenate(areas[label])
        diameters = np.sqrt(4 * every[:, 0] / np.pi)
        sizes[label_names(task)[label]] = ObjectSizes(
            count=len(every),
            per_image=float(np.median([len(found) for found in areas[label]])),
            small=_weighted_quantile(diameters, every[:, 0], 0.1),
            median=_weighted_quantile(diameters, every[:, 0], 0.5),
            thickness=_weighted_quantile(every[:, 1], every[:, 0], 0.5),
        )
    return sizes


def _weighted_quantile(values: NDArray[np.float64], weights: NDArray[np.float64], share: float) -> float:
    """Return the value up to which that share of the weight lies, to a tenth."""
    order = np.argsort(values)
    reached = np.cumsum(weights[order])
    return round(float(values[order][np.searchsorted(reached, share * reached[-1])]), 1)


def _halves(mask: NDArray[np.uint8], task: Task) -> NDArray[np.float64]:
    """Return each label's pixels in the upper, lower, left and right half, `[4, L]`; a middle row is in neither."""
    height, width = mask.shape[-2:]
    parts = (
        mask[..., : height // 2, :], mask[..., height - height // 2 :, :],
        mask[..., :, : width // 2], mask[..., :, width - width // 2 :],
    )  # fmt: skip
    count = task.label_count
    if task.mode == "multilabel":
        return np.array([(part == 1).sum(axis=(1, 2)) for part in parts], np.float64)
    return np.array([np.bincount(part.ravel(), minlength=256)[:count] for part in parts], np.float64)


def _asymmetry(measured: Sequence[_Measured], task: Task) -> tuple[float, float]:
    """Return how unevenly classes lie above and below, and left and right: `|a - b| / (a + b)` of their pixels.

    It is the mean over the classes that ten images show, or all where none is in so many; without the background.
    """
    names = label_names(task)
    halves = sum((one.halves for one in measured), np.zeros((4, len(names))))
    shown = sum(((one.halves.sum(axis=0) > 0).astype(int) for one in measured), np.zeros(len(names), int))
    own = np.array([name.lower() != BACKGROUND for name in names])
    chosen = own & (shown >= 10)
    chosen = chosen if chosen.any() else own & (shown > 0)

    def uneven(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
        # A class that the middle row alone shows is in neither half.
        return float(np.mean(np.abs(a - b)[chosen] / np.maximum(a + b, 1)[chosen])) if chosen.any() else 0.0

    return uneven(halves[0], halves[1]), uneven(halves[2], halves[3])


def _alike(dataset: Dataset, scanned: Sequence[Scanned]) -> list[tuple[int, int]]:
    """Return the pairs of samples that show the same thing and have no group in common."""
    found = alike_pairs([one.thumbnail for one in scanned if one.thumbnail is not None])
    both = [(scanned[pair.first].index, scanned[pair.second].index) for pair in found]
    groups = [sample.group for sample in dataset.samples]
    return [(a, b) for a, b in both if groups[a] is None or groups[a] != groups[b]]

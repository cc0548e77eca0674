"""What each sample's files hold, read once: sizes, digests, what is wrong with them, and each class's share."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segreg.config.sections import Input
from segreg.data.cache import allowed_labels, array_digest, in_threads, label_counts, read_sample, wrong_labels
from segreg.data.images import drops_alpha, is_readable
from segreg.data.resize import fit_mask, format_size
from segreg.data.values import DtypeName, as_shown, own_dtype
from segreg.errors import SegregError, listed, plural
from segreg.registry.protocols import Dataset
from segreg.runtime.progress import Progress
from segreg.task import Task, label_names

Item = TypeVar("Item")
Read = TypeVar("Read")
SIDE = 64
"""Height and width of a thumbnail."""


@dataclass(frozen=True)
class SampleProblem:
    """Why training would refuse a sample.

    Attributes:
        name: "image-unreadable", "mask-missing", "mask-unreadable", "mask-values", "sizes-differ" or "unfit".
        message: what is wrong, with the file's name.
    """

    name: str
    message: str


@dataclass(frozen=True, eq=False)
class Scanned:
    """One sample's files in a few numbers.

    Attributes:
        index: into `Dataset.samples`.
        faults: why training would refuse it; the other attributes are None or empty where its files can't be read.
        size: height and width in pixels.
        format: channels and depth, such as "3 channels, 8 bits".
        blank: whether all of the image has one value.
        image_digest: of the image's values, whatever file holds them.
        mask_digest: of the labels.
        thumbnail: the image, small, square and grey.
        pixels: pixels of each label (`label_names`), int64 `[L]`, at the mask's own size.
        counted: pixels that are not ignored, int64 `[L]`: for each class its own if multilabel.
        area: all pixels of the mask.
        lost: labels that the mask has and that are gone at the input's size.
        dtype: the type that the image's values have of themselves, or that `input.dtype` names.
        drops_alpha: whether the image has an alpha channel that the network does not get.
        ranges: the least and the largest value of each channel of valid pixels, before it is resized.
        invalid: share of the pixels that hold nothing, and are ignored.
    """

    index: int
    faults: tuple[SampleProblem, ...] = ()
    size: tuple[int, int] | None = None
    format: str = ""
    blank: bool = False
    image_digest: str = ""
    mask_digest: str = ""
    thumbnail: NDArray[np.uint8] | None = None
    pixels: NDArray[np.int64] | None = None
    counted: NDArray[np.int64] | None = None
    area: int = 0
    lost: tuple[int, ...] = ()
    dtype: DtypeName | None = None
    drops_alpha: bool = False
    ranges: tuple[tuple[float, float], ...] = ()
    invalid: float = 0.0


def scan(dataset: Dataset, input: Input, indices: Sequence[int], *, progress: Progress) -> list[Scanned]:
    """Read samples in threads, one after the other thrown away, and return what they hold in the order of `indices`."""
    return read_each(lambda index: scan_sample(dataset, input, index), indices, "reading images", progress=progress)


def read_each(
    read: Callable[[Item], Read], items: Sequence[Item], words: str, *, progress: Progress, unit: str = "images",
    **limits: Any,
) -> list[Read]:  # fmt: skip
    """Return what `read` returns for each item, called in threads; for `limits` see `in_threads`."""
    with progress.watch(words, len(items), unit) as advance:
        return in_threads(read, items, lambda *_: advance(), **limits)


def scan_sample(dataset: Dataset, input: Input, index: int) -> Scanned:
    """Read one sample."""
    sample, task = dataset.samples[index], dataset.task
    faults: list[SampleProblem] = []
    image, problem = _read(lambda: np.asarray(dataset.read_image(sample)), sample.image)
    if image is None:
        faults.append(SampleProblem("image-unreadable", problem))
    mask = None
    if sample.mask is None:
        faults.append(SampleProblem("mask-missing", f"{sample.image}: has no mask"))
    else:
        mask, problem = _read(lambda: np.asarray(dataset.read_mask(sample)), sample.mask)
        if mask is None:
            # The data set refuses it: is the file damaged, or does it hold what is not a class?
            faults.append(SampleProblem("mask-values" if is_readable(sample.mask) else "mask-unreadable", problem))
    if image is not None and mask is not None:
        if image.shape[:2] != mask.shape[-2:]:
            sizes = f"is {format_size(image.shape[:2])} but its mask {sample.mask} is {format_size(mask.shape[-2:])}"
            faults.append(SampleProblem("sizes-differ", f"{sample.image}: {sizes} (height x width)"))
        elif mask.dtype != np.uint8:
            message = f"{sample.mask}: holds values of type {mask.dtype}; labels are uint8"
            faults.append(SampleProblem("mask-values", message))
        elif wrong := wrong_labels(mask, task):
            values = listed([str(value) for value in wrong], quote="")
            faults.append(SampleProblem("mask-values", f"{sample.mask}: holds {values}; {allowed_labels(task)}"))
    of_values: dict[str, Any] = {}
    alpha = image is not None and drops_alpha(image, input.channels, sample.image)
    labels = mask
    if image is not None and mask is not None and not faults:
        read = dataclasses.replace(dataset, read_image=lambda _: image, read_mask=lambda _: mask)
        try:
            whole, labels, _, invalid = read_sample(read, sample, input)
            of_values = {
                "dtype": own_dtype(image, input) if input.dtype == "auto" else input.dtype,
                "ranges": tuple(zip(whole.min(axis=(0, 1)).tolist(), whole.max(axis=(0, 1)).tolist(), strict=True)),
                "invalid": 0.0 if invalid is None else float(invalid.mean()),
                "lost": tuple(np.flatnonzero(_shows(labels, task) & ~_shows(fit_mask(labels, input), task)).tolist()),
            }
        except SegregError as error:
            faults += [SampleProblem("unfit", str(problem)) for problem in error.problems]
    return Scanned(index, tuple(faults), drops_alpha=alpha, **of_values, **_facts(image, labels, task))


def thumbnail(image: NDArray[Any]) -> NDArray[np.uint8]:
    """Return a small grey image, stretched to a square; of more bits as it is shown (`as_shown`).

    Shape: `[H, W]` or `[H, W, C]` of any type to uint8 `[64, 64]`.
    """
    values = image.astype(np.uint8) * np.uint8(255) if image.dtype == np.bool_ else image
    channels = as_shown(values[..., np.newaxis] if values.ndim == 2 else values[..., :3])
    planes = [Image.fromarray(np.ascontiguousarray(channels[..., c])) for c in range(channels.shape[2])]
    small = [np.asarray(plane.resize((SIDE, SIDE), Image.Resampling.BOX), np.float32) for plane in planes]
    return np.mean(small, axis=0).round().astype(np.uint8)


def _read(read: Callable[[], NDArray[Any]], file: Path) -> tuple[NDArray[Any] | None, str]:
    """Return the values that are read, or None and why there are none."""
    try:
        values = read()
        if values.ndim < 2 or 0 in values.shape or values.dtype.kind not in "buif":
            raise SegregError(f"the data set gave an array of shape {list(values.shape)} and type {values.dtype}")
    except Exception as error:  # decoders and plugins raise whatever they stumble over
        problems = error.problems if isinstance(error, SegregError) else ()
        message = "\n".join(map(str, problems)) or f"can't be read: {type(error).__name__}: {error}"
        return None, message if str(file) in message else f"{file}: {message}"
    return values, ""


def _facts(image: NDArray[Any] | None, mask: NDArray[Any] | None, task: Task) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    if image is not None and image.ndim in (2, 3):
        facts |= {
            "size": (int(image.shape[0]), int(image.shape[1])),
            "format": _format(image),
            "blank": bool((image == image.reshape(-1, *image.shape[2:])[0]).all()),
            "image_digest": array_digest(image[..., 0] if image.ndim == 3 and image.shape[2] == 1 else image),
            "thumbnail": thumbnail(image),
        }
    if mask is not None and mask.dtype == np.uint8:
        facts |= {"mask_digest": array_digest(mask)}
        if mask.ndim == (3 if task.mode == "multilabel" else 2):
            facts |= dict(zip(("pixels", "counted"), _counts(mask, task), strict=True))
            facts["area"] = mask.shape[-2] * mask.shape[-1]
    return facts


def _counts(mask: NDArray[np.uint8], task: Task) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    labels, found = task.label_count, label_counts(mask, task)
    return found[:labels], np.broadcast_to(mask.shape[-2] * mask.shape[-1] - found[labels:], labels)


def _shows(mask: NDArray[np.uint8], task: Task) -> NDArray[np.bool_]:
    """Return which labels a mask shows, bool `[L]`."""
    return _counts(mask, task)[0] > 0


def _format(image: NDArray[Any]) -> str:
    channels = 1 if image.ndim == 2 else image.shape[2]
    grey = channels == 3 and bool((image[..., :1] == image).all())
    words = f"{plural(channels, 'channel')}, {image.dtype.itemsize * 8} bits"
    words += " (floating point)" if image.dtype.kind == "f" else ""
    return words + (", grey" if grey else "")


# how much of the images each class takes, and the weights in a loss that would even it out

FORMULAS = {
    "median_frequency": "median of all f / f of the class, where f is the class's share of the pixels of those "
    "images that show it (arXiv:1411.4734)",
    "inverse_frequency": "pixels / (classes with pixels x pixels of the class), scikit-learn's `balanced`",
    "positive_weight": "pixels without the class / pixels with it",
}
"""What the suggested weights are; all are those of the training split alone."""


@dataclass(frozen=True)
class ClassShare:
    """What one class has of some images.

    Attributes:
        name: the class.
        pixels: its pixels.
        share: its share of all pixels that are not ignored; 0 where there are none.
        images: images that show it.
        image_share: its share of the images.
    """

    name: str
    pixels: int
    share: float
    images: int
    image_share: float


def class_shares(scanned: Sequence[Scanned], task: Task) -> list[ClassShare]:
    """Return every label's share of the images whose masks could be read."""
    names = label_names(task)
    each, of = counts_of(scanned, task)
    pixels, counted, images, readable = each.sum(axis=0), of.sum(axis=0), (each > 0).sum(axis=0), len(each)
    return [
        ClassShare(
            name, int(pixels[k]), float(pixels[k] / counted[k]) if counted[k] else 0.0,
            int(images[k]), float(images[k] / readable) if readable else 0.0,
        )
        for k, name in enumerate(names)
    ]  # fmt: skip


def suggested_weights(scanned: Sequence[Scanned], task: Task) -> dict[str, list[float | None]]:
    """Return weights by formula, see `FORMULAS`; None for a class that has no pixel.

    Multiclass tasks get one weight a class by two formulas, the others each class's `positive_weight`.
    """
    count = task.label_count
    each, of = counts_of(scanned, task)
    pixels, counted = each.sum(axis=0), of.sum(axis=0)
    if task.mode != "multiclass":
        chosen = range(1, 2) if task.mode == "binary" else range(count)
        return {"positive_weight": [_ratio(counted[k] - pixels[k], pixels[k]) for k in chosen]}
    around = np.where(each > 0, of, 0).sum(axis=0)
    frequency = np.divide(pixels, around, out=np.full(count, np.nan), where=around > 0)
    middle = float(np.nanmedian(frequency)) if (around > 0).any() else 0.0
    there = int((pixels > 0).sum())
    return {
        "median_frequency": [_ratio(middle, frequency[k]) for k in range(count)],
        "inverse_frequency": [_ratio(counted[k], there * pixels[k]) for k in range(count)],
    }


def counts_of(scanned: Sequence[Scanned], task: Task) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return `Scanned.pixels` and `Scanned.counted` of the masks that could be read, int64 `[N, L]` each."""
    known = [(one.pixels, one.counted) for one in scanned if one.pixels is not None]
    pixels, counted = np.array(known, np.int64).reshape(-1, 2, task.label_count).transpose(1, 0, 2)
    return pixels, counted


def _ratio(above: float, below: float) -> float | None:
    return float(f"{above / below:.4g}") if np.isfinite(below) and below > 0 else None

"""What each sample's files hold, read once: sizes, classes, digests, and whatever is wrong with them."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from segreg.config.sections import Input
from segreg.data.cache import fitted_sample, wrong_labels
from segreg.data.images import read_labels
from segreg.errors import SegregError, listed
from segreg.registry.protocols import Dataset, Sample
from segreg.runtime.progress import Progress
from segreg.task import IGNORE_INDEX, Task

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

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
        pixels: pixels of each label (`labels_of`), int64 `[L]`, at the mask's own size.
        counted: pixels that are not ignored, int64 `[L]`: for each class its own if multilabel.
        lost: labels that the mask has and that are gone at the input's size.
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
    lost: tuple[int, ...] = ()


def labels_of(task: Task) -> tuple[str, ...]:
    """Return the name of each label whose pixels are counted: a binary task's background is the first."""
    return ("background", *task.classes) if task.mode == "binary" else task.classes


def scan(
    dataset: Dataset,
    input: Input,  # noqa: A002
    indices: Sequence[int],
    *,
    progress: Progress,
    workers: int | None = None,
) -> list[Scanned]:
    """Read samples in threads, one after the other thrown away, and return what they hold in the order of `indices`."""
    found: dict[int, Scanned] = {}
    pool = ThreadPoolExecutor(workers or min(8, os.cpu_count() or 1))
    try:
        with progress.watch("reading images", len(indices), "images") as advance:
            waiting = [pool.submit(scan_sample, dataset, input, index) for index in indices]
            for future in as_completed(waiting):
                scanned = future.result()
                found[scanned.index] = scanned
                advance()
    finally:
        pool.shutdown(cancel_futures=True)
    return [found[index] for index in indices]


def scan_sample(dataset: Dataset, input: Input, index: int) -> Scanned:  # noqa: A002
    """Read one sample."""
    sample, task = dataset.samples[index], dataset.task
    faults: list[SampleProblem] = []
    image = _read(lambda: np.asarray(dataset.read_image(sample)), sample.image, "image-unreadable", faults)
    mask = None
    if sample.mask is None:
        faults.append(SampleProblem("mask-missing", f"{sample.image}: has no mask"))
    else:
        mask = _read(lambda: np.asarray(dataset.read_mask(sample)), sample.mask, _mask_fault(sample), faults)
    if image is not None and mask is not None and image.shape[:2] != mask.shape[-2:]:
        message = f"is {_hw(image.shape[:2])} but its mask {sample.mask} is {_hw(mask.shape[-2:])} (height x width)"
        faults.append(SampleProblem("sizes-differ", f"{sample.image}: {message}"))
    elif image is not None and mask is not None and (wrong := _wrong(mask, task)):
        faults.append(SampleProblem("mask-values", f"{sample.mask}: holds {wrong}"))
    lost: tuple[int, ...] = ()
    if image is not None and mask is not None and not faults:
        read = dataclasses.replace(dataset, read_image=lambda _: image, read_mask=lambda _: mask)
        try:
            _, fitted, _ = fitted_sample(read, sample, input)
            lost = tuple(sorted(_present(mask, task) - _present(fitted, task)))
        except SegregError as error:
            faults += [SampleProblem("unfit", str(problem)) for problem in error.problems]
    return dataclasses.replace(Scanned(index, tuple(faults), lost=lost), **_facts(image, mask, task))


def thumbnail(image: NDArray[Any]) -> NDArray[np.uint8]:
    """Return a small grey image, stretched to a square; 16-bit values over the range that they have.

    Shape: `[H, W]` or `[H, W, C]`, uint8 or uint16, to uint8 `[64, 64]`.
    """
    from PIL import Image

    channels = image[..., np.newaxis] if image.ndim == 2 else image[..., :3]
    if channels.dtype != np.uint8:
        low, high = int(channels.min()), int(channels.max())
        channels = ((channels.astype(np.float32) - low) * (255.0 / max(1, high - low))).astype(np.uint8)
    planes = [Image.fromarray(np.ascontiguousarray(channels[..., c])) for c in range(channels.shape[2])]
    small = [np.asarray(plane.resize((SIDE, SIDE), Image.Resampling.BOX), np.float32) for plane in planes]
    return np.mean(small, axis=0).round().astype(np.uint8)


def _mask_fault(sample: Sample) -> Callable[[], str]:
    """Return on demand whether a mask that its data set refuses is damaged or holds what is not a class."""

    def name() -> str:
        try:
            read_labels(sample.mask) if sample.mask is not None else None
        except SegregError:
            return "mask-unreadable"
        return "mask-values"

    return name


def _read(
    read: Callable[[], NDArray[Any]], file: object, name: str | Callable[[], str], faults: list[SampleProblem]
) -> NDArray[Any] | None:
    try:
        values = read()
        if values.ndim < 2 or 0 in values.shape or values.dtype.kind not in "ui":
            raise SegregError(f"the data set gave an array of shape {list(values.shape)} and type {values.dtype}")
    except Exception as error:  # decoders and plugins raise whatever they stumble over
        problems = error.problems if isinstance(error, SegregError) else ()
        message = "; ".join(p.message for p in problems) or f"can't be read: {type(error).__name__}: {error}"
        faults.append(
            SampleProblem(
                name if isinstance(name, str) else name(), message if str(file) in message else f"{file}: {message}"
            )
        )
        return None
    return values


def _wrong(mask: NDArray[Any], task: Task) -> str:
    if mask.dtype != np.uint8:
        return f"values of type {mask.dtype}; labels are uint8"
    values = listed([str(value) for value in wrong_labels(mask, task)], quote="")
    highest = task.channels - 1 if task.mode == "multiclass" else 1
    return (
        f"{values}; the {task.mode} task has 0 to {highest}, and {IGNORE_INDEX} for pixels to ignore" if values else ""
    )


def _facts(image: NDArray[Any] | None, mask: NDArray[Any] | None, task: Task) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    if image is not None and image.ndim in (2, 3):
        facts |= {
            "size": (int(image.shape[0]), int(image.shape[1])),
            "format": _format(image),
            "blank": bool((image == image.reshape(-1, *image.shape[2:])[0]).all()),
            "image_digest": _digest(image),
            "thumbnail": thumbnail(image),
        }
    if mask is not None and mask.dtype == np.uint8:
        facts |= {"mask_digest": _digest(mask)}
        if mask.ndim == (3 if task.mode == "multilabel" else 2):
            facts |= dict(zip(("pixels", "counted"), _counts(mask, task), strict=True))
    return facts


def _counts(mask: NDArray[np.uint8], task: Task) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    if task.mode == "multilabel":
        flat = mask.reshape(len(mask), -1)
        return (flat == 1).sum(axis=1), (flat != IGNORE_INDEX).sum(axis=1)
    labels = len(labels_of(task))
    counts = np.bincount(mask.ravel(), minlength=256)
    return counts[:labels], np.full(labels, mask.size - counts[IGNORE_INDEX])


def _present(mask: NDArray[np.uint8], task: Task) -> set[int]:
    return {int(label) for label in np.nonzero(_counts(mask, task)[0])[0]}


def _format(image: NDArray[Any]) -> str:
    channels = 1 if image.ndim == 2 else image.shape[2]
    grey = channels == 3 and bool((image[..., :1] == image).all())
    words = f"{channels} channel{'s' * (channels > 1)}, {image.dtype.itemsize * 8} bits"
    return words + (", grey" if grey else "")


def _digest(values: NDArray[Any]) -> str:
    flat = values[..., 0] if values.ndim == 3 and values.shape[2] == 1 else values
    header = f"{flat.dtype.str} {flat.shape} ".encode()
    return hashlib.blake2b(header + np.ascontiguousarray(flat).tobytes(), digest_size=16).hexdigest()


def _hw(size: Sequence[int]) -> str:
    return f"{size[0]}x{size[1]}"

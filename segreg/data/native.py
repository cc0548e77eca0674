"""Images at their own size in the cache, for training on crops: windows are read without touching the rest."""

from __future__ import annotations

import functools
import os
import threading
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segreg.config.sections import Input
from segreg.data.blocks import (
    BlockFile,
    BlockLayout,
    BlockWriter,
    DamagedBlocksError,
    Stored,
    block_sums,
    count_blocks,
    write_blocks,
)
from segreg.data.cache import (
    NotedImages,
    PreprocessedDataset,
    built_entry,
    counted_labels,
    entry_key,
    fill_fitted,
    in_threads,
    label_counts,
    load_array,
    open_fitted,
    opened_entry,
    read_sample,
    sample_digests,
    write_meta,
)
from segreg.data.cache_folder import CacheLock, entry_folder, make_room, remove
from segreg.data.resize import Size
from segreg.data.values import DTYPES, DtypeName, Statistics, image_statistics
from segreg.errors import SegregError
from segreg.registry.protocols import Dataset, Sample
from segreg.task import Task

MOST_POSITIONS = 256
"""Pixels of each label of an image that are remembered, for crops that are centred on them."""
_RESERVED_AT_ONCE = 1 << 26
"""Bytes that are made room for at once, as images whose sizes are not known before are written."""


@dataclass(frozen=True, eq=False)
class NativeDataset(PreprocessedDataset):
    """Samples at their own size, in blocks of one file. As `PreprocessedDataset` otherwise.

    Attributes:
        blocks: the file.
    """

    blocks: BlockFile = field(kw_only=True, repr=False)

    @property
    def images(self) -> NDArray[Any]:
        """Images have no common size.

        Raises:
            TypeError: always.
        """
        raise TypeError("images at their own size are not one array")

    masks = images

    @cached_property
    def positions(self) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
        """Return pixels of each label, as `row * width + column`, and where those of each row and label begin."""
        found = load_array(self.folder / "positions.npy", mmap_mode="r")
        return found, load_array(self.folder / "position_starts.npy")

    def sample(self, index: int) -> tuple[NDArray[Any], NDArray[np.uint8]]:
        """Return the image `[H, W, C]` and the mask `[H, W]` or `[K, H, W]` of the sample with this index.

        Raises:
            SegregError: as for `PreprocessedDataset.sample`.
        """
        height, width = self.original_size(index)
        return self.window(index, 0, 0, height, width)

    def window(
        self, index: int, top: int, left: int, height: int, width: int
    ) -> tuple[NDArray[Any], NDArray[np.uint8]]:
        """Return a part of a sample's image and mask that lies inside it.

        Shape: `[height, width, C]` and `[height, width]` or `[K, height, width]`.

        Raises:
            SegregError: as for `PreprocessedDataset.sample`.
        """
        row = self.rows[index]
        try:
            return self.blocks.window(row, top, left, height, width)
        except DamagedBlocksError as error:
            if "cut short" in str(error):
                raise self._removed(row, str(error)) from error
        except OSError as error:
            raise SegregError(f"{self.blocks.file}: can't be read: {error.strerror or error}") from error
        image, mask = self._repaired(row)
        inside = slice(top, top + height), slice(left, left + width)
        return image[inside], mask[..., inside[0], inside[1]]

    def position(self, index: int, labels: Sequence[int], chance: np.random.Generator) -> tuple[int, int] | None:
        """Return a drawn pixel of one of the labels, each as likely as the others, or None if the image shows none."""
        found, starts = self.positions
        row = self.rows[index]
        return _drawn_position(
            [found[starts[row, label] : starts[row, label + 1]] for label in labels],
            self.original_sizes[row][1],
            chance,
        )

    def mean_colour(self, index: int) -> NDArray[Any]:
        """Return the mean of an image's channels, of its own dtype `[C]`."""
        return _as_colour(self.image_statistics(index).mean, np.dtype(self.input.dtype))

    def release(self) -> None:
        """Do nothing: what was read does not count as the process's memory."""

    def _was_written(self, row: int, image: NDArray[Any], mask: NDArray[np.uint8]) -> bool:
        layout, stored = self.blocks.layout, self.blocks.images[row]
        same_size = image.shape[:2] == (stored.height, stored.width)
        return same_size and np.array_equal(block_sums(layout, stored, image, mask), self.blocks.sums_of(row))

    def _write(self, row: int, image: NDArray[Any], mask: NDArray[np.uint8]) -> None:
        descriptor = os.open(self.blocks.file, os.O_WRONLY)
        try:
            write_blocks(descriptor, self.blocks.layout, self.blocks.images[row], image, mask)
        finally:
            os.close(descriptor)


class OneImage:
    """One image that is in memory, to draw crops of as of a `NativeDataset`.

    Args:
        image: `[H, W, C]`.
        mask: uint8 `[H, W]` or `[K, H, W]`.
        task: the classes.
        identity: the sample's id.
    """

    def __init__(self, image: NDArray[Any], mask: NDArray[np.uint8], task: Task, identity: str) -> None:
        self.image, self.mask = image, mask
        self.found = _positions(mask, task, identity)

    def original_size(self, index: int) -> Size:  # noqa: ARG002
        """Return height and width."""
        return int(self.image.shape[0]), int(self.image.shape[1])

    def window(
        self,
        index: int,  # noqa: ARG002
        top: int,
        left: int,
        height: int,
        width: int,
    ) -> tuple[NDArray[Any], NDArray[np.uint8]]:
        """Return a part of the image and of the mask."""
        rows, columns = slice(top, top + height), slice(left, left + width)
        return self.image[rows, columns], self.mask[..., rows, columns]

    def position(self, index: int, labels: Sequence[int], chance: np.random.Generator) -> tuple[int, int] | None:  # noqa: ARG002
        """Return a drawn pixel of one of the labels, or None."""
        return _drawn_position([self.found[label] for label in labels], self.image.shape[1], chance)

    def mean_colour(self, index: int) -> NDArray[Any]:  # noqa: ARG002
        """Return the mean of the image's channels."""
        return _as_colour(image_statistics(self.image).mean, self.image.dtype)


@dataclass(frozen=True)
class _Written:
    """What is noted of a row."""

    stored: Stored
    sums: NDArray[np.uint32]
    labels: NDArray[np.int64]
    statistics: Statistics
    positions: list[NDArray[np.uint32]]

    @property
    def size(self) -> Size:
        return self.stored.height, self.stored.width


def prepare(
    dataset: Dataset,
    input: Input,
    *,
    indices: Sequence[int] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> PreprocessedDataset:
    """Return the samples decoded, from the cache where they are there already.

    They are resized to the input's size, or at their own size (`NativeDataset`) where `input.resize` is `crop`.
    Two processes may prepare the same at once, and a kill at any moment leaves nothing that is taken for whole.

    Args:
        dataset: the data set.
        input: size, resize rule, channels and types of values; the other settings don't matter here.
        indices: which of `dataset.samples`; all where it is None. Each needs a mask.
        progress: called with how many samples are done, of how many; not called where the cache has them.

    Raises:
        SegregError: what is wrong with any sample's files, all together; or there is no room for the arrays.
    """
    chosen = tuple(range(len(dataset.samples))) if indices is None else tuple(sorted(set(indices)))
    if not chosen:
        raise SegregError("the data set has no samples")
    samples = [dataset.samples[index] for index in chosen]
    contents = sample_digests(dataset, samples)
    fill, opened = (_fill, _opened) if input.resize == "crop" else (fill_fitted, open_fitted)
    types: tuple[DtypeName, ...] = DTYPES if input.dtype == "auto" else (input.dtype,)
    sections = {dtype: replace(input, dtype=dtype) for dtype in types}
    keys = {dtype: entry_key(dataset, section, contents) for dtype, section in sections.items()}
    for dtype, section in sections.items():
        own_type = dtype if len(types) > 1 else None
        if found := opened(entry_folder(keys[dtype]), dataset, section, chosen, own_type):
            return found
    noted = NotedImages(dataset.read_image, input)
    reader = replace(dataset, read_image=noted)
    dtype = types[0]

    def after_image(done: int, count: int) -> None:
        if len(types) > 1 and noted.common() != dtype:
            raise _OtherTypeError
        if progress is not None:
            progress(done, count)

    while True:  # again where an image has another type than was taken: the narrowest at first
        place, section = entry_folder(keys[dtype]), sections[dtype]
        if place.exists():
            remove(place)  # damaged from outside
        make = functools.partial(
            fill, dataset=reader, samples=samples, input=section, progress=after_image, noted=noted
        )
        try:
            with built_entry(place.name, make):
                found = opened(place, dataset, section, chosen, None)
        except _OtherTypeError:
            dtype = noted.common()
            continue
        if found is not None:
            return found
        raise SegregError(f"{place}: the cache entry vanished or was damaged while it was made", hint="run it again")


class _OtherTypeError(Exception):
    """An image has another type of values than the entry that is made."""


class _NoRoomError(Exception):
    """Images don't fit into the cache, or onto the disk: the first of them ends the work."""


def _fill(
    building: Path,
    dataset: Dataset,
    samples: Sequence[Sample],
    input: Input,
    *,
    progress: Callable[[int, int], None],
    noted: NotedImages,
) -> None:
    """Write the files of an entry of samples at their own size."""
    writer = BlockWriter(building / "blocks.bin", _layout(dataset.task, input))
    reserve = _Reserve(len(samples))

    def write(row: int) -> _Written:
        image, mask, labels, invalid = read_sample(dataset, samples[row], input)
        reserve(image.nbytes + mask.nbytes)
        stored, sums = writer.add(image, mask)
        positions = _positions(mask, dataset.task, samples[row].id)
        return _Written(stored, sums, labels, image_statistics(image, invalid), positions)

    try:
        written = in_threads(write, range(len(samples)), progress)
    except _NoRoomError as error:
        raise error.__cause__ from None  # type: ignore[misc]
    finally:
        writer.close()
    np.save(building / "index.npy", np.array([[w.stored.offset, *w.size] for w in written], np.int64))
    np.save(building / "checksums.npy", np.concatenate([w.sums for w in written]))
    np.save(building / "labels.npy", np.array([w.labels for w in written], np.int64))
    np.save(building / "statistics.npy", np.array([w.statistics for w in written], np.float64))
    counts = np.array([[len(each) for each in w.positions] for w in written], np.int64)
    ends = np.cumsum(counts.ravel()).reshape(counts.shape)
    np.save(building / "position_starts.npy", np.concatenate([ends[:, :1] - counts[:, :1], ends], axis=1))
    np.save(building / "positions.npy", np.concatenate([each for w in written for each in w.positions]))
    write_meta(building / "meta.json", dataset, samples, input, written, sizes="at their own size", noted=noted)


class _Reserve:
    """Makes room for images as they come, some at once."""

    def __init__(self, images: int) -> None:
        self.images = images
        self.lock = threading.Lock()
        self.seen, self.used, self.reserved = 0, 0, 0

    def __call__(self, size: int) -> None:
        """Make room for an image of so many bytes.

        Raises:
            _NoRoomError: there is none; its cause says why.
        """
        with self.lock:
            self.seen, self.used = self.seen + 1, self.used + size
            if self.used > self.reserved:
                rest = self.used // self.seen * (self.images - self.seen)  # as large as those before, on average
                more = size + min(rest, _RESERVED_AT_ONCE)
                try:
                    make_room(
                        more, what=f"{self.images} images at their own size", written=self.used - size,
                        whole=self.used + rest, less="smaller images, or another input.resize, take less",
                    )  # fmt: skip
                except SegregError as error:
                    raise _NoRoomError from error
                self.reserved = self.used - size + more


def _layout(task: Task, input: Input) -> BlockLayout:
    return BlockLayout(input.dtype, input.channels, task.channels if task.mode == "multilabel" else None)


def _as_colour(mean: NDArray[np.float64], dtype: np.dtype[Any]) -> NDArray[Any]:
    return (np.rint(mean) if dtype.kind in "iu" else mean).astype(dtype)


def _drawn_position(
    found: Sequence[NDArray[np.uint32]], width: int, chance: np.random.Generator
) -> tuple[int, int] | None:
    """Return one of the pixels of a label that has some, each label as likely as the others."""
    shown = [pixels for pixels in found if len(pixels)]
    if not shown:
        return None
    pixels = shown[int(chance.integers(len(shown)))]
    return divmod(int(pixels[int(chance.integers(len(pixels)))]), width)


def _positions(mask: NDArray[np.uint8], task: Task, identity: str) -> list[NDArray[np.uint32]]:
    """Return at most 256 pixels of each label, as `row * width + column`; which ones the sample's id decides."""
    chance = np.random.default_rng(zlib.crc32(identity.encode(errors="surrogatepass")))
    layers = mask if task.mode == "multilabel" else [mask] * (task.highest_label + 1)
    counts = label_counts(mask, task)
    found = []
    for label, layer in enumerate(layers):
        value = 1 if task.mode == "multilabel" else label
        # Of many classes an image shows a few.
        pixels = np.flatnonzero(layer == value) if counts[label] else np.empty(0, np.intp)
        if len(pixels) > MOST_POSITIONS:
            pixels = pixels[np.sort(chance.integers(len(pixels), size=MOST_POSITIONS))]
        found.append(pixels.astype(np.uint32))
    return found


def _opened(
    place: Path, dataset: Dataset, input: Input, indices: tuple[int, ...], own: DtypeName | None
) -> NativeDataset | None:
    """Return the entry if it is there and whole, and the files' own values have the type `own`, if one is given."""
    task = dataset.task

    def prepare_again(row: int) -> Any:
        return read_sample(dataset, dataset.samples[indices[row]], input)

    def read(meta: Mapping[str, Any], sizes: tuple[Size, ...], held: CacheLock) -> NativeDataset | None:
        index = load_array(place / "index.npy")
        images = [Stored(*map(int, row)) for row in index]
        sums = load_array(place / "checksums.npy")
        blocks = BlockFile(place / "blocks.bin", _layout(task, input), images, sums)
        prepared = NativeDataset(
            place, task, input, indices, tuple(meta["ids"]), sizes, meta["without_alpha"], held, prepare_again,
            blocks=blocks,
        )  # fmt: skip
        whole = (
            len(prepared.ids) == len(sizes) == len(indices) == len(images)
            and all((each.height, each.width) == size for each, size in zip(images, sizes, strict=True))
            and sums.shape == (sum(count_blocks(*size) for size in sizes),)
            and prepared.labels.shape == (len(indices), counted_labels(task))
            and prepared.statistics is not None
            and prepared.statistics.shape == (len(indices), 5, input.channels)
            and prepared.positions[1].shape[0] == len(indices)
            and blocks.file.stat().st_size
            >= max(i.offset + i.height * i.width * blocks.layout.pixel_bytes for i in images)
        )
        return prepared if whole else None

    return opened_entry(place, own, read)

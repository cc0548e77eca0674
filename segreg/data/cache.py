"""Decoded, resized images and masks, prepared once and then read from memory-mapped files.

Decoding and resizing cost milliseconds an image, each epoch again; a row of a memory-mapped file costs microseconds.
An entry's key is a digest of what the files hold and of every setting that changes what is made of them.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import mmap
import os
import secrets
import shutil
import sqlite3
import stat
import time
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from segreg.config.sections import Input
from segreg.data.cache_folder import CacheLock, entry_folder, hold, index_file, make_room, new_folder
from segreg.data.images import drops_alpha
from segreg.data.resize import Size, fit_image, fit_mask, format_size, placement
from segreg.data.values import (
    DtypeName,
    Statistics,
    as_network_input,
    common_dtype,
    has_statistics,
    histograms,
    ignore_invalid,
    image_statistics,
    own_dtype,
    pooled,
    read_values,
    refuse_constant,
)
from segreg.errors import Place, Problem, SegregError, listed
from segreg.registry.compatibility import DISTRIBUTION, installed_version
from segreg.registry.protocols import Dataset, Sample
from segreg.runtime.files import mapped_array, sync
from segreg.task import IGNORE_INDEX, Task, mask_shape

FORMAT = 4
"""Raised whenever the same files and settings would give other arrays."""
# A file changed again within its clock's tick keeps its time: what was younger than this when it was read is not
# remembered.
SETTLED_SECONDS = 3.0

THREADS = min(8, os.cpu_count() or 1)
"""Threads that decode images."""

Item = TypeVar("Item")
Made = TypeVar("Made")
Fitted = tuple[NDArray[Any], NDArray[np.uint8], Size, NDArray[np.int64], Statistics | None]
"""A sample's image, its mask, its size, the pixels of each label (`label_counts`) and statistics before resizing."""


@dataclass(frozen=True, eq=False)
class PreprocessedDataset:
    """Samples as arrays in memory-mapped files. Samples are named by their index into `Dataset.samples`.

    While it lives, the cache does not remove its files. It can be pickled: the copy opens the files again. Each
    sample's arrays have a checksum, which is compared when they are first asked for.

    Attributes:
        folder: the cache's entry.
        task: the classes.
        input: the settings that it was prepared with, and the values' type.
        indices: of the samples it holds, ascending; row `i` of `images` and `masks` is sample `indices[i]`.
        ids: their ids.
        original_sizes: their sizes before resizing, (height, width) in pixels.
        without_alpha: how many of them had an alpha channel, full everywhere, that the network does not get.
    """

    folder: Path
    task: Task
    input: Input
    indices: tuple[int, ...]
    ids: tuple[str, ...]
    original_sizes: tuple[Size, ...]
    without_alpha: int = 0
    held: CacheLock | None = field(default=None, repr=False)
    prepare_again: Callable[[int], Fitted] | None = field(default=None, repr=False)

    @cached_property
    def images(self) -> NDArray[Any]:
        """Return the images, `[N, H, W, C]` of `input.dtype`, memory-mapped and read-only."""
        return load_array(self.folder / "images.npy", mmap_mode="r")

    @cached_property
    def masks(self) -> NDArray[np.uint8]:
        """Return the masks, uint8 `[N, H, W]` (`[N, K, H, W]` if multilabel), memory-mapped and read-only."""
        return load_array(self.folder / "masks.npy", mmap_mode="r")

    @cached_property
    def checksums(self) -> NDArray[np.uint32]:
        """Return the CRC-32 of each row's image and mask, uint32 `[N, 2]`."""
        return load_array(self.folder / "checksums.npy")

    @cached_property
    def labels(self) -> NDArray[np.int64]:
        """Return the pixels of each label in each mask before resizing, int64 `[N, L + I]`, see `label_counts`."""
        return load_array(self.folder / "labels.npy")

    @cached_property
    def statistics(self) -> NDArray[np.float64] | None:
        """Return the `Statistics` of each image before resizing, float64 `[N, 5, C]`, where they are kept."""
        file = self.folder / "statistics.npy"
        return load_array(file) if file.exists() else None

    @property
    def present(self) -> NDArray[np.bool_]:
        """Return which labels each mask shows before resizing, bool `[N, L]`."""
        return self.labels[:, : self.task.label_count] > 0

    @cached_property
    def _compared(self) -> NDArray[np.bool_]:
        return np.zeros(len(self.indices), np.bool_)

    def sample(self, index: int) -> tuple[NDArray[Any], NDArray[np.uint8]]:
        """Return the image and the mask of the sample with this index.

        Where they are not what was written, they are prepared from the sample's files again and the entry is repaired.

        Shape: image `[H, W, C]` of `input.dtype`, mask uint8 `[H, W]` or `[K, H, W]`.

        Raises:
            SegregError: the entry was cut short since it was opened, or is damaged and can't be repaired. It is
                removed, so that it is prepared anew the next time.
        """
        row = self.rows[index]
        for array in (self.images, self.masks):
            under = _map_under(array)
            if under is not None and under.size() < len(under):  # reading behind the end would kill the process
                raise self._removed(row, "was cut short while it was in use")
        image, mask = self.images[row], self.masks[row]
        if not self._compared[row]:
            if _checksums(image, mask) != tuple(self.checksums[row]):
                return self._repaired(row)
            self._compared[row] = True
        return image, mask

    def network_input(self, index: int, values: NDArray[Any]) -> NDArray[np.uint8] | NDArray[np.float32]:
        """Return the values of a sample's image, also augmented, as batches have them, see `as_network_input`."""
        return as_network_input(values, self.input, self.image_statistics(index) if self.input.per_image else None)

    def image_statistics(self, index: int) -> Statistics:
        """Return the statistics, which must have been kept, of the sample with this index."""
        assert self.statistics is not None
        return Statistics(*self.statistics[self.rows[index]])

    def _repaired(self, row: int) -> tuple[NDArray[Any], NDArray[np.uint8]]:
        """Prepare a row again, write it into the entry where that is possible, and return it."""
        if self.prepare_again is None:
            raise self._removed(row, "is damaged")
        try:
            image, mask, *_ = self.prepare_again(row)
        except Exception as error:
            raise self._removed(row, "is damaged") from error
        if not self._was_written(row, image, mask):
            raise self._removed(row, "is damaged, and the sample's files have changed since it was made")
        try:
            self._write(row, image, mask)
            repaired = "what is damaged of it was prepared again from the data set's files"
        except OSError as error:  # a cache that others filled may be read-only
            repaired = "what is damaged of it is prepared from the data set's files each time, since it can't be "
            repaired += f"written to: {error.strerror or error}"
        # The same words for each sample, so that Python shows them once.
        warnings.warn(f"{self.folder}: the cache entry was damaged; {repaired}", RuntimeWarning, stacklevel=2)
        return image, mask

    def _was_written(self, row: int, image: NDArray[Any], mask: NDArray[np.uint8]) -> bool:
        """Whether an image and a mask are those of which the entry has the checksums."""
        return _checksums(image, mask) == tuple(self.checksums[row])

    def _write(self, row: int, image: NDArray[Any], mask: NDArray[np.uint8]) -> None:
        for name, values in (("images", image), ("masks", mask)):
            writable = np.load(self.folder / f"{name}.npy", mmap_mode="r+", allow_pickle=False)
            writable[row] = values
            writable.flush()

    def _removed(self, row: int, what: str) -> SegregError:
        """Remove the entry though it is in use, and return what is reported."""
        gone = self.folder.with_name(f".removed-{self.folder.name}-{secrets.token_hex(4)}")
        try:
            self.folder.rename(gone)
            shutil.rmtree(gone, ignore_errors=True)
            hint = "it was removed: run the same command again, which prepares it anew"
        except OSError:
            hint = "remove it and run the same command again, which prepares it anew"
        return SegregError(
            f'{self.folder}: the cache entry {what}; seen at the sample "{self.ids[row]}"',
            hint=f"{hint}; `segreg run --resume DIR` continues a run",
        )

    def release(self) -> None:
        """Take rows that were read out of the process's memory; they are there again when they are read again.

        The system would do so when memory runs short, but until then they count as this process's.
        """
        for array in (self.images, self.masks):
            if (under := _map_under(array)) is not None and hasattr(mmap, "MADV_DONTNEED"):
                under.madvise(mmap.MADV_DONTNEED)

    @cached_property
    def rows(self) -> dict[int, int]:
        """Return the row of each sample's index."""
        return {index: row for row, index in enumerate(self.indices)}

    def id_of(self, index: int) -> str:
        """Return the id of the sample with this index."""
        return self.ids[self.rows[index]]

    def original_size(self, index: int) -> Size:
        """Return the size of the sample with this index before resizing, (height, width)."""
        return self.original_sizes[self.rows[index]]

    def channel_statistics(
        self, indices: Sequence[int], advance: Callable[[], object] = lambda: None
    ) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Return mean and standard deviation of each channel's values, of integers in [0, 1].

        8-bit values are counted as the network gets them, a letterbox's border left out. Where statistics are kept,
        those are combined, each image with its share of the input, or where it has its own size with all its pixels.
        The numbers are the same in whichever order the images are read.

        Args:
            indices: of the samples whose images are counted.
            advance: called after each image.

        Raises:
            SegregError: all pixels of a channel have one value.
        """
        if self.statistics is not None:
            for _ in indices:
                advance()
            weights = [self._weight(index) for index in indices]
            found, most = pooled([self.image_statistics(index) for index in indices], weights), self.input.value_range
            refuse_constant(list(zip(found.least.tolist(), found.most.tolist(), strict=True)), len(indices))
            return tuple((found.mean / most).tolist()), tuple((found.std / most).tolist())
        counts = np.zeros((self.input.channels, 256), np.int64)
        height, width = self.input.size
        for number, index in enumerate(indices, start=1):
            inside = placement(self.original_size(index), self.input)
            counts += histograms(self.sample(index)[0].transpose(2, 0, 1))
            counts[:, 0] -= height * width - inside.height * inside.width
            if number % 256 == 0:
                self.release()
            advance()
        present = [np.flatnonzero(one) for one in counts]
        refuse_constant([(int(one[0]), int(one[-1])) for one in present], len(indices))
        levels, pixels = np.arange(256), int(counts[0].sum())
        sums, squares = [[int(found) for found in counts @ powers] for powers in (levels, levels**2)]
        mean = tuple(one / pixels / 255 for one in sums)
        variances = [pixels * square - one * one for one, square in zip(sums, squares, strict=True)]
        return mean, tuple(math.sqrt(one) / pixels / 255 for one in variances)

    def _weight(self, index: int) -> float:
        """Return the pixels of the input for each pixel of an image."""
        size = self.original_size(index)
        inside = placement(size, self.input)
        return 1 if self.input.resize == "crop" else inside.height * inside.width / math.prod(size)

    def __getstate__(self) -> dict[str, Any]:
        kept = {name: self.__dict__[name] for name in self.__dataclass_fields__}
        return {**kept, "held": None, "prepare_again": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, held=hold(state["folder"]))


def fill_fitted(
    building: Path,
    dataset: Dataset,
    samples: Sequence[Sample],
    input: Input,
    *,
    progress: Callable[[int, int], None],
    noted: NotedImages,
) -> None:
    """Write the files of an entry of samples resized to the input's size; see `segreg.data.prepare`."""
    count = len(samples)
    arrays: dict[str, tuple[tuple[int, ...], np.dtype[Any]]] = {
        "images": ((count, *input.size, input.channels), np.dtype(input.dtype)),
        "masks": ((count, *mask_shape(dataset.task, input.size)), np.dtype(np.uint8)),
    }
    needed = sum(math.prod(shape) * dtype.itemsize for shape, dtype in arrays.values())
    make_room(needed + 4096 + 208 * count, what=f"{count} images at {format_size(input.size)}")
    images, masks = (mapped_array(building / f"{name}.npy", *array) for name, array in arrays.items())

    def fill(row: int) -> _Filled:
        image, mask, size, labels, statistics = fitted_sample(dataset, samples[row], input)
        images[row], masks[row] = image, mask
        return _Filled(size, _checksums(image, mask), labels, statistics)

    filled = in_threads(fill, range(count), progress)
    images.flush()
    masks.flush()
    np.save(building / "checksums.npy", np.array([row.checksums for row in filled], np.uint32))
    np.save(building / "labels.npy", np.array([row.labels for row in filled], np.int64))
    if has_statistics(input):
        np.save(building / "statistics.npy", np.array([row.statistics for row in filled], np.float64))
    at = f"at {format_size((*input.size, input.channels))}"
    write_meta(building / "meta.json", dataset, samples, input, filled, sizes=at, noted=noted)


@dataclass
class NotedImages:
    """Reads images and notes which types their values have of themselves, and which lose a full alpha channel."""

    read: Callable[[Sample], NDArray[Any]]
    input: Input
    files: dict[DtypeName, Path] = field(default_factory=dict)
    without_alpha: set[str] = field(default_factory=set)

    def __call__(self, sample: Sample) -> NDArray[Any]:
        """Return the image."""
        image = np.asarray(self.read(sample))
        self.files.setdefault(own_dtype(image, self.input), sample.image)
        if image.ndim in (2, 3) and drops_alpha(image, self.input.channels, sample.image):
            self.without_alpha.add(sample.id)
        return image

    def common(self) -> DtypeName:
        """Return the type that holds the values of all images read so far.

        Raises:
            SegregError: some are integers and some are not.
        """
        return common_dtype(self.files)


@contextlib.contextmanager
def built_entry(key: str, make: Callable[[Path], None]) -> Iterator[None]:
    """Build an entry in a folder of its own, and give it its name; it can't be removed inside the context.

    Args:
        key: the entry's.
        make: writes the entry's files into the folder it is given.

    Raises:
        SegregError: the cache can't be written to.
    """
    building, held = new_folder(key)
    try:
        make(building)
        for file in building.iterdir():
            sync(file)  # before the folder gets its name, should the power fail in between
        with contextlib.suppress(OSError):  # another process was faster: what it made is the same
            building.rename(entry_folder(key))
    except OSError as error:
        raise SegregError(f"{building.parent}: can't write to the cache: {error.strerror or error}") from error
    finally:
        if building.exists():
            shutil.rmtree(building, ignore_errors=True)
    try:
        yield
    finally:
        held.release()


def entry_key(dataset: Dataset, input: Input, contents: Sequence[tuple[str, str, str]]) -> str:
    """Return an entry's key: a digest of what the samples hold and of the settings that change what is made of them."""
    whole = hashlib.blake2b(digest_size=16)
    settings = _settings(input) | {"reader": dataset.reader, "mode": dataset.task.mode, "classes": dataset.task.classes}
    whole.update(json.dumps([FORMAT, settings], sort_keys=True).encode())
    for content in contents:
        whole.update(json.dumps(content).encode())
    return whole.hexdigest()


def sample_digests(dataset: Dataset, samples: Sequence[Sample]) -> list[tuple[str, str, str]]:
    """Return each sample's id and digests of what its image and its mask hold.

    Of a data set without a `reader`, which doesn't say how files are read, what is read of them counts.
    """
    files = [file for sample in samples for file in (sample.image, sample.mask) if file is not None and dataset.reader]
    known = content_digests(files)
    contents = []
    for sample in samples:
        image = known.get(sample.image) or _read_digest(dataset.read_image, sample)
        mask = "none"
        if sample.mask is not None:
            mask = known.get(sample.mask) or _read_digest(dataset.read_mask, sample)
        contents.append((sample.id, image, mask))
    return contents


def _read_digest(read: Callable[[Sample], Any], sample: Sample) -> str:
    """Return a digest of what the data set reads where its samples are no files."""
    try:
        return array_digest(np.asarray(read(sample)))
    except Exception:
        return "unreadable"  # preparing it will tell what is wrong


def array_digest(values: NDArray[Any]) -> str:
    """Return a digest of an array's type, shape and values."""
    header = f"{values.dtype.str} {values.shape} ".encode()
    return hashlib.blake2b(header + values.tobytes(), digest_size=16).hexdigest()


def _settings(input: Input) -> dict[str, Any]:
    size = {} if input.resize == "crop" else {"size": list(input.size)}
    names = ("resize", "channels", "dtype", "sixteen_bit", "clip", "nodata")
    return {
        **size,
        **{name: getattr(input, name) for name in names},
        "statistics": input.resize == "crop" or has_statistics(input),
    }


@dataclass(frozen=True)
class _Filled:
    """What is noted of a row."""

    size: Size
    checksums: tuple[int, int]
    labels: NDArray[np.int64]
    statistics: Statistics | None


def _checksums(image: NDArray[Any], mask: NDArray[np.uint8]) -> tuple[int, int]:
    return zlib.crc32(np.ascontiguousarray(image).data), zlib.crc32(np.ascontiguousarray(mask).data)


def in_threads(
    work: Callable[[Item], Made],
    items: Sequence[Item],
    progress: Callable[[int, int], None],
    *,
    most: int = 20,
    rest: str = "more files are wrong",
) -> list[Made]:
    """Return what `work` returns for each item, in their order; `progress` is given how many are done, of how many.

    Raises:
        SegregError: what is wrong with any of them, all together; `rest` says what those beyond `most` are.
    """

    def attempt(item: Item) -> Made | SegregError:
        try:
            return work(item)
        except SegregError as error:
            return error

    made: list[Made] = []
    problems: list[Problem] = []
    pool = ThreadPoolExecutor(THREADS)
    try:
        for done, found in enumerate(pool.map(attempt, items), start=1):
            if isinstance(found, SegregError):
                problems += found.problems
            else:
                made.append(found)
            progress(done, len(items))
    finally:
        pool.shutdown(cancel_futures=True)
    if problems:
        raise SegregError.of(problems, most=most, rest=rest)
    return made


def write_meta(
    file: Path,
    dataset: Dataset,
    samples: Sequence[Sample],
    input: Input,
    filled: Sequence[Any],
    *,
    sizes: str,
    noted: NotedImages,
) -> None:
    """Write what an entry holds; of each row in `filled` the attributes `size` and `labels`."""
    folders = list(dict.fromkeys(str(folder) for folder in dataset.folders)) or [str(samples[0].image.parent)]
    meta = {
        "format": FORMAT,
        "description": f"{', '.join(folders)}: {len(samples)} samples {sizes}",
        "ids": [sample.id for sample in samples],
        "original_sizes": [row.size for row in filled],
        "own_dtype": noted.common(),
        "labels_checksum": zlib.crc32(np.array([row.labels for row in filled], np.int64).data),
        "without_alpha": len(noted.without_alpha),
        "input": _settings(input),
        "task": {"mode": dataset.task.mode, "classes": dataset.task.classes},
        "reader": dataset.reader,
        "versions": {name: installed_version(name) for name in (DISTRIBUTION, "numpy", "pillow", "torch")},
    }
    meta["checksum"] = _meta_checksum(meta)
    file.write_text(json.dumps(meta), encoding="utf-8")


def _meta_checksum(meta: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps({name: value for name, value in meta.items() if name != "checksum"}).encode())


def open_fitted(
    place: Path, dataset: Dataset, input: Input, indices: tuple[int, ...], own: DtypeName | None
) -> PreprocessedDataset | None:
    """Return the entry if it is there and whole, and the files' own values have the type `own`, if one is given."""
    task = dataset.task

    def prepare_again(row: int) -> Fitted:
        return fitted_sample(dataset, dataset.samples[indices[row]], input)

    def read(meta: Mapping[str, Any], sizes: tuple[Size, ...], held: CacheLock) -> PreprocessedDataset | None:
        prepared = PreprocessedDataset(
            place, task, input, indices, tuple(meta["ids"]), sizes, meta["without_alpha"], held, prepare_again
        )
        arrays: list[NDArray[Any]] = [prepared.images, prepared.masks, prepared.checksums, prepared.labels]
        if has_statistics(input):
            arrays.append(load_array(place / "statistics.npy"))
        count = len(indices)
        shapes = (
            (count, *input.size, input.channels), (count, *mask_shape(task, input.size)), (count, 2),
            (count, counted_labels(task)), (count, 5, input.channels),
        )  # fmt: skip
        types = (input.dtype, "uint8", "uint32", "int64", "float64")
        whole = all(
            array.shape == shape and array.dtype.name == name and array.flags.c_contiguous
            for array, shape, name in zip(arrays, shapes, types, strict=False)
        )
        return prepared if whole and len(prepared.ids) == len(sizes) == count else None

    return opened_entry(place, own, read)


Opened = TypeVar("Opened", bound=PreprocessedDataset)


def opened_entry(
    place: Path,
    own: DtypeName | None,
    read: Callable[[Mapping[str, Any], tuple[Size, ...], CacheLock], Opened | None],
) -> Opened | None:
    """Return what `read` makes of an entry, held while it lives, or None where the entry is not there or not whole.

    Args:
        place: the entry's folder.
        own: the type that the files' own values must have, if any.
        read: is given what `meta.json` holds, the images' own sizes and the lock; returns None, or raises, where
            something of the entry is missing or damaged.
    """
    held = hold(place)
    if held is None:
        return None
    try:
        meta = json.loads((place / "meta.json").read_text(encoding="utf-8"))
        if meta["checksum"] != _meta_checksum(meta) or own not in (None, meta["own_dtype"]):
            raise ValueError("damaged, or of another type")
        sizes = tuple((int(height), int(width)) for height, width in meta["original_sizes"])
        prepared = read(meta, sizes, held)
        if prepared is not None and zlib.crc32(np.ascontiguousarray(prepared.labels).data) != meta["labels_checksum"]:
            prepared = None
    except (OSError, ValueError, KeyError, TypeError, SegregError):
        prepared = None
    if prepared is None:
        held.release()
    return prepared


def load_array(file: Path, *, mmap_mode: Literal["r"] | None = None) -> NDArray[Any]:
    """Return what a file of the entry holds.

    Raises:
        SegregError: it is missing or damaged, or shorter than its header says.
    """
    try:
        # As a plain array: np.memmap does bookkeeping at each slice, which costs more than the slice.
        return np.asarray(np.load(file, mmap_mode=mmap_mode, allow_pickle=False)).view(np.ndarray)
    except (OSError, ValueError, EOFError) as error:
        raise SegregError(
            f"{file}: is damaged: {error}", hint="`segreg cache clear` removes the cache's entries; run it again then"
        ) from error


def _map_under(array: NDArray[Any]) -> mmap.mmap | None:
    under: Any = array
    while isinstance(under, np.ndarray):
        under = under.base
    return under if isinstance(under, mmap.mmap) else None


# one sample as the network sees it, or everything that is wrong with its files


def fitted_sample(dataset: Dataset, sample: Sample, input: Input) -> Fitted:
    """Return a sample's image `[H, W, C]` and mask `[H, W]` or `[K, H, W]` at the input's size, and what they were.

    Raises:
        SegregError: as for `read_sample`.
    """
    image, mask, counts, invalid = read_sample(dataset, sample, input)
    statistics = image_statistics(image, invalid) if has_statistics(input) else None
    return fit_image(image, input), fit_mask(mask, input), (image.shape[0], image.shape[1]), counts, statistics


def read_sample(
    dataset: Dataset, sample: Sample, input: Input
) -> tuple[NDArray[Any], NDArray[np.uint8], NDArray[np.int64], NDArray[np.bool_] | None]:
    """Return a sample's image `[H, W, C]`, its mask `[H, W]` or `[K, H, W]`, its label counts, and invalid pixels.

    All at their own size. Invalid pixels (None where none is, see `read_values`) are ignored in the mask.

    Raises:
        SegregError: all that is wrong, a problem for each file: it can't be read, the mask is missing, has another
            size than the image or holds values that are no class, or the rule is `none` and the size differs.
    """
    problems: list[Problem] = []
    image, mask, invalid, counts = None, None, None, np.empty(0, np.int64)
    if read := _attempt(lambda: _image(dataset, sample, input), sample.image, problems):
        image, invalid = read
    if sample.mask is None:
        problems.append(Problem("has no mask", Place(str(sample.image))))
    elif read := _attempt(lambda: _mask(dataset, sample), sample.mask, problems):
        mask, counts = read
    if image is not None:
        size = (image.shape[0], image.shape[1])
        if mask is not None and mask.shape[-2:] != size:
            sizes = f"is {format_size(size)} but its mask {sample.mask} is {format_size(mask.shape[-2:])}"
            problems.append(Problem(f"{sizes} (height x width)", Place(str(sample.image))))
        else:
            _attempt(lambda: placement(size, input), sample.image, problems)
    if problems or image is None or mask is None:
        raise SegregError.of(problems)
    if invalid is not None:
        mask = ignore_invalid(mask, invalid)
        counts = label_counts(mask, dataset.task)
    return image, mask, counts, invalid


def original_mask(dataset: Dataset, sample: Sample, input: Input) -> NDArray[np.uint8]:
    """Return a sample's mask at its own size, in which the image's invalid pixels are ignored."""
    mask = np.array(dataset.read_mask(sample), order="C")  # a copy: torch refuses negative strides
    if input.dtype != "float32" and input.nodata is None:
        return mask
    return ignore_invalid(mask, _image(dataset, sample, input)[1])


def wrong_labels(mask: NDArray[np.uint8], task: Task) -> list[int]:
    """Return the values of a mask that are no class of the task and not 255, in order."""
    return _wrong(histograms(mask), task)


def _wrong(counts: NDArray[np.int64], task: Task) -> list[int]:
    found = np.flatnonzero(counts.any(axis=0))
    return [int(value) for value in found if task.highest_label < value != IGNORE_INDEX]


def counted_labels(task: Task) -> int:
    """Return how many numbers `label_counts` returns."""
    return 2 * task.channels if task.mode == "multilabel" else task.label_count + 1


def label_counts(mask: NDArray[np.uint8], task: Task) -> NDArray[np.int64]:
    """Return the pixels of each label, then the ignored ones, int64 `[L + 1]`.

    Of a multilabel mask: the pixels of each class, then those that each class's layer ignores, int64 `[2 K]`.
    """
    return _of_labels(histograms(mask), task)


def _of_labels(counts: NDArray[np.int64], task: Task) -> NDArray[np.int64]:
    if task.mode == "multilabel":
        return np.concatenate([counts[:, 1], counts[:, IGNORE_INDEX]])
    return np.append(counts[0, : task.highest_label + 1], counts[0, IGNORE_INDEX])


def allowed_labels(task: Task) -> str:
    """Return which labels a mask of the task may hold, as a message says it."""
    return f"the {task.mode} task has 0 to {task.highest_label}, and {IGNORE_INDEX} for pixels to ignore"


def _image(dataset: Dataset, sample: Sample, input: Input) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
    image = np.asarray(dataset.read_image(sample))
    if image.ndim not in (2, 3) or image.dtype.kind not in "buif" or 0 in image.shape:
        raise SegregError(
            f"{sample.image}: the data set gave an image of shape {list(image.shape)} and type {image.dtype}; "
            "it must be [H, W] or [H, W, C] of uint8, uint16 or float32"
        )
    return read_values(image, input, sample.image)


def _mask(dataset: Dataset, sample: Sample) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return a sample's mask, checked, and its `label_counts`."""
    task, mask = dataset.task, np.asarray(dataset.read_mask(sample))
    if mask.dtype != np.uint8 or mask.ndim < 2 or mask.shape != mask_shape(task, mask.shape[-2:]):
        shape = f"[{task.channels}, H, W]" if task.mode == "multilabel" else "[H, W]"
        raise SegregError(
            f"{sample.mask}: the data set gave a mask of shape {list(mask.shape)} and type {mask.dtype}; "
            f"for a {task.mode} task it must be uint8, {shape}"
        )
    found = histograms(mask)
    if wrong := _wrong(found, task):
        values = listed([str(value) for value in wrong], quote="")
        verdict = "is not a class" if len(wrong) == 1 else "are not classes"
        raise SegregError(
            f"{sample.mask}: the mask holds {values}, which {verdict}: {allowed_labels(task)}",
            hint="the data set's settings say how mask values become classes",
        )
    return mask, _of_labels(found, task)


def _attempt(step: Callable[[], Any], file: object, problems: list[Problem]) -> Any:
    """Return what a step gives, or note what is wrong and return None."""
    try:
        return step()
    except SegregError as error:
        named = all(str(file) in problem.message for problem in error.problems)
        problems.extend((error if named else error.at(Place(str(file)))).problems)
    except Exception as error:  # decoders and plugins raise whatever they stumble over
        problems.append(Problem(f"can't be read: {type(error).__name__}: {error}", Place(str(file))))
    return None


# digests of files; files that have not changed are not read again


_State = tuple[int, int, int]
"""By what a file is known to be unchanged: its size, when its content and when its entry changed, in ns."""


def content_digests(paths: Iterable[Path]) -> dict[Path, str | None]:
    """Return a digest of what each file holds, or None where there is no file.

    A folder's digest is that of all the files in it. Digests are remembered in `index_file()`, by absolute path, size
    and time of change; without a usable index every file is read.
    """
    index = index_file()
    settled = time.time_ns() - int(SETTLED_SECONDS * 1e9)
    members = {path: _files(path) for path in dict.fromkeys(paths)}
    files = list(dict.fromkeys(file for found in members.values() for file in found))
    with ThreadPoolExecutor(THREADS) as pool:
        states = {file: state for file, state in zip(files, pool.map(_state, files), strict=True) if state}
        digests = _recall(index, states)
        unknown = [file for file in states if file not in digests]
        digests.update(zip(unknown, pool.map(_digest, unknown), strict=True))
    _remember(index, {file: (states[file], digests[file]) for file in unknown if max(states[file][1:]) < settled})
    return {path: _combined(path, found, digests) for path, found in members.items()}


def _files(path: Path) -> list[Path]:
    return sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]


def _combined(path: Path, files: Sequence[Path], digests: Mapping[Path, str]) -> str | None:
    if files == [path]:
        return digests.get(path)
    parts = "\n".join(f"{file.relative_to(path)} {digests.get(file)}" for file in files)
    return hashlib.blake2b(parts.encode(errors="surrogatepass"), digest_size=16).hexdigest()


def _state(file: Path) -> _State | None:
    try:
        found = file.stat()
    except OSError:
        return None
    if not stat.S_ISREG(found.st_mode):  # opening a named pipe would block; reading it as an image tells so
        return None
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _digest(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            return hashlib.file_digest(opened, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
    except OSError as error:
        return f"unreadable {error.errno}"  # reading it as an image will tell what is wrong


def _recall(index: Path, states: Mapping[Path, _State]) -> dict[Path, str]:
    known = {}
    try:
        with contextlib.closing(_open(index)) as table:
            query = "SELECT digest FROM files WHERE path = ? AND size = ? AND modified = ? AND changed = ?"
            for file, state in states.items():
                if found := table.execute(query, (_in_index(file), *state)).fetchone():
                    known[file] = str(found[0])
    except (sqlite3.Error, OSError):
        return known  # an index is a convenience: no disk lock, a damaged file or no permission mustn't stop a run
    return known


def _in_index(file: Path) -> str:
    return str(file.absolute()).encode(errors="backslashreplace").decode()  # SQLite takes no undecodable bytes


def _remember(index: Path, found: Mapping[Path, tuple[_State, str]]) -> None:
    rows = [
        (_in_index(file), *state, digest)
        for file, (state, digest) in found.items()
        if not digest.startswith("unreadable")
    ]
    if not rows:
        return
    try:
        with contextlib.closing(_open(index)) as table, table:
            table.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?)", rows)
    except sqlite3.OperationalError:
        return  # another process holds it for long, or the disk takes no locks
    except sqlite3.DatabaseError:
        index.unlink(missing_ok=True)  # damaged: begun anew next time
    except OSError:
        return


def _open(index: Path) -> sqlite3.Connection:
    index.parent.mkdir(parents=True, exist_ok=True)
    table = sqlite3.connect(index, timeout=10)
    try:
        table.execute(
            "CREATE TABLE IF NOT EXISTS files"
            "(path TEXT PRIMARY KEY, size INTEGER, modified INTEGER, changed INTEGER, digest TEXT)"
        )
    except sqlite3.Error:
        table.close()
        raise
    return table

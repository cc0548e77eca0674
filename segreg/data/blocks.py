"""Images and masks of any size in one file, of which a window is read without touching the rest.

An image lies in the file as blocks of 128 x 128 pixels, row by row; those at the right and at the bottom are as large
as what is left. A block holds its pixels' values and then its mask's. The blocks of a row that a window crosses lie
side by side, so a crop of 512 pixels costs five reads, whatever the size of its image.

The file is read by `pread` rather than mapped: what was read does not count as the process's memory, and a file that
somebody cut short is an error instead of the end of the process.
"""

from __future__ import annotations

import contextlib
import os
import threading
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

SIDE = 128
"""Height and width of a block in pixels."""


class DamagedBlocksError(ValueError):
    """What lies in the file is not what was written."""


@dataclass(frozen=True)
class Stored:
    """Where an image lies in the file, and its height and width in pixels."""

    offset: int
    height: int
    width: int


@dataclass(frozen=True)
class BlockLayout:
    """What a pixel takes.

    Attributes:
        dtype: of the image's values.
        channels: of the image.
        layers: of the mask; None for a mask `[H, W]`.
    """

    dtype: DTypeLike
    channels: int
    layers: int | None = None

    @property
    def pixel_bytes(self) -> int:
        """Return the bytes of a pixel, its mask's included."""
        return self.image_bytes + (self.layers or 1)

    @property
    def image_bytes(self) -> int:
        """Return the bytes of a pixel of the image."""
        return np.dtype(self.dtype).itemsize * self.channels

    def packed(self, image: NDArray[Any], mask: NDArray[np.uint8]) -> bytes:
        """Return a block's bytes, of an image `[h, w, C]` and a mask `[h, w]` or `[K, h, w]`."""
        return np.ascontiguousarray(image).tobytes() + np.ascontiguousarray(mask).tobytes()

    def unpacked(self, block: memoryview, height: int, width: int) -> tuple[NDArray[Any], NDArray[np.uint8]]:
        """Return the image and the mask of a block; both are views of its bytes."""
        ends = height * width * self.image_bytes
        image = np.frombuffer(block[:ends], self.dtype).reshape(height, width, self.channels)
        layers = () if self.layers is None else (self.layers,)
        return image, np.frombuffer(block[ends:], np.uint8).reshape(*layers, height, width)


def count_blocks(height: int, width: int) -> int:
    """Return how many blocks an image has."""
    return -(-height // SIDE) * -(-width // SIDE)


class BlockWriter:
    """Writes images one behind the other; several threads may do so at once.

    Args:
        file: is made.
        layout: of all images.
    """

    def __init__(self, file: Path, layout: BlockLayout) -> None:
        self.layout = layout
        self.end = 0
        self._descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        self._lock = threading.Lock()

    def add(self, image: NDArray[Any], mask: NDArray[np.uint8]) -> tuple[Stored, NDArray[np.uint32]]:
        """Write an image `[H, W, C]` and its mask; return where it lies and the CRC-32 of each block.

        Raises:
            OSError: the disk is full, or can't be written to.
        """
        height, width = image.shape[:2]
        with self._lock:
            stored = Stored(self.end, height, width)
            self.end += height * width * self.layout.pixel_bytes
        return stored, write_blocks(self._descriptor, self.layout, stored, image, mask)

    def close(self) -> None:
        """Close the file, after what was written has reached the disk."""
        with contextlib.suppress(OSError):
            os.fsync(self._descriptor)
        os.close(self._descriptor)


def write_blocks(
    descriptor: int, layout: BlockLayout, stored: Stored, image: NDArray[Any], mask: NDArray[np.uint8]
) -> NDArray[np.uint32]:
    """Write an image where it is stored, and return the CRC-32 of each block."""
    sums = []
    for place, blocks in _packed(layout, stored, image, mask):
        sums += [zlib.crc32(block) for block in blocks]
        row, written = memoryview(b"".join(blocks)), 0
        while written < len(row):
            written += os.pwrite(descriptor, row[written:], place + written)
    return np.array(sums, np.uint32)


def block_sums(layout: BlockLayout, stored: Stored, image: NDArray[Any], mask: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """Return the CRC-32 of each block of an image, which is not written."""
    return np.array([zlib.crc32(b) for _, blocks in _packed(layout, stored, image, mask) for b in blocks], np.uint32)


def _packed(
    layout: BlockLayout, stored: Stored, image: NDArray[Any], mask: NDArray[np.uint8]
) -> Iterator[tuple[int, list[bytes]]]:
    """Return each row of blocks and where it begins in the file."""
    for rows, columns in _rows_of_blocks(stored, 0, 0, stored.height, stored.width):
        place = stored.offset + rows.start * stored.width * layout.pixel_bytes
        yield place, [layout.packed(image[rows, each], mask[..., rows, each]) for each in columns]


@dataclass(eq=False)
class BlockFile:
    """A file of images, read by windows. It can be pickled: the copy opens the file again.

    Attributes:
        file: the file.
        layout: of all images.
        images: where each image lies.
        sums: the CRC-32 of every block, image by image; each is compared when its block is first read.
    """

    file: Path
    layout: BlockLayout
    images: list[Stored]
    sums: NDArray[np.uint32]
    _descriptor: int = field(default=-1, repr=False)

    def __post_init__(self) -> None:
        counts = [count_blocks(each.height, each.width) for each in self.images]
        self._first = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        self._compared = np.zeros(int(self._first[-1]), np.bool_)

    def window(
        self, number: int, top: int, left: int, height: int, width: int
    ) -> tuple[NDArray[Any], NDArray[np.uint8]]:
        """Return a part of an image, and of its mask, that lies inside it.

        Shape: `[height, width, C]` and `[height, width]` or `[K, height, width]`.

        Raises:
            DamagedBlocksError: a block is not what was written, or the file was cut short.
            OSError: the file can't be read.
        """
        stored = self.images[number]
        layout = self.layout
        image = np.empty((height, width, layout.channels), layout.dtype)
        mask = np.empty((*(() if layout.layers is None else (layout.layers,)), height, width), np.uint8)
        across = -(-stored.width // SIDE)
        for rows, columns in _rows_of_blocks(stored, top, left, height, width):
            deep = rows.stop - rows.start
            begin = rows.start * stored.width + columns[0].start * deep
            size = (columns[-1].stop - columns[0].start) * deep * layout.pixel_bytes
            read = memoryview(self._read(stored.offset + begin * layout.pixel_bytes, size))
            first = int(self._first[number]) + rows.start // SIDE * across
            for each in columns:
                wide = each.stop - each.start
                block, read = read[: deep * wide * layout.pixel_bytes], read[deep * wide * layout.pixel_bytes :]
                self._compare(first + each.start // SIDE, block)
                pixels, labels = layout.unpacked(block, deep, wide)
                above, beside = max(rows.start, top), max(each.start, left)
                below, right = min(rows.stop, top + height), min(each.stop, left + width)
                inside = slice(above - rows.start, below - rows.start), slice(beside - each.start, right - each.start)
                there = slice(above - top, below - top), slice(beside - left, right - left)
                image[there] = pixels[inside]
                mask[..., there[0], there[1]] = labels[..., inside[0], inside[1]]
        return image, mask

    def sums_of(self, number: int) -> NDArray[np.uint32]:
        """Return the CRC-32 of each block of an image."""
        return self.sums[int(self._first[number]) : int(self._first[number + 1])]

    def _compare(self, block: int, content: memoryview) -> None:
        if not self._compared[block]:
            if zlib.crc32(content) != int(self.sums[block]):
                raise DamagedBlocksError("is damaged")
            self._compared[block] = True

    def _read(self, offset: int, size: int) -> bytes:
        if self._descriptor < 0:
            self._descriptor = os.open(self.file, os.O_RDONLY)
            if hasattr(os, "posix_fadvise"):  # no reading ahead, which would fetch blocks that nobody asked for
                os.posix_fadvise(self._descriptor, 0, 0, os.POSIX_FADV_RANDOM)
        content = os.pread(self._descriptor, size, offset)
        if len(content) < size:
            raise DamagedBlocksError("was cut short while it was in use")
        return content

    def __del__(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_descriptor": -1, "_compared": np.zeros_like(self._compared)}


def _rows_of_blocks(
    stored: Stored, top: int, left: int, height: int, width: int
) -> Iterator[tuple[slice, list[slice]]]:
    """Return the rows of blocks that a window crosses, each with its pixels' rows and its blocks' columns."""
    for row in range(top // SIDE * SIDE, top + height, SIDE):
        columns = [
            slice(column, min(column + SIDE, stored.width)) for column in range(left // SIDE * SIDE, left + width, SIDE)
        ]
        yield slice(row, min(row + SIDE, stored.height)), columns

"""BatchLoader of images that lie on the device, all of them, and are augmented there."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from segreg.data.batched import BatchedAugmentation
from segreg.data.batched.augmentation import Group, grouped
from segreg.data.cache import PreprocessedDataset
from segreg.data.loader import Batch, Key
from segreg.data.prefetch import prefetch

if TYPE_CHECKING:
    import torch
    from torch import Tensor

PIECE = 64 << 20
"""Bytes of images that are copied at a time, which is all that the host holds of them."""


@dataclass(frozen=True, eq=False)
class Uploaded:
    """PreprocessedDataset images in a device's memory.

    Shape: images uint8 `[N, H, W, C]`, masks uint8 `[N, H, W]` (`[N, K, H, W]` if multilabel).

    Attributes:
        images: the images.
        masks: the masks.
        rows: the row of each sample's index into `Dataset.samples`.
        ids: the id of each sample's index.
    """

    images: Tensor
    masks: Tensor
    rows: Mapping[int, int]
    ids: Mapping[int, str]

    @classmethod
    def of(cls, prepared: PreprocessedDataset, indices: Sequence[int], device: torch.device) -> Uploaded:
        """Copy the samples with these indices to the device."""
        rows = [prepared.rows[index] for index in indices]
        images, masks = _copied(prepared.images, rows, device), _copied(prepared.masks, rows, device)
        prepared.release()
        ids = {index: prepared.id_of(index) for index in indices}
        return cls(images, masks, {index: row for row, index in enumerate(indices)}, ids)


def bytes_taken(prepared: PreprocessedDataset, count: int) -> int:
    """Return the bytes that so many prepared samples take."""
    return count * (int(np.prod(prepared.images.shape[1:])) + int(np.prod(prepared.masks.shape[1:])))


def _copied(array: np.ndarray, rows: Sequence[int], device: torch.device) -> Tensor:
    import torch

    whole = torch.empty((len(rows), *array.shape[1:]), dtype=torch.uint8, device=device)
    at_a_time = max(1, PIECE // max(1, int(np.prod(array.shape[1:]))))
    for start in range(0, len(rows), at_a_time):
        piece = np.stack([array[row] for row in rows[start : start + at_a_time]])
        whole[start : start + len(piece)].copy_(torch.from_numpy(piece))
    return whole


@dataclass(frozen=True)
class _Planned:
    """A batch before its pixels: what is told of it, and everything that the device has to know, in one tensor."""

    indices: tuple[int, ...]
    groups: list[Group]
    numbers: Tensor


class OnDevice:
    """Make batches on the device.

    A thread draws ahead. Then a batch is one copy of a few hundred bytes to the device and work there, and the
    CPU waits for neither.

    Args:
        images: all that batches are made of.
        augmentation: what is done to them, None for nothing.
        seed: the seed that augmentations depend on, with the epoch and a sample's id.
    """

    def __init__(self, images: Uploaded, augmentation: BatchedAugmentation | None, seed: int) -> None:
        self.images = images
        self.augmentation = augmentation
        self.seed = seed

    def batches(self, keys: Sequence[Key]) -> Generator[Batch, None, None]:
        """Return the batch of each key, its images and targets on the device."""
        with closing(prefetch(self._planned, keys)) as planned:
            for one in planned:
                yield self._batch(one)

    def _planned(self, key: Key) -> _Planned:
        import torch

        epoch, indices = key
        groups: list[Group] = []
        # Rows too are numbers among numbers: a float32 tells 16 million of them apart.
        numbers = np.array([self.images.rows[index] for index in indices], np.float32)
        if self.augmentation is not None:
            draw, ids = self.augmentation.draw, self.images.ids
            groups, drawn = grouped([draw(self.seed, epoch, ids[index]) for index in indices])
            numbers = np.concatenate([numbers, drawn])
        return _Planned(indices, groups, torch.from_numpy(numbers))

    def _batch(self, planned: _Planned) -> Batch:
        count, input_images, numbers = len(planned.indices), self.input_images, planned.numbers
        if input_images.images.is_cuda:
            # From memory that the system may move, the CPU would wait for the copy. It is pinned here and not by
            # the thread that planned it: there the current device is the first one, whichever the training's is.
            numbers = numbers.pin_memory()
        numbers = numbers.to(input_images.images.device, non_blocking=True)
        rows = numbers[:count].long()
        images = input_images.images.index_select(0, rows).permute(0, 3, 1, 2)
        masks = input_images.masks.index_select(0, rows)
        if self.augmentation is not None:
            images, masks = self.augmentation(images, masks, planned.groups, numbers[count:])
        return Batch(images, masks, tuple(input_images.ids[index] for index in planned.indices), planned.indices)

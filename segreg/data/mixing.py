"""Mix the images of a training batch, by random numbers that the seed, the epoch and the samples' ids alone decide."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segreg.data.augment import generators
from segreg.errors import SegregError
from segreg.registry.entry import where_made
from segreg.registry.protocols import BatchAugmentation, MixedBatch


@dataclass(frozen=True)
class Mixing:
    """Batch augmentations, one after the other.

    Attributes:
        parts: name and function of each.
        seed: the recipe's.
    """

    parts: Sequence[tuple[str, BatchAugmentation]]
    seed: int

    def __call__(self, images: Tensor, targets: Tensor, epoch: int, ids: Sequence[str]) -> MixedBatch:
        """Return the batch mixed; a single image as it is. One that has two truths is not mixed any further.

        Shape: images `[B, C, H, W]` and targets as `Task` has them.

        Raises:
            SegregError: a part gave something else than a batch of the same size and type.
        """
        mixed = MixedBatch(images, targets)
        if len(images) < 2:
            return mixed
        generator, _ = generators(self.seed, "batch", epoch, *ids)
        for name, part in self.parts:
            if mixed.others is None:
                mixed = part(mixed.images, mixed.targets, generator)
                refuse_changed(name, part, mixed, images, targets)
        return mixed

    def of_samples(
        self, samples: Sequence[tuple[NDArray[Any], NDArray[np.uint8]]], epoch: int, ids: Sequence[str]
    ) -> list[tuple[NDArray[Any], NDArray[np.uint8]]]:
        """Return the images and masks of a batch mixed, to be looked at; of two truths the one with the larger share.

        Shape: images `[H, W, C]` and masks `[H, W]`, or `[K, H, W]` if multilabel.
        """
        images = torch.stack([torch.from_numpy(image).movedim(-1, 0) for image, _ in samples])
        mixed = self(images, torch.stack([torch.from_numpy(mask) for _, mask in samples]), epoch, ids)
        truths = mixed.targets if mixed.others is None or mixed.share >= 0.5 else mixed.others
        return list(zip(mixed.images.movedim(1, -1).numpy(), truths.numpy(), strict=True))


def refuse_changed(name: str, part: BatchAugmentation, mixed: Any, images: Tensor, targets: Tensor) -> None:
    """Refuse what is not a mixed batch of the size and type of the images and targets that it was made of.

    Raises:
        SegregError: it is not; the message names the part.
    """
    hint = f"it is defined at {where_made(part)}"
    if not isinstance(mixed, MixedBatch):
        message = f"gave {type(mixed).__name__} where a segreg.MixedBatch was expected"
        raise SegregError(f'the batch augmentation "{name}" {message}', hint=hint)
    pairs = [("images", mixed.images, images), ("targets", mixed.targets, targets)]
    for what, after, before in [*pairs, *([("others", mixed.others, targets)] if mixed.others is not None else [])]:
        if after.shape != before.shape or after.dtype != before.dtype:
            raise SegregError(
                f'the batch augmentation "{name}" turns {what} {list(before.shape)} of {before.dtype} into '
                f"{list(after.shape)} of {after.dtype}; they must keep their size and type",
                hint=hint,
            )

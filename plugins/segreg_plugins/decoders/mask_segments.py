"""Which segments a batch of targets has: one for each class that an image shows, as MaskFormer takes semantic masks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from segreg.task import IGNORE_INDEX


@dataclass(frozen=True)
class Segments:
    """The N segments of a batch of B images, image by image.

    Attributes:
        image: index of each segment's image, int64 `[N]`.
        label: its class, int64 `[N]`.
        channel: where in `targets` its pixels are, int64 `[N]`.
        value: which they have there, int64 `[N]`.
        counts: how many segments each image has, B numbers.
        targets: int64 `[B, 1, H, W]` class numbers, or `[B, K, H, W]` of 0 and 1 where classes overlap; 255 is ignored.
    """

    image: Tensor
    label: Tensor
    channel: Tensor
    value: Tensor
    counts: list[int]
    targets: Tensor

    @classmethod
    def of(cls, targets: Tensor, labels: int, *, overlapping: bool) -> Segments:
        """Return the segments of int64 targets `[B, H, W]`, or `[B, K, H, W]` if they overlap. A device sync."""
        if overlapping:
            shown = (targets == 1).flatten(2).any(dim=2)
        else:
            shown = torch.zeros(len(targets), IGNORE_INDEX + 1, dtype=torch.bool, device=targets.device)
            shown = shown.scatter_(1, targets.flatten(1), value=True)[:, :labels]
        image, label = shown.nonzero(as_tuple=True)  # sync
        counts = shown.sum(dim=1).tolist()
        if overlapping:
            return cls(image, label, label, torch.ones_like(label), counts, targets)
        return cls(image, label, torch.zeros_like(label), label, counts, targets[:, None])

    def at(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Return whether points belong to their segments, and whether they count, both of the nearest pixel.

        Shape: points `[..., N, P, 2]`, x and y in [0, 1), to two float32 `[..., N, P]` of zeros and ones; what does not
        count is 0 in both.
        """
        height, width = self.targets.shape[-2:]
        rows = (points[..., 1] * height).long().clamp(max=height - 1)
        columns = (points[..., 0] * width).long().clamp(max=width - 1)
        found = self.targets[self.image[:, None], self.channel[:, None], rows, columns]
        return (found == self.value[:, None]).float(), (found != IGNORE_INDEX).float()

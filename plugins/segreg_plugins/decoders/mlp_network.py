"""SegFormer's all-MLP decoder (arXiv:2105.15203, section 3.2): linear layers alone, and bilinear upsampling.

Where the paper leaves a choice:

* A linear layer on every pixel's channels is a 1x1 convolution, and is one here.
* The fusing layer has BatchNorm and ReLU behind it and no bias, as in the authors' code.
* Dropout before the head drops whole channels, as in the authors' code.
* BatchNorm on a single value uses the running statistics (see `batch_norm`).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segreg.models.pyramid import Pyramid
from segreg_plugins.batch_norm import BatchNorm2d


class AllMLP(nn.Module):
    """The decoder.

    Args:
        pyramid: gives any number of levels, finest first.
        stride: that every level is upsampled to.
        channels: of each level's linear layer and of the output.
        dropout: before the head.

    Shape: the encoder's levels to `[B, channels, H / stride, W / stride]`.
    """

    def __init__(self, pyramid: Pyramid, *, stride: int, channels: int, dropout: float) -> None:
        super().__init__()
        self.channels = channels
        self.stride = stride
        self.pyramid = pyramid
        self.linear = nn.ModuleList(nn.Conv2d(c, channels, 1) for c in pyramid.channels)
        self.fuse = nn.Sequential(
            nn.Conv2d(len(pyramid.channels) * channels, channels, 1, bias=False),
            BatchNorm2d(channels),
            nn.ReLU(inplace=True),
        )
        self.dropout = nn.Dropout2d(dropout)

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """Return the fused features."""
        # A linear layer before the upsampling is the same as after it, and sees fewer pixels.
        maps = [linear(level) for linear, level in zip(self.linear, self.pyramid(levels), strict=True)]
        size = self._size(maps, levels)
        same = [F.interpolate(m, size=size, mode="bilinear", align_corners=False) for m in maps]
        fused: Tensor = self.dropout(self.fuse(torch.cat(same, dim=1)))
        return fused

    def _size(self, maps: Sequence[Tensor], levels: Sequence[Tensor]) -> tuple[int, int]:
        if self.pyramid.strides[0] == self.stride:
            height, width = maps[0].shape[-2:]
        else:
            height, width = (max(1, round(side / self.stride)) for side in self.pyramid.image_size(levels))
        return height, width

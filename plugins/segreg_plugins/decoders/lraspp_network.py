"""LR-ASPP (arXiv:1905.02244, section 6.4): a gated coarse level and a fine one, each with a linear classifier.

Layers, names and numbers are those of torchvision's LRASPPHead. Where that, and so this, departs from the paper, and
what is added:

* The gate is pooled over the whole image; the paper pools windows of 49x49 cells with strides of 16 and 20, and
  upsamples the gate.
* BatchNorm takes a single value (see `batch_norm`), so that a batch of one small image trains.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segreg.models.pyramid import Pyramid
from segreg_plugins.batch_norm import BatchNorm2d


class LRASPP(nn.Module):
    """The decoder: the gated coarse level, upsampled, below the untouched fine level.

    Args:
        pyramid: gives two levels, the fine one and the coarsest.
        reduced: channels that the coarsest level is reduced to.

    Shape: the encoder's levels to `[B, fine channels + reduced, H / stride, W / stride]`, the fine level's first.
    """

    def __init__(self, pyramid: Pyramid, reduced: int) -> None:
        super().__init__()
        self.fine_channels, coarse_channels = pyramid.channels
        self.reduced = reduced
        self.channels = self.fine_channels + reduced
        self.stride = pyramid.strides[0]
        self.pyramid = pyramid
        self.cbr = nn.Sequential(
            nn.Conv2d(coarse_channels, reduced, 1, bias=False), BatchNorm2d(reduced), nn.ReLU(inplace=True)
        )
        self.scale = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(coarse_channels, reduced, 1, bias=False), nn.Sigmoid()
        )

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """Return both maps, stacked."""
        fine, coarse = self.pyramid(levels)
        gated = self.cbr(coarse) * self.scale(coarse)
        upsampled = F.interpolate(gated, size=fine.shape[-2:], mode="bilinear", align_corners=False)
        return torch.cat([fine, upsampled], dim=1)

    def head(self, classes: int) -> nn.Module:
        """Return the two classifiers."""
        return Classifiers(self.fine_channels, self.reduced, classes)


class Classifiers(nn.Module):
    """A linear classifier for each of two stacked maps; their logits are added.

    Shape: `[B, low_channels + high_channels, h, w]` to `[B, classes, h, w]`.
    """

    def __init__(self, low_channels: int, high_channels: int, classes: int) -> None:
        super().__init__()
        self.low_classifier = nn.Conv2d(low_channels, classes, 1)
        self.high_classifier = nn.Conv2d(high_channels, classes, 1)

    def forward(self, stacked: Tensor) -> Tensor:
        """Return the logits."""
        low, high = stacked.tensor_split((self.low_classifier.in_channels,), dim=1)
        logits: Tensor = self.low_classifier(low) + self.high_classifier(high)
        return logits

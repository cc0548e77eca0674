"""DeepLabV3+ (arXiv:1802.02611): atrous spatial pyramid pooling and a decoder that refines it with fine features.

The pooling is that of DeepLabV3 (arXiv:1706.05587, section 3.3). Where the papers leave a choice or this departs:

* Separable convolutions have BatchNorm and ReLU after the depthwise and after the pointwise step, as the paper has them
  in its Xception (section 4.3) and the authors' code everywhere.
* Bilinear upsampling has `align_corners=False`, for image sides that are multiples of the stride; the paper's crops
  of 513 pixels are a multiple plus one and call for True.
* The dropout after the projection is the authors' code's; the papers have none.
* BatchNorm on a single value, as image pooling gives for a batch of one image, uses the running statistics.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segreg.models.pyramid import Pyramid
from segreg_plugins.batch_norm import BatchNorm2d
from segreg_plugins.decoders.atrous import AtrousConv2d


def paired_rates(stride: int) -> tuple[int, ...]:
    """Return the atrous rates that see as far on a level of `stride` as 6, 12 and 18 do at 16.

    12, 24, 36 at stride 8 is the papers'; every other stride continues their rule.
    """
    return tuple(max(1, round(rate * 16 / stride)) for rate in (6, 12, 18))


class DeepLabV3Plus(nn.Module):
    """The decoder: ASPP on the coarsest level, upsampled, joined with a fine level and refined.

    Args:
        pyramid: gives two levels, the fine one and the coarsest.
        rates: atrous rates of the 3x3 branches.
        image_pooling: whether the whole image is a branch.
        channels: of everything but the reduced fine level.
        low_level_channels: of the reduced fine level.
        separable: whether the 3x3 convolutions are depthwise separable.
        dropout: after the projection.

    Shape: the encoder's levels to `[B, channels, H / stride, W / stride]`.
    """

    def __init__(
        self,
        pyramid: Pyramid,
        *,
        rates: Sequence[int],
        image_pooling: bool = True,
        channels: int,
        low_level_channels: int,
        separable: bool,
        dropout: float,
    ) -> None:
        super().__init__()
        fine_channels, coarse_channels = pyramid.channels
        self.channels = channels
        self.stride = pyramid.strides[0]
        self.pyramid = pyramid
        self.aspp = ASPP(
            coarse_channels, channels, rates=rates, image_pooling=image_pooling, separable=separable, dropout=dropout
        )
        self.reduce = convolution(fine_channels, low_level_channels, 1)
        self.refine = nn.Sequential(
            convolution(channels + low_level_channels, channels, 3, separable=separable),
            convolution(channels, channels, 3, separable=separable),
        )

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """Return the refined features."""
        fine, coarse = self.pyramid(levels)
        context = F.interpolate(self.aspp(coarse), size=fine.shape[-2:], mode="bilinear", align_corners=False)
        refined: Tensor = self.refine(torch.cat([context, self.reduce(fine)], dim=1))
        return refined


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling: a 1x1, several atrous 3x3 convolutions and image pooling, side by side.

    The image pooling may be left out.

    Shape: `[B, in_channels, h, w]` to `[B, channels, h, w]`.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        *,
        rates: Sequence[int],
        image_pooling: bool = True,
        separable: bool,
        dropout: float,
    ) -> None:
        super().__init__()
        self.pointwise = convolution(in_channels, channels, 1)
        self.atrous = nn.ModuleList(
            convolution(in_channels, channels, 3, rate=rate, separable=separable) for rate in rates
        )
        self.image_pooling = (
            nn.Sequential(nn.AdaptiveAvgPool2d(1), convolution(in_channels, channels, 1)) if image_pooling else None
        )
        self.project = convolution(channels * (len(rates) + 1 + image_pooling), channels, 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, features: Tensor) -> Tensor:
        """Return features that see several scales."""
        images = []  # computed first: the order decides in which order gradients are added up
        if self.image_pooling is not None:
            # Upsampling a single value bilinearly is repeating it.
            images = [self.image_pooling(features).expand(-1, -1, *features.shape[-2:])]
        branches = [self.pointwise(features), *(branch(features) for branch in self.atrous), *images]
        pooled: Tensor = self.dropout(self.project(torch.cat(branches, dim=1)))
        return pooled


def convolution(in_channels: int, channels: int, size: int, *, rate: int = 1, separable: bool = False) -> nn.Sequential:
    """Return a convolution that keeps the size, with BatchNorm and ReLU; separable, it is two of them."""
    if separable:
        depthwise = _convolution(in_channels, in_channels, size, rate=rate, groups=in_channels)
        return nn.Sequential(*depthwise, *_convolution(in_channels, channels, 1))
    return nn.Sequential(*_convolution(in_channels, channels, size, rate=rate))


def _convolution(in_channels: int, channels: int, size: int, *, rate: int = 1, groups: int = 1) -> list[nn.Module]:
    if rate > 1 and size == 3:
        layer: nn.Conv2d = AtrousConv2d(in_channels, channels, rate=rate, groups=groups)
    else:
        layer = nn.Conv2d(
            in_channels, channels, size, padding=rate * (size // 2), dilation=rate, groups=groups, bias=False
        )
    return [layer, BatchNorm2d(channels), nn.ReLU(inplace=True)]

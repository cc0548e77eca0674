"""SMP's DPT on an encoder's levels (arXiv:2103.13413)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn

from segreg.models.pyramid import Pyramid
from segreg_plugins.batch_norm import with_single_values


def reassembled_strides(strides: Sequence[int]) -> tuple[int, ...]:
    """Return the strides of the four levels that DPT takes from an encoder of these strides.

    Those of strides 4 to 32 where there are several strides, or else four times the single one. DPT scales by whole
    factors from there, so that a stride which is not a power of two becomes the nearest one.
    """
    if len(set(strides)) > 1:
        return (4, 8, 16, 32)
    nearest = 2 ** round(math.log2(strides[0]))
    return (min(32, max(4, nearest)),) * 4


class DPT(nn.Module):
    """SMP's DPT decoder with its own head.

    Shape: the encoder's levels to `[B, channels, H / 2, W / 2]`, H and W being multiples of 32.
    """

    def __init__(self, network: nn.Module, pyramid: Pyramid, *, channels: int) -> None:
        super().__init__()
        from segmentation_models_pytorch.base.initialization import initialize_decoder

        initialize_decoder(network)
        self.network = with_single_values(network)
        self.pyramid = pyramid
        self.channels = channels
        self.stride = 2
        self.size_divisor = pyramid.size_divisor

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """Return the fused features."""
        features = self.pyramid(levels)
        fused: Tensor = self.network(features, [None] * len(features))
        return fused

    def head(self, classes: int) -> nn.Module:
        """Return SMP's head: two convolutions and upsampling to the image's size with aligned corners."""
        from segmentation_models_pytorch.base.initialization import initialize_head
        from segmentation_models_pytorch.decoders.dpt.decoder import DPTSegmentationHead

        head = DPTSegmentationHead(self.channels, classes, kernel_size=3, upsampling=2)
        initialize_head(head)
        return with_single_values(head)

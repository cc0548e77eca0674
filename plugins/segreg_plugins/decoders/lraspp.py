"""The builder of LR-ASPP, MobileNetV3's light head, arXiv:1905.02244."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from segreg.errors import SegregError
from segreg.settings import PositiveInt

if TYPE_CHECKING:
    from segreg.registry.protocols import Decoder, Encoder


def lraspp(
    encoder: Encoder,
    *,
    output_stride: Literal[8, 16, 32] = 16,
    channels: PositiveInt = 128,
    low_level_stride: PositiveInt = 8,
) -> Decoder:
    """LR-ASPP, MobileNetV3's light head: the coarsest level gated by its own mean, beside one fine level.

    Its numbers are those of torchvision's LRASPPHead. The decoder gives both maps stacked; its head is the two linear
    classifiers whose logits are added.

    Args:
        output_stride: coarsest stride of the encoder's levels; it is dilated for that, or resampled where it can't be.
        channels: channels that the coarsest level is reduced to.
        low_level_stride: stride of the fine level, which is the decoder's own.

    Raises:
        SegregError: the fine level is not finer than the coarse one.
    """
    from segreg.models.pyramid import at_output_stride, level_at_stride
    from segreg_plugins.decoders.lraspp_network import LRASPP

    if low_level_stride > output_stride:
        raise SegregError(
            f"low_level_stride is {low_level_stride}, coarser than the output_stride of {output_stride}",
            hint="the paper has 8",
        )
    dilated = at_output_stride(encoder, output_stride)
    fine = level_at_stride(dilated, low_level_stride)
    return LRASPP(dilated.pick((fine, low_level_stride), (-1, dilated.strides[-1])), channels)

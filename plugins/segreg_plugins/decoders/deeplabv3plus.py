"""The builder of DeepLabV3+, written from scratch after its paper, arXiv:1802.02611."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from segreg.errors import SegregError
from segreg.settings import Fraction, PositiveInt

if TYPE_CHECKING:
    from segreg.registry.protocols import Decoder, Encoder


def deeplabv3plus(
    encoder: Encoder,
    *,
    output_stride: Literal[8, 16, 32] = 16,
    rates: tuple[PositiveInt, ...] | None = None,
    channels: PositiveInt = 256,
    low_level_channels: PositiveInt = 48,
    low_level_stride: PositiveInt = 4,
    convolution: Literal["plain", "separable"] = "separable",
    image_pooling: bool = True,
    dropout: Fraction = 0.1,
) -> Decoder:
    """DeepLabV3+ from scratch: atrous spatial pyramid pooling, refined with one level of fine features.

    Args:
        output_stride: coarsest stride of the encoder's levels; it is dilated for that, or resampled where it can't be.
        rates: atrous rates of the 3x3 branches. Null pairs them with the stride as the paper does, 6, 12, 18 at 16 and
            12, 24, 36 at 8; 3, 6, 9 at 32 is our own continuation of that rule.
        channels: channels of the branches, the projection and the refinements.
        low_level_channels: channels that the fine features are reduced to.
        low_level_stride: stride of the fine features, which is the decoder's own.
        convolution: kind of the atrous and refining 3x3 convolutions. The paper's best networks have separable ones
            (its section 4.3), its ResNet-101 ablations (4.1 and 4.2) plain ones.
        image_pooling: whether features of the whole image are one of the branches. The paper has them on VOC, and is
            better without them on Cityscapes (its section 4.5).
        dropout: share of channel values dropped after the projection. The paper names none; 0.1 there is what the
            authors' code has.

    Raises:
        SegregError: the fine features are not finer than the coarse ones.
    """
    from segreg.models.pyramid import at_output_stride, level_at_stride
    from segreg_plugins.decoders.deeplabv3plus_network import DeepLabV3Plus, paired_rates

    if low_level_stride > output_stride:
        raise SegregError(
            f"low_level_stride is {low_level_stride}, coarser than the output_stride of {output_stride}",
            hint="the paper has 4",
        )
    dilated = at_output_stride(encoder, output_stride)
    fine = level_at_stride(dilated, low_level_stride)
    return DeepLabV3Plus(
        dilated.pick((fine, low_level_stride), (-1, dilated.strides[-1])),
        rates=paired_rates(dilated.strides[-1]) if rates is None else rates,
        image_pooling=image_pooling,
        channels=channels,
        low_level_channels=low_level_channels,
        separable=convolution == "separable",
        dropout=dropout,
    )

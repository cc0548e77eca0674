"""The builders of SMP's decoders that look at several scales side by side: FPN, PSPNet, UPerNet and SegFormer's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from segreg.errors import SegregError
from segreg.settings import Fraction, PositiveInt

if TYPE_CHECKING:
    from segreg.registry.protocols import Decoder, Encoder


def fpn(
    encoder: Encoder,
    *,
    pyramid_channels: PositiveInt = 256,
    channels: PositiveInt = 128,
    merge: Literal["add", "cat"] = "add",
    dropout: Fraction = 0.2,
    interpolation: Literal["nearest", "bilinear", "bicubic"] = "nearest",
) -> Decoder:
    """Feature pyramid network as SMP has it, on the levels of strides 4 to 32.

    Args:
        pyramid_channels: of each level of the pyramid.
        channels: of each level before they are merged; a multiple of 32, for GroupNorm.
        merge: whether the four levels are added or stacked.
        dropout: share of channels dropped before the head.
        interpolation: how levels are upsampled.

    Raises:
        SegregError: channels that are no multiple of 32.
    """
    from segmentation_models_pytorch.decoders.fpn.decoder import FPNDecoder

    from segreg_plugins.decoders.smp.network import SmpDecoder, by_stride

    if channels % 32:
        raise SegregError(f"channels is {channels}; a multiple of 32 was expected, for GroupNorm of 32 groups")
    features = by_stride(encoder, 2, 5)
    network = FPNDecoder(
        encoder_channels=features.channels,
        pyramid_channels=pyramid_channels,
        segmentation_channels=channels,
        dropout=dropout,
        merge_policy=merge,
        interpolation_mode=interpolation,
    )
    return SmpDecoder(network, features, channels=network.out_channels, stride=4, head_kernel=1)


def pspnet(
    encoder: Encoder,
    *,
    channels: PositiveInt = 512,
    depth: Literal[3, 4, 5] = 3,
    dropout: Fraction = 0.2,
    norm: Literal["batchnorm", "identity"] = "batchnorm",
) -> Decoder:
    """PSPNet as SMP has it: one level, pooled to grids of 1, 2, 3 and 6 cells.

    Args:
        channels: of the output.
        depth: which level is taken: that of stride 8, 16 or 32. Coarser ones of the encoder are computed and not used;
            an SMP encoder with the same `depth` leaves them out, as SMP's own model does.
        dropout: share of channels dropped before the head.
        norm: normalisation after each convolution; the grid of one cell has none.
    """
    from segmentation_models_pytorch.decoders.pspnet.decoder import PSPDecoder

    from segreg_plugins.decoders.smp.network import SmpDecoder, by_stride

    # SMP divides the channels among four grids and counts on nothing being left over.
    features = by_stride(encoder, depth, depth, multiple=4)
    network = PSPDecoder(encoder_channels=features.channels, use_norm=norm, out_channels=channels, dropout=dropout)
    return SmpDecoder(network, features, channels=channels, stride=2**depth, head_kernel=3)


def upernet(
    encoder: Encoder,
    *,
    channels: PositiveInt = 256,
    norm: Literal["batchnorm", "identity"] = "batchnorm",
) -> Decoder:
    """UPerNet as SMP has it: pyramid pooling on the coarsest level, then a feature pyramid of strides 4 to 32.

    Args:
        channels: of every step.
        norm: normalisation after each convolution.
    """
    from segmentation_models_pytorch.decoders.upernet.decoder import UPerNetDecoder

    from segreg_plugins.decoders.smp.network import SmpDecoder, by_stride

    features = by_stride(encoder, 2, 5)
    network = UPerNetDecoder(encoder_channels=features.channels, decoder_channels=channels, use_norm=norm)
    return SmpDecoder(network, features, channels=channels, stride=4, head_kernel=1)


def segformer(encoder: Encoder, *, channels: PositiveInt = 256) -> Decoder:
    """SegFormer's decoder as SMP has it: every level through one linear layer, resized to stride 4 and fused.

    Args:
        channels: of every level's linear layer and of the output.
    """
    from segmentation_models_pytorch.decoders.segformer.decoder import SegformerDecoder

    from segreg_plugins.decoders.smp.network import SmpDecoder, by_stride

    features = by_stride(encoder, 1, 5)
    network = SegformerDecoder(encoder_channels=features.channels, segmentation_channels=channels)
    return SmpDecoder(network, features, channels=channels, stride=4, head_kernel=1)

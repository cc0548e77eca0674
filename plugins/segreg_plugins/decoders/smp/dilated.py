"""The builders of SMP's decoders that want a dilated encoder: DeepLabV3, DeepLabV3+ and PAN."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from segreg.settings import Fraction, PositiveInt

if TYPE_CHECKING:
    from segreg.registry.protocols import Decoder, Encoder


def deeplabv3(
    encoder: Encoder,
    *,
    output_stride: Literal[8, 16] = 8,
    rates: tuple[PositiveInt, PositiveInt, PositiveInt] = (12, 24, 36),
    channels: PositiveInt = 256,
    convolution: Literal["plain", "separable"] = "plain",
    dropout: Fraction = 0.5,
    dead_taps: Literal["exclude", "compute"] = "exclude",
) -> Decoder:
    """DeepLabV3 as SMP has it: atrous spatial pyramid pooling on the coarsest level.

    Args:
        output_stride: stride of the coarsest level; the encoder is dilated for it, or resampled.
        rates: atrous rates of the 3x3 branches.
        channels: of every branch and of the output.
        convolution: kind of the atrous convolutions.
        dropout: share of values dropped after the projection.
        dead_taps: taps of the atrous convolutions that see only padding: `exclude` where that was measured to be
            quicker, which is the same to rounding, or `compute` them, which is SMP's to the last bit.
    """
    from segmentation_models_pytorch.decoders.deeplabv3.decoder import DeepLabV3Decoder

    from segreg.models.pyramid import at_output_stride
    from segreg_plugins.decoders.atrous import leave_out_dead_taps
    from segreg_plugins.decoders.smp.network import SmpDecoder, SmpFeatures

    dilated = at_output_stride(encoder, output_stride)
    features = SmpFeatures(dilated.pick((-1, output_stride), divisor=output_stride), [5])
    network = DeepLabV3Decoder(
        in_channels=features.channels[-1],
        out_channels=channels,
        atrous_rates=rates,
        aspp_separable=convolution == "separable",
        aspp_dropout=dropout,
    )
    if dead_taps == "exclude":
        leave_out_dead_taps(network)
    return SmpDecoder(network, features, channels=channels, stride=output_stride, head_kernel=1, initialize=False)


def deeplabv3plus(
    encoder: Encoder,
    *,
    output_stride: Literal[8, 16] = 16,
    rates: tuple[PositiveInt, PositiveInt, PositiveInt] = (12, 24, 36),
    channels: PositiveInt = 256,
    convolution: Literal["plain", "separable"] = "separable",
    dropout: Fraction = 0.5,
    dead_taps: Literal["exclude", "compute"] = "exclude",
) -> Decoder:
    """DeepLabV3+ as SMP has it, which differs from the paper's (that one is `deeplabv3plus`).

    Args:
        output_stride: stride of the coarsest level; the encoder is dilated for it, or resampled.
        rates: atrous rates of the 3x3 branches; the paper pairs 6, 12, 18 with output stride 16, SMP does not.
        channels: of every branch and of the output.
        convolution: kind of the atrous convolutions.
        dropout: share of values dropped after the projection.
        dead_taps: taps of the atrous convolutions that see only padding: `exclude` where that was measured to be
            quicker, which is the same to rounding, or `compute` them, which is SMP's to the last bit.
    """
    from segmentation_models_pytorch.decoders.deeplabv3.decoder import DeepLabV3PlusDecoder

    from segreg.models.pyramid import at_output_stride, level_at_stride
    from segreg_plugins.decoders.atrous import leave_out_dead_taps
    from segreg_plugins.decoders.smp.network import SmpDecoder, SmpFeatures

    dilated = at_output_stride(encoder, output_stride)
    fine = (level_at_stride(dilated, 4), 4)
    features = SmpFeatures(dilated.pick(fine, (-1, output_stride), divisor=output_stride), [2, 5])
    network = DeepLabV3PlusDecoder(
        encoder_channels=features.channels,
        encoder_depth=5,
        out_channels=channels,
        atrous_rates=rates,
        output_stride=output_stride,
        aspp_separable=convolution == "separable",
        aspp_dropout=dropout,
    )
    if dead_taps == "exclude":
        leave_out_dead_taps(network)
    return SmpDecoder(network, features, channels=channels, stride=4, head_kernel=1, initialize=False)


def pan(
    encoder: Encoder,
    *,
    output_stride: Literal[16, 32] = 16,
    channels: PositiveInt = 32,
    interpolation: Literal["nearest", "bilinear"] = "bilinear",
) -> Decoder:
    """Pyramid attention network as SMP has it, on the levels of strides 4 to 32.

    Args:
        output_stride: stride of the coarsest level; the encoder is dilated for it, or resampled. Images smaller than
            eight of its cells, which SMP refuses, are repeated at their border.
        channels: of every step.
        interpolation: how levels are upsampled.
    """
    from segmentation_models_pytorch.decoders.pan.decoder import PANDecoder

    from segreg_plugins.decoders.smp.network import SmpDecoder, by_stride

    features = by_stride(encoder, 2, 5, coarsest=output_stride)
    network = PANDecoder(
        encoder_channels=features.channels, encoder_depth=5, decoder_channels=channels, interpolation_mode=interpolation
    )
    # Three poolings, one inside the other, halve the coarsest level.
    return SmpDecoder(network, features, channels=channels, stride=4, head_kernel=3, smallest=8)

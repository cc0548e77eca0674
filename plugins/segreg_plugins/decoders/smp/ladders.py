"""The builders of SMP's decoders that climb the levels one by one, up to the image's own size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from segreg.errors import SegregError
from segreg.settings import PositiveInt

if TYPE_CHECKING:
    from segreg.registry.protocols import Decoder, Encoder


def unet(
    encoder: Encoder,
    *,
    channels: tuple[PositiveInt, ...] = (256, 128, 64, 32, 16),
    attention: Literal["scse"] | None = None,
    interpolation: Literal["nearest", "bilinear", "bicubic"] = "nearest",
    norm: Literal["batchnorm", "identity"] = "batchnorm",
    center: Literal["none", "block"] = "none",
) -> Decoder:
    """U-Net as SMP has it: each level is upsampled and joined with the next finer one.

    Args:
        channels: of each step, coarsest first; as many steps as numbers, five reach down to stride 32.
        attention: `scse` weighs channels and places after each join.
        interpolation: how levels are upsampled.
        norm: normalisation after each convolution.
        center: `block` puts two convolutions before the first step, as SMP does for VGG encoders.

    Raises:
        SegregError: channels that can't be.
    """
    from segmentation_models_pytorch.decoders.unet.decoder import UnetDecoder

    from segreg_plugins.decoders.smp.network import SmpDecoder, by_stride

    _check_channels(channels, attention)
    features = by_stride(encoder, 1, len(channels))
    network = UnetDecoder(
        encoder_channels=features.channels,
        decoder_channels=channels,
        n_blocks=len(channels),
        use_norm=norm,
        attention_type=attention,
        add_center_block=center == "block",
        interpolation_mode=interpolation,
    )
    return SmpDecoder(network, features, channels=channels[-1], stride=1, head_kernel=3)


def unetplusplus(
    encoder: Encoder,
    *,
    channels: tuple[PositiveInt, ...] = (256, 128, 64, 32, 16),
    attention: Literal["scse"] | None = None,
    interpolation: Literal["nearest", "bilinear", "bicubic"] = "nearest",
    norm: Literal["batchnorm", "identity"] = "batchnorm",
    center: Literal["none", "block"] = "none",
    deep_supervision: bool = False,
) -> Decoder:
    """U-Net++ as SMP has it: a U-Net whose skips are themselves dense ladders.

    Args:
        channels: of each step, coarsest first; as many steps as numbers, five reach down to stride 32.
        attention: `scse` weighs channels and places after each join.
        interpolation: how levels are upsampled.
        norm: normalisation after each convolution.
        center: `block` puts two convolutions before the first step, as SMP does for VGG encoders.
        deep_supervision: whether the losses score every node of the finest row in training, as in the paper, each
            through a 1x1 convolution of its own; SMP doesn't have that. Predictions are the last node's.

    Raises:
        SegregError: channels that can't be, or no further node to train.
    """
    from segmentation_models_pytorch.decoders.unetplusplus.decoder import UnetPlusPlusDecoder

    from segreg_plugins.decoders.smp.deep_supervision import DeeplySupervised
    from segreg_plugins.decoders.smp.network import SmpDecoder, by_stride

    _check_channels(channels, attention)
    features = by_stride(encoder, 1, len(channels))
    network = UnetPlusPlusDecoder(
        encoder_channels=features.channels,
        decoder_channels=channels,
        n_blocks=len(channels),
        use_norm=norm,
        attention_type=attention,
        center=center == "block",
        interpolation_mode=interpolation,
    )
    decoder = SmpDecoder(network, features, channels=channels[-1], stride=1, head_kernel=3)
    return DeeplySupervised(decoder) if deep_supervision else decoder


def manet(
    encoder: Encoder,
    *,
    channels: tuple[PositiveInt, ...] = (256, 128, 64, 32, 16),
    attention_channels: PositiveInt = 64,
    interpolation: Literal["nearest", "bilinear", "bicubic"] = "nearest",
    norm: Literal["batchnorm", "identity"] = "batchnorm",
) -> Decoder:
    """MA-Net as SMP has it: a U-Net with attention between all places of the coarsest level and between levels.

    Args:
        channels: of each step, coarsest first; as many steps as numbers, five reach down to stride 32.
        attention_channels: channels that places are compared by.
        interpolation: how levels are upsampled.
        norm: normalisation after each convolution.

    Raises:
        SegregError: channels that can't be.
    """
    from segmentation_models_pytorch.decoders.manet.decoder import MAnetDecoder

    from segreg_plugins.decoders.smp.network import SmpDecoder, by_stride

    _check_channels(channels, None)
    features = by_stride(encoder, 1, len(channels))
    network = MAnetDecoder(
        encoder_channels=features.channels,
        decoder_channels=channels,
        n_blocks=len(channels),
        use_norm=norm,
        pab_channels=attention_channels,
        interpolation_mode=interpolation,
    )
    return SmpDecoder(network, features, channels=channels[-1], stride=1, head_kernel=3)


def linknet(
    encoder: Encoder,
    *,
    channels: PositiveInt = 32,
    depth: Literal[3, 4, 5] = 5,
    norm: Literal["batchnorm", "identity"] = "batchnorm",
) -> Decoder:
    """LinkNet as SMP has it: each level is upsampled and added to the next finer one.

    Args:
        channels: of the last step.
        depth: steps; five reach down to stride 32.
        norm: normalisation after each convolution.
    """
    from segmentation_models_pytorch.decoders.linknet.decoder import LinknetDecoder

    from segreg_plugins.decoders.smp.network import SmpDecoder, by_stride

    features = by_stride(encoder, 1, depth)
    network = LinknetDecoder(
        encoder_channels=features.channels, prefinal_channels=channels, n_blocks=depth, use_norm=norm
    )
    return SmpDecoder(network, features, channels=channels, stride=1, head_kernel=1)


def _check_channels(channels: Sequence[int], attention: str | None) -> None:
    if not 2 <= len(channels) <= 6:
        raise SegregError(f"channels has {len(channels)} numbers; 2 to 6 were expected, one for each step")
    if attention == "scse" and min(channels) < 16:
        raise SegregError(f"scse attention needs 16 channels in every step; channels has {min(channels)}")

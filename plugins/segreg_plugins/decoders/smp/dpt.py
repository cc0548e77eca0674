"""The builder of SMP's DPT, the decoder for vision transformers of one scale."""

from __future__ import annotations

from typing import TYPE_CHECKING

from segreg.settings import PositiveInt

if TYPE_CHECKING:
    from segreg.registry.protocols import Decoder, Encoder


def dpt(
    encoder: Encoder,
    *,
    intermediate_channels: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt] = (256, 512, 1024, 1024),
    channels: PositiveInt = 256,
) -> Decoder:
    """DPT as SMP has it, without readout: four levels are reassembled at strides 4 to 32 and fused.

    Made for single-scale transformers, whose four levels it scales by learned convolutions. Encoders with real levels
    of strides 4 to 32 are taken as they are. Class and register tokens are not among an encoder's levels, so that this
    is SMP's `decoder_readout="ignore"`.

    Args:
        intermediate_channels: of each level, finest first, before the fusion.
        channels: of the fusion and of the output.
    """
    from segmentation_models_pytorch.decoders.dpt.decoder import DPTDecoder

    from segreg.models.pyramid import pyramid_of, with_strides
    from segreg_plugins.decoders.smp.dpt_network import DPT, reassembled_strides

    # 32 because the coarsest reassembled level is at least that coarse, whatever the encoder's own stride is.
    pyramid = with_strides(whole := pyramid_of(encoder), reassembled_strides(whole.strides), divisor=32)
    network = DPTDecoder(
        encoder_out_channels=pyramid.channels,
        encoder_output_strides=pyramid.strides,
        encoder_has_prefix_tokens=False,
        readout="ignore",
        intermediate_channels=intermediate_channels,
        fusion_channels=channels,
    )
    return DPT(network, pyramid, channels=channels)

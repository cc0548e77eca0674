"""The builders of torchvision's segmentation heads, DeepLabV3's and FCN's, with its published weights if asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from segreg.errors import SegregError
from segreg.settings import PositiveInt
from segreg_plugins.pretrained import Fallback

if TYPE_CHECKING:
    from segreg.registry.protocols import Decoder, Encoder


def deeplabv3(
    encoder: Encoder,
    *,
    output_stride: Literal[8, 16] = 8,
    rates: tuple[PositiveInt, ...] | None = None,
    dead_taps: Literal["exclude", "compute"] = "exclude",
    weights: str | None = None,
    weights_fallback: Fallback = "error",
) -> Decoder:
    """DeepLabV3 as torchvision has it: its DeepLabHead, whose last layer is the head.

    Args:
        output_stride: coarsest stride of the encoder's levels, torchvision's is 8; the encoder is dilated for it, or
            resampled where it can't be.
        rates: atrous rates of the 3x3 branches. Null pairs them with the stride: 12, 24, 36 at 8, which is
            torchvision's, and 6, 12, 18 at 16.
        dead_taps: taps of the atrous convolutions that see only padding: `exclude` where that was measured to be
            quicker, which is the same to rounding, or `compute` them, which is torchvision's to the last bit.
        weights: `COCO_WITH_VOC_LABELS_V1`, torchvision's published checkpoint for its ResNet-50 and ResNet-101, or a
            .pth or .safetensors file laid out as torchvision's. It fills the encoder where that is torchvision's,
            this decoder, and the last layer where the number of classes is the file's.
        weights_fallback: what is done where the published weights are not available: stop, or continue without.

    Raises:
        SegregError: weights are not available, can't be read or don't fit.
    """
    from segreg.models.pyramid import at_output_stride
    from segreg_plugins.decoders.atrous import leave_out_dead_taps
    from segreg_plugins.decoders.deeplabv3plus_network import paired_rates
    from segreg_plugins.decoders.torchvision_network import TorchvisionHead, deeplab_layers
    from segreg_plugins.decoders.torchvision_weights import Checkpoint

    dilated = at_output_stride(encoder, output_stride)
    layers = deeplab_layers(dilated.channels[-1], paired_rates(dilated.strides[-1]) if rates is None else rates)
    decoder = TorchvisionHead(dilated.pick((-1, dilated.strides[-1])), layers)
    if dead_taps == "exclude":
        leave_out_dead_taps(decoder)
    if checkpoint := Checkpoint.of("deeplabv3", weights, encoder, decoder, fallback=weights_fallback):
        checkpoint.fill(decoder, "classifier.", encoder)
    return decoder


def fcn(
    encoder: Encoder,
    *,
    level: int = -1,
    output_stride: Literal[8, 16, 32] | None = None,
    weights: str | None = None,
    weights_fallback: Fallback = "error",
) -> Decoder:
    """FCN head as torchvision has it, exactly: one 3x3 convolution on one level; as `auxiliary` it takes level -2.

    Args:
        level: which of the encoder's levels, counted from the end: -1 is the last, -2 torchvision's for an auxiliary.
        output_stride: coarsest stride of the encoder's levels, torchvision's FCN has 8. Null takes the encoder as it
            is, which is right for an auxiliary.
        weights: `COCO_WITH_VOC_LABELS_V1`, torchvision's published checkpoint (FCN's for the last level, DeepLabV3's
            auxiliary classifier for others), or a .pth or .safetensors file laid out as torchvision's. On the last
            level it fills the encoder as well.
        weights_fallback: what is done where the published weights are not available: stop, or continue without.

    Raises:
        SegregError: the encoder has no such level, or weights are not available, can't be read or don't fit.
    """
    from segreg.models.pyramid import at_output_stride, pyramid_of
    from segreg_plugins.decoders.torchvision_network import TorchvisionHead, fcn_layers
    from segreg_plugins.decoders.torchvision_weights import Checkpoint

    levels = pyramid_of(encoder) if output_stride is None else at_output_stride(encoder, output_stride)
    if not -len(levels.strides) <= level <= -1:
        raise SegregError(
            f"level is {level}, but encoder {type(encoder).__name__} has {len(levels.strides)} levels: "
            f"-{len(levels.strides)} to -1",
        )
    if levels.channels[level] < 4:
        raise SegregError(f"the encoder's level {level} has {levels.channels[level]} channels; FCN's head needs 4")
    layers = fcn_layers(levels.channels[level])
    decoder = TorchvisionHead(levels.pick((level, levels.strides[level])), layers)
    main = level == -1
    if checkpoint := Checkpoint.of(
        "fcn" if main else "deeplabv3", weights, encoder, decoder, fallback=weights_fallback
    ):
        checkpoint.fill(decoder, "classifier." if main else "aux_classifier.", encoder if main else None)
    return decoder

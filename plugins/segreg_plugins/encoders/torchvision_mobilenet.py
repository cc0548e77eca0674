"""MobileNetV3-large as torchvision's own segmentation models have it, known without importing torchvision."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from segreg_plugins.pretrained import Fallback

if TYPE_CHECKING:
    from segreg_plugins.encoders.torchvision_encoder import TorchvisionEncoder

# The blocks that halve the image, as torchvision's LR-ASPP and DeepLabV3 take them, and the last convolution.
_LEVELS = ("features.0", "features.2", "features.4", "features.7", "features.16")


def mobilenet_v3_large(
    in_channels: int,
    *,
    weights: Literal["IMAGENET1K_V1", "IMAGENET1K_V2"] | None = None,
    output_stride: Literal[16, 32] = 16,
    weights_fallback: Fallback = "error",
) -> TorchvisionEncoder:
    """MobileNetV3-large of torchvision, dilated as in its lraspp_mobilenet_v3_large and deeplabv3_mobilenet_v3_large.

    Its levels are the first features of each stride, as in those models; `torchvision/mobilenet_v3_large` has the last
    ones.

    Args:
        weights: pretrained weights; null starts from random ones.
        output_stride: stride of the coarsest level; torchvision's segmentation models have 16.
        weights_fallback: what happens if the weights are not available, for instance offline: `error` stops and names
            the ways out, `random` continues with random weights and says so in the run's header and record.
    """
    from segreg_plugins.encoders.torchvision_encoder import build

    encoder = build(
        "torchvision.mobilenet_v3_large",
        "mobilenet_v3_large",
        in_channels,
        weights=weights,
        weights_fallback=weights_fallback,
        kept=_LEVELS,
    )
    encoder.dilate(output_stride)
    return encoder

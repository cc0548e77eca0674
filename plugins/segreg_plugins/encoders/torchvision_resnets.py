"""The ResNets of torchvision as its own segmentation models build them, known without importing it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from segreg_plugins.pretrained import Fallback

if TYPE_CHECKING:
    from segreg_plugins.encoders.torchvision_encoder import TorchvisionEncoder

Weights = Literal["IMAGENET1K_V1", "IMAGENET1K_V2"]
OutputStride = Literal[8, 16, 32]


def resnet50(
    in_channels: int,
    *,
    weights: Weights | None = None,
    output_stride: OutputStride = 8,
    weights_fallback: Fallback = "error",
) -> TorchvisionEncoder:
    """ResNet-50 of torchvision, dilated as in its deeplabv3_resnet50 and fcn_resnet50.

    Args:
        weights: pretrained weights; null starts from random ones.
        output_stride: stride of the coarsest level; torchvision's segmentation models have 8.
        weights_fallback: what happens if the weights are not available, for instance offline: `error` stops and names
            the ways out, `random` continues with random weights and says so in the run's header and record.
    """
    return _resnet("resnet50", in_channels, weights, output_stride, weights_fallback)


def resnet101(
    in_channels: int,
    *,
    weights: Weights | None = None,
    output_stride: OutputStride = 8,
    weights_fallback: Fallback = "error",
) -> TorchvisionEncoder:
    """ResNet-101 of torchvision, dilated as in its deeplabv3_resnet101 and fcn_resnet101.

    Args:
        weights: pretrained weights; null starts from random ones.
        output_stride: stride of the coarsest level; torchvision's segmentation models have 8.
        weights_fallback: what happens if the weights are not available, for instance offline: `error` stops and names
            the ways out, `random` continues with random weights and says so in the run's header and record.
    """
    return _resnet("resnet101", in_channels, weights, output_stride, weights_fallback)


def _resnet(
    member: str, in_channels: int, weights: Weights | None, output_stride: OutputStride, weights_fallback: Fallback
) -> TorchvisionEncoder:
    from segreg_plugins.encoders.torchvision_encoder import build

    encoder = build(f"torchvision.{member}", member, in_channels, weights=weights, weights_fallback=weights_fallback)
    encoder.dilate(output_stride)
    return encoder

"""The ResNets of torchvision as its own segmentation models build them, known without importing it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from segreg.settings import PositiveInt
from segreg_plugins.pretrained import Fallback

if TYPE_CHECKING:
    from segreg_plugins.encoders.torchvision_encoder import TorchvisionEncoder

Weights = Literal["IMAGENET1K_V1", "IMAGENET1K_V2"]
OutputStride = Literal[8, 16, 32]
MultiGrid = tuple[PositiveInt, PositiveInt, PositiveInt]


def resnet50(
    in_channels: int,
    *,
    weights: Weights | None = None,
    output_stride: OutputStride = 8,
    multi_grid: MultiGrid | None = None,
    weights_fallback: Fallback = "error",
) -> TorchvisionEncoder:
    """ResNet-50 of torchvision, dilated as in its deeplabv3_resnet50 and fcn_resnet50.

    Args:
        weights: pretrained weights; null starts from random ones.
        output_stride: stride of the coarsest level; torchvision's segmentation models have 8.
        multi_grid: factors of the atrous rates of the last stage's three blocks, as in DeepLabV3 (arXiv:1706.05587,
            section 3.2.1), which has [1, 2, 4]. Null takes torchvision's own rates, whose first block has the stage
            before's.
        weights_fallback: what happens if the weights are not available, for instance offline: `error` stops and names
            the ways out, `random` continues with random weights and says so in the run's header and record.
    """
    return _resnet(
        "resnet50", in_channels, output_stride, multi_grid, weights=weights, weights_fallback=weights_fallback
    )


def resnet101(
    in_channels: int,
    *,
    weights: Weights | None = None,
    output_stride: OutputStride = 8,
    multi_grid: MultiGrid | None = None,
    weights_fallback: Fallback = "error",
) -> TorchvisionEncoder:
    """ResNet-101 of torchvision, dilated as in its deeplabv3_resnet101 and fcn_resnet101.

    Args:
        weights: pretrained weights; null starts from random ones.
        output_stride: stride of the coarsest level; torchvision's segmentation models have 8.
        multi_grid: factors of the atrous rates of the last stage's three blocks, as in DeepLabV3 (arXiv:1706.05587,
            section 3.2.1), which has [1, 2, 4]. Null takes torchvision's own rates, whose first block has the stage
            before's.
        weights_fallback: what happens if the weights are not available, for instance offline: `error` stops and names
            the ways out, `random` continues with random weights and says so in the run's header and record.
    """
    return _resnet(
        "resnet101", in_channels, output_stride, multi_grid, weights=weights, weights_fallback=weights_fallback
    )


def _resnet(
    member: str,
    in_channels: int,
    output_stride: OutputStride,
    multi_grid: MultiGrid | None,
    **weights: Any,
) -> TorchvisionEncoder:
    from segreg_plugins.encoders.torchvision_encoder import build

    encoder = build(f"torchvision.{member}", member, in_channels, **weights)
    encoder.dilate(output_stride)
    if multi_grid:
        encoder.use_multi_grid(multi_grid)
    return encoder

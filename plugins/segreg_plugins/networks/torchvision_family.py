"""torchvision's segmentation models, put together from the encoders and decoders that have their layers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from segreg_plugins.pretrained import Fallback

if TYPE_CHECKING:
    from segreg.registry.protocols import Decoder
    from segreg_plugins.encoders.torchvision_encoder import TorchvisionEncoder

_TRUNKS = {
    "deeplabv3_mobilenet_v3_large": ("deeplabv3", "mobilenet_v3_large"),
    "deeplabv3_resnet101": ("deeplabv3", "resnet101"),
    "deeplabv3_resnet50": ("deeplabv3", "resnet50"),
    "fcn_resnet101": ("fcn", "resnet101"),
    "fcn_resnet50": ("fcn", "resnet50"),
}
"""The head and the encoder of each, by torchvision's name."""


def members() -> Iterable[str]:
    """Return every network's name."""
    return _TRUNKS


def torchvision_network(
    member: str,
    in_channels: int,
    *,
    weights: str | None = None,
    weights_fallback: Fallback = "error",
) -> tuple[TorchvisionEncoder, Decoder]:
    """A segmentation model of torchvision, with the weights that torchvision has for it.

    Args:
        weights: `COCO_WITH_VOC_LABELS_V1`, torchvision's checkpoint of the whole network, or a .pth or .safetensors
            file laid out as torchvision's. Its last layer is taken where the number of classes is the same. Null
            starts from random weights.
        weights_fallback: what is done where the published weights are not available: stop, or continue without.

    Raises:
        SegregError: weights that are not available, can't be read or don't fit.
    """
    from segreg_plugins.decoders import torchvision_heads
    from segreg_plugins.encoders import torchvision_mobilenet, torchvision_resnets

    head, trunk = _TRUNKS[member]
    trunks = {
        "mobilenet_v3_large": torchvision_mobilenet.mobilenet_v3_large,
        "resnet50": torchvision_resnets.resnet50,
        "resnet101": torchvision_resnets.resnet101,
    }
    encoder: Any = trunks[trunk](in_channels)
    if head == "fcn":
        return encoder, torchvision_heads.fcn(encoder, weights=weights, weights_fallback=weights_fallback)
    return encoder, torchvision_heads.deeplabv3(
        encoder,
        output_stride=16 if trunk == "mobilenet_v3_large" else 8,
        rates=(12, 24, 36),  # at both strides
        dead_taps="compute",
        weights=weights,
        weights_fallback=weights_fallback,
    )

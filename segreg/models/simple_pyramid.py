"""A level of another scale from a plain vision transformer's one map: the simple feature pyramid (arXiv:2203.16527).

Section 3 of Li et al., "Exploring Plain Vision Transformer Backbones for Object Detection": every level is made from
the last map alone. A transposed convolution of stride 2 doubles it, with LayerNorm and GELU between two of them, and
max pooling of stride 2 halves it; then come a 1x1 and a 3x3 convolution, each with LayerNorm. The paper has strides of
4 to 32 from one of 16; what is beyond that, as from a patch of 32 to a stride of 4, continues its rule.
"""

from __future__ import annotations

from torch import Tensor, nn

CHANNELS = 256
"""Channels of every level, as in the paper."""


def simple_pyramid_level(in_channels: int, native: int, stride: int) -> nn.Sequential:
    """Return the layers that make one level from the last map.

    Args:
        in_channels: of the last map.
        native: its stride.
        stride: of the level. Both are powers of two.

    Shape: `[B, in_channels, h, w]` to `[B, CHANNELS, h * native / stride, w * native / stride]`, rounded up.
    """
    layers: list[nn.Module] = []
    channels = in_channels
    while native > stride:
        if layers:
            layers += [LayerNorm(channels), nn.GELU()]
        halved = max(1, channels // 2)
        layers.append(nn.ConvTranspose2d(channels, halved, kernel_size=2, stride=2))
        channels, native = halved, native // 2
    while native < stride:
        layers.append(nn.MaxPool2d(kernel_size=2, stride=2, ceil_mode=True))
        native *= 2
    return nn.Sequential(
        *layers,
        nn.Conv2d(channels, CHANNELS, kernel_size=1, bias=False),
        LayerNorm(CHANNELS),
        nn.Conv2d(CHANNELS, CHANNELS, kernel_size=3, padding=1, bias=False),
        LayerNorm(CHANNELS),
    )


class LayerNorm(nn.LayerNorm):
    """LayerNorm over the channels of each place, with the paper's epsilon of 1e-6.

    Shape: `[B, C, H, W]` to the same.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-6)

    def forward(self, features: Tensor) -> Tensor:
        """Return the normalised features."""
        return super().forward(features.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

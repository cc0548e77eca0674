"""An encoder of two levels."""

from __future__ import annotations

from torch import Tensor, nn


class TwoLevels(nn.Module):
    """Two convolutions of stride 2."""

    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(in_channels, width, 3, stride=2, padding=1)
        self.second = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
        self.channels = (width, 2 * width)
        self.strides = (2, 4)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return both levels."""
        fine = self.first(image).relu()
        return [fine, self.second(fine).relu()]

"""An encoder's levels, computed once for each image size, and a model that is run on their shapes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from segreg.benchmark.shapes import meta_forward

_MOST_PIXELS = 400_000
"""Larger images are checked on shapes alone: a vision transformer's attention over 1024x1024 pixels takes minutes."""


def noise(channels: int, size: tuple[int, int]) -> Tensor:
    """Return the normalised image `[1, channels, *size]` for all checks, always the same."""
    return torch.randn(1, channels, *size, generator=torch.Generator().manual_seed(0))


class Recorded(nn.Module):
    """Replaces an encoder and returns its levels of `noise`, whatever the image.

    Shape: image `[1, C, H, W]` to the encoder's levels; on the meta device, tensors of their shapes.

    Attributes:
        channels: the encoder's.
        strides: the encoder's.
        image_size: the encoder's, None where it takes any.
        finite: whether all computed values are.
    """

    def __init__(self, encoder: Any, in_channels: int) -> None:
        super().__init__()
        self._encoder = (encoder,)  # in a tuple, so that its parameters are not this module's
        self._in_channels = in_channels
        self._levels: dict[tuple[int, int], list[Tensor]] = {}
        self.channels = list(encoder.channels)
        self.strides = list(encoder.strides)
        self.image_size = getattr(encoder, "image_size", None)
        self.finite = True

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return the levels, copied, since a decoder may write into what it is given."""
        height, width = image.shape[-2:]
        if image.device.type != "meta":
            return [level.clone() for level in self._computed((height, width))]
        if height * width > _MOST_PIXELS:
            return list(meta_forward(self._encoder[0].eval(), self._in_channels, (height, width)))
        return [torch.empty_like(level, device="meta") for level in self._computed((height, width))]

    def matches(self, encoder: Any, size: tuple[int, int]) -> bool:
        """Whether another encoder returns the same levels for an image of `size`."""
        with torch.no_grad():
            theirs = encoder.eval()(noise(self._in_channels, size))
        ours = self._computed(size)
        return len(ours) == len(theirs) and all(
            one.shape == other.shape and torch.allclose(one, other, rtol=1e-4, equal_nan=True)
            for one, other in zip(ours, theirs, strict=True)
        )

    def _computed(self, size: tuple[int, int]) -> Sequence[Tensor]:
        if size not in self._levels:
            with torch.no_grad():
                self._levels[size] = list(self._encoder[0].eval()(noise(self._in_channels, size)))
            self.finite = self.finite and all(bool(level.isfinite().all()) for level in self._levels[size])
        return self._levels[size]


def on_shapes(model: nn.Module, channels: int, size: tuple[int, int]) -> Tensor:
    """Return the model's output for an image `[1, channels, *size]`, on the meta device.

    A model that can't run on shapes runs on values, so that it raises what a user would see.
    """
    try:
        outline: Tensor = meta_forward(model, channels, size)
        return outline
    except Exception:
        with torch.no_grad():
            computed: Tensor = model(noise(channels, size))
        return computed

"""How an image and its mask are fitted to the network's input size, and how a map gets back to the image's own.

Sizes are (height, width) in pixels. Image and mask share one geometry: pixels are squares and their centres stay
aligned, so that a mask drawn from an image still fits after both were resized.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from segreg.config.sections import Input
from segreg.errors import SegregError
from segreg.task import IGNORE_INDEX

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

Size = tuple[int, int]


@dataclass(frozen=True)
class Placement:
    """Where an image lies inside the network's input: its upper left corner and its size there."""

    top: int
    left: int
    height: int
    width: int

    @property
    def rows(self) -> slice:
        """Return its rows."""
        return slice(self.top, self.top + self.height)

    @property
    def columns(self) -> slice:
        """Return its columns."""
        return slice(self.left, self.left + self.width)


def placement(size: Sequence[int], input: Input) -> Placement:
    """Return where an image of `size` lies in the network's input.

    `stretch` fills the input. `letterbox` keeps the aspect ratio and centres the image, so that rotating and
    flipping the input keeps it in its middle; an odd border is a pixel wider below and to the right. With `crop` an
    image is its own input.

    Raises:
        SegregError: the rule is `none` and the image does not have the input's size.
    """
    height, width = size
    H, W = input.size
    if input.resize == "letterbox":
        scale = min(H / height, W / width)
        h, w = (min(H, max(1, round(height * scale))), min(W, max(1, round(width * scale))))
        return Placement((H - h) // 2, (W - w) // 2, h, w)
    if input.resize == "none" and (height, width) != (H, W):
        raise SegregError(
            f"the image is {format_size(size)} (height x width) and input.size is {format_size((H, W))} "
            "(height x width), but input.resize is none",
            hint="set input.resize to stretch or letterbox",
        )
    return Placement(0, 0, height, width) if input.resize == "crop" else Placement(0, 0, H, W)


def fit_image(image: NDArray[Any], input: Input) -> NDArray[Any]:
    """Return the image at the input's size, resized with an antialiased bilinear filter.

    A letterbox's border is 0, or of floating-point values, which 0 may be far from, each channel's mean.

    Shape: uint8, uint16 or float32 `[h, w, C]` to the same type `[H, W, C]`.

    Raises:
        SegregError: the rule is `none` and the image does not have the input's size.
    """
    place = placement(image.shape[:2], input)
    inside = resize_image(image, (place.height, place.width))
    if input.resize == "crop" or inside.shape[:2] == tuple(input.size):
        return inside
    fitted = np.zeros((*input.size, image.shape[2]), image.dtype)
    if image.dtype.kind == "f":
        fitted[:] = image.mean(axis=(0, 1), dtype=np.float64)
    fitted[place.rows, place.columns] = inside
    return fitted


def fit_mask(mask: NDArray[np.uint8], input: Input) -> NDArray[np.uint8]:
    """Return the mask at the input's size; each pixel takes the label nearest to its centre; a border is ignored (255).

    Shape: uint8 `[..., h, w]` to uint8 `[..., H, W]`.

    Raises:
        SegregError: the rule is `none` and the mask does not have the input's size.
    """
    place = placement(mask.shape[-2:], input)
    inside = resize_mask(mask, (place.height, place.width))
    if input.resize == "crop" or inside.shape[-2:] == tuple(input.size):
        return inside
    fitted = np.full((*mask.shape[:-2], *input.size), IGNORE_INDEX, np.uint8)
    fitted[..., place.rows, place.columns] = inside
    return fitted


def resize_image(image: NDArray[Any], size: Size) -> NDArray[Any]:
    """Return an image `[h, w, C]` resized with an antialiased bilinear filter; the same array where it has the size.

    uint8 values are rounded as Pillow does, uint16 ones are resized as float32 and rounded.
    """
    if image.shape[:2] == tuple(size):
        return image
    import torch

    # A copy: torch warns of arrays that can't be written to, refuses negative strides, and can't resize uint16.
    given = np.array(image, np.float32 if image.dtype == np.uint16 else image.dtype, order="C")
    pixels = torch.from_numpy(given).permute(2, 0, 1)[None]
    # Pillow's image, several times faster, for any number of channels.
    pixels = _antialiased(pixels, size)
    resized = np.ascontiguousarray(pixels[0].permute(1, 2, 0).numpy())
    return np.rint(resized).astype(np.uint16) if image.dtype == np.uint16 else resized


def resize_mask(mask: NDArray[np.uint8], size: Size) -> NDArray[np.uint8]:
    """Return a mask `[..., h, w]` resized; each pixel takes the label nearest to its centre."""
    h, w = mask.shape[-2:]
    if (h, w) == tuple(size):
        return mask
    return mask.take(_centres(size[0], h), axis=-2).take(_centres(size[1], w), axis=-1)


def restore(values: Tensor, original: Size, input: Input) -> Tensor:
    """Return a map that the network predicted, interpolated bilinearly at the image's original size.

    A letterbox's border is cut off first. Probabilities that summed to 1 at each pixel still do.

    Shape: floating-point `[..., H, W]` to the same dtype and device, `[..., *original]`.

    Raises:
        SegregError: the map does not have the input's size.
    """
    if tuple(values.shape[-2:]) != tuple(original if input.resize == "crop" else input.size):
        raise SegregError(
            f"a map of {format_size(values.shape[-2:])} (height x width) can't be restored: "
            f"input.size is {format_size(input.size)} (height x width)"
        )
    place = placement(original, input)
    inside = values[..., place.rows, place.columns]
    if tuple(inside.shape[-2:]) == tuple(original):
        return inside
    planes = inside.reshape(1, -1, *inside.shape[-2:])
    return _antialiased(planes, original).reshape(*inside.shape[:-2], *original)


def _antialiased(planes: Tensor, size: Size) -> Tensor:
    """Return planes `[B, C, h, w]` resized with an antialiased bilinear filter."""
    from torch.nn.functional import interpolate

    (height, width), way = size, dict[str, Any](mode="bilinear", antialias=True, align_corners=False)
    if width == 1 and height != planes.shape[2]:  # PyTorch mixes up rows and columns of what is one pixel wide
        planes = interpolate(planes, size=[planes.shape[2], 1], **way).repeat(1, 1, 1, 2)
        return interpolate(planes, size=[height, 2], **way)[..., :1]
    return interpolate(planes, size=[height, width], **way)


def _centres(count: int, source: int) -> NDArray[np.intp]:
    """Return for each of `count` pixels the one of `source` in which its centre lies, exactly, in integers."""
    return ((2 * np.arange(count) + 1) * source) // (2 * count)


def format_size(shape: Sequence[int]) -> str:
    """Return "480x640" for (480, 640)."""
    return "x".join(map(str, shape))

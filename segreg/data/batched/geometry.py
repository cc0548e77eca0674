"""Flips, turns and affine warps of many samples, as Albumentations makes them of one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from segreg.data.batched.drawing import Drawn, Images, own_parameters

if TYPE_CHECKING:
    from torch import Tensor

_NEAREST, _LINEAR, _CONSTANT = 0, 1, 0
"""OpenCV's numbers of the nearest pixel, of bilinear interpolation and of a filled border."""


class Flip:
    """Mirrors: HorizontalFlip and VerticalFlip.

    Args:
        axis: -1 mirrors left and right, -2 top and bottom.
    """

    def __init__(self, axis: Literal[-1, -2]) -> None:
        self.axis = axis

    def draw(self, *_: object) -> Drawn:
        """Return that it is mirrored."""
        return Drawn()

    def apply(self, images: Tensor, masks: Tensor, *_: object) -> tuple[Tensor, Tensor]:
        """Return the mirror images."""
        return images.flip(self.axis), masks.flip(self.axis)


class Turn:
    """Turns by quarters of a circle and mirrors along a diagonal: RandomRotate90, Transpose and D4.

    Args:
        way: the name of the draw, or the one way there is.
    """

    def __init__(self, way: Literal["factor", "group_element", "t"]) -> None:
        self.way = way

    def draw(self, transform: Any, images: Images, *_: object) -> Drawn:
        """Return the number of quarters, or the element of the square's symmetries by Albumentations' name."""
        return Drawn("t" if self.way == "t" else str(own_parameters(transform, images)[self.way]))

    def apply(self, images: Tensor, masks: Tensor, way: str, *_: object) -> tuple[Tensor, Tensor]:
        """Return the turned images."""
        return _turned(images, way), _turned(masks, way)


def _turned(images: Tensor, way: str) -> Tensor:
    if way in ("h", "v"):
        return images.flip(-1 if way == "h" else -2)
    if way in ("t", "hvt"):
        return (images if way == "t" else images.rot90(2, (-2, -1))).transpose(-2, -1)
    quarters = {"e": 0, "r90": 1, "r180": 2, "r270": 3}
    return images.rot90(quarters[way] if way in quarters else int(way), (-2, -1))


class Warp:
    """Move pixels by a matrix, images bilinearly, masks to the nearest: Affine, Rotate and ShiftScaleRotate.

    Args:
        transform: Albumentations' own, for what it fills borders with.
        images: what it is for.
    """

    def __init__(self, transform: Any, images: Images) -> None:
        fill = _one_for_each(transform.fill, images.channels)
        self.fills = (*fill, float(transform.fill_mask))

    def draw(self, transform: Any, images: Images, *_: object) -> Drawn:
        """Return the matrix from where a pixel is to where it comes from, and what borders are filled with."""
        (a, b, x), (c, d, y) = own_parameters(transform, images)["matrix"][:2].tolist()
        area = a * d - b * c
        a, b, c, d = (d / area, -b / area, -c / area, a / area) if area else (0.0, 0.0, 0.0, 0.0)
        return Drawn("", (a, b, -a * x - b * y, c, d, -c * x - d * y, *self.fills))

    def apply(self, images: Tensor, masks: Tensor, _: str, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """Return the warped images and masks."""
        across, down = _come_from(numbers[:, :6], images.shape[-2], images.shape[-1])
        warped = _bilinear(images, across, down, numbers[:, 6:-1, None, None])
        layers = masks if masks.ndim == 4 else masks[:, None]
        labels = _nearest(layers, across, down, numbers[:, -1, None, None, None])
        return warped, labels.reshape(masks.shape)


def against_warp(transform: Any, images: Images) -> str:
    """Return the setting of a transform that a `Warp` does not do, in words; "" if there is none."""
    done = {
        "interpolation": _LINEAR, "mask_interpolation": _NEAREST, "border_mode": _CONSTANT, "fit_output": False,
        "crop_border": False,
    }  # fmt: skip
    for name, value in done.items():
        if (found := getattr(transform, name, value)) != value:
            return f"{name}: {str(found).lower()}"
    for name, count in (("fill", images.channels), ("fill_mask", 1)):
        found = getattr(transform, name)
        values = _one_for_each(found, count)
        several = isinstance(found, list | tuple) and (name == "fill_mask" or not len(found) == count <= 4)
        if several or not all(0 <= value <= 255 and value == int(value) for value in values):
            return f"{name}: {found}"
    return ""


def _one_for_each(fill: Any, channels: int) -> tuple[float, ...]:
    return tuple(map(float, fill)) if isinstance(fill, list | tuple) else (float(fill),) * channels


def _come_from(matrix: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Return the column and row that each pixel comes from, `[n, H, W]` each.

    Written out: a product of matrices would be rounded to TF32 on a GPU, which is a pixel in a thousand.
    """
    import torch

    column = torch.arange(width, device=matrix.device, dtype=matrix.dtype)[None, None, :]
    row = torch.arange(height, device=matrix.device, dtype=matrix.dtype)[None, :, None]
    a, b, x, c, d, y = (one[:, None, None] for one in matrix.unbind(1))
    return a * column + b * row + x, c * column + d * row + y


def _bilinear(images: Tensor, across: Tensor, down: Tensor, fill: Tensor) -> Tensor:
    import torch
    import torch.nn.functional as F

    height, width = images.shape[-2:]
    grid = torch.stack([(2 * across + 1) / width - 1, (2 * down + 1) / height - 1], dim=-1)
    # Zeros are what is around: so borders blend with what they are filled with, as OpenCV's do.
    above = images.float() - fill
    warped = F.grid_sample(above, grid, mode="bilinear", padding_mode="zeros", align_corners=False) + fill
    return warped.round_().clamp_(0, 255).to(torch.uint8)


def _nearest(masks: Tensor, across: Tensor, down: Tensor, fill: Tensor) -> Tensor:
    """Return the nearest pixels; of two that are as near the even one, as OpenCV 5 does where a mask has one layer."""
    import torch

    height, width = masks.shape[-2:]
    column, row = across.round(), down.round()
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    at = (row.clamp(0, height - 1) * width + column.clamp(0, width - 1)).long()
    count, layers = masks.shape[:2]
    places = at.reshape(count, 1, -1).expand(-1, layers, -1)
    found = masks.reshape(count, layers, -1).gather(2, places).reshape(masks.shape)
    return torch.where(inside[:, None], found, fill.to(torch.uint8))

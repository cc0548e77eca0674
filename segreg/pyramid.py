"""What stands between an encoder and a decoder: the levels that the one wants, made from those that the other has.

Where the encoder has what is wanted, its own tensors are passed on and nothing is computed. Where it has not, its
nearest level is resampled: bilinearly to a finer stride, by averaging to a coarser one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations_with_replacement

import torch.nn.functional as F
from torch import Tensor, nn

from segreg.contracts import Encoder
from segreg.errors import SegregError


@dataclass(frozen=True)
class Level:
    """One level that a decoder gets.

    Attributes:
        source: index of the encoder's level that it is made from.
        channels: its channels.
        native: stride that the encoder gives it.
        stride: stride that the decoder gets it with.
    """

    source: int
    channels: int
    native: int
    stride: int


class Pyramid(nn.Module):
    """Makes the levels that a decoder wants from those that its encoder gives.

    Attributes:
        encoder_strides: strides of the encoder when this was made; the model checks that they have not changed since.
        channels: channels of each level wanted.
        strides: stride of each level wanted.
        divisor: the decoder's `size_divisor`: what image sides are multiples of, 1 where they may be anything.
    """

    def __init__(self, encoder_strides: Sequence[int], levels: Sequence[Level], *, divisor: int = 1) -> None:
        super().__init__()
        self.encoder_strides = tuple(encoder_strides)
        self.levels = tuple(levels)
        self.divisor = divisor

    @property
    def channels(self) -> tuple[int, ...]:
        """Gives the channels of each level."""
        return tuple(level.channels for level in self.levels)

    @property
    def strides(self) -> tuple[int, ...]:
        """Gives the stride of each level."""
        return tuple(level.stride for level in self.levels)

    @property
    def notes(self) -> tuple[str, ...]:
        """Gives a sentence for each level that the encoder does not have as it is wanted."""
        return tuple(
            f"the encoder's level {level.source + 1} of {len(self.encoder_strides)} is resampled from stride "
            f"{level.native} to {level.stride}"
            for level in self.levels
            if level.stride != level.native
        )

    def pick(self, *wanted: tuple[int, int], divisor: int = 1) -> Pyramid:
        """Gives the pyramid of some of these levels: for each its index here and the stride it is wanted with."""
        levels = [replace(self.levels[index], stride=stride) for index, stride in wanted]
        return Pyramid(self.encoder_strides, levels, divisor=divisor)

    def image_size(self, levels: Sequence[Tensor]) -> tuple[int, int]:
        """Gives height and width of the image that the encoder's `levels` come from.

        Exact where the image's sides are multiples of the finest stride, as they are where `divisor` is.
        """
        stride, divisor = self.encoder_strides[0], self.divisor
        height, width = (max(1, round(side * stride / divisor)) * divisor for side in levels[0].shape[-2:])
        return height, width

    def forward(self, levels: Sequence[Tensor]) -> list[Tensor]:
        """Gives the levels wanted.

        Shape: the encoder's levels, all of them, to a list of `[B, channels[i], H / strides[i], W / strides[i]]`.
        """
        return [
            levels[level.source]
            if level.stride == level.native
            else resampled(levels[level.source], self._size(level.stride, levels))
            for level in self.levels
        ]

    def _size(self, stride: int, levels: Sequence[Tensor]) -> tuple[int, int]:
        if stride in self.encoder_strides:
            # The same rounding as the encoder's own level of that stride.
            height, width = levels[self.encoder_strides.index(stride)].shape[-2:]
        else:
            height, width = (max(1, round(side / stride)) for side in self.image_size(levels))
        return height, width


def resampled(features: Tensor, size: tuple[int, int]) -> Tensor:
    """Gives features at another size: bilinear where that is larger, the mean of each cell where it is smaller."""
    if size[0] < features.shape[-2] or size[1] < features.shape[-1]:
        return F.adaptive_avg_pool2d(features, size)
    return F.interpolate(features, size=size, mode="bilinear", align_corners=False)


def pyramid_of(encoder: Encoder) -> Pyramid:
    """Gives every level of an encoder as it is.

    Raises:
        SegregError: the encoder does not keep to the contract.
    """
    check_encoder(encoder)
    strides = tuple(encoder.strides)
    levels = [Level(i, c, s, s) for i, (c, s) in enumerate(zip(encoder.channels, strides, strict=True))]
    return Pyramid(strides, levels)


def at_output_stride(encoder: Encoder, stride: int) -> Pyramid:
    """Gives every level of an encoder, none coarser than `stride`.

    An encoder that can be dilated is, in place; the coarser levels of one that can't are resampled. An encoder that is
    finer already stays as it is.

    Raises:
        SegregError: the encoder does not keep to the contract.
    """
    check_encoder(encoder)
    dilate: Callable[[int], bool] | None = getattr(encoder, "dilate", None)
    if dilate is not None and max(encoder.strides) > stride:
        dilate(stride)
    whole = pyramid_of(encoder)
    return whole.pick(*((i, min(native, stride)) for i, native in enumerate(whole.strides)))


def with_strides(pyramid: Pyramid, strides: Sequence[int], *, divisor: int = 1) -> Pyramid:
    """Gives one level for each of `strides`, finest first, each from the level that is nearest to it.

    Of levels with one stride, as a ViT has them, the shallow serve the fine strides and the deep the coarse ones.
    """
    have = pyramid.strides
    last, steps = len(have) - 1, len(strides) - 1

    def cost(indices: tuple[int, ...]) -> tuple[float, int, float]:
        distance = sum(abs(math.log2(want / have[i])) for want, i in zip(strides, indices, strict=True))
        even = [last * k / steps if steps else last for k in range(len(strides))]
        return (
            round(distance, 6),
            len(indices) - len(set(indices)),
            sum(abs(i - place) for i, place in zip(indices, even, strict=True)),
        )

    chosen = min(combinations_with_replacement(range(len(have)), len(strides)), key=cost)
    return pyramid.pick(*zip(chosen, strides, strict=True), divisor=divisor)


def level_at_stride(levels: Encoder | Pyramid, stride: int) -> int:
    """Gives the index of the level with that stride, or else the nearest; of several the finest and shallowest."""
    return min(range(len(levels.strides)), key=lambda i: abs(math.log2(levels.strides[i] / stride)))


def check_encoder(encoder: object) -> None:
    """Refuses what is no encoder.

    Raises:
        SegregError: no `nn.Module`, or `channels` and `strides` that can't be true; the message names the class.
    """
    title = f"encoder {type(encoder).__name__}"
    hint = "an encoder is an nn.Module with channels and strides, one of each for every level, finest first"
    if not isinstance(encoder, nn.Module):
        raise SegregError(f"{title} is no nn.Module", hint=hint)
    declared: dict[str, list[int]] = {}
    for name in ("channels", "strides"):
        try:
            declared[name] = list(getattr(encoder, name))
        except (AttributeError, TypeError):
            raise SegregError(f"{title} has no sequence {name!r}", hint=hint) from None
        if wrong := [n for n in declared[name] if not isinstance(n, int) or isinstance(n, bool) or n < 1]:
            raise SegregError(f"{title} has {name} {declared[name]}, of which {wrong[0]!r} can't be", hint=hint)
    channels, strides = declared["channels"], declared["strides"]
    if len(channels) != len(strides) or not strides:
        raise SegregError(f"{title} has {len(channels)} channels for {len(strides)} strides", hint=hint)
    if strides != sorted(strides):
        raise SegregError(f"{title} has strides {strides}, which are not finest first", hint=hint)

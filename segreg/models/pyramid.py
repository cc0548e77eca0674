"""What stands between an encoder and a decoder: the levels that the one wants, made from those that the other has.

Where the encoder has what is wanted, its own tensors are passed on and nothing is computed. Where it has not, its
nearest level is resampled: bilinearly to a finer stride, by averaging to a coarser one. An encoder whose levels all
have one stride, as a plain vision transformer's have, has no level that is near: it gets a simple feature pyramid.

Decoders think in powers of two. An encoder whose strides are such powers but for one common factor, as patches of 14
pixels are, is taken to have the nearest powers: its map of stride 14 passes for one of stride 16 of an image that is
larger by 8/7. So no feature is resampled only because of its grid.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import combinations_with_replacement
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from segreg.errors import SegregError
from segreg.registry.protocols import Encoder

Way = Literal["own", "resampled", "simple_pyramid"]
"""How a level comes about: the encoder's own tensor, resampled, or by a simple feature pyramid."""
SIMPLE_PYRAMID_CHANNELS = 256
"""Channels of every level of a simple feature pyramid, as in its paper."""


@dataclass(frozen=True)
class Level:
    """One level that a decoder gets.

    Attributes:
        source: index of the encoder's level that it is made from.
        depth: channels of that level.
        native: stride of that level, on the grid of powers of two.
        stride: stride that the decoder gets it with.
        way: how it is made.
    """

    source: int
    depth: int
    native: int
    stride: int
    way: Way = "own"

    @property
    def channels(self) -> int:
        """Return the channels that the decoder gets."""
        return SIMPLE_PYRAMID_CHANNELS if self.way == "simple_pyramid" else self.depth


class Pyramid(nn.Module):
    """Make the levels that a decoder wants from those that its encoder gives.

    Attributes:
        encoder_strides: strides of the encoder when this was made; the model checks that they have not changed since.
        grid: those strides as powers of two, see `on_grid`.
        channels: channels of each level wanted.
        strides: stride of each level wanted, on the grid.
        divisor: what the sides of the grid's image are multiples of, 1 where they may be anything.
        size_divisor: the same for the image itself: what a decoder declares as its own `size_divisor`.
    """

    def __init__(self, encoder_strides: Sequence[int], levels: Sequence[Level], *, divisor: int = 1) -> None:
        super().__init__()
        self.encoder_strides = tuple(encoder_strides)
        self.grid = on_grid(encoder_strides)
        self.levels = tuple(levels)
        self.divisor = divisor
        self.size_divisor = Fraction(divisor * self.encoder_strides[0], self.grid[0]).numerator
        self.made = nn.ModuleDict(
            {
                str(index): simple_pyramid_level(level.depth, level.native, level.stride)
                for index, level in enumerate(self.levels)
                if level.way == "simple_pyramid"
            }
        )

    @property
    def channels(self) -> tuple[int, ...]:
        """Return the channels of each level."""
        return tuple(level.channels for level in self.levels)

    @property
    def strides(self) -> tuple[int, ...]:
        """Return the stride of each level."""
        return tuple(level.stride for level in self.levels)

    @property
    def scale(self) -> float:
        """Return how much larger than the image the grid's image is: 1 for strides that are powers of two."""
        return self.grid[0] / self.encoder_strides[0]

    @property
    def notes(self) -> tuple[str, ...]:
        """Return a sentence for each thing that is not as the encoder has it."""
        count, notes = len(self.encoder_strides), []
        if self.grid != self.encoder_strides:
            real, taken = (", ".join(map(str, dict.fromkeys(s))) for s in (self.encoder_strides, self.grid))
            notes.append(f"the encoder's stride {real} is taken as {taken}")
        if made := [str(level.stride) for level in self.levels if level.way == "simple_pyramid"]:
            notes.append(
                f"a simple feature pyramid makes stride {', '.join(dict.fromkeys(made))} from the encoder's last level"
            )
        notes += [
            f"the encoder's level {level.source + 1} of {count} is resampled from stride {level.native} to "
            f"{level.stride}"
            for level in self.levels
            if level.way == "resampled"
        ]
        return tuple(notes)

    def pick(self, *wanted: tuple[int, int], divisor: int = 1) -> Pyramid:
        """Return the pyramid of some of these levels: for each its index here and the stride it is wanted with.

        Of an encoder with a single stride, levels of any other stride are all made from its last level.
        """
        levels = []
        for index, stride in wanted:
            level = self.levels[index]
            levels.append(replace(level, stride=stride, way="own" if stride == level.native else "resampled"))
        if len(set(self.encoder_strides)) == 1 and any(level.way != "own" for level in levels):
            last = self.levels[-1]
            levels = [replace(last, stride=level.stride, way="simple_pyramid") for level in levels]
        return Pyramid(self.encoder_strides, levels, divisor=divisor)

    def image_size(self, levels: Sequence[Tensor]) -> tuple[int, int]:
        """Return height and width, on the grid, of the image that the encoder's `levels` come from.

        Exact where the image's sides are multiples of the finest stride, as they are where `divisor` is.
        """
        stride, divisor = self.grid[0], self.divisor
        height, width = (_nearest(side * stride, divisor) * divisor for side in levels[0].shape[-2:])
        return height, width

    def forward(self, levels: Sequence[Tensor]) -> list[Tensor]:
        """Return the levels wanted.

        Shape: the encoder's levels, all of them, to a list of `[B, channels[i], H / strides[i], W / strides[i]]`.
        """
        return [self._made(index, level, levels) for index, level in enumerate(self.levels)]

    def _made(self, index: int, level: Level, levels: Sequence[Tensor]) -> Tensor:
        features = levels[level.source]
        if level.way == "own":
            return features
        if level.way == "simple_pyramid":
            features = self.made[str(index)](features)
        return resampled(features, self._size(level.stride, levels))

    def _size(self, stride: int, levels: Sequence[Tensor]) -> tuple[int, int]:
        if stride in self.grid:
            # The same rounding as the encoder's own level of that stride.
            height, width = levels[self.grid.index(stride)].shape[-2:]
        else:
            height, width = (_nearest(side, stride) for side in self.image_size(levels))
        return height, width


def _nearest(size: int, stride: int) -> int:
    """Return how often a stride is in a size, rounded, at least once; without rounding where it is a whole number.

    So a graph that is traced for sizes of all multiples has plain arithmetic, which every runtime knows.
    """
    return size // stride if size % stride == 0 else max(1, round(size / stride))


def simple_pyramid_level(in_channels: int, native: int, stride: int) -> nn.Sequential:
    """Return the layers that make one level of another scale from a plain vision transformer's last map.

    Section 3 of Li et al., "Exploring Plain Vision Transformer Backbones for Object Detection" (arXiv:2203.16527): a
    transposed convolution of stride 2 doubles the map, with LayerNorm and GELU between two of them, and max pooling of
    stride 2 halves it; then come a 1x1 and a 3x3 convolution, each with LayerNorm. The paper has strides of 4 to 32
    from one of 16; what is beyond that, as from a patch of 32 to a stride of 4, continues its rule.

    Args:
        in_channels: of the last map.
        native: its stride.
        stride: of the level. Both are powers of two.

    Shape: `[B, in_channels, h, w]` to `[B, 256, h * native / stride, w * native / stride]`, rounded up.
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
        nn.Conv2d(channels, SIMPLE_PYRAMID_CHANNELS, kernel_size=1, bias=False),
        LayerNorm(SIMPLE_PYRAMID_CHANNELS),
        nn.Conv2d(SIMPLE_PYRAMID_CHANNELS, SIMPLE_PYRAMID_CHANNELS, kernel_size=3, padding=1, bias=False),
        LayerNorm(SIMPLE_PYRAMID_CHANNELS),
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


def on_grid(strides: Sequence[int]) -> tuple[int, ...]:
    """Return strides as powers of two, where one factor common to all of them makes them that, or else as they are.

    7, 14, 28 becomes 8, 16, 32, and 14 becomes 16. 12, 16 stays, for no one factor makes both a power of two.
    """
    first = strides[0]
    ratios = [stride / first for stride in strides]
    if any(2 ** round(math.log2(ratio)) != ratio for ratio in ratios):
        return tuple(strides)
    nearest: int = 2 ** round(math.log2(first))
    return tuple(round(nearest * ratio) for ratio in ratios)


def resampled(features: Tensor, size: tuple[int, int]) -> Tensor:
    """Return features at another size: bilinear where that is larger, the mean of each cell where it is smaller."""
    if size == tuple(features.shape[-2:]):
        return features
    if size[0] < features.shape[-2] or size[1] < features.shape[-1]:
        return F.adaptive_avg_pool2d(features, size)
    return F.interpolate(features, size=size, mode="bilinear", align_corners=False)


def pyramid_of(encoder: Encoder) -> Pyramid:
    """Return every level of an encoder as it is.

    Raises:
        SegregError: the encoder does not keep to the contract.
    """
    check_encoder(encoder)
    grid = on_grid(encoder.strides)
    levels = [Level(i, c, s, s) for i, (c, s) in enumerate(zip(encoder.channels, grid, strict=True))]
    return Pyramid(encoder.strides, levels)


def at_output_stride(encoder: Encoder, stride: int) -> Pyramid:
    """Return every level of an encoder, none coarser than `stride`.

    An encoder that can be dilated is, in place; the coarser levels of one that can't are made from what it has. An
    encoder that is finer already stays as it is.

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
    """Return one level for each of `strides`, finest first, each from the level that is nearest to it.

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
    """Return the index of the level with that stride, or else the nearest; of several the finest and shallowest."""
    return min(range(len(levels.strides)), key=lambda i: abs(math.log2(levels.strides[i] / stride)))


def check_encoder(encoder: object) -> None:
    """Refuse what is not an encoder.

    Raises:
        SegregError: no `nn.Module`, or `channels`, `strides` or sizes that can't be true; the message names the class.
    """
    title = f"encoder {type(encoder).__name__}"
    hint = "an encoder is an nn.Module with channels and strides, one of each for every level, finest first"
    if not isinstance(encoder, nn.Module):
        raise SegregError(f"{title} is not a nn.Module", hint=hint)
    declared: dict[str, list[int]] = {}
    for name in ("channels", "strides"):
        try:
            declared[name] = list(getattr(encoder, name))
        except (AttributeError, TypeError):
            raise SegregError(f"{title} has no sequence {name!r}", hint=hint) from None
        if wrong := [n for n in declared[name] if not is_count(n)]:
            raise SegregError(f"{title} has {name} {declared[name]}, of which {wrong[0]!r} can't be", hint=hint)
    channels, strides = declared["channels"], declared["strides"]
    if len(channels) != len(strides) or not strides:
        raise SegregError(f"{title} has {len(channels)} channels for {len(strides)} strides", hint=hint)
    if strides != sorted(strides):
        raise SegregError(f"{title} has strides {strides}, which are not finest first", hint=hint)
    size = getattr(encoder, "image_size", None)
    if size is not None and not (isinstance(size, Sequence) and len(size) == 2 and all(map(is_count, size))):
        raise SegregError(f"{title} has image_size {size!r}", hint="image_size is a height and a width, or None")
    if not is_count(divisor := getattr(encoder, "size_divisor", 1)):
        raise SegregError(f"{title} has size_divisor {divisor!r}", hint="size_divisor is a positive integer")


def is_count(value: object) -> bool:
    """Whether a value is a positive integer."""
    return isinstance(value, int) and not isinstance(value, bool) and value > 0

"""What parts are tried on: synthetic encoders of every shape, tasks, truths and answers, all from torch's seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segreg.registry.protocols import Encoder
from segreg.task import IGNORE_INDEX, Task, mask_shape

TASKS: Mapping[str, Task] = {
    "binary": Task(("thing",), "binary"),
    "multiclass": Task(("ground", "road", "tree"), "multiclass"),
    "multilabel": Task(("cell", "wall"), "multilabel"),
}
"""A task of each mode."""
SIZES = ((64, 64), (65, 97), (224, 32))
"""Height and width of images: square, odd and tall."""


class Levels(nn.Module):
    """A synthetic encoder: each level is a convolution of the image, pooled to its stride.

    Args:
        strides: of the levels, finest first.
        in_channels: channels of the image.
        rounds_up: whether sizes that a stride does not divide are rounded up.
        dilates: whether it offers `dilate`.
    """

    channels: Sequence[int]
    strides: Sequence[int]

    def __init__(self, *strides: int, in_channels: int = 3, rounds_up: bool = True, dilates: bool = False) -> None:
        super().__init__()
        self.strides = strides
        self.channels = tuple(8 + 4 * number for number in range(len(strides)))
        self.convolutions = nn.ModuleList(nn.Conv2d(in_channels, c, 1) for c in self.channels)
        self.rounds_up = rounds_up
        if dilates:
            self.dilate = self._dilate

    def _dilate(self, output_stride: int) -> bool:
        self.strides = tuple(min(stride, output_stride) for stride in self.strides)
        return True

    def forward(self, image: Tensor) -> list[Tensor]:
        least = min(image.shape[-2:])  # no level is empty, however small the image
        pooled = [F.avg_pool2d(image, s, ceil_mode=self.rounds_up or s > least) for s in self.strides]
        return [convolution(one) for convolution, one in zip(self.convolutions, pooled, strict=True)]


class Finest(nn.Module):
    """A decoder that passes on the finest level, so that an encoder can be tried alone."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.channels = encoder.channels[0]
        self.stride = encoder.strides[0]

    def forward(self, levels: list[Tensor]) -> Tensor:
        return levels[0]


cnn = partial(Levels, 2, 4, 8, 16, 32, dilates=True)
PYRAMIDS: Mapping[str, Callable[[], Levels]] = {
    "a CNN (strides 2 to 32)": cnn,
    "a CNN that can't dilate (strides 2 to 32)": partial(Levels, 2, 4, 8, 16, 32),
    "a hierarchical transformer (strides 4 to 32)": partial(Levels, 4, 8, 16, 32, rounds_up=False),
    "a VGG (strides 1 to 32)": partial(Levels, 1, 2, 4, 8, 16, 32, rounds_up=False),
    "a ViT (four levels of stride 16)": partial(Levels, 16, 16, 16, 16, rounds_up=False),
    "one level (stride 16)": partial(Levels, 16),
}
"""An encoder of each shape that there is."""


def image(*, images: int = 2, channels: int = 3, size: tuple[int, int] = (64, 64)) -> Tensor:
    """Return noise as a normalised image has it, `[B, C, H, W]`."""
    return torch.randn(images, channels, *size)


def truth(task: Task, *, images: int = 4, size: tuple[int, int] = (12, 12), ignored: bool = False) -> Tensor:
    """Return a random target of every class, int64 as `Task` has it, a fifth of it ignored if wanted."""
    shape = (images, *mask_shape(task, size))
    target = torch.randint(0, task.highest_label + 1, shape)
    return target.masked_fill(torch.rand(shape) < 0.2, IGNORE_INDEX) if ignored else target


def answers(task: Task, target: Tensor, confidence: float) -> Tensor:
    """Return logits `[B, K, H, W]` for which the target is right with this confidence, wrong if it is negative."""
    ones, _ = task.one_hot(target)
    return (2 * ones - 1) * confidence

"""Batch augmentations: images of a batch mixed with one another.

mixup: Zhang et al., mixup: Beyond Empirical Risk Minimization, arXiv:1710.09412. CutMix: Yun et al., arXiv:1905.04899,
for masks as in French et al., arXiv:1906.01916. ClassMix: Olsson et al., arXiv:2007.07936, with true masks in place of
predicted ones. Copy-Paste: Ghiasi et al., arXiv:2012.07177, of whole classes rather than single objects, and without
its change of scale, which the recipe's other augmentations make.

Departures: an image's partner is the one some places on in the batch, so that none is its own; CutMix draws a box for
each image rather than one for the batch. Ignored pixels are pasted as such, and with mixup each truth keeps its own.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from segreg.registry.protocols import MixedBatch

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from segreg.registry.protocols import BatchAugmentation
    from segreg.task import Task


@dataclass(frozen=True)
class Sometimes:
    """A batch augmentation that is applied to some of the batches.

    Attributes:
        probability: how often.
        mix: what is applied.
    """

    probability: float
    mix: BatchAugmentation

    def __call__(self, images: Tensor, targets: Tensor, generator: np.random.Generator) -> MixedBatch:
        """Return the batch, mixed or as it is."""
        chosen = generator.random() < self.probability
        return self.mix(images, targets, generator) if chosen else MixedBatch(images, targets)


@dataclass(frozen=True)
class MixUp:
    """Weighted means of two images, with both truths.

    Attributes:
        alpha: both parameters of the weight's beta distribution.
    """

    alpha: float

    def __call__(self, images: Tensor, targets: Tensor, generator: np.random.Generator) -> MixedBatch:
        """Return the mixed batch; means of integers are rounded."""
        other_images, other_targets = partners(images, targets, generator)
        share = float(generator.beta(self.alpha, self.alpha))
        mean = share * images.float() + (1 - share) * other_images.float()
        mean = mean if images.is_floating_point() else mean.round()
        return MixedBatch(mean.to(images.dtype), targets, other_targets, share)


@dataclass(frozen=True)
class CutMix:
    """A box of each image from another one.

    Attributes:
        task: the classes.
        alpha: both parameters of the beta distribution of the share that stays.
    """

    task: Task
    alpha: float

    def __call__(self, images: Tensor, targets: Tensor, generator: np.random.Generator) -> MixedBatch:
        """Return the mixed batch. A box lies around any point of the image, and is cut off at its border."""
        others = partners(images, targets, generator)
        height, width = images.shape[-2:]
        taken = torch.zeros(len(images), height, width, dtype=torch.bool)
        for box in taken:
            side = math.sqrt(1 - generator.beta(self.alpha, self.alpha))
            y, x = generator.uniform(0, height), generator.uniform(0, width)
            top, bottom = (max(0, round(y + half * side * height)) for half in (-0.5, 0.5))
            left, right = (max(0, round(x + half * side * width)) for half in (-0.5, 0.5))
            box[top:bottom, left:right] = True
        return pasted(self.task, images, targets, others, taken.to(images.device, non_blocking=True))


@dataclass(frozen=True)
class ClassMix:
    """Half of the classes that another image shows, rounded down.

    Attributes:
        task: the classes. Of a binary one, the background is a class too.
    """

    task: Task

    def __call__(self, images: Tensor, targets: Tensor, generator: np.random.Generator) -> MixedBatch:
        """Return the mixed batch. No device sync: which classes there are is found on the device."""
        others = partners(images, targets, generator)
        labels = range(self.task.label_count)
        shown = torch.stack([labelled(self.task, others[1], k).flatten(1).any(dim=1) for k in labels], dim=1)
        # Those shown in a random order, and behind them those that are not.
        order = torch.from_numpy(generator.random((len(images), len(labels)))).float().to(images.device)
        rank = order.masked_fill(~shown, 2.0).argsort(dim=1).argsort(dim=1)
        chosen = rank < shown.sum(dim=1, keepdim=True) // 2
        parts = (labelled(self.task, others[1], k) & chosen[:, k, None, None] for k in labels)
        taken = functools.reduce(torch.logical_or, parts)
        return pasted(self.task, images, targets, others, taken)


class CopyPaste:
    """All pixels of some classes of another image.

    Args:
        task: the classes.
        classes: indices of those that are pasted.
    """

    def __init__(self, task: Task, classes: Sequence[int]) -> None:
        self.task = task
        self.labels = [1] if task.mode == "binary" else list(classes)

    def __call__(self, images: Tensor, targets: Tensor, generator: np.random.Generator) -> MixedBatch:
        """Return the mixed batch."""
        others = partners(images, targets, generator)
        taken = functools.reduce(torch.logical_or, (labelled(self.task, others[1], k) for k in self.labels))
        return pasted(self.task, images, targets, others, taken)


def partners(images: Tensor, targets: Tensor, generator: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Return for each image of a batch another one, with its targets: each is some image's partner once."""
    places = int(generator.integers(1, len(images)))
    return images.roll(places, dims=0), targets.roll(places, dims=0)


def labelled(task: Task, targets: Tensor, label: int) -> Tensor:
    """Return which pixels have a label, or show a class if multilabel: bool `[B, H, W]`."""
    return targets[:, label] == 1 if task.mode == "multilabel" else targets == label


def pasted(task: Task, images: Tensor, targets: Tensor, others: tuple[Tensor, Tensor], taken: Tensor) -> MixedBatch:
    """Return the batch with the pixels that are `taken`, bool `[B, H, W]`, from the other images and targets."""
    layers = taken.unsqueeze(1)
    mask = layers if task.mode == "multilabel" else taken
    return MixedBatch(torch.where(layers, others[0], images), torch.where(mask, others[1], targets))

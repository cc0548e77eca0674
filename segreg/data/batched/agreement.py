"""Whether the equivalents do here what Albumentations does: another version of it, or of OpenCV, may do otherwise."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from segreg.data.augment import TRIES, Augmentation
from segreg.data.batched.augmentation import BatchedAugmentation, grouped
from segreg.data.batched.drawing import Images
from segreg.data.batched.values import Noise
from segreg.task import Task

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST = 2.0
"""Grey levels that images may differ by on average: older versions of OpenCV round places to 1/32 of a pixel."""
LEAST = 0.98
"""Share of a mask's pixels that must be the same."""
_SIDE = 128


def disagreeing(transforms: Sequence[Any], images: Images, task: Task) -> list[str]:
    """Return the transforms whose equivalents do otherwise than they, tried out on a drawn image."""
    tried = replace(images, height=_SIDE, width=_SIDE)
    return [
        f"{type(transform).__name__} as Albumentations {_version()} does it"
        for transform in transforms
        if not _agrees(transform, tried, task)
    ]


def _agrees(transform: Any, input_images: Images, task: Task) -> bool:
    certain = copy.deepcopy(transform)
    certain.p = 1.0
    image, mask = _tried(input_images, task)
    seeds = [("try out", attempt) for attempt in range(TRIES)]
    alone = Augmentation([certain], task)
    theirs = [alone(image.copy(), mask.copy(), *seed) for seed in seeds]
    many = BatchedAugmentation([certain], input_images)
    try:
        images, masks = _together(many, image, mask, seeds)
    except (AttributeError, KeyError, TypeError, ValueError):  # it draws in another way
        return False
    is_noise = isinstance(many.steps[0], Noise)
    for (one, labels), ours, our_labels in zip(theirs, images, masks, strict=True):
        # Noise has other numbers of the same distribution: none but their sizes can be compared.
        left, right = (np.sort(one, axis=None), np.sort(ours, axis=None)) if is_noise else (one, ours)
        if np.abs(left.astype(np.int16) - right).mean() > MOST or (labels == our_labels).mean() < LEAST:
            return False
    return True


def _together(
    augmentation: BatchedAugmentation, image: NDArray[np.uint8], mask: NDArray[np.uint8], seeds: Sequence[Any]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return the image `[n, H, W, C]` and the mask augmented with each seed."""
    import torch

    groups, numbers = grouped([augmentation.draw(*seed) for seed in seeds])
    images = torch.from_numpy(np.stack([image] * len(seeds))).permute(0, 3, 1, 2)
    masks = torch.from_numpy(np.stack([mask] * len(seeds)))
    images, masks = augmentation(images, masks, groups, torch.from_numpy(numbers))
    return images.permute(0, 2, 3, 1).numpy(), masks.numpy()


def _tried(images: Images, task: Task) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return a smooth image without symmetries, and a mask of a bright part of it."""
    rows, columns = np.indices((images.height, images.width)) / _SIDE
    waves = [np.sin(4 * rows + 0.3 * channel) + np.cos(3 * columns + rows) for channel in range(images.channels)]
    image = (np.stack(waves, axis=2) * 60 + 128).astype(np.uint8)
    mask = (image[..., 0] > 128).astype(np.uint8)
    return image, np.stack([mask] * task.channels) if images.layered else mask


def _version() -> str:
    import albumentations

    return str(albumentations.__version__)

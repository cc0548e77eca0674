"""Which part of an image at its own scale training sees, and how often an image is seen.

Cropped first and augmented afterwards, so that a step costs what its crops cost, however large the images are. Sources:
scale and crop as DeepLab trains (arXiv:1706.05587, section 4), `cat_max_ratio` as in MMSegmentation's RandomCrop,
crops centred on foreground as nnU-Net oversamples it (doi:10.1038/s41592-020-01008-z), and repeat factors as LVIS has
them (arXiv:1908.03195, appendix B.2).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segreg.config.sections import Crop, Input
from segreg.data.native import NativeDataset, OneImage
from segreg.data.resize import Size, format_size, resize_image, resize_mask
from segreg.errors import SegregError, did_you_mean, listed
from segreg.task import BACKGROUND, IGNORE_INDEX, Task

TRIES = 10
"""How often a crop is drawn in which one class has too large a share."""


@dataclass(frozen=True)
class Window:
    """A part of an image in its own pixels, and the size that it is given in the crop."""

    top: int
    left: int
    height: int
    width: int
    shown: Size


class Crops:
    """Crops of one size.

    An image that is smaller than the crop lies in its upper left corner; the rest has the image's mean colour and is
    ignored (255).

    Args:
        input: its size is that of the crops.
        rules: which crops are drawn.
        task: the classes.

    Raises:
        SegregError: the rules name a class that the task does not have, or don't go with its mode.
    """

    def __init__(self, input: Input, rules: Crop, task: Task) -> None:
        self.input = input
        self.rules = rules
        self.labels = _labels(rules.classes, task)
        if task.mode == "multilabel" and rules.cat_max_ratio < 1:
            raise SegregError("crop.cat_max_ratio: classes that overlap (multilabel) have no shares of a crop")

    def draw(
        self, images: NativeDataset | OneImage, index: int, chance: np.random.Generator
    ) -> tuple[NDArray[Any], NDArray[np.uint8]]:
        """Return a drawn crop of the sample with this index, and its mask.

        Shape: `[H, W, C]` of the data set's dtype, uint8 `[H, W]` or `[K, H, W]`; H and W are `input.size`.
        """
        window = self._at_scale(images.original_size(index), chance.uniform(*self.rules.scale))
        for _ in range(TRIES):
            window = self._moved(window, images, index, chance)
            image, mask = images.window(index, window.top, window.left, window.height, window.width)
            if self.rules.cat_max_ratio == 1 or _largest_share(mask) < self.rules.cat_max_ratio:
                break
        return self._fitted(image, mask, window, images, index)

    def centre(self, images: NativeDataset, index: int) -> tuple[NDArray[Any], NDArray[np.uint8]]:
        """Return the crop in the middle of an image at its own scale, and its mask; shapes as for `draw`."""
        height, width = images.original_size(index)
        whole = self._at_scale((height, width), 1.0)
        window = replace(whole, top=(height - whole.height) // 2, left=(width - whole.width) // 2)
        image, mask = images.window(index, window.top, window.left, window.height, window.width)
        return self._fitted(image, mask, window, images, index)

    def times(self, images: NativeDataset, indices: Sequence[int]) -> NDArray[np.float64]:
        """Return how often each sample is seen in an epoch, on average: float64 `[N]`, 1 at least."""
        times = np.full(len(indices), float(self.rules.per_image))
        if self.rules.repeat_threshold:
            present = images.present[[images.rows[index] for index in indices]]
            shares = present.mean(axis=0)
            wanted = np.ones_like(shares)
            shown = shares > 0
            wanted[shown] = np.maximum(1, np.sqrt(self.rules.repeat_threshold / shares[shown]))
            times *= np.where(present, wanted, 1).max(axis=1)
        return times

    def refuse_too_large(self, sizes: Mapping[str, Size]) -> None:
        """Refuse crops that no image fills in either direction, even at the largest scale.

        Args:
            sizes: heights and widths of the training images by their ids.

        Raises:
            SegregError: all images are smaller; the message names the largest.
        """
        largest = max(sizes, key=lambda name: sizes[name][0] * sizes[name][1])
        factor = self.rules.scale[1]
        if all(
            round(h * factor) < self.input.size[0] and round(w * factor) < self.input.size[1] for h, w in sizes.values()
        ):
            at_scale = f", and crop.scale goes to {factor:g}" if factor != 1 else ""
            raise SegregError(
                f"input.size: crops of {format_size(self.input.size)} (height x width) are larger than every training "
                f'image: the largest, "{largest}", is {format_size(sizes[largest])}{at_scale}',
                hint=f"set input.size to at most {format_size(sizes[largest])}, or let crop.scale enlarge the images",
            )

    def _at_scale(self, size: Size, factor: float) -> Window:
        """Return a window of the size whose pixels, resized by the factor, fill the crop; all of a smaller image."""
        parts, shown = [], []
        for side, crop in zip(size, self.input.size, strict=True):
            wanted = max(1, round(crop / factor))
            parts.append(min(side, wanted))
            shown.append(crop if wanted <= side else min(crop, max(1, round(side * factor))))
        return Window(0, 0, parts[0], parts[1], (shown[0], shown[1]))

    def _moved(
        self, window: Window, images: NativeDataset | OneImage, index: int, chance: np.random.Generator
    ) -> Window:
        size = images.original_size(index)
        height, width = window.height, window.width
        around = None
        if self.rules.foreground and chance.random() < self.rules.foreground:
            around = images.position(index, self.labels, chance)
        if around is None:
            top, left = (
                int(chance.integers(side - part + 1)) for side, part in zip(size, (height, width), strict=True)
            )
        else:
            top = min(max(around[0] - height // 2, 0), size[0] - height)
            left = min(max(around[1] - width // 2, 0), size[1] - width)
        return replace(window, top=top, left=left)

    def _fitted(
        self, image: NDArray[Any], mask: NDArray[np.uint8], window: Window, images: NativeDataset | OneImage, index: int
    ) -> tuple[NDArray[Any], NDArray[np.uint8]]:
        image, mask = resize_image(image, window.shown), resize_mask(mask, window.shown)
        if window.shown == tuple(self.input.size):
            return image, mask
        height, width = window.shown
        whole = np.empty((*self.input.size, image.shape[2]), image.dtype)
        whole[:] = images.mean_colour(index)
        whole[:height, :width] = image
        labels = np.full((*mask.shape[:-2], *self.input.size), IGNORE_INDEX, np.uint8)
        labels[..., :height, :width] = mask
        return whole, labels


def counts_of(times: NDArray[np.float64], offset: float) -> NDArray[np.int64]:
    """Return whole numbers whose mean over offsets is `times`, and whose sum does not depend on the offset.

    Systematic sampling: a comb of distance 1, moved by the offset in [0, 1), is laid on the sums of `times`. The last
    sum is rounded, so that each epoch has as many crops as any other.
    """
    ends = np.cumsum(times)
    ends[-1] = round(ends[-1])
    teeth = np.ceil(ends - offset)
    return np.diff(np.concatenate([[0.0], np.maximum(teeth, 0)])).astype(np.int64)


def _labels(classes: Sequence[str], task: Task) -> tuple[int, ...]:
    """Return the labels that crops are centred on; of a multilabel task the numbers of layers."""
    if task.mode == "binary":
        numbers = {task.classes[0]: 1}
    else:
        numbers = {name: number for number, name in enumerate(task.classes)}
    if unknown := [name for name in classes if name not in numbers]:
        hint = did_you_mean(unknown[0], numbers) or f"the classes are {listed(list(numbers), most=20)}"
        raise SegregError(f'crop.classes: "{unknown[0]}" is not a class of the data set', hint=hint)
    return tuple(
        number for name, number in numbers.items() if name in classes or (not classes and name.lower() != BACKGROUND)
    )


def _largest_share(mask: NDArray[np.uint8]) -> float:
    """Return the share of the class that has most of the pixels that count; 1 where none counts."""
    counts = np.bincount(mask.ravel(), minlength=256)
    counts[IGNORE_INDEX] = 0
    total = int(counts.sum())
    return float(counts.max() / total) if total else 1.0

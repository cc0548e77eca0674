"""What trained networks say of a image: probabilities and labels at its own size, looked at whole or in tiles."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from segreg.inference.predictor import WHOLE, InputImage, Predictor, Strip, Way, check_together
from segreg.inference.tiles import Corner, Size, blend

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from segreg.config.sections import Input
    from segreg.task import Task

_STRIP = 1 << 20
"""Pixels of a strip: what is made of labels and probabilities beside the maps stays small."""
_TOGETHER = 1 << 25
"""Values of the maps that are held at once; larger images go one by one, whatever the batch's size."""


def predict(
    predictors: Sequence[Predictor],
    images: Iterator[InputImage] | Sequence[InputImage],
    way: Way = WHOLE,
    *,
    threshold: float | None = None,
) -> Iterator[tuple[InputImage, Iterator[Strip]]]:
    """Return each image with its prediction, in strips from the top; probabilities of several networks are averaged.

    Whole images are looked at several at once, and a network alone, without views, gives exactly what scoring at the
    original resolution sees. In tiles, only one row of them is in memory at a time.

    Raises:
        SegregError: the networks' classes or thresholds differ, or a image's size does not fit.
    """
    threshold = check_together(predictors, threshold)
    task = predictors[0].task
    if way.tile is not None:
        for image in images:
            rows = _tiled(predictors, image, way, way.tile)
            yield image, (Strip(top, _tensor(maps), "probabilities", task, threshold) for top, maps in rows)
        return
    alone = len(predictors) * len(way.flips) * len(way.scales) == 1
    for group in _groups(images, way.batch_size, task.channels):
        maps = _look(predictors, [image.pixels for image in group], way, _whole_input)
        while group:  # each is let go before the next is made
            values = maps.pop(0).cpu()
            yield group.pop(0), _strips(values, "logits" if alone else "probabilities", task, threshold)


def predict_labels(
    predictors: Sequence[Predictor], image: InputImage, way: Way = WHOLE, *, threshold: float | None = None
) -> NDArray[np.uint8]:
    """Return labels at the image's size, uint8 `[H, W]`, or 0/1 `[K, H, W]` if multilabel.

    Raises:
        SegregError: as for `predict`.
    """
    import numpy as np

    task = predictors[0].task
    labels = np.empty((*([task.channels] if task.mode == "multilabel" else []), *image.size), np.uint8)
    for _, strips in predict(predictors, [image], way, threshold=threshold):
        for strip in strips:
            labels[..., strip.rows, :] = strip.labels
    return labels


def predict_probabilities(predictors: Sequence[Predictor], image: InputImage, way: Way = WHOLE) -> NDArray[np.float32]:
    """Return probabilities at the image's size, float32 `[K, H, W]` in [0, 1].

    Raises:
        SegregError: as for `predict`.
    """
    import numpy as np

    probabilities = np.empty((predictors[0].task.channels, *image.size), np.float32)
    for _, strips in predict(predictors, [image], way, threshold=predictors[0].threshold):
        for strip in strips:
            probabilities[:, strip.rows] = strip.probabilities
    return probabilities


def _look(
    predictors: Sequence[Predictor],
    input_images: Sequence[Sequence[NDArray[np.uint8]]],
    way: Way,
    input_of: Callable[[Predictor, float], Input],
) -> list[Tensor]:
    """Return each image's map at its own size: the mean probability of all views, or a single view's logits.

    Args:
        predictors: the networks.
        images: for each image, its pixels `[H, W, C]` as each network takes them.
        way: which views there are.
        input_of: gives how a network is shown a image at a scale.
    """
    import numpy as np
    import torch

    from segreg.data import fit_image, restore

    count = len(predictors) * len(way.flips) * len(way.scales)
    maps: list[Tensor] = []
    with torch.inference_mode():
        for number, predictor in enumerate(predictors):
            for scale in way.scales:
                section = input_of(predictor, scale)
                fitted = np.stack([fit_image(pixels[number], section) for pixels in input_images])
                images = torch.from_numpy(fitted).permute(0, 3, 1, 2)  # channels-last in memory
                for flip in way.flips:
                    shown = images.flip(flip).contiguous(memory_format=torch.channels_last) if flip else images
                    logits = predictor.logits(shown)
                    logits = logits.flip(flip) if flip else logits
                    for index, pixels in enumerate(input_images):
                        height, width = (int(side) for side in pixels[number].shape[:2])
                        own = restore(logits[index], (height, width), section)
                        if count > 1:
                            own = predictor.task.probabilities(own[None])[0]
                        if index == len(maps):
                            maps.append(own)
                        else:
                            maps[index] += own.to(maps[index].device)
        return [values.div_(count) for values in maps] if count > 1 else maps


def _whole_input(predictor: Predictor, scale: float) -> Input:
    section = predictor.input
    if scale == 1:
        return section
    height, width = (max(1, round(side * scale)) for side in section.size)
    return replace(section, size=(height, width), resize="stretch" if section.resize == "none" else section.resize)


def _tiled(
    predictors: Sequence[Predictor], image: InputImage, way: Way, tile: Size
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Return probabilities in strips. A image smaller than a tile is one tile of its own size."""
    height, width = image.size
    region = (
        min(height, max(1, round(tile[0] / way.scale))),
        min(width, max(1, round(tile[1] / way.scale))),
    )
    task = predictors[0].task
    alone = len(predictors) * len(way.flips) * len(way.scales) == 1

    def input_of(predictor: Predictor, scale: float) -> Input:
        seen_height, seen_width = (max(1, round(side * way.scale * scale)) for side in region)
        return replace(predictor.input, size=(seen_height, seen_width), resize="stretch")

    def look(corners: Sequence[Corner]) -> NDArray[np.float32]:
        import torch

        crops = [
            [pixels[top : top + region[0], left : left + region[1]] for pixels in image.pixels] for top, left in corners
        ]
        maps = torch.stack(_look(predictors, crops, way, input_of))
        found: NDArray[np.float32] = (task.probabilities(maps) if alone else maps).cpu().numpy()
        return found

    # Tiles of a image that is shown much smaller have large maps.
    at_once = max(1, min(way.batch_size, _TOGETHER // 4 // (task.channels * region[0] * region[1])))
    return blend(image.size, region, way.overlap, look, channels=task.channels, at_once=at_once)


def _groups(
    images: Iterator[InputImage] | Sequence[InputImage], most: int, channels: int
) -> Iterator[list[InputImage]]:
    """Return images in groups of `most`, of fewer where they are large."""
    group: list[InputImage] = []
    values = 0
    for image in images:
        group.append(image)
        values += image.size[0] * image.size[1] * channels
        if len(group) == most or values >= _TOGETHER:
            yield group
            group, values = [], 0
    if group:
        yield group


def _strips(values: Tensor, are: Literal["logits", "probabilities"], task: Task, threshold: float) -> Iterator[Strip]:
    height, width = values.shape[-2:]
    rows = max(1, _STRIP // width)
    for top in range(0, height, rows):
        yield Strip(top, values[:, top : top + rows], are, task, threshold)


def _tensor(values: NDArray[np.float32]) -> Tensor:
    import torch

    return torch.from_numpy(values)

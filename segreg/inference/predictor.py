"""Predict with trained networks: probabilities and labels of an image at its own size, as a whole or in tiles."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from segreg.errors import SegregError, listed
from segreg.inference.tiles import MOST_OVERLAP, Corner, Size, blend

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from segreg.config.sections import Input
    from segreg.data.values import Statistics
    from segreg.runtime.device import Precision
    from segreg.task import Task

Views = Literal["none", "mirror", "flips", "mirror+scales", "flips+scales"]
SCALES = (0.75, 1.0, 1.25)
"""Factors of the image's size, for views with scales."""
_STRIP = 1 << 20
"""Pixels of a strip: what is made of labels and probabilities beside the maps stays small."""
_TOGETHER = 1 << 25
"""Values of the maps that are held at once; larger images go one by one, whatever the batch's size."""
_FLIPS: dict[str, tuple[tuple[int, ...], ...]] = {
    "none": ((),),
    "mirror": ((), (-1,)),
    "flips": ((), (-1,), (-2,), (-2, -1)),
}


@dataclass(frozen=True)
class Predictor:
    """A trained network with its normalisation and input size.

    Attributes:
        name: what it is called in messages, such as its run's folder.
        model: returns logits for normalised images; in evaluation mode, on `device`.
        normalize: turns the values of images into what the model takes; on `device`.
        input: how an image is resized for the network.
        task: the classes.
        threshold: probability from which a pixel is foreground.
        device: where the network computes.
        precision: what it computes in.
    """

    name: str
    model: nn.Module
    normalize: nn.Module
    input: Input
    task: Task
    threshold: float
    device: torch.device
    precision: Precision

    def logits(self, images: Tensor) -> Tensor:
        """Return float32 logits `[B, K, H, W]` on the device, for a batch's images `[B, C, H, W]`, as in scoring."""
        from segreg.models.segmenter import predict_logits

        return predict_logits(self.model, self.normalize, images, self.device, self.precision)


@dataclass(frozen=True, kw_only=True)
class InferenceConfig:
    """How images are given to the network.

    Attributes:
        tile: height and width of the tiles that the network sees; None: the whole image, resized as in training.
        overlap: share of a tile that the next one covers too.
        scale: factor by which the image is resized before it is cut into tiles.
        views: what is averaged: `none` is the image as it is, `mirror` also left-right, `flips` also upside down and
            both; `+scales` each of them at 0.75, 1 and 1.25 times the size.
        batch_size: images, or tiles, that the network is given at once.

    Raises:
        SegregError: a number is out of range, or the scale is given without tiles.
    """

    tile: Size | None = None
    overlap: float = 0.25
    scale: float = 1.0
    views: Views = "none"
    batch_size: int = 8

    def __post_init__(self) -> None:
        if self.tile is not None and min(self.tile) < 1:
            raise SegregError(f"a tile must have a height and a width above 0, not {self.tile[0]}x{self.tile[1]}")
        if not 0 <= self.overlap <= MOST_OVERLAP:
            raise SegregError(f"the overlap of tiles must be from 0 to {MOST_OVERLAP}, not {self.overlap:g}")
        if not 0.01 <= self.scale <= 100:
            raise SegregError(f"the scale must be from 0.01 to 100, not {self.scale:g}")
        if self.scale != 1 and self.tile is None:
            raise SegregError(
                "a scale goes with tiles; whole images are resized as in training", hint="give the size of tiles too"
            )
        if self.batch_size < 1:
            raise SegregError(f"the batch size must be above 0, not {self.batch_size}")
        if self.views.partition("+")[0] not in _FLIPS or self.views.partition("+")[2] not in ("", "scales"):
            raise SegregError(f'"{self.views}" is not a set of views; there is {listed([*_FLIPS])}, and each "+scales"')

    @property
    def flips(self) -> tuple[tuple[int, ...], ...]:
        """Return the dimensions that each view turns round."""
        return _FLIPS[self.views.partition("+")[0]]

    @property
    def scales(self) -> tuple[float, ...]:
        """Return the factors of the image's size for each view."""
        return SCALES if self.views.endswith("+scales") else (1.0,)


WHOLE_IMAGE = InferenceConfig()


@dataclass(frozen=True)
class InputImage:
    """An image as each network takes it, still at its own size.

    Attributes:
        name: what it is called in messages.
        pixels: for each network, uint8, uint16 or float32 `[H, W, C]`.
        statistics: for each network that normalises each image by itself, those of the image.
    """

    name: Path
    pixels: tuple[NDArray[Any], ...]
    statistics: tuple[Statistics | None, ...]

    @property
    def size(self) -> Size:
        """Return height and width."""
        return int(self.pixels[0].shape[0]), int(self.pixels[0].shape[1])


@dataclass(frozen=True)
class PredictedRows:
    """Some rows of a prediction, over the image's whole width.

    Attributes:
        top: number of the first row.
        values: float32 `[K, h, W]`, logits or probabilities.
        are: which of them.
        task: the classes.
        threshold: probability from which a pixel is foreground.
    """

    top: int
    values: Tensor
    are: Literal["logits", "probabilities"]
    task: Task
    threshold: float

    @cached_property
    def probabilities(self) -> NDArray[np.float32]:
        """Return float32 `[K, h, W]` in [0, 1]."""
        values = self.task.probabilities(self.values[None])[0] if self.are == "logits" else self.values
        found: NDArray[np.float32] = values.numpy()
        return found

    @cached_property
    def labels(self) -> NDArray[np.uint8]:
        """Return uint8 `[h, W]` (binary 0/1, multiclass 0..K-1), or 0/1 `[K, h, W]` if multilabel."""
        import numpy as np

        choose = self.task.labels if self.are == "logits" else self.task.labels_of
        found: NDArray[np.uint8] = choose(self.values[None], threshold=self.threshold)[0].numpy().astype(np.uint8)
        return found

    @property
    def rows(self) -> slice:
        """Return which rows of the image they are."""
        return slice(self.top, self.top + int(self.values.shape[-2]))


def common_threshold(predictors: Sequence[Predictor], threshold: float | None) -> float:
    """Return the threshold that holds for networks whose probabilities are averaged.

    Raises:
        SegregError: their classes differ, or they differ in their thresholds and none was given.
    """
    first = predictors[0]
    for other in predictors[1:]:
        if other.task != first.task:
            one, two = (f"{p.name} has {listed(p.task.classes)} ({p.task.mode})" for p in (first, other))
            raise SegregError(
                f"predictions of these runs can't be averaged, because their classes differ: {one}, {two}",
                hint="predict with each of them alone",
            )
    if threshold is not None:
        if not 0 <= threshold <= 1:
            raise SegregError(f"the threshold must be from 0 to 1, not {threshold:g}")
        return threshold
    if first.task.mode != "multiclass" and len({predictor.threshold for predictor in predictors}) > 1:
        thresholds = ", ".join(f"{predictor.name} has {predictor.threshold:g}" for predictor in predictors)
        raise SegregError(f"the thresholds of these runs differ: {thresholds}", hint="give a threshold for all of them")
    return first.threshold


def prepare_image(
    predictors: Sequence[Predictor], pixels: NDArray[Any], name: Path, config: InferenceConfig = WHOLE_IMAGE
) -> InputImage:
    """Return an image as each network takes it: with its channels and its type of values.

    Shape: uint8, uint16 or float32 `[H, W]` or `[H, W, C]`.

    Raises:
        SegregError: the channels, the type or the size don't fit; the message names the image.
    """
    from segreg.data.values import image_statistics, read_values

    height, width = pixels.shape[:2]
    for predictor in predictors:
        wants = predictor.input.size
        if config.tile is None and predictor.input.resize == "none" and (height, width) != tuple(wants):
            raise SegregError(
                f"{name}: is {height}x{width} (height x width), but {predictor.name} was trained on images that all "
                f"have {wants[0]}x{wants[1]} (input.resize is none)",
                hint=f"predict it in tiles of {wants[0]}x{wants[1]}",
            )
    made: dict[Input, tuple[NDArray[Any], Statistics | None]] = {}
    # Networks that were not prepared for any data are normalised as for 8 bits.
    inputs = [replace(p.input, dtype="uint8") if p.input.dtype == "auto" else p.input for p in predictors]
    sections = [replace(one, size=(1, 1), resize="stretch") for one in inputs]
    for section in sections:
        if section not in made:
            values, invalid = read_values(pixels, section, name)
            made[section] = values, image_statistics(values, invalid) if section.per_image else None
    both = [made[section] for section in sections]
    return InputImage(name, tuple(values for values, _ in both), tuple(statistics for _, statistics in both))


def predict(
    predictors: Sequence[Predictor],
    images: Iterator[InputImage] | Sequence[InputImage],
    config: InferenceConfig = WHOLE_IMAGE,
    *,
    threshold: float | None = None,
) -> Iterator[tuple[InputImage, Iterator[PredictedRows]]]:
    """Return each image with its prediction, in strips from the top; probabilities of several networks are averaged.

    Several whole images are predicted at once, and a network alone, without views, gives exactly what scoring at the
    original resolution sees. In tiles, only one row of them is in memory at a time.

    Raises:
        SegregError: the networks' classes or thresholds differ, or an image's size does not fit.
    """
    threshold = common_threshold(predictors, threshold)
    task = predictors[0].task
    if config.tile is not None:
        from torch import from_numpy

        for image in images:
            rows = _tiled(predictors, image, config, config.tile)
            yield image, (PredictedRows(top, from_numpy(maps), "probabilities", task, threshold) for top, maps in rows)
        return
    alone = len(predictors) * len(config.flips) * len(config.scales) == 1
    for group in _groups(images, config.batch_size, task.channels):
        maps = _average_views(predictors, [(image.pixels, image.statistics) for image in group], config, _whole_input)
        while group:  # each is let go before the next is made
            values = maps.pop(0).cpu()
            yield group.pop(0), _strips(values, "logits" if alone else "probabilities", task, threshold)


def predict_labels(
    predictors: Sequence[Predictor],
    image: InputImage,
    config: InferenceConfig = WHOLE_IMAGE,
    *,
    threshold: float | None = None,
) -> NDArray[np.uint8]:
    """Return labels at the image's size, uint8 `[H, W]`, or 0/1 `[K, H, W]` if multilabel.

    Raises:
        SegregError: as for `predict`.
    """
    import numpy as np

    task = predictors[0].task
    labels = np.empty((*([task.channels] if task.mode == "multilabel" else []), *image.size), np.uint8)
    for _, strips in predict(predictors, [image], config, threshold=threshold):
        for strip in strips:
            labels[..., strip.rows, :] = strip.labels
    return labels


def predict_probabilities(
    predictors: Sequence[Predictor], image: InputImage, config: InferenceConfig = WHOLE_IMAGE
) -> NDArray[np.float32]:
    """Return probabilities at the image's size, float32 `[K, H, W]` in [0, 1].

    Raises:
        SegregError: as for `predict`.
    """
    import numpy as np

    probabilities = np.empty((predictors[0].task.channels, *image.size), np.float32)
    for _, strips in predict(predictors, [image], config, threshold=predictors[0].threshold):
        for strip in strips:
            probabilities[:, strip.rows] = strip.probabilities
    return probabilities


def _average_views(
    predictors: Sequence[Predictor],
    input_images: Sequence[tuple[Sequence[NDArray[Any]], Sequence[Statistics | None]]],
    config: InferenceConfig,
    input_of: Callable[[Predictor, float], Input],
) -> list[Tensor]:
    """Return each image's map at its own size: the mean probability of all views, or a single view's logits.

    Args:
        predictors: the networks.
        input_images: for each image, its pixels `[H, W, C]` and its statistics as each network takes them.
        config: which views there are.
        input_of: returns how a network gets an image at a scale.
    """
    import numpy as np
    import torch

    from segreg.data import fit_image, restore
    from segreg.data.values import as_network_input

    count = len(predictors) * len(config.flips) * len(config.scales)
    maps: list[Tensor] = []
    with torch.inference_mode():
        for number, predictor in enumerate(predictors):
            for scale in config.scales:
                section = input_of(predictor, scale)
                fitted = [
                    as_network_input(fit_image(pixels[number], section), section, statistics[number])
                    for pixels, statistics in input_images
                ]
                images = torch.from_numpy(np.stack(fitted)).permute(0, 3, 1, 2)  # channels-last in memory
                for flip in config.flips:
                    shown = images.flip(flip).contiguous(memory_format=torch.channels_last) if flip else images
                    logits = predictor.logits(shown)
                    logits = logits.flip(flip) if flip else logits
                    for index, (pixels, _) in enumerate(input_images):
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
    predictors: Sequence[Predictor], image: InputImage, config: InferenceConfig, tile: Size
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Return probabilities in strips. An image smaller than a tile is one tile of its own size."""
    height, width = image.size
    region = (
        min(height, max(1, round(tile[0] / config.scale))),
        min(width, max(1, round(tile[1] / config.scale))),
    )
    task = predictors[0].task
    alone = len(predictors) * len(config.flips) * len(config.scales) == 1

    def input_of(predictor: Predictor, scale: float) -> Input:
        seen_height, seen_width = (max(1, round(side * config.scale * scale)) for side in region)
        return replace(predictor.input, size=(seen_height, seen_width), resize="stretch")

    def predict_tiles(corners: Sequence[Corner]) -> NDArray[np.float32]:
        import torch

        crops = [
            ([pixels[top : top + region[0], left : left + region[1]] for pixels in image.pixels], image.statistics)
            for top, left in corners
        ]
        maps = torch.stack(_average_views(predictors, crops, config, input_of))
        found: NDArray[np.float32] = (task.probabilities(maps) if alone else maps).cpu().numpy()
        return found

    # Tiles of an image that is shown much smaller have large maps.
    at_once = max(1, min(config.batch_size, _TOGETHER // 4 // (task.channels * region[0] * region[1])))
    return blend(image.size, region, config.overlap, predict_tiles, channels=task.channels, at_once=at_once)


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


def _strips(
    values: Tensor, are: Literal["logits", "probabilities"], task: Task, threshold: float
) -> Iterator[PredictedRows]:
    height, width = values.shape[-2:]
    rows = max(1, _STRIP // width)
    for top in range(0, height, rows):
        yield PredictedRows(top, values[:, top : top + rows], are, task, threshold)

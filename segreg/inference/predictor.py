"""What predictions are made of: a trained network, the way it looks, a image as it takes it, rows of its answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from segreg.errors import SegregError, listed
from segreg.inference.tiles import MOST_OVERLAP, Size

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from segreg.config.sections import Input
    from segreg.runtime.device import Precision
    from segreg.task import Task

Views = Literal["none", "mirror", "flips", "mirror+scales", "flips+scales"]
SCALES = (0.75, 1.0, 1.25)
"""Sizes at which a image is looked at where the views have scales."""
_TRIAL = 96
"""Side of the image on which a network is tried, at most: three pixels at stride 32."""
_FLIPS: dict[str, tuple[tuple[int, ...], ...]] = {
    "none": ((),),
    "mirror": ((), (-1,)),
    "flips": ((), (-1,), (-2,), (-2, -1)),
}


@dataclass(frozen=True)
class Predictor:
    """A trained network with all that stands before and behind it.

    Attributes:
        name: what it is called in messages, such as its run's folder.
        model: gives logits for normalised images; in evaluation mode, on `device`.
        normalize: turns uint8 images into what the model takes; on `device`.
        input: how a image becomes what the network sees.
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
        """Return float32 logits `[B, K, H, W]` on the device, for uint8 images `[B, C, H, W]`, as in scoring."""
        from segreg.models.segmenter import predict_logits

        return predict_logits(self.model, self.normalize, images, self.device, self.precision)

    def lighter(self) -> Predictor:
        """Return a predictor of the same logits whose network has less to do; `segreg.prediction.lighter` says what.

        It depends on nothing but what this one is made of, so that all who score a network see the same logits.
        """
        import torch

        from segreg.prediction.lighter import lighten

        height, width = (min(side, _TRIAL) for side in self.input.size)
        drawn = torch.Generator().manual_seed(0)
        image = torch.randint(256, (1, self.input.channels, height, width), dtype=torch.uint8, generator=drawn)
        found = lighten(self.model, self.normalize(image.to(self.device)), self.precision)
        return replace(self, model=found.network)


@dataclass(frozen=True, kw_only=True)
class Way:
    """How images are looked at.

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
        """Return the sizes at which each view looks."""
        return SCALES if self.views.endswith("+scales") else (1.0,)


WHOLE = Way()


@dataclass(frozen=True)
class InputImage:
    """A image as each network takes it, still at its own size.

    Attributes:
        name: what it is called in messages.
        pixels: for each network, uint8 `[H, W, C]`.
    """

    name: Path
    pixels: tuple[NDArray[np.uint8], ...]

    @property
    def size(self) -> Size:
        """Return height and width."""
        return int(self.pixels[0].shape[0]), int(self.pixels[0].shape[1])


@dataclass(frozen=True)
class Strip:
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


def check_together(predictors: Sequence[Predictor], threshold: float | None) -> float:
    """Return the threshold that holds for networks whose probabilities are averaged.

    Raises:
        SegregError: they don't tell the same classes apart, or differ in their thresholds and none was given.
    """
    first = predictors[0]
    for other in predictors[1:]:
        if other.task != first.task:
            one, two = (f"{p.name} tells {listed(p.task.classes)} apart ({p.task.mode})" for p in (first, other))
            raise SegregError(
                f"predictions of these runs can't be averaged, because their classes differ: {one}, {two}",
                hint="predict with each of them alone",
            )
    if threshold is not None:
        if not 0 <= threshold <= 1:
            raise SegregError(f"the threshold must be from 0 to 1, not {threshold:g}")
        return threshold
    if first.task.mode != "multiclass" and len({predictor.threshold for predictor in predictors}) > 1:
        told = ", ".join(f"{predictor.name} has {predictor.threshold:g}" for predictor in predictors)
        raise SegregError(f"the thresholds of these runs differ: {told}", hint="say which threshold is to hold")
    return first.threshold


def take(predictors: Sequence[Predictor], pixels: NDArray[Any], name: Path, way: Way = WHOLE) -> InputImage:
    """Return a image as each network takes it: with its channels, 8 bits each.

    Shape: uint8 or uint16 `[H, W]` or `[H, W, C]`.

    Raises:
        SegregError: the channels or the size don't fit, or 16-bit values would be lost; the message names the image.
    """
    from segreg.data.images import fit_channels, to_uint8

    height, width = pixels.shape[:2]
    for predictor in predictors:
        wants = predictor.input.size
        if way.tile is None and predictor.input.resize == "none" and (height, width) != tuple(wants):
            raise SegregError(
                f"{name}: is {height}x{width} (height x width), but {predictor.name} was trained on images that all "
                f"have {wants[0]}x{wants[1]} (input.resize is none)",
                hint=f"predict it in tiles of {wants[0]}x{wants[1]}",
            )
    made: dict[tuple[int, str], NDArray[np.uint8]] = {}
    for predictor in predictors:
        wanted = predictor.input.channels, predictor.input.sixteen_bit
        if wanted not in made:
            made[wanted] = to_uint8(fit_channels(pixels, wanted[0], name), predictor.input.sixteen_bit, name)
    return InputImage(name, tuple(made[p.input.channels, p.input.sixteen_bit] for p in predictors))

"""Predict with trained networks: probabilities and labels of an image at its own size, as a whole or in tiles."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from segreg.errors import SegregError, listed
from segreg.inference.tiles import Corner, Size, blend
from segreg.task import Task, mask_shape

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from segreg.config.sections import Evaluate, Input
    from segreg.data.images import ImageSource
    from segreg.data.values import Statistics
    from segreg.runtime.device import Precision

Flips = Literal["none", "mirror", "flips"]
MOST_PIXELS, MOST_VALUES = 1 << 22, 1 << 27
"""Pixels of an image that is predicted whole where tiles are `auto`, and its pixels times the classes."""
MOST_OVERLAP = 0.9
"""Share of a tile; more would predict every pixel a hundred times."""
_STRIP = 1 << 20
"""Pixels of a strip: what is made of labels and probabilities beside the maps stays small."""
_TOGETHER = 1 << 25
"""Values of the maps that are held at once; larger images go one by one, whatever the batch's size."""
_TURNED: dict[Flips, tuple[tuple[int, ...], ...]] = {
    "none": ((),),
    "mirror": ((), (-1,)),
    "flips": ((), (-1,), (-2,), (-2, -1)),
}
"""The dimensions of `[..., H, W]` that are reversed, for each image that is averaged."""


class Pixels(Protocol):
    """Pixels `[H, W, C]`, of which windows are read: an array, or a file that is too large to be one."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, window: tuple[slice, slice]) -> NDArray[Any]: ...


@dataclass(frozen=True, kw_only=True)
class InferenceConfig:
    """How images are given to the network.

    Attributes:
        tile: height and width of the tiles that the network sees of images that are larger; None: always whole images.
            `auto` are whole images, except where a network that was trained on crops gets images that are too large:
            tiles of the crops' size.
        overlap: share of a tile that the next one covers too.
        scales: factors of the image's size at which the network sees it; probabilities are averaged. Tiles keep their
            size, and show more or less of the image.
        flips: what is averaged besides: `mirror` is left-right, `flips` also upside down and both.
        batch_size: images, or tiles, that the network is given at once.

    Raises:
        SegregError: a setting is out of range.
    """

    tile: Size | Literal["auto"] | None = "auto"
    overlap: float = 0.25
    scales: tuple[float, ...] = (1.0,)
    flips: Flips = "none"
    batch_size: int = 8

    def __post_init__(self) -> None:
        if self.tile not in ("auto", None) and not (isinstance(self.tile, tuple) and len(self.tile) == 2):
            raise SegregError(f'a tile is (height, width), "auto", or None for whole images, not {self.tile!r}')
        if isinstance(self.tile, tuple) and min(self.tile) < 1:
            raise SegregError(f"a tile must have a height and a width above 0, not {self.tile[0]}x{self.tile[1]}")
        if not 0 <= self.overlap <= MOST_OVERLAP:
            raise SegregError(f"the overlap of tiles must be from 0 to {MOST_OVERLAP}, not {self.overlap:g}")
        if not self.scales:
            raise SegregError("there is no scale to predict at", hint="1.0 is the image as it is")
        for scale in self.scales:
            if not 0.01 <= scale <= 100:
                raise SegregError(f"a scale must be from 0.01 to 100, not {scale:g}")
        if self.batch_size < 1:
            raise SegregError(f"the batch size must be above 0, not {self.batch_size}")
        if self.flips not in _TURNED:
            raise SegregError(f'"{self.flips}" is not a set of flips; there is {listed([*_TURNED])}')

    @classmethod
    def of(cls, evaluate: Evaluate, section: Input) -> InferenceConfig:
        """Return how a recipe gives images to the network; its tiles are of networks that were trained on crops."""
        tile = evaluate.tile if section.resize == "crop" else "auto"
        return cls(tile=tile, overlap=evaluate.overlap, scales=evaluate.scales, flips=evaluate.flips)

    @property
    def averages(self) -> bool:
        """Whether probabilities are averaged, or an image is predicted at another size than its own."""
        return self.scales != (1.0,) or self.flips != "none"

    @property
    def turned(self) -> tuple[tuple[int, ...], ...]:
        """Return for each image that is averaged the dimensions of `[..., H, W]` that are reversed."""
        return _TURNED[self.flips]


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
        config: how its recipe gives it images where nothing else is asked for.
        bands: numbers or names of a georeferenced raster's bands that it takes; None: all but alpha.
        weights: the file of its weights, or of the exported network.
    """

    name: str
    model: nn.Module
    normalize: nn.Module
    input: Input
    task: Task
    threshold: float
    device: torch.device
    precision: Precision
    config: InferenceConfig = InferenceConfig()
    bands: tuple[int | str, ...] | None = None
    weights: Path | None = None

    @property
    def returns_labels(self) -> bool:
        """Whether the network is an exported one that returns labels, so that probabilities are 0 and 1 alone."""
        return bool(getattr(self.model, "returns_labels", False))

    def refuse_other_threshold(self) -> None:
        """Refuse a threshold that would have no effect.

        Raises:
            SegregError: the network returns labels.
        """
        if self.returns_labels:
            raise SegregError(
                f"{self.name} returns labels, of probability {self.threshold:g} and more",
                hint="leave out the threshold, or export the run without --labels",
            )

    def logits(self, images: Tensor) -> Tensor:
        """Return float32 logits `[B, K, H, W]` on the device, for a batch's images `[B, C, H, W]`, as in scoring."""
        from segreg.models.segmenter import predict_logits

        return predict_logits(self.model, self.normalize, images, self.device, self.precision)


@dataclass(frozen=True)
class InputImage:
    """An image as each network takes it, still at its own size.

    Attributes:
        name: what it is called in messages.
        pixels: for each network, uint8, uint16 or float32 `[H, W, C]`; in tiles, only windows of it are read.
        statistics: for each network that normalises each image by itself, those of the image.
    """

    name: ImageSource
    pixels: tuple[Pixels, ...]
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
        image: what the image is called in messages.
    """

    top: int
    values: Tensor
    are: Literal["logits", "probabilities"]
    task: Task
    threshold: float
    image: str

    @cached_property
    def probabilities(self) -> NDArray[np.float32]:
        """Return float32 `[K, h, W]` in [0, 1]; raises as `labels`."""
        self._refuse_nan()
        values = self.task.probabilities(self.values[None])[0] if self.are == "logits" else self.values
        found: NDArray[np.float32] = values.numpy()
        return found

    @cached_property
    def logits(self) -> Tensor:
        """Return float32 logits `[K, h, W]`, those of the mean where probabilities were averaged."""
        if self.are == "logits":
            return self.values
        return self.task.logits_of(self.values[None], threshold=self.threshold)[0]

    @cached_property
    def labels(self) -> NDArray[np.uint8]:
        """Return uint8 `[h, W]` (binary 0/1, multiclass 0..K-1), or 0/1 `[K, h, W]` if multilabel.

        Raises:
            SegregError: the network returned NaN, which would look like background or like a class.
        """
        import numpy as np

        self._refuse_nan()
        choose = self.task.labels if self.are == "logits" else self.task.labels_of
        found: NDArray[np.uint8] = choose(self.values[None], threshold=self.threshold)[0].numpy().astype(np.uint8)
        return found

    def _refuse_nan(self) -> None:
        if self.values.isnan().any():
            raise SegregError(
                f"{self.image}: the network returns NaN",
                hint="in fp16 some networks overflow: compute in float32; else the weights are damaged",
            )

    @property
    def rows(self) -> slice:
        """Return which rows of the image they are."""
        return slice(self.top, self.top + int(self.values.shape[-2]))


def common_threshold(predictors: Sequence[Predictor], threshold: float | None) -> float:
    """Return the threshold that holds for networks whose probabilities are averaged.

    Raises:
        SegregError: their classes differ, or they differ in their thresholds and none was given; or one was given that
            has no effect, because the classes exclude each other or a network makes labels by another one.
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
        if first.task.mode == "multiclass":
            raise SegregError(
                "these classes exclude each other: the one with the largest probability is predicted, and no threshold "
                "takes part",
                hint="leave out the threshold",
            )
        if not 0 <= threshold <= 1:
            raise SegregError(f"the threshold must be from 0 to 1, not {threshold:g}")
        for predictor in predictors:
            if threshold != predictor.threshold:
                predictor.refuse_other_threshold()
        return threshold
    if first.task.mode != "multiclass" and len({predictor.threshold for predictor in predictors}) > 1:
        thresholds = ", ".join(f"{predictor.name} has {predictor.threshold:g}" for predictor in predictors)
        raise SegregError(f"the thresholds of these runs differ: {thresholds}", hint="give a threshold for all of them")
    return first.threshold


def refuse_without_probabilities(predictors: Sequence[Predictor]) -> None:
    """Refuse to give out probabilities of networks that return labels.

    Raises:
        SegregError: there is one.
    """
    if names := [predictor.name for predictor in predictors if predictor.returns_labels]:
        raise SegregError(
            f"{names[0]} returns labels, and has no probabilities", hint="export the run without --labels"
        )


def common_config(predictors: Sequence[Predictor], **given: Any) -> InferenceConfig:
    """Return how networks are given images together: what is given, and for the rest what all their recipes say.

    Raises:
        SegregError: their recipes differ in something that is not given, or a setting is out of range.
    """
    for name in (field.name for field in fields(InferenceConfig) if field.name not in given):
        values = {predictor.name: getattr(predictor.config, name) for predictor in predictors}
        if len(set(values.values())) > 1:
            words = ", ".join(f"{run} has {value}" for run, value in values.items())
            raise SegregError(f"evaluate.{name} of these runs differs: {words}", hint=f"give {name} for all of them")
        given[name] = getattr(predictors[0].config, name)
    return InferenceConfig(**given)


def check_tile(model: nn.Module, config: InferenceConfig, name: str) -> None:
    """Refuse tiles that a network can't take.

    Args:
        model: the network.
        config: names the size of tiles.
        name: of the network in messages, such as its run's folder.

    Raises:
        SegregError: a tile is smaller than the network's size divisor, or larger than the one size that it takes.
    """
    if not isinstance(config.tile, tuple):
        return
    height, width = config.tile
    divisor, one = getattr(model, "size_divisor", 1), _one_size(model)
    if min(config.tile) < divisor:
        raise SegregError(
            f"{name}: tiles of {height}x{width} are too small for its network, whose sides are multiples of {divisor}",
            hint="take tiles of about the size that it was trained on",
        )
    if one and (height > one[0] or width > one[1]):
        raise SegregError(
            f"{name}: tiles of {height}x{width} are too large for its encoder, which takes {one[0]}x{one[1]} alone",
            hint=f"take tiles of {one[0]}x{one[1]}",
        )


def _one_size(model: nn.Module) -> Size | None:
    """Return the one size of image that an encoder, or an exported network, takes, or None if it takes any."""
    found: Size | None = getattr(getattr(model, "encoder", model), "image_size", None)
    return found


def at_own_size(predictor: Predictor, config: InferenceConfig) -> bool:
    """Whether a network sees images at their own size, however large they are, rather than resized to its own."""
    return predictor.input.resize == "crop" or isinstance(config.tile, tuple)


def takes_any_size(predictors: Sequence[Predictor], config: InferenceConfig) -> bool:
    """Whether an image is cut into tiles where it is large."""
    return config.tile is not None and all(at_own_size(predictor, config) for predictor in predictors)


def described(predictor: Predictor) -> str:
    """Return how a network is given images, as a part of a sentence; nothing where they are resized and no more."""
    config, words = predictor.config, []
    if predictor.input.resize == "crop":
        tile = predictor.input.size if config.tile == "auto" else config.tile
        one = _one_size(predictor.model) if config.tile == "auto" else None
        height, width = one or tile or (0, 0)
        large = "are larger" if one or config.tile != "auto" else f"have more than {MOST_PIXELS:,} pixels"
        tiles = f", in tiles of {height}x{width} that overlap by {config.overlap:g} where they {large}"
        words.append(f"predicted whole at their own size{tiles if tile else ''}")
    if config.scales != (1.0,):
        words.append(f"predicted at {listed([f'{scale:g}' for scale in config.scales], quote='')} times their size")
    if config.flips != "none":
        words.append("also flipped left-right" + (", upside down and both" if config.flips == "flips" else ""))
    return ", ".join(words) + (", and probabilities are averaged" if config.averages else "")


def fits_whole(size: Size, classes: int) -> bool:
    """Whether an image is predicted whole where tiles are `auto`."""
    pixels = size[0] * size[1]
    return pixels <= MOST_PIXELS and pixels * classes <= MOST_VALUES


def shown(predictor: Predictor, size: Size, scale: float, config: InferenceConfig) -> tuple[Size, Input]:
    """Return how much of an image of `size` a network sees at once, and how that is resized for it."""
    section = predictor.input
    if not at_own_size(predictor, config):
        height, width = (max(1, round(side * scale)) for side in section.size)
        if scale == 1:
            return size, section
        return size, replace(
            section, size=(height, width), resize="stretch" if section.resize == "none" else section.resize
        )
    seen = (max(1, round(size[0] * scale)), max(1, round(size[1] * scale)))
    tile = config.tile
    if tile == "auto":
        one = _one_size(predictor.model)
        tile = one or (None if fits_whole(seen, predictor.task.channels) else section.size)
    if tile is None or (seen[0] <= tile[0] and seen[1] <= tile[1]):
        return size, replace(section, size=seen, resize="stretch")
    wanted = [max(1, round(side / scale)) for side in tile]
    region = (min(size[0], wanted[0]), min(size[1], wanted[1]))
    height, width = (tile[i] if region[i] == wanted[i] else seen[i] for i in range(2))
    return region, replace(section, size=(height, width), resize="stretch")


def prepare_image(
    predictors: Sequence[Predictor], pixels: NDArray[Any], name: ImageSource, config: InferenceConfig | None = None
) -> InputImage:
    """Return an image as each network takes it: with its channels and its type of values.

    Shape: uint8, uint16 or float32 `[H, W]` or `[H, W, C]`.

    Raises:
        SegregError: the channels, the type or the size don't fit; the message names the image.
    """
    from segreg.data.values import image_statistics, read_values

    config = config or common_config(predictors)
    height, width = pixels.shape[:2]
    for predictor in predictors:
        wants = predictor.input.size
        if not at_own_size(predictor, config) and predictor.input.resize == "none" and (height, width) != tuple(wants):
            raise SegregError(
                f"{name}: is {height}x{width} (height x width), but {predictor.name} was trained on images that all "
                f"have {wants[0]}x{wants[1]} (input.resize is none)",
                hint=f"predict it in tiles of {wants[0]}x{wants[1]}",
            )
    made: dict[Input, tuple[NDArray[Any], Statistics | None]] = {}
    # Networks that were not prepared for any data are normalised as for 8 bits.
    inputs = [predictor.input.complete() for predictor in predictors]
    sections = [replace(one, size=(1, 1), resize="stretch") for one in inputs]
    for section in sections:
        if section not in made:
            values, invalid = read_values(pixels, section, name)
            made[section] = values, image_statistics(values, invalid) if section.per_image else None
    both = [made[section] for section in sections]
    return InputImage(name, tuple(values for values, _ in both), tuple(statistics for _, statistics in both))


def predict(
    predictors: Sequence[Predictor],
    images: Iterable[InputImage],
    config: InferenceConfig | None = None,
    *,
    threshold: float | None = None,
) -> Iterator[tuple[InputImage, Iterator[PredictedRows]]]:
    """Return each image with its prediction, in strips from the top; probabilities of several networks are averaged.

    Several whole images are predicted at once, and a network alone, at one scale and without flips, gives exactly what
    scoring at the original resolution sees. In tiles, only one row of them is in memory at a time.

    Args:
        predictors: the networks.
        images: what is predicted.
        config: how; None: as the networks' recipes say.
        threshold: probability from which a pixel is foreground; None: the networks' own.

    Raises:
        SegregError: as for `common_threshold`, or the size of a tile does not fit. The strips of an image raise what is
            wrong with it.
    """
    threshold = common_threshold(predictors, threshold)
    config = common_config(predictors) if config is None else config
    task = predictors[0].task
    for predictor in predictors:
        check_tile(predictor.model, config, predictor.name)
    for group in _groups(predictors, images, config):
        if _in_tiles(predictors, group[0].size, config):
            rows, name = _tiled(predictors, group[0], config), str(group[0].name)
            yield group[0], (PredictedRows(top, maps, "probabilities", task, threshold, name) for top, maps in rows)
            continue
        alone = len(predictors) * len(config.scales) * len(config.turned) == 1
        try:
            maps = _whole(predictors, group, config)
        except SegregError as error:  # of one of them, such as one that is too small
            if len(group) > 1:
                yield from predict(predictors, group, replace(config, batch_size=1), threshold=threshold)
            else:
                yield group[0], _refused(group[0], error)
            continue
        while group:  # each is let go before the next is made
            are: Literal["logits", "probabilities"] = "logits" if alone else "probabilities"
            whole = PredictedRows(0, maps.pop(0).cpu(), are, task, threshold, str(group[0].name))
            yield group.pop(0), _strips(whole)


def predict_labels(
    predictors: Sequence[Predictor],
    image: InputImage,
    config: InferenceConfig | None = None,
    *,
    threshold: float | None = None,
) -> NDArray[np.uint8]:
    """Return labels at the image's size, uint8 `[H, W]`, or 0/1 `[K, H, W]` if multilabel.

    Raises:
        SegregError: as for `predict`.
    """
    import numpy as np

    task = predictors[0].task
    labels = np.empty(mask_shape(task, image.size), np.uint8)
    for _, strips in predict(predictors, [image], config, threshold=threshold):
        for strip in strips:
            labels[..., strip.rows, :] = strip.labels
    return labels


def predict_probabilities(
    predictors: Sequence[Predictor], image: InputImage, config: InferenceConfig | None = None
) -> NDArray[np.float32]:
    """Return probabilities at the image's size, float32 `[K, H, W]` in [0, 1].

    Raises:
        SegregError: as for `predict`.
    """
    import numpy as np

    refuse_without_probabilities(predictors)
    probabilities = np.empty((predictors[0].task.channels, *image.size), np.float32)
    # No threshold takes part, so that the networks' own may differ.
    threshold = None if predictors[0].task.mode == "multiclass" else predictors[0].threshold
    for _, strips in predict(predictors, [image], config, threshold=threshold):
        for strip in strips:
            probabilities[:, strip.rows] = strip.probabilities
    return probabilities


def scored_logits(predictor: Predictor, images: Sequence[InputImage]) -> list[Tensor]:
    """Return float32 logits `[K, H, W]` of each image on the CPU, by which it is scored; they have `predict`'s labels.

    Of averaged probabilities they are the logits that these would come from.

    Raises:
        SegregError: as for `predict`.
    """
    import torch

    found = []
    for image, strips in predict([predictor], images, predictor.config):
        logits = torch.empty((predictor.task.channels, *image.size))
        for strip in strips:
            logits[:, strip.rows] = strip.logits
        found.append(logits)
    return found


def logits_of(predictor: Predictor, images: Tensor) -> Tensor:
    """Return float32 logits `[B, K, H, W]` on the device for a batch `[B, C, H, W]` of images as they are scored.

    They are predicted at their size: whole where they fit, or in tiles, at all scales and flips of the network's
    recipe. Validation, the final results and `segreg evaluate` all take them from here.

    Raises:
        SegregError: as for `predict`.
    """
    import torch

    config = predictor.config
    if predictor.input.resize != "crop":  # the images were resized to the network's size
        config = replace(config, tile=None)
    # Of a batch, `per_image` has been done.
    predictor = replace(predictor, input=replace(predictor.input, resize="crop", normalize="none"), config=config)
    size = (int(images.shape[-2]), int(images.shape[-1]))
    if not config.averages and not _in_tiles([predictor], size, config):
        return predictor.logits(images)
    pixels = images.permute(0, 2, 3, 1).cpu().numpy()
    inputs = [InputImage(Path(f"image {number}"), (image,), (None,)) for number, image in enumerate(pixels)]
    return torch.stack(scored_logits(predictor, inputs)).to(predictor.device)


def _whole(predictors: Sequence[Predictor], images: Sequence[InputImage], config: InferenceConfig) -> list[Tensor]:
    """Return each image's map at its own size: the mean probabilities, or the logits where nothing is averaged."""
    import torch

    ways = [(number, scale) for number in range(len(predictors)) for scale in config.scales]

    def maps(number: int, scale: float) -> list[Tensor]:
        section = shown(predictors[number], images[0].size, scale, config)[1]
        seen = [(image.pixels[number][:, :], image.statistics[number]) for image in images]
        return _maps(predictors[number], seen, section, config, logits=len(ways) * len(config.turned) == 1)

    with torch.inference_mode():
        return _means(maps(number, scale) for number, scale in ways)


def _means(ways: Iterable[list[Tensor]]) -> list[Tensor]:
    """Return the mean of each image's maps over several ways to predict it; those of the first are changed in place."""
    rest = iter(ways)
    means, count = next(rest), 1
    for maps in rest:
        means = [one.add_(other.to(one.device)) for one, other in zip(means, maps, strict=True)]
        count += 1
    return [one.div_(count) for one in means] if count > 1 else means


def _tiled(predictors: Sequence[Predictor], image: InputImage, config: InferenceConfig) -> Iterator[tuple[int, Tensor]]:
    """Return mean probabilities in strips; of each network and scale a row of tiles is in memory."""
    import numpy as np
    from torch import from_numpy

    ways = [
        _blended(predictor, pixels, statistics, scale, config)
        for predictor, pixels, statistics in zip(predictors, image.pixels, image.statistics, strict=True)
        for scale in config.scales
    ]
    ready = [np.empty((0, 0, 0), np.float32)] * len(ways)  # their tiles end at different rows
    top = 0
    while top < image.size[0]:
        ready = [maps if maps.shape[1] else next(way)[1] for maps, way in zip(ready, ways, strict=True)]
        rows = min(maps.shape[1] for maps in ready)
        mean = ready[0][:, :rows]
        if len(ways) > 1:
            mean = sum((maps[:, :rows] for maps in ready[1:]), mean) / np.float32(len(ways))
        yield top, from_numpy(mean)
        ready = [maps[:, rows:] for maps in ready]
        top += rows


def _blended(
    predictor: Predictor, pixels: Pixels, statistics: Statistics | None, scale: float, config: InferenceConfig
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Return probabilities at one scale in strips, blended from tiles, or of the image as one tile."""
    size = int(pixels.shape[0]), int(pixels.shape[1])
    region, section = shown(predictor, size, scale, config)

    def predict_tiles(corners: Sequence[Corner]) -> NDArray[np.float32]:
        import torch

        tiles = [(pixels[top : top + region[0], left : left + region[1]], statistics) for top, left in corners]
        found: NDArray[np.float32] = torch.stack(_maps(predictor, tiles, section, config)).cpu().numpy()
        return found

    # Tiles of an image that is shown much smaller have large maps.
    classes = predictor.task.channels
    at_once = max(1, min(config.batch_size, _TOGETHER // 4 // (classes * region[0] * region[1])))
    return blend(size, region, config.overlap, predict_tiles, channels=classes, at_once=at_once)


def _maps(
    predictor: Predictor,
    seen: Sequence[tuple[NDArray[Any], Statistics | None]],
    section: Input,
    config: InferenceConfig,
    *,
    logits: bool = False,
) -> list[Tensor]:
    """Return the maps of images or tiles `[H, W, C]` at their own size: mean probabilities over flips, or the logits.

    Args:
        predictor: the network.
        seen: images or tiles, with the statistics of the whole image.
        section: how they are resized for the network.
        config: names the flips.
        logits: whether logits are wanted, where there are no flips.
    """
    import numpy as np
    import torch

    from segreg.data import fit_image, restore
    from segreg.data.values import as_network_input

    def fitted(values: NDArray[Any], statistics: Statistics | None) -> NDArray[Any]:
        if predictor.input.resize == "crop":  # resized as a batch's images are, which have the network's values
            return fit_image(as_network_input(values, section, statistics), section)
        return as_network_input(fit_image(values, section), section, statistics)

    def maps(images: Tensor, flip: tuple[int, ...]) -> list[Tensor]:
        turned = images.flip(flip).contiguous(memory_format=torch.channels_last) if flip else images
        found = predictor.logits(turned)
        found = found.flip(flip) if flip else found
        own = [restore(each, values.shape[:2], section) for each, (values, _) in zip(found, seen, strict=True)]
        return own if logits else [predictor.task.probabilities(each[None])[0] for each in own]

    with torch.inference_mode():
        images = torch.from_numpy(np.stack([fitted(*each) for each in seen])).permute(0, 3, 1, 2)  # channels-last
        return _means(maps(images, flip) for flip in config.turned)


def _in_tiles(predictors: Sequence[Predictor], size: Size, config: InferenceConfig) -> bool:
    """Whether a network sees an image of this size in tiles, at any scale."""
    return any(shown(one, size, scale, config)[0] != size for one in predictors for scale in config.scales)


def _groups(
    predictors: Sequence[Predictor], images: Iterable[InputImage], config: InferenceConfig
) -> Iterator[list[InputImage]]:
    """Return images in groups of the batch's size, of fewer where they are large; an image in tiles is alone.

    Networks that see images at their own size are given images of one size together.
    """
    native = any(at_own_size(predictor, config) for predictor in predictors)
    group: list[InputImage] = []
    for image in images:
        pixels = image.size[0] * image.size[1] * max(config.scales) ** 2
        if native and group and (image.size != group[0].size or (len(group) + 1) * pixels > MOST_PIXELS):
            yield group
            group = []
        group.append(image)
        values = sum(one.size[0] * one.size[1] for one in group) * predictors[0].task.channels
        if (
            len(group) == config.batch_size
            or values >= _TOGETHER
            or (native and _in_tiles(predictors, image.size, config))
        ):
            yield group
            group = []
    if group:
        yield group


def _refused(image: InputImage, error: SegregError) -> Iterator[PredictedRows]:
    """Return strips of which the first raises the error, with the image's name."""

    def refuse(_: int) -> PredictedRows:
        problem = error.problems[0]
        raise SegregError(f"{image.name}: {problem.message}", hint=problem.hint) from error

    return map(refuse, range(1))


def _strips(whole: PredictedRows) -> Iterator[PredictedRows]:
    height, width = whole.values.shape[-2:]
    rows = max(1, _STRIP // width)
    for top in range(0, height, rows):
        yield replace(whole, top=top, values=whole.values[:, top : top + rows])

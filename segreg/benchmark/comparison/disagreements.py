"""The images on which models disagree most, with each model's prediction."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from segreg.benchmark.comparison.record import Comparison, Disagreement
from segreg.errors import SegregError
from segreg.runtime.progress import Progress

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from segreg.runs.trained_run import Run
    from segreg.task import Task

MOST = 6
"""Images that are shown by default."""
_MOST_MODELS = 16
_WIDTH = 256
"""Length of the longer side of a rendered image in pixels, at most."""


def most_disputed(comparison: Comparison, count: int = MOST) -> list[int]:
    """Return the indices in `Comparison.images` of the images whose values differ most between the models."""
    values = np.array([model.per_image for model in comparison.models if model.per_image], np.float64)
    if len(values) < 2:
        return []
    spread = np.nanmax(np.nan_to_num(values, nan=-np.inf), 0) - np.nanmin(np.nan_to_num(values, nan=np.inf), 0)
    spread = np.where(np.isfinite(spread), spread, 0.0)
    ordered = sorted(range(len(spread)), key=lambda place: (-spread[place], comparison.images[place]))
    return [place for place in ordered if spread[place] > 0][:count]


def render_disagreements(
    comparison: Comparison, runs: Mapping[str, Run], progress: Progress, count: int = MOST
) -> list[Disagreement]:
    """Predict the most disputed images with each model's first seed, at their own size, and render the predictions.

    Args:
        comparison: of the models.
        runs: a run of each model, by the model's name.
        progress: reports how far it is.
        count: number of images at most.

    Raises:
        SegregError: the images or a run's weights can't be read.
    """
    places = most_disputed(comparison, count)
    shown = [model for model in comparison.models if model.per_image][:_MOST_MODELS]
    if not places:
        return []
    from segreg.models import build

    dataset = build.build_dataset(next(iter(runs.values())).recipe)
    samples = {sample.id: sample for sample in dataset.samples}
    wanted = {place: samples.get(comparison.images[place]) for place in places}
    if gone := [comparison.images[place] for place, sample in wanted.items() if sample is None]:
        raise SegregError(f'the data set no longer has the image "{gone[0]}"')
    images = {place: dataset.read_image(sample) for place, sample in wanted.items() if sample is not None}
    rendered: dict[int, dict[str, bytes]] = {place: {} for place in places}
    with progress.watch("rendering what the models disagree on", len(shown), "models") as advance:
        for model in shown:
            run = runs[model.name]
            for place, image in images.items():
                rendered[place][model.name] = _png(image, run.predict(image), run.task)
            advance(note=model.name)
    return [
        Disagreement(
            id=comparison.images[place],
            image=_png(images[place], None, dataset.task),
            truth=_png(images[place], dataset.read_mask(sample), dataset.task),
            predictions=rendered[place],
            values={model.name: model.per_image[place] for model in shown},
        )
        for place, sample in wanted.items()
        if sample is not None
    ]


def _png(image: NDArray[Any], labels: NDArray[np.uint8] | None, task: Task) -> bytes:
    """Return a PNG of the image with labels drawn into it, reduced to the size that a page shows."""
    from PIL import Image

    from segreg.data.images import to_uint8
    from segreg.visualize.colours import class_colours
    from segreg.visualize.overlay import as_rgb, overlay

    pixels = to_uint8(image, "min_max", Path())
    pixels = pixels if pixels.ndim == 3 else pixels[..., None]
    if labels is None:
        drawn = as_rgb(pixels)
    else:
        colours: Sequence[tuple[int, int, int]] = class_colours(task)
        drawn = overlay(pixels, np.ascontiguousarray(labels), colours, task)
    input_image = Image.fromarray(np.ascontiguousarray(drawn))
    input_image.thumbnail((_WIDTH, _WIDTH))
    file = io.BytesIO()
    input_image.save(file, "PNG", optimize=True)
    return file.getvalue()

"""Predict image files: read ahead, write behind, and continue after a broken image."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from segreg.data.images import ImageSource, read_image
from segreg.data.rasters import Raster
from segreg.errors import SegregError, listed
from segreg.inference.inputs import ImageFile
from segreg.inference.predictor import (
    InferenceConfig,
    InputImage,
    PredictedRows,
    Predictor,
    check_tile,
    common_threshold,
    predict,
    prepare_image,
    refuse_without_probabilities,
    takes_any_size,
)
from segreg.inference.rasters import read_raster
from segreg.inference.writer import Outputs
from segreg.runtime.files import sha256, write_json
from segreg.runtime.progress import Advance, Progress

SUMMARY = "prediction.json"
"""What was predicted with which settings, beside the folders of outputs."""
_CLOCKS = 3_000_000_000
"""Nanoseconds by which times of one folder may be off: archives keep every second one."""
_AHEAD = 2
"""Images that are read ahead, and that wait to be written: large ones take memory."""


@dataclass
class Summary:
    """What became of each image.

    Attributes:
        settings: all that decides what is predicted.
        began: when the first prediction with these settings began, by the clock of the file system it writes to;
            None: not known.
        first_began: when the first prediction of all began; files that are older are not segreg's. None: not known.
        predicted: images that were predicted, with their files.
        skipped: images whose files were there.
        failed: images that could not be predicted, and why.
        without_mask: images whose strips show no truth, where true masks were given.
    """

    settings: Mapping[str, Any]
    began: int | None = None
    first_began: int | None = None
    predicted: list[tuple[ImageFile, Mapping[str, Path]]] = field(default_factory=list)
    skipped: list[ImageFile] = field(default_factory=list)
    failed: list[tuple[ImageFile, str]] = field(default_factory=list)
    without_mask: list[ImageFile] = field(default_factory=list)

    def plain(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {
            "settings": dict(self.settings),
            "began": self.began,
            "first_began": self.first_began,
            "predicted": [
                {"image": str(image.file), **{kind: str(file) for kind, file in files.items()}}
                for image, files in self.predicted
            ],
            "skipped": [str(image.file) for image in self.skipped],
            "failed": [{"image": str(image.file), "why": why} for image, why in self.failed],
            "without_mask": [str(image.file) for image in self.without_mask],
        }


def predict_files(
    images: Sequence[ImageFile],
    predictors: Sequence[Predictor],
    outputs: Outputs,
    config: InferenceConfig,
    *,
    threshold: float | None,
    progress: Progress,
    existing: str = "replace",
) -> Summary:
    """Predict images and write what `outputs` asks for; an image that can't be read is noted and skipped.

    Args:
        images: the files.
        predictors: networks, whose probabilities are averaged.
        outputs: what is written, and where.
        config: how they are given to the networks.
        threshold: probability from which a pixel is foreground; None: the recipe's.
        progress: shows it.
        existing: "skip" leaves out images whose files are all there, of the same settings and weights; "replace"
            writes them anew.

    Raises:
        SegregError: nothing can be predicted: the networks don't match, an output would replace an image or a file
            that segreg did not write, what is there was predicted with other settings, a raster's mask was to be
            cleaned, or the device's memory does not suffice.
    """
    from segreg.runtime.device import out_of_memory

    common = common_threshold(predictors, threshold)
    if "probabilities" in outputs.kinds:
        refuse_without_probabilities(predictors)
    for predictor in predictors:
        check_tile(predictor.model, config, predictor.name)
    file = outputs.folder / SUMMARY
    before = _read(file)
    _refuse_to_replace(images, outputs, before)
    if outputs.cleaning and (raster := next((image.file for image in images if image.raster), None)):
        raise SegregError(
            f"{raster}: the mask of a georeferenced raster is written row by row, and its regions can't be cleaned",
            hint="leave out --min-area and --fill-holes",
        )
    summary = Summary(_settings(predictors, outputs, config, common), first_began=_first_began(before))
    if outputs.truths is not None:
        summary.without_mask = [image for image in images if image.name not in outputs.truths.files]
    if existing == "skip":
        summary.began = _began(before, summary.settings, outputs.folder)
        if summary.began is not None:
            summary.skipped = [image for image in images if _is_there(_files(outputs, image), summary.began)]
    there = {image.name for image in summary.skipped}
    todo = [image for image in images if image.name not in there]
    try:
        outputs.folder.mkdir(parents=True, exist_ok=True)
        write_json(file, summary.plain())
        began = file.stat().st_mtime_ns
        summary.began = began if summary.began is None else summary.began
        if before is None:
            summary.first_began = began
        write_json(file, summary.plain())
    except OSError as error:
        raise SegregError(f"{outputs.folder}: can't be written to ({error.strerror})") from None
    with progress.watch("predicting", len(todo), "images") as advance:
        try:
            _Work(predictors, config, threshold, summary, outputs, progress, advance, began).run(todo)
        except Exception as error:
            if not out_of_memory(error):
                raise
            raise SegregError(
                f"the memory of {predictors[0].device} does not suffice",
                hint="take a smaller --batch-size, or --tile for large images",
            ) from None
    order = {image.name: number for number, image in enumerate(images)}
    summary.failed.sort(key=lambda failed: order[failed[0].name])
    write_json(file, summary.plain())
    return summary


@dataclass
class _Work:
    """A prediction while it continues. Only the main thread changes it."""

    predictors: Sequence[Predictor]
    config: InferenceConfig
    threshold: float | None
    summary: Summary
    outputs: Outputs
    progress: Progress
    advance: Advance
    began: int
    """When it began, by the clock of the file system that it writes to."""

    def run(self, todo: Sequence[ImageFile]) -> None:
        by_file: dict[ImageSource, ImageFile] = {image.file: image for image in todo}
        with ThreadPoolExecutor(_AHEAD, "reading") as readers, ThreadPoolExecutor(_AHEAD, "writing") as writers:
            try:
                writing: deque[tuple[ImageFile, Future[None]]] = deque()
                read = self.read_ahead(todo, readers)
                for image, strips in predict(self.predictors, read, self.config, threshold=self.threshold):
                    named = by_file[image.name]
                    try:
                        raster = Raster(named.file, self.predictors[0].bands) if named.raster else None
                        shown = self.with_progress(image, strips)
                        labels = self.outputs.collect(named.name, image.size, shown, raster)
                    except (SegregError, OSError, MemoryError) as error:
                        self.failed(named, error)
                        continue
                    saving = partial(self.outputs.save, named.name, image.pixels[0], labels, raster=named.raster)
                    writing.append((named, writers.submit(saving)))
                    del image, labels, saving  # which the writer lets go when it has done
                    while len(writing) > _AHEAD:
                        self.written(*writing.popleft())
                while writing:
                    self.written(*writing.popleft())
            finally:
                readers.shutdown(wait=False, cancel_futures=True)
                writers.shutdown(wait=False, cancel_futures=True)

    def read_ahead(self, todo: Sequence[ImageFile], readers: ThreadPoolExecutor) -> Iterator[InputImage]:
        def read(image: ImageFile) -> InputImage:
            if image.raster:
                return read_raster(self.predictors, image.file, self.config, overlays=self.outputs.overlays)
            pixels = read_image(image.file, in_tiles=takes_any_size(self.predictors, self.config))
            return prepare_image(self.predictors, pixels, image.file, self.config)

        waiting: deque[tuple[ImageFile, Future[InputImage]]] = deque()
        rest = iter(todo)
        while True:
            while len(waiting) < _AHEAD and (following := next(rest, None)):
                waiting.append((following, readers.submit(read, following)))
            if not waiting:
                return
            image, reading = waiting.popleft()
            try:
                found = reading.result()
            except (SegregError, OSError, MemoryError) as error:
                self.failed(image, error)
                continue
            del reading
            yield found

    def with_progress(self, image: InputImage, strips: Iterator[PredictedRows]) -> Iterator[PredictedRows]:
        """Yield the rows, and show the progress of an image in tiles."""
        height = image.size[0]
        for strip in strips:
            yield strip
            if strip.rows.stop < height or strip.top:
                self.advance(0, note=f"{image.name.name}: {100 * strip.rows.stop // height}%")

    def written(self, image: ImageFile, writing: Future[None]) -> None:
        try:
            writing.result()
        except (SegregError, OSError, MemoryError) as error:
            self.failed(image, error)
            return
        self.summary.predicted.append((image, _files(self.outputs, image)))
        self.advance(1)

    def failed(self, image: ImageFile, error: BaseException) -> None:
        if isinstance(error.__cause__, OSError) and error.__cause__.strerror:  # what the disk refused to take
            error = error.__cause__
        why = str(error) if isinstance(error, SegregError) else f"{image.file}: {_reason(error)}"
        if old := [str(file) for file in self.files_of_earlier(image)]:
            why += f"\n  {listed(old, quote='', most=3)} {'are' if len(old) > 1 else 'is'} from an earlier prediction"
        self.summary.failed.append((image, why))
        self.progress.say(f"failed: {why}")
        self.advance(1)

    def files_of_earlier(self, image: ImageFile) -> Iterator[Path]:
        """Yield an image's files that were there before, a raster's or not: of a broken one it is not known."""
        names = (self.outputs.files(image.name, raster=raster).values() for raster in (False, True))
        for file in dict.fromkeys(itertools.chain.from_iterable(names)):
            with contextlib.suppress(OSError):
                if file.is_file() and file.stat().st_mtime_ns < self.began:
                    yield file


def _files(outputs: Outputs, image: ImageFile) -> dict[str, Path]:
    return outputs.files(image.name, raster=image.raster)


def _settings(
    predictors: Sequence[Predictor], outputs: Outputs, config: InferenceConfig, threshold: float
) -> dict[str, Any]:
    task = predictors[0].task
    in_tiles = takes_any_size(predictors, config)
    return {
        "runs": [predictor.name for predictor in predictors],
        "weights_sha256": [one.weights and sha256(one.weights) for one in predictors],
        "classes": list(task.classes),
        "mode": task.mode,
        "threshold": None if task.mode == "multiclass" else threshold,
        "tile": list(config.tile) if isinstance(config.tile, tuple) else config.tile if in_tiles else None,
        "overlap": config.overlap if in_tiles else None,
        "scales": list(config.scales),
        "flips": config.flips,
        "min_area": outputs.cleaning.min_area or None,
        "fill_holes": outputs.cleaning.fill_holes or None,
        "values": outputs.values if (outputs.values == "index") != (task.mode == "multiclass") else None,
        "bands": [one.bands for one in predictors] if any(one.bands for one in predictors) else None,
        "masks": str(outputs.truths.folder) if outputs.truths else None,
    }


def _is_there(files: Mapping[str, Path], began: int) -> bool:
    """Return whether all files of an image were written since then."""
    return all(file.is_file() and file.stat().st_mtime_ns >= began for file in files.values())


def _read(file: Path) -> Mapping[str, Any] | None:
    """Return what an earlier prediction wrote, an empty mapping if it can't be read; None: there was none."""
    try:
        summary = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        return {}
    return summary if isinstance(summary, dict) else {}


def _began(before: Mapping[str, Any] | None, settings: Mapping[str, Any], folder: Path) -> int | None:
    """Return when the first prediction with these settings began; None: none did, or it is not known.

    Raises:
        SegregError: the folder was predicted into with other settings, which would be mixed.
    """
    earlier = before.get("settings") if before else None
    if before is None or not isinstance(earlier, dict):
        return None
    began = before.get("began", 0)  # segreg 0.1 wrote neither this nor digests
    earlier = {"weights_sha256": settings["weights_sha256"], **earlier}
    settings = json.loads(json.dumps(settings))
    if differ := [name for name in settings if earlier.get(name) != settings[name]]:
        changes = "; ".join(
            f"{name} was {json.dumps(earlier.get(name))}, now {json.dumps(settings[name])}" for name in differ
        )
        raise SegregError(
            f"{folder} holds predictions with other settings: {changes}",
            hint="predict into another folder, or without --skip-existing, which replaces what is there",
        )
    return began if isinstance(began, int) else None


def _first_began(before: Mapping[str, Any] | None) -> int | None:
    first = before.get("first_began", before.get("began")) if before else None
    return first if isinstance(first, int) else None


def _refuse_to_replace(images: Sequence[ImageFile], outputs: Outputs, before: Mapping[str, Any] | None) -> None:
    """Refuse to replace what is read, and any file from before the first prediction, such as a true mask."""
    read = dict.fromkeys((os.path.realpath(image.file) for image in images), "an image")
    true_masks = outputs.truths.files.values() if outputs.truths else ()
    read |= {os.path.realpath(mask): "a true mask" for mask in true_masks}
    first = _first_began(before)
    for file in itertools.chain.from_iterable(_files(outputs, image).values() for image in images):
        if what := read.get(os.path.realpath(file)):
            raise SegregError(
                f"{file} is {what} that is read, and would be replaced by its prediction",
                hint="predict into another folder",
            )
        if before is None and file.is_file():
            raise SegregError(
                f"{file} is there, and no prediction: {outputs.folder} has no {SUMMARY}",
                hint="predict into another folder",
            )
        if first is not None and file.is_file() and file.stat().st_mtime_ns < first - _CLOCKS:
            raise SegregError(
                f"{file} is older than the first prediction into {outputs.folder}, so it is none",
                hint="predict into another folder",
            )


def _reason(error: BaseException) -> str:
    if isinstance(error, MemoryError):
        return "does not fit into memory"
    if isinstance(error, OSError) and error.strerror:
        return f"its prediction can't be written ({error.strerror}{f': {error.filename}' if error.filename else ''})"
    return str(error) or type(error).__name__

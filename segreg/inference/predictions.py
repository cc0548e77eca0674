"""Predicts picture files: reads ahead, writes behind, and goes on after a picture that is broken."""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from segreg.errors import SegregError
from segreg.data.images import read_image
from segreg.inference.inputs import Named
from segreg.inference.writer import Outputs
from segreg.inference.predict import predict
from segreg.inference.predictor import Picture, Predictor, Strip, Way, check_together, take
from segreg.runtime.progress import Advance, Progress
from segreg.runs.directory import write_json

SUMMARY = "prediction.json"
"""What was predicted with which settings, beside the folders of outputs."""
_AHEAD = 2
"""Pictures that are read ahead, and that wait to be written: large ones take memory."""


@dataclass
class Summary:
    """What became of each picture.

    Attributes:
        settings: all that decides what is predicted.
        predicted: pictures that were predicted, with their files.
        skipped: pictures whose files were there.
        failed: pictures that could not be predicted, and why.
        without_mask: pictures whose strips show no truth, where true masks were given.
    """

    settings: Mapping[str, Any]
    predicted: list[tuple[Named, Mapping[str, Path]]] = field(default_factory=list)
    skipped: list[Named] = field(default_factory=list)
    failed: list[tuple[Named, str]] = field(default_factory=list)
    without_mask: list[Named] = field(default_factory=list)

    def plain(self) -> dict[str, Any]:
        """Gives it as plain values."""
        return {
            "settings": dict(self.settings),
            "predicted": [
                {"image": str(picture.file), **{kind: str(file) for kind, file in files.items()}}
                for picture, files in self.predicted
            ],
            "skipped": [str(picture.file) for picture in self.skipped],
            "failed": [{"image": str(picture.file), "why": why} for picture, why in self.failed],
            "without_mask": [str(picture.file) for picture in self.without_mask],
        }


def predict_files(
    pictures: Sequence[Named],
    predictors: Sequence[Predictor],
    outputs: Outputs,
    way: Way,
    *,
    threshold: float | None,
    progress: Progress,
    existing: str = "replace",
) -> Summary:
    """Predicts pictures and writes what `outputs` asks for; a picture that can't be read is noted and left out.

    Args:
        pictures: the files.
        predictors: networks, whose probabilities are averaged.
        outputs: what is written, and where.
        way: how pictures are looked at.
        threshold: probability from which a pixel is foreground; None: the recipe's.
        progress: is told what happens.
        existing: "skip" leaves out pictures whose files are all there, "replace" writes them anew.

    Raises:
        SegregError: nothing can be predicted: the networks do not go together, an output would replace a picture, what
            is there was predicted with other settings, or the device's memory does not suffice.
    """
    import torch

    threshold = check_together(predictors, threshold)
    _refuse_to_replace_inputs(pictures, outputs)
    summary = Summary(_settings(predictors, outputs, way, threshold))
    if outputs.truths is not None:
        summary.without_mask = [picture for picture in pictures if picture.name not in outputs.truths.files]
    file = outputs.folder / SUMMARY
    if existing == "skip":
        _refuse_other_settings(file, summary.settings)
        summary.skipped = [p for p in pictures if all(f.is_file() for f in outputs.files(p.name).values())]
    there = {picture.name for picture in summary.skipped}
    todo = [picture for picture in pictures if picture.name not in there]
    try:
        outputs.folder.mkdir(parents=True, exist_ok=True)
        write_json(file, summary.plain())
    except OSError as error:
        raise SegregError(f"{outputs.folder}: can't be written to ({error.strerror})") from None
    with progress.watch("predicting", len(todo), "pictures") as advance:
        work = _Work(summary, outputs, progress, advance)
        try:
            _predict(todo, predictors, way, threshold, work)
        except torch.OutOfMemoryError:
            raise SegregError(
                f"the memory of {predictors[0].device} does not suffice",
                hint="take a smaller --batch-size, or --tile for large pictures",
            ) from None
    order = {picture.name: number for number, picture in enumerate(pictures)}
    summary.failed.sort(key=lambda failed: order[failed[0].name])
    write_json(file, summary.plain())
    return summary


@dataclass
class _Work:
    """What is known of a prediction while it goes on. Only the main thread changes it."""

    summary: Summary
    outputs: Outputs
    progress: Progress
    advance: Advance

    def failed(self, picture: Named, error: Exception) -> None:
        why = str(error) if isinstance(error, SegregError) else f"{picture.file}: {_reason(error)}"
        self.summary.failed.append((picture, why))
        self.progress.say(f"failed: {why}")
        self.advance(1)

    def written(self, picture: Named, writing: Future[None]) -> None:
        try:
            writing.result()
        except (SegregError, OSError, MemoryError) as error:
            self.failed(picture, error)
            return
        self.summary.predicted.append((picture, self.outputs.files(picture.name)))
        self.advance(1)


def _predict(todo: Sequence[Named], predictors: Sequence[Predictor], way: Way, threshold: float, work: _Work) -> None:
    by_file = {picture.file: picture for picture in todo}
    with ThreadPoolExecutor(_AHEAD, "reading") as readers, ThreadPoolExecutor(_AHEAD, "writing") as writers:
        try:
            writing: deque[tuple[Named, Future[None]]] = deque()
            read = _read_ahead(todo, predictors, way, readers, work)
            for picture, strips in predict(predictors, read, way, threshold=threshold):
                named = by_file[picture.name]
                try:
                    labels = work.outputs.gather(named.name, picture.size, _told(picture, strips, way, work))
                except (OSError, MemoryError) as error:
                    work.failed(named, error)
                    continue
                writing.append((named, writers.submit(work.outputs.save, named.name, picture.pixels[0], labels)))
                del picture, labels  # which the writer lets go when it has done
                while len(writing) > _AHEAD:
                    work.written(*writing.popleft())
            while writing:
                work.written(*writing.popleft())
        finally:
            readers.shutdown(wait=False, cancel_futures=True)
            writers.shutdown(wait=False, cancel_futures=True)


def _read_ahead(
    todo: Sequence[Named], predictors: Sequence[Predictor], way: Way, readers: ThreadPoolExecutor, work: _Work
) -> Iterator[Picture]:
    def read(picture: Named) -> Picture:
        return take(predictors, read_image(picture.file), picture.file, way)

    waiting: deque[tuple[Named, Future[Picture]]] = deque()
    rest = iter(todo)
    while True:
        while len(waiting) < _AHEAD and (following := next(rest, None)):
            waiting.append((following, readers.submit(read, following)))
        if not waiting:
            return
        picture, reading = waiting.popleft()
        try:
            found = reading.result()
        except (SegregError, OSError, MemoryError) as error:
            work.failed(picture, error)
            continue
        del reading
        yield found


def _told(picture: Picture, strips: Iterator[Strip], way: Way, work: _Work) -> Iterator[Strip]:
    """Gives the strips, telling how far a picture in tiles has come."""
    height = picture.size[0]
    for strip in strips:
        yield strip
        if way.tile is not None:
            work.advance(0, note=f"{picture.name.name}: {100 * strip.rows.stop // height}%")


def _settings(predictors: Sequence[Predictor], outputs: Outputs, way: Way, threshold: float) -> dict[str, Any]:
    task = predictors[0].task
    return {
        "runs": [predictor.name for predictor in predictors],
        "classes": list(task.classes),
        "mode": task.mode,
        "threshold": None if task.mode == "multiclass" else threshold,
        "tile": list(way.tile) if way.tile else None,
        "overlap": way.overlap if way.tile else None,
        "scale": way.scale if way.tile else None,
        "views": way.views,
        "masks": str(outputs.truths.folder) if outputs.truths else None,
    }


def _refuse_other_settings(file: Path, settings: Mapping[str, Any]) -> None:
    """Refuses to mix predictions of different settings in one folder."""
    try:
        before = json.loads(file.read_text(encoding="utf-8"))["settings"]
    except (OSError, ValueError, LookupError, TypeError):
        return
    if differ := [name for name in settings if before.get(name) != settings[name]]:
        told = "; ".join(
            f"{name} was {json.dumps(before.get(name))}, now {json.dumps(settings[name])}" for name in differ
        )
        raise SegregError(
            f"{file.parent} holds predictions with other settings: {told}",
            hint="predict into another folder, or without --skip-existing, which replaces what is there",
        )


def _refuse_to_replace_inputs(pictures: Sequence[Named], outputs: Outputs) -> None:
    read = dict.fromkeys((os.path.realpath(picture.file) for picture in pictures), "picture")
    read |= {os.path.realpath(mask): "true mask" for mask in (outputs.truths.files.values() if outputs.truths else ())}
    for picture in pictures:
        for file in outputs.files(picture.name).values():
            if what := read.get(os.path.realpath(file)):
                raise SegregError(
                    f"{file} is a {what} that is read, and would be replaced by its prediction",
                    hint="predict into another folder",
                )


def _reason(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return "does not fit into memory"
    if isinstance(error, OSError) and error.strerror:
        return f"its prediction can't be written ({error.strerror}{f': {error.filename}' if error.filename else ''})"
    return str(error) or type(error).__name__

"""Which model of a bench, or which pair of them, is best on images that its networks were not trained on."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from segreg.benchmark.bench.candidates import (
    Collected,
    Models,
    ValImages,
    collected,
    score_candidates,
    score_cleaned,
)
from segreg.benchmark.bench.folder import content
from segreg.benchmark.bench.models import RESULTS, BenchModel, models_of
from segreg.benchmark.comparison.compare import fold_of
from segreg.errors import SegregError, plural
from segreg.evaluation import statistics
from segreg.evaluation.scores import of_probabilities
from segreg.inference.cleaning import Cleaning
from segreg.runtime.layout import Block, Column, Table
from segreg.runtime.progress import Progress

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from segreg.runs.trained_run import Run
    from segreg.task import Task

SIZES = (10, 30, 100, 300, 1000, 3000)
"""Pixels of regions and holes that are tried, where they are at most `LARGEST` of the median image."""
LARGEST = 0.02


@dataclass(frozen=True)
class Estimate:
    """A score or a difference with its 95% interval, whose ends are None where it is not known."""

    mean: float
    low: float | None
    high: float | None

    def helps(self, *, higher_is_better: bool) -> bool:
        """Whether as a difference it is an improvement, and the interval excludes 0."""
        if self.low is None or self.high is None:
            return False
        return self.low > 0 if higher_is_better else self.high < 0


@dataclass(frozen=True)
class Candidate:
    """A model, or a pair of them.

    Attributes:
        models: their names.
        score: of the images, the mean over seeds.
        wins: share of the resamples in which no other candidate is better.
    """

    models: Models
    score: Estimate
    wins: float

    @property
    def name(self) -> str:
        return " + ".join(self.models)


@dataclass(frozen=True)
class Tried:
    """A cleaning of the best candidate's labels, and how its score differs from that without."""

    min_area: int
    fill_holes: int
    difference: Estimate
    helps: bool


@dataclass(frozen=True)
class Choice:
    """What is best in a bench.

    Attributes:
        bench: its folder.
        metric: what it is best by, at the images' own size.
        higher_is_better: whether larger values of it are.
        images: number of images.
        groups: number of groups of images that were resampled; None where single images were.
        folds: number of folds; None where the runs have none, and their one validation split decides.
        seeds: the models' seeds.
        candidates: the best first.
        to_runner_up: the best one's difference to the second; None where there is one alone.
        to_single: the best pair's difference to the best single model; None where a single model is best.
        cleaning: what is recommended of `tried`.
        tried: cleanings of the best one's labels.
        notes: what must not be overlooked.
        command: that predicts with the best one.
    """

    bench: str
    metric: str
    higher_is_better: bool
    images: int
    groups: int | None
    folds: int | None
    seeds: tuple[int, ...]
    candidates: tuple[Candidate, ...]
    to_runner_up: Estimate | None
    to_single: Estimate | None
    cleaning: Cleaning
    tried: tuple[Tried, ...]
    notes: tuple[str, ...]
    command: str


def best_of(path: Path, *, device: str = "auto", progress: Progress) -> Choice:
    """Return what is best in a bench, by the metric that it compared by.

    The images of val are predicted with the best weights of the runs that were not trained on them, at their own size:
    in a bench of folds all images, otherwise those of the one validation split.

    Raises:
        SegregError: the folder is not that of a bench with results, its data have changed, or single images don't add
            up to the metric.
    """
    models, results = models_of(path), content(path / RESULTS)
    metric, higher = str(results["metric"]), bool(results["higher_is_better"])
    if results["models"][0]["values"].get(metric, {}).get("low") is None:
        raise SegregError(
            f"single images don't add up to {metric}, so that nothing is known of how sure a choice by it is",
            hint="the bench's command with --metric compares by another, such as dice",
        )
    images = ValImages.of(models)
    scores, left_out = score_candidates(images, metric, device=device, progress=progress)
    draws, values = _resampled(scores.values(), images, metric)
    wins = statistics.shares_of_best(draws, higher_is_better=higher)
    known = [number for number in range(len(values)) if not np.isnan(values[number])]
    order = sorted(known, key=lambda number: -values[number] if higher else values[number])
    if not order:
        raise SegregError(f"{metric} is undefined for every model of {path}")
    names = list(scores)
    found = tuple(
        Candidate(names[number], _estimate(values[number], draws[number]), float(wins[number])) for number in order
    )

    def difference(one: int, other: int) -> Estimate:
        return _estimate(values[one] - values[other], draws[one] - draws[other])

    first = order[0]
    single = next((number for number in order if len(names[number]) == 1), first)
    run = next(model.runs[0] for model in models if model.name == found[0].models[0])
    cleaning, tried, why = _cleaned(
        found[0].models, run, images, metric, higher=higher, device=device, progress=progress
    )
    of_folds = sorted({fold for run in models[0].runs if (fold := fold_of(run)) is not None})
    return Choice(
        bench=str(path), metric=metric, higher_is_better=higher, images=len(images.samples),
        groups=None if images.groups is None else len(set(images.groups)),
        folds=len(of_folds) if len(of_folds) > 1 else None,
        seeds=tuple(sorted({seed for one in scores.values() for seed in one.scorers})),
        candidates=found,
        to_runner_up=difference(first, order[1]) if len(order) > 1 else None,
        to_single=difference(first, single) if len(names[first]) > 1 and single != first else None,
        cleaning=cleaning, tried=tried, notes=(*why, *_notes(len(found), models, images, left_out)),
        command=_command(found[0].models, cleaning, models),
    )  # fmt: skip


def _resampled(
    scores: Iterable[Collected], images: ValImages, metric: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return each candidate's score in each resample of images, or their groups, and seeds, `[C, R]`, and measured."""
    measures = [one.measure(images.samples, images.groups).of(metric) for one in scores]
    values = np.array([statistics.of_seeds(measure).mean() for measure in measures])
    return statistics.resampled(measures, seed=statistics.SEED)[..., 0], values


def _estimate(mean: float, draws: NDArray[np.float64]) -> Estimate:
    low, high = statistics.interval(draws) or (None, None)
    return Estimate(float(mean), low, high)


def _cleaned(
    chosen: Models, run: Run, images: ValImages, metric: str, *, higher: bool, device: str, progress: Progress
) -> tuple[Cleaning, tuple[Tried, ...], list[str]]:
    """Return which cleaning of a candidate's labels helps, what was tried, and why nothing was; `run` is one of its."""
    why = _why_not(run.task, collected(metric, run, run.recipe.evaluate.threshold))
    if why:
        return Cleaning(), (), [why]
    masks = map(images.dataset.read_mask, images.samples[:50])
    pixels = median(mask.shape[-2] * mask.shape[-1] for mask in masks)
    sizes = [size for size in SIZES if size <= LARGEST * pixels] or [SIZES[0]]
    cleanings = [*(Cleaning(min_area=size) for size in sizes), *(Cleaning(fill_holes=size) for size in sizes)]

    def tried(several: Sequence[Cleaning]) -> list[Tried]:
        every = [Cleaning(), *several]
        scores = score_cleaned(chosen, every, images, metric, device=device, progress=progress)
        draws, values = _resampled(scores, images, metric)
        found = []
        for number, cleaning in enumerate(several, start=1):
            change = _estimate(values[number] - values[0], draws[number] - draws[0])
            found.append(Tried(**vars(cleaning), difference=change, helps=change.helps(higher_is_better=higher)))
        return found

    found = tried(cleanings)
    regions, holes = (_most_helpful(found[at : at + len(sizes)], higher) for at in (0, len(sizes)))
    both = []
    if regions and holes:
        both = tried([Cleaning(regions.min_area, holes.fill_holes)])
    taken = _most_helpful([each for each in (regions, holes, *both) if each], higher)
    return Cleaning(taken.min_area, taken.fill_holes) if taken else Cleaning(), (*found, *both), []


def _why_not(task: Task, scores: Collected) -> str:
    """Return why cleaned labels are not scored; empty where they are."""
    if of_probabilities(scores.metrics()):
        return f"Dropping small regions was not tried: {scores.metric} is of probabilities, which stay as they are."
    try:
        Cleaning(min_area=1).check(task)
    except SegregError as error:
        return f"Dropping small regions was not tried: {error.problems[0].message}."
    return ""


def _most_helpful(tried: Sequence[Tried], higher: bool) -> Tried | None:
    helping = [each for each in tried if each.helps]
    return max(helping, key=lambda each: each.difference.mean if higher else -each.difference.mean, default=None)


def _notes(
    candidates: int, models: Sequence[BenchModel], images: ValImages, left_out: Mapping[Models, str]
) -> list[str]:
    notes = []
    every = [run for model in models for run in model.runs]
    if any(not str(run.results.get("monitor")).startswith("train.") for run in every):
        notes.append("The same images chose each network's checkpoint, which flatters all scores a little.")
    if candidates > 1:
        notes.append(f"The best of {candidates} is partly the luckiest: expect a little less of it.")
    if any(len(model.runs) > 1 for model in models):
        notes.append("The command averages the networks of all folds and seeds. That mean has not been scored.")
    notes += [f"{name} has not all folds with seed {', '.join(map(str, seeds))}, which is left out."
              for name, seeds in images.left_out.items()]  # fmt: skip
    notes += [f"{' + '.join(pair)} can't be averaged: {why}." for pair, why in left_out.items()]
    return notes


def _command(best: Models, cleaning: Cleaning, models: Sequence[BenchModel]) -> str:
    folders = {model.name: str(model.folder) for model in models}
    words = ["segreg", "predict", *(folders[name] for name in best), "--images", "IMAGES", "--out", "predicted"]
    return shlex.join([*words, *_options(cleaning)])


def _options(cleaning: Cleaning | Tried) -> list[str]:
    sizes = ("--min-area", cleaning.min_area), ("--fill-holes", cleaning.fill_holes)
    return [word for option, size in sizes if size for word in (option, str(size))]


# In words


def format_choice(choice: Choice) -> list[Block]:
    """Return what is best, how sure that is, and the command, as lines and tables."""
    seeds = plural(len(choice.seeds), "seed")
    of = plural(choice.images, "image") + (f" in {plural(choice.groups, 'group')}" if choice.groups is not None else "")
    where = f"out of fold on {of}, {choice.folds} folds" if choice.folds else f"on the {of} of the validation split"
    lines: list[Block] = [f"decided {where}, {seeds}, by {choice.metric} at the images' own size", ""]
    rows = [[one.name, _number(one.score), f"{one.wins:.0%}"] for one in choice.candidates]
    lines.append(Table([Column("model"), Column(choice.metric), Column("best in", right=True)], rows))
    best = choice.candidates[0]
    lines += ["", f"best: {best.name}, in {best.wins:.0%} of the resamples"]
    if choice.to_runner_up:
        lines.append(f"to the second, {choice.candidates[1].name}: {_difference(choice.to_runner_up)}")
    if choice.to_single:
        single = next(one for one in choice.candidates if len(one.models) == 1)
        lines.append(f"to the best single model, {single.name}: {_difference(choice.to_single)}")
    lines += _cleaning(choice)
    return [*lines, "", *(f"note: {note}" for note in choice.notes), "", choice.command]


def _cleaning(choice: Choice) -> list[Block]:
    if not choice.tried:
        return []
    rows = [
        [" ".join(_options(each)), _difference(each.difference), "helps" if each.helps else ""] for each in choice.tried
    ]
    taken = " ".join(_options(choice.cleaning)) or "none; no interval excludes 0 on the better side"
    return ["", f"cleaning: {taken}", Table([Column(), Column(), Column()], rows, headings=False, indent=2)]


def _number(score: Estimate, form: str = ".4f") -> str:
    ends = "" if score.low is None else f" [{score.low:{form}}, {score.high:{form}}]"
    return f"{score.mean:{form}}{ends}"


def _difference(change: Estimate) -> str:
    return _number(change, "+.4f")

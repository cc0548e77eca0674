"""What finished runs were scored with, image by image, as the statistics take it; and two runs' scores side by side."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from segreg.errors import SegregError, listed
from segreg.evaluation.counts import read_counts, read_sums
from segreg.evaluation.scores import meaning_and_way
from segreg.evaluation.statistics import SEED, Measure, interval, of_seeds, resampled, resampled_words
from segreg.runs.diff import MetricPair, Scores, same_images
from segreg.runs.directory import RunDirectory
from segreg.runs.listing import KnownRun
from segreg.runs.trained_run import Run
from segreg.runtime.output import read_csv

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torchmetrics import MetricCollection

PER_IMAGE_MEAN = ".per_image_mean"
_BLOCK = 1 << 24


@dataclass(frozen=True)
class Scored:
    """A run's scores on the split that its results are of, or those of the runs of several folds on all their folds.

    Attributes:
        runs: the run, or that of each fold.
        split: "test", or "val" where there is no test split and in folds.
        values: each metric by its full name; NaN where it is undefined.
        ids: of the N images.
        columns: by a metric's name its value in each image, `[N]`, NaN where it is undefined.
        counts: int64 `[N, K, 4]`, as `image_counts` has them; None for a run that did not keep them.
        sums: by a metric's name what its `sums` returned for each image, `[N, ...]`.
        groups: that of each image; None where each is one by itself.
    """

    runs: tuple[Run, ...]
    split: str
    values: Mapping[str, float]
    ids: tuple[str, ...]
    columns: Mapping[str, NDArray[np.float64]]
    counts: NDArray[np.int64] | None
    sums: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    groups: Sequence[Hashable] | None = None

    @classmethod
    def of_rows(
        cls, values: Mapping[str, float], rows: Sequence[Mapping[str, Any]], counts: NDArray[np.int64] | None,
        sums: Mapping[str, NDArray[Any]], *, runs: tuple[Run, ...] = (), groups: Sequence[Hashable] | None = None,
    ) -> Scored:  # fmt: skip
        """Return scores on val; each row has an image's id and its metrics."""
        names = [name for row in rows[:1] for name in row if name != "id"]
        columns = {name: np.array([row[name] for row in rows], np.float64) for name in names}
        return cls(runs, "val", values, tuple(str(row["id"]) for row in rows), columns, counts, sums, groups)

    @property
    def run(self) -> Run:
        """Return the run, or that of the first fold."""
        return self.runs[0]

    def places(self, ids: Sequence[str]) -> list[int]:
        """Return where these images stand in `ids`, `columns` and `counts`."""
        place = {identity: number for number, identity in enumerate(self.ids)}
        return [place[identity] for identity in ids]


def read_scored(run: Run, *, fold: bool = False) -> Scored:
    """Read a run's scores.

    Args:
        run: the run.
        fold: whether those of its fold are wanted, val, also where it has a test.

    Raises:
        SegregError: the run has not come to its end, or its files are damaged.
    """
    results, directory = run.results, run.directory
    path, split = directory.path, results.get("scored_on")
    if split != "val" and fold:
        directory, split = RunDirectory(directory.fold), split and "val"
    if not split:
        raise SegregError(f"{path} was interrupted and has no scores", hint=f"segreg run --resume {path} continues")
    values = {name: np.nan if value is None else float(value) for name, value in results["metrics"][split].items()}
    try:
        header, rows = read_csv(directory.per_image)
        at = header.index("id")
        ids = tuple(row[at] for row in rows)
        columns = {
            name: np.array([float(row[place] or "nan") for row in rows])
            for place, name in enumerate(header)
            if place != at
        }
    except FileNotFoundError:
        hint = f"segreg run --resume {path} scores it again"
        raise SegregError(f"{directory.path} has no per_image.csv", hint=hint) from None
    except (IndexError, ValueError):
        raise SegregError(f"{directory.per_image} does not hold the scores of images") from None
    counts = None
    sums: Mapping[str, NDArray[Any]] = {}
    counted: dict[Path, list[str]] = {}
    if directory.counts.is_file():
        counted[directory.counts], _, counts = read_counts(directory.counts)
    if directory.sums.is_file():
        counted[directory.sums], sums = read_sums(directory.sums)
    for file, of in counted.items():
        if tuple(of) != ids:
            raise SegregError(
                f"{file} and {directory.per_image} are not of the same images",
                hint=f"one of them was changed; segreg run --resume {path} writes both again",
            )
    group_of = results.get("groups", {}).get(split) or {}
    groups = [group_of.get(identity, identity) for identity in ids] if group_of else None
    return Scored((run,), split, values, ids, columns, counts, sums, groups)


def out_of_fold(folds: Sequence[Scored]) -> Scored:
    """Return the scores of several folds as those of one network: each image's are of its own fold.

    Metrics that single images don't add up to are means over the folds here.

    Raises:
        SegregError: an image is in two folds.
    """
    first = folds[0]
    ids = tuple(identity for one in folds for identity in one.ids)
    if len(set(ids)) < len(ids):
        twice = next(identity for identity in ids if ids.count(identity) > 1)
        where = [str(one.run.directory.path) for one in folds if twice in one.ids]
        raise SegregError(f'the image "{twice}" is in the folds of {listed(where)}', hint="their data have changed")
    names = [name for name in first.columns if all(name in one.columns for one in folds)]
    counts = [one.counts for one in folds if one.counts is not None]
    groups = [(fold, group) for fold, one in enumerate(folds) for group in one.groups or one.ids]
    return Scored(
        tuple(run for one in folds for run in one.runs), first.split,
        {name: float(np.mean([one.values.get(name, np.nan) for one in folds])) for name in first.values},
        ids, {name: np.concatenate([one.columns[name] for one in folds]) for name in names},
        np.concatenate(counts) if len(counts) == len(folds) else None,
        {name: np.concatenate([one.sums[name] for one in folds]) for name in first.sums
         if all(name in one.sums for one in folds)},
        groups if any(one.groups for one in folds) else None,
    )  # fmt: skip


def unknown_of_images(every: Sequence[Scored], metrics: MetricCollection) -> Iterator[str]:
    """Return which pooled scores have no intervals, because a run did not keep what its images add to them."""
    scored = [{value.partition(".")[0] for value in one.values} for one in every]
    own = {name: metric for name, metric in metrics.items(copy_state=False) if all(name in each for each in scored)}
    counted = [name for name, metric in own.items() if hasattr(metric, "scores_of_counts")]
    summed = [name for name, metric in own.items() if hasattr(metric, "scores_of_sums")]
    for file, names in (
        ("counts.csv", counted if any(one.counts is None for one in every) else []),
        ("sums.npz", [name for name in summed if any(name not in one.sums for one in every)]),
    ):
        if names:
            yield (
                f"pooled scores of {listed(names, most=6)} have no interval: not every run has them in {file}, "
                "which runs of older versions did not leave"
            )


def shared_groups(every: Iterable[Scored], ids: Sequence[str]) -> list[Hashable] | None:
    """Return the group of each of some images, as the first run has it that knows of groups; None where none does."""
    for one in every:
        if one.groups is not None:
            groups = [one.groups[place] for place in one.places(ids)]
            if len(set(groups)) < len(groups):
                return groups
    return None


def measure_of(
    seeds: Sequence[Scored],
    ids: Sequence[str],
    metrics: MetricCollection | None,
    *,
    names: Collection[str] | None = None,
    groups: Sequence[Hashable] | None = None,
) -> Measure:
    """Return one model's scores on some images, all that single images, their counts or their sums add up to.

    Args:
        seeds: the model's runs.
        ids: the images, each of which every run was scored on.
        metrics: the recipe's; None: means over images alone are wanted.
        names: the scores that are wanted; None: all.
        groups: those that are resampled, as `shared_groups` returns them.
    """
    wanted = set(seeds[0].values if names is None else names)
    own = dict(metrics.items(copy_state=False)) if metrics is not None else {}
    rows = [one.places(ids) for one in seeds]
    means = [
        name
        for name in seeds[0].columns
        if name + PER_IMAGE_MEAN in wanted
        and all(name in one.columns and name + PER_IMAGE_MEAN in one.values for one in seeds)
    ]
    values = np.array([[one.columns[name][at] for name in means] for one, at in zip(seeds, rows, strict=True)])
    of_means = Measure.means(
        [name + PER_IMAGE_MEAN for name in means], values.reshape(len(seeds), len(means), len(ids)).transpose(0, 2, 1)
    )
    found = [of_means]
    if own and all(one.counts is not None for one in seeds):
        counts = np.stack([one.counts[at] for one, at in zip(seeds, rows, strict=True) if one.counts is not None])
        scorers = [metric.scores_of_counts for metric in own.values() if hasattr(metric, "scores_of_counts")]
        found.append(Measure.pooled(counts, scorers, wanted))
    for name in seeds[0].sums:
        if name in own and all(name in one.sums for one in seeds):
            sums = np.stack([one.sums[name][at] for one, at in zip(seeds, rows, strict=True)])
            found.append(Measure.pooled(sums, [own[name].scores_of_sums], wanted))
    return reduce(_joined, [measure for measure in found if measure.names] or found[:1]).by_group(groups)


def _joined(one: Measure, other: Measure) -> Measure:
    """Return the scores of both, of the same seeds and images."""
    seeds, images = one.parts.shape[:2]
    parts = [each.parts.reshape(seeds, images, -1) for each in (one, other)]
    width = parts[0].shape[-1]

    def score(sums: NDArray[np.float64]) -> NDArray[np.float64]:
        front, back = sums[..., :width], sums[..., width:]
        return np.concatenate(
            [
                one.score(front.reshape(*front.shape[:-1], *one.parts.shape[2:])),
                other.score(back.reshape(*back.shape[:-1], *other.parts.shape[2:])),
            ],
            axis=-1,
        )

    return Measure((*one.names, *other.names), np.concatenate(parts, axis=-1), score)


# two runs


def compare_scores(one: KnownRun, other: KnownRun) -> Scores | None:
    """Return two runs' scores side by side; None where one of them has none.

    Raises:
        SegregError: a run's scores of single images are broken.
    """
    if not one.split or not other.split:
        return None
    scored = [read_scored(Run(run.directory)) for run in (one, other)]
    mine, its = (each.values for each in scored)
    theirs = set(scored[1].ids)
    ids = [name for name in scored[0].ids if name in theirs]
    names = [name for name in mine if name in its]
    pairs = {name: MetricPair(name, defined(mine[name]), defined(its[name]), paired=False) for name in names}
    notes, reason = _notes(one, other), ""
    if ids:
        metrics, reason = _metrics(one, other, scored)
        notes += dict.fromkeys(line for own in metrics or () for line in unknown_of_images(scored, own))
        pairs |= {pair.name: pair for pair in paired(scored, ids, metrics) if pair.name in pairs}
    else:
        notes.append("no image was scored in both runs, so nothing is said of how sure the differences are")
    for run, has, lacks in (("A", mine, its), ("B", its, mine)):
        if alone := [name for name in has if name not in lacks]:
            notes.append(f"only {run} has {listed(alone)}")
    return Scores(
        tuple(pairs.values()), len(ids), (len(scored[0].ids), len(scored[1].ids)), tuple(notes), reason,
        _identical(one, other, scored), _same_weights(one, other), resampled_words(shared_groups(scored, ids)),
    )  # fmt: skip


def paired(
    scored: Sequence[Scored], ids: Sequence[str], metrics: Sequence[MetricCollection] | None
) -> Iterator[MetricPair]:
    """Return the scores that single images or their counts add up to, of these images."""
    made: Sequence[MetricCollection | None] = metrics or (None, None)
    groups = shared_groups(scored, ids)
    measures = [measure_of([each], ids, own, groups=groups) for each, own in zip(scored, made, strict=True)]
    shared = [name for name in measures[0].names if name in measures[1].names]
    measures = [measure.of(*shared) for measure in measures]
    draws = resampled(measures, seed=SEED)
    sums = [of_seeds(measure)[0] for measure in measures]
    whole = all(len(each.ids) == len(ids) for each in scored)
    for column, name in enumerate(shared):
        ends = interval(draws[1, :, column] - draws[0, :, column]) if measures[0].parts.shape[1] > 1 else None
        low, high = ends or (None, None)
        # Of all images the run's own value is taken, which a sum in another order may miss by its last digit.
        one, other = (
            each.values[name] if whole else float(own[column]) for each, own in zip(scored, sums, strict=True)
        )
        yield MetricPair(name, defined(one), defined(other), low, high)


def _identical(one: KnownRun, other: KnownRun, scored: Sequence[Scored]) -> bool:
    mine, its = scored
    return (
        mine.ids == its.ids
        and dict(one.metrics(one.split)) == dict(other.metrics(other.split))
        and mine.columns.keys() == its.columns.keys()
        and all(np.array_equal(mine.columns[name], its.columns[name], equal_nan=True) for name in mine.columns)
    )


def _metrics(one: KnownRun, other: KnownRun, scored: Sequence[Scored]) -> tuple[list[MetricCollection] | None, str]:
    """Return each run's metrics, which pooled scores are computed with from counts; or None, and why."""
    without = [name for name, each in zip("AB", scored, strict=True) if each.counts is None]
    if without:
        which = f"{without[0]} has no" if len(without) == 1 else "neither run has a"
        return None, f"{which} counts.csv, which runs of older versions did not leave"
    from segreg.models import build

    try:
        runs = [Run(each.directory) for each in (one, other)]
        return [build.build_metrics(run.recipe, run.task) for run in runs], ""
    except (SegregError, OSError) as error:  # a plugin of then is gone, or the weights were thrown away
        return None, f"the runs' metrics can't be built: {error}"


def _notes(one: KnownRun, other: KnownRun) -> list[str]:
    """Return in what the two were scored otherwise."""
    notes = []
    if one.split != other.split:
        notes.append(f"A was scored on split {one.split}, B on split {other.split}")
    if same_images(one, other) is False:
        notes.append("equal ids are not equal images: the files of the samples have changed between the runs")
    for section, name in (
        ("dataset", "name"), ("evaluate", "threshold"), ("evaluate", "resolution"), ("input", "size"),
        ("input", "resize"),
    ):  # fmt: skip
        values = [(run.settings.get(section) or {}).get(name) for run in (one, other)]
        if values[0] != values[1]:
            notes.append(
                f"scored otherwise: {section}.{name} {json.dumps(values[0])} in A, {json.dumps(values[1])} in B"
            )
    definitions = [run.results.get("definitions") or {} for run in (one, other)]
    names = [name for name in definitions[0] if name in definitions[1]]
    both = {name: [meaning_and_way(each[name]) for each in definitions] for name in names}
    names = [name for name, ((mine, _), (its, _)) in both.items() if mine != its]
    for name in names[:1]:
        more = f" (and of {len(names) - 1} more metrics)" if len(names) > 1 else ""
        notes.append(f"the definitions of {name}{more} differ: {definitions[0][name]} / {definitions[1][name]}")
    ways = [(mine, its) for (_, mine), (_, its) in both.values() if mine != its]
    for mine, its in ways[:1]:
        notes.append(f"scored otherwise: images {mine} in A, {its} in B")
    return notes


def defined(value: float) -> float | None:
    """Return a metric's value, None where it is undefined."""
    return None if math.isnan(value) else float(value)


def _same_weights(one: KnownRun, other: KnownRun) -> bool | None:
    """Whether two safetensors files hold the same bytes but for their notes: 8 bytes of length, JSON, tensors."""
    files = [run.directory.best if run.results.get("best_epoch") else run.directory.last for run in (one, other)]
    try:
        with files[0].open("rb") as mine, files[1].open("rb") as its:
            headers = []
            for file in (mine, its):
                header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
                header.pop("__metadata__", None)
                headers.append(header)
            if headers[0] != headers[1]:
                return False
            while block := mine.read(_BLOCK):
                if block != its.read(_BLOCK):
                    return False
            return not its.read(1)
    except (OSError, ValueError, AttributeError, TypeError, MemoryError, OverflowError):
        return None

"""Two runs' scores side by side: each metric's difference with its paired interval, and whether nothing differs."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segreg.errors import SegregError, listed
from segreg.runs.diff import same_images
from segreg.runs.listing import KnownRun

if TYPE_CHECKING:
    from torchmetrics import MetricCollection

    from segreg.runs.scored import Scored

_BLOCK = 1 << 24


@dataclass(frozen=True)
class MetricPair:
    """A metric of both runs.

    Attributes:
        name: its full name.
        one: the one run's value; None where it is undefined.
        other: the other run's.
        low: lower end of the 95% interval of the other's less the one's; None where there is none.
        high: upper end.
        paired: whether the values are of the images that both were scored on; else they are each run's own.
    """

    name: str
    one: float | None
    other: float | None
    low: float | None = None
    high: float | None = None
    paired: bool = True

    @property
    def difference(self) -> float | None:
        """Return the other's value less the one's."""
        return None if self.one is None or self.other is None else self.other - self.one


@dataclass(frozen=True)
class Scores:
    """What two runs were scored with, side by side.

    Attributes:
        pairs: the metrics that both have.
        images: how many images both were scored on.
        of: how many each of the two was scored on.
        notes: what makes the comparison less than it seems.
        without_counts: why pooled scores have no intervals; empty where they have some.
        identical: whether all metrics, and all values of single images, are the same to the last bit.
        same_weights: whether both runs' scored weights are; None where a file is missing or is not a safetensors.
    """

    pairs: tuple[MetricPair, ...]
    images: int
    of: tuple[int, int]
    notes: tuple[str, ...]
    without_counts: str
    identical: bool
    same_weights: bool | None


def compare_scores(one: KnownRun, other: KnownRun) -> Scores | None:
    """Return two runs' scores side by side; None where one of them has none.

    Raises:
        SegregError: a run's scores of single images are broken.
    """
    if not one.split or not other.split:
        return None
    from segreg.runs.scored import read_scored
    from segreg.runs.trained_run import Run

    scored = [read_scored(Run(run.directory)) for run in (one, other)]
    mine, its = (each.values for each in scored)
    theirs = set(scored[1].ids)
    ids = [name for name in scored[0].ids if name in theirs]
    names = [name for name in mine if name in its]
    pairs = {name: MetricPair(name, _defined(mine[name]), _defined(its[name]), paired=False) for name in names}
    notes, reason = _notes(one, other), ""
    if ids:
        metrics, reason = _metrics(one, other, scored)
        pairs |= {pair.name: pair for pair in _paired(scored, ids, metrics) if pair.name in pairs}
    else:
        notes.append("no image was scored in both runs, so nothing is said of how sure the differences are")
    for run, has, lacks in (("A", mine, its), ("B", its, mine)):
        if alone := [name for name in has if name not in lacks]:
            notes.append(f"only {run} has {listed(alone)}")
    return Scores(
        tuple(pairs.values()), len(ids), (len(scored[0].ids), len(scored[1].ids)), tuple(notes), reason,
        _identical(one, other, scored), _same_weights(one, other),
    )  # fmt: skip


def _paired(
    scored: Sequence[Scored], ids: Sequence[str], metrics: Sequence[MetricCollection] | None
) -> Iterator[MetricPair]:
    """Return the scores that single images or their counts add up to, of these images."""
    from segreg.evaluation.statistics import SEED, interval, of_seeds, resampled
    from segreg.runs.scored import measure_of

    if metrics is None:  # then there are means over images alone
        scored = [dataclasses.replace(each, counts=None) for each in scored]
    made: Sequence[Any] = metrics or (None, None)
    measures = [measure_of([each], ids, own) for each, own in zip(scored, made, strict=True)]
    shared = [name for name in measures[0].names if name in measures[1].names]
    measures = [measure.of(*shared) for measure in measures]
    draws = resampled(measures, seed=SEED)
    sums = [of_seeds(measure)[0] for measure in measures]
    whole = all(len(each.ids) == len(ids) for each in scored)
    for column, name in enumerate(shared):
        ends = interval(draws[1, :, column] - draws[0, :, column]) if len(ids) > 1 else None
        low, high = ends or (None, None)
        # Of all images the run's own value is taken, which a sum in another order may miss by its last digit.
        one, other = (
            each.values[name] if whole else float(own[column]) for each, own in zip(scored, sums, strict=True)
        )
        yield MetricPair(name, _defined(one), _defined(other), low, high)


def _identical(one: KnownRun, other: KnownRun, scored: Sequence[Scored]) -> bool:
    import numpy as np

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
    from segreg.runs.trained_run import Run

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
    for path in ("dataset.name", "evaluate.threshold", "evaluate.resolution", "input.size", "input.resize"):
        values = [_setting(run.settings, path) for run in (one, other)]
        if values[0] != values[1]:
            notes.append(f"scored otherwise: {path} {json.dumps(values[0])} in A, {json.dumps(values[1])} in B")
    definitions = [run.results.get("definitions") or {} for run in (one, other)]
    names = [n for n in definitions[0] if n in definitions[1] and definitions[0][n] != definitions[1][n]]
    for name in names[:1]:
        more = f" (and of {len(names) - 1} more metrics)" if len(names) > 1 else ""
        notes.append(f"the definitions of {name}{more} differ: {definitions[0][name]} / {definitions[1][name]}")
    return notes


def _setting(settings: Mapping[str, Any], path: str) -> Any:
    section, name = path.split(".")
    return (settings.get(section) or {}).get(name)


def _defined(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _same_weights(one: KnownRun, other: KnownRun) -> bool | None:
    files = [run.directory.best if run.results.get("best_epoch") else run.directory.last for run in (one, other)]
    try:
        return _same_tensors(*files)
    except (OSError, ValueError, AttributeError):
        return None


def _same_tensors(one: Path, other: Path) -> bool:
    """Whether two safetensors files hold the same bytes but for their notes: 8 bytes of length, JSON, tensors."""
    with one.open("rb") as mine, other.open("rb") as its:
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

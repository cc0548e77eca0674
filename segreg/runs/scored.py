"""What finished runs were scored with, image by image, as the statistics take it."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from segreg.errors import SegregError
from segreg.evaluation.counts import read_counts
from segreg.evaluation.statistics import Measure
from segreg.runs.trained_run import Run

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torchmetrics import MetricCollection

PER_IMAGE_MEAN = ".per_image_mean"


@dataclass(frozen=True)
class Scored:
    """A run's scores on the split that its results are of.

    Attributes:
        run: the run.
        split: "test", or "val" where there is no test split.
        values: each metric by its full name; NaN where it is undefined.
        ids: of the N images.
        columns: by a metric's name its value in each image, `[N]`, NaN where it is undefined.
        counts: int64 `[N, K, 4]`, as `image_counts` has them; None for a run that did not keep them.
    """

    run: Run
    split: str
    values: Mapping[str, float]
    ids: tuple[str, ...]
    columns: Mapping[str, NDArray[np.float64]]
    counts: NDArray[np.int64] | None

    def places(self, ids: Sequence[str]) -> list[int]:
        """Return where these images stand in `ids`, `columns` and `counts`."""
        place = {identity: number for number, identity in enumerate(self.ids)}
        return [place[identity] for identity in ids]


def read_scored(run: Run) -> Scored:
    """Read a run's scores.

    Raises:
        SegregError: the run has not come to its end, or its files are damaged.
    """
    results, path = run.results, run.directory.path
    split = results.get("scored_on")
    if not split:
        raise SegregError(f"{path} was interrupted and has no scores", hint=f"segreg run --resume {path} continues")
    values = {name: np.nan if value is None else float(value) for name, value in results["metrics"][split].items()}
    rows = _rows(run)
    ids = tuple(row["id"] for row in rows)
    names = [name for name in (rows[0] if rows else ()) if name != "id"]
    try:
        columns = {name: np.array([float(row[name] or "nan") for row in rows]) for name in names}
    except (TypeError, ValueError):
        raise SegregError(f"{run.directory.per_image} does not hold the scores of images") from None
    counts = None
    if run.directory.counts.is_file():
        counted, _, counts = read_counts(run.directory.counts)
        if tuple(counted) != ids:
            raise SegregError(
                f"{run.directory.counts} and {run.directory.per_image} are not of the same images",
                hint=f"one of them was changed; segreg run --resume {path} writes both again",
            )
    return Scored(run, split, values, ids, columns, counts)


def _rows(run: Run) -> list[dict[str, Any]]:
    try:
        with run.directory.per_image.open(encoding="utf-8", newline="") as text:
            return list(csv.DictReader(text))
    except FileNotFoundError:
        path = run.directory.path
        raise SegregError(f"{path} has no per_image.csv", hint=f"segreg run --resume {path} scores it again") from None


def measure_of(seeds: Sequence[Scored], ids: Sequence[str], metrics: MetricCollection) -> Measure:
    """Return one model's scores on some images, all that single images or their counts add up to.

    Args:
        seeds: the model's runs.
        ids: the images, each of which every run was scored on.
        metrics: the recipe's.
    """
    rows = [one.places(ids) for one in seeds]
    means = [
        name
        for name in seeds[0].columns
        if all(name in one.columns and name + PER_IMAGE_MEAN in one.values for one in seeds)
    ]
    values = np.array([[one.columns[name][at] for name in means] for one, at in zip(seeds, rows, strict=True)])
    of_means = Measure.means(
        [name + PER_IMAGE_MEAN for name in means], values.reshape(len(seeds), len(means), len(ids)).transpose(0, 2, 1)
    )
    if any(one.counts is None for one in seeds):
        return of_means
    counts = np.stack([one.counts[at] for one, at in zip(seeds, rows, strict=True) if one.counts is not None])
    scorers = [
        metric.scores_of_counts for metric in metrics.values(copy_state=False) if hasattr(metric, "scores_of_counts")
    ]
    return _joined(of_means, Measure.pooled(counts, scorers, seeds[0].values))


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

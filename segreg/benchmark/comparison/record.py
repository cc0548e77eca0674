"""A comparison of models as plain values: `results.json` contains exactly this."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from segreg.benchmark.cost.record import Cost


@dataclass(frozen=True)
class Value:
    """A score of a model: the mean over its seeds, with its interval.

    Attributes:
        mean: over seeds; NaN where it is undefined.
        low: lower end of the 95% interval; None where the runs lack the counts that it needs.
        high: upper end.
        of_seeds: of each seed, in the order of `Model.seeds`.
    """

    mean: float
    low: float | None
    high: float | None
    of_seeds: tuple[float, ...]


@dataclass(frozen=True)
class Difference:
    """How a model differs from the baseline on the same images, in the compared metric.

    Attributes:
        mean: the model's minus the baseline's.
        low: lower end of the paired 95% interval.
        high: upper end.
        p: of the paired permutation test.
        p_holm: the same after Holm's correction over all models.
        significant: whether the two differ by both: `p_holm` is below 0.05 and the interval excludes 0.
    """

    mean: float
    low: float
    high: float
    p: float
    p_holm: float
    significant: bool


@dataclass(frozen=True)
class Rank:
    """A model's place among all; 1 is the best.

    Attributes:
        place: by the measured score; equal scores share the mean of their places.
        low: lower end of the 95% interval over resamples.
        high: upper end.
        best: share of resamples in which it was the best.
    """

    place: float
    low: float
    high: float
    best: float


@dataclass(frozen=True)
class Fold:
    """A run of a fold.

    Attributes:
        fold: the fold's number, from 0.
        run: its directory.
        value: the compared metric of the fold's images.
    """

    seed: int
    fold: int
    run: str
    value: float


@dataclass(frozen=True)
class Model:
    """A model, trained with one or several seeds.

    Attributes:
        name: what distinguishes it from the others, such as "resnet18, dice_bce".
        settings: the same by recipe path, as strings: {"encoder": "resnet18"}.
        runs: directory of each seed's run, or of each seed's and fold's.
        values: each metric of the test images, or of all folds', by its full name such as "dice.pooled".
        difference: to the baseline; None for the baseline itself and where there is nothing to compare by.
        rank: None where there is nothing to rank by.
        costs: by name, see `segreg.benchmark.cost.record.DEFINITIONS`.
        best_epochs: of each run, the epoch whose weights were scored.
        curves: each run's history: by column its values, one for each epoch (NaN where undefined).
        per_image: the compared metric in each of `Comparison.images`, mean over seeds, NaN where it is undefined.
        folds: each of `runs` where they are of folds, and `values` are out of fold.
    """

    name: str
    settings: Mapping[str, str]
    runs: tuple[str, ...]
    seeds: tuple[int, ...]
    values: Mapping[str, Value]
    difference: Difference | None = None
    rank: Rank | None = None
    costs: Mapping[str, Cost] = field(default_factory=dict)
    best_epochs: tuple[int, ...] = ()
    curves: tuple[Mapping[str, Sequence[float]], ...] = ()
    per_image: tuple[float, ...] = ()
    folds: tuple[Fold, ...] = ()


@dataclass(frozen=True)
class Failure:
    """A run that did not finish.

    Attributes:
        name: the model's.
        reason: one sentence or more.
        run: its directory; empty where it has none.
        fold: its fold, where it has one.
    """

    name: str
    seed: int
    reason: str
    run: str = ""
    fold: int | None = None

    @property
    def title(self) -> str:
        """Return what it is called in messages."""
        return f"{self.name}, seed {self.seed}" + ("" if self.fold is None else f", fold {self.fold}")


@dataclass(frozen=True, repr=False)
class Comparison:
    """Models side by side.

    Attributes:
        title: what is compared.
        metric: full name of the compared metric, such as "dice.per_image_mean".
        higher_is_better: whether larger values of it are.
        baseline: name of the model that the others are compared with.
        classes: of the task, in index order.
        images: ids of the images that all were scored on.
        models: the best first, by the compared metric.
        failures: runs that did not finish.
        definitions: one sentence for each metric and cost.
        verdict: which models differ significantly and which don't, in sentences.
        notices: what must not be overlooked.
        method: how intervals, tests and ranks were computed, in sentences.
        waiting: planned runs that have not finished.
        best: name of the model that is significantly better than every other; empty where there is none.
    """

    title: str
    metric: str
    higher_is_better: bool
    baseline: str
    classes: tuple[str, ...]
    images: tuple[str, ...]
    models: tuple[Model, ...]
    failures: tuple[Failure, ...]
    definitions: Mapping[str, str]
    verdict: tuple[str, ...]
    notices: tuple[str, ...]
    method: tuple[str, ...]
    waiting: int = 0
    best: str = ""

    def as_data(self) -> dict[str, Any]:
        return asdict(self)

    def widest(self) -> list[tuple[int, float]]:
        """Return the place of each image in which two or more models have a value, and their largest difference there.

        The largest comes first.
        """
        found: list[tuple[int, float]] = []
        for place in range(len(self.images)):
            values = [model.per_image[place] for model in self.models if model.per_image]
            values = [value for value in values if math.isfinite(value)]
            if len(values) > 1:
                found.append((place, max(values) - min(values)))
        return sorted(found, key=lambda item: (-item[1], item[0]))

    def __repr__(self) -> str:
        return f"<Comparison of {len(self.models)} models by {self.metric}: {', '.join(m.name for m in self.models)}>"

    def _repr_html_(self) -> str:
        """Return what a notebook shows: the models, the best first, with the compared metric, and the verdict."""
        from html import escape

        rows = [
            f"<tr><td>{escape(model.name)}</td><td>{model.values[self.metric].mean:.4f}</td></tr>"
            for model in self.models
            if self.metric in model.values
        ]
        sentences = "".join(f"<p>{escape(text)}</p>" for text in (*self.notices, *self.verdict))
        return f"<table><tr><th>model</th><th>{escape(self.metric)}</th></tr>{''.join(rows)}</table>{sentences}"


@dataclass(frozen=True)
class Disagreement:
    """An image on which models disagree. Images are the bytes of PNG or JPEG files.

    Attributes:
        image: the image itself, with its truth drawn into or beside it where `truth` is None.
        predictions: the image with a model's prediction drawn into it, by the model's name.
        values: the compared metric of this image, by the model's name; NaN where it is undefined.
        truth: the image with its truth drawn into it.
    """

    id: str
    image: bytes
    predictions: Mapping[str, bytes]
    values: Mapping[str, float]
    truth: bytes | None = None

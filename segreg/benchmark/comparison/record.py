"""What is known of models side by side, as plain values: `results.json` holds exactly this."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Value:
    """A score of a model: the mean over its seeds, and how far it may be off.

    Attributes:
        mean: over seeds; NaN where it is undefined.
        low: lower end of the 95% interval; None where the runs don't hold what it is made of.
        high: upper end.
        of_seeds: each seed's own, in the order of `Model.seeds`.
    """

    mean: float
    low: float | None
    high: float | None
    of_seeds: tuple[float, ...]


@dataclass(frozen=True)
class Difference:
    """How a model differs from the baseline on the same images, in the compared metric.

    Attributes:
        mean: the model's less the baseline's.
        low: lower end of the paired 95% interval.
        high: upper end.
        p: of the paired permutation test.
        p_holm: the same after Holm's correction over all models.
        apart: whether both say that the two differ: `p_holm` is below 0.05 and the interval leaves out 0.
    """

    mean: float
    low: float
    high: float
    p: float
    p_holm: float
    apart: bool


@dataclass(frozen=True)
class Rank:
    """A model's place among all; 1 is the best.

    Attributes:
        place: by the score as it was measured; equal scores share the mean of their places.
        low: lower end of the 95% interval over resamples.
        high: upper end.
        best: share of resamples in which it was the best.
    """

    place: float
    low: float
    high: float
    best: float


@dataclass(frozen=True)
class Cost:
    """What something of a model costs: the median of several measurements, with the smallest and the largest.

    Attributes:
        median: in `unit`.
        low: the smallest.
        high: the largest; the same where it was counted rather than measured.
        unit: such as "images/s"; empty for a plain number.
    """

    median: float
    low: float
    high: float
    unit: str


@dataclass(frozen=True)
class Model:
    """One way to solve the task, trained with one or several seeds.

    Attributes:
        name: what tells it from the others, such as "resnet18, dice_bce".
        settings: the same by recipe path, as text: {"encoder": "resnet18"}.
        runs: directory of each seed's run.
        seeds: their seeds.
        values: each metric of the test images, by its full name such as "dice.pooled".
        difference: to the baseline; None for the baseline itself and where there is nothing to compare by.
        rank: None where there is nothing to rank by.
        costs: by name, see `segreg.benchmark.cost.definitions.DEFINITIONS`.
        best_epochs: of each seed, the epoch whose weights were scored.
        curves: each seed's history: by column its values, an entry an epoch (NaN where undefined).
        per_image: the compared metric in each of `Comparison.images`, mean over seeds, NaN where it is undefined.
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


@dataclass(frozen=True)
class Failure:
    """A run that did not come to its end.

    Attributes:
        name: the model's.
        seed: its seed.
        reason: one sentence or more.
        run: its directory; empty where it has none.
    """

    name: str
    seed: int
    reason: str
    run: str = ""


@dataclass(frozen=True)
class Comparison:
    """Models side by side.

    Attributes:
        title: what is compared.
        metric: full name of the compared metric, such as "dice.per_image_mean".
        higher_is_better: whether larger values of it are.
        baseline: name of the model that the others are told against.
        classes: of the task, in index order.
        images: ids of the images that all were scored on.
        models: the best first, by the compared metric.
        failures: what did not come to its end.
        definitions: one sentence for each metric and cost.
        verdict: what can be significantly different and what can't, in sentences.
        notices: what must not be overlooked.
        method: how intervals, tests and ranks were made, in sentences.
        waiting: runs that are planned and not yet finished.
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

    def as_data(self) -> dict[str, Any]:
        """Return the same as JSON holds it."""
        from dataclasses import asdict

        return asdict(self)

"""The named values of an epoch: which there are, which way is better, and which one chooses the best checkpoint."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from segreg.errors import SegregError, did_you_mean, listed
from segreg.evaluation.distributed import compute

if TYPE_CHECKING:
    from torchmetrics import MetricCollection

TOTAL = "loss"
"""The name of the weighted total among a loss's terms."""


@dataclass(frozen=True)
class Monitor:
    """A value's name and its direction."""

    name: str
    larger_is_better: bool

    def oriented(self, values: Mapping[str, float]) -> float:
        """Return the value so that larger is better; NaN where it is not defined."""
        value = values[self.name]
        return value if self.larger_is_better else -value

    def plain(self, oriented: float) -> float:
        """Return back what `oriented` turned."""
        return oriented if self.larger_is_better else -oriented


def better(value: float, best: float | None) -> bool:
    """Whether an oriented value exceeds the best so far. NaN never does; the first value that is none does."""
    return not math.isnan(value) and (best is None or value > best)


def choose_monitor(name: str, directions: Mapping[str, bool | None]) -> Monitor:
    """Return the monitor of that name.

    Args:
        name: as a recipe has it, such as `val.loss`.
        directions: for every value that an epoch gives, whether larger is better; None where it can't be said.

    Raises:
        SegregError: there is no such value, or it has no direction.
    """
    if name not in directions:
        close = did_you_mean(name, directions)
        known = listed([known for known, direction in directions.items() if direction is not None], most=40)
        raise SegregError(
            f'train.monitor: an epoch gives no value "{name}"',
            hint="\n".join(filter(None, (close, f"there are {known}"))),
        )
    if (direction := directions[name]) is None:
        raise SegregError(
            f'train.monitor: "{name}" does not say whether larger is better',
            hint="a metric says so by its attribute higher_is_better",
        )
    return Monitor(name, direction)


def metric_directions(metrics: MetricCollection) -> dict[str, bool | None]:
    """Return for every value of metrics that have seen an image whether larger is better."""
    larger: dict[str, bool | None] = {}
    for name, metric in metrics.items():
        given = metric.compute()
        # Where two metrics give the same name, the collection puts the metric's own before it.
        keys = [key for k in given for key in (k, f"{name}_{k}")] if isinstance(given, Mapping) else [name]
        larger |= dict.fromkeys(keys, metric.higher_is_better)
    return {name: larger.get(name) for name in compute(metrics)}


def named(side: str, losses: Mapping[str, float]) -> dict[str, float]:
    """Return losses as the history names them: "val.loss" for the total, "val.loss.dice" for a term."""
    many = len(losses) > 2
    return {
        f"{side}.loss" if name == TOTAL else f"{side}.loss.{name}": value
        for name, value in losses.items()
        if many or name == TOTAL
    }

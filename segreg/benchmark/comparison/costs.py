"""Put what models cost beside how good they are."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from statistics import median

from segreg.benchmark.comparison.record import Comparison, Cost, Model
from segreg.benchmark.cost.definitions import DEFINITIONS

TO_BEST = "seconds_to_best_epoch"
_OF_RUNS = {
    TO_BEST: "time from the beginning of training to the end of the epoch whose weights were chosen, validation and "
    "writing included; the median of the seeds, as the runs went and on what they ran on",
}


def with_costs(comparison: Comparison, measured: Mapping[str, Mapping[str, Cost]], method: Sequence[str]) -> Comparison:
    """Return the comparison with its models' costs.

    Args:
        comparison: without them.
        measured: by a model's name its costs by name.
        method: how they were measured, in sentences.
    """
    models = [
        dataclasses.replace(model, costs={**measured.get(model.name, {}), **_of_runs(model)})
        for model in comparison.models
    ]
    there = dict.fromkeys(name for model in models for name in model.costs)
    sentences = {name: definition.sentence for name, definition in DEFINITIONS.items()} | _OF_RUNS
    told = {name: sentences[name] for name in there if name in sentences}
    return dataclasses.replace(
        comparison,
        models=tuple(models),
        definitions={**comparison.definitions, **told},
        method=(*comparison.method, *(f"Costs: {sentence}." for sentence in method)),
    )


def _of_runs(model: Model) -> dict[str, Cost]:
    took = [
        seconds for curve, best in zip(model.curves, model.best_epochs, strict=True) if (seconds := _until(curve, best))
    ]
    return {TO_BEST: Cost(median(took), min(took), max(took), "s")} if took else {}


def _until(curve: Mapping[str, Sequence[float]], best: int) -> float:
    seconds = list(curve.get("seconds", ()))[:best]
    return 0.0 if any(math.isnan(value) for value in seconds) else sum(seconds)

"""Compare runs that exist, with what their models cost."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from segreg.benchmark.comparison.compare import compare
from segreg.benchmark.comparison.costs import with_costs
from segreg.benchmark.comparison.disagreement_record import Disagreement
from segreg.benchmark.comparison.disagreements import drawn_disagreements
from segreg.benchmark.comparison.record import Comparison, Cost
from segreg.benchmark.comparison.run_groups import RunGroup
from segreg.errors import SegregError
from segreg.runs.trained_run import Run
from segreg.runtime.progress import Progress


def compare_runs(
    groups: Sequence[RunGroup],
    *,
    metric: str,
    baseline: str,
    rounds: int,
    progress: Progress,
) -> tuple[Comparison, list[Disagreement]]:
    """Return the comparison and the images on which the models disagree.

    Args:
        groups: the models with their runs.
        metric: to compare by; empty: the first one.
        baseline: name of the model that the others are told against; empty: the first.
        rounds: how often each model's costs are measured; 0: not at all.
        progress: is told what happens.

    Raises:
        SegregError: the runs can't be compared.
    """
    comparison = compare(groups, title="runs side by side", metric=metric, baseline=baseline)
    measured, method = _costs(groups, rounds, progress)
    return with_disagreements(with_costs(comparison, measured, method), groups, progress)


def with_disagreements(
    comparison: Comparison, groups: Sequence[RunGroup], progress: Progress
) -> tuple[Comparison, list[Disagreement]]:
    """Return the comparison and the images on which the models disagree.

    Where the images can't be read any more, the comparison says so and goes without.
    """
    try:
        drawn = drawn_disagreements(comparison, {one.name: one.runs[0] for one in groups}, progress)
    except SegregError as error:
        drawn = []
        notice = f"The images on which models disagree are not shown: {error.problems[0].message}"
        comparison = dataclasses.replace(comparison, notices=(*comparison.notices, notice))
    return comparison, drawn


def _costs(
    groups: Sequence[RunGroup], rounds: int, progress: Progress
) -> tuple[Mapping[str, Mapping[str, Cost]], list[str]]:
    if not rounds:
        return {}, []
    from segreg.benchmark.cost.record import Subject
    from segreg.benchmark.cost.running import measure

    subjects: dict[str, Subject] = {}
    for one in groups:
        run: Run = one.runs[0]
        subjects[one.name] = Subject.of(run.recipe, run.task)
    found = measure(subjects, rounds=rounds, progress=progress)
    failed = [f"{name} could not be measured: {one.reason}" for name, one in found.of.items() if one.reason]
    return {name: one.costs for name, one in found.of.items()}, [*found.in_words(), *failed]

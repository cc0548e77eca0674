"""Memory and costs of a bench's models: checked before the first run, measured after the last, kept in its folder."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict

from segreg.benchmark.bench.board import progress_of
from segreg.benchmark.bench.folder import BenchFolder, content
from segreg.benchmark.bench.trials import Trial
from segreg.benchmark.cost import running
from segreg.benchmark.cost.record import Cost, NetworkSpec
from segreg.models import build
from segreg.runs.assembly import split_of
from segreg.runtime.files import write_json
from segreg.runtime.progress import Progress, Quiet
from segreg.task import Task

Costs = tuple[Mapping[str, Mapping[str, Cost]], Sequence[str]]
"""Each model's costs by name, by the model's key; and how they were measured, in sentences."""


def check(trials: Sequence[Trial], *, jobs: int, progress: Progress) -> Iterator[tuple[str, str]]:
    """Build the network of each model, and run a training step of its size; `jobs` runs share the memory.

    Returns:
        an iterator of each model's key and why it can't be built, trained or kept in memory; empty where it can.

    Raises:
        SegregError: the data can't be read.
    """
    if not trials:
        return
    names = {trial.key: trial.model for trial in trials}
    specs = specs_of(trials)
    with progress.watch("checking that every model trains", len(specs), "models") as advance:
        for key, spec in specs.items():
            yield key, running.check_memory(spec, jobs=jobs)
            advance(note=names[key])


def costs_of(trials: Sequence[Trial], folder: BenchFolder, *, rounds: int, progress: Progress) -> Costs:
    """Return the models' costs; all are measured together, in so many rounds at most, unless all are known."""
    keys = {trial.key for trial in trials}
    if known := _known(folder, keys):
        return known
    if not rounds or not trials:
        return {}, ()
    specs = specs_of(trials)
    found = running.measure({trial.model: specs[trial.key] for trial in trials}, rounds=rounds, progress=progress)
    of, method = {trial.key: found.of[trial.model].costs for trial in trials}, found.method()
    trained = sum(progress_of(trial, folder).seconds for trial in trials)
    share = f"measuring took {found.took:.0f} s, {found.took / (found.took + trained):.0%} of it and the training"
    progress.say(f"{share}; --no-cost leaves it out")
    method = [*method, share]
    plain = {key: {name: asdict(cost) for name, cost in costs.items()} for key, costs in of.items()}
    write_json(folder.costs, {"of": plain, "method": method})
    return of, method


def specs_of(trials: Sequence[Trial]) -> dict[str, NetworkSpec]:
    """Return each model's network by its key, for the task of its data.

    Raises:
        SegregError: a data set can't be read, or its split leaves no training images.
    """
    tasks: dict[str, Task] = {}
    found = {}
    for trial in trials:
        if trial.key in found:
            continue
        plain = trial.recipe.plain()
        data = json.dumps([plain["dataset"], plain["split"]], sort_keys=True)
        if data not in tasks:
            tasks[data] = _task(trial)
        found[trial.key] = NetworkSpec.of(trial.recipe, tasks[data])
    return found


def _task(trial: Trial) -> Task:
    dataset = build.build_dataset(trial.recipe)
    split_of(trial.recipe, dataset, Quiet())
    return dataset.task


def _known(folder: BenchFolder, keys: set[str]) -> Costs | None:
    found = content(folder.costs)
    try:
        of = {key: {name: Cost(**cost) for name, cost in found["of"][key].items()} for key in keys}
        return of, tuple(found["method"])
    except (AttributeError, KeyError, TypeError):
        return None

"""Memory and costs of a bench's models: checked before the first run, measured after the last, kept in its folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from segreg.benchmark.bench.folder import BenchFolder, content, locked
from segreg.benchmark.bench.trials import Trial
from segreg.benchmark.cost import running
from segreg.benchmark.cost.record import Cost, NetworkSpec
from segreg.runtime.files import write_json
from segreg.runtime.progress import Progress
from segreg.task import Task

_LONGEST_MEASUREMENT = 6 * 3600.0

Costs = tuple[Mapping[str, Mapping[str, Cost]], Sequence[str]]
"""Each model's costs by name, by the model's key; and how they were measured, in sentences."""


def check(trials: Sequence[Trial], folder: BenchFolder, *, jobs: int, progress: Progress) -> None:
    """Build the network of each model with unfinished runs, and run a training step of its size.

    A model that can't be built, trained or kept in memory has its runs recorded as failed; the others continue. A model
    that passed is not checked again.

    Args:
        trials: the bench's runs.
        folder: the bench's.
        jobs: runs at the same time, which share the memory.
        progress: reports how far it is.

    Raises:
        SegregError: the data can't be read.
    """
    file = folder.path / "checked.json"
    ahead = [trial for trial in trials if folder.state(trial) in ("waiting", "stopped")]
    specs = specs_of(ahead)
    models = [key for key in specs if content(file).get(key, 0) < jobs]
    if not models:
        return
    with progress.watch("checking that every model trains", len(models), "models") as advance:
        for key in models:
            reason = running.check_memory(specs[key], jobs=jobs)
            mine = [trial for trial in ahead if trial.key == key]
            if reason:
                for trial in mine:
                    folder.fail(trial.name, f"not started: {reason}")
            else:
                write_json(file, {**content(file), key: jobs})
            advance(note=mine[0].model)


def costs_of(trials: Sequence[Trial], folder: BenchFolder, *, rounds: int, progress: Progress) -> Costs:
    """Return the models' costs; all are measured together unless all are known.

    Args:
        trials: a run of each model.
        folder: the bench's. It is locked while costs are measured, so that processes don't disturb each other.
        rounds: how often each model is measured; 0 measures nothing.
        progress: reports how far it is.
    """
    keys = {trial.key for trial in trials}
    if known := _known(folder, keys):
        return known
    if not rounds or not trials:
        return {}, ()
    with locked(folder.path / "measure.lock", wait=_LONGEST_MEASUREMENT):
        if known := _known(folder, keys):
            return known
        specs = specs_of(trials)
        found = running.measure({trial.model: specs[trial.key] for trial in trials}, rounds=rounds, progress=progress)
        of, method = {trial.key: found.of[trial.model].costs for trial in trials}, found.method()
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
    from segreg.data import divide
    from segreg.models import build

    dataset = build.build_dataset(trial.recipe)
    divide(dataset, trial.recipe.split)
    return dataset.task


def _known(folder: BenchFolder, keys: set[str]) -> Costs | None:
    found = content(folder.costs)
    try:
        of = {key: {name: Cost(**cost) for name, cost in found["of"][key].items()} for key in keys}
        return of, tuple(found["method"])
    except (AttributeError, KeyError, TypeError):
        return None

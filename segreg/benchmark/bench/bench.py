"""A bench from plan to page: checked, every run finished, costs measured, all of it compared."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, TextIO

import torch

from segreg.benchmark.bench.board import board
from segreg.benchmark.bench.costs import check, costs_of
from segreg.benchmark.bench.folder import BenchFolder, content
from segreg.benchmark.bench.local import run_locally
from segreg.benchmark.bench.plan import Plan, baseline_of
from segreg.benchmark.bench.trials import Trial, combinations, format_settings
from segreg.benchmark.comparison.compare import RunGroup, chosen_metric, compare
from segreg.benchmark.comparison.record import Comparison, Disagreement, Failure
from segreg.benchmark.comparison.runs import with_costs, with_disagreements
from segreg.benchmark.comparison.text import AGAIN
from segreg.benchmark.cost.running import ROUNDS
from segreg.benchmark.earlier import with_data_of
from segreg.benchmark.monitor import directions_of_scores
from segreg.config.resolve import Resolved
from segreg.errors import SegregError, listed
from segreg.models.build import build_dataset
from segreg.runs.trained_run import Run
from segreg.runtime.files import write_json
from segreg.runtime.lock import locked_folder
from segreg.runtime.progress import Progress

Executor = Literal["local", "ray"]


def bench(
    plan: Plan, trials: Sequence[Trial], folder: BenchFolder, *, jobs: int = 1, executor: Executor = "local",
    resources: Mapping[str, float] | None = None, retries: int = 2, rounds: int = ROUNDS, again: bool = False,
    progress: Progress, stream: TextIO, mode: Literal["auto", "lines", "quiet"],
) -> tuple[Comparison, list[Disagreement]]:  # fmt: skip
    """Run a bench, or continue it; return the comparison and the images on which the models disagree.

    Args:
        plan: what to compare.
        trials: its runs.
        folder: the bench's; finished runs in it don't run again.
        jobs: runs at the same time on this machine.
        executor: `local` runs on this machine, `ray` on a Ray cluster.
        resources: of a cluster for each run: `cpus`, `gpus`, `memory_gib`.
        retries: how often a run whose cluster worker was lost is started again.
        rounds: how often each network's costs are measured at most; 0: not at all.
        again: whether failed runs start again.
        progress: reports everything but the runs.
        stream: for the state of the runs.
        mode: of that; see `board`.

    Raises:
        SegregError: another process works on the bench, the data is wrong, or no run finished.
    """
    folder.make()
    with locked_folder(folder.path, "bench"):
        _check_comparable(plan, trials)
        prepare(trials, folder, again=again)
        for line in skipped(trials, folder):
            progress.say(line)
        _check(trials, folder, jobs=jobs, progress=progress)
        with board(trials, folder, stream, mode) as refresh:
            if executor == "ray":
                from segreg.benchmark.bench.ray import run_on_ray

                run_on_ray(trials, folder, resources=resources or {}, retries=retries, refresh=refresh)
            else:
                run_locally(trials, folder, jobs=jobs, gpus=_gpus(trials), refresh=refresh)
        return compared(plan, trials, folder, rounds, progress)


def look(plan: Plan, trials: Sequence[Trial], folder: BenchFolder, *, jobs: int, progress: Progress) -> list[str]:
    """Check the models of unfinished runs; return what is wrong with them, a line for each.

    Nothing is written, so that what it finds today says nothing of a bench tomorrow.

    Raises:
        SegregError: the data is wrong, or the runs can't be compared by the plan's metric.
    """
    _check_comparable(plan, trials)
    ahead = [trial for trial in trials if folder.state(trial) != "finished"]
    titles = {trial.key: trial.model for trial in ahead}
    found = check(ahead, jobs=_sharing(ahead, jobs), progress=progress)
    return [f"{titles[key] or 'the recipe'}: {reason}" for key, reason in found if reason]


def _check_comparable(plan: Plan, trials: Sequence[Trial]) -> None:
    """Refuse models that can't be compared in the end: by the plan's metric, or since their data are too different."""
    if plan.metric:
        for trial in _unlike(trials, lambda recipe: [metric.plain() for metric in recipe.metrics]):
            chosen_metric(plan.metric, directions_of_scores(trial.recipe))
    one, *others = _unlike(trials, lambda recipe: recipe.dataset.plain())
    first = build_dataset(one.recipe) if others else None
    for other in others:
        dataset = build_dataset(other.recipe)
        assert first is not None
        if dataset.task != first.task:
            what = "other classes"
        elif {sample.id for sample in dataset.samples}.isdisjoint(sample.id for sample in first.samples):
            what = "no image in common"
        else:
            continue
        raise SegregError(
            f'"{one.model}" and "{other.model}" can\'t be compared: their data sets have {what}',
            hint="a bench for each data set compares its own models",
        )


def _unlike(trials: Sequence[Trial], part: Callable[[Resolved], Any]) -> list[Trial]:
    """Return the first trial with each value of a part of its recipe."""
    found: dict[str, Trial] = {}
    for trial in trials:
        found.setdefault(json.dumps(part(trial.recipe), sort_keys=True), trial)
    return list(found.values())


def prepare(trials: Sequence[Trial], folder: BenchFolder, *, again: bool) -> None:
    """Write each run's recipe into the folder; with `again` forget that runs failed."""
    for trial in trials:
        if again:
            folder.failure(trial.name).unlink(missing_ok=True)
        folder.write_recipe(trial.name, trial.recipe)


def skipped(trials: Sequence[Trial], folder: BenchFolder) -> list[str]:
    """Return which runs don't start since they have failed before, and which don't count any more, as lines."""
    lines = [f"skipped: {trial.title} failed: {folder.reason(trial)}" for trial in trials
             if folder.state(trial) == "failed"]  # fmt: skip
    lines += [AGAIN] if lines else []
    for key, model in {trial.key: trial.model for trial in trials}.items():
        if runs := folder.of_other_sources(key):
            lines.append(f"not counted, since the source of a plugin was another: {model} in {listed(runs, quote='')}")
    return lines


def _check(trials: Sequence[Trial], folder: BenchFolder, *, jobs: int, progress: Progress) -> None:
    """Check the models of unfinished runs that have not passed; record the runs of those that don't pass as failed."""
    file = folder.path / "checked.json"
    passed = content(file)
    ahead = [one for one in trials if folder.state(one) in ("waiting", "stopped")]
    sharing = _sharing(ahead, jobs)
    unchecked = [one for one in ahead if passed.get(one.key, 0) < sharing]
    for key, reason in check(unchecked, jobs=sharing, progress=progress):
        if not reason:
            passed[key] = sharing
            write_json(file, passed)
            continue
        for trial in ahead:
            if trial.key == key:
                folder.fail(trial.name, f"not started: {reason}")


def _gpus(trials: Sequence[Trial]) -> list[str]:
    """Return the GPUs to distribute among the runs, as CUDA_VISIBLE_DEVICES names them.

    None where a recipe chooses its device.
    """
    if any(trial.recipe.train.device not in ("auto", "cuda") for trial in trials):
        return []
    count, visible = torch.cuda.device_count(), os.environ.get("CUDA_VISIBLE_DEVICES")
    return [name.strip() for name in (visible.split(",") if visible else map(str, range(count)))][:count]


def _sharing(trials: Sequence[Trial], jobs: int) -> int:
    """Return how many of these runs share the memory of a GPU, or the machine's."""
    together = min(jobs, len(trials))
    return 1 if together < 2 else -(-together // max(1, len(_gpus(trials))))


def compared(
    plan: Plan, trials: Sequence[Trial], folder: BenchFolder, rounds: int, progress: Progress
) -> tuple[Comparison, list[Disagreement]]:
    """Compare the finished runs; return the comparison and the images on which the models disagree.

    Raises:
        SegregError: no run finished, or the runs can't be compared.
    """
    states = {trial.name: folder.state(trial) for trial in trials}
    done = [trial for trial in trials if states[trial.name] == "finished"]
    failed = [trial for trial in trials if states[trial.name] == "failed"]
    if not done:
        reasons = "\n".join(f"{trial.title}: {folder.reason(trial)}" for trial in failed)
        raise SegregError(f"no run finished\n{reasons}", hint=f"the logs are in {folder.trials}; {AGAIN}")
    seeds: dict[str, list[Trial]] = {}
    for trial in done:
        seeds.setdefault(trial.key, []).append(trial)
    groups = []
    for one in seeds.values():
        runs = tuple(with_data_of(trial.recipe.plain(), Run(folder.run(trial))) for trial in one)
        groups.append(RunGroup(one[0].model or "the recipe", one[0].settings, runs))
    base = baseline_of(plan, combinations(plan))
    first = next((trial.model for trial in trials if trial.settings == format_settings(base)), "")
    names = [one.name for one in groups]
    comparison = compare(
        groups,
        title=f"{plan.name}: {' and '.join(plan.vary) or ('folds' if plan.folds else 'seeds')}",
        metric=plan.metric,
        baseline=first if first in names else "",
        failures=[
            Failure(trial.model, trial.seed, folder.reason(trial), str(folder.run(trial).path), trial.fold)
            for trial in failed
        ],
        waiting=len(trials) - len(done) - len(failed),
    )
    if first and first not in names:
        notice = f"{first} has no finished run; the baseline is {comparison.baseline} in its place."
        comparison = replace(comparison, notices=(*comparison.notices, notice))
    of, method = costs_of(done, folder, rounds=rounds, progress=progress)
    by_name = {one[0].model: of.get(key, {}) for key, one in seeds.items()}
    return with_disagreements(with_costs(comparison, by_name, method), groups, progress)

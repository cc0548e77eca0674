"""The runs of a bench, each by the name that the bench's folder has for it."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

from segreg.benchmark.bench.folder import BenchFolder
from segreg.benchmark.bench.plan import Plan
from segreg.benchmark.bench.trials import SOURCE, Trial, trials_of
from segreg.benchmark.earlier import completed, differences, same_data
from segreg.config.diff import in_short
from segreg.config.recipe import read_recipe
from segreg.errors import SegregError, listed
from segreg.registry.registry import Registry
from segreg.runs.directory import RunDirectory
from segreg.runtime.progress import Progress

_KEY = rf"(?P<words>.*)_[0-9a-f]{{8}}(?P<source>_{SOURCE}[0-9a-f]{{8}})?"
_STEM = re.compile(rf"(?P<key>{_KEY})_seed-\d+(?P<fold>_fold-\d+)?")
_MOST = 4
"""Differences that are named of a model whose runs don't count."""


def trials_in(folder: BenchFolder, plan: Plan, registry: Registry, progress: Progress) -> list[Trial]:
    """Return the runs of a bench; a model that the folder has by an earlier key has that one.

    A key is a digest of the complete recipe, which is another where the project has moved or segreg was upgraded. Which
    runs don't count, since their recipes differ in more, is reported.

    Raises:
        SegregError: as `trials_of`.
    """
    of_models: dict[str, list[Trial]] = {}
    for trial in (trials := trials_of(plan, registry)):
        of_models.setdefault(trial.key, []).append(trial)
    stored = _stored(folder)
    there = {key for recipes in stored.values() for key in recipes}
    keys: dict[str, str] = {}
    unlike: dict[str, tuple[str, str]] = {}
    for key, of_model in of_models.items():
        for earlier, file in {} if key in there else stored.get(_called(of_model[0]), {}).items():
            different = None if earlier in of_models else _differences(of_model, earlier, file, folder, registry)
            if different:
                unlike[earlier] = of_model[0].model or "the recipe", different
            elif different is not None:
                keys[key] = earlier
                break
    lines: dict[str, list[str]] = {}
    for earlier, (model, different) in unlike.items():
        if earlier not in keys.values():
            lines.setdefault(different, []).append(f"{model} in {folder.runs / earlier}")
    for different, models in lines.items():
        progress.say(f"not counted, since the recipe was another ({different}): {listed(models, quote='')}")
    return [dataclasses.replace(trial, key=keys.get(trial.key, trial.key)) for trial in trials]


def _called(trial: Trial) -> tuple[str, str | None, bool]:
    """Return what two keys of one model have in common."""
    key = re.fullmatch(_KEY, trial.key)
    assert key is not None
    return key["words"], key["source"], trial.fold is not None


def _stored(folder: BenchFolder) -> dict[tuple[str, str | None, bool], dict[str, Path]]:
    """Return a recipe for each key in a folder, by `_called`."""
    found: dict[tuple[str, str | None, bool], dict[str, Path]] = {}
    for file in sorted(folder.trials.glob("*.yaml")):
        if stem := _STEM.fullmatch(file.stem):
            found.setdefault((stem["words"], stem["source"], bool(stem["fold"])), {}).setdefault(stem["key"], file)
    return found


def _differences(of_model: list[Trial], key: str, file: Path, folder: BenchFolder, registry: Registry) -> str | None:
    """Return what a model's earlier recipe differs in; None where it has begun none of these runs, or can't be read."""
    begun = [(trial, run) for trial in of_model
             if (run := RunDirectory(folder.runs / key / trial.place)).environment.exists()]  # fmt: skip
    if not begun:
        return None
    trial, run = begun[0]
    try:
        then: dict[str, Any] = {**completed(read_recipe(file), registry), "seed": trial.seed}
    except SegregError:
        return None
    if trial.fold is not None:
        then["split"] = {**then["split"], "fold": trial.fold}
    found = differences(then, trial.recipe, lambda: same_data(trial.recipe, run))
    words = [f"{one.path}: {in_short(one.one)}, now {in_short(one.other)}" for one in found]
    return listed(words, most=_MOST, quote="")

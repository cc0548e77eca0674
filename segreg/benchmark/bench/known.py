"""The runs of a bench, each by the name that the bench's folder has for it."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from segreg.benchmark.bench.folder import BenchFolder
from segreg.benchmark.bench.plan import Plan
from segreg.benchmark.bench.trials import SOURCE, Trial, trials_of
from segreg.benchmark.earlier import completed, differences
from segreg.config.diff import in_short
from segreg.config.recipe import read_recipe
from segreg.errors import SegregError, listed
from segreg.registry.registry import Registry
from segreg.runs.directory import RunDirectory
from segreg.runtime.progress import Progress

_KEY = re.compile(rf"(.*)_[0-9a-f]{{8}}(_{SOURCE}[0-9a-f]{{8}})?")
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
    others: dict[tuple[str, ...], list[str]] = {}
    there = {each.name for each in folder.runs.glob("*")}
    for key in sorted(there - of_models.keys()):
        others.setdefault(_called(key), []).append(key)
    keys: dict[str, str] = {}
    unlike: dict[str, str] = {}
    for key, of_model in of_models.items():
        for earlier in others.get(_called(key), ()) if key not in there else ():
            different = _differences(of_model, folder.runs / earlier, registry)
            if different:
                unlike[earlier] = f"{of_model[0].model or 'the recipe'} in {folder.runs / earlier} ({different})"
            elif different is not None:
                keys[key] = earlier
                break
    for earlier, what in unlike.items():
        if earlier not in keys.values():
            progress.say(f"not counted, since the recipe was another: {what}")
    return [dataclasses.replace(trial, key=keys.get(trial.key, trial.key)) for trial in trials]


def _called(key: str) -> tuple[str, ...]:
    """Return what all keys of a model have in common: its name, and the source of its plugins."""
    found = _KEY.fullmatch(key)
    return found.groups("") if found else (key,)


def _differences(of_model: list[Trial], earlier: Path, registry: Registry) -> str | None:
    """Return what the recipe in an earlier folder of a model differs in; None where no such run has begun there."""
    from segreg.runs.assembly import is_data_of

    for trial in of_model:
        run = RunDirectory(earlier / trial.place)
        if run.environment.exists():
            break
    else:
        return None
    try:
        then = completed(read_recipe(run.recipe), registry)
    except SegregError:
        return None
    found = differences(then, trial.recipe, lambda: is_data_of(trial.recipe, run))
    words = [f"{one.path}: {in_short(one.one)}, now {in_short(one.other)}" for one in found]
    return listed(words, most=_MOST, quote="")

"""Groups of runs: runs whose recipes differ only in the seed are one model."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from segreg.config.diff import distinguishing, label_of
from segreg.config.recipe import read_recipe
from segreg.errors import SegregError, listed
from segreg.runs.trained_run import Run


@dataclass(frozen=True)
class RunGroup:
    """A model to compare.

    Attributes:
        name: its name.
        settings: what distinguishes it from the others, by recipe path.
        runs: its finished runs, one a seed.
    """

    name: str
    settings: Mapping[str, str]
    runs: tuple[Run, ...]


def recipe_values(run: Run) -> Mapping[str, Any]:
    """Return a run's complete recipe as plain values, without loading the plugins that it names."""
    return read_recipe(run.directory.resolved).values


def run_groups_of(runs: Sequence[Run]) -> list[RunGroup]:
    """Group runs into models: runs whose recipes differ only in the seed are one model's seeds.

    A model is named by what distinguishes its recipe from the others'; where nothing does, or two would have one name,
    by the run's folder.

    Raises:
        SegregError: a run is named twice, or two runs of one model have the same seed.
    """
    groups: dict[str, list[tuple[Run, Mapping[str, Any]]]] = {}
    for run in runs:
        values = recipe_values(run)
        key = json.dumps({name: value for name, value in values.items() if name != "seed"}, sort_keys=True)
        groups.setdefault(key, []).append((run, values))
    different = distinguishing([group[0][1] for group in groups.values()])
    found = []
    for group, settings in zip(groups.values(), different, strict=True):
        seeds = [values.get("seed", 0) for _, values in group]
        if twice := [seed for seed in seeds if seeds.count(seed) > 1]:
            same = [str(run.directory.path) for (run, _), seed in zip(group, seeds, strict=True) if seed == twice[0]]
            raise SegregError(f"{listed(same)} are runs of one recipe with one seed", hint="name one of them")
        ordered = sorted(group, key=lambda pair: int(pair[1].get("seed", 0)))
        members = tuple(run for run, _ in ordered)
        name = label_of(settings) or str(members[0].directory.path)
        found.append(RunGroup(name, settings, members))
    names = [one.name for one in found]
    return [
        dataclasses.replace(one, name=f"{one.name} ({one.runs[0].directory.path})")
        if names.count(one.name) > 1
        else one
        for one in found
    ]

"""The runs of a bench: each combination of the varied settings with each seed and fold, as a complete recipe."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from segreg.benchmark.bench.plan import Budget, Plan, has_values, override, recipe_of, written_as
from segreg.benchmark.pool import check_known_to_workers
from segreg.config.diff import label_of
from segreg.config.resolve import Resolved, resolve
from segreg.data.loader import batches_of
from segreg.errors import Problem, SegregError
from segreg.models import build
from segreg.registry.registry import Registry
from segreg.runs.assembly import split_of
from segreg.runs.environment import sources
from segreg.runs.run import with_absolute_paths
from segreg.runtime.output import as_file_name
from segreg.runtime.progress import Quiet

_LONGEST = 60
SOURCE = "source-"
"""Before the digest of the source of its plugins at the end of a model's key."""


@dataclass(frozen=True)
class Trial:
    """A run of a bench.

    Attributes:
        model: what distinguishes its model from the others.
        settings: the same by recipe path, as strings.
        key: a file name, the same for all seeds and folds of a model and different for any other recipe and source.
        fold: the fold that it is validated on; None in a bench without folds.
        recipe: its complete recipe, paths absolute.
        source: a digest of the source of the plugins that the recipe names; empty where all are segreg's own.
    """

    model: str
    settings: Mapping[str, str]
    key: str
    seed: int
    recipe: Resolved
    source: str = ""
    fold: int | None = None

    @property
    def place(self) -> str:
        """Name of its folder among its model's runs."""
        return f"seed-{self.seed}" + ("" if self.fold is None else f"_fold-{self.fold}")

    @property
    def name(self) -> str:
        """Name of its files."""
        return f"{self.key}_{self.place}"

    @property
    def title(self) -> str:
        """Its name in messages."""
        return f"{self.model}, seed {self.seed}" + ("" if self.fold is None else f", fold {self.fold}")


def combinations(plan: Plan) -> Iterator[dict[str, Any]]:
    """Return every combination of the varied settings that is not excluded; the last setting varies fastest."""
    for values in itertools.product(*plan.vary.values()):
        one = dict(zip(plan.vary, values, strict=True))
        if not any(has_values(one, excluded) for excluded in plan.exclude):
            yield one


def trials_of(plan: Plan, registry: Registry) -> list[Trial]:
    """Return the runs, those with the first seed before all with the second, and so with folds.

    Raises:
        SegregError: all problems of all of them together, nothing is left to run, two models are the same, or other
            processes don't know a part.
    """
    recipe = recipe_of(plan)
    every = list(combinations(plan))
    if not every:
        raise SegregError("nothing is left to run", hint="exclude removes every combination")
    problems: list[Problem] = []
    found: list[Trial] = []
    keys: dict[int, str] = {}  # that of the first seed and fold, from which the others' recipes differ in nothing else
    alike: dict[str, int] = {}
    counts: dict[str, int] = {}
    for seed, fold in itertools.product(plan.seeds, range(plan.folds) if plan.folds else [None]):
        for number, one in enumerate(every):
            changes = [override(path, value) for path, value in one.items()]
            if fold is not None:
                changes += ["split.method=folds", f"split.folds={plan.folds}", f"split.fold={fold}"]
            try:
                resolved = resolve(recipe.changed([*changes, f"seed={seed}"]), registry)
            except SegregError as error:
                prefix = f"with {_model(one)}: " if one else ""
                problems += [dataclasses.replace(p, message=prefix + p.message) for p in error.problems]
                continue
            check_known_to_workers(resolved)
            complete = with_absolute_paths(with_budget(resolved, plan.budget, counts))
            source = source_of(complete)
            if number not in keys:
                digest = _digest({name: value for name, value in complete.plain().items() if name != "seed"})
                keys[number] = _key(one, digest, source)
                if (first := alike.setdefault(digest, number)) != number:
                    message = f'"{_model(every[first])}" and "{_model(one)}" are one and the same recipe'
                    hint = "a budget sets train.epochs or train.time_budget_minutes, and turns early stopping off"
                    problems.append(Problem(message, hint=hint if plan.budget else "leave one of them out"))
            found.append(Trial(_model(one), format_settings(one), keys[number], seed, complete, source, fold))
        if problems:  # they would be the same with every seed and fold
            raise SegregError.of(list(dict.fromkeys(problems)))
    return found


def with_budget(recipe: Resolved, budget: Budget | None, counts: dict[str, int]) -> Resolved:
    """Return the recipe with that budget; steps are rounded up to whole epochs.

    A run with a budget uses all of it: early stopping is off. Minutes limit the epochs of the recipe. `counts` keeps
    how many images each data set and split trains on, which takes reading the data set.

    Raises:
        SegregError: the data set, whose size decides how many steps an epoch has, can't be read.
    """
    if budget is None:
        return recipe
    if budget.unit == "minutes":
        train = dataclasses.replace(recipe.train, time_budget_minutes=budget.amount, early_stopping=None)
    else:
        epochs = int(budget.amount) if budget.unit == "epochs" else _epochs(recipe, int(budget.amount), counts)
        train = dataclasses.replace(recipe.train, epochs=epochs, early_stopping=None)
    return dataclasses.replace(recipe, train=train)


def _epochs(recipe: Resolved, steps: int, counts: dict[str, int]) -> int:
    of_crops = recipe.input.resize == "crop"
    if of_crops and recipe.crop.repeat_threshold:
        hint = "give epochs or minutes"
        raise SegregError("a budget of steps does not go with crop.repeat_threshold, which repeats images", hint=hint)
    plain = recipe.plain()
    data = json.dumps([plain["dataset"], plain["split"]], sort_keys=True)
    if data not in counts:
        counts[data] = len(split_of(recipe, build.build_dataset(recipe), Quiet())["train"])
    batches = batches_of(counts[data] * (recipe.crop.per_image if of_crops else 1), recipe.train.batch)
    return max(1, -(-steps // max(1, -(-batches // recipe.train.accumulate))))


def format_settings(one: Mapping[str, Any]) -> dict[str, str]:
    """Return a combination's values as strings."""
    return {path: _short(value) for path, value in one.items()}


def _short(value: Any) -> str:
    """Return the name of a part without settings, the names of several, anything else as in a recipe."""
    if isinstance(value, dict) and set(value) == {"name"}:
        return str(value["name"])
    if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
        return "+".join(value)
    return written_as(value)


def _model(one: Mapping[str, Any]) -> str:
    return label_of(format_settings(one))


def _key(one: Mapping[str, Any], digest: str, source: str) -> str:
    words = as_file_name(_model(one) or "recipe").strip("_")[:_LONGEST]
    return f"{words}_{digest}" + (f"_{SOURCE}{source}" if source else "")


def _digest(plain: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode("utf-8")).hexdigest()[:8]


def source_of(recipe: Resolved) -> str:
    """Return a digest of the source of the plugins that a recipe names; empty where all are segreg's own."""
    found = sources(recipe)
    return _digest(found) if found else ""

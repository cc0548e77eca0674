"""What a bench compares: a recipe, the settings that vary, the seeds, the folds, and the budget of each run."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from segreg.config.recipe import COMMAND_LINE, Overrides, Recipe, as_written, one_line, override_words, read_recipe
from segreg.errors import Place, SegregError, did_you_mean, listed
from segreg.settings import format_value

Unit = Literal["epochs", "steps", "minutes"]
MOST: Mapping[Unit, int] = {"epochs": 1_000_000, "steps": 1_000_000_000, "minutes": 10_000_000}
"""The units of a budget, and limits that no use comes near: an amount beyond is a slip of the hand."""
MOST_RUNS = 10_000
MOST_FOLDS = 1_000
KEYS = ("recipe", "vary", "exclude", "seeds", "folds", "budget", "change", "baseline", "metric")
"""The keys of a bench file."""
_OF_FOLDS = ("split.method", "split.folds", "split.fold")
"""Settings that a bench of folds sets itself."""


@dataclass(frozen=True)
class Budget:
    """How long each run trains."""

    unit: Unit
    amount: float


@dataclass(frozen=True)
class Plan:
    """A bench as written; no name in it has been looked up.

    Attributes:
        recipe: the recipe, its file, or the name of one that comes with segreg.
        vary: for each varied path its values, as in a recipe.
        exclude: combinations with all of a mapping's values don't run.
        seeds: each model is trained with each.
        folds: each model is trained on all but one of so many folds, each fold left out once; None leaves the split to
            the recipe.
        budget: of each run; None leaves it to the recipe.
        change: `key.path=value` overrides for all runs.
        baseline: values of the model that the others are compared with; by default the first one.
        metric: to compare by; empty: the recipe's first.
    """

    recipe: Path | Recipe
    vary: Mapping[str, Sequence[Any]]
    exclude: Sequence[Mapping[str, Any]] = ()
    seeds: Sequence[int] = (0,)
    folds: int | None = None
    budget: Budget | None = None
    change: Sequence[str] = ()
    baseline: Mapping[str, Any] = field(default_factory=dict)
    metric: str = ""

    @property
    def name(self) -> str:
        """Return what its recipe is called."""
        return Path(self.recipe.source if isinstance(self.recipe, Recipe) else self.recipe).stem


def plan_of(
    recipe: Recipe | Path | str,
    overrides: Overrides = (),
    *,
    vary: Mapping[str, Sequence[Any]],
    exclude: Sequence[Mapping[str, Any]] = (),
    seeds: int | Sequence[int] | None = None,
    folds: int | None = None,
    budgets: Mapping[Unit, float | None],
    baseline: Mapping[str, Any] | None = None,
    metric: str = "",
    place: Place | None = None,
) -> tuple[Plan, str]:
    """Return the plan of a recipe or a bench file, with what `segreg.bench` is given besides, and the bench's name.

    Args:
        recipe: a recipe or a bench file; what is given here takes the place of what a bench file says.
        seeds: how many, or which; None: the bench file's, or one.
        folds: how many; None: the bench file's, or none.
        budgets: amounts by unit, at most one of which is not None.
        place: where these were written.
    """
    read: Recipe | None = recipe if isinstance(recipe, Recipe) else None
    file = Path(recipe) if not isinstance(recipe, Recipe) else Path(recipe.source)
    if read is None and (file.exists() or file.suffix in (".yaml", ".yml")):
        read = read_recipe(file)
    whole = read is None or not is_bench_file(read)
    plan = Plan(recipe if isinstance(recipe, Recipe) else file, {}) if read is None or whole else plan_of_file(read)
    for path, values in vary.items():
        if isinstance(values, (str, Mapping)) or not isinstance(values, Iterable) or not list(values):
            problem = f'"{path}" varies over a list of values, not {format_value(values)}'
            raise SegregError(problem, place=place, hint='for example encoder=["resnet18", "resnet50"]')
    changes: dict[str, Any] = {
        "vary": {**plan.vary, **{path: as_written(list(values)) for path, values in vary.items()}},
        "exclude": [*plan.exclude, *map(as_written, exclude)],
        "change": [*plan.change, *override_words(overrides)],
    }
    if seeds is not None:
        changes["seeds"] = _seeds(seeds if isinstance(seeds, int) else as_written(list(seeds)), place)
    if folds is not None:
        changes["folds"] = _folds(folds, place)
    given = {unit: amount for unit, amount in budgets.items() if amount is not None}
    if len(given) > 1:
        raise SegregError(f"a bench has one budget, not {listed(list(given))}", place=place)
    for unit, amount in given.items():
        changes["budget"] = budget(unit, amount, place)
    if baseline:
        changes["baseline"] = as_written(baseline)
    if metric:
        changes["metric"] = metric
    return checked(dataclasses.replace(plan, **changes), place), file.stem


def is_bench_file(recipe: Recipe) -> bool:
    """Whether a file is a bench file rather than a recipe: it names a recipe."""
    return "recipe" in recipe.values


def plan_of_file(read: Recipe) -> Plan:
    """Return the plan of a bench file; paths in it are relative to the file's folder.

    Raises:
        SegregError: a key or value is not valid, with its place.
    """
    values = read.values
    for key in values:
        if key not in KEYS:
            hint = did_you_mean(str(key), KEYS) or f"there are {listed(KEYS, most=len(KEYS))}"
            raise SegregError(f'"{key}" is not a key of a bench file', place=read.key_place((key,)), hint=hint)
    named = values["recipe"]
    if not isinstance(named, str):
        raise _wrong(read, "recipe", "must be a file or the name of a recipe", named)
    beside = Path(read.source).parent / named
    vary = _mapping(read, "vary")
    for path, options in vary.items():
        if not isinstance(options, list) or not options:
            raise _wrong(read, "vary", f'must give a list of values for "{path}"', options, path)
    exclude = values.get("exclude") or []
    if not isinstance(exclude, list) or not all(isinstance(one, dict) and one for one in exclude):
        raise _wrong(read, "exclude", "must be a list of combinations such as {encoder: resnet18}", exclude)
    change = _mapping(read, "change")
    baseline = _mapping(read, "baseline")
    metric = values.get("metric") or ""
    if not isinstance(metric, str):
        raise _wrong(read, "metric", "must be a metric's name such as dice.pooled", metric)
    return checked(
        Plan(
            recipe=beside if beside.exists() else Path(named),
            vary=vary,
            exclude=exclude,
            seeds=_seeds(values.get("seeds", 1), read.place(("seeds",))),
            folds=_folds(values["folds"], read.place(("folds",))) if values.get("folds") is not None else None,
            budget=_budget(read),
            change=[override(path, value) for path, value in change.items()],
            baseline=baseline,
            metric=metric,
        ),
        read.place(("vary",)),
        read,
    )


def checked(plan: Plan, place: Place | None, file: Recipe | None = None) -> Plan:
    """Return the plan if it is consistent.

    Args:
        plan: what is checked.
        place: where it was written.
        file: the bench file that it is, whose lines are named.

    Raises:
        SegregError: a value is given twice, a change would have no effect, a combination names what does not vary, or
            there are too many runs.
    """
    runs = math.prod(map(len, plan.vary.values())) * len(plan.seeds) * (plan.folds or 1)
    if runs > MOST_RUNS:
        raise SegregError(f"these are {runs:,} runs; a bench has {MOST_RUNS:,} at most", place=place)
    for word in plan.change:
        path = word.partition("=")[0].strip()
        where = file.key_place(("change", path)) if file else place
        if path == "seed":
            hint = "name it by --seeds [7] or seeds: [7]"
            raise SegregError(f'"{word}" has no effect: a bench gives each run its seed', place=where, hint=hint)
        section = Recipe({}).changed([word]).values["split"] if path == "split" else None
        paths = [path, *(f"split.{name}" for name in section)] if isinstance(section, Mapping) else [path]
        if plan.folds and not set(paths).isdisjoint(_OF_FOLDS):
            problem = f'"{word}" has no effect: the bench takes each of {plan.folds} folds'
            hint = f"{file.key_place(('folds',))} has folds: {plan.folds}" if file else ""
            raise SegregError(problem, place=where, hint=hint)
    for path, options in plan.vary.items():
        if path == "seed":
            raise SegregError("the seed does not vary like other settings", place=place, hint="use --seeds or seeds:")
        if path == "split.fold" or (plan.folds and path in ("split", *_OF_FOLDS)):
            raise SegregError("folds do not vary like other settings", place=place, hint="use --folds or folds:")
        written = [written_as(option) for option in options]
        if twice := next((one for one in written if written.count(one) > 1), None):
            raise SegregError(f'"{path}" varies over {twice} twice', place=place)
    for what, chosen in [*(("exclude", one) for one in plan.exclude), ("baseline", plan.baseline)]:
        for path, value in chosen.items():
            if path not in plan.vary:
                near = did_you_mean(path, plan.vary) or f"what varies is {listed(list(plan.vary)) or 'nothing'}"
                raise SegregError(f'{what} names "{path}", which does not vary', place=place, hint=near)
            options = [written_as(option) for option in plan.vary[path]]
            if written_as(value) not in options:
                near = did_you_mean(written_as(value), options) or f"it varies over {listed(options)}"
                raise SegregError(
                    f"{what} names {path}={written_as(value)}, which is not among its values", place=place, hint=near
                )
    return plan


def axis(text: str) -> tuple[str, list[Any]]:
    """Return the path and the values of a `--vary encoder=resnet18,timm/convnext_tiny`.

    Raises:
        SegregError: it is not of that form.
    """
    path, equals, values = text.partition("=")
    if not equals or not path.strip() or not values.strip():
        raise SegregError(f'"{text}" varies nothing', hint="write path=value,value, such as encoder=resnet18,resnet50")
    return path.strip(), read_values(values, text)


def read_values(text: str, source: str) -> list[Any]:
    """Return comma-separated values, each in YAML; commas within brackets don't separate.

    Raises:
        SegregError: it is not valid YAML; the message names `source`.
    """
    try:
        found = Recipe({}).changed([f"values=[{text}]"]).values["values"]
    except SegregError as error:
        raise SegregError(
            f'in "{source}", {error.problems[0].message.partition(", ")[2]}', place=COMMAND_LINE
        ) from None
    return list(found)


def combination(text: str) -> dict[str, Any]:
    """Return the combination of `encoder=resnet18,loss=dice`.

    Raises:
        SegregError: it is not of that form.
    """
    found: dict[str, Any] = {}
    for part in re.split(r",(?=\s*[\w.]+=)", text):  # commas within a value, such as a list, separate nothing
        path, equals, written = part.partition("=")
        values = read_values(written, text) if equals else []
        if len(values) != 1:
            raise SegregError(f'"{text}" is not a combination', hint="write path=value,path=value")
        if path.strip() in found:
            raise SegregError(f'"{text}" names "{path.strip()}" twice', hint="a combination has one value of each")
        found[path.strip()] = values[0]
    return found


def seeds_of(text: str) -> tuple[int, ...]:
    """Return the seeds of `--seeds 3` (0, 1 and 2) or `--seeds 7,11`.

    Raises:
        SegregError: they are not numbers.
    """
    values = read_values(text, f"--seeds {text}")
    return _seeds(values[0] if len(values) == 1 else values, COMMAND_LINE)


def override(path: str, value: Any) -> str:
    """Return the override that sets a recipe's setting to a value."""
    return f"{path}={one_line(path, value)}"


def written_as(value: Any) -> str:
    """Return a value as a string: strings unchanged, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, default=str)


def recipe_of(plan: Plan) -> Recipe:
    """Read the plan's recipe, with the changes for all runs.

    Raises:
        SegregError: there is no such file, or it is not a recipe.
    """
    from segreg.config.recipe import shipped_recipe

    file = plan.recipe
    if isinstance(file, Recipe):
        return file.changed(plan.change)
    if not file.exists() and file.suffix not in (".yaml", ".yml") and len(file.parts) == 1:
        file = shipped_recipe(str(file))
    return read_recipe(file, plan.change)


def _seeds(given: Any, place: Place | None) -> tuple[int, ...]:
    if type(given) is int and 1 <= given <= MOST_RUNS:
        return tuple(range(given))
    if isinstance(given, list) and given and all(type(one) is int and one >= 0 for one in given):
        if len(set(given)) < len(given):
            raise SegregError("a seed is given twice among the seeds", place=place)
        return tuple(given)
    raise SegregError(
        f"seeds must be a number of seeds, at most {MOST_RUNS:,}, or a list of them, not {format_value(given)}",
        place=place,
        hint="3 means 0, 1 and 2",
    )


def _folds(given: Any, place: Place | None) -> int:
    if type(given) is int and 2 <= given <= MOST_FOLDS:
        return given
    raise SegregError(f"folds must be a number from 2 to {MOST_FOLDS:,}, not {format_value(given)}", place=place)


def _budget(read: Recipe) -> Budget | None:
    given = read.values.get("budget")
    if given is None:
        return None
    if not isinstance(given, dict) or len(given) != 1 or next(iter(given)) not in MOST:
        raise _wrong(read, "budget", f"must name one of {listed(list(MOST))}, such as {{epochs: 5}}", given)
    ((unit, amount),) = given.items()
    return budget(unit, amount, read.place(("budget", unit)))


def budget(unit: Unit, amount: Any, place: Place | None) -> Budget:
    """Return a budget, or refuse its amount."""
    whole = unit != "minutes"
    if (
        isinstance(amount, bool)
        or not isinstance(amount, int if whole else (int, float))
        or not 0 < amount <= MOST[unit]
    ):
        what = f"{'a whole number ' if whole else ''}above 0 and at most {MOST[unit]:,}"
        raise SegregError(f"a budget of {unit} must be {what}, not {format_value(amount)}", place=place)
    return Budget(unit, float(amount))


def _mapping(read: Recipe, key: str) -> dict[str, Any]:
    given = read.values.get(key) or {}
    if not isinstance(given, dict):
        raise _wrong(read, key, "must be a mapping of recipe paths such as encoder", given)
    return {str(path): value for path, value in given.items()}


def _wrong(read: Recipe, key: str, what: str, given: Any, *below: str) -> SegregError:
    return SegregError(f'"{key}" {what}, not {format_value(given)}', place=read.place((key, *below)))


def has_values(one: Mapping[str, Any], values: Mapping[str, Any]) -> bool:
    """Whether a combination has these values."""
    return all(written_as(one[path]) == written_as(value) for path, value in values.items())


def baseline_of(plan: Plan, combinations: Iterable[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return the combination that the others are compared with: the first with the plan's values."""
    every = list(combinations)
    return next((one for one in every if has_values(one, plan.baseline)), every[0])

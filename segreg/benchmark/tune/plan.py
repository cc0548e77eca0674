"""What is tuned: a recipe, what is searched in it, and by which value; checked, and the same for all who join."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from segreg.benchmark import earlier
from segreg.benchmark.bench.trials import source_of
from segreg.benchmark.monitor import larger_is_better
from segreg.benchmark.pool import check_known_to_workers
from segreg.benchmark.tune.space import Axis, check_space, values_of, with_values
from segreg.benchmark.tune.study import PRUNING, SAMPLERS, Pruning, Sampler
from segreg.config.diff import in_short
from segreg.config.recipe import Recipe
from segreg.config.resolve import Resolved, resolve
from segreg.errors import SegregError, did_you_mean, listed
from segreg.registry.registry import Registry
from segreg.runs.run import with_absolute_paths
from segreg.settings import format_value
from segreg.training.monitor import is_loss

_ON_VAL: Mapping[str, Any] = {"evaluate.split": "val"}
"""How trials differ from the recipe besides what is searched: their test images are left for the best recipe."""
_BATCHES = ("train.batch_size", "train.effective_batch_size")
"""Where they are searched, all trials validate in batches of the recipe's size: a loss over a batch depends on it."""


@dataclass(frozen=True)
class TunePlan:
    """A tune, checked.

    Attributes:
        recipe: the recipe with the changes for all trials.
        axes: what is searched.
        resolved: the recipe as it is without the search.
        registry: the plugins.
        larger_is_better: whether a larger value of the recipe's `train.monitor` is better.
        sampler: what proposes trials.
        pruning: what ends trials early.
        source: digests of the source of the plugins that trials may name; empty where all are segreg's own.
    """

    recipe: Recipe
    axes: Sequence[Axis]
    resolved: Resolved
    registry: Registry
    larger_is_better: bool
    sampler: Sampler = "tpe"
    pruning: Pruning = "median"
    source: str = ""

    @classmethod
    def of(
        cls,
        recipe: Recipe,
        axes: Sequence[Axis],
        registry: Registry,
        *,
        epochs: int | None = None,
        sampler: Sampler = "tpe",
        pruning: Pruning = "median",
    ) -> TunePlan:
        """Return the plan, checked against the recipe and what its data set is for.

        Raises:
            SegregError: everything that is wrong with the recipe or the search; or the monitored value can't choose.
        """
        for name, value, known in (("sampler", sampler, SAMPLERS), ("pruning", pruning, PRUNING)):
            if value not in known:
                hint = did_you_mean(str(value), known) or f"there are {listed(known)}"
                raise SegregError(f"{name} can't be {format_value(value)}", hint=hint)
        if epochs is not None:
            if any(axis.path == "train.epochs" for axis in axes):
                raise SegregError("train.epochs is searched and given by --epochs", hint="leave one of them out")
            recipe = recipe.changed([f"train.epochs={epochs}"])
        resolved = check_space(axes, recipe, registry)
        _check_monitor(resolved, axes)
        for one in (every := [resolve(with_values(recipe, values), registry) for values in one_by_one(axes)]):
            check_known_to_workers(one)
        source = " ".join(sorted({source_of(one) for one in every})).strip()
        return cls(recipe, axes, resolved, registry, larger_is_better(resolved), sampler, pruning, source)

    @property
    def monitor(self) -> str:
        """Return the name of the value that trials are compared by."""
        return self.resolved.train.monitor

    def trial(self, parameters: Mapping[str, Any]) -> Resolved:
        """Return the recipe of a trial, which leaves the test images alone."""
        alike = dict(_ON_VAL)
        if self.resolved.evaluate.batch_size is None and any(axis.path in _BATCHES for axis in self.axes):
            alike["evaluate.batch_size"] = self.resolved.train.batch
        return self.with_settings({**self.values(parameters), **alike})

    def values(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Return what a trial's parameters are as a recipe has them."""
        return values_of(self.axes, parameters)

    def with_settings(self, values: Mapping[str, Any]) -> Resolved:
        """Return the complete recipe with these settings."""
        return with_absolute_paths(resolve(with_values(self.recipe, values), self.registry))

    def as_data(self) -> dict[str, Any]:
        """Return what all processes of a tune must have in common, as JSON holds it."""
        return {
            "recipe": with_absolute_paths(self.resolved).plain(),
            "search": {axis.path: str(axis) for axis in self.axes},
            "sampler": self.sampler,
            "pruning": self.pruning,
            "source": self.source,
        }

    def remarks(self) -> list[str]:
        """Return what to know of how trials are compared."""
        if not any(axis.path.partition(".")[0] == "input" for axis in self.axes):
            return []
        return [f"{self.monitor} is that of each trial's own input: the settings of input change the images it scores"]


def one_by_one(axes: Sequence[Axis]) -> list[dict[str, Any]]:
    """Return settings of all axes, in which every choice and both ends of every range occur, one changed at a time."""
    options = {axis.path: axis.tried for axis in axes}
    first = {path: values[0] for path, values in options.items()}
    return [first, *({**first, path: value} for path, values in options.items() for value in values[1:])]


def differences(plan: TunePlan, began: Mapping[str, Any], same_data: Callable[[], bool]) -> list[str]:
    """Return what a plan differs in from what a tune began with, as "path: this, it began with that"."""
    mine, then = plan.as_data(), began.get("recipe", {})
    with contextlib.suppress(SegregError):  # what can't be read any more is compared as it is
        then = earlier.completed(Recipe(then), plan.registry)
    found = [
        f"{one.path}: {in_short(one.other)}, it began with {in_short(one.one)}"
        for one in earlier.differences(then, with_absolute_paths(plan.resolved), same_data)
    ]
    return found + [
        f"{name}: {_short(mine[name])}, it began with {_short(began.get(name))}"
        for name in ("search", "sampler", "pruning", "source")
        if mine[name] != began.get(name)
    ]


def _short(value: Any) -> str:
    if isinstance(value, Mapping):
        return " ".join(f"{path}={text}" for path, text in value.items())
    return str(value) or "segreg's own"


def _check_monitor(recipe: Resolved, axes: Sequence[Axis]) -> None:
    """Refuse a value that is not of the validation images, or not the same for all trials."""
    monitor = recipe.train.monitor
    hint = "a metric is the same for all: for example train.monitor=val.dice.pooled"
    if not monitor.startswith("val."):
        raise SegregError(f"trials are compared on validation images, and train.monitor is {monitor}", hint=hint)
    loss = [axis.path for axis in axes if axis.path.partition(".")[0] == "loss"]
    if loss and is_loss(monitor):
        problem = f"train.monitor is {monitor}, which is another measure with every value of {loss[0]}"
        raise SegregError(problem, hint=hint)

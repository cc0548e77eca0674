"""Whether a recipe is that of an earlier call, which another segreg wrote, or whose files were elsewhere then.

A trial's recipe has every setting that its segreg knew, and absolute paths. So it is another text after an upgrade, and
in a project that was moved or is mounted in another place.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

from segreg.benchmark.bench.plan import override
from segreg.config.diff import RecipeDifference, recipe_differences
from segreg.config.recipe import Recipe
from segreg.config.resolve import Resolved, resolve_begun
from segreg.config.sections import WeightDecay
from segreg.models import build
from segreg.registry.registry import Registry
from segreg.runs.trained_run import Run


def completed(written: Recipe, registry: Registry) -> dict[str, Any]:
    """Return a recipe that was complete when it was written, with the settings that are new since then.

    Raises:
        SegregError: a part or a setting of it is gone.
    """
    resolved = resolve_begun(written, registry)
    optimizer = resolved.optimizer
    if "exclude_from_weight_decay" not in written.values["optimizer"] and _decouples(resolved):
        # Everything had weight decay then.
        optimizer = dataclasses.replace(optimizer, beside=WeightDecay(exclude_from_weight_decay=False))
    return dataclasses.replace(resolved, optimizer=optimizer, split=resolved.split.complete()).plain()


def _decouples(recipe: Resolved) -> bool:
    import torch

    from segreg.training.groups import decouples

    return decouples(build.build_optimizer(recipe, [{"params": [torch.zeros(1, requires_grad=True)]}]))


def differences(then: Mapping[str, Any], now: Resolved, same_data: Callable[[], bool]) -> Sequence[RecipeDifference]:
    """Return what differs between an earlier recipe, as `completed` returns it, and this one.

    Nothing differs where paths alone do that lead to the same data, and files beside these, such as weights, that have
    moved with them.
    """
    found = recipe_differences(then, dataclasses.replace(now, split=now.split.complete()).plain())
    return [] if _have_moved(found) and same_data() else found


def data_paths(recipe: Mapping[str, Any]) -> dict[str, str]:
    """Return the paths of a complete recipe's data set and of its split's lists: {"dataset.root": "/data/isic"}."""

    def paths(name: str, value: Any) -> Iterator[tuple[str, str]]:
        if isinstance(value, Mapping):
            for key, item in value.items():
                yield from paths(f"{name}.{key}", item)
        elif _is_path(value):
            yield name, value

    lists = (recipe.get("split") or {}).get("lists") or {}
    return dict([*paths("dataset", recipe["dataset"]), *paths("split.lists", lists)])


def with_data_of(recipe: Mapping[str, Any], run: Run) -> Run:
    """Return a run with its data where a complete recipe has them."""
    before = data_paths(run.written.values)
    moved = [override(path, place) for path, place in data_paths(recipe).items() if before.get(path, place) != place]
    return Run(run.directory, tuple(moved)) if moved else run


def _have_moved(found: Sequence[RecipeDifference]) -> bool:
    """Whether these are paths alone, some of them of the data set, and the others have moved as those have."""
    if not all(_is_path(one.one) and _is_path(one.other) for one in found):
        return False
    data = {_roots(one.one, one.other) for one in found if one.path.startswith(("dataset.", "split.lists."))}
    return bool(data) and all(_roots(one.one, one.other) in data for one in found)


def _is_path(value: Any) -> bool:
    return isinstance(value, str) and Path(value).is_absolute()


def _roots(one: str, other: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the two paths without the names that both end in."""
    mine, its = Path(one).parts, Path(other).parts
    same = len(list(takewhile(lambda pair: pair[0] == pair[1], zip(reversed(mine), reversed(its), strict=False))))
    return mine[: len(mine) - same], its[: len(its) - same]

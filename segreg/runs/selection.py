"""Which samples a finished run is scored on: one of its splits as it was then, or another recipe's data."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segreg.config.resolve import Resolved
from segreg.data import SPLITS, divide
from segreg.errors import SegregError, did_you_mean, listed
from segreg.models import build

if TYPE_CHECKING:
    from segreg.registry.protocols import Dataset
    from segreg.runs.trained_run import Run
    from segreg.task import Task

ALL = "all"
"""The name of a side that is a whole data set."""


@dataclass(frozen=True)
class Chosen:
    """Samples that are to be scored.

    Attributes:
        dataset: has them.
        split: what they are together: a split, or `ALL`.
        indices: which they are.
        name: what a folder of their scores is called.
        source: the recipe that names the data set.
    """

    dataset: Dataset
    split: str
    indices: list[int]
    name: str
    source: Resolved


def check_split(split: str | None) -> None:
    """Refuse what is not a split; None is none in particular.

    Raises:
        SegregError: there is no such split.
    """
    if split is not None and split not in SPLITS:
        raise SegregError(
            f'there is no split "{split}"',
            hint=did_you_mean(split, SPLITS) or f"the splits are {listed(SPLITS)}",
        )


def of_own_split(run: Run, split: str | None) -> Chosen:
    """Return a split as split.json has it, whatever the data are now; None is test, or val where there is none.

    Raises:
        SegregError: the split is empty, samples of it are gone, or the data has other classes than then.
    """
    file = run.directory.split
    if not file.is_file():
        raise SegregError(f"{file} is missing, so that nobody knows what the run was trained on")
    ids: dict[str, list[str]] = json.loads(file.read_text(encoding="utf-8"))
    split = split or ("test" if ids.get("test") else "val")
    if not ids.get(split):
        raise _empty(str(run.directory.path), split, ids)
    dataset = build.build_dataset(run.recipe)
    _refuse_other_classes(run, f"the data of {run.directory.path} as it is now", dataset.task)
    index_of = {sample.id: index for index, sample in enumerate(dataset.samples)}
    gone = [name for name in ids[split] if name not in index_of]
    if gone:
        raise SegregError(
            f"{len(gone)} of the {len(ids[split])} samples of {split} are gone from {run.recipe.dataset.part.name}: "
            f"{listed(gone, most=5)}",
            hint=f"{file} has the samples of the run; scores of the others would be scores of another split",
        )
    return Chosen(dataset, split, [index_of[name] for name in ids[split]], split, run.recipe)


def of_other_data(run: Run, recipe: Resolved, split: str | None) -> Chosen:
    """Return the samples of another recipe's data set: all, or one split.

    Raises:
        SegregError: the data set can't be read, has other classes than the run, or nothing in that split.
    """
    dataset = build.build_dataset(recipe)
    _refuse_other_classes(run, recipe.source, dataset.task)
    name = re.sub(r"[^\w.-]+", "_", Path(recipe.source).stem) or "data"
    if split is None:
        return Chosen(dataset, ALL, list(range(len(dataset.samples))), name, recipe)
    splits = {str(split): indices for split, indices in divide(dataset, recipe.split).items()}
    if not splits[split]:
        raise _empty(recipe.source, split, splits)
    return Chosen(dataset, split, splits[split], f"{name}-{split}", recipe)


def _refuse_other_classes(run: Run, owner: str, task: Task) -> None:
    if task != run.task:
        there, then = (f"{listed(each.classes)} ({each.mode})" for each in (task, run.task))
        raise SegregError(
            f"the classes of {owner} are {there}, but {run.directory.path} was trained on {then}",
            hint="names, order and mode must be the same",
        )


def _empty(owner: str, split: str, splits: Mapping[str, Sequence[Any]]) -> SegregError:
    there = ", ".join(f"{len(samples)} in {name}" for name, samples in splits.items() if samples)
    return SegregError(f"{owner} has no samples in {split}; there are {there}")

"""Looks at a bench before its first run begins: the data is there, every network is built and goes into memory."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from segreg.benchmark.bench.folder import BenchFolder
from segreg.benchmark.bench.trials import Cell
from segreg.runtime.files import write_json
from segreg.runtime.progress import Progress
from segreg.task import Task

if TYPE_CHECKING:
    from segreg.benchmark.cost.record import Subject

CHECKED = "checked.json"


def check(cells: Sequence[Cell], folder: BenchFolder, *, jobs: int, progress: Progress) -> None:
    """Build the network of each model that has a run before it, and takes a training step of its size.

    A model that can't be built, trained or kept in memory has its runs written down as failed; the others continue. What
    was found fine is not looked at again.

    Args:
        cells: the bench's runs.
        folder: the bench's.
        jobs: runs at the same time, which share the memory.
        progress: is told what happens.

    Raises:
        SegregError: the data can't be read.
    """
    from segreg.benchmark.cost.running import fits

    ahead = [cell for cell in cells if folder.state(cell) in ("waiting", "stopped")]
    subjects = subjects_of(ahead)
    known = _known(folder)
    models = [key for key in subjects if known.get(key, 0) < jobs]
    if not models:
        return
    with progress.watch("checking that every model trains", len(models), "models") as advance:
        for key in models:
            found = fits(subjects[key], jobs=jobs)
            mine = [cell for cell in ahead if cell.key == key]
            if found.reason:
                for cell in mine:
                    folder.fail(cell.name, f"not begun: {found.reason}")
            else:
                write_json(folder.path / CHECKED, {**_known(folder), key: jobs})
            advance(note=mine[0].model)


def subjects_of(cells: Sequence[Cell]) -> dict[str, Subject]:
    """Return each model's network by its key, with the task that its data has.

    Raises:
        SegregError: a data set can't be read, or its split leaves nothing to train on.
    """
    from segreg.benchmark.cost.record import Subject

    tasks: dict[str, Task] = {}
    found = {}
    for cell in cells:
        if cell.key in found:
            continue
        plain = cell.recipe.plain()
        data = json.dumps([plain["dataset"], plain["split"]], sort_keys=True)
        if data not in tasks:
            tasks[data] = _task(cell)
        found[cell.key] = Subject.of(cell.recipe, tasks[data])
    return found


def _task(cell: Cell) -> Task:
    from segreg.data import divide
    from segreg.models import build

    dataset = build.build_dataset(cell.recipe)
    divide(dataset, cell.recipe.split)
    return dataset.task


def _known(folder: BenchFolder) -> Mapping[str, Any]:
    try:
        found: dict[str, Any] = json.loads((folder.path / CHECKED).read_text(encoding="utf-8"))
        return found
    except (OSError, ValueError):
        return {}

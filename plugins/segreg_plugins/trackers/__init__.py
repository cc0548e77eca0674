"""The built-in experiment trackers, which observe the runs: those that SEGREG_TRACKERS names, and none otherwise.

`SEGREG_TRACKERS=tensorboard segreg run recipe.yaml`, or `SEGREG_TRACKERS=wandb,mlflow` for both. Each needs the extra
of its name (`pip install "segreg-toolkit[tensorboard]"`). A tracker that fails is a warning and never stops a run;
without a start that succeeded, or after a failure that took long, it stays silent for the rest of the run.
"""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from segreg.errors import Problem, SegregError, did_you_mean, listed
from segreg.registry.hooks import hookimpl

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from segreg.task import Task

VARIABLE = "SEGREG_TRACKERS"
"""Environment variable: the trackers that runs report to, with commas or spaces between."""
TRACKERS = ("tensorboard", "mlflow", "wandb", "trackio")
"""Each is a module of this package with the functions `start`, `epoch` and `end`; `overlay` where it shows masks."""


PATIENCE = 10.0
"""Seconds after which a failure is late: each epoch would wait for it again."""
_SILENT: set[tuple[str, Path]] = set()
"""Trackers that get nothing more of a run, with the run."""


@hookimpl
def segreg_run_start(run: Path, recipe: Mapping[str, Any]) -> None:
    """Report the trackers that a run begins, or continues.

    Raises:
        SegregError: a tracker is unknown, not installed, or fails; reported once all others have been called.
    """
    unknown = [name for name in _named() if name not in TRACKERS]
    hints = did_you_mean(unknown[0], TRACKERS) or f"there are {listed(TRACKERS)}" if unknown else ""
    problems = [Problem(f"{VARIABLE} names {listed(unknown)}, which is not a tracker", hint=hints)] if unknown else []
    _SILENT.difference_update([one for one in _SILENT if one[1] == run])
    _collect(run, lambda tracker: tracker.start(run, recipe), problems, start=True)


@hookimpl
def segreg_epoch_end(run: Path, epoch: int, values: Mapping[str, float]) -> None:
    """Report the trackers an epoch's row of the history.

    Raises:
        SegregError: a tracker fails.
    """
    _collect(run, lambda tracker: tracker.epoch(run, epoch, values), [])


@hookimpl
def segreg_overlay(
    run: Path, file: Path, image: NDArray[np.uint8], masks: Mapping[str, NDArray[np.uint8]], task: Task
) -> None:
    """Show an image with its truth and prediction in those trackers that show masks; the others take the files.

    Raises:
        SegregError: a tracker fails.
    """

    def tell(tracker: ModuleType) -> None:
        if hasattr(tracker, "overlay"):
            tracker.overlay(run, file.stem, image, masks, task)

    _collect(run, tell, [])


@hookimpl
def segreg_run_end(run: Path, results: Mapping[str, Any]) -> None:
    """Report the trackers the results.

    Raises:
        SegregError: a tracker fails.
    """
    _collect(run, lambda tracker: tracker.end(run, results), [])


def _named() -> list[str]:
    return list(dict.fromkeys(os.environ.get(VARIABLE, "").lower().replace(",", " ").split()))


def _collect(run: Path, tell: Callable[[ModuleType], None], problems: list[Problem], *, start: bool = False) -> None:
    """Report to every tracker that is asked for, and then raise what went wrong with any.

    One that fails in its start, or fails late, as where a server does not answer, gets nothing more of the run.
    """
    for name in _named():
        if name not in TRACKERS or (name, run) in _SILENT:
            continue
        begun, had = time.monotonic(), len(problems)
        try:
            tell(importlib.import_module(f"{__name__}.{name}"))
        except SegregError as error:
            problems += error.problems
        except Exception as error:  # a server that can't be reached, a full disk: the next tracker gets it all the same
            problems.append(Problem(f"{name}: {type(error).__name__}: {error}"))
        late = time.monotonic() - begun > PATIENCE
        if len(problems) > had and (start or late):
            _SILENT.add((name, run))
        if len(problems) > had and late:
            silent = f"{name} gets nothing more of this run"
            problems[had:] = [replace(one, hint=f"{one.hint}\n{silent}".strip()) for one in problems[had:]]
    if problems:
        raise SegregError.of(problems)

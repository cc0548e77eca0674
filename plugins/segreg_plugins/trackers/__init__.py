"""The built-in experiment trackers, which observe the runs: those that SEGREG_TRACKERS names, and none otherwise.

`SEGREG_TRACKERS=tensorboard segreg run recipe.yaml`, or `SEGREG_TRACKERS=wandb,mlflow` for both. Each needs the extra
of its name (`pip install "segreg-toolkit[tensorboard]"`). A tracker that fails is a warning and never stops a run;
without a start that succeeded a tracker stays silent for the rest of the run.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping
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


@hookimpl
def segreg_run_start(run: Path, recipe: Mapping[str, Any]) -> None:
    """Report the trackers that a run begins, or continues.

    Raises:
        SegregError: a tracker is unknown, not installed, or fails; reported once all others have been called.
    """
    unknown = [name for name in _named() if name not in TRACKERS]
    hints = did_you_mean(unknown[0], TRACKERS) or f"there are {listed(TRACKERS)}" if unknown else ""
    problems = [Problem(f"{VARIABLE} names {listed(unknown)}, which is not a tracker", hint=hints)] if unknown else []
    _collect(lambda tracker: tracker.start(run, recipe), problems)


@hookimpl
def segreg_epoch_end(run: Path, epoch: int, values: Mapping[str, float]) -> None:
    """Report the trackers an epoch's row of the history.

    Raises:
        SegregError: a tracker fails.
    """
    _collect(lambda tracker: tracker.epoch(run, epoch, values), [])


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

    _collect(tell, [])


@hookimpl
def segreg_run_end(run: Path, results: Mapping[str, Any]) -> None:
    """Report the trackers the results.

    Raises:
        SegregError: a tracker fails.
    """
    _collect(lambda tracker: tracker.end(run, results), [])


def _named() -> list[str]:
    return list(dict.fromkeys(os.environ.get(VARIABLE, "").lower().replace(",", " ").split()))


def _collect(tell: Callable[[ModuleType], None], problems: list[Problem]) -> None:
    """Report every tracker that is asked for, and then raises what went wrong with any."""
    for name in _named():
        if name not in TRACKERS:
            continue
        try:
            tell(importlib.import_module(f"{__name__}.{name}"))
        except SegregError as error:
            problems += error.problems
        except Exception as error:  # a server that can't be reached, a full disk: the next tracker gets it all the same
            problems.append(Problem(f"{name}: {type(error).__name__}: {error}"))
    if problems:
        raise SegregError.of(problems)

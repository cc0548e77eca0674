"""The hooks that a plugin may implement. They offer parts and commands, and observe runs; they don't steer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    import numpy as np
    from numpy.typing import NDArray

    from segreg.registry.entry import Command, Entry, Family
    from segreg.task import Task

PROJECT = "segreg"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)
"""Mark a plugin's functions: `@segreg.hookimpl` above `def segreg_entries(): ...`."""


@hookspec
def segreg_entries() -> Iterable[Entry | Family]:  # type: ignore[empty-body]
    """Return the parts that the plugin offers."""


@hookspec
def segreg_commands() -> Iterable[Command]:  # type: ignore[empty-body]
    """Return the commands that the plugin adds to the command line."""


@hookspec
def segreg_run_start(run: Path, recipe: Mapping[str, Any]) -> None:
    """Called when a run begins, with its directory and the resolved recipe."""


@hookspec
def segreg_epoch_end(run: Path, epoch: int, values: Mapping[str, float]) -> None:
    """Called with an epoch's row of the history: losses, metrics, learning rates, speed."""


@hookspec
def segreg_overlay(
    run: Path, file: Path, image: NDArray[np.uint8], masks: Mapping[str, NDArray[np.uint8]], task: Task
) -> None:
    """Called at a run's end for each overlay that was written, before the results, with what is drawn in it.

    Shape: image uint8 `[H, W, 3]`; the masks "truth" and "prediction" labels `[H, W]` or, if multilabel, `[K, H, W]`,
    where 255 is ignored.
    """


@hookspec
def segreg_run_end(run: Path, results: Mapping[str, Any]) -> None:
    """Called with the final results, as `results.json` has them."""

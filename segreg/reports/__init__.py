"""Reports of runs, comparisons and matrices: one HTML file each, which opens from disk and needs nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from segreg.errors import SegregError

if TYPE_CHECKING:
    from segreg.config.resolve import Resolved
    from segreg.runs.directory import RunDirectory


def write_report(directory: RunDirectory, recipe: Resolved | None, file: Path | None = None) -> Path:
    """Write a run's report from the files in its folder, and return the report's file.

    A run that has not finished is reported as far as it got, and the report says so.

    Args:
        directory: the run's.
        recipe: the run's, to mark what differs from the defaults; None marks nothing.
        file: where to write it; the run's `report.html` if None.

    Raises:
        SegregError: a file of the run is broken, or the report can't be written.
    """
    from segreg.reports.render import write
    from segreg.reports.run import page
    from segreg.runtime.hub import refuse_to_write

    file = file or directory.report
    refuse_to_write(file.parent, "--out")
    return write(page(directory, recipe), file, "report")


def report_run(
    directory: RunDirectory, file: Path | None = None, *, warn: Callable[[str], object] = lambda _: None
) -> Path:
    """Write a run's report, as `write_report` does, with its recipe; return the report's file.

    Args:
        directory: the run's.
        file: where to write it; the run's `report.html` if None.
        warn: is called with what can't be marked where a plugin of the run is gone: its files are still there.
    """
    from segreg.runs.trained_run import Run

    try:
        recipe = Run(directory).recipe
    except SegregError as error:
        warn(f"what differs from the defaults is not marked: {error}")
        recipe = None
    return write_report(directory, recipe, file)

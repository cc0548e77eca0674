"""Reports of runs, comparisons and matrices: one HTML file each, which opens from disk and needs nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

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

    return write(page(directory, recipe), file or directory.report, "report")

"""The report of a run: one HTML file that says everything, opens from disk and needs nothing else."""

from __future__ import annotations

from pathlib import Path

from segreg.config.resolve import Resolved
from segreg.errors import SegregError
from segreg.reports.material import gather
from segreg.reports.run import page
from segreg.runs.directory import RunDirectory
from segreg.runtime.files import replacing
from segreg.runtime.progress import Progress


def write_report(directory: RunDirectory, recipe: Resolved | None, file: Path | None = None) -> Path:
    """Write a run's report from what its folder holds, and return the file.

    A run that has not come to its end is reported too, as far as it got, and the report says so.

    Args:
        directory: the run's.
        recipe: the run's, by which what differs from the defaults is marked; None leaves it unmarked.
        file: where to write it; the run's `report.html` if None.

    Raises:
        SegregError: a file of the run is broken, or the report can't be written.
    """
    file = file or directory.report
    text = page(gather(directory, recipe))
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as aside:
            aside.write_text(text, encoding="utf-8")
    except OSError as error:
        raise SegregError(f"the report {file} can't be written: {error.strerror}") from None
    return file


def report_if_possible(directory: RunDirectory, recipe: Resolved, progress: Progress) -> None:
    """Write the report at the end of a run; what goes wrong is told, and the run's results are not lost by it."""
    try:
        write_report(directory, recipe)
    except Exception as error:
        reason = str(error) or type(error).__name__
        progress.say(f"warning: no report was written: {reason}; segreg report {directory.path} tries it again")

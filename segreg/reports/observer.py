"""The plugin that writes a run's report at its end. Importing it imports nothing heavy."""

from __future__ import annotations

from pathlib import Path

from segreg.errors import SegregError
from segreg.registry.hooks import hookimpl


@hookimpl(tryfirst=True)  # so that the other observers find the report
def segreg_run_end(run: Path) -> None:
    """Write `report.html`; what goes wrong becomes a warning, and the run's results are not lost by it."""
    from segreg.reports import report_run
    from segreg.runs.directory import RunDirectory

    try:
        report_run(RunDirectory(run))
    except Exception as error:
        reason = str(error) or type(error).__name__
        raise SegregError(f"no report was written: {reason}; segreg report {run} tries again") from error
